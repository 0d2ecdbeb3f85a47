// The host's part in threads: its own pool in the place of the engine's, what it must not do there, what it is told of threads, and
// where they run.
//
//     own_threads MODEL pool|misuse|told|placed
#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

#define N_PROMPT 300
#define N_STEPS 12
#define N_VOCAB 4096

static const char *path;

static kigo_engine_options on_cpu(uint32_t n_threads)
{
    kigo_engine_options options = {.struct_size = sizeof options, .device = "cpu", .device_len = 3, .n_threads = n_threads};
    return options;
}

static kigo_engine *made(const kigo_engine_options *options)
{
    kigo_engine *engine;
    CHECK(kigo_engine_create(options, &engine) == KIGO_STATUS_OK);
    return engine;
}

// Everything that a model computes for a prompt and its continuation, by itself and in a batch, as one number.
static uint64_t computed(kigo_engine *engine)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    float logits[N_VOCAB];
    uint32_t ids[N_PROMPT], token;
    kigo_model *model = open_model(engine, path);
    kigo_session *session, *fork;
    size_t n;
    for (uint32_t i = 0; i < N_PROMPT; i++)
        ids[i] = (i * i * 7 + i) % 500;
    kigo_sampling sampling = {.struct_size = sizeof sampling, .temperature = 0.8f, .seed = 5};
    kigo_session_options how = {.struct_size = sizeof how, .sampling = &sampling};
    CHECK(kigo_session_create(model, &how, &session) == KIGO_STATUS_OK);
    CHECK(kigo_session_prefill(session, ids, N_PROMPT) == KIGO_STATUS_OK);
    CHECK(kigo_session_fork(session, &fork) == KIGO_STATUS_OK);
    for (int i = 0; i < N_STEPS; i++) {
        CHECK(kigo_session_sample(session, &token) == KIGO_STATUS_OK && kigo_session_step(session, token) == KIGO_STATUS_OK);
        CHECK(kigo_session_logits(session, logits, N_VOCAB, &n) == KIGO_STATUS_OK);
        for (size_t j = 0; j < n * sizeof *logits; j++)
            h = (h ^ ((unsigned char *)logits)[j]) * UINT64_C(0x100000001b3);
    }
    kigo_session_destroy(fork);
    kigo_session_destroy(session);
    kigo_model_destroy(model);
    return h;
}

// ---- A host's pool: some threads, one job at a time.

struct pool {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t threads[8];
    int n_threads;
    void (*body)(void *context, size_t index);
    void *context;
    size_t n, next, n_done;
    bool stops;
    unsigned long n_jobs, n_bodies, n_elsewhere;
};

static void pool_help(struct pool *pool, bool elsewhere)
{
    while (pool->next < pool->n) {
        size_t index = pool->next++;
        pthread_mutex_unlock(&pool->mutex);
        pool->body(pool->context, index);
        pthread_mutex_lock(&pool->mutex);
        pool->n_bodies++, pool->n_elsewhere += elsewhere;
        if (++pool->n_done == pool->n)
            pthread_cond_broadcast(&pool->changed);
    }
}

static void *pool_thread(void *user_data)
{
    struct pool *pool = user_data;
    pthread_mutex_lock(&pool->mutex);
    while (!pool->stops) {
        pool_help(pool, true);
        pthread_cond_wait(&pool->changed, &pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static void pool_open(struct pool *pool, int n_threads)
{
    memset(pool, 0, sizeof *pool);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->changed, NULL);
    pthread_attr_t small;
    // The header says that 128 KiB are enough.
    CHECK(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 128 << 10) == 0);
    for (pool->n_threads = 0; pool->n_threads < n_threads; pool->n_threads++)
        CHECK(pthread_create(&pool->threads[pool->n_threads], &small, pool_thread, pool) == 0);
    pthread_attr_destroy(&small);
}

static void pool_close(struct pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->stops = true;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->n_threads; i++)
        CHECK(pthread_join(pool->threads[i], NULL) == 0);
}

static int32_t pool_run(size_t n, kigo_body body, void *context, void *user_data)
{
    struct pool *pool = user_data;
    pthread_mutex_lock(&pool->mutex);
    CHECK(pool->next == pool->n && n > 0 && n <= 1024);
    pool->body = body, pool->context = context, pool->n = n, pool->next = 0, pool->n_done = 0;
    pool->n_jobs++;
    pthread_cond_broadcast(&pool->changed);
    if (pool->n_jobs % 2 == 0) // else it waits for the others alone
        pool_help(pool, false);
    while (pool->n_done < n)
        pthread_cond_wait(&pool->changed, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
    return 0;
}

static int32_t backwards(size_t n, kigo_body body, void *context, void *user_data)
{
    for (size_t i = n; i > 0; i--)
        body(context, i - 1);
    ++*(int *)user_data;
    return 0;
}

struct shared {
    kigo_engine *engine;
    uint64_t found;
};

static void *compute(void *user_data)
{
    struct shared *shared = user_data;
    shared->found = computed(shared->engine);
    return NULL;
}

static void pool_case(void)
{
    kigo_engine_options options = on_cpu(2);
    kigo_engine *engine = made(&options);
    uint64_t ours = computed(engine);
    kigo_engine_destroy(engine);
    for (uint32_t n_threads = 1; n_threads <= 9; n_threads += 4) {
        struct pool pool;
        pool_open(&pool, 3);
        options = on_cpu(n_threads);
        options.parallel_for = pool_run, options.parallel_for_user_data = &pool;
        engine = made(&options);
        kigo_engine_facts facts = {.struct_size = sizeof facts};
        CHECK(kigo_engine_info(engine, &facts) == KIGO_STATUS_OK && facts.n_threads == n_threads);
        CHECK(computed(engine) == ours);
        // From two threads: the pool has one job at a time.
        struct shared other = {.engine = engine};
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, compute, &other) == 0);
        CHECK(computed(engine) == ours);
        CHECK(pthread_join(thread, NULL) == 0 && other.found == ours);
        kigo_engine_destroy(engine);
        pool_close(&pool);
        CHECK(pool.n_jobs > 100 && pool.n_bodies > pool.n_jobs && pool.n_elsewhere > 0);
    }
    int n = 0;
    options = on_cpu(4);
    options.parallel_for = backwards, options.parallel_for_user_data = &n;
    engine = made(&options);
    CHECK(computed(engine) == ours && n > 100);
    kigo_engine_destroy(engine);
}

// ---- What a host must not do.

static kigo_engine *engine;
static kigo_model *model;
static kigo_session *session;

enum misuse { NONE, EARLY, NOTHING, TWICE, BEYOND, REFUSES, REFUSES_CANCELLED, CALLS, CANCELS };
static struct {
    enum misuse how;
    size_t n;
    kigo_body body;
    void *context;
} now;

static int32_t misused(size_t n, kigo_body body, void *context, void *user_data)
{
    size_t index = 0, n_needed;
    uint32_t token;
    kigo_session *other = NULL;
    CHECK(user_data == &now);
    enum misuse how = now.how;
    now.how = NONE;
    now.n = n, now.body = body, now.context = context;
    if (how == NOTHING)
        return 0;
    if (how == CALLS) {
        CHECK(kigo_session_sample(session, &token) == KIGO_STATUS_BUSY);
        CHECK(strcmp(kigo_last_error(), "a call from inside of the engine's parallel_for") == 0);
        CHECK(kigo_session_create(model, NULL, &other) == KIGO_STATUS_BUSY && other == NULL);
        CHECK(kigo_tokenize(model, "a", 1, 0, NULL, 0, &n_needed) == KIGO_STATUS_BUSY);
        kigo_engine_facts facts = {.struct_size = sizeof facts};
        CHECK(kigo_engine_info(engine, &facts) == KIGO_STATUS_BUSY);
        kigo_session_destroy(session), kigo_model_destroy(model), kigo_engine_destroy(engine);
        CHECK(kigo_device_count(&n_needed) == KIGO_STATUS_OK && n_needed > 0);
    }
    if (how == CANCELS || how == REFUSES_CANCELLED)
        CHECK(kigo_session_cancel(session) == KIGO_STATUS_OK);
    for (; index < n - (how == EARLY); index++)
        body(context, index);
    if (how == TWICE)
        body(context, n / 2);
    if (how == BEYOND)
        body(context, n), body(context, SIZE_MAX);
    return how == REFUSES || how == REFUSES_CANCELLED ? 7 : 0;
}

// A generation that the host's function fails is no generation that somebody has cancelled.
static void generate_refused(void)
{
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 3, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated done = {.struct_size = sizeof done};
    for (int i = 0; i < 2; i++) {
        now.how = i == 0 ? REFUSES : REFUSES_CANCELLED;
        CHECK(kigo_session_generate(session, &how, &done) == KIGO_STATUS_CANCELLED && now.how == NONE);
        CHECK(strcmp(kigo_last_error(), "cancelled by parallel_for") == 0);
        // A cancel that came meanwhile is pending still, and stops the next one.
        CHECK(kigo_session_generate(session, &how, &done) == KIGO_STATUS_OK);
        CHECK(done.stop_reason == (i == 0 ? KIGO_STOP_MAX_TOKENS : KIGO_STOP_CANCELLED) && done.n_tokens == (i == 0 ? 3 : 0));
    }
}

static void misuse_case(void)
{
    static const struct {
        enum misuse how;
        kigo_status status;
        const char *text;
    } cases[] = {
        {EARLY, KIGO_STATUS_INVALID_STATE, "parallel_for returned after "},
        {NOTHING, KIGO_STATUS_INVALID_STATE, "parallel_for returned after 0 of "},
        {TWICE, KIGO_STATUS_INVALID_STATE, "parallel_for called body("},
        {BEYOND, KIGO_STATUS_INVALID_STATE, "parallel_for called body(18446744073709551615) of "},
        {REFUSES, KIGO_STATUS_CANCELLED, "cancelled by parallel_for"},
        {CALLS, KIGO_STATUS_OK, ""},
        {CANCELS, KIGO_STATUS_CANCELLED, "cancelled"},
    };
    kigo_engine_options options = on_cpu(2);
    options.parallel_for = misused, options.parallel_for_user_data = &now;
    engine = made(&options);
    model = open_model(engine, path);
    session = open_session(model);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static float before[N_VOCAB], after[N_VOCAB];
        size_t n_before, n_after, n;
        CHECK(kigo_session_n_tokens(session, &n_before) == KIGO_STATUS_OK);
        CHECK(kigo_session_logits(session, before, N_VOCAB, &n) == KIGO_STATUS_OK);
        now.how = cases[i].how;
        kigo_status status = kigo_session_step(session, 7);
        CHECK(status == cases[i].status && now.how == NONE);
        CHECK(status == KIGO_STATUS_OK || strncmp(kigo_last_error(), cases[i].text, strlen(cases[i].text)) == 0);
        CHECK(kigo_session_n_tokens(session, &n_after) == KIGO_STATUS_OK);
        CHECK(n_after == n_before + (status == KIGO_STATUS_OK));
        CHECK(kigo_session_logits(session, after, N_VOCAB, &n) == KIGO_STATUS_OK);
        CHECK(status == KIGO_STATUS_OK || memcmp(before, after, n * sizeof *before) == 0);
        // Called too late: nothing.
        now.body(now.context, 0);
        now.body(now.context, now.n);
        CHECK(kigo_session_step(session, 7) == KIGO_STATUS_OK && kigo_session_truncate(session, 3) == KIGO_STATUS_OK);
        CHECK(kigo_session_step(session, 9) == KIGO_STATUS_OK);
    }
    generate_refused();
    kigo_session_destroy(session), kigo_model_destroy(model), kigo_engine_destroy(engine);
    // The engine is gone: of one that did nothing wrong, too.
    for (size_t i = 0; i < 5; i++)
        now.body(now.context, i);
    void *before = now.context;
    for (size_t i = 0; i < 3; i++) {
        engine = made(&options), model = open_model(engine, path);
        // What has been handed out is used again, however many engines there are one after the other.
        CHECK(now.context == before);
        kigo_model_destroy(model), kigo_engine_destroy(engine);
        now.body(now.context, 0);
    }
}

// ---- What a host is told.

static struct {
    pthread_mutex_t mutex;
    int begun[16], ended[16], n_tasks, n_tasks_ended;
    uint64_t refused;
    pthread_t threads[16];
} told = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static int32_t on_thread(const kigo_thread_event *event, void *user_data)
{
    char name[32], expected[32];
    CHECK(user_data == &told && event->struct_size == sizeof *event);
    CHECK(pthread_getname_np(pthread_self(), name, sizeof name) == 0 && strcmp(name, event->name) == 0);
    if (engine != NULL) {
        kigo_engine_facts facts = {.struct_size = sizeof facts};
        CHECK(kigo_engine_info(engine, &facts) == KIGO_STATUS_BUSY);
        CHECK(strcmp(kigo_last_error(), "a call from inside of the engine's on_thread") == 0);
    }
    pthread_mutex_lock(&told.mutex);
    if (event->kind == KIGO_THREAD_TASK) {
        CHECK(event->index == 0);
        *(event->ends ? &told.n_tasks_ended : &told.n_tasks) += 1;
    } else {
        CHECK(event->kind == KIGO_THREAD_WORKER && event->index > 0 && event->index < 16);
        snprintf(expected, sizeof expected, "kigo-%d", (int)event->index);
        CHECK(strcmp(name, expected) == 0);
        if (event->ends)
            CHECK(pthread_equal(told.threads[event->index], pthread_self()));
        told.threads[event->index] = pthread_self();
        ++(event->ends ? told.ended : told.begun)[event->index];
    }
    pthread_mutex_unlock(&told.mutex);
    bool refuses = !event->ends && told.refused != 0 && (event->kind == KIGO_THREAD_TASK || event->index == told.refused);
    return refuses ? 5 : 0;
}

static void told_case(void)
{
    kigo_engine_options options = on_cpu(5);
    options.on_thread = on_thread, options.thread_user_data = &told;
    kigo_engine *of_five = made(&options);
    for (int i = 1; i < 5; i++)
        CHECK(told.begun[i] == 1 && told.ended[i] == 0);
    engine = of_five;
    model = open_model(engine, path);
    session = open_session(model);
    kigo_message message = {.role = "user", .role_len = 4, .content = "Hello", .content_len = 5};
    char text[4096];
    size_t n;
    int before = told.n_tasks;
    CHECK(kigo_chat_render_text(model, &message, 1, 0, text, sizeof text, &n) == KIGO_STATUS_OK);
    CHECK(told.n_tasks > before && told.n_tasks == told.n_tasks_ended);
    // A task that may not go on.
    told.refused = 15;
    CHECK(kigo_chat_render_text(model, &message, 1, 0, text, sizeof text, &n) == KIGO_STATUS_CANCELLED);
    told.refused = 0;
    CHECK(kigo_chat_render_text(model, &message, 1, 0, text, sizeof text, &n) == KIGO_STATUS_OK);
    // Workers live as long as the last handle.
    engine = NULL;
    kigo_engine_destroy(of_five), kigo_model_destroy(model);
    CHECK(told.ended[1] == 0);
    kigo_session_destroy(session);
    for (int i = 1; i < 5; i++)
        CHECK(told.begun[i] == 1 && told.ended[i] == 1);
    // A worker that may not go on: there is no engine, and the others have ended.
    memset(told.begun, 0, sizeof told.begun);
    memset(told.ended, 0, sizeof told.ended);
    told.refused = 3;
    CHECK(kigo_engine_create(&options, &of_five) == KIGO_STATUS_CANCELLED && of_five == NULL);
    for (int i = 1; i < 5; i++)
        CHECK(told.begun[i] == 1 && told.ended[i] == (i != 3));
}

// ---- Where they run.

static struct {
    int n, n_wrong;
    uint64_t affinity;
    const uint32_t *cpus;
    size_t n_cpus;
    int class, nice;
} wanted;

static int32_t look(const kigo_thread_event *event, void *user_data)
{
    cpu_set_t set;
    (void)user_data;
    if (event->ends || event->kind != KIGO_THREAD_WORKER)
        return 0;
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    bool right = true;
    if (wanted.n_cpus > 0 && wanted.affinity == KIGO_AFFINITY_EACH)
        right = CPU_COUNT(&set) == 1 && CPU_ISSET(wanted.cpus[event->index % wanted.n_cpus], &set);
    if (wanted.n_cpus > 0 && wanted.affinity == KIGO_AFFINITY_ANY)
        for (size_t i = 0; i < wanted.n_cpus; i++)
            right &= CPU_ISSET(wanted.cpus[i], &set);
    if (wanted.n_cpus > 0 && wanted.affinity == KIGO_AFFINITY_ANY)
        right &= CPU_COUNT(&set) == (int)wanted.n_cpus;
    if (wanted.class >= 0)
        right &= sched_getscheduler(0) == wanted.class;
    errno = 0;
    if (wanted.class == SCHED_BATCH || wanted.class == SCHED_OTHER)
        right &= getpriority(PRIO_PROCESS, 0) == wanted.nice && errno == 0;
    __atomic_add_fetch(&wanted.n, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&wanted.n_wrong, !right, __ATOMIC_SEQ_CST);
    return 0;
}

static void placed_case(void)
{
    cpu_set_t own, after;
    uint32_t cpus[CPU_SETSIZE];
    size_t n = 0;
    CHECK(sched_getaffinity(0, sizeof own, &own) == 0);
    for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &own))
            cpus[n++] = cpu;
    kigo_engine *placed;
    kigo_engine_options options = on_cpu(4);
    options.on_thread = look;
    wanted.cpus = cpus;
    wanted.class = -1;
    for (uint64_t affinity = KIGO_AFFINITY_ANY; affinity <= KIGO_AFFINITY_EACH; affinity++)
        for (wanted.n_cpus = 1; wanted.n_cpus <= (n < 3 ? n : 3); wanted.n_cpus++) {
            options.cpus = cpus, options.n_cpus = wanted.n_cpus;
            options.affinity = wanted.affinity = affinity;
            placed = made(&options);
            computed(placed);
            kigo_engine_destroy(placed);
        }
    CHECK(wanted.n > 0 && wanted.n_wrong == 0);
    CHECK(sched_getaffinity(0, sizeof after, &after) == 0 && CPU_EQUAL(&own, &after));
    // Without a number of threads there are no more than CPUs.
    options.n_threads = 0, options.n_cpus = wanted.n_cpus = 1;
    placed = made(&options);
    kigo_engine_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_engine_info(placed, &facts) == KIGO_STATUS_OK && facts.n_threads == 1);
    kigo_engine_destroy(placed);
    // Some of what is asked for is not there: the system would grant the rest in silence.
    uint32_t absent[2] = {cpus[0], 8190};
    options = on_cpu(2);
    options.cpus = absent, options.n_cpus = 2;
    CHECK(kigo_engine_create(&options, &placed) == KIGO_STATUS_INVALID_ARGUMENT && placed == NULL);
    CHECK(strstr(kigo_last_error(), "8190 at index 1, which the system does not grant") != NULL);
    absent[1] = 8192;
    CHECK(kigo_engine_create(&options, &placed) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(kigo_last_error(), "8192 at index 1") != NULL && strstr(kigo_last_error(), "at most 8191") != NULL);
    options.affinity = 2, absent[1] = cpus[0];
    CHECK(kigo_engine_create(&options, &placed) == KIGO_STATUS_INVALID_ARGUMENT);
    options.affinity = 0, options.parallel_for = backwards;
    CHECK(kigo_engine_create(&options, &placed) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strncmp(kigo_last_error(), "cpus is 2 of them; expected none with parallel_for", 50) == 0);
    options.cpus = NULL, options.n_cpus = 0, options.thread_policy = KIGO_POLICY_BATCH;
    CHECK(kigo_engine_create(&options, &placed) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strncmp(kigo_last_error(), "thread_policy is Batch; expected none with parallel_for", 55) == 0);
    options = on_cpu(2);
    options.cpus = NULL, options.n_cpus = 1;
    CHECK(kigo_engine_create(&options, &placed) == KIGO_STATUS_INVALID_ARGUMENT);

    // Classes: those that anybody may have, and those that the system may refuse with its reason.
    wanted.n_cpus = 0;
    static const struct {
        int32_t policy, priority;
        int class;
        bool granted;
    } classes[] = {
        {KIGO_POLICY_NORMAL, 7, SCHED_OTHER, true}, {KIGO_POLICY_BATCH, 9, SCHED_BATCH, true},
        {KIGO_POLICY_IDLE, 0, SCHED_IDLE, true},    {KIGO_POLICY_NORMAL, -20, SCHED_OTHER, false},
        {KIGO_POLICY_FIFO, 1, SCHED_FIFO, false},   {KIGO_POLICY_ROUND_ROBIN, 1, SCHED_RR, false},
    };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        options = on_cpu(3);
        options.on_thread = look;
        options.thread_policy = classes[i].policy, options.thread_priority = classes[i].priority;
        wanted.class = classes[i].class, wanted.nice = classes[i].priority, wanted.n = 0;
        kigo_status status = kigo_engine_create(&options, &placed);
        if (status != KIGO_STATUS_OK) {
            CHECK(!classes[i].granted && status == KIGO_STATUS_INVALID_ARGUMENT && placed == NULL);
            CHECK(strstr(kigo_last_error(), "what the system grants") != NULL && strstr(kigo_last_error(), "os error") != NULL);
            continue;
        }
        CHECK(wanted.n == 2 && wanted.n_wrong == 0);
        kigo_engine_destroy(placed);
    }
    options = on_cpu(2);
    options.thread_policy = 6;
    CHECK(kigo_engine_create(&options, &placed) == KIGO_STATUS_INVALID_ARGUMENT);
    options.thread_policy = KIGO_POLICY_FIFO, options.thread_priority = 100;
    CHECK(kigo_engine_create(&options, &placed) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "thread_priority is 100; expected 1 to 99") == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    path = argv[1];
    if (strcmp(argv[2], "pool") == 0)
        return pool_case(), 0;
    if (strcmp(argv[2], "misuse") == 0)
        return misuse_case(), 0;
    if (strcmp(argv[2], "told") == 0)
        return told_case(), 0;
    CHECK(strcmp(argv[2], "placed") == 0);
    placed_case();
    return 0;
}
