/* inspect_why.c - why a layer runs as it does: the ways that were timed, the ways there are, and
 * why other kernels cannot. */
#include <math.h>
#include <string.h>

#include "cli.h"

/* One way to run the layer. */
typedef struct row {
    const char *kernel, *tactic;
    double ms; /* NAN: not timed */
    double rules_ms;
    const char *said;
} row;

typedef struct rows {
    row *items;
    size_t count, cap;
} rows;

static const char *layer_name(const void *of, size_t i) {
    kiln_layer l;
    return kiln_engine_layer(((const session *)of)->engine, i, &l) ? l.name : NULL;
}

static bool find_layer(const session *s, const char *name, kiln_layer *out, size_t *at) {
    for (size_t i = 0; kiln_engine_layer(s->engine, i, out); i++) {
        if (strcmp(out->name, name) == 0) {
            *at = i;
            return true;
        }
    }
    return false;
}

static void add_row(rows *r, row item) {
    r->items = grow(r->items, r->count, &r->cap, sizeof *r->items);
    r->items[r->count++] = item;
}

static bool has_row(const rows *r, const char *kernel, const char *tactic) {
    for (size_t i = 0; i < r->count; i++) {
        if (strcmp(r->items[i].kernel, kernel) == 0 && strcmp(r->items[i].tactic, tactic) == 0) {
            return true;
        }
    }
    return false;
}

static const char *outcome(const kiln_tried_way *t) {
    return t->refused            ? keepf("not allowed: %s", t->refused)
           : t->chosen           ? "chosen"
           : t->ms < t->rules_ms ? "faster by too little or not always, or its network was not"
                                 : "slower";
}

/* What was timed, then what there is besides. */
static kiln_status list_rows(cli *c, const session *s, const kiln_layer *l, size_t at, rows *out) {
    kiln_tried_way t;
    for (size_t i = 0; kiln_engine_tried(s->engine, i, &t); i++) {
        if (strcmp(t.layer, l->name) == 0) {
            bool timed = !t.refused;
            add_row(out, (row){t.kernel, t.tactic, timed ? t.ms : NAN, timed ? t.rules_ms : NAN,
                               outcome(&t)});
        }
    }
    if (!has_row(out, l->kernel, l->tactic)) {
        add_row(out, (row){l->kernel, l->tactic, NAN, NAN, "as it runs"});
    }
    kiln_way *ways;
    size_t n;
    kiln_status status = kiln_engine_candidates(&ways, &n, s->engine, at, c->diag);
    for (size_t i = 0; i < n; i++) {
        if (!has_row(out, ways[i].kernel, ways[i].tactic)) {
            add_row(out, (row){ways[i].kernel, ways[i].tactic, NAN, NAN, "not timed"});
        }
    }
    kiln_free(c->env, ways, n * sizeof *ways);
    return status;
}

static void show_json(const cli *c, const session *s, const kiln_layer *l, const rows *r) {
    const char *reason;
    json j = json_begin(c, "kiln.inspect.why/2");
    json_key_text(&j, "layer", l->name);
    json_key_text(&j, "kernel", l->kernel);
    json_key_text(&j, "tactic", l->tactic);
    json_key(&j, "ways");
    json_open(&j, '[');
    for (size_t i = 0; i < r->count; i++) {
        const row *w = &r->items[i];
        json_open(&j, '{');
        json_key_text(&j, "kernel", w->kernel);
        json_key_text(&j, "tactic", w->tactic);
        json_key_number(&j, "ms", w->ms);
        json_key_number(&j, "rules_ms", w->rules_ms);
        json_key_text(&j, "outcome", w->said);
        json_close(&j);
    }
    json_close(&j);
    json_key(&j, "refusals");
    json_open(&j, '[');
    for (size_t i = 0; (reason = kiln_engine_refusal(s->engine, l->name, i)) != NULL; i++) {
        json_text(&j, reason);
    }
    json_close(&j);
    json_end(&j);
}

static void show_ways(const cli *c, const rows *r) {
    table *t = table_new("way|>ms|>rules' ms|outcome");
    for (size_t i = 0; i < r->count; i++) {
        const row *w = &r->items[i];
        table_cell(t, "%s/%s", w->kernel, w->tactic);
        table_cell(t, "%s", isnan(w->ms) ? "" : keepf("%.3f", w->ms));
        table_cell(t, "%s", isnan(w->rules_ms) ? "" : keepf("%.3f", w->rules_ms));
        table_cell(t, "%s", w->said);
    }
    table_print(t, c->format);
}

static void show_text(cli *c, const session *s, const kiln_layer *l, const rows *r) {
    const char *reason;
    printf("layer   %s\nkernel  %s\ntactic  %s\nops     %s\noutput  %s\nfrom    %s\n",
           safe(l->name), l->kernel, l->tactic, l->ops ? l->ops : "",
           l->output ? safe(l->output) : "", l->sources ? safe(l->sources) : "");
    for (size_t i = 0; (reason = kiln_engine_refusal(s->engine, l->name, i)) != NULL; i++) {
        printf("%s  %s\n", i ? "          " : "not taken ", safe(reason));
    }
    putchar('\n');
    show_ways(c, r);
    if (!s->model) {
        say(c, KILN_LOG_INFO,
            "why other kernels did not take it is known when a model is given, not an engine");
    }
}

int inspect_why(cli *c, const session *s, const char *name) {
    kiln_layer l;
    size_t at;
    rows r = {0};
    if (!find_layer(s, name, &l, &at)) {
        const char *near = nearest(name, layer_name, s);
        return usage_error(
            c, near ? keepf("did you mean \"%s\"?", near) : "`kiln inspect --layers` lists them",
            "there is no layer \"%s\"", name);
    }
    kiln_status status = list_rows(c, s, &l, at, &r);
    if (status != KILN_OK) {
        return finish(c, status);
    }
    if (c->format == FORMAT_JSON) {
        show_json(c, s, &l, &r);
    } else {
        show_text(c, s, &l, &r);
    }
    return 0;
}
