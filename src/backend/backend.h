/* backend.h - the backend as the builder, the engine reader and the runner see it. The CPU's is
 * the only one so far; its code stands in cpu/.
 *
 * kiln_cpu_cover picks claims greedily by rank; kiln_cpu_reclaim repeats stored decisions; both
 * fill plan->claims. kiln_cpu_compile makes slots and steps of them. kiln_cpu_pack makes the
 * weights. */
#ifndef KILN_BACKEND_BACKEND_H
#define KILN_BACKEND_BACKEND_H

#include "backend/kernel.h"

/* The target for these CPU features: the highest rung of vector code they allow. `off` is
 * borrowed. */
void kiln_cpu_target_init(kiln_cpu_target *target, uint32_t features, const char *const *off);

/* Why a kernel did not take a node; called for each refusal while covering. */
typedef void (*kiln_refusal_fn)(void *user, const kiln_node *node, const kiln_kernel *kernel,
                                const char *reason);

/* Covers plan->graph (indexed, inferred) with claims: for each node in order the first kernel of
 * the table that claims it, the reference last. */
kiln_status kiln_cpu_cover(kiln_plan *plan, const kiln_cpu_target *target, kiln_arena *arena,
                           kiln_refusal_fn refused, void *user, kiln_diag *diag);
/* One decision of a stored plan. */
typedef struct kiln_decision {
    const char *kernel;
    const char *tactic; /* name, as of kiln_tactic_name */
    int32_t anchor;     /* node id in plan->graph */
    int32_t n_nodes;    /* of the region: checked */
} kiln_decision;
/* Gives nodes the precision that the kernels of their regions compute in, BF16 and F16: files keep
 * no other trace of it. */
void kiln_cpu_mark(const kiln_graph *graph, const kiln_decision *decisions, size_t n);
/* Claims again what a stored plan decided; KILN_E_ENGINE when a kernel is unknown or claims
 * otherwise. */
kiln_status kiln_cpu_reclaim(kiln_plan *plan, const kiln_cpu_target *target,
                             const kiln_decision *decisions, size_t n, kiln_arena *arena,
                             kiln_diag *diag);

/* "rules", or the name of the way that was asked for. */
const char *kiln_tactic_name(const kiln_claim *claim);
/* One other way to run what a claim runs; the strings are the kernel's own. */
typedef struct kiln_candidate {
    const char *kernel, *tactic;
} kiln_candidate;
/* Finds such ways for the claims of a covered plan, one after the other: what they have in common
 * is made once. Lives in `arena`; plan and target must outlive it. */
typedef struct kiln_finder kiln_finder;
kiln_status kiln_finder_create(kiln_finder **out, const kiln_plan *plan,
                               const kiln_cpu_target *target, kiln_arena *arena);
/* Other ways to run exactly the nodes of claim `at` in the same precision; the list is valid until
 * the next call. KILN_E_MEMORY. */
kiln_status kiln_finder_ways(kiln_finder *finder, size_t at, const kiln_candidate **out, size_t *n);

/* Slots and steps of a covered plan. Fails only when out of memory. */
kiln_status kiln_cpu_compile(kiln_plan *plan, kiln_arena *arena);

/* How weights are packed. */
typedef struct kiln_packing {
    bool measuring;           /* their sizes alone */
    void (*rest)(void *user); /* called after each 16 MiB, to give back what was read; or NULL */
    void *user;
} kiln_packing;
/* Packs the weights of all claims into plan->blobs, those of bodies too. */
kiln_status kiln_cpu_pack(kiln_plan *plan, const kiln_cpu_target *target, const kiln_packing *how,
                          kiln_arena *arena, kiln_diag *diag);

/* Cover and compile at once, for a graph and, first, all bodies in it. */
kiln_status kiln_cpu_plan_graph(kiln_plan **out, const kiln_graph *graph, kiln_plan *parent,
                                const kiln_cpu_target *target, kiln_arena *arena,
                                kiln_refusal_fn refused, void *user, kiln_diag *diag);

#endif
