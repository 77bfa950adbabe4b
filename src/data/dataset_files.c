/* dataset_files.c - data sets with one file for each sample: pictures, .npy or raw .bin, in one
 * folder or in one folder for each class. Only names and labels are held. */
#include <inttypes.h>
#include <string.h>

#include "data/dataset_impl.h"
#include "data/raw.h"

typedef struct item {
    const char *name; /* relative to the set's folder */
    kiln_labels labels;
} item;

typedef struct files {
    const char *folder;
    item *items;
    size_t count;
    size_t cap;
} files;

kiln_status kiln_preprocess_array(kiln_tensor *t, const kiln_preprocess *pre, kiln_arena *arena,
                                  kiln_diag *diag) {
    if (kiln_preprocess_is_identity(pre)) {
        return KILN_OK;
    }
    int64_t channels = t->rank == 3 ? t->dims[2] : 1;
    bool picture = t->dtype == KILN_DTYPE_U8 && (t->rank == 2 || t->rank == 3) &&
                   (channels == 1 || channels == 3) && t->dims[0] <= KILN_IMAGE_MAX_SIDE &&
                   t->dims[1] <= KILN_IMAGE_MAX_SIDE;
    if (!picture) {
        return kiln_fail(diag, KILN_F_DATA_MISSING,
                         "preprocessing is for 8-bit pictures [H, W] or [H, W, C], not for %s of "
                         "rank %d",
                         kiln_dtype_name(t->dtype), t->rank);
    }
    const kiln_image image = {(int32_t)t->dims[1], (int32_t)t->dims[0], (int32_t)channels, t->data};
    return kiln_preprocess_apply(t, pre, &image, arena, diag);
}

static bool wanted(const char *name, kiln_dataset_kind kind) {
    switch (kind) {
    case KILN_DATASET_NPY:
        return kiln_ends_with(name, ".npy");
    case KILN_DATASET_RAW:
        return kiln_ends_with(name, ".bin") || kiln_ends_with(name, ".raw");
    default:
        return kiln_image_name(name);
    }
}

/* Adds the wanted files of `folder`, named "prefix/name" or "name". */
static kiln_status add_folder(kiln_dataset *ds, const char *folder, const char *prefix,
                              kiln_labels labels, kiln_diag *diag) {
    files *f = ds->state;
    kiln_name_list names;
    KILN_TRY(kiln_list_folder(&names, folder, false, &ds->arena, diag));
    for (size_t i = 0; i < names.count; ++i) {
        if (!wanted(names.items[i], ds->spec.kind)) {
            continue;
        }
        item one = {kiln_join_path(&ds->arena, prefix, names.items[i]), labels};
        if (!one.name) {
            return KILN_E_MEMORY;
        }
        KILN_PUSH(&ds->arena, f->items, f->count, f->cap, one);
    }
    return KILN_OK;
}

kiln_status kiln_class_number(int64_t *out, const kiln_dataset *ds, const char *folder,
                              kiln_diag *diag) {
    for (int64_t i = 0; i < ds->class_count; ++i) {
        if (strcmp(ds->classes[i], folder) == 0) {
            *out = i;
            return KILN_OK;
        }
    }
    return kiln_fail(diag, KILN_F_DATA_MISSING, "folder \"%s\" is no class of \"%s\"", folder,
                     ds->spec.classes);
}

static kiln_status add_class_folders(kiln_dataset *ds, const kiln_name_list *folders,
                                     kiln_diag *diag) {
    if (!ds->spec.classes) {
        ds->classes = folders->items;
        ds->class_count = (int64_t)folders->count;
    }
    for (size_t i = 0; i < folders->count; ++i) {
        int64_t *label;
        KILN_ALLOC(label, &ds->arena, 1);
        KILN_TRY(kiln_class_number(label, ds, folders->items[i], diag));
        const char *path = kiln_join_path(&ds->arena, ds->spec.path, folders->items[i]);
        if (!path) {
            return KILN_E_MEMORY;
        }
        KILN_TRY(add_folder(ds, path, folders->items[i], (kiln_labels){label, 1}, diag));
    }
    ds->has_labels = true;
    return KILN_OK;
}

/* A label file with names is the list of samples; one without must fit the folder's order. */
static kiln_status use_label_file(kiln_dataset *ds, const kiln_label_list *list, kiln_diag *diag) {
    files *f = ds->state;
    ds->has_labels = true;
    if (!list->named && list->count != f->count) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "\"%s\" has %zu labels for %zu files",
                         ds->spec.labels, list->count, f->count);
    }
    if (list->named) {
        KILN_ALLOC(f->items, &ds->arena, list->count);
        f->count = list->count;
    }
    for (size_t i = 0; i < list->count; ++i) {
        f->items[i].name = list->named ? list->lines[i].name : f->items[i].name;
        f->items[i].labels = list->lines[i].labels;
    }
    return KILN_OK;
}

static kiln_status list_files(kiln_dataset *ds, kiln_diag *diag) {
    files *f = ds->state;
    const char *path = ds->spec.path;
    if (!kiln_is_folder(path)) {
        item one = {path, {NULL, 0}};
        f->folder = "";
        KILN_PUSH(&ds->arena, f->items, f->count, f->cap, one);
        return KILN_OK;
    }
    kiln_name_list folders;
    kiln_label_list labels = {.count = 0};
    f->folder = path;
    if (ds->spec.labels) {
        KILN_TRY(kiln_read_labels(&labels, ds->spec.labels, &ds->arena, diag));
    }
    if (!labels.named) {
        KILN_TRY(add_folder(ds, path, "", (kiln_labels){NULL, 0}, diag));
        KILN_TRY(kiln_list_folder(&folders, path, true, &ds->arena, diag));
        if (f->count == 0 && folders.count > 0) {
            KILN_TRY(add_class_folders(ds, &folders, diag));
        }
    }
    return ds->spec.labels ? use_label_file(ds, &labels, diag) : KILN_OK;
}

static kiln_status open_files(kiln_dataset *ds, kiln_diag *diag) {
    files *f;
    KILN_ALLOC(f, &ds->arena, 1);
    ds->state = f;
    KILN_ALLOC(ds->names, &ds->arena, 1);
    ds->names[0] = ds->spec.input;
    ds->input_count = 1;
    KILN_TRY(list_files(ds, diag));
    ds->total = (int64_t)f->count;
    return KILN_OK;
}

static kiln_status load_picture(kiln_tensor *out, kiln_dataset *ds, const char *path,
                                kiln_arena *scratch, kiln_diag *diag) {
    kiln_image image;
    KILN_TRY(kiln_image_read(&image, path, NULL, scratch, diag));
    kiln_diag_at_file(diag, path);
    kiln_status status = kiln_preprocess_apply(out, &ds->spec.preprocess, &image, scratch, diag);
    kiln_diag_at_file(diag, NULL);
    return status;
}

static kiln_status load_file(kiln_sample *out, kiln_dataset *ds, int64_t index, kiln_arena *scratch,
                             kiln_diag *diag) {
    const files *f = ds->state;
    const item *one = &f->items[index];
    const kiln_dataset_spec *spec = &ds->spec;
    const char *path = kiln_join_path(scratch, f->folder, one->name);
    if (!path) {
        return KILN_E_MEMORY;
    }
    out->source = path;
    out->labels = one->labels;
    kiln_tensor *t = &out->inputs[0];
    switch (spec->kind) {
    case KILN_DATASET_NPY:
        KILN_TRY(kiln_npy_read(t, path, scratch, diag));
        return kiln_preprocess_array(t, &spec->preprocess, scratch, diag);
    case KILN_DATASET_RAW:
        KILN_TRY(kiln_raw_read(t, path, spec->dtype, spec->dims, spec->rank, scratch, diag));
        return kiln_preprocess_array(t, &spec->preprocess, scratch, diag);
    default:
        return load_picture(t, ds, path, scratch, diag);
    }
}

const kiln_dataset_ops kiln_dataset_files = {open_files, load_file, NULL};
