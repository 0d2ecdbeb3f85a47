// What the programs share: checked calls, arguments, time, JSON. Include it first.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_COMMON_H
#define KIGO_EXAMPLES_COMMON_H

#define _POSIX_C_SOURCE 200809L

#include "kigo.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Ends the program with status 1 and the library's own text if a call failed.
#define CHECK(call) check_status((call), #call)

static inline void check_status(kigo_status status, const char *call)
{
    if (status == KIGO_STATUS_OK)
        return;
    fprintf(stderr, "%.*s: %s: %s\n", (int)strcspn(call, "("), call, kigo_status_name(status), kigo_last_error());
    exit(1);
}

static inline void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

// realloc that cannot fail.
static inline void *resize(void *memory, size_t n_bytes)
{
    void *resized = realloc(memory, n_bytes != 0 ? n_bytes : 1);
    if (resized == NULL)
        fail("memory", strerror(errno));
    return resized;
}

static inline double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---- Arguments: what is wrong with them ends the program with status 2 and its usage.

// Each program defines its own.
static const char *const USAGE;

static inline void bad_usage(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n%s", what, why, USAGE);
    exit(2);
}

// The value behind the option argv[*i].
static inline const char *value_of(int argc, char **argv, int *i)
{
    if (*i + 1 >= argc)
        bad_usage(argv[*i], "needs a value");
    return argv[++*i];
}

// The same, as a whole number from 0 to `most`.
static inline uint64_t whole_of(int argc, char **argv, int *i, uint64_t most)
{
    const char *option = argv[*i], *text = value_of(argc, argv, i);
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || n > most)
        bad_usage(option, "needs a whole number within its range");
    return n;
}

// The same, as a finite number that is not negative.
static inline float float_of(int argc, char **argv, int *i)
{
    const char *option = argv[*i], *text = value_of(argc, argv, i);
    char *end;
    float x = strtof(text, &end);
    if (end == text || *end != '\0' || !isfinite(x) || x < 0)
        bad_usage(option, "needs a number that is not negative");
    return x;
}

// Which model on which device, and how tokens are chosen: options of several programs.
typedef struct setup {
    const char *path, *device;
    uint32_t n_threads;
    uint64_t cache_bytes, load_flags;
    kigo_sampling sampling;
} setup;

#define SETUP_USAGE "-m FILE [--device auto|cpu|cuda:N] [-t N] [--cache BYTES] [--strict]"
#define SAMPLING_USAGE "[--temp F] [--top-k N] [--top-p F] [--min-p F] [--seed N]"

// 1 if argv[*i] is one of them; it and its value have been read then.
static inline int read_setup(setup *s, int argc, char **argv, int *i)
{
    const char *option = argv[*i];
    if (strcmp(option, "-m") == 0)
        s->path = value_of(argc, argv, i);
    else if (strcmp(option, "--device") == 0)
        s->device = value_of(argc, argv, i);
    else if (strcmp(option, "-t") == 0)
        s->n_threads = (uint32_t)whole_of(argc, argv, i, 1024);
    else if (strcmp(option, "--cache") == 0)
        s->cache_bytes = whole_of(argc, argv, i, UINT64_MAX);
    else if (strcmp(option, "--strict") == 0) // the same bits however prompts are cut into calls
        s->load_flags |= KIGO_LOAD_STRICT;
    else
        return 0;
    return 1;
}

static inline int read_sampling(kigo_sampling *s, int argc, char **argv, int *i)
{
    const char *option = argv[*i];
    if (strcmp(option, "--temp") == 0)
        s->temperature = float_of(argc, argv, i);
    else if (strcmp(option, "--top-k") == 0)
        s->top_k = (uint32_t)whole_of(argc, argv, i, UINT32_MAX);
    else if (strcmp(option, "--top-p") == 0)
        s->top_p = float_of(argc, argv, i);
    else if (strcmp(option, "--min-p") == 0)
        s->min_p = float_of(argc, argv, i);
    else if (strcmp(option, "--seed") == 0)
        s->seed = whole_of(argc, argv, i, UINT64_MAX);
    else
        return 0;
    return 1;
}

static inline void open_model(const setup *s, kigo_progress_callback progress, kigo_engine **engine, kigo_model **model)
{
    if (s->path == NULL)
        bad_usage("-m", "is missing");
    if (kigo_abi_version() != KIGO_ABI_VERSION)
        fail("libkigo", "is of another ABI than this program");
    kigo_engine_options options = {.struct_size = sizeof options, .n_threads = s->n_threads};
    options.device = s->device;
    options.device_len = s->device != NULL ? KIGO_STRLEN : 0;
    kigo_load_options load = {.struct_size = sizeof load, .progress = progress, .cache_bytes = s->cache_bytes};
    load.flags = s->load_flags;
    CHECK(kigo_engine_create(&options, engine));
    CHECK(kigo_model_load_file(*engine, s->path, KIGO_STRLEN, &load, model));
}

// The ids of a prompt, or of a user's message as the model's chat template renders it; to be freed.
static inline uint32_t *tokenize(const kigo_model *model, kigo_string prompt, int chat, uint64_t flags, size_t *n_ids)
{
    kigo_message message = {"user", 4, prompt.data, prompt.len};
    uint64_t chat_flags = KIGO_CHAT_ADD_GENERATION_PROMPT;
    if (chat)
        CHECK(kigo_chat_render(model, &message, 1, chat_flags, NULL, 0, n_ids));
    else
        CHECK(kigo_tokenize(model, prompt.data, prompt.len, flags, NULL, 0, n_ids));
    size_t capacity = *n_ids;
    uint32_t *ids = resize(NULL, capacity * sizeof *ids);
    if (chat)
        CHECK(kigo_chat_render(model, &message, 1, chat_flags, ids, capacity, n_ids));
    else
        CHECK(kigo_tokenize(model, prompt.data, prompt.len, flags, ids, capacity, n_ids));
    return ids;
}

// ---- A text that grows.

typedef struct text {
    char *data; // `len` bytes and a NUL; NULL while it is empty
    size_t len;
} text;

static inline void text_append(text *t, const char *data, size_t len)
{
    t->data = resize(t->data, t->len + len + 1);
    if (len != 0)
        memcpy(t->data + t->len, data, len);
    t->len += len;
    t->data[t->len] = '\0';
}

// All of a file; "-" is standard input.
static inline text read_file(const char *path)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (file == NULL)
        fail(path, strerror(errno));
    text t = {NULL, 0};
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, file)) != 0;)
        text_append(&t, chunk, n);
    if (ferror(file))
        fail(path, strerror(errno));
    if (file != stdin)
        fclose(file);
    return t;
}

// ---- JSON.

// Prints UTF-8 as a JSON string.
static inline void json_string(const char *data, size_t len)
{
    putchar('"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)data[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

// Prints a number with the digits that a float needs; null if it is none.
static inline void json_number(double x)
{
    if (isfinite(x))
        printf("%.9g", x);
    else
        printf("null");
}

static inline void json_ids(const char *key, const uint32_t *ids, size_t n_ids)
{
    printf("\"%s\": [", key);
    for (size_t i = 0; i < n_ids; i++)
        printf("%s%lu", i == 0 ? "" : ", ", (unsigned long)ids[i]);
    printf("], ");
}

// ---- Standard output, which may be a full disk.

// errno of the first flush that failed, before anything else changes it.
static int output_error;

// 1 once something could not be written.
static inline int flush_output(void)
{
    if (fflush(stdout) != 0 && output_error == 0)
        output_error = errno;
    return ferror(stdout) != 0 || output_error != 0;
}

// What cannot be written is an error too. Ends main().
static inline int finish_output(void)
{
    if (flush_output())
        fail("standard output", output_error != 0 ? strerror(output_error) : "could not be written");
    return 0;
}

#endif // KIGO_EXAMPLES_COMMON_H
