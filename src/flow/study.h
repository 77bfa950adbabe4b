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

#include "base/text.h"
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

/* How a layer runs: in which precision, and in 8 bits by which calibrator. */
typedef struct kiln_form {
    kiln_dtype dtype;   /* I8, BF16, F32 */
    int32_t calibrator; /* of the job's, counted from 1; 0: as the options say */
} kiln_form;

typedef struct kiln_study_calibrator {
    kiln_calibrator calibrator;
    double percentile; /* 0: none */
    kiln_ranges *ranges;
} kiln_study_calibrator;

enum { KILN_STUDY_CALIBRATORS = 5 };

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
    kiln_study_calibrator calibrators[KILN_STUDY_CALIBRATORS];
    int32_t n_calibrators;
    kiln_diag *diag;
} kiln_study_job;

kiln_status kiln_study_begin(kiln_study_job *job, const kiln_model *model,
                             const kiln_calibration *calibration,
                             const kiln_quantize_options *options, const kiln_study_options *how,
                             kiln_diag *diag);
/* The network with its layers in these forms; NULL: all in 8 bits. */
kiln_status kiln_study_quantize(kiln_study_job *job, const kiln_form *forms, kiln_model **out);
/* Rules that give each layer the precision of its form: the user's own, then a line for each that
 * is not in 8 bits. */
void kiln_study_write_rules(const kiln_study_job *job, const kiln_form *forms, kiln_text *text);
/* Fills in the job's calibrators. KILN_F_OPTION when layers have calibrators of their own. */
kiln_status kiln_study_calibrators(kiln_study_job *job);
void kiln_study_calibrators_free(kiln_study_job *job);
/* What the layer reads gets another range by calibrator k than by those before it. */
bool kiln_study_calibrator_differs(const kiln_study_job *job, size_t layer, int32_t k);
/* Fills in what each layer does alone in 8 bits; what the journal has is not measured again. */
kiln_status kiln_study_layers(kiln_study_job *job);
/* What layer i does alone, in a form of its own. */
kiln_status kiln_study_layer_in(kiln_study_job *job, size_t i, const kiln_form *form,
                                kiln_gauged *out);
/* That as the layer's cost in 8 bits. */
void kiln_study_tell(kiln_study_job *job, size_t i, const kiln_gauged *g);
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
