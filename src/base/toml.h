/* toml.h - reading configuration files: TOML 1.0 without dates.
 *
 * A document becomes a tree of plain nodes in an arena: tables, arrays and scalars, in the order of
 * the file. Strict: a key defined twice, a table reopened, a number out of range, bytes that are
 * not UTF-8 and dates are errors with their line. Nesting is limited to 64, the file to 1 MiB, one
 * table to 1024 entries.
 *
 *     const kiln_toml *root, *value;
 *     KILN_TRY(kiln_toml_parse(&root, arena, text, len, diag));
 *     value = kiln_toml_find(root, "build.threads");
 *     if (value && value->kind == KILN_TOML_INT) { threads = value->integer; }
 */
#ifndef KILN_BASE_TOML_H
#define KILN_BASE_TOML_H

#include "base/arena.h"

typedef enum kiln_toml_kind {
    KILN_TOML_TABLE,
    KILN_TOML_ARRAY,
    KILN_TOML_STRING,
    KILN_TOML_INT,
    KILN_TOML_FLOAT,
    KILN_TOML_BOOL,
} kiln_toml_kind;

/* What made a table or an array; it decides what may still be added to it. */
typedef enum kiln_toml_origin {
    KILN_TOML_IMPLICIT, /* named on the way by a header: may get its own header once */
    KILN_TOML_HEADER,   /* [table] or [[array]] */
    KILN_TOML_DOTTED,   /* named on the way by a dotted key: grows by dotted keys and sub-tables */
    KILN_TOML_INLINE,   /* a value: complete */
} kiln_toml_origin;

typedef struct kiln_toml kiln_toml;
struct kiln_toml {
    kiln_toml_kind kind;
    int32_t line;    /* where it was defined, from 1 */
    const char *key; /* within a table, else NULL */
    kiln_toml *next; /* sibling in the same table or array */

    kiln_toml *first, *last; /* children of a table or array */
    size_t count;
    kiln_toml_origin origin;

    const char *string; /* NUL-terminated; may hold further NULs within string_len */
    size_t string_len;
    int64_t integer;
    double number;
    bool boolean;
};

/* Parses text[0..len) into a table. E0801 with the line for what breaks the rules, E0802 for dates,
 * E0803 over a limit, KILN_E_MEMORY. Nodes and strings live in the arena. */
kiln_status kiln_toml_parse(const kiln_toml **out, kiln_arena *arena, const char *text, size_t len,
                            kiln_diag *diag);

/* The child of a table with this key, or NULL. */
const kiln_toml *kiln_toml_child(const kiln_toml *table, const char *key);
/* Follows bare keys joined by dots ("quant.default.bits"); NULL when one is missing. */
const kiln_toml *kiln_toml_find(const kiln_toml *table, const char *path);

#endif
