/* einsum.c - Einsum: sums of products named by index letters.
 *
 * Letters and the dims of an ellipsis become labels; the operands are contracted one after the
 * other from the left, each step keeping only the labels that later operands or the output still
 * need. */
#include <string.h>

#include "ops/attrs.h"
#include "ops/matmul_core.h"

static const kiln_attr table[] = {{.name = "equation",
                                   .kind = KILN_ATTR_STRING,
                                   .required = true,
                                   .offset = offsetof(kiln_einsum_attrs, equation)}};

/* Products between two looks at whether the run was cancelled. */
enum { POLL_EVERY = 1 << 20 };

/* Labels: A-Z are 0..25, a-z 26..51, then the dims of the ellipsis, counted from its last. */
enum { LETTERS = 52, LABELS = LETTERS + KILN_MAX_RANK, ELLIPSIS = -1 };

typedef struct term {
    int32_t n;
    int8_t label[KILN_MAX_RANK];
} term;

typedef struct equation {
    term *in; /* one per operand */
    int32_t n_in;
    term out;
    bool has_out;     /* an arrow was there */
    int32_t ellipsis; /* dims of the longest ellipsis */
    int32_t uses[LABELS];
} equation;

/* ---- Parsing ---- */

static int32_t letter(char ch) {
    if (ch >= 'A' && ch <= 'Z') {
        return ch - 'A';
    }
    return ch >= 'a' && ch <= 'z' ? ch - 'a' + 26 : ELLIPSIS;
}

static kiln_status malformed(const kiln_infer *c, const char *why) {
    const kiln_einsum_attrs *a = c->attrs;
    return KILN_INFER_FAIL(c, ATTR_VALUE, "equation \"%.200s\": %s", a->equation, why);
}

/* Reads one term up to ',' '-' or the end; the ellipsis becomes one ELLIPSIS label. */
static kiln_status read_term(const kiln_infer *c, const char **at, term *t) {
    bool ellipsis = false;
    t->n = 0;
    for (const char *s = *at;; s++) {
        if (*s == ' ') {
            continue;
        }
        if (*s == ',' || *s == '-' || *s == '\0') {
            *at = s;
            return KILN_OK;
        }
        bool dots = strncmp(s, "...", 3) == 0;
        if ((!dots && letter(*s) == ELLIPSIS) || (dots && ellipsis)) {
            return malformed(c,
                             dots ? "two ellipses in a term" : "only letters, ... , -> may stand");
        }
        if (t->n == KILN_MAX_RANK) {
            return malformed(c, "a term has too many letters");
        }
        ellipsis = ellipsis || dots;
        t->label[t->n++] = (int8_t)(dots ? ELLIPSIS : letter(*s));
        s += dots ? 2 : 0;
    }
}

/* Replaces the ELLIPSIS label by `dims` labels. */
static bool expand(term *t, int32_t dims) {
    for (int32_t i = 0; i < t->n; i++) {
        if (t->label[i] != ELLIPSIS) {
            continue;
        }
        if (dims < 0 || t->n - 1 + dims > KILN_MAX_RANK) {
            return false;
        }
        memmove(t->label + i + dims, t->label + i + 1, (size_t)(t->n - i - 1));
        for (int32_t d = 0; d < dims; d++) {
            t->label[i + d] = (int8_t)(LETTERS + dims - 1 - d);
        }
        t->n += dims - 1;
        break;
    }
    return true;
}

/* Without an arrow: the ellipsis, then the letters that occur once, in ASCII order. */
static kiln_status implicit_output(const kiln_infer *c, equation *e) {
    e->out.n = 0;
    for (int32_t d = e->ellipsis - 1; d >= 0; d--) {
        e->out.label[e->out.n++] = (int8_t)(LETTERS + d);
    }
    for (int32_t l = 0; l < LETTERS; l++) {
        if (e->uses[l] != 1) {
            continue;
        }
        if (e->out.n == KILN_MAX_RANK) {
            return malformed(c, "the output has too many dims");
        }
        e->out.label[e->out.n++] = (int8_t)l;
    }
    return KILN_OK;
}

static kiln_status check_output(const kiln_infer *c, const equation *e) {
    bool seen[LABELS] = {false};
    int32_t distinct = 0;
    for (int32_t i = 0; i < e->out.n; i++) {
        int32_t l = e->out.label[i];
        if (seen[l] || e->uses[l] == 0) {
            return malformed(c,
                             seen[l] ? "an output index repeats" : "an output index has no input");
        }
        seen[l] = true;
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

/* Parses against the ranks of the inputs, all of which must be known. */
static kiln_status parse(const kiln_infer *c, equation *e) {
    const kiln_einsum_attrs *a = c->attrs;
    const char *s = a->equation ? a->equation : "";
    memset(e, 0, sizeof *e);
    e->n_in = c->n_in;
    KILN_ALLOC(e->in, c->arena, c->n_in);
    for (int32_t i = 0; i < c->n_in; i++) {
        term *t = &e->in[i];
        KILN_TRY(read_term(c, &s, t));
        bool ellipsis = memchr(t->label, (unsigned char)ELLIPSIS, (size_t)t->n) != NULL;
        int32_t extra = kiln_infer_in_rank(c, i) - (t->n - ellipsis);
        if (ellipsis ? extra < 0 : extra != 0) {
            return malformed(c, "a term has another rank than its operand");
        }
        if (!expand(t, extra)) {
            return malformed(c, "an ellipsis stands for too many dims");
        }
        e->ellipsis = extra > e->ellipsis ? extra : e->ellipsis;
        for (int32_t d = 0; d < t->n; d++) {
            e->uses[t->label[d]]++;
        }
        bool more = i + 1 < c->n_in;
        if ((*s == ',') != more) {
            return malformed(c, "the number of terms is not that of the operands");
        }
        s += *s == ',';
    }
    e->has_out = *s == '-';
    if (!e->has_out) {
        KILN_TRY(implicit_output(c, e));
        return check_output(c, e);
    }
    if (s[1] != '>') {
        return malformed(c, "'-' without '>'");
    }
    s += 2;
    KILN_TRY(read_term(c, &s, &e->out));
    if (*s != '\0' || !expand(&e->out, e->ellipsis)) {
        return malformed(c, "the output is not one term");
    }
    return check_output(c, e);
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

/* Labels still needed after operand k: those of later terms and of the output. */
static void needed(const equation *e, int32_t k, bool *have, bool *wanted) {
    bool later[LABELS] = {false};
    for (int32_t i = k + 1; i < e->n_in; i++) {
        for (int32_t d = 0; d < e->in[i].n; d++) {
            later[e->in[i].label[d]] = true;
        }
    }
    for (int32_t d = 0; d < e->out.n; d++) {
        later[e->out.label[d]] = true;
    }
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
        needed(&e, k, have, wanted);
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
};
