/* file.h - whole files in, complete files out.
 *
 * Input files are hostile: only regular files are taken, opening never blocks (a FIFO, a device),
 * and the size is held against a limit before anything is read. A mapped file must not change while
 * it is open: shrinking it makes an access fail with SIGBUS, which only a copy avoids.
 *
 *     kiln_file file;
 *     KILN_TRY(kiln_file_open(&file, env, path, limits->model_bytes, 0, diag));
 *     ... file.data[0 .. file.bytes) ...
 *     kiln_file_close(&file);
 *
 * Output goes to a temporary file in the target's folder that takes the target's place once it is
 * complete and on the disk, so that readers and crashes see the old file or the new one:
 *
 *     kiln_writer writer;
 *     KILN_TRY(kiln_writer_open(&writer, path, diag));
 *     status = kiln_writer_put(&writer, header, sizeof header, diag);
 *     ...
 *     status = status ? status : kiln_writer_commit(&writer, diag);
 *     kiln_writer_abandon(&writer);        // removes the temporary file; nothing after a commit
 */
#ifndef KILN_BASE_FILE_H
#define KILN_BASE_FILE_H

#include "base/compiler.h"

typedef enum kiln_file_flags {
    KILN_FILE_COPY = 1, /* read into memory of env instead of mapping */
} kiln_file_flags;

typedef struct kiln_file {
    const uint8_t *data; /* aligned to 64; never NULL while open, also when bytes is 0 */
    size_t bytes;
    const kiln_env *env;
    bool mapped;
} kiln_file;

/* Maps (private, read-only) or reads `path`, following symbolic links. E0201 when it cannot be
 * opened or is no regular file, E0204 above max_bytes, E0202, KILN_E_MEMORY. */
kiln_status kiln_file_open(kiln_file *out, const kiln_env *env, const char *path,
                           uint64_t max_bytes, unsigned flags, kiln_diag *diag);
/* The same for an open descriptor, which is left open; `name` is for messages. */
kiln_status kiln_file_open_fd(kiln_file *out, const kiln_env *env, int fd, const char *name,
                              uint64_t max_bytes, unsigned flags, kiln_diag *diag);
/* Gives the memory of a mapped file back to the system until it is read again. */
void kiln_file_rest(const kiln_file *file);
/* Takes a zeroed or closed file too. */
void kiln_file_close(kiln_file *file);

typedef struct kiln_writer {
    const char *path; /* borrowed */
    int dir_fd;
    int fd; /* -1 once committed or abandoned */
    uint64_t bytes;
    char temp[32]; /* name of the temporary file in its folder */
} kiln_writer;

/* Creates the temporary file, and removes those that killed writers left in the folder. A target
 * that exists must be a regular file, whose mode is kept, or a symbolic link, which is replaced and
 * not followed. `path` stays borrowed. Errors: E0203. */
kiln_status kiln_writer_open(kiln_writer *out, const char *path, kiln_diag *diag);
/* Appends, unbuffered. */
kiln_status kiln_writer_put(kiln_writer *writer, const void *data, size_t bytes, kiln_diag *diag);
/* Syncs, closes and renames. On failure the target is as it was and the temporary file is gone. */
kiln_status kiln_writer_commit(kiln_writer *writer, kiln_diag *diag);
void kiln_writer_abandon(kiln_writer *writer);

/* Open, put and commit at once. */
kiln_status kiln_file_write(const char *path, const void *data, size_t bytes, kiln_diag *diag);

#endif
