// Writes a haiku with a given word in it, exactly once: by default the current minute, in words.
// poem.h has the search, verse.h what a line is, syllables.h how they are counted.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "poem.h"
#include "trace.h"

static const char *const USAGE =
    "usage: haiku " SETUP_USAGE " [--word WORD] [--seed N] [--seconds N]\n"
    "             [--note TEXT] [--trace FILE]\n"
    "  --word     letters and hyphens; otherwise the current minute, from zero to fifty-nine\n"
    "  --seed     of the search; otherwise the time\n"
    "  --seconds  give up after so many (120)\n"
    "  --note     a text that is added to the prompt\n"
    "  --trace    write the tokens and what was sampled to a safetensors file\n"
    "The status is 1 where no haiku was found.\n";

// The current minute in words.
static const char *minute_word(char *buffer, size_t n_bytes)
{
    static const char *const small[] = {"zero",    "one",     "two",       "three",    "four",     "five",    "six",
                                        "seven",   "eight",   "nine",      "ten",      "eleven",   "twelve",  "thirteen",
                                        "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
    static const char *const tens[] = {"twenty", "thirty", "forty", "fifty"};
    time_t now = time(NULL);
    int minute = localtime(&now)->tm_min % 60;
    if (minute < 20)
        snprintf(buffer, n_bytes, "%s", small[minute]);
    else if (minute % 10 == 0)
        snprintf(buffer, n_bytes, "%s", tens[minute / 10 - 2]);
    else
        snprintf(buffer, n_bytes, "%s-%s", tens[minute / 10 - 2], small[minute % 10]);
    return buffer;
}

static size_t render(const kigo_model *model, const char *word, const char *note, uint32_t **ids)
{
    char prompt[1024];
    int n = snprintf(prompt, sizeof prompt,
                     "Write a haiku about this minute of the day. It has three short lines of five, seven and five "
                     "syllables, and the word \"%s\" is in it once. Answer with the three lines alone.%s%s",
                     word, note != NULL ? " " : "", note != NULL ? note : "");
    if (n < 0 || (size_t)n >= sizeof prompt)
        fail("--word and --note", "are too long");
    kigo_message message = {"user", KIGO_STRLEN, prompt, KIGO_STRLEN};
    size_t n_ids;
    CHECK(kigo_chat_render(model, &message, 1, KIGO_CHAT_ADD_GENERATION_PROMPT, NULL, 0, &n_ids));
    *ids = resize(NULL, n_ids * sizeof **ids);
    CHECK(kigo_chat_render(model, &message, 1, KIGO_CHAT_ADD_GENERATION_PROMPT, *ids, n_ids, &n_ids));
    return n_ids;
}

int main(int argc, char **argv)
{
    setup s = {.path = NULL};
    const char *word = NULL, *note = NULL, *trace_path = NULL;
    uint64_t seed = (uint64_t)time(NULL), seconds = 120;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--word") == 0)
            word = value_of(argc, argv, &i);
        else if (strcmp(argv[i], "--note") == 0)
            note = value_of(argc, argv, &i);
        else if (strcmp(argv[i], "--trace") == 0)
            trace_path = value_of(argc, argv, &i);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = whole_of(argc, argv, &i, UINT64_MAX);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = whole_of(argc, argv, &i, 86400);
        else if (!read_setup(&s, argc, argv, &i))
            unknown_option(argv[i]);
    }
    double begin = now_seconds();
    char lower[64], minute[32];
    if (word == NULL)
        word = minute_word(minute, sizeof minute);
    size_t n_word = strlen(word);
    for (size_t i = 0; i <= n_word; i++) {
        if (n_word == 0 || n_word >= sizeof lower || !(in_word(word[i]) || i == n_word) || !isalpha((unsigned char)word[0]))
            bad_usage("--word", "needs 1 to 63 letters and hyphens");
        lower[i] = (char)tolower((unsigned char)word[i]);
    }

    kigo_engine *engine;
    kigo_model *model;
    open_model(&s, &engine, &model);
    kigo_model_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_info(model, &facts));
    form wanted = {.word = lower, .word_syllables = count_syllables(lower)};
    search find = {.n_vocab = facts.n_vocab, .random = seed};
    find.deadline = begin + (double)seconds;
    uint32_t *prompt;
    read_tokens(&find, model);
    size_t n_prompt = render(model, word, note, &prompt);
    CHECK(kigo_session_create(model, NULL, &find.session));
    CHECK(kigo_session_prefill(find.session, prompt, n_prompt));

    float *logprobs[2] = {resize(NULL, facts.n_vocab * sizeof(float)), resize(NULL, facts.n_vocab * sizeof(float))};
    line poem[N_LINES];
    int found = 0, first_line = (int)(draw(&find.random) * N_LINES);
    for (int attempt = 0; !found && wanted.word_syllables <= 7 && now_seconds() < find.deadline; attempt++) {
        if (attempt > 0) { // anew from the prompt
            CHECK(kigo_session_truncate(find.session, n_prompt - 1));
            CHECK(kigo_session_step(find.session, prompt[n_prompt - 1]));
        }
        found = search_poem(&find, n_prompt, (first_line + attempt) % N_LINES, wanted, logprobs, poem);
    }
    double took = now_seconds() - begin;
    size_t n_kept = 0;
    for (int i = 0; i < N_LINES && found; i++) {
        puts(poem[i].text);
        n_kept += poem[i].n_ids;
    }
    flush_output();
    fprintf(stderr, "%s\"%s\": %zu tokens sampled, %zu kept, %.1f s, %.1f tok/s\n", found ? "" : "no haiku found with ",
            word, find.n_sampled, n_kept, took, (double)find.n_sampled / took);
    if (trace_path != NULL) {
        trace t = {NULL, 0};
        trace_tokens(&t, find.session, find.sampled, find.counters, find.n_sampled);
        trace_write(&t, trace_path, seed);
        trace_free(&t);
    }
    free_search(&find);
    free(prompt);
    free(logprobs[0]);
    free(logprobs[1]);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    finish_output();
    return !found;
}
