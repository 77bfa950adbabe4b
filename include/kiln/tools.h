/* tools.h - what stands around a network: data files, generated inputs, timing, accuracy,
 * comparison, checks. The `kiln` command is a thin layer over this header; programs can do the
 * same:
 *
 *     kiln_engine *eng;  kiln_engine_open(&eng, NULL, NULL, "net.onnx", NULL, diag);
 *     kiln_context *ctx; kiln_context_create(&ctx, eng, NULL, diag);
 *     kiln_tensors *in;  kiln_tensors_create(&in, NULL);
 *     kiln_tensors_read(in, "cat.jpg", &(kiln_read_options){.size = sizeof(kiln_read_options),
 *                       .name = "input", .preprocess = "resize=256 crop=224 scale=1/255"}, diag);
 *     kiln_tensors_bind(in, eng, ctx, diag);
 *     kiln_bench *bench; kiln_bench_run(&bench, ctx, NULL, diag);
 *     kiln_bench_result r; kiln_bench_summary(bench, &r);     // r.latency.median_ms
 *
 * The conventions are those of kiln.h. Times are milliseconds as doubles, from a monotonic clock.
 */
#ifndef KILN_TOOLS_H
#define KILN_TOOLS_H

#include "kiln/kiln.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Engines from either kind of file ------------------------------------------------------- */

/* What to do with a file; the half that does not apply to it is not used. */
typedef struct kiln_tune_options kiln_tune_options;

typedef struct kiln_open_options {
    size_t size;
    const kiln_model_options *model; /* borrowed for the call, as are the next three */
    const kiln_build_options *build;
    const kiln_load_options *load;
    const kiln_tune_options *tune; /* of a model: build by measuring [by rules] */
} kiln_open_options;

/* Opens an engine file, or loads an ONNX model and builds it. `model` (may be NULL) receives the
 * model, or NULL when the file was an engine. Errors: as of kiln_model_load, kiln_engine_build and
 * kiln_engine_load; USAGE for shape overrides or a profile given with an engine, whose shapes are
 * fixed. */
KILN_API kiln_status kiln_engine_open(kiln_engine **out, kiln_model **model, const kiln_env *env,
                                      const char *path, const kiln_open_options *options,
                                      kiln_diag *diag);

/* ---- Lists of named tensors ----------------------------------------------------------------- */

/* Named tensors in order, which the list owns. Entries of one name are the items of a sequence. */
typedef struct kiln_tensors kiln_tensors;

/* An empty list. */
KILN_API kiln_status kiln_tensors_create(kiln_tensors **out, const kiln_env *env);
/* Gives the list and all data back. */
KILN_API void kiln_tensors_destroy(kiln_tensors *list);
/* Number of entries. */
KILN_API size_t kiln_tensors_count(const kiln_tensors *list);
/* Entry i and, where `name` is not NULL, its name; NULL past the end. */
KILN_API const kiln_tensor *kiln_tensors_get(const kiln_tensors *list, size_t i, const char **name);
/* The first entry of that name, or NULL. */
KILN_API const kiln_tensor *kiln_tensors_find(const kiln_tensors *list, const char *name);
/* Appends a copy. Errors: USAGE for impossible dims, UNSUPPORTED for strings, MEMORY. */
KILN_API kiln_status kiln_tensors_add(kiln_tensors *list, const char *name,
                                      const kiln_tensor *tensor, kiln_diag *diag);
/* Binds every entry to the input of its name; the list must live as long as the context runs. An
 * entry that is no input's is an error (USAGE), an input without entry is not. */
KILN_API kiln_status kiln_tensors_bind(const kiln_tensors *list, const kiln_engine *engine,
                                       kiln_context *context, kiln_diag *diag);
/* Appends copies of all outputs of the context's last run. */
KILN_API kiln_status kiln_tensors_collect(kiln_tensors *list, const kiln_engine *engine,
                                          const kiln_context *context, kiln_diag *diag);

/* ---- Data files ----------------------------------------------------------------------------- */

/* How to read a file that does not say everything itself. */
typedef struct kiln_read_options {
    size_t size;
    const char *name; /* of the entry, for files that hold one tensor [file name without ending] */
    const kiln_io
        *like; /* the input it is for: type and dims of .bin files, batch dim of pictures */
    const char *preprocess; /* of pictures: keys as below ["": pixels 0..255, RGB, NCHW, float32] */
} kiln_read_options;

/* Reads a file, or a folder that kiln_tensors_write_folder made, and appends what it holds. The
 * kind is told from the name's ending:
 *
 *     .npy .pb .bin .raw   one tensor (.pb: an ONNX TensorProto, or the kind that `like` is of)
 *     .npz                 every array under its own name
 *     .png .jpg .jpeg .bmp .ppm .pgm   one picture, [1, C, H, W] unless told otherwise
 *
 * `preprocess` is "key=value ..." in the order resize > crop > color > (x * scale - mean) / std >
 * layout > dtype:
 *
 *     resize  none | WxH | S (shorter side) | letterbox:WxH     crop  none | WxH | S (centre)
 *     interp  bilinear | bicubic | bilinear-plain | bicubic-plain | nearest
 *     pad     letterbox fill 0..255     pad-at  center | top-left     color  rgb | bgr | gray
 *     scale   number or fraction 1/255  mean, std  one number or one a channel, separated by commas
 *     layout  nchw | nhwc               dtype   float32 | uint8
 *
 * Errors: IO, MALFORMED, UNSUPPORTED, LIMIT, MEMORY; USAGE for an unknown ending or key. */
KILN_API kiln_status kiln_tensors_read(kiln_tensors *list, const char *path,
                                       const kiln_read_options *options, kiln_diag *diag);
/* Checks a `preprocess` text alone. Errors: USAGE. */
KILN_API kiln_status kiln_preprocess_check_text(const char *preprocess, kiln_diag *diag);
/* Writes one tensor by the ending of `path`: .npy, .npz, .pb, .bin, .raw or .png (uint8, [H, W] or
 * [1|3, H, W] or [H, W, 1|3]; floats 0..1 are scaled by 255). The file is the old one or the
 * complete new one. Errors: IO, UNSUPPORTED, USAGE. */
KILN_API kiln_status kiln_tensor_write(const kiln_tensor *tensor, const char *name,
                                       const char *path, const kiln_env *env, kiln_diag *diag);
/* Writes every entry to DIR/<name>.npy (characters other than letters, digits, `.`, `-` and `_`
 * become `_`; types NumPy has not go to .pb) and DIR/outputs.json, which lists them: {"schema":
 * "kiln.outputs/1", "outputs": [{"name", "file", "dtype", "shape"}]}. Makes the folder. */
KILN_API kiln_status kiln_tensors_write_folder(const kiln_tensors *list, const char *path,
                                               kiln_diag *diag);

/* ---- Generated inputs ----------------------------------------------------------------------- */

/* Element i of input `name` is drawn from draw i of SplitMix64 (Steele, Lea, Flood 2014) with the
 * state
 *
 *     s0 = seed XOR FNV1a64(name);    draw i:  z = s0 + (i + 1) * 0x9E3779B97F4A7C15
 *     z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9
 *     z = (z ^ z >> 27) * 0x94D049BB133111EB;  z ^= z >> 31
 *
 * Floats are min + (max - min) * (z >> 11) * 2^-53, rounded to the type; integers and bool
 * min + z mod (max - min + 1). A sequence is given two tensors; the second is drawn from
 * seed + 1. */
typedef struct kiln_generate_options {
    size_t size;
    uint64_t seed;  /* [1] */
    bool has_range; /* else floats are in [0, 1), integers 0 or 1 */
    double min, max;
    int64_t batch; /* for a dynamic first dim; dynamic dims are opt of a profile, else 1 */
    const kiln_shape *shapes; /* by input name; a dim of -1 stays as it would be */
    size_t n_shapes;
} kiln_generate_options;

/* Appends a generated tensor, or the two of a sequence, for an input; an optional one is given a
 * value. Errors: USAGE when a shape contradicts the input or its
 * rank is not known, UNSUPPORTED for strings, LIMIT, MEMORY. */
KILN_API kiln_status kiln_tensors_generate(kiln_tensors *list, const kiln_io *io,
                                           const kiln_generate_options *options, kiln_diag *diag);

/* ---- Watching inner values ------------------------------------------------------------------ */

/* What to look at while a context runs. */
typedef struct kiln_watch_options {
    size_t size;
    const char *const *mark; /* names of values to keep, NULL-terminated; "all" keeps every one */
    bool validate;           /* note the first NaN or infinity, in order of execution */
} kiln_watch_options;

/* The first value that is not finite. Strings are borrowed from the engine. */
typedef struct kiln_nonfinite {
    const char *value, *node; /* node: what computed it, "" for an input */
    int64_t index;            /* flat, of the first such element */
    int64_t count;            /* such elements in this value */
    double number;            /* NaN or an infinity */
} kiln_nonfinite;

/* A tap that marks and validates. */
typedef struct kiln_watch kiln_watch;
/* Sets the context's tap; the watch must live until the context has another or none. Inputs are
 * validated by kiln_watch_input. */
KILN_API kiln_status kiln_watch_create(kiln_watch **out, kiln_context *context, const kiln_env *env,
                                       const kiln_watch_options *options);
/* Takes the tap off the context and gives the watch back. */
KILN_API void kiln_watch_destroy(kiln_watch *watch);
/* Looks at an input before the run. */
KILN_API void kiln_watch_input(kiln_watch *watch, const char *name, const kiln_tensor *tensor);
/* The values marked, in order of execution. */
KILN_API const kiln_tensors *kiln_watch_marked(const kiln_watch *watch);
/* True, with *out filled, when something was not finite. Returns false else. */
KILN_API bool kiln_watch_nonfinite(const kiln_watch *watch, kiln_nonfinite *out);
/* A name asked for that no run has shown, or NULL past the end. */
KILN_API const char *kiln_watch_unseen(const kiln_watch *watch, size_t i);

/* ---- Progress ------------------------------------------------------------------------------- */

/* Called now and then by long jobs, on the caller's thread; `share` is 0..1, or -1 when not known.
 * Returning false ends the job early: its result is what there is so far, its status CANCELLED. */
typedef struct kiln_progress {
    bool (*step)(void *user, double share);
    void *user;
} kiln_progress;

/* ---- Building by measuring ------------------------------------------------------------------ */

/* Level 0 is kiln_engine_build. Each level tries more ways to run each layer, likelier ones first,
 * and times them for longer:
 *
 *     level   ways of a layer   time for a way   in all
 *       1            2              0.1 s          5 s
 *       2            4              0.2 s         15 s
 *       3            8              0.4 s         45 s
 *       4           16              1.5 s        300 s
 *       5          all                5 s     no bound
 */
struct kiln_tune_options {
    size_t size;
    int32_t level;     /* 1 to 5 [3] */
    int32_t threads;   /* that the engine is to run with; for throughput: runs at once [all] */
    double budget_s;   /* that the build may take, as far as timing decides it [by level] */
    const char *cache; /* file of timings to read and to add to [none] */
    bool frozen;       /* measure nothing: what the cache does not know runs as rules decide */
    const kiln_progress *progress;
};

/* Builds the engine whose layers run in the ways that are fastest here. A layer's ways (kernels and
 * their tactics, kiln_engine_candidates) are timed inside the network, at made-up inputs of the
 * profile's opt shapes, else with 1 for dynamic dims, in turn with the rules' way, and after their
 * answers have been compared. A way is chosen when it gains 2 %, and what is chosen only if the
 * whole network gains by it. Of many layers the 1,024 with the most multiply-adds are timed. With a
 * cache that knows all of it nothing is timed and the engine is the same byte for byte.
 * kiln_engine_tried tells what was found. When the time is up the best so far is built; when
 * `progress`, which is asked between runs, ends it, layers run as rules decide. Errors: of
 * building, running and the cache file; USAGE when build has choices. */
KILN_API kiln_status kiln_engine_build_timed(kiln_engine **out, const kiln_model *model,
                                             const kiln_build_options *build,
                                             const kiln_tune_options *how, const kiln_env *env,
                                             kiln_diag *diag);

/* ---- Timing --------------------------------------------------------------------------------- */

/* Of n samples sorted: the median of an even n is the mean of the two in the middle, percentile p
 * the sample of rank ceil(p/100 * n), stddev the one of the sample (n - 1). */
typedef struct kiln_stats {
    size_t count;
    double min_ms, max_ms, mean_ms, median_ms, p90_ms, p95_ms, p99_ms, stddev_ms;
} kiln_stats;

typedef struct kiln_bench_options {
    size_t size;
    double warm_up_ms;  /* runs before the clock counts [200]; negative: none */
    double duration_s;  /* measure at least so long [3]; negative: only `iterations` */
    int64_t iterations; /* and at least so many runs [10] */
    double idle_ms;     /* pause between two runs [0] */
    bool profile;       /* time each layer in runs of its own after the measured ones */
    const kiln_progress *progress;
    /* Streams: contexts that run over and over at the same time, each on a thread of its own, until
     * the first has run long and often enough. Not of a pool that another one has [none]. */
    kiln_context *const *beside;
    size_t n_beside;
} kiln_bench_options;

/* One run. The five times are trtexec's, as far as a CPU has them:
 *
 *   latency  h2d + compute + d2h: from handing the input over to having the output
 *   enqueue  how long the caller's thread is kept; on the CPU it works along, so this is compute
 *   h2d      copying the input to the device; 0: inputs are read where they lie
 *   compute  one kiln_context_run, conversions of type and layout at the boundary included
 *   d2h      copying the output back; 0: it is where the caller reads it
 */
typedef struct kiln_bench_sample {
    double start_ms; /* since measuring began */
    double latency_ms, enqueue_ms, h2d_ms, compute_ms, d2h_ms;
    size_t stream; /* 0: the context itself; i: beside[i - 1] */
} kiln_bench_sample;

/* Of all streams together: throughput is their sum, the times are of the runs of any. */
typedef struct kiln_bench_result {
    size_t runs, warm_up_runs;
    double walltime_ms; /* from the first start to the last end, pauses included */
    double total_compute_ms;
    double throughput_per_s; /* runs a second of walltime */
    kiln_stats latency, enqueue, h2d, compute, d2h;
    double variation_percent; /* of compute: 100 * stddev / mean */
    double other_load;        /* cores kept busy by others meanwhile, on average; -1: not known */
    bool cancelled;
} kiln_bench_result;

/* A finished measurement. */
typedef struct kiln_bench kiln_bench;
/* Times runs of a context whose inputs, as those of its streams, are bound. On CANCELLED (by
 * progress or kiln_context_cancel) *out is written too. Errors: those of kiln_context_run. */
KILN_API kiln_status kiln_bench_run(kiln_bench **out, kiln_context *context, const kiln_env *env,
                                    const kiln_bench_options *options, kiln_diag *diag);
/* Gives a measurement back. */
KILN_API void kiln_bench_destroy(kiln_bench *bench);
/* Everything but the samples. */
KILN_API void kiln_bench_summary(const kiln_bench *bench, kiln_bench_result *out);
/* Run i in order of time; false past the end. */
KILN_API bool kiln_bench_get(const kiln_bench *bench, size_t i, kiln_bench_sample *out);
/* Percentile p (0..100) of the compute times; 0 without runs. */
KILN_API double kiln_bench_percentile(const kiln_bench *bench, double p);
/* What makes the numbers doubtful, one sentence each (NULL past the end): a coefficient of
 * variation above 2.5 %, other load, a governor that saves power, too few runs. */
KILN_API const char *kiln_bench_warning(const kiln_bench *bench, size_t i);
/* Statistics of n times; sorts them in place. */
KILN_API void kiln_stats_of(kiln_stats *out, double *times_ms, size_t n);

/* ---- Accuracy ------------------------------------------------------------------------------- */

/* Samples from a function: adds one batch, a tensor for each input under its name, or nothing at
 * the end of the data. Returning anything but KILN_OK ends the job with that status. */
typedef kiln_status (*kiln_sample_fn)(void *user, kiln_tensors *out, kiln_diag *diag);

/* What became of a labelled sample. */
typedef struct kiln_scored {
    int64_t sample;    /* counted from 0, in the order they are taken */
    int64_t label;     /* the first of those that count as right */
    int64_t predicted; /* class; -1: none, all scores are NaN */
    int64_t reference; /* the reference's; -1 without one */
} kiln_scored;
typedef void (*kiln_scored_fn)(void *user, const kiln_scored *scored);

typedef struct kiln_evaluate_result kiln_evaluate_result;

typedef struct kiln_evaluate_options {
    size_t size;
    const char *data;   /* .npz (x, y), IDX (also .gz), CIFAR binary, folder of class folders, ...;
                         or "random:N" */
    const char *labels; /* label file, or the array of an .npz [found by name] */
    const char *preprocess; /* of pictures, as in kiln_tensors_read */
    const char *input;      /* which input takes the samples of a set without names [the first] */
    const char *output;     /* which output has the scores [the first] */
    int64_t count;          /* samples [all] */
    int64_t batch; /* samples a run [the model's fixed batch, opt of its profile, else 1] */
    bool shuffle;  /* choose samples at random */
    uint64_t seed;
    const kiln_progress *progress;
    const kiln_shape
        *shape; /* what runs must have; its first dim is the batch; -1: any [the data's] */
    const char *
        kind; /* npz npy idx cifar images raw polygraphy zip pb [told from data]; raw: type and dims
                         are the input's */
    kiln_context *reference; /* another network's, with the same inputs and outputs, to compare
                                with; labels are not needed then */
    kiln_sample_fn next;     /* instead of `data` */
    void *user;
    kiln_evaluate_result *reference_result; /* the reference's own scores and times, of the same
                                               pass; or NULL */
    /* [classes, classes] counts, row = label, column = prediction, of the network and of the
     * reference; left alone when cap items are too few. */
    int64_t *confusion, *reference_confusion;
    size_t confusion_cap;
    kiln_scored_fn scored; /* sees every labelled sample; or NULL */
    void *scored_user;
} kiln_evaluate_options;

/* Shares are 0..1. Of equal scores the lower class number ranks first; NaN ranks last. */
struct kiln_evaluate_result {
    int64_t samples, classes;
    double top1, top5;
    double loss; /* mean cross-entropy in nats; scores that are probabilities are taken as such */
    /* Means over the classes seen, plain and weighted by their samples. */
    double macro_precision, macro_recall, macro_f1;
    double weighted_precision, weighted_recall, weighted_f1;
    int64_t nan_samples; /* samples with a NaN score */
    kiln_stats latency;  /* of one run */
    double walltime_ms;  /* reading and preprocessing included */
    int64_t batch;
    bool has_scores; /* false: the network gives class numbers, so there is no top5 and no loss */
    bool cancelled;
    /* Against the reference, NaN without one: share of samples with the same largest score, and of
     * all elements signal to noise, cosine, mean squared error, and the range of the reference's
     * values squared over that. */
    double agreement, sqnr_db, cosine, mse, psnr_db;
    /* Labelled samples that are right here and wrong by the reference, and the other way round. */
    int64_t gained, lost;
};

/* Runs a labelled data set through a context. Arrays with names of inputs go there; a set of one
 * array goes to `input` whatever its name. *out is also written on CANCELLED. Errors: those of
 * reading data and of running; USAGE when data, labels and network do not fit each other. */
KILN_API kiln_status kiln_evaluate(kiln_evaluate_result *out, const kiln_engine *engine,
                                   kiln_context *context, const kiln_env *env,
                                   const kiln_evaluate_options *options, kiln_diag *diag);

/* ---- Comparison ----------------------------------------------------------------------------- */

/* When a pair of tensors passes. A bound of 0 is not asked for; without any, range_tol is 1e-4. */
typedef struct kiln_tolerance {
    size_t size;
    double atol, rtol; /* every element: |a - e| <= atol + rtol * |e| */
    double range_tol;  /* max |a - e| <= range_tol * (max e - min e) */
    double min_cosine;
    double min_sqnr_db;
    double min_top1; /* share of rows with the same largest element */
} kiln_tolerance;

/* How far two tensors are apart, over pairs of finite elements. */
typedef struct kiln_difference {
    const char *name;
    const char *problem;   /* why they cannot be compared (missing, other shape or type), or NULL */
    int64_t count, failed; /* elements, and those outside atol + rtol */
    double max_abs, max_rel, mean_abs, rmse;
    double range;                 /* max e - min e */
    double range_error;           /* max_abs / range; max_abs where the range is 0 */
    double cosine, sqnr_db, top1; /* sqnr_db is infinite for equal tensors */
    int64_t nonfinite; /* pairs where one is NaN or infinite and the other not the same */
    int64_t worst;     /* flat index of max_abs, -1 for none */
    double worst_expected, worst_actual;
    bool pass;
} kiln_difference;

/* A finished comparison: one difference for each expected tensor. */
typedef struct kiln_comparison kiln_comparison;
/* Compares by name. Extra entries of `actual` are ignored. Errors: USAGE, MEMORY; that tensors
 * differ is no error here. */
KILN_API kiln_status kiln_comparison_run(kiln_comparison **out, const kiln_tensors *expected,
                                         const kiln_tensors *actual, const kiln_env *env,
                                         const kiln_tolerance *tolerance, kiln_diag *diag);
/* Gives a comparison back. */
KILN_API void kiln_comparison_destroy(kiln_comparison *comparison);
/* Difference i, or NULL past the end. */
KILN_API const kiln_difference *kiln_comparison_get(const kiln_comparison *comparison, size_t i);
/* True when there was something to compare and all of it passed. */
KILN_API bool kiln_comparison_passed(const kiln_comparison *comparison);

/* ---- Checking a model ----------------------------------------------------------------------- */

/* What becomes of an operator. */
typedef enum kiln_support {
    KILN_SUPPORT_NO,        /* cannot be run */
    KILN_SUPPORT_FUNCTION,  /* a model-local function, expanded */
    KILN_SUPPORT_FOLDED,    /* gone after the passes: folded, merged or rewritten */
    KILN_SUPPORT_REFERENCE, /* some nodes run by the reference kernels, which are exact and slow */
    KILN_SUPPORT_KERNEL,    /* vector kernels */
    KILN_SUPPORT_KNOWN,     /* can be run; the model has other errors, so it was not built */
} kiln_support;

/* "not supported", "function", ... Never NULL. */
KILN_API const char *kiln_support_name(kiln_support support);

typedef struct kiln_check_op {
    const char *domain, *name; /* domain "" is ai.onnx */
    size_t count;              /* nodes in the file: main graph, bodies and functions */
    size_t by_reference;       /* layers of it that the reference runs */
    kiln_support support;
    const char *kernels; /* that run it, "conv_f32, reference"; "" when nothing was built */
} kiln_check_op;

/* A checked model. What was found is in the diag: errors (cannot be run), warnings (questionable)
 * and notes (slow or unusual), each with node, byte offset and hint where there is one. */
typedef struct kiln_check kiln_check;
/* Reads, infers and builds a model and lists its operators. Returns OK when the file could be read
 * as ONNX at all, whatever was found; what it would have failed with is kiln_check_status. */
KILN_API kiln_status kiln_check_run(kiln_check **out, const kiln_env *env, const char *path,
                                    const kiln_open_options *options, kiln_diag *diag);
/* Gives a check back. */
KILN_API void kiln_check_destroy(kiln_check *check);
/* Operator i in order of first use; false past the end. */
KILN_API bool kiln_check_get(const kiln_check *check, size_t i, kiln_check_op *out);
/* OK when the model can be run. */
KILN_API kiln_status kiln_check_status(const kiln_check *check);

/* ---- Repair of quantized models -------------------------------------------------------------- */

typedef enum kiln_repair_for {
    KILN_REPAIR_FOR_TENSORRT,    /* int8 with zero points of 0 where that is exact, float biases */
    KILN_REPAIR_FOR_ONNXRUNTIME, /* types and zero points as they are, int32 biases */
} kiln_repair_for;

typedef struct kiln_repair_options {
    size_t size;
    kiln_repair_for runtime;
    /* Takes away QuantizeLinear and DequantizeLinear between a convolution or product and the
     * addition behind it, so that runtimes fuse the two. Not exact: one rounding less. */
    bool fuse_residual;
    size_t external_threshold; /* as of kiln_engine_export */
} kiln_repair_options;

typedef struct kiln_repair kiln_repair; /* what was done */

/* Writes a model quantized by other tools (PyTorch's eager mode, QLinear operators) in the standard
 * form: QuantizeLinear and DequantizeLinear with constant float32 scales around float operators,
 * no Casts between. Exact in real arithmetic but for fuse_residual. Errors: as of
 * kiln_engine_build and kiln_engine_export. */
KILN_API kiln_status kiln_model_repair(kiln_repair **out, const kiln_model *model, const char *path,
                                       const kiln_repair_options *options, kiln_diag *diag);
KILN_API void kiln_repair_destroy(kiln_repair *repair);
/* The i-th kind of change and how often it was made; NULL past the end. */
KILN_API const char *kiln_repair_change(const kiln_repair *repair, size_t i, size_t *count);
/* The i-th quantized value that the runtime will not take, and why it stays; NULL past the end. */
KILN_API const char *kiln_repair_kept(const kiln_repair *repair, size_t i, const char **why);

/* ---- Reports -------------------------------------------------------------------------------- */

/* Draws a record (the JSON of a verb) as an SVG file. Of `kiln search`: cost against loss for every
 * choice tried, the front, and the loss allowed; of `kiln eval --calib-sizes`: the metric by the
 * size of the calibration set. Errors: MALFORMED for other records, IO, MEMORY. */
KILN_API kiln_status kiln_report_plot(const kiln_env *env, const char *json, size_t len,
                                      const char *path, kiln_diag *diag);

/* ---- This machine --------------------------------------------------------------------------- */

/* Zero or "" for what is not known. */
typedef struct kiln_machine {
    char cpu[64];
    char isa[16];      /* the best instruction set that may be used */
    char governor[32]; /* of frequency, of the first core */
    int32_t cores_online;
    int32_t cores_allowed; /* by the affinity mask */
    int32_t cores_usable;  /* and by the control group's CPU quota */
    uint64_t memory_bytes; /* physical, or the control group's limit */
    int64_t l1d_bytes, l2_bytes, l3_bytes;
    double load; /* tasks running or waiting, one-minute average; -1: not known */
} kiln_machine;
/* Describes the machine as it is now. */
KILN_API void kiln_machine_describe(kiln_machine *out);
/* What a core, and all threads together, do at most: multiply-adds or bytes a nanosecond. */
typedef struct kiln_probe_rate {
    /* "float32", "int8 by pairs", "int8 by dot products", "bfloat16", "int8 in tiles", "bfloat16 in
     * tiles" */
    const char *name;
    double one, all;
} kiln_probe_rate;
typedef struct kiln_probe_level {
    const char *name; /* "L1d", "L2", "L3", "memory" */
    size_t bytes;     /* that each thread passes over */
    kiln_probe_rate read, write;
} kiln_probe_level;
typedef struct kiln_probe {
    int32_t threads;
    double clock_ghz;    /* of one core that is busy */
    double fork_join_us; /* to hand all threads an empty job and see it done */
    double barrier_us;   /* of all threads */
    kiln_probe_rate products[6];
    size_t n_products;
    kiln_probe_level levels[4];
    size_t n_levels;
} kiln_probe;
/* Measures, in about two seconds, what shares of a peak are shares of: each number is the best of
 * nine trials. threads 0: all usable cores. Errors: MEMORY. */
KILN_API kiln_status kiln_probe_run(kiln_probe *out, int32_t threads, const kiln_env *env,
                                    kiln_diag *diag);
/* Instruction set i from the lowest, as `max_isa` and KILN_MAX_ISA take it, and whether this
 * machine has it; NULL past the end. */
KILN_API const char *kiln_isa_get(size_t i, bool *available);
/* Name i of what kiln_build_options.off takes, and whether it is a "pass", "rewrite" (from the
 * canonical graph to the kernels'), "kernel" or "fusion"; NULL past the end. */
KILN_API const char *kiln_off_get(size_t i, const char **kind);
/* A library Kiln runs with, i-th, and its version; NULL past the end. */
KILN_API const char *kiln_library_get(size_t i, const char **version);

#ifdef __cplusplus
}
#endif

#endif /* KILN_TOOLS_H */
