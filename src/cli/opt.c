/* opt.c - words to options, by the verb's table. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

const opt *verb_option(const verb *v, size_t i) {
    if (i < v->n_options) {
        return &v->options[i];
    }
    i -= v->n_options;
    for (const opt_group *const *g = v->groups; g && *g; g++) {
        if (i < (*g)->count) {
            return &(*g)->options[i];
        }
        i -= (*g)->count;
    }
    return NULL;
}

const opt *verb_find_option(const verb *v, const char *name) {
    const opt *o;
    for (size_t i = 0; (o = verb_option(v, i)) != NULL; i++) {
        if (strcmp(o->name, name) == 0) {
            return o;
        }
    }
    return NULL;
}

static const opt *find_letter(const verb *v, char letter) {
    const opt *o;
    for (size_t i = 0; (o = verb_option(v, i)) != NULL; i++) {
        if (o->letter == letter) {
            return o;
        }
    }
    return NULL;
}

void list_add(list *l, const char *item) {
    l->items = grow((void *)l->items, l->count, &l->cap, sizeof *l->items);
    l->items[l->count++] = item;
}

/* ---- Numbers ---- */

bool parse_int(const char *text, int64_t *out) {
    char *end;
    errno = 0;
    long long x = strtoll(text, &end, 10);
    *out = x;
    return errno == 0 && end != text && *end == '\0';
}

bool parse_number(const char *text, double *out) {
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*out);
}

bool parse_bytes(const char *text, double *out) {
    static const char units[] = "BKMGT";
    char *end;
    double scale = 1 << 20;
    *out = strtod(text, &end);
    bool right = end != text;
    end += strspn(end, " ");
    if (*end) {
        const char *unit = strchr(units, *end);
        scale = unit ? ldexp(1, 10 * (int)(unit - units)) : 0;
        right = right && unit && (!end[1] || (unit > units && strcmp(end + 1, "iB") == 0));
    }
    *out *= scale;
    return right && *out >= 0 && *out <= ldexp(1, 53);
}

bool parse_int_list(cli *c, const char *name, const list *l, int64_t min, int64_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!parse_int(l->items[i], &out[i]) || out[i] < min) {
            usage_error(c, NULL, "--%s: \"%s\" is no whole number of at least %lld", name,
                        l->items[i], (long long)min);
            return false;
        }
    }
    return true;
}

bool parse_number_list(cli *c, const char *name, const list *l, double *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!parse_number(l->items[i], &out[i])) {
            usage_error(c, NULL, "--%s: \"%s\" is no number", name, l->items[i]);
            return false;
        }
    }
    return true;
}

/* ---- Suggestions ---- */

/* Levenshtein's distance, one row at a time; words are cut at 31 bytes. */
static size_t distance(const char *a, const char *b) {
    enum { CUT = 31 };
    size_t row[CUT + 1];
    size_t n = strnlen(a, CUT), m = strnlen(b, CUT);
    for (size_t k = 0; k <= m; k++) {
        row[k] = k;
    }
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t k = 1; k <= m; k++) {
            size_t best = diagonal + (a[i - 1] != b[k - 1]);
            best = best < row[k] + 1 ? best : row[k] + 1;
            best = best < row[k - 1] + 1 ? best : row[k - 1] + 1;
            diagonal = row[k];
            row[k] = best;
        }
    }
    return row[m];
}

const char *nearest(const char *word, const char *(*candidate)(const void *of, size_t i),
                    const void *of) {
    const char *best = NULL, *name;
    size_t bound = strlen(word) / 3 + 1;
    for (size_t i = 0; (name = candidate(of, i)) != NULL; i++) {
        size_t d = distance(word, name);
        if (d <= bound) {
            bound = d - (d > 0);
            best = name;
        }
    }
    return best;
}

static const char *option_name(const void *of, size_t i) {
    const opt *o = verb_option(of, i);
    return o ? o->name : NULL;
}

/* ---- One option ---- */

static bool in_choices(const char *choices, const char *word) {
    size_t len = strlen(word);
    for (const char *p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL) {
        if (strncmp(p, word, len) == 0 && (p[len] == '|' || p[len] == '\0') && len > 0) {
            return true;
        }
    }
    return false;
}

static void add_words(list *l, const char *text) {
    for (;;) {
        size_t n = strcspn(text, ",");
        if (n > 0) {
            list_add(l, keep(text, n));
        }
        if (text[n] == '\0') {
            return;
        }
        text += n + 1;
    }
}

static int store(cli *c, void *own, const opt *o, const char *text) {
    void *to = (char *)(o->shared ? (void *)c : own) + o->at;
    int64_t whole;
    double number;
    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)to = true;
        return 0;
    case OPT_SWITCH:
    case OPT_CHOICE:
        if ((o->kind == OPT_CHOICE || *text) && !in_choices(o->value, text)) {
            return usage_error(c, NULL, "--%s takes %s, not \"%s\"", o->name, o->value, text);
        }
        *(const char **)to = text;
        return 0;
    case OPT_TEXT:
        *(const char **)to = text;
        return 0;
    case OPT_INT:
        if (!parse_int(text, &whole) || (double)whole < o->min) {
            return usage_error(c, NULL, "--%s takes a whole number of at least %g, not \"%s\"",
                               o->name, o->min, text);
        }
        *(int64_t *)to = whole;
        return 0;
    case OPT_NUMBER:
        if (!parse_number(text, &number) || number < o->min) {
            return usage_error(c, NULL, "--%s takes a number of at least %g, not \"%s\"", o->name,
                               o->min, text);
        }
        *(double *)to = number;
        return 0;
    case OPT_LIST:
        add_words(to, text);
        return 0;
    case OPT_MANY:
        list_add(to, text);
        return 0;
    case OPT_KEY:
        list_add(to, keepf("%s=%s", o->name, text));
        return 0;
    }
    return 0;
}

/* ---- trtexec's spellings ---- */

static int take_pairs(cli *c, void *own, const opt *o, const char *text) {
    list pairs = {0};
    add_words(&pairs, text);
    for (size_t i = 0; i < pairs.count; i++) {
        char *pair = keep(pairs.items[i], strlen(pairs.items[i]));
        char *colon = strchr(pair, ':');
        if (!colon) {
            return usage_error(c, NULL, "\"%s\" is not name:file", pair);
        }
        *colon = '=';
        int status = store(c, own, o, pair);
        if (status != 0) {
            return status;
        }
    }
    return 0;
}

/* name is what stands before '=', value what stands behind it or NULL. */
static int take_trtexec(cli *c, void *own, const trt_flag *f, const char *value) {
    if (f->fate == TRT_REFUSED) {
        return usage_error(c, f->note, "trtexec's --%s is not taken", f->name);
    }
    if (f->fate == TRT_IGNORED) {
        say(c, KILN_LOG_WARN, "trtexec's --%s is ignored: %s", f->name, f->note);
        return 0;
    }
    if (f->how == TRT_NOTHING) {
        return 0;
    }
    if (f->how == TRT_OPERAND) {
        if (!value || !*value) {
            return usage_error(c, NULL, "--%s needs a value: --%s=FILE", f->name, f->name);
        }
        list_add(&c->operands, value);
        return 0;
    }
    if (f->how >= TRT_MIN_SHAPES && f->how <= TRT_MAX_SHAPES) {
        if (!value || !*value) {
            return usage_error(c, NULL, "--%s needs a value: --%s=NAME:1x3", f->name, f->name);
        }
        add_words(&c->trt_shapes[f->how - TRT_MIN_SHAPES], value);
        return 0;
    }
    const opt *o = verb_find_option(c->verb, f->target);
    if (!o) {
        return usage_error(c, NULL, "--%s does not belong to `kiln %s`", f->name, c->verb->name);
    }
    if (!opt_is_bare(o) && (!value || !*value)) {
        return usage_error(c, NULL, "--%s needs a value: --%s=...", f->name, f->name);
    }
    return f->how == TRT_PAIRS ? take_pairs(c, own, o, value) : store(c, own, o, value);
}

/* ---- All words ---- */

typedef struct words {
    char **items;
    int count, at;
} words;

static int take_value(cli *c, void *own, const opt *o, const char *value, words *w) {
    if (o->kind == OPT_FLAG) {
        if (value) {
            return usage_error(c, NULL, "--%s takes no value", o->name);
        }
        return store(c, own, o, NULL);
    }
    if (!value && o->kind == OPT_SWITCH) {
        return store(c, own, o, "");
    }
    if (!value) {
        if (w->at >= w->count) {
            return usage_error(c, NULL, "--%s needs a value: %s", o->name, opt_spelling(o));
        }
        value = w->items[w->at++];
    }
    return store(c, own, o, value);
}

static int take_long(cli *c, void *own, const char *word, words *w) {
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const char *given = keep(name, len);
    const opt *o = verb_find_option(c->verb, given);
    if (o) {
        return take_value(c, own, o, equals ? equals + 1 : NULL, w);
    }
    const trt_flag *f = c->verb->trtexec ? trt_find(name, len) : NULL;
    if (f) {
        return take_trtexec(c, own, f, equals ? equals + 1 : NULL);
    }
    const char *near = nearest(given, option_name, c->verb);
    return usage_error(c,
                       near ? keepf("did you mean --%s?", near)
                            : keepf("`kiln %s --help` lists the options", c->verb->name),
                       "`kiln %s` has no option --%s", c->verb->name, given);
}

static int take_short(cli *c, void *own, const char *word, words *w) {
    const opt *o = find_letter(c->verb, word[1]);
    if (!o) {
        return usage_error(c, keepf("`kiln %s --help` lists the options", c->verb->name),
                           "`kiln %s` has no option %s", c->verb->name, word);
    }
    if (opt_is_bare(o) && word[2] != '\0') {
        return usage_error(c, NULL, "%s: give single letters one at a time", word);
    }
    return take_value(c, own, o, word[2] ? word + 2 : NULL, w);
}

int parse_options(cli *c, void *own, int argc, char **argv) {
    words w = {argv, argc, 0};
    bool ended = false;
    while (w.at < w.count) {
        const char *word = w.items[w.at++];
        int status = 0;
        if (ended || word[0] != '-' || word[1] == '\0') {
            list_add(&c->operands, word);
        } else if (strcmp(word, "--") == 0) {
            ended = true;
        } else if (word[1] == '-') {
            status = take_long(c, own, word, &w);
        } else {
            status = take_short(c, own, word, &w);
        }
        if (status != 0) {
            return status;
        }
    }
    if (c->help) {
        return 0;
    }
    if (c->operands.count < c->verb->min_operands || c->operands.count > c->verb->max_operands) {
        return usage_error(
            c, keepf("usage: kiln %s %s [options]", c->verb->name, c->verb->operands),
            c->operands.count < c->verb->min_operands ? "`kiln %s` needs %s"
                                                      : "`kiln %s` takes no more than %s",
            c->verb->name, c->verb->operands);
    }
    return 0;
}
