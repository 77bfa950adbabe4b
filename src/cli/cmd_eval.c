/* cmd_eval.c - accuracy on a labelled data set: of a network, of two, or of a float one and its
 * 8-bit form. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "eval.h"
#include "quant.h"

typedef struct own {
    const char *data, *labels, *metric, *output, *input, *kind, *against, *predictions, *plot;
    list calib_sizes;
    int64_t count, batch;
    double min;
    bool shuffle, confusion, int8, fake_quant, check_regions;
} own;

/* Labels and predictions are shown up to so many classes. */
enum { MAX_CONFUSION = 512 };

/* ---- Opening ---- */

static size_t file_bytes(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (size_t)st.st_size : 0;
}

/* What follows the last '/'. */
static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static int open_network(cli *c, scored *n, const char *path) {
    int failed = session_open(c, &n->s, path);
    n->name = base_name(path);
    if (failed == 0 && !n->s.model) {
        n->file_bytes = file_bytes(path);
    }
    return failed;
}

/* The 8-bit form of the float network's model. */
static int open_quantized(cli *c, scored *n, const scored *from) {
    kiln_open_options open;
    kiln_quantize_options options;
    quant_made made = {.smooth = true};
    size_t layers, int8;
    if (!from->s.model) {
        return usage_error(c, "name the ONNX file", "%s is an engine: only models are quantized",
                           from->s.path);
    }
    int failed = session_options(c, from->s.path, &open);
    failed = failed ? failed : quant_options(c, NULL, &options);
    if (failed == 0) {
        failed = quant_model(c, from->s.model, open.build, &options, &made);
        n->s.model = made.model;
        made.model = NULL;
        quant_free(&made);
    }
    if (failed != 0) {
        return failed;
    }
    quant_count(n->s.model, &layers, &int8);
    say(c, KILN_LOG_INFO, "%-8s %zu of %zu layers in int8", "quantize", int8, layers);
    n->s.path = from->s.path;
    n->name = "int8";
    return finish(c, kiln_engine_build(&n->s.engine, n->s.model, open.build, c->diag));
}

/* ---- Scoring ---- */

/* The shape that --shape gives the input, or NULL. False after saying what is wrong. */
static bool find_shape(cli *c, const own *o, const session *s, const kiln_shape **out) {
    list names = {0};
    shapes found = {0};
    kiln_io io;
    for (size_t i = 0; kiln_engine_input(s->engine, i, &io); i++) {
        if (!o->input || strcmp(o->input, io.name) == 0) {
            list_add(&names, io.name);
        }
    }
    *out = NULL;
    if (!expand_shapes(c, &c->shapes, &names, &found)) {
        return false;
    }
    *out = found.count > 0 ? &found.items[found.count - 1] : NULL;
    if (*out && o->batch > 0 && (*out)->rank > 0 && (*out)->dims[0] >= 0 &&
        (*out)->dims[0] != o->batch) {
        usage_error(c, NULL, "--shape says %lld samples a run, --batch %lld",
                    (long long)(*out)->dims[0], (long long)o->batch);
        return false;
    }
    return true;
}

typedef struct predictions {
    FILE *to;
    bool versus;
} predictions;

static void write_prediction(void *user, const kiln_scored *s) {
    const predictions *p = user;
    fprintf(p->to, "%lld,%lld,%lld", (long long)s->sample, (long long)s->label,
            (long long)s->predicted);
    if (p->versus) {
        fprintf(p->to, ",%lld", (long long)s->reference);
    }
    putc('\n', p->to);
}

static void make_confusion(scored *n) {
    n->confusion = allocate((size_t)MAX_CONFUSION * MAX_CONFUSION * sizeof *n->confusion);
}

static void end_network(cli *c, const own *o, scored *n) {
    n->memory_bytes = kiln_context_memory(n->s.context, NULL);
    if (o->confusion && (n->r.classes > MAX_CONFUSION || isnan(n->r.top1))) {
        say(c, KILN_LOG_WARN, "no confusion table: %s",
            isnan(n->r.top1) ? "there are no labels" : "more than 512 classes");
        n->confusion = NULL;
    }
}

/* Both networks see each batch before the next is read. */
static kiln_status score(cli *c, const own *o, scored *n, scored *other, const kiln_shape *shape,
                         predictions *p) {
    kiln_progress progress = watch_progress(c, "eval");
    if (o->confusion) {
        make_confusion(n);
        if (other) {
            make_confusion(other);
        }
    }
    kiln_evaluate_options e = {.size = sizeof e,
                               .data = o->data,
                               .labels = o->labels,
                               .preprocess = preprocess_text(c),
                               .input = o->input,
                               .output = o->output,
                               .count = o->count,
                               .batch = o->batch,
                               .shape = shape,
                               .shuffle = o->shuffle,
                               .seed = (uint64_t)c->seed,
                               .progress = &progress,
                               .kind = o->kind,
                               .reference = other ? other->s.context : NULL,
                               .reference_result = other ? &other->r : NULL,
                               .confusion = n->confusion,
                               .reference_confusion = other ? other->confusion : NULL,
                               .confusion_cap = (size_t)MAX_CONFUSION * MAX_CONFUSION,
                               .scored = p->to ? write_prediction : NULL,
                               .scored_user = p};
    cancel_on_signal(n->s.context);
    kiln_status status = kiln_evaluate(&n->r, n->s.engine, n->s.context, c->env, &e, c->diag);
    end_progress(c);
    if (status == KILN_OK || status == KILN_E_CANCELLED) {
        end_network(c, o, n);
        if (other) {
            end_network(c, o, other);
        }
    }
    return status;
}

static int score_and_write(cli *c, const own *o, scored *n, scored *other,
                           const kiln_shape *shape) {
    predictions p = {.versus = other != NULL};
    if (o->predictions) {
        p.to = open_output(c, o->predictions);
        if (!p.to) {
            return kiln_status_exit_code(KILN_E_IO);
        }
        fprintf(p.to, "sample,label,predicted%s\n", other ? ",against" : "");
    }
    kiln_status status = score(c, o, n, other, shape, &p);
    int failed = p.to ? close_output(c, p.to, o->predictions) : 0;
    return status == KILN_OK ? failed : finish(c, status);
}

static kiln_regions regions_of(const own *o) {
    return o->fake_quant      ? KILN_REGIONS_REFERENCE
           : o->check_regions ? KILN_REGIONS_CHECKED
                              : KILN_REGIONS_FAST;
}

/* Without labels and a bound there is nothing to say of top-1: how near the networks are. */
static const metric *metric_of(const own *o, const scored *n) {
    const bool blind = isnan(n->r.top1) && !isnan(n->r.sqnr_db) && o->min <= 0;
    return metric_find(o->metric ? o->metric : blind ? "sqnr" : "top1");
}

static bool passes(const own *o, const scored *n) {
    const metric *m = metric_of(o, n);
    double value = metric_value(&n->r, m);
    return o->min <= 0 || (m->less ? value <= o->min : value >= o->min);
}

static int evaluate(cli *c, const own *o, scored *n, scored *other) {
    const kiln_shape *shape;
    if (!find_shape(c, o, &n->s, &shape)) {
        return kiln_status_exit_code(KILN_E_USAGE);
    }
    int failed = score_and_write(c, o, n, other, shape);
    if (failed != 0 && !n->r.cancelled) {
        return failed;
    }
    print_findings(c);
    eval_shown shown = {o->data, metric_of(o, n), passes(o, n), n, other};
    if (c->format == FORMAT_JSON) {
        show_scores_json(c, &shown);
    } else {
        show_scores(c, &shown);
    }
    return failed ? failed : shown.passed ? 0 : kiln_status_exit_code(KILN_E_CHECK);
}

/* ---- Sizes of the calibration set ---- */

typedef struct sized {
    int64_t samples;
    scored n;
} sized;

static void write_sizes(const cli *c, const own *o, const sized *all, size_t n, const scored *other,
                        FILE *to) {
    json j = json_begin_to(c, "kiln.eval-sizes/1", to);
    json_key_text(&j, "data", o->data);
    json_key_text(&j, "model", other->s.path);
    json_key_number(&j, "top1", other->r.top1);
    json_key_number(&j, "loss_nats", other->r.loss);
    json_key(&j, "sizes");
    json_open(&j, '[');
    for (size_t i = 0; i < n; i++) {
        const kiln_evaluate_result *r = &all[i].n.r;
        json_open(&j, '{');
        json_key_int(&j, "calibration_samples", all[i].samples);
        json_key_number(&j, "top1", r->top1);
        json_key_number(&j, "top1_change_points", 100 * (r->top1 - other->r.top1));
        json_key_number(&j, "top1_change_interval_points", 100 * paired_interval(r));
        json_key_number(&j, "loss_nats", r->loss);
        json_key_number(&j, "agreement", r->agreement);
        json_key_number(&j, "sqnr_db", r->sqnr_db);
        json_close(&j);
    }
    json_close(&j);
    json_end(&j);
}

static void show_sizes(const cli *c, const own *o, const sized *all, size_t n,
                       const scored *other) {
    static const char *const names[] = {"top1", "loss", "agreement", "sqnr"};
    table *t = table_new(">calibration samples|>top-1|>change, points|>± 95 %|>loss|>agreement|"
                         ">SQNR");
    for (size_t i = 0; i <= n; i++) {
        const kiln_evaluate_result *r = i < n ? &all[i].n.r : &other->r;
        bool float_row = i == n;
        table_cell(t, "%s", float_row ? "float" : keepf("%lld", (long long)all[i].samples));
        table_cell(t, "%s", metric_text(metric_find(names[0]), r->top1));
        table_cell(t, "%s", float_row ? "" : keepf("%+.2f", 100 * (r->top1 - other->r.top1)));
        table_cell(t, "%s", float_row ? "" : keepf("%.2f", 100 * paired_interval(r)));
        for (size_t k = 1; k < COUNT_OF(names); k++) {
            const metric *m = metric_find(names[k]);
            double value = metric_value(r, m);
            table_cell(t, "%s", isnan(value) ? "" : metric_text(m, value));
        }
    }
    table_print(t, c->format);
    const metric *m = metric_of(o, &all[n - 1].n);
    verdict(c, passes(o, &all[n - 1].n), "%s %s with %lld samples", m->name,
            metric_text(m, metric_value(&all[n - 1].n.r, m)), (long long)all[n - 1].samples);
}

static int score_size(cli *c, const own *o, sized *z, scored *other) {
    const kiln_shape *shape;
    predictions none = {0};
    c->calib_count = z->samples;
    z->n.s.pool = other->s.pool;
    z->n.s.regions = regions_of(o);
    int failed = open_quantized(c, &z->n, other);
    failed = failed ? failed : session_context(c, &z->n.s, c->threads);
    if (failed == 0 && !find_shape(c, o, &z->n.s, &shape)) {
        failed = kiln_status_exit_code(KILN_E_USAGE);
    }
    if (failed == 0) {
        failed = finish(c, score(c, o, &z->n, other, shape, &none));
    }
    session_close(&z->n.s);
    return failed;
}

static kiln_status plot_sizes(cli *c, const own *o, const sized *all, size_t n,
                              const scored *other) {
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    kiln_status status = KILN_E_MEMORY;
    if (to) {
        write_sizes(c, o, all, n, other, to);
        status =
            fclose(to) == 0 ? kiln_report_plot(c->env, text, len, o->plot, c->diag) : KILN_E_MEMORY;
    }
    free(text);
    return status;
}

static int evaluate_sizes(cli *c, const own *o, scored *other) {
    size_t n = o->calib_sizes.count;
    int64_t *samples = allocate(n * sizeof *samples);
    sized *all = allocate(n * sizeof *all);
    if (!parse_int_list(c, "calib-sizes", &o->calib_sizes, 1, samples, n)) {
        return kiln_status_exit_code(KILN_E_USAGE);
    }
    for (size_t i = 0; i < n; i++) {
        all[i].samples = samples[i];
        int failed = score_size(c, o, &all[i], other);
        if (failed != 0) {
            return failed;
        }
    }
    if (c->format == FORMAT_JSON) {
        write_sizes(c, o, all, n, other, stdout);
    } else {
        show_sizes(c, o, all, n, other);
    }
    kiln_status status = o->plot ? plot_sizes(c, o, all, n, other) : KILN_OK;
    if (status != KILN_OK) {
        return finish(c, status);
    }
    return passes(o, &all[n - 1].n) ? 0 : kiln_status_exit_code(KILN_E_CHECK);
}

/* ---- The verb ---- */

static int check_options(cli *c, own *o) {
    o->int8 = o->int8 || c->precision.count > 0 || o->calib_sizes.count > 0;
    if (!o->data) {
        return usage_error(c, NULL, "`kiln eval` needs --data PATH");
    }
    if (o->int8 && o->against) {
        return usage_error(c, NULL,
                           "--int8 compares with the float network, --against with "
                           "another: one of them");
    }
    if (o->fake_quant && o->check_regions) {
        return usage_error(c, NULL,
                           "--fake-quant runs no kernels that --check-regions could check");
    }
    if (o->plot && o->calib_sizes.count == 0) {
        return usage_error(c, NULL, "--plot shows what --calib-sizes measures");
    }
    if (!o->int8 && (c->calib.count > 0 || c->ranges_file)) {
        return usage_error(c, NULL, "--calib and --ranges belong to --int8");
    }
    return 0;
}

/* Two networks run in turn: on the same threads. */
static int share_pool(cli *c, scored *n, scored *other, kiln_pool **out) {
    kiln_pool_options o = {.size = sizeof o, .threads = (int32_t)c->threads};
    kiln_status status = kiln_pool_create(out, c->env, &o);
    n->s.pool = other->s.pool = *out;
    return finish(c, status);
}

/* The networks and their contexts; `n` is left alone for sizes, which open it themselves. */
static int open_all(cli *c, const own *o, scored *n, scored *other, kiln_pool **pool) {
    const char *path = c->operands.items[0];
    bool sizes = o->calib_sizes.count > 0, versus = o->int8 || o->against;
    int failed = versus && !c->dry_run ? share_pool(c, n, other, pool) : 0;
    failed = failed ? failed : open_network(c, o->int8 ? other : n, path);
    if (failed == 0 && o->against) {
        failed = open_network(c, other, o->against);
        if (strcmp(n->name, other->name) == 0) {
            n->name = path;
            other->name = o->against;
        }
    }
    if (failed == 0 && o->int8 && !sizes && !c->dry_run) {
        failed = open_quantized(c, n, other);
    }
    if (failed == 0 && !sizes && !c->dry_run) {
        failed = session_context(c, &n->s, c->threads);
    }
    if (failed == 0 && versus && !c->dry_run) {
        failed = session_context(c, &other->s, c->threads);
    }
    return failed;
}

static int run(cli *c, void *given) {
    own *o = given;
    kiln_pool *pool = NULL;
    scored n = {0}, other = {0};
    n.s.regions = regions_of(o);
    int status = check_options(c, o);
    status = status ? status : open_all(c, o, &n, &other, &pool);
    if (status == 0 && !c->dry_run) {
        bool versus = o->int8 || o->against;
        status = o->calib_sizes.count > 0 ? evaluate_sizes(c, o, &other)
                                          : evaluate(c, o, &n, versus ? &other : NULL);
    }
    session_close(&n.s);
    session_close(&other.s);
    kiln_pool_destroy(pool);
    return status;
}

static const opt options[] = {
    {.name = "data",
     .letter = 'd',
     .kind = OPT_TEXT,
     .value = "PATH",
     .at = offsetof(own, data),
     .help = ".npz with y and an array for each input, .npy, raw .bin, IDX (also .gz), CIFAR "
             "binary, Polygraphy JSON, ONNX .pb or test_data_set folders, or a folder (also in a "
             ".zip) of class folders of pictures"},
    {.name = "data-kind",
     .kind = OPT_CHOICE,
     .value = "auto|npz|npy|idx|cifar|images|raw|polygraphy|zip|pb",
     .at = offsetof(own, kind),
     .help = "of what --data is, where its name does not tell; raw has the input's type and dims"},
    {.name = "labels",
     .kind = OPT_TEXT,
     .value = "FILE|ARRAY",
     .at = offsetof(own, labels),
     .help = "lines \"name,label\", or the array of an .npz [found by name]"},
    {.name = "metric",
     .kind = OPT_CHOICE,
     .value = "top1|top5|loss|macro-f1|weighted-f1|agreement|sqnr|cosine|mse|psnr",
     .at = offsetof(own, metric),
     .help = "what the verdict is about [top1; sqnr where there are no labels]"},
    {.name = "min",
     .kind = OPT_NUMBER,
     .value = "X",
     .min = 0,
     .at = offsetof(own, min),
     .help = "fail below this share (0..1) or value, or above this loss or mse"},
    {.name = "against",
     .kind = OPT_TEXT,
     .value = "MODEL|ENGINE",
     .at = offsetof(own, against),
     .help = "compare with this network, sample by sample; labels are not needed then"},
    {.name = "int8",
     .kind = OPT_FLAG,
     .at = offsetof(own, int8),
     .help = "quantize, by --calib or --ranges, and compare with the float network"},
    {.name = "fake-quant",
     .kind = OPT_FLAG,
     .at = offsetof(own, fake_quant),
     .help = "run the network by references in plain C, integer regions by integers; slow"},
    {.name = "check-regions",
     .kind = OPT_FLAG,
     .at = offsetof(own, check_regions),
     .help = "run each 8-bit region by its reference too: a bit that differs ends the run"},
    {.name = "calib-sizes",
     .kind = OPT_LIST,
     .value = "N[,N]",
     .at = offsetof(own, calib_sizes),
     .help = "quantize with so many samples each time: what does the size of the set change?"},
    {.name = "plot",
     .kind = OPT_TEXT,
     .value = "FILE.svg",
     .at = offsetof(own, plot),
     .help = "a picture of what --calib-sizes shows"},
    {.name = "confusion",
     .kind = OPT_FLAG,
     .at = offsetof(own, confusion),
     .help = "also count which label is taken for which, up to 512 classes"},
    {.name = "save-predictions",
     .kind = OPT_TEXT,
     .value = "FILE.csv",
     .at = offsetof(own, predictions),
     .help = "write label and predicted class of every sample"},
    {.name = "count",
     .letter = 'n',
     .kind = OPT_INT,
     .value = "N",
     .min = 1,
     .at = offsetof(own, count),
     .help = "samples [all]"},
    {.name = "batch",
     .kind = OPT_INT,
     .value = "N",
     .min = 1,
     .at = offsetof(own, batch),
     .help = "samples a run [the network's, opt of its profile, else 1]"},
    {.name = "shape",
     .kind = OPT_LIST,
     .value = "[NAME:]8x3x224x224",
     SHARED(shapes),
     .help = "what runs must have: the first dim is --batch, the others the samples'; ? is any"},
    {.name = "shuffle",
     .kind = OPT_FLAG,
     .at = offsetof(own, shuffle),
     .help = "choose them at random, by --seed"},
    {.name = "seed", .kind = OPT_INT, .value = "N", SHARED(seed), .help = "of --shuffle"},
    {.name = "to",
     .kind = OPT_TEXT,
     .value = "NAME",
     .at = offsetof(own, input),
     .help = "input that takes the samples of a set without names [the first]"},
    {.name = "scores",
     .kind = OPT_TEXT,
     .value = "NAME",
     .at = offsetof(own, output),
     .help = "output with the scores [the first]"},
    {.name = "threads",
     .kind = OPT_INT,
     .value = "N",
     .min = 1,
     SHARED(threads),
     .help = "[all usable cores]"},
};

static const example examples[] = {
    {"kiln eval net.kiln --data test.npz", "top-1 and top-5 on arrays x and y"},
    {"kiln eval net.onnx --data val/ --resize 256 --crop 224 --scale 1/255 --min 0.75",
     "on class folders of pictures; exit 1 below 75 %"},
    {"kiln eval small.kiln --against net.onnx --data test.npz",
     "an 8-bit engine beside its float model"},
    {"kiln eval net.onnx --int8 --calib train/ --data val/ --scale 1/255 --confusion",
     "what 8 bits cost and bring"},
    {"kiln eval net.onnx --calib-sizes 4,16,64,256 --calib train.npz --data test.npz --plot s.svg",
     "how many calibration samples are enough, as a table and a picture"},
    {"kiln eval mnist.onnx --data t10k-images-idx3-ubyte.gz --scale 1/255", "on the MNIST files"},
};

static const opt_group *const groups[] = {&group_quant, &group_picture, &group_build, &group_common,
                                          NULL};

const verb verb_eval = {
    .name = "eval",
    .summary = "measure accuracy on a labelled data set",
    .operands = "MODEL|ENGINE --data PATH",
    .about =
        "Runs every sample through the network and counts how often the label ranks first "
        "or among the first five. Two networks are run on each batch in turn, so that their times "
        "can be compared; the interval of the difference in top-1 is of paired samples.",
    .exits = "the metric misses --min",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .min_operands = 1,
    .max_operands = 1,
    .run = run};
