#include "pass/match.h"

#include <math.h>
#include <string.h>

bool kiln_is_op(const kiln_node *node, const char *op) {
    return node && node->op->name[0] == op[0] && strcmp(node->op->name, op) == 0 &&
           !node->op->domain[0];
}

const kiln_node *kiln_made_by(const kiln_value *v, const char *op) {
    return v && !v->constant && kiln_is_op(v->producer, op) ? v->producer : NULL;
}

bool kiln_used_once(const kiln_value *v) {
    return v->n_users == 1 && v->n_outputs == 0;
}

const kiln_node *kiln_made_by_only(const kiln_value *v, const char *op) {
    const kiln_node *n = kiln_made_by(v, op);
    return n && kiln_used_once(v) ? n : NULL;
}

const kiln_node *kiln_only_user(const kiln_node *node, const char *op) {
    const kiln_value *v = node->out[0];
    return kiln_used_once(v) && kiln_is_op(v->users[0], op) && v->users[0]->n_bodies == 0
               ? v->users[0]
               : NULL;
}

/* ---- Constants ---- */

static bool is_numeric(kiln_dtype dtype) {
    return kiln_dtype_is_float(dtype) || kiln_dtype_is_int(dtype) || dtype == KILN_DTYPE_BOOL;
}

bool kiln_scalar(const kiln_value *v, double *out) {
    const kiln_tensor *t = kiln_value_data(v);
    if (!t || kiln_tensor_count(t) != 1 || !is_numeric(t->dtype)) {
        return false;
    }
    *out = kiln_get_f64(t->dtype, t->data, 0);
    return true;
}

bool kiln_scalar_is(const kiln_value *v, double x) {
    double s;
    return kiln_scalar(v, &s) && fabs(s - x) <= 1e-6 * fabs(x);
}

bool kiln_split_scalar(const kiln_node *node, double x, kiln_value **other) {
    for (int32_t side = 0; side < 2 && node->n_in == 2; side++) {
        if (kiln_scalar_is(node->in[side], x) && !node->in[1 - side]->constant) {
            *other = node->in[1 - side];
            return true;
        }
    }
    return false;
}

bool kiln_split_any_scalar(const kiln_node *node, double *scalar, kiln_value **other) {
    for (int32_t side = 0; side < 2 && node->n_in == 2; side++) {
        if (kiln_scalar(node->in[side], scalar) && !node->in[1 - side]->constant) {
            *other = node->in[1 - side];
            return true;
        }
    }
    return false;
}

bool kiln_all_equal(const kiln_value *v, double x) {
    const kiln_tensor *t = kiln_value_data(v);
    int64_t n = t ? kiln_tensor_count(t) : 0;
    if (n < 1 || !is_numeric(t->dtype)) {
        return false;
    }
    for (int64_t i = 0; i < n; i++) {
        double e = kiln_get_f64(t->dtype, t->data, i);
        if (!(e == x) || signbit(e) != signbit(x)) {
            return false;
        }
    }
    return true;
}

int64_t kiln_known_ints(const kiln_value *v, int64_t *out, int64_t cap) {
    const kiln_tensor *t = kiln_value_data(v);
    if (t && kiln_dtype_is_int(t->dtype)) {
        int64_t n = kiln_tensor_count(t);
        for (int64_t i = 0; i < n && i < cap; i++) {
            out[i] = kiln_get_i64(t->dtype, t->data, i);
        }
        return n <= cap ? n : -1;
    }
    if (!v || !v->contents || v->n_contents > cap) {
        return -1;
    }
    for (int64_t i = 0; i < v->n_contents; i++) {
        if (!kiln_dim_known(v->contents[i])) {
            return -1;
        }
        out[i] = v->contents[i];
    }
    return v->n_contents;
}

/* ---- Types ---- */

int32_t kiln_rank(const kiln_value *v) {
    return kiln_is_tensor(v) ? v->type.rank : KILN_RANK_UNKNOWN;
}

kiln_dim kiln_dim_at(const kiln_value *v, int32_t d) {
    int32_t rank = kiln_rank(v);
    d = d < 0 ? d + rank : d;
    return rank >= 0 && d >= 0 && d < rank ? v->type.dims[d] : KILN_DIM_UNKNOWN;
}

bool kiln_same_shape(const kiln_value *a, const kiln_value *b) {
    return kiln_is_tensor(a) && kiln_is_tensor(b) && kiln_type_same_shape(&a->type, &b->type);
}

bool kiln_same_type(const kiln_value *a, const kiln_value *b) {
    return kiln_same_shape(a, b) && a->type.dtype == b->type.dtype;
}

bool kiln_is_float(const kiln_value *v) {
    return kiln_is_tensor(v) && kiln_dtype_is_float(v->type.dtype) &&
           kiln_dtype_size(v->type.dtype) >= 2;
}

int64_t kiln_static_count(const kiln_value *v) {
    kiln_tensor t = {.rank = 0};
    return v && kiln_type_to_tensor(&v->type, &t) ? kiln_tensor_count(&t) : -1;
}

/* ---- Attributes ---- */

static const void *attribute(const kiln_node *node, const char *attr, kiln_attr_kind *kind) {
    for (uint16_t i = 0; i < node->op->n_attrs; i++) {
        const kiln_attr *row = &node->op->attrs[i];
        if (strcmp(row->name, attr) == 0 && row->kind != KILN_ATTR_GRAPH) {
            *kind = row->kind;
            return (const char *)node->attrs + row->offset;
        }
    }
    return NULL;
}

int64_t kiln_node_int(const kiln_node *node, const char *attr, int64_t def) {
    kiln_attr_kind kind = KILN_ATTR_INT;
    const void *at = attribute(node, attr, &kind);
    if (at && kind == KILN_ATTR_INT) {
        memcpy(&def, at, sizeof def);
    } else if (at && kind == KILN_ATTR_ENUM) {
        int32_t word;
        memcpy(&word, at, sizeof word);
        def = word;
    }
    return def;
}

float kiln_node_float(const kiln_node *node, const char *attr, float def) {
    kiln_attr_kind kind = KILN_ATTR_INT;
    const void *at = attribute(node, attr, &kind);
    if (at && kind == KILN_ATTR_FLOAT) {
        memcpy(&def, at, sizeof def);
    }
    return def;
}

const kiln_ints *kiln_node_ints(const kiln_node *node, const char *attr) {
    kiln_attr_kind kind = KILN_ATTR_INT;
    const kiln_ints *at = attribute(node, attr, &kind);
    return at && kind == KILN_ATTR_INTS && at->v ? at : NULL;
}

const void *kiln_attr_content(const kiln_attr *row, const void *attrs, size_t *bytes) {
    const void *field = (const char *)attrs + row->offset;
    const kiln_ints *ints = field;
    const kiln_floats *floats = field;
    const char *text;
    switch (row->kind) {
    case KILN_ATTR_INT:
        *bytes = sizeof(int64_t);
        return field;
    case KILN_ATTR_FLOAT:
    case KILN_ATTR_ENUM:
        *bytes = 4;
        return field;
    case KILN_ATTR_INTS:
        *bytes = ints->v ? (size_t)ints->n * sizeof *ints->v : 0;
        return ints->v;
    case KILN_ATTR_FLOATS:
        *bytes = floats->v ? (size_t)floats->n * sizeof *floats->v : 0;
        return floats->v;
    case KILN_ATTR_STRING:
        memcpy(&text, field, sizeof text);
        *bytes = text ? strlen(text) : 0;
        return text;
    default: /* STRINGS, TENSOR: the same object */
        *bytes = row->kind == KILN_ATTR_TENSOR ? sizeof(void *) : sizeof(kiln_strings);
        return field;
    }
}

bool kiln_same_attrs(const kiln_node *a, const kiln_node *b) {
    for (uint16_t i = 0; i < a->op->n_attrs; i++) {
        size_t na, nb;
        const void *x = kiln_attr_content(&a->op->attrs[i], a->attrs, &na);
        const void *y = kiln_attr_content(&a->op->attrs[i], b->attrs, &nb);
        if (na != nb || !x != !y || (na && memcmp(x, y, na) != 0)) {
            return false;
        }
    }
    return true;
}

bool kiln_target_is_sure(const kiln_node *node) {
    const kiln_value *target = kiln_node_in(node, 1);
    if (!(node->op->flags & KILN_OP_TARGET) || !target || target->constant) {
        return true;
    }
    for (int64_t i = 0; target->contents && i < target->n_contents; i++) {
        if (target->contents[i] == KILN_DIM_UNKNOWN) {
            return false;
        }
    }
    return target->contents != NULL;
}

bool kiln_transpose_perm(const kiln_node *node, int64_t *perm, int32_t *rank) {
    const kiln_ints *p = kiln_node_ints(node, "perm");
    *rank = p ? (int32_t)p->n : kiln_rank(node->in[0]);
    for (int32_t d = 0; d < *rank; d++) {
        perm[d] = p ? p->v[d] : *rank - 1 - d;
    }
    return *rank >= 0;
}

bool kiln_reduce_axes(const kiln_node *node, uint32_t *axes) {
    int64_t v[KILN_MAX_RANK];
    int32_t rank = kiln_rank(node->in[0]);
    const kiln_value *list = kiln_node_in(node, 1);
    int64_t n = list ? kiln_known_ints(list, v, KILN_MAX_RANK) : 0;
    if (rank < 0 || n < 0) {
        return false;
    }
    *axes = 0;
    if (n == 0) {
        bool noop = kiln_node_int(node, "noop_with_empty_axes", 0) != 0;
        *axes = noop ? 0 : (uint32_t)((UINT64_C(1) << rank) - 1);
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t a = v[i] < 0 ? v[i] + rank : v[i];
        if (a < 0 || a >= rank) {
            return false;
        }
        *axes |= UINT32_C(1) << a;
    }
    return true;
}

bool kiln_axes_are_last(uint32_t axes, int32_t rank, int32_t *n) {
    uint64_t all = (UINT64_C(1) << rank) - 1;
    for (*n = 1; *n <= rank; (*n)++) {
        if (axes == (all & ~((UINT64_C(1) << (rank - *n)) - 1))) {
            return true;
        }
    }
    return false;
}

/* ---- Patches ---- */

bool kiln_reshape_target(const kiln_value *from, const kiln_type *shape, int64_t *target) {
    bool inferred = false;
    if (shape->kind != KILN_KIND_TENSOR || shape->rank < 0 || !kiln_is_tensor(from)) {
        return false;
    }
    for (int32_t d = 0; d < shape->rank; d++) {
        kiln_dim n = shape->dims[d];
        if (kiln_dim_known(n)) {
            if (n <= 0) {
                return false; /* a literal 0 would copy */
            }
            target[d] = n;
        } else if (n != KILN_DIM_UNKNOWN && n == kiln_dim_at(from, d)) {
            target[d] = 0;
        } else if (!inferred) {
            inferred = true;
            target[d] = -1;
        } else {
            return false;
        }
    }
    return true;
}

kiln_value *kiln_patch_reshape(kiln_patch *p, kiln_value *x, const kiln_type *shape) {
    int64_t target[KILN_MAX_RANK];
    if (!kiln_reshape_target(x, shape, target)) {
        return NULL;
    }
    kiln_value *in[] = {x, kiln_patch_vector(p, target, shape->rank)};
    return kiln_patch_node(p, "Reshape", in, 2);
}

kiln_value *kiln_patch_scalar(kiln_patch *p, kiln_dtype dtype, double v) {
    double bytes = 0;
    kiln_tensor t = {.dtype = dtype, .rank = 0, .data = &bytes};
    kiln_set_f64(dtype, &bytes, 0, v);
    return kiln_patch_constant(p, &t);
}

kiln_status kiln_patch_bypass(kiln_patch *p, const kiln_node *node, kiln_value *by,
                              const char *what) {
    kiln_patch_replace(p, node->out[0], by);
    return kiln_patch_commit(p, what);
}
