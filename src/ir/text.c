/* text.c - dumping a graph. */
#include "ir/text.h"

#include <string.h>

#include "base/hash.h"
#include "ir/text_const.h"

typedef struct dumper {
    kiln_text *text;
    kiln_arena scratch;
    uint8_t *seen; /* per value id: the constant is written */
    const kiln_dims *dims;
} dumper;

/* ---- Names ---- */

static const char *const keywords[] = {"_", "in", "out", "const", "end", "from", "graph"};

static bool is_bare(const char *name) {
    const char *p = name;
    for (size_t i = 0; i < KILN_COUNT_OF(keywords); i++) {
        if (strcmp(name, keywords[i]) == 0) {
            return false;
        }
    }
    bool start = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_';
    for (; *p; p++) {
        bool letter =
            (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
        if (!letter && !strchr("_./~-", *p)) {
            return false;
        }
    }
    return start;
}

static void put_quoted(kiln_text *t, const char *name) {
    kiln_text_char(t, '"');
    for (const char *p = name; *p; p++) {
        if (*p == '"' || *p == '\\') {
            kiln_text_char(t, '\\');
            kiln_text_char(t, *p);
        } else if ((unsigned char)*p < 0x20 || *p == 0x7F) {
            kiln_text_printf(t, "\\x%02X", (unsigned char)*p);
        } else {
            kiln_text_char(t, *p);
        }
    }
    kiln_text_char(t, '"');
}

static void put_name(kiln_text *t, const char *name) {
    if (is_bare(name)) {
        kiln_text_puts(t, name);
    } else {
        put_quoted(t, name);
    }
}

static void put_value(kiln_text *t, const kiln_value *v) {
    if (v) {
        put_name(t, v->name);
    } else {
        kiln_text_char(t, '_');
    }
}

static void put_type(dumper *d, const kiln_type *type) {
    const char *s = kiln_type_text(d->dims, type, &d->scratch);
    kiln_text_puts(d->text, s ? s : "?");
}

static void indent(dumper *d, int depth) {
    for (int i = 0; i < depth; i++) {
        kiln_text_puts(d->text, "  ");
    }
}

/* ---- Attributes ---- */

static void put_tensor(dumper *d, const kiln_tensor *t);

static void put_ints(kiln_text *t, const kiln_ints *v) {
    kiln_text_char(t, '[');
    for (int64_t i = 0; i < v->n; i++) {
        kiln_text_printf(t, i ? ",%lld" : "%lld", (long long)v->v[i]);
    }
    kiln_text_char(t, ']');
}

static void put_floats(kiln_text *t, const kiln_floats *v) {
    kiln_text_char(t, '[');
    for (int64_t i = 0; i < v->n; i++) {
        kiln_text_puts(t, i ? "," : "");
        kiln_text_float(t, v->v[i]);
    }
    kiln_text_char(t, ']');
}

static void put_strings(kiln_text *t, const kiln_strings *v) {
    kiln_text_char(t, '[');
    for (int64_t i = 0; i < v->n; i++) {
        kiln_text_puts(t, i ? "," : "");
        put_quoted(t, v->v[i]);
    }
    kiln_text_char(t, ']');
}

static void put_dims(kiln_text *t, const kiln_tensor *v) {
    kiln_text_printf(t, "%s[", kiln_dtype_name(v->dtype));
    for (int32_t k = 0; k < v->rank; k++) {
        kiln_text_printf(t, k ? ",%lld" : "%lld", (long long)v->dims[k]);
    }
    kiln_text_char(t, ']');
}

/* True when the field holds the table's default. */
static bool is_default(const kiln_attr *row, const void *field) {
    int64_t i;
    int32_t word;
    float f;
    const void *ptr;
    memcpy(&ptr, field, sizeof ptr); /* every list begins with its pointer */
    switch (row->kind) {
    case KILN_ATTR_INT:
        memcpy(&i, field, sizeof i);
        return !row->required && i == row->int_default;
    case KILN_ATTR_ENUM:
        memcpy(&word, field, sizeof word);
        return word == row->int_default;
    case KILN_ATTR_FLOAT:
        memcpy(&f, field, sizeof f);
        return memcmp(&f, &row->float_default, sizeof f) == 0;
    case KILN_ATTR_STRING:
        return ptr == row->string_default ||
               (ptr && row->string_default && strcmp(ptr, row->string_default) == 0);
    default:
        return ptr == NULL;
    }
}

static void put_attr(dumper *d, const kiln_attr *row, const void *field) {
    kiln_text *t = d->text;
    const kiln_tensor *tensor;
    const char *s;
    float f;
    switch (row->kind) {
    case KILN_ATTR_INT:
        kiln_text_printf(t, "%lld", (long long)*(const int64_t *)field);
        break;
    case KILN_ATTR_FLOAT:
        memcpy(&f, field, sizeof f);
        kiln_text_float(t, f);
        break;
    case KILN_ATTR_STRING:
        memcpy(&s, field, sizeof s);
        put_quoted(t, s ? s : "");
        break;
    case KILN_ATTR_ENUM:
        kiln_text_puts(t, row->words[*(const int32_t *)field]);
        break;
    case KILN_ATTR_INTS:
        put_ints(t, field);
        break;
    case KILN_ATTR_FLOATS:
        put_floats(t, field);
        break;
    case KILN_ATTR_STRINGS:
        put_strings(t, field);
        break;
    case KILN_ATTR_TENSOR:
        memcpy(&tensor, field, sizeof tensor);
        put_dims(t, tensor);
        kiln_text_puts(t, " = ");
        put_tensor(d, tensor);
        break;
    case KILN_ATTR_GRAPH:
        break;
    }
}

static void put_graph(dumper *d, const kiln_graph *g, int depth);

static void put_attrs(dumper *d, const kiln_node *n, int depth) {
    int count = 0;
    bool has_body = false;
    for (uint16_t i = 0; i < n->op->n_attrs; i++) {
        const kiln_attr *row = &n->op->attrs[i];
        const void *field = (const char *)n->attrs + row->offset;
        has_body = has_body || row->kind == KILN_ATTR_GRAPH;
        if (row->kind != KILN_ATTR_GRAPH && !is_default(row, field)) {
            kiln_text_printf(d->text, count++ ? ", %s=" : " {%s=", row->name);
            put_attr(d, row, field);
        }
    }
    if (has_body) {
        int32_t b = 0;
        kiln_text_puts(d->text, count++ ? ",\n" : " {\n");
        for (uint16_t i = 0; i < n->op->n_attrs; i++) {
            if (n->op->attrs[i].kind == KILN_ATTR_GRAPH) {
                indent(d, depth + 1);
                kiln_text_printf(d->text, "%s = ", n->op->attrs[i].name);
                put_graph(d, n->bodies[b++], depth + 2);
                indent(d, depth + 1);
                kiln_text_puts(d->text, "end\n");
            }
        }
        indent(d, depth);
    }
    kiln_text_puts(d->text, count ? "}" : "");
}

/* ---- Constants ---- */

static void put_tensor(dumper *d, const kiln_tensor *t) {
    int64_t n = kiln_tensor_count(t);
    if (!kiln_text_shows(t->dtype) || n > KILN_TEXT_INLINE) {
        int32_t seed = kiln_text_shows(t->dtype) ? kiln_text_find_seed(t) : -1;
        size_t bytes = t->dtype == KILN_DTYPE_STRING ? 0 : kiln_tensor_bytes(t);
        if (seed >= 0) {
            kiln_text_printf(d->text, "rand(%d)", seed);
        } else {
            kiln_text_printf(d->text, "hash(%016llx)",
                             (unsigned long long)kiln_hash_64(t->data, bytes));
        }
        return;
    }
    kiln_text_char(d->text, '{');
    for (int64_t i = 0; i < n; i++) {
        kiln_text_puts(d->text, i ? ", " : "");
        kiln_text_element(d->text, t, i);
    }
    kiln_text_char(d->text, '}');
}

static void put_call(dumper *d, const kiln_node *n) {
    kiln_text_printf(d->text, n->op->domain[0] ? "%s:%s(" : "%s%s(", n->op->domain, n->op->name);
    for (int32_t k = 0; k < n->n_in; k++) {
        kiln_text_puts(d->text, k ? ", " : "");
        put_value(d->text, n->in[k]);
    }
    kiln_text_char(d->text, ')');
}

typedef struct constants {
    const kiln_value **items;
    size_t count, cap;
} constants;

static kiln_status push(dumper *d, constants *list, const kiln_value *v) {
    KILN_PUSH(&d->scratch, list->items, list->count, list->cap, v);
    return KILN_OK;
}

static bool was_seen(const constants *done, const kiln_value *v) {
    for (size_t i = 0; i < done->count; i++) {
        if (done->items[i] == v) {
            return true;
        }
    }
    return false;
}

static kiln_status put_constant(dumper *d, constants *done, const kiln_value *v);

static kiln_status put_parts(dumper *d, constants *done, const kiln_node *expr) {
    for (int32_t k = 0; k < expr->n_in; k++) {
        if (expr->in[k]) {
            KILN_TRY(put_constant(d, done, expr->in[k]));
        }
    }
    return KILN_OK;
}

/* Writes a constant once, its parts before it. Expressions are not deep by the rules of
 * folding, which bounds this recursion. Parts that no node uses have no id and are found by
 * search. */
static kiln_status put_constant(dumper *d, constants *done, const kiln_value *v) {
    const kiln_const *c = v->constant;
    if (was_seen(done, v)) {
        return KILN_OK;
    }
    bool stored = c->tensor.data || !c->expr;
    if (!stored) {
        KILN_TRY(put_parts(d, done, c->expr));
    }
    kiln_text_puts(d->text, "const ");
    put_name(d->text, v->name);
    kiln_text_puts(d->text, ": ");
    put_dims(d->text, &c->tensor);
    kiln_text_puts(d->text, " = ");
    if (stored) {
        put_tensor(d, &c->tensor);
    } else {
        put_call(d, c->expr);
        put_attrs(d, c->expr, 0);
        if (c->expr_out) {
            kiln_text_printf(d->text, ".%d", c->expr_out);
        }
    }
    kiln_text_char(d->text, '\n');
    return push(d, done, v);
}

static kiln_status put_constant_use(dumper *d, constants *done, const kiln_value *v) {
    if (!kiln_value_is_const(v) || d->seen[v->id]) {
        return KILN_OK;
    }
    d->seen[v->id] = 1;
    return put_constant(d, done, v);
}

static kiln_status put_constants(dumper *d, constants *done, const kiln_graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        for (int32_t k = 0; k < n->n_in; k++) {
            KILN_TRY(put_constant_use(d, done, n->in[k]));
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            KILN_TRY(put_constants(d, done, n->bodies[b]));
        }
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        KILN_TRY(put_constant_use(d, done, g->outputs[i]));
    }
    return KILN_OK;
}

/* ---- Nodes and graphs ---- */

static void put_origin(kiln_text *t, const kiln_node *n) {
    if (n->n_out == 0 || strcmp(n->name, n->out[0]->name) != 0) {
        kiln_text_puts(t, " @");
        put_name(t, n->name);
    }
    if (n->n_sources == 0 || (n->n_sources == 1 && strcmp(n->sources[0], n->name) == 0)) {
        return;
    }
    kiln_text_puts(t, " from");
    for (int32_t i = 0; i < n->n_sources; i++) {
        kiln_text_char(t, ' ');
        put_name(t, n->sources[i]);
    }
}

static void put_node(dumper *d, const kiln_node *n, int depth) {
    indent(d, depth);
    for (int32_t k = 0; k < n->n_out; k++) {
        kiln_text_puts(d->text, k ? ", " : "");
        put_name(d->text, n->out[k]->name);
    }
    kiln_text_puts(d->text, " = ");
    put_call(d, n);
    put_attrs(d, n, depth);
    put_origin(d->text, n);
    kiln_text_char(d->text, '\n');
}

static void put_graph(dumper *d, const kiln_graph *g, int depth) {
    kiln_text_puts(d->text, "graph ");
    put_quoted(d->text, g->name);
    kiln_text_char(d->text, '\n');
    for (size_t i = 0; i < g->n_inputs; i++) {
        indent(d, depth);
        kiln_text_puts(d->text, "in ");
        put_name(d->text, g->inputs[i]->name);
        if (!g->parent) {
            kiln_text_puts(d->text, ": ");
            put_type(d, &g->inputs[i]->type);
        }
        kiln_text_char(d->text, '\n');
    }
    constants done = {.count = 0};
    if (!g->parent && put_constants(d, &done, g) != KILN_OK) {
        d->text->failed = true;
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        put_node(d, g->nodes[i], depth);
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        indent(d, depth);
        kiln_text_puts(d->text, "out ");
        put_name(d->text, g->outputs[i]->name);
        kiln_text_char(d->text, '\n');
    }
}

kiln_status kiln_graph_dump(kiln_text *text, const kiln_graph *graph) {
    dumper d = {.text = text, .dims = graph->dims};
    kiln_arena_init(&d.scratch, graph->env);
    d.seen = kiln_arena_array(&d.scratch, (size_t)graph->n_values, 1);
    if (d.seen) {
        put_graph(&d, graph, 0);
        kiln_text_puts(text, "end\n");
    }
    kiln_status status = d.seen && kiln_text_ok(text) ? KILN_OK : KILN_E_MEMORY;
    kiln_arena_free(&d.scratch);
    return status;
}

static void put_types(dumper *d, kiln_value *const *values, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        kiln_text_char(d->text, ' ');
        if (values[i]) {
            kiln_text_puts(d->text, values[i]->constant ? "const " : "");
            put_type(d, &values[i]->type);
        }
    }
}

kiln_status kiln_node_describe(kiln_text *text, const kiln_graph *graph, const kiln_node *node) {
    dumper d = {.text = text, .dims = graph->dims};
    kiln_arena_init(&d.scratch, graph->env);
    kiln_text_printf(text, "%s:%s", node->op->domain, node->op->name);
    put_attrs(&d, node, 0);
    put_types(&d, node->in, node->n_in);
    kiln_text_puts(text, " ->");
    put_types(&d, node->out, node->n_out);
    kiln_arena_free(&d.scratch);
    return kiln_text_ok(text) ? KILN_OK : KILN_E_MEMORY;
}
