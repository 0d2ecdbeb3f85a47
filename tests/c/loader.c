// The library as a plugin: opened, used and closed many times; two copies of it in one process.
//
//     loader MODEL cycles LIBRARY N
//     loader MODEL copies LIBRARY COPY
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <kigo.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What this program uses of it.
#define FUNCTIONS(F)                                                                                          \
    F(last_error) F(engine_create) F(engine_destroy) F(model_load_file) F(model_destroy) F(session_create)   \
    F(session_destroy) F(session_prefill) F(session_generate) F(session_tokens) F(chat_render)               \
    F(constraint_create) F(constraint_destroy) F(session_set_constraint) F(session_fork) F(session_sample) F(stream_create) F(stream_push) F(stream_destroy)

#define FIELD(name) __typeof__(kigo_##name) *name;
struct library {
    void *handle;
    FUNCTIONS(FIELD)
};

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);       \
            exit(1);                                                              \
        }                                                                         \
    } while (0)

static void open_library(struct library *l, const char *path)
{
    l->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (l->handle == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
#define LOOK_UP(name) *(void **)&l->name = dlsym(l->handle, "kigo_" #name);
    FUNCTIONS(LOOK_UP)
#define CHECK_FOUND(name) CHECK(l->name != NULL);
    FUNCTIONS(CHECK_FOUND)
}

#define N_IDS 40

// Everything once: the tokens that come of it.
static void use(const struct library *l, const char *model_path, uint32_t *ids)
{
    kigo_engine *engine;
    kigo_model *model;
    kigo_session *session, *fork;
    kigo_stream *stream;
    kigo_engine_options options = {.struct_size = sizeof options, .device = "cpu", .device_len = 3, .n_threads = 2};
    CHECK(l->engine_create(&options, &engine) == KIGO_STATUS_OK);
    CHECK(l->model_load_file(engine, model_path, KIGO_STRLEN, NULL, &model) == KIGO_STATUS_OK);
    CHECK(l->session_create(model, NULL, &session) == KIGO_STATUS_OK);
    const kigo_message message = {"user", KIGO_STRLEN, "What is gravity?", KIGO_STRLEN};
    uint32_t prompt[256];
    size_t n;
    CHECK(l->chat_render(model, &message, 1, KIGO_CHAT_ADD_GENERATION_PROMPT, prompt, 256, &n) == KIGO_STATUS_OK);
    CHECK(l->session_prefill(session, prompt, n < 20 ? n : 20) == KIGO_STATUS_OK);
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 20, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(l->session_generate(session, &how, &generated) == KIGO_STATUS_OK && generated.n_tokens == 20);
    memset(ids, 0, (N_IDS + 1) * sizeof *ids);
    CHECK(l->session_tokens(session, ids, N_IDS, &n) == KIGO_STATUS_OK);
    CHECK(l->session_fork(session, &fork) == KIGO_STATUS_OK);
    kigo_constraint_options grammar = {.struct_size = sizeof grammar, .kind = KIGO_CONSTRAINT_REGEX};
    grammar.text = "[a-z]+", grammar.text_len = KIGO_STRLEN;
    kigo_constraint *constraint;
    CHECK(l->constraint_create(model, &grammar, &constraint) == KIGO_STATUS_OK);
    CHECK(l->session_set_constraint(fork, constraint) == KIGO_STATUS_OK);
    l->constraint_destroy(constraint);
    CHECK(l->session_sample(fork, &ids[N_IDS]) == KIGO_STATUS_OK);
    CHECK(l->stream_create(model, NULL, &stream) == KIGO_STATUS_OK);
    kigo_stream_text piece = {.struct_size = sizeof piece};
    CHECK(l->stream_push(stream, ids[0], &piece) == KIGO_STATUS_OK);
    // A failure, which leaves its text.
    CHECK(l->session_prefill(fork, NULL, 0) == KIGO_STATUS_INVALID_ARGUMENT && *l->last_error() != '\0');
    l->stream_destroy(stream);
    l->session_destroy(fork);
    l->session_destroy(session);
    l->model_destroy(model);
    l->engine_destroy(engine);
}

// What may grow.
struct counts {
    long resident_kib, mapped_kib, mappings, threads, descriptors;
};

static long entries_of(const char *path)
{
    long n = 0;
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static struct counts count(void)
{
    struct counts c = {0, 0, 0, entries_of("/proc/self/task"), entries_of("/proc/self/fd")};
    char line[512];
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%ld %ld", &c.mapped_kib, &c.resident_kib) == 2);
    fclose(file);
    c.mapped_kib *= 4, c.resident_kib *= 4;
    file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        c.mappings += strchr(line, '\n') != NULL;
    fclose(file);
    return c;
}

static void *use_once(void *user_data)
{
    char **arguments = user_data;
    struct library l;
    uint32_t ids[N_IDS + 1];
    open_library(&l, arguments[3]);
    use(&l, arguments[1], ids);
    CHECK(dlclose(l.handle) == 0);
    return NULL;
}

static void cycles(char **argv, int n)
{
    struct counts first = {0, 0, 0, 0, 0}, last;
    uint32_t wanted[N_IDS + 1], ids[N_IDS + 1];
    // Arenas of the C library's, one a thread, are no growth of ours.
    CHECK(mallopt(M_ARENA_MAX, 1) == 1);
    for (int i = 0; i <= n; i++) {
        struct library l;
        open_library(&l, argv[3]);
        use(&l, argv[1], i == 0 ? wanted : ids);
        CHECK(i == 0 || memcmp(ids, wanted, sizeof ids) == 0);
        CHECK(dlclose(l.handle) == 0);
        // By another thread, which ends behind it.
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, use_once, argv) == 0 && pthread_join(thread, NULL) == 0);
        if (i == n / 4)
            first = count();
    }
    last = count();
    // Memory may be torn differently; a leak of 4 KiB a cycle would be 1,200 KiB and more of 150 cycles of two.
    bool flat = last.resident_kib <= first.resident_kib + 512 && last.mapped_kib <= first.mapped_kib + 512
                && last.mappings <= first.mappings + 2 && last.threads == first.threads
                && last.descriptors == first.descriptors;
    if (!flat || argv[4][0] == '+') {
        fprintf(stderr, "KiB resident %ld, then %ld; mapped %ld, %ld; mappings %ld, %ld; threads %ld, %ld; descriptors %ld, %ld\n",
                first.resident_kib, last.resident_kib, first.mapped_kib, last.mapped_kib, first.mappings, last.mappings,
                first.threads, last.threads, first.descriptors, last.descriptors);
        exit(!flat);
    }
}

struct copy {
    const struct library *library;
    const char *model;
    uint32_t ids[N_IDS + 1];
    int n;
};

static void *use_often(void *user_data)
{
    struct copy *copy = user_data;
    uint32_t ids[N_IDS + 1];
    use(copy->library, copy->model, copy->ids);
    for (int i = 1; i < copy->n; i++) {
        use(copy->library, copy->model, ids);
        CHECK(memcmp(ids, copy->ids, sizeof ids) == 0);
    }
    return NULL;
}

static void copies(char **argv)
{
    struct library one, two;
    open_library(&one, argv[3]);
    open_library(&two, argv[4]);
    CHECK(*(void **)&one.engine_create != *(void **)&two.engine_create);
    struct copy a = {.library = &one, .model = argv[1], .n = 10}, b = {.library = &two, .model = argv[1], .n = 20};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, use_often, &b) == 0);
    use_often(&a);
    CHECK(dlclose(one.handle) == 0); // while the other works
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(memcmp(a.ids, b.ids, sizeof a.ids) == 0);
    CHECK(dlclose(two.handle) == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 5);
    if (strcmp(argv[2], "cycles") == 0)
        cycles(argv, abs(atoi(argv[4])));
    else
        copies(argv);
    return 0;
}
