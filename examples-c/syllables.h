// Counts the syllables of English words by rule.
//
// 1. A word is letters and apostrophes; a hyphen separates two words, anything else does too.
// 2. Each run of vowels (a e i o u, and y but at the beginning) is a syllable; the u of qu is none.
// 3. A final e, es or ed behind a consonant is silent, but for: le behind another consonant (lit-tle); es behind a
//    sibilant (s x z c g, ch, sh: danc-es); ed behind t and d (fad-ed).
// 4. Two vowels that are usually apart: a vowel before -ing (be-ing); ia, io and iu (li-on), but behind c g s t x
//    (na-tion); eo (vid-eo), but at the beginning (peo-ple); ua, uo and ue behind a consonant in the inside (cru-el).
// 5. A word has at least one syllable. Words that the rules get wrong stand in a list, by their beginning.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_SYLLABLES_H
#define KIGO_EXAMPLES_SYLLABLES_H

#include <ctype.h>
#include <string.h>

static inline int is_vowel(const char *word, size_t len, size_t i)
{
    if (word[i] == 'y')
        return i > 0 && !(i + 1 < len && strchr("aeiou", word[i + 1]) != NULL); // be-yond
    return strchr("aeiou", word[i]) != NULL && !(word[i] == 'u' && i > 0 && word[i - 1] == 'q');
}

// Words that begin like this have so many more (or fewer) syllables than the rules say.
static inline int exception(const char *word, size_t len)
{
    static const struct {
        const char *beginning;
        int whole, more; // `whole`: the beginning is all of the word
    } list[] = {
        {"nineteen", 0, -1}, {"sometimes", 0, -1}, {"something", 0, -1}, {"someone", 0, -1},
        {"homeward", 0, -1}, {"lonely", 0, -1}, {"evening", 0, -1}, {"every", 0, -1}, {"lovely", 0, -1},
        {"timeless", 0, -1}, {"peaceful", 0, -1}, {"graceful", 0, -1}, {"hopeful", 0, -1}, {"safely", 0, -1},
        {"quiet", 0, 1}, {"poem", 0, 1}, {"poet", 0, 1}, {"create", 0, 1}, {"creati", 0, 1}, {"idea", 0, 1},
        {"science", 0, 1}, {"diet", 0, 1}, {"rhythm", 0, 1}, {"prism", 0, 1}, {"chasm", 0, 1},
        {"therefore", 0, -1}, {"movement", 0, -1}, {"firefl", 0, -1}, {"lifetime", 0, -1},
        {"anyone", 0, -1}, {"everyone", 0, -1}, {"lifeless", 0, -1}, {"careful", 0, -1}, {"business", 0, -1},
        {"area", 0, 1}, {"isn't", 1, 1}, {"doesn't", 1, 1}, {"didn't", 1, 1}, {"couldn't", 1, 1},
        {"wouldn't", 1, 1}, {"somewhere", 0, -1}, {"elsewhere", 0, -1}, {"safety", 0, -1}, {"useful", 0, -1},
        {"likely", 0, -1}, {"surely", 0, -1}, {"barely", 0, -1}, {"merely", 0, -1}, {"nicely", 0, -1},
        {"closely", 0, -1}, {"bravely", 0, -1}, {"completely", 0, -1}, {"serenely", 0, -1},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        size_t n = strlen(list[i].beginning);
        if (n <= len && (!list[i].whole || n == len) && memcmp(word, list[i].beginning, n) == 0)
            return list[i].more;
    }
    return 0;
}

// Of one word, `len` bytes in lower case.
static inline int word_syllables(const char *word, size_t len)
{
    int n = 0;
    if (len > 2 && word[len - 1] == 's' && word[len - 2] == '\'' && word[len - 3] == 'e')
        len -= 2; // nature's
    for (size_t i = 0; i < len; i++)
        n += is_vowel(word, len, i) && (i == 0 || !is_vowel(word, len, i - 1));
    // Rule 3.
    char last = len > 0 ? word[len - 1] : 0, second = len > 1 ? word[len - 2] : 0, third = len > 2 ? word[len - 3] : 0;
    size_t e = last == 'e' ? len - 1 : second == 'e' && (last == 's' || last == 'd') ? len - 2 : len;
    if (e < len && e > 0 && !is_vowel(word, len, e - 1)) {
        char before = word[e - 1], earlier = e > 1 ? word[e - 2] : 0;
        int is_le = before == 'l' && e > 1 && !is_vowel(word, len, e - 2) && earlier != 'l';
        int sibilant = strchr("sxzcg", before) != NULL || (before == 'h' && (earlier == 'c' || earlier == 's'));
        int spoken = is_le || (last == 's' && e + 2 == len && sibilant) || (last == 'd' && strchr("td", before) != NULL);
        n -= !spoken;
    }
    // Rule 4.
    if (len > 4 && last == 'g' && second == 'n' && third == 'i' && is_vowel(word, len, len - 4))
        n++;
    for (size_t i = 1; i + 1 < len; i++) {
        char before = word[i - 1], a = word[i], b = word[i + 1];
        if (a == 'i' && (b == 'a' || b == 'o' || b == 'u') && strchr("cgstx", before) == NULL && !is_vowel(word, len, i - 1))
            n++;
        else if (a == 'e' && b == 'o' && i > 1)
            n++;
        else if (a == 'u' && (b == 'a' || b == 'o' || (b == 'e' && i + 2 < len && last != 's' && last != 'd')) && strchr("qg", before) == NULL
                 && !is_vowel(word, len, i - 1))
            n++;
    }
    n += exception(word, len);
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
