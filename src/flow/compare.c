/* compare.c - two lists of tensors against each other. */
#include <math.h>
#include <string.h>

#include "base/env.h"
#include "base/options.h"
#include "data/metrics.h"
#include "flow/flow.h"

struct kiln_comparison {
    const kiln_env *env;
    kiln_arena arena;
    kiln_difference *items;
    size_t count;
};

static const double default_range_tol = 1e-4;

/* The k-th entry called `name`. */
static const kiln_tensor *find_nth(const kiln_tensors *list, const char *name, size_t k) {
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].name, name) == 0 && k-- == 0) {
            return &list->items[i].tensor;
        }
    }
    return NULL;
}

static const char *dims_text(kiln_arena *arena, const kiln_tensor *t) {
    const char *text = kiln_dtype_name(t->dtype);
    for (int32_t d = 0; d < t->rank && text; d++) {
        text = kiln_arena_printf(arena, "%s%s%lld", text, d ? "x" : " ", (long long)t->dims[d]);
    }
    return text ? text : "";
}

static const char *why_not(kiln_arena *arena, const kiln_tensor *e, const kiln_tensor *a) {
    if (!a) {
        return "missing";
    }
    bool same =
        e->rank == a->rank && memcmp(e->dims, a->dims, (size_t)e->rank * sizeof e->dims[0]) == 0;
    if (same) {
        return NULL;
    }
    const char *text =
        kiln_arena_printf(arena, "%s, expected %s", dims_text(arena, a), dims_text(arena, e));
    return text ? text : "another shape";
}

/* Whether what is asked for holds; nothing asked for means default_range_tol. */
static bool judge(const kiln_difference *d, const kiln_tolerance *t) {
    bool elements = t->atol > 0 || t->rtol > 0;
    bool any =
        elements || t->range_tol > 0 || t->min_cosine > 0 || t->min_sqnr_db > 0 || t->min_top1 > 0;
    double range_tol = any ? t->range_tol : default_range_tol;
    return d->nonfinite == 0 && (!elements || d->failed == 0) &&
           (range_tol <= 0 || d->range_error <= range_tol) &&
           (t->min_cosine <= 0 || d->cosine >= t->min_cosine) &&
           (t->min_sqnr_db <= 0 || d->sqnr_db >= t->min_sqnr_db) &&
           (t->min_top1 <= 0 || isnan(d->top1) || d->top1 >= t->min_top1);
}

static kiln_status measure(kiln_difference *d, const kiln_tensor *e, const kiln_tensor *a,
                           const kiln_tolerance *t, kiln_diag *diag) {
    kiln_compare sums = {.atol = t->atol, .rtol = t->rtol};
    kiln_compare_report r;
    KILN_TRY(kiln_compare_add(&sums, e, a, diag));
    kiln_compare_finish(&sums, &r);
    d->count = r.count;
    d->failed = r.count - r.passed;
    d->max_abs = r.max_abs;
    d->max_rel = r.max_rel;
    d->mean_abs = r.mean_abs;
    d->rmse = r.rmse;
    d->range = r.range;
    d->range_error = r.range > 0 ? r.max_abs / r.range : r.max_abs;
    d->cosine = r.cosine;
    d->sqnr_db = r.sqnr_db;
    d->top1 = r.top1_agreement;
    d->nonfinite = r.nonfinite_mismatch;
    d->worst = r.worst;
    d->worst_expected = r.worst_expected;
    d->worst_actual = r.worst_actual;
    d->pass = judge(d, t);
    return KILN_OK;
}

static kiln_status fill(kiln_comparison *c, const kiln_tensors *expected,
                        const kiln_tensors *actual, const kiln_tolerance *t, kiln_diag *diag) {
    KILN_ALLOC(c->items, &c->arena, expected->count);
    for (size_t i = 0; i < expected->count; i++) {
        kiln_difference *d = &c->items[c->count++];
        const char *name = expected->items[i].name;
        size_t nth = 0;
        for (size_t k = 0; k < i; k++) {
            nth += strcmp(expected->items[k].name, name) == 0;
        }
        d->name = kiln_arena_text(&c->arena, name, strlen(name));
        if (!d->name) {
            return KILN_E_MEMORY;
        }
        const kiln_tensor *e = &expected->items[i].tensor, *a = find_nth(actual, name, nth);
        d->problem = why_not(&c->arena, e, a);
        d->worst = -1;
        if (!d->problem) {
            KILN_TRY(measure(d, e, a, t, diag));
        }
    }
    return KILN_OK;
}

kiln_status kiln_comparison_run(kiln_comparison **out, const kiln_tensors *expected,
                                const kiln_tensors *actual, const kiln_env *env,
                                const kiln_tolerance *tolerance, kiln_diag *diag) {
    kiln_tolerance t;
    if (kiln_options_read(&t, sizeof t, tolerance) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION, "the tolerance has no size, or unknown fields");
    }
    kiln_comparison *c = kiln_env_alloc(env, sizeof *c);
    if (!c) {
        return kiln_diag_close(diag, KILN_E_MEMORY);
    }
    memset(c, 0, sizeof *c);
    c->env = env;
    kiln_arena_init(&c->arena, env);
    kiln_status status = fill(c, expected, actual, &t, diag);
    if (status != KILN_OK) {
        kiln_comparison_destroy(c);
        return kiln_diag_close(diag, status);
    }
    *out = c;
    return KILN_OK;
}

void kiln_comparison_destroy(kiln_comparison *comparison) {
    if (comparison) {
        kiln_arena_free(&comparison->arena);
        kiln_env_release(comparison->env, comparison, sizeof *comparison);
    }
}

const kiln_difference *kiln_comparison_get(const kiln_comparison *comparison, size_t i) {
    return i < comparison->count ? &comparison->items[i] : NULL;
}

bool kiln_comparison_passed(const kiln_comparison *comparison) {
    for (size_t i = 0; i < comparison->count; i++) {
        if (!comparison->items[i].pass) {
            return false;
        }
    }
    return comparison->count > 0;
}
