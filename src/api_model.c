/* api_model.c - models: import, shape overrides, inference, and what is known of the result. */
#include <stdatomic.h>
#include <string.h>

#include "api.h"
#include "base/diag.h"
#include "base/env.h"
#include "base/options.h"
#include "ops/cost.h"
#include "ops/ops.h"

struct kiln_hold {
    atomic_int count;
    const kiln_env *env;
    kiln_arena arena;
    kiln_files files;
    kiln_hold *parent; /* kept for its files and constants, or NULL */
};

kiln_status kiln_hold_new(kiln_hold **out, const kiln_env *env) {
    kiln_hold *h = kiln_env_alloc(env, sizeof *h);
    if (!h) {
        return KILN_E_MEMORY;
    }
    memset(h, 0, sizeof *h);
    atomic_init(&h->count, 1);
    h->env = env;
    kiln_arena_init(&h->arena, env);
    *out = h;
    return KILN_OK;
}

kiln_hold *kiln_hold_take(kiln_hold *hold) {
    if (hold) {
        atomic_fetch_add(&hold->count, 1);
    }
    return hold;
}

void kiln_hold_drop(kiln_hold *hold) {
    while (hold && atomic_fetch_sub(&hold->count, 1) == 1) {
        const kiln_env *env = hold->env;
        kiln_hold *parent = hold->parent;
        for (size_t i = 0; i < hold->files.count; i++) {
            kiln_file_close(hold->files.items[i]);
        }
        kiln_arena_free(&hold->arena);
        kiln_env_release(env, hold, sizeof *hold);
        hold = parent;
    }
}

void kiln_hold_rest(const kiln_hold *hold) {
    for (; hold; hold = hold->parent) {
        for (size_t i = 0; i < hold->files.count; i++) {
            kiln_file_rest(hold->files.items[i]);
        }
    }
}

void kiln_hold_keep(kiln_hold *hold, kiln_hold *parent) {
    hold->parent = kiln_hold_take(parent);
}

kiln_arena *kiln_hold_arena(kiln_hold *hold) {
    return &hold->arena;
}

kiln_files *kiln_hold_files(kiln_hold *hold) {
    return &hold->files;
}

static kiln_value *find_input(const kiln_graph *g, const char *name) {
    for (size_t i = 0; i < g->n_inputs; i++) {
        if (strcmp(g->inputs[i]->name, name) == 0) {
            return g->inputs[i];
        }
    }
    return NULL;
}

static kiln_status override_shape(kiln_graph *g, const kiln_shape *s, kiln_diag *diag) {
    if (!s->name || s->rank < 0 || s->rank > KILN_MAX_RANK) {
        return kiln_fail(diag, KILN_F_OPTION, "a shape has no name, or its rank %d is impossible",
                         s->rank);
    }
    kiln_value *v = find_input(g, s->name);
    if (!v || v->type.kind != KILN_KIND_TENSOR) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "the model has no tensor input \"%s\" to give a shape", s->name);
    }
    if (v->type.rank >= 0 && v->type.rank != s->rank) {
        return kiln_fail(diag, KILN_F_OPTION, "input \"%s\" has rank %d, the shape given has %d",
                         s->name, v->type.rank, s->rank);
    }
    kiln_dim *dims;
    KILN_ALLOC(dims, g->arena, s->rank);
    for (int32_t d = 0; d < s->rank; d++) {
        dims[d] = s->dims[d];
        if (s->dims[d] < 0) {
            const char *symbol = kiln_arena_printf(g->arena, "%s_d%d", s->name, d);
            bool keep = v->type.rank >= 0 && !kiln_dim_known(v->type.dims[d]);
            if (!symbol) {
                return KILN_E_MEMORY;
            }
            dims[d] = keep ? v->type.dims[d] : kiln_dim_symbol(g->dims, symbol);
        }
    }
    v->type.rank = s->rank;
    v->type.dims = dims;
    return KILN_OK;
}

/* Distinct operators and constants of the graph and its bodies. `seen` is indexed by value id. */
static kiln_status survey(kiln_model *m, const kiln_graph *g, bool *seen) {
    size_t cap = kiln_op_count();
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kiln_node *n = g->nodes[i];
        size_t k = 0;
        while (k < m->n_ops && m->ops[k] != n->op) {
            k++;
        }
        if (k == m->n_ops && k < cap) {
            m->ops[m->n_ops++] = n->op;
        }
        m->op_counts[k]++;
        for (int32_t j = 0; j < n->n_in; j++) {
            const kiln_value *v = n->in[j];
            if (v && v->constant && !seen[v->id]) {
                seen[v->id] = true;
                m->info.parameters += (size_t)kiln_tensor_count(&v->constant->tensor);
                m->info.parameter_bytes += kiln_tensor_bytes(&v->constant->tensor);
            }
        }
        for (int32_t b = 0; b < n->n_bodies; b++) {
            KILN_TRY(survey(m, n->bodies[b], seen));
        }
    }
    return KILN_OK;
}

static kiln_status describe(kiln_model *m) {
    kiln_arena *arena = &m->hold->arena;
    const kiln_graph *g = m->import.graph;
    bool *seen;
    KILN_ALLOC(m->ops, arena, kiln_op_count());
    KILN_ALLOC(m->op_counts, arena, kiln_op_count());
    KILN_ALLOC(seen, arena, g->n_values);
    m->info.ir_version = m->import.ir_version;
    m->info.opset = m->import.opset;
    m->info.producer = m->import.producer;
    m->info.graph_name = m->import.graph_name;
    m->info.nodes = kiln_graph_count(g);
    m->info.functions_inlined = m->import.n_functions_inlined;
    m->info.nodes_upgraded = m->import.n_upgraded;
    for (int i = 0; i < 16; i++) {
        static const char digits[] = "0123456789abcdef";
        m->info.hash[2 * i] = digits[m->import.hash[i] >> 4];
        m->info.hash[2 * i + 1] = digits[m->import.hash[i] & 15];
    }
    KILN_TRY(survey(m, g, seen));
    m->info.macs = kiln_graph_macs(g);
    return kiln_ios_make(&m->ios, g);
}

kiln_status kiln_model_complete(kiln_model *m, kiln_diag *diag) {
    KILN_TRY(kiln_infer_graph(m->import.graph, diag));
    KILN_TRY(describe(m));
    return m->import.graph->dims->oom ? KILN_E_MEMORY : KILN_OK;
}

typedef struct source {
    const char *path;
    const void *bytes;
    size_t len;
} source;

static kiln_status fill(kiln_model *m, const source *src, const kiln_model_options *options,
                        kiln_diag *diag) {
    kiln_import_options import = {.external_root = options->external_root,
                                  .no_mmap = options->no_mmap,
                                  .verify_checksums = options->verify_checksums};
    kiln_arena *arena = &m->hold->arena;
    if (src->path) {
        KILN_TRY(
            kiln_import_file(&m->import, src->path, &import, arena, &m->hold->files, m->env, diag));
    } else {
        KILN_TRY(kiln_import_memory(&m->import, src->bytes, src->len, &import, arena,
                                    &m->hold->files, m->env, diag));
    }
    for (size_t i = 0; i < options->n_overrides; i++) {
        KILN_TRY(override_shape(m->import.graph, &options->overrides[i], diag));
    }
    return kiln_model_complete(m, diag);
}

static kiln_status load(kiln_model **out, const kiln_env *env, const source *src,
                        const kiln_model_options *given, kiln_diag *diag) {
    kiln_model_options o;
    if (kiln_options_read(&o, sizeof o, given) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION, "the model options have no size, or unknown fields");
    }
    if (!src->path && !src->bytes) {
        return kiln_fail(diag, KILN_F_OPTION, "there is no model to load: path or bytes are NULL");
    }
    kiln_model *m = kiln_env_alloc(env, sizeof *m);
    if (!m) {
        return kiln_diag_close(diag, KILN_E_MEMORY);
    }
    memset(m, 0, sizeof *m);
    m->env = env;
    kiln_status status = kiln_hold_new(&m->hold, env);
    if (status == KILN_OK) {
        kiln_diag_at_file(diag, src->path);
        status = fill(m, src, &o, diag);
        kiln_diag_at_file(diag, NULL);
        kiln_diag_at_node(diag, NULL, NULL);
        kiln_diag_at_offset(diag, -1);
    }
    if (status != KILN_OK) {
        kiln_model_destroy(m);
        return kiln_diag_close(diag, status);
    }
    *out = m;
    return KILN_OK;
}

kiln_status kiln_model_load(kiln_model **out, const kiln_env *env, const char *path,
                            const kiln_model_options *options, kiln_diag *diag) {
    source src = {.path = path};
    return load(out, env, &src, options, diag);
}

kiln_status kiln_model_load_memory(kiln_model **out, const kiln_env *env, const void *bytes,
                                   size_t len, const kiln_model_options *options, kiln_diag *diag) {
    source src = {.bytes = bytes, .len = len};
    return load(out, env, &src, options, diag);
}

void kiln_model_destroy(kiln_model *model) {
    if (model) {
        kiln_hold_drop(model->hold);
        kiln_env_release(model->env, model, sizeof *model);
    }
}

bool kiln_model_input(const kiln_model *model, size_t i, kiln_io *out) {
    return kiln_ios_get(model->ios.in, model->ios.n_in, i, out);
}

bool kiln_model_output(const kiln_model *model, size_t i, kiln_io *out) {
    return kiln_ios_get(model->ios.out, model->ios.n_out, i, out);
}

void kiln_model_get_info(const kiln_model *model, kiln_model_info *out) {
    *out = model->info;
}

bool kiln_model_op(const kiln_model *model, size_t i, const char **name, const char **domain,
                   size_t *count) {
    if (i >= model->n_ops) {
        return false;
    }
    *name = model->ops[i]->name;
    *domain = model->ops[i]->domain;
    *count = model->op_counts[i];
    return true;
}
