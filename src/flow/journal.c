#include "flow/journal.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/file.h"
#include "base/json.h"

enum { MAX_FILE_BYTES = 16 << 20, KEY_DIGITS = 32 };
static const char schema[] = "kiln.study/1";

typedef struct item {
    const char *name;
    double numbers[KILN_JOURNAL_NUMBERS];
} item;

struct kiln_journal {
    const kiln_env *env;
    kiln_arena arena;
    const char *path; /* NULL: not kept */
    char key[KEY_DIGITS + 1];
    item **items; /* do not move: find hands out their numbers */
    size_t count, cap, resumed;
};

/* ---- Items ---- */

static item *find(const kiln_journal *j, const char *name) {
    for (size_t i = 0; i < j->count; i++) {
        if (strcmp(j->items[i]->name, name) == 0) {
            return j->items[i];
        }
    }
    return NULL;
}

static kiln_status put(kiln_journal *j, const char *name, const double *numbers, size_t n) {
    item *it = find(j, name);
    if (!it) {
        KILN_ALLOC(it, &j->arena, 1);
        it->name = kiln_arena_text(&j->arena, name, strlen(name));
        KILN_TRY(it->name ? KILN_OK : KILN_E_MEMORY);
        KILN_PUSH(&j->arena, j->items, j->count, j->cap, it);
    }
    for (size_t i = 0; i < KILN_JOURNAL_NUMBERS; i++) {
        it->numbers[i] = i < n ? numbers[i] : 0;
    }
    return KILN_OK;
}

/* ---- Reading ---- */

static kiln_status damaged(kiln_diag *diag, size_t line) {
    return kiln_hint(diag,
                     kiln_fail(diag, KILN_F_DATA_FORMAT, "line %zu is no record of a study", line),
                     "remove the file to begin anew");
}

static kiln_status read_key(const kiln_journal *j, const json_t *record, kiln_diag *diag) {
    const char *said = json_string_value(json_object_get(record, "schema"));
    const char *key = json_string_value(json_object_get(record, "key"));
    if (!said || strcmp(said, schema) != 0 || !key) {
        return damaged(diag, 1);
    }
    if (strcmp(key, j->key) != 0) {
        return kiln_hint(diag,
                         kiln_fail(diag, KILN_F_OPTION,
                                   "the file is of another study: model, data or options differ"),
                         "name another file, or remove this one");
    }
    return KILN_OK;
}

static kiln_status read_item(kiln_journal *j, const json_t *record, size_t line, kiln_diag *diag) {
    const char *name = json_string_value(json_object_get(record, "item"));
    const json_t *list = json_object_get(record, "numbers");
    double numbers[KILN_JOURNAL_NUMBERS] = {0};
    size_t n = json_array_size(list);
    if (!name || !json_is_array(list) || n > KILN_JOURNAL_NUMBERS) {
        return damaged(diag, line);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_array_get(list, i);
        numbers[i] = json_is_number(x) ? json_number_value(x) : NAN;
    }
    return put(j, name, numbers, n);
}

static kiln_status read_line(kiln_journal *j, const char *text, size_t len, size_t line,
                             kiln_diag *diag) {
    json_t *record = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (!record) {
        return damaged(diag, line);
    }
    kiln_status status = line == 1 ? read_key(j, record, diag) : read_item(j, record, line, diag);
    json_decref(record);
    return status;
}

static kiln_status read_all(kiln_journal *j, const char *text, size_t bytes, kiln_diag *diag) {
    size_t line = 0;
    for (const char *at = text, *end = text + bytes; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((stop ? stop : end) - at);
        KILN_TRY(read_line(j, at, len, ++line, diag));
        at += len + 1;
    }
    j->resumed = j->count;
    return line > 0 ? KILN_OK : damaged(diag, 1);
}

static kiln_status read_file(kiln_journal *j, kiln_diag *diag) {
    kiln_file file;
    if (access(j->path, F_OK) != 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_file_open(&file, j->env, j->path, MAX_FILE_BYTES, KILN_FILE_COPY, diag));
    kiln_diag_at_file(diag, j->path);
    kiln_status status = read_all(j, (const char *)file.data, file.bytes, diag);
    kiln_diag_at_file(diag, NULL);
    kiln_file_close(&file);
    return status;
}

/* ---- Writing ---- */

static void write_key(kiln_json *json, const kiln_journal *j) {
    kiln_json_open(json, '{');
    kiln_json_key(json, "schema");
    kiln_json_string(json, schema);
    kiln_json_key(json, "key");
    kiln_json_string(json, j->key);
    kiln_json_close(json);
}

static void write_item(kiln_json *json, const item *it) {
    kiln_json_open(json, '{');
    kiln_json_key(json, "item");
    kiln_json_string(json, it->name);
    kiln_json_key(json, "numbers");
    kiln_json_open(json, '[');
    for (size_t i = 0; i < KILN_JOURNAL_NUMBERS; i++) {
        kiln_json_double(json, it->numbers[i]);
    }
    kiln_json_close(json);
    kiln_json_close(json);
}

static kiln_status write_file(const kiln_journal *j, kiln_diag *diag) {
    kiln_text text;
    kiln_status status = KILN_OK;
    kiln_text_init(&text, j->env);
    for (size_t i = 0; i <= j->count && status == KILN_OK; i++) {
        kiln_json json;
        kiln_json_init(&json, &text, 0);
        if (i == 0) {
            write_key(&json, j);
        } else {
            write_item(&json, j->items[i - 1]);
        }
        status = kiln_json_finish(&json);
        kiln_text_char(&text, '\n');
    }
    status = status == KILN_OK && !kiln_text_ok(&text) ? KILN_E_MEMORY : status;
    status = status == KILN_OK ? kiln_file_write(j->path, text.data, text.len, diag) : status;
    kiln_text_free(&text);
    return status;
}

/* ---- Verbs ---- */

kiln_status kiln_journal_open(kiln_journal **out, const char *path, kiln_hash128 key,
                              const kiln_env *env, kiln_diag *diag) {
    const uint64_t parts[] = {key.high, key.low};
    kiln_journal *j = kiln_env_alloc(env, sizeof *j);
    if (!j) {
        return KILN_E_MEMORY;
    }
    memset(j, 0, sizeof *j);
    j->env = env;
    j->path = path;
    kiln_arena_init(&j->arena, env);
    kiln_hex(j->key, (const uint8_t *)parts, sizeof parts);
    kiln_status status = path ? read_file(j, diag) : KILN_OK;
    if (status != KILN_OK) {
        kiln_journal_close(j);
        return status;
    }
    *out = j;
    return KILN_OK;
}

void kiln_journal_close(kiln_journal *journal) {
    if (journal) {
        kiln_arena_free(&journal->arena);
        kiln_env_release(journal->env, journal, sizeof *journal);
    }
}

const double *kiln_journal_find(const kiln_journal *journal, const char *item_name) {
    const item *it = find(journal, item_name);
    return it ? it->numbers : NULL;
}

kiln_status kiln_journal_add(kiln_journal *journal, const char *item_name, const double *numbers,
                             size_t n, kiln_diag *diag) {
    KILN_TRY(put(journal, item_name, numbers, n));
    return journal->path ? write_file(journal, diag) : KILN_OK;
}

size_t kiln_journal_resumed(const kiln_journal *journal) {
    return journal->resumed;
}
