/* improve.c - --improve: what is done to a model besides choosing ranges. */
#include <string.h>

#include "quant.h"

static const struct {
    const char *name;
    uint32_t what;
} names[] = {
    {"equalize", KILN_IMPROVE_EQUALIZE}, {"smooth", KILN_IMPROVE_SMOOTH},
    {"round", KILN_IMPROVE_ROUND},       {"bias", KILN_IMPROVE_BIAS},
    {"outliers", KILN_IMPROVE_OUTLIERS}, {"none", 0},
};

static bool read_word(cli *c, const char *word, kiln_improve_options *out) {
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (strcmp(word, names[i].name) == 0) {
            out->what |= names[i].what;
            return true;
        }
    }
    if (strncmp(word, "smooth=", 7) == 0 && parse_number(word + 7, &out->smooth_alpha) &&
        out->smooth_alpha > 0 && out->smooth_alpha <= 1) {
        out->what |= KILN_IMPROVE_SMOOTH;
        return true;
    }
    usage_error(c,
                "equalize, smooth, smooth=0.5 (above 0, at most 1), outliers, round, bias or none",
                "--improve has no \"%s\"", word);
    return false;
}

/* The options, with the data sets of --calib. */
static int read_options(cli *c, const kiln_build_options *build, const kiln_progress *progress,
                        kiln_improve_options *out) {
    kiln_calibrate_run *runs = allocate((c->calib.count + 1) * sizeof *runs);
    *out = (kiln_improve_options){
        .size = sizeof *out, .runs = runs, .build = build, .threads = (int32_t)c->threads};
    for (size_t i = 0; i < c->improve.count; i++) {
        if (!read_word(c, c->improve.items[i], out)) {
            return kiln_status_exit_code(KILN_E_USAGE);
        }
    }
    for (size_t i = 0; i < c->calib.count; i++) {
        if (!is_calibration(c->calib.items[i])) {
            runs[out->n_runs++] = calibrate_run_of(c, c->calib.items[i], progress);
        }
    }
    /* What made every network tried better, on calibration data. A smoothed model is another one,
     * which calibrations and ranges that are kept apart from it would not fit. */
    if (c->improve.count == 0 && out->n_runs > 0) {
        bool apart = c->save_calib || c->ranges_file || out->n_runs < c->calib.count;
        out->what = KILN_IMPROVE_ROUND | KILN_IMPROVE_BIAS | (apart ? 0 : KILN_IMPROVE_SMOOTH);
    } else if (c->improve.count == 0 && c->dynamic) {
        out->what = KILN_IMPROVE_OUTLIERS;
    }
    return 0;
}

static int end(cli *c, kiln_status status) {
    end_progress(c);
    return status == KILN_OK ? interrupted() : finish(c, status);
}

int improve_float(cli *c, const kiln_model *model, const kiln_build_options *build, bool by_default,
                  kiln_model **out) {
    kiln_improve_options o;
    kiln_progress progress = watch_progress(c, "smooth");
    int failed = read_options(c, build, &progress, &o);
    const uint32_t here = KILN_IMPROVE_EQUALIZE | KILN_IMPROVE_SMOOTH | KILN_IMPROVE_OUTLIERS;
    o.what = c->improve.count == 0 && !by_default ? 0 : o.what;
    o.what &= c->dynamic ? here : UINT32_MAX;
    if (failed != 0 || !(o.what & here)) {
        return failed;
    }
    return end(c, kiln_improve_float(out, model, &o, c->diag));
}

int improve_int8(cli *c, kiln_model **model, const kiln_model *from,
                 const kiln_build_options *build) {
    kiln_improve_options o;
    kiln_model *better = NULL;
    kiln_progress progress = watch_progress(c, "improve");
    int failed = read_options(c, build, &progress, &o);
    o.what &= c->dynamic ? 0 : KILN_IMPROVE_ROUND | KILN_IMPROVE_BIAS;
    if (failed != 0 || o.what == 0) {
        return failed;
    }
    kiln_status status = kiln_improve_int8(&better, *model, from, &o, c->diag);
    if (status == KILN_OK) {
        kiln_model_destroy(*model);
        *model = better;
    }
    return end(c, status);
}
