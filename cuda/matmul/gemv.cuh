// y = W h for one token, with what stands before and after it fused: the stage of a decode step.
//
//   v  = x + (post_w ? rms_norm(delta) * post_w : delta)        [n] f32, where delta is given; block 0 stores it in x_out
//   h  = norm_w ? rms_norm(v) * norm_w : v                      [n] f32, every block for itself
//   y_i = W_i h + bias_i, or activation(W_0 h) * (W_1 h)        [rows] f32 accumulation
//   where softcap is not 0: y * scale, then softcap * tanh(y / softcap) where softcap is finite
//
// Weights are in the layout of abi.h. Each warp takes NS streams (rows, or pairs of rows of gate and up) and UN units
// of each at a time; `ks` warps share a row. A lane sums its units in ascending order, lanes are summed by a butterfly,
// warps in ascending order: the order depends on the shape and the launch configuration, which depends on the shape.
// The first units are requested before the kernels this one depends on have finished.
// Of several sequences (NB at a time, in shared memory) every one gets the bits that it gets alone: each lane's sums, the
// butterfly and the order of the warps are the same for the same `ks`. Their rows come normalized from kgc_batch_norm.
// Bytes moved: the weights once; x, delta, norm_w once a block from L2.
// Preconditions: x, delta, norm_w, post_w readable (and zero beyond n) up to n rounded up to 32; blockDim a multiple
// of 32 * ks, at most 512; `pair` needs NS >= 2.
#pragma once
#include "device/activation.cuh"
#include "device/packed.cuh"
#include "matmul/stage_input.cuh"
#include "matmul/stage_norm.cuh"

// Floats for reductions; NB: sequences at a time, 0: a token alone.
__host__ __device__ constexpr uint32_t kg_stage_red(int nb) { return nb ? 64 + 128 * nb : 256; }

// Bytes of shared memory a stage needs.
static inline size_t kg_gemv_smem(uint32_t n, bool norm, bool quant) {
    size_t padded = (n + 31) / 32 * 32;
    size_t bytes = kg_stage_red(0) * 4;
    if (quant) bytes += padded / 32 * 80;
    if (norm || !quant) bytes += padded * 4;
    return bytes;
}
static inline size_t kg_gemv_batch_smem(uint32_t n, bool quant, uint32_t nb) {
    size_t padded = (n + 31) / 32 * 32;
    return kg_stage_red((int)nb) * 4 + nb * (quant ? padded / 32 * 80 : padded * 4);
}

// One float4 of the input, normalized already, to where the dot products read it. Whole warps call it; i < n4 or v is zero.
template <bool QUANT> __device__ __forceinline__ void kg_stage_lay(float4 v, uint32_t i, uint32_t n4, float4 *vb, uint32_t *xq) {
    if constexpr (!QUANT) {
        // The float types keep the two halves of a unit apart, so that lanes read without bank conflicts.
        if (i < n4) vb[(i & 1) * (n4 / 2) + (i >> 1)] = v;
    } else {
        const KgStagedQ q = kg_stage_q(v);
        if (i < n4) {
            const uint32_t blk = i >> 3, t = i & 7;
            uint32_t *to = xq + blk * 20;
            to[t] = q.hi;
            to[8 + t] = q.lo;
            if ((t & 3) == 0) to[16 + (t >> 2)] = (uint32_t)q.sum;
            if (t == 0) to[18] = __float_as_uint(q.d);
        }
    }
}
template <bool QUANT> __device__ __forceinline__ void kg_stage_put(const KgStage &st, float4 v, uint32_t i, uint32_t n4, float4 *vb, uint32_t *xq) {
    if (st.tap && blockIdx.x == 0 && i < n4) ((float4 *)st.tap)[i] = v;
    kg_stage_lay<QUANT>(v, i, n4, vb, xq);
}

// The input of a token alone, behind the reductions' floats of shared memory.
template <bool QUANT, int NV> __device__ __forceinline__ void kg_stage_input(const KgStage &st, float *red, const float4 (&held)[NV]) {
    const uint32_t padded = (st.n + 31) / 32 * 32, n4 = padded / 4;
    // A block of 32 in 20 words, which eight lanes read without bank conflicts: hi [8], lo [8], sums of the halves, scale.
    uint32_t *xq = (uint32_t *)(red + kg_stage_red(0));
    float4 *vb = (float4 *)(QUANT ? xq + padded / 32 * 20 : xq); // [n4]
    const bool norm = st.norm_w;
    float4 y[NV] = {};
    const float scale = norm ? kg_stage_norm<!QUANT>(st, st.x, [&](uint32_t i) { return ((const float4 *)st.delta)[i]; }, blockIdx.x == 0 ? st.x_out : nullptr, red, vb, y) : 0.f;
    kg_stage_each<!QUANT>(st, norm, st.x, scale, y, vb, held, [&](float4 v, uint32_t i) { kg_stage_put<QUANT>(st, v, i, n4, vb, xq); });
    __syncthreads();
}

// The inputs of NB sequences from seq0 on; zeros beyond the last.
template <bool QUANT, int NB> __device__ __forceinline__ void kg_gemv_batch_input(const KgStage &st, float *red, uint32_t seq0) {
    const uint32_t n4 = (st.n + 31) / 32 * 8, each = n4 * (QUANT ? 10 : 16) / 4; // words of a sequence
    uint32_t *const words = (uint32_t *)(red + kg_stage_red(NB));
    for (uint32_t i0 = threadIdx.x & ~31u; i0 < n4; i0 += blockDim.x) {
        const uint32_t i = i0 + (threadIdx.x & 31);
        float4 v[NB];
#pragma unroll
        for (int b = 0; b < NB; b++) {
            v[b] = make_float4(0.f, 0.f, 0.f, 0.f);
            if (i < n4 && seq0 + b < st.n_seq) v[b] = ((const float4 *)(st.x + (size_t)(seq0 + b) * st.x_stride))[i];
        }
#pragma unroll
        for (int b = 0; b < NB; b++) {
            uint32_t *to = words + b * each;
            kg_stage_put<QUANT>(st, v[b], i, n4, (float4 *)to, to);
        }
    }
    __syncthreads();
}

// acc += a unit of each stream times the input's, of n sequences, at most N; in: whether there is such a unit.
template <int T, int NS, int UN, int N>
__device__ __forceinline__ void kg_stage_add(float (&acc)[NS][N], const Unit<T> (&f)[NS][UN], int u, const float *input, uint32_t padded, uint32_t unit, bool in, int n = N) {
    const uint4 *xq = (const uint4 *)input;
    const float4 *xf = (const float4 *)input;
#pragma unroll
    for (int b = 0; b < N; b++) {
        if (b >= n) break;
        if constexpr (kg_is_quant(T)) {
            XQuant x;
            const uint4 *p = xq + b * (padded / 32 * 5) + unit * 5;
            const uint4 h0 = p[0], h1 = p[1], l0 = p[2], l1 = p[3], e = p[4];
            x.hi[0] = h0.x, x.hi[1] = h0.y, x.hi[2] = h0.z, x.hi[3] = h0.w;
            x.hi[4] = h1.x, x.hi[5] = h1.y, x.hi[6] = h1.z, x.hi[7] = h1.w;
            x.lo[0] = l0.x, x.lo[1] = l0.y, x.lo[2] = l0.z, x.lo[3] = l0.w;
            x.lo[4] = l1.x, x.lo[5] = l1.y, x.lo[6] = l1.z, x.lo[7] = l1.w;
            x.s0 = (int)e.x, x.s1 = (int)e.y, x.d = in ? __uint_as_float(e.z) : 0.f;
#pragma unroll
            for (int s = 0; s < NS; s++) acc[s][b] = f[s][u].template add<N == 1>(acc[s][b], x);
        } else {
            XFloat x;
            x.v0 = xf[b * (padded / 4) + unit], x.v1 = xf[b * (padded / 4) + padded / 8 + unit];
#pragma unroll
            for (int s = 0; s < NS; s++) {
                const float y = f[s][u].dot(x);
                acc[s][b] += in ? y : 0.f;
            }
        }
    }
}

// The sums of all lanes and of a row's warps, ascending: lane s N + b of the group's first warp has stream s of sequence b, where
// that is `mine`. r: [warps][NS][N], of shared memory.
template <int NS, int N>
__device__ __forceinline__ float kg_stage_total(float (&acc)[NS][N], float *red, uint32_t &parity, uint32_t ks, uint32_t group, bool mine) {
    constexpr uint32_t PART = 64 * N; // of the reductions: [16 warps][NS][N]
    const uint32_t warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
#pragma unroll
    for (int s = 0; s < NS; s++)
#pragma unroll
        for (int b = 0; b < N; b++) acc[s][b] = kg_warp_sum(acc[s][b]);
    float y = 0.f;
    if (ks > 1) {
        float *r = red + 64 + parity * PART;
        parity ^= 1;
        if (lane == 0) {
#pragma unroll
            for (int s = 0; s < NS; s++)
#pragma unroll
                for (int b = 0; b < N; b++) r[(warp * NS + s) * N + b] = acc[s][b];
        }
        __syncthreads();
        if (mine) {
#pragma unroll 4
            for (uint32_t i = 0; i < ks; i++) y += r[(group * ks + i) * NS * N + lane];
        }
    } else {
#pragma unroll
        for (int s = 0; s < NS; s++)
#pragma unroll
            for (int b = 0; b < N; b++)
                if (lane == s * N + b) y = acc[s][b];
    }
    return y;
}

// What becomes of a row's sum, and of those of gate and up: as every kernel rounds it.
__device__ __forceinline__ float kg_stage_result(const KgStage &st, bool pair, float y, float up, float bias) {
    if (pair) y = __fmul_rn(kg_activation(st.activation, y), up);
    else y = __fadd_rn(y, bias);
    if (st.softcap != 0.f) y = kg_capped(st.softcap, st.scale, y);
    return y;
}

// NB: sequences at a time; 0: a token alone.
template <int T, int NS, bool DEEP, int NB = 0> __device__ __forceinline__ void kg_gemv_run(const KgStage &st, uint32_t seg, float *red) {
    constexpr bool QUANT = kg_is_quant(T);
    constexpr int UN = (QUANT && !DEEP ? 4 : 8) / NS, NV = 2, N = NB ? NB : 1;
    const uint32_t warp = threadIdx.x >> 5, lane = threadIdx.x & 31, ks = st.ks;
    const uint32_t groups = (blockDim.x >> 5) / ks, group = warp / ks, kw = warp % ks;
    const bool pair = st.activation != 0;
    const uint32_t rg = pair ? NS / 2 : NS, per_row = QUANT ? st.n / 32 : st.m[seg].stride / 8;
    const uint32_t width = 32 * ks * UN, steps = (per_row + width - 1) / width;
    // Rows of this block: whole turns of all its groups, as evenly as they go. Blocks with a turn less make room for the next stage.
    const uint32_t n_blocks = st.seg_block[seg + 1] - st.seg_block[seg], block = (NB ? blockIdx.y : blockIdx.x) - st.seg_block[seg];
    const uint32_t rows = st.m[seg].rows, step_rows = groups * rg, all = (rows + step_rows - 1) / step_rows;
    const uint32_t row0 = all * block / n_blocks * step_rows, row1 = min(rows, all * (block + 1) / n_blocks * step_rows);
    const uint32_t turns = (row1 - row0 + step_rows - 1) / step_rows;

    if (threadIdx.x < 16 && threadIdx.x >= blockDim.x >> 5) red[threadIdx.x] = red[64 + threadIdx.x] = 0.f;
    Unit<T> f[NS][UN];
#pragma unroll
    for (int u = 0; u < UN; u++)
#pragma unroll
        for (int s = 0; s < NS; s++) f[s][u].zero();
    // What is loaded next: rows from row_at on, unit_at + lane. Beyond the last row and the last unit the last one is loaded again
    // and not used; what no lane of a warp needs is not loaded.
    uint32_t row_at = row0 + group * rg, unit_at = kw * 32, from[NS];
    auto aim = [&] {
#pragma unroll
        for (int s = 0; s < NS; s++) from[s] = min(row_at + (pair ? s >> 1 : s), row1 - 1) * per_row;
    };
    auto fetch = [&](int u) {
        const uint32_t first = unit_at + u * ks * 32;
        if (row_at >= row1 || first >= per_row) return;
        const uint32_t unit = min(first + lane, per_row - 1);
#pragma unroll
        for (int s = 0; s < NS; s++) {
            if (pair && (s & 1)) f[s][u].load(st.m[1], from[s] + unit);
            else f[s][u].load(st.m[seg], from[s] + unit);
        }
    };
    aim();
#pragma unroll
    for (int u = 0; u < UN; u++) fetch(u);

    kg_launch_dependents();
    const uint32_t seq0 = NB ? blockIdx.x * NB : 0;
    if constexpr (NB == 0) {
        float4 held[NV];
        kg_stage_hold(st, held);
        kg_wait();
        kg_stage_input<QUANT, NV>(st, red, held);
    } else {
        kg_wait();
        kg_gemv_batch_input<QUANT, N>(st, red, seq0);
    }

    const uint32_t padded = (st.n + 31) / 32 * 32;
    float *alone = nullptr;
    if constexpr (NB == 0) alone = st.state ? st.state->logits : st.out[seg];

    uint32_t parity = 0;
    for (uint32_t turn = 0; turn < turns; turn++) {
        // After the sums lane s N + b has stream s of sequence b.
        const uint32_t stream = lane / N, row = row_at + (pair ? stream >> 1 : stream);
        const bool mine = kw == 0 && lane < NS * N && row < row1;
        float acc[NS][N], bias = 0.f;
        if (st.bias[seg] && mine) bias = st.bias[seg][row];
#pragma unroll
        for (int s = 0; s < NS; s++)
#pragma unroll
            for (int b = 0; b < N; b++) acc[s][b] = 0.f;
        for (uint32_t k = 0; k < steps; k++) {
            // The next load: the following step, or the first of the group's next rows.
            unit_at += width;
            if (k + 1 == steps) {
                unit_at = kw * 32, row_at += step_rows;
                aim();
            }
#pragma unroll
            for (int u = 0; u < UN; u++) {
                const uint32_t first = k * width + (u * ks + kw) * 32; // of the warp
                if (first < per_row) {
                    const bool in = first + lane < per_row;
                    const uint32_t unit = in ? first + lane : per_row - 1;
                    kg_stage_add<T, NS, UN, N>(acc, f, u, red + kg_stage_red(NB), padded, unit, in);
                }
                fetch(u);
            }
        }
        float y = kg_stage_total<NS, N>(acc, red, parity, ks, group, mine);
        if (kw != 0) continue;
        const float up = __shfl_sync(0xffffffffu, y, lane + N);
        if (!mine || (pair && (stream & 1))) continue;
        y = kg_stage_result(st, pair, y, up, bias);
        const uint32_t seq = seq0 + lane % N;
        if constexpr (NB == 0) alone[row] = y;
        else if (seq < st.n_seq) (st.state ? st.state[seq].logits : st.out[seg] + (size_t)seq * st.out_stride)[row] = y;
    }
}

// DEEP: eight units a lane in flight instead of four, for rows long enough.
template <int T, int NS, bool DEEP> __global__ void __launch_bounds__(512, 1) kg_gemv_kernel(const __grid_constant__ KgStage st) {
    KG_DYNAMIC_SHARED(float, kg_shared);
    uint32_t seg = 0;
    while (seg + 1 < st.n_seg && blockIdx.x >= st.seg_block[seg + 1]) seg++;
    kg_gemv_run<T, NS, DEEP>(st, seg, kg_shared);
}

static inline bool kg_gemv_check(const KgStage *st, uint32_t ns, uint32_t threads) {
    const bool ok = threads && threads <= 512 && st->ks && threads % (32 * st->ks) == 0 && st->n;
    return ok && st->n_seg >= 1 && st->n_seg <= 3 && !(st->activation && ns < 2);
}

template <int T> static inline cudaError_t kg_gemv_launch(const KgStage *st, uint32_t ns, uint32_t threads, int deep, int pdl, cudaStream_t stream) {
    size_t smem = kg_gemv_smem(st->n, st->norm_w != nullptr, kg_is_quant(T));
    dim3 grid(st->seg_block[st->n_seg]);
    constexpr bool Q = kg_is_quant(T);
    if (ns == 1 && deep && Q) return kg_launch(kg_gemv_kernel<T, 1, Q>, grid, dim3(threads), smem, pdl, stream, *st);
    if (ns == 2 && deep && Q) return kg_launch(kg_gemv_kernel<T, 2, Q>, grid, dim3(threads), smem, pdl, stream, *st);
    if constexpr (Q) {
        if (ns == 8 && deep && st->ks == 1) return kg_launch(kg_gemv_kernel<T, 8, true>, grid, dim3(threads), smem, pdl, stream, *st);
    }
    if (ns == 1) return kg_launch(kg_gemv_kernel<T, 1, false>, grid, dim3(threads), smem, pdl, stream, *st);
    if (ns == 2) return kg_launch(kg_gemv_kernel<T, 2, false>, grid, dim3(threads), smem, pdl, stream, *st);
    if (ns == 4) return kg_launch(kg_gemv_kernel<T, 4, false>, grid, dim3(threads), smem, pdl, stream, *st);
    return cudaErrorInvalidValue;
}

// A block works on NB sequences, the tiles of sequences next to one another so that they share what the cache holds of the rows.
template <int T, int NB> __global__ void __launch_bounds__(512, 1) kg_gemv_batch_kernel(const __grid_constant__ KgStage st) {
    KG_DYNAMIC_SHARED(float, kg_shared);
    uint32_t seg = 0;
    while (seg + 1 < st.n_seg && blockIdx.y >= st.seg_block[seg + 1]) seg++;
    kg_gemv_run<T, 4, false, NB>(st, seg, kg_shared);
}

static inline bool kg_gemv_batch_check(const KgStage *st, uint32_t threads) {
    bool ok = threads && threads <= 512 && st->ks && threads % (32 * st->ks) == 0 && st->n && st->n_seg >= 1 && st->n_seg <= 3;
    return ok && !st->norm_w && !st->tap && st->n_seq && st->x_stride >= (st->n + 31) / 32 * 32;
}

template <int T> static inline cudaError_t kg_gemv_batch_launch(const KgStage *st, uint32_t nb, uint32_t threads, int pdl, cudaStream_t stream) {
    const size_t smem = kg_gemv_batch_smem(st->n, kg_is_quant(T), nb);
    const dim3 grid((st->n_seq + nb - 1) / nb, st->seg_block[st->n_seg]), block(threads);
    if (nb == 2) return kg_launch(kg_gemv_batch_kernel<T, 2>, grid, block, smem, pdl, stream, *st);
    if (nb == 4) return kg_launch(kg_gemv_batch_kernel<T, 4>, grid, block, smem, pdl, stream, *st);
    if (nb == 8) return kg_launch(kg_gemv_batch_kernel<T, 8>, grid, block, smem, pdl, stream, *st);
    return cudaErrorInvalidValue;
}
