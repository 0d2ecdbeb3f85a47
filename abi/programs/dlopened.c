// A plugin host of a user's, which looks everything up at run time. Built once for each release and kept as it was
// (abi/<release>/dlopened), to be run with every later library. Only what 0.1.0 had.
//
//     dlopened LIBRARY MODEL     0: it worked; 3: the library has another ABI; 1: something failed
#include <dlfcn.h>
#include <kigo.h>
#include <stdio.h>
#include <string.h>

static void *library;

// A function's address as a pointer of its own type.
static int find(const char *name, void *function)
{
    void *found = dlsym(library, name);
    memcpy(function, &found, sizeof found);
    if (found == NULL)
        fprintf(stderr, "%s\n", dlerror());
    return found != NULL;
}

int main(int argc, char **argv)
{
    uint32_t (*abi_version)(void);
    kigo_status (*engine_create)(const kigo_engine_options *, kigo_engine **);
    kigo_status (*load_file)(const kigo_engine *, const char *, size_t, const kigo_load_options *, kigo_model **);
    kigo_status (*session_create)(const kigo_model *, const kigo_session_options *, kigo_session **);
    kigo_status (*prefill)(kigo_session *, const uint32_t *, size_t);
    kigo_status (*sample)(kigo_session *, uint32_t *);
    void (*engine_destroy)(kigo_engine *), (*model_destroy)(kigo_model *), (*session_destroy)(kigo_session *);
    const char *(*last_error)(void);
    if (argc != 3)
        return 2;
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    if (!find("kigo_abi_version", &abi_version))
        return 1;
    if (abi_version() != KIGO_ABI_VERSION) {
        fprintf(stderr, "%s has ABI %u; made for %u\n", argv[1], (unsigned)abi_version(), (unsigned)KIGO_ABI_VERSION);
        return 3;
    }
    if (!find("kigo_engine_create", &engine_create) || !find("kigo_model_load_file", &load_file) ||
        !find("kigo_session_create", &session_create) || !find("kigo_session_prefill", &prefill) ||
        !find("kigo_session_sample", &sample) || !find("kigo_engine_destroy", &engine_destroy) ||
        !find("kigo_model_destroy", &model_destroy) || !find("kigo_session_destroy", &session_destroy) ||
        !find("kigo_last_error", &last_error))
        return 1;
    kigo_engine *engine = NULL;
    kigo_model *model = NULL;
    kigo_session *session = NULL;
    kigo_engine_options options = {.struct_size = sizeof options, .device = "cpu", .device_len = 3, .n_threads = 1};
    const uint32_t ids[] = {1, 2, 3};
    uint32_t token = KIGO_TOKEN_NONE;
    kigo_status status = engine_create(&options, &engine);
    if (status == KIGO_STATUS_OK)
        status = load_file(engine, argv[2], KIGO_STRLEN, NULL, &model);
    if (status == KIGO_STATUS_OK)
        status = session_create(model, NULL, &session);
    if (status == KIGO_STATUS_OK)
        status = prefill(session, ids, 3);
    if (status == KIGO_STATUS_OK)
        status = sample(session, &token);
    if (status != KIGO_STATUS_OK)
        fprintf(stderr, "status %d: %s\n", (int)status, last_error());
    session_destroy(session);
    model_destroy(model);
    engine_destroy(engine);
    dlclose(library);
    return status != KIGO_STATUS_OK || token == KIGO_TOKEN_NONE;
}
