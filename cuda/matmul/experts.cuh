// Products with the matrices of experts: y = W_e x + bias_e for each slot, a row of x that goes through expert e.
//
//   y_i[slot] = W_i[e * rows ..] x[slot / share] + bias_i[e * rows ..],  e = ids[slot], or 0 where there are no ids
// The matrices of all experts lie one behind the other, so that an expert is some rows of one matrix; what no slot goes through is not
// read. A block takes up to 8 slots of one expert and `tile` rows of its matrix: of a task where slots are sorted (kgc_expert_tasks), else
// one slot, or `at_once` where all have the first expert. Weights and inputs are those of gemv.cuh. A warp takes two rows at a time; a lane
// sums its units in ascending order, lanes are summed by a butterfly: the order depends on the row alone, so that a slot has the same bits
// in any company, in a step, a batch and a prompt.
// Bytes moved: the chosen experts' weights once a task, x once a block from L2, y once. Reference: tests/gpu/operations/experts.rs.
#pragma once
#include "device/vectors.cuh"
#include "matmul/experts_step.cuh"

constexpr uint32_t KG_EXPERT_THREADS = 256;

// Bytes of shared memory for the inputs of so many slots.
static inline size_t kg_expert_smem(uint32_t n, bool quant, uint32_t slots) {
    const size_t padded = ((size_t)n + 31) / 32 * 32;
    return slots * (quant ? padded / 32 * 80 : padded * 4);
}

// The inputs of n slots, and zeros up to NB.
template <bool QUANT, int NB>
__device__ __forceinline__ void kg_expert_input(const KgExpertProducts &p, const uint32_t *slots, uint32_t n, uint32_t *words) {
    const uint32_t n4 = (p.n + 31) / 32 * 8, each = n4 * (QUANT ? 10 : 16) / 4; // words of a slot
    for (uint32_t i0 = threadIdx.x & ~31u; i0 < n4; i0 += KG_EXPERT_THREADS) {
        const uint32_t i = i0 + (threadIdx.x & 31), left = 4 * i < p.n ? p.n - 4 * i : 0;
#pragma unroll
        for (int b = 0; b < NB; b++) {
            float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
            if ((uint32_t)b < n && left) {
                const float *from = p.x + (size_t)(slots[b] / p.share) * p.x_stride + 4 * i;
                if (left >= 4) v = *(const float4 *)from;
                else v.x = from[0], v.y = left > 1 ? from[1] : 0.f, v.z = left > 2 ? from[2] : 0.f;
            }
            uint32_t *to = words + b * each;
            kg_stage_lay<QUANT>(v, i, n4, (float4 *)to, to);
        }
    }
    __syncthreads();
}

template <int T, int NB>
__device__ __forceinline__ void kg_expert_run(const KgExpertProducts &p, uint32_t expert, const uint32_t *slots, uint32_t n, uint32_t *words) {
    constexpr bool QUANT = kg_is_quant(T);
    constexpr int NS = 2, UN = 2;
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5, which = blockIdx.z, padded = (p.n + 31) / 32 * 32;
    const KgMat &m = p.m[which];
    const uint32_t per_row = QUANT ? p.n / 32 : m.stride / 8, end = min(p.rows, (blockIdx.y + 1) * p.tile), row0 = expert * p.rows;
    kg_expert_input<QUANT, NB>(p, slots, n, words);
    for (uint32_t row = blockIdx.y * p.tile + warp * NS; row < end; row += KG_EXPERT_THREADS / 32 * NS) {
        float acc[NS][NB];
        uint32_t from[NS];
#pragma unroll
        for (int s = 0; s < NS; s++) {
            from[s] = (row0 + min(row + s, end - 1)) * per_row;
#pragma unroll
            for (int b = 0; b < NB; b++) acc[s][b] = 0.f;
        }
        for (uint32_t u0 = 0; u0 < per_row; u0 += 32 * UN) {
            Unit<T> f[NS][UN];
#pragma unroll
            for (int u = 0; u < UN; u++)
#pragma unroll
                for (int s = 0; s < NS; s++) {
                    // What no lane of the warp needs is not loaded; beyond the last unit the last one is loaded again and not used.
                    if (u0 + u * 32 < per_row) f[s][u].load(m, from[s] + min(u0 + u * 32 + lane, per_row - 1));
                    else f[s][u].zero();
                }
#pragma unroll
            for (int u = 0; u < UN; u++) {
                const uint32_t unit = u0 + u * 32 + lane;
                if (u0 + u * 32 < per_row)
                    kg_stage_add<T, NS, UN, NB>(acc, f, u, (const float *)words, padded, min(unit, per_row - 1), unit < per_row);
            }
        }
        float y = 0.f;
#pragma unroll
        for (int s = 0; s < NS; s++)
#pragma unroll
            for (int b = 0; b < NB; b++) {
                const float sum = kg_warp_sum(acc[s][b]);
                if (lane == s * NB + b) y = sum;
            }
        const uint32_t r = row + lane / NB, b = lane % NB;
        if (lane >= NS * NB || r >= end || b >= n) continue;
        const float *bias = p.bias[which];
        p.y[which][(size_t)slots[b] * p.y_stride + r] = __fadd_rn(y, bias ? bias[row0 + r] : 0.f);
    }
}

template <int T> __global__ void __launch_bounds__(KG_EXPERT_THREADS) kg_expert_products(const __grid_constant__ KgExpertProducts p) {
    KG_DYNAMIC_SHARED(uint32_t, words);
    KG_SHARED(uint32_t[8], slots);
    kg_begin();
    uint32_t expert = 0, n = 1, first = blockIdx.x;
    if (p.tasks) {
        const uint2 task = p.tasks[blockIdx.x];
        first = task.x, expert = task.y >> 8, n = task.y & 255;
    } else if (p.ids) {
        expert = p.ids[first];
    } else {
        first *= p.at_once, n = min(p.at_once, p.n_slots - first);
    }
    if (n == 0) return;
    if (threadIdx.x < n) slots[threadIdx.x] = p.tasks ? p.order[first + threadIdx.x] : first + threadIdx.x;
    __syncthreads();
    if (n == 1) kg_expert_run<T, 1>(p, expert, slots, n, words);
    else if (n <= 4) kg_expert_run<T, 4>(p, expert, slots, n, words);
    else kg_expert_run<T, 8>(p, expert, slots, n, words);
}

static inline bool kg_expert_check(const KgExpertProducts *p) {
    bool ok = p->x && p->n_m >= 1 && p->n_m <= 2 && p->rows && p->n && p->share && p->n_slots;
    ok = ok && p->tile && (p->tile % 16 == 0 || p->weights || p->activation) && p->y_stride >= p->rows;
    ok = ok && p->x_stride >= p->n && p->x_stride % 4 == 0 && (uintptr_t)p->x % 16 == 0 && !p->order == !p->tasks && (!p->tasks || p->n_tasks);
    ok = ok && (!(p->weights || p->activation) || kg_expert_step_check(p));
    return ok && (p->at_once == 1 || p->at_once == 4 || p->at_once == 8) && (p->rows + p->tile - 1) / p->tile <= 65535;
}

template <int T> static inline cudaError_t kg_expert_launch(const KgExpertProducts *p, int pdl, cudaStream_t stream) {
    if (p->weights || p->activation) return kg_expert_step_launch<T>(p, pdl, stream);
    const uint32_t at_once = p->tasks || !p->ids ? p->at_once : 1;
    const uint32_t blocks = p->tasks ? p->n_tasks : (p->n_slots + at_once - 1) / at_once;
    const dim3 grid(blocks, (p->rows + p->tile - 1) / p->tile, p->n_m);
    return kg_launch(kg_expert_products<T>, grid, dim3(KG_EXPERT_THREADS), kg_expert_smem(p->n, kg_is_quant(T), at_once), pdl, stream, *p);
}
