#include "quant/rules.h"

#include <string.h>

/* ---- Matching ---- */

static char fold_case(char c, bool any_case) {
    return any_case && c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

/* Greedy with one point to go back to: the last star takes one character more. */
bool kiln_glob(const char *pattern, const char *text, bool any_case) {
    const char *star = NULL, *from = NULL;
    while (*text) {
        bool literal = pattern[0] == '\\' && pattern[1];
        const char *p = pattern + (literal ? 1 : 0);
        if (!literal && *p == '*') {
            star = pattern++;
            from = text;
        } else if (*p && ((!literal && *p == '?') ||
                          fold_case(*p, any_case) == fold_case(*text, any_case))) {
            pattern = p + 1;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++from;
        } else {
            return false;
        }
    }
    while (*pattern == '*') {
        pattern++;
    }
    return *pattern == 0;
}

enum { MAX_MODULE = 512 };

/* The PyTorch module behind a node name of the TorchScript exporter: the last part (the operator)
 * goes, and a part that repeats the path so far stands for it: /layer1/layer1.0/conv1/Conv is
 * layer1.0.conv1. False when it is no such name. */
static bool module_of(char out[MAX_MODULE], const char *name) {
    size_t len = 0, part_at = 0;
    const char *last = strrchr(name, '/');
    if (name[0] != '/' || last == name || strlen(name) >= MAX_MODULE / 2) {
        return false;
    }
    for (const char *at = name + 1; at < last;) {
        const char *end = memchr(at, '/', (size_t)(last - at));
        size_t n = (size_t)((end ? end : last) - at), previous = len - part_at;
        bool repeats = len > 0 && n > previous && at[previous] == '.' &&
                       memcmp(out + part_at, at, previous) == 0;
        len = repeats ? part_at : len;
        if (len > 0 && !repeats) {
            out[len++] = '.';
        }
        part_at = repeats ? part_at : len;
        memcpy(out + len, at, n);
        len += n;
        at += n + (end ? 1 : 0);
    }
    out[len] = 0;
    return len > 0;
}

static bool name_fits(const char *pattern, const char *name) {
    char module[MAX_MODULE];
    return kiln_glob(pattern, name, false) ||
           (module_of(module, name) && kiln_glob(pattern, module, false));
}

static bool node_name_fits(const char *pattern, const kiln_node *node) {
    bool fits = name_fits(pattern, node->name);
    for (int32_t i = 0; i < node->n_sources && !fits; i++) {
        fits = name_fits(pattern, node->sources[i]);
    }
    return fits;
}

bool kiln_pattern_fits(const char *pattern, const kiln_node *node) {
    if (strncmp(pattern, "type:", 5) == 0) {
        return kiln_glob(pattern + 5, node->op->name, true);
    }
    return node_name_fits(strncmp(pattern, "name:", 5) == 0 ? pattern + 5 : pattern, node);
}

static bool rule_fits(const kiln_rule *rule, const kiln_node *node) {
    switch (rule->kind) {
    case KILN_RULE_TYPE:
        return kiln_glob(rule->pattern, node->op->name, true);
    case KILN_RULE_NAME:
        return node_name_fits(rule->pattern, node);
    default:
        return true;
    }
}

const kiln_rule *kiln_rules_find(const kiln_rules *rules, const kiln_node *node) {
    for (size_t i = rules->count; i > 0; i--) {
        if (rule_fits(&rules->items[i - 1], node)) {
            return &rules->items[i - 1];
        }
    }
    return NULL;
}

bool kiln_rules_want_int8(const kiln_rules *rules) {
    bool all = true;
    for (size_t i = 0; i < rules->count; i++) {
        if (rules->items[i].dtype == KILN_DTYPE_I8) {
            return true;
        }
        all = all && rules->items[i].kind != KILN_RULE_ALL;
    }
    return all;
}

/* ---- Parsing ---- */

static const char special[] = "*?\\,#\n";

void kiln_rule_escape(kiln_text *out, const char *name) {
    for (; *name; name++) {
        if (strchr(special, *name)) {
            kiln_text_char(out, '\\');
        }
        kiln_text_char(out, *name);
    }
}

/* Where a rule ends: at a separator without a backslash before it. */
static const char *rule_end(const char *at) {
    while (*at && *at != ',' && *at != '\n' && *at != '#') {
        at += at[0] == '\\' && at[1] ? 2 : 1;
    }
    return at;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

static void trim(const char **from, const char **to) {
    while (*from < *to && is_blank(**from)) {
        (*from)++;
    }
    while (*to > *from && is_blank((*to)[-1])) {
        (*to)--;
    }
}

static bool is_precision(kiln_dtype d) {
    return d == KILN_DTYPE_F32 || d == KILN_DTYPE_BF16 || d == KILN_DTYPE_F16 || d == KILN_DTYPE_I8;
}

/* One rule between separators, not empty. */
static kiln_status add_rule(kiln_rules *out, const char *from, const char *to, kiln_arena *arena,
                            kiln_diag *diag) {
    kiln_rule rule = {.kind = KILN_RULE_ALL, .pattern = ""};
    const char *text = kiln_arena_text(arena, from, (size_t)(to - from));
    if (!text) {
        return KILN_E_MEMORY;
    }
    const char *equals = strrchr(text, '='), *type = equals ? equals + 1 : text;
    const char *end = text + (to - from);
    trim(&type, &end);
    rule.dtype = kiln_dtype_parse(type);
    bool good = is_precision(rule.dtype);
    if (equals) {
        const char *pattern = text, *pattern_end = equals;
        trim(&pattern, &pattern_end);
        rule.kind = strncmp(pattern, "type:", 5) == 0 ? KILN_RULE_TYPE : KILN_RULE_NAME;
        good = good && pattern_end - pattern > 5 &&
               (rule.kind == KILN_RULE_TYPE || strncmp(pattern, "name:", 5) == 0);
        rule.pattern =
            good ? kiln_arena_text(arena, pattern + 5, (size_t)(pattern_end - pattern) - 5) : "";
    }
    if (!good) {
        return kiln_hint(diag, kiln_fail(diag, KILN_F_OPTION, "\"%s\" is no precision rule", text),
                         "rules are type:GLOB=P, name:GLOB=P or P, where P is fp32, bf16, fp16 or "
                         "int8");
    }
    if (!rule.pattern) {
        return KILN_E_MEMORY;
    }
    KILN_PUSH(arena, out->items, out->count, out->cap, rule);
    return KILN_OK;
}

kiln_status kiln_rules_parse(kiln_rules *out, const char *text, kiln_arena *arena,
                             kiln_diag *diag) {
    *out = (kiln_rules){0};
    for (const char *at = text; at && *at;) {
        const char *from = at, *to = rule_end(at);
        at = to + (*to == '#' ? strcspn(to, "\n") : 0);
        at += *at ? 1 : 0;
        trim(&from, &to);
        if (to > from) {
            KILN_TRY(add_rule(out, from, to, arena, diag));
        }
    }
    return KILN_OK;
}
