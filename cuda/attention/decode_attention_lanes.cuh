// What the lanes of a warp have of heads wider than 128: elements of keys and values, and the sums over them.
#pragma once
#include "attention/decode_attention.cuh"

// Sums v[h] over LPT lanes for N heads at once, halving the heads with the lanes: afterwards s is the sum of head kg_head().
template <int N, int LPT> __device__ __forceinline__ float kg_sum_heads(float (&v)[N], uint32_t lane) {
    int n = N;
#pragma unroll
    for (int o = LPT / 2; o > 0; o >>= 1) {
        if (n > 1) {
            n /= 2;
            const bool upper = lane & o;
#pragma unroll
            for (int i = 0; i < N / 2; i++) {
                if (i >= n) break;
                const float send = upper ? v[i] : v[i + n], keep = upper ? v[i + n] : v[i];
                v[i] = keep + __shfl_xor_sync(0xffffffffu, send, o);
            }
        } else {
            v[0] += __shfl_xor_sync(0xffffffffu, v[0], o);
        }
    }
    return v[0];
}
// The head whose sum a lane has, and whether it is the one lane of its group to store it.
template <int N, int LPT> __device__ __forceinline__ uint32_t kg_head(uint32_t lane, bool &stores) {
    uint32_t n = N, head = 0;
    stores = true;
#pragma unroll
    for (uint32_t o = LPT / 2; o > 0; o >>= 1) {
        if (n > 1) {
            n /= 2;
            if (lane & o) head += n;
        } else if (lane & o) {
            stores = false;
        }
    }
    return head;
}

template <int EPL> struct KvLane {
    uint4 w[EPL / 8];
    __device__ __forceinline__ void zero() {
#pragma unroll
        for (int i = 0; i < EPL / 8; i++) w[i] = make_uint4(0, 0, 0, 0);
    }
    // Volatile, so that it stays before kg_wait().
    __device__ __forceinline__ void load(const __half *p) {
#pragma unroll
        for (int i = 0; i < EPL / 8; i++)
            w[i] = kg_load16((const uint4 *)p + i);
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
