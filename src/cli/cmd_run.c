/* cmd_run.c - one inference: inputs from files, outputs to files or shown. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { SHOWN = 8, MOST_ROWS = 64 };

typedef struct own {
    list outputs, marks;
    const char *output_dir, *labels;
    int64_t topk;
    bool validate, print_outputs;
} own;

/* ---- Elements ---- */

typedef struct view {
    const kiln_tensor *t;
    double (*at)(const kiln_tensor *t, int64_t i);
} view;

#define READER(name, type)                                \
    static double name(const kiln_tensor *t, int64_t i) { \
        return (double)((const type *)t->data)[i];        \
    }
READER(at_f32, float)
READER(at_f64, double)
READER(at_u8, uint8_t)
READER(at_i8, int8_t)
READER(at_u16, uint16_t)
READER(at_i16, int16_t)
READER(at_u32, uint32_t)
READER(at_i32, int32_t)
READER(at_u64, uint64_t)
READER(at_i64, int64_t)

/* Types that are shown; the others go to files only. */
static bool open_view(const kiln_tensor *t, view *out) {
    static double (*const readers[KILN_DTYPE_COUNT])(const kiln_tensor *, int64_t) = {
        [KILN_DTYPE_F32] = at_f32, [KILN_DTYPE_F64] = at_f64, [KILN_DTYPE_U8] = at_u8,
        [KILN_DTYPE_I8] = at_i8,   [KILN_DTYPE_U16] = at_u16, [KILN_DTYPE_I16] = at_i16,
        [KILN_DTYPE_U32] = at_u32, [KILN_DTYPE_I32] = at_i32, [KILN_DTYPE_U64] = at_u64,
        [KILN_DTYPE_I64] = at_i64, [KILN_DTYPE_BOOL] = at_u8};
    *out = (view){t, t->dtype > KILN_DTYPE_NONE && t->dtype < KILN_DTYPE_COUNT ? readers[t->dtype]
                                                                               : NULL};
    return out->at != NULL;
}

/* ---- Showing ---- */

static const char *values_text(const kiln_tensor *t, int64_t most) {
    view v;
    int64_t count = kiln_tensor_count(t);
    const char *text = "";
    if (!open_view(t, &v)) {
        return "";
    }
    for (int64_t i = 0; i < count && i < most; i++) {
        text = keepf("%s%s%.6g", text, i ? " " : "", v.at(t, i));
    }
    return count > most ? keepf("%s ...", text) : text;
}

static const char *label_of(const list *labels, int64_t i) {
    return labels && i >= 0 && (uint64_t)i < labels->count ? labels->items[i] : NULL;
}

/* Indices of the k largest elements of a row; NaN ranks last, ties go to the lower index. */
static size_t pick_top(const view *v, int64_t first, int64_t width, size_t k, int64_t *out) {
    size_t n = 0;
    for (int64_t i = 0; i < width; i++) {
        double x = v->at(v->t, first + i);
        size_t at = n;
        while (at > 0 &&
               (x > v->at(v->t, first + out[at - 1]) || isnan(v->at(v->t, first + out[at - 1])))) {
            at--;
        }
        if (at < k && !(isnan(x) && n == k)) {
            n += n < k;
            memmove(out + at + 1, out + at, (n - at - 1) * sizeof *out);
            out[at] = i;
        }
    }
    return n;
}

typedef void (*top_fn)(void *to, const char *name, int64_t row, size_t rank, int64_t index,
                       double score, const char *label);

/* Length of a row: the last dim that is not 1, so that [1, 1000, 1, 1] is one row of scores. */
static int64_t row_width(const kiln_tensor *t) {
    int32_t last = t->rank - 1;
    while (last > 0 && t->dims[last] == 1) {
        last--;
    }
    return last < 0 ? 1 : t->dims[last];
}

/* Calls `fn` for the best of every row of an output that looks like scores; false for others. */
static bool each_top(const char *name, const kiln_tensor *t, int64_t topk, const list *labels,
                     top_fn fn, void *to) {
    view v;
    if (topk <= 0 || !open_view(t, &v)) {
        return false;
    }
    int64_t width = row_width(t), count = kiln_tensor_count(t);
    if (width < 2 || count / width > MOST_ROWS) {
        return false;
    }
    size_t k = (size_t)(topk < width ? topk : width);
    int64_t *best = allocate((k + 1) * sizeof *best);
    for (int64_t row = 0; row < count / width; row++) {
        size_t n = pick_top(&v, row * width, width, k, best);
        for (size_t r = 0; r < n; r++) {
            fn(to, name, row, r + 1, best[r], v.at(t, row * width + best[r]),
               label_of(labels, best[r]));
        }
    }
    return true;
}

static void top_row(void *to, const char *name, int64_t row, size_t rank, int64_t index,
                    double score, const char *label) {
    table_cell(to, "%s", name);
    table_cell(to, "%lld", (long long)row);
    table_cell(to, "%zu", rank);
    table_cell(to, "%lld", (long long)index);
    table_cell(to, "%.6g", score);
    table_cell(to, "%s", label ? label : "");
}

static void top_json(void *to, const char *name, int64_t row, size_t rank, int64_t index,
                     double score, const char *label) {
    json *j = to;
    json_open(j, '{');
    json_key_text(j, "output", name);
    json_key_int(j, "row", row);
    json_key_int(j, "rank", (int64_t)rank);
    json_key_int(j, "index", index);
    json_key_number(j, "score", score);
    if (label) {
        json_key_text(j, "label", label);
    }
    json_close(j);
}

static void show_table(cli *c, const own *o, const kiln_tensors *tensors, const list *labels) {
    table *t =
        table_new(o->print_outputs ? "output|type|shape|values" : "output|type|shape|first values");
    table *top = table_new("output|>row|>rank|>index|>score|label");
    const char *name;
    const kiln_tensor *x;
    bool any_top = false;
    for (size_t i = 0; (x = kiln_tensors_get(tensors, i, &name)) != NULL; i++) {
        table_cell(t, "%s", name);
        table_cell(t, "%s", kiln_dtype_name(x->dtype));
        table_cell(t, "%s", dims_text(x->dims, x->rank));
        table_cell(t, "%s", values_text(x, o->print_outputs ? 1000 : SHOWN));
        any_top |= each_top(name, x, o->topk, labels, top_row, top);
    }
    table_print(t, c->format);
    if (any_top) {
        putchar('\n');
        table_print(top, c->format);
    } else if (o->topk > 0) {
        say(c, KILN_LOG_INFO, "topk     no output has 1 to %d rows of two or more scores",
            MOST_ROWS);
    }
}

static void json_values(json *j, const kiln_tensor *t) {
    view v;
    if (!open_view(t, &v)) {
        return;
    }
    json_key(j, "values");
    json_open(j, '[');
    int64_t count = kiln_tensor_count(t);
    for (int64_t i = 0; i < count; i++) {
        json_number(j, v.at(t, i));
    }
    json_close(j);
}

static void show_json(const cli *c, const own *o, const kiln_tensors *tensors, const list *labels,
                      const kiln_nonfinite *bad, double run_ms) {
    json j = json_begin(c, "kiln.run/1");
    const char *name;
    const kiln_tensor *x;
    json_key_number(&j, "run_ms", run_ms);
    json_key(&j, "outputs");
    json_open(&j, '[');
    for (size_t i = 0; (x = kiln_tensors_get(tensors, i, &name)) != NULL; i++) {
        json_open(&j, '{');
        json_key_text(&j, "name", name);
        json_key_text(&j, "dtype", kiln_dtype_name(x->dtype));
        json_key(&j, "shape");
        json_dims(&j, x->dims, x->rank);
        if (o->print_outputs || kiln_tensor_count(x) <= 64) {
            json_values(&j, x);
        }
        json_close(&j);
    }
    json_close(&j);
    if (o->topk > 0) {
        json_key(&j, "top");
        json_open(&j, '[');
        for (size_t i = 0; (x = kiln_tensors_get(tensors, i, &name)) != NULL; i++) {
            each_top(name, x, o->topk, labels, top_json, &j);
        }
        json_close(&j);
    }
    if (o->validate) {
        json_key_bool(&j, "finite", bad == NULL);
        json_key_text(&j, "first_nonfinite", bad ? bad->value : NULL);
        json_key_text(&j, "first_nonfinite_node", bad ? bad->node : NULL);
    }
    json_end(&j);
}

/* ---- Files ---- */

/* "NAME=FILE" with NAME one of the tensors. */
static int write_one(cli *c, const kiln_tensors *tensors, const char *word) {
    const char *name;
    const kiln_tensor *t;
    for (size_t i = 0; (t = kiln_tensors_get(tensors, i, &name)) != NULL; i++) {
        size_t len = strlen(name);
        if (strncmp(word, name, len) == 0 && word[len] == '=') {
            return finish(c, kiln_tensor_write(t, name, word + len + 1, c->env, c->diag));
        }
    }
    if (!strchr(word, '=') && kiln_tensors_count(tensors) == 1) {
        t = kiln_tensors_get(tensors, 0, &name);
        return finish(c, kiln_tensor_write(t, name, word, c->env, c->diag));
    }
    return usage_error(c, "write --output NAME=FILE",
                       "\"%s\" does not begin with the name of an output", word);
}

static int write_files(cli *c, const own *o, const kiln_tensors *tensors) {
    for (size_t i = 0; i < o->outputs.count; i++) {
        int failed = write_one(c, tensors, o->outputs.items[i]);
        if (failed != 0) {
            return failed;
        }
    }
    return o->output_dir ? finish(c, kiln_tensors_write_folder(tensors, o->output_dir, c->diag))
                         : 0;
}

static int read_labels(cli *c, const char *path, list *out) {
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    if (!f) {
        return usage_error(c, NULL, "--labels: %s cannot be opened", path);
    }
    while ((n = getline(&line, &cap, f)) >= 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) {
            n--;
        }
        list_add(out, keep(line, (size_t)n));
    }
    free(line);
    fclose(f);
    return 0;
}

/* ---- The run ---- */

static void watch_inputs(const session *s, kiln_watch *watch) {
    const char *name;
    const kiln_tensor *t;
    for (size_t i = 0; (t = kiln_tensors_get(s->inputs, i, &name)) != NULL; i++) {
        kiln_watch_input(watch, name, t);
    }
}

static int collect(cli *c, session *s, const kiln_watch *watch, kiln_tensors *out) {
    const char *name;
    const kiln_tensor *t;
    kiln_status status = kiln_tensors_collect(out, s->engine, s->context, c->diag);
    for (size_t i = 0; status == KILN_OK && watch; i++) {
        t = kiln_tensors_get(kiln_watch_marked(watch), i, &name);
        if (!t) {
            break;
        }
        if (!kiln_tensors_find(out, name)) {
            status = kiln_tensors_add(out, name, t, c->diag);
        }
    }
    for (size_t i = 0; watch && (name = kiln_watch_unseen(watch, i)) != NULL; i++) {
        if (!kiln_tensors_find(out, name)) {
            say(c, KILN_LOG_WARN,
                "--mark: the plan has no value \"%s\" (folded, or not in the canonical graph)",
                safe(name));
        }
    }
    return finish(c, status);
}

static int show(cli *c, const own *o, const kiln_tensors *out, const kiln_watch *watch,
                double run_ms) {
    list labels = {0};
    kiln_nonfinite bad;
    bool broken = watch && kiln_watch_nonfinite(watch, &bad);
    int failed = o->labels ? read_labels(c, o->labels, &labels) : 0;
    failed = failed ? failed : write_files(c, o, out);
    if (failed != 0) {
        return failed;
    }
    if (c->format == FORMAT_JSON) {
        show_json(c, o, out, &labels, broken ? &bad : NULL, run_ms);
    } else {
        show_table(c, o, out, &labels);
    }
    if (broken) {
        say(c, KILN_LOG_ERROR,
            "value \"%s\"%s%s%s: %lld element%s not finite, the first %g at %lld", safe(bad.value),
            *bad.node ? " of node \"" : " (an input)", safe(bad.node), *bad.node ? "\"" : "",
            (long long)bad.count, bad.count == 1 ? " is" : "s are", bad.number,
            (long long)bad.index);
    }
    verdict(c, !broken, "%.3f ms", run_ms);
    return broken ? kiln_status_exit_code(KILN_E_CHECK) : 0;
}

static int run_once(cli *c, own *o, session *s) {
    kiln_watch *watch = NULL;
    kiln_tensors *out = NULL;
    kiln_status status = kiln_tensors_create(&out, c->env);
    if (status == KILN_OK && (o->marks.count > 0 || o->validate)) {
        list_add(&o->marks, NULL);
        kiln_watch_options w = {.size = sizeof w, .mark = o->marks.items, .validate = o->validate};
        status = kiln_watch_create(&watch, s->context, c->env, &w);
    }
    if (watch) {
        watch_inputs(s, watch);
    }
    double start = now_ms();
    status = status == KILN_OK ? kiln_context_run(s->context, c->diag) : status;
    double run_ms = now_ms() - start;
    int code = finish(c, status);
    code = code ? code : collect(c, s, watch, out);
    code = code ? code : show(c, o, out, watch, run_ms);
    kiln_watch_destroy(watch);
    kiln_tensors_destroy(out);
    return code;
}

static int run(cli *c, void *given) {
    session s = {0};
    int status = session_open(c, &s, c->operands.items[0]);
    status = status ? status : session_inputs(c, &s, 0);
    status = status || c->dry_run ? status : session_context(c, &s, c->threads);
    status = status || c->dry_run ? status : run_once(c, given, &s);
    session_close(&s);
    return status;
}

static const opt options[] = {
    {.name = "output",
     .letter = 'o',
     .kind = OPT_MANY,
     .value = "[NAME=]FILE",
     .at = offsetof(own, outputs),
     .help = "write an output to .npy .npz .pb .bin or .png"},
    {.name = "output-dir",
     .kind = OPT_TEXT,
     .value = "DIR",
     .at = offsetof(own, output_dir),
     .help = "write all of them as .npy, with outputs.json, which lists them"},
    {.name = "print-outputs",
     .kind = OPT_FLAG,
     .at = offsetof(own, print_outputs),
     .help = "show all their values"},
    {.name = "topk",
     .kind = OPT_INT,
     .value = "K",
     .min = 1,
     .at = offsetof(own, topk),
     .help = "show the K largest elements of each row of each output"},
    {.name = "labels",
     .kind = OPT_TEXT,
     .value = "FILE",
     .at = offsetof(own, labels),
     .help = "class names for --topk, one a line"},
    {.name = "mark",
     .kind = OPT_LIST,
     .value = "NAME|all",
     .at = offsetof(own, marks),
     .help = "give inner values of the canonical graph out too"},
    {.name = "validate",
     .kind = OPT_FLAG,
     .at = offsetof(own, validate),
     .help = "look for NaN and infinity in every value and name the first node"},
    {.name = "threads",
     .kind = OPT_INT,
     .value = "N",
     .min = 1,
     SHARED(threads),
     .help = "[all usable cores]"},
};

static const example examples[] = {
    {"kiln run net.onnx --input x.npy --output-dir out", "runs a model and writes out/*.npy"},
    {"kiln run net.kiln cat.jpg --resize 256 --crop 224 --scale 1/255 --topk 5 --labels names.txt",
     "names what is in a picture"},
    {"kiln run net.onnx --validate", "finds the first node that makes a NaN, on generated inputs"},
};

static const opt_group *const groups[] = {&group_input, &group_picture, &group_build, &group_common,
                                          NULL};

/* Operands after the first are inputs. */
static int run_with_operands(cli *c, void *given) {
    for (size_t i = 1; i < c->operands.count; i++) {
        list_add(&c->inputs, c->operands.items[i]);
    }
    return run(c, given);
}

const verb verb_run = {
    .name = "run",
    .summary = "run a model or engine once",
    .operands = "MODEL|ENGINE [[NAME=]FILE...]",
    .about = "Reads the inputs, generates those that are missing (and says so), runs once, and "
             "shows or writes the outputs.",
    .exits = "--validate found a value that is not finite",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .min_operands = 1,
    .max_operands = 64,
    .trtexec = true,
    .run = run_with_operands};
