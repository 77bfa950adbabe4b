/* probe_simd.c - the loops of probe.h at the width of this instruction set. */
#include "backend/cpu/prims/probe.h"
#include "backend/cpu/prims/q8_dot.h"
#include "backend/cpu/prims/tiles.h"

enum { CHAINS = KILN_VREGS == 32 ? 24 : 12, STREAMS = 8 };

#define UNROLL KILN_UNROLL(24)

/* Makes the compiler believe that a vector has changed, so that no product leaves the loop. */
#if defined(__x86_64__)
#define CHANGED(v) __asm__ volatile("" : "+x"(v))
#else
#define CHANGED(v) __asm__ volatile("" : "+m"(v))
#endif

/* CHAINS sums, each plus products of a and b in every step. */
#define PRODUCT_LOOP(name, type, start, step)         \
    static double name(int64_t steps, float *sink) {  \
        type sum[CHAINS];                             \
        UNROLL for (int i = 0; i < CHAINS; i++) {     \
            sum[i] = start(i);                        \
        }                                             \
        const type a = start(1);                      \
        type b = start(0);                            \
        for (int64_t s = 0; s < steps; s++) {         \
            UNROLL for (int i = 0; i < CHAINS; i++) { \
                CHANGED(b);                           \
                sum[i] = step(sum[i], a, b);          \
            }                                         \
        }                                             \
        UNROLL for (int i = 1; i < CHAINS; i++) {     \
            sum[0] = sum[0] + sum[i];                 \
        }                                             \
        *sink += (float)sum[0][0];                    \
        return (double)steps * CHAINS * KILN_VLEN;    \
    }

#define START_F32(i) vf_set1(0.5f * (float)(i))
#define STEP_F32(sum, a, b) vf_fma(a, b, sum)
PRODUCT_LOOP(loop_f32, kiln_vf, START_F32, STEP_F32)
#define START_Q8(i) vi_set1(0x00010001 * (i))
PRODUCT_LOOP(loop_pairs, kiln_vi, START_Q8, dot_pairs)
PRODUCT_LOOP(loop_quads, kiln_vi, START_Q8, dot_quads)
#if defined(KILN_ISA_avx512)
KILN_INLINE kiln_vf dot_bf16(kiln_vf sum, kiln_vf a, kiln_vf b) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}
PRODUCT_LOOP(loop_bf16, kiln_vf, START_F32, dot_bf16)

/* Blocks of two by two tiles, whose operands stay in their registers. Returns the words that were
 * multiplied. */
KILN_INLINE double loop_tiles(tile_kind kind, int64_t steps, float *sink) {
    _Alignas(64) float zeros[TILE_ROWS * TILE_WORDS] = {0};
    tile_file f = {0};
    tiles_begin(&f, TILES_TALL);
    TILE_ZERO(&f, 0);
    TILE_ZERO(&f, 1);
    TILE_ZERO(&f, 2);
    TILE_ZERO(&f, 3);
    TILE_LOAD(&f, 4, zeros, TILE_BYTES);
    TILE_LOAD(&f, 5, zeros, TILE_BYTES);
    TILE_LOAD(&f, 6, zeros, TILE_BYTES);
    TILE_LOAD(&f, 7, zeros, TILE_BYTES);
    for (int64_t s = 0; s < steps; s++) {
        TILE_DOT(&f, kind, 0, 4, 6);
        TILE_DOT(&f, kind, 1, 4, 7);
        TILE_DOT(&f, kind, 2, 5, 6);
        TILE_DOT(&f, kind, 3, 5, 7);
    }
    TILE_STORE(&f, 0, zeros, TILE_BYTES);
    tiles_end(&f);
    *sink += zeros[0];
    return 4.0 * TILE_ROWS * TILE_ROWS * TILE_WORDS * (double)steps;
}
#endif

static double probe_multiply(kiln_probe_product product, int64_t steps, float *sink) {
    switch (product) {
    case KILN_PROBE_F32:
        return loop_f32(steps, sink);
    case KILN_PROBE_PAIRS:
        return 2 * loop_pairs(steps, sink);
    case KILN_PROBE_QUADS:
        return 4 * loop_quads(steps, sink);
    case KILN_PROBE_BF16:
#if defined(KILN_ISA_avx512)
        return 2 * loop_bf16(steps, sink);
    case KILN_PROBE_TILE_BYTES:
        return 4 * loop_tiles(BYTES, steps, sink);
    case KILN_PROBE_TILE_HALVES:
        return 2 * loop_tiles(HALVES, steps, sink);
#endif
    default:
        return 0;
    }
}

static float probe_read(const float *x, int64_t n, int64_t passes) {
    kiln_vf sum[STREAMS];
    UNROLL for (int i = 0; i < STREAMS; i++) {
        sum[i] = vf_zero();
    }
    for (int64_t p = 0; p < passes; p++) {
        for (int64_t at = 0; at < n; at += STREAMS * KILN_VLEN) {
            UNROLL for (int i = 0; i < STREAMS; i++) {
                sum[i] = vf_max(sum[i], vf_load(x + at + i * KILN_VLEN));
            }
        }
    }
    UNROLL for (int i = 1; i < STREAMS; i++) {
        sum[0] = vf_max(sum[0], sum[i]);
    }
    return sum[0][0];
}

static void probe_write(float *x, int64_t n, int64_t passes) {
    for (int64_t p = 0; p < passes; p++) {
        const kiln_vf v = vf_set1((float)p);
        for (int64_t at = 0; at < n; at += STREAMS * KILN_VLEN) {
            UNROLL for (int i = 0; i < STREAMS; i++) {
                vf_store(x + at + i * KILN_VLEN, v);
            }
        }
    }
}

const kiln_probe_prims KILN_ISA_SYMBOL(kiln_probe_prims) = {
    .isa = KILN_ISA_NAME,
    .multiply = probe_multiply,
    .read = probe_read,
    .write = probe_write,
};
