/* tensor.h - TensorProto to kiln_tensor.
 *
 * A decoder is what reading one ONNX file needs everywhere: the wire, where copies go, limits, and
 * where external data comes from. Tensor data stays a view of the file wherever its alignment
 * allows. Copies (unaligned raw data, numbers stored as varints, sparse tensors made dense) count
 * against copy_left, so that no file can ask for much more memory than its own size.
 */
#ifndef KILN_ONNX_TENSOR_H
#define KILN_ONNX_TENSOR_H

#include "onnx/proto.h"

typedef struct kiln_external kiln_external;

typedef struct kiln_decoder {
    kiln_wire wire;
    kiln_arena *arena; /* names and copied data */
    const kiln_limits *limits;
    kiln_diag *diag;
    uint64_t copy_left;      /* bytes that may still be copied */
    kiln_external *external; /* NULL: external data is refused */
} kiln_decoder;

/* A decoder of `len` bytes: budgets that follow from the length, offsets from `bytes`. */
void kiln_decoder_init(kiln_decoder *d, const void *bytes, size_t len, kiln_arena *arena,
                       const kiln_env *env, kiln_diag *diag);
/* `bytes` of arena memory (not zeroed) within copy_left. */
kiln_status kiln_decoder_alloc(kiln_decoder *d, size_t bytes, void **out);
/* A NUL-terminated copy within copy_left. */
kiln_status kiln_decoder_text(kiln_decoder *d, kiln_view view, const char **out);

/* A tensor and what else its message says. */
typedef struct kiln_stored_tensor {
    kiln_tensor tensor;
    kiln_view name;
    bool view; /* data is a view of a file */
} kiln_stored_tensor;

kiln_status kiln_decode_tensor(kiln_decoder *d, const kiln_msg *msg, kiln_stored_tensor *out);
/* A SparseTensorProto made dense. */
kiln_status kiln_decode_sparse(kiln_decoder *d, const kiln_msg *msg, kiln_stored_tensor *out);
/* ONNX's number as a dtype; fails for those Kiln does not hold. */
kiln_status kiln_decode_dtype(kiln_decoder *d, int64_t number, kiln_dtype *out);

#endif
