/* peak.h - what the prims' benches share: the multiply-add peak, timing, one line of the table.
 *
 * One thread. Each case runs warm, repeatedly, and the fastest of all runs counts; the peak is
 * measured before and after, so that a drifting clock cancels. "cold" touches 64 MiB before each
 * run: operands then come from memory, as in a net larger than the cache. */
#ifndef KILN_LAB_PEAK_H
#define KILN_LAB_PEAK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Multiply-adds a second of twelve independent chains, which hide the latency of every core of
 * interest. The portable rung is held against mul + add on four lanes, what it is made of. */
#define TWELVE(op, r)                                                                         \
    op(r "0") op(r "1") op(r "2") op(r "3") op(r "4") op(r "5") op(r "6") op(r "7") op(r "8") \
        op(r "9") op(r "10") op(r "11")
#define FMA_STEP(r) "vfmadd231ps %%" r ", %%" r ", %%" r "\n"
#define MUL_ADD_STEP(r) "mulps %%xmm12, %%" r "\naddps %%xmm12, %%" r "\n"
#define ZERO_SSE(r) "xorps %%" r ", %%" r "\n"
#define CLOBBERS                                                                             \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
        "xmm11", "xmm12"
#define DEFINE_PEAK(name, lanes, zero, step, r)                   \
    static double name(void) {                                    \
        const int64_t n = 100000;                                 \
        double best = 0;                                          \
        for (int repeat = 0; repeat < 5; repeat++) {              \
            double t = now();                                     \
            __asm__ volatile(zero ::: CLOBBERS);                  \
            for (int64_t k = 0; k < n; k++) {                     \
                __asm__ volatile(TWELVE(step, r)::: CLOBBERS);    \
            }                                                     \
            double rate = (double)n * 12 * (lanes) / (now() - t); \
            best = rate > best ? rate : best;                     \
        }                                                         \
        return best;                                              \
    }
DEFINE_PEAK(peak_portable, 4, TWELVE(ZERO_SSE, "xmm") ZERO_SSE("xmm12"), MUL_ADD_STEP, "xmm")
DEFINE_PEAK(peak_avx2, 8, "vzeroall\n", FMA_STEP, "ymm")
DEFINE_PEAK(peak_avx512, 16, "vzeroall\n", FMA_STEP, "zmm")

static double peak(int isa) {
    return isa == 2 ? peak_avx512() : isa == 1 ? peak_avx2() : peak_portable();
}

/* 0 portable, 1 avx2, 2 avx512; the best present when name is NULL; -1: unknown or absent here. */
static int choose_isa(const char *name) {
    const char *names[] = {"portable", "avx2", "avx512"};
    const int present[] = {1, __builtin_cpu_supports("avx2"), __builtin_cpu_supports("avx512bw")};
    int best = -1;
    for (int i = 0; i < 3; i++) {
        if (present[i] && (!name || strcmp(name, names[i]) == 0)) {
            best = i;
        }
    }
    if (best >= 0) {
        printf("%s, peak %.1f GFLOP/s\n", names[best], 2e-9 * peak(best));
    }
    return best;
}

static float *random_floats(int64_t count) {
    size_t bytes = ((size_t)count * sizeof(float) + 4095) / 4096 * 4096 + 4096;
    float *p = aligned_alloc(4096, bytes);
    if (!p) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    uint32_t seed = 1;
    for (size_t i = 0; i < bytes / sizeof(float); i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (float)(seed >> 8) / 16777216.0f - 0.5f;
    }
    return p;
}

static double timed(void (*run)(void *), void *arg) {
    double t = now();
    run(arg);
    return now() - t;
}

static void report(const char *name, int isa, int64_t tiles, double macs, void (*run)(void *),
                   void *arg) {
    const int64_t flush_floats = 16 << 20;
    float *flush = random_floats(flush_floats);
    double top = peak(isa);
    double best = 1e9;
    double cold = 1e9;
    double start = now();
    for (int i = 0; i < 400 && (i < 8 || now() - start < 0.2); i++) {
        double t = timed(run, arg);
        best = t < best ? t : best;
    }
    for (int i = 0; i < 4; i++) {
        for (int64_t k = 0; k < flush_floats; k += 16) {
            flush[k] += 1.0f;
        }
        double t = timed(run, arg);
        cold = t < cold ? t : cold;
    }
    double after = peak(isa);
    top = after > top ? after : top;
    printf("%-30s tiles %4lld %9.1f us %7.1f GFLOP/s  %4.2f of peak, cold %4.2f\n", name,
           (long long)tiles, best * 1e6, 2e-9 * macs / best, macs / best / top, macs / cold / top);
    free(flush);
}

#endif
