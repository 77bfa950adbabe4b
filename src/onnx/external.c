/* external.c - tensor data in files beside the model. */
#include "onnx/external.h"

#include <string.h>

#include "base/dir.h"
#include "base/hash.h"

/* Each location is opened once; more files than any exporter writes are refused. */
enum { MAX_FILES = 10000, MAX_DECIMALS = 18 };

typedef struct opened {
    kiln_view location;
    const kiln_file *file;
    bool verified;
} opened;

struct kiln_external {
    kiln_dir dir;
    const kiln_env *env;
    kiln_arena *arena;
    kiln_files *files;
    opened *items;
    size_t count, cap;
    uint64_t bytes;
    bool copy, verify;
};

kiln_status kiln_external_create(kiln_external **out, const char *model_path, const char *folder,
                                 const kiln_import_options *options, kiln_files *files,
                                 kiln_arena *arena, const kiln_env *env, kiln_diag *diag) {
    kiln_external *e;
    KILN_ALLOC(e, arena, 1);
    e->env = env;
    e->arena = arena;
    e->files = files;
    e->copy = options && options->no_mmap;
    e->verify = options && options->verify_checksums;
    KILN_TRY(folder ? kiln_dir_open(&e->dir, folder, 0, diag)
                    : kiln_dir_open_beside(&e->dir, model_path, 0, diag));
    *out = e;
    return KILN_OK;
}

void kiln_external_close(kiln_external *external) {
    if (external) {
        kiln_dir_close(&external->dir);
    }
}

uint64_t kiln_external_bytes(const kiln_external *external) {
    return external ? external->bytes : 0;
}

/* What the entries of external_data say. */
typedef struct place {
    kiln_view location, checksum;
    uint64_t offset, length;
    bool has_location, has_offset, has_length, has_checksum;
} place;

/* Plain decimal digits; anything else, and what is too long, is no number. */
static bool parse_decimal(kiln_view text, uint64_t *out) {
    if (text.n == 0 || text.n > MAX_DECIMALS) {
        return false;
    }
    uint64_t v = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9') {
            return false;
        }
        v = v * 10 + (uint64_t)(text.p[i] - '0');
    }
    *out = v;
    return true;
}

static kiln_status take_entry(kiln_decoder *d, const kiln_pb_entry *e, place *at) {
    bool *seen = kiln_view_is(e->key, "location")   ? &at->has_location
                 : kiln_view_is(e->key, "offset")   ? &at->has_offset
                 : kiln_view_is(e->key, "length")   ? &at->has_length
                 : kiln_view_is(e->key, "checksum") ? &at->has_checksum
                                                    : NULL;
    if (!seen || *seen) {
        return kiln_fail(d->diag, KILN_F_EXTERNAL_KEY, "external data has %s key \"%.*s\"",
                         seen ? "a second" : "an unknown", e->key.n < 64 ? (int)e->key.n : 64,
                         e->key.n ? e->key.p : "");
    }
    *seen = true;
    if (seen == &at->has_location) {
        at->location = e->value;
    } else if (seen == &at->has_checksum) {
        at->checksum = e->value;
    } else if (!parse_decimal(e->value, seen == &at->has_offset ? &at->offset : &at->length)) {
        return kiln_fail(d->diag, KILN_F_EXTERNAL_RANGE,
                         "the %s of external data is no decimal number of at most %d digits",
                         seen == &at->has_offset ? "offset" : "length", MAX_DECIMALS);
    }
    return KILN_OK;
}

static kiln_status read_place(kiln_decoder *d, const kiln_pb_tensor *tensor, place *out) {
    kiln_msg at = tensor->head.self, sub;
    for (;;) {
        kiln_pb_entry entry;
        KILN_TRY(kiln_pb_each(&d->wire, &at, KILN_PB_TENSOR_EXTERNAL_DATA, &sub));
        if (!sub.p) {
            break;
        }
        KILN_TRY(kiln_pb_decode(&d->wire, &kiln_pb_entry_desc, &sub, &entry));
        KILN_TRY(take_entry(d, &entry, out));
    }
    if (!out->has_location) {
        return kiln_fail(d->diag, KILN_F_EXTERNAL_KEY, "external data names no location");
    }
    return KILN_OK;
}

/* Locations by which one program hands addresses to itself; in a file they are an attack. */
static bool is_memory_marker(kiln_view location) {
    static const char marker[] = "_ORT_MEM_ADDR_";
    size_t n = sizeof marker - 1;
    for (size_t i = 0; i + n <= location.n; i++) {
        if (memcmp(location.p + i, marker, n) == 0) {
            return true;
        }
    }
    return false;
}

static kiln_status open_file(kiln_decoder *d, kiln_view location, opened **out) {
    kiln_external *e = d->external;
    for (size_t i = 0; i < e->count; i++) {
        if (kiln_view_equal(e->items[i].location, location)) {
            *out = &e->items[i];
            return KILN_OK;
        }
    }
    if (e->count >= MAX_FILES) {
        return kiln_fail(d->diag, KILN_F_GRAPH_LIMIT, "external data lies in more than %d files",
                         MAX_FILES);
    }
    kiln_file *file;
    KILN_ALLOC(file, e->arena, 1);
    KILN_PUSH(e->arena, e->files->items, e->files->count, e->files->cap, file);
    KILN_TRY(kiln_dir_file(&e->dir, file, e->env, location.p, location.n,
                           d->limits->external_bytes - e->bytes, e->copy ? KILN_FILE_COPY : 0,
                           d->diag));
    e->bytes += file->bytes;
    opened item = {.location = location, .file = file};
    KILN_PUSH(e->arena, e->items, e->count, e->cap, item);
    *out = &e->items[e->count - 1];
    return KILN_OK;
}

/* The checksum is the SHA-1 of the whole file in hexadecimal. */
static kiln_status verify(kiln_decoder *d, opened *o, kiln_view checksum) {
    uint8_t digest[KILN_SHA256_BYTES];
    char text[2 * KILN_SHA1_BYTES + 1];
    kiln_sha sha;
    kiln_sha1_init(&sha);
    kiln_sha_update(&sha, o->file->data, o->file->bytes);
    kiln_hex(text, digest, kiln_sha_final(&sha, digest));
    bool same = checksum.n == sizeof text - 1;
    for (size_t i = 0; same && i < checksum.n; i++) {
        char c = checksum.p[i];
        same = (c >= 'A' && c <= 'F' ? (char)(c + ('a' - 'A')) : c) == text[i];
    }
    if (!same) {
        return kiln_fail(d->diag, KILN_F_EXTERNAL_CHECKSUM,
                         "\"%.*s\" has SHA-1 %s, the model states another", (int)o->location.n,
                         o->location.p, text);
    }
    o->verified = true;
    return KILN_OK;
}

kiln_status kiln_external_read(kiln_decoder *d, const kiln_pb_tensor *tensor, size_t bytes,
                               const void **out) {
    place at = {.offset = 0};
    opened *o = NULL;
    KILN_TRY(read_place(d, tensor, &at));
    if (is_memory_marker(at.location)) {
        return kiln_fail(d->diag, KILN_F_EXTERNAL_PATH,
                         "the location of external data is a marker for memory, not a file");
    }
    if (!d->external) {
        return kiln_hint(
            d->diag,
            kiln_fail(d->diag, KILN_F_EXTERNAL_PATH,
                      "tensor \"%.*s\" has external data, but the model was loaded from memory",
                      (int)tensor->name.n, tensor->name.n ? tensor->name.p : ""),
            "name the folder of its external data, or load the model from its file");
    }
    if (at.has_length && at.length != bytes) {
        return kiln_fail(
            d->diag, KILN_F_EXTERNAL_RANGE,
            "external data of tensor \"%.*s\" has %llu bytes, its type and dims need %zu",
            (int)tensor->name.n, tensor->name.n ? tensor->name.p : "",
            (unsigned long long)at.length, bytes);
    }
    KILN_TRY(open_file(d, at.location, &o));
    if (at.offset > o->file->bytes || bytes > o->file->bytes - at.offset) {
        return kiln_fail(d->diag, KILN_F_EXTERNAL_RANGE,
                         "tensor \"%.*s\" lies at byte %llu with %zu bytes, \"%.*s\" has %zu",
                         (int)tensor->name.n, tensor->name.n ? tensor->name.p : "",
                         (unsigned long long)at.offset, bytes, (int)at.location.n, at.location.p,
                         o->file->bytes);
    }
    if (d->external->verify && at.has_checksum && !o->verified) {
        KILN_TRY(verify(d, o, at.checksum));
    }
    *out = o->file->data + at.offset;
    return KILN_OK;
}
