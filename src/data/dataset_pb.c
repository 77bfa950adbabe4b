/* dataset_pb.c - ONNX TensorProto files as a data set: one file, a folder of them, or folders as
 * ONNX's own tests have them (test_data_set_0/input_0.pb, input_1.pb, ...). Each file, or each such
 * folder, is one batch already. Arrays have the names that stand in the files, else input_0,
 * input_1, ...; only names of files are held. Decoding is the caller's (spec.decode): this folder
 * knows no ONNX. */
#include <string.h>
#include <sys/stat.h>

#include "data/dataset_impl.h"
#include "data/input.h"

static const char first_input[] = "input_0.pb";

typedef struct batches {
    const char **paths; /* a file, or with `parts` a folder with input_0.pb ... */
    size_t count, cap;
    bool parts;
} batches;

static bool holds_inputs(const char *folder, kiln_arena *arena) {
    struct stat st;
    const char *path = kiln_join_path(arena, folder, first_input);
    return path && stat(path, &st) == 0;
}

bool kiln_holds_pb_batches(const char *folder, const kiln_name_list *subfolders,
                           kiln_arena *arena) {
    const char *first =
        subfolders->count > 0 ? kiln_join_path(arena, folder, subfolders->items[0]) : NULL;
    return first && holds_inputs(first, arena);
}

static kiln_status add(kiln_dataset *ds, const char *path) {
    batches *b = ds->state;
    if (!path) {
        return KILN_E_MEMORY;
    }
    KILN_PUSH(&ds->arena, b->paths, b->count, b->cap, path);
    return KILN_OK;
}

/* The names of a folder that are wanted: subfolders with inputs, or .pb files. */
static kiln_status add_names(kiln_dataset *ds, bool folders, kiln_diag *diag) {
    kiln_name_list names;
    KILN_TRY(kiln_list_folder(&names, ds->spec.path, folders, &ds->arena, diag));
    for (size_t i = 0; i < names.count; ++i) {
        const char *path = kiln_join_path(&ds->arena, ds->spec.path, names.items[i]);
        if (!path) {
            return KILN_E_MEMORY;
        }
        if (folders ? holds_inputs(path, &ds->arena) : kiln_ends_with(path, ".pb")) {
            KILN_TRY(add(ds, path));
        }
    }
    return KILN_OK;
}

static kiln_status list_batches(kiln_dataset *ds, kiln_diag *diag) {
    batches *b = ds->state;
    if (!kiln_is_folder(ds->spec.path)) {
        return add(ds, ds->spec.path);
    }
    b->parts = true;
    if (holds_inputs(ds->spec.path, &ds->arena)) {
        return add(ds, ds->spec.path);
    }
    KILN_TRY(add_names(ds, true, diag));
    b->parts = b->count > 0;
    return b->parts ? KILN_OK : add_names(ds, false, diag);
}

/* Array i of a batch; *there is false past the last. */
static kiln_status read_array(const kiln_dataset *ds, const char *batch, int32_t i,
                              kiln_tensor *out, const char **name, bool *there, kiln_arena *arena,
                              kiln_diag *diag) {
    const batches *b = ds->state;
    struct stat st;
    kiln_file file;
    const char *fallback = kiln_arena_printf(arena, "input_%d", (int)i);
    const char *path =
        b->parts && fallback ? kiln_arena_printf(arena, "%s/%s.pb", batch, fallback) : batch;
    if (!fallback || !path) {
        return KILN_E_MEMORY;
    }
    *there = b->parts ? stat(path, &st) == 0 : i == 0;
    if (!*there) {
        return KILN_OK;
    }
    KILN_TRY(kiln_input_open(&file, path, arena->env, diag));
    kiln_tensor view;
    *name = NULL;
    kiln_status status = ds->spec.decode(&view, name, file.data, file.bytes, arena, diag);
    if (status == KILN_OK) {
        *out = view;
        out->cap_bytes = kiln_tensor_bytes(&view);
        out->data = kiln_arena_copy(arena, view.data, out->cap_bytes);
        *name = *name && **name ? *name : fallback;
        status = out->data || out->cap_bytes == 0 ? KILN_OK : KILN_E_MEMORY;
    }
    return kiln_input_close(&file, status, diag);
}

static kiln_status take_names(kiln_dataset *ds, kiln_diag *diag) {
    const batches *b = ds->state;
    KILN_ALLOC(ds->names, &ds->arena, KILN_DATASET_MAX_INPUTS);
    for (int32_t i = 0; i < KILN_DATASET_MAX_INPUTS; ++i) {
        kiln_tensor t;
        const char *name;
        bool there;
        kiln_arena_mark mark = kiln_arena_here(&ds->scratch);
        KILN_TRY(read_array(ds, b->paths[0], i, &t, &name, &there, &ds->scratch, diag));
        if (!there) {
            return KILN_OK;
        }
        ds->names[i] = kiln_arena_text(&ds->arena, name, strlen(name));
        if (!ds->names[i]) {
            return KILN_E_MEMORY;
        }
        ds->input_count = i + 1;
        kiln_arena_rewind(&ds->scratch, mark);
    }
    return KILN_OK;
}

static kiln_status open_pb(kiln_dataset *ds, kiln_diag *diag) {
    batches *b;
    KILN_ALLOC(b, &ds->arena, 1);
    ds->state = b;
    if (!ds->spec.decode) {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED, "ONNX .pb files are not read here");
    }
    if (!kiln_preprocess_is_identity(&ds->spec.preprocess)) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "arrays of .pb files are not preprocessed");
    }
    if (ds->spec.labels) {
        return kiln_fail(diag, KILN_F_DATA_MISSING,
                         ".pb files are whole batches, for which there are no labels");
    }
    KILN_TRY(list_batches(ds, diag));
    ds->total = (int64_t)b->count;
    ds->whole_batches = true;
    ds->ordered = true;
    return b->count > 0 ? take_names(ds, diag) : KILN_OK;
}

static kiln_status load_pb(kiln_sample *out, kiln_dataset *ds, int64_t index, kiln_arena *scratch,
                           kiln_diag *diag) {
    const batches *b = ds->state;
    out->source = b->paths[index];
    for (int32_t i = 0; i < ds->input_count; ++i) {
        const char *name;
        bool there;
        KILN_TRY(read_array(ds, b->paths[index], i, &out->inputs[i], &name, &there, scratch, diag));
        if (!there) {
            return kiln_fail(diag, KILN_F_DATA_MISSING, "\"%s\" has %d arrays, the first batch %d",
                             b->paths[index], (int)i, (int)ds->input_count);
        }
    }
    return KILN_OK;
}

const kiln_dataset_ops kiln_dataset_pb = {open_pb, load_pb, NULL};
