// Layers with a window: what a plan says of them, what is given back, and the way back to where it was. In strict mode, so that a GPU
// gives something back, too.
#include "check.h"

// Tiny gemma3: seven layers of 2 heads of 32, keys and values of 2 bytes; a window of 16 in six of them.
static const uint64_t page = 64 * 7 * 2 * 2 * 32 * 2, part = 64 * 6 * 2 * 2 * 32 * 2;

static kigo_session_facts info(kigo_session *session)
{
    kigo_session_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_session_info(session, &facts) == KIGO_STATUS_OK);
    return facts;
}

static kigo_session *prompted(const kigo_model *model, size_t n)
{
    static uint32_t ids[512];
    for (size_t i = 0; i < n; i++)
        ids[i] = (uint32_t)(i * i % 500);
    kigo_session *session = empty_session(model);
    CHECK(kigo_session_prefill(session, ids, n) == KIGO_STATUS_OK);
    return session;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    kigo_engine *engine = open_engine();
    kigo_plan plan = {.struct_size = sizeof plan};
    kigo_plan_options plan_options = {.struct_size = sizeof plan_options, .n_tokens = 400, .flags = KIGO_LOAD_STRICT};
    CHECK(kigo_model_plan(engine, argv[1], KIGO_STRLEN, &plan_options, &plan) == KIGO_STATUS_OK);
    CHECK(plan.cache_bytes == 7 * page && plan.cache_spare_bytes == 6 * part);
    // A program of before the field, whose struct ends in front of it.
    plan.struct_size = offsetof(kigo_plan, cache_spare_bytes);
    plan.cache_spare_bytes = 1;
    CHECK(kigo_model_plan(engine, argv[1], KIGO_STRLEN, &plan_options, &plan) == KIGO_STATUS_OK);
    CHECK(plan.cache_bytes == 7 * page && plan.cache_spare_bytes == 1);

    kigo_model *model;
    kigo_load_options options = {.struct_size = sizeof options, .cache_bytes = 8 * page, .flags = KIGO_LOAD_STRICT};
    CHECK(kigo_model_load_file(engine, argv[1], KIGO_STRLEN, &options, &model) == KIGO_STATUS_OK);
    kigo_session *a = prompted(model, 400), *b = prompted(model, 64);
    CHECK(info(a).truncate_free_from == 0 && info(a).n_pages == 7);
    uint32_t id = 7;
    CHECK(kigo_session_step(b, id) == KIGO_STATUS_OK);
    kigo_cache_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_cache_info(model, &facts) == KIGO_STATUS_OK);
    CHECK(facts.n_pages_used == 9 && facts.used_bytes == 9 * page - 2 * part && facts.spare_bytes == 4 * part);
    CHECK(info(a).truncate_free_from == 2 * 64 + 15);
    // In front of that it is computed again: a cancel stops it, and then nothing has changed.
    kigo_session_cancel(a);
    CHECK(kigo_session_truncate(a, 100) == KIGO_STATUS_CANCELLED && info(a).n_tokens == 400 && info(a).has_logits == 1);
    CHECK(kigo_session_truncate(a, 100) == KIGO_STATUS_OK && info(a).n_tokens == 100);
    CHECK(info(a).truncate_free_from == 0);
    kigo_session *c = prompted(model, 100);
    CHECK(kigo_session_step(a, id) == KIGO_STATUS_OK && kigo_session_step(c, id) == KIGO_STATUS_OK);
    same_logits(a, c);
    kigo_session_destroy(a);
    kigo_session_destroy(b);
    kigo_session_destroy(c);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
