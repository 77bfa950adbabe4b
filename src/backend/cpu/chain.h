/* chain.h - from elementwise nodes to a program (prims/program.h).
 *
 * A chain collects nodes whose outputs all have one shape; values flow between them in registers.
 * It is built at claim time and used by the elementwise kernel and by the epilogues of products.
 * QuantizeLinear and DequantizeLinear of 8-bit integers are such nodes too: bytes are read and
 * written at the chain's edges, bit for bit as their references do.
 *
 *     kiln_chain_init(&chain);
 *     for each node: if (!kiln_chain_add(&chain, node)) { stop; }
 *     kiln_chain_finish(&chain, outputs, n);       // chain.program is ready, chain.in its inputs
 */
#ifndef KILN_BACKEND_CPU_CHAIN_H
#define KILN_BACKEND_CPU_CHAIN_H

#include "backend/cpu/kernel.h"
#include "backend/cpu/prims/program.h"

enum { KILN_CHAIN_INSTRS = 32, KILN_CHAIN_CONSTS = 8 };

typedef struct kiln_chain {
    kiln_program program; /* after finish; its arrays are those below */
    kiln_prog_instr instr[KILN_CHAIN_INSTRS];
    float constant[KILN_CHAIN_CONSTS];
    const kiln_value *in[KILN_PROG_INPUTS]; /* value of each input register */
    /* Where the input is not broadcast by shape but a vector along one axis (scales, zero points):
     * that axis counted from the end, -1 the last. Else 0. */
    int8_t axis[KILN_PROG_INPUTS];
    kiln_prog_affine load[KILN_PROG_INPUTS]; /* dequantized as it is read; scale 0: as it is */
    int32_t n_in, n_consts, n_instrs;
    struct {
        const kiln_value *value;
        uint8_t reg;
    } made[KILN_CHAIN_INSTRS]; /* values that nodes of the chain made, and where they are */
    int32_t n_made;
} kiln_chain;

void kiln_chain_init(kiln_chain *chain);
/* True when the operator and its element types are ones that programs compute exactly enough:
 * float32 in and out, bool for conditions, 8-bit integers beside Q and DQ. */
bool kiln_chain_takes(const kiln_node *node);
/* The bounds of a Clip when they are constants and in order. */
bool kiln_clip_bounds(const kiln_node *node, float *lo, float *hi);
/* Appends the node's work; false when it does not fit (registers, inputs), the chain is then
 * unchanged. */
bool kiln_chain_add(kiln_chain *chain, const kiln_node *node);
/* Names the outputs (values made by the chain) and numbers the registers. False if they do not
 * fit. */
bool kiln_chain_finish(kiln_chain *chain, kiln_value *const *outputs, int32_t n);
/* Points the program at the chain's arrays: after the chain was copied or moved. */
void kiln_chain_rebase(kiln_chain *chain);

#endif
