/* dataset_zip.c - a ZIP archive of pictures, or of class folders of pictures, as a folder would be.
 * A folder around all of it, as archivers make one, is left out of the names. Members are inflated
 * one at a time, when their sample is loaded. */
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "data/archive.h"
#include "data/dataset_impl.h"
#include "data/image.h"

typedef struct item {
    const char *name; /* below the outer folder */
    int64_t member;
    kiln_labels labels;
} item;

typedef struct zip_set {
    kiln_archive *archive;
    item *items;
    size_t count, cap;
} zip_set;

/* Pictures; not the hidden files and __MACOSX folders that archivers add. */
static bool wanted(const char *name) {
    for (const char *p = name; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (*p == '.' || strncmp(p, "__MACOSX/", 9) == 0) {
            return false;
        }
    }
    return kiln_image_name(name);
}

static size_t depth(const char *name) {
    size_t n = 0;
    for (; (name = strchr(name, '/')) != NULL; name++) {
        n++;
    }
    return n;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const item *)a)->name, ((const item *)b)->name);
}

static kiln_status list_members(kiln_dataset *ds, zip_set *z) {
    for (int64_t i = 0; i < kiln_archive_count(z->archive); ++i) {
        item one = {.name = kiln_archive_name(z->archive, i), .member = i};
        if (wanted(one.name)) {
            KILN_PUSH(&ds->arena, z->items, z->count, z->cap, one);
        }
    }
    if (z->count > 0) {
        qsort(z->items, z->count, sizeof *z->items, by_name);
    }
    return KILN_OK;
}

/* Takes folders off that all names share, as long as one folder, the class, is left. */
static void strip_outer_folders(zip_set *z) {
    for (;;) {
        const char *first = z->count > 0 ? z->items[0].name : "";
        size_t len = strcspn(first, "/") + 1;
        bool shared = depth(first) >= 2;
        for (size_t i = 0; i < z->count && shared; ++i) {
            shared = depth(z->items[i].name) >= 2 && strncmp(z->items[i].name, first, len) == 0;
        }
        if (!shared) {
            return;
        }
        for (size_t i = 0; i < z->count; ++i) {
            z->items[i].name += len;
        }
    }
}

/* Keeps the names with `slashes` folders; a folder as data set looks no deeper either. */
static void keep_depth(zip_set *z, size_t slashes) {
    size_t n = 0;
    for (size_t i = 0; i < z->count; ++i) {
        if (depth(z->items[i].name) == slashes) {
            z->items[n++] = z->items[i];
        }
    }
    z->count = n;
}

/* The folders, in order of their names, are the classes unless a file has named them. */
static kiln_status label_by_folder(kiln_dataset *ds, zip_set *z, kiln_diag *diag) {
    size_t cap = 0, count = 0;
    bool given = ds->spec.classes != NULL;
    for (size_t i = 0; i < z->count; ++i) {
        const char *name = z->items[i].name;
        size_t len = strcspn(name, "/");
        bool again = i > 0 && strncmp(z->items[i - 1].name, name, len + 1) == 0;
        if (again) {
            z->items[i].labels = z->items[i - 1].labels;
            continue;
        }
        int64_t *label;
        const char *folder = kiln_arena_text(&ds->arena, name, len);
        KILN_ALLOC(label, &ds->arena, 1);
        if (!folder) {
            return KILN_E_MEMORY;
        }
        if (!given) {
            KILN_PUSH(&ds->arena, ds->classes, count, cap, folder);
            ds->class_count = (int64_t)count;
        }
        KILN_TRY(kiln_class_number(label, ds, folder, diag));
        z->items[i].labels = (kiln_labels){label, 1};
    }
    ds->has_labels = true;
    return KILN_OK;
}

/* A label file with names is the list of samples; one without must fit the order of the names. */
static kiln_status label_by_file(kiln_dataset *ds, zip_set *z, kiln_diag *diag) {
    kiln_label_list list = {.count = 0};
    KILN_TRY(kiln_read_labels(&list, ds->spec.labels, &ds->arena, diag));
    kiln_diag_at_file(diag, ds->spec.path);
    if (!list.named && list.count != z->count) {
        return kiln_fail(diag, KILN_F_DATA_MISSING, "\"%s\" has %zu labels for %zu pictures",
                         ds->spec.labels, list.count, z->count);
    }
    item *chosen;
    KILN_ALLOC(chosen, &ds->arena, list.count + 1);
    for (size_t i = 0; i < list.count; ++i) {
        item key = {.name = list.lines[i].name};
        const item *found = !list.named    ? &z->items[i]
                            : z->count > 0 ? bsearch(&key, z->items, z->count, sizeof key, by_name)
                                           : NULL;
        if (!found) {
            return kiln_fail(diag, KILN_F_DATA_MISSING, "\"%s\" names \"%s\", which is not there",
                             ds->spec.labels, key.name);
        }
        chosen[i] = *found;
        chosen[i].labels = list.lines[i].labels;
    }
    z->items = chosen;
    z->count = list.count;
    ds->has_labels = true;
    return KILN_OK;
}

static kiln_status open_zip(kiln_dataset *ds, kiln_diag *diag) {
    zip_set *z;
    KILN_ALLOC(z, &ds->arena, 1);
    ds->state = z;
    KILN_ALLOC(ds->names, &ds->arena, 1);
    ds->names[0] = ds->spec.input;
    ds->input_count = 1;
    KILN_TRY(kiln_archive_open(&z->archive, ds->spec.path, ds->arena.env, diag));
    kiln_diag_at_file(diag, ds->spec.path);
    KILN_TRY(list_members(ds, z));
    strip_outer_folders(z);
    if (ds->spec.labels) {
        KILN_TRY(label_by_file(ds, z, diag));
    } else {
        size_t flat = 0;
        for (size_t i = 0; i < z->count; ++i) {
            flat += depth(z->items[i].name) == 0;
        }
        keep_depth(z, flat > 0 ? 0 : 1);
        if (flat == 0) {
            KILN_TRY(label_by_folder(ds, z, diag));
        }
    }
    ds->total = (int64_t)z->count;
    kiln_diag_at_file(diag, NULL);
    return KILN_OK;
}

static kiln_status load_member(kiln_sample *out, kiln_dataset *ds, int64_t index,
                               kiln_arena *scratch, kiln_diag *diag) {
    const zip_set *z = ds->state;
    const item *one = &z->items[index];
    size_t bytes = kiln_archive_size(z->archive, one->member);
    void *data = kiln_arena_raw(scratch, bytes);
    kiln_image image;
    out->source = kiln_arena_printf(scratch, "%s/%s", ds->spec.path, one->name);
    out->labels = one->labels;
    if (!data || !out->source) {
        return KILN_E_MEMORY;
    }
    kiln_diag_at_file(diag, out->source);
    kiln_status status = kiln_archive_read(data, z->archive, one->member, 0, bytes, diag);
    kiln_archive_rest(z->archive, one->member);
    status =
        status == KILN_OK ? kiln_image_decode(&image, data, bytes, NULL, scratch, diag) : status;
    status = status == KILN_OK ? kiln_preprocess_apply(&out->inputs[0], &ds->spec.preprocess,
                                                       &image, scratch, diag)
                               : status;
    kiln_diag_at_file(diag, NULL);
    return status;
}

static void close_zip(kiln_dataset *ds) {
    zip_set *z = ds->state;
    if (z) {
        kiln_archive_close(z->archive);
    }
}

const kiln_dataset_ops kiln_dataset_zip = {open_zip, load_member, close_zip};
