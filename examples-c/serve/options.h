// The options of the command line.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_OPTIONS_H
#define KIGO_SERVE_OPTIONS_H

#include "service.h"

#include <stdexcept>

namespace serve {

extern const char *const USAGE;

struct bad_usage : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Nothing: --help or --version have been answered. Throws bad_usage.
std::optional<settings> read_options(int argc, char **argv);

} // namespace serve

#endif // KIGO_SERVE_OPTIONS_H
