/* plan.h - what runs, in which order, on which buffers: pure data.
 *
 * The builder covers a graph with regions; a claim ties one region to the kernel that runs it. The
 * backend compiles the chosen claims into a plan: steps in execution order over slots. A slot is
 * one value in one physical layout; the same value may live in two layouts, a conversion step
 * between them. Nothing here is a size in bytes: those follow when a plan is bound to concrete
 * shapes.
 *
 * Plans are not stored in engine files. A file stores the graph, the packed weights and, per
 * region, (kernel, anchor node): loading claims again and checks the result against what is
 * stored, so that no offset or parameter of a file is ever trusted. */
#ifndef KILN_PLAN_PLAN_H
#define KILN_PLAN_PLAN_H

#include "ir/graph.h"

/* How a tensor's dims lie in memory. ROW: ONNX's order, row-major. LAST: dim 1 (channels) moved
 * to the end, N D H W C for images; only for rank 3 and above. Used as bit masks too. */
typedef enum kiln_layout {
    KILN_LAYOUT_ROW = 1,
    KILN_LAYOUT_LAST = 2,
    KILN_LAYOUT_ANY = 3,
} kiln_layout;

/* How a claim takes an operand of float32 that is held in bfloat16 instead, in the same order. */
typedef enum kiln_held {
    KILN_HELD_FULL = 0,   /* not at all */
    KILN_HELD_HALF = 1,   /* it reads or writes either */
    KILN_HELD_ROUNDS = 3, /* either, and as a bfloat16 product: its operand, or its result */
} kiln_held;

typedef struct kiln_kernel kiln_kernel;

/* A region of the graph and the kernel that runs it. */
typedef struct kiln_claim {
    const kiln_kernel *kernel;
    kiln_node *anchor;
    kiln_node **nodes; /* the region's body, topological, anchor included */
    int32_t n_nodes;
    kiln_value **in; /* values read at run time, in the kernel's order; constants among them too */
    int32_t n_in;
    kiln_value **out; /* values other regions or the graph's outputs read */
    int32_t n_out;
    uint8_t *in_layouts; /* masks of kiln_layout, n_in and n_out of them */
    uint8_t *out_layouts;
    uint8_t *in_held; /* kiln_held of each; all FULL at first */
    uint8_t *out_held;
    bool same_held;   /* it moves bytes: all operands that are not FULL are held alike */
    bool same_layout; /* operands whose mask is ANY must all get the same layout */
    bool alias;       /* out 0 has the bytes of in 0: no work, no buffer */
    int32_t in_place; /* input whose buffer out 0 may take over when it is dead; -1: none */
    int32_t tactic;   /* 0: the kernel's rules decide; else its list's item tactic - 1 */
    void *params;     /* the kernel's own, from its claim */
} kiln_claim;

/* Packed weights of one claim. */
typedef struct kiln_blob {
    const void *data; /* aligned to 64 */
    size_t bytes;
} kiln_blob;

typedef struct kiln_slot {
    kiln_value *value;
    kiln_layout layout;
    bool half;        /* a float32 value held in bfloat16: all slots of the value are */
    int32_t alias_of; /* slot with the same bytes, or -1 */
} kiln_slot;

/* What the elements of the slot of a value of `dtype` are held in. */
static inline kiln_dtype kiln_slot_dtype(const kiln_slot *slot, kiln_dtype dtype) {
    return slot->half ? KILN_DTYPE_BF16 : dtype;
}

typedef struct kiln_step {
    const kiln_claim *claim;
    int32_t *in; /* slots, claim->n_in and n_out of them */
    int32_t *out;
    int32_t claim_index; /* in the plan's claims; -1 for a conversion */
} kiln_step;

typedef struct kiln_plan kiln_plan;
struct kiln_plan {
    const kiln_graph *graph;
    kiln_plan *parent;   /* of a body's plan */
    kiln_claim **claims; /* the cover, as it was made; once compiled, in the order of last nodes */
    size_t n_claims, cap_claims;
    kiln_blob **blobs; /* per claim: kernel's blobs (weights), NULL when it has none */
    int32_t *n_blobs;
    kiln_slot *slots;
    size_t n_slots, cap_slots;
    kiln_step *steps;
    size_t n_steps, cap_steps;
    int32_t *input_slots;   /* per graph input, layout ROW */
    int32_t *output_slots;  /* per graph output, layout ROW */
    int32_t *capture_slots; /* per graph capture, layout ROW */
    kiln_plan **bodies;     /* plans of body graphs, in order of claims and their nodes' bodies */
    const kiln_graph **body_graphs;
    size_t n_bodies, cap_bodies, cap_body_graphs;
};

/* Registers the plan of a body graph. */
kiln_status kiln_plan_add_body(kiln_plan *plan, kiln_plan *body, kiln_arena *arena);
/* Steps of the bodies are numbered one after the other, body by body, each before those within it.
 * The plan of the body that step *i belongs to, *i becoming its number there; NULL past the end. */
const kiln_plan *kiln_plan_inner(const kiln_plan *plan, size_t *i);
/* Dims of a tensor in the order they lie in memory. */
void kiln_physical_dims(const kiln_tensor *t, kiln_layout layout, int64_t *dims);
/* Where ONNX's axis lies in memory. */
static inline int32_t kiln_physical_axis(int32_t axis, int32_t rank, kiln_layout layout) {
    if (layout == KILN_LAYOUT_ROW || axis == 0 || rank < 3) {
        return axis;
    }
    return axis == 1 ? rank - 1 : axis - 1;
}

/* ---- Memory plan ---- */

/* One buffer: alive from step `first` to step `last`, both included. */
typedef struct kiln_lifetime {
    size_t bytes;
    int32_t first, last;
    size_t offset; /* result, aligned to 64 */
} kiln_lifetime;

/* Places buffers so that no two that live at once overlap; returns the bytes needed in total
 * through `out`. Largest first, each at the lowest fitting offset (best fit among gaps). */
kiln_status kiln_plan_memory(size_t *out, kiln_lifetime *items, size_t n, kiln_arena *scratch);

#endif
