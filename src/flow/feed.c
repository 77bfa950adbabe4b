/* feed.c - samples into the inputs of a context. */
#include "flow/feed.h"

#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "onnx/onnx.h"
#include "ops/util.h"

/* Where the samples of one input come from. */
typedef struct channel {
    kiln_io io;
    int32_t array;    /* of the set */
    kiln_tensor last; /* of the last batch */
} channel;

struct kiln_feed {
    const kiln_env *env;
    kiln_feed_spec spec;
    kiln_arena arena;
    kiln_arena scratch; /* of one batch */
    kiln_dataset *set;  /* or: */
    int64_t random;     /* samples to generate */
    kiln_tensors *drawn;
    int64_t done;
    kiln_io in; /* takes the samples of a set without names */
    channel *channels;
    size_t n_channels, cap_channels;
    int64_t batch;       /* samples a run */
    int64_t least_batch; /* shorter batches are filled up to it */
};

static kiln_status choose_input(kiln_feed *f, const kiln_engine *engine, kiln_diag *diag) {
    const char *name = f->spec.input;
    kiln_io io;
    for (size_t i = 0; kiln_engine_input(engine, i, &io); i++) {
        if (name ? strcmp(io.name, name) == 0 : i == 0) {
            f->in = io;
            return KILN_OK;
        }
    }
    return kiln_fail(diag, KILN_F_RUN_INPUT, "there is no input \"%s\"", name ? name : "");
}

/* ---- The set ---- */

/* The kind by its name; raw samples have the input's type and dims. */
static kiln_status choose_kind(const kiln_feed *f, kiln_dataset_spec *set, kiln_diag *diag) {
    const char *kind = f->spec.kind ? f->spec.kind : kiln_dataset_kind_name(KILN_DATASET_AUTO);
    while (set->kind < KILN_DATASET_KINDS && strcmp(kind, kiln_dataset_kind_name(set->kind)) != 0) {
        set->kind++;
    }
    if (set->kind == KILN_DATASET_KINDS) {
        return kiln_fail(diag, KILN_F_OPTION, "no kind of data set is called \"%s\"", kind);
    }
    if (set->kind != KILN_DATASET_RAW) {
        return KILN_OK;
    }
    set->dtype = f->in.dtype;
    set->rank = f->in.rank - 1;
    for (int32_t d = 1; d < f->in.rank; d++) {
        set->dims[d - 1] = f->in.dims[d];
        if (f->in.dims[d] < 0) {
            set->rank = -1;
        }
    }
    if (set->rank < 1) {
        return kiln_hint(diag,
                         kiln_fail(diag, KILN_F_DATA_MISSING,
                                   "raw samples have the dims of input \"%s\", which are not known",
                                   f->in.name),
                         "--override-shape %s:... gives them", f->in.name);
    }
    return KILN_OK;
}

static kiln_status decode_pb(kiln_tensor *out, const char **name, const void *bytes, size_t len,
                             kiln_arena *arena, kiln_diag *diag) {
    return kiln_tensor_from_pb(out, name, bytes, len, arena, arena->env, diag);
}

static kiln_status open_set(kiln_feed *f, kiln_diag *diag) {
    kiln_dataset_spec set = {.path = f->spec.data,
                             .labels = f->spec.labels,
                             .input = f->in.name,
                             .count = f->spec.count,
                             .shuffle = f->spec.shuffle,
                             .seed = f->spec.seed,
                             .decode = decode_pb};
    if (f->spec.preprocess) {
        KILN_TRY(kiln_preprocess_parse(&set.preprocess, f->spec.preprocess, diag));
    }
    KILN_TRY(choose_kind(f, &set, diag));
    return kiln_dataset_open(&f->set, &set, f->env, diag);
}

/* "random:N" draws uniformly from [0, 1). */
static kiln_status open_random(kiln_feed *f, const char *text, kiln_diag *diag) {
    char *end;
    f->random = strtoll(text, &end, 10);
    if (end == text || *end || f->random < 1 || f->random > INT32_MAX) {
        return kiln_fail(diag, KILN_F_OPTION, "\"random:%s\" states no number of samples", text);
    }
    kiln_warn(diag, KILN_F_DATA_MISSING,
              "the samples are random numbers: what they calibrate or measure says nothing about "
              "real data");
    return KILN_OK;
}

static kiln_status open_source(kiln_feed *f, kiln_diag *diag) {
    static const char random[] = "random:";
    if (f->spec.next) {
        return KILN_OK;
    }
    if (!f->spec.data) {
        return kiln_fail(diag, KILN_F_OPTION, "no data set is given");
    }
    return strncmp(f->spec.data, random, sizeof random - 1) == 0
               ? open_random(f, f->spec.data + sizeof random - 1, diag)
               : open_set(f, diag);
}

/* ---- Arrays to inputs ---- */

/* The names of the set's arrays, for messages. */
static const char *array_names(kiln_feed *f) {
    const char *text = NULL;
    for (int32_t k = 0; k < kiln_dataset_inputs(f->set); k++) {
        const char *name = kiln_dataset_input(f->set, k);
        text = text ? kiln_arena_printf(&f->arena, "%s, %s", text, name) : name;
        if (!text) {
            return "";
        }
    }
    return text ? text : "";
}

/* By name; arrays that stand in the inputs' order take their names from it, and the input chosen
 * takes the only array whatever it is called. number: of the input. */
static kiln_status find_array(kiln_feed *f, const kiln_io *io, size_t number, int32_t *out,
                              kiln_diag *diag) {
    int32_t n = kiln_dataset_inputs(f->set), array = 0;
    while (array < n && strcmp(kiln_dataset_input(f->set, array), io->name) != 0) {
        array++;
    }
    if (array == n && n == 1 && strcmp(io->name, f->in.name) == 0) {
        array = 0;
    }
    if (array == n && kiln_dataset_is_ordered(f->set) && (int32_t)number < n) {
        array = (int32_t)number;
    }
    if (array == n) {
        return kiln_hint(diag,
                         kiln_fail(diag, KILN_F_DATA_MISSING,
                                   "the data set has no array for input \"%s\"", io->name),
                         "it has %s", array_names(f));
    }
    *out = array;
    return KILN_OK;
}

static kiln_status choose_channels(kiln_feed *f, const kiln_engine *engine, kiln_diag *diag) {
    kiln_io io;
    for (size_t i = 0; kiln_engine_input(engine, i, &io); i++) {
        channel c = {.io = io, .array = -1};
        if (io.is_sequence) {
            return kiln_fail(diag, KILN_F_RUN_INPUT,
                             "input \"%s\" is a sequence, which no data set fills", io.name);
        }
        if (f->set) {
            KILN_TRY(find_array(f, &io, i, &c.array, diag));
        }
        KILN_PUSH(&f->arena, f->channels, f->n_channels, f->cap_channels, c);
    }
    if (f->set && (int32_t)f->n_channels < kiln_dataset_inputs(f->set)) {
        kiln_warn(diag, KILN_F_DATA_MISSING, "%d arrays of the data set are no input's",
                  kiln_dataset_inputs(f->set) - (int32_t)f->n_channels);
    }
    return KILN_OK;
}

/* The fixed first dim of any input, or -1. */
static kiln_status fixed_batch(const kiln_feed *f, int64_t *out, kiln_diag *diag) {
    *out = -1;
    for (size_t i = 0; i < f->n_channels; i++) {
        const kiln_io *io = &f->channels[i].io;
        int64_t first = io->rank > 0 ? io->dims[0] : -1;
        if (*out > 0 && first > 0 && first != *out) {
            return kiln_fail(diag, KILN_F_DATA_MISSING,
                             "the first dims of the inputs are %lld and %lld, so that they count "
                             "no samples",
                             (long long)*out, (long long)first);
        }
        *out = first > 0 ? first : *out;
    }
    return KILN_OK;
}

static kiln_status choose_batch(kiln_feed *f, kiln_diag *diag) {
    const kiln_shape *s = f->spec.shape;
    if (s && (s->rank < 1 || s->rank > KILN_MAX_RANK)) {
        return kiln_fail(diag, KILN_F_OPTION, "a shape of rank %d has no batch", s->rank);
    }
    int64_t fixed, asked = f->spec.batch > 0 || !s ? f->spec.batch : s->dims[0];
    KILN_TRY(fixed_batch(f, &fixed, diag));
    bool has_range = f->in.has_range && f->in.rank > 0;
    int64_t usual = has_range && f->in.opt[0] > 0 ? f->in.opt[0] : 1;
    f->least_batch = fixed > 0 ? fixed : has_range ? f->in.min[0] : 0;
    f->batch = fixed > 0 ? fixed : asked > 0 ? asked : usual;
    if (fixed > 0 && asked > 0 && asked != fixed) {
        return kiln_hint(diag,
                         kiln_fail(diag, KILN_F_OPTION, "the network's batch is %lld, not %lld",
                                   (long long)fixed, (long long)asked),
                         "--override-shape changes the shape of a model");
    }
    return KILN_OK;
}

static kiln_status open_all(kiln_feed *f, const kiln_engine *engine, kiln_diag *diag) {
    KILN_TRY(choose_input(f, engine, diag));
    KILN_TRY(open_source(f, diag));
    KILN_TRY(choose_channels(f, engine, diag));
    return choose_batch(f, diag);
}

kiln_status kiln_feed_open(kiln_feed **out, const kiln_engine *engine, const kiln_feed_spec *spec,
                           const kiln_env *env, kiln_diag *diag) {
    kiln_feed *f = kiln_env_alloc(env, sizeof *f);
    if (!f) {
        return kiln_diag_close(diag, KILN_E_MEMORY);
    }
    memset(f, 0, sizeof *f);
    f->env = env;
    f->spec = *spec;
    kiln_arena_init(&f->arena, env);
    kiln_arena_init(&f->scratch, env);
    kiln_status status = open_all(f, engine, diag);
    if (status != KILN_OK) {
        kiln_feed_close(f);
        return kiln_diag_close(diag, status);
    }
    *out = f;
    return KILN_OK;
}

void kiln_feed_close(kiln_feed *feed) {
    if (!feed) {
        return;
    }
    if (feed->set) {
        kiln_dataset_close(feed->set);
    }
    kiln_tensors_destroy(feed->drawn);
    kiln_arena_free(&feed->scratch);
    kiln_arena_free(&feed->arena);
    kiln_env_release(feed->env, feed, sizeof *feed);
}

/* ---- One batch ---- */

/* Gives the batch the input's rank where only dims of 1 are missing or too many: [n,8,8] for
 * [N,1,8,8]. */
static kiln_status fit_dims(const kiln_io *in, kiln_tensor *t, kiln_diag *diag) {
    if (in->rank < 1 || in->rank == t->rank) {
        return KILN_OK;
    }
    int64_t dims[KILN_MAX_RANK];
    int32_t from = 1;
    dims[0] = t->dims[0];
    for (int32_t d = 1; d < in->rank; d++) {
        bool same = from < t->rank && (in->dims[d] < 0 || t->dims[from] == in->dims[d]);
        dims[d] = same ? t->dims[from] : 1;
        from += same;
    }
    kiln_tensor fitted = *t;
    fitted.rank = in->rank;
    memcpy(fitted.dims, dims, (size_t)in->rank * sizeof dims[0]);
    if (kiln_tensor_count(&fitted) != kiln_tensor_count(t)) {
        return kiln_fail(diag, KILN_F_DATA_MISSING,
                         "samples of rank %d do not fit input \"%s\" of rank %d", t->rank - 1,
                         in->name, in->rank);
    }
    *t = fitted;
    return KILN_OK;
}

/* The samples, once they fit the first input, have the shape asked for. */
static kiln_status check_shape(const kiln_feed *f, const kiln_tensor *t, kiln_diag *diag) {
    const kiln_shape *s = f->spec.shape;
    if (s && s->rank != t->rank) {
        return kiln_fail(diag, KILN_F_RUN_SHAPE, "the samples have rank %d, the shape given %d",
                         t->rank, s->rank);
    }
    for (int32_t d = 1; s && d < s->rank; d++) {
        if (s->dims[d] >= 0 && s->dims[d] != t->dims[d]) {
            return kiln_hint(diag,
                             kiln_fail(diag, KILN_F_RUN_SHAPE,
                                       "the samples have dim %d = %lld, the shape given %lld", d,
                                       (long long)t->dims[d], (long long)s->dims[d]),
                             "pictures are brought to a size by --resize and --crop");
        }
    }
    return KILN_OK;
}

/* A short last batch repeats its last sample up to the least that the network takes. */
static kiln_status fill_up(kiln_feed *f, kiln_tensor *t) {
    if (t->rank < 1 || t->dims[0] >= f->least_batch) {
        return KILN_OK;
    }
    size_t have = kiln_tensor_bytes(t), one = have / (size_t)t->dims[0];
    kiln_tensor full = *t;
    full.dims[0] = f->least_batch;
    full.cap_bytes = kiln_tensor_bytes(&full);
    full.data = full.cap_bytes == SIZE_MAX ? NULL : kiln_arena_raw(&f->scratch, full.cap_bytes);
    if (!full.data) {
        return KILN_E_MEMORY;
    }
    memcpy(full.data, t->data, have);
    for (size_t at = have; at < full.cap_bytes; at += one) {
        memcpy((char *)full.data + at, (const char *)t->data + have - one, one);
    }
    *t = full;
    return KILN_OK;
}

static kiln_status fit(kiln_feed *f, channel *c, const kiln_tensor *from, kiln_diag *diag) {
    KILN_TRY(kiln_tensor_cast(&c->last, from, c->io.dtype, &f->scratch, diag));
    KILN_TRY(fit_dims(&c->io, &c->last, diag));
    if (strcmp(c->io.name, f->in.name) == 0) {
        KILN_TRY(check_shape(f, &c->last, diag));
    }
    return fill_up(f, &c->last);
}

/* The samples of a batch that the set has whole: the first dim that all inputs share, else one. */
static int64_t rows_of(const kiln_feed *f) {
    int64_t rows = -1;
    for (size_t i = 0; i < f->n_channels; i++) {
        const kiln_tensor *t = &f->channels[i].last;
        int64_t first = t->rank > 0 && t->dims[0] > 0 ? t->dims[0] : 1;
        rows = rows < 0 || rows == first ? first : 1;
    }
    return rows;
}

static kiln_status next_of_set(kiln_feed *f, kiln_fed *out, kiln_diag *diag) {
    kiln_batch b = {0};
    bool whole = kiln_dataset_has_batches(f->set);
    if (!whole || f->spec.count <= 0 || f->done < f->spec.count) {
        KILN_TRY(kiln_dataset_next(f->set, f->batch, &b, diag));
    }
    for (size_t i = 0; i < f->n_channels && b.count > 0; i++) {
        KILN_TRY(fit(f, &f->channels[i], &b.inputs[f->channels[i].array], diag));
    }
    *out = (kiln_fed){b.count, b.count < f->least_batch ? f->least_batch : b.count, b.labels};
    if (whole && b.count > 0) {
        int64_t left = f->spec.count > 0 ? f->spec.count - f->done : INT64_MAX;
        out->rows = rows_of(f);
        out->count = out->rows < left ? out->rows : left;
    }
    return KILN_OK;
}

/* The tensors of one batch, new each time. */
static kiln_status begin_batch(kiln_feed *f) {
    kiln_tensors_destroy(f->drawn);
    f->drawn = NULL;
    return kiln_tensors_create(&f->drawn, f->env);
}

static kiln_status take_drawn(kiln_feed *f, kiln_diag *diag) {
    for (size_t i = 0; i < f->n_channels; i++) {
        channel *c = &f->channels[i];
        const kiln_tensor *t = kiln_tensors_find(f->drawn, c->io.name);
        if (!t) {
            return kiln_fail(diag, KILN_F_DATA_MISSING, "a sample has nothing for input \"%s\"",
                             c->io.name);
        }
        c->last = *t;
    }
    return KILN_OK;
}

static kiln_status next_random(kiln_feed *f, kiln_fed *out, kiln_diag *diag) {
    int64_t left = f->random - f->done, count = left < f->batch ? left : f->batch;
    *out = (kiln_fed){count, count < f->least_batch ? f->least_batch : count, NULL};
    if (count <= 0) {
        return KILN_OK;
    }
    KILN_TRY(begin_batch(f));
    for (size_t i = 0; i < f->n_channels; i++) {
        kiln_generate_options g = {
            .size = sizeof g, .seed = f->spec.seed + (uint64_t)f->done + 1, .batch = out->rows};
        KILN_TRY(kiln_tensors_generate(f->drawn, &f->channels[i].io, &g, diag));
    }
    return take_drawn(f, diag);
}

static kiln_status next_given(kiln_feed *f, kiln_fed *out, kiln_diag *diag) {
    *out = (kiln_fed){0};
    if (f->spec.count > 0 && f->done >= f->spec.count) {
        return KILN_OK;
    }
    KILN_TRY(begin_batch(f));
    KILN_TRY(f->spec.next(f->spec.user, f->drawn, diag));
    if (kiln_tensors_count(f->drawn) == 0) {
        return KILN_OK;
    }
    KILN_TRY(take_drawn(f, diag));
    const kiln_tensor *first = kiln_tensors_find(f->drawn, f->in.name);
    out->count = first->rank > 0 ? first->dims[0] : 1;
    out->rows = out->count;
    return KILN_OK;
}

kiln_status kiln_feed_bind(const kiln_feed *feed, kiln_context *context, kiln_diag *diag) {
    for (size_t i = 0; i < feed->n_channels; i++) {
        const channel *c = &feed->channels[i];
        KILN_TRY(kiln_context_bind(context, c->io.name, &c->last, diag));
    }
    return KILN_OK;
}

kiln_status kiln_feed_next(kiln_feed *feed, kiln_fed *out, kiln_diag *diag) {
    kiln_arena_recycle(&feed->scratch);
    KILN_TRY(feed->spec.next ? next_given(feed, out, diag)
             : feed->set     ? next_of_set(feed, out, diag)
                             : next_random(feed, out, diag));
    feed->done += out->count;
    return KILN_OK;
}

const kiln_tensor *kiln_feed_input(const kiln_feed *feed, size_t i) {
    return i < feed->n_channels ? &feed->channels[i].last : NULL;
}

void kiln_feed_rewind(kiln_feed *feed) {
    feed->done = 0;
    if (feed->set) {
        kiln_dataset_rewind(feed->set);
    }
}

int64_t kiln_feed_count(const kiln_feed *feed) {
    if (feed->set) {
        return kiln_dataset_has_batches(feed->set) ? -1 : kiln_dataset_count(feed->set);
    }
    return feed->random > 0 ? feed->random : -1;
}

int64_t kiln_feed_classes(const kiln_feed *feed) {
    return feed->set ? kiln_dataset_classes(feed->set) : 0;
}

bool kiln_feed_has_labels(const kiln_feed *feed) {
    return feed->set && kiln_dataset_has_labels(feed->set);
}

int64_t kiln_feed_batch(const kiln_feed *feed) {
    return feed->batch;
}
