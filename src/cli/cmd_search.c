/* cmd_search.c - which layers in 8 bits, for what may be lost. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "quant.h"

typedef struct own {
    const char *output, *max_drop, *rules, *plot;
    list precisions;
    bool no_timing, calibrators;
} own;

typedef struct found {
    kiln_study *study;
    kiln_model *best;
    kiln_study_info info;
    double max_drop;
    uint32_t precisions;
} found;

/* ---- Records ---- */

static void json_tried(json *j, const kiln_study *study) {
    kiln_tried t;
    json_key(j, "tried");
    json_open(j, '[');
    for (size_t i = 0; kiln_study_tried(study, i, &t); i++) {
        json_open(j, '{');
        json_key_int(j, "int8_layers", (int64_t)t.int8_layers);
        json_key_int(j, "bf16_layers", (int64_t)t.bf16_layers);
        json_key_number(j, "metric", t.metric);
        json_key_number(j, "drop_points", t.drop);
        json_key_number(j, "sqnr_db", t.sqnr_db);
        json_key_number(j, "run_ms", t.ms);
        json_key_number(j, "float_run_ms", t.float_ms);
        json_key_number(j, "time_ratio", t.time_ratio);
        json_key_number(j, "cost", t.cost);
        json_key_bool(j, "within", t.within);
        json_key_bool(j, "front", t.front);
        json_key_bool(j, "best", t.best);
        json_close(j);
    }
    json_close(j);
}

/* What --layer takes to give the layer its calibrator; NULL: as all have it. */
static const char *calibrator_of(const kiln_layer_cost *l) {
    return l->calibrator == KILN_CALIBRATOR_AUTO ? NULL
           : l->calibrator == KILN_CALIBRATOR_PERCENTILE
               ? keepf("percentile=%g", l->percentile)
               : keepf("calibrator=%s", kiln_calibrator_name(l->calibrator));
}

static void json_layers(json *j, const kiln_study *study) {
    kiln_layer_cost l;
    json_key(j, "layers");
    json_open(j, '[');
    for (size_t i = 0; kiln_study_layer(study, i, &l); i++) {
        json_open(j, '{');
        json_key_text(j, "name", l.name);
        json_key_text(j, "op", l.op);
        json_key_text(j, "precision", quant_precision_text(l.dtype));
        json_key_text(j, "calibrator", calibrator_of(&l));
        json_key_number(j, "sqnr_db", l.sqnr_db);
        json_key_number(j, "drop_points", l.drop);
        json_key_number(j, "float_ms", l.float_ms);
        json_key_number(j, "int8_ms", l.int8_ms);
        json_key_number(j, "bf16_sqnr_db", l.bf16_sqnr_db);
        json_key_number(j, "bf16_ms", l.bf16_ms);
        json_close(j);
    }
    json_close(j);
}

/* The whole record, to any stream. */
static void write_record(const cli *c, const own *o, const found *f, FILE *to) {
    json j = json_begin_to(c, "kiln.search/1", to);
    json_key_text(&j, "model", c->operands.items[0]);
    json_key_text(&j, "engine", f->best && o->output ? o->output : NULL);
    json_key_text(&j, "rules", o->rules);
    json_key_text(&j, "metric", f->info.metric);
    json_key_number(&j, "float_metric", f->info.eval_metric);
    json_key_number(&j, "max_drop_points", f->max_drop);
    json_key_int(&j, "eval_samples", f->info.eval_samples);
    json_key_int(&j, "layer_samples", f->info.samples);
    json_key_int(&j, "resumed", (int64_t)f->info.resumed);
    json_tried(&j, f->study);
    json_layers(&j, f->study);
    json_end(&j);
}

static const char *number(int digits, double x) {
    return isnan(x) ? "" : isinf(x) ? (x > 0 ? "exact" : "lost") : keepf("%.*f", digits, x);
}

static void show_layers(const cli *c, const found *f) {
    kiln_layer_cost l;
    table *t =
        table_new("layer|op|>SQNR dB|>bf16 dB|>float ms|>int8 ms|>bf16 ms|runs in|ranges by");
    for (size_t i = 0; kiln_study_layer(f->study, i, &l); i++) {
        const char *by = calibrator_of(&l);
        if (l.dtype != KILN_DTYPE_I8 || by || c->verbose) {
            table_cell(t, "%s", safe(l.name));
            table_cell(t, "%s", l.op);
            table_cell(t, "%s", number(2, l.sqnr_db));
            table_cell(t, "%s", number(2, l.bf16_sqnr_db));
            table_cell(t, "%s", number(4, l.float_ms));
            table_cell(t, "%s", number(4, l.int8_ms));
            table_cell(t, "%s", number(4, l.bf16_ms));
            table_cell(t, "%s", quant_precision_text(l.dtype));
            table_cell(t, "%s", by ? by : "");
        }
    }
    table_print(t, c->format);
    putchar('\n');
}

static void show(const cli *c, const own *o, const found *f) {
    kiln_tried t, best = {.drop = NAN};
    if (c->format == FORMAT_JSON) {
        write_record(c, o, f, stdout);
        return;
    }
    if (c->format == FORMAT_TABLE) {
        show_layers(c, f);
    }
    table *rows =
        table_new(keepf(">int8 layers|>bf16|>%s|>loss, points|>SQNR dB|>ms|>float ms|>cost, "
                        "%%|",
                        f->info.metric));
    for (size_t i = 0; kiln_study_tried(f->study, i, &t); i++) {
        table_cell(rows, "%zu", t.int8_layers);
        table_cell(rows, "%zu", t.bf16_layers);
        table_cell(rows, "%.2f %%", 100 * t.metric);
        table_cell(rows, "%.2f", t.drop);
        table_cell(rows, "%s", number(2, t.sqnr_db));
        table_cell(rows, "%s", number(3, t.ms));
        table_cell(rows, "%s", number(3, t.float_ms));
        table_cell(rows, "%.1f", 100 * t.cost);
        table_cell(rows, "%s", t.best ? "best" : t.front ? "front" : t.within ? "" : "loses more");
        best = t.best ? t : best;
    }
    table_print(rows, c->format);
    verdict(c, true, "%zu of %zu layers in int8%s, %s loses %.2f of %g points, cost %.1f %%",
            best.int8_layers, f->info.layers,
            best.bf16_layers ? keepf(", %zu in bf16", best.bf16_layers) : "", f->info.metric,
            best.drop, f->max_drop, 100 * best.cost);
}

/* ---- Files ---- */

static int write_rules(cli *c, const own *o, const quant_study *s, const found *f) {
    const kiln_calibrate_options *how = s->options.calibrate;
    const char *by = keepf(" --calibrator %s", kiln_calibrator_name(how->calibrator));
    kiln_layer_cost l;
    FILE *to = open_output(c, o->rules);
    if (!to) {
        return kiln_status_exit_code(KILN_E_IO);
    }
    if (how->calibrator == KILN_CALIBRATOR_PERCENTILE && how->n_percentiles == 1) {
        by = keepf("%s --percentiles %g", by, how->percentiles[0]);
    }
    if (how->calibrator == KILN_CALIBRATOR_MSE && how->cut_weight > 1) {
        by = keepf("%s --cut-weight %g", by, how->cut_weight);
    }
    for (size_t i = 0; kiln_study_layer(f->study, i, &l); i++) {
        const char *own_by = l.dtype == KILN_DTYPE_I8 ? calibrator_of(&l) : NULL;
        by = own_by ? keepf("%s --layer 'name:%s:%s'", by, l.name, own_by) : by;
    }
    fprintf(to, "# kiln build %s --int8=force --precision @%s%s ...\n%s", c->operands.items[0],
            o->rules, by, kiln_study_rules(f->study));
    return close_output(c, to, o->rules);
}

static kiln_status write_plot(cli *c, const own *o, const found *f) {
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    kiln_status status = KILN_E_MEMORY;
    if (to) {
        write_record(c, o, f, to);
        status =
            fclose(to) == 0 ? kiln_report_plot(c->env, text, len, o->plot, c->diag) : KILN_E_MEMORY;
    }
    free(text);
    return status;
}

static kiln_status write_engine(cli *c, const own *o, const quant_study *s, const found *f) {
    kiln_engine *engine = NULL;
    kiln_status status = kiln_engine_build(&engine, f->best, s->open.build, c->diag);
    status = status ? status : kiln_engine_save(engine, o->output, c->diag);
    kiln_engine_destroy(engine);
    return status;
}

static int write_all(cli *c, const own *o, const quant_study *s, const found *f) {
    kiln_status status = write_engine(c, o, s, f);
    int failed = status == KILN_OK ? write_rules(c, o, s, f) : finish(c, status);
    if (failed == 0 && o->plot) {
        status = write_plot(c, o, f);
        failed = status == KILN_OK ? 0 : finish(c, status);
    }
    return failed;
}

/* ---- The job ---- */

/* "0.2" or "0.2pt". */
static int parse_drop(cli *c, const own *o, double *out) {
    const char *text = o->max_drop ? o->max_drop : "0.1";
    size_t len = strlen(text);
    len -= len > 2 && strcmp(text + len - 2, "pt") == 0 ? 2 : 0;
    if (!parse_number(keep(text, len), out) || *out < 0) {
        return usage_error(c, NULL, "--max-drop takes percentage points such as 0.2pt, not \"%s\"",
                           text);
    }
    return 0;
}

/* "fp32,bf16,int8": float32 is always among them. */
static int parse_precisions(cli *c, const own *o, uint32_t *out) {
    static const struct {
        const char *name;
        uint32_t flag;
    } known[] = {{"fp32", 0}, {"int8", KILN_SEARCH_INT8}, {"bf16", KILN_SEARCH_BF16}};
    for (size_t i = 0; i < o->precisions.count; i++) {
        size_t k = 0;
        while (k < COUNT_OF(known) && strcmp(known[k].name, o->precisions.items[i]) != 0) {
            k++;
        }
        if (k == COUNT_OF(known)) {
            return usage_error(c, NULL,
                               "--precisions takes some of fp32, bf16 and int8, not \"%s\"",
                               o->precisions.items[i]);
        }
        *out |= known[k].flag;
    }
    if (o->precisions.count > 0 && *out == 0) {
        return usage_error(c, NULL, "--precisions fp32 leaves nothing to choose");
    }
    return 0;
}

static int search(cli *c, const own *o, quant_study *s, found *f) {
    s->study.precisions = f->precisions;
    s->study.calibrators = o->calibrators;
    s->study.max_drop = f->max_drop;
    s->study.no_timing = o->no_timing;
    kiln_status status = kiln_search(&f->study, &f->best, s->model, s->made.calibration,
                                     &s->options, &s->study, c->diag);
    end_progress(c);
    print_findings(c);
    if (status != KILN_OK && status != KILN_E_CANCELLED) {
        return finish(c, status);
    }
    kiln_study_get_info(f->study, &f->info);
    int failed = 0;
    if (f->best) {
        failed = improve_int8(c, &f->best, s->model, s->open.build);
        failed = failed ? failed : write_all(c, o, s, f);
        show(c, o, f);
    }
    if (status == KILN_E_CANCELLED) {
        quant_study_resume(c, &s->study);
        return interrupted();
    }
    return failed;
}

static int run(cli *c, void *given) {
    own *o = given;
    quant_study s = {0};
    found f = {0};
    if (!o->output) {
        return usage_error(c, NULL, "`kiln search` needs -o FILE");
    }
    o->rules = o->rules ? o->rules : keepf("%s.rules", o->output);
    c->state = c->state ? c->state : keepf("%s.state", o->output);
    int status = parse_drop(c, o, &f.max_drop);
    status = status ? status : parse_precisions(c, o, &f.precisions);
    status = status ? status : quant_study_begin(c, "search", &s);
    status = status || c->dry_run ? status : search(c, o, &s, &f);
    kiln_model_destroy(f.best);
    kiln_study_destroy(f.study);
    quant_study_free(&s);
    return status;
}

static const opt options[] = {
    OUTPUT_OPTION(own, "the engine of the best choice"),
    {.name = "max-drop",
     .kind = OPT_TEXT,
     .value = "Xpt",
     .at = offsetof(own, max_drop),
     .help = "percentage points that top-1 may lose, or agreement without labels [0.1pt]"},
    {.name = "rules",
     .kind = OPT_TEXT,
     .value = "FILE",
     .at = offsetof(own, rules),
     .help = "the best choice for --precision @FILE [OUTPUT.rules]"},
    {.name = "plot",
     .kind = OPT_TEXT,
     .value = "FILE.svg",
     .at = offsetof(own, plot),
     .help = "cost against loss of all choices tried"},
    {.name = "precisions",
     .kind = OPT_LIST,
     .value = "P,..",
     .at = offsetof(own, precisions),
     .help = "that layers may have: fp32, bf16, int8 [fp32,int8; bf16 where the processor has "
             "instructions for it]"},
    {.name = "layer-calibrators",
     .kind = OPT_FLAG,
     .at = offsetof(own, calibrators),
     .help = "give each layer the calibrator that it errs least by"},
    {.name = "no-timing",
     .kind = OPT_FLAG,
     .at = offsetof(own, no_timing),
     .help = "count multiply-accumulates instead of milliseconds; in bf16 one saves half"},
};

static const example examples[] = {
    {"kiln search net.onnx --calib train.npz --eval val.npz --max-drop 0.2pt -o best.kiln",
     "the fastest engine that loses at most 0.2 points of top-1"},
    {"kiln search net.onnx --calib train.npz --eval val.npz --precisions fp32,bf16,int8 "
     "--layer-calibrators -o best.kiln",
     "with bfloat16 and calibrators to choose from"},
    {"kiln search net.onnx --calib train.npz --eval val.npz -o best.kiln --plot best.svg",
     "with a picture; stopped, the same command goes on by best.kiln.state"},
};

static const opt_group *const groups[] = {&group_study, &group_quant,  &group_picture,
                                          &group_build, &group_common, NULL};

const verb verb_search = {
    .name = "search",
    .summary = "find the layers that 8 bits pay for, within a loss allowed",
    .operands = "MODEL --calib PATH --eval PATH -o FILE",
    .about =
        "Measures what 8 bits (and bfloat16, where offered) cost each layer and what time they "
        "save it, then whole choices of layers: each is built, run over the evaluation data and "
        "timed beside the float "
        "network. The fastest that loses no more than allowed becomes the engine. A signal "
        "ends the search with the best so far. It is measured as it is, and then gets what "
        "--improve names.",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .min_operands = 1,
    .max_operands = 1,
    .run = run};
