// ptx.cuh's functions on the emulated device. Asynchronous copies happen at once; nothing is read early.
#pragma once

static inline void kg_launch_dependents() {}
static inline void kg_wait() {}

template <typename T> static inline T emulate_load(const void *p) {
    T v;
    if ((uintptr_t)p % sizeof(T) != 0) abort(); // as the device would
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint4 kg_stream16(const void *p) { return emulate_load<uint4>(p); }
static inline uint2 kg_stream8(const void *p) { return emulate_load<uint2>(p); }
static inline uint32_t kg_stream4(const void *p) { return emulate_load<uint32_t>(p); }
static inline uint32_t kg_stream2(const void *p) { return emulate_load<uint16_t>(p); }
static inline uint4 kg_cached16(const void *p) { return emulate_load<uint4>(p); }
static inline uint32_t kg_cached4(const void *p) { return emulate_load<uint32_t>(p); }
static inline uint32_t kg_cached2(const void *p) { return emulate_load<uint16_t>(p); }
static inline uint4 kg_load16(const void *p) { return emulate_load<uint4>(p); }
static inline void kg_prefetch(const void *) {}
static inline uint32_t kg_bytes(uint32_t a, uint32_t b, uint32_t which) {
    const uint64_t all = (uint64_t)b << 32 | a;
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t nibble = which >> 4 * i, byte = (uint32_t)(all >> 8 * (nibble & 7)) & 255u;
        v |= (nibble & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return v;
}
static inline void kg_barrier(uint32_t id, uint32_t threads) { emulate::named_barrier(id, threads); }

// Sixteen bytes, with sign or without, as 16 bits each; four.
template <typename T> static inline __m256i emulate_wider(__m128i bytes) { return (T)-1 < 0 ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes); }
template <typename T> static inline __m128i emulate_four(uint32_t word) {
    const __m128i bytes = _mm_cvtsi32_si128((int)word);
    return (T)-1 < 0 ? _mm_cvtepi8_epi16(bytes) : _mm_cvtepu8_epi16(bytes);
}
template <typename A, typename B> static inline int emulate_dot(uint32_t a, uint32_t b, int c) {
    const __m128i pairs = _mm_madd_epi16(emulate_four<A>(a), emulate_four<B>(b));
    return c + _mm_cvtsi128_si32(pairs) + _mm_extract_epi32(pairs, 1);
}
static inline int kg_dot_uu(uint32_t a, uint32_t b, int c) { return emulate_dot<uint8_t, uint8_t>(a, b, c); }
static inline int kg_dot_us(uint32_t a, uint32_t b, int c) { return emulate_dot<uint8_t, int8_t>(a, b, c); }
static inline int kg_dot_su(uint32_t a, uint32_t b, int c) { return emulate_dot<int8_t, uint8_t>(a, b, c); }
static inline int kg_dot_ss(uint32_t a, uint32_t b, int c) { return emulate_dot<int8_t, int8_t>(a, b, c); }

static inline void kg_cluster_arrive() {}
static inline void kg_cluster_wait() { emulate::cluster_barrier(); }
static inline void kg_cluster_sync() { emulate::cluster_barrier(); }
static inline uint32_t kg_cluster_rank() { return emulate::cluster_rank(); }
static inline uint64_t kg_cluster_read(const uint64_t *mine, uint32_t rank) { return *(const uint64_t *)emulate::shared_of(mine, rank); }
static inline void kg_cluster_write(float *mine, uint32_t rank, float v) { *(float *)emulate::shared_of(mine, rank) = v; }

static inline uint32_t kg_shared_at(const void *p) { return emulate::shared_offset(p); }
template <typename T> static inline T emulate_shared(uint32_t at) {
    if (at % sizeof(T) != 0) abort();
    return *(const T *)emulate::shared_address(at);
}
static inline uint32_t kg_shared2(uint32_t at) { return emulate_shared<uint16_t>(at); }
static inline uint32_t kg_shared4(uint32_t at) { return emulate_shared<uint32_t>(at); }
static inline uint2 kg_shared8(uint32_t at) { return emulate_shared<uint2>(at); }
static inline uint4 kg_shared16(uint32_t at) { return emulate_shared<uint4>(at); }
static inline void kg_shared_store2(uint32_t to, uint16_t v) { *(uint16_t *)emulate::shared_address(to) = v; }
static inline uint32_t kg_kept(uint32_t v) { return v; }
static inline void kg_copy16(uint32_t to, const void *from, bool valid) {
    if ((to | (uintptr_t)from) % 16 != 0) abort();
    if (valid) memcpy(emulate::shared_address(to), from, 16);
    else memset(emulate::shared_address(to), 0, 16);
}
template <uint32_t N> static inline void emulate_copy(uint32_t to, const void *from) {
    if ((to | (uintptr_t)from) % N != 0) abort();
    memcpy(emulate::shared_address(to), from, N);
}
static inline void kg_copy8(uint32_t to, const void *from) { emulate_copy<8>(to, from); }
static inline void kg_copy4(uint32_t to, const void *from) { emulate_copy<4>(to, from); }
static inline void kg_copy_commit() {}
template <int N> static inline void kg_copy_wait() {}

// Matrix i's row r is at the address that lane 8 i + r gave; a lane gets elements 2 (lane % 4) and the next of row lane / 4.
static inline void kg_ldmatrix(uint32_t (&r)[4], uint32_t at) {
    const uint32_t *all = emulate::exchange<1>(&at), lane = threadIdx.x % 32;
    for (uint32_t i = 0; i < 4; i++) memcpy(&r[i], (char *)emulate::shared_address(all[8 * i + lane / 4]) + lane % 4 * 4, 4);
}
static inline void kg_ldmatrix_turned(uint32_t (&r)[4], uint32_t at) {
    const uint32_t *all = emulate::exchange<1>(&at), lane = threadIdx.x % 32;
    for (uint32_t i = 0; i < 4; i++) {
        uint16_t v[2];
        for (uint32_t j = 0; j < 2; j++) memcpy(&v[j], (char *)emulate::shared_address(all[8 * i + lane % 4 * 2 + j]) + lane / 4 * 2, 2);
        r[i] = v[0] | (uint32_t)v[1] << 16;
    }
}
static inline void kg_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const uint32_t *all = emulate::exchange<6>(mine), lane = threadIdx.x % 32;
    float rows[2][16], columns[2][16];
    for (uint32_t i = 0; i < 2; i++) {
        // a: register row / 8 + 2 (k / 8) of lane 4 (row % 8) + k % 8 / 2; b: register k / 8 of lane 4 column + k % 8 / 2.
        emulate_row(rows[i], all, 6, lane / 4 * 4, i, 2);
        emulate_row(columns[i], all, 6, (lane % 4 * 2 + i) * 4, 4, 1);
    }
    emulate_sums(&d[0], &d[1], &d[2], &d[3], rows, columns);
}
static inline void kg_mma_new(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    d[0] = d[1] = d[2] = d[3] = 0.f;
    kg_mma(d, a, b0, b1);
}
static inline void kg_mma_in_turn(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { kg_mma(d, a, b0, b1); }
// K: registers of a row, of 16 elements each; B: bytes of b with sign or without.
template <int K, typename B> static inline void emulate_mma(int (&d)[4], const uint32_t *a, const uint32_t *b) {
    uint32_t mine[3 * K];
    memcpy(mine, a, 8 * K), memcpy(mine + 2 * K, b, 4 * K);
    const uint32_t *all = emulate::exchange<3 * K>(mine), lane = threadIdx.x % 32;
    // a: register row / 8 + 2 (k / 16) of lane 4 (row % 8) + k % 16 / 4; b: register k / 16 of lane 4 column + k % 16 / 4.
    __m256i rows[2][K], columns[2][K];
    for (uint32_t i = 0; i < 2; i++)
        for (uint32_t h = 0; h < K; h++) {
            uint32_t row[4], column[4];
            for (uint32_t k = 0; k < 4; k++) {
                row[k] = all[(lane / 4 * 4 + k) * 3 * K + i + h * 2];
                column[k] = all[((lane % 4 * 2 + i) * 4 + k) * 3 * K + 2 * K + h];
            }
            rows[i][h] = emulate_wider<int8_t>(_mm_loadu_si128((const __m128i *)row));
            columns[i][h] = emulate_wider<B>(_mm_loadu_si128((const __m128i *)column));
        }
    __m256i of[4];
    for (uint32_t i = 0; i < 4; i++) {
        of[i] = _mm256_setzero_si256();
        for (uint32_t h = 0; h < K; h++) of[i] = _mm256_add_epi32(of[i], _mm256_madd_epi16(rows[i / 2][h], columns[i % 2][h]));
    }
    const __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(of[0], of[1]), _mm256_hadd_epi32(of[2], of[3]));
    const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    _mm_storeu_si128((__m128i *)d, _mm_add_epi32(_mm_loadu_si128((const __m128i *)d), sums));
}
template <typename B> static inline void emulate_mma32(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t b[2] = {b0, b1};
    emulate_mma<2, B>(d, a, b);
}
template <typename B> static inline void emulate_mma16(int (&d)[4], uint32_t a0, uint32_t a1, uint32_t b) {
    const uint32_t a[2] = {a0, a1};
    emulate_mma<1, B>(d, a, &b);
}
static inline void kg_mma_ss32(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { emulate_mma32<int8_t>(d, a, b0, b1); }
static inline void kg_mma_su32(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { emulate_mma32<uint8_t>(d, a, b0, b1); }
static inline void kg_mma_ss16(int (&d)[4], uint32_t a0, uint32_t a1, uint32_t b) { emulate_mma16<int8_t>(d, a0, a1, b); }
static inline void kg_mma_su16(int (&d)[4], uint32_t a0, uint32_t a1, uint32_t b) { emulate_mma16<uint8_t>(d, a0, a1, b); }
static inline float kg_exp2(float x) { return exp2f(x); }
