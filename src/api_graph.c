/* api_graph.c - models built in memory, with the graph functions that the importer uses. */
#include <string.h>

#include "api.h"
#include "base/diag.h"
#include "base/env.h"
#include "kiln/graph.h"
#include "ops/ops.h"

struct kiln_builder {
    kiln_model *model; /* of the root */
    kiln_builder *parent;
    kiln_graph *graph;
    kiln_dims *dims;
    kiln_status status;  /* the root's: the first failure */
    kiln_value **values; /* the root's: by reference */
    size_t n_values, cap_values;
};

static kiln_builder *root_of(kiln_builder *b) {
    while (b->parent) {
        b = b->parent;
    }
    return b;
}

static kiln_status keep(kiln_builder *b, kiln_status status) {
    kiln_builder *root = root_of(b);
    if (root->status == KILN_OK) {
        root->status = status;
    }
    return status;
}

static kiln_arena *arena_of(kiln_builder *b) {
    return kiln_hold_arena(root_of(b)->model->hold);
}

static kiln_status start(kiln_builder *b, const kiln_env *env) {
    KILN_TRY(kiln_hold_new(&b->model->hold, env));
    kiln_arena *arena = kiln_hold_arena(b->model->hold);
    KILN_ALLOC(b->dims, arena, 1);
    kiln_dims_init(b->dims, arena);
    return kiln_graph_create(&b->graph, arena, b->dims, env, NULL, "graph");
}

kiln_status kiln_builder_create(kiln_builder **out, const kiln_env *env) {
    kiln_builder *b = kiln_env_alloc(env, sizeof *b);
    kiln_model *m = kiln_env_alloc(env, sizeof *m);
    if (!b || !m) {
        kiln_env_release(env, b, sizeof *b);
        kiln_env_release(env, m, sizeof *m);
        return KILN_E_MEMORY;
    }
    memset(b, 0, sizeof *b);
    memset(m, 0, sizeof *m);
    m->env = env;
    b->model = m;
    kiln_status status = start(b, env);
    if (status != KILN_OK) {
        kiln_builder_destroy(b);
        return status;
    }
    *out = b;
    return KILN_OK;
}

kiln_builder *kiln_builder_body(kiln_builder *parent, const char *name) {
    kiln_arena *arena = arena_of(parent);
    kiln_builder *b = kiln_arena_array(arena, 1, sizeof *b);
    if (!b || kiln_graph_create(&b->graph, arena, root_of(parent)->dims, arena->env, parent->graph,
                                name)) {
        keep(parent, KILN_E_MEMORY);
        return NULL;
    }
    b->parent = parent;
    return b;
}

void kiln_builder_destroy(kiln_builder *builder) {
    if (builder && !builder->parent) {
        const kiln_env *env = builder->model->env;
        kiln_model_destroy(builder->model);
        kiln_env_release(env, builder, sizeof *builder);
    }
}

/* ---- Values ---- */

static kiln_ref_value remember(kiln_builder *b, kiln_value *v) {
    kiln_builder *root = root_of(b);
    kiln_value **grown = kiln_arena_grow(arena_of(b), root->values, root->n_values,
                                         &root->cap_values, sizeof *grown);
    if (!grown || root->n_values >= INT32_MAX) {
        keep(b, KILN_E_MEMORY);
        return KILN_NO_VALUE;
    }
    root->values = grown;
    grown[root->n_values] = v;
    return (kiln_ref_value)root->n_values++;
}

static kiln_status find(kiln_builder *b, kiln_ref_value ref, kiln_value **out, kiln_diag *diag) {
    const kiln_builder *root = root_of(b);
    *out = NULL;
    if (ref == KILN_NO_VALUE) {
        return KILN_OK;
    }
    if (ref < 0 || (size_t)ref >= root->n_values) {
        return kiln_fail(diag, KILN_F_OPTION, "value %d is not one of this builder", ref);
    }
    *out = root->values[ref];
    return KILN_OK;
}

static kiln_status make_input(kiln_builder *b, const char *name, kiln_dtype dtype, int32_t rank,
                              const int64_t *dims, kiln_value **out, kiln_diag *diag) {
    if (rank > KILN_MAX_RANK || dtype <= KILN_DTYPE_NONE || dtype >= KILN_DTYPE_COUNT) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "input \"%s\": rank %d or element type %d is impossible", name, rank,
                         dtype);
    }
    kiln_dim *d;
    KILN_ALLOC(d, arena_of(b), rank > 0 ? rank : 0);
    for (int32_t i = 0; i < rank; i++) {
        const char *symbol = kiln_arena_printf(arena_of(b), "%s_d%d", name, i);
        if (!symbol) {
            return KILN_E_MEMORY;
        }
        d[i] = dims[i] >= 0 ? dims[i] : kiln_dim_symbol(root_of(b)->dims, symbol);
    }
    kiln_type type = kiln_type_tensor(dtype, rank < 0 ? KILN_RANK_UNKNOWN : rank, d);
    return kiln_graph_input(out, b->graph, name, &type);
}

kiln_ref_value kiln_builder_input(kiln_builder *builder, const char *name, kiln_dtype dtype,
                                  int32_t rank, const int64_t *dims, kiln_diag *diag) {
    kiln_value *v;
    if (root_of(builder)->status != KILN_OK ||
        keep(builder, make_input(builder, name, dtype, rank, dims, &v, diag)) != KILN_OK) {
        return KILN_NO_VALUE;
    }
    return remember(builder, v);
}

static kiln_status copy_tensor(kiln_builder *b, const kiln_tensor *t, kiln_tensor *out,
                               kiln_diag *diag) {
    size_t bytes = t->rank < 0 || t->rank > KILN_MAX_RANK || kiln_tensor_count(t) < 0
                       ? SIZE_MAX
                       : kiln_tensor_bytes(t);
    if (bytes == SIZE_MAX || !t->data || t->cap_bytes < bytes) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "a constant's dims are impossible or its buffer is too small");
    }
    *out = *t;
    out->cap_bytes = bytes;
    out->data = kiln_arena_copy(arena_of(b), t->data, bytes);
    return out->data ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status make_constant(kiln_builder *b, const char *name, const kiln_tensor *tensor,
                                 kiln_value **out, kiln_diag *diag) {
    kiln_tensor t;
    KILN_TRY(copy_tensor(b, tensor, &t, diag));
    return kiln_graph_constant(out, b->graph, name, &t);
}

kiln_ref_value kiln_builder_constant(kiln_builder *builder, const char *name,
                                     const kiln_tensor *tensor, kiln_diag *diag) {
    kiln_value *v;
    if (root_of(builder)->status != KILN_OK ||
        keep(builder, make_constant(builder, name, tensor, &v, diag)) != KILN_OK) {
        return KILN_NO_VALUE;
    }
    return remember(builder, v);
}

/* ---- Nodes ---- */

static const char *copy_text(kiln_builder *b, const char *s) {
    return s ? kiln_arena_text(arena_of(b), s, strlen(s)) : NULL;
}

static kiln_status set_enum(const kiln_attr *row, const char *word, void *field, kiln_diag *diag) {
    for (int32_t i = 0; row->words[i]; i++) {
        if (word && strcmp(row->words[i], word) == 0) {
            memcpy(field, &i, sizeof i);
            return KILN_OK;
        }
    }
    return kiln_fail(diag, KILN_F_ATTR_VALUE, "attribute \"%s\" cannot be \"%s\"", row->name,
                     word ? word : "");
}

static kiln_status set_list(kiln_builder *b, const void *src, size_t n, size_t item, const void **v,
                            int64_t *count) {
    *v = kiln_arena_copy(arena_of(b), src, n * item);
    *count = (int64_t)n;
    return *v ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status set_tensor(kiln_builder *b, const kiln_tensor *t, const kiln_tensor **field,
                              kiln_diag *diag) {
    kiln_tensor *copy;
    KILN_ALLOC(copy, arena_of(b), 1);
    KILN_TRY(copy_tensor(b, t, copy, diag));
    *field = copy;
    return KILN_OK;
}

/* The attribute kind that each kind of row takes. */
static kiln_attribute_kind kind_of(kiln_attr_kind kind) {
    static const kiln_attribute_kind kinds[] = {
        [KILN_ATTR_INT] = KILN_ATTRIBUTE_INT,        [KILN_ATTR_FLOAT] = KILN_ATTRIBUTE_FLOAT,
        [KILN_ATTR_STRING] = KILN_ATTRIBUTE_STRING,  [KILN_ATTR_ENUM] = KILN_ATTRIBUTE_STRING,
        [KILN_ATTR_INTS] = KILN_ATTRIBUTE_INTS,      [KILN_ATTR_FLOATS] = KILN_ATTRIBUTE_FLOATS,
        [KILN_ATTR_STRINGS] = KILN_ATTRIBUTE_STRING, [KILN_ATTR_TENSOR] = KILN_ATTRIBUTE_TENSOR,
        [KILN_ATTR_GRAPH] = KILN_ATTRIBUTE_GRAPH,
    };
    return kinds[kind];
}

static kiln_status set_attribute(kiln_builder *b, kiln_node *node, const kiln_attr *row,
                                 int32_t body, const kiln_attribute *a, kiln_diag *diag) {
    char *field = (char *)node->attrs + row->offset;
    switch (row->kind) {
    case KILN_ATTR_INT:
        memcpy(field, &a->i, sizeof a->i);
        return KILN_OK;
    case KILN_ATTR_FLOAT:
        memcpy(field, &a->f, sizeof a->f);
        return KILN_OK;
    case KILN_ATTR_STRING: {
        const char *s = copy_text(b, a->s);
        memcpy(field, &s, sizeof s);
        return s ? KILN_OK : KILN_E_MEMORY;
    }
    case KILN_ATTR_ENUM:
        return set_enum(row, a->s, field, diag);
    case KILN_ATTR_INTS: {
        kiln_ints *v = (void *)field;
        return set_list(b, a->ints, a->n, sizeof *v->v, (const void **)&v->v, &v->n);
    }
    case KILN_ATTR_FLOATS: {
        kiln_floats *v = (void *)field;
        return set_list(b, a->floats, a->n, sizeof *v->v, (const void **)&v->v, &v->n);
    }
    case KILN_ATTR_TENSOR:
        return set_tensor(b, a->t, (const kiln_tensor **)(void *)field, diag);
    case KILN_ATTR_GRAPH:
        node->bodies[body] = a->graph ? a->graph->graph : NULL;
        return KILN_OK;
    default:
        return kiln_fail(diag, KILN_F_ATTRIBUTE, "attribute \"%s\" cannot be set by the builder",
                         row->name);
    }
}

static kiln_status set_attributes(kiln_builder *b, kiln_node *node, const kiln_attribute *a,
                                  size_t n, kiln_diag *diag) {
    for (size_t k = 0; k < n; k++) {
        const kiln_attr *row = NULL;
        int32_t body = 0;
        for (uint16_t i = 0; i < node->op->n_attrs && !row; i++) {
            row = strcmp(node->op->attrs[i].name, a[k].name) == 0 ? &node->op->attrs[i] : NULL;
            body += !row && node->op->attrs[i].kind == KILN_ATTR_GRAPH;
        }
        if (!row || kind_of(row->kind) != a[k].kind) {
            return kiln_fail(diag, KILN_F_ATTRIBUTE,
                             "attribute \"%s\" is unknown or of the wrong kind", a[k].name);
        }
        KILN_TRY(set_attribute(b, node, row, body, &a[k], diag));
    }
    return KILN_OK;
}

static kiln_status make_node(kiln_builder *b, const char *domain, const char *op_name,
                             const kiln_ref_value *in, size_t n_in,
                             const kiln_attribute *attributes, size_t n_attributes, size_t n_out,
                             kiln_node **out, kiln_diag *diag) {
    const kiln_op *op = kiln_op_find(domain ? domain : "", op_name);
    if (!op) {
        return kiln_fail(diag, KILN_F_OP_UNKNOWN, "operator %s of domain \"%s\" is not supported",
                         op_name, domain ? domain : "");
    }
    kiln_value **values;
    KILN_ALLOC(values, arena_of(b), n_in);
    for (size_t i = 0; i < n_in; i++) {
        KILN_TRY(find(b, in[i], &values[i], diag));
    }
    KILN_TRY(kiln_graph_detached(out, b->graph, op, NULL, values, (int32_t)n_in, (int32_t)n_out));
    kiln_diag_at_node(diag, (*out)->name, op->name);
    KILN_TRY(set_attributes(b, *out, attributes, n_attributes, diag));
    kiln_diag_at_node(diag, NULL, NULL);
    KILN_ALLOC((*out)->sources, arena_of(b), 1);
    (*out)->sources[0] = (*out)->name;
    (*out)->n_sources = 1;
    return kiln_graph_append(b->graph, *out);
}

kiln_status kiln_builder_nodes(kiln_builder *builder, const char *domain, const char *op,
                               const kiln_ref_value *inputs, size_t n_inputs,
                               const kiln_attribute *attributes, size_t n_attributes,
                               kiln_ref_value *outputs, size_t n_outputs, kiln_diag *diag) {
    kiln_node *node;
    for (size_t i = 0; i < n_outputs; i++) {
        outputs[i] = KILN_NO_VALUE;
    }
    KILN_TRY(root_of(builder)->status);
    kiln_status status = make_node(builder, domain, op, inputs, n_inputs, attributes, n_attributes,
                                   n_outputs, &node, diag);
    KILN_TRY(keep(builder, kiln_diag_close(diag, status)));
    for (size_t i = 0; i < n_outputs; i++) {
        outputs[i] = remember(builder, node->out[i]);
    }
    return root_of(builder)->status;
}

kiln_ref_value kiln_builder_node(kiln_builder *builder, const char *domain, const char *op,
                                 const kiln_ref_value *inputs, size_t n_inputs,
                                 const kiln_attribute *attributes, size_t n_attributes,
                                 kiln_diag *diag) {
    kiln_ref_value out = KILN_NO_VALUE;
    (void)kiln_builder_nodes(builder, domain, op, inputs, n_inputs, attributes, n_attributes, &out,
                             1, diag);
    return out;
}

static kiln_status add_output(kiln_builder *b, kiln_ref_value value, const char *name,
                              kiln_diag *diag) {
    kiln_value *v;
    KILN_TRY(find(b, value, &v, diag));
    if (!v) {
        return kiln_fail(diag, KILN_F_OPTION, "output \"%s\" has no value", name);
    }
    v->name = copy_text(b, name);
    if (!v->name) {
        return KILN_E_MEMORY;
    }
    return kiln_graph_output(b->graph, v);
}

kiln_status kiln_builder_output(kiln_builder *builder, kiln_ref_value value, const char *name,
                                kiln_diag *diag) {
    KILN_TRY(root_of(builder)->status);
    return keep(builder, add_output(builder, value, name, diag));
}

static kiln_status finish(kiln_builder *b, kiln_diag *diag) {
    KILN_TRY(b->status);
    KILN_TRY(kiln_graph_sort(b->graph, diag));
    KILN_TRY(kiln_graph_verify(b->graph, diag));
    b->model->import =
        (kiln_import){.graph = b->graph, .producer = "", .graph_name = b->graph->name};
    return kiln_model_complete(b->model, diag);
}

kiln_status kiln_builder_finish(kiln_model **out, kiln_builder *builder, kiln_diag *diag) {
    kiln_status status = finish(builder, diag);
    if (status == KILN_OK) {
        *out = builder->model;
        kiln_env_release(builder->model->env, builder, sizeof *builder);
    } else {
        kiln_builder_destroy(builder);
    }
    return kiln_diag_close(diag, status);
}
