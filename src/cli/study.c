/* study.c - what `sensitivity` and `search` share: from options to a study of layers. */
#include <stddef.h>

#include "quant.h"

/* The data to judge by. */
static int study_data(cli *c, quant_study *s) {
    bool known = quant_first_data(c, &s->data);
    s->eval = (kiln_calibrate_run){
        .size = sizeof s->eval, .data = c->eval_data, .preprocess = preprocess_text(c)};
    if (!known && !c->eval_data) {
        return usage_error(c, "--eval PATH, or a data set among --calib",
                           "`kiln %s` needs data to judge by", c->verb->name);
    }
    s->data = known ? s->data : s->eval;
    return 0;
}

static int calibrate(cli *c, quant_study *s, const char *path) {
    kiln_status status = kiln_model_load(&s->model, c->env, path, s->open.model, c->diag);
    if (status != KILN_OK) {
        return finish(c, status);
    }
    s->options.off = s->open.build->off;
    if (c->dry_run) {
        return 0;
    }
    s->made.smooth = true;
    int failed = quant_model(c, s->model, s->open.build, &s->options, &s->made);
    if (s->made.better) {
        kiln_model_destroy(s->model);
        s->model = s->made.better;
        s->made.better = NULL;
    }
    return failed;
}

int quant_study_begin(cli *c, const char *what, quant_study *out) {
    quant_study *s = out;
    const char *path = c->operands.items[0];
    int failed = session_options(c, path, &s->open);
    failed = failed ? failed : quant_options(c, NULL, &s->options);
    failed = failed ? failed : study_data(c, s);
    failed = failed ? failed : calibrate(c, s, path);
    if (failed != 0) {
        return failed;
    }
    quant_fix_calibrator(&s->options, &s->how, &s->made);
    s->progress = watch_progress(c, what);
    s->data.progress = s->eval.progress = &s->progress;
    s->study = (kiln_study_options){.size = sizeof s->study,
                                    .data = &s->data,
                                    .labels = s->data.data == c->eval_data ? c->eval_labels : NULL,
                                    .samples = c->layer_samples,
                                    .build = s->open.build,
                                    .threads = (int32_t)c->threads,
                                    .ranges = s->made.given,
                                    .state = c->state,
                                    .eval = c->eval_data ? &s->eval : NULL,
                                    .eval_labels = c->eval_labels,
                                    .eval_samples = c->eval_count};
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
