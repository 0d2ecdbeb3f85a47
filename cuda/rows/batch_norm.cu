// What stands before the stages of several sequences: the residual stream and its norm, a block a sequence.
//
//   v = x + (post_w ? rms_norm(delta) * post_w : delta), stored in x_out where delta is given;  out = rms_norm(v) * norm_w
// x, delta, x_out, out: [n_seq, x_stride] f32, zero beyond n. The sums are those of a stage of a token alone with as many threads.
// Where the stage before has left delta in parts (st.part, [n_part, n_seq, x_stride]), it is their sum, ascending, and its bias.
// For stages on tensor cores the result is cut up (st.split), as is by itself what no norm stands before.
// Bytes moved: x, delta or its parts, norm_w once; x_out and out once.
#include "matmul/stage_input.cuh"
#include "matmul/stage_norm.cuh"

__global__ void __launch_bounds__(512) kg_batch_norm(const __grid_constant__ KgStage st, float *out) {
    KG_DYNAMIC_SHARED(float, red); // 128 floats, then [n]
    if (threadIdx.x < 16 && threadIdx.x >= blockDim.x >> 5) red[threadIdx.x] = red[64 + threadIdx.x] = 0.f;
    kg_launch_dependents();
    float4 held[1];
    kg_stage_hold(st, held);
    kg_wait();
    const size_t row = (size_t)blockIdx.x * st.x_stride;
    const uint32_t n4 = (st.n + 31) / 32 * 8;
    auto four_of = [&](uint32_t i) {
        if (!st.part) return ((const float4 *)(st.delta + row))[i];
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f), b = st.part_bias ? ((const float4 *)st.part_bias)[i] : sum;
        const float4 *from = (const float4 *)(st.part + row) + i;
        float4 v[KG_MOST_PARTS];
#pragma unroll
        for (uint32_t p = 0; p < KG_MOST_PARTS; p++, from += (size_t)st.n_seq * st.x_stride / 4)
            if (p < st.n_part) v[p] = *from;
#pragma unroll
        for (uint32_t p = 0; p < KG_MOST_PARTS; p++)
            if (p < st.n_part) sum.x = __fadd_rn(sum.x, v[p].x), sum.y = __fadd_rn(sum.y, v[p].y), sum.z = __fadd_rn(sum.z, v[p].z), sum.w = __fadd_rn(sum.w, v[p].w);
        return make_float4(__fadd_rn(sum.x, b.x), __fadd_rn(sum.y, b.y), __fadd_rn(sum.z, b.z), __fadd_rn(sum.w, b.w));
    };
    float4 *const vb = (float4 *)(red + 128);
    float4 y[1];
    const float scale = kg_stage_norm<false>(st, st.x + row, four_of, st.x_out ? st.x_out + row : nullptr, red, vb, y);
    kg_stage_each<false>(st, true, nullptr, scale, y, vb, held, [&](float4 v, uint32_t i) {
        if (st.split && st.split_ints) kg_stage_q_put(st.split, st.split_nt, v, i, n4, blockIdx.x);
        else if (st.split) kg_stage_f16_put(st.split, st.split_nt, v, i, n4, blockIdx.x);
        else if (i < n4) ((float4 *)(out + row))[i] = v;
    });
}

// threads: as many as the stage of a token alone has.
KGC_API cudaError_t kgc_batch_norm(const KgStage *st, float *out, uint32_t threads, int pdl, cudaStream_t stream) {
    if (threads == 0 || threads > 512 || threads % 32 != 0 || !st->norm_w || st->n_seq == 0 || st->n_part > KG_MOST_PARTS || (st->split && !st->split_nt)) return cudaErrorInvalidValue;
    const size_t smem = 512 + (size_t)((st->n + 31) / 32 * 32) * 4;
    return kg_launch(kg_batch_norm, dim3(st->n_seq), dim3(threads), smem, pdl, stream, *st, out);
}

// Input that no norm stands before: x, [n_seq, x_stride] f32, cut up into st.split. Bytes moved: x once, st.split once.
template <bool INTS> __global__ void __launch_bounds__(256) kg_stage_input(const __grid_constant__ KgStage st) {
    const uint32_t n4 = (st.n + 31) / 32 * 8, i = blockIdx.x * blockDim.x + threadIdx.x;
    kg_launch_dependents();
    kg_wait();
    const float4 v = i < n4 ? ((const float4 *)(st.x + (size_t)blockIdx.y * st.x_stride))[i] : make_float4(0.f, 0.f, 0.f, 0.f);
    if (INTS) kg_stage_q_put(st.split, st.split_nt, v, i, n4, blockIdx.y);
    else kg_stage_f16_put(st.split, st.split_nt, v, i, n4, blockIdx.y);
}

// The input becomes halves, or integers where st.split_ints; then n is a multiple of 32.
KGC_API cudaError_t kgc_stage_input(const KgStage *st, int pdl, cudaStream_t stream) {
    bool ok = st->n && !(st->split_ints && st->n % 32) && st->n_seq && st->split && st->x_stride >= (st->n + 31) / 32 * 32;
    ok = ok && (st->split_nt == 1 || st->split_nt == 2 || st->split_nt == 4);
    if (!ok) return cudaErrorInvalidValue;
    const dim3 grid(((st->n + 31) / 32 * 8 + 255) / 256, st->n_seq);
    return kg_launch(st->split_ints ? kg_stage_input<true> : kg_stage_input<false>, grid, dim3(256), 0, pdl, stream, *st);
}
