/* machine.c - the machine, the libraries, and the names of what can be switched off. */
#include <jansson.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <xxhash.h>
#include <zip.h>
#include <zlib.h>

#include "backend/backend.h"
#include "base/cpu.h"
#include "base/host.h"
#include "base/timer.h"
#include "build/lower.h"
#include "flow/flow.h"
#include "pass/pass.h"

static void read_line(char *dst, size_t cap, const char *path) {
    FILE *f = fopen(path, "re");
    dst[0] = '\0';
    if (f) {
        if (!fgets(dst, (int)cap, f)) {
            dst[0] = '\0';
        }
        dst[strcspn(dst, "\n")] = '\0';
        fclose(f);
    }
}

static int32_t cores_allowed(void) {
    int32_t n = 0;
    while (kiln_host_core(n) >= 0) {
        n++;
    }
    return n;
}

void kiln_machine_describe(kiln_machine *out) {
    memset(out, 0, sizeof *out);
    kiln_cpu_info cpu;
    kiln_cpu_describe(&cpu);
    snprintf(out->cpu, sizeof out->cpu, "%s", cpu.model);
    snprintf(out->isa, sizeof out->isa, "%s", kiln_cpu_level_name(kiln_cpu_features()));
    read_line(out->governor, sizeof out->governor,
              "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    out->cores_online = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    out->cores_allowed = cores_allowed();
    out->cores_usable = kiln_host_cores();
    out->memory_bytes = kiln_host_memory_bytes();
    out->l1d_bytes = cpu.l1d_bytes;
    out->l2_bytes = cpu.l2_bytes;
    out->l3_bytes = cpu.l3_bytes;
    double load;
    out->load = getloadavg(&load, 1) == 1 ? load : -1;
}

#define TEXT_OF(x) TEXT_OF_(x)
#define TEXT_OF_(x) #x

static const char *const isas[] = {"portable",   "avx2",       "avxvnni", "avx512",
                                   "avx512vnni", "avx512bf16", "amx"};

const char *kiln_isa_get(size_t i, bool *available) {
    if (i >= KILN_COUNT_OF(isas)) {
        return NULL;
    }
    uint32_t features = kiln_cpu_features();
    if (available) {
        *available = kiln_cpu_limit(isas[i], &features) &&
                     strcmp(kiln_cpu_level_name(features), isas[i]) == 0;
    }
    return isas[i];
}

static const char *kernel_name(size_t i) {
    return i < kiln_kernel_count() ? kiln_kernel_at(i)->name : NULL;
}

const char *kiln_off_get(size_t i, const char **kind) {
    static const struct {
        const char *kind;
        const char *(*at)(size_t i);
    } lists[] = {{"pass", kiln_pass_name},
                 {"rewrite", kiln_lowering_at},
                 {"kernel", kernel_name},
                 {"fusion", kiln_fusion_at}};
    for (size_t list = 0; list < KILN_COUNT_OF(lists); list++) {
        size_t n = 0;
        for (; lists[list].at(n); n++) {
            if (n == i) {
                if (kind) {
                    *kind = lists[list].kind;
                }
                return lists[list].at(i);
            }
        }
        i -= n;
    }
    return NULL;
}

const char *kiln_library_get(size_t i, const char **version) {
    static const char *const names[] = {"jansson", "libpng", "libzip", "zlib", "xxhash"};
    static const char xxhash[] =
        TEXT_OF(XXH_VERSION_MAJOR) "." TEXT_OF(XXH_VERSION_MINOR) "." TEXT_OF(XXH_VERSION_RELEASE);
    if (i >= KILN_COUNT_OF(names)) {
        return NULL;
    }
    const char *const versions[] = {jansson_version_str(), png_get_libpng_ver(NULL),
                                    zip_libzip_version(), zlibVersion(), xxhash};
    *version = versions[i];
    return names[i];
}

/* ---- Load ---- */

/* Seconds all tasks ran on the allowed cores since boot, from /proc/stat: user, nice, system, irq,
 * softirq and steal of each "cpuN" line. */
static bool busy_seconds(double *out) {
    FILE *f = fopen("/proc/stat", "re");
    char line[512];
    unsigned long long ticks = 0;
    bool any = false;
    while (f && fgets(line, sizeof line, f)) {
        int core;
        unsigned long long t[8];
        if (sscanf(line, "cpu%d %llu %llu %llu %llu %llu %llu %llu %llu", &core, &t[0], &t[1],
                   &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]) != 9) {
            continue;
        }
        for (int32_t i = 0; kiln_host_core(i) >= 0; i++) {
            if (kiln_host_core(i) == core) {
                ticks += t[0] + t[1] + t[2] + t[5] + t[6] + t[7];
                any = true;
            }
        }
    }
    if (f) {
        fclose(f);
    }
    *out = (double)ticks / (double)sysconf(_SC_CLK_TCK);
    return any;
}

static double own_seconds(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           1e-6 * (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

void kiln_load_start(kiln_load_probe *probe) {
    probe->known = busy_seconds(&probe->busy_s);
    probe->own_s = own_seconds();
    probe->at_ns = kiln_now_ns();
}

double kiln_load_others(const kiln_load_probe *since) {
    kiln_load_probe now;
    kiln_load_start(&now);
    double wall = 1e-9 * (double)(now.at_ns - since->at_ns);
    if (!since->known || !now.known || wall < 0.2) {
        return -1;
    }
    double others = (now.busy_s - since->busy_s) - (now.own_s - since->own_s);
    return others > 0 ? others / wall : 0;
}
