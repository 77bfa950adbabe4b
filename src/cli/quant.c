/* quant.c - what the quantizing verbs share: options into ranges and a quantized model. */
#include <stddef.h>
#include <string.h>

#include "quant.h"

static bool ends_with(const char *text, const char *ending) {
    size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcmp(text + n - m, ending) == 0;
}

/* ---- Options ---- */

int quant_options(cli *c, const char *style, kiln_quantize_options *out) {
    kiln_calibrate_options *how = allocate(sizeof *how);
    double *percentiles = allocate(c->percentiles.count * sizeof *percentiles + 1);
    if (!parse_number_list(c, "percentiles", &c->percentiles, percentiles, c->percentiles.count)) {
        return kiln_status_exit_code(KILN_E_USAGE);
    }
    *how = (kiln_calibrate_options){.size = sizeof *how,
                                    .percentiles = percentiles,
                                    .n_percentiles = c->percentiles.count,
                                    .symmetric = c->symmetric};
    how->calibrator = c->calibrator ? kiln_calibrator_parse(c->calibrator) : KILN_CALIBRATOR_AUTO;
    *out = (kiln_quantize_options){.size = sizeof *out,
                                   .keep_first = (int32_t)c->keep_first,
                                   .keep_last = (int32_t)c->keep_last,
                                   .calibrate = how};
    out->style = !style || strcmp(style, "kiln") == 0 ? KILN_QDQ_KILN
                 : strcmp(style, "tensorrt") == 0     ? KILN_QDQ_TENSORRT
                                                      : KILN_QDQ_ONNXRUNTIME;
    int failed = precision_rules(c, &out->precision);
    return failed ? failed : layer_options(c, out);
}

/* ---- Calibration ---- */

static int run_data(cli *c, const kiln_model *model, const kiln_build_options *build,
                    const kiln_quantize_options *options, const char *data,
                    kiln_calibration *calibration) {
    kiln_engine *engine = NULL;
    kiln_context *context = NULL;
    kiln_build_options b = *build;
    b.portable = false;
    kiln_context_options x = {.size = sizeof x, .threads = (int32_t)c->threads};
    kiln_status status = kiln_engine_build(&engine, model, &b, c->diag);
    status = status ? status : kiln_context_create(&context, engine, &x, c->diag);
    if (status == KILN_OK) {
        kiln_progress progress = watch_progress(c, "calibrate");
        kiln_calibrate_run run = {.size = sizeof run,
                                  .data = data,
                                  .preprocess = preprocess_text(c),
                                  .count = c->calib_count,
                                  .batch = c->calib_batch,
                                  .shuffle = c->calib_shuffle,
                                  .seed = (uint64_t)c->seed,
                                  .progress = &progress};
        cancel_on_signal(context);
        status = kiln_calibrate(calibration, engine, context, c->env, &run, options, c->diag);
        cancel_on_signal(NULL);
        end_progress(c);
    }
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
    return status == KILN_OK ? interrupted() : finish(c, status);
}

int quant_calibrate(cli *c, const kiln_model *model, const kiln_build_options *build,
                    const kiln_quantize_options *options, kiln_calibration **out) {
    kiln_status status = kiln_calibration_create(out, c->env);
    for (size_t i = 0; i < c->calib.count && status == KILN_OK; i++) {
        const char *path = c->calib.items[i];
        kiln_calibration *part = NULL;
        if (ends_with(path, ".calib")) {
            status = kiln_calibration_read(&part, c->env, path, c->diag);
            status = status ? status : kiln_calibration_merge(*out, part, c->diag);
            kiln_calibration_destroy(part);
            continue;
        }
        int failed = run_data(c, model, build, options, path, *out);
        if (failed != 0) {
            return failed;
        }
    }
    if (status == KILN_OK && c->save_calib) {
        status = kiln_calibration_write(*out, c->save_calib, c->diag);
    }
    return status == KILN_OK ? 0 : finish(c, status);
}

static int read_ranges(cli *c, kiln_ranges **out) {
    kiln_status status =
        c->ranges_file ? kiln_ranges_read(out, c->env, c->ranges_file, c->diag) : KILN_OK;
    return status == KILN_OK ? 0 : finish(c, status);
}

int quant_model(cli *c, const kiln_model *model, const kiln_build_options *build,
                const kiln_quantize_options *options, kiln_calibration **calibration,
                kiln_model **out) {
    kiln_ranges *given = NULL;
    kiln_quantize_options o = *options;
    o.off = build->off;
    if (c->calib.count == 0 && !c->ranges_file) {
        return usage_error(c, "--calib names data, --ranges a file of another tool's ranges",
                           "int8 needs ranges: --calib PATH or --ranges FILE");
    }
    int failed = read_ranges(c, &given);
    failed = failed ? failed : quant_calibrate(c, model, build, &o, calibration);
    if (failed == 0) {
        kiln_status status = kiln_quantize(out, model, *calibration, given, &o, c->diag);
        failed = status == KILN_OK ? 0 : finish(c, status);
    }
    kiln_ranges_destroy(given);
    print_findings(c);
    return failed;
}

void quant_count(const kiln_model *model, size_t *layers, size_t *int8_layers) {
    kiln_node_precision p;
    *layers = *int8_layers = 0;
    for (size_t i = 0; kiln_model_precision(model, i, &p); i++) {
        *layers += p.layer ? 1 : 0;
        *int8_layers += p.layer && p.int8 ? 1 : 0;
    }
}
