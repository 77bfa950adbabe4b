/* patch.c - describing rewrites: builders, and the commit that keeps or drops one. */
#include "ir/patch.h"

#include <string.h>

#include "base/env.h"

/* ---- Marks ---- */

static kiln_status fail(kiln_patch *p, kiln_status status) {
    if (p->status == KILN_OK) {
        p->status = status;
    }
    return status;
}

void *kiln_patch_scratch(kiln_patch *p, int64_t n, size_t item_bytes) {
    void *items = kiln_arena_array(p->arena, (size_t)n, item_bytes);
    if (!items) {
        fail(p, KILN_E_MEMORY);
    }
    return items;
}

static kiln_status push_mark(kiln_patch *p, kiln_value *v) {
    kiln_patch_mark mark = {.now = NULL};
    v->id = (int32_t)p->n_marks;
    KILN_PUSH(p->arena, p->marks, p->n_marks, p->cap_marks, mark);
    return KILN_OK;
}

static kiln_patch_mark *mark_of(const kiln_patch *p, const kiln_value *v) {
    return v && v->id >= 0 && (size_t)v->id < p->n_marks ? &p->marks[v->id] : NULL;
}

static kiln_patch_mark *node_mark(const kiln_patch *p, const kiln_node *n) {
    return n && n->n_out > 0 ? mark_of(p, n->out[0]) : NULL;
}

static void mark_outputs(kiln_patch *p, const kiln_graph *g) {
    for (size_t i = 0; i < g->n_outputs; i++) {
        p->marks[g->outputs[i]->id].is_output = true;
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        for (int32_t b = 0; b < g->nodes[i]->n_bodies; b++) {
            mark_outputs(p, g->nodes[i]->bodies[b]);
        }
    }
}

kiln_status kiln_patch_init(kiln_patch *p) {
    p->n_marks = p->cap_marks = (size_t)p->root->n_values;
    KILN_ALLOC(p->marks, p->arena, p->n_marks);
    mark_outputs(p, p->root);
    return KILN_OK;
}

/* Follows replacements; halves the path on the way, so that long chains cost little in all. */
kiln_value *kiln_patch_now(const kiln_patch *p, const kiln_value *value) {
    kiln_value *v = (kiln_value *)value;
    for (;;) {
        kiln_patch_mark *m = mark_of(p, v);
        if (!m || !m->now) {
            return v;
        }
        kiln_patch_mark *next = mark_of(p, m->now);
        if (next && next->now) {
            m->now = next->now;
        }
        v = m->now;
    }
}

bool kiln_patch_taken(const kiln_patch *p, const kiln_node *node) {
    const kiln_patch_mark *m = node_mark(p, node);
    return m && m->touched;
}

bool kiln_patch_may_replace(const kiln_patch *p, const kiln_value *old, const kiln_value *value) {
    const kiln_patch_mark *m = mark_of(p, old);
    if (!m || !m->is_output) {
        return true;
    }
    const kiln_value *now = kiln_patch_now(p, value);
    const kiln_patch_mark *target = mark_of(p, now);
    bool fresh = target && now->id >= p->root->n_values;
    return !now->constant && target && !target->is_output &&
           (fresh || (now->producer && now->home == old->home));
}

/* ---- Builders ---- */

static kiln_edit *push_edit(kiln_patch *p, kiln_edit_kind kind, const kiln_node *node) {
    kiln_edit *grown =
        kiln_arena_grow(p->arena, p->edits, p->n_edits, &p->cap_edits, sizeof *grown);
    if (!grown) {
        fail(p, KILN_E_MEMORY);
        return NULL;
    }
    p->edits = grown;
    kiln_edit *e = &p->edits[p->n_edits++];
    *e = (kiln_edit){.kind = kind, .node = (kiln_node *)node};
    return e;
}

static const kiln_op *find_op(kiln_patch *p, const char *name) {
    char domain[64] = "";
    const char *colon = strchr(name, ':');
    if (colon && (size_t)(colon - name) < sizeof domain) {
        memcpy(domain, name, (size_t)(colon - name));
        name = colon + 1;
    }
    const kiln_op *op = p->find(domain, name);
    if (!op) {
        fail(p, kiln_fail(p->diag, KILN_F_INTERNAL, "pass %s makes the unknown operator %s",
                          p->pass, name));
    }
    return op;
}

/* A detached node whose outputs have ids and know it. */
static kiln_node *make_node(kiln_patch *p, const kiln_op *op, kiln_value *const *in, int32_t n_in,
                            int32_t n_out) {
    kiln_node *n;
    kiln_status status = KILN_OK;
    if (!op || kiln_graph_detached(&n, p->root, op, NULL, in, n_in, n_out) != KILN_OK) {
        fail(p, KILN_E_MEMORY);
        return NULL;
    }
    for (int32_t i = 0; i < n_out && status == KILN_OK; i++) {
        n->out[i]->producer = n;
        n->out[i]->producer_out = i;
        status = push_mark(p, n->out[i]);
    }
    return status == KILN_OK ? n : (fail(p, status), NULL);
}

static kiln_node *add_node(kiln_patch *p, const kiln_op *op, kiln_value *const *in, int32_t n_in,
                           int32_t n_out) {
    kiln_node *n = p->status == KILN_OK ? make_node(p, op, in, n_in, n_out) : NULL;
    return n && push_edit(p, KILN_EDIT_ADD, n) ? n : NULL;
}

kiln_node *kiln_patch_node_outs(kiln_patch *p, const char *op, kiln_value *const *in, int32_t n_in,
                                int32_t n_out) {
    return add_node(p, find_op(p, op), in, n_in, n_out);
}

kiln_value *kiln_patch_node(kiln_patch *p, const char *op, kiln_value *const *in, int32_t n_in) {
    kiln_node *n = kiln_patch_node_outs(p, op, in, n_in, 1);
    return n ? n->out[0] : NULL;
}

kiln_node *kiln_patch_like(kiln_patch *p, const kiln_node *like, kiln_value *const *in,
                           int32_t n_in, int32_t n_out) {
    kiln_node *n = add_node(p, like->op, in, n_in, n_out);
    if (n) {
        memcpy(n->attrs, like->attrs, like->op->attrs_bytes);
    }
    return n;
}

/* The field of an attribute of a new node or expression, or NULL. */
static void *field(kiln_patch *p, kiln_value *value, const char *attr, kiln_attr_kind kind) {
    if (!value || p->status != KILN_OK) {
        return NULL;
    }
    kiln_node *n = value->constant ? value->constant->expr : value->producer;
    for (uint16_t i = 0; i < n->op->n_attrs; i++) {
        const kiln_attr *row = &n->op->attrs[i];
        bool same = row->kind == kind || (kind == KILN_ATTR_INT && row->kind == KILN_ATTR_ENUM);
        if (same && strcmp(row->name, attr) == 0) {
            return (char *)n->attrs + row->offset;
        }
    }
    fail(p, kiln_fail(p->diag, KILN_F_INTERNAL, "pass %s sets attribute %s, which %s lacks",
                      p->pass, attr, n->op->name));
    return NULL;
}

static bool is_enum(const kiln_value *value, const char *attr) {
    const kiln_node *n = value->constant ? value->constant->expr : value->producer;
    for (uint16_t i = 0; i < n->op->n_attrs; i++) {
        if (strcmp(n->op->attrs[i].name, attr) == 0) {
            return n->op->attrs[i].kind == KILN_ATTR_ENUM;
        }
    }
    return false;
}

void kiln_patch_int(kiln_patch *p, kiln_value *value, const char *attr, int64_t v) {
    void *at = field(p, value, attr, KILN_ATTR_INT);
    int32_t word = (int32_t)v;
    if (at && is_enum(value, attr)) {
        memcpy(at, &word, sizeof word);
    } else if (at) {
        memcpy(at, &v, sizeof v);
    }
}

void kiln_patch_float(kiln_patch *p, kiln_value *value, const char *attr, float v) {
    void *at = field(p, value, attr, KILN_ATTR_FLOAT);
    if (at) {
        memcpy(at, &v, sizeof v);
    }
}

void kiln_patch_ints(kiln_patch *p, kiln_value *value, const char *attr, const int64_t *v,
                     int64_t n) {
    kiln_ints *at = field(p, value, attr, KILN_ATTR_INTS);
    if (at) {
        at->v = kiln_arena_copy(p->root->arena, v, (size_t)n * sizeof *v);
        at->n = n;
        if (!at->v) {
            fail(p, KILN_E_MEMORY);
        }
    }
}

/* `base` gives the name what stands before the first ~ of its own. */
static kiln_value *add_constant(kiln_patch *p, const kiln_tensor *t, const char *base) {
    kiln_value *v;
    const char *stem = kiln_arena_text(p->arena, base, strcspn(base, "~"));
    const char *name = stem ? kiln_graph_fresh_name(p->root, stem) : NULL;
    if (!name || kiln_graph_constant(&v, p->root, name, t) != KILN_OK ||
        push_mark(p, v) != KILN_OK) {
        fail(p, KILN_E_MEMORY);
        return NULL;
    }
    return v;
}

kiln_value *kiln_patch_constant(kiln_patch *p, const kiln_tensor *tensor) {
    kiln_tensor t = *tensor;
    size_t bytes = kiln_tensor_bytes(&t);
    t.data = kiln_arena_copy(p->root->arena, tensor->data, bytes);
    t.cap_bytes = bytes;
    if (!t.data) {
        fail(p, KILN_E_MEMORY);
        return NULL;
    }
    return add_constant(p, &t, "c");
}

kiln_value *kiln_patch_vector(kiln_patch *p, const int64_t *v, int64_t n) {
    kiln_tensor t = {.dtype = KILN_DTYPE_I64, .rank = 1, .dims = {n}, .data = (void *)v};
    return kiln_patch_constant(p, &t);
}

static kiln_value *add_expr(kiln_patch *p, const kiln_op *op, kiln_value *const *in, int32_t n_in,
                            int32_t n_out, int32_t out, const kiln_tensor *type) {
    kiln_node *n;
    kiln_tensor t = *type;
    t.data = NULL;
    t.cap_bytes = 0;
    if (p->status != KILN_OK) {
        return NULL;
    }
    if (!op || kiln_graph_detached(&n, p->root, op, NULL, in, n_in, n_out) != KILN_OK) {
        fail(p, KILN_E_MEMORY);
        return NULL;
    }
    kiln_value *v = add_constant(p, &t, n_in > 0 && in[0] ? in[0]->name : "c");
    if (v) {
        v->constant->expr = n;
        v->constant->expr_out = out;
    }
    return v;
}

kiln_value *kiln_patch_expr(kiln_patch *p, const char *op, kiln_value *const *in, int32_t n_in,
                            const kiln_tensor *type) {
    return add_expr(p, find_op(p, op), in, n_in, 1, 0, type);
}

kiln_value *kiln_patch_expr_like(kiln_patch *p, const kiln_node *like, kiln_value *const *in,
                                 int32_t out, const kiln_tensor *type) {
    kiln_value *v = add_expr(p, like->op, in, like->n_in, like->n_out, out, type);
    if (v) {
        memcpy(v->constant->expr->attrs, like->attrs, like->op->attrs_bytes);
    }
    return v;
}

void kiln_patch_touch(kiln_patch *p, const kiln_node *node) {
    if (node) {
        push_edit(p, KILN_EDIT_TOUCH, node);
    }
}

void kiln_patch_replace(kiln_patch *p, const kiln_value *old, kiln_value *value) {
    kiln_patch_touch(p, old->producer);
    kiln_edit *e = push_edit(p, KILN_EDIT_REPLACE, NULL);
    if (e) {
        e->old = (kiln_value *)old;
        e->value = value;
    }
}

void kiln_patch_remove(kiln_patch *p, const kiln_node *node) {
    kiln_patch_touch(p, node);
    push_edit(p, KILN_EDIT_REMOVE, node);
}

void kiln_patch_adopt(kiln_patch *p, const kiln_node *node, kiln_graph *body) {
    kiln_patch_touch(p, node);
    kiln_edit *e = push_edit(p, KILN_EDIT_ADOPT, node);
    if (e) {
        e->body = body;
    }
    for (int32_t i = 0; i < node->n_out; i++) {
        kiln_patch_replace(p, node->out[i], body->outputs[i]);
    }
}

/* ---- Commit ---- */

/* The precision all touched nodes agree on; false when two differ. */
static bool join_precision(const kiln_patch *p, kiln_precision *out) {
    *out = (kiln_precision){KILN_DTYPE_NONE, false};
    for (size_t i = p->first; i < p->n_edits; i++) {
        const kiln_edit *e = &p->edits[i];
        if (e->kind != KILN_EDIT_TOUCH || e->node->precision.dtype == KILN_DTYPE_NONE) {
            continue;
        }
        if (out->dtype != KILN_DTYPE_NONE && out->dtype != e->node->precision.dtype) {
            return false;
        }
        out->obey = out->obey || e->node->precision.obey;
        out->dtype = e->node->precision.dtype;
    }
    return true;
}

static bool is_allowed(const kiln_patch *p, kiln_precision *precision) {
    if (p->n_rewrites >= p->max_rewrites) {
        return false;
    }
    for (size_t i = p->first; i < p->n_edits; i++) {
        const kiln_edit *e = &p->edits[i];
        if ((e->kind == KILN_EDIT_TOUCH && kiln_patch_taken(p, e->node)) ||
            (e->kind == KILN_EDIT_REPLACE &&
             (!e->value || kiln_patch_now(p, e->value) == kiln_patch_now(p, e->old) ||
              !kiln_patch_may_replace(p, e->old, e->value)))) {
            return false;
        }
    }
    return join_precision(p, precision);
}

static void swap_names(const char **a, const char **b) {
    const char *t = *a;
    *a = *b;
    *b = t;
}

/* Gives a new node what it inherits from every touched one. */
static kiln_status inherit(kiln_patch *p, kiln_node *node, kiln_precision precision) {
    node->precision = precision;
    for (size_t i = p->first; i < p->n_edits; i++) {
        const kiln_edit *e = &p->edits[i];
        if (e->kind == KILN_EDIT_TOUCH && e->node != node) {
            KILN_TRY(kiln_node_add_sources(p->root, node, e->node));
            node->offset = e->node->offset;
        }
    }
    return KILN_OK;
}

/* Where the rewrite's nodes will stand: before the producer of the first replaced value. */
static const kiln_node *place_of(const kiln_patch *p) {
    for (size_t i = p->first; i < p->n_edits; i++) {
        if (p->edits[i].kind == KILN_EDIT_REPLACE && p->edits[i].old->producer) {
            return p->edits[i].old->producer;
        }
    }
    return NULL;
}

/* A node with more sources than this gets no more by being what others are replaced with. */
enum { MAX_INHERITED = 64 };

/* The node that stays in the place of others remembers where they came from. */
static kiln_status credit(kiln_patch *p, kiln_value *target, const kiln_edit *e) {
    kiln_node *to = target->constant ? NULL : target->producer;
    const kiln_node *from = e->old->producer;
    if (!to || !from || to->n_sources >= MAX_INHERITED || target->id >= p->root->n_values) {
        return KILN_OK;
    }
    return kiln_node_add_sources(p->root, to, from);
}

static void replace_one(kiln_patch *p, const kiln_edit *e) {
    kiln_value *target = kiln_patch_now(p, e->value);
    kiln_patch_mark *old = mark_of(p, e->old), *now = mark_of(p, target);
    bool fresh = target->id >= p->root->n_values;
    if (fresh || (!target->constant && old->is_output)) {
        swap_names(&e->old->name, &target->name);
        if (fresh && !target->constant && target->producer_out == 0 && e->old->producer) {
            swap_names(&e->old->producer->name, &target->producer->name);
        }
    }
    now->is_output = now->is_output || old->is_output;
    old->now = target;
}

static kiln_status keep(kiln_patch *p, kiln_precision precision, const char *what) {
    const kiln_node *place = place_of(p);
    for (size_t i = p->first; i < p->n_edits; i++) {
        const kiln_edit *e = &p->edits[i];
        if (e->kind == KILN_EDIT_ADD) {
            KILN_TRY(inherit(p, e->node, precision));
        } else if (e->kind == KILN_EDIT_TOUCH && node_mark(p, e->node)) {
            node_mark(p, e->node)->touched = true;
        } else if (e->kind == KILN_EDIT_REMOVE) {
            node_mark(p, e->node)->removed = true;
        }
    }
    if (place) {
        node_mark(p, place)->rewrite = p->n_rewrites + 1;
    }
    if (kiln_env_logs(p->root->env, KILN_LOG_DEBUG)) {
        kiln_env_log(p->root->env, KILN_LOG_DEBUG, "pass %s: %s (%s)", p->pass, what,
                     place ? place->name : "constants");
    }
    for (size_t i = p->first; i < p->n_edits; i++) {
        if (p->edits[i].kind == KILN_EDIT_REPLACE) {
            KILN_TRY(credit(p, kiln_patch_now(p, p->edits[i].value), &p->edits[i]));
            replace_one(p, &p->edits[i]);
        }
    }
    size_t n = p->n_rewrites;
    KILN_PUSH(p->arena, p->starts, n, p->cap_starts, p->first);
    p->n_rewrites = n;
    p->first = p->n_edits;
    return KILN_OK;
}

void kiln_patch_drop(kiln_patch *p) {
    p->n_edits = p->first;
}

kiln_status kiln_patch_commit(kiln_patch *p, const char *what) {
    kiln_precision precision;
    KILN_TRY(p->status);
    if (p->n_edits == p->first || !is_allowed(p, &precision)) {
        kiln_patch_drop(p);
        return KILN_OK;
    }
    return keep(p, precision, what);
}
