#define _GNU_SOURCE 1

#include "base/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/diag.h"

enum { MAX_LOCATION = 4096, MAX_HOPS = 8, MAX_TRIES = 16, SHOWN = 300 };

static const int file_mode = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
static const int folder_mode = O_PATH | O_DIRECTORY | O_CLOEXEC;

/* Splits path at its last slash: folder ("." when there is none, kept as "/" for the root) into
 * buf; returns the last component. NULL when buf is too small. */
static const char *split(const char *path, char *buf, size_t cap) {
    const char *slash = strrchr(path, '/');
    size_t len = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
    if (len + 2 > cap) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    memcpy(buf, len ? path : ".", len ? len : 1);
    buf[len ? len : 1] = '\0';
    return slash ? slash + 1 : path;
}

/* Opens `path`, which holds no "..", beneath folder `root` and follows no link on the way. */
static int open_walking(int root, const char *path, int mode) {
    int at = root;
    for (;;) {
        char name[NAME_MAX + 1];
        size_t len = strcspn(path, "/");
        bool last = path[len] == '\0';
        int fd = -1;
        if (len > NAME_MAX) {
            errno = ENAMETOOLONG;
        } else {
            memcpy(name, path, len);
            name[len] = '\0';
            fd = openat(at, name, (last ? mode : folder_mode) | O_NOFOLLOW);
        }
        int error = errno;
        if (at != root) {
            close(at);
        }
        errno = error;
        if (fd < 0 || last) {
            return fd;
        }
        at = fd;
        path += len + 1;
    }
}

#ifdef SYS_openat2
/* The kernel's struct open_how and flags (openat2(2)), which older headers lack. */
enum { NO_MAGIC_LINKS = 0x02, BENEATH = 0x08 };

static int open_confined(int root, const char *path, int mode) {
    struct {
        uint64_t flags, mode, resolve;
    } how = {(uint64_t)mode, 0, NO_MAGIC_LINKS | BENEATH};
    int fd = -1;
    /* EAGAIN: something on the path was renamed meanwhile. */
    for (int i = 0; i < MAX_TRIES; i++) {
        fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
        if (fd >= 0 || errno != EAGAIN) {
            break;
        }
    }
    return fd;
}
#else
static int open_confined(int root, const char *path, int mode) {
    (void)root;
    (void)path;
    (void)mode;
    errno = ENOSYS;
    return -1;
}
#endif

/* EPERM: system call filters older than the call refuse it with that. */
static int open_beneath(const kiln_dir *dir, int root, const char *path, int mode) {
    if (!(dir->flags & KILN_DIR_WALK)) {
        int fd = open_confined(root, path, mode);
        if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) {
            return fd;
        }
    }
    return open_walking(root, path, mode);
}

static bool same_folder(int a, int b) {
    struct stat x, y;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Follows the link `path` beneath root by hand. Only a chain whose end lies in the real folder is
 * opened, and it is opened from that folder's own descriptor, so that nothing can be swapped in
 * between. */
static int open_linked(const kiln_dir *dir, const char *path) {
    char folder[MAX_LOCATION], target[MAX_LOCATION], name[NAME_MAX + 1];
    const char *base = split(path, folder, sizeof folder);
    int at = base ? open_beneath(dir, dir->root, folder, folder_mode) : -1;
    int fd = -1;
    for (int hop = 0; at >= 0 && fd < 0 && hop < MAX_HOPS && strlen(base) <= NAME_MAX; hop++) {
        memcpy(name, base, strlen(base) + 1);
        ssize_t len = readlinkat(at, name, target, sizeof target - 1);
        if (len <= 0) {
            break;
        }
        target[len] = '\0';
        base = split(target, folder, sizeof folder);
        if (!base || !*base || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
            break;
        }
        int next = openat(at, folder, folder_mode);
        close(at);
        at = next;
        if (at >= 0 && same_folder(at, dir->real)) {
            fd = open_beneath(dir, dir->real, base, file_mode);
            close(at);
            return fd;
        }
    }
    if (at >= 0) {
        close(at);
    }
    errno = EXDEV;
    return -1;
}

/* NULL, or what is wrong with the location, as the rest of a sentence. */
static const char *location_flaw(const char *location, size_t len) {
    if (len == 0) {
        return "is empty";
    }
    if (len >= MAX_LOCATION) {
        return "is too long";
    }
    if (memchr(location, '\0', len)) {
        return "holds a NUL";
    }
    if (memchr(location, '\\', len)) {
        return "holds a backslash";
    }
    if (location[0] == '/') {
        return "is absolute";
    }
    if (len >= 2 && location[1] == ':') {
        return "begins with a drive letter";
    }
    for (size_t i = 0; i <= len;) {
        const char *slash = memchr(location + i, '/', len - i);
        size_t part = slash ? (size_t)(slash - location) - i : len - i;
        if (part == 0) {
            return "has an empty component";
        }
        if (part == 2 && memcmp(location + i, "..", 2) == 0) {
            return "holds \"..\"";
        }
        i += part + 1;
    }
    return NULL;
}

static int open_location(const kiln_dir *dir, const char *path) {
    int fd = open_beneath(dir, dir->root, path, file_mode);
    if (fd >= 0 || dir->real < 0) {
        return fd;
    }
    if (errno == ENOENT) {
        return open_beneath(dir, dir->real, path, file_mode);
    }
    return errno == EXDEV || errno == ELOOP ? open_linked(dir, path) : -1;
}

kiln_status kiln_dir_file(const kiln_dir *dir, kiln_file *out, const kiln_env *env,
                          const char *location, size_t len, uint64_t max_bytes, unsigned file_flags,
                          kiln_diag *diag) {
    const char *flaw = location_flaw(location, len);
    int shown = len < SHOWN ? (int)len : SHOWN;
    if (flaw) {
        return kiln_fail(diag, KILN_F_EXTERNAL_PATH, "external data location \"%.*s\" %s", shown,
                         location, flaw);
    }
    char path[MAX_LOCATION];
    memcpy(path, location, len);
    path[len] = '\0';
    int fd = open_location(dir, path);
    if (fd < 0 && (errno == EXDEV || errno == ELOOP)) {
        return kiln_fail(diag, KILN_F_EXTERNAL_PATH,
                         "external data \"%.*s\" is a link that leaves the model's folder", shown,
                         location);
    }
    if (fd < 0) {
        char buf[128];
        return kiln_fail(diag, KILN_F_FILE_OPEN, "cannot open external data \"%.*s\": %s", shown,
                         location, strerror_r(errno, buf, sizeof buf));
    }
    kiln_status status = kiln_file_open_fd(out, env, fd, path, max_bytes, file_flags, diag);
    close(fd);
    return status;
}

kiln_status kiln_dir_open(kiln_dir *out, const char *path, unsigned flags, kiln_diag *diag) {
    int root = open(path, folder_mode);
    if (root < 0) {
        char buf[128];
        return kiln_fail(diag, KILN_F_FILE_OPEN, "cannot open folder \"%.*s\": %s", SHOWN, path,
                         strerror_r(errno, buf, sizeof buf));
    }
    *out = (kiln_dir){root, -1, flags};
    return KILN_OK;
}

kiln_status kiln_dir_open_beside(kiln_dir *out, const char *path, unsigned flags, kiln_diag *diag) {
    char folder[PATH_MAX], real[PATH_MAX];
    kiln_dir dir;
    if (!split(path, folder, sizeof folder)) {
        return kiln_fail(diag, KILN_F_FILE_OPEN, "the path \"%.*s\" is too long", SHOWN, path);
    }
    KILN_TRY(kiln_dir_open(&dir, folder, flags, diag));
    if (realpath(path, real) && split(real, folder, sizeof folder)) {
        dir.real = open(folder, folder_mode);
        if (dir.real >= 0 && same_folder(dir.root, dir.real)) {
            close(dir.real);
            dir.real = -1;
        }
    }
    *out = dir;
    return KILN_OK;
}

void kiln_dir_close(kiln_dir *dir) {
    if (dir->root >= 0) {
        close(dir->root);
    }
    if (dir->real >= 0) {
        close(dir->real);
    }
    *dir = (kiln_dir){-1, -1, 0};
}
