/* reduce_simd.c - the reductions of reduce.h.
 *
 * Each op is a step (acc, x) -> acc, a merge of two accumulators, and a finish; the two loop nests
 * below are instantiated with them.
 */
#include "backend/cpu/prims/reduce.h"
#include "backend/cpu/prims/vecmath.h"

enum { SEGMENT = 4096, PART = 64 };

KILN_INLINE kiln_vf step_sum(kiln_vf s, kiln_vf x, kiln_vf k) {
    (void)k;
    return vf_add(s, x);
}
KILN_INLINE kiln_vf step_abs(kiln_vf s, kiln_vf x, kiln_vf k) {
    (void)k;
    return vf_add(s, vf_abs(x));
}
KILN_INLINE kiln_vf step_square(kiln_vf s, kiln_vf x, kiln_vf k) {
    (void)k;
    return vf_fma(x, x, s);
}
KILN_INLINE kiln_vf step_prod(kiln_vf s, kiln_vf x, kiln_vf k) {
    (void)k;
    return vf_mul(s, x);
}
KILN_INLINE kiln_vf step_max(kiln_vf s, kiln_vf x, kiln_vf k) {
    (void)k;
    return vf_max_nan(s, x);
}
KILN_INLINE kiln_vf step_min(kiln_vf s, kiln_vf x, kiln_vf k) {
    (void)k;
    return vf_min_nan(s, x);
}
KILN_INLINE kiln_vf step_exp(kiln_vf s, kiln_vf x, kiln_vf k) {
    return vf_add(s, vf_exp(vf_sub(x, k)));
}

/* The halving tree of simd.h for any merge. */
#define HORIZONTAL(name, merge)                       \
    static float name(kiln_vf v) {                    \
        float lane[2 * KILN_VLEN] = {0};              \
        for (int w = KILN_VLEN / 2; w >= 1; w /= 2) { \
            vf_store(lane, v);                        \
            v = merge(v, vf_load(lane + w), v);       \
        }                                             \
        return v[0];                                  \
    }
HORIZONTAL(across_sum, step_sum)
HORIZONTAL(across_prod, step_prod)
HORIZONTAL(across_max, step_max)
HORIZONTAL(across_min, step_min)

/* name_row reduces n contiguous elements, name_lanes up to one vector of results whose elements are
 * `ld` apart. k: one operand the same for all elements (row) or per lane. */
#define REDUCER(name, step, merge, across, neutral)                                                \
    static float name##_row(const float *x, int64_t n, float k) {                                  \
        kiln_vf total = vf_set1(neutral);                                                          \
        for (int64_t i0 = 0; i0 < n; i0 += SEGMENT) {                                              \
            int64_t end = n - i0 < SEGMENT ? n : i0 + SEGMENT;                                     \
            kiln_vf s0 = vf_set1(neutral), s1 = s0, s2 = s0, s3 = s0;                              \
            kiln_vf kv = vf_set1(k);                                                               \
            int64_t i = i0;                                                                        \
            for (; i + 4 * KILN_VLEN <= end; i += 4 * KILN_VLEN) {                                 \
                s0 = step(s0, vf_load(x + i), kv);                                                 \
                s1 = step(s1, vf_load(x + i + KILN_VLEN), kv);                                     \
                s2 = step(s2, vf_load(x + i + 2 * KILN_VLEN), kv);                                 \
                s3 = step(s3, vf_load(x + i + 3 * KILN_VLEN), kv);                                 \
            }                                                                                      \
            for (; i + KILN_VLEN <= end; i += KILN_VLEN) {                                         \
                s0 = step(s0, vf_load(x + i), kv);                                                 \
            }                                                                                      \
            if (i < end) {                                                                         \
                kiln_vm m = vm_tail(end - i);                                                      \
                s1 = vf_select(m, step(s1, vf_load_mask(x + i, m), kv), s1);                       \
            }                                                                                      \
            s0 = merge(merge(s0, s1, kv), merge(s2, s3, kv), kv);                                  \
            total = merge(total, s0, kv);                                                          \
        }                                                                                          \
        return across(total);                                                                      \
    }                                                                                              \
    static kiln_vf name##_lanes(const float *x, int64_t ld, int64_t n, int64_t lanes, kiln_vf k) { \
        kiln_vf total = vf_set1(neutral);                                                          \
        for (int64_t i0 = 0; i0 < n; i0 += PART) {                                                 \
            int64_t end = n - i0 < PART ? n : i0 + PART;                                           \
            kiln_vf part = vf_set1(neutral);                                                       \
            for (int64_t i = i0; i < end; i++) {                                                   \
                part = step(part, vf_load_upto(x + i * ld, lanes), k);                             \
            }                                                                                      \
            total = merge(total, part, k);                                                         \
        }                                                                                          \
        return total;                                                                              \
    }
REDUCER(sum, step_sum, step_sum, across_sum, 0.0f)
REDUCER(abs, step_abs, step_sum, across_sum, 0.0f)
REDUCER(square, step_square, step_sum, across_sum, 0.0f)
REDUCER(prod, step_prod, step_prod, across_prod, 1.0f)
REDUCER(max, step_max, step_max, across_max, -INFINITY)
REDUCER(min, step_min, step_min, across_min, INFINITY)
REDUCER(exp, step_exp, step_sum, across_sum, 0.0f)

typedef struct reducer {
    float (*row)(const float *x, int64_t n, float k);
    kiln_vf (*lanes)(const float *x, int64_t ld, int64_t n, int64_t lanes, kiln_vf k);
} reducer;

static const reducer reducers[KILN_REDUCE_COUNT] = {
    [KILN_REDUCE_SUM] = {sum_row, sum_lanes},      [KILN_REDUCE_MEAN] = {sum_row, sum_lanes},
    [KILN_REDUCE_MAX] = {max_row, max_lanes},      [KILN_REDUCE_MIN] = {min_row, min_lanes},
    [KILN_REDUCE_PROD] = {prod_row, prod_lanes},   [KILN_REDUCE_L1] = {abs_row, abs_lanes},
    [KILN_REDUCE_L2] = {square_row, square_lanes}, [KILN_REDUCE_SUMSQ] = {square_row, square_lanes},
    [KILN_REDUCE_LOGSUM] = {sum_row, sum_lanes},   [KILN_REDUCE_LOGSUMEXP] = {exp_row, exp_lanes},
};

static kiln_vf finish(const kiln_reduce_args *a, kiln_vf v, kiln_vf k) {
    switch (a->op) {
    case KILN_REDUCE_MEAN:
        return vf_div(v, vf_set1((float)a->n));
    case KILN_REDUCE_L2:
        return vf_sqrt(v);
    case KILN_REDUCE_LOGSUM:
        return vf_log(v);
    case KILN_REDUCE_LOGSUMEXP:
        return vf_add(vf_log(v), k);
    default:
        return v;
    }
}

/* What LOGSUMEXP takes away: the maximum, or 0 where that is infinite, so that no inf - inf
 * arises. */
static kiln_vf shift_of(kiln_vf max) {
    return vf_select(vf_eq(vf_abs(max), vf_set1(INFINITY)), vf_zero(), max);
}

static void reduce(const kiln_reduce_args *a, int64_t begin, int64_t end) {
    const reducer *f = &reducers[a->op];
    bool shifted = a->op == KILN_REDUCE_LOGSUMEXP;
    for (int64_t i = begin; i < end && a->inner == 1; i++) {
        const float *x = a->x + i * a->n;
        kiln_vf k = shifted ? shift_of(vf_set1(max_row(x, a->n, 0.0f))) : vf_zero();
        a->y[i] = finish(a, vf_set1(f->row(x, a->n, k[0])), k)[0];
    }
    for (int64_t i = begin; i < end && a->inner != 1;) {
        int64_t row = i / a->inner;
        int64_t lane = i % a->inner;
        int64_t lanes = a->inner - lane < end - i ? a->inner - lane : end - i;
        const float *x = a->x + row * a->n * a->inner + lane;
        for (int64_t j = 0; j < lanes; j += KILN_VLEN) {
            int64_t left = lanes - j;
            kiln_vf k =
                shifted ? shift_of(max_lanes(x + j, a->inner, a->n, left, vf_zero())) : vf_zero();
            kiln_vf v = f->lanes(x + j, a->inner, a->n, left, k);
            vf_store_upto(a->y + i + j, left, finish(a, v, k));
        }
        i += lanes;
    }
}

static bool matches(float x, float best) {
    return x == best || (x != x && best != best);
}

static int64_t find(const float *x, int64_t n, float best, bool last) {
    if (last && best == best) {
        for (int64_t i = n - 1; i > 0; i--) {
            if (x[i] == best) {
                return i;
            }
        }
        return 0;
    }
    for (int64_t i = 0; i < n - 1; i++) {
        if (matches(x[i], best)) {
            return i;
        }
    }
    return n - 1;
}

/* Up to one vector of results; indices are int32 lanes, so n < 2^31. */
static void arg_lanes(const kiln_argreduce_args *a, const float *x, int64_t *y, int64_t lanes) {
    kiln_vf best = vf_load_upto(x, lanes);
    kiln_vi at = vi_set1(0);
    for (int64_t i = 1; i < a->n; i++) {
        kiln_vf v = vf_load_upto(x + i * a->inner, lanes);
        kiln_vm better = a->min ? vf_lt(v, best) : vf_gt(v, best);
        if (a->last) {
            better = vm_or(better, vf_eq(v, best));
        }
        better = vm_and(vm_or(better, vf_isnan(v)), vm_not(vf_isnan(best)));
        best = vf_select(better, v, best);
        at = vi_select(better, vi_set1((int32_t)i), at);
    }
    int32_t index[KILN_VLEN];
    vi_store(index, at);
    for (int64_t k = 0; k < lanes && k < KILN_VLEN; k++) {
        y[k] = index[k];
    }
}

static void argreduce(const kiln_argreduce_args *a, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end && a->inner == 1; i++) {
        const float *x = a->x + i * a->n;
        float best = a->min ? min_row(x, a->n, 0.0f) : max_row(x, a->n, 0.0f);
        a->y[i] = find(x, a->n, best, a->last);
    }
    for (int64_t i = begin; i < end && a->inner != 1;) {
        int64_t row = i / a->inner;
        int64_t lane = i % a->inner;
        int64_t lanes = a->inner - lane < end - i ? a->inner - lane : end - i;
        const float *x = a->x + row * a->n * a->inner + lane;
        for (int64_t j = 0; j < lanes; j += KILN_VLEN) {
            arg_lanes(a, x + j, a->y + i + j, lanes - j);
        }
        i += lanes;
    }
}

const kiln_reduce_prims KILN_ISA_SYMBOL(kiln_reduce_prims) = {
    .reduce = reduce,
    .argreduce = argreduce,
};
