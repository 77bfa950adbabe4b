/* pad.c - Pad and Tile: every axis of the output maps onto one of the input, or onto a constant.
 *
 * Trailing dims that stay as they are move as one item. */
#include <string.h>

#include "backend/cpu/axes.h"
#include "backend/cpu/prims/move.h"
#include "ops/attrs.h"
#include "ops/ops.h"

enum { MODE_CONSTANT, MODE_EDGE, MODE_REFLECT, MODE_WRAP }; /* kiln_pad_attrs' */

typedef struct pad_params {
    int32_t value_in; /* claim's input with the constant, or -1: zero */
} pad_params;

typedef struct pad_state {
    const kiln_move_prims *prims;
    kiln_pad_args args;
    int32_t value_in;
    int64_t rows;
} pad_state;

static bool fits(const kiln_value *v) {
    return v && v->type.kind == KILN_KIND_TENSOR && v->type.rank >= 1 &&
           v->type.rank <= KILN_COPY_RANK && kiln_move_bytes(v->type.dtype) != 0;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    bool tile = KILN_IS(node, tile);
    if (!tile && !KILN_IS(node, pad)) {
        return kiln_claim_refuse(c, "it runs Pad and Tile");
    }
    if (!fits(node->in[0]) || !fits(node->out[0])) {
        return kiln_claim_refuse(c, "it takes 1 to %d dims of elements of 1, 2, 4 or 8 bytes",
                                 KILN_COPY_RANK);
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_pad, node, 1, 1, sizeof(pad_params));
    if (!r) {
        return NULL;
    }
    pad_params *p = r->params;
    r->in[0] = node->in[0];
    r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_ANY;
    r->same_layout = true;
    p->value_in = -1;
    kiln_value *value = tile ? NULL : kiln_node_in(node, 2);
    if (value) {
        p->value_in = kiln_claim_input(c, r, value, KILN_LAYOUT_ROW);
        if (p->value_in < 0) {
            return NULL;
        }
    }
    for (int32_t i = 1; i < node->n_in; i++) {
        kiln_value *v = node->in[i];
        if (v && v != value && !v->constant && kiln_claim_input(c, r, v, KILN_LAYOUT_ROW) < 0) {
            return NULL;
        }
    }
    return r;
}

/* Pads at the beginning and the end of each logical axis; none for Tile. */
static kiln_status read_pads(kiln_binder *b, int64_t *begin, int64_t *end) {
    const kiln_node *node = b->claim->anchor;
    const int64_t *pads, *axes;
    int64_t n, n_axes;
    int32_t rank = b->in[0].tensor.rank;
    memset(begin, 0, KILN_MAX_RANK * sizeof *begin);
    memset(end, 0, KILN_MAX_RANK * sizeof *end);
    if (KILN_IS(node, tile)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_bind_ints(b, node, 1, &pads, &n));
    KILN_TRY(kiln_bind_ints(b, node, 3, &axes, &n_axes));
    for (int64_t i = 0; i < n / 2; i++) {
        int32_t d = kiln_axis_of(axes ? axes[i] : i, rank);
        begin[d] = pads[i];
        end[d] = pads[i + n / 2];
    }
    return KILN_OK;
}

/* The map of one axis. What negative pads cut off is gone before the modes that repeat look at
 * it. */
static kiln_status make_map(kiln_binder *b, int32_t mode, int64_t in, int64_t out, int64_t begin,
                            int64_t end, const int32_t **result) {
    int32_t *map;
    if (in > INT32_MAX || out > INT32_MAX) {
        return kiln_fail(b->diag, KILN_F_RUN_LIMIT, "an axis of %lld elements is too long to pad",
                         (long long)(in > out ? in : out));
    }
    KILN_ALLOC(map, b->arena, out + 1);
    *result = map;
    int64_t first = mode != MODE_CONSTANT && begin < 0 ? -begin : 0;
    int64_t size = in - first + (mode != MODE_CONSTANT && end < 0 ? end : 0);
    static const kiln_pad_mode modes[] = {KILN_PAD_CONSTANT, KILN_PAD_EDGE, KILN_PAD_REFLECT,
                                          KILN_PAD_WRAP};
    kiln_pad_map(map, modes[mode], size, out, begin + first);
    for (int64_t i = 0; i < out && first > 0; i++) {
        map[i] += (int32_t)first;
    }
    return KILN_OK;
}

static kiln_status bind(kiln_binder *b) {
    const pad_params *p = b->claim->params;
    const kiln_node *node = b->claim->anchor;
    pad_state *s;
    KILN_ALLOC(s, b->arena, 1);
    int64_t begin[KILN_MAX_RANK], end[KILN_MAX_RANK], in[KILN_MAX_RANK], out[KILN_MAX_RANK];
    const kiln_operand *x = &b->in[0], *y = &b->out[0];
    int32_t rank = x->tensor.rank;
    int32_t mode = KILN_IS(node, tile) ? MODE_WRAP : ((const kiln_pad_attrs *)node->attrs)->mode;
    b->state = s;
    s->prims = b->target->prims->move;
    s->value_in = p->value_in;
    if (kiln_tensor_count(&y->tensor) == 0) {
        return KILN_OK;
    }
    KILN_TRY(read_pads(b, begin, end));
    kiln_physical_dims(&x->tensor, x->layout, in);
    kiln_physical_dims(&y->tensor, y->layout, out);
    kiln_pad_args *g = &s->args;
    g->value_bytes = kiln_move_bytes(x->tensor.dtype);
    g->item_bytes = g->value_bytes;
    bool moved[KILN_MAX_RANK];
    for (int32_t d = 0; d < rank; d++) {
        int32_t at = kiln_physical_axis(d, rank, x->layout);
        moved[at] = begin[d] != 0 || end[d] != 0 || in[at] != out[at];
        KILN_TRY(make_map(b, mode, in[at], out[at], begin[d], end[d], &g->map[at]));
    }
    g->rank = rank;
    while (g->rank > 1 && !moved[g->rank - 1]) {
        g->item_bytes *= in[--g->rank];
    }
    s->rows = 1;
    for (int32_t d = 0; d < g->rank; d++) {
        g->in[d] = in[d];
        g->out[d] = out[d];
        s->rows *= d + 1 < g->rank ? out[d] : 1;
    }
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const pad_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->rows, &begin, &end);
    if (begin >= end) {
        return;
    }
    kiln_pad_args args = s->args;
    args.x = call->in[0];
    args.y = call->out[0];
    if (s->value_in >= 0) {
        memcpy(&args.value, call->in[s->value_in], (size_t)args.value_bytes);
    }
    s->prims->pad(&args, begin, end);
}

const kiln_kernel kiln_kernel_pad = {
    .name = "pad",
    .claim = claim,
    .bind = bind,
    .run = run,
};
