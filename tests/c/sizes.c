// Programs of other versions: shorter structs of an older header, longer ones of a newer.
#include "check.h"

// kigo_session_options as a header without `sampling` would have had it: 16 bytes against the library's 32.
struct older_session_options {
    size_t struct_size;
    size_t n_ctx;
};

// The three fields of kigo_plan that an older header might have had.
struct older_plan {
    size_t struct_size;
    uint64_t weights_bytes;
    uint64_t scratch_bytes;
    uint64_t not_the_librarys;
};

struct newer_plan {
    kigo_plan known;
    uint64_t later[3];
};

struct newer_session_options {
    kigo_session_options known;
    uint64_t later[2];
};

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    CHECK(sizeof(kigo_engine_options) == 144 && sizeof(kigo_session_options) == 48 && sizeof(kigo_sampling) == 64);
    CHECK(sizeof(kigo_load_options) == 64 && sizeof(kigo_plan) == 72 && sizeof(kigo_cache_facts) == 104 && sizeof(kigo_session_facts) == 88);
    CHECK(sizeof(kigo_message) == 32 && sizeof(kigo_string) == 16 && sizeof(kigo_logit_bias) == 8);
    CHECK(sizeof(kigo_tap_event) == 64 && sizeof(kigo_check) == 64 && sizeof(kigo_doctor_options) == 32);
    CHECK(sizeof(kigo_chat_options) == 80 && sizeof(kigo_device_facts) == 512 && sizeof(kigo_thread_event) == 32);
    CHECK(sizeof(kigo_diagnosis) == 40 && sizeof(kigo_logprobs_options) == 40 && sizeof(kigo_logprob) == 12);
    kigo_engine *engine = open_engine();
    kigo_model *model = open_model(engine, argv[1]);
    kigo_session *session;
    uint32_t ids[16] = {0};

    // What lies behind an older struct is not read: it would be a wild pointer here.
    struct {
        struct older_session_options options;
        uintptr_t not_ours;
    } older = {{sizeof older.options, 8}, 0xDEADBEEF};
    CHECK(older.options.struct_size == 16);
    CHECK(kigo_session_create(model, (const kigo_session_options *)(const void *)&older, &session) == KIGO_STATUS_OK);
    CHECK(kigo_session_prefill(session, ids, 9) == KIGO_STATUS_CONTEXT_FULL);
    CHECK(kigo_session_prefill(session, ids, 8) == KIGO_STATUS_OK);
    kigo_session_destroy(session);

    // A newer struct is taken as long as its news are not used.
    struct newer_session_options newer = {{.struct_size = sizeof newer, .n_ctx = 8}, {0, 0}};
    CHECK(kigo_session_create(model, &newer.known, &session) == KIGO_STATUS_OK);
    kigo_session_destroy(session);
    newer.later[1] = 1;
    CHECK(kigo_session_create(model, &newer.known, &session) == KIGO_STATUS_INVALID_ARGUMENT && session == NULL);
    CHECK(strstr(kigo_last_error(), "kigo_session_options.struct_size is 64; expected sizeof = 48") != NULL);

    // An older struct is filled as far as it goes, a newer one has zeros behind.
    kigo_plan plan = {.struct_size = sizeof plan};
    CHECK(kigo_model_plan(engine, argv[1], KIGO_STRLEN, NULL, &plan) == KIGO_STATUS_OK);
    struct older_plan old = {24, 0, 0, 0x5555};
    CHECK(kigo_model_plan(engine, argv[1], KIGO_STRLEN, NULL, (kigo_plan *)(void *)&old) == KIGO_STATUS_OK);
    CHECK(old.struct_size == 24 && old.weights_bytes == plan.weights_bytes && old.not_the_librarys == 0x5555);
    CHECK(old.scratch_bytes == plan.scratch_bytes);
    struct newer_plan young = {{.struct_size = sizeof young}, {1, 2, 3}};
    CHECK(kigo_model_plan(engine, argv[1], KIGO_STRLEN, NULL, &young.known) == KIGO_STATUS_OK);
    CHECK(young.known.struct_size == sizeof young && young.known.cache_bytes == plan.cache_bytes);
    CHECK(young.later[0] == 0 && young.later[1] == 0 && young.later[2] == 0);

    // Nothing but the size is all defaults.
    size_t only_size = sizeof(size_t);
    CHECK(kigo_session_create(model, (const kigo_session_options *)(const void *)&only_size, &session) == KIGO_STATUS_OK);
    kigo_session_destroy(session);

    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
