/* target.c - from CPU features to vector code: one table of prims per rung. */
#include "backend/cpu/kernel.h"
#include "base/cpu.h"

#define KILN_PRIM_FAMILIES(X) \
    X(gemm)                   \
    X(conv)                   \
    X(depthwise)              \
    X(program)                \
    X(norm)                   \
    X(pool)                   \
    X(move)                   \
    X(reduce)                 \
    X(attention)              \
    X(rnn)

#define DECLARE(family)                                                       \
    extern const struct kiln_##family##_prims kiln_##family##_prims_portable; \
    extern const struct kiln_##family##_prims kiln_##family##_prims_avx2;     \
    extern const struct kiln_##family##_prims kiln_##family##_prims_avx512;
KILN_PRIM_FAMILIES(DECLARE)

#define PORTABLE(family) .family = &kiln_##family##_prims_portable,
#define AVX2(family) .family = &kiln_##family##_prims_avx2,
#define AVX512(family) .family = &kiln_##family##_prims_avx512,

static const kiln_prims rungs[] = {
    [KILN_ISA_PORTABLE] = {.isa = "portable", KILN_PRIM_FAMILIES(PORTABLE)},
#if defined(__x86_64__)
    [KILN_ISA_AVX2] = {.isa = "avx2", KILN_PRIM_FAMILIES(AVX2)},
    [KILN_ISA_AVX512] = {.isa = "avx512", KILN_PRIM_FAMILIES(AVX512)},
#endif
};

void kiln_cpu_target_init(kiln_cpu_target *target, uint32_t features, const char *const *off) {
    size_t rung = (size_t)kiln_cpu_isa(features);
    if (rung >= KILN_COUNT_OF(rungs)) {
        rung = KILN_COUNT_OF(rungs) - 1;
    }
    *target = (kiln_cpu_target){.features = features, .prims = &rungs[rung], .off = off};
}

const char *kiln_target_isa(const kiln_cpu_target *target) {
    return target->prims->isa;
}
