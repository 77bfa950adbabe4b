/* blocking.h - the ways to cut up a product that are worth timing, as tactics of the kernels that
 * multiply by constant weights.
 *
 * Rules choose a blocking for caches of common sizes. What is best depends on the machine's, on
 * what else is in them when the layer begins, and on how many threads share them. */
#ifndef KILN_BACKEND_CPU_KERNELS_BLOCKING_H
#define KILN_BACKEND_CPU_KERNELS_BLOCKING_H

#include "backend/cpu/prims/gemm.h"

/* X(name, fields of kiln_gemm_blocking), the likeliest to win first. */
#define KILN_BLOCKINGS(X)                \
    X("rows-last", .rows_last = true)    \
    X("wide", .group_bytes = 1 << 20)    \
    X("short", .block_rows = 48)         \
    X("narrow", .group_bytes = 64 << 10) \
    X("tall", .block_rows = 480)         \
    X("low-tile", .tile_rows = 6)        \
    X("tall-wide", .block_rows = 480, .group_bytes = 1 << 20)

/* The same of 8-bit products, whose units take all columns where nothing is asked for. */
#define KILN_BLOCKINGS_Q8(X)              \
    X("narrow", .group_bytes = 128 << 10) \
    X("short", .block_rows = 24)          \
    X("tall", .block_rows = 384)          \
    X("slim", .group_bytes = 24 << 10)

#define KILN_BLOCKING_NAME(name, ...) name,
#define KILN_BLOCKING_COUNT(name, ...) +1
#define KILN_BLOCKING_VALUE(name, ...) {__VA_ARGS__},

/* Blocking i of such a list; a negative one is the rules'. */
static inline kiln_gemm_blocking kiln_blocking_at(int32_t i) {
    static const kiln_gemm_blocking list[] = {KILN_BLOCKINGS(KILN_BLOCKING_VALUE)};
    return i >= 0 ? list[i] : (kiln_gemm_blocking){0};
}
static inline kiln_gemm_blocking kiln_blocking_q8_at(int32_t i) {
    static const kiln_gemm_blocking list[] = {KILN_BLOCKINGS_Q8(KILN_BLOCKING_VALUE)};
    return i >= 0 ? list[i] : (kiln_gemm_blocking){0};
}

/* kiln_binder.way of a product that is cut into so many units: cut or not asked to be, one unit is
 * all of it. 0: what is asked for may matter. */
static inline uint64_t kiln_blocking_way(const kiln_gemm_blocking *asked, int64_t units) {
    return asked->tile_rows == 0 && units <= 1 ? 1 : 0;
}

#endif
