/* generate.c - inputs made up from a seed. The generator and its mapping to elements are part of
 * the interface: kiln/tools.h states them, and other programs repeat them. */
#include <math.h>
#include <string.h>

#include "base/env.h"
#include "base/options.h"
#include "flow/flow.h"
#include "ops/util.h"

/* Items of a generated sequence: more than one, so that order matters. */
enum { SEQUENCE_ITEMS = 2 };

/* Fowler, Noll and Vo's hash, 64 bits, variant 1a. */
static uint64_t fnv1a(const char *text) {
    uint64_t h = 0xCBF29CE484222325u;
    for (; *text; text++) {
        h = (h ^ (uint8_t)*text) * 0x100000001B3u;
    }
    return h;
}

static uint64_t draw(uint64_t s0, int64_t i) {
    uint64_t z = s0 + ((uint64_t)i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static const kiln_shape *find_shape(const kiln_generate_options *o, const char *name) {
    for (size_t i = 0; i < o->n_shapes; i++) {
        if (strcmp(o->shapes[i].name, name) == 0) {
            return &o->shapes[i];
        }
    }
    return NULL;
}

static kiln_status choose_dims(kiln_tensor *t, const kiln_io *io, const kiln_generate_options *o,
                               kiln_diag *diag) {
    const kiln_shape *s = find_shape(o, io->name);
    if (io->rank < 0 && !s) {
        return kiln_hint(diag,
                         kiln_fail(diag, KILN_F_RUN_SHAPE,
                                   "input \"%s\" has no rank, so that none can be generated",
                                   io->name),
                         "give its shape with --shape %s:...", io->name);
    }
    if (s && io->rank >= 0 && s->rank != io->rank) {
        return kiln_fail(diag, KILN_F_RUN_SHAPE, "input \"%s\" has rank %d, the shape given has %d",
                         io->name, io->rank, s->rank);
    }
    t->rank = s ? s->rank : io->rank;
    for (int32_t d = 0; d < t->rank; d++) {
        int64_t fixed = io->rank >= 0 ? io->dims[d] : -1;
        int64_t asked = s ? s->dims[d] : -1;
        if (fixed >= 0 && asked >= 0 && fixed != asked) {
            return kiln_hint(diag,
                             kiln_fail(diag, KILN_F_RUN_SHAPE,
                                       "input \"%s\": dim %d is %lld, not %lld", io->name, d,
                                       (long long)fixed, (long long)asked),
                             "--override-shape %s:... changes the shape of a model", io->name);
        }
        int64_t usual = io->has_range ? io->opt[d] : 1;
        int64_t free_dim = d == 0 && o->batch > 0 ? o->batch : usual;
        t->dims[d] = fixed >= 0 ? fixed : asked >= 0 ? asked : free_dim;
    }
    return KILN_OK;
}

static void fill(kiln_tensor *t, uint64_t s0, const kiln_generate_options *o) {
    int64_t count = kiln_tensor_count(t);
    double lo = o->has_range ? o->min : 0, hi = o->has_range ? o->max : 1;
    if (kiln_dtype_is_float(t->dtype)) {
        for (int64_t i = 0; i < count; i++) {
            kiln_set_f64(t->dtype, t->data, i,
                         lo + (hi - lo) * ((double)(draw(s0, i) >> 11) * 0x1p-53));
        }
        return;
    }
    uint64_t span = (uint64_t)(ceil(hi) - floor(lo)) + 1;
    for (int64_t i = 0; i < count; i++) {
        kiln_set_i64(t->dtype, t->data, i, (int64_t)floor(lo) + (int64_t)(draw(s0, i) % span));
    }
}

/* Appends one tensor, item `item` of a sequence, from a seed of its own. */
static kiln_status add_item(kiln_tensors *list, const kiln_io *io, uint64_t item,
                            const kiln_generate_options *o, kiln_diag *diag) {
    kiln_tensor t = {.dtype = io->dtype};
    KILN_TRY(choose_dims(&t, io, o, diag));
    t.cap_bytes = kiln_tensor_bytes(&t);
    if (t.cap_bytes == SIZE_MAX || t.cap_bytes > kiln_env_limits(list->env)->tensor_bytes) {
        return kiln_fail(diag, KILN_F_OVERFLOW,
                         "input \"%s\" would be over the limit for one tensor", io->name);
    }
    t.data = kiln_arena_array(&list->arena, t.cap_bytes, 1);
    if (!t.data) {
        return KILN_E_MEMORY;
    }
    fill(&t, ((o->seed ? o->seed : 1) + item) ^ fnv1a(io->name), o);
    return kiln_tensors_take(list, io->name, &t);
}

kiln_status kiln_tensors_generate(kiln_tensors *list, const kiln_io *io,
                                  const kiln_generate_options *options, kiln_diag *diag) {
    kiln_generate_options o;
    if (kiln_options_read(&o, sizeof o, options) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "the generator's options have no size, or unknown fields");
    }
    if (o.has_range && !(o.min <= o.max && fabs(o.min) < 0x1p62 && fabs(o.max) < 0x1p62)) {
        return kiln_fail(diag, KILN_F_OPTION, "the range %g to %g cannot be drawn from", o.min,
                         o.max);
    }
    bool known = io->dtype == KILN_DTYPE_BOOL || kiln_dtype_is_float(io->dtype) ||
                 kiln_dtype_is_int(io->dtype);
    if (!known) {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED,
                         "input \"%s\" is %s, which is not generated", io->name,
                         kiln_dtype_name(io->dtype));
    }
    for (int item = 0; item < (io->is_sequence ? SEQUENCE_ITEMS : 1); item++) {
        KILN_TRY(kiln_diag_close(diag, add_item(list, io, (uint64_t)item, &o, diag)));
    }
    return KILN_OK;
}
