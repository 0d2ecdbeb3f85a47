// Residual and norm of a row, in full: see norm.cu, which has the formulas.
#pragma once
#include "device/vectors.cuh"

// What the elements of something to add are multiplied by for their norm.
template <int V> __device__ __forceinline__ float kg_norm_post(const KgNorm &p, const float *delta, float *red) {
    float ss = 0.f;
    for (uint32_t i = threadIdx.x * V; i < p.dim; i += 256 * V) {
        const KgFloats<V> v = *(const KgFloats<V> *)(delta + i);
#pragma unroll
        for (int j = 0; j < V; j++) ss = __fmaf_rn(v.v[j], v.v[j], ss);
    }
    return 1.f / sqrtf(kg_block_sum256(ss, red) / (float)p.dim + p.eps);
}

// The row that begins at `at`, by 256 threads: to[i ..] gets what becomes of x where something is added, unless it is null; put(i, h) is given
// V elements of h, if there are `results`. A thread reads again what it has written itself, so that all may be where x is; without `to` a
// row has KG_NORM_KEPT elements at most, and V is 4.
template <int V, typename Put>
__device__ __forceinline__ void kg_norm_row(const KgNorm &p, size_t at, float *to, float (&red)[4][8], bool results, Put put) {
    constexpr uint32_t KEEP = KG_NORM_KEPT / 1024, STEP = 256 * V;
    using F = KgFloats<V>;
    const float *x = p.x + at, *w = p.w_stride ? p.w + blockIdx.x % p.heads * p.w_stride : p.w;
    float post[2];
#pragma unroll
    for (int d = 0; d < 2; d++) post[d] = p.scale * (p.post_w[d] ? kg_norm_post<V>(p, p.delta[d] + at, red[d]) : 1.f);
    F kept[KEEP];
    auto each = [&](const float *from, auto f) { // of the row, the same elements in the same order each time
#pragma unroll
        for (uint32_t n = 0; n < KEEP; n++)
            if (n * STEP + threadIdx.x * V < p.dim) f(n * STEP + threadIdx.x * V, kept[n]);
        for (uint32_t i = KEEP * STEP + threadIdx.x * V; i < p.dim; i += STEP) {
            F v = *(const F *)(from + i);
            f(i, v);
        }
    };
    const bool layer = p.kind == KG_NORM_LAYER;
    float sum = 0.f;
    each(x, [&](uint32_t i, F &v) {
        v = *(const F *)(x + i);
#pragma unroll
        for (int d = 0; d < 2; d++) {
            if (!p.delta[d]) continue;
            F add = *(const F *)(p.delta[d] + at + i);
#pragma unroll
            for (int j = 0; j < V; j++) {
                add.v[j] = __fmul_rn(add.v[j], post[d]);
                if (p.post_w[d]) add.v[j] = __fmul_rn(add.v[j], p.post_w[d][i + j]);
                v.v[j] = __fadd_rn(v.v[j], add.v[j]);
            }
        }
        if (p.sum_scale != 0.f) {
#pragma unroll
            for (int j = 0; j < V; j++) v.v[j] = __fmul_rn(v.v[j], p.sum_scale);
        }
        if (p.delta[0] && to) *(F *)(to + i) = v;
#pragma unroll
        for (int j = 0; j < V; j++) sum = layer ? __fadd_rn(sum, v.v[j]) : __fmaf_rn(v.v[j], v.v[j], sum);
    });
    if (!results) return;
    const float *const later = p.delta[0] && to ? to : x;
    float mean = 0.f, r = 1.f;
    if (p.kind != KG_NORM_NONE) {
        float of = kg_block_sum256(sum, red[2]) / (float)p.dim;
        if (layer) {
            mean = of;
            float ss = 0.f;
            each(later, [&](uint32_t, F &v) {
#pragma unroll
                for (int j = 0; j < V; j++) {
                    const float d = __fsub_rn(v.v[j], mean);
                    ss = __fmaf_rn(d, d, ss);
                }
            });
            of = kg_block_sum256(ss, red[3]) / (float)p.dim;
        }
        r = 1.f / sqrtf(of + p.eps);
    }
    each(later, [&](uint32_t i, F &v) {
        F o;
#pragma unroll
        for (int j = 0; j < V; j++) {
            o.v[j] = __fmul_rn(__fsub_rn(v.v[j], mean), r);
            if (w) o.v[j] = __fmul_rn(o.v[j], w[i + j]);
            if (p.h_scale != 0.f) o.v[j] = __fmul_rn(o.v[j], p.h_scale);
            if (p.bias) o.v[j] = __fadd_rn(o.v[j], p.bias[i + j]);
        }
        put(i, o);
    });
}
