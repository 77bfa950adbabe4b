/* npz.c - archives of arrays (npz.h). */
#include "data/npz.h"

#include <string.h>
#include <zip.h>

#include "base/env.h"
#include "base/file.h"
#include "data/archive.h"

enum {
    MAX_ARRAYS = 65536,
    COPY_BYTES = 1 << 20,
    ZIP_DATE_1980 =
        1 << 5 | 1, /* 1 January 1980 in DOS form: archives do not depend on the clock */
};

typedef struct member {
    const char *name; /* without ".npy" */
    kiln_npy_header header;
    int64_t index; /* in the archive */
} member;

struct kiln_npz {
    kiln_arena arena;
    kiln_archive *archive;
    member *members;
    int64_t count;
};

static kiln_status read_header(kiln_npz *npz, member *m, kiln_arena *scratch, kiln_diag *diag) {
    size_t bytes = kiln_archive_size(npz->archive, m->index);
    size_t prefix = bytes < KILN_NPY_MAX_HEADER ? bytes : KILN_NPY_MAX_HEADER;
    kiln_arena_mark mark = kiln_arena_here(scratch);
    void *head = kiln_arena_raw(scratch, prefix);
    if (!head) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(kiln_archive_read(head, npz->archive, m->index, 0, prefix, diag));
    kiln_archive_rest(npz->archive, m->index);
    KILN_TRY(kiln_npy_parse(&m->header, head, prefix, diag));
    kiln_arena_rewind(scratch, mark);
    if (bytes - m->header.data_at != m->header.data_bytes) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         "member \"%s\": shape and type need %zu bytes of elements, it has %zu",
                         m->name, m->header.data_bytes, bytes - m->header.data_at);
    }
    return KILN_OK;
}

static kiln_status read_member(kiln_npz *npz, int64_t index, kiln_arena *scratch, kiln_diag *diag) {
    const char *name = kiln_archive_name(npz->archive, index);
    size_t len = strlen(name);
    if (len < 5 || strcmp(name + len - 4, ".npy") != 0) {
        kiln_warn(diag, KILN_F_DATA_FORMAT, "member \"%s\" is no .npy array and is skipped", name);
        return KILN_OK;
    }
    member *m = &npz->members[npz->count];
    *m = (member){.name = kiln_arena_text(&npz->arena, name, len - 4), .index = index};
    if (!m->name) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(read_header(npz, m, scratch, diag));
    npz->count++;
    return KILN_OK;
}

static kiln_status read_members(kiln_npz *npz, kiln_diag *diag) {
    int64_t entries = kiln_archive_count(npz->archive);
    if (entries > MAX_ARRAYS) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT, "archive of %lld members, the limit is %d",
                         (long long)entries, MAX_ARRAYS);
    }
    kiln_arena scratch;
    kiln_status status = KILN_OK;
    KILN_ALLOC(npz->members, &npz->arena, entries);
    kiln_arena_init(&scratch, npz->arena.env);
    for (int64_t i = 0; i < entries && status == KILN_OK; ++i) {
        status = read_member(npz, i, &scratch, diag);
    }
    kiln_arena_free(&scratch);
    return status;
}

kiln_status kiln_npz_open(kiln_npz **out, const char *path, const kiln_env *env, kiln_diag *diag) {
    kiln_npz *npz = kiln_env_alloc(env, sizeof *npz);
    if (!npz) {
        return KILN_E_MEMORY;
    }
    memset(npz, 0, sizeof *npz);
    kiln_arena_init(&npz->arena, env);
    kiln_status status = kiln_archive_open(&npz->archive, path, env, diag);
    if (status == KILN_OK) {
        kiln_diag_at_file(diag, path);
        status = read_members(npz, diag);
    }
    kiln_diag_at_file(diag, NULL);
    if (status != KILN_OK) {
        kiln_npz_close(npz);
        return status;
    }
    *out = npz;
    return KILN_OK;
}

void kiln_npz_close(kiln_npz *npz) {
    if (!npz) {
        return;
    }
    kiln_archive_close(npz->archive);
    kiln_arena_free(&npz->arena);
    kiln_env_release(npz->arena.env, npz, sizeof *npz);
}

int64_t kiln_npz_count(const kiln_npz *npz) {
    return npz->count;
}

const char *kiln_npz_name(const kiln_npz *npz, int64_t i) {
    return npz->members[i].name;
}

const kiln_npy_header *kiln_npz_header(const kiln_npz *npz, int64_t i) {
    return &npz->members[i].header;
}

int64_t kiln_npz_find(const kiln_npz *npz, const char *name) {
    for (int64_t i = 0; i < npz->count; ++i) {
        if (strcmp(npz->members[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

bool kiln_npz_stored(const kiln_npz *npz, int64_t i) {
    return kiln_archive_stored(npz->archive, npz->members[i].index);
}

kiln_status kiln_npz_bytes(void *dst, kiln_npz *npz, int64_t i, size_t first, size_t bytes,
                           kiln_diag *diag) {
    const member *m = &npz->members[i];
    const kiln_npy_header *h = &m->header;
    if (first > h->data_bytes || bytes > h->data_bytes - first) {
        return kiln_fail(diag, KILN_F_INTERNAL, "read past the end of member \"%s\"", m->name);
    }
    return kiln_archive_read(dst, npz->archive, m->index, h->data_at + first, bytes, diag);
}

kiln_status kiln_npz_read(kiln_tensor *out, kiln_npz *npz, int64_t i, kiln_arena *arena,
                          kiln_diag *diag) {
    const kiln_npy_header *h = &npz->members[i].header;
    void *data = kiln_arena_raw(arena, h->data_bytes);
    if (!data) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(kiln_npz_bytes(data, npz, i, 0, h->data_bytes, diag));
    return kiln_npy_settle(out, h, data, arena);
}

/* ---- Writing ---- */

/* Adds one array as two fragments, its header and its elements, which libzip reads at closing. */
static kiln_status add_array(zip_t *zip, const char *name, const kiln_tensor *t,
                             kiln_arena *scratch, kiln_diag *diag) {
    char *header;
    size_t header_len;
    kiln_tensor body;
    zip_buffer_fragment_t *parts;
    KILN_TRY(kiln_npy_header_text(&header, &header_len, t, scratch, diag));
    KILN_TRY(kiln_npy_body(&body, t, scratch));
    KILN_ALLOC(parts, scratch, 2);
    parts[0] = (zip_buffer_fragment_t){(zip_uint8_t *)header, header_len};
    parts[1] = (zip_buffer_fragment_t){body.data, kiln_tensor_bytes(&body)};
    const char *file_name = kiln_arena_printf(scratch, "%s.npy", name);
    if (!file_name) {
        return KILN_E_MEMORY;
    }
    if (!kiln_archive_clean_name(file_name)) {
        return kiln_fail(diag, KILN_F_OPTION, "an array cannot be named \"%s\"", name);
    }
    zip_source_t *source = zip_source_buffer_fragment(zip, parts, parts[1].length ? 2 : 1, 0);
    zip_int64_t index = source ? zip_file_add(zip, file_name, source, ZIP_FL_ENC_UTF_8) : -1;
    if (index < 0) {
        zip_source_free(source);
        return kiln_fail(diag, KILN_F_FILE_WRITE, "array \"%s\" cannot be added: %s", name,
                         zip_strerror(zip));
    }
    zip_set_file_compression(zip, (zip_uint64_t)index, ZIP_CM_STORE, 0);
    zip_file_set_dostime(zip, (zip_uint64_t)index, 0, ZIP_DATE_1980, 0);
    return KILN_OK;
}

static kiln_status add_arrays(zip_t *zip, const char *const *names, const kiln_tensor *tensors,
                              size_t count, kiln_arena *scratch, kiln_diag *diag) {
    for (size_t i = 0; i < count; ++i) {
        KILN_TRY(add_array(zip, names[i], &tensors[i], scratch, diag));
    }
    return KILN_OK;
}

static kiln_status cannot_write(kiln_diag *diag, const char *why) {
    return kiln_fail(diag, KILN_F_FILE_WRITE, "the archive cannot be written: %s", why);
}

/* Copies what libzip made into a file that is the old one or the complete new one. */
static kiln_status copy_out(zip_source_t *made, kiln_writer *to, kiln_arena *scratch,
                            kiln_diag *diag) {
    void *block = kiln_arena_raw(scratch, COPY_BYTES);
    if (!block) {
        return KILN_E_MEMORY;
    }
    for (;;) {
        zip_int64_t n = zip_source_read(made, block, COPY_BYTES);
        if (n < 0) {
            return cannot_write(diag, zip_error_strerror(zip_source_error(made)));
        }
        if (n == 0) {
            return kiln_writer_commit(to, diag);
        }
        KILN_TRY(kiln_writer_put(to, block, (size_t)n, diag));
    }
}

static kiln_status write_file(const char *path, zip_source_t *made, kiln_arena *scratch,
                              kiln_diag *diag) {
    kiln_writer writer;
    KILN_TRY(kiln_writer_open(&writer, path, diag));
    kiln_status status = zip_source_open(made) == 0
                             ? copy_out(made, &writer, scratch, diag)
                             : cannot_write(diag, zip_error_strerror(zip_source_error(made)));
    kiln_writer_abandon(&writer);
    zip_source_close(made);
    return status;
}

/* libzip makes the archive in memory: what it writes to files itself is not synced. */
static kiln_status write_archive(const char *path, const char *const *names,
                                 const kiln_tensor *tensors, size_t count, kiln_arena *scratch,
                                 kiln_diag *diag) {
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t *made = zip_source_buffer_create(NULL, 0, 0, &error);
    zip_t *zip = made ? zip_open_from_source(made, ZIP_TRUNCATE, &error) : NULL;
    kiln_status status = zip ? KILN_OK : cannot_write(diag, zip_error_strerror(&error));
    zip_error_fini(&error);
    if (!zip) {
        zip_source_free(made);
        return status;
    }
    zip_source_keep(made);
    status = add_arrays(zip, names, tensors, count, scratch, diag);
    if (status == KILN_OK && zip_close(zip) == 0) {
        status = write_file(path, made, scratch, diag);
    } else {
        status = status == KILN_OK ? cannot_write(diag, zip_strerror(zip)) : status;
        zip_discard(zip);
    }
    zip_source_free(made);
    return status;
}

kiln_status kiln_npz_write(const char *path, const char *const *names, const kiln_tensor *tensors,
                           size_t count, const kiln_env *env, kiln_diag *diag) {
    kiln_arena scratch;
    kiln_arena_init(&scratch, env);
    kiln_diag_at_file(diag, path);
    kiln_status status = write_archive(path, names, tensors, count, &scratch, diag);
    kiln_diag_at_file(diag, NULL);
    kiln_arena_free(&scratch);
    return status;
}
