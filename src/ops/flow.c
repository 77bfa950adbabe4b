#include "ops/flow.h"

#include <string.h>

/* Types nest at most optional(sequence(tensor)). */
enum { MAX_DEPTH = 4, MAX_ROUNDS = 8, EXACT_LOOPS = 4 };

static kiln_status merge_tensor(kiln_type *out, const kiln_type *a, const kiln_type *b,
                                kiln_arena *arena, kiln_diag *diag, bool *changed) {
    if (a->dtype != b->dtype && a->dtype != KILN_DTYPE_NONE && b->dtype != KILN_DTYPE_NONE) {
        return kiln_fail(diag, KILN_F_DTYPE, "a value is %s here and %s there",
                         kiln_dtype_name(a->dtype), kiln_dtype_name(b->dtype));
    }
    kiln_type t = kiln_type_tensor(a->dtype ? a->dtype : b->dtype, KILN_RANK_UNKNOWN, NULL);
    if (a->rank < 0 || a->rank != b->rank) {
        *changed = *changed || a->rank >= 0;
        *out = t;
        return KILN_OK;
    }
    kiln_dim *dims;
    KILN_ALLOC(dims, arena, a->rank);
    for (int32_t d = 0; d < a->rank; d++) {
        dims[d] = a->dims[d] == b->dims[d] ? a->dims[d] : KILN_DIM_UNKNOWN;
        *changed = *changed || dims[d] != a->dims[d];
    }
    t.rank = a->rank;
    t.dims = dims;
    *out = t;
    return KILN_OK;
}

kiln_status kiln_type_merge(kiln_type *out, const kiln_type *a, const kiln_type *b,
                            kiln_arena *arena, kiln_diag *diag, bool *changed) {
    kiln_type *at = out;
    for (int32_t depth = 0; depth < MAX_DEPTH; depth++) {
        if (a->kind == KILN_KIND_NONE || b->kind == KILN_KIND_NONE) {
            *at = a->kind == KILN_KIND_NONE ? *b : *a;
            return KILN_OK;
        }
        bool a_may = a->kind == KILN_KIND_OPTIONAL, b_may = b->kind == KILN_KIND_OPTIONAL;
        if (a_may != b_may) { /* operators on optionals take what they hold, too */
            *changed = *changed || a_may;
            *at = a_may ? *b : *a;
            return KILN_OK;
        }
        if (a->kind != b->kind) {
            return kiln_fail(diag, KILN_F_DTYPE, "a value is a tensor here and a sequence there");
        }
        if (a->kind == KILN_KIND_TENSOR) {
            return merge_tensor(at, a, b, arena, diag, changed);
        }
        if (!a->elem || !b->elem) {
            *at = a->elem ? *a : *b;
            return KILN_OK;
        }
        kiln_type *elem;
        KILN_ALLOC(elem, arena, 1);
        const kiln_type *a_elem = a->elem, *b_elem = b->elem;
        *at = (kiln_type){.kind = a->kind, .elem = elem};
        at = elem;
        a = a_elem;
        b = b_elem;
    }
    return kiln_fail(diag, KILN_F_INTERNAL, "a type nests deeper than %d levels", MAX_DEPTH);
}

/* Nothing but kind and element type is kept of a type. */
static kiln_status forget(kiln_type *t, kiln_arena *arena) {
    if (t->kind == KILN_KIND_TENSOR) {
        t->rank = KILN_RANK_UNKNOWN;
        t->dims = NULL;
    } else if (t->elem && t->elem->kind == KILN_KIND_TENSOR) {
        kiln_type *elem;
        KILN_ALLOC(elem, arena, 1);
        *elem = kiln_type_tensor(t->elem->dtype, KILN_RANK_UNKNOWN, NULL);
        t->elem = elem;
    }
    return KILN_OK;
}

/* Each level of loops multiplies the rounds, so that deep ones begin with the widest types. */
static bool is_deep(const kiln_graph *body) {
    int32_t depth = 0;
    for (; body && depth <= EXACT_LOOPS; body = body->parent) {
        depth++;
    }
    return depth > EXACT_LOOPS;
}

kiln_status kiln_flow_infer(kiln_infer *c, const kiln_graph *body, kiln_fact *inputs,
                            int32_t first_in, kiln_fact *outputs, int32_t first_out, int32_t n) {
    bool changed = false;
    for (int32_t k = 0; k < n; k++) {
        kiln_fact *in = &inputs[first_in + k];
        *in = (kiln_fact){.type = in->type};
        if (is_deep(body)) {
            KILN_TRY(forget(&in->type, c->arena));
        }
    }
    for (int32_t round = 0; round < MAX_ROUNDS; round++) {
        changed = false;
        KILN_TRY(c->body(c, body, inputs, (int32_t)body->n_inputs, outputs));
        for (int32_t k = 0; k < n; k++) {
            kiln_type *in = &inputs[first_in + k].type;
            KILN_TRY(
                kiln_type_merge(in, in, &outputs[first_out + k].type, c->arena, c->diag, &changed));
        }
        for (int32_t k = 0; k < n && changed && round > 0; k++) {
            KILN_TRY(forget(&inputs[first_in + k].type, c->arena));
        }
        if (!changed) {
            return KILN_OK;
        }
    }
    return KILN_INFER_FAIL(c, INTERNAL, "the types of carried values do not settle");
}

static kiln_status copy_tensor(kiln_tensor *dst, const kiln_tensor *src, kiln_arena *arena) {
    *dst = *src;
    dst->cap_bytes = kiln_tensor_bytes(src);
    dst->data = kiln_arena_copy(arena, src->data, dst->cap_bytes);
    return dst->data ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status copy_within(kiln_datum *dst, const kiln_datum *src, kiln_arena *arena,
                               kiln_diag *diag, int32_t depth) {
    if (depth > MAX_DEPTH) {
        return kiln_fail(diag, KILN_F_INTERNAL, "a value nests deeper than %d levels", MAX_DEPTH);
    }
    *dst = *src;
    if (src->kind == KILN_KIND_TENSOR) {
        return copy_tensor(&dst->tensor, &src->tensor, arena);
    }
    KILN_ALLOC(dst->items, arena, src->n_items);
    for (int64_t i = 0; i < src->n_items; i++) {
        KILN_TRY(copy_within(&dst->items[i], &src->items[i], arena, diag, depth + 1));
    }
    return KILN_OK;
}

kiln_status kiln_datum_copy(kiln_datum *dst, const kiln_datum *src, kiln_arena *arena,
                            kiln_diag *diag) {
    return copy_within(dst, src, arena, diag, 0);
}

static bool same_shape(const kiln_tensor *a, const kiln_tensor *b) {
    return a->dtype == b->dtype && a->rank == b->rank &&
           memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
}

void kiln_ref_give(kiln_ref *c, int32_t i, const kiln_datum *d) {
    if (i >= c->n_out) {
        return;
    }
    kiln_tensor *t = &c->out[i].tensor;
    if (d->kind == KILN_KIND_TENSOR && c->out[i].kind == KILN_KIND_TENSOR && t->data &&
        same_shape(t, &d->tensor)) {
        kiln_copy_elements(t->dtype, t->data, 0, d->tensor.data, 0, kiln_tensor_count(t));
        return;
    }
    c->out[i] = *d;
}

static kiln_status stack_grow(kiln_ref *c, kiln_stack *s, kiln_arena *arena) {
    int64_t n = kiln_tensor_count(&s->item), cap = s->cap ? s->cap * 2 : 4, total;
    size_t bytes;
    if (!kiln_mul_i64(n, cap, &total) || !kiln_dtype_bytes(s->item.dtype, total, &bytes) ||
        bytes / 2 > c->limits->tensor_bytes) {
        return KILN_INFER_FAIL(c, RUN_SIZE,
                               "a scan output would be larger than the limit of %llu bytes",
                               (unsigned long long)c->limits->tensor_bytes);
    }
    char *data;
    KILN_ALLOC(data, arena, bytes);
    kiln_copy_elements(s->item.dtype, data, 0, s->data ? s->data : data, 0,
                       s->data ? n * s->count : 0);
    s->data = data;
    s->cap = cap;
    return KILN_OK;
}

kiln_status kiln_stack_push(kiln_ref *c, kiln_stack *s, const kiln_tensor *item,
                            kiln_arena *arena) {
    if (s->count == 0) {
        s->item = *item;
    }
    if (!same_shape(&s->item, item)) {
        return KILN_INFER_FAIL(c, SHAPE, "iteration %lld makes a scan output of another shape",
                               (long long)s->count);
    }
    if (s->count == s->cap) {
        KILN_TRY(stack_grow(c, s, arena));
    }
    int64_t n = kiln_tensor_count(item);
    kiln_copy_elements(item->dtype, s->data, s->count * n, item->data, 0, n);
    s->count++;
    return KILN_OK;
}

void kiln_stack_tensor(const kiln_stack *s, const kiln_type *type, kiln_tensor *out) {
    static const uint64_t none = 0; /* no element is read or written */
    memset(out, 0, sizeof *out);
    out->dims[0] = s->count;
    if (s->count == 0) {
        out->dtype = type->dtype;
        out->rank = type->rank > 0 ? type->rank : 1;
        for (int32_t d = 1; d < out->rank; d++) {
            out->dims[d] = kiln_dim_known(type->dims[d]) ? type->dims[d] : 0;
        }
        out->data = (void *)&none;
        return;
    }
    out->dtype = s->item.dtype;
    out->rank = s->item.rank + 1;
    memcpy(out->dims + 1, s->item.dims, (size_t)s->item.rank * sizeof out->dims[0]);
    out->data = s->data;
    out->cap_bytes = kiln_tensor_bytes(out);
}
