/* timings.h - the timing cache: how long ways to run layers took, kept in a file that builds share.
 *
 * A line of JSON each: the key of the layer, a hash of all that its time depends on (operators,
 * attributes, types, layouts, processor, instruction set, threads, version), the way, and what the
 * race of that way against the rules' showed. Lines are only ever appended, each by one write, so
 * that several builds may use one file at once and a build that is killed loses a line at most; two
 * files are merged by `cat`. What is no such line is skipped: the file says nothing that measuring
 * again would not tell. Of two lines for the same thing the later counts.
 *
 *     kiln_timings *t;
 *     KILN_TRY(kiln_timings_open(&t, "net.timings", env, diag));          // NULL path: memory only
 *     const kiln_timing *known = kiln_timings_find(t, key, "conv_f32/patch");
 *     if (!known) {
 *         ...                                                              // measure
 *         KILN_TRY(kiln_timings_add(t, key, "conv_f32/patch", &timing, diag));
 *     }
 *     kiln_timings_close(t);
 */
#ifndef KILN_FLOW_TIMINGS_H
#define KILN_FLOW_TIMINGS_H

#include "base/hash.h"
#include "flow/timing.h"

typedef struct kiln_timings kiln_timings;

typedef struct kiln_timing {
    kiln_race race;      /* a: as rules would have it, b: this way */
    const char *refused; /* why it may not be used, or NULL */
} kiln_timing;

/* Reads the file if there is one; a warning says how many of its lines are none. IO; LIMIT for a
 * file above 256 MiB; MEMORY. */
kiln_status kiln_timings_open(kiln_timings **out, const char *path, const kiln_env *env,
                              kiln_diag *diag);
void kiln_timings_close(kiln_timings *timings);
/* NULL for what is not there. */
const kiln_timing *kiln_timings_find(const kiln_timings *timings, kiln_hash128 key,
                                     const char *way);
/* Adds it, or replaces what is there. */
kiln_status kiln_timings_add(kiln_timings *timings, kiln_hash128 key, const char *way,
                             const kiln_timing *timing, kiln_diag *diag);

#endif
