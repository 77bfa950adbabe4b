#include "ops/einsum.h"

#include <string.h>

enum { ELLIPSIS = -1 };

static int32_t letter(char ch) {
    if (ch >= 'A' && ch <= 'Z') {
        return ch - 'A';
    }
    return ch >= 'a' && ch <= 'z' ? ch - 'a' + 26 : ELLIPSIS;
}

/* Reads one term up to ',' '-' or the end; the ellipsis becomes one ELLIPSIS label. */
static const char *read_term(const char **at, kiln_einsum_term *t) {
    bool ellipsis = false;
    t->n = 0;
    for (const char *s = *at;; s++) {
        if (*s == ' ') {
            continue;
        }
        if (*s == ',' || *s == '-' || *s == '\0') {
            *at = s;
            return NULL;
        }
        bool dots = strncmp(s, "...", 3) == 0;
        if ((!dots && letter(*s) == ELLIPSIS) || (dots && ellipsis)) {
            return dots ? "two ellipses in a term" : "only letters, ... , -> may stand";
        }
        if (t->n == KILN_MAX_RANK) {
            return "a term has too many letters";
        }
        ellipsis = ellipsis || dots;
        t->label[t->n++] = (int8_t)(dots ? ELLIPSIS : letter(*s));
        s += dots ? 2 : 0;
    }
}

/* Replaces the ELLIPSIS label by `dims` labels. */
static bool expand(kiln_einsum_term *t, int32_t dims) {
    for (int32_t i = 0; i < t->n; i++) {
        if (t->label[i] != ELLIPSIS) {
            continue;
        }
        if (dims < 0 || t->n - 1 + dims > KILN_MAX_RANK) {
            return false;
        }
        memmove(t->label + i + dims, t->label + i + 1, (size_t)(t->n - i - 1));
        for (int32_t d = 0; d < dims; d++) {
            t->label[i + d] = (int8_t)(KILN_EINSUM_LETTERS + dims - 1 - d);
        }
        t->n += dims - 1;
        break;
    }
    return true;
}

/* Without an arrow: the ellipsis, then the letters that occur once, in ASCII order. */
static const char *implicit_output(kiln_einsum *e) {
    for (int32_t d = e->ellipsis - 1; d >= 0; d--) {
        e->out.label[e->out.n++] = (int8_t)(KILN_EINSUM_LETTERS + d);
    }
    for (int32_t l = 0; l < KILN_EINSUM_LETTERS; l++) {
        if (e->uses[l] != 1) {
            continue;
        }
        if (e->out.n == KILN_MAX_RANK) {
            return "the output has too many dims";
        }
        e->out.label[e->out.n++] = (int8_t)l;
    }
    return NULL;
}

static const char *explicit_output(kiln_einsum *e, const char *s) {
    if (s[1] != '>') {
        return "'-' without '>'";
    }
    s += 2;
    const char *flaw = read_term(&s, &e->out);
    if (flaw) {
        return flaw;
    }
    return *s == '\0' && expand(&e->out, e->ellipsis) ? NULL : "the output is not one term";
}

static const char *check_output(const kiln_einsum *e) {
    bool seen[KILN_EINSUM_LABELS] = {false};
    for (int32_t i = 0; i < e->out.n; i++) {
        int32_t l = e->out.label[i];
        if (seen[l] || e->uses[l] == 0) {
            return seen[l] ? "an output index repeats" : "an output index has no input";
        }
        seen[l] = true;
    }
    return NULL;
}

/* The term of an operand of that rank. */
static const char *take_term(kiln_einsum *e, const char **s, kiln_einsum_term *t, int32_t rank) {
    const char *flaw = read_term(s, t);
    if (flaw) {
        return flaw;
    }
    bool ellipsis = memchr(t->label, (unsigned char)ELLIPSIS, (size_t)t->n) != NULL;
    int32_t extra = rank - (t->n - ellipsis);
    if (ellipsis ? extra < 0 : extra != 0) {
        return "a term has another rank than its operand";
    }
    if (!expand(t, extra)) {
        return "an ellipsis stands for too many dims";
    }
    e->ellipsis = extra > e->ellipsis ? extra : e->ellipsis;
    for (int32_t d = 0; d < t->n; d++) {
        e->uses[t->label[d]]++;
    }
    return NULL;
}

const char *kiln_einsum_parse(kiln_einsum *e, const char *equation, kiln_einsum_term *terms,
                              const int32_t *ranks, int32_t n) {
    const char *s = equation ? equation : "", *flaw;
    memset(e, 0, sizeof *e);
    e->in = terms;
    e->n_in = n;
    for (int32_t i = 0; i < n; i++) {
        flaw = take_term(e, &s, &terms[i], ranks[i]);
        if (flaw) {
            return flaw;
        }
        bool more = i + 1 < n;
        if ((*s == ',') != more) {
            return "the number of terms is not that of the operands";
        }
        s += *s == ',';
    }
    flaw = *s == '-' ? explicit_output(e, s) : implicit_output(e);
    return flaw ? flaw : check_output(e);
}

void kiln_einsum_needed(const kiln_einsum *e, int32_t k, bool *needed) {
    memset(needed, 0, KILN_EINSUM_LABELS * sizeof *needed);
    for (int32_t i = k + 1; i <= e->n_in; i++) {
        const kiln_einsum_term *t = i < e->n_in ? &e->in[i] : &e->out;
        for (int32_t d = 0; d < t->n; d++) {
            needed[t->label[d]] = true;
        }
    }
}
