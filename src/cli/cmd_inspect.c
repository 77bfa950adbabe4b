/* cmd_inspect.c - what is in a model or engine. */
#include <stddef.h>
#include <string.h>

#include "cli.h"
#include "kiln/quant.h"

typedef struct own {
    bool layers, passes, off_names;
    const char *why;
} own;

typedef struct memory {
    bool known;
    size_t activations, scratch;
} memory;

/* ---- Parts ---- */

static const char *layout_of(const kiln_io *io) {
    return io->is_sequence ? "sequence" : io->rank >= 3 ? "nchw (as declared)" : "rows";
}

static bool has_profile(const session *s) {
    kiln_io io;
    for (size_t i = 0; kiln_engine_input(s->engine, i, &io); i++) {
        if (io.has_range) {
            return true;
        }
    }
    return false;
}

static void io_table(const cli *c, const session *s) {
    bool profile = has_profile(s);
    table *t = table_new(profile ? "|name|type|layout|min..opt..max" : "|name|type|layout");
    kiln_io io;
    for (int kind = 0; kind < 2; kind++) {
        for (size_t i = 0;
             kind ? kiln_engine_output(s->engine, i, &io) : kiln_engine_input(s->engine, i, &io);
             i++) {
            table_cell(t, "%s", kind ? "output" : "input");
            table_cell(t, "%s", io.name);
            table_cell(t, "%s", io.type ? io.type : "?");
            table_cell(t, "%s", layout_of(&io));
            if (profile) {
                table_cell(t, "%s", io.has_range ? ranges_text(&io) : "");
            }
        }
    }
    table_print(t, c->format);
}

static void io_json(json *j, const session *s, bool output) {
    kiln_io io;
    json_key(j, output ? "outputs" : "inputs");
    json_open(j, '[');
    for (size_t i = 0;
         output ? kiln_engine_output(s->engine, i, &io) : kiln_engine_input(s->engine, i, &io);
         i++) {
        json_open(j, '{');
        json_key_text(j, "name", io.name);
        json_key_text(j, "dtype", kiln_dtype_name(io.dtype));
        json_key(j, "shape");
        json_dims(j, io.dims, io.rank);
        json_key_text(j, "type", io.type);
        json_key_text(j, "layout", layout_of(&io));
        if (io.has_range) {
            const struct {
                const char *key;
                const int64_t *dims;
            } rows[] = {{"min", io.min}, {"opt", io.opt}, {"max", io.max}};
            for (size_t k = 0; k < COUNT_OF(rows); k++) {
                json_key(j, rows[k].key);
                json_dims(j, rows[k].dims, io.rank);
            }
        }
        json_close(j);
    }
    json_close(j);
}

static void ops_table(const cli *c, const kiln_model *model) {
    table *t = table_new("operator|domain|>nodes");
    const char *name, *domain;
    size_t count;
    for (size_t i = 0; kiln_model_op(model, i, &name, &domain, &count); i++) {
        table_cell(t, "%s", name);
        table_cell(t, "%s", domain && *domain ? domain : "ai.onnx");
        table_cell(t, "%zu", count);
    }
    putchar('\n');
    table_print(t, c->format);
}

static void layers_table(const cli *c, const session *s) {
    table *t = table_new(">#|layer|kernel|precision|ops|output|>MACs|>weights|from");
    kiln_layer l;
    for (size_t i = 0; kiln_engine_layer(s->engine, i, &l); i++) {
        const bool ruled = strcmp(l.tactic, "rules") == 0;
        table_cell(t, "%zu", i);
        table_cell(t, "%s", l.name);
        table_cell(t, "%s%s%s", l.kernel, ruled ? "" : "/", ruled ? "" : l.tactic);
        table_cell(t, "%s", l.precision);
        table_cell(t, "%s", l.ops ? l.ops : "");
        table_cell(t, "%s", l.output ? l.output : "");
        table_cell(t, "%s", l.macs ? count_text((double)l.macs) : "");
        table_cell(t, "%s", l.weight_bytes ? bytes_text((double)l.weight_bytes) : "");
        table_cell(t, "%s", l.sources ? l.sources : "");
    }
    putchar('\n');
    table_print(t, c->format);
}

static void layers_json(json *j, const session *s) {
    kiln_layer l;
    json_key(j, "layers");
    json_open(j, '[');
    for (size_t i = 0; kiln_engine_layer(s->engine, i, &l); i++) {
        json_open(j, '{');
        json_key_text(j, "name", l.name);
        json_key_text(j, "kernel", l.kernel);
        json_key_text(j, "tactic", l.tactic);
        json_key_text(j, "precision", l.precision);
        json_key_text(j, "ops", l.ops);
        json_key_text(j, "output", l.output);
        json_key_int(j, "macs", l.macs);
        json_key_int(j, "weight_bytes", (int64_t)l.weight_bytes);
        json_key_text(j, "sources", l.sources);
        json_close(j);
    }
    json_close(j);
}

/* Layers that quantizing left float. */
static void floats_table(const cli *c, const session *s) {
    const char *layer, *reason;
    table *t = table_new("stays float|why");
    size_t n = 0;
    for (; kiln_engine_left_float(s->engine, n, &layer, &reason); n++) {
        table_cell(t, "%s", safe(layer));
        table_cell(t, "%s", safe(reason));
    }
    if (n > 0) {
        putchar('\n');
        table_print(t, c->format);
    }
}

static void floats_json(json *j, const session *s) {
    const char *layer, *reason;
    json_key(j, "stays_float");
    json_open(j, '[');
    for (size_t i = 0; kiln_engine_left_float(s->engine, i, &layer, &reason); i++) {
        json_open(j, '{');
        json_key_text(j, "name", layer);
        json_key_text(j, "reason", reason);
        json_close(j);
    }
    json_close(j);
}

static void passes_table(const cli *c, const session *s) {
    table *t = table_new("pass|>rewrites|>nodes before|>after|");
    kiln_pass_info p;
    for (size_t i = 0; kiln_engine_pass(s->engine, i, &p); i++) {
        table_cell(t, "%s", p.name);
        table_cell(t, "%zu", p.rewrites);
        table_cell(t, "%zu", p.nodes_before);
        table_cell(t, "%zu", p.nodes_after);
        table_cell(t, "%s", p.off ? "off" : "");
    }
    putchar('\n');
    table_print(t, c->format);
}

static void passes_json(json *j, const session *s) {
    kiln_pass_info p;
    json_key(j, "passes");
    json_open(j, '[');
    for (size_t i = 0; kiln_engine_pass(s->engine, i, &p); i++) {
        json_open(j, '{');
        json_key_text(j, "name", p.name);
        json_key_int(j, "rewrites", (int64_t)p.rewrites);
        json_key_int(j, "nodes_before", (int64_t)p.nodes_before);
        json_key_int(j, "nodes_after", (int64_t)p.nodes_after);
        json_key_bool(j, "off", p.off);
        json_close(j);
    }
    json_close(j);
}

/* ---- The whole ---- */

/* Memory of one run needs shapes, so inputs are generated for it, dynamic dims 1; a context of an
 * engine with a profile has room for max from the start. Silent when that fails. */
static memory measure_memory(cli *c, session *s) {
    memory m = {0};
    kiln_log_level level = c->level;
    c->level = KILN_LOG_ERROR;
    kiln_generate_options g = {.size = sizeof g};
    kiln_context_options o = {.size = sizeof o, .threads = 1};
    kiln_io io;
    kiln_status status = kiln_tensors_create(&s->inputs, c->env);
    for (size_t i = 0; status == KILN_OK && kiln_engine_input(s->engine, i, &io); i++) {
        status = kiln_tensors_generate(s->inputs, &io, &g, NULL);
    }
    status = status == KILN_OK ? kiln_context_create(&s->context, s->engine, &o, NULL) : status;
    status = status == KILN_OK ? kiln_tensors_bind(s->inputs, s->engine, s->context, NULL) : status;
    status = status == KILN_OK ? kiln_context_prepare(s->context, NULL) : status;
    if (status == KILN_OK) {
        m.known = true;
        m.activations = kiln_context_memory(s->context, &m.scratch);
    }
    c->level = level;
    return m;
}

static size_t count_layers(const session *s) {
    kiln_layer l;
    size_t n = 0;
    while (kiln_engine_layer(s->engine, n, &l)) {
        n++;
    }
    return n;
}

static void show_json(const cli *c, const own *o, const session *s, const memory *m) {
    kiln_engine_info e;
    kiln_model_info i;
    json j = json_begin(c, "kiln.inspect/1");
    kiln_engine_get_info(s->engine, &e);
    json_key_text(&j, "file", s->path);
    json_key_text(&j, "kind", s->model ? "model" : "engine");
    io_json(&j, s, false);
    io_json(&j, s, true);
    if (s->model) {
        kiln_model_get_info(s->model, &i);
        json_key_int(&j, "ir_version", i.ir_version);
        json_key_int(&j, "opset", i.opset);
        json_key_text(&j, "producer", i.producer);
        json_key_text(&j, "graph", i.graph_name);
        json_key_int(&j, "model_nodes", (int64_t)i.nodes);
        json_key_int(&j, "parameters", (int64_t)i.parameters);
        json_key_int(&j, "parameter_bytes", (int64_t)i.parameter_bytes);
        json_key(&j, "operators");
        json_open(&j, '{');
        const char *name, *domain;
        size_t count;
        for (size_t k = 0; kiln_model_op(s->model, k, &name, &domain, &count); k++) {
            json_key_int(&j, domain && *domain ? keepf("%s::%s", domain, name) : name,
                         (int64_t)count);
        }
        json_close(&j);
    }
    json_key_text(&j, "built_by", e.version);
    json_key_text(&j, "isa", e.isa);
    json_key_text(&j, "model_hash", e.model_hash);
    json_key_int(&j, "nodes", (int64_t)e.nodes);
    json_key_int(&j, "layer_count", (int64_t)count_layers(s));
    json_key_int(&j, "macs", e.macs);
    json_key_int(&j, "weight_bytes", (int64_t)e.weight_bytes);
    if (m->known) {
        json_key_int(&j, "activation_bytes", (int64_t)m->activations);
        json_key_int(&j, "scratch_bytes", (int64_t)m->scratch);
    }
    json_key_bool(&j, "portable", e.portable);
    layers_json(&j, s);
    floats_json(&j, s);
    if (o->passes) {
        passes_json(&j, s);
    }
    json_end(&j);
}

static void facts(const session *s, const memory *m) {
    kiln_engine_info e;
    kiln_model_info i;
    kiln_engine_get_info(s->engine, &e);
    putchar('\n');
    if (s->model) {
        kiln_model_get_info(s->model, &i);
        printf("model       opset %lld, IR version %lld, %zu nodes, made by %s\n",
               (long long)i.opset, (long long)i.ir_version, i.nodes,
               i.producer && *i.producer ? safe(i.producer) : "?");
        printf("parameters  %s (%s)\n", count_text((double)i.parameters),
               bytes_text((double)i.parameter_bytes));
    }
    printf("engine      %zu nodes in %zu layers, %s, kiln %s%s\n", e.nodes, count_layers(s),
           e.isa ? e.isa : "?", e.version ? e.version : "?", e.portable ? ", portable" : "");
    printf("MACs        %s\n", count_text((double)e.macs));
    printf("memory      weights %s", bytes_text((double)e.weight_bytes));
    if (m->known) {
        printf(", activations %s, scratch %s (%s)", bytes_text((double)m->activations),
               bytes_text((double)m->scratch), has_profile(s) ? "at max" : "dynamic dims 1");
    }
    printf("\nmodel hash  %s\n", e.model_hash);
}

static void show_tables(const cli *c, const own *o, const session *s, const memory *m) {
    io_table(c, s);
    if (c->format == FORMAT_TABLE) {
        facts(s, m);
    }
    if (s->model) {
        ops_table(c, s->model);
    }
    if (o->layers) {
        layers_table(c, s);
    }
    floats_table(c, s);
    if (o->passes) {
        passes_table(c, s);
    }
    verdict(c, true, "%s", "");
}

static int list_off_names(const cli *c) {
    table *t = table_new("name|kind");
    const char *name, *kind;
    for (size_t i = 0; (name = kiln_off_get(i, &kind)) != NULL; i++) {
        table_cell(t, "%s", name);
        table_cell(t, "%s", kind);
    }
    table_print(t, c->format);
    return 0;
}

static int run(cli *c, void *given) {
    const own *o = given;
    session s = {0};
    if (o->off_names) {
        return list_off_names(c);
    }
    if (c->operands.count == 0) {
        return usage_error(c, "usage: kiln inspect MODEL|ENGINE [options]",
                           "`kiln inspect` needs a file");
    }
    int status = session_open(c, &s, c->operands.items[0]);
    if (status == 0 && o->why) {
        status = inspect_why(c, &s, o->why);
    } else if (status == 0 && !c->dry_run) {
        memory m = measure_memory(c, &s);
        if (c->format == FORMAT_JSON) {
            show_json(c, o, &s, &m);
        } else {
            show_tables(c, o, &s, &m);
        }
    }
    session_close(&s);
    return status;
}

static const opt options[] = {
    {.name = "layers",
     .kind = OPT_FLAG,
     .at = offsetof(own, layers),
     .help =
         "every layer: kernel (and tactic, where one was chosen), operators, where it came from"},
    {.name = "passes",
     .kind = OPT_FLAG,
     .at = offsetof(own, passes),
     .help = "what each simplifying pass did"},
    {.name = "why",
     .kind = OPT_TEXT,
     .value = "LAYER",
     .at = offsetof(own, why),
     .help =
         "why a layer runs as it does: other ways to run it, what they took when they were timed, "
         "and why further kernels cannot"},
    {.name = "off-names",
     .kind = OPT_FLAG,
     .at = offsetof(own, off_names),
     .help = "the names that --off takes; needs no file"},
};

static const example examples[] = {
    {"kiln inspect net.onnx", "inputs, outputs, operators, parameters, memory"},
    {"kiln inspect net.kiln --layers", "the plan, layer by layer"},
    {"kiln inspect net.onnx --why conv_7", "why a layer is not in a faster kernel"},
    {"kiln inspect net.kiln --why conv_7", "and which ways were timed when the engine was built"},
};

static const opt_group *const groups[] = {&group_build, &group_common, NULL};

const verb verb_inspect = {
    .name = "inspect",
    .summary = "show what is in a model or engine",
    .operands = "MODEL|ENGINE",
    .about = "Shows inputs and outputs with type, shape and layout; operators, parameters and "
             "multiply-accumulates; memory of weights, activations and scratch.",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .max_operands = 1,
    .run = run};
