/* scatter.h - what ScatterElements and ScatterND do with an element that is hit. */
#ifndef KILN_OPS_SCATTER_H
#define KILN_OPS_SCATTER_H

#include "ops/util.h"

typedef enum kiln_scatter_mode {
    KILN_SCATTER_NONE, /* the last update wins */
    KILN_SCATTER_ADD,
    KILN_SCATTER_MUL,
    KILN_SCATTER_MIN,
    KILN_SCATTER_MAX,
} kiln_scatter_mode;

extern const char *const kiln_scatter_words[];

typedef struct kiln_scatter_attrs {
    int64_t axis;      /* ScatterElements */
    int32_t reduction; /* kiln_scatter_mode */
} kiln_scatter_attrs;

/* Element i of dst takes element j of src; both of `dtype`. */
void kiln_scatter_element(kiln_dtype dtype, kiln_scatter_mode mode, void *dst, int64_t i,
                          const void *src, int64_t j);

#endif
