/* graph_io.h - a graph as bytes, and back.
 *
 * Stored: graph inputs with their types, constants (type, and where their data lies), nodes with
 * attributes by their operators' tables, bodies. Not stored: types of anything else. The reader
 * infers them again, so that no shape of a file is believed. */
#ifndef KILN_ENGINE_GRAPH_IO_H
#define KILN_ENGINE_GRAPH_IO_H

#include "engine/codec.h"
#include "ir/graph.h"

/* Where a constant's data went: `len` bytes at `offset` of the weights section. */
typedef struct kiln_extent {
    uint64_t offset, len, hash;
} kiln_extent;

/* Asked for each constant once while writing; *stored false: only its type is kept. */
typedef kiln_status (*kiln_place_fn)(void *user, const kiln_value *value, bool *stored,
                                     kiln_extent *out);

kiln_status kiln_graph_write(kiln_enc *e, const kiln_graph *graph, kiln_place_fn place, void *user);

/* The data of a stored constant, NULL when the extent is not inside the weights. */
typedef const void *(*kiln_fetch_fn)(void *user, const kiln_extent *extent);

/* Reads a graph into d->arena; indexed and verified, not inferred. */
kiln_status kiln_graph_read(kiln_graph **out, kiln_dec *d, kiln_dims *dims, const kiln_env *env,
                            kiln_fetch_fn fetch, void *user, kiln_diag *diag);

#endif
