// Kigo beside another engine of its kind: libllama (of llama-cpp-python's sources), both loaded while the program runs, on the
// same file, in both orders, with local and with global names, and at once from two threads.
//
//     beside MODEL LIBKIGO LIBLLAMA k|l[g]    which comes first; g: global names
//
// The tokens of both stay what they are, and Kigo's, which it prints, are those that it gives without the other.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <kigo.h>
#include <llama.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

#define N_PROMPT 8
#define N_TOKENS 24
static const uint32_t PROMPT[N_PROMPT] = {10, 200, 31, 44, 5, 61, 7, 8};

struct both {
    const char *model, *kigo_path, *llama_path;
    void *kigo, *llama;
};

#define KIGO(name) __typeof__(kigo_##name) *name = *(__typeof__(kigo_##name) **)(void *[]){dlsym(b->kigo, "kigo_" #name)}
#define LLAMA(name) __typeof__(llama_##name) *name = *(__typeof__(llama_##name) **)(void *[]){dlsym(b->llama, "llama_" #name)}

static void *open_one(const char *path, int mode)
{
    void *handle = dlopen(path, RTLD_NOW | mode);
    if (handle == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return handle;
}

static void generate_with_kigo(const struct both *b, uint32_t *ids)
{
    KIGO(engine_create);
    KIGO(engine_destroy);
    KIGO(model_load_file);
    KIGO(model_destroy);
    KIGO(session_create);
    KIGO(session_destroy);
    KIGO(session_prefill);
    KIGO(session_generate);
    KIGO(session_tokens);
    kigo_engine *engine;
    kigo_model *model;
    kigo_session *session;
    kigo_engine_options options = {.struct_size = sizeof options, .device = "cpu", .device_len = 3, .n_threads = 2};
    kigo_generate_options how = {.struct_size = sizeof how, .max_tokens = N_TOKENS, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated generated = {.struct_size = sizeof generated};
    uint32_t all[N_PROMPT + N_TOKENS];
    size_t n;
    CHECK(engine_create(&options, &engine) == KIGO_STATUS_OK);
    CHECK(model_load_file(engine, b->model, KIGO_STRLEN, NULL, &model) == KIGO_STATUS_OK);
    CHECK(session_create(model, NULL, &session) == KIGO_STATUS_OK);
    CHECK(session_prefill(session, PROMPT, N_PROMPT) == KIGO_STATUS_OK);
    CHECK(session_generate(session, &how, &generated) == KIGO_STATUS_OK && generated.n_tokens == N_TOKENS);
    CHECK(session_tokens(session, all, N_PROMPT + N_TOKENS, &n) == KIGO_STATUS_OK && n == N_PROMPT + N_TOKENS);
    memcpy(ids, all + N_PROMPT, N_TOKENS * sizeof *ids);
    session_destroy(session);
    model_destroy(model);
    engine_destroy(engine);
}

static void say_nothing(enum ggml_log_level level, const char *text, void *user_data)
{
    (void)level, (void)text, (void)user_data;
}

// The likeliest tokens, one after the other.
static void generate_with_llama(const struct both *b, int32_t *ids)
{
    LLAMA(log_set);
    LLAMA(backend_init);
    LLAMA(model_default_params);
    LLAMA(context_default_params);
    LLAMA(model_load_from_file);
    LLAMA(model_get_vocab);
    LLAMA(vocab_n_tokens);
    LLAMA(init_from_model);
    LLAMA(batch_get_one);
    LLAMA(decode);
    LLAMA(get_logits_ith);
    __typeof__(llama_free) *end = *(__typeof__(llama_free) **)(void *[]){dlsym(b->llama, "llama_free")};
    LLAMA(model_free);
    log_set(say_nothing, NULL);
    backend_init();
    struct llama_model *model = model_load_from_file(b->model, model_default_params());
    CHECK(model != NULL);
    struct llama_context_params params = context_default_params();
    params.n_ctx = 256, params.n_threads = params.n_threads_batch = 2;
    struct llama_context *context = init_from_model(model, params);
    CHECK(context != NULL);
    int32_t n_vocab = vocab_n_tokens(model_get_vocab(model)), next[N_PROMPT], n = N_PROMPT;
    for (int i = 0; i < N_PROMPT; i++)
        next[i] = (int32_t)PROMPT[i];
    for (int i = 0; i < N_TOKENS; i++) {
        CHECK(decode(context, batch_get_one(next, n)) == 0);
        const float *logits = get_logits_ith(context, -1);
        int32_t best = 0;
        for (int32_t t = 1; t < n_vocab; t++)
            best = logits[t] > logits[best] ? t : best;
        ids[i] = next[0] = best;
        n = 1;
    }
    end(context);
    model_free(model);
}

static uint32_t wanted[N_TOKENS];
static int32_t wanted_of_llama[N_TOKENS];

static void *kigo_again(void *user_data)
{
    uint32_t ids[N_TOKENS];
    for (int i = 0; i < 3; i++) {
        generate_with_kigo(user_data, ids);
        CHECK(memcmp(ids, wanted, sizeof ids) == 0);
    }
    return NULL;
}

static void *llama_again(void *user_data)
{
    int32_t ids[N_TOKENS];
    for (int i = 0; i < 3; i++) {
        generate_with_llama(user_data, ids);
        CHECK(memcmp(ids, wanted_of_llama, sizeof ids) == 0);
    }
    return NULL;
}

// One after the other, then both at once.
static void all(const struct both *b)
{
    uint32_t ids[N_TOKENS];
    int32_t ids_of_llama[N_TOKENS];
    for (int i = 0; i < 2; i++) {
        generate_with_kigo(b, ids);
        generate_with_llama(b, ids_of_llama);
        CHECK(memcmp(ids, wanted, sizeof ids) == 0 && memcmp(ids_of_llama, wanted_of_llama, sizeof ids_of_llama) == 0);
    }
    pthread_t threads[2];
    CHECK(pthread_create(&threads[0], NULL, kigo_again, (void *)(uintptr_t)b) == 0);
    CHECK(pthread_create(&threads[1], NULL, llama_again, (void *)(uintptr_t)b) == 0);
    CHECK(pthread_join(threads[0], NULL) == 0 && pthread_join(threads[1], NULL) == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 5);
    struct both b = {argv[1], argv[2], argv[3], NULL, NULL};
    bool kigo_first = strchr(argv[4], 'k') != NULL;
    int mode = strchr(argv[4], 'g') != NULL ? RTLD_GLOBAL : RTLD_LOCAL;
    if (kigo_first) {
        b.kigo = open_one(b.kigo_path, mode);
        generate_with_kigo(&b, wanted);
        b.llama = open_one(b.llama_path, mode);
        generate_with_llama(&b, wanted_of_llama);
    } else {
        b.llama = open_one(b.llama_path, mode);
        generate_with_llama(&b, wanted_of_llama);
        b.kigo = open_one(b.kigo_path, mode);
        generate_with_kigo(&b, wanted);
    }
    all(&b);
    // Whichever goes first leaves the other as it is.
    uint32_t ids[N_TOKENS];
    CHECK(dlclose(kigo_first ? b.kigo : b.llama) == 0);
    if (!kigo_first) {
        generate_with_kigo(&b, ids);
        CHECK(memcmp(ids, wanted, sizeof ids) == 0);
        CHECK(dlclose(b.kigo) == 0);
    } else {
        int32_t ids_of_llama[N_TOKENS];
        generate_with_llama(&b, ids_of_llama);
        CHECK(memcmp(ids_of_llama, wanted_of_llama, sizeof ids_of_llama) == 0);
        CHECK(dlclose(b.llama) == 0);
    }
    for (int i = 0; i < N_TOKENS; i++)
        printf("%s%u", i > 0 ? " " : "", wanted[i]);
    printf("\n");
    return 0;
}
