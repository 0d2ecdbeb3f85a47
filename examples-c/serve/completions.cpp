// /v1/completions.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "format.h"
#include "generation.h"
#include "inputs.h"

namespace serve {

namespace {

// Log probabilities of a choice, in the older form: columns.
struct columns {
    json tokens = json::array(), values = json::array(), top = json::array(), offsets = json::array();
    size_t n_bytes = 0;

    void add(const service &s, const piece &p) {
        const std::string text = s.model.token_text(p.token);
        tokens.push_back(text);
        values.push_back(std::max(p.logprobs[0].before, -9999.0f));
        offsets.push_back(n_bytes);
        n_bytes += text.size();
        json likeliest = json::object();
        for (size_t i = 1; i < p.logprobs.size(); i++)
            likeliest[s.model.token_text(p.logprobs[i].token)] = std::max(p.logprobs[i].before, -9999.0f);
        top.push_back(likeliest);
    }
    json take() {
        const json out = {{"tokens", tokens}, {"token_logprobs", values}, {"top_logprobs", top}, {"text_offset", offsets}};
        tokens = values = top = offsets = json::array();
        return out;
    }
};

struct completion {
    service &server;
    std::shared_ptr<exchange> request;
    parameters p;
    std::vector<kigo::tokens> prompts;
    bool echo;
    const std::string id = server.new_id("cmpl-");
    const int64_t created = static_cast<int64_t>(time(nullptr));
    std::optional<generation> generated; // of the prompt whose turn it is
    uint64_t n_prompt = 0, n_cached = 0, n_generated = 0;
    std::deque<columns> shown;

    completion(service &s, std::shared_ptr<exchange> r, const parameters &p, std::vector<kigo::tokens> prompts, bool echo)
        : server(s), request(std::move(r)), p(p), prompts(std::move(prompts)), echo(echo) {}

    json head() const {
        return {{"id", id}, {"object", "text_completion"}, {"created", created}, {"model", server.name()}};
    }
    json used() const { return usage(n_prompt, n_cached, n_generated); }
    void begin(size_t prompt) {
        generated.emplace(server, request, p, prompts[prompt]);
        generated->prefill();
        shown.assign(p.n, columns());
        n_prompt += generated->n_prompt();
        n_cached += generated->n_cached();
    }
    void end() {
        n_generated += generated->n_generated();
        generated.reset();
    }
    json choice(size_t prompt, size_t i, std::string text, json finish) {
        json logprobs = nullptr;
        if (p.logprobs) logprobs = shown[i].take();
        return {{"index", prompt * p.n + i}, {"text", text}, {"logprobs", logprobs}, {"finish_reason", finish}};
    }
    json whole();
    void stream(event_stream &out);
};

json completion::whole() {
    json out = head();
    out["choices"] = json::array();
    for (size_t prompt = 0; prompt < prompts.size(); prompt++) {
        if (!generated) begin(prompt);
        std::vector<std::string> texts(p.n, echo ? server.model.detokenize(prompts[prompt]) : "");
        generated->run([&](size_t i, const piece &one) {
            texts[i] += one.text;
            if (!one.logprobs.empty()) shown[i].add(server, one);
            return true;
        });
        for (size_t i = 0; i < p.n; i++) out["choices"].push_back(choice(prompt, i, texts[i], generated->finish(i)));
        end();
    }
    out["usage"] = used();
    return out;
}

void completion::stream(event_stream &out) {
    const auto write = [&](json choice) {
        json chunk = head();
        chunk["choices"] = json::array({choice});
        if (p.include_usage) chunk["usage"] = nullptr;
        return out.write(chunk);
    };
    for (size_t prompt = 0; prompt < prompts.size(); prompt++) {
        if (!generated) begin(prompt);
        const std::string given = echo ? server.model.detokenize(prompts[prompt]) : "";
        for (size_t i = 0; echo && i < p.n; i++) write(choice(prompt, i, given, nullptr));
        generated->run([&](size_t i, const piece &one) {
            if (!one.logprobs.empty()) shown[i].add(server, one);
            return one.text.empty() || write(choice(prompt, i, one.text, nullptr));
        });
        for (size_t i = 0; i < p.n; i++) write(choice(prompt, i, "", generated->finish(i)));
        end();
    }
    if (!p.include_usage) return;
    json last = head();
    last["choices"] = json::array();
    last["usage"] = used();
    out.write(last);
}

parameters read(service &s, const fields &body) {
    parameters p = read_parameters(s, body);
    p.max_tokens = body.whole("max_tokens", 1, UINT32_MAX).value_or(16);
    if (s.how.most_tokens != 0) p.max_tokens = std::min(p.max_tokens, s.how.most_tokens);
    if (const auto n = body.whole("logprobs", 0, 20)) {
        p.logprobs = true;
        p.n_top = std::min<uint64_t>(*n, s.facts.n_vocab);
    }
    if (body.find("suffix") != nullptr) throw invalid("suffix", "is not supported");
    if (const auto n = body.whole("best_of", 1, 16); n && *n != p.n) throw invalid("best_of", "is not supported but as n");
    return p;
}

} // namespace

void add_completions(http_server &http, service &s) {
    add_post(http, s, "/v1/completions",
             [&s](const json &body, std::shared_ptr<exchange> request, httplib::Response &response) {
                 const fields given(body);
                 parameters p = read(s, given);
                 const bool echo = given.flag("echo").value_or(false);
                 if (echo && p.logprobs) throw invalid("echo", "cannot be there together with logprobs");
                 auto prompts = read_inputs(s, given, "prompt", 128);
                 for (kigo::tokens &prompt : prompts)
                     if (prompt.empty()) throw invalid("prompt", "has no tokens");
                 p.held = read_format(given).compile(s, request->stop);
                 const auto answer = std::make_shared<completion>(s, request, p, std::move(prompts), echo);
                 answer->begin(0);
                 if (p.stream)
                     answer_stream(request, response, [answer](event_stream &out) { answer->stream(out); });
                 else
                     answer_json(response, answer->whole());
             });
}

} // namespace serve
