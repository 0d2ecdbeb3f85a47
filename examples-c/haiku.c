// Writes a haiku with a given word in it, exactly once: by default the current minute, in words.
//
// From one prefilled prompt the poem is searched line by line. A line is sampled token by token from the model's own
// distribution, of which only those tokens are candidates that can still lead to a line of the right length; several
// such lines are tried, by truncating the session back to where the line begins, and the likeliest is kept.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "common.h"
#include "trace.h"
#include "verse.h"

static const char *const USAGE =
    "usage: haiku " SETUP_USAGE " [--word WORD] [--seed N] [--seconds N]\n"
    "             [--note TEXT] [--trace FILE]\n"
    "  --word     letters and hyphens; otherwise the current minute, from zero to fifty-nine\n"
    "  --seed     of the search; otherwise the time\n"
    "  --seconds  give up after so many (120)\n"
    "  --note     a text that is added to the prompt\n"
    "  --trace    write the tokens and what was sampled to a safetensors file\n"
    "The status is 1 where no haiku was found.\n";

enum { N_LINES = 3, N_TRIES = 6, N_CANDIDATES = 48, MOST_TOKENS = 24 };
static const int LENGTHS[N_LINES] = {5, 7, 5};

typedef struct search {
    kigo_session *session;
    kigo_string *texts; // of each token that may stand in a line; NULL where it may not
    uint64_t *ends;     // 1 where the token ends an answer
    size_t n_vocab;
    uint64_t random;
    double deadline;
    uint32_t *sampled; // everything, in the order in which it was sampled, and the position it was chosen for
    size_t *counters, n_sampled;
} search;

typedef struct line {
    char text[MOST_BYTES];     // without the line break
    uint32_t ids[MOST_TOKENS]; // with it, but in the last line
    size_t n_ids;
    double logprob; // mean of its tokens
} line;

// A number in [0, 1), and the next state (splitmix64).
static double draw(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (double)((x ^ x >> 31) >> 11) / 9007199254740992.0;
}

// ---- The search.

typedef struct candidate {
    uint32_t id;
    float logprob;
} candidate;

// The likeliest tokens, from the log probability `least` on, that may follow `text` in a line; the likeliest first. Only
// the last line may end the answer.
static size_t candidates(const search *s, const float *logprobs, const char *text, const form *f, int last, float least,
                         candidate *top)
{
    size_t n = 0, len = strlen(text);
    int finished = is_line(text, f);
    for (uint32_t id = 0; id < s->n_vocab; id++) {
        float p = logprobs[id];
        if (p < least || (n == N_CANDIDATES && p <= top[n - 1].logprob))
            continue;
        const kigo_string t = s->texts[id];
        if ((t.data == NULL && !s->ends[id]) || len + t.len >= MOST_BYTES)
            continue;
        if (s->ends[id] || t.data[t.len - 1] == '\n') {
            if (!finished || (s->ends[id] && !last))
                continue;
        } else {
            char longer[MOST_BYTES];
            if (len == 0 && !isalpha((unsigned char)t.data[0]))
                continue;
            memcpy(longer, text, len);
            memcpy(longer + len, t.data, t.len + 1);
            if (!can_become(longer, f))
                continue;
        }
        size_t at = n < N_CANDIDATES ? n++ : n - 1;
        for (; at > 0 && top[at - 1].logprob < p; at--)
            top[at] = top[at - 1];
        top[at] = (candidate){id, p};
    }
    return n;
}

// Samples one line behind what the session holds; 1 if it came to its end. The session holds it then, but for its end.
static int sample_line(search *s, const float *first, float *logprobs, const form *f, int last, line *out)
{
    *out = (line){.logprob = 0};
    const float *current = first;
    size_t n_held, needed;
    CHECK(kigo_session_n_tokens(s->session, &n_held));
    for (;;) {
        candidate top[N_CANDIDATES];
        // The few that are not out of the question; where none of them fits, all.
        size_t n = candidates(s, current, out->text, f, last, -12, top);
        if (n == 0)
            n = candidates(s, current, out->text, f, last, -INFINITY, top);
        double weights[N_CANDIDATES], total = 0;
        for (size_t i = 0; i < n; i++)
            total += weights[i] = exp(top[i].logprob - top[0].logprob);
        if (n == 0 || out->n_ids == MOST_TOKENS)
            return 0;
        double r = draw(&s->random) * total;
        size_t chosen = 0;
        while (chosen + 1 < n && (r -= weights[chosen]) >= 0)
            chosen++;
        uint32_t id = top[chosen].id;
        s->sampled = resize(s->sampled, (s->n_sampled + 1) * sizeof *s->sampled);
        s->counters = resize(s->counters, (s->n_sampled + 1) * sizeof *s->counters);
        s->sampled[s->n_sampled] = id;
        s->counters[s->n_sampled++] = n_held + out->n_ids;
        out->logprob += top[chosen].logprob;
        const kigo_string t = s->texts[id];
        int ended = s->ends[id] || t.data[t.len - 1] == '\n';
        if (!ended || !last) {
            memcpy(out->text + strlen(out->text), t.data, t.len + 1);
            out->ids[out->n_ids++] = id;
        }
        if (ended) {
            out->text[strcspn(out->text, "\n")] = '\0';
            out->logprob /= (double)out->n_ids + last;
            return 1;
        }
        CHECK(kigo_session_step(s->session, id));
        CHECK(kigo_session_logprobs(s->session, logprobs, s->n_vocab, &needed));
        current = logprobs;
    }
}

// Searches the three lines, the word in line `word_line`; 1 if they were found. The session holds them then.
static int search_poem(search *s, size_t n_prompt, int word_line, form f, float *const logprobs[2], line *poem)
{
    size_t n_held = n_prompt, needed;
    for (int i = 0; i < N_LINES; i++) {
        // The distribution at the beginning of the line, to come back to without computing it again.
        CHECK(kigo_session_logprobs(s->session, logprobs[0], s->n_vocab, &needed));
        int found = 0;
        f.length = LENGTHS[i];
        f.with_word = i == word_line;
        for (int k = 0; k < N_TRIES && now_seconds() < s->deadline; k++) {
            line tried;
            int whole = sample_line(s, logprobs[0], logprobs[1], &f, i + 1 == N_LINES, &tried);
            for (int j = 0; j < i; j++)
                whole = whole && strcmp(poem[j].text, tried.text) != 0;
            if (whole && (!found || tried.logprob > poem[i].logprob)) {
                poem[i] = tried;
                found = 1;
            }
            CHECK(kigo_session_truncate(s->session, n_held));
        }
        if (!found)
            return 0;
        CHECK(kigo_session_prefill(s->session, poem[i].ids, poem[i].n_ids));
        n_held += poem[i].n_ids;
    }
    return 1;
}

// ---- What the search works with.

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

// The texts of the tokens that may stand in a line: English words, spaces, light punctuation, or the break behind it.
static void read_tokens(search *s, const kigo_model *model)
{
    s->texts = resize(NULL, s->n_vocab * sizeof *s->texts);
    s->ends = resize(NULL, s->n_vocab * sizeof *s->ends);
    for (uint32_t id = 0; id < s->n_vocab; id++) {
        char bytes[32];
        size_t n;
        s->texts[id] = (kigo_string){NULL, 0};
        CHECK(kigo_token_flags(model, id, &s->ends[id]));
        uint64_t flags = s->ends[id];
        s->ends[id] = (flags & KIGO_TOKEN_IS_END) != 0;
        if (flags != 0 || kigo_token_text(model, id, bytes, sizeof bytes, &n) != KIGO_STATUS_OK || n == 0 || n >= sizeof bytes)
            continue;
        size_t good = 0, begins = bytes[0] == ' ';
        while (begins + good < n && (isalpha((unsigned char)bytes[begins + good]) || strchr("-',.;!?", bytes[begins + good])))
            good++;
        size_t breaks = good + begins < n && bytes[n - 1] == '\n';
        if (begins + good + breaks != n || (begins && (good == 0 || !isalpha((unsigned char)bytes[1]))))
            continue;
        char *copy = resize(NULL, n + 1);
        memcpy(copy, bytes, n);
        copy[n] = '\0';
        s->texts[id] = (kigo_string){copy, n};
    }
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
            bad_usage(argv[i], "is not an option");
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
    open_model(&s, NULL, &engine, &model);
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
    fflush(stdout);
    fprintf(stderr, "%s\"%s\": %zu tokens sampled, %zu kept, %.1f s, %.1f tok/s\n", found ? "" : "no haiku found with ",
            word, find.n_sampled, n_kept, took, (double)find.n_sampled / took);
    if (trace_path != NULL) {
        trace t = {NULL, 0};
        trace_tokens(&t, find.session, find.sampled, find.counters, find.n_sampled);
        trace_write(&t, trace_path, seed);
        trace_free(&t);
    }
    for (size_t i = 0; i < find.n_vocab; i++)
        free((void *)(uintptr_t)find.texts[i].data);
    free(find.texts);
    free(find.ends);
    free(find.sampled);
    free(find.counters);
    free(prompt);
    free(logprobs[0]);
    free(logprobs[1]);
    kigo_session_destroy(find.session);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    finish_output();
    return !found;
}
