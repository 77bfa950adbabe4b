/* test_prims_conv_q8.c - the 8-bit convolution prims of every instruction set against the portable
 * ones, bit for bit. */
#include "prims_q8.h"

static const struct {
    const kiln_conv_q8_prims *prims;
    const char *name;
} forms[] = {
#define FORM(isa, rung, flag) {&kiln_conv_q8_prims_##isa, #isa},
    Q8_FORMS(FORM) Q8_TILE_FORMS(FORM)
#undef FORM
};

static q8_form form_of(size_t i) {
    const kiln_conv_q8_prims *p = forms[i].prims;
    return (q8_form){forms[i].name, p->packed_bytes, p->pack, p->scratch_bytes, p->tiles, p->run};
}

static kiln_conv_args plane(int64_t c_in, int64_t c_out, int64_t groups, int64_t size,
                            int64_t kernel, int64_t stride, int64_t pad) {
    int64_t out = (size + 2 * pad - kernel) / stride + 1;
    return (kiln_conv_args){.batch = 2,
                            .groups = groups,
                            .c_in = c_in,
                            .c_out = c_out,
                            .in = {1, size, size},
                            .out = {1, out, out},
                            .kernel = {1, kernel, kernel},
                            .stride = {1, stride, stride},
                            .dilation = {1, 1, 1},
                            .pad = {0, pad, pad}};
}

static void test_planes(void **unused) {
    (void)unused;
    static const int64_t channels[] = {1, 3, 4, 5, 16, 17, 32, 66};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
        for (int64_t kernel = 1; kernel <= 5; kernel += 2) {
            for (int64_t stride = 1; stride <= 2; stride++) {
                kiln_conv_args a =
                    plane(channels[i], channels[7 - i], 1, 9, kernel, stride, kernel / 2);
                q8_check(form_of, &a, i % 2, i == 3, "plane");
            }
        }
    }
    kiln_conv_args wide = plane(33, 130, 1, 20, 3, 1, 1);
    q8_check(form_of, &wide, true, false, "wide plane");
}

/* Both ways to stage, over shapes that fill tile registers in every way: lines that are passed
 * without a break and not, strides, padding, groups joined to a step, channels of a first layer. */
static void test_lines(void **unused) {
    (void)unused;
    static const struct {
        int64_t c_in, c_out, groups, size, kernel, stride, pad, dilation;
    } all[] = {
        {64, 40, 1, 7, 3, 1, 1, 1},    {32, 96, 1, 14, 3, 1, 1, 1}, {64, 64, 1, 15, 3, 2, 1, 1},
        {3, 48, 1, 37, 7, 2, 3, 1},    {4, 9, 1, 20, 3, 2, 0, 1},   {64, 64, 4, 9, 3, 1, 1, 1},
        {48, 96, 3, 12, 3, 2, 1, 1},   {80, 40, 10, 7, 3, 1, 1, 1}, {24, 24, 2, 17, 3, 1, 4, 4},
        {16, 20, 1, 40, 3, 1, 12, 12}, {160, 33, 1, 5, 3, 1, 0, 1}, {20, 70, 5, 6, 5, 1, 2, 1},
        {96, 96, 2, 6, 3, 1, 1, 1},    {64, 32, 1, 70, 2, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        kiln_conv_args a = plane(all[i].c_in, all[i].c_out, all[i].groups, all[i].size,
                                 all[i].kernel, all[i].stride, all[i].pad);
        a.dilation[1] = a.dilation[2] = all[i].dilation;
        a.out[1] = a.out[2] =
            (all[i].size + 2 * all[i].pad - all[i].dilation * (all[i].kernel - 1) - 1) /
                all[i].stride +
            1;
        q8_check(form_of, &a, i % 2, i % 3 == 1, "lines");
        a.blocking.block_rows = 8;
        a.blocking.group_bytes = 1;
        q8_check(form_of, &a, i % 2, i % 3 == 1, "lines in small units");
        a.blocking = (kiln_gemm_blocking){0};
        a.tactic = KILN_CONV_PATCH;
        q8_check(form_of, &a, i % 2, i % 3 == 1, "patches");
    }
}

/* Lines of one axis, of the planes of a volume, and longer than what is staged. */
static void test_other_lines(void **unused) {
    (void)unused;
    kiln_conv_args a = plane(12, 20, 1, 30, 1, 1, 0);
    a.in[1] = a.out[1] = 1;
    a.kernel[2] = 5;
    a.pad[2] = 3;
    a.out[2] = 31;
    q8_check(form_of, &a, true, false, "one axis");
    a = plane(16, 20, 1, 6, 3, 1, 1);
    a.in[0] = 5;
    a.out[0] = 3;
    a.stride[0] = 2;
    a.kernel[2] = 2;
    a.stride[2] = 3;
    a.pad[0] = 0;
    a.out[2] = 3;
    q8_check(form_of, &a, false, false, "planes");
    a.out[0] = 5;
    a.pad[0] = 2;
    q8_check(form_of, &a, false, false, "planes that are padding");
    a = plane(640, 8, 1, 1, 1, 1, 0);
    a.batch = 1;
    a.kernel[2] = 2;
    a.in[2] = 420;
    a.out[2] = 419;
    q8_check(form_of, &a, false, false, "long lines");
}

static void test_groups_and_dilation(void **unused) {
    (void)unused;
    kiln_conv_args a = plane(24, 36, 4, 8, 3, 1, 1);
    q8_check(form_of, &a, true, false, "groups");
    a = plane(10, 20, 1, 9, 3, 1, 2);
    a.dilation[1] = a.dilation[2] = 2;
    q8_check(form_of, &a, false, false, "dilation");
}

static void test_transposed(void **unused) {
    (void)unused;
    for (int64_t stride = 1; stride <= 3; stride++) {
        for (int64_t kernel = 1; kernel <= 4; kernel++) {
            kiln_conv_args a = plane(19, 37, 1, 5, kernel, stride, 0);
            a.transposed = true;
            a.out[1] = (a.in[1] - 1) * stride + kernel;
            a.out[2] = (a.in[2] - 1) * stride + kernel + 1;
            a.pad[1] = kernel > 1;
            q8_check(form_of, &a, stride == 2, kernel == 3, "transposed");
        }
    }
    kiln_conv_args a = plane(8, 12, 4, 6, 3, 2, 0);
    a.transposed = true;
    a.dilation[2] = 3;
    a.out[1] = 13;
    a.out[2] = 17;
    q8_check(form_of, &a, false, false, "transposed in groups");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planes),      cmocka_unit_test(test_lines),
        cmocka_unit_test(test_other_lines), cmocka_unit_test(test_groups_and_dilation),
        cmocka_unit_test(test_transposed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
