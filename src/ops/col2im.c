/* col2im.c - Col2Im: columns of image blocks added back into images. */
#include "ops/index.h"

typedef struct col2im_attrs {
    kiln_ints dilations, pads, strides;
} col2im_attrs;

static const kiln_attr table[] = {
    KILN_A_INTS(col2im_attrs, dilations),
    KILN_A_INTS(col2im_attrs, pads),
    KILN_A_INTS(col2im_attrs, strides),
};

/* One spatial axis. */
typedef struct axis {
    int64_t image, block, dilation, stride, pad, blocks; /* blocks: how many fit the padded image */
} axis;

static int64_t attr_at(const kiln_ints *v, int64_t i, int64_t otherwise) {
    return v->v ? v->v[i] : otherwise;
}

static kiln_status read_axis(kiln_diag *diag, const col2im_attrs *a, int64_t n, int64_t i,
                             axis *x) {
    x->dilation = attr_at(&a->dilations, i, 1);
    x->stride = attr_at(&a->strides, i, 1);
    x->pad = attr_at(&a->pads, i, 0);
    int64_t end = attr_at(&a->pads, i + n, 0), reach, size;
    bool ok = x->image >= 0 && x->block > 0 && x->dilation > 0 && x->stride > 0 && x->pad >= 0 &&
              end >= 0;
    ok = ok && kiln_mul_i64(x->dilation, x->block - 1, &reach) &&
         kiln_add_i64(x->image, x->pad, &size) && kiln_add_i64(size, end, &size) &&
         reach < INT64_MAX && size - (reach + 1) >= 0;
    if (!ok) {
        return kiln_fail(
            diag, KILN_F_ATTR_VALUE,
            "axis %lld: an image of %lld cannot be made of blocks of %lld (dilation %lld, "
            "stride %lld, pads %lld and %lld)",
            (long long)i, (long long)x->image, (long long)x->block, (long long)x->dilation,
            (long long)x->stride, (long long)x->pad, (long long)end);
    }
    x->blocks = (size - (reach + 1)) / x->stride + 1;
    return KILN_OK;
}

static kiln_status read_axes(kiln_diag *diag, const col2im_attrs *a, const int64_t *image,
                             const int64_t *block, int64_t n, axis *axes) {
    for (int64_t i = 0; i < n; i++) {
        axes[i].image = image[i];
        axes[i].block = block[i];
        KILN_TRY(read_axis(diag, a, n, i, &axes[i]));
    }
    return KILN_OK;
}

static kiln_status check_sizes(kiln_infer *c, const axis *axes, int64_t n, kiln_dim *out) {
    int64_t block = 1, columns = 1;
    for (int64_t i = 0; i < n; i++) {
        if (!kiln_mul_i64(block, axes[i].block, &block) ||
            !kiln_mul_i64(columns, axes[i].blocks, &columns)) {
            return KILN_INFER_FAIL(c, OVERFLOW, "the blocks are too large to count");
        }
        out[2 + i] = axes[i].image;
    }
    kiln_dim rows = kiln_infer_dim(c, 0, 1), have = kiln_infer_dim(c, 0, 2);
    if ((kiln_dim_known(rows) && rows % block != 0) || kiln_dim_differ(have, columns)) {
        return KILN_INFER_FAIL(
            c, SHAPE, "the input is %lld x %lld, needs a multiple of %lld x %lld", (long long)rows,
            (long long)have, (long long)block, (long long)columns);
    }
    out[1] = kiln_dim_div(c->dims, rows, block);
    return KILN_OK;
}

static kiln_status infer(kiln_infer *c) {
    const col2im_attrs *a = c->attrs;
    const int64_t *image, *block;
    int64_t n_image, n_block, n = kiln_infer_length(c, 1);
    KILN_TRY(kiln_infer_rank(c, 0, 3, 3));
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_NUMBER | KILN_T(BOOL)));
    KILN_TRY(kiln_infer_dtype(c, 1, KILN_T(I64)));
    KILN_TRY(kiln_infer_dtype(c, 2, KILN_T(I64)));
    n = n < 0 ? kiln_infer_length(c, 2) : n;
    if (n == 0 || n > KILN_MAX_RANK - 2 ||
        (n > 0 && ((a->dilations.v && a->dilations.n != n) || (a->strides.v && a->strides.n != n) ||
                   (a->pads.v && a->pads.n != 2 * n)))) {
        return KILN_INFER_FAIL(c, SHAPE, "the attributes do not fit %lld spatial axes",
                               (long long)n);
    }
    KILN_TRY(kiln_infer_ints(c, 1, &image, &n_image));
    KILN_TRY(kiln_infer_ints(c, 2, &block, &n_block));
    kiln_dim *out =
        kiln_infer_dims(c, 0, c->in[0].type.dtype, n < 0 ? KILN_RANK_UNKNOWN : (int32_t)n + 2);
    if (!out) {
        return KILN_E_MEMORY;
    }
    if (n < 0) {
        return KILN_OK;
    }
    out[0] = kiln_infer_dim(c, 0, 0);
    if (!image || !block) {
        return KILN_OK;
    }
    if (n_image != n_block) {
        return KILN_INFER_FAIL(c, SHAPE, "image_shape has %lld entries, block_shape %lld",
                               (long long)n_image, (long long)n_block);
    }
    axis axes[KILN_MAX_RANK];
    KILN_TRY(read_axes(c->diag, a, image, block, n, axes));
    return check_sizes(c, axes, n, out);
}

/* Adds one row of columns, the block element at offset[], into the image at `base`. */
static void add_row(const kiln_tensor *x, int64_t row, const axis *axes, int32_t n,
                    const int64_t *offset, kiln_tensor *y, int64_t base) {
    kiln_walk w;
    int64_t blocks[KILN_MAX_RANK], i = row;
    for (int32_t d = 0; d < n; d++) {
        blocks[d] = axes[d].blocks;
    }
    kiln_walk_init(&w, blocks, n);
    do {
        int64_t at = 0;
        bool inside = true;
        for (int32_t d = 0; d < n; d++) {
            int64_t p = w.idx[d] * axes[d].stride - axes[d].pad + offset[d] * axes[d].dilation;
            inside = inside && p >= 0 && p < axes[d].image;
            at = at * axes[d].image + p;
        }
        if (inside && kiln_dtype_is_float(y->dtype)) {
            double sum =
                kiln_get_f64(y->dtype, y->data, base + at) + kiln_get_f64(x->dtype, x->data, i);
            kiln_set_f64(y->dtype, y->data, base + at, sum);
        } else if (inside) {
            uint64_t sum = (uint64_t)kiln_get_i64(y->dtype, y->data, base + at);
            sum += (uint64_t)kiln_get_i64(x->dtype, x->data, i);
            kiln_set_i64(y->dtype, y->data, base + at, (int64_t)sum);
        }
        i++;
    } while (kiln_walk_next(&w));
}

static kiln_status ref(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0), *image = kiln_ref_in(c, 1),
                      *block = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    axis axes[KILN_MAX_RANK];
    int32_t n = y->rank - 2;
    KILN_TRY(read_axes(c->diag, c->attrs, image->data, block->data, n, axes));
    int64_t plane = kiln_index_span(y->dims + 2, n), columns = x->dims[2];
    int64_t images = y->dims[0] * y->dims[1], row = 0;
    for (int64_t i = 0; i < images; i++) {
        kiln_walk w;
        kiln_walk_init(&w, block->data, n);
        do {
            add_row(x, row, axes, n, w.idx, y, i * plane);
            row += columns;
        } while (kiln_walk_next(&w));
    }
    return KILN_OK;
}

const kiln_op kiln_op_col2im = {
    .name = "Col2Im",
    .domain = "",
    .since = 18,
    .min_in = 3,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(table, col2im_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
};
