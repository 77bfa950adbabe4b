/* archive.c - reading ZIP archives by libzip (archive.h). The archive is mapped; libzip reads it as
 * a buffer, so that no name in it ever reaches the file system. */
#include "data/archive.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#include "base/arena.h"
#include "base/env.h"
#include "data/input.h"

enum {
    MAX_MEMBERS = 4 << 20,
    MAX_RATIO = 1000,            /* deflate itself cannot exceed 1032 */
    RATIO_FREE_BYTES = 16 << 20, /* below this any ratio is harmless (arrays of zeros) */
    SKIP_BYTES = 65536,
};

typedef struct member {
    const char *name;
    size_t bytes;
    zip_uint64_t index;
    bool stored;
    zip_file_t *stream; /* opened when first read, or NULL */
    size_t stream_at;   /* bytes read from it */
} member;

struct kiln_archive {
    kiln_arena arena;
    kiln_file file;
    zip_t *zip;
    member *members;
    int64_t count;
    uint8_t skipped[SKIP_BYTES];
};

/* ---- Names ---- */

bool kiln_archive_clean_name(const char *name) {
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

static kiln_status refuse_duplicates(const kiln_archive *a, kiln_arena *scratch, kiln_diag *diag) {
    const char **sorted;
    KILN_ALLOC(sorted, scratch, a->count);
    for (int64_t i = 0; i < a->count; ++i) {
        sorted[i] = a->members[i].name;
    }
    qsort(sorted, (size_t)a->count, sizeof *sorted, compare_names);
    for (int64_t i = 1; i < a->count; ++i) {
        if (strcmp(sorted[i - 1], sorted[i]) == 0) {
            return kiln_fail(diag, KILN_F_DATA_FORMAT, "the archive has two members \"%s\"",
                             sorted[i]);
        }
    }
    return KILN_OK;
}

/* ---- Members ---- */

static kiln_status zip_failed(const kiln_archive *a, const member *m, kiln_diag *diag) {
    const char *why = m->stream ? zip_file_strerror(m->stream) : zip_strerror(a->zip);
    return kiln_fail(diag, KILN_F_DATA_FORMAT, "member \"%s\" cannot be read: %s", m->name, why);
}

static void close_stream(member *m) {
    if (m->stream) {
        zip_fclose(m->stream);
        m->stream = NULL;
    }
}

static kiln_status open_stream(kiln_archive *a, member *m, kiln_diag *diag) {
    close_stream(m);
    m->stream = zip_fopen_index(a->zip, m->index, 0);
    m->stream_at = 0;
    return m->stream ? KILN_OK : zip_failed(a, m, diag);
}

/* The next `bytes` bytes of an open member. At its end one more read makes libzip compare the
 * checksum and shows members that are longer than they claim. */
static kiln_status read_stream(void *dst, const kiln_archive *a, member *m, size_t bytes,
                               kiln_diag *diag) {
    uint8_t *at = dst;
    while (bytes > 0) {
        zip_int64_t n = zip_fread(m->stream, at, bytes);
        if (n <= 0) {
            return n < 0 ? zip_failed(a, m, diag)
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
            return n < 0 ? zip_failed(a, m, diag)
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

static kiln_status read_member(kiln_archive *a, zip_uint64_t index, kiln_diag *diag) {
    zip_stat_t st;
    const zip_uint64_t need = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE |
                              ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if (zip_stat_index(a->zip, index, 0, &st) != 0 || (st.valid & need) != need) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "archive entry %" PRIu64 " cannot be read",
                         (uint64_t)index);
    }
    if (!kiln_archive_clean_name(st.name)) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "the archive has a member named \"%s\"",
                         st.name);
    }
    KILN_TRY(check_stat(&st, st.name, a->arena.env, diag));
    member *m = &a->members[a->count];
    *m = (member){
        .name = kiln_arena_text(&a->arena, st.name, strlen(st.name)),
        .index = index,
        .bytes = (size_t)st.size,
        .stored = st.comp_method == ZIP_CM_STORE,
    };
    if (!m->name) {
        return KILN_E_MEMORY;
    }
    a->count++;
    return KILN_OK;
}

static kiln_status read_members(kiln_archive *a, kiln_arena *scratch, kiln_diag *diag) {
    zip_int64_t entries = zip_get_num_entries(a->zip, 0);
    if (entries < 0 || entries > MAX_MEMBERS) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT, "archive of %" PRId64 " members, the limit is %d",
                         (int64_t)entries, MAX_MEMBERS);
    }
    KILN_ALLOC(a->members, &a->arena, entries);
    for (zip_int64_t i = 0; i < entries; ++i) {
        KILN_TRY(read_member(a, (zip_uint64_t)i, diag));
    }
    return refuse_duplicates(a, scratch, diag);
}

static kiln_status open_zip(kiln_archive *a, kiln_diag *diag) {
    if (a->file.bytes == 0) { /* libzip would make it an archive without members */
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "no readable ZIP archive: the file is empty");
    }
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t *source = zip_source_buffer_create(a->file.data, a->file.bytes, 0, &error);
    a->zip = source ? zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &error) : NULL;
    kiln_status status = KILN_OK;
    if (!a->zip) {
        status = kiln_fail(diag, KILN_F_DATA_FORMAT, "no readable ZIP archive: %s",
                           zip_error_strerror(&error));
        zip_source_free(source);
    }
    zip_error_fini(&error);
    return status;
}

static kiln_status open_archive(kiln_archive *a, const char *path, kiln_diag *diag) {
    KILN_TRY(kiln_input_open(&a->file, path, a->arena.env, diag));
    KILN_TRY(open_zip(a, diag));
    kiln_arena scratch;
    kiln_arena_init(&scratch, a->arena.env);
    kiln_status status = read_members(a, &scratch, diag);
    kiln_arena_free(&scratch);
    return status;
}

kiln_status kiln_archive_open(kiln_archive **out, const char *path, const kiln_env *env,
                              kiln_diag *diag) {
    kiln_archive *a = kiln_env_alloc(env, sizeof *a);
    if (!a) {
        return KILN_E_MEMORY;
    }
    memset(a, 0, sizeof *a);
    kiln_arena_init(&a->arena, env);
    kiln_status status = open_archive(a, path, diag);
    kiln_diag_at_file(diag, NULL);
    if (status != KILN_OK) {
        kiln_archive_close(a);
        return status;
    }
    *out = a;
    return KILN_OK;
}

void kiln_archive_close(kiln_archive *a) {
    if (!a) {
        return;
    }
    for (int64_t i = 0; a->members && i < a->count; ++i) {
        close_stream(&a->members[i]);
    }
    if (a->zip) {
        zip_discard(a->zip);
    }
    kiln_file_close(&a->file);
    kiln_arena_free(&a->arena);
    kiln_env_release(a->arena.env, a, sizeof *a);
}

int64_t kiln_archive_count(const kiln_archive *a) {
    return a->count;
}

const char *kiln_archive_name(const kiln_archive *a, int64_t i) {
    return a->members[i].name;
}

size_t kiln_archive_size(const kiln_archive *a, int64_t i) {
    return a->members[i].bytes;
}

bool kiln_archive_stored(const kiln_archive *a, int64_t i) {
    return a->members[i].stored;
}

/* Brings a member's stream to byte `at`: by seeking (stored members), by reading on, or by starting
 * anew. */
static kiln_status seek_stream(kiln_archive *a, member *m, size_t at, kiln_diag *diag) {
    if (!m->stream) {
        KILN_TRY(open_stream(a, m, diag));
    }
    if (m->stored && at != m->stream_at && zip_fseek(m->stream, (zip_int64_t)at, SEEK_SET) == 0) {
        m->stream_at = at;
    }
    if (at < m->stream_at) {
        KILN_TRY(open_stream(a, m, diag));
    }
    while (m->stream_at < at) {
        size_t rest = at - m->stream_at;
        size_t n = rest < SKIP_BYTES ? rest : SKIP_BYTES;
        KILN_TRY(read_stream(a->skipped, a, m, n, diag));
    }
    return KILN_OK;
}

kiln_status kiln_archive_read(void *dst, kiln_archive *a, int64_t i, size_t first, size_t bytes,
                              kiln_diag *diag) {
    member *m = &a->members[i];
    if (first > m->bytes || bytes > m->bytes - first) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "member \"%s\" ends early", m->name);
    }
    KILN_TRY(seek_stream(a, m, first, diag));
    return read_stream(dst, a, m, bytes, diag);
}

void kiln_archive_rest(kiln_archive *a, int64_t i) {
    close_stream(&a->members[i]);
}
