/* observe.h - calibration data through an engine, value by value.
 *
 *     const kiln_observer_fns fns = {.wants = is_needed, .see = see, .user = job};
 *     KILN_TRY(kiln_observe(engine, context, env, &run, &fns, diag));
 */
#ifndef KILN_FLOW_OBSERVE_H
#define KILN_FLOW_OBSERVE_H

#include "flow/feed.h"
#include "kiln/quant.h"

typedef struct kiln_observe_fns {
    bool (*wants)(void *user, const char *name);
    /* Inputs without the rows that fill up the last batch. Anything but KILN_OK ends the runs. */
    kiln_status (*see)(void *user, const char *name, const kiln_tensor *tensor);
    /* Once a batch has run; or NULL. */
    void (*ran)(void *user, const kiln_feed *feed, const kiln_fed *fed);
    void *user;
} kiln_observe_fns;

/* Runs all samples; the context's tap is replaced. Errors: those of reading data and of running,
 * CANCELLED by run->progress, what `see` returns. */
kiln_status kiln_observe(const kiln_engine *engine, kiln_context *context, const kiln_env *env,
                         const kiln_calibrate_run *run, const kiln_observe_fns *fns,
                         kiln_diag *diag);

#endif
