/* help.c - help texts and shell completion, from the option tables. */
#include <string.h>

#include "cli.h"

enum { WRAP = 96 };

bool opt_is_bare(const opt *o) {
    return o->kind == OPT_FLAG || o->kind == OPT_SWITCH;
}

const char *opt_spelling(const opt *o) {
    const char *value = o->kind == OPT_FLAG     ? ""
                        : o->kind == OPT_SWITCH ? keepf("[=%s]", o->value)
                                                : keepf(" %s", o->value);
    return o->letter ? keepf("-%c, --%s%s", o->letter, o->name, value)
                     : keepf("    --%s%s", o->name, value);
}

/* Words of `text` in lines of at most WRAP columns, the first of which begins at column `at`. */
static void wrapped(FILE *to, const char *text, int at, int indent) {
    for (const char *p = text; *p;) {
        int n = (int)strcspn(p, " \n");
        if (at > indent && at + 1 + n > WRAP) {
            fprintf(to, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            fputc(' ', to);
            at++;
        }
        fprintf(to, "%.*s", n, p);
        at += n;
        p += n;
        if (p[0] == '\n') {
            fprintf(to, "\n%*s", indent, "");
            at = indent;
        }
        p += *p != '\0';
    }
    fputc('\n', to);
}

static void print_options(FILE *to, const char *title, const opt *options, size_t count) {
    fprintf(to, "\n%s\n", title);
    for (size_t i = 0; i < count; i++) {
        const char *spelling = opt_spelling(&options[i]);
        int len = (int)strlen(spelling);
        fprintf(to, "  %s", spelling);
        if (len > 30) {
            fprintf(to, "\n%34s", "");
        } else {
            fprintf(to, "%*s", 32 - len, "");
        }
        wrapped(to, options[i].help, 34, 34);
    }
}

void print_verb_help(FILE *to, const verb *v) {
    fprintf(to, "kiln %s %s%s[options]\n\n", v->name, v->operands, *v->operands ? " " : "");
    for (size_t i = 0; i < v->n_examples; i++) {
        fprintf(to, "  %s\n      %s\n", v->examples[i].command, v->examples[i].what);
    }
    fputc('\n', to);
    wrapped(to, v->about, 0, 0);
    if (v->n_options > 0) {
        print_options(to, "Options", v->options, v->n_options);
    }
    for (const opt_group *const *g = v->groups; g && *g; g++) {
        print_options(to, (*g)->title, (*g)->options, (*g)->count);
    }
    if (v->exits) {
        fprintf(to, "\nExit status 1: %s.\n", v->exits);
    }
    if (v->trtexec) {
        fputs("\ntrtexec's spellings are understood too: docs/trtexec.md.\n", to);
    }
}

void print_help(FILE *to) {
    fputs("kiln VERB [options]\n\nTurns ONNX models into fast verified engines for this machine's "
          "CPU.\n\n",
          to);
    for (size_t i = 0; verbs[i]; i++) {
        fprintf(to, "  %-11s %s\n", verbs[i]->name, verbs[i]->summary);
    }
    fputs("\n`kiln VERB --help` explains a verb. Every verb that takes an engine also takes a "
          "model and builds\n"
          "it on the way. Data goes to stdout, messages to stderr.\n\n"
          "Exit status: 0 ok, 1 a check failed, 2 wrong usage, 3 bad input file, 4 unsupported "
          "operator or\n"
          "type, 5 backend missing, 6 limit reached, 7 input or output failed, 8 engine damaged or "
          "foreign,\n"
          "9 delegate failed, 70 bug in kiln, 130 and 143 interrupted.\n\n"
          "Environment: KILN_MAX_ISA (highest instruction set), NO_COLOR, CLICOLOR_FORCE.\n",
          to);
}

/* ---- Completion ---- */

static void option_words(const verb *v) {
    const opt *o;
    for (size_t i = 0; (o = verb_option(v, i)) != NULL; i++) {
        printf("%s--%s", i ? " " : "", o->name);
    }
}

static void verb_words(void) {
    for (size_t i = 0; verbs[i]; i++) {
        printf("%s%s", i ? " " : "", verbs[i]->name);
    }
}

static void bash_choices(void) {
    for (size_t i = 0; i < group_common.count; i++) {
        const opt *o = &group_common.options[i];
        if (o->kind == OPT_CHOICE) {
            char *words = keep(o->value, strlen(o->value));
            for (char *p = words; *p; p++) {
                *p = *p == '|' ? ' ' : *p;
            }
            printf("    --%s) COMPREPLY=($(compgen -W '%s' -- \"$word\")); return;;\n", o->name,
                   words);
        }
    }
}

static void complete_bash(void) {
    puts("# bash completion for kiln; load with: source <(kiln completion bash)");
    puts("_kiln() {\n    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} "
         "words=");
    puts("    case $before in");
    bash_choices();
    puts("    esac");
    puts("    if [ \"$COMP_CWORD\" = 1 ]; then");
    fputs("        COMPREPLY=($(compgen -W '", stdout);
    verb_words();
    puts("' -- \"$word\")); return\n    fi\n    case ${COMP_WORDS[1]} in");
    for (size_t i = 0; verbs[i]; i++) {
        printf("    %s) words='", verbs[i]->name);
        option_words(verbs[i]);
        puts("';;");
    }
    puts(
        "    esac\n    case $word in\n    -*) COMPREPLY=($(compgen -W \"$words\" -- \"$word\"));;\n"
        "    *) COMPREPLY=($(compgen -f -- \"$word\"));;\n    esac\n}\n"
        "complete -o filenames -F _kiln kiln");
}

/* Text inside single quotes, where zsh and fish want some characters escaped. */
static void shell_quoted(const char *text, const char *escaped) {
    for (; *text; text++) {
        if (*text == '\'') {
            fputs("'\\''", stdout);
        } else {
            if (strchr(escaped, *text)) {
                putchar('\\');
            }
            putchar(*text);
        }
    }
}

static void complete_zsh(void) {
    puts("#compdef kiln\n# zsh completion; save as _kiln in a folder of $fpath\n_kiln() {\n"
         "    local -a verbs\n    verbs=(");
    for (size_t i = 0; verbs[i]; i++) {
        printf("        '%s:", verbs[i]->name);
        shell_quoted(verbs[i]->summary, "");
        puts("'");
    }
    puts("    )\n    if (( CURRENT == 2 )); then\n        _describe verb verbs\n        return\n   "
         " fi\n"
         "    case $words[2] in");
    for (size_t i = 0; verbs[i]; i++) {
        const opt *o;
        printf("    %s) _arguments", verbs[i]->name);
        for (size_t k = 0; (o = verb_option(verbs[i], k)) != NULL; k++) {
            printf(" \\\n        '--%s[", o->name);
            shell_quoted(o->help, "[]:\\");
            printf(opt_is_bare(o) ? "]'" : "]:value:_files'");
        }
        puts(" \\\n        '*:file:_files';;");
    }
    puts("    esac\n}\n_kiln \"$@\"");
}

static void complete_fish(void) {
    puts("# fish completion; save as ~/.config/fish/completions/kiln.fish");
    for (size_t i = 0; verbs[i]; i++) {
        const opt *o;
        printf("complete -c kiln -n __fish_use_subcommand -f -a %s -d '", verbs[i]->name);
        shell_quoted(verbs[i]->summary, "\\");
        puts("'");
        for (size_t k = 0; (o = verb_option(verbs[i], k)) != NULL; k++) {
            printf("complete -c kiln -n '__fish_seen_subcommand_from %s' -l %s%s -d '",
                   verbs[i]->name, o->name, opt_is_bare(o) ? "" : " -r");
            shell_quoted(o->help, "\\");
            puts("'");
        }
    }
}

int print_completion(cli *c, const char *shell) {
    static const struct {
        const char *name;
        void (*print)(void);
    } shells[] = {{"bash", complete_bash}, {"zsh", complete_zsh}, {"fish", complete_fish}};
    for (size_t i = 0; i < COUNT_OF(shells); i++) {
        if (strcmp(shells[i].name, shell) == 0) {
            shells[i].print();
            return 0;
        }
    }
    return usage_error(c, "bash, zsh and fish are", "\"%s\" is no shell with a completion here",
                       shell);
}
