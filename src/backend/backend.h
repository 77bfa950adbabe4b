/* backend.h - what a backend offers to the builder and the runner: a struct of functions.
 *
 * The builder asks claim for candidates and picks a cover; compile turns the cover into a plan; pack
 * makes the weights; bind fixes sizes; run works one bound step. The CPU is the only backend so far.
 */
#ifndef KILN_BACKEND_BACKEND_H
#define KILN_BACKEND_BACKEND_H

#include "base/pool.h"
#include "plan/plan.h"

#endif
