// Attention of one token over the paged cache, with what stands before it: norms of the heads, rope, the cache's new row. decode_attention.cuh
// says what is computed; here for heads wider than 128, narrower ones go to decode_attention_mma.cu.
//
// Grid: (n_kv * ceil(group / REP), chunks, sequences); a block takes REP query heads of one key head and `chunk` positions. The number
// of chunks follows from the position alone; with more than one the last block to finish sums them in ascending order.
// REP query heads a block (a power of two), EPL elements a lane, a warp a token, 256 threads; head_dim: a multiple of 8, at
// most 32 * EPL. A chunk is a whole number of tiles of 4 tokens a group of lanes. The first tile's keys are requested, and its
// values brought into L2, before the kernels this one depends on have finished: earlier steps have written them.
// Bytes moved: the window's K and V once per group of REP heads.
#include "attention/decode_attention_lanes.cuh"

// BATCH: a sequence for every blockIdx.z.
constexpr int kg_decode_attention_blocks(int rep, int epl, bool batch) { return !batch || epl > 8 ? 1 : rep == 2 ? 4 : 2; } // a multiprocessor

template <int REP, int EPL, bool BATCH>
__global__ void __launch_bounds__(256, kg_decode_attention_blocks(REP, EPL, BATCH)) kg_decode_attention(const __grid_constant__ KgAttend p) {
    KG_DYNAMIC_SHARED(float, shared);
    // With one head there is room for the whole of a small chunk at once.
    constexpr int LPT = 32, PASSES = REP == 1 && EPL == 8 ? LPT / 2 : 4, TPW = 32 / LPT, STEP = 8 * TPW, TILE = PASSES * STEP;
    const uint32_t hd = p.head_dim, group = p.n_heads / p.n_kv, per_kv = (group + REP - 1) / REP;
    const uint32_t kv = blockIdx.x / per_kv, first = (blockIdx.x % per_kv) * REP, n_rep = min((uint32_t)REP, group - first);
    const uint32_t head0 = kv * group + first, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const KgState *state = p.state + (BATCH ? blockIdx.z : 0);
    const int pos = state->position;
    const uint32_t chunk = BATCH && (uint32_t)pos >= p.long_from ? p.long_chunk : p.chunk;
    const float *qkv = p.qkv + (BATCH ? (size_t)blockIdx.z * p.qkv_stride : 0);
    float *out = p.out + (BATCH ? (size_t)blockIdx.z * p.out_stride : 0);
    float *parts = p.part + (BATCH ? (size_t)blockIdx.z * p.n_heads * p.max_chunks * (p.head_dim + 2) : 0);
    uint32_t *counters = p.counters + (BATCH ? blockIdx.z * gridDim.x : 0);
    const int start = p.window && pos + 1 > (int)p.window ? pos + 1 - (int)p.window : 0;
    const int first_chunk = start / (int)chunk, last_chunk = pos / (int)chunk;
    const int n_active = last_chunk - first_chunk + 1, c = first_chunk + (int)blockIdx.y;
    kg_launch_dependents();
    if (c > last_chunk) return;
    const bool newest = c == last_chunk;
    const int c0 = c * (int)chunk;
    const int t0 = max(c0, start), t1 = min(c0 + (int)chunk, pos); // positions from the cache
    float *qs = shared, *kn = qs + REP * hd, *vn = kn + hd, *ml = vn + hd, *turn = ml + 2 * REP, *norms = turn + hd,
          *sc = norms + (p.q_norm || p.k_norm ? 2 * hd : 0), *red = sc + REP * chunk;
    const uint64_t *pages = kg_page_table(p, state);
    const size_t tile = (size_t)64 * hd, k_at = p.layer_at + kv * tile, v_at = k_at + p.n_kv * tile;
    const uint32_t e = (lane & (LPT - 1)) * EPL;
    const int tl = (int)(warp * TPW + lane / LPT);
    const bool live = e < hd;
    // With one head the first values are held as well, and every warp finds the largest score for itself.
    constexpr bool ONE = REP == 1;
    KvLane<EPL> held[ONE ? 2 : 1][PASSES];
    auto &w = held[0], &wv = held[ONE ? 1 : 0];
    auto fetch = [&](KvLane<EPL> &w, size_t at, int t) {
        if (live && t < t1) w.load((const __half *)pages[t >> 6] + at + (size_t)(t & 63) * hd + e);
        else w.zero();
    };
    auto fetch_all = [&](size_t at, int tb) {
#pragma unroll
        for (int i = 0; i < PASSES; i++) fetch(w[i], at, tb + i * STEP + tl);
    };
#pragma unroll
    for (int i = 0; i < PASSES; i++) {
        fetch(w[i], k_at, t0 + i * STEP + tl);
        if constexpr (ONE) fetch(wv[i], v_at, t0 + i * STEP + tl);
    }
    // The rest of a long chunk comes into L2 meanwhile.
#pragma unroll 1
    for (int t = t0 + (int)threadIdx.x; t < t1; t += (int)blockDim.x) {
        const __half *page = (const __half *)pages[t >> 6] + (size_t)(t & 63) * hd;
#pragma unroll 1
        for (uint32_t d = 0; d < hd; d += 64) {
            kg_prefetch(page + k_at + d);
            kg_prefetch(page + v_at + d);
        }
    }
    kg_decode_attention_turns(p, pos, state->is_long, turn);
    kg_decode_attention_norms(p, norms);
    __syncthreads();

    kg_wait();
    const float *q = qkv + (size_t)head0 * hd, *k = qkv + (size_t)p.n_heads * hd + kv * hd, *v = k + (size_t)p.n_kv * hd;
#pragma unroll 1
    for (uint32_t r = warp; r < REP + 1; r += 8) {
        if (r >= n_rep && r != REP) {
#pragma unroll 1
            for (uint32_t i = lane; i < hd; i += 32) qs[r * hd + i] = 0.f;
            continue;
        }
        const bool key = r == REP;
        float *x = key ? kn : qs + r * hd;
        const float *from = key ? k : q + r * hd, *norm = (key ? p.k_norm : p.q_norm) ? norms + (key ? hd : 0) : nullptr;
        if (key && p.is_kept) {
            kg_kept_row(p, pages, pos, k_at, v_at, [&](uint32_t i, __half kh, __half vh) { x[i] = __half2float(kh), vn[i] = __half2float(vh); });
            continue;
        }
        kg_decode_attention_row<false, 4>(p, from, norm, turn, key ? -1 : pos, x);
        float *tap = !newest ? nullptr : key ? (p.tap_k && first == 0 ? p.tap_k + kv * hd : nullptr) : p.tap_q ? p.tap_q + (head0 + r) * hd : nullptr;
        __half *page = key && newest && first == 0 ? (__half *)pages[pos >> 6] : nullptr;
#pragma unroll 1
        for (uint32_t i = lane; i < hd; i += 32) {
            if (tap) tap[i] = x[i];
            if (key) {
                const __half kh = __float2half_rn(x[i]), vh = __float2half_rn(v[i]);
                x[i] = __half2float(kh);
                vn[i] = __half2float(vh);
                if (page) {
                    page[k_at + (size_t)(pos & 63) * hd + i] = kh;
                    page[v_at + (size_t)(pos & 63) * hd + i] = vh;
                }
            } else {
                x[i] *= p.scale;
            }
        }
    }
    __syncthreads();

    bool stores;
    const uint32_t my_head = kg_head<REP, LPT>(lane, stores);
    {
        float qr[REP][EPL];
#pragma unroll
        for (int r = 0; r < REP; r++)
#pragma unroll
            for (int i = 0; i < EPL; i++) qr[r][i] = live ? qs[r * hd + e + i] : 0.f;
        auto score = [&](const float *x, int t, bool there) {
            float s[REP];
#pragma unroll
            for (int r = 0; r < REP; r++) {
                s[r] = 0.f;
#pragma unroll
                for (int i = 0; i < EPL; i++) s[r] = fmaf(qr[r][i], x[i], s[r]);
            }
            float sum = kg_sum_heads<REP, LPT>(s, lane);
            if (p.softcap != 0.f) sum = p.softcap * tanhf(sum / p.softcap);
            if (there && stores) sc[my_head * chunk + (t - c0)] = sum;
        };
#pragma unroll 1
        for (int tb = t0; tb < t1; tb += TILE) {
            if constexpr (ONE) {
                // The same sums, all passes beside one another.
                float s[PASSES];
#pragma unroll
                for (int i = 0; i < PASSES; i++) {
                    float x[EPL];
                    w[i].expand(x);
                    s[i] = 0.f;
#pragma unroll
                    for (int j = 0; j < EPL; j++) s[i] = fmaf(qr[0][j], x[j], s[i]);
                    if (tb + TILE < t1) fetch(w[i], k_at, tb + TILE + i * STEP + tl);
                }
#pragma unroll
                for (int o = LPT / 2; o > 0; o >>= 1)
#pragma unroll
                    for (int i = 0; i < PASSES; i++) s[i] += __shfl_xor_sync(0xffffffffu, s[i], o);
                if (p.softcap != 0.f) {
#pragma unroll
                    for (int i = 0; i < PASSES; i++) s[i] = p.softcap * tanhf(s[i] / p.softcap);
                }
#pragma unroll
                for (int i = 0; i < PASSES; i++) {
                    const int t = tb + i * STEP + tl;
                    if (t < t1 && stores) sc[t - c0] = s[i];
                }
            } else {
#pragma unroll
                for (int i = 0; i < PASSES; i++) {
                    float x[EPL];
                    w[i].expand(x);
                    const int t = tb + i * STEP + tl;
                    score(x, t, t < t1);
                }
                if (tb + TILE < t1) fetch_all(k_at, tb + TILE);
            }
        }
        if (newest && warp == 7) {
            float x[EPL];
#pragma unroll
            for (int i = 0; i < EPL; i++) x[i] = live ? kn[e + i] : 0.f;
            score(x, pos, lane < LPT);
        }
    }
    if (!ONE) fetch_all(v_at, t0);
    __syncthreads();
    const int i0 = t0 - c0, i1 = (newest ? pos + 1 : t1) - c0;
    float top = 0.f;
#pragma unroll 1
    for (uint32_t r = ONE ? 0 : warp; r < n_rep; r += 8) {
        float *s = sc + r * chunk, m = -INFINITY, l = 0.f;
#pragma unroll 1
        for (int i = i0 + (int)lane; i < i1; i += 32) m = fmaxf(m, s[i]);
#pragma unroll
        for (int o = 16; o > 0; o >>= 1) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, o));
#pragma unroll 1
        for (int i = i0 + (int)lane; i < i1; i += 32) {
            float x = expf(s[i] - m);
            if (!ONE) s[i] = x;
            l += x;
        }
        l = kg_warp_sum(l);
        if (lane == 0 && (!ONE || warp == 0)) ml[2 * r] = m, ml[2 * r + 1] = l;
        top = m;
    }
    if (!ONE) __syncthreads();
    auto weight = [&](uint32_t r, int t) { return ONE ? expf(sc[t - c0] - top) : sc[r * chunk + (t - c0)]; };

    {
        float acc[REP][EPL];
#pragma unroll
        for (int r = 0; r < REP; r++)
#pragma unroll
            for (int i = 0; i < EPL; i++) acc[r][i] = 0.f;
#pragma unroll 1
        for (int tb = t0; tb < t1; tb += TILE) {
#pragma unroll
            for (int i = 0; i < PASSES; i++) {
                const int t = tb + i * STEP + tl;
                float x[EPL];
                wv[i].expand(x);
                if (ONE && tb + TILE < t1) fetch(wv[i], v_at, t + TILE);
                if (t < t1) {
#pragma unroll
                    for (int r = 0; r < REP; r++) {
                        const float s = r < n_rep ? weight(r, t) : 0.f;
#pragma unroll
                        for (int j = 0; j < EPL; j++) acc[r][j] = fmaf(s, x[j], acc[r][j]);
                    }
                }
            }
            if (!ONE && tb + TILE < t1) fetch_all(v_at, tb + TILE);
        }
        __syncwarp();
        // Over the groups of lanes of the warp, then one row a warp in shared memory.
#pragma unroll
        for (int r = 0; r < REP; r++)
#pragma unroll
            for (int i = 0; i < EPL; i++) {
                float a = acc[r][i];
#pragma unroll
                for (int o = LPT; o < 32; o <<= 1) a += __shfl_xor_sync(0xffffffffu, a, o);
                if (lane < LPT && live) red[(warp * REP + r) * hd + e + i] = a;
            }
    }
    __syncthreads();
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < n_rep * hd; i += blockDim.x) {
        uint32_t r = i / hd, d = i - r * hd;
        float a = 0.f;
#pragma unroll
        for (int x = 0; x < 8; x++) a += red[(x * REP + r) * hd + d];
        if (newest) a = fmaf(weight(r, pos), vn[d], a);
        if (n_active == 1) out[(size_t)(head0 + r) * hd + d] = a / kg_with_sink<false>(p, head0 + r, ml[2 * r + 1], ml[2 * r]);
        else parts[((size_t)(head0 + r) * p.max_chunks + blockIdx.y) * (hd + 2) + d] = a;
    }
    if (n_active == 1) return;
    if (threadIdx.x < n_rep) {
        float *to = parts + ((size_t)(head0 + threadIdx.x) * p.max_chunks + blockIdx.y) * (hd + 2) + hd;
        to[0] = ml[2 * threadIdx.x];
        to[1] = ml[2 * threadIdx.x + 1];
    }
    __threadfence();
    __syncthreads();
    KG_SHARED(uint32_t, order);
    if (threadIdx.x == 0) order = atomicInc(counters + blockIdx.x, (uint32_t)n_active - 1);
    __syncthreads();
    if (order != (uint32_t)n_active - 1) return;
    __threadfence();
    // The last block: per head the chunks' weights, then their sums: eight parts of the chunks at once, warp x taking chunks x,
    // x + 8, .., each in ascending order, then the parts. All loads come first: one of them is as slow as many.
    constexpr int AT_ONCE = 8;
    if constexpr (ONE) {
        constexpr uint32_t r = 0;
        const float *from = parts + (size_t)head0 * p.max_chunks * (hd + 2);
        auto ml_of = [&](int i) { return i < n_active ? __ldcg((const float2 *)(from + (size_t)i * (hd + 2) + hd)) : make_float2(-INFINITY, 0.f); };
        float2 x[AT_ONCE], row_ml[AT_ONCE];
        auto rows = [&](int j0, uint32_t d) {
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++) {
                const int j = j0 + 8 * k;
                row_ml[k] = ml_of(j);
                x[k] = j < n_active && d < hd ? __ldcg((const float2 *)(from + (size_t)j * (hd + 2) + d)) : make_float2(0.f, 0.f);
            }
        };
        rows((int)warp, 2 * lane);
        const float2 first = ml_of((int)lane), second = ml_of((int)lane + 32);
        float m = fmaxf(first.x, second.x), l = 0.f;
#pragma unroll 1
        for (int i = (int)lane + 64; i < n_active; i += 32) m = fmaxf(m, ml_of(i).x);
#pragma unroll
        for (int o = 16; o > 0; o >>= 1) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, o));
        l = __fmaf_rn(expf(second.x - m), second.y, __fmul_rn(expf(first.x - m), first.y));
#pragma unroll 1
        for (int i = (int)lane + 64; i < n_active; i += 32) {
            const float2 c = ml_of(i);
            l = __fmaf_rn(expf(c.x - m), c.y, l);
        }
        l = kg_warp_sum(l);
        if (threadIdx.x == 0) ml[2 * r + 1] = 1.f / kg_with_sink<false>(p, head0, l, m);
#pragma unroll 1
        for (uint32_t d0 = 0; d0 < hd; d0 += 64) {
            const uint32_t d = d0 + 2 * lane;
            float2 a = make_float2(0.f, 0.f);
#pragma unroll 1
            for (int j0 = (int)warp; j0 < n_active; j0 += 8 * AT_ONCE) {
                if (d0 != 0 || j0 != (int)warp) rows(j0, d);
#pragma unroll
                for (int k = 0; k < AT_ONCE; k++) {
                    const float s = expf(row_ml[k].x - m);
                    a.x = fmaf(s, x[k].x, a.x);
                    a.y = fmaf(s, x[k].y, a.y);
                }
            }
            if (d < hd) red[(warp * REP + r) * hd + d] = a.x, red[(warp * REP + r) * hd + d + 1] = a.y;
        }
    } else {
        for (uint32_t r = warp; r < n_rep; r += 8) {
            const float *from = parts + (size_t)(head0 + r) * p.max_chunks * (hd + 2) + hd;
            float m = -INFINITY, l = 0.f;
            for (int i = lane; i < n_active; i += 32) m = fmaxf(m, __ldcg(from + (size_t)i * (hd + 2)));
#pragma unroll
            for (int o = 16; o > 0; o >>= 1) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, o));
            for (int i = lane; i < n_active; i += 32) {
                const float *c = from + (size_t)i * (hd + 2);
                l = __fmaf_rn(expf(__ldcg(c) - m), __ldcg(c + 1), l);
            }
            l = kg_warp_sum(l);
            if (lane == 0) ml[2 * r] = m, ml[2 * r + 1] = 1.f / kg_with_sink<false>(p, head0 + r, l, m);
        }
        __syncthreads();
        for (uint32_t r = 0; r < n_rep; r++) {
            const float *from = parts + (size_t)(head0 + r) * p.max_chunks * (hd + 2);
            const float m = ml[2 * r];
            for (uint32_t d = 2 * lane; d < hd; d += 64) {
                float2 a = make_float2(0.f, 0.f);
#pragma unroll 8
                for (int j = (int)warp; j < n_active; j += 8) {
                    const float *row = from + (size_t)j * (hd + 2);
                    const float s = expf(__ldcg(row + hd) - m);
                    const float2 x = __ldcg((const float2 *)(row + d));
                    a.x = fmaf(s, x.x, a.x);
                    a.y = fmaf(s, x.y, a.y);
                }
                red[(warp * REP + r) * hd + d] = a.x;
                red[(warp * REP + r) * hd + d + 1] = a.y;
            }
        }
    }
    __syncthreads();
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < n_rep * hd; i += blockDim.x) {
        uint32_t r = i / hd, d = i - r * hd;
        float a = 0.f;
#pragma unroll
        for (int x = 0; x < 8; x++) a += red[(x * REP + r) * hd + d];
        out[(size_t)(head0 + r) * hd + d] = a * ml[2 * r + 1];
    }
}

template <int REP, int EPL, bool BATCH>
static cudaError_t kg_decode_attention_launch(const KgAttend *p, uint32_t chunks, int pdl, cudaStream_t stream) {
    const uint32_t group = p->n_heads / p->n_kv, chunk = BATCH && p->long_chunk > p->chunk ? p->long_chunk : p->chunk;
    size_t floats = (size_t)REP * p->head_dim + 3 * p->head_dim + 2 * REP + (size_t)REP * chunk + (size_t)8 * REP * p->head_dim +
                    kg_decode_attention_norms_floats(p);
    const dim3 grid(p->n_kv * ((group + REP - 1) / REP), chunks, BATCH ? p->n_seq : 1);
    return kg_launch(kg_decode_attention<REP, EPL, BATCH>, grid, dim3(256), floats * 4, pdl, stream, *p);
}

template <int EPL, bool BATCH>
static cudaError_t kg_decode_attention_group(const KgAttend *p, uint32_t chunks, uint32_t rep, int pdl, cudaStream_t stream) {
    const uint32_t group = p->n_heads / p->n_kv, want = rep < group ? rep : group;
    if (want <= 1) return kg_decode_attention_launch<1, EPL, BATCH>(p, chunks, pdl, stream);
    if (want == 2 || EPL > 8) return kg_decode_attention_launch<2, EPL, BATCH>(p, chunks, pdl, stream);
    if (want <= 4) return kg_decode_attention_launch<4, EPL, BATCH>(p, chunks, pdl, stream);
    return kg_decode_attention_launch<(EPL > 8 ? 2 : 8), EPL, BATCH>(p, chunks, pdl, stream);
}

template <bool BATCH> static cudaError_t kg_decode_attention_any(const KgAttend *p, uint32_t chunks, uint32_t rep, int pdl, cudaStream_t stream) {
    if (p->head_dim <= 256) return kg_decode_attention_group<8, BATCH>(p, chunks, rep, pdl, stream);
    return kg_decode_attention_group<16, BATCH>(p, chunks, rep, pdl, stream);
}

// chunks: at least the number of active chunks at any position of the sequences this launch may run at; part and counters
// are sized for it. rep: most query heads a block; changes the speed only, never a bit. pdl: 1 with programmatic dependent launch.
KGC_API cudaError_t kgc_decode_attention(const KgAttend *p, uint32_t chunks, uint32_t rep, int pdl, cudaStream_t stream) {
    if (p->n_kv == 0 || p->n_heads % p->n_kv != 0 || p->head_dim % 8 != 0 || p->head_dim > 512 || chunks == 0 || chunks > p->max_chunks)
        return cudaErrorInvalidValue;
    if (p->head_dim <= KG_TENSOR_HEAD) return kg_decode_attention_mma_launch(p, chunks, pdl, stream);
    return p->n_seq == 0 ? kg_decode_attention_any<false>(p, chunks, rep, pdl, stream) : kg_decode_attention_any<true>(p, chunks, rep, pdl, stream);
}
