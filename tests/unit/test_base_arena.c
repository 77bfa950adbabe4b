/* Arena, environment, checked arithmetic, statuses and element types. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/checked.h"
#include "base/env.h"
#include "base/host.h"
#include "base/options.h"

/* Counts what is outstanding and fails after `left` allocations. */
typedef struct counter {
    int left;
    size_t live_bytes;
    int calls;
} counter;

static void *counted_alloc(void *user, size_t bytes) {
    counter *c = user;
    c->calls++;
    if (c->left-- <= 0) {
        return NULL;
    }
    c->live_bytes += bytes;
    void *ptr = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    memset(ptr, 0xA5, bytes);
    return ptr;
}

static void counted_release(void *user, void *ptr, size_t bytes) {
    ((counter *)user)->live_bytes -= bytes;
    free(ptr);
}

static kiln_env *counted_env(counter *c, int left) {
    *c = (counter){.left = left};
    kiln_allocator allocator = {counted_alloc, counted_release, c};
    kiln_env_options options = {.size = sizeof options, .allocator = &allocator};
    kiln_env *env = NULL;
    assert_int_equal(kiln_env_create(&env, &options), KILN_OK);
    return env;
}

static void test_arena_zeroes_and_aligns(void **state) {
    (void)state;
    counter c;
    kiln_env *env = counted_env(&c, 1000);
    kiln_arena arena;
    kiln_arena_init(&arena, env);
    for (size_t bytes = 0; bytes < 3000; bytes += 7) {
        unsigned char *p = kiln_arena_array(&arena, bytes, 1);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % (bytes >= 64 ? 64 : 16), 0);
        for (size_t i = 0; i < bytes; i++) {
            assert_int_equal(p[i], 0);
        }
        memset(p, 0xFF, bytes);
    }
    kiln_arena_free(&arena);
    kiln_env_destroy(env);
    assert_int_equal(c.live_bytes, 0);
}

static void test_arena_marks(void **state) {
    (void)state;
    counter c;
    kiln_env *env = counted_env(&c, 1000);
    kiln_arena arena;
    kiln_arena_init(&arena, env);
    kiln_arena_mark empty = kiln_arena_here(&arena);
    char *keep = kiln_arena_text(&arena, "keep", 4);
    kiln_arena_mark mark = kiln_arena_here(&arena);
    size_t live = c.live_bytes;
    void *first = kiln_arena_raw(&arena, 100);
    assert_non_null(kiln_arena_raw(&arena, 1 << 20));
    assert_non_null(kiln_arena_raw(&arena, 5 << 20));
    assert_true(c.live_bytes > live + (6 << 20));
    kiln_arena_rewind(&arena, mark);
    assert_int_equal(c.live_bytes, live);
    assert_ptr_equal(kiln_arena_raw(&arena, 100), first);
    assert_string_equal(keep, "keep");
    kiln_arena_rewind(&arena, empty);
    assert_int_equal(arena.total_bytes, 0);
    kiln_env_destroy(env);
    assert_int_equal(c.live_bytes, 0);
}

/* An inner arena that is recycled over and over asks the outer one for chunks at first only, and
 * an outer one that has seen all of it once asks nobody. */
static void test_arena_within(void **state) {
    (void)state;
    counter c;
    kiln_env *env = counted_env(&c, 1000);
    kiln_arena outer, inner;
    int calls = 0;
    kiln_arena_init(&outer, env);
    for (int life = 0; life < 5; life++) {
        kiln_arena_recycle(&outer);
        calls = life == 3 ? c.calls : calls;
        kiln_arena_within(&inner, &outer);
        size_t settled = 0;
        for (int turn = 0; turn < 50; turn++) {
            kiln_arena_recycle(&inner);
            unsigned char *first = kiln_arena_array(&inner, 5000, 1);
            unsigned char *second = kiln_arena_array(&inner, 90000, 1);
            assert_true(first && second);
            assert_int_equal((uintptr_t)second % 64, 0);
            memset(first, 1, 5000);
            memset(second, 2, 90000);
            assert_int_equal(first[4999], 1);
            settled = turn == 2 ? outer.used_bytes : settled;
        }
        assert_int_equal(outer.used_bytes, settled);
        kiln_arena_free(&inner); /* leaves what it had to the outer one */
    }
    assert_int_equal(c.calls, calls);
    kiln_arena_free(&outer);
    kiln_env_destroy(env);
    assert_int_equal(c.live_bytes, 0);
}

static void test_arena_overflow(void **state) {
    (void)state;
    kiln_arena arena;
    kiln_arena_init(&arena, NULL);
    assert_null(kiln_arena_array(&arena, SIZE_MAX / 2, 3));
    assert_null(kiln_arena_array(&arena, SIZE_MAX, 1));
    assert_null(kiln_arena_raw(&arena, SIZE_MAX - 20));
    assert_null(kiln_arena_raw(&arena, SIZE_MAX - 100));
    assert_null(kiln_arena_text(&arena, "", SIZE_MAX));
    assert_non_null(kiln_arena_raw(&arena, 0));
    kiln_arena_free(&arena);
}

static kiln_status push_many(kiln_arena *arena, int n, int64_t *sum) {
    int *items = NULL;
    size_t count = 0, cap = 0;
    for (int i = 0; i < n; i++) {
        KILN_PUSH(arena, items, count, cap, i);
    }
    *sum = 0;
    for (size_t i = 0; i < count; i++) {
        *sum += items[i];
    }
    return KILN_OK;
}

static void test_arena_push_and_failure(void **state) {
    (void)state;
    bool done = false;
    int failures = 0;
    for (int left = 1; !done; left++) {
        counter c;
        kiln_env *env = counted_env(&c, left);
        kiln_arena arena;
        kiln_arena_init(&arena, env);
        int64_t sum = -1;
        kiln_status status = push_many(&arena, 20000, &sum);
        done = status == KILN_OK;
        failures += status == KILN_E_MEMORY;
        assert_true(done ? sum == 199990000 : status == KILN_E_MEMORY);
        kiln_arena_free(&arena);
        kiln_env_destroy(env);
        assert_int_equal(c.live_bytes, 0);
    }
    assert_true(failures >= 3);
}

static void test_arena_slack_is_optional(void **state) {
    (void)state;
    kiln_arena arena;
    kiln_arena_init(&arena, NULL);
    char *text = kiln_arena_printf(&arena, "%s-%d", "conv", 7);
    assert_string_equal(text, "conv-7");
    int source[3] = {1, 2, 3};
    int *copy = kiln_arena_copy(&arena, source, sizeof source);
    assert_memory_equal(copy, source, sizeof source);
    assert_non_null(kiln_arena_copy(&arena, NULL, 0));
    kiln_arena_free(&arena);
    assert_non_null(kiln_arena_raw(&arena, 1));
    kiln_arena_free(&arena);
}

static void test_env_limits(void **state) {
    (void)state;
    const kiln_limits *d = kiln_env_limits(NULL);
    assert_true(d->model_bytes == (uint64_t)2 << 30);
    assert_true(d->nodes == 2000000);
    assert_true(d->memory_bytes == kiln_host_memory_bytes() / 5 * 4);
    kiln_limits mine = {.size = sizeof mine, .nodes = 7};
    kiln_env_options options = {.size = sizeof options, .limits = &mine};
    kiln_env *env;
    assert_int_equal(kiln_env_create(&env, &options), KILN_OK);
    assert_true(kiln_env_limits(env)->nodes == 7);
    assert_true(kiln_env_limits(env)->call_depth == 100);
    kiln_env_destroy(env);
    options.size = 0;
    assert_int_equal(kiln_env_create(&env, &options), KILN_E_USAGE);
    assert_true(kiln_host_cores() >= 1);
    assert_true(kiln_host_core(0) >= 0);
    assert_int_equal(kiln_host_core(100000), -1);
}

static void test_options_of_other_versions(void **state) {
    (void)state;
    struct {
        size_t size;
        uint64_t a, b;
    } ours, newer = {24, 1, 2};
    struct {
        size_t size;
        uint64_t a;
    } older = {16, 9}, narrow;
    assert_int_equal(kiln_options_read(&ours, sizeof ours, &older), KILN_OK);
    assert_true(ours.size == 24 && ours.a == 9 && ours.b == 0);
    assert_int_equal(kiln_options_read(&narrow, sizeof narrow, &newer), KILN_E_USAGE);
    newer.b = 0;
    assert_int_equal(kiln_options_read(&narrow, sizeof narrow, &newer), KILN_OK);
    assert_true(narrow.size == 16 && narrow.a == 1);
}

static void log_line(void *user, kiln_log_level level, const char *text) {
    (void)level;
    memcpy(user, text, strlen(text) + 1);
}

static void test_env_log(void **state) {
    (void)state;
    char line[4096] = "";
    kiln_logger logger = {log_line, line, KILN_LOG_WARN};
    kiln_env_options options = {.size = sizeof options, .logger = &logger};
    kiln_env *env;
    assert_int_equal(kiln_env_create(&env, &options), KILN_OK);
    kiln_env_log(env, KILN_LOG_INFO, "quiet");
    assert_string_equal(line, "");
    kiln_env_log(env, KILN_LOG_WARN, "a\n%s", "\x1b[31mred");
    assert_string_equal(line, "a\\n\\x1B[31mred");
    kiln_env_log(NULL, KILN_LOG_ERROR, "nobody listens");
    kiln_env_destroy(env);
}

static void test_sizes(void **state) {
    (void)state;
    int64_t n;
    size_t bytes;
    assert_true(kiln_dims_count((int64_t[]){INT64_MAX, INT64_MAX, 0}, 3, &n) && n == 0);
    assert_false(kiln_dims_count((int64_t[]){0, -1}, 2, &n));
    assert_false(kiln_dims_count((int64_t[]){INT64_MAX, 2}, 2, &n));
    assert_true(kiln_dims_count(NULL, 0, &n) && n == 1);
    assert_true(kiln_dtype_bytes(KILN_DTYPE_I4, 3, &bytes) && bytes == 2);
    assert_true(kiln_dtype_bytes(KILN_DTYPE_U2, 5, &bytes) && bytes == 2);
    assert_true(kiln_dtype_bytes(KILN_DTYPE_I2, INT64_MAX, &bytes) && bytes == (size_t)1 << 61);
    assert_true(kiln_dtype_bytes(KILN_DTYPE_C128, 3, &bytes) && bytes == 48);
    assert_true(kiln_dtype_bytes(KILN_DTYPE_STRING, 3, &bytes) && bytes == 3 * sizeof(char *));
    assert_false(kiln_dtype_bytes(KILN_DTYPE_F64, INT64_MAX, &bytes));
    assert_false(kiln_dtype_bytes(KILN_DTYPE_NONE, 1, &bytes));
    assert_false(kiln_dtype_bytes((kiln_dtype)99, 1, &bytes));
    assert_false(kiln_dtype_bytes(KILN_DTYPE_F32, -1, &bytes));
    assert_false(kiln_align_size(SIZE_MAX - 3, 64, &bytes));
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 2, .dims = {3, 5}};
    assert_int_equal(kiln_tensor_count(&t), 15);
    assert_int_equal(kiln_tensor_bytes(&t), 60);
    t.rank = KILN_MAX_RANK + 1;
    assert_int_equal(kiln_tensor_count(&t), -1);
    assert_true(kiln_tensor_bytes(&t) == SIZE_MAX);
}

static void test_names(void **state) {
    (void)state;
    for (int i = 1; i < KILN_DTYPE_COUNT; i++) {
        assert_int_equal(kiln_dtype_parse(kiln_dtype_name((kiln_dtype)i)), i);
        assert_true(kiln_dtype_bits((kiln_dtype)i) > 0 || i == KILN_DTYPE_STRING);
    }
    assert_int_equal(kiln_dtype_parse("half"), KILN_DTYPE_F16);
    assert_int_equal(kiln_dtype_parse("FP32"), KILN_DTYPE_F32);
    assert_int_equal(kiln_dtype_parse("f3"), KILN_DTYPE_NONE);
    assert_int_equal(kiln_dtype_parse(""), KILN_DTYPE_NONE);
    assert_int_equal(kiln_dtype_parse("none"), KILN_DTYPE_NONE);
    assert_int_equal(kiln_dtype_parse(NULL), KILN_DTYPE_NONE);
    assert_string_equal(kiln_dtype_name((kiln_dtype)-1), "?");
    assert_string_equal(kiln_dtype_name((kiln_dtype)27), "?");
    for (int s = 0; s >= KILN_E_INTERNAL; s--) {
        assert_string_not_equal(kiln_status_name((kiln_status)s), "unknown status");
    }
    assert_int_equal(kiln_status_exit_code(KILN_E_UNSUPPORTED), 4);
    assert_int_equal(kiln_status_exit_code(KILN_E_INTERNAL), 70);
    assert_int_equal(kiln_status_exit_code((kiln_status)5), 70);
    assert_true(strchr(kiln_version(), '.') != NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena_zeroes_and_aligns),
        cmocka_unit_test(test_arena_marks),
        cmocka_unit_test(test_arena_within),
        cmocka_unit_test(test_arena_overflow),
        cmocka_unit_test(test_arena_push_and_failure),
        cmocka_unit_test(test_arena_slack_is_optional),
        cmocka_unit_test(test_env_limits),
        cmocka_unit_test(test_options_of_other_versions),
        cmocka_unit_test(test_env_log),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
