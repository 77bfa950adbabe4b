/* frame.c - graphs and bodies: names, inputs, constants, outputs, then one node at a time. */
#include <string.h>

#include "onnx/import.h"

static bool is_taken(const kiln_importer *im, kiln_view name) {
    void *item;
    return (im->root && kiln_names_find(&im->root->names, name, &item)) ||
           kiln_names_find(&im->used, name, &item);
}

kiln_status kiln_import_value(kiln_importer *im, const kiln_frame *frame, kiln_view name,
                              const void *at, kiln_value **out) {
    kiln_value *v;
    const char *text;
    KILN_ALLOC(v, im->arena, 1);
    v->offset = at ? kiln_wire_offset(&im->d.wire, at) : -1;
    v->id = -1;
    if (frame == im->root) {
        KILN_TRY(kiln_decoder_text(&im->d, name, &text));
    } else {
        const char *try =
            kiln_arena_printf(&im->temp, "%s%.*s", frame->prefix, (int)name.n, name.p);
        while (try && is_taken(im, kiln_view_of(try, strlen(try)))) {
            try = kiln_arena_printf(&im->temp, "%s%.*s:%u", frame->prefix, (int)name.n, name.p,
                                    ++im->renamed);
        }
        if (!try) {
            return KILN_E_MEMORY;
        }
        KILN_TRY(kiln_decoder_text(&im->d, kiln_view_of(try, strlen(try)), &text));
        KILN_TRY(kiln_names_put(&im->used, kiln_view_of(text, strlen(text)), v));
    }
    v->name = text;
    *out = v;
    return KILN_OK;
}

kiln_status kiln_import_constant(kiln_importer *im, kiln_value *value,
                                 const kiln_stored_tensor *stored) {
    kiln_dim *dims;
    const kiln_tensor *t = &stored->tensor;
    KILN_ALLOC(value->constant, im->arena, 1);
    KILN_ALLOC(dims, im->arena, t->rank);
    for (int32_t i = 0; i < t->rank; i++) {
        dims[i] = t->dims[i];
    }
    value->constant->tensor = *t;
    value->constant->big = stored->view;
    value->type = kiln_type_tensor(t->dtype, t->rank, dims);
    return KILN_OK;
}

static kiln_status name_twice(kiln_importer *im, kiln_view name, const char *what) {
    return kiln_fail(im->d.diag, KILN_F_GRAPH, "%s \"%.*s\" has the name of another value", what,
                     (int)name.n, name.p);
}

/* ---- Initializers and inputs ---- */

static kiln_status declare_initializers(kiln_importer *im, kiln_frame *frame, const kiln_msg *graph,
                                        uint32_t field) {
    kiln_msg at = *graph, sub;
    for (;;) {
        kiln_stored_tensor stored;
        kiln_value *v;
        void *item;
        KILN_TRY(kiln_pb_each(&im->d.wire, &at, field, &sub));
        if (!sub.p) {
            return KILN_OK;
        }
        KILN_TRY(field == KILN_PB_GRAPH_INITIALIZER ? kiln_decode_tensor(&im->d, &sub, &stored)
                                                    : kiln_decode_sparse(&im->d, &sub, &stored));
        kiln_diag_at_offset(im->d.diag, kiln_wire_offset(&im->d.wire, sub.p));
        if (stored.name.n == 0) {
            return kiln_fail(im->d.diag, KILN_F_GRAPH, "an initializer has no name");
        }
        if (kiln_names_find(&frame->names, stored.name, &item)) {
            return name_twice(im, stored.name, "initializer");
        }
        KILN_TRY(kiln_import_value(im, frame, stored.name, sub.p, &v));
        KILN_TRY(kiln_import_constant(im, v, &stored));
        KILN_TRY(kiln_names_put(&frame->names, stored.name, v));
        kiln_diag_at_offset(im->d.diag, -1);
    }
}

/* An input that an initializer gives a value: the two must agree. */
static kiln_status check_overridden(kiln_importer *im, const kiln_value *v, const kiln_type *type) {
    const kiln_tensor *t = &v->constant->tensor;
    bool fits =
        type->kind == KILN_KIND_NONE || (type->kind == KILN_KIND_TENSOR && type->dtype == t->dtype);
    if (fits && type->kind == KILN_KIND_TENSOR && type->rank != KILN_RANK_UNKNOWN) {
        fits = type->rank == t->rank;
        for (int32_t i = 0; fits && i < t->rank; i++) {
            fits = !kiln_dim_known(type->dims[i]) || type->dims[i] == t->dims[i];
        }
    }
    return fits ? KILN_OK
                : kiln_fail(im->d.diag, KILN_F_GRAPH,
                            "input \"%s\" and the initializer of that name have different types",
                            v->name);
}

static kiln_status declare_input(kiln_importer *im, kiln_frame *frame, const kiln_msg *msg) {
    kiln_pb_value_info info;
    kiln_type type = {.kind = KILN_KIND_NONE};
    kiln_value *v;
    void *item;
    bool body = frame != im->root;
    KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_value_info_desc, msg, &info));
    kiln_diag_at_offset(im->d.diag, kiln_wire_offset(&im->d.wire, msg->p));
    if (info.name.n == 0) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH, "a graph input has no name");
    }
    if (info.type.p) {
        KILN_TRY(kiln_import_type(im, &info.type, info.name, body, &type));
    }
    if (kiln_names_find(&frame->names, info.name, &item)) {
        const kiln_value *old = item;
        return old->constant ? check_overridden(im, old, &type)
                             : name_twice(im, info.name, "graph input");
    }
    if (!body && type.kind == KILN_KIND_NONE) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH, "graph input \"%.*s\" has no type",
                         (int)info.name.n, info.name.p);
    }
    KILN_TRY(kiln_import_value(im, frame, info.name, msg->p, &v));
    v->type = type;
    KILN_PUSH(im->arena, frame->graph->inputs, frame->graph->n_inputs, frame->graph->cap_inputs, v);
    return kiln_names_put(&frame->names, info.name, v);
}

static kiln_status declare_inputs(kiln_importer *im, kiln_frame *frame, const kiln_msg *graph) {
    kiln_msg at = *graph, sub;
    for (;;) {
        KILN_TRY(kiln_pb_each(&im->d.wire, &at, KILN_PB_GRAPH_INPUT, &sub));
        if (!sub.p) {
            kiln_diag_at_offset(im->d.diag, -1);
            return KILN_OK;
        }
        KILN_TRY(declare_input(im, frame, &sub));
    }
}

/* ---- What nodes produce ---- */

static kiln_status declare_output(kiln_importer *im, kiln_frame *frame, const kiln_names *results,
                                  kiln_view name, kiln_value **out) {
    void *item;
    if (kiln_names_find(&frame->names, name, &item)) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH, "two producers of \"%.*s\"", (int)name.n,
                         name.p);
    }
    if (results && kiln_names_find(results, name, &item)) {
        *out = item;
    } else {
        KILN_TRY(kiln_import_value(im, frame, name, name.p, out));
    }
    return kiln_names_put(&frame->names, name, *out);
}

static kiln_status declare_constant(kiln_importer *im, const kiln_frame *frame, const kiln_msg *msg,
                                    kiln_value *value) {
    kiln_source s;
    kiln_stored_tensor stored;
    KILN_TRY(kiln_source_read(im, frame, msg, false, &s));
    kiln_diag_at_node(im->d.diag, value->name, s.op);
    KILN_TRY(kiln_import_constant_node(im, &s, &stored));
    return kiln_import_constant(im, value, &stored);
}

static kiln_status declare_node(kiln_importer *im, kiln_frame *frame, const kiln_names *results,
                                const kiln_msg *msg) {
    kiln_pb_node pb;
    kiln_msg at = *msg;
    kiln_value *value = NULL;
    kiln_diag_at_offset(im->d.diag, kiln_wire_offset(&im->d.wire, msg->p));
    KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_node_desc, msg, &pb));
    if (pb.op_type.n == 0) {
        kiln_diag_at_offset(im->d.diag, kiln_wire_offset(&im->d.wire, msg->p));
        return kiln_fail(im->d.diag, KILN_F_GRAPH, "a node has no operator");
    }
    for (;;) {
        kiln_view name;
        KILN_TRY(kiln_pb_each_view(&im->d.wire, &at, KILN_PB_NODE_OUTPUT, true, &name));
        if (!name.p) {
            break;
        }
        if (name.n) {
            KILN_TRY(declare_output(im, frame, results, name, &value));
        }
    }
    bool standard = pb.domain.n == 0 || kiln_view_is(pb.domain, "ai.onnx");
    if (standard && kiln_view_is(pb.op_type, "Constant") && value) {
        KILN_TRY(declare_constant(im, frame, msg, value));
    }
    return KILN_OK;
}

kiln_status kiln_import_declare(kiln_importer *im, kiln_frame *frame, const kiln_names *results) {
    kiln_msg at = frame->at, sub;
    for (;;) {
        kiln_arena_mark mark = kiln_arena_here(&im->temp);
        KILN_TRY(kiln_pb_each(&im->d.wire, &at, frame->node_field, &sub));
        if (!sub.p) {
            break;
        }
        KILN_TRY(declare_node(im, frame, results, &sub));
        kiln_arena_rewind(&im->temp, mark);
    }
    kiln_diag_at_node(im->d.diag, NULL, NULL);
    kiln_diag_at_offset(im->d.diag, -1);
    return KILN_OK;
}

/* ---- Graph outputs ---- */

/* A body's output must be the body's own: a value of a graph around it is passed through
 * Identity. */
static kiln_status own_output(kiln_importer *im, kiln_frame *frame, kiln_view name,
                              kiln_value **value) {
    kiln_source from = {.name = "", .offset = -1}, s;
    kiln_value *in = *value;
    KILN_TRY(kiln_import_value(im, frame, name, NULL, value));
    from.name = (*value)->name;
    KILN_TRY(kiln_source_make(im, &from, "Identity", &in, 1, value, 1, &s));
    return kiln_emit(im, frame, &s, NULL);
}

static kiln_status resolve_outputs(kiln_importer *im, kiln_frame *frame, const kiln_msg *graph) {
    kiln_msg at = *graph, sub;
    for (;;) {
        kiln_pb_value_info info;
        void *item = NULL;
        KILN_TRY(kiln_pb_each(&im->d.wire, &at, KILN_PB_GRAPH_OUTPUT, &sub));
        if (!sub.p) {
            return KILN_OK;
        }
        KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_value_info_desc, &sub, &info));
        kiln_value *v;
        if (kiln_names_find(&frame->names, info.name, &item)) {
            v = item;
        } else if (info.name.n && kiln_names_resolve(&frame->names, info.name, &item) && item) {
            v = item;
            KILN_TRY(own_output(im, frame, info.name, &v));
        } else {
            kiln_diag_at_offset(im->d.diag, kiln_wire_offset(&im->d.wire, sub.p));
            return kiln_fail(im->d.diag, KILN_F_GRAPH,
                             "graph output \"%.*s\" is produced by nothing", (int)info.name.n,
                             info.name.n ? info.name.p : "");
        }
        KILN_TRY(kiln_graph_output(frame->graph, v));
    }
}

/* ---- Frames ---- */

kiln_status kiln_import_graph(kiln_importer *im, const kiln_msg *msg, kiln_graph *graph,
                              const kiln_frame *scope) {
    kiln_pb_graph pb;
    kiln_frame *frame;
    kiln_arena_mark mark = kiln_arena_here(&im->stack);
    KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_graph_desc, msg, &pb));
    if (pb.n_nodes > im->d.limits->nodes) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH_LIMIT,
                         "the graph has %zu nodes, the limit is %u (nodes)", pb.n_nodes,
                         im->d.limits->nodes);
    }
    KILN_ALLOC(frame, &im->stack, 1);
    frame->below = im->top;
    frame->mark = mark;
    frame->graph = graph;
    frame->opsets = scope ? scope->opsets : &im->opsets;
    frame->prefix = scope ? scope->prefix : "";
    if (scope) {
        frame->bindings = scope->bindings;
        frame->n_bindings = scope->n_bindings;
        frame->in_function = scope->in_function;
        frame->calls = scope->calls;
        frame->nested_graphs = scope->nested_graphs + 1;
    }
    if (frame->nested_graphs > im->d.limits->nested_graphs) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH_LIMIT,
                         "graphs are nested deeper than %u (nested_graphs)",
                         im->d.limits->nested_graphs);
    }
    frame->at = *msg;
    frame->node_field = KILN_PB_GRAPH_NODE;
    KILN_TRY(kiln_names_init(&frame->names, &im->stack, im->seed, scope ? &scope->names : NULL,
                             pb.n_nodes + pb.n_initializers + pb.n_inputs));
    im->top = frame;
    if (!scope) {
        im->root = frame;
    }
    KILN_TRY(declare_initializers(im, frame, msg, KILN_PB_GRAPH_INITIALIZER));
    KILN_TRY(declare_initializers(im, frame, msg, KILN_PB_GRAPH_SPARSE_INITIALIZER));
    KILN_TRY(declare_inputs(im, frame, msg));
    KILN_TRY(kiln_import_declare(im, frame, NULL));
    return resolve_outputs(im, frame, msg);
}

kiln_status kiln_import_step(kiln_importer *im) {
    kiln_frame *frame = im->top;
    kiln_source s;
    kiln_msg sub;
    KILN_TRY(kiln_pb_each(&im->d.wire, &frame->at, frame->node_field, &sub));
    if (!sub.p) {
        im->top = frame->below;
        if (im->top) {
            kiln_arena_rewind(&im->stack, frame->mark);
        }
        return KILN_OK;
    }
    kiln_arena_mark mark = kiln_arena_here(&im->temp);
    KILN_TRY(kiln_source_read(im, frame, &sub, true, &s));
    const kiln_local_function *f = kiln_function_find(im, s.domain, s.op, s.overload);
    if (f) {
        KILN_TRY(kiln_function_call(im, frame, &s, f));
    } else if (s.domain[0] != 0 || strcmp(s.op, "Constant") != 0) {
        KILN_TRY(kiln_upgrade(im, frame, &s));
    }
    kiln_diag_at_node(im->d.diag, NULL, NULL);
    kiln_diag_at_offset(im->d.diag, -1);
    kiln_arena_rewind(&im->temp, mark);
    return KILN_OK;
}
