/* import.c - a model's bytes to a graph: the entry points and the order of things. */
#include "onnx/import.h"

#include <string.h>

#include "base/env.h"
#include "base/file.h"
#include "base/hash.h"
#include "onnx/external.h"
#include "onnx/sniff.h"

enum { MAX_DOMAINS = 1000 };

kiln_status kiln_import_opsets(kiln_importer *im, kiln_arena *arena, const kiln_msg *msg,
                               uint32_t field, size_t count, kiln_opsets *out) {
    kiln_msg at = *msg, sub;
    if (count > MAX_DOMAINS) {
        return kiln_fail(im->d.diag, KILN_F_GRAPH_LIMIT,
                         "%zu operator sets are imported, at most %d are possible", count,
                         MAX_DOMAINS);
    }
    KILN_ALLOC(out->items, arena, count);
    out->count = 0;
    for (size_t i = 0; i < count; i++) {
        kiln_pb_opset_id id;
        kiln_opset *set = &out->items[out->count];
        bool known = false;
        KILN_TRY(kiln_pb_each(&im->d.wire, &at, field, &sub));
        KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_opset_id_desc, &sub, &id));
        set->domain = kiln_view_is(id.domain, "ai.onnx") ? kiln_view_of("", 0) : id.domain;
        set->version = id.version;
        kiln_diag_at_offset(im->d.diag, kiln_wire_offset(&im->d.wire, sub.p));
        for (size_t k = 0; k < out->count; k++) {
            if (kiln_view_equal(out->items[k].domain, set->domain)) {
                known = true;
                if (out->items[k].version != set->version) {
                    return kiln_fail(im->d.diag, KILN_F_OPSET,
                                     "domain \"%.*s\" is imported in versions %lld and %lld",
                                     (int)set->domain.n, set->domain.n ? set->domain.p : "",
                                     (long long)out->items[k].version, (long long)set->version);
                }
            }
        }
        if (set->domain.n == 0 &&
            (set->version < KILN_OPSET_MIN || set->version > KILN_OPSET_MAX)) {
            return kiln_hint(
                im->d.diag,
                kiln_fail(im->d.diag, KILN_F_OPSET,
                          "operator set %lld of the standard domain is not supported",
                          (long long)set->version),
                "versions %d to %d are; onnx.version_converter in Python converts between them",
                KILN_OPSET_MIN, KILN_OPSET_MAX);
        }
        out->count += !known;
        kiln_diag_at_offset(im->d.diag, -1);
    }
    return KILN_OK;
}

/* One finding for each operator that cannot be run. */
static kiln_status report_unsupported(kiln_importer *im) {
    kiln_status status = KILN_OK;
    for (size_t i = 0; i < im->n_unsupported; i++) {
        const kiln_unsupported *u = &im->unsupported[i];
        kiln_diag_at_node(im->d.diag, u->node, u->op);
        kiln_diag_at_offset(im->d.diag, u->offset);
        status = kiln_fail(
            im->d.diag, KILN_F_OP_UNKNOWN,
            "operator %s of domain \"%s\" (opset %lld) is not supported; %zu node%s of it", u->op,
            u->domain[0] ? u->domain : "ai.onnx", (long long)u->version, u->uses,
            u->uses == 1 ? "" : "s");
    }
    kiln_diag_at_node(im->d.diag, NULL, NULL);
    kiln_diag_at_offset(im->d.diag, -1);
    return status;
}

/* Outputs that only training gives must not be used. */
static kiln_status check_dropped(kiln_importer *im) {
    for (size_t i = 0; i < im->n_dropped; i++) {
        const kiln_value *v = im->dropped[i];
        if (v->n_users || v->n_outputs) {
            return kiln_fail(im->d.diag, KILN_F_VARIANT,
                             "\"%s\" is an output that exists in training only", v->name);
        }
    }
    return KILN_OK;
}

static kiln_status finish_graph(kiln_importer *im) {
    KILN_TRY(report_unsupported(im));
    KILN_TRY(kiln_graph_sort(im->out->graph, im->d.diag));
    KILN_TRY(kiln_graph_index(im->out->graph));
    KILN_TRY(check_dropped(im));
    KILN_TRY(kiln_graph_verify(im->out->graph, im->d.diag));
    return kiln_settle(im);
}

static kiln_status import_model(kiln_importer *im, const void *bytes, size_t len) {
    kiln_msg msg = {bytes, (const uint8_t *)bytes + len, 0};
    kiln_pb_model pb;
    kiln_pb_graph graph;
    const char *text;
    KILN_TRY(kiln_sniff(bytes, len, im->d.diag));
    KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_model_desc, &msg, &pb));
    if (!pb.graph.p) {
        return kiln_fail(im->d.diag, KILN_F_NOT_ONNX, "the file holds no graph");
    }
    kiln_hash128 hash = kiln_hash_128(bytes, len);
    memcpy(im->out->hash, &hash.low, sizeof hash.low);
    memcpy(im->out->hash + sizeof hash.low, &hash.high, sizeof hash.high);
    im->seed = hash.low;
    im->out->model_bytes = len;
    im->out->ir_version = pb.ir_version;
    KILN_TRY(kiln_decoder_text(&im->d, pb.producer_name, &im->out->producer));
    KILN_TRY(kiln_import_opsets(im, &im->lists, &msg, KILN_PB_MODEL_OPSET_IMPORT,
                                pb.n_opset_imports, &im->opsets));
    for (size_t i = 0; i < im->opsets.count; i++) {
        if (im->opsets.items[i].domain.n == 0) {
            im->out->opset = im->opsets.items[i].version;
        }
    }
    KILN_TRY(kiln_pb_decode(&im->d.wire, &kiln_pb_graph_desc, &pb.graph, &graph));
    KILN_TRY(kiln_decoder_text(&im->d, graph.name, &text));
    im->out->graph_name = text;
    KILN_TRY(kiln_names_init(&im->used, &im->lists, im->seed, NULL, 0));
    KILN_TRY(kiln_functions_read(im, &pb));
    KILN_TRY(kiln_graph_create(&im->out->graph, im->arena, im->dims, im->env, NULL, text));
    KILN_TRY(kiln_import_graph(im, &pb.graph, im->out->graph, NULL));
    while (im->top) {
        KILN_TRY(kiln_import_step(im));
    }
    return finish_graph(im);
}

static kiln_status run_import(kiln_import *out, const char *path, const void *bytes, size_t len,
                              const kiln_import_options *options, kiln_arena *arena,
                              kiln_files *files, const kiln_env *env, kiln_diag *diag) {
    kiln_importer im = {.out = out, .env = env, .arena = arena};
    const char *folder = options ? options->external_root : NULL;
    memset(out, 0, sizeof *out);
    kiln_decoder_init(&im.d, bytes, len, arena, env, diag);
    KILN_ALLOC(im.dims, arena, 1);
    kiln_dims_init(im.dims, arena);
    kiln_arena_init(&im.stack, env);
    kiln_arena_init(&im.temp, env);
    kiln_arena_init(&im.lists, env);
    kiln_status status = KILN_OK;
    if (path || folder) {
        status =
            kiln_external_create(&im.d.external, path, folder, options, files, arena, env, diag);
    }
    status = status ? status : import_model(&im, bytes, len);
    out->external_bytes = kiln_external_bytes(im.d.external);
    kiln_external_close(im.d.external);
    kiln_diag_at_node(diag, NULL, NULL);
    kiln_diag_at_offset(diag, -1);
    kiln_arena_free(&im.stack);
    kiln_arena_free(&im.temp);
    kiln_arena_free(&im.lists);
    return status;
}

kiln_status kiln_import_file(kiln_import *out, const char *path, const kiln_import_options *options,
                             kiln_arena *arena, kiln_files *files, const kiln_env *env,
                             kiln_diag *diag) {
    const kiln_limits *limits = kiln_env_limits(env);
    kiln_file *file;
    unsigned flags = options && options->no_mmap ? KILN_FILE_COPY : 0;
    KILN_ALLOC(file, arena, 1);
    KILN_PUSH(arena, files->items, files->count, files->cap, file);
    kiln_diag_at_file(diag, path);
    kiln_diag_enter(diag, "importing %s", path);
    kiln_status status = kiln_file_open(file, env, path, limits->model_bytes, flags, diag);
    if (status == KILN_OK) {
        status = run_import(out, path, file->data, file->bytes, options, arena, files, env, diag);
    }
    kiln_diag_leave(diag);
    kiln_diag_at_file(diag, NULL);
    return status;
}

kiln_status kiln_import_memory(kiln_import *out, const void *bytes, size_t len,
                               const kiln_import_options *options, kiln_arena *arena,
                               kiln_files *files, const kiln_env *env, kiln_diag *diag) {
    kiln_diag_enter(diag, "importing a model from memory");
    kiln_status status = run_import(out, NULL, bytes, len, options, arena, files, env, diag);
    kiln_diag_leave(diag);
    return status;
}
