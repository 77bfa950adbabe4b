/* scan.c - Scan: a body run along an axis of its scan inputs.
 *
 * Inputs: states, then scan inputs. Body inputs: states, one slice of each scan input. Body
 * outputs: states, one slice of each scan output.
 */
#include <string.h>

#include "ops/flow.h"
#include "ops/move.h"

typedef struct scan_attrs {
    int64_t num_scan_inputs;
    kiln_ints scan_input_axes, scan_input_directions;
    kiln_ints scan_output_axes, scan_output_directions;
} scan_attrs;

static const kiln_attr table[] = {
    KILN_A_GRAPH("body"),
    KILN_A_INT_REQUIRED(scan_attrs, num_scan_inputs),
    KILN_A_INTS(scan_attrs, scan_input_axes),
    KILN_A_INTS(scan_attrs, scan_input_directions),
    KILN_A_INTS(scan_attrs, scan_output_axes),
    KILN_A_INTS(scan_attrs, scan_output_directions),
};

static int64_t at(const kiln_ints *v, int32_t i) {
    return v->v ? v->v[i] : 0;
}

static int32_t axis_of(const kiln_ints *axes, int32_t i, int32_t rank) {
    int64_t axis = at(axes, i);
    return (int32_t)(axis < 0 ? axis + rank : axis);
}

static kiln_status check_list(const kiln_infer *c, const kiln_ints *v, const char *name, int64_t n,
                              bool directions) {
    if (v->v && v->n != n) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "%s has %lld entries, needs %lld", name,
                               (long long)v->n, (long long)n);
    }
    for (int64_t i = 0; v->v && directions && i < n; i++) {
        if (v->v[i] != 0 && v->v[i] != 1) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "%s[%lld] = %lld is neither 0 nor 1", name,
                                   (long long)i, (long long)v->v[i]);
        }
    }
    return KILN_OK;
}

static kiln_status check(const kiln_infer *c, const kiln_graph *body) {
    const scan_attrs *a = c->attrs;
    int64_t n_scan = a->num_scan_inputs, n = c->n_in - n_scan;
    if (n_scan < 1 || n < 0) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "num_scan_inputs = %lld for %d inputs",
                               (long long)n_scan, c->n_in);
    }
    if (body->n_inputs != (size_t)c->n_in || body->n_outputs != (size_t)c->n_out || c->n_out < n) {
        return KILN_INFER_FAIL(
            c, ARITY,
            "body \"%s\" has %zu inputs and %zu outputs for a Scan of %d inputs and %d outputs",
            body->name, body->n_inputs, body->n_outputs, c->n_in, c->n_out);
    }
    KILN_TRY(check_list(c, &a->scan_input_axes, "scan_input_axes", n_scan, false));
    KILN_TRY(check_list(c, &a->scan_input_directions, "scan_input_directions", n_scan, true));
    KILN_TRY(check_list(c, &a->scan_output_axes, "scan_output_axes", c->n_out - n, false));
    return check_list(c, &a->scan_output_directions, "scan_output_directions", c->n_out - n, true);
}

/* The type of one slice of scan input k, which is input i; *len is merged with its number of
 * slices. */
static kiln_status slice_type(kiln_infer *c, int32_t i, int32_t k, kiln_type *out, kiln_dim *len) {
    const scan_attrs *a = c->attrs;
    const kiln_type *t = &c->in[i].type;
    int32_t axis;
    KILN_TRY(kiln_infer_rank(c, i, 1, KILN_MAX_RANK));
    *out = kiln_type_tensor(t->dtype, KILN_RANK_UNKNOWN, NULL);
    if (t->rank < 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_infer_axis(c, at(&a->scan_input_axes, k), t->rank, "scan_input_axes", &axis));
    if (kiln_dim_differ(*len, t->dims[axis])) {
        return KILN_INFER_FAIL(c, SHAPE, "scan input %d has %lld slices, the others %lld", k,
                               (long long)t->dims[axis], (long long)*len);
    }
    *len = kiln_dim_merge(*len, t->dims[axis]);
    kiln_dim *dims;
    KILN_ALLOC(dims, c->arena, t->rank - 1);
    for (int32_t d = 0; d < t->rank - 1; d++) {
        dims[d] = t->dims[d < axis ? d : d + 1];
    }
    out->rank = t->rank - 1;
    out->dims = dims;
    return KILN_OK;
}

/* Output i, scan output k, of slices of this type. */
static kiln_status scan_type(kiln_infer *c, int32_t i, int32_t k, const kiln_type *slice,
                             kiln_dim len) {
    const scan_attrs *a = c->attrs;
    int32_t axis = 0, rank = slice->rank < 0 ? slice->rank : slice->rank + 1;
    if (slice->kind != KILN_KIND_TENSOR) {
        return KILN_INFER_FAIL(c, DTYPE, "scan output %d is no tensor", k);
    }
    if (rank >= 0) {
        KILN_TRY(kiln_infer_axis(c, at(&a->scan_output_axes, k), rank, "scan_output_axes", &axis));
    }
    kiln_dim *out = kiln_infer_dims(c, i, slice->dtype, rank);
    for (int32_t d = 0; out && d < rank; d++) {
        out[d] = d == axis ? len : slice->dims[d < axis ? d : d - 1];
    }
    return out ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status infer(kiln_infer *c) {
    const kiln_graph *body = c->node->bodies[0];
    KILN_TRY(check(c, body));
    int32_t n = c->n_in - (int32_t)((const scan_attrs *)c->attrs)->num_scan_inputs;
    kiln_fact *inputs, *outputs;
    kiln_dim len = KILN_DIM_UNKNOWN;
    KILN_ALLOC(inputs, c->arena, c->n_in);
    KILN_ALLOC(outputs, c->arena, body->n_outputs);
    for (int32_t i = 0; i < c->n_in; i++) {
        if (i < n) {
            inputs[i].type = c->in[i].type;
        } else {
            KILN_TRY(slice_type(c, i, i - n, &inputs[i].type, &len));
        }
    }
    KILN_TRY(kiln_flow_infer(c, body, inputs, 0, outputs, 0, n));
    for (int32_t i = 0; i < c->n_out; i++) {
        if (i < n) {
            c->out[i].type = inputs[i].type;
        } else {
            KILN_TRY(scan_type(c, i, i - n, &outputs[i].type, len));
        }
    }
    return KILN_OK;
}

typedef struct scan {
    const kiln_graph *body;
    kiln_arena state[2], work;
    kiln_arena *home;
    kiln_datum *inputs, *outputs;
    kiln_stack *stacks;
    int32_t n_states;
    int64_t len;
} scan;

/* Slice `t` of scan input k into a fresh tensor. */
static kiln_status take_slice(kiln_ref *c, const scan *s, int32_t k, int64_t t, kiln_datum *out) {
    const scan_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, s->n_states + k);
    int32_t axis = axis_of(&a->scan_input_axes, k, x->rank);
    int64_t strides[KILN_MAX_RANK], dims[KILN_MAX_RANK], src[KILN_MAX_RANK], dst[KILN_MAX_RANK];
    int64_t step = at(&a->scan_input_directions, k) ? s->len - 1 - t : t;
    kiln_strides(x->dims, x->rank, strides);
    for (int32_t d = 0; d < x->rank - 1; d++) {
        dims[d] = x->dims[d < axis ? d : d + 1];
        src[d] = strides[d < axis ? d : d + 1];
    }
    out->kind = KILN_KIND_TENSOR;
    KILN_TRY(kiln_ref_scratch(c, &out->tensor, x->dtype, x->rank - 1, dims));
    kiln_strides(dims, x->rank - 1, dst);
    kiln_move_box(x->dtype, x->rank - 1, dims, out->tensor.data, 0, dst, x->data,
                  step * strides[axis], src);
    return KILN_OK;
}

static kiln_status step(kiln_ref *c, scan *s, int64_t t) {
    kiln_arena *next = &s->state[t & 1];
    kiln_arena_recycle(next);
    for (int32_t i = s->n_states; i < c->n_in; i++) {
        KILN_TRY(take_slice(c, s, i - s->n_states, t, &s->inputs[i]));
    }
    KILN_TRY(c->body(c, s->body, s->inputs, c->n_in, s->outputs));
    for (int32_t i = 0; i < c->n_out; i++) {
        if (i < s->n_states) {
            KILN_TRY(kiln_datum_copy(&s->inputs[i], &s->outputs[i], next, c->diag));
        } else {
            KILN_TRY(
                kiln_stack_push(c, &s->stacks[i - s->n_states], &s->outputs[i].tensor, s->home));
        }
    }
    return KILN_OK;
}

/* The stacked slices with their axis and direction as the attributes demand. */
static kiln_status give_scan(kiln_ref *c, const scan *s, int32_t k) {
    const scan_attrs *a = c->attrs;
    int32_t i = s->n_states + k;
    kiln_tensor x;
    kiln_stack_tensor(&s->stacks[k], &c->facts[i].type, &x);
    int32_t axis = axis_of(&a->scan_output_axes, k, x.rank);
    kiln_datum d = {.kind = KILN_KIND_TENSOR};
    int64_t dims[KILN_MAX_RANK], src[KILN_MAX_RANK], strides[KILN_MAX_RANK], dst[KILN_MAX_RANK];
    kiln_strides(x.dims, x.rank, strides);
    for (int32_t j = 0; j < x.rank; j++) {
        int32_t from = j == axis ? 0 : j < axis ? j + 1 : j;
        dims[j] = x.dims[from];
        src[j] = strides[from];
    }
    int64_t first = 0;
    if (at(&a->scan_output_directions, k) && s->len > 0) {
        first = (s->len - 1) * src[axis];
        src[axis] = -src[axis];
    }
    KILN_TRY(kiln_ref_scratch(c, &d.tensor, x.dtype, x.rank, dims));
    kiln_strides(dims, x.rank, dst);
    kiln_move_box(x.dtype, x.rank, dims, d.tensor.data, 0, dst, x.data, first, src);
    kiln_ref_give(c, i, &d);
    return KILN_OK;
}

static kiln_status run(kiln_ref *c, scan *s) {
    for (int64_t t = 0; t < s->len; t++) {
        if ((uint64_t)t >= c->limits->loop_trips) {
            return KILN_INFER_FAIL(c, RUN_LIMIT, "the scan was stopped after %lld steps",
                                   (long long)t);
        }
        c->arena = &s->work;
        kiln_status status = step(c, s, t);
        c->arena = s->home;
        KILN_TRY(status);
        kiln_arena_recycle(&s->work);
    }
    for (int32_t i = 0; i < c->n_out; i++) {
        if (i < s->n_states) {
            kiln_datum d;
            KILN_TRY(kiln_datum_copy(&d, &s->inputs[i], s->home, c->diag));
            kiln_ref_give(c, i, &d);
        } else {
            KILN_TRY(give_scan(c, s, i - s->n_states));
        }
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const scan_attrs *a = c->attrs;
    scan s = {.body = c->node->bodies[0], .home = c->arena};
    s.n_states = c->n_in - (int32_t)a->num_scan_inputs;
    const kiln_tensor *x = kiln_ref_in(c, s.n_states);
    s.len = x->dims[axis_of(&a->scan_input_axes, 0, x->rank)];
    KILN_ALLOC(s.inputs, c->arena, c->n_in);
    KILN_ALLOC(s.outputs, c->arena, s.body->n_outputs);
    KILN_ALLOC(s.stacks, c->arena, c->n_out);
    for (int32_t i = 0; i < s.n_states; i++) {
        s.inputs[i] = c->in[i];
    }
    kiln_arena_within(&s.work, c->arena);
    kiln_arena_within(&s.state[0], c->arena);
    kiln_arena_within(&s.state[1], c->arena);
    return run(c, &s);
}

const kiln_op kiln_op_scan = {
    .name = "Scan",
    .domain = "",
    .since = 25,
    .min_in = 1,
    .max_in = -1,
    .min_out = 1,
    .max_out = -1,
    KILN_OP_ATTRS(table, scan_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
