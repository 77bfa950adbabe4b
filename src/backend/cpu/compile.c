/* compile.c - from a cover to a plan: one layout per operand, conversions where they differ; which
 * values are held in bfloat16 (hold.h). */
#include <string.h>

#include "backend/cpu/hold.h"
#include "backend/cpu/kernel.h"

typedef struct compiler {
    kiln_plan *plan;
    kiln_arena *arena;
    /* Per value id: its slot in each layout, or -1; index 0 ROW, 1 LAST. */
    int32_t (*slots)[2];
    const bool *half; /* per value id: held in bfloat16 */
} compiler;

static int32_t rank_of(const kiln_value *v) {
    return v->type.kind == KILN_KIND_TENSOR ? v->type.rank : KILN_RANK_UNKNOWN;
}

/* LAST is another order of bytes only from rank 3 on. */
static kiln_layout normal(const kiln_value *v, kiln_layout layout) {
    return rank_of(v) >= 3 ? layout : KILN_LAYOUT_ROW;
}

static int32_t layout_index(kiln_layout layout) {
    return layout == KILN_LAYOUT_LAST;
}

static kiln_status new_slot(compiler *c, kiln_value *v, kiln_layout layout, int32_t alias_of,
                            int32_t *out) {
    kiln_plan *p = c->plan;
    kiln_slot slot = {.value = v, .layout = layout, .half = c->half[v->id], .alias_of = alias_of};
    KILN_PUSH(p->graph->arena, p->slots, p->n_slots, p->cap_slots, slot);
    *out = (int32_t)p->n_slots - 1;
    c->slots[v->id][layout_index(layout)] = *out;
    return KILN_OK;
}

/* Both layouts hold the same bytes when the channels or all the other dims are one. */
static bool same_bytes(const kiln_value *v) {
    bool spatial = true;
    for (int32_t d = 2; d < v->type.rank; d++) {
        spatial = spatial && v->type.dims[d] == 1;
    }
    return spatial || v->type.dims[1] == 1;
}

static kiln_status add_step(compiler *c, const kiln_claim *claim, int32_t index, int32_t *in,
                            int32_t *out) {
    kiln_plan *p = c->plan;
    kiln_step step = {.claim = claim, .in = in, .out = out, .claim_index = index};
    KILN_PUSH(p->graph->arena, p->steps, p->n_steps, p->cap_steps, step);
    return KILN_OK;
}

static kiln_status convert(compiler *c, kiln_value *v, int32_t from, kiln_layout to, int32_t *out) {
    if (same_bytes(v)) {
        return new_slot(c, v, to, from, out);
    }
    kiln_claim *claim;
    kiln_value **operands;
    uint8_t *masks;
    int32_t *slots;
    KILN_ALLOC(claim, c->arena, 1);
    KILN_ALLOC(operands, c->arena, 2);
    KILN_ALLOC(masks, c->arena, 2);
    KILN_ALLOC(slots, c->arena, 2);
    operands[0] = operands[1] = v;
    masks[0] = (uint8_t)c->plan->slots[from].layout;
    masks[1] = (uint8_t)to;
    *claim = (kiln_claim){.kernel = &kiln_kernel_convert,
                          .anchor = v->producer,
                          .in = operands,
                          .n_in = 1,
                          .out = operands + 1,
                          .n_out = 1,
                          .in_layouts = masks,
                          .out_layouts = masks + 1,
                          .in_place = -1};
    slots[0] = from;
    KILN_TRY(new_slot(c, v, to, -1, &slots[1]));
    *out = slots[1];
    return add_step(c, claim, -1, &slots[0], &slots[1]);
}

/* The slot of v in this layout, made by a conversion if need be. */
static kiln_status slot_in(compiler *c, kiln_value *v, kiln_layout layout, int32_t *out) {
    layout = normal(v, layout);
    int32_t have = c->slots[v->id][layout_index(layout)];
    if (have >= 0) {
        *out = have;
        return KILN_OK;
    }
    int32_t other = c->slots[v->id][!layout_index(layout)];
    if (other < 0) {
        /* A constant or an outer value: it comes in ROW, and is converted like any other. */
        KILN_TRY(new_slot(c, v, KILN_LAYOUT_ROW, -1, &other));
        if (layout == KILN_LAYOUT_ROW) {
            *out = other;
            return KILN_OK;
        }
    }
    return convert(c, v, other, layout, out);
}

/* The layout that the claim's free operands get: the one most of its large inputs are already in.
 */
static kiln_layout choose_layout(const compiler *c, const kiln_claim *claim) {
    int32_t votes = 0;
    for (int32_t i = 0; i < claim->n_in; i++) {
        const kiln_value *v = claim->in[i];
        if (!v || claim->in_layouts[i] != KILN_LAYOUT_ANY || rank_of(v) < 3) {
            continue;
        }
        bool row = c->slots[v->id][0] >= 0, last = c->slots[v->id][1] >= 0;
        votes += last ? 2 : row ? -1 : 0;
    }
    return votes > 0 ? KILN_LAYOUT_LAST : KILN_LAYOUT_ROW;
}

static kiln_layout resolve(uint8_t mask, kiln_layout chosen) {
    return mask == KILN_LAYOUT_ANY ? chosen : (kiln_layout)mask;
}

static kiln_status compile_claim(compiler *c, int32_t index) {
    const kiln_claim *claim = c->plan->claims[index];
    kiln_layout chosen = choose_layout(c, claim);
    int32_t *in, *out;
    KILN_ALLOC(in, c->arena, claim->n_in);
    KILN_ALLOC(out, c->arena, claim->n_out);
    for (int32_t i = 0; i < claim->n_in; i++) {
        in[i] = -1;
        if (claim->in[i]) {
            KILN_TRY(slot_in(c, claim->in[i], resolve(claim->in_layouts[i], chosen), &in[i]));
        }
    }
    for (int32_t i = 0; i < claim->n_out; i++) {
        kiln_layout layout = normal(claim->out[i], resolve(claim->out_layouts[i], chosen));
        int32_t alias = claim->alias && i == 0 ? in[0] : -1;
        KILN_TRY(new_slot(c, claim->out[i], layout, alias, &out[i]));
    }
    return add_step(c, claim, index, in, out);
}

static kiln_status row_slots(compiler *c, kiln_value **values, size_t n, int32_t **out) {
    KILN_ALLOC(*out, c->arena, n);
    for (size_t i = 0; i < n; i++) {
        KILN_TRY(slot_in(c, values[i], KILN_LAYOUT_ROW, &(*out)[i]));
    }
    return KILN_OK;
}

static int32_t last_node(const kiln_claim *claim) {
    return claim->nodes[claim->n_nodes - 1]->id;
}

/* Claims in the order of their last nodes: every value a region reads is then made before it. */
static void sort_claims(kiln_plan *plan, kiln_claim **by_last) {
    size_t n = 0;
    for (size_t i = 0; i < plan->graph->n_nodes; i++) {
        if (by_last[i]) {
            plan->claims[n++] = by_last[i];
        }
    }
}

kiln_status kiln_cpu_compile(kiln_plan *plan, kiln_arena *arena) {
    compiler c = {.plan = plan, .arena = arena};
    const kiln_graph *root = plan->graph;
    while (root->parent) {
        root = root->parent;
    }
    kiln_claim **by_last;
    KILN_ALLOC(by_last, arena, plan->graph->n_nodes);
    for (size_t i = 0; i < plan->n_claims; i++) {
        by_last[last_node(plan->claims[i])] = plan->claims[i];
    }
    sort_claims(plan, by_last);
    KILN_ALLOC(c.slots, arena, root->n_values);
    memset(c.slots, -1, (size_t)root->n_values * sizeof *c.slots);
    bool *half;
    KILN_TRY(kiln_cpu_hold(plan, (size_t)root->n_values, &half, arena));
    c.half = half;
    KILN_TRY(row_slots(&c, plan->graph->inputs, plan->graph->n_inputs, &plan->input_slots));
    KILN_TRY(row_slots(&c, plan->graph->captures, plan->graph->n_captures, &plan->capture_slots));
    for (size_t i = 0; i < plan->n_claims; i++) {
        KILN_TRY(compile_claim(&c, (int32_t)i));
    }
    return row_slots(&c, plan->graph->outputs, plan->graph->n_outputs, &plan->output_slots);
}
