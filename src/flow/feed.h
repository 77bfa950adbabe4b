/* feed.h - samples into the inputs of a context, batch by batch: of a data set, generated, or from
 * the caller's function.
 *
 *     kiln_feed *feed;
 *     kiln_feed_spec spec = {.data = "val/", .batch = 8};
 *     KILN_TRY(kiln_feed_open(&feed, engine, &spec, env, diag));
 *     kiln_fed fed;
 *     while ((status = kiln_feed_next(feed, &fed, diag)) == KILN_OK && fed.count > 0) {
 *         KILN_TRY(kiln_feed_bind(feed, context, diag));
 *         KILN_TRY(kiln_context_run(context, diag));      // fed.labels[i] of sample i
 *     }
 *     kiln_feed_close(feed);
 *
 * Samples are converted to the input's element type, given its rank where only dims of 1 differ,
 * and the last batch is filled up to the least first dim the network takes by repeating its last
 * sample. */
#ifndef KILN_FLOW_FEED_H
#define KILN_FLOW_FEED_H

#include "data/dataset.h"
#include "flow/flow.h"
#include "kiln/tools.h"

/* Strings are borrowed until the feed is closed. */
typedef struct kiln_feed_spec {
    const char *data; /* a data set as dataset.h lists them, or "random:N" */
    const char *kind; /* by name ["auto"] */
    const char *labels;
    const char *preprocess;
    const char *input; /* takes the samples of sets without names [the first] */
    int64_t count;     /* samples [all] */
    int64_t batch;     /* samples a run [the network's fixed batch, opt of its profile, else 1] */
    const kiln_shape *shape; /* what the first input's batches must have; first dim: `batch` */
    bool shuffle;
    uint64_t seed;
    kiln_sample_fn next; /* instead of `data` */
    void *user;
} kiln_feed_spec;

/* One batch: rows, of which the first `count` are samples; 0 at the end. */
typedef struct kiln_fed {
    int64_t count, rows;
    const kiln_labels *labels; /* [count], none each when the set has none */
} kiln_fed;

typedef struct kiln_feed kiln_feed;

/* Opens the samples for an engine. Errors: of reading data; USAGE when they do not fit the
 * inputs. */
kiln_status kiln_feed_open(kiln_feed **out, const kiln_engine *engine, const kiln_feed_spec *spec,
                           const kiln_env *env, kiln_diag *diag);
void kiln_feed_close(kiln_feed *feed);
/* Reads the next batch, which stays valid until the next call. */
kiln_status kiln_feed_next(kiln_feed *feed, kiln_fed *out, kiln_diag *diag);
/* Binds it to a context of the engine, or of one with the same inputs. */
kiln_status kiln_feed_bind(const kiln_feed *feed, kiln_context *context, kiln_diag *diag);
/* Its tensor for input i of the engine; NULL past the end. */
const kiln_tensor *kiln_feed_input(const kiln_feed *feed, size_t i);
/* Starts over with the same samples. Not for samples from a function. */
void kiln_feed_rewind(kiln_feed *feed);
/* Samples of one pass, -1 when not known; classes known by name, 0 when none; labels are there. */
int64_t kiln_feed_count(const kiln_feed *feed);
int64_t kiln_feed_classes(const kiln_feed *feed);
bool kiln_feed_has_labels(const kiln_feed *feed);
/* Samples a run. */
int64_t kiln_feed_batch(const kiln_feed *feed);

#endif
