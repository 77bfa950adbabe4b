/* if.c - If: one of two bodies. */
#include "ops/flow.h"

static const kiln_attr table[] = {KILN_A_GRAPH("then_branch"), KILN_A_GRAPH("else_branch")};
enum { THEN, ELSE };

/* Types of one branch's outputs into facts. */
static kiln_status branch(kiln_infer *c, int32_t which, kiln_fact **facts) {
    const kiln_graph *body = c->node->bodies[which];
    if ((size_t)c->n_out > body->n_outputs || body->n_inputs != 0) {
        return KILN_INFER_FAIL(c, ARITY,
                               "body \"%s\" has %zu inputs and %zu outputs, needs 0 and %d",
                               body->name, body->n_inputs, body->n_outputs, c->n_out);
    }
    KILN_ALLOC(*facts, c->arena, body->n_outputs);
    return c->body(c, body, NULL, 0, *facts);
}

/* The condition is known and its branch decides; the other may be impossible, which is no error. */
static kiln_status one_branch(kiln_infer *c, int32_t which) {
    kiln_fact *taken, *other;
    size_t findings = c->diag ? kiln_diag_count(c->diag) : 0;
    kiln_status status = branch(c, which == THEN ? ELSE : THEN, &other);
    if (status != KILN_OK && status != KILN_E_MALFORMED && status != KILN_E_UNSUPPORTED) {
        return status;
    }
    if (status != KILN_OK) {
        kiln_diag_truncate(c->diag, findings);
        kiln_diag_at_node(c->diag, c->node->name, c->node->op->name);
    }
    KILN_TRY(branch(c, which, &taken));
    for (int32_t i = 0; i < c->n_out; i++) {
        c->out[i] = taken[i];
        c->out[i].data = NULL;
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    int64_t n;
    kiln_fact *facts[2];
    bool changed = false;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T(BOOL)));
    int64_t len = kiln_infer_length(c, 0);
    if (kiln_infer_in_rank(c, 0) > 1 || (len >= 0 && len != 1)) {
        return KILN_INFER_FAIL(c, SHAPE, "cond must be a single element");
    }
    const kiln_dim *cond = kiln_infer_contents(c, 0, &n);
    if (cond && n == 1 && kiln_dim_known(cond[0])) {
        return one_branch(c, cond[0] ? THEN : ELSE);
    }
    KILN_TRY(branch(c, THEN, &facts[THEN]));
    KILN_TRY(branch(c, ELSE, &facts[ELSE]));
    for (int32_t i = 0; i < c->n_out; i++) {
        KILN_TRY(kiln_type_merge(&c->out[i].type, &facts[THEN][i].type, &facts[ELSE][i].type,
                                 c->arena, c->diag, &changed));
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *cond = kiln_ref_in(c, 0);
    const kiln_graph *body =
        c->node->bodies[kiln_get_i64(cond->dtype, cond->data, 0) ? THEN : ELSE];
    kiln_datum *outputs;
    KILN_ALLOC(outputs, c->arena, body->n_outputs);
    KILN_TRY(c->body(c, body, NULL, 0, outputs));
    for (int32_t i = 0; i < c->n_out; i++) {
        kiln_ref_give(c, i, &outputs[i]);
    }
    return KILN_OK;
}

const kiln_op kiln_op_if = {
    .name = "If",
    .domain = "",
    .since = 25,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = -1,
    .attrs = table,
    .n_attrs = KILN_COUNT_OF(table),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
