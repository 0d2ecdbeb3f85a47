// Taps: what they see, that they change nothing, that they stop a call, and what may not be done inside.
#include "check.h"

enum { N_IDS = 70 };

static kigo_model *model;
static kigo_model_facts facts = {.struct_size = sizeof facts};
static kigo_layer_facts layer = {.struct_size = sizeof layer};
static uint32_t ids[N_IDS];

struct seen {
    size_t n_events, n_rows[13]; // rows of each name
    const char *stop_at;         // the name whose last-layer event stops
    int64_t stop_layer;
    bool in_order;
    size_t previous;
    kigo_session *session;
};

// Shows `callback` the taps, which are all if they are none.
static kigo_status show(kigo_session *session, const uint32_t *taps, size_t n_taps, kigo_tap_callback callback, void *user_data)
{
    kigo_tap_options options = {sizeof options, taps, n_taps, callback, user_data};
    return kigo_session_set_tap(session, &options);
}

static int32_t see(const kigo_tap_event *event, void *user_data)
{
    static const char *const names[] = {"embed",     "attn_norm", "q_rope",   "k_rope",  "v",     "attn_mix",   "attn_out",
                                        "ffn_norm", "ffn_act",   "ffn_out", "resid", "final_norm", "logits"};
    struct seen *seen = user_data;
    CHECK(event->struct_size == sizeof *event);
    CHECK(event->tap >= 1 && event->tap <= KIGO_TAP_LOGITS && event->element_type == KIGO_TAP_TYPE_F32);
    size_t i = event->tap - 1, k = layer.n_kv_heads * layer.k_head_dim, v = layer.n_kv_heads * layer.v_head_dim;
    size_t d = facts.n_embd, q = layer.n_heads * layer.k_head_dim, mix = layer.n_heads * layer.v_head_dim;
    const size_t cols[] = {d, d, q, k, v, mix, d, d, layer.n_ff, d, d, d, facts.n_vocab};
    CHECK(strcmp(event->name, names[i]) == 0 && event->name == kigo_tap_name(event->tap));
    CHECK(event->n_cols == cols[i]);
    bool layered = i >= 1 && i <= 10;
    CHECK(layered ? event->layer >= 0 && event->layer < (int64_t)facts.n_layers : event->layer == -1);
    CHECK(event->position + event->n_rows <= N_IDS);
    const float *data = event->data;
    for (size_t e = 0; e < event->n_rows * event->n_cols; e++)
        CHECK(data[e] == data[e]);
    seen->n_events++;
    seen->n_rows[i] += event->n_rows;
    if (seen->session != NULL) { // what is not allowed inside
        uint32_t token;
        size_t n;
        kigo_session *other = NULL;
        CHECK(kigo_session_step(seen->session, 1) == KIGO_STATUS_BUSY);
        CHECK(kigo_session_sample(seen->session, &token) == KIGO_STATUS_BUSY);
        CHECK(kigo_session_n_tokens(seen->session, &n) == KIGO_STATUS_BUSY);
        CHECK(kigo_session_set_tap(seen->session, NULL) == KIGO_STATUS_BUSY);
        CHECK(kigo_session_create(model, NULL, &other) == KIGO_STATUS_BUSY && other == NULL);
        CHECK(kigo_session_clear_cancel(seen->session) == KIGO_STATUS_OK);
    }
    return seen->stop_at != NULL && strcmp(event->name, seen->stop_at) == 0 && event->layer == seen->stop_layer;
}

static void logits_of(kigo_session *session, float *logits)
{
    size_t n;
    CHECK(kigo_session_logits(session, logits, facts.n_vocab, &n) == KIGO_STATUS_OK && n == facts.n_vocab);
}

static void bits_and_rows(float *logits, float *tapped)
{
    kigo_session *plain = empty_session(model), *session = empty_session(model);
    struct seen seen = {.session = session};
    CHECK(show(session, NULL, 0, see, &seen) == KIGO_STATUS_OK);
    CHECK(kigo_session_prefill(plain, ids, 66) == KIGO_STATUS_OK);
    CHECK(kigo_session_prefill(session, ids, 66) == KIGO_STATUS_OK);
    for (size_t step = 66;; step++) {
        logits_of(plain, logits);
        logits_of(session, tapped);
        CHECK(memcmp(logits, tapped, facts.n_vocab * sizeof *logits) == 0);
        if (step == N_IDS)
            break;
        CHECK(kigo_session_step(plain, ids[step]) == KIGO_STATUS_OK);
        CHECK(kigo_session_step(session, ids[step]) == KIGO_STATUS_OK);
    }
    for (size_t i = 0; i < 13; i++)
        CHECK(seen.n_rows[i] == (i == 0 ? N_IDS : i <= 10 ? N_IDS * facts.n_layers : 5));

    // Only what was asked for; a fork has none; nobody once it has ended.
    seen = (struct seen){0};
    const uint32_t two[] = {KIGO_TAP_LOGITS, KIGO_TAP_RESID, KIGO_TAP_LOGITS};
    CHECK(show(session, two, 3, see, &seen) == KIGO_STATUS_OK);
    CHECK(kigo_session_truncate(session, 60) == KIGO_STATUS_OK);
    kigo_session *fork;
    CHECK(kigo_session_fork(session, &fork) == KIGO_STATUS_OK);
    CHECK(kigo_session_step(fork, 1) == KIGO_STATUS_OK && seen.n_events == 0);
    CHECK(kigo_session_step(session, 1) == KIGO_STATUS_OK);
    CHECK(seen.n_events == facts.n_layers + 1 && seen.n_rows[10] == facts.n_layers && seen.n_rows[12] == 1);
    CHECK(kigo_session_set_tap(session, NULL) == KIGO_STATUS_OK);
    CHECK(kigo_session_step(session, 1) == KIGO_STATUS_OK && seen.n_events == facts.n_layers + 1);
    kigo_session_destroy(fork);
    kigo_session_destroy(session);
    kigo_session_destroy(plain);
}

// A stop in the middle and one at the very last event both leave tokens and logits as they were.
static void stops(float *logits, float *after)
{
    const struct seen plots[] = {
        {.stop_at = "embed", .stop_layer = -1}, {.stop_at = "v", .stop_layer = 0}, {.stop_at = "logits", .stop_layer = -1}};
    for (size_t i = 0; i < sizeof plots / sizeof *plots; i++) {
        kigo_session *session = empty_session(model);
        CHECK(kigo_session_prefill(session, ids, 9) == KIGO_STATUS_OK);
        logits_of(session, logits);
        struct seen seen = plots[i];
        CHECK(show(session, NULL, 0, see, &seen) == KIGO_STATUS_OK);
        CHECK(kigo_session_prefill(session, ids, 40) == KIGO_STATUS_CANCELLED);
        CHECK(strcmp(kigo_last_error(), "cancelled") == 0);
        kigo_generated generated = {.struct_size = sizeof generated};
        CHECK(kigo_session_generate(session, NULL, &generated) == KIGO_STATUS_OK);
        CHECK(generated.stop_reason == KIGO_STOP_CANCELLED && generated.n_tokens == 0);
        size_t n;
        CHECK(kigo_session_n_tokens(session, &n) == KIGO_STATUS_OK && n == 9);
        logits_of(session, after);
        CHECK(memcmp(logits, after, facts.n_vocab * sizeof *logits) == 0);
        // The stop has been used up.
        CHECK(show(session, NULL, 0, NULL, NULL) == KIGO_STATUS_OK);
        CHECK(kigo_session_step(session, ids[9]) == KIGO_STATUS_OK);
        kigo_session_destroy(session);
    }
}

struct plot {
    kigo_session *session;
    uint32_t at;     // the tap whose last-layer event does it
    bool cancel;     // or else destroys
    size_t n_after;  // events that came behind
};

static int32_t do_it(const kigo_tap_event *event, void *user_data)
{
    struct plot *plot = user_data;
    const float *data = event->data;
    if (plot->session == NULL) {
        plot->n_after++;
    } else if (event->tap == plot->at && (event->layer == -1 || event->layer == (int64_t)facts.n_layers - 1)) {
        if (plot->cancel)
            CHECK(kigo_session_cancel(plot->session) == KIGO_STATUS_OK);
        else
            kigo_session_destroy(plot->session);
        plot->session = NULL;
    }
    CHECK(data[0] == data[0]); // still there
    return 0;
}

// Destroyed or cancelled from inside, at the first, a middle and the very last event, the call it comes from is cancelled, be it
// a prompt or a step; a destroyed session is freed when it returns, a cancelled one is as it was.
static void ended_inside(float *before, float *after)
{
    const uint32_t taps[] = {KIGO_TAP_EMBED, KIGO_TAP_RESID, KIGO_TAP_LOGITS};
    for (size_t i = 0; i < 3 * 2 * 2; i++) {
        kigo_session *session = empty_session(model);
        size_t n_ids = i % 2 == 0 ? 40 : 1, n;
        struct plot plot = {session, taps[i / 4], i / 2 % 2 == 1, 0};
        bool cancel = plot.cancel;
        CHECK(kigo_session_prefill(session, ids, 9) == KIGO_STATUS_OK);
        logits_of(session, before);
        CHECK(show(session, NULL, 0, do_it, &plot) == KIGO_STATUS_OK);
        CHECK(kigo_session_prefill(session, ids, n_ids) == KIGO_STATUS_CANCELLED && plot.session == NULL);
        CHECK(plot.at != KIGO_TAP_LOGITS || plot.n_after == 0);
        if (!cancel)
            continue;
        logits_of(session, after);
        CHECK(kigo_session_n_tokens(session, &n) == KIGO_STATUS_OK && n == 9);
        CHECK(memcmp(before, after, facts.n_vocab * sizeof *before) == 0);
        CHECK(kigo_session_step(session, 1) == KIGO_STATUS_OK); // the cancel has been used up
        kigo_session_destroy(session);
    }
    // In a generation, too.
    kigo_session *session = empty_session(model);
    struct plot plot = {session, KIGO_TAP_LOGITS, false, 0};
    CHECK(kigo_session_prefill(session, ids, 9) == KIGO_STATUS_OK);
    CHECK(show(session, NULL, 0, do_it, &plot) == KIGO_STATUS_OK);
    kigo_generate_options options = {.struct_size = sizeof options, .max_tokens = 5, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_generate(session, &options, &generated) == KIGO_STATUS_OK);
    CHECK(generated.stop_reason == KIGO_STOP_CANCELLED && generated.n_tokens == 0 && plot.session == NULL);
}

static void names(void)
{
    CHECK(kigo_tap_name(0) == NULL && kigo_tap_name(22) == NULL && kigo_tap_name(UINT32_MAX) == NULL);
    CHECK(strcmp(kigo_tap_name(KIGO_TAP_EMBED), "embed") == 0 && strcmp(kigo_tap_name(KIGO_TAP_LOGITS), "logits") == 0);
    CHECK(strcmp(kigo_tap_name(KIGO_TAP_MOE_WEIGHTS), "moe_weights") == 0);
}

static void misuse(void)
{
    kigo_session *session = empty_session(model);
    struct seen seen = {0};
    const uint32_t wrong[][2] = {{KIGO_TAP_V, KIGO_TAP_GATE + 1}, {KIGO_TAP_V, 0}, {KIGO_TAP_V, UINT32_MAX}};
    CHECK(show(NULL, NULL, 0, see, &seen) == KIGO_STATUS_INVALID_ARGUMENT);
    for (size_t i = 0; i < 3; i++)
        CHECK(show(session, wrong[i], 2, see, &seen) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "taps is 4294967295 at index 1; expected 1 to 21") == 0);
    CHECK(show(session, NULL, 2, see, &seen) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(show(session, wrong[0], 1, NULL, NULL) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "callback is NULL") == 0);
    CHECK(kigo_session_prefill(session, ids, 3) == KIGO_STATUS_OK && seen.n_events == 0);
    kigo_session_destroy(session);
}

// A session in a batch shows the same rows and gives the same logits.
static void batch(float *logits, float *tapped)
{
    kigo_session *sessions[2] = {empty_session(model), empty_session(model)};
    struct seen seen = {.session = sessions[0]};
    CHECK(show(sessions[1], NULL, 0, see, &seen) == KIGO_STATUS_OK);
    const uint32_t *const both[2] = {ids, ids};
    const size_t n_ids[2] = {20, 20};
    kigo_status statuses[2];
    CHECK(kigo_prefill_batch(sessions, both, n_ids, 2, statuses) == KIGO_STATUS_OK);
    CHECK(seen.n_rows[0] == 20 && seen.n_rows[12] == 1);
    logits_of(sessions[0], logits);
    logits_of(sessions[1], tapped);
    CHECK(memcmp(logits, tapped, facts.n_vocab * sizeof *logits) == 0);
    kigo_session_destroy(sessions[0]);
    kigo_session_destroy(sessions[1]);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    kigo_engine *engine = open_engine();
    model = open_model(engine, argv[1]);
    CHECK(kigo_model_info(model, &facts) == KIGO_STATUS_OK);
    CHECK(kigo_model_layer_info(model, facts.n_layers - 1, &layer) == KIGO_STATUS_OK);
    for (uint32_t i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + 11) % 500;
    float *a = malloc(facts.n_vocab * sizeof *a), *b = malloc(facts.n_vocab * sizeof *b);
    CHECK(a != NULL && b != NULL);
    bits_and_rows(a, b);
    stops(a, b);
    ended_inside(a, b);
    names();
    misuse();
    batch(a, b);
    free(a);
    free(b);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
