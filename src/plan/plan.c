#include "plan/plan.h"

#include <string.h>

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

/* ---- Sorting indices ---- */

typedef bool (*order_fn)(const kiln_lifetime *items, int32_t a, int32_t b);

/* Larger first; ties by earlier start, then by index, so that the plan is the same every time. */
static bool larger(const kiln_lifetime *items, int32_t a, int32_t b) {
    if (items[a].bytes != items[b].bytes) {
        return items[a].bytes > items[b].bytes;
    }
    if (items[a].first != items[b].first) {
        return items[a].first < items[b].first;
    }
    return a < b;
}

static bool lower(const kiln_lifetime *items, int32_t a, int32_t b) {
    return items[a].offset != items[b].offset ? items[a].offset < items[b].offset : a < b;
}

/* Heap sort. */
static void sift(const kiln_lifetime *items, int32_t *order, size_t root, size_t n,
                 order_fn before) {
    for (size_t child = 2 * root + 1; child < n; root = child, child = 2 * root + 1) {
        if (child + 1 < n && before(items, order[child], order[child + 1])) {
            child++;
        }
        if (!before(items, order[root], order[child])) {
            return;
        }
        int32_t t = order[root];
        order[root] = order[child];
        order[child] = t;
    }
}

static void sort(const kiln_lifetime *items, int32_t *order, size_t n, order_fn before) {
    for (size_t i = n / 2; i-- > 0;) {
        sift(items, order, i, n, before);
    }
    for (size_t end = n; end-- > 1;) {
        int32_t t = order[0];
        order[0] = order[end];
        order[end] = t;
        sift(items, order, 0, end, before);
    }
}

/* ---- Which placed buffers live with a new one ---- */

/* Placed buffers by the time they live. Node i of the tree stands for a stretch of steps (the
 * root is 1, the leaves begin at `leaves`); a buffer is listed at the few nodes that its life
 * is made of, so that those alive at a step stand between its leaf and the root, once each; and
 * at the step at which it begins. */
typedef struct entry {
    int32_t item, next;
} entry;

typedef struct timeline {
    kiln_lifetime *items;
    size_t leaves;
    int32_t *nodes, *begins; /* first entry of each, or -1 */
    entry *entries;
    size_t n_entries, cap_entries;
    int32_t *found; /* those that live with one */
    size_t n_found;
    int32_t crowded; /* items to come that most live with, it seems */
    int32_t *placed; /* all: those sorted by offset, then the rest */
    size_t n_placed, n_sorted;
    kiln_arena *arena;
} timeline;

static kiln_status open_timeline(timeline *t, kiln_lifetime *items, size_t n, kiln_arena *arena) {
    int32_t last = 0;
    *t = (timeline){.items = items, .leaves = 1, .arena = arena};
    for (size_t i = 0; i < n; i++) {
        last = items[i].last > last ? items[i].last : last;
    }
    while (t->leaves <= (size_t)last) {
        t->leaves *= 2;
    }
    KILN_ALLOC(t->nodes, arena, 2 * t->leaves);
    KILN_ALLOC(t->begins, arena, t->leaves);
    KILN_ALLOC(t->found, arena, n);
    KILN_ALLOC(t->placed, arena, n);
    memset(t->nodes, -1, 2 * t->leaves * sizeof *t->nodes);
    memset(t->begins, -1, t->leaves * sizeof *t->begins);
    return KILN_OK;
}

static kiln_status list_at(timeline *t, int32_t *head, int32_t item) {
    const entry e = {item, *head};
    *head = (int32_t)t->n_entries;
    KILN_PUSH(t->arena, t->entries, t->n_entries, t->cap_entries, e);
    return KILN_OK;
}

static kiln_status add_placed(timeline *t, int32_t item) {
    const kiln_lifetime *x = &t->items[item];
    size_t low = t->leaves + (size_t)x->first, high = t->leaves + (size_t)x->last + 1;
    t->placed[t->n_placed++] = item;
    KILN_TRY(list_at(t, &t->begins[x->first], item));
    for (; low < high; low /= 2, high /= 2) {
        if (low & 1) {
            KILN_TRY(list_at(t, &t->nodes[low++], item));
        }
        if (high & 1) {
            KILN_TRY(list_at(t, &t->nodes[--high], item));
        }
    }
    return KILN_OK;
}

static bool find_list(timeline *t, int32_t at, size_t most) {
    for (; at >= 0 && t->n_found < most; at = t->entries[at].next) {
        t->found[t->n_found++] = t->entries[at].item;
    }
    return at < 0;
}

/* Those alive at its first step, and those that begin later in its life; false: there are more. */
static bool find_alive(timeline *t, const kiln_lifetime *item, size_t most) {
    bool all = true;
    t->n_found = 0;
    for (size_t node = t->leaves + (size_t)item->first; node > 0 && all; node /= 2) {
        all = find_list(t, t->nodes[node], most);
    }
    for (int32_t step = item->first + 1; step <= item->last && all; step++) {
        all = find_list(t, t->begins[step], most);
    }
    return all;
}

static void insert_placed(timeline *t, int32_t item) {
    size_t low = 0, high = t->n_sorted;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (lower(t->items, t->placed[middle], item)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    memmove(t->placed + low + 1, t->placed + low, (t->n_sorted - low) * sizeof *t->placed);
    t->placed[low] = item;
    t->n_sorted++;
}

/* Sorts all that are placed: those since the last time one by one, or all when they are many. */
static void sort_placed(timeline *t) {
    if (t->n_placed - t->n_sorted > t->n_placed / 8) {
        sort(t->items, t->placed, t->n_placed, lower);
        t->n_sorted = t->n_placed;
    }
    while (t->n_sorted < t->n_placed) {
        insert_placed(t, t->placed[t->n_sorted]);
    }
}

/* A list of placed buffers by offset that has all that live with the item. Where those are many
 * it costs less to keep a list of all sorted than to sort them; once that was so, it is not
 * asked again for a while. */
static size_t find_by_offset(timeline *t, const kiln_lifetime *item, const int32_t **out) {
    enum { SORTING = 16, A_WHILE = 16 }; /* sorting one costs so many times the looking at one */
    if (t->crowded == 0 && find_alive(t, item, t->n_placed / SORTING + 1)) {
        sort(t->items, t->found, t->n_found, lower);
        *out = t->found;
        return t->n_found;
    }
    t->crowded = t->crowded > 0 ? t->crowded - 1 : A_WHILE;
    sort_placed(t);
    *out = t->placed;
    return t->n_placed;
}

/* The lowest offset where the item fits among the placed ones that live with it, preferring the
 * tightest gap. */
static size_t find_gap(timeline *t, const kiln_lifetime *item, size_t bytes) {
    const int32_t *placed;
    const size_t n = find_by_offset(t, item, &placed);
    size_t end = 0, best = SIZE_MAX, best_gap = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        const kiln_lifetime *p = &t->items[placed[i]];
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
    int32_t *order;
    size_t total = 0;
    timeline t;
    KILN_ALLOC(order, scratch, n);
    KILN_TRY(open_timeline(&t, items, n, scratch));
    for (size_t i = 0; i < n; i++) {
        order[i] = (int32_t)i;
    }
    sort(items, order, n, larger);
    for (size_t i = 0; i < n; i++) {
        kiln_lifetime *item = &items[order[i]];
        size_t bytes, end;
        if (!kiln_align_size(item->bytes, 64, &bytes)) {
            return KILN_E_MEMORY;
        }
        item->offset = find_gap(&t, item, bytes);
        if (!kiln_add_size(item->offset, bytes, &end)) {
            return KILN_E_MEMORY;
        }
        total = end > total ? end : total;
        KILN_TRY(add_placed(&t, order[i]));
    }
    *out = total;
    return KILN_OK;
}
