/* What a context keeps: plans bound to the last shapes, bounded in number; one buffer for all of
 * them; nothing of the inputs bound before. */
#include <stdatomic.h>

#include "engine/tiny_onnx.h"
#include "exec/frame.h"

enum { SHAPES = 3 * KILN_KEPT_SHAPES, SEED = 5 };

/* ---- An environment that knows what is held ---- */

static atomic_long calls, held_bytes;

static void *count_alloc(void *user, size_t bytes) {
    (void)user;
    void *p = NULL;
    atomic_fetch_add(&calls, 1);
    atomic_fetch_add(&held_bytes, (long)bytes);
    return posix_memalign(&p, 64, bytes) == 0 ? p : NULL;
}

static void count_release(void *user, void *ptr, size_t bytes) {
    (void)user;
    atomic_fetch_sub(&held_bytes, (long)bytes);
    free(ptr);
}

typedef struct world {
    kiln_env *env;
    kiln_diag *diag;
    kiln_engine *engine;
    kiln_context *context;
    input_set inputs; /* for the largest batch */
} world;

static world open_world(kiln_status (*make)(kiln_model **, const kiln_env *, kiln_diag *),
                        int64_t batch) {
    const kiln_allocator allocator = {count_alloc, count_release, NULL};
    const kiln_env_options options = {.size = sizeof options, .allocator = &allocator};
    const kiln_context_options one = {.size = sizeof one, .threads = 1};
    world w = {.diag = new_diag()};
    kiln_model *model;
    MUST(w.diag, kiln_env_create(&w.env, &options));
    MUST(w.diag, make(&model, w.env, w.diag));
    MUST(w.diag, kiln_engine_build(&w.engine, model, NULL, w.diag));
    kiln_model_destroy(model);
    MUST(w.diag, kiln_context_create(&w.context, w.engine, &one, w.diag));
    if (batch > 0) {
        assert_true(make_inputs(&w.inputs, w.engine, batch, SEED, SIZE_MAX / 2));
    }
    return w;
}

static void close_world(world *w) {
    kiln_context_destroy(w->context);
    kiln_engine_destroy(w->engine);
    kiln_env_destroy(w->env);
    kiln_diag_destroy(w->diag);
    free_inputs(&w->inputs);
    assert_int_equal(atomic_load(&held_bytes), 0);
}

static void run_batch(world *w, kiln_context *context, int64_t batch, outcome *out) {
    for (size_t i = 0; i < w->inputs.n; i++) {
        kiln_tensor t = w->inputs.tensors[i];
        t.dims[0] = w->inputs.io[i].rank > 0 && w->inputs.io[i].dims[0] < 0 ? batch : t.dims[0];
        t.cap_bytes = kiln_tensor_bytes(&t);
        MUST(w->diag, kiln_context_bind(context, w->inputs.io[i].name, &t, w->diag));
    }
    MUST(w->diag, kiln_context_run(context, w->diag));
    if (out) {
        take_outcome(out, context, w->engine);
    }
}

/* ---- Shapes ---- */

/* A run of the context is as that of one that never saw another shape. */
static void compare_with_fresh(world *w, int64_t batch) {
    outcome got = {0}, expected = {0};
    kiln_context *fresh;
    run_batch(w, w->context, batch, &got);
    MUST(w->diag, kiln_context_create(&fresh, w->engine, NULL, w->diag));
    run_batch(w, fresh, batch, &expected);
    kiln_context_destroy(fresh);
    assert_true(same_outcome(&got, &expected));
    free_outcome(&got);
    free_outcome(&expected);
}

/* Far more shapes than are kept, in an order without pattern. What is held once as many as are kept
 * were seen, three times as many do not add to; without a bound they would add half as much. */
static void any_number_of_shapes_is_right_and_bounded(void **state) {
    (void)state;
    static kiln_status (*const makes[])(kiln_model **, const kiln_env *,
                                        kiln_diag *) = {make_conv, make_nonzero, make_scan};
    for (size_t m = 0; m < KILN_COUNT_OF(makes); m++) {
        world w = open_world(makes[m], SHAPES);
        uint32_t draw = 1;
        for (int64_t batch = SHAPES; batch > SHAPES - KILN_KEPT_SHAPES - 2; batch--) {
            run_batch(&w, w.context, batch, NULL);
        }
        long kept = atomic_load(&held_bytes);
        for (int k = 0; k < 4 * SHAPES; k++) {
            draw = draw * 1664525u + 1013904223u;
            compare_with_fresh(&w, 1 + (int64_t)(draw >> 16) % SHAPES);
        }
        print_message("%ld bytes held at first, %ld by more shapes\n", kept,
                      atomic_load(&held_bytes));
        assert_true(atomic_load(&held_bytes) < kept * 5 / 4);
        close_world(&w);
    }
}

static long calls_of(world *w, int64_t batch) {
    long before = atomic_load(&calls);
    run_batch(w, w->context, batch, NULL);
    return atomic_load(&calls) - before;
}

static void the_shape_used_longest_ago_is_forgotten(void **state) {
    (void)state;
    world w = open_world(make_conv, KILN_KEPT_SHAPES + 2);
    /* The largest first, so that buffers never grow. */
    for (int64_t batch = KILN_KEPT_SHAPES; batch >= 1; batch--) {
        assert_true(calls_of(&w, batch) > 0);
    }
    for (int64_t batch = 1; batch <= KILN_KEPT_SHAPES; batch++) {
        assert_int_equal(calls_of(&w, batch), 0);
    }
    assert_int_equal(calls_of(&w, 1), 0);
    /* Now 2 is the oldest: one more shape costs it its place, and 1 not. */
    assert_true(calls_of(&w, KILN_KEPT_SHAPES + 1) > 0);
    assert_int_equal(calls_of(&w, 1), 0);
    assert_int_equal(calls_of(&w, 3), 0);
    assert_true(calls_of(&w, 2) > 0);
    close_world(&w);
}

/* ---- Inputs bound again and again ---- */

/* joined = the items of `parts` in a row; held = what `extra` holds. */
static kiln_status make_containers(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    static kiln_arena arena; /* borrowed by the model until the engine has been built */
    kiln_arena_free(&arena);
    kiln_arena_init(&arena, NULL);
    kiln_out o = {.arena = &arena};
    size_t graph = tiny_begin(&o);
    tiny_node(&o, "ConcatFromSequence", "parts", NULL, "joined", 0);
    tiny_node(&o, "OptionalGetElement", "extra", NULL, "held", -1);
    tiny_value(&o, TINY_INPUT, "parts", TINY_SEQUENCE, KILN_DTYPE_F32, "N");
    tiny_value(&o, TINY_INPUT, "extra", TINY_OPTIONAL, KILN_DTYPE_F32, "N");
    tiny_value(&o, TINY_OUTPUT, "joined", TINY_TENSOR, KILN_DTYPE_F32, "M");
    tiny_value(&o, TINY_OUTPUT, "held", TINY_TENSOR, KILN_DTYPE_F32, "N");
    tiny_end(&o, graph);
    return kiln_model_load_memory(out, env, o.data, o.len, NULL, diag);
}

static void sequences_and_optionals_are_bound_in_place(void **state) {
    (void)state;
    float data[] = {1, 2, 3, 4, 5, 6};
    kiln_tensor items[3], wrong;
    for (int i = 0; i < 3; i++) {
        items[i] = (kiln_tensor){.dtype = KILN_DTYPE_F32,
                                 .rank = 1,
                                 .dims = {i + 1},
                                 .data = data + i,
                                 .cap_bytes = sizeof(float) * (size_t)(i + 1)};
    }
    wrong = items[2];
    wrong.dtype = KILN_DTYPE_I64;
    world w = open_world(make_containers, 0);
    long before = 0;
    for (int k = 0; k < 100; k++) {
        size_t n = 1 + (size_t)k % 3;
        MUST(w.diag, kiln_context_bind_sequence(w.context, "parts", items, n, w.diag));
        MUST(w.diag, kiln_context_bind(w.context, "extra", &items[k % 2], w.diag));
        if (k == 10) {
            before = atomic_load(&calls);
        }
        if (k < 10) {
            MUST(w.diag, kiln_context_run(w.context, w.diag));
            const kiln_tensor *joined = kiln_context_output(w.context, 0);
            const kiln_tensor *held = kiln_context_output(w.context, 1);
            assert_int_equal(joined->dims[0], n * (n + 1) / 2);
            assert_true(((float *)joined->data)[joined->dims[0] - 1] == (float)(2 * n - 1));
            assert_int_equal(held->dims[0], 1 + k % 2);
        }
    }
    assert_int_equal(atomic_load(&calls), before);
    /* What is refused leaves what was bound. */
    MUST(w.diag, kiln_context_bind_sequence(w.context, "parts", items, 2, w.diag));
    const kiln_tensor bad[] = {items[0], wrong};
    assert_int_equal(kiln_context_bind_sequence(w.context, "parts", bad, 2, NULL), KILN_E_USAGE);
    assert_int_equal(kiln_context_bind(w.context, "extra", &wrong, NULL), KILN_E_USAGE);
    MUST(w.diag, kiln_context_run(w.context, w.diag));
    assert_int_equal(kiln_context_output(w.context, 0)->dims[0], 3);
    close_world(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_shapes_is_right_and_bounded),
        cmocka_unit_test(the_shape_used_longest_ago_is_forgotten),
        cmocka_unit_test(sequences_and_optionals_are_bound_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
