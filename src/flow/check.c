/* check.c - linting a model: which operators it uses and what becomes of each.
 *
 * The census walks the file itself, so that it is complete also for a model that cannot be
 * imported. */
#include <string.h>

#include "base/env.h"
#include "base/file.h"
#include "base/options.h"
#include "flow/flow.h"
#include "flow/lint.h"
#include "onnx/proto.h"
#include "onnx/sniff.h"
#include "ops/ops.h"

/* Fields of one file that the census may visit. */
static const uint64_t budget = 100u << 20;

struct kiln_check {
    const kiln_env *env;
    kiln_arena arena;
    kiln_check_op *ops;
    size_t count, cap;
    kiln_status status;
};

typedef struct census {
    kiln_check *c;
    kiln_wire wire;
    kiln_msg *stack; /* messages whose nodes are still to be counted */
    uint32_t *field; /* number of the field that holds nodes, for each */
    size_t depth, cap, cap_field;
} census;

static const char *const support_names[] = {
    [KILN_SUPPORT_NO] = "not supported", [KILN_SUPPORT_FUNCTION] = "function",
    [KILN_SUPPORT_FOLDED] = "folded",    [KILN_SUPPORT_REFERENCE] = "reference",
    [KILN_SUPPORT_KERNEL] = "kernel",    [KILN_SUPPORT_KNOWN] = "known",
};

const char *kiln_support_name(kiln_support support) {
    return (size_t)support < KILN_COUNT_OF(support_names) ? support_names[support] : "?";
}

/* ---- Census ---- */

static kiln_status push(census *s, const kiln_msg *msg, uint32_t field) {
    kiln_arena *arena = &s->c->arena;
    size_t count = s->depth;
    KILN_PUSH(arena, s->stack, s->depth, s->cap, *msg);
    KILN_PUSH(arena, s->field, count, s->cap_field, field);
    return KILN_OK;
}

static kiln_check_op *find_op(kiln_check *c, const char *domain, const char *name) {
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->ops[i].name, name) == 0 && strcmp(c->ops[i].domain, domain) == 0) {
            return &c->ops[i];
        }
    }
    return NULL;
}

static kiln_status intern_op(kiln_check *c, kiln_view domain, kiln_view name, kiln_check_op **out) {
    if (kiln_view_is(domain, "ai.onnx")) {
        domain.n = 0;
    }
    kiln_check_op op = {.domain = kiln_arena_text(&c->arena, domain.p ? domain.p : "", domain.n),
                        .name = kiln_arena_text(&c->arena, name.p ? name.p : "", name.n)};
    op.kernels = "";
    if (!op.domain || !op.name) {
        return KILN_E_MEMORY;
    }
    *out = find_op(c, op.domain, op.name);
    if (!*out) {
        KILN_PUSH(&c->arena, c->ops, c->count, c->cap, op);
        *out = &c->ops[c->count - 1];
    }
    return KILN_OK;
}

/* Bodies of the node's attributes wait on the stack. */
static kiln_status count_bodies(census *s, const kiln_pb_node *node) {
    kiln_msg at = node->head.self, msg;
    for (;;) {
        kiln_pb_attribute a;
        KILN_TRY(kiln_pb_each(&s->wire, &at, KILN_PB_NODE_ATTRIBUTE, &msg));
        if (!msg.p) {
            return KILN_OK;
        }
        KILN_TRY(kiln_pb_decode(&s->wire, &kiln_pb_attribute_desc, &msg, &a));
        if (a.g.p) {
            KILN_TRY(push(s, &a.g, KILN_PB_GRAPH_NODE));
        }
    }
}

static kiln_status count_nodes(census *s, kiln_msg at, uint32_t field) {
    kiln_msg msg;
    for (;;) {
        kiln_pb_node node;
        kiln_check_op *op;
        KILN_TRY(kiln_pb_each(&s->wire, &at, field, &msg));
        if (!msg.p) {
            return KILN_OK;
        }
        KILN_TRY(kiln_pb_decode(&s->wire, &kiln_pb_node_desc, &msg, &node));
        KILN_TRY(intern_op(s->c, node.domain, node.op_type, &op));
        op->count++;
        KILN_TRY(count_bodies(s, &node));
    }
}

static kiln_status start(census *s, const kiln_file *file) {
    kiln_msg root = {file->data, file->data + file->bytes, 0}, msg;
    kiln_pb_model model;
    KILN_TRY(kiln_pb_decode(&s->wire, &kiln_pb_model_desc, &root, &model));
    if (model.graph.p) {
        KILN_TRY(push(s, &model.graph, KILN_PB_GRAPH_NODE));
    }
    kiln_msg at = model.head.self;
    for (;;) {
        kiln_pb_function f;
        KILN_TRY(kiln_pb_each(&s->wire, &at, KILN_PB_MODEL_FUNCTIONS, &msg));
        if (!msg.p) {
            return KILN_OK;
        }
        KILN_TRY(kiln_pb_decode(&s->wire, &kiln_pb_function_desc, &msg, &f));
        KILN_TRY(push(s, &msg, KILN_PB_FUNCTION_NODE));
        kiln_check_op *op;
        KILN_TRY(intern_op(s->c, f.domain, f.name, &op));
        op->support = KILN_SUPPORT_FUNCTION;
    }
}

static kiln_status take_census(kiln_check *c, const kiln_file *file, kiln_diag *diag) {
    const kiln_limits *limits = kiln_env_limits(c->env);
    census s = {.c = c,
                .wire = {.base = file->data,
                         .budget = budget,
                         .max_depth = limits->message_depth,
                         .max_name = limits->name_bytes,
                         .diag = diag}};
    KILN_TRY(start(&s, file));
    while (s.depth > 0) {
        s.depth--;
        KILN_TRY(count_nodes(&s, s.stack[s.depth], s.field[s.depth]));
    }
    return KILN_OK;
}

/* ---- Verdicts ---- */

static bool is_reported(const kiln_diag *diag, size_t from, const char *op) {
    for (size_t i = from; i < kiln_diag_count(diag); i++) {
        const kiln_finding *f = kiln_diag_get(diag, i);
        if (f->status == KILN_E_UNSUPPORTED && f->op && strcmp(f->op, op) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether `op` is one of "Conv+Relu+Add". */
static bool among(const char *ops, const char *op) {
    size_t len = strlen(op);
    for (const char *p = ops; p; p = strchr(p, '+') ? strchr(p, '+') + 1 : NULL) {
        if (strncmp(p, op, len) == 0 && (p[len] == '+' || p[len] == '\0')) {
            return true;
        }
    }
    return false;
}

/* Appends a name to "a, b" unless it is there. */
static kiln_status add_name(const char **list, const char *name, kiln_arena *arena) {
    size_t len = strlen(name);
    for (const char *p = *list; *p; p += strcspn(p, ","), p += strspn(p, ", ")) {
        if (strcspn(p, ",") == len && memcmp(p, name, len) == 0) {
            return KILN_OK;
        }
    }
    *list = **list ? kiln_arena_printf(arena, "%s, %s", *list, name)
                   : kiln_arena_text(arena, name, len);
    return *list ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status judge_built(kiln_check_op *op, const kiln_engine *engine, kiln_arena *arena) {
    kiln_layer l;
    size_t layers = 0;
    for (size_t i = 0; kiln_engine_layer(engine, i, &l); i++) {
        if (l.ops && among(l.ops, op->name)) {
            layers++;
            op->by_reference += strcmp(l.kernel, "reference") == 0;
            KILN_TRY(add_name(&op->kernels, l.kernel, arena));
        }
    }
    op->support = layers == 0            ? KILN_SUPPORT_FOLDED
                  : op->by_reference > 0 ? KILN_SUPPORT_REFERENCE
                                         : KILN_SUPPORT_KERNEL;
    return KILN_OK;
}

static kiln_status judge_ops(kiln_check *c, const kiln_engine *engine, const kiln_diag *diag,
                             size_t from) {
    for (size_t i = 0; i < c->count; i++) {
        kiln_check_op *op = &c->ops[i];
        if (is_reported(diag, from, op->name)) {
            op->support = KILN_SUPPORT_NO;
        } else if (op->support == KILN_SUPPORT_FUNCTION) {
            continue;
        } else if (engine) {
            KILN_TRY(judge_built(op, engine, &c->arena));
        } else {
            op->support = KILN_SUPPORT_KNOWN;
        }
    }
    return KILN_OK;
}

/* One note for each operator that runs slowly, with a layer of it for example. */
static void note_slow(const kiln_check *c, const kiln_engine *engine, kiln_diag *diag) {
    for (size_t i = 0; i < c->count; i++) {
        const kiln_check_op *op = &c->ops[i];
        kiln_layer l;
        for (size_t k = 0; op->by_reference > 0 && kiln_engine_layer(engine, k, &l); k++) {
            if (strcmp(l.kernel, "reference") == 0 && l.ops && among(l.ops, op->name)) {
                kiln_diag_at_node(diag, l.name, op->name);
                kiln_note(diag, KILN_F_LINT,
                          "%zu layer%s run by the reference kernel, which is exact and slow",
                          op->by_reference, op->by_reference == 1 ? " is" : "s are");
                break;
            }
        }
    }
    kiln_diag_at_node(diag, NULL, NULL);
}

static void warn_shapes(const kiln_model *model, kiln_diag *diag) {
    kiln_io io;
    for (size_t i = 0; kiln_model_input(model, i, &io); i++) {
        if (io.rank < 0 && !io.is_sequence) {
            kiln_warn(diag, KILN_F_LINT,
                      "input \"%s\" has no rank: shapes are found anew in every run", io.name);
            kiln_hint(diag, KILN_OK, "--override-shape %s:... gives it one", io.name);
        }
        if (io.dtype == KILN_DTYPE_F64) {
            kiln_warn(diag, KILN_F_LINT,
                      "input \"%s\" is float64, which the fast kernels do not take", io.name);
        }
    }
}

static kiln_status build(kiln_check *c, const char *path, const kiln_open_options *o,
                         kiln_diag *diag) {
    kiln_model *model = NULL;
    kiln_engine *engine = NULL;
    size_t from = kiln_diag_count(diag);
    c->status = kiln_model_load(&model, c->env, path, o->model, diag);
    if (c->status == KILN_OK) {
        c->status = kiln_engine_build(&engine, model, o->build, diag);
    }
    kiln_status judged = judge_ops(c, engine, diag, from);
    if (model) {
        kiln_diag_at_file(diag, path);
        warn_shapes(model, diag);
        if (engine) {
            note_slow(c, engine, diag);
        }
        kiln_diag_at_file(diag, NULL);
    }
    kiln_engine_destroy(engine);
    kiln_model_destroy(model);
    return c->status == KILN_E_MEMORY ? KILN_E_MEMORY : judged;
}

/* After the build, so that what it reported is not said again. */
static kiln_status lint(const kiln_check *c, const char *path, const kiln_file *file,
                        const kiln_open_options *o, kiln_diag *diag) {
    kiln_diag_at_file(diag, path);
    kiln_status status = kiln_lint_names(file->data, file->bytes, c->env, diag);
    status = status == KILN_OK ? kiln_lint_graph(path, o->model, c->env, diag) : status;
    kiln_diag_at_file(diag, NULL);
    return status;
}

static kiln_status run(kiln_check *c, const char *path, const kiln_open_options *o,
                       kiln_diag *diag) {
    kiln_file file;
    KILN_TRY(kiln_file_open(&file, c->env, path, kiln_env_limits(c->env)->model_bytes, 0, diag));
    kiln_diag_at_file(diag, path);
    kiln_status status = kiln_sniff(file.data, file.bytes, diag);
    status = status == KILN_OK ? take_census(c, &file, diag) : status;
    kiln_diag_at_file(diag, NULL);
    kiln_diag_at_offset(diag, -1);
    status = status == KILN_OK ? build(c, path, o, diag) : status;
    status = status == KILN_OK ? lint(c, path, &file, o, diag) : status;
    kiln_file_close(&file);
    return status;
}

kiln_status kiln_check_run(kiln_check **out, const kiln_env *env, const char *path,
                           const kiln_open_options *options, kiln_diag *diag) {
    kiln_open_options o;
    if (kiln_options_read(&o, sizeof o, options) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION, "the options have no size, or unknown fields");
    }
    kiln_check *c = kiln_env_alloc(env, sizeof *c);
    if (!c) {
        return kiln_diag_close(diag, KILN_E_MEMORY);
    }
    memset(c, 0, sizeof *c);
    c->env = env;
    kiln_arena_init(&c->arena, env);
    kiln_status status = run(c, path, &o, diag);
    if (status != KILN_OK) {
        kiln_check_destroy(c);
        return kiln_diag_close(diag, status);
    }
    *out = c;
    return KILN_OK;
}

void kiln_check_destroy(kiln_check *check) {
    if (check) {
        kiln_arena_free(&check->arena);
        kiln_env_release(check->env, check, sizeof *check);
    }
}

bool kiln_check_get(const kiln_check *check, size_t i, kiln_check_op *out) {
    if (i >= check->count) {
        return false;
    }
    *out = check->ops[i];
    return true;
}

kiln_status kiln_check_status(const kiln_check *check) {
    return check->status;
}
