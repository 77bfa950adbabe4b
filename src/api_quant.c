/* api_quant.c - a model's quantized form: canonicalise, find the ranges, place, export. */
#include <string.h>

#include "api.h"
#include "base/diag.h"
#include "base/env.h"
#include "build/widen.h"
#include "pass/pass.h"
#include "quant/options.h"
#include "quant/trt_rules.h"

typedef struct job {
    kiln_model *model; /* being made */
    const kiln_calibration *calibration;
    const kiln_ranges *ranges;
    kiln_quantize_options options;
    kiln_place_options place;
    kiln_diag *diag;
} job;

/* 8 bits are chosen among float32 nodes: a model of half-width floats becomes one, as it does when
 * an engine runs it, so that values have the names that calibrating saw. */
static kiln_status widen(job *j) {
    kiln_graph *g = j->model->import.graph;
    size_t n;
    if (!kiln_rules_want_int8(&j->place.rules) || !kiln_needs_widening(g)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_widen(g, &n, j->diag));
    kiln_note(j->diag, KILN_F_PRECISION, "%zu nodes of float16 or bfloat16 become float32 or int8",
              n);
    return KILN_OK;
}

kiln_status kiln_model_canonical(kiln_model *out, const kiln_model *from, const char *const *off,
                                 kiln_diag *diag) {
    kiln_arena *arena = kiln_hold_arena(out->hold);
    kiln_pass_info *infos;
    size_t n;
    kiln_dims *dims;
    KILN_ALLOC(dims, arena, 1);
    kiln_dims_init(dims, arena);
    out->import = from->import;
    KILN_TRY(kiln_graph_clone(&out->import.graph, from->import.graph, arena, dims, out->env));
    KILN_TRY(dims->oom ? KILN_E_MEMORY : KILN_OK);
    kiln_pass_options passes = {.off = off};
    KILN_TRY(kiln_passes_run(out->import.graph, &passes, &infos, &n, diag));
    return dims->oom ? KILN_E_MEMORY : KILN_OK;
}

static kiln_status place(job *j) {
    kiln_needed *needed;
    kiln_ranges *ranges;
    size_t n;
    kiln_model *m = j->model;
    KILN_TRY(kiln_place_needed(&needed, &n, m->import.graph, &j->place, kiln_hold_arena(m->hold),
                               j->diag));
    KILN_TRY(kiln_ranges_create(&ranges, m->env));
    kiln_status status =
        kiln_ranges_needed(ranges, needed, n, j->ranges, j->calibration, &j->options, j->diag);
    if (status == KILN_OK) {
        status = kiln_place(&m->placed, m->import.graph, &j->place, ranges, j->diag);
    }
    kiln_ranges_destroy(ranges);
    return status;
}

/* The calibration is of this model, where it says of which. */
static kiln_status check_model(const job *j, const kiln_model *from) {
    kiln_calibration_info info;
    if (!j->calibration) {
        return KILN_OK;
    }
    kiln_calibration_get_info(j->calibration, &info);
    bool said = strspn(info.model_hash, "0") < strlen(info.model_hash);
    if (said && strcmp(info.model_hash, from->info.hash) != 0) {
        return kiln_fail(j->diag, KILN_F_CALIBRATION, "the calibration is of model %s, this is %s",
                         info.model_hash, from->info.hash);
    }
    return KILN_OK;
}

static kiln_status quantize(job *j, const kiln_model *from, const kiln_quantize_options *options) {
    kiln_model *m = j->model;
    KILN_TRY(kiln_hold_new(&m->hold, m->env));
    kiln_hold_keep(m->hold, from->hold);
    KILN_TRY(kiln_quantize_options_read(&j->options, &j->place, options, kiln_hold_arena(m->hold),
                                        j->diag));
    KILN_TRY(check_model(j, from));
    KILN_TRY(kiln_model_canonical(m, from, j->options.off, j->diag));
    KILN_TRY(widen(j));
    KILN_TRY(place(j));
    KILN_TRY(kiln_model_complete(m, j->diag));
    return KILN_OK;
}

kiln_status kiln_quantize(kiln_model **out, const kiln_model *model,
                          const kiln_calibration *calibration, const kiln_ranges *ranges,
                          const kiln_quantize_options *options, kiln_diag *diag) {
    if (!model) {
        return kiln_fail(diag, KILN_F_OPTION, "there is no model to quantize");
    }
    kiln_model *m = kiln_env_alloc(model->env, sizeof *m);
    if (!m) {
        return kiln_diag_close(diag, KILN_E_MEMORY);
    }
    memset(m, 0, sizeof *m);
    m->env = model->env;
    job j = {.model = m, .calibration = calibration, .ranges = ranges, .diag = diag};
    kiln_diag_enter(diag, "quantizing");
    kiln_status status = quantize(&j, model, options);
    kiln_diag_leave(diag);
    if (status == KILN_OK) {
        *out = m;
    } else {
        kiln_model_destroy(m);
    }
    return kiln_diag_close(diag, status);
}

bool kiln_quantize_wants_int8(const kiln_quantize_options *options) {
    kiln_quantize_options o;
    kiln_place_options place;
    kiln_arena arena;
    kiln_arena_init(&arena, NULL);
    bool wants = kiln_quantize_options_read(&o, &place, options, &arena, NULL) != KILN_OK ||
                 kiln_rules_want_int8(&place.rules);
    kiln_arena_free(&arena);
    return wants;
}

bool kiln_model_precision(const kiln_model *model, size_t i, kiln_node_precision *out) {
    if (i >= model->placed.n_nodes) {
        return false;
    }
    *out = model->placed.nodes[i];
    return true;
}

static bool has_precision(const kiln_graph *graph, kiln_dtype dtype) {
    for (size_t i = 0; i < graph->n_nodes; i++) {
        if (graph->nodes[i]->precision.dtype == dtype) {
            return true;
        }
    }
    return false;
}

/* Exports with what nodes' precisions ask for written as types. */
static kiln_status export_narrow(const kiln_model *model, const char *path,
                                 const kiln_export_options *o, kiln_arena *arena, kiln_diag *diag) {
    static const kiln_dtype dtypes[] = {KILN_DTYPE_BF16, KILN_DTYPE_F16};
    kiln_graph *g;
    kiln_dims *dims;
    size_t n;
    KILN_ALLOC(dims, arena, 1);
    kiln_dims_init(dims, arena);
    KILN_TRY(kiln_graph_clone(&g, model->import.graph, arena, dims, model->env));
    for (size_t i = 0; i < KILN_COUNT_OF(dtypes); i++) {
        KILN_TRY(has_precision(g, dtypes[i]) ? kiln_narrow(g, dtypes[i], &n, diag) : KILN_OK);
    }
    return kiln_export_file(g, path, o, model->env, diag);
}

kiln_status kiln_model_export(const kiln_model *model, const char *path, size_t external_threshold,
                              kiln_diag *diag) {
    if (!model || !path) {
        return kiln_fail(diag, KILN_F_OPTION, "there is no model or no path to export to");
    }
    kiln_export_options o = {.external_threshold = external_threshold,
                             .producer_version = kiln_version()};
    kiln_arena arena;
    kiln_arena_init(&arena, model->env);
    const kiln_graph *g = model->import.graph;
    bool half = has_precision(g, KILN_DTYPE_BF16) || has_precision(g, KILN_DTYPE_F16);
    kiln_status status = half ? export_narrow(model, path, &o, &arena, diag)
                              : kiln_export_file(g, path, &o, model->env, diag);
    kiln_arena_free(&arena);
    return kiln_diag_close(diag, status);
}

kiln_status kiln_model_check_tensorrt(const kiln_model *model, kiln_diag *diag) {
    bool good = kiln_trt_check(model->import.graph, diag) == 0;
    return kiln_diag_close(diag, good ? KILN_OK : KILN_E_CHECK);
}
