// Arguments of prefill's attention (flash_prefill_mma.cu) and row-wise stages (prefill_rope.cu).
#pragma once
#include "matmul/prefill/gemm.cuh"

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
    void *out, *out_lo;    // f16 or f32; of f16 what its rounding leaves, or null
    const uint64_t *pages; // addresses of the sequence's pages, on the device
    uint64_t k_offset, v_offset, head_stride, token_stride; // elements
    uint32_t n_tokens, start, n_heads, n_kv, head_dim;
    uint32_t q_stride, out_stride;
    uint32_t window;       // 0: all positions
    uint32_t out_f32;      // not 0: out is f32
    uint32_t pdl;          // not 0: launched with programmatic dependence
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
    uint32_t n_tokens, dim, out_stride, pdl;
    float eps;
};

// kgc_prefill_rope: bias, norms of the heads, rope, the cache's new rows.
struct KgPrefillRope {
    const float *qkv;      // [n_tokens, (n_heads + 2 n_kv) * head_dim], rows qkv_stride apart
    const float *bias;     // [(n_heads + 2 n_kv) * head_dim] or null
    const float *q_norm;   // [head_dim] or null
    const float *k_norm;   // [head_dim] or null
    const double *turns;   // [n_rot / 2]: turns of pair i per position
    void *q;               // [n_tokens, n_heads, head_dim] f16, rows q_stride apart
    const uint64_t *pages; // addresses of the sequence's pages, on the device
    float *tap_q, *tap_k;  // [n_tokens, n_heads, head_dim], [n_tokens, n_kv, head_dim] f32 or null
    uint64_t k_offset, v_offset, head_stride, token_stride; // elements
    uint32_t n_tokens, start, n_heads, n_kv, head_dim, n_rot, halves;
    uint32_t qkv_stride, q_stride, pdl;
    float eps, magnitude; // the latter: of cosines and sines
    const KgRow *rows; // [n_tokens] of several sequences, on the device, or null; then pages and start are not read
};

KGC_API cudaError_t kgc_flash_prefill(const KgFlash *p, cudaStream_t stream); // the path the device has
KGC_API cudaError_t kgc_flash_sm90(const KgFlash *p, cudaStream_t stream);    // flash_prefill_sm90.cu, head_dim up to 256
KGC_API cudaError_t kgc_flash_mma(const KgFlash *p, cudaStream_t stream);     // flash_prefill_mma.cu
KGC_API cudaError_t kgc_prefill_norm(const KgPrefillNorm *p, cudaStream_t stream);
KGC_API cudaError_t kgc_prefill_rope(const KgPrefillRope *p, cudaStream_t stream);

// The block's rows, `each` at a time; longest rows start first, as the tiles given are in order.
__device__ __forceinline__ KgFlashTile kg_flash_tile(const KgFlash &p, uint32_t each) {
    if (p.tiles) return p.tiles[blockIdx.y];
    return {p.pages, 0, p.n_tokens, p.start, (gridDim.y - 1 - blockIdx.y) * each};
}

// The end of both paths: what a thread has of rows `row` and row + 8 of its tile, of columns column0 + 8 n + 2 (lane % 4) and the
// next: value(h, 2 n + {0, 1}), not yet divided by the row's sum, of which total[h] is this thread's columns' part.
template <int N8, typename F>
__device__ __forceinline__ void kg_flash_store(const KgFlash &p, uint32_t first, uint32_t n_rows, uint32_t row, uint32_t head, uint32_t column0,
                                               const float (&total)[2], F value) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = total[h];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        const float share = 1.f / sum;
        if (row + 8 * h >= n_rows) continue;
        const size_t at = (size_t)(first + row + 8 * h) * p.out_stride + (size_t)head * p.head_dim;
#pragma unroll
        for (int n = 0; n < N8; n++) {
            const uint32_t c = column0 + n * 8 + 2 * (threadIdx.x % 4);
            if (c >= p.head_dim) break;
            const float a = value(h, 2 * n) * share, b = value(h, 2 * n + 1) * share;
            if (p.out_f32) *(float2 *)((float *)p.out + at + c) = make_float2(a, b);
            else kg_put16((__half *)p.out, (__half *)p.out_lo, at + c, a, b);
        }
    }
}

// Preconditions of both paths.
static inline cudaError_t kg_flash_check(const KgFlash *p) {
    bool ok = p->n_sms && p->q && p->out && (p->tiles ? p->n_tiles && p->n_tiles <= 65535 : p->pages != nullptr) && p->n_tokens && p->n_tokens <= 64u * 65535;
    ok = ok && p->n_kv && p->n_heads && p->n_heads % p->n_kv == 0;
    ok = ok && p->head_dim && p->head_dim % 8 == 0 && p->head_dim <= 512 && (uint64_t)p->start + p->n_tokens < (1u << 31);
    ok = ok && ((p->k_offset | p->v_offset | p->head_stride | p->token_stride | p->q_stride) % 8) == 0 && p->out_stride % 8 == 0;
    ok = ok && ((uintptr_t)p->q | (uintptr_t)p->out | (uintptr_t)p->out_lo) % 16 == 0 && p->token_stride >= p->head_dim && p->scale > 0.f;
    ok = ok && (uint64_t)p->n_heads * p->head_dim <= p->q_stride && (uint64_t)p->n_heads * p->head_dim <= p->out_stride;
    return ok ? cudaSuccess : cudaErrorInvalidValue;
}
