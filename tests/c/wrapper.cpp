// The C++ wrapper: handles move, failures and callbacks throw, every function works.
#include <kigo.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <atomic>
#include <fstream>
#include <iterator>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            std::fprintf(stderr, "%s:%d: %s\nlast error: %s\n", __FILE__, __LINE__, #condition, kigo_last_error()); \
            std::exit(1);                                                                                    \
        }                                                                                                    \
    } while (0)

// The error that `call` throws, as text.
template <class Call> static std::string thrown(Call call) {
    try {
        call();
    } catch (const kigo::error &e) {
        return e.what();
    }
    return "nothing";
}

struct mine {
    int number;
};

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    int n_lines = 0;
    kigo::engine_options options;
    options.device = "cpu";
    options.n_threads = 2;
    options.log = [&](int32_t level, std::string_view text) {
        CHECK(!text.empty());
        n_lines += level == KIGO_LOG_LEVEL_INFO; // a busy machine has slow passes, which are warnings
        return 0;
    };
    kigo::engine engine(options);
    CHECK(engine.device() == "cpu" && engine.info().n_threads == 2 && n_lines == 1);
    CHECK(engine.plan(argv[1]).weights_bytes > 0);

    // The host's part, for as long as a handle lives.
    {
        std::size_t n_stages = 0, n_blocks = 0, n_threads = 0;
        kigo::engine_options own = {};
        own.device = "cpu";
        own.n_threads = 2;
        own.parallel_for = [&](std::size_t n, const kigo::body &body) {
            for (std::size_t i = 0; i < n; i++) body(i);
            return n_stages++ == 3 ? throw mine{1} : 0;
        };
        own.alloc = [&](std::size_t bytes, std::size_t alignment, int32_t) {
            n_blocks++;
            return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
        };
        own.free = [&](void *block, std::size_t, std::size_t, int32_t) {
            n_blocks--;
            free(block);
        };
        {
            kigo::session session = kigo::engine(own).load_file(argv[1]).open();
            CHECK(n_blocks > 0);
            CHECK(thrown([&] { session.prefill(kigo::tokens(64, 7)); }) == "KIGO_STATUS_CANCELLED: cancelled by parallel_for");
            session.prefill(kigo::tokens(64, 7));
            CHECK(n_stages > 5);
        }
        CHECK(n_blocks == 0);
        own = {};
        own.device = "cpu";
        own.n_threads = 3;
        own.cpus = {8191};
        CHECK(thrown([&] { kigo::engine refused(own); }).find("cpus is 8191 at index 0") != std::string::npos);
        own.cpus = {};
        own.on_thread = [&](const kigo_thread_event &event) { return n_threads += event.ends, 0; };
        { kigo::engine told(own); }
        CHECK(n_threads >= 2);
        CHECK(kigo::devices().at(0).kind == KIGO_DEVICE_CPU);
    }

    // Failures.
    CHECK(thrown([] {
              kigo::engine_options o;
              o.device = "gpu";
              kigo::engine engine(o);
          }).find("KIGO_STATUS_INVALID_ARGUMENT: device is \"gpu\"") == 0);
    CHECK(thrown([&] { engine.load_file("/no/such.gguf"); }).find("KIGO_STATUS_IO: /no/such.gguf: cannot open") == 0);
    CHECK(thrown([&] { engine.load_file(argv[1], [](uint64_t, uint64_t) { return 1; }); }) ==
          "KIGO_STATUS_CANCELLED: cancelled");
    try {
        engine.load_file(argv[1], [](uint64_t, uint64_t) -> int { throw mine{7}; });
        CHECK(!"the callback's exception comes out");
    } catch (const mine &m) {
        CHECK(m.number == 7);
    }

    uint64_t loaded = 0;
    kigo::model first = engine.load_file(argv[1], [&](uint64_t done, uint64_t) {
        loaded = done;
        return 0;
    });
    CHECK(loaded > 0 && n_lines == 2);
    kigo::model model = std::move(first);
    CHECK(first.get() == nullptr);
    CHECK(model.info().n_vocab == 512 && model.architecture() == "qwen2" && model.quantization() == "Q8_0");
    CHECK(model.meta("general.architecture") == "qwen2" && !model.meta_key(0).empty());
    CHECK(thrown([&] { model.meta("none"); }) == "KIGO_STATUS_NOT_FOUND: metadata key \"none\" not found");

    std::string text = "Hello \xE4\xB8\x96";
    kigo::tokens ids = model.tokenize(text);
    CHECK(model.detokenize(ids) == text && model.tokenize("").empty());
    std::string joined;
    for (uint32_t id : ids) joined += model.token_text(id);
    CHECK(joined == text);
    CHECK(model.token_flags(model.info().end_token) & KIGO_TOKEN_IS_END);
    CHECK(model.chat_text({{"user", "Hi"}}, 0) == "<|im_start|>user\nHi<|im_end|>\n");
    CHECK(!model.chat({{"user", "Hi"}}).empty());
    const char *json = R"([{"role": "user", "content": "Hi"}])";
    CHECK(model.chat_json_text(json) == "<|im_start|>user\nHi<|im_end|>\n");
    CHECK(model.chat_json(json) == model.chat({{"user", "Hi"}}, 0));

    kigo_sampling sampling{};
    sampling.temperature = 1.0f;
    sampling.seed = 3;
    kigo::session session = model.open(sampling, 64), by_hand = model.open(sampling, 64);
    session.prefill(ids);
    kigo::generate_options how;
    how.max_tokens = 8;
    how.flags = KIGO_GENERATE_IGNORE_END | KIGO_TEXT_SPECIAL;
    std::string answer;
    kigo_generated generated = session.generate(how, [&](uint32_t, std::string_view piece) {
        answer += piece;
        return 0;
    });
    CHECK(generated.n_tokens == 8 && generated.stop_reason == KIGO_STOP_MAX_TOKENS);
    CHECK(generated.n_prompt_tokens == ids.size() && generated.decode_ns >= generated.first_token_ns);
    CHECK(session.stats().n_tokens_decoded == 8 && model.stats().n_tokens_decoded == 8 && model.stats().n_sessions == 2);

    kigo::stream stream = model.open_stream({}, KIGO_TEXT_SPECIAL);
    std::string streamed;
    by_hand.prefill(ids);
    for (int i = 0; i < 8; i++) {
        uint32_t token = by_hand.sample();
        by_hand.step(token);
        streamed += stream.push(token);
    }
    streamed += stream.finish();
    CHECK(streamed == answer && !stream.stopped());
    CHECK(session.ids() == by_hand.ids() && session.logits() == by_hand.logits());
    kigo::session stepped = model.open(sampling, 64);
    stepped.prefill(ids);
    std::string of_steps;
    kigo::tokens likeliest;
    stepped.generate_steps(how, 2, [&](const kigo_step_event &e) {
        of_steps += std::string(e.text, e.text_len);
        if (e.token != KIGO_TOKEN_NONE) likeliest.push_back(e.top[0].token);
        CHECK(e.token == KIGO_TOKEN_NONE || (e.n_top == 2 && e.top[0].before >= e.before));
        return 0;
    });
    CHECK(of_steps == answer && stepped.ids() == session.ids() && likeliest.size() == 8);
    CHECK(thrown([&] { stepped.generate_steps(how, 513, {}); }).find("KIGO_STATUS_INVALID_ARGUMENT: n_top is 513") == 0);
    try {
        stepped.generate_steps(how, 0, [](const kigo_step_event &) -> int { throw mine{11}; });
        CHECK(!"the callback's exception comes out");
    } catch (const mine &m) {
        CHECK(m.number == 11);
    }

    kigo_chat_options of_calls{};
    of_calls.template_source = "{{ messages[0].content }}{% if false %}<tool_call>{% endif %}";
    of_calls.template_source_len = KIGO_STRLEN;
    of_calls.tools_json = "[{\"name\": \"f\"}]";
    of_calls.tools_json_len = KIGO_STRLEN;
    kigo::chat_parser parser = model.open_chat_parser(of_calls);
    CHECK(std::string(parser.info().family) == "hermes" && parser.info().flags == KIGO_CHAT_FORMAT_CALLS);
    std::vector<kigo::chat_event> events = parser.push_text("<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>yes");
    CHECK(events.size() == 5 && events[1].text == "f" && events[2].text == "{}" && !events[3].malformed && events[4].text == "yes");
    parser.set_thinking_budget(2);
    CHECK(parser.finish().size() == 1 && parser.push(ids[0]).size() <= 1 && !parser.thinking_end().empty());
    CHECK(model.compile_tools(of_calls).get() != nullptr);
    double sum = 0;
    for (float l : session.logprobs()) sum += std::exp(l);
    CHECK(std::fabs(sum - 1) < 1e-4);
    std::vector<kigo_logprob> top = session.top_logprobs(3, KIGO_LOGPROBS_BY_AFTER);
    kigo_logprob chosen = session.logprob(session.sample());
    CHECK(top.size() == 3 && top[0].after >= chosen.after && chosen.token == session.sample());

    // A callback that throws stops the generation; the session goes on.
    std::size_t before = session.n_tokens();
    try {
        session.generate(how, [](uint32_t, std::string_view) -> int { throw mine{8}; });
        CHECK(!"the callback's exception comes out");
    } catch (const mine &m) {
        CHECK(m.number == 8 && session.n_tokens() == before + 1);
    }
    CHECK(session.generate(how, [](uint32_t, std::string_view) { return 5; }).stop_reason == KIGO_STOP_CALLBACK);
    session.cancel();
    CHECK(session.generate(how).stop_reason == KIGO_STOP_CANCELLED);
    session.cancel();
    session.clear_cancel();
    session.truncate(2);
    session.set_sampling({});
    CHECK(thrown([&] { session.sample(); }) == "KIGO_STATUS_INVALID_STATE: needs logits: prefill or step first");
    CHECK(session.last_error() == "needs logits: prefill or step first" && engine.last_error() == "cancelled");
    session.step(1);

    kigo::session fork = session.fork();
    CHECK(fork.ids() == session.ids() && fork.logits() == session.logits());
    fork.step(2);
    CHECK(fork.n_tokens() == session.n_tokens() + 1);

    // What it computes.
    int n_rows = 0;
    kigo::session seen = model.open();
    seen.set_tap({KIGO_TAP_RESID, KIGO_TAP_EMBED}, [&](const kigo_tap_event &event) {
        n_rows += static_cast<int>(event.n_rows);
        return event.n_cols == model.info().n_embd ? 0 : 1;
    });
    kigo::session moved = std::move(seen);
    moved.prefill({1, 2, 3});
    CHECK(n_rows == 3 * (1 + static_cast<int>(model.info().n_layers)));
    moved.set_tap({KIGO_TAP_V}, [](const kigo_tap_event &) -> int { throw mine{9}; });
    CHECK(thrown([&] { moved.step(4); }) == "KIGO_STATUS_CANCELLED: cancelled");
    moved.set_tap({}, {});
    moved.step(4);
    int n_checks = 0;
    try {
        engine.doctor(argv[1], [&](const kigo_check &check) -> int {
            n_checks += check.number == KIGO_CHECK_LOGITS_BUFFER && check.outcome == KIGO_OUTCOME_HOLDS;
            throw mine{10};
        });
        CHECK(!"the callback's exception comes out");
    } catch (const mine &m) {
        CHECK(m.number == 10 && n_checks == 1);
    }
    n_lines -= 1; // it loads the model too

    // Many at once.
    CHECK(session.info().n_pages == 1 && session.info().n_pages_own == 1 && fork.info().has_logits == 1);
    kigo::session third = model.open();
    kigo::session polled = model.open(), alone = model.open();
    kigo::polled_batch while_drawing = model.open_batch();
    kigo::generate_options few;
    few.max_tokens = 5, few.flags = KIGO_GENERATE_IGNORE_END;
    while_drawing.add(polled, {1, 2, 3}, &few, &polled);
    kigo::polled_batch::event event;
    std::string heard, expected;
    std::size_t n_events = 0;
    for (std::size_t n = 1; n > 0;)
        for (n = while_drawing.run(1); while_drawing.next(event); n_events++) {
            CHECK(event.what.session == polled.get() && event.what.user_data == &polled);
            heard += event.text;
        }
    alone.prefill({1, 2, 3});
    alone.generate(few, [&](uint32_t, std::string_view text) { expected += text; return 0; });
    CHECK(n_events == 6 && heard == expected && polled.n_tokens() == alone.n_tokens());
    while_drawing.add(polled, {4, 5});
    while_drawing.remove(polled);
    CHECK(polled.n_tokens() == 8);

    kigo::batch batch;
    for (kigo::session *s : {&session, &fork, &third}) batch.add(*s);
    CHECK(batch.prefill({{1}, {2, 3}, {4, 5, 6}}) && third.n_tokens() == 3);
    kigo::tokens next = batch.sample();
    CHECK(next[0] == session.sample() && next[2] == third.sample() && batch.statuses == std::vector<kigo_status>(3));
    next[1] = 1u << 20;
    CHECK(!batch.step(next) && batch.statuses[1] == KIGO_STATUS_INVALID_ARGUMENT && third.n_tokens() == 4);
    std::vector<unsigned char> blob = session.save();
    kigo::session back = model.restore(blob.data(), blob.size());
    CHECK(back.ids() == session.ids() && back.logits() == session.logits() && back.sample() == session.sample());
    blob[blob.size() / 2] ^= 1;
    CHECK(thrown([&] { model.restore(blob.data(), blob.size()); }).find("KIGO_STATUS_INVALID_ARGUMENT: blob is damaged") == 0);
    kigo::tokens shared(70, 7);
    kigo::session holder = model.open(), reuser = model.open({}, 0, KIGO_SESSION_REUSE_PREFIX);
    holder.prefill(shared);
    reuser.prefill(shared);
    CHECK(reuser.info().n_tokens_reused == 64 && reuser.logits() == holder.logits());
    kigo::session salted = model.open({}, 0, KIGO_SESSION_REUSE_PREFIX, "a");
    salted.prefill(shared);
    CHECK(salted.info().n_tokens_reused == 0);
    std::size_t told = 0;
    const kigo_advanced advanced = salted.advance(kigo::tokens(80, 7), [&](std::size_t done, std::size_t all) {
        told = 1000 * done + all;
        return 0;
    });
    CHECK(advanced.n_kept == 70 && advanced.n_computed == 10 && advanced.n_reused == 0 && told == 70080);
    CHECK(thrown([&] { salted.advance(shared, [](std::size_t, std::size_t) { return 1; }); }).find("KIGO_STATUS_CANCELLED") == 0);
    CHECK(salted.n_tokens() == 80 && salted.advance(kigo::tokens(80, 7)).n_kept == 80);
    kigo::load_options little;
    little.flags = KIGO_LOAD_MERGE_CALLS;
    little.cache_bytes = model.cache_bytes(1);
    CHECK(model.cache_bytes(65) == 2 * little.cache_bytes && engine.plan(argv[1], 65).cache_bytes == 2 * little.cache_bytes);
    CHECK(64 * model.info().n_layers * model.layer(0).kv_bytes_per_token == little.cache_bytes);
    kigo::model small = engine.load_file(argv[1], {}, little);
    n_lines--;
    CHECK(small.cache().limit_bytes == little.cache_bytes && small.cache().free_bytes == little.cache_bytes);
    CHECK(thrown([&] { small.open().prefill(kigo::tokens(65)); }) ==
          "KIGO_STATUS_CACHE_FULL: 2 cache pages needed, 1 of 1 free");

    std::ifstream file(argv[1], std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    kigo::model copy = engine.load_memory(bytes.data(), bytes.size());
    bytes.clear();
    CHECK(copy.tokenize(text) == ids);

    // What a move replaces ends under the functions that it was made with.
    std::atomic<int> ended{0};
    const auto watched = [&ended](const char *name) {
        kigo::engine_options watching;
        watching.device = "cpu";
        watching.n_threads = 2;
        watching.on_thread = [&ended, text = std::string(name)](const kigo_thread_event &event) {
            ended += event.ends && text.size() == 32;
            return 0;
        };
        return kigo::engine(watching);
    };
    kigo::engine replaced = watched("one that is longer than a string");
    replaced = watched("two that is longer than a string");
    CHECK(ended > 0);

    // The engine may go first; its log lives on with the models.
    { kigo::engine gone = std::move(engine); }
    session.step(2);
    CHECK(n_lines == 3);
    return 0;
}
