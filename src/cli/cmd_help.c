/* cmd_help.c - help, man pages, documents, completion. */
#include <stddef.h>

#include "cli.h"

typedef struct own {
    bool man, markdown, trtexec;
} own;

static int run(cli *c, void *given) {
    const own *o = given;
    if (o->markdown) {
        print_markdown();
        return 0;
    }
    if (o->trtexec) {
        print_trtexec_markdown();
        return 0;
    }
    if (c->operands.count == 0) {
        print_help(stdout);
        return 0;
    }
    const verb *v = find_verb(c->operands.items[0]);
    if (!v) {
        return usage_error(c, "`kiln --help` lists the verbs", "there is no verb \"%s\"",
                           c->operands.items[0]);
    }
    if (o->man) {
        print_man(v);
    } else {
        print_verb_help(stdout, v);
    }
    return 0;
}

static const opt options[] = {
    {.name = "man", .kind = OPT_FLAG, .at = offsetof(own, man), .help = "as a man page"},
    {.name = "markdown", .kind = OPT_FLAG, .at = offsetof(own, markdown), .help = "docs/cli.md"},
    {.name = "trtexec", .kind = OPT_FLAG, .at = offsetof(own, trtexec), .help = "docs/trtexec.md"},
};

static const example examples[] = {
    {"kiln help bench", "explains a verb"},
    {"kiln help --man bench | man -l -", "shows its man page"},
};

static const opt_group *const groups[] = {&group_common, NULL};

const verb verb_help = {
    .name = "help",
    .summary = "explain a verb",
    .operands = "[VERB]",
    .about = "Prints help, a man page, or the pages under docs/ that are made from the "
             "option tables.",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .max_operands = 1,
    .run = run};

static int run_completion(cli *c, void *given) {
    (void)given;
    return print_completion(c, c->operands.items[0]);
}

static const example completion_examples[] = {
    {"source <(kiln completion bash)", "for this shell"},
    {"kiln completion fish > ~/.config/fish/completions/kiln.fish", "for all"},
};

const verb verb_completion = {.name = "completion",
                              .summary = "print shell completion for bash, zsh or fish",
                              .operands = "bash|zsh|fish",
                              .about = "Prints a completion script made from the option tables.",
                              EXAMPLES(completion_examples),
                              .groups = groups,
                              .min_operands = 1,
                              .max_operands = 1,
                              .run = run_completion};
