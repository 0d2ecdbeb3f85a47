// Loads the library (argv[1]), uses it with a model (argv[2]) and closes it, many times, on threads that end and on one that goes
// on: it stays in memory and is the same copy each time, and nothing of what it took is left. Not linked with the library.
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <dlfcn.h>
#include <kigo.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                     \
    do {                                                                     \
        if (!(condition)) {                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

enum { ROUNDS = 30 };

static const char *library_path, *model_path, *file_name;
static void *library;

static void find(const char *name, void *function)
{
    void *found = dlsym(library, name);
    CHECK(found != NULL);
    memcpy(function, &found, sizeof found);
}

// Whether the library is in this process's memory.
static bool mapped(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4096];
    bool found = false;
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        found |= strstr(line, file_name) != NULL;
    fclose(maps);
    return found;
}

static long resident_pages(void)
{
    FILE *statm = fopen("/proc/self/statm", "r");
    long size, resident;
    CHECK(statm != NULL && fscanf(statm, "%ld %ld", &size, &resident) == 2);
    fclose(statm);
    return resident;
}

static int n_entries(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;
    CHECK(dir != NULL);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static void *use(void *user_data)
{
    (void)user_data;
    kigo_status (*engine_create)(const kigo_engine_options *, kigo_engine **);
    kigo_status (*load_file)(const kigo_engine *, const char *, size_t, const kigo_load_options *, kigo_model **);
    kigo_status (*session_create)(const kigo_model *, const kigo_session_options *, kigo_session **);
    kigo_status (*render)(const kigo_model *, const kigo_message *, size_t, uint64_t, uint32_t *, size_t, size_t *);
    kigo_status (*prefill)(kigo_session *, const uint32_t *, size_t);
    kigo_status (*generate)(kigo_session *, const kigo_generate_options *, kigo_generated *);
    void (*engine_destroy)(kigo_engine *), (*model_destroy)(kigo_model *), (*session_destroy)(kigo_session *);
    find("kigo_engine_create", &engine_create), find("kigo_engine_destroy", &engine_destroy);
    find("kigo_model_load_file", &load_file), find("kigo_model_destroy", &model_destroy);
    find("kigo_session_create", &session_create), find("kigo_session_destroy", &session_destroy);
    find("kigo_chat_render", &render), find("kigo_session_prefill", &prefill), find("kigo_session_generate", &generate);
    kigo_engine *engine;
    kigo_model *model;
    kigo_session *session;
    kigo_engine_options options = {.struct_size = sizeof options, .device = "cpu", .device_len = 3, .n_threads = 2};
    const kigo_message message = {"user", 4, "abc", 3};
    uint32_t ids[64];
    size_t n;
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = 4, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(engine_create(&options, &engine) == KIGO_STATUS_OK);
    CHECK(load_file(engine, model_path, KIGO_STRLEN, NULL, &model) == KIGO_STATUS_OK);
    CHECK(session_create(model, NULL, &session) == KIGO_STATUS_OK);
    CHECK(render(model, &message, 1, KIGO_CHAT_ADD_GENERATION_PROMPT, ids, 64, &n) == KIGO_STATUS_OK);
    CHECK(prefill(session, ids, n) == KIGO_STATUS_OK && generate(session, &how, &generated) == KIGO_STATUS_OK);
    CHECK(generated.n_tokens == 4);
    engine_destroy(engine);
    model_destroy(model);
    session_destroy(session);
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    library_path = argv[1], model_path = argv[2];
    file_name = strrchr(library_path, '/') + 1;
    CHECK(!mapped());
    long after_few = 0;
    void *first = NULL;
    int n_threads = n_entries("/proc/self/task"), n_files = n_entries("/proc/self/fd");
    for (int round = 0; round < ROUNDS; round++) {
        library = dlopen(library_path, RTLD_NOW | RTLD_LOCAL);
        CHECK(library != NULL && mapped());
        if (round == 0)
            first = dlsym(library, "kigo_version");
        CHECK(first != NULL && dlsym(library, "kigo_version") == first);
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, use, NULL) == 0 && pthread_join(thread, NULL) == 0);
        use(NULL);
        CHECK(dlclose(library) == 0 && mapped());
        CHECK(n_entries("/proc/self/task") == n_threads && n_entries("/proc/self/fd") == n_files);
        if (round == 4)
            after_few = resident_pages();
    }
    // A megabyte of slack for the allocator.
    CHECK(resident_pages() <= after_few + 256);
    return 0;
}
