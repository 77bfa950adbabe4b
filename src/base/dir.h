/* dir.h - opening the data files that a model names, and no others.
 *
 * A model's external data is named by a path relative to the model's folder, and the name is
 * hostile. The kernel itself confines the resolution to that folder (openat2, RESOLVE_BENEATH), so
 * that no symbolic link and no race leads outside; kernels without it get a walk that follows no
 * links at all. One way out is allowed, because model hubs store both files as links into a common
 * folder of blobs:
 *
 *     snapshots/1f/model.onnx      -> ../../blobs/a1
 *     snapshots/1f/model.onnx.data -> ../../blobs/b2
 *
 * A link may lead into the folder where the model's file really lies, directly, and nowhere else.
 *
 *     kiln_dir dir;
 *     KILN_TRY(kiln_dir_open_beside(&dir, "snapshots/1f/model.onnx", 0, diag));
 *     status = kiln_dir_file(&dir, &file, env, location, len, max_bytes, 0, diag);
 *     kiln_dir_close(&dir);
 */
#ifndef KILN_BASE_DIR_H
#define KILN_BASE_DIR_H

#include "base/file.h"

typedef enum kiln_dir_flags {
    KILN_DIR_WALK = 1, /* do as on a kernel without openat2 */
} kiln_dir_flags;

typedef struct kiln_dir {
    int root;
    int real; /* the folder where the model's file really lies, or -1 when that is `root` */
    unsigned flags;
} kiln_dir;

/* The folder of the file `path`, together with that of the file it resolves to. E0201. */
kiln_status kiln_dir_open_beside(kiln_dir *out, const char *path, unsigned flags, kiln_diag *diag);
/* The folder `path` alone. E0201. */
kiln_status kiln_dir_open(kiln_dir *out, const char *path, unsigned flags, kiln_diag *diag);
void kiln_dir_close(kiln_dir *dir);

/* Opens the file that the `len` bytes of `location` name, as kiln_file_open does with file_flags.
 * E0205 for a location that is empty, absolute, longer than 4095 bytes, or has a "..", an empty
 * component, a backslash, a drive letter or a NUL, or that leads outside through links. */
kiln_status kiln_dir_file(const kiln_dir *dir, kiln_file *out, const kiln_env *env,
                          const char *location, size_t len, uint64_t max_bytes, unsigned file_flags,
                          kiln_diag *diag);

#endif
