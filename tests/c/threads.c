// One session is for one thread at a time and says so; everything const is for all; a cancel is never lost.
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include <pthread.h>
#include <signal.h>

// A gate that one thread waits at until another opens it.
struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int open;
};

static void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    gate->open = 1;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

static void gate_wait(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    while (!gate->open)
        pthread_cond_wait(&gate->changed, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
}

#define GATE {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static struct gate inside = GATE, tried = GATE;
static kigo_session *shared;
static kigo_model *model;

// Every call that needs the session to itself.
static void all_busy(void)
{
    uint32_t token = 1, ids[4];
    float logits[512];
    size_t n;
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_prefill(shared, &token, 1) == KIGO_STATUS_BUSY);
    CHECK(strcmp(kigo_last_error(), "the session is in use by another call") == 0);
    CHECK(kigo_session_step(shared, 1) == KIGO_STATUS_BUSY);
    CHECK(kigo_session_sample(shared, &token) == KIGO_STATUS_BUSY);
    CHECK(kigo_session_generate(shared, NULL, &generated) == KIGO_STATUS_BUSY);
    CHECK(kigo_session_logits(shared, logits, 512, &n) == KIGO_STATUS_BUSY);
    CHECK(kigo_session_logprobs(shared, logits, 512, &n) == KIGO_STATUS_BUSY);
    CHECK(kigo_session_tokens(shared, ids, 4, &n) == KIGO_STATUS_BUSY);
    CHECK(kigo_session_n_tokens(shared, &n) == KIGO_STATUS_BUSY);
    CHECK(kigo_session_truncate(shared, 0) == KIGO_STATUS_BUSY);
    kigo_session *fork;
    CHECK(kigo_session_fork(shared, &fork) == KIGO_STATUS_BUSY && fork == NULL);
    CHECK(kigo_session_set_sampling(shared, NULL) == KIGO_STATUS_BUSY);
}

static int32_t wait_inside(uint32_t token, const char *text, size_t text_len, void *user_data)
{
    (void)token, (void)text, (void)text_len, (void)user_data;
    all_busy(); // re-entry
    kigo_session_destroy(open_session(model)); // another session is free
    gate_open(&inside);
    gate_wait(&tried);
    return 0;
}

static void *generate(void *user_data)
{
    kigo_generate_options how = {.struct_size = sizeof how,
                                 .max_tokens = 2,
                                 .on_token = wait_inside,
                                 .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated *generated = user_data;
    CHECK(kigo_session_generate(shared, &how, generated) == KIGO_STATUS_OK);
    // The text of an error is its own thread's.
    CHECK(strcmp(kigo_last_error(), "the session is in use by another call") == 0);
    return NULL;
}

static void busy(void)
{
    shared = open_session(model);
    pthread_t thread;
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(pthread_create(&thread, NULL, generate, &generated) == 0);
    gate_wait(&inside);
    all_busy();
    gate_open(&tried);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(generated.n_tokens == 2 && generated.stop_reason == KIGO_STOP_MAX_TOKENS);
    size_t n;
    CHECK(kigo_session_n_tokens(shared, &n) == KIGO_STATUS_OK && n == 5);
    kigo_session_destroy(shared);
}

static struct gate started = GATE;

static void *cancel_when_started(void *user_data)
{
    (void)user_data;
    gate_wait(&started);
    CHECK(kigo_session_cancel(shared) == KIGO_STATUS_OK);
    return NULL;
}

static int32_t say_started(uint32_t token, const char *text, size_t text_len, void *user_data)
{
    (void)token, (void)text, (void)text_len, (void)user_data;
    gate_open(&started);
    return 0;
}

static void on_signal(int number)
{
    (void)number;
    kigo_session_cancel(shared);
}

static int32_t raise_signal(uint32_t token, const char *text, size_t text_len, void *user_data)
{
    (void)token, (void)text, (void)text_len, (void)user_data;
    raise(SIGUSR1);
    return 0;
}

static void cancels(void)
{
    kigo_generate_options how = {.struct_size = sizeof how, .on_token = say_started, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated generated = {.struct_size = sizeof generated};
    uint32_t ids[500] = {0};
    size_t n;

    // From another thread, while it generates; if it came to the end of the context first, the next call is stopped.
    shared = open_session(model);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, cancel_when_started, NULL) == 0);
    CHECK(kigo_session_generate(shared, &how, &generated) == KIGO_STATUS_OK);
    CHECK(pthread_join(thread, NULL) == 0);
    if (generated.stop_reason == KIGO_STOP_CONTEXT_FULL)
        CHECK(kigo_session_generate(shared, &how, &generated) == KIGO_STATUS_OK);
    CHECK(generated.stop_reason == KIGO_STOP_CANCELLED);
    kigo_session_destroy(shared);

    // From a signal handler.
    shared = open_session(model);
    signal(SIGUSR1, on_signal);
    how.on_token = raise_signal;
    CHECK(kigo_session_generate(shared, &how, &generated) == KIGO_STATUS_OK);
    CHECK(generated.stop_reason == KIGO_STOP_CANCELLED && generated.n_tokens == 1);

    // Before a prefill: it is stopped, and holds what it held; the next one runs.
    CHECK(kigo_session_cancel(shared) == KIGO_STATUS_OK);
    CHECK(kigo_session_prefill(shared, ids, 500) == KIGO_STATUS_CANCELLED);
    CHECK(strcmp(kigo_last_error(), "cancelled") == 0);
    CHECK(kigo_session_n_tokens(shared, &n) == KIGO_STATUS_OK && n == 4);
    CHECK(kigo_session_prefill(shared, ids, 2) == KIGO_STATUS_OK);
    CHECK(kigo_session_cancel(shared) == KIGO_STATUS_OK);
    CHECK(kigo_session_clear_cancel(shared) == KIGO_STATUS_OK);
    CHECK(kigo_session_step(shared, 1) == KIGO_STATUS_OK);
    kigo_session_destroy(shared);
}

static uint32_t expected[20];

static void *many(void *user_data)
{
    int n_rounds = *(int *)user_data;
    for (int round = 0; round < n_rounds; round++) {
        kigo_session *session = open_session(model);
        kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 17, .flags = KIGO_GENERATE_IGNORE_END};
        kigo_generated generated = {.struct_size = sizeof generated};
        CHECK(kigo_session_generate(session, &how, &generated) == KIGO_STATUS_OK);
        uint32_t ids[20];
        size_t n;
        CHECK(kigo_session_tokens(session, ids, 20, &n) == KIGO_STATUS_OK && n == 20);
        CHECK(memcmp(ids, expected, sizeof ids) == 0);
        char text[64];
        CHECK(kigo_detokenize(model, ids, 3, 0, text, sizeof text, &n) == KIGO_STATUS_OK);
        CHECK(kigo_token_text(model, 512 + (uint32_t)round, text, sizeof text, &n) == KIGO_STATUS_INVALID_ARGUMENT);
        snprintf(text, sizeof text, "token %d ", 512 + round);
        CHECK(strstr(kigo_last_error(), text) != NULL);
        kigo_session_destroy(session);
    }
    return NULL;
}

static int32_t step_while_loading(uint64_t done, uint64_t total, void *user_data)
{
    (void)done, (void)total;
    CHECK(kigo_session_step(user_data, 1) == KIGO_STATUS_OK);
    return 0;
}

// A load leaves the engine's other sessions running, even those that its own callback runs.
static void loads(kigo_engine *engine, const char *path)
{
    kigo_session *session = open_session(model);
    kigo_load_options load = {.struct_size = sizeof load, .progress = step_while_loading, .progress_user_data = session};
    kigo_model *another;
    CHECK(kigo_model_load_file(engine, path, KIGO_STRLEN, &load, &another) == KIGO_STATUS_OK);
    size_t n;
    CHECK(kigo_session_n_tokens(session, &n) == KIGO_STATUS_OK && n > 5);
    kigo_session_destroy(session);
    kigo_model_destroy(another);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    kigo_engine *engine = open_engine();
    model = open_model(engine, argv[1]);
    busy();
    cancels();
    loads(engine, argv[1]);

    // Many sessions of one model on many threads give what one alone gives.
    kigo_session *alone = open_session(model);
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 17, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated generated = {.struct_size = sizeof generated};
    size_t n;
    CHECK(kigo_session_generate(alone, &how, &generated) == KIGO_STATUS_OK);
    CHECK(kigo_session_tokens(alone, expected, 20, &n) == KIGO_STATUS_OK && n == 20);
    kigo_session_destroy(alone);
    pthread_t threads[4];
    int n_rounds = argc > 2 ? 2 : 10;
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, many, &n_rounds) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);

    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
