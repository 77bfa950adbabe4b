/* dataset_impl.h - what the kinds of data sets implement, and what they share.
 *
 * dataset.c owns order, batches and labels' lifetimes; a kind knows how many samples there are and
 * how to load number `index`. */
#ifndef KILN_DATA_DATASET_IMPL_H
#define KILN_DATA_DATASET_IMPL_H

#include "data/dataset.h"
#include "data/npy.h"

/* One loaded sample. Everything in it may live in the scratch arena it was loaded with. */
typedef struct kiln_sample {
    kiln_tensor inputs[KILN_DATASET_MAX_INPUTS]; /* without the batch dim, unless whole_batches */
    kiln_labels labels;
    const char *source;
} kiln_sample;

typedef struct kiln_dataset_ops {
    /* Sets state, total, names, input_count, has_labels, sequential; classes where known. On
     * failure `close` is called too. */
    kiln_status (*open)(kiln_dataset *ds, kiln_diag *diag);
    kiln_status (*load)(kiln_sample *out, kiln_dataset *ds, int64_t index, kiln_arena *scratch,
                        kiln_diag *diag);
    void (*close)(kiln_dataset *ds); /* may be NULL; sees a NULL state when open failed early */
} kiln_dataset_ops;

extern const kiln_dataset_ops kiln_dataset_npz;
extern const kiln_dataset_ops kiln_dataset_npy;
extern const kiln_dataset_ops kiln_dataset_idx;
extern const kiln_dataset_ops kiln_dataset_cifar;
extern const kiln_dataset_ops kiln_dataset_raw;
extern const kiln_dataset_ops kiln_dataset_files; /* folders of .npy, .bin or pictures */
extern const kiln_dataset_ops kiln_dataset_polygraphy;
extern const kiln_dataset_ops kiln_dataset_pb;
extern const kiln_dataset_ops kiln_dataset_zip; /* pictures in an archive */

struct kiln_dataset {
    kiln_arena arena;   /* what lives as long as the set */
    kiln_arena batch;   /* the current batch */
    kiln_arena scratch; /* one sample */
    kiln_dataset_spec spec;
    const kiln_dataset_ops *ops;
    void *state;
    int64_t total;
    int64_t count;  /* samples of one pass */
    int64_t at;     /* next position of the pass */
    int64_t *order; /* [count] sample numbers; NULL: 0, 1, 2, ... */
    bool sequential;
    bool has_labels;
    bool whole_batches;
    bool ordered; /* arrays stand in the order of the inputs */
    int32_t input_count;
    const char **names;
    const char **classes;
    int64_t class_count;
};

/* ---- Folders and text files ---- */

typedef struct kiln_name_list {
    const char **items;
    size_t count;
} kiln_name_list;

/* Names in folder `path`, sorted by bytes, hidden ones left out; folders only or regular files
 * only. KILN_E_LIMIT above 16 Mi names. */
kiln_status kiln_list_folder(kiln_name_list *out, const char *path, bool folders, kiln_arena *arena,
                             kiln_diag *diag);
bool kiln_is_folder(const char *path);
/* "folder/name" in arena; NULL when out of memory. */
const char *kiln_join_path(kiln_arena *arena, const char *folder, const char *name);
bool kiln_ends_with(const char *text, const char *ending);

/* A line of a label file. */
typedef struct kiln_label_line {
    const char *name; /* NULL when the line is a label alone */
    kiln_labels labels;
} kiln_label_line;

typedef struct kiln_label_list {
    kiln_label_line *lines;
    size_t count;
    bool named; /* every line has a name, else none has */
} kiln_label_list;

/* Reads a label file (form: dataset.h). KILN_E_MALFORMED names the line. */
kiln_status kiln_read_labels(kiln_label_list *out, const char *path, kiln_arena *arena,
                             kiln_diag *diag);
/* Reads class names, one a line; blank lines do not count. */
kiln_status kiln_read_classes(kiln_dataset *ds, const char *path, kiln_diag *diag);

/* The class that a folder of samples is: its place among the names, which are the folders in order
 * unless spec.classes gave another. KILN_E_USAGE for a folder that is no class. */
kiln_status kiln_class_number(int64_t *out, const kiln_dataset *ds, const char *folder,
                              kiln_diag *diag);

/* Whether the folder's subfolders hold one batch of .pb files each. */
bool kiln_holds_pb_batches(const char *folder, const kiln_name_list *subfolders, kiln_arena *arena);

/* True for y, label, labels, target, targets. */
bool kiln_is_label_name(const char *name);

/* Runs spec.preprocess on a u8 tensor [H, W], [H, W, 1] or [H, W, 3]; others pass when it is the
 * identity and are refused (KILN_E_USAGE) when not. In place of *t. */
kiln_status kiln_preprocess_array(kiln_tensor *t, const kiln_preprocess *pre, kiln_arena *arena,
                                  kiln_diag *diag);

#endif
