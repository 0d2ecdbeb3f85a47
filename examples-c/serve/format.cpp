// What a request holds its answer to: see format.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "format.h"

namespace serve {

namespace {

// The schema of OpenAI's field; nothing: it asks for text.
std::optional<std::string> schema_of(const fields &given) {
    const std::string any = "{\"type\":\"object\"}", type = given.text("type").value_or("");
    if (type == "text") return std::nullopt;
    if (type == "json_object") {
        // llama.cpp's server takes a schema here.
        const auto schema = given.object("schema");
        return schema ? dump(schema->value()) : any;
    }
    if (type != "json_schema")
        throw invalid("response_format.type", dump(type) + " is not text, json_object or json_schema");
    const auto described = given.object("json_schema");
    if (!described) throw invalid("response_format.json_schema", "is missing");
    const auto schema = described->object("schema");
    return schema ? dump(schema->value()) : any;
}

} // namespace

format read_format(const fields &body) {
    format out;
    const auto take = [&out](const char *field, int32_t kind, std::string text) {
        if (out) throw invalid(field, std::string("cannot be there together with ") + out.field);
        out = {field, kind, std::move(text)};
    };
    if (const auto given = body.object("response_format"))
        if (auto schema = schema_of(*given)) take("response_format", KIGO_CONSTRAINT_JSON_SCHEMA, std::move(*schema));
    if (const auto schema = body.object("json_schema"))
        take("json_schema", KIGO_CONSTRAINT_JSON_SCHEMA, dump(schema->value()));
    // Clients send an empty one where there is none.
    if (auto grammar = body.text("grammar"); grammar && !grammar->empty())
        take("grammar", KIGO_CONSTRAINT_GBNF, std::move(*grammar));
    return out;
}

std::shared_ptr<const kigo::constraint> format::compile(service &s, const cancellation &request) const {
    if (field == nullptr) return nullptr;
    const uint64_t flags = kind == KIGO_CONSTRAINT_JSON_SCHEMA ? KIGO_CONSTRAINT_COMPACT : 0;
    const auto goes_on = [&] { return request ? 1 : 0; };
    return s.compiled.get(std::to_string(kind) + '\0' + text, field, request,
                          [&] { return s.model.compile(kind, text, flags, goes_on); });
}

} // namespace serve
