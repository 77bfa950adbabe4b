/* patch_apply.c - makes the rewrites of a sweep: a few walks over the graph, whatever their
 * number. */
#include "ir/patch.h"

static kiln_patch_mark *mark_of(const kiln_patch *p, const kiln_value *v) {
    return &p->marks[v->id];
}

static kiln_status push_dirty(kiln_patch *p, kiln_node *n) {
    KILN_PUSH(p->arena, p->dirty, p->n_dirty, p->cap_dirty, n);
    return KILN_OK;
}

/* ---- New nodes come in ---- */

typedef struct node_list {
    kiln_node **items;
    size_t count, cap;
} node_list;

static kiln_status append(kiln_arena *arena, node_list *list, kiln_node *n) {
    KILN_PUSH(arena, list->items, list->count, list->cap, n);
    return KILN_OK;
}

/* Appends what rewrite r makes to the list. */
static kiln_status insert(kiln_patch *p, kiln_graph *g, size_t r, node_list *list) {
    size_t end = r + 1 < p->n_rewrites ? p->starts[r + 1] : p->n_edits;
    for (size_t i = p->starts[r]; i < end; i++) {
        const kiln_edit *e = &p->edits[i];
        if (e->kind == KILN_EDIT_ADD) {
            KILN_TRY(push_dirty(p, e->node));
            KILN_TRY(append(g->arena, list, e->node));
        } else if (e->kind == KILN_EDIT_ADOPT) {
            for (size_t k = 0; k < e->body->n_nodes; k++) {
                kiln_node *n = e->body->nodes[k];
                for (int32_t b = 0; b < n->n_bodies; b++) {
                    n->bodies[b]->parent = g;
                }
                KILN_TRY(append(g->arena, list, n));
            }
            e->body->n_nodes = 0;
        }
    }
    return KILN_OK;
}

static bool has_rewrite(const kiln_patch *p, const kiln_graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i]->n_out > 0 && mark_of(p, g->nodes[i]->out[0])->rewrite) {
            return true;
        }
    }
    return false;
}

static kiln_status insert_all(kiln_patch *p, kiln_graph *g) {
    /* Bodies first: an adopted one must already hold what was rewritten in it. */
    for (size_t i = 0; i < g->n_nodes; i++) {
        for (int32_t b = 0; b < g->nodes[i]->n_bodies; b++) {
            KILN_TRY(insert_all(p, g->nodes[i]->bodies[b]));
        }
    }
    if (!has_rewrite(p, g)) {
        return KILN_OK;
    }
    node_list list = {.count = 0};
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_node *n = g->nodes[i];
        size_t r = n->n_out > 0 ? mark_of(p, n->out[0])->rewrite : 0;
        if (r) {
            KILN_TRY(insert(p, g, r - 1, &list));
        }
        KILN_TRY(append(g->arena, &list, n));
    }
    g->nodes = list.items;
    g->n_nodes = list.count;
    g->cap_nodes = list.cap;
    return KILN_OK;
}

/* ---- Uses follow their replacements ---- */

static kiln_status resolve(kiln_patch *p, kiln_graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_node *n = g->nodes[i];
        bool changed = false;
        for (int32_t k = 0; k < n->n_in; k++) {
            kiln_value *now = n->in[k] ? kiln_patch_now(p, n->in[k]) : NULL;
            changed = changed || now != n->in[k];
            n->in[k] = now;
            if (now) {
                mark_of(p, now)->uses++;
            }
        }
        if (changed) {
            KILN_TRY(push_dirty(p, n));
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            KILN_TRY(resolve(p, n->bodies[b]));
        }
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        kiln_value *now = kiln_patch_now(p, g->outputs[i]);
        g->outputs[i] = now;
        mark_of(p, now)->uses++;
    }
    return KILN_OK;
}

/* ---- What has become unused goes ---- */

static bool is_unused(const kiln_patch *p, const kiln_node *n) {
    for (int32_t k = 0; k < n->n_out; k++) {
        if (mark_of(p, n->out[k])->uses) {
            return false;
        }
    }
    return n->n_out > 0;
}

static kiln_status release(kiln_patch *p, kiln_value *v, node_list *wait) {
    kiln_node *producer = v->constant ? NULL : v->producer;
    if (--mark_of(p, v)->uses == 0 && producer && is_unused(p, producer)) {
        KILN_TRY(append(p->arena, wait, producer));
    }
    return KILN_OK;
}

/* The node counts as a user for the last time. False when it did before. */
static bool leave(const kiln_patch *p, const kiln_node *n) {
    kiln_patch_mark *m = n->n_out > 0 ? mark_of(p, n->out[0]) : NULL;
    if (!m || m->released) {
        return false;
    }
    m->released = true;
    return true;
}

static kiln_status release_body(kiln_patch *p, const kiln_graph *g, node_list *wait) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        if (!leave(p, n)) {
            continue;
        }
        for (int32_t k = 0; k < n->n_in; k++) {
            if (n->in[k]) {
                KILN_TRY(release(p, n->in[k], wait));
            }
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            KILN_TRY(release_body(p, n->bodies[b], wait));
        }
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        KILN_TRY(release(p, g->outputs[i], wait));
    }
    return KILN_OK;
}

static kiln_status sweep_unused(kiln_patch *p) {
    node_list wait = {.count = 0};
    for (size_t i = 0; i < p->n_edits; i++) {
        const kiln_edit *e = &p->edits[i];
        if (e->kind == KILN_EDIT_TOUCH && is_unused(p, e->node)) {
            KILN_TRY(append(p->arena, &wait, e->node));
        }
    }
    while (wait.count > 0) {
        kiln_node *n = wait.items[--wait.count];
        if (!leave(p, n)) {
            continue;
        }
        mark_of(p, n->out[0])->removed = true;
        for (int32_t k = 0; k < n->n_in; k++) {
            if (n->in[k]) {
                KILN_TRY(release(p, n->in[k], &wait));
            }
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            KILN_TRY(release_body(p, n->bodies[b], &wait));
        }
    }
    return KILN_OK;
}

static void compact(const kiln_patch *p, kiln_graph *g) {
    size_t n = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_node *node = g->nodes[i];
        if (node->n_out > 0 && mark_of(p, node->out[0])->removed) {
            continue;
        }
        g->nodes[n++] = node;
        for (int32_t b = 0; b < node->n_bodies; b++) {
            compact(p, node->bodies[b]);
        }
    }
    g->n_nodes = n;
}

kiln_status kiln_patch_apply(kiln_patch *p) {
    KILN_TRY(p->status);
    KILN_TRY(insert_all(p, p->root));
    KILN_TRY(resolve(p, p->root));
    KILN_TRY(sweep_unused(p));
    compact(p, p->root);
    size_t n = 0;
    for (size_t i = 0; i < p->n_dirty; i++) {
        if (!mark_of(p, p->dirty[i]->out[0])->removed) {
            p->dirty[n++] = p->dirty[i];
        }
    }
    p->n_dirty = n;
    return KILN_OK;
}
