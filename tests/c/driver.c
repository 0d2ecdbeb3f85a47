// Opens a GPU and, where that can be, runs a model on it: what tests/c/driver.rs has it do on drivers that are not real.
//
//     driver MODEL
//
// Prints the status with its text, and nothing else.
#include "check.h"

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const kigo_engine_options options = {.struct_size = sizeof options, .device = "cuda:0", .device_len = 6};
    kigo_engine *engine;
    // Twice: what failed is tried again, and says the same.
    kigo_status status = kigo_engine_create(&options, &engine);
    CHECK(kigo_engine_create(&options, &engine) == status);
    printf("%s: %s\n", kigo_status_name(status), status == KIGO_STATUS_OK ? "" : kigo_last_error());
    if (status != KIGO_STATUS_OK)
        return 0;
    kigo_model *model;
    kigo_session *session;
    const uint32_t prompt[40] = {1, 2, 3};
    uint32_t token;
    CHECK(kigo_model_load_file(engine, argv[1], strlen(argv[1]), NULL, &model) == KIGO_STATUS_OK);
    CHECK(kigo_session_create(model, NULL, &session) == KIGO_STATUS_OK);
    CHECK(kigo_session_prefill(session, prompt, 40) == KIGO_STATUS_OK);
    CHECK(kigo_session_sample(session, &token) == KIGO_STATUS_OK);
    CHECK(kigo_session_step(session, 5) == KIGO_STATUS_OK);
    kigo_session_destroy(session);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
