#define _GNU_SOURCE 1

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/diag.h"
#include "base/env.h"

enum { ERROR_BYTES = 128, PATH_SHOWN = 300, TEMP_ATTEMPTS = 100 };

static const _Alignas(64) uint8_t no_bytes[64];

/* The operating system's sentence for errno value `error`. */
static const char *error_text(int error, char buf[ERROR_BYTES]) {
    return strerror_r(error, buf, ERROR_BYTES);
}

static kiln_status fail_errno(kiln_diag *diag, kiln_finding_id id, const char *what,
                              const char *path) {
    int error = errno;
    char buf[ERROR_BYTES];
    return kiln_fail(diag, id, "cannot %s \"%.*s\": %s", what, PATH_SHOWN, path,
                     error_text(error, buf));
}

/* Reads exactly `bytes` from the descriptor's start; false on an error or an early end. */
static bool read_all(int fd, uint8_t *dst, size_t bytes) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(fd, dst + done, bytes - done, (off_t)done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            errno = got == 0 ? EIO : errno;
            return false;
        }
        done += (size_t)got;
    }
    return true;
}

static kiln_status read_copy(kiln_file *out, int fd, const char *name, kiln_diag *diag) {
    uint8_t *data = kiln_env_alloc(out->env, out->bytes);
    if (!data) {
        return KILN_E_MEMORY;
    }
    if (!read_all(fd, data, out->bytes)) {
        kiln_status status = fail_errno(diag, KILN_F_FILE_READ, "read", name);
        kiln_env_release(out->env, data, out->bytes);
        return status;
    }
    out->data = data;
    return KILN_OK;
}

kiln_status kiln_file_open_fd(kiln_file *out, const kiln_env *env, int fd, const char *name,
                              uint64_t max_bytes, unsigned flags, kiln_diag *diag) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return fail_errno(diag, KILN_F_FILE_OPEN, "open", name);
    }
    if (!S_ISREG(st.st_mode)) {
        return kiln_fail(diag, KILN_F_FILE_OPEN, "\"%.*s\" is %s, not a regular file", PATH_SHOWN,
                         name, S_ISDIR(st.st_mode) ? "a directory" : "a device, pipe or socket");
    }
    if ((uint64_t)st.st_size > max_bytes) {
        return kiln_fail(diag, KILN_F_FILE_SIZE, "\"%.*s\" has %lld bytes, the limit is %llu",
                         PATH_SHOWN, name, (long long)st.st_size, (unsigned long long)max_bytes);
    }
    kiln_file file = {.data = no_bytes, .bytes = (size_t)st.st_size, .env = env};
    if (file.bytes && !(flags & KILN_FILE_COPY)) {
        void *map = mmap(NULL, file.bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        file.mapped = map != MAP_FAILED;
        file.data = file.mapped ? map : no_bytes;
    }
    /* Some file systems cannot map: then a copy serves. */
    if (file.bytes && !file.mapped) {
        KILN_TRY(read_copy(&file, fd, name, diag));
    }
    *out = file;
    return KILN_OK;
}

kiln_status kiln_file_open(kiln_file *out, const kiln_env *env, const char *path,
                           uint64_t max_bytes, unsigned flags, kiln_diag *diag) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return fail_errno(diag, KILN_F_FILE_OPEN, "open", path);
    }
    kiln_status status = kiln_file_open_fd(out, env, fd, path, max_bytes, flags, diag);
    close(fd);
    return status;
}

void kiln_file_rest(const kiln_file *file) {
    if (file->mapped) {
        /* Private and never written: what was dropped is read from the file again. */
        madvise((void *)(uintptr_t)file->data, file->bytes, MADV_DONTNEED);
    }
}

void kiln_file_close(kiln_file *file) {
    if (file->mapped) {
        munmap((void *)(uintptr_t)file->data, file->bytes);
    } else if (file->bytes) {
        kiln_env_release(file->env, (void *)(uintptr_t)file->data, file->bytes);
    }
    *file = (kiln_file){0};
}

static const char temp_prefix[] = ".kiln-", temp_suffix[] = ".tmp";
enum { STALE_SECONDS = 60, MOST_ENTRIES = 4096 };

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* A descriptor of the folder that holds `path`; one that may be written but not listed can still be
 * used, only not synced. */
static int open_parent(const char *path) {
    char dir[4096];
    size_t len = (size_t)(base_name(path) - path);
    if (len >= sizeof dir) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(dir, len ? path : ".", len ? len : 1);
    dir[len ? len : 1] = '\0';
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 && errno == EACCES ? open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC) : fd;
}

/* Temporary files that killed writers left: ours, locked by nobody, and older than any moment
 * between creating and locking. */
static bool is_stale(int dir_fd, const char *name) {
    struct stat st;
    size_t len = strlen(name);
    if (strncmp(name, temp_prefix, sizeof temp_prefix - 1) != 0 || len < sizeof temp_suffix ||
        strcmp(name + len + 1 - sizeof temp_suffix, temp_suffix) != 0) {
        return false;
    }
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool stale = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
                 time(NULL) - st.st_mtime > STALE_SECONDS && flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return stale;
}

static void remove_stale(int dir_fd) {
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    const struct dirent *entry;
    for (int seen = 0; seen < MOST_ENTRIES && (entry = readdir(dir)) != NULL; seen++) {
        if (is_stale(dir_fd, entry->d_name)) {
            unlinkat(dir_fd, entry->d_name, 0);
        }
    }
    closedir(dir);
}

/* Creates a file of a new name; concurrent writers are told apart by O_EXCL alone. */
static int create_temp(kiln_writer *writer) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec ^ (uint64_t)getpid() << 20;
    for (int attempt = 0; attempt < TEMP_ATTEMPTS; attempt++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
        snprintf(writer->temp, sizeof writer->temp, "%s%012llx%s", temp_prefix,
                 (unsigned long long)(seed >> 16), temp_suffix);
        int fd = openat(writer->dir_fd, writer->temp,
                        O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (fd >= 0) {
            (void)!flock(fd, LOCK_EX | LOCK_NB); /* until it is closed: somebody works on it */
            return fd;
        }
        if (errno != EEXIST) {
            return fd;
        }
    }
    return -1;
}

kiln_status kiln_writer_open(kiln_writer *out, const char *path, kiln_diag *diag) {
    kiln_writer writer = {.path = path, .fd = -1};
    struct stat st;
    writer.dir_fd = open_parent(path);
    if (writer.dir_fd < 0) {
        return fail_errno(diag, KILN_F_FILE_WRITE, "write", path);
    }
    bool exists = fstatat(writer.dir_fd, base_name(path), &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (!*base_name(path) || (exists && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))) {
        close(writer.dir_fd);
        return kiln_fail(diag, KILN_F_FILE_WRITE, "cannot write \"%.*s\": not a regular file",
                         PATH_SHOWN, path);
    }
    remove_stale(writer.dir_fd);
    writer.fd = create_temp(&writer);
    if (writer.fd < 0) {
        kiln_status status = fail_errno(diag, KILN_F_FILE_WRITE, "write beside", path);
        close(writer.dir_fd);
        return status;
    }
    if (exists && S_ISREG(st.st_mode)) {
        /* A mode that cannot be kept is no reason to lose the result. */
        (void)!fchown(writer.fd, st.st_uid, st.st_gid);
        (void)!fchmod(writer.fd, st.st_mode & 07777);
    }
    *out = writer;
    return KILN_OK;
}

kiln_status kiln_writer_put(kiln_writer *writer, const void *data, size_t bytes, kiln_diag *diag) {
    const char *src = data;
    size_t done = 0;
    while (done < bytes) {
        ssize_t put = write(writer->fd, src + done, bytes - done);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            int error = put == 0 ? ENOSPC : errno;
            char buf[ERROR_BYTES];
            return kiln_fail(diag, KILN_F_FILE_WRITE,
                             "cannot write \"%.*s\": %s after %llu bytes, %zu more to write",
                             PATH_SHOWN, writer->path, error_text(error, buf),
                             (unsigned long long)writer->bytes, bytes - done);
        }
        done += (size_t)put;
        writer->bytes += (size_t)put;
    }
    return KILN_OK;
}

kiln_status kiln_writer_commit(kiln_writer *writer, kiln_diag *diag) {
    int fd = writer->fd;
    bool synced = fsync(fd) == 0;
    int error = errno;
    if (synced) {
        writer->fd = -2; /* closed, but the temporary file is still to be renamed or removed */
        synced = close(fd) == 0 || errno == EINTR;
        error = errno;
    }
    if (synced) {
        synced =
            renameat(writer->dir_fd, writer->temp, writer->dir_fd, base_name(writer->path)) == 0;
        error = errno;
    }
    if (!synced) {
        errno = error;
        kiln_status status = fail_errno(diag, KILN_F_FILE_WRITE, "finish", writer->path);
        kiln_writer_abandon(writer);
        return status;
    }
    /* File systems that cannot sync a folder say EINVAL or EBADF: nothing is left to be done. */
    bool lasting = fsync(writer->dir_fd) == 0 || errno == EINVAL || errno == EBADF;
    kiln_status status =
        lasting ? KILN_OK : fail_errno(diag, KILN_F_FILE_WRITE, "sync the folder of", writer->path);
    close(writer->dir_fd);
    writer->fd = -1;
    return status;
}

void kiln_writer_abandon(kiln_writer *writer) {
    if (writer->fd == -1) {
        return;
    }
    if (writer->fd >= 0) {
        close(writer->fd);
    }
    unlinkat(writer->dir_fd, writer->temp, 0);
    close(writer->dir_fd);
    writer->fd = -1;
}

kiln_status kiln_file_write(const char *path, const void *data, size_t bytes, kiln_diag *diag) {
    kiln_writer writer;
    KILN_TRY(kiln_writer_open(&writer, path, diag));
    kiln_status status = kiln_writer_put(&writer, data, bytes, diag);
    if (status == KILN_OK) {
        status = kiln_writer_commit(&writer, diag);
    }
    kiln_writer_abandon(&writer);
    return status;
}
