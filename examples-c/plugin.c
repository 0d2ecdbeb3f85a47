// Uses the library without being linked with it: opens it, finds every function by name, generates, closes it; twice.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#define _POSIX_C_SOURCE 200809L

#include "kigo.h" // types and constants; nothing declared here is called by its name

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The functions in use.
#define EACH(X)                                                                                                        \
    X(kigo_abi_version) X(kigo_version) X(kigo_status_name) X(kigo_last_error)                                         \
    X(kigo_engine_create) X(kigo_engine_destroy) X(kigo_model_load_file) X(kigo_model_destroy) X(kigo_tokenize)        \
    X(kigo_detokenize) X(kigo_session_create) X(kigo_session_destroy) X(kigo_session_prefill) X(kigo_session_step)     \
    X(kigo_session_sample)

#define DECLARE(name) __typeof__(name) *name;
static struct {
    EACH(DECLARE)
} api;

#define CHECK(call) check((call), #call)

static void check(kigo_status status, const char *call)
{
    if (status == KIGO_STATUS_OK)
        return;
    fprintf(stderr, "%.*s: %s: %s\n", (int)strcspn(call, "("), call, api.kigo_status_name(status), api.kigo_last_error());
    exit(1);
}

static void *resolve(void *library, const char *name)
{
    void *address = dlsym(library, name);
    if (address == NULL) {
        fprintf(stderr, "dlsym: %s\n", dlerror());
        exit(1);
    }
    return address;
}

// Greedy text behind a prompt, written to `out`.
static void generate(const char *model_path, char *out, size_t capacity)
{
    kigo_engine *engine;
    kigo_model *model;
    kigo_session *session;
    uint32_t ids[64];
    size_t n_ids, needed;
    CHECK(api.kigo_engine_create(NULL, &engine));
    CHECK(api.kigo_model_load_file(engine, model_path, KIGO_STRLEN, NULL, &model));
    CHECK(api.kigo_session_create(model, NULL, &session));
    // Children keep what they need: the order does not matter.
    api.kigo_engine_destroy(engine);
    CHECK(api.kigo_tokenize(model, "Once upon a time", KIGO_STRLEN, KIGO_TOKENIZE_ADD_SPECIAL, ids, 32, &n_ids));
    CHECK(api.kigo_session_prefill(session, ids, n_ids));
    for (size_t end = n_ids + 16; n_ids < end; n_ids++) {
        CHECK(api.kigo_session_sample(session, &ids[n_ids]));
        CHECK(api.kigo_session_step(session, ids[n_ids]));
    }
    CHECK(api.kigo_detokenize(model, ids, n_ids, 0, out, capacity, &needed));
    api.kigo_model_destroy(model);
    api.kigo_session_destroy(session);
}

int main(int argc, char **argv)
{
    static const char USAGE[] = "usage: plugin LIB -m FILE\n  LIB  the library, such as build/libkigo.so\n";
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(USAGE, stdout);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("plugin (kigo) %d.%d.%d\n", KIGO_VERSION_MAJOR, KIGO_VERSION_MINOR, KIGO_VERSION_PATCH);
        return 0;
    }
    if (argc != 4 || strcmp(argv[2], "-m") != 0) {
        fputs(USAGE, stderr);
        return 2;
    }
    char texts[2][4096];
    for (int round = 0; round < 2; round++) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL), *address;
        if (library == NULL) {
            fprintf(stderr, "dlopen: %s\n", dlerror());
            return 1;
        }
#define RESOLVE(name)                                                                                                  \
    address = resolve(library, #name);                                                                                 \
    memcpy(&api.name, &address, sizeof address); // C has no cast from data to function pointers
        EACH(RESOLVE)
        if (api.kigo_abi_version() != KIGO_ABI_VERSION) {
            fprintf(stderr, "%s: ABI %u, not %u\n", argv[1], (unsigned)api.kigo_abi_version(), (unsigned)KIGO_ABI_VERSION);
            return 1;
        }
        generate(argv[3], texts[round], sizeof texts[round]);
        printf("%d: kigo %s: %s\n", round + 1, api.kigo_version(), texts[round]);
        memset(&api, 0, sizeof api);
        if (dlclose(library) != 0) {
            fprintf(stderr, "dlclose: %s\n", dlerror());
            return 1;
        }
    }
    if (strcmp(texts[0], texts[1]) != 0) {
        fprintf(stderr, "the two texts differ\n");
        return 1;
    }
    return fflush(stdout) != 0;
}
