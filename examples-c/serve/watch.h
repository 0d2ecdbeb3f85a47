// Requests that are to stop: their client has gone, their time is over, or the server ends.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_WATCH_H
#define KIGO_SERVE_WATCH_H

#include "kigo.h"

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

namespace serve {

using clock = std::chrono::steady_clock;

enum class reason { none, gone, late, ending };

// Whether one request is to stop, and what runs for it. The first reason stays.
class cancellation {
public:
    void cancel(reason why);
    reason why() const { return why_.load(); }
    explicit operator bool() const { return why() != reason::none; }
    // Throws the fault that a request with that reason ends with.
    void check() const;
    // Sessions that a cancel stops. They outlive their place here.
    void add(const kigo_session *session);
    void remove(const kigo_session *session);

private:
    std::atomic<reason> why_{reason::none};
    std::mutex mutex_;
    std::vector<const kigo_session *> sessions_;
};

// One thread that looks at the sockets of all requests that are being answered.
class watcher {
public:
    watcher();
    ~watcher();
    watcher(const watcher &) = delete;

    // Watches a request until it is destroyed.
    class guard {
    public:
        guard(watcher &w, int socket, cancellation &request, clock::time_point deadline);
        ~guard();
        guard(const guard &) = delete;

    private:
        watcher &watcher_;
        uint64_t id_;
    };

    void cancel_all(reason why);

private:
    struct entry {
        int socket;
        cancellation *request;
        clock::time_point deadline;
    };
    void run();
    void wake();

    std::mutex mutex_;
    std::map<uint64_t, entry> entries_;
    uint64_t next_ = 1;
    bool ending_ = false;
    int wake_;
    std::thread thread_;
};

} // namespace serve

#endif // KIGO_SERVE_WATCH_H
