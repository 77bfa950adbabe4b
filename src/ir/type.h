/* type.h - what a value is: a tensor, a sequence or an optional of one, and what is known of it. */
#ifndef KILN_IR_TYPE_H
#define KILN_IR_TYPE_H

#include "ir/dim.h"

typedef enum kiln_kind {
    KILN_KIND_NONE, /* nothing known, or an input left out */
    KILN_KIND_TENSOR,
    KILN_KIND_SEQUENCE, /* of elem */
    KILN_KIND_OPTIONAL, /* of elem */
} kiln_kind;

enum { KILN_RANK_UNKNOWN = -1 };

typedef struct kiln_type {
    kiln_kind kind;
    kiln_dtype dtype;             /* tensor */
    int32_t rank;                 /* tensor: 0 .. KILN_MAX_RANK, or KILN_RANK_UNKNOWN */
    const kiln_dim *dims;         /* tensor: rank of them, outermost first, ONNX's order */
    const struct kiln_type *elem; /* sequence, optional */
} kiln_type;

/* A type together with what is known of the value itself. */
typedef struct kiln_fact {
    kiln_type type;
    const kiln_dim *contents; /* elements of a small integer tensor as dims, row-major; or NULL */
    int64_t n_contents;
    const kiln_tensor *data; /* the value itself where it is known (a constant); or NULL */
} kiln_fact;

/* Contents are tracked for integer tensors up to this many elements. */
enum { KILN_MAX_CONTENTS = 1024 };

static inline kiln_type kiln_type_tensor(kiln_dtype dtype, int32_t rank, const kiln_dim *dims) {
    kiln_type t = {.kind = KILN_KIND_TENSOR, .dtype = dtype, .rank = rank, .dims = dims};
    return t;
}
/* All dims are numbers. */
bool kiln_type_is_static(const kiln_type *type);
/* Tensors of one known rank whose dims are surely equal: numbers or equal expressions. */
bool kiln_type_same_shape(const kiln_type *a, const kiln_type *b);
/* Structural equality (unknown dims are equal to nothing). */
bool kiln_type_equal(const kiln_type *a, const kiln_type *b);
/* Copies the static dims into t (data untouched); false when the type is not a static tensor. */
bool kiln_type_to_tensor(const kiln_type *type, kiln_tensor *t);
/* "float32[N,3,224,224]", "seq(float32[?])"; arena string, NULL when out of memory. */
const char *kiln_type_text(const kiln_dims *table, const kiln_type *type, kiln_arena *arena);

#endif
