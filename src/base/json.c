#include "base/json.h"

#include <math.h>
#include <string.h>

enum { FLUSH_BYTES = 32 << 10 };

void kiln_json_init(kiln_json *json, kiln_text *text, int indent) {
    *json = (kiln_json){.text = text, .indent = indent};
}

static void flush(kiln_json *json) {
    if (json->sink && json->text->len) {
        bool failed =
            json->sink_failed || !json->sink(json->user, json->text->data, json->text->len);
        json->sink_failed = failed;
        json->text->len = 0;
    }
}

static uint64_t here(const kiln_json *json) {
    return json->depth ? (uint64_t)1 << (json->depth - 1) : 0;
}

static void new_line(kiln_json *json) {
    if (json->indent) {
        kiln_text_char(json->text, '\n');
        for (int i = 0; i < json->depth * json->indent; i++) {
            kiln_text_char(json->text, ' ');
        }
    }
}

static void separate(kiln_json *json) {
    if (json->started & here(json)) {
        kiln_text_char(json->text, ',');
    }
    json->started |= here(json);
    new_line(json);
    if (json->text->len >= FLUSH_BYTES) {
        flush(json);
    }
}

/* What stands before a value: nothing after a key, a comma and a new line within an array. At the
 * top there is one value only. */
static void begin_value(kiln_json *json) {
    if (json->depth == 0) {
        json->misused = json->misused || json->complete;
        json->complete = true;
    } else if (json->objects & here(json)) {
        json->misused = json->misused || !json->keyed;
        json->keyed = false;
    } else {
        separate(json);
    }
}

void kiln_json_open(kiln_json *json, char kind) {
    begin_value(json);
    if (json->depth == KILN_JSON_MAX_DEPTH) {
        json->misused = true;
        return;
    }
    kiln_text_char(json->text, kind);
    json->depth++;
    json->started &= ~here(json);
    json->objects &= ~here(json);
    json->objects |= kind == '{' ? here(json) : 0;
}

void kiln_json_close(kiln_json *json) {
    if (json->depth == 0 || json->keyed) {
        json->misused = true;
        return;
    }
    bool filled = json->started & here(json), object = json->objects & here(json);
    json->depth--;
    if (filled) {
        new_line(json);
    }
    kiln_text_char(json->text, object ? '}' : ']');
}

static void put_escaped(kiln_text *text, const char *src, size_t step) {
    static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs: character, its escape */
    for (size_t i = 0; i + 1 < sizeof shorts; i += 2) {
        if (shorts[i] == *src) {
            kiln_text_char(text, '\\');
            kiln_text_char(text, shorts[i + 1]);
            return;
        }
    }
    if (step == 0) {
        kiln_text_puts(text, "\\ufffd");
    } else if ((unsigned char)*src < 0x20 || *src == 0x7F) {
        kiln_text_printf(text, "\\u%04x", (unsigned)(unsigned char)*src);
    } else {
        kiln_text_append(text, src, step);
    }
}

static void put_string(kiln_text *text, const char *str, size_t len) {
    kiln_text_char(text, '"');
    for (size_t i = 0; i < len;) {
        size_t step = kiln_utf8_char(str + i, len - i);
        put_escaped(text, str + i, step);
        i += step ? step : 1;
    }
    kiln_text_char(text, '"');
}

void kiln_json_key(kiln_json *json, const char *key) {
    if (!(json->objects & here(json)) || json->keyed) {
        json->misused = true;
    }
    separate(json);
    put_string(json->text, key, strlen(key));
    kiln_text_puts(json->text, json->indent ? ": " : ":");
    json->keyed = true;
}

void kiln_json_string_len(kiln_json *json, const char *str, size_t len) {
    begin_value(json);
    put_string(json->text, str, len);
}

void kiln_json_string(kiln_json *json, const char *str) {
    if (str) {
        kiln_json_string_len(json, str, strlen(str));
    } else {
        kiln_json_null(json);
    }
}

void kiln_json_int(kiln_json *json, int64_t x) {
    begin_value(json);
    kiln_text_printf(json->text, "%lld", (long long)x);
}

void kiln_json_uint(kiln_json *json, uint64_t x) {
    begin_value(json);
    kiln_text_printf(json->text, "%llu", (unsigned long long)x);
}

void kiln_json_double(kiln_json *json, double x) {
    if (!isfinite(x)) {
        kiln_json_null(json);
        return;
    }
    begin_value(json);
    kiln_text_double(json->text, x);
}

void kiln_json_float(kiln_json *json, float x) {
    if (!isfinite(x)) {
        kiln_json_null(json);
        return;
    }
    begin_value(json);
    kiln_text_float(json->text, x);
}

void kiln_json_bool(kiln_json *json, bool x) {
    begin_value(json);
    kiln_text_puts(json->text, x ? "true" : "false");
}

void kiln_json_null(kiln_json *json) {
    begin_value(json);
    kiln_text_puts(json->text, "null");
}

kiln_status kiln_json_finish(kiln_json *json) {
    if (json->indent) {
        kiln_text_char(json->text, '\n');
    }
    flush(json);
    if (!kiln_text_ok(json->text)) {
        return KILN_E_MEMORY;
    }
    if (json->sink_failed) {
        return KILN_E_IO;
    }
    return json->misused || json->depth || !json->complete ? KILN_E_INTERNAL : KILN_OK;
}
