// A conversation that outlasts its context: when that is full, the system's message and the newest turns go on. docs/CONTEXT.md
// tells why it is done this way.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "common.h"
#include "talk.h"

static const char *const USAGE =
    "usage: window " SETUP_USAGE " [--system TEXT] [--context N] [-n N]\n"
    "              " SAMPLING_USAGE "\n"
    "  --context  tokens of the context (512)\n"
    "  -n         the most tokens of an answer (64)\n"
    "Answers each line of standard input; what was kept and what was computed goes to standard error.\n";

// The ids of as much of the conversation as leaves room for an answer; the `first` messages are never forgotten. Where something
// has to go, so much goes that it is half the context afterwards: all that stays behind it has to be computed anew, which is then
// seldom.
static uint32_t *fit(const kigo_model *model, talk *t, size_t first, size_t context, size_t answer, size_t *n_ids)
{
    uint32_t *ids = render(model, t, n_ids);
    size_t most = context - answer, n = 0;
    for (; *n_ids > most && t->n > first + 2; n++) {
        forget(t, first, 2); // a question and its answer
        free(ids);
        ids = render(model, t, n_ids);
        most = context / 2;
    }
    if (n != 0)
        fprintf(stderr, "(the context is full: %zu turns are forgotten)\n", n);
    return ids;
}

static int32_t on_token(uint32_t token, const char *data, size_t len, void *user_data)
{
    (void)token;
    text_append(user_data, data, len);
    fwrite(data, 1, len, stdout);
    return flush_output();
}

// A place for more than a bar: whatever it returns but 0 stops the call, and the session is as it was.
static int32_t on_progress(size_t n_done, size_t n_total, void *user_data)
{
    (void)user_data;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\rreading %zu of %zu tokens\r", n_done, n_total);
    return 0;
}

static void answer(const kigo_model *model, kigo_session *session, talk *t, size_t first, size_t context, size_t most)
{
    size_t n_ids;
    uint32_t *ids = fit(model, t, first, context, most, &n_ids);
    kigo_advance_options how = {.struct_size = sizeof how, .progress = on_progress};
    kigo_advanced a = {.struct_size = sizeof a};
    CHECK(kigo_session_advance(session, ids, n_ids, &how, &a));
    free(ids);
    fprintf(stderr, "(%zu tokens: %llu kept, %llu computed)\n", n_ids, (unsigned long long)a.n_kept,
            (unsigned long long)a.n_computed);
    text said = {NULL, 0};
    kigo_generate_options options = {.struct_size = sizeof options, .max_tokens = most, .on_token = on_token, .user_data = &said};
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_generate(session, &options, &generated));
    printf("\n");
    say(t, "assistant", said.data, said.len);
}

int main(int argc, char **argv)
{
    setup s = {.sampling = {.struct_size = sizeof s.sampling}};
    talk t = {NULL, 0};
    size_t context = 512, most = 64;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--system") == 0) {
            const char *value = value_of(argc, argv, &i);
            say_copy(&t, "system", value, strlen(value));
        } else if (strcmp(argv[i], "--context") == 0)
            context = whole_of(argc, argv, &i, UINT32_MAX);
        else if (strcmp(argv[i], "-n") == 0)
            most = whole_of(argc, argv, &i, UINT32_MAX);
        else if (!read_setup(&s, argc, argv, &i) && !read_sampling(&s.sampling, argc, argv, &i))
            unknown_option(argv[i]);
    }
    if (most == 0 || context / 2 < most)
        bad_usage("-n", "needs at least 1, and half the context at most");
    const size_t first = t.n;

    kigo_engine *engine;
    kigo_model *model;
    kigo_session *session;
    open_model(&s, &engine, &model);
    kigo_session_options options = {.struct_size = sizeof options, .sampling = &s.sampling, .n_ctx = context};
    CHECK(kigo_session_create(model, &options, &session));
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t len; (len = getline(&line, &capacity, stdin)) >= 0;) {
        len -= len > 0 && line[len - 1] == '\n';
        say_copy(&t, "user", line, (size_t)len);
        answer(model, session, &t, first, context, most);
    }

    free(line);
    forget(&t, 0, t.n);
    free(t.messages);
    kigo_session_destroy(session);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return finish_output();
}
