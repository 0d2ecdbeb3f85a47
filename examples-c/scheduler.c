// A scheduler of a program's own: prompts wait in a queue, all answers step together, and one prompt at a time goes in piece
// by piece beside them, so that no answer waits longer than for a piece.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "common.h"

static const char *const USAGE =
    "usage: scheduler " SETUP_USAGE " -f FILE [-n N] [--batch N] [--piece N]\n"
    "                 " SAMPLING_USAGE "\n"
    "  -f       the prompts, one a line (- is standard input); empty lines are left out\n"
    "  -n       the most tokens of an answer (128)\n"
    "  --batch  the most answers at a time (32)\n"
    "  --piece  the most tokens of prompts beside a step of the answers (16)\n"
    "Prints one JSON object a line as answers end: index, text, tokens, stop, and the longest wait for a token in ms.\n";

enum { MOST = 1024 };

typedef struct request {
    kigo_session *session; // NULL: it is in the queue, or done
    kigo_stream *stream;
    uint32_t *ids, token;
    size_t index, n_ids, n_in, n_tokens, n_now; // of the prompt, in the cache, of the answer, in this call
    double last, longest;                       // when its last token came, and the longest wait for one
    text answer;
} request;

static void begin(request *r, size_t index, kigo_string prompt, const kigo_model *model, const setup *s)
{
    *r = (request){.index = index};
    kigo_session_options options = {.struct_size = sizeof options, .sampling = &s->sampling};
    CHECK(kigo_session_create(model, &options, &r->session));
    CHECK(kigo_stream_create(model, NULL, &r->stream));
    r->ids = tokenize(model, prompt, 0, KIGO_TOKENIZE_ADD_SPECIAL, &r->n_ids);
}

static void end(request *r, const char *stop)
{
    kigo_stream_text out = {.struct_size = sizeof out};
    CHECK(kigo_stream_finish(r->stream, &out));
    text_append(&r->answer, out.text, out.text_len);
    printf("{\"index\": %zu, \"text\": ", r->index);
    json_string(r->answer.data, r->answer.len);
    printf(", \"tokens\": %zu, \"stop\": \"%s\", \"longest_wait_ms\": %.3f}\n", r->n_tokens, stop, 1e3 * r->longest);
    flush_output();
    kigo_session_destroy(r->session);
    kigo_stream_destroy(r->stream);
    free(r->ids);
    free(r->answer.data);
    r->session = NULL;
}

// A token has been chosen; why the answer has ended by it, or NULL.
static const char *take(request *r, uint32_t token, const kigo_model *model, size_t most_tokens)
{
    double now = now_seconds();
    if (r->n_tokens != 0 && now - r->last > r->longest)
        r->longest = now - r->last;
    r->last = now;
    uint64_t flags;
    CHECK(kigo_token_flags(model, token, &flags));
    if ((flags & KIGO_TOKEN_IS_END) != 0)
        return "end";
    kigo_stream_text out = {.struct_size = sizeof out};
    CHECK(kigo_stream_push(r->stream, token, &out));
    text_append(&r->answer, out.text, out.text_len);
    r->token = token;
    return ++r->n_tokens == most_tokens ? "max_tokens" : NULL;
}

int main(int argc, char **argv)
{
    setup s = {.sampling = {.struct_size = sizeof s.sampling}};
    const char *path = NULL;
    size_t most_tokens = 128, most = 32, most_piece = 16;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-f") == 0)
            path = value_of(argc, argv, &i);
        else if (strcmp(argv[i], "-n") == 0)
            most_tokens = whole_from(argc, argv, &i, 1, SIZE_MAX);
        else if (strcmp(argv[i], "--batch") == 0)
            most = whole_from(argc, argv, &i, 1, MOST);
        else if (strcmp(argv[i], "--piece") == 0)
            most_piece = whole_from(argc, argv, &i, 1, SIZE_MAX);
        else if (!read_setup(&s, argc, argv, &i) && !read_sampling(&s.sampling, argc, argv, &i))
            unknown_option(argv[i]);
    }
    if (path == NULL)
        bad_usage("-f", "is missing");
    kigo_engine *engine;
    kigo_model *model;
    open_model(&s, &engine, &model);
    text file = read_file(path);
    static request requests[MOST], *now[MOST];
    static kigo_session *sessions[MOST];
    static const uint32_t *ids[MOST];
    static uint32_t tokens[MOST];
    static kigo_status statuses[MOST];
    static size_t n_ids[MOST];
    size_t n_running = 0, next = 0;

    for (char *line = file.data; line != NULL || n_running != 0;) {
        // The queue: the file's next lines, as places come free.
        while (line != NULL && n_running < most) {
            size_t len = strcspn(line, "\r\n");
            if (len != 0)
                begin(&requests[n_running++], next++, (kigo_string){line, len}, model, &s);
            line = line[len] != '\0' ? line + len + 1 : NULL;
        }
        // Each answer's token, and of the oldest prompts as much as others may wait for.
        size_t n = 0, piece = most_piece;
        for (size_t i = 0; i < n_running; i++) {
            request *r = &requests[i];
            size_t left = r->n_ids - r->n_in;
            r->n_now = left != 0 ? (left < piece ? left : piece) : 1;
            piece -= left != 0 ? r->n_now : 0;
            ids[n] = left != 0 ? r->ids + r->n_in : &r->token;
            n_ids[n] = r->n_now, sessions[n] = r->session, now[n] = r;
            n += r->n_now != 0;
        }
        kigo_prefill_batch(sessions, ids, n_ids, n, statuses);
        // Who has all of the prompt chooses a token.
        size_t n_chosen = 0;
        for (size_t i = 0; i < n; i++) {
            if (statuses[i] != KIGO_STATUS_OK)
                end(now[i], kigo_status_name(statuses[i]));
            else if (now[i]->n_in < now[i]->n_ids && (now[i]->n_in += now[i]->n_now) < now[i]->n_ids)
                continue;
            else
                sessions[n_chosen] = now[i]->session, now[n_chosen++] = now[i];
        }
        kigo_sample_batch(sessions, n_chosen, tokens, statuses);
        for (size_t i = 0; i < n_chosen; i++) {
            const char *stop = statuses[i] == KIGO_STATUS_OK ? take(now[i], tokens[i], model, most_tokens)
                                                             : kigo_status_name(statuses[i]);
            if (stop != NULL)
                end(now[i], stop);
        }
        size_t kept = 0;
        for (size_t i = 0; i < n_running; i++)
            if (requests[i].session != NULL)
                requests[kept++] = requests[i];
        n_running = kept;
    }
    free(file.data);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return finish_output();
}
