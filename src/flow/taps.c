/* taps.c - quantized values inside a network against the float network's, by taps on both. */
#include <math.h>
#include <string.h>

#include "engine/engine.h"
#include "flow/study.h"
#include "ops/ops.h"
#include "ops/util.h"

enum { TAPPED_BATCHES = 4 };

/* A value that is quantized: its name in both networks, and what its integers mean. */
typedef struct pair {
    const char *name, *quantized;
    double scale;
    int64_t zero;
    kiln_tensor exact; /* of this batch */
    double signal, error;
} pair;

typedef struct tapping {
    pair *pairs;
    size_t n, cap;
    kiln_arena scratch; /* of one batch */
    bool is_float;      /* which network runs */
} tapping;

/* ---- What is looked at ---- */

/* A constant's only element. */
static bool scalar_of(const kiln_value *v, double *out) {
    const kiln_tensor *t = v && v->constant ? &v->constant->tensor : NULL;
    if (!t || !t->data || kiln_tensor_count(t) != 1) {
        return false;
    }
    *out = kiln_dtype_is_float(t->dtype) ? kiln_get_f64(t->dtype, t->data, 0)
                                         : (double)kiln_get_i64(t->dtype, t->data, 0);
    return true;
}

/* Every QuantizeLinear of an activation, as the plan runs it. */
static kiln_status list_pairs(tapping *t, const kiln_graph *g, kiln_arena *arena) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        double scale, zero = 0;
        bool fits = n->op == &kiln_op_quantize_linear && !n->in[0]->constant &&
                    scalar_of(kiln_node_in(n, 1), &scale) &&
                    (!kiln_node_in(n, 2) || scalar_of(kiln_node_in(n, 2), &zero));
        if (fits) {
            pair p = {.name = n->in[0]->name,
                      .quantized = n->out[0]->name,
                      .scale = scale,
                      .zero = (int64_t)zero};
            KILN_PUSH(arena, t->pairs, t->n, t->cap, p);
        }
    }
    return KILN_OK;
}

/* ---- Seeing ---- */

static pair *find(const tapping *t, const char *name) {
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->is_float ? t->pairs[i].name : t->pairs[i].quantized, name) == 0) {
            return &t->pairs[i];
        }
    }
    return NULL;
}

static bool wants(void *user, const char *name) {
    return find(user, name) != NULL;
}

static void add_errors(pair *p, const kiln_tensor *have) {
    int64_t count = kiln_tensor_count(have);
    for (int64_t i = 0; i < count; i++) {
        double x = kiln_get_f64(p->exact.dtype, p->exact.data, i);
        double q = (double)(kiln_get_i64(have->dtype, have->data, i) - p->zero) * p->scale;
        if (isfinite(x)) {
            p->signal += x * x;
            p->error += (x - q) * (x - q);
        }
    }
}

static kiln_status see(void *user, const char *name, const char *node, const kiln_tensor *tensor,
                       bool replayed) {
    tapping *t = user;
    pair *p = find(t, name);
    (void)node;
    (void)replayed;
    if (t->is_float && kiln_dtype_is_float(tensor->dtype)) {
        p->exact = *tensor;
        p->exact.data = kiln_arena_copy(&t->scratch, tensor->data, kiln_tensor_bytes(tensor));
        return p->exact.data || kiln_tensor_count(tensor) == 0 ? KILN_OK : KILN_E_MEMORY;
    }
    if (!t->is_float && p->exact.data && kiln_dtype_is_int(tensor->dtype) &&
        kiln_tensor_count(tensor) == kiln_tensor_count(&p->exact)) {
        add_errors(p, tensor);
    }
    return KILN_OK;
}

static kiln_status run_tapped(tapping *t, kiln_context *context, bool is_float, kiln_diag *diag) {
    const kiln_tap tap = {.wants = wants, .see = see, .user = t};
    t->is_float = is_float;
    kiln_context_set_tap(context, &tap);
    kiln_status status = kiln_context_run(context, diag);
    kiln_context_set_tap(context, NULL);
    return status;
}

/* Inputs are no results of a step: they are what was bound. */
static void begin_batch(tapping *t, const kiln_gauge *gauge, size_t k) {
    for (size_t i = 0; i < t->n; i++) {
        const kiln_tensor *in = kiln_gauge_input(gauge, k, t->pairs[i].name);
        t->pairs[i].exact = in && kiln_dtype_is_float(in->dtype) ? *in : (kiln_tensor){0};
    }
}

static kiln_status run_all(tapping *t, kiln_study_job *job, kiln_context *context) {
    kiln_context *exact = kiln_gauge_context(job->gauge);
    for (size_t k = 0; k < TAPPED_BATCHES && kiln_gauge_bind(job->gauge, k, exact, job->diag);
         k++) {
        kiln_arena_recycle(&t->scratch);
        begin_batch(t, job->gauge, k);
        KILN_TRY(run_tapped(t, exact, true, job->diag));
        if (kiln_gauge_bind(job->gauge, k, context, job->diag)) {
            KILN_TRY(run_tapped(t, context, false, job->diag));
        }
    }
    return KILN_OK;
}

/* ---- To the layers ---- */

/* The quantized value that a layer reads: what is in front of its DequantizeLinear. */
static const pair *input_of(const tapping *t, const kiln_graph *g, const char *layer) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        const kiln_node *d = n->n_in > 0 && n->in[0] ? n->in[0]->producer : NULL;
        if (strcmp(n->name, layer) != 0 || !d || d->op != &kiln_op_dequantize_linear) {
            continue;
        }
        for (size_t k = 0; k < t->n; k++) {
            if (strcmp(t->pairs[k].quantized, d->in[0]->name) == 0) {
                return &t->pairs[k];
            }
        }
    }
    return NULL;
}

static kiln_status tell_layers(const tapping *t, kiln_study *s, const kiln_graph *g) {
    for (size_t i = 0; i < s->n_layers; i++) {
        kiln_layer_cost *c = &s->layers[i];
        const pair *p = input_of(t, g, c->name);
        if (p && p->signal > 0) {
            c->input = kiln_arena_text(&s->arena, p->name, strlen(p->name));
            c->input_sqnr_db = -10 * log10(p->error / p->signal);
            KILN_TRY(c->input ? KILN_OK : KILN_E_MEMORY);
        }
    }
    return KILN_OK;
}

kiln_status kiln_study_taps(kiln_study_job *job, const kiln_engine *engine, kiln_context *context) {
    tapping t = {0};
    kiln_arena_init(&t.scratch, job->study->env);
    kiln_status status = list_pairs(&t, engine->graph, &job->study->arena);
    status = status ? status : run_all(&t, job, context);
    status = status ? status : tell_layers(&t, job->study, engine->graph);
    kiln_arena_free(&t.scratch);
    return status;
}
