/* Makes one call of a process fail, as a full disk or a failing one would, or the clock jump:
 * preloaded by test_faults.py.
 *
 *     FAULT_CALL   write | fsync | renameat | read | pthread_create | clock
 *     FAULT_AT     which call fails, from 1 (pthread_create: this one and all after it);
 *                  clock: each asking moves the time of day by so many seconds more, to and fro
 *     FAULT_KIND   an errno as a number; SHORT: writes or reads half; EINTR once; KILL: the
 *                  process ends there and then
 *     FAULT_FILE   is created when the fault happens
 *
 * Standard streams are left alone. */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static atomic_int calls;

/* 0: go on; else the errno, or -1 for SHORT. */
static int fault(const char *name) {
    const char *call = getenv("FAULT_CALL"), *at = getenv("FAULT_AT"), *kind = getenv("FAULT_KIND");
    if (!call || !at || !kind || strcmp(call, name) != 0) {
        return 0;
    }
    int n = atomic_fetch_add(&calls, 1) + 1, wanted = (int)strtol(at, NULL, 10);
    if (strcmp(name, "pthread_create") == 0 ? n < wanted : n != wanted) {
        return 0;
    }
    const char *mark = getenv("FAULT_FILE");
    if (mark) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, mark, O_CREAT | O_WRONLY, 0600);
        syscall(SYS_close, fd);
    }
    if (strcmp(kind, "KILL") == 0) {
        kill(getpid(), SIGKILL);
    }
    return strcmp(kind, "SHORT") == 0 ? -1 : (int)strtol(kind, NULL, 10);
}

ssize_t write(int fd, const void *data, size_t bytes) {
    int f = fd > 2 ? fault("write") : 0;
    if (f > 0) {
        errno = f;
        return -1;
    }
    return syscall(SYS_write, fd, data, f < 0 ? (bytes + 1) / 2 : bytes);
}

ssize_t pread(int fd, void *data, size_t bytes, off_t at) {
    int f = fault("read");
    if (f > 0) {
        errno = f;
        return -1;
    }
    return syscall(SYS_pread64, fd, data, f < 0 ? (bytes + 1) / 2 : bytes, at);
}

int fsync(int fd) {
    int f = fault("fsync");
    if (f > 0) {
        errno = f;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    int f = fault("renameat");
    if (f > 0) {
        errno = f;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, 0);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                   void *arg) {
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    int f = fault("pthread_create");
    return f > 0 ? f : real(thread, attr, start, arg);
}

/* The time of day as somebody sets it again and again; other clocks go on. */
int clock_gettime(clockid_t clock, struct timespec *out) {
    const char *call = getenv("FAULT_CALL"), *at = getenv("FAULT_AT");
    int status = (int)syscall(SYS_clock_gettime, clock, out);
    if (clock == CLOCK_REALTIME && call && at && strcmp(call, "clock") == 0) {
        long n = atomic_fetch_add(&calls, 1) + 1;
        out->tv_sec += (n % 2 ? n : -n) * strtol(at, NULL, 10);
    }
    return status;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return out ? (*out = now.tv_sec) : now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
