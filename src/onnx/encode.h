/* encode.h - tensors in ONNX's bytes, shared by single values and whole models. */
#ifndef KILN_ONNX_ENCODE_H
#define KILN_ONNX_ENCODE_H

#include "onnx/wire.h"

/* The fields of a TensorProto: dims, dtype, name (may be NULL or empty), without or with data. The
 * caller writes the message's head. */
void kiln_put_tensor_head(kiln_out *out, const kiln_tensor *t, const char *name);
void kiln_put_tensor(kiln_out *out, const kiln_tensor *t, const char *name);

#endif
