/* load.c - reading an engine: check the frame, read the graph, infer it, claim again, measure the
 * weights, and only then point at them. */
#include <string.h>

#include "base/cpu.h"
#include "base/diag.h"
#include "base/env.h"
#include "base/hash.h"
#include "base/options.h"
#include "engine/engine.h"
#include "engine/format.h"
#include "engine/workspace.h"
#include "ops/ops.h"

typedef struct loader {
    kiln_engine *engine;
    const uint8_t *data;
    size_t len;
    bool verify;
    kiln_diag *diag;
    struct {
        uint64_t offset, len;
    } sections[KILN_SECTION_COUNT];
    uint64_t checked_to; /* weights verified up to here: gaps between pieces must be zero */
    bool rebuild;        /* made for another instruction set, but portable */
    uint32_t version;    /* of the file's format */
    kiln_dec profile;    /* what META has behind the description */
} loader;

static kiln_status damaged(const loader *l, const char *what) {
    kiln_status status =
        kiln_fail(l->diag, KILN_F_ENGINE_DAMAGED, "the engine file is damaged: %s", what);
    const char *command = l->engine->info.command;
    return kiln_hint(l->diag, status, "build it again: %s",
                     command ? command : "kiln build MODEL.onnx -o FILE");
}

static uint64_t get_u64(const uint8_t *p) {
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

bool kiln_engine_recognize(const void *bytes, size_t len) {
    return len >= sizeof kiln_engine_magic &&
           memcmp(bytes, kiln_engine_magic, sizeof kiln_engine_magic) == 0;
}

static bool all_zero(const uint8_t *p, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        if (p[i]) {
            return false;
        }
    }
    return true;
}

/* ---- Header and table ---- */

static kiln_status check_versions(loader *l) {
    uint32_t version = (uint32_t)get_u64(l->data + 8),
             oldest = (uint32_t)(get_u64(l->data + 8) >> 32);
    l->version = version;
    if (oldest > KILN_FORMAT_VERSION || version < KILN_FORMAT_OLDEST) {
        return kiln_hint(l->diag,
                         kiln_fail(l->diag, KILN_F_ENGINE_VERSION,
                                   "the engine has format %u, this Kiln %s reads formats %d to %d",
                                   version, kiln_version(), KILN_FORMAT_OLDEST,
                                   KILN_FORMAT_VERSION),
                         "build it again with this version: kiln build MODEL.onnx -o FILE");
    }
    return KILN_OK;
}

static kiln_status check_front_hash(const loader *l, size_t front) {
    enum { HASH_AT = 32 };
    uint8_t copy[KILN_HEADER_BYTES + KILN_SECTION_COUNT * KILN_ENTRY_BYTES];
    memcpy(copy, l->data, front);
    memset(copy + HASH_AT, 0, 8);
    return kiln_hash_64(copy, front) == get_u64(l->data + HASH_AT)
               ? KILN_OK
               : damaged(l, "header or table changed");
}

static kiln_status read_front(loader *l) {
    const size_t front = KILN_HEADER_BYTES + KILN_SECTION_COUNT * KILN_ENTRY_BYTES;
    if (l->len < front || !kiln_engine_recognize(l->data, l->len)) {
        return damaged(l, l->len < front ? "it is cut short" : "it does not begin like an engine");
    }
    KILN_TRY(check_versions(l));
    KILN_TRY(check_front_hash(l, front));
    if (get_u64(l->data + 16) != l->len || (uint32_t)get_u64(l->data + 24) != KILN_SECTION_COUNT) {
        return damaged(l, "its length is not what the header says");
    }
    uint64_t end = front;
    for (uint64_t i = 0; i < KILN_SECTION_COUNT; i++) {
        const uint8_t *e = l->data + KILN_HEADER_BYTES + i * KILN_ENTRY_BYTES;
        uint64_t offset = get_u64(e + 8), len = get_u64(e + 16), align = get_u64(e + 24);
        if (get_u64(e) != i || align > 4096 || align < 64 || offset < end ||
            offset - end >= align || offset % align || offset > l->len || len > l->len - offset ||
            !all_zero(l->data + end, offset - end)) {
            return damaged(l, "the section table is wrong");
        }
        if (i != KILN_SECTION_WEIGHTS &&
            kiln_hash_64(l->data + offset, (size_t)len) != get_u64(e + 32)) {
            return damaged(l, "a section changed");
        }
        l->sections[i].offset = offset;
        l->sections[i].len = len;
        end = offset + len;
    }
    return end == l->len ? KILN_OK : damaged(l, "something follows the last section");
}

static kiln_dec open_section(const loader *l, kiln_section_kind kind) {
    return (kiln_dec){.arena = &l->engine->arena,
                      .data = l->data + l->sections[kind].offset,
                      .len = (size_t)l->sections[kind].len};
}

/* ---- Sections ---- */

static kiln_status choose_target(loader *l, const char *isa) {
    kiln_engine *e = l->engine;
    uint32_t features = kiln_cpu_features(), limited = features;
    if (!isa || !kiln_cpu_limit(isa, &limited)) {
        return damaged(l, "its instruction set is unknown");
    }
    kiln_cpu_target_init(&e->target, limited, e->off);
    if (strcmp(kiln_target_isa(&e->target), isa) == 0) {
        return KILN_OK;
    }
    if (!e->info.portable) {
        kiln_status status =
            kiln_fail(l->diag, KILN_F_ENGINE_ISA, "the engine was made for %s, this machine has %s",
                      isa, kiln_target_isa(&e->target));
        return kiln_hint(l->diag, status, "build it again here: %s", e->info.command);
    }
    l->rebuild = true;
    e->info.isa = kiln_target_isa(&e->target);
    kiln_warn(l->diag, KILN_F_ENGINE_ISA, "the engine was made for %s; it is planned again for %s",
              isa, kiln_target_isa(&e->target));
    return KILN_OK;
}

static kiln_status read_meta(loader *l) {
    kiln_engine *e = l->engine;
    kiln_dec d = open_section(l, KILN_SECTION_META);
    e->info.version = kiln_dec_text(&d);
    e->info.isa = kiln_dec_text(&d);
    const char *hash = kiln_dec_text(&d);
    e->info.command = kiln_dec_text(&d);
    e->info.portable = kiln_dec_u32(&d) != 0;
    size_t n_off = kiln_dec_count(&d, 4);
    KILN_ALLOC(e->off, &e->arena, n_off + 1);
    for (size_t i = 0; i < n_off; i++) {
        e->off[i] = kiln_dec_text(&d);
    }
    if (d.oom) {
        return KILN_E_MEMORY;
    }
    if (d.bad || !e->info.version || !hash || strlen(hash) >= sizeof e->info.model_hash ||
        !e->info.command) {
        e->info.command = NULL;
        return damaged(l, "the description is wrong");
    }
    memcpy(e->info.model_hash, hash, strlen(hash) + 1);
    l->profile = d;
    return choose_target(l, e->info.isa);
}

static void read_range(kiln_dec *d, const kiln_graph *g, int64_t *last, kiln_shape_range *out) {
    uint32_t input = kiln_dec_u32(d), rank = kiln_dec_u32(d);
    d->bad = d->bad || input >= g->n_inputs || input <= *last || rank > KILN_MAX_RANK;
    if (!d->bad) {
        *last = input;
        out->name = g->inputs[input]->name;
        out->rank = (int32_t)rank;
    }
    for (int32_t k = 0; k < out->rank; k++) {
        out->min[k] = (int64_t)kiln_dec_u64(d);
        out->opt[k] = (int64_t)kiln_dec_u64(d);
        out->max[k] = (int64_t)kiln_dec_u64(d);
    }
}

static kiln_status read_left_float(loader *l, kiln_dec *d) {
    kiln_engine *e = l->engine;
    size_t n = kiln_dec_count(d, 2 * sizeof(uint32_t));
    KILN_ALLOC(e->left_float, &e->arena, n);
    for (size_t i = 0; i < n && !d->bad; i++) {
        kiln_left_float *f = &e->left_float[i];
        f->node = kiln_dec_text(d);
        f->reason = kiln_dec_text(d);
        d->bad = d->bad || !f->node || !f->reason;
    }
    e->n_left_float = d->bad ? 0 : n;
    return d->oom ? KILN_E_MEMORY : KILN_OK;
}

static kiln_status read_tried(loader *l, kiln_dec *d) {
    kiln_engine *e = l->engine;
    size_t n = kiln_dec_count(d, 4 * sizeof(uint32_t) + sizeof(uint32_t) + 2 * sizeof(double));
    KILN_ALLOC(e->tried, &e->arena, n);
    for (size_t i = 0; i < n && !d->bad; i++) {
        kiln_tried_way *t = &e->tried[i];
        t->layer = kiln_dec_text(d);
        t->kernel = kiln_dec_text(d);
        t->tactic = kiln_dec_text(d);
        t->refused = kiln_dec_text(d);
        t->chosen = kiln_dec_u32(d) != 0;
        t->ms = kiln_dec_f64(d);
        t->rules_ms = kiln_dec_f64(d);
        d->bad = d->bad || !t->layer || !t->kernel || !t->tactic || !t->refused;
        t->refused = t->refused && *t->refused ? t->refused : NULL;
    }
    e->n_tried = d->bad ? 0 : n;
    return d->oom ? KILN_E_MEMORY : KILN_OK;
}

/* The file's ranges are held against its graph like any that are given. */
static kiln_status read_profile(loader *l) {
    kiln_engine *e = l->engine;
    kiln_dec *d = &l->profile;
    int64_t last = -1;
    if (l->version >= KILN_FORMAT_PROFILE) {
        kiln_shape_range *given;
        size_t n = kiln_dec_count(d, 8);
        n = n <= e->graph->n_inputs ? n : 0;
        KILN_ALLOC(given, &e->arena, n);
        for (size_t k = 0; k < n && !d->bad; k++) {
            read_range(d, e->graph, &last, &given[k]);
        }
        kiln_status status =
            d->bad ? KILN_E_ENGINE
                   : kiln_profile_resolve(&e->profile, e->graph, given, n, &e->arena, l->diag);
        if (status != KILN_OK) {
            return status == KILN_E_MEMORY ? status : damaged(l, "its profile is not valid");
        }
        e->n_widened = kiln_dec_u32(d);
    }
    if (l->version >= KILN_FORMAT_FLOATS && d->at < d->len) {
        KILN_TRY(read_left_float(l, d));
    }
    if (l->version >= KILN_FORMAT_TACTICS && d->at < d->len) {
        KILN_TRY(read_tried(l, d));
    }
    if (l->version >= KILN_FORMAT_WORKSPACE && d->at < d->len) {
        e->workspace_bytes = (size_t)kiln_dec_u64(d);
    }
    /* A later version may have put more there. */
    return !d->bad && (d->at == d->len || l->version > KILN_FORMAT_VERSION)
               ? KILN_OK
               : damaged(l, "something follows the description");
}

/* A piece of the weights; NULL when it lies outside, is misaligned, or (verifying) changed. */
static const void *fetch(void *user, const kiln_extent *x) {
    loader *l = user;
    uint64_t len = l->sections[KILN_SECTION_WEIGHTS].len;
    const uint8_t *base = l->data + l->sections[KILN_SECTION_WEIGHTS].offset;
    if (x->offset > len || x->len > len - x->offset || x->offset % KILN_PIECE_ALIGN) {
        return NULL;
    }
    if (l->verify) {
        if (x->offset < l->checked_to ||
            !all_zero(base + l->checked_to, x->offset - l->checked_to) ||
            kiln_hash_64(base + x->offset, (size_t)x->len) != x->hash) {
            return NULL;
        }
        l->checked_to = x->offset + x->len;
    }
    return base + x->offset;
}

static kiln_status read_graph(loader *l) {
    kiln_engine *e = l->engine;
    kiln_dec d = open_section(l, KILN_SECTION_GRAPH);
    KILN_TRY(kiln_graph_read(&e->graph, &d, &e->dims, e->env, fetch, l, l->diag));
    if (d.at != d.len) {
        return damaged(l, "something follows the graph");
    }
    kiln_status status = kiln_infer_graph(e->graph, l->diag);
    status = e->dims.oom ? KILN_E_MEMORY : status;
    bool ours = status == KILN_OK || status == KILN_E_MEMORY || status == KILN_E_LIMIT;
    return ours ? status : damaged(l, "its graph is not valid");
}

static kiln_status read_blobs(loader *l, kiln_dec *d, kiln_plan *p, size_t claim, uint64_t n) {
    if (n != (uint64_t)p->n_blobs[claim]) {
        return damaged(l, "a region has other weights than its kernel needs");
    }
    for (uint64_t b = 0; b < n; b++) {
        kiln_extent x = {kiln_dec_u64(d), kiln_dec_u64(d), 0};
        x.hash = kiln_dec_u64(d);
        const void *data = d->bad || x.len != p->blobs[claim][b].bytes ? NULL : fetch(l, &x);
        if (!data) {
            return damaged(l, "the weights of a region are missing, too short or changed");
        }
        p->blobs[claim][b].data = data;
    }
    return KILN_OK;
}

/* What the file says of one claim, before its weights can be looked at. */
typedef struct stored {
    kiln_decision *decisions;
    size_t *blob_at; /* where each claim's extents begin in the section */
    uint64_t *n_blobs;
    size_t n;
} stored;

/* "kernel" or "kernel/tactic"; NULL is left for the caller to see. */
static kiln_status split_kernel(kiln_arena *arena, const char *text, kiln_decision *out) {
    const char *slash = text ? strchr(text, '/') : NULL;
    out->kernel = slash ? kiln_arena_text(arena, text, (size_t)(slash - text)) : text;
    out->tactic = slash ? slash + 1 : NULL;
    return out->kernel || !text ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status read_decisions(loader *l, kiln_dec *d, stored *s) {
    kiln_arena *arena = &l->engine->arena;
    s->n = kiln_dec_count(d, 20);
    KILN_ALLOC(s->decisions, arena, s->n);
    KILN_ALLOC(s->blob_at, arena, s->n);
    KILN_ALLOC(s->n_blobs, arena, s->n);
    for (size_t i = 0; i < s->n && !d->bad; i++) {
        const char *text = kiln_dec_text(d);
        KILN_TRY(split_kernel(arena, text, &s->decisions[i]));
        s->decisions[i].anchor = (int32_t)kiln_dec_u32(d);
        s->decisions[i].n_nodes = (int32_t)kiln_dec_u32(d);
        s->n_blobs[i] = kiln_dec_count(d, 24);
        s->blob_at[i] = d->at;
        kiln_dec_bytes(d, (size_t)s->n_blobs[i] * 24);
        d->bad = d->bad || !text;
    }
    return d->oom ? KILN_E_MEMORY : d->bad ? damaged(l, "the plan is wrong") : KILN_OK;
}

static kiln_status read_plan(loader *l, kiln_dec *d, const kiln_graph *g, kiln_plan *parent,
                             kiln_plan **out);

static kiln_status read_bodies(loader *l, kiln_dec *d, kiln_plan *p) {
    uint64_t n = kiln_dec_u64(d), made = 0;
    for (size_t i = 0; i < p->graph->n_nodes; i++) {
        for (int32_t b = 0; b < p->graph->nodes[i]->n_bodies; b++, made++) {
            kiln_plan *body;
            KILN_TRY(read_plan(l, d, p->graph->nodes[i]->bodies[b], p, &body));
            KILN_TRY(kiln_plan_add_body(p, body, &l->engine->arena));
        }
    }
    return n == made ? KILN_OK : damaged(l, "a body's plan is missing");
}

static kiln_status read_plan(loader *l, kiln_dec *d, const kiln_graph *g, kiln_plan *parent,
                             kiln_plan **out) {
    const kiln_packing measuring = {.measuring = true};
    kiln_engine *e = l->engine;
    kiln_plan *p;
    stored s;
    KILN_ALLOC(p, &e->arena, 1);
    p->graph = g;
    p->parent = parent;
    KILN_TRY(read_decisions(l, d, &s));
    KILN_TRY(kiln_cpu_reclaim(p, &e->target, s.decisions, s.n, &e->arena, l->diag));
    KILN_TRY(kiln_cpu_compile(p, &e->arena));
    KILN_TRY(kiln_cpu_pack(p, &e->target, &measuring, &e->arena, l->diag));
    for (size_t i = 0; i < s.n; i++) {
        if (p->claims[i]->anchor->id != s.decisions[i].anchor) {
            return damaged(l, "its regions are out of order");
        }
        kiln_dec at = *d;
        at.at = s.blob_at[i];
        KILN_TRY(read_blobs(l, &at, p, i, s.n_blobs[i]));
    }
    KILN_TRY(read_bodies(l, d, p));
    *out = p;
    return KILN_OK;
}

static kiln_status read_all(loader *l) {
    kiln_engine *e = l->engine;
    KILN_TRY(read_front(l));
    KILN_TRY(read_meta(l));
    KILN_TRY(read_graph(l));
    KILN_TRY(read_profile(l));
    if (l->rebuild) {
        stored s;
        kiln_dec d = open_section(l, KILN_SECTION_PLAN);
        KILN_TRY(read_decisions(l, &d, &s));
        kiln_cpu_mark(e->graph, s.decisions, s.n);
        KILN_TRY(kiln_engine_plan(e, NULL, NULL, l->diag));
    } else {
        kiln_dec d = open_section(l, KILN_SECTION_PLAN);
        KILN_TRY(read_plan(l, &d, e->graph, NULL, &e->plan));
        uint64_t end = l->sections[KILN_SECTION_WEIGHTS].len;
        const uint8_t *base = l->data + l->sections[KILN_SECTION_WEIGHTS].offset;
        if (d.at != d.len ||
            (l->verify &&
             (l->checked_to > end || !all_zero(base + l->checked_to, end - l->checked_to)))) {
            return damaged(l, "something follows the plan or the weights");
        }
    }
    KILN_TRY(kiln_engine_describe(e));
    return e->dims.oom ? KILN_E_MEMORY : KILN_OK;
}

static kiln_status load(kiln_engine **out, const kiln_env *env, const char *path, const void *bytes,
                        size_t len, const kiln_load_options *given, kiln_diag *diag) {
    kiln_load_options o;
    kiln_engine *e;
    if (!path && !bytes) {
        return kiln_fail(diag, KILN_F_OPTION, "there is no engine to load: path or bytes are NULL");
    }
    if (kiln_options_read(&o, sizeof o, given) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION, "the load options have no size, or unknown fields");
    }
    KILN_TRY(kiln_engine_new(&e, env));
    kiln_status status = KILN_OK;
    if (path) {
        e->file = kiln_arena_array(&e->arena, 1, sizeof *e->file);
        status = e->file ? kiln_file_open(e->file, env, path, UINT64_MAX,
                                          o.no_mmap ? KILN_FILE_COPY : 0, diag)
                         : KILN_E_MEMORY;
        bytes = status == KILN_OK ? e->file->data : NULL;
        len = status == KILN_OK ? e->file->bytes : 0;
    } else if ((uintptr_t)bytes % KILN_PIECE_ALIGN) {
        status = kiln_fail(diag, KILN_F_OPTION, "the engine's bytes are not aligned to %d",
                           KILN_PIECE_ALIGN);
    }
    loader l = {.engine = e, .data = bytes, .len = len, .verify = o.verify, .diag = diag};
    status = status == KILN_OK ? read_all(&l) : status;
    if (status != KILN_OK) {
        kiln_engine_destroy(e);
        return status;
    }
    *out = e;
    return KILN_OK;
}

kiln_status kiln_engine_load(kiln_engine **out, const kiln_env *env, const char *path,
                             const kiln_load_options *options, kiln_diag *diag) {
    kiln_diag_at_file(diag, path);
    kiln_status status = load(out, env, path, NULL, 0, options, diag);
    kiln_diag_at_file(diag, NULL);
    kiln_diag_at_node(diag, NULL, NULL);
    return kiln_diag_close(diag, status);
}

kiln_status kiln_engine_load_memory(kiln_engine **out, const kiln_env *env, const void *bytes,
                                    size_t len, const kiln_load_options *options, kiln_diag *diag) {
    return kiln_diag_close(diag, load(out, env, NULL, bytes, len, options, diag));
}
