/* calibration.h - observers by name, with where their data came from; include/kiln/quant.h is the
 * verbs. Tensors are sorted by name (bytes compared), which is also their order in files. */
#ifndef KILN_QUANT_CALIBRATION_H
#define KILN_QUANT_CALIBRATION_H

#include "base/hash.h"
#include "kiln/quant.h"
#include "quant/observer.h"

enum { KILN_CALIBRATION_MAX_TENSORS = 32768, KILN_CALIBRATION_MAX_TEXT = 4096 };

typedef struct kiln_observed {
    const char *name;
    kiln_observer seen;
} kiln_observed;

struct kiln_calibration {
    const kiln_env *env;
    kiln_arena arena;
    uint8_t model_hash[16]; /* all 0: not said */
    kiln_hash128 data;      /* sum of the samples' hashes, modulo 2^128 */
    uint64_t samples;
    const char *preprocess; /* never NULL */
    kiln_observed **tensors;
    size_t n_tensors, cap_tensors;
};

/* The observer of that name, made if there is none. KILN_F_DATA_LIMIT, KILN_E_MEMORY. */
kiln_status kiln_calibration_observer(kiln_calibration *c, const char *name, kiln_observer **out,
                                      kiln_diag *diag);
/* The observer of that name, or NULL. */
const kiln_observer *kiln_calibration_find(const kiln_calibration *c, const char *name);

struct kiln_ranges {
    const kiln_env *env;
    kiln_arena arena;
    kiln_range **items; /* sorted by name */
    size_t count, cap;
};

#endif
