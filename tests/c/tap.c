// Taps: what they see, that they change nothing, that they stop a call, and what may not be done inside.
#include "check.h"

enum { N_IDS = 70 };

static kigo_model *model;
static kigo_model_facts facts = {.struct_size = sizeof facts};
static uint32_t ids[N_IDS];

struct seen {
    size_t n_events, n_rows[13]; // rows of each name
    const char *stop_at;         // the name whose last-layer event stops
    int64_t stop_layer;
    bool in_order;
    size_t previous;
    kigo_session *session;
};

static size_t index_of(uint64_t tap)
{
    size_t i = 0;
    for (; tap >> i != 1; i++)
        CHECK(i < 13);
    return i;
}

static int32_t see(const kigo_tap_event *event, void *user_data)
{
    static const char *const names[] = {"embed",     "attn_norm", "q_rope",   "k_rope",  "v",     "attn_mix",   "attn_out",
                                        "ffn_norm", "ffn_act",   "ffn_out", "resid", "final_norm", "logits"};
    struct seen *seen = user_data;
    CHECK(event->struct_size == sizeof *event);
    size_t i = index_of(event->tap), kv = facts.n_kv_heads * facts.head_dim, q = facts.n_heads * facts.head_dim;
    size_t d = facts.n_embd;
    const size_t cols[] = {d, d, q, kv, kv, q, d, d, facts.n_ff, d, d, d, facts.n_vocab};
    CHECK(strcmp(event->name, names[i]) == 0);
    CHECK(event->n_cols == cols[i]);
    bool layered = i >= 1 && i <= 10;
    CHECK(layered ? event->layer >= 0 && event->layer < (int64_t)facts.n_layers : event->layer == -1);
    CHECK(event->position + event->n_rows <= N_IDS);
    for (size_t e = 0; e < event->n_rows * event->n_cols; e++)
        CHECK(event->data[e] == event->data[e]);
    seen->n_events++;
    seen->n_rows[i] += event->n_rows;
    if (seen->session != NULL) { // what is not allowed inside
        uint32_t token;
        size_t n;
        kigo_session *other = NULL;
        CHECK(kigo_session_step(seen->session, 1) == KIGO_STATUS_BUSY);
        CHECK(kigo_session_sample(seen->session, &token) == KIGO_STATUS_BUSY);
        CHECK(kigo_session_n_tokens(seen->session, &n) == KIGO_STATUS_BUSY);
        CHECK(kigo_session_set_tap(seen->session, 0, NULL, NULL) == KIGO_STATUS_BUSY);
        CHECK(kigo_session_create(model, NULL, &other) == KIGO_STATUS_BUSY && other == NULL);
        CHECK(kigo_session_clear_cancel(seen->session) == KIGO_STATUS_OK);
    }
    return seen->stop_at != NULL && strcmp(event->name, seen->stop_at) == 0 && event->layer == seen->stop_layer;
}

static kigo_session *new_session(void)
{
    kigo_session *session;
    CHECK(kigo_session_create(model, NULL, &session) == KIGO_STATUS_OK);
    return session;
}

static void logits_of(kigo_session *session, float *logits)
{
    size_t n;
    CHECK(kigo_session_logits(session, logits, facts.n_vocab, &n) == KIGO_STATUS_OK && n == facts.n_vocab);
}

static void bits_and_rows(float *logits, float *tapped)
{
    kigo_session *plain = new_session(), *session = new_session();
    struct seen seen = {.session = session};
    CHECK(kigo_session_set_tap(session, KIGO_TAP_ALL, see, &seen) == KIGO_STATUS_OK);
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
    CHECK(kigo_session_set_tap(session, KIGO_TAP_RESID | KIGO_TAP_LOGITS, see, &seen) == KIGO_STATUS_OK);
    CHECK(kigo_session_truncate(session, 60) == KIGO_STATUS_OK);
    kigo_session *fork;
    CHECK(kigo_session_fork(session, &fork) == KIGO_STATUS_OK);
    CHECK(kigo_session_step(fork, 1) == KIGO_STATUS_OK && seen.n_events == 0);
    CHECK(kigo_session_step(session, 1) == KIGO_STATUS_OK);
    CHECK(seen.n_events == facts.n_layers + 1 && seen.n_rows[10] == facts.n_layers && seen.n_rows[12] == 1);
    CHECK(kigo_session_set_tap(session, 0, NULL, NULL) == KIGO_STATUS_OK);
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
        kigo_session *session = new_session();
        CHECK(kigo_session_prefill(session, ids, 9) == KIGO_STATUS_OK);
        logits_of(session, logits);
        struct seen seen = plots[i];
        CHECK(kigo_session_set_tap(session, KIGO_TAP_ALL, see, &seen) == KIGO_STATUS_OK);
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
        CHECK(kigo_session_set_tap(session, 0, NULL, NULL) == KIGO_STATUS_OK);
        CHECK(kigo_session_step(session, ids[9]) == KIGO_STATUS_OK);
        kigo_session_destroy(session);
    }
}

static int32_t destroy(const kigo_tap_event *event, void *user_data)
{
    kigo_session **session = user_data;
    if (*session != NULL) {
        kigo_session_destroy(*session);
        *session = NULL;
    }
    CHECK(event->data[0] == event->data[0]); // still there
    return 0;
}

// The call it comes from is cancelled and frees the session.
static void destroyed_inside(void)
{
    kigo_session *session = new_session(), *running = session;
    CHECK(kigo_session_set_tap(session, KIGO_TAP_ALL, destroy, &session) == KIGO_STATUS_OK);
    CHECK(kigo_session_prefill(running, ids, 40) == KIGO_STATUS_CANCELLED && session == NULL);
}

static void misuse(void)
{
    kigo_session *session = new_session();
    struct seen seen = {0};
    CHECK(kigo_session_set_tap(NULL, KIGO_TAP_ALL, see, &seen) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_session_set_tap(session, KIGO_TAP_ALL + 1, see, &seen) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "mask is 0x2000; expected flags within 0x1fff") == 0);
    CHECK(kigo_session_set_tap(session, 0, see, &seen) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_session_set_tap(session, KIGO_TAP_V, NULL, NULL) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_session_prefill(session, ids, 3) == KIGO_STATUS_OK && seen.n_events == 0);
    kigo_session_destroy(session);
}

// A session in a batch shows the same rows and gives the same logits.
static void batch(float *logits, float *tapped)
{
    kigo_session *sessions[2] = {new_session(), new_session()};
    struct seen seen = {.session = sessions[0]};
    CHECK(kigo_session_set_tap(sessions[1], KIGO_TAP_ALL, see, &seen) == KIGO_STATUS_OK);
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
    for (uint32_t i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + 11) % 500;
    float *a = malloc(facts.n_vocab * sizeof *a), *b = malloc(facts.n_vocab * sizeof *b);
    CHECK(a != NULL && b != NULL);
    bits_and_rows(a, b);
    stops(a, b);
    destroyed_inside();
    misuse();
    batch(a, b);
    free(a);
    free(b);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
