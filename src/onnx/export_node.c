/* export_node.c - nodes, attributes and types in ONNX's bytes. */
#include <string.h>

#include "onnx/export.h"
#include "onnx/proto.h"
#include "ops/util.h"

/* Operators newer than the oldest operator set we write (attr NULL), and attributes that later
 * versions added to operators they had: the set must be at least this. */
static const struct {
    const char *op, *attr;
    int64_t since;
} demands[] = {
    {"Attention", "left_window_size", 25},
    {"Attention", "right_window_size", 25},
    {"BitCast", NULL, 26},
    {"Cast", "round_mode", 24},
    {"CastLike", "round_mode", 24},
    {"CausalConvWithState", NULL, 27},
    {"CumProd", NULL, 26},
    {"LinearAttention", NULL, 27},
    {"Range", "stash_type", 27},
    {"SpaceToDepth", "mode", 28},
    {"SwiGLU", NULL, 28},
    {"Swish", NULL, 24},
    {"TensorScatter", NULL, 24},
};
/* Element types that later versions added to operators they had. */
#define NARROW_FLOATS                                                                             \
    (KILN_T(BF16) | KILN_T(F8E4M3FN) | KILN_T(F8E4M3FNUZ) | KILN_T(F8E5M2) | KILN_T(F8E5M2FNUZ) | \
     KILN_T(I4) | KILN_T(U4))
static const struct {
    const char *op;
    uint32_t dtypes;
    int64_t since;
} typed_demands[] = {
    {"BitShift", KILN_T_SINT, 28},
    {"Celu", KILN_T_FLOAT & ~KILN_T(F32), 28},
    {"Compress", KILN_T(BF16), 28},
    {"Einsum", KILN_T(BF16), 28},
    {"OneHot", KILN_T(BF16), 28},
    {"Optional", NARROW_FLOATS, 28},
    {"OptionalGetElement", NARROW_FLOATS, 28},
    {"OptionalHasElement", NARROW_FLOATS, 28},
    {"Range", KILN_T(F16) | KILN_T(BF16), 27},
    {"ReverseSequence", KILN_T(BF16), 28},
    {"SplitToSequence", KILN_T(BF16), 24},
    {"TopK", KILN_T(BF16), 24},
    {"Unique", KILN_T(BF16), 28},
};

enum { FIRST_OPSET = 23, ATTENTION_NONPAD_INPUT = 6, ATTENTION_NONPAD_SINCE = 24 };

static void demand(kiln_exporter *x, int64_t opset) {
    x->opset = opset > x->opset ? opset : x->opset;
}

static void demand_dtype(kiln_exporter *x, kiln_dtype dtype) {
    demand(x, dtype == KILN_DTYPE_F8E8M0                         ? 24
              : dtype == KILN_DTYPE_U2 || dtype == KILN_DTYPE_I2 ? 25
                                                                 : FIRST_OPSET);
}

/* What an operator (attr NULL) or one of its attributes asks for. */
static void demand_form(kiln_exporter *x, const kiln_op *op, const char *attr) {
    for (size_t i = 0; i < KILN_COUNT_OF(demands); i++) {
        const char *given = demands[i].attr;
        bool same = given && attr ? strcmp(given, attr) == 0 : given == attr;
        if (same && strcmp(demands[i].op, op->name) == 0) {
            demand(x, demands[i].since);
        }
    }
}

/* What the element types of a node's edges ask for. */
static void demand_types(kiln_exporter *x, const kiln_node *node, const kiln_value *v) {
    if (!v || v->type.kind == KILN_KIND_NONE) {
        return;
    }
    const kiln_type *t = &v->type;
    while (t->elem) {
        t = t->elem;
    }
    demand_dtype(x, t->dtype);
    for (size_t i = 0; i < KILN_COUNT_OF(typed_demands); i++) {
        bool has = (typed_demands[i].dtypes >> t->dtype & 1) != 0;
        if (has && strcmp(typed_demands[i].op, node->op->name) == 0) {
            demand(x, typed_demands[i].since);
        }
    }
}

/* ---- Types ---- */

static kiln_status put_dims(kiln_exporter *x, const kiln_type *type, kiln_out *out) {
    size_t shape = kiln_out_begin(out, 2);
    for (int32_t i = 0; i < type->rank; i++) {
        size_t dim = kiln_out_begin(out, KILN_PB_SHAPE_DIM);
        kiln_dim d = type->dims[i];
        if (kiln_dim_known(d)) {
            kiln_out_varint(out, KILN_PB_DIM_VALUE, (uint64_t)d);
        } else if (d != KILN_DIM_UNKNOWN) {
            const char *text = kiln_dim_text(x->graph->dims, d, x->arena);
            if (!text) {
                return KILN_E_MEMORY;
            }
            kiln_out_text(out, KILN_PB_DIM_PARAM, text);
        }
        kiln_out_end(out, dim);
    }
    kiln_out_end(out, shape);
    return KILN_OK;
}

/* Fields of a TypeProto; the types of an operator's values nest a few deep at most. */
static kiln_status put_type(kiln_exporter *x, const kiln_type *type, kiln_out *out) {
    static const uint32_t fields[] = {
        [KILN_KIND_TENSOR] = 1, [KILN_KIND_SEQUENCE] = 4, [KILN_KIND_OPTIONAL] = 9};
    size_t begin = kiln_out_begin(out, fields[type->kind]);
    if (type->kind == KILN_KIND_TENSOR) {
        demand_dtype(x, type->dtype);
        kiln_out_varint(out, 1, (uint64_t)type->dtype);
        if (type->rank != KILN_RANK_UNKNOWN) {
            KILN_TRY(put_dims(x, type, out));
        }
    } else if (type->elem && type->elem->kind != KILN_KIND_NONE) {
        size_t elem = kiln_out_begin(out, 1);
        KILN_TRY(put_type(x, type->elem, out));
        kiln_out_end(out, elem);
    }
    kiln_out_end(out, begin);
    return KILN_OK;
}

static kiln_status put_value_info(kiln_exporter *x, uint32_t field, const char *name,
                                  const kiln_type *type, kiln_out *out) {
    size_t info = kiln_out_begin(out, field);
    kiln_out_text(out, 1, name);
    if (type->kind != KILN_KIND_NONE) {
        size_t begin = kiln_out_begin(out, 2);
        KILN_TRY(put_type(x, type, out));
        kiln_out_end(out, begin);
    }
    kiln_out_end(out, info);
    return KILN_OK;
}

/* ---- Attributes ---- */

static void put_attr_head(kiln_out *out, const char *name, kiln_pb_attr_type type) {
    kiln_out_text(out, 1, name);
    kiln_out_varint(out, 20, (uint64_t)type);
}

/* A type spelled "optional(seq(tensor(float)))" as the TypeProto it came from; true on success. */
static kiln_status put_spelled_type(kiln_exporter *x, const char *text, kiln_out *out) {
    static const struct {
        const char *head;
        kiln_kind kind;
    } heads[] = {{"tensor(", KILN_KIND_TENSOR},
                 {"seq(", KILN_KIND_SEQUENCE},
                 {"optional(", KILN_KIND_OPTIONAL}};
    kiln_type types[4];
    memset(types, 0, sizeof types);
    for (size_t depth = 0; depth < KILN_COUNT_OF(types); depth++) {
        kiln_type *t = &types[depth];
        for (size_t i = 0; i < KILN_COUNT_OF(heads) && t->kind == KILN_KIND_NONE; i++) {
            size_t n = strlen(heads[i].head);
            if (strncmp(text, heads[i].head, n) == 0) {
                t->kind = heads[i].kind;
                text += n;
            }
        }
        t->rank = KILN_RANK_UNKNOWN;
        if (t->kind == KILN_KIND_TENSOR) {
            const char *name = kiln_arena_text(x->arena, text, strcspn(text, ")"));
            t->dtype = name ? kiln_dtype_parse(name) : KILN_DTYPE_NONE;
            return put_type(x, &types[0], out);
        }
        if (t->kind == KILN_KIND_NONE || depth + 1 == KILN_COUNT_OF(types)) {
            break;
        }
        t->elem = t + 1;
    }
    return kiln_fail(x->diag, KILN_F_ATTR_VALUE, "a type attribute cannot be written");
}

static kiln_status put_text_attr(kiln_exporter *x, const kiln_op *op, const kiln_attr *row,
                                 const char *text, kiln_out *out) {
    if (strcmp(op->name, "Optional") == 0) {
        put_attr_head(out, row->name, KILN_PB_TYPE_PROTO);
        size_t begin = kiln_out_begin(out, 14);
        KILN_TRY(put_spelled_type(x, text, out));
        kiln_out_end(out, begin);
        return KILN_OK;
    }
    put_attr_head(out, row->name, KILN_PB_STRING);
    kiln_out_text(out, KILN_PB_ATTRIBUTE_S, text);
    return KILN_OK;
}

static void put_list_attr(const kiln_attr *row, const void *field, kiln_out *out) {
    kiln_ints ints;
    kiln_floats floats;
    kiln_strings strings;
    if (row->kind == KILN_ATTR_INTS) {
        memcpy(&ints, field, sizeof ints);
        put_attr_head(out, row->name, KILN_PB_INTS);
        for (int64_t k = 0; k < ints.n; k++) {
            kiln_out_varint(out, KILN_PB_ATTRIBUTE_INTS, (uint64_t)ints.v[k]);
        }
    } else if (row->kind == KILN_ATTR_FLOATS) {
        memcpy(&floats, field, sizeof floats);
        put_attr_head(out, row->name, KILN_PB_FLOATS);
        for (int64_t k = 0; k < floats.n; k++) {
            kiln_out_float(out, KILN_PB_ATTRIBUTE_FLOATS, floats.v[k]);
        }
    } else {
        memcpy(&strings, field, sizeof strings);
        put_attr_head(out, row->name, KILN_PB_STRINGS);
        for (int64_t k = 0; k < strings.n; k++) {
            kiln_out_text(out, KILN_PB_ATTRIBUTE_STRINGS, strings.v[k]);
        }
    }
}

/* An attribute's value; graphs are written by the caller. */
static kiln_status put_attr_value(kiln_exporter *x, const kiln_op *op, const kiln_attr *row,
                                  const void *field, kiln_out *out) {
    int64_t i;
    float f;
    const char *text;
    int32_t word;
    const kiln_tensor *tensor;
    size_t begin;
    switch (row->kind) {
    case KILN_ATTR_INT:
        memcpy(&i, field, sizeof i);
        put_attr_head(out, row->name, KILN_PB_INT);
        kiln_out_varint(out, KILN_PB_ATTRIBUTE_I, (uint64_t)i);
        return KILN_OK;
    case KILN_ATTR_FLOAT:
        memcpy(&f, field, sizeof f);
        put_attr_head(out, row->name, KILN_PB_FLOAT);
        kiln_out_float(out, KILN_PB_ATTRIBUTE_F, f);
        return KILN_OK;
    case KILN_ATTR_STRING:
        memcpy(&text, field, sizeof text);
        return put_text_attr(x, op, row, text, out);
    case KILN_ATTR_ENUM:
        memcpy(&word, field, sizeof word);
        return put_text_attr(x, op, row, row->words[word], out);
    case KILN_ATTR_TENSOR:
        memcpy(&tensor, field, sizeof tensor);
        put_attr_head(out, row->name, KILN_PB_TENSOR);
        begin = kiln_out_begin(out, KILN_PB_ATTRIBUTE_T);
        demand_dtype(x, tensor->dtype);
        kiln_put_tensor(out, tensor, NULL);
        kiln_out_end(out, begin);
        return KILN_OK;
    default:
        put_list_attr(row, field, out);
        return KILN_OK;
    }
}

/* Whether an attribute says something its default does not. */
static bool is_given(const kiln_attr *row, const void *field) {
    const void *pointer;
    int32_t word;
    switch (row->kind) {
    case KILN_ATTR_INT:
        return row->required || memcmp(field, &row->int_default, sizeof row->int_default) != 0;
    case KILN_ATTR_FLOAT:
        return row->required || memcmp(field, &row->float_default, sizeof row->float_default) != 0;
    case KILN_ATTR_ENUM:
        memcpy(&word, field, sizeof word);
        return row->required || word != row->int_default;
    case KILN_ATTR_STRING:
        memcpy(&pointer, field, sizeof pointer);
        return pointer &&
               (row->required || !row->string_default || strcmp(pointer, row->string_default) != 0);
    default: /* lists begin with their pointer */
        memcpy(&pointer, field, sizeof pointer);
        return pointer != NULL;
    }
}

static kiln_status put_attrs(kiln_exporter *x, const kiln_node *node, kiln_out *out) {
    int32_t body = 0;
    for (uint16_t i = 0; i < node->op->n_attrs; i++) {
        const kiln_attr *row = &node->op->attrs[i];
        const void *field = (const char *)node->attrs + row->offset;
        if (row->kind == KILN_ATTR_GRAPH) {
            size_t attr = kiln_out_begin(out, KILN_PB_NODE_ATTRIBUTE);
            put_attr_head(out, row->name, KILN_PB_GRAPH);
            size_t graph = kiln_out_begin(out, KILN_PB_ATTRIBUTE_G);
            KILN_TRY(kiln_export_graph(x, node->bodies[body++], out));
            kiln_out_end(out, graph);
            kiln_out_end(out, attr);
        } else if (is_given(row, field)) {
            size_t attr = kiln_out_begin(out, KILN_PB_NODE_ATTRIBUTE);
            demand_form(x, node->op, row->name);
            KILN_TRY(put_attr_value(x, node->op, row, field, out));
            kiln_out_end(out, attr);
        }
    }
    return KILN_OK;
}

/* ---- Nodes ---- */

/* Remembers a constant the first time it is met. */
static kiln_status note_constant(kiln_exporter *x, const kiln_value *v) {
    if (!v->constant || v->id < 0 || x->seen[v->id]) {
        return KILN_OK;
    }
    x->seen[v->id] = 1;
    demand_dtype(x, v->constant->tensor.dtype);
    kiln_export_const c = {.value = v};
    KILN_PUSH(x->arena, x->consts, x->n_consts, x->cap_consts, c);
    return KILN_OK;
}

/* The names of the nodes it came from, one a line. */
static void put_sources(const kiln_node *node, kiln_out *out) {
    if (node->n_sources == 0) {
        return;
    }
    size_t entry = kiln_out_begin(out, 9);
    kiln_out_text(out, 1, "kiln.sources");
    size_t value = kiln_out_begin(out, 2);
    for (int32_t i = 0; i < node->n_sources; i++) {
        kiln_out_bytes(out, "\n", i > 0);
        kiln_out_bytes(out, node->sources[i], strlen(node->sources[i]));
    }
    kiln_out_end(out, value);
    kiln_out_end(out, entry);
}

/* The node's name, or one made of it that no node has yet. */
static kiln_status put_node_name(kiln_exporter *x, const char *name, kiln_out *out) {
    const char *text = name;
    void *item;
    while (text && kiln_names_find(&x->node_names, kiln_view_of(text, strlen(text)), &item)) {
        text = kiln_arena_printf(x->arena, "%s~%u", name, ++x->renamed);
    }
    if (!text) {
        return KILN_E_MEMORY;
    }
    kiln_out_text(out, 3, text);
    return kiln_names_put(&x->node_names, kiln_view_of(text, strlen(text)), x);
}

static kiln_status put_node(kiln_exporter *x, const kiln_node *node, kiln_out *out) {
    size_t begin = kiln_out_begin(out, KILN_PB_GRAPH_NODE);
    bool standard = node->op->domain[0] == 0;
    x->contrib |= !standard;
    demand_form(x, node->op, NULL);
    if (strcmp(node->op->name, "Attention") == 0 && node->n_in > ATTENTION_NONPAD_INPUT) {
        demand(x, ATTENTION_NONPAD_SINCE);
    }
    for (int32_t i = 0; i < node->n_in; i++) {
        kiln_out_text(out, KILN_PB_NODE_INPUT, node->in[i] ? node->in[i]->name : "");
        demand_types(x, node, node->in[i]);
        if (node->in[i]) {
            KILN_TRY(note_constant(x, node->in[i]));
        }
    }
    for (int32_t i = 0; i < node->n_out; i++) {
        kiln_out_text(out, KILN_PB_NODE_OUTPUT, node->out[i]->name);
        demand_types(x, node, node->out[i]);
    }
    KILN_TRY(put_node_name(x, node->name, out));
    kiln_out_text(out, 4, node->op->name);
    KILN_TRY(put_attrs(x, node, out));
    if (!standard) {
        kiln_out_text(out, 7, node->op->domain);
    }
    put_sources(node, out);
    kiln_out_end(out, begin);
    return KILN_OK;
}

/* ---- Graphs ---- */

/* An output by its own name, or through Identity where ONNX wants a name of the graph's own: an
 * output listed twice, and in a body a constant or a value from outside. */
static kiln_status put_output(kiln_exporter *x, const kiln_graph *g, size_t i, kiln_out *out) {
    const kiln_value *v = g->outputs[i];
    const char *name = v->name;
    bool own = !g->parent || (!v->constant && v->home == g);
    for (size_t k = 0; k < i && own; k++) {
        own = g->outputs[k] != v;
    }
    KILN_TRY(note_constant(x, v));
    if (!own) {
        name = kiln_arena_printf(x->arena, "%s~out%u", v->name, ++x->renamed);
        if (!name) {
            return KILN_E_MEMORY;
        }
        size_t node = kiln_out_begin(out, KILN_PB_GRAPH_NODE);
        kiln_out_text(out, KILN_PB_NODE_INPUT, v->name);
        kiln_out_text(out, KILN_PB_NODE_OUTPUT, name);
        KILN_TRY(put_node_name(x, name, out));
        kiln_out_text(out, 4, "Identity");
        kiln_out_end(out, node);
    }
    return put_value_info(x, KILN_PB_GRAPH_OUTPUT, name, &v->type, out);
}

kiln_status kiln_export_graph(kiln_exporter *x, const kiln_graph *graph, kiln_out *out) {
    demand(x, FIRST_OPSET);
    kiln_out_text(out, 2, graph->name[0] ? graph->name : "graph");
    for (size_t i = 0; i < graph->n_nodes; i++) {
        KILN_TRY(put_node(x, graph->nodes[i], out));
    }
    for (size_t i = 0; i < graph->n_inputs; i++) {
        KILN_TRY(put_value_info(x, KILN_PB_GRAPH_INPUT, graph->inputs[i]->name,
                                &graph->inputs[i]->type, out));
    }
    for (size_t i = 0; i < graph->n_outputs; i++) {
        KILN_TRY(put_output(x, graph, i, out));
    }
    return out->failed ? KILN_E_MEMORY : KILN_OK;
}
