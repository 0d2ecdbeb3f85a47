// The search of a poem of three lines, with a given word in it exactly once.
//
// From one prefilled prompt the poem is searched line by line. A line is sampled token by token from the model's own
// distribution, of which only those tokens are candidates that can still lead to a line of the right length; several
// such lines are tried, by truncating the session back to where the line begins, and the likeliest is kept.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_POEM_H
#define KIGO_EXAMPLES_POEM_H

#include "common.h"
#include "verse.h"

enum { N_LINES = 3, N_TRIES = 6, N_CANDIDATES = 48, MOST_TOKENS = 24 };
static const int LENGTHS[N_LINES] = {5, 7, 5};

typedef struct search {
    kigo_session *session;
    kigo_string *texts; // of each token that may stand in a line; NULL where it may not
    uint64_t *ends;     // 1 where the token ends an answer
    int *syllables;     // of a text that begins a word, with a space; else 0
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
static inline double draw(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (double)((x ^ x >> 31) >> 11) / 9007199254740992.0;
}

typedef struct candidate {
    uint32_t id;
    float logprob;
} candidate;

// The likeliest tokens, from the log probability `least` on, that may follow `text` in a line; the likeliest first. Only
// the last line may end the answer.
static inline size_t candidates(const search *s, const float *logprobs, const char *text, const form *f, int last, float least,
                         candidate *top)
{
    size_t n = 0, len = strlen(text);
    int finished = is_line(text, f), left = f->length - count_syllables(text);
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
            // Most are out of the question before they are looked at with what stands before them.
            if (s->syllables[id] > left || (len == 0 && !isalpha((unsigned char)t.data[0])))
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
static inline int sample_line(search *s, const float *first, float *logprobs, const form *f, int last, line *out)
{
    *out = (line){.logprob = 0};
    const float *current = first;
    size_t n_held, needed;
    CHECK(kigo_session_n_tokens(s->session, &n_held));
    for (;;) {
        candidate top[N_CANDIDATES];
        // Those that are not out of the question. Where none of them fits, this line leads nowhere.
        size_t n = candidates(s, current, out->text, f, last, -12, top);
        if (n == 0)
            n = candidates(s, current, out->text, f, last, -16, top);
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
static inline int search_poem(search *s, size_t n_prompt, int word_line, form f, float *const logprobs[2], line *poem)
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

// The texts of the tokens that may stand in a line: English words, spaces, light punctuation, or the break behind it.
static inline void read_tokens(search *s, const kigo_model *model)
{
    s->texts = resize(NULL, s->n_vocab * sizeof *s->texts);
    s->ends = resize(NULL, s->n_vocab * sizeof *s->ends);
    s->syllables = resize(NULL, s->n_vocab * sizeof *s->syllables);
    for (uint32_t id = 0; id < s->n_vocab; id++) {
        char bytes[32];
        size_t n;
        s->texts[id] = (kigo_string){NULL, 0};
        s->syllables[id] = 0;
        CHECK(kigo_token_flags(model, id, &s->ends[id]));
        uint64_t flags = s->ends[id];
        s->ends[id] = (flags & KIGO_TOKEN_IS_END) != 0;
        if (flags != 0 || kigo_token_text(model, id, bytes, sizeof bytes, &n) != KIGO_STATUS_OK || n == 0 || n >= sizeof bytes)
            continue;
        size_t good = 0, begins = bytes[0] == ' ';
        while (begins + good < n && (isalpha((unsigned char)bytes[begins + good]) || memchr("-',.;!?", bytes[begins + good], 7)))
            good++;
        size_t breaks = good + begins < n && bytes[n - 1] == '\n';
        if (begins + good + breaks != n || (begins && (good == 0 || !isalpha((unsigned char)bytes[1]))))
            continue;
        char *copy = resize(NULL, n + 1);
        memcpy(copy, bytes, n);
        copy[n] = '\0';
        s->texts[id] = (kigo_string){copy, n};
        s->syllables[id] = begins ? count_syllables(copy) : 0;
    }
}

static inline void free_search(search *s)
{
    for (size_t i = 0; i < s->n_vocab; i++)
        free((void *)(uintptr_t)s->texts[i].data);
    free(s->texts);
    free(s->ends);
    free(s->syllables);
    free(s->sampled);
    free(s->counters);
    kigo_session_destroy(s->session);
}

#endif // KIGO_EXAMPLES_POEM_H
