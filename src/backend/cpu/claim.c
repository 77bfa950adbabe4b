/* claim.c - the registry of kernels and what claims are made with. */
#include <string.h>

#include "backend/cpu/kernel.h"
#include "backend/cpu/prims/gemm.h"
#include "ops/ops.h"

static const kiln_kernel *const table[] = {
#define KILN_KERNEL(id) &kiln_kernel_##id,
#define KILN_FUSION(name)
#include "backend/cpu/kernels.def"
#undef KILN_KERNEL
#undef KILN_FUSION
};

static const char *const fusions[] = {
#define KILN_KERNEL(id)
#define KILN_FUSION(name) #name,
#include "backend/cpu/kernels.def"
#undef KILN_KERNEL
#undef KILN_FUSION
};

const char *kiln_fusion_at(size_t i) {
    return i < KILN_COUNT_OF(fusions) ? fusions[i] : NULL;
}

bool kiln_fusion_exists(const char *name) {
    for (size_t i = 0; i < KILN_COUNT_OF(fusions); i++) {
        if (strcmp(fusions[i], name) == 0) {
            return true;
        }
    }
    return false;
}

size_t kiln_kernel_count(void) {
    return KILN_COUNT_OF(table);
}

const kiln_kernel *kiln_kernel_at(size_t i) {
    return i < KILN_COUNT_OF(table) ? table[i] : NULL;
}

const kiln_kernel *kiln_kernel_find(const char *name) {
    for (size_t i = 0; i < KILN_COUNT_OF(table); i++) {
        if (strcmp(table[i]->name, name) == 0) {
            return table[i];
        }
    }
    return NULL;
}

bool kiln_target_is_off(const kiln_cpu_target *target, const char *name) {
    for (const char *const *off = target->off; off && *off; off++) {
        if (strcmp(*off, name) == 0) {
            return true;
        }
    }
    return false;
}

bool kiln_target_holds_half(const kiln_cpu_target *target) {
    return target->prims->gemm_bf16->step == 2 && !kiln_target_is_off(target, "hold_half");
}

kiln_claim *kiln_claim_new(kiln_claimer *c, const kiln_kernel *kernel, kiln_node *anchor,
                           int32_t n_in, int32_t n_out, size_t params_bytes) {
    kiln_claim *claim = kiln_arena_array(c->arena, 1, sizeof *claim);
    kiln_node **nodes = kiln_arena_array(c->arena, 1, sizeof *nodes);
    kiln_value **in = kiln_arena_array(c->arena, (size_t)n_in, sizeof *in);
    kiln_value **out = kiln_arena_array(c->arena, (size_t)n_out, sizeof *out);
    uint8_t *masks = kiln_arena_array(c->arena, (size_t)(n_in + n_out), 1);
    uint8_t *holds = kiln_arena_array(c->arena, (size_t)(n_in + n_out), 1);
    void *params = kiln_arena_array(c->arena, 1, params_bytes);
    if (!claim || !nodes || !in || !out || !masks || !holds || !params) {
        c->status = KILN_E_MEMORY;
        c->reason = "out of memory";
        return NULL;
    }
    memset(masks, KILN_LAYOUT_ROW, (size_t)(n_in + n_out));
    nodes[0] = anchor;
    for (int32_t i = 0; i < n_out && i < anchor->n_out; i++) {
        out[i] = anchor->out[i];
    }
    *claim = (kiln_claim){.kernel = kernel,
                          .anchor = anchor,
                          .nodes = nodes,
                          .n_nodes = 1,
                          .in = in,
                          .n_in = n_in,
                          .out = out,
                          .n_out = n_out,
                          .in_layouts = masks,
                          .out_layouts = masks + n_in,
                          .in_held = holds,
                          .out_held = holds + n_in,
                          .in_place = -1,
                          .tactic = c->tactic,
                          .params = params};
    return claim;
}

/* A list of n nodes has room for the next power of two, so that a region of n nodes costs n and not
 * n squared to make. What goes in before the last makes a new list: callers may go back to the old
 * one and its count. */
bool kiln_claim_add(kiln_claimer *c, kiln_claim *claim, kiln_node *node) {
    const int32_t n = claim->n_nodes;
    int32_t at = n, cap = 1;
    while (at > 0 && claim->nodes[at - 1]->id >= node->id) {
        at--;
    }
    while (cap < n + 1) {
        cap *= 2;
    }
    if (at < n || cap == 2 * n) {
        kiln_node **nodes = kiln_arena_array(c->arena, (size_t)cap, sizeof *nodes);
        if (!nodes) {
            c->status = KILN_E_MEMORY;
            return false;
        }
        memcpy(nodes, claim->nodes, (size_t)at * sizeof *nodes);
        memcpy(nodes + at + 1, claim->nodes + at, (size_t)(n - at) * sizeof *nodes);
        claim->nodes = nodes;
    }
    claim->nodes[at] = node;
    claim->n_nodes = n + 1;
    return true;
}

int32_t kiln_claim_input(kiln_claimer *c, kiln_claim *claim, kiln_value *value, kiln_layout mask) {
    size_t n = (size_t)claim->n_in;
    kiln_value **in = kiln_arena_array(c->arena, n + 1, sizeof *in);
    uint8_t *masks = kiln_arena_array(c->arena, n + 1, 1);
    uint8_t *holds = kiln_arena_array(c->arena, n + 1, 1);
    if (!in || !masks || !holds) {
        c->status = KILN_E_MEMORY;
        return -1;
    }
    if (n > 0) {
        memcpy(in, claim->in, n * sizeof *in);
        memcpy(masks, claim->in_layouts, n);
        memcpy(holds, claim->in_held, n);
    }
    in[n] = value;
    masks[n] = (uint8_t)mask;
    claim->in = in;
    claim->in_layouts = masks;
    claim->in_held = holds;
    return claim->n_in++;
}

void kiln_claim_hold_alike(kiln_claim *claim) {
    memset(claim->in_held, KILN_HELD_HALF, (size_t)claim->n_in);
    memset(claim->out_held, KILN_HELD_HALF, (size_t)claim->n_out);
    claim->same_held = true;
}

kiln_claim *kiln_claim_refuse(kiln_claimer *c, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    c->reason = kiln_arena_vprintf(c->arena, fmt, args);
    va_end(args);
    if (!c->reason) {
        c->reason = "out of memory";
    }
    return NULL;
}

kiln_node *kiln_claim_next(const kiln_claimer *c, const kiln_value *v) {
    if (v->n_users != 1 || v->n_outputs != 0) {
        return NULL;
    }
    kiln_node *user = v->users[0];
    return user->n_bodies == 0 && v->home == c->graph && c->is_free(c, user) ? user : NULL;
}

kiln_node *kiln_claim_producer(const kiln_claimer *c, const kiln_value *v, const kiln_op *op) {
    kiln_node *n = v ? v->producer : NULL;
    return n && n->op == op && v->n_users == 1 && v->n_outputs == 0 && v->home == c->graph &&
                   c->is_free(c, n)
               ? n
               : NULL;
}

const kiln_tensor *kiln_small_data(const kiln_value *v) {
    const kiln_tensor *t = kiln_value_data(v);
    return t && kiln_tensor_bytes(t) <= KILN_SMALL_BYTES ? t : NULL;
}

bool kiln_value_is_f32_of_any_rank(const kiln_value *v) {
    return v && v->type.kind == KILN_KIND_TENSOR && v->type.dtype == KILN_DTYPE_F32;
}

bool kiln_value_is_f32(const kiln_value *v) {
    return kiln_value_is_f32_of_any_rank(v) && v->type.rank >= 0;
}

void *kiln_pack_blob(kiln_packer *p, size_t bytes, kiln_status *status) {
    kiln_blob *blobs =
        kiln_arena_grow(p->arena, p->blobs, (size_t)p->n_blobs, &p->cap_blobs, sizeof *blobs);
    if (!blobs) {
        *status = KILN_E_MEMORY;
        return NULL;
    }
    p->blobs = blobs;
    kiln_blob *blob = &blobs[p->n_blobs++];
    blob->bytes = bytes;
    blob->data = NULL;
    *status = KILN_OK;
    if (p->measuring) {
        return NULL;
    }
    void *data = kiln_arena_array(p->arena, bytes < 64 ? 64 : bytes, 1);
    if (!data) {
        *status = KILN_E_MEMORY;
    }
    blob->data = data;
    return data;
}

kiln_status kiln_pack_constant(kiln_packer *p, const kiln_value *value, kiln_tensor *out) {
    return kiln_const_eval(value, out, p->scratch, p->diag);
}
