/* conv_bench.c - speed of the convolution prims against the machine's measured multiply-add peak.
 *
 *     conv_bench [isa [shape substring]]       isa: portable, avx2, avx512; default: best here
 *
 * Build: compile gemm_simd.c, conv_simd.c and depthwise_simd.c of src/backend/cpu/prims once per
 * instruction set (-O3 -ffp-contract=off -DKILN_ISA=<isa> -DKILN_ISA_<isa>=1 and the set's -m
 * flags), link with this file and -lm. How it measures: peak.h.
 */
#include "backend/cpu/prims/conv.h"
#include "backend/cpu/prims/depthwise.h"
#include "peak.h"

#include <string.h>

typedef struct shape {
    const char *name;
    int64_t h, c_in, c_out, k, stride, groups;
    bool planar, transposed;
} shape;

static const shape shapes[] = {
    {"resnet stem 7x7 s2", 224, 3, 64, 7, 2, 1, false, false},
    {"resnet stem 7x7 s2 NCHW in", 224, 3, 64, 7, 2, 1, true, false},
    {"resnet 3x3 56", 56, 64, 64, 3, 1, 1, false, false},
    {"resnet 3x3 28", 28, 128, 128, 3, 1, 1, false, false},
    {"resnet 3x3 14", 14, 256, 256, 3, 1, 1, false, false},
    {"resnet 3x3 7", 7, 512, 512, 3, 1, 1, false, false},
    {"resnet 3x3 s2 56->28", 56, 128, 128, 3, 2, 1, false, false},
    {"resnet 3x3 s2 14->7", 14, 512, 512, 3, 2, 1, false, false},
    {"resnet 1x1 s2 56->28", 56, 256, 512, 1, 2, 1, false, false},
    {"resnet 1x1 14", 14, 1024, 256, 1, 1, 1, false, false},
    {"mobilenet stem 3x3 s2", 224, 3, 32, 3, 2, 1, false, false},
    {"mobilenet stem 3x3 s2 NCHW in", 224, 3, 32, 3, 2, 1, true, false},
    {"conv 3x3 112 8->16", 112, 8, 16, 3, 1, 1, false, false},
    {"conv 3x3 112 16->32", 112, 16, 32, 3, 1, 1, false, false},
    {"resnext 3x3 28 g32 x8", 28, 256, 256, 3, 1, 32, false, false},
    {"grouped 3x3 28 g8 x32", 28, 256, 256, 3, 1, 8, false, false},
    {"deconv 4x4 s2 28->56", 28, 128, 64, 4, 2, 1, false, true},
    {"dw 3x3 112 x32", 112, 32, 32, 3, 1, 32, false, false},
    {"dw 3x3 s2 112 x96", 112, 96, 96, 3, 2, 96, false, false},
    {"dw 3x3 56 x144", 56, 144, 144, 3, 1, 144, false, false},
    {"dw 3x3 s2 56 x144", 56, 144, 144, 3, 2, 144, false, false},
    {"dw 3x3 28 x192", 28, 192, 192, 3, 1, 192, false, false},
    {"dw 3x3 14 x384", 14, 384, 384, 3, 1, 384, false, false},
    {"dw 3x3 7 x960", 7, 960, 960, 3, 1, 960, false, false},
    {"dw 5x5 14 x576", 14, 576, 576, 5, 1, 576, false, false},
    {"dw 7x7 14 x384", 14, 384, 384, 7, 1, 384, false, false},
};

static kiln_conv_args problem(const shape *s) {
    kiln_conv_args a = {.batch = 1,
                        .groups = s->groups,
                        .c_in = s->c_in,
                        .c_out = s->c_out,
                        .in = {1, s->h, s->h},
                        .kernel = {1, s->k, s->k},
                        .stride = {1, s->stride, s->stride},
                        .dilation = {1, 1, 1},
                        .pad = {0, (s->k - 1) / 2, (s->k - 1) / 2},
                        .transposed = s->transposed,
                        .planar = s->planar,
                        .ldy = s->c_out,
                        .epilogue = KILN_EPILOGUE_NONE};
    int64_t out = s->transposed ? (s->h - 1) * s->stride - 2 * a.pad[1] + s->k
                                : (s->h + 2 * a.pad[1] - s->k) / s->stride + 1;
    a.out[0] = 1;
    a.out[1] = a.out[2] = out;
    a.x_channel = s->planar ? s->h * s->h : 1;
    a.x_stride[2] = s->planar ? 1 : s->c_in;
    a.x_stride[1] = s->h * a.x_stride[2];
    a.x_stride[0] = a.x_batch = s->h * s->h * s->c_in;
    a.epilogue.lo = 0.0f;
    return a;
}

typedef struct job {
    const kiln_conv_prims *conv;
    const kiln_depthwise_prims *depthwise;
    kiln_conv_args a;
    void *scratch;
    int64_t tiles;
} job;

static void run_conv(void *arg) {
    job *j = arg;
    j->conv->run(&j->a, 0, j->tiles, j->scratch);
}

static void run_depthwise(void *arg) {
    job *j = arg;
    j->depthwise->run(&j->a, 0, j->tiles, j->scratch);
}

static void measure(int isa, const shape *s) {
    static const kiln_conv_prims *const convs[] = {&kiln_conv_prims_portable, &kiln_conv_prims_avx2,
                                                   &kiln_conv_prims_avx512};
    static const kiln_depthwise_prims *const depthwises[] = {
        &kiln_depthwise_prims_portable, &kiln_depthwise_prims_avx2, &kiln_depthwise_prims_avx512};
    job j = {.conv = convs[isa], .depthwise = depthwises[isa], .a = problem(s)};
    kiln_conv_args *a = &j.a;
    bool depthwise = s->groups == s->c_in && s->c_in > 1;
    float *weights = random_floats(s->c_out * (s->c_in / s->groups) * s->k * s->k);
    float *x = random_floats(s->h * s->h * s->c_in);
    float *bias = random_floats(s->c_out);
    float *y = random_floats(a->out[1] * a->out[2] * s->c_out);
    int64_t packed = depthwise ? j.depthwise->packed_bytes(a) : j.conv->packed_bytes(a);
    int64_t scratch = depthwise ? j.depthwise->scratch_bytes(a) : j.conv->scratch_bytes(a);
    float *w = random_floats(packed / 4);
    j.scratch = random_floats(scratch / 4 + 1);
    (depthwise ? j.depthwise->pack : j.conv->pack)(w, weights, a);
    a->x = x;
    a->w = w;
    a->y = y;
    a->epilogue.bias = bias;
    j.tiles = depthwise ? j.depthwise->tiles(a) : j.conv->tiles(a);
    int64_t pixels = s->transposed ? s->h * s->h : a->out[1] * a->out[2];
    double macs = (double)pixels * (double)(s->c_out * (s->c_in / s->groups) * s->k * s->k);
    report(s->name, isa, j.tiles, macs, depthwise ? run_depthwise : run_conv, &j);
    free(weights);
    free(x);
    free(bias);
    free(y);
    free(w);
    free(j.scratch);
}

int main(int argc, char **argv) {
    int isa = choose_isa(argc > 1 ? argv[1] : NULL);
    if (isa < 0) {
        fprintf(stderr, "no such instruction set here\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (argc < 3 || strstr(shapes[i].name, argv[2])) {
            measure(isa, &shapes[i]);
        }
    }
    return 0;
}
