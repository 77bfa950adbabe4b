/* The memory plan: buffers that live at once do not overlap, memory is used again, and the time
 * that it takes grows with the number of buffers and not with its square. ctest-timeout: 60 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "plan/plan.h"

static uint32_t state = 1;

static uint32_t next_random(uint32_t below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

/* The sum of what lives at the busiest step: no plan needs less. */
static size_t busiest(const kiln_lifetime *items, size_t n, int32_t steps) {
    size_t most = 0;
    for (int32_t s = 0; s < steps; s++) {
        size_t sum = 0;
        for (size_t i = 0; i < n; i++) {
            sum += items[i].first <= s && s <= items[i].last ? (items[i].bytes + 63) / 64 * 64 : 0;
        }
        most = sum > most ? sum : most;
    }
    return most;
}

static void check_apart(const kiln_lifetime *items, size_t n, size_t total) {
    for (size_t i = 0; i < n; i++) {
        const kiln_lifetime *a = &items[i];
        assert_int_equal(a->offset % 64, 0);
        assert_true(a->offset + a->bytes <= total);
        for (size_t k = 0; k < i; k++) {
            const kiln_lifetime *b = &items[k];
            const bool meet = a->first <= b->last && b->first <= a->last;
            const bool apart =
                a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset;
            assert_true(!meet || apart || a->bytes == 0 || b->bytes == 0);
        }
    }
}

/* Short lives, long ones, and some of no bytes; few and many at once. */
static void buffers_stay_apart(void **unused) {
    (void)unused;
    enum { MOST = 300 };
    for (int round = 0; round < 200; round++) {
        kiln_lifetime items[MOST] = {{0}};
        const size_t n = 1 + next_random(MOST);
        const int32_t steps = 1 + (int32_t)next_random(400);
        const uint32_t longest = round % 2 ? 6 : (uint32_t)steps;
        for (size_t i = 0; i < n; i++) {
            items[i].bytes = next_random(5) ? next_random(3000) : 0;
            items[i].first = (int32_t)next_random((uint32_t)steps);
            items[i].last = items[i].first + (int32_t)next_random(longest);
            items[i].last = items[i].last < steps ? items[i].last : steps - 1;
        }
        kiln_arena arena;
        size_t total;
        kiln_arena_init(&arena, NULL);
        assert_int_equal(kiln_plan_memory(&total, items, n, &arena), KILN_OK);
        check_apart(items, n, total);
        const size_t least = busiest(items, n, steps);
        assert_true(total >= least && total <= 2 * least);
        kiln_arena_free(&arena);
    }
}

/* A chain in which two buffers live at once needs two, however long it is. With time in proportion
 * to the square of its length it would take a quarter of an hour. */
static void long_chains_are_placed_fast(void **unused) {
    (void)unused;
    enum { LENGTH = 400000 };
    kiln_arena arena;
    kiln_lifetime *items;
    size_t total;
    kiln_arena_init(&arena, NULL);
    items = kiln_arena_array(&arena, LENGTH, sizeof *items);
    assert_non_null(items);
    for (int32_t i = 0; i < LENGTH; i++) {
        items[i] = (kiln_lifetime){.bytes = 640, .first = i, .last = i + 1};
    }
    assert_int_equal(kiln_plan_memory(&total, items, LENGTH, &arena), KILN_OK);
    assert_int_equal(total, 1280);
    kiln_arena_free(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_stay_apart),
        cmocka_unit_test(long_chains_are_placed_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
