/* text_parse.c - reading a graph from its text form. */
#include <string.h>

#include "ir/text_const.h"
#include "ir/text_read.h"

enum { MAX_NESTING = 32, MAX_LIST = 65536 };

#define FAIL(p, ...) kiln_text_bad((p), __VA_ARGS__)

/* ---- Names of values ---- */

static kiln_text_slot *find_slot(kiln_text_slot *slots, size_t n, const char *name) {
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

static kiln_status grow(kiln_parser *p) {
    size_t n = p->n_slots ? p->n_slots * 2 : 256;
    kiln_text_slot *slots;
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

static kiln_status define(kiln_parser *p, const char *name, kiln_value *value) {
    if (p->n_names * 2 >= p->n_slots) {
        KILN_TRY(grow(p));
    }
    kiln_text_slot *s = find_slot(p->slots, p->n_slots, name);
    if (s->name) {
        return FAIL(p, "\"%s\" is defined twice", name);
    }
    *s = (kiln_text_slot){name, value, true};
    p->n_names++;
    return KILN_OK;
}

static kiln_status read_use(kiln_parser *p, kiln_value **out) {
    const char *name;
    KILN_TRY(kiln_text_read_name(p, &name));
    if (!p->n_slots || !find_slot(p->slots, p->n_slots, name)->name) {
        return FAIL(p, "\"%s\" is not defined before", name);
    }
    *out = find_slot(p->slots, p->n_slots, name)->value;
    return KILN_OK;
}

/* ---- Constants ---- */

static kiln_status read_elements(kiln_parser *p, kiln_tensor *t, int64_t n) {
    if (!kiln_text_shows(t->dtype)) {
        return FAIL(p, "elements of %s cannot be written", kiln_dtype_name(t->dtype));
    }
    for (int64_t i = 0; i < n; i++) {
        if (i) {
            KILN_TRY(kiln_text_expect(p, ","));
        }
        kiln_text_skip_blanks(p);
        size_t len = kiln_text_number_length(p);
        if (!kiln_text_read_element(t, i, p->at, len)) {
            return FAIL(p, "element %lld is no %s", (long long)i, kiln_dtype_name(t->dtype));
        }
        p->at += len;
    }
    return kiln_text_expect(p, "}");
}

static kiln_status read_data(kiln_parser *p, kiln_tensor *t) {
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
    if (kiln_text_accept(p, "{")) {
        return read_elements(p, t, n);
    }
    if (kiln_text_accept(p, "hash(")) {
        return FAIL(p, "a hash stands for bytes that the text does not hold");
    }
    KILN_TRY(kiln_text_expect(p, "rand("));
    KILN_TRY(kiln_text_read_int(p, &seed));
    if (seed < 0 || seed > 255 || !kiln_text_shows(t->dtype)) {
        return FAIL(p, "rand takes a seed from 0 to 255 and plain element types");
    }
    kiln_text_fill(t, (uint32_t)seed);
    return kiln_text_expect(p, ")");
}

static kiln_status read_static_type(kiln_parser *p, kiln_tensor *t) {
    kiln_type type;
    KILN_TRY(kiln_text_read_type(p, &type));
    return kiln_type_to_tensor(&type, t) ? KILN_OK : FAIL(p, "a constant's dims must be numbers");
}

/* ---- Attributes ---- */

static kiln_status read_graph(kiln_parser *p, kiln_graph *parent, kiln_graph **out);

static kiln_status next_item(kiln_parser *p, int64_t n, bool *more) {
    *more = !kiln_text_accept(p, "]");
    if (n == MAX_LIST) {
        return FAIL(p, "a list has more than %d items", MAX_LIST);
    }
    return *more && n ? kiln_text_expect(p, ",") : KILN_OK;
}

/* Defines `name`, which reads "[item,item]" into a list of type `list`. */
#define LIST_READER(name, list, type, read_item)                             \
    static kiln_status name(kiln_parser *p, list *out) {                     \
        type *v = NULL, item = 0;                                            \
        size_t n = 0, cap = 0;                                               \
        bool more;                                                           \
        KILN_TRY(kiln_text_expect(p, "["));                                  \
        for (;;) {                                                           \
            KILN_TRY(next_item(p, (int64_t)n, &more));                       \
            if (!more) {                                                     \
                break;                                                       \
            }                                                                \
            KILN_TRY(read_item(p, &item));                                   \
            KILN_PUSH(p->arena, v, n, cap, item);                            \
        }                                                                    \
        *out = (list){v ? v : kiln_arena_array(p->arena, 0, 1), (int64_t)n}; \
        return KILN_OK;                                                      \
    }
typedef const char *text;
LIST_READER(read_ints, kiln_ints, int64_t, kiln_text_read_int)
LIST_READER(read_floats, kiln_floats, float, kiln_text_read_float)
LIST_READER(read_strings, kiln_strings, text, kiln_text_read_quoted)

static kiln_status read_enum(kiln_parser *p, const kiln_attr *row, int32_t *out) {
    const char *word;
    KILN_TRY(kiln_text_read_word(p, &word));
    for (*out = 0; row->words[*out]; ++*out) {
        if (strcmp(row->words[*out], word) == 0) {
            return KILN_OK;
        }
    }
    return FAIL(p, "\"%s\" is no value of %s", word, row->name);
}

static kiln_status read_tensor_attr(kiln_parser *p, const kiln_tensor **out) {
    kiln_tensor *t;
    KILN_ALLOC(t, p->arena, 1);
    KILN_TRY(read_static_type(p, t));
    KILN_TRY(kiln_text_expect(p, "="));
    *out = t;
    return read_data(p, t);
}

static kiln_status read_attr(kiln_parser *p, const kiln_attr *row, void *field) {
    switch (row->kind) {
    case KILN_ATTR_INT:
        return kiln_text_read_int(p, field);
    case KILN_ATTR_FLOAT:
        return kiln_text_read_float(p, field);
    case KILN_ATTR_STRING:
        return kiln_text_read_quoted(p, field);
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

static kiln_status read_attrs(kiln_parser *p, kiln_graph *g, kiln_node *n) {
    const char *name;
    if (!kiln_text_accept(p, "{")) {
        return KILN_OK;
    }
    for (int count = 0;; count++) {
        kiln_text_skip_lines(p);
        if (kiln_text_accept(p, "}")) {
            return KILN_OK;
        }
        bool separated = kiln_text_accept(p, ",");
        kiln_text_skip_lines(p);
        KILN_TRY(kiln_text_read_word(p, &name));
        int32_t body = 0;
        uint16_t i = 0;
        while (i < n->op->n_attrs && strcmp(n->op->attrs[i].name, name) != 0) {
            body += n->op->attrs[i++].kind == KILN_ATTR_GRAPH;
        }
        bool is_body = i < n->op->n_attrs && n->op->attrs[i].kind == KILN_ATTR_GRAPH;
        if (i == n->op->n_attrs || (count > 0 && !separated && !is_body)) {
            return FAIL(p, "%s has no attribute \"%s\" here", n->op->name, name);
        }
        KILN_TRY(kiln_text_expect(p, "="));
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
static kiln_status read_call(kiln_parser *p, kiln_graph *g, int32_t n_out, kiln_node **out) {
    const char *domain = "", *op_name;
    kiln_value **in = NULL, *v;
    size_t n = 0, cap = 0;
    kiln_text_skip_blanks(p);
    size_t len = kiln_text_word_length(p, ".");
    op_name = kiln_arena_text(&p->scratch, p->at, len);
    p->at += len;
    if (op_name && kiln_text_accept(p, ":")) {
        domain = op_name;
        KILN_TRY(kiln_text_read_word(p, &op_name));
    }
    const kiln_op *op = op_name ? p->find(domain, op_name) : NULL;
    if (!op) {
        return FAIL(p, "\"%s\" is no operator", op_name ? op_name : "");
    }
    KILN_TRY(kiln_text_expect(p, "("));
    while (!kiln_text_accept(p, ")")) {
        if (n) {
            KILN_TRY(kiln_text_expect(p, ","));
        }
        v = NULL;
        kiln_text_skip_blanks(p);
        if (kiln_text_word_length(p, "./~-") == 1 && *p->at == '_') {
            p->at++;
        } else {
            KILN_TRY(read_use(p, &v));
        }
        KILN_PUSH(&p->scratch, in, n, cap, v);
    }
    return kiln_graph_detached(out, g, op, "", in, (int32_t)n, n_out);
}

static kiln_status read_input(kiln_parser *p, kiln_graph *g) {
    const char *name;
    kiln_type type = {.kind = KILN_KIND_NONE};
    kiln_value *v;
    KILN_TRY(kiln_text_read_name(p, &name));
    if (!g->parent) {
        KILN_TRY(kiln_text_expect(p, ":"));
        KILN_TRY(kiln_text_read_type(p, &type));
    }
    KILN_TRY(kiln_graph_input(&v, g, name, &type));
    return define(p, name, v);
}

static kiln_status read_constant(kiln_parser *p, kiln_graph *g) {
    const char *name;
    kiln_tensor t = {.rank = 0};
    kiln_value *v;
    kiln_node *expr = NULL;
    int64_t which = 0;
    KILN_TRY(kiln_text_read_name(p, &name));
    KILN_TRY(kiln_text_expect(p, ":"));
    KILN_TRY(read_static_type(p, &t));
    KILN_TRY(kiln_text_expect(p, "="));
    kiln_text_skip_blanks(p);
    bool is_call = p->at < p->end && *p->at >= 'A' && *p->at <= 'Z';
    if (is_call) {
        KILN_TRY(read_call(p, g, 1, &expr));
        KILN_TRY(read_attrs(p, NULL, expr));
        if (kiln_text_accept(p, ".")) {
            KILN_TRY(kiln_text_read_int(p, &which));
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

static kiln_status read_origin(kiln_parser *p, kiln_node *n) {
    size_t count = 0, cap = 0;
    const char *name;
    n->name = n->n_out ? n->out[0]->name : "";
    if (kiln_text_accept(p, "@")) {
        KILN_TRY(kiln_text_read_name(p, &n->name));
    }
    if (!kiln_text_accept(p, "from ")) {
        KILN_PUSH(p->arena, n->sources, count, cap, n->name);
        n->n_sources = 1;
        return KILN_OK;
    }
    for (kiln_text_skip_blanks(p); p->at < p->end && *p->at != '\n'; kiln_text_skip_blanks(p)) {
        KILN_TRY(kiln_text_read_name(p, &name));
        KILN_PUSH(p->arena, n->sources, count, cap, name);
    }
    n->n_sources = (int32_t)count;
    return KILN_OK;
}

static kiln_status read_node(kiln_parser *p, kiln_graph *g) {
    const char **names = NULL, *name = NULL;
    size_t n_out = 0, cap = 0;
    kiln_node *n;
    do {
        KILN_TRY(kiln_text_read_name(p, &name));
        KILN_PUSH(&p->scratch, names, n_out, cap, name);
    } while (kiln_text_accept(p, ","));
    KILN_TRY(kiln_text_expect(p, "="));
    KILN_TRY(read_call(p, g, (int32_t)n_out, &n));
    KILN_TRY(read_attrs(p, g, n));
    for (size_t i = 0; i < n_out; i++) {
        n->out[i]->name = names[i];
        KILN_TRY(define(p, names[i], n->out[i]));
    }
    KILN_TRY(read_origin(p, n));
    return kiln_graph_append(g, n);
}

static kiln_status read_statement(kiln_parser *p, kiln_graph *g) {
    kiln_value *v;
    if (kiln_text_accept(p, "in ")) {
        KILN_TRY(read_input(p, g));
    } else if (kiln_text_accept(p, "const ")) {
        KILN_TRY(read_constant(p, g));
    } else if (kiln_text_accept(p, "out ")) {
        KILN_TRY(read_use(p, &v));
        KILN_TRY(kiln_graph_output(g, v));
    } else {
        KILN_TRY(read_node(p, g));
    }
    kiln_text_skip_blanks(p);
    bool comment = p->at < p->end && *p->at == '#';
    return p->at == p->end || *p->at == '\n' || comment ? KILN_OK
                                                        : FAIL(p, "the line should end here");
}

/* The word stands alone on its line. */
static bool accept_line(kiln_parser *p, const char *word) {
    const char *start = p->at;
    if (kiln_text_accept(p, word) && (p->at == p->end || *p->at == '\n' || *p->at == ' ')) {
        return true;
    }
    p->at = start;
    return false;
}

static kiln_status read_graph(kiln_parser *p, kiln_graph *parent, kiln_graph **out) {
    const char *name;
    if (++p->depth > MAX_NESTING) {
        return FAIL(p, "graphs are nested too deeply");
    }
    kiln_text_skip_lines(p);
    KILN_TRY(kiln_text_expect(p, "graph "));
    kiln_text_skip_blanks(p);
    KILN_TRY(kiln_text_read_quoted(p, &name));
    KILN_TRY(kiln_graph_create(out, p->arena, p->dims, p->env, parent, name));
    for (;;) {
        kiln_text_skip_lines(p);
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
    kiln_parser p = {.at = src,
                     .end = src + len,
                     .line = 1,
                     .find = find,
                     .arena = arena,
                     .dims = dims,
                     .env = env,
                     .diag = diag};
    kiln_arena_init(&p.scratch, env);
    kiln_status status = read_graph(&p, NULL, out);
    kiln_text_skip_lines(&p);
    if (status == KILN_OK && p.at != p.end) {
        status = FAIL(&p, "nothing may follow the graph");
    }
    kiln_arena_free(&p.scratch);
    return status == KILN_OK ? kiln_graph_index(*out) : status;
}
