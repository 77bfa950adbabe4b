/* npz.h - NumPy's archives of named arrays: a ZIP file with one .npy member for each.
 *
 *     kiln_npz *npz;
 *     KILN_TRY(kiln_npz_open(&npz, "data.npz", env, diag));
 *     int64_t i = kiln_npz_find(npz, "x");
 *     status = kiln_npz_read(&x, npz, i, arena, diag);        // the whole array
 *     status = kiln_npz_bytes(dst, npz, i, first, n, diag);   // or a part of it, as stored
 *     kiln_npz_close(npz);
 *
 * Stored and deflated members, ZIP64 included. Refused: encrypted members, other compressions,
 * names that are absolute or hold "..", two members of one name, members that claim to grow more
 * than 1000 times beyond 16 MiB, sizes that do not match the array's header. Not for two threads
 * at once.
 */
#ifndef KILN_DATA_NPZ_H
#define KILN_DATA_NPZ_H

#include "data/npy.h"

typedef struct kiln_npz kiln_npz;

/* Opens an archive and reads every member's array header. */
kiln_status kiln_npz_open(kiln_npz **out, const char *path, const kiln_env *env, kiln_diag *diag);
void kiln_npz_close(kiln_npz *npz);

int64_t kiln_npz_count(const kiln_npz *npz);
/* Name without ".npy" and header of member i; both live as long as npz. */
const char *kiln_npz_name(const kiln_npz *npz, int64_t i);
const kiln_npy_header *kiln_npz_header(const kiln_npz *npz, int64_t i);
/* Index of a member, or -1. */
int64_t kiln_npz_find(const kiln_npz *npz, const char *name);

/* True when member i is not compressed, so that any part of it is read at once. */
bool kiln_npz_stored(const kiln_npz *npz, int64_t i);

/* The whole array, its data in `arena`. */
kiln_status kiln_npz_read(kiln_tensor *out, kiln_npz *npz, int64_t i, kiln_arena *arena,
                          kiln_diag *diag);
/* Element bytes [first, first + bytes) of member i as they stand in the file. Ascending ranges of a
 * compressed member are read in one stream; going back starts it anew. */
kiln_status kiln_npz_bytes(void *dst, kiln_npz *npz, int64_t i, size_t first, size_t bytes,
                           kiln_diag *diag);

/* Writes `count` arrays as stored members named names[k] + ".npy". The same arrays give the same
 * bytes. The file is the old one or the complete new one. */
kiln_status kiln_npz_write(const char *path, const char *const *names, const kiln_tensor *tensors,
                           size_t count, const kiln_env *env, kiln_diag *diag);

#endif
