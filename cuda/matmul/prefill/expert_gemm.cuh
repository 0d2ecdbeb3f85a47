// Products of a prompt's slots with the matrices of their experts, on tensor cores: y = W_e x + bias_e, or a gated unit of two of them.
//
//   y[slot] = W[e * rows ..] x[row of the slot] + bias[e * rows ..]                              f32
//   y = activation(W_0 x + bias_0) * (W_1 x + bias_1)        f16 in the order of device/fragments.cuh, clamped to +-65504
// x f16 in that order, weights of any type, each as f16(its value) as dequantize_f16.cu has it, sums f32 in the order of the steps, 16
// columns each, never split: a slot has the same bits in any company and at any place of a task. Slots are sorted (kgc_expert_tasks).
//
// Why weights are unpacked here and not expanded before, as those of dense products are, computed for 2,048 tokens. A layer of gpt-oss-20b
// (32 experts, 4 used, D and F 2,880, MXFP4) is 408 GFLOP, 0.4 ms at the device's peak, and 0.45 GB of weights; in f16 these are 1.6 GB
// to be written and read again, 0.8 ms. One of Qwen3-30B-A3B (128, 8 used, 2,048 by 768, Q4_K) is 155 GFLOP, 0.16 ms, and 0.34 GB, in
// f16 1.2 GB, 0.6 ms. An expert has 256 or 128 slots on average, so a weight unpacked in the product is unpacked two or three times, at some 5
// instructions each: 0.2 ms of a multiprocessor's other units beside the tensor cores. It takes no memory, and a short prompt, whose experts
// have a few slots each, is not kept waiting for an expansion.
//
// Geometry: a block a task (blockIdx.y) and 128 rows of the matrices, 64 of each with a gate; two warpgroups of 64 rows. A row of weights
// is a row of the first operand (from registers), a slot a column of the second: 128, 64 or 32 of them. In the order of fragments.cuh a lane's share
// of 128 columns of a row is one block of 32, so it unpacks what it has loaded itself. With a gate the rows 8 below each other are
// gate and up, so that a thread has both sums. x comes through a ring of three stages of 128 columns by cp.async, row by row, one ahead; two
// blocks a multiprocessor hide one another's beginnings. A half of a stage is unpacked while the one before is multiplied.
// wgmma in sm_90a code, else mma.sync, of the same fragments.
// Preconditions: kg_expert_gemm_check. Bytes moved: weights and x once a block (from L2 but for the first), y once.
// Reference: tests/gpu/operations/expert_gemm.rs.
#pragma once
#include "device/activation.cuh"
#include "device/expert_unit.cuh"
#include "device/fragments.cuh"
#include "device/packed.cuh"
#include "device/vectors.cuh"
#include "device/wgmma.cuh"

constexpr uint32_t KG_EXPERT_GEMM_THREADS = 256, KG_EXPERT_GEMM_STAGES = 3;

// 32 columns of a row of weights, from a half of them (16) to the next.
template <int T, bool QUANT = kg_is_quant(T)> struct KgExpertBlock {
    Unit<T> unit;
    // Before half 0 of block b; a row has n blocks.
    template <int HALF> __device__ __forceinline__ void load(const KgMat &m, uint32_t row, uint32_t b, uint32_t n) {
        if constexpr (HALF == 0) {
            if (b < n) kg_load_expert(unit, m, row * n + b);
            else unit.zero();
        }
    }
    static __device__ __forceinline__ uint32_t blocks(const KgMat &m) { return m.cols / 32; }
    // Four columns each, two a word: of step 4 HALF + S.
    template <int HALF> __device__ __forceinline__ void halves(uint32_t (&words)[4][2]) const {
        const KgScales w = unit.scales();
        const float g = HALF ? w.g1 : w.g0, m = HALF ? w.m1 : w.m0;
        float v[32];
        unit.template expand4<4 * HALF>(v, g, m);
        unit.template expand4<4 * HALF + 1>(v, g, m);
        unit.template expand4<4 * HALF + 2>(v, g, m);
        unit.template expand4<4 * HALF + 3>(v, g, m);
#pragma unroll
        for (int s = 0; s < 4; s++)
#pragma unroll
            for (int i = 0; i < 2; i++) words[s][i] = kg_pack(v[16 * HALF + 4 * s + 2 * i], v[16 * HALF + 4 * s + 2 * i + 1]);
    }
};
template <int T> struct KgExpertBlock<T, false> {
    Unit<T> unit[2]; // 16 columns
    template <int HALF> __device__ __forceinline__ void load(const KgMat &m, uint32_t row, uint32_t b, uint32_t) {
        const uint32_t n = m.stride / 8;
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t u = 4 * b + 2 * HALF + i;
            if (u < n) unit[i].load(m, row * n + u);
            else unit[i].zero();
        }
    }
    static __device__ __forceinline__ uint32_t blocks(const KgMat &m) { return (m.stride + 31) / 32; }
    template <int HALF> __device__ __forceinline__ void halves(uint32_t (&words)[4][2]) const {
#pragma unroll
        for (int s = 0; s < 4; s++) {
            float v[8];
            unit[s / 2].expand(v);
#pragma unroll
            for (int i = 0; i < 2; i++) words[s][i] = kg_pack(v[s % 2 * 4 + 2 * i], v[s % 2 * 4 + 2 * i + 1]);
        }
    }
};

// What goes before and behind products of the tensor cores that are under way: this thread's copies are there for them, and at most so
// many of its halves of a stage are not done.
template <bool WGMMA> __device__ __forceinline__ void kg_expert_fence() {
#ifdef KG_SM90A
    if constexpr (WGMMA) kg_async_fence();
#endif
}
template <bool WGMMA, int MOST> __device__ __forceinline__ void kg_expert_wait() {
#ifdef KG_SM90A
    if constexpr (WGMMA) kg_wgmma_wait<MOST>();
#endif
}

// sum[64, N] += a[64, 16] b[N, 16]^T: four steps, b 128 bytes a row in the 128-byte swizzle; with WGMMA they are under way afterwards.
template <bool WGMMA, int N> __device__ __forceinline__ void kg_expert_steps(float (&sum)[N / 2], const uint32_t (&a)[4][4], uint32_t panel) {
#ifdef KG_SM90A
    if constexpr (WGMMA) {
        kg_wgmma_fence();
#pragma unroll
        for (int s = 0; s < 4; s++) KgWgmmaA<N, 0>::mma(sum, a[s], kg_wgmma_operand(panel + 32 * s), 1);
        kg_wgmma_commit();
        return;
    }
#endif
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int s = 0; s < 4; s++)
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
            const uint32_t row = 16 * j + lane / 16 * 8 + lane % 8, c = 2 * s + lane / 8 % 2;
            uint32_t b[4];
            kg_ldmatrix(b, panel + row * 128 + ((c ^ (row & 7)) << 4));
            kg_mma(reinterpret_cast<float(&)[4]>(sum[8 * j]), a[s], b[0], b[1]);
            kg_mma(reinterpret_cast<float(&)[4]>(sum[8 * j + 4]), a[s], b[2], b[3]);
        }
}

// The two rows of weights of a thread, one behind the other or of gate and up.
template <int T> struct KgExpertPair {
    KgExpertBlock<T> block[2];
    uint32_t row[2], n[2];
    bool in[2];
    template <int HALF> __device__ __forceinline__ void load(const KgExpertGemm &p, uint32_t b) {
#pragma unroll
        for (int i = 0; i < 2; i++) block[i].template load<HALF>(p.m[i & (p.n_m - 1)], row[i], in[i] ? b : 0xffffffu, n[i]);
    }
    template <int HALF> __device__ __forceinline__ void halves(uint32_t (&a)[4][4]) const {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t words[4][2];
            block[i].template halves<HALF>(words);
#pragma unroll
            for (int s = 0; s < 4; s++) a[s][i] = words[s][0], a[s][2 + i] = words[s][1];
        }
    }
};

// A gated unit with the exponential of the special function unit, as gemm.cuh has it.
__device__ __forceinline__ float kg_expert_gated(uint32_t kind, float gate, float up) {
    if (kind == KG_ACTIVATION_CLAMPED_SWIGLU) {
        const float g = gate > 7.f ? 7.f : gate;
        return g / (1.f + __expf(-1.702f * g)) * kg_clamped_up(up);
    }
    if (kind == KG_ACTIVATION_SILU || kind == KG_ACTIVATION_GELU) return kg_activation_approx(kind, gate) * up;
    return kg_activation_any(kind, gate) * up;
}

// The sums of N slots of a task, of which n are there, and where they go: to[slot] is a row of y.
template <int N>
__device__ __forceinline__ void kg_expert_put(const KgExpertGemm &p, const float (&sum)[N / 2], uint32_t n, const uint32_t *to, uint32_t at,
                                              const float (&bias)[2], const bool (&in)[2]) {
    const uint32_t lane = threadIdx.x % 32, q = lane % 4, odd = lane / 4 & 1;
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
        const float a0 = sum[4 * j] + bias[0], a1 = sum[4 * j + 1] + bias[0];
        const float b0 = sum[4 * j + 2] + bias[1], b1 = sum[4 * j + 3] + bias[1];
        const uint32_t c = 8 * j + 2 * q;
        if (p.n_m == 2) {
            // Neighbours among the rows of y exchange a slot, so that each has two places of one.
            const float v0 = in[0] ? kg_expert_gated(p.activation, a0, b0) : 0.f, v1 = in[0] ? kg_expert_gated(p.activation, a1, b1) : 0.f;
            const float other = __shfl_xor_sync(0xffffffffu, odd ? v0 : v1, 4);
            if (c + odd < n) kg_put16((__half *)p.y, nullptr, (size_t)to[c + odd] * p.y_stride + (at & ~1u), odd ? other : v0, odd ? v1 : other);
        } else {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                if (c + i >= n) continue;
                float *y = (float *)p.y + (size_t)to[c + i] * p.y_stride + at;
                if (in[1]) *(float2 *)y = make_float2(i ? a1 : a0, i ? b1 : b0);
                else if (in[0]) *y = i ? a1 : a0;
            }
        }
    }
}

// N: slots that there is room for.
template <int T, bool WGMMA, int N>
__device__ __forceinline__ void kg_expert_gemm_run(const KgExpertGemm &p, uint32_t expert, uint32_t n, const uint32_t *from,
                                                   const uint32_t *to, uint32_t ring) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, q = lane % 4;
    // The thread's place in y, or its first row.
    const uint32_t at = p.n_m == 2 ? blockIdx.x * 64 + warp * 8 + lane / 4 : blockIdx.x * 128 + warp * 16 + lane / 4 * 2;
    KgExpertPair<T> w;
    float bias[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t row = p.n_m == 2 ? kg_fragment_column(at) : at + i;
        w.in[i] = row < p.rows;
        w.row[i] = expert * p.rows + (w.in[i] ? row : 0);
        w.n[i] = KgExpertBlock<T>::blocks(p.m[i & (p.n_m - 1)]);
        const float *b = p.bias[i & (p.n_m - 1)];
        bias[i] = b && w.in[i] ? b[w.row[i]] : 0.f;
    }
    const uint32_t chunk = threadIdx.x % 16, line = threadIdx.x / 16, groups = kg_fragments(p.k);
    const __half *x = (const __half *)p.x + 8 * chunk;
    auto fetch = [&](uint32_t g) {
        const uint32_t stage = ring + g % KG_EXPERT_GEMM_STAGES * (N * 256) + chunk / 8 * (N * 128);
#pragma unroll
        for (uint32_t r = line; r < N; r += KG_EXPERT_GEMM_THREADS / 16)
            if (r < n) kg_copy16(stage + r * 128 + ((chunk % 8 ^ (r & 7)) << 4), x + (size_t)from[r] * p.x_stride + KG_FRAGMENTS * g, true);
        kg_copy_commit();
    };
    float sum[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) sum[i] = 0.f;
    uint32_t a[2][4][4];
    fetch(0);
    w.template load<0>(p, q);
    for (uint32_t g = 0; g < groups; g++) {
        const uint32_t stage = ring + g % KG_EXPERT_GEMM_STAGES * (N * 256);
        kg_copy_wait<0>();
        kg_expert_fence<WGMMA>();
        // Behind it nobody multiplies what is two stages back, where the next one goes.
        __syncthreads();
        if (g + 1 < groups) fetch(g + 1);
        w.template halves<0>(a[0]);
        w.template load<1>(p, 4 * g + q);
        kg_expert_steps<WGMMA, N>(sum, a[0], stage);
        kg_expert_wait<WGMMA, 1>();
        w.template halves<1>(a[1]);
        if (g + 1 < groups) w.template load<0>(p, 4 * g + 4 + q);
        kg_expert_steps<WGMMA, N>(sum, a[1], stage + N * 128);
        kg_expert_wait<WGMMA, 1>();
    }
    kg_expert_wait<WGMMA, 0>();
    kg_expert_put<N>(p, sum, n, to, at, bias, w.in);
}

template <int T, bool WGMMA> __global__ void __launch_bounds__(KG_EXPERT_GEMM_THREADS, 2) kg_expert_gemm(const __grid_constant__ KgExpertGemm p) {
    KG_DYNAMIC_SHARED(uint8_t, raw);
    KG_SHARED(uint32_t[KG_EXPERT_SLOTS], from);
    KG_SHARED(uint32_t[KG_EXPERT_SLOTS], to);
    kg_begin();
    const uint2 task = p.tasks[blockIdx.y];
    const uint32_t expert = task.y >> 8, n = task.y & 255, i = threadIdx.x, ring = (kg_shared_at(raw) + 1023) & ~1023u;
    if (n == 0) return;
    if (i < n) {
        const uint32_t slot = p.order[task.x + i];
        from[i] = p.share ? slot / p.share : task.x + i;
        to[i] = p.by_slot ? slot : task.x + i;
    }
    __syncthreads();
    if (n <= 32) kg_expert_gemm_run<T, WGMMA, 32>(p, expert, n, from, to, ring);
    else if (n <= 64) kg_expert_gemm_run<T, WGMMA, 64>(p, expert, n, from, to, ring);
    else kg_expert_gemm_run<T, WGMMA, 128>(p, expert, n, from, to, ring);
}

static inline bool kg_expert_gemm_check(const KgExpertGemm *p) {
    const uint32_t whole = kg_fragments(p->k) * KG_FRAGMENTS, rows = kg_fragments(p->rows) * KG_FRAGMENTS;
    bool ok = p->x && p->y && p->order && p->tasks && p->n_tasks && p->n_tasks <= 65535;
    ok = ok && p->rows && p->rows < (1u << 30) && p->k && p->k < (1u << 30);
    ok = ok && p->x_stride >= whole && p->x_stride % 8 == 0 && ((uintptr_t)p->x | (uintptr_t)p->y) % 16 == 0 && p->y_stride % 2 == 0;
    ok = ok && p->m[0].cols == p->k;
    if (p->n_m == 1) return ok && !p->activation && p->y_stride >= p->rows;
    ok = ok && p->n_m == 2 && p->m[1].cols == p->k && p->m[1].type == p->m[0].type;
    return ok && p->activation >= KG_ACTIVATION_SILU && p->activation <= KG_ACTIVATION_CLAMPED_SWIGLU && p->y_stride >= rows;
}

template <int T> static inline cudaError_t kg_expert_gemm_launch(const KgExpertGemm *p, int pdl, cudaStream_t stream) {
    const uint32_t rows = p->n_m == 2 ? kg_fragments(p->rows) * 2 : (p->rows + 127) / 128;
    const size_t smem = KG_EXPERT_GEMM_STAGES * KG_EXPERT_SLOTS * KG_FRAGMENTS * 2 + 1024;
    const dim3 grid(rows, p->n_tasks), block(KG_EXPERT_GEMM_THREADS);
#ifdef KG_EMULATE
    if (!p->wgmma) return kg_launch(kg_expert_gemm<T, false>, grid, block, smem, pdl, stream, *p);
#endif
    // A device's code has one of the two.
    return kg_launch(kg_expert_gemm<T, true>, grid, block, smem, pdl, stream, *p);
}
