// A run in one safetensors file: written from taps, read back to be compared. Include it behind common.h.
//
// The format (by Hugging Face): the length of a JSON header as 8 bytes, little endian; the header, which gives each
// tensor its type, shape and place; the tensors. A trace has
//
//     tokens, positions        I64 [n]     the session's tokens at the end, and 0 to n - 1
//     sampled, random_counters I64 [k]     ids that were chosen, and the counter that went into each draw: with the
//                                          seed it makes the random number (kigo_sampling)
//     embed, layers.L.STAGE, final_norm, logits   F32 [rows, cols], one row a token
//     NAME.positions           I64 [rows]  for final_norm and logits, which not every token has
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_TRACE_H
#define KIGO_EXAMPLES_TRACE_H

typedef struct tensor {
    char name[48];
    int is_float; // F32, else I64
    size_t n_rows, n_cols, capacity; // capacity in bytes
    char *data;
} tensor;

typedef struct trace {
    tensor *tensors;
    size_t n;
} trace;

static inline size_t tensor_bytes(const tensor *t)
{
    return t->n_rows * t->n_cols * (t->is_float ? sizeof(float) : sizeof(int64_t));
}

static inline tensor *trace_find(const trace *t, const char *name)
{
    for (size_t i = t->n; i-- > 0;) // what was added last is asked for most
        if (strcmp(t->tensors[i].name, name) == 0)
            return &t->tensors[i];
    return NULL;
}

// Adds rows to the end of a tensor, which is made when it is not there.
static inline void trace_add(trace *t, const char *name, int is_float, size_t n_rows, size_t n_cols, const void *rows)
{
    tensor *to = trace_find(t, name);
    if (to == NULL) {
        t->tensors = resize(t->tensors, (t->n + 1) * sizeof *t->tensors);
        to = &t->tensors[t->n++];
        *to = (tensor){.is_float = is_float, .n_cols = n_cols};
        snprintf(to->name, sizeof to->name, "%s", name);
    }
    size_t old = tensor_bytes(to);
    to->n_rows += n_rows;
    size_t all = tensor_bytes(to);
    if (all > to->capacity) {
        to->capacity = all + all / 2;
        to->data = resize(to->data, to->capacity);
    }
    if (all != old)
        memcpy(to->data + old, rows, all - old);
}

static inline void trace_add_ints(trace *t, const char *name, size_t n, const int64_t *values)
{
    trace_add(t, name, 0, n, 1, values);
}

// The tap that fills a trace.
static inline int32_t trace_on_event(const kigo_tap_event *event, void *user_data)
{
    trace *t = user_data;
    char name[48];
    if (event->element_type != KIGO_TAP_TYPE_F32)
        return 0; // of a later library's
    if (event->layer < 0)
        snprintf(name, sizeof name, "%s", event->name);
    else
        snprintf(name, sizeof name, "layers.%lld.%s", (long long)event->layer, event->name);
    trace_add(t, name, 1, event->n_rows, event->n_cols, event->data);
    if (event->tap == KIGO_TAP_FINAL_NORM || event->tap == KIGO_TAP_LOGITS) {
        size_t len = strlen(name);
        snprintf(name + len, sizeof name - len, ".positions");
        for (size_t i = 0; i < event->n_rows; i++) {
            int64_t position = (int64_t)(event->position + i);
            trace_add_ints(t, name, 1, &position);
        }
    }
    return 0;
}

// Adds the session's tokens and their positions, and what was sampled.
static inline void trace_tokens(trace *t, kigo_session *session, const uint32_t *sampled, const size_t *counters, size_t n)
{
    size_t n_tokens;
    CHECK(kigo_session_tokens(session, NULL, 0, &n_tokens));
    uint32_t *ids = resize(NULL, n_tokens * sizeof *ids);
    CHECK(kigo_session_tokens(session, ids, n_tokens, &n_tokens));
    for (size_t i = 0; i < n_tokens; i++) {
        int64_t pair[2] = {ids[i], (int64_t)i};
        trace_add_ints(t, "tokens", 1, &pair[0]);
        trace_add_ints(t, "positions", 1, &pair[1]);
    }
    trace_add_ints(t, "sampled", 0, NULL);
    trace_add_ints(t, "random_counters", 0, NULL);
    for (size_t i = 0; i < n; i++) {
        int64_t pair[2] = {sampled[i], (int64_t)counters[i]};
        trace_add_ints(t, "sampled", 1, &pair[0]);
        trace_add_ints(t, "random_counters", 1, &pair[1]);
    }
    free(ids);
}

static inline void trace_write(const trace *t, const char *path, uint64_t seed)
{
    text header = {NULL, 0};
    char line[256];
    int n = snprintf(line, sizeof line, "{\"__metadata__\":{\"kigo\":\"%s\",\"seed\":\"%llu\"}", kigo_version(),
                     (unsigned long long)seed);
    text_append(&header, line, (size_t)n);
    size_t at = 0;
    for (size_t i = 0; i < t->n; i++) {
        const tensor *x = &t->tensors[i];
        char cols[32] = "";
        if (x->is_float)
            snprintf(cols, sizeof cols, ",%zu", x->n_cols);
        n = snprintf(line, sizeof line, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu%s],\"data_offsets\":[%zu,%zu]}", x->name,
                     x->is_float ? "F32" : "I64", x->n_rows, cols, at, at + tensor_bytes(x));
        text_append(&header, line, (size_t)n);
        at += tensor_bytes(x);
    }
    text_append(&header, "}", 1);
    while (header.len % 8 != 0)
        text_append(&header, " ", 1);
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        fail(path, strerror(errno));
    unsigned char length[8];
    for (size_t i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header.len >> (8 * i));
    int whole = fwrite(length, 8, 1, file) == 1 && fwrite(header.data, header.len, 1, file) == 1;
    for (size_t i = 0; i < t->n && whole; i++)
        whole = tensor_bytes(&t->tensors[i]) == 0 || fwrite(t->tensors[i].data, tensor_bytes(&t->tensors[i]), 1, file) == 1;
    if (fclose(file) != 0 || !whole)
        fail(path, strerror(errno));
    free(header.data);
}

static inline void trace_free(trace *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->tensors[i].data);
    free(t->tensors);
    *t = (trace){NULL, 0};
}

#endif // KIGO_EXAMPLES_TRACE_H
