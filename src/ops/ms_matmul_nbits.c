/* ms_matmul_nbits.c - com.microsoft MatMulNBits: A [.., K] times a matrix [N, K] of 2, 4 or 8-bit
 * weights, in blocks along K that share a scale and a zero point.
 *
 * B [N, blocks, block_size * bits / 8] and packed zero points [N, ceil(blocks * bits / 8)] hold the
 * first code in the low bits; scales [N, blocks], or flat. Without zero points the middle code
 * counts as 0. */
#include "ops/bulk.h"
#include "ops/expect.h"
#include "ops/matmul_core.h"

typedef struct nbits_attrs {
    int64_t K, N, accuracy_level, bits, block_size, weight_prepacked;
} nbits_attrs;

static const kiln_attr table[] = {
    KILN_A_INT_REQUIRED(nbits_attrs, K),          KILN_A_INT_REQUIRED(nbits_attrs, N),
    KILN_A_INT(nbits_attrs, accuracy_level, 0),   KILN_A_INT(nbits_attrs, bits, 4),
    KILN_A_INT_REQUIRED(nbits_attrs, block_size), KILN_A_INT(nbits_attrs, weight_prepacked, 0),
};

enum { A, B, SCALES, ZEROS, GROUPS, BIAS };

static int64_t block_count(const nbits_attrs *a) {
    return a->K / a->block_size + (a->K % a->block_size != 0);
}

static kiln_status check_attrs(const kiln_infer *c) {
    const nbits_attrs *a = c->attrs;
    bool block =
        a->block_size >= 16 && a->block_size <= 65536 && (a->block_size & (a->block_size - 1)) == 0;
    if (a->K < 1 || a->K > INT32_MAX || a->N < 1 || a->N > INT32_MAX || !block) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "K is %lld, N %lld, block_size %lld", (long long)a->K,
                               (long long)a->N, (long long)a->block_size);
    }
    if ((a->bits != 2 && a->bits != 4 && a->bits != 8) || a->weight_prepacked != 0) {
        return KILN_INFER_FAIL(c, VARIANT, "bits %lld with weight_prepacked %lld is not supported",
                               (long long)a->bits, (long long)a->weight_prepacked);
    }
    if (kiln_infer_has(c, GROUPS)) {
        return KILN_INFER_FAIL(c, VARIANT, "g_idx is not supported");
    }
    return KILN_OK;
}

/* An input of [rows, columns] may also be flat. */
static kiln_status check_flat(const kiln_infer *c, int32_t i, const char *what, kiln_dim rows,
                              kiln_dim columns) {
    kiln_dim two[] = {rows, columns}, one[] = {kiln_dim_mul(c->dims, rows, columns)};
    return kiln_infer_in_rank(c, i) == 1 ? kiln_expect_shape(c, i, what, 1, one)
                                         : kiln_expect_shape(c, i, what, 2, two);
}

static kiln_status infer(kiln_infer *c) {
    const nbits_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, A);
    KILN_TRY(check_attrs(c));
    int64_t blocks = block_count(a), bytes = a->block_size * a->bits / 8;
    kiln_dim b[] = {a->N, blocks, bytes}, bias[] = {a->N};
    bool packed = kiln_infer_has(c, ZEROS) && c->in[ZEROS].type.dtype == KILN_DTYPE_U8;
    KILN_TRY(kiln_infer_dtype(c, A, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_dtype(c, B, KILN_T(U8)));
    KILN_TRY(kiln_infer_dtype(c, SCALES, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_dtype(c, ZEROS, KILN_T_FLOAT | KILN_T(U8)));
    KILN_TRY(kiln_infer_same_dtype(c, A, BIAS));
    KILN_TRY(kiln_infer_rank(c, A, 1, -1));
    KILN_TRY(kiln_expect_dim(c, A, -1, a->K, "A"));
    KILN_TRY(kiln_expect_shape(c, B, "B", 3, b));
    KILN_TRY(kiln_expect_shape(c, BIAS, "the bias", 1, bias));
    KILN_TRY(check_flat(c, SCALES, "scales", a->N, blocks));
    KILN_TRY(
        check_flat(c, ZEROS, "zero_points", a->N, packed ? (blocks * a->bits + 7) / 8 : blocks));
    kiln_dim *dims = kiln_infer_dims(c, 0, c->in[A].type.dtype, rank);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; d < rank; d++) {
        dims[d] = d == rank - 1 ? a->N : kiln_infer_dim(c, A, d);
    }
    return KILN_OK;
}

/* Code i of packed data. */
static int code(const uint8_t *data, int64_t i, int64_t bits) {
    int64_t per_byte = 8 / bits;
    return data[i / per_byte] >> (i % per_byte * bits) & ((1 << bits) - 1);
}

static double zero_of(const nbits_attrs *a, const kiln_tensor *zeros, int64_t n, int64_t block) {
    int64_t blocks = block_count(a);
    if (!zeros) {
        return (double)(1 << (a->bits - 1));
    }
    if (zeros->dtype == KILN_DTYPE_U8) {
        int64_t bytes = (blocks * a->bits + 7) / 8;
        return code((const uint8_t *)zeros->data + n * bytes, block, a->bits);
    }
    return kiln_get_f64(zeros->dtype, zeros->data, n * blocks + block);
}

/* Row n of the weights as float64. */
static void unpack(const kiln_ref *c, int64_t n, double *row) {
    const nbits_attrs *a = c->attrs;
    const kiln_tensor *scales = kiln_ref_in(c, SCALES), *zeros = kiln_ref_in(c, ZEROS);
    int64_t blocks = block_count(a);
    const uint8_t *data =
        (const uint8_t *)kiln_ref_in(c, B)->data + n * blocks * (a->block_size * a->bits / 8);
    for (int64_t k = 0; k < a->K; k++) {
        int64_t block = k / a->block_size;
        double scale = kiln_get_f64(scales->dtype, scales->data, n * blocks + block);
        row[k] = (code(data, k, a->bits) - zero_of(a, zeros, n, block)) * scale;
    }
}

static kiln_status ref(kiln_ref *c) {
    const nbits_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, A), *bias = kiln_ref_in(c, BIAS);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t rows = kiln_tensor_count(x) / a->K;
    double *w, *v;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_ALLOC(w, c->arena, a->K);
    KILN_TRY(kiln_ref_doubles(c, x, &v));
    for (int64_t n = 0; n < a->N; n++) {
        double add = bias ? kiln_get_f64(bias->dtype, bias->data, n) : 0;
        KILN_TRY(kiln_ref_poll(c));
        unpack(c, n, w);
        for (int64_t m = 0; m < rows; m++) {
            double sum = 0;
            for (int64_t k = 0; k < a->K; k++) {
                sum += v[m * a->K + k] * w[k];
            }
            kiln_set_f64(y->dtype, y->data, m * a->N + n, sum + add);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

static void cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                 kiln_cost *result) {
    const nbits_attrs *a = node->attrs;
    (void)in;
    result->macs = kiln_matmul_macs(out, a->K);
}

const kiln_op kiln_op_ms_matmul_nbits = {
    .name = "MatMulNBits",
    .domain = "com.microsoft",
    .since = 1,
    .min_in = 3,
    .max_in = 6,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, nbits_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
    .cost = cost,
};
