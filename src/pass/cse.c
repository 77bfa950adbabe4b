/* cse.c - nodes that compute the same from the same become one, and so do equal small constants. */
#include <string.h>

#include "base/hash.h"
#include "pass/match.h"

/* Constants up to this size are compared by their bytes. */
enum { SMALL_BYTES = 256 };

typedef struct entry {
    uint64_t hash;
    const void *item; /* a node or a constant value */
} entry;

typedef struct table {
    entry *entries;
    size_t mask;
} table;

static uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ (h >> 32);
}

/* ---- Nodes ---- */

static bool may_merge(const kiln_node *n) {
    return !(n->op->flags & KILN_OP_RANDOM) && n->n_bodies == 0 && n->n_out > 0;
}

static uint64_t hash_node(const kiln_patch *p, const kiln_node *n) {
    uint64_t h = mix((uint64_t)(uintptr_t)n->op, (uint64_t)n->n_in);
    for (int32_t k = 0; k < n->n_in; k++) {
        h = mix(h, n->in[k] ? (uint64_t)kiln_patch_now(p, n->in[k])->id + 1 : 0);
    }
    for (uint16_t i = 0; i < n->op->n_attrs; i++) {
        size_t bytes;
        const void *c = kiln_attr_content(&n->op->attrs[i], n->attrs, &bytes);
        h = mix(h, bytes ? kiln_hash_64(c, bytes) : 0);
    }
    return h;
}

static bool same_node(const kiln_patch *p, const kiln_node *a, const kiln_node *b) {
    if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out ||
        a->precision.dtype != b->precision.dtype || a->precision.obey != b->precision.obey) {
        return false;
    }
    for (int32_t k = 0; k < a->n_in; k++) {
        if (!a->in[k] != !b->in[k] ||
            (a->in[k] && kiln_patch_now(p, a->in[k]) != kiln_patch_now(p, b->in[k]))) {
            return false;
        }
    }
    return kiln_same_attrs(a, b);
}

static kiln_status merge_node(kiln_patch *p, table *t, const kiln_node *n) {
    uint64_t h = hash_node(p, n);
    size_t s = h & t->mask;
    for (; t->entries[s].item; s = (s + 1) & t->mask) {
        const kiln_node *first = t->entries[s].item;
        if (t->entries[s].hash == h && same_node(p, first, n)) {
            for (int32_t k = 0; k < n->n_out; k++) {
                kiln_patch_replace(p, n->out[k], first->out[k]);
            }
            return kiln_patch_commit(p, "computed already");
        }
    }
    t->entries[s] = (entry){h, n};
    return KILN_OK;
}

/* ---- Constants ---- */

static bool same_constant(const kiln_tensor *a, const kiln_tensor *b) {
    size_t bytes = kiln_tensor_bytes(a);
    return a->dtype == b->dtype && a->rank == b->rank && kiln_tensor_bytes(b) == bytes &&
           memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0 &&
           (bytes == 0 || memcmp(a->data, b->data, bytes) == 0);
}

static kiln_status merge_constant(kiln_patch *p, table *t, const kiln_value *v) {
    const kiln_tensor *c = kiln_value_data(v);
    size_t bytes = c ? kiln_tensor_bytes(c) : SIZE_MAX;
    if (bytes > SMALL_BYTES || c->dtype == KILN_DTYPE_STRING || kiln_patch_now(p, v) != v) {
        return KILN_OK;
    }
    uint64_t h = mix(mix(kiln_hash_64(c->data, bytes), (uint64_t)c->dtype), (uint64_t)c->rank);
    size_t s = h & t->mask;
    for (; t->entries[s].item; s = (s + 1) & t->mask) {
        const kiln_value *first = t->entries[s].item;
        if (first == v) {
            return KILN_OK;
        }
        if (t->entries[s].hash == h && same_constant(kiln_value_data(first), c)) {
            kiln_patch_replace(p, v, (kiln_value *)first);
            return kiln_patch_commit(p, "equal constants");
        }
    }
    t->entries[s] = (entry){h, v};
    return KILN_OK;
}

static kiln_status make_table(kiln_patch *p, table *t, size_t items) {
    size_t n = 16;
    while (n < items * 2) {
        n *= 2;
    }
    t->mask = n - 1;
    KILN_ALLOC(t->entries, p->arena, n);
    return KILN_OK;
}

static kiln_status scan(kiln_patch *p, const kiln_graph *g) {
    table nodes, constants;
    size_t n_inputs = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        n_inputs += (size_t)g->nodes[i]->n_in;
    }
    KILN_TRY(make_table(p, &constants, n_inputs));
    KILN_TRY(make_table(p, &nodes, g->n_nodes));
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        for (int32_t k = 0; k < n->n_in; k++) {
            if (kiln_value_is_const(n->in[k])) {
                KILN_TRY(merge_constant(p, &constants, n->in[k]));
            }
        }
        if (may_merge(n)) {
            KILN_TRY(merge_node(p, &nodes, n));
        }
    }
    return KILN_OK;
}

const kiln_pass kiln_pass_cse = {.name = "cse", .scan = scan};
