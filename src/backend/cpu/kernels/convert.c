/* convert.c - from one layout to the other. The compiler makes its claims. */
#include "backend/cpu/operand.h"
#include "backend/cpu/prims/move.h"
#include "base/checked.h"

typedef struct convert_state {
    const kiln_move_prims *prims;
    kiln_copy_plan plan;
} convert_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    (void)node;
    return kiln_claim_refuse(c, "it only converts layouts");
}

static kiln_status bind(kiln_binder *b) {
    convert_state *s;
    KILN_ALLOC(s, b->arena, 1);
    int64_t dims[KILN_MAX_RANK], src[KILN_MAX_RANK], dst[KILN_MAX_RANK];
    const kiln_operand *in = &b->in[0], *out = &b->out[0];
    kiln_physical_dims(&out->tensor, out->layout, dims);
    kiln_operand_strides(in, out, src);
    kiln_operand_strides(out, out, dst);
    s->prims = b->target->prims->move;
    KILN_TRY(kiln_copy_plan_make(&s->plan, kiln_dtype_bits(in->tensor.dtype) / 8, out->tensor.rank,
                                 dims, src, dst));
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const convert_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->plan.units, &begin, &end);
    if (begin < end) {
        s->prims->copy(&s->plan, call->in[0], call->out[0], begin, end);
    }
}

const kiln_kernel kiln_kernel_convert = {
    .name = "convert",
    .claim = claim,
    .bind = bind,
    .run = run,
};
