#include "flow/ways.h"

#include <stdlib.h>
#include <string.h>

#include "ir/text.h"

/* A step with ways. */
typedef struct found {
    size_t step;
    int64_t macs;
} found;

typedef struct lister {
    const kiln_engine *engine;
    const kiln_text *place;
    size_t most_ways;
    kiln_arena *arena;
    kiln_finder *finder;
    found *steps;
    size_t n_steps, cap_steps;
} lister;

/* ---- Which layers ---- */

static int by_work(const void *a, const void *b) {
    const found *x = a, *y = b;
    return x->macs != y->macs  ? (x->macs > y->macs ? -1 : 1)
           : x->step < y->step ? -1
                               : x->step > y->step;
}

static int by_step(const void *a, const void *b) {
    const found *x = a, *y = b;
    return x->step < y->step ? -1 : x->step > y->step;
}

static kiln_status find_steps(lister *l) {
    const kiln_plan *plan = l->engine->plan;
    for (size_t s = 0; s < plan->n_steps; s++) {
        const kiln_step *step = &plan->steps[s];
        const kiln_candidate *ways;
        size_t n;
        if (step->claim_index < 0 || step->claim->n_out == 0 || step->claim->alias) {
            continue;
        }
        KILN_TRY(kiln_finder_ways(l->finder, (size_t)step->claim_index, &ways, &n));
        if (n > 0) {
            const found f = {s, l->engine->layers[s].macs};
            KILN_PUSH(l->arena, l->steps, l->n_steps, l->cap_steps, f);
        }
    }
    return KILN_OK;
}

static void keep_largest(lister *l) {
    if (l->n_steps > KILN_MOST_TIMED_LAYERS) {
        qsort(l->steps, l->n_steps, sizeof *l->steps, by_work);
        l->n_steps = KILN_MOST_TIMED_LAYERS;
        qsort(l->steps, l->n_steps, sizeof *l->steps, by_step);
    }
}

/* ---- Keys ---- */

static void put_layouts(kiln_text *t, const kiln_plan *plan, const kiln_step *step) {
    for (int32_t i = 0; i < step->claim->n_in; i++) {
        kiln_text_printf(t, " %d", step->in[i] >= 0 ? (int)plan->slots[step->in[i]].layout : 0);
    }
    for (int32_t i = 0; i < step->claim->n_out; i++) {
        kiln_text_printf(t, " %d", (int)plan->slots[step->out[i]].layout);
    }
}

static kiln_status key_of(const lister *l, const kiln_step *step, kiln_hash128 *out) {
    const kiln_plan *plan = l->engine->plan;
    kiln_status status = KILN_OK;
    kiln_text t;
    kiln_text_init(&t, l->engine->env);
    kiln_text_append(&t, l->place->data, l->place->len);
    for (int32_t i = 0; i < step->claim->n_nodes && status == KILN_OK; i++) {
        status = kiln_node_describe(&t, plan->graph, step->claim->nodes[i]);
        kiln_text_char(&t, '\n');
    }
    put_layouts(&t, plan, step);
    kiln_text_puts(&t, step->claim->kernel->name);
    status = status == KILN_OK && !kiln_text_ok(&t) ? KILN_E_MEMORY : status;
    *out = status == KILN_OK ? kiln_hash_128(t.data, t.len) : (kiln_hash128){0};
    kiln_text_free(&t);
    return status;
}

/* ---- Layers and kinds ---- */

static kiln_status list_ways(const lister *l, const kiln_step *step, kiln_layer_kind *out) {
    const kiln_candidate *ways;
    size_t n;
    KILN_TRY(kiln_finder_ways(l->finder, (size_t)step->claim_index, &ways, &n));
    out->n_ways = n < l->most_ways ? n : l->most_ways;
    KILN_ALLOC(out->ways, l->arena, out->n_ways);
    for (size_t i = 0; i < out->n_ways; i++) {
        const char *name = kiln_arena_printf(l->arena, "%s/%s", ways[i].kernel, ways[i].tactic);
        KILN_TRY(name ? KILN_OK : KILN_E_MEMORY);
        out->ways[i] =
            (kiln_layer_way){.kernel = ways[i].kernel, .tactic = ways[i].tactic, .name = name};
    }
    out->chosen = -1;
    return KILN_OK;
}

/* A layer and what would be its kind if it were the only one. */
typedef struct draft {
    kiln_layer_kind kind;
    size_t layer;
} draft;

static int by_key(const void *a, const void *b) {
    const draft *x = a, *y = b;
    int order = memcmp(&x->kind.key, &y->kind.key, sizeof x->kind.key);
    return order ? order : x->layer < y->layer ? -1 : x->layer > y->layer;
}

/* The same key; and the same ways, which what stands around a layer may take from it. */
static bool is_alike(const kiln_layer_kind *a, const kiln_layer_kind *b) {
    bool same = memcmp(&a->key, &b->key, sizeof a->key) == 0 && a->n_ways == b->n_ways;
    for (size_t i = 0; same && i < a->n_ways; i++) {
        same = strcmp(a->ways[i].name, b->ways[i].name) == 0;
    }
    return same;
}

static kiln_status list_layers(const lister *l, kiln_ways *out, draft *drafts) {
    for (size_t i = 0; i < l->n_steps; i++) {
        const kiln_step *step = &l->engine->plan->steps[l->steps[i].step];
        drafts[i].layer = i;
        KILN_TRY(key_of(l, step, &drafts[i].kind.key));
        KILN_TRY(list_ways(l, step, &drafts[i].kind));
        out->layers[i] = (kiln_timed_layer){.name = step->claim->anchor->name,
                                            .output = step->claim->out[0]->name};
    }
    qsort(drafts, l->n_steps, sizeof *drafts, by_key);
    for (size_t i = 0; i < l->n_steps; i++) {
        if (i == 0 || !is_alike(&out->kinds[out->n_kinds - 1], &drafts[i].kind)) {
            out->kinds[out->n_kinds++] = drafts[i].kind;
        }
        out->layers[drafts[i].layer].kind = &out->kinds[out->n_kinds - 1];
    }
    return KILN_OK;
}

kiln_status kiln_ways_list(kiln_ways *out, const kiln_engine *rules, const kiln_text *place,
                           size_t most_ways, kiln_arena *arena) {
    lister l = {.engine = rules, .place = place, .most_ways = most_ways, .arena = arena};
    draft *drafts;
    *out = (kiln_ways){0};
    KILN_TRY(kiln_finder_create(&l.finder, rules->plan, &rules->target, arena));
    KILN_TRY(find_steps(&l));
    const size_t n = l.n_steps;
    keep_largest(&l);
    out->n_layers = l.n_steps;
    out->n_left_out = n - l.n_steps;
    KILN_ALLOC(drafts, arena, l.n_steps);
    KILN_ALLOC(out->layers, arena, l.n_steps);
    KILN_ALLOC(out->kinds, arena, l.n_steps);
    return list_layers(&l, out, drafts);
}
