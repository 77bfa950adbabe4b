#include "flow/ways.h"

#include <stdlib.h>
#include <string.h>

#include "base/lookup.h"
#include "base/timer.h"
#include "engine/trial.h"
#include "ir/text.h"

/* A step with ways. */
typedef struct found {
    size_t step;
    int64_t macs;
    kiln_candidate *ways;
    uint64_t *come_to; /* per way, and last the rules': kiln_binder.way, or 0 */
    size_t n_ways;
} found;

typedef struct lister {
    const kiln_engine *engine;
    const kiln_ways_wanted *wanted;
    kiln_arena *arena;
    kiln_finder *finder;
    found *steps;
    size_t n_steps, cap_steps;
    kiln_lookup layers; /* places among steps, by the layers' names */
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
            const found f = {.step = s, .macs = l->engine->layers[s].macs};
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

/* ---- What ways come to ---- */

static kiln_status find_ways(lister *l, size_t *most) {
    const char **names;
    KILN_ALLOC(names, l->arena, l->n_steps);
    *most = 0;
    for (size_t i = 0; i < l->n_steps; i++) {
        found *f = &l->steps[i];
        const kiln_step *step = &l->engine->plan->steps[f->step];
        const kiln_candidate *ways;
        KILN_TRY(kiln_finder_ways(l->finder, (size_t)step->claim_index, &ways, &f->n_ways));
        KILN_ALLOC(f->ways, l->arena, f->n_ways);
        KILN_ALLOC(f->come_to, l->arena, f->n_ways + 1);
        memcpy(f->ways, ways, f->n_ways * sizeof *ways);
        names[i] = step->claim->anchor->name;
        *most = f->n_ways > *most ? f->n_ways : *most;
    }
    return kiln_lookup_make(&l->layers, names, l->n_steps, l->arena);
}

static bool is_way(const kiln_claim *claim, const char *kernel, const char *tactic) {
    return strcmp(claim->kernel->name, kernel) == 0 && strcmp(kiln_tactic_name(claim), tactic) == 0;
}

/* Notes what the trial shows of way k of each layer. */
static void note_trial(const lister *l, const kiln_cover_trial *trial, size_t k) {
    kiln_cover_trial_call c;
    for (size_t i = 0; kiln_cover_trial_get(trial, i, &c); i++) {
        const int64_t at =
            c.claim->anchor ? kiln_lookup_find(&l->layers, c.claim->anchor->name) : -1;
        found *f = at >= 0 ? &l->steps[at] : NULL;
        if (f && k < f->n_ways && is_way(c.claim, f->ways[k].kernel, f->ways[k].tactic)) {
            f->come_to[k] = c.way;
        }
        const kiln_claim *own = f ? l->engine->plan->steps[f->step].claim : NULL;
        if (own && own->kernel == c.claim->kernel && own->tactic == c.claim->tactic) {
            f->come_to[f->n_ways] = c.way;
        }
    }
}

/* A network that has way k of every layer that has so many, bound and not run. What cannot be bound
 * is not told apart. */
static kiln_status try_ways(const lister *l, size_t k, kiln_way *choices) {
    const kiln_engine *e = l->engine;
    kiln_cpu_target target = e->target;
    kiln_cover_trial trial;
    target.choices = choices;
    for (size_t i = 0; i < l->n_steps; i++) {
        const found *f = &l->steps[i];
        if (k < f->n_ways) {
            const char *name = e->plan->steps[f->step].claim->anchor->name;
            choices[target.n_choices++] =
                (kiln_way){name, f->ways[k].kernel, f->ways[k].tactic, true};
        }
    }
    kiln_status status =
        kiln_cover_trial_open(&trial, e->graph, &target, l->wanted->inputs, e->env, NULL);
    if (status == KILN_OK) {
        note_trial(l, &trial, k);
    }
    kiln_cover_trial_close(&trial);
    return status == KILN_E_MEMORY ? status : KILN_OK;
}

static kiln_status tell_apart(lister *l) {
    size_t most;
    kiln_way *choices;
    KILN_TRY(find_ways(l, &most));
    KILN_ALLOC(choices, l->arena, l->n_steps);
    for (size_t k = 0; k <= most && kiln_now_ns() < l->wanted->end_ns; k++) {
        KILN_TRY(try_ways(l, most - k, choices)); /* first the rules', which all are held against */
    }
    return KILN_OK;
}

/* Way k of the layer comes to the same as the rules', or as one before it. */
static bool comes_to_known(const lister *l, const found *f, size_t k) {
    const kiln_claim *own = l->engine->plan->steps[f->step].claim;
    const uint64_t way = f->come_to[k];
    bool known = way > 0 && way == f->come_to[f->n_ways] &&
                 strcmp(f->ways[k].kernel, own->kernel->name) == 0;
    for (size_t i = 0; i < k && !known; i++) {
        known =
            way > 0 && way == f->come_to[i] && strcmp(f->ways[i].kernel, f->ways[k].kernel) == 0;
    }
    return known;
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
    kiln_text_append(&t, l->wanted->place->data, l->wanted->place->len);
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

static kiln_status list_ways(const lister *l, const found *f, kiln_layer_kind *out) {
    const size_t most = l->wanted->most;
    KILN_ALLOC(out->ways, l->arena, f->n_ways < most ? f->n_ways : most);
    for (size_t i = 0; i < f->n_ways && out->n_ways < most; i++) {
        const kiln_candidate *way = &f->ways[i];
        if (comes_to_known(l, f, i)) {
            continue;
        }
        const char *name = kiln_arena_printf(l->arena, "%s/%s", way->kernel, way->tactic);
        KILN_TRY(name ? KILN_OK : KILN_E_MEMORY);
        out->ways[out->n_ways++] =
            (kiln_layer_way){.kernel = way->kernel, .tactic = way->tactic, .name = name};
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
        KILN_TRY(list_ways(l, &l->steps[i], &drafts[i].kind));
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

kiln_status kiln_ways_list(kiln_ways *out, const kiln_ways_wanted *wanted, kiln_arena *arena) {
    lister l = {.engine = wanted->rules, .wanted = wanted, .arena = arena};
    draft *drafts;
    *out = (kiln_ways){0};
    KILN_TRY(kiln_finder_create(&l.finder, l.engine->plan, &l.engine->target, arena));
    KILN_TRY(find_steps(&l));
    const size_t n = l.n_steps;
    keep_largest(&l);
    KILN_TRY(tell_apart(&l));
    out->n_layers = l.n_steps;
    out->n_left_out = n - l.n_steps;
    KILN_ALLOC(drafts, arena, l.n_steps);
    KILN_ALLOC(out->layers, arena, l.n_steps);
    KILN_ALLOC(out->kinds, arena, l.n_steps);
    return list_layers(&l, out, drafts);
}
