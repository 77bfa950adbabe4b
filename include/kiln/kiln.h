/* kiln.h - load a model, build an engine, run it.
 *
 * Kiln turns a trained network (ONNX) into a verified engine for this machine. Most programs need
 * this header alone:
 *
 *     kiln_diag *diag;   kiln_diag_create(&diag, NULL);
 *     kiln_model *model; kiln_model_load(&model, NULL, "net.onnx", NULL, diag);
 *     kiln_engine *eng;  kiln_engine_build(&eng, model, NULL, diag);
 *     kiln_context *ctx; kiln_context_create(&ctx, eng, NULL, diag);
 *     kiln_context_bind(ctx, "input", &x, diag);
 *     kiln_context_run(ctx, diag);
 *     const kiln_tensor *y = kiln_context_output(ctx, 0);
 *
 * Conventions that hold for every function of include/kiln/:
 *  - Functions that can fail return a kiln_status: 0 is success, negatives name the kind of
 *    failure. Results leave through `out` parameters, which come first and are written on success
 *    only. What went wrong, and where, is appended to the caller's kiln_diag (may be NULL).
 *  - Returned by value (`const char *`, `const kiln_tensor *`) means borrowed from the object
 *    asked;
 *    returned through `out` means yours, to be given back to the matching _destroy, which takes
 *    NULL. - Option structs begin with `size`: set it to sizeof the struct; zero in any other
 *    field means
 *    the default. NULL instead of a struct means all defaults.
 *  - Strings are UTF-8 and end in NUL. The library never prints, exits, aborts, or changes locale,
 *    signals or the caller's floating-point mode.
 *  - Thread safety: a model and an engine are immutable once made and may be used by any number of
 *    threads. A context, a diag and a graph under construction belong to one thread at a time.
 */
#ifndef KILN_KILN_H
#define KILN_KILN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define KILN_API
#else
#define KILN_API __attribute__((visibility("default")))
#endif

/* ---- Status -------------------------------------------------------------------------------- */

/* The kinds of failure. The command's exit status follows from them (kiln_status_exit_code). */
typedef enum kiln_status {
    KILN_OK = 0,
    KILN_E_CHECK = -1,       /* a check failed: accuracy, comparison, validation */
    KILN_E_USAGE = -2,       /* the call is wrong: an argument, an option, an unknown name */
    KILN_E_MALFORMED = -3,   /* an input file or model breaks its format's rules */
    KILN_E_UNSUPPORTED = -4, /* well-formed, but an operator, type or opset Kiln does not run */
    KILN_E_BACKEND = -5,     /* a device or backend is not available */
    KILN_E_LIMIT = -6,       /* a configured limit was reached */
    KILN_E_IO = -7,          /* the operating system failed to read or write */
    KILN_E_ENGINE = -8,      /* an engine or cache is damaged, newer, or for another machine */
    KILN_E_DELEGATE = -9,    /* a delegate library failed */
    KILN_E_MEMORY = -10,     /* out of memory */
    KILN_E_CANCELLED = -11,  /* the caller asked to stop */
    KILN_E_INTERNAL = -12,   /* a bug in Kiln: please report */
} kiln_status;

/* "malformed input", "out of memory", ... Never NULL. */
KILN_API const char *kiln_status_name(kiln_status status);
/* Exit status of the `kiln` command for this kind of failure (0..9, 70, 130). */
KILN_API int kiln_status_exit_code(kiln_status status);
/* Library version, "MAJOR.MINOR.PATCH". */
KILN_API const char *kiln_version(void);

/* ---- Element types and tensors ----------------------------------------------------------------
 */

/* Element types, numbered as ONNX's TensorProto.DataType (onnx.proto). */
typedef enum kiln_dtype {
    KILN_DTYPE_NONE = 0,
    KILN_DTYPE_F32 = 1,
    KILN_DTYPE_U8 = 2,
    KILN_DTYPE_I8 = 3,
    KILN_DTYPE_U16 = 4,
    KILN_DTYPE_I16 = 5,
    KILN_DTYPE_I32 = 6,
    KILN_DTYPE_I64 = 7,
    KILN_DTYPE_STRING = 8, /* host only; data is an array of const char * */
    KILN_DTYPE_BOOL = 9,   /* one byte, 0 or 1 */
    KILN_DTYPE_F16 = 10,
    KILN_DTYPE_F64 = 11,
    KILN_DTYPE_U32 = 12,
    KILN_DTYPE_U64 = 13,
    KILN_DTYPE_C64 = 14,
    KILN_DTYPE_C128 = 15,
    KILN_DTYPE_BF16 = 16,
    KILN_DTYPE_F8E4M3FN = 17,
    KILN_DTYPE_F8E4M3FNUZ = 18,
    KILN_DTYPE_F8E5M2 = 19,
    KILN_DTYPE_F8E5M2FNUZ = 20,
    KILN_DTYPE_U4 = 21, /* sub-byte types are packed, first element in the low bits */
    KILN_DTYPE_I4 = 22,
    KILN_DTYPE_F4E2M1 = 23,
    KILN_DTYPE_F8E8M0 = 24,
    KILN_DTYPE_U2 = 25,
    KILN_DTYPE_I2 = 26,
    KILN_DTYPE_COUNT = 27,
} kiln_dtype;

/* "float32", "int8", ... as numpy and ONNX spell them; "?" for a number that is no dtype. */
KILN_API const char *kiln_dtype_name(kiln_dtype dtype);
/* Bits of one element (4 for int4); 0 for NONE and STRING. */
KILN_API int kiln_dtype_bits(kiln_dtype dtype);
/* Inverse of kiln_dtype_name, also accepting "fp32", "f32", "half" and the like; NONE if unknown.
 */
KILN_API kiln_dtype kiln_dtype_parse(const char *name);

enum { KILN_MAX_RANK = 32 };

/* A dense tensor in host memory: row-major, no padding between rows.
 * `data` is read or written in place, never copied by the struct's own handling; whoever filled the
 * struct owns it. cap_bytes is what `data` can hold, so that a buffer can be larger than the
 * tensor. */
typedef struct kiln_tensor {
    kiln_dtype dtype;
    int32_t rank;
    int64_t dims[KILN_MAX_RANK];
    void *data;
    size_t cap_bytes;
} kiln_tensor;

/* Number of elements, or -1 if a dim is negative or the product overflows. */
KILN_API int64_t kiln_tensor_count(const kiln_tensor *t);
/* Bytes of the elements (sub-byte types rounded up to whole bytes), SIZE_MAX on overflow. */
KILN_API size_t kiln_tensor_bytes(const kiln_tensor *t);

/* ---- Environment: allocator, logger, limits
 * ------------------------------------------------------ */

/* All memory of an object comes from its environment's allocator. alloc returns `bytes` bytes
 * aligned to 64, or NULL; release gets the pointer and the size asked for. Both may be called from
 * any thread. */
typedef struct kiln_allocator {
    void *(*alloc)(void *user, size_t bytes);
    void (*release)(void *user, void *ptr, size_t bytes);
    void *user;
} kiln_allocator;

typedef enum kiln_log_level {
    KILN_LOG_ERROR,
    KILN_LOG_WARN,
    KILN_LOG_INFO,
    KILN_LOG_DEBUG,
} kiln_log_level;

/* Called from any thread that works for the environment; `text` is one line without newline. */
typedef struct kiln_logger {
    void (*line)(void *user, kiln_log_level level, const char *text);
    void *user;
    kiln_log_level level; /* lines above it are not formatted at all */
} kiln_logger;

/* What a model may ask of this process. Zero means the default in brackets. */
typedef struct kiln_limits {
    size_t size;
    uint64_t model_bytes;     /* the .onnx file itself [2 GiB] */
    uint64_t external_bytes;  /* all external data files together [1 TiB] */
    uint64_t tensor_bytes;    /* any one tensor [80 % of memory] */
    uint64_t fold_bytes;      /* one constant-folded result [64 MiB] */
    uint64_t memory_bytes;    /* run-time memory of one context [80 % of memory] */
    uint32_t nodes;           /* after inlining functions [2,000,000] */
    uint32_t nested_graphs;   /* depth of If/Loop/Scan bodies [16] */
    uint32_t message_depth;   /* protobuf nesting [64] */
    uint32_t functions;       /* model-local functions [10,000] */
    uint32_t call_depth;      /* function calling function [100] */
    uint32_t attributes;      /* per node [256] */
    uint32_t attribute_items; /* in one repeated attribute [16 Mi] */
    uint32_t name_bytes;      /* one name [64 KiB] */
    uint64_t loop_trips;      /* iterations of one Loop [10,000,000] */
    uint32_t image_mpixels;   /* decoded image size [64] */
} kiln_limits;

typedef struct kiln_env_options {
    size_t size;
    const kiln_allocator *allocator; /* copied */
    const kiln_logger *logger;       /* copied */
    const kiln_limits *limits;       /* copied */
} kiln_env_options;

/* Immutable after creation; must outlive every object made with it. A NULL env everywhere means
 * malloc, no log and the default limits. */
typedef struct kiln_env kiln_env;
KILN_API kiln_status kiln_env_create(kiln_env **out, const kiln_env_options *options);
KILN_API void kiln_env_destroy(kiln_env *env);

/* ---- Diagnostics
 * ------------------------------------------------------------------------------- */

/* A list of findings, oldest first. Strings live as long as the diag or until it is cleared. */
typedef struct kiln_diag kiln_diag;

typedef enum kiln_severity { KILN_SEV_ERROR, KILN_SEV_WARNING, KILN_SEV_NOTE } kiln_severity;

typedef struct kiln_finding {
    kiln_severity severity;
    kiln_status status;  /* the status the failing call returned; KILN_OK for warnings and notes */
    const char *code;    /* stable identifier: "E0401" */
    const char *message; /* one sentence without the place */
    const char *hint;    /* what to do, or NULL */
    const char *file;    /* input file, or NULL */
    int64_t offset;      /* byte in that file, or -1 */
    const char *node;    /* node name, or NULL */
    const char *op;      /* operator name, or NULL */
    const char *chain;   /* what was going on, outermost first: "importing net.onnx > function f" */
} kiln_finding;

/* An empty list. */
KILN_API kiln_status kiln_diag_create(kiln_diag **out, const kiln_env *env);
/* Gives the list and all its strings back. */
KILN_API void kiln_diag_destroy(kiln_diag *diag);
/* Empties the list; strings of earlier findings are gone. */
KILN_API void kiln_diag_clear(kiln_diag *diag);
/* Number of findings. */
KILN_API size_t kiln_diag_count(const kiln_diag *diag);
/* Finding i, or NULL past the end. */
KILN_API const kiln_finding *kiln_diag_get(const kiln_diag *diag, size_t i);
/* Writes `error[E0401] net.onnx: node "c" (Conv): sentence` and a `hint:` line, without colour,
 * control characters of names escaped, to buf (always NUL-terminated). Returns the full length. */
KILN_API size_t kiln_finding_format(const kiln_finding *finding, char *buf, size_t cap_bytes);

/* ---- Threads
 * ------------------------------------------------------------------------------------- */

/* Worker threads that contexts lease for the length of one run. Any number of contexts may share a
 * pool; a run that finds it busy works on the caller's thread alone. */
typedef struct kiln_pool kiln_pool;

typedef struct kiln_pool_options {
    size_t size;
    int32_t threads; /* including the caller's; 0: cores this process may use (affinity, cgroup) */
    int64_t spin_ns; /* how long idle workers spin before they sleep [50,000]; -1: do not spin */
    bool pin;        /* bind worker i to the i-th allowed core */
} kiln_pool_options;

/* Starts the workers; fewer than asked for when the system refuses threads. */
KILN_API kiln_status kiln_pool_create(kiln_pool **out, const kiln_env *env,
                                      const kiln_pool_options *options);
/* Ends the workers; no run may be under way. */
KILN_API void kiln_pool_destroy(kiln_pool *pool);
/* Threads of the pool, the caller's included; 1 for NULL. */
KILN_API int32_t kiln_pool_threads(const kiln_pool *pool);

/* ---- What goes in and out
 * -------------------------------------------------------------------------- */

/* One input or output. Strings are borrowed from the model or engine asked. */
typedef struct kiln_io {
    const char *name;
    kiln_dtype dtype;
    int32_t rank;                /* -1: not known before the run */
    int64_t dims[KILN_MAX_RANK]; /* -1: dynamic */
    bool is_sequence;            /* of tensors of this dtype; rank and dims are not used */
    const char *type;            /* "float32[N,3,224,224]" */
    /* Inputs of an engine built with a profile: each dim lies between min and max. */
    bool has_range;
    int64_t min[KILN_MAX_RANK], opt[KILN_MAX_RANK], max[KILN_MAX_RANK];
} kiln_io;

/* A shape for one input: dims of -1 stay dynamic. */
typedef struct kiln_shape {
    const char *name;
    int32_t rank;
    int64_t dims[KILN_MAX_RANK];
} kiln_shape;

/* The shapes one input may have: dim i is at least min[i] and at most max[i], usually opt[i]. */
typedef struct kiln_shape_range {
    const char *name;
    int32_t rank;
    int64_t min[KILN_MAX_RANK], opt[KILN_MAX_RANK], max[KILN_MAX_RANK];
} kiln_shape_range;

/* ---- Models
 * ---------------------------------------------------------------------------------------- */

/* An imported model: its graph in Kiln's terms, every type inferred. */
typedef struct kiln_model kiln_model;

typedef struct kiln_model_options {
    size_t size;
    const char *external_root; /* folder of external data [the model file's own; none for memory] */
    bool no_mmap;              /* read files into memory instead of mapping them */
    bool verify_checksums;     /* of external data that states one */
    const kiln_shape *overrides; /* replace the declared shapes of inputs */
    size_t n_overrides;
} kiln_model_options;

/* Reads an ONNX file. Mapped files must not change while the model or an engine built from it
 * lives. Errors: MALFORMED, UNSUPPORTED (every operator that cannot run is listed), LIMIT, IO,
 * MEMORY. */
KILN_API kiln_status kiln_model_load(kiln_model **out, const kiln_env *env, const char *path,
                                     const kiln_model_options *options, kiln_diag *diag);
/* Reads ONNX bytes, which must stay valid and unchanged as long as the model lives. */
KILN_API kiln_status kiln_model_load_memory(kiln_model **out, const kiln_env *env,
                                            const void *bytes, size_t len,
                                            const kiln_model_options *options, kiln_diag *diag);
/* Gives the model back; engines built from it stay valid. */
KILN_API void kiln_model_destroy(kiln_model *model);

/* Input or output i; false past the end. */
KILN_API bool kiln_model_input(const kiln_model *model, size_t i, kiln_io *out);
KILN_API bool kiln_model_output(const kiln_model *model, size_t i, kiln_io *out);

typedef struct kiln_model_info {
    int64_t ir_version, opset;
    const char *producer, *graph_name;
    size_t nodes;      /* bodies included */
    size_t parameters; /* elements of all constants */
    size_t parameter_bytes;
    int64_t macs; /* multiply-accumulates of one run; dynamic dims counted as 1 */
    size_t functions_inlined, nodes_upgraded;
    char hash[33]; /* of the model file, hexadecimal */
} kiln_model_info;
/* Facts about the model; strings are borrowed from it. */
KILN_API void kiln_model_get_info(const kiln_model *model, kiln_model_info *out);

/* Operator i of the model, by name in order of first use, and how many nodes use it. */
KILN_API bool kiln_model_op(const kiln_model *model, size_t i, const char **name,
                            const char **domain, size_t *count);

/* ---- Engines
 * --------------------------------------------------------------------------------------- */

/* A plan with packed weights: immutable, for any number of contexts. */
typedef struct kiln_engine kiln_engine;

/* How one layer is to run: what kiln_layer says of layers that are built, and
 * kiln_engine_candidate of other ways to run them. */
typedef struct kiln_way {
    const char *layer;  /* name of the layer */
    const char *kernel; /* that is to run it */
    const char *tactic; /* in which way; NULL or "rules": the kernel's rules decide */
    bool wish;          /* rules decide where it cannot be had, instead of an error */
} kiln_way;

/* What an engine is to be best at.
 *
 *   latency     one run takes the least time
 *   throughput  so many runs at once as there are threads, one thread each, take the least time
 *   memory      no weights are packed into more bytes than they have (Winograd): the same as
 *               "expanded_weights" in `off`; kept in the engine */
typedef enum kiln_goal {
    KILN_GOAL_LATENCY,
    KILN_GOAL_THROUGHPUT,
    KILN_GOAL_MEMORY,
} kiln_goal;

typedef struct kiln_build_options {
    size_t size;
    const char *max_isa;    /* "portable", "avx2", "avx512vnni", ... [the best of this machine] */
    const char *const *off; /* names of kiln_off_get to leave out; NULL-terminated */
    bool portable; /* keep the source weights in the file, so that another machine can rebuild */
    bool canonical_only; /* stop after the passes: for kiln_engine_export */
    int32_t stop_after;  /* apply at most this many rewrites [all] */
    /* The profile: a range for each tensor input with dynamic dims [any shape]. One may be left out
     * when its dims share their symbols with inputs that have one. */
    const kiln_shape_range *profile;
    size_t n_profile;
    const kiln_way *choices; /* of layers; all others run as rules decide */
    size_t n_choices;
    /* Only kernels that compute what the operators' definitions say, but for the order of sums: no
     * Winograd convolutions. The same as "approximate" in `off`; kept in the engine. */
    bool exact;
    kiln_goal goal;
    /* Most bytes that a layer may take beside its operands while it runs: what its threads share
     * and what one of them has of its own [any]. Counted at the profile's max; a dim that nothing
     * bounds counts as 1, layers behind one that the data sizes and those of bodies do not count.
     * Ways that need more are refused; LIMIT where a layer has no other. Kept in the engine. */
    size_t workspace_bytes;
} kiln_build_options;

/* Canonicalises, covers and packs. The graph must be possible at the profile's min, opt and max;
 * dims whose range is one number are planned as such. Errors: UNSUPPORTED, LIMIT, MEMORY, MALFORMED
 * (at the profile's shapes), USAGE (unknown name in `off`, a profile that does not fit the model, a
 * choice that cannot be had).
 */
KILN_API kiln_status kiln_engine_build(kiln_engine **out, const kiln_model *model,
                                       const kiln_build_options *options, kiln_diag *diag);
KILN_API void kiln_engine_destroy(kiln_engine *engine);

/* Writes the engine; the file is the old one or the complete new one. */
KILN_API kiln_status kiln_engine_save(const kiln_engine *engine, const char *path, kiln_diag *diag);
/* The same bytes in memory: *out is given back with kiln_free. */
KILN_API kiln_status kiln_engine_save_memory(const kiln_engine *engine, void **out, size_t *len,
                                             kiln_diag *diag);

typedef struct kiln_load_options {
    size_t size;
    bool verify; /* hash the weights too */
    bool no_mmap;
} kiln_load_options;

/* Maps an engine file. Structure, index and graph are always verified, weights with `verify`.
 * Errors: ENGINE (damaged, newer, for another instruction set), IO, MEMORY. */
KILN_API kiln_status kiln_engine_load(kiln_engine **out, const kiln_env *env, const char *path,
                                      const kiln_load_options *options, kiln_diag *diag);
/* The bytes must be aligned to 64 and stay valid and unchanged as long as the engine lives. */
KILN_API kiln_status kiln_engine_load_memory(kiln_engine **out, const kiln_env *env,
                                             const void *bytes, size_t len,
                                             const kiln_load_options *options, kiln_diag *diag);
/* True when the bytes begin like an engine file (any version). */
KILN_API bool kiln_engine_recognize(const void *bytes, size_t len);

/* Releases memory that a function of this header said to give back with kiln_free. */
KILN_API void kiln_free(const kiln_env *env, void *ptr, size_t len);

/* Input i; false past the end. */
KILN_API bool kiln_engine_input(const kiln_engine *engine, size_t i, kiln_io *out);
/* Output i; false past the end. */
KILN_API bool kiln_engine_output(const kiln_engine *engine, size_t i, kiln_io *out);

typedef struct kiln_engine_info {
    const char *version; /* of the Kiln that built it */
    const char *isa;
    char model_hash[33];
    const char *command; /* how to build it again */
    size_t nodes;        /* of the canonical graph */
    size_t parameters;
    size_t weight_bytes; /* packed weights and constants */
    int64_t macs;
    bool portable;
} kiln_engine_info;
/* Facts about the engine; strings are borrowed from it. */
KILN_API void kiln_engine_get_info(const kiln_engine *engine, kiln_engine_info *out);

/* One step of the plan. Strings are borrowed from the engine. */
typedef struct kiln_layer {
    const char *name;    /* of the anchor node */
    const char *kernel;  /* "gemm_f32", "reference", "convert" */
    const char *tactic;  /* "patch"; "rules" where the kernel decides by shapes or has one way */
    const char *ops;     /* "Conv+Relu" */
    const char *sources; /* names of the ONNX nodes it came from, separated by ", " */
    const char *output;  /* "float32[N,64,56,56] nhwc" */
    int64_t macs;
    size_t weight_bytes;
    /* What its products' operands are held in: "fp32", "bf16", "int8", "fp16 weights" (activations
     * are float32); of layers without, what it gives. */
    const char *precision;
    const char *body; /* "loop_3.body": node and attribute that hold it; NULL: the model itself */
} kiln_layer;
/* Step i of the plan (bodies not included); false past the end. */
KILN_API bool kiln_engine_layer(const kiln_engine *engine, size_t i, kiln_layer *out);
/* Step i of all bodies, one after the other, each before those within it; false past the end. */
KILN_API bool kiln_engine_inner_layer(const kiln_engine *engine, size_t i, kiln_layer *out);
/* Other ways to run exactly the nodes of step `layer` of the plan: an array of n choices that is
 * given back with kiln_free (n * sizeof **out bytes; NULL when n is 0), whose strings the engine
 * owns. Errors: MEMORY, USAGE (no such layer). */
KILN_API kiln_status kiln_engine_candidates(kiln_way **out, size_t *n, const kiln_engine *engine,
                                            size_t layer, kiln_diag *diag);
/* Why other kernels did not take the layer named: one sentence per kernel, NULL past the end.
 * Known for engines built in this process only. */
KILN_API const char *kiln_engine_refusal(const kiln_engine *engine, const char *layer, size_t i);
/* What timing found of one way to run a layer (kiln_engine_build_timed of kiln/tools.h). */
typedef struct kiln_tried_way {
    const char *layer, *kernel, *tactic;
    double ms, rules_ms; /* medians: of the layer run so, and as rules would have it, in turn */
    const char *refused; /* why it could not be chosen however fast, or NULL */
    bool chosen;
} kiln_tried_way;
/* Way i that was tried; false past the end, and for engines that were not timed. */
KILN_API bool kiln_engine_tried(const kiln_engine *engine, size_t i, kiln_tried_way *out);
/* What each canonicalising pass did: name, rewrites applied, nodes before and after. */
typedef struct kiln_pass_info {
    const char *name;
    size_t rewrites;
    size_t nodes_before, nodes_after;
    bool off;
} kiln_pass_info;
KILN_API bool kiln_engine_pass(const kiln_engine *engine, size_t i, kiln_pass_info *out);

/* Writes the canonical graph as an ONNX model; weights above `external_threshold` bytes go to
 * PATH.data (0: none). Needs an engine built in this process or loaded from a portable file. */
KILN_API kiln_status kiln_engine_export(const kiln_engine *engine, const char *path,
                                        size_t external_threshold, kiln_diag *diag);

/* ---- Contexts: running
 * -------------------------------------------------------------------------------- */

/* One run at a time; as many contexts as there are threads that run.
 *
 * A context binds the plan to the shapes it is given and keeps that for the last 16 sets of them;
 * the one used longest ago goes first. Activations of all shapes share buffers that only grow. For
 * an engine with a profile they are made for max at creation, so that a new shape within it costs
 * the bookkeeping of its binding, and activations only where the data sizes them or smaller
 * buffers happen to lie less tightly. */
typedef struct kiln_context kiln_context;

/* How a context computes the regions of its engine.
 *
 *   fast       by their kernels
 *   reference  by plain C, one node after the other: integer regions by the arithmetic their
 *              kernels state, others by the operators' references. Slow; quantized models give what
 *              "fake quantization" means
 *   checked    by their kernels, and each of 8-bit numbers by its reference too, on the same
 *              inputs. A run fails with CHECK, naming the region, where an integer region differs
 *              in a bit, or floats rounded to 8 bits by more than a step
 *
 * The last two need the source weights: engines built in this process, or with `portable`. */
typedef enum kiln_regions {
    KILN_REGIONS_FAST,
    KILN_REGIONS_REFERENCE,
    KILN_REGIONS_CHECKED,
} kiln_regions;

typedef struct kiln_context_options {
    size_t size;
    kiln_pool *pool; /* borrowed [one of the context's own] */
    int32_t threads; /* of the pool [all]; for an own pool: its size [cores this process may use] */
    uint64_t seed;   /* of random operators [1] */
    kiln_regions regions;
} kiln_context_options;

/* A context; the engine (and a pool given) must outlive it. Errors: MEMORY, USAGE; LIMIT when the
 * profile's max needs more memory than allowed. */
KILN_API kiln_status kiln_context_create(kiln_context **out, const kiln_engine *engine,
                                         const kiln_context_options *options, kiln_diag *diag);
/* Waits for an asynchronous run and gives everything back. */
KILN_API void kiln_context_destroy(kiln_context *context);

/* Sets an input. The struct is copied, the data is read in place by every later run until another
 * is bound. Errors: USAGE (unknown name, wrong type or shape, outside the profile); what was bound
 * before stays then. */
KILN_API kiln_status kiln_context_bind(kiln_context *context, const char *name,
                                       const kiln_tensor *tensor, kiln_diag *diag);
/* Sets an input that is a sequence: n tensors, structs copied, data read in place. */
KILN_API kiln_status kiln_context_bind_sequence(kiln_context *context, const char *name,
                                                const kiln_tensor *items, size_t n,
                                                kiln_diag *diag);
/* Has output `name` written straight into `buffer` whenever it fits into cap bytes; NULL undoes
 * it. */
KILN_API kiln_status kiln_context_bind_output(kiln_context *context, const char *name, void *buffer,
                                              size_t cap_bytes, kiln_diag *diag);
/* Asked for memory of an output whose size only the run decides; return NULL to leave it in
 * Kiln's. */
typedef void *(*kiln_output_alloc_fn)(void *user, const char *name, size_t bytes);
KILN_API void kiln_context_set_output_alloc(kiln_context *context, kiln_output_alloc_fn alloc,
                                            void *user);

/* Prepares for the shapes bound now, so that the next run allocates nothing. Outputs of the last
 * run are gone. */
KILN_API kiln_status kiln_context_prepare(kiln_context *context, kiln_diag *diag);
/* Runs once on the inputs bound. Errors: USAGE (an input is missing), MALFORMED (values an operator
 * cannot take), LIMIT, MEMORY, CANCELLED. */
KILN_API kiln_status kiln_context_run(kiln_context *context, kiln_diag *diag);
/* Starts a run on another thread; the context may only be waited for or cancelled until it is
 * done. */
KILN_API kiln_status kiln_context_run_async(kiln_context *context, kiln_diag *diag);
/* Waits for that run and returns its status; `diag` of run_async has the findings. */
KILN_API kiln_status kiln_context_wait(kiln_context *context);
/* From any thread: ends the run under way early with KILN_E_CANCELLED: after the step that works,
 * or within it where it is long and has no vector kernel. */
KILN_API void kiln_context_cancel(kiln_context *context);

/* Output i of the last run, dims filled in, valid until the next, or until an input that is handed
 * through is bound again; NULL past the end or before a run. For a sequence: its first item. */
KILN_API const kiln_tensor *kiln_context_output(const kiln_context *context, size_t i);
/* Items of output i (1 for a tensor), and item k. */
KILN_API size_t kiln_context_output_items(const kiln_context *context, size_t i);
KILN_API const kiln_tensor *kiln_context_output_item(const kiln_context *context, size_t i,
                                                     size_t k);

/* Called for each value of the canonical graph that `wants` says yes to, while the run goes on:
 * `replayed` is true for values inside a fused region, which the reference computes again from the
 * region's inputs. Returning anything but KILN_OK ends the run. */
typedef struct kiln_tap {
    bool (*wants)(void *user, const char *name);
    kiln_status (*see)(void *user, const char *name, const char *node, const kiln_tensor *tensor,
                       bool replayed);
    void *user;
} kiln_tap;
/* NULL removes the tap. The plan is the same with and without. */
KILN_API void kiln_context_set_tap(kiln_context *context, const kiln_tap *tap);

/* Time per layer: switched on, it sums over runs; layers are numbered as by kiln_engine_layer. A
 * layer with bodies (If, Loop, Scan) has the time that their layers did not take. */
KILN_API void kiln_context_set_profile(kiln_context *context, bool on);
KILN_API bool kiln_context_profile(const kiln_context *context, size_t layer, int64_t *t_ns,
                                   int64_t *runs);
/* Likewise for kiln_engine_inner_layer: *runs may be more than the model's, or 0. */
KILN_API bool kiln_context_profile_inner(const kiln_context *context, size_t layer, int64_t *t_ns,
                                         int64_t *runs);
/* Whole runs meanwhile. What the layers do not add up to went into binding shapes that only data
 * decides, and from layer to layer. */
KILN_API void kiln_context_profile_total(const kiln_context *context, int64_t *t_ns, int64_t *runs);
/* Bytes held for activations and scratch at the shapes seen so far. */
KILN_API size_t kiln_context_memory(const kiln_context *context, size_t *scratch_bytes);

#ifdef __cplusplus
}
#endif

#endif /* KILN_KILN_H */
