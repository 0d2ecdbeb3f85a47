// Polled batches: events, ends, sessions in use, and what happens to arguments that are wrong.
#include "check.h"
#include <pthread.h>

static kigo_model *model;
static const uint32_t ids[100] = {1, 2, 3, 4, 5, 6, 7};

struct heard {
    char text[4096];
    size_t text_len, n_tokens;
    uint32_t tokens[64];
    kigo_batch_event end;
};

static int32_t hear_token(uint32_t token, const char *text, size_t text_len, void *user_data)
{
    struct heard *heard = user_data;
    memcpy(heard->text + heard->text_len, text, text_len);
    heard->text_len += text_len;
    if (token != KIGO_TOKEN_NONE)
        heard->tokens[heard->n_tokens++] = token;
    return 0;
}

static void hear(kigo_batch *batch)
{
    for (;;) {
        kigo_batch_event event = {.struct_size = sizeof event};
        CHECK(kigo_batch_next(batch, &event) == KIGO_STATUS_OK);
        if (event.kind == KIGO_BATCH_EVENT_NONE) {
            CHECK(event.session == NULL && event.text == NULL && event.token == KIGO_TOKEN_NONE);
            return;
        }
        struct heard *heard = event.user_data;
        CHECK(event.text[event.text_len] == '\0' && heard->end.kind == KIGO_BATCH_EVENT_NONE);
        CHECK((event.kind == KIGO_BATCH_EVENT_TOKEN) == (event.token != KIGO_TOKEN_NONE));
        hear_token(event.token, event.text, event.text_len, heard);
        CHECK(event.n_tokens == heard->n_tokens);
        if (event.kind == KIGO_BATCH_EVENT_END)
            heard->end = event;
    }
}

static void run_to_the_end(kigo_batch *batch)
{
    size_t n_sessions;
    do {
        CHECK(kigo_batch_run(batch, 0, &n_sessions) == KIGO_STATUS_OK);
        hear(batch);
    } while (n_sessions > 0);
}

// A prompt, a prompt with an answer, an answer with a stop string: each as it is alone.
static void ends(void)
{
    kigo_batch *batch;
    CHECK(kigo_batch_create(model, &batch) == KIGO_STATUS_OK);
    static struct heard heard[3], alone[3];
    kigo_session *sessions[3], *others[3];
    kigo_string stop = {"e", 1};
    kigo_generate_options how[3] = {{0}, {.max_tokens = 20, .flags = KIGO_GENERATE_IGNORE_END}, {.max_tokens = 40, .stop = &stop, .n_stop = 1}};
    for (int i = 0; i < 3; i++) {
        how[i].struct_size = sizeof how[i];
        sessions[i] = empty_session(model), others[i] = empty_session(model);
        size_t n_ids = 90 - 40 * (size_t)i;
        kigo_generated generated = {.struct_size = sizeof generated};
        CHECK(kigo_session_prefill(others[i], ids, n_ids) == KIGO_STATUS_OK);
        how[i].on_token = hear_token, how[i].user_data = &alone[i];
        if (i != 0)
            CHECK(kigo_session_generate(others[i], &how[i], &generated) == KIGO_STATUS_OK);
        how[i].on_token = NULL, how[i].user_data = NULL;
        alone[i].end.stop_reason = generated.stop_reason, alone[i].end.stop_index = generated.stop_index;
        alone[i].end.stop_token = generated.stop_token;
        kigo_batch_work work = {.struct_size = sizeof work, .ids = ids, .n_ids = n_ids, .user_data = &heard[i]};
        work.generate = i != 0 ? &how[i] : NULL;
        if (i == 2) { // its prompt beforehand
            CHECK(kigo_session_prefill(sessions[i], ids, n_ids) == KIGO_STATUS_OK);
            work.ids = NULL, work.n_ids = 0;
        }
        CHECK(kigo_batch_add(batch, sessions[i], &work) == KIGO_STATUS_OK);
        CHECK(kigo_session_step(sessions[i], 1) == KIGO_STATUS_BUSY && kigo_batch_add(batch, sessions[i], &work) == KIGO_STATUS_BUSY);
    }
    run_to_the_end(batch);
    for (int i = 0; i < 3; i++) {
        CHECK(heard[i].end.session == sessions[i] && heard[i].end.status == KIGO_STATUS_OK);
        CHECK(heard[i].n_tokens == alone[i].n_tokens && heard[i].text_len == alone[i].text_len);
        CHECK(memcmp(heard[i].tokens, alone[i].tokens, sizeof heard[i].tokens) == 0);
        CHECK(memcmp(heard[i].text, alone[i].text, sizeof heard[i].text) == 0);
        CHECK(heard[i].end.stop_reason == alone[i].end.stop_reason && heard[i].end.stop_index == alone[i].end.stop_index);
        // What the generation took; the first has none.
        const kigo_batch_event *end = &heard[i].end;
        CHECK(end->n_prompt_tokens == (i != 0 ? 90 - 40 * (uint64_t)i : 0) && end->n_prompt_tokens_reused == 0);
        CHECK((end->prefill_ns > 0) == (i != 0) && (end->first_token_ns > 0) == (end->n_tokens > 0));
        CHECK(end->first_token_ns <= end->decode_ns && end->waiting_ns <= end->decode_ns);
        CHECK((end->between_ns > 0) == (i != 0));
        if (i != 0)
            CHECK(heard[i].end.stop_token == alone[i].end.stop_token);
        same_logits(sessions[i], others[i]);
        kigo_session_destroy(others[i]);
    }
    // They are free again, and may be added once more.
    size_t n_sessions = 7;
    CHECK(kigo_session_step(sessions[0], 3) == KIGO_STATUS_OK);
    CHECK(kigo_batch_run(batch, 1000, &n_sessions) == KIGO_STATUS_OK && n_sessions == 0);
    kigo_batch_work again = {.struct_size = sizeof again, .ids = ids, .n_ids = 3, .user_data = &heard[0]};
    memset(&heard[0], 0, sizeof heard[0]);
    CHECK(kigo_batch_add(batch, sessions[0], &again) == KIGO_STATUS_OK);
    run_to_the_end(batch);
    CHECK(heard[0].end.kind == KIGO_BATCH_EVENT_END && heard[0].n_tokens == 0);
    for (int i = 0; i < 3; i++)
        kigo_session_destroy(sessions[i]);
    kigo_batch_destroy(batch);
}

// Cancelled, removed, destroyed: prompts leave nothing, answers what there was.
static void stops(void)
{
    kigo_batch *batch;
    CHECK(kigo_batch_create(model, &batch) == KIGO_STATUS_OK);
    static struct heard heard[4];
    kigo_session *s[4];
    size_t n_sessions, n_tokens;
    kigo_generate_options how = {.struct_size = sizeof how, .flags = KIGO_GENERATE_IGNORE_END};
    for (int i = 0; i < 4; i++) {
        s[i] = empty_session(model);
        kigo_batch_work work = {.struct_size = sizeof work, .ids = ids, .n_ids = 90, .generate = &how, .user_data = &heard[i]};
        if (i == 1) {
            CHECK(kigo_session_prefill(s[i], ids, 5) == KIGO_STATUS_OK);
            work.n_ids = 0;
        }
        CHECK(kigo_batch_add(batch, s[i], &work) == KIGO_STATUS_OK);
    }
    CHECK(kigo_session_cancel(s[0]) == KIGO_STATUS_OK && kigo_batch_remove(batch, s[2]) == KIGO_STATUS_OK);
    CHECK(kigo_batch_remove(batch, s[2]) == KIGO_STATUS_NOT_FOUND && strstr(kigo_last_error(), "in this batch") != NULL);
    kigo_session *gone = s[3];
    kigo_session_destroy(s[3]);
    CHECK(kigo_batch_run(batch, 0, &n_sessions) == KIGO_STATUS_OK && n_sessions == 1);
    hear(batch);
    CHECK(heard[1].n_tokens == 1 && kigo_session_cancel(s[1]) == KIGO_STATUS_OK);
    CHECK(kigo_batch_run(batch, 0, &n_sessions) == KIGO_STATUS_OK && n_sessions == 0);
    hear(batch);
    CHECK(heard[0].end.status == KIGO_STATUS_CANCELLED && heard[0].end.stop_reason == 0);
    CHECK(heard[1].end.status == KIGO_STATUS_OK && heard[1].end.stop_reason == KIGO_STOP_CANCELLED);
    CHECK(heard[2].end.kind == KIGO_BATCH_EVENT_NONE && heard[2].n_tokens == 0);
    CHECK(heard[3].end.session == gone && heard[3].end.status == KIGO_STATUS_CANCELLED);
    size_t expected[3] = {0, 6, 0};
    for (int i = 0; i < 3; i++) {
        CHECK(kigo_session_n_tokens(s[i], &n_tokens) == KIGO_STATUS_OK && n_tokens == expected[i]);
        kigo_session_destroy(s[i]);
    }
    // With sessions in it, and in any order with the model.
    kigo_session *kept = empty_session(model);
    kigo_batch_work work = {.struct_size = sizeof work, .ids = ids, .n_ids = 90, .generate = &how, .user_data = &heard[0]};
    CHECK(kigo_batch_add(batch, kept, &work) == KIGO_STATUS_OK && kigo_session_step(kept, 1) == KIGO_STATUS_BUSY);
    kigo_batch_destroy(batch);
    CHECK(kigo_session_step(kept, 1) == KIGO_STATUS_OK);
    kigo_session_destroy(kept);
    kigo_batch_destroy(NULL);
}

static int32_t show_nothing(const kigo_tap_event *event, void *user_data)
{
    (void)event, (void)user_data;
    return 0;
}

static void refusals(const kigo_engine *engine, const char *path)
{
    kigo_batch *batch;
    kigo_session *session = empty_session(model);
    CHECK(kigo_batch_create(model, &batch) == KIGO_STATUS_OK);
    kigo_batch_work work = {.struct_size = sizeof work};
    CHECK(kigo_batch_add(batch, session, NULL) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_batch_add(batch, session, &work) == KIGO_STATUS_INVALID_ARGUMENT);
    kigo_generate_options how = {.struct_size = sizeof how, .on_token = hear_token};
    work.generate = &how;
    CHECK(kigo_batch_add(batch, session, &work) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(kigo_last_error(), "on_token") != NULL);
    how.on_token = NULL;
    CHECK(kigo_batch_add(batch, session, &work) == KIGO_STATUS_INVALID_STATE); // no logits
    work.ids = ids, work.n_ids = 10000;
    static uint32_t many[10000];
    work.ids = many;
    CHECK(kigo_batch_add(batch, session, &work) == KIGO_STATUS_CONTEXT_FULL);
    uint32_t wrong = 1u << 30;
    work.ids = &wrong, work.n_ids = 1;
    CHECK(kigo_batch_add(batch, session, &work) == KIGO_STATUS_INVALID_ARGUMENT);
    work.ids = ids, work.n_ids = 5;
    kigo_tap_options tap = {.struct_size = sizeof tap, .callback = show_nothing};
    CHECK(kigo_session_set_tap(session, &tap) == KIGO_STATUS_OK);
    CHECK(kigo_batch_add(batch, session, &work) == KIGO_STATUS_INVALID_STATE);
    CHECK(kigo_session_set_tap(session, NULL) == KIGO_STATUS_OK);
    // None of these has taken it.
    CHECK(kigo_session_step(session, 1) == KIGO_STATUS_OK);
    kigo_model *other = open_model(engine, path);
    kigo_session *foreign;
    CHECK(kigo_session_create(other, NULL, &foreign) == KIGO_STATUS_OK);
    CHECK(kigo_batch_add(batch, foreign, &work) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_batch_remove(batch, foreign) == KIGO_STATUS_NOT_FOUND);
    kigo_session_destroy(foreign);
    kigo_model_destroy(other);
    kigo_session_destroy(session);
    kigo_batch_destroy(batch);
}

static kigo_batch *shared;
static int asked;

static void *run_shared(void *argument)
{
    size_t n_sessions;
    CHECK(kigo_batch_run(shared, 2000, &n_sessions) == KIGO_STATUS_OK);
    (void)argument;
    return NULL;
}

static void a_second_thread_is_told_that_it_is_busy(void)
{
    kigo_session *session = empty_session(model);
    CHECK(kigo_batch_create(model, &shared) == KIGO_STATUS_OK);
    kigo_generate_options how = {.struct_size = sizeof how, .flags = KIGO_GENERATE_IGNORE_END};
    kigo_batch_work work = {.struct_size = sizeof work, .ids = ids, .n_ids = 5, .generate = &how};
    CHECK(kigo_batch_add(shared, session, &work) == KIGO_STATUS_OK);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run_shared, NULL) == 0);
    kigo_batch_event event = {.struct_size = sizeof event};
    for (kigo_status status = KIGO_STATUS_OK; status != KIGO_STATUS_BUSY && event.kind != KIGO_BATCH_EVENT_END; asked++) {
        status = kigo_batch_next(shared, &event);
        CHECK(status == KIGO_STATUS_OK || status == KIGO_STATUS_BUSY);
    }
    kigo_session_cancel(session);
    CHECK(pthread_join(thread, NULL) == 0 && asked > 0);
    kigo_batch_destroy(shared);
    kigo_session_destroy(session);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    kigo_engine *engine = open_engine();
    model = open_model(engine, argv[1]);
    ends();
    stops();
    refusals(engine, argv[1]);
    a_second_thread_is_told_that_it_is_busy();
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
