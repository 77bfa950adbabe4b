/* json.h - writing JSON as it comes.
 *
 * Commas, indentation and escapes are the writer's; the nesting is the caller's, who opens and
 * closes what he likes up to 64 deep. Numbers read back as the same value. NaN and infinities,
 * which JSON does not have, become null. Strings that are not UTF-8 have each offending byte
 * replaced by U+FFFD.
 *
 *     kiln_json json;
 *     kiln_json_init(&json, &text, 2);
 *     kiln_json_open(&json, '{');
 *     kiln_json_key(&json, "median_ns");
 *     kiln_json_int(&json, median_ns);
 *     kiln_json_close(&json);
 *
 * With a sink (set json.sink and json.user after the init), what has piled up in the text is handed
 * on now and then and by kiln_json_finish. */
#ifndef KILN_BASE_JSON_H
#define KILN_BASE_JSON_H

#include "base/text.h"

/* Returns false when it could not write; nothing more is then handed on. */
typedef bool (*kiln_json_sink)(void *user, const char *data, size_t len);

enum { KILN_JSON_MAX_DEPTH = 64 };

typedef struct kiln_json {
    kiln_text *text;
    kiln_json_sink sink; /* may be NULL */
    void *user;
    uint64_t started; /* bit d: the container at depth d has an item */
    uint64_t objects; /* bit d: it is an object */
    int depth;
    int indent;    /* blanks a level; 0: all on one line */
    bool keyed;    /* a key was written, its value is due */
    bool complete; /* the top-level value was begun */
    bool misused;  /* the calls do not make a document */
    bool sink_failed;
} kiln_json;

void kiln_json_init(kiln_json *json, kiln_text *text, int indent);

/* kind is '{' or '['. */
void kiln_json_open(kiln_json *json, char kind);
void kiln_json_close(kiln_json *json);
void kiln_json_key(kiln_json *json, const char *key);

void kiln_json_string(kiln_json *json, const char *str); /* NULL becomes null */
void kiln_json_string_len(kiln_json *json, const char *str, size_t len);
void kiln_json_int(kiln_json *json, int64_t x);
void kiln_json_uint(kiln_json *json, uint64_t x);
void kiln_json_double(kiln_json *json, double x);
void kiln_json_float(kiln_json *json, float x);
void kiln_json_bool(kiln_json *json, bool x);
void kiln_json_null(kiln_json *json);

/* A whole document has been written (and handed to the sink). KILN_E_MEMORY, KILN_E_IO when the
 * sink failed, KILN_E_INTERNAL when the calls did not make a document. */
kiln_status kiln_json_finish(kiln_json *json);

#endif
