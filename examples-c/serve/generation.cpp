// Sequences of one prompt: see generation.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "generation.h"

#include <system_error>
#include <thread>

namespace serve {

generation::generation(service &s, std::shared_ptr<exchange> request, const parameters &p, kigo::tokens prompt)
    : service_(s), request_(std::move(request)), p_(p), prompt_(std::move(prompt)) {
    if (prompt_.size() >= s.n_ctx)
        throw fault(400, "invalid_request_error",
                    "the prompt has " + std::to_string(prompt_.size()) + " tokens, and the context " + std::to_string(s.n_ctx),
                    p_.prompt_name, "context_length_exceeded");
}

generation::~generation() {
    for (choice &c : choices_)
        if (c.session) request_->stop.remove(c.session->get());
}

kigo_sampling generation::sampling_of(size_t number) const {
    kigo_sampling out = p_.sampling;
    out.seed += number;
    out.logit_bias = p_.bias.data();
    out.n_logit_bias = p_.bias.size();
    return out;
}

// Lets go of all that the session holds, and waits until another has ended.
void generation::give_up(choice &c) {
    c.session->truncate(0);
    service_.figures.recomputed++;
    c.holder->wait(request_->stop);
}

// Gives pages up, or has others do it. What cannot be helped is thrown.
void generation::make_room(choice &c, const kigo::error &e) {
    if (e.status() != KIGO_STATUS_CACHE_FULL && e.status() != KIGO_STATUS_OUT_OF_MEMORY) {
        request_->stop.check();
        throw e;
    }
    if (c.holder->too_few(request_->stop, fault_of(e, p_.prompt_name))) give_up(c);
}

// Has the session hold all of the choice's tokens.
void generation::bring_up(choice &c) {
    for (;;) {
        try {
            const size_t n = c.session->n_tokens();
            if (n < c.ids.size()) c.session->prefill(kigo::tokens(c.ids.begin() + static_cast<long>(n), c.ids.end()));
            return;
        } catch (const kigo::error &e) {
            make_room(c, e);
        }
    }
}

void generation::prefill() {
    place_.emplace(service_.entrance, p_.n, request_->stop);
    for (size_t i = 0; i < p_.n; i++) choices_.emplace_back(service_.cache);
    choice &first = choices_[0];
    first.session.emplace(service_.model.open(sampling_of(0), service_.n_ctx, KIGO_SESSION_REUSE_PREFIX));
    request_->stop.add(first.session->get());
    first.ids = prompt_;
    bring_up(first);
    n_cached_ = first.session->info().n_tokens_reused;
    for (size_t i = 0; i < p_.n; i++) {
        choice &c = choices_[i];
        if (i != 0) {
            c.session.emplace(first.session->fork());
            request_->stop.add(c.session->get());
            c.session->set_sampling(sampling_of(i));
            c.ids = prompt_;
        }
        if (p_.held) c.session->set_constraint(*p_.held);
        c.text.emplace(service_.model.open_stream(p_.stop, p_.special ? KIGO_TEXT_SPECIAL : 0));
    }
    request_->stop.check();
    service_.figures.prompt_tokens += prompt_.size();
    service_.figures.cached_tokens += n_cached_;
}

// The token is the choice's now. False: it has ended.
bool generation::take(choice &c, size_t number, uint32_t token, std::vector<kigo_logprob> logprobs,
                      const piece_function &on_piece) {
    if (first_.exchange(false))
        service_.figures.first_token.add(std::chrono::duration<double>(clock::now() - request_->began).count());
    c.ids.push_back(token);
    c.n_generated++;
    service_.figures.generated_tokens++;
    const piece p{token, c.text->push(token), std::move(logprobs)};
    if (!on_piece(number, p)) request_->stop.cancel(reason::gone);
    if (request_->stop) return false;
    if (c.text->stopped()) {
        c.finish = "stop";
        c.done = true;
    }
    return !c.done;
}

bool generation::full(const choice &c) const {
    return (p_.max_tokens != 0 && c.n_generated >= p_.max_tokens) || c.ids.size() >= service_.n_ctx;
}

// By the library's own loop, with how likely each token was where that is wanted.
void generation::generate(choice &c, size_t number, const piece_function &on_piece) {
    kigo::generate_options options;
    options.max_tokens = p_.max_tokens == 0 ? 0 : p_.max_tokens - c.n_generated;
    const auto took = [&](uint32_t token, std::vector<kigo_logprob> logprobs) {
        return take(c, number, token, std::move(logprobs), on_piece) && !c.holder->must_give_up() ? 0 : 1;
    };
    const auto on_step = [&](const kigo_step_event &e) {
        if (e.token == KIGO_TOKEN_NONE) return 0;
        std::vector<kigo_logprob> found{{e.token, e.before, e.after}};
        found.insert(found.end(), e.top, e.top + e.n_top);
        return took(e.token, std::move(found));
    };
    const auto on_token = [&](uint32_t token, std::string_view) { return token == KIGO_TOKEN_NONE ? 0 : took(token, {}); };
    const kigo_generated end =
        p_.logprobs ? c.session->generate_steps(options, p_.n_top, on_step) : c.session->generate(options, on_token);
    if (end.stop_reason == KIGO_STOP_END_TOKEN) c.finish = "stop";
    if (end.stop_reason != KIGO_STOP_CALLBACK) c.done = true;
}

void generation::run_one(size_t number, const piece_function &on_piece) {
    choice &c = choices_[number];
    while (!c.done && !request_->stop) {
        try {
            if (c.holder->must_give_up()) give_up(c);
            bring_up(c);
            if (full(c)) break;
            generate(c, number, on_piece);
        } catch (const kigo::error &e) {
            try {
                make_room(c, e);
            } catch (const fault &) {
                if (request_->stop || c.n_generated == 0) throw;
                break; // nobody has pages to give: as if the context were full
            }
        }
    }
    request_->stop.check();
    if (!c.text->stopped()) {
        const piece last{KIGO_TOKEN_NONE, c.text->finish(), {}};
        if (!last.text.empty()) on_piece(number, last);
    }
    // What it held is free for others from now on.
    request_->stop.remove(c.session->get());
    c.session.reset();
    c.holder.reset();
}

void generation::run(const piece_function &on_piece) {
    std::vector<std::exception_ptr> thrown(p_.n);
    const auto one = [&](size_t number) {
        try {
            run_one(number, on_piece);
        } catch (...) {
            thrown[number] = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    size_t begun = 1;
    try {
        for (; begun < p_.n; begun++) others.emplace_back(one, begun);
    } catch (const std::system_error &) { // no more threads: one after the other then
    }
    one(0);
    for (; begun < p_.n; begun++) one(begun);
    for (std::thread &t : others) t.join();
    for (const std::exception_ptr &e : thrown)
        if (e) std::rethrow_exception(e);
}

uint64_t generation::n_generated() const {
    uint64_t n = 0;
    for (const choice &c : choices_) n += c.n_generated;
    return n;
}

json logprob_entry(const service &s, const piece &p) {
    const auto entry = [&](const kigo_logprob &one) {
        const std::string text = s.model.token_text(one.token);
        json bytes = json::array();
        for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
        // To OpenAI's clients a log probability is a number.
        return json{{"token", text}, {"logprob", std::max(one.before, -9999.0f)}, {"bytes", bytes}};
    };
    json out = entry(p.logprobs[0]);
    out["top_logprobs"] = json::array();
    for (size_t i = 1; i < p.logprobs.size(); i++) out["top_logprobs"].push_back(entry(p.logprobs[i]));
    return out;
}

json usage(uint64_t n_prompt, uint64_t n_cached, uint64_t n_generated) {
    return {{"prompt_tokens", n_prompt},
            {"completion_tokens", n_generated},
            {"total_tokens", n_prompt + n_generated},
            {"prompt_tokens_details", {{"cached_tokens", n_cached}}}};
}

} // namespace serve
