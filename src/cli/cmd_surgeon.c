/* cmd_surgeon.c - models changed on disk: quantized graphs repaired. */
#include <stddef.h>
#include <string.h>

#include "cli.h"

typedef struct own {
    const char *output, *runtime;
    bool fuse_residual;
    int64_t external;
} own;

static void show_json(const cli *c, const own *o, const kiln_repair *r) {
    json j = json_begin(c, "kiln.surgeon/1");
    const char *name, *why;
    size_t count;
    json_key_text(&j, "model", o->output);
    json_key(&j, "changes");
    json_open(&j, '[');
    for (size_t i = 0; (name = kiln_repair_change(r, i, &count)) != NULL; i++) {
        json_open(&j, '{');
        json_key_text(&j, "what", name);
        json_key_int(&j, "count", (int64_t)count);
        json_close(&j);
    }
    json_close(&j);
    json_key(&j, "kept");
    json_open(&j, '[');
    for (size_t i = 0; (name = kiln_repair_kept(r, i, &why)) != NULL; i++) {
        json_open(&j, '{');
        json_key_text(&j, "value", name);
        json_key_text(&j, "why", why);
        json_close(&j);
    }
    json_close(&j);
    json_end(&j);
}

static void show_table(const cli *c, const own *o, const kiln_repair *r) {
    const char *name, *why;
    size_t count, n_changes = 0, n_kept = 0;
    table *changes = table_new("change|>count");
    table *kept = table_new("value that stays|why");
    for (; (name = kiln_repair_change(r, n_changes, &count)) != NULL; n_changes++) {
        table_cell(changes, "%s", name);
        table_cell(changes, "%zu", count);
    }
    for (; (name = kiln_repair_kept(r, n_kept, &why)) != NULL; n_kept++) {
        table_cell(kept, "%s", safe(name));
        table_cell(kept, "%s", why);
    }
    table_print(changes, c->format);
    if (n_kept > 0 && c->format == FORMAT_TABLE) {
        printf("\n");
        table_print(kept, c->format);
    }
    verdict(c, true,
            n_kept ? "%s written; %zu values are not what the runtime takes" : "%s written",
            o->output, n_kept);
}

static int repair(cli *c, const own *o) {
    kiln_open_options open;
    kiln_model *model = NULL;
    kiln_repair *r = NULL;
    const kiln_repair_options ro = {.size = sizeof ro,
                                    .runtime = o->runtime && strcmp(o->runtime, "onnxruntime") == 0
                                                   ? KILN_REPAIR_FOR_ONNXRUNTIME
                                                   : KILN_REPAIR_FOR_TENSORRT,
                                    .fuse_residual = o->fuse_residual,
                                    .external_threshold = (size_t)o->external};
    const char *path = c->operands.items[1];
    int failed = session_options(c, path, &open);
    if (failed != 0) {
        return failed;
    }
    kiln_status status = kiln_model_load(&model, c->env, path, open.model, c->diag);
    if (status == KILN_OK && !c->dry_run) {
        status = kiln_model_repair(&r, model, o->output, &ro, c->diag);
    }
    if (status == KILN_OK && r) {
        (c->format == FORMAT_JSON ? show_json : show_table)(c, o, r);
    }
    kiln_repair_destroy(r);
    kiln_model_destroy(model);
    return finish(c, status);
}

static int run(cli *c, void *given) {
    const own *o = given;
    if (strcmp(c->operands.items[0], "repair") != 0) {
        return usage_error(c, "`kiln surgeon repair MODEL -o FILE`", "\"%s\" is no operation",
                           c->operands.items[0]);
    }
    if (!o->output) {
        return usage_error(c, NULL, "`kiln surgeon repair` needs -o FILE");
    }
    return repair(c, o);
}

static const opt options[] = {
    OUTPUT_OPTION(own, "the ONNX file"),
    {.name = "for",
     .kind = OPT_CHOICE,
     .value = "tensorrt|onnxruntime",
     .at = offsetof(own, runtime),
     .help = "who will read it [tensorrt]"},
    {.name = "fuse-residual",
     .kind = OPT_FLAG,
     .at = offsetof(own, fuse_residual),
     .help = "no pair between a convolution and the addition behind it; rounds once less"},
    {.name = "external-data",
     .kind = OPT_INT,
     .value = "BYTES",
     .min = 0,
     .at = offsetof(own, external),
     .help = "weights larger than this go to FILE.data [0: none do]"},
};

static const example examples[] = {
    {"kiln surgeon repair eager.onnx -o fixed.onnx", "int8 with zero points of 0, float biases"},
    {"kiln surgeon repair eager.onnx -o fixed.onnx --for onnxruntime", "types as they are"},
};

static const opt_group *const groups[] = {&group_build, &group_common, NULL};

const verb verb_surgeon = {
    .name = "surgeon",
    .summary = "repair quantized models of other tools",
    .operands = "repair MODEL -o FILE",
    .about = "Writes a model quantized by PyTorch's eager mode, or with QLinear operators, in the "
             "standard form: QuantizeLinear and DequantizeLinear with constant float scales around "
             "float operators, no Casts, no redundant pairs. All of it is exact in real arithmetic "
             "but --fuse-residual. Values that TensorRT will not take are listed with the reason.",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .min_operands = 2,
    .max_operands = 2,
    .run = run};
