/* docs.c - man pages and the pages under docs/, from the option tables. */
#include <ctype.h>
#include <string.h>

#include "cli.h"

/* ---- Man pages ---- */

/* Text in roff: backslashes and dashes escaped, no line that begins with a control character. */
static void roff(const char *text) {
    bool start = true;
    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\'')) {
            fputs("\\&", stdout);
        }
        start = *text == '\n';
        if (*text == '\\') {
            fputs("\\e", stdout);
        } else if (*text == '-') {
            fputs("\\-", stdout);
        } else {
            putchar(*text);
        }
    }
}

static void man_options(const char *title, const opt *options, size_t count) {
    printf(".SS ");
    roff(title);
    putchar('\n');
    for (size_t i = 0; i < count; i++) {
        fputs(".TP\n.B ", stdout);
        const char *spelling = opt_spelling(&options[i]);
        roff(spelling + strspn(spelling, " "));
        putchar('\n');
        roff(options[i].help);
        putchar('\n');
    }
}

void print_man(const verb *v) {
    char title[64];
    size_t n = 0;
    for (; v->name[n] && n + 1 < sizeof title; n++) {
        title[n] = (char)toupper((unsigned char)v->name[n]);
    }
    title[n] = '\0';
    printf(".TH KILN\\-%s 1 \"\" \"kiln %s\" \"Kiln\"\n.SH NAME\nkiln\\-%s \\- ", title,
           kiln_version(), v->name);
    roff(v->summary);
    printf("\n.SH SYNOPSIS\n.B kiln %s\n", v->name);
    roff(v->operands);
    fputs(" [options]\n.SH DESCRIPTION\n", stdout);
    roff(v->about);
    fputs("\n.SH OPTIONS\n", stdout);
    if (v->n_options > 0) {
        man_options("Own", v->options, v->n_options);
    }
    for (const opt_group *const *g = v->groups; g && *g; g++) {
        man_options((*g)->title, (*g)->options, (*g)->count);
    }
    fputs(".SH EXAMPLES\n", stdout);
    for (size_t i = 0; i < v->n_examples; i++) {
        fputs(".TP\n.B ", stdout);
        roff(v->examples[i].command);
        putchar('\n');
        roff(v->examples[i].what);
        putchar('\n');
    }
    if (v->exits) {
        fputs(".SH EXIT STATUS\n1 when ", stdout);
        roff(v->exits);
        fputs("; the others are listed by\n.B kiln \\-\\-help\n", stdout);
    }
}

/* ---- Markdown ---- */

/* A table cell: pipes escaped, angle brackets and stars kept from being markup. */
static void cell(const char *text) {
    for (; *text; text++) {
        if (*text == '|' || *text == '<' || *text == '*') {
            putchar('\\');
        }
        putchar(*text);
    }
}

static void markdown_options(const opt *options, size_t count) {
    puts("| option | |\n|---|---|");
    for (size_t i = 0; i < count; i++) {
        const char *spelling = opt_spelling(&options[i]);
        fputs("| `", stdout);
        for (const char *p = spelling + strspn(spelling, " "); *p; p++) {
            fputs(*p == '|' ? "\\|" : (char[2]){*p, '\0'}, stdout);
        }
        fputs("` | ", stdout);
        cell(options[i].help);
        puts(" |");
    }
    putchar('\n');
}

static void markdown_verb(const verb *v) {
    printf("## kiln %s\n\n    kiln %s %s%s[options]\n\n%s\n\n", v->name, v->name, v->operands,
           *v->operands ? " " : "", v->about);
    for (size_t i = 0; i < v->n_examples; i++) {
        printf("- `%s`: %s\n", v->examples[i].command, v->examples[i].what);
    }
    putchar('\n');
    if (v->n_options > 0) {
        markdown_options(v->options, v->n_options);
    }
    const char *also = NULL;
    for (const opt_group *const *g = v->groups; g && *g; g++) {
        const char *anchor = keepf("[%s](#%s)", (*g)->title, (*g)->title);
        char *at = strchr(anchor, '#');
        for (; *at; at++) {
            *at = *at == ' ' ? '-' : (char)tolower((unsigned char)*at);
        }
        also = also ? keepf("%s, %s", also, anchor) : anchor;
    }
    if (also) {
        printf("Further options: %s.\n\n", also);
    }
    if (v->exits) {
        printf("Exit status 1: %s.\n\n", v->exits);
    }
}

void print_markdown(void) {
    static const opt_group *const groups[] = {&group_build, &group_input, &group_picture,
                                              &group_tolerance, &group_common};
    puts(
        "# The command\n\n<!-- Written by `kiln help --markdown`; a test compares. -->\n\n"
        "    kiln VERB [options]\n\n"
        "Every verb that takes an engine also takes a model and builds it on the way. Data goes "
        "to stdout,\n"
        "messages to stderr. Options may stand anywhere, as `--name value` or `--name=value`; "
        "`--` ends them.\n"
        "Shapes are written `name:1x3x224x224`; `?` is a dynamic dim, `1..4..8` one of at least 1, "
        "usually 4\n"
        "and at most 8, `*` in the name matches anything.\n"
        "trtexec's spellings work too: [trtexec.md](trtexec.md).\n\n| verb | |\n|---|---|");
    for (size_t i = 0; verbs[i]; i++) {
        printf("| [%s](#kiln-%s) | %s |\n", verbs[i]->name, verbs[i]->name, verbs[i]->summary);
    }
    puts(
        "\n**Exit status.** 0 ok · 1 a check failed · 2 wrong usage · 3 bad input file · 4 "
        "unsupported operator\n"
        "or type · 5 device or backend missing · 6 limit reached or out of memory · 7 input or "
        "output failed ·\n"
        "8 engine damaged, newer or for another machine · 9 delegate failed · 70 a bug in Kiln ·\n"
        "130, 143 interrupted (what was measured until then is printed).\n\n"
        "**JSON.** `--format json` writes one object with `schema`, `kiln` (the version) and "
        "`command`; units\n"
        "are in the names (`_ms`, `_bytes`, `_per_s`). What is not known or not finite is null.\n\n"
        "**Environment.** `KILN_MAX_ISA` lowers the instruction set, as `--max-isa` does; a name "
        "that is none\n"
        "is an error. `NO_COLOR` and `CLICOLOR_FORCE` switch colour, which only stderr ever "
        "has.\n");
    for (size_t i = 0; verbs[i]; i++) {
        markdown_verb(verbs[i]);
    }
    puts("# Options of several verbs\n");
    for (size_t i = 0; i < COUNT_OF(groups); i++) {
        printf("## %s\n\n", groups[i]->title);
        markdown_options(groups[i]->options, groups[i]->count);
    }
}

void print_trtexec_markdown(void) {
    static const char *const fates[] = {"accepted", "ignored, with a warning", "refused, exit 2"};
    puts("# trtexec's flags\n\n<!-- Written by `kiln help --trtexec`; a test compares. -->\n\n"
         "`kiln bench`, `kiln build` and `kiln run` take these spellings as `--name=value`. A flag "
         "that is not\n"
         "listed is an unknown option. `--iterations`, `--duration`, `--batch`, `--profile`, "
         "`--seed`,\n"
         "`--verbose` and `--help` are Kiln's own; `--threads N` is too, and means threads of one "
         "run.\n\n"
         "| flag | | |\n|---|---|---|");
    const trt_flag *f;
    for (size_t i = 0; (f = trt_get(i)) != NULL; i++) {
        printf("| `--%s` | %s | ", f->name, fates[f->fate]);
        cell(f->note);
        puts(" |");
    }
    puts("\n## What the numbers mean on a CPU\n\n"
         "| trtexec | here |\n|---|---|\n"
         "| Throughput | runs divided by Total Host Walltime |\n"
         "| Latency | H2D + compute + D2H of one run |\n"
         "| Enqueue Time | how long the caller's thread is kept: it works along, so this equals "
         "compute |\n"
         "| H2D, D2H Latency | 0: inputs are read and outputs written where the caller has them |\n"
         "| GPU Compute Time | one run, conversions of type and layout at the boundary included |\n"
         "| Total Host Walltime | from the first measured start to the last end |\n"
         "| Total GPU Compute Time | sum of the compute times |\n"
         "| percentile(p%) | the sample of rank ceil(p/100 · n), sorted |\n\n"
         "Defaults are trtexec's: 200 ms warm-up, at least 3 s, at least 10 runs, percentiles 90, "
         "95, 99.");
}
