// Rows in sequences, for layers that keep a state: whose a row is, and the sequence's state in front of it and behind.
#pragma once
#include "device/vectors.cuh"

// A sequence's rows, and what its layer has kept of the tokens in front of them (null: zeros) and keeps of them.
struct KgOwner {
    const float *kept;
    float *keeps;
    uint32_t row0, n_rows;
};

__device__ __forceinline__ KgOwner kg_owner(const KgSpans &of, uint32_t i) {
    KgOwner owner = of.spans ? KgOwner{of.spans[i].kept, of.spans[i].keeps, of.spans[i].row0, of.spans[i].n_rows}
                             : KgOwner{of.state[i].kept, of.state[i].keeps, i, 1};
    if (owner.kept) owner.kept += of.at;
    owner.keeps += of.at;
    return owner;
}

// Whose a row is: the last that begins at it or in front of it.
__device__ __forceinline__ KgOwner kg_owner_of(const KgSpans &of, uint32_t row) {
    if (!of.spans) return kg_owner(of, row);
    uint32_t low = 0, high = of.n;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (of.spans[middle].row0 <= row) low = middle;
        else high = middle;
    }
    return kg_owner(of, low);
}

// A value as f32 and as f16, with what that rounding leaves, where each is wanted.
__device__ __forceinline__ void kg_put_row(float *row, void *out, void *out_lo, size_t at, float v) {
    if (row) row[at] = v;
    if (!out) return;
    const __half hi = __float2half_rn(kg_clamp16(v));
    ((__half *)out)[at] = hi;
    if (out_lo) ((__half *)out_lo)[at] = __float2half_rn(kg_clamp16(v - __half2float(hi)));
}

// Whether rows belong to somebody.
static inline bool kg_are_owned(const KgSpans &of) {
    return of.n && of.n_rows && of.n_rows <= 65535 && (of.spans ? !of.state : of.state && of.n == of.n_rows);
}
