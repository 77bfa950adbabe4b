/* save.c - writing an engine. The weights are listed first, so that the other sections can say
 * where they lie; then header, table and sections go out in one pass. */
#include <string.h>

#include "base/diag.h"
#include "base/env.h"
#include "base/hash.h"
#include "engine/engine.h"
#include "engine/format.h"
#include "ops/ops.h"

const char kiln_engine_magic[8] = {'K', 'I', 'L', 'N', 'E', 'N', 'G', '\n'};

typedef struct piece {
    const void *data;
    size_t len;
} piece;

typedef struct saver {
    const kiln_engine *engine;
    kiln_arena arena;
    kiln_diag *diag;
    piece *pieces; /* of the weights section, each on a multiple of KILN_PIECE_ALIGN */
    size_t n_pieces, cap_pieces;
    uint64_t weight_bytes;
    bool *needed; /* per value id: the plan reads the constant at run time */
} saver;

static uint64_t align_up(uint64_t n, uint64_t a) {
    return (n + a - 1) / a * a;
}

static kiln_status add_piece(saver *s, const void *data, size_t len, kiln_extent *out) {
    piece p = {data, len};
    out->offset = s->weight_bytes;
    out->len = len;
    out->hash = kiln_hash_64(data, len);
    KILN_PUSH(&s->arena, s->pieces, s->n_pieces, s->cap_pieces, p);
    s->weight_bytes = align_up(s->weight_bytes + len, KILN_PIECE_ALIGN);
    return KILN_OK;
}

/* ---- Which constants are stored ---- */

static void need(saver *s, const kiln_value *v) {
    if (v && v->constant) {
        s->needed[v->id] = true;
    }
}

/* A value of unknown size makes its step late, and late steps run by the reference: it reads all
 * inputs. */
static bool may_be_late(const kiln_claim *claim) {
    for (int32_t i = 0; i < claim->n_nodes; i++) {
        const kiln_node *n = claim->nodes[i];
        if (n->n_bodies > 0 || (n->op->flags & KILN_OP_DATA_SIZED)) {
            return true;
        }
    }
    return !claim->kernel->pack;
}

static void mark_needed(saver *s, const kiln_plan *p) {
    for (size_t i = 0; i < p->n_slots; i++) {
        need(s, p->slots[i].value);
    }
    for (size_t i = 0; i < p->n_claims; i++) {
        const kiln_claim *claim = p->claims[i];
        for (int32_t k = 0; k < claim->n_nodes && may_be_late(claim); k++) {
            for (int32_t j = 0; j < claim->nodes[k]->n_in; j++) {
                need(s, claim->nodes[k]->in[j]);
            }
        }
    }
    for (size_t i = 0; i < p->n_bodies; i++) {
        mark_needed(s, p->bodies[i]);
    }
}

static kiln_status place_constant(void *user, const kiln_value *v, bool *stored, kiln_extent *out) {
    saver *s = user;
    bool small = kiln_tensor_bytes(&v->constant->tensor) <= KILN_SMALL_BYTES;
    *stored = small || s->needed[v->id] || s->engine->info.portable;
    if (!*stored) {
        return KILN_OK;
    }
    if (!v->constant->tensor.data && !v->constant->expr) {
        /* Loaded from an engine that kept the packed form only. */
        *stored = false;
        return KILN_OK;
    }
    kiln_tensor t;
    KILN_TRY(kiln_const_eval(v, &t, &s->arena, s->diag));
    return add_piece(s, t.data, kiln_tensor_bytes(&t), out);
}

/* ---- Sections ---- */

/* Ranges in the order of the inputs, which they name by number. */
static void write_profile(kiln_enc *e, const kiln_engine *engine) {
    size_t n_inputs = engine->profile ? engine->graph->n_inputs : 0, n = 0;
    for (size_t i = 0; i < n_inputs; i++) {
        n += engine->profile[i].name != NULL;
    }
    kiln_enc_u64(e, n);
    for (size_t i = 0; i < n_inputs; i++) {
        const kiln_shape_range *r = &engine->profile[i];
        if (!r->name) {
            continue;
        }
        kiln_enc_u32(e, (uint32_t)i);
        kiln_enc_u32(e, (uint32_t)r->rank);
        for (int32_t d = 0; d < r->rank; d++) {
            kiln_enc_u64(e, (uint64_t)r->min[d]);
            kiln_enc_u64(e, (uint64_t)r->opt[d]);
            kiln_enc_u64(e, (uint64_t)r->max[d]);
        }
    }
}

static void write_left_float(kiln_enc *e, const kiln_engine *engine) {
    kiln_enc_u64(e, engine->n_left_float);
    for (size_t i = 0; i < engine->n_left_float; i++) {
        kiln_enc_text(e, engine->left_float[i].node);
        kiln_enc_text(e, engine->left_float[i].reason);
    }
}

static void write_tried(kiln_enc *e, const kiln_engine *engine) {
    kiln_enc_u64(e, engine->n_tried);
    for (size_t i = 0; i < engine->n_tried; i++) {
        const kiln_tried_way *t = &engine->tried[i];
        kiln_enc_text(e, t->layer);
        kiln_enc_text(e, t->kernel);
        kiln_enc_text(e, t->tactic);
        kiln_enc_text(e, t->refused ? t->refused : "");
        kiln_enc_u32(e, t->chosen);
        kiln_enc_f64(e, t->ms);
        kiln_enc_f64(e, t->rules_ms);
    }
}

static void write_meta(kiln_enc *e, const kiln_engine *engine) {
    kiln_enc_text(e, engine->info.version);
    kiln_enc_text(e, engine->info.isa);
    kiln_enc_text(e, engine->info.model_hash);
    kiln_enc_text(e, engine->info.command);
    kiln_enc_u32(e, engine->info.portable);
    size_t n_off = 0;
    while (engine->off && engine->off[n_off]) {
        n_off++;
    }
    kiln_enc_u64(e, n_off);
    for (size_t i = 0; i < n_off; i++) {
        kiln_enc_text(e, engine->off[i]);
    }
    write_profile(e, engine);
    kiln_enc_u32(e, engine->n_widened);
    const bool limited = engine->workspace_bytes > 0;
    if (limited || engine->n_left_float > 0 || engine->n_tried > 0) {
        write_left_float(e, engine);
    }
    if (limited || engine->n_tried > 0) {
        write_tried(e, engine);
    }
    if (limited) {
        kiln_enc_u64(e, engine->workspace_bytes);
    }
}

static kiln_status write_kernel(saver *s, kiln_enc *e, const kiln_claim *claim) {
    const char *text = claim->kernel->name;
    if (claim->tactic > 0) {
        text = kiln_arena_printf(&s->arena, "%s/%s", text, kiln_tactic_name(claim));
        KILN_TRY(text ? KILN_OK : KILN_E_MEMORY);
    }
    kiln_enc_text(e, text);
    return KILN_OK;
}

static kiln_status write_plan(saver *s, kiln_enc *e, const kiln_plan *p) {
    kiln_enc_u64(e, p->n_claims);
    for (size_t i = 0; i < p->n_claims; i++) {
        KILN_TRY(write_kernel(s, e, p->claims[i]));
        kiln_enc_u32(e, (uint32_t)p->claims[i]->anchor->id);
        kiln_enc_u32(e, (uint32_t)p->claims[i]->n_nodes);
        kiln_enc_u64(e, (uint64_t)p->n_blobs[i]);
        for (int32_t b = 0; b < p->n_blobs[i]; b++) {
            kiln_extent x;
            KILN_TRY(add_piece(s, p->blobs[i][b].data, p->blobs[i][b].bytes, &x));
            kiln_enc_u64(e, x.offset);
            kiln_enc_u64(e, x.len);
            kiln_enc_u64(e, x.hash);
        }
    }
    kiln_enc_u64(e, p->n_bodies);
    for (size_t i = 0; i < p->n_bodies; i++) {
        KILN_TRY(write_plan(s, e, p->bodies[i]));
    }
    return e->oom ? KILN_E_MEMORY : KILN_OK;
}

typedef struct section {
    const void *data; /* NULL: the weights' pieces */
    uint64_t len, offset, align;
} section;

static bool has_tactics(const kiln_plan *p) {
    bool found = false;
    for (size_t i = 0; i < p->n_claims && !found; i++) {
        found = p->claims[i]->tactic > 0;
    }
    for (size_t i = 0; i < p->n_bodies && !found; i++) {
        found = has_tactics(p->bodies[i]);
    }
    return found;
}

static uint32_t oldest_reader(const kiln_engine *e) {
    return e->workspace_bytes > 0            ? KILN_FORMAT_WORKSPACE
           : e->plan && has_tactics(e->plan) ? KILN_FORMAT_TACTICS
           : e->profile                      ? KILN_FORMAT_PROFILE
                                             : KILN_FORMAT_OLDEST;
}

/* Header and table, hashed with the hash field zero. */
static void write_front(kiln_enc *e, const section *sections, uint64_t file_bytes,
                        uint32_t oldest_reader) {
    kiln_enc_bytes(e, kiln_engine_magic, sizeof kiln_engine_magic);
    kiln_enc_u32(e, KILN_FORMAT_VERSION);
    kiln_enc_u32(e, oldest_reader);
    kiln_enc_u64(e, file_bytes);
    kiln_enc_u32(e, KILN_SECTION_COUNT);
    kiln_enc_u32(e, 0);
    size_t hash_at = e->len;
    for (int i = 0; i < 4; i++) {
        kiln_enc_u64(e, 0);
    }
    for (uint32_t i = 0; i < KILN_SECTION_COUNT; i++) {
        const section *x = &sections[i];
        kiln_enc_u64(e, i);
        kiln_enc_u64(e, x->offset);
        kiln_enc_u64(e, x->len);
        kiln_enc_u64(e, x->align);
        kiln_enc_u64(e, x->data ? kiln_hash_64(x->data, x->len) : 0);
        kiln_enc_u64(e, 0);
    }
    if (!e->oom) {
        uint64_t hash = kiln_hash_64(e->data, e->len);
        for (int i = 0; i < 8; i++) {
            e->data[hash_at + (size_t)i] = (uint8_t)(hash >> (8 * i));
        }
    }
}

/* ---- Output ---- */

typedef struct sink {
    kiln_status (*put)(struct sink *self, const void *data, size_t len);
    kiln_writer *writer;
    uint8_t *memory;
    uint64_t at;
    kiln_diag *diag;
} sink;

static kiln_status put_file(sink *self, const void *data, size_t len) {
    self->at += len;
    return kiln_writer_put(self->writer, data, len, self->diag);
}

static kiln_status put_memory(sink *self, const void *data, size_t len) {
    memcpy(self->memory + self->at, data, len);
    self->at += len;
    return KILN_OK;
}

static kiln_status pad_to(sink *k, uint64_t offset) {
    static const uint8_t zeros[4096];
    while (k->at < offset) {
        uint64_t n = offset - k->at;
        KILN_TRY(k->put(k, zeros, n < sizeof zeros ? (size_t)n : sizeof zeros));
    }
    return KILN_OK;
}

static kiln_status emit(const saver *s, const kiln_enc *front, const section *sections, sink *k) {
    KILN_TRY(k->put(k, front->data, front->len));
    for (int i = 0; i < KILN_SECTION_COUNT; i++) {
        KILN_TRY(pad_to(k, sections[i].offset));
        if (sections[i].data) {
            KILN_TRY(k->put(k, sections[i].data, sections[i].len));
        }
    }
    uint64_t base = sections[KILN_SECTION_WEIGHTS].offset;
    for (size_t i = 0; i < s->n_pieces; i++) {
        KILN_TRY(k->put(k, s->pieces[i].data, s->pieces[i].len));
        KILN_TRY(pad_to(k, base + align_up(k->at - base, KILN_PIECE_ALIGN)));
    }
    return KILN_OK;
}

/* Encodes everything; `open` makes the sink once the length is known. */
typedef kiln_status (*open_fn)(void *user, uint64_t bytes, sink *out);

static kiln_status save(saver *s, open_fn open, void *user) {
    const kiln_engine *engine = s->engine;
    kiln_enc encs[3] = {{.arena = &s->arena}, {.arena = &s->arena}, {.arena = &s->arena}};
    KILN_ALLOC(s->needed, &s->arena, engine->graph->n_values);
    mark_needed(s, engine->plan);
    write_meta(&encs[0], engine);
    KILN_TRY(kiln_graph_write(&encs[1], engine->graph, place_constant, s));
    KILN_TRY(write_plan(s, &encs[2], engine->plan));
    section sections[KILN_SECTION_COUNT];
    uint64_t at = KILN_HEADER_BYTES + KILN_SECTION_COUNT * KILN_ENTRY_BYTES;
    for (int i = 0; i < KILN_SECTION_COUNT; i++) {
        bool weights = i == KILN_SECTION_WEIGHTS;
        sections[i] = (section){.align = weights ? 4096 : 64};
        sections[i].data = weights ? NULL : encs[i].data;
        sections[i].len = weights ? s->weight_bytes : encs[i].len;
        sections[i].offset = align_up(at, sections[i].align);
        at = sections[i].offset + sections[i].len;
        if (!weights && encs[i].oom) {
            return KILN_E_MEMORY;
        }
    }
    kiln_enc front = {.arena = &s->arena};
    write_front(&front, sections, at, oldest_reader(engine));
    if (front.oom) {
        return KILN_E_MEMORY;
    }
    sink k = {.diag = s->diag};
    KILN_TRY(open(user, at, &k));
    return emit(s, &front, sections, &k);
}

static kiln_status run_save(const kiln_engine *engine, open_fn open, void *user, kiln_diag *diag) {
    if (!engine->plan) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "the engine was built with canonical_only and cannot be saved");
    }
    saver s = {.engine = engine, .diag = diag};
    kiln_arena_init(&s.arena, engine->env);
    kiln_status status = save(&s, open, user);
    kiln_arena_free(&s.arena);
    return status;
}

static kiln_status open_file(void *user, uint64_t bytes, sink *out) {
    (void)bytes;
    out->put = put_file;
    out->writer = user;
    return KILN_OK;
}

kiln_status kiln_engine_save(const kiln_engine *engine, const char *path, kiln_diag *diag) {
    kiln_writer writer;
    if (!path) {
        return kiln_fail(diag, KILN_F_OPTION, "there is no path to save the engine to");
    }
    kiln_diag_enter(diag, "saving %s", path);
    kiln_status status = kiln_writer_open(&writer, path, diag);
    if (status == KILN_OK) {
        status = run_save(engine, open_file, &writer, diag);
        if (status == KILN_OK) {
            status = kiln_writer_commit(&writer, diag);
        }
        kiln_writer_abandon(&writer);
    }
    kiln_diag_leave(diag);
    return kiln_diag_close(diag, status);
}

typedef struct buffer {
    const kiln_env *env;
    void *data;
    size_t len;
} buffer;

static kiln_status open_memory(void *user, uint64_t bytes, sink *out) {
    buffer *b = user;
    b->data = kiln_env_alloc(b->env, (size_t)bytes);
    b->len = (size_t)bytes;
    out->put = put_memory;
    out->memory = b->data;
    return b->data ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_engine_save_memory(const kiln_engine *engine, void **out, size_t *len,
                                    kiln_diag *diag) {
    buffer b = {.env = engine->env};
    kiln_status status = run_save(engine, open_memory, &b, diag);
    if (status != KILN_OK) {
        kiln_env_release(engine->env, b.data, b.len);
        return kiln_diag_close(diag, status);
    }
    *out = b.data;
    *len = b.len;
    return kiln_diag_close(diag, KILN_OK);
}
