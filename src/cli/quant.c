/* quant.c - what the quantizing verbs share: options into ranges and a quantized model. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "quant.h"

bool is_calibration(const char *path) {
    size_t n = strlen(path);
    return n >= 6 && strcmp(path + n - 6, ".calib") == 0;
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
                                    .symmetric = c->symmetric,
                                    .cut_weight = c->cut_weight};
    how->calibrator = c->calibrator ? kiln_calibrator_parse(c->calibrator) : KILN_CALIBRATOR_AUTO;
    *out = (kiln_quantize_options){.size = sizeof *out,
                                   .keep_first = (int32_t)c->keep_first,
                                   .keep_last = (int32_t)c->keep_last,
                                   .calibrate = how,
                                   .dynamic = c->dynamic};
    out->style = !style || strcmp(style, "kiln") == 0 ? KILN_QDQ_KILN
                 : strcmp(style, "tensorrt") == 0     ? KILN_QDQ_TENSORRT
                                                      : KILN_QDQ_ONNXRUNTIME;
    if (c->bf16 && c->fp16) {
        return usage_error(c, NULL, "--bf16 and --fp16 exclude each other");
    }
    out->others = c->bf16 ? KILN_DTYPE_BF16 : c->fp16 ? KILN_DTYPE_F16 : KILN_DTYPE_F32;
    int failed = precision_rules(c, &out->precision);
    return failed ? failed : layer_options(c, out);
}

void quant_float_default(const cli *c, bool int8, kiln_quantize_options *out) {
    bool other = int8 || c->dynamic || c->weight_only;
    if (!other && c->calib.count == 0 && !c->ranges_file) {
        const char *all = quant_precision_text(out->others);
        out->precision = out->precision ? keepf("%s\n%s", all, out->precision) : all;
    }
}

/* ---- Calibration ---- */

kiln_calibrate_run calibrate_run_of(const cli *c, const char *data, const kiln_progress *progress) {
    return (kiln_calibrate_run){.size = sizeof(kiln_calibrate_run),
                                .data = data,
                                .preprocess = preprocess_text(c),
                                .count = c->calib_count,
                                .batch = c->calib_batch,
                                .shuffle = c->calib_shuffle,
                                .seed = (uint64_t)c->seed,
                                .progress = progress};
}

/* Others' tools take attention in pieces: Attention is too new an operator, and ONNX Runtime does
 * not broadcast its mask. */
static const char *const *off_for(const kiln_quantize_options *options,
                                  const kiln_build_options *build) {
    size_t n = 0;
    while (build->off && build->off[n]) {
        n++;
    }
    if (options->style == KILN_QDQ_KILN) {
        return build->off;
    }
    const char **all = allocate((n + 2) * sizeof *all);
    for (size_t i = 0; i < n; i++) {
        all[i] = build->off[i];
    }
    all[n] = "attention";
    all[n + 1] = NULL;
    return all;
}

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
        kiln_calibrate_run run = calibrate_run_of(c, data, &progress);
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
    for (size_t i = 0; !options->dynamic && i < c->calib.count && status == KILN_OK; i++) {
        const char *path = c->calib.items[i];
        kiln_calibration *part = NULL;
        if (is_calibration(path)) {
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

bool quant_first_data(const cli *c, kiln_calibrate_run *out) {
    for (size_t i = 0; i < c->calib.count; i++) {
        if (!is_calibration(c->calib.items[i])) {
            *out = calibrate_run_of(c, c->calib.items[i], NULL);
            return true;
        }
    }
    return false;
}

static int choose(cli *c, const kiln_model *model, const kiln_build_options *build,
                  const kiln_quantize_options *options, quant_made *out) {
    kiln_calibrate_run data;
    kiln_status status;
    bool all = !options->dynamic && options->calibrate->calibrator == KILN_CALIBRATOR_AUTO;
    if (all && quant_first_data(c, &data)) {
        kiln_progress progress = watch_progress(c, "choose");
        kiln_trial_options how = {.size = sizeof how,
                                  .data = &data,
                                  .build = build,
                                  .threads = (int32_t)c->threads,
                                  .ranges = out->given};
        data.progress = &progress;
        status = kiln_quantize_best(&out->model, model, out->calibration, options, &how,
                                    out->trials, QUANT_MAX_TRIALS, &out->n_trials, c->diag);
        end_progress(c);
    } else {
        status = kiln_quantize(&out->model, model, out->calibration, out->given, options, c->diag);
    }
    return status == KILN_OK ? interrupted() : finish(c, status);
}

static const char *trial_text(const kiln_trial *t) {
    return t->calibrator == KILN_CALIBRATOR_MSE && t->cut_weight > 1
               ? keepf("mse, cut-weight %g", t->cut_weight)
               : quant_calibrator_text(t->calibrator, t->percentile);
}

static void say_choice(cli *c, const quant_made *made) {
    for (size_t i = 0; i < made->n_trials; i++) {
        const kiln_trial *t = &made->trials[i];
        if (t->chosen) {
            say(c, KILN_LOG_INFO, "%-8s ranges by %s: outputs %.2f dB from float on %lld samples",
                "quantize", trial_text(t), t->sqnr_db, (long long)t->samples);
        }
    }
}

static int weights_alone(cli *c, const kiln_model *model, const kiln_quantize_options *options,
                         quant_made *out) {
    bool four = strcmp(c->weight_only, "int4") == 0;
    int64_t block = c->weight_block > 0 ? c->weight_block : four ? 32 : 0;
    const kiln_weight_options o = {.size = sizeof o,
                                   .bits = four ? 4 : 8,
                                   .block = block,
                                   .precision = options->precision,
                                   .off = options->off};
    kiln_status status = kiln_calibration_create(&out->calibration, c->env);
    status = status ? status : kiln_quantize_weights(&out->model, model, &o, c->diag);
    return finish(c, status);
}

/* Ranges are given that were found before. */
static bool holds_ranges(const cli *c) {
    for (size_t i = 0; i < c->calib.count; i++) {
        if (is_calibration(c->calib.items[i])) {
            return true;
        }
    }
    return c->ranges_file != NULL;
}

int quant_model(cli *c, const kiln_model *model, const kiln_build_options *build,
                const kiln_quantize_options *options, quant_made *out) {
    kiln_quantize_options o = *options;
    kiln_build_options b = *build; /* every network is made with the same passes */
    b.off = o.off = off_for(options, build);
    if (c->weight_only) {
        return weights_alone(c, model, &o, out);
    }
    bool given_ranges = c->calib.count > 0 || c->ranges_file;
    if (o.dynamic && holds_ranges(c)) {
        return usage_error(c, NULL,
                           "--dynamic finds ranges at run time: it takes no --ranges and no .calib "
                           "file; what --calib names is data to smooth by");
    }
    if (!o.dynamic && !given_ranges && kiln_quantize_wants_int8(&o)) {
        return usage_error(c,
                           "--calib names data, --ranges a file of another tool's ranges, "
                           "--dynamic finds them at run time",
                           "int8 needs ranges: --calib PATH or --ranges FILE");
    }
    int failed = read_ranges(c, &out->given);
    failed = failed ? failed : improve_float(c, model, &b, out->smooth, &out->better);
    const kiln_model *from = out->better ? out->better : model;
    failed = failed ? failed : quant_calibrate(c, from, &b, &o, &out->calibration);
    failed = failed ? failed : choose(c, from, &b, &o, out);
    failed = failed || out->timed ? failed : improve_int8(c, &out->model, from, &b);
    print_findings(c);
    say_choice(c, out);
    return failed;
}

void quant_fix_calibrator(kiln_quantize_options *options, kiln_calibrate_options *how,
                          const quant_made *made) {
    *how = *options->calibrate;
    for (size_t i = 0; i < made->n_trials; i++) {
        const kiln_trial *t = &made->trials[i];
        if (t->chosen) {
            how->calibrator = t->calibrator;
            how->cut_weight = t->cut_weight;
            if (t->calibrator == KILN_CALIBRATOR_PERCENTILE) {
                how->percentiles = &t->percentile;
                how->n_percentiles = 1;
            }
        }
    }
    options->calibrate = how;
}

int quant_time(cli *c, const kiln_model *model, const kiln_build_options *build,
               const kiln_quantize_options *options, quant_made *made) {
    kiln_quantize_options o = *options;
    kiln_calibrate_options how;
    kiln_model *timed = NULL;
    const kiln_timing_options t = {
        .size = sizeof t, .build = build, .threads = (int32_t)c->threads, .ranges = made->given};
    o.off = build->off;
    quant_fix_calibrator(&o, &how, made);
    const kiln_model *from = made->better ? made->better : model;
    kiln_status status = kiln_quantize_timed(&timed, from, made->calibration, &o, &t, c->diag);
    if (status != KILN_OK) {
        return finish(c, status);
    }
    kiln_model_destroy(made->model);
    made->model = timed;
    int failed = improve_int8(c, &made->model, from, build);
    return failed ? failed : interrupted();
}

void quant_free(quant_made *made) {
    kiln_model_destroy(made->model);
    kiln_model_destroy(made->better);
    kiln_calibration_destroy(made->calibration);
    kiln_ranges_destroy(made->given);
    *made = (quant_made){0};
}

/* ---- What is said of it ---- */

const char *quant_calibrator_text(kiln_calibrator calibrator, double percentile) {
    const char *name = kiln_calibrator_name(calibrator);
    return calibrator == KILN_CALIBRATOR_PERCENTILE ? keepf("%s %g", name, percentile) : name;
}

static const char *share_text(double share) {
    return isnan(share) ? "" : keepf("%.2f %%", 100 * share);
}

void quant_show_trials(const cli *c, const quant_made *made) {
    table *t = table_new("ranges by|>SQNR dB|>cosine|>agreement|>top-1|>float top-1|>samples|");
    for (size_t i = 0; i < made->n_trials; i++) {
        const kiln_trial *r = &made->trials[i];
        table_cell(t, "%s", r->calibrator == KILN_CALIBRATOR_AUTO ? "least error" : trial_text(r));
        table_cell(t, "%.2f", r->sqnr_db);
        table_cell(t, "%.6f", r->cosine);
        table_cell(t, "%s", share_text(r->agreement));
        table_cell(t, "%s", share_text(r->top1));
        table_cell(t, "%s", share_text(r->float_top1));
        table_cell(t, "%lld", (long long)r->samples);
        table_cell(t, "%s", r->chosen ? "chosen" : "");
    }
    if (made->n_trials > 0) {
        table_print(t, c->format);
    }
}

void quant_json_trials(json *j, const quant_made *made) {
    json_key(j, "trials");
    json_open(j, '[');
    for (size_t i = 0; i < made->n_trials; i++) {
        const kiln_trial *r = &made->trials[i];
        json_open(j, '{');
        json_key_text(j, "calibrator", kiln_calibrator_name(r->calibrator));
        if (r->calibrator == KILN_CALIBRATOR_PERCENTILE) {
            json_key_number(j, "percentile", r->percentile);
        }
        json_key_number(j, "cut_weight", r->cut_weight);
        json_key_number(j, "sqnr_db", r->sqnr_db);
        json_key_number(j, "cosine", r->cosine);
        json_key_number(j, "agreement", r->agreement);
        json_key_number(j, "top1", r->top1);
        json_key_number(j, "float_top1", r->float_top1);
        json_key_int(j, "samples", r->samples);
        json_key_bool(j, "chosen", r->chosen);
        json_close(j);
    }
    json_close(j);
}

void quant_range_row(table *t, const kiln_seen *seen, const kiln_range *r, bool best) {
    table_cell(t, "%s", best ? safe(seen->name) : "");
    table_cell(t, "%s", best ? count_text((double)seen->count) : "");
    table_cell(t, "%s", best ? keepf("%.4g", seen->min) : "");
    table_cell(t, "%s", best ? keepf("%.4g", seen->max) : "");
    table_cell(t, "%s", quant_calibrator_text(r->calibrator, r->percentile));
    table_cell(t, "%.5g", r->lo);
    table_cell(t, "%.5g", r->hi);
    table_cell(t, "%s", isinf(r->sqnr_db) ? "exact" : keepf("%.2f", r->sqnr_db));
}

void quant_json_candidates(json *j, const kiln_range *all, size_t n) {
    json_key(j, "candidates");
    json_open(j, '[');
    for (size_t i = 0; i < n; i++) {
        json_open(j, '{');
        json_key_text(j, "calibrator", kiln_calibrator_name(all[i].calibrator));
        if (all[i].calibrator == KILN_CALIBRATOR_PERCENTILE) {
            json_key_number(j, "percentile", all[i].percentile);
        }
        json_key_number(j, "lo", all[i].lo);
        json_key_number(j, "hi", all[i].hi);
        json_key_number(j, "sqnr_db", all[i].sqnr_db);
        json_close(j);
    }
    json_close(j);
}

const char *quant_precision_text(kiln_dtype dtype) {
    return dtype == KILN_DTYPE_I8     ? "int8"
           : dtype == KILN_DTYPE_BF16 ? "bf16"
           : dtype == KILN_DTYPE_F16  ? "fp16"
                                      : "fp32";
}

const char *quant_summary(const kiln_model *model) {
    kiln_node_precision p;
    size_t layers, int8, half[2] = {0, 0};
    quant_count(model, &layers, &int8);
    for (size_t i = 0; kiln_model_precision(model, i, &p); i++) {
        half[0] += p.layer && p.dtype == KILN_DTYPE_BF16 ? 1 : 0;
        half[1] += p.layer && p.dtype == KILN_DTYPE_F16 ? 1 : 0;
    }
    const char *text = keepf("%zu of %zu layers in int8", int8, layers);
    text = half[0] ? keepf("%s, %zu in bf16", text, half[0]) : text;
    return half[1] ? keepf("%s, %zu in fp16", text, half[1]) : text;
}

void quant_count(const kiln_model *model, size_t *layers, size_t *int8_layers) {
    kiln_node_precision p;
    *layers = *int8_layers = 0;
    for (size_t i = 0; kiln_model_precision(model, i, &p); i++) {
        *layers += p.layer ? 1 : 0;
        *int8_layers += p.layer && p.int8 ? 1 : 0;
    }
}
