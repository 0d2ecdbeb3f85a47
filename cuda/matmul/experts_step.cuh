// The products of experts.cuh of one token, with what follows them, so that its experts are three launches: which they are (router.cu), what
// gates and ups make of the row, and the sum of what the downs make of that.
//
//   gated: y[slot] = activation(W_0 x + bias_0) * (W_1 x + bias_1), rows of the slot's expert
//   summed: y = (shared ? y * (gate ? sigmoid(gate) : 1) : 0) + sum over slots, ascending, of weights[slot] * (W x[slot] + bias)
// A warp takes two rows at a time, of gate and up, or four neighbours, as expert_turns.cuh has it: the bits are those of experts.cuh and
// expert_sum.cu. The sums' launch requests its first weights before the one before it has ended, which lets it begin when it has seen the choice
// itself.
// Bytes moved: the chosen experts' weights once, x once a block from L2, y once. Reference: tests/gpu/operations/experts_step.rs.
#pragma once
#include "device/activation.cuh"
#include "matmul/expert_turns.cuh"

// From sweeps on one H200: many warps with little in flight each, which wait for memory and for one another less.
constexpr uint32_t KG_GATED_THREADS = 1024, KG_SUMMED_THREADS = 768, KG_SUMMED_ROWS = 4;

static inline size_t kg_expert_step_smem(const KgExpertProducts *p, bool quant) {
    const size_t inputs = p->weights ? p->n_slots : 1, made = p->weights ? (size_t)p->tile * p->n_slots : 0;
    return inputs * ((p->n + 31) / 32 * (quant ? 80 : 128)) + 4 * made;
}

// Rows of x as the products read them, by the whole block.
template <bool QUANT>
__device__ __forceinline__ void kg_expert_step_input(const KgExpertProducts &p, uint32_t rows, uint32_t each, uint32_t *words) {
    const uint32_t n4 = (p.n + 31) / 32 * 8, all = rows * n4; // n4 is a multiple of 8: lanes of a block of 32 stay together
    for (uint32_t i0 = threadIdx.x & ~31u; i0 < all; i0 += blockDim.x) {
        const uint32_t at = i0 + (threadIdx.x & 31), row = min(at / n4, rows - 1), i = at - row * n4;
        const uint32_t left = at < all && 4 * i < p.n ? p.n - 4 * i : 0;
        float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
        const float *from = p.x + (size_t)row * p.x_stride + 4 * i;
        if (left >= 4) v = *(const float4 *)from;
        else if (left) v.x = from[0], v.y = left > 1 ? from[1] : 0.f, v.z = left > 2 ? from[2] : 0.f;
        uint32_t *to = words + row * each;
        kg_stage_lay<QUANT>(v, i, n4, (float4 *)to, to);
    }
    __syncthreads();
}

// What a row of a gate and of an up make.
__device__ __forceinline__ float kg_expert_unit(const KgExpertProducts &p, uint32_t row, float gate, float up) {
    gate = __fadd_rn(gate, p.bias[0] ? p.bias[0][row] : 0.f), up = __fadd_rn(up, p.bias[1] ? p.bias[1][row] : 0.f);
    return kg_gated(p.activation, gate, up);
}

// What gates and ups make: rows of all slots in turn, warps of all blocks side by side, PAIRS rows of a warp at once.
template <int T, int PAIRS> struct KgGatedPlace {
    const KgExpertProducts &p;
    const float *words;
    uint32_t first, step, all;
    __device__ __forceinline__ const KgMat &mat(int s) const { return p.m[s & 1]; }
    __device__ __forceinline__ uint32_t row(uint32_t turn, uint32_t pair) const { return first + (turn * PAIRS + pair) * step; }
    __device__ __forceinline__ void at(uint32_t turn, uint32_t (&from)[2 * PAIRS]) const {
#pragma unroll
        for (uint32_t i = 0; i < PAIRS; i++) {
            const uint32_t row = min(this->row(turn, i), all - 1), slot = row / p.rows;
            from[2 * i] = from[2 * i + 1] = (p.ids[slot] * p.rows + row - slot * p.rows) * kg_expert_units<T>(p);
        }
    }
    __device__ __forceinline__ const float *input(uint32_t) const { return words; }
    __device__ __forceinline__ void end(uint32_t turn, float gate) const {
        constexpr uint32_t EACH = 16 / PAIRS; // lanes that have the same sum
        const uint32_t lane = threadIdx.x & 31, row = this->row(turn, lane / (2 * EACH)), slot = row / p.rows, r = row - slot * p.rows;
        const float up = __shfl_sync(0xffffffffu, gate, lane + EACH);
        if (lane % (2 * EACH) || row >= all) return;
        p.y[0][(size_t)slot * p.y_stride + r] = kg_expert_unit(p, p.ids[slot] * p.rows + r, gate, up);
    }
};
template <int T, int PAIRS, int UN, int THREADS>
__global__ void __launch_bounds__(THREADS, 1) kg_expert_gated(const __grid_constant__ KgExpertProducts p) {
    KG_DYNAMIC_SHARED(uint32_t, words);
    const uint32_t all = p.n_slots * p.rows, step = gridDim.x * (THREADS / 32), first = threadIdx.x / 32 * gridDim.x + blockIdx.x;
    kg_wait();
    // Behind the wait: the next launch reads the choice before its own.
    kg_launch_dependents();
    const uint32_t n_turns = first < all ? (all - first - 1) / (step * PAIRS) + 1 : 0;
    const KgGatedPlace<T, PAIRS> place = {p, (const float *)words, first, step, all};
    KgExpertTurns<T, 2 * PAIRS, UN, 1, KgGatedPlace<T, PAIRS>> turns(place, n_turns, kg_expert_units<T>(p), p.n);
    kg_expert_step_input<kg_is_quant(T)>(p, 1, 0, words);
    turns.run();
}

// What the downs make of a block's rows: some of every slot at a time.
template <int T, uint32_t ROWS, uint32_t WARPS> struct KgSummedPlace {
    const KgExpertProducts &p;
    uint32_t *words;
    float *made; // [tile, n_slots]
    uint32_t row0, row1, first;
    __device__ __forceinline__ uint32_t task(uint32_t turn) const { return first + turn * WARPS; }
    __device__ __forceinline__ const KgMat &mat(int) const { return p.m[0]; }
    __device__ __forceinline__ void at(uint32_t turn, uint32_t (&from)[ROWS]) const {
        const uint32_t row = row0 + task(turn) / p.n_slots * ROWS, expert = __ldcg(p.ids + task(turn) % p.n_slots);
#pragma unroll
        for (uint32_t s = 0; s < ROWS; s++) from[s] = (expert * p.rows + min(row + s, row1 - 1)) * kg_expert_units<T>(p);
    }
    __device__ __forceinline__ const float *input(uint32_t turn) const {
        return (const float *)(words + task(turn) % p.n_slots * kg_expert_words<T>(p));
    }
    __device__ __forceinline__ void end(uint32_t turn, float y) const {
        constexpr uint32_t EACH = 32 / ROWS; // lanes that have the same sum
        const uint32_t slot = task(turn) % p.n_slots, row = row0 + task(turn) / p.n_slots * ROWS + (threadIdx.x & 31) / EACH;
        if (threadIdx.x % EACH || row >= row1) return;
        const float bias = p.bias[0] ? p.bias[0][__ldcg(p.ids + slot) * p.rows + row] : 0.f;
        made[(row - row0) * p.n_slots + slot] = __fadd_rn(y, bias);
    }
};
template <int T, int ROWS, int UN, int THREADS>
__global__ void __launch_bounds__(THREADS, 1) kg_expert_summed(const __grid_constant__ KgExpertProducts p) {
    constexpr uint32_t WARPS = THREADS / 32;
    KG_DYNAMIC_SHARED(uint32_t, words);
    float *const made = (float *)(words + p.n_slots * kg_expert_words<T>(p));
    const uint32_t row0 = blockIdx.x * p.tile, row1 = min(p.rows, row0 + p.tile), warp = threadIdx.x / 32;
    const uint32_t tasks = (row1 - row0 + ROWS - 1) / ROWS * p.n_slots;
    kg_launch_dependents();
    const uint32_t n_turns = warp < tasks ? (tasks - warp - 1) / WARPS + 1 : 0;
    KgExpertTurns<T, ROWS, UN, 1, KgSummedPlace<T, ROWS, WARPS>> turns({p, words, made, row0, row1, warp}, n_turns, kg_expert_units<T>(p), p.n);
    kg_wait();
    kg_expert_step_input<kg_is_quant(T)>(p, p.n_slots, kg_expert_words<T>(p), words);
    turns.run();
    __syncthreads();
    for (uint32_t r = threadIdx.x; r < row1 - row0; r += THREADS) {
        float *to = p.y[0] + row0 + r, sum = 0.f;
        if (p.shared) sum = p.gate ? __fmul_rn(*to, 1.f / (1.f + expf(-*p.gate))) : *to;
        for (uint32_t e = 0; e < p.n_slots; e++) sum = __fmaf_rn(p.weights[e], made[r * p.n_slots + e], sum);
        *to = sum;
    }
}

static inline bool kg_expert_is_step(const KgExpertProducts *p) { return p->weights || (p->activation && !p->tasks); }
static inline bool kg_expert_step_check(const KgExpertProducts *p) {
    const bool one = p->ids && !p->tasks && p->rows && (uint64_t)p->n_slots * p->rows < (1u << 30) && !(p->gate && !p->shared);
    if (p->weights) return one && p->n_m == 1 && !p->activation && p->share == 1 && p->tile % KG_SUMMED_ROWS == 0;
    return one && p->n_m == 2 && p->share == p->n_slots && p->activation <= KG_ACTIVATION_CLAMPED_SWIGLU;
}

template <int T> static inline cudaError_t kg_expert_step_launch(const KgExpertProducts *p, int pdl, cudaStream_t stream) {
    const size_t bytes = kg_expert_step_smem(p, kg_is_quant(T));
    if (p->weights) {
        const dim3 grid((p->rows + p->tile - 1) / p->tile);
        return kg_launch(kg_expert_summed<T, KG_SUMMED_ROWS, 1, KG_SUMMED_THREADS>, grid, dim3(KG_SUMMED_THREADS), bytes, pdl, stream, *p);
    }
    const dim3 grid(min(p->tile, (p->n_slots * p->rows + KG_GATED_THREADS / 32 - 1) / (KG_GATED_THREADS / 32)));
    return kg_launch(kg_expert_gated<T, 1, 1, KG_GATED_THREADS>, grid, dim3(KG_GATED_THREADS), bytes, pdl, stream, *p);
}
