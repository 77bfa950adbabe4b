/* text_read.c - words, numbers and types of the text form. */
#include "ir/text_read.h"

#include <string.h>

enum { MAX_NESTING = 32 };

#define FAIL(p, ...) kiln_text_bad((p), __VA_ARGS__)

kiln_status kiln_text_bad(kiln_parser *p, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *text = kiln_arena_vprintf(&p->scratch, fmt, args);
    va_end(args);
    return kiln_fail(p->diag, KILN_F_GRAPH, "line %lld: %s", (long long)p->line, text ? text : "");
}

/* ---- Characters ---- */

void kiln_text_skip_blanks(kiln_parser *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t')) {
        p->at++;
    }
}

void kiln_text_skip_lines(kiln_parser *p) {
    for (;;) {
        kiln_text_skip_blanks(p);
        if (p->at < p->end && *p->at == '#') {
            while (p->at < p->end && *p->at != '\n') {
                p->at++;
            }
        }
        if (p->at == p->end || *p->at != '\n') {
            return;
        }
        p->at++;
        p->line++;
    }
}

bool kiln_text_accept(kiln_parser *p, const char *word) {
    kiln_text_skip_blanks(p);
    size_t len = strlen(word);
    if ((size_t)(p->end - p->at) < len || memcmp(p->at, word, len) != 0) {
        return false;
    }
    p->at += len;
    return true;
}

kiln_status kiln_text_expect(kiln_parser *p, const char *word) {
    return kiln_text_accept(p, word) ? KILN_OK : FAIL(p, "\"%s\" expected", word);
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

size_t kiln_text_word_length(const kiln_parser *p, const char *more) {
    const char *s = p->at;
    while (s < p->end && *s && (is_letter(*s) || is_digit(*s) || strchr(more, *s))) {
        s++;
    }
    return (size_t)(s - p->at);
}

static int hex_digit(char c) {
    return is_digit(c)            ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

kiln_status kiln_text_read_quoted(kiln_parser *p, const char **out) {
    size_t len = 0;
    char *text = kiln_arena_array(
        p->arena, (size_t)(p->end - p->at) < 4096 ? (size_t)(p->end - p->at) + 1 : 4096, 1);
    if (!text) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(kiln_text_expect(p, "\""));
    while (p->at < p->end && *p->at != '"' && *p->at != '\n' && len < 4095) {
        char c = *p->at++;
        if (c == '\\' && p->end - p->at >= 3 && *p->at == 'x') {
            int high = hex_digit(p->at[1]), low = hex_digit(p->at[2]);
            if (high < 0 || low < 0 || (high == 0 && low == 0)) {
                return FAIL(p, "\\x takes two hexadecimal digits other than 00");
            }
            c = (char)(high * 16 + low);
            p->at += 3;
        } else if (c == '\\' && p->at < p->end && (*p->at == '"' || *p->at == '\\')) {
            c = *p->at++;
        } else if (c == '\\' || !c) {
            return FAIL(p, "an escape that is none of \\\" \\\\ \\xHH");
        }
        text[len++] = c;
    }
    *out = text;
    return kiln_text_expect(p, "\"");
}

kiln_status kiln_text_read_name(kiln_parser *p, const char **out) {
    kiln_text_skip_blanks(p);
    if (p->at < p->end && *p->at == '"') {
        return kiln_text_read_quoted(p, out);
    }
    size_t len = kiln_text_word_length(p, "./~-");
    if (len == 0 || !is_letter(*p->at)) {
        return FAIL(p, "a name expected");
    }
    *out = kiln_arena_text(p->arena, p->at, len);
    p->at += len;
    return *out ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_text_read_word(kiln_parser *p, const char **out) {
    kiln_text_skip_blanks(p);
    size_t len = kiln_text_word_length(p, "");
    *out = kiln_arena_text(&p->scratch, p->at, len);
    p->at += len;
    return !*out ? KILN_E_MEMORY : len ? KILN_OK : FAIL(p, "a word expected");
}

size_t kiln_text_number_length(const kiln_parser *p) {
    return kiln_text_word_length(p, "+-.");
}

kiln_status kiln_text_read_int(kiln_parser *p, int64_t *out) {
    kiln_text_skip_blanks(p);
    size_t len = 0;
    while (p->at + len < p->end && (is_digit(p->at[len]) || (len == 0 && p->at[0] == '-'))) {
        len++;
    }
    if (!kiln_parse_i64(p->at, len, out)) {
        return FAIL(p, "a whole number expected");
    }
    p->at += len;
    return KILN_OK;
}

kiln_status kiln_text_read_float(kiln_parser *p, float *out) {
    kiln_text_skip_blanks(p);
    double v;
    size_t len = kiln_text_number_length(p);
    if (!kiln_parse_double(p->at, len, &v)) {
        return FAIL(p, "a number expected");
    }
    p->at += len;
    *out = (float)v;
    return KILN_OK;
}

/* ---- Types ---- */

static kiln_status read_sum(kiln_parser *p, kiln_dim *out);

static kiln_status read_pair(kiln_parser *p, kiln_dim *a, kiln_dim *b) {
    KILN_TRY(kiln_text_expect(p, "("));
    KILN_TRY(read_sum(p, a));
    KILN_TRY(kiln_text_expect(p, ","));
    KILN_TRY(read_sum(p, b));
    return kiln_text_expect(p, ")");
}

static kiln_status read_atom(kiln_parser *p, kiln_dim *out) {
    kiln_dim a, b;
    if (kiln_text_accept(p, "(")) {
        if (++p->depth > MAX_NESTING) {
            return FAIL(p, "a dim is nested too deeply");
        }
        KILN_TRY(read_sum(p, out));
        p->depth--;
        return kiln_text_expect(p, ")");
    }
    if (kiln_text_accept(p, "?")) {
        p->at += kiln_text_word_length(p, "");
        *out = KILN_DIM_UNKNOWN;
        return KILN_OK;
    }
    if (kiln_text_accept(p, "min(")) {
        p->at--;
        KILN_TRY(read_pair(p, &a, &b));
        *out = kiln_dim_min(p->dims, a, b);
        return KILN_OK;
    }
    if (kiln_text_accept(p, "max(")) {
        p->at--;
        KILN_TRY(read_pair(p, &a, &b));
        *out = kiln_dim_max(p->dims, a, b);
        return KILN_OK;
    }
    if (p->at < p->end && is_letter(*p->at)) {
        size_t len = kiln_text_word_length(p, ".");
        const char *name = kiln_arena_text(&p->scratch, p->at, len);
        p->at += len;
        *out = name ? kiln_dim_symbol(p->dims, name) : KILN_DIM_UNKNOWN;
        return name ? KILN_OK : KILN_E_MEMORY;
    }
    return kiln_text_read_int(p, out);
}

static kiln_status read_term(kiln_parser *p, kiln_dim *out) {
    kiln_dim b;
    KILN_TRY(read_atom(p, out));
    for (;;) {
        bool times = kiln_text_accept(p, "*");
        if (!times && !kiln_text_accept(p, "/")) {
            return KILN_OK;
        }
        KILN_TRY(read_atom(p, &b));
        *out = times ? kiln_dim_mul(p->dims, *out, b) : kiln_dim_div(p->dims, *out, b);
    }
}

static kiln_status read_sum(kiln_parser *p, kiln_dim *out) {
    kiln_dim b;
    KILN_TRY(read_term(p, out));
    for (;;) {
        bool plus = kiln_text_accept(p, "+");
        if (!plus && !kiln_text_accept(p, "-")) {
            return KILN_OK;
        }
        KILN_TRY(read_term(p, &b));
        *out = plus ? kiln_dim_add(p->dims, *out, b) : kiln_dim_sub(p->dims, *out, b);
    }
}

kiln_status kiln_text_read_type(kiln_parser *p, kiln_type *out) {
    static const char *const kinds[] = {"seq(", "optional("};
    for (int i = 0; i < 2; i++) {
        if (kiln_text_accept(p, kinds[i])) {
            kiln_type *elem;
            if (++p->depth > MAX_NESTING) {
                return FAIL(p, "a type is nested too deeply");
            }
            KILN_ALLOC(elem, p->arena, 1);
            KILN_TRY(kiln_text_read_type(p, elem));
            p->depth--;
            *out = (kiln_type){.kind = i ? KILN_KIND_OPTIONAL : KILN_KIND_SEQUENCE, .elem = elem};
            return kiln_text_expect(p, ")");
        }
    }
    const char *word;
    kiln_dim dims[KILN_MAX_RANK];
    KILN_TRY(kiln_text_read_word(p, &word));
    kiln_dtype dtype = kiln_dtype_parse(word);
    int32_t rank = 0;
    if (dtype == KILN_DTYPE_NONE) {
        return FAIL(p, "\"%s\" is no element type", word);
    }
    KILN_TRY(kiln_text_expect(p, "["));
    if (kiln_text_accept(p, "...]")) {
        *out = kiln_type_tensor(dtype, KILN_RANK_UNKNOWN, NULL);
        return KILN_OK;
    }
    while (!kiln_text_accept(p, "]")) {
        if (rank == KILN_MAX_RANK) {
            return FAIL(p, "more than %d dims", KILN_MAX_RANK);
        }
        if (rank) {
            KILN_TRY(kiln_text_expect(p, ","));
        }
        KILN_TRY(read_sum(p, &dims[rank++]));
    }
    kiln_dim *copy = kiln_arena_copy(p->arena, dims, (size_t)rank * sizeof *dims);
    *out = kiln_type_tensor(dtype, rank, copy);
    return copy ? KILN_OK : KILN_E_MEMORY;
}
