#include "backend/cpu/kernels/half.h"

#include "base/half.h"
#include "ops/ops.h"

bool kiln_half_asked(kiln_claimer *c, const kiln_node *node, const kiln_kernel *kernel) {
    if (kernel->computes != KILN_DTYPE_NONE && node->precision.dtype != kernel->computes) {
        kiln_claim_refuse(c, "nothing asks for %s here", kiln_dtype_name(kernel->computes));
        return false;
    }
    return true;
}

/* ---- Staging ---- */

enum { PART = 4096 }; /* elements that one member stages at a time */

void kiln_stage_hold(const kiln_claimer *c, kiln_claim *claim, int64_t n) {
    const bool rounds = claim->kernel->computes == KILN_DTYPE_BF16;
    if (rounds && n % 2 == 0 && kiln_target_holds_half(c->target)) {
        claim->in_held[0] = KILN_HELD_ROUNDS;
    }
}

void kiln_stage_bind(kiln_stage *s, kiln_binder *b, const kiln_gemm_prims *prims, int64_t rows,
                     int64_t n) {
    const bool held = b->in[0].tensor.dtype == KILN_DTYPE_BF16;
    *s = (kiln_stage){.stage = held ? NULL : prims->stage, .rows = rows, .n = n};
    s->in_words = held || s->stage;
    s->words = (n + prims->step - 1) / prims->step;
    b->shared_bytes += s->stage ? (size_t)(rows * s->words) * sizeof(float) : 0;
    if (n % prims->step == 0) {
        s->n *= s->rows;
        s->words *= s->rows;
        s->rows = 1;
    }
}

const float *kiln_stage_run(const kiln_stage *s, const kiln_call *call, const kiln_team *team) {
    const float *x = call->in[0];
    float *words = call->shared;
    int64_t begin, end;
    if (!s->stage) {
        return x;
    }
    if (s->rows == 1) {
        const int64_t step = s->words > 0 ? s->n / s->words : 1;
        kiln_team_split(team, (s->n + PART - 1) / PART, &begin, &end);
        for (int64_t i = begin * PART; i < end * PART && i < s->n; i += PART) {
            s->stage(words + i / step, x + i, 1, s->n - i < PART ? s->n - i : PART);
        }
    } else {
        kiln_team_split(team, s->rows, &begin, &end);
        s->stage(words + begin * s->words, x + begin * s->n, end - begin, s->n);
    }
    kiln_team_barrier(team);
    return words;
}

/* ---- The reference ---- */

/* Values of the region that are known so far. */
typedef struct scope {
    const kiln_claim *claim;
    const kiln_datum *in;
    kiln_value **values;
    kiln_datum *data;
    int32_t count;
    kiln_arena *arena;
    kiln_diag *diag;
} scope;

static kiln_status find(const scope *s, const kiln_value *v, kiln_datum *out) {
    *out = (kiln_datum){.kind = KILN_KIND_NONE};
    if (v && v->constant) {
        out->kind = KILN_KIND_TENSOR;
        return kiln_const_eval(v, &out->tensor, s->arena, s->diag);
    }
    for (int32_t i = 0; v && i < s->count; i++) {
        *out = s->values[i] == v ? s->data[i] : *out;
    }
    for (int32_t i = 0; v && i < s->claim->n_in; i++) {
        *out = s->claim->in[i] == v ? s->in[i] : *out;
    }
    return KILN_OK;
}

/* A copy rounded to the type and widened again. */
static kiln_status round_datum(kiln_datum *d, kiln_dtype dtype, kiln_arena *arena) {
    const float *src = d->tensor.data;
    int64_t n = kiln_tensor_count(&d->tensor);
    float *dst;
    KILN_ALLOC(dst, arena, n);
    for (int64_t i = 0; i < n; i++) {
        dst[i] = dtype == KILN_DTYPE_BF16 ? kiln_bf16_to_f32(kiln_f32_to_bf16(src[i]))
                                          : kiln_f16_to_f32(kiln_f32_to_f16(src[i]));
    }
    d->tensor.data = dst;
    return KILN_OK;
}

static kiln_status eval(scope *s, const kiln_node *n) {
    const kiln_dtype dtype = s->claim->kernel->computes;
    kiln_datum *in, *out;
    KILN_ALLOC(in, s->arena, n->n_in);
    KILN_ALLOC(out, s->arena, n->n_out);
    for (int32_t i = 0; i < n->n_in; i++) {
        KILN_TRY(find(s, n->in[i], &in[i]));
        bool rounds = n == s->claim->anchor && i < 2 && (i == 1 || dtype == KILN_DTYPE_BF16);
        if (rounds) {
            KILN_TRY(round_datum(&in[i], dtype, s->arena));
        }
    }
    KILN_TRY(kiln_eval_node(n, in, out, NULL, s->arena, s->diag));
    for (int32_t i = 0; i < n->n_out; i++) {
        s->values[s->count] = n->out[i];
        s->data[s->count++] = out[i];
    }
    return KILN_OK;
}

kiln_status kiln_half_reference(const kiln_claim *claim, const kiln_datum *in, kiln_datum *out,
                                kiln_arena *arena, kiln_diag *diag) {
    scope s = {.claim = claim, .in = in, .arena = arena, .diag = diag};
    int32_t n_values = 0;
    for (int32_t i = 0; i < claim->n_nodes; i++) {
        n_values += claim->nodes[i]->n_out;
    }
    KILN_ALLOC(s.values, arena, n_values);
    KILN_ALLOC(s.data, arena, n_values);
    for (int32_t i = 0; i < claim->n_nodes; i++) {
        KILN_TRY(eval(&s, claim->nodes[i]));
    }
    return find(&s, claim->out[0], out);
}
