/* function.c - model-local functions: read, measured before any is expanded, and inlined.
 *
 * A walk over the model with an explicit stack adds up what every function expands to, each
 * function once: nodes of its own and of the graphs in its attributes, plus the sizes of those it
 * calls. So a bomb of 2^30 nodes is seen as a number, recursion as a function met while it is open.
 */
#include <string.h>

#include "onnx/import.h"

enum { UNSEEN, OPEN, MEASURED };
enum { MAX_PREFIX = 256 };

/* One graph or function body on the walk's stack. */
typedef struct level {
    kiln_msg at;
    uint32_t node_field;
    kiln_local_function *function; /* NULL: a graph */
    uint64_t nodes;                /* so far */
    uint32_t depth;                /* of calls below */
} level;

typedef struct walk {
    kiln_importer *im;
    level *levels;
    size_t count, cap;
    uint32_t graphs, calls; /* levels of each kind on the stack */
} walk;

static kiln_view function_key(kiln_arena *arena, kiln_view domain, kiln_view name,
                              kiln_view overload) {
    char *text = kiln_arena_printf(arena, "%.*s\n%.*s\n%.*s", (int)domain.n,
                                   domain.n ? domain.p : "", (int)name.n, name.n ? name.p : "",
                                   (int)overload.n, overload.n ? overload.p : "");
    return text ? kiln_view_of(text, strlen(text)) : kiln_view_of(NULL, 0);
}

static kiln_view standard_domain(kiln_view domain) {
    return kiln_view_is(domain, "ai.onnx") ? kiln_view_of("", 0) : domain;
}

static kiln_local_function *find(const kiln_importer *im, kiln_view domain, kiln_view op,
                                 kiln_view overload) {
    if (im->n_functions == 0) {
        return NULL;
    }
    kiln_arena *temp = (kiln_arena *)(uintptr_t)&im->temp;
    kiln_arena_mark mark = kiln_arena_here(temp);
    kiln_view key = function_key(temp, standard_domain(domain), op, overload);
    void *item = NULL;
    if (key.p) {
        kiln_names_find(&im->function_names, key, &item);
    }
    kiln_arena_rewind(temp, mark);
    return item;
}

kiln_local_function *kiln_function_find(const kiln_importer *im, const char *domain, const char *op,
                                        kiln_view overload) {
    return find(im, kiln_view_of(domain, strlen(domain)), kiln_view_of(op, strlen(op)), overload);
}

/* ---- Measuring ---- */

static kiln_status push(walk *w, kiln_msg at, uint32_t node_field, kiln_local_function *f) {
    const kiln_limits *limits = w->im->d.limits;
    level l = {.at = at, .node_field = node_field, .function = f};
    if (f && ++w->calls > limits->call_depth) {
        return kiln_fail(w->im->d.diag, KILN_F_FUNCTION,
                         "functions call each other deeper than %u (call_depth)",
                         limits->call_depth);
    }
    if (!f && ++w->graphs > (limits->nested_graphs + 1) * (limits->call_depth + 1)) {
        return kiln_fail(w->im->d.diag, KILN_F_GRAPH_LIMIT,
                         "graphs are nested deeper than %u (nested_graphs)", limits->nested_graphs);
    }
    KILN_PUSH(&w->im->lists, w->levels, w->count, w->cap, l);
    return KILN_OK;
}

static void add_size(level *l, uint64_t nodes, uint32_t depth) {
    l->nodes = nodes > UINT64_MAX - l->nodes ? UINT64_MAX : l->nodes + nodes;
    l->depth = depth > l->depth ? depth : l->depth;
}

static kiln_status pop(walk *w) {
    level done = w->levels[--w->count];
    uint32_t depth = done.depth;
    if (done.function) {
        w->calls--;
        depth++;
        done.function->state = MEASURED;
        done.function->nodes = done.nodes;
        done.function->depth = depth;
        if (depth > w->im->d.limits->call_depth) {
            return kiln_fail(w->im->d.diag, KILN_F_FUNCTION,
                             "functions call each other deeper than %u (call_depth)",
                             w->im->d.limits->call_depth);
        }
    } else {
        w->graphs--;
    }
    if (w->count) {
        add_size(&w->levels[w->count - 1], done.nodes, depth);
    } else if (done.nodes > w->im->d.limits->nodes) {
        return kiln_fail(
            w->im->d.diag, KILN_F_GRAPH_LIMIT,
            "expanding its functions gives the model %llu nodes, the limit is %u (nodes)",
            (unsigned long long)done.nodes, w->im->d.limits->nodes);
    }
    return KILN_OK;
}

static kiln_status measure_attributes(walk *w, const kiln_pb_node *node) {
    kiln_msg at = node->head.self, sub;
    for (size_t i = 0; i < node->n_attributes; i++) {
        kiln_pb_attribute a;
        KILN_TRY(kiln_pb_each(&w->im->d.wire, &at, KILN_PB_NODE_ATTRIBUTE, &sub));
        KILN_TRY(kiln_pb_decode(&w->im->d.wire, &kiln_pb_attribute_desc, &sub, &a));
        if (a.g.p) {
            KILN_TRY(push(w, a.g, KILN_PB_GRAPH_NODE, NULL));
        }
    }
    return KILN_OK;
}

static kiln_status measure_node(walk *w, const kiln_msg *msg) {
    kiln_pb_node node;
    KILN_TRY(kiln_pb_decode(&w->im->d.wire, &kiln_pb_node_desc, msg, &node));
    kiln_local_function *f = find(w->im, node.domain, node.op_type, node.overload);
    add_size(&w->levels[w->count - 1], 1, 0);
    KILN_TRY(measure_attributes(w, &node));
    if (!f) {
        return KILN_OK;
    }
    if (f->state == OPEN) {
        kiln_diag_at_offset(w->im->d.diag, kiln_wire_offset(&w->im->d.wire, msg->p));
        return kiln_fail(w->im->d.diag, KILN_F_FUNCTION, "function \"%.*s\" calls itself",
                         (int)f->pb.name.n, f->pb.name.p);
    }
    if (f->state == MEASURED) {
        add_size(&w->levels[w->count - 1], f->nodes, f->depth);
        return KILN_OK;
    }
    f->state = OPEN;
    return push(w, f->pb.head.self, KILN_PB_FUNCTION_NODE, f);
}

static kiln_status measure(kiln_importer *im, const kiln_msg *graph) {
    walk w = {.im = im};
    KILN_TRY(push(&w, *graph, KILN_PB_GRAPH_NODE, NULL));
    while (w.count) {
        level *top = &w.levels[w.count - 1];
        kiln_msg sub;
        KILN_TRY(kiln_pb_each(&im->d.wire, &top->at, top->node_field, &sub));
        KILN_TRY(sub.p ? measure_node(&w, &sub) : pop(&w));
    }
    return KILN_OK;
}

/* ---- Reading ---- */

kiln_status kiln_functions_read(kiln_importer *im, const kiln_pb_model *model) {
    kiln_msg at = model->head.self, sub;
    if (model->n_functions == 0) {
        return KILN_OK;
    }
    if (model->n_functions > im->d.limits->functions) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH_LIMIT,
                         "the model has %zu functions, the limit is %u (functions)",
                         model->n_functions, im->d.limits->functions);
    }
    KILN_ALLOC(im->functions, &im->lists, model->n_functions);
    KILN_TRY(kiln_names_init(&im->function_names, &im->lists, im->seed, NULL, model->n_functions));
    for (size_t i = 0; i < model->n_functions; i++) {
        kiln_local_function *f = &im->functions[i];
        void *item;
        KILN_TRY(kiln_pb_each(&im->d.wire, &at, KILN_PB_MODEL_FUNCTIONS, &sub));
        KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_function_desc, &sub, &f->pb));
        kiln_view key =
            function_key(&im->lists, standard_domain(f->pb.domain), f->pb.name, f->pb.overload);
        if (!key.p) {
            return KILN_E_MEMORY;
        }
        if (kiln_names_find(&im->function_names, key, &item)) {
            kiln_diag_at_offset(im->d.diag, kiln_wire_offset(&im->d.wire, sub.p));
            return kiln_fail(im->d.diag, KILN_F_FUNCTION, "two functions have the name \"%.*s\"",
                             (int)f->pb.name.n, f->pb.name.n ? f->pb.name.p : "");
        }
        KILN_TRY(kiln_names_put(&im->function_names, key, f));
    }
    im->n_functions = model->n_functions;
    return measure(im, &model->graph);
}

/* ---- Inlining ---- */

/* The attributes of the call, then the function's defaults for those it lacks. */
static kiln_status bind_attributes(kiln_importer *im, const kiln_frame *caller,
                                   const kiln_source *s, const kiln_local_function *f,
                                   kiln_frame *frame) {
    kiln_source_attr *b;
    kiln_msg at = f->pb.head.self, sub;
    KILN_ALLOC(b, &im->stack, (size_t)s->n_attrs + f->pb.n_attribute_protos);
    int32_t n = s->n_attrs;
    for (int32_t i = 0; i < n; i++) {
        b[i] = s->attrs[i];
    }
    for (size_t k = 0; k < f->pb.n_attribute_protos; k++) {
        kiln_source_attr *d = &b[n];
        bool given = false;
        KILN_TRY(kiln_pb_each(&im->d.wire, &at, KILN_PB_FUNCTION_ATTRIBUTE_PROTO, &sub));
        KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_attribute_desc, &sub, &d->pb));
        for (int32_t i = 0; i < s->n_attrs && !given; i++) {
            given = kiln_view_equal(b[i].pb.name, d->pb.name);
        }
        d->home = caller;
        n += !given;
    }
    frame->bindings = b;
    frame->n_bindings = n;
    return KILN_OK;
}

/* Formal inputs name the caller's values; those left out are known, as nothing. */
static kiln_status bind_inputs(kiln_importer *im, const kiln_source *s,
                               const kiln_local_function *f, kiln_frame *frame) {
    kiln_msg at = f->pb.head.self;
    if ((size_t)s->n_in > f->pb.n_inputs) {
        return kiln_fail(im->d.diag, KILN_F_FUNCTION,
                         "the call has %d inputs, the function takes %zu", s->n_in, f->pb.n_inputs);
    }
    for (size_t i = 0; i < f->pb.n_inputs; i++) {
        kiln_view name;
        KILN_TRY(kiln_pb_each_view(&im->d.wire, &at, KILN_PB_FUNCTION_INPUT, true, &name));
        KILN_TRY(kiln_names_put(&frame->names, name, i < (size_t)s->n_in ? s->in[i] : NULL));
    }
    return KILN_OK;
}

/* Values the caller expects, by the names of the function's outputs. */
static kiln_status bind_outputs(kiln_importer *im, const kiln_source *s,
                                const kiln_local_function *f, kiln_names *results) {
    kiln_msg at = f->pb.head.self;
    if ((size_t)s->n_out > f->pb.n_outputs) {
        return kiln_fail(im->d.diag, KILN_F_FUNCTION,
                         "the call has %d outputs, the function gives %zu", s->n_out,
                         f->pb.n_outputs);
    }
    KILN_TRY(kiln_names_init(results, &im->stack, im->seed, NULL, f->pb.n_outputs));
    for (int32_t i = 0; i < s->n_out; i++) {
        kiln_view name;
        void *item;
        KILN_TRY(kiln_pb_each_view(&im->d.wire, &at, KILN_PB_FUNCTION_OUTPUT, true, &name));
        if (s->out[i] && !kiln_names_find(results, name, &item)) {
            KILN_TRY(kiln_names_put(results, name, s->out[i]));
        }
    }
    return KILN_OK;
}

/* Outputs that no node of the function makes for the caller: an input passed through, or one value
 * returned twice. */
static kiln_status pass_through(kiln_importer *im, kiln_source *s, const kiln_local_function *f,
                                kiln_frame *frame) {
    kiln_msg at = f->pb.head.self;
    for (int32_t i = 0; i < s->n_out; i++) {
        kiln_view name;
        kiln_source id;
        void *item = NULL;
        KILN_TRY(kiln_pb_each_view(&im->d.wire, &at, KILN_PB_FUNCTION_OUTPUT, true, &name));
        if (!s->out[i]) {
            continue;
        }
        if (!kiln_names_find(&frame->names, name, &item) || !item) {
            return kiln_fail(im->d.diag, KILN_F_FUNCTION,
                             "output \"%.*s\" of the function is produced by nothing", (int)name.n,
                             name.p);
        }
        kiln_value *value = item;
        if (value != s->out[i]) {
            KILN_TRY(kiln_source_make(im, s, "Identity", &value, 1, &s->out[i], 1, &id));
            KILN_TRY(kiln_emit(im, frame, &id, NULL));
        }
    }
    return KILN_OK;
}

kiln_status kiln_function_call(kiln_importer *im, kiln_frame *frame, kiln_source *s,
                               const kiln_local_function *f) {
    kiln_frame *call;
    kiln_names results;
    kiln_opsets *opsets;
    kiln_arena_mark mark = kiln_arena_here(&im->stack);
    KILN_ALLOC(call, &im->stack, 1);
    KILN_ALLOC(opsets, &im->stack, 1);
    call->below = im->top;
    call->mark = mark;
    call->graph = frame->graph;
    call->opsets = opsets;
    call->in_function = true;
    call->nested_graphs = frame->nested_graphs;
    call->calls = frame->calls + 1;
    call->prefix = strlen(s->name) < MAX_PREFIX
                       ? kiln_arena_printf(&im->stack, "%s/", s->name)
                       : kiln_arena_printf(&im->stack, "%u/", ++im->renamed);
    if (!call->prefix) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(kiln_import_opsets(im, &im->stack, &f->pb.head.self, KILN_PB_FUNCTION_OPSET_IMPORT,
                                f->pb.n_opset_imports, opsets));
    KILN_TRY(bind_attributes(im, frame, s, f, call));
    KILN_TRY(
        kiln_names_init(&call->names, &im->stack, im->seed, NULL, f->pb.n_nodes + f->pb.n_inputs));
    KILN_TRY(bind_inputs(im, s, f, call));
    KILN_TRY(bind_outputs(im, s, f, &results));
    call->at = f->pb.head.self;
    call->node_field = KILN_PB_FUNCTION_NODE;
    im->top = call;
    im->out->n_functions_inlined++;
    KILN_TRY(kiln_import_declare(im, call, &results));
    return pass_through(im, s, f, call);
}
