#include "flow/timings.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/file.h"
#include "base/json.h"

enum { MAX_FILE_BYTES = 256 << 20, MAX_LINE_BYTES = 4096, KEY_DIGITS = 32, BUCKETS = 1 << 12 };
static const char schema[] = "kiln.timing/1";

typedef struct entry {
    struct entry *next;
    char key[KEY_DIGITS + 1];
    const char *way;
    kiln_timing timing;
} entry;

struct kiln_timings {
    const kiln_env *env;
    kiln_arena arena;
    const char *path;
    int fd; /* open for appending, or -1 */
    size_t skipped;
    entry *buckets[BUCKETS];
};

/* ---- Entries ---- */

static void key_text(char *dst, kiln_hash128 key) {
    uint8_t bytes[sizeof(uint64_t) * 2];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(key.high >> (56 - 8 * i));
        bytes[8 + i] = (uint8_t)(key.low >> (56 - 8 * i));
    }
    kiln_hex(dst, bytes, sizeof bytes);
}

static size_t bucket_of(const char *key, const char *way) {
    return (kiln_hash_64(key, strlen(key)) ^ kiln_hash_64(way, strlen(way))) % BUCKETS;
}

static entry *find(const kiln_timings *t, const char *key, const char *way) {
    entry *e = t->buckets[bucket_of(key, way)];
    while (e && (strcmp(e->key, key) != 0 || strcmp(e->way, way) != 0)) {
        e = e->next;
    }
    return e;
}

static kiln_status put(kiln_timings *t, const char *key, const char *way,
                       const kiln_timing *timing) {
    entry *e = find(t, key, way);
    if (!e) {
        entry **head = &t->buckets[bucket_of(key, way)];
        KILN_ALLOC(e, &t->arena, 1);
        memcpy(e->key, key, sizeof e->key);
        e->way = kiln_arena_text(&t->arena, way, strlen(way));
        KILN_TRY(e->way ? KILN_OK : KILN_E_MEMORY);
        e->next = *head;
        *head = e;
    }
    e->timing = *timing;
    if (timing->refused) {
        e->timing.refused = kiln_arena_text(&t->arena, timing->refused, strlen(timing->refused));
        KILN_TRY(e->timing.refused ? KILN_OK : KILN_E_MEMORY);
    }
    return KILN_OK;
}

/* ---- Reading ---- */

static bool read_number(const json_t *record, const char *name, double *out) {
    const json_t *x = json_object_get(record, name);
    *out = json_is_number(x) ? json_number_value(x) : NAN;
    return isfinite(*out) && *out >= 0;
}

/* False: it is no record of a time. */
static bool read_record(const json_t *record, const char **key, const char **way,
                        kiln_timing *out) {
    double rounds;
    const char *said = json_string_value(json_object_get(record, "schema"));
    *key = json_string_value(json_object_get(record, "key"));
    *way = json_string_value(json_object_get(record, "way"));
    out->refused = json_string_value(json_object_get(record, "refused"));
    bool right = said && strcmp(said, schema) == 0 && *key && strlen(*key) == KEY_DIGITS && *way &&
                 read_number(record, "rules_ms", &out->race.a_ms) &&
                 read_number(record, "ms", &out->race.b_ms) &&
                 read_number(record, "ratio", &out->race.ratio) &&
                 read_number(record, "wins", &out->race.wins) &&
                 read_number(record, "rounds", &rounds) && rounds <= 1e9;
    out->race.rounds = right ? (int64_t)rounds : 0;
    return right;
}

static kiln_status read_line(kiln_timings *t, const char *text, size_t len) {
    const char *key, *way;
    kiln_timing timing;
    json_t *record = len > 0 && len <= MAX_LINE_BYTES ? json_loadb(text, len, 0, NULL) : NULL;
    kiln_status status = KILN_OK;
    if (record && read_record(record, &key, &way, &timing)) {
        status = put(t, key, way, &timing);
    } else if (len > 0) {
        t->skipped++;
    }
    json_decref(record);
    return status;
}

static kiln_status read_all(kiln_timings *t, const char *text, size_t bytes) {
    for (const char *at = text, *end = text + bytes; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((stop ? stop : end) - at);
        KILN_TRY(read_line(t, at, len));
        at += len + 1;
    }
    return KILN_OK;
}

static kiln_status open_file(kiln_timings *t, kiln_diag *diag) {
    kiln_file file;
    bool cut = false; /* another build was killed while it wrote the last line */
    if (access(t->path, F_OK) == 0) {
        KILN_TRY(kiln_file_open(&file, t->env, t->path, MAX_FILE_BYTES, KILN_FILE_COPY, diag));
        cut = file.bytes > 0 && file.data[file.bytes - 1] != '\n';
        kiln_status status = read_all(t, (const char *)file.data, file.bytes);
        kiln_file_close(&file);
        KILN_TRY(status);
    }
    t->fd = open(t->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
    if (t->fd < 0 || (cut && write(t->fd, "\n", 1) != 1)) {
        return kiln_fail(diag, KILN_F_FILE_WRITE, "%s cannot be written: %s", t->path,
                         strerror(errno));
    }
    if (t->skipped > 0) {
        kiln_warn(diag, KILN_F_DATA_FORMAT, "%s: %zu lines are no timings and are not heeded",
                  t->path, t->skipped);
    }
    return KILN_OK;
}

kiln_status kiln_timings_open(kiln_timings **out, const char *path, const kiln_env *env,
                              kiln_diag *diag) {
    kiln_timings *t = kiln_env_alloc(env, sizeof *t);
    if (!t) {
        return KILN_E_MEMORY;
    }
    *t = (kiln_timings){.env = env, .path = path, .fd = -1};
    kiln_arena_init(&t->arena, env);
    kiln_status status = path ? open_file(t, diag) : KILN_OK;
    if (status == KILN_OK) {
        *out = t;
    } else {
        kiln_timings_close(t);
    }
    return status;
}

void kiln_timings_close(kiln_timings *t) {
    if (t) {
        const kiln_env *env = t->env;
        if (t->fd >= 0) {
            close(t->fd);
        }
        kiln_arena_free(&t->arena);
        kiln_env_release(env, t, sizeof *t);
    }
}

/* ---- Looking up and adding ---- */

const kiln_timing *kiln_timings_find(const kiln_timings *t, kiln_hash128 key, const char *way) {
    char text[KEY_DIGITS + 1];
    key_text(text, key);
    const entry *e = find(t, text, way);
    return e ? &e->timing : NULL;
}

static void number(kiln_json *json, const char *name, double x) {
    kiln_json_key(json, name);
    kiln_json_double(json, x);
}

static void write_record(kiln_json *json, const char *key, const char *way,
                         const kiln_timing *timing) {
    kiln_json_open(json, '{');
    kiln_json_key(json, "schema");
    kiln_json_string(json, schema);
    kiln_json_key(json, "key");
    kiln_json_string(json, key);
    kiln_json_key(json, "way");
    kiln_json_string(json, way);
    number(json, "rules_ms", timing->race.a_ms);
    number(json, "ms", timing->race.b_ms);
    number(json, "ratio", timing->race.ratio);
    number(json, "wins", timing->race.wins);
    number(json, "rounds", (double)timing->race.rounds);
    if (timing->refused) {
        kiln_json_key(json, "refused");
        kiln_json_string(json, timing->refused);
    }
    kiln_json_close(json);
}

static kiln_status append(kiln_timings *t, const char *key, const char *way,
                          const kiln_timing *timing, kiln_diag *diag) {
    kiln_text text;
    kiln_json json;
    kiln_text_init(&text, t->env);
    kiln_json_init(&json, &text, 0);
    write_record(&json, key, way, timing);
    kiln_status status = kiln_json_finish(&json);
    kiln_text_char(&text, '\n');
    status = status == KILN_OK && !kiln_text_ok(&text) ? KILN_E_MEMORY : status;
    if (status == KILN_OK && write(t->fd, text.data, text.len) != (ssize_t)text.len) {
        status = kiln_fail(diag, KILN_F_FILE_WRITE, "%s cannot be written: %s", t->path,
                           strerror(errno));
    }
    kiln_text_free(&text);
    return status;
}

kiln_status kiln_timings_add(kiln_timings *t, kiln_hash128 key, const char *way,
                             const kiln_timing *timing, kiln_diag *diag) {
    char text[KEY_DIGITS + 1];
    key_text(text, key);
    KILN_TRY(put(t, text, way, timing));
    return t->fd >= 0 ? append(t, text, way, timing, diag) : KILN_OK;
}
