/* optional.c - Optional, OptionalGetElement and OptionalHasElement: values that may be missing. */
#include "ops/flow.h"

static kiln_status make_infer(kiln_infer *c) {
    kiln_type *elem = NULL;
    if (kiln_infer_has(c, 0)) {
        elem = kiln_arena_copy(c->arena, &c->in[0].type, sizeof *elem);
        if (!elem) {
            return KILN_E_MEMORY;
        }
    }
    c->out[0].type = (kiln_type){.kind = KILN_KIND_OPTIONAL, .elem = elem};
    return KILN_OK;
}

static kiln_status make_ref(kiln_ref *c) {
    kiln_datum *out = &c->out[0];
    bool there = c->n_in > 0 && c->in[0].kind != KILN_KIND_NONE;
    out->kind = KILN_KIND_OPTIONAL;
    out->n_items = there;
    if (there) {
        out->items = kiln_arena_copy(c->arena, &c->in[0], sizeof c->in[0]);
        return out->items ? KILN_OK : KILN_E_MEMORY;
    }
    return KILN_OK;
}

static kiln_status get_infer(kiln_infer *c) {
    const kiln_type *t = &c->in[0].type;
    if (t->kind != KILN_KIND_OPTIONAL) {
        c->out[0] = c->in[0];
        c->out[0].data = NULL;
    } else if (t->elem) {
        c->out[0].type = *t->elem;
    }
    return KILN_OK;
}

static kiln_status get_ref(kiln_ref *c) {
    const kiln_datum *in = &c->in[0];
    if (in->kind == KILN_KIND_NONE || (in->kind == KILN_KIND_OPTIONAL && in->n_items == 0)) {
        return KILN_INFER_FAIL(c, VALUE, "the optional holds nothing");
    }
    kiln_ref_give(c, 0, in->kind == KILN_KIND_OPTIONAL ? &in->items[0] : in);
    return KILN_OK;
}

static kiln_status has_infer(kiln_infer *c) {
    return kiln_infer_dims(c, 0, KILN_DTYPE_BOOL, 0) ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status has_ref(kiln_ref *c) {
    const kiln_datum *in = c->n_in > 0 ? &c->in[0] : NULL;
    bool there =
        in && in->kind != KILN_KIND_NONE && (in->kind != KILN_KIND_OPTIONAL || in->n_items > 0);
    ((uint8_t *)kiln_ref_out(c, 0)->data)[0] = there;
    return KILN_OK;
}

#define OPTIONAL_OP(id, onnx_name, lo, prefix) \
    const kiln_op kiln_op_##id = {             \
        .name = onnx_name,                     \
        .domain = "",                          \
        .since = 28,                           \
        .min_in = lo,                          \
        .max_in = 1,                           \
        .min_out = 1,                          \
        .max_out = 1,                          \
        .flags = KILN_OP_ANY_KIND,             \
        .tolerance = KILN_TOL_EXACT,           \
        .infer = prefix##_infer,               \
        .ref = prefix##_ref,                   \
    }

OPTIONAL_OP(optional, "Optional", 0, make);
OPTIONAL_OP(optional_get_element, "OptionalGetElement", 1, get);
OPTIONAL_OP(optional_has_element, "OptionalHasElement", 0, has);
