#include "backend/cpu/kernels/pool_shape.h"

#include "ops/ops.h"
#include "ops/pool.h"

static const struct {
    const kiln_op *op;
    kiln_pool_kind kind;
} table[] = {
    {&kiln_op_max_pool, {KILN_POOL_MAX, false}},
    {&kiln_op_average_pool, {KILN_POOL_AVG, false}},
    {&kiln_op_lp_pool, {KILN_POOL_LP, false}},
    {&kiln_op_global_max_pool, {KILN_POOL_MAX, true}},
    {&kiln_op_global_average_pool, {KILN_POOL_AVG, true}},
    {&kiln_op_global_lp_pool, {KILN_POOL_LP, true}},
};

bool kiln_pool_kind_of(const kiln_node *node, kiln_pool_kind *out) {
    for (size_t i = 0; i < KILN_COUNT_OF(table); i++) {
        if (table[i].op == node->op) {
            *out = table[i].kind;
            return true;
        }
    }
    return false;
}

int32_t kiln_pool_power(const kiln_node *node, const kiln_pool_kind *kind) {
    return kind->op == KILN_POOL_LP ? (int32_t)((const kiln_pool_attrs *)node->attrs)->p : 1;
}

/* A window that may lie in the padding as a whole averages nothing. */
static bool pads_windows(const kiln_pool_attrs *a) {
    int64_t n = a->kernel_shape.n;
    for (int64_t i = 0; a->pads.v && i < a->pads.n; i++) {
        int64_t dilation = a->dilations.v ? a->dilations.v[i % n] : 1;
        if (a->pads.v[i] > (a->kernel_shape.v[i % n] - 1) * dilation) {
            return true;
        }
    }
    return false;
}

const char *kiln_pool_refusal(const kiln_node *node, const kiln_pool_kind *kind) {
    const kiln_pool_attrs *a = node->attrs;
    int32_t rank = node->in[0]->type.rank;
    if (rank < 3 || (!kind->global && rank > 5)) {
        return "it takes images of 1 to 3 spatial dims";
    }
    if (node->n_out > 1 && (node->out[1]->n_users > 0 || node->out[1]->n_outputs > 0)) {
        return "the indices are wanted too";
    }
    if (kind->op == KILN_POOL_LP && a->p > INT32_MAX) {
        return "p is too large";
    }
    return !kind->global && pads_windows(a) ? "a window may lie in the padding" : NULL;
}

static void lift(const int64_t *src, int32_t n, int64_t lead, int64_t dst[3]) {
    for (int32_t i = 0; i < 3; i++) {
        dst[i] = i < 3 - n ? lead : src[i - (3 - n)];
    }
}

static kiln_status bind_windows(const kiln_binder *b, const kiln_node *node, kiln_pool_args *g) {
    const kiln_pool_attrs *a = node->attrs;
    kiln_window w;
    KILN_TRY(kiln_pool_window(&w, a, &b->in[0].tensor, &b->out[0].tensor, b->diag));
    g->include_pad = g->op == KILN_POOL_AVG && a->count_include_pad;
    lift(w.in, w.n, 1, g->in);
    lift(w.out, w.n, 1, g->out);
    lift(w.kernel, w.n, 1, g->kernel);
    lift(w.stride, w.n, 1, g->stride);
    lift(w.dilation, w.n, 1, g->dilation);
    lift(w.pad_begin, w.n, 0, g->pad);
    lift(w.pad_end, w.n, 0, g->pad_end);
    return KILN_OK;
}

kiln_status kiln_pool_bind(const kiln_binder *b, const kiln_node *node, const kiln_pool_kind *kind,
                           kiln_pool_args *out, int64_t *units) {
    const kiln_tensor *x = &b->in[0].tensor;
    static const int64_t one[3] = {1, 1, 1}, none[3] = {0, 0, 0};
    *out = (kiln_pool_args){.op = kind->op,
                            .p = kiln_pool_power(node, kind),
                            .batch = x->dims[0],
                            .channels = x->dims[1]};
    if (kind->global) {
        const int64_t image[] = {kiln_tensor_count(x) / (x->dims[0] * x->dims[1])};
        lift(image, 1, 1, out->in);
        lift(image, 1, 1, out->kernel);
        lift(one, 3, 1, out->out);
        lift(one, 3, 1, out->stride);
        lift(one, 3, 1, out->dilation);
        lift(none, 3, 0, out->pad);
        lift(none, 3, 0, out->pad_end);
    } else {
        KILN_TRY(bind_windows(b, node, out));
    }
    *units = out->batch * out->out[0] * out->out[1] * out->out[2];
    return KILN_OK;
}
