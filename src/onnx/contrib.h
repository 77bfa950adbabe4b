/* contrib.h - operators of com.microsoft in terms of standard ones.
 *
 * ONNX Runtime's optimizer and quantizer write fused and quantized operators of their own. Most are
 * standard operators put together, and become those again here, so that passes and kernels see one
 * form: quantized ones turn into DequantizeLinear, the operator, QuantizeLinear. Operators that
 * cannot be said like this have a descriptor in ops/ (kiln_op_ms_...).
 *
 * A rewrite builds its nodes with a kiln_contrib, which remembers the first failure: calls after it
 * do nothing and return NULL, and the status is read once, at the end. Attributes are given before
 * the node they belong to:
 *
 *     kiln_value *sum = KILN_CONTRIB_NODE(c, "Add", x, bias);
 *     kiln_contrib_text(c, "approximate", "tanh");
 *     KILN_CONTRIB_LAST(c, "Gelu", sum);
 *
 * Every attribute of the node must have been read, else the rewrite is refused: nothing is ignored
 * by accident. */
#ifndef KILN_ONNX_CONTRIB_H
#define KILN_ONNX_CONTRIB_H

#include "onnx/upgrade.h"

enum { KILN_CONTRIB_ATTRS = 12 };

typedef struct kiln_contrib_attr {
    const char *name;
    kiln_attr_kind kind; /* INT, FLOAT, STRING, INTS */
    int64_t i;
    float f;
    const char *text;
    kiln_ints ints;
} kiln_contrib_attr;

typedef struct kiln_contrib {
    kiln_importer *im;
    kiln_frame *frame;
    kiln_source *s;
    kiln_status status;
    kiln_contrib_attr attrs[KILN_CONTRIB_ATTRS]; /* of the next node */
    int32_t n_attrs;
    const char *domain; /* of the next node; NULL: the standard one */
} kiln_contrib;

typedef void kiln_contrib_rewrite(kiln_contrib *c);

/* Rewrites the node if there is a rule for it; *done says whether. */
kiln_status kiln_contrib_apply(kiln_importer *im, kiln_frame *frame, kiln_source *s, bool *done);

/* ---- For rewrites ---- */

/* Input i, or NULL when it is left out. kiln_contrib_need fails then. */
kiln_value *kiln_contrib_in(const kiln_contrib *c, int32_t i);
kiln_value *kiln_contrib_need(kiln_contrib *c, int32_t i);
/* Attributes of the node that is rewritten. */
int64_t kiln_contrib_get_int(kiln_contrib *c, const char *name, int64_t def);
float kiln_contrib_get_float(kiln_contrib *c, const char *name, float def);
const char *kiln_contrib_get_text(kiln_contrib *c, const char *name, const char *def);
kiln_ints kiln_contrib_get_ints(kiln_contrib *c, const char *name);
kiln_floats kiln_contrib_get_floats(kiln_contrib *c, const char *name);
/* Refuses the node: `why` completes "… is not supported". */
void kiln_contrib_refuse(kiln_contrib *c, const char *why);

/* Attributes of the next node. */
void kiln_contrib_int(kiln_contrib *c, const char *name, int64_t v);
void kiln_contrib_float(kiln_contrib *c, const char *name, float v);
void kiln_contrib_text(kiln_contrib *c, const char *name, const char *v);
void kiln_contrib_ints(kiln_contrib *c, const char *name,
                       kiln_ints v); /* nothing when v.v is NULL */

/* A node of the standard domain with n_out fresh outputs, or those given in out where not NULL. */
void kiln_contrib_emit(kiln_contrib *c, const char *op, kiln_value *const *in, int32_t n_in,
                       kiln_value **out, int32_t n_out);
/* The same with one fresh output, which is returned. */
kiln_value *kiln_contrib_node(kiln_contrib *c, const char *op, kiln_value *const *in, int32_t n_in);
/* The same, giving output 0 of the node that is rewritten. */
void kiln_contrib_last(kiln_contrib *c, const char *op, kiln_value *const *in, int32_t n_in);

/* Output i of the node is not computed; a model that uses it is refused. */
void kiln_contrib_unused(kiln_contrib *c, int32_t i);

/* Constants: int64 list, float32 scalar in the type of `like`. */
kiln_value *kiln_contrib_list(kiln_contrib *c, const int64_t *v, int64_t n);
kiln_value *kiln_contrib_scalar_like(kiln_contrib *c, float v, kiln_value *like);

#define KILN_CONTRIB_IN(...) \
    (kiln_value *[]){__VA_ARGS__}, (int32_t)KILN_COUNT_OF(((kiln_value *[]){__VA_ARGS__}))
#define KILN_CONTRIB_NODE(c, op, ...) kiln_contrib_node((c), (op), KILN_CONTRIB_IN(__VA_ARGS__))
#define KILN_CONTRIB_LAST(c, op, ...) kiln_contrib_last((c), (op), KILN_CONTRIB_IN(__VA_ARGS__))

/* a + b, or a when b is NULL. */
kiln_value *kiln_contrib_add(kiln_contrib *c, kiln_value *a, kiln_value *b);
/* Channels of x moved: from the last dim to the second, or back; `spatial` dims between. */
kiln_value *kiln_contrib_to_nchw(kiln_contrib *c, kiln_value *x, int64_t spatial);
void kiln_contrib_last_to_nhwc(kiln_contrib *c, kiln_value *x, int64_t spatial);

/* contrib_quant.c */
kiln_contrib_rewrite kiln_contrib_qlinear_binary, kiln_contrib_qlinear_unary,
    kiln_contrib_qlinear_where, kiln_contrib_qlinear_concat, kiln_contrib_qlinear_softmax,
    kiln_contrib_qlinear_reduce_mean, kiln_contrib_qlinear_average_pool,
    kiln_contrib_qlinear_global_pool, kiln_contrib_qlinear_conv, kiln_contrib_qgemm,
    kiln_contrib_matmul_integer_to_float, kiln_contrib_dynamic_quantize_matmul,
    kiln_contrib_nhwc_max_pool, kiln_contrib_qattention, kiln_contrib_dynamic_quantize_lstm;

#endif
