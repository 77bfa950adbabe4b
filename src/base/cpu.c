/* Bit positions are those of the CPUID tables in Intel's Software Developer's Manual, volume 2A. */
#define _GNU_SOURCE 1

#include "base/cpu.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* The register sets the operating system saves: extended control register 0. Spelled as assembly
 * because the intrinsic would need the whole file compiled for XSAVE. */
static uint32_t saved_registers(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

enum {
    XCR0_YMM = 0x06,
    XCR0_ZMM = 0xE6,
    XCR0_TILE = 0x60000,
};

static bool has_all(uint32_t word, uint32_t bits) {
    return (word & bits) == bits;
}

static uint32_t bit(int i) {
    return 1u << i;
}

/* Linux saves tile registers for processes that have asked, all their threads alike. */
static bool may_use_tiles(void) {
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

static uint32_t detect(void) {
    uint32_t a, b, c, d, ebx7, edx7, eax71 = 0;
    const uint32_t osxsave = bit(27), fma = bit(12), f16c = bit(29), avx = bit(28);
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, osxsave | fma | f16c | avx)) {
        return KILN_ISA_PORTABLE;
    }
    uint32_t saved = saved_registers();
    if (!__get_cpuid_count(7, 0, &a, &ebx7, &c, &edx7)) {
        return KILN_ISA_PORTABLE;
    }
    uint32_t ecx7 = c;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        eax71 = a;
    }
    const uint32_t avx2 = bit(5), avx512 = bit(16) | bit(17) | bit(30) | bit(31);
    if (!has_all(ebx7, avx2) || !has_all(saved, XCR0_YMM)) {
        return KILN_ISA_PORTABLE;
    }
    uint32_t features = KILN_ISA_AVX2 | (has_all(eax71, bit(4)) ? KILN_CPU_AVXVNNI : 0);
    if (has_all(ebx7, avx512) && has_all(saved, XCR0_ZMM)) {
        features = (features & ~0xFFu) | KILN_ISA_AVX512;
        features |= has_all(ecx7, bit(11)) ? KILN_CPU_VNNI : 0;
        features |= has_all(eax71, bit(5)) ? KILN_CPU_BF16 : 0;
        if (has_all(edx7, bit(24)) && has_all(saved, XCR0_TILE) && may_use_tiles()) {
            features |= has_all(edx7, bit(25)) ? KILN_CPU_AMX_INT8 : 0;
            features |= has_all(edx7, bit(22)) ? KILN_CPU_AMX_BF16 : 0;
        }
    }
    return features;
}

static void read_model(char model[64]) {
    uint32_t words[12];
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t *w = words + 4 * i;
        if (!__get_cpuid(0x80000002 + i, w, w + 1, w + 2, w + 3)) {
            return;
        }
    }
    char text[49] = {0};
    memcpy(text, words, sizeof words);
    size_t begin = strspn(text, " "), len = strlen(text + begin);
    while (len && text[begin + len - 1] == ' ') {
        len--;
    }
    memcpy(model, text + begin, len);
}
#else
static uint32_t detect(void) {
    return KILN_ISA_PORTABLE;
}

static void read_model(char model[64]) {
    (void)model;
}
#endif

enum { AMX = KILN_CPU_AMX_INT8 | KILN_CPU_AMX_BF16 };

/* From low to high: the rung and the flags that a level adds, and all flags it allows. */
static const struct {
    const char *name;
    kiln_isa isa;
    uint32_t adds;
    uint32_t allows;
} levels[] = {
    {"portable", KILN_ISA_PORTABLE, 0, 0},
    {"avx2", KILN_ISA_AVX2, 0, 0},
    {"avxvnni", KILN_ISA_AVX2, KILN_CPU_AVXVNNI, KILN_CPU_AVXVNNI},
    {"avx512", KILN_ISA_AVX512, 0, 0},
    {"avx512vnni", KILN_ISA_AVX512, KILN_CPU_VNNI, KILN_CPU_AVXVNNI | KILN_CPU_VNNI},
    {"avx512bf16", KILN_ISA_AVX512, KILN_CPU_BF16,
     KILN_CPU_AVXVNNI | KILN_CPU_VNNI | KILN_CPU_BF16},
    {"amx", KILN_ISA_AVX512, AMX, KILN_CPU_AVXVNNI | KILN_CPU_VNNI | KILN_CPU_BF16 | AMX},
};

const char *kiln_cpu_level_name(uint32_t features) {
    size_t best = 0;
    for (size_t i = 1; i < KILN_COUNT_OF(levels); i++) {
        bool reached = kiln_cpu_isa(features) >= levels[i].isa &&
                       (levels[i].adds == 0 || (features & levels[i].adds));
        best = reached ? i : best;
    }
    return levels[best].name;
}

bool kiln_cpu_limit(const char *name, uint32_t *features) {
    for (size_t i = 0; i < KILN_COUNT_OF(levels); i++) {
        if (strcasecmp(levels[i].name, name) == 0) {
            uint32_t isa = kiln_cpu_isa(*features);
            isa = isa < levels[i].isa ? isa : levels[i].isa;
            *features = isa | (*features & levels[i].allows);
            return true;
        }
    }
    return false;
}

uint32_t kiln_cpu_features(void) {
    static _Atomic uint32_t cached;
    const uint32_t known = 1u << 31;
    uint32_t word = atomic_load_explicit(&cached, memory_order_relaxed);
    if (!word) {
        uint32_t features = detect();
        const char *limit = getenv("KILN_MAX_ISA");
        if (limit) {
            kiln_cpu_limit(limit, &features);
        }
        word = features | known;
        atomic_store_explicit(&cached, word, memory_order_relaxed);
    }
    return word & ~known;
}

static int64_t cache_bytes(int name) {
    long bytes = sysconf(name);
    return bytes > 0 ? bytes : 0;
}

void kiln_cpu_describe(kiln_cpu_info *out) {
    *out = (kiln_cpu_info){0};
    read_model(out->model);
#ifdef _SC_LEVEL1_DCACHE_SIZE
    out->l1d_bytes = cache_bytes(_SC_LEVEL1_DCACHE_SIZE);
    out->l2_bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE);
    out->l3_bytes = cache_bytes(_SC_LEVEL3_CACHE_SIZE);
    out->line_bytes = cache_bytes(_SC_LEVEL1_DCACHE_LINESIZE);
#endif
}
