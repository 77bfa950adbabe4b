/* tfidf.c - TfIdfVectorizer: counts of known n-grams of integers in each row.
 *
 * The pool lists all 1-grams, then all 2-grams, ...; ngram_counts says where each length begins,
 * and n-gram number i of the pool counts at position ngram_indexes[i] of the output. An n-gram is
 * found with the same gap of 0 to max_skip_count elements between its items; single elements count
 * once. */
#include "ops/util.h"

typedef struct tfidf_attrs {
    int64_t max_gram_length, max_skip_count, min_gram_length;
    int32_t mode;
    kiln_ints ngram_counts, ngram_indexes, pool_int64s;
    kiln_strings pool_strings;
    kiln_floats weights;
} tfidf_attrs;

enum { TF, IDF, TFIDF };
static const char *const modes[] = {"TF", "IDF", "TFIDF", NULL};

static const kiln_attr table[] = {
    KILN_A_INT_REQUIRED(tfidf_attrs, max_gram_length),
    KILN_A_INT_REQUIRED(tfidf_attrs, max_skip_count),
    KILN_A_INT_REQUIRED(tfidf_attrs, min_gram_length),
    {.name = "mode",
     .kind = KILN_ATTR_ENUM,
     .required = true,
     .offset = offsetof(tfidf_attrs, mode),
     .words = modes},
    KILN_A_INTS_REQUIRED(tfidf_attrs, ngram_counts),
    KILN_A_INTS_REQUIRED(tfidf_attrs, ngram_indexes),
    KILN_A_INTS(tfidf_attrs, pool_int64s),
    KILN_A_STRINGS(tfidf_attrs, pool_strings),
    KILN_A_FLOATS(tfidf_attrs, weights),
};

/* Where the n-grams of `length` begin in the pool; the pool's end for lengths past the last. */
static int64_t pool_at(const tfidf_attrs *a, int64_t length) {
    return length <= a->ngram_counts.n ? a->ngram_counts.v[length - 1] : a->pool_int64s.n;
}

/* ---- Inference ---- */

/* The pool divides into n-grams, each with an index. */
static kiln_status check_pool(const kiln_infer *c) {
    const tfidf_attrs *a = c->attrs;
    int64_t grams = 0, pool = a->pool_int64s.n;
    for (int64_t n = 1; n <= a->ngram_counts.n; n++) {
        int64_t at = pool_at(a, n), end = pool_at(a, n + 1);
        if (at < 0 || end < at || end > pool || (end - at) % n != 0 || (n == 1 && at != 0)) {
            return KILN_INFER_FAIL(c, ATTR_VALUE,
                                   "ngram_counts[%lld] is %lld, the pool has %lld items",
                                   (long long)(n - 1), (long long)at, (long long)pool);
        }
        grams += (end - at) / n;
    }
    if (grams != a->ngram_indexes.n || (a->weights.n != 0 && a->weights.n != grams)) {
        return KILN_INFER_FAIL(c, ATTR_VALUE, "%lld n-grams, %lld indexes, %lld weights",
                               (long long)grams, (long long)a->ngram_indexes.n,
                               (long long)a->weights.n);
    }
    return KILN_OK;
}

static kiln_status width(const kiln_infer *c, int64_t *out) {
    const tfidf_attrs *a = c->attrs;
    int64_t greatest = -1;
    for (int64_t i = 0; i < a->ngram_indexes.n; i++) {
        int64_t v = a->ngram_indexes.v[i];
        if (v < 0 || v > INT32_MAX) {
            return KILN_INFER_FAIL(c, ATTR_VALUE, "ngram_indexes[%lld] is %lld", (long long)i,
                                   (long long)v);
        }
        greatest = v > greatest ? v : greatest;
    }
    *out = greatest + 1;
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    const tfidf_attrs *a = c->attrs;
    int32_t rank = kiln_infer_in_rank(c, 0);
    int64_t n = 0;
    if (a->pool_strings.v) {
        return KILN_INFER_FAIL(c, VARIANT, "n-grams of strings are not supported");
    }
    if (a->min_gram_length < 1 || a->max_gram_length < a->min_gram_length ||
        a->max_skip_count < 0 || a->max_gram_length > a->ngram_counts.n ||
        a->max_skip_count > INT32_MAX) {
        return KILN_INFER_FAIL(
            c, ATTR_VALUE,
            "n-grams of %lld to %lld items with up to %lld skipped, the pool has lengths "
            "up to %lld",
            (long long)a->min_gram_length, (long long)a->max_gram_length,
            (long long)a->max_skip_count, (long long)a->ngram_counts.n);
    }
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_INDEX));
    KILN_TRY(kiln_infer_rank(c, 0, 0, 2));
    KILN_TRY(check_pool(c));
    KILN_TRY(width(c, &n));
    kiln_dim *dims = kiln_infer_dims(c, 0, KILN_DTYPE_F32, rank < 0 ? rank : rank == 2 ? 2 : 1);
    if (!dims) {
        return KILN_E_MEMORY;
    }
    if (rank >= 0) {
        dims[0] = rank == 2 ? kiln_infer_dim(c, 0, 0) : n;
        dims[rank == 2] = n;
    }
    return KILN_OK;
}

/* ---- Reference ---- */

/* Counts every n-gram of the pool that row[0], row[step], ... begins. */
static void count_at(const tfidf_attrs *a, const int64_t *row, int64_t left, int64_t step,
                     int64_t least, double *counts) {
    int64_t number = 0;
    for (int64_t n = 1; n <= a->max_gram_length; n++) {
        int64_t at = pool_at(a, n), end = pool_at(a, n + 1);
        for (; at < end; at += n, number++) {
            const int64_t *gram = a->pool_int64s.v + at;
            bool same = n >= least && (n - 1) * step < left;
            for (int64_t i = 0; same && i < n; i++) {
                same = row[i * step] == gram[i];
            }
            counts[a->ngram_indexes.v[number]] += same;
        }
    }
}

static void count_row(const tfidf_attrs *a, const int64_t *row, int64_t n, double *counts) {
    int64_t least = a->min_gram_length;
    for (int64_t step = 1; step <= a->max_skip_count + 1 && least <= a->max_gram_length; step++) {
        for (int64_t i = 0; i < n; i++) {
            count_at(a, row + i, n - i, step, least, counts);
        }
        least += least == 1;
    }
}

static kiln_status ref(kiln_ref *c) {
    const tfidf_attrs *a = c->attrs;
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    int64_t rows = x->rank == 2 ? x->dims[0] : 1, size = y->dims[y->rank - 1];
    int64_t n = x->rank == 0 ? 1 : x->dims[x->rank - 1], *v;
    double *counts;
    float *out = y->data;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    KILN_TRY(kiln_ref_ints(c, x, &v));
    KILN_ALLOC(counts, c->arena, size);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < size; i++) {
            counts[i] = 0;
        }
        count_row(a, v + r * n, n, counts);
        for (int64_t i = 0; i < size; i++) {
            double weight = a->mode == TF || i >= a->weights.n ? 1 : (double)a->weights.v[i];
            double k = a->mode == IDF ? counts[i] > 0 : counts[i];
            out[r * size + i] = (float)(weight * k);
        }
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_tfidf_vectorizer = {
    .name = "TfIdfVectorizer",
    .domain = "",
    .since = 9,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, tfidf_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
