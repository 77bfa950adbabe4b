/* cpu.h - what the processor can do, and how much of it may be used.
 *
 * Instruction sets form a ladder of rungs, each including those below, with features beside it:
 *
 *     uint32_t cpu = kiln_cpu_features();
 *     if (kiln_cpu_isa(cpu) >= KILN_ISA_AVX512 && (cpu & KILN_CPU_VNNI)) { ... }
 *
 * A feature counts only when the operating system saves its registers. The environment variable
 * KILN_MAX_ISA lowers what is reported, so that every rung can be tested on one machine; it is read
 * once, at the first call. */
#ifndef KILN_BASE_CPU_H
#define KILN_BASE_CPU_H

#include "base/compiler.h"

typedef enum kiln_isa {
    KILN_ISA_PORTABLE = 0,
    KILN_ISA_AVX2 = 1,   /* with FMA and F16C */
    KILN_ISA_AVX512 = 2, /* F, BW, DQ and VL */
} kiln_isa;

/* The feature word: the rung in the low byte, flags above. */
enum {
    KILN_CPU_AVXVNNI = 1 << 8,   /* 8-bit dot products on 256-bit vectors, without AVX-512 */
    KILN_CPU_VNNI = 1 << 9,      /* 8-bit dot products on AVX-512 */
    KILN_CPU_BF16 = 1 << 10,     /* bfloat16 dot products on AVX-512 */
    KILN_CPU_AMX_INT8 = 1 << 11, /* tile registers, which Linux has let the process use */
    KILN_CPU_AMX_BF16 = 1 << 12,
};

/* The feature word of this processor under KILN_MAX_ISA. Any thread. */
uint32_t kiln_cpu_features(void);

static inline kiln_isa kiln_cpu_isa(uint32_t features) {
    return (kiln_isa)(features & 0xFF);
}

/* The name of the highest level that `features` reaches, as KILN_MAX_ISA takes it: "portable",
 * "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16" or "amx". */
const char *kiln_cpu_level_name(uint32_t features);
/* Lowers *features to the level `name`; false for an unknown name. An unknown KILN_MAX_ISA limits
 * nothing: whoever can report checks it with this. */
bool kiln_cpu_limit(const char *name, uint32_t *features);

/* Zero for what is not known. */
typedef struct kiln_cpu_info {
    char model[64]; /* "AMD EPYC ..." */
    int64_t l1d_bytes;
    int64_t l2_bytes;
    int64_t l3_bytes;
    int64_t line_bytes;
} kiln_cpu_info;

void kiln_cpu_describe(kiln_cpu_info *out);

#endif
