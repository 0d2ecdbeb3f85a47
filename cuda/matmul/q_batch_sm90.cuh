// The stages of quantized matrices for several sequences, on the tensor cores: the sums of gemv.cuh, with its order and so its bits.
//
// There lane l of warp w of a row sums the blocks of 32 whose index is l + 32 (w + ks i), i ascending; lanes are summed by a butterfly,
// warps ascending. The products of a block are integers and exact, so that here two mma (of the input's high and low bytes) give them for
// 16 rows and 8 sequences at once, and the sums go on as there: warp w of 8 has the lanes w, w + 8, w + 16 and w + 24, and what it
// gets meets that of the others in shared memory.
// A block takes two tiles of 16 rows (one of gate and one of up) by NT tiles of 8 sequences at a time. Weights come as they lie (abi.h),
// 16 blocks of each row a slice, through a ring of slots; so does the input (stage_input.cuh), unless there is room for all of it.
// Bytes moved: the weights once for each 8 NT sequences; the input once a block, or once a turn where it does not fit.
// Preconditions: a build for 9.0a (the others have no body); n a multiple of the type's block; 256 threads; st.split as integers.
#pragma once
#include "matmul/f16_mma.cuh"
#include "matmul/q_tile.cuh"

constexpr uint32_t KG_Q_BATCH_SLICE = 16, KG_Q_BATCH_DEPTH = 6;

template <int T> using KgQBatchSlot = KgQSlot<T, KG_Q_BATCH_SLICE>;
// Blocks of threads a multiprocessor, where shared memory is enough.
__host__ __device__ constexpr uint32_t kg_q_batch_per_sm(int nt) { return nt <= 2 ? 2 : 1; }
// Bytes of a slice of the input, and of what the warps have got of two tiles of rows.
__host__ __device__ constexpr uint32_t kg_q_batch_input(uint32_t nt) { return KG_Q_BATCH_SLICE * nt * KG_INPUT_Q_WORDS * 16; }
__host__ __device__ constexpr uint32_t kg_q_batch_meet(uint32_t nt) { return KG_Q_WARPS * KG_Q_ROWS * 8 * nt * 4; }

// acc[r][n] += the warp's i-th block of a slice of tile r times 8 sequences. in, in_scales: where the lane reads the input of its first block.
// TWO: of both tiles.
template <int T, int NT, bool TWO>
__device__ __forceinline__ void kg_q_batch_add(float (&acc)[2][NT][4], const KgQPlaces<T, KG_Q_BATCH_SLICE> &places, const char *slot, const char *in,
                                               const char *in_scales, uint32_t i, const KgScales (&own)[4]) {
    constexpr uint32_t N = TWO ? 2 : 1;
    const KgQBlock<T> block[2] = {{places, slot, 0, i, own}, {places, slot, N - 1, i, own}};
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const char *s = in_scales + 8 * i * NT * 96 + n * 32;
        float2 sums[2] = {};
        if constexpr (kg_offset(T) != 0 || kg_has_least(T)) {
            const int2 s0 = *(const int2 *)(s + NT * 32), s1 = *(const int2 *)(s + NT * 64);
            const float2 x = kg_q_sums<T>(s0.x, s1.x), y = kg_q_sums<T>(s0.y, s1.y);
            sums[0] = make_float2(x.x, y.x), sums[1] = make_float2(x.y, y.y);
        }
        float of[2][4];
#pragma unroll
        for (int k = 0; k < 8; k++) of[k / 4][k % 4] = acc[k / 4][n][k % 4];
        kg_q_multiply<T, N>(of, block, *(const uint4 *)(in + 8 * i * NT * 512 + n * 512), *(const float2 *)s, sums);
#pragma unroll
        for (int k = 0; k < 8; k++) acc[k / 4][n][k % 4] = of[k / 4][k % 4];
    }
}

// Where a slice lies: blocks from at() on.
struct KgQBatchPlace {
    uint32_t turn = 0, chain = 0, chunk = 0, half = 0; // chunk: 32 blocks, one of each lane; its chain: chunk % ks
    __device__ __forceinline__ uint32_t at() const { return chunk * 32 + half * KG_Q_BATCH_SLICE; }
    // Whether the slice is its chain's last.
    __device__ __forceinline__ bool last(uint32_t blocks, uint32_t ks) const { return (half || at() + KG_Q_BATCH_SLICE >= blocks) && (chunk + ks) * 32 >= blocks; }
    __device__ __forceinline__ void next(uint32_t blocks, uint32_t ks) {
        if (!half && at() + KG_Q_BATCH_SLICE < blocks) {
            half = 1;
            return;
        }
        half = 0, chunk += ks;
        if (chunk * 32 < blocks) return;
        // A chain of nothing adds nothing.
        if (++chain == ks || chain * 32 >= blocks) chain = 0, turn++;
        chunk = chain;
    }
};

#ifdef KG_SM90
// The weights' way to shared memory: every thread has its share of each slice.
template <int T> struct KgQBatchLoader {
    using Slot = KgQBatchSlot<T>;
    const KgStage &st;
    const uint32_t seg, blocks, tile0, tile1;
    const bool pair;
    KgQBatchPlace place;
    uint32_t unit[2], unit_s, unit_d; // first blocks of rows: of tid / 16 of each tile, tid / 8, tid / 2
    bool two;                         // whether there is a second tile

    __device__ __forceinline__ KgQBatchLoader(const KgStage &st, uint32_t seg, uint32_t tile0, uint32_t tile1)
        : st(st), seg(seg), blocks(st.n / 32), tile0(tile0), tile1(tile1), pair(st.activation != 0) {
        aim();
    }
    // Row `row` of the two tiles, as a matrix has it; beyond the last one the last again.
    __device__ __forceinline__ const KgMat &mat_of(uint32_t row) const { return st.m[pair ? row / 16 : seg]; }
    __device__ __forceinline__ uint32_t row_of(uint32_t row) const {
        return min((pair ? tile0 + place.turn : tile0 + place.turn * 2 + row / 16) * 16 + row % 16, st.m[seg].rows - 1);
    }
    __device__ __forceinline__ void aim() {
        const uint32_t tid = threadIdx.x;
        two = pair || tile0 + place.turn * 2 + 1 < tile1;
        unit[0] = row_of(tid / 16) * blocks + tid % 16, unit[1] = row_of(16 + tid / 16) * blocks + tid % 16;
        unit_s = row_of(tid / 8) * blocks, unit_d = row_of(tid / 2 % KG_Q_ROWS) * blocks;
    }
    __device__ __forceinline__ void next(uint32_t ks) {
        const uint32_t turn = place.turn;
        place.next(blocks, ks);
        if (place.turn != turn) aim();
    }
    // Words of two bytes a block: the first and the last may be half another row's.
    __device__ __forceinline__ void halves(const void *from, uint32_t first_unit, uint32_t n, uint32_t word, uint32_t to) const {
        const size_t first = (size_t)first_unit * 2, at = (first & ~(size_t)3) + 4 * word;
        if (at < first + 2 * n) kg_copy4(to + 4 * word, (const char *)from + at);
    }
    __device__ __forceinline__ void copy_async(const char *slot) const {
        const uint32_t tid = threadIdx.x, at = place.at(), n = min(blocks - at, KG_Q_BATCH_SLICE), j = tid % 16, to = kg_shared_at(slot);
#pragma unroll
        for (uint32_t k = 0; k < 2; k++) { // a block of a row of each tile
            if (j >= n || (k && !two)) continue;
            const uint32_t row = k * 16 + tid / 16;
            const KgMat &m = mat_of(row);
            const size_t u = unit[k] + at;
            if constexpr (Slot::A != 0) kg_copy16(to + row * Slot::A + j * 16, (const char *)m.a + u * 16, true);
            if constexpr (T == KG_Q8_0) kg_copy16(to + Slot::AT_B + row * Slot::B + j * 16, (const char *)m.b + u * 16, true);
            if constexpr (kg_has_b8(T)) kg_copy8(to + Slot::AT_B + row * Slot::B + j * 8, (const char *)m.b + u * 8);
            if constexpr (Slot::C != 0) kg_copy4(to + Slot::AT_C + row * Slot::C + j * 4, (const char *)m.c + u * 4);
            if constexpr (Slot::WIDE_S) kg_copy4(to + Slot::AT_S + row * Slot::S + j * 4, (const char *)m.s + u * 4);
        }
        if constexpr (kg_s_bytes(T) == 2) {
            if (two || tid < 128) halves(mat_of(tid / 8).s, unit_s + at, n, tid % 8, to + Slot::AT_S + tid / 8 * Slot::S);
            if (blocks & 1 && tid < (two ? 32 : 16)) halves(mat_of(tid).s, row_of(tid) * blocks + at, n, 8, to + Slot::AT_S + tid * Slot::S);
        }
        if constexpr (Slot::HALF_D) {
            constexpr uint32_t each = kg_d_blocks(T); // blocks of one of them
            const uint32_t all = (n + each - 1) / each, place = to + Slot::AT_D;
            if (tid < (two ? 64 : 32)) halves(mat_of(tid / 2).d, (unit_d + at) / each, all, tid % 2, place + tid / 2 * Slot::D);
            if (each < 8 && tid < (two ? 32 : 16)) halves(mat_of(tid).d, (row_of(tid) * blocks + at) / each, all, 2, place + tid * Slot::D);
        } else if constexpr (Slot::HAS_D) {
            if (tid < (two ? 64 : 32) && tid % 2 < (n + 7) / 8)
                kg_copy4(to + Slot::AT_D + tid / 2 * Slot::D + tid % 2 * 4, (const char *)mat_of(tid / 2).d + (size_t)((unit_d + at) / 8 + tid % 2) * 4);
        }
    }
};
#endif

// depth: slots of the ring, 2 to KG_Q_BATCH_DEPTH; input_resident: the input is behind them, all of it.
template <int T, int NT>
__global__ void __launch_bounds__(KG_Q_THREADS, kg_q_batch_per_sm(NT)) kg_q_batch_kernel(const __grid_constant__ KgStage st, uint32_t depth, uint32_t input_resident) {
#ifdef KG_SM90
    using Slot = KgQBatchSlot<T>;
    constexpr int K = (NT + 1) / 2; // outputs of a thread, of each tile of rows
    KG_DYNAMIC_SHARED(char, shared); // [depth] slots of weights, [depth or slices] of the input, the warps' sums
    KG_SHARED(uint64_t[KG_Q_BATCH_DEPTH], bars); // slots of the input that are there; the first alone where it stays
    uint32_t seg = 0;
    while (seg + 1 < st.n_seg && blockIdx.y >= st.seg_block[seg + 1]) seg++;
    const bool pair = st.activation != 0;
    const uint32_t tid = threadIdx.x, warp = tid / 32, lane = tid & 31, g = lane >> 2, t = lane & 3, ks = st.ks, blocks = st.n / 32;
    const uint32_t rows = st.m[seg].rows, tiles = (rows + 15) / 16, stride = pair ? 1 : 2;
    const uint32_t n_blocks = st.seg_block[seg + 1] - st.seg_block[seg], block = blockIdx.y - st.seg_block[seg];
    const uint32_t tile0 = tiles * block / n_blocks, tile1 = tiles * (block + 1) / n_blocks, turns = (tile1 - tile0 + stride - 1) / stride;
    const uint32_t slices = (blocks + KG_Q_BATCH_SLICE - 1) / KG_Q_BATCH_SLICE;
    char *const inputs = shared + depth * Slot::BYTES;
    float *const reduce_smem = (float *)(inputs + (input_resident ? slices : depth) * kg_q_batch_input(NT));

    // The weights of the first slices, before the wait; a group of copies for each slice.
    const uint32_t steps = turns * slices;
    KgQBatchLoader<T> coming(st, seg, tile0, tile1);
    KgQBatchPlace coming_input, here;
#pragma unroll 1
    for (uint32_t i = 0; i + 1 < depth; i++, coming.next(ks)) {
        if (i < steps) coming.copy_async(shared + i * Slot::BYTES);
        kg_copy_commit();
    }
    kg_launch_dependents();
    const uint32_t bar = kg_shared_at(bars);
    if (tid == 0) {
        for (uint32_t i = 0; i < depth; i++) kg_bar_init(bar + 8 * i, 1);
        kg_bar_init_done();
    }
    __syncthreads();
    kg_wait();
    // n blocks of the input from `at` on, by one thread.
    auto copy_input_async = [&](uint32_t at, uint32_t n, uint32_t room, char *to, uint32_t bar) {
        const uint4 *const input = st.split + (size_t)blockIdx.x * NT * blocks * KG_INPUT_Q_WORDS;
        kg_bar_expect(bar, n * NT * KG_INPUT_Q_WORDS * 16);
        kg_copy_bulk(kg_shared_at(to), input + (size_t)at * NT * 32, n * NT * 512, bar);
        kg_copy_bulk(kg_shared_at(to) + room * NT * 512, input + ((size_t)blocks * 32 + at * 6) * NT, n * NT * 96, bar);
    };
    const uint32_t room = input_resident ? blocks : KG_Q_BATCH_SLICE;
    if (tid == 0) {
        if (input_resident) copy_input_async(0, blocks, room, inputs, bar);
        else
#pragma unroll 1
            for (uint32_t i = 0; i + 1 < depth; i++, coming_input.next(blocks, ks))
                if (i < steps) copy_input_async(coming_input.at(), min(blocks - coming_input.at(), KG_Q_BATCH_SLICE), room, inputs + i * kg_q_batch_input(NT), bar + 8 * i);
    }

    const KgQPlaces<T, KG_Q_BATCH_SLICE> places(g & blocks & 1, g & blocks / kg_d_blocks(T) & 1);
    float acc[4][2][NT][4] = {}; // of this warp's four lanes
    float y[2][K] = {};
    // A chain's sums of all warps, in the order of the butterfly; those of the last chain are a turn's.
    auto gather = [&](KgQBatchPlace of) {
#pragma unroll
        for (uint32_t r = 0; r < 2; r++)
#pragma unroll
            for (int k = 0; k < K; k++) {
                const uint32_t o = tid + k * KG_Q_THREADS;
                if (o >= NT * 128) continue;
                float v[KG_Q_WARPS];
#pragma unroll
                for (uint32_t w = 0; w < KG_Q_WARPS; w++) v[w] = reduce_smem[(w * 2 + r) * NT * 128 + o];
                const float even = __fadd_rn(__fadd_rn(v[0], v[4]), __fadd_rn(v[2], v[6])), odd = __fadd_rn(__fadd_rn(v[1], v[5]), __fadd_rn(v[3], v[7]));
                y[r][k] = __fadd_rn(y[r][k], __fadd_rn(even, odd));
            }
        if (of.chain + 1 < ks && (of.chain + 1) * 32 < blocks) return;
#pragma unroll
        for (int k = 0; k < K; k++) {
            const uint32_t o = tid + k * KG_Q_THREADS, i = o / 32 % 4, seq = blockIdx.x * NT * 8 + o / 128 * 8 + 2 * t + (i & 1);
            if (o < NT * 128 && seq < st.n_seq) {
                float *out = st.state ? st.state[seq].logits : st.out[seg] + (size_t)seq * st.out_stride;
#pragma unroll
                for (uint32_t r = 0; r < 2; r++) {
                    const uint32_t tile = tile0 + of.turn * stride + r, row = tile * 16 + g + i / 2 * 8;
                    if ((r && (pair || tile >= tile1)) || row >= rows) continue;
                    out[row] = kg_f16_mma_result(st, y[r][k], y[1][k], !pair && st.bias[seg] ? st.bias[seg][row] : 0.f);
                }
            }
            y[0][k] = y[1][k] = 0.f;
        }
    };

    KgQBatchPlace ended;
    bool waits = false; // sums lie in `meet`
#pragma unroll 1
    for (uint32_t step = 0, slot = 0, parity = 0; step < steps; step++) {
        kg_q_copy_wait(depth);
        __syncthreads();
        // Into the slot of the slice before this one.
        if (step + depth - 1 < steps) {
            const uint32_t free = slot ? slot - 1 : depth - 1;
            coming.copy_async(shared + free * Slot::BYTES);
            coming.next(ks);
            if (!input_resident && tid == 0) {
                kg_async_fence();
                copy_input_async(coming_input.at(), min(blocks - coming_input.at(), KG_Q_BATCH_SLICE), room, inputs + free * kg_q_batch_input(NT), bar + 8 * free);
                coming_input.next(blocks, ks);
            }
        }
        kg_copy_commit();
        if (waits) {
            gather(ended);
            // With a slice or more between them the next barrier keeps what is read apart from what is written.
            if (here.last(blocks, ks)) __syncthreads();
            waits = false;
        }
        if (!input_resident) kg_bar_wait(bar + 8 * slot, parity);
        else if (step == 0) kg_bar_wait(bar, 0);
        const uint32_t at = here.at(), n = min(blocks - at, KG_Q_BATCH_SLICE);
        const char *const weights = shared + slot * Slot::BYTES, *const first = input_resident ? inputs : inputs + slot * kg_q_batch_input(NT);
        const char *const in = first + ((input_resident ? at : 0) + warp) * NT * 512 + lane * 16;
        const char *const in_scales = first + room * NT * 512 + ((input_resident ? at : 0) + warp) * NT * 96 + t * 8;
        KgScales own[4];
#pragma unroll
        for (uint32_t h = 0; h < 4; h++) own[h] = places.scales(weights, h, st.m[pair ? h / 2 : seg].scale);
        // The warp's two blocks of the slice, to the sums of two of its lanes. All of the warp's lanes are here or none is.
        auto add = [&](float(&a)[2][NT][4], float(&b)[2][NT][4]) {
            if (pair || tile0 + here.turn * 2 + 1 < tile1) {
                if (warp < n) kg_q_batch_add<T, NT, true>(a, places, weights, in, in_scales, 0, own);
                if (warp + 8 < n) kg_q_batch_add<T, NT, true>(b, places, weights, in, in_scales, 1, own);
            } else {
                if (warp < n) kg_q_batch_add<T, NT, false>(a, places, weights, in, in_scales, 0, own);
                if (warp + 8 < n) kg_q_batch_add<T, NT, false>(b, places, weights, in, in_scales, 1, own);
            }
        };
        if (!here.half) add(acc[0], acc[1]);
        else add(acc[2], acc[3]);
        if (here.last(blocks, ks)) {
#pragma unroll
            for (uint32_t r = 0; r < 2; r++)
#pragma unroll
                for (int n = 0; n < NT; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        reduce_smem[((warp * 2 + r) * NT + n) * 128 + i * 32 + lane] =
                            __fadd_rn(__fadd_rn(acc[0][r][n][i], acc[2][r][n][i]), __fadd_rn(acc[1][r][n][i], acc[3][r][n][i]));
                        acc[0][r][n][i] = acc[1][r][n][i] = acc[2][r][n][i] = acc[3][r][n][i] = 0.f;
                    }
            waits = true, ended = here;
        }
        here.next(blocks, ks);
        if (++slot == depth) slot = 0, parity ^= 1;
    }
    __syncthreads();
    if (waits) gather(ended);
#endif
}
