// What stands before a stage: the residual stream and its norm, by a block for itself. The formula is gemv.cuh's.
#pragma once
#include "device/common.cuh"

// Loops here are written once and not unrolled where they can be: the kernels of a step follow one another all the time, and share
// a cache of instructions that they barely fit into.

// x + rms_norm(delta) * post_w, delta being four_of(i) where there is one, also in x_out where that is given; returned is what it is to be multiplied with for its norm. The first
// NV float4 of a thread are left in v, the others in vb, whose even and odd ones are apart where SPLIT. red: 80 floats, 0..15 and 64..79
// zero beyond the block's warps. The order of every sum depends on n and the threads alone.
template <bool SPLIT, int NV, typename Delta>
__device__ __forceinline__ float kg_stage_norm(const KgStage &st, const float *x, Delta four_of, float *x_out, float *red, float4 *vb,
                                               float4 (&v)[NV]) {
    const uint32_t n4 = (st.n + 31) / 32 * 8, bd = blockDim.x;
    const float4 *x4 = (const float4 *)x, *p4 = (const float4 *)st.post_w;
    const bool has = st.delta;
    const float4 zero = make_float4(0.f, 0.f, 0.f, 0.f);
    auto square = [](float4 v) { return __fmaf_rn(v.w, v.w, __fmaf_rn(v.z, v.z, __fmaf_rn(v.y, v.y, __fmul_rn(v.x, v.x)))); };
    // Loads first: behind a store or a barrier each of them would cost its latency by itself.
    float4 d[NV];
#pragma unroll
    for (int k = 0; k < NV; k++) {
        const uint32_t i = threadIdx.x + k * bd;
        v[k] = i < n4 ? x4[i] : zero;
        d[k] = has && i < n4 ? four_of(i) : zero;
    }
    float post = 0.f;
    if (p4) {
        float ss = 0.f;
#pragma unroll
        for (int k = 0; k < NV; k++) ss = __fadd_rn(ss, square(d[k]));
#pragma unroll 1
        for (uint32_t i = threadIdx.x + NV * bd; i < n4; i += bd) ss = __fadd_rn(ss, square(four_of(i)));
        post = rsqrtf(kg_block_sum(ss, red + 64) / (float)st.n + st.eps);
    }
    float ss = 0.f;
    auto add = [&](float4 v, float4 d, uint32_t i) {
        if (p4) {
            const float4 w = p4[i];
            d.x = __fmul_rn(d.x, __fmul_rn(post, w.x)), d.y = __fmul_rn(d.y, __fmul_rn(post, w.y));
            d.z = __fmul_rn(d.z, __fmul_rn(post, w.z)), d.w = __fmul_rn(d.w, __fmul_rn(post, w.w));
        }
        v = make_float4(__fadd_rn(v.x, d.x), __fadd_rn(v.y, d.y), __fadd_rn(v.z, d.z), __fadd_rn(v.w, d.w));
        if (x_out) ((float4 *)x_out)[i] = v;
        ss = __fadd_rn(ss, square(v));
        return v;
    };
#pragma unroll
    for (int k = 0; k < NV; k++) {
        const uint32_t i = threadIdx.x + k * bd;
        if (i < n4) v[k] = add(v[k], d[k], i);
    }
#pragma unroll 1
    for (uint32_t i = threadIdx.x + NV * bd; i < n4; i += 2 * bd) {
        const uint32_t j = i + bd; // the second of two whose loads go side by side
        const float4 x0 = x4[i], d0 = has ? four_of(i) : zero, x1 = j < n4 ? x4[j] : zero, d1 = has && j < n4 ? four_of(j) : zero;
        vb[SPLIT ? (i & 1) * (n4 / 2) + (i >> 1) : i] = add(x0, d0, i);
        if (j < n4) vb[SPLIT ? (j & 1) * (n4 / 2) + (j >> 1) : j] = add(x1, d1, j);
    }
    return rsqrtf(kg_block_sum(ss, red) / (float)st.n + st.eps);
}

// put(four of the input, i) by whole warps, i < n4 or zeros. norm: what kg_stage_norm left in y and vb, times scale and the norm's
// weights, of which this thread's first ones are held; else x. put may store where vb was read.
template <bool SPLIT, int NV, typename Put>
__device__ __forceinline__ void kg_stage_each(const KgStage &st, bool norm, const float *x, float scale, const float4 (&y)[NV], const float4 *vb,
                                              const float4 (&held)[NV], Put put) {
    const uint32_t n4 = (st.n + 31) / 32 * 8, bd = blockDim.x, first = threadIdx.x & ~31u, lane = threadIdx.x & 31;
    const float4 *x4 = (const float4 *)x, *w4 = (const float4 *)st.norm_w, zero = make_float4(0.f, 0.f, 0.f, 0.f);
    auto scaled = [&](float4 v, float4 w) {
        v.x *= scale * w.x, v.y *= scale * w.y, v.z *= scale * w.z, v.w *= scale * w.w;
        return v;
    };
    if (norm) {
#pragma unroll
        for (int k = 0; k < NV; k++)
            if (first + k * bd < n4) put(scaled(y[k], held[k]), threadIdx.x + k * bd);
    }
#pragma unroll 1
    for (uint32_t i0 = norm ? first + NV * bd : first; i0 < n4; i0 += 2 * NV * bd) {
        float4 v[2 * NV];
#pragma unroll
        for (int k = 0; k < 2 * NV; k++) {
            const uint32_t i = i0 + k * bd + lane;
            if (i >= n4) v[k] = zero;
            else if (norm) v[k] = scaled(vb[SPLIT ? (i & 1) * (n4 / 2) + (i >> 1) : i], w4[i]);
            else v[k] = x4[i];
        }
#pragma unroll
        for (int k = 0; k < 2 * NV; k++)
            if (i0 + k * bd < n4) put(v[k], i0 + k * bd + lane);
    }
}

// Norm weights of this thread, requested before the wait.
template <int NV> __device__ __forceinline__ void kg_stage_hold(const KgStage &st, float4 (&held)[NV]) {
#pragma unroll
    for (int i = 0; i < NV; i++) {
        const uint32_t at = threadIdx.x + i * blockDim.x;
        held[i] = make_float4(0.f, 0.f, 0.f, 0.f);
        if (st.norm_w && at < (st.n + 31) / 32 * 8) {
            uint4 w = kg_cached16((const float4 *)st.norm_w + at);
            held[i] = make_float4(__uint_as_float(w.x), __uint_as_float(w.y), __uint_as_float(w.z), __uint_as_float(w.w));
        }
    }
}
