// The order of columns in which a thread of a warp has, in its fragments of eight tensor-core steps, one block of 32 columns: it loads
// and unpacks whole blocks of a row of weights, and no lane needs another's.
//
// Column 32 q + 4 s + 2 h + i of each 128 (q < 4, s < 8; h, i < 2) has the place 16 s + 8 h + 2 q + i: step s, half h of the
// step's 16, lane q of the four that share a row. A row whose columns lie so is as long as whole 128s; what is beyond its last column is zero.
#pragma once
#include "device/common.cuh"

// The length of a row of n columns, in 128s.
__host__ __device__ __forceinline__ uint32_t kg_fragments(uint32_t n) { return (n + KG_FRAGMENTS - 1) / KG_FRAGMENTS; }
// The column of a place.
__device__ __forceinline__ uint32_t kg_fragment_column(uint32_t p) {
    return (p & ~127u) | (p / 2 % 4) << 5 | (p / 16 % 8) << 2 | (p / 8 % 2) << 1 | p % 2;
}
