/* elementwise.c - see elementwise.h. */
#include "ops/elementwise.h"

#include <string.h>

void kiln_rows_init(kiln_rows *r, const kiln_tensor *out, const kiln_tensor *const *in,
                    int32_t n_in) {
    memset(r, 0, sizeof *r);
    r->n_in = n_in;
    int64_t count = kiln_tensor_count(out);
    bool flat = true;
    for (int32_t i = 0; i < n_in; i++) {
        int64_t n = kiln_tensor_count(in[i]);
        flat = flat && (n == count || n == 1);
        r->step[i] = n == count && n != 1;
    }
    if (flat || count == 0) {
        kiln_walk_init(&r->walk, NULL, 0);
        r->n = count;
        return;
    }
    int32_t outer = out->rank - 1;
    kiln_walk_init(&r->walk, out->dims, outer);
    r->n = out->dims[outer];
    for (int32_t i = 0; i < n_in; i++) {
        int64_t strides[KILN_MAX_RANK];
        kiln_broadcast_strides(in[i]->dims, in[i]->rank, out->dims, out->rank, strides);
        r->step[i] = strides[outer];
        kiln_walk_operand(&r->walk, strides);
    }
}

bool kiln_rows_next(kiln_rows *r) {
    if (!kiln_walk_next(&r->walk)) {
        return false;
    }
    r->out += r->n;
    for (int32_t i = 0; i < r->n_in; i++) {
        r->at[i] = r->walk.offset[i];
    }
    return true;
}

bool kiln_dim_nonneg(const kiln_dims *dims, kiln_dim d) {
    /* Left operands are followed on the spot, right ones wait; deep expressions are given up. */
    kiln_dim wait[16];
    int32_t n = 1;
    wait[0] = d;
    for (int32_t steps = 0; n > 0; steps++) {
        kiln_dim x = wait[--n];
        if (x == KILN_DIM_UNKNOWN || steps > 64) {
            return false;
        }
        const kiln_dim_entry *e = kiln_dim_get(dims, x);
        if (!e) {
            if (x < 0) {
                return false;
            }
            continue;
        }
        switch (e->kind) {
        case KILN_DIM_SYMBOL:
        case KILN_DIM_FOUND:
            break;
        case KILN_DIM_UPPER:
            if (kiln_dim_known(e->a) && e->a >= 0) {
                break;
            }
            if (kiln_dim_known(e->b) && e->b >= 0) {
                break;
            } /* fall through */
        case KILN_DIM_ADD:
        case KILN_DIM_MUL:
        case KILN_DIM_DIV:
        case KILN_DIM_LOWER:
            if (n + 2 > (int32_t)KILN_COUNT_OF(wait)) {
                return false;
            }
            wait[n++] = e->a;
            wait[n++] = e->b;
            break;
        case KILN_DIM_SUB:
            return false;
        }
    }
    return true;
}

/* The static dims of output 0 when its contents are worth tracking; *count its elements. */
static bool small_output(const kiln_infer *c, kiln_tensor *shape, int64_t *count) {
    const kiln_type *t = &c->out[0].type;
    uint32_t set = KILN_T_INDEX | KILN_T(BOOL);
    if (!((set >> t->dtype) & 1) || !kiln_type_to_tensor(t, shape)) {
        return false;
    }
    *count = kiln_tensor_count(shape);
    return *count >= 0 && *count <= KILN_MAX_CONTENTS;
}

static kiln_dim fit(kiln_dtype dtype, kiln_dim v) {
    bool outside = dtype == KILN_DTYPE_I32 && kiln_dim_known(v) && (v < INT32_MIN || v > INT32_MAX);
    return outside ? KILN_DIM_UNKNOWN : v;
}

kiln_status kiln_contents_map(kiln_infer *c, int32_t n_in,
                              kiln_dim (*fn)(const kiln_infer *c, const kiln_dim *x)) {
    kiln_tensor out = {0}, in[KILN_ROWS_OPERANDS] = {0};
    const kiln_tensor *operands[KILN_ROWS_OPERANDS];
    const kiln_dim *known[KILN_ROWS_OPERANDS];
    int64_t count;
    bool any = false;
    if (n_in > KILN_ROWS_OPERANDS || !small_output(c, &out, &count)) {
        return KILN_OK;
    }
    for (int32_t i = 0; i < n_in; i++) {
        int64_t n = 0;
        if (!kiln_type_to_tensor(&c->in[i].type, &in[i])) {
            return KILN_OK;
        }
        operands[i] = &in[i];
        /* Contents are signed: those of uint64 may be clipped. */
        known[i] = in[i].dtype == KILN_DTYPE_U64 ? NULL : kiln_infer_contents(c, i, &n);
        if (known[i] && n != kiln_tensor_count(&in[i])) {
            return KILN_OK;
        }
        any = any || known[i];
    }
    if (!any) {
        return KILN_OK;
    }
    kiln_dim *v;
    KILN_ALLOC(v, c->arena, count);
    bool useful = count == 0;
    kiln_rows r;
    kiln_rows_init(&r, &out, operands, n_in);
    for (bool more = r.n > 0; more; more = kiln_rows_next(&r)) {
        for (int64_t k = 0; k < r.n; k++) {
            kiln_dim x[KILN_ROWS_OPERANDS];
            for (int32_t i = 0; i < n_in; i++) {
                x[i] = known[i] ? known[i][r.at[i] + k * r.step[i]] : KILN_DIM_UNKNOWN;
            }
            v[r.out + k] = fit(out.dtype, fn(c, x));
            useful = useful || v[r.out + k] != KILN_DIM_UNKNOWN;
        }
    }
    return useful ? kiln_infer_set_contents(c, 0, v, count) : KILN_OK;
}
