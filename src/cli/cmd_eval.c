/* cmd_eval.c - accuracy on a labelled data set. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "cli.h"

typedef struct own {
    const char *data, *labels, *metric, *output, *input, *kind, *against;
    int64_t count, batch;
    double min;
    bool shuffle;
} own;

/* What the verdict may be about. */
static const struct {
    const char *name, *unit; /* "%": a share */
    size_t at;
    bool less; /* is better */
} metrics[] = {
    {"top1", "%", offsetof(kiln_evaluate_result, top1), false},
    {"top5", "%", offsetof(kiln_evaluate_result, top5), false},
    {"loss", "", offsetof(kiln_evaluate_result, loss), true},
    {"macro-f1", "", offsetof(kiln_evaluate_result, macro_f1), false},
    {"weighted-f1", "", offsetof(kiln_evaluate_result, weighted_f1), false},
    {"agreement", "%", offsetof(kiln_evaluate_result, agreement), false},
    {"sqnr", " dB", offsetof(kiln_evaluate_result, sqnr_db), false},
    {"cosine", "", offsetof(kiln_evaluate_result, cosine), false},
    {"mse", "", offsetof(kiln_evaluate_result, mse), true},
    {"psnr", " dB", offsetof(kiln_evaluate_result, psnr_db), false},
};

static size_t metric_of(const own *o) {
    const char *name = o->metric ? o->metric : "top1";
    size_t i = 0;
    while (strcmp(metrics[i].name, name) != 0) { /* OPT_CHOICE has checked it */
        i++;
    }
    return i;
}

static double metric_value(const kiln_evaluate_result *r, size_t metric) {
    double value;
    memcpy(&value, (const char *)r + metrics[metric].at, sizeof value);
    return value;
}

/* A network and what came of it. */
typedef struct scored {
    session s;
    kiln_evaluate_result r;
} scored;

static void json_scores(json *j, const scored *n) {
    const kiln_evaluate_result *r = &n->r;
    json_key_text(j, "model", n->s.path);
    json_key_int(j, "samples", r->samples);
    json_key_int(j, "classes", r->classes);
    json_key_number(j, "top1", r->top1);
    json_key_number(j, "top5", r->top5);
    json_key_number(j, "loss_nats", r->loss);
    json_key_number(j, "macro_precision", r->macro_precision);
    json_key_number(j, "macro_recall", r->macro_recall);
    json_key_number(j, "macro_f1", r->macro_f1);
    json_key_number(j, "weighted_precision", r->weighted_precision);
    json_key_number(j, "weighted_recall", r->weighted_recall);
    json_key_number(j, "weighted_f1", r->weighted_f1);
    json_key_int(j, "nan_samples", r->nan_samples);
    json_key_int(j, "batch", r->batch);
    json_stats(j, "latency_ms", &r->latency);
    json_key_number(j, "total_walltime_ms", r->walltime_ms);
}

static void show_json(const cli *c, const own *o, const scored *n, const scored *other,
                      bool passed) {
    json j = json_begin(c, "kiln.eval/1");
    json_key_text(&j, "data", o->data);
    json_scores(&j, n);
    if (other) {
        json_key(&j, "against");
        json_open(&j, '{');
        json_scores(&j, other);
        json_close(&j);
        json_key_number(&j, "agreement", n->r.agreement);
        json_key_number(&j, "sqnr_db", n->r.sqnr_db);
        json_key_number(&j, "cosine", n->r.cosine);
        json_key_number(&j, "mse", n->r.mse);
        json_key_number(&j, "psnr_db", n->r.psnr_db);
    }
    json_key_text(&j, "preprocess", preprocess_text(c));
    json_key_bool(&j, "cancelled", n->r.cancelled);
    json_key_bool(&j, "passed", passed);
    json_machine(&j);
    json_end(&j);
}

static const char *percent(double share) {
    return isnan(share) ? "-" : keepf("%.2f %%", 100 * share);
}

static const char *number(const char *fmt, double x) {
    return isnan(x) ? "-" : keepf(fmt, x);
}

static void add_row(table *t, const scored *n, bool compared) {
    const kiln_evaluate_result *r = &n->r;
    kiln_engine_info info;
    if (compared) {
        kiln_engine_get_info(n->s.engine, &info);
        table_cell(t, "%s", safe(n->s.path));
        table_cell(t, "%s", bytes_text((double)info.weight_bytes));
    }
    table_cell(t, "%lld", (long long)r->samples);
    table_cell(t, "%s", percent(r->top1));
    table_cell(t, "%s", r->classes > 5 ? percent(r->top5) : "-");
    table_cell(t, "%s", number("%.4f", r->loss));
    table_cell(t, "%.4f", r->macro_f1);
    table_cell(t, "%lld", (long long)r->nan_samples);
    if (compared) {
        table_cell(t, "%s", percent(r->agreement));
        table_cell(t, "%s", number("%.1f", r->sqnr_db));
        table_cell(t, "%s", number("%.5f", r->cosine));
    }
    table_cell(t, "%.3f", r->latency.median_ms);
    table_cell(t, "%lld", (long long)r->batch);
    table_cell(t, "%.2f", 1e-3 * r->walltime_ms);
}

static void show_table(const cli *c, const own *o, const scored *n, const scored *other,
                       bool passed) {
    size_t metric = metric_of(o);
    double value = metric_value(&n->r, metric);
    table *t = table_new(other ? "network|>weights|>samples|>top-1|>top-5|>loss|>macro F1|>NaN|"
                                 ">agreement|>SQNR dB|>cosine|>ms/run|>batch|>s"
                               : ">samples|>top-1|>top-5|>loss|>macro F1|>NaN|>ms/run|>batch|>s");
    if (other) {
        add_row(t, other, true);
    }
    add_row(t, n, other != NULL);
    table_print(t, c->format);
    const char *text = strcmp(metrics[metric].unit, "%") == 0
                           ? percent(value)
                           : keepf("%.4f%s", value, metrics[metric].unit);
    verdict(c, passed && !n->r.cancelled, "%s %s%s", metrics[metric].name, text,
            n->r.cancelled ? " of what was seen, interrupted" : "");
}

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

static kiln_status score(cli *c, const own *o, scored *n, kiln_context *reference,
                         const kiln_shape *shape) {
    kiln_progress progress = watch_progress(c, "eval");
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
                               .reference = reference};
    cancel_on_signal(n->s.context);
    kiln_status status = kiln_evaluate(&n->r, n->s.engine, n->s.context, c->env, &e, c->diag);
    end_progress(c);
    return status;
}

/* The other network by itself first, for its own scores and time, then this one beside it. */
static int evaluate(cli *c, const own *o, scored *n, scored *other) {
    const kiln_shape *shape;
    kiln_status status = KILN_OK;
    if (!find_shape(c, o, &n->s, &shape)) {
        return kiln_status_exit_code(KILN_E_USAGE);
    }
    if (other) {
        status = score(c, o, other, other->s.context, shape);
        other->r.agreement = other->r.sqnr_db = other->r.cosine = NAN;
    }
    if (status == KILN_OK) {
        status = score(c, o, n, other ? other->s.context : NULL, shape);
    }
    if (status != KILN_OK && status != KILN_E_CANCELLED) {
        return finish(c, status);
    }
    print_findings(c);
    size_t metric = metric_of(o);
    double value = metric_value(&n->r, metric);
    bool passed = o->min <= 0 || (metrics[metric].less ? value <= o->min : value >= o->min);
    if (c->format == FORMAT_JSON) {
        show_json(c, o, n, other, passed);
    } else {
        show_table(c, o, n, other, passed);
    }
    if (status == KILN_E_CANCELLED) {
        return finish(c, status);
    }
    return passed ? 0 : kiln_status_exit_code(KILN_E_CHECK);
}

static int run(cli *c, void *given) {
    const own *o = given;
    scored n = {0}, other = {0};
    if (!o->data) {
        return usage_error(c, NULL, "`kiln eval` needs --data PATH");
    }
    int status = session_open(c, &n.s, c->operands.items[0]);
    if (status == 0 && o->against) {
        status = session_open(c, &other.s, o->against);
    }
    if (status == 0 && !c->dry_run) {
        status = session_context(c, &n.s, c->threads);
    }
    if (status == 0 && !c->dry_run && o->against) {
        status = session_context(c, &other.s, c->threads);
    }
    if (status == 0 && !c->dry_run) {
        status = evaluate(c, o, &n, o->against ? &other : NULL);
    }
    session_close(&other.s);
    session_close(&n.s);
    return status;
}

static const opt options[] = {
    {.name = "data",
     .letter = 'd',
     .kind = OPT_TEXT,
     .value = "PATH",
     .at = offsetof(own, data),
     .help = ".npz with y and an array for each input, .npy, raw .bin, IDX (also .gz), CIFAR "
             "binary, or a folder (also in a .zip) of class folders of pictures"},
    {.name = "data-kind",
     .kind = OPT_CHOICE,
     .value = "auto|npz|npy|idx|cifar|images|raw|polygraphy|zip",
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
     .help = "what the verdict is about [top1]"},
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
    {"kiln eval mnist.onnx --data t10k-images-idx3-ubyte.gz --scale 1/255", "on the MNIST files"},
};

static const opt_group *const groups[] = {&group_picture, &group_build, &group_common, NULL};

const verb verb_eval = {
    .name = "eval",
    .summary = "measure accuracy on a labelled data set",
    .operands = "MODEL|ENGINE --data PATH",
    .about = "Runs every sample through the network and counts how often the label ranks first "
             "or among the first five.",
    .exits = "the metric misses --min",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .min_operands = 1,
    .max_operands = 1,
    .run = run};
