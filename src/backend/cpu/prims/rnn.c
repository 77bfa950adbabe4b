/* rnn.c - packing recurrent weights and running a recurrence on a team. */
#include "backend/cpu/prims/rnn.h"

#include <string.h>

/* One gate group of one block: gates [gate0, gate0 + count), elements of `size` bytes. */
static char *pack_group(char *dst, int64_t hidden, const char *r, size_t size, int64_t block,
                        int64_t gate0, int64_t count) {
    for (int64_t k = 0; k < hidden; k++) {
        for (int64_t g = gate0; g < gate0 + count; g++) {
            for (int64_t lane = 0; lane < KILN_RNN_LANES; lane++, dst += size) {
                int64_t unit = block * KILN_RNN_LANES + lane;
                if (unit < hidden) {
                    memcpy(dst, r + (size_t)((g * hidden + unit) * hidden + k) * size, size);
                } else {
                    memset(dst, 0, size);
                }
            }
        }
    }
    return dst;
}

static void pack(char *dst, kiln_rnn_kind kind, int64_t hidden, const char *r, size_t size) {
    for (int64_t b = 0; b < kiln_rnn_blocks(hidden); b++) {
        if (kind == KILN_RNN_GRU) {
            dst = pack_group(dst, hidden, r, size, b, 0, 2);
            dst = pack_group(dst, hidden, r, size, b, 2, 1);
        } else {
            dst = pack_group(dst, hidden, r, size, b, 0, kiln_rnn_gates(kind));
        }
    }
}

void kiln_rnn_pack(float *dst, kiln_rnn_kind kind, int64_t hidden, const float *r) {
    pack((char *)dst, kind, hidden, (const char *)r, sizeof *r);
}

void kiln_rnn_pack_bytes(int8_t *dst, kiln_rnn_kind kind, int64_t hidden, const int8_t *r) {
    pack((char *)dst, kind, hidden, (const char *)r, 1);
}

void kiln_rnn_pack_scales(float *dst, kiln_rnn_kind kind, int64_t hidden, const float *scale) {
    for (int64_t b = 0; b < kiln_rnn_blocks(hidden); b++) {
        for (int64_t g = 0; g < kiln_rnn_gates(kind); g++) {
            for (int64_t lane = 0; lane < KILN_RNN_LANES; lane++) {
                int64_t unit = b * KILN_RNN_LANES + lane;
                *dst++ = unit < hidden ? scale[g * hidden + unit] : 0.0f;
            }
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
