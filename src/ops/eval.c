/* eval.c - the reference interpreter: one node, one graph, one constant at a time. */
#include <string.h>

#include "base/env.h"
#include "ops/util.h"

kiln_status kiln_datum_type(const kiln_datum *datum, kiln_arena *arena, kiln_type *out) {
    *out = (kiln_type){.kind = datum->kind};
    if (datum->kind == KILN_KIND_SEQUENCE || datum->kind == KILN_KIND_OPTIONAL) {
        kiln_type *elem;
        KILN_ALLOC(elem, arena, 1);
        elem->kind = KILN_KIND_TENSOR;
        elem->rank = KILN_RANK_UNKNOWN;
        if (datum->n_items > 0) {
            elem->kind = datum->items[0].kind;
            elem->dtype = datum->items[0].tensor.dtype;
        }
        out->elem = elem;
        return KILN_OK;
    }
    if (datum->kind != KILN_KIND_TENSOR) {
        return KILN_OK;
    }
    const kiln_tensor *t = &datum->tensor;
    kiln_dim *dims;
    KILN_ALLOC(dims, arena, t->rank);
    for (int32_t i = 0; i < t->rank; i++) {
        dims[i] = t->dims[i];
    }
    *out = kiln_type_tensor(t->dtype, t->rank, dims);
    return KILN_OK;
}

kiln_status kiln_datum_fact(const kiln_datum *datum, kiln_arena *arena, kiln_fact *out) {
    memset(out, 0, sizeof *out);
    KILN_TRY(kiln_datum_type(datum, arena, &out->type));
    if (datum->kind != KILN_KIND_TENSOR) {
        return KILN_OK;
    }
    const kiln_tensor *t = &datum->tensor;
    out->data = t;
    int64_t n = kiln_tensor_count(t);
    if (n > KILN_MAX_CONTENTS || !(kiln_dtype_is_int(t->dtype) || t->dtype == KILN_DTYPE_BOOL)) {
        return KILN_OK;
    }
    kiln_dim *contents;
    KILN_ALLOC(contents, arena, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t e = kiln_get_i64(t->dtype, t->data, i);
        contents[i] = e < KILN_DIM_MIN ? KILN_DIM_MIN : e;
    }
    out->contents = contents;
    out->n_contents = n;
    return KILN_OK;
}

/* Values of the graph being run, by id - first_id, and the way to those of the graphs around it. */
typedef struct kiln_scope {
    const struct kiln_scope *outer;
    const kiln_graph *graph;
    kiln_datum **table;
    kiln_arena *arena;
    kiln_diag *diag;
} scope;

static kiln_status constant_datum(const kiln_value *v, kiln_datum *out, kiln_arena *arena,
                                  kiln_diag *diag) {
    memset(out, 0, sizeof *out);
    out->kind = KILN_KIND_TENSOR;
    return kiln_const_eval(v, &out->tensor, arena, diag);
}

static kiln_status lookup(const scope *self, const kiln_value *v, kiln_datum *out) {
    if (v->constant) {
        return constant_datum(v, out, self->arena, self->diag);
    }
    const scope *s = self;
    while (s && v->home != s->graph) {
        s = s->outer;
    }
    const kiln_datum *d = s ? s->table[v->id - s->graph->first_id] : NULL;
    if (!d) {
        return kiln_fail(self->diag, KILN_F_INTERNAL,
                         "value \"%s\" was used before it was computed", v->name);
    }
    *out = *d;
    return KILN_OK;
}

static kiln_status run_body(kiln_ref *self, const kiln_graph *body, const kiln_datum *inputs,
                            int32_t n_inputs, kiln_datum *outputs) {
    if ((size_t)n_inputs != body->n_inputs) {
        return kiln_fail(self->diag, KILN_F_ARITY,
                         "body \"%s\" takes %zu inputs, the operator gives %d", body->name,
                         body->n_inputs, n_inputs);
    }
    kiln_eval_options options = {
        .outer = self->driver, .seed = self->seed, .cancelled = self->cancelled};
    KILN_TRY(kiln_eval_graph(body, inputs, outputs, &options, self->arena, self->diag));
    kiln_diag_at_node(self->diag, self->node->name, self->node->op->name);
    return KILN_OK;
}

/* Allocates the outputs whose shapes infer knew; the others keep data == NULL. */
static kiln_status make_outputs(const kiln_node *node, const kiln_fact *facts, kiln_datum *out,
                                kiln_arena *arena) {
    for (int32_t i = 0; i < node->n_out; i++) {
        memset(&out[i], 0, sizeof out[i]);
        out[i].kind = facts[i].type.kind;
        kiln_tensor *t = &out[i].tensor;
        if (!kiln_type_to_tensor(&facts[i].type, t)) {
            t->dtype = facts[i].type.dtype;
            continue;
        }
        t->cap_bytes = kiln_tensor_bytes(t);
        t->data = kiln_arena_array(arena, t->cap_bytes, 1);
        if (!t->data) {
            return KILN_E_MEMORY;
        }
    }
    return KILN_OK;
}

kiln_status kiln_eval_node(const kiln_node *node, const kiln_datum *in, kiln_datum *out,
                           const kiln_hooks *hooks, kiln_arena *arena, kiln_diag *diag) {
    kiln_fact *facts;
    KILN_ALLOC(facts, arena, node->n_in + node->n_out);
    for (int32_t i = 0; i < node->n_in; i++) {
        KILN_TRY(kiln_datum_fact(&in[i], arena, &facts[i]));
    }
    kiln_dims dims;
    kiln_dims_init(&dims, arena);
    kiln_fact *out_facts = facts + node->n_in;
    KILN_TRY(kiln_infer_concrete(node, facts, out_facts, arena, &dims, arena->env, diag));
    KILN_TRY(make_outputs(node, out_facts, out, arena));
    kiln_ref c = {.node = node,
                  .attrs = node->attrs,
                  .n_in = node->n_in,
                  .n_out = node->n_out,
                  .in = in,
                  .out = out,
                  .facts = out_facts,
                  .arena = arena,
                  .diag = diag,
                  .limits = kiln_env_limits(arena->env),
                  .seed = hooks ? hooks->seed : 0,
                  .cancelled = hooks ? hooks->cancelled : NULL,
                  .body = hooks ? hooks->body : NULL,
                  .driver = hooks ? hooks->driver : NULL};
    kiln_diag_at_node(diag, node->name, node->op->name);
    KILN_TRY(hooks && hooks->instead ? hooks->instead(&c) : node->op->ref(&c));
    kiln_diag_at_node(diag, NULL, NULL);
    return KILN_OK;
}

static kiln_status store(scope *f, const kiln_value *v, const kiln_datum *d,
                         const kiln_eval_options *options) {
    kiln_datum *copy = kiln_arena_copy(f->arena, d, sizeof *d);
    if (!copy) {
        return KILN_E_MEMORY;
    }
    f->table[v->id - f->graph->first_id] = copy;
    return options && options->tap ? options->tap(options->tap_user, v, d) : KILN_OK;
}

static kiln_status eval_one(scope *f, const kiln_node *n, const kiln_eval_options *options) {
    kiln_datum *in, *out;
    KILN_ALLOC(in, f->arena, n->n_in + n->n_out);
    out = in + n->n_in;
    for (int32_t k = 0; k < n->n_in; k++) {
        if (n->in[k]) {
            KILN_TRY(lookup(f, n->in[k], &in[k]));
        }
    }
    kiln_hooks hooks = {.body = run_body, .driver = f};
    hooks.seed = (options ? options->seed : 0) + (uint64_t)n->id;
    hooks.cancelled = options ? options->cancelled : NULL;
    KILN_TRY(kiln_eval_node(n, in, out, &hooks, f->arena, f->diag));
    for (int32_t k = 0; k < n->n_out; k++) {
        KILN_TRY(store(f, n->out[k], &out[k], options));
    }
    return KILN_OK;
}

kiln_status kiln_eval_graph(const kiln_graph *graph, const kiln_datum *inputs, kiln_datum *outputs,
                            const kiln_eval_options *options, kiln_arena *arena, kiln_diag *diag) {
    scope f = {
        .outer = options ? options->outer : NULL, .graph = graph, .arena = arena, .diag = diag};
    KILN_ALLOC(f.table, arena, graph->end_id - graph->first_id);
    for (size_t i = 0; i < graph->n_inputs; i++) {
        KILN_TRY(store(&f, graph->inputs[i], &inputs[i], options));
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        KILN_TRY(eval_one(&f, graph->nodes[i], options));
    }
    for (size_t i = 0; i < graph->n_outputs; i++) {
        KILN_TRY(lookup(&f, graph->outputs[i], &outputs[i]));
    }
    return KILN_OK;
}

kiln_status kiln_const_eval(const kiln_value *value, kiln_tensor *out, kiln_arena *arena,
                            kiln_diag *diag) {
    const kiln_const *c = value->constant;
    if (!c->tensor.data && !c->expr) {
        return kiln_hint(diag,
                         kiln_fail(diag, KILN_F_SHAPE_OPEN,
                                   "constant \"%s\" is in this engine in packed form only",
                                   value->name),
                         "build with --portable to keep the source weights");
    }
    if (c->tensor.data) {
        *out = c->tensor;
        return KILN_OK;
    }
    const kiln_node *n = c->expr;
    kiln_datum *in, *results;
    KILN_ALLOC(in, arena, n->n_in + n->n_out);
    results = in + n->n_in;
    for (int32_t k = 0; k < n->n_in; k++) {
        if (n->in[k]) {
            KILN_TRY(constant_datum(n->in[k], &in[k], arena, diag));
        }
    }
    KILN_TRY(kiln_eval_node(n, in, results, NULL, arena, diag));
    *out = results[c->expr_out].tensor;
    return KILN_OK;
}
