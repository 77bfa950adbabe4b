/* write.c - tensors to files, one at a time or a folder with its index. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/env.h"
#include "base/file.h"
#include "base/json.h"
#include "data/image.h"
#include "data/input.h"
#include "data/npy.h"
#include "data/npz.h"
#include "data/raw.h"
#include "data/values.h"
#include "flow/flow.h"
#include "onnx/onnx.h"
#include "ops/util.h"

enum { NAME_BYTES = 120, INDEX_BYTES = 64 << 20 };

static kiln_status write_npy(const kiln_tensor *t, const char *name, const char *path,
                             const kiln_env *env, kiln_diag *diag) {
    (void)name;
    return kiln_npy_write(t, path, env, diag);
}

static kiln_status write_npz(const kiln_tensor *t, const char *name, const char *path,
                             const kiln_env *env, kiln_diag *diag) {
    return kiln_npz_write(path, &name, t, 1, env, diag);
}

static kiln_status write_raw(const kiln_tensor *t, const char *name, const char *path,
                             const kiln_env *env, kiln_diag *diag) {
    (void)name;
    (void)env;
    return kiln_raw_write(t, path, diag);
}

static kiln_status write_pb(const kiln_tensor *t, const char *name, const char *path,
                            const kiln_env *env, kiln_diag *diag) {
    kiln_arena arena;
    void *bytes;
    size_t len;
    kiln_arena_init(&arena, env);
    kiln_status status = kiln_tensor_to_pb(&bytes, &len, t, name, &arena);
    status = status == KILN_OK ? kiln_file_write(path, bytes, len, diag) : status;
    kiln_arena_free(&arena);
    return kiln_diag_close(diag, status);
}

/* Where height, width and channels are in dims that may begin with ones. */
static bool picture_dims(const kiln_tensor *t, int32_t *h, int32_t *w, int32_t *c, bool *planes) {
    const int64_t *d = t->dims;
    int32_t rank = t->rank;
    while (rank > 2 && d[0] == 1 && (rank > 3 || d[rank - 1] == 1 || d[rank - 1] == 3)) {
        d++;
        rank--;
    }
    int64_t channels = 1, at = 0;
    *planes = true;
    if (rank == 3 && (d[0] == 1 || d[0] == 3)) {
        channels = d[0];
        at = 1;
    } else if (rank == 3 && (d[2] == 1 || d[2] == 3)) {
        channels = d[2];
        *planes = false;
    } else if (rank != 2) {
        return false;
    }
    if (d[at] < 1 || d[at + 1] < 1 || d[at] > KILN_IMAGE_MAX_SIDE ||
        d[at + 1] > KILN_IMAGE_MAX_SIDE) {
        return false;
    }
    *h = (int32_t)d[at];
    *w = (int32_t)d[at + 1];
    *c = (int32_t)channels;
    return true;
}

static kiln_status write_png(const kiln_tensor *t, const char *name, const char *path,
                             const kiln_env *env, kiln_diag *diag) {
    kiln_image image = {0};
    bool planes;
    if (kiln_values_per_element(t->dtype) != 1 ||
        !picture_dims(t, &image.height, &image.width, &image.channels, &planes)) {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED, "\"%s\" has not the shape of a picture",
                         name);
    }
    int64_t pixels = (int64_t)image.height * image.width;
    kiln_arena arena;
    kiln_arena_init(&arena, env);
    image.pixels = kiln_arena_array(&arena, (size_t)pixels, (size_t)image.channels);
    if (!image.pixels) {
        return kiln_diag_close(diag, KILN_E_MEMORY);
    }
    double factor = kiln_dtype_is_float(t->dtype) ? 255 : 1;
    for (int64_t i = 0; i < pixels * image.channels; i++) {
        int64_t from = planes ? i % image.channels * pixels + i / image.channels : i;
        double v = kiln_value_at(t, from) * factor + 0.5;
        image.pixels[i] = (uint8_t)(v >= 255 ? 255 : v > 0 ? v : 0);
    }
    kiln_status status = kiln_image_write_png(&image, path, env, diag);
    kiln_arena_free(&arena);
    return status;
}

static const struct {
    const char *ending;
    kiln_status (*write)(const kiln_tensor *, const char *, const char *, const kiln_env *,
                         kiln_diag *);
} kinds[] = {
    {".npy", write_npy}, {".npz", write_npz}, {".pb", write_pb},
    {".bin", write_raw}, {".raw", write_raw}, {".png", write_png},
};

kiln_status kiln_tensor_write(const kiln_tensor *tensor, const char *name, const char *path,
                              const kiln_env *env, kiln_diag *diag) {
    for (size_t i = 0; i < KILN_COUNT_OF(kinds); i++) {
        if (kiln_path_ends(path, kinds[i].ending)) {
            return kiln_diag_close(diag, kinds[i].write(tensor, name, path, env, diag));
        }
    }
    return kiln_hint(diag, kiln_fail(diag, KILN_F_OPTION, "%s: no data file by its ending", path),
                     ".npy .npz .pb .bin .raw .png can be written");
}

/* ---- Folders ---- */

static bool plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static bool taken(char *const *files, size_t count, const char *file) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(files[i], file) == 0) {
            return true;
        }
    }
    return false;
}

/* A file name for entry i that no earlier entry has. */
static char *choose_file(const kiln_tensors *list, size_t i, char *const *files,
                         kiln_arena *arena) {
    char base[NAME_BYTES + 1];
    const char *name = list->items[i].name;
    size_t n = 0;
    for (; name[n] && n < NAME_BYTES; n++) {
        base[n] = plain(name[n]) || (name[n] == '.' && n > 0) ? name[n] : '_';
    }
    base[n] = '\0';
    kiln_dtype dtype = list->items[i].tensor.dtype;
    bool numpy = dtype <= KILN_DTYPE_BF16 && dtype != KILN_DTYPE_STRING;
    const char *ending = numpy ? "npy" : "pb";
    char *file = kiln_arena_printf(arena, "%s.%s", n ? base : "_", ending);
    for (size_t k = 2; file && taken(files, i, file); k++) {
        file = kiln_arena_printf(arena, "%s_%zu.%s", base, k, ending);
    }
    return file;
}

static void write_index(kiln_json *json, const kiln_tensors *list, char *const *files) {
    kiln_json_open(json, '{');
    kiln_json_key(json, "schema");
    kiln_json_string(json, "kiln.outputs/1");
    kiln_json_key(json, "outputs");
    kiln_json_open(json, '[');
    for (size_t i = 0; i < list->count; i++) {
        const kiln_tensor *t = &list->items[i].tensor;
        kiln_json_open(json, '{');
        kiln_json_key(json, "name");
        kiln_json_string(json, list->items[i].name);
        kiln_json_key(json, "file");
        kiln_json_string(json, files[i]);
        kiln_json_key(json, "dtype");
        kiln_json_string(json, kiln_dtype_name(t->dtype));
        kiln_json_key(json, "shape");
        kiln_json_open(json, '[');
        for (int32_t d = 0; d < t->rank; d++) {
            kiln_json_int(json, t->dims[d]);
        }
        kiln_json_close(json);
        kiln_json_close(json);
    }
    kiln_json_close(json);
    kiln_json_close(json);
}

static kiln_status write_folder(const kiln_tensors *list, const char *path, kiln_arena *arena,
                                kiln_diag *diag) {
    char **files;
    KILN_ALLOC(files, arena, list->count);
    for (size_t i = 0; i < list->count; i++) {
        files[i] = choose_file(list, i, files, arena);
        const char *file = files[i] ? kiln_arena_printf(arena, "%s/%s", path, files[i]) : NULL;
        if (!file) {
            return KILN_E_MEMORY;
        }
        KILN_TRY(
            kiln_tensor_write(&list->items[i].tensor, list->items[i].name, file, list->env, diag));
    }
    const char *index = kiln_arena_printf(arena, "%s/outputs.json", path);
    kiln_text text;
    kiln_json json;
    kiln_text_init(&text, list->env);
    kiln_json_init(&json, &text, 1);
    write_index(&json, list, files);
    kiln_text_char(&text, '\n');
    kiln_status status = index ? kiln_json_finish(&json) : KILN_E_MEMORY;
    status = status == KILN_OK ? kiln_file_write(index, text.data, text.len, diag) : status;
    kiln_text_free(&text);
    return status;
}

kiln_status kiln_tensors_write_folder(const kiln_tensors *list, const char *path, kiln_diag *diag) {
    if (mkdir(path, 0777) != 0 && errno != EEXIST) {
        return kiln_fail(diag, KILN_F_FILE_WRITE, "%s: %s", path, strerror(errno));
    }
    kiln_arena arena;
    kiln_arena_init(&arena, list->env);
    kiln_status status = write_folder(list, path, &arena, diag);
    kiln_arena_free(&arena);
    return kiln_diag_close(diag, status);
}

/* "y.npy" of the index names the entry "y", which is what reading the file called it. */
static kiln_status rename_one(kiln_tensors *list, size_t first, const json_t *item) {
    const char *file = json_string_value(json_object_get(item, "file"));
    const char *name = json_string_value(json_object_get(item, "name"));
    const char *dot = file ? strrchr(file, '.') : NULL;
    if (!name || !dot) {
        return KILN_E_MALFORMED;
    }
    size_t len = (size_t)(dot - file);
    for (size_t i = first; i < list->count; i++) {
        if (strlen(list->items[i].name) == len && memcmp(list->items[i].name, file, len) == 0) {
            list->items[i].name = kiln_arena_text(&list->arena, name, strlen(name));
            return list->items[i].name ? KILN_OK : KILN_E_MEMORY;
        }
    }
    return KILN_OK;
}

kiln_status kiln_outputs_rename(kiln_tensors *list, size_t first, const char *index,
                                kiln_diag *diag) {
    struct stat st;
    if (stat(index, &st) != 0) {
        return KILN_OK;
    }
    kiln_file file;
    KILN_TRY(kiln_file_open(&file, list->env, index, INDEX_BYTES, 0, diag));
    json_t *root = json_loadb((const char *)file.data, file.bytes, JSON_REJECT_DUPLICATES, NULL);
    const json_t *outputs = json_object_get(root, "outputs");
    kiln_status status = json_is_array(outputs) ? KILN_OK : KILN_E_MALFORMED;
    for (size_t i = 0; status == KILN_OK && i < json_array_size(outputs); i++) {
        status = rename_one(list, first, json_array_get(outputs, i));
    }
    json_decref(root);
    kiln_file_close(&file);
    if (status == KILN_E_MALFORMED) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "%s does not list outputs as Kiln writes them",
                         index);
    }
    return status;
}
