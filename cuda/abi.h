// What crosses from the library to its kernels: every struct that a launcher takes, and every number that both sides know.
//
// src/backend/cuda/kernels/abi.rs has the same. abi.cu reports sizes, offsets and numbers as the compiler has them, and the
// library compares these with its own in a test and before it opens a device. Addresses are of device memory. Shapes are
// [outer, .., inner], the inner one contiguous.
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

// Tokens of a page of the cache; tokens that the ring of a sequence holds, on the host.
constexpr uint32_t KG_PAGE = 64, KG_RING = 256;
// Most parts of a row's sums that kgc_batch_norm takes.
constexpr uint32_t KG_MOST_PARTS = 16;
// Heads up to KG_TENSOR_HEAD wide go to tensor cores, in chunks of KG_TENSOR_CHUNK positions: decode_attention_mma.cu.
constexpr uint32_t KG_TENSOR_CHUNK = 256, KG_TENSOR_HEAD = 128;
// 16-byte words that a block of 32 elements of a staged input takes for each sequence: two halves and a scale (stage_input.cuh),
// and integers with a scale and sums.
constexpr uint32_t KG_INPUT_F16_WORDS = 66, KG_INPUT_Q_WORDS = 38;

// How a matrix is stored.
enum KgType : uint32_t {
    KG_F32 = 0, KG_F16, KG_BF16, KG_Q4_0, KG_Q4_1, KG_Q5_0, KG_Q5_1, KG_Q8_0, KG_Q2_K, KG_Q3_K, KG_Q4_K, KG_Q5_K, KG_Q6_K,
    KG_F16_TILED, // F16 in tiles of 16 rows and 32 columns, in the order of the tensor cores
};

// What stands between gate and up.
enum KgActivation : uint32_t { KG_NO_ACTIVATION = 0, KG_ACTIVATION_SILU, KG_ACTIVATION_GELU };

// A matrix [rows, cols] in planes; block = 32 consecutive elements of a row, block b of row r has index r * cols / 32 + b.
//   float types: a = [rows, stride] elements, stride = cols rounded up to 8, zero filled
//   F16_TILED: a = [rows / 16, stride / 32] tiles of 16 rows and 32 columns (f16_mma.cuh), both rounded up, zero filled
//   a: 16 bytes a block: low four bits of element e < 16 in byte e, of e >= 16 in the high half of byte e - 16;
//      Q8_0: elements 0..15 as int8
//   b: Q8_0: 16 bytes a block, elements 16..31; Q6_K, Q3_K, Q2_K: 8 bytes a block, two bits of element 4t + i
//      in word t / 4, at bit 8 i + 2 (t % 4)
//   c: 4 bytes a block: one bit of element 4t + i at bit 8 i + t (Q5_*, Q3_K)
//   s: Q4_0 Q5_0 Q8_0: f16 d a block; Q4_1 Q5_1: f16 d, m a block; Q4_K Q5_K: two bytes, scale
//      and min, a block; Q3_K Q6_K: two int8 scales a block; Q2_K: two bytes (scale | min << 4) a block
//   d: Q3_K Q6_K: f16 a 256; Q2_K Q4_K Q5_K: f16 d, dmin a 256
struct KgMat {
    const void *a, *b, *c, *s, *d;
    uint32_t type, rows, cols, stride;
};

// The step in flight; lives on the device so that no step waits for the host.
struct KgState {
    const uint64_t *pages; // address of each page of the sequence
    float *logits;         // [n_vocab] of the slot
    int32_t token;         // the token to run
    int32_t position;      // its position
    uint32_t produced;     // tokens sampled on the device since the host last set the state
    uint32_t top_k;        // 0: all
    uint64_t seed;         // of the random numbers
    uint64_t share;        // top-p in units of 2^-32; 0: off
    uint64_t least;        // the weight that min-p asks for
    float temperature, inverse;
};

// A stage of a decode step, of one sequence or of several: matmul/gemv.cuh.
struct KgStage {
    const float *x, *delta, *post_w, *norm_w; // [n]
    float *x_out;                             // [n] or null
    float *tap;                               // [n] or null: receives h
    const KgState *state;                     // not null: y goes to state->logits
    KgMat m[3];
    const float *bias[3];
    float *out[3];
    uint32_t seg_block[4]; // blocks seg_block[i] .. seg_block[i+1] work on matrix i
    uint32_t n_seg;
    uint32_t n;          // columns
    uint32_t ks;         // warps a row
    uint32_t activation; // 0: none; 1: silu, 2: gelu: m[0] is the gate, m[1] the up matrix, n_seg is 1
    float eps, softcap;
    // Of a batch: x, delta and x_out are [n_seq, x_stride], out[i] [n_seq, out_stride], state the first of n_seq.
    uint32_t n_seq, x_stride, out_stride;
    uint32_t n_part; // parts of delta, and the bias that goes with them: see kg_batch_norm
    const float *part, *part_bias;
    uint4 *split; // not null: kg_batch_norm leaves its result, and stages of tiles find their input, cut up here: see stage_input.cuh
    uint32_t split_nt; // tiles of eight sequences in a group there: as many as a block of the stage takes
    uint32_t split_ints; // cut up as integers: see stage_input.cuh
};

// Attention of a decode step: attention/decode_attention.cuh.
struct KgAttend {
    const float *qkv;     // [n_heads * hd + 2 * n_kv * hd]
    const float *q_norm;  // [hd] or null
    const float *k_norm;  // [hd] or null
    const double *turns;  // [n_rot / 2]: turns of pair i per position
    const KgState *state;
    float *out;           // [n_heads, hd]
    float *part;          // [n_heads, max_chunks, hd + 2]
    uint32_t *counters;   // [n_heads], zero between launches
    float *tap_q, *tap_k; // [n_heads, hd], [n_kv, hd] or null
    uint32_t n_heads, n_kv, head_dim, n_rot, halves, window, layer, chunk, max_chunks;
    float scale, softcap, eps, magnitude; // the last: of cosines and sines
    // Of a batch: state is the first of n_seq; qkv, out, part and counters have one after another for each.
    uint32_t n_seq, qkv_stride, out_stride;
    uint32_t long_from, long_chunk; // positions from long_from on take this chunk
};

// What becomes of a finished sum: matmul/prefill/gemm.cuh.
enum KgGemmEpilogue : uint32_t { KG_GEMM_F32 = 0, KG_GEMM_ADD, KG_GEMM_F16, KG_GEMM_SILU, KG_GEMM_GELU };

// Up to three weight matrices share x and lie side by side in y: columns n[0], then n[1], then n[2]. With SILU and GELU
// there are exactly two, of one size, and y has n[0] columns.
struct KgGemm {
    const void *x;        // [m, k] f16, rows x_stride elements apart
    const void *x_lo;     // the same, added to x: what rounding x to f16 has left; or null
    const void *w[3];     // [n[i], k] f16, rows w_stride elements apart; n[i] even, k a multiple of 8
    const void *w_lo[3];  // with x_lo: what rounding w to f16 has left, the same shapes, x's product with it is added; or all null
    const float *bias[3]; // [n[i]] or null
    void *y;              // [m, sum of n] f32 or f16, rows y_stride elements apart
    void *y_lo;           // of an f16 y: what its rounding leaves; or null
    void *encode;         // from kgc_gemm_encoder; null: mma.sync
    uint32_t m, k, n[3], n_w;
    uint32_t x_stride, w_stride, y_stride;
    uint32_t epilogue;    // KgGemmEpilogue
    uint32_t n_sms;       // multiprocessors of the device
    uint32_t tile;        // 0: chosen by the shape; else columns of a tile. Changes the speed only, never a bit of y
};

// Prompts of several sequences in one pass: of each row of the pass whose it is and where, and of each 64 rows of a sequence.
struct KgRow {
    const uint64_t *pages;
    uint32_t position, unused;
};
struct KgFlashTile {
    const uint64_t *pages;
    uint32_t row0, n_tokens, start; // of the sequence: its first row in the pass, how many, the position of the first
    uint32_t tile;                  // its row that the tile begins with, a multiple of 64
};

// kgc_flash_prefill: attention of a chunk over the cache that already holds the chunk's own keys and values.
struct KgFlash {
    const void *q;         // f16
    void *out, *out_lo;    // f16; what its rounding leaves, or null
    const uint64_t *pages; // addresses of the sequence's pages, on the device
    uint64_t k_offset, v_offset, head_stride, token_stride; // elements
    uint32_t n_tokens, start, n_heads, n_kv, head_dim;
    uint32_t q_stride, out_stride;
    uint32_t window;       // 0: all positions
    uint32_t wgmma;        // not 0: kgc_gemm_encoder succeeded on this device
    uint32_t n_sms;        // multiprocessors of the device
    float scale, softcap;  // softcap 0: none
    const KgFlashTile *tiles; // [n_tiles] of several sequences, on the device, or null; then pages and start are not read
    uint32_t n_tiles;
};

// kgc_prefill_norm: residual, norm, f16.
struct KgPrefillNorm {
    float *x;            // [n_tokens, dim]; written only where delta is given
    const float *delta;  // [n_tokens, dim] or null
    const float *post_w; // [dim] or null
    const float *w;      // [dim]
    void *out;           // [n_tokens, dim] f16, rows out_stride apart; columns dim .. out_stride are zeroed; null: only x
    void *out_lo;        // what its rounding leaves, the same shape, or null
    float *tap;          // [n_tokens, dim] f32, the same before rounding, or null
    uint32_t n_tokens, dim, out_stride;
    float eps;
};

// kgc_prefill_rope: norms of the heads, rope, the cache's new rows.
struct KgPrefillRope {
    const float *qkv;      // [n_tokens, (n_heads + 2 n_kv) * head_dim], rows qkv_stride apart
    const float *q_norm;   // [head_dim] or null
    const float *k_norm;   // [head_dim] or null
    const double *turns;   // [n_rot / 2]: turns of pair i per position
    void *q;               // [n_tokens, n_heads, head_dim] f16, rows q_stride apart
    const uint64_t *pages; // addresses of the sequence's pages, on the device
    float *tap_q, *tap_k;  // [n_tokens, n_heads, head_dim], [n_tokens, n_kv, head_dim] f32 or null
    uint64_t k_offset, v_offset, head_stride, token_stride; // elements
    uint32_t n_tokens, start, n_heads, n_kv, head_dim, n_rot, halves;
    uint32_t qkv_stride, q_stride;
    float eps, magnitude; // the latter: of cosines and sines
    const KgRow *rows; // [n_tokens] of several sequences, on the device, or null; then pages and start are not read
};
