// One call where memory is short: it ends with OK or OUT_OF_MEMORY, leaves its handle as the header says and others as
// they were, and gives what it always gives when it is made again.
//
//     limits MODEL CALL space KIB      with so much more address space than the process has
//     limits MODEL CALL nth FROM TO STRIDE    with the n-th of its allocations failing, for n from FROM to TO
//     limits MODEL CALL after FROM TO STRIDE  with the n-th and all later ones failing
//     limits MODEL - names
//
// `space` prints "STATUS OUTCOME"; the others a line "n" before each n and, at the end, "of N OUTCOME", where N is how many
// allocations the call takes, so that whoever runs this knows where it died.
#define _GNU_SOURCE
#include "calls.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

// ---- The host's own allocator, which the library uses too: it counts, and fails where it is told to.

extern void *__libc_malloc(size_t n), *__libc_calloc(size_t n, size_t size), *__libc_realloc(void *old, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

static long counted, fails_from, fails_to; // none of them is counted while fails_to is 0

// What Rust's standard library takes for a thread's handle, from the system itself and without asking: the process ends
// where it fails. The library asks for more than that before each thread, which covers real shortage (`space` has it) and
// no single failure. Nothing of this size fails here.
#define THREAD_HANDLE_BYTES 48

static int fails(size_t n_bytes)
{
    if (__atomic_load_n(&fails_to, __ATOMIC_RELAXED) == 0 || n_bytes == THREAD_HANDLE_BYTES)
        return 0;
    long n = __atomic_add_fetch(&counted, 1, __ATOMIC_RELAXED);
    return n >= fails_from && n <= __atomic_load_n(&fails_to, __ATOMIC_RELAXED);
}

void *malloc(size_t n)
{
    return fails(n) ? (errno = ENOMEM, (void *)NULL) : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return fails(n * size) ? (errno = ENOMEM, (void *)NULL) : __libc_calloc(n, size);
}

void *realloc(void *old, size_t n)
{
    return fails(n) ? (errno = ENOMEM, (void *)NULL) : __libc_realloc(old, n);
}

void *memalign(size_t align, size_t n)
{
    return fails(n) ? (errno = ENOMEM, (void *)NULL) : __libc_memalign(align, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    return memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    void *memory = memalign(align, n);
    if (memory == NULL)
        return ENOMEM;
    *out = memory;
    return 0;
}

// ----

static struct world w;
static kigo_session *witness;

// What the witness gives next, which nothing may change.
static uint64_t hash_witness(void)
{
    kigo_session *fork;
    CHECK(kigo_session_fork(witness, &fork) == KIGO_STATUS_OK);
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 3, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_generate(fork, &how, &generated) == KIGO_STATUS_OK && generated.n_tokens == 3);
    uint64_t h = hash_session(HASH_BEGIN, &w, fork);
    kigo_session_destroy(fork);
    return h;
}

// Judges a call that was made under a limit, which is gone, and makes it again.
static uint64_t judge(const struct call *call, kigo_status status, uint64_t before)
{
    uint64_t limited = 0;
    if (status == KIGO_STATUS_OK) {
        limited = hash_outcome(&w);
    } else {
        if (status != KIGO_STATUS_OUT_OF_MEMORY) {
            fprintf(stderr, "%s: %s: %s\n", call->name, kigo_status_name(status), kigo_last_error());
            exit(1);
        }
        CHECK(!made_something(&w));
        if (!(call->flags & LEAVES_A_PART))
            CHECK(hash_state(&w) == before);
        for (int i = 0; i < N_BATCH; i++)
            CHECK(w.statuses[i] == KIGO_STATUS_OK || w.statuses[i] == KIGO_STATUS_OUT_OF_MEMORY);
    }
    // Whoever was refused asks the same handle again, unless that holds a part now.
    if (status == KIGO_STATUS_OK || (call->flags & LEAVES_A_PART)) {
        forget(&w);
        call->prepare(&w);
    }
    forget_made(&w);
    kigo_status again = call->make(&w);
    if (again != KIGO_STATUS_OK) {
        fprintf(stderr, "%s, again: %s: %s\n", call->name, kigo_status_name(again), kigo_last_error());
        exit(1);
    }
    uint64_t outcome = hash_outcome(&w);
    if (status == KIGO_STATUS_OK && !(call->flags & VARIES) && limited != outcome) {
        fprintf(stderr, "%s: another outcome under the limit\n", call->name);
        exit(1);
    }
    forget(&w);
    return outcome;
}

static rlim_t address_space(void)
{
    char statm[64] = {0};
    int file = open("/proc/self/statm", O_RDONLY); // stdio would take memory
    CHECK(file >= 0 && read(file, statm, sizeof statm - 1) > 0);
    close(file);
    return strtoull(statm, NULL, 10) * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void with_space(const struct call *call, long kib)
{
    CHECK(mallopt(M_TOP_PAD, 0) == 1); // the heap grows by pages
    call->prepare(&w);
    uint64_t before = hash_state(&w);
    struct rlimit old, limit;
    CHECK(getrlimit(RLIMIT_AS, &old) == 0);
    limit = old;
    limit.rlim_cur = address_space();
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    // What is free in the heap is taken first, so that the limit is all that there is.
    void **taken = NULL;
    for (size_t size = 1u << 16; size >= 16; size = size > 1024 ? size / 2 : size - 16)
        for (void **p; (p = __libc_malloc(size)) != NULL; taken = p)
            *p = taken;
    limit.rlim_cur = address_space() + 1024 * (rlim_t)kib;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    kigo_status status = call->make(&w);
    CHECK(setrlimit(RLIMIT_AS, &old) == 0);
    while (taken != NULL) {
        void **next = *taken;
        free(taken);
        taken = next;
    }
    uint64_t outcome = judge(call, status, before);
    printf("%d %016llx\n", status, (unsigned long long)(outcome ^ hash_witness()));
}

static void with_failures(const struct call *call, bool all_later, long from, long to, long stride)
{
    uint64_t first = 0;
    long n_taken = 0;
    for (long n = from; n <= to; n += stride) {
        printf("%ld\n", n);
        fflush(stdout);
        call->prepare(&w);
        uint64_t before = hash_state(&w);
        counted = 0;
        fails_from = n;
        __atomic_store_n(&fails_to, all_later ? LONG_MAX : n, __ATOMIC_SEQ_CST);
        kigo_status status = call->make(&w);
        __atomic_store_n(&fails_to, 0, __ATOMIC_SEQ_CST);
        n_taken = counted;
        uint64_t outcome = judge(call, status, before) ^ hash_witness();
        if (first == 0)
            first = outcome;
        CHECK(outcome == first);
        if (n_taken < n) // nothing has failed: this was the whole
            break;
    }
    printf("of %ld %016llx\n", n_taken, (unsigned long long)first);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[3], "names") == 0) {
        for (size_t i = 0; i < N_CALLS; i++)
            printf("%s %d\n", CALLS[i].name, CALLS[i].flags);
        return 0;
    }
    CHECK(argc >= 5);
    const struct call *call = call_named(argv[2]);
    open_world(&w, argv[1]);
    witness = prompted(&w, 9, 0.7f);
    setvbuf(stdout, malloc(4096), _IOLBF, 4096);
    if (strcmp(argv[3], "space") == 0) {
        with_space(call, atol(argv[4]));
    } else {
        CHECK(argc == 7);
        with_failures(call, strcmp(argv[3], "after") == 0, atol(argv[4]), atol(argv[5]),
                      atol(argv[6]));
    }
    kigo_session_destroy(witness);
    close_world(&w);
    return 0;
}
