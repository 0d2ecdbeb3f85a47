// Every call that computes or takes memory, each in one form that can be prepared, made, judged and made again: what the
// programs share that make them under limits, on small stacks, in odd states of the processor and between signals.
//
// A call's outcome is what it wrote and what the session that it concerns then holds, as one number; two outcomes of a
// call on the same model are the same number, whatever surrounds them.
#ifndef CALLS_H
#define CALLS_H

#include "check.h"
#include <stdint.h>

#define N_PROMPT 70
#define N_LONG 300
#define N_BATCH 3
#define TEXT_BYTES 20000

struct world {
    const char *path;
    kigo_engine *engine;
    kigo_model *model;
    kigo_model_facts facts;
    unsigned char *file, *blob;
    size_t file_bytes, blob_bytes;
    char *text; // TEXT_BYTES of words
    uint32_t ids[N_LONG];
    // What a call is about; what it makes.
    kigo_session *session, *others[N_BATCH - 1];
    kigo_stream *stream;
    kigo_batch *batch;
    kigo_constraint *constraint;
    kigo_chat_parser *parser;
    kigo_engine *made_engine;
    kigo_model *made_model;
    kigo_session *made_session;
    kigo_stream *made_stream;
    kigo_constraint *made_constraint;
    kigo_batch *made_batch;
    kigo_chat_parser *made_parser;
    // What it writes: room made beforehand, so that what a call takes is the library's.
    unsigned char *out;
    size_t n_out;
    kigo_status statuses[N_BATCH];
};

#define OUT_BYTES (1u << 22)

// Called from inside the library's callbacks, if anything.
static void (*in_callback)(void);

struct call {
    const char *name;
    void (*prepare)(struct world *w);
    kigo_status (*make)(struct world *w);
    int flags;
};

// A failure may leave a part: what was generated before it, entries of a batch.
#define LEAVES_A_PART 1
// What it gives depends on the memory there is.
#define VARIES 2
// Takes a second and more.
#define SLOW 4
// Nothing of it touches a model or a device: tokens, texts, templates, grammars.
#define NO_COMPUTING 8

static inline uint64_t hash(uint64_t h, const void *data, size_t n_bytes)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < n_bytes; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3);
    return h;
}

#define HASH_BEGIN UINT64_C(0xcbf29ce484222325)

// What a session holds: tokens, logits, numbers.
static inline uint64_t hash_session(uint64_t h, const struct world *w, kigo_session *session)
{
    if (session == NULL)
        return h;
    kigo_session_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_session_info(session, &facts) == KIGO_STATUS_OK);
    uint32_t *ids = malloc((size_t)facts.n_tokens * sizeof *ids + 1);
    float *logits = malloc(w->facts.n_vocab * sizeof *logits);
    CHECK(ids != NULL && logits != NULL);
    size_t n;
    CHECK(kigo_session_tokens(session, ids, (size_t)facts.n_tokens, &n) == KIGO_STATUS_OK && n == facts.n_tokens);
    h = hash(h, ids, n * sizeof *ids);
    h = hash(h, &facts.has_logits, sizeof facts.has_logits);
    h = hash(h, &facts.n_pages, sizeof facts.n_pages);
    if (facts.has_logits) {
        CHECK(kigo_session_logits(session, logits, w->facts.n_vocab, &n) == KIGO_STATUS_OK && n == w->facts.n_vocab);
        h = hash(h, logits, n * sizeof *logits);
    }
    free(ids);
    free(logits);
    return h;
}

static inline uint64_t hash_state(const struct world *w)
{
    uint64_t h = hash_session(HASH_BEGIN, w, w->session);
    for (int i = 0; i < N_BATCH - 1; i++)
        h = hash_session(h, w, w->others[i]);
    return h;
}

static inline uint64_t hash_outcome(const struct world *w)
{
    uint64_t h = hash(hash_state(w), w->out, w->n_out);
    h = hash_session(h, w, w->made_session);
    if (w->made_model != NULL) {
        kigo_session *session = open_session(w->made_model);
        h = hash_session(h, w, session);
        kigo_session_destroy(session);
    }
    if (w->made_constraint != NULL) {
        kigo_session *session = open_session(w->model);
        kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 6};
        kigo_generated generated = {.struct_size = sizeof generated};
        CHECK(kigo_session_set_constraint(session, w->made_constraint) == KIGO_STATUS_OK);
        CHECK(kigo_session_generate(session, &how, &generated) == KIGO_STATUS_OK);
        h = hash_session(h, w, session);
        kigo_session_destroy(session);
    }
    return h;
}

static inline bool made_something(const struct world *w)
{
    return w->made_engine != NULL || w->made_model != NULL || w->made_session != NULL || w->made_stream != NULL
           || w->made_constraint != NULL || w->made_batch != NULL || w->made_parser != NULL;
}

static inline void forget_made(struct world *w)
{
    kigo_batch_destroy(w->made_batch);
    w->made_batch = NULL;
    kigo_stream_destroy(w->made_stream);
    kigo_chat_parser_destroy(w->made_parser);
    kigo_constraint_destroy(w->made_constraint);
    kigo_session_destroy(w->made_session);
    kigo_model_destroy(w->made_model);
    kigo_engine_destroy(w->made_engine);
    w->made_parser = NULL;
    w->made_constraint = NULL, w->made_stream = NULL, w->made_session = NULL, w->made_model = NULL, w->made_engine = NULL;
    w->n_out = 0;
}

static inline void forget(struct world *w)
{
    forget_made(w);
    kigo_batch_destroy(w->batch);
    w->batch = NULL;
    kigo_stream_destroy(w->stream);
    kigo_chat_parser_destroy(w->parser);
    kigo_constraint_destroy(w->constraint);
    kigo_session_destroy(w->session);
    for (int i = 0; i < N_BATCH - 1; i++) {
        kigo_session_destroy(w->others[i]);
        w->others[i] = NULL;
    }
    w->parser = NULL, w->constraint = NULL, w->stream = NULL, w->session = NULL;
}

// ---- Preparing.

static inline void nothing(struct world *w)
{
    (void)w;
}

static inline kigo_session *prompted(struct world *w, uint32_t first, float temperature)
{
    kigo_sampling sampling = {.struct_size = sizeof sampling, .temperature = temperature, .seed = 3, .top_p = 0.9f,
                              .repetition_penalty = 1.1f};
    kigo_session_options options = {.struct_size = sizeof options, .sampling = &sampling};
    kigo_session *session;
    uint32_t ids[N_PROMPT];
    for (int i = 0; i < N_PROMPT; i++)
        ids[i] = (w->ids[i] + first) % w->facts.n_vocab;
    CHECK(kigo_session_create(w->model, &options, &session) == KIGO_STATUS_OK);
    CHECK(kigo_session_prefill(session, ids, N_PROMPT) == KIGO_STATUS_OK);
    return session;
}

static inline void a_session(struct world *w)
{
    w->session = prompted(w, 0, 0.8f);
}

static inline void a_greedy_session(struct world *w)
{
    w->session = prompted(w, 0, 0.0f);
}

static inline void a_forked_session(struct world *w)
{
    w->session = prompted(w, 0, 0.8f);
    CHECK(kigo_session_fork(w->session, &w->others[0]) == KIGO_STATUS_OK);
}

static inline void sessions(struct world *w)
{
    w->session = prompted(w, 0, 0.8f);
    for (int i = 0; i < N_BATCH - 1; i++)
        w->others[i] = prompted(w, 1 + (uint32_t)i, 0.8f);
}

static inline void a_batch(struct world *w)
{
    a_session(w);
    CHECK(kigo_batch_create(w->model, &w->batch) == KIGO_STATUS_OK);
}

static inline void a_stream(struct world *w)
{
    CHECK(kigo_stream_create(w->model, NULL, &w->stream) == KIGO_STATUS_OK);
}

// Answers with thinking and calls in Hermes' way.
static inline kigo_chat_options calls_of_hermes(void)
{
    kigo_chat_options options = {.struct_size = sizeof options, .template_source_len = KIGO_STRLEN};
    options.template_source = "{% for m in messages %}{{ m.content }}{% endfor %}{% if x %}<think></think><tool_call>{% endif %}";
    options.tools_json = "[{\"name\": \"f\", \"parameters\": {\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}}}}]";
    options.tools_json_len = KIGO_STRLEN;
    return options;
}

static inline void a_parser(struct world *w)
{
    const kigo_chat_options options = calls_of_hermes();
    CHECK(kigo_chat_parser_create(w->model, &options, &w->parser) == KIGO_STATUS_OK);
}

#define SCHEMA "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"enum\":[\"x\",\"yy\"]}},\"required\":[\"a\"]}"

static inline kigo_status compile(const struct world *w, uint64_t kind, const char *text, kigo_constraint **constraint)
{
    kigo_constraint_options options = {.struct_size = sizeof options, .kind = kind, .text = text, .text_len = KIGO_STRLEN};
    return kigo_constraint_create(w->model, &options, constraint);
}

static inline void a_session_and_a_constraint(struct world *w)
{
    a_session(w);
    CHECK(compile(w, KIGO_CONSTRAINT_JSON_SCHEMA, SCHEMA, &w->constraint) == KIGO_STATUS_OK);
}

static inline void a_constrained_session(struct world *w)
{
    a_session_and_a_constraint(w);
    CHECK(kigo_session_set_constraint(w->session, w->constraint) == KIGO_STATUS_OK);
}

// ---- Making.

static inline kigo_status make_engine(struct world *w)
{
    kigo_engine_options options = {.struct_size = sizeof options, .device = "cpu", .device_len = 3, .n_threads = 3};
    return kigo_engine_create(&options, &w->made_engine);
}

static inline kigo_status make_plan(struct world *w)
{
    kigo_plan plan = {.struct_size = sizeof plan};
    kigo_status status = kigo_model_plan(w->engine, w->path, KIGO_STRLEN, NULL, &plan);
    memcpy(w->out, &plan, w->n_out = sizeof plan);
    return status;
}

// How many devices there are, and what the CPU is.
static inline kigo_status make_devices(struct world *w)
{
    kigo_device_facts facts = {.struct_size = sizeof facts};
    size_t n = 0;
    kigo_status status = kigo_device_count(&n);
    if (status == KIGO_STATUS_OK)
        status = kigo_device_info(0, &facts);
    if (status != KIGO_STATUS_OK)
        return status;
    facts.free_bytes = 0; // which others change
    memset(facts.reason, 0, sizeof facts.reason); // which is the loader's: it may say that it found no memory itself
    memcpy(w->out, &n, sizeof n);
    memcpy(w->out + sizeof n, &facts, sizeof facts);
    w->n_out = sizeof n + sizeof facts;
    return status;
}

// All that a model says of itself.
static inline kigo_status make_info(struct world *w)
{
    kigo_model_facts facts = {.struct_size = sizeof facts};
    kigo_layer_facts layer = {.struct_size = sizeof layer};
    uint64_t cache_bytes;
    char text[2][64] = {"", ""};
    size_t n;
    kigo_status status = kigo_model_info(w->model, &facts);
    if (status == KIGO_STATUS_OK)
        status = kigo_model_layer_info(w->model, 1, &layer);
    if (status == KIGO_STATUS_OK)
        status = kigo_model_cache_bytes(w->model, 100, &cache_bytes);
    if (status == KIGO_STATUS_OK)
        status = kigo_model_architecture(w->model, text[0], 64, &n);
    if (status == KIGO_STATUS_OK)
        status = kigo_model_quantization(w->model, text[1], 64, &n);
    memcpy(w->out, &facts, sizeof facts);
    memcpy(w->out + sizeof facts, &layer, sizeof layer);
    memcpy(w->out + sizeof facts + sizeof layer, text, w->n_out = sizeof text);
    w->n_out += sizeof facts + sizeof layer;
    return status;
}

static inline kigo_status make_load(struct world *w)
{
    return kigo_model_load_file(w->engine, w->path, KIGO_STRLEN, NULL, &w->made_model);
}

static inline kigo_status make_load_memory(struct world *w)
{
    return kigo_model_load_memory(w->engine, w->file, w->file_bytes, NULL, &w->made_model);
}

static inline kigo_status make_meta(struct world *w)
{
    return kigo_model_meta(w->model, "tokenizer.ggml.tokens", KIGO_STRLEN, (char *)w->out, OUT_BYTES, &w->n_out);
}

static inline kigo_status make_tokenize(struct world *w)
{
    size_t n;
    kigo_status status = kigo_tokenize(w->model, w->text, TEXT_BYTES, KIGO_TOKENIZE_ADD_SPECIAL | KIGO_TOKENIZE_PARSE_SPECIAL,
                                       (uint32_t *)w->out, OUT_BYTES / 4, &n);
    w->n_out = 4 * n;
    return status;
}

static inline kigo_status make_detokenize(struct world *w)
{
    return kigo_detokenize(w->model, w->ids, N_LONG, KIGO_TEXT_SPECIAL, (char *)w->out, OUT_BYTES, &w->n_out);
}

static inline kigo_status make_token_text(struct world *w)
{
    return kigo_token_text(w->model, 300, (char *)w->out, OUT_BYTES, &w->n_out);
}

static inline kigo_status make_chat(struct world *w)
{
    const kigo_message messages[3] = {
        {"system", KIGO_STRLEN, "Be brief.", KIGO_STRLEN},
        {"user", KIGO_STRLEN, w->text, TEXT_BYTES / 4},
        {"assistant", KIGO_STRLEN, "No.", KIGO_STRLEN},
    };
    size_t n;
    kigo_status status = kigo_chat_render(w->model, messages, 3, 0, (uint32_t *)w->out, OUT_BYTES / 4, &n);
    w->n_out = 4 * n;
    return status;
}

static inline kigo_status make_chat_text(struct world *w)
{
    const kigo_message messages[1] = {{"user", KIGO_STRLEN, w->text, TEXT_BYTES}};
    return kigo_chat_render_text(w->model, messages, 1, KIGO_CHAT_ADD_GENERATION_PROMPT, (char *)w->out, OUT_BYTES, &w->n_out);
}

#define CONVERSATION "[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"a\\u00e4 b\"}]"

static inline kigo_status make_chat_json(struct world *w)
{
    size_t n;
    kigo_status status = kigo_chat_render_json(w->model, CONVERSATION, KIGO_STRLEN, NULL, (uint32_t *)w->out, OUT_BYTES / 4, &n);
    w->n_out = 4 * n;
    return status;
}

// With a template of the caller's, which is compiled at each call.
static inline kigo_status make_chat_template(struct world *w)
{
    static const char source[] = "{% for m in messages %}{{ m.role ~ ': ' ~ m.content|trim }}{% if not loop.last %}, "
                                 "{% endif %}{% endfor %}{{ tools|tojson }}{{ extra }}";
    kigo_chat_options options = {.struct_size = sizeof options, .template_source = source, .template_source_len = KIGO_STRLEN};
    options.tools_json = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]", options.tools_json_len = KIGO_STRLEN;
    options.variables_json = "{\"extra\":[1,2.5,null]}", options.variables_json_len = KIGO_STRLEN;
    return kigo_chat_render_json_text(w->model, CONVERSATION, KIGO_STRLEN, &options, (char *)w->out, OUT_BYTES, &w->n_out);
}

static inline kigo_status make_chat_variable(struct world *w)
{
    return kigo_chat_variable(w->model, NULL, 0, (char *)w->out, OUT_BYTES, &w->n_out);
}

// The files of these tests have no further templates.
static inline kigo_status make_chat_template_name(struct world *w)
{
    const kigo_status status = kigo_chat_template_name(w->model, 0, (char *)w->out, OUT_BYTES, &w->n_out);
    return status == KIGO_STATUS_NOT_FOUND ? KIGO_STATUS_OK : status;
}

static inline kigo_status make_session(struct world *w)
{
    static const kigo_logit_bias bias[2] = {{1, -1.0f}, {2, 3.0f}};
    kigo_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1.0f, .logit_bias = bias, .n_logit_bias = 2};
    kigo_session_options options = {.struct_size = sizeof options, .sampling = &sampling};
    return kigo_session_create(w->model, &options, &w->made_session);
}

static inline kigo_status make_set_sampling(struct world *w)
{
    static kigo_logit_bias bias[200];
    for (uint32_t i = 0; i < 200; i++)
        bias[i] = (kigo_logit_bias){i, -1.0f};
    kigo_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1.0f, .logit_bias = bias, .n_logit_bias = 200};
    return kigo_session_set_sampling(w->session, &sampling);
}

static inline kigo_status make_prefill(struct world *w)
{
    return kigo_session_prefill(w->session, w->ids, N_LONG);
}

static inline int32_t go_on(size_t n_done, size_t n_total, void *user_data)
{
    (void)user_data;
    if (in_callback != NULL)
        in_callback();
    return n_done >= n_total;
}

// Back into the middle of a page, and on.
static inline kigo_status make_advance(struct world *w)
{
    kigo_advance_options how = {.struct_size = sizeof how, .progress = go_on};
    kigo_advanced advanced = {.struct_size = sizeof advanced};
    uint32_t ids[N_LONG];
    memcpy(ids, w->ids, sizeof ids);
    ids[N_PROMPT / 2] ^= 1;
    kigo_status status = kigo_session_advance(w->session, ids, N_LONG, &how, &advanced);
    memcpy(w->out, &advanced, w->n_out = sizeof advanced);
    return status;
}

static inline kigo_status make_step(struct world *w)
{
    return kigo_session_step(w->session, 5);
}

static inline kigo_status make_prefill_batch(struct world *w)
{
    kigo_session *const all[N_BATCH] = {w->session, w->others[0], w->others[1]};
    const uint32_t *const ids[N_BATCH] = {w->ids, w->ids + 1, w->ids + 2};
    const size_t n_ids[N_BATCH] = {100, 1, 200};
    return kigo_prefill_batch(all, ids, n_ids, N_BATCH, w->statuses);
}

static inline kigo_status make_step_batch(struct world *w)
{
    kigo_session *const all[N_BATCH] = {w->session, w->others[0], w->others[1]};
    return kigo_step_batch(all, w->ids, N_BATCH, w->statuses);
}

static inline kigo_status make_sample_batch(struct world *w)
{
    kigo_session *const all[N_BATCH] = {w->session, w->others[0], w->others[1]};
    w->n_out = N_BATCH * 4;
    return kigo_sample_batch(all, N_BATCH, (uint32_t *)w->out, w->statuses);
}

static inline kigo_status make_sample(struct world *w)
{
    w->n_out = 4;
    return kigo_session_sample(w->session, (uint32_t *)w->out);
}

static inline int32_t copy_token(uint32_t token, const char *text, size_t text_len, void *user_data)
{
    struct world *w = user_data;
    if (in_callback != NULL)
        in_callback();
    memcpy(w->out + w->n_out, &token, 4);
    memcpy(w->out + w->n_out + 4, text, text_len);
    w->n_out += 4 + text_len;
    return 0;
}

static inline kigo_status make_generate(struct world *w)
{
    const kigo_string stop[1] = {{"never this", KIGO_STRLEN}};
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 8, .stop = stop, .n_stop = 1,
                                 .on_token = copy_token, .user_data = w, .flags = KIGO_GENERATE_IGNORE_END | KIGO_TEXT_SPECIAL};
    kigo_generated generated = {.struct_size = sizeof generated};
    w->n_out = 0;
    return kigo_session_generate(w->session, &how, &generated);
}

static inline int32_t copy_step(const kigo_step_event *event, void *user_data)
{
    struct world *w = user_data;
    if (in_callback != NULL)
        in_callback();
    memcpy(w->out + w->n_out, &event->token, 12); // and what it was chosen with
    memcpy(w->out + w->n_out + 12, event->top, event->n_top * sizeof *event->top);
    w->n_out += 12 + event->n_top * sizeof *event->top;
    return 0;
}

static inline kigo_status make_generate_steps(struct world *w)
{
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 5, .on_step = copy_step, .n_top = 4, .user_data = w};
    how.flags = KIGO_GENERATE_IGNORE_END;
    kigo_generated generated = {.struct_size = sizeof generated};
    w->n_out = 0;
    return kigo_session_generate(w->session, &how, &generated);
}

// What they say depends on what was called before.
static inline kigo_status make_stats(struct world *w)
{
    kigo_model_figures of_model = {.struct_size = sizeof of_model};
    kigo_session_figures of_session = {.struct_size = sizeof of_session};
    w->n_out = 0;
    kigo_status status = kigo_model_stats(w->model, &of_model);
    return status == KIGO_STATUS_OK ? kigo_session_stats(w->session, &of_session) : status;
}

static inline kigo_status make_batch(struct world *w)
{
    return kigo_batch_create(w->model, &w->made_batch);
}

// A prompt and an answer to their end, or taken out again where there is no room for them.
static inline kigo_status make_polled(struct world *w)
{
    const kigo_string stop[1] = {{"never this", KIGO_STRLEN}};
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 6, .stop = stop, .n_stop = 1, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_batch_work work = {.struct_size = sizeof work, .ids = w->ids, .n_ids = N_PROMPT, .generate = &how};
    w->n_out = 0;
    kigo_status status = kigo_batch_add(w->batch, w->session, &work);
    for (size_t n_sessions = 1; status == KIGO_STATUS_OK && n_sessions > 0;)
        status = kigo_batch_run(w->batch, 1, &n_sessions);
    kigo_batch_event event = {.struct_size = sizeof event};
    while (status == KIGO_STATUS_OK && (status = kigo_batch_next(w->batch, &event)) == KIGO_STATUS_OK
           && event.kind != KIGO_BATCH_EVENT_NONE) {
        memcpy(w->out + w->n_out, &event.token, 4);
        memcpy(w->out + w->n_out + 4, event.text, event.text_len);
        w->n_out += 4 + event.text_len;
        status = event.status;
    }
    if (status != KIGO_STATUS_OK)
        kigo_batch_remove(w->batch, w->session);
    return status;
}

static inline kigo_status make_logprobs(struct world *w)
{
    size_t n;
    kigo_status status = kigo_session_logprobs(w->session, (float *)w->out, OUT_BYTES / 4, &n);
    w->n_out = 4 * n;
    return status;
}

static inline kigo_status make_token_logprobs(struct world *w)
{
    kigo_logprobs_options options = {.struct_size = sizeof options, .tokens = w->ids, .n_tokens = 50, .n_top = 100};
    size_t n;
    kigo_status status = kigo_session_token_logprobs(w->session, &options, (kigo_logprob *)w->out,
                                                     OUT_BYTES / sizeof(kigo_logprob), &n);
    w->n_out = n * sizeof(kigo_logprob);
    return status;
}

static inline kigo_status make_truncate(struct world *w)
{
    return kigo_session_truncate(w->session, 10);
}

static inline kigo_status make_fork(struct world *w)
{
    return kigo_session_fork(w->session, &w->made_session);
}

static inline kigo_status make_save(struct world *w)
{
    return kigo_session_save(w->session, w->out, OUT_BYTES, &w->n_out);
}

static inline kigo_status make_restore(struct world *w)
{
    return kigo_session_restore(w->model, w->blob, w->blob_bytes, &w->made_session);
}

static inline kigo_status make_schema(struct world *w)
{
    return compile(w, KIGO_CONSTRAINT_JSON_SCHEMA, SCHEMA, &w->made_constraint);
}

static inline kigo_status make_regex(struct world *w)
{
    return compile(w, KIGO_CONSTRAINT_REGEX, "(ab|c[d-x]{2,9}y?)*z", &w->made_constraint);
}

static inline kigo_status make_gbnf(struct world *w)
{
    return compile(w, KIGO_CONSTRAINT_GBNF, "root ::= \"(\" root \")\" | [a-z]+ ws\nws ::= \" \"*\n", &w->made_constraint);
}

static inline kigo_status make_lark(struct world *w)
{
    return compile(w, KIGO_CONSTRAINT_LARK, "start: a+\na: /[a-z]{1,7}/ \" \"\n", &w->made_constraint);
}

static inline kigo_status make_set_constraint(struct world *w)
{
    return kigo_session_set_constraint(w->session, w->constraint);
}

static inline kigo_status make_stream(struct world *w)
{
    const kigo_string stop[2] = {{"never this", KIGO_STRLEN}, {"nor that", KIGO_STRLEN}};
    kigo_stream_options options = {.struct_size = sizeof options, .stop = stop, .n_stop = 2};
    return kigo_stream_create(w->model, &options, &w->made_stream);
}

static inline kigo_status make_push(struct world *w)
{
    kigo_stream_text piece = {.struct_size = sizeof piece};
    kigo_status status = kigo_stream_push(w->stream, 300, &piece);
    if (status == KIGO_STATUS_OK)
        memcpy(w->out, piece.text, w->n_out = piece.text_len);
    return status;
}

static inline kigo_status make_parser(struct world *w)
{
    const kigo_chat_options options = calls_of_hermes();
    return kigo_chat_parser_create(w->model, &options, &w->made_parser);
}

static inline kigo_status write_events(struct world *w, kigo_status status, const kigo_chat_event *events, size_t n)
{
    w->n_out = 0;
    for (size_t i = 0; status == KIGO_STATUS_OK && i < n; i++) {
        w->out[w->n_out++] = (unsigned char)(events[i].kind + 16 * (int)events[i].call);
        memcpy(w->out + w->n_out, events[i].text, events[i].text_len);
        w->n_out += events[i].text_len;
    }
    return status;
}

static inline kigo_status make_parser_push(struct world *w)
{
    const kigo_chat_event *events;
    size_t n;
    const kigo_status status = kigo_chat_parser_push(w->parser, 300, &events, &n);
    return write_events(w, status, events, n);
}

static inline kigo_status make_parser_push_text(struct world *w)
{
    static const char ANSWER[] = "<think>a</think>b<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";
    const kigo_chat_event *events;
    size_t n;
    const kigo_status status = kigo_chat_parser_push_text(w->parser, ANSWER, sizeof ANSWER - 1, &events, &n);
    return write_events(w, status, events, n);
}

static inline kigo_status make_tools(struct world *w)
{
    const kigo_chat_options options = calls_of_hermes();
    return kigo_constraint_create_tools(w->model, &options, NULL, &w->made_constraint);
}

static inline kigo_status make_embed(struct world *w)
{
    size_t n;
    kigo_status status = kigo_model_embed(w->model, w->ids, 130, NULL, (float *)w->out, OUT_BYTES / 4, &n);
    w->n_out = 4 * n;
    return status;
}

static inline int32_t hash_event(const kigo_tap_event *event, void *user_data)
{
    struct world *w = user_data;
    if (in_callback != NULL)
        in_callback();
    uint64_t *h = (uint64_t *)w->out;
    *h = hash(*h, event->data, event->n_rows * event->n_cols * sizeof(float));
    return 0;
}

// A tap's bits, over a prompt.
static inline kigo_status make_tap(struct world *w)
{
    w->n_out = 8;
    memset(w->out, 0, 8);
    kigo_tap_options options = {.struct_size = sizeof options, .callback = hash_event, .user_data = w};
    kigo_status status = kigo_session_set_tap(w->session, &options);
    return status == KIGO_STATUS_OK ? kigo_session_prefill(w->session, w->ids, 20) : status;
}

static inline kigo_status make_doctor(struct world *w)
{
    kigo_diagnosis diagnosis = {.struct_size = sizeof diagnosis};
    kigo_status status = kigo_doctor(w->engine, w->path, KIGO_STRLEN, NULL, &diagnosis);
    memcpy(w->out, &diagnosis, w->n_out = sizeof diagnosis);
    return status;
}

static const struct call CALLS[] = {
    {"engine", nothing, make_engine, NO_COMPUTING},
    {"plan", nothing, make_plan, NO_COMPUTING},
    {"devices", nothing, make_devices, NO_COMPUTING},
    {"info", nothing, make_info, NO_COMPUTING},
    {"load", nothing, make_load, 0},
    {"load_memory", nothing, make_load_memory, 0},
    {"meta", nothing, make_meta, NO_COMPUTING},
    {"tokenize", nothing, make_tokenize, NO_COMPUTING},
    {"detokenize", nothing, make_detokenize, NO_COMPUTING},
    {"token_text", nothing, make_token_text, NO_COMPUTING},
    {"chat", nothing, make_chat, NO_COMPUTING},
    {"chat_text", nothing, make_chat_text, NO_COMPUTING},
    {"chat_json", nothing, make_chat_json, NO_COMPUTING},
    {"chat_template", nothing, make_chat_template, NO_COMPUTING},
    {"chat_template_name", nothing, make_chat_template_name, NO_COMPUTING},
    {"chat_variable", nothing, make_chat_variable, NO_COMPUTING},
    {"session", nothing, make_session, 0},
    {"set_sampling", a_session, make_set_sampling, 0},
    {"prefill", a_session, make_prefill, 0},
    {"advance", a_session, make_advance, 0},
    {"step", a_session, make_step, 0},
    {"step_forked", a_forked_session, make_step, 0},
    {"prefill_batch", sessions, make_prefill_batch, LEAVES_A_PART},
    {"step_batch", sessions, make_step_batch, LEAVES_A_PART},
    {"sample_batch", sessions, make_sample_batch, LEAVES_A_PART},
    {"sample", a_session, make_sample, 0},
    {"sample_greedy", a_greedy_session, make_sample, 0},
    {"generate", a_session, make_generate, LEAVES_A_PART},
    {"generate_constrained", a_constrained_session, make_generate, LEAVES_A_PART},
    {"generate_steps", a_session, make_generate_steps, LEAVES_A_PART},
    {"generate_steps_constrained", a_constrained_session, make_generate_steps, LEAVES_A_PART},
    {"stats", a_session, make_stats, NO_COMPUTING},
    {"batch", nothing, make_batch, NO_COMPUTING},
    {"polled", a_batch, make_polled, LEAVES_A_PART},
    {"logprobs", a_session, make_logprobs, 0},
    {"token_logprobs", a_session, make_token_logprobs, 0},
    {"truncate", a_session, make_truncate, 0},
    {"truncate_forked", a_forked_session, make_truncate, 0},
    {"fork", a_session, make_fork, 0},
    {"fork_constrained", a_constrained_session, make_fork, 0},
    {"save", a_session, make_save, 0},
    {"restore", nothing, make_restore, 0},
    {"schema", nothing, make_schema, NO_COMPUTING},
    {"regex", nothing, make_regex, NO_COMPUTING},
    {"lark", nothing, make_lark, NO_COMPUTING},
    {"gbnf", nothing, make_gbnf, NO_COMPUTING},
    {"set_constraint", a_session_and_a_constraint, make_set_constraint, NO_COMPUTING},
    {"sample_constrained", a_constrained_session, make_sample, 0},
    {"stream", nothing, make_stream, NO_COMPUTING},
    {"stream_push", a_stream, make_push, NO_COMPUTING},
    {"parser", nothing, make_parser, NO_COMPUTING},
    {"parser_push", a_parser, make_parser_push, NO_COMPUTING},
    {"parser_push_text", a_parser, make_parser_push_text, NO_COMPUTING},
    {"tools", nothing, make_tools, NO_COMPUTING},
    {"embed", nothing, make_embed, 0},
    {"tap", a_session, make_tap, 0},
    {"doctor", nothing, make_doctor, VARIES | SLOW},
};
#define N_CALLS (sizeof CALLS / sizeof *CALLS)

static inline const struct call *call_named(const char *name)
{
    for (size_t i = 0; i < N_CALLS; i++)
        if (strcmp(CALLS[i].name, name) == 0)
            return &CALLS[i];
    fprintf(stderr, "no call is named %s\n", name);
    exit(2);
}

// A model on an engine, and what the calls need of both.
static inline void open_world_on(struct world *w, const char *path, kigo_engine *engine)
{
    memset(w, 0, sizeof *w);
    w->path = path;
    w->engine = engine;
    w->model = open_model(w->engine, path);
    w->facts.struct_size = sizeof w->facts;
    CHECK(kigo_model_info(w->model, &w->facts) == KIGO_STATUS_OK);
    w->file = read_file(path, &w->file_bytes);
    w->out = calloc(OUT_BYTES, 1);
    w->text = malloc(TEXT_BYTES);
    w->blob = malloc(OUT_BYTES);
    CHECK(w->out != NULL && w->text != NULL && w->blob != NULL);
    for (size_t i = 0; i < TEXT_BYTES; i++)
        w->text[i] = i % 7 == 6 ? ' ' : (char)('a' + (i * i / 5 + i) % 26);
    for (uint32_t i = 0; i < N_LONG; i++)
        w->ids[i] = (i * i * 7 + i) % 500;
    kigo_session *session = prompted(w, 0, 0.8f);
    CHECK(kigo_session_save(session, w->blob, OUT_BYTES, &w->blob_bytes) == KIGO_STATUS_OK);
    kigo_session_destroy(session);
}

static inline void open_world(struct world *w, const char *path)
{
    open_world_on(w, path, open_engine());
}

static inline void close_world(struct world *w)
{
    forget(w);
    kigo_model_destroy(w->model);
    kigo_engine_destroy(w->engine);
    free(w->out);
    free(w->text);
    free(w->blob);
    free(w->file);
}

// The outcome of a call, made once from its beginning to its end.
static inline uint64_t outcome_of(struct world *w, const struct call *call)
{
    call->prepare(w);
    kigo_status status = call->make(w);
    if (status != KIGO_STATUS_OK) {
        fprintf(stderr, "%s: %s: %s\n", call->name, kigo_status_name(status), kigo_last_error());
        exit(1);
    }
    uint64_t outcome = hash_outcome(w);
    forget(w);
    return outcome;
}

#endif // CALLS_H
