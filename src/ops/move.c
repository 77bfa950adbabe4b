#include "ops/move.h"

#include <string.h>

int64_t kiln_type_count(const kiln_type *type) {
    kiln_tensor t;
    return kiln_type_to_tensor(type, &t) ? kiln_tensor_count(&t) : -1;
}

bool kiln_contents_in(const kiln_infer *c, int32_t i, kiln_tensor *t) {
    int64_t n;
    const kiln_dim *v = kiln_infer_contents(c, i, &n);
    memset(t, 0, sizeof *t);
    if (!v || !kiln_type_to_tensor(&c->in[i].type, t) || kiln_tensor_count(t) != n) {
        return false;
    }
    t->dtype = KILN_DTYPE_I64;
    t->data = (void *)v;
    return true;
}

kiln_status kiln_contents_out(kiln_infer *c, int32_t o, kiln_tensor *t) {
    memset(t, 0, sizeof *t);
    int64_t n = o < c->n_out ? kiln_type_count(&c->out[o].type) : -1;
    if (n < 0 || n > KILN_MAX_CONTENTS) {
        return KILN_OK;
    }
    kiln_dim *v;
    KILN_ALLOC(v, c->arena, n);
    c->out[o].contents = v;
    c->out[o].n_contents = n;
    kiln_type_to_tensor(&c->out[o].type, t);
    t->dtype = KILN_DTYPE_I64;
    t->data = v;
    return KILN_OK;
}

kiln_status kiln_contents_pass(kiln_infer *c, int32_t o, int32_t i) {
    int64_t n;
    const kiln_dim *v = kiln_infer_contents(c, i, &n);
    return v ? kiln_infer_set_contents(c, o, v, n) : KILN_OK;
}

/* Bytes of an element that has an address of its own; 0 for sub-byte types. */
static size_t unit_bytes(kiln_dtype dtype) {
    return dtype == KILN_DTYPE_STRING ? sizeof(char *) : kiln_dtype_size(dtype);
}

/* A run of n elements at strides ds and ss. */
static void copy_run(kiln_dtype dtype, size_t bytes, int64_t n, void *dst, int64_t d, int64_t ds,
                     const void *src, int64_t s, int64_t ss) {
    if (ds == 1 && ss == 1) {
        kiln_copy_elements(dtype, dst, d, src, s, n);
        return;
    }
    switch (bytes) {
#define X(size, type)                                                    \
    case size:                                                           \
        for (int64_t i = 0; i < n; i++) {                                \
            ((type *)dst)[d + i * ds] = ((const type *)src)[s + i * ss]; \
        }                                                                \
        return;
        X(1, uint8_t)
        X(2, uint16_t)
        X(4, uint32_t)
        X(8, uint64_t)
#undef X
    default:
        for (int64_t i = 0; i < n; i++) {
            kiln_copy_elements(dtype, dst, d + i * ds, src, s + i * ss, 1);
        }
    }
}

void kiln_move_box(kiln_dtype dtype, int32_t rank, const int64_t *dims, void *dst, int64_t dst_at,
                   const int64_t *dst_strides, const void *src, int64_t src_at,
                   const int64_t *src_strides) {
    kiln_walk w;
    int32_t inner = rank - 1;
    /* Inner axes that are contiguous on both sides are one run. */
    int64_t n = rank > 0 ? dims[inner] : 1;
    while (inner > 0 && n > 0 && dst_strides[rank - 1] == 1 && src_strides[rank - 1] == 1 &&
           dst_strides[inner - 1] == n && src_strides[inner - 1] == n) {
        n *= dims[--inner];
    }
    kiln_walk_init(&w, dims, inner < 0 ? 0 : inner);
    int32_t d = kiln_walk_operand(&w, dst_strides), s = kiln_walk_operand(&w, src_strides);
    int64_t ds = rank > 0 ? dst_strides[rank - 1] : 1, ss = rank > 0 ? src_strides[rank - 1] : 1;
    if (n == 0 || kiln_walk_empty(&w)) {
        return;
    }
    size_t bytes = unit_bytes(dtype);
    do {
        copy_run(dtype, bytes, n, dst, dst_at + w.offset[d], ds, src, src_at + w.offset[s], ss);
    } while (kiln_walk_next(&w));
}

kiln_status kiln_move_map(kiln_arena *arena, int32_t rank, const int64_t *dims, int64_t ***map) {
    KILN_ALLOC(*map, arena, rank);
    for (int32_t d = 0; d < rank; d++) {
        KILN_ALLOC((*map)[d], arena, dims[d]);
    }
    return KILN_OK;
}

void kiln_move_fill(kiln_dtype dtype, void *dst, int64_t at, int64_t n, const void *value) {
    for (int64_t i = 0; i < n; i++) {
        kiln_copy_elements(dtype, dst, at + i, value, 0, 1);
    }
}

/* One row: n elements at dst + at, from src + base + map[i]. */
static void map_row(kiln_dtype dtype, size_t bytes, int64_t n, void *dst, int64_t at,
                    const void *src, int64_t base, const int64_t *map, const void *fill) {
    switch (bytes) {
#define X(size, type)                                                                  \
    case size:                                                                         \
        for (int64_t i = 0; i < n; i++) {                                              \
            ((type *)dst)[at + i] =                                                    \
                map[i] < 0 ? *(const type *)fill : ((const type *)src)[base + map[i]]; \
        }                                                                              \
        return;
        X(1, uint8_t)
        X(2, uint16_t)
        X(4, uint32_t)
        X(8, uint64_t)
#undef X
    default:
        for (int64_t i = 0; i < n; i++) {
            if (map[i] < 0) {
                kiln_copy_elements(dtype, dst, at + i, fill, 0, 1);
            } else {
                kiln_copy_elements(dtype, dst, at + i, src, base + map[i], 1);
            }
        }
    }
}

void kiln_move_mapped(kiln_dtype dtype, int32_t rank, const int64_t *dims, void *dst,
                      const void *src, int64_t *const *map, const void *fill) {
    static const int64_t zero = 0;
    kiln_walk w;
    kiln_walk_init(&w, dims, rank > 0 ? rank - 1 : 0);
    int64_t n = rank > 0 ? dims[rank - 1] : 1, at = 0;
    const int64_t *row = rank > 0 ? map[rank - 1] : &zero;
    size_t bytes = unit_bytes(dtype);
    do {
        int64_t base = 0;
        bool inside = true;
        for (int32_t d = 0; d < w.rank; d++) {
            int64_t m = map[d][w.idx[d]];
            inside = inside && m >= 0;
            base += m;
        }
        if (inside) {
            map_row(dtype, bytes, n, dst, at, src, base, row, fill);
        } else {
            kiln_move_fill(dtype, dst, at, n, fill);
        }
        at += n;
    } while (kiln_walk_next(&w));
}

kiln_status kiln_ref_view(kiln_ref *c) {
    const kiln_tensor *x = kiln_ref_in(c, 0);
    kiln_tensor *y = kiln_ref_out(c, 0);
    kiln_copy_elements(x->dtype, y->data, 0, x->data, 0, kiln_tensor_count(x));
    return KILN_OK;
}
