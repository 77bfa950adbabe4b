/* quant.h - what the quantizing verbs share. */
#ifndef KILN_CLI_QUANT_H
#define KILN_CLI_QUANT_H

#include "cli.h"
#include "kiln/quant.h"

/* The options given; `style` is "kiln" (or NULL), "tensorrt" or "onnxruntime". 0 or the exit
 * status. */
int quant_options(cli *c, const char *style, kiln_quantize_options *out);
/* For a verb that does not quantize unless told to: what no rule fits is float, unless `int8` or
 * ranges are given. */
void quant_float_default(const cli *c, bool int8, kiln_quantize_options *out);
/* "int8", "bf16", "fp16", "fp32". */
const char *quant_precision_text(kiln_dtype dtype);
/* "12 of 14 layers in int8, 2 in bf16". */
const char *quant_summary(const kiln_model *model);
/* The layers of --layer, whose activations are otherwise found by out->calibrate. 0 or the exit
 * status (layers.c). */
int layer_options(cli *c, kiln_quantize_options *out);
/* The rules of --precision as one text, or NULL without any. 0 or the exit status (layers.c). */
int precision_rules(cli *c, const char **out);
/* A run over a data set of --calib, as the options say; a path of a calibration file. */
kiln_calibrate_run calibrate_run_of(const cli *c, const char *data, const kiln_progress *progress);
bool is_calibration(const char *path);
/* What --improve does before calibrating, without it only what is done `by_default`: *out is the
 * better model, or NULL when that is nothing. 0 or the exit status (improve.c). */
int improve_float(cli *c, const kiln_model *model, const kiln_build_options *build, bool by_default,
                  kiln_model **out);
/* What it does after quantizing: puts a better one in the place of *model, which was made of
 * `from`. */
int improve_int8(cli *c, kiln_model **model, const kiln_model *from,
                 const kiln_build_options *build);
/* Runs --calib: data sets through the model, calibration files merged; writes --save-calib. *out
 * is to be given back also after a failure. */
int quant_calibrate(cli *c, const kiln_model *model, const kiln_build_options *build,
                    const kiln_quantize_options *options, kiln_calibration **out);

enum { QUANT_MAX_TRIALS = 24, QUANT_MAX_CANDIDATES = 32 };

/* A quantized model and how it came about. */
typedef struct quant_made {
    bool smooth;        /* set before: by default the float model may be smoothed */
    bool timed;         /* set before: quant_time follows, which improves what it makes */
    kiln_model *better; /* the improved float model that the calibration is of, or NULL */
    kiln_model *model;
    kiln_calibration *calibration;
    kiln_ranges *given;                  /* of --ranges, or NULL */
    kiln_trial trials[QUANT_MAX_TRIALS]; /* of --calibrator auto, where there is data */
    size_t n_trials;
} quant_made;

/* Calibrates, reads --ranges, quantizes. *out is to be given back also after a failure. */
int quant_model(cli *c, const kiln_model *model, const kiln_build_options *build,
                const kiln_quantize_options *options, quant_made *out);
/* Quantizes again, but for layers that are slower here in 8 bits, by the calibrator chosen. */
int quant_time(cli *c, const kiln_model *model, const kiln_build_options *build,
               const kiln_quantize_options *options, quant_made *made);
/* The options with the calibrator that the trials chose; `how` holds it and has to live on. */
void quant_fix_calibrator(kiln_quantize_options *options, kiln_calibrate_options *how,
                          const quant_made *made);
void quant_free(quant_made *made);

/* The data set that --calib names first, as calibrating takes it; false for none. */
bool quant_first_data(const cli *c, kiln_calibrate_run *out);

/* A study of layers before it begins: the model, calibrated, with the calibrator that the options
 * name or that --calibrator auto chose. */
typedef struct quant_study {
    kiln_model *model;
    quant_made made;
    kiln_open_options open;
    kiln_quantize_options options;
    kiln_calibrate_options how; /* options.calibrate */
    kiln_calibrate_run data;    /* the first of --calib, else --eval */
    kiln_calibrate_run eval;    /* --eval, if given */
    kiln_study_options study;
    kiln_progress progress;
} quant_study;

/* Loads, calibrates and fills in; `what` is shown with the progress. *out is to be given back also
 * after a failure. */
int quant_study_begin(cli *c, const char *what, quant_study *out);
void quant_study_free(quant_study *s);
/* After CANCELLED: how to go on. */
void quant_study_resume(cli *c, const kiln_study_options *o);
/* "percentile 99.99". */
const char *quant_calibrator_text(kiln_calibrator calibrator, double percentile);
/* The trials as a table, and as the array "trials" of an object. Nothing without any. */
void quant_show_trials(const cli *c, const quant_made *made);
void quant_json_trials(json *j, const quant_made *made);
/* A row of a table of ranges; the tensor stands with its best. */
#define QUANT_RANGE_HEADS "tensor|>elements|>min|>max|range by|>lo|>hi|>SQNR dB"
void quant_range_row(table *t, const kiln_seen *seen, const kiln_range *r, bool best);
/* The array "candidates" of an object: ranges with their errors. */
void quant_json_candidates(json *j, const kiln_range *all, size_t n);
/* Layers with weights, and those of them that are int8. */
void quant_count(const kiln_model *model, size_t *layers, size_t *int8_layers);

#endif
