#include "engine/profile.h"

#include <string.h>

#include "ops/ops.h"

/* Where the range of an expression was stated first. */
typedef struct origin {
    const kiln_shape_range *range;
    int32_t dim;
} origin;

typedef struct resolver {
    const kiln_graph *graph;
    kiln_shape_range *profile;
    origin *origins; /* per entry of graph->dims */
    kiln_arena *arena;
    kiln_diag *diag;
} resolver;

static const char *dim_text(const kiln_shape_range *r, int32_t d, kiln_arena *arena) {
    long long min = (long long)r->min[d], opt = (long long)r->opt[d], max = (long long)r->max[d];
    return min == max ? kiln_arena_printf(arena, "%lld", min)
                      : kiln_arena_printf(arena, "%lld..%lld..%lld", min, opt, max);
}

const char *kiln_profile_text(const kiln_shape_range *range, kiln_arena *arena) {
    const char *text = kiln_arena_printf(arena, "%s:", range->name);
    for (int32_t d = 0; d < range->rank && text; d++) {
        const char *dim = dim_text(range, d, arena);
        text = dim ? kiln_arena_printf(arena, "%s%s%s", text, d ? "x" : "", dim) : NULL;
    }
    return text;
}

void kiln_profile_largest(const kiln_shape_range *range, const kiln_value *input, kiln_datum *out) {
    const kiln_type *type = &input->type;
    *out = (kiln_datum){.kind = type->kind};
    if (type->kind == KILN_KIND_TENSOR) {
        out->tensor.dtype = type->dtype;
        out->tensor.rank = range && range->name ? range->rank : type->rank < 0 ? 0 : type->rank;
    }
    for (int32_t d = 0; d < out->tensor.rank; d++) {
        const int64_t given = range && range->name ? range->max[d] : type->dims[d];
        out->tensor.dims[d] = kiln_dim_known(given) ? given : 1;
    }
}

/* ---- Each range against its input ---- */

static bool is_tensor(const kiln_value *v) {
    return v->type.kind == KILN_KIND_TENSOR;
}

/* The input of that name, looked for from input `start` on: ranges in the inputs' order are found
 * at once. Returns n_inputs when there is none. */
static size_t find_input(const kiln_graph *g, const char *name, size_t start) {
    for (size_t k = 0; name && k < g->n_inputs; k++) {
        size_t i = (start + k) % g->n_inputs;
        if (strcmp(g->inputs[i]->name, name) == 0 && is_tensor(g->inputs[i])) {
            return i;
        }
    }
    return g->n_inputs;
}

static kiln_status check_dim(const resolver *s, const kiln_shape_range *r, int32_t d,
                             const kiln_type *type) {
    if (r->min[d] < 0 || r->min[d] > r->opt[d] || r->opt[d] > r->max[d]) {
        return kiln_fail(s->diag, KILN_F_OPTION,
                         "input \"%s\": the profile gives dim %d min %lld, opt %lld, max %lld, "
                         "which is no range",
                         r->name, d, (long long)r->min[d], (long long)r->opt[d],
                         (long long)r->max[d]);
    }
    kiln_dim dim = type->rank < 0 ? KILN_DIM_UNKNOWN : type->dims[d];
    if (kiln_dim_known(dim) && (r->min[d] != dim || r->max[d] != dim)) {
        return kiln_fail(s->diag, KILN_F_OPTION,
                         "input \"%s\" has dim %d = %lld, the profile gives %lld to %lld", r->name,
                         d, (long long)dim, (long long)r->min[d], (long long)r->max[d]);
    }
    return KILN_OK;
}

static kiln_status check_range(const resolver *s, const kiln_shape_range *r,
                               const kiln_type *type) {
    if (r->rank < 0 || r->rank > KILN_MAX_RANK || (type->rank >= 0 && type->rank != r->rank)) {
        return kiln_fail(s->diag, KILN_F_OPTION,
                         "input \"%s\" has rank %d, its range in the profile has %d", r->name,
                         type->rank, r->rank);
    }
    kiln_tensor largest = {.dtype = type->dtype, .rank = r->rank};
    for (int32_t d = 0; d < r->rank; d++) {
        KILN_TRY(check_dim(s, r, d, type));
        largest.dims[d] = r->max[d];
    }
    if (kiln_tensor_bytes(&largest) == SIZE_MAX) {
        return kiln_fail(s->diag, KILN_F_OVERFLOW,
                         "input \"%s\" is too large to address at the profile's max", r->name);
    }
    return KILN_OK;
}

static kiln_status take(const resolver *s, const kiln_shape_range *given, size_t i) {
    const kiln_value *v = s->graph->inputs[i];
    kiln_shape_range *r = &s->profile[i];
    if (r->name) {
        return kiln_fail(s->diag, KILN_F_OPTION, "the profile has two ranges for input \"%s\"",
                         v->name);
    }
    KILN_TRY(check_range(s, given, &v->type));
    *r = *given;
    r->name = kiln_arena_text(s->arena, v->name, strlen(v->name));
    return r->name ? KILN_OK : KILN_E_MEMORY;
}

/* ---- Ranges against each other ---- */

/* Where the range of a dim that is an expression stands; NULL for numbers and dims of no name. */
static origin *origin_of(const resolver *s, const kiln_type *type, int32_t d) {
    const kiln_dim_entry *e = type->rank < 0 ? NULL : kiln_dim_get(s->graph->dims, type->dims[d]);
    return e ? &s->origins[e - s->graph->dims->entries] : NULL;
}

static kiln_status agree(const resolver *s, size_t i) {
    const kiln_type *type = &s->graph->inputs[i]->type;
    const kiln_shape_range *r = &s->profile[i];
    for (int32_t d = 0; d < r->rank; d++) {
        origin *o = origin_of(s, type, d);
        if (!o) {
            continue;
        }
        if (!o->range) {
            *o = (origin){r, d};
            continue;
        }
        const kiln_shape_range *f = o->range;
        int32_t k = o->dim;
        if (f->min[k] != r->min[d] || f->opt[k] != r->opt[d] || f->max[k] != r->max[d]) {
            const char *name = kiln_dim_text(s->graph->dims, type->dims[d], s->arena);
            const char *one = dim_text(f, k, s->arena), *other = dim_text(r, d, s->arena);
            return !name || !one || !other
                       ? KILN_E_MEMORY
                       : kiln_fail(s->diag, KILN_F_OPTION,
                                   "dim %d of input \"%s\" and dim %d of input \"%s\" are both %s, "
                                   "the profile gives %s and %s",
                                   k, f->name, d, r->name, name, one, other);
        }
    }
    return KILN_OK;
}

/* An input that was left out: its dims are numbers, or symbols that others have given a range. */
static kiln_status derive(const resolver *s, size_t i) {
    const kiln_value *v = s->graph->inputs[i];
    kiln_shape_range r = {.rank = v->type.rank};
    if (kiln_type_is_static(&v->type)) {
        return KILN_OK;
    }
    bool known = v->type.rank >= 0;
    for (int32_t d = 0; d < v->type.rank && known; d++) {
        const origin *o = origin_of(s, &v->type, d);
        kiln_dim dim = v->type.dims[d];
        known = kiln_dim_known(dim) || (o && o->range);
        if (known) {
            r.min[d] = o ? o->range->min[o->dim] : dim;
            r.opt[d] = o ? o->range->opt[o->dim] : dim;
            r.max[d] = o ? o->range->max[o->dim] : dim;
        }
    }
    if (!known) {
        return kiln_hint(s->diag,
                         kiln_fail(s->diag, KILN_F_OPTION,
                                   "input \"%s\" has dynamic dims that the profile gives no range",
                                   v->name),
                         "give it one too: --dynamic-shape %s:...", v->name);
    }
    r.name = v->name;
    return take(s, &r, i);
}

kiln_status kiln_profile_resolve(kiln_shape_range **out, const kiln_graph *graph,
                                 const kiln_shape_range *given, size_t n, kiln_arena *arena,
                                 kiln_diag *diag) {
    resolver s = {.graph = graph, .arena = arena, .diag = diag};
    size_t at = 0;
    *out = NULL;
    if (n == 0) {
        return KILN_OK;
    }
    KILN_ALLOC(s.profile, arena, graph->n_inputs);
    KILN_ALLOC(s.origins, arena, graph->dims->count);
    for (size_t k = 0; k < n; k++, at++) {
        at = find_input(graph, given[k].name, at);
        if (at == graph->n_inputs) {
            return kiln_hint(diag,
                             kiln_fail(diag, KILN_F_OPTION,
                                       "the model has no tensor input \"%s\" to give a range",
                                       given[k].name ? given[k].name : ""),
                             "`kiln inspect` lists the inputs");
        }
        KILN_TRY(take(&s, &given[k], at));
        KILN_TRY(agree(&s, at));
    }
    for (size_t i = 0; i < graph->n_inputs; i++) {
        if (is_tensor(graph->inputs[i]) && !s.profile[i].name) {
            KILN_TRY(derive(&s, i));
        }
    }
    *out = s.profile;
    return KILN_OK;
}

/* ---- The graph at the profile's shapes ---- */

static kiln_status set_dims(kiln_graph *g, size_t i, const kiln_shape_range *r,
                            const int64_t *given) {
    kiln_type *type = &g->inputs[i]->type;
    kiln_dim *dims;
    KILN_ALLOC(dims, g->arena, r->rank);
    for (int32_t d = 0; d < r->rank; d++) {
        dims[d] = given[d];
    }
    *type = kiln_type_tensor(type->dtype, r->rank, dims);
    return KILN_OK;
}

typedef const int64_t *(*pick_fn)(const kiln_shape_range *r);

static const int64_t *pick_min(const kiln_shape_range *r) {
    return r->min;
}

static const int64_t *pick_opt(const kiln_shape_range *r) {
    return r->opt;
}

static const int64_t *pick_max(const kiln_shape_range *r) {
    return r->max;
}

static kiln_status infer_at(const kiln_graph *graph, const kiln_shape_range *profile, pick_fn pick,
                            kiln_arena *arena, kiln_diag *diag) {
    kiln_dims dims;
    kiln_graph *g;
    kiln_dims_init(&dims, arena);
    KILN_TRY(kiln_graph_clone(&g, graph, arena, &dims, graph->env));
    for (size_t i = 0; i < g->n_inputs; i++) {
        if (profile[i].name) {
            KILN_TRY(set_dims(g, i, &profile[i], pick(&profile[i])));
        }
    }
    KILN_TRY(kiln_infer_graph(g, diag));
    return dims.oom ? KILN_E_MEMORY : KILN_OK;
}

kiln_status kiln_profile_infer(const kiln_graph *graph, const kiln_shape_range *profile,
                               kiln_diag *diag) {
    static const struct {
        const char *name;
        pick_fn pick;
    } points[] = {{"min", pick_min}, {"opt", pick_opt}, {"max", pick_max}};
    kiln_status status = KILN_OK;
    for (size_t i = 0; i < KILN_COUNT_OF(points) && status == KILN_OK; i++) {
        kiln_arena arena;
        kiln_arena_init(&arena, graph->env);
        kiln_diag_enter(diag, "inferring at the profile's %s", points[i].name);
        status = infer_at(graph, profile, points[i].pick, &arena, diag);
        kiln_diag_leave(diag);
        kiln_arena_free(&arena);
    }
    kiln_diag_at_node(diag, NULL, NULL);
    return status;
}

kiln_status kiln_profile_fix(kiln_graph *graph, const kiln_shape_range *profile, kiln_diag *diag) {
    bool changed = false;
    for (size_t i = 0; i < graph->n_inputs; i++) {
        const kiln_shape_range *r = &profile[i];
        const kiln_type *type = &graph->inputs[i]->type;
        int64_t dims[KILN_MAX_RANK];
        if (!r->name) {
            continue;
        }
        for (int32_t d = 0; d < r->rank; d++) {
            const char *symbol =
                type->rank < 0 ? kiln_arena_printf(graph->arena, "%s_d%d", r->name, d) : "";
            if (!symbol) {
                return KILN_E_MEMORY;
            }
            dims[d] = r->min[d] == r->max[d] ? r->min[d]
                      : type->rank >= 0      ? type->dims[d]
                                             : kiln_dim_symbol(graph->dims, symbol);
            changed = changed || type->rank < 0 || dims[d] != type->dims[d];
        }
        KILN_TRY(set_dims(graph, i, r, dims));
    }
    return changed ? kiln_infer_graph(graph, diag) : KILN_OK;
}

/* ---- At run time ---- */

kiln_status kiln_profile_check(const kiln_shape_range *range, const kiln_tensor *tensor,
                               kiln_diag *diag) {
    static const char hint[] = "build with --dynamic-shape %s:... for other shapes";
    if (tensor->rank != range->rank) {
        return kiln_hint(diag,
                         kiln_fail(diag, KILN_F_RUN_SHAPE,
                                   "input \"%s\" has rank %d, the engine's profile has %d",
                                   range->name, tensor->rank, range->rank),
                         hint, range->name);
    }
    for (int32_t d = 0; d < range->rank; d++) {
        long long min = (long long)range->min[d], max = (long long)range->max[d];
        if (tensor->dims[d] < min || tensor->dims[d] > max) {
            return kiln_hint(diag,
                             kiln_fail(diag, KILN_F_RUN_SHAPE,
                                       min == max ? "input \"%s\" has dim %d = %lld, the engine's "
                                                    "profile has %lld"
                                                  : "input \"%s\" has dim %d = %lld, the engine's "
                                                    "profile has %lld to %lld",
                                       range->name, d, (long long)tensor->dims[d], min, max),
                             hint, range->name);
        }
    }
    return KILN_OK;
}
