// What the kernels of attention of a step share: arguments, and the cache's new row.
//
//   q_h = rope(rms_norm(q_h) * q_norm, p) * t(p) * scale   [head_dim] f32, norms where the weights are given; behind the rope where
//                                                          norm_last; t(p) = 1 + beta ln(1 + floor(p / interval)), or 1
//   k   = rope(rms_norm(k) * k_norm, p), v                 stored as f16 at position p of the cache
//   s_t = softcap(q_h . k_t), t = max(0, p + 1 - window) .. p;  out_h = softmax(s) v       f32 accumulation
//   where there are sinks, exp(sink_h) is a term of the softmax's sum too, added last
//
// Cache: the part that page g of a sequence has of a class of layers holds positions 64 g .. 64 g + 63 as
// [layers of the class][k, v][n_kv][64][head_dim] f16, 16-byte aligned. Only entries of its table from the window's first page on are read.
#pragma once
#include "device/common.cuh"

// PLAIN: of a model without temperature, sinks, norms behind the rope, keys of another layer and ropes of long sequences: what they
// take is not in the kernel, which a small model's step would fetch anew in each layer.

// Where the parts lie that a sequence's pages have of the layer's class.
__device__ __forceinline__ const uint64_t *kg_page_table(const KgAttend &p, const KgState *state) {
    return state->pages + (size_t)p.cache_class * state->table_stride;
}

// The turns of position pos, cosine and sine of each pair; in turns and in double, so that a large position costs no accuracy.
__device__ __forceinline__ void kg_decode_attention_turns(const KgAttend &p, int pos, uint32_t is_long, float *turn) {
    const double *turns = p.turns[is_long];
    const float magnitude = p.magnitude[is_long];
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < p.n_rot / 2; i += blockDim.x) {
        double a = (double)pos * turns[i];
        float s, cs;
        sincospif(2.f * (float)(a - rint(a)), &s, &cs);
        turn[2 * i] = cs * magnitude, turn[2 * i + 1] = s * magnitude;
    }
}

// The weights of the norms of queries and keys, [hd] each, where a model has them: a warp that met them one load after another would wait
// longer than for all else of its row.
__device__ __forceinline__ void kg_decode_attention_norms(const KgAttend &p, float *norms) {
    if (!p.q_norm && !p.k_norm) return;
    const uint32_t hd = p.head_dim;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < 2 * hd; i += blockDim.x) {
        const float *of = i < hd ? p.q_norm : p.k_norm;
        norms[i] = of ? of[i < hd ? i : i - hd] : 0.f;
    }
}
static inline uint32_t kg_decode_attention_norms_floats(const KgAttend *p) { return p->q_norm || p->k_norm ? 2 * p->head_dim : 0; }

// A warp computes x = rope(rms_norm(from) * norm) of one head, or rms_norm(rope(from)) * norm; that of a query times the temperature of
// its position, `warm`, which is negative of a key.
// Loads of LOADS elements a lane are under way at once.
template <bool PLAIN, int LOADS>
__device__ __forceinline__ void kg_decode_attention_row(const KgAttend &p, const float *from, const float *norm, const float *turn, int warm,
                                                        float *x) {
    const uint32_t hd = p.head_dim, lane = threadIdx.x & 31;
    float ss = 0.f;
#pragma unroll LOADS
    for (uint32_t i = lane; i < hd; i += 32) {
        float f = from[i];
        x[i] = f;
        ss = __fmaf_rn(f, f, ss);
    }
    auto scale = [&](float ss) {
        const float m = 1.f / sqrtf(kg_warp_sum(ss) / (float)hd + p.eps);
#pragma unroll 1
        for (uint32_t i = lane; i < hd; i += 32) x[i] *= m * norm[i];
    };
    if (norm && (PLAIN || !p.norm_last)) scale(ss);
    __syncwarp();
#pragma unroll 1
    for (uint32_t i = lane; i < p.n_rot / 2; i += 32) {
        const bool halves = p.pairing == KG_PAIRS_HALVES;
        const uint32_t a = halves ? i : 2 * i, b = halves ? i + p.n_rot / 2 : 2 * i + 1;
        const float y = x[a], z = x[b], cs = turn[2 * i], s = turn[2 * i + 1];
        // Rounded as written: the same in every variant, however the compiler would fuse.
        x[a] = __fmaf_rn(y, cs, -__fmul_rn(z, s));
        x[b] = __fmaf_rn(y, s, __fmul_rn(z, cs));
    }
    __syncwarp();
    if (!PLAIN && norm && p.norm_last) {
        ss = 0.f;
#pragma unroll 1
        for (uint32_t i = lane; i < hd; i += 32) ss = __fmaf_rn(x[i], x[i], ss);
        scale(ss);
        __syncwarp();
    }
    if (!PLAIN && p.interval && warm >= 0) {
        const float t = kg_temperature(p.beta, p.interval, (uint32_t)warm);
#pragma unroll 1
        for (uint32_t i = lane; i < hd; i += 32) x[i] *= t;
        __syncwarp();
    }
}

// The token's own keys and values of a head, which another layer has left in the cache in this step: put(i, k, v). Neighbouring rows may
// have been read before they were written, so that only L2 is asked.
template <typename Put>
__device__ __forceinline__ void kg_kept_row(const KgAttend &p, const uint64_t *pages, int pos, size_t k_at, size_t v_at, Put put) {
    const unsigned short *row = (const unsigned short *)pages[pos >> 6] + (size_t)(pos & 63) * p.head_dim;
#pragma unroll 1
    for (uint32_t i = threadIdx.x & 31; i < p.head_dim; i += 32)
        put(i, __ushort_as_half(__ldcg(row + k_at + i)), __ushort_as_half(__ldcg(row + v_at + i)));
}

__device__ __forceinline__ void kg_kept_halves(const KgAttend &p, const uint64_t *pages, int pos, size_t k_at, size_t v_at, __half *k, __half *v) {
    kg_kept_row(p, pages, pos, k_at, v_at, [&](uint32_t i, __half kh, __half vh) { k[i] = kh, v[i] = vh; });
}

// The sum of a head's exponentials, of which the largest score is `top`, with that of its sink, if it has one.
template <bool PLAIN> __device__ __forceinline__ float kg_with_sink(const KgAttend &p, uint32_t head, float sum, float top) {
    return !PLAIN && p.sinks ? __fadd_rn(sum, expf(p.sinks[head] - top)) : sum;
}

// Heads up to 128 wide, by tensor cores: see decode_attention_mma.cu. chunks: of KG_TENSOR_CHUNK positions.
cudaError_t kg_decode_attention_mma_launch(const KgAttend *p, uint32_t chunks, int pdl, cudaStream_t stream) __attribute__((visibility("hidden")));
