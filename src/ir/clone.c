/* clone.c - a deep copy of a graph. Attribute values (strings, lists, tensors) are immutable and
 * shared; so are constants' bytes. Dims are translated from one table to the other. */
#include <string.h>

#include "ir/graph.h"

typedef struct cloner {
    kiln_arena *arena;
    kiln_dims *dims;
    const kiln_dims *from_dims;
    kiln_dim *dim_map; /* per entry of from_dims */
    kiln_value **map;  /* per value id */
    const kiln_env *env;
} cloner;

static kiln_dim map_dim(const cloner *c, kiln_dim d) {
    const kiln_dim_entry *e = kiln_dim_get(c->from_dims, d);
    return e ? c->dim_map[e - c->from_dims->entries] : d;
}

/* Entries refer to earlier ones only. */
static kiln_status map_dims(cloner *c) {
    KILN_ALLOC(c->dim_map, c->arena, c->from_dims->count);
    for (size_t i = 0; i < c->from_dims->count; i++) {
        const kiln_dim_entry *e = &c->from_dims->entries[i];
        kiln_dim a = map_dim(c, e->a), b = map_dim(c, e->b);
        switch (e->kind) {
        case KILN_DIM_SYMBOL:
            c->dim_map[i] = kiln_dim_symbol(c->dims, e->name);
            break;
        case KILN_DIM_FOUND:
            c->dim_map[i] = kiln_dim_found(c->dims, a);
            break;
        case KILN_DIM_ADD:
            c->dim_map[i] = kiln_dim_add(c->dims, a, b);
            break;
        case KILN_DIM_SUB:
            c->dim_map[i] = kiln_dim_sub(c->dims, a, b);
            break;
        case KILN_DIM_MUL:
            c->dim_map[i] = kiln_dim_mul(c->dims, a, b);
            break;
        case KILN_DIM_DIV:
            c->dim_map[i] = kiln_dim_div(c->dims, a, b);
            break;
        case KILN_DIM_LOWER:
            c->dim_map[i] = kiln_dim_min(c->dims, a, b);
            break;
        case KILN_DIM_UPPER:
            c->dim_map[i] = kiln_dim_max(c->dims, a, b);
            break;
        }
    }
    return KILN_OK;
}

static kiln_status copy_dims(const cloner *c, const kiln_dim *src, int64_t n,
                             const kiln_dim **out) {
    kiln_dim *dims;
    KILN_ALLOC(dims, c->arena, n);
    for (int64_t i = 0; i < n; i++) {
        dims[i] = map_dim(c, src[i]);
    }
    *out = dims;
    return KILN_OK;
}

static kiln_status copy_type(const cloner *c, const kiln_type *src, kiln_type *dst) {
    *dst = *src;
    if (src->kind == KILN_KIND_TENSOR && src->rank >= 0) {
        return copy_dims(c, src->dims, src->rank, &dst->dims);
    }
    if (src->elem) {
        kiln_type *elem;
        KILN_ALLOC(elem, c->arena, 1);
        dst->elem = elem;
        return copy_type(c, src->elem, elem);
    }
    return KILN_OK;
}

static kiln_status clone_node(cloner *c, kiln_graph *g, const kiln_node *src, kiln_node **out);

static kiln_status clone_value(cloner *c, kiln_graph *g, kiln_value *src, kiln_value **out) {
    if (!src) {
        *out = NULL;
        return KILN_OK;
    }
    if (c->map[src->id]) {
        *out = c->map[src->id];
        return KILN_OK;
    }
    kiln_value *v;
    KILN_TRY(kiln_graph_value(&v, g, src->name));
    c->map[src->id] = v;
    v->offset = src->offset;
    KILN_TRY(copy_type(c, &src->type, &v->type));
    if (src->contents) {
        KILN_TRY(copy_dims(c, src->contents, src->n_contents, &v->contents));
        v->n_contents = src->n_contents;
    }
    if (src->constant) {
        v->constant = kiln_arena_copy(c->arena, src->constant, sizeof *src->constant);
        if (!v->constant) {
            return KILN_E_MEMORY;
        }
    }
    *out = v;
    return KILN_OK;
}

static kiln_status clone_list(cloner *c, kiln_graph *g, kiln_value *const *src, size_t n,
                              kiln_value ***out) {
    KILN_ALLOC(*out, c->arena, n);
    for (size_t i = 0; i < n; i++) {
        KILN_TRY(clone_value(c, g, src[i], &(*out)[i]));
    }
    return KILN_OK;
}

static kiln_status clone_graph(cloner *c, kiln_graph *parent, const kiln_graph *src,
                               kiln_graph **out) {
    kiln_graph *g;
    KILN_TRY(kiln_graph_create(&g, c->arena, c->dims, c->env, parent, src->name));
    KILN_TRY(clone_list(c, g, src->inputs, src->n_inputs, &g->inputs));
    g->n_inputs = g->cap_inputs = src->n_inputs;
    KILN_ALLOC(g->nodes, c->arena, src->n_nodes);
    g->cap_nodes = src->n_nodes;
    for (size_t i = 0; i < src->n_nodes; i++) {
        KILN_TRY(clone_node(c, g, src->nodes[i], &g->nodes[i]));
        g->n_nodes = i + 1;
    }
    KILN_TRY(clone_list(c, g, src->outputs, src->n_outputs, &g->outputs));
    g->n_outputs = g->cap_outputs = src->n_outputs;
    g->next_name = src->next_name;
    *out = g;
    return KILN_OK;
}

static kiln_status clone_node(cloner *c, kiln_graph *g, const kiln_node *src, kiln_node **out) {
    kiln_node *n = kiln_arena_copy(c->arena, src, sizeof *src);
    if (!n) {
        return KILN_E_MEMORY;
    }
    n->attrs = kiln_arena_copy(c->arena, src->attrs, src->op->attrs_bytes);
    n->name = kiln_arena_text(c->arena, src->name, strlen(src->name));
    if (!n->attrs || !n->name) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(clone_list(c, g, src->in, (size_t)src->n_in, &n->in));
    KILN_TRY(clone_list(c, g, src->out, (size_t)src->n_out, &n->out));
    KILN_ALLOC(n->bodies, c->arena, src->n_bodies);
    for (int32_t b = 0; b < src->n_bodies; b++) {
        KILN_TRY(clone_graph(c, g, src->bodies[b], &n->bodies[b]));
    }
    *out = n;
    return KILN_OK;
}

kiln_status kiln_graph_clone(kiln_graph **out, const kiln_graph *graph, kiln_arena *arena,
                             kiln_dims *dims, const kiln_env *env) {
    cloner c = {.arena = arena, .dims = dims, .from_dims = graph->dims, .env = env};
    KILN_ALLOC(c.map, arena, graph->n_values);
    KILN_TRY(map_dims(&c));
    KILN_TRY(clone_graph(&c, NULL, graph, out));
    return kiln_graph_index(*out);
}
