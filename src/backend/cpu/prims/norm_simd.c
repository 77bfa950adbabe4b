/* norm_simd.c - the normalisations of norm.h.
 *
 * Row reductions keep four partial vectors, added pairwise at the end; long ones are cut into
 * segments of SEGMENT elements whose sums are added in order. Both depend on the length alone.
 */
#include "backend/cpu/prims/norm.h"
#include "backend/cpu/prims/vecmath.h"

enum { SEGMENT = 4096, STEP = 4 * KILN_VLEN };

/* A row reduction: sum of TERM(v) over n elements, lanes beyond n contributing nothing. */
#define ROW_SUM(name, TERM)                                                     \
    KILN_INLINE float name##_segment(const float *x, int64_t n, kiln_vf k) {    \
        kiln_vf s0 = vf_zero(), s1 = vf_zero(), s2 = vf_zero(), s3 = vf_zero(); \
        int64_t i = 0;                                                          \
        for (; i + STEP <= n; i += STEP) {                                      \
            s0 = TERM(s0, vf_load(x + i), k);                                   \
            s1 = TERM(s1, vf_load(x + i + KILN_VLEN), k);                       \
            s2 = TERM(s2, vf_load(x + i + 2 * KILN_VLEN), k);                   \
            s3 = TERM(s3, vf_load(x + i + 3 * KILN_VLEN), k);                   \
        }                                                                       \
        for (; i + KILN_VLEN <= n; i += KILN_VLEN) {                            \
            s0 = TERM(s0, vf_load(x + i), k);                                   \
        }                                                                       \
        if (i < n) {                                                            \
            kiln_vm m = vm_tail(n - i);                                         \
            kiln_vf t = TERM(vf_zero(), vf_load_mask(x + i, m), k);             \
            s1 = vf_add(s1, vf_select(m, t, vf_zero()));                        \
        }                                                                       \
        return vf_hsum(vf_add(vf_add(s0, s1), vf_add(s2, s3)));                 \
    }                                                                           \
    static float name(const float *x, int64_t n, float k) {                     \
        float sum = 0.0f;                                                       \
        for (int64_t i = 0; i < n; i += SEGMENT) {                              \
            int64_t len = n - i < SEGMENT ? n - i : SEGMENT;                    \
            sum += name##_segment(x + i, len, vf_set1(k));                      \
        }                                                                       \
        return sum;                                                             \
    }

KILN_INLINE kiln_vf add_plain(kiln_vf s, kiln_vf x, kiln_vf k) {
    (void)k;
    return vf_add(s, x);
}
KILN_INLINE kiln_vf add_centred_square(kiln_vf s, kiln_vf x, kiln_vf k) {
    kiln_vf d = vf_sub(x, k);
    return vf_fma(d, d, s);
}
KILN_INLINE kiln_vf add_abs(kiln_vf s, kiln_vf x, kiln_vf k) {
    (void)k;
    return vf_add(s, vf_abs(x));
}
ROW_SUM(row_sum, add_plain)
ROW_SUM(row_square_dev, add_centred_square)
ROW_SUM(row_abs_sum, add_abs)

/* out = x + residual + add, or NULL parts left out. */
static void row_add(float *out, const float *x, const float *residual, const float *add,
                    int64_t n) {
    int64_t i = 0;
    for (; residual != NULL && add == NULL && i + KILN_VLEN <= n; i += KILN_VLEN) {
        vf_store(out + i, vf_add(vf_load(x + i), vf_load(residual + i)));
    }
    for (; i < n; i += KILN_VLEN) {
        kiln_vf v = vf_load_upto(x + i, n - i);
        if (residual != NULL) {
            v = vf_add(v, vf_load_upto(residual + i, n - i));
        }
        if (add != NULL) {
            v = vf_add(v, vf_load_upto(add + i, n - i));
        }
        vf_store_upto(out + i, n - i, v);
    }
}

/* y = (x - mean) * inv * scale + bias over a row; NULL scale or bias left out. */
KILN_INLINE void row_apply_body(float *y, const float *x, float mean, float inv, const float *scale,
                                const float *bias, int64_t n) {
    kiln_vf mu = vf_set1(mean);
    kiln_vf k = vf_set1(inv);
    int64_t i = 0;
    for (; i + KILN_VLEN <= n; i += KILN_VLEN) {
        kiln_vf v = vf_mul(vf_sub(vf_load(x + i), mu), k);
        v = scale != NULL ? vf_mul(v, vf_load(scale + i)) : v;
        v = bias != NULL ? vf_add(v, vf_load(bias + i)) : v;
        vf_store(y + i, v);
    }
    if (i < n) {
        kiln_vm m = vm_tail(n - i);
        kiln_vf v = vf_mul(vf_sub(vf_load_mask(x + i, m), mu), k);
        v = scale != NULL ? vf_mul(v, vf_load_mask(scale + i, m)) : v;
        v = bias != NULL ? vf_add(v, vf_load_mask(bias + i, m)) : v;
        vf_store_mask(y + i, m, v);
    }
}

static void row_apply(float *y, const float *x, float mean, float inv, const float *scale,
                      const float *bias, int64_t n) {
    if (scale != NULL && bias != NULL) {
        row_apply_body(y, x, mean, inv, scale, bias, n);
    } else if (scale != NULL) {
        row_apply_body(y, x, mean, inv, scale, NULL, n);
    } else {
        row_apply_body(y, x, mean, inv, NULL, bias, n);
    }
}

static void layernorm(const kiln_layernorm_args *a, int64_t row0, int64_t row1) {
    for (int64_t r = row0; r < row1; r++) {
        const float *s = a->x + r * a->x_ld;
        float *y = a->y + r * a->y_ld;
        const float *residual = a->residual == NULL ? NULL : a->residual + r * a->residual_ld;
        if (residual != NULL || a->add != NULL || a->sum != NULL) {
            float *sum = a->sum == NULL ? y : a->sum + r * a->sum_ld;
            row_add(sum, s, residual, a->add, a->cols);
            s = sum;
        }
        float mean = a->rms ? 0.0f : row_sum(s, a->cols, 0.0f) / (float)a->cols;
        float var = row_square_dev(s, a->cols, mean) / (float)a->cols;
        float inv = 1.0f / sqrtf(var + a->eps);
        row_apply(y, s, mean, inv, a->scale, a->bias, a->cols);
        if (a->mean != NULL) {
            a->mean[r] = mean;
        }
        if (a->inv_std != NULL) {
            a->inv_std[r] = inv;
        }
    }
}

/* Per-channel sums of (x - mean)^p, p 1 or 2, over `spatial` rows `ld` apart, for one vector of
 * channels: partial sums of ROWS_PER_PART rows, added in order. */
enum { ROWS_PER_PART = 64 };

/* nv vectors of channels, the last of them possibly partial. */
KILN_INLINE void column_sum(float *sums, const float *x, int64_t ld, int64_t spatial, int64_t n,
                            const float *mean, int nv) {
    kiln_vf total[4];
    kiln_vf centre[4];
    for (int v = 0; v < nv; v++) {
        int64_t left = n - v * KILN_VLEN;
        total[v] = vf_zero();
        centre[v] = mean == NULL ? vf_zero() : vf_load_upto(mean + v * KILN_VLEN, left);
    }
    for (int64_t s0 = 0; s0 < spatial; s0 += ROWS_PER_PART) {
        int64_t s1 = s0 + ROWS_PER_PART < spatial ? s0 + ROWS_PER_PART : spatial;
        kiln_vf part[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
        for (int64_t s = s0; s < s1; s++) {
            KILN_UNROLL(4)
            for (int v = 0; v < nv; v++) {
                const float *p = x + s * ld + v * KILN_VLEN;
                kiln_vf d = nv > 1 ? vf_load(p) : vf_load_upto(p, n);
                d = vf_sub(d, centre[v]);
                part[v] = mean != NULL ? vf_fma(d, d, part[v]) : vf_add(part[v], d);
            }
        }
        for (int v = 0; v < nv; v++) {
            total[v] = vf_add(total[v], part[v]);
        }
    }
    for (int v = 0; v < nv; v++) {
        vf_store_upto(sums + v * KILN_VLEN, n - v * KILN_VLEN, total[v]);
    }
}

/* sums[c] for c < n channels; mean is per channel, or NULL for plain sums. */
static void column_sums(float *sums, const float *x, int64_t ld, int64_t spatial, int64_t n,
                        const float *mean) {
    int64_t c = 0;
    for (; c + 4 * KILN_VLEN <= n; c += 4 * KILN_VLEN) {
        column_sum(sums + c, x + c, ld, spatial, n - c, mean == NULL ? NULL : mean + c, 4);
    }
    for (; c < n; c += KILN_VLEN) {
        column_sum(sums + c, x + c, ld, spatial, n - c, mean == NULL ? NULL : mean + c, 1);
    }
}

/* Replaces every channel's sum by its group's mean. */
static void spread_group_means(float *sums, int64_t n, int64_t width, int64_t spatial) {
    for (int64_t g = 0; g < n; g += width) {
        float total = row_sum(sums + g, width, 0.0f) / ((float)width * (float)spatial);
        for (int64_t c = g; c < g + width; c++) {
            sums[c] = total;
        }
    }
}

/* One sample's channels [0, n), n a multiple of the group width and at most PIECE unless a single
 * group is wider; then the group goes through in pieces. */
enum { PIECE = 512 };

typedef struct group_stats {
    float mean, inv;
} group_stats;

static float group_moment(const kiln_groupnorm_args *a, const float *x, int64_t width,
                          const float *mean) {
    float sums[PIECE];
    float means[PIECE];
    float total = 0.0f;
    for (int64_t c = 0; c < width; c += PIECE) {
        int64_t n = width - c < PIECE ? width - c : PIECE;
        for (int64_t i = 0; mean != NULL && i < n; i++) {
            means[i] = *mean;
        }
        column_sums(sums, x + c, a->channels, a->spatial, n, mean == NULL ? NULL : means);
        total += row_sum(sums, n, 0.0f);
    }
    return total / ((float)width * (float)a->spatial);
}

static void affine_columns(const kiln_groupnorm_args *a, int64_t base, int64_t c0, int64_t n,
                           const float *mean, const float *inv) {
    float k[PIECE];
    float shift[PIECE];
    for (int64_t i = 0; i < n; i++) {
        k[i] = inv[i] * (a->scale != NULL ? a->scale[c0 + i] : 1.0f);
        shift[i] = a->bias != NULL ? a->bias[c0 + i] : 0.0f;
    }
    for (int64_t s = 0; s < a->spatial; s++) {
        const float *x = a->x + base + s * a->channels + c0;
        float *y = a->y + base + s * a->channels + c0;
        for (int64_t i = 0; i < n; i += KILN_VLEN) {
            kiln_vf d = vf_sub(vf_load_upto(x + i, n - i), vf_load_upto(mean + i, n - i));
            kiln_vf v = vf_mul(d, vf_load_upto(k + i, n - i));
            vf_store_upto(y + i, n - i, vf_add(v, vf_load_upto(shift + i, n - i)));
        }
    }
}

static void wide_group(const kiln_groupnorm_args *a, int64_t base, int64_t c0, int64_t width) {
    float mean = group_moment(a, a->x + base + c0, width, NULL);
    float inv = 1.0f / sqrtf(group_moment(a, a->x + base + c0, width, &mean) + a->eps);
    float means[PIECE];
    float invs[PIECE];
    for (int64_t i = 0; i < PIECE; i++) {
        means[i] = mean;
        invs[i] = inv;
    }
    for (int64_t c = 0; c < width; c += PIECE) {
        affine_columns(a, base, c0 + c, width - c < PIECE ? width - c : PIECE, means, invs);
    }
}

static void narrow_groups(const kiln_groupnorm_args *a, int64_t base, int64_t c0, int64_t n,
                          int64_t width) {
    float mean[PIECE] = {0};
    float inv[PIECE];
    const float *x = a->x + base + c0;
    column_sums(mean, x, a->channels, a->spatial, n, NULL);
    spread_group_means(mean, n, width, a->spatial);
    column_sums(inv, x, a->channels, a->spatial, n, mean);
    spread_group_means(inv, n, width, a->spatial);
    for (int64_t i = 0; i < n; i++) {
        inv[i] = 1.0f / sqrtf(inv[i] + a->eps);
    }
    affine_columns(a, base, c0, n, mean, inv);
}

static void groupnorm_last(const kiln_groupnorm_args *a, int64_t unit0, int64_t unit1) {
    int64_t width = a->channels / a->groups;
    int64_t block = kiln_groupnorm_block(a);
    int64_t per_sample = (a->groups + block - 1) / block;
    for (int64_t u = unit0; u < unit1; u++) {
        int64_t base = u / per_sample * a->spatial * a->channels;
        int64_t g0 = u % per_sample * block;
        int64_t g1 = g0 + block < a->groups ? g0 + block : a->groups;
        if (width > PIECE) {
            wide_group(a, base, g0 * width, width);
        } else {
            narrow_groups(a, base, g0 * width, (g1 - g0) * width, width);
        }
    }
}

static void groupnorm_first(const kiln_groupnorm_args *a, int64_t unit0, int64_t unit1) {
    int64_t width = a->channels / a->groups;
    int64_t n = width * a->spatial;
    for (int64_t u = unit0; u < unit1; u++) {
        const float *x = a->x + u * n;
        float mean = row_sum(x, n, 0.0f) / (float)n;
        float inv = 1.0f / sqrtf(row_square_dev(x, n, mean) / (float)n + a->eps);
        for (int64_t c = 0; c < width; c++) {
            int64_t channel = u % a->groups * width + c;
            kiln_vf k = vf_set1(inv * (a->scale != NULL ? a->scale[channel] : 1.0f));
            kiln_vf shift = vf_set1(a->bias != NULL ? a->bias[channel] : 0.0f);
            const float *xs = x + c * a->spatial;
            float *ys = a->y + u * n + c * a->spatial;
            for (int64_t i = 0; i < a->spatial; i += KILN_VLEN) {
                kiln_vf d = vf_sub(vf_load_upto(xs + i, a->spatial - i), vf_set1(mean));
                vf_store_upto(ys + i, a->spatial - i, vf_add(vf_mul(d, k), shift));
            }
        }
    }
}

static void affine(const kiln_affine_args *a, int64_t row0, int64_t row1) {
    for (int64_t r = row0; r < row1; r++) {
        const float *x = a->x + r * a->x_ld;
        float *y = a->y + r * a->y_ld;
        int64_t i = 0;
        for (; i + KILN_VLEN <= a->cols; i += KILN_VLEN) {
            kiln_vf t = a->shift != NULL ? vf_load(a->shift + i) : vf_zero();
            vf_store(y + i, vf_fma(vf_load(x + i), vf_load(a->scale + i), t));
        }
        if (i < a->cols) {
            kiln_vm m = vm_tail(a->cols - i);
            kiln_vf t = a->shift != NULL ? vf_load_mask(a->shift + i, m) : vf_zero();
            kiln_vf v = vf_fma(vf_load_mask(x + i, m), vf_load_mask(a->scale + i, m), t);
            vf_store_mask(y + i, m, v);
        }
    }
}

/* Largest element; NaN if there is one. */
static float row_max(const float *x, int64_t n) {
    kiln_vf m0 = vf_set1(-INFINITY), m1 = m0;
    int64_t i = 0;
    for (; i + 2 * KILN_VLEN <= n; i += 2 * KILN_VLEN) {
        m0 = vf_max_nan(m0, vf_load(x + i));
        m1 = vf_max_nan(m1, vf_load(x + i + KILN_VLEN));
    }
    for (; i < n; i += KILN_VLEN) {
        kiln_vm m = vm_tail(n - i < KILN_VLEN ? n - i : KILN_VLEN);
        m0 = vf_select(m, vf_max_nan(m0, vf_load_mask(x + i, m)), m0);
    }
    m0 = vf_max_nan(m0, m1);
    return vm_any(vf_isnan(m0)) ? NAN : vf_hmax(m0);
}

/* y = exp(x - max) where y is given; returns the sum. */
static float row_exp(float *y, const float *x, float max, int64_t n) {
    kiln_vf s0 = vf_zero(), s1 = vf_zero();
    kiln_vf k = vf_set1(max);
    int64_t i = 0;
    for (; i + VF_TOGETHER * KILN_VLEN <= n; i += VF_TOGETHER * KILN_VLEN) {
        kiln_vf e[VF_TOGETHER];
        KILN_UNROLL(4) for (int j = 0; j < VF_TOGETHER; j++) {
            e[j] = vf_sub(vf_load(x + i + j * KILN_VLEN), k);
        }
        vf_exp_n(e, VF_TOGETHER);
        s0 = vf_add(s0, vf_add(e[0], e[1]));
        s1 = vf_add(s1, vf_add(e[2], e[3]));
        KILN_UNROLL(4) for (int j = 0; j < VF_TOGETHER && y != NULL; j++) {
            vf_store(y + i + j * KILN_VLEN, e[j]);
        }
    }
    for (; i < n; i += KILN_VLEN) {
        kiln_vm m = vm_tail(n - i < KILN_VLEN ? n - i : KILN_VLEN);
        kiln_vf e = vf_exp(vf_sub(vf_load_mask(x + i, m), k));
        s0 = vf_add(s0, vf_select(m, e, vf_zero()));
        if (y != NULL) {
            vf_store_mask(y + i, m, e);
        }
    }
    return vf_hsum(vf_add(s0, s1));
}

/* y = x * k + t. */
static void row_scale(float *y, const float *x, float k, float t, int64_t n) {
    int64_t i = 0;
    for (; i + KILN_VLEN <= n; i += KILN_VLEN) {
        vf_store(y + i, vf_fma(vf_load(x + i), vf_set1(k), vf_set1(t)));
    }
    if (i < n) {
        vf_store_tail(y + i, n - i, vf_fma(vf_load_tail(x + i, n - i), vf_set1(k), vf_set1(t)));
    }
}

static void softmax_row(const kiln_softmax_args *a, int64_t row) {
    const float *x = a->x + row * a->n;
    float *y = a->y + row * a->n;
    float max = row_max(x, a->n);
    if (!a->log) {
        float sum = row_exp(y, x, max, a->n);
        row_scale(y, y, 1.0f / sum, 0.0f, a->n);
        return;
    }
    /* The max first, then the sum's logarithm: neither loses the other's digits. */
    float log_sum = logf(row_exp(NULL, x, max, a->n));
    row_scale(y, x, 1.0f, -max, a->n);
    row_scale(y, y, 1.0f, -log_sum, a->n);
}

/* Up to one vector of lanes of the middle axis: elements `inner` apart. */
static void softmax_lanes(const kiln_softmax_args *a, const float *x, float *y, int64_t lanes) {
    kiln_vf max = vf_load_upto(x, lanes);
    for (int64_t i = 1; i < a->n; i++) {
        max = vf_max_nan(max, vf_load_upto(x + i * a->inner, lanes));
    }
    kiln_vf sum = vf_zero();
    for (int64_t i = 0; i < a->n; i++) {
        kiln_vf d = vf_sub(vf_load_upto(x + i * a->inner, lanes), max);
        kiln_vf e = vf_exp(d);
        sum = vf_add(sum, e);
        vf_store_upto(y + i * a->inner, lanes, a->log ? d : e);
    }
    kiln_vf k = a->log ? vf_log(sum) : vf_div(vf_set1(1.0f), sum);
    for (int64_t i = 0; i < a->n; i++) {
        kiln_vf v = vf_load_upto(y + i * a->inner, lanes);
        vf_store_upto(y + i * a->inner, lanes, a->log ? vf_sub(v, k) : vf_mul(v, k));
    }
}

/* A unit's place: offset of its first lane and the number of lanes. */
typedef struct lane_unit {
    int64_t offset, lanes;
} lane_unit;

static lane_unit find_unit(int64_t unit, int64_t n, int64_t inner) {
    int64_t per_outer = (inner + KILN_NORM_LANES - 1) / KILN_NORM_LANES;
    int64_t lane = unit % per_outer * KILN_NORM_LANES;
    lane_unit u = {.offset = unit / per_outer * n * inner + lane,
                   .lanes = inner - lane < KILN_NORM_LANES ? inner - lane : KILN_NORM_LANES};
    return u;
}

static void softmax(const kiln_softmax_args *a, int64_t unit0, int64_t unit1) {
    for (int64_t unit = unit0; unit < unit1 && a->n > 0; unit++) {
        if (a->inner == 1) {
            softmax_row(a, unit);
            continue;
        }
        lane_unit u = find_unit(unit, a->n, a->inner);
        for (int64_t i = 0; i < u.lanes; i += KILN_VLEN) {
            softmax_lanes(a, a->x + u.offset + i, a->y + u.offset + i, u.lanes - i);
        }
    }
}

static void lpnorm_lanes(const kiln_lpnorm_args *a, const float *x, float *y, int64_t lanes) {
    kiln_vf sum = vf_zero();
    for (int64_t i = 0; i < a->n; i++) {
        kiln_vf v = vf_load_upto(x + i * a->inner, lanes);
        sum = a->p == 1 ? vf_add(sum, vf_abs(v)) : vf_fma(v, v, sum);
    }
    kiln_vf norm = a->p == 1 ? sum : vf_sqrt(sum);
    kiln_vf k = vf_select(vf_eq(norm, vf_zero()), vf_zero(), vf_div(vf_set1(1.0f), norm));
    for (int64_t i = 0; i < a->n; i++) {
        vf_store_upto(y + i * a->inner, lanes, vf_mul(vf_load_upto(x + i * a->inner, lanes), k));
    }
}

static void lpnorm(const kiln_lpnorm_args *a, int64_t unit0, int64_t unit1) {
    for (int64_t unit = unit0; unit < unit1; unit++) {
        if (a->inner == 1) {
            const float *x = a->x + unit * a->n;
            float norm =
                a->p == 1 ? row_abs_sum(x, a->n, 0.0f) : sqrtf(row_square_dev(x, a->n, 0.0f));
            row_scale(a->y + unit * a->n, x, norm == 0.0f ? 0.0f : 1.0f / norm, 0.0f, a->n);
            continue;
        }
        lane_unit u = find_unit(unit, a->n, a->inner);
        for (int64_t i = 0; i < u.lanes; i += KILN_VLEN) {
            lpnorm_lanes(a, a->x + u.offset + i, a->y + u.offset + i, u.lanes - i);
        }
    }
}

/* x / s^beta. The common 0.75 is s^-1/2 s^-1/4. */
KILN_INLINE kiln_vf lrn_divide(kiln_vf x, kiln_vf s, float beta) {
    if (beta == 0.75f) {
        kiln_vf root = vf_sqrt(s);
        return vf_div(x, vf_mul(root, vf_sqrt(root)));
    }
    if (beta == 0.5f) {
        return vf_div(x, vf_sqrt(s));
    }
    if (beta == 1.0f) {
        return vf_div(x, s);
    }
    return vf_mul(x, vf_exp(vf_mul(vf_set1(-beta), vf_log(s))));
}

static void lrn(const kiln_lrn_args *a, int64_t row0, int64_t row1) {
    int64_t down = (a->size - 1) / 2;
    int64_t up = a->size / 2;
    kiln_vf k = vf_set1(a->alpha / (float)a->size);
    for (int64_t r = row0; r < row1; r++) {
        const float *x = a->x + r * a->channels;
        float *y = a->y + r * a->channels;
        for (int64_t c = 0; c < a->channels; c += KILN_VLEN) {
            int64_t lanes = a->channels - c < KILN_VLEN ? a->channels - c : KILN_VLEN;
            kiln_vf sum = vf_zero();
            for (int64_t j = -down; j <= up; j++) {
                float window[KILN_VLEN] = {0};
                int64_t lo = c + j < 0 ? -(c + j) : 0;
                int64_t hi = c + j + lanes > a->channels ? a->channels - c - j : lanes;
                bool whole = lo == 0 && hi == KILN_VLEN;
                for (int64_t i = lo; i < hi && !whole; i++) {
                    window[i] = x[c + j + i];
                }
                kiln_vf v = vf_load(whole ? x + c + j : window);
                sum = vf_fma(v, v, sum);
            }
            kiln_vf s = vf_fma(k, sum, vf_set1(a->bias));
            kiln_vf v = lrn_divide(vf_load_tail(x + c, lanes), s, a->beta);
            vf_store_tail(y + c, lanes, v);
        }
    }
}

const kiln_norm_prims KILN_ISA_SYMBOL(kiln_norm_prims) = {
    .layernorm = layernorm,
    .groupnorm_last = groupnorm_last,
    .groupnorm_first = groupnorm_first,
    .affine = affine,
    .softmax = softmax,
    .lpnorm = lpnorm,
    .lrn = lrn,
};
