// Texts or tokens of a request, one or many.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_INPUTS_H
#define KIGO_SERVE_INPUTS_H

#include "service.h"

namespace serve {

// The field's texts or tokens, as tokens: a string, an array of strings, an array of ids, or an array of such arrays.
inline std::vector<kigo::tokens> read_inputs(const service &s, const fields &body, const char *name, size_t most) {
    const json *value = body.find(name);
    if (value == nullptr) throw invalid(name, "is missing");
    const auto ids_of = [&](const json &array) {
        kigo::tokens ids;
        for (const json &id : array) {
            if (!id.is_number_unsigned() || id.get<uint64_t>() >= s.facts.n_vocab)
                throw invalid(name, dump(id) + " is not a token below " + std::to_string(s.facts.n_vocab));
            ids.push_back(id.get<uint32_t>());
        }
        return ids;
    };
    const auto one_of = [&](const json &one) {
        if (one.is_string()) return s.model.tokenize(one.get_ref<const std::string &>());
        if (one.is_array()) return ids_of(one);
        throw invalid(name, "is neither text nor tokens");
    };
    if (!value->is_array()) return {one_of(*value)};
    if (value->empty()) throw invalid(name, "is empty");
    if ((*value)[0].is_number()) return {ids_of(*value)};
    if (value->size() > most)
        throw invalid(name, std::to_string(value->size()) + " of them are more than " + std::to_string(most));
    std::vector<kigo::tokens> out;
    for (const json &one : *value) out.push_back(one_of(one));
    return out;
}

} // namespace serve

#endif // KIGO_SERVE_INPUTS_H
