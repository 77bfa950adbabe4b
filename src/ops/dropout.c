/* dropout.c - Dropout: the input itself outside training; with training_mode, elements are dropped
 * with probability `ratio` and the rest scaled by 1 / (1 - ratio). */
#include "ops/util.h"

typedef struct dropout_attrs {
    int64_t seed;
} dropout_attrs;

static const kiln_attr table[] = {KILN_A_INT(dropout_attrs, seed, KILN_ABSENT)};

enum { DATA, RATIO, TRAINING };

static kiln_status infer(kiln_infer *c) {
    uint32_t f8 = KILN_T(F8E4M3FN) | KILN_T(F8E4M3FNUZ) | KILN_T(F8E5M2) | KILN_T(F8E5M2FNUZ);
    KILN_TRY(kiln_infer_dtype(c, DATA, KILN_T_FLOAT | f8));
    if (kiln_infer_has(c, RATIO)) {
        const double *v;
        int64_t n;
        KILN_TRY(kiln_infer_dtype(c, RATIO, KILN_T_FLOAT | f8));
        KILN_TRY(kiln_infer_rank(c, RATIO, 0, 1));
        KILN_TRY(kiln_infer_floats(c, RATIO, &v, &n));
        if (v && (n != 1 || !(v[0] >= 0 && v[0] <= 1))) {
            return KILN_INFER_FAIL(c, VALUE, "ratio must be one number in [0, 1], it has %lld (%g)",
                                   (long long)n, n ? v[0] : 0.0);
        }
    }
    if (kiln_infer_has(c, TRAINING)) {
        KILN_TRY(kiln_infer_dtype(c, TRAINING, KILN_T(BOOL)));
        KILN_TRY(kiln_infer_rank(c, TRAINING, 0, 1));
        if (kiln_infer_length(c, TRAINING) == 0) {
            return KILN_INFER_FAIL(c, SHAPE, "training_mode is empty");
        }
    }
    KILN_TRY(kiln_infer_like(c, 0, DATA, KILN_DTYPE_NONE));
    return kiln_infer_like(c, 1, DATA, KILN_DTYPE_BOOL);
}

/* MT19937 (Matsumoto and Nishimura 1998): with a seed attribute the same elements are dropped as by
 * ONNX's reference implementation. */
enum { MT_WORDS = 624, MT_MIDDLE = 397 };
typedef struct twister {
    uint32_t word[MT_WORDS];
    int32_t at;
} twister;

static void twister_seed(twister *t, uint32_t seed) {
    t->word[0] = seed;
    for (uint32_t i = 1; i < MT_WORDS; i++) {
        uint32_t last = t->word[i - 1];
        t->word[i] = UINT32_C(1812433253) * (last ^ last >> 30) + i;
    }
    t->at = MT_WORDS;
}

static uint32_t twister_next(twister *t) {
    for (int32_t i = 0; t->at == MT_WORDS && i < MT_WORDS; i++) {
        uint32_t low = t->word[(i + 1) % MT_WORDS];
        uint32_t v = (t->word[i] & UINT32_C(0x80000000)) | (low & UINT32_C(0x7FFFFFFF));
        uint32_t twist = low & 1 ? UINT32_C(0x9908B0DF) : 0;
        t->word[i] = t->word[(i + MT_MIDDLE) % MT_WORDS] ^ v >> 1 ^ twist;
    }
    t->at = t->at == MT_WORDS ? 0 : t->at;
    uint32_t y = t->word[t->at++];
    y ^= y >> 11;
    y ^= y << 7 & UINT32_C(0x9D2C5680);
    y ^= y << 15 & UINT32_C(0xEFC60000);
    return y ^ y >> 18;
}

/* A number in [0, 1) of 53 random bits. */
static double uniform(twister *t) {
    uint32_t high = twister_next(t) >> 5, low = twister_next(t) >> 6;
    return ((double)high * 67108864.0 + (double)low) / 9007199254740992.0;
}

static kiln_status ref(kiln_ref *c) {
    const dropout_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, DATA), *ratio_in = kiln_ref_in(c, RATIO);
    const kiln_tensor *training = kiln_ref_in(c, TRAINING);
    kiln_tensor *y = kiln_ref_out(c, 0), *mask = kiln_ref_out(c, 1);
    double ratio = ratio_in ? kiln_get_f64(ratio_in->dtype, ratio_in->data, 0) : 0.5;
    bool drops = training && kiln_get_i64(training->dtype, training->data, 0) && ratio > 0;
    twister state;
    twister_seed(&state, (uint32_t)(a->seed == KILN_ABSENT ? c->seed : (uint64_t)a->seed));
    int64_t n = kiln_tensor_count(x);
    for (int64_t i = 0; i < n; i++) {
        bool kept = !drops || uniform(&state) >= ratio;
        if (mask) {
            ((uint8_t *)mask->data)[i] = kept;
        }
        if (!drops) {
            kiln_copy_elements(x->dtype, y->data, i, x->data, i, 1);
            continue;
        }
        double v = kept ? kiln_get_f64(x->dtype, x->data, i) / (1 - ratio) : 0;
        kiln_set_f64(y->dtype, y->data, i, v);
    }
    return KILN_OK;
}

/* Random as far as passes can tell: those that know training_mode is false replace it by its input.
 * */
const kiln_op kiln_op_dropout = {
    .name = "Dropout",
    .domain = "",
    .since = 22,
    .min_in = 1,
    .max_in = 3,
    .min_out = 1,
    .max_out = 2,
    .flags = KILN_OP_RANDOM,
    KILN_OP_ATTRS(table, dropout_attrs),
    .tolerance = KILN_TOL_RANDOM,
    .infer = infer,
    .ref = ref,
};
