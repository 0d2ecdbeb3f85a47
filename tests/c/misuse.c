// Every misuse gets its status and its text, in time, and the next correct call on the same engine works.
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include <math.h>
#include <sys/resource.h>
#include <time.h>

static kigo_engine *engine;
static kigo_model *model;
static kigo_session *session;
static bool slow; // under valgrind: no limits on time and memory
static int n_cases;

// Milliseconds of this process on any processor: what else the machine does is no matter.
static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static long peak_kib(void)
{
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_maxrss;
}

// Nothing has been lost: the session still holds its three tokens and gives the same one, a new one works.
static void still_works(void)
{
    static uint32_t expected = KIGO_TOKEN_NONE;
    uint32_t token;
    size_t n;
    CHECK(kigo_session_n_tokens(session, &n) == KIGO_STATUS_OK && n == 3);
    CHECK(kigo_session_sample(session, &token) == KIGO_STATUS_OK);
    CHECK(expected == KIGO_TOKEN_NONE || token == expected);
    expected = token;
    kigo_session *fresh = open_session(model);
    CHECK(kigo_session_sample(fresh, &token) == KIGO_STATUS_OK && token == expected);
    kigo_session_destroy(fresh);
}

// `call` gives `status`, and a text that holds `text`.
#define REFUSED(call, status, text)                                                                  \
    do {                                                                                             \
        double begin = now_ms();                                                                     \
        kigo_status found = (call);                                                                  \
        double ms = now_ms() - begin;                                                                \
        if (found != (status) || strstr(kigo_last_error(), (text)) == NULL) {                        \
            fprintf(stderr, "%s:%d: %s\ngives %s: %s\nexpected %s: %s\n", __FILE__, __LINE__, #call, \
                    kigo_status_name(found), kigo_last_error(), kigo_status_name(status), (text));   \
            exit(1);                                                                                 \
        }                                                                                            \
        CHECK(slow || ms < 100);                                                                     \
        still_works();                                                                               \
        n_cases++;                                                                                   \
    } while (0)

#define INVALID KIGO_STATUS_INVALID_ARGUMENT

static int32_t go_nowhere(void *user_data)
{
    (void)user_data;
    return 1;
}

static int32_t stop_loading(uint64_t done, uint64_t total, void *user_data)
{
    (void)done, (void)total;
    ++*(int *)user_data;
    return 1;
}

static void engines(void)
{
    kigo_engine *out = engine;
    REFUSED(kigo_engine_create(NULL, NULL), INVALID, "engine is NULL");

    kigo_engine_options o = {.struct_size = 0};
    REFUSED(kigo_engine_create(&o, &out), INVALID, "kigo_engine_options.struct_size is 0; expected sizeof = 144");
    CHECK(out == NULL);
    o.struct_size = 12;
    REFUSED(kigo_engine_create(&o, &out), INVALID, "struct_size is 12");
    o.struct_size = SIZE_MAX;
    REFUSED(kigo_engine_create(&o, &out), INVALID, "struct_size is 18446744073709551615");
    o.struct_size = 4104;
    REFUSED(kigo_engine_create(&o, &out), INVALID, "struct_size is 4104");
    struct {
        kigo_engine_options known;
        uint64_t unknown;
    } newer = {{.struct_size = sizeof newer}, 1};
    REFUSED(kigo_engine_create(&newer.known, &out), INVALID, "struct_size is 152; expected sizeof = 144");

    o = (kigo_engine_options){.struct_size = sizeof o, .device = "gpu", .device_len = 3};
    REFUSED(kigo_engine_create(&o, &out), INVALID, "device is \"gpu\"; expected \"auto\", \"cpu\", \"cuda:N\" or");
    o.device_len = 0;
    REFUSED(kigo_engine_create(&o, &out), INVALID, "device is \"\"");
    o.device = "\xFF", o.device_len = 1;
    REFUSED(kigo_engine_create(&o, &out), INVALID, "device is not UTF-8 at byte 0 of 1");
    o.device = NULL, o.device_len = 3;
    REFUSED(kigo_engine_create(&o, &out), INVALID, "device is NULL");
    o.device = "cuda:9999", o.device_len = KIGO_STRLEN;
    REFUSED(kigo_engine_create(&o, &out), KIGO_STATUS_DEVICE_UNAVAILABLE, "device \"cuda:9999\" is unavailable: ");
    o.device = "cpu", o.log_level = 9;
    REFUSED(kigo_engine_create(&o, &out), INVALID, "log_level is 9; expected one of KIGO_LOG_LEVEL_*");
    o.log_level = 0, o.n_threads = 1025;
    REFUSED(kigo_engine_create(&o, &out), INVALID, "n_threads is 1025; expected at most 1024");

    char text[64];
    size_t needed = 7;
    REFUSED(kigo_engine_device(NULL, text, sizeof text, &needed), INVALID, "engine is NULL");
    CHECK(needed == 0);
    REFUSED(kigo_engine_device(engine, text, sizeof text, NULL), INVALID, "needed is NULL");
    REFUSED(kigo_engine_device(engine, NULL, 8, &needed), INVALID, "buffer is NULL");
    memset(text, 'x', sizeof text);
    REFUSED(kigo_engine_device(engine, text, 2, &needed), KIGO_STATUS_BUFFER_TOO_SMALL, "buffer holds 2, 3 needed");
    CHECK(needed == 3 && text[0] == 'x');
    REFUSED(kigo_engine_info(engine, NULL), INVALID, "facts is NULL");
    double bandwidth = 1;
    REFUSED(kigo_engine_read_bandwidth(engine, NULL), INVALID, "bytes_per_second is NULL");
    REFUSED(kigo_engine_read_bandwidth(NULL, &bandwidth), INVALID, "engine is NULL");
    REFUSED(kigo_engine_read_bandwidth(engine, &bandwidth), KIGO_STATUS_UNSUPPORTED, "bandwidth");
    CHECK(bandwidth == 0);
    kigo_engine_facts facts = {.struct_size = 0};
    REFUSED(kigo_engine_info(engine, &facts), INVALID, "kigo_engine_facts.struct_size is 0");
}

static void models(const char *path)
{
    kigo_model *out = model;
    REFUSED(kigo_model_load_file(NULL, path, KIGO_STRLEN, NULL, &out), INVALID, "engine is NULL");
    CHECK(out == NULL);
    REFUSED(kigo_model_load_file(engine, path, KIGO_STRLEN, NULL, NULL), INVALID, "model is NULL");
    REFUSED(kigo_model_load_file(engine, NULL, KIGO_STRLEN, NULL, &out), INVALID, "path is NULL");
    REFUSED(kigo_model_load_file(engine, "", 0, NULL, &out), INVALID, "path is empty");
    REFUSED(kigo_model_load_file(engine, "a\0b", 3, NULL, &out), INVALID, "path is holding a NUL byte");
    REFUSED(kigo_model_load_file(engine, "/no/such.gguf", KIGO_STRLEN, NULL, &out), KIGO_STATUS_IO,
            "/no/such.gguf: cannot open: ");
    REFUSED(kigo_model_load_file(engine, "/", KIGO_STRLEN, NULL, &out), KIGO_STATUS_IO, "/: cannot ");
    REFUSED(kigo_model_load_file(engine, path, SIZE_MAX / 2 + 1, NULL, &out), INVALID, "path is 9223372036854775808 ");
    kigo_load_options load = {.struct_size = 20};
    REFUSED(kigo_model_load_file(engine, path, KIGO_STRLEN, &load, &out), INVALID, "kigo_load_options.struct_size is 20");
    int n_calls = 0;
    load = (kigo_load_options){.struct_size = sizeof load, .progress = stop_loading, .progress_user_data = &n_calls};
    REFUSED(kigo_model_load_file(engine, path, KIGO_STRLEN, &load, &out), KIGO_STATUS_CANCELLED, "cancelled");
    CHECK(n_calls == 1 && out == NULL);

    REFUSED(kigo_model_load_memory(engine, NULL, 100, NULL, &out), INVALID, "data is NULL");
    REFUSED(kigo_model_load_memory(engine, NULL, 0, NULL, &out), KIGO_STATUS_INVALID_MODEL, "");
    REFUSED(kigo_model_load_memory(engine, "not a model at all......", 24, NULL, &out), KIGO_STATUS_INVALID_MODEL, "magic");

    kigo_plan plan = {.struct_size = 4};
    REFUSED(kigo_model_plan(engine, path, KIGO_STRLEN, NULL, &plan), INVALID, "kigo_plan.struct_size is 4");
    REFUSED(kigo_model_plan(engine, path, KIGO_STRLEN, NULL, NULL), INVALID, "plan is NULL");
    plan = (kigo_plan){.struct_size = sizeof plan, .weights_bytes = 5};
    REFUSED(kigo_model_plan(engine, "/no/such.gguf", KIGO_STRLEN, NULL, &plan), KIGO_STATUS_IO, "cannot open");
    CHECK(plan.struct_size == sizeof plan && plan.weights_bytes == 0);

    char text[64];
    size_t needed;
    int32_t type = 5;
    REFUSED(kigo_model_info(NULL, NULL), INVALID, "facts is NULL");
    REFUSED(kigo_model_meta(model, "no.such", KIGO_STRLEN, text, 64, &needed), KIGO_STATUS_NOT_FOUND,
            "metadata key \"no.such\" not found");
    REFUSED(kigo_model_meta(model, NULL, KIGO_STRLEN, text, 64, &needed), INVALID, "key is NULL");
    REFUSED(kigo_model_meta_type(model, "no.such", KIGO_STRLEN, &type), KIGO_STATUS_NOT_FOUND, "no.such");
    CHECK(type == 0);
    REFUSED(kigo_model_meta_key(model, 1000000, text, 64, &needed), KIGO_STATUS_NOT_FOUND, "number 1000000");
    REFUSED(kigo_model_architecture(NULL, text, 64, &needed), INVALID, "model is NULL");
}

static void tokens(void)
{
    uint32_t ids[8];
    char text[64];
    size_t needed;
    uint64_t flags;
    REFUSED(kigo_tokenize(model, "a\xC3(", 3, 0, ids, 8, &needed), INVALID, "text is not UTF-8 at byte 1 of 3");
    REFUSED(kigo_tokenize(model, "abc", 3, 4, ids, 8, &needed), INVALID, "flags is 0x4; expected flags within 0x3");
    REFUSED(kigo_tokenize(model, NULL, 3, 0, ids, 8, &needed), INVALID, "text is NULL");
    REFUSED(kigo_tokenize(model, "abc", 3, 0, NULL, 8, &needed), INVALID, "ids is NULL");
    REFUSED(kigo_tokenize(model, "abc", 3, 0, (uint32_t *)((char *)ids + 1), 4, &needed), INVALID, "a multiple of 4");
    ids[0] = 77;
    REFUSED(kigo_tokenize(model, "Hello, world", KIGO_STRLEN, 0, ids, 1, &needed), KIGO_STATUS_BUFFER_TOO_SMALL,
            "buffer holds 1, ");
    CHECK(needed > 1 && ids[0] == 77);
    REFUSED(kigo_token_text(model, 512, text, 64, &needed), INVALID, "token 512 at index 0 is not below the vocabulary's 512");
    REFUSED(kigo_token_flags(model, KIGO_TOKEN_NONE, &flags), INVALID, "token 4294967295");
    REFUSED(kigo_token_flags(model, 0, NULL), INVALID, "flags is NULL");
    ids[0] = 1, ids[1] = 600;
    REFUSED(kigo_detokenize(model, ids, 2, 0, text, 64, &needed), INVALID, "token 600 at index 1");
    REFUSED(kigo_detokenize(model, ids, 1, 2, text, 64, &needed), INVALID, "flags is 0x2");
    REFUSED(kigo_detokenize(model, NULL, 1, 0, text, 64, &needed), INVALID, "ids is NULL");
    REFUSED(kigo_detokenize(model, ids, SIZE_MAX / 4 + 1, 0, text, 64, &needed), INVALID, "ids is 4611686018427387904 ");

    kigo_message message = {"user", 4, "a\xFF", 2};
    REFUSED(kigo_chat_render(model, &message, 1, 0, ids, 8, &needed), INVALID, "content is not UTF-8 at byte 1 of 2");
    message = (kigo_message){NULL, 4, "a", 1};
    REFUSED(kigo_chat_render(model, &message, 1, 0, ids, 8, &needed), INVALID, "role is NULL");
    message = (kigo_message){.role = "user", .content = "x"};
    REFUSED(kigo_chat_render(model, &message, 1, 0, ids, 8, &needed), INVALID,
            "role is empty in message 0; expected a name (role_len may be KIGO_STRLEN)");
    REFUSED(kigo_chat_render_text(model, &message, 1, 0, text, 64, &needed), INVALID, "role is empty in message 0");
    const kigo_message two[2] = {{"user", 4, "a", 1}, {"", KIGO_STRLEN, "b", 1}};
    REFUSED(kigo_chat_render(model, two, 2, 0, ids, 8, &needed), INVALID, "role is empty in message 1");
    REFUSED(kigo_chat_render(model, NULL, 2, 0, ids, 8, &needed), INVALID, "messages is NULL");
    REFUSED(kigo_chat_render_text(model, NULL, 0, 6, text, 64, &needed), INVALID, "flags is 0x6");

    const char *json = "[{\"role\": \"user\", \"content\": \"x\"}]";
    kigo_chat_options chat = {.struct_size = sizeof chat, .flags = 4};
    REFUSED(kigo_chat_render_json(model, json, KIGO_STRLEN, &chat, ids, 8, &needed), INVALID, "flags is 0x4");
    chat.flags = KIGO_CHAT_ADD_GENERATION_PROMPT | KIGO_CHAT_CONTINUE_FINAL;
    REFUSED(kigo_chat_render_json(model, json, KIGO_STRLEN, &chat, ids, 8, &needed), INVALID, "flags is for both");
    chat.flags = KIGO_CHAT_CONTINUE_FINAL;
    REFUSED(kigo_chat_render_json(model, "[]", KIGO_STRLEN, &chat, ids, 8, &needed), INVALID,
            "messages_json is without a message to go on with");
    chat = (kigo_chat_options){.struct_size = sizeof chat, .template_name = "rag", .template_name_len = 3};
    REFUSED(kigo_chat_render_json(model, json, KIGO_STRLEN, &chat, ids, 8, &needed), KIGO_STATUS_NOT_FOUND,
            "chat template \"rag, the model has none with a name\" not found");
    chat.template_source = "x", chat.template_source_len = 1;
    REFUSED(kigo_chat_render_json(model, json, KIGO_STRLEN, &chat, ids, 8, &needed), INVALID,
            "template_name is \"rag\" beside a template_source; expected one of both");
    REFUSED(kigo_chat_template_name(model, 0, text, 64, &needed), KIGO_STATUS_NOT_FOUND, "0, 0 have names");
    chat = (kigo_chat_options){.struct_size = sizeof chat, .tools_json = "{", .tools_json_len = KIGO_STRLEN};
    REFUSED(kigo_chat_render_json(model, json, KIGO_STRLEN, &chat, ids, 8, &needed), INVALID,
            "tools_json is lacking a name in quotes at byte 1 (#); expected JSON");
    chat = (kigo_chat_options){.struct_size = sizeof chat, .variables_json_len = 3};
    REFUSED(kigo_chat_render_json(model, json, KIGO_STRLEN, &chat, ids, 8, &needed), INVALID, "variables_json is NULL");
    chat = (kigo_chat_options){.struct_size = sizeof chat, .template_source = "{{", .template_source_len = 2};
    REFUSED(kigo_chat_render_json(model, json, KIGO_STRLEN, &chat, ids, 8, &needed), INVALID,
            "template_source is malformed (unexpected 'end of template' in line 1); expected a Jinja template");
    REFUSED(kigo_chat_render_json(model, "[{\"role\": 1}]", KIGO_STRLEN, NULL, ids, 8, &needed), INVALID,
            "messages_json is holding a number at #/0/role; expected a string");
    REFUSED(kigo_chat_render_json(model, "[\xFF]", 3, NULL, ids, 8, &needed), INVALID, "messages_json is not UTF-8 at byte 1");
    REFUSED(kigo_chat_render_json_text(model, NULL, 5, NULL, text, 64, &needed), INVALID, "messages_json is NULL");
    chat = (kigo_chat_options){.struct_size = sizeof chat, .flags = 4};
    REFUSED(kigo_chat_variable(model, &chat, 0, text, 64, &needed), INVALID, "flags is 0x4");
    REFUSED(kigo_chat_variable(model, NULL, 99, text, 64, &needed), KIGO_STATUS_NOT_FOUND, "");

    kigo_stream *stream = NULL;
    const kigo_string empty = {"", 0};
    kigo_stream_options o = {.struct_size = sizeof o, .stop = &empty, .n_stop = 1};
    REFUSED(kigo_stream_create(model, &o, &stream), INVALID, "stop is an empty string");
    o = (kigo_stream_options){.struct_size = sizeof o, .n_stop = 1};
    REFUSED(kigo_stream_create(model, &o, &stream), INVALID, "stop is NULL");
    REFUSED(kigo_stream_create(NULL, NULL, &stream), INVALID, "model is NULL");
    CHECK(kigo_stream_create(model, NULL, &stream) == KIGO_STATUS_OK);
    kigo_stream_text piece = {.struct_size = sizeof piece};
    REFUSED(kigo_stream_push(stream, 512, &piece), INVALID, "token 512");
    CHECK(piece.text == NULL);
    REFUSED(kigo_stream_push(NULL, 1, &piece), INVALID, "stream is NULL");
    REFUSED(kigo_stream_finish(stream, NULL), INVALID, "out is NULL");
    kigo_stream_destroy(stream);
}

static void sessions(void)
{
    kigo_session *out = session;
    kigo_session_options o = {.struct_size = sizeof o, .n_ctx = 513};
    REFUSED(kigo_session_create(model, &o, &out), INVALID, "n_ctx is 513; expected 1 to the model's 512");
    CHECK(out == NULL);
    REFUSED(kigo_session_create(NULL, NULL, &out), INVALID, "model is NULL");
    REFUSED(kigo_session_create(model, NULL, NULL), INVALID, "session is NULL");

    kigo_sampling s = {.struct_size = 3};
    o = (kigo_session_options){.struct_size = sizeof o, .sampling = &s};
    REFUSED(kigo_session_create(model, &o, &out), INVALID, "kigo_sampling.struct_size is 3; expected sizeof = 64");
    s = (kigo_sampling){.struct_size = sizeof s, .temperature = NAN};
    REFUSED(kigo_session_set_sampling(session, &s), INVALID, "temperature is NaN");
    s = (kigo_sampling){.struct_size = sizeof s, .temperature = -1};
    REFUSED(kigo_session_set_sampling(session, &s), INVALID, "temperature is -1");
    s = (kigo_sampling){.struct_size = sizeof s, .top_p = 1.5f};
    REFUSED(kigo_session_set_sampling(session, &s), INVALID, "top_p is 1.5");
    s = (kigo_sampling){.struct_size = sizeof s, .repetition_penalty = -2};
    REFUSED(kigo_session_set_sampling(session, &s), INVALID, "repetition_penalty is -2");
    const kigo_logit_bias bias[2] = {{1, 1.0f}, {512, 1.0f}};
    s = (kigo_sampling){.struct_size = sizeof s, .logit_bias = bias, .n_logit_bias = 2};
    REFUSED(kigo_session_set_sampling(session, &s), INVALID, "token 512 at index 1");
    s.logit_bias = NULL;
    REFUSED(kigo_session_set_sampling(session, &s), INVALID, "logit_bias is NULL");

    CHECK(kigo_session_create(model, NULL, &out) == KIGO_STATUS_OK);
    uint32_t token = 9, ids[600];
    float logits[512];
    size_t needed;
    kigo_generated generated = {.struct_size = sizeof generated};
    REFUSED(kigo_session_sample(out, &token), KIGO_STATUS_INVALID_STATE, "needs logits: prefill or step first");
    CHECK(token == 0);
    REFUSED(kigo_session_logits(out, logits, 512, &needed), KIGO_STATUS_INVALID_STATE, "needs logits");
    REFUSED(kigo_session_logits(out, NULL, 0, &needed), KIGO_STATUS_INVALID_STATE, "needs logits");
    REFUSED(kigo_session_logprobs(out, logits, 512, &needed), KIGO_STATUS_INVALID_STATE, "needs logits");
    kigo_logprob top[4];
    kigo_logprobs_options lp = {.struct_size = sizeof lp, .n_top = 4};
    needed = 9;
    REFUSED(kigo_session_token_logprobs(out, &lp, top, 4, &needed), KIGO_STATUS_INVALID_STATE, "needs logits");
    CHECK(needed == 0);
    REFUSED(kigo_session_token_logprobs(session, &lp, top, 3, &needed), KIGO_STATUS_BUFFER_TOO_SMALL,
            "buffer holds 3, 4 needed");
    CHECK(needed == 4);
    CHECK(kigo_session_token_logprobs(session, &lp, NULL, 0, &needed) == KIGO_STATUS_OK && needed == 4);
    CHECK(kigo_session_token_logprobs(session, NULL, NULL, 0, &needed) == KIGO_STATUS_OK && needed == 0);
    lp.n_top = 513;
    REFUSED(kigo_session_token_logprobs(session, &lp, top, 4, &needed), INVALID,
            "n_top is 513; expected at most the vocabulary's 512");
    lp.n_top = SIZE_MAX;
    REFUSED(kigo_session_token_logprobs(session, &lp, NULL, 0, &needed), INVALID, "n_top is 18446744073709551615");
    const uint32_t shown[2] = {0, 512};
    lp = (kigo_logprobs_options){.struct_size = sizeof lp, .tokens = shown, .n_tokens = 2};
    REFUSED(kigo_session_token_logprobs(session, &lp, top, 4, &needed), INVALID, "token 512 at index 1");
    lp.tokens = NULL;
    REFUSED(kigo_session_token_logprobs(session, &lp, top, 4, &needed), INVALID, "tokens is NULL");
    REFUSED(kigo_session_generate(out, NULL, &generated), KIGO_STATUS_INVALID_STATE, "needs logits");
    kigo_session_destroy(out);

    memset(ids, 0, sizeof ids);
    REFUSED(kigo_session_prefill(session, ids, 0), INVALID, "n_ids is 0; expected at least 1");
    REFUSED(kigo_session_prefill(session, NULL, 3), INVALID, "ids is NULL");
    REFUSED(kigo_session_prefill(NULL, ids, 3), INVALID, "session is NULL");
    REFUSED(kigo_session_prefill(session, ids, 510), KIGO_STATUS_CONTEXT_FULL,
            "3 tokens held and 510 to add exceed the context of 512");
    ids[7] = 512;
    REFUSED(kigo_session_prefill(session, ids, 8), INVALID, "token 512 at index 7 is not below the vocabulary's 512");
    REFUSED(kigo_session_step(session, KIGO_TOKEN_NONE), INVALID, "token 4294967295 at index 0");
    REFUSED(kigo_session_sample(session, NULL), INVALID, "token is NULL");
    REFUSED(kigo_session_logits(session, logits, 511, &needed), KIGO_STATUS_BUFFER_TOO_SMALL, "buffer holds 511, 512 needed");
    CHECK(needed == 512);
    kigo_constraint *held_to;
    kigo_constraint_options how = {.struct_size = sizeof how, .kind = KIGO_CONSTRAINT_REGEX, .text_len = 3};
    REFUSED(kigo_constraint_create(NULL, &how, &held_to), INVALID, "model is NULL");
    REFUSED(kigo_constraint_create(model, NULL, &held_to), INVALID, "kind is 0");
    REFUSED(kigo_constraint_create(model, &how, NULL), INVALID, "constraint is NULL");
    REFUSED(kigo_constraint_create(model, &how, &held_to), INVALID, "text is NULL");
    how.text = "a", how.text_len = 1, how.kind = 5;
    REFUSED(kigo_constraint_create(model, &how, &held_to), INVALID, "kind is 5; expected KIGO_CONSTRAINT_*, 1 to 4");
    how.kind = (uint64_t)-1;
    REFUSED(kigo_constraint_create(model, &how, &held_to), INVALID, "kind is 18446744073709551615");
    how.kind = KIGO_CONSTRAINT_REGEX, how.flags = 2;
    REFUSED(kigo_constraint_create(model, &how, &held_to), INVALID, "flags is 0x2");
    how.flags = 0, how.text = "\xC3(", how.text_len = 2;
    REFUSED(kigo_constraint_create(model, &how, &held_to), INVALID, "text is not UTF-8");
    how.text = "(", how.text_len = 1;
    REFUSED(kigo_constraint_create(model, &how, &held_to), KIGO_STATUS_CONSTRAINT, "constraint: ");
    CHECK(held_to == NULL);
    how.text = "{", how.kind = KIGO_CONSTRAINT_JSON_SCHEMA;
    REFUSED(kigo_constraint_create(model, &how, &held_to), KIGO_STATUS_CONSTRAINT, "#: byte 1 (line 1) is the end of the text");
    how.text = "[a-z]+", how.text_len = KIGO_STRLEN, how.kind = KIGO_CONSTRAINT_REGEX;
    how.go_on = go_nowhere;
    REFUSED(kigo_constraint_create(model, &how, &held_to), KIGO_STATUS_CANCELLED, "cancelled");
    how.go_on = NULL;
    CHECK(kigo_constraint_create(model, &how, &held_to) == KIGO_STATUS_OK);
    REFUSED(kigo_session_set_constraint(NULL, held_to), INVALID, "session is NULL");
    CHECK(kigo_session_set_constraint(session, held_to) == KIGO_STATUS_OK);
    kigo_constraint_destroy(held_to);
    CHECK(kigo_session_set_constraint(session, NULL) == KIGO_STATUS_OK);
    kigo_embed_options embed = {.struct_size = sizeof embed};
    const uint32_t text[2] = {1, 2}, no_such_text[2] = {1, 512};
    REFUSED(kigo_model_embed(NULL, text, 2, NULL, logits, 512, &needed), INVALID, "model is NULL");
    REFUSED(kigo_model_embed(model, NULL, 2, NULL, logits, 512, &needed), INVALID, "tokens is NULL");
    REFUSED(kigo_model_embed(model, text, 2, NULL, logits, 512, NULL), INVALID, "needed is NULL");
    REFUSED(kigo_model_embed(model, text, 2, NULL, NULL, 512, &needed), INVALID, "buffer is NULL");
    REFUSED(kigo_model_embed(model, text, 0, NULL, logits, 512, &needed), INVALID, "n_tokens is 0; expected at least 1");
    REFUSED(kigo_model_embed(model, text, 2, NULL, logits, 1, &needed), KIGO_STATUS_BUFFER_TOO_SMALL, "buffer holds 1, ");
    REFUSED(kigo_model_embed(model, no_such_text, 2, NULL, logits, 512, &needed), INVALID, "token 512 at index 1");
    embed.pooling = 2;
    REFUSED(kigo_model_embed(model, text, 2, &embed, logits, 512, &needed), INVALID, "pooling is 2; expected one of [0, 1]");
    embed.pooling = KIGO_POOLING_LAST, embed.normalization = -1;
    REFUSED(kigo_model_embed(model, text, 2, &embed, logits, 512, &needed), INVALID, "normalization is -1");
    embed.normalization = KIGO_NORMALIZATION_NONE;
    CHECK(kigo_model_embed(model, text, 2, &embed, NULL, 0, &needed) == KIGO_STATUS_OK && needed > 0 && needed <= 512);
    CHECK(kigo_model_embed(model, text, 2, &embed, logits, 512, &needed) == KIGO_STATUS_OK && logits[0] == logits[0]);
    REFUSED(kigo_session_tokens(session, ids, 2, &needed), KIGO_STATUS_BUFFER_TOO_SMALL, "buffer holds 2, 3 needed");
    REFUSED(kigo_session_n_tokens(session, NULL), INVALID, "n_tokens is NULL");
    kigo_session *fork = session;
    REFUSED(kigo_session_fork(NULL, &fork), INVALID, "session is NULL");
    CHECK(fork == NULL);
    REFUSED(kigo_session_fork(session, NULL), INVALID, "fork is NULL");
    REFUSED(kigo_session_truncate(session, 4), INVALID, "n_tokens is 4; expected at most the 3 held");
    REFUSED(kigo_session_cancel(NULL), INVALID, "session is NULL");
    REFUSED(kigo_session_clear_cancel(NULL), INVALID, "session is NULL");

    REFUSED(kigo_session_generate(session, NULL, NULL), INVALID, "generated is NULL");
    generated.struct_size = 0;
    REFUSED(kigo_session_generate(session, NULL, &generated), INVALID, "kigo_generated.struct_size is 0");
    generated.struct_size = sizeof generated;
    const kigo_string stops[2] = {{"a", 1}, {"", 0}};
    kigo_generate_options g = {.struct_size = sizeof g, .stop = stops, .n_stop = 2};
    REFUSED(kigo_session_generate(session, &g, &generated), INVALID, "stop is an empty string");
    const kigo_string bad = {"\xC0", 1};
    g = (kigo_generate_options){.struct_size = sizeof g, .stop = &bad, .n_stop = 1};
    REFUSED(kigo_session_generate(session, &g, &generated), INVALID, "stop is not UTF-8 at byte 0 of 1");
    g = (kigo_generate_options){.struct_size = sizeof g, .flags = 1u << 20};
    REFUSED(kigo_session_generate(session, &g, &generated), INVALID, "kigo_generate_options.flags is 0x100000");
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    slow = argc > 2;
    engine = open_engine();
    model = open_model(engine, argv[1]);
    session = open_session(model);
    long before = peak_kib();

    engines();
    models(argv[1]);
    tokens();
    sessions();
    CHECK(slow || peak_kib() - before < 64 * 1024);
    CHECK(n_cases >= 80);

    kigo_engine_destroy(NULL);
    kigo_model_destroy(NULL);
    kigo_session_destroy(NULL);
    kigo_stream_destroy(NULL);
    kigo_session_destroy(session);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
