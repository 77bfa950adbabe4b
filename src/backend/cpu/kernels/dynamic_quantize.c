/* dynamic_quantize.c - DynamicQuantizeLinear: float32 to uint8 by the range of the data. The team
 * finds the range part by part, meets, and quantizes. */
#include "backend/cpu/kernel.h"
#include "backend/cpu/prims/quantize.h"
#include "ops/ops.h"
#include "ops/requantize.h"

enum { PARTS = 64 };

typedef struct dynamic_state {
    const kiln_quantize_prims *prims;
    int64_t n;
} dynamic_state;

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    if (!KILN_IS(node, dynamic_quantize_linear)) {
        return kiln_claim_refuse(c, "it runs DynamicQuantizeLinear");
    }
    if (!kiln_value_is_f32(node->in[0]) || node->n_out != 3) {
        return kiln_claim_refuse(c, "it takes float32 of known rank and gives three outputs");
    }
    kiln_claim *r = kiln_claim_new(c, &kiln_kernel_dynamic_quantize, node, 1, 3, 0);
    if (r) {
        r->in[0] = node->in[0];
        r->in_layouts[0] = r->out_layouts[0] = KILN_LAYOUT_ANY;
        r->same_layout = true;
    }
    return r;
}

static kiln_status bind(kiln_binder *b) {
    dynamic_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->prims = b->target->prims->quantize;
    s->n = kiln_tensor_count(&b->in[0].tensor);
    b->shared_bytes = PARTS * 2 * sizeof(float);
    b->state = s;
    return KILN_OK;
}

static int64_t part(const dynamic_state *s, int64_t i) {
    return s->n / PARTS * i + (i * (s->n % PARTS)) / PARTS;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const dynamic_state *s = call->state;
    const float *x = call->in[0];
    float *ranges = call->shared, lo = 0, hi = 0;
    int64_t begin, end;
    kiln_team_split(team, PARTS, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        ranges[2 * i] = ranges[2 * i + 1] = 0;
        s->prims->range(x + part(s, i), part(s, i + 1) - part(s, i), &ranges[2 * i],
                        &ranges[2 * i + 1]);
    }
    kiln_team_barrier(team);
    for (int64_t i = 0; i < PARTS; i++) {
        lo = ranges[2 * i] < lo ? ranges[2 * i] : lo;
        hi = ranges[2 * i + 1] > hi ? ranges[2 * i + 1] : hi;
    }
    float scale = hi == lo ? 1.0f / 255.0f : (hi - lo) / 255.0f, exact = -lo / scale;
    int32_t zero = (int32_t)kiln_quantize_saturate(exact, 0, KILN_DTYPE_U8);
    for (int64_t i = begin; i < end; i++) {
        int64_t at = part(s, i);
        s->prims->quantize((uint8_t *)call->out[0] + at, x + at, part(s, i + 1) - at, scale, zero);
    }
    if (team->rank == 0) {
        *(float *)call->out[1] = scale;
        *(uint8_t *)call->out[2] = (uint8_t)zero;
    }
}

const kiln_kernel kiln_kernel_dynamic_quantize = {
    .name = "dynamic_quantize",
    .claim = claim,
    .bind = bind,
    .run = run,
};
