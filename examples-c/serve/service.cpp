// What all requests share: see service.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "service.h"

#include <algorithm>
#include <ctime>
#include <random>

namespace serve {

namespace {

kigo::engine open_engine(const settings &s) {
    kigo::engine_options options;
    options.device = s.device;
    options.n_threads = s.n_threads;
    return kigo::engine(options);
}

// Where nobody has said: a quarter of the cache, or of one without a limit a gibibyte, and a page at least.
uint64_t usual_prefix_bytes(const kigo::engine &engine, const settings &s) {
    const uint64_t wanted = s.cache_bytes != 0 ? s.cache_bytes / 4 : uint64_t{1} << 30;
    return std::max(wanted, engine.plan(s.path, 1).cache_bytes);
}

// The one place where a load is described.
kigo::model open_model(const kigo::engine &engine, const settings &s, const kigo::progress_function &progress) {
    kigo::load_options options;
    options.cache_bytes = s.cache_bytes;
    options.prefix_cache_bytes = s.prefix_bytes ? *s.prefix_bytes : usual_prefix_bytes(engine, s);
    options.flags = KIGO_LOAD_MERGE_CALLS | (s.strict ? KIGO_LOAD_STRICT : 0);
    return engine.load_file(s.path, progress, options);
}

} // namespace

service::service(const settings &s, const kigo::progress_function &progress)
    : how(s), engine(open_engine(s)), model(open_model(engine, s, progress)), facts(model.info()),
      n_ctx(s.n_ctx != 0 ? s.n_ctx : facts.n_ctx_train), created(static_cast<int64_t>(time(nullptr))),
      entrance(s.allowed.n_parallel, s.allowed.n_waiting) {
    if (n_ctx > facts.n_ctx_train)
        throw std::runtime_error("--ctx: the model has a context of " + std::to_string(facts.n_ctx_train) + " tokens");
}

void service::check_model(const fields &body) const {
    const auto wanted = body.text("model");
    if (!wanted) throw invalid("model", "is missing");
    for (const std::string &known : how.names)
        if (known == *wanted || known == "*") return;
    throw fault(404, "invalid_request_error", "model: there is no " + dump(*wanted) + ", there is \"" + name() + "\"", "model",
                "model_not_found");
}

uint64_t service::new_seed() {
    std::lock_guard<std::mutex> lock(random_);
    static std::mt19937_64 random{std::random_device{}()};
    return random();
}

std::string service::new_id(const char *prefix) {
    char text[48];
    snprintf(text, sizeof text, "%s%016llx", prefix, static_cast<unsigned long long>(new_seed()));
    return text;
}

std::shared_ptr<const kigo::constraint> grammars::get(const std::string &key, const char *field, const cancellation &request,
                                                      const maker &make) {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        for (auto kept = kept_.begin(); kept != kept_.end(); ++kept)
            if (kept->first == key) {
                kept_.splice(kept_.begin(), kept_, kept);
                return kept->second;
            }
    }
    std::shared_ptr<const kigo::constraint> made;
    try {
        made = std::make_shared<const kigo::constraint>(make());
    } catch (const kigo::error &e) {
        request.check();
        throw fault_of(e, field);
    }
    std::lock_guard<std::mutex> lock(mutex_);
    kept_.emplace_front(key, made);
    if (kept_.size() > 16) kept_.pop_back();
    return made;
}

fault fault_of(const kigo::error &e, const std::string &param) {
    const std::string text = e.what();
    switch (e.status()) {
    case KIGO_STATUS_INVALID_ARGUMENT:
    case KIGO_STATUS_CONSTRAINT:
    case KIGO_STATUS_UNSUPPORTED:
    case KIGO_STATUS_NOT_FOUND: return invalid(param, text);
    case KIGO_STATUS_CONTEXT_FULL:
    case KIGO_STATUS_CACHE_FULL: return fault(400, "invalid_request_error", text, param, "context_length_exceeded");
    case KIGO_STATUS_OUT_OF_MEMORY: {
        fault full(503, "server_error", text, "", "out_of_memory");
        full.retry_after = 1;
        return full;
    }
    default: return fault(500, "server_error", text);
    }
}

exchange::exchange(service &s, int socket)
    : server(s), watched(s.watched, socket, stop, clock::now() + std::chrono::seconds(s.how.allowed.request_seconds)) {
    s.figures.in_flight++;
}

exchange::~exchange() {
    if (stop.why() == reason::gone) server.figures.disconnects++;
    server.figures.in_flight--;
    server.figures.request.add(std::chrono::duration<double>(clock::now() - began).count());
}

namespace {

// Runs what may throw anything; the fault that came of it.
std::optional<fault> attempt(const std::function<void()> &what) {
    try {
        what();
        return std::nullopt;
    } catch (const fault &f) {
        return f;
    } catch (const kigo::error &e) {
        return fault_of(e, "");
    } catch (const std::bad_alloc &) {
        return fault(503, "server_error", "no memory is left", "", "out_of_memory");
    } catch (const std::exception &e) {
        return fault(500, "server_error", e.what());
    }
}

} // namespace

bool event_stream::write(const std::string &data) {
    std::lock_guard<std::mutex> lock(mutex_);
    const std::string line = "data: " + data + "\n\n";
    broken_ = broken_ || !sink_.write(line.data(), line.size());
    return !broken_;
}

void answer_stream(std::shared_ptr<exchange> request, httplib::Response &response, std::function<void(event_stream &)> body) {
    response.set_header("Cache-Control", "no-cache");
    response.set_chunked_content_provider("text/event-stream", [request, body](size_t, httplib::DataSink &sink) {
        event_stream out(sink);
        const auto failed = attempt([&] { body(out); });
        const bool there = (!failed || out.write(error_body(*failed))) && out.write(std::string("[DONE]"));
        if (there) sink.done();
        return there;
    });
}

void answer_json(httplib::Response &response, const json &value) { response.set_content(dump(value), "application/json"); }

void answer_fault(httplib::Response &response, const fault &f) {
    response.status = f.status;
    if (f.retry_after != 0) response.set_header("Retry-After", std::to_string(f.retry_after));
    response.set_content(error_body(f), "application/json");
}

void add_post(http_server &http, service &s, const char *path, handler answer) {
    http.Post(path, [&s, path, answer](const httplib::Request &request, httplib::Response &response) {
        const auto failed = attempt([&] {
            if (request.get_header_value("Content-Type").rfind("application/json", 0) != 0)
                throw fault(415, "invalid_request_error", "the Content-Type has to be application/json");
            const json body = parse_object(request.body);
            const auto watched = std::make_shared<exchange>(s, http_server::here().socket());
            s.check_model(fields(body));
            response.status = 200;
            answer(body, watched, response);
        });
        if (failed) answer_fault(response, *failed);
        s.figures.count(path, response.status);
    });
}

} // namespace serve
