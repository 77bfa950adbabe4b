/* Dims: what is equal has one form, and how forms are written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/dim.h"

typedef struct fixture {
    kiln_arena arena;
    kiln_dims dims;
    kiln_dim h, w;
} fixture;

static fixture *begin(void) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    kiln_arena_init(&f->arena, NULL);
    kiln_dims_init(&f->dims, &f->arena);
    f->h = kiln_dim_symbol(&f->dims, "h");
    f->w = kiln_dim_symbol(&f->dims, "w");
    return f;
}

static void end(fixture *f) {
    kiln_arena_free(&f->arena);
    free(f);
}

static const char *text(fixture *f, kiln_dim d) {
    return kiln_dim_text(&f->dims, d, &f->arena);
}

static void test_text(void **state) {
    (void)state;
    fixture *f = begin();
    kiln_dims *t = &f->dims;
    const kiln_dim h = f->h, w = f->w, sum = kiln_dim_add(t, h, w);
    assert_string_equal(text(f, 7), "7");
    assert_string_equal(text(f, KILN_DIM_UNKNOWN), "?");
    assert_string_equal(text(f, h), "h");
    assert_string_equal(text(f, kiln_dim_sub(t, kiln_dim_mul(t, h, 2), 1)), "h*2-1");
    assert_string_equal(text(f, kiln_dim_mul(t, sum, w)), "w*(h+w)");
    assert_string_equal(text(f, kiln_dim_sub(t, w, sum)), "w-(h+w)");
    assert_string_equal(text(f, kiln_dim_div(t, sum, w)), "(h+w)/w");
    assert_string_equal(text(f, kiln_dim_div(t, w, kiln_dim_mul(t, h, h))), "w/(h*h)");
    assert_string_equal(text(f, kiln_dim_mul(t, kiln_dim_div(t, h, 2), 2)), "h/2*2");
    assert_string_equal(text(f, kiln_dim_mul(t, h, kiln_dim_div(t, w, 2))), "h*(w/2)");
    assert_string_equal(text(f, kiln_dim_min(t, sum, 4)), "min(h+w,4)");
    end(f);
}

/* A chain of convolutions of stride 2: what it makes of a number is what its form says. */
static void test_strides(void **state) {
    (void)state;
    fixture *f = begin();
    kiln_dims *t = &f->dims;
    for (int pad = 0; pad < 2; pad++) {
        kiln_dim d = f->h;
        for (int i = 0; i < 5; i++) {
            d = kiln_dim_add(t, kiln_dim_div(t, kiln_dim_sub(t, d, 3 - 2 * pad), 2), 1);
        }
        assert_string_equal(text(f, d), pad ? "(h-1)/32+1" : "(h-63)/32+1");
        const kiln_dim_entry *sum = kiln_dim_get(t, d), *quotient = kiln_dim_get(t, sum->a);
        const int64_t below = kiln_dim_get(t, quotient->a)->b;
        for (int64_t h = 63; h < 400; h++) {
            int64_t n = h;
            for (int i = 0; i < 5; i++) {
                n = (n - (3 - 2 * pad)) / 2 + 1;
            }
            assert_int_equal((h + below) / quotient->b + sum->b, n);
        }
    }
    end(f);
}

/* Each dim is made of the one before twice, so that their text, and every walk that does not
 * remember where it was, would double with each. */
static void test_doubling(void **state) {
    (void)state;
    fixture *f = begin();
    kiln_dims *t = &f->dims;
    kiln_dim d = f->h, found = kiln_dim_found(t, KILN_DIM_UNKNOWN);
    for (int i = 0; i < 200; i++) {
        d = kiln_dim_mul(t, kiln_dim_add(t, d, f->w), d);
        found = kiln_dim_mul(t, kiln_dim_add(t, found, f->w), found);
    }
    assert_false(kiln_dim_is_found(t, d));
    assert_true(kiln_dim_is_found(t, found));
    assert_int_equal(text(f, d)[0], '?');
    for (int i = 0; i < 100000; i++) {
        d = kiln_dim_div(t, d, f->w);
    }
    assert_false(kiln_dim_is_found(t, d));
    assert_int_equal(text(f, d)[0], '?');
    end(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_strides),
        cmocka_unit_test(test_doubling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
