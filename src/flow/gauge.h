/* gauge.h - how far a changed network's outputs are from the float network's, on samples whose
 * float outputs are computed once and kept.
 *
 *     kiln_gauge *g;
 *     kiln_gauge_spec spec = {.feed = {.data = "calib/"}, .samples = 128};
 *     KILN_TRY(kiln_gauge_open(&g, float_model, &spec, env, diag));
 *     for (each candidate) {
 *         kiln_gauged r;
 *         KILN_TRY(kiln_gauge_model(g, candidate, &r, diag));      // r.sqnr_db, r.top1
 *     }
 *     kiln_gauge_close(g);
 *
 * Every network must have the float network's inputs and outputs. The samples are spread evenly
 * over those of the feed. Inputs are kept too while they fit into KILN_GAUGE_BYTES, else read anew
 * for every network. Outputs count alike, whatever their sizes: what is reported is the mean of
 * their noise-to-signal ratios. A number that should be finite and is not makes the noise
 * infinite. */
#ifndef KILN_FLOW_GAUGE_H
#define KILN_FLOW_GAUGE_H

#include "base/hash.h"
#include "flow/feed.h"
#include "kiln/quant.h"

enum { KILN_GAUGE_BYTES = 256 << 20 };

typedef struct kiln_gauge_spec {
    kiln_feed_spec feed;
    int64_t samples;                 /* at most [all] */
    const kiln_build_options *build; /* of every engine; `portable` is not used */
    int32_t threads;                 /* [all] */
    const kiln_progress *progress;
} kiln_gauge_spec;

typedef struct kiln_gauged {
    int64_t samples;
    double noise;     /* error over signal, squared; mean over the outputs */
    double sqnr_db;   /* the same in decibels; infinite for equal outputs */
    double cosine;    /* the least of any output */
    double agreement; /* share of samples with the same largest score in the first output, or NaN */
    double top1;      /* share that the labels call right; NaN without labels */
    double median_ms; /* of one run */
    const uint8_t *right; /* [samples] of the gauge, or NULL without labels; valid until it closes
                           */
} kiln_gauged;

typedef struct kiln_gauge kiln_gauge;

/* Runs the float network over the samples. Errors: of reading data, building and running;
 * CANCELLED by progress. */
kiln_status kiln_gauge_open(kiln_gauge **out, const kiln_model *model, const kiln_gauge_spec *spec,
                            const kiln_env *env, kiln_diag *diag);
void kiln_gauge_close(kiln_gauge *gauge);
/* The float network's own: no noise, its top1. */
const kiln_gauged *kiln_gauge_float(const kiln_gauge *gauge);
/* The float network's engine and its context, with some sample bound: to be timed beside others. */
const kiln_engine *kiln_gauge_engine(const kiln_gauge *gauge);
kiln_context *kiln_gauge_context(const kiln_gauge *gauge);
/* Builds an engine of a model with the float network's options, and a context on the same
 * threads. */
kiln_status kiln_gauge_build(const kiln_gauge *gauge, const kiln_model *model, kiln_engine **engine,
                             kiln_context **context, kiln_diag *diag);
/* Progress of the next run goes from one share to the other. */
void kiln_gauge_span(kiln_gauge *gauge, double from, double to);
/* Runs a context of such an engine over the samples. */
kiln_status kiln_gauge_run(kiln_gauge *gauge, kiln_context *context, kiln_gauged *out,
                           kiln_diag *diag);
/* Builds and runs. */
kiln_status kiln_gauge_model(kiln_gauge *gauge, const kiln_model *model, kiln_gauged *out,
                             kiln_diag *diag);
/* Binds what was kept of batch k; false past the end, and when inputs were not kept. */
bool kiln_gauge_bind(kiln_gauge *gauge, size_t k, kiln_context *context, kiln_diag *diag);
/* What was kept of batch k for the input of that name, or NULL. */
const kiln_tensor *kiln_gauge_input(const kiln_gauge *gauge, size_t k, const char *name);
/* Of the float network's outputs: it changes with the network, the samples and how they are
 * prepared. */
kiln_hash128 kiln_gauge_hash(const kiln_gauge *gauge);
/* Samples that can be run for `cost_macs` multiply-accumulates in all: at least `least`, at most
 * `most`. The same on every machine. */
int64_t kiln_gauge_share(const kiln_model *model, int64_t cost_macs, int64_t least, int64_t most);

/* More samples speak against b than chance explains: those that a has right and b wrong, and the
 * reverse, differ by more than two standard deviations. */
bool kiln_gauge_worse(const kiln_gauged *a, const kiln_gauged *b);

#endif
