#include "quant/smooth.h"

#include <math.h>
#include <string.h>

#include "ops/lanes.h"
#include "ops/ops.h"

/* Scales stay within 2^-LIMIT_LOG2 and 2^LIMIT_LOG2 of their mean. */
enum { SWEEPS = 24, ALPHAS = 5, LIMIT_LOG2 = 12 };
/* What is cut off counts so many times: it hits channels of one sample together, where errors of
 * rounding cancel. */
#define CUT_WEIGHT 4.0
/* What the refiner leaves of the error of rounding weights. */
#define ROUNDED 0.25
/* Ranges are tried in such steps, from the one that covers all. */
#define RANGE_STEP 0.94
#define LEAST_RANGE 0.3
/* A seam is scaled when that is predicted to leave less than this share of its error: what the
 * prediction leaves out (how values are spread within a channel, what chooses their ranges) is of
 * that order. */
#define WORTH 0.9
/* The same for inlets, which cost time. */
#define INLET_WORTH 0.5
/* At most one channel of so many is scaled at an inlet. */
enum { OUTLIERS = 48 };

/* A value that is read in 8 bits, and the weight it is multiplied by, reduced to what errors depend
 * on. What is added up has no weight of its own: errors count as the next that reads the sum has
 * them. */
typedef struct matrix {
    const kiln_seam_part *part;
    int64_t n_out, n_in; /* n_in: size of the part's axis */
    int64_t taps;        /* elements of the weight for each of these pairs */
    float *most;         /* [n_out, n_in] greatest magnitude of the pair's */
    double *squares;     /* [channels] */
    const kiln_channels_seen *seen;
    kiln_reach *reach; /* [channels] of what is read */
    double signal;     /* mean square of the result */
} matrix;

typedef struct chooser {
    const kiln_seam *seam;
    kiln_arena scratch;
    double *a, *b; /* [channels] the ranges that are brought together */
    double *s, *best;
    matrix *w; /* [n_w] of parts that are multiplied, then of those that are added */
    size_t n_w;
    bool rounded;
    kiln_diag *diag;
} chooser;

static kiln_status chooser_init(chooser *c, const kiln_seam *seam, const kiln_env *env,
                                kiln_diag *diag) {
    *c = (chooser){.seam = seam, .diag = diag};
    kiln_arena_init(&c->scratch, env);
    KILN_ALLOC(c->a, &c->scratch, seam->channels);
    KILN_ALLOC(c->b, &c->scratch, seam->channels);
    KILN_ALLOC(c->s, &c->scratch, seam->channels);
    KILN_ALLOC(c->best, &c->scratch, seam->channels);
    c->n_w = seam->n_multiply + seam->n_added;
    KILN_ALLOC(c->w, &c->scratch, c->n_w);
    for (size_t i = 0; i < seam->n_multiply; i++) {
        KILN_TRY(kiln_seam_magnitude(&seam->multiply[i], c->b, env, diag));
    }
    return KILN_OK;
}

/* s = a^alpha / b^beta with geometric mean 1. Channels that one side does not use keep theirs. */
static void set_scales(chooser *c, double alpha, double beta) {
    int64_t n = c->seam->channels, used = 0;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        bool dead = !(c->a[i] > 0 && c->b[i] > 0 && isfinite(c->a[i]) && isfinite(c->b[i]));
        c->s[i] = dead ? (double)NAN : alpha * log2(c->a[i]) - beta * log2(c->b[i]);
        sum += dead ? 0 : c->s[i];
        used += dead ? 0 : 1;
    }
    for (int64_t i = 0; i < n; i++) {
        double e = isnan(c->s[i]) ? 0 : c->s[i] - sum / (double)used;
        c->s[i] = exp2(fmin(fmax(e, -LIMIT_LOG2), LIMIT_LOG2));
    }
}

static void add_hash(kiln_scaled *out, const double *s, int64_t n) {
    kiln_hash128 both[2] = {out->hash, kiln_hash_128(s, (size_t)n * sizeof *s)};
    out->hash = kiln_hash_128(both, sizeof both);
}

/* ---- Equalizing ---- */

/* One seam; *change grows to the largest |log2 s|. */
static kiln_status equalize_seam(kiln_seam *seam, kiln_graph *g, kiln_scaled *out, double *change,
                                 kiln_diag *diag) {
    chooser c;
    bool layers = seam->n_divide > 0 && !seam->sums;
    for (size_t i = 0; i < seam->n_divide; i++) {
        /* A norm's scale is no range of weights. */
        const kiln_seam_part *p = &seam->divide[i];
        layers = layers && (p->weight || p->in != 1);
    }
    if (!layers) {
        return KILN_OK;
    }
    kiln_status status = chooser_init(&c, seam, g->env, diag);
    for (size_t i = 0; i < seam->n_divide && status == KILN_OK; i++) {
        if (seam->divide[i].weight) {
            status = kiln_seam_magnitude(&seam->divide[i], c.a, g->env, diag);
        }
    }
    if (status == KILN_OK) {
        set_scales(&c, 0.5, 0.5);
        for (int64_t i = 0; i < seam->channels; i++) {
            *change = fmax(*change, fabs(log2(c.s[i])));
        }
        add_hash(out, c.s, seam->channels);
        status = kiln_seam_apply(seam, c.s, g, diag);
        out->scaled++;
    }
    kiln_arena_free(&c.scratch);
    return status;
}

kiln_status kiln_equalize(kiln_graph *graph, kiln_scaled *out, kiln_diag *diag) {
    kiln_arena arena;
    kiln_seams all = {0};
    double change = 1;
    *out = (kiln_scaled){0};
    kiln_arena_init(&arena, graph->env);
    kiln_status status = kiln_seams_find(&all, graph, &arena);
    for (int32_t sweep = 0; sweep < SWEEPS && change > 0.015 && status == KILN_OK; sweep++) {
        change = 0;
        out->scaled = 0;
        for (size_t i = 0; i < all.count && status == KILN_OK; i++) {
            status = equalize_seam(&all.items[i], graph, out, &change, diag);
        }
    }
    out->seams = all.count;
    kiln_arena_free(&arena);
    return status;
}

/* ---- What is seen ---- */

/* Parts that are multiplied, then those that are added. */
static const kiln_seam_part *part_of(const kiln_seam *seam, size_t i) {
    return i < seam->n_multiply ? &seam->multiply[i] : &seam->added[i - seam->n_multiply];
}

kiln_status kiln_smoother_init(kiln_smoother *s, const kiln_graph *graph, kiln_arena *arena) {
    size_t k = 0;
    *s = (kiln_smoother){.arena = arena};
    KILN_TRY(kiln_seams_find(&s->seams, graph, arena));
    for (size_t i = 0; i < s->seams.count; i++) {
        s->n_seen += s->seams.items[i].n_multiply + s->seams.items[i].n_added;
    }
    KILN_ALLOC(s->seen, arena, s->n_seen);
    for (size_t i = 0; i < s->seams.count; i++) {
        const kiln_seam *seam = &s->seams.items[i];
        for (size_t j = 0; j < seam->n_multiply + seam->n_added; j++) {
            const kiln_seam_part *p = part_of(seam, j);
            kiln_channels_seen *seen = &s->seen[k++];
            *seen = (kiln_channels_seen){
                .name = p->x->name, .axis = p->x_axis, .n = seam->channels * p->repeat};
            KILN_TRY(kiln_channels_init(seen, arena));
        }
    }
    return KILN_OK;
}

bool kiln_smoother_wants(const kiln_smoother *s, const char *name) {
    for (size_t i = 0; i < s->n_seen; i++) {
        if (strcmp(s->seen[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

void kiln_smoother_see(kiln_smoother *s, const char *name, const kiln_tensor *tensor) {
    for (size_t i = 0; i < s->n_seen; i++) {
        if (strcmp(s->seen[i].name, name) == 0) {
            kiln_channels_see(&s->seen[i], tensor);
        }
    }
}

/* ---- Smoothing ---- */

static kiln_status reduce(chooser *c, matrix *m, const kiln_env *env) {
    const kiln_seam_part *p = m->part;
    kiln_arena scratch;
    kiln_tensor t = p->node->in[p->in]->constant->tensor;
    kiln_lanes in = kiln_lanes_of(&t, p->axis), out = kiln_lanes_of(&t, p->out_axis);
    int64_t count = kiln_tensor_count(&t);
    m->n_out = out.n;
    m->n_in = in.n;
    m->taps = in.n > 0 && out.n > 0 ? count / (in.n * out.n) : 0;
    KILN_ALLOC(m->most, &c->scratch, out.n * in.n);
    KILN_ALLOC(m->squares, &c->scratch, c->seam->channels);
    kiln_arena_init(&scratch, env);
    kiln_status status = kiln_const_eval(p->node->in[p->in], &t, &scratch, c->diag);
    for (int64_t i = 0; i < count && status == KILN_OK; i++) {
        float w = fabsf(((const float *)t.data)[i]);
        float *most = &m->most[i / out.inner % out.n * in.n + i / in.inner % in.n];
        *most = w > *most ? w : *most;
        m->squares[kiln_seam_channel(p, in.n, in.inner, i)] += (double)w * (double)w;
    }
    for (int64_t i = 0; i < c->seam->channels; i++) {
        m->signal += m->squares[i] * m->reach[i].mean;
    }
    kiln_arena_free(&scratch);
    return status;
}

static kiln_status spread(chooser *c, matrix *m) {
    const int64_t n = c->seam->channels, repeat = m->part->repeat;
    double *scratch;
    KILN_ALLOC(m->reach, &c->scratch, n);
    KILN_ALLOC(scratch, &c->scratch, n);
    for (int64_t k = 0; k < n; k++) {
        m->reach[k] = kiln_reach_of(m->seen, k * repeat, repeat);
    }
    kiln_reach_fill(m->reach, n, scratch);
    return KILN_OK;
}

/* How far a side is to be covered. At inlets, to what data has shown: few channels are scaled
 * there, to where others lie. */
static double end_of(const chooser *c, const kiln_reach *r, int32_t side) {
    return c->seam->inlet ? r->side[side].far : kiln_reach_end(r, side);
}

/* Of what is read, in a range from -lo to hi. */
static double error_of_range(const chooser *c, const matrix *m, double lo, double hi) {
    const double d = (lo + hi) / 255, weight = c->seam->inlet ? 0 : CUT_WEIGHT;
    double sum = 0;
    for (int64_t i = 0; i < c->seam->channels; i++) {
        const kiln_reach *r = &m->reach[i];
        double step = d * c->s[i], cut = kiln_reach_cut(r, 0, lo * c->s[i]);
        cut += kiln_reach_cut(r, 1, hi * c->s[i]);
        sum += m->squares[i] * fmin(step * step / 12 * r->live + weight * cut, r->mean);
    }
    return sum;
}

static double error_of_x(const chooser *c, const matrix *m) {
    const double narrowest = c->seam->inlet ? 1 : LEAST_RANGE;
    double lo = 0, hi = 0, least = INFINITY;
    for (int64_t i = 0; i < c->seam->channels; i++) {
        lo = fmax(lo, end_of(c, &m->reach[i], 0) / c->s[i]);
        hi = fmax(hi, end_of(c, &m->reach[i], 1) / c->s[i]);
    }
    for (double t = 1; t >= narrowest; t *= RANGE_STEP) {
        double error = error_of_range(c, m, t * lo, t * hi);
        if (error > least) {
            break;
        }
        least = error;
    }
    return least;
}

static double error_of_w(const chooser *c, const matrix *m) {
    double sum = 0;
    for (int64_t o = 0; o < m->n_out; o++) {
        double row = 0, x = 0;
        /* Of a kernel in groups, o reads one. */
        int64_t first = o / m->part->span * m->n_in;
        for (int64_t k = 0; k < m->n_in; k++) {
            int64_t ch = (first + k) / m->part->repeat;
            row = fmax(row, (double)m->most[o * m->n_in + k] * c->s[ch]);
            x += m->reach[ch].mean / (c->s[ch] * c->s[ch]);
        }
        sum += row / 127 * (row / 127) / 12 * x * (double)m->taps;
    }
    return (c->rounded ? ROUNDED : 1) * sum;
}

/* The formula of the header. */
static double matrix_error(const chooser *c, const matrix *m) {
    return m->signal > 0 ? (error_of_x(c, m) + error_of_w(c, m)) / m->signal : 0;
}

static double seam_error(const chooser *c) {
    double sum = 0;
    for (size_t i = 0; i < c->n_w; i++) {
        sum += matrix_error(c, &c->w[i]);
    }
    return sum;
}

/* a: the geometric mean over the values read, each as a share of its greatest. */
static void find_ranges(chooser *c) {
    int64_t n = c->seam->channels;
    for (size_t i = 0; i < c->n_w; i++) {
        const matrix *m = &c->w[i];
        double most = 0;
        for (int64_t k = 0; k < n; k++) {
            most = fmax(most, fmax(end_of(c, &m->reach[k], 0), end_of(c, &m->reach[k], 1)));
        }
        for (int64_t k = 0; k < n; k++) {
            double end = fmax(end_of(c, &m->reach[k], 0), end_of(c, &m->reach[k], 1));
            c->a[k] += log2(end / most) / (double)c->n_w;
        }
    }
    for (int64_t k = 0; k < n; k++) {
        c->a[k] = exp2(c->a[k]);
    }
}

/* The scales of c->s are kept where they err less than any before. */
static bool keep_least(chooser *c, double *least) {
    double error = seam_error(c);
    if (error >= *least) {
        return false;
    }
    *least = error;
    memcpy(c->best, c->s, (size_t)c->seam->channels * sizeof *c->s);
    return true;
}

/* The channel of the greatest range below `under`; 0: none is left. */
static double next_range(const chooser *c, double under) {
    double most = 0;
    for (int64_t i = 0; i < c->seam->channels; i++) {
        most = c->a[i] < under ? fmax(most, c->a[i]) : most;
    }
    return most;
}

/* Inlets: channels that reach further than `most` are brought to it, the few that do, and the
 * others keep the room they have: what data has not shown is not cut off. */
static bool choose_outliers(chooser *c, double least) {
    const int64_t n = c->seam->channels;
    double most = next_range(c, INFINITY);
    bool better = false;
    for (int64_t k = (n + OUTLIERS - 1) / OUTLIERS; k > 0; k--) {
        most = next_range(c, most);
        for (int64_t i = 0; i < n; i++) {
            c->s[i] = most > 0 && isfinite(c->a[i]) ? fmax(c->a[i] / most, 1) : 1;
        }
        better = keep_least(c, &least) || better;
    }
    return better;
}

/* Leaves the scales in c->best; *better: they are not all 1. */
static void choose(chooser *c, double alpha, bool *better) {
    const bool inlet = c->seam->inlet != NULL;
    find_ranges(c);
    if (alpha > 0 && !inlet) {
        double any = INFINITY;
        set_scales(c, alpha, 1 - alpha);
        *better = keep_least(c, &any);
        return;
    }
    for (int64_t i = 0; i < c->seam->channels; i++) {
        c->s[i] = c->best[i] = 1;
    }
    double least = (inlet ? INLET_WORTH : WORTH) * seam_error(c);
    *better = inlet && choose_outliers(c, least);
    for (int32_t k = 0; k < (ALPHAS + 1) * (ALPHAS + 1) && !inlet; k++) {
        double x = (double)(k / (ALPHAS + 1)) / ALPHAS, w = (double)(k % (ALPHAS + 1)) / ALPHAS;
        set_scales(c, x, w);
        *better = keep_least(c, &least) || *better;
    }
}

/* The next weight that reads the sum, or the last of all. */
static const matrix *reader_behind(const chooser *c, const kiln_node *sum) {
    const matrix *best = &c->w[c->seam->n_multiply - 1];
    for (size_t i = c->seam->n_multiply; i > 0; i--) {
        const matrix *m = &c->w[i - 1];
        best = m->part->node->id > sum->id &&
                       (best->part->node->id < sum->id || m->part->node->id < best->part->node->id)
                   ? m
                   : best;
    }
    return best;
}

static void weigh_added(chooser *c) {
    for (size_t i = c->seam->n_multiply; i < c->n_w; i++) {
        const matrix *reader = reader_behind(c, c->w[i].part->node);
        c->w[i].squares = reader->squares;
        c->w[i].signal = reader->signal;
    }
}

static kiln_status smooth_seam(const kiln_smoother *s, kiln_seam *seam,
                               const kiln_channels_seen *seen, double alpha, kiln_graph *g,
                               kiln_scaled *out, kiln_diag *diag) {
    chooser c;
    bool better = false;
    kiln_status status = chooser_init(&c, seam, g->env, diag);
    c.rounded = s->rounded;
    for (size_t i = 0; i < c.n_w && status == KILN_OK; i++) {
        c.w[i] = (matrix){.part = part_of(seam, i), .seen = &seen[i]};
        status = spread(&c, &c.w[i]);
    }
    for (size_t i = 0; i < seam->n_multiply && status == KILN_OK; i++) {
        status = reduce(&c, &c.w[i], g->env);
    }
    if (status == KILN_OK) {
        weigh_added(&c);
        choose(&c, alpha, &better);
    }
    if (better) {
        add_hash(out, c.best, seam->channels);
        status = kiln_seam_apply(seam, c.best, g, diag);
        out->scaled++;
    }
    kiln_arena_free(&c.scratch);
    return status;
}

kiln_status kiln_smoother_apply(kiln_smoother *s, double alpha, kiln_graph *graph, kiln_scaled *out,
                                kiln_diag *diag) {
    const kiln_channels_seen *seen = s->seen;
    *out = (kiln_scaled){.seams = s->seams.count};
    for (size_t i = 0; i < s->seams.count; i++) {
        kiln_seam *seam = &s->seams.items[i];
        if (!s->inlets || seam->inlet) {
            KILN_TRY(smooth_seam(s, seam, seen, alpha, graph, out, diag));
        }
        seen += seam->n_multiply + seam->n_added;
    }
    return KILN_OK;
}
