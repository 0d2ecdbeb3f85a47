// The stages of F16 matrices on tensor cores: matvec.cuh's stage, tiles of 16 rows, for one sequence or up to 64.
//
// x is cut into blocks of 32 along a row: x = s (hi + lo), s a power of two, hi and lo f16, |lo| <= 2^-11: 22 bits of a block's
// largest element, whatever its size. Products of two f16 are exact. Per row and sequence
//   d_b   = sum of W hi over block b, then W lo on top, by four mma of 16 columns
//   part  = fma over the blocks of an eighth of the row, ascending, of s_b d_b
//   total = the eight parts, ascending
// which is all that the bits depend on: a sequence has the same ones alone and in company, whatever the tile's width.
// Within a block of 32, lane l of a warp holds elements 8 (l % 4) .. + 7 of rows l / 4 and l / 4 + 8: 16 bytes of each, as they lie in
// memory. Both operands are permuted alike, so the sums are over the same pairs.
// Bytes moved: the weights once for up to 32 sequences; x once a block from L2.
// Preconditions: as in matvec.cuh; 256 threads; rows of `stride` halves, 16-byte aligned.
#pragma once
#include "matvec.cuh"

constexpr int KG_TILE_PARTS = 8; // of a row; warps of a token alone

// Floats before the input: reductions of the norm, then two sets of parts.
template <bool PAIR> __host__ __device__ constexpr uint32_t kg_tile_red() { return 128 + 2 * (PAIR ? 2 : 1) * KG_TILE_PARTS * 16; }
// Bytes of shared memory for a token alone: with each block of 32 come 128 bytes of halves and its scale.
static inline size_t kg_tile_smem(uint32_t n, bool norm, bool pair) {
    const size_t padded = (n + 31) / 32 * 32;
    return ((pair ? kg_tile_red<true>() : kg_tile_red<false>()) + padded / 32 * 33) * 4 + 16 + (norm ? padded * 4 : 0);
}
// Of a block of a batch of `nt` tiles of 8 sequences: two buffers of 32 KiB with their scales, and the parts that are not the first ones.
static inline size_t kg_tile_batch_smem(uint32_t nt, bool pair) { return 2 * (32768 + 1024) + (size_t)(8 - nt) * nt * 512 * nt * (pair ? 2 : 1); }

__device__ __forceinline__ uint32_t kg_two_halves(float a, float b) {
    const __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t *>(&h);
}
// Four elements of a block of 32, whose others are in the neighbouring seven lanes, as hi and lo; the block's scale. Whole warps.
__device__ __forceinline__ float kg_tile_split(float4 v, uint2 &hi, uint2 &lo) {
    float m = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 4));
    // 2^e <= m < 2^(e + 1), and both 2^e and 2^-e are normal.
    const uint32_t e = min(max(__float_as_uint(m) >> 23, 1u), 253u);
    const float inv = __uint_as_float((254 - e) << 23);
    v.x *= inv, v.y *= inv, v.z *= inv, v.w *= inv;
    hi = make_uint2(kg_two_halves(v.x, v.y), kg_two_halves(v.z, v.w));
    const float2 a = __half22float2(*reinterpret_cast<const __half2 *>(&hi.x)), b = __half22float2(*reinterpret_cast<const __half2 *>(&hi.y));
    lo = make_uint2(kg_two_halves(v.x - a.x, v.y - a.y), kg_two_halves(v.z - b.x, v.w - b.y));
    return __uint_as_float(e << 23);
}

// 16 bytes of rows r and r + 8 of a tile.
struct KgTileUnit {
    uint4 a, b;
};
// What is read of a matrix: the units of a lane's two rows.
struct KgTileRows {
    const uint4 *from;
    uint32_t a, b;
    __device__ __forceinline__ void aim(const KgMat &m, uint32_t row, uint32_t per_row) {
        from = (const uint4 *)m.a;
        a = min(row, m.rows - 1) * per_row, b = min(row + 8, m.rows - 1) * per_row;
    }
    __device__ __forceinline__ void load(KgTileUnit &u, uint32_t unit) const {
        u.a = kg_stream16(from + (size_t)a + unit);
        u.b = kg_stream16(from + (size_t)b + unit);
    }
};

// d = W x over a block of 32.
__device__ __forceinline__ void kg_tile_dot(float (&d)[4], const KgTileUnit &w, uint4 hi, uint4 lo) {
    const uint32_t first[4] = {w.a.x, w.b.x, w.a.y, w.b.y}, second[4] = {w.a.z, w.b.z, w.a.w, w.b.w};
    d[0] = d[1] = d[2] = d[3] = 0.f;
    kg_mma(d, first, hi.x, hi.y);
    kg_mma(d, second, hi.z, hi.w);
    kg_mma(d, first, lo.x, lo.y);
    kg_mma(d, second, lo.z, lo.w);
}

// What becomes of a row's sum, and of those of gate and up.
__device__ __forceinline__ float kg_tile_result(const KgStage &st, float y, float up, float bias) {
    y = st.activation ? __fmul_rn(kg_activation(st.activation, y), up) : __fadd_rn(y, bias);
    return st.softcap != 0.f ? st.softcap * tanhf(y / st.softcap) : y;
}

// A token alone: a tile at a time, an eighth of its columns a warp. UN: blocks of 32 in flight a lane.
template <bool PAIR, int UN> __global__ void __launch_bounds__(256, UN * (PAIR ? 2 : 1) <= 4 ? 3 : 2) kg_tile_kernel(const __grid_constant__ KgStage st) {
    KG_DYNAMIC_SHARED(float, red);
    constexpr int NM = PAIR ? 2 : 1, NV = 2;
    uint32_t seg = 0;
    while (seg + 1 < st.n_seg && blockIdx.x >= st.seg_block[seg + 1]) seg++;
    const uint32_t warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const uint32_t blocks = (st.n + 31) / 32, first = warp * blocks / KG_TILE_PARTS, last = (warp + 1) * blocks / KG_TILE_PARTS;
    const uint32_t steps = (last - first + UN - 1) / UN, per_row = st.m[seg].stride / 8, rows = st.m[seg].rows;
    const uint32_t n_blocks = st.seg_block[seg + 1] - st.seg_block[seg], block = blockIdx.x - st.seg_block[seg], tiles = (rows + 15) / 16;
    const uint32_t tile0 = (uint32_t)((uint64_t)tiles * block / n_blocks), tile1 = (uint32_t)((uint64_t)tiles * (block + 1) / n_blocks);

    if (threadIdx.x < 16 && threadIdx.x >= 8) red[threadIdx.x] = red[64 + threadIdx.x] = 0.f;
    KgTileUnit f[NM][UN] = {};
    KgTileRows from[NM];
    uint32_t tile_at = tile0, block_at = first;
    auto aim = [&] {
        from[0].aim(st.m[seg], tile_at * 16 + g, per_row);
        if constexpr (PAIR) from[1].aim(st.m[1], tile_at * 16 + g, per_row);
    };
    auto fetch = [&](int u) {
        if (tile_at >= tile1 || block_at + u >= last) return;
        const uint32_t unit = min((block_at + u) * 4 + t, per_row - 1); // beyond the row x is zero
#pragma unroll
        for (int m = 0; m < NM; m++) from[m].load(f[m][u], unit);
    };
    aim();
#pragma unroll
    for (int u = 0; u < UN; u++) fetch(u);

    kg_launch_dependents();
    float4 held[NV];
    kg_stage_hold(st, held);
    kg_wait();
    uint2 *const xh = (uint2 *)(red + kg_tile_red<PAIR>()); // [blocks][4 lanes][hi 16, lo 16 bytes]
    float *const xs = (float *)(xh + blocks * 16);          // [blocks]
    float4 *const vb = (float4 *)(((uintptr_t)(xs + blocks) + 15) / 16 * 16);
    const uint32_t n4 = blocks * 8;
    auto put = [&](float4 v, uint32_t i) {
        if (st.tap && blockIdx.x == 0 && i < n4) ((float4 *)st.tap)[i] = v;
        uint2 hi, lo;
        const float s = kg_tile_split(v, hi, lo);
        if (i >= n4) return;
        uint2 *to = xh + (i >> 3) * 16 + (i >> 1 & 3) * 4 + (i & 1);
        to[0] = hi, to[2] = lo;
        if ((i & 7) == 0) xs[i >> 3] = s;
    };
    if (st.norm_w) {
        kg_stage_norm<false>(st, st.x, st.delta, blockIdx.x == 0 ? st.x_out : nullptr, red, vb, held, put);
    } else {
        const float4 *x4 = (const float4 *)st.x;
        for (uint32_t i0 = threadIdx.x & ~31u; i0 < n4; i0 += 2 * NV * 256) {
            float4 v[2 * NV];
#pragma unroll
            for (int k = 0; k < 2 * NV; k++) {
                const uint32_t i = i0 + k * 256 + lane;
                v[k] = i < n4 ? x4[i] : make_float4(0.f, 0.f, 0.f, 0.f);
            }
#pragma unroll
            for (int k = 0; k < 2 * NV; k++)
                if (i0 + k * 256 < n4) put(v[k], i0 + k * 256 + lane);
        }
    }
    __syncthreads();

    const uint4 *const x = (const uint4 *)xh;
    float *parts = red + 128;
    for (uint32_t tile = tile0; tile < tile1; tile++) {
        float acc[NM][2] = {};
        for (uint32_t k = 0; k < steps; k++) {
            // The next load: the following step, or the first of the next tile.
            block_at += UN;
            if (k + 1 == steps) {
                block_at = first, tile_at++;
                aim();
            }
#pragma unroll
            for (int u = 0; u < UN; u++) {
                const uint32_t b = first + k * UN + u;
                if (b < last) {
                    uint4 hi = make_uint4(0, 0, 0, 0), lo = hi;
                    if (g == 0) hi = x[b * 8 + t * 2], lo = x[b * 8 + t * 2 + 1];
                    const float s = xs[b];
#pragma unroll
                    for (int m = 0; m < NM; m++) {
                        float d[4];
                        kg_tile_dot(d, f[m][u], hi, lo);
                        acc[m][0] = __fmaf_rn(s, d[0], acc[m][0]), acc[m][1] = __fmaf_rn(s, d[2], acc[m][1]);
                    }
                }
                fetch(u);
            }
        }
        // Column 0 of the tile is the token's.
        if (t == 0) {
#pragma unroll
            for (int m = 0; m < NM; m++) {
                float *to = parts + (m * KG_TILE_PARTS + warp) * 16 + g;
                to[0] = acc[m][0], to[8] = acc[m][1];
            }
        }
        __syncthreads();
        const uint32_t row = tile * 16 + threadIdx.x;
        if (threadIdx.x < 16 && row < rows) {
            const float bias = st.bias[seg] ? st.bias[seg][row] : 0.f;
            float y[2] = {0.f, 0.f};
#pragma unroll
            for (int m = 0; m < NM; m++)
#pragma unroll
                for (int i = 0; i < KG_TILE_PARTS; i++) y[m] = __fadd_rn(y[m], parts[(m * KG_TILE_PARTS + i) * 16 + threadIdx.x]);
            (st.state ? st.state->logits : st.out[seg])[row] = kg_tile_result(st, y[0], y[1], bias);
        }
        // The other set of parts is free: whoever read it has passed the barrier.
        parts = parts == red + 128 ? red + 128 + NM * KG_TILE_PARTS * 16 : red + 128;
    }
}

// Several sequences: NT tiles of 8 of them and NT tiles of rows a block; 8 / NT warps share a tile of rows, each with NT parts of it.
template <bool PAIR, int NT> __global__ void __launch_bounds__(256, NT == 1 || (NT == 2 && !PAIR) ? 2 : 1) kg_tile_batch_kernel(const __grid_constant__ KgStage st) {
    KG_DYNAMIC_SHARED(uint4, shared);
    constexpr int NM = PAIR ? 2 : 1, WK = 8 / NT, PARTS = KG_TILE_PARTS;
    constexpr int UN = 4; // blocks of 32 of each warp's part in a buffer
    uint32_t seg = 0;
    while (seg + 1 < st.n_seg && blockIdx.y >= st.seg_block[seg + 1]) seg++;
    const uint32_t warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const uint32_t kw = warp % WK, tile = (blockIdx.y - st.seg_block[seg]) * NT + warp / WK, seq0 = blockIdx.x * NT * 8;
    const uint32_t blocks = (st.n + 31) / 32, per_row = st.m[seg].stride / 8, rows = st.m[seg].rows;
    auto start = [&](uint32_t part) { return part * blocks / PARTS; };
    const uint32_t first = start(kw * NT), last = start(kw * NT + NT), steps = ((blocks * NT + PARTS - 1) / PARTS + UN - 1) / UN;

    KgTileUnit f[NM][UN] = {};
    KgTileRows from[NM];
    from[0].aim(st.m[seg], tile * 16 + g, per_row);
    if constexpr (PAIR) from[1].aim(st.m[1], tile * 16 + g, per_row);
    auto fetch = [&](uint32_t b, int u) {
        if (b >= last) return;
        const uint32_t unit = min(b * 4 + t, per_row - 1);
#pragma unroll
        for (int m = 0; m < NM; m++) from[m].load(f[m][u], unit);
    };
#pragma unroll
    for (int u = 0; u < UN; u++) fetch(first + u, u);
    kg_launch_dependents();
    kg_wait();

    // A buffer: [WK UN blocks][NT][hi, lo][32 lanes] of 16 bytes, then the scales [WK UN][8 NT]. Eight lanes bring a block of a sequence.
    constexpr uint32_t BUFFER = (32768 + 1024) / 16;
    float *const red = (float *)(shared + 2 * BUFFER); // [parts beyond the first NT][tile][NM][4 NT][lane]
    float4 next[8];
    const uint32_t j = threadIdx.x & 7;
    auto bring = [&](uint32_t step) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint32_t id = threadIdx.x / 8 + i * 32, seq = seq0 + id % (8 * NT), at = id / (8 * NT), w = at / UN;
            const uint32_t b = start(w * NT) + step * UN + at % UN;
            next[i] = make_float4(0.f, 0.f, 0.f, 0.f);
            if (seq < st.n_seq && b < start(w * NT + NT)) next[i] = ((const float4 *)(st.x + (size_t)seq * st.x_stride))[b * 8 + j];
        }
    };
    auto keep = [&](uint32_t step) {
        uint4 *const to = shared + (step & 1) * BUFFER;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint32_t id = threadIdx.x / 8 + i * 32, seq = id % (8 * NT), at = id / (8 * NT);
            uint2 hi, lo;
            const float s = kg_tile_split(next[i], hi, lo);
            uint2 *half = (uint2 *)(to + (at * NT + seq / 8) * 64 + (seq % 8) * 4 + j / 2) + (j & 1);
            half[0] = hi, half[64] = lo;
            if (j == 0) ((float *)(to + 2048))[id] = s;
        }
    };
    bring(0);
    keep(0);
    __syncthreads();

    float acc[NM][NT][4] = {}, total[NM][NT][4] = {};
    uint32_t part = kw * NT;
    // Parts that end before block b; those of no columns are zero.
    auto close = [&](uint32_t b) {
        while (part < kw * NT + NT && start(part + 1) == b) {
            float *to = red + ((part - NT) * NT + warp / WK) * (NM * NT * 128) + lane;
#pragma unroll
            for (int m = 0; m < NM; m++)
#pragma unroll
                for (int n = 0; n < NT; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        if (kw == 0) total[m][n][i] = __fadd_rn(total[m][n][i], acc[m][n][i]);
                        else to[((m * NT + n) * 4 + i) * 32] = acc[m][n][i];
                        acc[m][n][i] = 0.f;
                    }
            part++;
        }
    };
    close(first);
    for (uint32_t step = 0; step < steps; step++) {
        if (step + 1 < steps) bring(step + 1);
        const uint4 *const x = shared + (step & 1) * BUFFER + kw * UN * NT * 64;
        const float *const scales = (const float *)(shared + (step & 1) * BUFFER + 2048) + kw * UN * NT * 8;
#pragma unroll
        for (int u = 0; u < UN; u++) {
            const uint32_t b = first + step * UN + u;
            if (b < last) {
#pragma unroll
                for (int n = 0; n < NT; n++) {
                    const uint4 hi = x[(u * NT + n) * 64 + lane], lo = x[(u * NT + n) * 64 + 32 + lane];
                    const float2 s = *(const float2 *)(scales + (u * NT + n) * 8 + 2 * t);
#pragma unroll
                    for (int m = 0; m < NM; m++) {
                        float d[4];
                        kg_tile_dot(d, f[m][u], hi, lo);
                        acc[m][n][0] = __fmaf_rn(s.x, d[0], acc[m][n][0]), acc[m][n][1] = __fmaf_rn(s.y, d[1], acc[m][n][1]);
                        acc[m][n][2] = __fmaf_rn(s.x, d[2], acc[m][n][2]), acc[m][n][3] = __fmaf_rn(s.y, d[3], acc[m][n][3]);
                    }
                }
                close(b + 1);
            }
            fetch(b + UN, u);
        }
        if (step + 1 < steps) keep(step + 1);
        __syncthreads();
    }
    if (kw != 0) return;
    for (int p = 0; p < PARTS - NT; p++) {
        const float *of = red + (p * NT + warp / WK) * (NM * NT * 128) + lane;
#pragma unroll
        for (int m = 0; m < NM; m++)
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) total[m][n][i] = __fadd_rn(total[m][n][i], of[((m * NT + n) * 4 + i) * 32]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t row = tile * 16 + g + (i / 2) * 8;
        if (row >= rows) continue;
        const float bias = st.bias[seg] ? st.bias[seg][row] : 0.f;
#pragma unroll
        for (int n = 0; n < NT; n++) {
            const uint32_t seq = seq0 + n * 8 + 2 * t + i % 2;
            if (seq >= st.n_seq) continue;
            float *out = st.state ? st.state[seq].logits : st.out[seg] + (size_t)seq * st.out_stride;
            out[row] = kg_tile_result(st, total[0][n][i], PAIR ? total[NM - 1][n][i] : 0.f, bias);
        }
    }
}
