/* matmul_q8.c - 8-bit MatMul of two activations between Q/DQ, as in quantized attention.
 *
 * Legend: A [batch, M, K], B [batch, K, N], C [batch, M, N]; leading dims broadcast. With zero
 * points za and zb, and b' = b - 128 as the int8 side,
 *
 *     sum (a - za)(b - zb) = sum a b' - za sum b' + z' (K za - sum a),       z' = zb - 128
 *
 * so a sum starts at a term of its column and one of its row. Every run packs B, one matrix for
 * each batch element it has, with the columns' terms; rows have terms of their own only when z' is
 * not 0. Then the team meets and shares the tiles of all batch elements. */
#include <string.h>

#include "backend/cpu/axes.h"
#include "backend/cpu/kernels/q8_region.h"
#include "ops/ops.h"

typedef struct matmul_q8_params {
    kiln_q8_region region; /* first: kiln_q8_reference */
} matmul_q8_params;

typedef struct matmul_q8_state {
    kiln_q8_bound bound;
    const kiln_gemm_q8_prims *prims;
    kiln_gemm_q8_args args;
    int64_t batches, tiles; /* tiles of one batch element */
    int64_t *a_matrix;      /* per batch element: which matrix of A */
    int64_t *b_matrix;
    int64_t a_matrices, b_matrices, panels;
    int64_t packed_bytes; /* of a packed matrix, a multiple of 64 */
    int32_t a_zero, b_zero;
    size_t column_at, row_at; /* of the terms, in the shared memory */
    float *scale;             /* the same for all columns, and offsets of zero */
} matmul_q8_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, matmul)) {
        return kiln_claim_refuse(c, "it runs MatMul");
    }
    if (node->in[0]->type.rank < 2 || node->in[1]->type.rank < 2) {
        return kiln_claim_refuse(c, "an operand is no matrix");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_matmul_q8, node, 2, 1, sizeof(matmul_q8_params));
    if (!r) {
        return NULL;
    }
    matmul_q8_params *p = r->params;
    int32_t channel = node->out[0]->type.rank - 1;
    if (!kiln_q8_begin_pair(c, r, &p->region, channel)) {
        return NULL;
    }
    return kiln_q8_extend(c, r, &p->region, KILN_LAYOUT_ROW) ? r : NULL;
}

/* ---- Bind ---- */

static int64_t count_of(const int64_t *dims, int32_t n) {
    int64_t count = 1;
    for (int32_t d = 0; d < n; d++) {
        count *= dims[d];
    }
    return count;
}

/* Which of an operand's matrices batch element i of y uses: dims of 1 repeat. */
static int64_t matrix_of(int64_t i, const kiln_tensor *y, const kiln_tensor *x) {
    int64_t at = 0, step = 1;
    int32_t lead = y->rank - x->rank;
    for (int32_t d = y->rank - 3; d >= 0; d--) {
        int64_t index = i % y->dims[d];
        i /= y->dims[d];
        if (d >= lead) {
            at += x->dims[d - lead] == 1 ? 0 : index * step;
            step *= x->dims[d - lead];
        }
    }
    return at;
}

static kiln_status bind_batches(kiln_binder *b, matmul_q8_state *s, const kiln_tensor *y) {
    s->batches = count_of(y->dims, y->rank - 2);
    KILN_ALLOC(s->a_matrix, b->arena, s->batches);
    KILN_ALLOC(s->b_matrix, b->arena, s->batches);
    for (int64_t i = 0; i < s->batches; i++) {
        s->a_matrix[i] = matrix_of(i, y, &b->in[0].tensor);
        s->b_matrix[i] = matrix_of(i, y, &b->in[1].tensor);
    }
    return KILN_OK;
}

/* Every column has the scale of the whole. */
static kiln_status bind_scales(kiln_binder *b, matmul_q8_state *s, const kiln_q8_region *g) {
    int64_t n = s->args.n, stride = kiln_q8_stride(n);
    KILN_ALLOC(s->scale, b->arena, 2 * stride);
    kiln_q8_pair_scales(g, n, s->scale);
    s->args.epilogue = kiln_q8_epilogue_of(g, n, s->scale);
    s->args.epilogue.ld_residual = n;
    return KILN_OK;
}

static kiln_status bind(kiln_binder *b) {
    const kiln_q8_region *g = &((const matmul_q8_params *)b->claim->params)->region;
    matmul_q8_state *s;
    kiln_tensor y;
    KILN_ALLOC(s, b->arena, 1);
    KILN_TRY(kiln_bind_tensor(b, g->anchor->out[0], &y));
    const kiln_tensor *a = &b->in[0].tensor, *w = &b->in[1].tensor;
    int64_t m = y.dims[y.rank - 2], n = y.dims[y.rank - 1], k = a->dims[a->rank - 1];
    b->state = s;
    s->prims = b->target->prims->gemm_q8;
    s->a_zero = g->x.zero;
    s->b_zero = g->w_scalar.zero;
    s->args = (kiln_gemm_q8_args){.m = m, .n = n, .k = k, .lda = k, .ldc = n};
    if (kiln_tensor_count(&y) == 0) {
        return KILN_OK;
    }
    if (k > KILN_Q8_MAX_K) {
        return kiln_fail(b->diag, KILN_F_RUN_SIZE, "a sum of %lld products does not fit 32 bits",
                         (long long)k);
    }
    kiln_q8_bind(&s->bound, g, b, n);
    KILN_TRY(bind_scales(b, s, g));
    KILN_TRY(bind_batches(b, s, &y));
    s->a_matrices = count_of(a->dims, a->rank - 2);
    s->b_matrices = count_of(w->dims, w->rank - 2);
    s->panels = s->prims->panels(n);
    s->packed_bytes = (s->prims->packed_bytes(k, n) + 63) / 64 * 64;
    s->column_at = (size_t)(s->b_matrices * s->packed_bytes);
    s->row_at = s->column_at + (size_t)(s->b_matrices * kiln_q8_stride(n)) * sizeof(int32_t);
    b->shared_bytes = s->row_at + (size_t)(s->a_matrices * m) * sizeof(int32_t);
    s->tiles = s->prims->tiles(&s->args);
    b->scratch_bytes = (size_t)s->prims->scratch_bytes(&s->args);
    return KILN_OK;
}

/* ---- Run ---- */

/* Panels and column terms of B; row terms of A. */
static void prepare(const matmul_q8_state *s, const kiln_call *call, const kiln_team *team) {
    const kiln_gemm_q8_args *g = &s->args;
    char *shared = call->shared;
    const uint8_t *b = call->in[1], *a = call->in[0];
    int64_t begin, end;
    kiln_team_split(team, s->b_matrices * s->panels, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t matrix = i / s->panels, panel = i % s->panels;
        void *packed = shared + matrix * s->packed_bytes;
        int32_t *column =
            (int32_t *)(void *)(shared + s->column_at) + matrix * kiln_q8_stride(g->n);
        s->prims->pack(packed, b + matrix * g->k * g->n, g->k, g->n, g->n, 1, 0x80, panel,
                       panel + 1);
        s->prims->columns(column, packed, g->k, g->n, -s->a_zero, panel, panel + 1);
    }
    if (s->b_zero == 128) {
        return;
    }
    int32_t z = s->b_zero - 128, *row = (int32_t *)(void *)(shared + s->row_at);
    kiln_team_split(team, s->a_matrices * g->m, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        row[i] = z * ((int32_t)g->k * s->a_zero - s->prims->sum(a + i * g->k, g->k));
    }
}

/* Tiles [from, to) of batch element i. */
static void multiply(const matmul_q8_state *s, const kiln_call *call, const kiln_team *team,
                     int64_t i, int64_t from, int64_t to) {
    kiln_gemm_q8_args args = s->args;
    kiln_epilogue floats;
    kiln_program_post_args post;
    const char *shared = call->shared;
    const int64_t at = i * args.m * args.n, n = args.n;
    kiln_q8_resolve(&s->bound, call, &args.epilogue, &floats, &post);
    kiln_q8_advance(&s->bound, &args.epilogue, &floats, &post, at);
    args.a = (const uint8_t *)call->in[0] + s->a_matrix[i] * args.m * args.k;
    args.b = shared + s->b_matrix[i] * s->packed_bytes;
    args.c = (char *)call->out[0] + at * (args.epilogue.to_float ? (int64_t)sizeof(float) : 1);
    args.epilogue.start =
        (const int32_t *)(const void *)(shared + s->column_at) + s->b_matrix[i] * kiln_q8_stride(n);
    if (s->b_zero != 128) {
        args.row_start =
            (const int32_t *)(const void *)(shared + s->row_at) + s->a_matrix[i] * args.m;
    }
    s->prims->run(&args, from, to, call->scratch + (size_t)team->rank * call->scratch_bytes);
}

static void run(const kiln_call *call, const kiln_team *team) {
    const matmul_q8_state *s = call->state;
    if (s->tiles == 0) {
        return;
    }
    prepare(s, call, team);
    kiln_team_barrier(team);
    kiln_tile_share share = kiln_tile_share_of(team, s->batches, s->tiles);
    for (kiln_tile_run r; kiln_tile_next(&share, &r);) {
        multiply(s, call, team, r.matrix, r.from, r.to);
    }
}

const kiln_kernel kiln_kernel_matmul_q8 = {
    .name = "matmul_q8",
    .computes = KILN_DTYPE_I8,
    .claim = claim,
    .bind = bind,
    .run = run,
    .reference = kiln_q8_reference,
};
