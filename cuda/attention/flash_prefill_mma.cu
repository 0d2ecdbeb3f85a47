// Attention of a prefill chunk over the paged cache: online softmax on the tensor cores (FlashAttention-2, arXiv 2307.08691).
//
//   s[i, t] = softcap(scale * q[i] . k[t]),  t = max(0, p + 1 - window) .. p,  p = start + i
//   out[i]  = sum_t softmax(s[i])[t] v[t]
// q      [n_tokens, n_heads, head_dim] f16, after norm and rope, rows q_stride elements apart
// k, v   f16, position p in page p / 64 (64 tokens a page), at its address + k_offset (v_offset) + kv_head * head_stride
//        + (p % 64) * token_stride elements; the chunk's own rows are already there
// out    [n_tokens, n_heads, head_dim] f16 (clamped to +-65504) or f32, rows out_stride elements apart
// Scores, maximum, sum and output are accumulated in f32; the probabilities enter the second product as f16.
// Geometry: a block takes 64 tokens of one head, four warps of 16 tokens; a block of keys is a page, so keys are summed in
// the same order wherever a chunk begins, and blocks that a row's mask empties change none of its bits: a row does not depend
// on how the prompt was cut. Longest rows start first. Head sizes 64, 128 and 256 as they are, others padded to the next; from
// 264 to 512 two blocks share a head's output.
// Preconditions: scale > 0; head_dim a multiple of 8, at most 512 (at most 256 with under 164 KiB of shared memory a multiprocessor);
// n_kv divides n_heads; offsets, strides and addresses 16-byte aligned. Pages up to position start + n_tokens - 1.
// Bytes moved: q and out once; K and V once for every 64 tokens of a query head (L2).
// Reference: tests/gpu/operations/prefill.rs.
#include "attention/flash_prefill.cuh"

namespace {
constexpr float LOG2E = 1.4426950408889634f;

// 64 rows of WIDTH elements in shared memory, 16-byte chunks swizzled by the row; `valid` rows and `chunks` chunks of a row
// exist, the rest is zero.
template <int WIDTH>
__device__ __forceinline__ void load_rows(uint32_t to, const __half *from, uint64_t stride, uint32_t valid, uint32_t chunks) {
    constexpr uint32_t PER = WIDTH / 8;
#pragma unroll
    for (uint32_t i = 0; i < 64 * PER; i += 128) {
        const uint32_t row = (i + threadIdx.x) / PER, c = (i + threadIdx.x) % PER;
        const bool in = row < valid && c < chunks;
        kg_copy16(to + row * (WIDTH * 2) + ((c ^ (row & 7)) << 4), from + (in ? row * stride + c * 8 : 0), in);
    }
}

// HD: head size in the first product; HV: columns of V a block makes. Q in registers up to 128, else in shared memory.
template <int HD, int HV> __global__ void __launch_bounds__(128, HD == 64 ? 4 : HD == 128 ? 2 : 1) kg_flash(const __grid_constant__ KgFlash p) {
    constexpr bool Q_SHARED = HD > 128;
    KG_DYNAMIC_SHARED(uint8_t, raw);
    const uint32_t ks = kg_shared_at(raw), vs = ks + 64 * HD * 2, qs = vs + 64 * HV * 2;
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t head = blockIdx.x, kv = head / (p.n_heads / p.n_kv), column0 = blockIdx.z * HV;
    const KgFlashTile t = kg_flash_tile(p, 64);
    const uint32_t first = t.tile, n_rows = min(64u, t.n_tokens - first), end = t.start + t.n_tokens;
    const uint32_t chunks = p.head_dim / 8, v_chunks = min(HV, (int)(p.head_dim - column0)) / 8;
    kg_begin();

    const __half *q = (const __half *)p.q + (size_t)(t.row0 + first) * p.q_stride + (size_t)head * p.head_dim;
    uint32_t qf[Q_SHARED ? 1 : HD / 16][4];
    if (Q_SHARED) {
        load_rows<HD>(qs, q, p.q_stride, n_rows, chunks);
    } else {
#pragma unroll
        for (int k = 0; k < (Q_SHARED ? 1 : HD / 16); k++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t row = warp * 16 + lane / 4 + 8 * (i % 2), c = 16 * k + 2 * (lane % 4) + 8 * (i / 2);
                qf[k][i] = row < n_rows && c < p.head_dim ? *(const uint32_t *)(q + (size_t)row * p.q_stride + c) : 0;
            }
    }

    // Positions of this thread's two rows, of the warp's and the block's first and last row.
    const uint32_t pos0 = t.start + first + warp * 16 + lane / 4;
    const uint32_t warp_low = t.start + first + warp * 16, warp_high = warp_low + 15;
    const uint32_t low = t.start + first, high = low + n_rows - 1;
    const uint32_t window = p.window ? p.window : 0xffffffffu;
    auto from_of = [&](uint32_t position) { return position >= window ? position - window + 1 : 0; };
    const uint32_t block0 = from_of(low) / 64, block1 = high / 64;

    float out[HV / 8][4] = {};
    float top[2] = {-INFINITY, -INFINITY}, total[2] = {0.f, 0.f};
    // exp(score) = 2^(s unit); tanh(s scale / softcap) = 1 - 2 / (1 + 2^(s turn)).
    const float unit = (p.softcap > 0.f ? p.softcap : p.scale) * LOG2E, turn = p.softcap > 0.f ? 2.f * LOG2E * p.scale / p.softcap : 0.f;

    const uint64_t kv_offset = kv * p.head_stride;
    const __half *page = (const __half *)t.pages[block0] + kv_offset;
    uint64_t next = t.pages[min(block0 + 1, block1)]; // read long before it is used
    load_rows<HD>(ks, page + p.k_offset, p.token_stride, min(64u, end - block0 * 64), chunks);
    kg_copy_commit();
    for (uint32_t block = block0; block <= block1; block++) {
        const uint32_t t0 = block * 64, valid = min(64u, end - t0);
        kg_copy_wait<0>();
        __syncthreads();
        load_rows<HV>(vs, page + p.v_offset + column0, p.token_stride, valid, v_chunks);
        kg_copy_commit();
        // A block that the mask empties for all rows of the warp would change nothing.
        const bool live = t0 <= warp_high && t0 + 63 >= from_of(warp_low);
        uint32_t pf[4][4];
        if (live) {
            float s[8][4] = {};
#pragma unroll
            for (int k = 0; k < HD / 16; k++) {
                uint32_t a[4];
                if (Q_SHARED) {
                    const uint32_t row = warp * 16 + lane % 16, c = 2 * k + lane / 16;
                    kg_ldmatrix(a, qs + row * (HD * 2) + ((c ^ (row & 7)) << 4));
                } else {
#pragma unroll
                    for (int i = 0; i < 4; i++) a[i] = qf[Q_SHARED ? 0 : k][i];
                }
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    const uint32_t row = n * 16 + lane / 16 * 8 + lane % 8, c = 2 * k + lane / 8 % 2;
                    uint32_t b[4];
                    kg_ldmatrix(b, ks + row * (HD * 2) + ((c ^ (row & 7)) << 4));
                    kg_mma(s[2 * n], a, b[0], b[1]);
                    kg_mma(s[2 * n + 1], a, b[2], b[3]);
                }
            }
            if (p.softcap > 0.f) {
#pragma unroll
                for (int n = 0; n < 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) s[n][i] = 1.f - 2.f / (1.f + kg_exp2(s[n][i] * turn));
            }
            if (t0 + 63 > warp_low || t0 < from_of(warp_high)) {
                const uint32_t low0 = from_of(pos0), low1 = from_of(pos0 + 8);
#pragma unroll
                for (int n = 0; n < 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const uint32_t at = t0 + n * 8 + 2 * (lane % 4) + i % 2;
                        if (at > pos0 + 8 * (i / 2) || at < (i < 2 ? low0 : low1)) s[n][i] = -INFINITY;
                    }
            }
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float m = top[h];
#pragma unroll
                for (int n = 0; n < 8; n++) m = fmaxf(m, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
                m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
                m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
                // Rounded as written: an unchanged maximum must keep exactly 1, however the compiler would fuse.
                const float base = m == -INFINITY ? 0.f : -__fmul_rn(m, unit), keep = kg_exp2(__fmul_rn(top[h], unit) + base);
                top[h] = m;
                float sum = 0.f;
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    s[n][2 * h] = kg_exp2(__fmaf_rn(s[n][2 * h], unit, base));
                    s[n][2 * h + 1] = kg_exp2(__fmaf_rn(s[n][2 * h + 1], unit, base));
                    sum += s[n][2 * h] + s[n][2 * h + 1];
                }
                total[h] = total[h] * keep + sum; // of this thread's columns
#pragma unroll
                for (int n = 0; n < HV / 8; n++) out[n][2 * h] *= keep, out[n][2 * h + 1] *= keep;
            }
#pragma unroll
            for (int k = 0; k < 4; k++) {
                pf[k][0] = kg_pack(s[2 * k][0], s[2 * k][1]);
                pf[k][1] = kg_pack(s[2 * k][2], s[2 * k][3]);
                pf[k][2] = kg_pack(s[2 * k + 1][0], s[2 * k + 1][1]);
                pf[k][3] = kg_pack(s[2 * k + 1][2], s[2 * k + 1][3]);
            }
        }
        kg_copy_wait<0>();
        __syncthreads();
        if (block < block1) {
            page = (const __half *)next + kv_offset;
            next = t.pages[min(block + 2, block1)];
            load_rows<HD>(ks, page + p.k_offset, p.token_stride, min(64u, end - t0 - 64), chunks);
        }
        kg_copy_commit();
        if (live) {
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int n = 0; n < HV / 16; n++) {
                    const uint32_t row = k * 16 + lane % 16, c = 2 * n + lane / 16;
                    uint32_t b[4];
                    kg_ldmatrix_turned(b, vs + row * (HV * 2) + ((c ^ (row & 7)) << 4));
                    kg_mma(out[2 * n], pf[k], b[0], b[1]);
                    kg_mma(out[2 * n + 1], pf[k], b[2], b[3]);
                }
        }
    }

    kg_flash_store<HV / 8>(p, t.row0 + first, n_rows, warp * 16 + lane / 4, head, column0, total, top, unit, [&](int h, int i) { return out[i / 2][2 * h + i % 2]; });
}

template <int HD, int HV> cudaError_t run(const KgFlash *p, cudaStream_t stream) {
    const size_t smem = 64 * 2 * (HD + HV + (HD > 128 ? HD : 0));
    return kg_launch(kg_flash<HD, HV>, dim3(p->n_heads, p->tiles ? p->n_tiles : (p->n_tokens + 63) / 64, HD / HV), dim3(128), smem, 0, stream, *p);
}
} // namespace

cudaError_t kgc_flash_mma(const KgFlash *p, cudaStream_t stream) {
    cudaError_t e = kg_flash_check(p);
    if (e != cudaSuccess) return e;
    if (p->head_dim <= 64) return run<64, 64>(p, stream);
    if (p->head_dim <= 128) return run<128, 128>(p, stream);
    if (p->head_dim <= 256) return run<256, 256>(p, stream);
    return run<512, 256>(p, stream);
}

cudaError_t kgc_flash_prefill(const KgFlash *p, cudaStream_t stream) {
    return p->wgmma && p->head_dim <= 256 ? kgc_flash_sm90(p, stream) : kgc_flash_mma(p, stream);
}
