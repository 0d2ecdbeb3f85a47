// Figures of a server: see metrics.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "metrics.h"
#include "service.h"

#include <cstdio>
#include <unistd.h>

namespace serve {

namespace {

std::string number(double x) {
    char text[40];
    snprintf(text, sizeof text, "%.15g", x);
    return text;
}

void head(std::string &out, const char *name, const char *help, const char *type) {
    out += std::string("# HELP ") + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
}

void one(std::string &out, const char *name, const char *help, const char *type, double value) {
    head(out, name, help, type);
    out += std::string(name) + " " + number(value) + "\n";
}

// Bytes of memory that the process has, 0 where the system does not say.
double resident_bytes() {
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == nullptr) return 0;
    unsigned long total = 0, resident = 0;
    const int n = fscanf(file, "%lu %lu", &total, &resident);
    fclose(file);
    return n == 2 ? static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) : 0;
}

double seconds(uint64_t nanoseconds) { return static_cast<double>(nanoseconds) * 1e-9; }

// What the library counts of the model.
void write_model(std::string &out, const kigo_model_figures &f) {
    const auto count = [&](const char *name, const char *help, double n) { one(out, name, help, "counter", n); };
    const auto gauge = [&](const char *name, const char *help, uint64_t n) {
        one(out, name, help, "gauge", static_cast<double>(n));
    };
    const auto tokens = [&](const char *name, const char *help, uint64_t n) { count(name, help, static_cast<double>(n)); };
    gauge("kigo_sessions", "Sessions that there are.", f.n_sessions);
    gauge("kigo_sessions_running", "Sessions with tokens in the pass that runs.", f.n_sessions_running);
    gauge("kigo_sessions_waiting", "Sessions whose tokens wait for a pass.", f.n_sessions_waiting);
    tokens("kigo_tokens_prefilled_total", "Tokens computed in prompts.", f.n_tokens_prefilled);
    tokens("kigo_tokens_decoded_total", "Tokens computed one by one.", f.n_tokens_decoded);
    tokens("kigo_tokens_reused_total", "Tokens taken from kept prefixes in place of computing them.", f.n_tokens_reused);
    tokens("kigo_tokens_recomputed_total", "Tokens computed again behind a window.", f.n_tokens_recomputed);
    tokens("kigo_passes_total", "Passes over the weights.", f.n_passes);
    tokens("kigo_prefill_passes_total", "Those of them with tokens of prompts.", f.n_prefill_passes);
    tokens("kigo_pass_tokens_total", "Tokens of all passes.", f.n_pass_tokens);
    tokens("kigo_pass_sessions_total", "Sessions of all passes.", f.n_pass_sessions);
    count("kigo_pass_seconds_total", "Time of all passes.", seconds(f.pass_ns));
    count("kigo_prefill_pass_seconds_total", "Time of those with tokens of prompts.", seconds(f.prefill_pass_ns));
    one(out, "kigo_longest_pass_seconds", "The longest pass.", "gauge", seconds(f.longest_pass_ns));
    gauge("kigo_largest_pass_tokens", "The most tokens of a pass.", f.most_pass_tokens);
    gauge("kigo_cache_pages_used", "Pages of KV cache in use.", f.n_pages_used);
    gauge("kigo_cache_pages_retained", "Those of them that keep prefixes and that no session holds.", f.n_pages_retained);
    tokens("kigo_cache_pages_evicted_total", "Pages of prefixes that were given up.", f.n_pages_evicted);
    head(out, "kigo_call_failures_total", "Calls of the library that failed, by kind.", "counter");
    const std::pair<const char *, uint64_t> kinds[] = {
        {"cancelled", f.n_cancelled},   {"busy", f.n_busy},
        {"context_full", f.n_context_full}, {"cache_full", f.n_cache_full},
        {"out_of_memory", f.n_out_of_memory}, {"other", f.n_other_failures},
    };
    for (const auto &[kind, n] : kinds)
        out += std::string("kigo_call_failures_total{kind=\"") + kind + "\"} " + std::to_string(n) + "\n";
}

} // namespace

void histogram::add(double seconds) {
    size_t i = 0;
    while (i < BOUNDS.size() && seconds > BOUNDS[i]) i++;
    counts_[i]++;
    nanoseconds_ += static_cast<uint64_t>(seconds * 1e9);
}

void histogram::write(std::string &out, const char *name, const char *help) const {
    head(out, name, help, "histogram");
    uint64_t n = 0;
    for (size_t i = 0; i <= BOUNDS.size(); i++) {
        n += counts_[i];
        const std::string bound = i < BOUNDS.size() ? number(BOUNDS[i]) : "+Inf";
        out += std::string(name) + "_bucket{le=\"" + bound + "\"} " + std::to_string(n) + "\n";
    }
    out += std::string(name) + "_sum " + number(static_cast<double>(nanoseconds_) * 1e-9) + "\n";
    out += std::string(name) + "_count " + std::to_string(n) + "\n";
}

void metrics::count(const std::string &path, int status) {
    std::lock_guard<std::mutex> lock(mutex_);
    requests_[{path, status}]++;
}

std::string metrics::text(service &s, const http_server &http) {
    std::string out;
    head(out, "kigo_requests_total", "Requests that have been answered, by path and status.", "counter");
    {
        std::lock_guard<std::mutex> lock(mutex_);
        for (const auto &[key, n] : requests_)
            out += "kigo_requests_total{path=\"" + key.first + "\",status=\"" + std::to_string(key.second) + "\"} " +
                   std::to_string(n) + "\n";
    }
    const auto count = [&](const char *name, const char *help, uint64_t n) {
        one(out, name, help, "counter", static_cast<double>(n));
    };
    const auto gauge = [&](const char *name, const char *help, double n) { one(out, name, help, "gauge", n); };
    count("kigo_prompt_tokens_total", "Tokens of prompts, cached ones included.", prompt_tokens);
    count("kigo_prompt_tokens_cached_total", "Tokens of prompts that were not computed again.", cached_tokens);
    count("kigo_generated_tokens_total", "Tokens of answers.", generated_tokens);
    count("kigo_disconnects_total", "Requests whose client closed the connection before the end.", disconnects);
    count("kigo_sequences_recomputed_total", "Sequences that gave their cache up to an older one.", recomputed);
    count("kigo_connections_refused_total", "Connections beyond the limit.", http.n_refused);
    gauge("kigo_connections", "Open connections.", static_cast<double>(http.n_connections));
    gauge("kigo_requests_in_flight", "Requests that are being answered.", static_cast<double>(in_flight));
    gauge("kigo_requests_waiting", "Requests that wait for others to end.", static_cast<double>(s.entrance.waiting()));
    gauge("kigo_sequences_running", "Sequences that are computed.", static_cast<double>(s.entrance.running()));
    const kigo_cache_facts cache = s.model.cache();
    gauge("kigo_cache_used_bytes", "Bytes of KV cache in use.", static_cast<double>(cache.used_bytes));
    if (cache.limit_bytes != UINT64_MAX)
        gauge("kigo_cache_limit_bytes", "The most bytes of KV cache.", static_cast<double>(cache.limit_bytes));
    gauge("kigo_engine_memory_bytes", "Bytes of weights, cache and working memory.",
          static_cast<double>(s.engine.info().memory_used_bytes));
    gauge("process_resident_memory_bytes", "Bytes of memory that the process has.", resident_bytes());
    write_model(out, s.model.stats());
    first_token.write(out, "kigo_first_token_seconds", "Seconds from a request to its first token.");
    request.write(out, "kigo_request_seconds", "Seconds from a request to the end of its answer.");
    return out;
}

} // namespace serve
