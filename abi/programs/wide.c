// A program of a user's that calls what 0.2.0 added or changed: plans, layers, vocabularies, taps, logs, errors of handles, batches.
// Built once for each release from 0.2.0 on and kept as it was (abi/<release>/wide), to be run with every later library; so it takes
// what it does not know for something else.
//
//     wide MODEL     0: it worked; 3: the library has another ABI; 1: something failed
#include <kigo.h>
#include <stdio.h>
#include <string.h>

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, kigo_last_error());      \
            return 1;                                                                           \
        }                                                                                       \
    } while (0)

static int32_t log_line(const kigo_log_event *event, void *user_data)
{
    *(size_t *)user_data += event->text[event->text_len] == 0;
    return 0;
}

static int32_t see(const kigo_tap_event *event, void *user_data)
{
    size_t *n_floats = user_data;
    if (event->struct_size >= sizeof *event && event->element_type == KIGO_TAP_TYPE_F32)
        *n_floats += event->n_rows * event->n_cols;
    return 0;
}

int main(int argc, char **argv)
{
    if (kigo_abi_version() != KIGO_ABI_VERSION) {
        fprintf(stderr, "kigo %s has ABI %u; made for %u\n", kigo_version(), (unsigned)kigo_abi_version(), (unsigned)KIGO_ABI_VERSION);
        return 3;
    }
    if (argc != 2)
        return 2;
    size_t n_lines = 0, n_floats = 0, n;
    kigo_engine *engine;
    kigo_model *model, *words;
    kigo_session *sessions[2];
    kigo_engine_options how = {.struct_size = sizeof how, .device = "cpu", .device_len = 3, .log = log_line, .log_user_data = &n_lines};
    how.n_threads = 1;
    CHECK(kigo_engine_create(&how, &engine) == KIGO_STATUS_OK && n_lines > 0);
    kigo_plan_options length = {.struct_size = sizeof length, .n_tokens = 65};
    kigo_plan plan = {.struct_size = sizeof plan};
    CHECK(kigo_model_plan(engine, argv[1], KIGO_STRLEN, &length, &plan) == KIGO_STATUS_OK && plan.n_tokens == 65);
    kigo_load_options only_words = {.struct_size = sizeof only_words, .flags = KIGO_LOAD_VOCABULARY};
    CHECK(kigo_model_load_file(engine, argv[1], KIGO_STRLEN, &only_words, &words) == KIGO_STATUS_OK);
    CHECK(kigo_model_load_file(engine, argv[1], KIGO_STRLEN, NULL, &model) == KIGO_STATUS_OK);
    kigo_model_facts facts = {.struct_size = sizeof facts}, bare = {.struct_size = sizeof bare};
    CHECK(kigo_model_info(model, &facts) == KIGO_STATUS_OK && kigo_model_info(words, &bare) == KIGO_STATUS_OK);
    CHECK((facts.flags & KIGO_MODEL_HAS_WEIGHTS) != 0 && (bare.flags & KIGO_MODEL_HAS_WEIGHTS) == 0);
    CHECK(facts.n_vocab == bare.n_vocab && facts.weights_bytes == plan.weights_bytes);
    uint64_t bytes = 0;
    CHECK(kigo_model_cache_bytes(model, 65, &bytes) == KIGO_STATUS_OK && bytes == plan.cache_bytes);
    kigo_layer_facts layer = {.struct_size = sizeof layer};
    for (size_t i = 0; i < facts.n_layers; i++)
        CHECK(kigo_model_layer_info(model, i, &layer) == KIGO_STATUS_OK && layer.n_heads > 0 && layer.kv_layer <= i);
    for (size_t i = 0; i < 2; i++)
        CHECK(kigo_session_create(model, NULL, &sessions[i]) == KIGO_STATUS_OK);
    const uint32_t taps[] = {KIGO_TAP_RESID, KIGO_TAP_LOGITS};
    kigo_tap_options tap = {.struct_size = sizeof tap, .taps = taps, .n_taps = 2, .callback = see, .user_data = &n_floats};
    CHECK(kigo_session_set_tap(sessions[0], &tap) == KIGO_STATUS_OK && strcmp(kigo_tap_name(KIGO_TAP_RESID), "resid") == 0);
    const uint32_t ids[] = {1, 2, 3}, *const both[] = {ids, ids};
    const size_t n_ids[] = {3, 3};
    kigo_status statuses[2];
    CHECK(kigo_prefill_batch(sessions, both, n_ids, 2, statuses) == KIGO_STATUS_OK);
    CHECK(n_floats == 3 * facts.n_layers * facts.n_embd + facts.n_vocab);
    uint32_t tokens[2];
    CHECK(kigo_sample_batch(sessions, 2, tokens, statuses) == KIGO_STATUS_OK && tokens[0] == tokens[1]);
    kigo_cache_facts cache = {.struct_size = sizeof cache};
    CHECK(kigo_model_cache_info(model, &cache) == KIGO_STATUS_OK && cache.used_bytes > 0 && cache.n_pages_used > 0);
    char text[1024];
    const uint32_t none = facts.n_vocab;
    CHECK(kigo_session_prefill(sessions[1], &none, 1) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_session_last_error(sessions[1], text, sizeof text, &n) == KIGO_STATUS_OK && strcmp(text, kigo_last_error()) == 0);
    CHECK(kigo_session_last_error(sessions[0], text, sizeof text, &n) == KIGO_STATUS_OK && n == 0);
    CHECK(kigo_model_last_error(model, text, sizeof text, &n) == KIGO_STATUS_OK && n == 0);
    CHECK(kigo_engine_last_error(engine, text, sizeof text, &n) == KIGO_STATUS_OK && n == 0);
    for (size_t i = 0; i < 2; i++)
        kigo_session_destroy(sessions[i]);
    kigo_model_destroy(words);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    printf("kigo %s: %u layers\n", kigo_version(), (unsigned)facts.n_layers);
    return 0;
}
