// /v1/chat/completions.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "answer.h"
#include "conversation.h"
#include "generation.h"

namespace serve {

namespace {

// A choice as it grows.
struct said {
    said(service &s, const kigo_chat_options &chat, bool by_text) : taken(s, chat, by_text) {}
    answer taken;
    std::string content, thinking;
    json calls = json::array();
    json logprobs = json::array();
};

struct chat {
    service &server;
    parameters p;
    std::string id;
    int64_t created;
    generation generated;
    std::deque<said> choices;

    chat(service &s, std::shared_ptr<exchange> r, const parameters &p, const conversation &talk)
        : server(s), p(p), id(s.new_id("chatcmpl-")), created(static_cast<int64_t>(time(nullptr))),
          generated(s, std::move(r), p, talk.render(s)) {
        const kigo_chat_options options = talk.options();
        for (uint64_t i = 0; i < p.n; i++) choices.emplace_back(s, options, p.special);
    }

    json head(const char *object) const {
        return {{"id", id}, {"object", object}, {"created", created}, {"model", server.name()}};
    }
    json used() const { return usage(generated.n_prompt(), generated.n_cached(), generated.n_generated()); }
    const char *finish(size_t i) const { return choices[i].taken.n_calls() != 0 ? "tool_calls" : generated.finish(i); }

    // Takes a piece apart; what has become certain.
    std::vector<event> take(size_t i, const piece &one) {
        std::vector<event> events;
        choices[i].taken.push(one, events);
        return events;
    }
    std::vector<event> end(size_t i) {
        std::vector<event> events;
        choices[i].taken.finish(events);
        return events;
    }
    void keep(size_t i, const std::vector<event> &events);
    json whole();
    json take_logprobs(size_t i);
    json delta(const event &e) const;
    json chunk(size_t i, json delta, json finish, json logprobs) const;
    bool write(event_stream &out, size_t i, const std::vector<event> &events);
    void stream(event_stream &out);
};

void chat::keep(size_t i, const std::vector<event> &events) {
    said &c = choices[i];
    for (const event &e : events) {
        if (e.kind == event::content) c.content += e.text;
        if (e.kind == event::thinking) c.thinking += e.text;
        if (e.kind == event::call)
            c.calls.push_back({{"id", e.id}, {"type", "function"}, {"function", {{"name", e.text}, {"arguments", ""}}}});
        if (e.kind == event::arguments) {
            auto &arguments = c.calls[e.call_index]["function"]["arguments"].get_ref<std::string &>();
            arguments += e.text;
        }
    }
}

json chat::whole() {
    generated.run([this](size_t i, const piece &one) {
        keep(i, take(i, one));
        if (!one.logprobs.empty()) choices[i].logprobs.push_back(logprob_entry(server, one));
        return true;
    });
    json out = head("chat.completion");
    out["choices"] = json::array();
    for (size_t i = 0; i < choices.size(); i++) {
        keep(i, end(i));
        said &c = choices[i];
        json message = {{"role", "assistant"}, {"content", c.content}, {"refusal", nullptr}};
        if (c.content.empty() && !c.calls.empty()) message["content"] = nullptr;
        if (!c.thinking.empty()) message["reasoning_content"] = c.thinking;
        if (!c.calls.empty()) message["tool_calls"] = c.calls;
        json logprobs = nullptr;
        if (p.logprobs) logprobs = {{"content", c.logprobs}, {"refusal", nullptr}};
        out["choices"].push_back(
            {{"index", i}, {"message", message}, {"logprobs", logprobs}, {"finish_reason", finish(i)}});
    }
    out["usage"] = used();
    return out;
}

// Those of the choice's tokens since the last ones; null if there are none.
json chat::take_logprobs(size_t i) {
    json &held = choices[i].logprobs;
    if (held.empty()) return nullptr;
    json out = {{"content", std::move(held)}, {"refusal", nullptr}};
    held = json::array();
    return out;
}

json chat::delta(const event &e) const {
    if (e.kind == event::content) return {{"content", e.text}};
    if (e.kind == event::thinking) return {{"reasoning_content", e.text}};
    json call = {{"index", e.call_index}};
    if (e.kind == event::call) {
        call["id"] = e.id;
        call["type"] = "function";
        call["function"] = {{"name", e.text}, {"arguments", ""}};
    } else {
        call["function"] = {{"arguments", e.text}};
    }
    return {{"tool_calls", json::array({call})}};
}

json chat::chunk(size_t i, json delta, json finish, json logprobs) const {
    json out = head("chat.completion.chunk");
    const json choice = {{"index", i}, {"delta", delta}, {"logprobs", logprobs}, {"finish_reason", finish}};
    out["choices"] = json::array({choice});
    if (p.include_usage) out["usage"] = nullptr;
    return out;
}

// The events of a choice; the log probabilities of the tokens since the last ones go with the first of them.
bool chat::write(event_stream &out, size_t i, const std::vector<event> &events) {
    for (const event &e : events)
        if (!out.write(chunk(i, delta(e), nullptr, take_logprobs(i)))) return false;
    return true;
}

void chat::stream(event_stream &out) {
    for (size_t i = 0; i < choices.size(); i++)
        out.write(chunk(i, {{"role", "assistant"}, {"content", ""}, {"refusal", nullptr}}, nullptr, nullptr));
    generated.run([&](size_t i, const piece &one) {
        if (!one.logprobs.empty()) choices[i].logprobs.push_back(logprob_entry(server, one));
        return write(out, i, take(i, one));
    });
    for (size_t i = 0; i < choices.size(); i++) {
        write(out, i, end(i));
        out.write(chunk(i, json::object(), finish(i), take_logprobs(i)));
    }
    if (!p.include_usage) return;
    json last = head("chat.completion.chunk");
    last["choices"] = json::array();
    last["usage"] = used();
    out.write(last);
}

// What is refused by name: it would change the answer, and is not done.
void check_fields(const fields &body) {
    for (const char *name : {"functions", "function_call", "audio", "prediction", "web_search_options"})
        if (body.find(name) != nullptr) throw invalid(name, "is not supported");
    const json *modalities = body.find("modalities");
    if (modalities != nullptr && *modalities != json::array({"text"})) throw invalid("modalities", "there is text alone");
}

parameters read(service &s, const fields &body) {
    parameters p = read_parameters(s, body);
    p.prompt_name = "messages";
    p.max_tokens = s.how.most_tokens;
    const char *name = body.find("max_completion_tokens") != nullptr ? "max_completion_tokens" : "max_tokens";
    if (const auto n = body.whole(name, 1, UINT32_MAX)) p.max_tokens = p.max_tokens != 0 ? std::min(*n, p.max_tokens) : *n;
    p.logprobs = body.flag("logprobs").value_or(false);
    if (const auto n = body.whole("top_logprobs", 0, 20)) {
        if (!p.logprobs) throw invalid("top_logprobs", "needs logprobs to be true");
        p.n_top = std::min<uint64_t>(*n, s.facts.n_vocab);
    }
    return p;
}

} // namespace

void add_chat(http_server &http, service &s) {
    add_post(http, s, "/v1/chat/completions",
             [&s](const json &body, std::shared_ptr<exchange> request, httplib::Response &response) {
                 const fields given(body);
                 check_fields(given);
                 parameters p = read(s, given);
                 const conversation talk(given);
                 p.held = talk.constraint(s, request->stop);
                 // A stop string is looked for in the text, and what stands behind it is not to be told apart.
                 p.special = !p.stop.empty();
                 const auto answer = std::make_shared<chat>(s, request, p, talk);
                 answer->generated.prefill();
                 if (p.stream)
                     answer_stream(request, response, [answer](event_stream &out) { answer->stream(out); });
                 else
                     answer_json(response, answer->whole());
             });
}

} // namespace serve
