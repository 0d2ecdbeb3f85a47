// Goes on with a prompt, or answers it as a chat message, and streams the text.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "common.h"
#include "constraint.h"
#include "logprobs.h"
#include "trace.h"

static const char *const USAGE =
    "usage: generate " SETUP_USAGE " (-p TEXT | -f FILE) [-n N] [--chat] [--special]\n"
    "                " SAMPLING_USAGE " \n"
    "                " CONSTRAINT_USAGE " [--json] [--trace FILE] [--logprobs N]\n"
    "  -p, -f     the prompt, or the file it stands in (- is standard input)\n"
    "  -n         the most tokens to generate (128)\n"
    "  --chat     the prompt is a user's message, rendered by the model's chat template\n"
    "  --special  control tokens named in the prompt are control tokens (never with --chat)\n"
    CONSTRAINT_HELP
    "  --logprobs print a line of JSON for each token: its log probability before and after\n"
    "             the sampler, and those of the N likeliest tokens in its place\n"
    "  --trace    write tokens, sampled ids and every activation to a safetensors file\n"
    "  --json     print one object at the end: prompt_ids, ids, text, top_logits, and speeds\n";

#define N_TOP 10

typedef struct answer {
    text text;
    uint32_t *ids;
    size_t n_ids;
    int quiet;
} answer;

static int32_t on_token(uint32_t token, const char *data, size_t len, void *user_data)
{
    answer *a = user_data;
    if (token != KIGO_TOKEN_NONE) {
        a->ids = resize(a->ids, (a->n_ids + 1) * sizeof *a->ids);
        a->ids[a->n_ids++] = token;
    }
    text_append(&a->text, data, len);
    if (!a->quiet)
        fwrite(data, 1, len, stdout);
    return !a->quiet && flush_output(); // nobody reads any more: stop
}

// Prints the largest logits, largest first; of equal ones the lowest id first.
static void json_top(const float *logits, size_t n)
{
    uint32_t top[N_TOP + 1];
    size_t n_top = 0;
    for (size_t id = 0; id < n; id++) {
        size_t at = n_top;
        for (; at > 0 && logits[top[at - 1]] < logits[id]; at--)
            top[at] = top[at - 1];
        top[at] = (uint32_t)id;
        n_top += n_top < N_TOP;
    }
    printf("\"top_logits\": [");
    for (size_t i = 0; i < n_top; i++) {
        printf("%s[%lu, ", i == 0 ? "" : ", ", (unsigned long)top[i]);
        json_number(logits[top[i]]);
        putchar(']');
    }
    printf("], ");
}

// The token that ended the answer was sampled too, but never appended.
static void write_trace(trace *t, const char *path, kigo_session *session, const answer *a, const kigo_generated *g,
                        uint64_t seed)
{
    size_t n_tokens, n = a->n_ids;
    CHECK(kigo_session_n_tokens(session, &n_tokens));
    uint32_t *sampled = resize(NULL, (n + 1) * sizeof *sampled);
    size_t *counters = resize(NULL, (n + 1) * sizeof *counters);
    for (size_t i = 0; i < n; i++) {
        sampled[i] = a->ids[i];
        counters[i] = n_tokens - n + i; // the position that the token was chosen for
    }
    if (g->stop_reason == KIGO_STOP_END_TOKEN) {
        sampled[n] = g->stop_token;
        counters[n++] = n_tokens;
    }
    trace_tokens(t, session, sampled, counters, n);
    trace_write(t, path, seed);
    free(sampled);
    free(counters);
}

int main(int argc, char **argv)
{
    setup s = {.sampling = {.struct_size = sizeof s.sampling}};
    const char *prompt_text = NULL, *prompt_path = NULL, *trace_path = NULL;
    uint64_t flags = KIGO_TOKENIZE_ADD_SPECIAL;
    size_t n_tokens = 128;
    size_t n_top = 0;
    constraint grammar = {0, NULL, 0};
    int chat = 0, json = 0, logprobs = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-p") == 0)
            prompt_text = value_of(argc, argv, &i);
        else if (strcmp(argv[i], "-f") == 0)
            prompt_path = value_of(argc, argv, &i);
        else if (strcmp(argv[i], "-n") == 0)
            n_tokens = whole_of(argc, argv, &i, SIZE_MAX);
        else if (strcmp(argv[i], "--chat") == 0)
            chat = 1;
        else if (strcmp(argv[i], "--special") == 0)
            flags |= KIGO_TOKENIZE_PARSE_SPECIAL;
        else if (strcmp(argv[i], "--trace") == 0)
            trace_path = value_of(argc, argv, &i);
        else if (strcmp(argv[i], "--json") == 0)
            json = 1;
        else if (strcmp(argv[i], "--logprobs") == 0) {
            n_top = whole_of(argc, argv, &i, 1 << 20);
            logprobs = 1;
        } else if (!read_setup(&s, argc, argv, &i) && !read_sampling(&s.sampling, argc, argv, &i) &&
                   !read_constraint(&grammar, argc, argv, &i))
            unknown_option(argv[i]);
    }
    if ((prompt_text == NULL) == (prompt_path == NULL))
        bad_usage("-p or -f", "is needed, and only one of them");

    if (logprobs && (json || trace_path != NULL))
        bad_usage("--logprobs", "cannot be there together with --json or --trace");

    text file = {NULL, 0};
    if (prompt_path != NULL)
        file = read_file(prompt_path);
    kigo_string prompt = {prompt_text, KIGO_STRLEN};
    if (prompt_path != NULL)
        prompt = (kigo_string){file.data, file.len};

    kigo_engine *engine;
    kigo_model *model;
    kigo_session *session;
    open_model(&s, &engine, &model);
    size_t n_prompt, n_logits;
    uint32_t *prompt_ids = tokenize(model, prompt, chat, flags, &n_prompt);
    kigo_session_options options = {.struct_size = sizeof options, .sampling = &s.sampling};
    CHECK(kigo_session_create(model, &options, &session));
    trace recorded = {NULL, 0};
    kigo_tap_options tap = {.struct_size = sizeof tap, .callback = trace_on_event, .user_data = &recorded};
    if (trace_path != NULL)
        CHECK(kigo_session_set_tap(session, &tap));

    double start = now_seconds();
    CHECK(kigo_session_prefill(session, prompt_ids, n_prompt));
    double prefill_seconds = now_seconds() - start;
    CHECK(kigo_session_logits(session, NULL, 0, &n_logits));
    float *logits = resize(NULL, n_logits * sizeof *logits);
    CHECK(kigo_session_logits(session, logits, n_logits, &n_logits));

    kigo_constraint *held_to = open_constraint(model, &grammar);
    CHECK(kigo_session_set_constraint(session, held_to));
    kigo_constraint_destroy(held_to);
    answer a = {.quiet = json};
    kigo_generate_options generate = {.struct_size = sizeof generate, .max_tokens = n_tokens};
    generate.on_token = on_token;
    generate.user_data = &a;
    kigo_generated generated = {.struct_size = sizeof generated};
    start = now_seconds();
    if (logprobs)
        generate_logprobs(model, session, n_tokens, n_top);
    else if (n_tokens != 0) // to the library 0 would mean: without limit
        CHECK(kigo_session_generate(session, &generate, &generated));
    double decode_seconds = now_seconds() - start;

    double prefill_speed = prefill_seconds > 0 ? (double)n_prompt / prefill_seconds : 0;
    double decode_speed = a.n_ids != 0 && decode_seconds > 0 ? (double)a.n_ids / decode_seconds : 0;
    if (json) {
        putchar('{');
        json_ids("prompt_ids", prompt_ids, n_prompt);
        json_ids("ids", a.ids, a.n_ids);
        printf("\"text\": ");
        json_string(a.text.data, a.text.len);
        printf(", ");
        json_top(logits, n_logits);
        printf("\"prefill_tokens_per_s\": %.2f, \"decode_tokens_per_s\": %.2f}\n", prefill_speed, decode_speed);
    } else if (!logprobs) {
        putchar('\n');
        flush_output();
        fprintf(stderr, "\n%zu tokens of prompt at %.1f/s, ", n_prompt, prefill_speed);
        fprintf(stderr, "%zu of answer at %.1f/s\n", a.n_ids, decode_speed);
    }

    if (trace_path != NULL)
        write_trace(&recorded, trace_path, session, &a, &generated, s.sampling.seed);
    trace_free(&recorded);
    free(logits);
    free(prompt_ids);
    free(file.data);
    free(a.text.data);
    free(a.ids);
    kigo_session_destroy(session);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return finish_output();
}
