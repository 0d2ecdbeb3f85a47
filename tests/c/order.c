// Handles may be destroyed in any order, also while a child is still at work later, and from inside callbacks.
#include "check.h"

struct world {
    kigo_engine *engine;
    kigo_model *model;
    kigo_session *session;
    kigo_stream *stream;
};

static int n_lines;

static int32_t on_log(const kigo_log_event *event, void *user_data)
{
    (void)event, (void)user_data;
    n_lines++;
    return 0;
}

static void destroy(struct world *w, int which)
{
    switch (which) {
    case 0: kigo_engine_destroy(w->engine); w->engine = NULL; break;
    case 1: kigo_model_destroy(w->model); w->model = NULL; break;
    case 2: kigo_session_destroy(w->session); w->session = NULL; break;
    default: kigo_stream_destroy(w->stream); w->stream = NULL; break;
    }
}

// What is left works.
static void use(struct world *w)
{
    kigo_session *session = NULL;
    kigo_stream_text piece = {.struct_size = sizeof piece};
    uint32_t token;
    if (w->engine != NULL) {
        kigo_engine_facts facts = {.struct_size = sizeof facts};
        CHECK(kigo_engine_info(w->engine, &facts) == KIGO_STATUS_OK);
    }
    if (w->model != NULL) {
        session = open_session(w->model);
        kigo_session_destroy(session);
    }
    if (w->session != NULL) {
        CHECK(kigo_session_sample(w->session, &token) == KIGO_STATUS_OK);
        CHECK(kigo_session_step(w->session, token) == KIGO_STATUS_OK);
    }
    if (w->stream != NULL)
        CHECK(kigo_stream_push(w->stream, 1, &piece) == KIGO_STATUS_OK);
}

static int32_t destroy_in_callback(uint32_t token, const char *text, size_t text_len, void *user_data)
{
    struct world *w = user_data;
    (void)text, (void)text_len;
    CHECK(token != KIGO_TOKEN_NONE && w->session != NULL);
    for (int i = 0; i < 4; i++)
        destroy(w, i);
    return 0;
}

static int32_t destroy_while_loading(uint64_t done, uint64_t total, void *user_data)
{
    (void)done, (void)total;
    kigo_engine **engine = user_data;
    kigo_engine_destroy(*engine);
    *engine = NULL;
    return 0;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    bool slow = argc > 2; // under valgrind: every fifth order
    int n_orders = 0;
    for (int order = 0; order < 256; order++) {
        int step[4] = {order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6};
        if ((1 << step[0] | 1 << step[1] | 1 << step[2] | 1 << step[3]) != 15)
            continue;
        if (n_orders++ % 5 != 0 && slow)
            continue;
        struct world w;
        kigo_engine_options options = {.struct_size = sizeof options, .n_threads = 2, .log = on_log};
        CHECK(kigo_engine_create(&options, &w.engine) == KIGO_STATUS_OK);
        w.model = open_model(w.engine, argv[1]);
        w.session = open_session(w.model);
        CHECK(kigo_stream_create(w.model, NULL, &w.stream) == KIGO_STATUS_OK);
        for (int i = 0; i < 4; i++) {
            use(&w);
            destroy(&w, step[i]);
        }
    }
    CHECK(n_orders == 24);

    // From inside the session's own callback: the call is cancelled, and frees everything when it returns.
    struct world w = {.engine = open_engine()};
    w.model = open_model(w.engine, argv[1]);
    w.session = open_session(w.model);
    CHECK(kigo_stream_create(w.model, NULL, &w.stream) == KIGO_STATUS_OK);
    kigo_generate_options how = {.struct_size = sizeof how,
                                 .on_token = destroy_in_callback,
                                 .user_data = &w,
                                 .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_generate(w.session, &how, &generated) == KIGO_STATUS_OK);
    CHECK(generated.stop_reason == KIGO_STOP_CANCELLED && generated.n_tokens == 1 && w.session == NULL);

    kigo_engine *engine = open_engine();
    kigo_load_options load = {
        .struct_size = sizeof load, .progress = destroy_while_loading, .progress_user_data = &engine};
    kigo_model *model;
    CHECK(kigo_model_load_file(engine, argv[1], KIGO_STRLEN, &load, &model) == KIGO_STATUS_OK && engine == NULL);
    kigo_session_destroy(open_session(model));
    kigo_model_destroy(model);
    return 0;
}
