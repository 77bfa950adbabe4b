/* gemm_codes.c - Gemm and MatMul of float32 activations by weights of 8 or 4 bits with scales for
 * blocks of them: [DequantizeLinear(constant)] -> product -> what gemm_f32 fuses.
 *
 * For one or a few rows a product takes as long as its weights take from memory: they stay packed
 * there, a fourth or an eighth of the bytes. A member of the team makes the floats of one panel of
 * columns in its own cache and multiplies all rows by it. Code, zero point and scale give the very
 * floats of DequantizeLinear's reference, and the product is gemm_f32's: so are the bits.
 *
 * Legend: M rows, K summed, N columns; panels of nr columns; blocks of `block` rows of weights. */
#include "backend/cpu/fuse.h"
#include "backend/cpu/operand.h"
#include "backend/cpu/prims/quantize.h"
#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/quantize.h"

/* FEW_ROWS: for so many it is cheaper to make the floats again than to store them. */
enum { ROWS_AT_ONCE = 256, FEW_ROWS = 3, MAX_NR = 32 };

typedef struct codes_params {
    kiln_fused fused;
    const kiln_node *dequant;
    int64_t n, k, block;
    bool trans_b, has_zero;
    kiln_codes_kind kind;
} codes_params;

typedef struct codes_state {
    const kiln_gemm_prims *gemm;
    const kiln_quantize_prims *quantize;
    kiln_fused_state fused;
    kiln_gemm_args args;
    kiln_codes codes;
    int64_t panels, row_blocks, blocks;
    size_t panel_bytes; /* of codes */
    bool has_zero;
} codes_state;

/* ---- Claim ---- */

static bool kind_of(kiln_dtype dtype, kiln_codes_kind *out) {
    static const struct {
        kiln_dtype dtype;
        kiln_codes_kind kind;
    } kinds[] = {{KILN_DTYPE_I8, KILN_CODES_S8},
                 {KILN_DTYPE_U8, KILN_CODES_U8},
                 {KILN_DTYPE_I4, KILN_CODES_S4},
                 {KILN_DTYPE_U4, KILN_CODES_U4}};
    for (size_t i = 0; i < KILN_COUNT_OF(kinds); i++) {
        if (kinds[i].dtype == dtype) {
            *out = kinds[i].kind;
            return true;
        }
    }
    return false;
}

/* Rows of the weight that share scales: a block along K, or all where scales run along N or there
 * is one; -1 for others. */
static int64_t block_of(const kiln_node *dequant, int64_t k, int32_t axis_k) {
    const kiln_quant_attrs *a = dequant->attrs;
    const kiln_type *scale = &dequant->in[1]->type;
    int64_t axis = a->axis < 0 ? a->axis + 2 : a->axis;
    if (scale->rank == 0 || (scale->rank == 1 && scale->dims[0] == 1)) {
        return k;
    }
    if (a->block_size > 0) {
        return axis == axis_k ? (a->block_size < k ? a->block_size : k) : -1;
    }
    return axis == axis_k ? -1 : k;
}

static const char *read_weight(kiln_claimer *c, const kiln_node *node, codes_params *p) {
    const kiln_value *w = node->in[1];
    kiln_node *d = kiln_claim_producer(c, w, &kiln_op_dequantize_linear);
    if (!d || !d->in[0]->constant || !d->in[1]->constant || w->type.rank != 2 ||
        !kiln_type_is_static(&w->type)) {
        return "the second operand is no dequantized constant matrix";
    }
    const kiln_value *zero = kiln_node_in(d, 2);
    bool gemm = KILN_IS(node, gemm);
    p->trans_b = gemm && ((const kiln_gemm_attrs *)node->attrs)->transB != 0;
    p->k = w->type.dims[p->trans_b];
    p->n = w->type.dims[!p->trans_b];
    p->dequant = d;
    p->has_zero = zero != NULL;
    p->block = block_of(d, p->k, p->trans_b ? 1 : 0);
    if (!kiln_value_is_f32(d->in[1]) || (zero && !zero->constant) ||
        !kind_of(d->in[0]->type.dtype, &p->kind)) {
        return "the weights are no integers of 8 or 4 bits at float32 scales";
    }
    return p->block < 1 || p->n < 1 ? "scales run along the rows of the weights, or it is empty"
                                    : NULL;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    bool gemm = KILN_IS(node, gemm);
    if (!gemm && !KILN_IS(node, matmul)) {
        return kiln_claim_refuse(c, "it runs Gemm and MatMul");
    }
    const kiln_gemm_attrs *a = node->attrs;
    kiln_value *x = node->in[0], *bias = gemm ? kiln_node_in(node, 2) : NULL, *y = node->out[0];
    codes_params params = {.n = 0};
    if (!kiln_value_is_f32(x) || !kiln_value_is_f32(y) || x->type.rank < 2) {
        return kiln_claim_refuse(c, "it takes float32 rows");
    }
    const char *wrong = read_weight(c, node, &params);
    if (wrong) {
        return kiln_claim_refuse(c, "%s", wrong);
    }
    if (gemm && (a->transA || a->alpha != 1.0f || (bias && a->beta != 1.0f))) {
        return kiln_claim_refuse(c, "transA is set, or alpha or beta is not 1");
    }
    int32_t columns = y->type.rank - 1;
    if (bias && (!kiln_value_is_f32(bias) || !kiln_is_axis_vector(bias, &y->type, columns))) {
        return kiln_claim_refuse(c, "the third operand is no vector along the columns");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_gemm_codes, node, 1, 1, sizeof params);
    if (!r || !kiln_claim_add(c, r, (kiln_node *)params.dequant)) {
        return NULL;
    }
    *(codes_params *)r->params = params;
    r->in[0] = x;
    return kiln_fuse_chain(c, r, &((codes_params *)r->params)->fused, y, columns, bias,
                           KILN_LAYOUT_ROW, false)
               ? r
               : NULL;
}

/* ---- Pack ---- */

static bool is_half(kiln_codes_kind kind) {
    return kind == KILN_CODES_S4 || kind == KILN_CODES_U4;
}

static size_t code_bytes(const codes_params *p, int64_t nr) {
    return (size_t)((is_half(p->kind) ? (p->k + 1) / 2 : p->k) * nr);
}

static int64_t block_count(const codes_params *p) {
    return p->k > 0 ? (p->k + p->block - 1) / p->block : 0;
}

/* Codes of all panels. */
static void pack_codes(const codes_params *p, int64_t nr, const kiln_tensor *w, uint8_t *dst) {
    bool half = is_half(p->kind);
    size_t panel = code_bytes(p, nr);
    for (int64_t i = 0; i < p->k * p->n; i++) {
        int64_t k = p->trans_b ? i % p->k : i / p->n, n = p->trans_b ? i / p->k : i % p->n;
        int64_t q = kiln_get_i64(w->dtype, w->data, i);
        uint8_t *to = dst + (size_t)(n / nr) * panel + (half ? k / 2 : k) * nr + n % nr;
        *to = (uint8_t)(half ? *to | (q & 15) << (k % 2 * 4) : q);
    }
}

/* One number for each block and column of all panels, from the tensor of scales or zero points. */
static void pack_numbers(const codes_params *p, int64_t nr, const kiln_tensor *w,
                         const kiln_tensor *t, float *dst) {
    const kiln_quant_attrs *a = p->dequant->attrs;
    int64_t axis = a->axis < 0 ? a->axis + 2 : a->axis;
    kiln_scale_map map = kiln_scale_map_of(w, t, axis, a->block_size);
    int64_t blocks = block_count(p);
    for (int64_t n = 0; n < p->n; n++) {
        for (int64_t b = 0; b < blocks; b++) {
            int64_t k = b * p->block, i = p->trans_b ? n * p->k + k : k * p->n + n;
            dst[(n / nr * blocks + b) * nr + n % nr] =
                (float)kiln_get_f64(t->dtype, t->data, kiln_scale_index(&map, i));
        }
    }
}

static kiln_status pack(kiln_packer *k) {
    const codes_params *p = k->claim->params;
    const kiln_gemm_prims *gemm = k->target->prims->gemm;
    int64_t panels = gemm->panels(p->n), nr = gemm->nr;
    size_t numbers = (size_t)(panels * block_count(p) * nr) * sizeof(float);
    kiln_status status, second, third = KILN_OK;
    uint8_t *codes = kiln_pack_blob(k, (size_t)panels * code_bytes(p, nr), &status);
    float *scale = kiln_pack_blob(k, numbers, &second);
    float *zero = p->has_zero ? kiln_pack_blob(k, numbers, &third) : NULL;
    kiln_tensor w, t;
    if (!codes || !scale || (p->has_zero && !zero)) {
        return status ? status : second ? second : third;
    }
    KILN_TRY(kiln_pack_constant(k, p->dequant->in[0], &w));
    pack_codes(p, nr, &w, codes);
    KILN_TRY(kiln_pack_constant(k, p->dequant->in[1], &t));
    pack_numbers(p, nr, &w, &t, scale);
    if (p->has_zero) {
        KILN_TRY(kiln_pack_constant(k, p->dequant->in[2], &t));
        pack_numbers(p, nr, &w, &t, zero);
    }
    return KILN_OK;
}

/* ---- Run ---- */

static kiln_status bind(kiln_binder *b) {
    const codes_params *p = b->claim->params;
    codes_state *s;
    KILN_ALLOC(s, b->arena, 1);
    const kiln_tensor *x = &b->in[0].tensor;
    int64_t m = 1;
    for (int32_t d = 0; d + 1 < x->rank; d++) {
        m *= x->dims[d];
    }
    s->gemm = b->target->prims->gemm;
    s->quantize = b->target->prims->quantize;
    s->args = (kiln_gemm_args){
        .m = m, .n = p->n, .k = p->k, .lda = p->k, .ldc = p->n, .epilogue = KILN_EPILOGUE_NONE};
    s->codes = (kiln_codes){.kind = p->kind, .k = p->k, .nr = s->gemm->nr, .block = p->block};
    s->panels = s->gemm->panels(p->n);
    s->row_blocks = (m + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    s->blocks = block_count(p);
    s->panel_bytes = code_bytes(p, s->gemm->nr);
    s->has_zero = p->has_zero;
    kiln_fuse_bind(&s->fused, &p->fused, b, p->n);
    b->scratch_bytes = (size_t)s->gemm->packed_bytes(p->k, s->gemm->nr);
    b->state = s;
    return KILN_OK;
}

/* The program that follows sees blocks of a part of C: what it is told is moved to the whole. */
typedef struct moved {
    const kiln_epilogue *whole;
    int64_t row, col;
} moved;

static void post_moved(const void *arg, float *c, int64_t ldc, int64_t row0, int64_t rows,
                       int64_t col0, int64_t cols) {
    const moved *at = arg;
    at->whole->post(at->whole->post_arg, c, ldc, row0 + at->row, rows, col0 + at->col, cols);
}

/* The part of the product from (row, col) on, `rows` high and a panel wide, of which a and b give
 * k products. */
static void multiply(const codes_state *s, const kiln_gemm_args *whole, int64_t row, int64_t rows,
                     int64_t col, const float *a, const float *b, int64_t k) {
    kiln_gemm_args args = *whole;
    const moved at = {&whole->epilogue, row, col};
    args.a = a;
    args.b = b;
    args.k = k;
    args.m = whole->m - row < rows ? whole->m - row : rows;
    args.n = whole->n - col < s->codes.nr ? whole->n - col : s->codes.nr;
    args.c += row * args.ldc + col;
    args.epilogue.bias = args.epilogue.bias ? args.epilogue.bias + col : NULL;
    if (args.epilogue.residual) {
        args.epilogue.residual += row * args.epilogue.ld_residual + col;
    }
    if (args.epilogue.post) {
        args.epilogue.post = post_moved;
        args.epilogue.post_arg = &at;
    }
    s->gemm->run(&args, 0, s->gemm->tiles(&args));
}

/* The sums, then once 1 * sum with what follows it. */
static void multiply_few(const codes_state *s, const kiln_gemm_args *whole, const kiln_codes *codes,
                         int64_t col) {
    KILN_ALIGNED(64) float sums[MAX_NR];
    const float one = 1;
    for (int64_t row = 0; row < whole->m; row++) {
        s->quantize->dots(sums, codes, whole->a + row * whole->lda);
        multiply(s, whole, row, 1, col, &one, sums, 1);
    }
}

static kiln_codes panel_of(const codes_state *s, const kiln_call *call, int64_t panel) {
    kiln_codes codes = s->codes;
    int64_t numbers = panel * s->blocks * codes.nr;
    codes.code = (const char *)call->blobs[0].data + (size_t)panel * s->panel_bytes;
    codes.scale = (const float *)call->blobs[1].data + numbers;
    codes.zero = s->has_zero ? (const float *)call->blobs[2].data + numbers : NULL;
    return codes;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const codes_state *s = call->state;
    int64_t begin, end, have = -1;
    kiln_team_split(team, s->panels * s->row_blocks, &begin, &end);
    if (begin >= end) {
        return;
    }
    float *b = (float *)(void *)(call->scratch + (size_t)team->rank * call->scratch_bytes);
    kiln_gemm_args whole = s->args;
    kiln_program_post_args post;
    whole.a = call->in[0];
    whole.c = call->out[0];
    kiln_fuse_resolve(&s->fused, call, &whole.epilogue, &post);
    for (int64_t u = begin; u < end; u++) {
        int64_t panel = u / s->row_blocks, row = u % s->row_blocks * ROWS_AT_ONCE;
        kiln_codes codes = panel_of(s, call, panel);
        if (whole.m <= FEW_ROWS) {
            multiply_few(s, &whole, &codes, panel * codes.nr);
            continue;
        }
        if (panel != have) {
            s->quantize->panel(b, &codes);
            have = panel;
        }
        multiply(s, &whole, row, ROWS_AT_ONCE, panel * codes.nr, whole.a + row * whole.lda, b,
                 whole.k);
    }
}

const kiln_kernel kiln_kernel_gemm_codes = {
    .name = "gemm_codes",
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
};
