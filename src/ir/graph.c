#include "ir/graph.h"

#include <stdlib.h>
#include <string.h>

kiln_status kiln_graph_create(kiln_graph **out, kiln_arena *arena, kiln_dims *dims,
                              const kiln_env *env, kiln_graph *parent, const char *name) {
    kiln_graph *g;
    KILN_ALLOC(g, arena, 1);
    g->arena = arena;
    g->dims = dims;
    g->env = env;
    g->parent = parent;
    g->name = kiln_arena_text(arena, name ? name : "", name ? strlen(name) : 0);
    if (!g->name) {
        return KILN_E_MEMORY;
    }
    *out = g;
    return KILN_OK;
}

const char *kiln_graph_fresh_name(kiln_graph *graph, const char *prefix) {
    /* One counter per model, on the root, so that names stay unique over bodies too. */
    kiln_graph *root = graph;
    while (root->parent) {
        root = root->parent;
    }
    return kiln_arena_printf(graph->arena, "%s~%u", prefix, ++root->next_name);
}

kiln_status kiln_graph_value(kiln_value **out, kiln_graph *graph, const char *name) {
    kiln_value *v;
    KILN_ALLOC(v, graph->arena, 1);
    v->name = name ? kiln_arena_text(graph->arena, name, strlen(name))
                   : kiln_graph_fresh_name(graph, "v");
    if (!v->name) {
        return KILN_E_MEMORY;
    }
    v->offset = -1;
    v->id = -1;
    *out = v;
    return KILN_OK;
}

static kiln_status copy_type(kiln_arena *arena, const kiln_type *src, kiln_type *dst) {
    *dst = *src;
    if (src->kind == KILN_KIND_TENSOR && src->rank > 0) {
        dst->dims = kiln_arena_copy(arena, src->dims, (size_t)src->rank * sizeof *src->dims);
        return dst->dims ? KILN_OK : KILN_E_MEMORY;
    }
    if (src->elem) {
        kiln_type *elem;
        KILN_ALLOC(elem, arena, 1);
        dst->elem = elem;
        return copy_type(arena, src->elem, elem);
    }
    return KILN_OK;
}

kiln_status kiln_graph_input(kiln_value **out, kiln_graph *graph, const char *name,
                             const kiln_type *type) {
    kiln_value *v;
    KILN_TRY(kiln_graph_value(&v, graph, name));
    KILN_TRY(copy_type(graph->arena, type, &v->type));
    KILN_PUSH(graph->arena, graph->inputs, graph->n_inputs, graph->cap_inputs, v);
    *out = v;
    return KILN_OK;
}

kiln_status kiln_graph_output(kiln_graph *graph, kiln_value *value) {
    KILN_PUSH(graph->arena, graph->outputs, graph->n_outputs, graph->cap_outputs, value);
    return KILN_OK;
}

kiln_status kiln_graph_constant(kiln_value **out, kiln_graph *graph, const char *name,
                                const kiln_tensor *tensor) {
    kiln_value *v;
    KILN_TRY(kiln_graph_value(&v, graph, name));
    KILN_ALLOC(v->constant, graph->arena, 1);
    v->constant->tensor = *tensor;
    kiln_dim *dims;
    KILN_ALLOC(dims, graph->arena, tensor->rank);
    for (int32_t i = 0; i < tensor->rank; i++) {
        dims[i] = tensor->dims[i];
    }
    v->type = kiln_type_tensor(tensor->dtype, tensor->rank, dims);
    *out = v;
    return KILN_OK;
}

kiln_status kiln_graph_ints(kiln_value **out, kiln_graph *graph, const int64_t *v, int64_t n) {
    size_t bytes = (size_t)n * sizeof *v;
    kiln_tensor t = {.dtype = KILN_DTYPE_I64, .rank = 1, .dims = {n}, .cap_bytes = bytes};
    t.data = kiln_arena_copy(graph->arena, v, bytes);
    if (!t.data) {
        return KILN_E_MEMORY;
    }
    return kiln_graph_constant(out, graph, NULL, &t);
}

kiln_status kiln_graph_scalar(kiln_value **out, kiln_graph *graph, float v) {
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 0, .cap_bytes = sizeof v};
    t.data = kiln_arena_copy(graph->arena, &v, sizeof v);
    if (!t.data) {
        return KILN_E_MEMORY;
    }
    return kiln_graph_constant(out, graph, NULL, &t);
}

/* Writes row's default into its field of the zeroed attribute struct. */
static void set_default(const kiln_attr *row, char *field) {
    int32_t word = (int32_t)row->int_default;
    switch (row->kind) {
    case KILN_ATTR_INT:
        memcpy(field, &row->int_default, sizeof row->int_default);
        break;
    case KILN_ATTR_FLOAT:
        memcpy(field, &row->float_default, sizeof row->float_default);
        break;
    case KILN_ATTR_STRING:
        memcpy(field, &row->string_default, sizeof row->string_default);
        break;
    case KILN_ATTR_ENUM:
        memcpy(field, &word, sizeof word);
        break;
    default:
        break;
    }
}

void kiln_node_default_attrs(kiln_node *node) {
    for (uint16_t i = 0; i < node->op->n_attrs; i++) {
        const kiln_attr *row = &node->op->attrs[i];
        set_default(row, (char *)node->attrs + row->offset);
    }
}

static int32_t count_bodies(const kiln_op *op) {
    int32_t n = 0;
    for (uint16_t i = 0; i < op->n_attrs; i++) {
        n += op->attrs[i].kind == KILN_ATTR_GRAPH;
    }
    return n;
}

kiln_status kiln_graph_detached(kiln_node **out, kiln_graph *graph, const kiln_op *op,
                                const char *name, kiln_value *const *in, int32_t n_in,
                                int32_t n_out) {
    kiln_node *n;
    KILN_ALLOC(n, graph->arena, 1);
    n->op = op;
    n->offset = -1;
    n->name = name ? kiln_arena_text(graph->arena, name, strlen(name))
                   : kiln_graph_fresh_name(graph, op->name);
    if (!n->name) {
        return KILN_E_MEMORY;
    }
    n->attrs = kiln_arena_array(graph->arena, 1, op->attrs_bytes);
    if (!n->attrs) {
        return KILN_E_MEMORY;
    }
    kiln_node_default_attrs(n);
    KILN_ALLOC(n->in, graph->arena, n_in);
    for (int32_t i = 0; i < n_in; i++) {
        n->in[i] = in[i];
    }
    n->n_in = n_in;
    KILN_ALLOC(n->out, graph->arena, n_out);
    n->n_out = n_out;
    for (int32_t i = 0; i < n_out; i++) {
        KILN_TRY(kiln_graph_value(&n->out[i], graph, NULL));
    }
    n->n_bodies = count_bodies(op);
    KILN_ALLOC(n->bodies, graph->arena, n->n_bodies);
    *out = n;
    return KILN_OK;
}

kiln_status kiln_graph_append(kiln_graph *graph, kiln_node *node) {
    KILN_PUSH(graph->arena, graph->nodes, graph->n_nodes, graph->cap_nodes, node);
    return KILN_OK;
}

kiln_status kiln_graph_node(kiln_node **out, kiln_graph *graph, const kiln_op *op, const char *name,
                            kiln_value *const *in, int32_t n_in, int32_t n_out) {
    KILN_TRY(kiln_graph_detached(out, graph, op, name, in, n_in, n_out));
    return kiln_graph_append(graph, *out);
}

kiln_status kiln_node_add_sources(kiln_graph *graph, kiln_node *node, const kiln_node *from) {
    const char **merged;
    int32_t n = node->n_sources;
    KILN_ALLOC(merged, graph->arena, n + from->n_sources);
    for (int32_t i = 0; i < n; i++) {
        merged[i] = node->sources[i];
    }
    for (int32_t i = 0; i < from->n_sources; i++) {
        bool have = false;
        for (int32_t k = 0; k < n && !have; k++) {
            have = merged[k] == from->sources[i] || strcmp(merged[k], from->sources[i]) == 0;
        }
        if (!have) {
            merged[n++] = from->sources[i];
        }
    }
    node->sources = merged;
    node->n_sources = n;
    return KILN_OK;
}

size_t kiln_graph_count(const kiln_graph *graph) {
    size_t n = graph->n_nodes;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const kiln_node *node = graph->nodes[i];
        for (int32_t b = 0; b < node->n_bodies; b++) {
            n += kiln_graph_count(node->bodies[b]);
        }
    }
    return n;
}
