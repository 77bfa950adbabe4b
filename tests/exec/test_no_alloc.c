/* After the first run at a shape, a run asks nobody for memory: not the environment's allocator
 * and, seen from outside, neither malloc nor mmap.
 *
 * This program's own malloc, calloc, realloc, aligned_alloc, posix_memalign and mmap count the
 * calls of the whole process and pass them on. Sanitizers bring functions of the same names;
 * under them only the environment's allocator is counted. */
#define _GNU_SOURCE 1

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/samples.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define INTERPOSED 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define INTERPOSED 0
#endif
#endif
#ifndef INTERPOSED
#define INTERPOSED 1
#endif

static atomic_long heap_calls, map_calls, env_calls;

#if INTERPOSED
/* glibc's own names for what is replaced here. */
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t n, size_t bytes);
extern void *__libc_realloc(void *p, size_t bytes);
extern void *__libc_memalign(size_t align, size_t bytes);

void *malloc(size_t bytes) {
    atomic_fetch_add(&heap_calls, 1);
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes) {
    atomic_fetch_add(&heap_calls, 1);
    return __libc_calloc(n, bytes);
}

void *realloc(void *p, size_t bytes) {
    atomic_fetch_add(&heap_calls, 1);
    return __libc_realloc(p, bytes);
}

void *memalign(size_t align, size_t bytes);
void *memalign(size_t align, size_t bytes) {
    atomic_fetch_add(&heap_calls, 1);
    return __libc_memalign(align, bytes);
}

void *aligned_alloc(size_t align, size_t bytes) {
    return memalign(align, bytes);
}

int posix_memalign(void **out, size_t align, size_t bytes) {
    *out = memalign(align, bytes);
    return *out ? 0 : ENOMEM;
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    atomic_fetch_add(&map_calls, 1);
    return (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}
#endif

static void *env_alloc(void *user, size_t bytes) {
    (void)user;
    atomic_fetch_add(&env_calls, 1);
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void env_release(void *user, void *ptr, size_t bytes) {
    (void)user;
    (void)bytes;
    free(ptr);
}

typedef struct counts {
    long heap, map, env;
} counts;

static counts count_now(void) {
    return (counts){atomic_load(&heap_calls), atomic_load(&map_calls), atomic_load(&env_calls)};
}

static void expect_no_calls(counts before, const char *what, const char *name) {
    counts after = count_now();
    if (after.heap != before.heap || after.map != before.map || after.env != before.env) {
        print_error("%s, %s: %ld heap, %ld mmap and %ld environment calls\n", name, what,
                    after.heap - before.heap, after.map - before.map, after.env - before.env);
        fail();
    }
}

/* The counters count: a test of the tool. */
static void the_counters_count(void **state) {
    (void)state;
    counts before = count_now();
    void *volatile p = malloc(100);
    void *volatile q = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    counts after = count_now();
    assert_true(p && q != MAP_FAILED);
    munmap(q, 4096);
    free(p);
    if (INTERPOSED) {
        assert_int_equal(after.heap, before.heap + 1);
        assert_int_equal(after.map, before.map + 1);
    }
}

typedef struct world {
    kiln_env *env;
    kiln_diag *diag;
    kiln_engine *engine;
    kiln_context *context;
    input_set big, small;
    void *saved;
    size_t saved_len;
} world;

/* Replaces an engine by itself, saved and loaded. */
static void reload(world *w) {
    kiln_engine *loaded;
    size_t len;
    w->saved = NULL;
    MUST(w->diag, kiln_engine_save_memory(w->engine, &w->saved, &len, w->diag));
    MUST(w->diag, kiln_engine_load_memory(&loaded, w->env, w->saved, len, NULL, w->diag));
    w->saved_len = len;
    kiln_engine_destroy(w->engine);
    w->engine = loaded;
}

static world open_world(size_t sample_index, int32_t threads, bool profile) {
    const kiln_allocator allocator = {env_alloc, env_release, NULL};
    const kiln_env_options options = {.size = sizeof options, .allocator = &allocator};
    const kiln_context_options use = {.size = sizeof use, .threads = threads};
    world w = {.diag = new_diag()};
    kiln_model *model;
    MUST(w.diag, kiln_env_create(&w.env, &options));
    MUST(w.diag, samples[sample_index].make(&model, w.env, w.diag));
    kiln_shape_range ranges[MAX_INPUTS];
    kiln_build_options build = {.size = sizeof build, .profile = ranges};
    build.n_profile = profile ? make_profile(model, ranges) : 0;
    MUST(w.diag, kiln_engine_build(&w.engine, model, &build, w.diag));
    kiln_model_destroy(model);
    if (profile) {
        reload(&w);
    }
    MUST(w.diag, kiln_context_create(&w.context, w.engine, &use, w.diag));
    assert_true(make_inputs(&w.big, w.engine, 8, 1, SIZE_MAX / 2));
    assert_true(make_inputs(&w.small, w.engine, 3, 2, SIZE_MAX / 2));
    return w;
}

static void close_world(world *w) {
    kiln_context_destroy(w->context);
    kiln_engine_destroy(w->engine);
    kiln_free(w->env, w->saved, w->saved_len);
    kiln_env_destroy(w->env);
    kiln_diag_destroy(w->diag);
    free_inputs(&w->big);
    free_inputs(&w->small);
}

static void alternate(world *w, int runs) {
    for (int k = 0; k < runs; k++) {
        MUST(w->diag, bind_inputs(w->context, k % 2 ? &w->small : &w->big, w->diag));
        MUST(w->diag, kiln_context_run(w->context, w->diag));
    }
}

/* Two shapes in turns, by engines that take any and by saved ones with a profile. */
static void warm_runs_allocate_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < 2 * N_SAMPLES; i++) {
        world w = open_world(i / 2, 2, i % 2);
        /* Data-sized values may grow with the data: both inputs are seen before counting. */
        alternate(&w, 4);
        counts before = count_now();
        alternate(&w, 50);
        expect_no_calls(before, i % 2 ? "warm runs with a profile" : "warm runs",
                        samples[i / 2].name);
        close_world(&w);
    }
}

/* A target that is held against the result at each run. */
static void a_checked_target_allocates_nothing(void **state) {
    (void)state;
    const int64_t dims[] = {2, 4}, length[] = {2};
    float x[8] = {1};
    int64_t target[] = {1, 4};
    kiln_diag *diag = new_diag();
    kiln_builder *b;
    kiln_model *model;
    kiln_engine *engine;
    kiln_context *context;
    MUST(diag, kiln_builder_create(&b, NULL));
    const kiln_ref_value in[] = {kiln_builder_input(b, "x", KILN_DTYPE_F32, 2, dims, diag),
                                 kiln_builder_input(b, "s", KILN_DTYPE_I64, 1, length, diag)};
    (void)kiln_builder_output(b, kiln_builder_node(b, "", "Expand", in, 2, NULL, 0, diag), "y",
                              diag);
    MUST(diag, kiln_builder_finish(&model, b, diag));
    MUST(diag, kiln_engine_build(&engine, model, NULL, diag));
    MUST(diag, kiln_context_create(&context, engine, NULL, diag));
    const kiln_tensor data = {.dtype = KILN_DTYPE_F32,
                              .rank = 2,
                              .dims = {2, 4},
                              .data = x,
                              .cap_bytes = sizeof x},
                      shape = {.dtype = KILN_DTYPE_I64,
                               .rank = 1,
                               .dims = {2},
                               .data = target,
                               .cap_bytes = sizeof target};
    MUST(diag, kiln_context_bind(context, "x", &data, diag));
    MUST(diag, kiln_context_bind(context, "s", &shape, diag));
    MUST(diag, kiln_context_run(context, diag));
    counts before = count_now();
    for (int k = 0; k < 20; k++) {
        MUST(diag, kiln_context_run(context, diag));
    }
    expect_no_calls(before, "warm runs", "a target");
    target[1] = 5; /* and it is checked */
    assert_int_equal(kiln_context_run(context, diag), KILN_E_MALFORMED);
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
    kiln_model_destroy(model);
    kiln_diag_destroy(diag);
}

/* For networks whose shapes follow from the inputs', prepare does all of it before the first run.
 */
static void a_prepared_run_allocates_nothing(void **state) {
    (void)state;
    static const size_t bounded[] = {0, 1, 4};
    for (size_t i = 0; i < KILN_COUNT_OF(bounded); i++) {
        world w = open_world(bounded[i], 1, false);
        MUST(w.diag, bind_inputs(w.context, &w.big, w.diag));
        MUST(w.diag, kiln_context_prepare(w.context, w.diag));
        counts before = count_now();
        MUST(w.diag, kiln_context_run(w.context, w.diag));
        expect_no_calls(before, "first run", samples[bounded[i]].name);
        close_world(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_counters_count),
        cmocka_unit_test(warm_runs_allocate_nothing),
        cmocka_unit_test(a_checked_target_allocates_nothing),
        cmocka_unit_test(a_prepared_run_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
