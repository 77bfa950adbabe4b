/* cast.c - between float types, and from bools and bytes to them: a program without instructions,
 * whose reading and writing convert. */
#include "backend/cpu/kernel.h"
#include "backend/cpu/operand.h"
#include "backend/cpu/prims/program.h"
#include "ops/attrs.h"
#include "ops/ops.h"

typedef struct cast_state {
    const kiln_program_prims *prims;
    kiln_program_plan plan;
} cast_state;

static const kiln_program copy = {.inputs = 1, .outputs = 1, .regs = 1, .output = {0}};

/* Types that float32 holds exactly. */
static bool is_source(const kiln_value *v) {
    kiln_dtype d =
        v->type.kind == KILN_KIND_TENSOR && v->type.rank >= 0 ? v->type.dtype : KILN_DTYPE_NONE;
    return d == KILN_DTYPE_F32 || d == KILN_DTYPE_F16 || d == KILN_DTYPE_BF16 ||
           d == KILN_DTYPE_U8 || d == KILN_DTYPE_I8 || d == KILN_DTYPE_BOOL;
}

static bool is_float(const kiln_value *v) {
    kiln_dtype d = v->type.dtype;
    return d == KILN_DTYPE_F32 || d == KILN_DTYPE_F16 || d == KILN_DTYPE_BF16;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, cast)) {
        return kiln_claim_refuse(c, "it runs Cast");
    }
    if (!is_source(node->in[0]) || !is_float(node->out[0])) {
        return kiln_claim_refuse(c,
                                 "it casts between float types, and from bools and bytes to them");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_cast, node, 1, 1, 0);
    if (!r) {
        return NULL;
    }
    r->in[0] = node->in[0];
    r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_ANY;
    r->same_layout = true;
    return r;
}

static kiln_status bind(kiln_binder *b) {
    cast_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->prims = b->target->prims->program;
    const kiln_operand *out = &b->out[0];
    kiln_prog_view views[2] = {{.dtype = b->in[0].tensor.dtype}, {.dtype = out->tensor.dtype}};
    int64_t dims[KILN_MAX_RANK];
    kiln_physical_dims(&out->tensor, out->layout, dims);
    kiln_operand_strides(&b->in[0], out, views[0].stride);
    kiln_operand_strides(out, out, views[1].stride);
    KILN_TRY(kiln_program_plan_make(&s->plan, &copy, out->tensor.rank, dims, views));
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const cast_state *s = call->state;
    int64_t begin, end;
    kiln_team_split(team, s->plan.blocks, &begin, &end);
    if (begin < end) {
        s->prims->run(&copy, &s->plan, (const void *const *)call->in, call->out, begin, end);
    }
}

const kiln_kernel kiln_kernel_cast = {
    .name = "cast",
    .claim = claim,
    .bind = bind,
    .run = run,
};
