/* npy.h - NumPy's array files, format versions 1.0 to 3.0.
 *
 *     kiln_tensor x;
 *     KILN_TRY(kiln_npy_read(&x, "x.npy", arena, diag));
 *     KILN_TRY(kiln_npy_write(&x, "y.npy", env, diag));
 *
 * A file is the magic "\x93NUMPY", two version bytes, the header's length (u16, from 2.0 u32) and
 * the header: a Python dict literal with exactly the keys descr, fortran_order and shape (NumPy
 * Enhancement Proposal 1). The header is read by a grammar for that dict and nothing else; nothing
 * is evaluated. Object, string and record arrays are refused. Types: all integers, bool, f16, f32,
 * f64, c64, c128, in either byte order; Fortran order is transposed to row-major on reading.
 */
#ifndef KILN_DATA_NPY_H
#define KILN_DATA_NPY_H

#include "base/arena.h"
#include "base/diag.h"

/* Bytes of magic, version and header together that a reader is ever asked for. */
enum { KILN_NPY_MAX_HEADER = 65536 };

typedef struct kiln_npy_header {
    kiln_dtype dtype;
    int32_t rank;
    int64_t dims[KILN_MAX_RANK];
    bool fortran;      /* first dim varies fastest */
    bool swapped;      /* big-endian elements */
    size_t data_at;    /* where the elements begin */
    size_t data_bytes; /* what they take */
} kiln_npy_header;

/* Reads the header from the first `size` bytes of a file; `size` may end anywhere after it.
 * KILN_E_MALFORMED, KILN_E_UNSUPPORTED for element types that are not numbers. */
kiln_status kiln_npy_parse(kiln_npy_header *out, const void *bytes, size_t size, kiln_diag *diag);

/* Reads a whole file held in memory. The tensor is a view of `bytes` when they can serve as they
 * are (row-major, little-endian, aligned to the element), else a copy in `arena`: treat it as
 * read-only and keep `bytes` alive. Bytes after the elements are refused, as is a file that ends
 * early. */
kiln_status kiln_npy_decode(kiln_tensor *out, const void *bytes, size_t size, kiln_arena *arena,
                            kiln_diag *diag);

/* Turns raw elements as they stand in the file into a row-major little-endian tensor, in place when
 * only the byte order differs. `data` has header->data_bytes bytes, aligned to 16, writable. */
kiln_status kiln_npy_settle(kiln_tensor *out, const kiln_npy_header *header, void *data,
                            kiln_arena *arena);

/* Reads a file; the tensor's data is a copy in `arena`. Also KILN_E_IO. */
kiln_status kiln_npy_read(kiln_tensor *out, const char *path, kiln_arena *arena, kiln_diag *diag);

/* The bytes before the elements of a version 1.0 file for this tensor, padded to a multiple of 64.
 * BF16 has no NumPy name and is described as float32: the writer widens it. KILN_E_UNSUPPORTED for
 * other types without one. */
kiln_status kiln_npy_header_text(char **out, size_t *out_len, const kiln_tensor *t,
                                 kiln_arena *arena, kiln_diag *diag);
/* The tensor whose bytes follow that header: `t` itself, or a copy of BF16 widened to F32. */
kiln_status kiln_npy_body(kiln_tensor *out, const kiln_tensor *t, kiln_arena *arena);

/* Writes a file; it is the old one or the complete new one. */
kiln_status kiln_npy_write(const kiln_tensor *t, const char *path, const kiln_env *env,
                           kiln_diag *diag);

#endif
