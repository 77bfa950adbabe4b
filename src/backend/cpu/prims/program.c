/* program.c - checking a program and cutting its iteration space into blocks. */
#include "backend/cpu/prims/program.h"

#define OPERANDS(name, operands) operands,
static const uint8_t operand_count[] = {KILN_PROG_OPS(OPERANDS)};

static bool instr_valid(const kiln_program *p, const kiln_prog_instr *in) {
    if (in->op >= KILN_PROG_OP_COUNT || in->dst >= p->regs || in->dst < p->inputs + p->consts) {
        return false;
    }
    const uint8_t used[3] = {in->a, in->b, in->c};
    for (int i = 0; i < operand_count[in->op]; i++) {
        if (used[i] >= p->regs) {
            return false;
        }
    }
    return true;
}

bool kiln_program_valid(const kiln_program *p) {
    if (p->inputs < 0 || p->inputs > KILN_PROG_INPUTS || p->consts < 0 ||
        p->consts > KILN_PROG_REGS || p->regs > KILN_PROG_REGS || p->inputs + p->consts > p->regs ||
        p->outputs < 1 || p->outputs > KILN_PROG_OUTPUTS) {
        return false;
    }
    for (int32_t i = 0; i < p->outputs; i++) {
        if (p->output[i] >= p->regs) {
            return false;
        }
    }
    for (int32_t i = 0; i < p->instrs; i++) {
        if (!instr_valid(p, &p->instr[i])) {
            return false;
        }
    }
    return true;
}

static bool dtype_known(kiln_dtype dtype) {
    switch (dtype) {
    case KILN_DTYPE_F32:
    case KILN_DTYPE_F16:
    case KILN_DTYPE_BF16:
    case KILN_DTYPE_F64:
    case KILN_DTYPE_U8:
    case KILN_DTYPE_I8:
    case KILN_DTYPE_BOOL:
    case KILN_DTYPE_I32:
    case KILN_DTYPE_I64:
        return true;
    default:
        return false;
    }
}

/* Only bytes are dequantized and quantized on the way. */
static bool affine_valid(const kiln_program *p, const kiln_prog_view *views) {
    for (int32_t i = 0; i <= p->inputs; i++) {
        bool used = (i < p->inputs ? p->load[i] : p->store).scale != 0.0f;
        if (used && views[i].dtype != KILN_DTYPE_U8 && views[i].dtype != KILN_DTYPE_I8) {
            return false;
        }
    }
    return true;
}

/* Whether dim `inner` continues dim `outer` in every view: a step of outer is dims[inner] steps. */
static bool mergeable(const kiln_prog_view *views, int32_t count, int32_t outer, int32_t inner,
                      int64_t inner_dim) {
    for (int32_t i = 0; i < count; i++) {
        if (views[i].stride[outer] != views[i].stride[inner] * inner_dim) {
            return false;
        }
    }
    return true;
}

/* Drops dims of 1 and merges neighbours. kept[k] becomes the source dim whose stride dim k takes.
 * Returns the rank, at least 1, or -1 when too many dims remain. */
static int32_t collapse(int32_t rank, const int64_t *dims, const kiln_prog_view *views,
                        int32_t count, int64_t *out_dims, int32_t *kept) {
    int32_t n = 0;
    for (int32_t d = 0; d < rank; d++) {
        if (dims[d] == 1) {
            continue;
        }
        if (n > 0 && mergeable(views, count, kept[n - 1], d, dims[d])) {
            out_dims[n - 1] *= dims[d];
            kept[n - 1] = d;
            continue;
        }
        if (n == KILN_PROG_RANK) {
            return -1;
        }
        out_dims[n] = dims[d];
        kept[n++] = d;
    }
    if (n == 0) {
        out_dims[0] = 1;
        kept[0] = -1;
        n = 1;
    }
    return n;
}

static kiln_prog_access classify(const kiln_program_plan *plan, const kiln_prog_port *port) {
    int32_t inner = plan->rank - 1;
    bool flat = true;
    bool still = true;
    int64_t step = 1;
    for (int32_t d = inner; d >= 0; d--) {
        flat = flat && port->stride[d] == step;
        step *= plan->dims[d];
        still = still && (port->stride[d] == 0 || (d == inner && plan->chunks == 1));
    }
    if (flat) {
        return KILN_PROG_FLAT;
    }
    if (still) {
        return KILN_PROG_ONCE;
    }
    bool line = port->stride[inner] == 1 && plan->rows == 1;
    return line ? KILN_PROG_LINES : KILN_PROG_WALK;
}

static void cut(kiln_program_plan *plan) {
    int64_t inner = plan->dims[plan->rank - 1];
    plan->outer = 1;
    for (int32_t d = 0; d < plan->rank - 1; d++) {
        plan->outer *= plan->dims[d];
    }
    if (inner == 0 || plan->outer == 0) {
        plan->rows = plan->chunks = plan->chunk = 1;
        plan->blocks = 0;
        return;
    }
    if (inner <= KILN_PROG_BLOCK) {
        plan->rows = KILN_PROG_BLOCK / inner;
        plan->chunks = 1;
        plan->chunk = inner;
        plan->blocks = (plan->outer + plan->rows - 1) / plan->rows;
        return;
    }
    plan->rows = 1;
    plan->chunks = (inner + KILN_PROG_BLOCK - 1) / KILN_PROG_BLOCK;
    /* Pieces of equal length but the last, whole vectors of every instruction set. */
    plan->chunk = ((inner + plan->chunks - 1) / plan->chunks + 15) / 16 * 16;
    plan->chunks = (inner + plan->chunk - 1) / plan->chunk;
    plan->blocks = plan->outer * plan->chunks;
}

kiln_status kiln_program_plan_make(kiln_program_plan *plan, const kiln_program *program,
                                   int32_t rank, const int64_t *dims, const kiln_prog_view *views) {
    if (!kiln_program_valid(program) || rank < 0 || rank > KILN_MAX_RANK) {
        return KILN_E_INTERNAL;
    }
    int32_t count = program->inputs + program->outputs;
    for (int32_t i = 0; i < count; i++) {
        if (!dtype_known(views[i].dtype)) {
            return KILN_E_UNSUPPORTED;
        }
    }
    if (!affine_valid(program, views)) {
        return KILN_E_INTERNAL;
    }
    int32_t kept[KILN_PROG_RANK];
    *plan = (kiln_program_plan){0};
    plan->rank = collapse(rank, dims, views, count, plan->dims, kept);
    if (plan->rank < 0) {
        return KILN_E_UNSUPPORTED;
    }
    cut(plan);
    for (int32_t i = 0; i < count; i++) {
        kiln_prog_port *port = i < program->inputs ? &plan->in[i] : &plan->out[i - program->inputs];
        port->dtype = views[i].dtype;
        for (int32_t d = 0; d < plan->rank; d++) {
            port->stride[d] = kept[d] < 0 ? 0 : views[i].stride[kept[d]];
        }
        port->access = classify(plan, port);
    }
    return KILN_OK;
}
