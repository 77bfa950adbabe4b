/* probe.c - what of probe.h needs no vectors. */
#include "backend/cpu/prims/probe.h"

uint64_t kiln_probe_chain(int64_t n) {
    uint64_t x = (uint64_t)n | 1;
    for (int64_t i = 0; i < n; i++) {
        x *= x;
        __asm__ volatile("" : "+r"(x)); /* a power by squaring would end the chain early */
    }
    return x;
}
