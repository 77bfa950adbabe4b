/* upgrade.c - nodes of older operator sets in the newest form, by a table.
 *
 * A rule applies to nodes of its operator below its version. Rules of one operator apply in the
 * order of the table; an edit changes the node, a rewrite emits what stands for it and ends the
 * matter.
 */
#include "onnx/upgrade.h"

#include <string.h>

#include "onnx/contrib.h"
#include "ops/ops.h"

/* The version of operators that have a rule in every operator set Kiln reads. */
enum { ALWAYS = KILN_OPSET_MAX + 1 };

typedef enum rule_kind {
    INTS_TO_INPUT,   /* INTS -> 1-D int64 */
    INT_TO_LIST,     /* INT -> int64[1] */
    INT_TO_SCALAR,   /* INT -> int64 scalar, also its default */
    FLOAT_TO_SCALAR, /* FLOAT -> float32 scalar */
    FLOAT_TO_LIKE,   /* FLOAT -> scalar of input 0's type */
    DEFAULT_TEXT,    /* STRING that had another default */
    DEFAULT_INT,
    DEFAULT_FLOAT,
    WORD, /* STRING spelled differently */
    DROP, /* an attribute without effect, if it has this value */
    RENAME,
    EDIT,
    REWRITE,
} rule_kind;

typedef struct rule {
    const char *op;
    int64_t before;
    rule_kind kind;
    const char *attr;
    int64_t number;         /* the input's index; DROP, DEFAULT_INT: the value */
    int64_t int_default;    /* INT_TO_SCALAR */
    float default_float;    /* DEFAULT_FLOAT */
    const char *from, *to;  /* WORD; DEFAULT_TEXT and RENAME: to */
    kiln_rewrite *function; /* EDIT, REWRITE */
} rule;

static kiln_rewrite edit_split, edit_resize, edit_resize_10, edit_batch_norm, edit_scale,
    refuse_old;

/* Operators on two inputs that had their own rule for broadcasting before opset 7. */
#define BROADCAST(op) \
    { op, 7, EDIT, .function = kiln_edit_broadcast }
#define AXES_INPUT(op, before) \
    { op, before, INTS_TO_INPUT, .attr = "axes", .number = 1 }

static const rule rules[] = {
    BROADCAST("Add"),
    BROADCAST("And"),
    BROADCAST("Div"),
    BROADCAST("Equal"),
    BROADCAST("Greater"),
    BROADCAST("Less"),
    BROADCAST("Mul"),
    BROADCAST("Or"),
    BROADCAST("Pow"),
    BROADCAST("Sub"),
    BROADCAST("Xor"),
    {"Affine", ALWAYS, REWRITE, .function = kiln_rewrite_affine},
    {"BatchNormalization", 7, DROP, .attr = "is_test", .number = 1},
    {"BatchNormalization", 9, DROP, .attr = "spatial", .number = 1},
    {"BatchNormalization", 14, EDIT, .function = edit_batch_norm},
    {"Cast", 6, EDIT, .function = kiln_edit_cast},
    {"Clip", 11, FLOAT_TO_LIKE, .attr = "min", .number = 1},
    {"Clip", 11, FLOAT_TO_LIKE, .attr = "max", .number = 2},
    {"Concat", 4, DEFAULT_INT, .attr = "axis", .number = 1},
    {"Crop", ALWAYS, REWRITE, .function = kiln_rewrite_crop},
    {"DequantizeLinear", ALWAYS, EDIT, .function = edit_scale},
    {"DFT", 20, INT_TO_SCALAR, .attr = "axis", .number = 2, .int_default = 1},
    {"Dropout", 7, DROP, .attr = "is_test", .number = 1},
    {"Dropout", 12, FLOAT_TO_SCALAR, .attr = "ratio", .number = 1},
    {"Dropout", 10, REWRITE, .function = kiln_rewrite_dropout_mask},
    {"DynamicSlice", ALWAYS, RENAME, .to = "Slice"},
    {"GridSample", 20, WORD, .attr = "mode", .from = "bilinear", .to = "linear"},
    {"GridSample", 20, WORD, .attr = "mode", .from = "bicubic", .to = "cubic"},
    {"GroupNormalization", 21, REWRITE, .function = kiln_rewrite_group_normalization},
    {"Hardmax", 13, REWRITE, .function = kiln_rewrite_softmax},
    {"ImageScaler", ALWAYS, REWRITE, .function = kiln_rewrite_image_scaler},
    {"LogSoftmax", 13, REWRITE, .function = kiln_rewrite_softmax},
    {"PRelu", 7, EDIT, .function = kiln_edit_prelu},
    {"Pad", 2, INTS_TO_INPUT, .attr = "paddings", .number = 1},
    {"Pad", 11, INTS_TO_INPUT, .attr = "pads", .number = 1},
    {"Pad", 11, FLOAT_TO_LIKE, .attr = "value", .number = 2},
    {"ParametricSoftplus", ALWAYS, REWRITE, .function = kiln_rewrite_parametric_softplus},
    {"QuantizeLinear", ALWAYS, EDIT, .function = edit_scale},
    AXES_INPUT("ReduceL1", 18),
    AXES_INPUT("ReduceL2", 18),
    AXES_INPUT("ReduceLogSum", 18),
    AXES_INPUT("ReduceLogSumExp", 18),
    AXES_INPUT("ReduceMax", 18),
    AXES_INPUT("ReduceMean", 18),
    AXES_INPUT("ReduceMin", 18),
    AXES_INPUT("ReduceProd", 18),
    AXES_INPUT("ReduceSum", 13),
    AXES_INPUT("ReduceSumSquare", 18),
    {"Reshape", 5, INTS_TO_INPUT, .attr = "shape", .number = 1},
    {"Resize", 11, EDIT, .function = edit_resize_10},
    {"Resize", ALWAYS, EDIT, .function = edit_resize},
    {"RoiAlign", 16, DEFAULT_TEXT, .attr = "coordinate_transformation_mode",
     .to = "output_half_pixel"},
    {"ScaledTanh", ALWAYS, REWRITE, .function = kiln_rewrite_scaled_tanh},
    {"Scan", 9, REWRITE, .function = kiln_rewrite_scan_8},
    {"Selu", 6, DEFAULT_FLOAT, .attr = "alpha", .default_float = 1.6732f},
    {"Selu", 6, DEFAULT_FLOAT, .attr = "gamma", .default_float = 1.0507f},
    {"Scatter", ALWAYS, RENAME, .to = "ScatterElements"},
    {"Slice", 10, INTS_TO_INPUT, .attr = "starts", .number = 1},
    {"Slice", 10, INTS_TO_INPUT, .attr = "ends", .number = 2},
    {"Slice", 10, INTS_TO_INPUT, .attr = "axes", .number = 3},
    {"Softmax", 13, REWRITE, .function = kiln_rewrite_softmax},
    {"Split", 13, INTS_TO_INPUT, .attr = "split", .number = 1},
    {"Split", 18, EDIT, .function = edit_split},
    AXES_INPUT("Squeeze", 13),
    {"TopK", 10, INT_TO_LIST, .attr = "k", .number = 1},
    AXES_INPUT("Unsqueeze", 13),
    {"Tile", 6, REWRITE, .function = refuse_old},
    {"Upsample", ALWAYS, REWRITE, .function = kiln_rewrite_upsample},
};

/* Contrib operators that mean the same as the standard operator of that name. */
static const char *const same_in_standard[] = {"DequantizeLinear", "Gelu",  "Pad",
                                               "QuantizeLinear",   "Range", "Trilu"};

/* ---- Edits ---- */

/* Without sizes, Split meant as many equal parts as it has outputs. */
static kiln_status edit_split(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    (void)frame;
    if (s->n_in > 1 && s->in[1]) {
        return KILN_OK;
    }
    return kiln_source_set_int(im, s, "num_outputs", s->n_out);
}

/* Resize of opset 10 was what Upsample had been. */
static kiln_status edit_resize_10(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    kiln_value *scales = s->n_in > 1 ? s->in[1] : NULL;
    (void)frame;
    if (s->n_in != 2 || !scales) {
        return kiln_fail(im->d.diag, KILN_F_ARITY, "Resize needs an input and scales");
    }
    KILN_TRY(kiln_source_set_input(im, s, 2, scales));
    s->in[1] = NULL;
    KILN_TRY(kiln_source_set_text(im, s, "coordinate_transformation_mode", "asymmetric"));
    return kiln_source_set_text(im, s, "nearest_mode", "floor");
}

/* Inputs that had to be there were given as empty tensors: roi, and scales beside sizes. */
static kiln_status edit_resize(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    (void)frame;
    (void)im;
    for (int32_t i = 1; i < s->n_in; i++) {
        if (s->in[i] && s->in[i]->constant && kiln_tensor_count(&s->in[i]->constant->tensor) == 0) {
            s->in[i] = NULL;
        }
    }
    return KILN_OK;
}

/* The outputs behind the first existed for training, as old exporters list them. */
static kiln_status edit_batch_norm(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    (void)frame;
    for (int32_t i = 1; i < s->n_out; i++) {
        if (s->out[i]) {
            KILN_PUSH(&im->lists, im->dropped, im->n_dropped, im->cap_dropped, s->out[i]);
        }
    }
    s->n_out = s->n_out > 1 ? 1 : s->n_out;
    return KILN_OK;
}

/* Exporters have written the scale as the double it was computed in; ONNX knows none of them. */
static kiln_status edit_scale(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    kiln_value *scale = s->n_in > 1 ? s->in[1] : NULL;
    if (!kiln_value_is_const(scale) || scale->type.dtype != KILN_DTYPE_F64) {
        return KILN_OK;
    }
    return kiln_make(im, frame, s, "Cast", &s->in[1], 1, "to", KILN_DTYPE_F32, &s->in[1]);
}

static kiln_status refuse_old(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    (void)frame;
    return kiln_hint(im->d.diag,
                     kiln_fail(im->d.diag, KILN_F_VARIANT,
                               "%s in the form of opset %lld is not supported", s->op,
                               (long long)s->version),
                     "export the model with opset 9 or newer");
}

/* ---- Rules ---- */

/* The attribute as a constant value; *out stays NULL when it is absent. */
static kiln_status attr_value(kiln_importer *im, kiln_frame *frame, kiln_source *s, const rule *r,
                              kiln_value **out) {
    int64_t i;
    float f;
    kiln_ints ints;
    if (r->kind != INT_TO_SCALAR && !kiln_source_attr_find(s, r->attr)) {
        return KILN_OK;
    }
    switch (r->kind) {
    case INTS_TO_INPUT:
        KILN_TRY(kiln_source_ints(im, s, r->attr, &ints));
        return kiln_make_ints(im, frame, ints.v, ints.n, out);
    case INT_TO_LIST:
        KILN_TRY(kiln_source_int(im, s, r->attr, 0, &i));
        return kiln_make_ints(im, frame, &i, 1, out);
    case INT_TO_SCALAR:
        KILN_TRY(kiln_source_int(im, s, r->attr, r->int_default, &i));
        return kiln_make_int(im, frame, i, out);
    case FLOAT_TO_SCALAR:
        KILN_TRY(kiln_source_float(im, s, r->attr, 0, &f));
        return kiln_make_floats(im, frame, &f, 0, NULL, out);
    default:
        KILN_TRY(kiln_source_float(im, s, r->attr, 0, &f));
        return s->n_in > 0 && s->in[0] ? kiln_make_float_like(im, frame, s, f, s->in[0], out)
                                       : KILN_OK;
    }
}

static kiln_status move_to_input(kiln_importer *im, kiln_frame *frame, kiln_source *s,
                                 const rule *r) {
    kiln_value *value = NULL;
    int32_t index = (int32_t)r->number;
    if (index < s->n_in && s->in[index]) {
        return KILN_OK; /* given as an input although the operator set has an attribute */
    }
    KILN_TRY(attr_value(im, frame, s, r, &value));
    if (value) {
        kiln_source_drop(s, r->attr);
        KILN_TRY(kiln_source_set_input(im, s, index, value));
    }
    return KILN_OK;
}

static kiln_status replace_word(kiln_importer *im, kiln_source *s, const rule *r) {
    const char *word;
    KILN_TRY(kiln_source_text(im, s, r->attr, NULL, &word));
    bool applies = r->kind == DEFAULT_TEXT ? !word : word && strcmp(word, r->from) == 0;
    return applies ? kiln_source_set_text(im, s, r->attr, r->to) : KILN_OK;
}

static kiln_status drop(kiln_importer *im, kiln_source *s, const rule *r) {
    int64_t v;
    KILN_TRY(kiln_source_int(im, s, r->attr, r->number, &v));
    if (v != r->number) {
        return kiln_fail(im->d.diag, KILN_F_VARIANT,
                         "attribute \"%s\" = %lld of opset %lld is not supported", r->attr,
                         (long long)v, (long long)s->version);
    }
    kiln_source_drop(s, r->attr);
    return KILN_OK;
}

static kiln_status apply(kiln_importer *im, kiln_frame *frame, kiln_source *s, const rule *r) {
    switch (r->kind) {
    case DEFAULT_TEXT:
    case WORD:
        return replace_word(im, s, r);
    case DEFAULT_INT:
        return kiln_source_attr_find(s, r->attr) ? KILN_OK
                                                 : kiln_source_set_int(im, s, r->attr, r->number);
    case DEFAULT_FLOAT:
        return kiln_source_attr_find(s, r->attr)
                   ? KILN_OK
                   : kiln_source_set_float(im, s, r->attr, r->default_float);
    case DROP:
        return drop(im, s, r);
    case RENAME:
        s->op = r->to;
        return KILN_OK;
    case EDIT:
    case REWRITE:
        return r->function(im, frame, s);
    default:
        return move_to_input(im, frame, s, r);
    }
}

/* A contrib operator for which there is no file of its own, but the standard operator will do. */
static void use_standard(kiln_source *s) {
    if (strcmp(s->domain, "com.microsoft") != 0 || kiln_op_find(s->domain, s->op)) {
        return;
    }
    for (size_t i = 0; i < KILN_COUNT_OF(same_in_standard); i++) {
        if (strcmp(s->op, same_in_standard[i]) == 0) {
            s->domain = "";
            s->version = KILN_OPSET_MAX;
        }
    }
}

kiln_status kiln_upgrade(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    bool touched = false, done;
    KILN_TRY(kiln_contrib_apply(im, frame, s, &done));
    if (done) {
        return KILN_OK;
    }
    use_standard(s);
    for (size_t i = 0; s->domain[0] == 0 && i < KILN_COUNT_OF(rules); i++) {
        const rule *r = &rules[i];
        if (s->version >= r->before || r->op[0] != s->op[0] || strcmp(r->op, s->op) != 0) {
            continue;
        }
        bool older = r->kind != EDIT || r->before != ALWAYS;
        im->out->n_upgraded += older && !touched;
        touched |= older;
        KILN_TRY(apply(im, frame, s, r));
        if (r->kind == REWRITE) {
            return KILN_OK;
        }
    }
    return kiln_emit(im, frame, s, NULL);
}
