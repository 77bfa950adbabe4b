/* dataset.c - telling the kind of a data set, the order of its samples, and batches (dataset.h). */
#include "data/dataset.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/env.h"
#include "data/dataset_impl.h"
#include "data/input.h"

static const char *const kind_names[KILN_DATASET_KINDS] = {
    [KILN_DATASET_AUTO] = "auto",   [KILN_DATASET_NPZ] = "npz",
    [KILN_DATASET_NPY] = "npy",     [KILN_DATASET_IDX] = "idx",
    [KILN_DATASET_CIFAR] = "cifar", [KILN_DATASET_IMAGES] = "images",
    [KILN_DATASET_RAW] = "raw",     [KILN_DATASET_POLYGRAPHY] = "polygraphy",
    [KILN_DATASET_ZIP] = "zip",     [KILN_DATASET_PB] = "pb",
};

const char *kiln_dataset_kind_name(kiln_dataset_kind kind) {
    return (uint32_t)kind < KILN_DATASET_KINDS ? kind_names[kind] : "?";
}

/* What serves each kind when the path is a file, and when it is a folder. */
static const struct {
    const kiln_dataset_ops *file;
    const kiln_dataset_ops *folder;
} kind_ops[KILN_DATASET_KINDS] = {
    [KILN_DATASET_NPZ] = {&kiln_dataset_npz, NULL},
    [KILN_DATASET_NPY] = {&kiln_dataset_npy, &kiln_dataset_files},
    [KILN_DATASET_IDX] = {&kiln_dataset_idx, &kiln_dataset_idx},
    [KILN_DATASET_CIFAR] = {&kiln_dataset_cifar, NULL},
    [KILN_DATASET_IMAGES] = {&kiln_dataset_files, &kiln_dataset_files},
    [KILN_DATASET_RAW] = {&kiln_dataset_raw, &kiln_dataset_files},
    [KILN_DATASET_POLYGRAPHY] = {&kiln_dataset_polygraphy, NULL},
    [KILN_DATASET_ZIP] = {&kiln_dataset_zip, NULL},
    [KILN_DATASET_PB] = {&kiln_dataset_pb, &kiln_dataset_pb},
};

/* ---- Kind ---- */

static bool name_has(const char *name, const char *part) {
    const char *slash = strrchr(name, '/');
    return strstr(slash ? slash + 1 : name, part) != NULL;
}

/* A file's kind by its name, a trailing .gz aside. */
static kiln_dataset_kind file_kind(const char *path, const kiln_dataset_spec *spec) {
    static const struct {
        const char *ending;
        kiln_dataset_kind kind;
    } endings[] = {
        {".npz", KILN_DATASET_NPZ},         {".npy", KILN_DATASET_NPY},
        {".json", KILN_DATASET_POLYGRAPHY}, {"-ubyte", KILN_DATASET_IDX},
        {"-ubyte.gz", KILN_DATASET_IDX},    {".idx", KILN_DATASET_IDX},
        {".idx.gz", KILN_DATASET_IDX},      {".raw", KILN_DATASET_RAW},
        {".zip", KILN_DATASET_ZIP},         {".pb", KILN_DATASET_PB},
    };
    for (size_t i = 0; i < KILN_COUNT_OF(endings); ++i) {
        if (kiln_ends_with(path, endings[i].ending)) {
            return endings[i].kind;
        }
    }
    if (kiln_ends_with(path, ".bin") || kiln_ends_with(path, ".bin.gz")) {
        return spec->rank > 0 ? KILN_DATASET_RAW : KILN_DATASET_CIFAR;
    }
    if (name_has(path, "-idx") || name_has(path, ".idx")) {
        return KILN_DATASET_IDX;
    }
    return kiln_image_name(path) ? KILN_DATASET_IMAGES : KILN_DATASET_AUTO;
}

/* A folder's kind by the first name in it that tells one; subfolders mean classes of pictures. */
static kiln_status folder_kind(kiln_dataset_kind *out, kiln_dataset *ds, kiln_diag *diag) {
    kiln_name_list names;
    kiln_arena_mark mark = kiln_arena_here(&ds->scratch);
    *out = KILN_DATASET_AUTO;
    KILN_TRY(kiln_list_folder(&names, ds->spec.path, false, &ds->scratch, diag));
    for (size_t i = 0; i < names.count && *out == KILN_DATASET_AUTO; ++i) {
        kiln_dataset_kind kind = file_kind(names.items[i], &ds->spec);
        kind = kiln_ends_with(names.items[i], ".bin") ? KILN_DATASET_RAW : kind;
        *out = kind_ops[kind].folder ? kind : KILN_DATASET_AUTO;
    }
    if (*out == KILN_DATASET_AUTO) {
        KILN_TRY(kiln_list_folder(&names, ds->spec.path, true, &ds->scratch, diag));
        bool pb = kiln_holds_pb_batches(ds->spec.path, &names, &ds->scratch);
        *out = pb ? KILN_DATASET_PB : names.count > 0 ? KILN_DATASET_IMAGES : KILN_DATASET_AUTO;
    }
    kiln_arena_rewind(&ds->scratch, mark);
    return KILN_OK;
}

static kiln_status choose_kind(kiln_dataset *ds, kiln_diag *diag) {
    bool folder = kiln_is_folder(ds->spec.path);
    struct stat st;
    if (stat(ds->spec.path, &st) != 0) {
        return kiln_fail(diag, KILN_F_FILE_OPEN, "cannot open \"%s\": there is no such file",
                         ds->spec.path);
    }
    kiln_dataset_kind kind = ds->spec.kind;
    if (kind == KILN_DATASET_AUTO && folder) {
        KILN_TRY(folder_kind(&kind, ds, diag));
    } else if (kind == KILN_DATASET_AUTO) {
        kind = file_kind(ds->spec.path, &ds->spec);
    }
    if (kind == KILN_DATASET_AUTO || (uint32_t)kind >= KILN_DATASET_KINDS) {
        return kiln_hint(
            diag,
            kiln_fail(diag, KILN_F_DATA_MISSING, "\"%s\" is no data set of a known kind",
                      ds->spec.path),
            "known are .npz, .npy, IDX, CIFAR .bin, raw .bin with dims, Polygraphy JSON, "
            "ONNX .pb, pictures, and folders or .zip archives of them");
    }
    ds->spec.kind = kind;
    ds->ops = folder ? kind_ops[kind].folder : kind_ops[kind].file;
    if (!ds->ops) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "a %s data set is a file, \"%s\" is a folder",
                         kind_names[kind], ds->spec.path);
    }
    return KILN_OK;
}

/* ---- Order ---- */

/* SplitMix64 (Steele, Lea, Flood 2014): state += golden ratio, then a finaliser. */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int compare_i64(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Fisher-Yates from the front: for k = 0 .. count-1, swap item k with item k + r mod (total - k),
 * where r is the generator's next number. The bias of mod is below 2^-30 for any set that fits. */
static kiln_status draw_order(kiln_dataset *ds, kiln_diag *diag) {
    int64_t *all;
    KILN_ALLOC(all, &ds->arena, ds->total);
    for (int64_t i = 0; i < ds->total; ++i) {
        all[i] = i;
    }
    uint64_t state = ds->spec.seed;
    for (int64_t k = 0; k < ds->count; ++k) {
        int64_t pick = k + (int64_t)(next_random(&state) % (uint64_t)(ds->total - k));
        int64_t t = all[k];
        all[k] = all[pick];
        all[pick] = t;
    }
    if (ds->sequential) {
        qsort(all, (size_t)ds->count, sizeof *all, compare_i64);
        kiln_note(
            diag, KILN_F_DATA_MISSING,
            "compressed data is read in one direction: the samples drawn are visited in order");
    }
    ds->order = all;
    return KILN_OK;
}

/* ---- Open and close ---- */

static kiln_status copy_spec(kiln_dataset *ds, const kiln_dataset_spec *spec) {
    ds->spec = *spec;
    const char **texts[] = {&ds->spec.path, &ds->spec.labels, &ds->spec.classes, &ds->spec.input};
    for (size_t i = 0; i < KILN_COUNT_OF(texts); ++i) {
        const char *given = *texts[i];
        *texts[i] = given ? kiln_arena_text(&ds->arena, given, strlen(given)) : NULL;
        if (given && !*texts[i]) {
            return KILN_E_MEMORY;
        }
    }
    ds->spec.input = ds->spec.input ? ds->spec.input : "input";
    ds->spec.dtype = ds->spec.dtype == KILN_DTYPE_NONE ? KILN_DTYPE_F32 : ds->spec.dtype;
    return KILN_OK;
}

static kiln_status open_set(kiln_dataset *ds, const kiln_dataset_spec *spec, kiln_diag *diag) {
    if (!spec->path || spec->count < 0) {
        return kiln_fail(diag, KILN_F_OPTION, "a data set needs a path and a count of 0 or more");
    }
    KILN_TRY(copy_spec(ds, spec));
    KILN_TRY(kiln_preprocess_check(&ds->spec.preprocess, diag));
    KILN_TRY(choose_kind(ds, diag));
    if (ds->spec.classes) {
        KILN_TRY(kiln_read_classes(ds, ds->spec.classes, diag));
    }
    KILN_TRY(ds->ops->open(ds, diag));
    if (ds->total < 1) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "\"%s\" holds no sample", ds->spec.path);
    }
    ds->count = spec->count > 0 && spec->count < ds->total ? spec->count : ds->total;
    return ds->spec.shuffle ? draw_order(ds, diag) : KILN_OK;
}

kiln_status kiln_dataset_open(kiln_dataset **out, const kiln_dataset_spec *spec,
                              const kiln_env *env, kiln_diag *diag) {
    kiln_dataset *ds = kiln_env_alloc(env, sizeof *ds);
    if (!ds) {
        return KILN_E_MEMORY;
    }
    memset(ds, 0, sizeof *ds);
    kiln_arena_init(&ds->arena, env);
    kiln_arena_init(&ds->batch, env);
    kiln_arena_init(&ds->scratch, env);
    kiln_status status = open_set(ds, spec, diag);
    kiln_diag_at_file(diag, NULL);
    if (status != KILN_OK) {
        kiln_dataset_close(ds);
        return status;
    }
    *out = ds;
    return KILN_OK;
}

void kiln_dataset_close(kiln_dataset *ds) {
    if (!ds) {
        return;
    }
    if (ds->ops && ds->ops->close) {
        ds->ops->close(ds);
    }
    kiln_arena_free(&ds->scratch);
    kiln_arena_free(&ds->batch);
    kiln_arena_free(&ds->arena);
    kiln_env_release(ds->arena.env, ds, sizeof *ds);
}

/* ---- Batches ---- */

typedef struct stack {
    kiln_tensor *inputs;
    kiln_labels *labels;
    const char **sources;
} stack;

/* Room for `n` samples like `sample`, which becomes dim 0. */
static kiln_status make_stack(stack *s, kiln_dataset *ds, const kiln_sample *sample, int64_t n,
                              kiln_diag *diag) {
    KILN_ALLOC(s->inputs, &ds->batch, ds->input_count);
    KILN_ALLOC(s->labels, &ds->batch, n);
    KILN_ALLOC(s->sources, &ds->batch, n);
    for (int32_t i = 0; i < ds->input_count; ++i) {
        const kiln_tensor *one = &sample->inputs[i];
        kiln_tensor *t = &s->inputs[i];
        *t = *one;
        if (!ds->whole_batches) {
            if (one->rank == KILN_MAX_RANK) {
                return kiln_fail(diag, KILN_F_DATA_LIMIT, "samples of %d dims cannot be batched",
                                 one->rank);
            }
            t->rank = one->rank + 1;
            t->dims[0] = n;
            memcpy(t->dims + 1, one->dims, (size_t)one->rank * sizeof *one->dims);
        }
        t->cap_bytes = kiln_tensor_bytes(t);
        if (t->cap_bytes > kiln_env_limits(ds->arena.env)->tensor_bytes) {
            return kiln_fail(diag, KILN_F_DATA_LIMIT,
                             "a batch of %" PRId64 " samples is over the "
                             "tensor limit",
                             n);
        }
        t->data = kiln_arena_raw(&ds->batch, t->cap_bytes);
        if (!t->data) {
            return KILN_E_MEMORY;
        }
    }
    return KILN_OK;
}

static bool like(const kiln_tensor *sample, const kiln_tensor *stacked, bool whole) {
    int32_t lead = whole ? 0 : 1;
    return sample->dtype == stacked->dtype && sample->rank + lead == stacked->rank &&
           memcmp(sample->dims, stacked->dims + lead,
                  (size_t)sample->rank * sizeof *sample->dims) == 0;
}

static kiln_status put_sample(stack *s, kiln_dataset *ds, const kiln_sample *sample, int64_t row,
                              kiln_diag *diag) {
    const char *source = sample->source ? sample->source : ds->spec.path;
    for (int32_t i = 0; i < ds->input_count; ++i) {
        const kiln_tensor *one = &sample->inputs[i];
        if (!like(one, &s->inputs[i], ds->whole_batches)) {
            return kiln_hint(diag,
                             kiln_fail(diag, KILN_F_DATA_MISSING,
                                       "\"%s\": the sample differs in shape or type from the first "
                                       "of its batch",
                                       source),
                             "use a resize or a crop to one size, or batches of one");
        }
        size_t bytes = kiln_tensor_bytes(one);
        if (bytes > 0) {
            memcpy((uint8_t *)s->inputs[i].data + (size_t)row * bytes, one->data, bytes);
        }
    }
    int32_t count = sample->labels.count;
    s->sources[row] = kiln_arena_text(&ds->batch, source, strlen(source));
    s->labels[row] = (kiln_labels){
        .values = kiln_arena_copy(&ds->batch, sample->labels.values,
                                  (size_t)count * sizeof *sample->labels.values),
        .count = count,
    };
    return s->sources[row] && s->labels[row].values ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_dataset_next(kiln_dataset *ds, int64_t batch, kiln_batch *out, kiln_diag *diag) {
    int64_t rest = ds->count - ds->at;
    int64_t n = ds->whole_batches ? 1 : batch;
    if (batch < 1) {
        return kiln_fail(diag, KILN_F_OPTION, "a batch has at least one sample, not %" PRId64,
                         batch);
    }
    n = n < rest ? n : rest;
    *out = (kiln_batch){.first = ds->at, .input_count = ds->input_count, .names = ds->names};
    kiln_arena_free(&ds->batch);
    stack s = {0};
    for (int64_t i = 0; i < n; ++i) {
        kiln_sample sample = {.source = NULL};
        int64_t index = ds->order ? ds->order[ds->at + i] : ds->at + i;
        kiln_arena_mark mark = kiln_arena_here(&ds->scratch);
        KILN_TRY(ds->ops->load(&sample, ds, index, &ds->scratch, diag));
        if (i == 0) {
            KILN_TRY(make_stack(&s, ds, &sample, n, diag));
        }
        KILN_TRY(put_sample(&s, ds, &sample, i, diag));
        kiln_arena_rewind(&ds->scratch, mark);
    }
    ds->at += n;
    out->count = n;
    out->inputs = s.inputs;
    out->labels = s.labels;
    out->sources = s.sources;
    return KILN_OK;
}

void kiln_dataset_rewind(kiln_dataset *ds) {
    ds->at = 0;
}

kiln_dataset_kind kiln_dataset_kind_of(const kiln_dataset *ds) {
    return ds->spec.kind;
}

int64_t kiln_dataset_count(const kiln_dataset *ds) {
    return ds->count;
}

int64_t kiln_dataset_total(const kiln_dataset *ds) {
    return ds->total;
}

int32_t kiln_dataset_inputs(const kiln_dataset *ds) {
    return ds->input_count;
}

const char *kiln_dataset_input(const kiln_dataset *ds, int32_t i) {
    return ds->names[i];
}

bool kiln_dataset_has_batches(const kiln_dataset *ds) {
    return ds->whole_batches;
}

bool kiln_dataset_is_ordered(const kiln_dataset *ds) {
    return ds->ordered;
}

bool kiln_dataset_has_labels(const kiln_dataset *ds) {
    return ds->has_labels;
}

int64_t kiln_dataset_classes(const kiln_dataset *ds) {
    return ds->class_count;
}

const char *kiln_dataset_class(const kiln_dataset *ds, int64_t i) {
    return ds->classes[i];
}
