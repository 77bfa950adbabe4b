/* gemm_bench.c - speed of the float32 GEMM prims against the machine's measured multiply-add peak.
 *
 *     gemm_bench [isa [shape substring]]       isa: portable, avx2, avx512; default: best here
 *
 * Build: compile src/backend/cpu/prims/gemm_simd.c once per instruction set (-O3 -ffp-contract=off
 * -DKILN_ISA=<isa> -DKILN_ISA_<isa>=1 and the set's -m flags), link with this file and -lm.
 *
 * How it measures: peak.h.
 */
#include "backend/cpu/prims/gemm.h"
#include "peak.h"

typedef struct shape {
    const char *name;
    int64_t m, n, k;
} shape;

static const shape shapes[] = {
    {"resnet 56x56 1x1 64->256", 3136, 256, 64},
    {"resnet 56x56 1x1 256->64", 3136, 64, 256},
    {"resnet 28x28 1x1 512->128", 784, 128, 512},
    {"resnet 14x14 1x1 1024->256", 196, 256, 1024},
    {"resnet 14x14 1x1 256->1024", 196, 1024, 256},
    {"resnet 7x7 1x1 2048->512", 49, 512, 2048},
    {"resnet 7x7 1x1 512->2048", 49, 2048, 512},
    {"mobilenet 112x112 1x1 32->16", 12544, 16, 32},
    {"mobilenet 112x112 1x1 16->96", 12544, 96, 16},
    {"mobilenet 56x56 1x1 144->24", 3136, 24, 144},
    {"mobilenet 14x14 1x1 96->576", 196, 576, 96},
    {"mobilenet 7x7 1x1 960->320", 49, 320, 960},
    {"bert 128 768->768", 128, 768, 768},
    {"bert 128 768->3072", 128, 3072, 768},
    {"bert 128 3072->768", 128, 768, 3072},
    {"attention QK 128x64x128", 128, 128, 64},
    {"attention PV 128x128x64", 128, 64, 128},
    {"square 1024", 1024, 1024, 1024},
    {"fc M=1 2048->1000", 1, 1000, 2048},
    {"fc M=1 4096->4096", 1, 4096, 4096},
    {"fc M=2 768->3072", 2, 3072, 768},
    {"fc M=4 768->3072", 4, 3072, 768},
    {"fc M=8 768->3072", 8, 3072, 768},
};

typedef struct job {
    const kiln_gemm_prims *prims;
    kiln_gemm_args args;
    int64_t tiles;
} job;

static void run_gemm(void *arg) {
    job *j = arg;
    j->prims->run(&j->args, 0, j->tiles);
}

static void measure(int isa, const shape *s) {
    static const kiln_gemm_prims *const all[] = {&kiln_gemm_prims_portable, &kiln_gemm_prims_avx2,
                                                 &kiln_gemm_prims_avx512};
    const kiln_gemm_prims *p = all[isa];
    float *a = random_floats(s->m * s->k);
    float *w = random_floats(s->k * s->n);
    float *b = random_floats(p->packed_bytes(s->k, s->n) / 4);
    float *c = random_floats(s->m * s->n);
    float *bias = random_floats(s->n);
    p->pack(b, w, s->k, s->n, s->n, 1, 0, p->panels(s->n));
    job j = {.prims = p,
             .args = {.m = s->m,
                      .n = s->n,
                      .k = s->k,
                      .a = a,
                      .lda = s->k,
                      .b = b,
                      .c = c,
                      .ldc = s->n,
                      .epilogue = KILN_EPILOGUE_NONE}};
    j.args.epilogue.bias = bias;
    j.args.epilogue.lo = 0.0f;
    j.tiles = p->tiles(&j.args);
    report(s->name, isa, j.tiles, (double)s->m * (double)s->n * (double)s->k, run_gemm, &j);
    free(a);
    free(w);
    free(b);
    free(c);
    free(bias);
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
