/* split.c - a DequantizeLinear for each reader: see quantized.h. */
#include "build/quantized.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct splitter {
    kiln_graph *graph;
    kiln_node **nodes;
    size_t n_nodes, cap_nodes, n_added;
} splitter;

static kiln_status append(splitter *s, kiln_node *n) {
    KILN_PUSH(s->graph->arena, s->nodes, s->n_nodes, s->cap_nodes, n);
    return KILN_OK;
}

/* A node of v's own graph reads it, once or more. */
static bool reads(const kiln_node *n, const kiln_value *v) {
    bool beside = n->n_out > 0 && n->out[0]->home == v->home;
    for (int32_t k = 0; k < n->n_in && beside; k++) {
        if (n->in[k] == v) {
            return true;
        }
    }
    return false;
}

static kiln_status copy_for(splitter *s, kiln_node *d, kiln_node *reader) {
    kiln_node *copy;
    KILN_TRY(kiln_graph_detached(&copy, s->graph, d->op, NULL, d->in, d->n_in, 1));
    *(kiln_quant_attrs *)copy->attrs = *(const kiln_quant_attrs *)d->attrs;
    copy->precision = d->precision;
    copy->offset = d->offset;
    copy->out[0]->type = d->out[0]->type;
    KILN_TRY(kiln_node_add_sources(s->graph, copy, d));
    for (int32_t k = 0; k < reader->n_in; k++) {
        reader->in[k] = reader->in[k] == d->out[0] ? copy->out[0] : reader->in[k];
    }
    s->n_added++;
    return append(s, copy);
}

/* The first reader keeps the node, unless a graph output or a body does. */
static kiln_status split(splitter *s, kiln_node *d) {
    const kiln_value *v = d->out[0];
    const kiln_node *keeper = NULL;
    bool kept = v->n_outputs > 0;
    for (int32_t i = 0; i < v->n_users; i++) {
        kept = kept || !reads(v->users[i], v);
    }
    for (int32_t i = 0; i < v->n_users; i++) {
        kiln_node *reader = v->users[i];
        if (reader == keeper || !reads(reader, v)) {
            continue; /* a body's, or one that has its own already */
        }
        if (kept) {
            KILN_TRY(copy_for(s, d, reader));
        } else {
            keeper = reader;
            kept = true;
        }
    }
    return KILN_OK;
}

static kiln_status split_graph(kiln_graph *g, size_t *n_added) {
    splitter s = {.graph = g};
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_node *n = g->nodes[i];
        KILN_TRY(append(&s, n));
        if (n->op == &kiln_op_dequantize_linear && n->out[0]->n_users + n->out[0]->n_outputs > 1) {
            KILN_TRY(split(&s, n));
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            KILN_TRY(split_graph(n->bodies[b], n_added));
        }
    }
    *n_added += s.n_added;
    g->nodes = s.nodes;
    g->n_nodes = s.n_nodes;
    g->cap_nodes = s.cap_nodes;
    return KILN_OK;
}

kiln_status kiln_split_dequantize(kiln_graph *graph, size_t *n_nodes, kiln_diag *diag) {
    *n_nodes = 0;
    KILN_TRY(split_graph(graph, n_nodes));
    KILN_TRY(kiln_graph_index(graph));
    return kiln_infer_graph(graph, diag);
}
