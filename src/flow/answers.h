/* answers.h - whether layers compute the same in another network.
 *
 * What values of a network are when rules decide how layers run is kept, some elements of each, and
 * compared with what another network makes of them: floats within a share of the largest value, as
 * the errors that ways declare add up over the layers before; integers within one, where a float
 * that was rounded to them lay between two.
 *
 *     kiln_answers *a;
 *     KILN_TRY(kiln_answers_keep(&a, &rules, outputs, n, arena, diag));
 *     KILN_TRY(kiln_answers_compare(a, &other, diag));
 *     if (kiln_answers_differ(a, i)) { ... outputs[i] is another ... }
 */
#ifndef KILN_FLOW_ANSWERS_H
#define KILN_FLOW_ANSWERS_H

#include "flow/timing.h"

typedef struct kiln_answers kiln_answers;

/* Runs once and keeps what it makes of n values, by name; in `arena`. Values that are no numbers
 * are never compared. Errors: of running. */
kiln_status kiln_answers_keep(kiln_answers **out, const kiln_timed *rules,
                              const char *const *values, size_t n, kiln_arena *arena,
                              kiln_diag *diag);
/* Runs the other network once. */
kiln_status kiln_answers_compare(kiln_answers *answers, const kiln_timed *other, kiln_diag *diag);
/* Value i was another one when last compared. */
bool kiln_answers_differ(const kiln_answers *answers, size_t i);

#endif
