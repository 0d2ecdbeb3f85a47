// Hosts as they are: with small stacks, with a processor set otherwise, with handlers, timers and masks of their own,
// without descriptors, threads or a terminal. In each every call gives what it gives in a plain program.
//
//     host MODEL stack KiB [CALL] | float | signals | closed | descriptors | threads | storm
#define _GNU_SOURCE
#include "calls.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>
#if defined __x86_64__
#include <xmmintrin.h>
#endif

static struct world w;
static uint64_t plain[N_CALLS];

static void make_plain(bool slow)
{
    for (size_t i = 0; i < N_CALLS; i++)
        if (slow || !(CALLS[i].flags & SLOW))
            plain[i] = outcome_of(&w, &CALLS[i]);
}

// Every call gives what it gave; a call that needs what is not there may say so with `refusal`. How many did.
static int same_again(kigo_status refusal, bool slow)
{
    int n_refused = 0;
    for (size_t i = 0; i < N_CALLS; i++) {
        const struct call *call = &CALLS[i];
        if (!slow && (call->flags & SLOW))
            continue;
        call->prepare(&w);
        kigo_status status = call->make(&w);
        if (status == KIGO_STATUS_OK ? hash_outcome(&w) != plain[i] : status != refusal || made_something(&w)) {
            fprintf(stderr, "%s: %s: %s\n", call->name, kigo_status_name(status), kigo_last_error());
            exit(1);
        }
        n_refused += status != KIGO_STATUS_OK;
        forget(&w);
    }
    return n_refused;
}

// ---- Small stacks.

static void *make_call(void *user_data)
{
    const struct call *call = user_data;
    kigo_status status = call->make(&w);
    if (status != KIGO_STATUS_OK) {
        fprintf(stderr, "%s: %s: %s\n", call->name, kigo_status_name(status), kigo_last_error());
        exit(1);
    }
    return NULL;
}

static void *forget_all(void *user_data)
{
    (void)user_data;
    forget(&w);
    return NULL;
}

static void stacks(size_t kib, const char *only)
{
    for (size_t i = 0; i < N_CALLS; i++) {
        const struct call *call = &CALLS[i];
        if (only != NULL && strcmp(only, call->name) != 0)
            continue;
        uint64_t outcome = outcome_of(&w, call);
        call->prepare(&w);
        on_stack(kib, make_call, (void *)(uintptr_t)call);
        CHECK(hash_outcome(&w) == outcome);
        on_stack(kib, forget_all, NULL);
    }
}

// ---- The processor's floating-point state.

#if defined __x86_64__
static unsigned wanted_state;

// The bits that are a mode, not what has happened.
static unsigned modes(void)
{
    return _mm_getcsr() & 0xffc0u;
}

static void check_state(void)
{
    CHECK(modes() == wanted_state);
}

static void floats(void)
{
    make_plain(true);
    // Flush to zero 0x8000, subnormals as zeros 0x40, rounding 0x2000 to 0x6000; without 0x1f80 exceptions trap.
    static const unsigned states[] = {0x1f80 | 0x8000, 0x1f80 | 0x40, 0x1f80 | 0x2000, 0x1f80 | 0x4000, 0x1f80 | 0x6000,
                                      0x1f80 | 0xe040, 0x0000, 0x6000};
    in_callback = check_state;
    for (size_t s = 0; s < sizeof states / sizeof *states; s++) {
        wanted_state = states[s];
        for (size_t i = 0; i < N_CALLS; i++) {
            const struct call *call = &CALLS[i];
            if ((call->flags & SLOW) && s != 5)
                continue;
            unsigned before = _mm_getcsr();
            wanted_state = before & 0xffc0u;
            call->prepare(&w);
            wanted_state = states[s];
            _mm_setcsr(states[s]);
            kigo_status status = call->make(&w);
            unsigned after = modes();
            _mm_setcsr(before);
            wanted_state = before & 0xffc0u;
            if (status != KIGO_STATUS_OK || after != states[s] || hash_outcome(&w) != plain[i]) {
                fprintf(stderr, "%s in state %04x: %s, state %04x\n", call->name, states[s], kigo_status_name(status), after);
                exit(1);
            }
            forget(&w);
        }
    }
    in_callback = NULL;
}
#endif

// ---- Signals.

static volatile sig_atomic_t n_handled;
static char *page;
static char stack_of_handler[65536];

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    char here;
    if (info->si_addr != page || &here < stack_of_handler || &here >= stack_of_handler + sizeof stack_of_handler)
        _exit(3);
    n_handled++;
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

static void fault(void)
{
    *(volatile char *)page = 1;
}

static void all_actions(struct sigaction *actions)
{
    for (int n = 1; n < 32; n++)
        CHECK(sigaction(n, NULL, &actions[n]) == 0);
}

// Threads other than this one in which `signal` is not blocked.
static int n_open_to(int number)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/task");
    CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == (int)getpid())
            continue;
        char path[300], line[256];
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL)
            continue;
        while (fgets(line, sizeof line, file) != NULL)
            if (strncmp(line, "SigBlk:", 7) == 0 && !(strtoull(line + 7, NULL, 16) >> (number - 1) & 1))
                n++;
        fclose(file);
    }
    closedir(dir);
    return n;
}

static void signals(const char *path)
{
    // Handlers of the host's stay, and are called on the host's own stack.
    stack_t stack = {.ss_sp = stack_of_handler, .ss_size = sizeof stack_of_handler}, stack_after;
    CHECK(sigaltstack(&stack, NULL) == 0);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK}, before[32], after[32];
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    memset(before, 0, sizeof before), memset(after, 0, sizeof after);
    all_actions(before);
    page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);

    open_world(&w, path);
    // Blocked when the engine's threads are there already: they must not take it.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    CHECK(kill(getpid(), SIGTERM) == 0 && kill(getpid(), SIGUSR1) == 0);
    make_plain(false);
    in_callback = fault;
    CHECK(same_again(KIGO_STATUS_OK, false) == 0);
    in_callback = NULL;
    CHECK(n_handled == 1);
    CHECK(n_open_to(SIGTERM) == 0 && n_open_to(SIGINT) == 0 && n_open_to(SIGCHLD) == 0);
    for (int i = 0; i < 2; i++) {
        int number = sigwaitinfo(&set, NULL);
        CHECK(number == SIGTERM || number == SIGUSR1);
    }
    all_actions(after);
    for (int n = 1; n < 32; n++)
        CHECK(before[n].sa_sigaction == after[n].sa_sigaction && before[n].sa_flags == after[n].sa_flags);
    CHECK(sigaltstack(NULL, &stack_after) == 0 && stack_after.ss_sp == stack.ss_sp && stack_after.ss_size == stack.ss_size);
}

static void on_timer(int number)
{
    (void)number;
    n_handled++;
}

// A signal every 50 microseconds, for which no system call is begun again.
static void storm(void)
{
    make_plain(false);
    struct sigaction action = {.sa_handler = on_timer};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int i = 0; i < 5; i++)
        CHECK(same_again(KIGO_STATUS_OK, false) == 0);
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(n_handled > 100);
}

// ---- What is missing.

// No descriptor to be had: only what opens a file says so.
static void descriptors(void)
{
    make_plain(true);
    struct rlimit old, limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    limit = old;
    limit.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK(open("/dev/null", O_RDONLY) < 0 && errno == EMFILE);
    int n_refused = same_again(KIGO_STATUS_IO, true);
    CHECK(make_plan(&w) == KIGO_STATUS_IO && make_load(&w) == KIGO_STATUS_IO);
    CHECK(strstr(kigo_last_error(), w.path) != NULL && strstr(kigo_last_error(), "Too many open files") != NULL);
    CHECK(make_load_memory(&w) == KIGO_STATUS_OK);
    forget(&w);
    CHECK(n_refused == 4); // plan, devices, load, doctor
    CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
    CHECK(same_again(KIGO_STATUS_OK, false) == 0);
}

static void *nobody(void *user_data)
{
    return user_data;
}

// No thread to be had: what needs one of its own is OUT_OF_MEMORY.
static void threads(char *path)
{
    // From inside its folder, whose parents another user may not be let through.
    char *slash = strrchr(path, '/');
    if (slash != NULL) {
        *slash = '\0';
        CHECK(chdir(path) == 0);
        w.path = slash + 1;
    }
    make_plain(false);
    // Root is not limited.
    if (getuid() == 0)
        CHECK(setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
    struct rlimit old, limit;
    CHECK(getrlimit(RLIMIT_NPROC, &old) == 0);
    limit = old;
    limit.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NPROC, &limit) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, nobody, NULL) == EAGAIN);
    kigo_engine *engine;
    kigo_engine_options options = {.struct_size = sizeof options, .device = "cpu", .device_len = 3, .n_threads = 8};
    CHECK(kigo_engine_create(&options, &engine) == KIGO_STATUS_OUT_OF_MEMORY && engine == NULL);
    CHECK(strstr(kigo_last_error(), "thread") != NULL);
    // One that computes on the caller's thread alone needs none.
    options.n_threads = 1;
    CHECK(kigo_engine_create(&options, &engine) == KIGO_STATUS_OK);
    kigo_engine_destroy(engine);
    // The grammars are prepared (a session that has one) while threads can be had.
    for (size_t i = 0; i < N_CALLS; i++) {
        const struct call *call = &CALLS[i];
        if (call->flags & SLOW)
            continue;
        CHECK(setrlimit(RLIMIT_NPROC, &old) == 0);
        call->prepare(&w);
        CHECK(setrlimit(RLIMIT_NPROC, &limit) == 0);
        kigo_status status = call->make(&w);
        if (status == KIGO_STATUS_OK ? hash_outcome(&w) != plain[i] : status != KIGO_STATUS_OUT_OF_MEMORY || made_something(&w)) {
            fprintf(stderr, "%s: %s: %s\n", call->name, kigo_status_name(status), kigo_last_error());
            exit(1);
        }
        forget(&w);
    }
    CHECK(setrlimit(RLIMIT_NPROC, &old) == 0);
    CHECK(same_again(KIGO_STATUS_OK, false) == 0);
}

// No standard descriptors: nothing reads or writes what has their numbers now.
static void closed(const char *path)
{
    int report = dup(2);
    CHECK(report > 2 && fcntl(report, F_SETFD, FD_CLOEXEC) == 0);
    char name[] = "/tmp/kigo-host-XXXXXX";
    close(0), close(1), close(2);
    for (int i = 0; i < 3; i++) {
        int file = mkstemp(name); // 0, 1 and 2: whatever is printed ends up there
        if (file != i || unlink(name) != 0)
            _exit(4);
        memcpy(name + sizeof name - 7, "XXXXXX", 6);
    }
    open_world(&w, path);
    make_plain(true);
    CHECK(same_again(KIGO_STATUS_OK, false) == 0);
    for (int i = 0; i < 3; i++)
        if (lseek(i, 0, SEEK_END) != 0) {
            dup2(report, 2);
            fprintf(stderr, "something was printed to descriptor %d\n", i);
            exit(1);
        }
    close_world(&w);
    close(0), close(1), close(2);
    open_world(&w, path); // the model's file may be descriptor 0 here
    CHECK(same_again(KIGO_STATUS_OK, false) == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    const char *name = argv[2];
    if (strcmp(name, "closed") == 0) {
        closed(argv[1]);
    } else if (strcmp(name, "signals") == 0) {
        signals(argv[1]);
    } else {
        open_world(&w, argv[1]);
        if (strcmp(name, "stack") == 0) {
            CHECK(argc >= 4);
            stacks((size_t)atol(argv[3]), argc > 4 ? argv[4] : NULL);
        } else if (strcmp(name, "float") == 0) {
#if defined __x86_64__
            floats();
#else
            return 77;
#endif
        } else if (strcmp(name, "storm") == 0) {
            storm();
        } else if (strcmp(name, "descriptors") == 0) {
            descriptors();
        } else {
            CHECK(strcmp(name, "threads") == 0);
            threads(argv[1]);
        }
    }
    close_world(&w);
    return 0;
}
