// A host that uses CUDA itself, through the driver that it loads: contexts, a stream and memory of its own, signal handlers
// and a pool of threads. Behind every call, and inside callbacks, its context is the current one.
//
//     context MODEL
//
// The device is the one that KIGO_DEVICE names ("cuda:0"). Without one it prints `skipped: no CUDA device` and succeeds.
#define _GNU_SOURCE
#include "calls.h"
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

typedef void *handle;
typedef unsigned long long address;

// What this program uses of the driver, by the names that its versions have given these.
static struct {
    int (*init)(unsigned), (*count)(int *), (*device)(int *, int);
    int (*create)(handle *, unsigned, int), (*destroy)(handle), (*current)(handle *), (*set_current)(handle);
    int (*alloc)(address *, size_t), (*release)(address), (*stream)(handle *, unsigned), (*end_stream)(handle), (*wait)(handle);
    int (*fill)(address, unsigned, size_t, handle), (*read)(void *, address, size_t);
} cu;

static bool open_driver(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    int n = 0;
    if (library == NULL)
        return false;
    const struct {
        void *to;
        const char *name;
    } all[] = {{&cu.init, "cuInit"}, {&cu.count, "cuDeviceGetCount"}, {&cu.device, "cuDeviceGet"},
               {&cu.create, "cuCtxCreate_v2"}, {&cu.destroy, "cuCtxDestroy_v2"}, {&cu.current, "cuCtxGetCurrent"},
               {&cu.set_current, "cuCtxSetCurrent"}, {&cu.alloc, "cuMemAlloc_v2"}, {&cu.release, "cuMemFree_v2"},
               {&cu.stream, "cuStreamCreate"}, {&cu.end_stream, "cuStreamDestroy_v2"}, {&cu.wait, "cuStreamSynchronize"},
               {&cu.fill, "cuMemsetD32Async"}, {&cu.read, "cuMemcpyDtoH_v2"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        void *found = dlsym(library, all[i].name);
        if (found == NULL) {
            fprintf(stderr, "the driver has no %s\n", all[i].name);
            exit(1);
        }
        memcpy(all[i].to, &found, sizeof found);
    }
    return cu.init(0) == 0 && cu.count(&n) == 0 && n > 0;
}

#define N_WORDS (1 << 20)

// What a thread of the host's has on the device.
struct own {
    handle context, stream;
    address memory;
    unsigned value;
};

static __thread struct own own;
static const char *call_name = "before any call";

static void check_context(void)
{
    handle now;
    CHECK(cu.current(&now) == 0);
    if (now != own.context) {
        fprintf(stderr, "%s: the context is %p, the host's is %p\n", call_name, now, own.context);
        exit(1);
    }
}

static void begin_own(bool with_context)
{
    int device;
    own = (struct own){NULL, NULL, 0, 1};
    if (!with_context)
        return; // a thread without a context, which stays without
    CHECK(cu.device(&device, 0) == 0 && cu.create(&own.context, 0, device) == 0);
    CHECK(cu.stream(&own.stream, 1) == 0 && cu.alloc(&own.memory, N_WORDS * 4) == 0);
    CHECK(cu.fill(own.memory, own.value, N_WORDS, own.stream) == 0 && cu.wait(own.stream) == 0);
    check_context();
}

// The memory holds what it held, and the stream works: new values are on their way when the next call begins.
static void check_own(void)
{
    check_context();
    if (own.context == NULL)
        return;
    unsigned *words = malloc(N_WORDS * sizeof *words);
    CHECK(words != NULL);
    CHECK(cu.wait(own.stream) == 0 && cu.read(words, own.memory, N_WORDS * sizeof *words) == 0);
    for (size_t i = 0; i < N_WORDS; i++)
        CHECK(words[i] == own.value);
    free(words);
    CHECK(cu.fill(own.memory, ++own.value, N_WORDS, own.stream) == 0);
}

static void end_own(void)
{
    check_own();
    if (own.context != NULL)
        CHECK(cu.end_stream(own.stream) == 0 && cu.release(own.memory) == 0 && cu.destroy(own.context) == 0);
}

static struct world w;

// Each call, with a context of the host's and without one.
static void every_call(void)
{
    in_callback = check_context;
    for (size_t i = 0; i < N_CALLS; i++) {
        const struct call *call = &CALLS[i];
        uint64_t outcomes[2];
        for (int pass = 0; pass < 2; pass++) {
            begin_own(pass == 1);
            call_name = call->name;
            call->prepare(&w);
            check_own();
            kigo_status status = call->make(&w);
            if (status != KIGO_STATUS_OK) {
                fprintf(stderr, "%s: %s: %s\n", call->name, kigo_status_name(status), kigo_last_error());
                exit(1);
            }
            check_own();
            outcomes[pass] = hash_outcome(&w);
            check_own();
            forget(&w);
            end_own();
        }
        // What a model takes or a device has at the moment is no result.
        CHECK(outcomes[0] == outcomes[1] || (call->flags & VARIES) || strcmp(call->name, "plan") == 0);
    }
    in_callback = NULL;
}

// A pool of threads, which take jobs in turn.
#define N_POOL 4
#define N_JOBS 32
static int next_job;
static uint64_t wanted;

static uint64_t job(void)
{
    kigo_session *session = prompted(&w, 0, 0.8f), *fork;
    check_own();
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 24, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_generate(session, &how, &generated) == KIGO_STATUS_OK && generated.n_tokens == 24);
    check_own();
    CHECK(kigo_session_fork(session, &fork) == KIGO_STATUS_OK);
    uint64_t h = hash_session(HASH_BEGIN, &w, fork);
    check_own();
    kigo_session_destroy(fork);
    kigo_session_destroy(session);
    check_own();
    return h;
}

static void *pool(void *with_context)
{
    begin_own(with_context != NULL);
    while (__atomic_fetch_add(&next_job, 1, __ATOMIC_RELAXED) < N_JOBS)
        CHECK(job() == wanted);
    end_own();
    return NULL;
}

static volatile sig_atomic_t n_alarms;

static void on_alarm(int number)
{
    (void)number;
    n_alarms++;
}

static void on_fault(int number)
{
    (void)number;
    _Exit(3);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const char *device = getenv("KIGO_DEVICE");
    if (device == NULL || strncmp(device, "cuda", 4) != 0 || !open_driver()) {
        printf("skipped: no CUDA device\n");
        return 0;
    }
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    struct sigaction action = {.sa_handler = on_fault}, now;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        CHECK(sigaction(faults[i], &action, NULL) == 0);
    action.sa_handler = on_alarm;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    const struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);

    begin_own(true);
    open_world(&w, argv[1]);
    check_own();
    end_own();
    every_call();

    begin_own(true);
    call_name = "a job of the pool";
    wanted = job();
    pthread_t threads[N_POOL];
    for (size_t i = 0; i < N_POOL; i++)
        CHECK(pthread_create(&threads[i], NULL, pool, i % 2 == 0 ? &w : NULL) == 0);
    for (size_t i = 0; i < N_POOL; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    call_name = "the end";
    close_world(&w);
    end_own();

    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(sigaction(SIGALRM, NULL, &now) == 0 && now.sa_handler == on_alarm && n_alarms > 0);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        CHECK(sigaction(faults[i], NULL, &now) == 0 && now.sa_handler == on_fault);
    return 0;
}
