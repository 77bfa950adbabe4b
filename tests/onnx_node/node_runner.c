/* node_runner.c - runs the ONNX backend tests that generate.py wrote.
 *
 *     node_runner DIR [--ref] [--flip] [--filter TEXT] [--verbose] [--passed FILE] [--expect FILE]
 *
 * Each test is imported, built and run in a child process of its own, so that a crash is one
 * failure. --ref runs the imported graph by the reference interpreter instead of an engine.
 * --flip changes one element of every expected output: it succeeds when every test with anything
 * to compare fails. --passed writes the names that passed; --expect fails if a name in FILE did
 * not pass. The last line counts.
 *
 * An engine computes float16 and bfloat16 graphs in float32. Some expected values hold the
 * rounding errors of every half-width step instead, and allow less than one unit of bfloat16 in
 * the last place. Such a test has a second try with the pass "widen" off; those that needed it
 * are counted apart. */
#define _GNU_SOURCE 1

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api.h"
#include "build/widen.h"
#include "ops/util.h"

enum { MAX_IO = 128, PASS = 0, FAIL = 1, PASS_HALF = 2, PASS_EMPTY = 3 };

typedef struct options {
    const char *dir, *filter, *passed, *expect;
    bool ref, flip, verbose;
} options;

typedef struct test {
    char name[256], excluded[64], flag[32];
    double rtol, atol;
} test;

typedef struct session {
    const options *o;
    const test *t;
    bool half;     /* the second try, in half-width floats */
    bool mute;     /* a failure would not be the last word */
    bool compared; /* an element, at least */
    kiln_diag *diag;
    kiln_arena arena;
    kiln_model *model;
    kiln_engine *engine;
    kiln_context *context;
} session;

static void report(const session *s, const char *what) {
    char text[4096];
    if (s->mute || s->o->flip) {
        return;
    }
    printf("FAIL %s: %s\n", s->t->name, what);
    for (size_t i = 0; i < kiln_diag_count(s->diag); i++) {
        kiln_finding_format(kiln_diag_get(s->diag, i), text, sizeof text);
        printf("     %s\n", text);
    }
}

static bool read_file(session *s, const char *path, void **data, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        return false;
    }
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    *data = kiln_arena_raw(&s->arena, *len + 1);
    bool ok = *data && fread(*data, 1, *len, f) == *len;
    fclose(f);
    return ok;
}

static kiln_kind elem_kind(const kiln_type *t) {
    return t->elem ? t->elem->kind : KILN_KIND_TENSOR;
}

static bool read_datum(session *s, int set, const char *what, size_t i, const kiln_type *type,
                       kiln_datum *out) {
    char path[1024];
    void *bytes;
    size_t len;
    snprintf(path, sizeof path, "%s/%s/test_data_set_%d/%s_%zu.pb", s->o->dir, s->t->name, set,
             what, i);
    return read_file(s, path, &bytes, &len) &&
           kiln_datum_from_pb(out, type->kind, elem_kind(type), bytes, len, &s->arena, NULL,
                              s->diag) == KILN_OK;
}

static bool close_enough(double got, double want, const test *t) {
    if (isnan(want) || isnan(got)) {
        return isnan(want) && isnan(got);
    }
    if (isinf(want) || isinf(got)) {
        return want == got;
    }
    return fabs(got - want) <= t->atol + t->rtol * fabs(want);
}

static bool compare_strings(const kiln_tensor *got, const kiln_tensor *want, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (strcmp(((const char *const *)got->data)[i], ((const char *const *)want->data)[i]) !=
            0) {
            return false;
        }
    }
    return true;
}

static bool compare_tensor(session *s, const kiln_tensor *got, const kiln_tensor *want, char *why,
                           size_t cap) {
    if (got->dtype != want->dtype || got->rank != want->rank ||
        memcmp(got->dims, want->dims, (size_t)got->rank * sizeof got->dims[0]) != 0) {
        snprintf(why, cap, "type or shape: got %s rank %d, expected %s rank %d",
                 kiln_dtype_name(got->dtype), got->rank, kiln_dtype_name(want->dtype), want->rank);
        return false;
    }
    if (strcmp(s->t->flag, "random") == 0) {
        return true;
    }
    int64_t n = kiln_tensor_count(want);
    if (want->dtype == KILN_DTYPE_STRING) {
        return compare_strings(got, want, n);
    }
    int parts = 1;
    kiln_dtype dtype = want->dtype;
    if (dtype == KILN_DTYPE_C64 || dtype == KILN_DTYPE_C128) {
        parts = 2;
        dtype = dtype == KILN_DTYPE_C64 ? KILN_DTYPE_F32 : KILN_DTYPE_F64;
    }
    for (int64_t i = 0; i < n * parts; i++) {
        s->compared = true;
        double g = kiln_get_f64(dtype, got->data, i), w = kiln_get_f64(dtype, want->data, i);
        if (s->o->flip && i == 0) {
            w = kiln_dtype_is_float(dtype) ? (isfinite(w) ? w + fabs(w) + 1 : 0) : (w == 0 ? 1 : 0);
        }
        bool same = close_enough(g, w, s->t);
        if (kiln_dtype_is_int(dtype) && !s->o->flip) {
            int64_t a = kiln_get_i64(dtype, got->data, i), b = kiln_get_i64(dtype, want->data, i);
            same = a == b || same;
        }
        if (!same) {
            snprintf(why, cap, "element %lld: got %.9g, expected %.9g", (long long)i, g, w);
            return false;
        }
    }
    return true;
}

static bool compare(session *s, const kiln_datum *got, const kiln_datum *want, char *why,
                    size_t cap) {
    if (want->kind == KILN_KIND_TENSOR && got->kind == KILN_KIND_TENSOR) {
        return compare_tensor(s, &got->tensor, &want->tensor, why, cap);
    }
    if (want->kind != got->kind || want->n_items != got->n_items) {
        snprintf(why, cap, "kind %d with %lld items, expected kind %d with %lld", got->kind,
                 (long long)got->n_items, want->kind, (long long)want->n_items);
        return false;
    }
    for (int64_t i = 0; i < want->n_items; i++) {
        if (!compare(s, &got->items[i], &want->items[i], why, cap)) {
            return false;
        }
    }
    return true;
}

static kiln_status bind(session *s, const char *name, const kiln_datum *d) {
    const kiln_datum *inner = d->kind == KILN_KIND_OPTIONAL && d->n_items > 0 ? &d->items[0] : d;
    if (inner->kind == KILN_KIND_TENSOR) {
        return kiln_context_bind(s->context, name, &inner->tensor, s->diag);
    }
    kiln_tensor *items;
    KILN_ALLOC(items, &s->arena, inner->n_items);
    for (int64_t i = 0; i < inner->n_items; i++) {
        items[i] = inner->items[i].tensor;
    }
    return kiln_context_bind_sequence(s->context, name, items, (size_t)inner->n_items, s->diag);
}

static bool run_engine(session *s, const kiln_graph *g, const kiln_datum *in, kiln_datum *out) {
    for (size_t i = 0; i < g->n_inputs; i++) {
        if (bind(s, g->inputs[i]->name, &in[i]) != KILN_OK) {
            return false;
        }
    }
    if (kiln_context_run(s->context, s->diag) != KILN_OK) {
        return false;
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        kiln_datum *d = &out[i];
        size_t n = kiln_context_output_items(s->context, i);
        const kiln_type *type = &g->outputs[i]->type;
        bool optional = type->kind == KILN_KIND_OPTIONAL;
        kiln_kind kind = optional ? elem_kind(type) : type->kind;
        memset(d, 0, sizeof *d);
        d->kind = kind;
        if (kind == KILN_KIND_TENSOR && n == 1) {
            d->tensor = *kiln_context_output(s->context, i);
        } else {
            d->items = kiln_arena_array(&s->arena, n, sizeof *d->items);
            d->n_items = (int64_t)n;
            for (size_t k = 0; k < n; k++) {
                d->items[k].kind = KILN_KIND_TENSOR;
                d->items[k].tensor = *kiln_context_output_item(s->context, i, k);
            }
        }
        if (optional) {
            kiln_datum *inner = kiln_arena_copy(&s->arena, d, sizeof *d);
            *d = (kiln_datum){.kind = KILN_KIND_OPTIONAL, .items = inner, .n_items = 1};
        }
    }
    return true;
}

static bool run_set(session *s, const kiln_graph *g, int set) {
    kiln_datum in[MAX_IO] = {0}, out[MAX_IO] = {0}, want;
    char why[512] = "";
    for (size_t i = 0; i < g->n_inputs; i++) {
        if (!read_datum(s, set, "input", i, &g->inputs[i]->type, &in[i])) {
            report(s, "an input cannot be read");
            return false;
        }
    }
    bool ran = s->o->ref ? kiln_eval_graph(g, in, out, NULL, &s->arena, s->diag) == KILN_OK
                         : run_engine(s, g, in, out);
    if (!ran) {
        report(s, "run");
        return false;
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        if (!read_datum(s, set, "output", i, &g->outputs[i]->type, &want)) {
            report(s, "an expected output cannot be read");
            return false;
        }
        if (!compare(s, &out[i], &want, why, sizeof why)) {
            char text[700];
            snprintf(text, sizeof text, "output %zu (%s): %s", i, g->outputs[i]->name, why);
            report(s, text);
            return false;
        }
    }
    return true;
}

static bool prepare(session *s) {
    static const char *const off[] = {"widen", NULL};
    kiln_build_options bo = {.size = sizeof bo, .off = s->half ? off : NULL};
    kiln_context_options co = {.size = sizeof co, .threads = 1};
    return kiln_engine_build(&s->engine, s->model, &bo, s->diag) == KILN_OK &&
           kiln_context_create(&s->context, s->engine, &co, s->diag) == KILN_OK;
}

/* All data sets in one session; *again: a failure could be one of rounding. */
static int run_test(const options *o, const test *t, bool half, bool *again) {
    session s = {.o = o, .t = t, .half = half};
    char path[1024];
    int result = PASS;
    kiln_arena_init(&s.arena, NULL);
    kiln_diag_create(&s.diag, NULL);
    snprintf(path, sizeof path, "%s/%s/model.onnx", o->dir, t->name);
    if (kiln_model_load(&s.model, NULL, path, NULL, s.diag) != KILN_OK) {
        report(&s, "import");
        return FAIL;
    }
    const kiln_graph *g = s.model->import.graph;
    *again = s.mute = !o->ref && !half && kiln_needs_widening(g);
    if (!o->ref && !prepare(&s)) {
        report(&s, "build");
        return FAIL;
    }
    for (int set = 0; result == PASS; set++) {
        snprintf(path, sizeof path, "%s/%s/test_data_set_%d", o->dir, t->name, set);
        if (access(path, F_OK) != 0) {
            break;
        }
        result = run_set(&s, g, set) ? PASS : FAIL;
    }
    kiln_context_destroy(s.context);
    kiln_engine_destroy(s.engine);
    kiln_model_destroy(s.model);
    kiln_diag_destroy(s.diag);
    kiln_arena_free(&s.arena);
    return result == PASS && o->flip && !s.compared ? PASS_EMPTY : result;
}

static int run_tries(const options *o, const test *t) {
    bool again = false;
    int result = run_test(o, t, false, &again);
    if (result == FAIL && again) {
        result = run_test(o, t, true, &again);
        result = result == PASS ? PASS_HALF : result;
    }
    return result;
}

static int run_isolated(const options *o, const test *t) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        int code = run_tries(o, t);
        fflush(stdout);
        _exit(code);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) {
        printf("FAIL %s: signal %d\n", t->name, WTERMSIG(status));
        return FAIL;
    }
    return WEXITSTATUS(status);
}

/* Columns: name, ops, opset, excluded, flag, kind, rtol, atol. */
static bool parse_line(char *line, test *t) {
    char *column[8], *rest = line;
    for (int i = 0; i < 8; i++) {
        column[i] = strsep(&rest, "\t\n");
        if (!column[i]) {
            return false;
        }
    }
    snprintf(t->name, sizeof t->name, "%s", column[0]);
    snprintf(t->excluded, sizeof t->excluded, "%s", column[3]);
    snprintf(t->flag, sizeof t->flag, "%s", column[4]);
    t->rtol = strtod(column[6], NULL);
    t->atol = strtod(column[7], NULL);
    return strcmp(t->name, "name") != 0;
}

typedef struct tally {
    int passed, failed, excluded, missing;
    int half;  /* of those passed */
    int empty; /* nothing to compare in them, with --flip */
    char (*names)[256];
} tally;

static bool has_passed(const tally *r, const char *name) {
    for (int i = 0; i < r->passed; i++) {
        if (strcmp(r->names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static void check_expected(const options *o, tally *r) {
    char line[300];
    FILE *f = o->expect ? fopen(o->expect, "r") : NULL;
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] && line[0] != '#' && (!o->filter || strstr(line, o->filter)) &&
            !has_passed(r, line)) {
            printf("REGRESSED %s\n", line);
            r->missing++;
        }
    }
    if (f) {
        fclose(f);
    }
}

static bool run_all(const options *o, tally *r) {
    char path[1024], line[8192];
    test t;
    snprintf(path, sizeof path, "%s/manifest.tsv", o->dir);
    FILE *f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "%s cannot be opened: run generate.py first\n", path);
        return false;
    }
    while (fgets(line, sizeof line, f)) {
        if (!parse_line(line, &t) || (o->filter && !strstr(t.name, o->filter))) {
            continue;
        }
        if (strcmp(t.excluded, "-") != 0) {
            r->excluded++;
            continue;
        }
        int result = run_isolated(o, &t);
        if (result == FAIL) {
            r->failed++;
            continue;
        }
        if (result == PASS_EMPTY) {
            r->empty++;
            continue;
        }
        r->half += result == PASS_HALF;
        snprintf(r->names[r->passed++], sizeof r->names[0], "%s", t.name);
    }
    fclose(f);
    return true;
}

static void write_passed(const options *o, const tally *r) {
    FILE *f = o->passed ? fopen(o->passed, "w") : NULL;
    for (int i = 0; f && i < r->passed; i++) {
        fprintf(f, "%s\n", r->names[i]);
    }
    if (f) {
        fclose(f);
    }
}

int main(int argc, char **argv) {
    options o = {0};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--ref") == 0) {
            o.ref = true;
        } else if (strcmp(argv[i], "--flip") == 0) {
            o.flip = true;
        } else if (strcmp(argv[i], "--verbose") == 0) {
            o.verbose = true;
        } else if (strcmp(argv[i], "--filter") == 0 && value) {
            o.filter = argv[++i];
        } else if (strcmp(argv[i], "--passed") == 0 && value) {
            o.passed = argv[++i];
        } else if (strcmp(argv[i], "--expect") == 0 && value) {
            o.expect = argv[++i];
        } else {
            o.dir = argv[i];
        }
    }
    tally r = {.names = calloc(8192, 256)};
    if (!o.dir || !r.names || !run_all(&o, &r)) {
        return 2;
    }
    check_expected(&o, &r);
    write_passed(&o, &r);
    printf("%d excluded, %d regressed, %d passed in half-width floats only", r.excluded, r.missing,
           r.half);
    printf(o.flip ? ", %d with nothing to compare\n" : "\n", r.empty);
    printf("%d passed, %d failed\n", r.passed, r.failed);
    free(r.names);
    if (o.flip) {
        return r.passed > 0 || r.failed == 0;
    }
    return o.expect ? r.missing > 0 : r.failed > 0;
}
