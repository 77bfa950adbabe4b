/* cmd_quantize.c - an ONNX model with QuantizeLinear and DequantizeLinear from a float one. */
#include <stddef.h>
#include <string.h>

#include "quant.h"

typedef struct own {
    const char *output, *target, *trt_cache;
    int64_t external;
} own;

typedef struct job {
    kiln_model *model;
    quant_made made;
    kiln_quantize_options options;
} job;

/* Every candidate's range for each tensor. */
static void json_tensors(const cli *c, json *out, const job *j) {
    kiln_seen seen;
    kiln_range all[QUANT_MAX_CANDIDATES];
    json_key(out, "tensors");
    json_open(out, '[');
    for (size_t i = 0; kiln_calibration_get(j->made.calibration, i, &seen); i++) {
        size_t n = 0;
        kiln_status status =
            kiln_calibration_candidates(j->made.calibration, seen.name, j->options.calibrate, all,
                                        QUANT_MAX_CANDIDATES, &n, c->diag);
        json_open(out, '{');
        json_key_text(out, "name", seen.name);
        quant_json_candidates(out, all, status == KILN_OK ? n : 0);
        json_close(out);
    }
    json_close(out);
}

/* The same as a table. */
static void show_tensors(const cli *c, const job *j) {
    kiln_seen seen;
    kiln_range all[QUANT_MAX_CANDIDATES];
    table *t = table_new(QUANT_RANGE_HEADS);
    for (size_t i = 0; kiln_calibration_get(j->made.calibration, i, &seen); i++) {
        size_t n = 0;
        kiln_status status =
            kiln_calibration_candidates(j->made.calibration, seen.name, j->options.calibrate, all,
                                        QUANT_MAX_CANDIDATES, &n, c->diag);
        for (size_t k = 0; status == KILN_OK && k < n; k++) {
            quant_range_row(t, &seen, &all[k], k == 0);
        }
    }
    table_print(t, c->format);
}

/* What TensorRT cannot read is for ONNX Runtime. */
static const char *target_of(const cli *c, const own *o) {
    return o->target ? o->target : c->dynamic ? "onnxruntime" : "tensorrt";
}

static void show_json(const cli *c, const own *o, const job *j, size_t layers, size_t int8) {
    kiln_node_precision p;
    kiln_calibration_info info;
    json out = json_begin(c, "kiln.quantize/1");
    kiln_calibration_get_info(j->made.calibration, &info);
    json_key_text(&out, "model", o->output);
    json_key_text(&out, "for", target_of(c, o));
    json_key_bool(&out, "dynamic", c->dynamic);
    json_key_int(&out, "layers", (int64_t)layers);
    json_key_int(&out, "int8_layers", (int64_t)int8);
    json_key_int(&out, "calibration_samples", (int64_t)info.samples);
    json_key_text(&out, "calibration_hash", info.data_hash);
    json_key(&out, "nodes");
    json_open(&out, '[');
    for (size_t i = 0; kiln_model_precision(j->made.model, i, &p); i++) {
        json_open(&out, '{');
        json_key_text(&out, "name", p.name);
        json_key_text(&out, "op", p.op);
        json_key_bool(&out, "layer", p.layer);
        json_key_text(&out, "precision", quant_precision_text(p.dtype));
        json_key_text(&out, "reason", p.reason);
        json_close(&out);
    }
    json_close(&out);
    quant_json_trials(&out, &j->made);
    json_tensors(c, &out, j);
    json_end(&out);
}

static void show(const cli *c, const own *o, const job *j) {
    size_t layers, int8;
    kiln_node_precision p;
    kiln_calibration_info info;
    quant_count(j->made.model, &layers, &int8);
    if (c->format == FORMAT_JSON) {
        show_json(c, o, j, layers, int8);
        return;
    }
    table *t = table_new("stays float|op|why");
    size_t n = 0;
    for (size_t i = 0; kiln_model_precision(j->made.model, i, &p); i++) {
        if (!p.int8 && (p.layer || c->verbose)) {
            table_cell(t, "%s", safe(p.name));
            table_cell(t, "%s", p.op);
            table_cell(t, "%s", p.reason ? p.reason : "");
            n++;
        }
    }
    if (n > 0) {
        table_print(t, c->format);
    }
    if (c->verbose) {
        show_tensors(c, j);
    }
    quant_show_trials(c, &j->made);
    kiln_calibration_get_info(j->made.calibration, &info);
    t = table_new("model|for|>layers|>int8|>samples|>tensors");
    table_cell(t, "%s", o->output);
    table_cell(t, "%s", target_of(c, o));
    table_cell(t, "%zu", layers);
    table_cell(t, "%zu", int8);
    table_cell(t, "%llu", (unsigned long long)info.samples);
    table_cell(t, "%zu", info.tensors);
    table_print(t, c->format);
    verdict(c, true, "%s", quant_summary(j->made.model));
}

/* TensorRT's cache of the calibration's symmetric ranges. */
static kiln_status write_cache(const cli *c, const own *o, const job *j) {
    kiln_ranges *all;
    kiln_calibrate_options how = *j->options.calibrate;
    how.symmetric = true;
    kiln_status status = kiln_ranges_create(&all, c->env);
    if (status == KILN_OK) {
        status = kiln_ranges_calibrate(all, j->made.calibration, &how, c->diag);
        status = status ? status : kiln_ranges_write_trt(all, o->trt_cache, c->diag);
        kiln_ranges_destroy(all);
    }
    return status;
}

static int quantize(cli *c, const own *o, job *j) {
    kiln_open_options open;
    const char *path = c->operands.items[0];
    int failed = session_options(c, path, &open);
    failed = failed ? failed : quant_options(c, target_of(c, o), &j->options);
    if (failed != 0) {
        return failed;
    }
    kiln_status status = kiln_model_load(&j->model, c->env, path, open.model, c->diag);
    if (status != KILN_OK || c->dry_run) {
        return finish(c, status);
    }
    failed = quant_model(c, j->model, open.build, &j->options, &j->made);
    if (failed != 0) {
        return failed;
    }
    if (j->options.style == KILN_QDQ_TENSORRT && !c->weight_only) {
        status = kiln_model_check_tensorrt(j->made.model, c->diag);
        if (status != KILN_OK) {
            return finish(c, status);
        }
    }
    status = kiln_model_export(j->made.model, o->output, (size_t)o->external, c->diag);
    if (status == KILN_OK && o->trt_cache) {
        status = write_cache(c, o, j);
    }
    if (status == KILN_OK) {
        show(c, o, j);
    }
    return finish(c, status);
}

static int run(cli *c, void *given) {
    const own *o = given;
    job j = {.made = {.smooth = !o->trt_cache}}; /* the cache is for the model as it is */
    if (!o->output) {
        return usage_error(c, NULL, "`kiln quantize` needs -o FILE");
    }
    if (c->dynamic && o->trt_cache) {
        return usage_error(c, NULL, "--trt-cache holds ranges, which --dynamic does not find");
    }
    int status = quantize(c, o, &j);
    quant_free(&j.made);
    kiln_model_destroy(j.model);
    return status;
}

static const opt options[] = {
    OUTPUT_OPTION(own, "the ONNX file"),
    {.name = "for",
     .kind = OPT_CHOICE,
     .value = "tensorrt|onnxruntime|kiln",
     .at = offsetof(own, target),
     .help = "int8 with zero points 0; uint8 with int32 biases; uint8 with float biases [tensorrt; "
             "onnxruntime with --dynamic]"},
    {.name = "trt-cache",
     .kind = OPT_TEXT,
     .value = "FILE",
     .at = offsetof(own, trt_cache),
     .help = "also write TensorRT's calibration cache"},
    {.name = "external-data",
     .kind = OPT_INT,
     .value = "BYTES",
     .min = 0,
     .at = offsetof(own, external),
     .help = "weights larger than this go to FILE.data [0: none do]"},
};

static const example examples[] = {
    {"kiln quantize net.onnx --calib train/ --scale 1/255 -o net.qdq.onnx", "for TensorRT"},
    {"kiln quantize net.onnx --calib net.calib --for onnxruntime -o net.qdq.onnx",
     "from a calibration made before"},
    {"kiln quantize net.onnx --dynamic -o net.dyn.onnx", "without data: scales at run time"},
    {"kiln quantize net.onnx --calib train.npz --precision name:/head/*=fp32 -o net.qdq.onnx",
     "with some layers left float"},
};

static const opt_group *const groups[] = {&group_quant, &group_picture, &group_build, &group_common,
                                          NULL};

const verb verb_quantize = {
    .name = "quantize",
    .summary = "write a model with QuantizeLinear and DequantizeLinear",
    .operands = "MODEL --calib PATH|--dynamic -o FILE",
    .exits = "the result would break a rule of TensorRT's (with --for tensorrt)",
    .about = "Runs calibration data through the network, finds the range of each value that is to "
             "be held in 8 bits, and writes the network as ONNX with the weights quantized and "
             "QuantizeLinear and DequantizeLinear where 8 bits pay.",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .min_operands = 1,
    .max_operands = 1,
    .run = run};
