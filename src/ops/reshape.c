/* reshape.c - Reshape: the same elements under other dims. */
#include <string.h>

#include "ops/attrs.h"
#include "ops/move.h"

static const kiln_attr table[] = {KILN_A_INT(kiln_reshape_attrs, allowzero, 0)};

/* A product of dims, taken apart: a number times symbolic factors. */
enum { MAX_FACTORS = 128 };
typedef struct product {
    int64_t number;
    kiln_dim factors[MAX_FACTORS];
    int32_t n;
    bool valid; /* false: a dim is unknown, the number overflowed, or there are too many factors */
} product;

static void multiply(const kiln_dims *dims, product *p, kiln_dim d) {
    kiln_dim wait[MAX_FACTORS];
    int32_t n = 1;
    wait[0] = d;
    while (n > 0 && p->valid) {
        kiln_dim x = wait[--n];
        const kiln_dim_entry *e = kiln_dim_get(dims, x);
        if (kiln_dim_known(x)) {
            p->valid = kiln_mul_i64(p->number, x, &p->number);
        } else if (e && e->kind == KILN_DIM_MUL && n + 2 <= MAX_FACTORS) {
            wait[n++] = e->a;
            wait[n++] = e->b;
        } else if (x == KILN_DIM_UNKNOWN || p->n == MAX_FACTORS) {
            p->valid = false;
        } else {
            p->factors[p->n++] = x;
        }
    }
}

/* Removes factors that both products have. */
static void cancel(product *a, product *b) {
    for (int32_t i = 0; i < a->n; i++) {
        for (int32_t k = 0; k < b->n; k++) {
            if (a->factors[i] == b->factors[k]) {
                a->factors[i--] = a->factors[--a->n];
                b->factors[k] = b->factors[--b->n];
                break;
            }
        }
    }
}

static int64_t gcd(int64_t a, int64_t b) {
    while (b) {
        int64_t t = a % b;
        a = b;
        b = t;
    }
    return a;
}

static kiln_dim join(kiln_dims *dims, const product *p) {
    return kiln_dim_mul(dims, kiln_dim_product(dims, p->factors, p->n), p->number);
}

/* out[hole] = product(in) / product(out without hole); hole < 0: only checks that the products
 * fit. */
static kiln_status solve(kiln_infer *c, kiln_dim *out, int32_t n, int32_t hole, bool inferred) {
    product have = {.number = 1, .valid = true}, want = {.number = 1, .valid = true};
    for (int32_t i = 0; i < c->in[0].type.rank; i++) {
        multiply(c->dims, &have, c->in[0].type.dims[i]);
    }
    for (int32_t i = 0; i < n; i++) {
        if (i != hole) {
            multiply(c->dims, &want, out[i]);
        }
    }
    if (!have.valid || !want.valid) {
        return KILN_OK;
    }
    cancel(&have, &want);
    bool numbers = have.n == 0 && want.n == 0;
    if (numbers && (hole < 0 ? have.number != want.number
                             : inferred && (want.number == 0 || have.number % want.number != 0))) {
        return KILN_INFER_FAIL(c, SHAPE, "%lld elements do not fit a shape of %lld%s",
                               (long long)have.number, (long long)want.number,
                               hole < 0 ? "" : " times a whole number");
    }
    if (hole < 0 || want.number == 0 || have.number == 0) {
        return KILN_OK;
    }
    int64_t g = gcd(have.number, want.number);
    have.number /= g;
    want.number /= g;
    out[hole] = kiln_dim_div(c->dims, join(c->dims, &have), join(c->dims, &want));
    return KILN_OK;
}

/* Dims from the target shape `s`; *hole is the one entry to be solved for, -1 for none, -2 when
 * more than one is not known. */
static kiln_status read_target(kiln_infer *c, const kiln_dim *s, int64_t n, kiln_dim *out,
                               int32_t *hole, bool *inferred) {
    const kiln_reshape_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, 0);
    bool zero = false;
    *hole = -1;
    for (int32_t i = 0; i < n; i++) {
        out[i] = s[i];
        zero = zero || s[i] == 0;
        if (s[i] == 0 && !a->allowzero) {
            if (rank >= 0 && i >= rank) {
                return KILN_INFER_FAIL(
                    c, SHAPE, "shape[%d] = 0 copies a dim that an input of rank %d lacks", i, rank);
            }
            out[i] = kiln_infer_dim(c, 0, i);
        } else if (s[i] == -1) {
            if (*inferred) {
                return KILN_INFER_FAIL(c, SHAPE, "shape has more than one -1");
            }
            *inferred = true;
            out[i] = KILN_DIM_UNKNOWN;
        } else if (kiln_dim_known(s[i]) && s[i] < 0) {
            return KILN_INFER_FAIL(c, SHAPE, "shape[%d] = %lld is negative", i, (long long)s[i]);
        }
        if (out[i] == KILN_DIM_UNKNOWN) {
            *hole = *hole == -1 ? i : -2;
        }
    }
    if (zero && *inferred && a->allowzero) {
        return KILN_INFER_FAIL(c, SHAPE, "shape has both 0 and -1 under allowzero");
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_rank(c, 0, 0, -1));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    KILN_TRY(kiln_infer_rank(c, 1, 1, 1));
    int64_t n;
    const kiln_dim *s = kiln_infer_contents(c, 1, &n);
    if (!s) {
        n = kiln_infer_length(c, 1);
    }
    if (n > KILN_MAX_RANK) {
        return KILN_INFER_FAIL(c, VARIANT, "shape has %lld entries; at most %d dims are supported",
                               (long long)n, KILN_MAX_RANK);
    }
    kiln_dim *out =
        kiln_infer_dims(c, 0, c->in[0].type.dtype, n < 0 ? KILN_RANK_UNKNOWN : (int32_t)n);
    if (!out) {
        return KILN_E_MEMORY;
    }
    if (s) {
        int32_t hole;
        bool inferred = false;
        KILN_TRY(read_target(c, s, n, out, &hole, &inferred));
        if (kiln_infer_in_rank(c, 0) >= 0 && hole != -2) {
            KILN_TRY(solve(c, out, (int32_t)n, hole, inferred));
            bool empty = hole >= 0 && kiln_type_count(&c->in[0].type) == 0;
            if (empty && inferred && out[hole] == KILN_DIM_UNKNOWN) {
                out[hole] = 0;
            }
        }
    }
    return kiln_contents_pass(c, 0, 0);
}

const kiln_op kiln_op_reshape = {
    .name = "Reshape",
    .domain = "",
    .since = 25,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_VIEW | KILN_OP_TARGET,
    KILN_OP_ATTRS(table, kiln_reshape_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = kiln_ref_view,
};
