// The options of the command line: see options.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "options.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace serve {

const char *const USAGE =
    "usage: serve -m FILE [--device auto|cpu|cuda:N] [-t N] [--cache BYTES] [--strict]\n"
    "             [--prefix-cache MIB|off]\n"
    "             [--host ADDRESS] [--port N] [--api-key TEXT|@FILE] [--alias NAME]...\n"
    "             [--ctx N] [--max-tokens N] [--temp F] [--top-k N] [--top-p F] [--min-p F]\n"
    "             [--parallel N] [--queue N] [--connections N] [--max-body BYTES] [--timeout S]\n"
    "             [--receive-timeout S] [--idle-timeout S] [--grace S]\n"
    "  --prefix-cache  MiB of the cache that keep what requests begin with, for others that begin alike\n"
    "                  (a quarter of --cache, 1024 without that; off: none)\n"
    "  --host, --port  where it listens (127.0.0.1, 8080; port 0: any, which it prints)\n"
    "  --api-key       what clients have to give; @ and a file that it stands in\n"
    "  --alias         another name that requests may give the model; *: any\n"
    "  --ctx           tokens of a conversation (as many as the model was trained for)\n"
    "  --max-tokens    the most of one answer (until the context is full)\n"
    "  --temp ...      how tokens are chosen where a request does not say (--temp 1)\n"
    "  --parallel      sequences computed at once (64); further requests wait\n"
    "  --queue         requests that may wait (512); further ones get 429\n"
    "  --connections   open at once (512); further ones get 503\n"
    "  --max-body      bytes of a request's body (8388608); larger ones get 413\n"
    "  --timeout       seconds for an answer (600)\n"
    "  --receive-timeout, --idle-timeout   seconds for a request to arrive (30), between requests (60)\n"
    "  --grace         seconds that answers have to end after SIGINT or SIGTERM (10)\n"
    "  --help, --version\n";

namespace {

struct arguments {
    int argc;
    char **argv;
    int i = 1;

    std::string option() const { return argv[i]; }
    std::string value() {
        const std::string name = option();
        if (i + 1 >= argc) throw bad_usage(name + ": needs a value");
        return argv[++i];
    }
    uint64_t whole(uint64_t least, uint64_t most) {
        const std::string name = option(), text = value();
        const bool digits = !text.empty() && text.size() < 20 && text.find_first_not_of("0123456789") == std::string::npos;
        const uint64_t n = digits ? std::stoull(text) : 0;
        if (!digits || n < least || n > most)
            throw bad_usage(name + ": needs a whole number from " + std::to_string(least) + " to " + std::to_string(most) +
                            ", not " + text);
        return n;
    }
    float number(double least, double most) {
        const std::string name = option(), text = value();
        char *end = nullptr;
        const double x = std::strtod(text.c_str(), &end);
        if (text.empty() || *end != '\0' || !(x >= least && x <= most)) {
            char range[64];
            snprintf(range, sizeof range, ": needs a number from %g to %g, not ", least, most);
            throw bad_usage(name + range + text);
        }
        return static_cast<float>(x);
    }
};

std::string key_of(const std::string &given) {
    std::string key = given;
    if (!given.empty() && given[0] == '@') {
        std::ifstream file(given.substr(1));
        if (!std::getline(file, key)) throw bad_usage("--api-key: " + given.substr(1) + " cannot be read, or is empty");
    }
    if (key.empty()) throw bad_usage("--api-key: is empty");
    return key;
}

std::optional<uint64_t> prefix_bytes(arguments &a) {
    if (a.i + 1 < a.argc && strcmp(a.argv[a.i + 1], "off") == 0) {
        a.i++;
        return 0;
    }
    return a.whole(0, INT64_MAX >> 20) << 20;
}

// Those of the model and the answers; true if it was one.
bool read_model_option(arguments &a, settings &s) {
    const std::string name = a.option();
    if (name == "-m") s.path = a.value();
    else if (name == "--device") s.device = a.value();
    else if (name == "-t") s.n_threads = static_cast<uint32_t>(a.whole(0, 1024));
    else if (name == "--cache") s.cache_bytes = a.whole(0, INT64_MAX);
    else if (name == "--prefix-cache") s.prefix_bytes = prefix_bytes(a);
    else if (name == "--strict") s.strict = true;
    else if (name == "--ctx") s.n_ctx = a.whole(1, UINT32_MAX);
    else if (name == "--max-tokens") s.most_tokens = a.whole(1, UINT32_MAX);
    else if (name == "--temp") s.sampling.temperature = a.number(0, 2);
    else if (name == "--top-k") s.sampling.top_k = static_cast<uint32_t>(a.whole(0, UINT32_MAX));
    else if (name == "--top-p") s.sampling.top_p = a.number(0, 1);
    else if (name == "--min-p") s.sampling.min_p = a.number(0, 1);
    else return false;
    return true;
}

bool read_server_option(arguments &a, settings &s) {
    constexpr uint64_t YEAR = 31536000;
    const std::string name = a.option();
    if (name == "--host") s.host = a.value();
    else if (name == "--port") s.port = static_cast<int>(a.whole(0, 65535));
    else if (name == "--api-key") s.api_key = key_of(a.value());
    else if (name == "--alias") s.names.push_back(a.value());
    else if (name == "--parallel") s.allowed.n_parallel = a.whole(1, 4096);
    else if (name == "--queue") s.allowed.n_waiting = a.whole(0, 65536);
    else if (name == "--connections") s.allowed.n_connections = a.whole(1, 65536);
    else if (name == "--max-body") s.allowed.body_bytes = a.whole(1, 1 << 30);
    else if (name == "--timeout") s.allowed.request_seconds = a.whole(1, YEAR);
    else if (name == "--receive-timeout") s.allowed.receive_seconds = a.whole(1, YEAR);
    else if (name == "--idle-timeout") s.allowed.idle_seconds = a.whole(1, YEAR);
    else if (name == "--grace") s.allowed.grace_seconds = a.whole(0, YEAR);
    else return false;
    return true;
}

// A file's name without its folder and ending.
std::string name_of(const std::string &path) {
    std::string name = path.substr(path.rfind('/') + 1);
    if (name.size() > 5 && name.compare(name.size() - 5, 5, ".gguf") == 0) name.resize(name.size() - 5);
    return name;
}

} // namespace

std::optional<settings> read_options(int argc, char **argv) {
    settings s;
    s.sampling.struct_size = sizeof s.sampling;
    s.sampling.temperature = 1;
    s.names.emplace_back();
    for (arguments a{argc, argv}; a.i < argc; a.i++) {
        if (a.option() == "--help" || a.option() == "-h") {
            fputs(USAGE, stdout);
            return std::nullopt;
        }
        if (a.option() == "--version") {
            printf("serve (kigo) %s\n", kigo_version());
            return std::nullopt;
        }
        if (!read_model_option(a, s) && !read_server_option(a, s)) throw bad_usage(a.option() + ": is not an option");
    }
    if (s.path.empty()) throw bad_usage("-m: is missing");
    if (kigo_abi_version() != KIGO_ABI_VERSION) throw std::runtime_error("libkigo is of another ABI than this program");
    s.names[0] = name_of(s.path);
    return s;
}

} // namespace serve
