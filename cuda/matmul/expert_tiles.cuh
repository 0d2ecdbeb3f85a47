// The products of experts.cuh of sorted slots of several rows, of quantized types, on the tensor cores (q_tile.cuh): the same bits.
//
// A task has up to 8 slots of one expert, so one tile of columns. As many blocks as can run share all pairs of tiles of all tasks evenly, a block
// neighbours: of a matrix, or of gate and up. Weights come KG_EXPERT_SLICE blocks of 32 rows a slice, through a ring that goes on from task
// to task; the inputs of a task's slots lie in shared memory, all of them.
// Bytes moved: the chosen experts' weights once a task, x once a block and task from L2, y once. Reference: tests/gpu/operations/experts.rs.
#pragma once
#include "device/expert_unit.cuh"
#include "device/vectors.cuh"
#include "matmul/experts_step.cuh"
#include "matmul/q_tile.cuh"

constexpr uint32_t KG_EXPERT_SLICE = 32, KG_EXPERT_DEPTH = 6, KG_EXPERT_TILES_PER_SM = 2;

// A pair of tiles of an expert: neighbours of its matrix, or one of gate and one of up.
template <bool GATED> struct KgExpertTileRows {
    static constexpr uint32_t STEP = GATED ? 16 : 32; // rows to the next
    const KgExpertProducts &p;
    uint32_t task, expert, row0, left; // the task; its expert; the first row of the pair; pairs from this one on
    __device__ __forceinline__ KgExpertTileRows(const KgExpertProducts &p, uint32_t pair, uint32_t pairs)
        : p(p), task(pair / pairs), row0((pair - task * pairs) * STEP), left(pairs - (pair - task * pairs)) {
        expert = p.tasks[task].y >> 8;
    }
    __device__ __forceinline__ const KgMat &mat(uint32_t tile) const { return p.m[GATED ? tile : 0]; }
    __device__ __forceinline__ uint32_t row(uint32_t k) const { return expert * p.rows + min(row0 + (GATED ? k % 16 : k), p.rows - 1); }
    __device__ __forceinline__ bool two() const { return GATED || row0 + 16 < p.rows; }
    // The next pair: whether it is STEP rows on, of the same expert, and whole.
    __device__ __forceinline__ bool next(uint32_t pairs, bool some) {
        row0 += STEP;
        if (--left) return row0 + STEP <= p.rows;
        task++, row0 = 0, left = pairs;
        if (some) expert = p.tasks[task].y >> 8;
        return false;
    }
};

// The inputs of n slots, as fragments; what is in the columns of none stays what it is.
template <int T> __device__ __forceinline__ void kg_expert_tile_input(const KgExpertProducts &p, const uint32_t *slots, uint32_t n, char *to) {
    const uint32_t n4 = p.n / 4, all = n * n4; // n4 is a multiple of 8: lanes of a block of 32 stay together
#pragma unroll 4
    for (uint32_t i0 = threadIdx.x & ~31u; i0 < all; i0 += KG_Q_THREADS) {
        const bool in = i0 + threadIdx.x % 32 < all;
        const uint32_t at = in ? i0 + threadIdx.x % 32 : all - 1, b = at / n4, i = at - b * n4, block = i / 8, e = i % 8;
        const KgStagedQ q = kg_stage_q(*(const float4 *)(p.x + (size_t)(slots[b] / p.share) * p.x_stride + 4 * i));
        const int other = __shfl_xor_sync(0xffffffffu, q.sum, 4);
        if (!in) continue;
        uint32_t *const words = (uint32_t *)(to + block * 512 + b * 64 + (e & 3) * 16) + (e >> 2);
        words[0] = q.hi, words[2] = q.lo;
        if (e != 0) continue;
        float *const s = (float *)(to + n4 * 64 + block * 96) + b;
        const float2 sums = kg_q_sums<T>(q.sum, other);
        s[0] = q.d, s[8] = sums.x, s[16] = sums.y;
    }
}

// Tasks of something, which stand before those of nothing; count is 0, and all threads have seen it.
__device__ __forceinline__ uint32_t kg_expert_count(const KgExpertProducts &p, uint32_t &count) {
    for (uint32_t i0 = threadIdx.x & ~31u; i0 < p.n_tasks; i0 += KG_Q_THREADS) {
        const uint32_t i = i0 + threadIdx.x % 32, some = __ballot_sync(0xffffffffu, i < p.n_tasks && (p.tasks[i].y & 255) != 0);
        if (threadIdx.x % 32 == 0) atomicAdd(&count, (uint32_t)__popc(some));
    }
    __syncthreads();
    return count;
}

// The weights of a block's pairs, which run ahead of what is multiplied.
template <int T, bool GATED> struct KgExpertTileWeights {
    using Rows = KgExpertTileRows<GATED>;
    Rows rows;
    KgQLoader<T, KG_EXPERT_SLICE> loader;
    uint32_t n_pairs, left, pairs; // that are to come; blocks of the first of them; of a task
    __device__ __forceinline__ KgExpertTileWeights(const Rows &rows, uint32_t n_pairs, uint32_t blocks, uint32_t pairs)
        : rows(rows), loader(blocks), n_pairs(n_pairs), left(blocks), pairs(pairs) {
        loader.aim(rows);
    }
    // The next slice to a slot, if there is one.
    __device__ __forceinline__ void copy_async(const char *slot) {
        if (!n_pairs) return;
        loader.copy_async(slot, min(left, KG_EXPERT_SLICE), rows);
        if (left > KG_EXPERT_SLICE) {
            left -= KG_EXPERT_SLICE;
            return;
        }
        left = loader.blocks;
        if (rows.next(pairs, --n_pairs != 0)) loader.move(Rows::STEP, (left + KG_EXPERT_SLICE - 1) / KG_EXPERT_SLICE * KG_EXPERT_SLICE);
        else if (n_pairs) loader.aim(rows);
    }
};

// A pair of tiles whose sums have met.
struct KgExpertTilePair {
    uint32_t expert = 0, row0 = 0;
    template <bool GATED>
    __device__ __forceinline__ void store(const KgExpertProducts &p, const float *room, const uint32_t *slots, uint32_t n_slots) const {
        const uint32_t o = threadIdx.x % 128, column = o % 4 * 2 + o / 32 % 2, k = GATED ? 0 : threadIdx.x / 128;
        const uint32_t row = row0 + k * 16 + o % 32 / 4 + o / 64 * 8, at = expert * p.rows + row;
        if (GATED && threadIdx.x >= 128) return;
        const float y = kg_q_met(room, k, o), up = GATED ? kg_q_met(room, 1, o) : 0.f;
        if (column >= n_slots || row >= p.rows) return;
        float *const to = p.y[0] + (size_t)slots[column] * p.y_stride + row;
        *to = GATED ? kg_expert_unit(p, at, y, up) : __fadd_rn(y, p.bias[0] ? p.bias[0][at] : 0.f);
    }
};

// The sums of a warp's lanes go on with a slice of an expert's, or with the n blocks of one; x, x_scales: its input, from the lane's first
// fragments on.
template <int T, bool GATED>
__device__ __forceinline__ void kg_expert_tile_add(const KgExpertProducts &p, float (&acc)[4][2][4], const KgQPlaces<T, KG_EXPERT_SLICE> &places,
                                                   const char *slot, const char *x, const char *x_scales, uint32_t n, uint32_t expert) {
    KgScales own[4];
#pragma unroll
    for (uint32_t h = 0; h < 4; h++) own[h] = places.scales(slot, h, kg_expert_scale<T>(p.m[GATED ? h / 2 : 0], expert));
    if (n >= KG_EXPERT_SLICE) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) kg_q_add<T, KG_EXPERT_SLICE>(acc[i], places, slot, x, x_scales, i, own);
    } else {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            if (threadIdx.x / 32 + 8 * i < n) kg_q_add<T, KG_EXPERT_SLICE>(acc[i], places, slot, x, x_scales, i, own);
    }
}

template <int T, bool GATED>
__global__ void __launch_bounds__(KG_Q_THREADS, KG_EXPERT_TILES_PER_SM) kg_expert_tiles(const __grid_constant__ KgExpertProducts p, uint32_t depth) {
    using Slot = KgQSlot<T, KG_EXPERT_SLICE>;
    using Rows = KgExpertTileRows<GATED>;
    KG_DYNAMIC_SHARED(char, shared); // [depth] slots of weights, the input, the warps' sums
    KG_SHARED(uint32_t[8], slots);
    KG_SHARED(uint32_t, count);
    const uint32_t tid = threadIdx.x, blocks = p.n / 32, pairs = (p.rows + Rows::STEP - 1) / Rows::STEP;
    char *const input = shared + depth * Slot::BYTES;
    float *const sums = (float *)(input + kg_q_input(blocks));
    if (tid == 0) count = 0;
    kg_begin();
    __syncthreads();
    const uint64_t all = (uint64_t)kg_expert_count(p, count) * pairs;
    const uint32_t first = (uint32_t)(all * blockIdx.x / gridDim.x), last = (uint32_t)(all * (blockIdx.x + 1) / gridDim.x);
    if (first == last) return;
    Rows here(p, first, pairs);
    KgExpertTileWeights<T, GATED> weights(here, last - first, blocks, pairs);
#pragma unroll 1
    for (uint32_t i = 0; i + 1 < depth; i++) {
        weights.copy_async(shared + i * Slot::BYTES);
        kg_copy_commit();
    }

    const uint32_t lane_x = tid * 16, lane_scales = blocks * 512 + tid / 32 * 96 + tid % 4 * 8;
    float acc[4][2][4] = {};
    uint32_t task = 0xffffffffu, n_slots = 0;
    KgQPlaces<T, KG_EXPERT_SLICE> places(0, 0);
    KgExpertTilePair summed;
    bool waits = false; // its sums lie in `sums`
#pragma unroll 1
    for (uint32_t left_pairs = last - first, left = blocks, slot = 0; left_pairs;) {
        kg_q_copy_wait(depth);
        __syncthreads();
        weights.copy_async(shared + (slot ? slot - 1 : depth - 1) * Slot::BYTES);
        kg_copy_commit();
        if (waits) {
            summed.store<GATED>(p, sums, slots, n_slots);
            // With a slice or more between them the next barrier keeps what is read apart from what is written.
            if (blocks <= KG_EXPERT_SLICE) __syncthreads();
            waits = false;
        }
        if (here.task != task) {
            task = here.task;
            const uint2 it = p.tasks[task];
            n_slots = it.y & 255;
            __syncthreads();
            if (tid < n_slots) slots[tid] = p.order[it.x + tid];
            __syncthreads();
            kg_expert_tile_input<T>(p, slots, n_slots, input);
            __syncthreads();
            const uint32_t odd = here.expert * p.rows + tid % 32 / 4;
            if (blocks & 1 || blocks / kg_d_blocks(T) & 1) places = {odd & blocks & 1, odd & blocks / kg_d_blocks(T) & 1};
        }
        const char *const x = input + (blocks - left) * 512 + lane_x, *const x_scales = input + (blocks - left) * 96 + lane_scales;
        kg_expert_tile_add<T, GATED>(p, acc, places, shared + slot * Slot::BYTES, x, x_scales, left, here.expert);
        if (left > KG_EXPERT_SLICE) {
            left -= KG_EXPERT_SLICE;
        } else {
            kg_q_meet(acc, sums);
            waits = true, summed = {here.expert, here.row0}, left = blocks;
            here.next(pairs, --left_pairs != 0);
        }
        if (++slot == depth) slot = 0;
    }
    __syncthreads();
    summed.store<GATED>(p, sums, slots, n_slots);
}

// How a block's shared memory is used: slots, 0 where there is no room.
struct KgExpertTilePlan {
    uint32_t per_sm, depth;
    size_t bytes;
};
template <int T> static KgExpertTilePlan kg_expert_tile_plan(uint32_t n) {
    const size_t slot = KgQSlot<T, KG_EXPERT_SLICE>::BYTES, fixed = kg_q_input(n / 32) + KG_Q_ROOM;
    for (uint32_t per_sm = KG_EXPERT_TILES_PER_SM; per_sm; per_sm--) {
        // A block takes 1 KiB more than it asks for, and has variables of its own.
        const size_t most = (kg_shared_most() + 1024) / per_sm - 1024 - 256;
        size_t depth = most > fixed ? (most - fixed) / slot : 0;
        if (depth > KG_EXPERT_DEPTH) depth = KG_EXPERT_DEPTH;
        if (depth >= 2) return {per_sm, (uint32_t)depth, depth * slot + fixed};
    }
    return {0, 0, 0};
}
