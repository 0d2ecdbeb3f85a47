// The messages, tools and format of a chat request: checked, and as the model's template takes them.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_CONVERSATION_H
#define KIGO_SERVE_CONVERSATION_H

#include "format.h"

namespace serve {

class conversation {
public:
    // Faults name the field.
    explicit conversation(const fields &body);

    // The prompt's tokens.
    kigo::tokens render(const service &s) const;
    // What the answer is held to: a format, or the tools' schemas from where a call begins. Nothing: it is free.
    std::shared_ptr<const kigo::constraint> constraint(service &s, const cancellation &request) const;
    // Tools and variables as the library takes them, valid as long as this.
    kigo_chat_options options() const;

private:
    void read_messages(const fields &body);
    void read_tools(const fields &body);
    void read_choice(const fields &body, const json &tools);
    void read_variables(const fields &body);

    json messages_ = json::array();
    std::string tools_, variables_; // in JSON; no tools: empty
    int32_t choice_ = KIGO_TOOLS_AUTO;
    std::string choice_name_;
    bool one_call_ = false;
    bool has_calls_ = false;
    format format_;
};

} // namespace serve

#endif // KIGO_SERVE_CONVERSATION_H
