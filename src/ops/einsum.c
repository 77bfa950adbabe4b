/* einsum.c - Einsum: sums of products named by index letters.
 *
 * The operands are contracted one after the other from the left, each step keeping only the labels
 * that later operands or the output still need. */
#include <string.h>

#include "ops/attrs.h"
#include "ops/einsum.h"

static const kiln_attr table[] = {{.name = "equation",
                                   .kind = KILN_ATTR_STRING,
                                   .required = true,
                                   .offset = offsetof(kiln_einsum_attrs, equation)}};

/* Products between two looks at whether the run was cancelled. */
enum { POLL_EVERY = 1 << 20 };

enum { LABELS = KILN_EINSUM_LABELS };
typedef kiln_einsum_term term;
typedef kiln_einsum equation;

/* Parses against the ranks of the inputs, all of which must be known. */
static kiln_status parse(const kiln_infer *c, equation *e) {
    const kiln_einsum_attrs *a = c->attrs;
    term *terms;
    int32_t *ranks, distinct = 0;
    KILN_ALLOC(terms, c->arena, c->n_in);
    KILN_ALLOC(ranks, c->arena, c->n_in);
    for (int32_t i = 0; i < c->n_in; i++) {
        ranks[i] = kiln_infer_in_rank(c, i);
    }
    const char *flaw = kiln_einsum_parse(e, a->equation, terms, ranks, c->n_in);
    if (flaw) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "equation \"%.200s\": %s", a->equation, flaw);
    }
    for (int32_t l = 0; l < LABELS; l++) {
        distinct += e->uses[l] > 0;
    }
    if (distinct > KILN_MAX_RANK) {
        return KILN_INFER_FAIL(c, VARIANT, "%d different indices; at most %d are supported",
                               distinct, KILN_MAX_RANK);
    }
    return KILN_OK;
}

/* ---- Inference ---- */

static kiln_status label_dims(const kiln_infer *c, const equation *e, kiln_dim *dims) {
    for (int32_t l = 0; l < LABELS; l++) {
        dims[l] = 1;
    }
    for (int32_t i = 0; i < e->n_in; i++) {
        for (int32_t d = 0; d < e->in[i].n; d++) {
            kiln_dim own = kiln_infer_dim(c, i, d), *dim = &dims[e->in[i].label[d]];
            kiln_dim before = *dim;
            if (!kiln_dim_broadcast(c->dims, before, own, dim)) {
                return KILN_INFER_FAIL(c, SHAPE,
                                       "dim %d of operand %d is %lld where another has %lld", d, i,
                                       (long long)own, (long long)before);
            }
        }
    }
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    bool known = true;
    for (int32_t i = 0; i < c->n_in; i++) {
        if (!kiln_infer_has(c, i)) {
            return KILN_INFER_FAIL(c, ARITY, "operand %d is left out", i);
        }
        KILN_TRY(kiln_infer_dtype(c, i, KILN_T_NUMBER));
        KILN_TRY(kiln_infer_same_dtype(c, 0, i));
        known = known && kiln_infer_in_rank(c, i) >= 0;
    }
    kiln_dtype dtype = c->in[0].type.dtype;
    if (!known) {
        return kiln_infer_dims(c, 0, dtype, KILN_RANK_UNKNOWN) ? KILN_OK : KILN_E_MEMORY;
    }
    equation e;
    kiln_dim sizes[LABELS];
    KILN_TRY(parse(c, &e));
    KILN_TRY(label_dims(c, &e, sizes));
    kiln_dim *dims = kiln_infer_dims(c, 0, dtype, e.out.n);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    for (int32_t d = 0; d < e.out.n; d++) {
        dims[d] = sizes[e.out.label[d]];
    }
    return KILN_OK;
}

/* ---- Reference ---- */

/* A dense intermediate over distinct labels. */
typedef struct partial {
    term labels;
    int64_t stride[LABELS]; /* 0 for labels it has not */
    int64_t count;
    void *data; /* doubles, or uint64 for integers */
} partial;

static kiln_status make_partial(kiln_ref *c, const int64_t *sizes, const bool *wanted,
                                const term *order, partial *p) {
    memset(p, 0, sizeof *p);
    p->count = 1;
    for (int32_t i = 0; i < (order ? order->n : LABELS); i++) {
        int32_t l = order ? order->label[i] : i;
        if (wanted[l]) {
            p->labels.label[p->labels.n++] = (int8_t)l;
            if (!kiln_mul_i64(p->count, sizes[l], &p->count)) {
                return KILN_INFER_FAIL(c, RUN_SIZE, "an intermediate result is too large");
            }
        }
    }
    if ((uint64_t)p->count > c->limits->tensor_bytes / sizeof(double)) {
        return KILN_INFER_FAIL(c, RUN_SIZE,
                               "an intermediate result of %lld elements is over the limit",
                               (long long)p->count);
    }
    int64_t step = 1;
    for (int32_t i = p->labels.n - 1; i >= 0; i--) {
        p->stride[p->labels.label[i]] = step;
        step *= sizes[p->labels.label[i]];
    }
    p->data = kiln_arena_array(c->arena, (size_t)p->count, sizeof(double));
    return p->data ? KILN_OK : KILN_E_MEMORY;
}

/* to += from * x, over all labels of from, x and to; the labels of `to` run outermost. */
static kiln_status contract(const kiln_ref *c, const partial *from, const kiln_tensor *x,
                            const term *t, const int64_t *sizes, partial *to) {
    int64_t strides[LABELS] = {0}, own[KILN_MAX_RANK], dims[KILN_MAX_RANK];
    int64_t steps[3][KILN_MAX_RANK];
    int32_t n = 0;
    bool present[LABELS] = {false};
    kiln_strides(x->dims, x->rank, own);
    for (int32_t d = 0; d < t->n; d++) {
        strides[t->label[d]] += x->dims[d] == 1 ? 0 : own[d];
        present[t->label[d]] = true;
    }
    for (int32_t i = 0; i < from->labels.n; i++) {
        present[from->labels.label[i]] = true;
    }
    for (int32_t pass = 0; pass < 2; pass++) {
        for (int32_t l = 0; l < LABELS; l++) {
            if (present[l] && (to->stride[l] > 0) == (pass == 0)) {
                dims[n] = sizes[l];
                steps[0][n] = from->stride[l];
                steps[1][n] = strides[l];
                steps[2][n++] = to->stride[l];
            }
        }
    }
    kiln_walk w;
    kiln_walk_init(&w, dims, n);
    for (int32_t i = 0; i < 3; i++) {
        kiln_walk_operand(&w, steps[i]);
    }
    if (kiln_walk_empty(&w)) {
        return KILN_OK;
    }
    bool is_float = kiln_dtype_is_float(x->dtype);
    int64_t done = 0;
    do {
        if (done++ % POLL_EVERY == 0) {
            KILN_TRY(kiln_ref_poll(c));
        }
        if (is_float) {
            double v = kiln_get_f64(x->dtype, x->data, w.offset[1]);
            ((double *)to->data)[w.offset[2]] += ((const double *)from->data)[w.offset[0]] * v;
        } else {
            uint64_t v = (uint64_t)kiln_get_i64(x->dtype, x->data, w.offset[1]);
            ((uint64_t *)to->data)[w.offset[2]] += ((const uint64_t *)from->data)[w.offset[0]] * v;
        }
    } while (kiln_walk_next(&w));
    return KILN_OK;
}

/* Labels to keep after operand k: what has come so far and is still needed. */
static void keep(const equation *e, int32_t k, bool *have, bool *wanted) {
    bool later[LABELS];
    kiln_einsum_needed(e, k, later);
    for (int32_t d = 0; d < e->in[k].n; d++) {
        have[e->in[k].label[d]] = true;
    }
    for (int32_t l = 0; l < LABELS; l++) {
        have[l] = wanted[l] = have[l] && later[l];
    }
}

/* The equation once more, and the label sizes as numbers. */
static kiln_status prepare(kiln_ref *c, equation *e, int64_t *sizes) {
    kiln_infer i = {.node = c->node,
                    .attrs = c->attrs,
                    .n_in = c->n_in,
                    .arena = c->arena,
                    .diag = c->diag,
                    .limits = c->limits};
    kiln_fact *facts;
    KILN_ALLOC(facts, c->arena, c->n_in);
    for (int32_t k = 0; k < c->n_in; k++) {
        KILN_TRY(kiln_datum_fact(&c->in[k], c->arena, &facts[k]));
    }
    i.in = facts;
    KILN_TRY(parse(&i, e));
    for (int32_t l = 0; l < LABELS; l++) {
        sizes[l] = 1;
    }
    for (int32_t k = 0; k < e->n_in; k++) {
        for (int32_t d = 0; d < e->in[k].n; d++) {
            int64_t *size = &sizes[e->in[k].label[d]], own = kiln_ref_in(c, k)->dims[d];
            *size = *size == 1 ? own : *size;
        }
    }
    return KILN_OK;
}

static kiln_status ref(kiln_ref *c) {
    kiln_tensor *y = kiln_ref_out(c, 0);
    equation e;
    int64_t sizes[LABELS];
    bool have[LABELS] = {false}, wanted[LABELS] = {false};
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_TRY(prepare(c, &e, sizes));
    bool is_float = kiln_dtype_is_float(y->dtype);
    partial acc;
    KILN_TRY(make_partial(c, sizes, wanted, NULL, &acc));
    const double one = 1;
    const uint64_t int_one = 1;
    memcpy(acc.data, is_float ? (const void *)&one : (const void *)&int_one, sizeof one);
    for (int32_t k = 0; k < e.n_in; k++) {
        partial next;
        keep(&e, k, have, wanted);
        bool last = k + 1 == e.n_in;
        KILN_TRY(make_partial(c, sizes, wanted, last ? &e.out : NULL, &next));
        KILN_TRY(contract(c, &acc, kiln_ref_in(c, k), &e.in[k], sizes, &next));
        acc = next;
    }
    for (int64_t i = 0; i < acc.count; i++) {
        if (is_float) {
            kiln_set_f64(y->dtype, y->data, i, ((const double *)acc.data)[i]);
        } else {
            kiln_set_i64(y->dtype, y->data, i, ((const int64_t *)acc.data)[i]);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

/* ---- Cost ---- */

enum { MOST_COSTED = 16 };

/* Products of the contractions from the left; a single operand is only summed. */
static void cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                 kiln_cost *cost) {
    const kiln_einsum_attrs *a = node->attrs;
    term terms[MOST_COSTED];
    int32_t ranks[MOST_COSTED], n = node->n_in;
    int64_t sizes[LABELS];
    bool have[LABELS] = {false}, wanted[LABELS];
    equation e;
    (void)out;
    for (int32_t i = 0; i < n && i < MOST_COSTED; i++) {
        ranks[i] = in[i].type.rank;
    }
    if (n > MOST_COSTED || kiln_einsum_parse(&e, a->equation, terms, ranks, n)) {
        return;
    }
    for (int32_t l = 0; l < LABELS; l++) {
        sizes[l] = 1;
    }
    for (int32_t k = 0; k < n; k++) {
        for (int32_t d = 0; d < terms[k].n; d++) {
            int64_t *size = &sizes[terms[k].label[d]], own = in[k].type.dims[d];
            *size = *size == 1 ? own : *size;
        }
    }
    for (int32_t k = 0; k < n; k++) {
        int64_t products = k > 0;
        for (int32_t d = 0; d < terms[k].n; d++) {
            have[terms[k].label[d]] = true;
        }
        for (int32_t l = 0; l < LABELS; l++) {
            products =
                have[l] && !kiln_mul_i64(products, sizes[l], &products) ? INT64_MAX : products;
        }
        keep(&e, k, have, wanted);
        cost->macs = kiln_add_i64(cost->macs, products, &cost->macs) ? cost->macs : INT64_MAX;
    }
}

const kiln_op kiln_op_einsum = {
    .name = "Einsum",
    .domain = "",
    .since = 28,
    .min_in = 1,
    .max_in = -1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, kiln_einsum_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
    .cost = cost,
};
