// Broken files through the C API: each gets a status and a text, quickly, and the engine goes on. The table of what
// exactly is refused, and how, is tests/api/gguf.rs.
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include <time.h>

static kigo_engine *engine;
static bool slow;
static int n_refused;

// Milliseconds of this process on any processor: what else the machine does is no matter.
static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void refused(const unsigned char *bytes, size_t n_bytes)
{
    kigo_model *model;
    double begin = now_ms();
    kigo_status status = kigo_model_load_memory(engine, bytes, n_bytes, NULL, &model);
    CHECK(slow || now_ms() - begin < 100);
    CHECK(status == KIGO_STATUS_INVALID_MODEL || status == KIGO_STATUS_UNSUPPORTED);
    CHECK(model == NULL && strlen(kigo_last_error()) > 8);
    n_refused++;
}

// The place of a key or a name in the file.
static size_t find(const unsigned char *bytes, size_t n_bytes, const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i + len <= n_bytes; i++)
        if (memcmp(bytes + i, text, len) == 0)
            return i;
    CHECK(!"the text stands in the file");
    return 0;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    slow = argc > 2;
    engine = open_engine();
    size_t n_bytes;
    unsigned char *good = read_file(argv[1], &n_bytes), *bad = malloc(n_bytes);
    CHECK(bad != NULL);

    // Cut off anywhere.
    for (size_t i = 0; i < 40; i++)
        refused(good, i < 30 ? i : n_bytes * (i - 30) / 10);
    refused(good, n_bytes - 1);

    // A byte of the header or of the table changed to its complement, and to its neighbour.
    static const size_t header[] = {0, 3, 4, 7, 8, 12, 15, 16, 20, 23};
    for (size_t i = 0; i < sizeof header / sizeof *header; i++) {
        memcpy(bad, good, n_bytes);
        bad[header[i]] ^= 0xFF;
        refused(bad, n_bytes);
    }

    // Names that are needed and not there, and values that lie.
    static const char *const names[] = {"general.architecture", "qwen2.block_count", "qwen2.embedding_length",
                                        "qwen2.attention.head_count", "tokenizer.ggml.model", "tokenizer.ggml.tokens",
                                        "token_embd.weight", "blk.0.attn_q.weight", "blk.1.ffn_down.weight",
                                        "output_norm.weight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        memcpy(bad, good, n_bytes);
        bad[find(bad, n_bytes, names[i])] ^= 1;
        refused(bad, n_bytes);
    }
    for (int k = 0; k < 2; k++) {
        static const char *const counts[] = {"qwen2.block_count", "qwen2.embedding_length"};
        memcpy(bad, good, n_bytes);
        // The key, its type (4 bytes), then the number.
        bad[find(bad, n_bytes, counts[k]) + strlen(counts[k]) + 4 + 3] = 0x7F;
        refused(bad, n_bytes);
    }
    CHECK(n_refused >= 60);

    kigo_model *model;
    CHECK(kigo_model_load_memory(engine, good, n_bytes, NULL, &model) == KIGO_STATUS_OK);
    kigo_session_destroy(open_session(model));
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    free(good);
    free(bad);
    return 0;
}
