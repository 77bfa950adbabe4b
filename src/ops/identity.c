/* identity.c - Identity: any value passes through. */
#include <string.h>

#include "ops/util.h"

static kiln_status infer(kiln_infer *c) {
    c->out[0] = c->in[0];
    return KILN_OK;
}

enum { MAX_DEPTH = 8 };

/* Types nest at most optional(sequence(tensor)); depth guards against more. */
static kiln_status copy(kiln_ref *c, const kiln_datum *src, kiln_datum *dst, int32_t depth) {
    if (depth > MAX_DEPTH) {
        return KILN_INFER_FAIL(c, INTERNAL, "a value nests deeper than %d levels", MAX_DEPTH);
    }
    *dst = *src;
    if (src->kind == KILN_KIND_TENSOR) {
        size_t bytes = kiln_tensor_bytes(&src->tensor);
        dst->tensor.data = kiln_arena_raw(c->arena, bytes);
        if (!dst->tensor.data) {
            return KILN_E_MEMORY;
        }
        if (bytes) {
            memcpy(dst->tensor.data, src->tensor.data, bytes);
        }
        dst->tensor.cap_bytes = bytes;
    } else if (src->n_items) {
        KILN_ALLOC(dst->items, c->arena, src->n_items);
        for (int64_t i = 0; i < src->n_items; i++) {
            KILN_TRY(copy(c, &src->items[i], &dst->items[i], depth + 1));
        }
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    if (x && c->out[0].kind == KILN_KIND_TENSOR && y->data) {
        size_t bytes = kiln_tensor_bytes(x);
        if (bytes) {
            memcpy(y->data, x->data, bytes);
        }
        return KILN_OK;
    }
    return copy(c, &c->in[0], &c->out[0], 0);
}

const kiln_op kiln_op_identity = {
    .name = "Identity",
    .domain = "",
    .since = 25,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_VIEW | KILN_OP_ELEMENTWISE | KILN_OP_MONOTONE | KILN_OP_ANY_KIND,
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
