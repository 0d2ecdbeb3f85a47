// Batches, full caches and saved sessions: statuses, texts, and what happens to arguments that are wrong.
#include "check.h"

#define N 5

static kigo_model *model;

static void batches(void)
{
    static const uint32_t prompt[70] = {1, 2, 3, 4, 5};
    kigo_session *s[N], *alone[N];
    const uint32_t *ids[N];
    size_t n_ids[N];
    kigo_status status[N];
    uint32_t token[N];
    for (size_t i = 0; i < N; i++) {
        s[i] = empty_session(model), alone[i] = empty_session(model);
        ids[i] = prompt + i;
        n_ids[i] = 65 - 16 * i;
        CHECK(kigo_session_prefill(alone[i], ids[i], n_ids[i]) == KIGO_STATUS_OK);
    }
    CHECK(kigo_prefill_batch(s, ids, n_ids, N, status) == KIGO_STATUS_OK);
    CHECK(kigo_sample_batch(s, N, token, status) == KIGO_STATUS_OK);
    CHECK(kigo_step_batch(s, token, N, status) == KIGO_STATUS_OK);
    for (size_t i = 0; i < N; i++) {
        uint32_t expected;
        CHECK(status[i] == KIGO_STATUS_OK && kigo_session_sample(alone[i], &expected) == KIGO_STATUS_OK);
        CHECK(token[i] == expected && kigo_session_step(alone[i], expected) == KIGO_STATUS_OK);
        same_logits(s[i], alone[i]);
    }

    // Entries that are wrong, each for itself.
    kigo_session *mixed[N] = {s[0], NULL, s[0], s[2], s[3]};
    uint32_t next[N] = {7, 7, 7, 1u << 30, 7};
    CHECK(kigo_step_batch(mixed, next, N, status) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "entry 1: session is NULL") == 0);
    CHECK(status[0] == KIGO_STATUS_OK && status[1] == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(status[2] == KIGO_STATUS_INVALID_ARGUMENT && status[3] == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(status[4] == KIGO_STATUS_OK);
    CHECK(kigo_session_step(alone[0], 7) == KIGO_STATUS_OK && kigo_session_step(alone[3], 7) == KIGO_STATUS_OK);
    same_logits(s[0], alone[0]);
    same_logits(s[2], alone[2]);
    same_logits(s[3], alone[3]);
    CHECK(kigo_session_truncate(s[1], 0) == KIGO_STATUS_OK);
    CHECK(kigo_sample_batch(s, 2, token, status) == KIGO_STATUS_INVALID_STATE);
    CHECK(strcmp(kigo_last_error(), "entry 1: needs logits: prefill or step first") == 0);
    CHECK(token[0] != KIGO_TOKEN_NONE && token[1] == KIGO_TOKEN_NONE && status[1] == KIGO_STATUS_INVALID_STATE);
    ids[0] = NULL;
    CHECK(kigo_prefill_batch(s, ids, n_ids, 2, status) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "entry 0: ids is NULL") == 0 && status[1] == KIGO_STATUS_OK);

    // Arrays that are wrong.
    size_t before, after;
    CHECK(kigo_session_n_tokens(s[0], &before) == KIGO_STATUS_OK);
    CHECK(kigo_step_batch(s, token, N, NULL) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "statuses is NULL") == 0);
    status[4] = KIGO_STATUS_OK;
    CHECK(kigo_step_batch(NULL, token, N, status) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(status[0] == KIGO_STATUS_INVALID_ARGUMENT && status[4] == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_step_batch(s, NULL, N, status) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "tokens is NULL") == 0);
    CHECK(kigo_prefill_batch(s, NULL, n_ids, N, status) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_prefill_batch(s, ids, NULL, N, status) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_sample_batch(s, N, NULL, status) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_sample_batch(NULL, N, token, status) == KIGO_STATUS_INVALID_ARGUMENT && token[2] == KIGO_TOKEN_NONE);
    CHECK(kigo_session_n_tokens(s[0], &after) == KIGO_STATUS_OK && before == after);
    CHECK(kigo_step_batch(NULL, NULL, 0, NULL) == KIGO_STATUS_OK);
    CHECK(kigo_prefill_batch(NULL, NULL, NULL, 0, NULL) == KIGO_STATUS_OK);
    CHECK(kigo_sample_batch(NULL, 0, NULL, NULL) == KIGO_STATUS_OK);
    for (size_t i = 0; i < N; i++) {
        kigo_session_destroy(s[i]);
        kigo_session_destroy(alone[i]);
    }
}

static void full_cache(const kigo_engine *engine, const char *path)
{
    kigo_cache_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_cache_info(model, &facts) == KIGO_STATUS_OK);
    CHECK(facts.page_tokens == 64 && facts.n_pages_used == 0 && facts.limit_bytes == UINT64_MAX);
    CHECK(facts.free_bytes == UINT64_MAX && facts.used_bytes == 0);
    CHECK(kigo_model_cache_info(model, NULL) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_model_cache_info(NULL, &facts) == KIGO_STATUS_INVALID_ARGUMENT && facts.page_tokens == 0);
    CHECK(kigo_model_cache_info(model, &facts) == KIGO_STATUS_OK);

    kigo_model *small;
    uint64_t page_bytes;
    CHECK(kigo_model_cache_bytes(model, 64, &page_bytes) == KIGO_STATUS_OK);
    kigo_load_options options = {.struct_size = sizeof options, .cache_bytes = 2 * page_bytes, .flags = 10};
    CHECK(kigo_model_load_file(engine, path, KIGO_STRLEN, &options, &small) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "flags is 0xa; expected flags within 0x7") == 0);
    options.flags = KIGO_LOAD_MERGE_CALLS;
    CHECK(kigo_model_load_file(engine, path, KIGO_STRLEN, &options, &small) == KIGO_STATUS_OK);
    kigo_session *a = open_session(small), *b = open_session(small);
    uint32_t ids[64] = {0};
    CHECK(kigo_session_prefill(a, ids, 62) == KIGO_STATUS_CACHE_FULL);
    CHECK(strcmp(kigo_last_error(), "1 cache pages needed, 0 of 2 free") == 0);
    kigo_session_facts held = {.struct_size = sizeof held};
    CHECK(kigo_session_info(b, &held) == KIGO_STATUS_OK && held.n_pages == 1 && held.n_pages_own == 1);
    CHECK(held.n_tokens == 3 && held.n_ctx == 512 && held.has_logits == 1 && held.has_long_rope == 0);
    CHECK(kigo_session_info(b, NULL) == KIGO_STATUS_INVALID_ARGUMENT);
    kigo_session_destroy(b);
    CHECK(kigo_session_prefill(a, ids, 62) == KIGO_STATUS_OK);
    CHECK(kigo_model_cache_info(small, &facts) == KIGO_STATUS_OK && facts.limit_bytes == 2 * page_bytes);
    CHECK(facts.n_pages_used == 2 && facts.used_bytes == 2 * page_bytes && facts.free_bytes == 0);
    kigo_session_destroy(a);
    kigo_model_destroy(small);
}

static void saved(void)
{
    kigo_session *session = open_session(model), *restored;
    size_t needed, again;
    CHECK(kigo_session_save(session, NULL, 0, &needed) == KIGO_STATUS_OK && needed > 512 * 4);
    unsigned char *blob = malloc(needed + 8);
    CHECK(blob != NULL && kigo_session_save(session, blob, needed - 1, &again) == KIGO_STATUS_BUFFER_TOO_SMALL);
    CHECK(again == needed && kigo_session_save(session, blob + 1, needed, &again) == KIGO_STATUS_OK);
    CHECK(kigo_session_save(session, NULL, needed, &again) == KIGO_STATUS_INVALID_ARGUMENT && again == 0);
    CHECK(kigo_session_save(session, blob, needed, NULL) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_session_save(NULL, blob, needed, &again) == KIGO_STATUS_INVALID_ARGUMENT);
    // At any address.
    CHECK(kigo_session_restore(model, blob + 1, needed, &restored) == KIGO_STATUS_OK);
    same_logits(session, restored);
    CHECK(kigo_session_step(session, 5) == KIGO_STATUS_OK && kigo_session_step(restored, 5) == KIGO_STATUS_OK);
    same_logits(session, restored);
    kigo_session_destroy(restored);
    CHECK(kigo_session_restore(model, blob + 1, needed - 1, &restored) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(restored == NULL && strstr(kigo_last_error(), "as it says itself") != NULL);
    CHECK(kigo_session_restore(model, NULL, 5, &restored) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_session_restore(model, NULL, 0, &restored) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_session_restore(NULL, blob, needed, &restored) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_session_restore(model, blob, needed, NULL) == KIGO_STATUS_INVALID_ARGUMENT);
    free(blob);
    kigo_session_destroy(session);

    kigo_session_options options = {.struct_size = sizeof options, .flags = 2};
    CHECK(kigo_session_create(model, &options, &session) == KIGO_STATUS_INVALID_ARGUMENT && session == NULL);
    CHECK(strcmp(kigo_last_error(), "flags is 0x2; expected flags within 0x1") == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    kigo_engine *engine = open_engine();
    model = open_model(engine, argv[1]);
    batches();
    saved();
    full_cache(engine, argv[1]);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
