/* non_zero.c - NonZero: the places are counted, then written as numbers of elements, then taken
 * apart into coordinates. */
#include "backend/cpu/axes.h"
#include "backend/cpu/kernels/reference.h"
#include "ops/ops.h"
#include "ops/util.h"

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, non_zero)) {
        return kiln_claim_refuse(c, "it runs NonZero");
    }
    return kiln_reference_claim(c, &kiln_kernel_non_zero, node);
}

/* find_<type>: numbers of the elements that are not zero into y, which has room for n; their count
 * when y is NULL. No branch depends on the data. */
#define FIND(type)                                                                     \
    static int64_t find_##type(const void *data, int64_t all, int64_t *y, int64_t n) { \
        const type *x = data;                                                          \
        int64_t at = 0;                                                                \
        if (!y) {                                                                      \
            for (int64_t i = 0; i < all; i++) {                                        \
                at += x[i] != 0;                                                       \
            }                                                                          \
            return at;                                                                 \
        }                                                                              \
        for (int64_t i = 0; at < n; i++) {                                             \
            y[at] = i;                                                                 \
            at += x[i] != 0;                                                           \
        }                                                                              \
        return at;                                                                     \
    }
FIND(uint8_t)
FIND(uint16_t)
FIND(uint32_t)
FIND(uint64_t)
FIND(float)
FIND(double)

typedef int64_t find_fn(const void *data, int64_t all, int64_t *y, int64_t n);

/* NULL: by the reference. */
static find_fn *find_of(kiln_dtype dtype) {
    switch (dtype) {
    case KILN_DTYPE_F32:
        return find_float;
    case KILN_DTYPE_F64:
        return find_double;
    case KILN_DTYPE_BOOL:
    case KILN_DTYPE_U8:
    case KILN_DTYPE_I8:
        return find_uint8_t;
    case KILN_DTYPE_U16:
    case KILN_DTYPE_I16:
        return find_uint16_t;
    case KILN_DTYPE_U32:
    case KILN_DTYPE_I32:
        return find_uint32_t;
    case KILN_DTYPE_U64:
    case KILN_DTYPE_I64:
        return find_uint64_t;
    default:
        return NULL;
    }
}

/* y[0..n) holds numbers of elements: row d of y becomes their coordinate d. */
static void take_apart(const kiln_tensor *x, int64_t *y, int64_t n) {
    for (int32_t d = x->rank - 1; d > 0; d--) {
        for (int64_t i = 0; i < n; i++) {
            y[d * n + i] = y[i] % x->dims[d];
            y[i] /= x->dims[d];
        }
    }
}

static kiln_status late(kiln_ref *c, const kiln_late *by) {
    (void)by;
    const kiln_tensor *x = kiln_ref_in(c, 0);
    find_fn *find = find_of(x->dtype);
    if (!find || x->rank == 0) {
        return c->node->op->ref(c);
    }
    int64_t all = kiln_tensor_count(x), n = find(x->data, all, NULL, 0);
    KILN_TRY(kiln_ref_output(c, 0, KILN_DTYPE_I64, 2, (int64_t[]){x->rank, n}));
    int64_t *y = kiln_ref_out(c, 0)->data;
    if (n > 0) {
        find(x->data, all, y, n);
        take_apart(x, y, n);
    }
    return KILN_OK;
}

const kiln_kernel kiln_kernel_non_zero = {
    .name = "non_zero",
    .claim = claim,
    .bind = kiln_reference_bind,
    .run = kiln_reference_run,
    .late = late,
};
