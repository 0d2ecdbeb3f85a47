// An answer taken apart: see answer.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "answer.h"

namespace serve {

answer::answer(service &s, const kigo_chat_options &chat, bool by_text) : service_(s), by_text_(by_text) {
    kigo_chat_parser *parser = nullptr;
    kigo::detail::check(kigo_chat_parser_create(s.model.get(), &chat, &parser));
    parser_.reset(parser);
}

void answer::push(const piece &p, std::vector<event> &out) {
    const kigo_chat_event *events = nullptr;
    size_t n = 0;
    if (by_text_)
        kigo::detail::check(kigo_chat_parser_push_text(parser_.get(), p.text.data(), p.text.size(), &events, &n));
    else if (p.token != KIGO_TOKEN_NONE)
        kigo::detail::check(kigo_chat_parser_push(parser_.get(), p.token, &events, &n));
    take(events, n, out);
}

void answer::finish(std::vector<event> &out) {
    const kigo_chat_event *events = nullptr;
    size_t n = 0;
    kigo::detail::check(kigo_chat_parser_finish(parser_.get(), &events, &n));
    take(events, n, out);
}

void answer::take(const kigo_chat_event *events, size_t n, std::vector<event> &out) {
    for (size_t i = 0; i < n; i++) {
        const kigo_chat_event &e = events[i];
        const std::string text(e.text, e.text_len);
        if (e.kind == KIGO_CHAT_THINKING) out.push_back({event::thinking, 0, text, ""});
        if (e.kind == KIGO_CHAT_ANSWER) out.push_back({event::content, 0, text, ""});
        if (e.kind == KIGO_CHAT_CALL_BEGUN) calls_.emplace_back();
        if (e.call >= calls_.size()) continue;
        call &c = calls_[e.call];
        if (e.kind == KIGO_CHAT_CALL_ID) c.id = text;
        if (e.kind == KIGO_CHAT_CALL_NAME) {
            c.named = true;
            out.push_back({event::call, e.call, text, c.id.empty() ? service_.new_id("call_") : c.id});
            if (!c.held.empty()) out.push_back({event::arguments, e.call, std::move(c.held), ""});
        }
        if (e.kind == KIGO_CHAT_CALL_ARGUMENTS && c.named) out.push_back({event::arguments, e.call, text, ""});
        if (e.kind == KIGO_CHAT_CALL_ARGUMENTS && !c.named) c.held += text;
    }
}

} // namespace serve
