/* cmd_compare.c - outputs of two networks, or of one and saved ones. */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The second operand: saved outputs when its name says so or it is a folder, else a network. */
static bool is_data(const char *path) {
    static const char *const endings[] = {".npz", ".npy", ".pb"};
    size_t len = strlen(path);
    if (is_folder(path)) {
        return true;
    }
    for (size_t i = 0; i < COUNT_OF(endings); i++) {
        size_t n = strlen(endings[i]);
        if (len >= n && strcmp(path + len - n, endings[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Runs what is open and appends its outputs, and the inner values that `marks` names. */
static int run_network(cli *c, session *s, list *marks, kiln_tensors *out) {
    kiln_watch *watch = NULL;
    const kiln_tensor *t;
    const char *name;
    int failed = session_context(c, s, c->threads);
    if (failed != 0) {
        return failed;
    }
    kiln_status status = KILN_OK;
    if (marks->count > 0) {
        list_add(marks, NULL);
        kiln_watch_options o = {.size = sizeof o, .mark = marks->items};
        status = kiln_watch_create(&watch, s->context, c->env, &o);
    }
    status = status == KILN_OK ? kiln_context_run(s->context, c->diag) : status;
    status = status == KILN_OK ? kiln_tensors_collect(out, s->engine, s->context, c->diag) : status;
    for (size_t i = 0; watch && status == KILN_OK; i++) {
        t = kiln_tensors_get(kiln_watch_marked(watch), i, &name);
        if (!t) {
            break;
        }
        status = kiln_tensors_add(out, name, t, c->diag);
    }
    kiln_watch_destroy(watch);
    return finish(c, status);
}

/* The second network runs on the first one's inputs. */
static int second_network(cli *c, session *first, const char *path, kiln_tensors *out) {
    session s = {0};
    list none = {0};
    int status = session_open(c, &s, path);
    if (status == 0 && !c->dry_run) {
        s.inputs = first->inputs;
        status = run_network(c, &s, &none, out);
        s.inputs = NULL;
    }
    session_close(&s);
    return status;
}

/* Saved tensors that are no outputs are inner values, to be marked. */
static int read_saved(cli *c, const session *first, const char *path, kiln_tensors *out,
                      list *marks) {
    kiln_io io, second;
    const char *name;
    bool one =
        kiln_engine_output(first->engine, 0, &io) && !kiln_engine_output(first->engine, 1, &second);
    kiln_read_options o = {.size = sizeof o, .name = one && !is_folder(path) ? io.name : NULL};
    kiln_status status = kiln_tensors_read(out, path, &o, c->diag);
    for (size_t i = 0; status == KILN_OK && kiln_tensors_get(out, i, &name); i++) {
        bool found = false;
        for (size_t k = 0; !found && kiln_engine_output(first->engine, k, &io); k++) {
            found = strcmp(io.name, name) == 0;
        }
        if (!found) {
            list_add(marks, name);
        }
    }
    return finish(c, status);
}

/* ---- Output ---- */

static const char *number(double x) {
    return isnan(x) ? "-" : isinf(x) ? "inf" : keepf("%.4g", x);
}

static void show_table(const cli *c, const kiln_comparison *m) {
    table *t = table_new("output|>max abs|>max rel|>of range|>cosine|>SQNR dB|>top-1|>outside|");
    const kiln_difference *d;
    for (size_t i = 0; (d = kiln_comparison_get(m, i)) != NULL; i++) {
        table_cell(t, "%s", d->name);
        const double values[] = {d->max_abs, d->max_rel, d->range_error};
        for (size_t k = 0; k < COUNT_OF(values); k++) {
            table_cell(t, "%s", d->problem ? "" : number(values[k]));
        }
        table_cell(t, "%s", d->problem ? "" : keepf("%.8f", d->cosine));
        table_cell(t, "%s", d->problem ? "" : number(d->sqnr_db));
        table_cell(t, "%s", d->problem ? "" : number(d->top1));
        table_cell(t, "%s", d->problem ? "" : keepf("%lld", (long long)d->failed));
        table_cell(t, "%s", d->problem ? d->problem : d->pass ? "ok" : "differs");
    }
    table_print(t, c->format);
}

static void show_json(const cli *c, const kiln_comparison *m, bool passed) {
    json j = json_begin(c, "kiln.compare/1");
    const kiln_difference *d;
    json_key_bool(&j, "passed", passed);
    json_key(&j, "outputs");
    json_open(&j, '[');
    for (size_t i = 0; (d = kiln_comparison_get(m, i)) != NULL; i++) {
        json_open(&j, '{');
        json_key_text(&j, "name", d->name);
        json_key_bool(&j, "pass", d->pass);
        json_key_text(&j, "problem", d->problem);
        if (!d->problem) {
            const struct {
                const char *key;
                double value;
            } rows[] = {{"max_abs", d->max_abs},
                        {"max_rel", d->max_rel},
                        {"mean_abs", d->mean_abs},
                        {"rmse", d->rmse},
                        {"range", d->range},
                        {"range_error", d->range_error},
                        {"cosine", d->cosine},
                        {"sqnr_db", d->sqnr_db},
                        {"top1_agreement", d->top1},
                        {"worst_expected", d->worst_expected},
                        {"worst_actual", d->worst_actual}};
            json_key_int(&j, "count", d->count);
            json_key_int(&j, "outside", d->failed);
            json_key_int(&j, "nonfinite_mismatches", d->nonfinite);
            json_key_int(&j, "worst_index", d->worst);
            for (size_t k = 0; k < COUNT_OF(rows); k++) {
                json_key_number(&j, rows[k].key, rows[k].value);
            }
        }
        json_close(&j);
    }
    json_close(&j);
    json_end(&j);
}

static int compare(cli *c, session *s, kiln_tensors *actual, kiln_tensors *expected) {
    const char *reference = c->operands.items[1];
    bool saved = is_data(reference);
    list marks = {0};
    int status = session_open(c, s, c->operands.items[0]);
    status = status ? status : session_inputs(c, s, 0);
    status = status || !saved ? status : read_saved(c, s, reference, expected, &marks);
    status = status || c->dry_run ? status : run_network(c, s, &marks, actual);
    status = status || saved ? status : second_network(c, s, reference, expected);
    if (status != 0 || c->dry_run) {
        return status;
    }
    kiln_tolerance t = tolerance_of(c);
    kiln_comparison *m;
    kiln_status ran = kiln_comparison_run(&m, expected, actual, c->env, &t, c->diag);
    if (ran != KILN_OK) {
        return finish(c, ran);
    }
    bool passed = kiln_comparison_passed(m);
    if (c->format == FORMAT_JSON) {
        show_json(c, m, passed);
    } else {
        show_table(c, m);
    }
    verdict(c, passed, "%s", "");
    kiln_comparison_destroy(m);
    return passed ? 0 : kiln_status_exit_code(KILN_E_CHECK);
}

static int run(cli *c, void *given) {
    session s = {0};
    kiln_tensors *actual = NULL, *expected = NULL;
    (void)given;
    kiln_status made = kiln_tensors_create(&actual, c->env);
    made = made == KILN_OK ? kiln_tensors_create(&expected, c->env) : made;
    int status = made == KILN_OK ? compare(c, &s, actual, expected) : finish(c, made);
    session_close(&s);
    kiln_tensors_destroy(actual);
    kiln_tensors_destroy(expected);
    return status;
}

static const opt options[] = {
    {.name = "threads",
     .kind = OPT_INT,
     .value = "N",
     .min = 1,
     SHARED(threads),
     .help = "[all usable cores]"},
};

static const example examples[] = {
    {"kiln compare net.kiln net.onnx", "an engine against the model, on generated inputs"},
    {"kiln compare net.onnx expected.npz --input x.npy --cos 0.999", "against saved outputs"},
    {"kiln run net.onnx --output-dir ref && kiln compare net.kiln ref", "against an earlier run"},
};

static const opt_group *const groups[] = {&group_tolerance, &group_input,  &group_picture,
                                          &group_build,     &group_common, NULL};

const verb verb_compare = {
    .name = "compare",
    .summary = "compare the outputs of two networks, or of one and saved ones",
    .operands = "MODEL|ENGINE REFERENCE",
    .about = "Runs the first network, and the second on the same inputs, or reads saved outputs "
             "(.npz, .npy, .pb, or a folder that `kiln run --output-dir` wrote), and reports "
             "how far each output is from the reference.",
    .exits = "an output is missing or outside the tolerance",
    EXAMPLES(examples),
    .options = options,
    .n_options = COUNT_OF(options),
    .groups = groups,
    .min_operands = 2,
    .max_operands = 2,
    .run = run};
