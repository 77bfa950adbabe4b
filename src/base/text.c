#define _GNU_SOURCE 1

#include "base/text.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/env.h"

void kiln_text_init(kiln_text *text, const kiln_env *env) {
    *text = (kiln_text){.env = env};
}

void kiln_text_init_fixed(kiln_text *text, char *buf, size_t cap) {
    *text = (kiln_text){.data = buf, .cap = cap, .fixed = true};
    if (cap) {
        buf[0] = '\0';
    }
}

void kiln_text_free(kiln_text *text) {
    if (!text->fixed) {
        kiln_env_release(text->env, text->data, text->cap);
    }
    *text = (kiln_text){.env = text->env};
}

bool kiln_text_ok(const kiln_text *text) {
    return !text->failed;
}

/* Makes room for `len` more bytes and the NUL of a growing text. */
static bool reserve(kiln_text *text, size_t len) {
    size_t need, twice = text->cap < 64 ? 64 : text->cap;
    if (text->failed || !kiln_add_size(text->len, len, &need) || !kiln_add_size(need, 1, &need)) {
        text->failed = true;
        return false;
    }
    if (need <= text->cap) {
        return true;
    }
    size_t cap = need;
    if (kiln_mul_size(twice, 2, &twice) && twice > need) {
        cap = twice;
    }
    char *data = kiln_env_alloc(text->env, cap);
    if (!data) {
        text->failed = true;
        return false;
    }
    if (text->data) {
        memcpy(data, text->data, text->len);
        kiln_env_release(text->env, text->data, text->cap);
    }
    text->data = data;
    text->cap = cap;
    return true;
}

static void append_fixed(kiln_text *text, const void *src, size_t len) {
    if (text->len + 1 < text->cap) {
        size_t room = text->cap - 1 - text->len;
        size_t part = len < room ? len : room;
        memcpy(text->data + text->len, src, part);
        text->data[text->len + part] = '\0';
    }
    text->len += len;
}

void kiln_text_append(kiln_text *text, const void *src, size_t len) {
    if (len == 0 && text->data) {
        return;
    }
    if (text->fixed) {
        append_fixed(text, src, len);
    } else if (reserve(text, len)) {
        if (len) {
            memcpy(text->data + text->len, src, len);
        }
        text->len += len;
        text->data[text->len] = '\0';
    }
}

void kiln_text_puts(kiln_text *text, const char *str) {
    kiln_text_append(text, str, strlen(str));
}

void kiln_text_char(kiln_text *text, char c) {
    kiln_text_append(text, &c, 1);
}

int kiln_vformat(char *buf, size_t cap, const char *fmt, va_list args) {
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    locale_t was = plain ? uselocale(plain) : (locale_t)0;
    int len = vsnprintf(buf, cap, fmt, args);
    if (plain) {
        uselocale(was);
        freelocale(plain);
    }
    return len;
}

void kiln_text_vprintf(kiln_text *text, const char *fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    int len = kiln_vformat(NULL, 0, fmt, args);
    if (len < 0) {
        text->failed = true;
    } else if (text->fixed) {
        bool room = text->len < text->cap;
        kiln_vformat(room ? text->data + text->len : NULL, room ? text->cap - text->len : 0, fmt,
                     again);
        text->len += (size_t)len;
    } else if (reserve(text, (size_t)len)) {
        kiln_vformat(text->data + text->len, (size_t)len + 1, fmt, again);
        text->len += (size_t)len;
    }
    va_end(again);
}

void kiln_text_printf(kiln_text *text, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    kiln_text_vprintf(text, fmt, args);
    va_end(args);
}

/* Table 3-7 of the Unicode standard: the lead byte gives the length and narrows the second byte. */
size_t kiln_utf8_char(const char *src, size_t len) {
    const unsigned char *s = (const unsigned char *)src;
    if (len == 0) {
        return 0;
    }
    if (s[0] < 0x80) {
        return 1;
    }
    size_t need = s[0] >= 0xC2 && s[0] <= 0xDF   ? 2
                  : s[0] >= 0xE0 && s[0] <= 0xEF ? 3
                  : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4
                                                 : 0;
    if (need == 0 || need > len) {
        return 0;
    }
    unsigned char low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    if (s[1] < low || s[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < need; i++) {
        if ((s[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return need;
}

bool kiln_utf8_valid(const char *src, size_t len) {
    for (size_t i = 0; i < len;) {
        size_t step = kiln_utf8_char(src + i, len - i);
        if (step == 0) {
            return false;
        }
        i += step;
    }
    return true;
}

/* True for a well-formed character that could move the cursor, end the line or reorder the text. */
static bool is_hostile(const char *src, size_t len) {
    const unsigned char *s = (const unsigned char *)src;
    if (len == 1) {
        return s[0] < 0x20 || s[0] == 0x7F;
    }
    if (len == 2) {
        return s[0] == 0xC2 && s[1] < 0xA0; /* C1: U+0080..U+009F */
    }
    /* U+200E, U+200F, U+2028..U+202E, U+2066..U+2069 */
    bool general = len == 3 && s[0] == 0xE2;
    return general && ((s[1] == 0x80 && (s[2] == 0x8E || s[2] == 0x8F)) ||
                       (s[1] == 0x80 && s[2] >= 0xA8 && s[2] <= 0xAE) ||
                       (s[1] == 0x81 && s[2] >= 0xA6 && s[2] <= 0xA9));
}

static void escape_bytes(kiln_text *text, const char *src, size_t len) {
    for (size_t i = 0; i < len; i++) {
        switch (src[i]) {
        case '\n':
            kiln_text_puts(text, "\\n");
            break;
        case '\t':
            kiln_text_puts(text, "\\t");
            break;
        case '\r':
            kiln_text_puts(text, "\\r");
            break;
        default:
            kiln_text_printf(text, "\\x%02X", (unsigned)(unsigned char)src[i]);
        }
    }
}

void kiln_text_escape(kiln_text *text, const char *src, size_t len, size_t max_bytes) {
    size_t end = max_bytes && len > max_bytes ? max_bytes : len;
    size_t i = 0;
    while (i < end) {
        size_t step = kiln_utf8_char(src + i, len - i);
        if (step > end - i) {
            break;
        }
        if (step == 0 || is_hostile(src + i, step)) {
            step = step ? step : 1;
            escape_bytes(text, src + i, step);
        } else {
            kiln_text_append(text, src + i, step);
        }
        i += step;
    }
    if (end < len) {
        kiln_text_puts(text, "...");
    }
}

/* Appends what snprintf made of a finite number, the locale's decimal separator replaced. */
static void append_decimal(kiln_text *text, const char *decimal) {
    bool separator = false;
    for (const char *c = decimal; *c; c++) {
        bool known = (*c >= '0' && *c <= '9') || *c == '-' || *c == '+' || *c == 'e';
        if (known || !separator) {
            kiln_text_char(text, known ? *c : '.');
        }
        separator = !known;
    }
}

static bool append_special(kiln_text *text, double x) {
    if (isfinite(x)) {
        return false;
    }
    kiln_text_puts(text, isnan(x) ? "nan" : x > 0 ? "inf" : "-inf");
    return true;
}

void kiln_text_double(kiln_text *text, double x) {
    char buf[64];
    if (append_special(text, x)) {
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(buf, sizeof buf, "%.*g", digits, x);
        if (strtod(buf, NULL) == x) {
            break;
        }
    }
    append_decimal(text, buf);
}

void kiln_text_float(kiln_text *text, float x) {
    char buf[64];
    if (append_special(text, (double)x)) {
        return;
    }
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(buf, sizeof buf, "%.*g", digits, (double)x);
        if (strtof(buf, NULL) == x) {
            break;
        }
    }
    append_decimal(text, buf);
}

/* A NUL-terminated copy for the C library's readers, which skip leading blanks: none is allowed. */
static bool number_text(const char *src, size_t len, char *buf, size_t cap) {
    if (len == 0 || len >= cap || (unsigned char)src[0] <= ' ' || memchr(src, '\0', len)) {
        return false;
    }
    memcpy(buf, src, len);
    buf[len] = '\0';
    return true;
}

bool kiln_parse_double(const char *src, size_t len, double *out) {
    char buf[512], *end;
    if (!number_text(src, len, buf, sizeof buf)) {
        return false;
    }
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!plain) {
        return false;
    }
    double x = strtod_l(buf, &end, plain);
    freelocale(plain);
    if (end != buf + len) {
        return false;
    }
    *out = x;
    return true;
}

bool kiln_parse_i64(const char *src, size_t len, int64_t *out) {
    char buf[64], *end;
    if (!number_text(src, len, buf, sizeof buf)) {
        return false;
    }
    errno = 0;
    long long x = strtoll(buf, &end, 10);
    if (errno || end != buf + len) {
        return false;
    }
    *out = x;
    return true;
}
