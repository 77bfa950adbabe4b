/* target.c - from CPU features to vector code: one table of prims per rung. */
#include "backend/cpu/kernel.h"
#include "base/cpu.h"

#define KILN_PRIM_FAMILIES(X) \
    X(gemm)                   \
    X(conv)                   \
    X(depthwise)              \
    X(winograd)               \
    X(program)                \
    X(norm)                   \
    X(pool)                   \
    X(move)                   \
    X(reduce)                 \
    X(attention)              \
    X(rnn)                    \
    X(quantize)               \
    X(boxes)                  \
    X(probe)

/* Families with a form of their own for 8-bit dot products. */
#define KILN_Q8_FAMILIES(X) \
    X(gemm_q8)              \
    X(conv_q8)              \
    X(depthwise_q8)

/* Forms of float families with weights in 16 bits; bfloat16 may have dot products (gemm_form.h). */
#define KILN_HALF_FAMILIES(X)    \
    X(gemm, gemm_bf16, gemm_f16) \
    X(conv, conv_bf16, conv_f16)

#define DECLARE(family)                                                       \
    extern const struct kiln_##family##_prims kiln_##family##_prims_portable; \
    extern const struct kiln_##family##_prims kiln_##family##_prims_avx2;     \
    extern const struct kiln_##family##_prims kiln_##family##_prims_avx512;
#define DECLARE_VNNI(family)                                                 \
    extern const struct kiln_##family##_prims kiln_##family##_prims_avxvnni; \
    extern const struct kiln_##family##_prims kiln_##family##_prims_avx512vnni;
KILN_PRIM_FAMILIES(DECLARE)
KILN_Q8_FAMILIES(DECLARE)
KILN_Q8_FAMILIES(DECLARE_VNNI)
extern const struct kiln_gemm_q8_prims kiln_gemm_q8_prims_amx;
extern const struct kiln_conv_q8_prims kiln_conv_q8_prims_amx;

#define DECLARE_HALF(family, bf16, f16)                                          \
    extern const struct kiln_##family##_prims kiln_##bf16##_prims_portable;      \
    extern const struct kiln_##family##_prims kiln_##bf16##_prims_avx2;          \
    extern const struct kiln_##family##_prims kiln_##bf16##_prims_avx512;        \
    extern const struct kiln_##family##_prims kiln_##family##_dot_prims_avx512;  \
    extern const struct kiln_##family##_prims kiln_##family##_tile_prims_avx512; \
    extern const struct kiln_##family##_prims kiln_##f16##_prims_portable;       \
    extern const struct kiln_##family##_prims kiln_##f16##_prims_avx2;           \
    extern const struct kiln_##family##_prims kiln_##f16##_prims_avx512;
KILN_HALF_FAMILIES(DECLARE_HALF)
extern const struct kiln_depthwise_prims kiln_depthwise_half_prims_avx512;

/* The prims of bfloat16 on rungs without instructions for pairs; CMake's KILN_PAIRS tests those. */
#if defined(KILN_DOT_FORM)
#define DECLARE_PAIRS(family, bf16, f16)                                          \
    extern const struct kiln_##family##_prims kiln_##family##_dot_prims_portable; \
    extern const struct kiln_##family##_prims kiln_##family##_dot_prims_avx2;
KILN_HALF_FAMILIES(DECLARE_PAIRS)
extern const struct kiln_depthwise_prims kiln_depthwise_half_prims_portable,
    kiln_depthwise_half_prims_avx2;
#define BF16_PRIMS(family, bf16, isa) kiln_##family##_dot_prims_##isa
#define DEPTHWISE_HALF(isa) .depthwise_half = &kiln_depthwise_half_prims_##isa,
#else
#define BF16_PRIMS(family, bf16, isa) kiln_##bf16##_prims_##isa
#define DEPTHWISE_HALF(isa)
#endif

#define PORTABLE(family) .family = &kiln_##family##_prims_portable,
#define AVX2(family) .family = &kiln_##family##_prims_avx2,
#define AVXVNNI(family) .family = &kiln_##family##_prims_avxvnni,
#define AVX512(family) .family = &kiln_##family##_prims_avx512,
#define AVX512VNNI(family) .family = &kiln_##family##_prims_avx512vnni,
#define HALF_PORTABLE(family, bf16, f16) \
    .bf16 = &BF16_PRIMS(family, bf16, portable), .f16 = &kiln_##f16##_prims_portable,
#define HALF_AVX2(family, bf16, f16) \
    .bf16 = &BF16_PRIMS(family, bf16, avx2), .f16 = &kiln_##f16##_prims_avx2,
#define HALF_AVX512(family, bf16, f16) \
    .bf16 = &kiln_##bf16##_prims_avx512, .f16 = &kiln_##f16##_prims_avx512,
#define HALF_AVX512DOT(family, bf16, f16) \
    .bf16 = &kiln_##family##_dot_prims_avx512, .f16 = &kiln_##f16##_prims_avx512,
#define HALF_AMX(family, bf16, f16) \
    .bf16 = &kiln_##family##_tile_prims_avx512, .f16 = &kiln_##f16##_prims_avx512,

/* From low to high; a processor gets the last one it has everything for. */
static const struct {
    kiln_isa isa;
    uint32_t flag;
    kiln_prims prims;
} rungs[] = {
    {KILN_ISA_PORTABLE,
     0,
     {.isa = "portable",
      DEPTHWISE_HALF(portable) KILN_PRIM_FAMILIES(PORTABLE) KILN_Q8_FAMILIES(PORTABLE)
          KILN_HALF_FAMILIES(HALF_PORTABLE)}},
#if defined(__x86_64__)
    {KILN_ISA_AVX2,
     0,
     {.isa = "avx2",
      DEPTHWISE_HALF(avx2) KILN_PRIM_FAMILIES(AVX2) KILN_Q8_FAMILIES(AVX2)
          KILN_HALF_FAMILIES(HALF_AVX2)}},
    {KILN_ISA_AVX2,
     KILN_CPU_AVXVNNI,
     {.isa = "avxvnni",
      DEPTHWISE_HALF(avx2) KILN_PRIM_FAMILIES(AVX2) KILN_Q8_FAMILIES(AVXVNNI)
          KILN_HALF_FAMILIES(HALF_AVX2)}},
    {KILN_ISA_AVX512,
     0,
     {.isa = "avx512",
      KILN_PRIM_FAMILIES(AVX512) KILN_Q8_FAMILIES(AVX512) KILN_HALF_FAMILIES(HALF_AVX512)}},
    {KILN_ISA_AVX512,
     KILN_CPU_VNNI,
     {.isa = "avx512vnni",
      KILN_PRIM_FAMILIES(AVX512) KILN_Q8_FAMILIES(AVX512VNNI) KILN_HALF_FAMILIES(HALF_AVX512)}},
    {KILN_ISA_AVX512,
     KILN_CPU_VNNI | KILN_CPU_BF16,
     {.isa = "avx512bf16",
      KILN_PRIM_FAMILIES(AVX512) KILN_Q8_FAMILIES(AVX512VNNI) KILN_HALF_FAMILIES(HALF_AVX512DOT)
          .depthwise_half = &kiln_depthwise_half_prims_avx512}},
    {KILN_ISA_AVX512,
     KILN_CPU_VNNI | KILN_CPU_BF16 | KILN_CPU_AMX_INT8 | KILN_CPU_AMX_BF16,
     {.isa = "amx",
      .gemm_q8 = &kiln_gemm_q8_prims_amx,
      .conv_q8 = &kiln_conv_q8_prims_amx,
      .depthwise_q8 = &kiln_depthwise_q8_prims_avx512vnni,
      .depthwise_half = &kiln_depthwise_half_prims_avx512,
      KILN_PRIM_FAMILIES(AVX512) KILN_HALF_FAMILIES(HALF_AMX)}},
#endif
};

void kiln_cpu_target_init(kiln_cpu_target *target, uint32_t features, const char *const *off) {
    size_t best = 0;
    for (size_t i = 1; i < KILN_COUNT_OF(rungs); i++) {
        bool has =
            kiln_cpu_isa(features) >= rungs[i].isa && (features & rungs[i].flag) == rungs[i].flag;
        best = has ? i : best;
    }
    *target = (kiln_cpu_target){.features = features, .prims = &rungs[best].prims, .off = off};
}

const char *kiln_target_isa(const kiln_cpu_target *target) {
    return target->prims->isa;
}
