/* source.c - NodeProto and its attributes on their way in. */
#include "onnx/import.h"

#include <stdlib.h>
#include <string.h>

static kiln_status temp_text(kiln_importer *im, kiln_view v, const char **out) {
    *out = kiln_arena_text(&im->temp, v.n ? v.p : "", v.n);
    return *out ? KILN_OK : KILN_E_MEMORY;
}

/* ---- Attributes as they stand in the file ---- */

/* The kind an attribute says it has, or the one its fields show where it says nothing. */
static int64_t kind_of(const kiln_pb_attribute *pb) {
    static const struct {
        uint32_t field;
        kiln_pb_attr_type type;
    } shown[] = {{KILN_PB_ATTRIBUTE_F, KILN_PB_FLOAT},
                 {KILN_PB_ATTRIBUTE_I, KILN_PB_INT},
                 {KILN_PB_ATTRIBUTE_S, KILN_PB_STRING},
                 {KILN_PB_ATTRIBUTE_T, KILN_PB_TENSOR},
                 {KILN_PB_ATTRIBUTE_G, KILN_PB_GRAPH},
                 {KILN_PB_ATTRIBUTE_FLOATS, KILN_PB_FLOATS},
                 {KILN_PB_ATTRIBUTE_INTS, KILN_PB_INTS},
                 {KILN_PB_ATTRIBUTE_STRINGS, KILN_PB_STRINGS},
                 {14, KILN_PB_TYPE_PROTO},
                 {22, KILN_PB_SPARSE_TENSOR}};
    if (pb->type != KILN_PB_UNDEFINED) {
        return pb->type;
    }
    for (size_t i = 0; i < KILN_COUNT_OF(shown); i++) {
        if (kiln_pb_has(&pb->head, shown[i].field)) {
            return (int64_t)shown[i].type;
        }
    }
    return KILN_PB_UNDEFINED;
}

/* Replaces an attribute that names a parameter of the function around it by the caller's value.
 * *keep is false when the caller gives none. */
static kiln_status resolve_reference(kiln_importer *im, const kiln_frame *frame,
                                     kiln_source_attr *a, bool *keep) {
    *keep = true;
    if (a->pb.ref_attr_name.n == 0) {
        return KILN_OK;
    }
    if (!frame->in_function) {
        return kiln_fail(
            im->d.diag, KILN_F_ATTRIBUTE,
            "attribute \"%.*s\" refers to a function's parameter outside of any function",
            (int)a->pb.name.n, a->pb.name.p);
    }
    for (int32_t i = 0; i < frame->n_bindings; i++) {
        const kiln_source_attr *b = &frame->bindings[i];
        if (kiln_view_equal(b->pb.name, a->pb.ref_attr_name)) {
            kiln_view name = a->pb.name;
            *a = *b;
            a->pb.name = name;
            a->used = false;
            return KILN_OK;
        }
    }
    *keep = false;
    return KILN_OK;
}

static kiln_status read_attrs(kiln_importer *im, const kiln_frame *frame, const kiln_pb_node *pb,
                              kiln_source *out) {
    kiln_msg at = pb->head.self, sub;
    if (pb->n_attributes > im->d.limits->attributes) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH_LIMIT,
                         "the node has %zu attributes, the limit is %u (attributes)",
                         pb->n_attributes, im->d.limits->attributes);
    }
    KILN_ALLOC(out->attrs, &im->temp, pb->n_attributes);
    for (;;) {
        KILN_TRY(kiln_pb_each(&im->d.wire, &at, KILN_PB_NODE_ATTRIBUTE, &sub));
        if (!sub.p) {
            return KILN_OK;
        }
        kiln_source_attr *a = &out->attrs[out->n_attrs];
        bool keep;
        a->home = frame;
        KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_attribute_desc, &sub, &a->pb));
        if (a->pb.name.n == 0) {
            return kiln_fail(im->d.diag, KILN_F_ATTRIBUTE, "an attribute has no name");
        }
        KILN_TRY(resolve_reference(im, frame, a, &keep));
        a->pb.type = kind_of(&a->pb);
        for (int32_t i = 0; i < out->n_attrs; i++) {
            if (kiln_view_equal(out->attrs[i].pb.name, a->pb.name)) {
                return kiln_fail(im->d.diag, KILN_F_ATTRIBUTE, "attribute \"%.*s\" is given twice",
                                 (int)a->pb.name.n, a->pb.name.p);
            }
        }
        out->n_attrs += keep;
    }
}

/* ---- Edges ---- */

static kiln_status read_edges(kiln_importer *im, const kiln_frame *frame, const kiln_pb_node *pb,
                              uint32_t field, size_t count, kiln_value ***out, int32_t *n) {
    kiln_msg at = pb->head.self;
    kiln_value **edges;
    bool inputs = field == KILN_PB_NODE_INPUT;
    if (count > KILN_MAX_EDGES) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH_LIMIT, "the node has %zu %s, the limit is %d",
                         count, inputs ? "inputs" : "outputs", KILN_MAX_EDGES);
    }
    KILN_ALLOC(edges, &im->temp, count);
    int32_t last = inputs ? 0 : (int32_t)count;
    for (int32_t i = 0;; i++) {
        kiln_view name;
        void *found = NULL;
        KILN_TRY(kiln_pb_each_view(&im->d.wire, &at, field, true, &name));
        if (!name.p) {
            break;
        }
        if (name.n == 0) {
            continue;
        }
        if (!(inputs ? kiln_names_resolve(&frame->names, name, &found)
                     : kiln_names_find(&frame->names, name, &found))) {
            return kiln_fail(im->d.diag, KILN_F_GRAPH, "input %d, \"%.*s\", is produced by nothing",
                             i, (int)name.n, name.p);
        }
        edges[i] = found;
        last = found && inputs ? i + 1 : last;
    }
    *out = edges;
    *n = last;
    return KILN_OK;
}

static kiln_status find_version(kiln_importer *im, const kiln_frame *frame, kiln_source *s) {
    const kiln_opsets *sets[] = {frame->opsets, &im->opsets};
    for (size_t k = 0; k < KILN_COUNT_OF(sets); k++) {
        for (size_t i = 0; i < sets[k]->count; i++) {
            if (kiln_view_is(sets[k]->items[i].domain, s->domain)) {
                s->version = sets[k]->items[i].version;
                return KILN_OK;
            }
        }
    }
    s->version = 0;
    if (s->domain[0] == 0) {
        return kiln_fail(im->d.diag, KILN_F_OPSET,
                         "the model imports no version of the standard operators");
    }
    return KILN_OK;
}

/* The name of a node: its own, or one made of its operator and first output. */
static kiln_status name_node(kiln_importer *im, const kiln_frame *frame, const kiln_pb_node *pb,
                             kiln_source *s) {
    kiln_view name = pb->name;
    size_t prefix = strlen(frame->prefix);
    if (name.n == 0 && s->n_out > 0 && s->out[0]) {
        const char *out = s->out[0]->name;
        out += strncmp(out, frame->prefix, prefix) == 0 ? prefix : 0;
        s->name = kiln_arena_printf(&im->temp, "%s%s:%s", frame->prefix, s->op, out);
    } else if (name.n == 0) {
        s->name = kiln_arena_printf(&im->temp, "%s%s", frame->prefix, s->op);
    } else {
        s->name = kiln_arena_printf(&im->temp, "%s%.*s", frame->prefix, (int)name.n, name.p);
    }
    return s->name ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_source_read(kiln_importer *im, const kiln_frame *frame, const kiln_msg *msg,
                             bool edges, kiln_source *out) {
    kiln_pb_node pb;
    memset(out, 0, sizeof *out);
    out->offset = kiln_wire_offset(&im->d.wire, msg->p);
    KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_node_desc, msg, &pb));
    KILN_TRY(temp_text(im, pb.op_type, &out->op));
    KILN_TRY(temp_text(im, kiln_view_is(pb.domain, "ai.onnx") ? kiln_view_of("", 0) : pb.domain,
                       &out->domain));
    out->overload = pb.overload;
    out->name = out->op;
    if (pb.op_type.n == 0) {
        kiln_diag_at_offset(im->d.diag, out->offset);
        return kiln_fail(im->d.diag, KILN_F_GRAPH, "a node has no operator");
    }
    if (edges) {
        KILN_TRY(
            read_edges(im, frame, &pb, KILN_PB_NODE_OUTPUT, pb.n_outputs, &out->out, &out->n_out));
    }
    KILN_TRY(name_node(im, frame, &pb, out));
    kiln_diag_at_node(im->d.diag, out->name, out->op);
    kiln_diag_at_offset(im->d.diag, out->offset);
    if (edges) {
        KILN_TRY(read_edges(im, frame, &pb, KILN_PB_NODE_INPUT, pb.n_inputs, &out->in, &out->n_in));
    }
    KILN_TRY(find_version(im, frame, out));
    return read_attrs(im, frame, &pb, out);
}

/* ---- Reading attributes by name ---- */

kiln_source_attr *kiln_source_attr_find(kiln_source *s, const char *name) {
    for (int32_t i = 0; i < s->n_attrs; i++) {
        if (kiln_view_is(s->attrs[i].pb.name, name)) {
            s->attrs[i].used = true;
            return &s->attrs[i];
        }
    }
    return NULL;
}

/* The attribute if it is there, refused if it is of another kind. */
static kiln_status find_kind(kiln_importer *im, kiln_source *s, const char *name,
                             kiln_pb_attr_type kind, kiln_source_attr **out) {
    static const char *const names[] = {"nothing", "a float", "an int", "a string", "a tensor",
                                        "a graph", "floats",  "ints",   "strings"};
    *out = kiln_source_attr_find(s, name);
    if (*out && (*out)->pb.type != (int64_t)kind) {
        return kiln_fail(im->d.diag, KILN_F_ATTRIBUTE, "attribute \"%s\" must be %s", name,
                         names[kind]);
    }
    return KILN_OK;
}

kiln_status kiln_source_int(kiln_importer *im, kiln_source *s, const char *name, int64_t def,
                            int64_t *out) {
    kiln_source_attr *a;
    KILN_TRY(find_kind(im, s, name, KILN_PB_INT, &a));
    *out = a ? a->pb.i : def;
    return KILN_OK;
}

kiln_status kiln_source_float(kiln_importer *im, kiln_source *s, const char *name, float def,
                              float *out) {
    kiln_source_attr *a;
    KILN_TRY(find_kind(im, s, name, KILN_PB_FLOAT, &a));
    *out = a ? a->pb.f : def;
    return KILN_OK;
}

kiln_status kiln_source_text(kiln_importer *im, kiln_source *s, const char *name, const char *def,
                             const char **out) {
    kiln_source_attr *a;
    KILN_TRY(find_kind(im, s, name, KILN_PB_STRING, &a));
    *out = def;
    return a ? temp_text(im, a->pb.s, out) : KILN_OK;
}

kiln_status kiln_source_ints(kiln_importer *im, kiln_source *s, const char *name, kiln_ints *out) {
    kiln_source_attr *a;
    KILN_TRY(find_kind(im, s, name, KILN_PB_INTS, &a));
    *out = (kiln_ints){NULL, 0};
    return a ? kiln_attr_ints(im, a, out) : KILN_OK;
}

kiln_status kiln_source_floats(kiln_importer *im, kiln_source *s, const char *name,
                               kiln_floats *out) {
    kiln_source_attr *a;
    KILN_TRY(find_kind(im, s, name, KILN_PB_FLOATS, &a));
    *out = (kiln_floats){NULL, 0};
    return a ? kiln_attr_floats(im, a, out) : KILN_OK;
}

/* Arena memory for n items of an attribute's list, within the limits. */
static kiln_status list(kiln_importer *im, size_t n, size_t item_bytes, void **out) {
    if (n > im->d.limits->attribute_items) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH_LIMIT,
                         "an attribute has %zu items, the limit is %u (attribute_items)", n,
                         im->d.limits->attribute_items);
    }
    return kiln_decoder_alloc(&im->d, n * item_bytes, out);
}

kiln_status kiln_attr_ints(kiln_importer *im, const kiln_source_attr *a, kiln_ints *out) {
    size_t n = a->pb.n_ints;
    void *v;
    if (a->ints) {
        *out = (kiln_ints){a->ints, (int64_t)n};
        return KILN_OK;
    }
    KILN_TRY(list(im, n, sizeof(int64_t), &v));
    KILN_TRY(kiln_pb_varints(&im->d.wire, &a->pb.head.self, KILN_PB_ATTRIBUTE_INTS, v, n, NULL));
    *out = (kiln_ints){v, (int64_t)n};
    return KILN_OK;
}

kiln_status kiln_attr_floats(kiln_importer *im, const kiln_source_attr *a, kiln_floats *out) {
    size_t n = a->pb.n_floats;
    void *v;
    KILN_TRY(list(im, n, sizeof(float), &v));
    KILN_TRY(kiln_pb_fixed(&im->d.wire, &a->pb.head.self, KILN_PB_ATTRIBUTE_FLOATS, v, n,
                           sizeof(float)));
    *out = (kiln_floats){v, (int64_t)n};
    return KILN_OK;
}

kiln_status kiln_attr_strings(kiln_importer *im, const kiln_source_attr *a, kiln_strings *out) {
    size_t n = a->pb.n_strings;
    void *mem;
    kiln_msg at = a->pb.head.self;
    KILN_TRY(list(im, n, sizeof(char *), &mem));
    const char **v = mem;
    for (size_t i = 0; i < n; i++) {
        kiln_view view;
        KILN_TRY(kiln_pb_each_view(&im->d.wire, &at, KILN_PB_ATTRIBUTE_STRINGS, false, &view));
        KILN_TRY(kiln_decoder_text(&im->d, view, &v[i]));
    }
    *out = (kiln_strings){v, (int64_t)n};
    return KILN_OK;
}

/* ---- Writing attributes and inputs ---- */

/* A fresh attribute of this name, in place of an old one. */
static kiln_status add_attr(kiln_importer *im, kiln_source *s, const char *name,
                            kiln_pb_attr_type type, kiln_source_attr **out) {
    kiln_source_attr *a = kiln_source_attr_find(s, name);
    if (!a) {
        kiln_source_attr *attrs;
        KILN_ALLOC(attrs, &im->temp, s->n_attrs + 1);
        if (s->n_attrs) {
            memcpy(attrs, s->attrs, (size_t)s->n_attrs * sizeof *attrs);
        }
        s->attrs = attrs;
        a = &attrs[s->n_attrs++];
    }
    memset(a, 0, sizeof *a);
    a->pb.name = kiln_view_of(name, strlen(name));
    a->pb.type = (int64_t)type;
    *out = a;
    return KILN_OK;
}

kiln_status kiln_source_set_int(kiln_importer *im, kiln_source *s, const char *name, int64_t v) {
    kiln_source_attr *a;
    KILN_TRY(add_attr(im, s, name, KILN_PB_INT, &a));
    a->pb.i = v;
    return KILN_OK;
}

kiln_status kiln_source_set_float(kiln_importer *im, kiln_source *s, const char *name, float v) {
    kiln_source_attr *a;
    KILN_TRY(add_attr(im, s, name, KILN_PB_FLOAT, &a));
    a->pb.f = v;
    return KILN_OK;
}

kiln_status kiln_source_set_text(kiln_importer *im, kiln_source *s, const char *name,
                                 const char *v) {
    kiln_source_attr *a;
    KILN_TRY(add_attr(im, s, name, KILN_PB_STRING, &a));
    a->pb.s = kiln_view_of(v, strlen(v));
    return KILN_OK;
}

kiln_status kiln_source_set_ints(kiln_importer *im, kiln_source *s, const char *name,
                                 const int64_t *v, size_t n) {
    kiln_source_attr *a;
    KILN_TRY(add_attr(im, s, name, KILN_PB_INTS, &a));
    a->ints = kiln_arena_copy(im->arena, v, n * sizeof *v);
    a->pb.n_ints = n;
    return a->ints ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_source_set_graph(kiln_importer *im, kiln_source *s, const char *name,
                                  const kiln_msg *graph, const kiln_frame *home) {
    kiln_source_attr *a;
    KILN_TRY(add_attr(im, s, name, KILN_PB_GRAPH, &a));
    a->pb.g = *graph;
    a->home = home;
    return KILN_OK;
}

void kiln_source_drop(kiln_source *s, const char *name) {
    kiln_source_attr *a = kiln_source_attr_find(s, name);
    if (a) {
        *a = s->attrs[--s->n_attrs];
    }
}

kiln_status kiln_source_set_input(kiln_importer *im, kiln_source *s, int32_t i, kiln_value *value) {
    if (i >= s->n_in) {
        kiln_value **in;
        KILN_ALLOC(in, &im->temp, i + 1);
        for (int32_t k = 0; k < s->n_in; k++) {
            in[k] = s->in[k];
        }
        s->in = in;
        s->n_in = i + 1;
    }
    s->in[i] = value;
    return KILN_OK;
}

kiln_status kiln_source_make(kiln_importer *im, const kiln_source *from, const char *op,
                             kiln_value *const *in, int32_t n_in, kiln_value *const *out,
                             int32_t n_out, kiln_source *made) {
    memset(made, 0, sizeof *made);
    made->domain = "";
    made->op = op;
    made->origin = from->origin ? from->origin : from->name;
    made->name = n_out == from->n_out && n_out > 0 && out[0] == from->out[0]
                     ? from->name
                     : kiln_arena_printf(&im->temp, "%s/%s", from->name, op);
    if (!made->name) {
        return KILN_E_MEMORY;
    }
    made->version = KILN_OPSET_MAX;
    made->offset = from->offset;
    KILN_ALLOC(made->in, &im->temp, n_in);
    KILN_ALLOC(made->out, &im->temp, n_out);
    made->n_in = n_in;
    made->n_out = n_out;
    for (int32_t i = 0; i < n_in; i++) {
        made->in[i] = in[i];
    }
    for (int32_t i = 0; i < n_out; i++) {
        made->out[i] = out[i];
    }
    return KILN_OK;
}
