/* range_file.c - ranges as other tools keep them.
 *
 * TensorRT's text cache: a line "TRT-<version>-<algorithm>", then a line `name: xxxxxxxx` for each
 * tensor, the bits of the float32 scale amax / 127 in hexadecimal, most significant first. A name
 * may hold any character but line breaks, so the last colon of a line counts.
 *
 * ONNX Runtime's JSON, in the forms its versions wrote: {name: entry}, possibly wrapped as {"CLS":
 * "TensorsData", "data": {...}}. An entry is [lowest, highest, ...] or {"lowest": number,
 * "highest": number}, a number possibly wrapped as {"CLS": "numpy.array", "data": number}. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/half.h"
#include "base/text.h"
#include "quant/calibration.h"
#include "quant/scales.h"

enum { MAX_FILE_BYTES = 64 << 20, SCALE_DIGITS = 8, INT8_MAX_LEVEL = 127 };

/* ---- TensorRT ---- */

static const char trt_header[] = "TRT-8601-EntropyCalibration2";

typedef struct line {
    const char *text;
    size_t len;
    size_t number; /* from 1 */
} line;

/* Cuts the next line, without its end, off the front of *at; false at the end. */
static bool next_line(const char **at, const char *end, line *out) {
    if (*at == end) {
        return false;
    }
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    out->text = *at;
    out->len = (size_t)((stop ? stop : end) - *at);
    out->number++;
    out->len -= out->len > 0 && out->text[out->len - 1] == '\r' ? 1 : 0;
    *at = stop ? stop + 1 : end;
    return true;
}

static bool parse_bits(const char *digits, uint32_t *out) {
    *out = 0;
    for (int i = 0; i < SCALE_DIGITS; i++) {
        char c = digits[i];
        int v = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (v < 0) {
            return false;
        }
        *out = *out << 4 | (uint32_t)v;
    }
    return true;
}

/* Length of the name before the last colon, or 0 when the line is not `name: xxxxxxxx`. */
static size_t split_line(const line *l, float *scale) {
    const size_t tail = SCALE_DIGITS + 2;
    uint32_t bits;
    if (l->len <= tail || memcmp(l->text + l->len - tail, ": ", 2) != 0 ||
        !parse_bits(l->text + l->len - SCALE_DIGITS, &bits) || memchr(l->text, 0, l->len - tail)) {
        return 0;
    }
    *scale = kiln_f32_from_bits(bits);
    return l->len - tail;
}

static kiln_status add_range(kiln_ranges *r, const char *name, double lo, double hi, size_t where,
                             const char *unit, kiln_diag *diag) {
    if (kiln_ranges_find(r, name)) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "%s %zu: \"%s\" is there twice", unit, where,
                         name);
    }
    kiln_range range = {.name = name,
                        .lo = lo,
                        .hi = hi,
                        .calibrator = KILN_CALIBRATOR_MAX,
                        .sqnr_db = (double)NAN};
    return kiln_ranges_set(r, &range, diag);
}

static kiln_status read_trt(kiln_ranges *r, const char *text, size_t bytes, kiln_diag *diag) {
    const char *at = text, *end = text + bytes;
    line l = {0};
    if (!next_line(&at, end, &l) || l.len < 5 || memcmp(l.text, "TRT-", 4) != 0) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         "the file begins neither like a TensorRT calibration cache nor like JSON");
    }
    while (next_line(&at, end, &l)) {
        float scale = 0;
        size_t len = split_line(&l, &scale);
        if (l.len == 0) {
            continue;
        }
        if (len == 0) {
            return kiln_fail(diag, KILN_F_DATA_FORMAT,
                             "line %zu is not `name: ` and %d hexadecimal digits", l.number,
                             SCALE_DIGITS);
        }
        if (!(scale >= 0 && scale < INFINITY)) {
            return kiln_fail(diag, KILN_F_DATA_FORMAT, "line %zu: the scale is %g", l.number,
                             (double)scale);
        }
        const char *name = kiln_arena_text(&r->arena, l.text, len);
        if (!name) {
            return KILN_E_MEMORY;
        }
        double amax = (double)scale * INT8_MAX_LEVEL;
        KILN_TRY(add_range(r, name, -amax, amax, l.number, "line", diag));
    }
    return KILN_OK;
}

kiln_status kiln_ranges_write_trt(const kiln_ranges *ranges, const char *path, kiln_diag *diag) {
    kiln_text t;
    kiln_status status = KILN_OK;
    kiln_text_init(&t, ranges->env);
    kiln_text_printf(&t, "%s\n", trt_header);
    for (size_t i = 0; i < ranges->count && status == KILN_OK; i++) {
        const kiln_range *r = ranges->items[i];
        double amax = -r->lo > r->hi ? -r->lo : r->hi;
        float scale = (float)(amax / INT8_MAX_LEVEL);
        if (strpbrk(r->name, "\r\n")) {
            status =
                kiln_fail(diag, KILN_F_CALIBRATION,
                          "\"%s\" holds a line break, for which the file has no form", r->name);
        }
        kiln_text_printf(&t, "%s: %08x\n", r->name, (unsigned)kiln_f32_bits(scale));
    }
    if (status == KILN_OK) {
        status = kiln_text_ok(&t) ? kiln_file_write(path, t.data, t.len, diag) : KILN_E_MEMORY;
    }
    kiln_text_free(&t);
    return kiln_diag_close(diag, status);
}

/* ---- ONNX Runtime ---- */

/* A number, or the scalar array that holds it. */
static bool json_number(const json_t *v, double *out) {
    const json_t *inner = json_object_get(v, "data");
    v = inner ? inner : v;
    v = json_array_size(v) == 1 ? json_array_get(v, 0) : v;
    *out = json_number_value(v);
    return json_is_number(v) && isfinite(*out);
}

static bool json_range(const json_t *entry, double *lo, double *hi) {
    bool list = json_is_array(entry);
    const json_t *low = list ? json_array_get(entry, 0) : json_object_get(entry, "lowest");
    const json_t *high = list ? json_array_get(entry, 1) : json_object_get(entry, "highest");
    return json_number(low, lo) && json_number(high, hi) && *lo <= *hi;
}

static kiln_status read_entries(kiln_ranges *r, json_t *root, kiln_diag *diag) {
    json_t *data = json_object_get(root, "data"), *entry;
    const char *name;
    size_t n = 0;
    bool wrapped = json_is_object(data) && json_is_string(json_object_get(root, "CLS"));
    json_t *entries = wrapped ? data : root;
    if (!json_is_object(entries)) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "the JSON is no object of ranges by name");
    }
    json_object_foreach(entries, name, entry) {
        double lo, hi;
        n++;
        if (!json_range(entry, &lo, &hi)) {
            return kiln_fail(diag, KILN_F_DATA_FORMAT, "\"%s\" has no finite lowest and highest",
                             name);
        }
        KILN_TRY(add_range(r, name, lo, hi, n, "entry", diag));
    }
    return KILN_OK;
}

static kiln_status read_json(kiln_ranges *r, const char *text, size_t bytes, kiln_diag *diag) {
    json_error_t error;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "line %d: %s", error.line, error.text);
    }
    kiln_status status = read_entries(r, root, diag);
    json_decref(root);
    return status;
}

kiln_status kiln_ranges_read(kiln_ranges **out, const kiln_env *env, const char *path,
                             kiln_diag *diag) {
    kiln_file file;
    kiln_ranges *r;
    kiln_status status = kiln_ranges_create(&r, env);
    if (status != KILN_OK) {
        return kiln_diag_close(diag, status);
    }
    status = kiln_file_open(&file, env, path, MAX_FILE_BYTES, 0, diag);
    if (status == KILN_OK) {
        const char *text = (const char *)file.data;
        kiln_diag_at_file(diag, path);
        status =
            (file.bytes > 0 && text[0] == '{' ? read_json : read_trt)(r, text, file.bytes, diag);
        kiln_diag_at_file(diag, NULL);
        kiln_file_close(&file);
    }
    if (status == KILN_OK) {
        *out = r;
    } else {
        kiln_ranges_destroy(r);
    }
    return kiln_diag_close(diag, status);
}
