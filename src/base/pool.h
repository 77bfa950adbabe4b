/* pool.h - a persistent pool of worker threads that runs one function on every member of a team.
 *
 * One run of a team is one SPMD region: every member calls fn(arg, team) with its own rank, and
 * members meet at kiln_team_barrier. An inference is one region: there is no fork or join between
 * layers, only barriers (a fraction of a microsecond by spinning). The caller is rank 0.
 *
 * Workers spin for a while after a region and then sleep. A pool that is busy with another caller
 * makes the newcomer run alone (a team of one): the time changes, the bits never do, because
 * kernels split work the same way for any team size.
 */
#ifndef KILN_BASE_POOL_H
#define KILN_BASE_POOL_H

#include "base/compiler.h"

typedef struct kiln_barrier kiln_barrier;

typedef struct kiln_team {
    int32_t size;          /* members, >= 1 */
    int32_t rank;          /* this member, 0 .. size-1 */
    kiln_barrier *barrier; /* NULL in a team of one */
} kiln_team;

typedef void (*kiln_team_fn)(void *arg, const kiln_team *team);

/* Waits until every member has arrived. Memory written before it is visible after it. */
void kiln_team_barrier(const kiln_team *team);

/* This member's share [*begin, *end) of n items: contiguous, sizes differing by at most one. */
static inline void kiln_team_split(const kiln_team *team, int64_t n, int64_t *begin, int64_t *end) {
    *begin = n * team->rank / team->size;
    *end = n * (team->rank + 1) / team->size;
}

/* Runs fn on a team of at most `threads` members (0: all of the pool) and returns when all are
 * done. FTZ and DAZ are set inside and restored for the caller. A NULL pool runs a team of one. */
void kiln_pool_run(kiln_pool *pool, int32_t threads, kiln_team_fn fn, void *arg);

/* The floating-point mode of all computing, whatever the caller's is: round to nearest, no traps,
 * denormals flushed to zero and read as zero. Members of a team have it; what computes outside of
 * one enters it and leaves it with the word that entering returned. May be nested. */
unsigned kiln_float_mode_enter(void);
void kiln_float_mode_leave(unsigned before);

#endif
