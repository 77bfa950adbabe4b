/* rnn.c - packing recurrent weights and running a recurrence on a team. */
#include "backend/cpu/prims/rnn.h"

/* One gate group of one block: gates [gate0, gate0 + count). */
static float *pack_group(float *dst, int64_t hidden, const float *r, int64_t block, int64_t gate0,
                         int64_t count) {
    for (int64_t k = 0; k < hidden; k++) {
        for (int64_t g = gate0; g < gate0 + count; g++) {
            for (int64_t lane = 0; lane < KILN_RNN_LANES; lane++) {
                int64_t unit = block * KILN_RNN_LANES + lane;
                *dst++ = unit < hidden ? r[(g * hidden + unit) * hidden + k] : 0.0f;
            }
        }
    }
    return dst;
}

void kiln_rnn_pack(float *dst, kiln_rnn_kind kind, int64_t hidden, const float *r) {
    for (int64_t b = 0; b < kiln_rnn_blocks(hidden); b++) {
        if (kind == KILN_RNN_GRU) {
            dst = pack_group(dst, hidden, r, b, 0, 2);
            dst = pack_group(dst, hidden, r, b, 2, 1);
        } else {
            dst = pack_group(dst, hidden, r, b, 0, kiln_rnn_gates(kind));
        }
    }
}

void kiln_rnn_run(const kiln_rnn_prims *prims, const kiln_rnn_args *args, const kiln_team *team) {
    int64_t block0;
    int64_t block1;
    int64_t batch0;
    int64_t batch1;
    kiln_team_split(team, kiln_rnn_blocks(args->hidden), &block0, &block1);
    kiln_team_split(team, args->batch, &batch0, &batch1);
    prims->begin(args, batch0, batch1);
    kiln_team_barrier(team);
    for (int64_t s = 0; s < args->steps; s++) {
        for (int phase = 0; phase < kiln_rnn_phases(args); phase++) {
            prims->step(args, s, phase, block0, block1, 0, args->batch);
            kiln_team_barrier(team);
        }
    }
    prims->end(args, batch0, batch1);
    kiln_team_barrier(team);
}
