/* api.h - the model behind the public functions. */
#ifndef KILN_API_H
#define KILN_API_H

#include "engine/engine.h"
#include "onnx/onnx.h"
#include "quant/place.h"

struct kiln_model {
    const kiln_env *env;
    kiln_hold *hold; /* owns arena and mapped files */
    kiln_import import;
    kiln_model_info info;
    kiln_ios ios;
    const kiln_op **ops; /* distinct, in order of first use */
    size_t *op_counts;
    size_t n_ops;
    kiln_placed placed; /* by kiln_quantize */
};

/* Infers the model's graph and fills in what is known of it. */
kiln_status kiln_model_complete(kiln_model *model, kiln_diag *diag);

/* Fills out->import with a copy of the graph after the passes but those called `off` (may be NULL).
 * The model has its hold, which keeps that of `from`. */
kiln_status kiln_model_canonical(kiln_model *out, const kiln_model *from, const char *const *off,
                                 kiln_diag *diag);

/* Arena and files of the hold. */
kiln_arena *kiln_hold_arena(kiln_hold *hold);
kiln_files *kiln_hold_files(kiln_hold *hold);
kiln_status kiln_hold_new(kiln_hold **out, const kiln_env *env);
/* Keeps `parent`, too, as long as `hold` is held. */
void kiln_hold_keep(kiln_hold *hold, kiln_hold *parent);

#endif
