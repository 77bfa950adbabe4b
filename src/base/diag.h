/* diag.h - recording what went wrong, where.
 *
 * A failing function reports once, at the place that knows most, and returns the status:
 *
 *     return kiln_fail(diag, KILN_F_SHAPE, "weight has %lld channels, input has %lld", w, c);
 *
 * Callers that know the place set it around their calls; the finding takes it along:
 *
 *     kiln_diag_at_node(diag, node->name, node->op->name);
 *     kiln_diag_enter(diag, "pass %s", name);  ...  kiln_diag_leave(diag);
 *
 * Every function here takes a NULL diag and then records nothing. */
#ifndef KILN_BASE_DIAG_H
#define KILN_BASE_DIAG_H

#include "base/compiler.h"

typedef enum kiln_finding_id {
#define KILN_FINDING(name, code, status, meaning) KILN_F_##name,
#include "base/diag.def"
#undef KILN_FINDING
    KILN_F_COUNT,
} kiln_finding_id;

/* Appends an error and returns the status that belongs to its id. */
kiln_status kiln_fail(kiln_diag *diag, kiln_finding_id id, const char *fmt, ...) KILN_PRINTF(3, 4);
/* Adds a hint to the newest finding. Returns `status` unchanged, so that it can wrap a kiln_fail.
 */
kiln_status kiln_hint(kiln_diag *diag, kiln_status status, const char *fmt, ...) KILN_PRINTF(3, 4);
void kiln_warn(kiln_diag *diag, kiln_finding_id id, const char *fmt, ...) KILN_PRINTF(3, 4);
void kiln_note(kiln_diag *diag, kiln_finding_id id, const char *fmt, ...) KILN_PRINTF(3, 4);

/* Where the work stands. Set by the callers that know; NULL or -1 clears. Strings are borrowed
 * until changed. */
void kiln_diag_at_file(kiln_diag *diag, const char *path);
void kiln_diag_at_offset(kiln_diag *diag, int64_t offset);
void kiln_diag_at_node(kiln_diag *diag, const char *node, const char *op);

/* The chain of jobs; enter and leave nest (deeper than 16 is not recorded). */
void kiln_diag_enter(kiln_diag *diag, const char *fmt, ...) KILN_PRINTF(2, 3);
void kiln_diag_leave(kiln_diag *diag);

/* For the public entry points, last of all: forgets node and offset, whose strings may not outlive
 * the call, and if `status` is KILN_E_MEMORY and no finding says so, adds one. Returns status. */
kiln_status kiln_diag_close(kiln_diag *diag, kiln_status status);

/* Drops findings newer than the first `count`: for callers that try and fall back. */
void kiln_diag_truncate(kiln_diag *diag, size_t count);

/* The one-line meaning of a code such as "E0401", or NULL. */
const char *kiln_finding_meaning(const char *code);

#endif
