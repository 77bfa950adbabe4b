/* loop.c - Loop: a body run a number of times, as long as a condition holds.
 *
 * Body inputs: iteration number, condition, carried values. Body outputs: condition, carried
 * values, one slice of each scan output.
 */
#include <string.h>

#include "ops/flow.h"

static const kiln_attr table[] = {KILN_A_GRAPH("body")};
enum { TRIPS, COND, FIRST }; /* inputs; body inputs too */

/* The trip count and the condition may be left out, and are absent then when
 * nothing follows them. */
static int32_t carried(int32_t n_in) {
    return n_in > FIRST ? n_in - FIRST : 0;
}

static kiln_status check(kiln_infer *c, const kiln_graph *body) {
    int32_t n = carried(c->n_in);
    if (body->n_inputs != (size_t)(FIRST + n) || body->n_outputs < (size_t)(1 + n) ||
        (size_t)c->n_out > body->n_outputs - 1) {
        return KILN_INFER_FAIL(
            c, ARITY,
            "body \"%s\" has %zu inputs and %zu outputs for a Loop of %d inputs and %d outputs",
            body->name, body->n_inputs, body->n_outputs, c->n_in, c->n_out);
    }
    KILN_TRY(kiln_infer_dtype(c, TRIPS, KILN_T(I64)));
    KILN_TRY(kiln_infer_dtype(c, COND, KILN_T(BOOL)));
    for (int32_t i = 0; i < FIRST; i++) {
        int64_t len = kiln_infer_length(c, i);
        if (kiln_infer_in_rank(c, i) > 1 || (len >= 0 && len != 1 && kiln_infer_has(c, i))) {
            return KILN_INFER_FAIL(c, SHAPE, "input %d must be a single element", i);
        }
    }
    return KILN_OK;
}

static bool holds(const kiln_infer *c, int32_t i) {
    int64_t n;
    const kiln_dim *v = kiln_infer_contents(c, i, &n);
    return !kiln_infer_has(c, i) || (v && n == 1 && v[0] == 1);
}

/* How often the body runs: the trip count when the condition can never end the loop. */
static kiln_dim trips(kiln_infer *c, const kiln_graph *body, const kiln_fact *condition) {
    int64_t n;
    const kiln_dim *v = kiln_infer_contents(c, TRIPS, &n);
    kiln_dim count = v && n == 1 ? v[0] : KILN_DIM_UNKNOWN;
    bool always =
        (condition->contents && condition->n_contents == 1 && condition->contents[0] == 1) ||
        body->outputs[0] == body->inputs[COND];
    if (always && holds(c, COND) && count != KILN_DIM_UNKNOWN) {
        return kiln_dim_known(count) ? kiln_dim_max(c->dims, count, 0) : count;
    }
    return kiln_dim_found(c->dims, count);
}

static kiln_status scan_type(kiln_infer *c, int32_t i, const kiln_type *slice, kiln_dim count) {
    if (slice->kind != KILN_KIND_TENSOR) {
        return KILN_INFER_FAIL(c, DTYPE, "scan output %d is no tensor", i);
    }
    kiln_dim *out =
        kiln_infer_dims(c, i, slice->dtype, slice->rank < 0 ? slice->rank : slice->rank + 1);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; d <= slice->rank; d++) {
        out[d] = d ? slice->dims[d - 1] : count;
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    const kiln_graph *body = c->node->bodies[0];
    KILN_TRY(check(c, body));
    int32_t n = carried(c->n_in);
    kiln_fact *inputs, *outputs;
    KILN_ALLOC(inputs, c->arena, FIRST + n);
    KILN_ALLOC(outputs, c->arena, body->n_outputs);
    inputs[TRIPS].type = kiln_type_tensor(KILN_DTYPE_I64, 0, NULL);
    inputs[COND].type = kiln_type_tensor(KILN_DTYPE_BOOL, 0, NULL);
    for (int32_t k = 0; k < n; k++) {
        inputs[FIRST + k].type = c->in[FIRST + k].type;
    }
    KILN_TRY(kiln_flow_infer(c, body, inputs, FIRST, outputs, 1, n));
    kiln_dim count = trips(c, body, &outputs[0]);
    for (int32_t i = 0; i < c->n_out; i++) {
        if (i < n) {
            c->out[i].type = inputs[FIRST + i].type;
        } else {
            KILN_TRY(scan_type(c, i, &outputs[1 + i].type, count));
        }
    }
    return KILN_OK;
}

typedef struct loop {
    const kiln_graph *body;
    kiln_arena state[2]; /* carried values of this iteration and of the last */
    kiln_arena work;     /* what the body makes while it runs */
    kiln_arena *home;    /* of the node's outputs */
    kiln_datum *inputs, *outputs;
    kiln_stack *stacks;
    int32_t n_carried, n_scan;
    int64_t trips, i;
    uint8_t cond;
} loop;

static kiln_status step(kiln_ref *c, loop *l) {
    kiln_arena *next = &l->state[l->i & 1];
    kiln_arena_recycle(next);
    c->arena = &l->work;
    kiln_status status = c->body(c, l->body, l->inputs, (int32_t)l->body->n_inputs, l->outputs);
    c->arena = l->home;
    KILN_TRY(status);
    const kiln_tensor *cond = &l->outputs[0].tensor;
    if (l->outputs[0].kind != KILN_KIND_TENSOR || kiln_tensor_count(cond) != 1) {
        return KILN_INFER_FAIL(c, SHAPE, "the body's condition must be a single element");
    }
    l->cond = kiln_get_i64(cond->dtype, cond->data, 0) != 0;
    for (int32_t k = 0; k < l->n_carried; k++) {
        KILN_TRY(kiln_datum_copy(&l->inputs[FIRST + k], &l->outputs[1 + k], next, c->diag));
    }
    for (int32_t k = 0; k < l->n_scan; k++) {
        const kiln_datum *slice = &l->outputs[1 + l->n_carried + k];
        KILN_TRY(kiln_stack_push(c, &l->stacks[k], &slice->tensor, l->home));
    }
    kiln_arena_recycle(&l->work);
    return KILN_OK;
}

static kiln_status run(kiln_ref *c, loop *l) {
    for (l->i = 0; l->i < l->trips && l->cond; l->i++) {
        if ((uint64_t)l->i >= c->limits->loop_trips) {
            return KILN_INFER_FAIL(c, RUN_LIMIT, "the loop was stopped after %lld iterations",
                                   (long long)l->i);
        }
        KILN_TRY(step(c, l));
    }
    for (int32_t k = 0; k < l->n_carried; k++) {
        kiln_datum d;
        KILN_TRY(kiln_datum_copy(&d, &l->inputs[FIRST + k], l->home, c->diag));
        kiln_ref_give(c, k, &d);
    }
    for (int32_t k = 0; k < l->n_scan && l->n_carried + k < c->n_out; k++) {
        int32_t i = l->n_carried + k;
        kiln_datum d = {.kind = KILN_KIND_TENSOR};
        kiln_stack_tensor(&l->stacks[k], &c->facts[i].type, &d.tensor);
        kiln_ref_give(c, i, &d);
    }
    return KILN_OK;
}

static kiln_datum scalar(kiln_dtype dtype, void *data) {
    return (kiln_datum){.kind = KILN_KIND_TENSOR,
                        .tensor = {.dtype = dtype, .data = data, .cap_bytes = 8}};
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *count = kiln_ref_in(c, TRIPS), *cond = kiln_ref_in(c, COND);
    loop l = {.body = c->node->bodies[0], .home = c->arena, .n_carried = carried(c->n_in)};
    l.n_scan = (int32_t)l.body->n_outputs - 1 - l.n_carried;
    l.trips = count ? ((const int64_t *)count->data)[0] : INT64_MAX;
    l.cond = cond ? ((const uint8_t *)cond->data)[0] != 0 : 1;
    KILN_ALLOC(l.inputs, c->arena, l.body->n_inputs);
    KILN_ALLOC(l.outputs, c->arena, l.body->n_outputs);
    KILN_ALLOC(l.stacks, c->arena, l.n_scan);
    l.inputs[TRIPS] = scalar(KILN_DTYPE_I64, &l.i);
    l.inputs[COND] = scalar(KILN_DTYPE_BOOL, &l.cond);
    for (int32_t k = 0; k < l.n_carried; k++) {
        l.inputs[FIRST + k] = c->in[FIRST + k];
    }
    kiln_arena_within(&l.work, c->arena);
    kiln_arena_within(&l.state[0], c->arena);
    kiln_arena_within(&l.state[1], c->arena);
    return run(c, &l);
}

const kiln_op kiln_op_loop = {
    .name = "Loop",
    .domain = "",
    .since = 25,
    .min_in = 0,
    .max_in = -1,
    .min_out = 1,
    .max_out = -1,
    .attrs = table,
    .n_attrs = KILN_COUNT_OF(table),
    .flags = KILN_OP_ANY_KIND,
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
