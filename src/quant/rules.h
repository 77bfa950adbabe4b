/* rules.h - which precision the user wants for which node.
 *
 *     type:Conv=int8, name:/fc*=fp32, bf16
 *
 * Rules stand in order and the last one that fits a node counts; a bare type fits every node.
 * Separators are commas and line ends; from # to the end of a line is a comment, so that a list can
 * stand in a file. Patterns are globs: * any characters, ? one, and a backslash takes the
 * character behind it as it is, a separator too. `type:` matches the operator's name
 * in any case, `name:` the node's name, the name of one of the ONNX nodes it came from, or the
 * PyTorch module that made it (layer1.0.conv1 for /layer1/layer1.0/conv1/Conv).
 *
 *     kiln_rules rules;
 *     KILN_TRY(kiln_rules_parse(&rules, text, arena, diag));
 *     const kiln_rule *rule = kiln_rules_find(&rules, node);      // NULL: nothing said
 */
#ifndef KILN_QUANT_RULES_H
#define KILN_QUANT_RULES_H

#include "base/text.h"
#include "ir/graph.h"

typedef enum kiln_rule_kind { KILN_RULE_ALL, KILN_RULE_TYPE, KILN_RULE_NAME } kiln_rule_kind;

typedef struct kiln_rule {
    kiln_rule_kind kind;
    const char *pattern; /* "" for ALL */
    kiln_dtype dtype;    /* F32, BF16, F16 or I8 */
} kiln_rule;

typedef struct kiln_rules {
    kiln_rule *items;
    size_t count, cap;
} kiln_rules;

/* Reads a list; NULL text gives an empty one. KILN_F_OPTION names the rule that is none. */
kiln_status kiln_rules_parse(kiln_rules *out, const char *text, kiln_arena *arena, kiln_diag *diag);
/* The last rule that fits the node, or NULL. */
const kiln_rule *kiln_rules_find(const kiln_rules *rules, const kiln_node *node);

/* Whether any node could get int8: a rule gives it, or none is for all, where int8 is the default.
 * */
bool kiln_rules_want_int8(const kiln_rules *rules);

/* A `type:` or `name:` pattern, or one without prefix for names, fits the node. */
bool kiln_pattern_fits(const char *pattern, const kiln_node *node);
/* Appends the pattern that fits this name and no other. */
void kiln_rule_escape(kiln_text *out, const char *name);
/* Glob match of a whole text. */
bool kiln_glob(const char *pattern, const char *text, bool any_case);

#endif
