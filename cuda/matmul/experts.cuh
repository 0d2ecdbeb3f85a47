// Products with the matrices of experts: y = W_e x + bias_e for each slot, a row of x that goes through expert e.
//
//   y_i[slot] = W_i[e * rows ..] x[slot / share] + bias_i[e * rows ..],  e = ids[slot], or 0 where there are no ids
//   with an activation y_0[slot] = activation(what is y_0 without) * (what is y_1 without)
// The matrices of all experts lie one behind the other, so that an expert is some rows of one matrix; what no slot goes through is not
// read. A block takes up to 8 slots of one expert and `tile` rows of its matrix: of a task where slots are sorted (kgc_expert_tasks), else
// one slot, or `at_once` where all have the first expert. A warp takes four rows at a time, or two of gate and of up, as expert_turns.cuh
// has it. With weights, or an activation where nothing is sorted, the slots are those of one token: experts_step.cuh.
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

// The inputs of n slots.
template <bool QUANT>
__device__ __forceinline__ void kg_expert_input(const KgExpertProducts &p, const uint32_t *slots, uint32_t n, uint32_t *words) {
    const uint32_t n4 = (p.n + 31) / 32 * 8, each = n4 * (QUANT ? 10 : 16) / 4; // words of a slot
    for (uint32_t i0 = threadIdx.x & ~31u; i0 < n4; i0 += KG_EXPERT_THREADS) {
        const uint32_t i = i0 + (threadIdx.x & 31), left = 4 * i < p.n ? p.n - 4 * i : 0;
#pragma unroll 2
        for (uint32_t b = 0; b < n; b++) {
            float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
            const float *from = p.x + (size_t)(slots[b] / p.share) * p.x_stride + 4 * i;
            if (left >= 4) v = *(const float4 *)from;
            else if (left) v.x = from[0], v.y = left > 1 ? from[1] : 0.f, v.z = left > 2 ? from[2] : 0.f;
            uint32_t *to = words + b * each;
            kg_stage_lay<QUANT>(v, i, n4, (float4 *)to, to);
        }
    }
    __syncthreads();
}

// Rows of a task's expert: four of one matrix, or two of gate and of up.
template <int T, int NB, bool GATED> struct KgTaskPlace {
    static constexpr uint32_t ROWS = GATED ? 2 : 4, STEP = KG_EXPERT_THREADS / 32 * ROWS;
    const KgExpertProducts &p;
    const uint32_t *words, *slots;
    uint32_t n, row0, first, last; // slots; where the expert's rows begin; the warp's first row; the block's last
    __device__ __forceinline__ const KgMat &mat(int s) const { return p.m[GATED ? s & 1 : blockIdx.z]; }
    __device__ __forceinline__ void at(uint32_t turn, uint32_t (&from)[4]) const {
#pragma unroll
        for (uint32_t s = 0; s < 4; s++) from[s] = (row0 + min(first + turn * STEP + (GATED ? s / 2 : s), last)) * kg_expert_units<T>(p);
    }
    __device__ __forceinline__ const float *input(uint32_t) const { return (const float *)words; }
    __device__ __forceinline__ void end(uint32_t turn, float y) const {
        constexpr uint32_t EACH = 32 / (4 * NB); // lanes that have the same sum
        const uint32_t lane = threadIdx.x & 31, s = lane / EACH / NB, b = lane / EACH % NB, row = first + turn * STEP + (GATED ? s / 2 : s);
        const float up = GATED ? __shfl_sync(0xffffffffu, y, lane + EACH * NB) : 0.f;
        if (lane % EACH || b >= n || row > last || (GATED && s % 2)) return;
        if (GATED) y = kg_expert_unit(p, row0 + row, y, up);
        else y = __fadd_rn(y, p.bias[blockIdx.z] ? p.bias[blockIdx.z][row0 + row] : 0.f);
        p.y[GATED ? 0 : blockIdx.z][(size_t)slots[b] * p.y_stride + row] = y;
    }
};
template <int T, int NB, bool GATED>
__device__ __forceinline__ void kg_expert_run(const KgExpertProducts &p, uint32_t expert, const uint32_t *slots, uint32_t n, uint32_t *words) {
    using Place = KgTaskPlace<T, NB, GATED>;
    const uint32_t first = blockIdx.y * p.tile + threadIdx.x / 32 * Place::ROWS, end = min(p.rows, (blockIdx.y + 1) * p.tile);
    const uint32_t n_turns = first < end ? (end - first - 1) / Place::STEP + 1 : 0;
    const Place place = {p, words, slots, n, expert * p.rows, first, end - 1};
    KgExpertTurns<T, 4, (NB > 2 ? 1 : 2), NB, Place> turns(place, n_turns, kg_expert_units<T>(p), p.n, n);
    kg_expert_input<kg_is_quant(T)>(p, slots, n, words);
    turns.run();
}

template <int T, bool GATED>
__global__ void __launch_bounds__(KG_EXPERT_THREADS, 2) kg_expert_products(const __grid_constant__ KgExpertProducts p) {
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
    if (n == 1) kg_expert_run<T, 1, GATED>(p, expert, slots, n, words);
    else if (n == 2) kg_expert_run<T, 2, GATED>(p, expert, slots, n, words);
    else if (n <= 4) kg_expert_run<T, 4, GATED>(p, expert, slots, n, words);
    else kg_expert_run<T, 8, GATED>(p, expert, slots, n, words);
}

static inline bool kg_expert_check(const KgExpertProducts *p) {
    bool ok = p->x && p->n_m >= 1 && p->n_m <= 2 && p->rows && p->n && p->share && p->n_slots;
    ok = ok && p->tile && (p->tile % 16 == 0 || kg_expert_is_step(p)) && p->y_stride >= p->rows;
    ok = ok && (!p->activation || (p->n_m == 2 && p->activation <= KG_ACTIVATION_CLAMPED_SWIGLU));
    ok = ok && p->x_stride >= p->n && p->x_stride % 4 == 0 && (uintptr_t)p->x % 16 == 0 && !p->order == !p->tasks && (!p->tasks || p->n_tasks);
    ok = ok && (!kg_expert_is_step(p) || kg_expert_step_check(p));
    return ok && (p->at_once == 1 || p->at_once == 2 || p->at_once == 4 || p->at_once == 8) && (p->rows + p->tile - 1) / p->tile <= 65535;
}

template <int T> static inline cudaError_t kg_expert_launch(const KgExpertProducts *p, int pdl, cudaStream_t stream) {
    if (kg_expert_is_step(p)) return kg_expert_step_launch<T>(p, pdl, stream);
    const uint32_t at_once = p->tasks || !p->ids ? p->at_once : 1;
    const uint32_t blocks = p->tasks ? p->n_tasks : (p->n_slots + at_once - 1) / at_once;
    const dim3 grid(blocks, (p->rows + p->tile - 1) / p->tile, p->activation ? 1 : p->n_m), block(KG_EXPERT_THREADS);
    const size_t bytes = kg_expert_smem(p->n, kg_is_quant(T), at_once);
    return kg_launch(p->activation ? kg_expert_products<T, true> : kg_expert_products<T, false>, grid, block, bytes, pdl, stream, *p);
}
