/* test_prims_move.c - copies, pads, gathers and resizes of backend/cpu/prims/move.h against index
 * by index models, on every instruction set present. Resize tables are held against values computed
 * with the ONNX reference evaluator (opset 19, sizes given). */
#include "prims_util.h"

#include "backend/cpu/prims/move.h"

ISA_TABLE(kiln_move_prims);

typedef struct job {
    const kiln_move_prims *prims;
    const kiln_copy_plan *plan;
    const kiln_pad_args *pad;
    const kiln_resize_args *resize;
    const void *src;
    void *dst;
} job;

static void run_job(void *arg, int64_t a, int64_t b) {
    job *j = arg;
    if (j->plan != NULL) {
        j->prims->copy(j->plan, j->src, j->dst, a, b);
    } else if (j->pad != NULL) {
        j->prims->pad(j->pad, a, b);
    } else {
        float *scratch = guard_floats(kiln_resize_scratch(j->resize), 0);
        j->prims->resize(j->resize, scratch, a, b);
        guard_free(scratch);
    }
}

/* ---- copies ---- */

typedef struct copy_case {
    int32_t rank;
    int64_t dims[9], src[9], dst[9];
    int64_t src_origin, src_room, dst_origin, dst_room; /* elements */
} copy_case;

static const copy_case copies[] = {
    {0, {0}, {0}, {0}, 0, 1, 0, 1},
    {1, {70001}, {1}, {1}, 0, 70001, 0, 70001},
    {2, {5, 0}, {1, 1}, {1, 1}, 0, 1, 0, 1},
    {3, {2, 130, 37}, {4810, 1, 130}, {4810, 37, 1}, 0, 9620, 0, 9620}, /* NCHW -> NHWC */
    {3, {2, 37, 130}, {4810, 1, 37}, {4810, 130, 1}, 0, 9620, 0, 9620}, /* and back */
    {3, {1, 3, 500}, {1500, 1, 3}, {1500, 500, 1}, 0, 1500, 0, 1500},   /* three channels */
    {3, {1, 64, 64}, {4096, 1, 64}, {4096, 64, 1}, 0, 4096, 0, 4096},
    {2, {130, 70}, {1, 2048}, {70, 1}, 0, 143360, 0, 9100}, /* rows on one set of the cache */
    {4, {2, 12, 20, 8}, {1920, 8, 96, 1}, {1920, 160, 8, 1}, 0, 3840, 0, 3840}, /* head split */
    {4, {3, 4, 5, 6}, {1, 3, 12, 60}, {120, 30, 6, 1}, 0, 360, 0, 360},         /* full reversal */
    {2, {10, 15}, {60, -2}, {15, 1}, 40, 700, 0, 150},                          /* negative step */
    {2, {10, 33}, {33, 1}, {100, 1}, 0, 330, 50, 1000},                         /* concat part */
    {3, {40, 2, 3}, {9, 4, 1}, {6, 3, 1}, 0, 400, 0, 240},                      /* short rows */
    {3, {4, 5, 6}, {0, 1, 0}, {30, 6, 1}, 0, 5, 0, 120},                        /* expand */
    {3, {7, 3, 5}, {15, 5, 1}, {1, 7, 21}, 0, 105, 0, 105}, /* dst order differs */
    {6, {2, 3, 2, 4, 2, 5}, {240, 40, 5, 10, 120, 1}, {240, 80, 40, 10, 5, 1}, 0, 480, 0, 480},
};

static void check_copy(int isa, const copy_case *c, int bytes) {
    unsigned char *src = guard_bytes((size_t)(c->src_room * bytes), (size_t)bytes);
    unsigned char *dst = guard_bytes((size_t)(c->dst_room * bytes), (size_t)(3 * bytes));
    unsigned char *want = malloc((size_t)(c->dst_room * bytes));
    rng r = {.state = 3};
    for (int64_t i = 0; i < c->src_room * bytes; i++) {
        src[i] = (unsigned char)rng_u32(&r);
    }
    memset(want, 0x77, (size_t)(c->dst_room * bytes));
    int64_t total = 1;
    for (int32_t d = 0; d < c->rank; d++) {
        total *= c->dims[d];
    }
    for (int64_t i = 0; i < total; i++) {
        int64_t rest = i, s = c->src_origin, d = c->dst_origin;
        for (int32_t k = c->rank - 1; k >= 0; k--) {
            s += rest % c->dims[k] * c->src[k];
            d += rest % c->dims[k] * c->dst[k];
            rest /= c->dims[k];
        }
        memcpy(want + d * bytes, src + s * bytes, (size_t)bytes);
    }
    kiln_copy_plan plan;
    assert_int_equal(kiln_copy_plan_make(&plan, bytes, c->rank, c->dims, c->src, c->dst), KILN_OK);
    job j = {.prims = prims_of[isa],
             .plan = &plan,
             .src = src + c->src_origin * bytes,
             .dst = dst + c->dst_origin * bytes};
    for (size_t w = 0; w < KILN_COUNT_OF(split_ways); w++) {
        memset(dst, 0x77, (size_t)(c->dst_room * bytes));
        in_pieces(plan.units, split_ways[w], run_job, &j);
        assert_memory_equal(dst, want, (size_t)(c->dst_room * bytes));
    }
    guard_free(src);
    guard_free(dst);
    free(want);
}

static void test_copy(void **state) {
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (size_t k = 0; isa_present(isa) && k < KILN_COUNT_OF(copies); k++) {
            for (int bytes = 1; bytes <= 8; bytes *= 2) {
                check_copy(isa, &copies[k], bytes);
            }
        }
    }
    kiln_copy_plan plan;
    const int64_t one[1] = {1};
    assert_int_equal(kiln_copy_plan_make(&plan, 3, 1, one, one, one), KILN_E_UNSUPPORTED);
    const int64_t dims[9] = {2, 2, 2, 2, 2, 2, 2, 2, 2};
    const int64_t dst[9] = {256, 128, 64, 32, 16, 8, 4, 2, 1};
    const int64_t src[9] = {3, 7, 15, 31, 63, 127, 255, 511, 1023};
    assert_int_equal(kiln_copy_plan_make(&plan, 4, 9, dims, src, dst), KILN_E_UNSUPPORTED);
}

static void test_copy_kinds(void **state) {
    (void)state;
    kiln_copy_plan p;
    const copy_case *nchw = &copies[3];
    kiln_copy_plan_make(&p, 4, nchw->rank, nchw->dims, nchw->src, nchw->dst);
    assert_int_equal(p.kind, KILN_COPY_TRANSPOSE);
    kiln_copy_plan_make(&p, 4, copies[1].rank, copies[1].dims, copies[1].src, copies[1].dst);
    assert_int_equal(p.kind, KILN_COPY_ROWS);
    assert_true(p.units > 1);
    kiln_copy_plan_make(&p, 4, copies[10].rank, copies[10].dims, copies[10].src, copies[10].dst);
    assert_int_equal(p.kind, KILN_COPY_STRIDED);
}

/* ---- pads ---- */

static int64_t reference_map(kiln_pad_mode mode, int64_t i, int64_t in) {
    if (mode == KILN_PAD_CONSTANT) {
        return i < 0 || i >= in ? -1 : i;
    }
    while (i < 0 || i >= in) { /* fold back, clamp or shift until inside */
        if (mode == KILN_PAD_EDGE || in == 1) {
            i = i < 0 ? 0 : in - 1;
        } else if (mode == KILN_PAD_REFLECT) {
            i = i < 0 ? -i : 2 * (in - 1) - i;
        } else {
            i += i < 0 ? in : -in;
        }
    }
    return i;
}

static void check_pad(int isa, kiln_pad_mode mode, int32_t value_bytes, int64_t items) {
    enum { RANK = 3 };
    const int64_t in[RANK] = {3, 1, 5}, before[RANK] = {2, 1, 3}, after[RANK] = {0, 2, 7};
    const int64_t crop_before[RANK] = {-1, 0, -2};
    for (int crop = 0; crop < 2; crop++) {
        kiln_pad_args a = {.rank = RANK,
                           .item_bytes = items * value_bytes,
                           .value_bytes = value_bytes,
                           .value = 0x1122334455667788u};
        int32_t *maps[RANK];
        int64_t rows = 1, in_items = 1, out_items = 1;
        for (int d = 0; d < RANK; d++) {
            int64_t b = crop ? crop_before[d] : before[d];
            a.in[d] = in[d];
            a.out[d] = in[d] + b + (crop ? 0 : after[d]);
            maps[d] = malloc((size_t)a.out[d] * sizeof(int32_t));
            kiln_pad_map(maps[d], mode, a.in[d], a.out[d], b);
            for (int64_t o = 0; o < a.out[d]; o++) {
                assert_int_equal(maps[d][o], reference_map(mode, o - b, in[d]));
            }
            a.map[d] = maps[d];
            rows *= d < RANK - 1 ? a.out[d] : 1;
            in_items *= a.in[d];
            out_items *= a.out[d];
        }
        unsigned char *x = guard_bytes((size_t)(in_items * a.item_bytes), 1);
        unsigned char *y = guard_bytes((size_t)(out_items * a.item_bytes), 3);
        for (int64_t i = 0; i < in_items * a.item_bytes; i++) {
            x[i] = (unsigned char)(i * 7 + 1);
        }
        a.x = x;
        a.y = y;
        for (size_t w = 0; w < KILN_COUNT_OF(split_ways); w++) {
            memset(y, 0, (size_t)(out_items * a.item_bytes));
            job j = {.prims = prims_of[isa], .pad = &a};
            in_pieces(rows, split_ways[w], run_job, &j);
            for (int64_t o = 0; o < out_items; o++) {
                int64_t k[RANK] = {o / (a.out[1] * a.out[2]), o / a.out[2] % a.out[1],
                                   o % a.out[2]};
                int64_t m[RANK] = {maps[0][k[0]], maps[1][k[1]], maps[2][k[2]]};
                bool inside = m[0] >= 0 && m[1] >= 0 && m[2] >= 0;
                int64_t s = (m[0] * in[1] + m[1]) * in[2] + m[2];
                for (int64_t b = 0; b < a.item_bytes; b++) {
                    unsigned char fill_byte = (unsigned char)(a.value >> (8 * (b % value_bytes)));
                    int want = inside ? x[s * a.item_bytes + b] : fill_byte;
                    assert_int_equal(y[o * a.item_bytes + b], want);
                }
            }
        }
        guard_free(x);
        guard_free(y);
        for (int d = 0; d < RANK; d++) {
            free(maps[d]);
        }
    }
}

static void test_pad(void **state) {
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (int mode = 0; isa_present(isa) && mode < 4; mode++) {
            check_pad(isa, (kiln_pad_mode)mode, 4, 1);
            check_pad(isa, (kiln_pad_mode)mode, 4, 17);
            check_pad(isa, (kiln_pad_mode)mode, 1, 3);
            check_pad(isa, (kiln_pad_mode)mode, 8, 2);
        }
    }
}

/* ---- gathers ---- */

static void test_gather(void **state) {
    (void)state;
    const int64_t wide[5] = {3, -1, 0, -4, 2};
    const int32_t narrow[5] = {3, -1, 0, -4, 2};
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (int b = 4; isa_present(isa) && b <= 8; b += 4) {
            float *x = guard_floats(2 * 4 * 7, 1), *y = guard_floats(2 * 5 * 7, 1);
            for (int i = 0; i < 56; i++) {
                x[i] = (float)i;
            }
            kiln_gather_args a = {.n = 4,
                                  .count = 5,
                                  .row_bytes = 28,
                                  .index_bytes = b,
                                  .index = b == 8 ? (const void *)wide : narrow,
                                  .x = x,
                                  .y = y};
            assert_int_equal(prims_of[isa]->gather(&a, 0, 4), -1);
            assert_int_equal(prims_of[isa]->gather(&a, 4, 10), -1);
            for (int i = 0; i < 70; i++) {
                int64_t k = wide[i / 7 % 5] < 0 ? wide[i / 7 % 5] + 4 : wide[i / 7 % 5];
                assert_true(y[i] == x[(i / 35 * 4 + k) * 7 + i % 7]);
            }
            a.n = 3; /* index 3 and -4 are now outside */
            assert_int_equal(prims_of[isa]->gather(&a, 0, 10), 0);
            assert_int_equal(prims_of[isa]->gather(&a, 1, 10), 3);
            guard_free(x);
            guard_free(y);
        }
    }
}

/* ---- resizes ---- */

typedef struct resize_row {
    kiln_resize_spec spec;
    float y[12];
} resize_row;

static const resize_row resize_rows[] = {
    {{KILN_RESIZE_NEAREST, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10, 10.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1, -1, 1, 1, 3, 3, -0.5f, -0.5f, 1.5f, 1.5f}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {1, -0.5f, 3.5f, 2}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_ASYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10, 10.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1, -1, 1, 1, 3, 3, -0.5f, -0.5f, 1.5f, 1.5f}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_ASYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {-1, 3, 1.5f, 2}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_ALIGN_CORNERS, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10,
      10.0 / 5.0, 0.0f, 1.0f, -0.75f},
     {-1, -1, 1, 1, 3, 3, -0.5f, -0.5f, 1.5f, 1.5f}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_ALIGN_CORNERS, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {-1, -0.5f, 3.5f, 4}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_HALF_PIXEL_SYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10,
      10.0 / 5.0, 0.0f, 1.0f, -0.75f},
     {-1, -1, 1, 1, 3, 3, -0.5f, -0.5f, 1.5f, 1.5f}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_HALF_PIXEL_SYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4,
      4.0 / 9.0, 0.0f, 1.0f, -0.75f},
     {1, -0.5f, 3.5f, 2}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_PYTORCH_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10,
      10.0 / 5.0, 0.0f, 1.0f, -0.75f},
     {-1, -1, 1, 1, 3, 3, -0.5f, -0.5f, 1.5f, 1.5f}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_PYTORCH_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4,
      4.0 / 9.0, 0.0f, 1.0f, -0.75f},
     {1, -0.5f, 3.5f, 2}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10, 10.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1, -0.5f, 0.5f, 1.5f, 2.5f, 2.125f, 0.375f, 0, 1, 1.5f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {0.25f, -0.0625f, 3.0625f, 2.75f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_ASYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10, 10.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1, 0, 1, 2, 3, 1.25f, -0.5f, 0.5f, 1.5f, 1.5f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_ASYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {-1, 2.125f, 2.5f, 1.5f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_ALIGN_CORNERS, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10,
      10.0 / 5.0, 0.0f, 1.0f, -0.75f},
     {-1, -0.111111f, 0.777778f, 1.66667f, 2.55556f, 2.22222f, 0.666667f, -0.277778f, 0.611111f,
      1.5f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_ALIGN_CORNERS, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {-1, 0.666667f, 2.33333f, 4}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_HALF_PIXEL_SYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10,
      10.0 / 5.0, 0.0f, 1.0f, -0.75f},
     {-1, -0.5f, 0.5f, 1.5f, 2.5f, 2.125f, 0.375f, 0, 1, 1.5f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_HALF_PIXEL_SYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4,
      4.0 / 9.0, 0.0f, 1.0f, -0.75f},
     {0.25f, -0.0625f, 3.0625f, 2.75f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_PYTORCH_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10,
      10.0 / 5.0, 0.0f, 1.0f, -0.75f},
     {-1, -0.5f, 0.5f, 1.5f, 2.5f, 2.125f, 0.375f, 0, 1, 1.5f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_PYTORCH_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4,
      4.0 / 9.0, 0.0f, 1.0f, -0.75f},
     {0.25f, -0.0625f, 3.0625f, 2.75f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10, 10.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1.21094f, -0.617188f, 0.335938f, 1.78711f, 2.98633f, 2.34766f, 0.152344f, -0.416016f,
      0.923828f, 1.71094f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {0.0595703f, -0.257324f, 3.25732f, 2.94043f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_ASYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10, 10.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1, -0.1875f, 1, 2.51562f, 3, 1.25f, -0.5f, 0.171875f, 1.5f, 1.6875f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_ASYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {-1, 2.34766f, 3.01562f, 1.21289f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_ALIGN_CORNERS, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10, 10.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1, -0.289438f, 0.684498f, 2.0463f, 3.01406f, 2.45027f, 0.49074f, -0.546639f, 0.336762f,
      1.5f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_ALIGN_CORNERS, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {-1, 0.49074f, 2.50926f, 4}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_HALF_PIXEL_SYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10,
      10.0 / 5.0, 0.0f, 1.0f, -0.75f},
     {-1.21094f, -0.617188f, 0.335938f, 1.78711f, 2.98633f, 2.34766f, 0.152344f, -0.416016f,
      0.923828f, 1.71094f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_HALF_PIXEL_SYMMETRIC, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4,
      4.0 / 9.0, 0.0f, 1.0f, -0.75f},
     {0.0595703f, -0.257324f, 3.25732f, 2.94043f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_PYTORCH_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 5, 10,
      10.0 / 5.0, 0.0f, 1.0f, -0.75f},
     {-1.21094f, -0.617188f, 0.335938f, 1.78711f, 2.98633f, 2.34766f, 0.152344f, -0.416016f,
      0.923828f, 1.71094f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_PYTORCH_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 4,
      4.0 / 9.0, 0.0f, 1.0f, -0.75f},
     {0.0595703f, -0.257324f, 3.25732f, 2.94043f}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_CEIL, 0, 0, 5, 12, 12.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1, -1, 1, 1, 1, 3, 3, -0.5f, -0.5f, -0.5f, 1.5f, 1.5f}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_ASYMMETRIC, KILN_ROUND_PREFER_CEIL, 0, 0, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {-1, 3, 3.5f, 2}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_HALF_PIXEL, KILN_ROUND_FLOOR, 0, 0, 5, 12, 12.0 / 5.0, 0.0f,
      1.0f, -0.75f},
     {-1, -1, -1, -1, 1, 1, 3, 3, -0.5f, -0.5f, -0.5f, 1.5f}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_ASYMMETRIC, KILN_ROUND_FLOOR, 0, 0, 9, 4, 4.0 / 9.0, 0.0f,
      1.0f, -0.75f},
     {-1, 3, 1.5f, 0}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_HALF_PIXEL, KILN_ROUND_CEIL, 0, 0, 5, 12, 12.0 / 5.0, 0.0f,
      1.0f, -0.75f},
     {-1, 1, 1, 1, 3, 3, -0.5f, -0.5f, 1.5f, 1.5f, 1.5f, 1.5f}},
    {{KILN_RESIZE_NEAREST, KILN_COORD_ASYMMETRIC, KILN_ROUND_CEIL, 0, 0, 9, 4, 4.0 / 9.0, 0.0f,
      1.0f, -0.75f},
     {-1, -0.5f, 3.5f, 2}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 1, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {0.45f, 1.08537f, 1.91463f, 2.55f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 1, 16, 3, 3.0 / 16.0,
      0.0f, 1.0f, -0.75f},
     {0.903509f, 1.73824f, 1.17251f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 1, 5, 9, 9.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1, -0.333333f, 0.777778f, 1.88889f, 3, 1.05556f, -0.277778f, 0.833333f, 1.5f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 1, 0, 5, 9, 9.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1, -0.333333f, 0.777778f, 1.88889f, 3, 1.05556f, -0.277778f, 0.833333f, 1.5f}},
    {{KILN_RESIZE_LINEAR, KILN_COORD_TF_CROP, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 6, 6.0 / 9.0, 0.3f,
      1.2f, -0.75f},
     {1.6f, 1.18f, 2.52f, 1.44f, 7.5f, 7.5f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 1, 9, 4, 4.0 / 9.0,
      0.0f, 1.0f, -0.75f},
     {0.513111f, 1.3471f, 1.6529f, 2.48689f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 1, 16, 3, 3.0 / 16.0,
      0.0f, 1.0f, -0.75f},
     {0.958372f, 1.89322f, 1.06358f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 0, 1, 5, 9, 9.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1.20165f, -0.481484f, 0.6845f, 2.369f, 3, 0.990399f, -0.546642f, 0.675924f, 1.70165f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_HALF_PIXEL, KILN_ROUND_PREFER_FLOOR, 1, 0, 5, 9, 9.0 / 5.0,
      0.0f, 1.0f, -0.75f},
     {-1.2515f, -0.533334f, 0.670748f, 2.369f, 3, 0.990398f, -0.529933f, 0.758333f, 1.7515f}},
    {{KILN_RESIZE_CUBIC, KILN_COORD_TF_CROP, KILN_ROUND_PREFER_FLOOR, 0, 0, 9, 6, 6.0 / 9.0, 0.3f,
      1.2f, -0.75f},
     {1.714f, 0.999906f, 2.73067f, 1.11845f, 7.5f, 7.5f}},
};

static void test_resize_tables(void **state) {
    (void)state;
    for (size_t k = 0; k < KILN_COUNT_OF(resize_rows); k++) {
        const kiln_resize_spec *s = &resize_rows[k].spec;
        float x[16];
        for (int i = 0; i < 16; i++) {
            x[i] = (float)(i * 37 % 11) * 0.5f - 1.0f;
        }
        int32_t taps = kiln_resize_taps(s);
        int32_t *index = malloc((size_t)(s->out * taps) * 4);
        float *weight = malloc((size_t)(s->out * taps) * 4);
        kiln_resize_table(index, weight, s);
        for (int64_t o = 0; o < s->out; o++) {
            double y = 0;
            for (int32_t t = 0; t < taps; t++) {
                int32_t i = index[o * taps + t];
                y += i < 0 ? 0 : (double)weight[o * taps + t] * (double)x[i];
            }
            y = index[o * taps] < 0 ? 7.5 : y;
            char what[32];
            snprintf(what, sizeof what, "resize row %d", (int)k);
            assert_close(what, o, resize_rows[k].y[o], y, 2e-5, 1e-5);
        }
        free(index);
        free(weight);
    }
}

/* Resize of [batch, D, H, W, C] by a spec per axis, against the tables applied tap by tap. */
static void check_resize(int isa, const kiln_resize_spec *specs, int64_t batch, int64_t channels) {
    kiln_resize_args a = {.channels = channels, .outside = 7.5f};
    int64_t in = batch * channels, out = batch * channels;
    for (int d = 0; d < 3; d++) {
        int32_t taps = kiln_resize_taps(&specs[d]);
        int32_t *index = malloc((size_t)(specs[d].out * taps) * 4);
        float *weight = malloc((size_t)(specs[d].out * taps) * 4);
        kiln_resize_table(index, weight, &specs[d]);
        a.axis[d] = (kiln_resize_axis){specs[d].in, specs[d].out, taps, index, weight};
        in *= specs[d].in;
        out *= specs[d].out;
    }
    float *x = guard_floats(in, 1), *y = guard_floats(out, 1), *first = guard_floats(out, 0);
    rng r = {.state = 12};
    rng_fill(&r, x, in, -1, 1);
    a.x = x;
    a.y = y;
    job j = {.prims = prims_of[isa], .resize = &a};
    for (size_t w = 0; w < KILN_COUNT_OF(split_ways); w++) {
        in_pieces(batch * specs[0].out * specs[1].out, split_ways[w], run_job, &j);
        if (w == 0) {
            memcpy(first, y, (size_t)out * 4);
        }
        assert_memory_equal(first, y, (size_t)out * 4);
    }
    for (int64_t i = 0; i < out; i++) {
        int64_t rest = i / channels, o[3];
        for (int d = 2; d >= 0; d--) {
            o[d] = rest % specs[d].out;
            rest /= specs[d].out;
        }
        double want = 0;
        bool outside = false;
        const kiln_resize_axis *A = a.axis;
        for (int32_t t = 0; t < A[0].taps * A[1].taps * A[2].taps; t++) {
            int32_t tap[3] = {t / (A[1].taps * A[2].taps), t / A[2].taps % A[1].taps,
                              t % A[2].taps};
            double weight = 1;
            int64_t at = rest;
            for (int d = 0; d < 3; d++) {
                int64_t k = o[d] * A[d].taps + tap[d];
                outside = outside || A[d].index[o[d] * A[d].taps] < 0;
                weight *= (double)A[d].weight[k];
                at = at * A[d].in + A[d].index[k];
            }
            want += outside ? 0 : weight * (double)x[at * channels + i % channels];
        }
        assert_close("resize", i, y[i], outside ? 7.5 : want, 1e-6, 1e-6);
    }
    for (int d = 0; d < 3; d++) {
        free((void *)(uintptr_t)a.axis[d].index);
        free((void *)(uintptr_t)a.axis[d].weight);
    }
    guard_free(x);
    guard_free(y);
    guard_free(first);
}

static kiln_resize_spec axis_spec(kiln_resize_mode mode, kiln_resize_coord coord, int64_t in,
                                  int64_t out) {
    return (kiln_resize_spec){.mode = mode,
                              .coord = coord,
                              .in = in,
                              .out = out,
                              .scale = (double)out / (double)in,
                              .roi_start = 0.1f,
                              .roi_end = 1.3f,
                              .cubic_a = -0.75f};
}

static void test_resize(void **state) {
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (int mode = 0; isa_present(isa) && mode < 3; mode++) {
            for (int coord = 0; coord <= KILN_COORD_TF_CROP; coord++) {
                kiln_resize_mode m = (kiln_resize_mode)mode;
                kiln_resize_coord c = (kiln_resize_coord)coord;
                const kiln_resize_spec flat[3] = {
                    axis_spec(KILN_RESIZE_NEAREST, KILN_COORD_HALF_PIXEL, 1, 1),
                    axis_spec(m, c, 5, 9), axis_spec(m, c, 7, 4)};
                const kiln_resize_spec deep[3] = {axis_spec(m, c, 3, 5), axis_spec(m, c, 4, 4),
                                                  axis_spec(m, c, 3, 7)};
                check_resize(isa, flat, 2, 1);
                check_resize(isa, flat, 1, 37);
                check_resize(isa, deep, 2, 3);
                check_resize(isa, deep, 1, 16);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy),          cmocka_unit_test(test_copy_kinds),
        cmocka_unit_test(test_pad),           cmocka_unit_test(test_gather),
        cmocka_unit_test(test_resize_tables), cmocka_unit_test(test_resize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
