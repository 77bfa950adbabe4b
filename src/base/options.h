/* options.h - reading public option structs.
 *
 * Every public option struct begins with `size_t size`, which the caller sets to the sizeof he was
 * compiled with. The library copies what it was given over a zeroed struct of its own, so that
 * programs built against an older or a newer header keep working:
 *
 *     kiln_pool_options options;
 *     KILN_TRY(kiln_options_read(&options, sizeof options, given));
 */
#ifndef KILN_BASE_OPTIONS_H
#define KILN_BASE_OPTIONS_H

#include <string.h>

#include "base/compiler.h"

/* Fills `dst` (dst_bytes) from `src`, or with zeros when src is NULL; dst's own `size` becomes
 * dst_bytes. KILN_E_USAGE when src->size is not set, or when it is larger than dst_bytes and one of
 * the bytes this library does not know is not zero: an option that would be ignored silently. */
static inline kiln_status kiln_options_read(void *dst, size_t dst_bytes, const void *src) {
    memset(dst, 0, dst_bytes);
    if (src) {
        size_t src_bytes;
        memcpy(&src_bytes, src, sizeof src_bytes);
        if (src_bytes < sizeof src_bytes || src_bytes > 65536) {
            return KILN_E_USAGE;
        }
        for (size_t i = dst_bytes; i < src_bytes; i++) {
            if (((const unsigned char *)src)[i]) {
                return KILN_E_USAGE;
            }
        }
        memcpy(dst, src, src_bytes < dst_bytes ? src_bytes : dst_bytes);
    }
    memcpy(dst, &dst_bytes, sizeof dst_bytes);
    return KILN_OK;
}

#endif
