/* reduce_f32.c - float32 reductions, ArgMax and ArgMin over axes that lie together in memory.
 *
 * * In layout ROW the axes must be neighbours; in LAST neighbours in the order N, spatial, C.
 * What stays is written in the order it is read, which must be a layout of the output. */
#include <string.h>

#include "backend/cpu/axes.h"
#include "backend/cpu/prims/reduce.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct reduce_params {
    bool mask[KILN_MAX_RANK]; /* logical axes reduced */
    bool is_arg;
    kiln_reduce_op op;
} reduce_params;

typedef struct reduce_state {
    const kiln_reduce_prims *prims;
    bool is_arg;
    kiln_reduce_args reduce;
    kiln_argreduce_args arg;
    int64_t results;
} reduce_state;

static const struct {
    const kiln_op *op;
    kiln_reduce_op reduce;
} table[] = {
    {&kiln_op_reduce_sum, KILN_REDUCE_SUM},
    {&kiln_op_reduce_mean, KILN_REDUCE_MEAN},
    {&kiln_op_reduce_max, KILN_REDUCE_MAX},
    {&kiln_op_reduce_min, KILN_REDUCE_MIN},
    {&kiln_op_reduce_prod, KILN_REDUCE_PROD},
    {&kiln_op_reduce_l1, KILN_REDUCE_L1},
    {&kiln_op_reduce_l2, KILN_REDUCE_L2},
    {&kiln_op_reduce_sum_square, KILN_REDUCE_SUMSQ},
    {&kiln_op_reduce_log_sum, KILN_REDUCE_LOGSUM},
    {&kiln_op_reduce_log_sum_exp, KILN_REDUCE_LOGSUMEXP},
};

static bool find(const kiln_node *node, kiln_reduce_op *op) {
    for (size_t i = 0; i < KILN_COUNT_OF(table); i++) {
        if (table[i].op == node->op) {
            *op = table[i].reduce;
            return true;
        }
    }
    return false;
}

/* The reduced axes; false when they are not known or there are none. */
static bool read_mask(const kiln_node *node, int32_t rank, bool *mask) {
    const kiln_reduce_attrs *a = node->attrs;
    const kiln_value *axes = kiln_node_in(node, 1);
    const int64_t *v = NULL;
    int64_t n = 0;
    if (axes && !kiln_claim_ints(axes, &v, &n)) {
        return false;
    }
    if (n == 0 && a->noop_with_empty_axes) {
        return false;
    }
    memset(mask, n == 0, KILN_MAX_RANK * sizeof *mask);
    for (int64_t i = 0; i < n; i++) {
        mask[kiln_axis_of(v[i], rank)] = true;
    }
    return true;
}

/* The reduced axes lie together in this layout. */
static bool together(const bool *mask, int32_t rank, kiln_layout layout) {
    bool physical[KILN_MAX_RANK];
    int32_t runs = 0;
    for (int32_t d = 0; d < rank; d++) {
        physical[kiln_physical_axis(d, rank, layout)] = mask[d];
    }
    for (int32_t d = 0; d < rank; d++) {
        runs += physical[d] && (d == 0 || !physical[d - 1]);
    }
    return runs == 1;
}

/* Layouts of input and output: the widest choice that the axes allow. False: none. */
static bool set_layouts(kiln_claim *r, const bool *mask, int32_t rank, bool keepdims) {
    bool row = together(mask, rank, KILN_LAYOUT_ROW);
    bool last = rank >= 3 && together(mask, rank, KILN_LAYOUT_LAST);
    kiln_layout out = KILN_LAYOUT_LAST;
    if (!keepdims && mask[1]) {
        out = KILN_LAYOUT_ROW; /* without channels what stays is in ONNX's order */
    } else if (!keepdims && mask[0]) {
        for (int32_t d = 2; d < rank; d++) {
            last = last && mask[d]; /* channels alone stay, or they would stand last in no layout */
        }
    }
    if (!row && !last) {
        return false;
    }
    r->in_layouts[0] = (uint8_t)(row && last ? KILN_LAYOUT_ANY
                                 : row       ? KILN_LAYOUT_ROW
                                             : KILN_LAYOUT_LAST);
    r->out_layouts[0] = !last || out == KILN_LAYOUT_ROW ? KILN_LAYOUT_ROW : r->in_layouts[0];
    r->same_layout = r->in_layouts[0] == KILN_LAYOUT_ANY && out == KILN_LAYOUT_LAST;
    return true;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    reduce_params p = {.is_arg = KILN_IS(node, arg_max) || KILN_IS(node, arg_min)};
    if (!p.is_arg && !find(node, &p.op)) {
        return kiln_claim_refuse(c, "it runs reductions, ArgMax and ArgMin");
    }
    const kiln_type *x = &node->in[0]->type;
    if (!kiln_value_is_f32(node->in[0]) || x->rank < 1) {
        return kiln_claim_refuse(c, "it takes float32 of rank 1 and above");
    }
    bool keepdims;
    if (p.is_arg) {
        const kiln_arg_attrs *a = node->attrs;
        int32_t axis = kiln_axis_of(a->axis, x->rank);
        p.mask[axis] = true;
        keepdims = a->keepdims != 0;
        if (!kiln_dim_known(x->dims[axis]) || x->dims[axis] < 1 || x->dims[axis] > INT32_MAX) {
            return kiln_claim_refuse(c, "the axis may be empty or too long");
        }
    } else {
        keepdims = ((const kiln_reduce_attrs *)node->attrs)->keepdims != 0;
        if (!read_mask(node, x->rank, p.mask)) {
            return kiln_claim_refuse(c, "the axes are not constant, or there are none");
        }
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_reduce_f32, node, 1, 1, sizeof p);
    if (!r) {
        return NULL;
    }
    *(reduce_params *)r->params = p;
    r->in[0] = node->in[0];
    return set_layouts(r, p.mask, x->rank, keepdims)
               ? r
               : kiln_claim_refuse(c, "the axes do not lie together in memory");
}

static kiln_status bind(kiln_binder *b) {
    const reduce_params *p = b->claim->params;
    const kiln_node *node = b->claim->anchor;
    reduce_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const kiln_operand *x = &b->in[0];
    int64_t dims[KILN_MAX_RANK], outer = 1, n = 1, inner = 1;
    int32_t rank = x->tensor.rank;
    bool physical[KILN_MAX_RANK], seen = false;
    kiln_physical_dims(&x->tensor, x->layout, dims);
    for (int32_t d = 0; d < rank; d++) {
        physical[kiln_physical_axis(d, rank, x->layout)] = p->mask[d];
    }
    for (int32_t d = 0; d < rank; d++) {
        seen = seen || physical[d];
        *(physical[d] ? &n : seen ? &inner : &outer) *= dims[d];
    }
    s->prims = b->target->prims->reduce;
    s->is_arg = p->is_arg;
    s->reduce = (kiln_reduce_args){.op = p->op, .n = n, .inner = inner};
    if (p->is_arg) {
        s->arg = (kiln_argreduce_args){
            .min = KILN_IS(node, arg_min),
            .last = ((const kiln_arg_attrs *)node->attrs)->select_last_index != 0,
            .n = n,
            .inner = inner};
    }
    s->results = outer * inner;
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const reduce_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->results, &begin, &end);
    if (begin >= end) {
        return;
    }
    if (s->is_arg) {
        kiln_argreduce_args arg = s->arg;
        arg.x = call->in[0];
        arg.y = call->out[0];
        s->prims->argreduce(&arg, begin, end);
        return;
    }
    kiln_reduce_args reduce = s->reduce;
    reduce.x = call->in[0];
    reduce.y = call->out[0];
    s->prims->reduce(&reduce, begin, end);
}

const kiln_kernel kiln_kernel_reduce_f32 = {
    .name = "reduce_f32",
    .claim = claim,
    .bind = bind,
    .run = run,
};
