/* text_parse.c - reading a graph from its text form. */
#include <string.h>

#include "ir/text_const.h"

enum { MAX_NESTING = 32, MAX_LIST = 65536 };

typedef struct slot {
    const char *name;
    kiln_value *value;
    bool defined;
} slot;

typedef struct parser {
    const char *at, *end;
    int64_t line;
    kiln_op_finder *find;
    kiln_arena *arena;
    kiln_dims *dims;
    const kiln_env *env;
    kiln_diag *diag;
    kiln_arena scratch;
    slot *slots; /* open hash by name */
    size_t n_slots, n_names;
    int depth;
} parser;

#define FAIL(p, ...) bad_text((p), __VA_ARGS__)

static kiln_status bad_text(parser *p, const char *fmt, ...) KILN_PRINTF(2, 3);

static kiln_status bad_text(parser *p, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *text = kiln_arena_vprintf(&p->scratch, fmt, args);
    va_end(args);
    return kiln_fail(p->diag, KILN_F_GRAPH, "line %lld: %s", (long long)p->line, text ? text : "");
}

/* ---- Characters ---- */

static void skip_blanks(parser *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t')) {
        p->at++;
    }
}

/* Blank lines and comments too. */
static void skip_lines(parser *p) {
    for (;;) {
        skip_blanks(p);
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

static bool accept(parser *p, const char *word) {
    skip_blanks(p);
    size_t len = strlen(word);
    if ((size_t)(p->end - p->at) < len || memcmp(p->at, word, len) != 0) {
        return false;
    }
    p->at += len;
    return true;
}

static kiln_status expect(parser *p, const char *word) {
    return accept(p, word) ? KILN_OK : FAIL(p, "\"%s\" expected", word);
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Letters, digits and the characters of `more` from here on. */
static size_t word_length(const parser *p, const char *more) {
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

static kiln_status read_quoted(parser *p, const char **out) {
    size_t len = 0;
    char *text = kiln_arena_array(
        p->arena, (size_t)(p->end - p->at) < 4096 ? (size_t)(p->end - p->at) + 1 : 4096, 1);
    if (!text) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(expect(p, "\""));
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
    return expect(p, "\"");
}

static kiln_status read_name(parser *p, const char **out) {
    skip_blanks(p);
    if (p->at < p->end && *p->at == '"') {
        return read_quoted(p, out);
    }
    size_t len = word_length(p, "./~-");
    if (len == 0 || !is_letter(*p->at)) {
        return FAIL(p, "a name expected");
    }
    *out = kiln_arena_text(p->arena, p->at, len);
    p->at += len;
    return *out ? KILN_OK : KILN_E_MEMORY;
}

/* A word of an enum, an attribute or an operator. */
static kiln_status read_word(parser *p, const char **out) {
    skip_blanks(p);
    size_t len = word_length(p, "");
    *out = kiln_arena_text(&p->scratch, p->at, len);
    p->at += len;
    return !*out ? KILN_E_MEMORY : len ? KILN_OK : FAIL(p, "a word expected");
}

static size_t number_length(const parser *p) {
    return word_length(p, "+-.");
}

static kiln_status read_int(parser *p, int64_t *out) {
    skip_blanks(p);
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

static kiln_status read_float(parser *p, float *out) {
    skip_blanks(p);
    double v;
    size_t len = number_length(p);
    if (!kiln_parse_double(p->at, len, &v)) {
        return FAIL(p, "a number expected");
    }
    p->at += len;
    *out = (float)v;
    return KILN_OK;
}

/* ---- Names of values ---- */

static slot *find_slot(slot *slots, size_t n, const char *name) {
    uint64_t h = UINT64_C(0xCBF29CE484222325);
    for (const char *c = name; *c; c++) {
        h = (h ^ (unsigned char)*c) * UINT64_C(0x100000001B3);
    }
    size_t s = (size_t)h & (n - 1);
    while (slots[s].name && strcmp(slots[s].name, name) != 0) {
        s = (s + 1) & (n - 1);
    }
    return &slots[s];
}

static kiln_status grow(parser *p) {
    size_t n = p->n_slots ? p->n_slots * 2 : 256;
    slot *slots;
    KILN_ALLOC(slots, &p->scratch, n);
    for (size_t i = 0; i < p->n_slots; i++) {
        if (p->slots[i].name) {
            *find_slot(slots, n, p->slots[i].name) = p->slots[i];
        }
    }
    p->slots = slots;
    p->n_slots = n;
    return KILN_OK;
}

static kiln_status define(parser *p, const char *name, kiln_value *value) {
    if (p->n_names * 2 >= p->n_slots) {
        KILN_TRY(grow(p));
    }
    slot *s = find_slot(p->slots, p->n_slots, name);
    if (s->name) {
        return FAIL(p, "\"%s\" is defined twice", name);
    }
    *s = (slot){name, value, true};
    p->n_names++;
    return KILN_OK;
}

static kiln_status read_use(parser *p, kiln_value **out) {
    const char *name;
    KILN_TRY(read_name(p, &name));
    if (!p->n_slots || !find_slot(p->slots, p->n_slots, name)->name) {
        return FAIL(p, "\"%s\" is not defined before", name);
    }
    *out = find_slot(p->slots, p->n_slots, name)->value;
    return KILN_OK;
}

/* ---- Types ---- */

static kiln_status read_sum(parser *p, kiln_dim *out);

static kiln_status read_pair(parser *p, kiln_dim *a, kiln_dim *b) {
    KILN_TRY(expect(p, "("));
    KILN_TRY(read_sum(p, a));
    KILN_TRY(expect(p, ","));
    KILN_TRY(read_sum(p, b));
    return expect(p, ")");
}

static kiln_status read_atom(parser *p, kiln_dim *out) {
    kiln_dim a, b;
    if (accept(p, "(")) {
        if (++p->depth > MAX_NESTING) {
            return FAIL(p, "a dim is nested too deeply");
        }
        KILN_TRY(read_sum(p, out));
        p->depth--;
        return expect(p, ")");
    }
    if (accept(p, "?")) {
        p->at += word_length(p, "");
        *out = KILN_DIM_UNKNOWN;
        return KILN_OK;
    }
    if (accept(p, "min(")) {
        p->at--;
        KILN_TRY(read_pair(p, &a, &b));
        *out = kiln_dim_min(p->dims, a, b);
        return KILN_OK;
    }
    if (accept(p, "max(")) {
        p->at--;
        KILN_TRY(read_pair(p, &a, &b));
        *out = kiln_dim_max(p->dims, a, b);
        return KILN_OK;
    }
    if (p->at < p->end && is_letter(*p->at)) {
        size_t len = word_length(p, ".");
        const char *name = kiln_arena_text(&p->scratch, p->at, len);
        p->at += len;
        *out = name ? kiln_dim_symbol(p->dims, name) : KILN_DIM_UNKNOWN;
        return name ? KILN_OK : KILN_E_MEMORY;
    }
    return read_int(p, out);
}

static kiln_status read_term(parser *p, kiln_dim *out) {
    kiln_dim b;
    KILN_TRY(read_atom(p, out));
    for (;;) {
        bool times = accept(p, "*");
        if (!times && !accept(p, "/")) {
            return KILN_OK;
        }
        KILN_TRY(read_atom(p, &b));
        *out = times ? kiln_dim_mul(p->dims, *out, b) : kiln_dim_div(p->dims, *out, b);
    }
}

static kiln_status read_sum(parser *p, kiln_dim *out) {
    kiln_dim b;
    KILN_TRY(read_term(p, out));
    for (;;) {
        bool plus = accept(p, "+");
        if (!plus && !accept(p, "-")) {
            return KILN_OK;
        }
        KILN_TRY(read_term(p, &b));
        *out = plus ? kiln_dim_add(p->dims, *out, b) : kiln_dim_sub(p->dims, *out, b);
    }
}

static kiln_status read_type(parser *p, kiln_type *out) {
    static const char *const kinds[] = {"seq(", "optional("};
    for (int i = 0; i < 2; i++) {
        if (accept(p, kinds[i])) {
            kiln_type *elem;
            if (++p->depth > MAX_NESTING) {
                return FAIL(p, "a type is nested too deeply");
            }
            KILN_ALLOC(elem, p->arena, 1);
            KILN_TRY(read_type(p, elem));
            p->depth--;
            *out = (kiln_type){.kind = i ? KILN_KIND_OPTIONAL : KILN_KIND_SEQUENCE, .elem = elem};
            return expect(p, ")");
        }
    }
    const char *word;
    kiln_dim dims[KILN_MAX_RANK];
    KILN_TRY(read_word(p, &word));
    kiln_dtype dtype = kiln_dtype_parse(word);
    int32_t rank = 0;
    if (dtype == KILN_DTYPE_NONE) {
        return FAIL(p, "\"%s\" is no element type", word);
    }
    KILN_TRY(expect(p, "["));
    if (accept(p, "...]")) {
        *out = kiln_type_tensor(dtype, KILN_RANK_UNKNOWN, NULL);
        return KILN_OK;
    }
    while (!accept(p, "]")) {
        if (rank == KILN_MAX_RANK) {
            return FAIL(p, "more than %d dims", KILN_MAX_RANK);
        }
        if (rank) {
            KILN_TRY(expect(p, ","));
        }
        KILN_TRY(read_sum(p, &dims[rank++]));
    }
    kiln_dim *copy = kiln_arena_copy(p->arena, dims, (size_t)rank * sizeof *dims);
    *out = kiln_type_tensor(dtype, rank, copy);
    return copy ? KILN_OK : KILN_E_MEMORY;
}

/* ---- Constants ---- */

static kiln_status read_elements(parser *p, kiln_tensor *t, int64_t n) {
    if (!kiln_text_shows(t->dtype)) {
        return FAIL(p, "elements of %s cannot be written", kiln_dtype_name(t->dtype));
    }
    for (int64_t i = 0; i < n; i++) {
        if (i) {
            KILN_TRY(expect(p, ","));
        }
        skip_blanks(p);
        size_t len = number_length(p);
        if (!kiln_text_read_element(t, i, p->at, len)) {
            return FAIL(p, "element %lld is no %s", (long long)i, kiln_dtype_name(t->dtype));
        }
        p->at += len;
    }
    return expect(p, "}");
}

static kiln_status read_data(parser *p, kiln_tensor *t) {
    int64_t n = kiln_tensor_count(t), seed;
    size_t bytes = kiln_tensor_bytes(t);
    if (n < 0 || bytes > (size_t)1 << 30) {
        return FAIL(p, "the constant is too large");
    }
    t->cap_bytes = bytes;
    t->data = kiln_arena_array(p->arena, bytes, 1);
    if (!t->data) {
        return KILN_E_MEMORY;
    }
    if (accept(p, "{")) {
        return read_elements(p, t, n);
    }
    if (accept(p, "hash(")) {
        return FAIL(p, "a hash stands for bytes that the text does not hold");
    }
    KILN_TRY(expect(p, "rand("));
    KILN_TRY(read_int(p, &seed));
    if (seed < 0 || seed > 255 || !kiln_text_shows(t->dtype)) {
        return FAIL(p, "rand takes a seed from 0 to 255 and plain element types");
    }
    kiln_text_fill(t, (uint32_t)seed);
    return expect(p, ")");
}

static kiln_status read_static_type(parser *p, kiln_tensor *t) {
    kiln_type type;
    KILN_TRY(read_type(p, &type));
    return kiln_type_to_tensor(&type, t) ? KILN_OK : FAIL(p, "a constant's dims must be numbers");
}

/* ---- Attributes ---- */

static kiln_status read_graph(parser *p, kiln_graph *parent, kiln_graph **out);

static kiln_status next_item(parser *p, int64_t n, bool *more) {
    *more = !accept(p, "]");
    if (n == MAX_LIST) {
        return FAIL(p, "a list has more than %d items", MAX_LIST);
    }
    return *more && n ? expect(p, ",") : KILN_OK;
}

static kiln_status read_ints(parser *p, kiln_ints *out) {
    int64_t *v = NULL, item = 0;
    size_t n = 0, cap = 0;
    bool more;
    KILN_TRY(expect(p, "["));
    for (;;) {
        KILN_TRY(next_item(p, (int64_t)n, &more));
        if (!more) {
            break;
        }
        KILN_TRY(read_int(p, &item));
        KILN_PUSH(p->arena, v, n, cap, item);
    }
    *out = (kiln_ints){v ? v : kiln_arena_array(p->arena, 0, 1), (int64_t)n};
    return KILN_OK;
}

static kiln_status read_floats(parser *p, kiln_floats *out) {
    float *v = NULL, item = 0;
    size_t n = 0, cap = 0;
    bool more;
    KILN_TRY(expect(p, "["));
    for (;;) {
        KILN_TRY(next_item(p, (int64_t)n, &more));
        if (!more) {
            break;
        }
        KILN_TRY(read_float(p, &item));
        KILN_PUSH(p->arena, v, n, cap, item);
    }
    *out = (kiln_floats){v ? v : kiln_arena_array(p->arena, 0, 1), (int64_t)n};
    return KILN_OK;
}

static kiln_status read_strings(parser *p, kiln_strings *out) {
    const char **v = NULL, *item = NULL;
    size_t n = 0, cap = 0;
    bool more;
    KILN_TRY(expect(p, "["));
    for (;;) {
        KILN_TRY(next_item(p, (int64_t)n, &more));
        if (!more) {
            break;
        }
        KILN_TRY(read_quoted(p, &item));
        KILN_PUSH(p->arena, v, n, cap, item);
    }
    *out = (kiln_strings){v ? v : kiln_arena_array(p->arena, 0, 1), (int64_t)n};
    return KILN_OK;
}

static kiln_status read_enum(parser *p, const kiln_attr *row, int32_t *out) {
    const char *word;
    KILN_TRY(read_word(p, &word));
    for (*out = 0; row->words[*out]; ++*out) {
        if (strcmp(row->words[*out], word) == 0) {
            return KILN_OK;
        }
    }
    return FAIL(p, "\"%s\" is no value of %s", word, row->name);
}

static kiln_status read_tensor_attr(parser *p, const kiln_tensor **out) {
    kiln_tensor *t;
    KILN_ALLOC(t, p->arena, 1);
    KILN_TRY(read_static_type(p, t));
    KILN_TRY(expect(p, "="));
    *out = t;
    return read_data(p, t);
}

static kiln_status read_attr(parser *p, const kiln_attr *row, void *field) {
    switch (row->kind) {
    case KILN_ATTR_INT:
        return read_int(p, field);
    case KILN_ATTR_FLOAT:
        return read_float(p, field);
    case KILN_ATTR_STRING:
        return read_quoted(p, field);
    case KILN_ATTR_ENUM:
        return read_enum(p, row, field);
    case KILN_ATTR_INTS:
        return read_ints(p, field);
    case KILN_ATTR_FLOATS:
        return read_floats(p, field);
    case KILN_ATTR_STRINGS:
        return read_strings(p, field);
    default:
        return read_tensor_attr(p, field);
    }
}

static kiln_status read_attrs(parser *p, kiln_graph *g, kiln_node *n) {
    const char *name;
    if (!accept(p, "{")) {
        return KILN_OK;
    }
    for (int count = 0;; count++) {
        skip_lines(p);
        if (accept(p, "}")) {
            return KILN_OK;
        }
        bool separated = accept(p, ",");
        skip_lines(p);
        KILN_TRY(read_word(p, &name));
        int32_t body = 0;
        uint16_t i = 0;
        while (i < n->op->n_attrs && strcmp(n->op->attrs[i].name, name) != 0) {
            body += n->op->attrs[i++].kind == KILN_ATTR_GRAPH;
        }
        bool is_body = i < n->op->n_attrs && n->op->attrs[i].kind == KILN_ATTR_GRAPH;
        if (i == n->op->n_attrs || (count > 0 && !separated && !is_body)) {
            return FAIL(p, "%s has no attribute \"%s\" here", n->op->name, name);
        }
        KILN_TRY(expect(p, "="));
        if (!is_body) {
            KILN_TRY(read_attr(p, &n->op->attrs[i], (char *)n->attrs + n->op->attrs[i].offset));
        } else if (!g) {
            return FAIL(p, "a constant cannot have a body");
        } else {
            KILN_TRY(read_graph(p, g, &n->bodies[body]));
        }
    }
}

/* ---- Statements ---- */

/* Op(a, b, _) or domain:Op(...): a node in no graph yet. Domains hold dots. */
static kiln_status read_call(parser *p, kiln_graph *g, int32_t n_out, kiln_node **out) {
    const char *domain = "", *op_name;
    kiln_value **in = NULL, *v;
    size_t n = 0, cap = 0;
    skip_blanks(p);
    size_t len = word_length(p, ".");
    op_name = kiln_arena_text(&p->scratch, p->at, len);
    p->at += len;
    if (op_name && accept(p, ":")) {
        domain = op_name;
        KILN_TRY(read_word(p, &op_name));
    }
    const kiln_op *op = op_name ? p->find(domain, op_name) : NULL;
    if (!op) {
        return FAIL(p, "\"%s\" is no operator", op_name ? op_name : "");
    }
    KILN_TRY(expect(p, "("));
    while (!accept(p, ")")) {
        if (n) {
            KILN_TRY(expect(p, ","));
        }
        v = NULL;
        skip_blanks(p);
        if (word_length(p, "./~-") == 1 && *p->at == '_') {
            p->at++;
        } else {
            KILN_TRY(read_use(p, &v));
        }
        KILN_PUSH(&p->scratch, in, n, cap, v);
    }
    return kiln_graph_detached(out, g, op, "", in, (int32_t)n, n_out);
}

static kiln_status read_input(parser *p, kiln_graph *g) {
    const char *name;
    kiln_type type = {.kind = KILN_KIND_NONE};
    kiln_value *v;
    KILN_TRY(read_name(p, &name));
    if (!g->parent) {
        KILN_TRY(expect(p, ":"));
        KILN_TRY(read_type(p, &type));
    }
    KILN_TRY(kiln_graph_input(&v, g, name, &type));
    return define(p, name, v);
}

static kiln_status read_constant(parser *p, kiln_graph *g) {
    const char *name;
    kiln_tensor t = {.rank = 0};
    kiln_value *v;
    kiln_node *expr = NULL;
    int64_t which = 0;
    KILN_TRY(read_name(p, &name));
    KILN_TRY(expect(p, ":"));
    KILN_TRY(read_static_type(p, &t));
    KILN_TRY(expect(p, "="));
    skip_blanks(p);
    bool is_call = p->at < p->end && *p->at >= 'A' && *p->at <= 'Z';
    if (is_call) {
        KILN_TRY(read_call(p, g, 1, &expr));
        KILN_TRY(read_attrs(p, NULL, expr));
        if (accept(p, ".")) {
            KILN_TRY(read_int(p, &which));
        }
        for (int32_t k = 0; k < expr->n_in; k++) {
            if (expr->in[k] && !expr->in[k]->constant) {
                return FAIL(p, "\"%s\" is no constant", expr->in[k]->name);
            }
        }
        if (which < 0 || which > 255) {
            return FAIL(p, "output %lld of a constant's operator", (long long)which);
        }
        kiln_node *wide;
        KILN_TRY(
            kiln_graph_detached(&wide, g, expr->op, "", expr->in, expr->n_in, (int32_t)which + 1));
        wide->attrs = expr->attrs;
        expr = wide;
    } else {
        KILN_TRY(read_data(p, &t));
    }
    KILN_TRY(kiln_graph_constant(&v, g, name, &t));
    v->constant->expr = expr;
    v->constant->expr_out = (int32_t)which;
    return define(p, name, v);
}

static kiln_status read_origin(parser *p, kiln_node *n) {
    size_t count = 0, cap = 0;
    const char *name;
    n->name = n->n_out ? n->out[0]->name : "";
    if (accept(p, "@")) {
        KILN_TRY(read_name(p, &n->name));
    }
    if (!accept(p, "from ")) {
        KILN_PUSH(p->arena, n->sources, count, cap, n->name);
        n->n_sources = 1;
        return KILN_OK;
    }
    for (skip_blanks(p); p->at < p->end && *p->at != '\n'; skip_blanks(p)) {
        KILN_TRY(read_name(p, &name));
        KILN_PUSH(p->arena, n->sources, count, cap, name);
    }
    n->n_sources = (int32_t)count;
    return KILN_OK;
}

static kiln_status read_node(parser *p, kiln_graph *g) {
    const char **names = NULL, *name = NULL;
    size_t n_out = 0, cap = 0;
    kiln_node *n;
    do {
        KILN_TRY(read_name(p, &name));
        KILN_PUSH(&p->scratch, names, n_out, cap, name);
    } while (accept(p, ","));
    KILN_TRY(expect(p, "="));
    KILN_TRY(read_call(p, g, (int32_t)n_out, &n));
    KILN_TRY(read_attrs(p, g, n));
    for (size_t i = 0; i < n_out; i++) {
        n->out[i]->name = names[i];
        KILN_TRY(define(p, names[i], n->out[i]));
    }
    KILN_TRY(read_origin(p, n));
    return kiln_graph_append(g, n);
}

static kiln_status read_statement(parser *p, kiln_graph *g) {
    kiln_value *v;
    if (accept(p, "in ")) {
        KILN_TRY(read_input(p, g));
    } else if (accept(p, "const ")) {
        KILN_TRY(read_constant(p, g));
    } else if (accept(p, "out ")) {
        KILN_TRY(read_use(p, &v));
        KILN_TRY(kiln_graph_output(g, v));
    } else {
        KILN_TRY(read_node(p, g));
    }
    skip_blanks(p);
    bool comment = p->at < p->end && *p->at == '#';
    return p->at == p->end || *p->at == '\n' || comment ? KILN_OK
                                                        : FAIL(p, "the line should end here");
}

/* The word stands alone on its line. */
static bool accept_line(parser *p, const char *word) {
    const char *start = p->at;
    if (accept(p, word) && (p->at == p->end || *p->at == '\n' || *p->at == ' ')) {
        return true;
    }
    p->at = start;
    return false;
}

static kiln_status read_graph(parser *p, kiln_graph *parent, kiln_graph **out) {
    const char *name;
    if (++p->depth > MAX_NESTING) {
        return FAIL(p, "graphs are nested too deeply");
    }
    skip_lines(p);
    KILN_TRY(expect(p, "graph "));
    skip_blanks(p);
    KILN_TRY(read_quoted(p, &name));
    KILN_TRY(kiln_graph_create(out, p->arena, p->dims, p->env, parent, name));
    for (;;) {
        skip_lines(p);
        if (p->at == p->end) {
            return FAIL(p, "\"end\" expected");
        }
        if (accept_line(p, "end")) {
            p->depth--;
            return KILN_OK;
        }
        KILN_TRY(read_statement(p, *out));
    }
}

kiln_status kiln_graph_parse(kiln_graph **out, const char *src, size_t len, kiln_op_finder *find,
                             kiln_arena *arena, kiln_dims *dims, const kiln_env *env,
                             kiln_diag *diag) {
    parser p = {.at = src,
                .end = src + len,
                .line = 1,
                .find = find,
                .arena = arena,
                .dims = dims,
                .env = env,
                .diag = diag};
    kiln_arena_init(&p.scratch, env);
    kiln_status status = read_graph(&p, NULL, out);
    skip_lines(&p);
    if (status == KILN_OK && p.at != p.end) {
        status = FAIL(&p, "nothing may follow the graph");
    }
    kiln_arena_free(&p.scratch);
    return status == KILN_OK ? kiln_graph_index(*out) : status;
}
