// What all requests share: the model, the limits, the figures.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_SERVICE_H
#define KIGO_SERVE_SERVICE_H

#include "http.h"
#include "kigo.hpp"
#include "limits.h"
#include "metrics.h"

#include <list>
#include <memory>
#include <optional>

namespace serve {

// How the server was started.
struct settings {
    std::string path, device = "auto", host = "127.0.0.1", api_key;
    std::vector<std::string> names; // that requests may give the model; the first is its own, "*" is any
    int port = 8080;
    uint32_t n_threads = 0;
    uint64_t cache_bytes = 0, n_ctx = 0, most_tokens = 0;
    std::optional<uint64_t> prefix_bytes; // nothing: a part of the cache
    bool strict = false;
    kigo_sampling sampling{}; // where a request does not say
    limits allowed;
};

// Compiled grammars by what they were made of: the last few that were used. They outlive the requests that wanted them.
class grammars {
public:
    using maker = std::function<kigo::constraint()>;
    // Makes one that is not there. A fault of 400 names the field where it does not compile.
    std::shared_ptr<const kigo::constraint> get(const std::string &key, const char *field, const cancellation &request,
                                                const maker &make);

private:
    std::mutex mutex_;
    std::list<std::pair<std::string, std::shared_ptr<const kigo::constraint>>> kept_; // the last used first
};

struct service {
    explicit service(const settings &s, const kigo::progress_function &progress);

    const settings how;
    kigo::engine engine;
    kigo::model model;
    kigo_model_facts facts;
    uint64_t n_ctx;
    int64_t created;
    gate entrance;
    pages cache;
    watcher watched;
    metrics figures;
    grammars compiled;

    const std::string &name() const { return how.names[0]; }
    // 404 if the request wants another model than this.
    void check_model(const fields &body) const;
    // An id such as "chatcmpl-...", another at each call.
    std::string new_id(const char *prefix);
    uint64_t new_seed();

private:
    std::mutex random_;
};

// The fault that a failed call of the library is to a client.
fault fault_of(const kigo::error &e, const std::string &param);

// A request that is being answered: counted, watched and timed until its answer has ended.
struct exchange {
    exchange(service &s, int socket);
    ~exchange();

    service &server;
    cancellation stop;
    watcher::guard watched;
    const clock::time_point began = clock::now();
};

// Server-sent events of a stream. Any thread may write; false: the client has gone.
class event_stream {
public:
    explicit event_stream(httplib::DataSink &sink) : sink_(sink) {}
    bool write(const std::string &data);
    bool write(const json &value) { return write(dump(value)); }

private:
    std::mutex mutex_;
    httplib::DataSink &sink_;
    bool broken_ = false;
};

// Answers with a stream that `body` writes. Its faults become a last event.
void answer_stream(std::shared_ptr<exchange> request, httplib::Response &response, std::function<void(event_stream &)> body);
void answer_json(httplib::Response &response, const json &value);
void answer_fault(httplib::Response &response, const fault &f);

void add_chat(http_server &http, service &s);
void add_completions(http_server &http, service &s);
void add_embeddings(http_server &http, service &s);
// Models, health and metrics.
void add_facts(http_server &http, service &s);

// A handler of a request with a JSON object: it gets the object and throws what is wrong.
using handler = std::function<void(const json &body, std::shared_ptr<exchange> request, httplib::Response &response)>;
void add_post(http_server &http, service &s, const char *path, handler answer);

} // namespace serve

#endif // KIGO_SERVE_SERVICE_H
