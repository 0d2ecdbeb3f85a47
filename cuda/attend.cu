// Attention of one token over the paged cache, with what stands before it: norms of the heads, rope, the cache's new row.
//
//   q_h = rope(rms_norm(q_h) * q_norm, p) * scale      [head_dim] f32, norms where the weights are given
//   k   = rope(rms_norm(k) * k_norm, p), v             stored as f16 at position p of the cache
//   s_t = softcap(q_h . k_t), t = max(0, p + 1 - window) .. p;  out_h = softmax(s) v       f32 accumulation
//
// Cache: page g of a sequence holds positions 64 g .. 64 g + 63 as [n_layers][k, v][n_kv][64][head_dim] f16, 16-byte aligned.
// Grid: (n_kv * ceil(group / REP), chunks); a block takes REP query heads of one key head and `chunk` positions. The number
// of chunks follows from the position alone; with more than one the last block to finish sums them in ascending order.
// REP query heads a block, EPL elements a lane, 256 threads. head_dim: multiple of 8, at most 256 (EPL 8) or 512 (EPL 16).
// Bytes moved: the window's K and V once per group of REP heads.
#include "common.cuh"

struct KgAttend {
    const float *qkv;     // [n_heads * hd + 2 * n_kv * hd]
    const float *q_norm;  // [hd] or null
    const float *k_norm;  // [hd] or null
    const double *turns;  // [n_rot / 2]: turns of pair i per position
    const KgState *state;
    float *out;           // [n_heads, hd]
    float *part;          // [n_heads, max_chunks, hd + 2]
    uint32_t *counters;   // [grid.x], zero between launches
    float *tap_q, *tap_k; // [n_heads, hd], [n_kv, hd] or null
    uint32_t n_heads, n_kv, head_dim, n_rot, halves, window, layer, chunk, max_chunks;
    float scale, softcap, eps;
};

// In place, one warp: v[hd] in shared memory.
__device__ void kg_norm_rope(float *v, const KgAttend &p, const float *norm, int position, float scale, float *tap) {
    const uint32_t lane = threadIdx.x & 31, hd = p.head_dim;
    if (norm) {
        float ss = 0.f;
        for (uint32_t i = lane; i < hd; i += 32) ss += v[i] * v[i];
        float r = 1.f / sqrtf(kg_warp_sum(ss) / (float)hd + p.eps);
        for (uint32_t i = lane; i < hd; i += 32) v[i] *= r * norm[i];
        __syncwarp();
    }
    for (uint32_t i = lane; i < p.n_rot / 2; i += 32) {
        // In turns and in double, so that a large position costs no accuracy.
        double turn = (double)position * p.turns[i];
        float s, c;
        sincospif(2.f * (float)(turn - rint(turn)), &s, &c);
        uint32_t a = p.halves ? i : 2 * i, b = p.halves ? i + p.n_rot / 2 : 2 * i + 1;
        float x = v[a], y = v[b];
        v[a] = x * c - y * s;
        v[b] = x * s + y * c;
    }
    __syncwarp();
    if (tap)
        for (uint32_t i = lane; i < hd; i += 32) tap[i] = v[i];
    if (scale != 1.f)
        for (uint32_t i = lane; i < hd; i += 32) v[i] *= scale;
}

template <int EPL> struct KvLane {
    uint4 w[EPL / 8];
    __device__ __forceinline__ void load(const __half *p) {
#pragma unroll
        for (int i = 0; i < EPL / 8; i++) w[i] = __ldg((const uint4 *)p + i);
    }
    __device__ __forceinline__ void expand(float *o) const {
#pragma unroll
        for (int i = 0; i < EPL / 8; i++) {
            const uint32_t q[4] = {w[i].x, w[i].y, w[i].z, w[i].w};
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float2 f = __half22float2(*reinterpret_cast<const __half2 *>(&q[j]));
                o[8 * i + 2 * j] = f.x;
                o[8 * i + 2 * j + 1] = f.y;
            }
        }
    }
};

template <int REP, int EPL> __global__ void __launch_bounds__(256) kg_attend(const __grid_constant__ KgAttend p) {
    extern __shared__ __align__(16) float shared[];
    const uint32_t hd = p.head_dim, group = p.n_heads / p.n_kv, per_kv = (group + REP - 1) / REP;
    const uint32_t kv = blockIdx.x / per_kv, first = (blockIdx.x % per_kv) * REP, n_rep = min((uint32_t)REP, group - first);
    const uint32_t head0 = kv * group + first, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int pos = p.state->position;
    const int start = p.window && pos + 1 > (int)p.window ? pos + 1 - (int)p.window : 0;
    const int first_chunk = start / (int)p.chunk, last_chunk = pos / (int)p.chunk;
    const int n_active = last_chunk - first_chunk + 1, c = first_chunk + (int)blockIdx.y;
    kg_launch_dependents();
    if (c > last_chunk) return;
    const bool newest = c == last_chunk;
    const int t0 = max(c * (int)p.chunk, start), t1 = min((c + 1) * (int)p.chunk, pos); // positions from the cache
    float *qs = shared, *kn = qs + REP * hd, *vn = kn + hd, *ml = vn + hd, *sc = ml + 2 * REP, *red = sc + REP * p.chunk;
    const uint64_t *pages = p.state->pages;
    const size_t tile = (size_t)64 * hd, k_at = ((size_t)(p.layer * 2) * p.n_kv + kv) * tile, v_at = k_at + p.n_kv * tile;
    // Lanes a token: the power of two that holds a head.
    uint32_t lpt = 1;
    while (lpt * EPL < hd) lpt <<= 1;
    const uint32_t tpw = 32 / lpt, e = (lane & (lpt - 1)) * EPL, tl = warp * tpw + lane / lpt, step = 8 * tpw;
    const bool live = e < hd;

    kg_wait();
    const float *q = p.qkv + (size_t)head0 * hd, *k = p.qkv + (size_t)p.n_heads * hd + kv * hd, *v = k + (size_t)p.n_kv * hd;
    for (uint32_t r = warp; r < REP + 1; r += 8) {
        float *to = r < REP ? qs + r * hd : kn;
        const float *from = r < REP ? q + r * hd : k;
        const bool have = r == REP || r < n_rep;
        for (uint32_t i = lane; i < hd; i += 32) to[i] = have ? from[i] : 0.f;
        __syncwarp();
        if (r < n_rep) kg_norm_rope(to, p, p.q_norm, pos, p.scale, p.tap_q && newest ? p.tap_q + (head0 + r) * hd : nullptr);
        else if (r == REP) {
            kg_norm_rope(to, p, p.k_norm, pos, 1.f, p.tap_k && newest && first == 0 ? p.tap_k + kv * hd : nullptr);
            __half *page = (__half *)pages[pos >> 6];
            for (uint32_t i = lane; i < hd; i += 32) {
                __half kh = __float2half_rn(to[i]), vh = __float2half_rn(v[i]);
                to[i] = __half2float(kh);
                vn[i] = __half2float(vh);
                if (newest && first == 0) {
                    page[k_at + (size_t)(pos & 63) * hd + i] = kh;
                    page[v_at + (size_t)(pos & 63) * hd + i] = vh;
                }
            }
        }
    }
    __syncthreads();

    float qr[REP][EPL];
#pragma unroll
    for (int r = 0; r < REP; r++)
#pragma unroll
        for (int i = 0; i < EPL; i++) qr[r][i] = live ? qs[r * hd + e + i] : 0.f;
    const int c0 = c * (int)p.chunk;
    auto score = [&](const float *x, int t) {
#pragma unroll
        for (int r = 0; r < REP; r++) {
            float s = 0.f;
#pragma unroll
            for (int i = 0; i < EPL; i++) s = fmaf(qr[r][i], x[i], s);
            for (uint32_t o = lpt >> 1; o > 0; o >>= 1) s += __shfl_xor_sync(0xffffffffu, s, o);
            if (p.softcap != 0.f) s = p.softcap * tanhf(s / p.softcap);
            if (t >= 0 && (lane & (lpt - 1)) == 0) sc[r * p.chunk + (t - c0)] = s;
        }
    };
    for (int tb = t0; tb < t1; tb += step) {
        int t = tb + (int)tl;
        KvLane<EPL> w;
        float x[EPL];
        if (live && t < t1) {
            w.load((const __half *)pages[t >> 6] + k_at + (size_t)(t & 63) * hd + e);
            w.expand(x);
        } else {
#pragma unroll
            for (int i = 0; i < EPL; i++) x[i] = 0.f;
        }
        score(x, t < t1 ? t : -1);
    }
    if (newest && warp == 0) {
        float x[EPL];
#pragma unroll
        for (int i = 0; i < EPL; i++) x[i] = live ? kn[e + i] : 0.f;
        score(x, lane < lpt ? pos : -1);
    }
    __syncthreads();
    const int i0 = t0 - c0, i1 = (newest ? pos + 1 : t1) - c0;
    for (uint32_t r = warp; r < REP; r += 8) {
        float *s = sc + r * p.chunk, m = -INFINITY, l = 0.f;
        for (int i = i0 + (int)lane; i < i1; i += 32) m = fmaxf(m, s[i]);
#pragma unroll
        for (int o = 16; o > 0; o >>= 1) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, o));
        for (int i = i0 + (int)lane; i < i1; i += 32) {
            float w = expf(s[i] - m);
            s[i] = w;
            l += w;
        }
        l = kg_warp_sum(l);
        if (lane == 0) ml[2 * r] = m, ml[2 * r + 1] = l;
    }
    __syncthreads();

    float acc[REP][EPL];
#pragma unroll
    for (int r = 0; r < REP; r++)
#pragma unroll
        for (int i = 0; i < EPL; i++) acc[r][i] = 0.f;
    for (int t = t0 + (int)tl; t < t1; t += step) {
        if (!live) break;
        KvLane<EPL> w;
        float x[EPL];
        w.load((const __half *)pages[t >> 6] + v_at + (size_t)(t & 63) * hd + e);
        w.expand(x);
#pragma unroll
        for (int r = 0; r < REP; r++) {
            float s = sc[r * p.chunk + (t - c0)];
#pragma unroll
            for (int i = 0; i < EPL; i++) acc[r][i] = fmaf(s, x[i], acc[r][i]);
        }
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < REP; r++)
#pragma unroll
        for (int i = 0; i < EPL; i++) {
            float a = acc[r][i];
            for (uint32_t o = lpt; o < 32; o <<= 1) a += __shfl_xor_sync(0xffffffffu, a, o);
            if (lane < lpt && live) red[(warp * REP + r) * hd + e + i] = a;
        }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n_rep * hd; i += blockDim.x) {
        uint32_t r = i / hd, d = i - r * hd;
        float a = 0.f;
#pragma unroll
        for (int w = 0; w < 8; w++) a += red[(w * REP + r) * hd + d];
        if (newest) a = fmaf(sc[r * p.chunk + (pos - c0)], vn[d], a);
        if (n_active == 1) p.out[(size_t)(head0 + r) * hd + d] = a / ml[2 * r + 1];
        else p.part[((size_t)(head0 + r) * p.max_chunks + blockIdx.y) * (hd + 2) + d] = a;
    }
    if (n_active == 1) return;
    if (threadIdx.x < n_rep) {
        float *to = p.part + ((size_t)(head0 + threadIdx.x) * p.max_chunks + blockIdx.y) * (hd + 2) + hd;
        to[0] = ml[2 * threadIdx.x];
        to[1] = ml[2 * threadIdx.x + 1];
    }
    __threadfence();
    __syncthreads();
    __shared__ uint32_t order;
    if (threadIdx.x == 0) order = atomicInc(p.counters + blockIdx.x, (uint32_t)n_active - 1);
    __syncthreads();
    if (order != (uint32_t)n_active - 1) return;
    __threadfence();
    // The last block: weights of the chunks, then their sum in ascending order.
    float *weight = sc; // [chunks in flight]: at most chunk * REP at a time
    const int batch = (int)(p.chunk);
    for (uint32_t r = warp; r < n_rep; r += 8) {
        const float *from = p.part + (size_t)(head0 + r) * p.max_chunks * (hd + 2) + hd;
        float m = -INFINITY, l = 0.f;
        for (int i = lane; i < n_active; i += 32) m = fmaxf(m, __ldcg(from + (size_t)i * (hd + 2)));
#pragma unroll
        for (int o = 16; o > 0; o >>= 1) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, o));
        for (int i = lane; i < n_active; i += 32) {
            float w = expf(__ldcg(from + (size_t)i * (hd + 2)) - m);
            l += w * __ldcg(from + (size_t)i * (hd + 2) + 1);
        }
        l = kg_warp_sum(l);
        if (lane == 0) ml[2 * r] = m, ml[2 * r + 1] = 1.f / l;
    }
    __syncthreads();
    // red holds the running sums between batches of chunks.
    for (int b = 0; b < n_active; b += batch) {
        int n = min(batch, n_active - b);
        for (uint32_t i = threadIdx.x; i < n_rep * (uint32_t)n; i += blockDim.x) {
            uint32_t r = i / n, j = i - r * n;
            float m = __ldcg(p.part + ((size_t)(head0 + r) * p.max_chunks + b + j) * (hd + 2) + hd);
            weight[r * p.chunk + j] = expf(m - ml[2 * r]);
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < n_rep * hd; i += blockDim.x) {
            uint32_t r = i / hd, d = i - r * hd;
            const float *from = p.part + ((size_t)(head0 + r) * p.max_chunks + b) * (hd + 2) + d;
            float a = b == 0 ? 0.f : red[i];
#pragma unroll 8
            for (int j = 0; j < n; j++) a = fmaf(weight[r * p.chunk + j], __ldcg(from + (size_t)j * (hd + 2)), a);
            red[i] = a;
            if (b + n == n_active) p.out[(size_t)(head0 + r) * hd + d] = a * ml[2 * r + 1];
        }
        __syncthreads();
    }
}

template <int REP, int EPL>
static cudaError_t kg_attend_launch(const KgAttend *p, uint32_t chunks, int pdl, cudaStream_t stream) {
    uint32_t group = p->n_heads / p->n_kv;
    size_t floats = (size_t)REP * p->head_dim + 2 * p->head_dim + 2 * REP + (size_t)REP * p->chunk + (size_t)8 * REP * p->head_dim;
    return kg_launch(kg_attend<REP, EPL>, dim3(p->n_kv * ((group + REP - 1) / REP), chunks), dim3(256), floats * 4, pdl, stream, *p);
}

// chunks: at least the number of active chunks at any position of the sequence this launch may run at; part and counters
// are sized for it. pdl: 1 with programmatic dependent launch.
KGC_API cudaError_t kgc_attend(const KgAttend *p, uint32_t chunks, int pdl, cudaStream_t stream) {
    if (p->n_kv == 0 || p->n_heads % p->n_kv != 0 || p->head_dim % 8 != 0 || p->head_dim > 512 || chunks == 0 || chunks > p->max_chunks)
        return cudaErrorInvalidValue;
    uint32_t group = p->n_heads / p->n_kv;
    if (p->head_dim > 256) {
        if (group == 1) return kg_attend_launch<1, 16>(p, chunks, pdl, stream);
        return kg_attend_launch<2, 16>(p, chunks, pdl, stream);
    }
    if (group == 1) return kg_attend_launch<1, 8>(p, chunks, pdl, stream);
    if (group == 2) return kg_attend_launch<2, 8>(p, chunks, pdl, stream);
    if (group <= 4) return kg_attend_launch<4, 8>(p, chunks, pdl, stream);
    return kg_attend_launch<8, 8>(p, chunks, pdl, stream);
}
