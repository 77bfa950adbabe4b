/* host.h - what this process may use of the machine: memory and cores.
 *
 * Containers limit both without telling sysconf, so these read the control groups too: version 2
 * (memory.max, cpu.max) and version 1 (memory.limit_in_bytes, cpu.cfs_quota_us), at the process's
 * own group and every group above it. Nothing is cached; each call reads a few small files. */
#ifndef KILN_BASE_HOST_H
#define KILN_BASE_HOST_H

#include "base/compiler.h"

/* Physical memory or the control group's limit, whichever is smaller, in bytes. */
uint64_t kiln_host_memory_bytes(void);

/* Cores in this process's affinity mask, not more than the control group's CPU quota rounded up;
 * at least 1. */
int32_t kiln_host_cores(void);

/* The i-th core (from 0) of the affinity mask, or -1 when there are fewer. */
int32_t kiln_host_core(int32_t i);

#endif
