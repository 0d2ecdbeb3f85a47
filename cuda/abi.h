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
// Most experts of a layer.
constexpr uint32_t KG_MOST_EXPERTS = 1024;
// Most slots of a task of kgc_expert_gemm_*; columns in whose whole multiples the rows lie that it reads: device/fragments.cuh.
constexpr uint32_t KG_EXPERT_SLOTS = 128, KG_FRAGMENTS = 128;
constexpr uint32_t KG_NORM_KEPT = 4096; // most elements of a row that a launch norms which keeps no sum of its own: rows/norm.cuh
// Most parts of a row's sums that kgc_batch_norm takes.
constexpr uint32_t KG_MOST_PARTS = 16;
// Heads up to KG_TENSOR_HEAD wide go to tensor cores, in chunks of KG_TENSOR_CHUNK positions: decode_attention_mma.cu.
constexpr uint32_t KG_TENSOR_CHUNK = 256, KG_TENSOR_HEAD = 128;
// 16-byte words that a block of 32 elements of a staged input takes for each sequence: two halves and a scale (stage_input.cuh),
// and integers with a scale and sums.
constexpr uint32_t KG_INPUT_F16_WORDS = 66, KG_INPUT_Q_WORDS = 38;
constexpr uint32_t KG_DELTA_HEAD = 128, KG_SCAN_STATE = 256; // most channels of a head of a DeltaNet, rows of a Mamba2's state

// How a matrix is stored: F(type) for each type of rows, by the kind of its blocks. A type is added to a list here; its planes
// are told below, its code is in device/packed.cuh and load/repack.cu.
#define KG_FLOAT_TYPES(F) F(KG_F32) F(KG_F16) F(KG_BF16)
#define KG_Q32_TYPES(F) F(KG_Q4_0) F(KG_Q4_1) F(KG_Q5_0) F(KG_Q5_1) F(KG_Q8_0)
#define KG_K256_TYPES(F) F(KG_Q2_K) F(KG_Q3_K) F(KG_Q4_K) F(KG_Q5_K) F(KG_Q6_K)
#define KG_TABLE_TYPES(F) F(KG_IQ4_NL) F(KG_IQ4_XS) F(KG_MXFP4) F(KG_NVFP4)
#define KG_GRID_TYPES(F) F(KG_IQ3_S) F(KG_IQ3_XXS) F(KG_IQ2_S) F(KG_IQ2_XS) F(KG_IQ2_XXS) F(KG_IQ1_S) F(KG_IQ1_M)
#define KG_TERNARY_TYPES(F) F(KG_TQ1_0) F(KG_TQ2_0) F(KG_Q2_0) F(KG_Q1_0)
#define KG_ROW_TYPES(F) KG_FLOAT_TYPES(F) KG_Q32_TYPES(F) KG_K256_TYPES(F) KG_TABLE_TYPES(F) KG_GRID_TYPES(F) KG_TERNARY_TYPES(F)
// KG_F16_TILED: F16 in tiles of 16 rows and 32 columns, in the order of the tensor cores.
#define KG_TYPES(F) KG_ROW_TYPES(F) F(KG_F16_TILED)
#define KG_NAME(T) T,
enum KgType : uint32_t { KG_TYPES(KG_NAME) };
#undef KG_NAME

// What a gate goes through, or up where there is none: device/activation.cuh. Products can do the first two themselves.
enum KgActivation : uint32_t {
    KG_NO_ACTIVATION = 0, KG_ACTIVATION_SILU, KG_ACTIVATION_GELU, KG_ACTIVATION_GELU_ERF, KG_ACTIVATION_RELU2, KG_ACTIVATION_CLAMPED_SWIGLU
};

// How a row is normalized: rows/norm.cu.
enum KgNormKind : uint32_t { KG_NORM_NONE = 0, KG_NORM_RMS, KG_NORM_LAYER };

// What a router's logits become before experts are weighed: rows/route.cu. The last: they are chosen by their logits, and the weights
// are a softmax over the chosen.
enum KgScore : uint32_t { KG_SCORE_SOFTMAX = 0, KG_SCORE_SIGMOID, KG_SCORE_SOFTMAX_OF_CHOSEN };

// Which elements of a head a rope turns together: 2 i and 2 i + 1, or i and i + n_rot / 2.
enum KgPairing : uint32_t { KG_PAIRS_ADJACENT = 0, KG_PAIRS_HALVES };

// A matrix [rows, cols] in planes; block = 32 consecutive elements of a row, block b of row r has index r * cols / 32 + b.
//   float types: a = [rows, stride] elements, stride = cols rounded up to 8, zero filled
//   F16_TILED: a = [rows / 16, stride / 32] tiles of 16 rows and 32 columns (f16_mma.cuh), both rounded up, zero filled
//   a: 16 bytes a block: low four bits of element e < 16 in byte e, of e >= 16 in the high half of byte e - 16;
//      Q8_0: elements 0..15 as int8; IQ4_NL IQ4_XS MXFP4 NVFP4: elements 4 w + i in the low half of word w, 16 + 4 w + i in its high
//      one, at bit 4 i
//   b: Q8_0: 16 bytes a block, elements 16..31; Q6_K Q3_K Q2_K TQ1_0 TQ2_0 Q2_0: 8 bytes a block, two bits of element 4t + i
//      in word t / 4, at bit 8 i + 2 (t % 4)
//      IQ3_S IQ3_XXS: the low bytes of eight indices; IQ2_*: of four, then the signs, as bytes or as the file's word (IQ2_XXS)
//   c: 4 bytes a block: one bit of element 4t + i at bit 8 i + t (Q5_* Q3_K Q1_0); IQ3_S IQ3_XXS: the signs, as bytes or as the
//      file's word (IQ3_XXS); IQ1_*: the low bytes of four indices
//   s: Q4_0 Q5_0 Q8_0: f16 d a block; Q4_1 Q5_1: f16 d, m a block; Q4_K Q5_K: two bytes, scale
//      and min, a block; Q3_K Q6_K: two int8 scales a block; Q2_K: two bytes (scale | min << 4) a block; IQ4_NL: f16 d a block;
//      MXFP4: bfloat16 d a block; IQ4_XS: int8 scale and a zero a block; NVFP4: two UE4M3 scales a block; Q2_0: f16 d a block;
//      IQ3_S IQ2_XS IQ2_S: the indices' high bits, then scales, a byte each, a block; IQ1_S: the file's 16 bits a block; IQ1_M: 16 bits
//      of the indices, then two scales of four bits, 4 bytes a block
//   d: Q3_K Q6_K IQ4_XS IQ3_* IQ2_* IQ1_* TQ1_0 TQ2_0: f16 a 256; Q1_0: f16 a 128; Q2_K Q4_K Q5_K: f16 d, dmin a 256;
//      NVFP4 of experts with scales of their own: f32 a matrix
// Planes begin at multiples of 256 bytes, with nothing behind them up to the next: kernels copy whole words, the last of which may be half
// beyond the last row.
struct KgMat {
    const void *a, *b, *c, *s, *d;
    uint32_t type, rows, cols, stride;
    float scale;     // NVFP4: of all values
    uint32_t each;   // NVFP4 of experts: blocks of a matrix, whose values have a scale of their own; 0: scale is that of all
};

// The step in flight; lives on the device so that no step waits for the host.
struct KgState {
    const uint64_t *pages; // of each page of the sequence the address of a class's part, class after class
    float *logits;         // [n_vocab] of the slot
    int32_t token;         // the token to run
    int32_t position;      // its position
    uint32_t produced;     // tokens sampled on the device since the host last set the state
    uint32_t top_k;        // 0: all
    uint64_t seed;         // of the random numbers
    uint64_t share;        // top-p in units of 2^-32; 0: off
    uint64_t least;        // the weight that min-p asks for
    float temperature, inverse;
    uint32_t is_long;      // its keys are turned by the second of a layer's ropes
    uint32_t table_stride; // addresses in `pages` from one class to the next
    const float *kept;     // what layers with a state have kept of the tokens in front of it; null: zeros
    float *keeps;          // and where they keep what is behind it, which may be the same
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
    float eps, softcap;  // softcap 0: none, and y as it is
    float scale;         // where softcap is not 0 it multiplies y before; an infinite one does not cap
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
    const float *sinks;   // [n_heads]: a score of each head with no value behind it, or null
    const double *turns[2]; // [n_rot / 2] each: turns of pair i per position; the second of sequences that are long
    const KgState *state;
    float *out;           // [n_heads, hd]
    float *part;          // [n_heads, max_chunks, hd + 2]
    uint32_t *counters;   // [n_heads], zero between launches
    float *tap_q, *tap_k; // [n_heads, hd], [n_kv, hd] or null
    uint64_t layer_at;    // where the layer's keys begin in its class's part of a page, in elements
    uint32_t n_heads, n_kv, head_dim, n_rot, pairing, window, chunk, max_chunks;
    uint32_t norm_last;   // the norms stand behind the rope
    float scale, softcap, eps;
    float magnitude[2];   // of cosines and sines, as turns
    float beta;           // q is multiplied by 1 + beta ln(1 + floor(position / interval)), where interval is not 0
    uint32_t interval;
    // Of a batch: state is the first of n_seq; qkv, out, part and counters have one after another for each.
    uint32_t n_seq, qkv_stride, out_stride;
    uint32_t long_from, long_chunk; // positions from long_from on take this chunk
    uint32_t cache_class; // of the layer: which of the sequence's page tables is its own
    uint32_t is_kept;     // the token's keys and values are in the cache already, from another layer, and qkv has none
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
    uint32_t position, is_long; // the latter as in KgState
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
    const float *sinks;    // as in KgAttend
    const uint64_t *pages; // addresses of the parts that the sequence's pages have of the layer's class, on the device
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

// kgc_norm: residual and norm of rows.
struct KgNorm {
    float *x;               // [n_rows, dim], rows x_stride apart; written only where delta is given
    const float *delta[2];  // as x, added one after the other; the second only with the first; or null
    const float *post_w[2]; // [dim]: of a norm that delta goes through; or null
    const float *w, *bias;  // [dim] or null
    void *out;              // [n_rows, dim] f16, rows out_stride apart; columns dim .. out_stride are zeroed; or null
    void *out_lo;           // what its rounding leaves, the same shape, or null
    float *row;             // f32, as x, which it may be: the same before rounding; or null
    uint32_t n_rows, dim, x_stride, out_stride;
    uint32_t kind;          // KgNormKind
    float eps, scale;       // the latter: of what is added
    float sum_scale;        // of x with what is added; 0: none
    float h_scale;          // of h, in front of the bias; 0: none
    uint32_t heads;         // parts of a row, one behind the other, that are normed each by itself, with dim elements each; 0: one
    uint32_t w_stride;      // elements from a part's w to the next one's; 0: they have the same
};

// kgc_glu: what stands between the products of a feed-forward part, where no product does it.
struct KgGlu {
    const float *gate, *up; // [n_rows, n], rows in_stride apart; up may be null
    float *row;             // [n_rows, n] f32, rows out_stride apart, or null
    void *out, *out_lo;     // f16, the same shape, and what its rounding leaves; or null
    uint32_t n_rows, n, in_stride, out_stride;
    uint32_t activation;    // KgActivation, not none
    uint32_t up_stride;     // of up's rows, where it is another; else 0
};

// kgc_route: the experts of each row, and their weights.
struct KgRoute {
    const float *logits;      // [n_rows, n], rows stride apart
    const float *select_bias; // [n]: added for the choice alone, or null
    uint32_t *ids;            // [n_rows, n_used], ascending in each row
    float *weights;           // [n_rows, n_used]
    float *shown;             // [n_rows, n_used]: the ids, or null
    uint32_t n_rows, n, n_used, stride;
    uint32_t score;                   // KgScore
    uint32_t n_groups, n_groups_used; // experts of the best groups alone are chosen; 0: there are no groups
    uint32_t renorm;                  // weights are divided by their sum
    float scale;                      // of the weights
    const float *by_expert;   // [n]: what weights are multiplied by besides, in `scaled`; or null
    float *scaled;            // [n_rows, n_used] or null
};

// kgc_expert_products: products of slots, which are the rows of x, each `share` times, with the matrices of their experts.
struct KgExpertProducts {
    const float *x;       // [n_slots / share, n], rows x_stride apart
    KgMat m[2];           // [n_experts * rows, n], of one type
    const float *bias[2]; // [n_experts * rows] or null
    float *y[2];          // [n_slots, rows], rows y_stride apart
    const uint32_t *ids;  // [n_slots]: the expert of each slot; null: all have the first
    const uint32_t *order; // [n_slots] slots by expert, and [n_tasks] tasks, from kgc_expert_tasks; or both null
    const uint2 *tasks;
    uint32_t n_m, rows, n, share, n_slots, n_tasks;
    uint32_t at_once;     // slots of a block where all have the first expert, and most of a task: 1, 2, 4 or 8
    uint32_t x_stride, y_stride;
    uint32_t tile;        // rows a block, of one token's gated units the most blocks; no bit depends on it
    uint32_t activation;  // not 0: y[0] = activation(y[0]) * y[1], and y[1] is nowhere; where nothing is sorted, slots of one token
    uint32_t shared;      // with weights: y[0] has what the expert that all share has made
    const float *weights; // [n_slots], of one token: y[0] is [rows], the sum over all slots; or null
    const float *gate;    // [1]: what is shared is multiplied by the sigmoid of this; or null
};

// kgc_expert_gemm_*: the same of prompts, on tensor cores: matmul/prefill/expert_gemm.cuh. Rows of f16 lie as device/fragments.cuh has it.
struct KgExpertGemm {
    const void *x;        // f16 [.., k], rows x_stride apart
    KgMat m[2];           // [n_experts * rows, k], of one type: of y, or gate and up
    const float *bias[2]; // [n_experts * rows] or null
    void *y;              // [n_slots, rows], rows y_stride apart: f32, with a gate f16
    const uint32_t *order; // from kgc_expert_tasks
    const uint2 *tasks;
    uint32_t n_m, rows, k, n_tasks;
    uint32_t share;       // x's row of a slot is the slot / share; 0: its place in the order
    uint32_t by_slot;     // y's row of a slot is the slot, else its place in the order
    uint32_t x_stride, y_stride;
    uint32_t activation;  // KgActivation, none without a gate
    uint32_t wgmma;       // as in KgFlash
};

// kgc_prefill_rope: norms of the heads, rope, the cache's new rows.
struct KgPrefillRope {
    const float *qkv;      // [n_tokens, (n_heads + 2 n_kv) * head_dim], rows qkv_stride apart
    const float *q_norm;   // [head_dim] or null
    const float *k_norm;   // [head_dim] or null
    const double *turns[2]; // as in KgAttend, and so are magnitude, norm_last, beta and interval
    void *q;               // [n_tokens, n_heads, head_dim] f16, rows q_stride apart
    const uint64_t *pages; // as in KgFlash
    float *tap_q, *tap_k;  // [n_tokens, n_heads, head_dim], [n_tokens, n_kv, head_dim] f32 or null
    uint64_t k_offset, v_offset, head_stride, token_stride; // elements
    uint32_t n_tokens, start, n_heads, n_kv, head_dim, n_rot, pairing;
    uint32_t qkv_stride, q_stride;
    uint32_t norm_last;
    float eps, magnitude[2], beta;
    uint32_t interval;
    const KgRow *rows; // [n_tokens] of several sequences, on the device, or null; then pages, start and is_long are not read
    uint32_t is_long, unused;
};

// Rows of a sequence in a pass of prompts, for layers that keep a state: as KgState has it, in front of the first row and behind the last.
struct KgSpan {
    const float *kept;
    float *keeps;
    uint32_t row0, n_rows;
};

// Whose rows they are in layers that keep a state: of steps one of each sequence, else those of the spans.
struct KgSpans {
    const KgState *state; // [n] or null
    const KgSpan *spans;  // [n], on the device, one behind the other; or null
    uint32_t n, n_rows;
    uint64_t at;          // where in a state what the launch keeps begins, in elements
};

// kgc_convolve: rows/convolve.cu.
struct KgConvolve {
    KgSpans of;
    const float *x, *times, *gate; // [n_rows, channels], rows x_stride apart; the last two may be null
    const float *w;       // [channels, len]
    const float *bias;    // [channels] or null
    float *y;             // [n_rows, channels], rows y_stride apart
    float *row;           // f32, [n_rows, channels], rows out_stride apart, or null
    void *out, *out_lo;   // f16, the same shape, and what its rounding leaves; or null
    float *betas, *decays; // [n_rows, n_gates], rows gates_stride apart: what they are made of, in its place; of time steps only the first; or null
    const float *a, *dt;  // [n_gates] or null
    uint32_t channels, len, x_stride, y_stride, out_stride, n_gates, gates_stride;
    uint32_t activation;  // KgActivation, none too: of y
    uint32_t by_steps;    // decays follow from time steps, which are in the betas' place
};

// kgc_delta: rows/delta.cu.
struct KgDelta {
    KgSpans of;
    const float *y;       // [n_rows, 2 k_heads * k_dim + v_heads * v_dim], rows y_stride apart: queries, keys and values
    const float *betas, *decays; // [n_rows, v_heads], rows gates_stride apart
    const float *z;       // [n_rows, v_heads * v_dim], rows z_stride apart
    const float *norm;    // [v_dim]
    float *o;             // [n_rows, v_heads * v_dim]: what is read of the states
    float *row;           // f32, [n_rows, v_heads * v_dim], rows out_stride apart, or null
    void *out, *out_lo;   // f16, the same shape, and what its rounding leaves; or null
    uint32_t k_heads, v_heads, k_dim, v_dim, y_stride, gates_stride, z_stride, out_stride;
    uint32_t tiled;       // value head h goes with key head h % k_heads, not h / (v_heads / k_heads)
    float eps;
};

// kgc_scan: rows/scan.cu.
struct KgScan {
    KgSpans of;
    const float *y;       // [n_rows, heads * head_dim + 2 groups * d_state], rows y_stride apart: x, B and C
    const float *steps, *decays; // [n_rows, heads], rows gates_stride apart
    const float *d;       // [heads]
    float *o;             // [n_rows, heads * head_dim]: what is read of the states
    uint32_t heads, head_dim, groups, d_state, y_stride, gates_stride;
};

// kgc_gate_mix: what attention has mixed, in its place, times the sigmoid of a gate.
struct KgGateMix {
    const float *gate;    // [n_rows, n], rows gate_stride apart
    float *row;           // f32, [n_rows, n], rows stride apart, or null
    void *out, *out_lo;   // f16, the same shape, and what its rounding has left; or null
    uint32_t n_rows, n, gate_stride, stride;
};
