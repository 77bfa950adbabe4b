/* npy.c - reading and writing NumPy's array files (npy.h). */
#include "data/npy.h"

#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/text.h"
#include "data/input.h"

enum { PREFIX_V1 = 10, PREFIX_V2 = 12, DATA_ALIGN = 64 };

static const char magic[] = "\x93NUMPY";
enum { MAGIC_BYTES = sizeof magic - 1 };

/* NumPy's kind letter and size for each type. Single bytes carry '|' for their byte order. */
static const struct {
    char kind;
    int32_t bytes;
    int32_t part_bytes; /* what the byte order applies to: half of a complex number */
    kiln_dtype dtype;
} types[] = {
    {'f', 4, 4, KILN_DTYPE_F32},  {'f', 8, 8, KILN_DTYPE_F64},   {'f', 2, 2, KILN_DTYPE_F16},
    {'b', 1, 1, KILN_DTYPE_BOOL}, {'u', 1, 1, KILN_DTYPE_U8},    {'i', 1, 1, KILN_DTYPE_I8},
    {'u', 2, 2, KILN_DTYPE_U16},  {'i', 2, 2, KILN_DTYPE_I16},   {'u', 4, 4, KILN_DTYPE_U32},
    {'i', 4, 4, KILN_DTYPE_I32},  {'u', 8, 8, KILN_DTYPE_U64},   {'i', 8, 8, KILN_DTYPE_I64},
    {'c', 8, 4, KILN_DTYPE_C64},  {'c', 16, 8, KILN_DTYPE_C128},
};

static int32_t part_bytes(kiln_dtype dtype) {
    for (size_t i = 0; i < KILN_COUNT_OF(types); ++i) {
        if (types[i].dtype == dtype) {
            return types[i].part_bytes;
        }
    }
    return 1;
}

/* ---- The header: a Python dict literal ---- */

typedef struct cursor {
    const char *at;
    const char *end;
} cursor;

static void skip_space(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t')) {
        ++c->at;
    }
}

/* Consumes `ch` after white space. */
static bool take(cursor *c, char ch) {
    skip_space(c);
    if (c->at < c->end && *c->at == ch) {
        ++c->at;
        return true;
    }
    return false;
}

static bool take_word(cursor *c, const char *word) {
    size_t len = strlen(word);
    skip_space(c);
    if ((size_t)(c->end - c->at) >= len && memcmp(c->at, word, len) == 0) {
        c->at += len;
        return true;
    }
    return false;
}

/* A quoted string without escapes, which no key or plain descr needs. */
static bool take_string(cursor *c, const char **out, size_t *out_len) {
    skip_space(c);
    if (c->at >= c->end || (*c->at != '\'' && *c->at != '"')) {
        return false;
    }
    char quote = *c->at++;
    const char *first = c->at;
    while (c->at < c->end && *c->at != quote && *c->at != '\\' && *c->at != '\n') {
        ++c->at;
    }
    if (c->at >= c->end || *c->at != quote) {
        return false;
    }
    *out = first;
    *out_len = (size_t)(c->at++ - first);
    return true;
}

static bool take_dim(cursor *c, int64_t *out) {
    skip_space(c);
    const char *first = c->at;
    int64_t v = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; ++c->at) {
        if (!kiln_mul_i64(v, 10, &v) || !kiln_add_i64(v, *c->at - '0', &v)) {
            return false;
        }
    }
    *out = v;
    bool ok = c->at > first;
    if (ok && c->at < c->end && *c->at == 'L') {
        ++c->at; /* Python 2 wrote long integers so */
    }
    return ok;
}

/* "<f4": byte order, kind, bytes. False for what is no plain number. */
static bool parse_descr(kiln_npy_header *h, const char *s, size_t len) {
    int32_t bytes = 0;
    size_t end = 2;
    for (; end < len && s[end] >= '0' && s[end] <= '9' && bytes < 1000; ++end) {
        bytes = bytes * 10 + (s[end] - '0');
    }
    if (end != len || !memchr("<>=|", s[0], 4) || s[2] == '0' || (s[0] == '|' && bytes != 1)) {
        return false;
    }
    for (size_t i = 0; i < KILN_COUNT_OF(types); ++i) {
        if (types[i].kind == s[1] && types[i].bytes == bytes) {
            h->dtype = types[i].dtype;
            h->swapped = s[0] == '>' && bytes > 1;
            return true;
        }
    }
    return false;
}

static kiln_status read_descr(kiln_npy_header *h, cursor *c, kiln_diag *diag) {
    const char *s;
    size_t len;
    if (take(c, '[')) {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED, "record arrays are not read");
    }
    if (!take_string(c, &s, &len) || len < 2) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, ".npy header: descr is no type string");
    }
    if (s[0] == 'O' || s[1] == 'O') {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED,
                         "object arrays hold pickled Python objects and are never read");
    }
    if (!parse_descr(h, s, len)) {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED, ".npy element type \"%.*s\" is not read",
                         (int)(len < 32 ? len : 32), s);
    }
    return KILN_OK;
}

static kiln_status read_shape(kiln_npy_header *h, cursor *c, kiln_diag *diag) {
    bool ok = take(c, '(');
    while (ok && !take(c, ')')) {
        if (h->rank == KILN_MAX_RANK) {
            return kiln_fail(diag, KILN_F_DATA_LIMIT, ".npy shape has more than %d dims",
                             KILN_MAX_RANK);
        }
        ok = take_dim(c, &h->dims[h->rank++]);
        if (ok && !take(c, ',')) {
            /* "(3)" is a number in Python, not a tuple. */
            ok = h->rank > 1 && take(c, ')');
            break;
        }
    }
    return ok ? KILN_OK
              : kiln_fail(diag, KILN_F_DATA_FORMAT, ".npy header: shape is no tuple of sizes");
}

static kiln_status read_order(kiln_npy_header *h, cursor *c, kiln_diag *diag) {
    h->fortran = take_word(c, "True");
    if (!h->fortran && !take_word(c, "False")) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         ".npy header: fortran_order is neither True nor False");
    }
    return KILN_OK;
}

static const struct {
    const char *name;
    kiln_status (*read)(kiln_npy_header *h, cursor *c, kiln_diag *diag);
} header_keys[] = {
    {"descr", read_descr},
    {"fortran_order", read_order},
    {"shape", read_shape},
};

static kiln_status read_entry(kiln_npy_header *h, cursor *c, uint32_t *seen, kiln_diag *diag) {
    const char *name;
    size_t len;
    if (!take_string(c, &name, &len) || !take(c, ':')) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, ".npy header is no dict of plain values");
    }
    for (uint32_t i = 0; i < KILN_COUNT_OF(header_keys); ++i) {
        if (strlen(header_keys[i].name) == len && memcmp(header_keys[i].name, name, len) == 0) {
            if (*seen & 1u << i) {
                return kiln_fail(diag, KILN_F_DATA_FORMAT, ".npy header has \"%s\" twice",
                                 header_keys[i].name);
            }
            *seen |= 1u << i;
            return header_keys[i].read(h, c, diag);
        }
    }
    return kiln_fail(diag, KILN_F_DATA_FORMAT, ".npy header has an unknown key");
}

static kiln_status read_dict(kiln_npy_header *h, const char *text, size_t len, kiln_diag *diag) {
    cursor c = {text, text + len};
    uint32_t seen = 0;
    bool ok = take(&c, '{');
    while (ok && !take(&c, '}')) {
        KILN_TRY(read_entry(h, &c, &seen, diag));
        if (!take(&c, ',')) {
            ok = take(&c, '}');
            break;
        }
    }
    skip_space(&c);
    if (!ok || c.at != c.end) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, ".npy header is no dict of plain values");
    }
    if (seen != 7) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         ".npy header lacks descr, fortran_order or shape");
    }
    return KILN_OK;
}

kiln_status kiln_npy_parse(kiln_npy_header *out, const void *bytes, size_t size, kiln_diag *diag) {
    const uint8_t *b = bytes;
    *out = (kiln_npy_header){.dtype = KILN_DTYPE_NONE};
    if (size < PREFIX_V1 || memcmp(b, magic, MAGIC_BYTES) != 0) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "the data does not begin like an .npy file");
    }
    if (b[6] < 1 || b[6] > 3) {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED, ".npy version %d.%d is not read", b[6],
                         b[7]);
    }
    size_t prefix = b[6] == 1 ? PREFIX_V1 : PREFIX_V2;
    size_t len = (size_t)b[8] | (size_t)b[9] << 8;
    if (b[6] > 1 && size >= PREFIX_V2) {
        len |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
    }
    if (size >= prefix && len > KILN_NPY_MAX_HEADER - prefix) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT,
                         ".npy header of %zu bytes is over the limit of %d", len,
                         KILN_NPY_MAX_HEADER);
    }
    if (size < prefix || size - prefix < len) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, ".npy file ends inside its header");
    }
    KILN_TRY(read_dict(out, (const char *)b + prefix, len, diag));
    int64_t count;
    if (!kiln_dims_count(out->dims, out->rank, &count) ||
        !kiln_dtype_bytes(out->dtype, count, &out->data_bytes)) {
        return kiln_fail(diag, KILN_F_OVERFLOW, ".npy shape is too large to address");
    }
    out->data_at = prefix + len;
    return KILN_OK;
}

/* ---- Elements ---- */

static void swap_bytes(uint8_t *data, size_t bytes, int32_t part) {
    for (size_t at = 0; at + (size_t)part <= bytes; at += (size_t)part) {
        for (int32_t lo = 0, hi = part - 1; lo < hi; ++lo, --hi) {
            uint8_t t = data[at + (size_t)lo];
            data[at + (size_t)lo] = data[at + (size_t)hi];
            data[at + (size_t)hi] = t;
        }
    }
}

/* Row-major copy of an array whose first dim varies fastest: an odometer over the row-major order
 * whose step in dim d is the product of the dims before it. */
static void transpose(uint8_t *dst, const uint8_t *src, const kiln_npy_header *h, size_t element) {
    size_t stride[KILN_MAX_RANK];
    int64_t index[KILN_MAX_RANK] = {0};
    size_t step = element;
    for (int32_t d = 0; d < h->rank; ++d) {
        stride[d] = step;
        step *= (size_t)h->dims[d];
    }
    for (size_t done = 0; done < h->data_bytes; done += element) {
        memcpy(dst + done, src, element);
        for (int32_t d = h->rank - 1; d >= 0; --d) {
            src += stride[d];
            if (++index[d] < h->dims[d]) {
                break;
            }
            src -= stride[d] * (size_t)h->dims[d];
            index[d] = 0;
        }
    }
}

kiln_status kiln_npy_settle(kiln_tensor *out, const kiln_npy_header *header, void *data,
                            kiln_arena *arena) {
    size_t element = (size_t)kiln_dtype_bits(header->dtype) / 8;
    *out = (kiln_tensor){
        .dtype = header->dtype,
        .rank = header->rank,
        .data = data,
        .cap_bytes = header->data_bytes,
    };
    memcpy(out->dims, header->dims, sizeof out->dims);
    if (header->swapped) {
        swap_bytes(data, header->data_bytes, part_bytes(header->dtype));
    }
    if (header->fortran && header->rank > 1) {
        out->data = kiln_arena_raw(arena, header->data_bytes);
        if (!out->data) {
            return KILN_E_MEMORY;
        }
        transpose(out->data, data, header, element);
    }
    if (header->dtype == KILN_DTYPE_BOOL) {
        uint8_t *flags = out->data;
        for (size_t i = 0; i < header->data_bytes; ++i) {
            flags[i] = flags[i] != 0;
        }
    }
    return KILN_OK;
}

/* Whether the elements can be used where they lie. Bools may hold any byte in a foreign file. */
static bool usable_in_place(const kiln_npy_header *h, const uint8_t *data) {
    return !h->swapped && (!h->fortran || h->rank <= 1) && h->dtype != KILN_DTYPE_BOOL &&
           (uintptr_t)data % (size_t)part_bytes(h->dtype) == 0;
}

kiln_status kiln_npy_decode(kiln_tensor *out, const void *bytes, size_t size, kiln_arena *arena,
                            kiln_diag *diag) {
    kiln_npy_header h;
    KILN_TRY(kiln_npy_parse(&h, bytes, size, diag));
    if (size - h.data_at != h.data_bytes) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         ".npy shape and type need %zu bytes of elements, the file has %zu",
                         h.data_bytes, size - h.data_at);
    }
    const uint8_t *data = (const uint8_t *)bytes + h.data_at;
    if (usable_in_place(&h, data)) {
        *out = (kiln_tensor){
            .dtype = h.dtype,
            .rank = h.rank,
            .data = (void *)(uintptr_t)data,
            .cap_bytes = h.data_bytes,
        };
        memcpy(out->dims, h.dims, sizeof out->dims);
        return KILN_OK;
    }
    void *copy = kiln_arena_copy(arena, data, h.data_bytes);
    return copy ? kiln_npy_settle(out, &h, copy, arena) : KILN_E_MEMORY;
}

static kiln_status read_file(kiln_tensor *out, const kiln_file *file, kiln_arena *arena,
                             kiln_diag *diag) {
    KILN_TRY(kiln_npy_decode(out, file->data, file->bytes, arena, diag));
    const uint8_t *data = out->data;
    if (data >= file->data && data <= file->data + file->bytes) {
        out->data = kiln_arena_copy(arena, data, out->cap_bytes);
    }
    return out->data ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_npy_read(kiln_tensor *out, const char *path, kiln_arena *arena, kiln_diag *diag) {
    kiln_file file;
    KILN_TRY(kiln_input_open(&file, path, arena->env, diag));
    return kiln_input_close(&file, read_file(out, &file, arena, diag), diag);
}

/* ---- Writing ---- */

static kiln_status describe(char descr[8], kiln_dtype dtype, kiln_diag *diag) {
    kiln_dtype written = dtype == KILN_DTYPE_BF16 ? KILN_DTYPE_F32 : dtype;
    for (size_t i = 0; i < KILN_COUNT_OF(types); ++i) {
        if (types[i].dtype == written) {
            kiln_text text;
            kiln_text_init_fixed(&text, descr, 8);
            kiln_text_printf(&text, "%c%c%d", types[i].bytes == 1 ? '|' : '<', types[i].kind,
                             types[i].bytes);
            return KILN_OK;
        }
    }
    return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED, "NumPy files have no element type for %s",
                     kiln_dtype_name(dtype));
}

static kiln_status header_text(char **out, size_t *out_len, kiln_text *text, const kiln_tensor *t,
                               kiln_arena *arena, kiln_diag *diag) {
    char descr[8];
    KILN_TRY(describe(descr, t->dtype, diag));
    kiln_text_printf(text, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int32_t i = 0; i < t->rank; ++i) {
        kiln_text_printf(text, i > 0 ? ", %" PRId64 : "%" PRId64, t->dims[i]);
    }
    kiln_text_puts(text, t->rank == 1 ? ",), }" : "), }");
    if (!kiln_text_ok(text)) {
        return KILN_E_MEMORY;
    }
    size_t total = (PREFIX_V1 + text->len + 1 + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    char *bytes = kiln_arena_raw(arena, total);
    if (!bytes) {
        return KILN_E_MEMORY;
    }
    size_t len = total - PREFIX_V1;
    memset(bytes, ' ', total);
    memcpy(bytes, magic, MAGIC_BYTES);
    bytes[6] = 1;
    bytes[7] = 0;
    bytes[8] = (char)(len & 0xff);
    bytes[9] = (char)(len >> 8);
    memcpy(bytes + PREFIX_V1, text->data, text->len);
    bytes[total - 1] = '\n';
    *out = bytes;
    *out_len = total;
    return KILN_OK;
}

kiln_status kiln_npy_header_text(char **out, size_t *out_len, const kiln_tensor *t,
                                 kiln_arena *arena, kiln_diag *diag) {
    kiln_text text;
    kiln_text_init(&text, arena->env);
    kiln_status status = header_text(out, out_len, &text, t, arena, diag);
    kiln_text_free(&text);
    return status;
}

kiln_status kiln_npy_body(kiln_tensor *out, const kiln_tensor *t, kiln_arena *arena) {
    *out = *t;
    if (t->dtype != KILN_DTYPE_BF16) {
        return KILN_OK;
    }
    int64_t count = kiln_tensor_count(t);
    const uint16_t *src = t->data;
    float *wide;
    KILN_ALLOC(wide, arena, count);
    for (int64_t i = 0; i < count; ++i) {
        wide[i] = kiln_bf16_to_f32(src[i]);
    }
    out->dtype = KILN_DTYPE_F32;
    out->data = wide;
    out->cap_bytes = (size_t)count * sizeof *wide;
    return KILN_OK;
}

static kiln_status write_file(const kiln_tensor *t, const char *path, kiln_arena *scratch,
                              kiln_diag *diag) {
    char *header;
    size_t header_len;
    kiln_tensor body;
    kiln_writer writer;
    KILN_TRY(kiln_npy_header_text(&header, &header_len, t, scratch, diag));
    KILN_TRY(kiln_npy_body(&body, t, scratch));
    KILN_TRY(kiln_writer_open(&writer, path, diag));
    kiln_status status = kiln_writer_put(&writer, header, header_len, diag);
    if (status == KILN_OK) {
        status = kiln_writer_put(&writer, body.data, kiln_tensor_bytes(&body), diag);
    }
    if (status == KILN_OK) {
        status = kiln_writer_commit(&writer, diag);
    }
    kiln_writer_abandon(&writer);
    return status;
}

kiln_status kiln_npy_write(const kiln_tensor *t, const char *path, const kiln_env *env,
                           kiln_diag *diag) {
    kiln_arena scratch;
    kiln_arena_init(&scratch, env);
    kiln_status status = write_file(t, path, &scratch, diag);
    kiln_arena_free(&scratch);
    return status;
}
