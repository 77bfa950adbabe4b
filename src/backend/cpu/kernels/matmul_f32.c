/* matmul_f32.c - float32 products of two activations, MatMul and Gemm, with the transposes
 * before them and everything elementwise after them fused.
 *
 * * Legend: A [batch, M, K], B [batch, K, N], C [batch, M, N]; leading dims broadcast. Every run
 * packs B, one matrix for each batch element it has, and copies A where its rows are not
 * contiguous; the team meets once, then shares the tiles of all batch elements. */
#include <math.h>
#include <string.h>

#include "backend/cpu/axes.h"
#include "backend/cpu/fuse.h"
#include "backend/cpu/operand.h"
#include "backend/cpu/prims/move.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct matmul_params {
    kiln_fused fused;
    const kiln_node *product;
    const kiln_node
        *transposed[2]; /* the Transpose that makes A or B, when it is part of the region */
} matmul_params;

/* One side as the product sees it: strides in elements, batch dims aligned with the output's. */
typedef struct side {
    int64_t row, col;
    int64_t dims[KILN_MAX_RANK], batch[KILN_MAX_RANK]; /* n_batch of them, own sizes and strides */
} side;

typedef struct matmul_state {
    const kiln_gemm_prims *prims;
    const kiln_move_prims *move;
    kiln_fused_state fused;
    kiln_gemm_args args;
    int64_t batches, tiles; /* tiles of one batch element */
    int64_t *a_at;     /* per batch element: element offset of A (in the copy, if there is one) */
    int64_t *b_matrix; /* per batch element: which packed matrix */
    int64_t b_matrices, panels;     /* panels of one matrix */
    int64_t *b_at;                  /* per matrix: element offset in B */
    int64_t b_row, b_col, b_floats; /* strides of B, floats of a packed matrix */
    bool copies_a;
    kiln_copy_plan a_plan;
    size_t a_offset; /* of A's copy in the shared memory */
} matmul_state;

/* ---- Claim ---- */

/* The Transpose that makes v and has no other reader. */
static kiln_node *single_transpose(const kiln_claimer *c, const kiln_value *v) {
    kiln_node *t = kiln_claim_producer(c, v, &kiln_op_transpose);
    return t && kiln_value_is_f32(t->in[0]) ? t : NULL;
}

static kiln_claim *fuse_full(kiln_claimer *c, kiln_claim *r, kiln_fused *f, kiln_node *gemm) {
    *f = (kiln_fused){.channel = 1, .bias_in = -1, .slope = 1, .lo = -INFINITY, .hi = INFINITY};
    f->residual_in = kiln_claim_input(c, r, gemm->in[2], KILN_LAYOUT_ROW);
    r->out[0] = gemm->out[0];
    return f->residual_in >= 0 ? r : NULL;
}

static kiln_claim *claim_gemm(kiln_claimer *c, kiln_claim *r, kiln_fused *f, kiln_node *gemm) {
    const kiln_gemm_attrs *a = gemm->attrs;
    kiln_value *bias = kiln_node_in(gemm, 2), *y = gemm->out[0];
    if (a->alpha != 1.0f || (bias && a->beta != 1.0f)) {
        return kiln_claim_refuse(c, "alpha or beta is not 1");
    }
    if (bias && kiln_value_is_f32(bias) && kiln_type_same_shape(&bias->type, &y->type)) {
        return fuse_full(c, r, f, gemm);
    }
    if (bias && (!kiln_value_is_f32(bias) || !kiln_is_axis_vector(bias, &y->type, 1))) {
        return kiln_claim_refuse(
            c, "the third operand is neither a vector along the columns nor full");
    }
    return kiln_fuse_chain(c, r, f, y, 1, bias, KILN_LAYOUT_ROW, false) ? r : NULL;
}

static bool takes(kiln_claimer *c, const kiln_node *product) {
    const kiln_value *a = product->in[0], *b = product->in[1];
    if (!kiln_value_is_f32(a) || !kiln_value_is_f32(b) || !kiln_value_is_f32(product->out[0]) ||
        a->type.rank < 2 || b->type.rank < 2) {
        kiln_claim_refuse(c, "it takes float32 of rank 2 and above");
        return false;
    }
    return true;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    kiln_node *product = node;
    if (KILN_IS(node, transpose)) {
        product = kiln_claim_next(c, node->out[0]);
        if (!product || !KILN_IS(product, matmul) || product->in[1]->constant ||
            single_transpose(c, node->out[0]) != node) {
            return kiln_claim_refuse(c, "no product of activations alone reads the transpose");
        }
    } else if (!KILN_IS(node, matmul) && !KILN_IS(node, gemm)) {
        return kiln_claim_refuse(c, "it runs MatMul and Gemm, and Transpose before them");
    }
    if (!takes(c, product)) {
        return NULL;
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_matmul_f32, node, 2, 1, sizeof(matmul_params));
    if (!r || (product != node && !kiln_claim_add(c, r, product))) {
        return NULL;
    }
    matmul_params *p = r->params;
    p->product = product;
    for (int32_t i = 0; i < 2; i++) {
        kiln_node *t = KILN_IS(product, matmul) ? single_transpose(c, product->in[i]) : NULL;
        p->transposed[i] = t;
        r->in[i] = t ? t->in[0] : product->in[i];
        if (t && t != node && !kiln_claim_add(c, r, t)) {
            return NULL;
        }
    }
    if (KILN_IS(product, gemm)) {
        return claim_gemm(c, r, &p->fused, product);
    }
    kiln_value *y = product->out[0];
    return kiln_fuse_chain(c, r, &p->fused, y, y->type.rank - 1, NULL, KILN_LAYOUT_ROW, false)
               ? r
               : NULL;
}

/* ---- Bind ---- */

/* Dims and strides of operand i after its transpose, last two dims swapped if `swap`. */
static side read_side(const kiln_binder *b, const matmul_params *p, int32_t i, bool swap,
                      int32_t n_batch) {
    const kiln_operand *o = &b->in[i];
    int32_t rank = o->tensor.rank, lead = n_batch - (rank - 2);
    int64_t dims[KILN_MAX_RANK], strides[KILN_MAX_RANK], own[KILN_MAX_RANK];
    kiln_logical_strides(o, own);
    for (int32_t d = 0; d < rank; d++) {
        int64_t from = d;
        if (p->transposed[i]) {
            kiln_ints perm = ((const kiln_perm_attrs *)p->transposed[i]->attrs)->perm;
            from = perm.v ? perm.v[d] : rank - 1 - d;
        }
        dims[d] = o->tensor.dims[from];
        strides[d] = own[from];
    }
    side s = {.row = strides[rank - 2 + swap], .col = strides[rank - 1 - swap]};
    for (int32_t d = 0; d < n_batch; d++) {
        s.dims[d] = d < lead ? 1 : dims[d - lead];
        s.batch[d] = d < lead ? 0 : strides[d - lead];
    }
    return s;
}

static int64_t product_of(const int64_t *dims, int32_t n) {
    int64_t count = 1;
    for (int32_t d = 0; d < n; d++) {
        count *= dims[d];
    }
    return count;
}

/* Offset of batch element i (row-major over `over`) in a side whose dims of 1 repeat; strides[d]
 * per dim. */
static int64_t batch_offset(int64_t i, const int64_t *over, const side *s, const int64_t *strides,
                            int32_t n) {
    int64_t at = 0;
    for (int32_t d = n - 1; d >= 0; d--) {
        at += s->dims[d] == 1 ? 0 : i % over[d] * strides[d];
        i /= over[d];
    }
    return at;
}

static void dense_strides(const int64_t *dims, int32_t n, int64_t item, int64_t *strides) {
    for (int32_t d = n - 1; d >= 0; d--) {
        strides[d] = item;
        item *= dims[d];
    }
}

/* A with contiguous rows: in place, or as a copy in the shared memory. */
static kiln_status bind_a(kiln_binder *b, matmul_state *s, side *a, int32_t n_batch) {
    int64_t m = s->args.m, k = s->args.k;
    s->copies_a = a->col != 1 && k > 1;
    s->args.lda = a->row;
    if (s->copies_a) {
        int64_t dims[KILN_MAX_RANK], src[KILN_MAX_RANK], dst[KILN_MAX_RANK];
        memcpy(dims, a->dims, sizeof dims);
        memcpy(src, a->batch, sizeof src);
        dims[n_batch] = m;
        dims[n_batch + 1] = k;
        src[n_batch] = a->row;
        src[n_batch + 1] = a->col;
        dense_strides(dims, n_batch + 2, 1, dst);
        KILN_TRY(kiln_copy_plan_make(&s->a_plan, sizeof(float), n_batch + 2, dims, src, dst));
        memcpy(a->batch, dst, sizeof a->batch);
        s->args.lda = k;
        b->shared_bytes += (size_t)(product_of(a->dims, n_batch) * m * k) * sizeof(float);
    }
    return KILN_OK;
}

/* Which matrix of A and B each batch element multiplies. */
static kiln_status bind_batches(kiln_binder *b, matmul_state *s, const int64_t *over, const side *a,
                                const side *w, int32_t n) {
    int64_t numbers[KILN_MAX_RANK];
    s->batches = product_of(over, n);
    s->b_matrices = s->batches > 0 ? product_of(w->dims, n) : 0;
    dense_strides(w->dims, n, 1, numbers);
    KILN_ALLOC(s->a_at, b->arena, s->batches);
    KILN_ALLOC(s->b_matrix, b->arena, s->batches);
    KILN_ALLOC(s->b_at, b->arena, s->b_matrices);
    for (int64_t i = 0; i < s->batches; i++) {
        s->a_at[i] = batch_offset(i, over, a, a->batch, n);
        s->b_matrix[i] = batch_offset(i, over, w, numbers, n);
    }
    for (int64_t i = 0; i < s->b_matrices; i++) {
        s->b_at[i] = batch_offset(i, w->dims, w, w->batch, n);
    }
    return KILN_OK;
}

static kiln_status bind(kiln_binder *b) {
    const matmul_params *p = b->claim->params;
    const kiln_gemm_attrs *g = p->product->attrs;
    matmul_state *s;
    KILN_ALLOC(s, b->arena, 1);
    bool gemm = KILN_IS(p->product, gemm);
    kiln_tensor y, x;
    KILN_TRY(kiln_bind_tensor(b, p->product->out[0], &y));
    KILN_TRY(kiln_bind_tensor(b, p->product->in[0], &x));
    int32_t n_batch = y.rank - 2;
    side a = read_side(b, p, 0, gemm && g->transA, n_batch),
         w = read_side(b, p, 1, gemm && g->transB, n_batch);
    s->prims = b->target->prims->gemm;
    s->move = b->target->prims->move;
    s->args = (kiln_gemm_args){.m = y.dims[n_batch],
                               .n = y.dims[n_batch + 1],
                               .k = x.dims[x.rank - 1 - (gemm && g->transA)],
                               .ldc = y.dims[n_batch + 1],
                               .epilogue = KILN_EPILOGUE_NONE};
    s->b_row = w.row;
    s->b_col = w.col;
    b->state = s;
    kiln_fuse_bind(&s->fused, &p->fused, b, s->args.n);
    if (kiln_tensor_count(&y) == 0) {
        return KILN_OK;
    }
    s->panels = s->prims->panels(s->args.n);
    size_t packed = ((size_t)s->prims->packed_bytes(s->args.k, s->args.n) + 63) & ~(size_t)63;
    s->b_floats = (int64_t)(packed / sizeof(float));
    s->a_offset = packed * (size_t)product_of(w.dims, n_batch);
    b->shared_bytes = s->a_offset;
    KILN_TRY(bind_a(b, s, &a, n_batch));
    KILN_TRY(bind_batches(b, s, y.dims, &a, &w, n_batch));
    s->tiles = s->prims->tiles(&s->args);
    return KILN_OK;
}

/* ---- Run ---- */

static void prepare(const matmul_state *s, const kiln_call *call, const kiln_team *team) {
    int64_t begin, end;
    float *packed = call->shared;
    const float *b = call->in[1];
    kiln_team_split(team, s->b_matrices * s->panels, &begin, &end);
    while (begin < end) {
        int64_t i = begin / s->panels, from = begin % s->panels;
        int64_t to = end - i * s->panels < s->panels ? end - i * s->panels : s->panels;
        s->prims->pack(packed + i * s->b_floats, b + s->b_at[i], s->args.k, s->args.n, s->b_row,
                       s->b_col, from, to);
        begin += to - from;
    }
    if (s->copies_a) {
        kiln_team_split(team, s->a_plan.units, &begin, &end);
        s->move->copy(&s->a_plan, call->in[0], (char *)call->shared + s->a_offset, begin, end);
    }
}

/* Tiles [from, to) of batch element i. */
static void multiply(const matmul_state *s, const kiln_call *call, int64_t i, int64_t from,
                     int64_t to) {
    kiln_gemm_args args = s->args;
    kiln_program_post_args post;
    int64_t at = i * args.m * args.n;
    const float *a = s->copies_a
                         ? (const float *)(const void *)((const char *)call->shared + s->a_offset)
                         : call->in[0];
    args.a = a + s->a_at[i];
    args.b = (const float *)call->shared + s->b_matrix[i] * s->b_floats;
    args.c = (float *)call->out[0] + at;
    kiln_fuse_resolve(&s->fused, call, &args.epilogue, &post);
    kiln_fuse_advance(&s->fused, &args.epilogue, &post, at);
    s->prims->run(&args, from, to);
}

static void run(const kiln_call *call, const kiln_team *team) {
    const matmul_state *s = call->state;
    if (s->tiles == 0) {
        return;
    }
    prepare(s, call, team);
    kiln_team_barrier(team);
    kiln_tile_share share = kiln_tile_share_of(team, s->batches, s->tiles);
    for (kiln_tile_run r; kiln_tile_next(&share, &r);) {
        multiply(s, call, r.matrix, r.from, r.to);
    }
}

const kiln_kernel kiln_kernel_matmul_f32 = {
    .name = "matmul_f32",
    .claim = claim,
    .bind = bind,
    .run = run,
};
