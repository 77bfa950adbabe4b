#include "plan/plan.h"

#include "base/checked.h"

kiln_status kiln_plan_add_body(kiln_plan *plan, kiln_plan *body, kiln_arena *arena) {
    size_t n = plan->n_bodies;
    KILN_PUSH(arena, plan->bodies, plan->n_bodies, plan->cap_bodies, body);
    KILN_PUSH(arena, plan->body_graphs, n, plan->cap_body_graphs, body->graph);
    return KILN_OK;
}

const kiln_plan *kiln_plan_inner(const kiln_plan *plan, size_t *i) {
    for (size_t b = 0; b < plan->n_bodies; b++) {
        const kiln_plan *body = plan->bodies[b];
        if (*i < body->n_steps) {
            return body;
        }
        *i -= body->n_steps;
        body = kiln_plan_inner(body, i);
        if (body) {
            return body;
        }
    }
    return NULL;
}

void kiln_physical_dims(const kiln_tensor *t, kiln_layout layout, int64_t *dims) {
    for (int32_t i = 0; i < t->rank; i++) {
        dims[kiln_physical_axis(i, t->rank, layout)] = t->dims[i];
    }
}

/* Larger first; ties by earlier start, then by index, so that the plan is the same every time. */
static bool goes_before(const kiln_lifetime *items, int32_t a, int32_t b) {
    if (items[a].bytes != items[b].bytes) {
        return items[a].bytes > items[b].bytes;
    }
    if (items[a].first != items[b].first) {
        return items[a].first < items[b].first;
    }
    return a < b;
}

/* Heap sort of the indices by goes_before. */
static void sift(const kiln_lifetime *items, int32_t *order, size_t root, size_t n) {
    for (size_t child = 2 * root + 1; child < n; root = child, child = 2 * root + 1) {
        if (child + 1 < n && goes_before(items, order[child], order[child + 1])) {
            child++;
        }
        if (!goes_before(items, order[root], order[child])) {
            return;
        }
        int32_t t = order[root];
        order[root] = order[child];
        order[child] = t;
    }
}

static void sort_by_size(const kiln_lifetime *items, int32_t *order, size_t n) {
    for (size_t i = n / 2; i-- > 0;) {
        sift(items, order, i, n);
    }
    for (size_t end = n; end-- > 1;) {
        int32_t t = order[0];
        order[0] = order[end];
        order[end] = t;
        sift(items, order, 0, end);
    }
}

/* The lowest offset where item fits among the placed ones (sorted by offset) that live with it,
 * preferring the tightest gap. */
static size_t find_gap(const kiln_lifetime *items, const int32_t *placed, size_t n,
                       const kiln_lifetime *item, size_t bytes) {
    size_t end = 0, best = SIZE_MAX, best_gap = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        const kiln_lifetime *p = &items[placed[i]];
        if (p->last < item->first || item->last < p->first) {
            continue;
        }
        if (p->offset > end && p->offset - end >= bytes && p->offset - end < best_gap) {
            best = end;
            best_gap = p->offset - end;
        }
        size_t p_end = p->offset + ((p->bytes + 63) & ~(size_t)63);
        end = p_end > end ? p_end : end;
    }
    return best != SIZE_MAX ? best : end;
}

kiln_status kiln_plan_memory(size_t *out, kiln_lifetime *items, size_t n, kiln_arena *scratch) {
    int32_t *order, *placed;
    size_t total = 0, n_placed = 0;
    KILN_ALLOC(order, scratch, n);
    KILN_ALLOC(placed, scratch, n);
    for (size_t i = 0; i < n; i++) {
        order[i] = (int32_t)i;
    }
    sort_by_size(items, order, n);
    for (size_t i = 0; i < n; i++) {
        kiln_lifetime *item = &items[order[i]];
        size_t bytes, end;
        if (!kiln_align_size(item->bytes, 64, &bytes)) {
            return KILN_E_MEMORY;
        }
        item->offset = find_gap(items, placed, n_placed, item, bytes);
        if (!kiln_add_size(item->offset, bytes, &end)) {
            return KILN_E_MEMORY;
        }
        total = end > total ? end : total;
        size_t at = n_placed++;
        while (at > 0 && items[placed[at - 1]].offset > item->offset) {
            placed[at] = placed[at - 1];
            at--;
        }
        placed[at] = order[i];
    }
    *out = total;
    return KILN_OK;
}
