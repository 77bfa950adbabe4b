/* stream.c - plain and gzip files as byte ranges (stream.h). */
#include "data/stream.h"

#include <inttypes.h>
#include <string.h>
#include <zlib.h>

#include "base/arena.h"
#include "base/checked.h"
#include "base/env.h"
#include "base/file.h"

enum {
    SKIP_BYTES = 65536,
    GZIP_WINDOW = 15 + 16, /* zlib: the largest window, gzip framing */
    SIZE_SLOT = 16,
    CHUNK_BYTES = 1 << 30, /* zlib counts in unsigned int */
};

struct kiln_stream {
    kiln_arena arena;
    const char *path;
    kiln_file file;
    bool gzip;
    bool inflating; /* z is initialised */
    bool ended;     /* the last member is complete */
    z_stream z;
    size_t in_at;    /* bytes of the file given to zlib */
    uint64_t out_at; /* bytes inflated */
    uint8_t skipped[SKIP_BYTES];
};

static voidpf zlib_alloc(voidpf env, uInt count, uInt bytes) {
    size_t total;
    if (!kiln_mul_size(count, bytes, &total) || !kiln_add_size(total, SIZE_SLOT, &total)) {
        return Z_NULL;
    }
    uint8_t *block = kiln_env_alloc(env, total);
    if (!block) {
        return Z_NULL;
    }
    memcpy(block, &total, sizeof total);
    return block + SIZE_SLOT;
}

static void zlib_release(voidpf env, voidpf ptr) {
    uint8_t *block = (uint8_t *)ptr - SIZE_SLOT;
    size_t total;
    memcpy(&total, block, sizeof total);
    kiln_env_release(env, block, total);
}

kiln_status kiln_stream_open(kiln_stream **out, const char *path, const kiln_env *env,
                             kiln_diag *diag) {
    kiln_stream *s = kiln_env_alloc(env, sizeof *s);
    if (!s) {
        return KILN_E_MEMORY;
    }
    memset(s, 0, sizeof *s);
    kiln_arena_init(&s->arena, env);
    s->path = kiln_arena_text(&s->arena, path, strlen(path));
    kiln_status status =
        s->path ? kiln_file_open(&s->file, env, path, kiln_env_limits(env)->external_bytes, 0, diag)
                : KILN_E_MEMORY;
    if (status != KILN_OK) {
        kiln_stream_close(s);
        return status;
    }
    s->gzip = s->file.bytes >= 2 && s->file.data[0] == 0x1f && s->file.data[1] == 0x8b;
    *out = s;
    return KILN_OK;
}

static void stop_inflating(kiln_stream *s) {
    if (s->inflating) {
        inflateEnd(&s->z);
        s->inflating = false;
    }
}

void kiln_stream_close(kiln_stream *s) {
    if (!s) {
        return;
    }
    stop_inflating(s);
    kiln_file_close(&s->file);
    kiln_arena_free(&s->arena);
    kiln_env_release(s->arena.env, s, sizeof *s);
}

static kiln_status start_inflating(kiln_stream *s) {
    stop_inflating(s);
    s->z = (z_stream){
        .zalloc = zlib_alloc,
        .zfree = zlib_release,
        .opaque = (voidpf)(uintptr_t)s->arena.env,
    };
    s->inflating = inflateInit2(&s->z, GZIP_WINDOW) == Z_OK;
    s->ended = false;
    s->in_at = 0;
    s->out_at = 0;
    return s->inflating ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status damaged(const kiln_stream *s, const char *why, kiln_diag *diag) {
    kiln_diag_at_file(diag, s->path);
    kiln_diag_at_offset(diag, (int64_t)(s->in_at - s->z.avail_in));
    kiln_status status = kiln_fail(diag, KILN_F_DATA_FORMAT, "gzip data is damaged: %s", why);
    kiln_diag_at_offset(diag, -1);
    kiln_diag_at_file(diag, NULL);
    return status;
}

/* After a member's end: another one may follow, or the file ends. */
static kiln_status next_member(kiln_stream *s, kiln_diag *diag) {
    if (s->in_at == s->file.bytes && s->z.avail_in == 0) {
        s->ended = true;
        return KILN_OK;
    }
    return inflateReset(&s->z) == Z_OK ? KILN_OK : damaged(s, "bad state", diag);
}

/* Inflates up to `bytes` bytes; *got is less only at the end of the file. */
static kiln_status inflate_some(size_t *got, void *dst, kiln_stream *s, size_t bytes,
                                kiln_diag *diag) {
    *got = 0;
    while (*got < bytes && !s->ended) {
        if (s->z.avail_in == 0) {
            size_t rest = s->file.bytes - s->in_at;
            s->z.avail_in = (uInt)(rest < CHUNK_BYTES ? rest : CHUNK_BYTES);
            s->z.next_in = (z_const Bytef *)(uintptr_t)(s->file.data + s->in_at);
            s->in_at += s->z.avail_in;
        }
        size_t want = bytes - *got < CHUNK_BYTES ? bytes - *got : CHUNK_BYTES;
        s->z.next_out = (Bytef *)dst + *got;
        s->z.avail_out = (uInt)want;
        int rc = inflate(&s->z, Z_NO_FLUSH);
        *got += want - s->z.avail_out;
        if (rc == Z_STREAM_END) {
            KILN_TRY(next_member(s, diag));
        } else if (rc == Z_MEM_ERROR) {
            return KILN_E_MEMORY;
        } else if (rc != Z_OK) {
            return damaged(s, rc == Z_BUF_ERROR ? "the file ends early" : s->z.msg, diag);
        }
    }
    s->out_at += *got;
    return KILN_OK;
}

static kiln_status ends_early(const kiln_stream *s, uint64_t need, uint64_t have, kiln_diag *diag) {
    kiln_diag_at_file(diag, s->path);
    kiln_status status =
        kiln_fail(diag, KILN_F_DATA_FORMAT,
                  "the file ends early: byte %" PRIu64 " is needed, it has %" PRIu64, need, have);
    kiln_diag_at_file(diag, NULL);
    return status;
}

static kiln_status read_gzip(void *dst, kiln_stream *s, uint64_t first, size_t bytes,
                             kiln_diag *diag) {
    if (!s->inflating || first < s->out_at) {
        KILN_TRY(start_inflating(s));
    }
    size_t got = 1;
    while (s->out_at < first && got > 0) {
        uint64_t rest = first - s->out_at;
        KILN_TRY(
            inflate_some(&got, s->skipped, s, rest < SKIP_BYTES ? (size_t)rest : SKIP_BYTES, diag));
    }
    KILN_TRY(inflate_some(&got, dst, s, bytes, diag));
    return got == bytes && s->out_at == first + bytes
               ? KILN_OK
               : ends_early(s, first + bytes, s->out_at, diag);
}

kiln_status kiln_stream_read(void *dst, kiln_stream *s, uint64_t first, size_t bytes,
                             kiln_diag *diag) {
    if (first > UINT64_MAX - bytes) {
        return ends_early(s, UINT64_MAX, s->file.bytes, diag);
    }
    if (s->gzip) {
        return read_gzip(dst, s, first, bytes, diag);
    }
    if (first > s->file.bytes || bytes > s->file.bytes - first) {
        return ends_early(s, first + bytes, s->file.bytes, diag);
    }
    memcpy(dst, s->file.data + first, bytes);
    return KILN_OK;
}

kiln_status kiln_stream_size(uint64_t *out, kiln_stream *s, kiln_diag *diag) {
    if (!s->gzip) {
        *out = s->file.bytes;
        return KILN_OK;
    }
    uint64_t most = kiln_env_limits(s->arena.env)->external_bytes;
    KILN_TRY(start_inflating(s));
    for (size_t got = 1; got > 0;) {
        KILN_TRY(inflate_some(&got, s->skipped, s, SKIP_BYTES, diag));
        if (s->out_at > most) {
            return kiln_fail(diag, KILN_F_DATA_LIMIT,
                             "\"%s\" inflates to more than the limit of %" PRIu64 " bytes", s->path,
                             most);
        }
    }
    *out = s->out_at;
    return KILN_OK;
}

bool kiln_stream_sequential(const kiln_stream *s) {
    return s->gzip;
}

const char *kiln_stream_path(const kiln_stream *s) {
    return s->path;
}
