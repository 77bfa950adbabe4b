/* Running: the same bits for any number of threads, any repeat and a busy pool; the caller's own
 * output buffers; taps; cancelling; asynchronous runs; dynamic batches; a caller's floating-point
 * mode. */
#include <fenv.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "engine/samples.h"

enum { BATCH = 5, SEED = 21, REPEATS = 20, MOST_THREADS = 4 };

/* ---- Same bits ---- */

static void expect_bits(const kiln_engine *engine, const kiln_context_options *options,
                        const outcome *expected, kiln_diag *diag) {
    outcome o = {0};
    MUST(diag, run_engine(engine, BATCH, SEED, options, &o, diag));
    assert_true(same_outcome(&o, expected));
    free_outcome(&o);
}

static void any_number_of_threads_gives_the_same_bits(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    for (size_t i = 0; i < N_SAMPLES; i++) {
        kiln_engine *engine = build_sample(i, NULL);
        outcome expected = {0}, other = {0};
        kiln_context_options options = {.size = sizeof options, .threads = 1};
        MUST(diag, run_engine(engine, BATCH, SEED, &options, &expected, diag));
        MUST(diag, run_engine(engine, BATCH, SEED + 1, &options, &other, diag));
        assert_false(same_outcome(&expected, &other));
        for (int32_t threads = 2; threads <= MOST_THREADS; threads++) {
            options.threads = threads;
            expect_bits(engine, &options, &expected, diag);
        }
        free_outcome(&expected);
        free_outcome(&other);
        kiln_engine_destroy(engine);
    }
    kiln_diag_destroy(diag);
}

/* One context with its inputs bound. */
typedef struct runner {
    kiln_engine *engine;
    kiln_context *context;
    input_set inputs;
    kiln_diag *diag;
} runner;

static runner open_engine(kiln_engine *engine, int64_t batch, const kiln_context_options *options) {
    runner r = {.engine = engine, .diag = new_diag()};
    MUST(r.diag, kiln_context_create(&r.context, r.engine, options, r.diag));
    assert_true(make_inputs(&r.inputs, r.engine, batch, SEED, SIZE_MAX / 2));
    MUST(r.diag, bind_inputs(r.context, &r.inputs, r.diag));
    return r;
}

static runner open_runner(size_t sample_index, int64_t batch, const kiln_context_options *options) {
    return open_engine(build_sample(sample_index, NULL), batch, options);
}

static runner open_model(kiln_status (*make)(kiln_model **out, const kiln_env *env,
                                             kiln_diag *diag)) {
    kiln_diag *diag = new_diag();
    kiln_model *model;
    kiln_engine *engine;
    MUST(diag, make(&model, NULL, diag));
    MUST(diag, kiln_engine_build(&engine, model, NULL, diag));
    kiln_model_destroy(model);
    kiln_diag_destroy(diag);
    return open_engine(engine, 1, NULL);
}

static void close_runner(runner *r) {
    kiln_context_destroy(r->context);
    kiln_engine_destroy(r->engine);
    kiln_diag_destroy(r->diag);
    free_inputs(&r->inputs);
}

static void repeats_give_the_same_bits(void **state) {
    (void)state;
    const kiln_context_options two = {.size = sizeof two, .threads = 2};
    for (size_t i = 0; i < N_SAMPLES; i++) {
        runner r = open_runner(i, BATCH, &two);
        outcome first = {0}, again = {0};
        MUST(r.diag, kiln_context_run(r.context, r.diag));
        take_outcome(&first, r.context, r.engine);
        for (int k = 1; k < REPEATS; k++) {
            MUST(r.diag, kiln_context_run(r.context, r.diag));
            take_outcome(&again, r.context, r.engine);
            assert_true(same_outcome(&first, &again));
        }
        free_outcome(&first);
        free_outcome(&again);
        close_runner(&r);
    }
}

/* A second user of the pool, until told to stop. */
typedef struct rival {
    const kiln_engine *engine;
    kiln_pool *pool;
    atomic_bool stop;
    atomic_int runs;
} rival;

static void *compete(void *arg) {
    rival *r = arg;
    const kiln_context_options options = {.size = sizeof options, .pool = r->pool};
    while (!atomic_load(&r->stop)) {
        if (run_engine(r->engine, BATCH, SEED, &options, NULL, NULL) != KILN_OK) {
            break;
        }
        atomic_fetch_add(&r->runs, 1);
    }
    return NULL;
}

static void a_busy_pool_gives_the_same_bits(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_pool *pool;
    const kiln_pool_options three = {.size = sizeof three, .threads = 3};
    assert_int_equal(kiln_pool_create(&pool, NULL, &three), KILN_OK);
    kiln_engine *engine = build_sample(0, NULL);
    const kiln_context_options alone = {.size = sizeof alone, .threads = 1};
    const kiln_context_options shared = {.size = sizeof shared, .pool = pool};
    outcome expected = {0};
    MUST(diag, run_engine(engine, BATCH, SEED, &alone, &expected, diag));
    rival other = {.engine = engine, .pool = pool};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, compete, &other), 0);
    for (int k = 0; k < REPEATS * 5 || atomic_load(&other.runs) < REPEATS; k++) {
        expect_bits(engine, &shared, &expected, diag);
    }
    atomic_store(&other.stop, true);
    pthread_join(thread, NULL);
    free_outcome(&expected);
    kiln_engine_destroy(engine);
    kiln_pool_destroy(pool);
    kiln_diag_destroy(diag);
}

/* ---- Output buffers ---- */

/* Room behind an output, which stays as it is. */
enum { ROOM = 1024 };

static void outputs_go_to_the_callers_buffers(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SAMPLES; i++) {
        runner r = open_runner(i, BATCH, NULL);
        kiln_io io;
        MUST(r.diag, kiln_context_run(r.context, r.diag));
        for (size_t k = 0; kiln_engine_output(r.engine, k, &io); k++) {
            if (io.is_sequence) {
                continue;
            }
            size_t bytes = kiln_tensor_bytes(kiln_context_output(r.context, k));
            uint8_t *mine = malloc(bytes + ROOM), *expected = malloc(bytes + 1);
            assert_true(mine && expected && bytes > 0);
            memcpy(expected, kiln_context_output(r.context, k)->data, bytes);
            memset(mine, 0xA5, bytes + ROOM);
            MUST(r.diag, kiln_context_bind_output(r.context, io.name, mine, bytes + ROOM, r.diag));
            MUST(r.diag, kiln_context_run(r.context, r.diag));
            assert_ptr_equal(kiln_context_output(r.context, k)->data, mine);
            assert_memory_equal(mine, expected, bytes);
            for (int g = 0; g < ROOM; g++) {
                assert_int_equal(mine[bytes + (size_t)g], 0xA5);
            }
            /* Too small: left alone. */
            memset(mine, 0xA5, bytes + ROOM);
            MUST(r.diag, kiln_context_bind_output(r.context, io.name, mine, bytes - 1, r.diag));
            MUST(r.diag, kiln_context_run(r.context, r.diag));
            assert_ptr_not_equal(kiln_context_output(r.context, k)->data, mine);
            assert_int_equal(mine[0], 0xA5);
            assert_memory_equal(kiln_context_output(r.context, k)->data, expected, bytes);
            MUST(r.diag, kiln_context_bind_output(r.context, io.name, NULL, 0, r.diag));
            free(mine);
            free(expected);
        }
        close_runner(&r);
    }
}

typedef struct shelf {
    uint8_t bytes[4096];
    size_t asked;
    int calls;
} shelf;

static void *from_shelf(void *user, const char *name, size_t bytes) {
    shelf *s = user;
    (void)name;
    s->calls++;
    s->asked = bytes;
    return bytes <= sizeof s->bytes ? s->bytes : NULL;
}

static void outputs_of_unknown_size_are_asked_for(void **state) {
    (void)state;
    runner r = open_runner(6, BATCH, NULL);
    shelf s = {.calls = 0};
    kiln_context_set_output_alloc(r.context, from_shelf, &s);
    MUST(r.diag, kiln_context_run(r.context, r.diag));
    const kiln_tensor *t = kiln_context_output(r.context, 0);
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.asked, kiln_tensor_bytes(t));
    assert_true(s.asked > 0);
    assert_ptr_equal(t->data, s.bytes);
    for (int64_t i = 0; i < kiln_tensor_count(t); i++) {
        assert_true(((const float *)t->data)[i] > 0);
    }
    close_runner(&r);
}

/* ---- Taps ---- */

typedef struct tapped {
    size_t seen, replayed, bytes;
} tapped;

static bool want_all(void *user, const char *name) {
    (void)user;
    (void)name;
    return true;
}

static kiln_status count_value(void *user, const char *name, const char *node,
                               const kiln_tensor *tensor, bool replayed) {
    tapped *t = user;
    assert_non_null(name);
    assert_non_null(node);
    t->seen++;
    t->replayed += replayed;
    t->bytes += kiln_tensor_bytes(tensor);
    return KILN_OK;
}

static kiln_status refuse_value(void *user, const char *name, const char *node,
                                const kiln_tensor *tensor, bool replayed) {
    (void)user;
    (void)name;
    (void)node;
    (void)tensor;
    (void)replayed;
    return KILN_E_CHECK;
}

static void taps_see_every_value_and_change_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SAMPLES; i++) {
        runner r = open_runner(i, BATCH, NULL);
        outcome plain = {0}, looked_at = {0};
        tapped t = {0};
        const kiln_tap tap = {want_all, count_value, &t}, stop = {want_all, refuse_value, NULL};
        MUST(r.diag, kiln_context_run(r.context, r.diag));
        take_outcome(&plain, r.context, r.engine);
        kiln_context_set_tap(r.context, &tap);
        MUST(r.diag, kiln_context_run(r.context, r.diag));
        take_outcome(&looked_at, r.context, r.engine);
        assert_true(same_outcome(&plain, &looked_at));
        assert_true(t.seen > 0 && t.bytes > 0);
        kiln_context_set_tap(r.context, &stop);
        assert_int_equal(kiln_context_run(r.context, r.diag), KILN_E_CHECK);
        kiln_context_set_tap(r.context, NULL);
        MUST(r.diag, kiln_context_run(r.context, r.diag));
        take_outcome(&looked_at, r.context, r.engine);
        assert_true(same_outcome(&plain, &looked_at));
        free_outcome(&plain);
        free_outcome(&looked_at);
        close_runner(&r);
    }
}

/* Values by name, to be compared with those that other kernels compute. */
typedef struct record {
    struct {
        char name[96];
        float *data;
        int64_t n;
    } items[128];
    size_t n, replayed;
} record;

static kiln_status keep_value(void *user, const char *name, const char *node,
                              const kiln_tensor *tensor, bool replayed) {
    record *r = user;
    (void)node;
    if (tensor->dtype == KILN_DTYPE_F32 && r->n < KILN_COUNT_OF(r->items)) {
        size_t bytes = kiln_tensor_bytes(tensor);
        snprintf(r->items[r->n].name, sizeof r->items[r->n].name, "%s", name);
        r->items[r->n].n = kiln_tensor_count(tensor);
        r->items[r->n].data = malloc(bytes + 1);
        assert_non_null(r->items[r->n].data);
        memcpy(r->items[r->n++].data, tensor->data, bytes);
        r->replayed += replayed;
    }
    return KILN_OK;
}

static void free_record(record *r) {
    for (size_t i = 0; i < r->n; i++) {
        free(r->items[i].data);
    }
}

static void record_values(record *out, const kiln_build_options *options) {
    kiln_diag *diag = new_diag();
    kiln_engine *engine = build_sample(0, options);
    kiln_context *context;
    input_set in;
    const kiln_tap tap = {want_all, keep_value, out};
    MUST(diag, kiln_context_create(&context, engine, NULL, diag));
    assert_true(make_inputs(&in, engine, BATCH, SEED, SIZE_MAX / 2));
    MUST(diag, bind_inputs(context, &in, diag));
    kiln_context_set_tap(context, &tap);
    MUST(diag, kiln_context_run(context, diag));
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
    kiln_diag_destroy(diag);
    free_inputs(&in);
}

/* The vector kernels' values, fused ones replayed, against an engine that runs by the reference
 * alone. */
static void taps_agree_with_the_reference(void **state) {
    (void)state;
    const char *off[64];
    size_t n_off = 0;
    kiln_engine *engine = build_sample(0, NULL);
    kiln_layer layer;
    for (size_t i = 0; kiln_engine_layer(engine, i, &layer); i++) {
        bool known = strcmp(layer.kernel, "reference") == 0 || strcmp(layer.kernel, "convert") == 0;
        for (size_t k = 0; k < n_off; k++) {
            known = known || strcmp(off[k], layer.kernel) == 0;
        }
        if (!known && n_off + 1 < KILN_COUNT_OF(off)) {
            off[n_off++] = layer.kernel;
        }
    }
    off[n_off] = NULL;
    assert_true(n_off > 0);
    const kiln_build_options plain = {.size = sizeof plain, .off = off};
    record fast = {.n = 0}, slow = {.n = 0};
    record_values(&fast, NULL);
    record_values(&slow, &plain);
    assert_true(fast.replayed > 0);
    size_t compared = 0;
    for (size_t i = 0; i < fast.n; i++) {
        for (size_t k = 0; k < slow.n; k++) {
            if (strcmp(fast.items[i].name, slow.items[k].name) != 0) {
                continue;
            }
            compared++;
            assert_int_equal(fast.items[i].n, slow.items[k].n);
            for (int64_t e = 0; e < fast.items[i].n; e++) {
                float a = fast.items[i].data[e], b = slow.items[k].data[e];
                assert_true(fabsf(a - b) <= 1e-4f + 1e-4f * fabsf(b));
            }
        }
    }
    print_message("%zu values compared, %zu of them replayed\n", compared, fast.replayed);
    assert_true(compared >= 5);
    free_record(&fast);
    free_record(&slow);
    kiln_engine_destroy(engine);
}

/* ---- Cancelling and asynchronous runs ---- */

/* A loop long enough that a run lasts until it is cancelled. */
static runner open_endless(void) {
    runner r = open_runner(3, 1, NULL);
    assert_string_equal(r.inputs.io[0].name, "trips");
    *(int64_t *)r.inputs.tensors[0].data = 5000000;
    return r;
}

static void *cancel_soon(void *arg) {
    usleep(20000);
    kiln_context_cancel(arg);
    return NULL;
}

static void a_run_can_be_cancelled(void **state) {
    (void)state;
    runner r = open_endless();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, r.context), 0);
    assert_int_equal(kiln_context_run(r.context, r.diag), KILN_E_CANCELLED);
    pthread_join(thread, NULL);
    assert_null(kiln_context_output(r.context, 0));
    /* And the next run works. */
    *(int64_t *)r.inputs.tensors[0].data = 3;
    MUST(r.diag, kiln_context_run(r.context, r.diag));
    assert_int_equal(kiln_context_output(r.context, 1)->dims[0], 3);
    close_runner(&r);
}

/* One long step of a kind that only the reference runs. */
static kiln_status make_long_step(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    kiln_builder *b;
    KILN_TRY(kiln_builder_create(&b, env));
    const kiln_attribute equation[] = {
        {.name = "equation", .kind = KILN_ATTRIBUTE_STRING, .s = "ij,jk->ik"}};
    const int64_t dims[] = {2000, 2000};
    const kiln_ref_value in[] = {kiln_builder_input(b, "x", KILN_DTYPE_F64, 2, dims, diag),
                                 kiln_builder_input(b, "y", KILN_DTYPE_F64, 2, dims, diag)};
    kiln_ref_value z = kiln_builder_node(b, "", "Einsum", in, 2, equation, 1, diag);
    (void)kiln_builder_output(b, z, "z", diag);
    return kiln_builder_finish(out, b, diag);
}

static void cancelling_ends_a_step_that_lasts(void **state) {
    (void)state;
    runner r = open_model(make_long_step);
    pthread_t thread;
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, r.context), 0);
    assert_int_equal(kiln_context_run(r.context, r.diag), KILN_E_CANCELLED);
    clock_gettime(CLOCK_MONOTONIC, &to);
    pthread_join(thread, NULL);
    double seconds = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
    print_message("cancelled after %.3f s\n", seconds);
    assert_true(seconds < 3); /* the 8 * 10^9 products would take ten times as long */
    close_runner(&r);
}

static void an_asynchronous_run_can_be_waited_for_and_cancelled(void **state) {
    (void)state;
    runner r = open_endless();
    MUST(r.diag, kiln_context_run_async(r.context, r.diag));
    assert_int_equal(kiln_context_run_async(r.context, NULL), KILN_E_USAGE);
    assert_int_equal(kiln_context_run(r.context, NULL), KILN_E_USAGE);
    /* At once, likely before the thread has begun. */
    kiln_context_cancel(r.context);
    assert_int_equal(kiln_context_wait(r.context), KILN_E_CANCELLED);
    *(int64_t *)r.inputs.tensors[0].data = 4;
    MUST(r.diag, kiln_context_run_async(r.context, r.diag));
    MUST(r.diag, kiln_context_wait(r.context));
    assert_int_equal(kiln_context_output(r.context, 1)->dims[0], 4);
    MUST(r.diag, kiln_context_wait(r.context));
    /* Destroying waits for a run that nobody waited for. */
    MUST(r.diag, kiln_context_run_async(r.context, r.diag));
    close_runner(&r);
}

/* ---- Shapes ---- */

static void batches_are_bound_once_and_agree_row_by_row(void **state) {
    (void)state;
    static const int64_t batches[] = {1, 4, 2, 1, 4, 7};
    runner r = open_runner(0, 7, NULL);
    kiln_tensor x = r.inputs.tensors[0];
    size_t row_in = kiln_tensor_bytes(&x) / 7, after[KILN_COUNT_OF(batches)];
    MUST(r.diag, kiln_context_run(r.context, r.diag));
    const kiln_tensor *y = kiln_context_output(r.context, 0);
    size_t row_out = kiln_tensor_bytes(y) / 7, largest = kiln_context_memory(r.context, NULL);
    float expected[70];
    assert_true(row_out * 7 <= sizeof expected);
    memcpy(expected, y->data, row_out * 7);
    for (size_t k = 0; k < KILN_COUNT_OF(batches); k++) {
        x.dims[0] = batches[k];
        x.cap_bytes = row_in * (size_t)batches[k];
        MUST(r.diag, kiln_context_bind(r.context, r.inputs.io[0].name, &x, r.diag));
        MUST(r.diag, kiln_context_run(r.context, r.diag));
        y = kiln_context_output(r.context, 0);
        assert_int_equal(y->dims[0], batches[k]);
        for (size_t e = 0; e < row_out * (size_t)batches[k] / sizeof(float); e++) {
            assert_true(fabsf(((const float *)y->data)[e] - expected[e]) <=
                        1e-4f + 1e-4f * fabsf(expected[e]));
        }
        after[k] = kiln_context_memory(r.context, NULL);
    }
    /* Batch 7 came first: the smaller ones use its memory. */
    for (size_t k = 0; k < KILN_COUNT_OF(batches); k++) {
        assert_int_equal(after[k], largest);
    }
    close_runner(&r);
}

/* ---- What belongs to the caller ---- */

static unsigned control_word(void) {
#if defined(__x86_64__)
    return _mm_getcsr() & ~0x3Fu;
#else
    return 0;
#endif
}

static void modes_of_the_caller_are_left_alone(void **state) {
    (void)state;
    runner r = open_runner(0, BATCH, NULL);
    unsigned word = control_word();
    const char *locale = setlocale(LC_ALL, NULL);
    char before[256];
    snprintf(before, sizeof before, "%s", locale);
    outcome nearest = {0}, rounded = {0};
    MUST(r.diag, kiln_context_run(r.context, r.diag));
    take_outcome(&nearest, r.context, r.engine);
    assert_int_equal(fesetround(FE_UPWARD), 0);
    unsigned upward = control_word();
    MUST(r.diag, kiln_context_run(r.context, r.diag));
    take_outcome(&rounded, r.context, r.engine);
    assert_true(same_outcome(&nearest, &rounded));
    free_outcome(&nearest);
    free_outcome(&rounded);
    assert_int_equal(fegetround(), FE_UPWARD);
    assert_int_equal(control_word(), upward);
    fesetround(FE_TONEAREST);
    assert_int_equal(control_word(), word);
    volatile float tiny = 1e-40f;
    assert_true(tiny * 0.5f > 0); /* denormals still work */
    assert_string_equal(setlocale(LC_ALL, NULL), before);
    close_runner(&r);
}

/* A result that only the data can size. */
static kiln_status make_range(kiln_model **out, const kiln_env *env, kiln_diag *diag) {
    static const char *const names[] = {"start", "limit", "delta"};
    kiln_builder *b;
    kiln_ref_value in[3];
    KILN_TRY(kiln_builder_create(&b, env));
    for (size_t i = 0; i < KILN_COUNT_OF(names); i++) {
        in[i] = kiln_builder_input(b, names[i], KILN_DTYPE_F32, 0, NULL, diag);
    }
    kiln_ref_value y = kiln_builder_node(b, "", "Range", in, 3, NULL, 0, diag);
    (void)kiln_builder_output(b, y, "y", diag);
    return kiln_builder_finish(out, b, diag);
}

static void late_steps_compute_in_the_mode_of_the_others(void **state) {
    (void)state;
    static const float given[] = {1e-40f, 1, 0.1f};
    runner r = open_model(make_range);
    outcome nearest = {0}, rounded = {0};
    for (size_t i = 0; i < KILN_COUNT_OF(given); i++) {
        *(float *)r.inputs.tensors[i].data = given[i];
    }
    MUST(r.diag, kiln_context_run(r.context, r.diag));
    take_outcome(&nearest, r.context, r.engine);
    assert_true(((const float *)kiln_context_output(r.context, 0)->data)[0] == 0);
    assert_int_equal(fesetround(FE_UPWARD), 0);
    kiln_status status = kiln_context_run(r.context, r.diag);
    assert_int_equal(fegetround(), FE_UPWARD);
    fesetround(FE_TONEAREST);
    MUST(r.diag, status);
    take_outcome(&rounded, r.context, r.engine);
    assert_true(same_outcome(&nearest, &rounded));
    free_outcome(&nearest);
    free_outcome(&rounded);
    close_runner(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(repeats_give_the_same_bits),
        cmocka_unit_test(a_busy_pool_gives_the_same_bits),
        cmocka_unit_test(outputs_go_to_the_callers_buffers),
        cmocka_unit_test(outputs_of_unknown_size_are_asked_for),
        cmocka_unit_test(taps_see_every_value_and_change_nothing),
        cmocka_unit_test(taps_agree_with_the_reference),
        cmocka_unit_test(a_run_can_be_cancelled),
        cmocka_unit_test(cancelling_ends_a_step_that_lasts),
        cmocka_unit_test(an_asynchronous_run_can_be_waited_for_and_cancelled),
        cmocka_unit_test(batches_are_bound_once_and_agree_row_by_row),
        cmocka_unit_test(modes_of_the_caller_are_left_alone),
        cmocka_unit_test(late_steps_compute_in_the_mode_of_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
