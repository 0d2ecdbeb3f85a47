// HTTP: see http.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "http.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>

namespace serve {

namespace {

thread_local connection *current = nullptr;
// This thread's connection is one too many.
thread_local bool refusing = false;

int milliseconds_until(clock::time_point until) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock::now()).count();
    return static_cast<int>(std::clamp<long>(left, 0, 1 << 30));
}

// Whether the socket is ready for `events` before then, or has failed, which the next call on it tells.
bool ready(int socket, short events, clock::time_point until) {
    for (;;) {
        pollfd one{socket, events, 0};
        const int n = poll(&one, 1, milliseconds_until(until));
        if (n > 0) return true;
        if (n == 0 || errno != EINTR) return false;
    }
}

void name_of(const sockaddr_storage &address, socklen_t length, std::string &ip, int &port) {
    char host[NI_MAXHOST], service[NI_MAXSERV];
    const auto *any = reinterpret_cast<const sockaddr *>(&address);
    if (getnameinfo(any, length, host, sizeof host, service, sizeof service, NI_NUMERICHOST | NI_NUMERICSERV) != 0) return;
    ip = host;
    port = static_cast<int>(strtol(service, nullptr, 10));
}

} // namespace

bool connection::fill(clock::time_point until) {
    for (;;) {
        const ssize_t n = recv(socket_, buffer_, sizeof buffer_, MSG_DONTWAIT);
        if (n > 0) {
            begin_ = 0;
            end_ = static_cast<size_t>(n);
            return true;
        }
        if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) return false;
        if (!ready(socket_, POLLIN, until)) return false;
    }
}

bool connection::wait_for_request() {
    const auto idle = clock::now() + std::chrono::seconds(limits_.idle_seconds);
    while (begin_ == end_) {
        pollfd both[2] = {{socket_, POLLIN, 0}, {stopping_, POLLIN, 0}};
        const int n = poll(both, 2, milliseconds_until(idle));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0 || both[1].revents != 0 || !fill(clock::now())) return false;
    }
    left_ = limits_.header_bytes;
    until_ = clock::now() + std::chrono::seconds(limits_.receive_seconds);
    return true;
}

ssize_t connection::read(char *data, size_t size) {
    const size_t most = static_cast<size_t>(std::min<uint64_t>(size, left_));
    if (most == 0 || (begin_ == end_ && !fill(until_))) {
        over_limit_ = true; // or nobody is there any more
        return -1;
    }
    const size_t n = std::min(most, end_ - begin_);
    std::copy_n(buffer_ + begin_, n, data);
    begin_ += n;
    left_ -= n;
    return static_cast<ssize_t>(n);
}

ssize_t connection::write(const char *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        const ssize_t n = send(socket_, data + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            done += static_cast<size_t>(n);
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            if (!ready(socket_, POLLOUT, clock::now() + std::chrono::seconds(limits_.receive_seconds))) return -1;
        } else {
            return -1;
        }
    }
    return static_cast<ssize_t>(done);
}

void connection::close() {
    shutdown(socket_, SHUT_WR);
    const auto until = clock::now() + std::chrono::seconds(2);
    uint64_t n_bytes = 0;
    while (over_limit_ && n_bytes < 4 * limits_.body_bytes && fill(until)) n_bytes += end_;
    ::close(socket_);
}

void connection::get_remote_ip_and_port(std::string &ip, int &port) const {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (getpeername(socket_, reinterpret_cast<sockaddr *>(&address), &length) == 0) name_of(address, length, ip, port);
}

void connection::get_local_ip_and_port(std::string &ip, int &port) const {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (getsockname(socket_, reinterpret_cast<sockaddr *>(&address), &length) == 0) name_of(address, length, ip, port);
}

// Threads of connections. One that cannot be had any more runs on the thread that accepts, and only to be refused.
class http_server::threads : public httplib::TaskQueue {
public:
    threads(http_server &server, uint64_t most) : server_(server), most_(most) {}

    void enqueue(std::function<void()> task) override {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            if (server_.n_connections < most_) {
                try {
                    std::thread([this, task] {
                        task();
                        std::lock_guard<std::mutex> ended(mutex_);
                        server_.n_connections--;
                        changed_.notify_all();
                    }).detach();
                    server_.n_connections++;
                    return;
                } catch (const std::system_error &) { // no more threads
                }
            }
        }
        refusing = true;
        task();
        refusing = false;
    }

    void shutdown() override {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return server_.n_connections == 0; });
    }

private:
    http_server &server_;
    const uint64_t most_;
    std::mutex mutex_;
    std::condition_variable changed_;
};

http_server::http_server(const limits &l) : limits_(l), stopping_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (stopping_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
    set_payload_max_length(static_cast<size_t>(l.body_bytes));
    new_task_queue = [this] { return new threads(*this, limits_.n_connections); };
}

http_server::~http_server() { close(stopping_); }

connection &http_server::here() { return *current; }

int http_server::bind(const std::string &host, int port) {
    const int bound = port == 0 ? bind_to_any_port(host) : bind_to_port(host, port) ? port : -1;
    // More than five may come at the same time.
    if (bound > 0) ::listen(svr_sock_, 1024);
    return bound;
}

void http_server::serve() { listen_after_bind(); }

void http_server::end() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(stopping_, &one, sizeof one);
    stop();
}

void http_server::refuse(int socket) {
    n_refused++;
    fault full(503, "server_error", "there are " + std::to_string(limits_.n_connections) + " connections already", "",
               "too_many_connections");
    const std::string body = error_body(full);
    const std::string answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
                               "Connection: close\r\nContent-Length: " +
                               std::to_string(body.size()) + "\r\n\r\n" + body;
    // It fits into the socket's buffer. Nobody waits here: this is the thread that accepts.
    [[maybe_unused]] const ssize_t n = send(socket, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    char request[4096];
    while (recv(socket, request, sizeof request, MSG_DONTWAIT) > 0) {}
    shutdown(socket, SHUT_WR);
    close(socket);
}

bool http_server::process_and_close_socket(socket_t socket) {
    if (refusing) {
        refuse(socket);
        return false;
    }
    const int on = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection client(socket, limits_, stopping_);
    current = &client;
    bool closed = false;
    try {
        while (!closed && client.wait_for_request()) {
            // Answers are not compressed: they would cost time and come in larger pieces.
            const auto plain = [](httplib::Request &request) { request.headers.erase("Accept-Encoding"); };
            if (!process_request(client, false, closed, plain) || client.over_limit()) break;
        }
    } catch (...) { // no memory: this connection ends, and no other
    }
    current = nullptr;
    client.close();
    return true;
}

} // namespace serve
