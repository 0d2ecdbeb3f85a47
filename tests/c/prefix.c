// Pages of sessions that are gone, found by others with the same salt; and a session that is taken to other tokens.
#include "check.h"

static uint32_t ids[300];

static kigo_session *create(const kigo_model *model, const void *salt, size_t salt_len)
{
    kigo_session_options options = {.struct_size = sizeof options, .flags = KIGO_SESSION_REUSE_PREFIX};
    options.prefix_salt = salt;
    options.prefix_salt_len = salt_len;
    kigo_session *session;
    CHECK(kigo_session_create(model, &options, &session) == KIGO_STATUS_OK);
    return session;
}

static uint64_t reused(kigo_session *session)
{
    kigo_session_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_session_info(session, &facts) == KIGO_STATUS_OK);
    return facts.n_tokens_reused;
}

static uint64_t visit(const kigo_model *model, const void *salt, size_t salt_len)
{
    kigo_session *session = create(model, salt, salt_len);
    CHECK(kigo_session_prefill(session, ids, 200) == KIGO_STATUS_OK);
    uint64_t n = reused(session);
    kigo_session_destroy(session);
    return n;
}

static kigo_cache_facts cache(const kigo_model *model)
{
    kigo_cache_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_cache_info(model, &facts) == KIGO_STATUS_OK);
    return facts;
}

static size_t told[64], n_told;
static kigo_session *watched;

static int32_t progress(size_t n_done, size_t n_total, void *user_data)
{
    CHECK(n_total == 250 && n_told < 64);
    CHECK(kigo_session_step(watched, 1) == KIGO_STATUS_BUSY);
    told[n_told++] = n_done;
    return *(int32_t *)user_data;
}

static void advances(const kigo_model *model)
{
    kigo_session *session = create(model, NULL, 0);
    kigo_advanced a = {.struct_size = sizeof a};
    CHECK(kigo_session_advance(session, ids, 300, NULL, &a) == KIGO_STATUS_OK);
    CHECK(a.n_kept == 0 && a.n_reused == 192 && a.n_computed == 108);
    CHECK(kigo_session_advance(session, ids, 300, NULL, &a) == KIGO_STATUS_OK && a.n_kept == 300 && a.n_computed == 0);
    float before[512], after[512];
    size_t n;
    CHECK(kigo_session_logits(session, before, 512, &n) == KIGO_STATUS_OK && n == 512);

    uint32_t other[250];
    memcpy(other, ids, sizeof other);
    for (size_t i = 70; i < 250; i++)
        other[i] = (ids[i] + 1) % 500;
    int32_t stop = 1;
    kigo_advance_options how = {.struct_size = sizeof how, .progress = progress, .user_data = &stop};
    watched = session;
    CHECK(kigo_session_advance(session, other, 250, &how, &a) == KIGO_STATUS_CANCELLED);
    CHECK(a.n_kept == 0 && a.n_computed == 0 && n_told == 1 && told[0] == 70);
    CHECK(kigo_session_logits(session, after, 512, &n) == KIGO_STATUS_OK && memcmp(before, after, sizeof before) == 0);
    stop = 0;
    CHECK(kigo_session_advance(session, other, 250, &how, &a) == KIGO_STATUS_OK);
    CHECK(a.n_kept == 70 && a.n_reused == 0 && a.n_computed == 180);
    CHECK(n_told >= 2 && told[1] == 70); // as many passes as there is time for
    // Back, to pages that this session has left.
    CHECK(kigo_session_advance(session, ids, 300, NULL, &a) == KIGO_STATUS_OK);
    CHECK(a.n_kept == 64 && a.n_reused == 192 && a.n_computed == 44 && reused(session) == 192 + 192);
    CHECK(kigo_session_logits(session, after, 512, &n) == KIGO_STATUS_OK && memcmp(before, after, sizeof before) == 0);

    other[9] = 512;
    CHECK(kigo_session_advance(session, other, 250, NULL, &a) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(kigo_last_error(), "512") != NULL);
    CHECK(kigo_session_advance(session, NULL, 0, NULL, &a) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_session_n_tokens(session, &n) == KIGO_STATUS_OK && n == 300);
    kigo_session_destroy(session);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    for (uint32_t i = 0; i < 300; i++)
        ids[i] = (i * i * 7 + i) % 500;
    kigo_engine *engine = open_engine();
    kigo_model *model;
    uint64_t page;
    kigo_load_options options = {.struct_size = sizeof options, .prefix_cache_bytes = UINT64_MAX, .pass_tokens = 512, .flags = KIGO_LOAD_STRICT};
    CHECK(kigo_model_load_file(engine, argv[1], KIGO_STRLEN, &options, &model) == KIGO_STATUS_OK);
    CHECK(kigo_model_cache_bytes(model, 1, &page) == KIGO_STATUS_OK);
    kigo_engine_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_engine_info(engine, &facts) == KIGO_STATUS_OK);
    const uint64_t weights = facts.memory_used_bytes;

    CHECK(visit(model, NULL, 0) == 0 && visit(model, NULL, 0) == 192);
    CHECK(visit(model, "a\0b", 3) == 0 && visit(model, "a\0c", 3) == 0 && visit(model, "a\0b", 3) == 192);
    kigo_cache_facts c = cache(model);
    CHECK(c.n_pages_used == 9 && c.n_pages_retained == 9 && c.used_bytes == 9 * page && c.spare_bytes == c.used_bytes);
    CHECK(c.retained_bytes == c.used_bytes && c.n_tokens_saved == 2 * 192);
    CHECK(kigo_engine_info(engine, &facts) == KIGO_STATUS_OK && facts.memory_used_bytes == weights + c.used_bytes);
    advances(model);

    static const char salt[1025];
    kigo_session_options long_salt = {.struct_size = sizeof long_salt, .prefix_salt = salt, .prefix_salt_len = 1025};
    kigo_session *session;
    CHECK(kigo_session_create(model, &long_salt, &session) == KIGO_STATUS_INVALID_ARGUMENT && session == NULL);
    CHECK(strstr(kigo_last_error(), "prefix_salt_len is 1025") != NULL);
    long_salt.prefix_salt = NULL;
    CHECK(kigo_session_create(model, &long_salt, &session) == KIGO_STATUS_INVALID_ARGUMENT);

    kigo_model_destroy(model);
    CHECK(kigo_engine_info(engine, &facts) == KIGO_STATUS_OK && facts.memory_used_bytes == 0);
    options.prefix_cache_bytes = page - 1;
    CHECK(kigo_model_load_file(engine, argv[1], KIGO_STRLEN, &options, &model) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(kigo_last_error(), "prefix_cache_bytes is ") != NULL);
    kigo_engine_destroy(engine);
    return 0;
}
