/* conv.c - Conv: cross-correlation in 1 to 6 spatial dims, groups, dilation, padding. */
#include "ops/bulk.h"
#include "ops/conv_core.h"

static kiln_status infer(kiln_infer *c) {
    kiln_dim channels;
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_FLOAT));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 1));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 2));
    KILN_TRY(kiln_conv_infer(c, 0, 1, c->in[0].type.dtype, &channels));
    return kiln_infer_vector(c, 2, channels, "the bias");
}

static kiln_status ref(kiln_ref *c) {
    const kiln_conv_attrs *a = c->attrs;
    const kiln_tensor *bias = kiln_ref_in(c, 2);
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_conv_job job = {.x = kiln_ref_in(c, 0), .w = kiln_ref_in(c, 1), .group = a->group};
    if (kiln_tensor_count(y) == 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_conv_window(&job.win, a, job.x, job.w, y, c->diag));
    int64_t outputs = y->dims[1], plane = job.win.out_count, image = outputs * plane;
    kiln_arena_mark mark = kiln_arena_here(c->arena);
    double *acc;
    KILN_ALLOC(job.plane, c->arena, job.win.in_count);
    KILN_ALLOC(acc, c->arena, image);
    for (int64_t n = 0; n < y->dims[0]; n++) {
        for (int64_t i = 0; i < image; i++) {
            acc[i] = bias ? kiln_get_f64(bias->dtype, bias->data, i / plane) : 0;
        }
        KILN_TRY(kiln_conv_image(c, &job, n, acc));
        kiln_store_f64(y, n * image, image, acc);
    }
    kiln_arena_rewind(c->arena, mark);
    return KILN_OK;
}

const kiln_op kiln_op_conv = {
    .name = "Conv",
    .domain = "",
    .since = 22,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    KILN_OP_ATTRS(kiln_conv_table, kiln_conv_attrs),
    .tolerance = KILN_TOL_REDUCE,
    .infer = infer,
    .ref = ref,
    .cost = kiln_conv_cost,
};
