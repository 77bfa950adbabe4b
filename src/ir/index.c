/* index.c - who makes and who uses each value, topological order, and the structural check. */
#include <string.h>

#include "ir/graph.h"

/* ---- Index: homes, then counts, then user lists. ---- */

/* Marks values whose user list is being filled; its address is all that matters. */
static const kiln_graph filling;

static void reset(kiln_value *v) {
    v->producer = NULL;
    v->producer_out = 0;
    v->n_users = 0;
    v->n_outputs = 0;
    v->id = -1;
    v->home = NULL;
    v->mark = NULL;
}

static void reset_graph(const kiln_graph *g) {
    for (size_t i = 0; i < g->n_inputs; i++) {
        reset(g->inputs[i]);
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        reset(g->outputs[i]);
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        for (int32_t k = 0; k < n->n_in; k++) {
            if (n->in[k]) {
                reset(n->in[k]);
            }
        }
        for (int32_t k = 0; k < n->n_out; k++) {
            reset(n->out[k]);
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            reset_graph(n->bodies[b]);
        }
    }
}

static void number(kiln_value *v, int32_t *next) {
    if (v->id < 0) {
        v->id = (*next)++;
    }
}

static void set_homes(kiln_graph *g, int32_t *next) {
    g->n_captures = 0;
    g->first_id = *next;
    for (size_t i = 0; i < g->n_inputs; i++) {
        g->inputs[i]->home = g;
        number(g->inputs[i], next);
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_node *n = g->nodes[i];
        n->id = (int32_t)i;
        for (int32_t k = 0; k < n->n_out; k++) {
            n->out[k]->home = g;
            n->out[k]->producer = n;
            n->out[k]->producer_out = k;
            number(n->out[k], next);
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            set_homes(n->bodies[b], next);
        }
    }
    g->end_id = *next;
}

/* A value used in g: remembered as a capture of g when it comes from further out. */
static kiln_status use(kiln_graph *g, kiln_value *v, int32_t *next) {
    number(v, next);
    if (v->constant || v->home == g || v->mark == g || !g->parent) {
        return KILN_OK;
    }
    v->mark = g;
    KILN_PUSH(g->arena, g->captures, g->n_captures, g->cap_captures, v);
    return KILN_OK;
}

static kiln_status count_uses(kiln_graph *g, int32_t *next) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        for (int32_t b = 0; b < n->n_bodies; b++) {
            KILN_TRY(count_uses(n->bodies[b], next));
        }
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        for (int32_t k = 0; k < n->n_in; k++) {
            if (n->in[k]) {
                n->in[k]->n_users++;
                KILN_TRY(use(g, n->in[k], next));
            }
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            const kiln_graph *body = n->bodies[b];
            for (size_t k = 0; k < body->n_captures; k++) {
                body->captures[k]->n_users++;
                KILN_TRY(use(g, body->captures[k], next));
            }
        }
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        g->outputs[i]->n_outputs++;
        KILN_TRY(use(g, g->outputs[i], next));
    }
    return KILN_OK;
}

/* Room for the counted uses; n_users then counts up again as they are filled in. */
static kiln_status add_user(kiln_graph *g, kiln_value *v, kiln_node *n) {
    if (v->mark != &filling) {
        v->mark = &filling;
        if (v->cap_users < v->n_users) {
            KILN_ALLOC(v->users, g->arena, v->n_users);
            v->cap_users = v->n_users;
        }
        v->n_users = 0;
    }
    v->users[v->n_users++] = n;
    return KILN_OK;
}

static kiln_status fill_users(kiln_graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_node *n = g->nodes[i];
        for (int32_t k = 0; k < n->n_in; k++) {
            if (n->in[k]) {
                KILN_TRY(add_user(g, n->in[k], n));
            }
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            const kiln_graph *body = n->bodies[b];
            KILN_TRY(fill_users(n->bodies[b]));
            for (size_t k = 0; k < body->n_captures; k++) {
                KILN_TRY(add_user(g, body->captures[k], n));
            }
        }
    }
    return KILN_OK;
}

kiln_status kiln_graph_index(kiln_graph *graph) {
    int32_t next = 0;
    reset_graph(graph);
    set_homes(graph, &next);
    KILN_TRY(count_uses(graph, &next));
    graph->n_values = next;
    return fill_users(graph);
}

/* ---- Topological order ---- */

/* Depth-first over dependencies with an explicit stack. state: 0 new, 1 open, 2 done. */
typedef struct sorter {
    kiln_graph *g;
    uint8_t *state;
    kiln_node **stack;
    size_t *cursor; /* next dependency of stack[i] to look at */
    size_t depth;
    kiln_node **order;
    size_t n_order;
} sorter;

/* Dependency i of n within its graph (inputs, then captures of its bodies), or NULL. *more tells
 * whether there is an i-th at all. */
static kiln_node *dependency(const sorter *s, const kiln_node *n, size_t i, bool *more) {
    const kiln_value *v = NULL;
    *more = true;
    if (i < (size_t)n->n_in) {
        v = n->in[i];
    } else {
        i -= (size_t)n->n_in;
        int32_t b = 0;
        while (b < n->n_bodies && i >= n->bodies[b]->n_captures) {
            i -= n->bodies[b++]->n_captures;
        }
        if (b == n->n_bodies) {
            *more = false;
            return NULL;
        }
        v = n->bodies[b]->captures[i];
    }
    return v && v->home == s->g ? v->producer : NULL;
}

static kiln_status visit(sorter *s, kiln_node *root, kiln_diag *diag) {
    if (s->state[root->id]) {
        return KILN_OK;
    }
    s->depth = 0;
    s->stack[0] = root;
    s->cursor[0] = 0;
    s->state[root->id] = 1;
    s->depth = 1;
    while (s->depth > 0) {
        kiln_node *n = s->stack[s->depth - 1];
        bool more;
        kiln_node *dep = dependency(s, n, s->cursor[s->depth - 1]++, &more);
        if (!more) {
            s->state[n->id] = 2;
            s->order[s->n_order++] = n;
            s->depth--;
        } else if (dep && s->state[dep->id] == 1) {
            kiln_diag_at_node(diag, n->name, n->op->name);
            return kiln_fail(diag, KILN_F_GRAPH,
                             "the graph has a cycle through nodes \"%s\" and \"%s\"", dep->name,
                             n->name);
        } else if (dep && s->state[dep->id] == 0) {
            s->state[dep->id] = 1;
            s->stack[s->depth] = dep;
            s->cursor[s->depth++] = 0;
        }
    }
    return KILN_OK;
}

static bool is_sorted(const sorter *s) {
    for (size_t i = 0; i < s->g->n_nodes; i++) {
        bool more = true;
        for (size_t k = 0; more; k++) {
            const kiln_node *dep = dependency(s, s->g->nodes[i], k, &more);
            if (dep && (size_t)dep->id >= i) {
                return false;
            }
        }
    }
    return true;
}

static kiln_status sort_one(kiln_graph *g, kiln_diag *diag) {
    sorter s = {.g = g};
    if (is_sorted(&s)) {
        return KILN_OK;
    }
    kiln_arena scratch;
    kiln_arena_init(&scratch, g->env);
    size_t n = g->n_nodes;
    s.state = kiln_arena_array(&scratch, n, sizeof *s.state);
    s.stack = kiln_arena_array(&scratch, n, sizeof(kiln_node *));
    s.cursor = kiln_arena_array(&scratch, n, sizeof *s.cursor);
    s.order = kiln_arena_array(&scratch, n, sizeof(kiln_node *));
    kiln_status status = s.state && s.stack && s.cursor && s.order ? KILN_OK : KILN_E_MEMORY;
    for (size_t i = 0; i < n && status == KILN_OK; i++) {
        status = visit(&s, g->nodes[i], diag);
    }
    if (status == KILN_OK) {
        memcpy(g->nodes, s.order, n * sizeof(kiln_node *));
        for (size_t i = 0; i < n; i++) {
            g->nodes[i]->id = (int32_t)i;
        }
    }
    kiln_arena_free(&scratch);
    return status;
}

static kiln_status sort_all(kiln_graph *g, kiln_diag *diag) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        for (int32_t b = 0; b < g->nodes[i]->n_bodies; b++) {
            KILN_TRY(sort_all(g->nodes[i]->bodies[b], diag));
        }
    }
    return sort_one(g, diag);
}

kiln_status kiln_graph_sort(kiln_graph *graph, kiln_diag *diag) {
    KILN_TRY(kiln_graph_index(graph));
    return sort_all(graph, diag);
}

/* ---- Verification ---- */

static bool is_input_of(const kiln_graph *g, const kiln_value *v) {
    return v->home == g && !v->producer;
}

/* v, used by the node at `position` of g, is there by then. */
static bool is_available(const kiln_graph *g, const kiln_value *v, size_t position) {
    if (v->constant || is_input_of(g, v)) {
        return true;
    }
    if (v->home == g) {
        return (size_t)v->producer->id < position;
    }
    for (const kiln_graph *outer = g->parent; outer; outer = outer->parent) {
        if (v->home == outer) {
            return true;
        }
    }
    return false;
}

static kiln_status verify_arity(const kiln_node *n, kiln_diag *diag) {
    const kiln_op *op = n->op;
    if (n->n_in < op->min_in || (op->max_in >= 0 && n->n_in > op->max_in)) {
        return kiln_fail(diag, KILN_F_ARITY, "has %d inputs, the operator takes %d to %d", n->n_in,
                         op->min_in, op->max_in);
    }
    if (n->n_out < op->min_out || (op->max_out >= 0 && n->n_out > op->max_out)) {
        return kiln_fail(diag, KILN_F_ARITY, "has %d outputs, the operator gives %d to %d",
                         n->n_out, op->min_out, op->max_out);
    }
    return KILN_OK;
}

/* Required lists, words and tensors are there; for numbers there is no telling. */
static kiln_status verify_attrs(const kiln_node *n, kiln_diag *diag) {
    for (uint16_t i = 0; i < n->op->n_attrs; i++) {
        const kiln_attr *row = &n->op->attrs[i];
        bool pointer = row->kind == KILN_ATTR_INTS || row->kind == KILN_ATTR_FLOATS ||
                       row->kind == KILN_ATTR_STRINGS || row->kind == KILN_ATTR_STRING ||
                       row->kind == KILN_ATTR_TENSOR;
        const void *p = NULL;
        if (!row->required || !pointer) {
            continue;
        }
        /* Lists begin with their pointer. */
        memcpy(&p, (const char *)n->attrs + row->offset, sizeof p);
        if (!p) {
            return kiln_fail(diag, KILN_F_ATTRIBUTE, "attribute \"%s\" is missing", row->name);
        }
    }
    return KILN_OK;
}

static kiln_status verify_node(const kiln_graph *g, const kiln_node *n, kiln_diag *diag) {
    kiln_diag_at_node(diag, n->name, n->op->name);
    KILN_TRY(verify_arity(n, diag));
    KILN_TRY(verify_attrs(n, diag));
    for (int32_t k = 0; k < n->n_in; k++) {
        if (n->in[k] && !is_available(g, n->in[k], (size_t)n->id)) {
            return kiln_fail(diag, KILN_F_GRAPH,
                             "input %d, \"%s\", is produced by nothing before it", k,
                             n->in[k]->name);
        }
    }
    for (int32_t k = 0; k < n->n_out; k++) {
        if (n->out[k]->producer != n || n->out[k]->producer_out != k) {
            return kiln_fail(diag, KILN_F_GRAPH, "output \"%s\" has two producers",
                             n->out[k]->name);
        }
    }
    for (int32_t b = 0; b < n->n_bodies; b++) {
        if (!n->bodies[b] || n->bodies[b]->parent != g) {
            return kiln_fail(diag, KILN_F_GRAPH, "body %d is missing", b);
        }
        KILN_TRY(kiln_graph_verify(n->bodies[b], diag));
        kiln_diag_at_node(diag, n->name, n->op->name);
    }
    return KILN_OK;
}

kiln_status kiln_graph_verify(const kiln_graph *graph, kiln_diag *diag) {
    for (size_t i = 0; i < graph->n_nodes; i++) {
        KILN_TRY(verify_node(graph, graph->nodes[i], diag));
    }
    kiln_diag_at_node(diag, NULL, NULL);
    for (size_t i = 0; i < graph->n_outputs; i++) {
        if (!is_available(graph, graph->outputs[i], graph->n_nodes)) {
            return kiln_fail(diag, KILN_F_GRAPH, "graph output \"%s\" is produced by nothing",
                             graph->outputs[i]->name);
        }
    }
    return KILN_OK;
}
