/* crowd.h - runs beside what is timed, as streams have them: they take cores, caches and bandwidth.
 *
 *     kiln_crowd *crowd;
 *     KILN_TRY(kiln_crowd_start(&crowd, engine, 3, env, diag));      // three contexts run on
 *     status = ... race ...;
 *     kiln_crowd_stop(crowd);
 */
#ifndef KILN_FLOW_CROWD_H
#define KILN_FLOW_CROWD_H

#include "flow/timing.h"

typedef struct kiln_crowd kiln_crowd;

/* Starts n contexts of the engine, each on one thread of its own, with made-up inputs, over and
 * over until it is stopped; fewer where the system gives fewer threads. *out is NULL for n 0.
 * Errors: of creating contexts; what goes wrong in a run ends that context's part. */
kiln_status kiln_crowd_start(kiln_crowd **out, const kiln_engine *engine, int32_t n,
                             const kiln_env *env, kiln_diag *diag);
/* Ends the runs and gives all back; takes NULL. */
void kiln_crowd_stop(kiln_crowd *crowd);

#endif
