/* api_improve.c - improvements of a model: before calibration, of the float graph, and after
 * quantizing, of the weights and biases that came out. */
#include <string.h>

#include "api.h"
#include "base/env.h"
#include "base/options.h"
#include "flow/madeup.h"
#include "flow/observe.h"
#include "quant/refine.h"
#include "quant/smooth.h"

typedef struct job {
    kiln_model *model; /* being made */
    kiln_improve_options o;
    const kiln_model *float_model; /* of the quantized one */
    kiln_engine *engine;           /* of the float model */
    kiln_context *context;
    kiln_arena arena;
    kiln_smoother smoother;
    kiln_refiner refiner;
    kiln_diag *diag;
} job;

/* ---- Runs ---- */

static kiln_status open_engine(job *j, const kiln_model *model) {
    kiln_build_options build;
    kiln_context_options context = {.size = sizeof context, .threads = j->o.threads};
    if (kiln_options_read(&build, sizeof build, j->o.build) != KILN_OK) {
        return kiln_fail(j->diag, KILN_F_OPTION, "the build options have no size");
    }
    build.portable = false;
    KILN_TRY(kiln_engine_build(&j->engine, model, &build, j->diag));
    return kiln_context_create(&j->context, j->engine, &context, j->diag);
}

static kiln_status run_all(job *j, const kiln_observe_fns *fns) {
    for (size_t i = 0; i < j->o.n_runs; i++) {
        kiln_calibrate_run run;
        if (kiln_options_read(&run, sizeof run, &j->o.runs[i]) != KILN_OK) {
            return kiln_fail(j->diag, KILN_F_OPTION, "the options of a run have no size");
        }
        KILN_TRY(kiln_observe(j->engine, j->context, j->model->env, &run, fns, j->diag));
    }
    return KILN_OK;
}

static kiln_status need_data(const job *j, const char *what) {
    return j->o.n_runs > 0
               ? KILN_OK
               : kiln_hint(j->diag, kiln_fail(j->diag, KILN_F_OPTION, "%s needs data", what),
                           "a calibration file has ranges alone");
}

/* ---- Float ---- */

static bool wants_channels(void *user, const char *name) {
    return kiln_smoother_wants(&((const job *)user)->smoother, name);
}

static kiln_status see_channels(void *user, const char *name, const kiln_tensor *tensor) {
    kiln_smoother_see(&((job *)user)->smoother, name, tensor);
    return KILN_OK;
}

/* Constants have changed: the model is another one. */
static kiln_status settle(job *j, const kiln_scaled *done, const char *what) {
    kiln_model *m = j->model;
    struct {
        uint8_t model[16];
        kiln_hash128 scales;
    } both = {.scales = done->hash};
    kiln_note(j->diag, KILN_F_PRECISION, "%s: %zu of %zu seams between layers scaled", what,
              done->scaled, done->seams);
    if (done->scaled > 0) {
        memcpy(both.model, m->import.hash, sizeof both.model);
        kiln_hash128 now = kiln_hash_128(&both, sizeof both);
        memcpy(m->import.hash, &now, sizeof now);
    }
    KILN_TRY(kiln_graph_sort(m->import.graph, j->diag));
    return kiln_graph_verify(m->import.graph, j->diag);
}

static kiln_status smooth(job *j) {
    const kiln_observe_fns fns = {.wants = wants_channels, .see = see_channels, .user = j};
    kiln_scaled done;
    kiln_graph *g = j->model->import.graph;
    KILN_TRY(need_data(j, "smoothing"));
    KILN_TRY(open_engine(j, j->model));
    KILN_TRY(kiln_smoother_init(&j->smoother, g, &j->arena));
    j->smoother.rounded = (j->o.what & KILN_IMPROVE_ROUND) != 0;
    KILN_TRY(run_all(j, &fns));
    KILN_TRY(kiln_smoother_apply(&j->smoother, j->o.smooth_alpha, g, &done, j->diag));
    return settle(j, &done, "smooth");
}

static bool has_inlets(const kiln_seams *all) {
    for (size_t i = 0; i < all->count; i++) {
        if (all->items[i].inlet) {
            return true;
        }
    }
    return false;
}

/* A network that made-up inputs do not fit stays as it is. */
static kiln_status smooth_outliers(job *j) {
    const kiln_observe_fns fns = {.wants = wants_channels, .see = see_channels, .user = j};
    kiln_made_up made;
    kiln_scaled done;
    kiln_graph *g = j->model->import.graph;
    KILN_TRY(kiln_smoother_init(&j->smoother, g, &j->arena));
    j->smoother.inlets = true;
    if (!has_inlets(&j->smoother.seams)) {
        return KILN_OK;
    }
    KILN_TRY(open_engine(j, j->model));
    kiln_made_up_init(&made, j->engine, g);
    const kiln_calibrate_run run = {.size = sizeof run, .next = kiln_made_up_next, .user = &made};
    size_t said = kiln_diag_count(j->diag);
    kiln_status status = kiln_observe(j->engine, j->context, j->model->env, &run, &fns, j->diag);
    if (status != KILN_OK && status != KILN_E_MEMORY && status != KILN_E_CANCELLED) {
        kiln_diag_truncate(j->diag, said);
        kiln_note(j->diag, KILN_F_PRECISION,
                  "outliers: not looked for, the network cannot be run on made-up inputs");
        return KILN_OK;
    }
    KILN_TRY(status);
    KILN_TRY(kiln_smoother_apply(&j->smoother, 0, g, &done, j->diag));
    return settle(j, &done, "outliers");
}

static kiln_status improve_float(job *j, const kiln_model *from) {
    KILN_TRY(kiln_model_canonical(j->model, from, j->o.build ? j->o.build->off : NULL, j->diag));
    if (j->o.what & KILN_IMPROVE_EQUALIZE) {
        kiln_scaled done;
        KILN_TRY(kiln_equalize(j->model->import.graph, &done, j->diag));
        KILN_TRY(settle(j, &done, "equalize"));
    }
    if (j->o.what & KILN_IMPROVE_SMOOTH) {
        KILN_TRY(smooth(j));
    } else if (j->o.what & KILN_IMPROVE_OUTLIERS) {
        KILN_TRY(smooth_outliers(j));
    }
    return kiln_model_complete(j->model, j->diag);
}

/* ---- 8 bits ---- */

static bool wants_rows(void *user, const char *name) {
    return kiln_refiner_wants(&((const job *)user)->refiner, name);
}

static kiln_status see_rows(void *user, const char *name, const kiln_tensor *tensor) {
    return kiln_refiner_see(&((job *)user)->refiner, name, tensor);
}

static void count_samples(void *user, const kiln_feed *feed, const kiln_fed *fed) {
    (void)fed;
    int64_t count = kiln_feed_count(feed);
    ((job *)user)->refiner.samples = count > 0 ? count : 0;
}

/* A copy of the quantized model's graph. */
static kiln_status clone(job *j, const kiln_model *from) {
    kiln_model *m = j->model;
    kiln_arena *arena = kiln_hold_arena(m->hold);
    kiln_dims *dims;
    KILN_ALLOC(dims, arena, 1);
    kiln_dims_init(dims, arena);
    m->import = from->import;
    m->placed = from->placed;
    KILN_TRY(kiln_graph_clone(&m->import.graph, from->import.graph, arena, dims, m->env));
    return dims->oom ? KILN_E_MEMORY : kiln_graph_index(m->import.graph);
}

static kiln_status improve_int8(job *j, const kiln_model *from) {
    const kiln_observe_fns fns = {
        .wants = wants_rows, .see = see_rows, .ran = count_samples, .user = j};
    kiln_graph *g;
    KILN_TRY(need_data(j, "improving weights"));
    KILN_TRY(clone(j, from));
    KILN_TRY(open_engine(j, j->float_model));
    g = j->engine->canonical ? j->engine->canonical : j->engine->graph;
    KILN_TRY(kiln_refiner_init(&j->refiner, j->model->import.graph, g,
                               (j->o.what & KILN_IMPROVE_ROUND) != 0,
                               (j->o.what & KILN_IMPROVE_BIAS) != 0, &j->arena, j->diag));
    while (kiln_refiner_begin(&j->refiner)) {
        KILN_TRY(run_all(j, &fns));
        KILN_TRY(kiln_refiner_end(&j->refiner));
    }
    const kiln_refiner *r = &j->refiner;
    kiln_note(j->diag, KILN_F_PRECISION,
              "%zu layers rounded, %lld of %lld weights not to the nearest; %zu biases corrected",
              r->n_rounded, (long long)r->moved, (long long)r->weights, r->n_corrected);
    KILN_TRY(kiln_graph_sort(j->model->import.graph, j->diag));
    KILN_TRY(kiln_graph_verify(j->model->import.graph, j->diag));
    return kiln_model_complete(j->model, j->diag);
}

/* ---- Both ---- */

typedef kiln_status (*improve_fn)(job *j, const kiln_model *from);

static kiln_status read_options(job *j, const kiln_improve_options *options) {
    const uint32_t known = KILN_IMPROVE_EQUALIZE | KILN_IMPROVE_SMOOTH | KILN_IMPROVE_ROUND |
                           KILN_IMPROVE_BIAS | KILN_IMPROVE_OUTLIERS;
    if (kiln_options_read(&j->o, sizeof j->o, options) != KILN_OK || (j->o.what & ~known) ||
        !(j->o.smooth_alpha >= 0 && j->o.smooth_alpha <= 1)) {
        return kiln_fail(j->diag, KILN_F_OPTION,
                         "the options have no size, unknown fields or impossible values");
    }
    return KILN_OK;
}

static kiln_status run_job(kiln_model **out, job *j, const kiln_model *from, improve_fn improve) {
    kiln_model *m = kiln_env_alloc(from->env, sizeof *m);
    if (!m) {
        return KILN_E_MEMORY;
    }
    memset(m, 0, sizeof *m);
    m->env = from->env;
    j->model = m;
    kiln_arena_init(&j->arena, from->env);
    kiln_diag_enter(j->diag, "improving");
    kiln_status status = kiln_hold_new(&m->hold, m->env);
    if (status == KILN_OK) {
        kiln_hold_keep(m->hold, from->hold);
        status = improve(j, from);
    }
    kiln_diag_leave(j->diag);
    kiln_refiner_free(&j->refiner);
    kiln_context_destroy(j->context);
    kiln_engine_destroy(j->engine);
    kiln_arena_free(&j->arena);
    if (status == KILN_OK) {
        *out = m;
    } else {
        kiln_model_destroy(m);
    }
    return status;
}

kiln_status kiln_improve_float(kiln_model **out, const kiln_model *model,
                               const kiln_improve_options *options, kiln_diag *diag) {
    job j = {.diag = diag};
    kiln_status status = model ? read_options(&j, options)
                               : kiln_fail(diag, KILN_F_OPTION, "there is no model to improve");
    return kiln_diag_close(diag, status ? status : run_job(out, &j, model, improve_float));
}

kiln_status kiln_improve_int8(kiln_model **out, const kiln_model *quantized,
                              const kiln_model *model, const kiln_improve_options *options,
                              kiln_diag *diag) {
    job j = {.float_model = model, .diag = diag};
    kiln_status status = quantized && model
                             ? read_options(&j, options)
                             : kiln_fail(diag, KILN_F_OPTION, "there is no model to improve");
    return kiln_diag_close(diag, status ? status : run_job(out, &j, quantized, improve_int8));
}
