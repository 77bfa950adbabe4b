/* dataset_rows.c - the rows of arrays (dataset_rows.h), and the kinds .npz, .npy and raw .bin. */
#include "data/dataset_rows.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/env.h"
#include "data/raw.h"
#include "data/values.h"

kiln_status kiln_rows_state(kiln_row_state **out, kiln_dataset *ds) {
    KILN_ALLOC(*out, &ds->arena, 1);
    ds->state = *out;
    ds->names = NULL;
    KILN_ALLOC(ds->names, &ds->arena, KILN_DATASET_MAX_INPUTS);
    return KILN_OK;
}

void kiln_rows_close(kiln_dataset *ds) {
    kiln_row_state *s = ds->state;
    if (!s) {
        return;
    }
    for (int32_t i = 0; i < ds->input_count; ++i) {
        kiln_stream_close(s->inputs[i].stream);
    }
    kiln_npz_close(s->npz);
}

/* ---- Reading ---- */

static kiln_status read_bytes(void *dst, const kiln_row_state *s, const kiln_rows *r, size_t first,
                              size_t bytes, kiln_diag *diag) {
    return r->stream ? kiln_stream_read(dst, r->stream, r->header.data_at + first, bytes, diag)
                     : kiln_npz_bytes(dst, s->npz, r->member, first, bytes, diag);
}

/* The whole array, settled. */
static kiln_status read_whole(kiln_tensor *out, const kiln_row_state *s, const kiln_rows *r,
                              kiln_arena *arena, kiln_diag *diag) {
    uint64_t most = kiln_env_limits(arena->env)->tensor_bytes;
    if (r->header.data_bytes > most) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT,
                         "array \"%s\" of %zu bytes is over the tensor limit of %" PRIu64, r->name,
                         r->header.data_bytes, most);
    }
    void *data = kiln_arena_raw(arena, r->header.data_bytes);
    if (!data) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(read_bytes(data, s, r, 0, r->header.data_bytes, diag));
    return kiln_npy_settle(out, &r->header, data, arena);
}

kiln_status kiln_rows_add(kiln_dataset *ds, const kiln_rows *r, kiln_diag *diag) {
    kiln_row_state *s = ds->state;
    kiln_rows *slot = &s->inputs[ds->input_count];
    if (ds->input_count == KILN_DATASET_MAX_INPUTS) {
        kiln_stream_close(r->stream);
        return kiln_fail(diag, KILN_F_DATA_LIMIT, "a data set has at most %d inputs",
                         KILN_DATASET_MAX_INPUTS);
    }
    *slot = *r;
    ds->names[ds->input_count++] = r->name;
    if (r->header.rank < 1) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "array \"%s\" has no dim that counts samples",
                         r->name);
    }
    int64_t n = r->header.dims[0];
    if (ds->input_count > 1 && n != ds->total) {
        return kiln_fail(diag, KILN_F_DATA_MISSING,
                         "array \"%s\" has %" PRId64 " samples, \"%s\" has %" PRId64, r->name, n,
                         ds->names[0], ds->total);
    }
    ds->total = n;
    ds->sequential |=
        r->stream ? kiln_stream_sequential(r->stream) : !kiln_npz_stored(s->npz, r->member);
    slot->row = r->header;
    slot->row.rank--;
    memmove(slot->row.dims, slot->row.dims + 1, sizeof slot->row.dims - sizeof slot->row.dims[0]);
    slot->row.data_bytes = n > 0 ? r->header.data_bytes / (size_t)n : 0;
    slot->row.fortran = false;
    if (slot->row.data_bytes > kiln_env_limits(ds->arena.env)->tensor_bytes) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT, "a sample of %zu bytes is over the tensor limit",
                         slot->row.data_bytes);
    }
    if (r->header.fortran && r->header.rank > 1 && n > 0) {
        kiln_tensor whole;
        KILN_TRY(read_whole(&whole, s, slot, &ds->arena, diag));
        slot->whole = whole.data;
        slot->row.swapped = false;
    }
    return KILN_OK;
}

kiln_status kiln_rows_load_one(kiln_tensor *out, const kiln_dataset *ds, const kiln_rows *r,
                               int64_t index, kiln_arena *scratch, kiln_diag *diag) {
    size_t bytes = r->row.data_bytes;
    size_t first = (size_t)index * bytes;
    void *data = kiln_arena_raw(scratch, bytes);
    if (!data) {
        return KILN_E_MEMORY;
    }
    if (r->whole) {
        memcpy(data, r->whole + first, bytes);
    } else {
        KILN_TRY(read_bytes(data, ds->state, r, first, bytes, diag));
    }
    return kiln_npy_settle(out, &r->row, data, scratch);
}

kiln_status kiln_rows_load(kiln_sample *out, kiln_dataset *ds, int64_t index, kiln_arena *scratch,
                           kiln_diag *diag) {
    const kiln_row_state *s = ds->state;
    const kiln_preprocess *pre = &ds->spec.preprocess;
    for (int32_t i = 0; i < ds->input_count; ++i) {
        kiln_tensor *t = &out->inputs[i];
        KILN_TRY(kiln_rows_load_one(t, ds, &s->inputs[i], index, scratch, diag));
        if (s->pictures && t->rank == 2) {
            const kiln_image image = {(int32_t)t->dims[1], (int32_t)t->dims[0], 1, t->data};
            KILN_TRY(kiln_preprocess_apply(t, pre, &image, scratch, diag));
        } else {
            KILN_TRY(kiln_preprocess_array(t, pre, scratch, diag));
        }
    }
    if (s->labels) {
        out->labels = (kiln_labels){&s->labels[index], 1};
    }
    return KILN_OK;
}

/* ---- Labels ---- */

static kiln_status label_value(int64_t *out, double v, int64_t row, kiln_diag *diag) {
    if (!(v >= 0 && v <= 9007199254740992.0) || v != floor(v)) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         "label of sample %" PRId64 " is %g, no class number", row, v);
    }
    *out = (int64_t)v;
    return KILN_OK;
}

/* Index of the largest of `width` one-hot values. */
static int64_t hot_index(const kiln_tensor *t, int64_t first, int64_t width) {
    int64_t best = 0;
    for (int64_t i = 1; i < width; ++i) {
        if (kiln_value_at(t, first + i) > kiln_value_at(t, first + best)) {
            best = i;
        }
    }
    return best;
}

kiln_status kiln_rows_take_labels(kiln_dataset *ds, const kiln_rows *r, kiln_diag *diag) {
    kiln_row_state *s = ds->state;
    kiln_tensor t;
    int64_t *labels;
    const kiln_npy_header *h = &r->header;
    if (h->rank < 1 || h->rank > 2 || h->dims[0] != ds->total ||
        kiln_values_per_element(h->dtype) != 1) {
        return kiln_fail(diag, KILN_F_DATA_MISSING,
                         "labels \"%s\" do not fit %" PRId64
                         " samples: rank %d, first dim %" PRId64,
                         r->name, ds->total, h->rank, h->rank > 0 ? h->dims[0] : 0);
    }
    int64_t width = h->rank == 2 ? h->dims[1] : 1;
    kiln_arena_mark mark = kiln_arena_here(&ds->scratch);
    KILN_ALLOC(labels, &ds->arena, ds->total);
    KILN_TRY(read_whole(&t, s, r, &ds->scratch, diag));
    for (int64_t i = 0; i < ds->total && width > 0; ++i) {
        if (width > 1) {
            labels[i] = hot_index(&t, i * width, width);
        } else {
            KILN_TRY(label_value(&labels[i], kiln_value_at(&t, i), i, diag));
        }
    }
    kiln_arena_rewind(&ds->scratch, mark);
    s->labels = labels;
    ds->has_labels = true;
    return KILN_OK;
}

kiln_status kiln_rows_label_file(kiln_dataset *ds, kiln_diag *diag) {
    kiln_row_state *s = ds->state;
    kiln_label_list list;
    KILN_TRY(kiln_read_labels(&list, ds->spec.labels, &ds->arena, diag));
    if ((int64_t)list.count != ds->total) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "\"%s\" has %zu labels for %" PRId64 " samples",
                         ds->spec.labels, list.count, ds->total);
    }
    KILN_ALLOC(s->labels, &ds->arena, list.count);
    for (size_t i = 0; i < list.count; ++i) {
        s->labels[i] = list.lines[i].labels.values[0];
    }
    ds->has_labels = true;
    return KILN_OK;
}

/* ---- npz ---- */

static int64_t find_labels(const kiln_dataset *ds, const kiln_npz *npz) {
    if (ds->spec.labels) {
        return kiln_npz_find(npz, ds->spec.labels);
    }
    for (int64_t i = 0; i < kiln_npz_count(npz); ++i) {
        if (kiln_is_label_name(kiln_npz_name(npz, i))) {
            return i;
        }
    }
    return -1;
}

static kiln_status open_npz(kiln_dataset *ds, kiln_diag *diag) {
    kiln_row_state *s;
    KILN_TRY(kiln_rows_state(&s, ds));
    KILN_TRY(kiln_npz_open(&s->npz, ds->spec.path, ds->arena.env, diag));
    kiln_diag_at_file(diag, ds->spec.path);
    int64_t label = find_labels(ds, s->npz);
    if (ds->spec.labels && label < 0) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "the archive has no array \"%s\" for labels",
                         ds->spec.labels);
    }
    for (int64_t i = 0; i < kiln_npz_count(s->npz); ++i) {
        kiln_rows r = {
            .name = kiln_npz_name(s->npz, i), .header = *kiln_npz_header(s->npz, i), .member = i};
        if (i != label) {
            KILN_TRY(kiln_rows_add(ds, &r, diag));
        }
    }
    if (ds->input_count == 0) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "the archive has no array but labels");
    }
    if (label >= 0) {
        kiln_rows r = {
            .name = kiln_npz_name(s->npz, label),
            .header = *kiln_npz_header(s->npz, label),
            .member = label,
        };
        KILN_TRY(kiln_rows_take_labels(ds, &r, diag));
    }
    kiln_diag_at_file(diag, NULL);
    return KILN_OK;
}

const kiln_dataset_ops kiln_dataset_npz = {open_npz, kiln_rows_load, kiln_rows_close};

/* ---- npy ---- */

static kiln_status stream_header(kiln_npy_header *out, kiln_stream *stream, kiln_arena *scratch,
                                 kiln_diag *diag) {
    uint64_t size;
    KILN_TRY(kiln_stream_size(&size, stream, diag));
    size_t prefix = size < KILN_NPY_MAX_HEADER ? (size_t)size : KILN_NPY_MAX_HEADER;
    kiln_arena_mark mark = kiln_arena_here(scratch);
    void *bytes = kiln_arena_raw(scratch, prefix);
    if (!bytes) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(kiln_stream_read(bytes, stream, 0, prefix, diag));
    KILN_TRY(kiln_npy_parse(out, bytes, prefix, diag));
    kiln_arena_rewind(scratch, mark);
    if (size - out->data_at != out->data_bytes) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         ".npy shape and type need %zu bytes of elements, the file has %" PRIu64,
                         out->data_bytes, size - out->data_at);
    }
    return KILN_OK;
}

static kiln_status open_npy(kiln_dataset *ds, kiln_diag *diag) {
    kiln_row_state *s;
    kiln_rows r = {.name = ds->spec.input};
    KILN_TRY(kiln_rows_state(&s, ds));
    KILN_TRY(kiln_stream_open(&r.stream, ds->spec.path, ds->arena.env, diag));
    kiln_diag_at_file(diag, ds->spec.path);
    kiln_status status = stream_header(&r.header, r.stream, &ds->scratch, diag);
    if (status != KILN_OK) {
        kiln_stream_close(r.stream);
        return status;
    }
    KILN_TRY(kiln_rows_add(ds, &r, diag));
    kiln_diag_at_file(diag, NULL);
    return ds->spec.labels ? kiln_rows_label_file(ds, diag) : KILN_OK;
}

const kiln_dataset_ops kiln_dataset_npy = {open_npy, kiln_rows_load, kiln_rows_close};

/* ---- raw ---- */

static kiln_status open_raw(kiln_dataset *ds, kiln_diag *diag) {
    kiln_row_state *s;
    kiln_rows r = {.name = ds->spec.input};
    uint64_t size;
    size_t sample;
    const kiln_dataset_spec *spec = &ds->spec;
    KILN_TRY(kiln_rows_state(&s, ds));
    KILN_TRY(kiln_raw_bytes(&sample, spec->dtype, spec->dims, spec->rank, diag));
    if (sample == 0 || spec->rank == KILN_MAX_RANK) {
        return kiln_fail(diag, KILN_F_OPTION, "a raw data set needs the dims of one sample");
    }
    KILN_TRY(kiln_stream_open(&r.stream, spec->path, ds->arena.env, diag));
    kiln_status status = kiln_stream_size(&size, r.stream, diag);
    if (status == KILN_OK && size % sample != 0) {
        status = kiln_fail(diag, KILN_F_DATA_FORMAT,
                           "\"%s\" of %" PRIu64 " bytes does not hold whole samples of %zu bytes",
                           spec->path, size, sample);
    }
    if (status != KILN_OK) {
        kiln_stream_close(r.stream);
        return status;
    }
    r.header = (kiln_npy_header){
        .dtype = spec->dtype,
        .rank = spec->rank + 1,
        .dims = {(int64_t)(size / sample)},
        .data_bytes = (size_t)size,
    };
    memcpy(r.header.dims + 1, spec->dims, (size_t)spec->rank * sizeof *spec->dims);
    KILN_TRY(kiln_rows_add(ds, &r, diag));
    return spec->labels ? kiln_rows_label_file(ds, diag) : KILN_OK;
}

const kiln_dataset_ops kiln_dataset_raw = {open_raw, kiln_rows_load, kiln_rows_close};
