// Attention of a prefill chunk on compute capability 9.0: flash_prefill_mma.cu's formula, tensors and preconditions, on wgmma.
//
//   s = softcap(scale * q k^T), masked; out = softmax(s, with a sink where there are some) v
// Scores, maximum, sum and output are f32, probabilities f16.
// Geometry: a block takes NWG x 64 tokens of one head, one warpgroup for 64; a block of keys is a page of 64 positions, copied by
// all threads (cp.async, zeros beyond the sequence) into a ring of K and V slots: panels of 64 columns, [64 keys][128 bytes],
// 128-byte swizzle. While the softmax of block j + 1 runs, the tensor cores add block j's values (FlashAttention-3,
// arXiv 2407.08608). Longest rows start first. A row's bits depend neither on NWG nor on how the prompt was cut: keys are
// summed page by page from the first that its tile reaches, and a block that its mask empties changes nothing.
// Head sizes 64, 128 and 256, others padded to the next. Bytes moved: q and out once; K and V once for every NWG x 64 tokens
// of a query head (L2). Measured on one H200: 2,048 tokens, 14/2 heads of 64: 50 us; 28/4 heads of 128: 117 us; at position
// 14,336: 404 us and 1,310 us (344 TFLOP/s); flash_prefill_mma.cu's kernel takes 1.3 to 1.6 times as long.
// Reference: tests/gpu/operations/prefill.rs; flash_prefill_mma.cu.
#include "attention/flash_prefill.cuh"
#include "device/wgmma.cuh"

namespace {
// 64 rows in panels of 64 columns; `valid` rows and `chunks` 16-byte chunks of a row exist, the rest is zero.
template <int WIDTH, int THREADS>
__device__ __forceinline__ void load_panels(uint32_t to, const __half *from, uint64_t stride, uint32_t valid, uint32_t chunks, uint32_t thread) {
    constexpr uint32_t PER = WIDTH / 8;
#pragma unroll
    for (uint32_t i = 0; i < 64 * PER; i += THREADS) {
        const uint32_t row = (i + thread) / PER, c = (i + thread) % PER;
        const bool in = row < valid && c < chunks;
        kg_copy16(to + c / 8 * 8192 + row * 128 + (((c ^ row) & 7) << 4), from + (in ? row * stride + c * 8 : 0), in);
    }
}

constexpr int slots(int hd) { return hd > 128 ? 2 : 3; }
constexpr int smem_bytes(int hd, int nwg) { return 64 * hd * 2 * (2 * slots(hd) + (hd > 128 ? nwg : 0)) + 1024; }

template <int HD, int NWG, int SLOTS>
__global__ void __launch_bounds__(128 * NWG, HD == 64 ? 4 / NWG : HD == 128 ? 2 / NWG : 1) kg_flash_sm90(const __grid_constant__ KgFlash p) {
#ifdef KG_SM90A
    constexpr bool Q_SHARED = HD > 128;
    constexpr uint32_t SLOT = 64 * HD * 2, THREADS = 128 * NWG;
    KG_DYNAMIC_SHARED(uint8_t, raw);
    const uint32_t ks = (kg_shared_at(raw) + 1023) & ~1023u, vs = ks + SLOTS * SLOT;
    const uint32_t group = threadIdx.x / 128, warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
    const uint32_t qs = vs + SLOTS * SLOT + group * SLOT;
    const KgFlashTile t = kg_flash_tile(p, 64 * NWG);
    const uint32_t head = blockIdx.x, kv = head / (p.n_heads / p.n_kv), chunks = p.head_dim / 8, end = t.start + t.n_tokens;
    const uint32_t tile = t.tile, first = tile + group * 64;
    const uint32_t n_rows = first < t.n_tokens ? min(64u, t.n_tokens - first) : 0;
    kg_begin();

    const __half *q = (const __half *)p.q + (size_t)(t.row0 + (n_rows ? first : 0)) * p.q_stride + (size_t)head * p.head_dim;
    uint32_t qf[Q_SHARED ? 1 : HD / 16][4];
    if constexpr (Q_SHARED) {
        load_panels<HD, 128>(qs, q, p.q_stride, n_rows, chunks, threadIdx.x % 128);
    } else {
#pragma unroll
        for (int k = 0; k < HD / 16; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t row = warp * 16 + lane / 4 + 8 * (i % 2), c = 16 * k + 2 * (lane % 4) + 8 * (i / 2);
                qf[k][i] = row < n_rows && c < p.head_dim ? *(const uint32_t *)(q + (size_t)row * p.q_stride + c) : 0;
            }
    }

    const uint32_t group_low = t.start + first, group_high = group_low + 63, pos0 = group_low + warp * 16 + lane / 4;
    const uint32_t window = p.window ? p.window : 0xffffffffu;
    auto from_of = [&](uint32_t position) { return position >= window ? position - window + 1 : 0; };
    const uint32_t block0 = from_of(t.start + tile) / 64, blocks = (min(t.start + tile + 64 * NWG, end) - 1) / 64 - block0 + 1;
    const float unit = (p.softcap > 0.f ? p.softcap : p.scale) * 1.4426950408889634f;
    const float turn = p.softcap > 0.f ? 2.f * 1.4426950408889634f * p.scale / p.softcap : 0.f;

    // Addresses of the pages of the step's values, of its keys and of the next step's keys: read long before they are used.
    const uint64_t *pages = t.pages + block0;
    uint64_t v_page = pages[0], k_page = pages[min(1u, blocks - 1)], ahead = pages[min(2u, blocks - 1)];
    auto load = [&](uint32_t to, uint64_t page, uint32_t j, uint64_t offset) { // block j of K or V into its slot
        const __half *from = (const __half *)page + kv * p.head_stride + offset;
        load_panels<HD, THREADS>(to + j % SLOTS * SLOT, from, p.token_stride, min(64u, end - (block0 + j) * 64), chunks, threadIdx.x);
    };
    auto load_step = [&](uint32_t j) { // what step j reads: the values of block j and the keys of the next
        if (j + 1 < blocks) load(ks, k_page, j + 1, p.k_offset);
        if (j < blocks) load(vs, v_page, j, p.v_offset);
        kg_copy_commit();
        v_page = k_page, k_page = ahead, ahead = pages[min(j + 3, blocks - 1)];
    };
    // This thread's copies have landed and the tensor cores may read them; after the barrier so have everybody's.
    auto landed = [&]() {
        kg_async_fence();
        __syncthreads();
    };

    float out[HD / 2], s[32], top[2] = {-INFINITY, -INFINITY}, total[2] = {0.f, 0.f}, keep[2];
#pragma unroll
    for (int i = 0; i < HD / 2; i++) out[i] = 0.f;
    uint32_t pf[4][4];

    auto scores = [&](uint32_t j) {
        const uint64_t b = kg_wgmma_operand(ks + j % SLOTS * SLOT);
        kg_wgmma_fence();
#pragma unroll
        for (int k = 0; k < HD / 16; k++) {
            const uint32_t at = k / 4 * (8192 >> 4) + k % 4 * 2;
            if constexpr (Q_SHARED)
                KgWgmma<64>::mma(s, kg_wgmma_operand(qs) + at, b + at, k != 0);
            else
                KgWgmmaA<64, 0>::mma(s, qf[k], b + at, k != 0);
        }
        kg_wgmma_commit();
    };
    auto values = [&](uint32_t j) {
        const uint64_t b = kg_wgmma_turned(vs + j % SLOTS * SLOT, 8192);
        kg_wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; k++) KgWgmmaA<HD, 1>::mma(out, pf[k], b + k * (2048 >> 4), 1);
        kg_wgmma_commit();
    };
    auto softmax = [&](uint32_t j) {
        const uint32_t t0 = (block0 + j) * 64;
        if (p.softcap > 0.f) {
#pragma unroll
            for (int i = 0; i < 32; i++) s[i] = 1.f - 2.f / (1.f + kg_exp2(s[i] * turn));
        }
        if (t0 + 63 > group_low || t0 < from_of(group_high)) {
            const uint32_t low0 = from_of(pos0), low1 = from_of(pos0 + 8);
#pragma unroll
            for (int i = 0; i < 32; i++) {
                const uint32_t at = t0 + i / 4 * 8 + 2 * (lane % 4) + i % 2;
                if (at > pos0 + 8 * (i / 2 % 2) || at < (i / 2 % 2 ? low1 : low0)) s[i] = -INFINITY;
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float m = top[h];
#pragma unroll
            for (int n = 0; n < 8; n++) m = fmaxf(m, fmaxf(s[4 * n + 2 * h], s[4 * n + 2 * h + 1]));
            m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
            m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
            // Rounded as written: an unchanged maximum must keep exactly 1, however the compiler would fuse.
            const float base = m == -INFINITY ? 0.f : -__fmul_rn(m, unit);
            keep[h] = kg_exp2(__fmul_rn(top[h], unit) + base);
            top[h] = m;
            float sum = 0.f;
#pragma unroll
            for (int n = 0; n < 8; n++) {
                const int i = 4 * n + 2 * h;
                s[i] = kg_exp2(__fmaf_rn(s[i], unit, base)), s[i + 1] = kg_exp2(__fmaf_rn(s[i + 1], unit, base));
                sum += s[i] + s[i + 1];
            }
            total[h] = total[h] * keep[h] + sum; // of this thread's columns
        }
    };
    auto pack_all = [&]() {
#pragma unroll
        for (int k = 0; k < 4; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) pf[k][i] = kg_pack(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
    };

    load(ks, v_page, 0, p.k_offset);
    kg_copy_commit();
#pragma unroll
    for (int j = 0; j < SLOTS - 1; j++) load_step(j);
    kg_copy_wait<SLOTS - 1>();
    landed();
    scores(0);
    kg_wgmma_wait<0>();
    softmax(0);
    pack_all();
    for (uint32_t j = 0; j + 1 < blocks; j++) {
        kg_copy_wait<SLOTS - 2>();
        landed();
        load_step(j + SLOTS - 1);
        scores(j + 1);
        values(j);
        kg_wgmma_wait<1>();
        softmax(j + 1);
        kg_wgmma_wait<0>();
#pragma unroll
        for (int i = 0; i < HD / 2; i++) out[i] *= keep[i / 2 % 2];
        pack_all();
    }
    kg_copy_wait<0>();
    landed();
    values(blocks - 1);
    kg_wgmma_wait<0>();

    kg_flash_store<HD / 8>(p, t.row0 + first, n_rows, warp * 16 + lane / 4, head, 0, total, top, unit, [&](int h, int i) { return out[4 * (i / 2) + 2 * h + i % 2]; });
#else
    __trap(); // callers ask kgc_gemm_encoder first
#endif
}

template <int HD, int NWG> cudaError_t run(const KgFlash *p, cudaStream_t stream) {
    const dim3 grid(p->n_heads, p->tiles ? p->n_tiles : (p->n_tokens + 64 * NWG - 1) / (64 * NWG));
    return kg_launch(kg_flash_sm90<HD, NWG, slots(HD)>, grid, dim3(128 * NWG), smem_bytes(HD, NWG), 0, stream, *p);
}
} // namespace

cudaError_t kgc_flash_sm90(const KgFlash *p, cudaStream_t stream) {
    cudaError_t e = kg_flash_check(p);
    if (e != cudaSuccess) return e;
    if (p->head_dim > 256) return cudaErrorNotSupported;
    // Two warpgroups share K and V where that still leaves every multiprocessor a block.
    const bool two = !p->tiles && (uint64_t)((p->n_tokens + 127) / 128) * p->n_heads >= p->n_sms;
    if (p->head_dim <= 64) return two ? run<64, 2>(p, stream) : run<64, 1>(p, stream);
    if (p->head_dim <= 128) return two ? run<128, 2>(p, stream) : run<128, 1>(p, stream);
    return two ? run<256, 2>(p, stream) : run<256, 1>(p, stream);
}
