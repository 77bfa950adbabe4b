/* vec_bench.c - times the memory- and vector-bound prims of src/backend/cpu/prims on typical
 * shapes.
 *
 *     vec_bench [isa] [seconds]      isa: portable, avx2 (default), avx512
 *
 * One thread; per case the minimum and median over the time given (0.2 s), with the bandwidth of
 * the tensors read and written, or the arithmetic rate, at the minimum. Tensors stay in the caches
 * they fit in, as they do between the layers of a small network.
 */
#define _POSIX_C_SOURCE 200809L
#include "backend/cpu/prims/attention.h"
#include "backend/cpu/prims/move.h"
#include "backend/cpu/prims/norm.h"
#include "backend/cpu/prims/pool.h"
#include "backend/cpu/prims/program.h"
#include "backend/cpu/prims/reduce.h"
#include "backend/cpu/prims/rnn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct isa_prims {
    const char *name;
    const kiln_program_prims *program;
    const kiln_norm_prims *norm;
    const kiln_pool_prims *pool;
    const kiln_move_prims *move;
    const kiln_reduce_prims *reduce;
    const kiln_attention_prims *attention;
    const kiln_rnn_prims *rnn;
} isa_prims;

#define ISA_ROW(isa)                                                                       \
    {                                                                                      \
#isa, &kiln_program_prims_##isa, &kiln_norm_prims_##isa, &kiln_pool_prims_##isa,   \
            &kiln_move_prims_##isa, &kiln_reduce_prims_##isa, &kiln_attention_prims_##isa, \
            &kiln_rnn_prims_##isa                                                          \
    }
static const isa_prims isas[] = {ISA_ROW(portable), ISA_ROW(avx2), ISA_ROW(avx512)};

typedef struct bench {
    const isa_prims *p;
    double seconds;
    float *x, *y, *z; /* 8 Mi floats each */
} bench;

enum { ROOM = 8 << 20, MAX_SAMPLES = 20000 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Times body(arg) and prints one line. work: bytes moved, or floating-point operations. */
static void report(const bench *b, const char *name, void (*body)(void *), void *arg, double work,
                   const char *unit) {
    static double samples[MAX_SAMPLES];
    int n = 0;
    double start = now();
    body(arg);
    while (n < MAX_SAMPLES && (n < 5 || now() - start < b->seconds)) {
        double t = now();
        body(arg);
        samples[n++] = now() - t;
    }
    qsort(samples, (size_t)n, sizeof *samples, compare);
    printf("%-34s %9.2f us min %9.2f us median %8.1f %s\n", name, samples[0] * 1e6,
           samples[n / 2] * 1e6, work / samples[0] * 1e-9, unit);
}

typedef struct norm_case {
    const kiln_norm_prims *p;
    const void *args;
    int64_t units;
} norm_case;

static void body_layernorm(void *arg) {
    norm_case *c = arg;
    c->p->layernorm(c->args, 0, c->units);
}
static void body_softmax(void *arg) {
    norm_case *c = arg;
    c->p->softmax(c->args, 0, c->units);
}
static void body_groupnorm(void *arg) {
    norm_case *c = arg;
    c->p->groupnorm_last(c->args, 0, c->units);
}

static void bench_norm(const bench *b) {
    float *scale = b->z;
    float *bias = b->z + 4096;
    kiln_layernorm_args ln = {.cols = 768,
                              .eps = 1e-5f,
                              .x = b->x,
                              .x_ld = 768,
                              .scale = scale,
                              .bias = bias,
                              .y = b->y,
                              .y_ld = 768};
    norm_case c = {b->p->norm, &ln, 128};
    report(b, "layernorm 128x768", body_layernorm, &c, 128 * 768 * 8.0, "GB/s");
    ln.residual = b->x + 128 * 768;
    ln.residual_ld = ln.sum_ld = 768;
    ln.sum = b->y + 128 * 768;
    report(b, "skip+layernorm 128x768", body_layernorm, &c, 128 * 768 * 16.0, "GB/s");
    kiln_softmax_args sm = {.n = 128, .inner = 1, .x = b->x, .y = b->y};
    norm_case s = {b->p->norm, &sm, 12 * 128};
    report(b, "softmax 12x128x128", body_softmax, &s, 12 * 128 * 128.0, "Gelem/s");
    kiln_groupnorm_args gn = {.batch = 1,
                              .spatial = 64 * 64,
                              .channels = 320,
                              .groups = 32,
                              .eps = 1e-5f,
                              .x = b->x,
                              .scale = scale,
                              .bias = bias,
                              .y = b->y};
    norm_case g = {b->p->norm, &gn, kiln_groupnorm_units(&gn)};
    report(b, "groupnorm32 64x64x320", body_groupnorm, &g, 64 * 64 * 320 * 8.0, "GB/s");
}

typedef struct program_case {
    const kiln_program_prims *p;
    const kiln_program *program;
    kiln_program_plan plan;
    const void *in[3];
    void *out[1];
} program_case;

static void body_program(void *arg) {
    program_case *c = arg;
    c->p->run(c->program, &c->plan, c->in, c->out, 0, c->plan.blocks);
}

static void bench_program(const bench *b, const char *name, const kiln_program *program,
                          int64_t rows, int64_t cols, bool bias) {
    program_case c = {.p = b->p->program,
                      .program = program,
                      .in = {b->x, bias ? b->z : b->x + rows * cols},
                      .out = {b->y}};
    kiln_prog_view views[3] = {{.dtype = KILN_DTYPE_F32, .stride = {cols, 1}},
                               {.dtype = KILN_DTYPE_F32, .stride = {bias ? 0 : cols, 1}},
                               {.dtype = KILN_DTYPE_F32, .stride = {cols, 1}}};
    if (program->inputs == 1) {
        views[1] = views[2];
    }
    const int64_t dims[2] = {rows, cols};
    if (kiln_program_plan_make(&c.plan, program, 2, dims, views) != KILN_OK) {
        printf("%s: not planned\n", name);
        return;
    }
    double tensors = program->inputs + 1 - (bias ? 1 : 0);
    report(b, name, body_program, &c, (double)(rows * cols) * 4 * tensors, "GB/s");
}

static void bench_programs(const bench *b) {
    static const kiln_prog_instr add_relu[] = {{.op = KILN_PROG_ADD, .dst = 2, .a = 0, .b = 1},
                                               {.op = KILN_PROG_RELU, .dst = 2, .a = 2}};
    static const kiln_program two = {
        .inputs = 2, .instrs = 2, .outputs = 1, .regs = 3, .instr = add_relu, .output = {2}};
    bench_program(b, "add+relu 56x56x256", &two, 3136, 256, false);
    bench_program(b, "bias+relu 3136x64 (per channel)", &two, 3136, 64, true);
    bench_program(b, "bias+relu 128x3072 (per channel)", &two, 128, 3072, true);
    static const struct {
        const char *name;
        kiln_prog_op op;
    } unary[] = {{"gelu 128x3072", KILN_PROG_GELU},
                 {"gelu_tanh 128x3072", KILN_PROG_GELU_TANH},
                 {"silu 128x3072", KILN_PROG_SILU},
                 {"tanh 128x3072", KILN_PROG_TANH},
                 {"exp 128x3072", KILN_PROG_EXP},
                 {"log 128x3072", KILN_PROG_LOG},
                 {"hardswish 128x3072", KILN_PROG_HARDSWISH},
                 {"sin 128x3072", KILN_PROG_SIN}};
    for (size_t i = 0; i < KILN_COUNT_OF(unary); i++) {
        kiln_prog_instr in = {.op = (uint8_t)unary[i].op, .dst = 1, .a = 0, .p = 1.0f};
        kiln_program one = {
            .inputs = 1, .instrs = 1, .outputs = 1, .regs = 2, .instr = &in, .output = {1}};
        bench_program(b, unary[i].name, &one, 128, 3072, false);
    }
}

typedef struct copy_case {
    const kiln_move_prims *p;
    kiln_copy_plan plan;
    const void *src;
    void *dst;
} copy_case;

static void body_copy(void *arg) {
    copy_case *c = arg;
    c->p->copy(&c->plan, c->src, c->dst, 0, c->plan.units);
}

static void bench_copy(const bench *b, const char *name, int32_t bytes, int64_t rows,
                       int64_t cols) {
    /* [rows, cols] -> [cols, rows] */
    const int64_t dims[2] = {cols, rows};
    const int64_t src[2] = {1, cols};
    const int64_t dst[2] = {rows, 1};
    copy_case c = {.p = b->p->move, .src = b->x, .dst = b->y};
    if (kiln_copy_plan_make(&c.plan, bytes, 2, dims, src, dst) == KILN_OK) {
        report(b, name, body_copy, &c, (double)(rows * cols * bytes) * 2, "GB/s");
    }
}

static void bench_move(const bench *b) {
    bench_copy(b, "transpose f32 256x3136 to NHWC", 4, 256, 3136);
    bench_copy(b, "transpose f32 3136x256 to NCHW", 4, 3136, 256);
    bench_copy(b, "transpose f32 1024x1024", 4, 1024, 1024);
    bench_copy(b, "transpose f32 3x50176 to NHWC", 4, 3, 50176);
    bench_copy(b, "transpose u8 3136x256", 1, 3136, 256);
    bench_copy(b, "transpose u16 3136x256", 2, 3136, 256);
    copy_case c = {.p = b->p->move, .src = b->x, .dst = b->y};
    const int64_t one[1] = {1};
    const int64_t n[1] = {802816};
    if (kiln_copy_plan_make(&c.plan, 4, 1, n, one, one) == KILN_OK) {
        report(b, "copy f32 3.2 MB", body_copy, &c, 802816 * 8.0, "GB/s");
    }
}

typedef struct pool_case {
    const isa_prims *p;
    const void *args;
    int64_t n;
} pool_case;

static void body_pool(void *arg) {
    pool_case *c = arg;
    c->p->pool->pool(c->args, 0, c->n);
}
static void body_global(void *arg) {
    pool_case *c = arg;
    c->p->pool->global_pool(c->args, 0, c->n);
}
static void body_reduce(void *arg) {
    pool_case *c = arg;
    c->p->reduce->reduce(c->args, 0, c->n);
}

static void bench_pool(const bench *b) {
    kiln_pool_args mp = {.op = KILN_POOL_MAX,
                         .batch = 1,
                         .channels = 64,
                         .in = {1, 112, 112},
                         .out = {1, 56, 56},
                         .kernel = {1, 3, 3},
                         .stride = {1, 2, 2},
                         .dilation = {1, 1, 1},
                         .pad = {0, 1, 1},
                         .pad_end = {0, 1, 1},
                         .x = b->x,
                         .y = b->y};
    pool_case c = {b->p, &mp, 3136};
    report(b, "maxpool 3x3s2 112x112x64", body_pool, &c, (112 * 112 + 56 * 56) * 64 * 4.0, "GB/s");
    kiln_global_pool_args gp = {
        .op = KILN_POOL_AVG, .spatial = 49, .channels = 2048, .x = b->x, .y = b->y};
    pool_case g = {b->p, &gp, 2048};
    report(b, "global avg pool 7x7x2048", body_global, &g, 49 * 2048 * 4.0, "GB/s");
    kiln_reduce_args ra = {.op = KILN_REDUCE_SUM, .n = 1000, .inner = 1, .x = b->x, .y = b->y};
    pool_case r = {b->p, &ra, 256};
    report(b, "reduce sum 256 rows of 1000", body_reduce, &r, 256 * 1000 * 4.0, "GB/s");
}

typedef struct attention_case {
    const isa_prims *p;
    kiln_attention_args a;
    float *scratch;
} attention_case;

static void body_attention(void *arg) {
    attention_case *c = arg;
    c->p->attention->attention(&c->a, c->scratch, 0, kiln_attention_units(&c->a));
}

static void bench_attention(const bench *b) {
    const int64_t lens[] = {128, 197, 1024};
    for (size_t i = 0; i < KILN_COUNT_OF(lens); i++) {
        int64_t L = lens[i], H = 12, D = 64;
        attention_case c = {.p = b->p, .scratch = b->z};
        c.a = (kiln_attention_args){.batch = 1,
                                    .heads = H,
                                    .kv_heads = H,
                                    .q_len = L,
                                    .kv_len = L,
                                    .qk_dim = D,
                                    .v_dim = D,
                                    .scale = 0.125f,
                                    .q = b->x,
                                    .k = b->x + H * D,
                                    .v = b->x + 2 * H * D,
                                    .y = b->y,
                                    .q_stride = {0, D, 3 * H * D},
                                    .k_stride = {0, D, 3 * H * D},
                                    .v_stride = {0, D, 3 * H * D},
                                    .y_stride = {0, D, H * D}};
        char name[64];
        snprintf(name, sizeof name, "attention 12 heads x %d x 64", (int)L);
        report(b, name, body_attention, &c, 4.0 * (double)(L * L * H * D), "GFLOP/s");
    }
}

typedef struct rnn_case {
    const isa_prims *p;
    kiln_rnn_args a;
} rnn_case;

static void body_rnn(void *arg) {
    rnn_case *c = arg;
    const kiln_team alone = {.size = 1};
    kiln_rnn_run(c->p->rnn, &c->a, &alone);
}

static void bench_rnn(const bench *b) {
    int64_t T = 32, H = 512;
    for (int64_t B = 1; B <= 8; B *= 8) {
        rnn_case c = {.p = b->p};
        c.a = (kiln_rnn_args){.kind = KILN_RNN_LSTM,
                              .steps = T,
                              .batch = B,
                              .hidden = H,
                              .xw = b->x,
                              .xw_step = B * 4 * H,
                              .xw_batch = 4 * H,
                              .r = b->z,
                              .y = b->y,
                              .y_step = B * H,
                              .y_batch = H,
                              .state = b->y + (1 << 20),
                              .act = {KILN_ACT_SIGMOID, KILN_ACT_TANH, KILN_ACT_TANH}};
        char name[64];
        snprintf(name, sizeof name, "lstm recurrence 32 steps b%d h512", (int)B);
        report(b, name, body_rnn, &c, 2.0 * (double)(T * B * 4 * H * H), "GFLOP/s");
    }
}

int main(int argc, char **argv) {
    bench b = {.p = &isas[1], .seconds = argc > 2 ? strtod(argv[2], NULL) : 0.2};
    for (size_t i = 0; i < KILN_COUNT_OF(isas) && argc > 1; i++) {
        b.p = strcmp(argv[1], isas[i].name) == 0 ? &isas[i] : b.p;
    }
    float **buffers[] = {&b.x, &b.y, &b.z};
    for (size_t k = 0; k < 3; k++) {
        *buffers[k] = aligned_alloc(64, ROOM * sizeof(float));
        if (*buffers[k] == NULL) {
            return 1;
        }
        for (int64_t i = 0; i < ROOM; i++) {
            (*buffers[k])[i] = (float)((i * 7919) % 2003) * 0.001f - 1.0f;
        }
    }
    for (int64_t i = 0; i < ROOM; i++) {
        b.z[i] *= 0.05f;
    }
    printf("instruction set %s, one thread\n", b.p->name);
    bench_norm(&b);
    bench_programs(&b);
    bench_move(&b);
    bench_pool(&b);
    bench_attention(&b);
    bench_rnn(&b);
    for (size_t k = 0; k < 3; k++) {
        free(*buffers[k]);
    }
    return 0;
}
