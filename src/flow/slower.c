/* slower.c - 8-bit layers that lose time here stay float. */
#include <string.h>

#include "base/env.h"
#include "base/options.h"
#include "flow/timing.h"
#include "quant/calibration.h"

/* What must be lost for a layer to stay float, as a share and in time that the clock can tell; what
 * the network must gain by it; and how long the search for it may take. */
static const double layer_margin = 0.05, layer_margin_ms = 0.003, network_margin = 0.01;
static const kiln_timing_limits cells_limits = {.budget_ms = 400}, race_limits = {.budget_ms = 300};

typedef struct network {
    kiln_model *model; /* NULL: the float one */
    kiln_timed timed;
} network;

typedef struct job {
    const kiln_env *env;
    const kiln_model *model;
    const kiln_calibration *calibration;
    const kiln_ranges *ranges;
    kiln_quantize_options options;
    kiln_build_options build;
    kiln_pool *pool;
    kiln_arena arena;
    network exact, best;   /* float; the fastest quantized so far */
    const char **layers;   /* int8 ones that no rule names */
    bool *slow;            /* of them */
    kiln_cell_time *cells; /* of them */
    size_t n_layers, cap_layers;
    kiln_float_node *keep; /* room for the options' own and all layers */
    kiln_diag *diag;
} job;

/* ---- Networks ---- */

static void close_network(network *n) {
    kiln_timed_close(&n->timed);
    kiln_model_destroy(n->model);
    *n = (network){0};
}

/* Builds what is to be timed; n->model or the float one. */
static kiln_status open_network(job *j, network *n) {
    kiln_engine *engine;
    KILN_TRY(kiln_engine_build(&engine, n->model ? n->model : j->model, &j->build, j->diag));
    return kiln_timed_open(&n->timed, engine, j->pool, j->env, j->diag);
}

static kiln_status quantize(job *j, network *n, const kiln_float_node *keep, size_t n_keep) {
    kiln_quantize_options o = j->options;
    o.keep = keep;
    o.n_keep = n_keep;
    return kiln_quantize(&n->model, j->model, j->calibration, j->ranges, &o, j->diag);
}

/* ---- Layers ---- */

static kiln_status list_layers(job *j) {
    kiln_node_precision p;
    for (size_t i = 0; kiln_model_precision(j->best.model, i, &p); i++) {
        if (p.layer && p.int8 && !p.asked) {
            const char *name = kiln_arena_text(&j->arena, p.name, strlen(p.name));
            KILN_TRY(name ? KILN_OK : KILN_E_MEMORY);
            KILN_PUSH(&j->arena, j->layers, j->n_layers, j->cap_layers, name);
        }
    }
    KILN_ALLOC(j->slow, &j->arena, j->n_layers + 1);
    KILN_ALLOC(j->cells, &j->arena, j->n_layers + 1);
    KILN_ALLOC(j->keep, &j->arena, j->options.n_keep + j->n_layers + 1);
    return KILN_OK;
}

/* b lost to a: the other way round. */
static bool is_lost(const kiln_race *r) {
    const kiln_race back = {.ratio = r->ratio > 0 ? 1 / r->ratio : 1, .wins = 1 - r->wins};
    return kiln_race_is_won(&back, layer_margin) && r->b_ms - r->a_ms > layer_margin_ms;
}

static size_t mark_slow(job *j) {
    size_t n = 0;
    for (size_t i = 0; i < j->n_layers; i++) {
        j->slow[i] = j->cells[i].cell >= 0 && is_lost(&j->cells[i].race);
        n += j->slow[i] ? 1 : 0;
    }
    return n;
}

static const char *reason_of(job *j, const kiln_race *r, const char *what) {
    return kiln_arena_printf(&j->arena, "slower in 8 bits here: %s takes %.3g ms, in float %.3g ms",
                             what, r->b_ms, r->a_ms);
}

/* The options' own, and the slow layers with their reasons; all of them with one when `whole`. */
static kiln_status list_keep(job *j, const kiln_race *whole, size_t *n) {
    *n = j->options.n_keep;
    if (*n > 0) {
        memcpy(j->keep, j->options.keep, *n * sizeof *j->keep);
    }
    for (size_t i = 0; i < j->n_layers; i++) {
        if (!whole && !j->slow[i]) {
            continue;
        }
        const char *reason = whole ? reason_of(j, whole, "the whole network")
                                   : reason_of(j, &j->cells[i].race, "it");
        KILN_TRY(reason ? KILN_OK : KILN_E_MEMORY);
        j->keep[(*n)++] = (kiln_float_node){j->layers[i], reason};
    }
    return KILN_OK;
}

/* Quantizes again without some layers, and keeps the result if that is faster, or `sure`. */
static kiln_status try_keep(job *j, const kiln_race *whole, bool sure) {
    network other = {0};
    kiln_race r;
    size_t n;
    size_t said = kiln_diag_count(j->diag);
    KILN_TRY(list_keep(j, whole, &n));
    kiln_status status = quantize(j, &other, j->keep, n);
    kiln_diag_truncate(j->diag, status == KILN_OK ? said : SIZE_MAX); /* the same warnings again */
    if (status == KILN_OK && !sure) {
        status = open_network(j, &other);
        status =
            status ? status
                   : kiln_race_run(&r, &j->best.timed, &other.timed, &race_limits, j->env, j->diag);
    }
    if (status == KILN_OK && (sure || kiln_race_is_won(&r, network_margin))) {
        network worse = j->best;
        j->best = other;
        other = worse;
    }
    close_network(&other);
    return status;
}

/* ---- The job ---- */

static kiln_status time_all(job *j) {
    kiln_race whole;
    KILN_TRY(quantize(j, &j->best, j->options.keep, j->options.n_keep));
    KILN_TRY(list_layers(j));
    if (j->n_layers == 0) {
        return KILN_OK;
    }
    KILN_TRY(open_network(j, &j->best));
    KILN_TRY(open_network(j, &j->exact));
    KILN_TRY(kiln_time_cells(j->cells, j->layers, j->n_layers, &j->exact.timed, &j->best.timed,
                             &cells_limits, j->env, j->diag));
    if (mark_slow(j) > 0) {
        KILN_TRY(try_keep(j, NULL, false));
    }
    KILN_TRY(kiln_race_run(&whole, &j->exact.timed, &j->best.timed, &race_limits, j->env, j->diag));
    return is_lost(&whole) ? try_keep(j, &whole, true) : KILN_OK;
}

static kiln_status begin(job *j, const kiln_quantize_options *options,
                         const kiln_timing_options *how) {
    kiln_timing_options t;
    if (!j->model || kiln_options_read(&j->options, sizeof j->options, options) != KILN_OK ||
        kiln_options_read(&t, sizeof t, how) != KILN_OK) {
        return kiln_fail(j->diag, KILN_F_OPTION,
                         "there is no model, or options have no size or unknown fields");
    }
    j->ranges = t.ranges;
    j->build = t.build ? *t.build : (kiln_build_options){.size = sizeof j->build};
    j->build.portable = false;
    if (t.threads == 1) {
        return KILN_OK;
    }
    const kiln_pool_options p = {.size = sizeof p, .threads = t.threads};
    return kiln_pool_create(&j->pool, j->env, &p);
}

kiln_status kiln_quantize_timed(kiln_model **out, const kiln_model *model,
                                const kiln_calibration *calibration,
                                const kiln_quantize_options *options,
                                const kiln_timing_options *how, kiln_diag *diag) {
    job j = {.env = calibration ? calibration->env : NULL,
             .model = model,
             .calibration = calibration,
             .diag = diag};
    kiln_arena_init(&j.arena, j.env);
    kiln_diag_enter(diag, "timing layers");
    kiln_status status = begin(&j, options, how);
    status = status == KILN_OK ? time_all(&j) : status;
    kiln_diag_leave(diag);
    if (status == KILN_OK) {
        *out = j.best.model;
        j.best.model = NULL;
    }
    close_network(&j.best);
    close_network(&j.exact);
    kiln_pool_destroy(j.pool);
    kiln_arena_free(&j.arena);
    return kiln_diag_close(diag, status);
}
