/* journal.h - what a long job has measured so far, in a file that it can go on from.
 *
 * A line of JSON each: first the job's key, a hash of all that its measurements depend on, then one
 * item after the other, a name and a few numbers. The file is rewritten whole for every item, so
 * that it is never half an item long.
 *
 *     kiln_journal *j;
 *     KILN_TRY(kiln_journal_open(&j, "net.state", key, env, diag));      // NULL path: memory only
 *     const double *known = kiln_journal_find(j, "layer conv1");
 *     if (!known) {
 *         ...                                                    // measure
 *         KILN_TRY(kiln_journal_add(j, "layer conv1", numbers, 3, diag));
 *     }
 *     kiln_journal_close(j);
 */
#ifndef KILN_FLOW_JOURNAL_H
#define KILN_FLOW_JOURNAL_H

#include "base/arena.h"
#include "base/diag.h"
#include "base/hash.h"

enum { KILN_JOURNAL_NUMBERS = 8 };

typedef struct kiln_journal kiln_journal;

/* Reads the file if there is one. KILN_F_OPTION when it is of another job, KILN_F_DATA_FORMAT when
 * it is damaged, IO, MEMORY. */
kiln_status kiln_journal_open(kiln_journal **out, const char *path, kiln_hash128 key,
                              const kiln_env *env, kiln_diag *diag);
void kiln_journal_close(kiln_journal *journal);
/* KILN_JOURNAL_NUMBERS numbers, those not given 0; NULL for an item that is not there. What was not
 * finite reads back as NaN. */
const double *kiln_journal_find(const kiln_journal *journal, const char *item);
/* Adds an item, or replaces its numbers. */
kiln_status kiln_journal_add(kiln_journal *journal, const char *item, const double *numbers,
                             size_t n, kiln_diag *diag);
/* Items read from the file. */
size_t kiln_journal_resumed(const kiln_journal *journal);

#endif
