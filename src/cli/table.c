/* table.c - tables and CSV on stdout, and texts for their cells. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

struct table {
    list heads;
    bool *right; /* per column */
    list cells;  /* row by row */
};

table *table_new(const char *heads) {
    table *t = allocate(sizeof *t);
    size_t columns = 1;
    for (const char *p = heads; *p; p++) {
        columns += *p == '|';
    }
    t->right = allocate(columns * sizeof *t->right);
    for (const char *p = heads;; p++) {
        size_t n = strcspn(p, "|");
        t->right[t->heads.count] = *p == '>';
        list_add(&t->heads, keep(p + (*p == '>'), n - (*p == '>')));
        p += n;
        if (*p == '\0') {
            return t;
        }
    }
}

void table_cell(table *t, const char *fmt, ...) {
    char text[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    list_add(&t->cells, safe(text));
}

/* Columns a text takes: bytes that begin a UTF-8 character. */
static size_t width(const char *text) {
    size_t n = 0;
    for (; *text; text++) {
        n += ((unsigned char)*text & 0xC0) != 0x80;
    }
    return n;
}

static void csv_cell(const char *text, bool last) {
    if (strpbrk(text, ",\"\n")) {
        putchar('"');
        for (; *text; text++) {
            if (*text == '"') {
                putchar('"');
            }
            putchar(*text);
        }
        putchar('"');
    } else {
        fputs(text, stdout);
    }
    putchar(last ? '\n' : ',');
}

static void plain_row(const table *t, const char *const *cells, const size_t *widths) {
    size_t columns = t->heads.count, blanks = 0;
    for (size_t k = 0; k < columns; k++) {
        size_t pad = widths[k] - width(cells[k]);
        blanks += t->right[k] ? pad : 0;
        if (*cells[k]) {
            printf("%*s%s", (int)blanks, "", cells[k]);
            blanks = 0;
        }
        blanks += (t->right[k] ? 0 : pad) + 2;
    }
    putchar('\n');
}

void table_print(const table *t, format f) {
    size_t columns = t->heads.count, rows = t->cells.count / columns;
    size_t *widths = allocate(columns * sizeof *widths);
    for (size_t i = 0; i <= rows; i++) {
        const char *const *row = i ? t->cells.items + (i - 1) * columns : t->heads.items;
        for (size_t k = 0; k < columns; k++) {
            size_t w = width(row[k]);
            widths[k] = w > widths[k] ? w : widths[k];
        }
    }
    for (size_t i = 0; i <= rows; i++) {
        const char *const *row = i ? t->cells.items + (i - 1) * columns : t->heads.items;
        if (f != FORMAT_CSV) {
            plain_row(t, row, widths);
            continue;
        }
        for (size_t k = 0; k < columns; k++) {
            csv_cell(row[k], k + 1 == columns);
        }
    }
}

void verdict(const cli *c, bool passed, const char *fmt, ...) {
    char text[512];
    va_list args;
    if (c->format != FORMAT_TABLE) {
        return;
    }
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    printf("\n%s %s  %s%s%.1f s\n", passed ? "PASSED" : "FAILED", c->verb->name, text,
           *text ? "  " : "", elapsed_s(c));
}

/* ---- Texts ---- */

const char *safe(const char *text) {
    size_t len = strlen(text), n = 0;
    char *out = allocate(4 * len + 1);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool control = *p < 0x20 || *p == 0x7F || (*p == 0xC2 && p[1] >= 0x80 && p[1] <= 0x9F);
        if (control) {
            n += (size_t)snprintf(out + n, 5, "\\x%02X", *p);
        } else {
            out[n++] = (char)*p;
        }
    }
    return out;
}

const char *dims_text(const int64_t *dims, int32_t rank) {
    if (rank < 0) {
        return "any shape";
    }
    if (rank == 0) {
        return "scalar";
    }
    char text[32 * KILN_MAX_RANK];
    size_t n = 0;
    for (int32_t d = 0; d < rank; d++) {
        n += (size_t)snprintf(text + n, sizeof text - n, dims[d] < 0 ? "%s?" : "%s%lld",
                              d ? "x" : "", (long long)dims[d]);
    }
    return keep(text, n);
}

const char *bytes_text(double bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;
    while (bytes >= 1024 && u + 1 < COUNT_OF(units)) {
        bytes /= 1024;
        u++;
    }
    return keepf(u == 0 ? "%.0f %s" : "%.1f %s", bytes, units[u]);
}

const char *count_text(double count) {
    static const char *const units[] = {"", " k", " M", " G", " T"};
    size_t u = 0;
    while (count >= 10000 && u + 1 < COUNT_OF(units)) {
        count /= 1000;
        u++;
    }
    return keepf(u == 0 ? "%.0f%s" : "%.1f%s", count, units[u]);
}
