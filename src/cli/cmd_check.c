/* cmd_check.c - linting a model. */
#include <stddef.h>
#include <string.h>

#include "cli.h"

typedef struct own {
    bool strict;
} own;

static const char *const severities[] = {
    [KILN_SEV_ERROR] = "error", [KILN_SEV_WARNING] = "warning", [KILN_SEV_NOTE] = "note"};

static void show_json(const cli *c, const kiln_check *check, bool passed) {
    json j = json_begin(c, "kiln.check/1");
    kiln_check_op op;
    json_key_text(&j, "model", c->operands.items[0]);
    json_key_bool(&j, "passed", passed);
    json_key_text(&j, "status", kiln_status_name(kiln_check_status(check)));
    json_key(&j, "operators");
    json_open(&j, '[');
    for (size_t i = 0; kiln_check_get(check, i, &op); i++) {
        json_open(&j, '{');
        json_key_text(&j, "domain", op.domain);
        json_key_text(&j, "name", op.name);
        json_key_int(&j, "nodes", (int64_t)op.count);
        json_key_text(&j, "support", kiln_support_name(op.support));
        json_key_int(&j, "reference_layers", (int64_t)op.by_reference);
        json_key_text(&j, "kernels", op.kernels);
        json_close(&j);
    }
    json_close(&j);
    json_key(&j, "findings");
    json_open(&j, '[');
    for (size_t i = 0; i < kiln_diag_count(c->diag); i++) {
        const kiln_finding *f = kiln_diag_get(c->diag, i);
        json_open(&j, '{');
        json_key_text(&j, "severity", severities[f->severity]);
        json_key_text(&j, "code", f->code);
        json_key_text(&j, "message", f->message);
        json_key_text(&j, "hint", f->hint);
        json_key_text(&j, "node", f->node);
        json_key_text(&j, "op", f->op);
        json_key(&j, "offset_bytes");
        if (f->offset >= 0) {
            json_int(&j, f->offset);
        } else {
            json_text(&j, NULL);
        }
        json_key_text(&j, "chain", f->chain);
        json_close(&j);
    }
    json_close(&j);
    json_end(&j);
}

static void show_tables(const cli *c, const kiln_check *check) {
    table *t = table_new("operator|domain|>nodes|support|>reference layers|kernels");
    kiln_check_op op;
    for (size_t i = 0; kiln_check_get(check, i, &op); i++) {
        table_cell(t, "%s", op.name);
        table_cell(t, "%s", *op.domain ? op.domain : "ai.onnx");
        table_cell(t, "%zu", op.count);
        table_cell(t, "%s", kiln_support_name(op.support));
        table_cell(t, "%s", op.by_reference ? keepf("%zu", op.by_reference) : "");
        table_cell(t, "%s", op.kernels);
    }
    table_print(t, c->format);
    if (kiln_diag_count(c->diag) == 0) {
        return;
    }
    table *found = table_new("finding|node|>offset|what");
    for (size_t i = 0; i < kiln_diag_count(c->diag); i++) {
        const kiln_finding *f = kiln_diag_get(c->diag, i);
        table_cell(found, "%s[%s]", severities[f->severity], f->code);
        table_cell(found, "%s%s%s%s", f->node ? f->node : "", f->op ? " (" : "", f->op ? f->op : "",
                   f->op ? ")" : "");
        table_cell(found, "%s", f->offset >= 0 ? keepf("%lld", (long long)f->offset) : "");
        table_cell(found, "%s%s%s", f->message, f->hint ? "; " : "", f->hint ? f->hint : "");
    }
    putchar('\n');
    table_print(found, c->format);
}

static size_t count_severity(const cli *c, kiln_severity severity) {
    size_t n = 0;
    for (size_t i = 0; i < kiln_diag_count(c->diag); i++) {
        n += kiln_diag_get(c->diag, i)->severity == severity;
    }
    return n;
}

static int run(cli *c, void *given) {
    const own *o = given;
    kiln_open_options open;
    kiln_check *check;
    int failed = session_options(c, c->operands.items[0], &open);
    if (failed != 0) {
        return failed;
    }
    kiln_status status = kiln_check_run(&check, c->env, c->operands.items[0], &open, c->diag);
    if (status != KILN_OK) {
        return finish(c, status);
    }
    size_t errors = count_severity(c, KILN_SEV_ERROR),
           warnings = count_severity(c, KILN_SEV_WARNING);
    status = kiln_check_status(check);
    bool passed = status == KILN_OK && errors == 0 && (warnings == 0 || !o->strict);
    if (c->format == FORMAT_JSON) {
        show_json(c, check, passed);
    } else {
        show_tables(c, check);
        verdict(c, passed, "%zu errors, %zu warnings, %zu notes", errors, warnings,
                count_severity(c, KILN_SEV_NOTE));
    }
    kiln_check_destroy(check);
    if (status != KILN_OK) {
        return kiln_status_exit_code(status);
    }
    return passed ? 0 : kiln_status_exit_code(KILN_E_CHECK);
}

static const opt options[] = {
    {.name = "strict", .kind = OPT_FLAG, .at = offsetof(own, strict), .help = "warnings fail too"},
};

static const example examples[] = {
    {"kiln check net.onnx", "every operator and what runs it, every finding"},
    {"kiln check net.onnx --strict --format json", "for a pipeline"},
};

static const opt_group *const groups[] = {&group_build, &group_common, NULL};

const verb verb_check = {
    .name = "check",
    .summary = "lint a model: what cannot run, what runs slowly, what looks wrong",
    .operands = "MODEL",
    .about = "Lists every operator of the file with what becomes of it (a vector kernel, the "
             "exact but slow reference, folded away, not supported), and every finding with "
             "node, byte offset and hint: undefined, duplicate and unused names, dangling nodes, "
             "NaN, infinite and denormal weights, scales that are not positive or lie along the "
             "wrong axis, casts there and back, dynamic inputs, old operator sets, data outside "
             "of the folder. A model that cannot run gives the exit status that "
             "building it would give.",
    .exits = "there are errors, or with --strict warnings, in a model that can run",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .min_operands = 1,
    .max_operands = 1,
    .run = run};
