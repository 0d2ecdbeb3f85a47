// A conversation in the terminal. Ctrl-C stops the answer; at the prompt it ends the program, as the end of input does.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "common.h"
#include "constraint.h"
#include "edit.h"
#include "talk.h"
#include "wrap.h"

static const char *const USAGE =
    "usage: chat " SETUP_USAGE " [--system TEXT] [-n N]\n"
    "            " SAMPLING_USAGE "\n"
    "            " CONSTRAINT_USAGE "\n"
    "  --system  what comes before the conversation, as the system's message\n"
    "  -n        the most tokens of one answer (until the context is full)\n"
    CONSTRAINT_HELP;

static const char COMMANDS[] =
    "/help         this\n"
    "/reset        forgets the conversation, but for the system's message\n"
    "/system TEXT  sets the system's message, or takes it away, and forgets the conversation\n"
    "/save FILE    writes the conversation to a file, as JSON\n"
    "/load FILE    goes on with the conversation of a file\n"
    "/exit         ends the program, as Ctrl-D does; Ctrl-C stops an answer\n";

// The session that is answering, for the signal handler.
static const kigo_session *volatile answering;

static void on_signal(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
    if (answering != NULL)
        kigo_session_cancel(answering);
}

typedef struct chat {
    const kigo_model *model;
    kigo_session *session;
    kigo_constraint *held_to;
    size_t n_tokens;
    talk talk;
    text said; // of the answer so far
    wrapper out;
} chat;

static int32_t on_token(uint32_t token, const char *data, size_t len, void *user_data)
{
    chat *c = user_data;
    (void)token;
    text_append(&c->said, data, len);
    wrap(&c->out, data, len);
    return flush_output();
}

// Makes the session hold the conversation; what it holds of it already stays.
static kigo_status bring_up_to_date(chat *c)
{
    size_t n_ids, n_held, n_same = 0;
    uint32_t *ids = render(c->model, &c->talk, &n_ids);
    CHECK(kigo_session_n_tokens(c->session, &n_held));
    uint32_t *held = resize(NULL, n_held * sizeof *held);
    CHECK(kigo_session_tokens(c->session, held, n_held, &n_held));
    while (n_same + 1 < n_ids && n_same < n_held && ids[n_same] == held[n_same])
        n_same++; // one at least is left to prefill: the logits after it are wanted
    kigo_status status = kigo_session_truncate(c->session, n_same);
    if (status == KIGO_STATUS_OK)
        status = kigo_session_prefill(c->session, ids + n_same, n_ids - n_same);
    free(ids);
    free(held);
    return status;
}

// Whether a call found no room for what it should have added; what was there before it is still there.
static int is_full(kigo_status status)
{
    return status == KIGO_STATUS_CONTEXT_FULL || status == KIGO_STATUS_CACHE_FULL || status == KIGO_STATUS_OUT_OF_MEMORY;
}

static const char *what_is_full(kigo_status status)
{
    return status == KIGO_STATUS_CONTEXT_FULL ? "context" : status == KIGO_STATUS_CACHE_FULL ? "cache" : "memory";
}

// Answers the last message; 0 if there is no answer.
static int answer(chat *c)
{
    size_t first = n_system(&c->talk); // the first message that may be forgotten
    kigo_status status;
    while (is_full(status = bring_up_to_date(c)) && c->talk.n > first + 2) {
        fprintf(stderr, "(the %s is full: the oldest question and answer are forgotten)\n", what_is_full(status));
        forget(&c->talk, first, 2);
    }
    if (status == KIGO_STATUS_CANCELLED || is_full(status)) {
        fprintf(stderr, "(%s)\n", kigo_last_error());
        return 0;
    }
    CHECK(status);
    CHECK(kigo_session_set_constraint(c->session, c->held_to)); // each answer begins anew
    c->said = (text){NULL, 0};
    kigo_generate_options options = {.struct_size = sizeof options, .max_tokens = c->n_tokens};
    options.on_token = on_token;
    options.user_data = c;
    kigo_generated generated = {.struct_size = sizeof generated};
    wrap_reset(&c->out);
    status = kigo_session_generate(c->session, &options, &generated);
    wrap_reset(&c->out);
    if (!is_full(status))
        CHECK(status);
    printf("%s\n", status == KIGO_STATUS_OK && generated.stop_reason == KIGO_STOP_CANCELLED ? " (stopped)" : "");
    if (status != KIGO_STATUS_OK || generated.stop_reason == KIGO_STOP_CONTEXT_FULL) {
        flush_output();
        fprintf(stderr, "(the %s is full, and the answer cut off: /reset begins anew)\n",
                what_is_full(status != KIGO_STATUS_OK ? status : KIGO_STATUS_CONTEXT_FULL));
    }
    text_append(&c->said, "", 0);
    say(&c->talk, "assistant", c->said.data, c->said.len);
    return 1;
}

// The conversation of a file in place of this one, if there is one.
static void load(chat *c, const char *path)
{
    talk loaded = {NULL, 0};
    const char *why = load_talk(&loaded, path);
    if (why != NULL) {
        fprintf(stderr, "%s: %s\n", path, why);
        free(loaded.messages);
        return;
    }
    forget(&c->talk, 0, c->talk.n);
    free(c->talk.messages);
    c->talk = loaded;
    fprintf(stderr, "(%zu messages)\n", c->talk.n);
}

// Does what a line with a slash says. 0: it is no command, -1: the program is to end.
static int command(chat *c, const char *line)
{
    size_t n = strcspn(line, " ");
    const char *rest = line + n + strspn(line + n, " ");
    size_t first = n_system(&c->talk);
    if (n == 5 && strncmp(line, "/help", n) == 0) {
        fprintf(stderr, "%s", COMMANDS);
    } else if (n == 6 && strncmp(line, "/reset", n) == 0) {
        forget(&c->talk, first, c->talk.n - first);
    } else if (n == 7 && strncmp(line, "/system", n) == 0) {
        forget(&c->talk, 0, c->talk.n);
        if (*rest != '\0')
            say_copy(&c->talk, "system", rest, strlen(rest));
    } else if (n == 5 && (strncmp(line, "/save", n) == 0 || strncmp(line, "/load", n) == 0)) {
        if (*rest == '\0')
            fprintf(stderr, "%.5s: needs a file\n", line);
        else if (line[1] == 'l')
            load(c, rest);
        else if (!save_talk(&c->talk, rest))
            fprintf(stderr, "%s: %s\n", rest, strerror(errno));
    } else if (n == 5 && strncmp(line, "/exit", n) == 0) {
        return -1;
    } else {
        return 0;
    }
    return 1;
}

// One line of input; 0: the program is to end.
static int take(chat *c, const char *line, size_t len)
{
    if (len == 0)
        return 1;
    int known = line[0] == '/' ? command(c, line) : 0;
    if (known != 0)
        return known > 0;
    say_copy(&c->talk, "user", line, len);
    CHECK(kigo_session_clear_cancel(c->session));
    answering = c->session;
    int answered = answer(c);
    answering = NULL;
    if (!answered)
        forget(&c->talk, c->talk.n - 1, 1);
    return 1;
}

// Until the end of input, /exit or Ctrl-C. Lines are edited in a terminal, and read as they are elsewhere.
static void converse(chat *c)
{
    const char *terminal = getenv("TERM");
    int edited = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && terminal != NULL && strcmp(terminal, "dumb") != 0;
    editor e = {.at = 0};
    char *line = NULL;
    size_t capacity = 0;
    c->out.on = isatty(STDOUT_FILENO);
    if (edited)
        fprintf(stderr, "/help shows the commands\n");
    for (int goes_on = 1; goes_on;) {
        interrupted = 0;
        if (edited) {
            const text *given = edit_line(&e, "> ");
            if (given == NULL)
                break;
            goes_on = take(c, given->data != NULL ? given->data : "", given->len);
        } else {
            printf("%s", isatty(STDIN_FILENO) ? "> " : "");
            flush_output();
            ssize_t len = getline(&line, &capacity, stdin);
            if (len < 0)
                break; // the end of input, or Ctrl-C
            len -= len > 0 && line[len - 1] == '\n';
            line[len] = '\0';
            goes_on = take(c, line, (size_t)len);
        }
    }
    if (isatty(STDIN_FILENO) && !edited)
        printf("\n");
    editor_free(&e);
    free(line);
}

int main(int argc, char **argv)
{
    setup s = {.sampling = {.struct_size = sizeof s.sampling}};
    chat c = {.n_tokens = 0};
    constraint grammar = {0, NULL, 0};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--system") == 0) {
            const char *value = value_of(argc, argv, &i);
            forget(&c.talk, 0, c.talk.n);
            say_copy(&c.talk, "system", value, strlen(value));
        } else if (strcmp(argv[i], "-n") == 0)
            c.n_tokens = whole_of(argc, argv, &i, SIZE_MAX);
        else if (!read_setup(&s, argc, argv, &i) && !read_sampling(&s.sampling, argc, argv, &i) &&
                 !read_constraint(&grammar, argc, argv, &i))
            unknown_option(argv[i]);
    }
    struct sigaction action = {.sa_handler = on_signal}; // no SA_RESTART: reading a line ends too
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    kigo_engine *engine;
    kigo_model *model;
    open_model(&s, &engine, &model);
    kigo_session_options options = {.struct_size = sizeof options, .sampling = &s.sampling};
    CHECK(kigo_session_create(model, &options, &c.session));
    c.model = model;
    c.held_to = open_constraint(model, &grammar);
    converse(&c);

    forget(&c.talk, 0, c.talk.n);
    free(c.talk.messages);
    free(c.out.word.data);
    kigo_constraint_destroy(c.held_to);
    kigo_session_destroy(c.session);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return finish_output();
}
