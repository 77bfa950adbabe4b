/* study.h - what the studies of layers share: the float network's outputs, the layers that 8 bits
 * are for, networks with some of them quantized, and a journal of what was measured.
 *
 *     study_job job;
 *     KILN_TRY(kiln_study_begin(&job, model, calibration, options, how, diag));
 *     status = kiln_study_layers(&job);                 // or one's own measurements
 *     return kiln_study_end(&job, status, out);
 *
 * Layers are numbered in the graph's order until kiln_study_end ranks them. */
#ifndef KILN_FLOW_STUDY_H
#define KILN_FLOW_STUDY_H

#include "flow/gauge.h"
#include "flow/journal.h"

struct kiln_study {
    const kiln_env *env;
    kiln_arena arena;
    kiln_layer_cost *layers;
    size_t n_layers, cap_layers;
    kiln_study_info info;
    kiln_tried *tried;
    size_t n_tried, cap_tried;
    int64_t best; /* of them; -1: none yet */
    const char *rules;
};

typedef struct kiln_study_job {
    kiln_study *study;
    const kiln_model *model;
    const kiln_calibration *calibration;
    kiln_quantize_options options;
    kiln_study_options how;
    kiln_gauge *gauge;
    kiln_journal *journal;
    kiln_ranges *ranges;   /* of all values, or NULL: found for each network */
    kiln_float_node *keep; /* room for the options' own and one for each layer */
    kiln_diag *diag;
} kiln_study_job;

kiln_status kiln_study_begin(kiln_study_job *job, const kiln_model *model,
                             const kiln_calibration *calibration,
                             const kiln_quantize_options *options, const kiln_study_options *how,
                             kiln_diag *diag);
/* The network with these layers quantized; NULL: all. */
kiln_status kiln_study_quantize(kiln_study_job *job, const bool *int8, kiln_model **out);
/* Fills in what each layer does alone; what the journal has is not measured again. */
kiln_status kiln_study_layers(kiln_study_job *job);
/* Gives the job back; on KILN_OK and CANCELLED the study becomes the caller's. */
kiln_status kiln_study_end(kiln_study_job *job, kiln_status status, kiln_study **out);

/* The metric of a result: top1, or agreement without labels. NaN for neither. */
double kiln_study_metric(const kiln_study_job *job, const kiln_gauged *g);
/* By how many percentage points it is below the float network's. */
double kiln_study_drop(const kiln_study_job *job, const kiln_gauged *g);

/* Noise of quantized values between the layers of a network: fills in what each layer reads.
 * Engine and context are of the network with all layers quantized. */
kiln_status kiln_study_taps(kiln_study_job *job, const kiln_engine *engine, kiln_context *context);

#endif
