/* main.c - kiln VERB: finds the verb, reads its options, runs it, and answers for stdout. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cli.h"

extern const verb verb_build, verb_run, verb_bench, verb_eval, verb_inspect, verb_check,
    verb_compare, verb_export, verb_surgeon, verb_doctor, verb_help, verb_completion, verb_quantize,
    verb_calibrate, verb_sensitivity, verb_search;

const verb *const verbs[] = {&verb_build,
                             &verb_run,
                             &verb_bench,
                             &verb_eval,
                             &verb_quantize,
                             &verb_calibrate,
                             &verb_sensitivity,
                             &verb_search,
                             &verb_inspect,
                             &verb_check,
                             &verb_compare,
                             &verb_export,
                             &verb_surgeon,
                             &verb_doctor,
                             &verb_help,
                             &verb_completion,
                             NULL};

const verb *find_verb(const char *name) {
    for (size_t i = 0; verbs[i]; i++) {
        if (strcmp(verbs[i]->name, name) == 0) {
            return verbs[i];
        }
    }
    return NULL;
}

static const char *verb_name(const void *of, size_t i) {
    (void)of;
    return verbs[i] ? verbs[i]->name : NULL;
}

/* Files opened later must not become a standard stream that the caller had closed. */
static void guard_streams(void) {
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0) {
            exit(kiln_status_exit_code(KILN_E_IO));
        }
    }
}

static const char *join_command(int argc, char **argv) {
    const char *text = "kiln";
    for (int i = 1; i < argc; i++) {
        text = keepf("%s %s", text, argv[i]);
    }
    return text;
}

static bool wants_color(void) {
    const char *no_color = getenv("NO_COLOR"), *force = getenv("CLICOLOR_FORCE"),
               *term = getenv("TERM");
    if (no_color && *no_color) {
        return false;
    }
    if (force && *force && strcmp(force, "0") != 0) {
        return true;
    }
    return isatty(2) && term && strcmp(term, "dumb") != 0;
}

static const char *const level_names[] = {[KILN_LOG_ERROR] = "error",
                                          [KILN_LOG_WARN] = "warn",
                                          [KILN_LOG_INFO] = "info",
                                          [KILN_LOG_DEBUG] = "debug"};

static void settle_common(cli *c) {
    c->level = c->verbose ? KILN_LOG_DEBUG : c->quiet ? KILN_LOG_ERROR : KILN_LOG_INFO;
    for (size_t i = 0; c->log_level_name && i < COUNT_OF(level_names); i++) {
        c->level = strcmp(level_names[i], c->log_level_name) == 0 ? (kiln_log_level)i : c->level;
    }
    if (c->format_name) {
        c->format = strcmp(c->format_name, "json") == 0  ? FORMAT_JSON
                    : strcmp(c->format_name, "csv") == 0 ? FORMAT_CSV
                                                         : FORMAT_TABLE;
    }
}

static void log_line(void *user, kiln_log_level level, const char *text) {
    say(user, level, "%s", safe(text));
}

static bool isa_exists(const char *name) {
    const char *isa;
    for (size_t i = 0; (isa = kiln_isa_get(i, NULL)) != NULL; i++) {
        if (strcasecmp(isa, name) == 0) {
            return true;
        }
    }
    return false;
}

static const char *isa_hint(void) {
    const char *isa, *text = "";
    for (size_t i = 0; (isa = kiln_isa_get(i, NULL)) != NULL; i++) {
        text = keepf("%s%s%s", text, i ? ", " : "", isa);
    }
    return keepf("one of %s", text);
}

static int check_isa(cli *c) {
    const char *limit = getenv("KILN_MAX_ISA");
    if (limit && *limit && !isa_exists(limit)) {
        return usage_error(c, isa_hint(), "KILN_MAX_ISA is \"%s\", which is no instruction set",
                           limit);
    }
    if (c->max_isa && !isa_exists(c->max_isa)) {
        return usage_error(c, isa_hint(), "--max-isa: \"%s\" is no instruction set", c->max_isa);
    }
    return 0;
}

static int run_verb(cli *c, int argc, char **argv) {
    void *own = allocate(c->verb->own_bytes);
    int status = parse_options(c, own, argc, argv);
    settle_common(c);
    if (status == 0 && c->help) {
        print_verb_help(stdout, c->verb);
        return 0;
    }
    status = status ? status : check_isa(c);
    if (status != 0) {
        return status;
    }
    const kiln_logger logger = {.line = log_line, .user = c, .level = c->level};
    const kiln_env_options env = {.size = sizeof env, .logger = &logger};
    kiln_status made = kiln_env_create(&c->env, &env);
    made = made == KILN_OK ? kiln_diag_create(&c->diag, c->env) : made;
    if (made != KILN_OK) {
        say(c, KILN_LOG_ERROR, "%s", kiln_status_name(made));
        return kiln_status_exit_code(made);
    }
    status = c->verb->run(c, own);
    end_progress(c);
    kiln_diag_destroy(c->diag);
    kiln_env_destroy(c->env);
    return status;
}

/* A reader that went away is no reason to complain; a full disk is. */
static int close_stdout(cli *c, int status) {
    errno = 0;
    bool failed = fflush(stdout) != 0 || ferror(stdout);
    if (!failed) {
        return status;
    }
    if (errno != EPIPE) {
        say(c, KILN_LOG_ERROR, "writing to stdout: %s", errno ? strerror(errno) : "failed");
    }
    return status ? status : kiln_status_exit_code(KILN_E_IO);
}

static int dispatch(cli *c, int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "";
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(word, "--version") == 0) {
        printf("kiln %s\n", kiln_version());
        return 0;
    }
    c->verb = find_verb(word);
    if (c->verb) {
        return run_verb(c, argc - 2, argv + 2);
    }
    if (argc < 2) {
        print_help(stderr);
        return kiln_status_exit_code(KILN_E_USAGE);
    }
    const char *near = nearest(word, verb_name, NULL);
    return usage_error(
        c, near ? keepf("did you mean `kiln %s`?", near) : "`kiln --help` lists the verbs",
        "there is no verb \"%s\"", word);
}

int main(int argc, char **argv) {
    cli c = {.started_ms = now_ms(), .level = KILN_LOG_INFO};
    guard_streams();
    install_signals();
    c.color = wants_color();
    c.tty = isatty(2);
    c.command = join_command(argc, argv);
    int status = close_stdout(&c, dispatch(&c, argc, argv));
    free_all();
    return status;
}
