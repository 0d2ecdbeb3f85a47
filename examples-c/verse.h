// What a line of a haiku is: so many syllables, with a word in it or without.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_VERSE_H
#define KIGO_EXAMPLES_VERSE_H

#include "syllables.h"

enum { MOST_BYTES = 96 }; // of a line

typedef struct form {
    const char *word; // in lower case
    int word_syllables;
    int length;    // syllables of the line
    int with_word; // 1: the word is in it exactly once; 0: it is not in it
} form;

static inline int in_word(char c)
{
    return isalpha((unsigned char)c) || c == '-' || c == '\'';
}

// How often the word stands in a text. An occurrence that is a part of a hyphenated word counts too.
static inline int occurrences(const char *text, const char *word)
{
    int n = 0;
    size_t len = strlen(word);
    for (size_t i = 0; text[i] != '\0'; i++) {
        size_t k = 0;
        while (k < len && tolower((unsigned char)text[i + k]) == word[k])
            k++;
        n += k == len && (i == 0 || !isalpha((unsigned char)text[i - 1])) && !isalpha((unsigned char)text[i + k]);
    }
    return n;
}

// Whether what stands behind an apostrophe, as far as it goes, is no English: 's 't 'd 'm 're 've 'll are.
static inline int odd_ending(const char *behind)
{
    return *behind != '\0' && behind[1] != '\0' && strcmp(behind, "re") != 0 && strcmp(behind, "ve") != 0 && strcmp(behind, "ll") != 0;
}

// Whether the end of a line, from `tail` on the beginning of a word, is no English: two hyphens in a word, an odd ending
// behind an apostrophe, signs in a row; or the word wanted with something grown to it.
static inline int slips(const char *text, const char *tail, const char *word)
{
    size_t n_hyphens = 0, len = strlen(word);
    const char *apostrophe = strchr(tail, '\'');
    for (const char *c = tail; *c != '\0'; c++)
        n_hyphens += *c == '-';
    for (const char *c = text; *c != '\0' && c[1] != '\0'; c++)
        if (strchr("-,.;!?", *c) != NULL && strchr("-,.;!?'", c[1]) != NULL)
            return 1;
    if (n_hyphens > 1 || (apostrophe != NULL && odd_ending(apostrophe + 1)))
        return 1;
    size_t same = 0;
    while (same < len && tolower((unsigned char)tail[same]) == word[same])
        same++;
    return same == len && strchr(word, '-') != NULL && in_word(tail[len]);
}

// Whether a line that begins like this can become one of `length` syllables, with the word in it or without. What
// stands at its end may be the beginning of a word.
static inline int can_become(const char *text, const form *f)
{
    size_t len = strlen(text), tail = len;
    while (tail > 0 && in_word(text[tail - 1]))
        tail--;
    char before[MOST_BYTES];
    memcpy(before, text, tail);
    before[tail] = '\0';
    int done = count_syllables(before), all = done + count_syllables(text + tail);
    if (all > f->length || slips(text, text + tail, f->word))
        return 0;
    if (all == f->length && len != 0 && strchr(",-", text[len - 1]) != NULL)
        return 0; // nothing can follow, and a line does not end so
    int n = occurrences(before, f->word);
    if (!f->with_word)
        return n == 0 && (occurrences(text + tail, f->word) == 0 || (all < f->length && strchr(f->word, '-') == NULL));
    if (n + (tail < len) > 1 && occurrences(text + tail, f->word) + n > 1)
        return 0;
    if (n == 1)
        return 1;
    // It has to come: now, or behind the last word.
    size_t n_tail = len - tail, same = 0;
    while (same < n_tail && f->word[same] != '\0' && tolower((unsigned char)text[tail + same]) == f->word[same])
        same++;
    return (same == n_tail && done + f->word_syllables <= f->length) || all + f->word_syllables <= f->length;
}

// Whether a line ends in the air.
static inline int hangs(const char *text)
{
    static const char open[] = " a an and are as at be by for from his her in into is its my of on or our so than that the "
                               "their this to was where while with your ";
    size_t end = strlen(text);
    while (end > 0 && !isalpha((unsigned char)text[end - 1]))
        end--;
    size_t begin = end;
    while (begin > 0 && in_word(text[begin - 1]))
        begin--;
    char last[MOST_BYTES];
    size_t n = 0;
    last[n++] = ' ';
    for (size_t i = begin; i < end && n + 2 < sizeof last; i++)
        last[n++] = (char)tolower((unsigned char)text[i]);
    last[n++] = ' ';
    last[n] = '\0';
    return strstr(open, last) != NULL || strchr(",-", text[strlen(text) - 1]) != NULL;
}

// Whether a line is finished.
static inline int is_line(const char *text, const form *f)
{
    return count_syllables(text) == f->length && occurrences(text, f->word) == f->with_word && !hangs(text);
}

#endif // KIGO_EXAMPLES_VERSE_H
