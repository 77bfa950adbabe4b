/* elementwise.c - a chain of elementwise nodes as one block-wise program over the output's
 * elements; from one byte to one byte, as a table of 256 that the program fills once.
 *
 * The region grows from its anchor along single uses, as long as the shape stays the same;
 * whatever else the nodes read is broadcast by strides. Blocks are split over the team. */
#include <string.h>

#include "backend/cpu/chain.h"
#include "backend/cpu/operand.h"
#include "ops/ops.h"

typedef struct elementwise_params {
    kiln_chain chain;
} elementwise_params;

typedef struct elementwise_state {
    const kiln_program_prims *prims;
    const kiln_program *program;
    kiln_program_plan plan;
    int64_t n_looked_up; /* elements that go through the table; 0: the program runs */
    uint8_t table[256];
} elementwise_state;

/* Elements of a piece of work with the table. */
enum { PIECE = 4096 };

/* A region while it grows. */
typedef struct region {
    kiln_claimer *c;
    kiln_claim *claim;
    kiln_chain *chain;
} region;

/* The DequantizeLinear that makes an operand of the node, if it makes it for nobody else. */
static kiln_node *own_dequantizer(const region *r, const kiln_node *node, int32_t k) {
    const kiln_value *v = node->in[k];
    kiln_node *d = v ? v->producer : NULL;
    bool own = d && KILN_IS(d, dequantize_linear) && kiln_claim_next(r->c, v) == node;
    return own && r->c->is_free(r->c, d) && kiln_chain_takes(d) ? d : NULL;
}

/* Takes the node, and before it what dequantizes its operands, `through` (may be NULL) among them;
 * or leaves the region as it was. */
static bool add(region *r, kiln_node *node, const kiln_node *through) {
    kiln_chain before = *r->chain;
    kiln_node **nodes = r->claim->nodes;
    int32_t n_nodes = r->claim->n_nodes;
    bool fits = kiln_chain_takes(node), joined = !through;
    for (int32_t k = 0; k < node->n_in && fits && r->c->status == KILN_OK; k++) {
        kiln_node *d = own_dequantizer(r, node, k);
        if (d && kiln_chain_add(r->chain, d)) {
            fits = kiln_claim_add(r->c, r->claim, d);
            joined = joined || d == through;
        }
    }
    fits = fits && joined && kiln_chain_add(r->chain, node) &&
           (node == r->claim->anchor || kiln_claim_add(r->c, r->claim, node));
    if (!fits) {
        *r->chain = before;
        r->claim->nodes = nodes;
        r->claim->n_nodes = n_nodes;
    }
    return fits;
}

/* The node that goes on from v. A DequantizeLinear belongs to whoever reads it, which comes next
 * with it if it is elementwise; one that only the graph's outputs read comes itself. */
static kiln_node *follow(const kiln_claimer *c, const kiln_value *v, kiln_node **through) {
    kiln_node *next = kiln_claim_next(c, v);
    *through = NULL;
    if (!next || !KILN_IS(next, dequantize_linear) || next->out[0]->n_users == 0) {
        return next;
    }
    *through = next;
    return kiln_claim_next(c, next->out[0]);
}

/* What the chain reads, in any layout where that is a matter of strides. */
static bool list_inputs(region *r, const kiln_value *last) {
    for (int32_t i = 0; i < r->chain->n_in; i++) {
        kiln_value *v = (kiln_value *)r->chain->in[i];
        bool full = v->type.rank == last->type.rank && r->chain->axis[i] == 0;
        if (kiln_claim_input(r->c, r->claim, v, full ? KILN_LAYOUT_ANY : KILN_LAYOUT_ROW) < 0) {
            return false;
        }
        if (r->claim->in_place < 0 && full && v->type.dtype == last->type.dtype &&
            kiln_type_same_shape(&v->type, &last->type)) {
            r->claim->in_place = i;
        }
    }
    return true;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!kiln_chain_takes(node)) {
        return kiln_claim_refuse(c, "the program has no instruction for it, or a type is not "
                                    "float32, bool or 8-bit");
    }
    region r = {.c = c};
    r.claim = kiln_claim_new(c, &kiln_kernel_elementwise, node, 0, 1, sizeof(elementwise_params));
    if (!r.claim) {
        return NULL;
    }
    r.chain = &((elementwise_params *)r.claim->params)->chain;
    kiln_chain_init(r.chain);
    if (!add(&r, node, NULL)) {
        return kiln_claim_refuse(c, "it needs more registers than the program has");
    }
    kiln_value *last = node->out[0];
    bool fuse = !kiln_target_is_off(c->target, "fuse_elementwise");
    kiln_node *through, *next = fuse ? follow(c, last, &through) : NULL;
    for (; next; next = follow(c, last, &through)) {
        if (next->n_out != 1 || !kiln_type_same_shape(&next->out[0]->type, &last->type) ||
            !add(&r, next, through)) {
            break;
        }
        last = next->out[0];
    }
    r.claim->out[0] = last;
    r.claim->out_layouts[0] = KILN_LAYOUT_ANY;
    if (!kiln_chain_finish(r.chain, &last, 1)) {
        return kiln_claim_refuse(c, "it needs more registers than the program has");
    }
    r.claim->same_layout = true;
    if (!list_inputs(&r, last)) {
        return NULL;
    }
    memset(r.claim->in_held, KILN_HELD_HALF, (size_t)r.claim->n_in);
    r.claim->out_held[0] = KILN_HELD_HALF;
    return r.claim;
}

/* A vector along one axis of the space, which is counted from the end. */
static void axis_strides(const kiln_operand *out, int32_t axis, int64_t *strides) {
    int32_t rank = out->tensor.rank;
    for (int32_t d = 0; d < rank; d++) {
        strides[d] = 0;
    }
    strides[kiln_physical_axis(rank + axis, rank, out->layout)] = 1;
}

static bool is_byte(kiln_dtype dtype) {
    return dtype == KILN_DTYPE_U8 || dtype == KILN_DTYPE_I8;
}

/* What becomes of each byte, where nothing else takes part. */
static kiln_status make_table(elementwise_state *s, const kiln_tensor *in, const kiln_tensor *out) {
    const int64_t n = 256;
    uint8_t codes[256];
    kiln_program_plan plan;
    bool flat = s->plan.in[0].access == KILN_PROG_FLAT && s->plan.out[0].access == KILN_PROG_FLAT;
    if (s->program->inputs != 1 || !flat || !is_byte(in->dtype) || !is_byte(out->dtype)) {
        return KILN_OK;
    }
    for (int i = 0; i < 256; i++) {
        codes[i] = (uint8_t)i;
    }
    const kiln_prog_view views[] = {{.dtype = in->dtype, .stride = {1}},
                                    {.dtype = out->dtype, .stride = {1}}};
    KILN_TRY(kiln_program_plan_make(&plan, s->program, 1, &n, views));
    const void *from[] = {codes};
    void *to[] = {s->table};
    s->prims->run(s->program, &plan, from, to, 0, plan.blocks);
    s->n_looked_up = kiln_tensor_count(out);
    return KILN_OK;
}

static kiln_status bind(kiln_binder *b) {
    const elementwise_params *p = b->claim->params;
    elementwise_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->prims = b->target->prims->program;
    s->program = &p->chain.program;
    kiln_prog_view *views;
    const kiln_operand *out = &b->out[0];
    int32_t rank = out->tensor.rank;
    KILN_ALLOC(views, b->arena, b->claim->n_in + 1);
    for (int32_t i = 0; i <= b->claim->n_in; i++) {
        const kiln_operand *o = i < b->claim->n_in ? &b->in[i] : out;
        views[i].dtype = o->tensor.dtype;
        if (i < b->claim->n_in && p->chain.axis[i] != 0) {
            axis_strides(out, p->chain.axis[i], views[i].stride);
        } else {
            kiln_operand_strides(o, out, views[i].stride);
        }
    }
    int64_t dims[KILN_MAX_RANK];
    kiln_physical_dims(&out->tensor, out->layout, dims);
    KILN_TRY(kiln_program_plan_make(&s->plan, s->program, rank, dims, views));
    b->state = s;
    return b->claim->n_in == 1 ? make_table(s, &b->in[0].tensor, &out->tensor) : KILN_OK;
}

static void look_up(const uint8_t *table, const uint8_t *x, uint8_t *y, int64_t n) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        uint8_t a = table[x[i]], b = table[x[i + 1]], c = table[x[i + 2]], d = table[x[i + 3]];
        y[i] = a;
        y[i + 1] = b;
        y[i + 2] = c;
        y[i + 3] = d;
    }
    for (; i < n; i++) {
        y[i] = table[x[i]];
    }
}

static void run(const kiln_call *call, const kiln_team *team) {
    const elementwise_state *s = call->state;
    int64_t begin, end;
    if (s->n_looked_up > 0) {
        kiln_team_split(team, (s->n_looked_up + PIECE - 1) / PIECE, &begin, &end);
        begin *= PIECE;
        end = end * PIECE < s->n_looked_up ? end * PIECE : s->n_looked_up;
        if (begin < end) {
            look_up(s->table, (const uint8_t *)call->in[0] + begin, (uint8_t *)call->out[0] + begin,
                    end - begin);
        }
        return;
    }
    kiln_team_split(team, s->plan.blocks, &begin, &end);
    if (begin < end) {
        s->prims->run(s->program, &s->plan, (const void *const *)call->in, call->out, begin, end);
    }
}

const kiln_kernel kiln_kernel_elementwise = {
    .name = "elementwise",
    .claim = claim,
    .bind = bind,
    .run = run,
};
