/* constant.c - Constant and ConstantOfShape. The importer turns Constant nodes into constants; the
 * operator exists for the bodies of functions and for tests. */
#include <math.h>
#include <string.h>

#include "ops/move.h"

typedef struct constant_attrs {
    const kiln_tensor *value;
    float value_float;
    kiln_floats value_floats;
    int64_t value_int;
    kiln_ints value_ints;
    const char *value_string;
    kiln_strings value_strings;
} constant_attrs;

/* Absence of value_float. Infinity would come as a tensor: exporters write value_float for
 * literals. */
#define NO_FLOAT (-INFINITY)

static const kiln_attr constant_table[] = {
    KILN_A_TENSOR(constant_attrs, value),
    KILN_A_FLOAT(constant_attrs, value_float, NO_FLOAT),
    KILN_A_FLOATS(constant_attrs, value_floats),
    KILN_A_INT(constant_attrs, value_int, KILN_ABSENT),
    KILN_A_INTS(constant_attrs, value_ints),
    KILN_A_STRING(constant_attrs, value_string, NULL),
    KILN_A_STRINGS(constant_attrs, value_strings),
};

/* The attribute that is there, seen as a tensor. */
static bool constant_view(const constant_attrs *a, kiln_tensor *t) {
    memset(t, 0, sizeof *t);
    if (a->value) {
        *t = *a->value;
        return true;
    }
    const struct {
        bool there;
        kiln_dtype dtype;
        const void *data;
        int64_t n; /* -1: a scalar */
    } forms[] = {
        {a->value_floats.v != NULL, KILN_DTYPE_F32, a->value_floats.v, a->value_floats.n},
        {a->value_ints.v != NULL, KILN_DTYPE_I64, a->value_ints.v, a->value_ints.n},
        {a->value_strings.v != NULL, KILN_DTYPE_STRING, a->value_strings.v, a->value_strings.n},
        {a->value_string != NULL, KILN_DTYPE_STRING, &a->value_string, -1},
        {a->value_int != KILN_ABSENT, KILN_DTYPE_I64, &a->value_int, -1},
        {a->value_float != NO_FLOAT, KILN_DTYPE_F32, &a->value_float, -1},
    };
    for (size_t i = 0; i < KILN_COUNT_OF(forms); i++) {
        if (forms[i].there) {
            t->dtype = forms[i].dtype;
            t->rank = forms[i].n >= 0;
            t->dims[0] = forms[i].n;
            t->data = (void *)forms[i].data;
            return true;
        }
    }
    return false;
}

static kiln_status constant_infer(kiln_infer *c) {
    kiln_tensor t, y;
    if (!constant_view(c->attrs, &t)) {
        return KILN_INFER_FAIL(c, ATTRIBUTE, "none of the value attributes is there");
    }
    kiln_dim *out = kiln_infer_dims(c, 0, t.dtype, t.rank);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; d < t.rank; d++) {
        out[d] = t.dims[d];
    }
    if (!t.data || !(kiln_dtype_is_int(t.dtype) || t.dtype == KILN_DTYPE_BOOL)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_contents_out(c, 0, &y));
    for (int64_t i = 0, n = y.data ? kiln_tensor_count(&y) : 0; i < n; i++) {
        int64_t v = kiln_get_i64(t.dtype, t.data, i);
        ((kiln_dim *)y.data)[i] = v < KILN_DIM_MIN ? KILN_DIM_MIN : v;
    }
    return KILN_OK;
}

static kiln_status constant_ref(kiln_ref *c) {
    kiln_tensor t;
    constant_view(c->attrs, &t);
    kiln_copy_elements(t.dtype, kiln_ref_out(c, 0)->data, 0, t.data, 0, kiln_tensor_count(&t));
    return KILN_OK;
}

typedef struct fill_attrs {
    const kiln_tensor *value;
} fill_attrs;

static const kiln_attr fill_table[] = {KILN_A_TENSOR(fill_attrs, value)};

static kiln_status fill_infer(kiln_infer *c) {
    const kiln_tensor *v = ((const fill_attrs *)c->attrs)->value;
    KILN_TRY(kiln_infer_rank(c, 0, 1, 1));
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T(I64)));
    if (v && kiln_tensor_count(v) != 1) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "value has %lld elements, needs 1",
                               (long long)kiln_tensor_count(v));
    }
    int64_t len = kiln_infer_length(c, 0), n;
    const kiln_dim *shape = kiln_infer_contents(c, 0, &n);
    if (len > KILN_MAX_RANK) {
        return KILN_INFER_FAIL(c, VARIANT, "the shape has %lld dims; at most %d are supported",
                               (long long)len, KILN_MAX_RANK);
    }
    kiln_dtype dtype = v ? v->dtype : KILN_DTYPE_F32;
    kiln_dim *out = kiln_infer_dims(c, 0, dtype, len < 0 ? KILN_RANK_UNKNOWN : (int32_t)len);
    if (!out) {
        return KILN_E_MEMORY;
    }
    for (int64_t d = 0; shape && d < len; d++) {
        if (kiln_dim_known(shape[d]) && shape[d] < 0) {
            return KILN_INFER_FAIL(c, VALUE, "dim %lld = %lld is negative", (long long)d,
                                   (long long)shape[d]);
        }
        out[d] = shape[d];
    }
    kiln_tensor y;
    if (kiln_dtype_is_int(dtype) || dtype == KILN_DTYPE_BOOL) {
        KILN_TRY(kiln_contents_out(c, 0, &y));
        if (y.data && v && v->data) {
            int64_t e = kiln_get_i64(v->dtype, v->data, 0);
            kiln_move_fill(KILN_DTYPE_I64, y.data, 0, kiln_tensor_count(&y), &e);
        }
    }
    return KILN_OK;
}

static kiln_status fill_ref(kiln_ref *c) {
    const kiln_tensor *v = ((const fill_attrs *)c->attrs)->value;
    kiln_tensor *y = kiln_ref_out(c, 0);
    if (v && v->data) {
        kiln_move_fill(y->dtype, y->data, 0, kiln_tensor_count(y), v->data);
    }
    return KILN_OK;
}

const kiln_op kiln_op_constant = {
    .name = "Constant",
    .domain = "",
    .since = 25,
    .min_in = 0,
    .max_in = 0,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(constant_table, constant_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = constant_infer,
    .ref = constant_ref,
};

const kiln_op kiln_op_constant_of_shape = {
    .name = "ConstantOfShape",
    .domain = "",
    .since = 25,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(fill_table, fill_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = fill_infer,
    .ref = fill_ref,
};
