// Counts the syllables of English words by rule.
//
// 1. A word is letters and apostrophes; a hyphen separates two words, anything else does too.
// 2. Each run of vowels is a syllable: a e i o u, and y but at the beginning and between two others; the u of qu is none.
// 3. An e behind a consonant is silent at the end (time), before a last s, but behind a sibilant (danc-es), before a last
//    d, but behind t and d (fad-ed), before an ending (lone-ly, state-ment, use-ful) and in a compound (some-thing).
//    It is spoken behind a consonant and l or r: lit-tle, hun-dred.
// 4. Two vowels that are usually apart: see apart().
// 5. A last sm and thm (pris-m), n't and 've behind a consonant (did-n't) are a syllable of their own; a last gue (vogue)
//    and the al of ically (basic'lly) are none.
// 6. A word has at least one syllable. Words that the rules get wrong stand in a list, by their beginning.
//
// How often that is right, measured with the CMU Pronouncing Dictionary: BENCHMARKS.md.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_SYLLABLES_H
#define KIGO_EXAMPLES_SYLLABLES_H

#include <ctype.h>
#include <string.h>

static inline int is_one_of(char c, const char *list)
{
    return c != '\0' && strchr(list, c) != NULL;
}

static inline int is_vowel(const char *word, size_t len, size_t i)
{
    if (word[i] == 'y')
        return i > 0 && !(i + 1 < len && is_one_of(word[i - 1], "aeiou") && is_one_of(word[i + 1], "aeiou"));
    return is_one_of(word[i], "aeiou") && !(word[i] == 'u' && i > 0 && word[i - 1] == 'q');
}

// Whether `text`, words with a space around each, has the word of `len` bytes.
static inline int has_word(const char *text, const char *word, size_t len)
{
    for (const char *at = text; (at = strchr(at, ' ')) != NULL; at++)
        if (strncmp(at + 1, word, len) == 0 && at[1 + len] == ' ')
            return 1;
    return 0;
}

// Whether the letter at `i` is a silent e.
static inline int is_silent(const char *word, size_t len, size_t i)
{
    static const char endings[] = " ly ment ments ful fully less ness some teen teenth ty ",
                      stems[] = " bare base care cave else face fare fire flame fore frame game grave guide here home "
                                "house lake life like make more note pine pipe race rose safe share shore side "
                                "smoke some space stone there tide time trade ware wave where whole wide wine ";
    if (word[i] != 'e' || i == 0 || is_vowel(word, len, i - 1) || (i + 1 < len && is_vowel(word, len, i + 1)))
        return 0;
    char before = word[i - 1], earlier = i > 1 ? word[i - 2] : '\0';
    size_t n_behind = len - i - 1;
    const char *behind = word + i + 1;
    if (is_one_of(before, "lr") && isalpha((unsigned char)earlier) && !is_vowel(word, len, i - 2) && earlier != before)
        return 0;
    if (n_behind == 1 && *behind == 's')
        return !is_one_of(before, "sxzcg") && !(before == 'h' && is_one_of(earlier, "cs"));
    if (n_behind == 1 && *behind == 'd')
        return !is_one_of(before, "td");
    if (n_behind == 0)
        return 1;
    if (i > 1 && has_word(endings, behind, n_behind))
        return *behind != 'm' || !is_one_of(before, "lh"); // el-e-ment
    size_t vowel = i + 1;
    while (vowel < len && !is_vowel(word, len, vowel))
        vowel++;
    return vowel < len && has_word(stems, word, i + 1);
}

// Whether the two vowels from `i` on are apart: a vowel before -ing (be-ing); ia, io and iu (ra-di-o), but behind c g s t x
// and sh (na-tion, but ini-ti-ate), io behind n (un-ion), and behind l (famil-iar) but in a li-on, li-able, al-li-ance;
// ie before t (qui-et), before n (sci-ence, but friend, pa-tience) and in a last ier and iest of a longer word (eas-i-er);
// eo (vid-eo), but at the beginning and behind g (peo-ple, pig-eon); yo (an-y-one), but in a last yon (can-yon); ua, uo
// and ue behind a consonant in the inside (cru-el).
static inline int apart(const char *word, size_t len, size_t i)
{
    if (i + 4 == len && memcmp(word + i + 1, "ing", 3) == 0)
        return is_vowel(word, len, i);
    if (i == 0 || is_vowel(word, len, i - 1))
        return 0;
    char before = word[i - 1], a = word[i], b = word[i + 1], c = i + 2 < len ? word[i + 2] : '\0',
         d = i + 3 < len ? word[i + 3] : '\0';
    size_t n = len - i; // letters from here on
    if (a == 'i' && b == 'e') {
        int longer = 0;
        for (size_t k = 0; k < i; k++)
            longer |= is_vowel(word, len, k);
        if (c == 'n')
            return !is_one_of(before, "ctn") && !(before == 'r' && i > 1 && word[i - 2] == 'f');
        return c == 't' || (longer && c == 'r' && n <= 4) || (longer && c == 's' && d == 't' && n == 4);
    }
    if (a == 'i' && is_one_of(b, "aou")) {
        if (b == 'a' && c == 't' && d != '\0')
            return 1;
        if (before == 'l' && b != 'u')
            return i == 1 || n == 2 || (b == 'a' && (c == 'b' || (c == 'n' && d == 'c')));
        return !is_one_of(before, "cgstx") && !(before == 'n' && b == 'o') && !(before == 'h' && i > 1 && word[i - 2] == 's');
    }
    if (a == 'e' && b == 'o')
        return before == 'g' ? i == 1 && c != 'r' : i > 1;
    if (a == 'y' && b == 'o')
        return !(c == 'n' && n == 3);
    if (a == 'u' && !is_one_of(before, "qg"))
        return is_one_of(b, "ao") || (b == 'e' && c != '\0' && !(n == 3 && is_one_of(c, "sd")));
    return 0;
}

// Words that begin like this (with a full stop: are this) have a syllable more, or one less, than the rules say.
static inline int exception(const char *word, size_t len)
{
    static const char more[][14] = {
        "area.", "areas.", "beloved", "cafe", "chao", "coincid", "cooperat", "coordina", "create.", "created.",
        "creates.", "creati", "creator", "dandelion", "diabet", "european", "finale", "fluid", "forest", "forever",
        "genuin", "giant", "hawaii", "heroi", "idea.", "ideas.", "karate", "maybe.", "museum", "naked",
        "nevertheless", "nuclear", "poem", "poet", "react", "realis", "realit", "realiz", "recipe", "recreat", "ruin",
        "scien", "simile", "suicid", "theat", "whatsoever", "wherever", "whoever", "wicked",
    };
    static const char fewer[][14] = {
        "behavio", "business", "carriage", "cashier", "catholic", "charles", "chocolate", "colonel", "diamond",
        "evening", "every", "favorite", "frontier", "marriage", "moreover", "opera.", "operas.", "premier",
        "restaurant", "soldier", "someone", "sovereign", "tuesday", "vegetable", "wednesday",
    };
    for (size_t i = 0; i < sizeof more / sizeof *more + sizeof fewer / sizeof *fewer; i++) {
        size_t k = i - sizeof more / sizeof *more;
        const char *beginning = i < sizeof more / sizeof *more ? more[i] : fewer[k];
        if (beginning[0] != word[0])
            continue;
        size_t n = strlen(beginning), whole = beginning[n - 1] == '.';
        n -= whole;
        if (n <= len && memcmp(word, beginning, n) == 0 && (!whole || n == len))
            return i < sizeof more / sizeof *more ? 1 : -1;
    }
    return 0;
}

static inline int ends_in(const char *word, size_t len, const char *ending)
{
    size_t n = strlen(ending);
    return len > n && memcmp(word + len - n, ending, n) == 0;
}

// Of one word, `len` bytes in lower case.
static inline int word_syllables(const char *word, size_t len)
{
    if (len > 2 && word[len - 1] == 's' && word[len - 2] == '\'' && word[len - 3] == 'e')
        len -= 2; // nature's
    int n = exception(word, len);
    for (size_t i = 0; i < len; i++) {
        n += is_vowel(word, len, i) && (i == 0 || !is_vowel(word, len, i - 1));
        n += i + 1 < len && apart(word, len, i);
        n -= is_silent(word, len, i);
    }
    size_t end = len > 1 && is_one_of(word[len - 1], "sd") ? len - 1 : len; // without a last s or d
    if (end > 3 && memcmp(word + end - 3, "gue", 3) == 0)
        n -= is_vowel(word, len, end - 4) || word[end - 4] == 'n';
    n += ends_in(word, end, "sm") || ends_in(word, end, "thm");
    n += (ends_in(word, len, "n't") || ends_in(word, len, "'ve")) && !is_vowel(word, len, len - 4);
    n -= ends_in(word, len, "ically");
    return n > 0 ? n : 1;
}

// Of a line of text.
static inline int count_syllables(const char *line)
{
    char word[64];
    size_t len = 0;
    int n = 0;
    for (;; line++) {
        unsigned char c = (unsigned char)*line;
        if (isalpha(c) || (c == '\'' && len > 0)) {
            if (len < sizeof word)
                word[len++] = (char)tolower(c);
            continue;
        }
        if (len > 0)
            n += word_syllables(word, len);
        len = 0;
        if (c == '\0')
            return n;
    }
}

#endif // KIGO_EXAMPLES_SYLLABLES_H
