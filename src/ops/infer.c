/* infer.c - drives the operators' infer functions over a graph, or over one node
 * at concrete sizes. */
#include <string.h>

#include "base/env.h"
#include "ops/util.h"

/* Known contents of a small integer constant, made once. */
static kiln_status constant_contents(kiln_value *v, kiln_arena *arena) {
    const kiln_tensor *t = &v->constant->tensor;
    int64_t n = kiln_tensor_count(t);
    if (v->contents || !t->data || n < 0 || n > KILN_MAX_CONTENTS ||
        !(kiln_dtype_is_int(t->dtype) || t->dtype == KILN_DTYPE_BOOL)) {
        return KILN_OK;
    }
    kiln_dim *c;
    KILN_ALLOC(c, arena, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t e = kiln_get_i64(t->dtype, t->data, i);
        c[i] = e < KILN_DIM_MIN ? KILN_DIM_MIN : e;
    }
    v->contents = c;
    v->n_contents = n;
    return KILN_OK;
}

kiln_fact kiln_value_fact(const kiln_value *v) {
    kiln_fact f = {.type = v->type, .contents = v->contents, .n_contents = v->n_contents};
    f.data = kiln_value_data(v);
    return f;
}

/* What every output must satisfy, whatever the operator's infer says. */
static kiln_status check_output(const kiln_node *node, int32_t i, const kiln_fact *f,
                                const kiln_limits *limits, kiln_diag *diag) {
    kiln_tensor t;
    if (f->type.kind == KILN_KIND_TENSOR && f->type.rank > KILN_MAX_RANK) {
        return kiln_fail(diag, KILN_F_VARIANT, "output %d has rank %d; at most %d is supported", i,
                         f->type.rank, KILN_MAX_RANK);
    }
    for (int32_t d = 0; f->type.kind == KILN_KIND_TENSOR && d < f->type.rank; d++) {
        if (kiln_dim_known(f->type.dims[d]) && f->type.dims[d] < 0) {
            return kiln_fail(diag, KILN_F_SHAPE, "output %d, \"%s\", would have dim %d = %lld", i,
                             node->out[i]->name, d, (long long)f->type.dims[d]);
        }
    }
    if (!kiln_type_to_tensor(&f->type, &t)) {
        return KILN_OK;
    }
    size_t bytes = kiln_tensor_bytes(&t);
    if (bytes == SIZE_MAX || bytes > limits->tensor_bytes) {
        return kiln_fail(diag, KILN_F_OVERFLOW,
                         "output %d, \"%s\", would be larger than the limit of %llu bytes", i,
                         node->out[i]->name, (unsigned long long)limits->tensor_bytes);
    }
    return KILN_OK;
}

/* The arity and the kinds of the inputs, which no operator's infer looks at again. */
static kiln_status check_inputs(const kiln_infer *c) {
    static const char *const kinds[] = {[KILN_KIND_NONE] = "nothing",
                                        [KILN_KIND_TENSOR] = "a tensor",
                                        [KILN_KIND_SEQUENCE] = "a sequence",
                                        [KILN_KIND_OPTIONAL] = "an optional"};
    const kiln_node *node = c->node;
    const kiln_op *op = node->op;
    if (c->n_in < op->min_in || (op->max_in >= 0 && c->n_in > op->max_in)) {
        return kiln_fail(c->diag, KILN_F_ARITY, "has %d inputs, the operator takes %d to %d",
                         c->n_in, op->min_in, op->max_in);
    }
    for (int32_t i = 0; i < c->n_in; i++) {
        if (i < op->min_in && !node->in[i]) {
            return kiln_fail(c->diag, KILN_F_ARITY, "input %d is left out, but required", i);
        }
        kiln_kind kind = c->in[i].type.kind;
        if (kind != KILN_KIND_TENSOR && kind != KILN_KIND_NONE && !(op->flags & KILN_OP_ANY_KIND)) {
            return kiln_fail(c->diag, KILN_F_DTYPE,
                             "input %d, \"%s\", is %s; the operator takes tensors", i,
                             node->in[i]->name, kinds[kind]);
        }
    }
    return KILN_OK;
}

static kiln_status run_infer(kiln_infer *c) {
    kiln_diag_at_node(c->diag, c->node->name, c->node->op->name);
    if (c->node->offset >= 0) {
        kiln_diag_at_offset(c->diag, c->node->offset);
    }
    kiln_status status = check_inputs(c);
    if (status == KILN_OK) {
        status = c->node->op->infer(c);
    }
    for (int32_t i = 0; i < c->n_out && status == KILN_OK; i++) {
        status = check_output(c->node, i, &c->out[i], c->limits, c->diag);
    }
    if (status == KILN_OK) {
        kiln_diag_at_node(c->diag, NULL, NULL);
    }
    return status;
}

/* Bodies at symbolic sizes: types flow into the body's values and out again. */
static kiln_status body_symbolic(kiln_infer *self, const kiln_graph *body, const kiln_fact *inputs,
                                 int32_t n_inputs, kiln_fact *outputs) {
    kiln_graph *g = (kiln_graph *)body;
    if ((size_t)n_inputs != g->n_inputs) {
        return kiln_fail(self->diag, KILN_F_ARITY,
                         "body \"%s\" takes %zu inputs, the operator gives %d", g->name,
                         g->n_inputs, n_inputs);
    }
    for (int32_t i = 0; i < n_inputs; i++) {
        g->inputs[i]->type = inputs[i].type;
        g->inputs[i]->contents = inputs[i].contents;
        g->inputs[i]->n_contents = inputs[i].n_contents;
    }
    KILN_TRY(kiln_infer_graph(g, self->diag));
    kiln_diag_at_node(self->diag, self->node->name, self->node->op->name);
    for (size_t i = 0; i < g->n_outputs; i++) {
        outputs[i] = kiln_value_fact(g->outputs[i]);
    }
    return KILN_OK;
}

/* Bodies at concrete sizes: what symbolic inference left in the body's values, without contents. */
static kiln_status body_concrete(kiln_infer *self, const kiln_graph *body, const kiln_fact *inputs,
                                 int32_t n_inputs, kiln_fact *outputs) {
    (void)inputs;
    (void)n_inputs;
    for (size_t i = 0; i < body->n_outputs; i++) {
        const kiln_type *t = &body->outputs[i]->type;
        outputs[i] = (kiln_fact){.type = *t};
        if (t->kind == KILN_KIND_TENSOR && !kiln_type_is_static(t) && t->rank >= 0) {
            kiln_dim *dims;
            KILN_ALLOC(dims, self->arena, t->rank);
            for (int32_t d = 0; d < t->rank; d++) {
                dims[d] = t->dims[d] >= 0 ? t->dims[d] : KILN_DIM_UNKNOWN;
            }
            outputs[i].type.dims = dims;
        }
    }
    return KILN_OK;
}

kiln_status kiln_infer_node(kiln_graph *graph, kiln_node *node, kiln_diag *diag) {
    kiln_fact *facts;
    KILN_ALLOC(facts, graph->arena, node->n_in + node->n_out);
    for (int32_t i = 0; i < node->n_in; i++) {
        if (node->in[i]) {
            if (node->in[i]->constant) {
                KILN_TRY(constant_contents(node->in[i], graph->arena));
            }
            facts[i] = kiln_value_fact(node->in[i]);
        }
    }
    kiln_infer c = {.node = node,
                    .attrs = node->attrs,
                    .n_in = node->n_in,
                    .n_out = node->n_out,
                    .in = facts,
                    .out = facts + node->n_in,
                    .arena = graph->arena,
                    .dims = graph->dims,
                    .diag = diag,
                    .limits = kiln_env_limits(graph->env),
                    .body = body_symbolic};
    KILN_TRY(run_infer(&c));
    for (int32_t i = 0; i < node->n_out; i++) {
        node->out[i]->type = c.out[i].type;
        node->out[i]->contents = c.out[i].contents;
        node->out[i]->n_contents = c.out[i].n_contents;
    }
    return KILN_OK;
}

kiln_status kiln_infer_graph(kiln_graph *graph, kiln_diag *diag) {
    for (size_t i = 0; i < graph->n_nodes; i++) {
        KILN_TRY(kiln_infer_node(graph, graph->nodes[i], diag));
    }
    return KILN_OK;
}

kiln_status kiln_infer_concrete(const kiln_node *node, const kiln_fact *in, kiln_fact *out,
                                kiln_arena *arena, kiln_dims *dims, const kiln_env *env,
                                kiln_diag *diag) {
    memset(out, 0, (size_t)node->n_out * sizeof *out);
    kiln_infer c = {.node = node,
                    .attrs = node->attrs,
                    .n_in = node->n_in,
                    .n_out = node->n_out,
                    .in = in,
                    .out = out,
                    .arena = arena,
                    .dims = dims,
                    .diag = diag,
                    .limits = kiln_env_limits(env),
                    .body = body_concrete};
    return run_infer(&c);
}
