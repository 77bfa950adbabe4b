/* prims_q8.h - what the tests of the 8-bit convolution prims share: random problems, and the forms
 * to compare. Every form must give the bits of the portable one, which checkkern holds against the
 * operators' references. */
#ifndef KILN_TESTS_UNIT_PRIMS_Q8_H
#define KILN_TESTS_UNIT_PRIMS_Q8_H

#include "prims_util.h"
#include "prims_wide.h"

#include "backend/cpu/prims/conv_q8.h"
#include "base/cpu.h"

/* A form runs where the processor has its instruction set and flag. */
static inline bool form_present(kiln_isa isa, uint32_t flag) {
    uint32_t cpu = kiln_cpu_features();
    return kiln_cpu_isa(cpu) >= isa && (cpu & flag) == flag;
}

/* A convolution with random contents; sizes and geometry are the caller's. */
typedef struct q8_problem {
    kiln_conv_q8_args args;
    uint8_t *x, *residual;
    int8_t *w; /* [c_out][taps][c_in / groups] */
    char *y, *want;
    size_t y_bytes;
    int32_t *start;
    float *tables;
} q8_problem;

static inline int64_t q8_volume(const int64_t v[3]) {
    return v[0] * v[1] * v[2];
}

static inline q8_problem q8_problem_new(const kiln_conv_args *shape, bool residual, bool to_float,
                                        uint64_t seed) {
    q8_problem p = {.args = {.shape = *shape}};
    kiln_conv_args *a = &p.args.shape;
    rng r = {seed};
    int64_t rows = a->transposed ? q8_volume(a->stride) : 1, table = a->c_out + KILN_Q8_TABLE_PAD;
    a->x_channel = 1;
    a->x_stride[2] = a->c_in;
    a->x_stride[1] = a->c_in * a->in[2];
    a->x_stride[0] = a->x_stride[1] * a->in[1];
    a->x_batch = a->x_stride[0] * a->in[0];
    a->ldy = a->c_out;
    size_t x_bytes = (size_t)(a->x_batch * a->batch);
    size_t outputs = (size_t)(q8_volume(a->out) * a->batch * a->c_out);
    size_t w_bytes = (size_t)(a->c_out * q8_volume(a->kernel) * (a->c_in / a->groups));
    p.x = guard_bytes(x_bytes, 1);
    p.w = guard_bytes(w_bytes, 1);
    p.residual = guard_bytes(outputs, 1);
    p.y_bytes = outputs * (to_float ? 4 : 1);
    p.y = guard_bytes(p.y_bytes, to_float ? 4 : 1);
    p.want = malloc(p.y_bytes);
    p.start = calloc((size_t)(rows * table), sizeof *p.start);
    p.tables = calloc((size_t)(2 * table), sizeof *p.tables);
    for (size_t i = 0; i < x_bytes; i++) {
        p.x[i] = (uint8_t)rng_u32(&r);
    }
    for (size_t i = 0; i < w_bytes; i++) {
        p.w[i] = (int8_t)rng_u32(&r);
    }
    for (size_t i = 0; i < outputs; i++) {
        p.residual[i] = (uint8_t)rng_u32(&r);
    }
    for (int64_t i = 0; i < rows * table; i++) {
        p.start[i] = (int32_t)(rng_u32(&r) % 2001) - 1000;
    }
    for (int64_t i = 0; i < table; i++) {
        p.tables[i] = rng_float(&r, 1e-3f, 4e-3f);
        p.tables[table + i] = rng_float(&r, -9, 9);
    }
    p.args.x = p.x;
    p.args.x_zero = (uint8_t)rng_u32(&r);
    p.args.y = p.y;
    p.args.ld_start = table;
    p.args.epilogue = (kiln_q8_epilogue){.start = p.start,
                                         .scale = p.tables,
                                         .offset = p.tables + table,
                                         .residual = residual ? p.residual : NULL,
                                         .ld_residual = a->c_out,
                                         .residual_zero = 99,
                                         .residual_scale = 0.3f,
                                         .lo = -128,
                                         .hi = 127,
                                         .zero = 128,
                                         .to_float = to_float};
    return p;
}

static inline void q8_problem_free(q8_problem *p) {
    guard_free(p->x);
    guard_free(p->w);
    guard_free(p->residual);
    guard_free(p->y);
    free(p->want);
    free(p->start);
    free(p->tables);
}

/* One kind of convolution prims, as both of them are. */
typedef struct q8_form {
    const char *name;
    int64_t (*packed_bytes)(const kiln_conv_args *shape);
    void (*pack)(void *dst, const int8_t *src, const kiln_conv_args *shape);
    int64_t (*scratch_bytes)(const kiln_conv_args *shape, bool narrows);
    int64_t (*tiles)(const kiln_conv_args *shape);
    void (*run)(const kiln_conv_q8_args *args, int64_t begin, int64_t end, void *scratch);
} q8_form;

/* Runs the form in `parts` ranges, last first. */
static inline void q8_run(q8_problem *p, const q8_form *f, int64_t parts) {
    const kiln_conv_args *a = &p->args.shape;
    void *w = guard_bytes((size_t)f->packed_bytes(a), 0);
    void *scratch = guard_bytes((size_t)f->scratch_bytes(a, p->args.epilogue.narrows), 0);
    f->pack(w, p->w, a);
    p->args.w = w;
    memset(p->y, 0x5a, p->y_bytes);
    int64_t n = f->tiles(a);
    for (int64_t i = parts - 1; i >= 0; i--) {
        f->run(&p->args, n * i / parts, n * (i + 1) / parts, scratch);
    }
    guard_free(w);
    guard_free(scratch);
}

static inline void q8_compare(q8_problem *p, const q8_form *f, const char *what) {
    for (int64_t parts = 1; parts <= 3; parts += 2) {
        q8_run(p, f, parts);
        for (size_t i = 0; i < p->y_bytes; i++) {
            if (p->y[i] != p->want[i]) {
                fail_msg("%s, %s: byte %zu is %d, portable gives %d", f->name, what, i,
                         (uint8_t)p->y[i], (uint8_t)p->want[i]);
            }
        }
    }
}

/* Every form that this machine has against the first, bit for bit; form_of gives the convolution
 * prims of row i of Q8_FORMS and Q8_TILE_FORMS, all NULL where there are none. */
static inline void q8_check(q8_form (*form_of)(size_t i), const kiln_conv_args *a, bool residual,
                            bool to_float, const char *what) {
#define RUNG(isa, rung, flag) {rung, flag},
    static const struct {
        kiln_isa isa;
        uint32_t flag;
    } rungs[] = {Q8_FORMS(RUNG) Q8_TILE_FORMS(RUNG)};
#undef RUNG
    q8_problem p = q8_problem_new(a, residual, to_float, (uint64_t)(a->c_in * 31 + a->in[2]));
    q8_form first = form_of(0);
    q8_run(&p, &first, 1);
    memcpy(p.want, p.y, p.y_bytes);
    for (size_t i = 1; i < sizeof rungs / sizeof *rungs; i++) {
        if (form_present(rungs[i].isa, rungs[i].flag)) {
            q8_form f = form_of(i);
            if (f.run) {
                q8_compare(&p, &f, what);
            }
        }
    }
    q8_problem_free(&p);
}

#endif
