// The stages of F16 matrices for many sequences at once: the sums of f16_mma.cuh, with its order and so its bits.
//
// There a warp has one part of a row, and the parts meet in shared memory behind a barrier each turn. Here it has several parts of
// its rows, KS warps together all of them: what follows the first warp's own parts comes through shared memory (none where KS is 1),
// and a block's warps go their own ways. The input comes in slices of UN blocks of 32 of a part of each warp of KS, by the copy
// engine: into as many slots as there are slices, once, or round and round into fewer.
// Bytes moved: the weights once for each 8 NT sequences; the input once a block, or once a turn where it does not fit.
// Preconditions: code of version 9.0 or above; as in f16_mma.cuh; 32 KS groups threads, st.split given;
// slots: all slices of the input, or at least two.
#pragma once
#include "matmul/f16_mma.cuh"

constexpr uint32_t KG_F16_BATCH_UN = 4, KG_F16_BATCH_SLOTS = 32;
// Warps of a block at most; two rows of tiles by 32 sequences want more registers.
__host__ __device__ constexpr uint32_t kg_f16_batch_warps(int nm, int nt) { return nm * nt >= 8 ? 8 : 12; }

// 16-byte words of a slice: hi and lo of each sequence in the order of the lanes, then scales.
__host__ __device__ constexpr uint32_t kg_f16_batch_slice(int nt) { return KG_F16_BATCH_UN * 66 * nt; }
// Slices of a part: as many for each.
__host__ __device__ constexpr uint32_t kg_f16_batch_slices(uint32_t blocks, uint32_t parts) { return ((blocks + parts - 1) / parts + KG_F16_BATCH_UN - 1) / KG_F16_BATCH_UN; }

// acc[m][n][i] += s d of a block, whose inputs are `x` and `scales`. A product waits 33 cycles for the one before it on the same sum:
// those of several sums go in turn.
template <int NM, int NT> __device__ __forceinline__ void kg_f16_batch_add(float (&acc)[NM][NT][4], const KgF16Unit (&w)[NM], const uint4 *x, const float *scales) {
    constexpr int EACH = NT < 2 ? 1 : 2;
    const uint32_t lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < NT; n += EACH) {
        uint4 hi[EACH], lo[EACH];
        float d[NM][EACH][4];
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            hi[e] = x[(n + e) * 64 + lane], lo[e] = x[(n + e) * 64 + 32 + lane];
#pragma unroll
            for (int m = 0; m < NM; m++) d[m][e][0] = d[m][e][1] = d[m][e][2] = d[m][e][3] = 0.f;
        }
        auto each = [&](auto product) {
#pragma unroll
            for (int e = 0; e < EACH; e++)
#pragma unroll
                for (int m = 0; m < NM; m++) {
                    const uint32_t first[4] = {w[m].a.x, w[m].a.y, w[m].a.z, w[m].a.w}, second[4] = {w[m].b.x, w[m].b.y, w[m].b.z, w[m].b.w};
                    product(d[m][e], first, second, hi[e], lo[e]);
                }
        };
        using D = float (&)[4];
        using A = const uint32_t (&)[4];
        each([](D d, A first, A, uint4 hi, uint4) { kg_mma_in_turn(d, first, hi.x, hi.y); });
        each([](D d, A, A second, uint4 hi, uint4) { kg_mma_in_turn(d, second, hi.z, hi.w); });
        each([](D d, A first, A, uint4, uint4 lo) { kg_mma_in_turn(d, first, lo.x, lo.y); });
        each([](D d, A, A second, uint4, uint4 lo) { kg_mma_in_turn(d, second, lo.z, lo.w); });
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            const float2 s = *(const float2 *)(scales + (n + e) * 8 + 2 * (lane & 3));
#pragma unroll
            for (int m = 0; m < NM; m++) {
                float(&to)[4] = acc[m][n + e];
                to[0] = __fmaf_rn(s.x, d[m][e][0], to[0]), to[1] = __fmaf_rn(s.y, d[m][e][1], to[1]);
                to[2] = __fmaf_rn(s.x, d[m][e][2], to[2]), to[3] = __fmaf_rn(s.y, d[m][e][3], to[3]);
            }
        }
    }
}

template <int MODE, int NT, int KS> __global__ void __launch_bounds__(32 * kg_f16_batch_warps(MODE != KG_ONE ? 2 : 1, NT), 1) kg_f16_batch_kernel(const __grid_constant__ KgStage st, uint32_t slots, uint32_t slices) {
#ifdef KG_SM90
    constexpr bool PAIR = MODE == KG_PAIR, TWO = MODE == KG_TWO;
    constexpr int NM = MODE != KG_ONE ? 2 : 1, UN = KG_F16_BATCH_UN;
    constexpr uint32_t W = TWO ? 2 : 1, PART = 128 * NT;
    KG_DYNAMIC_SHARED(uint4, x); // [slots][KS][slice], then the parts
    // Slots that are full, that are empty: every thread says for itself that it has read one. (One for its warp would do, but the compiler
    // makes nothing of a barrier of a warp that is together, and racecheck then sees none.)
    KG_SHARED(uint64_t[2 * KG_F16_BATCH_SLOTS], bars);
    uint32_t seg = 0;
    while (seg + 1 < st.n_seg && blockIdx.y >= st.seg_block[seg + 1]) seg++;
    const uint32_t n_warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x & 31, groups = n_warps / KS, group = warp / KS, kw = warp % KS;
    const uint32_t shift = st.ks == 16 ? 4 : 3, blocks = (st.n + 31) / 32, parts = 1 << shift, mine = parts / KS, all = mine * slices;
    const uint32_t rows = st.m[seg].rows, tiles = (rows + 15) / 16;
    const uint32_t n_blocks = st.seg_block[seg + 1] - st.seg_block[seg], block = blockIdx.y - st.seg_block[seg];
    const uint32_t tile0 = tiles * block / n_blocks, tile1 = tiles * (block + 1) / n_blocks, stride = groups * W; // fewer than 2^32
    const uint32_t turns = (tile1 - tile0 + stride - 1) / stride;

    // What is loaded next: blocks from next_at on of a part, of a row of tiles.
    KgF16Unit f[UN][NM] = {};
    const uint4 *from[NM];
    uint32_t next_tile = tile0 + group * W, next_part = 0, next_slice = 0, next_at, next_end;
    auto aim = [&] {
        from[0] = (const uint4 *)st.m[seg].a + (size_t)next_tile * blocks * 64 + lane;
        if constexpr (PAIR) from[1] = (const uint4 *)st.m[1].a + (size_t)next_tile * blocks * 64 + lane;
        if constexpr (TWO) from[1] = from[0] + (size_t)blocks * 64;
    };
    auto bound = [&] {
        const uint32_t p = kw * mine + next_part;
        next_at = (p * blocks >> shift) + next_slice * UN;
        next_end = (p + 1) * blocks >> shift;
    };
    auto fetch = [&](int u) {
        const bool in = next_tile < tile1 && next_at + u < next_end;
#pragma unroll
        for (int m = 0; m < NM; m++)
            if (in && (!TWO || next_tile + m < tile1)) f[u][m].load(from[m], next_at + u);
    };
    aim();
    bound();
#pragma unroll
    for (int u = 0; u < UN; u++) fetch(u);
    kg_launch_dependents();

    const uint32_t full = kg_shared_at(bars), empty = kg_shared_at(bars + KG_F16_BATCH_SLOTS);
    const uint4 *input = st.split + (size_t)blockIdx.x * NT * blocks * 66;
    // Slice `slice` of each warp's part `part` into a slot, by one thread.
    auto copy_async = [&](uint32_t part, uint32_t slice, uint32_t slot) {
        uint32_t first[KS], n[KS], bytes = 0;
#pragma unroll
        for (uint32_t w = 0; w < KS; w++) {
            const uint32_t p = w * mine + part, last = (p + 1) * blocks >> shift;
            first[w] = (p * blocks >> shift) + slice * UN;
            n[w] = first[w] < last ? min(last - first[w], (uint32_t)UN) : 0;
            bytes += n[w] * NT * 66 * 16;
        }
        kg_bar_expect(full + 8 * slot, bytes);
#pragma unroll
        for (uint32_t w = 0; w < KS; w++) {
            if (!n[w]) continue;
            const uint32_t to = kg_shared_at(x + (slot * KS + w) * kg_f16_batch_slice(NT));
            kg_copy_bulk(to, input + (size_t)first[w] * NT * 64, n[w] * NT * 64 * 16, full + 8 * slot);
            kg_copy_bulk(to + UN * NT * 64 * 16, input + (size_t)(blocks * 64 + first[w] * 2) * NT, n[w] * NT * 2 * 16, full + 8 * slot);
        }
    };
    const bool input_resident = slots == all;
    if (threadIdx.x < slots) {
        kg_bar_init(full + 8 * threadIdx.x, 1), kg_bar_init(empty + 8 * threadIdx.x, 32 * n_warps);
        kg_bar_init_done();
    }
    __syncthreads();
    const uint32_t first_part = warp == 0 ? lane / slices : 0, first_slice = lane - first_part * slices;
    kg_wait();
    if (warp == 0) {
        if (lane < slots) copy_async(first_part, first_slice, lane);
        __syncwarp();
    }

    float *const reduce_smem = (float *)(x + (size_t)slots * KS * kg_f16_batch_slice(NT)) + (size_t)group * (parts - mine) * NM * PART;
    uint32_t slot = 0, parity = 0, coming_part = input_resident ? 0 : slots / slices, coming_slice = input_resident ? 0 : slots % slices; // what is brought next
    uint32_t left = input_resident ? 0 : turns * all - min(turns * all, slots);
    for (uint32_t turn = 0; turn < turns; turn++) { // as many for each group: there are barriers
        const uint32_t tile = tile0 + turn * stride + group * W;
        float total[NM][NT][4] = {};
        for (uint32_t part = 0; part < mine; part++) {
            const uint32_t p = kw * mine + part, n = ((p + 1) * blocks >> shift) - (p * blocks >> shift);
            float acc[NM][NT][4] = {};
            for (uint32_t slice = 0; slice < slices; slice++) {
                if (++next_slice == slices) {
                    next_slice = 0;
                    if (++next_part == mine) next_part = 0, next_tile += stride, aim();
                }
                bound();
                kg_bar_wait(full + 8 * slot, parity);
                const uint4 *in = x + (slot * KS + kw) * kg_f16_batch_slice(NT);
#pragma unroll
                for (int u = 0; u < UN; u++)
                    if (slice * UN + u < n) kg_f16_batch_add<NM, NT>(acc, f[u], in + u * NT * 64, (const float *)(in + UN * NT * 64) + u * NT * 8);
                // All at once: the compiler counts these loads together, so that each use of one waits for all that are under way.
#pragma unroll
                for (int u = 0; u < UN; u++) fetch(u);
                if (!input_resident) {
                    kg_bar_arrive(empty + 8 * slot);
                    // Into the slot before this one, which the slower warps may be in still.
                    const bool first = turn == 0 && part == 0 && slice == 0;
                    if (warp == 0 && !first && left) {
                        const uint32_t last = slot ? slot - 1 : slots - 1;
                        if (lane == 0) {
                            kg_bar_wait(empty + 8 * last, slot ? parity : parity ^ 1);
                            kg_async_fence();
                            copy_async(coming_part, coming_slice, last);
                        }
                        __syncwarp();
                        left--;
                        if (++coming_slice == slices) coming_slice = 0, coming_part = coming_part + 1 == mine ? 0 : coming_part + 1;
                    }
                }
                if (++slot == slots) slot = 0, parity = input_resident ? 0 : parity ^ 1;
            }
#pragma unroll
            for (int m = 0; m < NM; m++)
#pragma unroll
                for (int i = 0; i < NT; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        if (KS == 1 || kw == 0) total[m][i][j] = __fadd_rn(total[m][i][j], acc[m][i][j]);
                        else reduce_smem[((p - mine) * NM + m) * PART + (i * 4 + j) * 32 + lane] = acc[m][i][j];
                    }
        }
        if constexpr (KS > 1) {
            kg_barrier(1 + group, 32 * KS);
            if (kw == 0) {
                for (uint32_t p = 0; p < parts - mine; p++)
#pragma unroll
                    for (int m = 0; m < NM; m++)
#pragma unroll
                        for (int i = 0; i < NT * 4; i++) total[m][i / 4][i % 4] = __fadd_rn(total[m][i / 4][i % 4], reduce_smem[(p * NM + m) * PART + i * 32 + lane]);
            }
            if (turn + 1 < turns) kg_barrier(1 + group, 32 * KS);
        }
        if ((KS > 1 && kw != 0) || tile >= tile1) continue;
        const uint32_t g = lane >> 2, t = lane & 3;
        float bias[NM][2] = {};
#pragma unroll
        for (int m = 0; m < (PAIR ? 0 : NM); m++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                if (st.bias[seg] && (tile + m) * 16 + g + 8 * h < rows) bias[m][h] = st.bias[seg][(tile + m) * 16 + g + 8 * h];
#pragma unroll
        for (int i = 0; i < NT; i++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                const uint32_t seq = (blockIdx.x * NT + i) * 8 + 2 * t + c;
                if (seq >= st.n_seq) continue;
                float *out = (st.state ? st.state[seq].logits : st.out[seg] + (size_t)seq * st.out_stride) + tile * 16 + g;
#pragma unroll
                for (int m = 0; m < (PAIR ? 1 : NM); m++)
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        if ((m && tile + m >= tile1) || (tile + m) * 16 + g + 8 * h >= rows) continue;
                        out[16 * m + 8 * h] = kg_f16_mma_result(st, total[m][i][2 * h + c], PAIR ? total[NM - 1][i][2 * h + c] : 0.f, bias[m][h]);
                    }
            }
    }
#endif
}
