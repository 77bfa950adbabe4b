/* move.c - strided copies: Transpose, Slice, Split, Concat, Expand, DepthToSpace, SpaceToDepth.
 *
 * * Each is one copy per piece between an input and an output. Strides come from where the
 * operands lie, so that any layout will do; a transpose reads any and writes rows. Element types
 * matter by size alone. A piece that is one run of bytes on both sides is no copy where the runner
 * can place one side within the other. */
#include "backend/cpu/prims/move.h"
#include "backend/cpu/axes.h"
#include "backend/cpu/operand.h"
#include "ops/attrs.h"
#include "ops/ops.h"

/* One copy: operands by number, and where the first element is, in bytes. */
typedef struct move_part {
    kiln_copy_plan plan;
    int32_t in, out;
    int64_t src_bytes, dst_bytes;
} move_part;

typedef struct move_state {
    const kiln_move_prims *prims;
    move_part *parts;
    int32_t n_parts;
    int64_t units; /* of all parts */
} move_state;

typedef kiln_status bind_fn(kiln_binder *b, move_state *s);

typedef struct move_params {
    bind_fn *bind;
    bool alias; /* bytes that need not move stay where they are */
} move_params;

/* ---- Parts ---- */

/* Adds the copy dst[dst_at + i . dst] = src[src_at + i . src] over dims; strides and offsets in
 * elements. */
static kiln_status add_part(kiln_binder *b, move_state *s, int32_t in, int32_t out, int32_t rank,
                            const int64_t *dims, const int64_t *src, int64_t src_at,
                            const int64_t *dst, int64_t dst_at) {
    int32_t bytes = kiln_move_bytes(b->out[0].tensor.dtype);
    move_part *p = &s->parts[s->n_parts];
    KILN_TRY(kiln_copy_plan_make(&p->plan, bytes, rank, dims, src, dst));
    p->in = in;
    p->out = out;
    p->src_bytes = src_at * bytes;
    p->dst_bytes = dst_at * bytes;
    s->units += p->plan.units;
    s->n_parts++;
    return KILN_OK;
}

static kiln_status bind_transpose(kiln_binder *b, move_state *s) {
    const kiln_perm_attrs *a = b->claim->anchor->attrs;
    int64_t own[KILN_MAX_RANK], src[KILN_MAX_RANK], dst[KILN_MAX_RANK];
    const kiln_tensor *y = &b->out[0].tensor;
    kiln_logical_strides(&b->in[0], own);
    kiln_logical_strides(&b->out[0], dst);
    for (int32_t d = 0; d < y->rank; d++) {
        src[d] = own[a->perm.v ? a->perm.v[d] : y->rank - 1 - d];
    }
    return add_part(b, s, 0, 0, y->rank, y->dims, src, 0, dst, 0);
}

static kiln_status bind_expand(kiln_binder *b, move_state *s) {
    int64_t dims[KILN_MAX_RANK], src[KILN_MAX_RANK], dst[KILN_MAX_RANK];
    const kiln_operand *y = &b->out[0];
    kiln_physical_dims(&y->tensor, y->layout, dims);
    kiln_operand_strides(&b->in[0], y, src);
    kiln_operand_strides(y, y, dst);
    return add_part(b, s, 0, 0, y->tensor.rank, dims, src, 0, dst, 0);
}

static int64_t clamp(int64_t v, int64_t lo, int64_t hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

/* Where a slice of an axis of n > 0 elements begins: ONNX clamps, then steps. */
static int64_t first_index(int64_t start, int64_t step, int64_t n) {
    return clamp(start < 0 ? start + n : start, 0, step > 0 ? n : n - 1);
}

static kiln_status bind_slice(kiln_binder *b, move_state *s) {
    const kiln_node *node = b->claim->anchor;
    const int64_t *starts, *axes, *steps;
    int64_t n, n_axes, n_steps, src[KILN_MAX_RANK], dst[KILN_MAX_RANK], at = 0;
    const kiln_tensor *x = &b->in[0].tensor, *y = &b->out[0].tensor;
    KILN_TRY(kiln_bind_ints(b, node, 1, &starts, &n));
    KILN_TRY(kiln_bind_ints(b, node, 3, &axes, &n_axes));
    KILN_TRY(kiln_bind_ints(b, node, 4, &steps, &n_steps));
    kiln_logical_strides(&b->in[0], src);
    kiln_logical_strides(&b->out[0], dst);
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    for (int64_t i = 0; i < n; i++) {
        int32_t d = kiln_axis_of(axes ? axes[i] : i, x->rank);
        int64_t step = steps ? steps[i] : 1;
        at += first_index(starts[i], step, x->dims[d]) * src[d];
        /* A stride counts only where a second element is taken; the step may be anything then. */
        src[d] = y->dims[d] > 1 ? src[d] * step : 0;
    }
    return add_part(b, s, 0, 0, y->rank, y->dims, src, at, dst, 0);
}

static kiln_status bind_split(kiln_binder *b, move_state *s) {
    const kiln_split_attrs *a = b->claim->anchor->attrs;
    int64_t src[KILN_MAX_RANK], dst[KILN_MAX_RANK], at = 0;
    int32_t axis = kiln_axis_of(a->axis, b->in[0].tensor.rank);
    kiln_logical_strides(&b->in[0], src);
    for (int32_t i = 0; i < b->claim->n_out; i++) {
        const kiln_tensor *y = &b->out[i].tensor;
        kiln_logical_strides(&b->out[i], dst);
        KILN_TRY(add_part(b, s, 0, i, y->rank, y->dims, src, at * src[axis], dst, 0));
        at += y->dims[axis];
    }
    return KILN_OK;
}

static kiln_status bind_concat(kiln_binder *b, move_state *s) {
    const kiln_axis_attrs *a = b->claim->anchor->attrs;
    int64_t src[KILN_MAX_RANK], dst[KILN_MAX_RANK], at = 0;
    int32_t axis = kiln_axis_of(a->axis, b->out[0].tensor.rank);
    kiln_logical_strides(&b->out[0], dst);
    for (int32_t i = 0; i < b->claim->n_in; i++) {
        const kiln_tensor *x = &b->in[i].tensor;
        kiln_logical_strides(&b->in[i], src);
        KILN_TRY(add_part(b, s, i, 0, x->rank, x->dims, src, 0, dst, at * dst[axis]));
        at += x->dims[axis];
    }
    return KILN_OK;
}

/* Depth and space as the copy of [n, c, h, w, y, x] blocks; the deep tensor has the block's
 * place in its channels, outermost (DCR) or innermost (CRD). */
static kiln_status bind_blocks(kiln_binder *b, move_state *s) {
    const kiln_node *node = b->claim->anchor;
    const kiln_blocks_attrs *a = node->attrs;
    bool to_space = KILN_IS(node, depth_to_space), crd = a->mode != 0;
    const kiln_operand *deep = to_space ? &b->in[0] : &b->out[0];
    const kiln_operand *wide = to_space ? &b->out[0] : &b->in[0];
    int64_t d[KILN_MAX_RANK], w[KILN_MAX_RANK], size = a->blocksize, c = wide->tensor.dims[1];
    kiln_logical_strides(deep, d);
    kiln_logical_strides(wide, w);
    const int64_t *dims = deep->tensor.dims;
    const int64_t box[6] = {dims[0], c, dims[2], dims[3], size, size};
    const int64_t in_wide[6] = {w[0], w[1], w[2] * size, w[3] * size, w[2], w[3]};
    int64_t channel = crd ? d[1] * size * size : d[1], row = crd ? d[1] * size : d[1] * size * c;
    const int64_t in_deep[6] = {d[0], channel, d[2], d[3], row, crd ? d[1] : d[1] * c};
    return to_space ? add_part(b, s, 0, 0, 6, box, in_deep, 0, in_wide, 0)
                    : add_part(b, s, 0, 0, 6, box, in_wide, 0, in_deep, 0);
}

/* ---- The kernel ---- */

/* More dims than a copy has cannot be told apart once they do not merge. */
static bool fits(const kiln_value *v) {
    return v && v->type.kind == KILN_KIND_TENSOR && v->type.rank >= 0 &&
           v->type.rank <= KILN_COPY_RANK && kiln_move_bytes(v->type.dtype) != 0;
}

static bind_fn *binder_of(const kiln_node *node) {
    static const struct {
        const kiln_op *op;
        bind_fn *bind;
    } table[] = {
        {&kiln_op_transpose, bind_transpose},   {&kiln_op_slice, bind_slice},
        {&kiln_op_split, bind_split},           {&kiln_op_concat, bind_concat},
        {&kiln_op_expand, bind_expand},         {&kiln_op_depth_to_space, bind_blocks},
        {&kiln_op_space_to_depth, bind_blocks},
    };
    for (size_t i = 0; i < KILN_COUNT_OF(table); i++) {
        if (node->op == table[i].op) {
            return table[i].bind;
        }
    }
    return NULL;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    bind_fn *bind = binder_of(node);
    if (!bind) {
        return kiln_claim_refuse(c, "it is no strided copy");
    }
    bool concat = bind == bind_concat;
    for (int32_t i = 0; i < (concat ? node->n_in : 1); i++) {
        if (!fits(node->in[i])) {
            return kiln_claim_refuse(c, "it takes up to %d dims of elements of 1, 2, 4 or 8 bytes",
                                     KILN_COPY_RANK);
        }
    }
    for (int32_t i = 0; i < node->n_out; i++) {
        if (!fits(node->out[i])) {
            return kiln_claim_refuse(c, "the output has no known rank, or too many dims");
        }
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_move, node, concat ? node->n_in : 1, node->n_out,
                                   sizeof(move_params));
    if (!r) {
        return NULL;
    }
    *(move_params *)r->params =
        (move_params){.bind = bind, .alias = !kiln_target_is_off(c->target, "alias_parts")};
    bool same_rank = node->in[0]->type.rank == node->out[0]->type.rank;
    bool moves = bind == bind_transpose;
    for (int32_t i = 0; i < r->n_in; i++) {
        r->in[i] = node->in[i];
        r->in_layouts[i] = same_rank ? KILN_LAYOUT_ANY : KILN_LAYOUT_ROW;
    }
    for (int32_t i = 0; i < r->n_out; i++) {
        r->out_layouts[i] = same_rank && !moves ? KILN_LAYOUT_ANY : KILN_LAYOUT_ROW;
    }
    r->same_layout = same_rank && !moves;
    kiln_claim_hold_alike(r);
    return concat || kiln_claim_shape_inputs(c, r, node, 1) ? r : NULL;
}

static kiln_status make_state(kiln_binder *b, move_state **out) {
    const move_params *p = b->claim->params;
    move_state *s;
    KILN_ALLOC(s, b->arena, 1);
    KILN_ALLOC(s->parts, b->arena, b->claim->n_in + b->claim->n_out);
    s->prims = b->target->prims->move;
    *out = s;
    return p->bind(b, s);
}

static kiln_status find_parts(kiln_binder *b, kiln_parts *parts) {
    const move_params *p = b->claim->params;
    move_state *s;
    if (!p->alias) {
        return KILN_OK;
    }
    KILN_TRY(make_state(b, &s));
    parts->of_output = p->bind == bind_concat;
    for (int32_t i = 0; i < s->n_parts; i++) {
        const move_part *part = &s->parts[i];
        const kiln_copy_plan *c = &part->plan;
        if (c->units > 0 && c->rank == 1 && c->src[0] == 1 && c->dst[0] == 1) {
            parts->at[parts->of_output ? part->in : part->out] =
                parts->of_output ? part->dst_bytes : part->src_bytes;
        }
    }
    return KILN_OK;
}

static kiln_status bind(kiln_binder *b) {
    move_state *s;
    KILN_TRY(make_state(b, &s));
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const move_state *s = call->state;
    int64_t begin, end, at = 0;
    kiln_team_split(team, s->units, &begin, &end);
    for (int32_t i = 0; i < s->n_parts && at < end; i++) {
        const move_part *p = &s->parts[i];
        int64_t from = begin > at ? begin - at : 0,
                to = end - at < p->plan.units ? end - at : p->plan.units;
        const char *src = (const char *)call->in[p->in] + p->src_bytes;
        char *dst = (char *)call->out[p->out] + p->dst_bytes;
        if (from < to && src != dst) {
            s->prims->copy(&p->plan, src, dst, from, to);
        }
        at += p->plan.units;
    }
}

const kiln_kernel kiln_kernel_move = {
    .name = "move",
    .claim = claim,
    .parts = find_parts,
    .bind = bind,
    .run = run,
};
