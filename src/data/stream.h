/* stream.h - byte ranges of a file that may be gzip-compressed.
 *
 * A plain file is mapped and read anywhere. A gzip file (RFC 1952, members concatenated) is
 * inflated as it is read: ascending ranges cost one pass, going back starts anew. Nothing is held
 * but the inflater's window.
 *
 *     kiln_stream *s;
 *     KILN_TRY(kiln_stream_open(&s, "t10k-images-idx3-ubyte.gz", env, diag));
 *     status = kiln_stream_read(header, s, 0, 16, diag);
 *     kiln_stream_close(s);
 */
#ifndef KILN_DATA_STREAM_H
#define KILN_DATA_STREAM_H

#include "base/diag.h"

typedef struct kiln_stream kiln_stream;

/* `path` is copied. gzip is told from the first two bytes. */
kiln_status kiln_stream_open(kiln_stream **out, const char *path, const kiln_env *env,
                             kiln_diag *diag);
void kiln_stream_close(kiln_stream *s);

/* Bytes [first, first + bytes) of the (uncompressed) content. KILN_E_MALFORMED when it ends before
 * or the compressed data is damaged. */
kiln_status kiln_stream_read(void *dst, kiln_stream *s, uint64_t first, size_t bytes,
                             kiln_diag *diag);
/* Size of the content; for a gzip file the whole of it is inflated once. KILN_E_LIMIT when it is
 * larger than the external_bytes limit. */
kiln_status kiln_stream_size(uint64_t *out, kiln_stream *s, kiln_diag *diag);
/* True when reading backwards is expensive. */
bool kiln_stream_sequential(const kiln_stream *s);
const char *kiln_stream_path(const kiln_stream *s);

#endif
