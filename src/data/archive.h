/* archive.h - members of a ZIP file, read in parts.
 *
 *     kiln_archive *a;
 *     KILN_TRY(kiln_archive_open(&a, "val.zip", env, diag));
 *     for (int64_t i = 0; i < kiln_archive_count(a); i++) { ... kiln_archive_name(a, i) ... }
 *     status = kiln_archive_read(bytes, a, i, 0, kiln_archive_size(a, i), diag);
 *     kiln_archive_close(a);
 *
 * Stored and deflated members, ZIP64 included. Refused: encrypted members, other compressions,
 * names that are absolute or hold "..", two members of one name, members that claim to grow more
 * than 1000 times beyond 16 MiB. Nothing but the directory is held. Not for two threads at once.
 */
#ifndef KILN_DATA_ARCHIVE_H
#define KILN_DATA_ARCHIVE_H

#include "base/diag.h"

typedef struct kiln_archive kiln_archive;

/* Opens an archive and checks every entry of its directory. KILN_E_IO, KILN_E_MALFORMED,
 * KILN_E_UNSUPPORTED, KILN_E_LIMIT. */
kiln_status kiln_archive_open(kiln_archive **out, const char *path, const kiln_env *env,
                              kiln_diag *diag);
void kiln_archive_close(kiln_archive *a);

/* Members in the directory's order, folders ("name/") among them. */
int64_t kiln_archive_count(const kiln_archive *a);
const char *kiln_archive_name(const kiln_archive *a, int64_t i);
/* Bytes of member i, uncompressed. */
size_t kiln_archive_size(const kiln_archive *a, int64_t i);
/* True when member i is not compressed, so that any part of it is read at once. */
bool kiln_archive_stored(const kiln_archive *a, int64_t i);

/* Bytes [first, first + bytes) of member i. Ascending ranges of a compressed member are read in one
 * stream, which stays open; going back starts it anew. Its end checks the checksum. */
kiln_status kiln_archive_read(void *dst, kiln_archive *a, int64_t i, size_t first, size_t bytes,
                              kiln_diag *diag);
/* False for names that are empty or absolute, or hold "..", a backslash or a colon. They never
 * become paths here; hostile ones still mean a hostile archive. */
bool kiln_archive_clean_name(const char *name);
/* Gives member i's stream back. */
void kiln_archive_rest(kiln_archive *a, int64_t i);

#endif
