/* cmd_export.c - the canonical graph as an ONNX model. */
#include <stddef.h>
#include <string.h>

#include "cli.h"

typedef struct own {
    const char *output;
    int64_t external;
    int64_t stop_after;
} own;

static int export_graph(cli *c, const own *o, kiln_model **model, kiln_engine **engine) {
    kiln_open_options open;
    int failed = session_options(c, c->operands.items[0], &open);
    if (failed != 0) {
        return failed;
    }
    kiln_build_options b = *open.build;
    b.canonical_only = true;
    b.stop_after = (int32_t)o->stop_after;
    open.build = &b;
    kiln_status status =
        kiln_engine_open(engine, model, c->env, c->operands.items[0], &open, c->diag);
    if (status == KILN_OK && !c->dry_run) {
        status = kiln_engine_export(*engine, o->output, (size_t)o->external, c->diag);
    }
    if (status != KILN_OK || c->dry_run) {
        return finish(c, status);
    }
    kiln_engine_info info;
    kiln_engine_get_info(*engine, &info);
    if (c->format == FORMAT_JSON) {
        json j = json_begin(c, "kiln.export/1");
        json_key_text(&j, "model", o->output);
        json_key_int(&j, "nodes", (int64_t)info.nodes);
        json_end(&j);
    } else {
        table *t = table_new("model|>nodes");
        table_cell(t, "%s", o->output);
        table_cell(t, "%zu", info.nodes);
        table_print(t, c->format);
        verdict(c, true, "%s", "");
    }
    return finish(c, KILN_OK);
}

static int run(cli *c, void *given) {
    const own *o = given;
    kiln_model *model = NULL;
    kiln_engine *engine = NULL;
    if (!o->output) {
        return usage_error(c, NULL, "`kiln export` needs -o FILE");
    }
    int status = export_graph(c, o, &model, &engine);
    kiln_engine_destroy(engine);
    kiln_model_destroy(model);
    return status;
}

static const opt options[] = {
    OUTPUT_OPTION(own, "the ONNX file"),
    {.name = "external-data",
     .kind = OPT_INT,
     .value = "BYTES",
     .min = 0,
     .at = offsetof(own, external),
     .help = "weights larger than this go to FILE.data [0: none do]"},
    {.name = "stop-after",
     .kind = OPT_INT,
     .value = "N",
     .min = 0,
     .at = offsetof(own, stop_after),
     .help = "apply at most N rewrites, to find the one that breaks a model [all]"},
};

static const example examples[] = {
    {"kiln export net.onnx -o simple.onnx", "the model after all simplifying passes"},
    {"kiln export net.onnx -o net.kiln.onnx --off fold", "without one of them"},
};

static const opt_group *const groups[] = {&group_build, &group_common, NULL};

const verb verb_export = {
    .name = "export",
    .summary = "write the simplified graph as ONNX",
    .operands = "MODEL|ENGINE -o FILE",
    .about = "Writes the canonical graph, which is what the builder starts from, as a valid ONNX "
             "model. An engine file must be a portable one.",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .min_operands = 1,
    .max_operands = 1,
    .run = run};
