/* context.c - an engine in use: inputs bound by name, runs, outputs. */
#include <pthread.h>
#include <string.h>

#include "base/diag.h"
#include "base/env.h"
#include "base/host.h"
#include "base/options.h"
#include "engine/engine.h"
#include "exec/exec.h"

typedef struct async_run {
    pthread_t thread;
    bool started;
    kiln_status status;
    kiln_diag *diag;
} async_run;

struct kiln_context {
    const kiln_engine *engine;
    const kiln_env *env;
    kiln_arena arena;
    kiln_pool *own_pool;
    kiln_exec *exec;
    kiln_datum *inputs; /* per graph input; kind NONE until bound */
    kiln_datum *held;   /* per graph input: what it holds when it is an optional */
    kiln_arena *items;  /* per graph input: of the sequence bound now */
    kiln_output_alloc_fn alloc;
    void *alloc_user;
    kiln_tensor *outputs; /* what output_item returns */
    bool ran;
    kiln_tap tap;
    async_run async;
};

static kiln_status open_pool(kiln_context *c, const kiln_context_options *o, kiln_pool **out,
                             kiln_diag *diag) {
    if (o->pool) {
        *out = o->pool;
        return KILN_OK;
    }
    kiln_pool_options p = {.size = sizeof p, .threads = o->threads};
    if (o->threads == 1) {
        *out = NULL;
        return KILN_OK;
    }
    KILN_TRY(kiln_pool_create(&c->own_pool, c->env, &p));
    int32_t got = kiln_pool_threads(c->own_pool);
    int32_t wanted = o->threads > 0 ? o->threads : kiln_host_cores();
    if (got < wanted) {
        kiln_warn(diag, KILN_F_RUN_LIMIT, "only %d of %d threads could be started", got, wanted);
        kiln_hint(diag, KILN_OK,
                  "a limit of the system or too little memory; results are the same");
    }
    *out = c->own_pool;
    return KILN_OK;
}

/* Binds the profile's largest shapes, which makes the buffers as large as they need. */
static kiln_status make_room(kiln_context *c, kiln_diag *diag) {
    const kiln_graph *g = c->engine->graph;
    for (size_t i = 0; i < g->n_inputs; i++) {
        kiln_profile_largest(&c->engine->profile[i], g->inputs[i], &c->inputs[i]);
    }
    kiln_diag_enter(diag, "making room for the profile's max");
    kiln_status status = kiln_exec_bind(c->exec, c->inputs, diag);
    kiln_diag_leave(diag);
    memset(c->inputs, 0, g->n_inputs * sizeof *c->inputs);
    return status;
}

static kiln_status fill(kiln_context *c, const kiln_context_options *given, kiln_diag *diag) {
    kiln_context_options o;
    if (kiln_options_read(&o, sizeof o, given) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "the context options have no size, or unknown fields");
    }
    const kiln_graph *g = c->engine->graph;
    if (!c->engine->plan) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "the engine was built with canonical_only and cannot run");
    }
    KILN_ALLOC(c->inputs, &c->arena, g->n_inputs);
    KILN_ALLOC(c->held, &c->arena, g->n_inputs);
    KILN_ALLOC(c->items, &c->arena, g->n_inputs);
    for (size_t i = 0; i < g->n_inputs; i++) {
        kiln_arena_init(&c->items[i], c->env);
    }
    KILN_ALLOC(c->outputs, &c->arena, g->n_outputs);
    kiln_exec_options x = {
        .env = c->env, .threads = o.threads, .seed = o.seed ? o.seed : 1, .regions = o.regions};
    if ((unsigned)o.regions > KILN_REGIONS_CHECKED) {
        return kiln_fail(diag, KILN_F_OPTION, "there is no way %d to compute regions",
                         (int)o.regions);
    }
    KILN_TRY(open_pool(c, &o, &x.pool, diag));
    KILN_TRY(kiln_exec_create(&c->exec, c->engine->plan, &c->engine->target, &x, diag));
    return c->engine->profile ? make_room(c, diag) : KILN_OK;
}

kiln_status kiln_context_create(kiln_context **out, const kiln_engine *engine,
                                const kiln_context_options *options, kiln_diag *diag) {
    kiln_context *c = kiln_env_alloc(engine->env, sizeof *c);
    if (!c) {
        return kiln_diag_close(diag, KILN_E_MEMORY);
    }
    memset(c, 0, sizeof *c);
    c->engine = engine;
    c->env = engine->env;
    kiln_arena_init(&c->arena, c->env);
    kiln_status status = fill(c, options, diag);
    if (status != KILN_OK) {
        kiln_context_destroy(c);
        return kiln_diag_close(diag, status);
    }
    *out = c;
    return kiln_diag_close(diag, KILN_OK);
}

void kiln_context_destroy(kiln_context *context) {
    if (!context) {
        return;
    }
    kiln_context_wait(context);
    const kiln_env *env = context->env;
    kiln_exec_destroy(context->exec);
    kiln_pool_destroy(context->own_pool);
    for (size_t i = 0; context->items && i < context->engine->graph->n_inputs; i++) {
        kiln_arena_free(&context->items[i]);
    }
    kiln_arena_free(&context->arena);
    kiln_env_release(env, context, sizeof *context);
}

/* ---- Binding ---- */

static int64_t find(kiln_value *const *values, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(values[i]->name, name) == 0) {
            return (int64_t)i;
        }
    }
    return -1;
}

static kiln_status find_input(const kiln_context *c, const char *name, size_t *out,
                              kiln_diag *diag) {
    const kiln_graph *g = c->engine->graph;
    int64_t i = name ? find(g->inputs, g->n_inputs, name) : -1;
    if (i < 0) {
        return kiln_fail(diag, KILN_F_RUN_INPUT, "there is no input \"%s\"", name ? name : "");
    }
    *out = (size_t)i;
    return KILN_OK;
}

static kiln_status check_tensor(const char *name, const kiln_type *type,
                                const kiln_shape_range *range, const kiln_tensor *t,
                                kiln_diag *diag) {
    if (!t || t->rank < 0 || t->rank > KILN_MAX_RANK || kiln_tensor_count(t) < 0) {
        return kiln_fail(diag, KILN_F_RUN_SHAPE, "input \"%s\": the tensor's dims are impossible",
                         name);
    }
    if (type->dtype != t->dtype && type->dtype != KILN_DTYPE_NONE) {
        return kiln_fail(diag, KILN_F_RUN_DTYPE, "input \"%s\" is %s, the model takes %s", name,
                         kiln_dtype_name(t->dtype), kiln_dtype_name(type->dtype));
    }
    if (type->rank >= 0 && type->rank != t->rank) {
        return kiln_fail(diag, KILN_F_RUN_SHAPE, "input \"%s\" has rank %d, the model takes %d",
                         name, t->rank, type->rank);
    }
    if (range && range->name) {
        KILN_TRY(kiln_profile_check(range, t, diag));
    }
    for (int32_t d = 0; d < type->rank; d++) {
        if (kiln_dim_known(type->dims[d]) && type->dims[d] != t->dims[d]) {
            return kiln_hint(diag,
                             kiln_fail(diag, KILN_F_RUN_SHAPE,
                                       "input \"%s\" has dim %d = %lld, the model takes %lld", name,
                                       d, (long long)t->dims[d], (long long)type->dims[d]),
                             "build with --override-shape %s:... for another fixed shape", name);
        }
    }
    if (!t->data || t->cap_bytes < kiln_tensor_bytes(t)) {
        return kiln_fail(diag, KILN_F_RUN_BUFFER, "input \"%s\": the buffer holds %zu bytes of %zu",
                         name, t->data ? t->cap_bytes : 0, kiln_tensor_bytes(t));
    }
    return KILN_OK;
}

static void set_input(kiln_context *c, size_t i, const kiln_datum *d) {
    c->inputs[i] = *d;
    if (c->engine->graph->inputs[i]->type.kind == KILN_KIND_OPTIONAL) {
        c->held[i] = *d;
        c->inputs[i] = (kiln_datum){.kind = KILN_KIND_OPTIONAL, .items = &c->held[i], .n_items = 1};
    }
}

kiln_status kiln_context_bind(kiln_context *context, const char *name, const kiln_tensor *tensor,
                              kiln_diag *diag) {
    size_t i;
    KILN_TRY(find_input(context, name, &i, diag));
    const kiln_type *type = &context->engine->graph->inputs[i]->type;
    if (type->kind == KILN_KIND_OPTIONAL && type->elem) {
        type = type->elem;
    }
    if (type->kind != KILN_KIND_TENSOR) {
        return kiln_fail(diag, KILN_F_RUN_INPUT, "input \"%s\" is a sequence, not a tensor", name);
    }
    const kiln_shape_range *profile = context->engine->profile;
    KILN_TRY(check_tensor(name, type, profile ? &profile[i] : NULL, tensor, diag));
    kiln_datum d = {.kind = KILN_KIND_TENSOR, .tensor = *tensor};
    set_input(context, i, &d);
    return KILN_OK;
}

/* The items of input i, once all are known to be right: a sequence that is refused leaves the one
 * bound before. */
static kiln_status copy_items(kiln_context *c, size_t i, const kiln_tensor *items, size_t n,
                              kiln_datum *out) {
    kiln_datum *list;
    kiln_arena_recycle(&c->items[i]);
    c->inputs[i] = (kiln_datum){0};
    KILN_ALLOC(list, &c->items[i], n);
    for (size_t k = 0; k < n; k++) {
        list[k] = (kiln_datum){.kind = KILN_KIND_TENSOR, .tensor = items[k]};
    }
    *out = (kiln_datum){.kind = KILN_KIND_SEQUENCE, .items = list, .n_items = (int64_t)n};
    return KILN_OK;
}

kiln_status kiln_context_bind_sequence(kiln_context *context, const char *name,
                                       const kiln_tensor *items, size_t n, kiln_diag *diag) {
    size_t i;
    KILN_TRY(find_input(context, name, &i, diag));
    const kiln_type *type = &context->engine->graph->inputs[i]->type;
    bool optional = type->kind == KILN_KIND_OPTIONAL;
    if (optional && n == 0) {
        context->inputs[i] = (kiln_datum){.kind = KILN_KIND_OPTIONAL};
        return KILN_OK;
    }
    type = optional && type->elem ? type->elem : type;
    if (type->kind != KILN_KIND_SEQUENCE || !type->elem) {
        return kiln_fail(diag, KILN_F_RUN_INPUT, "input \"%s\" is a tensor, not a sequence", name);
    }
    for (size_t k = 0; k < n; k++) {
        KILN_TRY(check_tensor(name, type->elem, NULL, items ? &items[k] : NULL, diag));
    }
    kiln_datum d;
    KILN_TRY(kiln_diag_close(diag, copy_items(context, i, items, n, &d)));
    set_input(context, i, &d);
    return KILN_OK;
}

kiln_status kiln_context_bind_output(kiln_context *context, const char *name, void *buffer,
                                     size_t cap_bytes, kiln_diag *diag) {
    const kiln_graph *g = context->engine->graph;
    int64_t i = name ? find(g->outputs, g->n_outputs, name) : -1;
    if (i < 0) {
        return kiln_fail(diag, KILN_F_RUN_INPUT, "there is no output \"%s\"", name ? name : "");
    }
    kiln_exec_set_output(context->exec, (int32_t)i, buffer, cap_bytes);
    return KILN_OK;
}

void kiln_context_set_output_alloc(kiln_context *context, kiln_output_alloc_fn alloc, void *user) {
    context->alloc = alloc;
    context->alloc_user = user;
}

/* ---- Running ---- */

static kiln_status check_inputs(const kiln_context *c, kiln_diag *diag) {
    const kiln_graph *g = c->engine->graph;
    for (size_t i = 0; i < g->n_inputs; i++) {
        if (c->inputs[i].kind == KILN_KIND_NONE) {
            return kiln_fail(diag, KILN_F_RUN_INPUT, "input \"%s\" has not been bound",
                             g->inputs[i]->name);
        }
    }
    return KILN_OK;
}

kiln_status kiln_context_prepare(kiln_context *context, kiln_diag *diag) {
    KILN_TRY(check_inputs(context, diag));
    context->ran = false;
    return kiln_diag_close(diag, kiln_exec_bind(context->exec, context->inputs, diag));
}

/* Where the user wants output i, which has `bytes` bytes: a buffer that it fits into, or for a
 * size that only the run knew what his function says. NULL: it stays where it is. */
static void *destination(kiln_context *c, size_t i, size_t bytes) {
    size_t cap;
    void *buffer = kiln_exec_user_output(c->exec, (int32_t)i, &cap);
    if (buffer) {
        return bytes <= cap ? buffer : NULL;
    }
    const kiln_value *v = c->engine->graph->outputs[i];
    return c->alloc && !kiln_type_is_static(&v->type) ? c->alloc(c->alloc_user, v->name, bytes)
                                                      : NULL;
}

/* Outputs that no step could write to their place are copied there: those that the data sizes,
 * inputs and constants that are outputs as they are. */
static void hand_over(kiln_context *c) {
    for (size_t i = 0; i < c->engine->graph->n_outputs; i++) {
        const kiln_datum *d = kiln_exec_output(c->exec, (int32_t)i);
        c->outputs[i] = d->tensor;
        if (d->kind != KILN_KIND_TENSOR) {
            continue;
        }
        size_t bytes = kiln_tensor_bytes(&d->tensor);
        void *to = destination(c, i, bytes);
        if (to && to != d->tensor.data) {
            memmove(to, d->tensor.data, bytes);
            c->outputs[i].data = to;
            c->outputs[i].cap_bytes = bytes;
        }
    }
}

static kiln_status run(kiln_context *context, kiln_diag *diag) {
    KILN_TRY(check_inputs(context, diag));
    context->ran = false;
    kiln_status status = kiln_exec_run(context->exec, context->inputs, diag);
    if (status == KILN_OK) {
        hand_over(context);
        context->ran = true;
    }
    return kiln_diag_close(diag, status);
}

static kiln_status check_idle(const kiln_context *c, kiln_diag *diag) {
    return c->async.started
               ? kiln_fail(diag, KILN_F_OPTION, "a run is under way; wait for it first")
               : KILN_OK;
}

kiln_status kiln_context_run(kiln_context *context, kiln_diag *diag) {
    KILN_TRY(check_idle(context, diag));
    kiln_exec_allow(context->exec);
    return run(context, diag);
}

static void *run_async(void *arg) {
    kiln_context *c = arg;
    c->async.status = run(c, c->async.diag);
    return NULL;
}

kiln_status kiln_context_run_async(kiln_context *context, kiln_diag *diag) {
    KILN_TRY(check_idle(context, diag));
    kiln_exec_allow(context->exec);
    context->async.diag = diag;
    if (pthread_create(&context->async.thread, NULL, run_async, context) != 0) {
        return kiln_fail(diag, KILN_F_MEMORY, "no thread could be started for the run");
    }
    context->async.started = true;
    return KILN_OK;
}

kiln_status kiln_context_wait(kiln_context *context) {
    if (!context->async.started) {
        return KILN_OK;
    }
    pthread_join(context->async.thread, NULL);
    context->async.started = false;
    return context->async.status;
}

void kiln_context_cancel(kiln_context *context) {
    kiln_exec_cancel(context->exec);
}

/* ---- Outputs ---- */

static const kiln_datum *output(const kiln_context *c, size_t i) {
    if (!c->ran || i >= c->engine->graph->n_outputs) {
        return NULL;
    }
    const kiln_datum *d = kiln_exec_output(c->exec, (int32_t)i);
    return d->kind == KILN_KIND_OPTIONAL && d->n_items > 0 ? &d->items[0] : d;
}

size_t kiln_context_output_items(const kiln_context *context, size_t i) {
    const kiln_datum *d = output(context, i);
    if (!d || d->kind == KILN_KIND_NONE || d->kind == KILN_KIND_OPTIONAL) {
        return 0;
    }
    return d->kind == KILN_KIND_SEQUENCE ? (size_t)d->n_items : 1;
}

const kiln_tensor *kiln_context_output_item(const kiln_context *context, size_t i, size_t k) {
    if (k >= kiln_context_output_items(context, i)) {
        return NULL;
    }
    const kiln_datum *d = output(context, i);
    if (d->kind == KILN_KIND_SEQUENCE) {
        return &d->items[k].tensor;
    }
    bool direct = kiln_exec_output(context->exec, (int32_t)i) == d;
    return direct ? &context->outputs[i] : &d->tensor;
}

const kiln_tensor *kiln_context_output(const kiln_context *context, size_t i) {
    return kiln_context_output_item(context, i, 0);
}

/* ---- Looking inside ---- */

static bool tap_wants(void *user, const kiln_value *value) {
    const kiln_context *c = user;
    return c->tap.wants(c->tap.user, value->name);
}

static kiln_status tap_see(void *user, const kiln_value *value, const kiln_datum *datum,
                           bool replayed) {
    const kiln_context *c = user;
    if (datum->kind != KILN_KIND_TENSOR) {
        return KILN_OK;
    }
    const char *node = value->producer ? value->producer->name : "";
    return c->tap.see(c->tap.user, value->name, node, &datum->tensor, replayed);
}

void kiln_context_set_tap(kiln_context *context, const kiln_tap *tap) {
    if (!tap) {
        kiln_exec_set_taps(context->exec, NULL);
        return;
    }
    context->tap = *tap;
    kiln_taps taps = {.wants = tap_wants, .see = tap_see, .user = context};
    kiln_exec_set_taps(context->exec, &taps);
}

void kiln_context_set_profile(kiln_context *context, bool on) {
    kiln_exec_set_profile(context->exec, on);
}

bool kiln_context_profile(const kiln_context *context, size_t layer, int64_t *t_ns, int64_t *runs) {
    return kiln_exec_profile(context->exec, layer, t_ns, runs);
}

bool kiln_context_profile_inner(const kiln_context *context, size_t layer, int64_t *t_ns,
                                int64_t *runs) {
    return kiln_exec_profile_inner(context->exec, layer, t_ns, runs);
}

void kiln_context_profile_total(const kiln_context *context, int64_t *t_ns, int64_t *runs) {
    kiln_exec_profile_total(context->exec, t_ns, runs);
}

size_t kiln_context_memory(const kiln_context *context, size_t *scratch_bytes) {
    return kiln_exec_memory(context->exec, scratch_bytes);
}
