// Measures prefill (pp) and decode (tg) beside the memory bandwidth of the same machine at the same time.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "bandwidth.h"

static const char *const USAGE =
    "usage: bench " SETUP_USAGE " [-p N,N...] [-n N,N...] [--depth N,N...] [--batch N,N...] [-r N] [--json]\n"
    "  -p       lengths of the prompts to prefill (128,512); 0: none\n"
    "  -n       numbers of tokens to decode (128); 0: none\n"
    "  --depth  tokens that are in the cache before (0)\n"
    "  --batch  sequences that run together (1); the speed is that of all of them\n"
    "  -r       repetitions after one to warm up; the median counts (3)\n"
    "GB/s are of weights: what one decode step reads, and a prefill at least once. Their share is of what the same\n"
    "number of threads reads from a large buffer just before, on the CPU only.\n";

#define MOST 16

typedef struct list {
    size_t at[MOST], n;
} list;

static list list_of(int argc, char **argv, int *i)
{
    const char *option = argv[*i], *rest = value_of(argc, argv, i);
    list l = {{0}, 0};
    do {
        char *end;
        if (*rest < '0' || *rest > '9' || l.n == MOST)
            bad_usage(option, "needs whole numbers with commas between");
        l.at[l.n++] = strtoul(rest, &end, 10);
        if (*end != ',' && *end != '\0')
            bad_usage(option, "needs whole numbers with commas between");
        rest = *end == ',' ? end + 1 : NULL;
    } while (rest != NULL);
    return l;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// ---- The model.

// Sequences that run together, as the batch calls take them.
typedef struct group {
    kigo_session **sessions;
    const uint32_t **ids;
    size_t n, *n_ids;
    uint32_t *tokens;
    kigo_status *statuses;
} group;

static group open_group(const kigo_model *model, size_t n)
{
    group g = {.n = n, .sessions = resize(NULL, n * sizeof *g.sessions), .ids = resize(NULL, n * sizeof *g.ids)};
    g.n_ids = resize(NULL, n * sizeof *g.n_ids);
    g.tokens = resize(NULL, n * sizeof *g.tokens);
    g.statuses = resize(NULL, n * sizeof *g.statuses);
    for (size_t i = 0; i < n; i++)
        CHECK(kigo_session_create(model, NULL, &g.sessions[i]));
    return g;
}

static void close_group(group *g)
{
    for (size_t i = 0; i < g->n; i++)
        kigo_session_destroy(g->sessions[i]);
    free(g->sessions);
    free(g->ids);
    free(g->n_ids);
    free(g->tokens);
    free(g->statuses);
}

static void append(group *g, const uint32_t *ids, size_t n_ids)
{
    for (size_t i = 0; i < g->n; i++) {
        g->ids[i] = ids + i; // others than its neighbours have: experts are chosen by tokens
        g->n_ids[i] = n_ids;
    }
    if (n_ids != 0)
        CHECK(kigo_prefill_batch(g->sessions, g->ids, g->n_ids, g->n, g->statuses));
}

static void decode_tokens(group *g, size_t n)
{
    if (g->n == 1) { // in one call, which runs ahead on a device that can
        kigo_generate_options options = {.struct_size = sizeof options, .max_tokens = n};
        options.flags = KIGO_GENERATE_IGNORE_END;
        kigo_generated generated = {.struct_size = sizeof generated};
        CHECK(kigo_session_generate(g->sessions[0], &options, &generated));
        if (generated.n_tokens != n)
            fail("decode", "the context is full before all tokens are generated");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        CHECK(kigo_sample_batch(g->sessions, g->n, g->tokens, g->statuses));
        CHECK(kigo_step_batch(g->sessions, g->tokens, g->n, g->statuses));
    }
}

// Prefills or decodes `n` tokens behind `depth` others in each sequence; seconds, the median of `n_runs`.
static double measure(group *g, const uint32_t *ids, size_t depth, size_t n, int decode, size_t n_runs)
{
    double seconds[100];
    for (size_t run = 0; run <= n_runs; run++) {
        for (size_t i = 0; i < g->n; i++)
            CHECK(kigo_session_truncate(g->sessions[i], run == 0 ? 0 : depth));
        if (run == 0)
            append(g, ids, depth);
        if (decode) // the logits to begin with
            append(g, ids + depth, 1);
        double start = now_seconds();
        if (decode)
            decode_tokens(g, n);
        else
            append(g, ids + depth, n);
        if (run != 0)
            seconds[run - 1] = now_seconds() - start;
    }
    qsort(seconds, n_runs, sizeof *seconds, ascending);
    return (seconds[(n_runs - 1) / 2] + seconds[n_runs / 2]) / 2;
}

// What the results say about themselves.
typedef struct frame {
    const char *device;
    int n_threads, json;
    double decode_bytes, bandwidth; // bytes; bytes per second
} frame;

static void report(const frame *f, int decode, size_t depth, size_t batch, size_t n, double seconds)
{
    static const char *separator = "[";
    double speed = (double)(n * batch) / seconds;
    double rate = f->decode_bytes * (decode ? (double)n : 1) / seconds;
    char name[32];
    snprintf(name, sizeof name, "%s%zu", decode ? "tg" : "pp", n);
    if (!f->json) {
        printf("%-8s %8zu %6zu %12.2f %8.2f %7.0f%%\n", name, depth, batch, speed, rate / 1e9, rate / f->bandwidth * 100);
        flush_output();
        return;
    }
    printf("%s{\"test\": \"%s\", \"tokens_per_s\": %.2f, \"gb_per_s\": ", separator, name, speed);
    json_number(rate / 1e9);
    printf(", \"share_of_bandwidth\": ");
    json_number(rate / f->bandwidth);
    printf(", \"bandwidth_gb_per_s\": ");
    json_number(f->bandwidth / 1e9);
    printf(", \"depth\": %zu, \"batch\": %zu, \"device\": ", depth, batch);
    json_string(f->device, strlen(f->device));
    printf(", \"threads\": %d}", f->n_threads);
    separator = ",\n ";
}

int main(int argc, char **argv)
{
    setup s = {0};
    list lengths[2] = {{{128, 512}, 2}, {{128}, 1}}, depths = {{0}, 1}, batches = {{1}, 1}; // prefill, decode
    size_t n_runs = 3, n_ids = 1;
    int json = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-p") == 0)
            lengths[0] = list_of(argc, argv, &i);
        else if (strcmp(argv[i], "-n") == 0)
            lengths[1] = list_of(argc, argv, &i);
        else if (strcmp(argv[i], "--depth") == 0)
            depths = list_of(argc, argv, &i);
        else if (strcmp(argv[i], "--batch") == 0)
            batches = list_of(argc, argv, &i);
        else if (strcmp(argv[i], "-r") == 0)
            n_runs = whole_from(argc, argv, &i, 1, 100);
        else if (strcmp(argv[i], "--json") == 0)
            json = 1;
        else if (!read_setup(&s, argc, argv, &i))
            unknown_option(argv[i]);
    }
    for (size_t b = 0; b < batches.n; b++)
        if (batches.at[b] == 0 || batches.at[b] > 4096)
            bad_usage("--batch", "needs 1 to 4096");

    kigo_engine *engine;
    kigo_model *model;
    open_model(&s, &engine, &model);
    kigo_engine_facts engine_facts = {.struct_size = sizeof engine_facts};
    kigo_model_facts facts = {.struct_size = sizeof facts};
    char device[64];
    size_t needed;
    CHECK(kigo_engine_info(engine, &engine_facts));
    CHECK(kigo_model_info(model, &facts));
    CHECK(kigo_engine_device(engine, device, sizeof device, &needed));
    double bandwidth = NAN;
    if (strncmp(device, "cuda", 4) == 0)
        CHECK(kigo_engine_read_bandwidth(engine, &bandwidth));
    else
        bandwidth = measure_bandwidth((size_t)engine_facts.n_threads);

    for (size_t d = 0; d < depths.n; d++)
        for (size_t kind = 0; kind < 2; kind++)
            for (size_t k = 0; k < lengths[kind].n; k++)
                if (depths.at[d] + lengths[kind].at[k] >= facts.n_ctx_train)
                    fail("depth and tokens", "together they exceed the model's context");
                else if (n_ids < depths.at[d] + lengths[kind].at[k] + 1)
                    n_ids = depths.at[d] + lengths[kind].at[k] + 1;
    size_t most = 1;
    for (size_t b = 0; b < batches.n; b++)
        most = batches.at[b] > most ? batches.at[b] : most;
    n_ids += most - 1; // a sequence begins one further than the one before
    uint32_t *ids = resize(NULL, n_ids * sizeof *ids);
    for (size_t i = 0, x = 1; i < n_ids; i++, x = x * 1103515245u + 12345u)
        ids[i] = (uint32_t)((x >> 8) % facts.n_vocab); // any will do

    frame f = {device, (int)engine_facts.n_threads, json, (double)facts.decode_bytes, bandwidth};
    if (!json)
        printf("%s, %.0f MB, on %s with %d threads, which read %.1f GB/s\n%-8s %8s %6s %12s %8s %8s\n", s.path,
               (double)facts.file_bytes / 1e6, device, f.n_threads, bandwidth / 1e9, "test", "depth", "batch",
               "tokens/s", "GB/s", "share");
    size_t n_reports = 0;
    for (size_t b = 0; b < batches.n; b++) {
        group g = open_group(model, batches.at[b]);
        for (size_t d = 0; d < depths.n; d++)
            for (int decode = 0; decode < 2; decode++)
                for (size_t k = 0; k < lengths[decode].n; k++) {
                    const size_t n = lengths[decode].at[k], depth = depths.at[d];
                    if (n == 0)
                        continue;
                    report(&f, decode, depth, g.n, n, measure(&g, ids, depth, n, decode, n_runs));
                    n_reports++;
                }
        close_group(&g);
    }
    if (json)
        printf("%s]\n", n_reports == 0 ? "[" : "");

    free(ids);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return finish_output();
}
