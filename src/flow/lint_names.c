/* lint_names.c - lint over the names of a file (lint.h).
 *
 * Definitions (inputs, initializers, outputs of nodes) and uses of the main graph and all bodies
 * are listed, then matched by name in one scope: sibling bodies may use a name twice, and counting
 * a use for both only makes the lint milder. Functions have scopes of their own and are left to
 * the importer. */
#include <inttypes.h>
#include <string.h>

#include "base/env.h"
#include "base/hash.h"
#include "flow/lint.h"
#include "onnx/names.h"
#include "onnx/proto.h"

enum { OLD_OPSET = 7, SHOWN_NAME = 200 };

/* Fields of one file that may be visited. */
static const uint64_t budget = 400u << 20;

typedef enum def_kind { DEF_INPUT, DEF_INITIALIZER, DEF_OUTPUT } def_kind;

typedef struct def {
    kiln_view name;
    def_kind kind;
    bool used; /* of the first definition of a name */
    uint32_t graph;
    int64_t offset;
} def;

typedef struct use {
    kiln_view name;
    int64_t offset;
    size_t node; /* index + 1; 0: an output of the graph */
} use;

typedef struct node {
    kiln_view name, op;
    int64_t offset;
    size_t first, count; /* of defs */
} node;

typedef struct lint {
    kiln_wire wire;
    kiln_arena arena;
    kiln_diag *diag;
    kiln_msg *graphs; /* to be walked */
    size_t n_graphs, cap_graphs;
    def *defs;
    size_t n_defs, cap_defs;
    use *uses;
    size_t n_uses, cap_uses;
    node *nodes;
    size_t n_nodes, cap_nodes;
    kiln_names names;     /* -> the first def of a name */
    kiln_rule outside;    /* external data */
    size_t findings_were; /* before this lint */
} lint;

static int shown(kiln_view v) {
    return v.n < SHOWN_NAME ? (int)v.n : SHOWN_NAME;
}

static int64_t place(const lint *l, const kiln_msg *msg) {
    return kiln_wire_offset(&l->wire, msg->p);
}

/* ---- Listing ---- */

static kiln_status add_def(lint *l, kiln_view name, def_kind kind, uint32_t graph, int64_t offset) {
    def d = {.name = name, .kind = kind, .graph = graph, .offset = offset};
    KILN_PUSH(&l->arena, l->defs, l->n_defs, l->cap_defs, d);
    return KILN_OK;
}

static kiln_status add_use(lint *l, kiln_view name, int64_t offset, size_t user) {
    use u = {name, offset, user};
    if (name.n > 0) {
        KILN_PUSH(&l->arena, l->uses, l->n_uses, l->cap_uses, u);
    }
    return KILN_OK;
}

/* Value infos of a graph: its inputs are definitions, its outputs uses. */
static kiln_status list_infos(lint *l, const kiln_msg *graph, uint32_t field, uint32_t number) {
    kiln_msg at = *graph, msg;
    for (;;) {
        kiln_pb_value_info info;
        KILN_TRY(kiln_pb_each(&l->wire, &at, field, &msg));
        if (!msg.p) {
            return KILN_OK;
        }
        KILN_TRY(kiln_pb_decode(&l->wire, &kiln_pb_value_info_desc, &msg, &info));
        KILN_TRY(field == KILN_PB_GRAPH_INPUT
                     ? add_def(l, info.name, DEF_INPUT, number, place(l, &msg))
                     : add_use(l, info.name, place(l, &msg), 0));
    }
}

static bool leaves_folder(kiln_view path) {
    if (path.n > 0 && path.p[0] == '/') {
        return true;
    }
    for (size_t i = 0; i + 1 < path.n; i++) {
        bool begins = i == 0 || path.p[i - 1] == '/';
        bool ends = i + 2 == path.n || path.p[i + 2] == '/';
        if (begins && ends && path.p[i] == '.' && path.p[i + 1] == '.') {
            return true;
        }
    }
    return false;
}

/* Whether the importer has said something about these bytes. */
static bool is_reported(const lint *l, const kiln_msg *msg) {
    int64_t first = place(l, msg), last = first + (msg->end - msg->p);
    for (size_t i = 0; i < l->findings_were; i++) {
        const kiln_finding *f = kiln_diag_get(l->diag, i);
        if (f->severity == KILN_SEV_ERROR && f->offset >= first && f->offset < last) {
            return true;
        }
    }
    return false;
}

/* The importer stops at the first such tensor; here all are listed. */
static kiln_status check_external(lint *l, const kiln_pb_tensor *t) {
    kiln_msg at = t->head.self, msg;
    for (;;) {
        kiln_pb_entry entry;
        KILN_TRY(kiln_pb_each(&l->wire, &at, KILN_PB_TENSOR_EXTERNAL_DATA, &msg));
        if (!msg.p) {
            return KILN_OK;
        }
        KILN_TRY(kiln_pb_decode(&l->wire, &kiln_pb_entry_desc, &msg, &entry));
        if (kiln_view_is(entry.key, "location") && leaves_folder(entry.value) &&
            !is_reported(l, &t->head.self) && kiln_rule_reports(&l->outside)) {
            kiln_diag_at_offset(l->diag, place(l, &t->head.self));
            kiln_fail(
                l->diag, KILN_F_EXTERNAL_PATH,
                "initializer \"%.*s\" has its data in \"%.*s\", outside of the model's folder",
                shown(t->name), t->name.p ? t->name.p : "", shown(entry.value), entry.value.p);
        }
    }
}

static kiln_status list_initializers(lint *l, const kiln_msg *graph, uint32_t number) {
    kiln_msg at = *graph, msg;
    for (;;) {
        kiln_pb_tensor t;
        KILN_TRY(kiln_pb_each(&l->wire, &at, KILN_PB_GRAPH_INITIALIZER, &msg));
        if (!msg.p) {
            return KILN_OK;
        }
        KILN_TRY(kiln_pb_decode(&l->wire, &kiln_pb_tensor_desc, &msg, &t));
        KILN_TRY(add_def(l, t.name, DEF_INITIALIZER, number, place(l, &msg)));
        if (t.n_external > 0) {
            KILN_TRY(check_external(l, &t));
        }
    }
}

static kiln_status push_bodies(lint *l, const kiln_msg *self) {
    kiln_msg at = *self, msg;
    for (;;) {
        kiln_pb_attribute a;
        KILN_TRY(kiln_pb_each(&l->wire, &at, KILN_PB_NODE_ATTRIBUTE, &msg));
        if (!msg.p) {
            return KILN_OK;
        }
        KILN_TRY(kiln_pb_decode(&l->wire, &kiln_pb_attribute_desc, &msg, &a));
        if (a.g.p) {
            KILN_PUSH(&l->arena, l->graphs, l->n_graphs, l->cap_graphs, a.g);
        }
    }
}

/* The inputs of a node are uses, its outputs definitions. */
static kiln_status list_edges(lint *l, const kiln_msg *self, node *n, uint32_t number) {
    kiln_msg at = *self;
    kiln_view name;
    for (;;) {
        KILN_TRY(kiln_pb_each_view(&l->wire, &at, KILN_PB_NODE_INPUT, true, &name));
        if (!name.p) {
            break;
        }
        KILN_TRY(add_use(l, name, n->offset, l->n_nodes + 1));
    }
    at = *self;
    n->first = l->n_defs;
    for (;;) {
        KILN_TRY(kiln_pb_each_view(&l->wire, &at, KILN_PB_NODE_OUTPUT, true, &name));
        if (!name.p) {
            break;
        }
        if (name.n > 0) {
            KILN_TRY(add_def(l, name, DEF_OUTPUT, number, n->offset));
        }
    }
    n->count = l->n_defs - n->first;
    return KILN_OK;
}

static kiln_status list_nodes(lint *l, const kiln_msg *graph, uint32_t number) {
    kiln_msg at = *graph, msg;
    for (;;) {
        kiln_pb_node pb;
        KILN_TRY(kiln_pb_each(&l->wire, &at, KILN_PB_GRAPH_NODE, &msg));
        if (!msg.p) {
            return KILN_OK;
        }
        KILN_TRY(kiln_pb_decode(&l->wire, &kiln_pb_node_desc, &msg, &pb));
        node n = {.name = pb.name, .op = pb.op_type, .offset = place(l, &msg)};
        KILN_TRY(list_edges(l, &pb.head.self, &n, number));
        KILN_PUSH(&l->arena, l->nodes, l->n_nodes, l->cap_nodes, n);
        KILN_TRY(push_bodies(l, &pb.head.self));
    }
}

static kiln_status list_all(lint *l) {
    for (uint32_t number = 0; l->n_graphs > 0; number++) {
        kiln_msg graph = l->graphs[--l->n_graphs];
        KILN_TRY(list_infos(l, &graph, KILN_PB_GRAPH_INPUT, number));
        KILN_TRY(list_initializers(l, &graph, number));
        KILN_TRY(list_nodes(l, &graph, number));
        KILN_TRY(list_infos(l, &graph, KILN_PB_GRAPH_OUTPUT, number));
    }
    return KILN_OK;
}

/* ---- Matching ---- */

/* Sets the place of the next finding to a node. */
static kiln_status at_node(lint *l, const node *n) {
    const char *name = kiln_arena_text(&l->arena, n->name.p ? n->name.p : "", n->name.n);
    const char *op = kiln_arena_text(&l->arena, n->op.p ? n->op.p : "", n->op.n);
    kiln_diag_at_node(l->diag, name, op);
    kiln_diag_at_offset(l->diag, n->offset);
    return name && op ? KILN_OK : KILN_E_MEMORY;
}

static void at_offset(lint *l, int64_t offset) {
    kiln_diag_at_node(l->diag, NULL, NULL);
    kiln_diag_at_offset(l->diag, offset);
}

static kiln_status index_defs(lint *l) {
    kiln_rule twice = {.what = "names defined twice"};
    size_t overridable = 0;
    for (size_t i = 0; i < l->n_defs; i++) {
        def *d = &l->defs[i];
        void *found;
        if (!kiln_names_find(&l->names, d->name, &found)) {
            KILN_TRY(kiln_names_put(&l->names, d->name, d));
            continue;
        }
        const def *first = found;
        if (first->graph != d->graph) {
            continue;
        }
        if (first->kind == DEF_INPUT && d->kind == DEF_INITIALIZER) {
            overridable++;
        } else if (kiln_rule_reports(&twice)) {
            at_offset(l, d->offset);
            kiln_warn(l->diag, KILN_F_LINT, "\"%.*s\" is defined twice, first at byte %" PRId64,
                      shown(d->name), d->name.p, first->offset);
        }
    }
    at_offset(l, -1);
    kiln_rule_end(&twice, l->diag);
    if (overridable > 0) {
        kiln_note(
            l->diag, KILN_F_LINT,
            "%zu initializer%s also inputs, which a caller could override; taken as constants",
            overridable, overridable == 1 ? " is" : "s are");
    }
    return KILN_OK;
}

static kiln_status match_uses(lint *l) {
    kiln_rule missing = {.what = "names that nothing defines"};
    for (size_t i = 0; i < l->n_uses; i++) {
        const use *u = &l->uses[i];
        void *found;
        if (kiln_names_find(&l->names, u->name, &found)) {
            ((def *)found)->used = true;
            continue;
        }
        kiln_msg here = {l->wire.base + u->offset, l->wire.base + u->offset + 1, 0};
        if (is_reported(l, &here) || !kiln_rule_reports(&missing)) {
            continue;
        }
        at_offset(l, u->offset);
        if (u->node > 0) {
            KILN_TRY(at_node(l, &l->nodes[u->node - 1]));
        }
        kiln_fail(l->diag, KILN_F_GRAPH, "%s \"%.*s\", which nothing defines",
                  u->node > 0 ? "takes" : "the graph gives out", shown(u->name), u->name.p);
    }
    at_offset(l, -1);
    kiln_rule_end(&missing, l->diag);
    return KILN_OK;
}

static bool is_used(const lint *l, const def *d) {
    void *first;
    return kiln_names_find(&l->names, d->name, &first) && ((const def *)first)->used;
}

/* ---- What nothing uses ---- */

static void find_unused(lint *l) {
    kiln_rule inputs = {.what = "unused inputs"}, weights = {.what = "unused initializers"};
    for (size_t i = 0; i < l->n_defs; i++) {
        const def *d = &l->defs[i];
        bool is_input = d->kind == DEF_INPUT;
        if (d->kind == DEF_OUTPUT || (is_input && d->graph > 0) || is_used(l, d) ||
            !kiln_rule_reports(is_input ? &inputs : &weights)) {
            continue;
        }
        at_offset(l, d->offset);
        kiln_warn(l->diag, KILN_F_LINT, "%s \"%.*s\" is not used",
                  is_input ? "input" : "initializer", shown(d->name), d->name.p);
        kiln_hint(l->diag, KILN_OK,
                  is_input ? "callers must bind it all the same"
                           : "`kiln export` writes the model without it");
    }
    at_offset(l, -1);
    kiln_rule_end(&inputs, l->diag);
    kiln_rule_end(&weights, l->diag);
}

static kiln_status find_dangling(lint *l) {
    kiln_rule dangling = {.what = "dangling nodes"}, outputs = {.what = "unused outputs"};
    for (size_t i = 0; i < l->n_nodes; i++) {
        const node *n = &l->nodes[i];
        const def *unused = NULL;
        size_t used = 0;
        for (size_t k = 0; k < n->count; k++) {
            const def *d = &l->defs[n->first + k];
            bool is = is_used(l, d);
            used += is;
            unused = is || unused ? unused : d;
        }
        bool none = n->count > 0 && used == 0;
        if (!unused || !kiln_rule_reports(none ? &dangling : &outputs)) {
            continue;
        }
        KILN_TRY(at_node(l, n));
        if (none) {
            kiln_warn(l->diag, KILN_F_LINT, "nothing uses what the node gives");
            kiln_hint(l->diag, KILN_OK, "it is never run; mark \"%.*s\" as an output or remove it",
                      shown(unused->name), unused->name.p);
        } else {
            kiln_note(l->diag, KILN_F_LINT, "output \"%.*s\" is not used", shown(unused->name),
                      unused->name.p);
        }
    }
    at_offset(l, -1);
    kiln_rule_end(&dangling, l->diag);
    kiln_rule_end(&outputs, l->diag);
    return KILN_OK;
}

static kiln_status find_node_names(lint *l, uint64_t seed) {
    kiln_names seen;
    kiln_rule twice = {.what = "nodes with the name of another"};
    KILN_TRY(kiln_names_init(&seen, &l->arena, seed, NULL, l->n_nodes));
    for (size_t i = 0; i < l->n_nodes; i++) {
        const node *n = &l->nodes[i];
        void *first;
        if (n->name.n == 0) {
            continue;
        }
        if (!kiln_names_find(&seen, n->name, &first)) {
            KILN_TRY(kiln_names_put(&seen, n->name, &l->nodes[i]));
        } else if (kiln_rule_reports(&twice)) {
            KILN_TRY(at_node(l, n));
            kiln_note(l->diag, KILN_F_LINT,
                      "the node at byte %" PRId64 " has the same name: options by name mean both",
                      ((const node *)first)->offset);
        }
    }
    at_offset(l, -1);
    kiln_rule_end(&twice, l->diag);
    return KILN_OK;
}

/* ---- Versions ---- */

static kiln_status check_versions(lint *l, const kiln_pb_model *model) {
    kiln_msg at = model->head.self, msg;
    size_t defaults = 0;
    if (model->ir_version <= 0) {
        kiln_warn(l->diag, KILN_F_LINT, "the file states no IR version");
        kiln_hint(l->diag, KILN_OK, "onnx.checker refuses such files");
    }
    for (;;) {
        kiln_pb_opset_id id;
        KILN_TRY(kiln_pb_each(&l->wire, &at, KILN_PB_MODEL_OPSET_IMPORT, &msg));
        if (!msg.p) {
            break;
        }
        KILN_TRY(kiln_pb_decode(&l->wire, &kiln_pb_opset_id_desc, &msg, &id));
        if (id.domain.n > 0 && !kiln_view_is(id.domain, "ai.onnx")) {
            continue;
        }
        defaults++;
        if (id.version > 0 && id.version < OLD_OPSET) {
            at_offset(l, place(l, &msg));
            kiln_warn(l->diag, KILN_F_LINT,
                      "operator set %" PRId64 " is very old; nodes are read as their modern forms",
                      id.version);
            kiln_hint(l->diag, KILN_OK, "export the model again with operator set 13 or newer");
        }
    }
    at_offset(l, -1);
    if (defaults > 1) {
        kiln_warn(l->diag, KILN_F_LINT, "the default operator set is imported %zu times", defaults);
    }
    return KILN_OK;
}

static kiln_status look(lint *l, size_t len, uint64_t seed) {
    kiln_msg root = {l->wire.base, l->wire.base + len, 0};
    kiln_pb_model model;
    KILN_TRY(kiln_pb_decode(&l->wire, &kiln_pb_model_desc, &root, &model));
    KILN_TRY(check_versions(l, &model));
    if (!model.graph.p) {
        return KILN_OK;
    }
    KILN_PUSH(&l->arena, l->graphs, l->n_graphs, l->cap_graphs, model.graph);
    KILN_TRY(list_all(l));
    at_offset(l, -1);
    kiln_rule_end(&l->outside, l->diag);
    KILN_TRY(kiln_names_init(&l->names, &l->arena, seed, NULL, l->n_defs));
    KILN_TRY(index_defs(l));
    KILN_TRY(match_uses(l));
    find_unused(l);
    KILN_TRY(find_dangling(l));
    return find_node_names(l, seed);
}

kiln_status kiln_lint_names(const void *bytes, size_t len, const kiln_env *env, kiln_diag *diag) {
    const kiln_limits *limits = kiln_env_limits(env);
    lint l = {.wire = {.base = bytes,
                       .budget = budget,
                       .max_depth = limits->message_depth,
                       .max_name = limits->name_bytes,
                       .diag = diag},
              .diag = diag,
              .outside = {.what = "tensors outside of the folder"},
              .findings_were = kiln_diag_count(diag)};
    kiln_arena_init(&l.arena, env);
    kiln_status status = look(&l, len, kiln_hash_64(bytes, len));
    kiln_diag_at_node(diag, NULL, NULL);
    kiln_diag_at_offset(diag, -1);
    kiln_arena_free(&l.arena);
    return status;
}
