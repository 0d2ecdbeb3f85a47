// Models without weights: argv[1] is a whole model, argv[2] its vocabulary alone, of an architecture that the library does not
// know. Both load with KIGO_LOAD_VOCABULARY and tokenize as the whole one does; what needs weights says so.
#include "check.h"

static const char NO_WEIGHTS[] = "needs weights; the model was loaded with KIGO_LOAD_VOCABULARY";

static void same_text(const kigo_model *a, const kigo_model *b)
{
    static const char *const texts[] = {"", "abc def", "One, two\n\nthree.", "\xc3\xa4\xe2\x82\xac"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        uint32_t x[64], y[64];
        size_t n, m;
        CHECK(kigo_tokenize(a, texts[i], KIGO_STRLEN, KIGO_TOKENIZE_ADD_SPECIAL, x, 64, &n) == KIGO_STATUS_OK);
        CHECK(kigo_tokenize(b, texts[i], KIGO_STRLEN, KIGO_TOKENIZE_ADD_SPECIAL, y, 64, &m) == KIGO_STATUS_OK);
        CHECK(n == m && memcmp(x, y, n * sizeof *x) == 0);
        char text[64];
        CHECK(kigo_detokenize(b, y, m, 0, text, sizeof text, &n) == KIGO_STATUS_OK && strcmp(text, texts[i]) == 0);
    }
    const kigo_message message = {"user", KIGO_STRLEN, "abc", KIGO_STRLEN};
    uint32_t x[256], y[256];
    size_t n, m;
    CHECK(kigo_chat_render(a, &message, 1, 0, x, 256, &n) == KIGO_STATUS_OK);
    CHECK(kigo_chat_render(b, &message, 1, 0, y, 256, &m) == KIGO_STATUS_OK);
    CHECK(n == m && n > 0 && memcmp(x, y, n * sizeof *x) == 0);
}

static void only_a_vocabulary(const kigo_engine *engine, const kigo_model *model, const char *path)
{
    kigo_model_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_info(model, &facts) == KIGO_STATUS_OK);
    CHECK((facts.flags & (KIGO_MODEL_HAS_WEIGHTS | KIGO_MODEL_HAS_LOGITS)) == 0);
    CHECK(facts.n_vocab == 512 && facts.n_meta > 5 && facts.file_bytes > 0);
    CHECK(facts.weights_bytes == 0 && facts.n_layers == 0 && facts.n_ctx_train == 0 && facts.n_embd == 0);
    kigo_engine_facts held = {.struct_size = sizeof held};
    CHECK(kigo_engine_info(engine, &held) == KIGO_STATUS_OK && held.memory_used_bytes == 0);

    const uint32_t ids[] = {1, 2};
    float floats[64];
    size_t n;
    uint64_t bytes = 1;
    kigo_session *session = (kigo_session *)(void *)&n;
    CHECK(kigo_session_create(model, NULL, &session) == KIGO_STATUS_INVALID_STATE && session == NULL);
    CHECK(strcmp(kigo_last_error(), NO_WEIGHTS) == 0);
    CHECK(kigo_session_restore(model, ids, sizeof ids, &session) == KIGO_STATUS_INVALID_STATE && session == NULL);
    CHECK(strcmp(kigo_last_error(), NO_WEIGHTS) == 0);
    CHECK(kigo_model_embed(model, ids, 2, NULL, floats, 64, &n) == KIGO_STATUS_INVALID_STATE);
    CHECK(strcmp(kigo_last_error(), NO_WEIGHTS) == 0);
    CHECK(kigo_model_cache_bytes(model, 0, &bytes) == KIGO_STATUS_OK && bytes == 0);
    CHECK(kigo_model_cache_bytes(model, 1, &bytes) == KIGO_STATUS_INVALID_ARGUMENT);
    kigo_layer_facts layer = {.struct_size = sizeof layer};
    CHECK(kigo_model_layer_info(model, 0, &layer) == KIGO_STATUS_INVALID_ARGUMENT);
    kigo_cache_facts cache = {.struct_size = sizeof cache};
    CHECK(kigo_model_cache_info(model, &cache) == KIGO_STATUS_OK && cache.used_bytes == 0);

    kigo_plan_options options = {.struct_size = sizeof options, .flags = KIGO_LOAD_VOCABULARY};
    kigo_plan plan = {.struct_size = sizeof plan, .weights_bytes = 1};
    CHECK(kigo_model_plan(engine, path, KIGO_STRLEN, &options, &plan) == KIGO_STATUS_OK);
    CHECK(plan.weights_bytes == 0 && plan.cache_bytes == 0 && plan.scratch_bytes == 0);

    // Texts in pieces need no weights either.
    kigo_stream *stream;
    kigo_stream_text out = {.struct_size = sizeof out};
    CHECK(kigo_stream_create(model, NULL, &stream) == KIGO_STATUS_OK);
    CHECK(kigo_stream_push(stream, 100, &out) == KIGO_STATUS_OK && kigo_stream_push(stream, 512, &out) != KIGO_STATUS_OK);
    kigo_stream_destroy(stream);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    kigo_engine *engine = open_engine();
    kigo_load_options options = {.struct_size = sizeof options, .flags = KIGO_LOAD_VOCABULARY};
    kigo_model *models[3];
    for (size_t i = 0; i < 2; i++) {
        CHECK(kigo_model_load_file(engine, argv[1 + i], KIGO_STRLEN, &options, &models[i]) == KIGO_STATUS_OK);
        only_a_vocabulary(engine, models[i], argv[1 + i]);
    }
    char name[32];
    size_t n;
    CHECK(kigo_model_architecture(models[1], name, sizeof name, &n) == KIGO_STATUS_OK && strcmp(name, "unheard-of") == 0);

    // Without the flag a vocabulary is refused for what it is.
    CHECK(kigo_model_load_file(engine, argv[2], KIGO_STRLEN, NULL, &models[2]) == KIGO_STATUS_INVALID_MODEL);
    CHECK(strcmp(kigo_last_error(), "number of tensors is 0; expected weights, or KIGO_LOAD_VOCABULARY") == 0);
    kigo_plan plan = {.struct_size = sizeof plan};
    CHECK(kigo_model_plan(engine, argv[2], KIGO_STRLEN, NULL, &plan) == KIGO_STATUS_INVALID_MODEL);

    size_t n_bytes;
    unsigned char *bytes = read_file(argv[2], &n_bytes);
    CHECK(kigo_model_load_memory(engine, bytes, n_bytes, &options, &models[2]) == KIGO_STATUS_OK);
    free(bytes);
    kigo_model *whole = open_model(engine, argv[1]);
    kigo_model_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_info(whole, &facts) == KIGO_STATUS_OK);
    CHECK((facts.flags & KIGO_MODEL_HAS_WEIGHTS) != 0 && (facts.flags & KIGO_MODEL_HAS_LOGITS) != 0);
    for (size_t i = 0; i < 3; i++) {
        same_text(whole, models[i]);
        kigo_model_destroy(models[i]);
    }
    kigo_model_destroy(whole);
    kigo_engine_destroy(engine);
    return 0;
}
