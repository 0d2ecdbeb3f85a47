// A program of a user's, linked with the library: its exit status says how far it came. Built once for each release and kept as
// it was (abi/<release>/linked), to be run with every later library. Only what 0.1.0 had.
//
//     linked MODEL     0: it worked; 3: the library has another ABI; 1: something failed
#include <kigo.h>
#include <stdio.h>

#define CHECK(call)                                                                                                                \
    do {                                                                                                                           \
        kigo_status status_ = (call);                                                                                              \
        if (status_ != KIGO_STATUS_OK) {                                                                                           \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, kigo_status_name(status_), kigo_last_error());                          \
            return 1;                                                                                                              \
        }                                                                                                                          \
    } while (0)

static int32_t count(uint32_t token, const char *text, size_t text_len, void *user_data)
{
    *(size_t *)user_data += token != KIGO_TOKEN_NONE;
    return text[text_len] != 0; // there is a NUL
}

int main(int argc, char **argv)
{
    if (kigo_abi_version() != KIGO_ABI_VERSION) {
        fprintf(stderr, "kigo %s has ABI %u; made for %u\n", kigo_version(), (unsigned)kigo_abi_version(), (unsigned)KIGO_ABI_VERSION);
        return 3;
    }
    if (argc != 2)
        return 2;
    kigo_engine *engine;
    kigo_model *model;
    kigo_session *session;
    kigo_engine_options how = {.struct_size = sizeof how, .device = "cpu", .device_len = KIGO_STRLEN, .n_threads = 1};
    CHECK(kigo_engine_create(&how, &engine));
    kigo_load_options load = {.struct_size = sizeof load};
    CHECK(kigo_model_load_file(engine, argv[1], KIGO_STRLEN, &load, &model));
    kigo_model_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_info(model, &facts));
    kigo_sampling sampling = {.struct_size = sizeof sampling, .temperature = 0.8f, .seed = 7};
    kigo_session_options options = {.struct_size = sizeof options, .n_ctx = 64, .sampling = &sampling};
    CHECK(kigo_session_create(model, &options, &session));
    uint32_t ids[64];
    size_t n_ids, n_told = 0;
    CHECK(kigo_tokenize(model, "one two three", KIGO_STRLEN, KIGO_TOKENIZE_ADD_SPECIAL, ids, 64, &n_ids));
    CHECK(kigo_session_prefill(session, ids, n_ids));
    kigo_generate_options generate = {.struct_size = sizeof generate, .max_tokens = 8, .on_token = count, .user_data = &n_told};
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_generate(session, &generate, &generated));
    kigo_session_facts held = {.struct_size = sizeof held};
    CHECK(kigo_session_info(session, &held));
    if (held.n_ctx != 64 || held.n_tokens < n_ids || generated.n_tokens != n_told || facts.n_vocab == 0)
        return 1;
    kigo_session_destroy(session);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    printf("kigo %s: %u layers\n", kigo_version(), (unsigned)facts.n_layers);
    return 0;
}
