// device/wgmma.cuh's instructions on the emulated device: products and copies happen at the call, so a missing wait is not seen, but a
// missing arrival, a wrong byte count or a barrier waited for in vain is.
#pragma once
#include "cuda.h"
#include "cuda_fp16.h"

// Rows of 128 bytes whose 16-byte chunks are swizzled by the address, as tensor copies and descriptors have it.
static inline const char *emulate_swizzled(uint32_t at) { return (const char *)emulate::shared_address(at ^ (at >> 7 & 7) << 4); }
static inline uint32_t emulate_address(uint64_t operand) { return (uint32_t)(operand & 0x3fff) << 4; }
// 16 in a row, which are two chunks.
static inline void emulate_halves_at(float (&row)[16], uint32_t at) {
    for (uint32_t h = 0; h < 2; h++) {
        __m128i halves;
        memcpy(&halves, emulate_swizzled(at + 16 * h), 16);
        _mm256_storeu_ps(row + 8 * h, _mm256_cvtph_ps(halves));
    }
}
// 16 below one another.
static inline void emulate_halves_down(float (&column)[16], uint32_t at) {
    for (uint32_t h = 0; h < 2; h++) {
        uint16_t halves[8];
        for (uint32_t k = 0; k < 8; k++) memcpy(&halves[k], emulate_swizzled(at + h * 1024 + k * 128), 2);
        _mm256_storeu_ps(column + 8 * h, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves)));
    }
}
// sum[64, N] of this thread; a: its two rows.
template <int N, bool TURNED> static inline void emulate_wgmma(float (&d)[N / 2], const float (&a)[2][16], uint64_t b, int accumulate) {
    const uint32_t lane = threadIdx.x % 32, at = emulate_address(b), panel = (uint32_t)(b >> 16 & 0x3fff) << 4;
    if (b >> 62 != 1) abort(); // another swizzle
    for (uint32_t i = 0; i < N / 2; i += 4) {
        float columns[2][16];
        for (uint32_t c = 0; c < 2; c++) {
            const uint32_t n = i * 2 + lane % 4 * 2 + c;
            if (TURNED) emulate_halves_down(columns[c], at + n / 64 * panel + n % 64 * 2);
            else emulate_halves_at(columns[c], at + n / 8 * 1024 + n % 8 * 128);
        }
        if (!accumulate) d[i] = d[i + 1] = d[i + 2] = d[i + 3] = 0.f;
        emulate_sums(&d[i], &d[i + 1], &d[i + 2], &d[i + 3], a, columns);
    }
}
template <int N> struct KgWgmma {
    static inline void mma(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {
        const uint32_t first = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
        float rows[2][16];
        for (uint32_t h = 0; h < 2; h++) emulate_halves_at(rows[h], emulate_address(a) + (first + 8 * h) / 8 * 1024 + (first + 8 * h) % 8 * 128);
        emulate_wgmma<N, false>(d, rows, b, accumulate);
    }
};
template <int N, int TURNED> struct KgWgmmaA {
    static inline void mma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate) {
        const uint32_t *all = emulate::exchange<4>(a), quad = threadIdx.x % 32 / 4 * 4;
        float rows[2][16];
        for (uint32_t h = 0; h < 2; h++) emulate_row(rows[h], all, 4, quad, h, 2);
        emulate_wgmma<N, TURNED != 0>(d, rows, b, accumulate);
    }
};
static inline void kg_wgmma_fence() {}
static inline void kg_wgmma_commit() {}
// A warp's products are one instruction each: nobody of it is behind them before all are.
template <int N> static inline void kg_wgmma_wait() { __syncwarp(); }
static inline uint64_t kg_wgmma_operand(uint32_t address) { return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 62; }
static inline uint64_t kg_wgmma_turned(uint32_t address, uint32_t panel) {
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(panel >> 4) << 16 | (uint64_t)1 << 62;
}

struct EmulatedBar {
    uint32_t phase;
    uint32_t expected : 9, pending : 9, units : 14; // units of 16 bytes
    void check() {
        if (pending == 0 && units == 0) phase ^= 1, pending = expected;
    }
    void came(uint32_t bytes) {
        if (bytes % 16 || units < bytes / 16) abort(); // more than expected
        units -= bytes / 16;
        check();
    }
};
static inline EmulatedBar *emulate_bar(uint32_t bar) { return (EmulatedBar *)emulate::shared_address(bar); }
static inline void kg_bar_init(uint32_t bar, uint32_t count) {
    if (count > 511) abort();
    *emulate_bar(bar) = {0, count, count, 0};
}
static inline void kg_bar_arrive(uint32_t bar) {
    EmulatedBar *b = emulate_bar(bar);
    if (b->pending == 0) abort(); // more arrivals than expected
    b->pending--;
    b->check();
}
static inline void kg_bar_arrive_copies(uint32_t bar) { kg_bar_arrive(bar); }
static inline void kg_bar_expect(uint32_t bar, uint32_t bytes) {
    if (bytes % 16 || bytes >> 4 > 0x3fffu - emulate_bar(bar)->units) abort();
    emulate_bar(bar)->units += bytes >> 4;
    kg_bar_arrive(bar);
}
static inline void kg_bar_wait(uint32_t bar, uint32_t parity) {
    while (emulate_bar(bar)->phase == parity) emulate::wait_while(&emulate_bar(bar)->phase, parity);
}
static inline void kg_copy_box(uint32_t to, const void *map, uint32_t bar, uint32_t column, uint32_t row) {
    const CUtensorMap &m = *(const CUtensorMap *)map;
    for (uint32_t r = 0; r < m.box_rows; r++)
        for (uint32_t c = 0; c < m.box_columns; c++) {
            uint16_t v = 0;
            if (row + r < m.rows && column + c < m.columns) memcpy(&v, m.base + (row + r) * m.pitch + (column + c) * 2, 2);
            memcpy((char *)emulate_swizzled(to + r * 128 + c * 2), &v, 2);
        }
    emulate_bar(bar)->came(m.box_rows * m.box_columns * 2);
}
static inline void kg_copy_bulk(uint32_t to, const void *from, uint32_t bytes, uint32_t bar) {
    if ((to | (uint32_t)(uintptr_t)from) % 16) abort();
    memcpy(emulate::shared_address(to), from, bytes);
    emulate_bar(bar)->came(bytes);
}
static inline void kg_bar_init_done() {}
static inline void kg_async_fence() {}
template <int N> static inline void kg_fewer_registers() {}
template <int N> static inline void kg_more_registers() {}
