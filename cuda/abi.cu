// What abi.h is in this object, as the library asks it before it opens a device: sizes, offsets, numbers.
//
// A field that is missing here is missed by the library, which has all of them.
#include <stddef.h>

#include "abi.h"
#include "device/launch.cuh"

struct KgAbiNumber {
    const char *name;
    uint64_t value;
};

#define STRUCT(T) {"sizeof(" #T ")", sizeof(T)}
#define FIELD(T, field) {#T "." #field, offsetof(T, field)}, {"sizeof(" #T "." #field ")", sizeof(T::field)}
#define NUMBER(N) {#N, (uint64_t)(N)}

static const KgAbiNumber kg_abi[] = {
    STRUCT(KgMat),
    FIELD(KgMat, a), FIELD(KgMat, b), FIELD(KgMat, c), FIELD(KgMat, s), FIELD(KgMat, d), FIELD(KgMat, type), FIELD(KgMat, rows),
    FIELD(KgMat, cols), FIELD(KgMat, stride),
    STRUCT(KgState),
    FIELD(KgState, pages), FIELD(KgState, logits), FIELD(KgState, token), FIELD(KgState, position), FIELD(KgState, produced),
    FIELD(KgState, top_k), FIELD(KgState, seed), FIELD(KgState, share), FIELD(KgState, least), FIELD(KgState, temperature),
    FIELD(KgState, inverse),
    STRUCT(KgStage),
    FIELD(KgStage, x), FIELD(KgStage, delta), FIELD(KgStage, post_w), FIELD(KgStage, norm_w), FIELD(KgStage, x_out),
    FIELD(KgStage, tap), FIELD(KgStage, state), FIELD(KgStage, m), FIELD(KgStage, bias), FIELD(KgStage, out),
    FIELD(KgStage, seg_block), FIELD(KgStage, n_seg), FIELD(KgStage, n), FIELD(KgStage, ks), FIELD(KgStage, activation),
    FIELD(KgStage, eps), FIELD(KgStage, softcap), FIELD(KgStage, n_seq), FIELD(KgStage, x_stride), FIELD(KgStage, out_stride),
    FIELD(KgStage, n_part), FIELD(KgStage, part), FIELD(KgStage, part_bias), FIELD(KgStage, split), FIELD(KgStage, split_nt),
    FIELD(KgStage, split_ints),
    STRUCT(KgAttend),
    FIELD(KgAttend, qkv), FIELD(KgAttend, q_norm), FIELD(KgAttend, k_norm), FIELD(KgAttend, turns), FIELD(KgAttend, state),
    FIELD(KgAttend, out), FIELD(KgAttend, part), FIELD(KgAttend, counters), FIELD(KgAttend, tap_q), FIELD(KgAttend, tap_k),
    FIELD(KgAttend, n_heads), FIELD(KgAttend, n_kv), FIELD(KgAttend, head_dim), FIELD(KgAttend, n_rot), FIELD(KgAttend, halves),
    FIELD(KgAttend, window), FIELD(KgAttend, layer), FIELD(KgAttend, chunk), FIELD(KgAttend, max_chunks), FIELD(KgAttend, scale),
    FIELD(KgAttend, softcap), FIELD(KgAttend, eps), FIELD(KgAttend, magnitude), FIELD(KgAttend, n_seq),
    FIELD(KgAttend, qkv_stride), FIELD(KgAttend, out_stride), FIELD(KgAttend, long_from), FIELD(KgAttend, long_chunk),
    STRUCT(KgGemm),
    FIELD(KgGemm, x), FIELD(KgGemm, x_lo), FIELD(KgGemm, w), FIELD(KgGemm, w_lo), FIELD(KgGemm, bias), FIELD(KgGemm, y),
    FIELD(KgGemm, y_lo), FIELD(KgGemm, encode), FIELD(KgGemm, m), FIELD(KgGemm, k), FIELD(KgGemm, n), FIELD(KgGemm, n_w),
    FIELD(KgGemm, x_stride), FIELD(KgGemm, w_stride), FIELD(KgGemm, y_stride), FIELD(KgGemm, epilogue), FIELD(KgGemm, n_sms),
    FIELD(KgGemm, tile),
    STRUCT(KgRow),
    FIELD(KgRow, pages), FIELD(KgRow, position), FIELD(KgRow, unused),
    STRUCT(KgFlashTile),
    FIELD(KgFlashTile, pages), FIELD(KgFlashTile, row0), FIELD(KgFlashTile, n_tokens), FIELD(KgFlashTile, start),
    FIELD(KgFlashTile, tile),
    STRUCT(KgFlash),
    FIELD(KgFlash, q), FIELD(KgFlash, out), FIELD(KgFlash, out_lo), FIELD(KgFlash, pages), FIELD(KgFlash, k_offset),
    FIELD(KgFlash, v_offset), FIELD(KgFlash, head_stride), FIELD(KgFlash, token_stride), FIELD(KgFlash, n_tokens),
    FIELD(KgFlash, start), FIELD(KgFlash, n_heads), FIELD(KgFlash, n_kv), FIELD(KgFlash, head_dim), FIELD(KgFlash, q_stride),
    FIELD(KgFlash, out_stride), FIELD(KgFlash, window), FIELD(KgFlash, wgmma),
    FIELD(KgFlash, n_sms), FIELD(KgFlash, scale), FIELD(KgFlash, softcap), FIELD(KgFlash, tiles), FIELD(KgFlash, n_tiles),
    STRUCT(KgPrefillNorm),
    FIELD(KgPrefillNorm, x), FIELD(KgPrefillNorm, delta), FIELD(KgPrefillNorm, post_w), FIELD(KgPrefillNorm, w),
    FIELD(KgPrefillNorm, out), FIELD(KgPrefillNorm, out_lo), FIELD(KgPrefillNorm, tap), FIELD(KgPrefillNorm, n_tokens),
    FIELD(KgPrefillNorm, dim), FIELD(KgPrefillNorm, out_stride), FIELD(KgPrefillNorm, eps),
    STRUCT(KgPrefillRope),
    FIELD(KgPrefillRope, qkv), FIELD(KgPrefillRope, q_norm), FIELD(KgPrefillRope, k_norm),
    FIELD(KgPrefillRope, turns), FIELD(KgPrefillRope, q), FIELD(KgPrefillRope, pages), FIELD(KgPrefillRope, tap_q),
    FIELD(KgPrefillRope, tap_k), FIELD(KgPrefillRope, k_offset), FIELD(KgPrefillRope, v_offset),
    FIELD(KgPrefillRope, head_stride), FIELD(KgPrefillRope, token_stride), FIELD(KgPrefillRope, n_tokens),
    FIELD(KgPrefillRope, start), FIELD(KgPrefillRope, n_heads), FIELD(KgPrefillRope, n_kv), FIELD(KgPrefillRope, head_dim),
    FIELD(KgPrefillRope, n_rot), FIELD(KgPrefillRope, halves), FIELD(KgPrefillRope, qkv_stride), FIELD(KgPrefillRope, q_stride),
    FIELD(KgPrefillRope, eps), FIELD(KgPrefillRope, magnitude), FIELD(KgPrefillRope, rows),
    NUMBER(KG_PAGE), NUMBER(KG_RING), NUMBER(KG_MOST_PARTS), NUMBER(KG_TENSOR_CHUNK), NUMBER(KG_TENSOR_HEAD),
    NUMBER(KG_INPUT_F16_WORDS), NUMBER(KG_INPUT_Q_WORDS), NUMBER(KG_F32), NUMBER(KG_F16), NUMBER(KG_BF16), NUMBER(KG_Q4_0),
    NUMBER(KG_Q4_1), NUMBER(KG_Q5_0), NUMBER(KG_Q5_1), NUMBER(KG_Q8_0), NUMBER(KG_Q2_K), NUMBER(KG_Q3_K), NUMBER(KG_Q4_K),
    NUMBER(KG_Q5_K), NUMBER(KG_Q6_K), NUMBER(KG_F16_TILED), NUMBER(KG_NO_ACTIVATION), NUMBER(KG_ACTIVATION_SILU),
    NUMBER(KG_ACTIVATION_GELU), NUMBER(KG_GEMM_F32), NUMBER(KG_GEMM_ADD), NUMBER(KG_GEMM_F16), NUMBER(KG_GEMM_SILU),
    NUMBER(KG_GEMM_GELU),
};

// The table; n: how many entries it has.
KGC_API const KgAbiNumber *kgc_abi(uint32_t *n) {
    *n = sizeof kg_abi / sizeof kg_abi[0];
    return kg_abi;
}
