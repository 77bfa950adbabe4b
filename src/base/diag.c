/* Findings live in the diag's arena, each remembering where the arena stood before it, so that
 * dropping the newest ones gives their memory back. One finding is kept in reserve: when memory
 * runs out, a failure is still recorded, with the meaning of its code for a sentence. */
#include "base/diag.h"

#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/checked.h"
#include "base/env.h"
#include "base/text.h"

enum {
    MAX_CHAIN = 16,
    CHAIN_BYTES = 1024,
    /* A message is kept whole up to this; of a longer one (names come from the file) the beginning
     * and the end. */
    MESSAGE_BYTES = 1024,
    HEAD_BYTES = 600,
    TAIL_BYTES = 360,
    NAME_BYTES = 200,
    /* Warnings and notes stop being recorded here, errors at twice that. */
    MAX_FINDINGS = 65536,
};

typedef struct entry {
    kiln_finding finding;
    kiln_arena_mark before;
} entry;

struct kiln_diag {
    const kiln_env *env;
    kiln_arena arena;
    entry **entries;
    size_t count, cap;
    entry reserve;
    entry *first_entries[8]; /* serves as `entries` at first */
    const char *file;
    const char *node;
    const char *op;
    int64_t offset;
    char chain[CHAIN_BYTES]; /* the jobs, outermost first, joined by " > " */
    size_t chain_len;
    size_t chain_ends[MAX_CHAIN]; /* chain_len before each job */
    int depth;                    /* may exceed MAX_CHAIN */
};

static const struct {
    const char *code;
    kiln_status status;
    const char *meaning;
} table[KILN_F_COUNT] = {
#define KILN_FINDING(name, code, status, meaning) [KILN_F_##name] = {code, status, meaning},
#include "base/diag.def"
#undef KILN_FINDING
};

const char *kiln_finding_meaning(const char *code) {
    for (size_t i = 0; code && i < KILN_COUNT_OF(table); i++) {
        if (strcmp(table[i].code, code) == 0) {
            return table[i].meaning;
        }
    }
    return NULL;
}

kiln_status kiln_diag_create(kiln_diag **out, const kiln_env *env) {
    kiln_diag *diag = kiln_env_alloc(env, sizeof *diag);
    if (!diag) {
        return KILN_E_MEMORY;
    }
    *diag = (kiln_diag){.env = env, .offset = -1};
    diag->entries = diag->first_entries;
    diag->cap = KILN_COUNT_OF(diag->first_entries);
    kiln_arena_init(&diag->arena, env);
    *out = diag;
    return KILN_OK;
}

static void release_entries(kiln_diag *diag) {
    if (diag->entries != diag->first_entries) {
        kiln_env_release(diag->env, diag->entries, diag->cap * sizeof *diag->entries);
    }
}

void kiln_diag_destroy(kiln_diag *diag) {
    if (diag) {
        release_entries(diag);
        kiln_arena_free(&diag->arena);
        kiln_env_release(diag->env, diag, sizeof *diag);
    }
}

void kiln_diag_clear(kiln_diag *diag) {
    if (diag) {
        diag->count = 0;
        kiln_arena_free(&diag->arena);
    }
}

size_t kiln_diag_count(const kiln_diag *diag) {
    return diag ? diag->count : 0;
}

const kiln_finding *kiln_diag_get(const kiln_diag *diag, size_t i) {
    return diag && i < diag->count ? &diag->entries[i]->finding : NULL;
}

void kiln_diag_truncate(kiln_diag *diag, size_t count) {
    if (diag && count < diag->count) {
        kiln_arena_rewind(&diag->arena, diag->entries[count]->before);
        diag->count = count;
    }
}

void kiln_diag_at_file(kiln_diag *diag, const char *path) {
    if (diag) {
        diag->file = path;
    }
}

void kiln_diag_at_offset(kiln_diag *diag, int64_t offset) {
    if (diag) {
        diag->offset = offset;
    }
}

void kiln_diag_at_node(kiln_diag *diag, const char *node, const char *op) {
    if (diag) {
        diag->node = node;
        diag->op = op;
    }
}

void kiln_diag_enter(kiln_diag *diag, const char *fmt, ...) {
    if (!diag || diag->depth++ >= MAX_CHAIN) {
        return;
    }
    diag->chain_ends[diag->depth - 1] = diag->chain_len;
    kiln_text text;
    kiln_text_init_fixed(&text, diag->chain + diag->chain_len, CHAIN_BYTES - diag->chain_len);
    kiln_text_puts(&text, diag->chain_len ? " > " : "");
    va_list args;
    va_start(args, fmt);
    kiln_text_vprintf(&text, fmt, args);
    va_end(args);
    diag->chain_len += strlen(diag->chain + diag->chain_len);
}

void kiln_diag_leave(kiln_diag *diag) {
    if (diag && diag->depth > 0 && --diag->depth < MAX_CHAIN) {
        diag->chain_len = diag->chain_ends[diag->depth];
        diag->chain[diag->chain_len] = '\0';
    }
}

/* Makes room for one more pointer. */
static bool reserve_entry(kiln_diag *diag) {
    if (diag->count < diag->cap) {
        return true;
    }
    size_t cap = diag->cap * 2;
    entry **entries = kiln_env_alloc(diag->env, cap * sizeof(*entries));
    if (!entries) {
        return false;
    }
    memcpy(entries, diag->entries, diag->count * sizeof(*entries));
    release_entries(diag);
    diag->entries = entries;
    diag->cap = cap;
    return true;
}

/* The start of the character that byte `at` of str belongs to. */
static size_t character_start(const char *str, size_t at) {
    size_t i = at;
    while (i > 0 && at - i < 4 && ((unsigned char)str[i] & 0xC0) == 0x80) {
        i--;
    }
    return i;
}

/* The sentence in the arena, its middle left out when it is long; NULL when out of memory. */
static const char *format_sentence(kiln_diag *diag, const char *fmt, va_list args) {
    kiln_arena_mark mark = kiln_arena_here(&diag->arena);
    const char *whole = kiln_arena_vprintf(&diag->arena, fmt, args);
    size_t len = whole ? strlen(whole) : 0;
    if (len <= MESSAGE_BYTES) {
        return whole;
    }
    char part[MESSAGE_BYTES + 1];
    size_t tail = character_start(whole, len - TAIL_BYTES);
    snprintf(part, sizeof part, "%.*s ... %.*s", (int)character_start(whole, HEAD_BYTES), whole,
             TAIL_BYTES + 4, whole + tail);
    kiln_arena_rewind(&diag->arena, mark);
    return kiln_arena_text(&diag->arena, part, strlen(part));
}

/* A copy of str, or `same` when that is already one; NULL stays NULL. Long names are cut. */
static bool keep(kiln_diag *diag, const char *str, const char *same, const char **out) {
    *out = NULL;
    if (!str || (same && strcmp(str, same) == 0)) {
        *out = str ? same : NULL;
        return true;
    }
    size_t len = strlen(str);
    if (len > MESSAGE_BYTES) {
        len = character_start(str, MESSAGE_BYTES);
    }
    *out = kiln_arena_text(&diag->arena, str, len);
    return *out != NULL;
}

static bool record(kiln_diag *diag, entry *made, const char *fmt, va_list args) {
    kiln_finding *f = &made->finding;
    kiln_finding none = {0};
    const kiln_finding *last = diag->count ? &diag->entries[diag->count - 1]->finding : &none;
    f->message = format_sentence(diag, fmt, args);
    f->offset = diag->offset;
    return f->message && keep(diag, diag->file, last->file, &f->file) &&
           keep(diag, diag->node, last->node, &f->node) && keep(diag, diag->op, last->op, &f->op) &&
           keep(diag, diag->chain_len ? diag->chain : NULL, last->chain, &f->chain);
}

static bool reserve_in_use(const kiln_diag *diag) {
    for (size_t i = 0; i < diag->count; i++) {
        if (diag->entries[i] == &diag->reserve) {
            return true;
        }
    }
    return false;
}

static void append(kiln_diag *diag, kiln_finding_id id, kiln_severity severity, const char *fmt,
                   va_list args) {
    size_t most = severity == KILN_SEV_ERROR ? 2 * MAX_FINDINGS : MAX_FINDINGS;
    if (!diag || diag->count >= most) {
        return;
    }
    if (!reserve_entry(diag)) {
        if (severity != KILN_SEV_ERROR) {
            return;
        }
        diag->count--; /* the error matters more than what stands newest */
    }
    kiln_finding blank = {
        .severity = severity,
        .status = severity == KILN_SEV_ERROR ? table[id].status : KILN_OK,
        .code = table[id].code,
        .message = table[id].meaning,
        .offset = -1,
    };
    kiln_arena_mark before = kiln_arena_here(&diag->arena);
    entry *made = kiln_arena_array(&diag->arena, 1, sizeof *made);
    if (made) {
        *made = (entry){blank, before};
    }
    if (!made || !record(diag, made, fmt, args)) {
        kiln_arena_rewind(&diag->arena, before);
        if (severity != KILN_SEV_ERROR || reserve_in_use(diag)) {
            return;
        }
        made = &diag->reserve;
        *made = (entry){blank, before};
    }
    diag->entries[diag->count++] = made;
}

kiln_status kiln_fail(kiln_diag *diag, kiln_finding_id id, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    append(diag, id, KILN_SEV_ERROR, fmt, args);
    va_end(args);
    return table[id].status;
}

void kiln_warn(kiln_diag *diag, kiln_finding_id id, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    append(diag, id, KILN_SEV_WARNING, fmt, args);
    va_end(args);
}

void kiln_note(kiln_diag *diag, kiln_finding_id id, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    append(diag, id, KILN_SEV_NOTE, fmt, args);
    va_end(args);
}

kiln_status kiln_hint(kiln_diag *diag, kiln_status status, const char *fmt, ...) {
    if (diag && diag->count) {
        va_list args;
        va_start(args, fmt);
        diag->entries[diag->count - 1]->finding.hint = format_sentence(diag, fmt, args);
        va_end(args);
    }
    return status;
}

kiln_status kiln_diag_close(kiln_diag *diag, kiln_status status) {
    /* Names of nodes belong to objects that may be gone by now. */
    kiln_diag_at_node(diag, NULL, NULL);
    kiln_diag_at_offset(diag, -1);
    if (status != KILN_E_MEMORY || !diag) {
        return status;
    }
    for (size_t i = 0; i < diag->count; i++) {
        if (diag->entries[i]->finding.status == KILN_E_MEMORY) {
            return status;
        }
    }
    return kiln_fail(diag, KILN_F_MEMORY, "out of memory");
}

static void put_name(kiln_text *text, const char *name) {
    kiln_text_escape(text, name, strlen(name), NAME_BYTES);
}

/* `net.onnx (offset 0x1a40): node "c" (Conv): `, as far as it is known. */
static void put_place(kiln_text *text, const kiln_finding *f) {
    if (f->file) {
        put_name(text, f->file);
    }
    if (f->offset >= 0) {
        kiln_text_printf(text, "%s(offset 0x%llx)", f->file ? " " : "",
                         (unsigned long long)f->offset);
    }
    if (f->file || f->offset >= 0) {
        kiln_text_puts(text, ": ");
    }
    if (f->node && f->node[0]) {
        kiln_text_puts(text, "node \"");
        put_name(text, f->node);
        kiln_text_char(text, '"');
    } else if (f->op) {
        kiln_text_puts(text, "unnamed node");
    }
    if (f->op) {
        kiln_text_puts(text, " (");
        put_name(text, f->op);
        kiln_text_char(text, ')');
    }
    if ((f->node && f->node[0]) || f->op) {
        kiln_text_puts(text, ": ");
    }
}

size_t kiln_finding_format(const kiln_finding *f, char *buf, size_t cap_bytes) {
    static const char *const severities[] = {"error", "warning", "note"};
    kiln_text text;
    kiln_text_init_fixed(&text, buf, cap_bytes);
    kiln_text_printf(&text, "%s[%s] ", severities[f->severity], f->code);
    put_place(&text, f);
    kiln_text_escape(&text, f->message, strlen(f->message), 0);
    if (f->chain) {
        kiln_text_puts(&text, "\nwhile ");
        kiln_text_escape(&text, f->chain, strlen(f->chain), 0);
    }
    if (f->hint) {
        kiln_text_puts(&text, "\nhint: ");
        kiln_text_escape(&text, f->hint, strlen(f->hint), 0);
    }
    return text.len;
}
