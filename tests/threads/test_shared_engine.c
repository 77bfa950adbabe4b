/* One engine, one pool, many threads with a context each: every run gives the same bits, engines
 * and contexts come and go meanwhile, and no memory is shared without order (which
 * ThreadSanitizer watches).
 *
 * ctest-labels: threads */
#include <pthread.h>
#include <stdatomic.h>

#include "engine/samples.h"

enum { THREADS = 8, RUNS = 12, BATCH = 3, SEED = 31 };

typedef struct shared {
    const kiln_engine *engines[N_SAMPLES];
    outcome expected[N_SAMPLES];
    const void *saved;
    size_t saved_len;
    kiln_pool *pool;
    atomic_int wrong, runs;
} shared;

typedef struct job {
    shared *all;
    int number;
} job;

/* Own context for each engine, own inputs, the pool of all. */
static void *use_engines(void *arg) {
    const job *j = arg;
    shared *s = j->all;
    for (int k = 0; k < RUNS; k++) {
        size_t i = (size_t)(j->number + k) % N_SAMPLES;
        const kiln_context_options options = {
            .size = sizeof options, .pool = s->pool, .threads = 1 + k % 3};
        outcome o = {0};
        kiln_status status = run_engine(s->engines[i], BATCH, SEED, &options, &o, NULL);
        if (status != KILN_OK || !same_outcome(&o, &s->expected[i])) {
            atomic_fetch_add(&s->wrong, 1);
        }
        atomic_fetch_add(&s->runs, 1);
        free_outcome(&o);
    }
    return NULL;
}

/* Loads, runs and destroys engines of its own from bytes that all read. */
static void *make_engines(void *arg) {
    const job *j = arg;
    shared *s = j->all;
    for (int k = 0; k < RUNS; k++) {
        const kiln_context_options options = {.size = sizeof options, .pool = s->pool};
        kiln_engine *engine;
        outcome o = {0};
        if (kiln_engine_load_memory(&engine, NULL, s->saved, s->saved_len, NULL, NULL) != KILN_OK) {
            atomic_fetch_add(&s->wrong, 1);
            continue;
        }
        if (run_engine(engine, BATCH, SEED, &options, &o, NULL) != KILN_OK ||
            !same_outcome(&o, &s->expected[0])) {
            atomic_fetch_add(&s->wrong, 1);
        }
        atomic_fetch_add(&s->runs, 1);
        free_outcome(&o);
        kiln_engine_destroy(engine);
    }
    return NULL;
}

static void many_threads_share_engines_and_a_pool(void **state) {
    (void)state;
    const kiln_pool_options three = {.size = sizeof three, .threads = 3};
    kiln_diag *diag = new_diag();
    shared s = {.saved = NULL};
    kiln_engine *engines[N_SAMPLES];
    void *saved;
    assert_int_equal(kiln_pool_create(&s.pool, NULL, &three), KILN_OK);
    for (size_t i = 0; i < N_SAMPLES; i++) {
        s.engines[i] = engines[i] = build_sample(i, NULL);
        MUST(diag, run_engine(engines[i], BATCH, SEED, NULL, &s.expected[i], diag));
    }
    MUST(diag, kiln_engine_save_memory(engines[0], &saved, &s.saved_len, diag));
    s.saved = saved;
    pthread_t threads[THREADS];
    job jobs[THREADS];
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (job){&s, i};
        void *(*work)(void *) = i % 4 == 3 ? make_engines : use_engines;
        assert_int_equal(pthread_create(&threads[i], NULL, work, &jobs[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&s.wrong), 0);
    assert_int_equal(atomic_load(&s.runs), THREADS * RUNS);
    for (size_t i = 0; i < N_SAMPLES; i++) {
        free_outcome(&s.expected[i]);
        kiln_engine_destroy(engines[i]);
    }
    kiln_free(NULL, saved, s.saved_len);
    kiln_pool_destroy(s.pool);
    kiln_diag_destroy(diag);
}

/* Several threads build from one model, which is immutable. */
static void *build_one(void *arg) {
    kiln_engine *engine = NULL;
    return kiln_engine_build(&engine, arg, NULL, NULL) == KILN_OK ? engine : NULL;
}

static void one_model_is_built_by_many_threads(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_model *model;
    pthread_t threads[4];
    outcome first = {0}, o = {0};
    MUST(diag, make_digits(&model, NULL, diag));
    for (size_t i = 0; i < KILN_COUNT_OF(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, build_one, model), 0);
    }
    kiln_engine *engines[4];
    for (size_t i = 0; i < KILN_COUNT_OF(threads); i++) {
        pthread_join(threads[i], (void **)&engines[i]);
        assert_non_null(engines[i]);
    }
    kiln_model_destroy(model);
    for (size_t i = 0; i < KILN_COUNT_OF(threads); i++) {
        MUST(diag, run_engine(engines[i], BATCH, SEED, NULL, i ? &o : &first, diag));
        assert_true(i == 0 || same_outcome(&first, &o));
        kiln_engine_destroy(engines[i]);
    }
    free_outcome(&first);
    free_outcome(&o);
    kiln_diag_destroy(diag);
}

/* Runs are cancelled from outside at any moment: each ends as cancelled or complete. */
static void *cancel_often(void *arg) {
    for (int k = 0; k < 2000; k++) {
        kiln_context_cancel(arg);
    }
    return NULL;
}

static void cancelling_races_with_runs(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    kiln_engine *engine = build_sample(0, NULL);
    kiln_context *context;
    input_set in;
    const kiln_context_options two = {.size = sizeof two, .threads = 2};
    MUST(diag, kiln_context_create(&context, engine, &two, diag));
    assert_true(make_inputs(&in, engine, BATCH, SEED, SIZE_MAX / 2));
    MUST(diag, bind_inputs(context, &in, diag));
    MUST(diag, kiln_context_run(context, diag));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_often, context), 0);
    for (int k = 0; k < 100; k++) {
        kiln_status status = kiln_context_run(context, NULL);
        assert_true(status == KILN_OK || status == KILN_E_CANCELLED);
    }
    pthread_join(thread, NULL);
    MUST(diag, kiln_context_run(context, diag));
    kiln_context_destroy(context);
    kiln_engine_destroy(engine);
    free_inputs(&in);
    kiln_diag_destroy(diag);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_threads_share_engines_and_a_pool),
        cmocka_unit_test(one_model_is_built_by_many_threads),
        cmocka_unit_test(cancelling_races_with_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
