// A model with LongRoPE, of 256 tokens and originally 128: which sessions have the long factors, and that it is told and kept.
#include "check.h"

static uint64_t has_long_rope(kigo_session *session)
{
    kigo_session_facts facts = {.struct_size = sizeof facts, .has_long_rope = 7};
    CHECK(kigo_session_info(session, &facts) == KIGO_STATUS_OK);
    return facts.has_long_rope;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    kigo_engine *engine = open_engine();
    kigo_model *model = open_model(engine, argv[1]);
    static const uint32_t ids[3] = {10, 20, 30};
    const struct { size_t n_ctx; uint64_t is_long; } cases[] = {{0, 1}, {1, 0}, {128, 0}, {129, 1}, {256, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kigo_session_options options = {.struct_size = sizeof options, .n_ctx = cases[i].n_ctx};
        kigo_session *session, *fork, *restored;
        CHECK(kigo_session_create(model, &options, &session) == KIGO_STATUS_OK);
        CHECK(has_long_rope(session) == cases[i].is_long);
        CHECK(kigo_session_prefill(session, ids, cases[i].n_ctx == 1 ? 1 : 3) == KIGO_STATUS_OK);
        CHECK(kigo_session_fork(session, &fork) == KIGO_STATUS_OK && has_long_rope(fork) == cases[i].is_long);
        size_t n;
        CHECK(kigo_session_save(session, NULL, 0, &n) == KIGO_STATUS_OK);
        unsigned char *blob = malloc(n);
        CHECK(blob != NULL && kigo_session_save(session, blob, n, &n) == KIGO_STATUS_OK);
        CHECK(kigo_session_restore(model, blob, n, &restored) == KIGO_STATUS_OK);
        CHECK(has_long_rope(restored) == cases[i].is_long);
        free(blob);
        kigo_session_destroy(restored);
        kigo_session_destroy(fork);
        kigo_session_destroy(session);
    }
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
