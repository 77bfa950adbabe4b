#include "quant/rounding.h"

#include <math.h>

/* LANES: inner loops of a fixed length, which compilers turn into vectors. */
enum { ROWS = 4, SWEEPS = 12, LANES = 8 };

/* ---- Sums ---- */

size_t kiln_gram_bytes(int64_t groups, int64_t k, bool products) {
    double bytes = (double)groups * (double)k * 2 * sizeof(double);
    bytes += products ? (double)groups * (double)k * (double)k * sizeof(float) : 0;
    return bytes < 1e15 ? (size_t)bytes : SIZE_MAX;
}

kiln_status kiln_gram_init(kiln_gram *g, int64_t groups, int64_t k, bool products,
                           kiln_arena *arena) {
    *g = (kiln_gram){.groups = groups, .k = k};
    if (kiln_gram_bytes(groups, k, products) == SIZE_MAX) {
        return KILN_E_MEMORY;
    }
    KILN_ALLOC(g->sum_x, arena, groups * k);
    KILN_ALLOC(g->sum_q, arena, groups * k);
    if (products) {
        KILN_ALLOC(g->h, arena, groups * k * k);
    }
    return KILN_OK;
}

/* The lower triangle grows by the products of ROWS rows, `stride` floats apart; what is added right
 * of the diagonal is of no use. */
static void add_products(float *h, const float *q, int64_t stride, int64_t k) {
    const float *a = q, *b = q + stride, *c = q + 2 * stride, *d = q + 3 * stride;
    for (int64_t i = 0; i < k; i++) {
        float w = a[i], x = b[i], y = c[i], z = d[i];
        float *row = h + i * k;
        int64_t j = 0;
        for (; j <= i && j + LANES <= k; j += LANES) {
            for (int64_t t = j; t < j + LANES; t++) {
                row[t] += (w * a[t] + x * b[t]) + (y * c[t] + z * d[t]);
            }
        }
        for (; j <= i; j++) {
            row[j] += (w * a[j] + x * b[j]) + (y * c[j] + z * d[j]);
        }
    }
}

static void add_product(float *h, const float *q, int64_t k) {
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j <= i; j++) {
            h[i * k + j] += q[i] * q[j];
        }
    }
}

void kiln_gram_add(kiln_gram *g, const float *x, const float *q, int64_t n) {
    int64_t width = g->groups * g->k;
    for (int64_t r = 0; r < n; r++) {
        for (int64_t i = 0; i < width; i++) {
            g->sum_x[i] += (double)x[r * width + i];
            g->sum_q[i] += (double)q[r * width + i];
        }
    }
    for (int64_t i = 0; g->h && i < g->groups; i++) {
        float *h = g->h + i * g->k * g->k;
        const float *from = q + i * g->k;
        int64_t r = 0;
        for (; r + ROWS <= n; r += ROWS) {
            add_products(h, from + r * width, width, g->k);
        }
        for (; r < n; r++) {
            add_product(h, from + r * width, g->k);
        }
    }
    g->rows += (double)n;
}

static void finish_matrix(float *h, const double *mean, double rows, int64_t k, bool centered) {
    double kept = rows / (rows + (double)k);
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double v = (double)h[i * k + j] / rows - (centered ? mean[i] * mean[j] : 0);
            h[i * k + j] = h[j * k + i] = (float)(i == j ? v : kept * v);
        }
    }
}

void kiln_gram_finish(kiln_gram *g, bool centered) {
    double rows = g->rows > 0 ? g->rows : 1;
    for (int64_t i = 0; i < g->groups * g->k; i++) {
        g->sum_x[i] /= rows;
        g->sum_q[i] /= rows;
    }
    for (int64_t i = 0; g->h && i < g->groups; i++) {
        finish_matrix(g->h + i * g->k * g->k, g->sum_q + i * g->k, rows, g->k, centered);
    }
}

/* ---- Rounding ---- */

typedef struct row {
    int8_t *q;
    const float *w, *h;
    float scale;
    int32_t half;
    int64_t k;
    float *e, *g; /* errors; their products with h */
} row;

static float clamped(float v, float lo, float hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

static void add_row(float *g, const float *h, float e, int64_t k) {
    int64_t j = 0;
    for (; j + LANES <= k; j += LANES) {
        for (int64_t t = j; t < j + LANES; t++) {
            g[t] += e * h[t];
        }
    }
    for (; j < k; j++) {
        g[j] += e * h[j];
    }
}

/* Moves weight i to the better neighbour; true when that is the other one. */
static bool move(row *r, int64_t i) {
    float own = r->h[i * r->k + i];
    if (!(own > 0)) {
        return false;
    }
    float exact = r->w[i] / r->scale, most = (float)(r->half - 1);
    float want = (r->w[i] + r->e[i] - r->g[i] / own) / r->scale;
    float q = clamped(nearbyintf(want), floorf(exact), ceilf(exact));
    q = clamped(q, -most, most);
    float step = (q - (float)r->q[i]) * r->scale;
    if (!(fabsf(step) > 0)) {
        return false;
    }
    r->q[i] = (int8_t)q;
    r->e[i] += step;
    add_row(r->g, r->h + i * r->k, step, r->k);
    return true;
}

int64_t kiln_round_row(int8_t *q, const float *w, float scale, int32_t half, const float *h,
                       int64_t k, float *scratch) {
    row r = {q, w, h, scale, half, k, scratch, scratch + k};
    const float most = (float)(half - 1);
    int64_t moved = 0;
    for (int64_t i = 0; i < k; i++) {
        r.g[i] = 0;
    }
    for (int64_t i = 0; i < k; i++) {
        q[i] = (int8_t)clamped(nearbyintf(w[i] / scale), -most, most);
        r.e[i] = (float)q[i] * scale - w[i];
        add_row(r.g, h + i * k, r.e[i], k);
    }
    bool changed = true;
    for (int32_t sweep = 0; sweep < SWEEPS && changed; sweep++) {
        changed = false;
        for (int64_t i = 0; i < k; i++) {
            changed = move(&r, i) || changed;
        }
    }
    for (int64_t i = 0; i < k; i++) {
        moved += q[i] != (int8_t)clamped(nearbyintf(w[i] / scale), -most, most) ? 1 : 0;
    }
    return moved;
}
