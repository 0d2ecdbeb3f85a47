// JSON of a request, taken apart with checks, and what is wrong with it in OpenAI's form.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_JSON_H
#define KIGO_SERVE_JSON_H

#include <nlohmann/json.hpp>

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace serve {

// Objects keep their order: a template may write them out as they came.
using json = nlohmann::ordered_json;

// A request that is not answered: its HTTP status and the fields of OpenAI's `error` object.
struct fault : std::exception {
    int status;
    std::string type, message, param, code;
    int retry_after = 0; // seconds; 0: says nothing

    fault(int status, std::string type, std::string message, std::string param = "", std::string code = "")
        : status(status), type(std::move(type)), message(std::move(message)), param(std::move(param)), code(std::move(code)) {}
    const char *what() const noexcept override { return message.c_str(); }
};

// A fault of 400 that names a field.
fault invalid(const std::string &param, const std::string &why);

// The body of an answer to a fault.
std::string error_body(const fault &f);

// UTF-8 of a value; what is not UTF-8 in its texts becomes U+FFFD.
std::string dump(const json &value);

// The object that a body has. 400: no JSON, no object, more than 64 levels, 200,000 values or 1,024 members of an object,
// which bound what reading and writing it takes.
json parse_object(const std::string &body);

// Members of an object by name and range. One that is not there, or null, is nothing.
class fields {
public:
    // `prefix` stands in front of names in messages, such as "stream_options.".
    explicit fields(const json &object, std::string prefix = "");

    const json *find(const char *name) const;
    std::optional<bool> flag(const char *name) const;
    std::optional<double> number(const char *name, double least, double most) const;
    std::optional<uint64_t> whole(const char *name, uint64_t least, uint64_t most) const;
    std::optional<std::string> text(const char *name) const;
    // An object as fields.
    std::optional<fields> object(const char *name) const;
    // A text, or an array of at most `most` texts, none of them empty.
    std::vector<std::string> texts(const char *name, size_t most) const;
    const std::string &prefix() const { return prefix_; }
    const json &value() const { return *object_; }

private:
    const json *object_;
    std::string prefix_;
};

} // namespace serve

#endif // KIGO_SERVE_JSON_H
