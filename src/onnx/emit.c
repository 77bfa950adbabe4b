/* emit.c - a source node in its newest form to a node of the graph: attributes decoded by the
 * operator's table, arity checked, bodies begun. */
#include <string.h>

#include "onnx/import.h"
#include "ops/ops.h"

/* Attributes that say nothing Kiln must know, written by exporters all the same. */
static const struct {
    const char *op, *name; /* op NULL: any */
} harmless[] = {
    {NULL, "consumed_inputs"}, /* < 6: allowed to work in place */
    {"BatchNormalization", "is_test"},
    {"Dropout", "is_test"},
    {"GRU", "output_sequence"}, /* < 7: leave out the first output */
    {"Gemm", "broadcast"},      /* < 7 */
    {"LSTM", "output_sequence"},
    {"Optional", "type"}, /* of an optional that holds nothing */
    {"RNN", "output_sequence"},
};

static bool is_harmless(const char *op, kiln_view name) {
    for (size_t i = 0; i < KILN_COUNT_OF(harmless); i++) {
        if ((!harmless[i].op || strcmp(harmless[i].op, op) == 0) &&
            kiln_view_is(name, harmless[i].name)) {
            return true;
        }
    }
    return false;
}

/* ---- Unsupported operators: all of them are found before the import fails ---- */

static kiln_status note_unsupported(kiln_importer *im, const kiln_source *s) {
    for (size_t i = 0; i < im->n_unsupported; i++) {
        kiln_unsupported *u = &im->unsupported[i];
        if (strcmp(u->op, s->op) == 0 && strcmp(u->domain, s->domain) == 0) {
            u->uses++;
            return KILN_OK;
        }
    }
    if (im->n_unsupported == KILN_MAX_UNSUPPORTED) {
        return KILN_OK;
    }
    kiln_unsupported u = {.version = s->version, .offset = s->offset, .uses = 1};
    u.domain = kiln_arena_text(&im->lists, s->domain, strlen(s->domain));
    u.op = kiln_arena_text(&im->lists, s->op, strlen(s->op));
    u.node = kiln_arena_text(&im->lists, s->name, strlen(s->name));
    if (!u.domain || !u.op || !u.node) {
        return KILN_E_MEMORY;
    }
    KILN_PUSH(&im->lists, im->unsupported, im->n_unsupported, im->cap_unsupported, u);
    return KILN_OK;
}

/* ---- Attributes ---- */

static kiln_status wrong_kind(kiln_importer *im, const kiln_attr *row) {
    static const char *const names[] = {
        [KILN_ATTR_INT] = "an int",      [KILN_ATTR_FLOAT] = "a float",
        [KILN_ATTR_STRING] = "a string", [KILN_ATTR_ENUM] = "a string",
        [KILN_ATTR_INTS] = "ints",       [KILN_ATTR_FLOATS] = "floats",
        [KILN_ATTR_STRINGS] = "strings", [KILN_ATTR_TENSOR] = "a tensor",
        [KILN_ATTR_GRAPH] = "a graph"};
    return kiln_fail(im->d.diag, KILN_F_ATTRIBUTE, "attribute \"%s\" must be %s", row->name,
                     names[row->kind]);
}

static kiln_status decode_enum(kiln_importer *im, const kiln_attr *row, kiln_view word,
                               void *field) {
    for (int32_t i = 0; row->words[i]; i++) {
        if (kiln_view_is(word, row->words[i])) {
            memcpy(field, &i, sizeof i);
            return KILN_OK;
        }
    }
    return kiln_fail(im->d.diag, KILN_F_ATTR_VALUE, "attribute \"%s\" cannot be \"%.*s\"",
                     row->name, word.n < 64 ? (int)word.n : 64, word.n ? word.p : "");
}

static kiln_status decode_string(kiln_importer *im, const kiln_source_attr *a, void *field) {
    const char *text;
    if (a->pb.type == KILN_PB_TYPE_PROTO) {
        KILN_TRY(kiln_type_spell(im, &a->pb.tp, &text));
    } else {
        KILN_TRY(kiln_decoder_text(&im->d, a->pb.s, &text));
    }
    memcpy(field, &text, sizeof text);
    return KILN_OK;
}

static kiln_status decode_tensor_attr(kiln_importer *im, const kiln_source_attr *a, void *field) {
    kiln_stored_tensor stored;
    kiln_tensor *t;
    KILN_TRY(kiln_decode_tensor(&im->d, &a->pb.t, &stored));
    KILN_ALLOC(t, im->arena, 1);
    *t = stored.tensor;
    memcpy(field, &t, sizeof t);
    return KILN_OK;
}

/* Decodes an attribute into its field. Graphs have none. */
static kiln_status decode_attr(kiln_importer *im, const kiln_attr *row, const kiln_source_attr *a,
                               void *field) {
    static const kiln_pb_attr_type wanted[] = {
        [KILN_ATTR_INT] = KILN_PB_INT,         [KILN_ATTR_FLOAT] = KILN_PB_FLOAT,
        [KILN_ATTR_STRING] = KILN_PB_STRING,   [KILN_ATTR_ENUM] = KILN_PB_STRING,
        [KILN_ATTR_INTS] = KILN_PB_INTS,       [KILN_ATTR_FLOATS] = KILN_PB_FLOATS,
        [KILN_ATTR_STRINGS] = KILN_PB_STRINGS, [KILN_ATTR_TENSOR] = KILN_PB_TENSOR,
        [KILN_ATTR_GRAPH] = KILN_PB_GRAPH};
    bool spelled_type =
        row->kind == KILN_ATTR_STRING && a->pb.type == KILN_PB_TYPE_PROTO && a->pb.tp.p;
    if (a->pb.type != (int64_t)wanted[row->kind] && !spelled_type) {
        return wrong_kind(im, row);
    }
    switch (row->kind) {
    case KILN_ATTR_INT:
        memcpy(field, &a->pb.i, sizeof a->pb.i);
        return KILN_OK;
    case KILN_ATTR_FLOAT:
        memcpy(field, &a->pb.f, sizeof a->pb.f);
        return KILN_OK;
    case KILN_ATTR_STRING:
        return decode_string(im, a, field);
    case KILN_ATTR_ENUM:
        return decode_enum(im, row, a->pb.s, field);
    case KILN_ATTR_INTS:
        return kiln_attr_ints(im, a, field);
    case KILN_ATTR_FLOATS:
        return kiln_attr_floats(im, a, field);
    case KILN_ATTR_STRINGS:
        return kiln_attr_strings(im, a, field);
    case KILN_ATTR_TENSOR:
        return a->pb.t.p ? decode_tensor_attr(im, a, field) : wrong_kind(im, row);
    default:
        return a->pb.g.p ? KILN_OK : wrong_kind(im, row);
    }
}

static kiln_status decode_attrs(kiln_importer *im, kiln_source *s, kiln_node *node) {
    const kiln_op *op = node->op;
    for (int32_t i = 0; i < s->n_attrs; i++) {
        s->attrs[i].used = false;
    }
    for (uint16_t i = 0; i < op->n_attrs; i++) {
        const kiln_attr *row = &op->attrs[i];
        const kiln_source_attr *a = kiln_source_attr_find(s, row->name);
        if (a) {
            KILN_TRY(decode_attr(im, row, a, (char *)node->attrs + row->offset));
        } else if (row->required) {
            return kiln_fail(im->d.diag, KILN_F_ATTRIBUTE, "attribute \"%s\" is missing",
                             row->name);
        }
    }
    for (int32_t i = 0; i < s->n_attrs; i++) {
        const kiln_source_attr *a = &s->attrs[i];
        if (!a->used && !is_harmless(s->op, a->pb.name)) {
            return kiln_fail(im->d.diag, KILN_F_ATTRIBUTE, "the operator has no attribute \"%.*s\"",
                             (int)a->pb.name.n, a->pb.name.p);
        }
    }
    return KILN_OK;
}

/* ---- Edges and bodies ---- */

static kiln_status check_arity(kiln_importer *im, const kiln_op *op, const kiln_source *s) {
    if (s->n_in < op->min_in || (op->max_in >= 0 && s->n_in > op->max_in)) {
        return op->max_in < 0
                   ? kiln_fail(im->d.diag, KILN_F_ARITY,
                               "has %d inputs, the operator takes %d or more", s->n_in, op->min_in)
                   : kiln_fail(im->d.diag, KILN_F_ARITY,
                               "has %d inputs, the operator takes %d to %d", s->n_in, op->min_in,
                               op->max_in);
    }
    if (s->n_out < op->min_out || (op->max_out >= 0 && s->n_out > op->max_out)) {
        return op->max_out < 0 ? kiln_fail(im->d.diag, KILN_F_ARITY,
                                           "has %d outputs, the operator gives %d or more",
                                           s->n_out, op->min_out)
                               : kiln_fail(im->d.diag, KILN_F_ARITY,
                                           "has %d outputs, the operator gives %d to %d", s->n_out,
                                           op->min_out, op->max_out);
    }
    for (int32_t i = 0; i < op->min_in; i++) {
        if (!s->in[i]) {
            return kiln_fail(im->d.diag, KILN_F_ARITY, "input %d is left out, but required", i);
        }
    }
    return KILN_OK;
}

static kiln_status set_outputs(kiln_importer *im, const kiln_frame *frame, const kiln_source *s,
                               kiln_node *node) {
    KILN_ALLOC(node->out, im->arena, s->n_out);
    node->n_out = s->n_out;
    for (int32_t i = 0; i < s->n_out; i++) {
        node->out[i] = s->out[i];
        if (!s->out[i]) {
            KILN_TRY(kiln_graph_value(&node->out[i], frame->graph, NULL));
        }
    }
    return KILN_OK;
}

static kiln_status begin_bodies(kiln_importer *im, kiln_frame *frame, kiln_source *s,
                                kiln_node *node) {
    int32_t b = 0;
    for (uint16_t i = 0; i < node->op->n_attrs; i++) {
        const kiln_attr *row = &node->op->attrs[i];
        if (row->kind != KILN_ATTR_GRAPH) {
            continue;
        }
        const kiln_source_attr *a = kiln_source_attr_find(s, row->name);
        KILN_TRY(kiln_graph_create(&node->bodies[b], im->arena, im->dims, im->env, frame->graph,
                                   row->name));
        if (a) {
            KILN_TRY(kiln_import_graph(im, &a->pb.g, node->bodies[b], a->home ? a->home : frame));
        }
        b++;
    }
    return KILN_OK;
}

kiln_status kiln_emit(kiln_importer *im, kiln_frame *frame, kiln_source *s, kiln_node **out) {
    const kiln_op *op = kiln_op_find(s->domain, s->op);
    kiln_node *node;
    if (out) {
        *out = NULL;
    }
    if (!op) {
        return note_unsupported(im, s);
    }
    if (++im->n_nodes > im->d.limits->nodes) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH_LIMIT, "the model has more than %u nodes (nodes)",
                         im->d.limits->nodes);
    }
    kiln_diag_at_node(im->d.diag, s->name, s->op);
    kiln_diag_at_offset(im->d.diag, s->offset);
    while (s->n_in > 0 && !s->in[s->n_in - 1]) {
        s->n_in--;
    }
    while (op->max_out >= 0 && s->n_out > 0 && !s->out[s->n_out - 1]) {
        s->n_out--;
    }
    KILN_TRY(check_arity(im, op, s));
    KILN_TRY(kiln_graph_detached(&node, frame->graph, op, s->name, s->in, s->n_in, 0));
    node->offset = s->offset;
    KILN_TRY(decode_attrs(im, s, node));
    KILN_TRY(set_outputs(im, frame, s, node));
    KILN_ALLOC(node->sources, im->arena, 1);
    node->sources[0] =
        s->origin ? kiln_arena_text(im->arena, s->origin, strlen(s->origin)) : node->name;
    if (!node->sources[0]) {
        return KILN_E_MEMORY;
    }
    node->n_sources = 1;
    KILN_TRY(kiln_graph_append(frame->graph, node));
    if (out) {
        *out = node;
    }
    return begin_bodies(im, frame, s, node);
}
