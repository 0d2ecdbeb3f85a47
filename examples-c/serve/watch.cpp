// Requests that are to stop: see watch.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "watch.h"
#include "json.h"

#include <algorithm>
#include <cerrno>
#include <poll.h>
#include <sys/eventfd.h>
#include <system_error>
#include <unistd.h>

namespace serve {

void cancellation::cancel(reason why) {
    reason none = reason::none;
    why_.compare_exchange_strong(none, why);
    std::lock_guard<std::mutex> lock(mutex_);
    for (const kigo_session *session : sessions_) kigo_session_cancel(session);
}

void cancellation::check() const {
    switch (why()) {
    case reason::none: return;
    case reason::gone: throw fault(499, "client_error", "the client has closed the connection");
    case reason::late: throw fault(503, "server_error", "the request took longer than the server allows", "", "timeout");
    case reason::ending: throw fault(503, "server_error", "the server is ending", "", "shutdown");
    }
}

// A cancel that came before is the session's, too.
void cancellation::add(const kigo_session *session) {
    std::lock_guard<std::mutex> lock(mutex_);
    sessions_.push_back(session);
    if (why_.load() != reason::none) kigo_session_cancel(session);
}

void cancellation::remove(const kigo_session *session) {
    std::lock_guard<std::mutex> lock(mutex_);
    sessions_.erase(std::remove(sessions_.begin(), sessions_.end(), session), sessions_.end());
}

watcher::watcher() : wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (wake_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
    thread_ = std::thread([this] { run(); });
}

watcher::~watcher() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        ending_ = true;
    }
    wake();
    thread_.join();
    close(wake_);
}

void watcher::wake() {
    const uint64_t one = 1;
    // A full counter wakes as well.
    [[maybe_unused]] const ssize_t n = write(wake_, &one, sizeof one);
}

watcher::guard::guard(watcher &w, int socket, cancellation &request, clock::time_point deadline) : watcher_(w) {
    {
        std::lock_guard<std::mutex> lock(w.mutex_);
        id_ = w.next_++;
        w.entries_[id_] = {socket, &request, deadline};
    }
    w.wake();
}

watcher::guard::~guard() {
    std::lock_guard<std::mutex> lock(watcher_.mutex_);
    watcher_.entries_.erase(id_);
}

void watcher::cancel_all(reason why) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto &entry : entries_) entry.second.request->cancel(why);
}

void watcher::run() {
    std::vector<pollfd> sockets;
    std::vector<uint64_t> ids;
    for (;;) {
        sockets.assign(1, pollfd{wake_, POLLIN, 0});
        ids.clear();
        auto until = clock::now() + std::chrono::hours(1);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            if (ending_) return;
            const auto now = clock::now();
            for (auto &[id, entry] : entries_) {
                if (!*entry.request && entry.deadline <= now) entry.request->cancel(reason::late);
                if (*entry.request) continue; // a socket that hangs up stays ready
                sockets.push_back(pollfd{entry.socket, POLLRDHUP, 0});
                ids.push_back(id);
                until = std::min(until, entry.deadline);
            }
        }
        const auto wait = std::chrono::ceil<std::chrono::milliseconds>(until - clock::now()).count();
        if (poll(sockets.data(), sockets.size(), static_cast<int>(std::max<long>(wait, 0))) <= 0) continue;
        uint64_t count;
        if ((sockets[0].revents & POLLIN) != 0 && read(wake_, &count, sizeof count) < 0 && errno != EAGAIN) return;
        std::lock_guard<std::mutex> lock(mutex_);
        for (size_t i = 0; i < ids.size(); i++) {
            const auto found = entries_.find(ids[i]);
            if (sockets[i + 1].revents != 0 && found != entries_.end()) found->second.request->cancel(reason::gone);
        }
    }
}

} // namespace serve
