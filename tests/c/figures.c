// Figures of sessions and models, read while they run; tokens with their log probabilities; a log at its levels.
#include "check.h"

#define N_TOKENS 40

struct seen {
    const kigo_model *model;
    kigo_session *session, *by_hand;
    size_t n, n_text, n_texts, stop_at;
    uint32_t ids[N_TOKENS];
    char text[4096];
    int stopped_by_text;
};

static kigo_model_figures stats(const kigo_model *model)
{
    kigo_model_figures f = {.struct_size = sizeof f};
    CHECK(kigo_model_stats(model, &f) == KIGO_STATUS_OK);
    return f;
}

static kigo_session_figures session_stats(const kigo_session *session)
{
    kigo_session_figures f = {.struct_size = sizeof f};
    CHECK(kigo_session_stats(session, &f) == KIGO_STATUS_OK);
    return f;
}

static int32_t on_token(uint32_t token, const char *text, size_t text_len, void *user_data)
{
    struct seen *s = user_data;
    (void)token;
    CHECK(s->n_text + text_len < sizeof s->text);
    memcpy(s->text + s->n_text, text, text_len);
    s->n_text += text_len;
    s->n_texts++;
    return s->stopped_by_text;
}

// Each event's figures are those of the call that asks for them at its place.
static int32_t on_step(const kigo_step_event *e, void *user_data)
{
    struct seen *s = user_data;
    char bytes[64];
    size_t n;
    kigo_logprob p[4];
    CHECK(e->struct_size >= sizeof *e && e->text[e->text_len] == '\0' && e->bytes[e->n_bytes] == '\0' && e->reserved == 0);
    if (e->token == KIGO_TOKEN_NONE) {
        CHECK(e->n_top == 0 && e->n_bytes == 0 && e->position == 5 + s->n);
        return 0;
    }
    CHECK(s->n < N_TOKENS && e->position == 5 + s->n && e->n_top == 3 && s->n_texts == s->n);
    CHECK(kigo_token_text(s->model, e->token, bytes, sizeof bytes, &n) == KIGO_STATUS_OK);
    CHECK(n == e->n_bytes && memcmp(bytes, e->bytes, n) == 0);
    CHECK(kigo_session_step(s->session, 1) == KIGO_STATUS_BUSY); // it is in use, and its figures can be read
    CHECK(session_stats(s->session).n_tokens_decoded == s->n + 1);
    kigo_logprobs_options which = {.struct_size = sizeof which, .tokens = &e->token, .n_tokens = 1, .n_top = 3};
    which.flags = KIGO_LOGPROBS_BY_AFTER;
    CHECK(kigo_session_token_logprobs(s->by_hand, &which, p, 4, &n) == KIGO_STATUS_OK && n == 4);
    CHECK(memcmp(p + 1, e->top, 3 * sizeof *p) == 0 && p[0].before == e->before && p[0].after == e->after);
    CHECK(kigo_session_step(s->by_hand, e->token) == KIGO_STATUS_OK);
    s->ids[s->n++] = e->token;
    return s->n == s->stop_at;
}

static kigo_session *prompted(const kigo_model *model)
{
    static const uint32_t ids[5] = {10, 20, 30, 40, 50};
    const kigo_sampling sampling = {.struct_size = sizeof sampling, .temperature = 0.8f, .top_k = 50, .seed = 3};
    kigo_session_options options = {.struct_size = sizeof options, .sampling = &sampling};
    kigo_session *session;
    CHECK(kigo_session_create(model, &options, &session) == KIGO_STATUS_OK);
    CHECK(kigo_session_prefill(session, ids, 5) == KIGO_STATUS_OK);
    return session;
}

static void steps(const kigo_model *model)
{
    struct seen with = {.model = model, .session = prompted(model), .by_hand = prompted(model)}, without = {.n = 0};
    kigo_session *plain = prompted(model);
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = N_TOKENS, .on_token = on_token};
    how.flags = KIGO_GENERATE_IGNORE_END | KIGO_TEXT_SPECIAL | KIGO_GENERATE_TOP_BY_AFTER;
    how.user_data = &without;
    kigo_generated g = {.struct_size = sizeof g};
    CHECK(kigo_session_generate(plain, &how, &g) == KIGO_STATUS_OK && g.n_tokens == N_TOKENS);
    how.on_step = on_step;
    how.n_top = 3;
    how.user_data = &with;
    CHECK(kigo_session_generate(with.session, &how, &g) == KIGO_STATUS_OK && g.n_tokens == N_TOKENS);
    CHECK(g.n_prompt_tokens == 5 && g.n_prompt_tokens_reused == 0 && g.prefill_ns > 0);
    CHECK(g.first_token_ns > 0 && g.first_token_ns <= g.decode_ns && g.callback_ns > 0 && g.waiting_ns <= g.decode_ns);
    uint32_t ids[5 + N_TOKENS];
    size_t n;
    CHECK(kigo_session_tokens(plain, ids, 5 + N_TOKENS, &n) == KIGO_STATUS_OK && n == 5 + N_TOKENS);
    CHECK(with.n == N_TOKENS && memcmp(ids + 5, with.ids, sizeof with.ids) == 0);
    CHECK(with.n_text == without.n_text && memcmp(with.text, without.text, with.n_text) == 0);

    // Either callback stops it, and both have seen the same tokens.
    CHECK(kigo_session_truncate(with.session, 4) == KIGO_STATUS_OK && kigo_session_step(with.session, 50) == KIGO_STATUS_OK);
    CHECK(kigo_session_truncate(with.by_hand, 4) == KIGO_STATUS_OK && kigo_session_step(with.by_hand, 50) == KIGO_STATUS_OK);
    const uint64_t n_before = session_stats(with.session).n_tokens_decoded;
    CHECK(n_before == N_TOKENS + 1);
    kigo_session *fork;
    CHECK(kigo_session_fork(with.session, &fork) == KIGO_STATUS_OK && session_stats(fork).n_tokens_decoded == 0);
    struct seen short_one = {.model = model, .session = fork, .by_hand = with.by_hand, .stop_at = 2};
    how.user_data = &short_one;
    CHECK(kigo_session_generate(fork, &how, &g) == KIGO_STATUS_OK && g.stop_reason == KIGO_STOP_CALLBACK);
    CHECK(g.n_tokens == 2 && short_one.n == 2 && short_one.n_texts == 2 && g.n_prompt_tokens == 0 && g.prefill_ns == 0);
    short_one.stop_at = 0;
    short_one.stopped_by_text = 1;
    CHECK(kigo_session_generate(fork, &how, &g) == KIGO_STATUS_OK && g.stop_reason == KIGO_STOP_CALLBACK);
    CHECK(g.n_tokens == 1 && short_one.n == 3 && short_one.n_texts == 3);

    // What may not be: more than there are, a callback in a batch.
    how.n_top = 513;
    CHECK(kigo_session_generate(fork, &how, &g) == KIGO_STATUS_INVALID_ARGUMENT && g.n_tokens == 0);
    CHECK(strcmp(kigo_last_error(), "n_top is 513; expected at most the vocabulary's 512") == 0);
    kigo_batch *batch;
    CHECK(kigo_batch_create(model, &batch) == KIGO_STATUS_OK);
    how.on_token = NULL;
    how.n_top = 0;
    kigo_batch_work work = {.struct_size = sizeof work, .generate = &how};
    CHECK(kigo_batch_add(batch, fork, &work) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(kigo_last_error(), "kigo_generate_options.on_step is a function") != NULL);
    kigo_batch_destroy(batch);
    kigo_session_destroy(fork);
    kigo_session_destroy(plain);
    kigo_session_destroy(with.session);
    kigo_session_destroy(with.by_hand);
}

struct reader {
    const kigo_model *model;
    const kigo_session *session;
    int ended; // under the mutex
    size_t n_read;
    pthread_mutex_t mutex;
    pthread_cond_t read;
};

static void *keeps_reading(void *user_data)
{
    struct reader *r = user_data;
    kigo_model_figures last = {.struct_size = sizeof last};
    for (int ended = 0; !ended;) {
        kigo_model_figures now = stats(r->model);
        CHECK(now.n_tokens_decoded >= last.n_tokens_decoded && now.pass_ns >= last.pass_ns && now.n_sessions == 1);
        CHECK(session_stats(r->session).n_tokens_prefilled <= 300 && now.n_sessions_running + now.n_sessions_waiting <= 2);
        last = now;
        pthread_mutex_lock(&r->mutex);
        r->n_read++;
        ended = r->ended;
        pthread_cond_signal(&r->read);
        pthread_mutex_unlock(&r->mutex);
    }
    return NULL;
}

// Each token waits until the figures have been read once more, by a thread that waits for nobody.
static int32_t wait_for_a_reading(uint32_t token, const char *text, size_t text_len, void *user_data)
{
    struct reader *r = user_data;
    (void)token, (void)text, (void)text_len;
    pthread_mutex_lock(&r->mutex);
    for (size_t n = r->n_read; r->n_read == n;)
        pthread_cond_wait(&r->read, &r->mutex);
    pthread_mutex_unlock(&r->mutex);
    return 0;
}

static void beside_a_generation(const kigo_model *model)
{
    static uint32_t ids[300];
    const kigo_model_figures before = stats(model);
    struct reader r = {.model = model, .mutex = PTHREAD_MUTEX_INITIALIZER, .read = PTHREAD_COND_INITIALIZER};
    kigo_session *session;
    pthread_t thread;
    CHECK(before.n_sessions == 0 && kigo_session_create(model, NULL, &session) == KIGO_STATUS_OK);
    r.session = session;
    CHECK(pthread_create(&thread, NULL, keeps_reading, &r) == 0);
    CHECK(kigo_session_prefill(session, ids, 300) == KIGO_STATUS_OK);
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 20, .on_token = wait_for_a_reading, .user_data = &r};
    how.flags = KIGO_GENERATE_IGNORE_END;
    kigo_generated g = {.struct_size = sizeof g};
    CHECK(kigo_session_generate(session, &how, &g) == KIGO_STATUS_OK && g.n_tokens == 20 && g.n_prompt_tokens == 300);
    kigo_session_cancel(session);
    CHECK(kigo_session_generate(session, &how, &g) == KIGO_STATUS_OK && g.stop_reason == KIGO_STOP_CANCELLED);
    CHECK(g.n_tokens == 0 && g.first_token_ns == 0 && g.n_prompt_tokens == 0);
    pthread_mutex_lock(&r.mutex);
    r.ended = 1;
    pthread_mutex_unlock(&r.mutex);
    CHECK(pthread_join(thread, NULL) == 0);

    const kigo_model_figures f = stats(model);
    const kigo_session_figures s = session_stats(session);
    CHECK(s.n_tokens_prefilled == 300 && s.n_tokens_decoded == 20 && s.n_tokens_reused == 0);
    CHECK(f.n_tokens_prefilled - before.n_tokens_prefilled == 300 && f.n_tokens_decoded - before.n_tokens_decoded == 20);
    CHECK(f.n_pass_tokens - before.n_pass_tokens == 320 && f.n_pass_sessions - before.n_pass_sessions == f.n_passes - before.n_passes);
    CHECK(f.n_sessions == 1 && f.n_sessions_running == 0 && f.n_sessions_waiting == 0 && f.n_pages_used == 5);
    CHECK(f.n_cancelled - before.n_cancelled == 1 && f.n_other_failures == before.n_other_failures);
    CHECK(s.prefill_ns > 0 && s.decode_ns > 0 && s.waiting_ns <= s.prefill_ns + s.decode_ns);
    kigo_session_destroy(session);
    CHECK(stats(model).n_sessions == 0);
}

// A shorter struct, of an older program, gets what it knows; a longer one zeros.
static void sizes(const kigo_model *model)
{
    uint64_t words[64];
    memset(words, 0xff, sizeof words);
    words[0] = 24;
    CHECK(kigo_model_stats(model, (kigo_model_figures *)words) == KIGO_STATUS_OK && words[2] == 0 && words[3] == UINT64_MAX);
    words[0] = sizeof words;
    CHECK(kigo_model_stats(model, (kigo_model_figures *)words) == KIGO_STATUS_OK && words[63] == 0 && words[4] > 0);
    words[0] = 12;
    CHECK(kigo_model_stats(model, (kigo_model_figures *)words) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(kigo_last_error(), "kigo_model_figures.struct_size is 12") != NULL);
    CHECK(kigo_model_stats(model, NULL) == KIGO_STATUS_INVALID_ARGUMENT && kigo_model_stats(NULL, NULL) == KIGO_STATUS_INVALID_ARGUMENT);
    kigo_session_figures f = {.struct_size = sizeof f};
    CHECK(kigo_session_stats(NULL, &f) == KIGO_STATUS_INVALID_ARGUMENT);
}

struct lines {
    int n[5];
    char all[8192];
};

static int32_t on_log(const kigo_log_event *event, void *user_data)
{
    struct lines *lines = user_data;
    CHECK(event->level >= KIGO_LOG_LEVEL_ERROR && event->level <= KIGO_LOG_LEVEL_DEBUG);
    lines->n[event->level]++;
    CHECK(strlen(lines->all) + event->text_len + 2 < sizeof lines->all);
    strcat(strcat(lines->all, event->text), "\n");
    return 0;
}

// What "auto" and a load chose, and, for who wants details, each generation.
static void logs(const char *path, int32_t level)
{
    struct lines lines = {.n = {0}};
    kigo_engine_options options = {.struct_size = sizeof options, .n_threads = 2, .log = on_log, .log_user_data = &lines};
    options.log_level = level;
    kigo_engine *engine;
    CHECK(kigo_engine_create(&options, &engine) == KIGO_STATUS_OK);
    char device[64];
    size_t n;
    CHECK(kigo_engine_device(engine, device, sizeof device, &n) == KIGO_STATUS_OK);
    const int is_cpu = strcmp(device, "cpu") == 0;
    kigo_model *model = open_model(engine, path);
    kigo_session *session = open_session(model);
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 2};
    kigo_generated g = {.struct_size = sizeof g};
    CHECK(kigo_session_generate(session, &how, &g) == KIGO_STATUS_OK);
    CHECK(lines.n[KIGO_LOG_LEVEL_INFO] == (level < KIGO_LOG_LEVEL_INFO ? 0 : 2 + is_cpu));
    CHECK(lines.n[KIGO_LOG_LEVEL_DEBUG] == (level == KIGO_LOG_LEVEL_DEBUG));
    CHECK(lines.n[KIGO_LOG_LEVEL_ERROR] == 0);
    if (level >= KIGO_LOG_LEVEL_INFO) {
        CHECK(!is_cpu || strstr(lines.all, "auto: not cuda:0: device \"cuda:0\" is unavailable: ") == lines.all);
        CHECK(strstr(lines.all, "threads, kernels for ") != NULL && strstr(lines.all, "model 1: loaded ") != NULL);
    }
    CHECK((strstr(lines.all, " tokens generated in ") != NULL) == (level == KIGO_LOG_LEVEL_DEBUG));
    kigo_session_destroy(session);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    kigo_engine *engine = open_engine();
    kigo_model *model = open_model(engine, argv[1]);
    steps(model);
    beside_a_generation(model);
    sizes(model);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    logs(argv[1], KIGO_LOG_LEVEL_WARN);
    logs(argv[1], KIGO_LOG_LEVEL_INFO);
    logs(argv[1], KIGO_LOG_LEVEL_DEBUG);
    return 0;
}
