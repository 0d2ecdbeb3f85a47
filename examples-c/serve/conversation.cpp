// The messages, tools and format of a chat request: see conversation.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "conversation.h"

namespace serve {

namespace {

// A content as one text: parts of text are put together.
std::string text_of(const json &content, const std::string &where) {
    if (content.is_null()) return "";
    if (content.is_string()) return content.get<std::string>();
    if (!content.is_array()) throw invalid(where, "is neither a string nor an array of parts");
    std::string out;
    for (const json &part : content) {
        if (!part.is_object()) throw invalid(where, "a part is no object");
        const fields given(part, where + "[].");
        const std::string type = given.text("type").value_or("");
        if (type != "text" && type != "refusal") throw invalid(where, "a part of type " + dump(type) + " is not supported");
        out += given.text(type.c_str()).value_or("");
    }
    return out;
}

// A call of an earlier answer. Templates want the arguments as an object, those who do not get them as the text that came.
json call_of(const json &call, const std::string &where) {
    if (!call.is_object()) throw invalid(where, "a call is no object");
    const auto function = fields(call, where + "[].").object("function");
    if (!function) throw invalid(where, "a call has no function");
    if (!function->text("name")) throw invalid(where, "a call has no name");
    const auto text = function->text("arguments");
    json out = call;
    json arguments = json::object();
    if (text && !text->empty()) {
        try {
            arguments = parse_object(*text);
        } catch (const fault &) { // a model's own mistake is told as it was made
            arguments = *text;
        }
    }
    out["function"]["arguments"] = arguments;
    return out;
}

json with_texts(json messages) {
    for (json &message : messages) {
        if (!message.contains("tool_calls")) continue;
        for (json &call : message["tool_calls"]) {
            json &arguments = call["function"]["arguments"];
            if (!arguments.is_string()) arguments = dump(arguments);
        }
    }
    return messages;
}

} // namespace

conversation::conversation(const fields &body) {
    read_messages(body);
    read_tools(body);
    format_ = read_format(body);
    // Both would say what the whole answer is.
    if (format_.kind == KIGO_CONSTRAINT_GBNF && !tools_.empty()) throw invalid("grammar", "cannot be there together with tools");
    read_variables(body);
}

void conversation::read_variables(const fields &body) {
    json variables = json::object();
    // Thinking is of no such form: who asks for one gets the answer alone.
    if (format_) variables["enable_thinking"] = false;
    if (const auto more = body.object("chat_template_kwargs"))
        for (const auto &[name, value] : more->value().items()) variables[name] = value;
    if (const auto effort = body.text("reasoning_effort")) variables["reasoning_effort"] = *effort;
    variables_ = dump(variables);
}

void conversation::read_messages(const fields &body) {
    const json *messages = body.find("messages");
    if (messages == nullptr) throw invalid("messages", "is missing");
    if (!messages->is_array() || messages->empty()) throw invalid("messages", "is no array of at least one message");
    for (size_t i = 0; i < messages->size(); i++) {
        const std::string where = "messages[" + std::to_string(i) + "]";
        if (!(*messages)[i].is_object()) throw invalid(where, "is no object");
        json message = (*messages)[i];
        const fields given(message, where + ".");
        std::string role = given.text("role").value_or("");
        if (role != "system" && role != "developer" && role != "user" && role != "assistant" && role != "tool")
            throw invalid(where + ".role", dump(role) + " is not system, developer, user, assistant or tool");
        const json *content = given.find("content");
        if (content == nullptr && role != "assistant") throw invalid(where + ".content", "is missing");
        const std::string text = text_of(content != nullptr ? *content : json(nullptr), where + ".content");
        if (const json *calls = given.find("tool_calls")) {
            if (!calls->is_array()) throw invalid(where + ".tool_calls", "is no array");
            json taken = json::array();
            for (const json &call : *calls) taken.push_back(call_of(call, where + ".tool_calls"));
            has_calls_ = has_calls_ || !taken.empty();
            message["tool_calls"] = taken;
        } else {
            message.erase("tool_calls");
        }
        for (const char *unknown : {"refusal", "audio", "function_call", "annotations"}) message.erase(unknown);
        // To models it is the system's: templates know no developer.
        message["role"] = role == "developer" ? "system" : role;
        message["content"] = text;
        messages_.push_back(std::move(message));
    }
}

void conversation::read_tools(const fields &body) {
    const json *tools = body.find("tools");
    if (tools != nullptr && !tools->is_array()) throw invalid("tools", "is no array");
    const json none = json::array();
    for (const json &tool : tools != nullptr ? *tools : none) {
        if (!tool.is_object()) throw invalid("tools", "a tool is no object");
        const fields given(tool, "tools[].");
        if (given.text("type").value_or("") != "function") throw invalid("tools", "a tool's type is not function");
        const auto function = given.object("function");
        if (!function || function->text("name").value_or("").empty()) throw invalid("tools", "a tool has no name");
        function->object("parameters");
    }
    if (tools != nullptr && !tools->empty()) tools_ = dump(*tools);
    read_choice(body, tools != nullptr ? *tools : none);
    one_call_ = !body.flag("parallel_tool_calls").value_or(true);
}

void conversation::read_choice(const fields &body, const json &tools) {
    const json *choice = body.find("tool_choice");
    if (choice == nullptr || *choice == "auto") return;
    if (*choice == "none") {
        tools_.clear();
        return;
    }
    if (choice->is_object()) {
        const auto function = fields(*choice, "tool_choice.").object("function");
        choice_name_ = function ? function->text("name").value_or("") : "";
        for (const json &tool : tools)
            if (tool["function"]["name"] == choice_name_) choice_ = KIGO_TOOLS_NAMED;
    } else if (*choice == "required" && !tools.empty()) {
        choice_ = KIGO_TOOLS_REQUIRED;
    }
    if (choice_ == KIGO_TOOLS_AUTO)
        throw invalid("tool_choice", "is not none, auto, required with tools, or the name of one of the tools");
}

kigo_chat_options conversation::options() const {
    kigo_chat_options out{};
    out.struct_size = sizeof out;
    if (!tools_.empty()) {
        out.tools_json = tools_.data();
        out.tools_json_len = tools_.size();
    }
    out.variables_json = variables_.data();
    out.variables_json_len = variables_.size();
    return out;
}

kigo::tokens conversation::render(const service &s) const {
    kigo_chat_options how = options();
    how.flags = KIGO_CHAT_ADD_GENERATION_PROMPT;
    try {
        return s.model.chat_json(dump(messages_), how);
    } catch (const kigo::error &e) {
        if (!has_calls_ || e.status() != KIGO_STATUS_INVALID_ARGUMENT) throw fault_of(e, "messages");
    }
    try {
        return s.model.chat_json(dump(with_texts(messages_)), how);
    } catch (const kigo::error &e) {
        throw fault_of(e, "messages");
    }
}

namespace {

int32_t go_on(void *request) { return *static_cast<const cancellation *>(request) ? 1 : 0; }

} // namespace

// Of a format and tools that may be called it is the format: an answer cannot be held to both.
std::shared_ptr<const kigo::constraint> conversation::constraint(service &s, const cancellation &request) const {
    const bool has_to_call = choice_ != KIGO_TOOLS_AUTO;
    if (format_ && !has_to_call) return format_.compile(s, request);
    if (tools_.empty()) return nullptr;
    kigo_tools_options how{};
    how.choice = static_cast<uint64_t>(choice_);
    how.name = choice_name_.data();
    how.name_len = choice_ == KIGO_TOOLS_NAMED ? choice_name_.size() : 0;
    how.flags = one_call_ ? KIGO_TOOLS_ONE_CALL : 0;
    how.go_on = go_on;
    how.user_data = const_cast<cancellation *>(&request);
    const std::string key = tools_ + '\0' + variables_ + '\0' + std::to_string(choice_) + choice_name_ + (one_call_ ? "1" : "");
    try {
        return s.compiled.get(key, has_to_call ? "tool_choice" : "tools", request,
                              [&] { return s.model.compile_tools(options(), how); });
    } catch (const fault &f) {
        // The template's way to write calls is not known, or a schema asks for what no grammar has: an answer that may call
        // is not held to anything then. One that has to cannot be had.
        if (has_to_call || f.status != 400) throw;
        return nullptr;
    }
}

} // namespace serve
