// Compares two traces stage by stage, and says where they first part.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "read_trace.h"

static const char *const USAGE =
    "usage: compare A B [--tolerance F] [--quiet]\n"
    "  A, B         traces: of generate --trace, or of scripts/trace_transformers.py\n"
    "  --tolerance  the largest normalized mean squared error of a row that is no difference (1e-3); 0: equal values\n"
    "  --quiet      only the place where they part\n"
    "The status is 0 where they agree, 1 where they part, 2 for bad arguments or files.\n";

static const char *const STAGES[] = {"attn_norm", "q_rope",  "k_rope",   "v",       "attn_mix",
                                     "attn_out",  "ffn_norm", "ffn_act", "ffn_out", "resid"};
enum { N_STAGES = sizeof STAGES / sizeof *STAGES };

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
            tolerance = float_of(argc, argv, &i, 0, 1e9);
        else if (strcmp(argv[i], "--quiet") == 0)
            quiet = 1;
        else if (argv[i][0] == '-' || n_paths == 2)
            unknown_option(argv[i]);
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
