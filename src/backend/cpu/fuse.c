#include "backend/cpu/fuse.h"

#include <math.h>
#include <string.h>

#include "backend/cpu/operand.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct fuser {
    kiln_claimer *c;
    kiln_claim *claim;
    kiln_fused *f;
    kiln_value *last; /* the chain's end so far */
    kiln_layout mask;
    bool acted; /* an activation stands in the epilogue */
} fuser;

/* Operand of a binary node that is not the chain's own; NULL when both are, or it is no two-input
 * node. */
static kiln_value *other_operand(const fuser *u, const kiln_node *n) {
    if (n->n_in != 2 || !n->in[0] || !n->in[1] || (n->in[0] == u->last) == (n->in[1] == u->last)) {
        return NULL;
    }
    return n->in[0] == u->last ? n->in[1] : n->in[0];
}

/* x is not made by the region and is there before it runs: then it may be read by it. */
static bool take_bias(fuser *u, const kiln_node *n) {
    kiln_value *x = other_operand(u, n);
    if (!KILN_IS(n, add) || !x || u->f->bias_in >= 0 || u->f->residual_in >= 0 || u->acted ||
        !x->constant || !kiln_value_is_f32(x) || kiln_target_is_off(u->c->target, "fuse_bias") ||
        !kiln_is_axis_vector(x, &u->last->type, u->f->channel)) {
        return false;
    }
    u->f->bias_in = kiln_claim_input(u->c, u->claim, x, KILN_LAYOUT_ROW);
    return u->f->bias_in >= 0;
}

static bool take_residual(fuser *u, const kiln_node *n) {
    kiln_value *x = other_operand(u, n);
    if (!KILN_IS(n, add) || !x || u->f->residual_in >= 0 || !kiln_value_is_f32(x) ||
        kiln_target_is_off(u->c->target, "fuse_residual") ||
        !kiln_type_same_shape(&x->type, &u->last->type)) {
        return false;
    }
    u->f->act_first = u->acted;
    u->f->residual_in = kiln_claim_input(u->c, u->claim, x, u->mask);
    return u->f->residual_in >= 0;
}

/* relu, clip, leaky relu and hard swish, once, and not after an activation that came before the
 * residual. */
static bool take_activation(fuser *u, const kiln_node *n) {
    kiln_fused *f = u->f;
    if (u->acted || n->in[0] != u->last) {
        return false;
    }
    if (KILN_IS(n, relu)) {
        f->lo = 0;
    } else if (KILN_IS(n, leaky_relu)) {
        f->slope = ((const kiln_activation_attrs *)n->attrs)->alpha;
    } else if (KILN_IS(n, hard_swish)) {
        f->hard_swish = true;
    } else if (KILN_IS(n, clip) && kiln_chain_takes(n)) {
        kiln_chain one;
        kiln_chain_init(&one);
        if (!kiln_chain_add(&one, n)) {
            return false;
        }
        f->lo = one.instr[0].p;
        f->hi = one.instr[0].q;
    } else {
        return false;
    }
    u->acted = true;
    return true;
}

/* How the post program may read x: along columns, as a matrix of the same shape, or as one
 * number. */
static bool post_kind(const fuser *u, const kiln_value *x, kiln_post_kind *kind) {
    if (!kiln_value_is_f32(x)) {
        return false;
    }
    if (kiln_type_elements(&x->type) == 1) {
        *kind = KILN_POST_SCALAR;
    } else if (kiln_is_axis_vector(x, &u->last->type, u->f->channel)) {
        *kind = KILN_POST_COLUMNS;
    } else if (kiln_type_same_shape(&x->type, &u->last->type)) {
        *kind = KILN_POST_MATRIX;
    } else {
        return false;
    }
    return true;
}

static bool post_takes(const fuser *u, const kiln_node *n) {
    if (!kiln_chain_takes(n) || n->out[0]->type.dtype != KILN_DTYPE_F32) {
        return false;
    }
    for (int32_t i = 0; i < n->n_in; i++) {
        kiln_post_kind kind;
        if (n->in[i] && n->in[i] != u->last && !post_kind(u, n->in[i], &kind)) {
            return false;
        }
    }
    return true;
}

/* The first input of the post program is the value it starts from. */
static void begin_post(fuser *u) {
    kiln_fused *f = u->f;
    if (!f->has_post) {
        kiln_chain_init(&f->post);
        f->post.in[0] = u->last;
        f->post.n_in = 1;
    }
}

static bool take_post(fuser *u, const kiln_node *n) {
    kiln_fused *f = u->f;
    if (!post_takes(u, n)) {
        return false;
    }
    begin_post(u);
    int32_t before = f->post.n_in;
    if (!kiln_chain_add(&f->post, n)) {
        return false;
    }
    f->has_post = true;
    for (int32_t i = before; i < f->post.n_in; i++) {
        kiln_value *x = (kiln_value *)f->post.in[i];
        post_kind(u, x, &f->post_kind[i]);
        kiln_layout mask = f->post_kind[i] == KILN_POST_MATRIX ? u->mask : KILN_LAYOUT_ROW;
        f->post_in[i] = kiln_claim_input(u->c, u->claim, x, mask);
        if (f->post_in[i] < 0) {
            return false;
        }
    }
    return true;
}

static bool take(fuser *u, const kiln_node *n) {
    bool activations = !kiln_target_is_off(u->c->target, "fuse_activation");
    if (!u->f->has_post &&
        (take_bias(u, n) || take_residual(u, n) || (activations && take_activation(u, n)))) {
        return true;
    }
    return activations && take_post(u, n);
}

/* A QuantizeLinear to uint8 by one constant scale, which then writes what the region gives. */
static void take_quantizer(fuser *u) {
    kiln_fused *f = u->f;
    kiln_node *n = kiln_claim_next(u->c, u->last);
    if (!n || !KILN_IS(n, quantize_linear) || n->in[0] != u->last ||
        n->out[0]->type.dtype != KILN_DTYPE_U8 ||
        kiln_target_is_off(u->c->target, "fuse_quantizer")) {
        return;
    }
    begin_post(u);
    kiln_chain before = f->post;
    if (!kiln_chain_add(&f->post, n) ||
        f->post.instr[f->post.n_instrs - 1].op != KILN_PROG_QUANT_U8) {
        f->post = before;
        return;
    }
    f->has_post = f->narrows = true;
    u->last = n->out[0];
    kiln_claim_add(u->c, u->claim, n);
}

static fuser begin_fuse(kiln_claimer *c, kiln_claim *claim, kiln_fused *fused, kiln_value *out,
                        int32_t channel, kiln_layout mask) {
    *fused = (kiln_fused){.channel = channel,
                          .bias_in = -1,
                          .residual_in = -1,
                          .slope = 1,
                          .lo = -INFINITY,
                          .hi = INFINITY};
    return (fuser){.c = c, .claim = claim, .f = fused, .last = out, .mask = mask};
}

static bool end_fuse(const fuser *u) {
    u->claim->out[0] = u->last;
    u->claim->out_layouts[0] = (uint8_t)u->mask;
    if (u->c->status == KILN_OK && u->f->has_post &&
        !kiln_chain_finish(&u->f->post, (kiln_value *const *)&u->last, 1)) {
        u->c->status = KILN_E_INTERNAL;
    }
    return u->c->status == KILN_OK;
}

bool kiln_fuse_quantizer(kiln_claimer *c, kiln_claim *claim, kiln_fused *fused, kiln_value *out,
                         int32_t channel, kiln_layout mask) {
    fuser u = begin_fuse(c, claim, fused, out, channel, mask);
    take_quantizer(&u);
    return end_fuse(&u);
}

bool kiln_fuse_chain(kiln_claimer *c, kiln_claim *claim, kiln_fused *fused, kiln_value *out,
                     int32_t channel, kiln_value *bias, kiln_layout mask, bool bytes) {
    fuser u = begin_fuse(c, claim, fused, out, channel, mask);
    if (bias) {
        fused->bias_in = kiln_claim_input(c, claim, bias, KILN_LAYOUT_ROW);
    }
    for (kiln_node *n = kiln_claim_next(c, out); n; n = kiln_claim_next(c, u.last)) {
        if (n->n_out != 1 || !kiln_value_is_f32(n->out[0]) ||
            !kiln_type_same_shape(&n->out[0]->type, &out->type) || !take(&u, n) ||
            !kiln_claim_add(c, claim, n)) {
            break;
        }
        u.last = n->out[0];
    }
    if (bytes) {
        take_quantizer(&u);
    }
    return end_fuse(&u);
}

void kiln_fuse_hold(const kiln_claimer *c, kiln_claim *claim, const kiln_fused *fused) {
    if (!kiln_target_holds_half(c->target)) {
        return;
    }
    const bool product = claim->kernel->computes == KILN_DTYPE_BF16;
    claim->out_held[0] = product ? KILN_HELD_ROUNDS : KILN_HELD_HALF;
    if (fused->residual_in >= 0 && product) {
        claim->in_held[fused->residual_in] = KILN_HELD_HALF;
    }
}

void kiln_fuse_bind(kiln_fused_state *s, const kiln_fused *fused, const kiln_binder *b,
                    int64_t columns) {
    const int32_t residual = fused->residual_in;
    s->fused = fused;
    s->prims = b->target->prims->program;
    s->columns = columns;
    s->half = b->out[0].tensor.dtype == KILN_DTYPE_BF16;
    s->adds_half = residual >= 0 && b->in[residual].tensor.dtype == KILN_DTYPE_BF16;
}

void kiln_fuse_bind_matrix(kiln_fused_state *s, kiln_binder *b, bool rounds, bool rests) {
    s->in_registers = s->half && rounds && !s->fused->has_post;
    s->has_matrix = s->half && (rests || !s->in_registers);
    if (s->has_matrix) {
        s->matrix_at = (b->shared_bytes + 63) & ~(size_t)63;
        b->shared_bytes =
            s->matrix_at + (size_t)kiln_tensor_count(&b->out[0].tensor) * sizeof(float);
    }
}

float *kiln_fuse_matrix(const kiln_fused_state *s, const kiln_call *call) {
    char *matrix = s->has_matrix ? (char *)call->shared + s->matrix_at : call->out[0];
    return (float *)(void *)matrix;
}

void kiln_fuse_resolve(const kiln_fused_state *s, const kiln_call *call, kiln_epilogue *out,
                       kiln_program_post_args *args) {
    static const kiln_program copy = {.inputs = 1, .outputs = 1, .regs = 1};
    const kiln_fused *f = s->fused;
    *out = KILN_EPILOGUE_NONE;
    out->bias = f->bias_in >= 0 ? call->in[f->bias_in] : NULL;
    out->residual = f->residual_in >= 0 && !s->adds_half ? call->in[f->residual_in] : NULL;
    out->origin = kiln_fuse_matrix(s, call);
    out->addend = s->adds_half ? call->in[f->residual_in] : NULL;
    out->result = s->in_registers ? call->out[0] : NULL;
    out->ld_residual = s->columns;
    out->slope = f->slope;
    out->lo = f->lo;
    out->hi = f->hi;
    out->act_first = f->act_first;
    out->hard_swish = f->hard_swish;
    if (!f->has_post && (!s->half || s->in_registers)) {
        return;
    }
    memset(args, 0, sizeof *args);
    args->program = f->has_post ? &f->post.program : &copy;
    args->in[0].kind = KILN_POST_SELF;
    for (int32_t i = 1; f->has_post && i < f->post.n_in; i++) {
        args->in[i] = (kiln_post_operand){
            .kind = f->post_kind[i], .data = call->in[f->post_in[i]], .ld = s->columns};
    }
    args->narrow = f->narrows || s->half ? call->out[0] : NULL;
    args->narrow_type = s->half ? KILN_DTYPE_BF16 : KILN_DTYPE_U8;
    args->ld_narrow = s->columns;
    out->post = s->prims->post;
    out->post_arg = args;
}

void kiln_fuse_advance(const kiln_fused_state *s, kiln_epilogue *io, kiln_program_post_args *args,
                       int64_t elements) {
    io->residual = io->residual ? io->residual + elements : NULL;
    if (!io->post) {
        return;
    }
    const int64_t item = args->narrow_type == KILN_DTYPE_BF16 ? 2 : 1;
    args->narrow = args->narrow ? (char *)args->narrow + item * elements : NULL;
    for (int32_t k = 1; k < s->fused->post.n_in; k++) {
        if (args->in[k].kind == KILN_POST_MATRIX) {
            args->in[k].data += elements;
        }
    }
}
