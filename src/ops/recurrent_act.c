/* recurrent_act.c - the activations that the attributes of LSTM, GRU and RNN name. */
#include <math.h>
#include <string.h>

#include "ops/recurrent.h"

typedef struct act_row {
    const char *name;
    bool has_alpha, has_beta;
    float alpha, beta; /* defaults */
} act_row;

static const act_row rows[] = {
    [KILN_CELL_SIGMOID] = {"sigmoid", false, false, 0, 0},
    [KILN_CELL_TANH] = {"tanh", false, false, 0, 0},
    [KILN_CELL_RELU] = {"relu", false, false, 0, 0},
    [KILN_CELL_AFFINE] = {"affine", true, true, 1, 0},
    [KILN_CELL_LEAKY_RELU] = {"leakyrelu", true, false, 0.01f, 0},
    [KILN_CELL_THRESHOLDED_RELU] = {"thresholdedrelu", true, false, 1, 0},
    [KILN_CELL_SCALED_TANH] = {"scaledtanh", true, true, 1, 1},
    [KILN_CELL_HARD_SIGMOID] = {"hardsigmoid", true, true, 0.2f, 0.5f},
    [KILN_CELL_ELU] = {"elu", true, false, 1, 0},
    [KILN_CELL_SOFTSIGN] = {"softsign", false, false, 0, 0},
    [KILN_CELL_SOFTPLUS] = {"softplus", false, false, 0, 0},
};

/* Names are compared without regard to the case of ASCII letters. */
static bool same_name(const char *a, const char *b) {
    for (; *a && *b; a++, b++) {
        int x = *a >= 'A' && *a <= 'Z' ? *a - 'A' + 'a' : *a;
        if (x != *b) {
            return false;
        }
    }
    return *a == *b;
}

static kiln_status find(const char *name, kiln_diag *diag, kiln_cell_act *out) {
    for (size_t i = 0; i < KILN_COUNT_OF(rows); i++) {
        if (same_name(name, rows[i].name)) {
            *out = (kiln_cell_act)i;
            return KILN_OK;
        }
    }
    return kiln_fail(diag, KILN_F_ATTR_VALUE, "activations names \"%s\", which is no activation",
                     name);
}

kiln_status kiln_cell_activations(kiln_cell cell, const kiln_rnn_attrs *a, kiln_diag *diag,
                                  kiln_cell_activation *act) {
    static const kiln_cell_act usual[][3] = {
        [KILN_CELL_RNN] = {KILN_CELL_TANH},
        [KILN_CELL_GRU] = {KILN_CELL_SIGMOID, KILN_CELL_TANH},
        [KILN_CELL_LSTM] = {KILN_CELL_SIGMOID, KILN_CELL_TANH, KILN_CELL_TANH}};
    int32_t each = kiln_cell_act_count(cell), n = each * (a->direction == 2 ? 2 : 1);
    int64_t alpha = 0, beta = 0;
    if (a->activations.n != 0 && a->activations.n != n) {
        return kiln_fail(diag, KILN_F_ATTR_VALUE, "activations has %lld items, %d are needed",
                         (long long)a->activations.n, n);
    }
    for (int32_t i = 0; i < n; i++) {
        kiln_cell_activation *f = &act[i];
        f->kind = usual[cell][i % each];
        if (a->activations.n) {
            KILN_TRY(find(a->activations.v[i], diag, &f->kind));
        }
        const act_row *row = &rows[f->kind];
        f->alpha = row->alpha;
        f->beta = row->beta;
        if (row->has_alpha && alpha < a->activation_alpha.n) {
            f->alpha = a->activation_alpha.v[alpha++];
        }
        if (row->has_beta && beta < a->activation_beta.n) {
            f->beta = a->activation_beta.v[beta++];
        }
    }
    return KILN_OK;
}

double kiln_cell_apply(const kiln_cell_activation *f, double v) {
    double alpha = f->alpha, beta = f->beta;
    switch (f->kind) {
    case KILN_CELL_SIGMOID:
        return 1 / (1 + exp(-v));
    case KILN_CELL_TANH:
        return tanh(v);
    case KILN_CELL_RELU:
        return v < 0 ? 0 : v;
    case KILN_CELL_AFFINE:
        return alpha * v + beta;
    case KILN_CELL_LEAKY_RELU:
        return v < 0 ? alpha * v : v;
    case KILN_CELL_THRESHOLDED_RELU:
        return v < alpha ? 0 : v;
    case KILN_CELL_SCALED_TANH:
        return alpha * tanh(beta * v);
    case KILN_CELL_HARD_SIGMOID:
        v = alpha * v + beta;
        return v < 0 ? 0 : v > 1 ? 1 : v;
    case KILN_CELL_ELU:
        return v < 0 ? alpha * expm1(v) : v;
    case KILN_CELL_SOFTSIGN:
        return v / (1 + fabs(v));
    case KILN_CELL_SOFTPLUS:
        return v > 0 ? v + log1p(exp(-v)) : log1p(exp(v));
    }
    return v;
}
