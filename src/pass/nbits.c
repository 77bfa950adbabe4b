/* nbits.c - MatMulNBits (com.microsoft) in standard operators: a block-wise DequantizeLinear of the
 * codes, a MatMul, an Add of the bias.
 *
 * Its codes lie row by row of the output, [N, blocks, block], packed from the low bits on, and the
 * last block may be filled up; here they become a matrix [K, N] of 4-bit or 8-bit integers with
 * scales and zero points [blocks, N]. Without zero points the middle code counts as 0. */
#include "ops/ops.h"
#include "pass/fold.h"

typedef struct source {
    int64_t k, n, bits, block, blocks;
    kiln_dtype dtype;
    kiln_tensor codes, scales, zeros; /* zeros.data NULL: the middle */
} source;

/* Code i of packed bytes. */
static int64_t code_at(const uint8_t *data, int64_t i, int64_t bits) {
    int64_t per_byte = 8 / bits;
    return data[i / per_byte] >> (i % per_byte * bits) & ((1 << bits) - 1);
}

static bool is_f32_constant(const kiln_value *v) {
    return kiln_value_is_const(v) && v->type.dtype == KILN_DTYPE_F32;
}

static bool read_node(const kiln_node *n, source *s) {
    const kiln_value *zeros = kiln_node_in(n, 3), *a = n->in[0];
    s->k = kiln_node_int(n, "K", 0);
    s->n = kiln_node_int(n, "N", 0);
    s->bits = kiln_node_int(n, "bits", 4);
    s->block = kiln_node_int(n, "block_size", 0);
    s->blocks = s->block > 0 ? s->k / s->block + (s->k % s->block != 0) : 0;
    s->dtype = s->bits == 4 ? KILN_DTYPE_U4 : KILN_DTYPE_U8;
    bool plain = !zeros || (kiln_value_is_const(zeros) && zeros->type.dtype == KILN_DTYPE_U8);
    return (s->bits == 4 || s->bits == 8) && plain && !kiln_node_in(n, 4) && kiln_is_tensor(a) &&
           a->type.dtype == KILN_DTYPE_F32 && kiln_rank(a) >= 1 && s->blocks > 0 && s->n > 0 &&
           kiln_value_is_const(n->in[1]) && is_f32_constant(n->in[2]);
}

static kiln_status read_data(kiln_patch *p, const kiln_node *n, source *s) {
    const kiln_value *zeros = kiln_node_in(n, 3);
    KILN_TRY(kiln_fold_data(n->in[1], &s->codes, p->arena, p->diag));
    KILN_TRY(kiln_fold_data(n->in[2], &s->scales, p->arena, p->diag));
    s->zeros.data = NULL;
    return zeros ? kiln_fold_data(zeros, &s->zeros, p->arena, p->diag) : KILN_OK;
}

/* Everything is as long as the attributes say. */
static bool is_whole(const source *s) {
    int64_t row = (s->blocks * s->bits + 7) / 8;
    return kiln_tensor_count(&s->codes) == s->n * s->blocks * (s->block * s->bits / 8) &&
           kiln_tensor_count(&s->scales) == s->n * s->blocks &&
           (!s->zeros.data || kiln_tensor_count(&s->zeros) == s->n * row);
}

static bool make(kiln_patch *p, kiln_tensor *t, kiln_dtype dtype, int64_t rows, int64_t columns) {
    *t = (kiln_tensor){.dtype = dtype, .rank = 2, .dims = {rows, columns}};
    t->cap_bytes = kiln_tensor_bytes(t);
    t->data = kiln_patch_scratch(p, (int64_t)t->cap_bytes, 1);
    return t->data != NULL;
}

static kiln_value *dequantized(kiln_patch *p, const source *s) {
    kiln_tensor codes, scales, zeros;
    const uint8_t *from = s->codes.data, *zero = s->zeros.data;
    int64_t row = (s->blocks * s->bits + 7) / 8;
    if (!make(p, &codes, s->dtype, s->k, s->n) ||
        !make(p, &scales, KILN_DTYPE_F32, s->blocks, s->n) ||
        !make(p, &zeros, s->dtype, s->blocks, s->n)) {
        return NULL;
    }
    for (int64_t n = 0; n < s->n; n++) {
        const uint8_t *codes_of_n = from + n * s->blocks * (s->block * s->bits / 8);
        for (int64_t k = 0; k < s->k; k++) {
            kiln_set_i64(s->dtype, codes.data, k * s->n + n, code_at(codes_of_n, k, s->bits));
        }
        for (int64_t b = 0; b < s->blocks; b++) {
            int64_t z = zero ? code_at(zero + n * row, b, s->bits) : 1 << (s->bits - 1);
            kiln_set_i64(s->dtype, zeros.data, b * s->n + n, z);
            ((float *)scales.data)[b * s->n + n] =
                ((const float *)s->scales.data)[n * s->blocks + b];
        }
    }
    kiln_value *in[] = {kiln_patch_constant(p, &codes), kiln_patch_constant(p, &scales),
                        kiln_patch_constant(p, &zeros)};
    kiln_value *w = kiln_patch_node(p, "DequantizeLinear", in, 3);
    kiln_patch_int(p, w, "axis", 0);
    kiln_patch_int(p, w, "block_size", s->block);
    return w;
}

static kiln_status visit(kiln_patch *p, const kiln_node *node) {
    source s;
    if (node->op != &kiln_op_ms_matmul_nbits || !read_node(node, &s)) {
        return KILN_OK;
    }
    KILN_TRY(read_data(p, node, &s));
    if (!is_whole(&s)) {
        return KILN_OK;
    }
    kiln_value *bias = kiln_node_in(node, 5), *w = dequantized(p, &s);
    kiln_value *product[] = {node->in[0], w};
    kiln_value *y = kiln_patch_node(p, "MatMul", product, 2);
    if (bias) {
        kiln_value *sum[] = {y, bias};
        y = kiln_patch_node(p, "Add", sum, 2);
    }
    kiln_patch_replace(p, node->out[0], y);
    return kiln_patch_commit(p, "product by packed weights");
}

const kiln_pass kiln_pass_nbits = {.name = "nbits", .visit = visit};
