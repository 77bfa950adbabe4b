/* format.h - the engine file.
 *
 *     header 64 bytes: magic, format version, oldest reader that can read it, file length,
 *     sections,
 *               hash of header and table
 *     table     one entry of 48 bytes per section: kind, offset, length, alignment, hash
 *     sections META (who made it, for what), GRAPH (graph_io.h), PLAN (decisions and where their
 *     weights
 *               lie), WEIGHTS (packed weights and constants, each aligned to 64)
 *
 * All numbers are little-endian. Sections follow each other with zero bytes up to their alignment
 * between them and nothing else. Hashes are XXH3-64; those of META, GRAPH and PLAN are always
 * checked, those of the pieces of WEIGHTS, which stand in GRAPH and PLAN, on demand. Data only:
 * kernels are named, never contained, and their parameters are claimed again from the graph. */
#ifndef KILN_ENGINE_FORMAT_H
#define KILN_ENGINE_FORMAT_H

#include "engine/graph_io.h"

enum {
    KILN_FORMAT_VERSION = 5,   /* what this library writes */
    KILN_FORMAT_OLDEST = 1,    /* the oldest it reads */
    KILN_FORMAT_PROFILE = 2,   /* META ends with a profile, which readers before
                              * would not heed, and the count of widened nodes */
    KILN_FORMAT_FLOATS = 3,    /* META may end with the layers that quantizing left float */
    KILN_FORMAT_TACTICS = 4,   /* ... and then with what the tuner tried; PLAN's kernels may be
                              * followed by a tactic: "conv_f32/patch" */
    KILN_FORMAT_WORKSPACE = 5, /* ... and then with the bytes a layer may need beside its
                                * operands, which readers before would not heed */
    KILN_HEADER_BYTES = 64,
    KILN_ENTRY_BYTES = 48,
    KILN_PIECE_ALIGN = 64,
};

extern const char kiln_engine_magic[8];

typedef enum kiln_section_kind {
    KILN_SECTION_META,
    KILN_SECTION_GRAPH,
    KILN_SECTION_PLAN,
    KILN_SECTION_WEIGHTS,
    KILN_SECTION_COUNT,
} kiln_section_kind;

#endif
