/* eval_show.c - scores of one network, or of two side by side, as a table or JSON. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "eval.h"

/* ---- Metrics ---- */

#define RESULT(field) offsetof(kiln_evaluate_result, field)

static const metric metrics[] = {
    {"top1", "%", RESULT(top1), false},
    {"top5", "%", RESULT(top5), false},
    {"loss", "", RESULT(loss), true},
    {"macro-f1", "", RESULT(macro_f1), false},
    {"weighted-f1", "", RESULT(weighted_f1), false},
    {"agreement", "%", RESULT(agreement), false},
    {"sqnr", " dB", RESULT(sqnr_db), false},
    {"cosine", "", RESULT(cosine), false},
    {"mse", "", RESULT(mse), true},
    {"psnr", " dB", RESULT(psnr_db), false},
};

const metric *metric_find(const char *name) {
    for (size_t i = 0; i < COUNT_OF(metrics); i++) {
        if (strcmp(metrics[i].name, name) == 0) {
            return &metrics[i];
        }
    }
    return NULL;
}

static double double_at(const kiln_evaluate_result *r, size_t at) {
    double value;
    memcpy(&value, (const char *)r + at, sizeof value);
    return value;
}

double metric_value(const kiln_evaluate_result *r, const metric *m) {
    return double_at(r, m->at);
}

static const char *number(const char *fmt, double x) {
    return isnan(x) ? "-" : isinf(x) ? "exact" : keepf(fmt, x);
}

static const char *percent(double share) {
    return number("%.2f %%", 100 * share);
}

const char *metric_text(const metric *m, double value) {
    return strcmp(m->unit, "%") == 0 ? percent(value) : keepf("%.4f%s", value, m->unit);
}

double paired_interval(const kiln_evaluate_result *r) {
    double n = (double)r->samples, differ = (double)(r->gained + r->lost);
    double net = (double)(r->gained - r->lost);
    return n > 0 ? 1.959964 * sqrt(differ - net * net / n) / n : NAN;
}

/* ---- The table ---- */

/* How a fact is written, and what is said of two of them. */
typedef enum form {
    SHARE,  /* 98.89 %; points */
    NUMBER, /* four digits; difference */
    COUNT,
    DECIBEL, /* of the second alone, as the next two */
    SMALL,
    AGREE,
    TIME, /* less is better: how many times faster */
    RATE, /* more is better */
    BYTES,
} form;

static const char *cell_text(form f, double x) {
    switch (f) {
    case SHARE:
    case AGREE:
        return percent(x);
    case COUNT:
        return keepf("%.0f", x);
    case DECIBEL:
        return number("%.1f dB", x);
    case SMALL:
        return number("%.3g", x);
    case TIME:
        return number("%.3f ms", x);
    case RATE:
        return isnan(x) ? "-" : count_text(x);
    case BYTES:
        return x > 0 ? bytes_text(x) : "-";
    default:
        return number("%.4f", x);
    }
}

static const char *change_text(form f, double from, double to) {
    if (isnan(from) || isnan(to)) {
        return "";
    }
    switch (f) {
    case SHARE:
        return keepf("%+.2f points", 100 * (to - from));
    case NUMBER:
        return keepf("%+.4f", to - from);
    case TIME:
        return to > 0 ? keepf("%.2fx as fast", from / to) : "";
    case RATE:
        return from > 0 ? keepf("%.2fx", to / from) : "";
    case BYTES:
        return from > 0 && to > 0 ? keepf("%.2fx", to / from) : "";
    default:
        return "";
    }
}

static void add_row(table *t, const eval_shown *e, const char *head, form f, double own,
                    double other) {
    table_cell(t, "%s", head);
    if (e->other) {
        bool compares = f == DECIBEL || f == SMALL || f == AGREE;
        table_cell(t, "%s", compares ? "" : cell_text(f, other));
        table_cell(t, "%s", cell_text(f, own));
        table_cell(t, "%s", compares ? "" : change_text(f, other, own));
    } else {
        table_cell(t, "%s", cell_text(f, own));
    }
}

/* Of a usual run: the first ones, which bind shapes and fill caches, do not count more. */
static double throughput(const kiln_evaluate_result *r) {
    return r->latency.median_ms > 0 ? 1e3 * (double)r->batch / r->latency.median_ms : NAN;
}

static double weights(const scored *n) {
    kiln_engine_info info;
    kiln_engine_get_info(n->s.engine, &info);
    return (double)info.weight_bytes;
}

static void add_accuracy(table *t, const eval_shown *e) {
    static const struct {
        const char *head;
        form f;
        size_t at;
        bool versus; /* for two networks alone */
    } rows[] = {
        {"top-1", SHARE, RESULT(top1), false},
        {"top-5", SHARE, RESULT(top5), false},
        {"loss", NUMBER, RESULT(loss), false},
        {"precision, macro", NUMBER, RESULT(macro_precision), false},
        {"recall, macro", NUMBER, RESULT(macro_recall), false},
        {"F1, macro", NUMBER, RESULT(macro_f1), false},
        {"precision, weighted", NUMBER, RESULT(weighted_precision), false},
        {"recall, weighted", NUMBER, RESULT(weighted_recall), false},
        {"F1, weighted", NUMBER, RESULT(weighted_f1), false},
        {"agreement", AGREE, RESULT(agreement), true},
        {"SQNR", DECIBEL, RESULT(sqnr_db), true},
        {"PSNR", DECIBEL, RESULT(psnr_db), true},
        {"mean squared error", SMALL, RESULT(mse), true},
        {"cosine", NUMBER, RESULT(cosine), true},
    };
    bool labelled = !isnan(e->n->r.top1);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        bool few = rows[i].at == RESULT(top5) && e->n->r.classes <= 5;
        if (rows[i].versus ? e->other != NULL : labelled && !few) {
            add_row(t, e, rows[i].head, rows[i].f == NUMBER && rows[i].versus ? SMALL : rows[i].f,
                    double_at(&e->n->r, rows[i].at),
                    e->other ? double_at(&e->other->r, rows[i].at) : NAN);
        }
    }
}

static void add_cost(table *t, const eval_shown *e) {
    const scored *n = e->n, *o = e->other ? e->other : e->n;
    add_row(t, e, "median of a run", TIME, n->r.latency.median_ms, o->r.latency.median_ms);
    add_row(t, e, "samples a run", COUNT, (double)n->r.batch, (double)o->r.batch);
    add_row(t, e, "samples a second", RATE, throughput(&n->r), throughput(&o->r));
    add_row(t, e, "weights", BYTES, weights(n), weights(o));
    add_row(t, e, "activations", BYTES, (double)n->memory_bytes, (double)o->memory_bytes);
    add_row(t, e, "engine file", BYTES, (double)n->file_bytes, (double)o->file_bytes);
}

/* A name as the head of a column: '|' separates them, '>' sets them right. */
static const char *head_text(const char *name) {
    char *text = keep(safe(name), strlen(safe(name)));
    for (char *p = text; *p; p++) {
        *p = *p == '|' ? '_' : *p;
    }
    return text;
}

/* Rows are labels, columns predictions. */
static void print_confusion(const cli *c, const scored *n) {
    int64_t classes = n->r.classes;
    const char *heads = keepf("%s: label", head_text(n->name));
    for (int64_t k = 0; k < classes; k++) {
        heads = keepf("%s|>%lld", heads, (long long)k);
    }
    table *t = table_new(keepf("%s|>precision|>recall|>F1", heads));
    for (int64_t i = 0; i < classes; i++) {
        double actual = 0, predicted = 0, hits = (double)n->confusion[i * classes + i];
        table_cell(t, "%lld", (long long)i);
        for (int64_t k = 0; k < classes; k++) {
            table_cell(t, "%lld", (long long)n->confusion[i * classes + k]);
            actual += (double)n->confusion[i * classes + k];
            predicted += (double)n->confusion[k * classes + i];
        }
        double sum = actual + predicted;
        table_cell(t, "%.4f", predicted > 0 ? hits / predicted : 0);
        table_cell(t, "%.4f", actual > 0 ? hits / actual : 0);
        table_cell(t, "%.4f", sum > 0 ? 2 * hits / sum : 0);
    }
    putchar('\n');
    table_print(t, c->format);
}

static const char *interval_text(const eval_shown *e) {
    return e->other && !isnan(e->n->r.top1)
               ? keepf(", %+.2f ± %.2f points (95 %%, paired)",
                       100 * (e->n->r.top1 - e->other->r.top1), 100 * paired_interval(&e->n->r))
               : "";
}

void show_scores(const cli *c, const eval_shown *e) {
    table *t =
        e->other
            ? table_new(keepf("|>%s|>%s|>change", head_text(e->other->name), head_text(e->n->name)))
            : table_new(keepf("|>%s", head_text(e->n->name)));
    double of = e->other ? (double)e->other->r.samples : 0;
    add_row(t, e, "samples", COUNT, (double)e->n->r.samples, of);
    add_accuracy(t, e);
    double nans = e->other ? (double)e->other->r.nan_samples : 0;
    if (e->n->r.nan_samples > 0 || nans > 0) {
        add_row(t, e, "samples with NaN", COUNT, (double)e->n->r.nan_samples, nans);
    }
    add_cost(t, e);
    table_print(t, c->format);
    for (int i = 0; i < 2; i++) {
        const scored *n = i == 0 ? e->other : e->n;
        if (n && n->confusion) {
            print_confusion(c, n);
        }
    }
    double value = metric_value(&e->n->r, e->metric);
    verdict(c, e->passed && !e->n->r.cancelled, "%s %s%s%s", e->metric->name,
            metric_text(e->metric, value), interval_text(e),
            e->n->r.cancelled ? " of what was seen, interrupted" : "");
}

/* ---- JSON ---- */

static void json_confusion(json *j, const scored *n) {
    int64_t classes = n->r.classes;
    json_key(j, "confusion");
    json_open(j, '[');
    for (int64_t i = 0; i < classes; i++) {
        json_open(j, '[');
        for (int64_t k = 0; k < classes; k++) {
            json_int(j, n->confusion[i * classes + k]);
        }
        json_close(j);
    }
    json_close(j);
}

static void json_scores(json *j, const scored *n) {
    const kiln_evaluate_result *r = &n->r;
    json_key_text(j, "model", n->name);
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
    json_key_number(j, "throughput_per_s", throughput(r));
    json_key_number(j, "weight_bytes", weights(n));
    json_key_int(j, "activation_bytes", (int64_t)n->memory_bytes);
    json_key_int(j, "engine_bytes", (int64_t)n->file_bytes);
    json_key_number(j, "total_walltime_ms", r->walltime_ms);
    if (n->confusion) {
        json_confusion(j, n);
    }
}

void show_scores_json(const cli *c, const eval_shown *e) {
    const kiln_evaluate_result *r = &e->n->r;
    json j = json_begin(c, "kiln.eval/1");
    json_key_text(&j, "data", e->data);
    json_scores(&j, e->n);
    if (e->other) {
        json_key(&j, "against");
        json_open(&j, '{');
        json_scores(&j, e->other);
        json_close(&j);
        json_key_number(&j, "agreement", r->agreement);
        json_key_number(&j, "sqnr_db", r->sqnr_db);
        json_key_number(&j, "cosine", r->cosine);
        json_key_number(&j, "mse", r->mse);
        json_key_number(&j, "psnr_db", r->psnr_db);
        json_key_int(&j, "gained", r->gained);
        json_key_int(&j, "lost", r->lost);
        json_key_number(&j, "top1_change_points", 100 * (r->top1 - e->other->r.top1));
        json_key_number(&j, "top1_change_interval_points", 100 * paired_interval(r));
    }
    json_key_text(&j, "preprocess", preprocess_text(c));
    json_key_bool(&j, "cancelled", r->cancelled);
    json_key_bool(&j, "passed", e->passed);
    json_machine(&j);
    json_end(&j);
}
