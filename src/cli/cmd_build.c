/* cmd_build.c - an engine file from a model. */
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include "quant.h"

typedef struct own {
    const char *output;
    const char *int8; /* "", "force", or NULL */
    bool portable, no_timing;
    int64_t threads;
    int32_t level; /* --opt-level */
} own;

/* "dir/net.onnx" becomes "net.kiln" in the working folder. */
static const char *default_output(const char *model) {
    const char *slash = strrchr(model, '/'), *base = slash ? slash + 1 : model;
    const char *dot = strrchr(base, '.');
    return keepf("%.*s.kiln", (int)(dot && dot > base ? dot - base : (ptrdiff_t)strlen(base)),
                 base);
}

/* Layers that quantizing left float, and why. */
static void json_floats(json *j, const kiln_model *model) {
    kiln_node_precision p;
    json_key(j, "stays_float");
    json_open(j, '[');
    for (size_t i = 0; kiln_model_precision(model, i, &p); i++) {
        if (p.layer && p.dtype == KILN_DTYPE_F32) {
            json_open(j, '{');
            json_key_text(j, "name", p.name);
            json_key_text(j, "op", p.op);
            json_key_text(j, "reason", p.reason);
            json_close(j);
        }
    }
    json_close(j);
}

static void report(const cli *c, const char *path, const kiln_model *model,
                   const kiln_engine *engine, double build_ms, double save_ms) {
    kiln_engine_info info;
    kiln_layer layer;
    struct stat st = {0};
    size_t layers = 0;
    kiln_engine_get_info(engine, &info);
    while (kiln_engine_layer(engine, layers, &layer)) {
        layers++;
    }
    stat(path, &st);
    if (c->format == FORMAT_JSON) {
        json j = json_begin(c, "kiln.build/1");
        json_key_text(&j, "engine", path);
        json_key_int(&j, "engine_bytes", st.st_size);
        json_key_text(&j, "isa", info.isa);
        json_key_text(&j, "model_hash", info.model_hash);
        json_key_int(&j, "nodes", (int64_t)info.nodes);
        json_key_int(&j, "layers", (int64_t)layers);
        json_key_int(&j, "weight_bytes", (int64_t)info.weight_bytes);
        json_key_int(&j, "macs", info.macs);
        json_key_bool(&j, "portable", info.portable);
        json_key_number(&j, "build_ms", build_ms);
        json_key_number(&j, "save_ms", save_ms);
        json_floats(&j, model);
        json_end(&j);
        return;
    }
    table *t = table_new("engine|>file|>weights|>nodes|>layers|>MACs|isa|>build ms");
    table_cell(t, "%s", path);
    table_cell(t, "%s", bytes_text((double)st.st_size));
    table_cell(t, "%s", bytes_text((double)info.weight_bytes));
    table_cell(t, "%zu", info.nodes);
    table_cell(t, "%zu", layers);
    table_cell(t, "%s", count_text((double)info.macs));
    table_cell(t, "%s", info.isa ? info.isa : "?");
    table_cell(t, "%.1f", build_ms);
    table_print(t, c->format);
    verdict(c, true, "%s", "");
}

/* Layers that stay float, and why. */
static void say_floats(cli *c, const kiln_model *model) {
    kiln_node_precision p;
    for (size_t i = 0; kiln_model_precision(model, i, &p); i++) {
        if (p.layer && p.dtype == KILN_DTYPE_F32) {
            say(c, KILN_LOG_INFO, "%-8s %s (%s) stays float: %s", "quantize", safe(p.name), p.op,
                p.reason ? p.reason : "?");
        }
    }
}

/* What the layers that have MACs run in. */
static void say_precisions(cli *c, const kiln_engine *engine) {
    static const char *const names[] = {"int8", "bf16", "fp16 weights", "fp32"};
    size_t counts[COUNT_OF(names)] = {0};
    kiln_layer l;
    const char *text = "";
    for (size_t i = 0; kiln_engine_layer(engine, i, &l); i++) {
        for (size_t k = 0; l.macs > 0 && k < COUNT_OF(names); k++) {
            counts[k] += strcmp(l.precision, names[k]) == 0 ? 1 : 0;
        }
    }
    for (size_t k = 0; k < COUNT_OF(names); k++) {
        text =
            counts[k] ? keepf("%s%s%zu in %s", text, *text ? ", " : "", counts[k], names[k]) : text;
    }
    say(c, KILN_LOG_INFO, "%-8s layers with MACs: %s", "build", text);
}

/* Puts the quantized form in the model's place. */
static int quantize(cli *c, const own *o, const kiln_build_options *build, kiln_model **model) {
    kiln_quantize_options options;
    bool timed = o->int8 && !*o->int8 && !o->no_timing;
    quant_made made = {.smooth = true, .timed = timed};
    int failed = quant_options(c, NULL, &options);
    quant_float_default(c, o->int8 != NULL, &options);
    failed = failed ? failed : quant_model(c, *model, build, &options, &made);
    failed = failed || !timed ? failed : quant_time(c, *model, build, &options, &made);
    if (failed == 0) {
        size_t layers, int8;
        quant_count(made.model, &layers, &int8);
        say(c, KILN_LOG_INFO, "%-8s %s", "quantize",
            c->weight_only ? keepf("weights alone, in %s", c->weight_only)
                           : keepf("%zu of %zu layers in int8", int8, layers));
        say_floats(c, made.model);
        kiln_model_destroy(*model);
        *model = made.model;
        made.model = NULL;
    }
    quant_free(&made);
    return failed;
}

/* How many layers run in another way than by rules, and what their ways gain. */
static void say_tried(cli *c, const kiln_engine *engine) {
    kiln_tried_way t;
    size_t ways = 0, chosen = 0;
    double gained_ms = 0;
    for (size_t i = 0; kiln_engine_tried(engine, i, &t); i++) {
        ways++;
        chosen += t.chosen;
        gained_ms += t.chosen ? t.rules_ms - t.ms : 0;
    }
    if (ways > 0) {
        say(c, KILN_LOG_INFO,
            "%-8s of %zu ways of layers %zu are faster than the rules', by %.3g ms", "tune", ways,
            chosen, gained_ms);
    }
}

static kiln_status make_engine(cli *c, const own *o, const kiln_model *model,
                               const kiln_build_options *b, kiln_engine **engine) {
    const kiln_tune_options *tune = o->no_timing ? NULL : session_tune(c, o->level, o->threads);
    if (!tune) {
        return kiln_engine_build(engine, model, b, c->diag);
    }
    kiln_progress progress = watch_progress(c, "timing layers");
    kiln_tune_options t = *tune;
    t.progress = &progress;
    kiln_status status = kiln_engine_build_timed(engine, model, b, &t, c->env, c->diag);
    end_progress(c);
    if (status == KILN_OK) {
        say_tried(c, *engine);
    }
    return status;
}

static int build(cli *c, const own *o, kiln_model **model, kiln_engine **engine) {
    kiln_open_options open;
    int failed = session_options(c, c->operands.items[0], &open);
    if (failed != 0) {
        return failed;
    }
    kiln_status status = kiln_model_load(model, c->env, c->operands.items[0], open.model, c->diag);
    if (status != KILN_OK || c->dry_run) {
        return finish(c, status);
    }
    bool chosen =
        o->int8 || c->weight_only || c->dynamic || c->precision.count > 0 || c->bf16 || c->fp16;
    if (chosen) {
        failed = quantize(c, o, open.build, model);
        if (failed != 0) {
            return failed;
        }
    }
    kiln_build_options b = *open.build;
    b.portable = o->portable;
    double start = now_ms();
    status = make_engine(c, o, *model, &b, engine);
    if (status != KILN_OK || interrupted()) {
        return status == KILN_OK ? interrupted() : finish(c, status);
    }
    double built = now_ms();
    if (chosen) {
        say_precisions(c, *engine);
    }
    const char *path = o->output ? o->output : default_output(c->operands.items[0]);
    status = kiln_engine_save(*engine, path, c->diag);
    if (status == KILN_OK) {
        report(c, path, *model, *engine, built - start, now_ms() - built);
    }
    return finish(c, status);
}

static int run(cli *c, void *given) {
    own *o = given;
    int32_t last;
    kiln_model *model = NULL;
    kiln_engine *engine = NULL;
    int status = session_levels(c, 3, false, &o->level, &last);
    status = status ? status : build(c, o, &model, &engine);
    kiln_engine_destroy(engine);
    kiln_model_destroy(model);
    return status;
}

static const opt options[] = {
    OUTPUT_OPTION(own, "the engine file [the model's name with .kiln, in this folder]"),
    {.name = "portable",
     .kind = OPT_FLAG,
     .at = offsetof(own, portable),
     .help = "keep the source weights too, so that another machine can rebuild"},
    {.name = "int8",
     .kind = OPT_SWITCH,
     .value = "force",
     .at = offsetof(own, int8),
     .help = "quantize, by --calib, --ranges or --dynamic, what gains time by it on this machine; "
             "force: all that can be"},
    {.name = "no-timing",
     .kind = OPT_FLAG,
     .at = offsetof(own, no_timing),
     .help = "let rules alone decide, so that every build gives the same bytes"},
    {.name = "threads",
     .kind = OPT_INT,
     .value = "N",
     .min = 0,
     .at = offsetof(own, threads),
     .help = "that layers are timed with [all]; an engine runs with any number"},
};

static const example examples[] = {
    {"kiln build net.onnx -o net.kiln", "builds an engine for this machine"},
    {"kiln build net.onnx --override-shape input:1x3x224x224",
     "with a fixed shape, for the fastest plan"},
    {"kiln build net.onnx --dynamic-shape input:1..8..32x3x224x224",
     "for batches of 1 to 32, most often 8"},
    {"kiln build net.onnx --int8 --calib train/ --scale 1/255", "in 8 bits where they pay"},
    {"kiln build net.onnx --int8=force --calib train/ --scale 1/255",
     "in 8 bits wherever possible"},
    {"kiln build net.onnx --bf16", "weights and activations of products in bfloat16"},
    {"kiln build net.onnx --precision 'type:Conv=int8,name:/fc*=fp32,bf16' --calib train/",
     "a precision for each layer"},
    {"kiln build net.onnx --max-isa avx2 --portable", "for other machines"},
};

static const opt_group *const groups[] = {&group_quant, &group_picture, &group_build,
                                          &group_tune,  &group_common,  NULL};

const verb verb_build = {
    .name = "build",
    .summary = "make an engine file from an ONNX model",
    .operands = "MODEL",
    .about = "Reads a model, simplifies its graph, chooses kernels, packs the weights and writes "
             "an engine file, which loads in milliseconds. The file is the old one or the "
             "complete new one.",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .min_operands = 1,
    .max_operands = 1,
    .trtexec = true,
    .run = run};
