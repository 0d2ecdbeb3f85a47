// What a request holds its answer to, tools apart.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_FORMAT_H
#define KIGO_SERVE_FORMAT_H

#include "service.h"

namespace serve {

struct format {
    const char *field = nullptr; // that it came from; none: the answer is free
    int32_t kind = 0;            // KIGO_CONSTRAINT_*
    std::string text;

    explicit operator bool() const { return field != nullptr; }
    // A fault names the field.
    std::shared_ptr<const kigo::constraint> compile(service &s, const cancellation &request) const;
};

// `grammar` (GBNF) or `json_schema`, as llama.cpp's server has them, or OpenAI's `response_format`; one of them alone.
format read_format(const fields &body);

} // namespace serve

#endif // KIGO_SERVE_FORMAT_H
