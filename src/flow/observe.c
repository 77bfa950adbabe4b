#include "flow/observe.h"

typedef struct job {
    const kiln_engine *engine;
    kiln_context *context;
    const kiln_calibrate_run *run;
    const kiln_observe_fns *fns;
    kiln_diag *diag;
} job;

static bool wants(void *user, const char *name) {
    const job *j = user;
    return j->fns->wants(j->fns->user, name);
}

static kiln_status see(void *user, const char *name, const char *node, const kiln_tensor *tensor,
                       bool replayed) {
    const job *j = user;
    (void)node;
    (void)replayed;
    return j->fns->see(j->fns->user, name, tensor);
}

/* The samples of a batch's tensor, without what fills it up. */
static kiln_tensor samples_of(const kiln_tensor *t, const kiln_fed *fed) {
    kiln_tensor part = *t;
    if (part.rank > 0 && part.dims[0] == fed->rows) {
        part.dims[0] = fed->count;
    }
    return part;
}

/* Graph inputs are no results of a step: they are seen as they are bound. */
static kiln_status see_inputs(const job *j, const kiln_feed *feed, const kiln_fed *fed) {
    kiln_io in;
    for (size_t i = 0; kiln_engine_input(j->engine, i, &in); i++) {
        if (j->fns->wants(j->fns->user, in.name)) {
            kiln_tensor part = samples_of(kiln_feed_input(feed, i), fed);
            KILN_TRY(j->fns->see(j->fns->user, in.name, &part));
        }
    }
    return KILN_OK;
}

static kiln_status run_all(const job *j, kiln_feed *feed) {
    int64_t total = kiln_feed_count(feed), done = 0;
    for (;;) {
        kiln_fed fed;
        KILN_TRY(kiln_feed_next(feed, &fed, j->diag));
        if (fed.count == 0) {
            return KILN_OK;
        }
        KILN_TRY(kiln_feed_bind(feed, j->context, j->diag));
        KILN_TRY(kiln_context_run(j->context, j->diag));
        KILN_TRY(see_inputs(j, feed, &fed));
        if (j->fns->ran) {
            j->fns->ran(j->fns->user, feed, &fed);
        }
        done += fed.count;
        const kiln_progress *p = j->run->progress;
        if (p && !p->step(p->user, total > 0 ? (double)done / (double)total : -1)) {
            return KILN_E_CANCELLED;
        }
    }
}

kiln_status kiln_observe(const kiln_engine *engine, kiln_context *context, const kiln_env *env,
                         const kiln_calibrate_run *run, const kiln_observe_fns *fns,
                         kiln_diag *diag) {
    const job j = {engine, context, run, fns, diag};
    const kiln_feed_spec spec = {.data = run->data,
                                 .preprocess = run->preprocess,
                                 .input = run->input,
                                 .count = run->count,
                                 .batch = run->batch,
                                 .shuffle = run->shuffle,
                                 .seed = run->seed,
                                 .next = run->next,
                                 .user = run->user};
    kiln_feed *feed = NULL;
    KILN_TRY(kiln_feed_open(&feed, engine, &spec, env, diag));
    const kiln_tap tap = {.wants = wants, .see = see, .user = (void *)&j};
    kiln_context_set_tap(context, &tap);
    kiln_status status = run_all(&j, feed);
    kiln_context_set_tap(context, NULL);
    kiln_feed_close(feed);
    return status;
}
