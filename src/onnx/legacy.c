/* legacy.c - operators that ONNX removed before its version 1.5 and old exporters still wrote, and
 * forms from before opset 7, in terms of what there is today. */
#include <string.h>

#include "onnx/upgrade.h"

static kiln_status need_inputs(kiln_importer *im, const kiln_source *s, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        if (i >= s->n_in || !s->in[i]) {
            return kiln_fail(im->d.diag, KILN_F_ARITY, "input %d is left out, but required", i);
        }
    }
    return s->n_out == 1 ? KILN_OK
                         : kiln_fail(im->d.diag, KILN_F_ARITY,
                                     "has %d outputs, the operator gives 1", s->n_out);
}

/* x * scale + bias, with one bias per channel. */
kiln_status kiln_rewrite_image_scaler(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    float scale;
    kiln_floats bias;
    kiln_value *by, *add;
    KILN_TRY(need_inputs(im, s, 1));
    KILN_TRY(kiln_source_float(im, s, "scale", 1.0f, &scale));
    KILN_TRY(kiln_source_floats(im, s, "bias", &bias));
    KILN_TRY(kiln_make_float_like(im, frame, s, scale, s->in[0], &by));
    kiln_value *mul[] = {s->in[0], by};
    if (!bias.v) {
        return kiln_make_last(im, frame, s, "Mul", mul, 2, NULL);
    }
    const int64_t dims[] = {1, bias.n, 1, 1};
    KILN_TRY(kiln_make(im, frame, s, "Mul", mul, 2, NULL, 0, &mul[0]));
    KILN_TRY(kiln_make_floats(im, frame, bias.v, 4, dims, &add));
    KILN_TRY(kiln_make_like(im, frame, s, add, s->in[0], &mul[1]));
    return kiln_make_last(im, frame, s, "Add", mul, 2, NULL);
}

/* alpha * f(beta * x). */
static kiln_status scaled(kiln_importer *im, kiln_frame *frame, kiln_source *s, const char *op) {
    float alpha, beta;
    kiln_value *x[2];
    KILN_TRY(need_inputs(im, s, 1));
    KILN_TRY(kiln_source_float(im, s, "alpha", 1.0f, &alpha));
    KILN_TRY(kiln_source_float(im, s, "beta", 1.0f, &beta));
    x[0] = s->in[0];
    KILN_TRY(kiln_make_float_like(im, frame, s, beta, s->in[0], &x[1]));
    KILN_TRY(kiln_make(im, frame, s, "Mul", x, 2, NULL, 0, &x[0]));
    KILN_TRY(kiln_make(im, frame, s, op, x, 1, NULL, 0, &x[0]));
    KILN_TRY(kiln_make_float_like(im, frame, s, alpha, s->in[0], &x[1]));
    return kiln_make_last(im, frame, s, "Mul", x, 2, NULL);
}

kiln_status kiln_rewrite_parametric_softplus(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    return scaled(im, frame, s, "Softplus");
}

kiln_status kiln_rewrite_scaled_tanh(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    return scaled(im, frame, s, "Tanh");
}

/* alpha * x + beta. */
kiln_status kiln_rewrite_affine(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    float alpha, beta;
    kiln_value *x[2];
    KILN_TRY(need_inputs(im, s, 1));
    KILN_TRY(kiln_source_float(im, s, "alpha", 1.0f, &alpha));
    KILN_TRY(kiln_source_float(im, s, "beta", 0.0f, &beta));
    x[0] = s->in[0];
    KILN_TRY(kiln_make_float_like(im, frame, s, alpha, s->in[0], &x[1]));
    KILN_TRY(kiln_make(im, frame, s, "Mul", x, 2, NULL, 0, &x[0]));
    KILN_TRY(kiln_make_float_like(im, frame, s, beta, s->in[0], &x[1]));
    return kiln_make_last(im, frame, s, "Add", x, 2, NULL);
}

/* Cuts `border` (left, top, right, bottom) off the last two of four dims; with `scale` (height,
 * width) the size is given instead of right and bottom. */
kiln_status kiln_rewrite_crop(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    kiln_ints border, scale;
    const int64_t axes[] = {2, 3};
    int64_t starts[2], ends[2];
    kiln_value *in[4];
    KILN_TRY(need_inputs(im, s, 1));
    KILN_TRY(kiln_source_ints(im, s, "border", &border));
    KILN_TRY(kiln_source_ints(im, s, "scale", &scale));
    const int64_t limit = INT32_MAX;
    bool fits = border.n == 4 && (scale.n == 0 || scale.n == 2);
    for (int64_t i = 0; fits && i < border.n; i++) {
        fits = border.v[i] >= 0 && border.v[i] <= limit;
    }
    for (int64_t i = 0; fits && i < scale.n; i++) {
        fits = scale.v[i] >= 0 && scale.v[i] <= limit;
    }
    if (!fits) {
        return kiln_fail(im->d.diag, KILN_F_ATTR_VALUE,
                         "Crop needs four borders and no or two scales");
    }
    for (int i = 0; i < 2; i++) {
        int64_t cut = border.v[3 - i];
        starts[i] = border.v[1 - i];
        ends[i] = scale.n ? starts[i] + scale.v[i] : cut ? -cut : INT64_MAX;
    }
    in[0] = s->in[0];
    KILN_TRY(kiln_make_ints(im, frame, starts, 2, &in[1]));
    KILN_TRY(kiln_make_ints(im, frame, ends, 2, &in[2]));
    KILN_TRY(kiln_make_ints(im, frame, axes, 2, &in[3]));
    return kiln_make_last(im, frame, s, "Slice", in, 4, NULL);
}

/* Input 1 gets ones behind its dims, as many as input 0 has behind the place where it lies:
 * rank(a) - axis - rank(b), by operators, for no rank is known yet. Without an axis the dims end
 * together, as they still do. */
kiln_status kiln_edit_broadcast(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    int64_t broadcast, axis;
    const int64_t one = 1;
    kiln_value *shape, *rank[2], *count[2], *ones[2];
    KILN_TRY(kiln_source_int(im, s, "broadcast", 0, &broadcast));
    KILN_TRY(kiln_source_int(im, s, "axis", KILN_ABSENT, &axis));
    kiln_source_drop(s, "broadcast");
    kiln_source_drop(s, "axis");
    if (!broadcast || axis == KILN_ABSENT || s->n_in != 2 || !s->in[0] || !s->in[1]) {
        return KILN_OK;
    }
    if (axis < 0) {
        return kiln_fail(im->d.diag, KILN_F_VARIANT, "axis %lld of opset %lld is not supported",
                         (long long)axis, (long long)s->version);
    }
    for (int i = 0; i < 2; i++) {
        KILN_TRY(kiln_make(im, frame, s, "Shape", &s->in[i], 1, NULL, 0, &shape));
        KILN_TRY(kiln_make(im, frame, s, "Shape", &shape, 1, NULL, 0, &rank[i]));
    }
    KILN_TRY(kiln_make(im, frame, s, "Sub", rank, 2, NULL, 0, &count[0]));
    KILN_TRY(kiln_make_ints(im, frame, &axis, 1, &count[1]));
    KILN_TRY(kiln_make(im, frame, s, "Sub", count, 2, NULL, 0, &ones[1]));
    KILN_TRY(kiln_make_ints(im, frame, &one, 1, &ones[0]));
    kiln_value *parts[] = {shape, NULL};
    KILN_TRY(kiln_make(im, frame, s, "Expand", ones, 2, NULL, 0, &parts[1]));
    kiln_value *in[] = {s->in[1], NULL};
    KILN_TRY(kiln_make(im, frame, s, "Concat", parts, 2, "axis", 0, &in[1]));
    return kiln_make(im, frame, s, "Reshape", in, 2, NULL, 0, &s->in[1]);
}

/* The slope of PRelu went along the channels, unless it is one number. */
kiln_status kiln_edit_prelu(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    const kiln_value *slope = s->n_in > 1 ? s->in[1] : NULL;
    if (!slope || (slope->constant && kiln_tensor_count(&slope->constant->tensor) == 1)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_source_set_int(im, s, "broadcast", 1));
    KILN_TRY(kiln_source_set_int(im, s, "axis", 1));
    return kiln_edit_broadcast(im, frame, s);
}

/* "FLOAT", as TensorProto.DataType spells it. */
kiln_status kiln_edit_cast(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    static const struct {
        const char *name;
        kiln_dtype dtype;
    } names[] = {
        {"FLOAT", KILN_DTYPE_F32},  {"FLOAT16", KILN_DTYPE_F16}, {"DOUBLE", KILN_DTYPE_F64},
        {"INT8", KILN_DTYPE_I8},    {"INT16", KILN_DTYPE_I16},   {"INT32", KILN_DTYPE_I32},
        {"INT64", KILN_DTYPE_I64},  {"UINT8", KILN_DTYPE_U8},    {"UINT16", KILN_DTYPE_U16},
        {"UINT32", KILN_DTYPE_U32}, {"UINT64", KILN_DTYPE_U64},  {"BOOL", KILN_DTYPE_BOOL}};
    const char *to;
    (void)frame;
    KILN_TRY(kiln_source_text(im, s, "to", "", &to));
    for (size_t i = 0; i < KILN_COUNT_OF(names); i++) {
        if (strcmp(to, names[i].name) == 0) {
            return kiln_source_set_int(im, s, "to", names[i].dtype);
        }
    }
    return kiln_fail(im->d.diag, KILN_F_DTYPE_UNKNOWN, "element type \"%s\" is not one Kiln holds",
                     to);
}
