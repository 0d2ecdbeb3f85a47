// The stages of quantized matrices for several sequences, on the tensor cores: the sums of gemv.cuh, with its order and so its bits.
//
// There lane l of warp w of a row sums the blocks of 32 whose index is l + 32 (w + ks i), i ascending; lanes are summed by a butterfly, warps
// ascending. An input is integers of up to 2,047 and a scale a block, weights are bytes: halves hold both, and the sum of a block's products
// is below 2^24, so that two mma in halves with f32 sums give it exactly, in whatever order they add, and the sums go on as there: warp w of
// eight has the lanes w, w + 16, w + 8 and w + 24, one after another, of two tiles of 16 rows (a tile of a pair is 8 rows of gate and 8 of up)
// by NT tiles of 8 sequences, and what it gets meets that of the others in shared memory. RG such groups of eight warps have a turn together.
// Four more warps copy (q_batch_ring.cuh): a block of each row for each warp a slice, through a ring of slots, as the weights lie (abi.h), and the
// input (stage_input.cuh) with them.
// Bytes moved: the weights once for each 8 NT sequences; the input once a turn.
// Preconditions: a build for 9.0 (older ones have no body); n a multiple of the type's block; kg_q_batch_threads threads; st.split as integers.
#pragma once
#include "matmul/f16_mma.cuh"
#include "matmul/q_batch_ring.cuh"
#include "matmul/q_tile.cuh"

// Whether bytes are halves by being their lowest bits, 2^-24 each: without sign and offset.
constexpr __host__ __device__ bool kg_q_tiny(int t) { return !kg_is_signed(t) && kg_offset(t) == 0; }
// Four bytes of a row as halves of integers: the first and third, the second and fourth.
template <int T> __device__ __forceinline__ uint2 kg_q_halves(uint32_t w) {
    if constexpr (kg_q_tiny(T)) return make_uint2(w & 0x00ff00ffu, w >> 8 & 0x00ff00ffu);
    // 1024 for the upper byte above; the sign turned over where there is one.
    constexpr uint32_t bits = 0x6400u + (uint32_t)(kg_is_signed(T) ? 128 : kg_offset(T)), less = bits | bits << 16;
    if constexpr (kg_is_signed(T)) w ^= 0x80808080u;
    return make_uint2(kg_sub_halves(__byte_perm(w, 0x64646464u, 0x4240u), less), kg_sub_halves(__byte_perm(w, 0x64646464u, 0x4341u), less));
}

#ifdef KG_SM90
// Where a lane reads of a slot: rows g + 8 h of its group's planes, of which row g + 8 t is its own, and the input of its warp's block.
template <int T, int NT, int RG> struct KgQBatchPlaces {
    using Slot = KgQBatchSlot<T, RG>;
    uint32_t a, b, c, own_s, in, in_scales;
    // block: of eight.
    __device__ __forceinline__ KgQBatchPlaces(uint32_t group, uint32_t block) {
        const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, row = group * 32 + g;
        a = kg_kept(row * Slot::A + block * 16 + 4 * t);
        b = kg_kept(Slot::AT_B + row * Slot::B + (T == KG_Q8_0 ? block * 16 + 4 * t : block * 8));
        c = kg_kept(Slot::AT_C + row * Slot::C + block * 4);
        own_s = kg_kept(Slot::AT_S + (row + 8 * t) * Slot::S + block * kg_s_bytes(T));
        in = kg_kept(Slot::BYTES + block * NT * 512 + lane * 16);
        in_scales = kg_kept(Slot::BYTES + KG_Q_BATCH_SLICE * NT * 512 + block * NT * 96 + t * 16);
    }
    static __device__ __forceinline__ uint32_t word_s(uint32_t at) {
        return kg_s_bytes(T) == 0 ? 0 : kg_s_bytes(T) == 4 ? kg_shared4(at) : kg_shared2(at);
    }
    // The scales of the warp's block, of the lane's own row, as numbers. half: which of a word the slice's first value of plane d is.
    __device__ __forceinline__ KgScales own_scales(uint32_t slot, uint32_t block, uint32_t half, float scale) const {
        Unit<T> u;
        const uint32_t at = slot + own_s;
        u.s = word_s(at), u.d = __float_as_uint(scale);
        const uint32_t at_d = (at & ~(Slot::S - 1)) + Slot::AT_D;
        if constexpr (kg_d_bytes(T) == 4) u.d = kg_shared4(at_d);
        else if constexpr (Slot::HAS_D) u.d = kg_shared2(at_d + (half + block / kg_d_blocks(T)) * 2);
        // Scales that stand with the signs.
        if constexpr (T == KG_IQ2_XXS) u.b.y = kg_shared4(slot + b + threadIdx.x % 4 * 8 * Slot::B + 4);
        if constexpr (T == KG_IQ3_XXS) u.c = kg_shared4(slot + c + threadIdx.x % 4 * 8 * Slot::C);
        KgScales v = u.scales();
        if constexpr (kg_q_tiny(T)) v.g0 *= 16777216.f, v.g1 *= 16777216.f;
        return v;
    }
    // Halves of the elements of row g + 8 h.
    __device__ __forceinline__ void elements(uint32_t slot, uint32_t h, uint32_t (&first)[2], uint32_t (&second)[2]) const {
        uint32_t wa = 0, wb = 0;
        KgCodes w = {0, 0, 0, 0};
        if constexpr (Slot::A != 0) wa = kg_shared4(slot + a + h * 8 * Slot::A);
        if constexpr (T == KG_Q8_0) wb = kg_shared4(slot + b + h * 8 * Slot::B);
        if constexpr (kg_has_b8(T)) {
            const uint2 two = kg_shared8(slot + b + h * 8 * Slot::B);
            w.b0 = two.x, w.b1 = two.y;
        }
        if constexpr (Slot::C != 0) w.c = kg_shared4(slot + c + h * 8 * Slot::C);
        // Codes that stand with the scales.
        if constexpr (kg_is_grid(T)) w.s = word_s(slot + own_s + (h * 8 - threadIdx.x % 4 * 8) * Slot::S);
        const uint2 bytes = kg_q_words<T>(wa, wb, w, threadIdx.x % 4), x = kg_q_halves<T>(bytes.x), y = kg_q_halves<T>(bytes.y);
        first[0] = x.x, first[1] = x.y, second[0] = y.x, second[1] = y.y;
    }
};

// acc[r][n] += the warp's block of a slice, of tile r times 8 sequences. own: the scales of the lane's own row.
template <int T, int NT, int RG>
__device__ __forceinline__ void kg_q_batch_add(float (&acc)[2][NT][4], const KgQBatchPlaces<T, NT, RG> &places, uint32_t slot, const KgScales &own) {
    constexpr bool HALVES = kg_has_half_scales(T), LEAST = kg_has_least(T);
    constexpr int P = HALVES ? 2 : 1;
    uint32_t a[2][2][4]; // of tile r, of a half of the block
    KgScales scales[2][2];
#pragma unroll
    for (uint32_t r = 0; r < 2; r++)
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            uint32_t first[2], second[2];
            places.elements(slot, 2 * r + h, first, second);
            a[r][0][h] = first[0], a[r][0][h + 2] = first[1], a[r][1][h] = second[0], a[r][1][h + 2] = second[1];
            scales[r][h] = kg_q_scales<T>(own, 2 * r + h);
        }
    float p[2][2][P][4]; // of every other tile of sequences
    auto multiply = [&](int n) {
        const uint4 x = kg_shared16(slot + places.in + n * 512);
        float(&to)[2][P][4] = p[n % 2];
#pragma unroll
        for (int r = 0; r < 2; r++) kg_mma_new(to[r][0], a[r][0], x.x, x.y);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if constexpr (HALVES) kg_mma_new(to[r][1], a[r][1], x.z, x.w);
            else kg_mma_in_turn(to[r][0], a[r][1], x.z, x.w);
        }
    };
    multiply(0);
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const uint32_t s = slot + places.in_scales + n * 96;
        float d[2];
        KgSums sums[2] = {};
        if constexpr (LEAST) {
            const uint4 v = kg_shared16(s);
            d[0] = __uint_as_float(v.x), d[1] = __uint_as_float(v.y), sums[0].s0 = __uint_as_float(v.z), sums[1].s0 = __uint_as_float(v.w);
        } else {
            const uint2 v = kg_shared8(s);
            d[0] = __uint_as_float(v.x), d[1] = __uint_as_float(v.y);
        }
        if constexpr (LEAST && HALVES) {
            const uint2 later = kg_shared8(s + 64 - threadIdx.x % 4 * 8);
            sums[0].s1 = __uint_as_float(later.x), sums[1].s1 = __uint_as_float(later.y);
            sums[0].s0 -= sums[0].s1, sums[1].s0 -= sums[1].s1;
        }
        if (n + 1 < NT) multiply(n + 1);
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int k = 0; k < 4; k++)
                acc[r][n][k] = kg_unit_sum<T>(acc[r][n][k], d[k & 1], sums[k & 1], scales[r][k >> 1], p[n % 2][r][0][k], p[n % 2][r][P - 1][k]);
    }
}

// The sums of a chain's lanes, where all warps have left theirs, as the butterfly has them.
__device__ __forceinline__ float4 kg_q_batch_met(const float4 *meet, uint32_t stride, bool odd, uint32_t odd_at) {
    float4 v[8];
#pragma unroll
    for (uint32_t w = 0; w < 8; w++) {
        v[w] = meet[w * stride];
        if (odd) v[w] = kg_add4(v[w], meet[odd_at + w * stride]);
    }
    return kg_add4(kg_add4(kg_add4(v[0], v[4]), kg_add4(v[2], v[6])), kg_add4(kg_add4(v[1], v[5]), kg_add4(v[3], v[7])));
}

// A thread's four sums of a turn, of tile k: rows g and g + 8, columns 2 t and 2 t + 1 of a tile of sequences.
__device__ __forceinline__ void kg_q_batch_store(const KgStage &st, const KgQBatchRows &rows, uint32_t turn, uint32_t k, uint32_t first, float4 y) {
    const uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, tile = rows.tile(turn, k);
    if (tile >= rows.tile1) return;
#pragma unroll 1
    for (uint32_t i = 0; i < (rows.pair ? 2 : 4); i++) {
        const uint32_t seq = first + 2 * t + (i & 1), row = tile * rows.tile_rows() + g + i / 2 * 8;
        if (seq < st.n_seq && row < rows.rows) {
            float *const out = st.state ? st.state[seq].logits : st.out[rows.seg] + (size_t)seq * st.out_stride;
            out[row] = kg_f16_mma_result(st, y.x, y.z, !rows.pair && st.bias[rows.seg] ? st.bias[rows.seg][row] : 0.f);
        }
        y = make_float4(y.y, y.z, y.w, y.x);
    }
}

// The other warps: what a group's warp w has of each slice, w and group from its number. meet: where their sums do.
template <int T, int NT, int RG>
__device__ __forceinline__ void kg_q_batch_sum(const KgStage &st, const KgQBatchRows &rows, KgQBatchRing<T, NT, RG> ring, float4 *meet) {
    constexpr uint32_t N = 2 * NT, STRIDE = N * 32, ODD = kg_q_batch_meet(NT, RG) / 16;
    const uint32_t warp = (threadIdx.x - KG_Q_BATCH_COPIERS) / 32, lane = threadIdx.x % 32, group = warp / 8, block = warp % 8;
    const KgQBatchPlaces<T, NT, RG> places(group, block);
    float4 *const mine = meet + warp * STRIDE + lane;
    const float scale = st.m[rows.pair ? lane % 2 : rows.seg].scale; // of row g + 8 t
    const uint32_t n = block; // of a tile of rows and one of sequences, the one whose sums this warp takes
    float acc[2][NT][4] = {};
    float4 y = make_float4(0.f, 0.f, 0.f, 0.f);
    KgQBatchPlace here(st);
    uint32_t unit = 0, most = 0; // of the lane's own row; the warp has blocks of slices below this one
    auto aim = [&] {
        unit = kg_d_bytes(T) == 2 ? rows.row(here.turn, group * 2 + lane % 4 / 2, lane % 2 * 8 + lane / 4) * here.blocks : 0;
        most = kg_kept(rows.has(here.turn, group * 2) && here.blocks > block ? here.blocks - block : 0);
    };
    aim();
    kg_wait();
#pragma unroll 1
    while (here.turn < rows.turns) {
        kg_bar_wait(ring.full, ring.parity);
        if (here.at < most) {
            const KgScales own = places.own_scales(ring.at, block, kg_d_bytes(T) == 2 ? (unit + here.at) / kg_d_blocks(T) & 1 : 0, scale);
            kg_q_batch_add<T, NT, RG>(acc, places, ring.at, own);
        }
        __syncwarp();
        if (lane == 0) kg_bar_arrive(ring.empty());
        ring.next();
        if (!here.ends_lanes()) {
            here.next();
            continue;
        }
        float4 *const to = mine + (here.step / 2) * ODD;
#pragma unroll
        for (uint32_t i = 0; i < N; i++) {
            float(&v)[4] = acc[i / NT][i % NT];
            float4 s = make_float4(v[0], v[1], v[2], v[3]);
            if (here.step & 1) s = kg_add4(to[i * 32], s);
            to[i * 32] = s;
            v[0] = v[1] = v[2] = v[3] = 0.f;
        }
        if (here.next_step() == 4) {
            kg_barrier(1, 32 * kg_q_batch_warps(RG));
            if (n < N) y = kg_add4(y, kg_q_batch_met(meet + group * 8 * STRIDE + n * 32 + lane, STRIDE, here.step >= 2, ODD));
            kg_barrier(1, 32 * kg_q_batch_warps(RG));
            if (n < N && here.ends_turn()) {
                kg_q_batch_store(st, rows, here.turn, group * 2 + n / NT, (blockIdx.x * NT + n % NT) * 8, y);
                y = make_float4(0.f, 0.f, 0.f, 0.f);
            }
        }
        if (here.next()) aim();
    }
}
#endif

// depth: slots of the ring, 2 to KG_Q_BATCH_DEPTH.
template <int T, int NT, int RG>
__global__ void __launch_bounds__(kg_q_batch_threads(RG), 1) kg_q_batch_kernel(const __grid_constant__ KgStage st, uint32_t depth) {
#ifdef KG_SM90
    KG_DYNAMIC_SHARED(char, shared); // [depth] slots of weights and of their input, the warps' sums of even lanes, and of odd ones
    KG_SHARED(uint64_t[2 * KG_Q_BATCH_DEPTH], bars);
    const KgQBatchRows rows(st, 2 * RG);
    using Ring = KgQBatchRing<T, NT, RG>;
    const Ring ring(shared, depth, bars);
    kg_launch_dependents();
    if (threadIdx.x == 0) {
        // Each copying thread, and the input; each warp that adds.
        for (uint32_t i = 0; i < depth; i++)
            kg_bar_init(ring.full + 8 * i, KG_Q_BATCH_COPIERS + 1), kg_bar_init(ring.empty() + 8 * i, kg_q_batch_warps(RG));
        kg_bar_init_done();
    }
    __syncthreads();
    if (threadIdx.x < KG_Q_BATCH_COPIERS) {
#ifdef KG_SM90A
        if constexpr (RG == 2) kg_fewer_registers<KG_Q_BATCH_FEWER>();
#endif
        kg_q_batch_copy(st, rows, ring);
    } else {
#ifdef KG_SM90A
        if constexpr (RG == 2) kg_more_registers<KG_Q_BATCH_MORE>();
#endif
        kg_q_batch_sum(st, rows, ring, (float4 *)(shared + depth * Ring::EACH));
    }
#endif
}
