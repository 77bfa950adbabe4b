/* preprocess_text.c - the text and JSON forms of a kiln_preprocess: one table of keys for both. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/text.h"
#include "data/preprocess.h"

enum { MAX_NUMBERS = KILN_PREPROCESS_CHANNELS, MAX_VALUE_BYTES = 256 };

/* ---- Numbers, independent of the locale ---- */

/* A decimal number at *at: digits, a point, an exponent. Exact to a rounding or two: the digits
 * make an integer, which one power of ten scales. */
static bool read_number(const char **at, double *out) {
    const char *p = *at;
    double sign = *p == '-' ? -1 : 1;
    p += *p == '-' || *p == '+';
    double digits = 0;
    int32_t seen = 0;
    int32_t exponent = 0;
    bool fraction = false;
    for (; (*p >= '0' && *p <= '9') || (*p == '.' && !fraction); ++p) {
        if (*p == '.') {
            fraction = true;
            continue;
        }
        digits = digits * 10 + (*p - '0');
        exponent -= fraction;
        ++seen;
    }
    if (seen > 0 && (*p == 'e' || *p == 'E')) {
        int32_t exp_sign = p[1] == '-' ? -1 : 1;
        const char *q = p + 1 + (p[1] == '-' || p[1] == '+');
        int32_t e = 0;
        const char *first = q;
        for (; *q >= '0' && *q <= '9' && e < 10000; ++q) {
            e = e * 10 + (*q - '0');
        }
        if (q == first) {
            return false;
        }
        exponent += exp_sign * e;
        p = q;
    }
    *at = p;
    *out = sign * (exponent < 0 ? digits / pow(10, -exponent) : digits * pow(10, exponent));
    return seen > 0 && isfinite(*out);
}

/* A number or a fraction "1/255". */
static bool read_ratio(const char **at, double *out) {
    if (!read_number(at, out)) {
        return false;
    }
    if (**at == '/') {
        double den;
        ++*at;
        if (!read_number(at, &den) || den == 0) {
            return false;
        }
        *out /= den;
    }
    return isfinite(*out);
}

/* "a,b,c" or "a:b:c"; the number of values, or 0 when it is no such list. */
static int32_t read_list(const char *text, double out[MAX_NUMBERS]) {
    int32_t count = 0;
    while (count < MAX_NUMBERS && read_ratio(&text, &out[count])) {
        ++count;
        if (*text == '\0') {
            return count;
        }
        if (*text != ',' && *text != ':') {
            return 0;
        }
        ++text;
    }
    return 0;
}

static bool read_int(const char **at, int32_t *out) {
    const char *p = *at;
    int64_t v = 0;
    for (; *p >= '0' && *p <= '9' && v <= INT32_MAX; ++p) {
        v = v * 10 + (*p - '0');
    }
    bool ok = p > *at && v <= INT32_MAX;
    *at = p;
    *out = ok ? (int32_t)v : 0;
    return ok;
}

/* "WxH", or "S" for both (then *single is true). */
static bool read_size(const char *text, int32_t *w, int32_t *h, bool *single) {
    if (!read_int(&text, w) || *w < 1) {
        return false;
    }
    *h = *w;
    *single = *text == '\0';
    if (*single) {
        return true;
    }
    if (*text != 'x') {
        return false;
    }
    ++text;
    return read_int(&text, h) && *h >= 1 && *text == '\0';
}

/* ---- Keys ---- */

typedef struct word {
    const char *name;
    int32_t value;
} word;

static const word interps[] = {
    {"bilinear", KILN_INTERP_BILINEAR},
    {"bicubic", KILN_INTERP_BICUBIC},
    {"bilinear-plain", KILN_INTERP_BILINEAR_PLAIN},
    {"bicubic-plain", KILN_INTERP_BICUBIC_PLAIN},
    {"nearest", KILN_INTERP_NEAREST},
    {NULL, 0},
};
static const word pad_places[] = {
    {"center", KILN_PAD_CENTER},
    {"top-left", KILN_PAD_TOP_LEFT},
    {NULL, 0},
};
static const word colors[] = {
    {"rgb", KILN_COLOR_RGB},
    {"bgr", KILN_COLOR_BGR},
    {"gray", KILN_COLOR_GRAY},
    {"grey", KILN_COLOR_GRAY},
    {NULL, 0},
};
static const word layouts[] = {
    {"nchw", KILN_PIXELS_NCHW},
    {"nhwc", KILN_PIXELS_NHWC},
    {NULL, 0},
};

static bool same_word(const char *a, const char *b) {
    for (; *a && *b; ++a, ++b) {
        char upper = *b >= 'a' && *b <= 'z' ? (char)(*b - 'a' + 'A') : *b;
        if (*a != *b && *a != upper) {
            return false;
        }
    }
    return *a == *b;
}

static bool read_word(const char *text, const word *words, int32_t *out) {
    for (; words->name; ++words) {
        if (same_word(text, words->name)) {
            *out = words->value;
            return true;
        }
    }
    return false;
}

static bool set_resize(kiln_preprocess *pre, const char *text) {
    static const char letterbox[] = "letterbox:";
    bool single = false;
    if (same_word(text, "none")) {
        pre->resize = KILN_RESIZE_NONE;
        pre->resize_w = pre->resize_h = 0;
        return true;
    }
    bool boxed = strncmp(text, letterbox, sizeof letterbox - 1) == 0;
    text += boxed ? sizeof letterbox - 1 : 0;
    if (!read_size(text, &pre->resize_w, &pre->resize_h, &single)) {
        return false;
    }
    pre->resize =
        boxed ? KILN_RESIZE_LETTERBOX : (single ? KILN_RESIZE_SHORTER : KILN_RESIZE_EXACT);
    return true;
}

static bool set_crop(kiln_preprocess *pre, const char *text) {
    bool single;
    if (same_word(text, "none")) {
        pre->crop_w = pre->crop_h = 0;
        return true;
    }
    return read_size(text, &pre->crop_w, &pre->crop_h, &single);
}

static bool set_interp(kiln_preprocess *pre, const char *text) {
    int32_t v;
    bool ok = read_word(text, interps, &v);
    pre->interp = ok ? (kiln_interp)v : pre->interp;
    return ok;
}

static bool set_pad_at(kiln_preprocess *pre, const char *text) {
    int32_t v;
    bool ok = read_word(text, pad_places, &v);
    pre->pad_at = ok ? (kiln_pad_at)v : pre->pad_at;
    return ok;
}

static bool set_color(kiln_preprocess *pre, const char *text) {
    int32_t v;
    bool ok = read_word(text, colors, &v);
    pre->color = ok ? (kiln_color)v : pre->color;
    return ok;
}

static bool set_layout(kiln_preprocess *pre, const char *text) {
    int32_t v;
    bool ok = read_word(text, layouts, &v);
    pre->layout = ok ? (kiln_pixel_layout)v : pre->layout;
    return ok;
}

static bool set_dtype(kiln_preprocess *pre, const char *text) {
    pre->dtype = kiln_dtype_parse(text);
    return pre->dtype == KILN_DTYPE_F32 || pre->dtype == KILN_DTYPE_U8;
}

static bool set_pad(kiln_preprocess *pre, const double *v, int32_t count) {
    bool ok = count == 1 && v[0] >= 0 && v[0] <= 255 && v[0] == floor(v[0]);
    pre->pad_value = ok ? (int32_t)v[0] : 0;
    return ok;
}

static bool set_scale(kiln_preprocess *pre, const double *v, int32_t count) {
    pre->scale = v[0];
    return count == 1 && v[0] != 0;
}

static bool set_mean(kiln_preprocess *pre, const double *v, int32_t count) {
    pre->mean_count = count;
    memcpy(pre->mean, v, (size_t)count * sizeof *v);
    return true;
}

static bool set_std(kiln_preprocess *pre, const double *v, int32_t count) {
    pre->std_count = count;
    memcpy(pre->std, v, (size_t)count * sizeof *v);
    return true;
}

/* A key takes a word or numbers; the other setter is NULL. */
typedef struct key {
    const char *name;
    const char *takes;
    bool (*text)(kiln_preprocess *pre, const char *value);
    bool (*numbers)(kiln_preprocess *pre, const double *values, int32_t count);
} key;

static const key keys[] = {
    {"resize", "none, WxH, S or letterbox:WxH", set_resize, NULL},
    {"interp", "bilinear, bicubic, bilinear-plain, bicubic-plain or nearest", set_interp, NULL},
    {"pad", "a number 0..255", NULL, set_pad},
    {"pad-at", "center or top-left", set_pad_at, NULL},
    {"crop", "none, WxH or S", set_crop, NULL},
    {"color", "rgb, bgr or gray", set_color, NULL},
    {"scale", "a number other than 0, or a fraction such as 1/255", NULL, set_scale},
    {"mean", "one number, or one for each channel", NULL, set_mean},
    {"std", "one number, or one for each channel", NULL, set_std},
    {"layout", "nchw or nhwc", set_layout, NULL},
    {"dtype", "float32 or uint8", set_dtype, NULL},
};

static const key *find_key(const char *name) {
    for (size_t i = 0; i < KILN_COUNT_OF(keys); ++i) {
        if (strcmp(keys[i].name, name) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

kiln_status kiln_preprocess_set(kiln_preprocess *pre, const char *name, const char *value,
                                kiln_diag *diag) {
    const key *k = find_key(name);
    if (!k) {
        return kiln_fail(diag, KILN_F_OPTION, "preprocessing has no \"%s\"", name);
    }
    double numbers[MAX_NUMBERS];
    kiln_preprocess changed = *pre;
    int32_t count = k->numbers ? read_list(value, numbers) : 0;
    bool ok =
        k->numbers ? count > 0 && k->numbers(&changed, numbers, count) : k->text(&changed, value);
    if (!ok) {
        return kiln_fail(diag, KILN_F_OPTION, "%s takes %s, not \"%s\"", k->name, k->takes, value);
    }
    *pre = changed;
    return KILN_OK;
}

static bool is_separator(char c) {
    return c == ' ' || c == ';' || c == '\t' || c == '\n';
}

kiln_status kiln_preprocess_parse(kiln_preprocess *pre, const char *text, kiln_diag *diag) {
    while (*text) {
        size_t len = 0;
        while (text[len] && !is_separator(text[len])) {
            ++len;
        }
        char item[MAX_VALUE_BYTES];
        if (len > 0) {
            if (len >= sizeof item) {
                return kiln_fail(diag, KILN_F_OPTION,
                                 "a preprocessing item is longer than %d bytes",
                                 MAX_VALUE_BYTES - 1);
            }
            memcpy(item, text, len);
            item[len] = '\0';
            char *equals = strchr(item, '=');
            if (!equals) {
                return kiln_fail(diag, KILN_F_OPTION, "\"%s\" is not of the form key=value", item);
            }
            *equals = '\0';
            KILN_TRY(kiln_preprocess_set(pre, item, equals + 1, diag));
        }
        text += len;
        text += *text != '\0';
    }
    return kiln_preprocess_check(pre, diag);
}

/* ---- JSON ---- */

/* A JSON number, or an array of up to MAX_NUMBERS of them; 0 when it is neither. */
static int32_t json_numbers(const json_t *value, double out[MAX_NUMBERS]) {
    if (json_is_number(value)) {
        out[0] = json_number_value(value);
        return 1;
    }
    size_t count = json_array_size(value);
    if (count > MAX_NUMBERS) {
        return 0;
    }
    for (size_t i = 0; i < count; ++i) {
        const json_t *item = json_array_get(value, i);
        if (!json_is_number(item)) {
            return 0;
        }
        out[i] = json_number_value(item);
    }
    return (int32_t)count;
}

static kiln_status set_json(kiln_preprocess *pre, const char *name, const json_t *value,
                            kiln_diag *diag) {
    const key *k = find_key(name);
    if (!k) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "preprocessing has no \"%s\"", name);
    }
    double numbers[MAX_NUMBERS];
    int32_t count = k->numbers ? json_numbers(value, numbers) : 0;
    bool ok = k->numbers ? count > 0 && k->numbers(pre, numbers, count)
                         : json_is_string(value) && k->text(pre, json_string_value(value));
    return ok ? KILN_OK
              : kiln_fail(diag, KILN_F_DATA_FORMAT, "preprocessing: \"%s\" takes %s", name,
                          k->takes);
}

static kiln_status set_object(kiln_preprocess *pre, json_t *root, kiln_diag *diag) {
    if (!json_is_object(root)) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "preprocessing is not a JSON object");
    }
    for (void *it = json_object_iter(root); it; it = json_object_iter_next(root, it)) {
        KILN_TRY(set_json(pre, json_object_iter_key(it), json_object_iter_value(it), diag));
    }
    return kiln_preprocess_check(pre, diag);
}

kiln_status kiln_preprocess_from_json(kiln_preprocess *out, const char *json, size_t len,
                                      kiln_diag *diag) {
    json_error_t error;
    json_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "preprocessing, line %d: %s", error.line,
                         error.text);
    }
    kiln_preprocess pre = {0};
    kiln_status status = set_object(&pre, root, diag);
    json_decref(root);
    if (status == KILN_OK) {
        *out = pre;
    }
    return status;
}

static const char *word_name(const word *words, int32_t value) {
    for (; words->name; ++words) {
        if (words->value == value) {
            return words->name;
        }
    }
    return NULL;
}

/* Words at zero are defaults and left out. */
static void write_word(kiln_json *json, const char *name, const word *words, int32_t value) {
    if (value != 0) {
        kiln_json_key(json, name);
        kiln_json_string(json, word_name(words, value));
    }
}

static void write_size(kiln_json *json, const char *name, const char *prefix, int32_t w, int32_t h,
                       bool single) {
    char buf[64];
    kiln_text text;
    kiln_text_init_fixed(&text, buf, sizeof buf);
    kiln_text_printf(&text, single ? "%s%d" : "%s%dx%d", prefix, w, h);
    kiln_json_key(json, name);
    kiln_json_string(json, buf);
}

static void write_numbers(kiln_json *json, const char *name, const double *v, int32_t count) {
    if (count > 0) {
        kiln_json_key(json, name);
        kiln_json_open(json, '[');
        for (int32_t i = 0; i < count; ++i) {
            kiln_json_double(json, v[i]);
        }
        kiln_json_close(json);
    }
}

void kiln_preprocess_to_json(kiln_json *json, const kiln_preprocess *pre) {
    kiln_json_open(json, '{');
    if (pre->resize != KILN_RESIZE_NONE) {
        write_size(json, "resize", pre->resize == KILN_RESIZE_LETTERBOX ? "letterbox:" : "",
                   pre->resize_w, pre->resize_h, pre->resize == KILN_RESIZE_SHORTER);
    }
    write_word(json, "interp", interps, (int32_t)pre->interp);
    if (pre->pad_value != 0) {
        kiln_json_key(json, "pad");
        kiln_json_int(json, pre->pad_value);
    }
    write_word(json, "pad-at", pad_places, (int32_t)pre->pad_at);
    if (pre->crop_w != 0) {
        write_size(json, "crop", "", pre->crop_w, pre->crop_h, false);
    }
    write_word(json, "color", colors, (int32_t)pre->color);
    if (pre->scale != 0) {
        kiln_json_key(json, "scale");
        kiln_json_double(json, pre->scale);
    }
    write_numbers(json, "mean", pre->mean, pre->mean_count);
    write_numbers(json, "std", pre->std, pre->std_count);
    write_word(json, "layout", layouts, (int32_t)pre->layout);
    if (pre->dtype != KILN_DTYPE_NONE) {
        kiln_json_key(json, "dtype");
        kiln_json_string(json, kiln_dtype_name(pre->dtype));
    }
    kiln_json_close(json);
}
