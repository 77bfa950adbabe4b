/* text.h - a growing string.
 *
 * Appending never reports failure itself: running out of memory is remembered and the text stops
 * growing, so that long sequences of appends need one check at the end.
 *
 *     kiln_text text;
 *     kiln_text_init(&text, env);
 *     kiln_text_printf(&text, "%d nodes", count);
 *     kiln_text_escape(&text, name, strlen(name), 200);
 *     status = kiln_text_ok(&text) ? use(text.data, text.len) : KILN_E_MEMORY;
 *     kiln_text_free(&text);
 *
 * A fixed text writes to the caller's buffer instead, truncates, and counts the full length. */
#ifndef KILN_BASE_TEXT_H
#define KILN_BASE_TEXT_H

#include <stdarg.h>

#include "base/compiler.h"

typedef struct kiln_text {
    const kiln_env *env;
    char *data;  /* NUL-terminated; NULL before the first append to a growing text */
    size_t len;  /* without the NUL; of a fixed text, the length it would have untruncated */
    size_t cap;  /* bytes of data */
    bool fixed;  /* data is the caller's buffer */
    bool failed; /* out of memory: data ends where it failed */
} kiln_text;

void kiln_text_init(kiln_text *text, const kiln_env *env);
/* Writes to buf, always NUL-terminated when cap is not 0. Needs no kiln_text_free. */
void kiln_text_init_fixed(kiln_text *text, char *buf, size_t cap);
void kiln_text_free(kiln_text *text);
bool kiln_text_ok(const kiln_text *text);

/* vsnprintf in the C locale, whatever the process or thread has chosen: what a program reads again
 * has decimal points. Thread-safe; the thread's locale is as before. */
int kiln_vformat(char *buf, size_t cap, const char *fmt, va_list args);

void kiln_text_append(kiln_text *text, const void *src, size_t len);
void kiln_text_puts(kiln_text *text, const char *str);
void kiln_text_char(kiln_text *text, char c);
void kiln_text_printf(kiln_text *text, const char *fmt, ...) KILN_PRINTF(2, 3);
void kiln_text_vprintf(kiln_text *text, const char *fmt, va_list args);

/* Appends `len` bytes made safe for a terminal and a log line: control characters (C0, DEL, C1),
 * line and paragraph separators, bidirectional overrides and bytes that are not UTF-8 become \n,
 * \t, \r or \xHH for each byte. At most max_bytes (0: no limit) of src are shown, cut at a
 * character, followed by an ellipsis. */
void kiln_text_escape(kiln_text *text, const char *src, size_t len, size_t max_bytes);

/* Appends the shortest decimal form that reads back as the same number, with a '.' whatever the
 * locale; "nan", "inf" and "-inf" for the others. */
void kiln_text_double(kiln_text *text, double x);
void kiln_text_float(kiln_text *text, float x);

/* Reads src[0..len), all of it, as a decimal number ("-1.5e3"; "nan", "inf" and hexadecimal floats
 * too), with a '.' whatever the locale. */
bool kiln_parse_double(const char *src, size_t len, double *out);
/* The same for an integer in base 10; false when it does not fit. */
bool kiln_parse_i64(const char *src, size_t len, int64_t *out);

/* Length in bytes (1..4) of the well-formed UTF-8 character at src[0..len), or 0. */
size_t kiln_utf8_char(const char *src, size_t len);
/* True when all of src is well-formed UTF-8 (no overlong forms, no surrogates). */
bool kiln_utf8_valid(const char *src, size_t len);

#endif
