/* dataset_polygraphy.c - Polygraphy's JSON of input data or run results.
 *
 * save-inputs writes a list of objects {name: array}; run results are {"lst": [[runner,
 * [{"outputs": {name: array}, ...}]]]}, of which the first runner is read. An array is {"array":
 * base64 of an .npy file}, possibly wrapped once in {"values": ...}. Each object marks its class in
 * "polygraphy_class"; PyTorch tensors (pickled) are refused. Entries are batches already.
 *
 * The JSON tree has to be in memory, so the file's size is limited; arrays are decoded one entry
 * at a time. */
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "data/dataset_impl.h"
#include "data/input.h"

enum { MAX_JSON_BYTES = 256 << 20 };

typedef struct entries {
    json_t *root;
    json_t *list;     /* array of entries */
    const char *wrap; /* "outputs" when entries are results, else NULL */
} entries;

/* ---- Base64 (RFC 4648, section 4; padding required) ---- */

static int32_t base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : (c == '/' ? 63 : -1);
}

/* dst holds len / 4 * 3 bytes. */
static bool base64_decode(uint8_t *dst, size_t *out_len, const char *text, size_t len) {
    size_t n = 0;
    if (len % 4 != 0) {
        return false;
    }
    for (size_t i = 0; i < len; i += 4) {
        size_t digits = 4;
        if (i + 4 == len) {
            digits = text[i + 3] != '=' ? 4 : (text[i + 2] != '=' ? 3 : 2);
        }
        uint32_t bits = 0;
        for (size_t k = 0; k < 4; ++k) {
            int32_t d = k < digits ? base64_digit(text[i + k]) : 0;
            if (d < 0) {
                return false;
            }
            bits = bits << 6 | (uint32_t)d;
        }
        for (size_t k = 0; k + 1 < digits; ++k) {
            dst[n++] = (uint8_t)(bits >> (16 - 8 * k));
        }
    }
    *out_len = n;
    return true;
}

/* ---- Entries ---- */

static kiln_status decode_array(kiln_tensor *out, const char *name, const json_t *value,
                                kiln_arena *scratch, kiln_diag *diag) {
    const json_t *inner = json_object_get(value, "values");
    value = inner ? inner : value;
    const char *class_name = json_string_value(json_object_get(value, "polygraphy_class"));
    const json_t *array = json_object_get(value, "array");
    if (class_name && strcmp(class_name, "Tensor") == 0) {
        return kiln_hint(diag,
                         kiln_fail(diag, KILN_F_DATA_UNSUPPORTED,
                                   "\"%s\" is a pickled PyTorch tensor, which is never read", name),
                         "save NumPy arrays instead");
    }
    size_t len = json_string_length(array);
    uint8_t *bytes = kiln_arena_raw(scratch, len / 4 * 3 + 1);
    if (!bytes) {
        return KILN_E_MEMORY;
    }
    if (!json_is_string(array) || !base64_decode(bytes, &len, json_string_value(array), len)) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "\"%s\" holds no base64 array", name);
    }
    return kiln_npy_decode(out, bytes, len, scratch, diag);
}

static kiln_status load_entry(kiln_sample *out, kiln_dataset *ds, int64_t index,
                              kiln_arena *scratch, kiln_diag *diag) {
    const entries *e = ds->state;
    const json_t *entry = json_array_get(e->list, (size_t)index);
    entry = e->wrap ? json_object_get(entry, e->wrap) : entry;
    kiln_status status = KILN_OK;
    kiln_diag_at_file(diag, ds->spec.path);
    if ((int64_t)json_object_size(entry) != ds->input_count) {
        status = kiln_fail(diag, KILN_F_DATA_FORMAT,
                           "entry %" PRId64 " has %zu arrays, the first has %d", index,
                           json_object_size(entry), ds->input_count);
    }
    for (int32_t i = 0; i < ds->input_count && status == KILN_OK; ++i) {
        const json_t *value = json_object_get(entry, ds->names[i]);
        status = value ? decode_array(&out->inputs[i], ds->names[i], value, scratch, diag)
                       : kiln_fail(diag, KILN_F_DATA_FORMAT, "entry %" PRId64 " lacks \"%s\"",
                                   index, ds->names[i]);
    }
    kiln_diag_at_file(diag, NULL);
    return status;
}

/* Finds the list of entries in inputs or in run results. */
static kiln_status find_list(entries *e, kiln_diag *diag) {
    e->list = e->root;
    if (json_is_object(e->root)) {
        json_t *runner = json_array_get(json_object_get(e->root, "lst"), 0);
        e->list = json_array_get(runner, 1);
        e->wrap = "outputs";
    }
    if (!json_is_array(e->list) || json_array_size(e->list) == 0) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         "neither Polygraphy inputs (a list of objects) nor run results");
    }
    return KILN_OK;
}

static kiln_status take_names(kiln_dataset *ds, const entries *e, kiln_diag *diag) {
    json_t *first = json_array_get(e->list, 0);
    first = e->wrap ? json_object_get(first, e->wrap) : first;
    size_t count = json_object_size(first);
    if (!json_is_object(first) || count == 0 || count > KILN_DATASET_MAX_INPUTS) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         "the first entry has %zu named arrays, takes 1 to %d", count,
                         KILN_DATASET_MAX_INPUTS);
    }
    KILN_ALLOC(ds->names, &ds->arena, count);
    for (void *it = json_object_iter(first); it; it = json_object_iter_next(first, it)) {
        const char *name = json_object_iter_key(it);
        name = kiln_arena_text(&ds->arena, name, strlen(name));
        if (!name) {
            return KILN_E_MEMORY;
        }
        ds->names[ds->input_count++] = name;
    }
    return KILN_OK;
}

static kiln_status open_entries(kiln_dataset *ds, const kiln_file *file, kiln_diag *diag) {
    entries *e = ds->state;
    json_error_t error;
    if (file->bytes > MAX_JSON_BYTES) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT, "JSON of %zu bytes, the limit is %d", file->bytes,
                         MAX_JSON_BYTES);
    }
    e->root = json_loadb((const char *)file->data, file->bytes, JSON_REJECT_DUPLICATES, &error);
    if (!e->root) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "line %d: %s", error.line, error.text);
    }
    KILN_TRY(find_list(e, diag));
    KILN_TRY(take_names(ds, e, diag));
    ds->total = (int64_t)json_array_size(e->list);
    ds->whole_batches = true;
    return KILN_OK;
}

static kiln_status open_polygraphy(kiln_dataset *ds, kiln_diag *diag) {
    entries *e;
    kiln_file file;
    if (!kiln_preprocess_is_identity(&ds->spec.preprocess)) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "Polygraphy arrays are not preprocessed");
    }
    KILN_ALLOC(e, &ds->arena, 1);
    ds->state = e;
    KILN_TRY(kiln_input_open(&file, ds->spec.path, ds->arena.env, diag));
    return kiln_input_close(&file, open_entries(ds, &file, diag), diag);
}

static void close_polygraphy(kiln_dataset *ds) {
    entries *e = ds->state;
    if (e) {
        json_decref(e->root);
    }
}

const kiln_dataset_ops kiln_dataset_polygraphy = {
    open_polygraphy,
    load_entry,
    close_polygraphy,
};
