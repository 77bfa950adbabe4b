/* cmd_eval.c - accuracy on a labelled data set. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "cli.h"

typedef struct own {
    const char *data, *labels, *metric, *output, *input, *kind;
    int64_t count, batch;
    double min;
    bool shuffle;
} own;

static double metric_value(const kiln_evaluate_result *r, const char *metric) {
    return strcmp(metric, "top5") == 0 ? r->top5 : strcmp(metric, "loss") == 0 ? r->loss : r->top1;
}

static void show_json(const cli *c, const own *o, const session *s, const kiln_evaluate_result *r,
                      bool passed) {
    json j = json_begin(c, "kiln.eval/1");
    json_key_text(&j, "model", s->path);
    json_key_text(&j, "data", o->data);
    json_key_int(&j, "samples", r->samples);
    json_key_int(&j, "classes", r->classes);
    json_key_number(&j, "top1", r->top1);
    json_key_number(&j, "top5", r->top5);
    json_key_number(&j, "loss_nats", r->loss);
    json_key_number(&j, "macro_f1", r->macro_f1);
    json_key_number(&j, "weighted_f1", r->weighted_f1);
    json_key_int(&j, "nan_samples", r->nan_samples);
    json_key_int(&j, "batch", r->batch);
    json_stats(&j, "latency_ms", &r->latency);
    json_key_number(&j, "total_walltime_ms", r->walltime_ms);
    json_key_text(&j, "preprocess", preprocess_text(c));
    json_key_bool(&j, "cancelled", r->cancelled);
    json_key_bool(&j, "passed", passed);
    json_machine(&j);
    json_end(&j);
}

static const char *percent(double share) {
    return isnan(share) ? "-" : keepf("%.2f %%", 100 * share);
}

static void show_table(const cli *c, const own *o, const kiln_evaluate_result *r, bool passed) {
    table *t = table_new(">samples|>top-1|>top-5|>loss|>macro F1|>NaN|>ms/run|>batch|>s");
    table_cell(t, "%lld", (long long)r->samples);
    table_cell(t, "%s", percent(r->top1));
    table_cell(t, "%s", r->classes > 5 ? percent(r->top5) : "-");
    table_cell(t, "%s", isnan(r->loss) ? "-" : keepf("%.4f", r->loss));
    table_cell(t, "%.4f", r->macro_f1);
    table_cell(t, "%lld", (long long)r->nan_samples);
    table_cell(t, "%.3f", r->latency.median_ms);
    table_cell(t, "%lld", (long long)r->batch);
    table_cell(t, "%.2f", 1e-3 * r->walltime_ms);
    table_print(t, c->format);
    const char *metric = o->metric ? o->metric : "top1";
    double value = metric_value(r, metric);
    const char *text = strcmp(metric, "loss") == 0 ? keepf("%.4f", value) : percent(value);
    verdict(c, passed && !r->cancelled, "%s %s%s", metric, text,
            r->cancelled ? " of what was seen, interrupted" : "");
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

static int evaluate(cli *c, const own *o, session *s) {
    const kiln_shape *shape;
    if (!find_shape(c, o, s, &shape)) {
        return kiln_status_exit_code(KILN_E_USAGE);
    }
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
                               .kind = o->kind};
    kiln_evaluate_result r;
    kiln_status status = kiln_evaluate(&r, s->engine, s->context, c->env, &e, c->diag);
    end_progress(c);
    if (status != KILN_OK && status != KILN_E_CANCELLED) {
        return finish(c, status);
    }
    print_findings(c);
    double value = metric_value(&r, o->metric ? o->metric : "top1");
    bool is_loss = o->metric && strcmp(o->metric, "loss") == 0;
    bool passed = o->min <= 0 || (is_loss ? value <= o->min : value >= o->min);
    if (c->format == FORMAT_JSON) {
        show_json(c, o, s, &r, passed);
    } else {
        show_table(c, o, &r, passed);
    }
    if (status == KILN_E_CANCELLED) {
        return finish(c, status);
    }
    return passed ? 0 : kiln_status_exit_code(KILN_E_CHECK);
}

static int run(cli *c, void *given) {
    const own *o = given;
    session s = {0};
    if (!o->data) {
        return usage_error(c, NULL, "`kiln eval` needs --data PATH");
    }
    int status = session_open(c, &s, c->operands.items[0]);
    status = status || c->dry_run ? status : session_context(c, &s, c->threads);
    status = status || c->dry_run ? status : evaluate(c, o, &s);
    session_close(&s);
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
     .value = "top1|top5|loss",
     .at = offsetof(own, metric),
     .help = "what the verdict is about [top1]"},
    {.name = "min",
     .kind = OPT_NUMBER,
     .value = "X",
     .min = 0,
     .at = offsetof(own, min),
     .help = "fail below this share (0..1), or above this loss"},
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
