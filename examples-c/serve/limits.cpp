// What a server allows: see limits.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "limits.h"

namespace serve {

namespace {

// A cancel wakes nobody by itself: who waits looks for it so often.
constexpr auto LOOK = std::chrono::milliseconds(20);

} // namespace

gate::place::place(gate &g, uint64_t n, const cancellation &request) : gate_(g), n_(n) {
    std::unique_lock<std::mutex> lock(g.mutex_);
    if (g.queue_.size() >= g.n_waiting_ && (g.running_ + n > g.n_parallel_ || !g.queue_.empty())) {
        fault full(429, "rate_limit_error", std::to_string(g.queue_.size()) + " requests wait already", "", "queue_full");
        full.retry_after = 1;
        throw full;
    }
    const auto mine = g.queue_.insert(g.queue_.end(), 0);
    while (g.queue_.begin() != mine || g.running_ + n > g.n_parallel_) {
        g.changed_.wait_for(lock, LOOK);
        if (request) {
            g.queue_.erase(mine);
            g.changed_.notify_all();
            request.check();
        }
    }
    g.queue_.erase(mine);
    g.running_ += n;
    g.changed_.notify_all();
}

gate::place::~place() {
    std::lock_guard<std::mutex> lock(gate_.mutex_);
    gate_.running_ -= n_;
    gate_.changed_.notify_all();
}

uint64_t gate::running() {
    std::lock_guard<std::mutex> lock(mutex_);
    return running_;
}

uint64_t gate::waiting() {
    std::lock_guard<std::mutex> lock(mutex_);
    return queue_.size();
}

pages::holder::holder(pages &p) : pages_(p) {
    std::lock_guard<std::mutex> lock(p.mutex_);
    number_ = p.next_++;
    p.holding_.insert(number_);
}

pages::holder::~holder() {
    std::lock_guard<std::mutex> lock(pages_.mutex_);
    pages_.holding_.erase(number_);
    if (pages_.wanted_ == number_) pages_.wanted_ = 0;
    pages_.epoch_++;
    pages_.n_ended_++;
    pages_.changed_.notify_all();
}

bool pages::holder::too_few(const cancellation &request, const fault &alone) {
    std::unique_lock<std::mutex> lock(pages_.mutex_);
    if (pages_.holding_.size() == 1) throw alone;
    const uint64_t youngest = *pages_.holding_.rbegin();
    if (youngest == number_) return true;
    pages_.wanted_ = youngest;
    const uint64_t before = pages_.epoch_;
    while (pages_.epoch_ == before) {
        pages_.changed_.wait_for(lock, LOOK);
        request.check();
    }
    return false;
}

void pages::holder::wait(const cancellation &request) {
    std::unique_lock<std::mutex> lock(pages_.mutex_);
    pages_.holding_.erase(number_);
    if (pages_.wanted_ == number_) pages_.wanted_ = 0;
    pages_.epoch_++;
    pages_.changed_.notify_all();
    const uint64_t before = pages_.n_ended_;
    while (pages_.n_ended_ == before && !pages_.holding_.empty()) {
        pages_.changed_.wait_for(lock, LOOK);
        request.check();
    }
    pages_.holding_.insert(number_);
}

bool equal_in_constant_time(const std::string &given, const std::string &wanted) {
    volatile unsigned char different = given.size() != wanted.size();
    for (size_t i = 0; i < given.size(); i++) {
        const unsigned char c = wanted.empty() ? 0 : static_cast<unsigned char>(wanted[i % wanted.size()]);
        different = different | (static_cast<unsigned char>(given[i]) ^ c);
    }
    return different == 0;
}

} // namespace serve
