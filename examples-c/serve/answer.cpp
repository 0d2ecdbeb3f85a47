// An answer taken apart: see answer.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "answer.h"

namespace serve {

answer::answer(service &s, const kigo_chat_options &chat, bool by_text)
    : service_(s), parser_(s.model.open_chat_parser(chat)), by_text_(by_text) {}

void answer::push(const piece &p, std::vector<event> &out) {
    if (by_text_)
        take(parser_.push_text(p.text), out);
    else if (p.token != KIGO_TOKEN_NONE)
        take(parser_.push(p.token), out);
}

void answer::finish(std::vector<event> &out) { take(parser_.finish(), out); }

void answer::take(const std::vector<kigo::chat_event> &events, std::vector<event> &out) {
    for (const kigo::chat_event &e : events) {
        if (e.kind == KIGO_CHAT_THINKING) out.push_back({event::thinking, 0, e.text, ""});
        if (e.kind == KIGO_CHAT_ANSWER) out.push_back({event::content, 0, e.text, ""});
        if (e.kind == KIGO_CHAT_CALL_BEGUN) calls_.emplace_back();
        if (e.call >= calls_.size()) continue;
        call &c = calls_[e.call];
        if (e.kind == KIGO_CHAT_CALL_ID) c.id = e.text;
        if (e.kind == KIGO_CHAT_CALL_NAME) {
            c.named = true;
            out.push_back({event::call, e.call, e.text, c.id.empty() ? service_.new_id("call_") : c.id});
            if (!c.held.empty()) out.push_back({event::arguments, e.call, std::move(c.held), ""});
        }
        if (e.kind == KIGO_CHAT_CALL_ARGUMENTS && c.named) out.push_back({event::arguments, e.call, e.text, ""});
        if (e.kind == KIGO_CHAT_CALL_ARGUMENTS && !c.named) c.held += e.text;
    }
}

} // namespace serve
