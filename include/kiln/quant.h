/* quant.h - calibrate and quantize: watch a network's values, find the ranges that 8 bits are to
 * cover, and write the network with QuantizeLinear and DequantizeLinear in it.
 *
 * A calibration holds one histogram for each watched tensor, filled batch by batch; nothing else of
 * the data is kept. The result depends on the data alone, not on the order or size of batches, so
 * that calibrations made apart can be merged exactly. Ranges are derived from it as often as
 * wanted, by several methods at once, each with the error it would cause:
 *
 *     kiln_calibration *cal;
 *     kiln_calibration_create(&cal, NULL);
 *     kiln_calibrate(cal, engine, context, NULL,                   // engine: of the float model
 *                    &(kiln_calibrate_run){.size = sizeof(kiln_calibrate_run), .data = "calib/"},
 *                    NULL, diag);
 *     kiln_calibration_write(cal, "net.calib", diag);
 *     kiln_range r;
 *     kiln_calibration_range(cal, "conv1_out", NULL, &r, diag);    // the best by error
 *     kiln_model *int8;
 *     kiln_quantize(&int8, model, cal, NULL, NULL, diag);          // then build it, or
 *     kiln_model_export(int8, "net.qdq.onnx", 0, diag);
 *
 * Ranges alone, as other tools keep them, are a kiln_ranges: TensorRT's text cache is read and
 * written, ONNX Runtime's JSON read.
 *
 * The conventions are those of kiln.h. A calibration and a range list belong to one thread at a
 * time. */
#ifndef KILN_QUANT_H
#define KILN_QUANT_H

#include "kiln/tools.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Ranges --------------------------------------------------------------------------------- */

/* How a range is found.
 *
 *   max         from the least to the greatest value seen
 *   percentile  so that this share of all values is inside (asymmetric: half of the rest is cut off
 *               on each side)
 *   entropy     the symmetric threshold whose 128 levels lose least information about the 2048-bin
 *               histogram of |x|, by the Kullback-Leibler divergence (Migacz, "8-bit inference with
 *               TensorRT", GTC 2017); exact zeros, which any scale represents, do not take part
 *   mse         the range of least mean squared error
 *   auto        the one of these with the least mean squared error */
typedef enum kiln_calibrator {
    KILN_CALIBRATOR_AUTO,
    KILN_CALIBRATOR_MAX,
    KILN_CALIBRATOR_PERCENTILE,
    KILN_CALIBRATOR_ENTROPY,
    KILN_CALIBRATOR_MSE,
    KILN_CALIBRATOR_COUNT,
} kiln_calibrator;

/* "auto", "max", ...; "?" for a number that is none. */
KILN_API const char *kiln_calibrator_name(kiln_calibrator calibrator);
/* The inverse; KILN_CALIBRATOR_COUNT if unknown. */
KILN_API kiln_calibrator kiln_calibrator_parse(const char *name);

typedef struct kiln_calibrate_options {
    size_t size;
    kiln_calibrator calibrator;
    const double *percentiles; /* 50 < p <= 100 [99.9, 99.99, 99.999] */
    size_t n_percentiles;
    bool symmetric;    /* lo = -hi, zero point 0 */
    int32_t bits;      /* 2..8 [8] */
    double cut_weight; /* of mse, >= 1: how many times the error of what the range cuts off counts
                          [1] */
} kiln_calibrate_options;

/* A range and how it was found. Zero is always inside. */
typedef struct kiln_range {
    const char *name; /* of the tensor, borrowed */
    double lo, hi;
    kiln_calibrator calibrator; /* never AUTO; MAX for ranges read from files */
    double percentile;          /* of PERCENTILE */
    double sqnr_db; /* signal to quantization noise on the histogram; infinite for no noise, NaN
                       for ranges read from files */
} kiln_range;

/* ---- Calibrations --------------------------------------------------------------------------- */

/* Histograms of named tensors. */
typedef struct kiln_calibration kiln_calibration;

/* An empty calibration. */
KILN_API kiln_status kiln_calibration_create(kiln_calibration **out, const kiln_env *env);
/* Gives it back. */
KILN_API void kiln_calibration_destroy(kiln_calibration *calibration);

/* What a calibration says about where it is from. Hashes are hexadecimal. */
typedef struct kiln_calibration_info {
    char model_hash[33];    /* of the model file; all zeros: not said */
    char data_hash[33];     /* of all samples, whatever their order; all zeros: not said */
    uint64_t samples;       /* seen */
    const char *preprocess; /* how they were prepared, as in kiln_tensors_read; borrowed */
    size_t tensors;
} kiln_calibration_info;
/* Facts about the calibration. */
KILN_API void kiln_calibration_get_info(const kiln_calibration *calibration,
                                        kiln_calibration_info *out);
/* States the model (32 hexadecimal digits, or NULL) and the preprocessing (copied, or NULL).
 * Errors: USAGE for digits that are none. */
KILN_API kiln_status kiln_calibration_describe(kiln_calibration *calibration,
                                               const char *model_hash, const char *preprocess,
                                               kiln_diag *diag);
/* Counts a sample of the data set: its bytes go into data_hash. */
KILN_API void kiln_calibration_count_sample(kiln_calibration *calibration, const void *data,
                                            size_t bytes);

/* Adds the elements of a float tensor (16, 32 or 64 bits; read as float32) to the histogram of this
 * name. NaN and infinities are counted apart. Errors: USAGE for other element types, LIMIT above
 * 32,768 tensors or 2^53 elements, MEMORY. */
KILN_API kiln_status kiln_calibration_observe(kiln_calibration *calibration, const char *name,
                                              const kiln_tensor *tensor, kiln_diag *diag);
/* Adds everything `from` holds, as if its data had been observed here. Errors: USAGE when the two
 * are of different models or preprocessing, LIMIT; MEMORY, after which a part may be added. */
KILN_API kiln_status kiln_calibration_merge(kiln_calibration *calibration,
                                            const kiln_calibration *from, kiln_diag *diag);

/* What was seen of a tensor. */
typedef struct kiln_seen {
    const char *name;       /* borrowed */
    uint64_t count;         /* finite elements */
    uint64_t zeros;         /* of them */
    uint64_t nans, infs;    /* besides them */
    double min, max;        /* of the finite ones; 0 without any */
    size_t histogram_bytes; /* of memory */
} kiln_seen;
/* Tensor i in order of names; false past the end. */
KILN_API bool kiln_calibration_get(const kiln_calibration *calibration, size_t i, kiln_seen *out);

/* The range of a tensor by options->calibrator. Errors: USAGE for a name that was not observed and
 * for impossible options, MEMORY. */
KILN_API kiln_status kiln_calibration_range(const kiln_calibration *calibration, const char *name,
                                            const kiln_calibrate_options *options, kiln_range *out,
                                            kiln_diag *diag);
/* All candidates that auto chooses from, best first: at most `cap` are written to `out`, *n is how
 * many there are. Errors: as kiln_calibration_range. */
KILN_API kiln_status kiln_calibration_candidates(const kiln_calibration *calibration,
                                                 const char *name,
                                                 const kiln_calibrate_options *options,
                                                 kiln_range *out, size_t cap, size_t *n,
                                                 kiln_diag *diag);

/* Writes a calibration file; the file is the old one or the complete new one. Errors: IO, MEMORY.
 */
KILN_API kiln_status kiln_calibration_write(const kiln_calibration *calibration, const char *path,
                                            kiln_diag *diag);
/* Reads one. Errors: IO, MALFORMED for damage (the file carries a hash) and contradictions,
 * UNSUPPORTED for a newer form, LIMIT, MEMORY. */
KILN_API kiln_status kiln_calibration_read(kiln_calibration **out, const kiln_env *env,
                                           const char *path, kiln_diag *diag);

/* ---- Ranges by name ------------------------------------------------------------------------- */

/* Ranges of named tensors, sorted by name. */
typedef struct kiln_ranges kiln_ranges;

/* An empty list. */
KILN_API kiln_status kiln_ranges_create(kiln_ranges **out, const kiln_env *env);
/* Gives it back. */
KILN_API void kiln_ranges_destroy(kiln_ranges *ranges);
/* Range i in order of names, or NULL past the end. */
KILN_API const kiln_range *kiln_ranges_get(const kiln_ranges *ranges, size_t i);
/* The range of that name, or NULL. */
KILN_API const kiln_range *kiln_ranges_find(const kiln_ranges *ranges, const char *name);
/* Adds or replaces a range (copied). Errors: USAGE when it is not finite or lo > hi, LIMIT, MEMORY.
 */
KILN_API kiln_status kiln_ranges_set(kiln_ranges *ranges, const kiln_range *range, kiln_diag *diag);
/* Adds the range of every tensor of a calibration. Errors: as kiln_calibration_range. */
KILN_API kiln_status kiln_ranges_calibrate(kiln_ranges *ranges, const kiln_calibration *calibration,
                                           const kiln_calibrate_options *options, kiln_diag *diag);

/* Reads TensorRT's text cache ("TRT-8601-EntropyCalibration2", then `name: 3c010a14`, the bits of
 * the float32 scale amax / 127) or ONNX Runtime's calibration JSON, told apart by their first
 * byte. Errors: IO, MALFORMED (with the line: digits missing, scales not finite, names twice),
 * LIMIT, MEMORY. */
KILN_API kiln_status kiln_ranges_read(kiln_ranges **out, const kiln_env *env, const char *path,
                                      kiln_diag *diag);
/* Writes TensorRT's text cache; the file is the old one or the complete new one. Errors: USAGE for
 * names with line breaks, IO, MEMORY. */
KILN_API kiln_status kiln_ranges_write_trt(const kiln_ranges *ranges, const char *path,
                                           kiln_diag *diag);

/* ---- Quantizing a model --------------------------------------------------------------------- */

/* For whom. The graphs are ONNX in each case. */
typedef enum kiln_qdq_style {
    KILN_QDQ_KILN,        /* uint8 activations, int8 weights per channel, float bias */
    KILN_QDQ_TENSORRT,    /* int8 activations and weights, zero point 0, float bias */
    KILN_QDQ_ONNXRUNTIME, /* uint8 activations, int8 weights, int32 bias; also what layers give to
                             an Add is quantized */
} kiln_qdq_style;

/* What is special about nodes whose type or name fits; the last entry that fits counts. */
typedef struct kiln_layer_option {
    const char *pattern;                       /* "type:GLOB" or "name:GLOB" */
    int32_t weight_bits;                       /* 2..8 [8] */
    bool per_tensor;                           /* one scale for all weights */
    kiln_calibrator weight_calibrator;         /* MAX, MSE or PERCENTILE [MAX] */
    const kiln_calibrate_options *activations; /* how the inputs' ranges are found [as all] */
    double weight_percentile;                  /* 50 < p <= 100, of PERCENTILE [99.99] */
} kiln_layer_option;

/* A node that stays float whatever the rules say, by its exact name, and what to tell of it. */
typedef struct kiln_float_node {
    const char *name, *reason;
} kiln_float_node;

/* What is quantized and how. */
typedef struct kiln_quantize_options {
    size_t size;
    kiln_qdq_style style;
    /* Rules separated by commas or line ends, the last that fits a node counts: "type:Conv=int8",
     * "name:/fc*=fp32", or a bare type for all. A name is the node's, that of an ONNX node it came
     * from, or the PyTorch module that made it. Types are int8, bf16, fp16 and fp32. [int8] */
    const char *precision;
    int32_t keep_first, keep_last;   /* layers with weights that stay float */
    const kiln_layer_option *layers; /* n_layers of them */
    size_t n_layers;
    const kiln_float_node *keep; /* n_keep of them */
    size_t n_keep;
    const kiln_calibrate_options *calibrate; /* how ranges are found; symmetric for TensorRT */
    const char *const *off;                  /* as kiln_build_options.off; of both the engine that
                                                is calibrated and the model quantized */
    kiln_dtype others; /* BF16 or F16: of what is not int8 and has no rule [F32] */
    bool dynamic; /* activations find their scale at run time: needs no calibration, and quantizes
                     layers with weights alone. Not for TensorRT, which has no such operators */
} kiln_quantize_options;

/* Calibration data, as kiln_evaluate takes it but for labels. */
typedef struct kiln_calibrate_run {
    size_t size;
    const char *data;
    const char *preprocess; /* of pictures, as in kiln_tensors_read */
    const char *input;      /* which input takes the samples of a set without names [the first] */
    int64_t count;          /* samples [all] */
    int64_t batch; /* samples a run [the model's fixed batch, opt of its profile, else 1] */
    bool shuffle;  /* choose samples at random */
    uint64_t seed;
    kiln_sample_fn next; /* instead of `data` */
    void *user;
    const kiln_progress *progress;
} kiln_calibrate_run;

/* Runs the data through a float engine built in this process and its context, and adds every value
 * that quantizing with these options needs to the calibration, which is described by the model's
 * hash. The context's tap is replaced. On CANCELLED (by progress) the calibration holds what was
 * run until then. Errors: those of reading data and of running; USAGE when data and network do not
 * fit each other, or the calibration is of another model; UNSUPPORTED when a rule demands what
 * cannot be had. */
KILN_API kiln_status kiln_calibrate(kiln_calibration *calibration, const kiln_engine *engine,
                                    kiln_context *context, const kiln_env *env,
                                    const kiln_calibrate_run *run,
                                    const kiln_quantize_options *options, kiln_diag *diag);

/* Whether the options ask for int8 anywhere: then ranges are needed. Rules that cannot be read ask
 * for it. */
KILN_API bool kiln_quantize_wants_int8(const kiln_quantize_options *options);

/* Makes the quantized form of a model: canonicalised as by kiln_engine_build, with
 * QuantizeLinear and DequantizeLinear where 8 bits are to be used. Ranges come from `ranges` and,
 * for values not there, from `calibration`; either may be NULL. A value without range leaves the
 * layers that read it float; a warning says how many. `model` may be given back before *out.
 * Errors: USAGE, UNSUPPORTED when a rule demands int8 that cannot be had, MEMORY. */
KILN_API kiln_status kiln_quantize(kiln_model **out, const kiln_model *model,
                                   const kiln_calibration *calibration, const kiln_ranges *ranges,
                                   const kiln_quantize_options *options, kiln_diag *diag);

/* Layer i of those that stay float in an engine built from such a model, and why; the engine's file
 * keeps it. False past the end. Strings are borrowed from the engine. */
KILN_API bool kiln_engine_left_float(const kiln_engine *engine, size_t i, const char **layer,
                                     const char **reason);

/* One calibrator for all tensors, and what the network quantized by it made of samples. */
typedef struct kiln_trial {
    kiln_calibrator calibrator; /* AUTO: for each tensor the one of least squared error */
    double percentile;          /* of PERCENTILE */
    double cut_weight;          /* of MSE */
    int64_t samples;
    double sqnr_db, cosine; /* of the outputs against the float network's */
    double agreement; /* share of samples with the same largest score; NaN where there are none */
    double top1, float_top1; /* shares that the labels call right; NaN without labels */
    bool chosen;
} kiln_trial;

typedef struct kiln_trial_options {
    size_t size;
    const kiln_calibrate_run *data; /* the calibration data, to be read again: not from `next` */
    int64_t samples;                /* of it [16 to 128, by the network's size] */
    const kiln_build_options *build;
    int32_t threads;           /* [all] */
    const kiln_ranges *ranges; /* as of kiln_quantize */
} kiln_trial_options;

/* kiln_quantize by the calibrator whose network's outputs have least noise: each is tried on
 * samples of the calibration data, whatever options->calibrate->calibrator says. Calibrators that
 * lose right answers, more than chance explains, do not come into question. At most `cap` trials go
 * to `trials`, *n is how many there were. Errors: as of kiln_quantize, of reading data, building
 * and running; CANCELLED by the data's progress. */
KILN_API kiln_status kiln_quantize_best(kiln_model **out, const kiln_model *model,
                                        const kiln_calibration *calibration,
                                        const kiln_quantize_options *options,
                                        const kiln_trial_options *how, kiln_trial *trials,
                                        size_t cap, size_t *n, kiln_diag *diag);

/* What quantizing did with a node that has an 8-bit form. Strings are borrowed from the model. */
typedef struct kiln_node_precision {
    const char *name, *op;
    bool layer; /* has weights */
    bool int8;
    bool asked;         /* a rule names it or its type int8 */
    const char *reason; /* why not, or NULL */
    kiln_dtype dtype;   /* I8, BF16, F16 or F32: what was decided. An engine says what it runs in */
} kiln_node_precision;
/* Node i of a model made by kiln_quantize; false past the end, and for other models. */
KILN_API bool kiln_model_precision(const kiln_model *model, size_t i, kiln_node_precision *out);

typedef struct kiln_timing_options {
    size_t size;
    const kiln_build_options *build;
    int32_t threads;           /* [all] */
    const kiln_ranges *ranges; /* as of kiln_quantize */
} kiln_timing_options;

/* kiln_quantize, but layers that run slower here in 8 bits than in float, among the others and with
 * all the conversions they need, stay float; kiln_model_precision tells both times. Rules that name
 * a node or its type int8 are obeyed. Networks are timed in turn, in about a second; the result
 * depends on the machine and may differ from time to time. Errors: as of kiln_quantize, building
 * and running. */
KILN_API kiln_status kiln_quantize_timed(kiln_model **out, const kiln_model *model,
                                         const kiln_calibration *calibration,
                                         const kiln_quantize_options *options,
                                         const kiln_timing_options *how, kiln_diag *diag);

/* ---- Layers: what 8 bits cost and gain ------------------------------------------------------ */

typedef struct kiln_study_options {
    size_t size;
    const kiln_calibrate_run *data; /* samples to judge by, read more than once: not from `next` */
    const char *labels;             /* of them, as of kiln_evaluate_options */
    int64_t samples;                /* of them for each layer [32 to 256, by the network's size] */
    const kiln_build_options *build;
    int32_t threads;           /* [all] */
    const kiln_ranges *ranges; /* as of kiln_quantize */
    const char *state;         /* file that keeps what was measured; a study begun again with it
                                  goes on where it stopped [none] */
    /* Of kiln_search alone: */
    const kiln_calibrate_run *eval; /* what choices are judged by [data] */
    const char *eval_labels;
    int64_t eval_samples; /* of it, spread evenly [all] */
    double max_drop;      /* of the metric that is allowed, in percentage points */
    bool no_timing;       /* count multiply-accumulates instead of milliseconds; one in bfloat16
                             saves half of what one in 8 bits does */
    uint32_t precisions;  /* KILN_SEARCH_... that layers are offered besides float32 [INT8, and
                             BF16 where the processor has instructions for it] */
    bool calibrators;     /* layers get the calibrator that each errs least by */
} kiln_study_options;

enum { KILN_SEARCH_INT8 = 1, KILN_SEARCH_BF16 = 2 };

/* A layer with weights. Numbers are NaN where they were not measured. */
typedef struct kiln_layer_cost {
    const char *name, *op;
    /* The network's outputs against the float network's when this layer alone is quantized. */
    double sqnr_db, cosine, agreement, top1;
    double drop; /* of the metric, in percentage points */
    /* What the layer reads when all are quantized, seen by a tap; its name, or NULL. */
    const char *input;
    double input_sqnr_db;
    /* In context, its share of what runs at its place; by kiln_search. */
    double float_ms, int8_ms;
    double bf16_sqnr_db, bf16_ms; /* alone in bfloat16; where that is offered and pays */
    kiln_calibrator calibrator;   /* that errs least; AUTO: as the options say */
    double percentile;            /* of PERCENTILE */
    kiln_dtype dtype;             /* in the best choice: I8, BF16 or F32 */
} kiln_layer_cost;

/* A choice of layers that kiln_search has measured. */
typedef struct kiln_tried {
    size_t int8_layers, bf16_layers;
    double metric, drop, sqnr_db; /* on the evaluation samples */
    double ms, float_ms;          /* of a run, in turn with the float network; NaN without timing */
    double time_ratio;            /* median of the one over the other */
    double cost;                  /* what is to be least: time_ratio, or the share of
                                     multiply-accumulates left float */
    bool within, front, best;     /* the drop allowed; nothing loses less for less cost */
} kiln_tried;

typedef struct kiln_study_info {
    const char *metric;   /* "top1"; "agreement" with the float network without labels */
    double float_metric;  /* a share; NaN when the first output is no scores of classes */
    double drop, sqnr_db; /* of the network with all of its layers quantized */
    int64_t samples;
    double eval_metric; /* of the float network on the evaluation samples of kiln_search */
    int64_t eval_samples;
    size_t layers, measured;
    size_t resumed; /* measurements found in the state file */
} kiln_study_info;

/* What was measured. Strings are borrowed from it. */
typedef struct kiln_study kiln_study;
KILN_API void kiln_study_destroy(kiln_study *study);
/* Facts about the study. */
KILN_API void kiln_study_get_info(const kiln_study *study, kiln_study_info *out);
/* Layer i, that of most noise first; false past the end. */
KILN_API bool kiln_study_layer(const kiln_study *study, size_t i, kiln_layer_cost *out);

/* Quantizes one layer at a time, of those that kiln_quantize would with these options. On CANCELLED
 * (by the data's progress) *out has what was measured until then. Errors: as of kiln_quantize, of
 * reading data, building and running; USAGE for a state file of another study. */
KILN_API kiln_status kiln_sensitivity(kiln_study **out, const kiln_model *model,
                                      const kiln_calibration *calibration,
                                      const kiln_quantize_options *options,
                                      const kiln_study_options *how, kiln_diag *diag);

/* Looks for the fastest network whose metric is at most how->max_drop below the float network's:
 * measures the layers as kiln_sensitivity does and what time each saves, and then whole choices of
 * layers. *best is the network of the best of them, *out has all; on CANCELLED the best so far, or
 * NULL. Errors: as of kiln_sensitivity; USAGE where there is no metric. */
KILN_API kiln_status kiln_search(kiln_study **out, kiln_model **best, const kiln_model *model,
                                 const kiln_calibration *calibration,
                                 const kiln_quantize_options *options,
                                 const kiln_study_options *how, kiln_diag *diag);
/* Choice i in the order in which they were measured, the float network first; false past the end.
 */
KILN_API bool kiln_study_tried(const kiln_study *study, size_t i, kiln_tried *out);
/* The best choice as rules for kiln_quantize_options.precision, a line each; NULL without one. */
KILN_API const char *kiln_study_rules(const kiln_study *study);

/* ---- Improving ------------------------------------------------------------------------------ */

/* What is done besides choosing ranges. The first three change the float model, before it is
 * calibrated; the others the weights and biases of the quantized one.
 *
 *   equalize  channels between two layers get scales that make the weights on both sides alike
 *             (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
 *             Correction", 2019). Exact up to rounding, needs no data
 *   smooth    channels get scales that share the error between what a layer reads and its weights,
 *             from the ranges of data (Xiao et al., "SmoothQuant", 2022): behind layers and
 *             normalizations. Exact likewise
 *   outliers  the few channels that are far larger than others, whatever the network reads, get
 *             factors of their own on the way to products; found by running it on made-up inputs:
 *             needs no data. A part of smooth
 *   round     weights go up or down on their grid so that the layer's output is off least; said to
 *             kiln_improve_float it changes nothing but how smooth weighs their errors
 *   bias      the mean error of each output channel goes into the bias */
enum {
    KILN_IMPROVE_EQUALIZE = 1,
    KILN_IMPROVE_SMOOTH = 2,
    KILN_IMPROVE_ROUND = 4,
    KILN_IMPROVE_BIAS = 8,
    KILN_IMPROVE_OUTLIERS = 16,
};

typedef struct kiln_improve_options {
    size_t size;
    uint32_t what;       /* KILN_IMPROVE_... added up; of each function its own count */
    double smooth_alpha; /* (0, 1]: more goes to the weights [for each seam, what errs least] */
    const kiln_calibrate_run *runs; /* n_runs data sets; none are needed to equalize */
    size_t n_runs;
    const kiln_build_options *build; /* of the float engine that sees the data, or NULL */
    int32_t threads;                 /* of it [all usable cores] */
} kiln_improve_options;

/* Makes a float model that computes the same and is better to quantize: canonicalised, with other
 * weights. It has a hash of its own: calibrate it, not the one it was made of. `model` may be given
 * back before *out. Errors: USAGE, those of building and of running, MEMORY. */
KILN_API kiln_status kiln_improve_float(kiln_model **out, const kiln_model *model,
                                        const kiln_improve_options *options, kiln_diag *diag);

/* Makes a better one of what kiln_quantize made of `model`. Both may be given back before *out.
 * Errors: likewise. */
KILN_API kiln_status kiln_improve_int8(kiln_model **out, const kiln_model *quantized,
                                       const kiln_model *model, const kiln_improve_options *options,
                                       kiln_diag *diag);

/* ---- Weights alone -------------------------------------------------------------------------- */

typedef struct kiln_weight_options {
    size_t size;
    int32_t bits;          /* 8 or 4 [8] */
    int64_t block;         /* weights that are summed and share a scale, 16..4096 [one scale for
                              each output] */
    const char *precision; /* rules as in kiln_quantize_options: which keep another [all] */
    const char *const *off;
} kiln_weight_options;

/* Makes a model whose constant matrices, operands of MatMul and Gemm, are integers behind a
 * DequantizeLinear (of opset 21 where there are blocks) and all else is float: for products of few
 * rows, whose weights take longer to read than to multiply. No data is needed. `model` may be given
 * back before *out. Errors: USAGE, UNSUPPORTED for models that are quantized already, MEMORY. */
KILN_API kiln_status kiln_quantize_weights(kiln_model **out, const kiln_model *model,
                                           const kiln_weight_options *options, kiln_diag *diag);

/* Holds a model with QuantizeLinear and DequantizeLinear against what TensorRT's developer guide
 * demands: int8, zero points 0, constant positive scales, one for an activation and along the
 * output channels for weights, float biases, no operator between the two. Errors: CHECK, with a
 * finding for each node that breaks a rule. */
KILN_API kiln_status kiln_model_check_tensorrt(const kiln_model *model, kiln_diag *diag);

/* Writes a model as ONNX; weights above `external_threshold` bytes go to PATH.data (0: none).
 * Errors: IO, MEMORY. */
KILN_API kiln_status kiln_model_export(const kiln_model *model, const char *path,
                                       size_t external_threshold, kiln_diag *diag);

#ifdef __cplusplus
}
#endif

#endif /* KILN_QUANT_H */
