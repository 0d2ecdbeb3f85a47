// An answer taken apart as it comes: thinking, what is said, and calls of tools. The library's parser does it, which knows
// how the model's template writes them; here its events become those of OpenAI's deltas.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_ANSWER_H
#define KIGO_SERVE_ANSWER_H

#include "generation.h"

namespace serve {

// What has become certain. A call begins with its id and name; its arguments follow, in one piece or in several.
struct event {
    enum kind_t { thinking, content, call, arguments } kind;
    size_t call_index;
    std::string text, id;
};

class answer {
public:
    // With the tools, variables and template of the prompt. With `by_text` an answer is told apart by its text, which a stop
    // string may have cut, and control tokens have to be in it; else by its tokens.
    answer(service &s, const kigo_chat_options &chat, bool by_text);

    void push(const piece &p, std::vector<event> &out);
    // The answer has ended.
    void finish(std::vector<event> &out);
    size_t n_calls() const { return calls_.size(); }

private:
    struct call {
        std::string id, held; // arguments in front of the name
        bool named = false;
    };
    void take(const std::vector<kigo::chat_event> &events, std::vector<event> &out);

    service &service_;
    kigo::chat_parser parser_;
    std::vector<call> calls_;
    bool by_text_;
};

} // namespace serve

#endif // KIGO_SERVE_ANSWER_H
