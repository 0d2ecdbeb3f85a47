// Tiles of 16 quantized rows times 8 columns on the tensor cores, with the sums of gemv.cuh, their order and so their bits.
//
// There lane l of a row's warp sums the blocks of 32 whose index is l + 32 i, i ascending, and lanes are summed by a butterfly. The products of
// a block are integers and exact, so that here two mma (of the input's high and low bytes) give them for 16 rows and 8 columns at once, and
// the sums go on as there: warp w of eight has the lanes w, w + 8, w + 16 and w + 24 of two tiles, and what they get meets in shared memory
// (kg_q_meet, kg_q_met).
// Weights come as they lie (abi.h), SLICE blocks of each of 32 rows a slice, through a ring of slots; the input lies in fragments
// (stage_input.cuh). Preconditions: n a multiple of the type's block; KG_Q_THREADS threads.
#pragma once
#include "device/packed.cuh"
#include "device/ptx.cuh"
#include "matmul/stage_input.cuh"

constexpr uint32_t KG_Q_THREADS = 256, KG_Q_ROWS = 32, KG_Q_WARPS = KG_Q_THREADS / 32;

// A slice of 32 rows in shared memory: bytes from row to row of each plane, none of them a multiple of what eight rows would collide in.
template <int T, uint32_t SLICE> struct KgQSlot {
    static constexpr bool WIDE_S = kg_s_bytes(T) == 4, HALF_D = kg_d_bytes(T) == 2, HAS_D = kg_d_bytes(T) != 0;
    static constexpr uint32_t A = kg_has_a(T) ? SLICE * 16 + 16 : 0, B = T == KG_Q8_0 ? SLICE * 16 + 16 : kg_has_b8(T) ? SLICE * 8 + 8 : 0;
    static constexpr uint32_t C = kg_has_c(T) ? SLICE * 4 + 4 : 0, S = WIDE_S ? SLICE * 4 + 4 : kg_s_bytes(T) ? SLICE * 2 + 4 : 0;
    static constexpr uint32_t D = HAS_D ? SLICE / 2 + 4 : 0;
    static constexpr uint32_t AT_B = KG_Q_ROWS * A, AT_C = AT_B + KG_Q_ROWS * B, AT_S = AT_C + KG_Q_ROWS * C, AT_D = AT_S + KG_Q_ROWS * S;
    static constexpr uint32_t BYTES = AT_D + KG_Q_ROWS * D; // a multiple of 128, as each row count is
};
// Bytes of the input of `blocks` blocks and 8 columns, and of what the warps have got of two tiles.
__host__ __device__ constexpr uint32_t kg_q_input(uint32_t blocks) { return blocks * KG_INPUT_Q_WORDS * 16; }
constexpr uint32_t KG_Q_ROOM = KG_Q_WARPS * KG_Q_ROWS * 8 * 4;

// Four bytes of a block: elements 4 t .. of its first and of its second half, before the offset, of word t of plane a, of Q8_0 that of plane b,
// and of the block's words of the other planes.
template <int T> __device__ __forceinline__ uint2 kg_q_words(uint32_t a, uint32_t second, const KgCodes &w, uint32_t t) {
    if constexpr (T == KG_Q8_0) {
        return make_uint2(a, second);
    } else if constexpr (kg_is_table(T)) {
        return make_uint2(kg_levels<T>(a), kg_levels<T>(a >> 16));
    } else if constexpr (kg_is_grid(T)) {
        return make_uint2(kg_grid_levels<T>(w, t), kg_grid_levels<T>(w, t + 4));
    } else {
        constexpr int above = kg_has_nibbles(T) ? 4 : 0;
        uint2 v = make_uint2(0, 0);
        if constexpr (kg_has_nibbles(T)) v = make_uint2(a & 0x0f0f0f0fu, a >> 4 & 0x0f0f0f0fu);
        if constexpr (kg_has_twos(T)) v.x |= (w.b0 >> 2 * t & 0x03030303u) << above, v.y |= (w.b1 >> 2 * t & 0x03030303u) << above;
        if constexpr (kg_has_bits(T)) {
            constexpr int to = kg_bit_place(T);
            v.x |= (w.c >> t & 0x01010101u) << to, v.y |= (w.c >> (t + 4) & 0x01010101u) << to;
        }
        return v;
    }
}

// Where a lane reads of a slot, in bytes: elements of row g of the first tile and of block `warp`; rows 8, 16 and 24 later and blocks too are as far
// away in every slot, which costs no instruction. Of the four lanes that have a row each takes the scales of one of the warp's blocks.
template <int T, uint32_t SLICE> struct KgQPlaces {
    using Slot = KgQSlot<T, SLICE>;
    static constexpr uint32_t OF_WARP = SLICE / KG_Q_WARPS; // blocks
    uint32_t a = 0, b = 0, c = 0, s = 0, d = 0;
    // odd_s, odd_d: whether the row begins in the middle of a word of s, of d.
    __device__ __forceinline__ KgQPlaces(uint32_t odd_s, uint32_t odd_d) {
        const uint32_t row = threadIdx.x % 32 / 4, t = threadIdx.x % 4, warp = threadIdx.x / 32, block = warp + 8 * (t % OF_WARP);
        a = row * Slot::A + warp * 16 + 4 * t;
        b = Slot::AT_B + row * Slot::B + (T == KG_Q8_0 ? warp * 16 + 4 * t : warp * 8);
        c = Slot::AT_C + row * Slot::C + warp * 4;
        s = Slot::AT_S + row * Slot::S + (Slot::WIDE_S ? block * 4 : (odd_s + block) * 2);
        d = Slot::AT_D + row * Slot::D + (Slot::HALF_D ? (odd_d + block / kg_d_blocks(T)) * 2 : block / 8 * 4);
    }
    template <typename V> static __device__ __forceinline__ V at(const char *slot, uint32_t place) { return *(const V *)(slot + place); }
    __device__ __forceinline__ uint32_t word_a(const char *slot, uint32_t h, uint32_t i) const {
        return at<uint32_t>(slot, a + h * 8 * Slot::A + i * 128);
    }
    __device__ __forceinline__ uint2 words_b(const char *slot, uint32_t h, uint32_t i) const { return at<uint2>(slot, b + h * 8 * Slot::B + i * 64); }
    __device__ __forceinline__ uint32_t word_c(const char *slot, uint32_t h, uint32_t i) const {
        return at<uint32_t>(slot, c + h * 8 * Slot::C + i * 32);
    }
    __device__ __forceinline__ uint32_t word_s(const char *slot, uint32_t place) const {
        return Slot::WIDE_S ? at<uint32_t>(slot, place) : at<uint16_t>(slot, place);
    }

    // Four bytes of a block: elements 4 t .. of its first and of its second half, before the offset.
    __device__ __forceinline__ uint2 words(const char *slot, uint32_t h, uint32_t i) const {
        const uint32_t t = threadIdx.x % 4;
        uint32_t wa = 0, second = 0;
        KgCodes w = {0, 0, 0, 0};
        if constexpr (kg_has_a(T)) wa = word_a(slot, h, i);
        if constexpr (T == KG_Q8_0) second = at<uint32_t>(slot, b + h * 8 * Slot::B + i * 128);
        if constexpr (kg_has_b8(T)) {
            const uint2 two = words_b(slot, h, i);
            w.b0 = two.x, w.b1 = two.y;
        }
        if constexpr (Slot::C != 0) w.c = word_c(slot, h, i);
        if constexpr (kg_is_grid(T) && Slot::S != 0) w.s = word_s(slot, s + h * 8 * Slot::S + (i - t % OF_WARP) * (Slot::WIDE_S ? 32 : 16));
        return kg_q_words<T>(wa, second, w, t);
    }
    // The scales of the lane's block of row g + 8 h; scale: of the matrix.
    __device__ __forceinline__ KgScales scales(const char *slot, uint32_t h, float scale) const {
        const uint32_t t = threadIdx.x % 4 % OF_WARP;
        Unit<T> u;
        u.s = 0, u.d = __float_as_uint(scale);
        if constexpr (Slot::S != 0) u.s = word_s(slot, s + h * 8 * Slot::S);
        // Scales that stand with the signs.
        if constexpr (T == KG_IQ2_XXS) u.b.y = words_b(slot, h, t).y;
        if constexpr (T == KG_IQ3_XXS) u.c = word_c(slot, h, t);
        if constexpr (Slot::HAS_D) u.d = Slot::HALF_D ? at<uint16_t>(slot, d + h * 8 * Slot::D) : at<uint32_t>(slot, d + h * 8 * Slot::D);
        return u.scales();
    }
};
// The scales of block i, which the i-th lane of four has.
template <int T> __device__ __forceinline__ KgScales kg_q_scales(const KgScales &own, uint32_t i) {
    KgScales of = {__shfl_sync(0xffffffffu, own.g0, i, 4), 0.f, 0.f, 0.f};
    if constexpr (kg_has_least(T)) of.m0 = __shfl_sync(0xffffffffu, own.m0, i, 4);
    if constexpr (kg_has_half_scales(T)) of.g1 = __shfl_sync(0xffffffffu, own.g1, i, 4);
    if constexpr (kg_has_least(T) && kg_has_half_scales(T)) of.m1 = __shfl_sync(0xffffffffu, own.m1, i, 4);
    return of;
}

// The weights' way to shared memory: every thread has its share of each slice, of rows that lie side by side in a matrix, 16 of each of two
// tiles. Rows: mat(tile) says of which matrix a tile is, row(k) which row is the k-th of 32; beyond the last one it is any other; two():
// whether there is a second tile.
template <int T, uint32_t SLICE> struct KgQLoader {
    using Slot = KgQSlot<T, SLICE>;
    static constexpr uint32_t AT_ONCE = KG_Q_THREADS / SLICE, PASSES = KG_Q_ROWS / AT_ONCE, S_WORDS = SLICE / 2, D_WORDS = SLICE / 8;
    static constexpr bool HALF_S = kg_s_bytes(T) == 2;
    static_assert(KG_Q_THREADS / S_WORDS == 16 && 16 % AT_ONCE == 0, "words of s come in a pass a tile");
    const uint32_t blocks;
    uint32_t unit[PASSES]; // the next block that is copied, of rows tid / SLICE + k AT_ONCE
    const char *s[2], *d;  // the next word of row tid / S_WORDS of each tile, of row tid / D_WORDS
    uint32_t there;        // rows

    __device__ __forceinline__ KgQLoader(uint32_t blocks) : blocks(blocks) {}
    // Once the rows are others.
    template <typename Rows> __device__ __forceinline__ void aim(const Rows &rows) {
        const uint32_t tid = threadIdx.x;
#pragma unroll
        for (uint32_t k = 0; k < PASSES; k++) unit[k] = rows.row(k * AT_ONCE + tid / SLICE) * blocks + tid % SLICE;
        there = rows.two() ? KG_Q_ROWS : KG_Q_ROWS / 2;
        // Words of two bytes a block: the first and the last may be half another row's.
        if constexpr (HALF_S) {
#pragma unroll
            for (uint32_t k = 0; k < 2; k++)
                s[k] = (const char *)rows.mat(k).s + (((size_t)rows.row(k * 16 + tid / S_WORDS) * blocks * 2 & ~(size_t)3) + 4 * (tid % S_WORDS));
        }
        if constexpr (Slot::HAS_D) {
            constexpr uint32_t each = kg_d_blocks(T), bytes = Slot::HALF_D ? 2 : 4;
            const uint32_t row = tid / D_WORDS % KG_Q_ROWS;
            d = (const char *)rows.mat(row / 16).d + (((size_t)rows.row(row) * (blocks / each) * bytes & ~(size_t)3) + 4 * (tid % D_WORDS));
        }
    }
    // The rows are `step` rows on in the same matrices, of which all blocks have been copied, `copied` with what was left out.
    __device__ __forceinline__ void move(uint32_t step, uint32_t copied) {
        const int by = (int)(step * blocks - copied);
#pragma unroll
        for (uint32_t k = 0; k < PASSES; k++) unit[k] += (uint32_t)by;
        if constexpr (HALF_S) s[0] += by * 2, s[1] += by * 2;
        if constexpr (Slot::HAS_D) d += by / (int)kg_d_blocks(T) * (Slot::HALF_D ? 2 : 4);
    }
    // n blocks, which are all that are left or a slice; rows as they were for aim().
    template <typename Rows> __device__ __forceinline__ void copy_async(const char *slot, uint32_t n, const Rows &rows) {
        const uint32_t tid = threadIdx.x, j = tid % SLICE, to = kg_shared_at(slot);
#pragma unroll
        for (uint32_t k = 0; k < PASSES; k++) {
            const uint32_t row = k * AT_ONCE + tid / SLICE, u = unit[k];
            const KgMat &m = rows.mat(k * AT_ONCE / 16);
            unit[k] += SLICE;
            if (j >= n || (k * AT_ONCE >= 16 && there == KG_Q_ROWS / 2)) continue;
            if constexpr (Slot::A != 0) kg_copy16(to + row * Slot::A + j * 16, (const char *)m.a + (size_t)u * 16, true);
            if constexpr (T == KG_Q8_0) kg_copy16(to + Slot::AT_B + row * Slot::B + j * 16, (const char *)m.b + (size_t)u * 16, true);
            if constexpr (kg_has_b8(T)) kg_copy8(to + Slot::AT_B + row * Slot::B + j * 8, (const char *)m.b + (size_t)u * 8);
            if constexpr (Slot::C != 0) kg_copy4(to + Slot::AT_C + row * Slot::C + j * 4, (const char *)m.c + (size_t)u * 4);
            if constexpr (Slot::WIDE_S) kg_copy4(to + Slot::AT_S + row * Slot::S + j * 4, (const char *)m.s + (size_t)u * 4);
        }
        if constexpr (HALF_S) {
            const uint32_t word = tid % S_WORDS;
#pragma unroll
            for (uint32_t k = 0; k < 2; k++) {
                const uint32_t row = k * 16 + tid / S_WORDS, at = to + Slot::AT_S + row * Slot::S + word * 4;
                const uint32_t all = blocks & 1 ? (n + (rows.row(row) & 1) + 1) / 2 : n / 2;
                if (!k || there == KG_Q_ROWS) {
                    if (word < all) kg_copy4(at, s[k]);
                    if (blocks & 1 && word == S_WORDS - 1 && all > S_WORDS) kg_copy4(at + 4, s[k] + 4);
                }
                s[k] += SLICE * 2;
            }
        }
        if constexpr (Slot::HAS_D) {
            constexpr uint32_t each = kg_d_blocks(T), words = Slot::HALF_D ? SLICE / each / 2 : SLICE / each; // an odd row has one more
            const uint32_t row = tid / D_WORDS, word = tid % D_WORDS, some = (n + each - 1) / each, at = to + Slot::AT_D + row * Slot::D + word * 4;
            const bool odd = Slot::HALF_D && rows.row(row % KG_Q_ROWS) & blocks / each & 1;
            const uint32_t all = Slot::HALF_D ? (some + odd + 1) / 2 : some;
            if (row < there && word < min(all, words)) kg_copy4(at, d);
            if (Slot::HALF_D && row < there && word == words - 1 && all > words) kg_copy4(at + 4, d + 4);
            d += Slot::HALF_D ? SLICE / each * 2 : SLICE / each * 4;
        }
    }
};

// Until the copies of all slices but the last `depth` - 2 are there.
__device__ __forceinline__ void kg_q_copy_wait(uint32_t depth) {
    switch (depth) {
    case 2: return kg_copy_wait<0>();
    case 3: return kg_copy_wait<1>();
    case 4: return kg_copy_wait<2>();
    case 5: return kg_copy_wait<3>();
    default: return kg_copy_wait<4>();
    }
}

// 256 hi + lo; unsigned, since columns of nothing may have anything.
__device__ __forceinline__ int kg_q_product(int hi, int lo) { return (int)((uint32_t)hi * 256u + (uint32_t)lo); }

// A warp's block of a tile of rows: four bytes of rows g and g + 8, of its first and its second half, before the offset, and scales.
template <int T> struct KgQBlock {
    uint2 w[2];
    KgScales scales[2];
    // Of tile r, the block 8 i later than the warp's first; own: of rows g and g + 8 of both tiles. All lanes of a warp.
    template <uint32_t SLICE>
    __device__ __forceinline__ KgQBlock(const KgQPlaces<T, SLICE> &places, const char *slot, uint32_t r, uint32_t i, const KgScales (&own)[4]) {
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) w[h] = places.words(slot, 2 * r + h, i), scales[h] = kg_q_scales<T>(own[2 * r + h], i);
    }
};

// acc[r] += the block of tile r of N times 8 columns. in: the lane's fragment of them; d, sums: of its two columns, sums as kg_q_sums has them, of
// the halves or of all in the first.
template <int T, uint32_t N>
__device__ __forceinline__ void kg_q_multiply(float (*acc)[4], const KgQBlock<T> *blocks, uint4 in, float2 d, const float2 (&sums)[2]) {
    constexpr bool HALVES = kg_has_half_scales(T);
    constexpr int off = kg_offset(T);
    // Products of the halves of the block, or of all of it, the offset's among them. All tiles' first, so that none is waited for.
    int hi[N][2][4] = {}, lo[N][2][4] = {};
#pragma unroll
    for (uint32_t r = 0; r < N; r++) {
        const uint2(&w)[2] = blocks[r].w;
        if constexpr (off != 0) {
#pragma unroll
            for (int k = 0; k < 4; k++) // unsigned: columns of nothing hold what was there
                for (int h = 0; h < (HALVES ? 2 : 1); h++) lo[r][h][k] = (int)((uint32_t)-off * __float_as_uint(k & 1 ? sums[h].y : sums[h].x));
        }
        if constexpr (HALVES) {
            kg_mma_ss16(hi[r][0], w[0].x, w[1].x, in.x), kg_mma_ss16(hi[r][1], w[0].y, w[1].y, in.y);
            kg_mma_su16(lo[r][0], w[0].x, w[1].x, in.z), kg_mma_su16(lo[r][1], w[0].y, w[1].y, in.w);
        } else {
            const uint32_t a[4] = {w[0].x, w[1].x, w[0].y, w[1].y};
            kg_mma_ss32(hi[r][0], a, in.x, in.y), kg_mma_su32(lo[r][0], a, in.z, in.w);
        }
    }
#pragma unroll
    for (uint32_t r = 0; r < N; r++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const KgSums of = {k & 1 ? sums[0].y : sums[0].x, k & 1 ? sums[1].y : sums[1].x};
            const int p0 = kg_q_product(hi[r][0][k], lo[r][0][k]), p1 = HALVES ? kg_q_product(hi[r][1][k], lo[r][1][k]) : 0;
            acc[r][k] = kg_unit_sum<T>(acc[r][k], k & 1 ? d.y : d.x, of, blocks[r].scales[k >> 1], p0, p1);
        }
}

// acc[r] += the block 8 i later than the lane's first of a slice of tile r, times 8 columns. x: where the lane's fragments of the first block lie,
// x_scales: and their scales, sums as kg_q_sums has them; own: of rows g and g + 8 of both tiles. All lanes of a warp.
template <int T, uint32_t SLICE>
__device__ __forceinline__ void kg_q_add(float (&acc)[2][4], const KgQPlaces<T, SLICE> &places, const char *slot, const char *x, const char *x_scales,
                                         uint32_t i, const KgScales (&own)[4]) {
    const uint4 in = *(const uint4 *)(x + 8 * i * 512);
    const char *s = x_scales + 8 * i * 96;
    const float2 d = *(const float2 *)s;
    float2 sums[2] = {};
    if constexpr (kg_offset(T) != 0 || kg_has_least(T)) sums[0] = *(const float2 *)(s + 32);
    if constexpr (kg_has_half_scales(T) && (kg_offset(T) != 0 || kg_has_least(T))) sums[1] = *(const float2 *)(s + 64);
#pragma unroll
    for (uint32_t r = 0; r < 2; r++) {
        const KgQBlock<T> block(places, slot, r, i, own);
        kg_q_multiply<T, 1>(&acc[r], &block, in, d, sums);
    }
}

// The sums of a block's halves as kg_q_add reads them: numbers, and where there is an offset integers.
template <int T> __device__ __forceinline__ float2 kg_q_sums(int s0, int s1) {
    static_assert(kg_offset(T) == 0 || !kg_has_least(T), "sums are multiplied with one of them");
    const KgSums s = kg_sums<T>(s0, s1);
    if constexpr (kg_offset(T) == 0) return make_float2(s.s0, s.s1);
    const uint32_t first = (uint32_t)(kg_has_half_scales(T) ? s0 : s0 + s1);
    return make_float2(__uint_as_float(first), __uint_as_float((uint32_t)s1));
}

// A warp's sums of its four lanes to where those of the others are, and out of acc.
__device__ __forceinline__ void kg_q_meet(float (&acc)[4][2][4], float *room) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int r = i / 4, k = i % 4;
        float *const to = room + threadIdx.x / 32 * 256 + i * 32 + threadIdx.x % 32;
        *to = __fadd_rn(__fadd_rn(acc[0][r][k], acc[2][r][k]), __fadd_rn(acc[1][r][k], acc[3][r][k]));
        acc[0][r][k] = acc[1][r][k] = acc[2][r][k] = acc[3][r][k] = 0.f;
    }
}
// The sum of all warps, in the order of the butterfly: output o of tile r, of row o % 32 / 4 + 8 (o / 64) and column o % 4 * 2 + o / 32 % 2.
__device__ __forceinline__ float kg_q_met(const float *room, uint32_t r, uint32_t o) {
    float v[KG_Q_WARPS];
#pragma unroll
    for (uint32_t w = 0; w < KG_Q_WARPS; w++) v[w] = room[(w * 2 + r) * 128 + o];
    return __fadd_rn(__fadd_rn(__fadd_rn(v[0], v[4]), __fadd_rn(v[2], v[6])), __fadd_rn(__fadd_rn(v[1], v[5]), __fadd_rn(v[3], v[7])));
}
