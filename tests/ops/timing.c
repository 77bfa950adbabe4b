/* timing.c - checkkern --bench: how fast one kernel runs each case of a file.
 *
 * Cases stand in paragraphs; from a paragraph's second case on, the ratio of the first one's time
 * to its own is given. The first is the rival, as a rule the float kernel of the same shape. What
 * is timed is the kernel's own steps, on one thread with warm caches: the least of many runs, since
 * whatever else the machine does only adds. */
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "case.h"
#include "exec/exec.h"
#include "ops/cost.h"

enum { MAX_LINE = 1024, SHORTEST_NS = 60 * 1000 * 1000, LEAST_RUNS = 15, MOST_RUNS = 20000 };

typedef struct stopwatch {
    kiln_diag *diag;
    const char *path;
    int32_t line;
    double rival_ns; /* of the paragraph's first case; 0: this is it */
    int failures;
} stopwatch;

/* Nanoseconds of the kernel's steps in one run, or -1. */
static int64_t run_once(kiln_exec *x, const kiln_plan *plan, const test_case *tc, kiln_diag *diag) {
    int64_t total = 0;
    kiln_exec_set_profile(x, false);
    kiln_exec_set_profile(x, true);
    if (kiln_exec_run(x, tc->inputs, diag) != KILN_OK) {
        return -1;
    }
    for (size_t i = 0; i < plan->n_steps; i++) {
        int64_t ns, runs;
        if (strcmp(plan->steps[i].claim->kernel->name, tc->kernel) == 0 &&
            kiln_exec_profile(x, i, &ns, &runs)) {
            total += ns;
        }
    }
    return total;
}

/* The least of as many runs as fill SHORTEST_NS. */
static kiln_status time_plan(const kiln_plan *plan, const kiln_cpu_target *target,
                             const test_case *tc, kiln_diag *diag, int64_t *best) {
    kiln_exec_options options = {.threads = 1};
    kiln_exec *x;
    int64_t spent = 0;
    KILN_TRY(kiln_exec_create(&x, plan, target, &options, diag));
    *best = INT64_MAX;
    for (int i = 0; i < MOST_RUNS && (i < LEAST_RUNS || spent < SHORTEST_NS); i++) {
        int64_t ns = run_once(x, plan, tc, diag);
        if (ns < 0) {
            kiln_exec_destroy(x);
            return KILN_E_INTERNAL;
        }
        spent += ns;
        *best = ns < *best ? ns : *best;
    }
    kiln_exec_destroy(x);
    return KILN_OK;
}

static kiln_status time_case(stopwatch *w, const test_case *tc, const char *text,
                             kiln_arena *arena) {
    const kiln_packing packing = {.measuring = false};
    kiln_cpu_target target;
    kiln_plan *plan;
    int64_t best;
    kiln_cpu_target_init(&target, kiln_cpu_features(), all_but(tc->kernel, arena));
    if (tc->tactic[0] != '\0') {
        target.choices = all_in_way(tc, tc->tactic, arena);
        target.n_choices = target.choices ? tc->graph->n_nodes : 0;
    }
    KILN_TRY(kiln_cpu_plan_graph(&plan, tc->graph, NULL, &target, arena, NULL, NULL, w->diag));
    KILN_TRY(kiln_cpu_pack(plan, &target, &packing, arena, w->diag));
    KILN_TRY(time_plan(plan, &target, tc, w->diag, &best));
    double ns = (double)best, macs = (double)kiln_graph_macs(tc->graph);
    printf("%-18s %10.1f us %8.1f GMAC/s ", tc->kernel, ns / 1e3, macs / ns);
    if (w->rival_ns > 0) {
        printf("%6.2f x ", w->rival_ns / ns);
    } else {
        w->rival_ns = ns;
        printf("         ");
    }
    printf(" %s", text);
    return KILN_OK;
}

static void time_line(stopwatch *w, char *line) {
    kiln_arena arena;
    kiln_dims dims;
    test_case tc = {.refused = false};
    char text[MAX_LINE];
    kiln_arena_init(&arena, NULL);
    kiln_dims_init(&dims, &arena);
    snprintf(text, sizeof text, "%s", line);
    const char *wrong = parse_case(&tc, line, (uint64_t)w->line * 7919, &arena, &dims, w->diag);
    if (wrong || time_case(w, &tc, text, &arena) != KILN_OK) {
        printf("%s:%d: cannot be timed%s%s\n", w->path, w->line, wrong ? ": " : "",
               wrong ? wrong : "");
        w->failures++;
    }
    kiln_arena_free(&arena);
}

int time_file(const char *path) {
    stopwatch w = {.path = path};
    char line[MAX_LINE];
    FILE *f = fopen(path, "r");
    if (!f || kiln_diag_create(&w.diag, NULL) != KILN_OK) {
        printf("%s: cannot be opened\n", path);
        return 2;
    }
    while (fgets(line, sizeof line, f)) {
        w.line++;
        if (line[strspn(line, " \t\n")] == '\0') {
            w.rival_ns = 0;
        } else if (line[0] != '#') {
            time_line(&w, line);
        }
    }
    fclose(f);
    kiln_diag_destroy(w.diag);
    return w.failures != 0;
}
