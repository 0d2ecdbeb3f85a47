// Attention of one token over the paged cache for heads up to 128 wide, on tensor cores. decode_attention.cuh says what is computed.
//
// A block takes up to 8 query heads of one key head and a chunk of 256 positions, a warp two tiles of 16 of them:
//   S [16, 16] = Q [16, hd] K^T: rows 0..7 of Q are the heads' high halves, rows 8..15 the low ones; K as it lies in the cache
//   O [16, hd] = P [16, 16] V, P = exp(S - largest of the warp) in two halves as well
// q = 2^e (hi + lo) per head and p = hi + lo to 22 bits, products of two f16 are exact, sums are f32: rounding is that of f32. A lane
// (g = lane / 4, t = lane % 4) loads 16 bytes of K at 8 t of each block of 32 elements, and of V at 8 g of each of 64, straight into
// the operands' registers: the order of elements within a sum, and of the columns of O, is free.
// All of K and V is requested before the kernels this one depends on have finished (earlier steps have written it), except the
// row of the token itself, which is made here. Warps are merged in order, then chunks, by the last block of a head group to finish.
// What is computed depends on the position alone, not on who else is in the launch.
// Grid: (n_kv * ceil(group / 8), chunks, sequences); 256 threads. Bytes moved: the window's K and V once.
#include "attention/decode_attention.cuh"

constexpr uint32_t KG_TILES = KG_TENSOR_CHUNK / 128; // of a warp
// Floats of a row of O of a warp: padded, so that the heads' rows begin in different banks.
__host__ __device__ constexpr uint32_t kg_tensor_row(int hd64) { return 64 * hd64 + 4; }
__host__ __device__ constexpr uint32_t kg_tensor_half(int hd64) { return 64 * hd64 + 8; } // halves of a row of q

__device__ __forceinline__ uint32_t kg_word(const uint4 &v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// HD64: blocks of 64 elements of a head. BATCH: a sequence for every blockIdx.z. PLAIN: see decode_attention.cuh.
template <int HD64, bool BATCH, bool PLAIN>
__global__ void __launch_bounds__(256, HD64 == 1 ? 2 : 1) kg_decode_attention_mma(const __grid_constant__ KgAttend p) {
    KG_DYNAMIC_SHARED(float, shared);
    constexpr uint32_t HD = 64 * HD64, ROW = kg_tensor_row(HD64), HALF = kg_tensor_half(HD64), T = KG_TILES;
    const uint32_t hd = p.head_dim, group = p.n_heads / p.n_kv, per_kv = (group + 7) / 8;
    const uint32_t kv = blockIdx.x / per_kv, first = blockIdx.x % per_kv * 8, n_rep = min(8u, group - first), head0 = kv * group + first;
    const uint32_t warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const KgState *state = p.state + (BATCH ? blockIdx.z : 0);
    const int pos = state->position;
    const int start = p.window && pos + 1 > (int)p.window ? pos + 1 - (int)p.window : 0;
    const int first_chunk = start / (int)KG_TENSOR_CHUNK, last_chunk = pos / (int)KG_TENSOR_CHUNK;
    const int n_active = last_chunk - first_chunk + 1, c = first_chunk + (int)blockIdx.y;
    kg_launch_dependents();
    if (c > last_chunk) return;
    const bool newest = c == last_chunk;
    const uint64_t *pages = kg_page_table(p, state);
    const size_t tile = (size_t)64 * hd, k_at = p.layer_at + kv * tile, v_at = k_at + p.n_kv * tile;

    uint4 k[T][2][2 * HD64], v[T][4][HD64];
    int base[T]; // of the tiles, which lie side by side: short contexts keep all warps busy
#pragma unroll
    for (uint32_t i = 0; i < T; i++) {
        base[i] = c * (int)KG_TENSOR_CHUNK + (int)(i * 8 + warp) * 16;
        // One page a tile.
        const __half *page = base[i] < pos && base[i] + 16 > start ? (const __half *)pages[base[i] >> 6] + (size_t)(base[i] & 63) * hd : nullptr;
        auto there = [&](uint32_t row, uint32_t e) { return page && base[i] + (int)row >= start && base[i] + (int)row < pos && e < hd; };
#pragma unroll
        for (uint32_t n = 0; n < 2; n++)
#pragma unroll
            for (uint32_t b = 0; b < 2 * HD64; b++) {
                const uint32_t row = 8 * n + g, e = 32 * b + 8 * t;
                k[i][n][b] = make_uint4(0, 0, 0, 0);
                if (there(row, e)) k[i][n][b] = kg_load16(page + k_at + row * hd + e);
            }
#pragma unroll
        for (uint32_t n = 0; n < 4; n++)
#pragma unroll
            for (uint32_t b = 0; b < HD64; b++) {
                const uint32_t row = 2 * t + n % 2 + n / 2 * 8, e = 64 * b + 8 * g;
                v[i][n][b] = make_uint4(0, 0, 0, 0);
                if (there(row, e)) v[i][n][b] = kg_load16(page + v_at + row * hd + e);
            }
    }

    // Shared memory: O of the warps; over it, before: q in halves [8][hi, lo][HALF], k and v of the token [HD] each, rows in f32.
    float *const parts_o = shared, *const ml = parts_o + 64 * ROW, *const turn = ml + 128 + 8;
    __half *const qh = (__half *)shared, *const kn = qh + 16 * HALF, *const vn = kn + HD;
    float *const rows = (float *)(vn + HD), *const q_scale = ml + 128;
    float *const norms = turn + p.n_rot;
    kg_decode_attention_turns(p, pos, PLAIN ? 0 : state->is_long, turn);
    kg_decode_attention_norms(p, norms);
    for (uint32_t i = threadIdx.x; i < (16 * HALF + 2 * HD) / 2; i += blockDim.x) ((uint32_t *)qh)[i] = 0;
    __syncthreads();

    kg_wait();
    const float *q = p.qkv + (BATCH ? (size_t)blockIdx.z * p.qkv_stride : 0) + (size_t)head0 * hd;
    const float *new_k = p.qkv + (BATCH ? (size_t)blockIdx.z * p.qkv_stride : 0) + (size_t)(p.n_heads + kv) * hd, *new_v = new_k + (size_t)p.n_kv * hd;
#pragma unroll 1
    for (uint32_t r = warp; r < n_rep + 1; r += 8) {
        const bool key = r == n_rep;
        float *x = rows + warp * HD;
        const float *norm = (key ? p.k_norm : p.q_norm) ? norms + (key ? hd : 0) : nullptr;
        if (!PLAIN && key && p.is_kept) { kg_kept_halves(p, pages, pos, k_at, v_at, kn, vn); continue; }
        kg_decode_attention_row<PLAIN, 2 * HD64>(p, key ? new_k : q + r * hd, norm, turn, key ? -1 : pos, x);
        float *tap = !newest ? nullptr : key ? (p.tap_k && first == 0 ? p.tap_k + kv * hd : nullptr) : p.tap_q ? p.tap_q + (head0 + r) * hd : nullptr;
        if (key) {
            __half *page = newest && first == 0 ? (__half *)pages[pos >> 6] + (size_t)(pos & 63) * hd : nullptr;
#pragma unroll 1
            for (uint32_t i = lane; i < hd; i += 32) {
                if (tap) tap[i] = x[i];
                kn[i] = __float2half_rn(x[i]), vn[i] = __float2half_rn(new_v[i]);
                if (page) page[k_at + i] = kn[i], page[v_at + i] = vn[i];
            }
        } else {
            float m = 0.f;
#pragma unroll 1
            for (uint32_t i = lane; i < hd; i += 32) {
                if (tap) tap[i] = x[i];
                m = fmaxf(m, fabsf(x[i] *= p.scale));
            }
            const uint32_t e = kg_exponent(kg_warp_max(m));
            const float inverse = kg_inverse_power(e);
#pragma unroll 1
            for (uint32_t i = lane; i < hd; i += 32) {
                const float y = x[i] * inverse;
                const __half hi = __float2half_rn(y);
                qh[2 * r * HALF + i] = hi;
                qh[(2 * r + 1) * HALF + i] = __float2half_rn(y - __half2float(hi));
            }
            if (lane == 0) q_scale[r] = kg_power(e);
        }
        __syncwarp();
    }
    __syncthreads();

    uint4 hi[2 * HD64], lo[2 * HD64];
#pragma unroll
    for (uint32_t b = 0; b < 2 * HD64; b++) {
        const __half *from = qh + 2 * g * HALF + 32 * b + 8 * t;
        hi[b] = *(const uint4 *)from, lo[b] = *(const uint4 *)(from + HALF);
    }
    const float scale = g < n_rep ? q_scale[g] : 0.f;
    float s[T][4], top = -INFINITY; // of head g, positions 2 t, 2 t + 1, and 8 behind them
#pragma unroll
    for (uint32_t i = 0; i < T; i++) {
        s[i][0] = s[i][1] = s[i][2] = s[i][3] = -INFINITY;
        if (base[i] > pos) continue;
        // The token's own row.
        const uint32_t own = (uint32_t)(pos - base[i]);
        if (own < 16) {
#pragma unroll
            for (uint32_t n = 0; n < 2; n++)
#pragma unroll
                for (uint32_t b = 0; b < 2 * HD64; b++)
                    if (own == 8 * n + g) k[i][n][b] = *(const uint4 *)(kn + 32 * b + 8 * t);
#pragma unroll
            for (uint32_t n = 0; n < 4; n++)
#pragma unroll
                for (uint32_t b = 0; b < HD64; b++)
                    if (own == 2 * t + n % 2 + n / 2 * 8) v[i][n][b] = *(const uint4 *)(vn + 64 * b + 8 * g);
        }
#pragma unroll
        for (uint32_t n = 0; n < 2; n++) {
            float d[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
            for (uint32_t b = 0; b < 2 * HD64; b++) {
                const uint4 key = k[i][n][b];
                const uint32_t a[4] = {hi[b].x, lo[b].x, hi[b].y, lo[b].y}, a2[4] = {hi[b].z, lo[b].z, hi[b].w, lo[b].w};
                kg_mma(d, a, key.x, key.y);
                kg_mma(d, a2, key.z, key.w);
            }
            s[i][2 * n] = __fmul_rn(__fadd_rn(d[0], d[2]), scale), s[i][2 * n + 1] = __fmul_rn(__fadd_rn(d[1], d[3]), scale);
        }
    }
    if (p.softcap != 0.f) {
#pragma unroll
        for (uint32_t i = 0; i < T * 4; i++) s[i / 4][i % 4] = p.softcap * tanhf(s[i / 4][i % 4] / p.softcap);
    }
#pragma unroll
    for (uint32_t i = 0; i < T; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int at = base[i] + (int)(2 * t) + j % 2 + j / 2 * 8;
            if (at > pos || at < start) s[i][j] = -INFINITY;
            top = fmaxf(top, s[i][j]);
        }
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    float sum = 0.f, o[HD64][8][4];
#pragma unroll
    for (int b = 0; b < HD64; b++)
#pragma unroll
        for (int j = 0; j < 8; j++) o[b][j][0] = o[b][j][1] = o[b][j][2] = o[b][j][3] = 0.f;
#pragma unroll
    for (uint32_t i = 0; i < T; i++) {
        if (base[i] > pos) continue;
        uint32_t a[4];
#pragma unroll
        for (int n = 0; n < 2; n++) {
            float w[2];
#pragma unroll
            for (int j = 0; j < 2; j++) {
                w[j] = top > -INFINITY ? expf(s[i][2 * n + j] - top) : 0.f;
                sum = __fadd_rn(sum, w[j]);
            }
            a[2 * n] = kg_pack(w[0], w[1]);
            const float2 h = __half22float2(*reinterpret_cast<const __half2 *>(&a[2 * n]));
            a[2 * n + 1] = kg_pack(w[0] - h.x, w[1] - h.y);
        }
#pragma unroll
        for (int b = 0; b < HD64; b++)
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const uint32_t how = j % 2 ? 0x7632 : 0x5410;
                kg_mma(o[b][j], a, __byte_perm(kg_word(v[i][0][b], j / 2), kg_word(v[i][1][b], j / 2), how),
                       __byte_perm(kg_word(v[i][2][b], j / 2), kg_word(v[i][3][b], j / 2), how));
            }
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    __syncthreads(); // q and the token's row have been read
    // Columns 2 t and 2 t + 1 of tile j of O are elements 16 t + j and 16 t + 8 + j.
    float *const mine = parts_o + (warp * 8 + g) * ROW + 16 * t;
#pragma unroll
    for (int b = 0; b < HD64; b++)
#pragma unroll
        for (int j = 0; j < 8; j += 4) {
            auto at = [&](int j, int e) { return __fadd_rn(o[b][j][e], o[b][j][e + 2]); };
            *(float4 *)(mine + 64 * b + j) = make_float4(at(j, 0), at(j + 1, 0), at(j + 2, 0), at(j + 3, 0));
            *(float4 *)(mine + 64 * b + 8 + j) = make_float4(at(j, 1), at(j + 1, 1), at(j + 2, 1), at(j + 3, 1));
        }
    if (t == 0) ((float2 *)ml)[warp * 8 + g] = make_float2(top, sum);
    __syncthreads();

    float *const out = p.out + (BATCH ? (size_t)blockIdx.z * p.out_stride : 0) + (size_t)head0 * hd;
    float *const part = p.part + (BATCH ? (size_t)blockIdx.z * p.n_heads * p.max_chunks * (hd + 2) : 0) + (size_t)head0 * p.max_chunks * (hd + 2);
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < n_rep * hd / 4; i += blockDim.x) {
        const uint32_t r = i / (hd / 4), d = i % (hd / 4) * 4;
        float2 of[8];
        float m = -INFINITY, l = 0.f;
        float4 y = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
        for (int w = 0; w < 8; w++) m = fmaxf(m, (of[w] = ((const float2 *)ml)[w * 8 + r]).x);
#pragma unroll
        for (int w = 0; w < 8; w++) {
            const float e = expf(of[w].x - m);
            const float4 x = *(const float4 *)(parts_o + (w * 8 + r) * ROW + d);
            l = __fmaf_rn(e, of[w].y, l);
            y.x = __fmaf_rn(e, x.x, y.x), y.y = __fmaf_rn(e, x.y, y.y), y.z = __fmaf_rn(e, x.z, y.z), y.w = __fmaf_rn(e, x.w, y.w);
        }
        if (n_active == 1) {
            const float inverse = 1.f / kg_with_sink<PLAIN>(p, head0 + r, l, m);
            *(float4 *)(out + r * hd + d) = make_float4(y.x * inverse, y.y * inverse, y.z * inverse, y.w * inverse);
        } else {
            float2 *to = (float2 *)(part + ((size_t)r * p.max_chunks + blockIdx.y) * (hd + 2) + d); // 8-byte aligned
            to[0] = make_float2(y.x, y.y), to[1] = make_float2(y.z, y.w);
            if (d == 0) to[hd / 2] = make_float2(m, l);
        }
    }
    if (n_active == 1) return;
    __threadfence();
    __syncthreads();
    KG_SHARED(uint32_t, order);
    if (threadIdx.x == 0) order = atomicInc(p.counters + (BATCH ? blockIdx.z * gridDim.x : 0) + blockIdx.x, (uint32_t)n_active - 1);
    __syncthreads();
    if (order != (uint32_t)n_active - 1) return;
    __threadfence();
    // The last block: a warp sums the chunks of a head, ascending.
    if (warp >= n_rep) return;
    const float *from = part + (size_t)warp * p.max_chunks * (hd + 2);
    auto ml_of = [&](int i) { return i < n_active ? __ldcg((const float2 *)(from + (size_t)i * (hd + 2) + hd)) : make_float2(-INFINITY, 0.f); };
    constexpr int AT_ONCE = 32 / HD64; // chunks whose loads go side by side, with those of the largest scores
    const float2 near[2] = {ml_of((int)lane), ml_of((int)lane + 32)};
    float m = -INFINITY, l = 0.f, e = 0.f;
    float2 y[HD64] = {};
#pragma unroll 1
    for (int j0 = 0; j0 < n_active; j0 += AT_ONCE) {
        float2 x[AT_ONCE][HD64];
#pragma unroll
        for (uint32_t b = 0; b < HD64; b++) {
            const float *at = from + (size_t)j0 * (hd + 2) + 64 * b + 2 * lane;
            const int there = 64 * b + 2 * lane < hd ? n_active - j0 : 0;
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) {
                x[j][b] = j < there ? __ldcg((const float2 *)at) : make_float2(0.f, 0.f);
                at += hd + 2;
            }
        }
        if (j0 == 0) {
            m = fmaxf(near[0].x, near[1].x);
#pragma unroll 1
            for (int i = (int)lane + 64; i < n_active; i += 32) m = fmaxf(m, ml_of(i).x);
#pragma unroll
            for (int o = 16; o > 0; o >>= 1) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, o));
        }
        if (j0 % 32 == 0) {
            const float2 of = j0 == 0 ? near[0] : j0 == 32 ? near[1] : ml_of(j0 + (int)lane);
            e = expf(of.x - m);
            l = __fmaf_rn(e, of.y, l);
        }
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            const float w = __shfl_sync(0xffffffffu, e, j0 + j);
#pragma unroll
            for (uint32_t b = 0; b < HD64; b++) y[b].x = __fmaf_rn(w, x[j][b].x, y[b].x), y[b].y = __fmaf_rn(w, x[j][b].y, y[b].y);
        }
    }
    const float inverse = 1.f / kg_with_sink<PLAIN>(p, head0 + warp, kg_warp_sum(l), m);
#pragma unroll
    for (uint32_t b = 0; b < HD64; b++) {
        const uint32_t d = 64 * b + 2 * lane;
        if (d < hd) *(float2 *)(out + warp * hd + d) = make_float2(y[b].x * inverse, y[b].y * inverse);
    }
}

template <bool PLAIN> static cudaError_t run(const KgAttend *p, uint32_t chunks, int pdl, cudaStream_t stream) {
    const int hd64 = p->head_dim <= 64 ? 1 : 2;
    const uint32_t group = p->n_heads / p->n_kv;
    const size_t smem = (64 * kg_tensor_row(hd64) + 128 + 8 + p->n_rot + kg_decode_attention_norms_floats(p)) * 4;
    const dim3 grid(p->n_kv * ((group + 7) / 8), chunks, p->n_seq ? p->n_seq : 1);
    auto launch = [&](void (*kernel)(KgAttend)) { return kg_launch(kernel, grid, dim3(256), smem, pdl, stream, *p); };
    if (hd64 == 1) return launch(p->n_seq ? kg_decode_attention_mma<1, true, PLAIN> : kg_decode_attention_mma<1, false, PLAIN>);
    return launch(p->n_seq ? kg_decode_attention_mma<2, true, PLAIN> : kg_decode_attention_mma<2, false, PLAIN>);
}

cudaError_t kg_decode_attention_mma_launch(const KgAttend *p, uint32_t chunks, int pdl, cudaStream_t stream) {
    const bool more = p->sinks || p->interval || p->norm_last || p->turns[0] != p->turns[1] || p->is_kept;
    return more ? run<false>(p, chunks, pdl, stream) : run<true>(p, chunks, pdl, stream);
}
