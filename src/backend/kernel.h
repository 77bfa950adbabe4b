/* kernel.h - what a kernel is, and what the runner knows of one.
 *
 * backend/cpu/kernels.def lists them, best first; `reference` stands last and claims every single
 * node. A kernel answers four questions:
 *  - claim: would you run the region around this node? It names the nodes it covers (anchor, then
 *    whatever of bias, activation, residual it fuses), the values it reads and writes and the
 *    layouts it takes, or says in words why not. It is a pure function of the graph and the
 *    target, and reads data of small constants only (kiln_small_data): loading an engine claims
 *    again, when large weights exist only in packed form.
 *  - pack: which weights do you want, in which form? Runs at build time; at load time it runs
 *    again in measuring mode to learn the sizes that the file must match.
 *  - bind: at these concrete shapes, what is there to do? Everything run needs, computed once.
 *  - run: do it, as one member of a team. Members split the work by kiln_team_split or by tiles;
 *    the result must not depend on the team's size. The caller puts a barrier after each run.
 *
 * A kernel file holds one `const kiln_kernel kiln_kernel_<name>`, and reaches vector code through
 * the prims of the target's instruction set. */
#ifndef KILN_BACKEND_KERNEL_H
#define KILN_BACKEND_KERNEL_H

#include "base/pool.h"
#include "plan/plan.h"

/* A way that a layer must not run in. */
typedef struct kiln_ban {
    const struct kiln_ban *next; /* of the same anchor */
    const kiln_kernel *kernel;
    int32_t tactic;
    size_t bytes; /* that it needs beside its operands */
    const char *reason;
} kiln_ban;

typedef struct kiln_bans {
    const kiln_graph *graph; /* whose nodes they are of */
    const kiln_ban **of;     /* per node id: anchored there, or NULL */
} kiln_bans;

/* What the builder knows of the machine the engine is for. */
typedef struct kiln_cpu_target {
    uint32_t features;              /* kiln_cpu_features() or less */
    const struct kiln_prims *prims; /* vector code of the chosen rung */
    const char *const *off; /* kernels and fusions switched off by name; NULL-terminated, or NULL */
    const kiln_way *choices; /* of layers; read while covering only */
    size_t n_choices;
    const kiln_bans *bans; /* or NULL */
} kiln_cpu_target;

/* "portable", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16": the rung of the target's
 * vector code. */
const char *kiln_target_isa(const kiln_cpu_target *target);
bool kiln_target_is_off(const kiln_cpu_target *target, const char *name);
/* Whether bfloat16 products read their operand in memory as bfloat16, so that it pays to hold it
 * so (kiln_held). */
bool kiln_target_holds_half(const kiln_cpu_target *target);

typedef struct kiln_claimer {
    kiln_graph *graph;
    const kiln_cpu_target *target;
    kiln_arena *arena;  /* claim, params and lists live here */
    const char *reason; /* set when claim returns false: why not, in words */
    int32_t tactic;     /* the way that is asked for: a claim for another one is refused */
    /* True for nodes that are free to take (not yet in another region). */
    bool (*is_free)(const struct kiln_claimer *self, const kiln_node *node);
    const void *cover;
    kiln_status status; /* KILN_E_MEMORY when an allocation failed */
} kiln_claimer;

typedef struct kiln_packer {
    const kiln_claim *claim;
    const kiln_cpu_target *target;
    bool measuring;
    kiln_arena *arena;   /* the blobs (not when measuring) */
    kiln_arena *scratch; /* unpacked constants */
    kiln_diag *diag;
    kiln_blob *blobs;
    int32_t n_blobs;
    size_t cap_blobs;
} kiln_packer;

/* One operand at bind time: concrete logical dims (ONNX order; data is NULL unless it is a
 * constant or its contents are known), the layout it lies in, and as its dtype what its elements
 * are held in: BF16 for a float32 value where the claim allows that (kiln_held). */
typedef struct kiln_operand {
    kiln_tensor tensor;
    kiln_layout layout;
} kiln_operand;

typedef struct kiln_binder {
    const kiln_claim *claim;
    const kiln_cpu_target *target;
    const kiln_operand *in, *out;
    const kiln_blob *blobs;
    /* The concrete fact of any value of the region, inner ones too; NULL: out of memory. */
    const kiln_fact *(*fact)(const struct kiln_binder *self, const kiln_value *value);
    const void *facts;
    kiln_arena *arena; /* state lives here */
    kiln_diag *diag;
    /* Results: */
    void *state;          /* read-only while running */
    size_t scratch_bytes; /* per team member, aligned to 64 */
    size_t shared_bytes;  /* one buffer for the whole team */
    uint64_t way; /* what rules and tactic come to at these sizes: bindings of one kernel with equal
                   * numbers run alike; 0: not known */
} kiln_binder;

/* Bytes that need not move: where each output would lie within input 0, or each input within
 * output 0. */
typedef struct kiln_parts {
    bool of_output; /* the parts are the inputs */
    int64_t *at;    /* first byte of each part; -1 (as it comes): it must be moved */
} kiln_parts;

/* What the few kernels that can fail, or need memory of no fixed size, use while they run (member 0
 * only). */
typedef struct kiln_run_env {
    kiln_status status; /* not KILN_OK: the run ends after this step */
    kiln_diag *diag;
    kiln_arena *arena; /* emptied after the step */
    uint64_t seed;
    const atomic_int *cancelled; /* not 0: the run is to end */
} kiln_run_env;

typedef struct kiln_call {
    const kiln_kernel *kernel;
    kiln_run_env *env;
    const void *state;
    void *const *in; /* operands' addresses, as the claim lists them */
    void *const *out;
    const kiln_blob *blobs;
    char *scratch; /* member r's part begins at r * scratch_bytes */
    size_t scratch_bytes;
    void *shared;
} kiln_call;

/* Who helps a step that only the data can size. */
typedef struct kiln_late {
    const kiln_cpu_target *target;
    kiln_pool *pool; /* with at most `threads` of it, as kiln_pool_run takes them */
    int32_t threads;
} kiln_late;

struct kiln_kernel {
    const char *name;
    /* Returns the claim, or NULL with c->reason set. */
    kiln_claim *(*claim)(kiln_claimer *c, kiln_node *node);
    /* Ways to run a region that differ in speed, and in a declared error at most; the likeliest
     * first, NULL-terminated. Way i is tactic i + 1 of claims; 0 leaves it to rules. NULL: no
     * choice. */
    const char *const *tactics;
    kiln_status (*pack)(kiln_packer *p); /* NULL: no weights */
    /* Asked before bind, for a kernel that only moves bytes about; NULL: it does more. What the
     * runner places so, the kernel finds at one address and leaves alone. */
    kiln_status (*parts)(kiln_binder *b, kiln_parts *parts);
    kiln_status (*bind)(kiln_binder *b);
    void (*run)(const kiln_call *call, const kiln_team *team);
    /* For regions of one node whose outputs may be sized by data: does where they are what
     * kiln_op.ref does, called by one thread that may run a team of its own. NULL: such steps run
     * by the reference. */
    kiln_status (*late)(kiln_ref *c, const kiln_late *by);
    /* What the operands of its products are held in: I8, BF16, F16; NONE: what the graph says. A
     * kernel of BF16 or F16 claims only nodes whose precision is that. */
    kiln_dtype computes;
    /* Kernels of narrow numbers: their own arithmetic in plain C, which run equals bit for bit
     * where it computes by integers, and but for the rounding of float32 sums where not. `in` are
     * the claim's inputs as data in ONNX's order (constants among them may be left out), out its
     * outputs, made in arena. NULL: the operators' references say what the region computes. */
    kiln_status (*reference)(const kiln_claim *claim, const kiln_datum *in, kiln_datum *out,
                             kiln_arena *arena, kiln_diag *diag);
    /* Not 0: it reaches its results by a shorter way than the operators' definitions, and they are
     * off by at most this much of their norm, the square root of the sum of squares, on data of
     * random signs. It is never chosen where KILN_FUSION(approximate) is off (`--exact`). */
    float norm_error;
    /* Its packed weights are larger than the layer's by more than padding. It is never chosen where
     * KILN_FUSION(expanded_weights) is off (`--goal memory`). */
    bool expands_weights;
};

/* Fusions that can be switched off by name apart from kernels: those of kernels.def's
 * KILN_FUSION. Name i, or NULL past the end. */
const char *kiln_fusion_at(size_t i);
bool kiln_fusion_exists(const char *name);

const kiln_kernel *kiln_kernel_find(const char *name);
const kiln_kernel *kiln_kernel_at(size_t i);
size_t kiln_kernel_count(void);

/* ---- For claims ---- */

/* A claim with the anchor as its only node and room for the given operands, masks all ROW. NULL
 * when out of memory (c->status is set). */
kiln_claim *kiln_claim_new(kiln_claimer *c, const kiln_kernel *kernel, kiln_node *anchor,
                           int32_t n_in, int32_t n_out, size_t params_bytes);
/* Adds a node to the region (kept in topological order). */
bool kiln_claim_add(kiln_claimer *c, kiln_claim *claim, kiln_node *node);
/* Adds an operand to the end of the inputs; returns its number or -1. */
int32_t kiln_claim_input(kiln_claimer *c, kiln_claim *claim, kiln_value *value, kiln_layout mask);
/* The claim moves the elements of the inputs it has so far: it takes them and its outputs in any
 * type, all in the same. */
void kiln_claim_hold_alike(kiln_claim *claim);
/* Sets c->reason (formatted into the arena) and returns NULL. */
kiln_claim *kiln_claim_refuse(kiln_claimer *c, const char *fmt, ...) KILN_PRINTF(2, 3);
/* The one node that uses v and may be taken along, if v has exactly one use, is no graph output and
 * that node is free; else NULL. */
kiln_node *kiln_claim_next(const kiln_claimer *c, const kiln_value *v);
/* Node that makes v if it is `op`, v has no other reader and the node may be taken along; or NULL.
 */
kiln_node *kiln_claim_producer(const kiln_claimer *c, const kiln_value *v, const kiln_op *op);
/* Data of a constant of at most KILN_SMALL_BYTES bytes, or NULL. */
enum { KILN_SMALL_BYTES = 4096 };
const kiln_tensor *kiln_small_data(const kiln_value *v);
/* True when the value is a float32 tensor of known rank. */
bool kiln_value_is_f32(const kiln_value *v);
/* Likewise where the operator itself fixes the rank: an operand whose rank inference does not find
 * (behind an If with branches of other ranks) is held to it when the step is bound. */
bool kiln_value_is_f32_of_any_rank(const kiln_value *v);
/* Node's operator is kiln_op_<id>. */
#define KILN_IS(node, id) ((node)->op == &kiln_op_##id)

/* ---- For pack ---- */

/* The next blob, zeroed; NULL while measuring or when out of memory (p->blobs then has its size).
 */
void *kiln_pack_blob(kiln_packer *p, size_t bytes, kiln_status *status);
/* A constant's data in scratch (never while measuring). */
kiln_status kiln_pack_constant(kiln_packer *p, const kiln_value *value, kiln_tensor *out);

#endif
