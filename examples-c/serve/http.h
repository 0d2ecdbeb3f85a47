// HTTP: cpp-httplib's server over connections of our own, which know their socket, their limits and their time.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_HTTP_H
#define KIGO_SERVE_HTTP_H

#include "limits.h"

#include <httplib.h>

namespace serve {

// A client's connection. What it may send before a request's head has ended, and after, is bounded in bytes and time.
class connection : public httplib::Stream {
public:
    connection(int socket, const limits &l, int stopping) : socket_(socket), limits_(l), stopping_(stopping) {}

    // Waits for the first byte of a request; false: there will be none.
    bool wait_for_request();
    // The head has been read: a body of at most so many bytes may follow.
    void begin_body(uint64_t n_bytes) { left_ = n_bytes; }
    // What was sent too much, or too late: the answer is the last of this connection.
    bool over_limit() const { return over_limit_; }
    // The request is refused before its body was read: what follows on this connection is no request.
    void end_after_answer() { over_limit_ = true; }
    // Sends what has been written and waits, shortly, for the client to take it: what it still sends is thrown away, since
    // closing over unread bytes would take the answer from it.
    void close();

    bool is_readable() const override { return true; }
    bool is_writable() const override { return true; }
    ssize_t read(char *data, size_t size) override;
    ssize_t write(const char *data, size_t size) override;
    void get_remote_ip_and_port(std::string &ip, int &port) const override;
    void get_local_ip_and_port(std::string &ip, int &port) const override;
    socket_t socket() const override { return socket_; }

    using httplib::Stream::write;

private:
    bool fill(clock::time_point until);

    const int socket_;
    const limits &limits_;
    const int stopping_; // is readable once the server ends
    char buffer_[16384];
    size_t begin_ = 0, end_ = 0;
    uint64_t left_ = 0;
    clock::time_point until_{};
    bool over_limit_ = false;
};

// The server: a thread for each connection, up to a limit.
class http_server : public httplib::Server {
public:
    explicit http_server(const limits &l);
    ~http_server() override;

    // The connection whose request this thread answers.
    static connection &here();
    // Binds to an address; 0: any port. The port, or -1 with errno.
    int bind(const std::string &host, int port);
    // Serves until end(), and until the last connection has ended.
    void serve();
    // Takes no connection any more, and ends those that wait for a request. Any thread.
    void end();

    std::atomic<uint64_t> n_connections{0}, n_refused{0};

private:
    class threads;
    bool process_and_close_socket(socket_t socket) override;
    void refuse(int socket);

    const limits limits_;
    int stopping_;
};

} // namespace serve

#endif // KIGO_SERVE_HTTP_H
