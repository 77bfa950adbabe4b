/* eval.h - what came of evaluating a network, alone or beside another, and how it is shown. */
#ifndef KILN_CLI_EVAL_H
#define KILN_CLI_EVAL_H

#include "cli.h"

/* A network and what came of it. */
typedef struct scored {
    session s;
    const char *name; /* head of its column */
    kiln_evaluate_result r;
    int64_t *confusion;              /* [classes, classes], NULL when not asked for */
    size_t memory_bytes, file_bytes; /* of a context; of an engine file, 0 without one */
} scored;

/* What the verdict is about. */
typedef struct metric {
    const char *name, *unit; /* "%": a share */
    size_t at;               /* in kiln_evaluate_result */
    bool less;               /* is better */
} metric;

/* The metric of that name, or NULL. */
const metric *metric_find(const char *name);
double metric_value(const kiln_evaluate_result *r, const metric *m);
const char *metric_text(const metric *m, double value);

/* 95 % of repetitions with other samples would find the difference of top-1 this near to the one
 * found: of paired samples only those that the two judge differently count. */
double paired_interval(const kiln_evaluate_result *r);

typedef struct eval_shown {
    const char *data;
    const metric *metric;
    bool passed;
    const scored *n, *other; /* other may be NULL */
} eval_shown;

/* One column for each network, and what changes from `other` to `n`. */
void show_scores(const cli *c, const eval_shown *e);
void show_scores_json(const cli *c, const eval_shown *e);

#endif
