/* raw.h - elements without any header, row-major and little-endian (.bin, .raw).
 *
 * Such a file knows neither its type nor its dims: the caller does, and the size must fit exactly.
 *
 *     const int64_t dims[] = {1, 3, 224, 224};
 *     KILN_TRY(kiln_raw_read(&x, "x.bin", KILN_DTYPE_F32, dims, 4, arena, diag));
 */
#ifndef KILN_DATA_RAW_H
#define KILN_DATA_RAW_H

#include "base/arena.h"
#include "base/diag.h"

/* Reads a file of dims' elements, its data a copy in `arena`. KILN_E_MALFORMED when the file's size
 * is another, KILN_E_UNSUPPORTED for strings, KILN_E_LIMIT, KILN_E_IO. */
kiln_status kiln_raw_read(kiln_tensor *out, const char *path, kiln_dtype dtype, const int64_t *dims,
                          int32_t rank, kiln_arena *arena, kiln_diag *diag);

/* Writes the elements. The file is the old one or the complete new one. */
kiln_status kiln_raw_write(const kiln_tensor *t, const char *path, kiln_diag *diag);

/* Bytes of one tensor of these dims, checked: KILN_E_USAGE for impossible dims or strings. */
kiln_status kiln_raw_bytes(size_t *out, kiln_dtype dtype, const int64_t *dims, int32_t rank,
                           kiln_diag *diag);

#endif
