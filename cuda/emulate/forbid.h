// Under AddressSanitizer (KIGO_EMULATE_SANITIZE): memory that a kernel must not touch, such as what lies behind the shared memory
// that its launch asked for.
#pragma once
#include "emulate.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
static inline void forbid(const void *at, size_t bytes) { __asan_poison_memory_region(at, bytes); }
static inline void allow(const void *at, size_t bytes) { __asan_unpoison_memory_region(at, bytes); }
#else
static inline void forbid(const void *, size_t) {}
static inline void allow(const void *, size_t) {}
#endif
