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
        cmocka_unit_test(test_planes),
        cmocka_unit_test(test_groups_and_dilation),
        cmocka_unit_test(test_transposed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
