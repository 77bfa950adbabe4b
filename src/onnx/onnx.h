/* onnx.h - ONNX bytes to a graph and back. Input: a file or memory; output: a kiln_graph whose
 * nodes are Kiln operators in their newest form. Invariant: whatever the bytes, nothing outside
 * them is read, and memory stays within the limits of the environment.
 *
 *     kiln_import model;
 *     KILN_TRY(kiln_import_file(&model, "net.onnx", NULL, &arena, &files, env, diag));
 *     KILN_TRY(kiln_infer_graph(model.graph, diag));
 *
 * On the way in (wire.h, proto.h, tensor.h, import.h): operator sets 1 to 28 are brought to the
 * newest form, model-local functions inlined, Constant nodes and initializers made constants, nodes
 * sorted. Weights stay views of the mapped file where their alignment allows. What is not supported
 * is reported by operator, all of it at once.
 */
#ifndef KILN_ONNX_ONNX_H
#define KILN_ONNX_ONNX_H

#include "ir/graph.h"

typedef struct kiln_file kiln_file;

/* What the importer made, besides the graph. */
typedef struct kiln_import {
    kiln_graph *graph;
    int64_t ir_version;
    int64_t opset; /* of the default domain */
    const char *producer;
    const char *graph_name;
    uint64_t model_bytes, external_bytes;
    uint8_t hash[16]; /* XXH3-128 of the model file's bytes */
    size_t n_functions_inlined;
    size_t n_upgraded; /* nodes rewritten from an older form */
} kiln_import;

typedef struct kiln_import_options {
    const char *external_root; /* folder of external data; NULL: the model's own folder */
    bool no_mmap;              /* read files into memory instead of mapping them */
    bool verify_checksums;     /* of external data that states one */
} kiln_import_options;

/* Reads a model. Views into mapped files stay valid until the arena's owner closes `files`, a list
 * the importer appends to (the model owns it): they live in the arena themselves, so close them
 * first. */
typedef struct kiln_files {
    kiln_file **items;
    size_t count, cap;
} kiln_files;

kiln_status kiln_import_file(kiln_import *out, const char *path, const kiln_import_options *options,
                             kiln_arena *arena, kiln_files *files, const kiln_env *env,
                             kiln_diag *diag);
/* The same from memory, which must outlive the graph. External data needs
 * options->external_root. */
kiln_status kiln_import_memory(kiln_import *out, const void *bytes, size_t len,
                               const kiln_import_options *options, kiln_arena *arena,
                               kiln_files *files, const kiln_env *env, kiln_diag *diag);

/* Decodes one TensorProto (.pb file contents). Data is a view of `bytes` where possible, else
 * arena. name (may be NULL): the one in it, in arena, "" where there is none. */
kiln_status kiln_tensor_from_pb(kiln_tensor *out, const char **name, const void *bytes, size_t len,
                                kiln_arena *arena, const kiln_env *env, kiln_diag *diag);
/* A SequenceProto or OptionalProto of tensors, or a TensorProto, chosen by `kind`. */
kiln_status kiln_datum_from_pb(kiln_datum *out, kiln_kind kind, kiln_kind elem_kind,
                               const void *bytes, size_t len, kiln_arena *arena,
                               const kiln_env *env, kiln_diag *diag);
/* Encodes a tensor as TensorProto with raw_data. */
kiln_status kiln_tensor_to_pb(void **out, size_t *len, const kiln_tensor *t, const char *name,
                              kiln_arena *arena);

/* Writes the graph as an ONNX model (newest opset of the operators used; IR version to match).
 * Bytes are made in arena; weights larger than `external_threshold` bytes go to `PATH.data` when
 * path-based export is used (0: all inside). */
typedef struct kiln_export_options {
    size_t external_threshold;
    const char *producer_version;
} kiln_export_options;
kiln_status kiln_export_file(const kiln_graph *graph, const char *path,
                             const kiln_export_options *options, const kiln_env *env,
                             kiln_diag *diag);
kiln_status kiln_export_memory(void **out, size_t *len, const kiln_graph *graph,
                               const kiln_export_options *options, kiln_arena *arena,
                               kiln_diag *diag);

#endif
