/* checkkern.c - runs the cases of .cases files (see case.h) through one kernel and compares with
 * the reference: every instruction set of this machine, 1 to 3 threads, both layouts where the
 * kernel leaves the choice, outputs between guard bands. The threads must agree in every bit; after
 * one element of the expected output is changed, the comparison must fail.
 *
 * Kernels of 8-bit numbers state their own arithmetic (kiln_kernel.reference). Their 8-bit results
 * must equal that, and that must be within one step of the operators' references. So do kernels of
 * bfloat16 and float16: float results must be as near to theirs as others are to the operators'.
 *
 *     checkkern FILE...        at least MIN_CASES cases for each kernel of a file
 *     checkkern -v FILE...     names each case
 *     checkkern --bench FILE   times the cases instead (see timing.c)
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "case.h"
#include "exec/exec.h"
#include "ops/ops.h"
#include "ops/util.h"

enum {
    MIN_CASES = 20,
    MAX_KERNELS = 64,
    MAX_LINE = 1024,
    GUARD = 64,
    GUARD_BYTE = 0xA5,
    MAX_THREADS = 3,
    /* Kernels that state an error relative to the norm: an element may be off by so many times
     * that, relative to the largest. Errors spread like the outputs themselves, whose largest is
     * some three to five times their mean. */
    ELEMENT_ERROR = 2,
};

/* The rungs of vector code; those this machine lacks are passed over. */
static const char *const levels[] = {"portable",   "avx2",       "avxvnni", "avx512",
                                     "avx512vnni", "avx512bf16", "amx"};

typedef struct checker {
    kiln_pool *pool;
    kiln_diag *diag;
    bool verbose;
    int64_t failures, runs;
    const char *file;
    int32_t line;
    struct {
        char name[48];
        int32_t cases;
    } kernels[MAX_KERNELS];
    int32_t n_kernels;
} checker;

static void fail(checker *k, const char *what, const char *how) {
    printf("%s:%d: %s%s%s\n", k->file, k->line, what, how ? ": " : "", how ? how : "");
    for (size_t i = 0; i < kiln_diag_count(k->diag); i++) {
        printf("    %s\n", kiln_diag_get(k->diag, i)->message);
    }
    kiln_diag_clear(k->diag);
    k->failures++;
}

/* ---- Comparing ---- */

/* How far a float may be off: a few units in the last place, and for reductions the square root
 * of their length (at most the largest input), both relative to the element or to the output's
 * largest. */
static double tolerance(const kiln_graph *g, const kiln_datum *inputs) {
    double worst = 0, longest = 1;
    for (size_t i = 0; i < g->n_inputs; i++) {
        longest = fmax(longest, (double)kiln_tensor_count(&inputs[i].tensor));
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        kiln_op_tolerance t = g->nodes[i]->op->tolerance;
        double ulps = t == KILN_TOL_EXACT ? 0 : t == KILN_TOL_ROUND ? 8 : 8 + 4 * sqrt(longest);
        worst = fmax(worst, ulps * 0x1p-23);
    }
    return worst;
}

static double largest(const kiln_tensor *t) {
    double m = 0;
    for (int64_t i = 0, n = kiln_tensor_count(t); i < n; i++) {
        double v = fabs(kiln_get_f64(t->dtype, t->data, i));
        m = isfinite(v) ? fmax(m, v) : m;
    }
    return m;
}

static bool close_enough(double a, double b, double tol, double scale) {
    if (a == b || (isnan(a) && isnan(b))) {
        return true;
    }
    return isfinite(a) && isfinite(b) && fabs(a - b) <= tol * fmax(fabs(b), scale);
}

/* The first element where got differs from want, or -1. */
static int64_t differ(const kiln_tensor *got, const kiln_tensor *want, double tol) {
    bool floats = kiln_dtype_is_float(want->dtype);
    double scale = floats ? largest(want) : 0;
    for (int64_t i = 0, n = kiln_tensor_count(want); i < n; i++) {
        bool same = floats ? close_enough(kiln_get_f64(got->dtype, got->data, i),
                                          kiln_get_f64(want->dtype, want->data, i), tol, scale)
                           : kiln_get_i64(got->dtype, got->data, i) ==
                                 kiln_get_i64(want->dtype, want->data, i);
        if (!same) {
            return i;
        }
    }
    return -1;
}

/* The norm of the difference relative to that of what is wanted. */
static double distance(const kiln_tensor *got, const kiln_tensor *want) {
    double off = 0, whole = 0;
    for (int64_t i = 0, n = kiln_tensor_count(want); i < n; i++) {
        double b = kiln_get_f64(want->dtype, want->data, i);
        double d = kiln_get_f64(got->dtype, got->data, i) - b;
        off += d * d;
        whole += b * b;
    }
    return off > 0 ? sqrt(off / whole) : 0;
}

static bool same_dims(const kiln_tensor *a, const kiln_tensor *b) {
    return a->dtype == b->dtype && a->rank == b->rank &&
           memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
}

/* Changes one element of `want` visibly; false when it has none. */
static bool spoil(kiln_tensor *want) {
    int64_t n = kiln_tensor_count(want);
    if (n == 0) {
        return false;
    }
    if (kiln_dtype_is_float(want->dtype)) {
        double v = kiln_get_f64(want->dtype, want->data, n - 1);
        kiln_set_f64(want->dtype, want->data, n - 1,
                     isfinite(v) ? v + largest(want) / 8 + 1e-3 : 0);
    } else {
        ((uint8_t *)want->data)[(size_t)(n - 1) * kiln_tensor_bytes(want) / (size_t)n] ^= 1;
    }
    return true;
}

/* The first 8-bit element more than one step off, or -1. Other types: as differ. */
static int64_t step_off(const kiln_tensor *a, const kiln_tensor *b, double tol) {
    if (a->dtype != KILN_DTYPE_U8) {
        return differ(a, b, tol);
    }
    for (int64_t i = 0, n = kiln_tensor_count(a); i < n; i++) {
        if (abs(((const uint8_t *)a->data)[i] - ((const uint8_t *)b->data)[i]) > 1) {
            return i;
        }
    }
    return -1;
}

/* ---- References of kernels ---- */

/* What rounding the operands to 16 bits may change, relative to the largest output. A product of
 * two numbers rounded to nearest in m bits is off by at most 2^(1-m) of itself (a first-order
 * bound); in a sum of products of random sign the errors add up as the products do, with a
 * deviation of 2^(1-m) / sqrt(3) of the sum's own: this is seven of those, of a typical sum, which
 * the largest output is not less than. */
static double narrowing(kiln_dtype computes) {
    return computes == KILN_DTYPE_BF16 ? 0x1p-5 : computes == KILN_DTYPE_F16 ? 0x1p-8 : 0;
}

typedef struct evaluation {
    kiln_datum *values; /* per value id */
    kiln_arena *arena;
    kiln_diag *diag;
} evaluation;

static kiln_status fetch(const evaluation *e, const kiln_value *v, kiln_datum *out) {
    *out = (kiln_datum){.kind = KILN_KIND_NONE};
    if (v && v->constant) {
        out->kind = KILN_KIND_TENSOR;
        return kiln_const_eval(v, &out->tensor, e->arena, e->diag);
    }
    if (v) {
        *out = e->values[v->id];
    }
    return KILN_OK;
}

static kiln_status eval_claim(const evaluation *e, const kiln_claim *claim) {
    kiln_datum in[16], out[16];
    if (claim->kernel->reference) {
        for (int32_t i = 0; i < claim->n_in; i++) {
            KILN_TRY(fetch(e, claim->in[i], &in[i]));
        }
        return claim->kernel->reference(claim, in, &e->values[claim->out[0]->id], e->arena,
                                        e->diag);
    }
    for (int32_t k = 0; k < claim->n_nodes; k++) {
        const kiln_node *n = claim->nodes[k];
        for (int32_t i = 0; i < n->n_in; i++) {
            KILN_TRY(fetch(e, n->in[i], &in[i]));
        }
        KILN_TRY(kiln_eval_node(n, in, out, NULL, e->arena, e->diag));
        for (int32_t i = 0; i < n->n_out; i++) {
            e->values[n->out[i]->id] = out[i];
        }
    }
    return KILN_OK;
}

/* The outputs of a compiled plan, each region by its kernel's reference where it has one. */
static kiln_status eval_plan(const kiln_plan *plan, const test_case *tc, kiln_datum *outputs,
                             kiln_arena *arena, kiln_diag *diag) {
    const kiln_graph *g = plan->graph;
    evaluation e = {.arena = arena, .diag = diag};
    KILN_ALLOC(e.values, arena, g->n_values);
    for (size_t i = 0; i < g->n_inputs; i++) {
        e.values[g->inputs[i]->id] = tc->inputs[i];
    }
    for (size_t i = 0; i < plan->n_claims; i++) {
        KILN_TRY(eval_claim(&e, plan->claims[i]));
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        KILN_TRY(fetch(&e, g->outputs[i], &outputs[i]));
    }
    return KILN_OK;
}

/* ---- Running ---- */

/* What one run needs and gives. */
typedef struct trial {
    const test_case *tc;
    const kiln_datum *want;
    uint32_t features;
    kiln_layout layout;
    const char *tactic; /* NULL: the kernel's rules decide */
    double tol;
    double norm_error; /* of the kernel, or 0 */
    kiln_arena *arena;
    kiln_tensor *first; /* per output: what one thread gave */
    bool exact;         /* want is the kernel's own reference: 8-bit results equal it */
} trial;

static const char *way(const trial *t) {
    return t->tactic ? t->tactic : "rules";
}

static void compare(checker *k, const trial *t, size_t i, const kiln_datum *got, int32_t threads) {
    const kiln_tensor *want = &t->want[i].tensor;
    if (!same_dims(&got->tensor, want)) {
        fail(k, "the shape or type differs", NULL);
        return;
    }
    int64_t at = differ(&got->tensor, want, t->tol);
    if (at >= 0) {
        const char *how = kiln_arena_printf(
            t->arena, "%s, layout %d, %s, %d threads: output %zu[%lld] is %.9g, should be %.9g",
            kiln_cpu_level_name(t->features), t->layout, way(t), threads, i, (long long)at,
            kiln_get_f64(want->dtype, got->tensor.data, at),
            kiln_get_f64(want->dtype, want->data, at));
        fail(k, "differs from the reference", how);
    }
    double off = t->norm_error > 0 ? distance(&got->tensor, want) : 0;
    if (off > t->norm_error) {
        fail(k, "is further from the reference than the kernel states",
             kiln_arena_printf(t->arena, "%s, %s: by %.3g of the norm, allowed are %.3g",
                               kiln_cpu_level_name(t->features), way(t), off, t->norm_error));
    }
    if (k->verbose && threads == 1 && t->norm_error > 0) {
        printf("    %s, %s: off by %.2g of the norm\n", kiln_cpu_level_name(t->features), way(t),
               off);
    }
    size_t bytes = kiln_tensor_bytes(want);
    if (threads == 1) {
        t->first[i] = *want;
        t->first[i].data = kiln_arena_copy(t->arena, got->tensor.data, bytes);
    } else if (memcmp(t->first[i].data, got->tensor.data, bytes) != 0) {
        fail(k, "the bits depend on the threads", NULL);
    }
    kiln_tensor wrong = *want;
    wrong.data = kiln_arena_copy(t->arena, want->data, bytes);
    if (at < 0 && spoil(&wrong) && differ(&got->tensor, &wrong, t->tol) < 0) {
        fail(k, "a wrong output would not be noticed", NULL);
    }
}

static bool guards_hold(const unsigned char *buffer, size_t bytes) {
    for (size_t i = 0; i < GUARD; i++) {
        if (buffer[i] != GUARD_BYTE || buffer[GUARD + bytes + i] != GUARD_BYTE) {
            return false;
        }
    }
    return true;
}

static kiln_status run_plan(checker *k, const trial *t, const kiln_plan *plan,
                            const kiln_cpu_target *target, int32_t threads) {
    kiln_exec_options options = {.pool = k->pool, .threads = threads};
    kiln_exec *x;
    KILN_TRY(kiln_exec_create(&x, plan, target, &options, k->diag));
    size_t n = t->tc->graph->n_outputs;
    unsigned char **guarded = kiln_arena_array(t->arena, n, sizeof *guarded);
    for (size_t i = 0; i < n; i++) {
        size_t bytes = kiln_tensor_bytes(&t->want[i].tensor);
        guarded[i] = kiln_arena_raw(t->arena, bytes + 2 * GUARD);
        memset(guarded[i], GUARD_BYTE, bytes + 2 * GUARD);
        kiln_exec_set_output(x, (int32_t)i, guarded[i] + GUARD, bytes);
    }
    kiln_status status = kiln_exec_run(x, t->tc->inputs, k->diag);
    for (size_t i = 0; i < n && status == KILN_OK; i++) {
        compare(k, t, i, kiln_exec_output(x, (int32_t)i), threads);
        if (!guards_hold(guarded[i], kiln_tensor_bytes(&t->want[i].tensor))) {
            fail(k, "writes outside the output", NULL);
        }
    }
    kiln_exec_destroy(x);
    k->runs++;
    return status;
}

/* Where the kernel leaves the layout open, it gets this one. */
static bool force_layout(kiln_claim *claim, kiln_layout layout) {
    bool open = false;
    for (int32_t i = 0; i < claim->n_in + claim->n_out; i++) {
        uint8_t *mask =
            i < claim->n_in ? &claim->in_layouts[i] : &claim->out_layouts[i - claim->n_in];
        if (*mask == KILN_LAYOUT_ANY) {
            *mask = (uint8_t)layout;
            open = true;
        }
    }
    return open;
}

/* Covers with the case's kernel and the reference alone. *claims: regions of the kernel that run as
 * the trial's tactic says. */
static kiln_status make_plan(checker *k, const trial *t, kiln_cpu_target *target, kiln_plan **out,
                             int32_t *claims, bool *open) {
    const char *const *off = all_but(t->tc->kernel, t->arena);
    kiln_cpu_target_init(target, t->features, off);
    target->choices = t->tactic ? all_in_way(t->tc, t->tactic, t->arena) : NULL;
    target->n_choices = target->choices ? t->tc->graph->n_nodes : 0;
    KILN_ALLOC(*out, t->arena, 1);
    (*out)->graph = t->tc->graph;
    KILN_TRY(kiln_cpu_cover(*out, target, t->arena, NULL, NULL, k->diag));
    for (size_t i = 0; i < (*out)->n_claims; i++) {
        kiln_claim *claim = (*out)->claims[i];
        if (strcmp(claim->kernel->name, t->tc->kernel) == 0) {
            *claims += strcmp(kiln_tactic_name(claim), way(t)) == 0;
            *open = force_layout(claim, t->layout) || *open;
        }
    }
    KILN_TRY(kiln_cpu_compile(*out, t->arena));
    return kiln_cpu_pack(*out, target, &(kiln_packing){0}, t->arena, k->diag);
}

/* Replaces what is wanted by the kernel's own reference, after a comparison of the two. */
static kiln_status take_reference(checker *k, trial *t, const kiln_plan *plan) {
    size_t n = t->tc->graph->n_outputs;
    kiln_datum *own;
    KILN_ALLOC(own, t->arena, n);
    KILN_TRY(eval_plan(plan, t->tc, own, t->arena, k->diag));
    for (size_t i = 0; i < n; i++) {
        const kiln_tensor *a = &own[i].tensor, *b = &t->want[i].tensor;
        double tol = t->tol + narrowing(kiln_kernel_find(t->tc->kernel)->computes);
        int64_t at = same_dims(a, b) ? step_off(a, b, tol) : 0;
        if (at >= 0) {
            fail(k, "the kernel's reference is off from the operators'",
                 kiln_arena_printf(t->arena, "output %zu[%lld] is %.9g, should be %.9g", i,
                                   (long long)at, kiln_get_f64(a->dtype, a->data, at),
                                   kiln_get_f64(b->dtype, b->data, at)));
        }
    }
    t->want = own;
    t->exact = true;
    return KILN_OK;
}

/* Adds to *claims, and runs what is claimed in this way. */
static kiln_status try_tactic(checker *k, trial *t, int32_t *claims, bool *open) {
    kiln_cpu_target target;
    kiln_plan *plan;
    int32_t mine = 0;
    KILN_TRY(make_plan(k, t, &target, &plan, &mine, open));
    *claims += mine;
    if (mine == 0) {
        return KILN_OK;
    }
    if (kiln_kernel_find(t->tc->kernel)->reference && !t->tc->refused && !t->exact) {
        KILN_TRY(take_reference(k, t, plan));
    }
    for (int32_t threads = 1; threads <= MAX_THREADS; threads++) {
        KILN_TRY(run_plan(k, t, plan, &target, threads));
    }
    return KILN_OK;
}

static kiln_status try_layout(checker *k, trial *t, bool *open) {
    const char *const *tactics = kiln_kernel_find(t->tc->kernel)->tactics;
    int32_t claims = 0;
    t->tactic = NULL;
    KILN_TRY(try_tactic(k, t, &claims, open));
    for (int32_t i = 0; tactics && tactics[i]; i++) {
        t->tactic = tactics[i];
        KILN_TRY(try_tactic(k, t, &claims, open));
    }
    if ((claims == 0) != t->tc->refused) {
        fail(k, claims == 0 ? "the kernel claims nothing" : "the kernel claims what it should not",
             NULL);
    }
    return KILN_OK;
}

static kiln_status check_case(checker *k, const test_case *tc, kiln_arena *arena) {
    trial t = {.tc = tc, .arena = arena};
    size_t n = tc->graph->n_outputs;
    kiln_datum *want;
    KILN_ALLOC(want, arena, n);
    KILN_ALLOC(t.first, arena, n);
    KILN_TRY(kiln_eval_graph(tc->graph, tc->inputs, want, NULL, arena, k->diag));
    t.want = want;
    t.norm_error = kiln_kernel_find(tc->kernel)->norm_error;
    t.tol = fmax(tolerance(tc->graph, tc->inputs), ELEMENT_ERROR * t.norm_error);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        kiln_cpu_target target;
        t.features = kiln_cpu_features();
        kiln_cpu_limit(levels[i], &t.features);
        kiln_cpu_target_init(&target, t.features, NULL);
        if (strcmp(kiln_target_isa(&target), levels[i]) != 0) {
            continue;
        }
        bool open = false;
        t.layout = KILN_LAYOUT_ROW;
        KILN_TRY(try_layout(k, &t, &open));
        t.layout = KILN_LAYOUT_LAST;
        if (open) {
            KILN_TRY(try_layout(k, &t, &open));
        }
    }
    return KILN_OK;
}

/* ---- Files ---- */

static void count_case(checker *k, const char *kernel) {
    int32_t i = 0;
    while (i < k->n_kernels && strcmp(k->kernels[i].name, kernel) != 0) {
        i++;
    }
    if (i == k->n_kernels && i < MAX_KERNELS) {
        snprintf(k->kernels[k->n_kernels++].name, sizeof k->kernels[i].name, "%s", kernel);
    }
    if (i < MAX_KERNELS) {
        k->kernels[i].cases++;
    }
}

static void check_line(checker *k, char *line) {
    kiln_arena arena;
    kiln_dims dims;
    test_case tc = {.refused = false};
    kiln_arena_init(&arena, NULL);
    kiln_dims_init(&dims, &arena);
    char *comment = strchr(line, '#');
    if (comment) {
        *comment = '\0';
    }
    if (line[strspn(line, " \t\n")] != '\0') {
        if (k->verbose) {
            printf("%s:%d: %s", k->file, k->line, line);
        }
        const char *wrong = parse_case(&tc, line, (uint64_t)k->line * 7919, &arena, &dims, k->diag);
        if (wrong) {
            fail(k, "cannot be read", wrong);
        } else {
            count_case(k, tc.kernel);
            kiln_status status = check_case(k, &tc, &arena);
            if (status != KILN_OK) {
                fail(k, "does not run", NULL);
            }
        }
    }
    kiln_arena_free(&arena);
}

static int check_file(checker *k, const char *path) {
    char line[MAX_LINE];
    FILE *f = fopen(path, "r");
    if (!f) {
        printf("%s: cannot be opened\n", path);
        return 1;
    }
    k->file = path;
    k->line = 0;
    k->n_kernels = 0;
    memset(k->kernels, 0, sizeof k->kernels);
    while (fgets(line, sizeof line, f)) {
        k->line++;
        check_line(k, line);
    }
    fclose(f);
    for (int32_t i = 0; i < k->n_kernels; i++) {
        printf("%s: %d cases\n", k->kernels[i].name, k->kernels[i].cases);
        if (k->kernels[i].cases < MIN_CASES) {
            printf("%s: fewer than %d cases for %s\n", path, MIN_CASES, k->kernels[i].name);
            k->failures++;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    checker k = {.failures = 0};
    kiln_pool_options options = {.size = sizeof options, .threads = MAX_THREADS, .spin_ns = -1};
    if (argc == 3 && strcmp(argv[1], "--bench") == 0) {
        return time_file(argv[2]);
    }
    if (kiln_diag_create(&k.diag, NULL) != KILN_OK ||
        kiln_pool_create(&k.pool, NULL, &options) != KILN_OK) {
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-v") == 0) {
            k.verbose = true;
        } else {
            k.failures += check_file(&k, argv[i]);
        }
    }
    printf("%lld runs, %lld failures\n", (long long)k.runs, (long long)k.failures);
    kiln_pool_destroy(k.pool);
    kiln_diag_destroy(k.diag);
    return k.failures != 0;
}
