/* lower.c - see lower.h. */
#include "build/lower.h"

#include <string.h>

#include "build/quantized.h"
#include "build/widen.h"

typedef struct lowering {
    const char *name;
    bool (*finds_work)(const kiln_graph *graph);
    kiln_status (*apply)(kiln_graph *graph, const kiln_cpu_target *target, size_t *n,
                         kiln_diag *diag);
} lowering;

static kiln_status widen(kiln_graph *graph, const kiln_cpu_target *target, size_t *n,
                         kiln_diag *diag) {
    (void)target;
    KILN_TRY(kiln_widen(graph, n, diag));
    kiln_note(diag, KILN_F_PRECISION, "%zu nodes of float16 or bfloat16 run in float32 on this CPU",
              *n);
    return KILN_OK;
}

static kiln_status make_unsigned(kiln_graph *graph, const kiln_cpu_target *target, size_t *n,
                                 kiln_diag *diag) {
    (void)target;
    return kiln_make_unsigned(graph, n, diag);
}

static kiln_status split(kiln_graph *graph, const kiln_cpu_target *target, size_t *n,
                         kiln_diag *diag) {
    (void)target;
    return kiln_split_dequantize(graph, n, diag);
}

/* In the order they run. */
static const lowering lowerings[] = {
    {"widen", kiln_needs_widening, widen},
    {"unsigned", kiln_is_quantized, make_unsigned},
    {"split", kiln_is_quantized, split},
    {"unquantize", kiln_is_quantized, kiln_fold_weights},
};

const char *kiln_lowering_at(size_t i) {
    return i < KILN_COUNT_OF(lowerings) ? lowerings[i].name : NULL;
}

bool kiln_lowering_exists(const char *name) {
    for (size_t i = 0; i < KILN_COUNT_OF(lowerings); i++) {
        if (strcmp(lowerings[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool applies(const lowering *l, const kiln_graph *graph, const kiln_cpu_target *target) {
    return !kiln_target_is_off(target, l->name) && l->finds_work(graph);
}

bool kiln_needs_lowering(const kiln_graph *graph, const kiln_cpu_target *target) {
    for (size_t i = 0; i < KILN_COUNT_OF(lowerings); i++) {
        if (applies(&lowerings[i], graph, target)) {
            return true;
        }
    }
    return false;
}

kiln_status kiln_lower(kiln_graph *graph, const kiln_cpu_target *target, size_t *n_widened,
                       kiln_diag *diag) {
    *n_widened = 0;
    for (size_t i = 0; i < KILN_COUNT_OF(lowerings); i++) {
        size_t n = 0;
        if (!applies(&lowerings[i], graph, target)) {
            continue;
        }
        KILN_TRY(lowerings[i].apply(graph, target, &n, diag));
        *n_widened += lowerings[i].apply == widen ? n : 0;
    }
    return KILN_OK;
}
