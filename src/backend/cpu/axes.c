#include "backend/cpu/axes.h"

#include "ops/attrs.h"

kiln_lane kiln_lane_at(const kiln_operand *o, int32_t axis) {
    int64_t dims[KILN_MAX_RANK];
    int32_t rank = o->tensor.rank, at = kiln_physical_axis(axis, rank, o->layout);
    kiln_lane lane = {.outer = 1, .n = 1, .inner = 1};
    kiln_physical_dims(&o->tensor, o->layout, dims);
    for (int32_t d = 0; d < rank; d++) {
        *(d < at ? &lane.outer : d == at ? &lane.n : &lane.inner) *= dims[d];
    }
    return lane;
}

int32_t kiln_move_bytes(kiln_dtype dtype) {
    int32_t bits = dtype == KILN_DTYPE_STRING ? 0 : kiln_dtype_bits(dtype);
    return bits == 8 || bits == 16 || bits == 32 || bits == 64 ? bits / 8 : 0;
}

bool kiln_claim_shape_inputs(kiln_claimer *c, kiln_claim *claim, const kiln_node *node,
                             int32_t first) {
    for (int32_t i = first; i < node->n_in; i++) {
        kiln_value *v = node->in[i];
        if (v && !v->constant && kiln_claim_input(c, claim, v, KILN_LAYOUT_ROW) < 0) {
            return false;
        }
    }
    return true;
}

kiln_status kiln_bind_ints(const kiln_binder *b, const kiln_node *node, int32_t i,
                           const int64_t **v, int64_t *n) {
    *v = NULL;
    *n = 0;
    if (!kiln_node_in(node, i)) {
        return KILN_OK;
    }
    const kiln_fact *f = b->fact(b, node->in[i]);
    if (!f) {
        return KILN_E_MEMORY;
    }
    if (!f->contents) {
        return kiln_fail(b->diag, KILN_F_INTERNAL, "input %d is not known at binding", i);
    }
    for (int64_t k = 0; k < f->n_contents; k++) {
        if (!kiln_dim_known(f->contents[k])) {
            return kiln_fail(b->diag, KILN_F_INTERNAL,
                             "element %lld of input %d is not known at binding", (long long)k, i);
        }
    }
    *v = f->contents;
    *n = f->n_contents;
    return KILN_OK;
}

bool kiln_claim_ints(const kiln_value *v, const int64_t **data, int64_t *n) {
    const kiln_tensor *t = v ? kiln_small_data(v) : NULL;
    if (!t || t->dtype != KILN_DTYPE_I64) {
        return false;
    }
    *data = t->data;
    *n = kiln_tensor_count(t);
    return true;
}

kiln_status kiln_bind_tensor(const kiln_binder *b, const kiln_value *v, kiln_tensor *out) {
    const kiln_fact *f = b->fact(b, v);
    *out = (kiln_tensor){0};
    if (!f) {
        return KILN_E_MEMORY;
    }
    return kiln_type_to_tensor(&f->type, out) ? KILN_OK : KILN_E_INTERNAL;
}

int64_t kiln_perm_at(const kiln_node *transpose, int32_t rank, int32_t d) {
    kiln_ints perm = ((const kiln_perm_attrs *)transpose->attrs)->perm;
    return perm.v ? perm.v[d] : rank - 1 - d;
}

bool kiln_moves_units(const kiln_node *node, const kiln_type *x) {
    int64_t last = -1;
    for (int32_t d = 0; d < x->rank; d++) {
        int64_t from = kiln_perm_at(node, x->rank, d);
        if (x->dims[from] != 1) {
            if (from < last) {
                return false;
            }
            last = from;
        }
    }
    return true;
}

bool kiln_puts_channels_last(const kiln_node *node, int32_t rank) {
    for (int32_t d = 0; d < rank; d++) {
        if (kiln_perm_at(node, rank, d) != (d == 0 ? 0 : d == rank - 1 ? 1 : d + 1)) {
            return false;
        }
    }
    return rank >= 3;
}

bool kiln_puts_channels_first(const kiln_node *node, int32_t rank) {
    for (int32_t d = 0; d < rank; d++) {
        if (kiln_perm_at(node, rank, d) != (d == 0 ? 0 : d == 1 ? rank - 1 : d - 1)) {
            return false;
        }
    }
    return rank >= 3;
}

kiln_tile_share kiln_tile_share_of(const kiln_team *team, int64_t matrices, int64_t tiles) {
    kiln_tile_share s = {.tiles = tiles};
    kiln_team_split(team, matrices * tiles, &s.begin, &s.end);
    return s;
}

bool kiln_tile_next(kiln_tile_share *s, kiln_tile_run *r) {
    if (s->begin >= s->end) {
        return false;
    }
    r->matrix = s->begin / s->tiles;
    r->from = s->begin % s->tiles;
    int64_t left = s->end - r->matrix * s->tiles;
    r->to = left < s->tiles ? left : s->tiles;
    s->begin += r->to - r->from;
    return true;
}

int64_t kiln_matrix_rows(const kiln_tensor *x) {
    int64_t rows = 1;
    for (int32_t d = 0; d + 1 < x->rank; d++) {
        rows *= x->dims[d];
    }
    return rows;
}
