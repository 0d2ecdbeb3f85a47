// Figures of a server, as Prometheus reads them.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_METRICS_H
#define KIGO_SERVE_METRICS_H

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace serve {

struct service;
class http_server;

// How often something took how long, in seconds.
class histogram {
public:
    void add(double seconds);
    void write(std::string &out, const char *name, const char *help) const;

private:
    static constexpr std::array<double, 12> BOUNDS = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120};
    std::array<std::atomic<uint64_t>, BOUNDS.size() + 1> counts_{};
    std::atomic<uint64_t> nanoseconds_{0};
};

struct metrics {
    std::atomic<uint64_t> prompt_tokens{0}, cached_tokens{0}, generated_tokens{0}, disconnects{0}, recomputed{0}, in_flight{0};
    histogram first_token, request;

    // A request has been answered.
    void count(const std::string &path, int status);
    std::string text(service &s, const http_server &http);

private:
    std::mutex mutex_;
    std::map<std::pair<std::string, int>, uint64_t> requests_;
};

} // namespace serve

#endif // KIGO_SERVE_METRICS_H
