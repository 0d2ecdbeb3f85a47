// The last error of a handle: whatever the thread, of that handle alone, until the next failure.
#include "check.h"
#include <pthread.h>

static char text[1024];

static const char *of_engine(const kigo_engine *engine)
{
    size_t n;
    CHECK(kigo_engine_last_error(engine, text, sizeof text, &n) == KIGO_STATUS_OK && strlen(text) == n);
    return text;
}

static const char *of_model(const kigo_model *model)
{
    size_t n;
    CHECK(kigo_model_last_error(model, text, sizeof text, &n) == KIGO_STATUS_OK && strlen(text) == n);
    return text;
}

static const char *of_session(const kigo_session *session)
{
    size_t n;
    CHECK(kigo_session_last_error(session, text, sizeof text, &n) == KIGO_STATUS_OK && strlen(text) == n);
    return text;
}

static void *fails_elsewhere(void *user_data)
{
    const uint32_t ids[2] = {1, 9999};
    CHECK(kigo_session_prefill(user_data, ids, 2) == KIGO_STATUS_INVALID_ARGUMENT);
    return NULL;
}

struct inside {
    kigo_session *other;
    int n_calls;
};

// A failure of another session's, from inside a callback of this one's call, which fails itself afterwards.
static int32_t on_event(const kigo_tap_event *event, void *user_data)
{
    struct inside *inside = user_data;
    uint32_t token;
    if (inside->n_calls++ == 0)
        CHECK(kigo_session_sample(inside->other, &token) == KIGO_STATUS_BUSY);
    return event->tap == KIGO_TAP_LOGITS;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    kigo_engine *engine = open_engine();
    kigo_model *model = open_model(engine, argv[1]), *none;
    kigo_session *a = open_session(model), *b = open_session(model), *c;
    CHECK(of_engine(engine)[0] == 0 && of_model(model)[0] == 0 && of_session(a)[0] == 0 && of_session(b)[0] == 0);

    // Of a thread that is gone: the other's own last error is another one.
    CHECK(kigo_session_prefill(NULL, NULL, 0) == KIGO_STATUS_INVALID_ARGUMENT);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, fails_elsewhere, a) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(strcmp(kigo_last_error(), "session is NULL") == 0);
    static const char out_of_range[] = "token 9999 at index 1 is not below the vocabulary's 512";
    CHECK(strcmp(of_session(a), out_of_range) == 0);
    CHECK(of_engine(engine)[0] == 0 && of_model(model)[0] == 0 && of_session(b)[0] == 0);

    // What succeeds leaves it, a question for it that fails too.
    size_t n;
    CHECK(kigo_session_step(a, 1) == KIGO_STATUS_OK && strcmp(of_session(a), out_of_range) == 0);
    CHECK(kigo_session_last_error(a, text, 5, &n) == KIGO_STATUS_BUFFER_TOO_SMALL && n == strlen(out_of_range));
    CHECK(kigo_session_last_error(a, NULL, 0, &n) == KIGO_STATUS_OK && n == strlen(out_of_range));
    CHECK(strcmp(of_session(a), out_of_range) == 0);

    // A load is its engine's, a session that cannot be made its model's.
    CHECK(kigo_model_load_file(engine, "/no/such.gguf", KIGO_STRLEN, NULL, &none) == KIGO_STATUS_IO);
    CHECK(strstr(of_engine(engine), "/no/such.gguf: cannot open") == text && of_model(model)[0] == 0);
    kigo_session_options options = {.struct_size = sizeof options, .n_ctx = 513};
    CHECK(kigo_session_create(model, &options, &c) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(of_model(model), "n_ctx is 513; expected 1 to the model's 512") == 0);
    CHECK(strstr(of_engine(engine), "/no/such.gguf") == text && strcmp(of_session(a), out_of_range) == 0);

    // In a batch each has its own, without an index, and a healthy one none.
    kigo_session *sessions[3] = {b, a, open_session(model)};
    const uint32_t tokens[3] = {1, 2, 600};
    kigo_status statuses[3];
    CHECK(kigo_step_batch(sessions, tokens, 3, statuses) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(statuses[0] == KIGO_STATUS_OK && statuses[2] == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strncmp(kigo_last_error(), "entry 2: token 600", 18) == 0);
    CHECK(strncmp(of_session(sessions[2]), "token 600 at index 0", 20) == 0);
    CHECK(of_session(b)[0] == 0 && strcmp(of_session(a), out_of_range) == 0);

    // A call inside a call's callback: each to its own.
    struct inside inside = {b, 0};
    kigo_tap_options tap = {.struct_size = sizeof tap, .callback = on_event, .user_data = &inside};
    CHECK(kigo_session_set_tap(sessions[2], &tap) == KIGO_STATUS_OK);
    CHECK(kigo_session_step(sessions[2], 1) == KIGO_STATUS_CANCELLED && inside.n_calls > 1);
    CHECK(strcmp(of_session(sessions[2]), "cancelled") == 0);
    CHECK(strcmp(of_session(b), "the session is in use by another call") == 0);

    for (size_t i = 0; i < 3; i++)
        kigo_session_destroy(sessions[i]);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
