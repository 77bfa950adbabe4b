#include "engine/trial.h"

/* Binding asks where weights lie, and never what they are: all lie in the same zeros. */
static kiln_status place_weights(kiln_plan *plan, kiln_arena *arena) {
    size_t most = 0;
    char *zeros;
    for (size_t i = 0; i < plan->n_claims; i++) {
        for (int32_t b = 0; b < plan->n_blobs[i]; b++) {
            most = plan->blobs[i][b].bytes > most ? plan->blobs[i][b].bytes : most;
        }
    }
    KILN_ALLOC(zeros, arena, most);
    for (size_t i = 0; i < plan->n_claims; i++) {
        for (int32_t b = 0; b < plan->n_blobs[i]; b++) {
            plan->blobs[i][b].data = zeros;
        }
    }
    return KILN_OK;
}

kiln_status kiln_cover_trial_open(kiln_cover_trial *out, const kiln_graph *graph,
                                  const kiln_cpu_target *target, const kiln_datum *inputs,
                                  const kiln_env *env, kiln_diag *diag) {
    const kiln_exec_options o = {.env = env, .threads = 1, .measuring = true};
    const kiln_packing packing = {.measuring = true};
    *out = (kiln_cover_trial){.plan = NULL};
    kiln_arena_init(&out->arena, env);
    KILN_TRY(kiln_cpu_plan_graph(&out->plan, graph, NULL, target, &out->arena, NULL, NULL, diag));
    KILN_TRY(kiln_cpu_pack(out->plan, target, &packing, &out->arena, diag));
    KILN_TRY(place_weights(out->plan, &out->arena));
    KILN_TRY(kiln_exec_create(&out->exec, out->plan, target, &o, diag));
    return kiln_exec_bind(out->exec, inputs, diag);
}

void kiln_cover_trial_close(kiln_cover_trial *trial) {
    kiln_exec_destroy(trial->exec);
    kiln_arena_free(&trial->arena);
    *trial = (kiln_cover_trial){.plan = NULL};
}

bool kiln_cover_trial_get(const kiln_cover_trial *trial, size_t i, kiln_cover_trial_call *out) {
    kiln_needs needs;
    if (!trial->exec || !kiln_exec_needs(trial->exec, i, &needs)) {
        return false;
    }
    *out = (kiln_cover_trial_call){trial->plan->steps[needs.step].claim, needs.bytes, needs.way};
    return true;
}
