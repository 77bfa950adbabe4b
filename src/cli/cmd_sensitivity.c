/* cmd_sensitivity.c - what each layer costs when it alone is quantized. */
#include <math.h>
#include <stddef.h>

#include "quant.h"

static void show_json(const cli *c, const kiln_study *study) {
    kiln_study_info info;
    kiln_layer_cost l;
    json j = json_begin(c, "kiln.sensitivity/1");
    kiln_study_get_info(study, &info);
    json_key_text(&j, "model", c->operands.items[0]);
    json_key_text(&j, "metric", info.metric);
    json_key_number(&j, "float_metric", info.float_metric);
    json_key_int(&j, "samples", info.samples);
    json_key_number(&j, "all_drop_points", info.drop);
    json_key_number(&j, "all_sqnr_db", info.sqnr_db);
    json_key_int(&j, "measured", (int64_t)info.measured);
    json_key_int(&j, "resumed", (int64_t)info.resumed);
    json_key(&j, "layers");
    json_open(&j, '[');
    for (size_t i = 0; kiln_study_layer(study, i, &l); i++) {
        json_open(&j, '{');
        json_key_text(&j, "name", l.name);
        json_key_text(&j, "op", l.op);
        json_key_number(&j, "sqnr_db", l.sqnr_db);
        json_key_number(&j, "cosine", l.cosine);
        json_key_number(&j, "agreement", l.agreement);
        json_key_number(&j, "top1", l.top1);
        json_key_number(&j, "drop_points", l.drop);
        json_key_text(&j, "input", l.input);
        json_key_number(&j, "input_sqnr_db", l.input_sqnr_db);
        json_close(&j);
    }
    json_close(&j);
    json_end(&j);
}

/* Numbers that were not measured stay blank. */
static const char *number(int digits, double x) {
    return isnan(x) ? "" : isinf(x) ? (x > 0 ? "exact" : "lost") : keepf("%.*f", digits, x);
}

static void show(const cli *c, const kiln_study *study) {
    kiln_study_info info;
    kiln_layer_cost l;
    if (c->format == FORMAT_JSON) {
        show_json(c, study);
        return;
    }
    kiln_study_get_info(study, &info);
    table *t = table_new(
        keepf(">#|layer|op|>SQNR dB|>cosine|>%s loss, points|reads|>its SQNR dB", info.metric));
    for (size_t i = 0; kiln_study_layer(study, i, &l); i++) {
        table_cell(t, "%zu", i + 1);
        table_cell(t, "%s", safe(l.name));
        table_cell(t, "%s", l.op);
        table_cell(t, "%s", number(2, l.sqnr_db));
        table_cell(t, "%s", number(6, l.cosine));
        table_cell(t, "%s", number(2, l.drop));
        table_cell(t, "%s", l.input ? safe(l.input) : "");
        table_cell(t, "%s", number(2, l.input_sqnr_db));
    }
    table_print(t, c->format);
    verdict(c, info.measured == info.layers,
            "%zu of %zu layers, each alone, on %lld samples; all together: %.2f dB, %s loses %.2f "
            "points",
            info.measured, info.layers, (long long)info.samples, info.sqnr_db, info.metric,
            info.drop);
}

static int measure(cli *c, quant_study *s) {
    kiln_study *study = NULL;
    if (s->study.eval) {
        s->study.data = s->study.eval;
        s->study.labels = s->study.eval_labels;
        s->study.samples = s->study.samples ? s->study.samples : s->study.eval_samples;
    }
    kiln_status status =
        kiln_sensitivity(&study, s->model, s->made.calibration, &s->options, &s->study, c->diag);
    end_progress(c);
    if (study) {
        print_findings(c);
        show(c, study);
        kiln_study_destroy(study);
    }
    if (status == KILN_E_CANCELLED) {
        quant_study_resume(c, &s->study);
        return interrupted();
    }
    return finish(c, status);
}

static int run(cli *c, void *given) {
    quant_study s = {0};
    (void)given;
    int status = quant_study_begin(c, "sensitivity", &s);
    status = status || c->dry_run ? status : measure(c, &s);
    quant_study_free(&s);
    return status;
}

static const example examples[] = {
    {"kiln sensitivity net.onnx --calib train/ --scale 1/255",
     "ranks the layers by what 8 bits do to the outputs"},
    {"kiln sensitivity net.onnx --calib net.calib --eval val.npz --state net.state --format csv",
     "with the loss of top-1, to be gone on with"},
};

static const opt_group *const groups[] = {&group_study, &group_quant,  &group_picture,
                                          &group_build, &group_common, NULL};

const verb verb_sensitivity = {
    .name = "sensitivity",
    .summary = "rank layers by what 8 bits cost them",
    .operands = "MODEL --calib PATH",
    .about = "Quantizes one layer at a time, runs samples and compares the outputs with the float "
             "network's: signal to noise, cosine, and the loss of top-1, or of agreement without "
             "labels. Beside it stands how noisy the value is that the layer reads when all "
             "are quantized.",
    EXAMPLES(examples),
    .groups = groups,
    .min_operands = 1,
    .max_operands = 1,
    .run = run};
