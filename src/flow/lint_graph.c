/* lint_graph.c - lint over the imported graph, whose types are known (lint.h). */
#include <math.h>
#include <string.h>

#include "base/env.h"
#include "base/file.h"
#include "flow/lint.h"
#include "onnx/onnx.h"
#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/util.h"

typedef struct lint {
    kiln_diag *diag;
    kiln_arena *arena;
    const kiln_graph **graphs; /* still to be looked at */
    size_t n_graphs, cap_graphs;
    kiln_rule nan, infinite, tiny, scale, axis, there_and_back, narrowing;
} lint;

static void at(lint *l, const kiln_node *n) {
    kiln_diag_at_node(l->diag, n->name, n->op->name);
    kiln_diag_at_offset(l->diag, n->offset);
}

/* ---- Weights ---- */

typedef struct census {
    int64_t nan, infinite, tiny; /* tiny: denormal */
} census;

static census count_f32(const float *x, int64_t n) {
    census c = {0};
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits, exponent;
        memcpy(&bits, &x[i], sizeof bits);
        exponent = bits >> 23 & 0xFF;
        c.nan += exponent == 0xFF && (bits & 0x7FFFFF) != 0;
        c.infinite += exponent == 0xFF && (bits & 0x7FFFFF) == 0;
        c.tiny += exponent == 0 && (bits & 0x7FFFFF) != 0;
    }
    return c;
}

static census count_values(const kiln_tensor *t) {
    int64_t n = kiln_tensor_count(t);
    census c = {0};
    if (t->dtype == KILN_DTYPE_F32) {
        return count_f32(t->data, n);
    }
    for (int64_t i = 0; i < n && kiln_dtype_is_float(t->dtype); i++) {
        double x = kiln_get_f64(t->dtype, t->data, i);
        c.nan += isnan(x) != 0;
        c.infinite += isinf(x) != 0;
    }
    return c;
}

static void look_at_weight(lint *l, const kiln_node *n, const kiln_value *v) {
    const kiln_tensor *t = kiln_value_data(v);
    if (!t || v->n_users == 0 || v->users[0] != n) {
        return; /* another node has reported it */
    }
    census c = count_values(t);
    long long total = (long long)kiln_tensor_count(t);
    if (c.nan > 0 && kiln_rule_reports(&l->nan)) {
        kiln_warn(l->diag, KILN_F_LINT, "weight \"%s\": %lld of %lld values are NaN", v->name,
                  (long long)c.nan, total);
        kiln_hint(l->diag, KILN_OK, "the training diverged, or the file was damaged");
    }
    if (c.infinite > 0 && kiln_rule_reports(&l->infinite)) {
        kiln_note(l->diag, KILN_F_LINT, "weight \"%s\": %lld of %lld values are infinite", v->name,
                  (long long)c.infinite, total);
        kiln_hint(l->diag, KILN_OK, "meant as a mask? A row of -infinity alone makes NaN");
    }
    if (c.tiny > 0 && kiln_rule_reports(&l->tiny)) {
        kiln_note(l->diag, KILN_F_LINT,
                  "weight \"%s\": %lld of %lld values are denormal and count as zero", v->name,
                  (long long)c.tiny, total);
    }
}

/* ---- Quantization ---- */

static void look_at_scales(lint *l, const kiln_node *n) {
    const kiln_value *v = kiln_node_in(n, 1);
    const kiln_tensor *t = kiln_value_data(v);
    int64_t wrong = 0, first = -1;
    for (int64_t i = 0; t && i < kiln_tensor_count(t); i++) {
        double s = kiln_get_f64(t->dtype, t->data, i);
        bool bad = !(s > 0) || isinf(s);
        first = bad && wrong == 0 ? i : first;
        wrong += bad;
    }
    if (wrong > 0 && kiln_rule_reports(&l->scale)) {
        kiln_warn(l->diag, KILN_F_LINT,
                  "scale \"%s\": %lld of %lld values are not positive and finite; [%lld] is %g",
                  v->name, (long long)wrong, (long long)kiln_tensor_count(t), (long long)first,
                  kiln_get_f64(t->dtype, t->data, first));
        kiln_hint(l->diag, KILN_OK, "a channel of zeros? Quantizers should give it a scale of 1");
    }
}

/* The axis of a weight that the output channels lie on, or -1. */
static int64_t channel_axis(const kiln_node *user, const kiln_value *weight) {
    int32_t rank = weight->type.rank;
    if (kiln_node_in(user, 1) != weight || rank < 2) {
        return -1;
    }
    if (user->op == &kiln_op_conv) {
        return 0;
    }
    if (user->op == &kiln_op_conv_transpose) {
        return 1;
    }
    if (user->op == &kiln_op_gemm) {
        return ((const kiln_gemm_attrs *)user->attrs)->transB ? 0 : 1;
    }
    return user->op == &kiln_op_matmul ? rank - 1 : -1;
}

/* Scales along another axis than the output channels' cannot be taken out of the sum. */
static void look_at_axis(lint *l, const kiln_node *n) {
    const kiln_quant_attrs *a = n->attrs;
    const kiln_tensor *scale = kiln_value_data(kiln_node_in(n, 1));
    const kiln_value *out = n->out[0];
    if (!scale || kiln_tensor_count(scale) < 2 || a->block_size > 0) {
        return;
    }
    int64_t axis = a->axis < 0 ? a->axis + out->type.rank : a->axis;
    for (int32_t i = 0; i < out->n_users; i++) {
        int64_t channels = channel_axis(out->users[i], out);
        if (channels >= 0 && channels != axis && kiln_rule_reports(&l->axis)) {
            kiln_warn(l->diag, KILN_F_LINT,
                      "scales lie along axis %lld, but the output channels of %s \"%s\" along %lld",
                      (long long)axis, out->users[i]->op->name, out->users[i]->name,
                      (long long)channels);
            kiln_hint(l->diag, KILN_OK, "such a layer cannot run in integers");
        }
    }
}

/* ---- Casts ---- */

static void look_at_cast(lint *l, const kiln_node *n) {
    const kiln_value *x = kiln_node_in(n, 0);
    kiln_dtype to = n->out[0]->type.dtype;
    if (!x || x->type.kind != KILN_KIND_TENSOR) {
        return;
    }
    const kiln_node *before = x->producer;
    if (before && before->op == &kiln_op_cast && kiln_node_in(before, 0) && x->type.dtype != to &&
        before->in[0]->type.dtype == to && kiln_rule_reports(&l->there_and_back)) {
        kiln_note(l->diag, KILN_F_LINT, "casts back to %s what \"%s\" made %s", kiln_dtype_name(to),
                  before->name, kiln_dtype_name(x->type.dtype));
        kiln_hint(l->diag, KILN_OK, "costs time, and digits where the type between is narrower");
    }
    bool narrows = x->type.dtype == KILN_DTYPE_I64 && kiln_dtype_is_int(to) &&
                   kiln_dtype_bits(to) < 64 && !x->constant && !x->contents;
    if (narrows && kiln_rule_reports(&l->narrowing)) {
        kiln_note(l->diag, KILN_F_LINT, "narrows int64 to %s: values beyond it wrap",
                  kiln_dtype_name(to));
    }
}

/* ---- All of it ---- */

static kiln_status look_at_node(lint *l, const kiln_node *n) {
    at(l, n);
    bool quant = n->op == &kiln_op_quantize_linear || n->op == &kiln_op_dequantize_linear;
    for (int32_t i = 0; i < n->n_in; i++) {
        bool again = false;
        for (int32_t k = 0; k < i; k++) {
            again |= n->in[k] == n->in[i];
        }
        if (n->in[i] && !again && !(quant && i == 1)) {
            look_at_weight(l, n, n->in[i]);
        }
    }
    if (quant) {
        look_at_scales(l, n);
        look_at_axis(l, n);
    }
    if (n->op == &kiln_op_cast) {
        look_at_cast(l, n);
    }
    for (int32_t b = 0; b < n->n_bodies; b++) {
        KILN_PUSH(l->arena, l->graphs, l->n_graphs, l->cap_graphs, n->bodies[b]);
    }
    return KILN_OK;
}

static void look_at_inputs(const lint *l, const kiln_graph *g) {
    for (size_t i = 0; i < g->n_inputs; i++) {
        const kiln_type *t = &g->inputs[i]->type;
        bool open = false;
        for (int32_t d = 0; t->kind == KILN_KIND_TENSOR && d < t->rank; d++) {
            open |= t->dims[d] < 0;
        }
        if (open) {
            kiln_note(l->diag, KILN_F_LINT,
                      "input \"%s\" is %s: every new shape is planned when it first comes",
                      g->inputs[i]->name, kiln_type_text(g->dims, t, l->arena));
            kiln_hint(l->diag, KILN_OK, "--override-shape %s:... fixes it", g->inputs[i]->name);
        }
    }
}

static kiln_status look(lint *l, kiln_graph *root) {
    look_at_inputs(l, root);
    KILN_PUSH(l->arena, l->graphs, l->n_graphs, l->cap_graphs, root);
    while (l->n_graphs > 0) {
        const kiln_graph *g = l->graphs[--l->n_graphs];
        for (size_t i = 0; i < g->n_nodes; i++) {
            KILN_TRY(look_at_node(l, g->nodes[i]));
        }
    }
    kiln_diag_at_node(l->diag, NULL, NULL);
    kiln_diag_at_offset(l->diag, -1);
    const kiln_rule *rules[] = {&l->nan,  &l->infinite,       &l->tiny,     &l->scale,
                                &l->axis, &l->there_and_back, &l->narrowing};
    for (size_t i = 0; i < KILN_COUNT_OF(rules); i++) {
        kiln_rule_end(rules[i], l->diag);
    }
    return KILN_OK;
}

kiln_status kiln_lint_graph(const char *path, const kiln_model_options *options,
                            const kiln_env *env, kiln_diag *diag) {
    kiln_arena arena;
    kiln_files files = {0};
    kiln_import model;
    kiln_import_options o = {0};
    if (options) {
        o.external_root = options->external_root;
        o.no_mmap = options->no_mmap;
    }
    kiln_arena_init(&arena, env);
    lint l = {.diag = diag,
              .arena = &arena,
              .nan = {.what = "weights with NaN"},
              .infinite = {.what = "weights with infinities"},
              .tiny = {.what = "weights with denormal values"},
              .scale = {.what = "scales that are not positive"},
              .axis = {.what = "scales along an axis that is not the output channels'"},
              .there_and_back = {.what = "casts there and back"},
              .narrowing = {.what = "narrowing casts"}};
    kiln_status status = kiln_import_file(&model, path, &o, &arena, &files, env, NULL);
    status = status == KILN_OK ? kiln_infer_graph(model.graph, NULL) : status;
    status = status == KILN_OK ? kiln_graph_index(model.graph) : status;
    bool sound = status == KILN_OK;
    status = sound ? look(&l, model.graph) : status;
    for (size_t i = 0; i < files.count; i++) {
        kiln_file_close(files.items[i]);
    }
    kiln_arena_free(&arena);
    return sound || status == KILN_E_MEMORY ? status : KILN_OK;
}
