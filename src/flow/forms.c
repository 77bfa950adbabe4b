/* forms.c - networks in which each layer has its own form: precision, and which calibrator finds
 * the range of what it reads. */
#include <math.h>
#include <string.h>

#include "base/text.h"
#include "flow/study.h"
#include "quant/rules.h"

static const char keep_reason[] = "the study leaves it float";
/* Ranges that differ by less are the same. */
static const double least_difference = 0.01;

/* ---- Calibrators ---- */

static kiln_status add_calibrator(kiln_study_job *job, kiln_calibrator calibrator,
                                  double percentile) {
    kiln_study_calibrator *c = &job->calibrators[job->n_calibrators++];
    kiln_calibrate_options how = *job->options.calibrate;
    c->calibrator = how.calibrator = calibrator;
    c->percentile = percentile;
    how.percentiles = percentile > 0 ? &percentile : NULL;
    how.n_percentiles = percentile > 0 ? 1 : 0;
    how.symmetric = how.symmetric || job->options.style == KILN_QDQ_TENSORRT;
    KILN_TRY(kiln_ranges_create(&c->ranges, job->study->env));
    return kiln_ranges_calibrate(c->ranges, job->calibration, &how, job->diag);
}

kiln_status kiln_study_calibrators(kiln_study_job *job) {
    if (!job->ranges) {
        return kiln_fail(job->diag, KILN_F_OPTION,
                         "layers cannot be given calibrators when options give them some already");
    }
    KILN_TRY(add_calibrator(job, KILN_CALIBRATOR_MAX, 0));
    KILN_TRY(add_calibrator(job, KILN_CALIBRATOR_PERCENTILE, 99.9));
    KILN_TRY(add_calibrator(job, KILN_CALIBRATOR_PERCENTILE, 99.99));
    KILN_TRY(add_calibrator(job, KILN_CALIBRATOR_ENTROPY, 0));
    return add_calibrator(job, KILN_CALIBRATOR_MSE, 0);
}

void kiln_study_calibrators_free(kiln_study_job *job) {
    for (int32_t i = 0; i < job->n_calibrators; i++) {
        kiln_ranges_destroy(job->calibrators[i].ranges);
    }
    job->n_calibrators = 0;
}

/* What calibrator number k, 0 being the options' own, says of the value; NULL: nothing. */
static const kiln_range *range_of(const kiln_study_job *job, int32_t k, const char *value) {
    return kiln_ranges_find(k > 0 ? job->calibrators[k - 1].ranges : job->ranges, value);
}

bool kiln_study_calibrator_differs(const kiln_study_job *job, size_t layer, int32_t k) {
    const char *value = job->study->layers[layer].input;
    const kiln_range *mine = value ? range_of(job, k, value) : NULL;
    bool differs = mine != NULL;
    for (int32_t i = 0; i < k && differs; i++) {
        const kiln_range *r = range_of(job, i, value);
        double far = r ? fmax(fabs(r->lo - mine->lo), fabs(r->hi - mine->hi)) : INFINITY;
        differs = far > least_difference * (mine->hi - mine->lo);
    }
    return differs;
}

/* The job's ranges, but those that forms take from others; *out NULL: as they are. */
static kiln_status ranges_of(const kiln_study_job *job, const kiln_form *forms, kiln_ranges **out) {
    const kiln_study *s = job->study;
    const kiln_range *r;
    bool any = false;
    for (size_t i = 0; i < s->n_layers; i++) {
        any = any || (forms[i].dtype == KILN_DTYPE_I8 && forms[i].calibrator > 0);
    }
    if (!any) {
        return KILN_OK;
    }
    KILN_TRY(kiln_ranges_create(out, s->env));
    for (size_t i = 0; (r = kiln_ranges_get(job->ranges, i)); i++) {
        KILN_TRY(kiln_ranges_set(*out, r, job->diag));
    }
    /* The first layer that reads a value says how its range is found. */
    for (size_t i = s->n_layers; i > 0; i--) {
        const kiln_form *form = &forms[i - 1];
        const char *value = s->layers[i - 1].input;
        if (form->dtype == KILN_DTYPE_I8 && value) {
            r = range_of(job, form->calibrator, value);
            KILN_TRY(r ? kiln_ranges_set(*out, r, job->diag) : KILN_OK);
        }
    }
    return KILN_OK;
}

/* ---- Networks ---- */

static void write_rule(kiln_text *text, const char *layer, const char *precision) {
    kiln_text_puts(text, "name:");
    kiln_rule_escape(text, layer);
    kiln_text_printf(text, "=%s\n", precision);
}

void kiln_study_write_rules(const kiln_study_job *job, const kiln_form *forms, kiln_text *text) {
    kiln_text_printf(text, "# %s\n",
                     job->options.precision ? "as asked for" : "8 bits but where said otherwise");
    kiln_text_printf(text, "%s\n", job->options.precision ? job->options.precision : "int8");
    for (size_t i = 0; i < job->study->n_layers; i++) {
        if (forms[i].dtype != KILN_DTYPE_I8) {
            write_rule(text, job->study->layers[i].name,
                       forms[i].dtype == KILN_DTYPE_BF16 ? "bf16" : "fp32");
        }
    }
}

/* Layers that stay float are kept so by name; those in bfloat16 need rules, as the others then do:
 * what is measured is what the rules say. */
static kiln_status choose(kiln_study_job *job, const kiln_form *forms, kiln_quantize_options *o,
                          kiln_text *rules) {
    const kiln_study *s = job->study;
    size_t n = o->n_keep;
    bool half = false;
    for (size_t i = 0; i < s->n_layers; i++) {
        half = half || forms[i].dtype == KILN_DTYPE_BF16;
        if (forms[i].dtype == KILN_DTYPE_F32) {
            job->keep[n++] = (kiln_float_node){s->layers[i].name, keep_reason};
        }
    }
    o->keep = job->keep;
    o->n_keep = n;
    if (half) {
        kiln_study_write_rules(job, forms, rules);
        o->precision = rules->data;
    }
    return kiln_text_ok(rules) ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_study_quantize(kiln_study_job *job, const kiln_form *forms, kiln_model **out) {
    kiln_quantize_options o = job->options;
    kiln_ranges *own = NULL;
    kiln_text rules;
    size_t said = kiln_diag_count(job->diag);
    kiln_text_init(&rules, job->study->env);
    kiln_status status = forms ? choose(job, forms, &o, &rules) : KILN_OK;
    status = status || !forms || !job->ranges ? status : ranges_of(job, forms, &own);
    if (status == KILN_OK) {
        const kiln_ranges *ranges = own ? own : job->ranges ? job->ranges : job->how.ranges;
        status = kiln_quantize(out, job->model, job->calibration, ranges, &o, job->diag);
    }
    if (status == KILN_OK && forms) {
        kiln_diag_truncate(job->diag, said); /* it warns of the same each time */
    }
    kiln_ranges_destroy(own);
    kiln_text_free(&rules);
    return status;
}
