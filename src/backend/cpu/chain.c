#include "backend/cpu/chain.h"

#include <math.h>
#include <string.h>

#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/quantize.h"

/* Registers while the chain grows: inputs from 0, constants from CONST, temporaries from TEMP.
 * finish numbers them densely. */
enum { CONST = 64, TEMP = 128 };

typedef struct rule {
    const kiln_op *op;
    kiln_prog_op code;
    int32_t arity; /* 0: folds any number of inputs */
} rule;

static const rule rules[] = {
    {&kiln_op_abs, KILN_PROG_ABS, 1},
    {&kiln_op_acos, KILN_PROG_ACOS, 1},
    {&kiln_op_acosh, KILN_PROG_ACOSH, 1},
    {&kiln_op_add, KILN_PROG_ADD, 2},
    {&kiln_op_and, KILN_PROG_AND, 2},
    {&kiln_op_asin, KILN_PROG_ASIN, 1},
    {&kiln_op_asinh, KILN_PROG_ASINH, 1},
    {&kiln_op_atan, KILN_PROG_ATAN, 1},
    {&kiln_op_atanh, KILN_PROG_ATANH, 1},
    {&kiln_op_ceil, KILN_PROG_CEIL, 1},
    {&kiln_op_celu, KILN_PROG_CELU, 1},
    {&kiln_op_clip, KILN_PROG_CLIP, 1},
    {&kiln_op_cos, KILN_PROG_COS, 1},
    {&kiln_op_cosh, KILN_PROG_COSH, 1},
    {&kiln_op_div, KILN_PROG_DIV, 2},
    {&kiln_op_elu, KILN_PROG_ELU, 1},
    {&kiln_op_equal, KILN_PROG_EQ, 2},
    {&kiln_op_erf, KILN_PROG_ERF, 1},
    {&kiln_op_exp, KILN_PROG_EXP, 1},
    {&kiln_op_floor, KILN_PROG_FLOOR, 1},
    {&kiln_op_gelu, KILN_PROG_GELU, 1},
    {&kiln_op_greater, KILN_PROG_GT, 2},
    {&kiln_op_greater_or_equal, KILN_PROG_GE, 2},
    {&kiln_op_hard_sigmoid, KILN_PROG_HARDSIGMOID, 1},
    {&kiln_op_hard_swish, KILN_PROG_HARDSWISH, 1},
    {&kiln_op_identity, KILN_PROG_COPY, 1},
    {&kiln_op_is_nan, KILN_PROG_ISNAN, 1},
    {&kiln_op_leaky_relu, KILN_PROG_LEAKYRELU, 1},
    {&kiln_op_less, KILN_PROG_LT, 2},
    {&kiln_op_less_or_equal, KILN_PROG_LE, 2},
    {&kiln_op_log, KILN_PROG_LOG, 1},
    {&kiln_op_max, KILN_PROG_MAX, 0},
    {&kiln_op_min, KILN_PROG_MIN, 0},
    {&kiln_op_mish, KILN_PROG_MISH, 1},
    {&kiln_op_mod, KILN_PROG_FMOD, 2},
    {&kiln_op_mul, KILN_PROG_MUL, 2},
    {&kiln_op_neg, KILN_PROG_NEG, 1},
    {&kiln_op_not, KILN_PROG_NOT, 1},
    {&kiln_op_or, KILN_PROG_OR, 2},
    {&kiln_op_pow, KILN_PROG_POW, 2},
    {&kiln_op_prelu, KILN_PROG_PRELU, 2},
    {&kiln_op_reciprocal, KILN_PROG_RECIPROCAL, 1},
    {&kiln_op_relu, KILN_PROG_RELU, 1},
    {&kiln_op_round, KILN_PROG_ROUND, 1},
    {&kiln_op_selu, KILN_PROG_SELU, 1},
    {&kiln_op_shrink, KILN_PROG_SHRINK, 1},
    {&kiln_op_sigmoid, KILN_PROG_SIGMOID, 1},
    {&kiln_op_sign, KILN_PROG_SIGN, 1},
    {&kiln_op_sin, KILN_PROG_SIN, 1},
    {&kiln_op_sinh, KILN_PROG_SINH, 1},
    {&kiln_op_softplus, KILN_PROG_SOFTPLUS, 1},
    {&kiln_op_softsign, KILN_PROG_SOFTSIGN, 1},
    {&kiln_op_sqrt, KILN_PROG_SQRT, 1},
    {&kiln_op_sub, KILN_PROG_SUB, 2},
    {&kiln_op_sum, KILN_PROG_ADD, 0},
    {&kiln_op_swish, KILN_PROG_SILU, 1},
    {&kiln_op_tan, KILN_PROG_TAN, 1},
    {&kiln_op_tanh, KILN_PROG_TANH, 1},
    {&kiln_op_thresholded_relu, KILN_PROG_THRESHOLDEDRELU, 1},
    {&kiln_op_where, KILN_PROG_WHERE, 3},
    {&kiln_op_xor, KILN_PROG_XOR, 2},
};

static const rule *find_rule(const kiln_node *node) {
    for (size_t i = 0; i < KILN_COUNT_OF(rules); i++) {
        if (rules[i].op == node->op) {
            return &rules[i];
        }
    }
    return NULL;
}

static bool is_f32_or_bool(const kiln_value *v) {
    return v->type.kind == KILN_KIND_TENSOR && v->type.rank >= 0 &&
           (v->type.dtype == KILN_DTYPE_F32 || v->type.dtype == KILN_DTYPE_BOOL);
}

bool kiln_clip_bounds(const kiln_node *node, float *lo, float *hi) {
    float *bound[2] = {lo, hi};
    *lo = -INFINITY;
    *hi = INFINITY;
    for (int32_t i = 0; i < 2; i++) {
        const kiln_value *v = kiln_node_in(node, i + 1);
        const kiln_tensor *t = v ? kiln_small_data(v) : NULL;
        if (v && (!t || t->dtype != KILN_DTYPE_F32 || kiln_tensor_count(t) != 1)) {
            return false;
        }
        if (t) {
            *bound[i] = *(const float *)t->data;
        }
    }
    return *lo <= *hi;
}

/* ---- QuantizeLinear and DequantizeLinear ---- */

static bool is_byte(const kiln_value *v) {
    return v->type.kind == KILN_KIND_TENSOR && v->type.rank >= 0 &&
           (v->type.dtype == KILN_DTYPE_U8 || v->type.dtype == KILN_DTYPE_I8);
}

/* Number of elements of a parameter: known, and at most one dim. -1 otherwise. */
static int64_t parameter_count(const kiln_value *v) {
    const kiln_type *t = &v->type;
    if (t->kind != KILN_KIND_TENSOR || t->rank < 0 || t->rank > 1 || !kiln_type_is_static(t)) {
        return -1;
    }
    return t->rank == 0 ? 1 : t->dims[0];
}

/* The axis that the node's scales run along, counted from the end; 0 for a single scale. */
static int32_t scale_axis(const kiln_node *node) {
    int32_t rank = node->in[0]->type.rank;
    int64_t axis = ((const kiln_quant_attrs *)node->attrs)->axis;
    return parameter_count(node->in[1]) == 1 ? 0 : (int32_t)(axis < 0 ? axis : axis - rank);
}

static bool takes_quantizer(const kiln_node *node) {
    bool quantizes = KILN_IS(node, quantize_linear);
    const kiln_value *scale = node->in[1], *zero = kiln_node_in(node, 2);
    const kiln_value *floats = quantizes ? node->in[0] : node->out[0];
    const kiln_value *bytes = quantizes ? node->out[0] : node->in[0];
    const kiln_quant_attrs *a = node->attrs;
    int64_t n = parameter_count(scale);
    return kiln_value_is_f32(floats) && is_byte(bytes) && kiln_value_is_f32(scale) && n > 0 &&
           (!zero || (zero->type.dtype == bytes->type.dtype && parameter_count(zero) == n)) &&
           a->block_size == 0 && (a->precision == 0 || a->precision == KILN_DTYPE_F32);
}

static bool is_quantizer(const kiln_node *node) {
    return KILN_IS(node, quantize_linear) || KILN_IS(node, dequantize_linear);
}

bool kiln_chain_takes(const kiln_node *node) {
    const rule *r = find_rule(node);
    if (is_quantizer(node)) {
        return takes_quantizer(node);
    }
    if (!r || node->n_out != 1 || !is_f32_or_bool(node->out[0])) {
        return false;
    }
    for (int32_t i = 0; i < node->n_in; i++) {
        if (!node->in[i] ? node->op != &kiln_op_clip : !is_f32_or_bool(node->in[i])) {
            return false;
        }
    }
    float lo, hi;
    if (node->op == &kiln_op_clip) {
        return kiln_clip_bounds(node, &lo, &hi);
    }
    if (node->op == &kiln_op_mod) {
        return ((const kiln_mod_attrs *)node->attrs)->fmod != 0;
    }
    return true;
}

void kiln_chain_init(kiln_chain *chain) {
    memset(chain, 0, sizeof *chain);
}

/* The register of a number, which the program itself holds. */
static int32_t number_register(kiln_chain *chain, float x) {
    for (int32_t i = 0; i < chain->n_consts; i++) {
        if (memcmp(&chain->constant[i], &x, sizeof x) == 0) {
            return CONST + i;
        }
    }
    if (chain->n_consts == KILN_CHAIN_CONSTS) {
        return -1;
    }
    chain->constant[chain->n_consts] = x;
    return CONST + chain->n_consts++;
}

static int32_t constant_register(kiln_chain *chain, const kiln_value *v) {
    const kiln_tensor *t = kiln_small_data(v);
    bool scalar = t && t->dtype == KILN_DTYPE_F32 && kiln_tensor_count(t) == 1;
    return scalar ? number_register(chain, *(const float *)t->data) : -1;
}

/* The register of an input that is read so, -1 when there is no room. */
static int32_t input_register(kiln_chain *chain, const kiln_value *v, int32_t axis,
                              kiln_prog_affine load) {
    for (int32_t i = 0; i < chain->n_in; i++) {
        if (chain->in[i] == v && chain->axis[i] == axis && chain->load[i].scale == load.scale &&
            chain->load[i].zero == load.zero) {
            return i;
        }
    }
    if (chain->n_in == KILN_PROG_INPUTS) {
        return -1;
    }
    chain->in[chain->n_in] = v;
    chain->axis[chain->n_in] = (int8_t)axis;
    chain->load[chain->n_in] = load;
    return chain->n_in++;
}

static int32_t made_register(const kiln_chain *chain, const kiln_value *v) {
    for (int32_t i = 0; i < chain->n_made; i++) {
        if (chain->made[i].value == v) {
            return chain->made[i].reg;
        }
    }
    return -1;
}

/* The register that holds v, an input of the chain if nothing in it made it; -1 when there is no
 * room. axis: as in kiln_chain. */
static int32_t register_along(kiln_chain *chain, const kiln_value *v, int32_t axis) {
    int32_t made = made_register(chain, v), constant = made < 0 ? constant_register(chain, v) : -1;
    if (made >= 0 || constant >= 0) {
        return made >= 0 ? made : constant;
    }
    return input_register(chain, v, axis, (kiln_prog_affine){0});
}

static int32_t register_of(kiln_chain *chain, const kiln_value *v) {
    return register_along(chain, v, 0);
}

static void set_immediates(kiln_prog_instr *instr, const kiln_node *node) {
    const kiln_activation_attrs *a = node->attrs;
    switch (instr->op) {
    case KILN_PROG_CLIP:
        kiln_clip_bounds(node, &instr->p, &instr->q);
        break;
    case KILN_PROG_HARDSIGMOID:
        instr->p = a->alpha;
        instr->q = a->beta;
        break;
    case KILN_PROG_SELU:
        instr->p = a->alpha;
        instr->q = a->gamma;
        break;
    case KILN_PROG_SHRINK:
        instr->p = a->lambd;
        instr->q = a->bias;
        break;
    case KILN_PROG_GELU:
        instr->op = a->approximate ? KILN_PROG_GELU_TANH : KILN_PROG_GELU;
        break;
    case KILN_PROG_SILU:
    case KILN_PROG_ELU:
    case KILN_PROG_CELU:
    case KILN_PROG_LEAKYRELU:
    case KILN_PROG_THRESHOLDEDRELU:
        instr->p = a->alpha;
        break;
    default:
        break;
    }
}

static bool emit(kiln_chain *chain, kiln_prog_op code, const int32_t *regs, const kiln_node *node,
                 int32_t *dst) {
    if (chain->n_instrs == KILN_CHAIN_INSTRS) {
        return false;
    }
    kiln_prog_instr *instr = &chain->instr[chain->n_instrs];
    *instr = (kiln_prog_instr){.op = (uint8_t)code,
                               .dst = (uint8_t)(TEMP + chain->n_instrs),
                               .a = (uint8_t)regs[0],
                               .b = (uint8_t)regs[1],
                               .c = (uint8_t)regs[2]};
    set_immediates(instr, node);
    *dst = instr->dst;
    chain->n_instrs++;
    return true;
}

static void note_made(kiln_chain *chain, const kiln_node *node, int32_t reg) {
    chain->made[chain->n_made].value = node->out[0];
    chain->made[chain->n_made++].reg = (uint8_t)reg;
}

/* Scale and zero point are immediates where both are constants of one element, else registers. An
 * input is then dequantized as it is read. */
static bool add_quantizer(kiln_chain *chain, const kiln_node *node) {
    kiln_quant q;
    const kiln_value *zero = kiln_node_in(node, 2);
    bool quantizes = KILN_IS(node, quantize_linear);
    bool is_u8 = (quantizes ? node->out[0] : node->in[0])->type.dtype == KILN_DTYPE_U8;
    bool immediate = kiln_quant_read(node, &q) && q.n == 1;
    if (immediate && !quantizes && made_register(chain, node->in[0]) < 0) {
        kiln_prog_affine load = {q.scale[0], (float)kiln_quant_zero(&q, 0)};
        int32_t reg = input_register(chain, node->in[0], 0, load);
        if (reg >= 0) {
            note_made(chain, node, reg);
        }
        return reg >= 0;
    }
    int32_t regs[3] = {register_of(chain, node->in[0]), 0, 0}, dst;
    kiln_prog_op code = !quantizes ? KILN_PROG_DEQUANT
                        : is_u8    ? KILN_PROG_QUANT_U8
                                   : KILN_PROG_QUANT_S8;
    if (!immediate) {
        code = !quantizes ? KILN_PROG_DEQUANT_BY
               : is_u8    ? KILN_PROG_QUANT_U8_BY
                          : KILN_PROG_QUANT_S8_BY;
        regs[1] = register_along(chain, node->in[1], scale_axis(node));
        regs[2] = zero ? register_along(chain, zero, scale_axis(node)) : number_register(chain, 0);
    }
    if (regs[0] < 0 || regs[1] < 0 || regs[2] < 0 || !emit(chain, code, regs, node, &dst)) {
        return false;
    }
    if (immediate) {
        chain->instr[chain->n_instrs - 1].p = q.scale[0];
        chain->instr[chain->n_instrs - 1].q = (float)kiln_quant_zero(&q, 0);
    }
    note_made(chain, node, dst);
    return true;
}

static bool add_node(kiln_chain *chain, const kiln_node *node) {
    const rule *r = find_rule(node);
    if (is_quantizer(node)) {
        return add_quantizer(chain, node);
    }
    int32_t regs[3] = {0, 0, 0}, dst = 0;
    int32_t n = r->arity ? r->arity : node->n_in;
    for (int32_t i = 0; i < n; i++) {
        int32_t reg = register_of(chain, node->in[i]);
        if (reg < 0) {
            return false;
        }
        if (r->arity || i == 0) {
            regs[i] = reg;
            dst = reg;
            continue;
        }
        regs[1] = reg;
        if (!emit(chain, r->code, regs, node, &dst)) {
            return false;
        }
        regs[0] = dst;
    }
    if (r->arity && !emit(chain, r->code, regs, node, &dst)) {
        return false;
    }
    if (!r->arity && n == 1 && !emit(chain, KILN_PROG_COPY, regs, node, &dst)) {
        return false;
    }
    note_made(chain, node, dst);
    return true;
}

/* Most registers alive at once, were the chain finished now. */
static int32_t pressure(const kiln_chain *chain);

bool kiln_chain_add(kiln_chain *chain, const kiln_node *node) {
    kiln_chain before = *chain;
    if (!kiln_chain_takes(node) || chain->n_made == KILN_CHAIN_INSTRS || !add_node(chain, node) ||
        pressure(chain) > KILN_PROG_REGS) {
        *chain = before;
        return false;
    }
    return true;
}

/* Index of the last instruction that reads temporary t, or `never`. */
static int32_t last_read(const kiln_chain *chain, int32_t t, int32_t never) {
    for (int32_t i = chain->n_instrs - 1; i >= 0; i--) {
        const kiln_prog_instr *x = &chain->instr[i];
        if (x->a == t || x->b == t || x->c == t) {
            return i;
        }
    }
    return never;
}

/* Gives each temporary a register that is free from its writing to its last reading. Temporaries
 * that nothing reads are outputs and live to the end. Returns the registers used in total. */
static int32_t assign(const kiln_chain *chain, const bool *is_output, uint8_t *reg) {
    int32_t base = chain->n_in + chain->n_consts, used = base;
    int32_t free_from
        [KILN_CHAIN_INSTRS]; /* per register after base: instruction from which it is free */
    int32_t n = 0;
    for (int32_t i = 0; i < chain->n_instrs; i++) {
        int32_t until = last_read(chain, TEMP + i, INT32_MAX);
        if (is_output && is_output[i]) {
            until = INT32_MAX;
        }
        int32_t r = 0;
        while (r < n && free_from[r] > i) {
            r++;
        }
        free_from[r] = until;
        n = r == n ? n + 1 : n;
        reg[i] = (uint8_t)(base + r);
    }
    used += n;
    return used;
}

static int32_t pressure(const kiln_chain *chain) {
    uint8_t reg[KILN_CHAIN_INSTRS];
    return assign(chain, NULL, reg);
}

static uint8_t renumber(const kiln_chain *chain, const uint8_t *reg, uint8_t r) {
    if (r >= TEMP) {
        return reg[r - TEMP];
    }
    return r >= CONST ? (uint8_t)(r - CONST + chain->n_in) : r;
}

/* A quantization that ends the chain happens as its result, `*out`, is written. */
static kiln_prog_affine take_store(kiln_chain *chain, uint8_t *out) {
    kiln_prog_affine store = {0};
    if (chain->n_instrs == 0) {
        return store;
    }
    const kiln_prog_instr *last = &chain->instr[chain->n_instrs - 1];
    bool quantizes =
        last->dst == *out && (last->op == KILN_PROG_QUANT_U8 || last->op == KILN_PROG_QUANT_S8);
    if (quantizes) {
        store = (kiln_prog_affine){last->p, last->q};
        *out = last->a;
        chain->n_instrs--;
    }
    return store;
}

bool kiln_chain_finish(kiln_chain *chain, kiln_value *const *outputs, int32_t n) {
    uint8_t reg[KILN_CHAIN_INSTRS], out[KILN_PROG_OUTPUTS];
    bool is_output[KILN_CHAIN_INSTRS] = {false};
    kiln_prog_affine store = {0};
    if (n > KILN_PROG_OUTPUTS) {
        return false;
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t found = -1;
        for (int32_t k = 0; k < chain->n_made; k++) {
            found = chain->made[k].value == outputs[i] ? k : found;
        }
        if (found < 0) {
            return false;
        }
        out[i] = chain->made[found].reg;
        store = n == 1 ? take_store(chain, &out[i]) : store;
        if (out[i] >= TEMP) {
            is_output[out[i] - TEMP] = true;
        }
    }
    int32_t used = assign(chain, is_output, reg);
    if (used > KILN_PROG_REGS) {
        return false;
    }
    for (int32_t i = 0; i < chain->n_instrs; i++) {
        kiln_prog_instr *x = &chain->instr[i];
        x->dst = renumber(chain, reg, x->dst);
        x->a = renumber(chain, reg, x->a);
        x->b = renumber(chain, reg, x->b);
        x->c = renumber(chain, reg, x->c);
    }
    chain->program = (kiln_program){.inputs = chain->n_in,
                                    .consts = chain->n_consts,
                                    .instrs = chain->n_instrs,
                                    .outputs = n,
                                    .regs = used,
                                    .store = store};
    memcpy(chain->program.load, chain->load, sizeof chain->load);
    for (int32_t i = 0; i < n; i++) {
        chain->program.output[i] = renumber(chain, reg, out[i]);
    }
    kiln_chain_rebase(chain);
    return true;
}

void kiln_chain_rebase(kiln_chain *chain) {
    chain->program.constant = chain->constant;
    chain->program.instr = chain->instr;
}
