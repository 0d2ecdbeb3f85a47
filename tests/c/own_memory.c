// The host's memory in the place of the system's: every block goes back as it came, a cap is kept, and each block that is refused is
// OUT_OF_MEMORY with everything as before.
//
//     own_memory MODEL blocks|cap|nth|full
#define _POSIX_C_SOURCE 200809L
#include "calls.h"

// ---- An allocator that looks after what it gave: in front of each block stand its numbers.

struct head {
    uint64_t magic, bytes, kind, unused[5]; // 64 bytes, as the library asks
};
#define MAGIC UINT64_C(0x6b69676f626c6f63)

static struct {
    pthread_mutex_t mutex;
    uint64_t live[5], n_live, most, cap;
    long n, fails_at; // the n-th from now on, from 1; 0: none
    bool full;        // and all behind it, until a block has come back
    bool failed, inside;
    struct world *w;
} memory = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cap = UINT64_MAX};

static uint64_t all_live(void)
{
    return memory.live[1] + memory.live[2] + memory.live[3] + memory.live[4];
}

// No call may come from here.
static void look_inside(void)
{
    kigo_engine_facts facts = {.struct_size = sizeof facts};
    if (!memory.inside || memory.w == NULL || memory.w->engine == NULL)
        return;
    CHECK(kigo_engine_info(memory.w->engine, &facts) == KIGO_STATUS_BUSY);
    kigo_model_destroy(memory.w->model);
}

static void *give(size_t bytes, size_t alignment, int32_t kind, void *user_data)
{
    CHECK(user_data == &memory && bytes > 0 && alignment == sizeof(struct head) && kind >= 1 && kind <= 4);
    pthread_mutex_lock(&memory.mutex);
    look_inside();
    bool due = memory.fails_at > 0 && ++memory.n == memory.fails_at;
    bool refused = due || all_live() + bytes > memory.cap;
    memory.n -= due && memory.full;
    struct head *head = NULL;
    if (refused)
        memory.failed = true;
    else if (posix_memalign((void **)&head, alignment, sizeof *head + bytes) != 0)
        head = NULL;
    if (head != NULL) {
        *head = (struct head){.magic = MAGIC, .bytes = bytes, .kind = (uint64_t)kind};
        memset(head + 1, 0xa5, bytes); // never zeros
        memory.live[kind] += bytes;
        memory.n_live++;
        memory.most = all_live() > memory.most ? all_live() : memory.most;
    }
    pthread_mutex_unlock(&memory.mutex);
    return head == NULL ? NULL : head + 1;
}

static void take_back(void *pointer, size_t bytes, size_t alignment, int32_t kind, void *user_data)
{
    struct head *head = (struct head *)pointer - 1;
    CHECK(user_data == &memory && alignment == sizeof *head && pointer != NULL);
    CHECK(head->magic == MAGIC && head->bytes == bytes && head->kind == (uint64_t)kind);
    pthread_mutex_lock(&memory.mutex);
    look_inside();
    memory.live[kind] -= bytes;
    memory.n_live--;
    memory.n -= memory.full;
    memset(head, 0xdd, sizeof *head + bytes);
    pthread_mutex_unlock(&memory.mutex);
    free(head);
}

static kigo_engine *open_own(void)
{
    kigo_engine_options options = {.struct_size = sizeof options, .device = "cpu", .device_len = 3, .n_threads = 2};
    options.alloc = give, options.free = take_back, options.memory_user_data = &memory;
    kigo_engine *engine;
    CHECK(kigo_engine_create(&options, &engine) == KIGO_STATUS_OK);
    return engine;
}

// ----

static struct world w;

// Everything gives what it gives in the system's memory, and everything goes back.
static void blocks_case(const char *path)
{
    uint64_t expected[N_CALLS];
    open_world(&w, path);
    for (size_t i = 0; i < N_CALLS; i++)
        expected[i] = CALLS[i].flags & SLOW ? 0 : outcome_of(&w, &CALLS[i]);
    close_world(&w);
    open_world_on(&w, path, open_own());
    memory.w = &w, memory.inside = true;
    uint64_t n_before = memory.n_live;
    for (size_t i = 0; i < N_CALLS; i++)
        if (!(CALLS[i].flags & (SLOW | VARIES)))
            CHECK(outcome_of(&w, &CALLS[i]) == expected[i]);
    // Sessions that are gone have left nothing but larger room to work in.
    CHECK(memory.live[KIGO_MEMORY_PAGES] == 0 && memory.live[KIGO_MEMORY_STATE] == 0);
    CHECK(memory.live[KIGO_MEMORY_WEIGHTS] > 0 && memory.live[KIGO_MEMORY_WORK] > 0 && memory.n_live >= n_before);
    memory.inside = false;

    // Whoever goes last.
    kigo_session *session = open_session(w.model);
    CHECK(memory.live[KIGO_MEMORY_PAGES] > 0 && memory.live[KIGO_MEMORY_STATE] == w.facts.n_vocab * sizeof(float));
    kigo_engine_destroy(w.engine);
    kigo_model_destroy(w.model);
    CHECK(memory.live[KIGO_MEMORY_WEIGHTS] > 0);
    CHECK(kigo_session_step(session, 1) == KIGO_STATUS_OK);
    kigo_session_destroy(session);
    CHECK(memory.n_live == 0 && all_live() == 0);

    // One function of two.
    kigo_engine_options options = {.struct_size = sizeof options, .device = "cpu", .device_len = 3, .alloc = give};
    CHECK(kigo_engine_create(&options, &w.engine) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "free is NULL") == 0);
}

static kigo_status prompt(kigo_model *model, uint32_t first, kigo_session **out)
{
    uint32_t ids[200];
    kigo_session_options options = {.struct_size = sizeof options, .flags = KIGO_SESSION_REUSE_PREFIX};
    for (uint32_t i = 0; i < 200; i++)
        ids[i] = (first * 31 + i * 7) % 500;
    kigo_status status = kigo_session_create(model, &options, out);
    if (status != KIGO_STATUS_OK)
        return status;
    status = kigo_session_prefill(*out, ids, 200);
    if (status != KIGO_STATUS_OK)
        kigo_session_destroy(*out);
    return status;
}

// What the host gives at most is never exceeded; what is kept for others' prefixes goes before a session is refused.
static void cap_case(const char *path)
{
    enum { MOST = 64 };
    kigo_session *sessions[MOST];
    kigo_engine *engine = open_own();
    kigo_model *model;
    kigo_load_options options = {.struct_size = sizeof options, .prefix_cache_bytes = UINT64_MAX};
    CHECK(kigo_model_load_file(engine, path, KIGO_STRLEN, &options, &model) == KIGO_STATUS_OK);
    CHECK(prompt(model, 0, &sessions[0]) == KIGO_STATUS_OK);
    uint64_t pages = memory.live[KIGO_MEMORY_PAGES];
    kigo_session_destroy(sessions[0]);
    // Its whole pages are kept.
    CHECK(memory.live[KIGO_MEMORY_PAGES] > 0 && memory.live[KIGO_MEMORY_PAGES] < pages);
    memory.cap = all_live() + 4 * pages;
    memory.most = 0;
    size_t n = 0;
    kigo_status status = KIGO_STATUS_OK;
    while (n < MOST && (status = prompt(model, (uint32_t)n + 1, &sessions[n])) == KIGO_STATUS_OK)
        n++;
    CHECK(status == KIGO_STATUS_OUT_OF_MEMORY && n >= 3 && n <= 8 && memory.most <= memory.cap);
    CHECK(strncmp(kigo_last_error(), "alloc: ", 7) == 0 && strstr(kigo_last_error(), " bytes requested") != NULL);
    // The prefix of the first has gone; one that goes makes room for another, again and again.
    for (uint32_t i = 0; i < 20; i++) {
        kigo_session_destroy(sessions[i % n]);
        CHECK(prompt(model, 100 + i, &sessions[i % n]) == KIGO_STATUS_OK && memory.most <= memory.cap);
    }
    for (size_t i = 0; i < n; i++) {
        CHECK(kigo_session_step(sessions[i], 3) == KIGO_STATUS_OK);
        kigo_session_destroy(sessions[i]);
    }
    // A model that does not fit beside it.
    kigo_model *other;
    memory.cap = all_live() + 1000;
    CHECK(kigo_model_load_file(engine, path, KIGO_STRLEN, NULL, &other) == KIGO_STATUS_OUT_OF_MEMORY && other == NULL);
    memory.cap = UINT64_MAX;
    kigo_model_destroy(model), kigo_engine_destroy(engine);
    CHECK(memory.n_live == 0);
}

// Each block that a call asks for is refused, alone or for as long as none has come back; it is judged as tests/c/limits.c does.
static void nth_case(const char *path, bool full)
{
    memory.full = full;

    open_world_on(&w, path, open_own());
    kigo_session *witness = open_session(w.model);
    uint64_t seen = hash_session(HASH_BEGIN, &w, witness), n_refused = 0;
    for (size_t i = 0; i < N_CALLS; i++) {
        const struct call *call = &CALLS[i];
        if (call->flags & (SLOW | NO_COMPUTING))
            continue;
        uint64_t expected = outcome_of(&w, call);
        for (long n = 1;; n++) {
            call->prepare(&w);
            uint64_t before = hash_state(&w), live = memory.n_live, pages = memory.live[KIGO_MEMORY_PAGES];
            memory.n = 0, memory.failed = false, memory.fails_at = n;
            kigo_status status = call->make(&w);
            memory.fails_at = 0;
            if (status != KIGO_STATUS_OK) {
                // Of pages that a refused call did get, nothing stays, before another call gives it back.
                CHECK((call->flags & LEAVES_A_PART) || memory.live[KIGO_MEMORY_PAGES] <= pages);
                CHECK(status == KIGO_STATUS_OUT_OF_MEMORY && memory.failed && !made_something(&w));
                CHECK((call->flags & LEAVES_A_PART) || (hash_state(&w) == before && memory.n_live >= live));
                n_refused++;
                if (call->flags & LEAVES_A_PART) {
                    forget(&w);
                    call->prepare(&w);
                }
                forget_made(&w);
                CHECK(call->make(&w) == KIGO_STATUS_OK);
            } else if (call->flags & LEAVES_A_PART) {
                // Entries of a batch have statuses of their own.
                forget(&w);
                call->prepare(&w);
                CHECK(call->make(&w) == KIGO_STATUS_OK);
            }
            CHECK(hash_outcome(&w) == expected);
            forget(&w);
            CHECK(hash_session(HASH_BEGIN, &w, witness) == seen);
            if (!memory.failed)
                break;
        }
    }
    CHECK(n_refused >= 15);
    kigo_session_destroy(witness);
    close_world(&w);
    CHECK(memory.n_live == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    if (strcmp(argv[2], "blocks") == 0)
        blocks_case(argv[1]);
    else if (strcmp(argv[2], "cap") == 0)
        cap_case(argv[1]);
    else
        nth_case(argv[1], strcmp(argv[2], "full") == 0);
    return 0;
}
