/* non_max_suppression.c - NonMaxSuppression: the best boxes of each class, without those that
 * overlap a better one. */
#include <math.h>

#include "ops/order.h"

typedef struct nms_attrs {
    int64_t center_point_box;
} nms_attrs;

static const kiln_attr table[] = {KILN_A_INT(nms_attrs, center_point_box, 0)};
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

static box read_box(const kiln_tensor *t, int64_t i, bool center) {
    double v[4];
    for (int k = 0; k < 4; k++) {
        v[k] = kiln_get_f64(t->dtype, t->data, i * 4 + k);
    }
    box b = {{fmin(v[0], v[2]), fmax(v[0], v[2])}, {fmin(v[1], v[3]), fmax(v[1], v[3])}, 0};
    if (center) { /* x and y of the middle, width, height */
        b = (box){{v[1] - v[3] / 2, v[1] + v[3] / 2}, {v[0] - v[2] / 2, v[0] + v[2] / 2}, 0};
    }
    b.area = (b.y[1] - b.y[0]) * (b.x[1] - b.x[0]);
    return b;
}

static bool overlaps(const box *a, const box *b, double limit) {
    double h = fmin(a->y[1], b->y[1]) - fmax(a->y[0], b->y[0]);
    double w = fmin(a->x[1], b->x[1]) - fmax(a->x[0], b->x[0]);
    if (!(h > 0) || !(w > 0) || !(a->area > 0) || !(b->area > 0)) {
        return false;
    }
    return h * w / (a->area + b->area - h * w) > limit;
}

typedef struct best {
    const kiln_tensor *scores;
    int64_t at;
} best;

static int by_score(const void *user, int64_t a, int64_t b) {
    const best *s = user;
    return -kiln_order_elements(s->scores, s->at + a, s->at + b);
}

/* What is chosen of one class; limits[] as the inputs of the same number. */
typedef struct job {
    const box *boxes;
    int64_t n, most;
    double iou, least;
    int64_t *items, *scratch, *kept;
} job;

static int64_t choose(const best *s, const job *j) {
    int64_t n = 0, count = 0;
    for (int64_t i = 0; i < j->n; i++) {
        if (kiln_get_f64(s->scores->dtype, s->scores->data, s->at + i) > j->least) {
            j->items[n++] = i;
        }
    }
    kiln_order_sort(j->items, j->scratch, n, by_score, s);
    for (int64_t i = 0; i < n && count < j->most; i++) {
        bool free = true;
        for (int64_t k = 0; k < count && free; k++) {
            free = !overlaps(&j->boxes[j->items[i]], &j->boxes[j->kept[k]], j->iou);
        }
        if (free) {
            j->kept[count++] = j->items[i];
        }
    }
    return count;
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
    bool center = ((const nms_attrs *)c->attrs)->center_point_box != 0;
    for (int64_t p = 0; p < scores->dims[0] * classes; p++) {
        for (int64_t i = 0; i < j->n && p % classes == 0; i++) {
            all[i] = read_box(boxes, p / classes * j->n + i, center);
        }
        count = choose(&(best){scores, p * j->n}, j);
        for (int64_t k = 0; k < 3 * count; k++) {
            int64_t row[3] = {p / classes, p % classes, j->kept[k / 3]};
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
    KILN_ALLOC(j.scratch, c->arena, j.n);
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
    KILN_OP_ATTRS(table, nms_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
