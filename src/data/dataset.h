/* dataset.h - samples with labels, from whatever file they come in, one batch at a time.
 *
 *     kiln_dataset_spec spec = {.path = "test/", .labels = "labels.csv", .count = 1000};
 *     kiln_preprocess_parse(&spec.preprocess, "resize=256 crop=224 scale=1/255", diag);
 *     kiln_dataset *ds;
 *     KILN_TRY(kiln_dataset_open(&ds, &spec, env, diag));
 *     kiln_batch batch;
 *     while ((status = kiln_dataset_next(ds, 8, &batch, diag)) == KILN_OK && batch.count > 0) {
 *         // batch.inputs[0] is [n, ...], labels of sample i: batch.labels[i]
 *     }
 *     kiln_dataset_close(ds);
 *
 * Kinds, told apart by what stands at `path` unless spec.kind says so:
 *
 *     npz         named arrays whose first dim counts samples; integer (or one-hot) y, label,
 *                 labels, target or targets is the labels, the others are inputs
 *     npy         one such array; or a folder of .npy files, each one sample
 *     idx         the MNIST family, also .gz; ...-images... finds its ...-labels... by name;
 *                 or a folder with one such pair
 *     cifar       CIFAR-10 and CIFAR-100 (fine labels) binary, one file, also .gz
 *     images      a folder of pictures; or of folders of pictures, one for each class in order of
 *                 their names; or one picture
 *     zip         a .zip of such a folder, read one member at a time
 *     raw         .bin, elements of spec.dtype and sample dims spec.dims without any header;
 *                 or a folder of .bin files, each one sample
 *     polygraphy  JSON of Polygraphy's save-inputs or save-outputs: each entry one batch already
 *     pb          ONNX TensorProto files: one, or a folder of them, each one batch already; a
 *                 folder with input_0.pb, input_1.pb, ... (one batch), or of such folders
 *
 * Labels for images and .npy folders come from the folder names or from a text file of lines
 * "name,label" (comma, semicolon, tab or spaces; a first line without a number is a heading; more
 * accepted labels follow as 281|282), or one label a line in the order of the names.
 *
 * Pictures (images, idx, cifar) go through spec.preprocess; arrays too when they are u8 with 1 or 3
 * channels last, else only the identity is accepted. Nothing but one batch, the list of names and
 * the labels is held in memory; the files are mapped or streamed. Compressed data is read in one
 * direction only: with `shuffle` a random choice is still made, but visited in order.
 *
 * Order: with shuffle, sample k is drawn by Fisher-Yates from SplitMix64 seeded with `seed`
 * (dataset.c has the recipe), so that other programs can repeat it. Not for two threads at once.
 */
#ifndef KILN_DATA_DATASET_H
#define KILN_DATA_DATASET_H

#include "data/preprocess.h"

typedef enum kiln_dataset_kind {
    KILN_DATASET_AUTO,
    KILN_DATASET_NPZ,
    KILN_DATASET_NPY,
    KILN_DATASET_IDX,
    KILN_DATASET_CIFAR,
    KILN_DATASET_IMAGES,
    KILN_DATASET_RAW,
    KILN_DATASET_POLYGRAPHY,
    KILN_DATASET_ZIP,
    KILN_DATASET_PB,
    KILN_DATASET_KINDS,
} kiln_dataset_kind;

enum { KILN_DATASET_MAX_INPUTS = 64 };

/* Decodes an ONNX TensorProto into arena or as a view of the bytes. *name: the one in it. */
typedef kiln_status kiln_pb_decode_fn(kiln_tensor *out, const char **name, const void *bytes,
                                      size_t len, kiln_arena *arena, kiln_diag *diag);

typedef struct kiln_dataset_spec {
    const char *path;
    kiln_dataset_kind kind;
    const char *labels;  /* label file; or the array of an npz; NULL: found as above, if any */
    const char *classes; /* text file with one class name a line, in order of their numbers */
    const char *input;   /* name of the input for kinds that have none ["input"] */
    kiln_preprocess preprocess;
    int64_t count; /* samples to visit; 0: all */
    bool shuffle;  /* visit (or choose) in random order */
    uint64_t seed;
    kiln_dtype dtype; /* raw: element type [F32] */
    int32_t rank;     /* raw: dims of one sample */
    int64_t dims[KILN_MAX_RANK];
    kiln_pb_decode_fn *decode; /* pb: given by who knows ONNX; NULL: such sets are refused */
} kiln_dataset_spec;

/* Accepted labels of one sample; none when the set has no labels. */
typedef struct kiln_labels {
    const int64_t *values;
    int32_t count;
} kiln_labels;

/* Valid until the next call for the same data set. */
typedef struct kiln_batch {
    int64_t count; /* samples; of sets that have batches, 1; 0 at the end */
    int64_t first; /* how many were visited before */
    int32_t input_count;
    const char *const *names;
    const kiln_tensor *inputs;  /* [input_count], each [count, sample dims] */
    const kiln_labels *labels;  /* [count] */
    const char *const *sources; /* [count] file or member each sample came from */
} kiln_batch;

typedef struct kiln_dataset kiln_dataset;

/* Opens a set; spec and its strings are copied. KILN_E_IO, KILN_E_MALFORMED, KILN_E_UNSUPPORTED,
 * KILN_E_LIMIT; KILN_E_USAGE when path is no known kind or holds no sample. */
kiln_status kiln_dataset_open(kiln_dataset **out, const kiln_dataset_spec *spec,
                              const kiln_env *env, kiln_diag *diag);
void kiln_dataset_close(kiln_dataset *ds);

/* The next up to `batch` samples, stacked. Samples of one batch must agree in dims (KILN_E_USAGE
 * names the first that does not). A Polygraphy entry is a batch of its own size. */
kiln_status kiln_dataset_next(kiln_dataset *ds, int64_t batch, kiln_batch *out, kiln_diag *diag);
/* Starts over with the same order. */
void kiln_dataset_rewind(kiln_dataset *ds);

kiln_dataset_kind kiln_dataset_kind_of(const kiln_dataset *ds);
/* "npz", "images", ...; never NULL. */
const char *kiln_dataset_kind_name(kiln_dataset_kind kind);
/* Samples that one pass visits, and samples the set has. */
int64_t kiln_dataset_count(const kiln_dataset *ds);
int64_t kiln_dataset_total(const kiln_dataset *ds);
/* Arrays of each sample; name of array i. */
int32_t kiln_dataset_inputs(const kiln_dataset *ds);
const char *kiln_dataset_input(const kiln_dataset *ds, int32_t i);
/* Whether each of what the set counts is a batch of its own, whose samples the first dims of its
 * arrays tell (pb, polygraphy). */
bool kiln_dataset_has_batches(const kiln_dataset *ds);
/* Whether the arrays stand in the order of a network's inputs, whatever their names (pb). */
bool kiln_dataset_is_ordered(const kiln_dataset *ds);
bool kiln_dataset_has_labels(const kiln_dataset *ds);
/* Number of classes known by name, 0 when none; name of class i. */
int64_t kiln_dataset_classes(const kiln_dataset *ds);
const char *kiln_dataset_class(const kiln_dataset *ds, int64_t i);

#endif
