/* calib_file.c - the calibration file: every histogram, mergeable, with what it was made from.
 *
 * Little-endian, packed:
 *
 *     8 bytes   "KILNCAL\n"
 *     u32       version, 1
 *     u32       bits of the number of bins a side
 *     16 bytes  hash of the model
 *     2 x u64   sum of the samples' hashes, high half first
 *     u64       samples
 *     text      preprocessing                       text: u32 length, bytes
 *     u32       tensors, then for each, names strictly ascending:
 *       text      name
 *       4 x u64   finite elements, zeros among them, NaN, infinities
 *       2 x f32   least and greatest finite element (0 without any)
 *       2 x       negative then positive bins, if one of those is not 0:
 *         u32       filled bins, then for each:
 *         varint      empty bins before it
 *         varint      elements
 *     16 bytes  XXH3-128 of all before, high half first
 *
 * The exponent of a histogram follows from its extremes. A file whose hash fits may still lie:
 * everything is held against everything else, so that what was read is what some data could have
 * given. */
#include <math.h>
#include <string.h>

#include "base/env.h"
#include "base/file.h"
#include "base/half.h"
#include "base/text.h"
#include "quant/calibration.h"

static const char magic[8] = {'K', 'I', 'L', 'N', 'C', 'A', 'L', '\n'};
enum { VERSION = 1, HASH_BYTES = 16, MAX_FILE_BYTES = 1 << 30 };

/* ---- Writing ---- */

static void put_u64(kiln_text *t, uint64_t v, int bytes) {
    char b[8];
    for (int i = 0; i < bytes; i++) {
        b[i] = (char)(v >> (8 * i) & 0xff);
    }
    kiln_text_append(t, b, (size_t)bytes);
}

static void put_varint(kiln_text *t, uint64_t v) {
    for (; v > 127; v >>= 7) {
        kiln_text_char(t, (char)(v & 127) | (char)-128);
    }
    kiln_text_char(t, (char)v);
}

static void put_string(kiln_text *t, const char *s) {
    size_t len = strlen(s);
    put_u64(t, len, 4);
    kiln_text_append(t, s, len);
}

static void put_hash(kiln_text *t, kiln_hash128 h) {
    put_u64(t, h.high, 8);
    put_u64(t, h.low, 8);
}

static void put_bins(kiln_text *t, const uint64_t *bins) {
    uint64_t filled = 0;
    for (int32_t i = 0; i < KILN_BINS; i++) {
        filled += bins[i] > 0 ? 1 : 0;
    }
    put_u64(t, filled, 4);
    for (int32_t i = 0, next = 0; i < KILN_BINS; i++) {
        if (bins[i] > 0) {
            put_varint(t, (uint64_t)(i - next));
            put_varint(t, bins[i]);
            next = i + 1;
        }
    }
}

static void put_tensor(kiln_text *t, const kiln_observed *item) {
    const kiln_observer *o = &item->seen;
    put_string(t, item->name);
    put_u64(t, o->count, 8);
    put_u64(t, o->zeros, 8);
    put_u64(t, o->nans, 8);
    put_u64(t, o->infs, 8);
    put_u64(t, kiln_f32_bits(o->count ? o->min : 0), 4);
    put_u64(t, kiln_f32_bits(o->count ? o->max : 0), 4);
    for (int32_t side = 0; side < 2 && kiln_observer_amax(o) > 0; side++) {
        put_bins(t, o->bins[side]);
    }
}

kiln_status kiln_calibration_write(const kiln_calibration *calibration, const char *path,
                                   kiln_diag *diag) {
    const kiln_calibration *c = calibration;
    kiln_text t;
    kiln_text_init(&t, c->env);
    kiln_text_append(&t, magic, sizeof magic);
    put_u64(&t, VERSION, 4);
    put_u64(&t, KILN_BIN_BITS, 4);
    kiln_text_append(&t, c->model_hash, sizeof c->model_hash);
    put_hash(&t, c->data);
    put_u64(&t, c->samples, 8);
    put_string(&t, c->preprocess);
    put_u64(&t, c->n_tensors, 4);
    for (size_t i = 0; i < c->n_tensors; i++) {
        put_tensor(&t, c->tensors[i]);
    }
    kiln_hash128 hash = kiln_text_ok(&t) ? kiln_hash_128(t.data, t.len) : (kiln_hash128){0, 0};
    put_hash(&t, hash);
    kiln_status status =
        kiln_text_ok(&t) ? kiln_file_write(path, t.data, t.len, diag) : KILN_E_MEMORY;
    kiln_text_free(&t);
    return kiln_diag_close(diag, status);
}

/* ---- Reading ---- */

typedef struct reader {
    const uint8_t *at, *end;
    bool failed; /* asked for more than there is */
    uint64_t bin_bytes;
    kiln_calibration *c;
    kiln_diag *diag;
} reader;

static uint64_t take_u64(reader *r, int bytes) {
    uint64_t v = 0;
    if (r->end - r->at < bytes) {
        r->failed = true;
        r->at = r->end;
        return 0;
    }
    for (int i = 0; i < bytes; i++) {
        v |= (uint64_t)r->at[i] << (8 * i);
    }
    r->at += bytes;
    return v;
}

static uint64_t take_varint(reader *r) {
    uint64_t v = 0;
    for (int shift = 0; shift < 63; shift += 7) {
        uint64_t byte = take_u64(r, 1);
        v |= (byte & 127) << shift;
        if (byte < 128) {
            return v;
        }
    }
    r->failed = true;
    return 0;
}

static float take_float(reader *r) {
    return kiln_f32_from_bits((uint32_t)take_u64(r, 4));
}

static kiln_hash128 take_hash(reader *r) {
    kiln_hash128 h;
    h.high = take_u64(r, 8);
    h.low = take_u64(r, 8);
    return h;
}

/* A copy of a text of at most `most` bytes without NUL; *out is NULL for others. */
static kiln_status take_string(reader *r, size_t most, const char **out) {
    uint64_t len = take_u64(r, 4);
    *out = NULL;
    if (r->failed || len > (uint64_t)(r->end - r->at) || len > most ||
        (len > 0 && memchr(r->at, 0, (size_t)len))) {
        r->failed = true;
        return KILN_OK;
    }
    *out = kiln_arena_text(&r->c->arena, (const char *)r->at, (size_t)len);
    r->at += len;
    return *out ? KILN_OK : KILN_E_MEMORY;
}

/* One side, of which `extreme` is the largest |x| (0: none): its bin is the last one filled. */
static void take_bins(reader *r, kiln_observer *o, int32_t side, float extreme) {
    int32_t last = extreme > 0 ? (int32_t)((double)extreme / kiln_observer_width(o)) : -1;
    uint64_t filled = take_u64(r, 4), next = 0;
    for (uint64_t i = 0; i < filled && !r->failed; i++) {
        uint64_t skip = take_varint(r), n = take_varint(r);
        if (last < 0 || skip > (uint64_t)last || next + skip > (uint64_t)last || n == 0 ||
            n > KILN_OBSERVER_MAX_COUNT) {
            r->failed = true;
            return;
        }
        o->bins[side][next + skip] = n;
        next += skip + 1;
    }
    r->failed = r->failed || next != (uint64_t)(last + 1);
}

static bool sums_up(const kiln_observer *o) {
    uint64_t n = o->zeros;
    for (int32_t i = 0; o->bins[0] && i < 2 * KILN_BINS; i++) {
        uint64_t more = o->bins[i / KILN_BINS][i % KILN_BINS];
        if (more > o->count - n) {
            return false;
        }
        n += more;
    }
    return n == o->count;
}

static kiln_status limit_bins(reader *r) {
    uint64_t most = kiln_env_limits(r->c->env)->memory_bytes;
    r->bin_bytes += 2 * KILN_BINS * sizeof(uint64_t);
    if (r->bin_bytes > most) {
        return kiln_fail(r->diag, KILN_F_DATA_LIMIT,
                         "the histograms take more than the %llu bytes that are allowed",
                         (unsigned long long)most);
    }
    return KILN_OK;
}

/* The counts and extremes of a tensor, as some data could have given them. */
static void take_counts(reader *r, kiln_observer *o) {
    const uint64_t most = KILN_OBSERVER_MAX_COUNT;
    kiln_observer_init(o);
    o->count = take_u64(r, 8);
    o->zeros = take_u64(r, 8);
    o->nans = take_u64(r, 8);
    o->infs = take_u64(r, 8);
    float min = take_float(r), max = take_float(r);
    bool fits = o->count <= most && o->nans <= most && o->infs <= most &&
                o->count + o->nans + o->infs <= most && o->zeros <= o->count;
    bool ordered = isfinite(min) && isfinite(max) && min <= max;
    if (o->count > 0) {
        o->min = min;
        o->max = max;
        ordered = ordered && (o->zeros > 0 || (min != 0 && max != 0));
    } else {
        ordered = min == 0 && max == 0;
    }
    r->failed = r->failed || !fits || !ordered;
}

static kiln_status take_tensor(reader *r, const char **last_name) {
    kiln_observer *o, seen;
    const char *name;
    KILN_TRY(take_string(r, kiln_env_limits(r->c->env)->name_bytes, &name));
    take_counts(r, &seen);
    if (r->failed || (*last_name && strcmp(*last_name, name) >= 0)) {
        r->failed = true;
        return KILN_OK;
    }
    KILN_TRY(kiln_calibration_observer(r->c, name, &o, r->diag));
    *last_name = name;
    *o = seen;
    if (kiln_observer_amax(o) > 0) {
        KILN_TRY(limit_bins(r));
        KILN_TRY(kiln_observer_cover(o, kiln_observer_amax(o), &r->c->arena));
        take_bins(r, o, 0, o->min < 0 ? -o->min : 0);
        take_bins(r, o, 1, o->max > 0 ? o->max : 0);
    }
    r->failed = r->failed || !sums_up(o);
    return KILN_OK;
}

static kiln_status take_body(reader *r) {
    kiln_calibration *c = r->c;
    const char *last = NULL;
    uint64_t version = take_u64(r, 4), bits = take_u64(r, 4);
    if (version > VERSION) {
        return kiln_fail(r->diag, KILN_F_DATA_UNSUPPORTED,
                         "the calibration has form %llu, this Kiln reads up to %d",
                         (unsigned long long)version, VERSION);
    }
    r->failed = version != VERSION || bits != KILN_BIN_BITS || r->end - r->at < 16;
    if (!r->failed) {
        memcpy(c->model_hash, r->at, 16);
        r->at += 16;
        c->data = take_hash(r);
        c->samples = take_u64(r, 8);
        KILN_TRY(take_string(r, KILN_CALIBRATION_MAX_TEXT, &c->preprocess));
    }
    uint64_t n = take_u64(r, 4);
    for (uint64_t i = 0; i < n && !r->failed; i++) {
        KILN_TRY(take_tensor(r, &last));
    }
    if (r->failed || r->at != r->end) {
        return kiln_fail(r->diag, KILN_F_DATA_FORMAT,
                         "the calibration contradicts itself after %zu tensors", c->n_tensors);
    }
    return KILN_OK;
}

static kiln_status read_file(kiln_calibration *c, const kiln_file *file, kiln_diag *diag) {
    const size_t front = sizeof magic;
    if (file->bytes < front + HASH_BYTES || memcmp(file->data, magic, front) != 0) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "the file is no Kiln calibration");
    }
    size_t body = file->bytes - HASH_BYTES;
    kiln_hash128 want = kiln_hash_128(file->data, body), have;
    reader r = {.at = file->data + body, .end = file->data + file->bytes, .c = c, .diag = diag};
    have = take_hash(&r);
    if (have.low != want.low || have.high != want.high) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "the calibration is damaged: its hash differs");
    }
    r.at = file->data + front;
    r.end = file->data + body;
    return take_body(&r);
}

kiln_status kiln_calibration_read(kiln_calibration **out, const kiln_env *env, const char *path,
                                  kiln_diag *diag) {
    kiln_file file;
    kiln_calibration *c;
    kiln_status status = kiln_calibration_create(&c, env);
    if (status != KILN_OK) {
        return kiln_diag_close(diag, status);
    }
    status = kiln_file_open(&file, env, path, MAX_FILE_BYTES, 0, diag);
    if (status == KILN_OK) {
        kiln_diag_at_file(diag, path);
        status = read_file(c, &file, diag);
        kiln_diag_at_file(diag, NULL);
        kiln_file_close(&file);
    }
    if (status == KILN_OK) {
        *out = c;
    } else {
        kiln_calibration_destroy(c);
    }
    return kiln_diag_close(diag, status);
}
