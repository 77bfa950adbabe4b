/* calibrate.c - calibration data through the float engine, and what it makes of it into histograms.
 */
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "engine/engine.h"
#include "flow/observe.h"
#include "quant/calibration.h"
#include "quant/options.h"

typedef struct job {
    kiln_calibration *calibration;
    const kiln_engine *engine;
    kiln_context *context;
    kiln_calibrate_run run;
    const char **names; /* of the values that are needed, sorted */
    size_t n_names;
    kiln_arena arena;
    kiln_diag *diag;
} job;

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_needed(void *user, const char *name) {
    const job *j = user;
    size_t lo = 0, hi = j->n_names;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(j->names[mid], name);
        if (order == 0) {
            return true;
        }
        *(order < 0 ? &lo : &hi) = order < 0 ? mid + 1 : mid;
    }
    return false;
}

static kiln_status see(void *user, const char *name, const kiln_tensor *tensor) {
    job *j = user;
    return kiln_calibration_observe(j->calibration, name, tensor, j->diag);
}

static kiln_status list_names(job *j, const kiln_quantize_options *options) {
    kiln_quantize_options o;
    kiln_place_options place;
    kiln_needed *needed;
    const kiln_graph *g = j->engine->graph; /* half-width floats are float32 in it */
    KILN_TRY(kiln_quantize_options_read(&o, &place, options, &j->arena, j->diag));
    KILN_TRY(kiln_place_needed(&needed, &j->n_names, g, &place, &j->arena, j->diag));
    KILN_ALLOC(j->names, &j->arena, j->n_names);
    for (size_t i = 0; i < j->n_names; i++) {
        j->names[i] = needed[i].name;
    }
    if (j->n_names > 1) {
        qsort(j->names, j->n_names, sizeof *j->names, by_name);
    }
    return KILN_OK;
}

/* A calibration of nothing yet becomes one of this engine's model; others must be. */
static kiln_status describe(job *j) {
    kiln_calibration_info have;
    const char *preprocess = j->run.preprocess ? j->run.preprocess : "";
    kiln_engine_info engine;
    kiln_engine_get_info(j->engine, &engine);
    kiln_calibration_get_info(j->calibration, &have);
    if (have.tensors == 0) {
        return kiln_calibration_describe(j->calibration, engine.model_hash, preprocess, j->diag);
    }
    if (strcmp(have.model_hash, engine.model_hash) != 0 ||
        strcmp(have.preprocess, preprocess) != 0) {
        return kiln_fail(j->diag, KILN_F_CALIBRATION,
                         "the calibration is of another model or other preprocessing");
    }
    return KILN_OK;
}

/* One hash for each sample, of those of its inputs. */
static void count_samples(void *user, const kiln_feed *feed, const kiln_fed *fed) {
    job *j = user;
    kiln_hash128 parts[KILN_DATASET_MAX_INPUTS];
    const kiln_tensor *t;
    for (int64_t i = 0; i < fed->count; i++) {
        size_t n = 0;
        for (; n < KILN_COUNT_OF(parts) && (t = kiln_feed_input(feed, n)) != NULL; n++) {
            bool rows = t->rank > 0 && t->dims[0] == fed->rows;
            size_t one = kiln_tensor_bytes(t) / (size_t)(rows ? fed->rows : 1);
            size_t at = rows ? (size_t)i * one : 0;
            parts[n] = kiln_hash_128((const char *)t->data + at, one);
        }
        kiln_calibration_count_sample(j->calibration, parts, n * sizeof parts[0]);
    }
}

static kiln_status calibrate(job *j, const kiln_env *env, const kiln_quantize_options *options) {
    const kiln_observe_fns fns = {.wants = is_needed, .see = see, .ran = count_samples, .user = j};
    KILN_TRY(list_names(j, options));
    KILN_TRY(describe(j));
    return kiln_observe(j->engine, j->context, env, &j->run, &fns, j->diag);
}

kiln_status kiln_calibrate(kiln_calibration *calibration, const kiln_engine *engine,
                           kiln_context *context, const kiln_env *env,
                           const kiln_calibrate_run *run, const kiln_quantize_options *options,
                           kiln_diag *diag) {
    job j = {.calibration = calibration, .engine = engine, .context = context, .diag = diag};
    if (kiln_options_read(&j.run, sizeof j.run, run) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION, "the options have no size, or unknown fields");
    }
    kiln_arena_init(&j.arena, env);
    kiln_diag_enter(diag, "calibrating");
    kiln_status status = calibrate(&j, env, options);
    kiln_diag_leave(diag);
    kiln_arena_free(&j.arena);
    return kiln_diag_close(diag, status);
}
