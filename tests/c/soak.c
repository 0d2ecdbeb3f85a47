// Four threads and 64 sessions for as long as one likes: every call mixed with every other, each session's tokens those
// that it has alone, and memory that stays.
//
//     soak MODEL SECONDS [SEED]
//
// On the device that KIGO_DEVICE names, else the CPU. What a lone session gives is found out first; then threads take
// sessions at random, go on with them in some way, go back, save, fork, cancel, and compare. Prints one line of numbers.
#define _GNU_SOURCE
#include "check.h"
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#define N_THREADS 4
#define N_SESSIONS 64
#define N_MODELS 2 // one whose calls are merged, one whose are not
#define N_NEW 48
#define N_CONSTRAINED 12
#define MOST_TOKENS 200

struct sequence {
    pthread_mutex_t use;    // by the thread that works with it
    pthread_mutex_t handle; // while the handle is replaced, or cancelled
    kigo_session *session;
    int model;
    size_t n_prompt;
    // The prompt and what comes after it, and what comes after the prompt under the constraint.
    uint32_t ids[MOST_TOKENS], constrained[N_CONSTRAINED];
    size_t n_ids, n_constrained;
    char text[4096];
    size_t n_text;
    float *embedding;
};

static kigo_engine *engine;
static kigo_model *models[N_MODELS];
static kigo_model_facts facts = {.struct_size = sizeof facts};
static struct sequence sequences[N_SESSIONS];
static uint32_t chat_ids[512];
static size_t n_chat_ids, blob_capacity;
static int stop;
enum { STEP, GENERATE, FORK, TRUNCATE, RESTORE, BATCH, CONSTRAIN, CHAT, CANCEL, STREAM, RECREATE, EMBED, LOGPROBS, TAP, N_KINDS };
static const char *const KINDS[N_KINDS] = {"step", "generate", "fork", "truncate", "restore", "batch", "constrain",
                                           "chat", "cancel", "stream", "recreate", "embed", "logprobs", "tap"};
static uint64_t n_done[N_KINDS], n_tokens, n_cancelled;

struct dice {
    uint64_t state;
};

static uint32_t roll(struct dice *dice, uint32_t n)
{
    dice->state ^= dice->state << 13, dice->state ^= dice->state >> 7, dice->state ^= dice->state << 17;
    return (uint32_t)(dice->state >> 33) % n;
}

static void add(uint64_t *counter, uint64_t n)
{
    __atomic_add_fetch(counter, n, __ATOMIC_RELAXED);
}

// Whether to make a call again: it was cancelled. Anything else but success is the end.
static bool again(kigo_status status)
{
    if (status == KIGO_STATUS_CANCELLED) {
        add(&n_cancelled, 1);
        return true;
    }
    CHECK(status == KIGO_STATUS_OK);
    return false;
}

static kigo_session *create(const struct sequence *s, uint64_t flags)
{
    size_t i = (size_t)(s - sequences);
    kigo_sampling sampling = {.struct_size = sizeof sampling, .seed = i, .temperature = i % 5 == 0 ? 0.0f : 0.9f};
    sampling.top_k = i % 3 == 0 ? 40 : 0;
    sampling.top_p = i % 7 == 0 ? 0.9f : 0.0f;
    sampling.repetition_penalty = i % 2 == 0 ? 1.2f : 0.0f;
    kigo_session_options options = {.struct_size = sizeof options, .sampling = &sampling, .flags = flags};
    kigo_session *session;
    CHECK(kigo_session_create(models[s->model], &options, &session) == KIGO_STATUS_OK);
    return session;
}

static size_t length(const struct sequence *s)
{
    uint32_t ids[MOST_TOKENS];
    size_t n;
    CHECK(kigo_session_tokens(s->session, ids, MOST_TOKENS, &n) == KIGO_STATUS_OK);
    CHECK(n <= s->n_ids && memcmp(ids, s->ids, n * sizeof *ids) == 0);
    return n;
}

static void replace(struct sequence *s, kigo_session *session)
{
    pthread_mutex_lock(&s->handle);
    kigo_session *old = s->session;
    s->session = session;
    pthread_mutex_unlock(&s->handle);
    kigo_session_destroy(old);
}

static void one_step(struct sequence *s)
{
    uint32_t token;
    size_t n = length(s);
    if (n == s->n_ids)
        return;
    CHECK(kigo_session_sample(s->session, &token) == KIGO_STATUS_OK);
    CHECK(token == s->ids[n]);
    while (again(kigo_session_step(s->session, token)))
        ;
    add(&n_tokens, 1);
}

struct text {
    char bytes[4096];
    size_t n;
};

static int32_t append(uint32_t token, const char *text, size_t text_len, void *user_data)
{
    struct text *all = user_data;
    (void)token;
    CHECK(all->n + text_len < sizeof all->bytes);
    memcpy(all->bytes + all->n, text, text_len);
    all->n += text_len;
    return 0;
}

static size_t generate(kigo_session *session, size_t most, uint64_t flags, struct text *text)
{
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = most, .on_token = append, .user_data = text};
    how.flags = flags | KIGO_TEXT_SPECIAL;
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_generate(session, &how, &generated) == KIGO_STATUS_OK);
    add(&n_cancelled, generated.stop_reason == KIGO_STOP_CANCELLED);
    CHECK(generated.stop_reason == KIGO_STOP_CANCELLED || generated.n_tokens == most
          || generated.stop_reason == KIGO_STOP_END_TOKEN);
    add(&n_tokens, generated.n_tokens);
    return generated.n_tokens;
}

// Back to some length, with logits.
static void go_back(struct sequence *s, struct dice *dice)
{
    size_t n = length(s), to = s->n_prompt + roll(dice, (uint32_t)(n - s->n_prompt + 1));
    CHECK(kigo_session_truncate(s->session, to - 1) == KIGO_STATUS_OK);
    while (again(kigo_session_step(s->session, s->ids[to - 1])))
        ;
}

static void constrain(kigo_session *session, const kigo_model *model)
{
    kigo_constraint_options options = {.struct_size = sizeof options, .kind = KIGO_CONSTRAINT_REGEX};
    options.text = "([a-z]{1,4} )*", options.text_len = KIGO_STRLEN;
    kigo_constraint *constraint;
    CHECK(kigo_constraint_create(model, &options, &constraint) == KIGO_STATUS_OK);
    CHECK(kigo_session_set_constraint(session, constraint) == KIGO_STATUS_OK);
    kigo_constraint_destroy(constraint);
}

// A fork at the prompt's end gives what a lone session gives under the constraint.
static void constrained(struct sequence *s)
{
    kigo_session *fork;
    CHECK(kigo_session_fork(s->session, &fork) == KIGO_STATUS_OK);
    CHECK(kigo_session_truncate(fork, s->n_prompt - 1) == KIGO_STATUS_OK);
    CHECK(kigo_session_step(fork, s->ids[s->n_prompt - 1]) == KIGO_STATUS_OK);
    constrain(fork, models[s->model]);
    struct text text = {.n = 0};
    uint32_t ids[MOST_TOKENS];
    size_t n;
    CHECK(generate(fork, N_CONSTRAINED, 0, &text) == s->n_constrained);
    CHECK(kigo_session_tokens(fork, ids, MOST_TOKENS, &n) == KIGO_STATUS_OK && n == s->n_prompt + s->n_constrained);
    CHECK(memcmp(ids + s->n_prompt, s->constrained, s->n_constrained * sizeof *ids) == 0);
    kigo_session_destroy(fork);
}

static void restore(struct sequence *s)
{
    size_t n;
    void *blob = malloc(blob_capacity);
    kigo_session *restored;
    CHECK(blob != NULL && kigo_session_save(s->session, blob, blob_capacity, &n) == KIGO_STATUS_OK);
    CHECK(kigo_session_restore(models[s->model], blob, n, &restored) == KIGO_STATUS_OK);
    free(blob);
    replace(s, restored);
}

// This session and others that are free, one token each.
static void batch(struct sequence *s, struct dice *dice)
{
    struct sequence *all[8] = {s};
    kigo_session *sessions[8] = {s->session};
    uint32_t tokens[8];
    kigo_status statuses[8];
    size_t n = 1, at[8] = {length(s)};
    if (at[0] == s->n_ids)
        go_back(s, dice), at[0] = length(s);
    if (at[0] == s->n_ids)
        return;
    for (int tries = 0; tries < 12 && n < 8; tries++) {
        struct sequence *other = &sequences[roll(dice, N_SESSIONS)];
        if (other->model != s->model || pthread_mutex_trylock(&other->use) != 0)
            continue;
        size_t length_of = length(other);
        if (length_of == other->n_ids) {
            pthread_mutex_unlock(&other->use);
            continue;
        }
        all[n] = other, sessions[n] = other->session, at[n++] = length_of;
    }
    CHECK(kigo_sample_batch(sessions, n, tokens, statuses) == KIGO_STATUS_OK);
    for (size_t i = 0; i < n; i++)
        CHECK(tokens[i] == all[i]->ids[at[i]]);
    kigo_step_batch(sessions, tokens, n, statuses);
    for (size_t i = 0; i < n; i++) {
        CHECK(length(all[i]) == at[i] + (statuses[i] == KIGO_STATUS_OK));
        add(&n_tokens, !again(statuses[i]));
    }
    for (size_t i = 1; i < n; i++)
        pthread_mutex_unlock(&all[i]->use);
}

static void chat(struct dice *dice)
{
    const kigo_message messages[2] = {{"system", 6, "Be brief.", 9}, {"user", 4, "What is gravity?", 16}};
    uint32_t ids[512];
    size_t n;
    CHECK(kigo_chat_render(models[roll(dice, N_MODELS)], messages, 2, 0, ids, 512, &n) == KIGO_STATUS_OK);
    CHECK(n == n_chat_ids && memcmp(ids, chat_ids, n * sizeof *ids) == 0);
}

static void stream(const struct sequence *s)
{
    kigo_stream_options options = {.struct_size = sizeof options, .flags = KIGO_TEXT_SPECIAL};
    kigo_stream *stream;
    kigo_stream_text piece = {.struct_size = sizeof piece};
    struct text text = {.n = 0};
    CHECK(kigo_stream_create(models[s->model], &options, &stream) == KIGO_STATUS_OK);
    for (size_t i = s->n_prompt; i < s->n_ids; i++) {
        CHECK(kigo_stream_push(stream, s->ids[i], &piece) == KIGO_STATUS_OK);
        append(0, piece.text, piece.text_len, &text);
    }
    CHECK(kigo_stream_finish(stream, &piece) == KIGO_STATUS_OK);
    append(0, piece.text, piece.text_len, &text);
    kigo_stream_destroy(stream);
    CHECK(text.n == s->n_text && memcmp(text.bytes, s->text, text.n) == 0);
}

static void embed(const struct sequence *s, float *out)
{
    size_t n;
    CHECK(kigo_model_embed(models[s->model], s->ids, s->n_prompt, NULL, out, facts.n_embd, &n) == KIGO_STATUS_OK);
}

static void compare_embedding(const struct sequence *s)
{
    float *out = malloc(facts.n_embd * sizeof *out);
    CHECK(out != NULL);
    embed(s, out);
    CHECK(memcmp(out, s->embedding, facts.n_embd * sizeof *out) == 0);
    free(out);
}

static void logprobs(struct sequence *s)
{
    size_t at = length(s), n;
    if (at == s->n_ids)
        return;
    kigo_logprobs_options options = {.struct_size = sizeof options, .tokens = &s->ids[at], .n_tokens = 1, .n_top = 5};
    kigo_logprob found[6];
    CHECK(kigo_session_token_logprobs(s->session, &options, found, 6, &n) == KIGO_STATUS_OK && n == 6);
    CHECK(found[0].token == s->ids[at] && found[0].after <= 0.0f && found[0].after > -1e30f);
}

static int32_t see(const kigo_tap_event *event, void *user_data)
{
    *(uint64_t *)user_data += event->n_rows;
    return 0;
}

static void tapped(struct sequence *s)
{
    uint64_t n_rows = 0;
    static const uint32_t taps[2] = {KIGO_TAP_RESID, KIGO_TAP_LOGITS};
    kigo_tap_options options = {.struct_size = sizeof options, .taps = taps, .n_taps = 2, .callback = see, .user_data = &n_rows};
    CHECK(kigo_session_set_tap(s->session, &options) == KIGO_STATUS_OK);
    one_step(s);
    CHECK(kigo_session_set_tap(s->session, NULL) == KIGO_STATUS_OK);
}

static void recreate(struct sequence *s, struct dice *dice)
{
    kigo_session *session = create(s, roll(dice, 2) ? KIGO_SESSION_REUSE_PREFIX : 0);
    size_t half = roll(dice, (uint32_t)s->n_prompt);
    if (half > 0)
        CHECK(kigo_session_prefill(session, s->ids, half) == KIGO_STATUS_OK);
    CHECK(kigo_session_prefill(session, s->ids + half, s->n_prompt - half) == KIGO_STATUS_OK);
    replace(s, session);
}

static void cancel(struct dice *dice)
{
    struct sequence *s = &sequences[roll(dice, N_SESSIONS)];
    pthread_mutex_lock(&s->handle);
    CHECK(kigo_session_cancel(s->session) == KIGO_STATUS_OK);
    pthread_mutex_unlock(&s->handle);
}

static void act(struct sequence *s, int kind, struct dice *dice)
{
    struct text text = {.n = 0};
    kigo_session *fork;
    size_t n;
    switch (kind) {
    case STEP:
        for (uint32_t i = 0; i <= roll(dice, 4); i++)
            one_step(s);
        break;
    case GENERATE:
        n = length(s);
        if (n < s->n_ids)
            generate(s->session, 1 + roll(dice, (uint32_t)(s->n_ids - n)), KIGO_GENERATE_IGNORE_END, &text);
        break;
    case FORK:
        CHECK(kigo_session_fork(s->session, &fork) == KIGO_STATUS_OK);
        replace(s, fork);
        break;
    case TRUNCATE: go_back(s, dice); break;
    case RESTORE: restore(s); break;
    case BATCH: batch(s, dice); break;
    case CONSTRAIN: constrained(s); break;
    case CHAT: chat(dice); break;
    case CANCEL: cancel(dice); break;
    case STREAM: stream(s); break;
    case RECREATE: recreate(s, dice); break;
    case EMBED: compare_embedding(s); break;
    case LOGPROBS: logprobs(s); break;
    case TAP: tapped(s); break;
    }
    if (length(s) == s->n_ids)
        go_back(s, dice);
    add(&n_done[kind], 1);
}

static void *work(void *user_data)
{
    struct dice dice = {*(uint64_t *)user_data};
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        struct sequence *s = &sequences[roll(&dice, N_SESSIONS)];
        if (pthread_mutex_trylock(&s->use) != 0) {
            sched_yield();
            continue;
        }
        // Steps, generations and batches are most of it.
        int kind = roll(&dice, 3) == 0 ? (int)roll(&dice, N_KINDS) : (int[]){STEP, GENERATE, BATCH}[roll(&dice, 3)];
        act(s, kind, &dice);
        pthread_mutex_unlock(&s->use);
    }
    return NULL;
}

// What each session gives alone.
static void find_out(void)
{
    const kigo_message messages[2] = {{"system", 6, "Be brief.", 9}, {"user", 4, "What is gravity?", 16}};
    CHECK(kigo_chat_render(models[0], messages, 2, 0, chat_ids, 512, &n_chat_ids) == KIGO_STATUS_OK);
    for (size_t i = 0; i < N_SESSIONS; i++) {
        struct sequence *s = &sequences[i];
        CHECK(pthread_mutex_init(&s->use, NULL) == 0 && pthread_mutex_init(&s->handle, NULL) == 0);
        s->model = (int)(i % N_MODELS);
        s->n_prompt = 5 + i * 13 % 90;
        for (size_t t = 0; t < s->n_prompt; t++)
            s->ids[t] = (uint32_t)(t < 66 ? t * t * 3 + i % 4 : t + i) % facts.n_vocab; // four share a page
        s->session = create(s, 0);
        CHECK(kigo_session_prefill(s->session, s->ids, s->n_prompt) == KIGO_STATUS_OK);
        kigo_session *fork;
        CHECK(kigo_session_fork(s->session, &fork) == KIGO_STATUS_OK);
        struct text text = {.n = 0};
        CHECK(generate(fork, N_NEW, KIGO_GENERATE_IGNORE_END, &text) == N_NEW);
        memcpy(s->text, text.bytes, s->n_text = text.n);
        CHECK(kigo_session_tokens(fork, s->ids, MOST_TOKENS, &s->n_ids) == KIGO_STATUS_OK);
        CHECK(s->n_ids == s->n_prompt + N_NEW);
        CHECK(kigo_session_truncate(fork, s->n_prompt - 1) == KIGO_STATUS_OK);
        CHECK(kigo_session_step(fork, s->ids[s->n_prompt - 1]) == KIGO_STATUS_OK);
        constrain(fork, models[s->model]);
        uint32_t ids[MOST_TOKENS];
        size_t n;
        s->n_constrained = generate(fork, N_CONSTRAINED, 0, &text);
        CHECK(kigo_session_tokens(fork, ids, MOST_TOKENS, &n) == KIGO_STATUS_OK && n == s->n_prompt + s->n_constrained);
        memcpy(s->constrained, ids + s->n_prompt, s->n_constrained * sizeof *ids);
        kigo_session_destroy(fork);
        s->embedding = malloc(facts.n_embd * sizeof(float));
        CHECK(s->embedding != NULL);
        embed(s, s->embedding);
    }
    n_tokens = n_cancelled = 0;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double resident_mib(void)
{
    long mapped, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%ld %ld", &mapped, &resident) == 2);
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

// What malloc has given and not got back; 0: this C library does not say.
static double in_use_mib(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    struct mallinfo2 all = mallinfo2();
    return (double)(all.uordblks + all.hblkhd) / (1 << 20);
#else
    return 0;
#endif
}

// The largest values in the first and in the second half of a run, and a straight line through all.
struct trend {
    double peaks[2], sum_t, sum_m, sum_tt, sum_tm, n;
};

static void note(struct trend *trend, double t, double mib, int half)
{
    if (mib > trend->peaks[half])
        trend->peaks[half] = mib;
    trend->sum_t += t, trend->sum_m += mib, trend->sum_tt += t * t, trend->sum_tm += t * mib, trend->n++;
}

static double a_minute(const struct trend *of)
{
    return 60 * (of->n * of->sum_tm - of->sum_t * of->sum_m) / (of->n * of->sum_tt - of->sum_t * of->sum_t);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    double seconds = atof(argv[2]);
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    engine = open_engine();
    for (int i = 0; i < N_MODELS; i++) {
        kigo_load_options load = {.struct_size = sizeof load, .flags = KIGO_LOAD_STRICT | (i == 0 ? KIGO_LOAD_MERGE_CALLS : 0)};
        CHECK(kigo_model_load_file(engine, argv[1], KIGO_STRLEN, &load, &models[i]) == KIGO_STATUS_OK);
    }
    CHECK(kigo_model_info(models[0], &facts) == KIGO_STATUS_OK);
    uint64_t cache_bytes;
    CHECK(kigo_model_cache_bytes(models[0], MOST_TOKENS, &cache_bytes) == KIGO_STATUS_OK);
    blob_capacity = (size_t)cache_bytes + 8 * MOST_TOKENS + 4 * (size_t)facts.n_vocab + 4096;
    find_out();

    pthread_t threads[N_THREADS];
    uint64_t seeds[N_THREADS];
    double start = now();
    struct trend resident = {{0, 0}, 0, 0, 0, 0, 0}, in_use = resident;
    for (int i = 0; i < N_THREADS; i++) {
        seeds[i] = (seed + (uint64_t)i) * UINT64_C(0x9e3779b97f4a7c15);
        CHECK(pthread_create(&threads[i], NULL, work, &seeds[i]) == 0);
    }
    // After a fifth of the time for everything to have been done once: the peaks of both halves of the rest, and the slope.
    for (double t; (t = now() - start) < seconds; usleep(100000)) {
        if (t < 0.2 * seconds)
            continue;
        note(&resident, t, resident_mib(), t > 0.6 * seconds);
        note(&in_use, t, in_use_mib(), t > 0.6 * seconds);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < N_THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    printf("%.0f s, seed %llu: %llu tokens, %llu cancelled; MiB in use %.2f, then %.2f, %+.4f a minute; resident %.2f, then %.2f, "
           "%+.4f a minute;",
           now() - start, (unsigned long long)seed, (unsigned long long)n_tokens, (unsigned long long)n_cancelled,
           in_use.peaks[0], in_use.peaks[1], a_minute(&in_use), resident.peaks[0], resident.peaks[1], a_minute(&resident));
    for (int i = 0; i < N_KINDS; i++)
        printf(" %s %llu", KINDS[i], (unsigned long long)n_done[i]);
    printf("\n");
    for (int i = 0; i < N_KINDS; i++)
        CHECK(n_done[i] > 0);
    CHECK(n_tokens > 0 && n_cancelled > 0);
    // Calls that meet at a peak are no growth. What is given back may stay resident in the allocator's own pages, the more the longer
    // its threads take turns.
    CHECK(in_use.peaks[1] < in_use.peaks[0] * 1.001 + 4);
    CHECK(resident.peaks[1] < resident.peaks[0] * 1.02 + 4);

    for (size_t i = 0; i < N_SESSIONS; i++) {
        kigo_session_destroy(sequences[i].session);
        free(sequences[i].embedding);
    }
    for (int i = 0; i < N_MODELS; i++) {
        kigo_cache_facts cache = {.struct_size = sizeof cache};
        CHECK(kigo_model_cache_info(models[i], &cache) == KIGO_STATUS_OK && cache.n_pages_used == 0);
        kigo_model_destroy(models[i]);
    }
    kigo_engine_facts engine_facts = {.struct_size = sizeof engine_facts};
    CHECK(kigo_engine_info(engine, &engine_facts) == KIGO_STATUS_OK && engine_facts.memory_used_bytes == 0);
    kigo_engine_destroy(engine);
    return 0;
}
