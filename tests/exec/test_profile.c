/* Times of layers: those of bodies have their own, and all add up to no more than the runs. */
#include "engine/samples.h"

enum { RUNS = 7, TRIPS = 3 };

typedef struct sums {
    int64_t t_ns, least_runs, most_runs;
    size_t n;
} sums;

static void add(sums *s, int64_t t_ns, int64_t runs) {
    assert_true(t_ns >= 0 && runs >= 0);
    assert_true(runs > 0 || t_ns == 0);
    s->t_ns += t_ns;
    s->least_runs = s->n == 0 || runs < s->least_runs ? runs : s->least_runs;
    s->most_runs = runs > s->most_runs ? runs : s->most_runs;
    s->n++;
}

/* The engine's layers in outer, its bodies' in inner. */
static void profile(const kiln_engine *engine, sums *outer, sums *inner, kiln_diag *diag) {
    kiln_context *c;
    input_set in;
    kiln_layer layer;
    int64_t t_ns, runs;
    MUST(diag, kiln_context_create(&c, engine, NULL, diag));
    assert_true(make_inputs(&in, engine, 3, 5, SIZE_MAX / 2));
    for (size_t i = 0; i < in.n; i++) {
        if (in.tensors[i].dtype == KILN_DTYPE_I64 && in.tensors[i].rank == 0) {
            *(int64_t *)in.tensors[i].data = TRIPS;
        }
    }
    MUST(diag, bind_inputs(c, &in, diag));
    MUST(diag, kiln_context_run(c, diag));
    kiln_context_set_profile(c, true);
    for (int i = 0; i < RUNS; i++) {
        MUST(diag, kiln_context_run(c, diag));
    }
    for (size_t i = 0; kiln_context_profile(c, i, &t_ns, &runs); i++) {
        assert_true(kiln_engine_layer(engine, i, &layer));
        assert_null(layer.body);
        add(outer, t_ns, runs);
    }
    for (size_t i = 0; kiln_context_profile_inner(c, i, &t_ns, &runs); i++) {
        assert_true(kiln_engine_inner_layer(engine, i, &layer));
        assert_non_null(strchr(layer.body, '.'));
        add(inner, t_ns, runs);
    }
    assert_false(kiln_engine_layer(engine, outer->n, &layer));
    assert_false(kiln_engine_inner_layer(engine, inner->n, &layer));
    kiln_context_profile_total(c, &t_ns, &runs);
    assert_int_equal(runs, RUNS);
    assert_true(outer->t_ns + inner->t_ns > 0);
    assert_true(outer->t_ns + inner->t_ns <= t_ns);
    kiln_context_set_profile(c, true);
    kiln_context_profile_total(c, &t_ns, &runs);
    assert_true(t_ns == 0 && runs == 0);
    free_inputs(&in);
    kiln_context_destroy(c);
}

static void layers_add_up_to_no_more_than_runs(void **state) {
    (void)state;
    kiln_diag *diag = new_diag();
    bool once_more = false;
    for (size_t i = 0; i < N_SAMPLES; i++) {
        kiln_engine *engine = build_sample(i, NULL);
        sums outer = {0}, inner = {0};
        profile(engine, &outer, &inner, diag);
        bool has_bodies = strcmp(samples[i].name, "if") == 0 ||
                          strcmp(samples[i].name, "loop") == 0 ||
                          strcmp(samples[i].name, "scan") == 0;
        assert_true(!has_bodies || inner.n > 0);
        assert_true(!has_bodies || inner.most_runs > 0);
        assert_true(outer.most_runs == RUNS);
        once_more = once_more || inner.most_runs > RUNS; /* a loop's */
        kiln_engine_destroy(engine);
    }
    assert_true(once_more);
    kiln_diag_destroy(diag);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_add_up_to_no_more_than_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
