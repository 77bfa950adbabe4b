#define _GNU_SOURCE 1

#include "base/host.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PATH = 4096, MAX_TEXT = 8192 };

/* Reads a small file into buf as a string; false when it cannot be read. */
static bool read_small(const char *path, char *buf, size_t cap) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    size_t len = 0;
    ssize_t got = 0;
    while (len + 1 < cap && (got = read(fd, buf + len, cap - 1 - len)) > 0) {
        len += (size_t)got;
    }
    close(fd);
    buf[len] = '\0';
    return len > 0;
}

/* The path of this process's group in /proc/self/cgroup text: the line "N:CONTROLLERS:/PATH" whose
 * comma-separated controllers hold `controller` ("" finds version 2's "0::/PATH"). */
static bool find_group(const char *text, const char *controller, char *path, size_t cap) {
    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n");
        const char *names = memchr(line, ':', len);
        const char *end = names ? memchr(names + 1, ':', len - (size_t)(names + 1 - line)) : NULL;
        if (end) {
            size_t want = strlen(controller);
            bool match = want == 0 && end == names + 1;
            for (const char *name = names + 1; want && name < end;) {
                size_t item = strcspn(name, ",:");
                match = match || (item == want && memcmp(name, controller, want) == 0);
                name += item + 1;
            }
            size_t bytes = len - (size_t)(end + 1 - line);
            if (match && bytes < cap) {
                memcpy(path, end + 1, bytes);
                path[bytes] = '\0';
                return true;
            }
        }
        line += len + (line[len] == '\n');
    }
    return false;
}

/* A limit read from one group directory; UINT64_MAX when there is none. */
typedef uint64_t (*group_reader)(const char *dir);

/* The smallest limit of the group and all above it. Groups that the mount does not show (a
 * container without its own group namespace) are passed over. */
static uint64_t smallest_limit(const char *mount, char *group, group_reader read_limit) {
    uint64_t best = UINT64_MAX;
    for (;;) {
        char dir[MAX_PATH + 64];
        snprintf(dir, sizeof dir, "%s%s", mount, strcmp(group, "/") == 0 ? "" : group);
        uint64_t limit = read_limit(dir);
        best = limit < best ? limit : best;
        char *slash = strrchr(group, '/');
        if (!slash || *group == '\0') {
            return best;
        }
        *slash = '\0';
    }
}

static bool read_number(const char *dir, const char *file, uint64_t *out) {
    char path[MAX_PATH + 128], text[64];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    char *end;
    if (!read_small(path, text, sizeof text)) {
        return false;
    }
    *out = strtoull(text, &end, 10);
    return end != text && text[0] != '-';
}

static uint64_t memory_v2(const char *dir) {
    uint64_t bytes;
    return read_number(dir, "memory.max", &bytes) ? bytes : UINT64_MAX;
}

static uint64_t memory_v1(const char *dir) {
    uint64_t bytes;
    return read_number(dir, "memory.limit_in_bytes", &bytes) ? bytes : UINT64_MAX;
}

static uint64_t quota_cores(uint64_t quota_us, uint64_t period_us) {
    return period_us ? quota_us / period_us + (quota_us % period_us != 0) : UINT64_MAX;
}

/* cpu.max holds "QUOTA PERIOD" in microseconds, or "max PERIOD". */
static uint64_t cores_v2(const char *dir) {
    char path[MAX_PATH + 128], text[64];
    snprintf(path, sizeof path, "%s/cpu.max", dir);
    if (!read_small(path, text, sizeof text) || text[0] < '0' || text[0] > '9') {
        return UINT64_MAX;
    }
    char *end;
    uint64_t quota = strtoull(text, &end, 10);
    return quota_cores(quota, strtoull(end, NULL, 10));
}

static uint64_t cores_v1(const char *dir) {
    uint64_t quota, period;
    bool limited = read_number(dir, "cpu.cfs_quota_us", &quota) &&
                   read_number(dir, "cpu.cfs_period_us", &period);
    return limited ? quota_cores(quota, period) : UINT64_MAX;
}

/* The limit of `controller` under either version; v1 mounts are tried by the controller's name and
 * the v2 tree also where hybrid systems mount it. */
static uint64_t group_limit(const char *controller, group_reader v2, group_reader v1) {
    char text[MAX_TEXT], group[MAX_PATH], mount[64];
    if (!read_small("/proc/self/cgroup", text, sizeof text)) {
        return UINT64_MAX;
    }
    uint64_t best = UINT64_MAX;
    if (find_group(text, "", group, sizeof group)) {
        best = smallest_limit("/sys/fs/cgroup", group, v2);
    }
    if (find_group(text, controller, group, sizeof group)) {
        snprintf(mount, sizeof mount, "/sys/fs/cgroup/%s", controller);
        uint64_t limit = smallest_limit(mount, group, v1);
        best = limit < best ? limit : best;
    }
    return best;
}

uint64_t kiln_host_memory_bytes(void) {
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGE_SIZE);
    uint64_t physical =
        pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : UINT64_MAX;
    uint64_t limit = group_limit("memory", memory_v2, memory_v1);
    return limit < physical ? limit : physical;
}

int32_t kiln_host_core(int32_t i) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        return -1;
    }
    for (int32_t core = 0; core < CPU_SETSIZE; core++) {
        if (CPU_ISSET(core, &set) && i-- == 0) {
            return core;
        }
    }
    return -1;
}

int32_t kiln_host_cores(void) {
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t cores = online > 0 ? (uint64_t)online : 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        cores = (uint64_t)CPU_COUNT(&set);
    }
    uint64_t quota = group_limit("cpu", cores_v2, cores_v1);
    cores = quota < cores ? quota : cores;
    return cores < 1 ? 1 : cores > INT32_MAX ? INT32_MAX : (int32_t)cores;
}
