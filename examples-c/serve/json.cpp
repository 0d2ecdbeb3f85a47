// JSON of a request: see json.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "json.h"

#include <cmath>

namespace serve {

namespace {

constexpr size_t MOST_DEPTH = 64, MOST_VALUES = 200000, MOST_MEMBERS = 1024;

std::string shown(const json &value) {
    std::string text = dump(value);
    if (text.size() > 64) {
        size_t end = 60;
        while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) end--;
        text = text.substr(0, end) + "...";
    }
    return text;
}

// One pass over the bytes, before anything is made of them: an object's members are looked for one after the other, and
// values are written out by recursion.
void check_shape(const std::string &body) {
    struct level {
        bool object;
        size_t n;
    };
    std::vector<level> levels;
    size_t n_values = 1;
    bool text = false;
    for (size_t i = 0; i < body.size(); i++) {
        const char c = body[i];
        if (text) {
            if (c == '\\') i++;
            text = c != '"';
        } else if (c == '"') {
            text = true;
        } else if (c == '{' || c == '[') {
            levels.push_back({c == '{', 1});
            n_values++;
            if (levels.size() > MOST_DEPTH) throw invalid("", "the body is more than 64 levels deep");
        } else if ((c == '}' || c == ']') && !levels.empty()) {
            levels.pop_back();
        } else if (c == ',' && !levels.empty()) {
            n_values++;
            if (++levels.back().n > MOST_MEMBERS && levels.back().object)
                throw invalid("", "an object of the body has more than 1024 members");
        }
        if (n_values > MOST_VALUES) throw invalid("", "the body has more than 200000 values");
    }
}

std::string number_text(double x) {
    char out[32];
    snprintf(out, sizeof out, "%g", x);
    return out;
}

} // namespace

fault invalid(const std::string &param, const std::string &why) {
    return fault(400, "invalid_request_error", param.empty() ? why : param + ": " + why, param);
}

std::string dump(const json &value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

std::string error_body(const fault &f) {
    json error = {{"message", f.message}, {"type", f.type}};
    error["param"] = f.param.empty() ? json(nullptr) : json(f.param);
    error["code"] = f.code.empty() ? json(nullptr) : json(f.code);
    return dump(json{{"error", error}});
}

json parse_object(const std::string &body) {
    check_shape(body);
    json value;
    try {
        value = json::parse(body);
    } catch (const json::parse_error &e) {
        throw invalid("", "the body is no JSON: mistake at byte " + std::to_string(e.byte));
    } catch (const json::exception &) {
        throw invalid("", "the body is no JSON: a number is too large");
    }
    if (!value.is_object()) throw invalid("", "the body is no JSON object");
    return value;
}

fields::fields(const json &object, std::string prefix) : object_(&object), prefix_(std::move(prefix)) {}

const json *fields::find(const char *name) const {
    const auto found = object_->find(name);
    return found == object_->end() || found->is_null() ? nullptr : &*found;
}

std::optional<bool> fields::flag(const char *name) const {
    const json *value = find(name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_boolean()) throw invalid(prefix_ + name, shown(*value) + " is not true or false");
    return value->get<bool>();
}

std::optional<double> fields::number(const char *name, double least, double most) const {
    const json *value = find(name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number()) throw invalid(prefix_ + name, shown(*value) + " is not a number");
    const double x = value->get<double>();
    if (!(x >= least && x <= most))
        throw invalid(prefix_ + name, shown(*value) + " is not within " + number_text(least) + " to " + number_text(most));
    return x;
}

std::optional<uint64_t> fields::whole(const char *name, uint64_t least, uint64_t most) const {
    const json *value = find(name);
    if (value == nullptr) return std::nullopt;
    const bool is_whole = value->is_number_unsigned() || (value->is_number_float() && value->get<double>() >= 0 &&
                                                          value->get<double>() < 9007199254740992.0 &&
                                                          std::floor(value->get<double>()) == value->get<double>());
    if (!value->is_number()) throw invalid(prefix_ + name, shown(*value) + " is not a whole number");
    const uint64_t n = is_whole ? value->get<uint64_t>() : 0;
    if (!is_whole || n < least || n > most)
        throw invalid(prefix_ + name, shown(*value) + " is not a whole number from " + std::to_string(least) + " to " +
                                          std::to_string(most));
    return n;
}

std::optional<std::string> fields::text(const char *name) const {
    const json *value = find(name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) throw invalid(prefix_ + name, shown(*value) + " is not a string");
    return value->get<std::string>();
}

std::optional<fields> fields::object(const char *name) const {
    const json *value = find(name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_object()) throw invalid(prefix_ + name, shown(*value) + " is not an object");
    return fields(*value, prefix_ + name + ".");
}

std::vector<std::string> fields::texts(const char *name, size_t most) const {
    const json *value = find(name);
    std::vector<std::string> out;
    if (value == nullptr) return out;
    if (value->is_string()) {
        out.push_back(value->get<std::string>());
    } else if (value->is_array() && value->size() <= most) {
        for (const json &one : *value) {
            if (!one.is_string()) throw invalid(prefix_ + name, shown(one) + " is not a string");
            out.push_back(one.get<std::string>());
        }
    } else {
        throw invalid(prefix_ + name, shown(*value) + " is not a string or an array of at most " + std::to_string(most));
    }
    for (const std::string &one : out)
        if (one.empty()) throw invalid(prefix_ + name, "a text is empty");
    return out;
}

} // namespace serve
