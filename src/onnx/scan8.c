/* scan8.c - Scan as opset 8 had it: over batches, each with a scan of its own.
 *
 * States were [batch, ...], scan inputs and outputs [batch, sequence, ...], and the body saw
 * neither of the two axes. The modern form is a Scan within a Scan: the outer one takes states
 * and sequences of one batch after the other as slices of axis 0 and has no state; the inner one
 * is the modern Scan of a sequence, with the node's own body. Only the optional lengths of the
 * sequences have no such form. */
#include "onnx/upgrade.h"

/* The inner Scan, in the body `frame` of the outer one, whose inputs and outputs it gives. */
static kiln_status inner(kiln_importer *im, kiln_frame *frame, kiln_source *s, int64_t n_scan,
                         kiln_source_attr *body, const kiln_ints *directions) {
    kiln_value **in, **out;
    kiln_source made;
    kiln_type any = kiln_type_tensor(KILN_DTYPE_NONE, KILN_RANK_UNKNOWN, NULL);
    int32_t n_in = s->n_in - 1;
    KILN_ALLOC(in, &im->temp, n_in + s->n_out);
    out = in + n_in;
    for (int32_t i = 0; i < n_in; i++) {
        const char *name = kiln_graph_fresh_name(frame->graph, s->in[i + 1]->name);
        if (!name) {
            return KILN_E_MEMORY;
        }
        KILN_TRY(kiln_graph_input(&in[i], frame->graph, name, &any));
    }
    for (int32_t i = 0; i < s->n_out; i++) {
        const char *name = kiln_graph_fresh_name(frame->graph, s->out[i] ? s->out[i]->name : s->op);
        if (!name) {
            return KILN_E_MEMORY;
        }
        KILN_TRY(kiln_graph_value(&out[i], frame->graph, name));
        KILN_TRY(kiln_graph_output(frame->graph, out[i]));
    }
    KILN_TRY(kiln_source_make(im, s, "Scan", in, n_in, out, s->n_out, &made));
    KILN_TRY(kiln_source_set_int(im, &made, "num_scan_inputs", n_scan));
    if (directions->v) {
        KILN_TRY(kiln_source_set_ints(im, &made, "scan_input_directions", directions->v,
                                      (size_t)directions->n));
    }
    KILN_TRY(kiln_source_set_graph(im, &made, "body", &body->pb.g, frame));
    return kiln_emit(im, frame, &made, NULL);
}

kiln_status kiln_rewrite_scan_8(kiln_importer *im, kiln_frame *frame, kiln_source *s) {
    int64_t n_scan;
    kiln_ints directions;
    kiln_source made;
    kiln_source_attr *body = kiln_source_attr_find(s, "body");
    KILN_TRY(kiln_source_int(im, s, "num_scan_inputs", 0, &n_scan));
    KILN_TRY(kiln_source_ints(im, s, "directions", &directions));
    if (s->n_in > 0 && s->in[0]) {
        return kiln_fail(im->d.diag, KILN_F_VARIANT,
                         "Scan of opset 8 is not supported with sequence_lens");
    }
    if (!body || body->pb.type != KILN_PB_GRAPH || !body->pb.g.p) {
        return kiln_fail(im->d.diag, KILN_F_ATTRIBUTE, "attribute \"body\" must be a graph");
    }
    for (int32_t i = 1; i < s->n_in; i++) {
        if (!s->in[i]) {
            return kiln_fail(im->d.diag, KILN_F_ARITY, "input %d is left out, but required", i);
        }
    }
    if (s->n_in < 2) {
        return kiln_fail(im->d.diag, KILN_F_ARITY, "Scan needs an input to scan");
    }
    KILN_TRY(kiln_source_make(im, s, "Scan", s->in + 1, s->n_in - 1, s->out, s->n_out, &made));
    KILN_TRY(kiln_source_set_int(im, &made, "num_scan_inputs", s->n_in - 1));
    /* An empty message: the outer body has nothing but what `inner` puts there. */
    kiln_msg empty = {body->pb.g.p, body->pb.g.p, body->pb.g.depth};
    KILN_TRY(kiln_source_set_graph(im, &made, "body", &empty, frame));
    KILN_TRY(kiln_emit(im, frame, &made, NULL));
    return inner(im, im->top, s, n_scan, body, &directions);
}
