/* dataset_records.c - the binary data sets of handwriting and small pictures: IDX and CIFAR. */
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "data/dataset_rows.h"

enum {
    CIFAR_SIDE = 32,
    CIFAR_PLANE = CIFAR_SIDE * CIFAR_SIDE,
    CIFAR_PIXELS = 3 * CIFAR_PLANE,
    IDX_MAX_RANK = 8,
};

/* ---- IDX: 0 0 type rank, big-endian u32 dims, big-endian elements ---- */

static kiln_dtype idx_type(uint8_t code) {
    static const struct {
        uint8_t code;
        kiln_dtype dtype;
    } types[] = {
        {0x08, KILN_DTYPE_U8},  {0x09, KILN_DTYPE_I8},  {0x0b, KILN_DTYPE_I16},
        {0x0c, KILN_DTYPE_I32}, {0x0d, KILN_DTYPE_F32}, {0x0e, KILN_DTYPE_F64},
    };
    for (size_t i = 0; i < KILN_COUNT_OF(types); ++i) {
        if (types[i].code == code) {
            return types[i].dtype;
        }
    }
    return KILN_DTYPE_NONE;
}

static kiln_status read_idx_header(kiln_npy_header *h, kiln_stream *stream, kiln_diag *diag) {
    uint8_t b[4 + 4 * IDX_MAX_RANK];
    KILN_TRY(kiln_stream_read(b, stream, 0, 4, diag));
    *h = (kiln_npy_header){.dtype = idx_type(b[2]), .rank = b[3]};
    if (b[0] != 0 || b[1] != 0 || h->dtype == KILN_DTYPE_NONE || h->rank < 1 ||
        h->rank > IDX_MAX_RANK) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         "the file does not begin like IDX: %02x %02x %02x %02x", b[0], b[1], b[2],
                         b[3]);
    }
    h->data_at = 4 + 4 * (size_t)h->rank;
    h->swapped = kiln_dtype_bits(h->dtype) > 8;
    KILN_TRY(kiln_stream_read(b, stream, 0, h->data_at, diag));
    for (int32_t i = 0; i < h->rank; ++i) {
        const uint8_t *p = b + 4 + 4 * i;
        h->dims[i] = (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
    }
    int64_t count;
    if (!kiln_dims_count(h->dims, h->rank, &count) ||
        !kiln_dtype_bytes(h->dtype, count, &h->data_bytes)) {
        return kiln_fail(diag, KILN_F_OVERFLOW, "IDX dims are too large to address");
    }
    /* The last byte must be there; a plain file is checked at once, a compressed one when read. */
    uint64_t size = 0;
    if (!kiln_stream_sequential(stream)) {
        KILN_TRY(kiln_stream_size(&size, stream, diag));
    }
    if (!kiln_stream_sequential(stream) && size - h->data_at != h->data_bytes) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         "IDX header needs %zu bytes of elements, the file has %" PRIu64,
                         h->data_bytes, size - h->data_at);
    }
    return KILN_OK;
}

/* On success r->stream is open and belongs to the caller. */
static kiln_status open_idx_array(kiln_rows *r, const char *path, const kiln_env *env,
                                  kiln_diag *diag) {
    KILN_TRY(kiln_stream_open(&r->stream, path, env, diag));
    kiln_diag_at_file(diag, path);
    kiln_status status = read_idx_header(&r->header, r->stream, diag);
    kiln_diag_at_file(diag, NULL);
    if (status != KILN_OK) {
        kiln_stream_close(r->stream);
        r->stream = NULL;
    }
    return status;
}

/* "t10k-images-idx3-ubyte.gz" -> "t10k-labels-idx1-ubyte.gz"; NULL when the name is not like that.
 * Any dims digit becomes 1. */
static kiln_status label_path(const char **out, const char *path, kiln_arena *arena) {
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    const char *images = strstr(base, "images");
    *out = NULL;
    if (!images) {
        return KILN_OK;
    }
    char *text = kiln_arena_printf(arena, "%.*slabels%s", (int)(images - path), path, images + 6);
    if (!text) {
        return KILN_E_MEMORY;
    }
    char *idx = strstr(text + (base - path), "idx");
    if (idx && idx[3] >= '1' && idx[3] <= '9') {
        idx[3] = '1';
    }
    *out = text;
    return KILN_OK;
}

/* The images file of a folder, which must be the only one. */
static kiln_status find_images(const char **out, kiln_dataset *ds, kiln_diag *diag) {
    kiln_name_list names;
    KILN_TRY(kiln_list_folder(&names, ds->spec.path, false, &ds->arena, diag));
    const char *found = NULL;
    for (size_t i = 0; i < names.count; ++i) {
        if (!strstr(names.items[i], "images") || !strstr(names.items[i], "idx")) {
            continue;
        }
        if (found) {
            return kiln_fail(diag, KILN_F_DATA_MISSING,
                             "folder \"%s\" holds several IDX sets: name \"%s\", \"%s\" or another",
                             ds->spec.path, found, names.items[i]);
        }
        found = names.items[i];
    }
    if (!found) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "folder \"%s\" holds no IDX images",
                         ds->spec.path);
    }
    *out = kiln_join_path(&ds->arena, ds->spec.path, found);
    return *out ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status open_idx(kiln_dataset *ds, kiln_diag *diag) {
    kiln_row_state *s;
    KILN_TRY(kiln_rows_state(&s, ds));
    const char *path = ds->spec.path;
    if (kiln_is_folder(path)) {
        KILN_TRY(find_images(&path, ds, diag));
    }
    kiln_rows images = {.name = ds->spec.input};
    KILN_TRY(open_idx_array(&images, path, ds->arena.env, diag));
    KILN_TRY(kiln_rows_add(ds, &images, diag));
    const kiln_npy_header *h = &images.header;
    s->pictures = h->dtype == KILN_DTYPE_U8 && h->rank == 3 && h->dims[1] <= KILN_IMAGE_MAX_SIDE &&
                  h->dims[2] <= KILN_IMAGE_MAX_SIDE;
    const char *label_file = ds->spec.labels;
    if (!label_file) {
        KILN_TRY(label_path(&label_file, path, &ds->arena));
    }
    kiln_rows labels = {.name = label_file};
    if (!label_file) {
        return KILN_OK;
    }
    KILN_TRY(open_idx_array(&labels, label_file, ds->arena.env, diag));
    kiln_diag_at_file(diag, label_file);
    kiln_status status = kiln_rows_take_labels(ds, &labels, diag);
    kiln_diag_at_file(diag, NULL);
    kiln_stream_close(labels.stream);
    return status;
}

const kiln_dataset_ops kiln_dataset_idx = {open_idx, kiln_rows_load, kiln_rows_close};

/* ---- CIFAR: one or two label bytes, then the planes of a 32x32 picture ---- */

static kiln_status open_cifar(kiln_dataset *ds, kiln_diag *diag) {
    kiln_row_state *s;
    kiln_rows r = {.name = ds->spec.input};
    uint64_t size;
    KILN_TRY(kiln_rows_state(&s, ds));
    KILN_TRY(kiln_stream_open(&r.stream, ds->spec.path, ds->arena.env, diag));
    kiln_status status = kiln_stream_size(&size, r.stream, diag);
    if (status == KILN_OK) {
        /* CIFAR-100 has a coarse label before the fine one. */
        s->label_bytes = size % (CIFAR_PIXELS + 1) == 0 ? 1 : 2;
        if (size == 0 || size % (uint64_t)(CIFAR_PIXELS + s->label_bytes) != 0) {
            status = kiln_hint(diag,
                               kiln_fail(diag, KILN_F_DATA_FORMAT,
                                         "\"%s\" of %" PRIu64 " bytes is no CIFAR file",
                                         ds->spec.path, size),
                               "a raw file needs the dims of one sample");
        }
    }
    if (status != KILN_OK) {
        kiln_stream_close(r.stream);
        return status;
    }
    int64_t record = CIFAR_PIXELS + s->label_bytes;
    r.header = (kiln_npy_header){
        .dtype = KILN_DTYPE_U8,
        .rank = 2,
        .dims = {(int64_t)(size / (uint64_t)record), record},
        .data_bytes = (size_t)size,
    };
    ds->has_labels = true;
    return kiln_rows_add(ds, &r, diag);
}

static kiln_status load_cifar(kiln_sample *out, kiln_dataset *ds, int64_t index,
                              kiln_arena *scratch, kiln_diag *diag) {
    const kiln_row_state *s = ds->state;
    kiln_tensor record;
    uint8_t *pixels;
    int64_t *label;
    KILN_ALLOC(pixels, scratch, CIFAR_PIXELS);
    KILN_ALLOC(label, scratch, 1);
    KILN_TRY(kiln_rows_load_one(&record, ds, &s->inputs[0], index, scratch, diag));
    const uint8_t *bytes = record.data;
    const uint8_t *planes = bytes + s->label_bytes;
    *label = bytes[s->label_bytes - 1];
    for (int32_t i = 0; i < CIFAR_PLANE; ++i) {
        for (int32_t c = 0; c < 3; ++c) {
            pixels[3 * i + c] = planes[c * CIFAR_PLANE + i];
        }
    }
    if (*label >= (s->label_bytes == 1 ? 10 : 100)) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "\"%s\": sample %" PRId64 " has label %" PRId64,
                         ds->spec.path, index, *label);
    }
    out->labels = (kiln_labels){label, 1};
    const kiln_image image = {CIFAR_SIDE, CIFAR_SIDE, 3, pixels};
    return kiln_preprocess_apply(&out->inputs[0], &ds->spec.preprocess, &image, scratch, diag);
}

const kiln_dataset_ops kiln_dataset_cifar = {open_cifar, load_cifar, kiln_rows_close};
