/* cmd_calibrate.c - histograms of a network's values, and the ranges they give. */
#include <math.h>
#include <stddef.h>

#include "quant.h"

typedef struct own {
    const char *target;
} own;

static void json_tensor(json *j, const kiln_seen *seen, const kiln_range *all, size_t n) {
    json_open(j, '{');
    json_key_text(j, "name", seen->name);
    json_key_int(j, "count", (int64_t)seen->count);
    json_key_int(j, "zeros", (int64_t)seen->zeros);
    json_key_int(j, "nans", (int64_t)seen->nans);
    json_key_int(j, "infs", (int64_t)seen->infs);
    json_key_number(j, "min", seen->min);
    json_key_number(j, "max", seen->max);
    quant_json_candidates(j, all, n);
    json_close(j);
}

static kiln_status show(cli *c, const kiln_calibration *calibration,
                        const kiln_calibrate_options *how) {
    kiln_calibration_info info;
    kiln_seen seen;
    kiln_range all[QUANT_MAX_CANDIDATES];
    bool as_json = c->format == FORMAT_JSON;
    table *t = table_new(QUANT_RANGE_HEADS);
    json j = {0};
    kiln_calibration_get_info(calibration, &info);
    if (as_json) {
        j = json_begin(c, "kiln.calibrate/1");
        json_key_text(&j, "model_hash", info.model_hash);
        json_key_text(&j, "data_hash", info.data_hash);
        json_key_text(&j, "preprocess", info.preprocess);
        json_key_int(&j, "samples", (int64_t)info.samples);
        json_key(&j, "tensors");
        json_open(&j, '[');
    }
    kiln_status status = KILN_OK;
    for (size_t i = 0; status == KILN_OK && kiln_calibration_get(calibration, i, &seen); i++) {
        size_t n = 0;
        status = kiln_calibration_candidates(calibration, seen.name, how, all, QUANT_MAX_CANDIDATES,
                                             &n, c->diag);
        if (status == KILN_OK && as_json) {
            json_tensor(&j, &seen, all, n);
        }
        for (size_t k = 0; status == KILN_OK && !as_json && k < (c->verbose ? n : 1); k++) {
            quant_range_row(t, &seen, &all[k], k == 0);
        }
    }
    if (as_json) {
        json_close(&j);
        json_end(&j);
    } else {
        table_print(t, c->format);
        verdict(c, status == KILN_OK, "%zu tensors from %llu samples", info.tensors,
                (unsigned long long)info.samples);
    }
    return status;
}

static int calibrate(cli *c, const own *o, kiln_model **model, kiln_calibration **calibration) {
    kiln_open_options open;
    kiln_quantize_options options;
    const char *path = c->operands.items[0];
    int failed = session_options(c, path, &open);
    failed = failed ? failed : quant_options(c, o->target, &options);
    if (failed != 0) {
        return failed;
    }
    if (c->calib.count == 0) {
        return usage_error(c, NULL, "`kiln calibrate` needs --calib PATH");
    }
    kiln_status status = kiln_model_load(model, c->env, path, open.model, c->diag);
    if (status != KILN_OK || c->dry_run) {
        return finish(c, status);
    }
    options.off = open.build->off;
    kiln_model *better = NULL;
    failed = improve_float(c, *model, open.build, false, &better);
    failed = failed
                 ? failed
                 : quant_calibrate(c, better ? better : *model, open.build, &options, calibration);
    kiln_model_destroy(better);
    return failed ? failed : finish(c, show(c, *calibration, options.calibrate));
}

static int run(cli *c, void *given) {
    kiln_model *model = NULL;
    kiln_calibration *calibration = NULL;
    int status = calibrate(c, given, &model, &calibration);
    kiln_calibration_destroy(calibration);
    kiln_model_destroy(model);
    return status;
}

static const opt options[] = {
    {.name = "for",
     .kind = OPT_CHOICE,
     .value = "tensorrt|onnxruntime|kiln",
     .at = offsetof(own, target),
     .help = "whose quantization the values are watched for [kiln]"},
};

static const example examples[] = {
    {"kiln calibrate net.onnx --calib train/ --scale 1/255 --save-calib net.calib",
     "histograms to a file"},
    {"kiln calibrate net.onnx --calib a.calib --calib b.calib --save-calib net.calib",
     "two calibrations made one"},
    {"kiln calibrate net.onnx --calib net.calib -v", "every range that auto chooses from"},
};

static const opt_group *const groups[] = {&group_quant, &group_picture, &group_build, &group_common,
                                          NULL};

const verb verb_calibrate = {
    .name = "calibrate",
    .summary = "find the ranges that 8 bits are to cover",
    .operands = "MODEL --calib PATH",
    .about = "Runs calibration data through the network and keeps a histogram of every value that "
             "quantizing needs; shows the range of each and the error it causes. Calibration files "
             "hold the histograms: they can be merged, and ranges derived again by other methods.",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .min_operands = 1,
    .max_operands = 1,
    .run = run};
