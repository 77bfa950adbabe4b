/* The grammar is TOML 1.0.0 (toml.io). Tables are lists: configuration files are small, and a limit
 * on the entries of one table keeps the search for duplicates cheap. */
#include "base/toml.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/diag.h"
#include "base/text.h"

enum {
    MAX_BYTES = 1 << 20,
    MAX_DEPTH = 64,
    MAX_ENTRIES = 1024, /* of one table */
    MAX_SHOWN = 60,
};

typedef struct parser {
    kiln_arena *arena;
    kiln_diag *diag;
    const char *at, *end;
    int32_t line;
    int depth;
} parser;

static kiln_status fail(parser *p, const char *what) {
    return kiln_fail(p->diag, KILN_F_DATA_FORMAT, "line %d: %s", (int)p->line, what);
}

static kiln_status over(parser *p, const char *what) {
    return kiln_fail(p->diag, KILN_F_DATA_LIMIT, "line %d: %s", (int)p->line, what);
}

/* The byte at the cursor, or 0 at the end (a NUL is no valid TOML either). */
static char peek(const parser *p) {
    return p->at < p->end ? *p->at : '\0';
}

static bool accept(parser *p, char c) {
    if (p->at < p->end && *p->at == c) {
        p->at++;
        return true;
    }
    return false;
}

static bool accept_text(parser *p, const char *text) {
    size_t len = strlen(text);
    if ((size_t)(p->end - p->at) >= len && memcmp(p->at, text, len) == 0) {
        p->at += len;
        return true;
    }
    return false;
}

static void skip_blanks(parser *p) {
    while (peek(p) == ' ' || peek(p) == '\t') {
        p->at++;
    }
}

static bool accept_newline(parser *p) {
    if (accept(p, '\n') || accept_text(p, "\r\n")) {
        p->line++;
        return true;
    }
    return false;
}

static bool is_control(char c) {
    return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7F;
}

/* Skips a comment; the newline stays. */
static void skip_comment(parser *p) {
    if (accept(p, '#')) {
        while (p->at < p->end && !is_control(*p->at)) {
            p->at++;
        }
    }
}

/* The rest of a line: blanks, a comment, and the newline or the end of the file. */
static kiln_status end_line(parser *p) {
    skip_blanks(p);
    skip_comment(p);
    if (p->at < p->end && !accept_newline(p)) {
        return fail(p, "unexpected characters at the end of the line");
    }
    return KILN_OK;
}

static void skip_lines(parser *p) {
    do {
        skip_blanks(p);
        skip_comment(p);
    } while (accept_newline(p));
}

static kiln_status add_child(parser *p, kiln_toml *parent, kiln_toml_kind kind, const char *key,
                             kiln_toml **out) {
    kiln_toml *node;
    if (parent->kind == KILN_TOML_TABLE && parent->count >= MAX_ENTRIES) {
        return over(p, "a table has too many entries");
    }
    KILN_ALLOC(node, p->arena, 1);
    node->kind = kind;
    node->line = p->line;
    node->key = key;
    *(parent->last ? &parent->last->next : &parent->first) = node;
    parent->last = node;
    parent->count++;
    *out = node;
    return KILN_OK;
}

static kiln_toml *child(const kiln_toml *table, const char *key, size_t len) {
    for (kiln_toml *node = table->first; node; node = node->next) {
        if (strlen(node->key) == len && memcmp(node->key, key, len) == 0) {
            return node;
        }
    }
    return NULL;
}

const kiln_toml *kiln_toml_child(const kiln_toml *table, const char *key) {
    return table && table->kind == KILN_TOML_TABLE ? child(table, key, strlen(key)) : NULL;
}

const kiln_toml *kiln_toml_find(const kiln_toml *table, const char *path) {
    while (table && table->kind == KILN_TOML_TABLE) {
        size_t len = strcspn(path, ".");
        table = child(table, path, len);
        if (path[len] == '\0') {
            return table;
        }
        path += len + 1;
    }
    return NULL;
}

/* Appends the character `code` as UTF-8. */
static bool put_utf8(kiln_text *text, uint32_t code) {
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
        return false;
    }
    if (code < 0x80) {
        kiln_text_char(text, (char)code);
        return true;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const uint8_t leads[] = {0, 0xC0, 0xE0, 0xF0};
    kiln_text_char(text, (char)(leads[more] | code >> (6 * more)));
    for (int i = more - 1; i >= 0; i--) {
        kiln_text_char(text, (char)(0x80 | (code >> (6 * i) & 0x3F)));
    }
    return true;
}

static bool read_hex(parser *p, int digits, uint32_t *out) {
    *out = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        char c = peek(p);
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) {
            return false;
        }
        *out = *out << 4 | digit;
    }
    return true;
}

/* After a backslash in a string; a multi-line string may also break the line here. */
static kiln_status read_escape(parser *p, kiln_text *text, bool multiline) {
    static const char shorts[] = "b\bt\tn\nf\fr\r\"\"\\\\"; /* pairs: letter, its character */
    char c = peek(p);
    for (size_t i = 0; i + 1 < sizeof shorts; i += 2) {
        if (c == shorts[i] && c) {
            p->at++;
            kiln_text_char(text, shorts[i + 1]);
            return KILN_OK;
        }
    }
    if (c == 'u' || c == 'U') {
        uint32_t code;
        p->at++;
        bool valid = read_hex(p, c == 'u' ? 4 : 8, &code) && put_utf8(text, code);
        return valid ? KILN_OK : fail(p, "a \\u escape names no character");
    }
    if (multiline) {
        skip_blanks(p);
        if (accept_newline(p)) {
            do {
                skip_blanks(p);
            } while (accept_newline(p));
            return KILN_OK;
        }
    }
    return fail(p, "an unknown escape in a string");
}

/* The closing quotes of a multi-line string: three, with up to two more that belong to the text. */
static bool close_multiline(parser *p, kiln_text *text, char quote) {
    int run = 0;
    while (run < 5 && p->at + run < p->end && p->at[run] == quote) {
        run++;
    }
    if (run < 3) {
        return false;
    }
    for (int i = 0; i < run - 3; i++) {
        kiln_text_char(text, quote);
    }
    p->at += run;
    return true;
}

static kiln_status read_characters(parser *p, kiln_text *text, char quote, bool multiline) {
    for (;;) {
        if (p->at == p->end) {
            return fail(p, "a string does not end");
        }
        if (multiline ? close_multiline(p, text, quote) : accept(p, quote)) {
            return KILN_OK;
        }
        if (quote == '"' && accept(p, '\\')) {
            KILN_TRY(read_escape(p, text, multiline));
        } else if (multiline && accept_newline(p)) {
            kiln_text_char(text, '\n');
        } else if (is_control(*p->at)) {
            return fail(p, "a control character in a string");
        } else {
            kiln_text_char(text, *p->at++);
        }
    }
}

/* A basic ("...") or literal ('...') string, of one or, when allowed, of more lines. */
static kiln_status read_string(parser *p, bool allow_multiline, const char **out, size_t *out_len) {
    char quote = *p->at;
    bool multiline = allow_multiline && accept_text(p, quote == '"' ? "\"\"\"" : "'''");
    if (multiline) {
        accept_newline(p);
    } else {
        p->at++;
    }
    kiln_text text;
    kiln_text_init(&text, p->arena->env);
    kiln_status status = read_characters(p, &text, quote, multiline);
    if (status == KILN_OK) {
        *out = kiln_text_ok(&text) ? kiln_arena_text(p->arena, text.data, text.len) : NULL;
        *out_len = text.len;
        status = *out ? KILN_OK : KILN_E_MEMORY;
    }
    kiln_text_free(&text);
    return status;
}

static bool is_bare(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

/* One part of a key, with the blanks around it. */
static kiln_status read_key(parser *p, const char **out) {
    size_t len = 0;
    skip_blanks(p);
    if (peek(p) == '"' || peek(p) == '\'') {
        KILN_TRY(read_string(p, false, out, &len));
        if (strlen(*out) != len) {
            return fail(p, "a key holds a NUL");
        }
    } else {
        while (p->at + len < p->end && is_bare(p->at[len])) {
            len++;
        }
        if (len == 0) {
            return fail(p, "a key is missing");
        }
        *out = kiln_arena_text(p->arena, p->at, len);
        p->at += len;
    }
    skip_blanks(p);
    return *out ? KILN_OK : KILN_E_MEMORY;
}

static bool is_digit(char c, int base) {
    return base == 16 ? (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')
                      : c >= '0' && c < '0' + base;
}

/* Copies a number's digits without the underscores, which must stand between two digits. */
static bool strip_underscores(const char *src, size_t len, int base, char *dst, size_t cap) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (src[i] == '_') {
            bool between =
                i > 0 && i + 1 < len && is_digit(src[i - 1], base) && is_digit(src[i + 1], base);
            if (!between) {
                return false;
            }
        } else if (n + 1 < cap) {
            dst[n++] = src[i];
        } else {
            return false;
        }
    }
    dst[n] = '\0';
    return true;
}

static kiln_status read_prefixed(parser *p, kiln_toml *node, const char *word, size_t len) {
    int base = word[1] == 'x' ? 16 : word[1] == 'o' ? 8 : 2;
    char digits[80], *end;
    if (!strip_underscores(word + 2, len - 2, base, digits, sizeof digits) ||
        !is_digit(digits[0], base)) {
        return fail(p, "a number is malformed");
    }
    errno = 0;
    long long value = strtoll(digits, &end, base);
    if (errno || *end) {
        return fail(p, *end ? "a number is malformed" : "an integer does not fit 64 bits");
    }
    node->kind = KILN_TOML_INT;
    node->integer = value;
    return KILN_OK;
}

/* [+-] digits [. digits] [e [+-] digits], no leading zeros; *real tells a float from an integer. */
static bool decimal_form(const char *s, bool *real) {
    s += *s == '+' || *s == '-';
    if (!is_digit(*s, 10) || (s[0] == '0' && is_digit(s[1], 10))) {
        return false;
    }
    s += strspn(s, "0123456789");
    *real = *s != '\0';
    if (*s == '.') {
        size_t digits = strspn(s + 1, "0123456789");
        if (digits == 0) {
            return false;
        }
        s += 1 + digits;
    }
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '+' || *s == '-';
        size_t digits = strspn(s, "0123456789");
        if (digits == 0) {
            return false;
        }
        s += digits;
    }
    return *s == '\0';
}

static bool is_special(kiln_toml *node, const char *word, size_t len) {
    bool negative = len && word[0] == '-', sign = len && (negative || word[0] == '+');
    const char *name = word + sign;
    if (len - sign != 3 || (memcmp(name, "inf", 3) != 0 && memcmp(name, "nan", 3) != 0)) {
        return false;
    }
    node->kind = KILN_TOML_FLOAT;
    node->number = name[0] == 'i' ? (double)INFINITY : (double)NAN;
    node->number = negative ? -node->number : node->number;
    return true;
}

static kiln_status read_number(parser *p, kiln_toml *node, const char *word, size_t len) {
    char digits[400];
    bool real = false;
    if (len > 2 && word[0] == '0' && strchr("xob", word[1])) {
        return read_prefixed(p, node, word, len);
    }
    if (!strip_underscores(word, len, 10, digits, sizeof digits) || !decimal_form(digits, &real)) {
        return kiln_fail(p->diag, KILN_F_DATA_FORMAT, "line %d: \"%.*s\" is no value", (int)p->line,
                         (int)(len < MAX_SHOWN ? len : MAX_SHOWN), word);
    }
    node->kind = real ? KILN_TOML_FLOAT : KILN_TOML_INT;
    size_t n = strlen(digits);
    bool fits = real ? kiln_parse_double(digits, n, &node->number)
                     : kiln_parse_i64(digits, n, &node->integer);
    return fits ? KILN_OK : fail(p, "an integer does not fit 64 bits");
}

/* true, false, a number, or a date, which is refused. */
static kiln_status read_word(parser *p, kiln_toml *node) {
    const char *word = p->at;
    while (p->at < p->end && (is_bare(*p->at) || *p->at == '+' || *p->at == '.' || *p->at == ':')) {
        p->at++;
    }
    size_t len = (size_t)(p->at - word);
    bool truth = len == 4 && memcmp(word, "true", 4) == 0;
    if (truth || (len == 5 && memcmp(word, "false", 5) == 0)) {
        node->kind = KILN_TOML_BOOL;
        node->boolean = truth;
        return KILN_OK;
    }
    bool date = len >= 10 && is_digit(word[3], 10) && word[4] == '-' && word[7] == '-';
    if (date || (len >= 5 && is_digit(word[1], 10) && word[2] == ':')) {
        return kiln_fail(p->diag, KILN_F_DATA_UNSUPPORTED, "line %d: dates and times are not read",
                         (int)p->line);
    }
    return is_special(node, word, len) ? KILN_OK : read_number(p, node, word, len);
}

static kiln_status read_value(parser *p, kiln_toml *node);

static kiln_status read_array(parser *p, kiln_toml *array) {
    array->kind = KILN_TOML_ARRAY;
    array->origin = KILN_TOML_INLINE;
    for (;;) {
        skip_lines(p);
        if (accept(p, ']')) {
            return KILN_OK;
        }
        kiln_toml *item;
        KILN_TRY(add_child(p, array, KILN_TOML_INT, NULL, &item));
        KILN_TRY(read_value(p, item));
        skip_lines(p);
        if (!accept(p, ',') && peek(p) != ']') {
            return fail(p, "an array lacks a comma or its end");
        }
    }
}

static kiln_status already_defined(parser *p, const char *key) {
    return kiln_fail(p->diag, KILN_F_DATA_FORMAT, "line %d: \"%.*s\" is already defined",
                     (int)p->line, MAX_SHOWN, key);
}

/* The table that `key` names within *table, made when missing. A header passes through any table
 * that is not a value, and into the last table of an array; a dotted key passes only through tables
 * that dotted keys made. */
static kiln_status enter(parser *p, kiln_toml **table, const char *key, bool dotted) {
    kiln_toml *node = child(*table, key, strlen(key));
    if (!node) {
        KILN_TRY(add_child(p, *table, KILN_TOML_TABLE, key, &node));
        node->origin = dotted ? KILN_TOML_DOTTED : KILN_TOML_IMPLICIT;
    }
    if (node->kind == KILN_TOML_ARRAY && node->origin == KILN_TOML_HEADER && !dotted) {
        node = node->last;
    }
    bool open = node->kind == KILN_TOML_TABLE &&
                (dotted ? node->origin == KILN_TOML_DOTTED : node->origin != KILN_TOML_INLINE);
    if (!open) {
        return already_defined(p, key);
    }
    *table = node;
    return KILN_OK;
}

/* Reads key.key.key, enters all parts but the last, and leaves the last in *key. */
static kiln_status read_path(parser *p, kiln_toml **table, const char **key, bool dotted) {
    KILN_TRY(read_key(p, key));
    for (int parts = 1; accept(p, '.'); parts++) {
        if (parts == MAX_DEPTH) {
            return over(p, "a key has too many parts");
        }
        KILN_TRY(enter(p, table, *key, dotted));
        KILN_TRY(read_key(p, key));
    }
    return KILN_OK;
}

static kiln_status read_pair(parser *p, kiln_toml *table) {
    const char *key;
    kiln_toml *node;
    KILN_TRY(read_path(p, &table, &key, true));
    if (!accept(p, '=')) {
        return fail(p, "a key lacks its \"=\"");
    }
    if (child(table, key, strlen(key))) {
        return already_defined(p, key);
    }
    KILN_TRY(add_child(p, table, KILN_TOML_INT, key, &node));
    skip_blanks(p);
    return read_value(p, node);
}

static kiln_status read_inline_table(parser *p, kiln_toml *table) {
    table->kind = KILN_TOML_TABLE;
    table->origin = KILN_TOML_INLINE;
    skip_blanks(p);
    if (accept(p, '}')) {
        return KILN_OK;
    }
    for (;;) {
        KILN_TRY(read_pair(p, table));
        skip_blanks(p);
        if (accept(p, '}')) {
            return KILN_OK;
        }
        if (!accept(p, ',')) {
            return fail(p, "an inline table lacks a comma or its end");
        }
    }
}

/* The recursion through arrays and inline tables ends at MAX_DEPTH. */
static kiln_status read_value(parser *p, kiln_toml *node) {
    if (p->depth == MAX_DEPTH) {
        return over(p, "values are nested too deeply");
    }
    p->depth++;
    kiln_status status;
    char c = peek(p);
    if (c == '"' || c == '\'') {
        node->kind = KILN_TOML_STRING;
        status = read_string(p, true, &node->string, &node->string_len);
    } else if (accept(p, '[')) {
        status = read_array(p, node);
    } else if (accept(p, '{')) {
        status = read_inline_table(p, node);
    } else {
        status = read_word(p, node);
    }
    p->depth--;
    return status;
}

/* Appends a table to the array of tables `key`. */
static kiln_status open_element(parser *p, kiln_toml *parent, const char *key, kiln_toml **out) {
    kiln_toml *array = child(parent, key, strlen(key));
    if (!array) {
        KILN_TRY(add_child(p, parent, KILN_TOML_ARRAY, key, &array));
        array->origin = KILN_TOML_HEADER;
    } else if (array->kind != KILN_TOML_ARRAY || array->origin != KILN_TOML_HEADER) {
        return already_defined(p, key);
    }
    KILN_TRY(add_child(p, array, KILN_TOML_TABLE, NULL, out));
    (*out)->origin = KILN_TOML_HEADER;
    return KILN_OK;
}

static kiln_status open_table(parser *p, kiln_toml *parent, const char *key, kiln_toml **out) {
    kiln_toml *table = child(parent, key, strlen(key));
    if (!table) {
        KILN_TRY(add_child(p, parent, KILN_TOML_TABLE, key, &table));
    } else if (table->kind != KILN_TOML_TABLE || table->origin != KILN_TOML_IMPLICIT) {
        return already_defined(p, key);
    }
    table->origin = KILN_TOML_HEADER;
    *out = table;
    return KILN_OK;
}

/* [key.key] or [[key.key]], after the first bracket. */
static kiln_status read_header(parser *p, kiln_toml *root, kiln_toml **table) {
    const char *key;
    kiln_toml *parent = root;
    bool element = accept(p, '[');
    KILN_TRY(read_path(p, &parent, &key, false));
    if (!accept_text(p, element ? "]]" : "]")) {
        return fail(p, "a table header lacks its end");
    }
    return (element ? open_element : open_table)(p, parent, key, table);
}

kiln_status kiln_toml_parse(const kiln_toml **out, kiln_arena *arena, const char *text, size_t len,
                            kiln_diag *diag) {
    parser p = {.arena = arena, .diag = diag, .at = text, .end = text + len, .line = 1};
    if (len > MAX_BYTES) {
        return over(&p, "the file is larger than 1 MiB");
    }
    if (!kiln_utf8_valid(text, len)) {
        return fail(&p, "the file is not UTF-8");
    }
    kiln_toml *root, *table;
    KILN_ALLOC(root, arena, 1);
    root->kind = KILN_TOML_TABLE;
    root->line = 1;
    table = root;
    accept_text(&p, "\xEF\xBB\xBF");
    for (skip_lines(&p); p.at < p.end; skip_lines(&p)) {
        KILN_TRY(accept(&p, '[') ? read_header(&p, root, &table) : read_pair(&p, table));
        KILN_TRY(end_line(&p));
    }
    *out = root;
    return KILN_OK;
}
