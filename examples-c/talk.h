// A conversation: its messages, to a file and back as the JSON that others write, too. Behind common.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_TALK_H
#define KIGO_EXAMPLES_TALK_H

// What has been said; contents are allocated, roles are not.
typedef struct talk {
    kigo_message *messages;
    size_t n;
} talk;

// Takes `content` over.
static inline void say(talk *t, const char *role, char *content, size_t len)
{
    t->messages = resize(t->messages, (t->n + 1) * sizeof *t->messages);
    t->messages[t->n++] = (kigo_message){role, KIGO_STRLEN, content, len};
}

static inline void say_copy(talk *t, const char *role, const char *content, size_t len)
{
    text copy = {NULL, 0};
    text_append(&copy, content, len);
    say(t, role, copy.data, copy.len);
}

// Takes `n` messages back, from number `first` on.
static inline void forget(talk *t, size_t first, size_t n)
{
    for (size_t i = first; i < first + n; i++)
        free((char *)t->messages[i].content);
    t->n -= n;
    memmove(t->messages + first, t->messages + first + n, (t->n - first) * sizeof *t->messages);
}

// The conversation's ids, with the beginning of an answer to it; to be freed.
static inline uint32_t *render(const kigo_model *model, const talk *t, size_t *n_ids)
{
    const uint64_t flags = KIGO_CHAT_ADD_GENERATION_PROMPT;
    CHECK(kigo_chat_render(model, t->messages, t->n, flags, NULL, 0, n_ids));
    uint32_t *ids = resize(NULL, *n_ids * sizeof *ids);
    CHECK(kigo_chat_render(model, t->messages, t->n, flags, ids, *n_ids, n_ids));
    return ids;
}

// How many messages stand before the first question: the system's.
static inline size_t n_system(const talk *t)
{
    return t->n > 0 && strcmp(t->messages[0].role, "system") == 0;
}

// 0: it could not be written; errno says why.
static inline int save_talk(const talk *t, const char *path)
{
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return 0;
    fprintf(file, "[");
    for (size_t i = 0; i < t->n; i++) {
        fprintf(file, "%s\n  {\"role\": \"%s\", \"content\": ", i == 0 ? "" : ",", t->messages[i].role);
        write_json_string(file, t->messages[i].content, t->messages[i].content_len);
        fprintf(file, "}");
    }
    fprintf(file, "\n]\n");
    int failed = ferror(file);
    return fclose(file) == 0 && !failed;
}

// ---- Reading: an array of objects whose members are strings.

typedef struct reader {
    const char *at; // ends with a NUL
} reader;

static inline int read_mark(reader *r, char mark)
{
    r->at += strspn(r->at, " \t\r\n");
    if (*r->at != mark)
        return 0;
    r->at++;
    return 1;
}

static inline void append_utf8(text *out, unsigned long c)
{
    char b[4] = {(char)(c < 0x80 ? c : c < 0x800 ? 0xc0 | c >> 6 : c < 0x10000 ? 0xe0 | c >> 12 : 0xf0 | c >> 18)};
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = 1; i < n; i++)
        b[i] = (char)(0x80 | (c >> (6 * (n - 1 - i)) & 63));
    text_append(out, b, n);
}

// Four digits of base 16.
static inline int read_code(reader *r, unsigned long *c)
{
    char digits[5] = {0};
    memcpy(digits, r->at, strnlen(r->at, 4));
    if (strspn(digits, "0123456789abcdefABCDEF") != 4)
        return 0;
    *c = strtoul(digits, NULL, 16);
    r->at += 4;
    return 1;
}

// 0: there is none. `out` is to be freed in any case.
static inline int read_string(reader *r, text *out)
{
    static const char ESCAPES[] = "\"\\/bfnrt", MEANT[] = "\"\\/\b\f\n\r\t";
    if (!read_mark(r, '"'))
        return 0;
    for (; *r->at != '"'; ) {
        if ((unsigned char)*r->at < ' ')
            return 0; // the end of the text is a NUL
        if (*r->at != '\\') {
            text_append(out, r->at++, 1);
            continue;
        }
        unsigned long c, low;
        const char *escape = r->at[1] != '\0' ? strchr(ESCAPES, r->at[1]) : NULL;
        if (escape != NULL) {
            text_append(out, &MEANT[escape - ESCAPES], 1);
            r->at += 2;
            continue;
        }
        if (r->at[1] != 'u')
            return 0;
        r->at += 2;
        if (!read_code(r, &c))
            return 0;
        if (c >= 0xd800 && c < 0xdc00) {
            if (r->at[0] != '\\' || r->at[1] != 'u')
                return 0;
            r->at += 2;
            if (!read_code(r, &low) || low < 0xdc00 || low > 0xdfff)
                return 0;
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        }
        append_utf8(out, c);
    }
    r->at++;
    return 1;
}

// One message; 0: it is none.
static inline int read_message(reader *r, talk *t)
{
    static const char *const ROLES[] = {"system", "user", "assistant"};
    text name = {NULL, 0}, value = {NULL, 0}, content = {NULL, 0};
    const char *role = NULL;
    int good = read_mark(r, '{');
    do {
        name.len = value.len = 0;
        good = good && read_string(r, &name) && read_mark(r, ':') && read_string(r, &value);
        for (size_t i = 0; good && strcmp(name.data != NULL ? name.data : "", "role") == 0 && i < 3; i++)
            if (value.data != NULL && strcmp(value.data, ROLES[i]) == 0)
                role = ROLES[i];
        if (good && name.len == 7 && strcmp(name.data, "content") == 0) {
            content.len = 0;
            text_append(&content, value.data != NULL ? value.data : "", value.len);
        }
    } while (good && read_mark(r, ','));
    good = good && read_mark(r, '}') && role != NULL && content.data != NULL;
    if (good)
        say_copy(t, role, content.data, content.len);
    free(name.data);
    free(value.data);
    free(content.data);
    return good;
}

// Adds the messages of a file to an empty conversation; else says why not and leaves it empty.
static inline const char *load_talk(talk *t, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return strerror(errno);
    text data = {NULL, 0};
    int failed = read_rest(file, &data) ? 0 : errno;
    fclose(file);
    if (failed != 0) {
        free(data.data);
        return strerror(failed);
    }
    text_append(&data, "", 0);
    reader r = {data.data};
    int good = read_mark(&r, '[');
    do
        good = good && read_message(&r, t);
    while (good && read_mark(&r, ','));
    good = good && read_mark(&r, ']');
    free(data.data);
    if (!good)
        forget(t, 0, t->n);
    return good ? NULL : "is no array of messages with a role and a content";
}

#endif // KIGO_EXAMPLES_TALK_H
