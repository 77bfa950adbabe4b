/* matmul_integer.c - MatMulInteger by constant weights, the Cast to float32 after it, and what of
 * fuse.h follows: the products of dynamically quantized networks. All leading dims of the
 * activations are rows of one matrix.
 *
 * The zero point of the activations is known at run time only: each run makes the start table of
 * the sums from the weights' column sums, then the team meets and shares the tiles. */
#include <math.h>

#include "backend/cpu/axes.h"
#include "backend/cpu/kernels/q8_region.h"
#include "backend/cpu/operand.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct matmul_integer_params {
    kiln_fused fused;
    int64_t n, k;
    int32_t zero_in; /* number of the claim's input, or -1: zero */
} matmul_integer_params;

typedef struct matmul_integer_state {
    const kiln_gemm_q8_prims *prims;
    kiln_fused_state fused;
    kiln_gemm_q8_args args;
    const int32_t *sums; /* of the columns of the weights */
    int32_t zero_in;
    int64_t tiles;
} matmul_integer_state;

static bool is_bytes(const kiln_value *v, kiln_dtype dtype) {
    return v->type.kind == KILN_KIND_TENSOR && v->type.dtype == dtype;
}

/* Why the operands do not fit, or NULL. */
static const char *check_operands(const kiln_node *node) {
    const kiln_value *x = node->in[0], *w = node->in[1];
    const kiln_value *zero = kiln_node_in(node, 2);
    bool is_signed = is_bytes(w, KILN_DTYPE_I8);
    if (!is_bytes(x, KILN_DTYPE_U8) || x->type.rank < 2) {
        return "the activations are no uint8 matrix";
    }
    if (!w->constant || w->type.rank != 2 || !kiln_type_is_static(&w->type) ||
        (!is_signed && !is_bytes(w, KILN_DTYPE_U8))) {
        return "the second operand is no constant matrix of bytes";
    }
    if (zero && kiln_type_elements(&zero->type) != 1) {
        return "the activations have more than one zero point";
    }
    if (!kiln_q8_zeros_are(kiln_node_in(node, 3), is_signed ? 0 : 128)) {
        return "the weights' zero points are not 0 (int8) or 128 (uint8)";
    }
    int64_t k = w->type.dims[0];
    return k < 1 || k > KILN_Q8_MAX_K ? "a sum would be empty, or too long for 32 bits" : NULL;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, matmul_integer)) {
        return kiln_claim_refuse(c, "it runs MatMulInteger");
    }
    const char *wrong = check_operands(node);
    if (wrong) {
        return kiln_claim_refuse(c, "%s", wrong);
    }
    kiln_node *cast = kiln_claim_next(c, node->out[0]);
    if (!cast || !KILN_IS(cast, cast) || !kiln_value_is_f32(cast->out[0])) {
        return kiln_claim_refuse(c, "no cast to float32 alone reads the sums");
    }
    kiln_claim *r =
        kiln_claim_new(c, &kiln_kernel_matmul_integer, node, 1, 1, sizeof(matmul_integer_params));
    if (!r || !kiln_claim_add(c, r, cast)) {
        return NULL;
    }
    matmul_integer_params *p = r->params;
    p->k = node->in[1]->type.dims[0];
    p->n = node->in[1]->type.dims[1];
    r->in[0] = node->in[0];
    kiln_value *zero = kiln_node_in(node, 2), *y = cast->out[0];
    p->zero_in = zero ? kiln_claim_input(c, r, zero, KILN_LAYOUT_ROW) : -1;
    return kiln_fuse_chain(c, r, &p->fused, y, y->type.rank - 1, NULL, KILN_LAYOUT_ROW, false)
               ? r
               : NULL;
}

/* start keeps the sums of the columns, which the zero point of a run multiplies. */
static kiln_status pack(kiln_packer *k) {
    const matmul_integer_params *p = k->claim->params;
    const kiln_q8_matrix w = {.k = p->k, .n = p->n, .factor = 1};
    float *tables;
    KILN_TRY(kiln_q8_pack_matrix(k, k->claim->anchor->in[1], &w, &tables));
    for (int64_t i = 0; tables && i < p->n; i++) {
        tables[i] = 1;
    }
    return KILN_OK;
}

static kiln_status bind(kiln_binder *b) {
    const matmul_integer_params *p = b->claim->params;
    matmul_integer_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const float *tables = b->blobs[1].data;
    const kiln_tensor *x = &b->in[0].tensor;
    int64_t m = kiln_matrix_rows(x);
    s->prims = b->target->prims->gemm_q8;
    s->zero_in = p->zero_in;
    s->sums = (const int32_t *)(const void *)(tables + 2 * kiln_q8_stride(p->n));
    s->args = (kiln_gemm_q8_args){.m = m,
                                  .n = p->n,
                                  .k = p->k,
                                  .lda = p->k,
                                  .b = b->blobs[0].data,
                                  .ldc = p->n,
                                  .epilogue = {.scale = tables,
                                               .offset = tables + kiln_q8_stride(p->n),
                                               .lo = -INFINITY,
                                               .hi = INFINITY,
                                               .to_float = true}};
    kiln_fuse_bind(&s->fused, &p->fused, b, p->n);
    s->tiles = s->prims->tiles(&s->args);
    b->scratch_bytes = (size_t)s->prims->scratch_bytes(&s->args);
    b->shared_bytes = (size_t)kiln_q8_stride(p->n) * sizeof(int32_t);
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const matmul_integer_state *s = call->state;
    int32_t *start = call->shared, zero = 0;
    int64_t begin, end;
    if (s->tiles == 0) {
        return;
    }
    if (s->zero_in >= 0) {
        zero = *(const uint8_t *)call->in[s->zero_in];
    }
    kiln_team_split(team, kiln_q8_stride(s->args.n), &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        start[i] = i < s->args.n ? -zero * s->sums[i] : 0;
    }
    kiln_team_barrier(team);
    kiln_team_split(team, s->tiles, &begin, &end);
    if (begin >= end) {
        return;
    }
    kiln_gemm_q8_args args = s->args;
    kiln_epilogue floats;
    kiln_program_post_args post;
    kiln_fuse_resolve(&s->fused, call, &floats, &post);
    args.a = call->in[0];
    args.c = call->out[0];
    args.epilogue.start = start;
    args.epilogue.floats = &floats;
    s->prims->run(&args, begin, end, call->scratch + (size_t)team->rank * call->scratch_bytes);
}

const kiln_kernel kiln_kernel_matmul_integer = {
    .name = "matmul_integer",
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
};
