/* cli.h - what the files of the command share.
 *
 * A verb is one file cmd_<verb>.c with a `verb` in it: what it is called, an option table,
 * examples, and a function. Parsing, --help, man page, completion and docs/cli.md all come from
 * that table.
 *
 *     static const opt options[] = {
 *         {.name = "topk", .kind = OPT_INT, .value = "K", .help = "print K",
 *          .at = offsetof(own, topk)},
 *     };
 *     const verb verb_run = {.name = "run", .summary = ..., .options = options, ...};
 *
 * Data goes to stdout, everything else to stderr. A verb returns the exit status.
 */
#ifndef KILN_CLI_CLI_H
#define KILN_CLI_CLI_H

#include <stdarg.h>
#include <stdio.h>

#include "kiln/kiln.h"
#include "kiln/tools.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))

/* ---- Options ---- */

/* A growing array of strings; the strings are borrowed or from keep(). */
typedef struct list {
    const char **items;
    size_t count, cap;
} list;

typedef enum opt_kind {
    OPT_FLAG,   /* bool */
    OPT_SWITCH, /* const char *: "" without a value; `value` lists those allowed behind "=" */
    OPT_TEXT,   /* const char * */
    OPT_CHOICE, /* const char *; `value` lists what is allowed: "table|json|csv" */
    OPT_INT,    /* int64_t, at least `min` */
    OPT_NUMBER, /* double, at least `min` */
    OPT_LIST,   /* list: "a,b,c", repeatable */
    OPT_MANY,   /* list: one item each time, commas and all */
    OPT_KEY,    /* list: "name=value", for the preprocessing keys */
} opt_kind;

/* One option. `at` is where its value goes: an offset into the verb's own struct, or, with
 * `shared`, into struct cli. */
typedef struct opt {
    const char *name; /* without the dashes */
    char letter;      /* -o, or 0 */
    opt_kind kind;
    bool shared;
    size_t at;
    const char *value; /* NAME shown for it */
    const char *help;  /* a phrase; the default in brackets at its end */
    double min;
} opt;

#define SHARED(field) .shared = true, .at = offsetof(cli, field)

/* Options that several verbs have. */
typedef struct opt_group {
    const char *title;
    const opt *options;
    size_t count;
} opt_group;

extern const opt_group group_common, group_build, group_tune, group_input, group_picture,
    group_quant, group_study, group_tolerance;

typedef struct example {
    const char *command, *what;
} example;

typedef struct cli cli;

typedef struct verb {
    const char *name;
    const char *summary;  /* one line, for `kiln --help` */
    const char *operands; /* "MODEL|ENGINE" */
    const char *about;    /* a paragraph or more */
    const char *exits;    /* what exit status 1 means here, or NULL */
    const example *examples;
    size_t n_examples;
    const opt *options;
    size_t n_options;
    const opt_group *const *groups; /* NULL-terminated */
    size_t own_bytes;               /* of the struct that `options` fill */
    size_t min_operands, max_operands;
    bool trtexec; /* takes trtexec's spellings */
    int (*run)(cli *c, void *own);
} verb;

/* The row of -o FILE, which a verb keeps in `const char *output` of its own. */
#define OUTPUT_OPTION(type, text)                                           \
    {                                                                       \
        .name = "output", .letter = 'o', .kind = OPT_TEXT, .value = "FILE", \
        .at = offsetof(type, output), .help = (text)                        \
    }

#define EXAMPLES(array) .examples = (array), .n_examples = COUNT_OF(array)
#define OPTIONS(array, type) \
    .options = (array), .n_options = COUNT_OF(array), .own_bytes = sizeof(type)

/* All verbs in the order of the help; NULL-terminated. */
extern const verb *const verbs[];
const verb *find_verb(const char *name);

/* Option i of a verb, its own first, then those of its groups; NULL past the end. */
const opt *verb_option(const verb *v, size_t i);
/* The option called `name`, or NULL. */
const opt *verb_find_option(const verb *v, const char *name);

/* ---- The state of one command ---- */

typedef enum format { FORMAT_TABLE, FORMAT_JSON, FORMAT_CSV } format;

struct cli {
    const verb *verb;
    list operands;
    /* common */
    const char *format_name, *log_level_name;
    bool verbose, quiet, dry_run, help;
    format format;
    kiln_log_level level;
    /* building and loading */
    const char *max_isa, *external_root;
    list off, override_shapes, dynamic_shapes;
    list trt_shapes[3]; /* trtexec's min, opt, max */
    const char *goal, *workspace;
    bool no_mmap, verify, exact;
    int64_t threads;
    /* building by measuring */
    const char *opt_level, *timing_cache;
    double time_budget;
    bool frozen;
    /* inputs */
    list inputs, shapes, range, preprocess;
    int64_t seed;
    double atol, rtol, range_tol, min_cosine, min_sqnr_db, min_top1;
    /* quantizing */
    list calib, percentiles, precision, layers, improve;
    double cut_weight;
    const char *calibrator, *ranges_file, *save_calib, *weight_only;
    int64_t calib_count, calib_batch, keep_first, keep_last, weight_block;
    bool calib_shuffle, symmetric, bf16, fp16, dynamic;
    /* studies of layers */
    const char *eval_data, *eval_labels, *state;
    int64_t eval_count, layer_samples;
    /* what runs */
    const char *command; /* the words given, for the records */
    kiln_env *env;
    kiln_diag *diag;
    size_t printed; /* findings already on stderr */
    bool color;     /* of stderr */
    bool tty;       /* stderr is a terminal: progress may be shown */
    bool progress_shown;
    double started_ms;
};

/* Fills c and own from the words after the verb. 0, or the exit status once it said what is
 * wrong. */
int parse_options(cli *c, void *own, int argc, char **argv);
/* The candidate nearest to `word` (a typing error or two away), or NULL. */
const char *nearest(const char *word, const char *(*candidate)(const void *of, size_t i),
                    const void *of);
void list_add(list *l, const char *item);
/* Whole text as a number; false when it is none. */
bool parse_int(const char *text, int64_t *out);
bool parse_number(const char *text, double *out);
/* A size, "512KiB", "1.5 GiB", "100B"; a bare number is MiB, as trtexec has it. At most 2^53. */
bool parse_bytes(const char *text, double *out);
/* The words of a list as numbers >= min. Returns false after saying which is wrong. */
bool parse_int_list(cli *c, const char *name, const list *l, int64_t min, int64_t *out, size_t n);
bool parse_number_list(cli *c, const char *name, const list *l, double *out, size_t n);

/* ---- trtexec's spellings (trtexec.c) ---- */

typedef enum trt_fate { TRT_ACCEPTED, TRT_IGNORED, TRT_REFUSED } trt_fate;
typedef enum trt_how {
    TRT_OPTION,     /* the option `target` with the same value */
    TRT_OPERAND,    /* the value is the model or engine */
    TRT_PAIRS,      /* "name:file,..." becomes name=file each */
    TRT_MIN_SHAPES, /* the values go to the command's trt_shapes[0], those of the next two to [1] */
    TRT_OPT_SHAPES, /* and [2] */
    TRT_MAX_SHAPES,
    TRT_NOTHING, /* holds anyway */
} trt_how;

typedef struct trt_flag {
    const char *name; /* without the dashes */
    trt_fate fate;
    trt_how how;
    const char *target; /* our option, or NULL */
    const char *note;
} trt_flag;

/* Flag i, or NULL past the end. */
const trt_flag *trt_get(size_t i);
const trt_flag *trt_find(const char *name, size_t len);

/* ---- Memory, messages (message.c) ---- */

/* Memory of the command lives until it ends; running out of it ends it. */
void *allocate(size_t bytes);
void free_all(void);
void *grow(void *items, size_t count, size_t *cap, size_t item_bytes);
char *keep(const char *text, size_t len);
char *keepf(const char *fmt, ...) PRINTF_LIKE(1, 2);

void say(cli *c, kiln_log_level level, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* A usage error: says it, with a hint when not NULL; returns 2. */
int usage_error(cli *c, const char *hint, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Prints the findings not printed yet (notes only with -v); returns the exit status of `status`. */
int finish(cli *c, kiln_status status);
void print_findings(cli *c);
double now_ms(void);
double elapsed_s(const cli *c);
/* A progress struct that shows a line on a terminal and stops at a signal; `what` is borrowed. */
kiln_progress watch_progress(cli *c, const char *what);
void end_progress(cli *c);

/* Signals: 0, or 130 / 143 once one has come. The context is cancelled by it; NULL for none. */
int interrupted(void);
void cancel_on_signal(kiln_context *context);
void install_signals(void);

/* ---- Output (table.c, json.c) ---- */

typedef struct table table;
/* heads: names separated by '|'; one that begins with '>' is set flush right: "layer|>ms". */
table *table_new(const char *heads);
void table_cell(table *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* As a table or as CSV, to stdout. */
void table_print(const table *t, format f);
/* "PASSED bench  1.2 s" to stdout, for tables only. */
void verdict(const cli *c, bool passed, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Text from a file made safe for a terminal, in memory that stays. */
const char *safe(const char *text);
const char *dims_text(const int64_t *dims, int32_t rank);
const char *bytes_text(double bytes);
const char *count_text(double count);

typedef struct json {
    FILE *to;
    int depth;
    bool started[64], object[64], keyed;
} json;

void json_open(json *j, char kind);
void json_close(json *j);
void json_key(json *j, const char *key);
void json_text(json *j, const char *text); /* NULL becomes null */
void json_int(json *j, int64_t x);
void json_number(json *j, double x); /* null when not finite */
void json_bool(json *j, bool x);
/* A whole document's begin: {"schema": ..., "kiln": version, "command": ... */
json json_begin(const cli *c, const char *schema);
json json_begin_to(const cli *c, const char *schema, FILE *to);
void json_end(json *j);
void json_dims(json *j, const int64_t *dims, int32_t rank);
void json_stats(json *j, const char *key, const kiln_stats *s);
void json_key_text(json *j, const char *key, const char *text);
void json_key_int(json *j, const char *key, int64_t x);
void json_key_number(json *j, const char *key, double x);
void json_key_bool(json *j, const char *key, bool x);
void json_machine(json *j);
/* Opens a file for JSON; NULL after saying why not. */
FILE *open_output(cli *c, const char *path);
int close_output(cli *c, FILE *f, const char *path);

/* ---- Sessions: an engine, its inputs, a context (session.c) ---- */

typedef struct session {
    kiln_model *model; /* NULL for an engine file */
    kiln_engine *engine;
    kiln_context *context;
    kiln_tensors *inputs;
    kiln_pool *pool; /* borrowed, for its context; NULL: one of the context's own */
    kiln_regions regions;
    double open_ms;
    const char *path;
    const kiln_tune_options *tune; /* how session_open builds a model; NULL: by rules */
} session;

/* How the options say to load and build. Pointers stay valid as long as the command runs. */
int session_options(cli *c, const char *path, kiln_open_options *out);
/* --opt-level as one level or, where `range` is true, as "A-B"; `level` without the option. 0, or
 * the exit status once it said what is wrong. */
int session_levels(cli *c, int32_t level, bool range, int32_t *first, int32_t *last);
/* How the options say to build by measuring at this level, for runs with so many threads (0: all);
 * NULL: by rules. */
const kiln_tune_options *session_tune(const cli *c, int32_t level, int64_t threads);
/* Opens an engine or model, with a line about it. */
int session_open(cli *c, session *s, const char *path);
/* Why a layer runs as it does; the exit status. */
int inspect_why(cli *c, const session *s, const char *name);
/* Reads --input and makes up the rest, batch 0: 1 where it is free. */
int session_inputs(cli *c, session *s, int64_t batch);
/* A context with the inputs bound. threads 0: all usable cores. */
int session_context(cli *c, session *s, int64_t threads);
void session_close(session *s);
/* "resize=256 crop=224" of the options, or NULL. */
const char *preprocess_text(const cli *c);
kiln_tolerance tolerance_of(const cli *c);

/* ---- Shapes (shapes.c) ---- */

typedef struct shapes {
    kiln_shape *items;
    size_t count, cap;
} shapes;

typedef struct ranges {
    kiln_shape_range *items;
    size_t count, cap;
} ranges;

/* A shape "name:1x3x224x224"; the name is kept. False after saying what is wrong. */
bool parse_shape(cli *c, const char *text, kiln_shape *out);
/* One shape for every one of `names` that the pattern of a text matches. False after saying what is
 * wrong. */
bool expand_shapes(cli *c, const list *texts, const list *names, shapes *out);
/* What --override-shape, --dynamic-shape and trtexec's flags say of the model at `path`. */
int shape_options(cli *c, const char *path, shapes *overrides, ranges *profile);
/* "1..4..8x3x224": the ranges of an input's dims. */
const char *ranges_text(const kiln_io *io);

/* ---- Help (help.c, docs.c) ---- */

void print_help(FILE *to);
void print_verb_help(FILE *to, const verb *v);
void print_man(const verb *v);
void print_markdown(void);
void print_trtexec_markdown(void);
int print_completion(cli *c, const char *shell);
/* The next word is none of the option's. */
bool opt_is_bare(const opt *o);
/* The option's spelling: "-o, --output FILE". */
const char *opt_spelling(const opt *o);

#endif
