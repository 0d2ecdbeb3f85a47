// What abi.h is in this object, as the library asks it before it opens a device: sizes, offsets, numbers.
#include "abi_report.h"
#include "device/launch.cuh"

// The table; n: how many entries it has.
KGC_API const KgAbiNumber *kgc_abi(uint32_t *n) {
    *n = sizeof kg_abi / sizeof kg_abi[0];
    return kg_abi;
}
