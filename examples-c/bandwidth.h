// The bandwidth of memory: each thread adds up its share of a large buffer.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_BANDWIDTH_H
#define KIGO_EXAMPLES_BANDWIDTH_H

#include "common.h"

#include <pthread.h>

// More than caches hold.
#define BUFFER_BYTES ((size_t)512 << 20)

typedef struct share {
    const uint64_t *data;
    size_t n;
    uint64_t sum;
} share;

// Four streams ahead of time: more requests under way than one would have. Wants to be compiled with -O3.
static inline void *read_share(void *argument)
{
    share *s = argument;
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < s->n / 4; i += 8)
        for (size_t stream = 0; stream < 4; stream++) {
            const uint64_t *at = s->data + stream * (s->n / 4) + i;
#ifdef __GNUC__
            __builtin_prefetch((const char *)at + 2048);
#endif
            for (size_t k = 0; k < 8; k++)
                sums[k] += at[k];
        }
    for (size_t k = 0; k < 8; k++)
        s->sum += sums[k];
    return NULL;
}

// Bytes per second, the best of five passes.
static inline double measure_bandwidth(size_t n_threads)
{
    uint64_t *buffer = resize(NULL, BUFFER_BYTES);
    memset(buffer, 1, BUFFER_BYTES);
    pthread_t *threads = resize(NULL, n_threads * sizeof *threads);
    share *shares = resize(NULL, n_threads * sizeof *shares);
    size_t n = BUFFER_BYTES / sizeof *buffer / n_threads / 32 * 32;
    double best = 0;
    for (int pass = 0; pass < 5; pass++) {
        double start = now_seconds();
        for (size_t i = 0; i < n_threads; i++) {
            shares[i] = (share){buffer + i * n, n, 0};
            if (pthread_create(&threads[i], NULL, read_share, &shares[i]) != 0)
                fail("bandwidth", "no thread to be had");
        }
        for (size_t i = 0; i < n_threads; i++)
            pthread_join(threads[i], NULL);
        double rate = (double)(n * n_threads * sizeof *buffer) / (now_seconds() - start);
        for (size_t i = 0; i < n_threads; i++)
            if (shares[i].sum != n * 0x0101010101010101u)
                fail("bandwidth", "a thread read something else than was written");
        best = rate > best ? rate : best;
    }
    free(shares);
    free(threads);
    free(buffer);
    return best;
}

#endif // KIGO_EXAMPLES_BANDWIDTH_H
