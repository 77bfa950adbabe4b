/* lint.h - findings about models that run but are probably not what their author wants, and all
 * that is wrong with those that do not.
 *
 * lint_names.c walks the file itself: names, unused things, operator sets, external data. It sees
 * everything also in a model that cannot be imported. lint_graph.c looks at the imported graph with
 * its types: weights, scales, casts.
 *
 *     KILN_TRY(kiln_lint_names(file.data, file.bytes, env, diag));
 *     KILN_TRY(kiln_lint_graph(path, options, env, diag));
 *
 * A rule reports its first findings one by one and counts the rest, so that a model with a million
 * unused weights makes no million lines. */
#ifndef KILN_FLOW_LINT_H
#define KILN_FLOW_LINT_H

#include "base/diag.h"
#include "kiln/tools.h"

enum {
    KILN_LINT_EACH = 10, /* findings of one rule that are reported one by one */
};

/* One rule at work. */
typedef struct kiln_rule {
    const char *what; /* "unused initializers", for the rest */
    size_t count;
} kiln_rule;

/* Whether the next finding is to be reported. */
static inline bool kiln_rule_reports(kiln_rule *rule) {
    return rule->count++ < KILN_LINT_EACH;
}
/* Notes what was only counted. */
static inline void kiln_rule_end(const kiln_rule *rule, kiln_diag *diag) {
    if (rule->count > KILN_LINT_EACH) {
        kiln_note(diag, KILN_F_LINT, "and %zu more %s", rule->count - KILN_LINT_EACH, rule->what);
    }
}

/* Looks at the bytes of a file that the census could walk. Findings that `diag` holds already are
 * not made twice. Errors: MEMORY, and those of the wire. */
kiln_status kiln_lint_names(const void *bytes, size_t len, const kiln_env *env, kiln_diag *diag);
/* Imports the model anew and looks at its graph; nothing when it cannot be imported. */
kiln_status kiln_lint_graph(const char *path, const kiln_model_options *options,
                            const kiln_env *env, kiln_diag *diag);

#endif
