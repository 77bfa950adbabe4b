/* einsum.h - the equations of Einsum, for the operator and for the pass that takes it apart.
 *
 *     kiln_einsum e;
 *     kiln_einsum_term terms[2];
 *     kiln_einsum_parse(&e, "bij,jk->bik", terms, (const int32_t[]){3, 2}, 2);   // NULL: fine
 *
 * Letters, and the dims that an ellipsis stands for, become labels: A-Z are 0..25, a-z 26..51, then
 * the dims of the ellipsis, counted from its last, so that they broadcast as NumPy's do. */
#ifndef KILN_OPS_EINSUM_H
#define KILN_OPS_EINSUM_H

#include "ops/util.h"

enum { KILN_EINSUM_LETTERS = 52, KILN_EINSUM_LABELS = KILN_EINSUM_LETTERS + KILN_MAX_RANK };

typedef struct kiln_einsum_term {
    int32_t n;
    int8_t label[KILN_MAX_RANK];
} kiln_einsum_term;

typedef struct kiln_einsum {
    kiln_einsum_term *in; /* one per operand */
    int32_t n_in;
    kiln_einsum_term out;
    int32_t ellipsis;                 /* dims of the longest ellipsis */
    int32_t uses[KILN_EINSUM_LABELS]; /* by inputs; a term may use a label twice */
} kiln_einsum;

/* Parses against the ranks of the n operands, all known; terms are the caller's and must outlive
 * *out. Returns NULL, or what is wrong. */
const char *kiln_einsum_parse(kiln_einsum *out, const char *equation, kiln_einsum_term *terms,
                              const int32_t *ranks, int32_t n);
/* needed[label] for each of KILN_EINSUM_LABELS: terms behind operand k, or the output, have it. */
void kiln_einsum_needed(const kiln_einsum *e, int32_t k, bool *needed);

#endif
