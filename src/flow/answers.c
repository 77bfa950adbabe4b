#include "flow/answers.h"

#include <math.h>

#include "base/lookup.h"
#include "ops/util.h"

/* Of the largest value, by which floats may differ; and elements that are kept of a value. */
static const double float_tolerance = 1e-3;
enum { SAMPLED = 4096 };

typedef struct answer {
    double *sample;
    int64_t n_sample;
    bool differs;
} answer;

struct kiln_answers {
    kiln_arena *arena;
    kiln_lookup values;
    answer *answers; /* per value */
    size_t n;
};

static bool wants(void *user, const char *name) {
    return kiln_lookup_find(&((const kiln_answers *)user)->values, name) >= 0;
}

static answer *answer_of(const kiln_answers *a, const char *name) {
    return &a->answers[kiln_lookup_find(&a->values, name)];
}

/* Element i of those that are compared, evenly spread. */
static double sampled(const kiln_tensor *t, int64_t i, int64_t n) {
    int64_t at = i * (kiln_tensor_count(t) / n);
    return kiln_dtype_is_float(t->dtype) ? kiln_get_f64(t->dtype, t->data, at)
                                         : (double)kiln_get_i64(t->dtype, t->data, at);
}

static bool is_number(const kiln_tensor *t) {
    return t->dtype != KILN_DTYPE_STRING && t->dtype != KILN_DTYPE_BOOL;
}

static kiln_status keep_sample(void *user, const char *name, const char *node,
                               const kiln_tensor *tensor, bool replayed) {
    const kiln_answers *k = user;
    answer *a = answer_of(k, name);
    (void)node;
    (void)replayed;
    int64_t n = kiln_tensor_count(tensor) < SAMPLED ? kiln_tensor_count(tensor) : SAMPLED;
    double *data;
    if (!is_number(tensor) || n == 0) {
        return KILN_OK;
    }
    KILN_ALLOC(data, k->arena, n);
    for (int64_t i = 0; i < n; i++) {
        data[i] = sampled(tensor, i, n);
    }
    a->sample = data;
    a->n_sample = n;
    return KILN_OK;
}

static kiln_status compare_sample(void *user, const char *name, const char *node,
                                  const kiln_tensor *tensor, bool replayed) {
    answer *a = answer_of(user, name);
    double most = 0, error = 0;
    (void)node;
    (void)replayed;
    for (int64_t i = 0; i < a->n_sample; i++) {
        const double want = a->sample[i], have = sampled(tensor, i, a->n_sample);
        const bool same = have == want || (isnan(have) && isnan(want));
        most = fmax(most, isfinite(want) ? fabs(want) : 0);
        error = same ? error : isfinite(have - want) ? fmax(error, fabs(have - want)) : INFINITY;
    }
    const bool whole = !kiln_dtype_is_float(tensor->dtype);
    a->differs = error > (whole ? 1 : float_tolerance * most);
    return KILN_OK;
}

static kiln_status run_tapped(kiln_answers *a, const kiln_timed *t,
                              kiln_status (*see)(void *, const char *, const char *,
                                                 const kiln_tensor *, bool),
                              kiln_diag *diag) {
    const kiln_tap tap = {.wants = wants, .see = see, .user = a};
    kiln_context_set_tap(t->context, &tap);
    kiln_status status = kiln_context_run(t->context, diag);
    kiln_context_set_tap(t->context, NULL);
    return status;
}

kiln_status kiln_answers_keep(kiln_answers **out, const kiln_timed *rules,
                              const char *const *values, size_t n, kiln_arena *arena,
                              kiln_diag *diag) {
    kiln_answers *a;
    KILN_ALLOC(a, arena, 1);
    *a = (kiln_answers){.arena = arena, .n = n};
    KILN_ALLOC(a->answers, arena, n);
    KILN_TRY(kiln_lookup_make(&a->values, values, n, arena));
    *out = a;
    return run_tapped(a, rules, keep_sample, diag);
}

kiln_status kiln_answers_compare(kiln_answers *answers, const kiln_timed *other, kiln_diag *diag) {
    for (size_t i = 0; i < answers->n; i++) {
        answers->answers[i].differs = false;
    }
    return run_tapped(answers, other, compare_sample, diag);
}

bool kiln_answers_differ(const kiln_answers *answers, size_t i) {
    return answers->answers[i].differs;
}
