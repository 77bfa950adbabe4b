/* npz.c - archives of arrays by libzip (npz.h). The archive is mapped; libzip reads it as a buffer,
 * so that no name in it ever reaches the file system. */
#include "data/npz.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#include "data/input.h"

enum {
    MAX_MEMBERS = 65536,
    MAX_RATIO = 1000,            /* deflate itself cannot exceed 1032 */
    RATIO_FREE_BYTES = 16 << 20, /* below this any ratio is harmless (arrays of zeros) */
    SKIP_BYTES = 65536,
    ZIP_DATE_1980 =
        1 << 5 | 1, /* 1 January 1980 in DOS form: archives do not depend on the clock */
};

typedef struct member {
    const char *name;
    kiln_npy_header header;
    size_t bytes; /* header and elements */
    zip_uint64_t index;
    bool stored;
    zip_file_t *stream; /* opened when first read, or NULL */
    size_t stream_at;   /* bytes read from it */
} member;

struct kiln_npz {
    kiln_arena arena;
    kiln_file file;
    zip_t *zip;
    member *members;
    int64_t count;
    uint8_t skipped[SKIP_BYTES];
};

/* ---- Names ---- */

/* Archive names never become paths here; hostile ones still mean a hostile archive. */
static bool clean_name(const char *name) {
    if (name[0] == '\0' || name[0] == '/' || strchr(name, '\\') || strchr(name, ':')) {
        return false;
    }
    for (const char *p = name; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (strncmp(p, "..", 2) == 0 && (p[2] == '/' || p[2] == '\0')) {
            return false;
        }
    }
    return true;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static kiln_status refuse_duplicates(const kiln_npz *npz, kiln_arena *scratch, kiln_diag *diag) {
    const char **sorted;
    KILN_ALLOC(sorted, scratch, npz->count);
    for (int64_t i = 0; i < npz->count; ++i) {
        sorted[i] = npz->members[i].name;
    }
    qsort(sorted, (size_t)npz->count, sizeof *sorted, compare_names);
    for (int64_t i = 1; i < npz->count; ++i) {
        if (strcmp(sorted[i - 1], sorted[i]) == 0) {
            return kiln_fail(diag, KILN_F_DATA_FORMAT, "the archive has two members \"%s\"",
                             sorted[i]);
        }
    }
    return KILN_OK;
}

/* ---- Members ---- */

static kiln_status zip_failed(const kiln_npz *npz, const member *m, kiln_diag *diag) {
    const char *why = m->stream ? zip_file_strerror(m->stream) : zip_strerror(npz->zip);
    return kiln_fail(diag, KILN_F_DATA_FORMAT, "member \"%s\" cannot be read: %s", m->name, why);
}

static void close_stream(member *m) {
    if (m->stream) {
        zip_fclose(m->stream);
        m->stream = NULL;
    }
}

static kiln_status open_stream(kiln_npz *npz, member *m, kiln_diag *diag) {
    close_stream(m);
    m->stream = zip_fopen_index(npz->zip, m->index, 0);
    m->stream_at = 0;
    return m->stream ? KILN_OK : zip_failed(npz, m, diag);
}

/* The next `bytes` bytes of an open member. At its end one more read makes libzip compare the
 * checksum and shows members that are longer than they claim. */
static kiln_status read_stream(void *dst, const kiln_npz *npz, member *m, size_t bytes,
                               kiln_diag *diag) {
    uint8_t *at = dst;
    while (bytes > 0) {
        zip_int64_t n = zip_fread(m->stream, at, bytes);
        if (n <= 0) {
            return n < 0 ? zip_failed(npz, m, diag)
                         : kiln_fail(diag, KILN_F_DATA_FORMAT, "member \"%s\" ends early", m->name);
        }
        at += n;
        bytes -= (size_t)n;
        m->stream_at += (size_t)n;
    }
    if (m->stream_at == m->bytes) {
        uint8_t beyond;
        zip_int64_t n = zip_fread(m->stream, &beyond, 1);
        if (n != 0) {
            return n < 0 ? zip_failed(npz, m, diag)
                         : kiln_fail(diag, KILN_F_DATA_FORMAT,
                                     "member \"%s\" is longer than it says", m->name);
        }
    }
    return KILN_OK;
}

static kiln_status check_stat(const zip_stat_t *st, const char *name, const kiln_env *env,
                              kiln_diag *diag) {
    if (st->encryption_method != ZIP_EM_NONE) {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED, "member \"%s\" is encrypted", name);
    }
    if (st->comp_method != ZIP_CM_STORE && st->comp_method != ZIP_CM_DEFLATE) {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED,
                         "member \"%s\" uses ZIP compression %d; stored and deflate are read", name,
                         st->comp_method);
    }
    uint64_t most = kiln_env_limits(env)->tensor_bytes;
    if (st->size > most) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT,
                         "member \"%s\" of %" PRIu64 " bytes is over the tensor limit of %" PRIu64,
                         name, (uint64_t)st->size, most);
    }
    if (st->size > RATIO_FREE_BYTES && st->size / MAX_RATIO >= st->comp_size) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT,
                         "member \"%s\" grows from %" PRIu64 " to %" PRIu64
                         " bytes, over the limit of %d:1",
                         name, (uint64_t)st->comp_size, (uint64_t)st->size, MAX_RATIO);
    }
    return KILN_OK;
}

static kiln_status read_header(kiln_npz *npz, kiln_arena *scratch, kiln_diag *diag) {
    member *m = &npz->members[npz->count];
    size_t prefix = m->bytes < KILN_NPY_MAX_HEADER ? m->bytes : KILN_NPY_MAX_HEADER;
    kiln_arena_mark mark = kiln_arena_here(scratch);
    void *bytes = kiln_arena_raw(scratch, prefix);
    if (!bytes) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(open_stream(npz, m, diag));
    KILN_TRY(read_stream(bytes, npz, m, prefix, diag));
    close_stream(m);
    KILN_TRY(kiln_npy_parse(&m->header, bytes, prefix, diag));
    kiln_arena_rewind(scratch, mark);
    if (m->bytes - m->header.data_at != m->header.data_bytes) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         "member \"%s\": shape and type need %zu bytes of elements, it has %zu",
                         m->name, m->header.data_bytes, m->bytes - m->header.data_at);
    }
    return KILN_OK;
}

static kiln_status read_member(kiln_npz *npz, zip_uint64_t index, kiln_arena *scratch,
                               kiln_diag *diag) {
    zip_stat_t st;
    const zip_uint64_t need = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE |
                              ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if (zip_stat_index(npz->zip, index, 0, &st) != 0 || (st.valid & need) != need) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "archive entry %" PRIu64 " cannot be read",
                         (uint64_t)index);
    }
    if (!clean_name(st.name)) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "the archive has a member named \"%s\"",
                         st.name);
    }
    KILN_TRY(check_stat(&st, st.name, npz->arena.env, diag));
    size_t len = strlen(st.name);
    if (len < 5 || strcmp(st.name + len - 4, ".npy") != 0) {
        kiln_warn(diag, KILN_F_DATA_FORMAT, "member \"%s\" is no .npy array and is skipped",
                  st.name);
        return KILN_OK;
    }
    member *m = &npz->members[npz->count];
    *m = (member){
        .index = index,
        .bytes = (size_t)st.size,
        .stored = st.comp_method == ZIP_CM_STORE,
    };
    m->name = kiln_arena_text(&npz->arena, st.name, len - 4);
    if (!m->name) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(read_header(npz, scratch, diag));
    npz->count++;
    return KILN_OK;
}

static kiln_status read_members(kiln_npz *npz, kiln_arena *scratch, kiln_diag *diag) {
    zip_int64_t entries = zip_get_num_entries(npz->zip, 0);
    if (entries < 0 || entries > MAX_MEMBERS) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT, "archive of %" PRId64 " members, the limit is %d",
                         (int64_t)entries, MAX_MEMBERS);
    }
    /* One more: the entry being read is not counted yet. */
    KILN_ALLOC(npz->members, &npz->arena, entries + 1);
    for (zip_int64_t i = 0; i < entries; ++i) {
        KILN_TRY(read_member(npz, (zip_uint64_t)i, scratch, diag));
    }
    return refuse_duplicates(npz, scratch, diag);
}

static kiln_status open_zip(kiln_npz *npz, kiln_diag *diag) {
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t *source = zip_source_buffer_create(npz->file.data, npz->file.bytes, 0, &error);
    npz->zip = source ? zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &error) : NULL;
    kiln_status status = KILN_OK;
    if (!npz->zip) {
        status = kiln_fail(diag, KILN_F_DATA_FORMAT, "no readable ZIP archive: %s",
                           zip_error_strerror(&error));
        zip_source_free(source);
    }
    zip_error_fini(&error);
    return status;
}

static kiln_status open_archive(kiln_npz *npz, const char *path, kiln_diag *diag) {
    KILN_TRY(kiln_input_open(&npz->file, path, npz->arena.env, diag));
    KILN_TRY(open_zip(npz, diag));
    kiln_arena scratch;
    kiln_arena_init(&scratch, npz->arena.env);
    kiln_status status = read_members(npz, &scratch, diag);
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
    kiln_status status = open_archive(npz, path, diag);
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
    for (int64_t i = 0; npz->members && i <= npz->count; ++i) {
        close_stream(&npz->members[i]);
    }
    if (npz->zip) {
        zip_discard(npz->zip);
    }
    kiln_file_close(&npz->file);
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
    return npz->members[i].stored;
}

/* Brings a member's stream to byte `at`: by seeking (stored members), by reading on, or by starting
 * anew. */
static kiln_status seek_stream(kiln_npz *npz, member *m, size_t at, kiln_diag *diag) {
    if (!m->stream) {
        KILN_TRY(open_stream(npz, m, diag));
    }
    if (m->stored && at != m->stream_at && zip_fseek(m->stream, (zip_int64_t)at, SEEK_SET) == 0) {
        m->stream_at = at;
    }
    if (at < m->stream_at) {
        KILN_TRY(open_stream(npz, m, diag));
    }
    while (m->stream_at < at) {
        size_t rest = at - m->stream_at;
        size_t n = rest < SKIP_BYTES ? rest : SKIP_BYTES;
        KILN_TRY(read_stream(npz->skipped, npz, m, n, diag));
    }
    return KILN_OK;
}

kiln_status kiln_npz_bytes(void *dst, kiln_npz *npz, int64_t i, size_t first, size_t bytes,
                           kiln_diag *diag) {
    member *m = &npz->members[i];
    const kiln_npy_header *h = &m->header;
    if (first > h->data_bytes || bytes > h->data_bytes - first) {
        return kiln_fail(diag, KILN_F_INTERNAL, "read past the end of member \"%s\"", m->name);
    }
    KILN_TRY(seek_stream(npz, m, h->data_at + first, diag));
    return read_stream(dst, npz, m, bytes, diag);
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
    if (!clean_name(file_name)) {
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

static kiln_status write_archive(const char *path, const char *const *names,
                                 const kiln_tensor *tensors, size_t count, kiln_arena *scratch,
                                 kiln_diag *diag) {
    int code = 0;
    zip_t *zip = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    if (!zip) {
        zip_error_t error;
        zip_error_init_with_code(&error, code);
        kiln_status status = kiln_fail(diag, KILN_F_FILE_WRITE, "the archive cannot be written: %s",
                                       zip_error_strerror(&error));
        zip_error_fini(&error);
        return status;
    }
    kiln_status status = add_arrays(zip, names, tensors, count, scratch, diag);
    /* libzip writes to a temporary file beside `path` and renames it when it is whole. */
    if (status == KILN_OK && zip_close(zip) != 0) {
        status = kiln_fail(diag, KILN_F_FILE_WRITE, "the archive cannot be written: %s",
                           zip_strerror(zip));
    } else if (status == KILN_OK) {
        return KILN_OK;
    }
    zip_discard(zip);
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
