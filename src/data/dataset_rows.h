/* dataset_rows.h - data sets that are arrays whose first dim counts samples: .npz, .npy, IDX,
 * CIFAR and raw .bin files. They differ in where the array's header comes from; reading row i is
 * the same for all.
 *
 *     kiln_row_state *s;
 *     KILN_TRY(kiln_rows_state(&s, ds));
 *     kiln_rows r = {.name = "input", .header = header, .stream = stream};
 *     KILN_TRY(kiln_rows_add(ds, &r, diag));      // the set owns the stream from here on
 */
#ifndef KILN_DATA_DATASET_ROWS_H
#define KILN_DATA_DATASET_ROWS_H

#include "data/dataset_impl.h"
#include "data/npz.h"
#include "data/stream.h"

/* An array somewhere: in a file or in an archive's member. */
typedef struct kiln_rows {
    const char *name;
    kiln_npy_header header; /* of the whole array; data_at counts from the file's begin */
    kiln_npy_header row;    /* of one sample */
    kiln_stream *stream;    /* or NULL: member `member` of the archive */
    int64_t member;
    uint8_t *whole; /* Fortran order has no contiguous rows: the array, settled */
} kiln_rows;

typedef struct kiln_row_state {
    kiln_npz *npz;
    kiln_rows inputs[KILN_DATASET_MAX_INPUTS];
    int64_t *labels;     /* [total] or NULL */
    bool pictures;       /* rows are u8 pictures even when nothing is to be done with them */
    int32_t label_bytes; /* CIFAR: labels that stand before each row's pixels */
} kiln_row_state;

/* The empty state of a set, with room for names. */
kiln_status kiln_rows_state(kiln_row_state **out, kiln_dataset *ds);
/* kiln_dataset_ops.close of all these kinds. */
void kiln_rows_close(kiln_dataset *ds);

/* Appends an input: derives the row's header, reads Fortran-ordered arrays, checks that all inputs
 * have the same number of samples (KILN_E_USAGE). Takes r->stream, also on failure. */
kiln_status kiln_rows_add(kiln_dataset *ds, const kiln_rows *r, kiln_diag *diag);

/* Row `index` of one array as a tensor in scratch. */
kiln_status kiln_rows_load_one(kiln_tensor *out, const kiln_dataset *ds, const kiln_rows *r,
                               int64_t index, kiln_arena *scratch, kiln_diag *diag);
/* kiln_dataset_ops.load: one row of every input, preprocessed. */
kiln_status kiln_rows_load(kiln_sample *out, kiln_dataset *ds, int64_t index, kiln_arena *scratch,
                           kiln_diag *diag);

/* Labels from an array [N] or [N, 1] of class numbers, or [N, C] of one-hot rows. r->stream stays
 * the caller's. */
kiln_status kiln_rows_take_labels(kiln_dataset *ds, const kiln_rows *r, kiln_diag *diag);
/* Labels from spec.labels, a text file with one for each sample in order. */
kiln_status kiln_rows_label_file(kiln_dataset *ds, kiln_diag *diag);

#endif
