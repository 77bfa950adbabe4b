/* export.h - what the two files of the exporter share.
 *
 * A model is written in one pass without holding its weights: everything but the initializers is
 * encoded in memory (export_node.c), each initializer's length follows from its type, so the
 * graph's length is known before the first weight is evaluated and written (export.c).
 */
#ifndef KILN_ONNX_EXPORT_H
#define KILN_ONNX_EXPORT_H

#include "onnx/encode.h"
#include "onnx/names.h"
#include "onnx/onnx.h"

/* A constant that becomes an initializer. */
typedef struct kiln_export_const {
    const kiln_value *value;
    kiln_out head;    /* its TensorProto up to the raw data */
    size_t raw_bytes; /* that follow in the model file */
    bool external;
    uint64_t offset; /* in the data file */
} kiln_export_const;

typedef struct kiln_exporter {
    const kiln_graph *graph;
    kiln_arena *arena;
    kiln_diag *diag;
    kiln_out body; /* the graph without initializers */
    kiln_export_const *consts;
    size_t n_consts, cap_consts;
    uint8_t *seen;         /* by value id */
    kiln_names node_names; /* given out so far: ONNX Runtime wants them unique */
    int64_t opset;
    bool contrib;     /* com.microsoft is used */
    uint32_t renamed; /* for outputs that need a name of their own */
} kiln_exporter;

/* Encodes a graph's nodes, inputs and outputs into `out`, and its constants into x->consts. */
kiln_status kiln_export_graph(kiln_exporter *x, const kiln_graph *graph, kiln_out *out);

#endif
