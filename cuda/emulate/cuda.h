// What the driver tells the copy engine of a tensor, as far as gemm_sm90.cu uses it.
#pragma once
#include <stdint.h>

typedef uint64_t cuuint64_t;
typedef uint32_t cuuint32_t;
struct alignas(64) CUtensorMap {
    const char *base;
    uint64_t columns, rows, pitch; // elements, rows, bytes
    uint32_t box_columns, box_rows;
};
enum { CUDA_SUCCESS = 0 };
enum { CU_TENSOR_MAP_DATA_TYPE_FLOAT16, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE };
extern "C" int cuTensorMapEncodeTiled(CUtensorMap *map, int type, uint32_t rank, void *base, const cuuint64_t *sizes, const cuuint64_t *pitch,
                                      const cuuint32_t *box, const cuuint32_t *steps, int interleave, int swizzle, int promotion, int fill);
