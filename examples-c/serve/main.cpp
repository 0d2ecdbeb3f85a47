// An OpenAI-compatible server of one model: chat, completions, embeddings. `serve --help` has its options.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "options.h"
#include "service.h"

#include <csignal>
#include <cstdio>
#include <cstring>
#include <pthread.h>
#include <unistd.h>

namespace serve {

namespace {

int32_t show_progress(uint64_t done, uint64_t total) {
    static const char BAR[] = "########################################";
    const int width = static_cast<int>(sizeof BAR) - 1;
    const double share = total != 0 ? static_cast<double>(done) / static_cast<double>(total) : 1;
    if (isatty(STDERR_FILENO) != 0)
        fprintf(stderr, "\rloading [%-*.*s] %3.0f%%%s", width, static_cast<int>(share * width), BAR, share * 100,
                done >= total ? "\n" : "");
    return 0;
}

// What stands before every request but /health: the key, and how large a body may be.
void add_checks(http_server &http, const service &s) {
    using answered = httplib::Server::HandlerResponse;
    http.set_pre_routing_handler([&s](const httplib::Request &request, httplib::Response &response) {
        const auto refuse = [&](const fault &f) {
            answer_fault(response, f);
            response.set_header("Connection", "close");
            http_server::here().begin_body(0);
            http_server::here().end_after_answer();
            return answered::Handled;
        };
        const limits &allowed = s.how.allowed;
        if (!s.how.api_key.empty() && request.path != "/health") {
            const std::string given = request.get_header_value("Authorization");
            if (!equal_in_constant_time(given, "Bearer " + s.how.api_key))
                return refuse(fault(401, "invalid_request_error", "the API key is missing or wrong", "", "invalid_api_key"));
        }
        // What is small when it comes could be large when it is unpacked.
        if (request.has_header("Content-Encoding"))
            return refuse(fault(415, "invalid_request_error", "a Content-Encoding is not supported"));
        const std::string length = request.get_header_value("Content-Length");
        const bool digits = length.find_first_not_of("0123456789") == std::string::npos;
        if (!digits || (request.has_header("Transfer-Encoding") && !length.empty()))
            return refuse(fault(400, "invalid_request_error", "the Content-Length is wrong"));
        if (length.size() > 18 || (!length.empty() && std::stoull(length) > allowed.body_bytes))
            return refuse(fault(413, "invalid_request_error",
                                "the body has " + length + " bytes, " + std::to_string(allowed.body_bytes) + " are allowed", "",
                                "body_too_large"));
        http_server::here().begin_body(allowed.body_bytes + allowed.body_bytes / 8);
        return answered::Unhandled;
    });
    http.set_error_handler([](const httplib::Request &request, httplib::Response &response) {
        if (!response.body.empty()) return;
        if (http_server::here().over_limit()) response.status = 413;
        if (response.status != 404) { // where the next request would begin is not known
            http_server::here().end_after_answer();
            response.set_header("Connection", "close");
        }
        const std::string at = request.method + " " + request.path;
        switch (response.status) {
        case 404: response.body = error_body(fault(404, "invalid_request_error", "there is no " + at, "", "unknown_url")); break;
        case 413: response.body = error_body(fault(413, "invalid_request_error", "the body is too large, or did not arrive in time"));
            break;
        default: response.body = error_body(fault(response.status, "invalid_request_error", "the request is malformed"));
        }
        response.set_header("Content-Type", "application/json");
    });
    http.set_exception_handler([](const httplib::Request &, httplib::Response &response, std::exception_ptr) {
        answer_fault(response, fault(500, "server_error", "the request could not be handled"));
    });
}

// Waits for SIGINT or SIGTERM, lets requests end for a while, and then ends them. SIGUSR1: the server has ended by itself.
void wait_for_signals(const sigset_t &signals, http_server &http, service &s) {
    int number = 0;
    sigwait(&signals, &number);
    if (number != SIGUSR1) fprintf(stderr, "ending: %u requests are being answered\n", static_cast<unsigned>(s.figures.in_flight));
    http.end();
    const timespec grace{static_cast<time_t>(s.how.allowed.grace_seconds), 0};
    if (number != SIGUSR1) number = sigtimedwait(&signals, nullptr, &grace);
    if (number != SIGUSR1) s.watched.cancel_all(reason::ending);
}

int run(const settings &how) {
    // Threads that are made from here on have them blocked: one of them waits for them.
    sigset_t signals;
    sigemptyset(&signals);
    for (const int number : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&signals, number);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    signal(SIGPIPE, SIG_IGN);

    http_server http(how.allowed);
    const int port = http.bind(how.host, how.port);
    if (port <= 0) {
        fprintf(stderr, "%s:%d: %s\n", how.host.c_str(), how.port, strerror(errno));
        return 1;
    }
    service s(how, show_progress);
    add_checks(http, s);
    add_chat(http, s);
    add_completions(http, s);
    add_embeddings(http, s);
    add_facts(http, s);
    const std::string key = how.api_key.empty() ? "without an API key" : "with an API key";
    printf("%s on %s at http://%s:%d/v1, %s\n", s.name().c_str(), s.engine.device().c_str(), how.host.c_str(), port, key.c_str());
    fflush(stdout);
    std::thread waiting([&] { wait_for_signals(signals, http, s); });
    http.serve();
    pthread_kill(waiting.native_handle(), SIGUSR1);
    waiting.join();
    return 0;
}

} // namespace

} // namespace serve

int main(int argc, char **argv) {
    try {
        const auto how = serve::read_options(argc, argv);
        if (!how) return 0;
        return serve::run(*how);
    } catch (const serve::bad_usage &e) {
        fprintf(stderr, "%s\n%s", e.what(), serve::USAGE);
        return 2;
    } catch (const std::exception &e) {
        fprintf(stderr, "serve: %s\n", e.what());
        return 1;
    }
}
