/* case.h - the lines of a .cases file: small graphs in text.
 *
 *     kernel: Op operands attributes | Op operands attributes ...
 *
 *     kernel/tactic:  how --bench runs it, else by the kernel's rules; checks go through all
 *     f32[2,3]        a graph input, random         f32[N=2,3]   the same with a symbolic dim
 *     =f32[2,3]       a random constant             i64{1,-1}    a constant list (1-D), f32{} empty
 *     i64(3)          a constant scalar             -            an input left out
 *     =f32+[3]        random in [0.005, 0.02], as scales are
 *     $               output 0 of the node before   $2.1         output 1 of node 2 (from 0)
 *     $$              the first operand of node 0
 *     kernel_shape=3,3  mode=edge                   attributes as ONNX names them
 *     >3              the node has 3 outputs
 *     @bf16           the precision asked for of the node
 *
 * Random floats are in [-2, 2], bytes any, other integers in [0, 3], bools are both. Outputs of
 * nodes that no node reads are the graph's. Each kernel of the name before the colon must claim a
 * node of the case; "!kernel" must claim none. '#' begins a comment.
 */
#ifndef KILN_TESTS_OPS_CASE_H
#define KILN_TESTS_OPS_CASE_H

#include "ir/graph.h"
#include "kiln/kiln.h"

typedef struct test_case {
    char kernel[48];
    char tactic[16];    /* or "" */
    bool refused;       /* the kernel must not claim */
    kiln_graph *graph;  /* indexed and inferred */
    kiln_datum *inputs; /* per graph input, data in the arena */
} test_case;

/* Parses a line (changed on the way) into graph and inputs. Returns what is wrong, or NULL. */
const char *parse_case(test_case *out, char *line, uint64_t seed, kiln_arena *arena,
                       kiln_dims *dims, kiln_diag *diag);

/* What kiln_cpu_target.choices needs for the nodes of the case to run by its kernel in this way;
 * one for each node. */
const kiln_way *all_in_way(const test_case *tc, const char *tactic, kiln_arena *arena);

/* What kiln_cpu_target.off needs for a cover with this kernel and the reference alone. */
const char *const *all_but(const char *kernel, kiln_arena *arena);

/* timing.c: times each case of a file on one thread with everything this machine has. */
int time_file(const char *path);

#endif
