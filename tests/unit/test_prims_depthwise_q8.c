/* test_prims_depthwise_q8.c - the 8-bit depthwise prims of every instruction set against the
 * portable ones, bit for bit. */
#include "prims_q8.h"

static const struct {
    const kiln_depthwise_q8_prims *prims;
    const char *name;
} forms[] = {
#define FORM(isa, rung, flag) {&kiln_depthwise_q8_prims_##isa, #isa},
    Q8_FORMS(FORM)
#undef FORM
};

static q8_form form_of(size_t i) {
    if (i >= sizeof forms / sizeof *forms) {
        return (q8_form){0};
    }
    const kiln_depthwise_q8_prims *p = forms[i].prims;
    return (q8_form){forms[i].name, p->packed_bytes, p->pack, p->scratch_bytes, p->tiles, p->run};
}

static void test_kernels(void **unused) {
    (void)unused;
    static const int64_t channels[] = {4, 8, 17, 33, 64, 80};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
        for (int64_t kernel = 2; kernel <= 7; kernel++) {
            for (int64_t bits = 0; bits < 4; bits++) {
                int64_t stride = 1 + bits % 2, rows = bits / 2 ? 1 : kernel, size = 7 + kernel;
                int64_t pad = kernel / 2, up = rows / 2;
                kiln_conv_args a = {.batch = 1,
                                    .groups = channels[i],
                                    .c_in = channels[i],
                                    .c_out = channels[i] * (i == 2 ? 2 : 1),
                                    .in = {1, size, size + 3},
                                    .out = {1, (size + 2 * up - rows) / stride + 1,
                                            (size + 3 + 2 * pad - kernel) / stride + 1},
                                    .kernel = {1, rows, kernel},
                                    .stride = {1, stride, stride},
                                    .dilation = {1, 1, 1},
                                    .pad = {0, up, pad}};
                q8_check(form_of, &a, i % 2, kernel == 5, "depthwise");
            }
        }
    }
}

/* Inputs narrower than the kernel, all of whose columns lie at an edge. */
static void test_narrow(void **unused) {
    (void)unused;
    for (int64_t width = 1; width <= 4; width++) {
        kiln_conv_args a = {.batch = 2,
                            .groups = 32,
                            .c_in = 32,
                            .c_out = 32,
                            .in = {1, 2, width},
                            .out = {1, 2, width},
                            .kernel = {1, 5, 5},
                            .stride = {1, 1, 1},
                            .dilation = {1, 1, 1},
                            .pad = {0, 2, 2}};
        q8_check(form_of, &a, true, false, "depthwise");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_narrow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
