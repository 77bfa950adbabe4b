/* hold.h - which float32 values are held in bfloat16 between the steps that make and read them.
 *
 * A bfloat16 product rounds its operand before it multiplies. Rounded where it is made, a value is
 * written and read in half the bytes, once for all its readers, and such a product's result has the
 * same bits. Values that a step only moves are held alike on both sides of it.
 *
 * A value is held so if no conversion is needed: what makes it can write bfloat16, all that read it
 * can read it (kiln_held), and one of them, maybe behind moves, is such a product. Inputs, outputs,
 * constants and what bodies of If and Loop read stay float32. Readers that do not round, as
 * residuals and pools, then see the rounded value: that, and nothing else, differs from what
 * `--off hold_half` computes. */
#ifndef KILN_BACKEND_CPU_HOLD_H
#define KILN_BACKEND_CPU_HOLD_H

#include "plan/plan.h"

/* *out: per value id of the root graph, whether the plan's claims hold the value in bfloat16. */
kiln_status kiln_cpu_hold(const kiln_plan *plan, size_t n_values, bool **out, kiln_arena *arena);

#endif
