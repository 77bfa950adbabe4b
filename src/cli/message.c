/* message.c - memory, messages on stderr, progress, signals. */
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

/* ---- Memory ---- */

/* Every block, newest first, so that all can be given back at the end. */
typedef struct block {
    struct block *next;
    max_align_t data[];
} block;

static block *blocks;

void *allocate(size_t bytes) {
    block *b = bytes < SIZE_MAX - sizeof *b ? calloc(1, sizeof *b + bytes) : NULL;
    if (!b) {
        fputs("error[E9001]: out of memory\n", stderr);
        exit(kiln_status_exit_code(KILN_E_MEMORY));
    }
    b->next = blocks;
    blocks = b;
    return b->data;
}

void free_all(void) {
    while (blocks) {
        block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

void *grow(void *items, size_t count, size_t *cap, size_t item_bytes) {
    if (count < *cap) {
        return items;
    }
    *cap = *cap ? 2 * *cap : 8;
    void *moved = allocate(*cap * item_bytes);
    if (count > 0) {
        memcpy(moved, items, count * item_bytes);
    }
    return moved;
}

char *keep(const char *text, size_t len) {
    char *copy = allocate(len + 1);
    memcpy(copy, text, len);
    return copy;
}

char *keepf(const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = allocate((size_t)(len < 0 ? 0 : len) + 1);
    vsnprintf(text, (size_t)(len < 0 ? 0 : len) + 1, fmt, again);
    va_end(again);
    return text;
}

/* ---- Messages ---- */

static const struct {
    const char *word, *color;
} levels[] = {
    [KILN_LOG_ERROR] = {"error", "\033[31m"},
    [KILN_LOG_WARN] = {"warning", "\033[33m"},
    [KILN_LOG_INFO] = {"", ""},
    [KILN_LOG_DEBUG] = {"", ""},
};

static void line(cli *c, kiln_log_level level, const char *text) {
    end_progress(c);
    const char *word = levels[level].word;
    fprintf(stderr, "%s%s%s%s%s\n", c->color ? levels[level].color : "", word,
            c->color && *word ? "\033[0m" : "", *word ? ": " : "", text);
}

void say(cli *c, kiln_log_level level, const char *fmt, ...) {
    char text[4096];
    va_list args;
    if (level > c->level) {
        return;
    }
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    line(c, level, text);
}

int usage_error(cli *c, const char *hint, const char *fmt, ...) {
    char text[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    line(c, KILN_LOG_ERROR, safe(text));
    if (hint) {
        fprintf(stderr, "  hint: %s\n", safe(hint));
    }
    return kiln_status_exit_code(KILN_E_USAGE);
}

static bool is_shown(const cli *c, const kiln_finding *f) {
    switch (f->severity) {
    case KILN_SEV_ERROR:
        return true;
    case KILN_SEV_WARNING:
        return c->level >= KILN_LOG_WARN;
    case KILN_SEV_NOTE:
        return c->level >= KILN_LOG_DEBUG;
    }
    return true;
}

void print_findings(cli *c) {
    for (; c->printed < kiln_diag_count(c->diag); c->printed++) {
        const kiln_finding *f = kiln_diag_get(c->diag, c->printed);
        if (!is_shown(c, f)) {
            continue;
        }
        char text[8192];
        kiln_finding_format(f, text, sizeof text);
        end_progress(c);
        size_t head = strcspn(text, "[: ");
        const char *color = f->severity == KILN_SEV_ERROR ? "\033[31m" : "\033[33m";
        fprintf(stderr, "%s%.*s%s%s\n", c->color ? color : "", (int)head, text,
                c->color ? "\033[0m" : "", text + head);
    }
}

int finish(cli *c, kiln_status status) {
    size_t before = c->printed;
    print_findings(c);
    int signal_exit = interrupted();
    if (status == KILN_E_CANCELLED && signal_exit) {
        return signal_exit;
    }
    if (status != KILN_OK && c->printed == before && status != KILN_E_CHECK) {
        say(c, KILN_LOG_ERROR, "%s", kiln_status_name(status));
    }
    return kiln_status_exit_code(status);
}

double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

double elapsed_s(const cli *c) {
    return 1e-3 * (now_ms() - c->started_ms);
}

/* ---- Signals ---- */

static const double patience_ms = 1000;
static volatile sig_atomic_t signalled;
static volatile double signalled_ms;
static kiln_context *_Atomic running;

/* The first signal ends the job with what there is; one that comes a second later kills. (Terminals
 * and timeout(1) send the first one twice.) */
static void on_signal(int number) {
    double now = now_ms();
    if (signalled && now - signalled_ms > patience_ms) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    if (!signalled) {
        signalled_ms = now;
        signalled = number;
    }
    kiln_context *context = atomic_load(&running);
    if (context) {
        kiln_context_cancel(context); /* one atomic store */
    }
}

int interrupted(void) {
    return signalled ? 128 + signalled : 0;
}

void cancel_on_signal(kiln_context *context) {
    atomic_store(&running, context);
}

void install_signals(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* writing says EPIPE, which main() handles */
    signal(SIGXFSZ, SIG_IGN); /* and EFBIG, so that no half-written file stays behind */
}

/* ---- Progress ---- */

typedef struct progress_line {
    cli *c;
    const char *what;
    double started_ms, drawn_ms;
} progress_line;

static bool step(void *user, double share) {
    progress_line *p = user;
    double now = now_ms();
    if (p->c->tty && p->c->level >= KILN_LOG_INFO && now - p->drawn_ms > 100) {
        p->drawn_ms = now;
        p->c->progress_shown = true;
        if (share > 0) {
            double left_s = 1e-3 * (now - p->started_ms) * (1 - share) / share;
            fprintf(stderr, "\r\033[K%s  %3.0f %%  eta %02d:%02d", p->what, 100 * share,
                    (int)left_s / 60, (int)left_s % 60);
        } else {
            fprintf(stderr, "\r\033[K%s", p->what);
        }
        fflush(stderr);
    }
    return !interrupted();
}

kiln_progress watch_progress(cli *c, const char *what) {
    progress_line *p = allocate(sizeof *p);
    *p = (progress_line){c, what, now_ms(), 0};
    return (kiln_progress){.step = step, .user = p};
}

void end_progress(cli *c) {
    if (c->progress_shown) {
        c->progress_shown = false;
        fputs("\r\033[K", stderr);
    }
}
