/* contrib_build.c - see contrib.h: reading the node that is rewritten, making those that replace
 * it. */
#include <string.h>

#include "onnx/contrib.h"

static bool failed(kiln_contrib *c, kiln_status status) {
    c->status = c->status ? c->status : status;
    return c->status != KILN_OK;
}

/* ---- The node that is rewritten ---- */

kiln_value *kiln_contrib_in(const kiln_contrib *c, int32_t i) {
    return i < c->s->n_in ? c->s->in[i] : NULL;
}

kiln_value *kiln_contrib_need(kiln_contrib *c, int32_t i) {
    kiln_value *v = kiln_contrib_in(c, i);
    if (!v && c->status == KILN_OK) {
        failed(c, kiln_fail(c->im->d.diag, KILN_F_ARITY, "input %d is left out, but required", i));
    }
    return v;
}

int64_t kiln_contrib_get_int(kiln_contrib *c, const char *name, int64_t def) {
    int64_t v = def;
    failed(c, kiln_source_int(c->im, c->s, name, def, &v));
    return v;
}

float kiln_contrib_get_float(kiln_contrib *c, const char *name, float def) {
    float v = def;
    failed(c, kiln_source_float(c->im, c->s, name, def, &v));
    return v;
}

const char *kiln_contrib_get_text(kiln_contrib *c, const char *name, const char *def) {
    const char *v = def;
    failed(c, kiln_source_text(c->im, c->s, name, def, &v));
    return v;
}

kiln_ints kiln_contrib_get_ints(kiln_contrib *c, const char *name) {
    kiln_ints v = {0};
    failed(c, kiln_source_ints(c->im, c->s, name, &v));
    return v;
}

kiln_floats kiln_contrib_get_floats(kiln_contrib *c, const char *name) {
    kiln_floats v = {0};
    failed(c, kiln_source_floats(c->im, c->s, name, &v));
    return v;
}

void kiln_contrib_refuse(kiln_contrib *c, const char *why) {
    if (c->status == KILN_OK) {
        failed(c, kiln_fail(c->im->d.diag, KILN_F_VARIANT, "%s is not supported", why));
    }
}

void kiln_contrib_unused(kiln_contrib *c, int32_t i) {
    kiln_importer *im = c->im;
    if (c->status || i >= c->s->n_out || !c->s->out[i]) {
        return;
    }
    kiln_value **grown = kiln_arena_grow(&im->lists, im->dropped, im->n_dropped, &im->cap_dropped,
                                         sizeof *im->dropped);
    if (!grown) {
        failed(c, KILN_E_MEMORY);
        return;
    }
    im->dropped = grown;
    grown[im->n_dropped++] = c->s->out[i];
}

/* ---- Nodes ---- */

static kiln_contrib_attr *next_attr(kiln_contrib *c, const char *name, kiln_attr_kind kind) {
    kiln_contrib_attr *a = &c->attrs[c->n_attrs < KILN_CONTRIB_ATTRS ? c->n_attrs++ : 0];
    memset(a, 0, sizeof *a);
    a->name = name;
    a->kind = kind;
    return a;
}

void kiln_contrib_int(kiln_contrib *c, const char *name, int64_t v) {
    next_attr(c, name, KILN_ATTR_INT)->i = v;
}

void kiln_contrib_float(kiln_contrib *c, const char *name, float v) {
    next_attr(c, name, KILN_ATTR_FLOAT)->f = v;
}

void kiln_contrib_text(kiln_contrib *c, const char *name, const char *v) {
    next_attr(c, name, KILN_ATTR_STRING)->text = v;
}

void kiln_contrib_ints(kiln_contrib *c, const char *name, kiln_ints v) {
    if (v.v) {
        next_attr(c, name, KILN_ATTR_INTS)->ints = v;
    }
}

static kiln_status set_attr(kiln_importer *im, kiln_source *made, const kiln_contrib_attr *a) {
    switch (a->kind) {
    case KILN_ATTR_INT:
        return kiln_source_set_int(im, made, a->name, a->i);
    case KILN_ATTR_FLOAT:
        return kiln_source_set_float(im, made, a->name, a->f);
    case KILN_ATTR_STRING:
        return kiln_source_set_text(im, made, a->name, a->text);
    default:
        return kiln_source_set_ints(im, made, a->name, a->ints.v, (size_t)a->ints.n);
    }
}

static kiln_status fresh(const kiln_contrib *c, kiln_value **out) {
    const char *base = c->s->n_out > 0 && c->s->out[0] ? c->s->out[0]->name : c->s->op;
    const char *name = kiln_graph_fresh_name(c->frame->graph, base);
    return name ? kiln_graph_value(out, c->frame->graph, name) : KILN_E_MEMORY;
}

static kiln_status emit(kiln_contrib *c, const char *op, kiln_value *const *in, int32_t n_in,
                        kiln_value **out, int32_t n_out) {
    kiln_source made;
    for (int32_t i = 0; i < n_out; i++) {
        if (!out[i]) {
            KILN_TRY(fresh(c, &out[i]));
        }
    }
    KILN_TRY(kiln_source_make(c->im, c->s, op, in, n_in, out, n_out, &made));
    for (int32_t i = 0; i < c->n_attrs; i++) {
        KILN_TRY(set_attr(c->im, &made, &c->attrs[i]));
    }
    made.domain = c->domain ? c->domain : "";
    c->domain = NULL;
    c->n_attrs = 0;
    return kiln_emit(c->im, c->frame, &made, NULL);
}

void kiln_contrib_emit(kiln_contrib *c, const char *op, kiln_value *const *in, int32_t n_in,
                       kiln_value **out, int32_t n_out) {
    if (c->status == KILN_OK) {
        failed(c, emit(c, op, in, n_in, out, n_out));
    }
}

kiln_value *kiln_contrib_node(kiln_contrib *c, const char *op, kiln_value *const *in,
                              int32_t n_in) {
    kiln_value *out = NULL;
    kiln_contrib_emit(c, op, in, n_in, &out, 1);
    return out;
}

void kiln_contrib_last(kiln_contrib *c, const char *op, kiln_value *const *in, int32_t n_in) {
    kiln_value *out = c->s->n_out > 0 ? c->s->out[0] : NULL;
    kiln_contrib_emit(c, op, in, n_in, &out, 1);
}

kiln_value *kiln_contrib_list(kiln_contrib *c, const int64_t *v, int64_t n) {
    kiln_value *out = NULL;
    return c->status || failed(c, kiln_make_ints(c->im, c->frame, v, n, &out)) ? NULL : out;
}

kiln_value *kiln_contrib_scalar_like(kiln_contrib *c, float v, kiln_value *like) {
    kiln_value *out = NULL;
    return c->status || failed(c, kiln_make_float_like(c->im, c->frame, c->s, v, like, &out)) ? NULL
                                                                                              : out;
}

kiln_value *kiln_contrib_add(kiln_contrib *c, kiln_value *a, kiln_value *b) {
    return b ? KILN_CONTRIB_NODE(c, "Add", a, b) : a;
}

/* Permutation of 2 + spatial dims that moves the channels. */
static void set_perm(kiln_contrib *c, int64_t *perm, int64_t spatial, bool to_nchw) {
    perm[0] = 0;
    for (int64_t i = 1; i < spatial + 2; i++) {
        perm[i] = to_nchw ? i - 1 : i + 1;
    }
    if (to_nchw) {
        perm[1] = spatial + 1;
    } else {
        perm[spatial + 1] = 1;
    }
    kiln_contrib_ints(c, "perm", (kiln_ints){perm, spatial + 2});
}

static bool fits_rank(kiln_contrib *c, int64_t spatial) {
    if (spatial < 1 || spatial > KILN_MAX_RANK - 2) {
        kiln_contrib_refuse(c, "this number of spatial dims");
    }
    return c->status == KILN_OK;
}

kiln_value *kiln_contrib_to_nchw(kiln_contrib *c, kiln_value *x, int64_t spatial) {
    int64_t perm[KILN_MAX_RANK];
    if (!fits_rank(c, spatial)) {
        return NULL;
    }
    set_perm(c, perm, spatial, true);
    return KILN_CONTRIB_NODE(c, "Transpose", x);
}

void kiln_contrib_last_to_nhwc(kiln_contrib *c, kiln_value *x, int64_t spatial) {
    int64_t perm[KILN_MAX_RANK];
    if (fits_rank(c, spatial)) {
        set_perm(c, perm, spatial, false);
        KILN_CONTRIB_LAST(c, "Transpose", x);
    }
}
