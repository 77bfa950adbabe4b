/* api_repair.c - models quantized by other tools, written in the standard Q/DQ form. */
#include <string.h>

#include "api.h"
#include "base/diag.h"
#include "base/env.h"
#include "base/options.h"
#include "build/quantized.h"
#include "kiln/tools.h"
#include "ops/ops.h"
#include "ops/quantize.h"
#include "pass/pass.h"

typedef struct change {
    const char *what;
    size_t count;
} change;

typedef struct kept {
    const char *name, *why;
} kept;

/* The passes a repair runs, and what they do for it. The others would change what the model is made
 * of. */
static const struct {
    const char *pass, *what;
} passes[] = {
    {"dead", "nodes without use removed"},
    {"identity", "Casts to the same type and other nodes without effect removed"},
    {"fold", "scales, zero points and other constants computed"},
    {"qlinear", "QLinear operators written as Q/DQ"},
    {"quantize_pairs", "redundant pairs and integer Clips removed, scales made scalars"},
};

enum { MAX_CHANGES = KILN_COUNT_OF(passes) + 3 };

struct kiln_repair {
    const kiln_env *env;
    kiln_arena arena;
    kiln_dims dims;
    kiln_graph *graph;
    change changes[MAX_CHANGES];
    size_t n_changes;
    kept *kept;
    size_t n_kept, cap_kept;
};

static void note(kiln_repair *r, const char *what, size_t count) {
    if (count > 0) {
        r->changes[r->n_changes++] = (change){what, count};
    }
}

/* ---- Passes ---- */

static const char *described(const char *pass) {
    for (size_t i = 0; i < KILN_COUNT_OF(passes); i++) {
        if (strcmp(passes[i].pass, pass) == 0) {
            return passes[i].what;
        }
    }
    return NULL;
}

static kiln_status run_passes(kiln_repair *r, kiln_diag *diag) {
    const char **off;
    kiln_pass_info *infos;
    size_t n = 0, n_off = 0;
    while (kiln_pass_name(n)) {
        n++;
    }
    KILN_ALLOC(off, &r->arena, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (!described(kiln_pass_name(i))) {
            off[n_off++] = kiln_pass_name(i);
        }
    }
    const kiln_pass_options o = {.off = off};
    KILN_TRY(kiln_passes_run(r->graph, &o, &infos, &n, diag));
    for (size_t i = 0; i < n; i++) {
        if (!infos[i].off) {
            note(r, described(infos[i].name), infos[i].rewrites);
        }
    }
    return KILN_OK;
}

/* ---- Between a product and a residual addition ---- */

/* The node that makes v for one reader alone, if it is this operator. */
static const kiln_node *sole(const kiln_value *v, const kiln_op *op) {
    bool once = v && v->n_users == 1 && v->n_outputs == 0;
    return once && v->producer && v->producer->op == op ? v->producer : NULL;
}

/* What a product gives to operand v of an addition through Q and DQ, or NULL. */
static kiln_value *product_behind(const kiln_value *v) {
    static const kiln_op *const products[] = {&kiln_op_conv, &kiln_op_conv_transpose, &kiln_op_gemm,
                                              &kiln_op_matmul};
    const kiln_node *d = sole(v, &kiln_op_dequantize_linear);
    const kiln_node *q = d ? sole(d->in[0], &kiln_op_quantize_linear) : NULL;
    for (size_t i = 0; q && i < KILN_COUNT_OF(products); i++) {
        if (sole(q->in[0], products[i])) {
            return q->in[0];
        }
    }
    return NULL;
}

static kiln_status fuse_residuals(kiln_repair *r, kiln_diag *diag) {
    const kiln_pass_options o = {.only = "dead"};
    kiln_pass_info *infos;
    size_t n = 0, n_infos;
    for (size_t i = 0; i < r->graph->n_nodes; i++) {
        kiln_node *add = r->graph->nodes[i];
        for (int32_t k = 0; add->op == &kiln_op_add && k < 2; k++) {
            const kiln_value *other = add->in[1 - k];
            kiln_value *x = product_behind(add->in[k]);
            if (x && other->producer && other->producer->op == &kiln_op_dequantize_linear) {
                add->in[k] = x;
                n++;
                break;
            }
        }
    }
    note(r, "pairs between a product and an addition removed (one rounding less)", n);
    KILN_TRY(kiln_graph_index(r->graph));
    return kiln_passes_run(r->graph, &o, &infos, &n_infos, diag);
}

/* ---- What TensorRT wants ---- */

static const char *reason(const kiln_node *n, const kiln_quant *q) {
    for (int64_t i = 0; i < q->n; i++) {
        if (kiln_quant_zero(q, i) != (q->dtype == KILN_DTYPE_U8 ? 128 : 0)) {
            return "its zero point is not in the middle of its range";
        }
    }
    const kiln_value *v = n->op == &kiln_op_quantize_linear ? n->out[0] : n->in[0];
    return v->n_outputs > 0 || !v->producer ? "it is an input or output of the graph"
                                            : "it meets values of other zero points or readers";
}

/* Values that are not int8 of zero point 0. */
static kiln_status list_kept(kiln_repair *r, const kiln_graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        const kiln_value *v = n->op == &kiln_op_quantize_linear ? n->out[0] : n->in[0];
        bool first = n->op == &kiln_op_quantize_linear ||
                     (n->op == &kiln_op_dequantize_linear && !v->producer);
        kiln_quant q;
        bool fine = true;
        if (!first || !kiln_quant_read(n, &q)) {
            continue;
        }
        for (int64_t c = 0; c < q.n; c++) {
            fine = fine && kiln_quant_zero(&q, c) == 0;
        }
        if (q.dtype != KILN_DTYPE_I8 || !fine) {
            kept k = {v->name, reason(n, &q)};
            KILN_PUSH(&r->arena, r->kept, r->n_kept, r->cap_kept, k);
        }
    }
    return KILN_OK;
}

static kiln_status suit_tensorrt(kiln_repair *r, kiln_diag *diag) {
    size_t n;
    KILN_TRY(kiln_make_signed(r->graph, &n, diag));
    note(r, "uint8 values of zero point 128 made int8 of zero point 0", n);
    KILN_TRY(kiln_fold_biases(r->graph, &n, diag));
    note(r, "int32 biases made floats", n);
    return list_kept(r, r->graph);
}

/* ---- The whole ---- */

static kiln_status repair(kiln_repair *r, const kiln_model *model, const char *path,
                          const kiln_repair_options *o, kiln_diag *diag) {
    KILN_TRY(kiln_graph_clone(&r->graph, model->import.graph, &r->arena, &r->dims, r->env));
    KILN_TRY(run_passes(r, diag));
    if (o->fuse_residual) {
        KILN_TRY(fuse_residuals(r, diag));
    }
    if (o->runtime == KILN_REPAIR_FOR_TENSORRT) {
        KILN_TRY(suit_tensorrt(r, diag));
    }
    KILN_TRY(r->dims.oom ? KILN_E_MEMORY : KILN_OK);
    const kiln_export_options out = {.external_threshold = o->external_threshold,
                                     .producer_version = kiln_version()};
    return kiln_export_file(r->graph, path, &out, r->env, diag);
}

kiln_status kiln_model_repair(kiln_repair **out, const kiln_model *model, const char *path,
                              const kiln_repair_options *options, kiln_diag *diag) {
    kiln_repair_options o;
    if (!model || !path || kiln_options_read(&o, sizeof o, options) != KILN_OK) {
        return kiln_fail(
            diag, KILN_F_OPTION,
            "there is no model or path, or the options have no size or unknown fields");
    }
    kiln_repair *r = kiln_env_alloc(model->env, sizeof *r);
    if (!r) {
        return kiln_diag_close(diag, KILN_E_MEMORY);
    }
    memset(r, 0, sizeof *r);
    r->env = model->env;
    kiln_arena_init(&r->arena, r->env);
    kiln_dims_init(&r->dims, &r->arena);
    kiln_diag_enter(diag, "repairing");
    kiln_status status = repair(r, model, path, &o, diag);
    kiln_diag_leave(diag);
    if (status == KILN_OK) {
        *out = r;
    } else {
        kiln_repair_destroy(r);
    }
    return kiln_diag_close(diag, status);
}

void kiln_repair_destroy(kiln_repair *repair) {
    if (repair) {
        const kiln_env *env = repair->env;
        kiln_arena_free(&repair->arena);
        kiln_env_release(env, repair, sizeof *repair);
    }
}

const char *kiln_repair_change(const kiln_repair *repair, size_t i, size_t *count) {
    if (i >= repair->n_changes) {
        return NULL;
    }
    *count = repair->changes[i].count;
    return repair->changes[i].what;
}

const char *kiln_repair_kept(const kiln_repair *repair, size_t i, const char **why) {
    if (i >= repair->n_kept) {
        return NULL;
    }
    *why = repair->kept[i].why;
    return repair->kept[i].name;
}
