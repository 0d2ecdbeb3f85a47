// The one macro of the C tests, and what several of them share.
#ifndef CHECK_H
#define CHECK_H

#include <kigo.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Ends the program where a condition does not hold, with the place and the library's last error.
#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\nlast error: %s\n", __FILE__, __LINE__, #condition, kigo_last_error()); \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

// An engine with two threads on the CPU, or on the device that KIGO_DEVICE names.
static inline kigo_engine *open_engine(void)
{
    const char *device = getenv("KIGO_DEVICE");
    kigo_engine_options options = {.struct_size = sizeof options, .n_threads = 2};
    options.device = device != NULL ? device : "cpu";
    options.device_len = KIGO_STRLEN;
    kigo_engine *engine;
    CHECK(kigo_engine_create(&options, &engine) == KIGO_STATUS_OK);
    return engine;
}

static inline kigo_model *open_model(const kigo_engine *engine, const char *path)
{
    kigo_model *model;
    CHECK(kigo_model_load_file(engine, path, KIGO_STRLEN, NULL, &model) == KIGO_STATUS_OK);
    return model;
}

// A session that holds nothing.
static inline kigo_session *empty_session(const kigo_model *model)
{
    kigo_session *session;
    CHECK(kigo_session_create(model, NULL, &session) == KIGO_STATUS_OK);
    return session;
}

// A session that holds three tokens.
static inline kigo_session *open_session(const kigo_model *model)
{
    static const uint32_t ids[3] = {10, 20, 30};
    kigo_session *session = empty_session(model);
    CHECK(kigo_session_prefill(session, ids, 3) == KIGO_STATUS_OK);
    return session;
}

// Both have the same logits to the bit, of a vocabulary of 512 tokens.
static inline void same_logits(kigo_session *a, kigo_session *b)
{
    float x[512], y[512];
    size_t n;
    CHECK(kigo_session_logits(a, x, 512, &n) == KIGO_STATUS_OK && n == 512);
    CHECK(kigo_session_logits(b, y, 512, &n) == KIGO_STATUS_OK && n == 512 && memcmp(x, y, sizeof x) == 0);
}

// A whole file in memory.
static inline unsigned char *read_file(const char *path, size_t *n_bytes)
{
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    *n_bytes = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*n_bytes);
    CHECK(bytes != NULL && fread(bytes, 1, *n_bytes, file) == *n_bytes);
    fclose(file);
    return bytes;
}

// Runs on a thread whose stack is so large.
static inline void on_stack(size_t kib, void *(*body)(void *), void *user_data)
{
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, kib << 10) == 0);
    CHECK(pthread_create(&thread, &attributes, body, user_data) == 0 && pthread_join(thread, NULL) == 0);
    pthread_attr_destroy(&attributes);
}

#endif // CHECK_H
