// What both kernels of prefill's attention share: their tiles, the end of a tile, and what they require.
#pragma once
#include "device/vectors.cuh"

KGC_API cudaError_t kgc_flash_prefill(const KgFlash *p, cudaStream_t stream); // the path the device has
KGC_API cudaError_t kgc_flash_sm90(const KgFlash *p, cudaStream_t stream);    // flash_prefill_sm90.cu, head_dim up to 256
KGC_API cudaError_t kgc_flash_mma(const KgFlash *p, cudaStream_t stream);     // flash_prefill_mma.cu

// The block's rows, `each` at a time; longest rows start first, as the tiles given are in order.
__device__ __forceinline__ KgFlashTile kg_flash_tile(const KgFlash &p, uint32_t each) {
    if (p.tiles) return p.tiles[blockIdx.y];
    return {p.pages, 0, p.n_tokens, p.start, (gridDim.y - 1 - blockIdx.y) * each};
}

// The end of both paths: what a thread has of rows `row` and row + 8 of its tile, of columns column0 + 8 n + 2 (lane % 4) and the
// next: value(h, 2 n + {0, 1}), not yet divided by the row's sum, of which total[h] is this thread's columns' part, of exponentials
// 2^((s - top[h]) unit); that of the head's sink, if it has one, is added.
template <int N8, typename F>
__device__ __forceinline__ void kg_flash_store(const KgFlash &p, uint32_t first, uint32_t n_rows, uint32_t row, uint32_t head, uint32_t column0,
                                               const float (&total)[2], const float (&top)[2], float unit, F value) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = total[h];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if (p.sinks) sum = __fadd_rn(sum, kg_exp2(__fmaf_rn(p.sinks[head], 1.4426950408889634f, -__fmul_rn(top[h], unit))));
        const float share = 1.f / sum;
        if (row + 8 * h >= n_rows) continue;
        const size_t at = (size_t)(first + row + 8 * h) * p.out_stride + (size_t)head * p.head_dim;
#pragma unroll
        for (int n = 0; n < N8; n++) {
            const uint32_t c = column0 + n * 8 + 2 * (threadIdx.x % 4);
            if (c >= p.head_dim) break;
            const float a = value(h, 2 * n) * share, b = value(h, 2 * n + 1) * share;
            kg_put16((__half *)p.out, (__half *)p.out_lo, at + c, a, b);
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
