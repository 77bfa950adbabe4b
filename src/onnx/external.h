/* external.h - tensor data that lies in files beside the model.
 *
 * A location is a relative path inside one folder; the kernel is asked to resolve it beneath that
 * folder, so that neither ".." nor a symbolic link leads out. (The links of a hub's cache, which
 * point to its blob store beside the snapshot, are allowed for.) Each file is opened once and
 * shared by its tensors.
 */
#ifndef KILN_ONNX_EXTERNAL_H
#define KILN_ONNX_EXTERNAL_H

#include "onnx/onnx.h"
#include "onnx/tensor.h"

/* Files beneath `folder`, or beside `model_path` when folder is NULL. Opened files are appended to
 * `files`, from `arena`. */
kiln_status kiln_external_create(kiln_external **out, const char *model_path, const char *folder,
                                 const kiln_import_options *options, kiln_files *files,
                                 kiln_arena *arena, const kiln_env *env, kiln_diag *diag);
/* Closes the folder; the files stay open. Takes NULL. */
void kiln_external_close(kiln_external *external);
/* Bytes of all files opened so far. */
uint64_t kiln_external_bytes(const kiln_external *external);

/* The `bytes` bytes that external_data of `tensor` names. Fails when the decoder has no folder. */
kiln_status kiln_external_read(kiln_decoder *d, const kiln_pb_tensor *tensor, size_t bytes,
                               const void **out);

#endif
