// The heads of a prompt's tokens: norm, rope, and the cache's new rows. A token and up to 64 heads a block.
//
//   q_h = rope(rms_norm(q_h) * q_norm, p), k likewise, v;   p = start + token; norms where given
//   norms behind the rope where norm_last; q_h times 1 + beta ln(1 + floor(p / interval)) where interval is not 0
//   rope turns elements (i, i + n_rot / 2) or (2 i, 2 i + 1) by p * turns[i] full turns, i < n_rot / 2, of the row's own turns
//   q as f16 for attention, k and v as f16 into the cache's pages (layout: flash_prefill_mma.cu), clamped to +-65504; k and v have no
//   heads where another layer has made them
// Pages are 8-byte aligned. Bytes moved: qkv once, q, k and v once as f16. Reference: tests/gpu/operations/prefill.rs.
#include "device/vectors.cuh"

namespace {
// Whose the block's row is, and where.
__device__ __forceinline__ KgRow kg_row(const KgPrefillRope &p) {
    return p.rows ? p.rows[blockIdx.x] : KgRow{p.pages, p.start + blockIdx.x, p.is_long};
}

// The same where all of a head is turned and everything is aligned: HD / 8 lanes a head, eight elements each, in two runs of
// four. Runs are pairs' first and second elements (halves) or two pairs each.
template <int HD> __global__ void __launch_bounds__(512) kg_prefill_rope_whole(const __grid_constant__ KgPrefillRope p) {
    constexpr uint32_t LANES = HD / 8, HALF = HD / 2;
    KG_SHARED(float[HALF], cosine);
    KG_SHARED(float[HALF], sine);
    const KgRow place = kg_row(p);
    const uint32_t token = blockIdx.x, position = place.position, n_rows = p.n_heads + 2 * p.n_kv;
    const uint32_t head = (blockIdx.y * blockDim.x + threadIdx.x) / LANES, lane = threadIdx.x % LANES;
    const bool halves = p.pairing == KG_PAIRS_HALVES;
    const uint32_t iu = halves ? 4 * lane : 8 * lane, iv = halves ? iu + HALF : iu + 4;
    const bool here = head < n_rows, is_q = head < p.n_heads, is_v = head >= p.n_heads + p.n_kv;
    kg_begin();
    const float *row = p.qkv + (size_t)token * p.qkv_stride + (here ? head : 0) * HD;
    float4 u = *(const float4 *)(row + iu), v = *(const float4 *)(row + iv);
    __half *page = (__half *)place.pages[position / 64] + position % 64 * p.token_stride;
    const float magnitude = p.magnitude[place.is_long];
    for (uint32_t i = threadIdx.x; i < HALF; i += blockDim.x) {
        const double turn = (double)position * p.turns[place.is_long][i];
        float s, c;
        sincospif(2.f * (float)(turn - rint(turn)), &s, &c);
        sine[i] = s * magnitude, cosine[i] = c * magnitude;
    }
    __syncthreads();
    const float *norm = is_q ? p.q_norm : p.k_norm;
    if (p.q_norm || p.k_norm) { // for the whole block, so that every lane takes part
        float ss = u.x * u.x + u.y * u.y + u.z * u.z + u.w * u.w + v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
#pragma unroll
        for (int o = LANES / 2; o > 0; o >>= 1) ss += __shfl_xor_sync(0xffffffffu, ss, o);
        if (norm && !is_v) {
            const float r = 1.f / sqrtf(ss / (float)HD + p.eps);
            const float4 nu = *(const float4 *)(norm + iu), nv = *(const float4 *)(norm + iv);
            u.x *= r * nu.x, u.y *= r * nu.y, u.z *= r * nu.z, u.w *= r * nu.w;
            v.x *= r * nv.x, v.y *= r * nv.y, v.z *= r * nv.z, v.w *= r * nv.w;
        }
    }
    if (!here) return;
    if (!is_v) {
        const float4 c = *(const float4 *)(cosine + 4 * lane), s = *(const float4 *)(sine + 4 * lane), a = u, b = v;
        if (halves) {
            u = make_float4(a.x * c.x - b.x * s.x, a.y * c.y - b.y * s.y, a.z * c.z - b.z * s.z, a.w * c.w - b.w * s.w);
            v = make_float4(a.x * s.x + b.x * c.x, a.y * s.y + b.y * c.y, a.z * s.z + b.z * c.z, a.w * s.w + b.w * c.w);
        } else {
            u = make_float4(a.x * c.x - a.y * s.x, a.x * s.x + a.y * c.x, a.z * c.y - a.w * s.y, a.z * s.y + a.w * c.y);
            v = make_float4(b.x * c.z - b.y * s.z, b.x * s.z + b.y * c.z, b.z * c.w - b.w * s.w, b.z * s.w + b.w * c.w);
        }
    }
    const uint32_t kv = head - p.n_heads - (is_v ? p.n_kv : 0);
    __half *to = is_q ? (__half *)p.q + (size_t)token * p.q_stride + head * HD : page + (is_v ? p.v_offset : p.k_offset) + kv * p.head_stride;
    float *tap = is_q ? p.tap_q : is_v ? nullptr : p.tap_k;
    if (tap) {
        tap += is_q ? ((size_t)token * p.n_heads + head) * HD : ((size_t)token * p.n_kv + kv) * HD;
        *(float4 *)(tap + iu) = u, *(float4 *)(tap + iv) = v;
    }
    auto halves4 = [](const float4 &f) {
        KgHalves<4> h;
        h.v[0] = __float2half_rn(kg_clamp16(f.x)), h.v[1] = __float2half_rn(kg_clamp16(f.y));
        h.v[2] = __float2half_rn(kg_clamp16(f.z)), h.v[3] = __float2half_rn(kg_clamp16(f.w));
        return h;
    };
    *(KgHalves<4> *)(to + iu) = halves4(u), *(KgHalves<4> *)(to + iv) = halves4(v);
}

template <int HD> cudaError_t run_rope_whole(const KgPrefillRope *p, cudaStream_t stream) {
    const uint32_t lanes = (p->n_heads + 2 * p->n_kv) * (HD / 8), blocks = (lanes + 511) / 512;
    const uint32_t threads = ((lanes + blocks - 1) / blocks + 31) / 32 * 32;
    return kg_launch(kg_prefill_rope_whole<HD>, dim3(p->n_tokens, blocks), dim3(threads), 0, 0, stream, *p);
}

// A head's turned pairs `x`, whose squares are `ss`, times their norm, where it is given, and the temperature of a query's position.
template <int PAIRS, typename At, typename Put>
__device__ __forceinline__ void kg_rope_more(const KgPrefillRope &p, const float (&x)[PAIRS][2], float ss, const float *norm, uint32_t position,
                                             At at, Put put) {
    const float r = norm ? 1.f / sqrtf(kg_warp_sum(ss) / (float)p.head_dim + p.eps) : 1.f;
    const float warm = p.interval ? kg_temperature(p.beta, p.interval, position) : 1.f; // 1 at position 0
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        const uint32_t i = j * 32 + threadIdx.x % 32;
        if (2 * i >= p.head_dim) break;
        uint32_t ia, ib;
        at(i, ia, ib);
        float a = x[j][0], b = x[j][1];
        if (norm) a *= r * norm[ia], b *= r * norm[ib];
        put(ia, ib, a * warm, b * warm);
    }
}

// PAIRS: pairs of elements a lane holds of one head; HEADS: heads a warp takes, eight apart. MORE: norms may stand behind the rope, and
// queries may have a temperature.
template <int PAIRS, int HEADS, bool MORE> __global__ void __launch_bounds__(256) kg_prefill_rope(const __grid_constant__ KgPrefillRope p) {
    KG_SHARED(float2[256], turned); // cosine, sine
    const KgRow place = kg_row(p);
    const uint32_t token = blockIdx.x, position = place.position, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t hd = p.head_dim, half = p.n_rot / 2, n_rows = p.n_heads + 2 * p.n_kv, head0 = blockIdx.y * 8 * HEADS + warp;
    // Pair i: turned elements first, the rest as neighbours.
    auto at = [&](uint32_t i, uint32_t &ia, uint32_t &ib) {
        const bool apart = p.pairing == KG_PAIRS_HALVES && i < half;
        ia = apart ? i : 2 * i, ib = apart ? i + half : 2 * i + 1;
    };
    const double turn = threadIdx.x < half ? (double)position * p.turns[place.is_long][threadIdx.x] : 0.;
    kg_begin();
    // The loads first: the angles are computed while they are under way.
    const float *row = p.qkv + (size_t)token * p.qkv_stride;
    __half *page = (__half *)place.pages[position / 64] + position % 64 * p.token_stride;
    float a[HEADS][PAIRS], b[HEADS][PAIRS];
#pragma unroll
    for (int h = 0; h < HEADS; h++)
#pragma unroll
        for (int j = 0; j < PAIRS; j++) {
            const uint32_t i = j * 32 + lane, head = head0 + 8 * h;
            uint32_t ia, ib;
            at(i, ia, ib);
            const bool in = head < n_rows && 2 * i < hd;
            a[h][j] = in ? row[head * hd + ia] : 0.f, b[h][j] = in ? row[head * hd + ib] : 0.f;
        }
    if (threadIdx.x < half) {
        // In turns and in double, so that a large position costs no accuracy.
        float s, c, magnitude = p.magnitude[place.is_long];
        sincospif(2.f * (float)(turn - rint(turn)), &s, &c);
        turned[threadIdx.x] = make_float2(c * magnitude, s * magnitude);
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        const uint32_t head = head0 + 8 * h;
        if (head >= n_rows) break;
        const bool is_q = head < p.n_heads, is_v = head >= p.n_heads + p.n_kv;
        const float *norm = is_v ? nullptr : is_q ? p.q_norm : p.k_norm;
        const uint32_t kv = head - p.n_heads - (is_v ? p.n_kv : 0);
        __half *to = is_q ? (__half *)p.q + (size_t)token * p.q_stride + head * hd : page + (is_v ? p.v_offset : p.k_offset) + kv * p.head_stride;
        float *tap = is_q ? p.tap_q : is_v ? nullptr : p.tap_k;
        if (tap) tap += is_q ? ((size_t)token * p.n_heads + head) * hd : ((size_t)token * p.n_kv + kv) * hd;
        auto put = [&](uint32_t ia, uint32_t ib, float x, float y) {
            if (tap) tap[ia] = x, tap[ib] = y;
            const __half hx = __float2half_rn(kg_clamp16(x)), hy = __float2half_rn(kg_clamp16(y));
            if (ib == ia + 1)
                *(__half2 *)(to + ia) = __halves2half2(hx, hy);
            else
                to[ia] = hx, to[ib] = hy;
        };
        float ss = 0.f;
#pragma unroll
        for (int j = 0; j < PAIRS; j++) {
            const uint32_t i = j * 32 + lane;
            if (2 * i >= hd) break;
            ss += a[h][j] * a[h][j] + b[h][j] * b[h][j];
        }
        const float r = norm ? 1.f / sqrtf(kg_warp_sum(ss) / (float)hd + p.eps) : 1.f;
        [[maybe_unused]] float after[MORE ? PAIRS : 1][2], ss2 = 0.f;
        const bool last = MORE && p.norm_last;
#pragma unroll
        for (int j = 0; j < PAIRS; j++) {
            const uint32_t i = j * 32 + lane;
            if (2 * i >= hd) break;
            uint32_t ia, ib;
            at(i, ia, ib);
            float x = a[h][j], y = b[h][j];
            if (norm && !last) x *= r * norm[ia], y *= r * norm[ib];
            if (!is_v && i < half) {
                const float2 t = turned[i];
                const float x0 = x;
                x = x0 * t.x - y * t.y, y = x0 * t.y + y * t.x;
            }
            if constexpr (MORE) after[j][0] = x, after[j][1] = y, ss2 += x * x + y * y;
            else put(ia, ib, x, y);
        }
        if constexpr (MORE) kg_rope_more<PAIRS>(p, after, ss2, last ? norm : nullptr, is_q ? position : 0, at, put);
    }
}

template <int PAIRS, int HEADS> cudaError_t run_rope(const KgPrefillRope *p, cudaStream_t stream) {
    const dim3 grid(p->n_tokens, (p->n_heads + 2 * p->n_kv + 8 * HEADS - 1) / (8 * HEADS));
    const bool more = p->norm_last || p->interval;
    return kg_launch(more ? kg_prefill_rope<PAIRS, HEADS, true> : kg_prefill_rope<PAIRS, HEADS, false>, grid, dim3(256), 0, 0, stream, *p);
}
} // namespace

KGC_API cudaError_t kgc_prefill_rope(const KgPrefillRope *p, cudaStream_t stream) {
    bool ok = p->qkv && p->q && (p->pages || p->rows) && p->n_tokens && p->n_heads;
    ok = ok && ((p->turns[0] && p->turns[1]) || !p->n_rot) && p->is_long < 2;
    ok = ok && p->head_dim && p->head_dim % 2 == 0 && p->head_dim <= 512;
    ok = ok && p->n_rot % 2 == 0 && p->n_rot <= p->head_dim && p->token_stride >= p->head_dim;
    ok = ok && p->qkv_stride >= (uint64_t)(p->n_heads + 2 * p->n_kv) * p->head_dim && p->q_stride >= (uint64_t)p->n_heads * p->head_dim;
    ok = ok && ((p->k_offset | p->v_offset | p->head_stride | p->token_stride | p->q_stride) % 2) == 0;
    if (!ok || (uint64_t)p->start + p->n_tokens >= (1u << 31)) return cudaErrorInvalidValue;
    const uint64_t strides = p->k_offset | p->v_offset | p->head_stride | p->token_stride | p->q_stride | p->qkv_stride;
    const uintptr_t all = (uintptr_t)p->qkv | (uintptr_t)p->q_norm | (uintptr_t)p->k_norm | (uintptr_t)p->q |
                          (uintptr_t)p->tap_q | (uintptr_t)p->tap_k;
    if (p->n_rot == p->head_dim && !p->norm_last && !p->interval && strides % 4 == 0 && all % 16 == 0) {
        if (p->head_dim == 64) return run_rope_whole<64>(p, stream);
        if (p->head_dim == 128) return run_rope_whole<128>(p, stream);
        if (p->head_dim == 256) return run_rope_whole<256>(p, stream);
    }
    if (p->head_dim <= 64) return run_rope<1, 4>(p, stream);
    if (p->head_dim <= 128) return run_rope<2, 4>(p, stream);
    if (p->head_dim <= 256) return run_rope<4, 2>(p, stream);
    return run_rope<8, 1>(p, stream);
}
