// A conversation in the terminal. Ctrl-C stops the answer; at the prompt it ends the program, as the end of input does.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "common.h"
#include "constraint.h"

static const char *const USAGE =
    "usage: chat " SETUP_USAGE " [--system TEXT] [-n N]\n"
    "            " SAMPLING_USAGE "\n"
    "            " CONSTRAINT_USAGE "\n"
    "  --system  what comes before the conversation, as the system's message\n"
    "  -n        the most tokens of one answer (until the context is full)\n"
    CONSTRAINT_HELP;

// The session that is answering, for the signal handler.
static const kigo_session *volatile answering;
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
    if (answering != NULL)
        kigo_session_cancel(answering);
}

static int32_t on_progress(uint64_t done_bytes, uint64_t total_bytes, void *user_data)
{
    (void)user_data;
    static const char BAR[] = "########################################";
    int width = (int)sizeof BAR - 1;
    double share = total_bytes != 0 ? (double)done_bytes / (double)total_bytes : 1;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\rloading [%-*.*s] %3.0f%%", width, (int)(share * width), BAR, share * 100);
    return interrupted;
}

static int32_t on_token(uint32_t token, const char *data, size_t len, void *user_data)
{
    (void)token;
    text_append(user_data, data, len);
    fwrite(data, 1, len, stdout);
    return flush_output();
}

// What has been said; contents are allocated, roles are not.
typedef struct talk {
    kigo_message *messages;
    size_t n;
} talk;

// Takes `content` over.
static void say(talk *t, const char *role, char *content, size_t len)
{
    t->messages = resize(t->messages, (t->n + 1) * sizeof *t->messages);
    t->messages[t->n++] = (kigo_message){role, KIGO_STRLEN, content, len};
}

// Takes `n` messages back, from number `first` on.
static void forget(talk *t, size_t first, size_t n)
{
    for (size_t i = first; i < first + n; i++)
        free((char *)t->messages[i].content);
    t->n -= n;
    memmove(t->messages + first, t->messages + first + n, (t->n - first) * sizeof *t->messages);
}

// Makes the session hold the conversation; what it holds of it already stays.
static kigo_status bring_up_to_date(const kigo_model *model, kigo_session *session, const talk *t)
{
    size_t n_ids, n_held, n_same = 0;
    const uint64_t flags = KIGO_CHAT_ADD_GENERATION_PROMPT;
    CHECK(kigo_chat_render(model, t->messages, t->n, flags, NULL, 0, &n_ids));
    CHECK(kigo_session_n_tokens(session, &n_held));
    uint32_t *ids = resize(NULL, n_ids * sizeof *ids), *held = resize(NULL, n_held * sizeof *held);
    CHECK(kigo_chat_render(model, t->messages, t->n, flags, ids, n_ids, &n_ids));
    CHECK(kigo_session_tokens(session, held, n_held, &n_held));
    while (n_same + 1 < n_ids && n_same < n_held && ids[n_same] == held[n_same])
        n_same++; // one at least is left to prefill: the logits after it are wanted
    CHECK(kigo_session_truncate(session, n_same));
    kigo_status status = kigo_session_prefill(session, ids + n_same, n_ids - n_same);
    free(ids);
    free(held);
    return status;
}

// Answers the last message; 0 if there is no answer.
static int answer(const kigo_model *model, kigo_session *session, talk *t, size_t first, size_t n_tokens,
                  const kigo_constraint *grammar)
{
    kigo_status status;
    while ((status = bring_up_to_date(model, session, t)) == KIGO_STATUS_CONTEXT_FULL && t->n > first + 2) {
        fprintf(stderr, "(the context is full: the oldest question and answer are forgotten)\n");
        forget(t, first, 2);
    }
    if (status == KIGO_STATUS_CANCELLED || status == KIGO_STATUS_CONTEXT_FULL) {
        fprintf(stderr, "(%s)\n", kigo_last_error());
        return 0;
    }
    CHECK(status);
    CHECK(kigo_session_set_constraint(session, grammar)); // each answer begins anew
    text said = {NULL, 0};
    kigo_generate_options options = {.struct_size = sizeof options, .max_tokens = n_tokens};
    options.on_token = on_token;
    options.user_data = &said;
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_generate(session, &options, &generated));
    printf("%s\n", generated.stop_reason == KIGO_STOP_CANCELLED ? " (stopped)" : "");
    say(t, "assistant", said.data, said.len);
    return 1;
}

int main(int argc, char **argv)
{
    setup s = {.sampling = {.struct_size = sizeof s.sampling}};
    talk t = {NULL, 0};
    constraint grammar = {0, NULL, 0};
    size_t n_tokens = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--system") == 0) {
            text system = {NULL, 0};
            const char *value = value_of(argc, argv, &i);
            text_append(&system, value, strlen(value));
            say(&t, "system", system.data, system.len);
        } else if (strcmp(argv[i], "-n") == 0)
            n_tokens = whole_of(argc, argv, &i, SIZE_MAX);
        else if (!read_setup(&s, argc, argv, &i) && !read_sampling(&s.sampling, argc, argv, &i) &&
                 !read_constraint(&grammar, argc, argv, &i))
            bad_usage(argv[i], "is not an option");
    }
    const size_t first = t.n; // the first message that may be forgotten

    struct sigaction action = {.sa_handler = on_interrupt}; // no SA_RESTART: reading a line ends too
    sigaction(SIGINT, &action, NULL);
    kigo_engine *engine;
    kigo_model *model;
    kigo_session *session;
    open_model(&s, on_progress, &engine, &model);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%60s\r", "");
    kigo_session_options options = {.struct_size = sizeof options, .sampling = &s.sampling};
    CHECK(kigo_session_create(model, &options, &session));
    kigo_constraint *held_to = open_constraint(model, &grammar);

    char *line = NULL;
    size_t capacity = 0;
    for (;;) {
        printf("%s", isatty(STDIN_FILENO) ? "> " : "");
        flush_output();
        interrupted = 0;
        ssize_t len = getline(&line, &capacity, stdin);
        if (len < 0)
            break; // the end of input, or Ctrl-C
        len -= len > 0 && line[len - 1] == '\n';
        if (len == 0)
            continue;
        text question = {NULL, 0};
        text_append(&question, line, (size_t)len);
        say(&t, "user", question.data, question.len);
        CHECK(kigo_session_clear_cancel(session));
        answering = session;
        int answered = answer(model, session, &t, first, n_tokens, held_to);
        answering = NULL;
        if (!answered)
            forget(&t, t.n - 1, 1);
    }
    printf("%s", isatty(STDIN_FILENO) ? "\n" : "");

    free(line);
    forget(&t, 0, t.n);
    free(t.messages);
    kigo_constraint_destroy(held_to);
    kigo_session_destroy(session);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return finish_output();
}
