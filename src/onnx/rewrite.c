/* rewrite.c - older forms of standard operators that take more than moving an attribute. */
#include <string.h>

#include "onnx/upgrade.h"

/* Before opset 13 Softmax, LogSoftmax and Hardmax saw their input as a matrix [dims before axis,
 * the rest]: Flatten, the operator along the rows, and the shape back. Where the axis turns out to
 * be the last, settle.c leaves the operator alone. */
kiln_status kiln_rewrite_softmax(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    int64_t axis;
    kiln_value *x = s->n_in > 0 ? s->in[0] : NULL, *flat, *shape, *rows;
    kiln_node *reshape;
    KILN_TRY(kiln_source_int(im, s, "axis", 1, &axis));
    if (axis == -1 || !x || s->n_out != 1) {
        KILN_TRY(kiln_source_set_int(im, s, "axis", axis));
        return kiln_emit(im, frame, s, NULL);
    }
    size_t first = frame->graph->n_nodes;
    KILN_TRY(kiln_make(im, frame, s, "Flatten", &x, 1, "axis", axis, &flat));
    KILN_TRY(kiln_make(im, frame, s, s->op, &flat, 1, "axis", -1, &rows));
    KILN_TRY(kiln_make(im, frame, s, "Shape", &x, 1, NULL, 0, &shape));
    kiln_value *in[] = {rows, shape};
    KILN_TRY(kiln_make_last(im, frame, s, "Reshape", in, 2, &reshape));
    if (frame->graph->n_nodes == first + 4) {
        kiln_unsettled u = {
            .graph = frame->graph, .node = reshape, .first = frame->graph->nodes[first]};
        KILN_PUSH(&im->lists, im->unsettled, im->n_unsettled, im->cap_unsettled, u);
    }
    return KILN_OK;
}

/* Upsample is Resize with scales, corners aligned at zero (asymmetric) and the pixel below for
 * nearest. */
kiln_status kiln_rewrite_upsample(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    const char *mode;
    kiln_value *scales = s->n_in > 1 ? s->in[1] : NULL;
    kiln_source made;
    KILN_TRY(kiln_source_text(im, s, "mode", "nearest", &mode));
    if (s->version < 7) {
        const int64_t four = 4;
        float v[] = {1, 1, 1, 1};
        KILN_TRY(kiln_source_float(im, s, "height_scale", 1, &v[2]));
        KILN_TRY(kiln_source_float(im, s, "width_scale", 1, &v[3]));
        KILN_TRY(kiln_make_floats(im, frame, v, 1, &four, &scales));
    } else if (s->version < 9) {
        kiln_floats v;
        KILN_TRY(kiln_source_floats(im, s, "scales", &v));
        KILN_TRY(kiln_make_floats(im, frame, v.v, 1, &v.n, &scales));
    }
    if (s->n_in < 1 || !s->in[0] || !scales) {
        return kiln_fail(im->d.diag, KILN_F_ARITY, "Upsample needs an input and scales");
    }
    kiln_value *in[] = {s->in[0], NULL, scales};
    KILN_TRY(kiln_source_make(im, s, "Resize", in, 3, s->out, s->n_out, &made));
    KILN_TRY(
        kiln_source_set_text(im, &made, "mode", strcmp(mode, "bilinear") == 0 ? "linear" : mode));
    KILN_TRY(kiln_source_set_text(im, &made, "coordinate_transformation_mode", "asymmetric"));
    KILN_TRY(kiln_source_set_text(im, &made, "nearest_mode", "floor"));
    return kiln_emit(im, frame, &made, NULL);
}

/* The mask was of the data's type before it became boolean. */
kiln_status kiln_rewrite_dropout_mask(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    kiln_value *mask = s->n_out > 1 ? s->out[1] : NULL;
    kiln_source cast;
    if (!mask || s->n_in < 1 || !s->in[0]) {
        return kiln_emit(im, frame, s, NULL);
    }
    KILN_TRY(kiln_graph_value(&s->out[1], frame->graph, NULL));
    kiln_value *in[] = {s->out[1], s->in[0]};
    KILN_TRY(kiln_emit(im, frame, s, NULL));
    KILN_TRY(kiln_source_make(im, s, "CastLike", in, 2, &mask, 1, &cast));
    return kiln_emit(im, frame, &cast, NULL);
}

/* scale or bias of [groups] to [channels]: each element repeated for the channels of its group.
 * `spread` is the shape [groups, channels per group]. */
static kiln_status per_channel(kiln_importer *im, kiln_frame *frame, const kiln_source *s,
                               kiln_value *value, kiln_value *spread, kiln_value **out) {
    const int64_t one = 1, all = -1;
    kiln_value *axis, *flat;
    KILN_TRY(kiln_make_ints(im, frame, &one, 1, &axis));
    KILN_TRY(kiln_make_ints(im, frame, &all, 1, &flat));
    kiln_value *column[] = {value, axis};
    KILN_TRY(kiln_make(im, frame, s, "Unsqueeze", column, 2, NULL, 0, &column[0]));
    kiln_value *wide[] = {column[0], spread};
    KILN_TRY(kiln_make(im, frame, s, "Expand", wide, 2, NULL, 0, &wide[0]));
    kiln_value *last[] = {wide[0], flat};
    return kiln_make(im, frame, s, "Reshape", last, 2, NULL, 0, out);
}

kiln_status kiln_rewrite_group_normalization(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    int64_t groups;
    kiln_value *count, *channels, *spread;
    kiln_source shape;
    KILN_TRY(kiln_source_int(im, s, "num_groups", 0, &groups));
    if (s->n_in != 3 || !s->in[0] || !s->in[1] || !s->in[2] || groups < 1) {
        return kiln_emit(im, frame, s, NULL);
    }
    KILN_TRY(kiln_make_ints(im, frame, &groups, 1, &count));
    KILN_TRY(kiln_graph_value(&channels, frame->graph, NULL));
    KILN_TRY(kiln_source_make(im, s, "Shape", &s->in[0], 1, &channels, 1, &shape));
    KILN_TRY(kiln_source_set_int(im, &shape, "start", 1));
    KILN_TRY(kiln_source_set_int(im, &shape, "end", 2));
    KILN_TRY(kiln_emit(im, frame, &shape, NULL));
    kiln_value *per[] = {channels, count};
    KILN_TRY(kiln_make(im, frame, s, "Div", per, 2, NULL, 0, &per[1]));
    kiln_value *both[] = {count, per[1]};
    KILN_TRY(kiln_make(im, frame, s, "Concat", both, 2, "axis", 0, &spread));
    KILN_TRY(per_channel(im, frame, s, s->in[1], spread, &s->in[1]));
    KILN_TRY(per_channel(im, frame, s, s->in[2], spread, &s->in[2]));
    return kiln_emit(im, frame, s, NULL);
}
