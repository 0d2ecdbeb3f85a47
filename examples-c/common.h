// What the programs share: checked calls, arguments, time, JSON. Include it first.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_COMMON_H
#define KIGO_EXAMPLES_COMMON_H

#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE // the size of a terminal

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

// What is no option of the program: --help and --version are answered, on standard output and with status 0.
static inline void unknown_option(const char *option)
{
    if (strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0) {
        fputs(USAGE, stdout);
        exit(fflush(stdout) != 0);
    }
    if (strcmp(option, "--version") == 0) {
        const char *name = USAGE + strlen("usage: "); // which every usage begins with, and goes on with the program's name
        printf("%.*s (kigo) %s\n", (int)strcspn(name, " \n"), name, kigo_version());
        exit(fflush(stdout) != 0);
    }
    bad_usage(option, "is not an option");
}

// The value behind the option argv[*i].
static inline const char *value_of(int argc, char **argv, int *i)
{
    if (*i + 1 >= argc)
        bad_usage(argv[*i], "needs a value");
    return argv[++*i];
}

// The same, as a whole number of a range.
static inline uint64_t whole_from(int argc, char **argv, int *i, uint64_t least, uint64_t most)
{
    const char *option = argv[*i], *text = value_of(argc, argv, i);
    char *end, why[160];
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (*text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && n >= least && n <= most)
        return n;
    snprintf(why, sizeof why, "needs a whole number from %llu to %llu, not %.60s", (unsigned long long)least,
             (unsigned long long)most, text);
    bad_usage(option, why);
    return 0;
}

// The same, from 0 to `most`.
static inline uint64_t whole_of(int argc, char **argv, int *i, uint64_t most)
{
    return whole_from(argc, argv, i, 0, most);
}

// The same, as a number of a range.
static inline float float_of(int argc, char **argv, int *i, double least, double most)
{
    const char *option = argv[*i], *text = value_of(argc, argv, i);
    char *end, why[160];
    double x = strtod(text, &end);
    if (end != text && *end == '\0' && x >= least && x <= most)
        return (float)x;
    snprintf(why, sizeof why, "needs a number from %g to %g, not %.60s", least, most, text);
    bad_usage(option, why);
    return 0;
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
        s->temperature = float_of(argc, argv, i, 0, 10000);
    else if (strcmp(option, "--top-k") == 0)
        s->top_k = (uint32_t)whole_of(argc, argv, i, UINT32_MAX);
    else if (strcmp(option, "--top-p") == 0)
        s->top_p = float_of(argc, argv, i, 0, 1);
    else if (strcmp(option, "--min-p") == 0)
        s->min_p = float_of(argc, argv, i, 0, 1);
    else if (strcmp(option, "--seed") == 0)
        s->seed = whole_of(argc, argv, i, UINT64_MAX);
    else
        return 0;
    return 1;
}

// Set by a signal handler: a load ends.
static volatile sig_atomic_t interrupted;

// A bar, in a terminal.
static inline int32_t show_loading(uint64_t done_bytes, uint64_t total_bytes, void *user_data)
{
    (void)user_data;
    static const char BAR[] = "########################################";
    int width = (int)sizeof BAR - 1;
    double share = total_bytes != 0 ? (double)done_bytes / (double)total_bytes : 1;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\rloading [%-*.*s] %3.0f%%", width, (int)(share * width), BAR, share * 100);
    return interrupted;
}

static inline void open_model(const setup *s, kigo_engine **engine, kigo_model **model)
{
    if (s->path == NULL)
        bad_usage("-m", "is missing");
    if (kigo_abi_version() != KIGO_ABI_VERSION)
        fail("libkigo", "is of another ABI than this program");
    kigo_engine_options options = {.struct_size = sizeof options, .n_threads = s->n_threads};
    options.device = s->device;
    options.device_len = s->device != NULL ? KIGO_STRLEN : 0;
    kigo_load_options load = {.struct_size = sizeof load, .progress = show_loading, .cache_bytes = s->cache_bytes};
    load.flags = s->load_flags;
    CHECK(kigo_engine_create(&options, engine));
    kigo_status loaded = kigo_model_load_file(*engine, s->path, KIGO_STRLEN, &load, model);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%60s\r", ""); // the bar has been shown
    check_status(loaded, "kigo_model_load_file(");
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

// What is left of a file behind a text; 0: it cannot be read, and errno says why.
static inline int read_rest(FILE *file, text *t)
{
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, file)) != 0;)
        text_append(t, chunk, n);
    return !ferror(file);
}

// All of a file; "-" is standard input.
static inline text read_file(const char *path)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (file == NULL)
        fail(path, strerror(errno));
    text t = {NULL, 0};
    if (!read_rest(file, &t))
        fail(path, strerror(errno));
    if (file != stdin)
        fclose(file);
    return t;
}

// ---- JSON.

// Writes UTF-8 as a JSON string.
static inline void write_json_string(FILE *file, const char *data, size_t len)
{
    putc('"', file);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)data[i];
        if (c == '"' || c == '\\')
            fprintf(file, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(file, "\\u%04x", c);
        else
            putc(c, file);
    }
    putc('"', file);
}

// The same, on standard output.
static inline void json_string(const char *data, size_t len)
{
    write_json_string(stdout, data, len);
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
