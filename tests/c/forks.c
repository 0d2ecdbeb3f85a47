// fork() in a program whose other threads compute: the child's calls say so, its parent goes on; and where no thread was
// inside a call, the child makes an engine of its own.
//
//     forks MODEL N
#define _GNU_SOURCE
#include "calls.h"
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static struct world w, theirs[2];
static volatile int stop;
static uint64_t n_rounds;
// Held by each thread through a round of calls.
static pthread_mutex_t rounds[2] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
static uint64_t plain[N_CALLS];

// Computes, tokenizes and renders without end, so that a fork() comes in the middle of it.
static void *work(void *user_data)
{
    struct world *mine = &theirs[*(int *)user_data];
    pthread_mutex_t *mine_alone = &rounds[*(int *)user_data];
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        static const char *const names[] = {"prefill", "tokenize", "chat", "generate", "schema", "prefill_batch"};
        CHECK(pthread_mutex_lock(mine_alone) == 0);
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            CHECK(outcome_of(mine, call_named(names[i])) == plain[call_named(names[i]) - CALLS]);
        CHECK(pthread_mutex_unlock(mine_alone) == 0);
        __atomic_add_fetch(&n_rounds, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

#define REFUSED(call)                                                                                          \
    do {                                                                                                       \
        CHECK((call) == KIGO_STATUS_INVALID_STATE);                                                            \
        CHECK(strstr(kigo_last_error(), "fork()") != NULL);                                                    \
    } while (0)

// What a child may not do with its parent's handles: anything but give them up.
static void refused(const kigo_engine *engine, const kigo_model *model, kigo_session *session, kigo_stream *stream, kigo_batch *batch)
{
    uint32_t token = 1;
    size_t n;
    char text[64];
    float number;
    kigo_engine_facts engine_facts = {.struct_size = sizeof engine_facts};
    kigo_model_facts model_facts = {.struct_size = sizeof model_facts};
    kigo_cache_facts cache_facts = {.struct_size = sizeof cache_facts};
    kigo_session_facts session_facts = {.struct_size = sizeof session_facts};
    kigo_layer_facts layer = {.struct_size = sizeof layer};
    kigo_plan plan = {.struct_size = sizeof plan};
    kigo_generated generated = {.struct_size = sizeof generated};
    kigo_stream_text piece = {.struct_size = sizeof piece};
    kigo_diagnosis diagnosis = {.struct_size = sizeof diagnosis};
    kigo_model *made_model;
    kigo_session *made_session;
    kigo_stream *made_stream;
    kigo_batch *made_batch;
    kigo_batch_work work = {.struct_size = sizeof work, .ids = &token, .n_ids = 1};
    kigo_batch_event event = {.struct_size = sizeof event};
    kigo_constraint *made_constraint;
    kigo_constraint_options how = {.struct_size = sizeof how, .kind = KIGO_CONSTRAINT_REGEX, .text = "a", .text_len = 1};
    kigo_logprob logprob;
    kigo_status status;
    kigo_message message = {"user", 4, "x", 1};
    const uint32_t *ids = &token;
    uint64_t flags;
    int32_t type;
    const size_t one = 1;
    REFUSED(kigo_engine_device(engine, text, sizeof text, &n));
    REFUSED(kigo_engine_info(engine, &engine_facts));
    REFUSED(kigo_model_plan(engine, w.path, KIGO_STRLEN, NULL, &plan));
    REFUSED(kigo_model_load_file(engine, w.path, KIGO_STRLEN, NULL, &made_model));
    REFUSED(kigo_model_load_memory(engine, w.file, w.file_bytes, NULL, &made_model));
    REFUSED(kigo_doctor(engine, w.path, KIGO_STRLEN, NULL, &diagnosis));
    REFUSED(kigo_model_info(model, &model_facts));
    REFUSED(kigo_model_cache_info(model, &cache_facts));
    REFUSED(kigo_model_layer_info(model, 0, &layer));
    REFUSED(kigo_model_cache_bytes(model, 1, &flags));
    REFUSED(kigo_engine_last_error(engine, text, sizeof text, &n));
    REFUSED(kigo_model_last_error(model, text, sizeof text, &n));
    REFUSED(kigo_session_last_error(session, text, sizeof text, &n));
    REFUSED(kigo_model_architecture(model, text, sizeof text, &n));
    REFUSED(kigo_model_quantization(model, text, sizeof text, &n));
    REFUSED(kigo_model_meta(model, "a", 1, text, sizeof text, &n));
    REFUSED(kigo_model_meta_type(model, "a", 1, &type));
    REFUSED(kigo_model_meta_key(model, 0, text, sizeof text, &n));
    REFUSED(kigo_tokenize(model, "x", 1, 0, &token, 1, &n));
    REFUSED(kigo_detokenize(model, &token, 1, 0, text, sizeof text, &n));
    REFUSED(kigo_token_text(model, 1, text, sizeof text, &n));
    REFUSED(kigo_token_flags(model, 1, &flags));
    REFUSED(kigo_chat_render(model, &message, 1, 0, &token, 1, &n));
    REFUSED(kigo_chat_render_text(model, &message, 1, 0, text, sizeof text, &n));
    REFUSED(kigo_model_embed(model, &token, 1, NULL, &number, 1, &n));
    REFUSED(kigo_session_create(model, NULL, &made_session));
    REFUSED(kigo_session_restore(model, w.blob, w.blob_bytes, &made_session));
    REFUSED(kigo_stream_create(model, NULL, &made_stream));
    REFUSED(kigo_batch_create(model, &made_batch));
    REFUSED(kigo_batch_add(batch, session, &work));
    REFUSED(kigo_batch_remove(batch, session));
    REFUSED(kigo_batch_run(batch, 0, &n));
    REFUSED(kigo_batch_next(batch, &event));
    REFUSED(kigo_session_prefill(session, &token, 1));
    REFUSED(kigo_session_step(session, 1));
    REFUSED(kigo_session_sample(session, &token));
    REFUSED(kigo_session_generate(session, NULL, &generated));
    REFUSED(kigo_session_logits(session, &number, 1, &n));
    REFUSED(kigo_session_logprobs(session, &number, 1, &n));
    REFUSED(kigo_session_token_logprobs(session, NULL, &logprob, 1, &n));
    REFUSED(kigo_session_tokens(session, &token, 1, &n));
    REFUSED(kigo_session_n_tokens(session, &n));
    REFUSED(kigo_session_info(session, &session_facts));
    REFUSED(kigo_session_truncate(session, 0));
    REFUSED(kigo_session_fork(session, &made_session));
    REFUSED(kigo_session_save(session, text, sizeof text, &n));
    REFUSED(kigo_session_set_sampling(session, NULL));
    REFUSED(kigo_session_set_constraint(session, NULL));
    REFUSED(kigo_constraint_create(model, &how, &made_constraint));
    REFUSED(kigo_chat_render_json(model, CONVERSATION, KIGO_STRLEN, NULL, &token, 1, &n));
    REFUSED(kigo_chat_render_json_text(model, CONVERSATION, KIGO_STRLEN, NULL, text, sizeof text, &n));
    REFUSED(kigo_chat_variable(model, NULL, 0, text, sizeof text, &n));
    REFUSED(kigo_session_set_tap(session, NULL));
    REFUSED(kigo_session_cancel(session));
    REFUSED(kigo_session_clear_cancel(session));
    token = 1;
    REFUSED(kigo_prefill_batch(&session, &ids, &one, 1, &status));
    REFUSED(kigo_step_batch(&session, &token, 1, &status));
    REFUSED(kigo_sample_batch(&session, 1, &token, &status));
    REFUSED(kigo_stream_push(stream, 1, &piece));
    REFUSED(kigo_stream_finish(stream, &piece));
}

static void child(kigo_session *session, kigo_stream *stream, kigo_batch *batch, bool alone)
{
    alarm(60); // a child that hangs dies, and its parent sees it
    refused(w.engine, w.model, session, stream, batch);
    kigo_batch_destroy(batch);
    kigo_stream_destroy(stream);
    kigo_session_destroy(session);
    kigo_model_destroy(w.model);
    kigo_engine_destroy(w.engine);
    if (!alone)
        _exit(0);
    struct world own;
    open_world(&own, w.path);
    for (size_t i = 0; i < N_CALLS; i++)
        if (!(CALLS[i].flags & SLOW))
            CHECK(outcome_of(&own, &CALLS[i]) == plain[i]);
    close_world(&own);
    _exit(0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    open_world(&w, argv[1]);
    for (size_t i = 0; i < N_CALLS; i++)
        if (!(CALLS[i].flags & SLOW))
            plain[i] = outcome_of(&w, &CALLS[i]);
    kigo_session *session = prompted(&w, 0, 0.0f);
    kigo_stream *stream;
    CHECK(kigo_stream_create(w.model, NULL, &stream) == KIGO_STATUS_OK);
    // With a session on its way.
    kigo_batch *batch;
    kigo_session *on_its_way = prompted(&w, 0, 0.0f);
    kigo_batch_work work_ = {.struct_size = sizeof work_, .ids = w.ids, .n_ids = N_LONG};
    CHECK(kigo_batch_create(w.model, &batch) == KIGO_STATUS_OK);
    CHECK(kigo_batch_add(batch, on_its_way, &work_) == KIGO_STATUS_OK);
    uint64_t before = hash_session(HASH_BEGIN, &w, session);
    // Two threads that compute on the same model, each with room of its own.
    pthread_t threads[2];
    int indices[2] = {0, 1};
    for (int i = 0; i < 2; i++) {
        theirs[i] = w;
        theirs[i].out = calloc(OUT_BYTES, 1);
        CHECK(theirs[i].out != NULL && pthread_create(&threads[i], NULL, work, &indices[i]) == 0);
    }
    for (int n = atoi(argv[2]); n > 0; n--) {
        uint64_t seen = __atomic_load_n(&n_rounds, __ATOMIC_RELAXED);
        bool alone = n % 2 == 0;
        for (int i = 0; alone && i < 2; i++)
            CHECK(pthread_mutex_lock(&rounds[i]) == 0);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            child(session, stream, batch, alone);
        for (int i = 0; alone && i < 2; i++)
            CHECK(pthread_mutex_unlock(&rounds[i]) == 0);
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            fprintf(stderr, "%d children before the last: status %x\n", n - 1, (unsigned)status);
            return 1;
        }
        // The parent goes on, on all its threads.
        CHECK(hash_session(HASH_BEGIN, &w, session) == before);
        while (__atomic_load_n(&n_rounds, __ATOMIC_RELAXED) < seen + 2)
            usleep(1000);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        free(theirs[i].out);
    }
    kigo_batch_destroy(batch);
    kigo_session_destroy(on_its_way);
    kigo_stream_destroy(stream);
    kigo_session_destroy(session);
    close_world(&w);
    return 0;
}
