/* settle.c - what upgrades had to leave open until types are known.
 *
 * A bound of an old Clip is a constant of the data's type, an old Softmax usually runs along the
 * last axis; neither can be told from a node alone. The upgrade makes nodes that are right in any
 * case, and here, with the graph's types inferred, those that turn out to be needless are taken out
 * again.
 */
#include <string.h>

#include "onnx/import.h"
#include "ops/util.h"

/* Nodes to be taken out carry this id until the next index. */
enum { REMOVED = -2 };

/* A CastLike of a constant becomes the constant. */
static kiln_status settle_cast(kiln_importer *im, kiln_node *node) {
    const kiln_tensor *src = kiln_value_data(node->in[0]);
    kiln_value *out = node->out[0];
    kiln_stored_tensor stored = {.view = false};
    kiln_dtype dtype = out->type.kind == KILN_KIND_TENSOR ? out->type.dtype : KILN_DTYPE_NONE;
    size_t bytes;
    if (!src || !kiln_dtype_is_float(dtype) || kiln_dtype_bits(dtype) < 16) {
        return KILN_OK;
    }
    int64_t count = kiln_tensor_count(src);
    if (!kiln_dtype_bytes(dtype, count, &bytes)) {
        return KILN_OK;
    }
    stored.tensor = *src;
    stored.tensor.dtype = dtype;
    stored.tensor.cap_bytes = bytes;
    KILN_TRY(kiln_decoder_alloc(&im->d, bytes, &stored.tensor.data));
    for (int64_t i = 0; i < count; i++) {
        kiln_set_f64(dtype, stored.tensor.data, i, kiln_get_f64(src->dtype, src->data, i));
    }
    node->id = REMOVED;
    return kiln_import_constant(im, out, &stored);
}

static void set_int_attr(kiln_node *node, const char *name, int64_t v) {
    for (uint16_t i = 0; i < node->op->n_attrs; i++) {
        const kiln_attr *row = &node->op->attrs[i];
        if (row->kind == KILN_ATTR_INT && strcmp(row->name, name) == 0) {
            memcpy((char *)node->attrs + row->offset, &v, sizeof v);
        }
    }
}

static int64_t get_int_attr(const kiln_node *node, const char *name) {
    int64_t v = 0;
    for (uint16_t i = 0; i < node->op->n_attrs; i++) {
        const kiln_attr *row = &node->op->attrs[i];
        if (row->kind == KILN_ATTR_INT && strcmp(row->name, name) == 0) {
            memcpy(&v, (char *)node->attrs + row->offset, sizeof v);
        }
    }
    return v;
}

/* Flatten, Softmax, Shape, Reshape along the last axis: the Softmax alone. */
static void settle_softmax(kiln_node *flatten, kiln_node *reshape) {
    kiln_value *x = flatten->in[0];
    kiln_node *softmax = reshape->in[0]->producer, *shape = reshape->in[1]->producer;
    int64_t axis = get_int_attr(flatten, "axis");
    if (x->type.kind != KILN_KIND_TENSOR || x->type.rank < 1 || !softmax || !shape ||
        (axis < 0 ? axis + x->type.rank : axis) != x->type.rank - 1) {
        return;
    }
    softmax->in[0] = x;
    softmax->out[0] = reshape->out[0];
    set_int_attr(softmax, "axis", -1);
    flatten->id = shape->id = reshape->id = REMOVED;
}

static void compact(kiln_graph *g) {
    size_t n = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i]->id != REMOVED) {
            g->nodes[n++] = g->nodes[i];
        }
    }
    g->n_nodes = n;
}

kiln_status kiln_settle(kiln_importer *im) {
    kiln_graph *last = NULL;
    if (im->n_unsettled == 0) {
        return KILN_OK;
    }
    size_t findings = im->d.diag ? kiln_diag_count(im->d.diag) : 0;
    kiln_status status = kiln_infer_graph(im->out->graph, im->d.diag);
    if (status != KILN_OK) {
        /* Whoever infers next reports it; the graph is right as it stands. */
        kiln_diag_truncate(im->d.diag, findings);
        return status == KILN_E_MEMORY ? status : KILN_OK;
    }
    for (size_t i = 0; i < im->n_unsettled; i++) {
        kiln_unsettled *u = &im->unsettled[i];
        if (u->first) {
            settle_softmax(u->first, u->node);
        } else {
            KILN_TRY(settle_cast(im, u->node));
        }
    }
    for (size_t i = 0; i < im->n_unsettled; i++) {
        if (im->unsettled[i].graph != last) {
            last = im->unsettled[i].graph;
            compact(last);
        }
    }
    KILN_TRY(kiln_graph_sort(im->out->graph, im->d.diag));
    return kiln_graph_index(im->out->graph);
}
