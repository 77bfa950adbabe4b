/* study.c - what `sensitivity` and `search` share: from options to a study of layers. */
#include <stddef.h>

#include "quant.h"

/* The data to judge by. */
static int study_data(cli *c, quant_study *s) {
    bool known = quant_first_data(c, &s->data);
    if (c->eval_data) {
        s->data = (kiln_calibrate_run){
            .size = sizeof s->data, .data = c->eval_data, .preprocess = preprocess_text(c)};
    } else if (!known) {
        return usage_error(c, "--eval PATH, or a data set among --calib",
                           "`kiln %s` needs data to judge by", c->verb->name);
    }
    return 0;
}

/* From here on ranges are found as auto has chosen. */
static void fix_calibrator(quant_study *s) {
    for (size_t i = 0; i < s->made.n_trials; i++) {
        const kiln_trial *t = &s->made.trials[i];
        if (t->chosen) {
            s->how.calibrator = t->calibrator;
            if (t->calibrator == KILN_CALIBRATOR_PERCENTILE) {
                s->how.percentiles = &t->percentile;
                s->how.n_percentiles = 1;
            }
        }
    }
    s->options.calibrate = &s->how;
}

static int calibrate(cli *c, quant_study *s, const char *path) {
    kiln_status status = kiln_model_load(&s->model, c->env, path, s->open.model, c->diag);
    if (status != KILN_OK) {
        return finish(c, status);
    }
    s->options.off = s->open.build->off;
    return c->dry_run ? 0 : quant_model(c, s->model, s->open.build, &s->options, &s->made);
}

int quant_study_begin(cli *c, const char *what, quant_study *out) {
    quant_study *s = out;
    const char *path = c->operands.items[0];
    int failed = session_options(c, path, &s->open);
    failed = failed ? failed : quant_options(c, NULL, &s->options);
    failed = failed ? failed : study_data(c, s);
    if (failed == 0) {
        s->how = *s->options.calibrate;
        failed = calibrate(c, s, path);
    }
    if (failed != 0) {
        return failed;
    }
    fix_calibrator(s);
    s->progress = watch_progress(c, what);
    s->data.progress = &s->progress;
    s->study = (kiln_study_options){.size = sizeof s->study,
                                    .data = &s->data,
                                    .labels = c->eval_data ? c->eval_labels : NULL,
                                    .samples = c->layer_samples,
                                    .build = s->open.build,
                                    .threads = (int32_t)c->threads,
                                    .ranges = s->made.given,
                                    .state = c->state};
    return 0;
}

void quant_study_free(quant_study *s) {
    quant_free(&s->made);
    kiln_model_destroy(s->model);
    s->model = NULL;
}

void quant_study_resume(cli *c, const kiln_study_options *o) {
    if (o->state) {
        say(c, KILN_LOG_WARN, "stopped; to go on: %s", c->command);
    } else {
        say(c, KILN_LOG_WARN, "stopped; --state FILE would keep what was measured");
    }
}
