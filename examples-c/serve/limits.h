// What a server allows: bytes, connections, requests and time; who waits for what.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_LIMITS_H
#define KIGO_SERVE_LIMITS_H

#include "json.h"
#include "watch.h"

#include <condition_variable>
#include <list>
#include <set>

namespace serve {

struct limits {
    uint64_t body_bytes = 8 << 20;
    uint64_t header_bytes = 64 << 10;
    uint64_t n_connections = 512;
    uint64_t n_parallel = 64; // sequences that are computed at once
    uint64_t n_waiting = 512;  // requests that wait for that
    uint64_t request_seconds = 600;
    uint64_t receive_seconds = 30; // for a request to arrive, and for an answer to move
    uint64_t idle_seconds = 60;    // of a connection between requests
    uint64_t grace_seconds = 10;   // for requests that are being answered when the server ends
};

// Lets requests in, first come first served, as many sequences at once as the limit says.
class gate {
public:
    gate(uint64_t n_parallel, uint64_t n_waiting) : n_parallel_(n_parallel), n_waiting_(n_waiting) {}

    // A place for `n` sequences, until it is destroyed. 429: too many wait. Throws, too, where the request is cancelled.
    class place {
    public:
        place(gate &g, uint64_t n, const cancellation &request);
        ~place();
        place(const place &) = delete;

    private:
        gate &gate_;
        uint64_t n_;
    };

    uint64_t running();
    uint64_t waiting();

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::list<int> queue_;
    uint64_t running_ = 0;
    const uint64_t n_parallel_, n_waiting_;
};

// Who gives the cache's pages up where there are too few: the youngest, and it computes again what it held when another
// has ended. The oldest always goes on, so that each request ends.
class pages {
public:
    // A sequence that takes pages, for as long as it does.
    class holder {
    public:
        explicit holder(pages &p);
        ~holder();
        holder(const holder &) = delete;

        // An older one waits for pages: give them up and wait().
        bool must_give_up() const { return pages_.wanted_.load() == number_; }
        // There were too few pages. True: give yours up and wait(). False: try again. Throws `alone` where nobody else has any.
        bool too_few(const cancellation &request, const fault &alone);
        // The pages were given up: returns when there may be some again.
        void wait(const cancellation &request);

    private:
        pages &pages_;
        uint64_t number_;
    };

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::set<uint64_t> holding_;
    std::atomic<uint64_t> wanted_{0};
    uint64_t next_ = 1, epoch_ = 0, n_ended_ = 0;
};

// Whether two texts are equal, in a time that depends on the length of the first alone.
bool equal_in_constant_time(const std::string &given, const std::string &wanted);

} // namespace serve

#endif // KIGO_SERVE_LIMITS_H
