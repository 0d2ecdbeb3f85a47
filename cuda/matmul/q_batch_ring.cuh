// The way of a stage's weights and inputs to the tensor cores of q_batch_sm90.cuh: which rows and blocks a block has, and the warps that copy them.
#pragma once
#include "device/packed.cuh"
#include "device/wgmma.cuh"

constexpr uint32_t KG_Q_BATCH_SLICE = 8, KG_Q_BATCH_DEPTH = 8, KG_Q_BATCH_COPIERS = 128;
__host__ __device__ constexpr uint32_t kg_q_batch_warps(int rg) { return 8 * (uint32_t)rg; }
__host__ __device__ constexpr uint32_t kg_q_batch_threads(int rg) { return KG_Q_BATCH_COPIERS + 32 * kg_q_batch_warps(rg); }
// Registers of the threads that copy, and of those that add, of 640 that begin with 96 each.
constexpr int KG_Q_BATCH_FEWER = 64, KG_Q_BATCH_MORE = 104;
// Bytes of a slice of the input, and of what the warps have got of their first two lanes, or of the others.
__host__ __device__ constexpr uint32_t kg_q_batch_input(uint32_t nt) { return KG_Q_BATCH_SLICE * nt * KG_INPUT_Q_WORDS * 16; }
__host__ __device__ constexpr uint32_t kg_q_batch_meet(uint32_t nt, int rg) { return kg_q_batch_warps(rg) * 2 * nt * 512; }

// A slice of the weights in shared memory: bytes from row to row of each plane; those of a, b and c no multiple of what eight rows would
// collide in. Of d there is, behind a row's s, the word, or the two of Q1_0, in which its first value begins.
template <int T, int RG> struct KgQBatchSlot {
    static constexpr uint32_t ROWS = 32 * RG;
    static constexpr uint32_t A = kg_has_a(T) ? 144 : 0, B = T == KG_Q8_0 ? 144 : kg_has_b8(T) ? 72 : 0, C = kg_has_c(T) ? 36 : 0;
    static constexpr bool HAS_D = kg_d_bytes(T) != 0;
    static constexpr uint32_t AT_D = KG_Q_BATCH_SLICE * kg_s_bytes(T), S = AT_D == 0 ? 16 : HAS_D ? 2 * AT_D : AT_D; // d behind s
    static constexpr uint32_t AT_B = ROWS * A, AT_C = AT_B + ROWS * B, AT_S = AT_C + ROWS * C, BYTES = AT_S + ROWS * S;
    static_assert(BYTES % 128 == 0, "the input lies behind a slot");
};

// Where a slice lies: blocks from `at` on, one for each warp of a group.
struct KgQBatchPlace {
    const uint32_t blocks, ks, stride;
    // step: of the lanes of a warp, which go 0, 2, 1, 3. Of chunks of 32 blocks, one of each lane, every ks-th is the chain's.
    uint32_t turn = 0, at = 0, chain = 0, step = 0;
    __device__ __forceinline__ KgQBatchPlace(const KgStage &st) : blocks(st.n / 32), ks(st.ks), stride(kg_kept(st.ks * 32)) {}
    static __device__ __forceinline__ uint32_t octet(uint32_t step) { return (step & 1) * 2 + step / 2; }
    // Whether the slice is the last of its lanes; their next step, 4: none; whether the chain is the last of its turn.
    __device__ __forceinline__ bool ends_lanes() const { return at + stride >= blocks; }
    __device__ __forceinline__ uint32_t next_step() const {
        uint32_t s = step + 1;
        while (s < 4 && (chain * 4 + octet(s)) * KG_Q_BATCH_SLICE >= blocks) s++; // lanes of nothing add nothing
        return s;
    }
    __device__ __forceinline__ bool ends_turn() const { return chain + 1 == ks || (chain + 1) * 32 >= blocks; }
    // Whether the turn is another.
    __device__ __forceinline__ bool next() {
        at += stride;
        return at >= blocks && next_lanes();
    }
    __device__ __forceinline__ bool next_lanes() {
        const uint32_t was = turn;
        step = next_step();
        if (step == 4) {
            step = 0;
            if (ends_turn()) chain = 0, turn++;
            else chain++;
        }
        at = (chain * 4 + octet(step)) * KG_Q_BATCH_SLICE;
        return turn != was;
    }
};

// The cut of a stage that a block has: tiles of rows of one matrix, or of a pair.
struct KgQBatchRows {
    uint32_t seg, tile0, tile1, turns, rows, blocks, per_turn;
    bool pair;
    __device__ __forceinline__ KgQBatchRows(const KgStage &st, uint32_t per_turn) : per_turn(per_turn) {
        seg = 0;
        while (seg + 1 < st.n_seg && blockIdx.y >= st.seg_block[seg + 1]) seg++;
        pair = st.activation != 0, blocks = st.n / 32, rows = st.m[seg].rows;
        const uint32_t tiles = (rows + tile_rows() - 1) / tile_rows();
        const uint32_t n_blocks = st.seg_block[seg + 1] - st.seg_block[seg], block = blockIdx.y - st.seg_block[seg];
        tile0 = tiles * block / n_blocks, tile1 = tiles * (block + 1) / n_blocks, turns = (tile1 - tile0 + per_turn - 1) / per_turn;
    }
    __device__ __forceinline__ uint32_t tile_rows() const { return pair ? 8 : 16; }
    __device__ __forceinline__ uint32_t tile(uint32_t turn, uint32_t k) const { return tile0 + turn * per_turn + k; }
    __device__ __forceinline__ bool has(uint32_t turn, uint32_t k) const { return tile(turn, k) < tile1; }
    // Row i of 16 of tile k of a turn, in its matrix.
    __device__ __forceinline__ uint32_t row(uint32_t turn, uint32_t k, uint32_t i) const {
        return min(tile(turn, k) * tile_rows() + i % tile_rows(), rows - 1);
    }
};

#ifdef KG_SM90
// The slots of the ring, and its barriers: those of slots that are full, and KG_Q_BATCH_DEPTH behind them those of slots that are empty.
template <int T, int NT, int RG> struct KgQBatchRing {
    using Slot = KgQBatchSlot<T, RG>;
    static constexpr uint32_t EACH = Slot::BYTES + kg_q_batch_input(NT);
    const uint32_t first, last, bars; // addresses in shared memory; last: behind the last slot
    uint32_t at, full, parity = 0;
    bool again = false; // the slot has been used
    __device__ __forceinline__ KgQBatchRing(const char *shared, uint32_t depth, const uint64_t *bars)
        : first(kg_kept(kg_shared_at(shared))), last(kg_kept(first + depth * EACH)), bars(kg_kept(kg_shared_at(bars))), at(first), full(this->bars) {}
    __device__ __forceinline__ uint32_t empty() const { return full + 8 * KG_Q_BATCH_DEPTH; }
    // Until the slot is empty.
    __device__ __forceinline__ void wait_empty() const {
        if (again) kg_bar_wait(empty(), parity ^ 1);
    }
    __device__ __forceinline__ void next() {
        at += EACH, full += 8;
        if (at != last) return;
        at = first, full = bars, parity ^= 1, again = true;
    }
};

// The input's way: the blocks of a slice, by one thread, to where they are waited for with the weights.
template <int NT> __device__ __forceinline__ void kg_q_batch_input_async(const KgStage &st, const KgQBatchPlace &place, uint32_t to, uint32_t bar) {
    const uint32_t n = min(place.blocks - place.at, KG_Q_BATCH_SLICE);
    const uint4 *const input = st.split + (size_t)blockIdx.x * NT * place.blocks * KG_INPUT_Q_WORDS;
    kg_bar_expect(bar, n * NT * KG_INPUT_Q_WORDS * 16);
    kg_copy_bulk(to, input + (size_t)place.at * NT * 32, n * NT * 512, bar);
    kg_copy_bulk(to + KG_Q_BATCH_SLICE * NT * 512, input + ((size_t)place.blocks * 32 + place.at * 6) * NT, n * NT * 96, bar);
}

// n blocks of plane s from `unit` on, of rows of `blocks`, by the largest pieces that every row begins with.
template <int T> __device__ __forceinline__ void kg_q_batch_copy_scales(uint32_t to, const char *s, uint32_t unit, uint32_t n, uint32_t blocks) {
    constexpr uint32_t EACH = kg_s_bytes(T);
    if constexpr (EACH != 0) {
        const char *const from = s + (size_t)unit * EACH;
        const uint32_t bytes = n * EACH;
        if (kg_row_block(T) == 256 || blocks * EACH % 16 == 0) {
#pragma unroll
            for (uint32_t i = 0; i < KG_Q_BATCH_SLICE * EACH; i += 16)
                if (i == 0 || i < bytes) kg_copy16(to + i, from + i, true);
        } else if (blocks * EACH % 4 == 0) {
#pragma unroll
            for (uint32_t i = 0; i < KG_Q_BATCH_SLICE * EACH; i += 4)
                if (i < bytes) kg_copy4(to + i, from + i);
        } else {
            // Halves of words, which no asynchronous copy takes: the blocks before and behind are another row's.
            uint16_t v[KG_Q_BATCH_SLICE];
#pragma unroll
            for (uint32_t j = 0; j < KG_Q_BATCH_SLICE; j++) v[j] = j < n ? (uint16_t)kg_cached2(from + j * 2) : (uint16_t)0;
#pragma unroll
            for (uint32_t j = 0; j < KG_Q_BATCH_SLICE; j++) kg_shared_store2(to + j * 2, v[j]);
            __threadfence_block();
        }
    }
}

// The copying warps: planes a, b and c, of which a thread has block tid % 8 of a row of each tile, s or d of a row, and the input, of the first
// slices when the kernels before this one have ended.
template <int T, int NT, int RG>
__device__ __forceinline__ void kg_q_batch_copy(const KgStage &st, const KgQBatchRows &rows, KgQBatchRing<T, NT, RG> ring) {
    using Ring = KgQBatchRing<T, NT, RG>;
    using Slot = typename Ring::Slot;
    constexpr uint32_t TILES = 2 * RG, NONE = 0xffffffffu;
    // A row of each tile, of gate or of up where they are a pair; of plane s or of plane d a row of all.
    const uint32_t row = threadIdx.x / 8, block = threadIdx.x % 8, own_row = threadIdx.x % 64;
    const KgMat &mat = st.m[rows.pair ? row / 8 : rows.seg], &own = st.m[rows.pair ? own_row / 8 % 2 : rows.seg];
    const char *const a = (const char *)mat.a, *const b = (const char *)mat.b, *const c = (const char *)mat.c;
    const char *const s = (const char *)own.s, *const d = (const char *)own.d;
    const uint32_t to_a = kg_kept(row * Slot::A + block * 16), to_b = kg_kept(Slot::AT_B + row * Slot::B + block * (T == KG_Q8_0 ? 16 : 8));
    const uint32_t to_c = kg_kept(Slot::AT_C + row * Slot::C + block * 4), to_s = kg_kept(Slot::AT_S + own_row * Slot::S);
    KgQBatchPlace place(st);
    uint32_t unit[TILES], own_unit = NONE;
    auto aim = [&] {
#pragma unroll
        for (uint32_t k = 0; k < TILES; k++) unit[k] = rows.has(place.turn, k) ? rows.row(place.turn, k, row) * place.blocks + block : NONE;
        const uint32_t k = own_row / 16;
        own_unit = k < TILES && rows.has(place.turn, k) ? rows.row(place.turn, k, own_row % 16) * place.blocks : NONE;
    };
    auto first_inputs = [&](uint32_t last) {
        kg_wait();
        if (threadIdx.x != 0) return;
        KgQBatchPlace first(st);
        Ring again = ring;
        again.at = ring.first, again.full = ring.bars;
#pragma unroll 1
        for (; again.at != last; again.at += Ring::EACH, again.full += 8, first.next())
            kg_q_batch_input_async<NT>(st, first, again.at + Slot::BYTES, again.full);
    };
    aim();
#pragma unroll 1
    while (place.turn < rows.turns) {
        ring.wait_empty();
        if (place.at + block < place.blocks) {
#pragma unroll
            for (uint32_t k = 0; k < TILES; k++) {
                const uint32_t u = unit[k] + place.at;
                if (unit[k] == NONE) continue;
                if constexpr (Slot::A != 0) kg_copy16(ring.at + to_a + k * 16 * Slot::A, a + (size_t)u * 16, true);
                if constexpr (T == KG_Q8_0) kg_copy16(ring.at + to_b + k * 16 * Slot::B, b + (size_t)u * 16, true);
                else if constexpr (kg_has_b8(T)) kg_copy8(ring.at + to_b + k * 16 * Slot::B, b + (size_t)u * 8);
                if constexpr (Slot::C != 0) kg_copy4(ring.at + to_c + k * 16 * Slot::C, c + (size_t)u * 4);
            }
        }
        if (own_unit != NONE) {
            const uint32_t u = own_unit + place.at, n = min(place.blocks - place.at, KG_Q_BATCH_SLICE);
            if (threadIdx.x < 64) kg_q_batch_copy_scales<T>(ring.at + to_s, s, u, n, place.blocks);
            else if constexpr (kg_d_bytes(T) == 4) kg_copy4(ring.at + to_s + Slot::AT_D, d + (size_t)(u / 8) * 4);
            else if constexpr (Slot::HAS_D) {
                const uint32_t first = u / kg_d_blocks(T), last = (u + n - 1) / kg_d_blocks(T);
                kg_copy4(ring.at + to_s + Slot::AT_D, d + (size_t)(first / 2) * 4);
                if (T == KG_Q1_0 && last / 2 != first / 2) kg_copy4(ring.at + to_s + Slot::AT_D + 4, d + (size_t)(last / 2) * 4);
            }
        }
        kg_bar_arrive_copies(ring.full);
        if (threadIdx.x == 0 && ring.again) kg_q_batch_input_async<NT>(st, place, ring.at + Slot::BYTES, ring.full);
        const bool first_time = !ring.again;
        ring.next();
        if (place.next()) aim();
        if (first_time && ring.again) first_inputs(ring.last);
    }
    if (!ring.again) first_inputs(ring.at);
}
#endif
