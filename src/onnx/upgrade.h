/* upgrade.h - what the files of the upgrade share: rewriting functions and helpers to make nodes.
 *
 * A rewrite takes a node in an older form and either changes it in place (an edit) or emits the
 * nodes that stand for it. New values get fresh names after the node's first output.
 */
#ifndef KILN_ONNX_UPGRADE_H
#define KILN_ONNX_UPGRADE_H

#include "onnx/import.h"

typedef kiln_status kiln_rewrite(kiln_importer *im, kiln_frame *frame, kiln_source *s);

/* ---- rewrite.c: standard operators ---- */

kiln_rewrite kiln_rewrite_softmax;             /* < 13: over all dims from axis on, as one */
kiln_rewrite kiln_rewrite_upsample;            /* -> Resize */
kiln_rewrite kiln_rewrite_dropout_mask;        /* < 10: a mask of the data's type */
kiln_rewrite kiln_rewrite_group_normalization; /* < 21: scale and bias per group */

/* ---- scan8.c ---- */

kiln_rewrite kiln_rewrite_scan_8; /* < 9: over batches of sequences */

/* ---- legacy.c: operators that ONNX removed ---- */

kiln_rewrite kiln_rewrite_image_scaler;
kiln_rewrite kiln_rewrite_parametric_softplus;
kiln_rewrite kiln_rewrite_scaled_tanh;
kiln_rewrite kiln_rewrite_affine;
kiln_rewrite kiln_rewrite_crop;
kiln_rewrite kiln_edit_broadcast; /* < 7: input 1's dims lie along input 0's from `axis` on */
kiln_rewrite kiln_edit_prelu;     /* < 7 */
kiln_rewrite kiln_edit_cast;      /* < 6: the type by name */

/* ---- make.c: helpers ---- */

/* Emits one node of the standard domain with one fresh output, which may replace one of `in`. attr
 * (may be NULL) is an INT. */
kiln_status kiln_make(kiln_importer *im, kiln_frame *frame, const kiln_source *s, const char *op,
                      kiln_value *const *in, int32_t n_in, const char *attr, int64_t attr_value,
                      kiln_value **out);
/* The last node of a rewrite: the same, but it gives the outputs of s. */
kiln_status kiln_make_last(kiln_importer *im, kiln_frame *frame, const kiln_source *s,
                           const char *op, kiln_value *const *in, int32_t n_in, kiln_node **node);
/* An int64 constant: a scalar, or 1-D. */
kiln_status kiln_make_int(kiln_importer *im, const kiln_frame *frame, int64_t v, kiln_value **out);
kiln_status kiln_make_ints(kiln_importer *im, const kiln_frame *frame, const int64_t *v, int64_t n,
                           kiln_value **out);
/* A float32 constant of this shape. */
kiln_status kiln_make_floats(kiln_importer *im, const kiln_frame *frame, const float *v,
                             int32_t rank, const int64_t *dims, kiln_value **out);
/* The same values in the type of `like`, which is not known yet: through CastLike, until
 * settled. */
kiln_status kiln_make_like(kiln_importer *im, kiln_frame *frame, const kiln_source *s,
                           kiln_value *value, kiln_value *like, kiln_value **out);
kiln_status kiln_make_float_like(kiln_importer *im, kiln_frame *frame, const kiln_source *s,
                                 float v, kiln_value *like, kiln_value **out);

#endif
