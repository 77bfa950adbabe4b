#include "build/widen.h"

#include <string.h>

#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/util.h"

/* Constants up to this size are converted now, so that claims can read them. */
enum { EAGER_BYTES = 64 * 1024 };

/* A value in one of its two types, and the graph that can see it with all its bodies; NULL: every
 * graph. */
typedef struct form {
    kiln_value *value;
    const kiln_graph *home;
} form;

/* What became of a value of the original graph. Said of widening; where kiln_narrow works, "half"
 * is float32 and "wide" the narrow type. */
typedef struct fate {
    kiln_dtype half;   /* F16 or BF16 when it had that type, else NONE */
    form wide, narrow; /* half values: in float32, in their own type */
    kiln_value *same;  /* others: the value that stands for it, or NULL */
    bool known;
} fate;

typedef struct widener {
    kiln_graph *root;
    kiln_dtype to; /* F32 to widen, F16 or BF16 to narrow */
    fate *fates;   /* per value id of the original graph */
    kiln_diag *diag;
    size_t n_wide;
} widener;

/* The graph being rewritten, with its new nodes. */
typedef struct editor {
    widener *w;
    kiln_graph *graph;
    kiln_node **nodes;
    size_t n_nodes, cap_nodes;
} editor;

static bool is_half(kiln_dtype dtype) {
    return dtype == KILN_DTYPE_F16 || dtype == KILN_DTYPE_BF16;
}

static bool is_half_value(const kiln_value *v) {
    return v && v->type.kind == KILN_KIND_TENSOR && is_half(v->type.dtype);
}

bool kiln_needs_widening(const kiln_graph *graph) {
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const kiln_node *n = graph->nodes[i];
        for (int32_t k = 0; k < n->n_in + n->n_out; k++) {
            if (is_half_value(k < n->n_in ? n->in[k] : n->out[k - n->n_in])) {
                return true;
            }
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            if (kiln_needs_widening(n->bodies[b])) {
                return true;
            }
        }
    }
    return false;
}

/* A type that is rewritten. */
static bool is_from(const widener *w, kiln_dtype dtype) {
    return w->to == KILN_DTYPE_F32 ? is_half(dtype) : dtype == KILN_DTYPE_F32;
}

/* The entry of an original value; one met for the first time stands for itself. */
static fate *fate_of(widener *w, kiln_value *v) {
    fate *f = &w->fates[v->id];
    if (!f->known) {
        f->known = true;
        bool from = v->type.kind == KILN_KIND_TENSOR && is_from(w, v->type.dtype);
        f->half = from ? v->type.dtype : KILN_DTYPE_NONE;
        f->narrow = (form){v, v->home};
    }
    return f;
}

static bool is_visible(const form *f, const kiln_graph *from) {
    for (const kiln_graph *g = from; f->value && f->home && g != f->home; g = g->parent) {
        if (!g->parent) {
            return false;
        }
    }
    return f->value != NULL;
}

/* ---- Casts ---- */

static kiln_status append(editor *e, kiln_node *n) {
    KILN_PUSH(e->graph->arena, e->nodes, e->n_nodes, e->cap_nodes, n);
    return KILN_OK;
}

static kiln_status make_cast(editor *e, kiln_value *v, kiln_dtype to, kiln_node **out) {
    KILN_TRY(kiln_graph_detached(out, e->graph, &kiln_op_cast, NULL, &v, 1, 1));
    ((kiln_cast_attrs *)(*out)->attrs)->to = to;
    return KILN_OK;
}

static kiln_status add_cast(editor *e, kiln_value *v, kiln_dtype to, form *out) {
    kiln_node *n;
    KILN_TRY(make_cast(e, v, to, &n));
    KILN_TRY(kiln_infer_node(e->graph, n, e->w->diag));
    KILN_TRY(append(e, n));
    *out = (form){n->out[0], e->graph};
    return KILN_OK;
}

/* A constant in the other type. */
static kiln_status convert_constant(editor *e, const kiln_value *v, form *out) {
    const kiln_tensor *t = &v->constant->tensor;
    kiln_tensor wide = *t;
    kiln_arena *arena = e->graph->arena;
    wide.dtype = e->w->to;
    wide.data = NULL;
    wide.cap_bytes = kiln_tensor_bytes(&wide);
    bool eager = t->data && wide.cap_bytes <= EAGER_BYTES;
    if (eager) {
        int64_t n = kiln_tensor_count(t);
        wide.data = kiln_arena_raw(arena, wide.cap_bytes);
        KILN_TRY(wide.data ? KILN_OK : KILN_E_MEMORY);
        for (int64_t i = 0; i < n; i++) {
            kiln_set_f64(wide.dtype, wide.data, i, kiln_get_f64(t->dtype, t->data, i));
        }
    }
    const char *name = kiln_graph_fresh_name(e->graph, v->name);
    if (!name) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(kiln_graph_constant(&out->value, e->graph, name, &wide));
    out->home = NULL;
    if (!eager) {
        KILN_TRY(make_cast(e, (kiln_value *)v, e->w->to, &out->value->constant->expr));
    }
    return KILN_OK;
}

static kiln_status get_wide(editor *e, kiln_value *v, kiln_value **out) {
    fate *f = fate_of(e->w, v);
    if (!is_visible(&f->wide, e->graph)) {
        KILN_TRY(v->constant ? convert_constant(e, v, &f->wide)
                             : add_cast(e, f->narrow.value, e->w->to, &f->wide));
    }
    *out = f->wide.value;
    return KILN_OK;
}

static kiln_status get_narrow(editor *e, kiln_value *v, kiln_value **out) {
    fate *f = fate_of(e->w, v);
    if (!is_visible(&f->narrow, e->graph)) {
        KILN_TRY(add_cast(e, f->wide.value, f->half, &f->narrow));
    }
    *out = f->narrow.value;
    return KILN_OK;
}

/* The operand of a node: half values in the form asked for. */
static kiln_status get_operand(editor *e, kiln_value *v, bool wide, kiln_value **out) {
    *out = v;
    if (!v) {
        return KILN_OK;
    }
    const fate *f = fate_of(e->w, v);
    if (f->half) {
        return wide ? get_wide(e, v, out) : get_narrow(e, v, out);
    }
    *out = f->same ? f->same : v;
    return KILN_OK;
}

/* ---- Nodes ---- */

static int64_t *int_attr(const kiln_node *n, const char *name) {
    for (uint16_t i = 0; i < n->op->n_attrs; i++) {
        const kiln_attr *row = &n->op->attrs[i];
        if (row->kind == KILN_ATTR_INT && strcmp(row->name, name) == 0) {
            return (int64_t *)(void *)((char *)n->attrs + row->offset);
        }
    }
    return NULL;
}

/* The node states that it gives a type that is rewritten. */
static bool names_half(const widener *w, const kiln_node *n) {
    static const char *const names[] = {"dtype", "output_dtype", "output_datatype", "precision"};
    for (size_t i = 0; i < KILN_COUNT_OF(names); i++) {
        const int64_t *v = int_attr(n, names[i]);
        if (v && is_from(w, (kiln_dtype)*v)) {
            return true;
        }
    }
    return false;
}

static bool may_widen(widener *w, const kiln_node *n) {
    bool half = false;
    for (int32_t k = 0; k < n->n_in + n->n_out; k++) {
        kiln_value *v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
        if (v && (v->type.kind != KILN_KIND_TENSOR || v->type.dtype == KILN_DTYPE_STRING)) {
            return false;
        }
        half = half || (v && k < n->n_in && fate_of(w, v)->half);
    }
    bool fixed = n->op == &kiln_op_cast_like || n->op == &kiln_op_bit_cast ||
                 (n->op->flags & KILN_OP_RANDOM) || n->n_bodies > 0 || names_half(w, n);
    bool asked = w->to == KILN_DTYPE_F32 || n->precision.dtype == w->to;
    return half && asked && !fixed;
}

/* What a node was, to go back to. */
typedef struct snapshot {
    kiln_value **in;
    kiln_value *out; /* types and contents of the outputs */
} snapshot;

static kiln_status take_snapshot(const editor *e, const kiln_node *n, snapshot *s) {
    s->in = n->in;
    KILN_ALLOC(s->out, e->graph->arena, n->n_out);
    for (int32_t i = 0; i < n->n_out; i++) {
        s->out[i] = *n->out[i];
    }
    return KILN_OK;
}

/* Inputs that ONNX wants in float32 whatever the others have. */
static bool stays_float(const widener *w, const kiln_node *n, int32_t in) {
    return w->to != KILN_DTYPE_F32 && n->op == &kiln_op_resize && in > 0;
}

/* The outputs are what they were, with float32 for half types. */
static bool gives_wide(const widener *w, const kiln_node *n, const snapshot *s) {
    for (int32_t i = 0; i < n->n_out; i++) {
        kiln_dtype before = s->out[i].type.dtype;
        if (n->out[i]->type.kind != KILN_KIND_TENSOR ||
            n->out[i]->type.dtype != (is_from(w, before) ? w->to : before)) {
            return false;
        }
    }
    return true;
}

/* Puts float32 operands in; false when the operator does not take them, the node is then
 * unchanged. */
static kiln_status try_wide(editor *e, kiln_node *n, bool *done) {
    snapshot s;
    size_t findings = kiln_diag_count(e->w->diag);
    int64_t *softmax = int_attr(n, "softmax_precision"), before = softmax ? *softmax : 0;
    KILN_TRY(take_snapshot(e, n, &s));
    KILN_ALLOC(n->in, e->graph->arena, n->n_in);
    for (int32_t i = 0; i < n->n_in; i++) {
        KILN_TRY(get_operand(e, s.in[i], !stays_float(e->w, n, i), &n->in[i]));
    }
    if (softmax && (before == KILN_DTYPE_F16 || before == KILN_DTYPE_BF16)) {
        *softmax = KILN_ABSENT;
    }
    kiln_status status = kiln_infer_node(e->graph, n, e->w->diag);
    if (status == KILN_E_MEMORY) {
        return status;
    }
    *done = status == KILN_OK && gives_wide(e->w, n, &s);
    for (int32_t i = 0; i < n->n_out && !*done; i++) {
        n->out[i]->type = s.out[i].type;
        n->out[i]->contents = s.out[i].contents;
        n->out[i]->n_contents = s.out[i].n_contents;
    }
    if (!*done) {
        kiln_diag_truncate(e->w->diag, findings);
        n->in = s.in;
        if (softmax) {
            *softmax = before;
        }
        return KILN_OK;
    }
    for (int32_t i = 0; i < n->n_out; i++) {
        fate *f = &e->w->fates[n->out[i]->id];
        bool half = is_from(e->w, s.out[i].type.dtype);
        *f = (fate){.known = true, .half = half ? s.out[i].type.dtype : KILN_DTYPE_NONE};
        *(half ? &f->wide : &f->narrow) = (form){n->out[i], e->graph};
    }
    e->w->n_wide++;
    return append(e, n);
}

static kiln_status widen_graph(widener *w, kiln_graph *graph);

static kiln_status keep_narrow(editor *e, kiln_node *n) {
    kiln_value **in = n->in;
    KILN_ALLOC(n->in, e->graph->arena, n->n_in);
    for (int32_t i = 0; i < n->n_in; i++) {
        KILN_TRY(get_operand(e, in[i], false, &n->in[i]));
    }
    for (int32_t b = 0; b < n->n_bodies; b++) {
        KILN_TRY(widen_graph(e->w, n->bodies[b]));
    }
    for (int32_t i = 0; i < n->n_out; i++) {
        fate_of(e->w, n->out[i]);
    }
    return append(e, n);
}

/* A Cast between half types and float32 is no work any more: its result is its operand. *done is
 * false for other nodes. */
static kiln_status skip_cast(editor *e, kiln_node *n, bool *done) {
    kiln_cast_attrs *a = n->attrs;
    kiln_value *x = n->in[0], *y = n->out[0];
    *done = false;
    if (n->op != &kiln_op_cast || x->type.kind != KILN_KIND_TENSOR || e->w->to != KILN_DTYPE_F32) {
        return KILN_OK;
    }
    const fate *from = fate_of(e->w, x);
    bool from_float = from->half || x->type.dtype == KILN_DTYPE_F32,
         to_half = is_half((kiln_dtype)a->to);
    bool alias =
        from_float && (to_half || (from->half && a->to == KILN_DTYPE_F32 && y->n_outputs == 0));
    if (alias) {
        kiln_value *wide;
        KILN_TRY(get_operand(e, x, true, &wide));
        fate *f = &e->w->fates[y->id];
        *f = (fate){
            .known = true, .half = to_half ? (kiln_dtype)a->to : KILN_DTYPE_NONE, .same = wide};
        f->wide = (form){wide, x->constant ? NULL : e->graph};
        *done = true;
    }
    return KILN_OK;
}

static kiln_status widen_node(editor *e, kiln_node *n) {
    bool done = false;
    KILN_TRY(skip_cast(e, n, &done));
    if (!done && may_widen(e->w, n)) {
        KILN_TRY(try_wide(e, n, &done));
    }
    return done ? KILN_OK : keep_narrow(e, n);
}

/* An output keeps type and name: the value that now gives it takes the name over. */
static kiln_status settle_output(editor *e, kiln_value **output) {
    kiln_value *old = *output, *now;
    KILN_TRY(get_operand(e, old, false, &now));
    if (now != old && now->name != old->name) {
        const char *fresh = kiln_graph_fresh_name(e->graph, old->name);
        if (!fresh) {
            return KILN_E_MEMORY;
        }
        now->name = old->name;
        old->name = fresh;
    }
    *output = now;
    return KILN_OK;
}

static kiln_status widen_graph(widener *w, kiln_graph *graph) {
    editor e = {.w = w, .graph = graph};
    for (size_t i = 0; i < graph->n_nodes; i++) {
        KILN_TRY(widen_node(&e, graph->nodes[i]));
    }
    for (size_t i = 0; i < graph->n_outputs; i++) {
        KILN_TRY(settle_output(&e, &graph->outputs[i]));
    }
    graph->nodes = e.nodes;
    graph->n_nodes = e.n_nodes;
    graph->cap_nodes = e.cap_nodes;
    return KILN_OK;
}

static kiln_status retype(kiln_graph *graph, kiln_dtype to, size_t *n_nodes, kiln_diag *diag) {
    widener w = {.root = graph, .to = to, .diag = diag};
    KILN_ALLOC(w.fates, graph->arena, graph->n_values);
    KILN_TRY(widen_graph(&w, graph));
    *n_nodes = w.n_wide;
    KILN_TRY(kiln_graph_index(graph));
    return kiln_infer_graph(graph, diag);
}

kiln_status kiln_widen(kiln_graph *graph, size_t *n_nodes, kiln_diag *diag) {
    return retype(graph, KILN_DTYPE_F32, n_nodes, diag);
}

kiln_status kiln_narrow(kiln_graph *graph, kiln_dtype dtype, size_t *n_nodes, kiln_diag *diag) {
    return retype(graph, dtype, n_nodes, diag);
}
