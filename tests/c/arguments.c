// Every function of kigo.h with arguments that are wrong in one place, and from where a session is in use.
//
// The cases are written by tests/native/arguments.rs from the header, in the place of the line "CASES": this file is
// their frame and does not compile by itself.
#include "check.h"
#include <pthread.h>

static kigo_engine *engine, *new_engine;
static kigo_model *model, *new_model;
static kigo_session *session, *sessions[1], *new_session;
static kigo_stream *stream, *new_stream;
static kigo_batch *batch, *new_batch;
static kigo_constraint *constraint, *new_constraint;
static kigo_chat_parser *parser, *new_parser;
static const char *path;
static unsigned char *file;
static size_t n_file;
static bool slow;

static const uint32_t some_ids[2] = {10, 20}, *const some_ids_at = some_ids;
static const size_t two = 2;
static const kigo_message message = {"user", 4, "abc", 3};
static const char *const messages_json = "[{\"role\": \"user\", \"content\": \"abc\"}]";
static unsigned char blob[1 << 18], bytes[1 << 18];
static size_t n_blob;

static char text[1 << 12];
static uint32_t ids[512];
static float floats[512];
static kigo_logprob logprobs[8];
static kigo_status statuses[1];
static uint32_t out_token;
static size_t out_size;
static uint64_t out_flags, out_bytes;
static int32_t out_type;
static const kigo_chat_event *out_events;
static double out_number;
static size_t n_refused, n_given;

// What no call gives.
#define NO_HANDLE(type) ((type *)(void *)&engine)

// Gives up what a call has made.
static void give_up(void)
{
    if (new_batch != NO_HANDLE(kigo_batch))
        kigo_batch_destroy(new_batch);
    if (new_stream != NO_HANDLE(kigo_stream))
        kigo_stream_destroy(new_stream);
    if (new_constraint != NO_HANDLE(kigo_constraint))
        kigo_constraint_destroy(new_constraint);
    if (new_parser != NO_HANDLE(kigo_chat_parser))
        kigo_chat_parser_destroy(new_parser);
    if (new_session != NO_HANDLE(kigo_session))
        kigo_session_destroy(new_session);
    if (new_model != NO_HANDLE(kigo_model))
        kigo_model_destroy(new_model);
    if (new_engine != NO_HANDLE(kigo_engine))
        kigo_engine_destroy(new_engine);
}

// A session of three tokens, a stream, a batch and a parser, which the calls before have not changed.
static void fresh(void)
{
    kigo_batch_destroy(batch);
    CHECK(kigo_batch_create(model, &batch) == KIGO_STATUS_OK);
    kigo_session_destroy(session);
    kigo_stream_destroy(stream);
    kigo_chat_parser_destroy(parser);
    session = open_session(model);
    sessions[0] = session;
    CHECK(kigo_stream_create(model, NULL, &stream) == KIGO_STATUS_OK);
    CHECK(kigo_chat_parser_create(model, NULL, &parser) == KIGO_STATUS_OK);
}

static void prepare_rest(void);

// The call's text is its own: another one stood there before.
static void clear_error(void)
{
    CHECK(kigo_engine_create(&(kigo_engine_options){.struct_size = 8, .device = NULL}, NULL) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "engine is NULL") == 0);
}

static bool is_zero(const void *sized, size_t n)
{
    const unsigned char *byte = sized;
    for (size_t i = sizeof(size_t); i < n; i++)
        if (byte[i] != 0)
            return false;
    return true;
}

static void gives(kigo_status found, kigo_status wanted, const char *call)
{
    if (found != wanted || (wanted != KIGO_STATUS_OK && kigo_last_error()[0] == 0)) {
        fprintf(stderr, "%s\ngives %s: %s\nexpected %s\n", call, kigo_status_name(found), kigo_last_error(),
                kigo_status_name(wanted));
        exit(1);
    }
    give_up();
    n_given++;
}

static void refused(kigo_status found, const char *call, const char *wanted)
{
    if (found != KIGO_STATUS_INVALID_ARGUMENT || strstr(kigo_last_error(), wanted) == NULL) {
        fprintf(stderr, "%s\ngives %s: %s\nexpected KIGO_STATUS_INVALID_ARGUMENT: %s\n", call, kigo_status_name(found),
                kigo_last_error(), wanted);
        exit(1);
    }
    n_refused++;
}

// CASES

static void prepare_rest(void)
{
    clear_error();
    s_kigo_engine_options.device = "cpu", s_kigo_engine_options.device_len = 3;
    s_kigo_engine_options.n_threads = 1;
    s_kigo_generate_options.max_tokens = 1;
    s_kigo_batch_work.ids = some_ids, s_kigo_batch_work.n_ids = 2;
    s_kigo_constraint_options.kind = KIGO_CONSTRAINT_REGEX;
    s_kigo_constraint_options.text = "[a-z]+", s_kigo_constraint_options.text_len = KIGO_STRLEN;
    // A template of calls, and a tool.
    s_kigo_chat_options.template_source = "{% for m in messages %}{{ m.content }}{% endfor %}{% if x %}<tool_call>{% endif %}";
    s_kigo_chat_options.template_source_len = KIGO_STRLEN;
    s_kigo_chat_options.tools_json = "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]";
    s_kigo_chat_options.tools_json_len = KIGO_STRLEN;
    new_engine = NO_HANDLE(kigo_engine), new_model = NO_HANDLE(kigo_model);
    new_batch = NO_HANDLE(kigo_batch);
    new_session = NO_HANDLE(kigo_session), new_stream = NO_HANDLE(kigo_stream);
    new_constraint = NO_HANDLE(kigo_constraint), new_parser = NO_HANDLE(kigo_chat_parser);
    out_events = (const kigo_chat_event *)(const void *)&engine;
    out_token = 77, out_size = 77, out_flags = 77, out_bytes = 77, out_type = 77, out_number = 77;
}

static void *on_another_thread(void *user_data)
{
    (void)user_data;
    while_busy();
    return NULL;
}

static void use_it_from_another_thread(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, on_another_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static int32_t on_token(uint32_t token, const char *piece, size_t piece_len, void *user_data)
{
    (void)token, (void)piece, (void)piece_len, (void)user_data;
    while_busy();
    use_it_from_another_thread();
    return 1;
}

static int32_t on_tap(const kigo_tap_event *event, void *user_data)
{
    if (*(int *)user_data == 0) {
        inside_a_tap();
        use_it_from_another_thread();
    }
    ++*(int *)user_data;
    return event->data == NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    path = argv[1];
    slow = argc > 2;
    engine = open_engine();
    model = open_model(engine, path);
    file = read_file(path, &n_file);
    kigo_constraint_options how_held = {.struct_size = sizeof how_held, .kind = KIGO_CONSTRAINT_REGEX};
    how_held.text = "[a-z]+", how_held.text_len = KIGO_STRLEN;
    CHECK(kigo_constraint_create(model, &how_held, &constraint) == KIGO_STATUS_OK);
    fresh();
    CHECK(kigo_session_save(session, blob, sizeof blob, &n_blob) == KIGO_STATUS_OK);

    every_status_has_its_name();
    every_function();

    fresh();
    size_t before = n_given;
    kigo_generate_options how = {.struct_size = sizeof how, .on_token = on_token, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_generate(session, &how, &generated) == KIGO_STATUS_OK);
    CHECK(generated.stop_reason == KIGO_STOP_CALLBACK && generated.n_tokens == 1);
    CHECK(n_given >= before + 2 * 18);
    int n_events = 0;
    kigo_tap_options tap = {.struct_size = sizeof tap, .callback = on_tap, .user_data = &n_events};
    CHECK(kigo_session_set_tap(session, &tap) == KIGO_STATUS_OK);
    before = n_given;
    CHECK(kigo_session_step(session, 5) == KIGO_STATUS_OK && n_events > 1);
    CHECK(n_given >= before + 50);
    size_t n;
    CHECK(kigo_session_n_tokens(session, &n) == KIGO_STATUS_OK && n == 5);
    CHECK(n_refused == N_REFUSED);

    kigo_batch_destroy(batch);
    kigo_stream_destroy(stream);
    kigo_chat_parser_destroy(parser);
    kigo_session_destroy(session);
    kigo_constraint_destroy(constraint);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    free(file);
    return 0;
}
