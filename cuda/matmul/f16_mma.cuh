// The stages of F16 matrices on tensor cores: gemv.cuh's stage, tiles of 16 rows, for one sequence or up to 64.
//
// x is cut into blocks of 32 along a row: x = s (hi + lo), s a power of two, hi and lo f16, |lo| <= 2^-11: 22 bits of a block's
// largest element, whatever its size. Products of two f16 are exact. Per row and sequence
//   d_b   = sum of W hi over block b, then W lo on top, by four mma of 16 columns
//   part  = fma over the blocks of an eighth (st.ks = 8) or sixteenth (16) of the row, ascending, of s_b d_b
//   total = the parts, ascending
// which is all that the bits depend on: a sequence has the same ones alone and in company, whatever the geometry.
// Weights lie in tiles of 16 rows by 32 columns (KG_F16_TILED): a tile is 1 KiB, of which lane l of a warp takes 16 bytes at 16 l
// and at 512 + 16 l, an operand of an mma each: of rows g = l / 4 and g + 8 the elements 8 (l % 4) .. + 3, and .. + 7, in words
// (g, 0..1) (g + 8, 0..1) (g, 2..3) (g + 8, 2..3). Both operands are permuted alike, so the sums are over the same pairs.
// Bytes moved: the weights once for up to 32 sequences; x once a block from L2.
// Preconditions: as in gemv.cuh; 32 st.ks threads.
#pragma once
#include "matmul/gemv.cuh"
#include "device/sm90.cuh"

// The copy engine brings the input, but not on the emulated device: that runs what is there for older ones.
#if defined(KG_SM90) && !defined(KG_EMULATE)
#define KG_F16_MMA_BULK 1
#endif

// What a group of warps has in hand: a row of tiles; those of gate and up; two rows, which share what they read of the input.
enum KgF16Mode { KG_ONE, KG_PAIR, KG_TWO };
// Groups of a block. NT: tiles of 8 sequences; 0: a token alone.
__host__ __device__ constexpr int kg_f16_mma_groups(int nt, int parts) { return nt >= 2 && parts == 8 ? 2 : 1; }
// Sets of parts, used in turn: two where there is room for them.
__host__ __device__ constexpr int kg_f16_mma_sets(int mode, int nt) { return mode != KG_ONE && nt == 4 ? 1 : 2; }
// Floats before the input: reductions of the norm, then the sets of parts.
__host__ __device__ constexpr uint32_t kg_f16_mma_red(int mode, int nt, int parts) {
    return 128 + kg_f16_mma_sets(mode, nt) * (mode != KG_ONE ? 2 : 1) * parts * kg_f16_mma_groups(nt, parts) * (nt ? 128 * nt : 16);
}
// Bytes of a block of 32 of the input: hi and lo of each sequence in the order of the lanes, and scales.
__host__ __device__ constexpr uint32_t kg_f16_mma_block(int nt) { return nt ? 1056 * nt : 132; }
static inline size_t kg_f16_mma_smem(uint32_t n, bool norm, int mode, int nt, int parts) {
    return kg_f16_mma_red(mode, nt, parts) * 4 + (size_t)((n + 31) / 32) * kg_f16_mma_block(nt) + 16 + (norm ? (n + 31) / 32 * 128 : 0);
}
static inline size_t kg_f16_mma_split_smem(uint32_t n, int nt, int parts) { return (size_t)((n + 31) / 32 / parts + 1) * kg_f16_mma_block(nt); }

// What a stage has to be: of matrices of tiles; with a tile of rows for each of its blocks.
static inline bool kg_f16_mma_check(const KgStage *st) {
    bool ok = st->n && st->n_seg >= 1 && st->n_seg <= 3 && (!st->activation || st->n_seg == 1) && (st->ks == 8 || st->ks == 16);
    for (uint32_t i = 0; ok && i < (st->activation ? 2 : st->n_seg); i++)
        ok = st->m[i].type == KG_F16_TILED && st->m[i].stride == (st->n + 31) / 32 * 32;
    return ok;
}
static inline bool kg_f16_mma_rows_check(const KgStage *st) {
    bool ok = true;
    for (uint32_t i = 0; ok && i < st->n_seg; i++)
        ok = st->seg_block[i] < st->seg_block[i + 1] && st->seg_block[i + 1] - st->seg_block[i] <= (st->m[i].rows + 15) / 16;
    return ok;
}

// A lane's part of a tile.
struct KgF16Unit {
    uint4 a, b;
    // from: the lane's place in the first tile of a row of tiles; b: the block of 32 columns.
    __device__ __forceinline__ void load(const uint4 *from, uint32_t at) {
        a = kg_stream16(from + (size_t)at * 64);
        b = kg_stream16(from + (size_t)at * 64 + 32);
    }
};

// d = W x over a block of 32.
__device__ __forceinline__ void kg_f16_mma_dot(float (&d)[4], const KgF16Unit &w, uint4 hi, uint4 lo) {
    const uint32_t first[4] = {w.a.x, w.a.y, w.a.z, w.a.w}, second[4] = {w.b.x, w.b.y, w.b.z, w.b.w};
    d[0] = d[1] = d[2] = d[3] = 0.f;
    kg_mma(d, first, hi.x, hi.y);
    kg_mma(d, second, hi.z, hi.w);
    kg_mma(d, first, lo.x, lo.y);
    kg_mma(d, second, lo.z, lo.w);
}

// What becomes of a row's sum, and of those of gate and up: kg_stage_result's formula, written so that the compiler makes of the
// kernels here what was measured.
__device__ __forceinline__ float kg_f16_mma_result(const KgStage &st, float y, float up, float bias) {
    y = st.activation ? __fmul_rn(kg_activation(st.activation, y), up) : __fadd_rn(y, bias);
    return st.softcap != 0.f ? kg_capped(st.softcap, st.scale, y) : y;
}

// The inputs of NT * 8 sequences from seq0 on, blocks b0 .. b1: [blocks][NT][hi, lo][32 lanes] of 16 bytes, scales [blocks][8 NT].
// Cut up by the norm already, in this order (st.split). Part p is there after kg_f16_mma_await(p, ..), for the calling warp.
template <int NT, int PARTS> __device__ __forceinline__ void kg_f16_mma_copies(const KgStage &st, uint4 *x, float *scales, uint64_t *bars) {
    const uint32_t blocks = (st.n + 31) / 32;
    const uint4 *from = st.split + (size_t)blockIdx.x * NT * blocks * 66;
#ifdef KG_F16_MMA_BULK
    const uint32_t p = threadIdx.x / 32;
    if (p < PARTS && threadIdx.x % 32 == 0) {
        const uint32_t first = p * blocks / PARTS, n = (p + 1) * blocks / PARTS - first, bar = kg_shared_at(bars + p);
        kg_bar_expect(bar, n * NT * 66 * 16);
        if (n) {
            kg_copy_bulk(kg_shared_at(x + first * NT * 64), from + (size_t)first * NT * 64, n * NT * 64 * 16, bar);
            kg_copy_bulk(kg_shared_at(scales + first * NT * 8), from + (size_t)(blocks * 64 + first * 2) * NT, n * NT * 2 * 16, bar);
        }
    }
#else
    // The scales come right behind, there as here.
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < blocks * NT * 66; i += blockDim.x) kg_copy16(kg_shared_at(x + i), from + i, true);
    kg_copy_commit();
    kg_copy_wait<0>();
    __syncthreads();
#endif
}
__device__ __forceinline__ void kg_f16_mma_await(uint64_t *bars, uint32_t part) {
#ifdef KG_F16_MMA_BULK
    kg_bar_wait(kg_shared_at(bars + part), 0);
#endif
}
// The inputs as rows of f32:
template <int NT> __device__ __forceinline__ void kg_f16_mma_inputs(const KgStage &st, uint4 *x, float *scales, uint32_t seq0, uint32_t b0, uint32_t b1) {
    constexpr int MANY = 8;
    const uint32_t j = threadIdx.x & 7, each = blockDim.x / 8, n = (b1 - b0) * 8 * NT;
#pragma unroll 1
    for (uint32_t id0 = threadIdx.x / 8; id0 - threadIdx.x / 8 < n; id0 += MANY * each) { // by whole warps
        float4 v[MANY];
#pragma unroll
        for (int k = 0; k < MANY; k++) {
            const uint32_t id = id0 + k * each, seq = seq0 + id % (8 * NT);
            v[k] = make_float4(0.f, 0.f, 0.f, 0.f);
            if (id < n && seq < st.n_seq) v[k] = ((const float4 *)(st.x + (size_t)seq * st.x_stride))[(b0 + id / (8 * NT)) * 8 + j];
        }
#pragma unroll
        for (int k = 0; k < MANY; k++) {
            const uint32_t id = id0 + k * each, seq = id % (8 * NT);
            uint2 hi, lo;
            const float s = kg_stage_f16(v[k], hi, lo);
            if (id >= n) continue;
            uint2 *half = (uint2 *)(x + (id / (8 * NT) * NT + seq / 8) * 64 + (seq % 8) * 4 + j / 2) + (j & 1);
            half[0] = hi, half[64] = lo;
            if (j == 0) scales[id] = s;
        }
    }
    __syncthreads();
}

// acc[n][i] += s d of block b, whose inputs are `x` and `scales`.
template <int NT> __device__ __forceinline__ void kg_f16_mma_add(float (&acc)[NT][4], const KgF16Unit &w, const uint4 *x, const float *scales) {
    const uint32_t lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const float2 s = *(const float2 *)(scales + n * 8 + 2 * (lane & 3));
        float d[4];
        kg_f16_mma_dot(d, w, x[n * 64 + lane], x[n * 64 + 32 + lane]);
        acc[n][0] = __fmaf_rn(s.x, d[0], acc[n][0]), acc[n][1] = __fmaf_rn(s.y, d[1], acc[n][1]);
        acc[n][2] = __fmaf_rn(s.x, d[2], acc[n][2]), acc[n][3] = __fmaf_rn(s.y, d[3], acc[n][3]);
    }
}

// One or two rows of tiles at a time for each group of PARTS warps, a part of the columns a warp. NT = 0: a token alone, its norm here; else
// NT tiles of 8 sequences. UN: blocks of 32 in flight a lane. The first ones are requested before the kernels this one depends on
// have finished.
template <int MODE, int UN, int NT, int PARTS> __device__ __forceinline__ void kg_f16_mma_run(const KgStage &st, float *red) {
    constexpr bool PAIR = MODE == KG_PAIR, TWO = MODE == KG_TWO;
    // Without branches the blocks' products go side by side: for more than four there are no registers.
    constexpr bool STRAIGHT = NT == 0 && UN * (PAIR ? 2 : 1) <= 4;
    constexpr int NM = MODE != KG_ONE ? 2 : 1, C = NT ? NT : 1, NV = 2, GROUPS = kg_f16_mma_groups(NT, PARTS);
    constexpr uint32_t PART = NT ? 128 * NT : 16, SET = NM * PARTS * PART, STRIDE = GROUPS * (TWO ? 2 : 1);
    const uint32_t at = NT ? blockIdx.y : blockIdx.x;
    uint32_t seg = 0;
    while (seg + 1 < st.n_seg && at >= st.seg_block[seg + 1]) seg++;
    const uint32_t warp = threadIdx.x / 32 % PARTS, group = threadIdx.x / (32 * PARTS), lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const uint32_t blocks = (st.n + 31) / 32, first = warp * blocks / PARTS, last = (warp + 1) * blocks / PARTS;
    const uint32_t steps = (last - first + UN - 1) / UN, rows = st.m[seg].rows;
    const uint32_t n_blocks = st.seg_block[seg + 1] - st.seg_block[seg], block = at - st.seg_block[seg], tiles = (rows + 15) / 16;
    const uint32_t tile0 = tiles * block / n_blocks, tile1 = tiles * (block + 1) / n_blocks; // fewer than 2^32

    KgF16Unit f[NM][UN] = {};
    const uint4 *from[NM];
    uint32_t tile_at = tile0 + group * (TWO ? 2 : 1), block_at = first;
    auto aim = [&] {
        from[0] = (const uint4 *)st.m[seg].a + (size_t)tile_at * blocks * 64 + lane;
        if constexpr (PAIR) from[1] = (const uint4 *)st.m[1].a + (size_t)tile_at * blocks * 64 + lane;
        if constexpr (TWO) from[1] = from[0] + (size_t)blocks * 64;
    };
    auto fetch = [&](int u) {
        const bool in = tile_at < tile1 && block_at + u < last;
#pragma unroll
        for (int m = 0; m < NM; m++) {
            if constexpr (STRAIGHT) f[m][u] = {}; // beyond the part zeros, which add nothing
            if (in && (!TWO || tile_at + m < tile1)) f[m][u].load(from[m], block_at + u);
        }
    };
    aim();
#pragma unroll
    for (int u = 0; u < UN; u++) fetch(u);
    kg_launch_dependents();

    uint4 *const x = (uint4 *)(red + kg_f16_mma_red(MODE, NT, PARTS)); // alone: [blocks][4 lanes][hi, lo] of 16 bytes
    float *const scales = (float *)(x + blocks * (NT ? 64 * NT : 8)); // [blocks][8 NT], alone: [blocks]
    const uint32_t seq0 = NT ? blockIdx.x * NT * 8 : 0;
    if constexpr (NT != 0) {
        KG_SHARED(uint64_t[PARTS], bars);
#ifdef KG_F16_MMA_BULK
        if (threadIdx.x == 0) {
            for (int p = 0; p < PARTS; p++) kg_bar_init(kg_shared_at(bars + p), 1);
            kg_bar_init_done();
        }
        __syncthreads();
#endif
        kg_wait();
        kg_f16_mma_copies<NT, PARTS>(st, x, scales, bars);
        kg_f16_mma_await(bars, warp);
    } else {
        if (threadIdx.x < 16 && threadIdx.x >= PARTS) red[threadIdx.x] = red[64 + threadIdx.x] = 0.f;
        float4 held[NV];
        // Not a template's parameter: the fewer kernels a step has, the more of their instructions stay in the cache.
        const bool norm = PAIR || st.norm_w;
        if (norm) kg_stage_hold(st, held);
        kg_wait();
        float4 *const vb = (float4 *)(((uintptr_t)(scales + blocks) + 15) / 16 * 16);
        const uint32_t n4 = blocks * 8;
        auto put = [&](float4 v, uint32_t i) {
            if (st.tap && blockIdx.x == 0 && i < n4) ((float4 *)st.tap)[i] = v;
            uint2 hi, lo;
            const float s = kg_stage_f16(v, hi, lo);
            if (i >= n4) return;
            uint2 *to = (uint2 *)(x + (i >> 3) * 8 + (i >> 1 & 3) * 2) + (i & 1);
            to[0] = hi, to[2] = lo;
            if ((i & 7) == 0) scales[i >> 3] = s;
        };
        float4 y[NV] = {};
        const float scale = norm ? kg_stage_norm<false>(st, st.x, [&](uint32_t i) { return ((const float4 *)st.delta)[i]; }, blockIdx.x == 0 ? st.x_out : nullptr, red, vb, y) : 0.f;
        kg_stage_each<false>(st, norm, st.x, scale, y, vb, held, put);
        __syncthreads();
    }

    float *parts = red + 128 + group * SET;
    for (uint32_t turn = tile0; turn < tile1; turn += STRIDE) { // as many for each group: there is a barrier
        const uint32_t tile = turn + group * (TWO ? 2 : 1);
        if constexpr (NT == 4 && !PAIR) { // the rows after the next ones come into L2 meanwhile
            for (uint32_t ahead = tile + 2 * STRIDE; ahead < min(tile + 2 * STRIDE + (TWO ? 2 : 1), tile1); ahead++)
                for (uint32_t line = lane; line < (last - first) * 8; line += 32)
                    kg_prefetch((const char *)st.m[seg].a + ((size_t)ahead * blocks + first) * 1024 + line * 128);
        }
        float acc[NM][C][4] = {};
        for (uint32_t k = 0; k < steps; k++) {
            // The next load: the following step, or the first of the next tiles.
            block_at += UN;
            if (k + 1 == steps) {
                block_at = first, tile_at += STRIDE;
                aim();
            }
#pragma unroll
            for (int u = 0; u < UN; u++) {
                const uint32_t at = first + k * UN + u, b = STRAIGHT ? min(at, last - 1) : at;
                if (!STRAIGHT && b >= last) {
                } else if constexpr (NT != 0) {
#pragma unroll
                    for (int m = 0; m < NM; m++) kg_f16_mma_add<C>(acc[m], f[m][u], x + b * (64 * NT), scales + b * (8 * NT));
                } else {
                    // Column 0 of a tile of sequences is the token's.
                    uint4 hi = make_uint4(0, 0, 0, 0), lo = hi;
                    if (g == 0) hi = x[b * 8 + t * 2], lo = x[b * 8 + t * 2 + 1];
                    const float s = scales[b];
#pragma unroll
                    for (int m = 0; m < NM; m++) {
                        float d[4];
                        kg_f16_mma_dot(d, f[m][u], hi, lo);
                        acc[m][0][0] = __fmaf_rn(s, d[0], acc[m][0][0]), acc[m][0][2] = __fmaf_rn(s, d[2], acc[m][0][2]);
                    }
                }
                fetch(u);
            }
        }
        // A part: of a token alone by row; else by (tile of sequences, element of the lane, lane).
#pragma unroll
        for (int m = 0; m < NM; m++) {
            float *to = parts + (m * PARTS + warp) * PART;
            if constexpr (NT == 0) {
                if (t == 0) to[g] = acc[m][0][0], to[g + 8] = acc[m][0][2];
            } else {
#pragma unroll
                for (int n = 0; n < C; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) to[(n * 4 + i) * 32 + lane] = acc[m][n][i];
            }
        }
        if constexpr (GROUPS > 1) kg_barrier(1 + group, 32 * PARTS);
        else __syncthreads();
        for (uint32_t e = threadIdx.x % (32 * PARTS); e < PART; e += 32 * PARTS) {
            const uint32_t i = e >> 5 & 3, row = tile * 16 + (NT ? (e >> 2 & 7) + (i >> 1) * 8 : e);
            const uint32_t seq = NT ? seq0 + (e >> 7) * 8 + 2 * (e & 3) + (i & 1) : 0;
            if (tile >= tile1 || row >= rows || (NT && seq >= st.n_seq)) continue;
            float y[2] = {0.f, 0.f};
#pragma unroll
            for (int m = 0; m < NM; m++)
#pragma unroll
                for (int p = 0; p < PARTS; p++) y[m] = __fadd_rn(y[m], parts[(m * PARTS + p) * PART + e]);
            float *out = (st.state ? st.state[seq].logits : st.out[seg] + (NT ? (size_t)seq * st.out_stride : 0)) + row;
            const float *bias = st.bias[seg] ? st.bias[seg] + row : nullptr;
            out[0] = kg_f16_mma_result(st, y[0], y[1], bias ? bias[0] : 0.f);
            if (TWO && tile + 1 < tile1 && row + 16 < rows) out[16] = kg_f16_mma_result(st, y[1], 0.f, bias ? bias[16] : 0.f);
        }
        // The other set of parts is free: whoever read it has passed the barrier.
        if constexpr (kg_f16_mma_sets(MODE, NT) == 1) kg_barrier(1 + group, 32 * PARTS);
        else parts = parts < red + 128 + GROUPS * SET ? parts + GROUPS * SET : parts - GROUPS * SET;
    }
}

template <bool PAIR, int UN, int PARTS> __global__ void __launch_bounds__(32 * PARTS, PARTS == 16 ? 1 : 2)
    kg_f16_mma_kernel(const __grid_constant__ KgStage st) {
    KG_DYNAMIC_SHARED(float, red);
    kg_f16_mma_run<PAIR ? KG_PAIR : KG_ONE, UN, 0, PARTS>(st, red);
}

// The sequences' tiles next to one another, so that they share what the cache holds of the rows.
template <int MODE, int NT, int PARTS> __global__ void __launch_bounds__(32 * PARTS * kg_f16_mma_groups(NT, PARTS), NT == 1 && PARTS == 8 ? 2 : 1)
    kg_f16_mma_batch_kernel(const __grid_constant__ KgStage st) {
    KG_DYNAMIC_SHARED(float, red);
    kg_f16_mma_run<MODE, MODE == KG_ONE ? 4 : 2, NT, PARTS>(st, red);
}

// Parts apart: block (., y, p) leaves part p of the rows of as many tiles as it has warps, and of NT * 8 sequences, in out[0],
// [st.ks, n_seq, out_stride], for kg_batch_norm to sum.
template <int NT> __global__ void __launch_bounds__(512, 1) kg_f16_mma_split_kernel(const __grid_constant__ KgStage st) {
    KG_DYNAMIC_SHARED(uint4, x);
    constexpr int UN = NT == 1 ? 8 : 4;
    const uint32_t warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, part = blockIdx.z;
    const uint32_t blocks = (st.n + 31) / 32, first = part * blocks / st.ks, last = (part + 1) * blocks / st.ks;
    const uint32_t rows = st.m[0].rows, tile = blockIdx.y * (blockDim.x / 32) + warp, seq0 = blockIdx.x * NT * 8;
    const bool mine = tile * 16 < rows;
    const uint4 *from = (const uint4 *)st.m[0].a + (size_t)tile * blocks * 64 + lane;
    KgF16Unit f[UN] = {};
#pragma unroll
    for (int u = 0; u < UN; u++)
        if (mine && first + u < last) f[u].load(from, first + u);
    kg_launch_dependents();
    if (mine && blockIdx.x == 0) // the rest comes into L2 meanwhile
        for (uint32_t line = lane; line < (last - min(last, first + UN)) * 8; line += 32) kg_prefetch((const char *)(from - lane) + (size_t)(first + UN) * 1024 + line * 128);
    kg_wait();
    float *const scales = (float *)(x + (last - first) * 64 * NT);
    kg_f16_mma_inputs<NT>(st, x, scales, seq0, first, last);
    if (!mine) return;
    float acc[NT][4] = {};
    for (uint32_t b0 = first; b0 < last; b0 += UN) {
#pragma unroll
        for (int u = 0; u < UN; u++) {
            const uint32_t b = b0 + u;
            if (b < last) kg_f16_mma_add<NT>(acc, f[u], x + (b - first) * (64 * NT), scales + (b - first) * (8 * NT));
            if (b + UN < last) f[u].load(from, b + UN);
        }
    }
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t row = tile * 16 + g + (i / 2) * 8, seq = seq0 + n * 8 + 2 * t + i % 2;
            if (row < rows && seq < st.n_seq) st.out[0][((size_t)part * st.n_seq + seq) * st.out_stride + row] = acc[n][i];
        }
}
