/* binding.h - what bind.c and place.c share: one segment on its way from shapes to calls. */
#ifndef KILN_EXEC_BINDING_H
#define KILN_EXEC_BINDING_H

#include "exec/frame.h"

/* What placing knows of a slot. */
typedef struct kiln_slot_use {
    kiln_lifetime life;
    bool is_output; /* a graph output lies in it, so it must be a whole buffer */
} kiln_slot_use;

typedef struct kiln_binding {
    kiln_frame *frame;
    kiln_segment *seg;
    kiln_arena scratch;
    kiln_dims dims;
    kiln_diag *diag;
    kiln_slot_use *uses; /* per slot */
    size_t cap_bound;    /* of seg->bound */
    bool *done;          /* per step of the segment: nothing is left to do when it runs */
} kiln_binding;

/* The fact of a value at this binding; facts of constants and captures are made on demand. */
kiln_status kiln_binding_fact(kiln_binding *b, const kiln_value *v, kiln_fact *out);
/* What a kernel is asked with about step s; what it keeps goes to `arena`. */
kiln_status kiln_binding_open(kiln_binding *b, int32_t s, kiln_arena *arena, kiln_binder *out);
/* Adds a call of the kernel with the operands of step s. */
kiln_status kiln_binding_call(kiln_binding *b, int32_t s, const kiln_kernel *kernel,
                              const void *state, kiln_bound **out);
/* Adds what checks, when it runs, the targets of step s that are not known at this binding. */
kiln_status kiln_binding_guard(kiln_binding *b, int32_t s);
/* Gives every slot that the segment makes its place: a buffer, or the bytes of another slot or a
 * part of them. Steps that have nothing to move then are done. */
kiln_status kiln_binding_place(kiln_binding *b);

#endif
