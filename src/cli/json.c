/* json.c - writing JSON to a stream: commas, indentation and escapes. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static void before(json *j) {
    if (j->keyed) {
        j->keyed = false;
        return;
    }
    if (j->depth == 0) {
        return;
    }
    fputs(j->started[j->depth] ? ",\n" : "\n", j->to);
    j->started[j->depth] = true;
    fprintf(j->to, "%*s", j->depth, "");
}

void json_open(json *j, char kind) {
    before(j);
    fputc(kind, j->to);
    j->depth++;
    j->started[j->depth] = false;
    j->object[j->depth] = kind == '{';
}

void json_close(json *j) {
    bool object = j->object[j->depth];
    bool any = j->started[j->depth];
    j->depth--;
    if (any) {
        fprintf(j->to, "\n%*s", j->depth, "");
    }
    fputc(object ? '}' : ']', j->to);
}

/* Length of the well-formed UTF-8 character at p, 0 for none: RFC 3629, table in section 4. */
static size_t utf8_length(const unsigned char *p) {
    static const struct {
        unsigned char first_min, first_max, second_min, second_max;
        size_t length;
    } rows[] = {{0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
                {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3},
                {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
                {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};
    if (p[0] < 0x80) {
        return 1;
    }
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (p[0] < rows[i].first_min || p[0] > rows[i].first_max) {
            continue;
        }
        if (p[1] < rows[i].second_min || p[1] > rows[i].second_max) {
            return 0;
        }
        for (size_t k = 2; k < rows[i].length; k++) {
            if (p[k] < 0x80 || p[k] > 0xBF) {
                return 0;
            }
        }
        return rows[i].length;
    }
    return 0;
}

static void quoted(FILE *to, const char *text) {
    fputc('"', to);
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        size_t n = utf8_length(p);
        if (*p == '"' || *p == '\\') {
            fprintf(to, "\\%c", *p);
        } else if (*p < 0x20 || *p == 0x7F) {
            fprintf(to, "\\u%04x", *p);
        } else if (n == 0) {
            fputs("\\ufffd", to);
        } else {
            fwrite(p, 1, n, to);
        }
        p += n ? n : 1;
    }
    fputc('"', to);
}

void json_key(json *j, const char *key) {
    before(j);
    quoted(j->to, key);
    fputs(": ", j->to);
    j->keyed = true;
}

void json_text(json *j, const char *text) {
    before(j);
    if (text) {
        quoted(j->to, text);
    } else {
        fputs("null", j->to);
    }
}

void json_int(json *j, int64_t x) {
    before(j);
    fprintf(j->to, "%lld", (long long)x);
}

/* The fewest digits that read back as the same number. */
void json_number(json *j, double x) {
    char text[32];
    before(j);
    if (!isfinite(x)) {
        fputs("null", j->to);
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) {
            break;
        }
    }
    fputs(text, j->to);
}

void json_bool(json *j, bool x) {
    before(j);
    fputs(x ? "true" : "false", j->to);
}

void json_key_text(json *j, const char *key, const char *text) {
    json_key(j, key);
    json_text(j, text);
}

void json_key_int(json *j, const char *key, int64_t x) {
    json_key(j, key);
    json_int(j, x);
}

void json_key_number(json *j, const char *key, double x) {
    json_key(j, key);
    json_number(j, x);
}

void json_key_bool(json *j, const char *key, bool x) {
    json_key(j, key);
    json_bool(j, x);
}

/* ---- What the records share ---- */

json json_begin_to(const cli *c, const char *schema, FILE *to) {
    json j = {.to = to};
    json_open(&j, '{');
    json_key_text(&j, "schema", schema);
    json_key_text(&j, "kiln", kiln_version());
    json_key_text(&j, "command", c->command);
    return j;
}

json json_begin(const cli *c, const char *schema) {
    return json_begin_to(c, schema, stdout);
}

void json_end(json *j) {
    json_close(j);
    fputc('\n', j->to);
}

void json_dims(json *j, const int64_t *dims, int32_t rank) {
    before(j);
    if (rank < 0) {
        fputs("null", j->to);
        return;
    }
    fputc('[', j->to);
    for (int32_t d = 0; d < rank; d++) {
        fprintf(j->to, dims[d] < 0 ? "%snull" : "%s%lld", d ? ", " : "", (long long)dims[d]);
    }
    fputc(']', j->to);
}

void json_stats(json *j, const char *key, const kiln_stats *s) {
    const struct {
        const char *key;
        double value;
    } rows[] = {{"min", s->min_ms},       {"max", s->max_ms},       {"mean", s->mean_ms},
                {"stddev", s->stddev_ms}, {"median", s->median_ms}, {"p90", s->p90_ms},
                {"p95", s->p95_ms},       {"p99", s->p99_ms}};
    json_key(j, key);
    json_open(j, '{');
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        json_key_number(j, rows[i].key, rows[i].value);
    }
    json_close(j);
}

void json_machine(json *j) {
    kiln_machine m;
    kiln_machine_describe(&m);
    json_key(j, "machine");
    json_open(j, '{');
    json_key_text(j, "cpu", m.cpu);
    json_key_text(j, "isa", m.isa);
    json_key_int(j, "cores_online", m.cores_online);
    json_key_int(j, "cores_allowed", m.cores_allowed);
    json_key_int(j, "cores_usable", m.cores_usable);
    json_key_int(j, "memory_bytes", (int64_t)m.memory_bytes);
    json_key_text(j, "governor", m.governor[0] ? m.governor : NULL);
    json_key_number(j, "load", m.load);
    json_close(j);
}

FILE *open_output(cli *c, const char *path) {
    FILE *f = fopen(path, "we");
    if (!f) {
        say(c, KILN_LOG_ERROR, "%s: %s", safe(path), strerror(errno));
    }
    return f;
}

int close_output(cli *c, FILE *f, const char *path) {
    bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed) {
        say(c, KILN_LOG_ERROR, "%s: %s", safe(path), strerror(errno));
        return kiln_status_exit_code(KILN_E_IO);
    }
    return 0;
}
