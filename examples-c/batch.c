// Answers every line of a file, many at a time: as one answer ends, the next prompt takes its place.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "common.h"

static const char *const USAGE =
    "usage: batch " SETUP_USAGE " -f FILE [-n N] [--batch N] [--chat]\n"
    "             " SAMPLING_USAGE "\n"
    "  -f       the prompts, one a line (- is standard input); empty lines are left out\n"
    "  -n       the most tokens of an answer (128)\n"
    "  --batch  the most prompts at a time (32)\n"
    "  --chat   each is a user's message, rendered by the model's chat template\n"
    "Prints one JSON object a line as answers end: index, prompt, text, tokens, stop. The bar goes to standard error.\n";

// A prompt on its way.
typedef struct place {
    kigo_session *session; // NULL: nobody has it
    kigo_stream *stream;
    size_t index, n_ids, n_tokens;
    uint32_t *ids, token; // the prompt's ids until they are in, then each token
    text answer;
} place;

// What the batch calls take, for the places that have something to append.
typedef struct call {
    kigo_session **sessions;
    const uint32_t **ids;
    size_t *n_ids, *place, n;
    uint32_t *tokens;
    kigo_status *statuses;
} call;

static void begin(place *p, const kigo_model *model, const setup *s, kigo_string prompt, size_t index, int chat)
{
    kigo_session_options options = {.struct_size = sizeof options, .sampling = &s->sampling};
    options.flags = KIGO_SESSION_REUSE_PREFIX; // a template's or a system prompt's beginning is computed once
    *p = (place){.index = index};
    CHECK(kigo_session_create(model, &options, &p->session));
    CHECK(kigo_stream_create(model, NULL, &p->stream));
    p->ids = tokenize(model, prompt, chat, KIGO_TOKENIZE_ADD_SPECIAL, &p->n_ids);
}

// Without `stop` the prompt will be begun again.
static void end(place *p, const kigo_string *prompts, const char *stop)
{
    kigo_stream_text out = {.struct_size = sizeof out};
    CHECK(kigo_stream_finish(p->stream, &out));
    text_append(&p->answer, out.text, out.text_len);
    if (stop != NULL) {
        printf("{\"index\": %zu, \"prompt\": ", p->index);
        json_string(prompts[p->index].data, prompts[p->index].len);
        printf(", \"text\": ");
        json_string(p->answer.data, p->answer.len);
        printf(", \"tokens\": %zu, \"stop\": ", p->n_tokens);
        json_string(stop, strlen(stop));
        printf("}\n");
        flush_output();
    }
    kigo_stream_destroy(p->stream);
    kigo_session_destroy(p->session);
    free(p->ids);
    free(p->answer.data);
    *p = (place){0};
}

static void bar(size_t done, size_t all, size_t running, size_t n_tokens, double seconds, int last)
{
    static const char full[] = "##############################";
    if (!last && !isatty(2))
        return;
    int width = all != 0 ? (int)(done * 30 / all) : 30;
    fprintf(stderr, "%s[%.*s%*s] %zu of %zu, %zu running, %zu tokens at %.1f/s%s", isatty(2) ? "\r" : "", width, full,
            30 - width, "", done, all, running, n_tokens, seconds > 0 ? (double)n_tokens / seconds : 0, last ? "\n" : "  ");
}

int main(int argc, char **argv)
{
    setup s = {.sampling = {.struct_size = sizeof s.sampling}};
    const char *path = NULL;
    size_t most_tokens = 128, most = 32;
    int chat = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-f") == 0)
            path = value_of(argc, argv, &i);
        else if (strcmp(argv[i], "-n") == 0)
            most_tokens = whole_from(argc, argv, &i, 1, SIZE_MAX);
        else if (strcmp(argv[i], "--batch") == 0)
            most = whole_from(argc, argv, &i, 1, 4096);
        else if (strcmp(argv[i], "--chat") == 0)
            chat = 1;
        else if (!read_setup(&s, argc, argv, &i) && !read_sampling(&s.sampling, argc, argv, &i))
            unknown_option(argv[i]);
    }
    if (path == NULL)
        bad_usage("-f", "is missing");

    text file = read_file(path);
    kigo_string *prompts = NULL;
    size_t n_prompts = 0, next = 0, n_done = 0, n_tokens = 0, n_again = 0;
    for (char *line = file.data, *stop; line != NULL; line = stop != NULL ? stop + 1 : NULL) {
        stop = memchr(line, '\n', (size_t)(file.data + file.len - line));
        size_t len = (size_t)((stop != NULL ? stop : file.data + file.len) - line);
        len -= len != 0 && line[len - 1] == '\r';
        if (len == 0)
            continue;
        prompts = resize(prompts, (n_prompts + 1) * sizeof *prompts);
        prompts[n_prompts++] = (kigo_string){line, len};
    }
    kigo_engine *engine;
    kigo_model *model;
    open_model(&s, &engine, &model);
    place *places = resize(NULL, most * sizeof *places);
    memset(places, 0, most * sizeof *places);
    call c = {.sessions = resize(NULL, most * sizeof *c.sessions), .ids = resize(NULL, most * sizeof *c.ids)};
    c.n_ids = resize(NULL, most * sizeof *c.n_ids);
    c.place = resize(NULL, most * sizeof *c.place);
    c.tokens = resize(NULL, most * sizeof *c.tokens);
    c.statuses = resize(NULL, most * sizeof *c.statuses);

    size_t *again = resize(NULL, most * sizeof *again); // prompts to begin anew
    double start = now_seconds();
    while (n_done < n_prompts) {
        size_t n_running = 0;
        c.n = 0;
        for (size_t i = 0; i < most; i++) {
            place *p = &places[i];
            if (p->session == NULL && (n_again != 0 || next < n_prompts)) {
                size_t index = n_again != 0 ? again[--n_again] : next++;
                begin(p, model, &s, prompts[index], index, chat);
            }
            if (p->session == NULL)
                continue;
            c.sessions[c.n] = p->session;
            c.ids[c.n] = p->n_tokens == 0 ? p->ids : &p->token;
            c.n_ids[c.n] = p->n_tokens == 0 ? p->n_ids : 1;
            c.place[c.n++] = i;
        }
        // Prompts of new places and tokens of the others in the same passes.
        kigo_prefill_batch(c.sessions, c.ids, c.n_ids, c.n, c.statuses);
        for (size_t i = 0; i < c.n; i++)
            n_running += c.statuses[i] == KIGO_STATUS_OK;
        for (size_t i = c.n; i-- > 0;) {
            int full = c.statuses[i] == KIGO_STATUS_CACHE_FULL || c.statuses[i] == KIGO_STATUS_OUT_OF_MEMORY;
            if (c.statuses[i] == KIGO_STATUS_OK || (full && n_running != 0))
                continue; // there will be room when others have ended
            if (full && i != 0) { // nobody can go on: one less at a time
                again[n_again++] = places[c.place[i]].index;
                end(&places[c.place[i]], prompts, NULL);
                most--;
                break;
            }
            end(&places[c.place[i]], prompts, kigo_status_name(c.statuses[i]));
            n_done++;
        }
        size_t n = 0;
        for (size_t i = 0; i < c.n; i++)
            if (places[c.place[i]].session != NULL && c.statuses[i] == KIGO_STATUS_OK) {
                c.sessions[n] = c.sessions[i];
                c.place[n++] = c.place[i];
            }
        kigo_sample_batch(c.sessions, n, c.tokens, c.statuses);
        for (size_t i = 0; i < n; i++) {
            place *p = &places[c.place[i]];
            uint64_t flags = 0;
            const char *stop = c.statuses[i] != KIGO_STATUS_OK ? kigo_status_name(c.statuses[i]) : NULL;
            if (stop == NULL)
                CHECK(kigo_token_flags(model, c.tokens[i], &flags));
            if (stop == NULL && (flags & KIGO_TOKEN_IS_END) == 0) {
                kigo_stream_text out = {.struct_size = sizeof out};
                CHECK(kigo_stream_push(p->stream, c.tokens[i], &out));
                text_append(&p->answer, out.text, out.text_len);
                p->token = c.tokens[i];
                n_tokens++;
                stop = ++p->n_tokens == most_tokens ? "max_tokens" : NULL;
            } else if (stop == NULL) {
                stop = "end";
            }
            if (stop != NULL) {
                end(p, prompts, stop);
                n_done++;
            }
        }
        bar(n_done, n_prompts, n, n_tokens, now_seconds() - start, 0);
    }
    bar(n_done, n_prompts, 0, n_tokens, now_seconds() - start, 1);

    free(places);
    free(again);
    free(c.sessions);
    free(c.ids);
    free(c.n_ids);
    free(c.place);
    free(c.tokens);
    free(c.statuses);
    free(prompts);
    free(file.data);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return finish_output();
}
