// Compares two traces stage by stage, and says where they first part.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "common.h"
#include "trace.h"

static const char *const USAGE =
    "usage: compare A B [--tolerance F] [--quiet]\n"
    "  A, B         traces: of generate --trace, or of scripts/trace_transformers.py\n"
    "  --tolerance  the largest normalized mean squared error of a row that is no difference (1e-3); 0: equal bits\n"
    "  --quiet      only the place where they part\n"
    "The status is 0 where they agree, 1 where they part, 2 for bad arguments or files.\n";

static const char *const STAGES[] = {"attn_norm", "q_rope",  "k_rope",   "v",       "attn_mix",
                                     "attn_out",  "ffn_norm", "ffn_act", "ffn_out", "resid"};
enum { N_STAGES = sizeof STAGES / sizeof *STAGES };

// ---- Reading. The file is not trusted: every number is checked before it is used.

static void malformed(const char *path, const char *why)
{
    fprintf(stderr, "%s: not a trace: %s\n", path, why);
    exit(2);
}

// The number behind `key` and its brackets, at or behind `from`.
static const char *number_after(const char *from, const char *end, const char *key, unsigned long long *value)
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
static trace read_trace(const char *path, text *file)
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

static int64_t int_at(const tensor *t, size_t i)
{
    int64_t value;
    memcpy(&value, t->data + i * sizeof value, sizeof value);
    return value;
}

static float float_at(const tensor *t, size_t row, size_t col)
{
    float value;
    memcpy(&value, t->data + (row * t->n_cols + col) * sizeof value, sizeof value);
    return value;
}

// The position of a row.
static int64_t position_of(const trace *t, const tensor *x, size_t row)
{
    char name[sizeof x->name + 16];
    snprintf(name, sizeof name, "%s.positions", x->name);
    const tensor *positions = trace_find(t, name);
    return positions != NULL && !positions->is_float && row < positions->n_rows ? int_at(positions, row) : (int64_t)row;
}

// ---- Comparing.

typedef struct difference {
    int64_t position;
    size_t element;
    float a, b;
    double error;
} difference;

// The rows' errors: the largest of all, and the first that is above the tolerance. 1 if there is one.
static int compare_stage(const trace *a, const trace *b, const char *name, int64_t n_same, double tolerance, int quiet,
                         difference *first)
{
    const tensor *x = trace_find(a, name), *y = trace_find(b, name);
    if (x == NULL || y == NULL || !x->is_float || !y->is_float)
        return 0;
    if (x->n_cols != y->n_cols) {
        printf("%-22s %zu columns against %zu\n", name, x->n_cols, y->n_cols);
        *first = (difference){.error = INFINITY};
        return 1;
    }
    double worst = 0;
    size_t n_rows = 0, j = 0;
    int parts = 0;
    for (size_t i = 0; i < x->n_rows; i++) {
        int64_t position = position_of(a, x, i);
        while (j < y->n_rows && position_of(b, y, j) < position)
            j++;
        if (j == y->n_rows || position >= n_same)
            break;
        if (position_of(b, y, j) != position)
            continue;
        double sum = 0, norm = 0, largest = -1;
        size_t element = 0;
        for (size_t e = 0; e < x->n_cols; e++) {
            double u = float_at(x, i, e), v = float_at(y, j, e), d = fabs(u - v);
            sum += d * d;
            norm += v * v;
            if (!(d <= largest)) { // also a NaN
                largest = d;
                element = e;
            }
        }
        double error = sum == 0 ? 0 : norm > 0 ? sum / norm : INFINITY;
        n_rows++;
        if (!(error <= worst))
            worst = error;
        if (!(error <= tolerance) && !parts) {
            parts = 1;
            *first = (difference){position, element, float_at(x, i, element), float_at(y, j, element), error};
        }
    }
    if (!quiet && n_rows != 0)
        printf("%-22s %6zu rows  largest error %.3e%s\n", name, n_rows, worst, parts ? "  parts" : "");
    return parts;
}

int main(int argc, char **argv)
{
    const char *paths[2] = {NULL, NULL};
    double tolerance = 1e-3;
    int quiet = 0, n_paths = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--tolerance") == 0)
            tolerance = float_of(argc, argv, &i);
        else if (strcmp(argv[i], "--quiet") == 0)
            quiet = 1;
        else if (argv[i][0] == '-' || n_paths == 2)
            bad_usage(argv[i], "is not an option");
        else
            paths[n_paths++] = argv[i];
    }
    if (n_paths != 2)
        bad_usage("A and B", "are needed");
    text files[2];
    trace a = read_trace(paths[0], &files[0]), b = read_trace(paths[1], &files[1]);

    const tensor *x = trace_find(&a, "tokens"), *y = trace_find(&b, "tokens");
    int64_t n_same = 0;
    while ((size_t)n_same < x->n_rows && (size_t)n_same < y->n_rows && int_at(x, (size_t)n_same) == int_at(y, (size_t)n_same))
        n_same++;
    int tokens_part = x->n_rows != y->n_rows || (size_t)n_same < x->n_rows;
    if (!quiet || tokens_part)
        printf("tokens: %zu and %zu, the first %lld the same\n", x->n_rows, y->n_rows, (long long)n_same);

    difference first = {0}, found;
    char name[48], parted[48] = "";
    size_t n_compared = 0;
    for (int layer = -1;; layer++) {
        size_t n_there = 0;
        for (int stage = 0; stage < (layer < 0 ? 1 : N_STAGES); stage++) {
            if (layer < 0)
                snprintf(name, sizeof name, "embed");
            else
                snprintf(name, sizeof name, "layers.%d.%s", layer, STAGES[stage]);
            n_there += trace_find(&a, name) != NULL && trace_find(&b, name) != NULL;
            if (compare_stage(&a, &b, name, n_same, tolerance, quiet, &found) && parted[0] == '\0') {
                first = found;
                memcpy(parted, name, sizeof parted);
            }
        }
        n_compared += n_there;
        if (layer >= 0 && n_there == 0)
            break;
    }
    const char *const last[] = {"final_norm", "logits"};
    for (size_t i = 0; i < 2; i++) {
        n_compared += trace_find(&a, last[i]) != NULL && trace_find(&b, last[i]) != NULL;
        if (compare_stage(&a, &b, last[i], n_same, tolerance, quiet, &found) && parted[0] == '\0') {
            first = found;
            snprintf(parted, sizeof parted, "%s", last[i]);
        }
    }
    if (parted[0] != '\0')
        printf("they part at %s, position %lld, element %zu: %.9g against %.9g, normalized error %.3e\n", parted,
               (long long)first.position, first.element, first.a, first.b, first.error);
    else if (n_compared == 0)
        printf("they have no stage in common\n");
    else
        printf("they agree in %zu stages within %g\n", n_compared, tolerance);
    free(a.tensors);
    free(b.tensors);
    free(files[0].data);
    free(files[1].data);
    finish_output();
    return parted[0] != '\0' || tokens_part || n_compared == 0;
}
