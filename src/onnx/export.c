/* export.c - a graph as an ONNX model: the model around it, and its weights one at a time. */
#include "onnx/export.h"

#include <string.h>

#include "base/checked.h"
#include "base/env.h"
#include "base/file.h"
#include "onnx/proto.h"
#include "ops/ops.h"

/* protobuf reads no message of 2 GiB; a model that comes near keeps its weights outside. */
#define INSIDE_MAX (UINT64_C(2000) << 20)
enum { AUTO_THRESHOLD = 1024, DATA_ALIGN = 4096 };

/* Where bytes go: a file, or memory. */
typedef struct sink {
    kiln_writer *file;
    kiln_out *memory;
    kiln_diag *diag;
} sink;

static kiln_status put(const sink *s, const void *data, size_t bytes) {
    if (s->file) {
        return kiln_writer_put(s->file, data, bytes, s->diag);
    }
    kiln_out_bytes(s->memory, data, bytes);
    return s->memory->failed ? KILN_E_MEMORY : KILN_OK;
}

/* The IR version of each operator set from 23 on. */
static int64_t ir_version(int64_t opset) {
    static const uint8_t versions[] = {11, 12, 13, 13, 13, 14};
    size_t i = (size_t)(opset - 23);
    return versions[i < KILN_COUNT_OF(versions) ? i : KILN_COUNT_OF(versions) - 1];
}

static size_t varint_bytes(uint64_t v) {
    size_t n = 1;
    for (; v >= 0x80; v >>= 7) {
        n++;
    }
    return n;
}

static void put_entry(kiln_out *out, uint32_t field, const char *key, const char *value) {
    size_t begin = kiln_out_begin(out, field);
    kiln_out_text(out, 1, key);
    kiln_out_text(out, 2, value);
    kiln_out_end(out, begin);
}

/* The head of an initializer: all of its message but the raw data that stays inside. */
static kiln_status encode_head(kiln_exporter *x, kiln_export_const *c, const char *location,
                               size_t threshold, uint64_t *data_bytes) {
    kiln_tensor t = c->value->constant->tensor;
    size_t bytes = kiln_tensor_bytes(&t);
    c->head.arena = x->arena;
    if (t.dtype == KILN_DTYPE_STRING) {
        KILN_TRY(kiln_const_eval(c->value, &t, x->arena, x->diag));
        kiln_put_tensor(&c->head, &t, c->value->name);
        return c->head.failed ? KILN_E_MEMORY : KILN_OK;
    }
    kiln_put_tensor_head(&c->head, &t, c->value->name);
    if (location && bytes >= threshold) {
        uint64_t offset = (*data_bytes + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
        const char *at = kiln_arena_printf(x->arena, "%llu", (unsigned long long)offset);
        const char *length = kiln_arena_printf(x->arena, "%zu", bytes);
        if (!at || !length) {
            return KILN_E_MEMORY;
        }
        put_entry(&c->head, KILN_PB_TENSOR_EXTERNAL_DATA, "location", location);
        put_entry(&c->head, KILN_PB_TENSOR_EXTERNAL_DATA, "offset", at);
        put_entry(&c->head, KILN_PB_TENSOR_EXTERNAL_DATA, "length", length);
        kiln_out_varint(&c->head, 14, 1);
        c->external = true;
        c->offset = offset;
        *data_bytes = offset + bytes;
    } else {
        kiln_out_head(&c->head, KILN_PB_TENSOR_RAW_DATA, bytes);
        c->raw_bytes = bytes;
    }
    return c->head.failed ? KILN_E_MEMORY : KILN_OK;
}

/* Everything of the model before the graph's own bytes. */
static kiln_status put_model_head(const kiln_exporter *x, const kiln_export_options *options,
                                  size_t graph_bytes, const sink *s) {
    kiln_out head = {.arena = x->arena};
    kiln_out_varint(&head, 1, (uint64_t)ir_version(x->opset));
    kiln_out_text(&head, 2, "kiln");
    kiln_out_text(&head, 3,
                  options && options->producer_version ? options->producer_version
                                                       : kiln_version());
    size_t set = kiln_out_begin(&head, KILN_PB_MODEL_OPSET_IMPORT);
    kiln_out_text(&head, 1, "");
    kiln_out_varint(&head, 2, (uint64_t)x->opset);
    kiln_out_end(&head, set);
    if (x->contrib) {
        set = kiln_out_begin(&head, KILN_PB_MODEL_OPSET_IMPORT);
        kiln_out_text(&head, 1, "com.microsoft");
        kiln_out_varint(&head, 2, 1);
        kiln_out_end(&head, set);
    }
    kiln_out_head(&head, KILN_PB_MODEL_GRAPH, graph_bytes);
    return head.failed ? KILN_E_MEMORY : put(s, head.data, head.len);
}

/* Evaluates one constant into scratch memory and hands its bytes on. */
static kiln_status put_data(const kiln_exporter *x, const kiln_export_const *c, const sink *s) {
    kiln_arena_mark mark = kiln_arena_here(x->arena);
    kiln_tensor t;
    KILN_TRY(kiln_const_eval(c->value, &t, x->arena, x->diag));
    kiln_status status = put(s, t.data, kiln_tensor_bytes(&t));
    if (s->file) {
        kiln_arena_rewind(x->arena, mark);
    }
    return status;
}

static kiln_status put_model(kiln_exporter *x, const kiln_export_options *options, const sink *s) {
    uint64_t graph_bytes = x->body.len;
    for (size_t i = 0; i < x->n_consts; i++) {
        uint64_t bytes = x->consts[i].head.len + x->consts[i].raw_bytes;
        graph_bytes += 1 + varint_bytes(bytes) + bytes;
    }
    if (graph_bytes > INSIDE_MAX) {
        return kiln_hint(x->diag,
                         kiln_fail(x->diag, KILN_F_GRAPH_LIMIT,
                                   "the model would have %llu bytes, ONNX allows 2 GiB",
                                   (unsigned long long)graph_bytes),
                         "write it to a file with its weights outside");
    }
    KILN_TRY(put_model_head(x, options, (size_t)graph_bytes, s));
    KILN_TRY(put(s, x->body.data, x->body.len));
    for (size_t i = 0; i < x->n_consts; i++) {
        const kiln_export_const *c = &x->consts[i];
        kiln_out tag = {.arena = x->arena};
        kiln_out_head(&tag, KILN_PB_GRAPH_INITIALIZER, c->head.len + c->raw_bytes);
        if (tag.failed) {
            return KILN_E_MEMORY;
        }
        KILN_TRY(put(s, tag.data, tag.len));
        KILN_TRY(put(s, c->head.data, c->head.len));
        if (c->raw_bytes) {
            KILN_TRY(put_data(x, c, s));
        }
    }
    return KILN_OK;
}

/* Encodes the graph and the heads of its constants; *data_bytes is the size of the data file. */
static kiln_status prepare(kiln_exporter *x, const char *location, size_t threshold,
                           uint64_t *data_bytes) {
    x->body.arena = x->arena;
    *data_bytes = 0;
    x->seen = kiln_arena_array(x->arena, (size_t)x->graph->n_values + 1, 1);
    if (!x->seen) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(kiln_names_init(&x->node_names, x->arena, 0, NULL, x->graph->n_nodes));
    KILN_TRY(kiln_export_graph(x, x->graph, &x->body));
    uint64_t total = x->body.len;
    for (size_t i = 0; i < x->n_consts; i++) {
        total += kiln_tensor_bytes(&x->consts[i].value->constant->tensor);
    }
    if (total > INSIDE_MAX && threshold == 0) {
        threshold = AUTO_THRESHOLD;
    }
    for (size_t i = 0; i < x->n_consts; i++) {
        KILN_TRY(encode_head(x, &x->consts[i], threshold ? location : NULL, threshold, data_bytes));
    }
    return KILN_OK;
}

kiln_status kiln_export_memory(void **out, size_t *len, const kiln_graph *graph,
                               const kiln_export_options *options, kiln_arena *arena,
                               kiln_diag *diag) {
    kiln_exporter x = {.graph = graph, .arena = arena, .diag = diag};
    kiln_out memory = {.arena = arena};
    sink s = {.memory = &memory, .diag = diag};
    uint64_t data_bytes;
    KILN_TRY(prepare(&x, NULL, 0, &data_bytes));
    KILN_TRY(put_model(&x, options, &s));
    *out = memory.data;
    *len = memory.len;
    return KILN_OK;
}

/* The data file: each external constant at its offset, zeros between. */
static kiln_status write_data(const kiln_exporter *x, const char *path) {
    static const char zeros[DATA_ALIGN];
    kiln_writer file;
    KILN_TRY(kiln_writer_open(&file, path, x->diag));
    sink s = {.file = &file, .diag = x->diag};
    kiln_status status = KILN_OK;
    for (size_t i = 0; i < x->n_consts && status == KILN_OK; i++) {
        const kiln_export_const *c = &x->consts[i];
        if (c->external) {
            status = put(&s, zeros, (size_t)(c->offset - file.bytes));
            status = status ? status : put_data(x, c, &s);
        }
    }
    status = status ? status : kiln_writer_commit(&file, x->diag);
    kiln_writer_abandon(&file);
    return status;
}

static kiln_status write_model(kiln_exporter *x, const char *path,
                               const kiln_export_options *options) {
    kiln_writer file;
    KILN_TRY(kiln_writer_open(&file, path, x->diag));
    sink s = {.file = &file, .diag = x->diag};
    kiln_status status = put_model(x, options, &s);
    status = status ? status : kiln_writer_commit(&file, x->diag);
    kiln_writer_abandon(&file);
    return status;
}

static kiln_status export_file(kiln_exporter *x, const char *path,
                               const kiln_export_options *options) {
    const char *slash = strrchr(path, '/');
    const char *location = kiln_arena_printf(x->arena, "%s.data", slash ? slash + 1 : path);
    const char *data_path = kiln_arena_printf(x->arena, "%s.data", path);
    uint64_t data_bytes;
    if (!location || !data_path) {
        return KILN_E_MEMORY;
    }
    KILN_TRY(prepare(x, location, options ? options->external_threshold : 0, &data_bytes));
    if (data_bytes) {
        KILN_TRY(write_data(x, data_path));
    }
    return write_model(x, path, options);
}

kiln_status kiln_export_file(const kiln_graph *graph, const char *path,
                             const kiln_export_options *options, const kiln_env *env,
                             kiln_diag *diag) {
    kiln_arena arena;
    kiln_arena_init(&arena, env);
    kiln_exporter x = {.graph = graph, .arena = &arena, .diag = diag};
    kiln_diag_enter(diag, "exporting %s", path);
    kiln_status status = export_file(&x, path, options);
    kiln_diag_leave(diag);
    kiln_arena_free(&arena);
    return status;
}
