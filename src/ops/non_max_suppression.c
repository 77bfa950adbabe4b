/* non_max_suppression.c - NonMaxSuppression: the best boxes of each class, without those that
 * overlap a better one. */
#include <math.h>

#include "ops/attrs.h"
#include "ops/order.h"

static const kiln_attr table[] = {KILN_A_INT(kiln_nms_attrs, center_point_box, 0)};
enum { BOXES, SCORES, MOST, IOU, LEAST };

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_rank(c, BOXES, 3, 3));
    KILN_TRY(kiln_infer_rank(c, SCORES, 3, 3));
    KILN_TRY(kiln_infer_dtype(c, BOXES, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_dtype(c, SCORES, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_dtype(c, MOST, KILN_T(I64)));
    for (int32_t i = MOST; i <= LEAST; i++) {
        int64_t n = kiln_infer_length(c, i);
        if (kiln_infer_has(c, i) && (kiln_infer_in_rank(c, i) > 1 || (n >= 0 && n != 1))) {
            return KILN_INFER_FAIL(c, SHAPE, "input %d must be a scalar", i);
        }
        if (i > MOST) {
            KILN_TRY(kiln_infer_dtype(c, i, KILN_T_FLOAT));
        }
    }
    kiln_dim batch = kiln_infer_dim(c, BOXES, 0), n = kiln_infer_dim(c, BOXES, 1);
    if (kiln_dim_differ(kiln_infer_dim(c, BOXES, 2), 4) ||
        kiln_dim_differ(batch, kiln_infer_dim(c, SCORES, 0)) ||
        kiln_dim_differ(n, kiln_infer_dim(c, SCORES, 2))) {
        return KILN_INFER_FAIL(
            c, SHAPE, "boxes are %lld x %lld x %lld, scores %lld x ... x %lld", (long long)batch,
            (long long)n, (long long)kiln_infer_dim(c, BOXES, 2),
            (long long)kiln_infer_dim(c, SCORES, 0), (long long)kiln_infer_dim(c, SCORES, 2));
    }
    kiln_dim *out = kiln_infer_dims(c, 0, KILN_DTYPE_I64, 2);
    if (!out) {
        return KILN_E_MEMORY;
    }
    kiln_dim classes = kiln_dim_mul(c->dims, batch, kiln_infer_dim(c, SCORES, 1));
    out[0] = kiln_dim_found(c->dims, kiln_dim_mul(c->dims, classes, n));
    out[1] = 3;
    return KILN_OK;
}

typedef struct box {
    double y[2], x[2], area;
} box;

/* The area of a box without extent is made 0; such boxes overlap nothing. */
static box read_box(const kiln_tensor *t, int64_t i, bool center) {
    double v[4];
    for (int k = 0; k < 4; k++) {
        v[k] = kiln_get_f64(t->dtype, t->data, i * 4 + k);
    }
    box b = {{fmin(v[0], v[2]), fmax(v[0], v[2])}, {fmin(v[1], v[3]), fmax(v[1], v[3])}, 0};
    if (center) { /* x and y of the middle, width, height */
        b = (box){{v[1] - v[3] / 2, v[1] + v[3] / 2}, {v[0] - v[2] / 2, v[0] + v[2] / 2}, 0};
    }
    if (b.y[1] > b.y[0] && b.x[1] > b.x[0]) {
        b.area = (b.y[1] - b.y[0]) * (b.x[1] - b.x[0]);
    }
    return b;
}

static double lower(double a, double b) {
    return a < b ? a : b;
}

static double upper(double a, double b) {
    return a > b ? a : b;
}

/* Whether a, which has an area, overlaps one of n boxes with an area. The loop that decides the
 * time of the operator: one branch for the many boxes that do not touch. */
static bool overlaps_any(const box *a, const box *kept, int64_t n, double limit) {
    for (int64_t k = 0; k < n; k++) {
        const box *b = &kept[k];
        if ((a->y[1] > b->y[0]) & (b->y[1] > a->y[0]) & (a->x[1] > b->x[0]) & (b->x[1] > a->x[0])) {
            double common = (lower(a->y[1], b->y[1]) - upper(a->y[0], b->y[0])) *
                            (lower(a->x[1], b->x[1]) - upper(a->x[0], b->x[0]));
            if (common / (a->area + b->area - common) > limit) {
                return true;
            }
        }
    }
    return false;
}

/* What is chosen of one class; limits as the inputs of the same name. */
typedef struct job {
    const box *boxes;
    int64_t n, most;
    double iou, least;
    int64_t *items, *order, *keys, *chosen;
    box *kept; /* those of the chosen that have an area, side by side */
} job;

/* The boxes of one class that are kept, into j->chosen. */
static kiln_status choose(const kiln_ref *c, int64_t at, const job *j, int64_t *out) {
    const kiln_tensor *scores = kiln_ref_in(c, SCORES);
    int64_t n = 0, count = 0, kept = 0;
    kiln_order_keys(scores, at, 1, j->n, true, j->keys);
    for (int64_t i = 0; i < j->n; i++) {
        if (kiln_get_f64(scores->dtype, scores->data, at + i) > j->least) {
            j->keys[n] = j->keys[i];
            j->items[n++] = i;
        }
    }
    kiln_order_first(j->keys, n, n, j->order);
    for (int64_t i = 0; i < n && count < j->most; i++) {
        KILN_TRY(kiln_ref_poll(c));
        int64_t item = j->items[j->order[i]];
        const box *b = &j->boxes[item];
        bool solid = b->area > 0;
        if (solid && overlaps_any(b, j->kept, kept, j->iou)) {
            continue;
        }
        if (solid) {
            j->kept[kept++] = *b;
        }
        j->chosen[count++] = item;
    }
    *out = count;
    return KILN_OK;
}

static double scalar(kiln_ref *c, int32_t i, double absent) {
    const kiln_tensor *t = kiln_ref_in(c, i);
    return t ? kiln_get_f64(t->dtype, t->data, 0) : absent;
}

static kiln_status run(kiln_ref *c, job *j) {
    const kiln_tensor *boxes = kiln_ref_in(c, BOXES), *scores = kiln_ref_in(c, SCORES);
    int64_t classes = scores->dims[1], count = 0;
    int64_t *found = NULL;
    size_t n_found = 0, cap = 0;
    box *all;
    KILN_ALLOC(all, c->arena, j->n);
    j->boxes = all;
    bool center = ((const kiln_nms_attrs *)c->attrs)->center_point_box != 0;
    for (int64_t p = 0; p < scores->dims[0] * classes; p++) {
        for (int64_t i = 0; i < j->n && p % classes == 0; i++) {
            all[i] = read_box(boxes, p / classes * j->n + i, center);
        }
        KILN_TRY(choose(c, p * j->n, j, &count));
        for (int64_t k = 0; k < 3 * count; k++) {
            int64_t row[3] = {p / classes, p % classes, j->chosen[k / 3]};
            KILN_PUSH(c->arena, found, n_found, cap, row[k % 3]);
        }
    }
    KILN_TRY(kiln_ref_output(c, 0, KILN_DTYPE_I64, 2, (int64_t[]){(int64_t)n_found / 3, 3}));
    if (n_found) {
        kiln_copy_elements(KILN_DTYPE_I64, kiln_ref_out(c, 0)->data, 0, found, 0, (int64_t)n_found);
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *most = kiln_ref_in(c, MOST);
    job j = {.n = kiln_ref_in(c, BOXES)->dims[1],
             .iou = scalar(c, IOU, 0),
             .least = scalar(c, LEAST, -INFINITY)};
    j.most = most ? ((const int64_t *)most->data)[0] : 0;
    if (!(j.iou >= 0 && j.iou <= 1)) {
        return KILN_INFER_FAIL(c, VALUE, "iou_threshold = %g is not in [0, 1]", j.iou);
    }
    KILN_ALLOC(j.items, c->arena, j.n);
    KILN_ALLOC(j.order, c->arena, j.n);
    KILN_ALLOC(j.keys, c->arena, j.n);
    KILN_ALLOC(j.chosen, c->arena, j.n);
    KILN_ALLOC(j.kept, c->arena, j.n);
    return run(c, &j);
}

const kiln_op kiln_op_non_max_suppression = {
    .name = "NonMaxSuppression",
    .domain = "",
    .since = 11,
    .min_in = 2,
    .max_in = 5,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_DATA_SIZED,
    KILN_OP_ATTRS(table, kiln_nms_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
