#include "quant/rewrite.h"

#include "base/diag.h"
#include "ops/attrs.h"
#include "ops/ops.h"

kiln_status kiln_rewrite_append(kiln_rewrite *r, kiln_node *node) {
    KILN_PUSH(r->graph->arena, r->nodes, r->n_nodes, r->cap_nodes, node);
    return KILN_OK;
}

kiln_status kiln_rewrite_name(kiln_rewrite *r, kiln_value *v, const char *from, const char *what) {
    const char *prefix = kiln_arena_printf(&r->scratch, "%s_%s", from, what);
    v->name = prefix ? kiln_graph_fresh_name(r->graph, prefix) : NULL;
    return v->name ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_rewrite_node(kiln_rewrite *r, kiln_node **out, const kiln_op *op,
                              kiln_value *const *in, int32_t n_in, int32_t n_out, const char *from,
                              const char *what, const kiln_node *source) {
    kiln_node *n;
    KILN_TRY(kiln_graph_detached(&n, r->graph, op, NULL, in, n_in, n_out));
    KILN_TRY(kiln_rewrite_name(r, n->out[0], from, what));
    n->name = n->out[0]->name;
    if (source) {
        KILN_TRY(kiln_node_add_sources(r->graph, n, source));
    }
    *out = n;
    return kiln_rewrite_append(r, n);
}

kiln_status kiln_rewrite_constant(kiln_rewrite *r, kiln_value **out, const kiln_tensor *tensor,
                                  const char *from, const char *what) {
    KILN_TRY(kiln_graph_constant(out, r->graph, NULL, tensor));
    return kiln_rewrite_name(r, *out, from, what);
}

kiln_status kiln_rewrite_dequantize(kiln_rewrite *r, kiln_value **out, const kiln_weight *w,
                                    int32_t axis, const char *name, const kiln_node *source) {
    kiln_value *in[3];
    kiln_node *n;
    KILN_TRY(kiln_graph_constant(&in[0], r->graph, NULL, &w->data));
    KILN_TRY(kiln_graph_constant(&in[1], r->graph, NULL, &w->scale));
    KILN_TRY(kiln_graph_constant(&in[2], r->graph, NULL, &w->zero));
    KILN_TRY(kiln_rewrite_name(r, in[0], name, "quantized"));
    KILN_TRY(kiln_rewrite_name(r, in[1], name, "scale"));
    KILN_TRY(kiln_rewrite_name(r, in[2], name, "zero_point"));
    KILN_TRY(kiln_rewrite_node(r, &n, &kiln_op_dequantize_linear, in, 3, 1, name, "dequantized",
                               source));
    ((kiln_quant_attrs *)n->attrs)->axis = axis < 0 ? 0 : axis;
    *out = n->out[0];
    return KILN_OK;
}

kiln_status kiln_rewrite_weight(kiln_rewrite *r, kiln_weight *out, const kiln_weight_job *job,
                                const kiln_node *node) {
    kiln_diag_at_node(r->diag, node->name, node->op->name);
    KILN_TRY(kiln_weight_quantize(out, job, r->graph->arena, r->graph->env, r->diag));
    kiln_diag_at_node(r->diag, NULL, NULL);
    return KILN_OK;
}

kiln_status kiln_rewrite_weight_of(kiln_rewrite *r, kiln_value **out, const kiln_weight_job *job,
                                   const kiln_node *node) {
    kiln_weight made;
    *out = kiln_weight_find(&r->cache, job);
    if (*out) {
        return KILN_OK;
    }
    KILN_TRY(kiln_rewrite_weight(r, &made, job, node));
    KILN_TRY(kiln_rewrite_dequantize(r, out, &made, job->axis, job->weight->name, node));
    return kiln_weight_keep(&r->cache, job, *out, &r->scratch);
}

void kiln_rewrite_take(kiln_rewrite *r) {
    kiln_graph *g = r->graph;
    g->nodes = r->nodes;
    g->n_nodes = r->n_nodes;
    g->cap_nodes = r->cap_nodes;
}

kiln_status kiln_rewrite_finish(kiln_rewrite *r) {
    kiln_graph *g = r->graph;
    kiln_rewrite_take(r);
    KILN_TRY(kiln_graph_sort(g, r->diag));
    KILN_TRY(kiln_graph_verify(g, r->diag));
    return kiln_infer_graph(g, r->diag);
}
