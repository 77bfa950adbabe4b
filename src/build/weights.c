/* weights.c - what a cover for trial shows: quantized weights that no kernel reads as integers, and
 * copies of a DequantizeLinear that none took. See quantized.h. */
#include "backend/backend.h"
#include "build/quantized.h"
#include "ops/ops.h"
#include "ops/quantize.h"
#include "ops/util.h"

/* Constants up to this size are computed now, so that claims can read them. */
enum { EAGER_BYTES = 64 * 1024 };

typedef struct folder {
    const kiln_cpu_target *target; /* NULL: biases, whatever the kernels */
    kiln_arena scratch;
    kiln_diag *diag;
    size_t n_values, n_changed;
} folder;

enum { GONE = -1 };

/* A DequantizeLinear of constants, its result no output. */
static bool is_foldable(const kiln_node *n) {
    if (n->op != &kiln_op_dequantize_linear || n->out[0]->n_outputs > 0) {
        return false;
    }
    for (int32_t k = 0; k < n->n_in; k++) {
        if (n->in[k] && !n->in[k]->constant) {
            return false;
        }
    }
    return kiln_type_is_static(&n->out[0]->type);
}

/* The node's output becomes a constant: the node is its recipe. */
static kiln_status fold(folder *f, kiln_graph *g, kiln_node *n) {
    kiln_value *v = n->out[0];
    kiln_const *c;
    KILN_ALLOC(c, g->arena, 1);
    kiln_type_to_tensor(&v->type, &c->tensor);
    c->tensor.cap_bytes = kiln_tensor_bytes(&c->tensor);
    c->expr = n;
    v->constant = c;
    if (c->tensor.cap_bytes <= EAGER_BYTES) {
        kiln_tensor t;
        KILN_TRY(kiln_const_eval(v, &t, &f->scratch, f->diag));
        c->tensor.data = kiln_arena_copy(g->arena, t.data, c->tensor.cap_bytes);
        c->expr = NULL;
        KILN_TRY(c->tensor.data ? KILN_OK : KILN_E_MEMORY);
    }
    f->n_changed++;
    return KILN_OK;
}

/* The readers of `copy` read what `first` gives. */
static void merge(kiln_node *copy, kiln_node *first) {
    kiln_value *from = copy->out[0];
    for (int32_t i = 0; i < from->n_users; i++) {
        kiln_node *reader = from->users[i];
        for (int32_t k = 0; k < reader->n_in; k++) {
            reader->in[k] = reader->in[k] == from ? first->out[0] : reader->in[k];
        }
    }
}

static bool same(const kiln_node *a, const kiln_node *b) {
    kiln_quant p, q;
    return kiln_quant_read(a, &p) && kiln_quant_read(b, &q) && kiln_quant_same(&p, &q);
}

/* Those that a cover leaves in regions of their own: constants are folded; of copies that
 * kiln_split_dequantize made the first stays. The others are marked with no id. */
static kiln_status fold_lonely(folder *f, kiln_graph *g) {
    kiln_plan trial = {.graph = g};
    kiln_node **first;
    KILN_ALLOC(first, &f->scratch, f->n_values);
    KILN_TRY(kiln_cpu_cover(&trial, f->target, &f->scratch, NULL, NULL, f->diag));
    for (size_t i = 0; i < trial.n_claims; i++) {
        kiln_node *n = trial.claims[i]->anchor;
        if (trial.claims[i]->n_nodes != 1 || n->op != &kiln_op_dequantize_linear) {
            continue;
        }
        if (is_foldable(n)) {
            KILN_TRY(fold(f, g, n));
            continue;
        }
        kiln_node **like = &first[n->in[0]->id];
        if (*like && same(*like, n) && n->out[0]->n_outputs == 0) {
            merge(n, *like);
            n->id = GONE;
            f->n_changed++;
        } else if (!n->in[0]->constant) {
            *like = n;
        }
    }
    return KILN_OK;
}

static kiln_status fold_biases(folder *f, kiln_graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_node *n = g->nodes[i];
        if (is_foldable(n) && n->in[0]->type.dtype == KILN_DTYPE_I32) {
            KILN_TRY(fold(f, g, n));
        }
    }
    return KILN_OK;
}

static kiln_status fold_graph(folder *f, kiln_graph *g) {
    KILN_TRY(f->target ? fold_lonely(f, g) : fold_biases(f, g));
    size_t n = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_node *node = g->nodes[i];
        if (!node->out[0]->constant && node->id != GONE) {
            g->nodes[n++] = node;
        }
        for (int32_t b = 0; b < node->n_bodies; b++) {
            KILN_TRY(fold_graph(f, node->bodies[b]));
        }
    }
    g->n_nodes = n;
    return KILN_OK;
}

static kiln_status round_of(folder *f, kiln_graph *graph) {
    kiln_arena_init(&f->scratch, graph->env);
    f->n_values = (size_t)graph->n_values;
    kiln_status status = fold_graph(f, graph);
    kiln_arena_free(&f->scratch);
    KILN_TRY(status);
    KILN_TRY(kiln_graph_index(graph));
    return kiln_infer_graph(graph, f->diag);
}

/* With weights that are constants the next cover may choose otherwise: once more shows it. */
enum { ROUNDS = 2 };

static kiln_status run(folder *f, kiln_graph *graph, size_t *n_nodes) {
    for (int i = 0; i < ROUNDS; i++) {
        size_t before = f->n_changed;
        KILN_TRY(round_of(f, graph));
        if (f->n_changed == before) {
            break;
        }
    }
    *n_nodes = f->n_changed;
    return KILN_OK;
}

kiln_status kiln_fold_weights(kiln_graph *graph, const kiln_cpu_target *target, size_t *n_nodes,
                              kiln_diag *diag) {
    folder f = {.target = target, .diag = diag};
    return run(&f, graph, n_nodes);
}

kiln_status kiln_fold_biases(kiln_graph *graph, size_t *n_nodes, kiln_diag *diag) {
    folder f = {.diag = diag};
    return run(&f, graph, n_nodes);
}
