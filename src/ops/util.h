/* util.h - what operator files share: reading facts, checking, broadcasting, element access.
 *
 * In infer, sizes are kiln_dims and may be symbolic or unknown; a check that cannot be decided yet
 * passes, because infer runs again with concrete sizes before ref. Typical use:
 *
 *     static kiln_status infer(kiln_infer *c) {
 *         KILN_TRY(kiln_infer_rank(c, 0, 2, 2));                  // refuses what is surely wrong
 *         kiln_dim *dims = kiln_infer_dims(c, 0, c->in[0].type.dtype, 2);   // out 0: new shape
 *         if (!dims) { return KILN_E_MEMORY; }
 *         dims[0] = kiln_infer_dim(c, 0, 1);
 *         dims[1] = kiln_infer_dim(c, 0, 0);
 *         return KILN_OK;
 *     }
 */
#ifndef KILN_OPS_UTIL_H
#define KILN_OPS_UTIL_H

#include "base/checked.h"
#include "ops/ops.h"

/* ---- Facts ---- */

static inline bool kiln_infer_has(const kiln_infer *c, int32_t i) {
    return i < c->n_in && c->in[i].type.kind != KILN_KIND_NONE;
}
/* Rank of input i, or KILN_RANK_UNKNOWN (also for what is no tensor). */
int32_t kiln_infer_in_rank(const kiln_infer *c, int32_t i);
/* Dim d of input i (negative d counts from the end); KILN_DIM_UNKNOWN when the rank is. */
kiln_dim kiln_infer_dim(const kiln_infer *c, int32_t i, int32_t d);
/* Refuses an input whose known rank is outside [lo, hi]; hi < 0: no upper bound. */
kiln_status kiln_infer_rank(const kiln_infer *c, int32_t i, int32_t lo, int32_t hi);

/* Sets of dtypes as bit masks. */
#define KILN_T(d) (UINT32_C(1) << KILN_DTYPE_##d)
#define KILN_T_FLOAT (KILN_T(F16) | KILN_T(BF16) | KILN_T(F32) | KILN_T(F64))
#define KILN_T_SINT (KILN_T(I8) | KILN_T(I16) | KILN_T(I32) | KILN_T(I64))
#define KILN_T_UINT (KILN_T(U8) | KILN_T(U16) | KILN_T(U32) | KILN_T(U64))
#define KILN_T_INT (KILN_T_SINT | KILN_T_UINT)
#define KILN_T_NUMBER (KILN_T_FLOAT | KILN_T_INT)
#define KILN_T_INDEX (KILN_T(I32) | KILN_T(I64))
#define KILN_T_ANY (~UINT32_C(1))
/* Refuses input i if its dtype is not in the set. */
kiln_status kiln_infer_dtype(const kiln_infer *c, int32_t i, uint32_t set);
/* Refuses if inputs i and j are both there and have different dtypes. */
kiln_status kiln_infer_same_dtype(const kiln_infer *c, int32_t i, int32_t j);

/* axis in [-rank, rank) made non-negative; fails otherwise. `what` names it in the message. */
kiln_status kiln_infer_axis(const kiln_infer *c, int64_t axis, int32_t rank, const char *what,
                            int32_t *out);

/* Integers an input holds, if they are all known: *v points to *n of them (arena). *v == NULL when
 * not known. 0-d counts as one. */
kiln_status kiln_infer_ints(kiln_infer *c, int32_t i, const int64_t **v, int64_t *n);
/* The contents of integer input i as dims (each perhaps unknown), or NULL when nothing is known. */
const kiln_dim *kiln_infer_contents(const kiln_infer *c, int32_t i, int64_t *n);
/* Floats an input holds (any float dtype, converted), or *v == NULL when not known. */
kiln_status kiln_infer_floats(kiln_infer *c, int32_t i, const double **v, int64_t *n);
/* Number of elements of a 1-D (or 0-d: 1) input if known, else -1. */
int64_t kiln_infer_length(const kiln_infer *c, int32_t i);

/* Makes output i a tensor; returns its rank dims to fill (all KILN_DIM_UNKNOWN at first), or NULL
 * when out of memory. rank KILN_RANK_UNKNOWN returns a valid pointer that must not be written. */
kiln_dim *kiln_infer_dims(kiln_infer *c, int32_t i, kiln_dtype dtype, int32_t rank);
/* Output i gets the type of input j (and its dtype unless dtype is not NONE). */
kiln_status kiln_infer_like(kiln_infer *c, int32_t i, int32_t j, kiln_dtype dtype);
/* Sets known contents of output i (copied). */
kiln_status kiln_infer_set_contents(kiln_infer *c, int32_t i, const kiln_dim *v, int64_t n);
/* Output i gets the numpy broadcast of the shapes of inputs first..first+count-1; fails if they
 * surely do not fit. */
kiln_status kiln_infer_broadcast(kiln_infer *c, int32_t i, kiln_dtype dtype, int32_t first,
                                 int32_t count);
/* Broadcast of two dims into *out; false if they surely do not fit. */
bool kiln_dim_broadcast(kiln_dims *dims, kiln_dim a, kiln_dim b, kiln_dim *out);
/* a and b are surely different. */
static inline bool kiln_dim_differ(kiln_dim a, kiln_dim b) {
    return kiln_dim_known(a) && kiln_dim_known(b) && a != b;
}
/* The dim that says more of two that must be equal. */
static inline kiln_dim kiln_dim_merge(kiln_dim a, kiln_dim b) {
    return kiln_dim_known(a) || b == KILN_DIM_UNKNOWN ? a : b;
}

/* kiln_fail with the node's place already set by the driver; use these in infer and ref. */
#define KILN_INFER_FAIL(c, id, ...) kiln_fail((c)->diag, KILN_F_##id, __VA_ARGS__)

/* ---- Reference: inputs and outputs ---- */

/* Input i as a tensor, or NULL when left out. */
static inline const kiln_tensor *kiln_ref_in(const kiln_ref *c, int32_t i) {
    return i < c->n_in && c->in[i].kind == KILN_KIND_TENSOR ? &c->in[i].tensor : NULL;
}
/* Output i as allocated from infer's shape; NULL if i is not an output of the node. */
static inline kiln_tensor *kiln_ref_out(const kiln_ref *c, int32_t i) {
    return i < c->n_out ? &c->out[i].tensor : NULL;
}
/* Makes output i with this shape (for data-sized operators), zeroed. */
kiln_status kiln_ref_output(kiln_ref *c, int32_t i, kiln_dtype dtype, int32_t rank,
                            const int64_t *dims);
/* A zeroed scratch tensor. */
kiln_status kiln_ref_scratch(kiln_ref *c, kiln_tensor *out, kiln_dtype dtype, int32_t rank,
                             const int64_t *dims);
/* All elements as doubles / int64s (arena). Works for every numeric dtype and bool. */
kiln_status kiln_ref_doubles(kiln_ref *c, const kiln_tensor *t, double **out);
kiln_status kiln_ref_ints(kiln_ref *c, const kiln_tensor *t, int64_t **out);

/* For loops that may last, at least once in about 10^7 operations: KILN_E_CANCELLED when the run
 * has been cancelled. */
kiln_status kiln_ref_poll(const kiln_ref *c);

/* ---- Elements ---- */

/* Element i of dense data of any numeric dtype. Floats are rounded to nearest even on store,
 * integers stored modulo their width; f8 stores saturate as ONNX's Cast does by default. */
double kiln_get_f64(kiln_dtype dtype, const void *data, int64_t i);
void kiln_set_f64(kiln_dtype dtype, void *data, int64_t i, double v);
int64_t kiln_get_i64(kiln_dtype dtype, const void *data, int64_t i);
void kiln_set_i64(kiln_dtype dtype, void *data, int64_t i, int64_t v);
bool kiln_dtype_is_float(kiln_dtype dtype);
bool kiln_dtype_is_signed_int(kiln_dtype dtype);
bool kiln_dtype_is_int(kiln_dtype dtype); /* signed or unsigned, not bool */
/* Bytes of an element; 0 for sub-byte types. */
size_t kiln_dtype_size(kiln_dtype dtype);
/* Copies n elements between dense arrays of one dtype, from index si to di, sub-byte types too. */
void kiln_copy_elements(kiln_dtype dtype, void *dst, int64_t di, const void *src, int64_t si,
                        int64_t n);

/* ---- Shapes ---- */

/* Row-major strides in elements. */
void kiln_strides(const int64_t *dims, int32_t rank, int64_t *strides);
/* Strides of `dims` (rank r) seen through the broadcast shape `out_dims` (rank R >= r): 0 where it
 * is repeated. strides has R entries. */
void kiln_broadcast_strides(const int64_t *dims, int32_t r, const int64_t *out_dims, int32_t R,
                            int64_t *strides);
/* An odometer over a shape: advances idx by one; returns false after the last. offsets[k] moves by
 * strides[k]. */
typedef struct kiln_walk {
    int32_t rank;
    int32_t n; /* number of strided operands, at most 4 */
    int64_t dims[KILN_MAX_RANK];
    int64_t idx[KILN_MAX_RANK];
    int64_t strides[4][KILN_MAX_RANK];
    int64_t offset[4];
} kiln_walk;
void kiln_walk_init(kiln_walk *w, const int64_t *dims, int32_t rank);
/* Adds an operand with these strides; returns its number. */
int32_t kiln_walk_operand(kiln_walk *w, const int64_t *strides);
bool kiln_walk_next(kiln_walk *w);
/* True when the shape has no elements: test before the first use of offset. */
bool kiln_walk_empty(const kiln_walk *w);

#endif
