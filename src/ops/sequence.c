/* sequence.c - SequenceConstruct, SequenceEmpty, SequenceAt, SequenceInsert, SequenceErase and
 * SequenceLength: lists of tensors. Sequences share the tensors they hold; nothing ever writes to
 * one. */
#include "ops/flow.h"
#include "ops/index.h"

/* Elements of a sequence input: type unknown when nothing is known of them. */
static kiln_status elem_type(const kiln_infer *c, int32_t i, kiln_type *out) {
    const kiln_type *t = &c->in[i].type;
    *out = kiln_type_tensor(KILN_DTYPE_NONE, KILN_RANK_UNKNOWN, NULL);
    if (t->kind != KILN_KIND_SEQUENCE) {
        return KILN_INFER_FAIL(c, DTYPE, "input %d must be a sequence", i);
    }
    if (t->elem) {
        *out = *t->elem;
    }
    return KILN_OK;
}

static kiln_status give_sequence(kiln_infer *c, const kiln_type *elem) {
    kiln_type *copy = kiln_arena_copy(c->arena, elem, sizeof *elem);
    if (!copy) {
        return KILN_E_MEMORY;
    }
    c->out[0].type = (kiln_type){.kind = KILN_KIND_SEQUENCE, .elem = copy};
    return KILN_OK;
}

static kiln_status check_position(const kiln_infer *c, int32_t i) {
    int64_t n = kiln_infer_length(c, i);
    KILN_TRY(kiln_infer_dtype(c, i, KILN_T_INDEX));
    if (kiln_infer_has(c, i) && (kiln_infer_in_rank(c, i) > 1 || (n >= 0 && n != 1))) {
        return KILN_INFER_FAIL(c, SHAPE, "position must be a scalar");
    }
    return KILN_OK;
}

/* The position that input i names among n places, `otherwise` when it is left out. */
static kiln_status position(kiln_ref *c, int32_t i, int64_t n, int64_t otherwise, int64_t *out) {
    const kiln_tensor *t = kiln_ref_in(c, i);
    return kiln_index_in(c->diag, t ? kiln_get_i64(t->dtype, t->data, 0) : otherwise, n, out);
}

static kiln_status construct_infer(kiln_infer *c) {
    kiln_type elem = c->in[0].type;
    bool changed = false;
    for (int32_t i = 0; i < c->n_in; i++) {
        KILN_TRY(kiln_infer_dtype(c, i, KILN_T_ANY));
        KILN_TRY(kiln_type_merge(&elem, &elem, &c->in[i].type, c->arena, c->diag, &changed));
    }
    return give_sequence(c, &elem);
}

static kiln_status construct_ref(kiln_ref *c) {
    kiln_datum *out = &c->out[0];
    out->n_items = c->n_in;
    out->items = kiln_arena_copy(c->arena, c->in, (size_t)c->n_in * sizeof *c->in);
    return out->items ? KILN_OK : KILN_E_MEMORY;
}

typedef struct empty_attrs {
    int64_t dtype;
} empty_attrs;

static const kiln_attr empty_table[] = {KILN_A_INT(empty_attrs, dtype, KILN_DTYPE_F32)};

static kiln_status empty_infer(kiln_infer *c) {
    int64_t dtype = ((const empty_attrs *)c->attrs)->dtype;
    if (dtype <= 0 || dtype >= KILN_DTYPE_COUNT) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "dtype = %lld is no element type", (long long)dtype);
    }
    kiln_type elem = kiln_type_tensor((kiln_dtype)dtype, KILN_RANK_UNKNOWN, NULL);
    return give_sequence(c, &elem);
}

static kiln_status empty_ref(kiln_ref *c) {
    c->out[0].n_items = 0;
    return KILN_OK;
}

static kiln_status at_infer(kiln_infer *c) {
    KILN_TRY(check_position(c, 1));
    return elem_type(c, 0, &c->out[0].type);
}

static kiln_status at_ref(kiln_ref *c) {
    int64_t i = 0;
    KILN_TRY(position(c, 1, c->in[0].n_items, 0, &i));
    kiln_ref_give(c, 0, &c->in[0].items[i]);
    return KILN_OK;
}

static kiln_status insert_infer(kiln_infer *c) {
    kiln_type elem;
    bool changed = false;
    KILN_TRY(check_position(c, 2));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T_ANY));
    KILN_TRY(elem_type(c, 0, &elem));
    KILN_TRY(kiln_type_merge(&elem, &elem, &c->in[1].type, c->arena, c->diag, &changed));
    return give_sequence(c, &elem);
}

static kiln_status insert_ref(kiln_ref *c) {
    const kiln_datum *in = &c->in[0];
    kiln_datum *out = &c->out[0];
    int64_t at = 0, n = in->n_items;
    const kiln_tensor *where = kiln_ref_in(c, 2);
    bool back = where && kiln_get_i64(where->dtype, where->data, 0) < 0;
    /* From the front the place after the last item counts too, from the back it does not. */
    KILN_TRY(position(c, 2, back ? n : n + 1, n, &at));
    KILN_ALLOC(out->items, c->arena, n + 1);
    for (int64_t i = 0; i <= n; i++) {
        out->items[i] = i == at ? c->in[1] : in->items[i < at ? i : i - 1];
    }
    out->n_items = n + 1;
    return KILN_OK;
}

static kiln_status erase_infer(kiln_infer *c) {
    kiln_type elem;
    KILN_TRY(check_position(c, 1));
    KILN_TRY(elem_type(c, 0, &elem));
    return give_sequence(c, &elem);
}

static kiln_status erase_ref(kiln_ref *c) {
    const kiln_datum *in = &c->in[0];
    kiln_datum *out = &c->out[0];
    int64_t at = 0, n = in->n_items;
    KILN_TRY(position(c, 1, n, n - 1, &at));
    KILN_ALLOC(out->items, c->arena, n);
    for (int64_t i = 0; i < n - 1; i++) {
        out->items[i] = in->items[i < at ? i : i + 1];
    }
    out->n_items = n - 1;
    return KILN_OK;
}

static kiln_status length_infer(kiln_infer *c) {
    kiln_type elem;
    KILN_TRY(elem_type(c, 0, &elem));
    return kiln_infer_dims(c, 0, KILN_DTYPE_I64, 0) ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status length_ref(kiln_ref *c) {
    ((int64_t *)kiln_ref_out(c, 0)->data)[0] = c->in[0].n_items;
    return KILN_OK;
}

#define SEQUENCE_OP(id, onnx_name, lo, hi)  \
    const kiln_op kiln_op_sequence_##id = { \
        .name = onnx_name,                  \
        .domain = "",                       \
        .since = 11,                        \
        .min_in = lo,                       \
        .max_in = hi,                       \
        .min_out = 1,                       \
        .max_out = 1,                       \
        .flags = KILN_OP_ANY_KIND,          \
        .tolerance = KILN_TOL_EXACT,        \
        .infer = id##_infer,                \
        .ref = id##_ref,                    \
    }

SEQUENCE_OP(construct, "SequenceConstruct", 1, -1);
SEQUENCE_OP(at, "SequenceAt", 2, 2);
SEQUENCE_OP(insert, "SequenceInsert", 2, 3);
SEQUENCE_OP(erase, "SequenceErase", 1, 2);
SEQUENCE_OP(length, "SequenceLength", 1, 1);

const kiln_op kiln_op_sequence_empty = {
    .name = "SequenceEmpty",
    .domain = "",
    .since = 11,
    .min_in = 0,
    .max_in = 0,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(empty_table, empty_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = empty_infer,
    .ref = empty_ref,
};
