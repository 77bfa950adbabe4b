/* read.c - tensors from files: the readers of data/ and onnx/ behind one function. */
#include <string.h>
#include <sys/stat.h>

#include "base/env.h"
#include "base/options.h"
#include "data/dataset_impl.h"
#include "data/input.h"
#include "data/npy.h"
#include "data/npz.h"
#include "data/preprocess.h"
#include "data/raw.h"
#include "flow/flow.h"
#include "onnx/onnx.h"

/* One file being read. */
typedef struct job {
    kiln_tensors *list;
    const char *path;
    const char *name;
    const kiln_io *like;
    const char *preprocess;
    kiln_diag *diag;
} job;

static kiln_status read_npy(const job *j) {
    kiln_tensor t;
    KILN_TRY(kiln_npy_read(&t, j->path, &j->list->arena, j->diag));
    return kiln_tensors_take(j->list, j->name, &t);
}

static kiln_status take_members(const job *j, kiln_npz *npz) {
    for (int64_t i = 0; i < kiln_npz_count(npz); i++) {
        kiln_tensor t;
        KILN_TRY(kiln_npz_read(&t, npz, i, &j->list->arena, j->diag));
        KILN_TRY(kiln_tensors_take(j->list, kiln_npz_name(npz, i), &t));
    }
    return KILN_OK;
}

static kiln_status read_npz(const job *j) {
    kiln_npz *npz;
    KILN_TRY(kiln_npz_open(&npz, j->path, j->list->env, j->diag));
    kiln_status status = take_members(j, npz);
    kiln_npz_close(npz);
    return status;
}

static kiln_status take_datum(const job *j, const kiln_datum *d) {
    if (d->kind == KILN_KIND_TENSOR) {
        return kiln_tensors_add(j->list, j->name, &d->tensor, j->diag);
    }
    for (int64_t i = 0; i < d->n_items; i++) {
        if (d->items[i].kind != KILN_KIND_TENSOR) {
            return kiln_fail(j->diag, KILN_F_DATA_UNSUPPORTED,
                             "sequences of sequences are not read");
        }
        KILN_TRY(kiln_tensors_add(j->list, j->name, &d->items[i].tensor, j->diag));
    }
    return KILN_OK;
}

static kiln_status read_pb(const job *j) {
    kiln_file file;
    kiln_datum d = {0};
    KILN_TRY(kiln_input_open(&file, j->path, j->list->env, j->diag));
    kiln_kind kind = j->like && j->like->is_sequence ? KILN_KIND_SEQUENCE : KILN_KIND_TENSOR;
    kiln_status status = kiln_datum_from_pb(&d, kind, KILN_KIND_TENSOR, file.data, file.bytes,
                                            &j->list->arena, j->list->env, j->diag);
    status = status == KILN_OK ? take_datum(j, &d) : status;
    return kiln_input_close(&file, status, j->diag);
}

/* Dynamic dims of 1 but for the first, which takes what the file's size leaves. */
static kiln_status read_raw(const job *j) {
    const kiln_io *io = j->like;
    if (!io || io->rank < 0 || kiln_dtype_bits(io->dtype) == 0) {
        return kiln_hint(j->diag,
                         kiln_fail(j->diag, KILN_F_OPTION,
                                   "%s: a file without header needs a type and dims", j->path),
                         "only an input of known rank can be read from it");
    }
    int64_t dims[KILN_MAX_RANK];
    int32_t open_dims = 0;
    for (int32_t d = 0; d < io->rank; d++) {
        open_dims += io->dims[d] < 0;
        dims[d] = io->dims[d] < 0 ? 1 : io->dims[d];
    }
    size_t one;
    KILN_TRY(kiln_raw_bytes(&one, io->dtype, dims, io->rank, j->diag));
    struct stat st;
    if (open_dims > 0 && io->dims[0] < 0 && one > 0 && stat(j->path, &st) == 0) {
        dims[0] = (int64_t)((uint64_t)st.st_size / one);
    }
    kiln_tensor t;
    KILN_TRY(kiln_raw_read(&t, j->path, io->dtype, dims, io->rank, &j->list->arena, j->diag));
    return kiln_tensors_take(j->list, j->name, &t);
}

/* A picture with a batch dim, in the element type of the input it is for. */
static kiln_status read_picture(const job *j) {
    kiln_preprocess pre = {0};
    kiln_image image;
    kiln_tensor t, cast;
    kiln_arena *arena = &j->list->arena;
    if (j->preprocess) {
        KILN_TRY(kiln_preprocess_parse(&pre, j->preprocess, j->diag));
    }
    KILN_TRY(kiln_image_read(&image, j->path, NULL, arena, j->diag));
    KILN_TRY(kiln_preprocess_apply(&t, &pre, &image, arena, j->diag));
    if (!j->like || j->like->rank < 0 || j->like->rank == t.rank + 1) {
        memmove(t.dims + 1, t.dims, (size_t)t.rank * sizeof t.dims[0]);
        t.dims[0] = 1;
        t.rank++;
    }
    kiln_dtype to = j->like && pre.dtype == KILN_DTYPE_NONE ? j->like->dtype : t.dtype;
    KILN_TRY(kiln_tensor_cast(&cast, &t, to == KILN_DTYPE_NONE ? t.dtype : to, arena, j->diag));
    return kiln_tensors_take(j->list, j->name, &cast);
}

static const struct {
    const char *ending;
    kiln_status (*read)(const job *j);
} kinds[] = {
    {".npy", read_npy},     {".npz", read_npz},     {".pb", read_pb},       {".bin", read_raw},
    {".raw", read_raw},     {".png", read_picture}, {".jpg", read_picture}, {".jpeg", read_picture},
    {".bmp", read_picture}, {".ppm", read_picture}, {".pgm", read_picture},
};

static kiln_status read_file(const job *j) {
    for (size_t i = 0; i < KILN_COUNT_OF(kinds); i++) {
        if (kiln_path_ends(j->path, kinds[i].ending)) {
            return kinds[i].read(j);
        }
    }
    return kiln_hint(j->diag,
                     kiln_fail(j->diag, KILN_F_OPTION, "%s: no data file by its ending", j->path),
                     ".npy .npz .pb .bin .raw .png .jpg .jpeg .bmp .ppm .pgm are");
}

/* "dir/x.npy" is named "x". */
static const char *stem(kiln_arena *arena, const char *path) {
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    return kiln_arena_text(arena, base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
}

/* Every file of a folder but outputs.json, in order of their names; those listed
 * there get their real names back. */
static kiln_status read_folder(const job *j) {
    kiln_name_list names;
    kiln_arena *arena = &j->list->arena;
    KILN_TRY(kiln_list_folder(&names, j->path, false, arena, j->diag));
    size_t before = j->list->count;
    for (size_t i = 0; i < names.count; i++) {
        job file = *j;
        if (kiln_path_ends(names.items[i], ".json")) {
            continue;
        }
        file.path = kiln_join_path(arena, j->path, names.items[i]);
        file.name = stem(arena, names.items[i]);
        if (!file.path || !file.name) {
            return KILN_E_MEMORY;
        }
        KILN_TRY(read_file(&file));
    }
    const char *index = kiln_join_path(arena, j->path, "outputs.json");
    if (!index) {
        return KILN_E_MEMORY;
    }
    return kiln_outputs_rename(j->list, before, index, j->diag);
}

kiln_status kiln_tensors_read(kiln_tensors *list, const char *path,
                              const kiln_read_options *options, kiln_diag *diag) {
    kiln_read_options o;
    if (kiln_options_read(&o, sizeof o, options) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION, "the read options have no size, or unknown fields");
    }
    job j = {list, path, o.name ? o.name : stem(&list->arena, path), o.like, o.preprocess, diag};
    if (!j.name) {
        return kiln_diag_close(diag, KILN_E_MEMORY);
    }
    return kiln_diag_close(diag, kiln_is_folder(path) ? read_folder(&j) : read_file(&j));
}

kiln_status kiln_preprocess_check_text(const char *preprocess, kiln_diag *diag) {
    kiln_preprocess pre = {0};
    return kiln_preprocess_parse(&pre, preprocess, diag);
}
