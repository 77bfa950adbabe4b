/* non_max_suppression.c - NonMaxSuppression: the best boxes of each class, without those that
 * overlap a better one by too much.
 *
 * Each class of each image is a job of one thread. Its candidates are sorted by score; from the
 * best on, each is held against those already chosen that it can touch. To find these, the
 * candidates are cut by position, along the axis that tells them apart better: into cells as long
 * as the longest box, so that what a box touches begins in its own cell or one beside it. Boxes of
 * all classes at once that were moved apart class by class (as torchvision does) then meet their
 * own class alone. The chosen boxes of each cell lie side by side for the vector test of boxes.h;
 * what that does not rule out is decided as the operator's reference does, in double.
 *
 * Time grows with the boxes that lie about one; where all lie at one place, with the square of
 * their number, as it does for any other way. The run can be cancelled meanwhile. */
#include <math.h>
#include <string.h>

#include "backend/cpu/kernels/ranking.h"
#include "backend/cpu/kernels/reference.h"
#include "backend/cpu/prims/boxes.h"
#include "base/checked.h"
#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/util.h"

enum {
    BOXES,
    SCORES,
    MOST,
    IOU,
    LEAST,
    FEW = 64,             /* candidates not worth a cut */
    MOST_CELLS = 1 << 20, /* so that cell numbers are exact enough: see grid */
    POLL = 256,           /* candidates between looks at a cancelled run */
};

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, non_max_suppression)) {
        return kiln_claim_refuse(c, "it runs NonMaxSuppression");
    }
    return kiln_reference_claim(c, &kiln_kernel_non_max_suppression, node);
}

/* ---- Boxes ---- */

typedef struct box {
    double y[2], x[2], area; /* 0: it touches nothing */
} box;

/* fmin and fmax without a call: NaN gives way. */
static double lower(double a, double b) {
    return b < a || a != a ? b : a;
}

static double upper(double a, double b) {
    return b > a || a != a ? b : a;
}

/* As the reference reads it. */
static box read_box(const float *v, bool center) {
    box b;
    if (center) {
        b = (box){{v[1] - (double)v[3] / 2, v[1] + (double)v[3] / 2},
                  {v[0] - (double)v[2] / 2, v[0] + (double)v[2] / 2},
                  0};
    } else {
        b = (box){
            {lower(v[0], v[2]), upper(v[0], v[2])}, {lower(v[1], v[3]), upper(v[1], v[3])}, 0};
    }
    if (b.y[1] > b.y[0] && b.x[1] > b.x[0]) {
        b.area = (b.y[1] - b.y[0]) * (b.x[1] - b.x[0]);
    }
    return b;
}

static bool overlap(const box *a, const box *b, double limit) {
    double h = lower(a->y[1], b->y[1]) - upper(a->y[0], b->y[0]);
    double w = lower(a->x[1], b->x[1]) - upper(a->x[0], b->x[0]), common = h * w;
    bool touch = a->y[1] > b->y[0] && b->y[1] > a->y[0] && a->x[1] > b->x[0] && b->x[1] > a->x[0];
    return touch && common / (a->area + b->area - common) > limit;
}

static float down(double v) {
    float f = (float)v;
    return (double)f > v ? nextafterf(f, -INFINITY) : f;
}

static float up(double v) {
    float f = (float)v;
    return (double)f < v ? nextafterf(f, INFINITY) : f;
}

static kiln_box_f32 narrow(const box *b) {
    return (kiln_box_f32){down(b->y[0]), down(b->x[0]), up(b->y[1]), up(b->x[1]),
                          b->area < (double)KILN_BOX_AREA ? (float)b->area : KILN_BOX_AREA};
}

/* ---- Cells ---- */

/* The cut of one class's candidates. A box begins in cell (lower end - from) / length. The length
 * is a little more than that of the longest box: the quotient's rounding, of at most 2^-52 of
 * MOST_CELLS, cannot carry two boxes that touch further apart than one cell. */
typedef struct grid {
    int axis; /* 0: y, 1: x */
    int32_t cells;
    double from, length;
} grid;

static const double *ends(const box *b, int axis) {
    return axis ? b->x : b->y;
}

static int32_t cell_of(const grid *g, const box *b) {
    double at = (ends(b, g->axis)[0] - g->from) / g->length;
    return g->cells == 1 || !(at > 0)    ? 0
           : at < (double)(g->cells - 1) ? (int32_t)at
                                         : g->cells - 1;
}

typedef struct extent {
    double low, high, longest;
} extent;

static void extend(extent *e, const double *of) {
    e->low = lower(e->low, of[0]);
    e->high = upper(e->high, of[0]);
    e->longest = upper(e->longest, of[1] - of[0]);
}

static grid cut(const extent *e, int64_t n) {
    double most[2];
    for (int axis = 0; axis < 2; axis++) {
        most[axis] = (e[axis].high - e[axis].low) / e[axis].longest;
    }
    grid g = {.axis = most[1] >= most[0], .cells = 1, .length = 1};
    double cells = most[g.axis];
    if (n > FEW && isfinite(cells) && cells > 1) {
        cells = fmin(cells, n < MOST_CELLS ? (double)n : MOST_CELLS);
        g.from = e[g.axis].low;
        g.length = fmax(e[g.axis].longest, (e[g.axis].high - g.from) / cells) * (1 + 1e-6);
        g.cells = (int32_t)cells + 1;
    }
    return g;
}

/* ---- One class ---- */

typedef struct nms {
    const kiln_boxes_prims *prims;
    const float *boxes, *scores;
    int64_t jobs, classes, n, most, room; /* room: results kept for each job */
    double iou, least;
    bool center;
    int32_t *chosen; /* [jobs][room] */
    int64_t *counts; /* per job */
    const atomic_int *cancelled;
    char *scratch;
    size_t scratch_bytes; /* of each thread */
} nms;

/* What one thread works with: arrays of n, and one entry more in `first`. */
typedef struct work {
    kiln_ranking rank;
    int32_t *first, *count; /* per cell: where its boxes begin in list, how many are chosen */
    kiln_box_list list;
    int32_t *owner; /* per box of list: which it is */
} work;

static size_t part_bytes(int64_t n) {
    return ((size_t)(n + 2) * sizeof(int32_t) + 63) & ~(size_t)63;
}

static size_t work_bytes(int64_t n) {
    return kiln_ranking_bytes(n) + 8 * part_bytes(n);
}

static work work_at(char *memory, int64_t n) {
    size_t part = part_bytes(n);
    char *at = memory + kiln_ranking_bytes(n);
    return (work){.rank = kiln_ranking_at(memory, n),
                  .first = (void *)at,
                  .count = (void *)(at + part),
                  .list = {.y0 = (void *)(at + 2 * part),
                           .x0 = (void *)(at + 3 * part),
                           .y1 = (void *)(at + 4 * part),
                           .x1 = (void *)(at + 5 * part),
                           .area = (void *)(at + 6 * part)},
                  .owner = (void *)(at + 7 * part)};
}

/* The boxes with a score above the least one, best first. */
static void rank(const nms *s, work *w, const float *scores) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->n; i++) {
        if ((double)scores[i] > s->least) {
            w->rank.keys[n] = ~kiln_ranking_key(scores[i]);
            w->rank.items[n++] = (int32_t)i;
        }
    }
    w->rank.n = n;
    kiln_ranking_sort(&w->rank);
}

/* Cells, and room in them for each candidate that has an area. */
static grid lay_out(const nms *s, work *w, const float *boxes) {
    extent e[2] = {{INFINITY, -INFINITY, 0}, {INFINITY, -INFINITY, 0}};
    int64_t n = w->rank.n;
    for (int64_t i = 0; i < n; i++) {
        box b = read_box(boxes + 4 * (int64_t)w->rank.items[i], s->center);
        if (b.area > 0) {
            extend(&e[0], b.y);
            extend(&e[1], b.x);
        }
    }
    grid g = cut(e, n);
    memset(w->first, 0, (size_t)(g.cells + 1) * sizeof *w->first);
    memset(w->count, 0, (size_t)g.cells * sizeof *w->count);
    for (int64_t i = 0; i < n && g.cells > 1; i++) {
        box b = read_box(boxes + 4 * (int64_t)w->rank.items[i], s->center);
        w->first[cell_of(&g, &b) + 1] += b.area > 0;
    }
    for (int32_t k = 0; k < g.cells; k++) {
        w->first[k + 1] += w->first[k];
    }
    return g;
}

/* Whether box b, which begins in cell k, overlaps one that is chosen. */
static bool is_covered(const nms *s, const work *w, const float *boxes, const grid *g, const box *b,
                       int32_t k) {
    kiln_box_f32 f = narrow(b);
    kiln_box_query q = kiln_box_query_init(&f, s->iou);
    int32_t last = k + 1 < g->cells ? k + 1 : k;
    for (int32_t c = k > 0 ? k - 1 : 0; c <= last; c++) {
        int64_t end = w->first[c] + (int64_t)w->count[c];
        int64_t at = s->prims->next(&w->list, w->first[c], end, &q);
        for (; at < end; at = s->prims->next(&w->list, at + 1, end, &q)) {
            box other = read_box(boxes + 4 * (int64_t)w->owner[at], s->center);
            if (overlap(b, &other, s->iou)) {
                return true;
            }
        }
    }
    return false;
}

static void keep(work *w, const box *b, int32_t k, int32_t item) {
    kiln_box_f32 f = narrow(b);
    int64_t at = w->first[k] + (int64_t)w->count[k]++;
    w->list.y0[at] = f.y0;
    w->list.x0[at] = f.x0;
    w->list.y1[at] = f.y1;
    w->list.x1[at] = f.x1;
    w->list.area[at] = f.area;
    w->owner[at] = item;
}

static void choose(const nms *s, work *w, int64_t job) {
    const float *boxes = s->boxes + job / s->classes * s->n * 4;
    int32_t *chosen = s->chosen + job * s->room;
    int64_t count = 0;
    rank(s, w, s->scores + job * s->n);
    grid g = lay_out(s, w, boxes);
    for (int64_t i = 0; i < w->rank.n && count < s->most; i++) {
        if (i % POLL == 0 && s->cancelled && atomic_load(s->cancelled)) {
            break;
        }
        int32_t item = w->rank.items[i];
        box b = read_box(boxes + 4 * (int64_t)item, s->center);
        if (b.area > 0) {
            int32_t k = cell_of(&g, &b);
            if (is_covered(s, w, boxes, &g, &b, k)) {
                continue;
            }
            keep(w, &b, k, item);
        }
        chosen[count++] = item;
    }
    s->counts[job] = count;
}

static void run_jobs(void *arg, const kiln_team *team) {
    const nms *s = arg;
    /* Classes differ in length, neighbours less than far ones: they are dealt out in turn. */
    for (int64_t job = team->rank; job < s->jobs; job += team->size) {
        work w = work_at(s->scratch + (size_t)team->rank * s->scratch_bytes, s->n);
        choose(s, &w, job);
    }
}

/* ---- All ---- */

static double scalar(const kiln_ref *c, int32_t i, double absent) {
    const kiln_tensor *t = kiln_ref_in(c, i);
    return t ? (double)((const float *)t->data)[0] : absent;
}

static kiln_status write_rows(kiln_ref *c, const nms *s) {
    int64_t n = 0;
    for (int64_t job = 0; job < s->jobs; job++) {
        n += s->counts[job];
    }
    KILN_TRY(kiln_ref_output(c, 0, KILN_DTYPE_I64, 2, (int64_t[]){n, 3}));
    int64_t *y = kiln_ref_out(c, 0)->data;
    for (int64_t job = 0; job < s->jobs; job++) {
        for (int64_t k = 0; k < s->counts[job]; k++, y += 3) {
            y[0] = job / s->classes;
            y[1] = job % s->classes;
            y[2] = s->chosen[job * s->room + k];
        }
    }
    return KILN_OK;
}

/* Memory: results of each class, which no more than its scores take, and a thread's arrays. */
static kiln_status run_all(kiln_ref *c, const kiln_late *by, nms *s) {
    int32_t threads = kiln_pool_threads(by->pool);
    threads = by->threads > 0 && by->threads < threads ? by->threads : threads;
    threads = s->jobs < threads ? (int32_t)s->jobs : threads;
    int64_t room;
    size_t bytes;
    s->scratch_bytes = work_bytes(s->n);
    if (!kiln_mul_i64(s->jobs, s->room, &room) ||
        !kiln_mul_size(s->scratch_bytes, (size_t)threads, &bytes)) {
        return kiln_fail(c->diag, KILN_F_OVERFLOW, "%lld classes of %lld boxes", (long long)s->jobs,
                         (long long)s->n);
    }
    KILN_ALLOC(s->counts, c->arena, s->jobs);
    s->chosen = kiln_arena_raw(c->arena, (size_t)room * sizeof *s->chosen);
    s->scratch = kiln_arena_raw(c->arena, bytes + 64);
    if (!s->chosen || !s->scratch) {
        return KILN_E_MEMORY;
    }
    s->scratch += -(uintptr_t)s->scratch & 63;
    if (threads > 1) {
        kiln_pool_run(by->pool, threads, run_jobs, s);
    } else {
        run_jobs(s, &(kiln_team){.size = 1});
    }
    KILN_TRY(kiln_ref_poll(c));
    return write_rows(c, s);
}

static kiln_status late(kiln_ref *c, const kiln_late *by) {
    const kiln_tensor *boxes = kiln_ref_in(c, BOXES), *scores = kiln_ref_in(c, SCORES);
    const kiln_tensor *most = kiln_ref_in(c, MOST);
    nms s = {.prims = by->target->prims->boxes,
             .boxes = boxes->data,
             .scores = scores->data,
             .classes = scores->dims[1],
             .n = boxes->dims[1],
             .most = most ? ((const int64_t *)most->data)[0] : 0,
             .iou = scalar(c, IOU, 0),
             .least = scalar(c, LEAST, -INFINITY),
             .center = ((const kiln_nms_attrs *)c->attrs)->center_point_box != 0,
             .cancelled = c->cancelled};
    s.jobs = scores->dims[0] * s.classes;
    s.room = s.most < s.n ? s.most : s.n;
    if (s.n > INT32_MAX / 4 || s.jobs == 0 || s.room <= 0 || !(s.iou >= 0 && s.iou <= 1)) {
        return c->node->op->ref(c); /* nothing to do, an error, or the unheard-of */
    }
    return run_all(c, by, &s);
}

const kiln_kernel kiln_kernel_non_max_suppression = {
    .name = "non_max_suppression",
    .claim = claim,
    .bind = kiln_reference_bind,
    .run = kiln_reference_run,
    .late = late,
};
