/* workspace.h - the plan of an engine whose layers may need so much memory beside their
 * operands and no more.
 *
 * What a way needs is known once it is bound to shapes, which the cover is not. So the graph is
 * covered and bound to the largest shapes it is built for, ways that need too much are banned,
 * and so on until none does; then it is planned. A banned way is refused like any other, with
 * the reason in words.
 *
 *     engine->workspace_bytes = 1 << 20;             // 0: as much as layers like
 *     KILN_TRY(kiln_engine_plan(engine, note_refusal, engine, diag));
 */
#ifndef KILN_ENGINE_WORKSPACE_H
#define KILN_ENGINE_WORKSPACE_H

#include "engine/engine.h"

/* Makes engine->plan: covers, compiles and packs its graph for its target. LIMIT when a layer
 * has no way that needs little enough; what kiln_cpu_plan_graph returns. */
kiln_status kiln_engine_plan(kiln_engine *engine, kiln_refusal_fn refused, void *user,
                             kiln_diag *diag);

#endif
