#include "case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "ops/ops.h"
#include "ops/util.h"

enum { MAX_NODES = 16, MAX_OPERANDS = 16, MAX_INPUTS = 32 };

typedef struct parser {
    test_case *out;
    kiln_arena *arena;
    kiln_dims *dims;
    kiln_diag *diag;
    uint64_t random;
    kiln_node *nodes[MAX_NODES];
    int32_t n_nodes;
    kiln_value *first; /* operand 0 of node 0 */
    kiln_datum inputs[MAX_INPUTS];
} parser;

static uint64_t next_random(parser *p) {
    p->random ^= p->random << 13;
    p->random ^= p->random >> 7;
    p->random ^= p->random << 17;
    return p->random;
}

static void fill(parser *p, kiln_tensor *t) {
    int64_t n = kiln_tensor_count(t);
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = next_random(p) >> 20;
        if (kiln_dtype_is_float(t->dtype)) {
            kiln_set_f64(t->dtype, t->data, i, (double)(r % 4000001) / 1e6 - 2);
        } else {
            bool byte = t->dtype == KILN_DTYPE_U8 || t->dtype == KILN_DTYPE_I8;
            bool half = t->dtype == KILN_DTYPE_U4 || t->dtype == KILN_DTYPE_I4;
            uint64_t count = t->dtype == KILN_DTYPE_BOOL ? 2 : byte ? 256 : half ? 16 : 4;
            kiln_set_i64(t->dtype, t->data, i, (int64_t)(r % count));
        }
    }
}

/* Numbers in [-2, 2] into positive ones such as scales are. */
static void make_scales(kiln_tensor *t) {
    for (int64_t i = 0, n = kiln_tensor_count(t); i < n; i++) {
        double v = kiln_get_f64(t->dtype, t->data, i);
        kiln_set_f64(t->dtype, t->data, i, 0.0125 + 0.00375 * v);
    }
}

static bool allocate(parser *p, kiln_tensor *t) {
    t->cap_bytes = kiln_tensor_bytes(t);
    t->data = kiln_arena_array(p->arena, t->cap_bytes, 1);
    return t->data != NULL;
}

/* "2,N=3" into dims and, for the graph, perhaps symbols. */
static void read_dims(parser *p, char *text, kiln_tensor *t, kiln_dim *symbolic) {
    t->rank = 0;
    for (char *s = text; *s;) {
        char *comma = strchr(s, ','), *equals = strchr(s, '=');
        if (comma) {
            *comma = '\0';
        }
        bool named = equals && (!comma || equals < comma);
        if (named) {
            *equals = '\0';
        }
        int64_t v = strtoll(named ? equals + 1 : s, NULL, 10);
        symbolic[t->rank] = named ? kiln_dim_symbol(p->dims, s) : v;
        t->dims[t->rank++] = v;
        if (!comma) {
            break;
        }
        s = comma + 1;
    }
}

static const char *add_input(parser *p, kiln_tensor *t, const kiln_dim *symbolic,
                             kiln_value **out) {
    kiln_graph *g = p->out->graph;
    kiln_dim *dims = kiln_arena_copy(p->arena, symbolic, KILN_MAX_RANK * sizeof *dims);
    kiln_type type = kiln_type_tensor(t->dtype, t->rank, dims);
    if (g->n_inputs >= MAX_INPUTS || kiln_graph_input(out, g, NULL, &type) != KILN_OK) {
        return "the graph takes no more inputs";
    }
    p->inputs[g->n_inputs - 1] = (kiln_datum){.kind = KILN_KIND_TENSOR, .tensor = *t};
    return NULL;
}

/* {1,2} and (3). */
static const char *read_list(parser *p, char *text, bool scalar, kiln_tensor *t) {
    double v[64];
    int64_t n = 0;
    for (char *s = text; *s && *s != '}' && *s != ')' && n < 64; n++) {
        v[n] = strtod(s, &s);
        s += *s == ',';
    }
    t->rank = scalar ? 0 : 1;
    t->dims[0] = n;
    if (!allocate(p, t)) {
        return "out of memory";
    }
    for (int64_t i = 0; i < n; i++) {
        if (kiln_dtype_is_float(t->dtype)) {
            kiln_set_f64(t->dtype, t->data, i, v[i]);
        } else {
            kiln_set_i64(t->dtype, t->data, i, (int64_t)v[i]);
        }
    }
    return NULL;
}

static const char *read_tensor(parser *p, char *token, kiln_value **out) {
    bool constant = token[0] == '=';
    char *name = token + constant, *open = strpbrk(name, "[{(");
    char kind = *open, *body = open + 1;
    bool scales = open > name && open[-1] == '+';
    kiln_tensor t = {0};
    kiln_dim symbolic[KILN_MAX_RANK];
    open[scales ? -1 : 0] = '\0';
    t.dtype = strcmp(name, "i64") == 0   ? KILN_DTYPE_I64
              : strcmp(name, "i32") == 0 ? KILN_DTYPE_I32
              : strcmp(name, "u8") == 0  ? KILN_DTYPE_U8
                                         : kiln_dtype_parse(name);
    if (t.dtype == KILN_DTYPE_NONE) {
        return "no such dtype";
    }
    if (kind != '[') {
        const char *wrong = read_list(p, body, kind == '(', &t);
        return wrong                                               ? wrong
               : kiln_graph_constant(out, p->out->graph, NULL, &t) ? "out of memory"
                                                                   : NULL;
    }
    char *close = strchr(body, ']');
    if (!close) {
        return "a bracket is not closed";
    }
    *close = '\0';
    read_dims(p, body, &t, symbolic);
    if (!allocate(p, &t)) {
        return "out of memory";
    }
    fill(p, &t);
    if (scales) {
        make_scales(&t);
    }
    if (constant) {
        return kiln_graph_constant(out, p->out->graph, NULL, &t) ? "out of memory" : NULL;
    }
    return add_input(p, &t, symbolic, out);
}

static const char *read_operand(parser *p, char *token, kiln_value **out) {
    *out = NULL;
    if (strcmp(token, "-") == 0) {
        return NULL;
    }
    if (strcmp(token, "$$") == 0) {
        *out = p->first;
        return p->first ? NULL : "$$ has nothing to name";
    }
    if (token[0] == '$') {
        char *dot = strchr(token, '.');
        int32_t node =
            token[1] && token[1] != '.' ? (int32_t)strtol(token + 1, NULL, 10) : p->n_nodes - 1;
        int32_t output = dot ? (int32_t)strtol(dot + 1, NULL, 10) : 0;
        if (node < 0 || node >= p->n_nodes || output >= p->nodes[node]->n_out) {
            return "$ names no output";
        }
        *out = p->nodes[node]->out[output];
        return NULL;
    }
    return read_tensor(p, token, out);
}

static const char *set_list(parser *p, const kiln_attr *a, char *field, char *text) {
    int64_t ints[64], n = 0;
    float floats[64];
    for (char *s = text; *s && n < 64; n++) {
        double v = strtod(s, &s);
        ints[n] = (int64_t)v;
        floats[n] = (float)v;
        s += *s == ',';
    }
    if (a->kind == KILN_ATTR_INTS) {
        int64_t *copy = kiln_arena_copy(p->arena, ints, sizeof ints);
        memcpy(field, &(kiln_ints){.v = copy, .n = n}, sizeof(kiln_ints));
    } else {
        float *copy = kiln_arena_copy(p->arena, floats, sizeof floats);
        memcpy(field, &(kiln_floats){.v = copy, .n = n}, sizeof(kiln_floats));
    }
    return NULL;
}

static const char *set_attribute(parser *p, kiln_node *node, const char *name, char *text) {
    for (uint16_t i = 0; i < node->op->n_attrs; i++) {
        const kiln_attr *a = &node->op->attrs[i];
        char *field = (char *)node->attrs + a->offset;
        if (strcmp(a->name, name) != 0) {
            continue;
        }
        switch (a->kind) {
        case KILN_ATTR_INT:
            *(int64_t *)(void *)field = strtoll(text, NULL, 10);
            return NULL;
        case KILN_ATTR_FLOAT:
            *(float *)(void *)field = strtof(text, NULL);
            return NULL;
        case KILN_ATTR_STRING:
            *(const char **)(void *)field = kiln_arena_text(p->arena, text, strlen(text));
            return NULL;
        case KILN_ATTR_ENUM:
            for (int32_t w = 0; a->words[w]; w++) {
                if (strcmp(a->words[w], text) == 0) {
                    *(int32_t *)(void *)field = w;
                    return NULL;
                }
            }
            return "no such word for the attribute";
        case KILN_ATTR_INTS:
        case KILN_ATTR_FLOATS:
            return set_list(p, a, field, text);
        default:
            return "attributes of this kind cannot be given";
        }
    }
    return "no such attribute";
}

static bool is_attribute(const char *token) {
    const char *equals = strchr(token, '='), *open = strpbrk(token, "[{(");
    return equals && equals != token && (!open || equals < open);
}

/* "Op operands attributes" */
static const char *read_node(parser *p, char *text) {
    kiln_value *in[MAX_OPERANDS];
    char *attrs[MAX_OPERANDS], *rest;
    int32_t n_in = 0, n_attrs = 0, n_out = 1;
    kiln_dtype precision = KILN_DTYPE_NONE;
    char *name = strtok_r(text, " \t\n", &rest);
    const kiln_op *op = name ? kiln_op_find("", name) : NULL;
    op = op || !name ? op : kiln_op_find("com.microsoft", name);
    if (!op || p->n_nodes == MAX_NODES) {
        return "no such operator, or too many nodes";
    }
    for (char *t = strtok_r(NULL, " \t\n", &rest); t; t = strtok_r(NULL, " \t\n", &rest)) {
        if (n_in == MAX_OPERANDS || n_attrs == MAX_OPERANDS) {
            return "too many operands";
        }
        if (t[0] == '@') {
            precision = kiln_dtype_parse(t + 1);
        } else if (t[0] == '>') {
            n_out = (int32_t)strtol(t + 1, NULL, 10);
        } else if (is_attribute(t)) {
            attrs[n_attrs++] = t;
        } else {
            const char *wrong = read_operand(p, t, &in[n_in]);
            if (wrong) {
                return wrong;
            }
            if (p->n_nodes == 0 && n_in == 0) {
                p->first = in[0];
            }
            n_in++;
        }
    }
    kiln_node *node;
    if (kiln_graph_node(&node, p->out->graph, op, NULL, in, n_in, n_out) != KILN_OK) {
        return "out of memory";
    }
    p->nodes[p->n_nodes++] = node;
    node->precision.dtype = precision;
    for (int32_t i = 0; i < n_attrs; i++) {
        char *equals = strchr(attrs[i], '=');
        *equals = '\0';
        const char *wrong = set_attribute(p, node, attrs[i], equals + 1);
        if (wrong) {
            return wrong;
        }
    }
    return NULL;
}

static bool is_read(const parser *p, const kiln_value *v) {
    for (int32_t n = 0; n < p->n_nodes; n++) {
        for (int32_t i = 0; i < p->nodes[n]->n_in; i++) {
            if (p->nodes[n]->in[i] == v) {
                return true;
            }
        }
    }
    return false;
}

static const char *finish(parser *p) {
    kiln_graph *g = p->out->graph;
    for (int32_t n = 0; n < p->n_nodes; n++) {
        for (int32_t i = 0; i < p->nodes[n]->n_out; i++) {
            if (!is_read(p, p->nodes[n]->out[i]) &&
                kiln_graph_output(g, p->nodes[n]->out[i]) != KILN_OK) {
                return "out of memory";
            }
        }
    }
    p->out->inputs = kiln_arena_copy(p->arena, p->inputs, sizeof p->inputs);
    if (kiln_graph_index(g) != KILN_OK || kiln_graph_verify(g, p->diag) != KILN_OK ||
        kiln_infer_graph(g, p->diag) != KILN_OK || kiln_graph_index(g) != KILN_OK) {
        return "the graph is refused";
    }
    return p->out->inputs ? NULL : "out of memory";
}

const char *parse_case(test_case *out, char *line, uint64_t seed, kiln_arena *arena,
                       kiln_dims *dims, kiln_diag *diag) {
    parser p = {.out = out, .arena = arena, .dims = dims, .diag = diag, .random = seed | 1};
    char *colon = strchr(line, ':'), *bar;
    if (!colon || colon - line >= (ptrdiff_t)sizeof out->kernel) {
        return "the line begins with no kernel";
    }
    *colon = '\0';
    out->refused = line[0] == '!';
    char *slash = strchr(line, '/');
    if (slash) {
        *slash = '\0';
        snprintf(out->tactic, sizeof out->tactic, "%s", slash + 1);
    }
    snprintf(out->kernel, sizeof out->kernel, "%s", line + out->refused);
    if (!kiln_kernel_find(out->kernel)) {
        return "no kernel has the name before the colon";
    }
    if (kiln_graph_create(&out->graph, arena, dims, NULL, NULL, "case") != KILN_OK) {
        return "out of memory";
    }
    for (char *part = colon + 1; part; part = bar) {
        bar = strchr(part, '|');
        if (bar) {
            *bar++ = '\0';
        }
        const char *wrong = read_node(&p, part);
        if (wrong) {
            return wrong;
        }
    }
    return finish(&p);
}

const kiln_way *all_in_way(const test_case *tc, const char *tactic, kiln_arena *arena) {
    kiln_way *ways = kiln_arena_array(arena, tc->graph->n_nodes, sizeof *ways);
    for (size_t i = 0; ways && i < tc->graph->n_nodes; i++) {
        ways[i] =
            (kiln_way){.layer = tc->graph->nodes[i]->name, .kernel = tc->kernel, .tactic = tactic};
    }
    return ways;
}

const char *const *all_but(const char *kernel, kiln_arena *arena) {
    size_t n = kiln_kernel_count(), at = 0;
    const char **off = kiln_arena_array(arena, n + 1, sizeof *off);
    for (size_t i = 0; off && i < n; i++) {
        const char *name = kiln_kernel_at(i)->name;
        if (strcmp(name, "reference") != 0 && strcmp(name, kernel) != 0) {
            off[at++] = name;
        }
    }
    return off;
}
