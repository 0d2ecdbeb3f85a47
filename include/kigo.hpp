// kigo.hpp: kigo.h for C++17, header only.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Handles are movable owners; every failure is a kigo::error with the status and the text; texts come in as
// std::string_view and go out as std::string; callbacks are std::functions that return 0 to go on, as in C, and may
// throw: the call stops and the exception comes out of it. What each function does stands in kigo.h; get() gives the
// C handle for what this header leaves out. Exceptions are this header's alone: none passes through the library.
#ifndef KIGO_HPP
#define KIGO_HPP

#include "kigo.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kigo {

// A call that failed.
class error : public std::runtime_error {
public:
    error(kigo_status status, const char *text)
        : std::runtime_error(std::string(kigo_status_name(status)) + ": " + text), status_(status) {}
    kigo_status status() const noexcept { return status_; }

private:
    kigo_status status_;
};

using tokens = std::vector<uint32_t>;
using log_function = std::function<int(int32_t level, std::string_view text)>;
using thread_function = std::function<int(const kigo_thread_event &event)>;
using alloc_function = std::function<void *(std::size_t bytes, std::size_t alignment, int32_t kind)>;
using free_function = std::function<void(void *pointer, std::size_t bytes, std::size_t alignment, int32_t kind)>;
using progress_function = std::function<int(uint64_t done_bytes, uint64_t total_bytes)>;
using prefill_function = std::function<int(std::size_t n_done, std::size_t n_total)>;
using token_function = std::function<int(uint32_t token, std::string_view text)>;
using step_function = std::function<int(const kigo_step_event &event)>;
using tap_function = std::function<int(const kigo_tap_event &event)>;
using check_function = std::function<int(const kigo_check &check)>;
using go_on_function = std::function<int()>;

// A part of a stage, for any thread.
struct body {
    kigo_body call;
    void *context;
    void operator()(std::size_t index) const { call(context, index); }
};
using parallel_function = std::function<int(std::size_t n, const body &body)>;

namespace detail {

// What an engine calls for as long as one of its handles lives.
struct host {
    log_function log;
    thread_function on_thread;
    parallel_function parallel_for;
    alloc_function alloc;
    free_function free;
};

inline void check(kigo_status status) {
    if (status != KIGO_STATUS_OK) throw error(status, kigo_last_error());
}

// A struct of kigo.h with its size set and all else default.
template <class Struct> Struct sized() {
    Struct value{};
    value.struct_size = sizeof value;
    return value;
}

// Runs a "buffer out" call twice: for the size and for the elements.
template <class Container, class Call> Container buffer(Call call) {
    std::size_t n = 0;
    check(call(nullptr, 0, &n));
    Container out(n, typename Container::value_type());
    if (n != 0) check(call(out.data(), out.size(), &n));
    out.resize(n);
    return out;
}

// A callback on its way through C, and what it threw.
template <class Function> struct carried {
    const Function &function;
    std::exception_ptr thrown = nullptr;

    template <class... Arguments> int32_t call(Arguments... arguments) noexcept {
        try {
            return function(arguments...);
        } catch (...) {
            thrown = std::current_exception();
            return 1;
        }
    }
    // The exception, before the status that it led to.
    void check(kigo_status status) const {
        if (thrown) std::rethrow_exception(thrown);
        detail::check(status);
    }
};

inline int32_t progress(uint64_t done, uint64_t total, void *user_data) {
    return static_cast<carried<progress_function> *>(user_data)->call(done, total);
}

inline int32_t prefilled(std::size_t n_done, std::size_t n_total, void *user_data) {
    return static_cast<carried<prefill_function> *>(user_data)->call(n_done, n_total);
}

inline int32_t token(uint32_t id, const char *text, std::size_t text_len, void *user_data) {
    return static_cast<carried<token_function> *>(user_data)->call(id, std::string_view(text, text_len));
}

inline int32_t step(const kigo_step_event *event, void *user_data) {
    return static_cast<carried<step_function> *>(user_data)->call<const kigo_step_event &>(*event);
}

inline int32_t check_seen(const kigo_check *check, void *user_data) {
    return static_cast<carried<check_function> *>(user_data)->call<const kigo_check &>(*check);
}

// What it throws stops the call, as any number but 0 does.
inline int32_t tap(const kigo_tap_event *event, void *user_data) {
    carried<tap_function> tap{*static_cast<tap_function *>(user_data)};
    return tap.call<const kigo_tap_event &>(*event);
}

// The log outlives the engine object, since models and sessions log too; what it throws only ends it.
inline int32_t log(const kigo_log_event *event, void *user_data) {
    carried<log_function> log{static_cast<host *>(user_data)->log};
    return log.call(event->level, std::string_view(event->text, event->text_len));
}

// What these throw stops the call with KIGO_STATUS_CANCELLED, as any number but 0 does.
inline int32_t on_thread(const kigo_thread_event *event, void *user_data) {
    carried<thread_function> on_thread{static_cast<host *>(user_data)->on_thread};
    return on_thread.call<const kigo_thread_event &>(*event);
}

inline int32_t parallel_for(std::size_t n, kigo_body call, void *context, void *user_data) {
    carried<parallel_function> parallel_for{static_cast<host *>(user_data)->parallel_for};
    return parallel_for.call<std::size_t, const body &>(n, body{call, context});
}

// What it throws is no memory.
inline void *alloc(std::size_t bytes, std::size_t alignment, int32_t kind, void *user_data) {
    try {
        return static_cast<host *>(user_data)->alloc(bytes, alignment, kind);
    } catch (...) {
        return nullptr;
    }
}

// What it throws ends the program: nothing can be done about it.
inline void free(void *pointer, std::size_t bytes, std::size_t alignment, int32_t kind, void *user_data) noexcept {
    static_cast<host *>(user_data)->free(pointer, bytes, alignment, kind);
}

inline int32_t go_on(void *user_data) { return static_cast<carried<go_on_function> *>(user_data)->call(); }

inline std::vector<kigo_string> strings(const std::vector<std::string> &texts) {
    std::vector<kigo_string> out;
    for (const std::string &text : texts) out.push_back({text.data(), text.size()});
    return out;
}

// An owner of a C handle.
template <class Handle, void (*Destroy)(Handle *)> class owner {
public:
    owner() = default;
    owner(owner &&) noexcept = default;
    // The handle goes first here too: what is destroyed calls the functions that it was made with.
    owner &operator=(owner &&other) noexcept {
        handle_ = std::move(other.handle_);
        host_ = std::move(other.host_);
        return *this;
    }
    Handle *get() const noexcept { return handle_.get(); }

protected:
    struct destroyer {
        void operator()(Handle *handle) const noexcept { Destroy(handle); }
    };
    // Before the handle, so that it is destroyed after it: the library may call it to the end.
    std::shared_ptr<host> host_;
    std::unique_ptr<Handle, destroyer> handle_;
};

} // namespace detail

struct message {
    std::string role, content;
};

struct engine_options {
    std::string device = "auto";
    uint32_t n_threads = 0;
    uint64_t memory_cap_bytes = 0;
    log_function log = {};
    int32_t log_level = 0;
    thread_function on_thread = {};
    std::vector<uint32_t> cpus = {};
    uint64_t affinity = KIGO_AFFINITY_ANY;
    int32_t thread_policy = KIGO_POLICY_INHERITED;
    int32_t thread_priority = 0;
    parallel_function parallel_for = {};
    alloc_function alloc = {};
    free_function free = {};
};

// The devices of this machine, the CPU first.
inline std::vector<kigo_device_facts> devices() {
    std::size_t n = 0;
    detail::check(kigo_device_count(&n));
    std::vector<kigo_device_facts> all(n, detail::sized<kigo_device_facts>());
    for (std::size_t i = 0; i < n; i++) detail::check(kigo_device_info(i, &all[i]));
    return all;
}

struct load_options {
    uint64_t cache_bytes = 0;
    uint64_t flags = 0;
    uint64_t pass_tokens = 0;
    uint64_t prefix_cache_bytes = 0;
    uint64_t checkpoint_bytes = 0;
};

struct generate_options {
    std::size_t max_tokens = 0;
    std::vector<std::string> stop = {};
    uint64_t flags = 0;
};

class model;
class constraint;
class session;
class stream;
class polled_batch;
class chat_parser;

class engine : public detail::owner<kigo_engine, kigo_engine_destroy> {
public:
    explicit engine(const engine_options &options = {}) {
        auto c = detail::sized<kigo_engine_options>();
        c.device = options.device.data();
        c.device_len = options.device.size();
        c.n_threads = options.n_threads;
        c.memory_cap_bytes = options.memory_cap_bytes;
        c.log_level = options.log_level;
        c.cpus = options.cpus.data();
        c.n_cpus = options.cpus.size();
        c.affinity = options.affinity;
        c.thread_policy = options.thread_policy;
        c.thread_priority = options.thread_priority;
        host_ = std::make_shared<detail::host>(
            detail::host{options.log, options.on_thread, options.parallel_for, options.alloc, options.free});
        if (options.log) c.log = detail::log;
        if (options.on_thread) c.on_thread = detail::on_thread;
        if (options.parallel_for) c.parallel_for = detail::parallel_for;
        if (options.alloc) c.alloc = detail::alloc;
        if (options.free) c.free = detail::free;
        c.log_user_data = c.thread_user_data = c.parallel_for_user_data = c.memory_user_data = host_.get();
        kigo_engine *handle = nullptr;
        detail::check(kigo_engine_create(&c, &handle));
        handle_.reset(handle);
    }
    std::string device() const {
        return detail::buffer<std::string>(
            [&](char *buffer, std::size_t n, std::size_t *needed) { return kigo_engine_device(get(), buffer, n, needed); });
    }
    // The last call with this handle that failed, on whichever thread; empty if none has.
    std::string last_error() const {
        return detail::buffer<std::string>([&](char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_engine_last_error(get(), buffer, n, needed);
        });
    }
    kigo_engine_facts info() const {
        auto facts = detail::sized<kigo_engine_facts>();
        detail::check(kigo_engine_info(get(), &facts));
        return facts;
    }
    // Bytes a second that the device's memory is read with, measured now.
    double read_bandwidth() const {
        double bytes_per_second;
        detail::check(kigo_engine_read_bandwidth(get(), &bytes_per_second));
        return bytes_per_second;
    }
    // `n_tokens`: of the session whose cache is planned for; 0: as many as the model was trained for.
    kigo_plan plan(std::string_view path, std::size_t n_tokens = 0, uint64_t flags = 0) const {
        auto c = detail::sized<kigo_plan_options>();
        c.n_tokens = n_tokens;
        c.flags = flags;
        auto plan = detail::sized<kigo_plan>();
        detail::check(kigo_model_plan(get(), path.data(), path.size(), &c, &plan));
        return plan;
    }
    // Nine checks of this device with a file; `on_check` gets each.
    kigo_diagnosis doctor(std::string_view path, const check_function &on_check = {}, uint64_t seed = 0) const {
        detail::carried<check_function> carried{on_check};
        auto c = detail::sized<kigo_doctor_options>();
        c.seed = seed;
        if (on_check) {
            c.on_check = detail::check_seen;
            c.user_data = &carried;
        }
        auto diagnosis = detail::sized<kigo_diagnosis>();
        carried.check(kigo_doctor(get(), path.data(), path.size(), &c, &diagnosis));
        return diagnosis;
    }
    inline model load_file(std::string_view path, const progress_function &progress = {},
                           const load_options &options = {}) const;
    inline model load_memory(const void *data, std::size_t n_bytes, const progress_function &progress = {},
                           const load_options &options = {}) const;

private:
    template <class Load> model load(const progress_function &progress, const load_options &options, Load load) const;
};

class model : public detail::owner<kigo_model, kigo_model_destroy> {
public:
    // The last call with this handle that failed, on whichever thread; empty if none has.
    std::string last_error() const {
        return detail::buffer<std::string>([&](char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_model_last_error(get(), buffer, n, needed);
        });
    }
    kigo_model_facts info() const {
        auto facts = detail::sized<kigo_model_facts>();
        detail::check(kigo_model_info(get(), &facts));
        return facts;
    }
    kigo_layer_facts layer(std::size_t number) const {
        auto facts = detail::sized<kigo_layer_facts>();
        detail::check(kigo_model_layer_info(get(), number, &facts));
        return facts;
    }
    // What a session of so many tokens takes of the cache.
    uint64_t cache_bytes(std::size_t n_tokens) const {
        uint64_t bytes = 0;
        detail::check(kigo_model_cache_bytes(get(), n_tokens, &bytes));
        return bytes;
    }
    // What its sessions have come to, and what is under way. Any thread.
    kigo_model_figures stats() const {
        auto figures = detail::sized<kigo_model_figures>();
        detail::check(kigo_model_stats(get(), &figures));
        return figures;
    }
    kigo_cache_facts cache() const {
        auto facts = detail::sized<kigo_cache_facts>();
        detail::check(kigo_model_cache_info(get(), &facts));
        return facts;
    }
    // The embedding of a text's tokens.
    std::vector<float> embed(const tokens &ids, int32_t pooling = KIGO_POOLING_MEAN,
                             int32_t normalization = KIGO_NORMALIZATION_L2) const {
        auto c = detail::sized<kigo_embed_options>();
        c.pooling = pooling;
        c.normalization = normalization;
        return detail::buffer<std::vector<float>>([&](float *buffer, std::size_t n, std::size_t *needed) {
            return kigo_model_embed(get(), ids.data(), ids.size(), &c, buffer, n, needed);
        });
    }
    std::string architecture() const {
        return detail::buffer<std::string>([&](char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_model_architecture(get(), buffer, n, needed);
        });
    }
    std::string quantization() const {
        return detail::buffer<std::string>([&](char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_model_quantization(get(), buffer, n, needed);
        });
    }
    // A metadata value as text; a key that is not there is an error of KIGO_STATUS_NOT_FOUND.
    std::string meta(std::string_view key) const {
        return detail::buffer<std::string>([&](char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_model_meta(get(), key.data(), key.size(), buffer, n, needed);
        });
    }
    int32_t meta_type(std::string_view key) const {
        int32_t type;
        detail::check(kigo_model_meta_type(get(), key.data(), key.size(), &type));
        return type;
    }
    std::string meta_key(std::size_t index) const {
        return detail::buffer<std::string>([&](char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_model_meta_key(get(), index, buffer, n, needed);
        });
    }
    tokens tokenize(std::string_view text, uint64_t flags = KIGO_TOKENIZE_ADD_SPECIAL) const {
        return detail::buffer<tokens>([&](uint32_t *ids, std::size_t n, std::size_t *needed) {
            return kigo_tokenize(get(), text.data(), text.size(), flags, ids, n, needed);
        });
    }
    std::string detokenize(const tokens &ids, uint64_t flags = 0) const {
        return detail::buffer<std::string>([&](char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_detokenize(get(), ids.data(), ids.size(), flags, buffer, n, needed);
        });
    }
    // Bytes, not always UTF-8.
    std::string token_text(uint32_t token) const {
        return detail::buffer<std::string>([&](char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_token_text(get(), token, buffer, n, needed);
        });
    }
    uint64_t token_flags(uint32_t token) const {
        uint64_t flags = 0;
        detail::check(kigo_token_flags(get(), token, &flags));
        return flags;
    }
    tokens chat(const std::vector<message> &messages, uint64_t flags = KIGO_CHAT_ADD_GENERATION_PROMPT) const {
        const auto c = messages_of(messages);
        return detail::buffer<tokens>([&](uint32_t *ids, std::size_t n, std::size_t *needed) {
            return kigo_chat_render(get(), c.data(), c.size(), flags, ids, n, needed);
        });
    }
    std::string chat_text(const std::vector<message> &messages, uint64_t flags = KIGO_CHAT_ADD_GENERATION_PROMPT) const {
        const auto c = messages_of(messages);
        return detail::buffer<std::string>([&](char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_chat_render_text(get(), c.data(), c.size(), flags, buffer, n, needed);
        });
    }
    // A conversation in JSON; the struct_size is set here.
    tokens chat_json(const std::string &messages, kigo_chat_options options = {}) const {
        options.struct_size = sizeof options;
        return detail::buffer<tokens>([&](uint32_t *ids, std::size_t n, std::size_t *needed) {
            return kigo_chat_render_json(get(), messages.data(), messages.size(), &options, ids, n, needed);
        });
    }
    std::string chat_json_text(const std::string &messages, kigo_chat_options options = {}) const {
        options.struct_size = sizeof options;
        return detail::buffer<std::string>([&](char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_chat_render_json_text(get(), messages.data(), messages.size(), &options, buffer, n, needed);
        });
    }
    // The names of the variables that the template reads.
    std::vector<std::string> chat_variables(kigo_chat_options options = {}) const {
        options.struct_size = sizeof options;
        std::vector<std::string> names;
        for (std::size_t i = 0, n = 0;; i++) {
            const kigo_status status = kigo_chat_variable(get(), &options, i, nullptr, 0, &n);
            if (status == KIGO_STATUS_NOT_FOUND && i > 0) return names;
            detail::check(status);
            names.push_back(detail::buffer<std::string>([&](char *buffer, std::size_t size, std::size_t *needed) {
                return kigo_chat_variable(get(), &options, i, buffer, size, needed);
            }));
        }
    }
    // The names of the file's further chat templates, for kigo_chat_options.template_name.
    std::vector<std::string> chat_template_names() const {
        std::vector<std::string> names;
        for (std::size_t i = 0, n = 0;; i++) {
            const kigo_status status = kigo_chat_template_name(get(), i, nullptr, 0, &n);
            if (status == KIGO_STATUS_NOT_FOUND) return names;
            detail::check(status);
            names.push_back(detail::buffer<std::string>([&](char *buffer, std::size_t size, std::size_t *needed) {
                return kigo_chat_template_name(get(), i, buffer, size, needed);
            }));
        }
    }
    // All zero is greedy; the struct_size is set here.
    inline session open(const kigo_sampling &sampling = {}, std::size_t n_ctx = 0, uint64_t flags = 0,
                        std::string_view prefix_salt = {}) const;
    // A grammar of a kind, KIGO_CONSTRAINT_*, compiled; `go_on` is asked meanwhile. flags: KIGO_CONSTRAINT_COMPACT.
    inline constraint compile(int32_t kind, std::string_view text, uint64_t flags = 0,
                              const go_on_function &go_on = {}) const;
    // What session::save() gave.
    inline session restore(const void *blob, std::size_t n_bytes) const;
    inline polled_batch open_batch() const;
    inline stream open_stream(const std::vector<std::string> &stop = {}, uint64_t flags = 0) const;
    // A parser of the answers to a conversation with these tools, variables and template.
    inline chat_parser open_chat_parser(kigo_chat_options options = {}) const;
    // Calls held to the tools of a conversation; the struct_sizes are set here.
    inline constraint compile_tools(kigo_chat_options chat, kigo_tools_options options = {}) const;

private:
    friend class engine;
    model() = default;
    static std::vector<kigo_message> messages_of(const std::vector<message> &messages) {
        std::vector<kigo_message> out;
        for (const message &m : messages) out.push_back({m.role.data(), m.role.size(), m.content.data(), m.content.size()});
        return out;
    }
};

// A compiled grammar, for any number of sessions of its model, on any threads.
class constraint : public detail::owner<kigo_constraint, kigo_constraint_destroy> {
private:
    friend class model;
    constraint() = default;
};

class session : public detail::owner<kigo_session, kigo_session_destroy> {
public:
    void prefill(const tokens &ids) { detail::check(kigo_session_prefill(get(), ids.data(), ids.size())); }
    // Afterwards the session holds exactly these; `progress` is called before each pass.
    kigo_advanced advance(const tokens &ids, const prefill_function &progress = {}) {
        detail::carried<prefill_function> carried{progress};
        auto c = detail::sized<kigo_advance_options>();
        if (progress) {
            c.progress = detail::prefilled;
            c.user_data = &carried;
        }
        auto advanced = detail::sized<kigo_advanced>();
        carried.check(kigo_session_advance(get(), ids.data(), ids.size(), &c, &advanced));
        return advanced;
    }
    void step(uint32_t token) { detail::check(kigo_session_step(get(), token)); }
    uint32_t sample() {
        uint32_t token = 0;
        detail::check(kigo_session_sample(get(), &token));
        return token;
    }
    // `on_token` gets each token with the text that has become complete.
    kigo_generated generate(const generate_options &options = {}, const token_function &on_token = {}) {
        detail::carried<token_function> carried{on_token};
        return run(options, carried, [&](kigo_generate_options &c) { c.on_token = on_token ? detail::token : nullptr; });
    }
    // `on_step` gets each token with its text, its log probabilities and those of the `n_top` likeliest.
    kigo_generated generate_steps(const generate_options &options, std::size_t n_top, const step_function &on_step) {
        detail::carried<step_function> carried{on_step};
        return run(options, carried, [&](kigo_generate_options &c) {
            c.on_step = on_step ? detail::step : nullptr;
            c.n_top = n_top;
        });
    }
    // What it has come to. Any thread, also while another is inside a call with it.
    kigo_session_figures stats() const {
        auto figures = detail::sized<kigo_session_figures>();
        detail::check(kigo_session_stats(get(), &figures));
        return figures;
    }
    void set_sampling(kigo_sampling sampling) {
        sampling.struct_size = sizeof sampling;
        detail::check(kigo_session_set_sampling(get(), &sampling));
    }
    // Any thread; also from a signal handler.
    void cancel() const noexcept { kigo_session_cancel(get()); }
    void clear_cancel() const noexcept { kigo_session_clear_cancel(get()); }
    // Holds output to a constraint of its model from the next token on; without one, to none any more.
    void set_constraint(const constraint &c) { detail::check(kigo_session_set_constraint(get(), c.get())); }
    void set_constraint() { detail::check(kigo_session_set_constraint(get(), nullptr)); }
    std::vector<float> logits() {
        return detail::buffer<std::vector<float>>([&](float *buffer, std::size_t n, std::size_t *needed) {
            return kigo_session_logits(get(), buffer, n, needed);
        });
    }
    std::vector<float> logprobs() {
        return detail::buffer<std::vector<float>>([&](float *buffer, std::size_t n, std::size_t *needed) {
            return kigo_session_logprobs(get(), buffer, n, needed);
        });
    }
    // The likeliest to come next; flags: KIGO_LOGPROBS_*.
    std::vector<kigo_logprob> top_logprobs(std::size_t n_top, uint64_t flags = 0) {
        kigo_logprobs_options options{sizeof options, nullptr, 0, n_top, flags};
        return logprobs_of(options);
    }
    // That of one token, such as the chosen.
    kigo_logprob logprob(uint32_t token) {
        kigo_logprobs_options options{sizeof options, &token, 1, 0, 0};
        return logprobs_of(options)[0];
    }
    tokens ids() {
        return detail::buffer<tokens>([&](uint32_t *ids, std::size_t n, std::size_t *needed) {
            return kigo_session_tokens(get(), ids, n, needed);
        });
    }
    std::size_t n_tokens() {
        std::size_t n = 0;
        detail::check(kigo_session_n_tokens(get(), &n));
        return n;
    }
    kigo_session_facts info() {
        auto facts = detail::sized<kigo_session_facts>();
        detail::check(kigo_session_info(get(), &facts));
        return facts;
    }
    void truncate(std::size_t n_tokens) { detail::check(kigo_session_truncate(get(), n_tokens)); }
    // The last call with this handle that failed, on whichever thread; empty if none has.
    std::string last_error() const {
        return detail::buffer<std::string>([&](char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_session_last_error(get(), buffer, n, needed);
        });
    }
    // `tap` sees the activations `taps`, KIGO_TAP_*, from now on, or all if they are none; an empty one ends that. A fork
    // begins without.
    void set_tap(const std::vector<uint32_t> &taps, tap_function tap) {
        std::unique_ptr<tap_function> kept(tap ? new tap_function(std::move(tap)) : nullptr);
        auto c = detail::sized<kigo_tap_options>();
        if (kept) {
            c.taps = taps.data();
            c.n_taps = taps.size();
            c.callback = detail::tap;
            c.user_data = kept.get();
        }
        detail::check(kigo_session_set_tap(get(), &c));
        tap_ = std::move(kept);
    }
    // The session as bytes, for model::restore().
    std::vector<unsigned char> save() {
        return detail::buffer<std::vector<unsigned char>>([&](unsigned char *buffer, std::size_t n, std::size_t *needed) {
            return kigo_session_save(get(), buffer, n, needed);
        });
    }
    // A session with the same tokens and logits, in constant time.
    session fork() {
        session out;
        kigo_session *handle = nullptr;
        detail::check(kigo_session_fork(get(), &handle));
        out.handle_.reset(handle);
        out.host_ = host_;
        return out;
    }

private:
    friend class model;
    session() = default;
    template <class Carried, class Set> kigo_generated run(const generate_options &options, Carried &carried, Set set) {
        const auto stop = detail::strings(options.stop);
        auto c = detail::sized<kigo_generate_options>();
        c.max_tokens = options.max_tokens;
        c.stop = stop.data();
        c.n_stop = stop.size();
        c.flags = options.flags;
        c.user_data = &carried;
        set(c);
        auto generated = detail::sized<kigo_generated>();
        carried.check(kigo_session_generate(get(), &c, &generated));
        return generated;
    }
    std::vector<kigo_logprob> logprobs_of(const kigo_logprobs_options &options) {
        return detail::buffer<std::vector<kigo_logprob>>([&](kigo_logprob *buffer, std::size_t n, std::size_t *needed) {
            return kigo_session_token_logprobs(get(), &options, buffer, n, needed);
        });
    }
    std::unique_ptr<tap_function> tap_;
};

class stream : public detail::owner<kigo_stream, kigo_stream_destroy> {
public:
    // What has become complete.
    std::string push(uint32_t token) {
        return give([&](kigo_stream_text *out) { return kigo_stream_push(get(), token, out); });
    }
    // What was held back.
    std::string finish() {
        return give([&](kigo_stream_text *out) { return kigo_stream_finish(get(), out); });
    }
    // Whether a stop string has been reached.
    bool stopped() const noexcept { return stopped_; }

private:
    friend class model;
    stream() = default;
    template <class Call> std::string give(Call call) {
        auto out = detail::sized<kigo_stream_text>();
        detail::check(call(&out));
        stopped_ = out.stopped != 0;
        return std::string(out.text, out.text_len);
    }
    bool stopped_ = false;
};

// One event of a parser; its text is its own.
struct chat_event {
    int32_t kind;
    uint32_t call;
    std::string text;
    bool malformed;
};

class chat_parser : public detail::owner<kigo_chat_parser, kigo_chat_parser_destroy> {
public:
    std::vector<chat_event> push(uint32_t token) {
        return give([&](auto events, auto n) { return kigo_chat_parser_push(get(), token, events, n); });
    }
    std::vector<chat_event> push_text(std::string_view text) {
        return give([&](auto events, auto n) { return kigo_chat_parser_push_text(get(), text.data(), text.size(), events, n); });
    }
    // What was held back; the parser is at the beginning of another answer then.
    std::vector<chat_event> finish() {
        return give([&](auto events, auto n) { return kigo_chat_parser_finish(get(), events, n); });
    }
    // Its family is the parser's.
    kigo_chat_format info() const {
        auto out = detail::sized<kigo_chat_format>();
        detail::check(kigo_chat_parser_info(get(), &out));
        return out;
    }
    void set_thinking_budget(std::size_t n_tokens) {
        detail::check(kigo_chat_parser_set_thinking_budget(get(), n_tokens));
    }
    // The tokens that end thinking.
    tokens thinking_end() const {
        return detail::buffer<tokens>([&](uint32_t *ids, std::size_t n, std::size_t *needed) {
            return kigo_chat_parser_thinking_end(get(), ids, n, needed);
        });
    }

private:
    friend class model;
    chat_parser() = default;
    template <class Call> std::vector<chat_event> give(Call call) {
        const kigo_chat_event *events = nullptr;
        std::size_t n = 0;
        detail::check(call(&events, &n));
        std::vector<chat_event> out;
        for (std::size_t i = 0; i < n; i++) {
            const kigo_chat_event &e = events[i];
            out.push_back({e.kind, e.call, std::string(e.text, e.text_len), (e.flags & KIGO_CHAT_EVENT_MALFORMED) != 0});
        }
        return out;
    }
};

inline chat_parser model::open_chat_parser(kigo_chat_options options) const {
    options.struct_size = sizeof options;
    chat_parser out;
    kigo_chat_parser *handle = nullptr;
    detail::check(kigo_chat_parser_create(get(), &options, &handle));
    out.handle_.reset(handle);
    out.host_ = host_;
    return out;
}

inline constraint model::compile_tools(kigo_chat_options chat, kigo_tools_options options) const {
    chat.struct_size = sizeof chat;
    options.struct_size = sizeof options;
    constraint out;
    kigo_constraint *handle = nullptr;
    detail::check(kigo_constraint_create_tools(get(), &chat, &options, &handle));
    out.handle_.reset(handle);
    return out;
}

inline constraint model::compile(int32_t kind, std::string_view text, uint64_t flags, const go_on_function &go_on) const {
    detail::carried<go_on_function> carried{go_on};
    auto c = detail::sized<kigo_constraint_options>();
    c.kind = static_cast<uint64_t>(kind);
    c.text = text.data();
    c.text_len = text.size();
    c.flags = flags;
    if (go_on) {
        c.go_on = detail::go_on;
        c.user_data = &carried;
    }
    constraint out;
    kigo_constraint *handle = nullptr;
    carried.check(kigo_constraint_create(get(), &c, &handle));
    out.handle_.reset(handle);
    return out;
}

template <class Load> model engine::load(const progress_function &progress, const load_options &options, Load load) const {
    detail::carried<progress_function> carried{progress};
    auto c = detail::sized<kigo_load_options>();
    c.cache_bytes = options.cache_bytes;
    c.prefix_cache_bytes = options.prefix_cache_bytes;
    c.checkpoint_bytes = options.checkpoint_bytes;
    c.flags = options.flags;
    c.pass_tokens = options.pass_tokens;
    if (progress) {
        c.progress = detail::progress;
        c.progress_user_data = &carried;
    }
    model out;
    kigo_model *handle = nullptr;
    carried.check(load(&c, &handle));
    out.handle_.reset(handle);
    out.host_ = host_;
    return out;
}

inline model engine::load_file(std::string_view path, const progress_function &progress,
                               const load_options &how) const {
    return load(progress, how, [&](const kigo_load_options *options, kigo_model **out) {
        return kigo_model_load_file(get(), path.data(), path.size(), options, out);
    });
}

inline model engine::load_memory(const void *data, std::size_t n_bytes, const progress_function &progress,
                                 const load_options &how) const {
    return load(progress, how, [&](const kigo_load_options *options, kigo_model **out) {
        return kigo_model_load_memory(get(), data, n_bytes, options, out);
    });
}

// Many sessions in one pass. A session that fails is no exception here, since the others go on: see `statuses`. The
// sessions must outlive it, and may not be moved meanwhile.
struct batch {
    std::vector<kigo_session *> sessions;
    std::vector<kigo_status> statuses; // of the last call, one for each session

    void add(session &s) { sessions.push_back(s.get()); }
    // One token for each session; true if all took it.
    bool step(const tokens &ids) {
        if (ids.size() != sessions.size()) throw std::invalid_argument("as many tokens as sessions are needed");
        statuses.assign(sessions.size(), KIGO_STATUS_OK);
        return kigo_step_batch(sessions.data(), ids.data(), ids.size(), statuses.data()) == KIGO_STATUS_OK;
    }
    bool prefill(const std::vector<tokens> &prompts) {
        if (prompts.size() != sessions.size()) throw std::invalid_argument("as many prompts as sessions are needed");
        statuses.assign(sessions.size(), KIGO_STATUS_OK);
        std::vector<const uint32_t *> ids;
        std::vector<std::size_t> n_ids;
        for (const tokens &p : prompts) ids.push_back(p.data()), n_ids.push_back(p.size());
        return kigo_prefill_batch(sessions.data(), ids.data(), n_ids.data(), ids.size(), statuses.data()) ==
               KIGO_STATUS_OK;
    }
    // The next token of each session; KIGO_TOKEN_NONE where the status is not KIGO_STATUS_OK.
    tokens sample() {
        tokens ids(sessions.size());
        statuses.assign(sessions.size(), KIGO_STATUS_OK);
        kigo_sample_batch(sessions.data(), sessions.size(), ids.data(), statuses.data());
        return ids;
    }
};

// Sessions that run a while at a time. A session must not be moved while it is in it.
class polled_batch : public detail::owner<kigo_batch, kigo_batch_destroy> {
public:
    struct event {
        kigo_batch_event what; // its text is the one below
        std::string text;
    };
    // Tokens to append, and what to generate then, if anything.
    void add(session &s, const tokens &ids, const generate_options *generate = nullptr, void *user_data = nullptr) {
        auto work = detail::sized<kigo_batch_work>();
        auto how = detail::sized<kigo_generate_options>();
        std::vector<kigo_string> stops;
        if (generate != nullptr) {
            stops = detail::strings(generate->stop);
            how.max_tokens = generate->max_tokens;
            how.stop = stops.data();
            how.n_stop = stops.size();
            how.flags = generate->flags;
            work.generate = &how;
        }
        work.ids = ids.data();
        work.n_ids = ids.size();
        work.user_data = user_data;
        detail::check(kigo_batch_add(get(), s.get(), &work));
    }
    void remove(session &s) { detail::check(kigo_batch_remove(get(), s.get())); }
    // How many sessions are still in it.
    std::size_t run(uint64_t max_ms) {
        std::size_t n = 0;
        detail::check(kigo_batch_run(get(), max_ms, &n));
        return n;
    }
    // False where nothing has happened that was not taken.
    bool next(event &out) {
        out.what = detail::sized<kigo_batch_event>();
        detail::check(kigo_batch_next(get(), &out.what));
        out.text = out.what.text != nullptr ? std::string(out.what.text, out.what.text_len) : std::string();
        out.what.text = nullptr;
        return out.what.kind != KIGO_BATCH_EVENT_NONE;
    }

private:
    friend class model;
    polled_batch() = default;
};

inline polled_batch model::open_batch() const {
    polled_batch out;
    kigo_batch *handle = nullptr;
    detail::check(kigo_batch_create(get(), &handle));
    out.handle_.reset(handle);
    out.host_ = host_;
    return out;
}

inline session model::restore(const void *blob, std::size_t n_bytes) const {
    session out;
    kigo_session *handle = nullptr;
    detail::check(kigo_session_restore(get(), blob, n_bytes, &handle));
    out.handle_.reset(handle);
    out.host_ = host_;
    return out;
}

inline session model::open(const kigo_sampling &sampling, std::size_t n_ctx, uint64_t flags,
                           std::string_view prefix_salt) const {
    kigo_sampling with_size = sampling;
    with_size.struct_size = sizeof with_size;
    auto c = detail::sized<kigo_session_options>();
    c.n_ctx = n_ctx;
    c.sampling = &with_size;
    c.flags = flags;
    c.prefix_salt = prefix_salt.data();
    c.prefix_salt_len = prefix_salt.size();
    session out;
    kigo_session *handle = nullptr;
    detail::check(kigo_session_create(get(), &c, &handle));
    out.handle_.reset(handle);
    out.host_ = host_;
    return out;
}

inline stream model::open_stream(const std::vector<std::string> &stop, uint64_t flags) const {
    const auto stops = detail::strings(stop);
    auto c = detail::sized<kigo_stream_options>();
    c.stop = stops.data();
    c.n_stop = stops.size();
    c.flags = flags;
    stream out;
    kigo_stream *handle = nullptr;
    detail::check(kigo_stream_create(get(), &c, &handle));
    out.handle_.reset(handle);
    out.host_ = host_;
    return out;
}

} // namespace kigo

#endif // KIGO_HPP
