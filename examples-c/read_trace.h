// Reads a trace (trace.h) back. The file is not trusted: every number is checked before it is used.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_READ_TRACE_H
#define KIGO_EXAMPLES_READ_TRACE_H

#include "common.h"
#include "trace.h"

static inline void malformed(const char *path, const char *why)
{
    fprintf(stderr, "%s: not a trace: %s\n", path, why);
    exit(2);
}

// The number behind `key` and its brackets, at or behind `from`.
static inline const char *number_after(const char *from, const char *end, const char *key, unsigned long long *value)
{
    const char *at = from != NULL ? strstr(from, key) : NULL;
    if (at == NULL || at >= end)
        return NULL;
    at += strlen(key);
    if (*at < '0' || *at > '9')
        return NULL;
    char *rest;
    errno = 0;
    *value = strtoull(at, &rest, 10);
    return errno == 0 ? rest : NULL;
}

// The tensors of a file; their data stay in `file`.
static inline trace read_trace(const char *path, text *file)
{
    *file = read_file(path);
    uint64_t header = 0;
    for (size_t i = 0; i < 8 && file->len >= 8; i++)
        header |= (uint64_t)(unsigned char)file->data[i] << (8 * i);
    if (file->len < 8 || header > file->len - 8)
        malformed(path, "the header exceeds the file");
    char *json = resize(NULL, header + 1);
    memcpy(json, file->data + 8, header);
    json[header] = '\0';
    char *data = file->data + 8 + header;
    size_t n_data = file->len - 8 - header;
    trace t = {NULL, 0};
    for (const char *at = json; (at = strstr(at, "\"dtype\":\"")) != NULL; at++) {
        // ..."name":{"dtype":"F32","shape":[rows,cols],"data_offsets":[from,to]}
        const char *end = strchr(at, '}'), *name_end = at;
        while (name_end > json && *name_end != ':')
            name_end--;
        name_end--;
        const char *name = name_end;
        while (name > json && name[-1] != '"')
            name--;
        tensor x = {.is_float = strncmp(at + 9, "F32", 3) == 0, .n_cols = 1};
        unsigned long long rows, cols = 1, from, to;
        const char *next = end != NULL ? number_after(at, end, "\"shape\":[", &rows) : NULL;
        if (next != NULL && *next == ',')
            next = number_after(next, end, ",", &cols);
        const char *offsets = number_after(next, end, "\"data_offsets\":[", &from);
        offsets = number_after(offsets, end, ",", &to);
        size_t width = x.is_float ? 4 : 8, len = (size_t)(name_end - name);
        if (offsets == NULL || name_end <= name || len >= sizeof x.name)
            malformed(path, "a tensor's description cannot be read");
        if (!x.is_float && strncmp(at + 9, "I64", 3) != 0)
            malformed(path, "a tensor is neither F32 nor I64");
        if (from > to || to > n_data || cols == 0 || rows > n_data / cols || rows * cols * width != to - from)
            malformed(path, "a tensor's size does not fit its place");
        memcpy(x.name, name, len);
        x.n_rows = rows;
        x.n_cols = cols;
        x.data = data + from;
        t.tensors = resize(t.tensors, (t.n + 1) * sizeof *t.tensors);
        t.tensors[t.n++] = x;
    }
    free(json);
    const tensor *tokens = trace_find(&t, "tokens");
    if (tokens == NULL || tokens->is_float)
        malformed(path, "it has no tokens");
    return t;
}

static inline int64_t int_at(const tensor *t, size_t i)
{
    int64_t value;
    memcpy(&value, t->data + i * sizeof value, sizeof value);
    return value;
}

static inline float float_at(const tensor *t, size_t row, size_t col)
{
    float value;
    memcpy(&value, t->data + (row * t->n_cols + col) * sizeof value, sizeof value);
    return value;
}

// The position of a row.
static inline int64_t position_of(const trace *t, const tensor *x, size_t row)
{
    char name[sizeof x->name + 16];
    snprintf(name, sizeof name, "%s.positions", x->name);
    const tensor *positions = trace_find(t, name);
    return positions != NULL && !positions->is_float && row < positions->n_rows ? int_at(positions, row) : (int64_t)row;
}

#endif // KIGO_EXAMPLES_READ_TRACE_H
