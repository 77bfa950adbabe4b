#include "engine/graph_io.h"

#include <string.h>

#include "base/checked.h"
#include "base/diag.h"
#include "base/env.h"
#include "ops/ops.h"

/* ---- Writing ---- */

typedef struct writer {
    kiln_enc *e;
    kiln_place_fn place;
    void *user;
    uint32_t *number; /* per value id: its number + 1 once written */
    uint32_t n_values;
} writer;

static void write_tensor(kiln_enc *e, const kiln_tensor *t, const void *data) {
    kiln_enc_u32(e, t->dtype);
    kiln_enc_u32(e, (uint32_t)t->rank);
    for (int32_t d = 0; d < t->rank; d++) {
        kiln_enc_u64(e, (uint64_t)t->dims[d]);
    }
    if (data) {
        size_t bytes = kiln_tensor_bytes(t);
        kiln_enc_u64(e, bytes);
        kiln_enc_bytes(e, data, bytes);
    }
}

/* Symbols keep their names; whatever else is not a number is read back as not known. */
static void write_type(kiln_enc *e, const kiln_type *t, const kiln_dims *dims) {
    for (; t; t = t->elem) {
        kiln_enc_u32(e, t->kind);
        kiln_enc_u32(e, t->dtype);
        kiln_enc_u32(e, (uint32_t)t->rank);
        for (int32_t d = 0; t->kind == KILN_KIND_TENSOR && d < t->rank; d++) {
            const kiln_dim_entry *entry = kiln_dim_get(dims, t->dims[d]);
            bool symbol = entry && entry->kind == KILN_DIM_SYMBOL;
            kiln_enc_text(e, symbol ? entry->name : NULL);
            kiln_enc_u64(e, (uint64_t)(kiln_dim_known(t->dims[d]) ? t->dims[d] : KILN_DIM_UNKNOWN));
        }
    }
    kiln_enc_u32(e, KILN_KIND_NONE);
}

static uint32_t name_value(writer *w, const kiln_value *v) {
    if (!v) {
        return 0;
    }
    if (!w->number[v->id]) {
        w->number[v->id] = ++w->n_values;
    }
    return w->number[v->id];
}

/* A use of a value: its number, and on a constant's first use what it is. */
static kiln_status write_use(writer *w, const kiln_value *v) {
    bool first = v && v->constant && !w->number[v->id];
    kiln_enc_u32(w->e, name_value(w, v));
    if (!v) {
        return KILN_OK;
    }
    kiln_enc_u32(w->e, first);
    if (!first) {
        return KILN_OK;
    }
    bool stored = false;
    kiln_extent x = {0};
    KILN_TRY(w->place(w->user, v, &stored, &x));
    kiln_enc_text(w->e, v->name);
    write_tensor(w->e, &v->constant->tensor, NULL);
    kiln_enc_u32(w->e, stored);
    kiln_enc_u64(w->e, x.offset);
    kiln_enc_u64(w->e, x.len);
    kiln_enc_u64(w->e, x.hash);
    return KILN_OK;
}

static void write_attr(kiln_enc *e, const kiln_attr *row, const char *field) {
    switch (row->kind) {
    case KILN_ATTR_INT:
        kiln_enc_u64(e, *(const uint64_t *)(const void *)field);
        break;
    case KILN_ATTR_FLOAT:
    case KILN_ATTR_ENUM:
        kiln_enc_bytes(e, field, 4);
        break;
    case KILN_ATTR_STRING:
        kiln_enc_text(e, *(const char *const *)(const void *)field);
        break;
    case KILN_ATTR_INTS: {
        const kiln_ints *v = (const void *)field;
        kiln_enc_u32(e, v->v != NULL);
        kiln_enc_u64(e, (uint64_t)v->n);
        kiln_enc_bytes(e, v->v, (size_t)v->n * sizeof *v->v);
        break;
    }
    case KILN_ATTR_FLOATS: {
        const kiln_floats *v = (const void *)field;
        kiln_enc_u32(e, v->v != NULL);
        kiln_enc_u64(e, (uint64_t)v->n);
        kiln_enc_bytes(e, v->v, (size_t)v->n * sizeof *v->v);
        break;
    }
    case KILN_ATTR_STRINGS: {
        const kiln_strings *v = (const void *)field;
        kiln_enc_u32(e, v->v != NULL);
        kiln_enc_u64(e, (uint64_t)v->n);
        for (int64_t i = 0; i < v->n; i++) {
            kiln_enc_text(e, v->v[i]);
        }
        break;
    }
    case KILN_ATTR_TENSOR: {
        const kiln_tensor *t = *(const kiln_tensor *const *)(const void *)field;
        kiln_enc_u32(e, t != NULL);
        if (t) {
            write_tensor(e, t, t->data);
        }
        break;
    }
    case KILN_ATTR_GRAPH:
        break;
    }
}

static kiln_status write_graph(writer *w, const kiln_graph *g);

static kiln_status write_node(writer *w, const kiln_node *n) {
    kiln_enc_text(w->e, n->op->domain);
    kiln_enc_text(w->e, n->op->name);
    kiln_enc_text(w->e, n->name);
    kiln_enc_u64(w->e, (uint64_t)n->n_sources);
    for (int32_t i = 0; i < n->n_sources; i++) {
        kiln_enc_text(w->e, n->sources[i]);
    }
    kiln_enc_u64(w->e, (uint64_t)n->n_in);
    for (int32_t i = 0; i < n->n_in; i++) {
        KILN_TRY(write_use(w, n->in[i]));
    }
    for (uint16_t i = 0; i < n->op->n_attrs; i++) {
        write_attr(w->e, &n->op->attrs[i], (const char *)n->attrs + n->op->attrs[i].offset);
    }
    for (int32_t b = 0; b < n->n_bodies; b++) {
        KILN_TRY(write_graph(w, n->bodies[b]));
    }
    kiln_enc_u64(w->e, (uint64_t)n->n_out);
    for (int32_t i = 0; i < n->n_out; i++) {
        kiln_enc_text(w->e, n->out[i]->name);
        kiln_enc_u32(w->e, name_value(w, n->out[i]));
    }
    return KILN_OK;
}

static kiln_status write_graph(writer *w, const kiln_graph *g) {
    kiln_enc_text(w->e, g->name);
    kiln_enc_u64(w->e, g->n_inputs);
    for (size_t i = 0; i < g->n_inputs; i++) {
        kiln_enc_text(w->e, g->inputs[i]->name);
        kiln_enc_u32(w->e, name_value(w, g->inputs[i]));
        write_type(w->e, &g->inputs[i]->type, g->dims);
    }
    kiln_enc_u64(w->e, g->n_nodes);
    for (size_t i = 0; i < g->n_nodes; i++) {
        KILN_TRY(write_node(w, g->nodes[i]));
    }
    kiln_enc_u64(w->e, g->n_outputs);
    for (size_t i = 0; i < g->n_outputs; i++) {
        KILN_TRY(write_use(w, g->outputs[i]));
    }
    return w->e->oom ? KILN_E_MEMORY : KILN_OK;
}

kiln_status kiln_graph_write(kiln_enc *e, const kiln_graph *graph, kiln_place_fn place,
                             void *user) {
    writer w = {.e = e, .place = place, .user = user};
    KILN_ALLOC(w.number, e->arena, graph->n_values);
    return write_graph(&w, graph);
}

/* ---- Reading ---- */

enum { MIN_NODE_BYTES = 28, MIN_INPUT_BYTES = 12 };

typedef struct reader {
    kiln_dec *d;
    kiln_dims *dims;
    const kiln_env *env;
    kiln_fetch_fn fetch;
    void *user;
    kiln_diag *diag;
    kiln_value **values; /* by number - 1 */
    size_t n_values, cap_values;
    int depth;
} reader;

static kiln_status damaged(reader *r, const char *what) {
    return kiln_fail(r->diag, KILN_F_ENGINE_DAMAGED, "the graph section is damaged (%s)", what);
}

static kiln_status check(reader *r, const char *what) {
    if (r->d->oom || r->dims->oom) {
        return KILN_E_MEMORY;
    }
    return r->d->bad ? damaged(r, what) : KILN_OK;
}

static kiln_status read_tensor_type(reader *r, kiln_tensor *t) {
    memset(t, 0, sizeof *t);
    uint32_t dtype = kiln_dec_u32(r->d), rank = kiln_dec_u32(r->d);
    if (r->d->bad || dtype >= KILN_DTYPE_COUNT || rank > KILN_MAX_RANK) {
        return damaged(r, "a tensor's type");
    }
    t->dtype = (kiln_dtype)dtype;
    t->rank = (int32_t)rank;
    for (uint32_t i = 0; i < rank; i++) {
        t->dims[i] = (int64_t)kiln_dec_u64(r->d);
    }
    size_t bytes = kiln_tensor_count(t) < 0 ? SIZE_MAX : kiln_tensor_bytes(t);
    if (bytes == SIZE_MAX || bytes > kiln_env_limits(r->env)->tensor_bytes ||
        t->dtype == KILN_DTYPE_STRING) {
        return damaged(r, "a tensor's dims");
    }
    return check(r, "a tensor");
}

static kiln_status read_type(reader *r, kiln_type *out) {
    for (int depth = 0; depth < 4; depth++) {
        uint32_t kind = kiln_dec_u32(r->d);
        if (kind == KILN_KIND_NONE) {
            return check(r, "a type");
        }
        uint32_t dtype = kiln_dec_u32(r->d);
        int32_t rank = (int32_t)kiln_dec_u32(r->d);
        if (r->d->bad || kind > KILN_KIND_OPTIONAL || dtype >= KILN_DTYPE_COUNT ||
            rank > KILN_MAX_RANK || rank < KILN_RANK_UNKNOWN) {
            return damaged(r, "a type");
        }
        *out = (kiln_type){.kind = (kiln_kind)kind, .dtype = (kiln_dtype)dtype, .rank = rank};
        kiln_dim *dims;
        KILN_ALLOC(dims, r->d->arena, rank > 0 ? rank : 0);
        for (int32_t i = 0; kind == KILN_KIND_TENSOR && i < rank; i++) {
            const char *symbol = kiln_dec_text(r->d);
            kiln_dim v = (int64_t)kiln_dec_u64(r->d);
            dims[i] = symbol ? kiln_dim_symbol(r->dims, symbol) : v >= 0 ? v : KILN_DIM_UNKNOWN;
        }
        out->dims = dims;
        if (kind == KILN_KIND_TENSOR) {
            continue;
        }
        kiln_type *elem;
        KILN_ALLOC(elem, r->d->arena, 1);
        out->elem = elem;
        out = elem;
    }
    return damaged(r, "a type is nested too deeply");
}

static kiln_status add_value(reader *r, uint32_t number, kiln_value *v) {
    if (number != r->n_values + 1) {
        return damaged(r, "values are out of order");
    }
    KILN_PUSH(r->d->arena, r->values, r->n_values, r->cap_values, v);
    return KILN_OK;
}

static kiln_status read_constant(reader *r, kiln_graph *g, kiln_value **out) {
    kiln_tensor t;
    const char *name = kiln_dec_text(r->d);
    KILN_TRY(read_tensor_type(r, &t));
    bool stored = kiln_dec_u32(r->d) != 0;
    kiln_extent x = {kiln_dec_u64(r->d), kiln_dec_u64(r->d), 0};
    x.hash = kiln_dec_u64(r->d);
    KILN_TRY(check(r, "a constant"));
    t.cap_bytes = kiln_tensor_bytes(&t);
    if (stored) {
        t.data = (void *)(x.len == t.cap_bytes ? r->fetch(r->user, &x) : NULL);
        if (!t.data) {
            return damaged(r, "a constant lies outside the weights");
        }
    }
    return kiln_graph_constant(out, g, name, &t);
}

static kiln_status read_use(reader *r, kiln_graph *g, kiln_value **out) {
    uint32_t number = kiln_dec_u32(r->d);
    *out = NULL;
    if (number == 0) {
        return check(r, "a use");
    }
    bool first = kiln_dec_u32(r->d) != 0;
    KILN_TRY(check(r, "a use"));
    if (first) {
        KILN_TRY(read_constant(r, g, out));
        return add_value(r, number, *out);
    }
    if (number > r->n_values) {
        return damaged(r, "a value is used before it is made");
    }
    *out = r->values[number - 1];
    return KILN_OK;
}

static kiln_status read_list(reader *r, size_t item_bytes, const void **v, int64_t *n) {
    bool given = kiln_dec_u32(r->d) != 0;
    size_t count = kiln_dec_count(r->d, item_bytes);
    const uint8_t *src = kiln_dec_bytes(r->d, count * item_bytes);
    KILN_TRY(check(r, "an attribute"));
    *n = given ? (int64_t)count : 0;
    *v = given ? kiln_arena_copy(r->d->arena, src, count * item_bytes) : NULL;
    return given && !*v ? KILN_E_MEMORY : KILN_OK;
}

static kiln_status read_strings(reader *r, kiln_strings *out) {
    bool given = kiln_dec_u32(r->d) != 0;
    size_t count = kiln_dec_count(r->d, 4);
    const char **v;
    KILN_ALLOC(v, r->d->arena, count);
    for (size_t i = 0; i < count; i++) {
        v[i] = kiln_dec_text(r->d);
        KILN_TRY(check(r, "a string"));
        if (!v[i]) {
            return damaged(r, "a string is missing");
        }
    }
    out->v = given ? v : NULL;
    out->n = given ? (int64_t)count : 0;
    return KILN_OK;
}

static kiln_status read_attr_tensor(reader *r, const kiln_tensor **out) {
    *out = NULL;
    if (!kiln_dec_u32(r->d)) {
        return check(r, "an attribute");
    }
    kiln_tensor t;
    KILN_TRY(read_tensor_type(r, &t));
    uint64_t bytes = kiln_dec_u64(r->d);
    t.cap_bytes = kiln_tensor_bytes(&t);
    const uint8_t *src = bytes == t.cap_bytes ? kiln_dec_bytes(r->d, t.cap_bytes) : NULL;
    if (!src) {
        return damaged(r, "a tensor attribute");
    }
    t.data = kiln_arena_copy(r->d->arena, src, t.cap_bytes);
    *out = kiln_arena_copy(r->d->arena, &t, sizeof t);
    return t.data && *out ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status read_attr(reader *r, const kiln_attr *row, char *field) {
    switch (row->kind) {
    case KILN_ATTR_INT: {
        int64_t v = (int64_t)kiln_dec_u64(r->d);
        memcpy(field, &v, sizeof v);
        break;
    }
    case KILN_ATTR_FLOAT: {
        uint32_t v = kiln_dec_u32(r->d);
        memcpy(field, &v, sizeof v);
        break;
    }
    case KILN_ATTR_ENUM: {
        uint32_t v = kiln_dec_u32(r->d), n = 0;
        while (row->words[n]) {
            n++;
        }
        if (v >= n) {
            return damaged(r, "an attribute's word");
        }
        memcpy(field, &v, sizeof v);
        break;
    }
    case KILN_ATTR_STRING: {
        const char *v = kiln_dec_text(r->d);
        v = v ? v : row->string_default;
        memcpy(field, &v, sizeof v);
        break;
    }
    case KILN_ATTR_INTS: {
        kiln_ints *v = (void *)field;
        return read_list(r, sizeof *v->v, (const void **)&v->v, &v->n);
    }
    case KILN_ATTR_FLOATS: {
        kiln_floats *v = (void *)field;
        return read_list(r, sizeof *v->v, (const void **)&v->v, &v->n);
    }
    case KILN_ATTR_STRINGS:
        return read_strings(r, (void *)field);
    case KILN_ATTR_TENSOR:
        return read_attr_tensor(r, (void *)field);
    case KILN_ATTR_GRAPH:
        break;
    }
    return check(r, "an attribute");
}

static kiln_status read_graph(reader *r, kiln_graph *parent, kiln_graph **out);

static kiln_status read_sources(reader *r, kiln_node *n) {
    size_t count = kiln_dec_count(r->d, 4);
    KILN_ALLOC(n->sources, r->d->arena, count);
    for (size_t i = 0; i < count; i++) {
        n->sources[i] = kiln_dec_text(r->d);
        KILN_TRY(check(r, "a source's name"));
        if (!n->sources[i]) {
            return damaged(r, "a source's name");
        }
    }
    n->n_sources = (int32_t)count;
    return KILN_OK;
}

static kiln_status read_outputs(reader *r, kiln_graph *g, kiln_node *n) {
    size_t count = kiln_dec_count(r->d, 8);
    KILN_TRY(check(r, "outputs"));
    KILN_ALLOC(n->out, r->d->arena, count);
    n->n_out = (int32_t)count;
    for (size_t i = 0; i < count; i++) {
        const char *name = kiln_dec_text(r->d);
        uint32_t number = kiln_dec_u32(r->d);
        KILN_TRY(check(r, "an output"));
        KILN_TRY(kiln_graph_value(&n->out[i], g, name));
        KILN_TRY(add_value(r, number, n->out[i]));
    }
    return KILN_OK;
}

static kiln_status read_node(reader *r, kiln_graph *g) {
    const char *domain = kiln_dec_text(r->d), *op_name = kiln_dec_text(r->d),
               *name = kiln_dec_text(r->d);
    KILN_TRY(check(r, "a node"));
    const kiln_op *op = domain && op_name ? kiln_op_find(domain, op_name) : NULL;
    if (!op || !name) {
        return damaged(r, "an operator is unknown");
    }
    kiln_node *n;
    KILN_TRY(kiln_graph_detached(&n, g, op, name, NULL, 0, 0));
    KILN_TRY(read_sources(r, n));
    size_t n_in = kiln_dec_count(r->d, 4);
    KILN_TRY(check(r, "inputs"));
    KILN_ALLOC(n->in, r->d->arena, n_in);
    n->n_in = (int32_t)n_in;
    for (size_t i = 0; i < n_in; i++) {
        KILN_TRY(read_use(r, g, &n->in[i]));
    }
    for (uint16_t i = 0; i < op->n_attrs; i++) {
        KILN_TRY(read_attr(r, &op->attrs[i], (char *)n->attrs + op->attrs[i].offset));
    }
    for (int32_t b = 0; b < n->n_bodies; b++) {
        KILN_TRY(read_graph(r, g, &n->bodies[b]));
    }
    KILN_TRY(read_outputs(r, g, n));
    return kiln_graph_append(g, n);
}

static kiln_status read_inputs(reader *r, kiln_graph *g) {
    size_t count = kiln_dec_count(r->d, MIN_INPUT_BYTES);
    for (size_t i = 0; i < count; i++) {
        const char *name = kiln_dec_text(r->d);
        uint32_t number = kiln_dec_u32(r->d);
        kiln_type type = {0};
        KILN_TRY(read_type(r, &type));
        kiln_value *v;
        KILN_TRY(kiln_graph_input(&v, g, name ? name : "", &type));
        KILN_TRY(add_value(r, number, v));
    }
    return check(r, "inputs");
}

static kiln_status read_graph(reader *r, kiln_graph *parent, kiln_graph **out) {
    if (++r->depth > (int)kiln_env_limits(r->env)->nested_graphs) {
        return damaged(r, "bodies are nested too deeply");
    }
    kiln_graph *g;
    const char *name = kiln_dec_text(r->d);
    KILN_TRY(kiln_graph_create(&g, r->d->arena, r->dims, r->env, parent, name));
    KILN_TRY(read_inputs(r, g));
    size_t n_nodes = kiln_dec_count(r->d, MIN_NODE_BYTES);
    for (size_t i = 0; i < n_nodes; i++) {
        KILN_TRY(read_node(r, g));
    }
    size_t n_outputs = kiln_dec_count(r->d, 4);
    for (size_t i = 0; i < n_outputs; i++) {
        kiln_value *v;
        KILN_TRY(read_use(r, g, &v));
        if (!v) {
            return damaged(r, "an output is missing");
        }
        KILN_TRY(kiln_graph_output(g, v));
    }
    r->depth--;
    *out = g;
    return check(r, "a graph");
}

kiln_status kiln_graph_read(kiln_graph **out, kiln_dec *d, kiln_dims *dims, const kiln_env *env,
                            kiln_fetch_fn fetch, void *user, kiln_diag *diag) {
    reader r = {.d = d, .dims = dims, .env = env, .fetch = fetch, .user = user, .diag = diag};
    KILN_TRY(read_graph(&r, NULL, out));
    KILN_TRY(kiln_graph_index(*out));
    kiln_status status = kiln_graph_verify(*out, diag);
    return status == KILN_OK || status == KILN_E_MEMORY ? status : damaged(&r, "its structure");
}
