/* session.c - from options to a running context: files, generated inputs. */
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* ---- Opening ---- */

static kiln_goal goal_of(const cli *c) {
    return !c->goal                             ? KILN_GOAL_LATENCY
           : strcmp(c->goal, "memory") == 0     ? KILN_GOAL_MEMORY
           : strcmp(c->goal, "throughput") == 0 ? KILN_GOAL_THROUGHPUT
                                                : KILN_GOAL_LATENCY;
}

int session_options(cli *c, const char *path, kiln_open_options *out) {
    kiln_model_options *model = allocate(sizeof *model);
    kiln_build_options *build = allocate(sizeof *build);
    kiln_load_options *load = allocate(sizeof *load);
    shapes overrides = {0};
    ranges profile = {0};
    double workspace = 0;
    if (c->workspace && !(parse_bytes(c->workspace, &workspace) && workspace >= 1)) {
        return usage_error(c, NULL, "--workspace takes a size as 512KiB or 2GiB, not \"%s\"",
                           c->workspace);
    }
    int status = shape_options(c, path, &overrides, &profile);
    if (status != 0) {
        return status;
    }
    *model = (kiln_model_options){.size = sizeof *model,
                                  .external_root = c->external_root,
                                  .no_mmap = c->no_mmap,
                                  .verify_checksums = c->verify,
                                  .overrides = overrides.items,
                                  .n_overrides = overrides.count};
    if (c->off.count > 0) {
        list_add(&c->off, NULL);
        c->off.count--;
    }
    *build = (kiln_build_options){.size = sizeof *build,
                                  .max_isa = c->max_isa,
                                  .off = c->off.count > 0 ? c->off.items : NULL,
                                  .exact = c->exact,
                                  .goal = goal_of(c),
                                  .workspace_bytes = (size_t)workspace,
                                  .profile = profile.items,
                                  .n_profile = profile.count};
    *load = (kiln_load_options){.size = sizeof *load, .verify = c->verify, .no_mmap = c->no_mmap};
    *out = (kiln_open_options){.size = sizeof *out, .model = model, .build = build, .load = load};
    return 0;
}

int session_levels(cli *c, int32_t level, bool range, int32_t *first, int32_t *last) {
    const char *t = c->opt_level;
    *first = *last = level;
    if (!t) {
        return 0;
    }
    bool one = t[0] >= '0' && t[0] <= '5' && !t[1];
    bool two = t[0] >= '0' && t[0] <= '5' && t[1] == '-' && t[2] >= t[0] && t[2] <= '5' && !t[3];
    if (!one && !(two && range)) {
        return usage_error(c, NULL, "--opt-level takes a number from 0 to 5%s",
                           range ? ", or two of them as 0-5" : "");
    }
    *first = t[0] - '0';
    *last = two ? t[2] - '0' : *first;
    return 0;
}

const kiln_tune_options *session_tune(const cli *c, int32_t level, int64_t threads) {
    kiln_tune_options *o = allocate(sizeof *o);
    *o = (kiln_tune_options){.size = sizeof *o,
                             .level = level,
                             .threads = (int32_t)threads,
                             .budget_s = c->time_budget,
                             .cache = c->timing_cache,
                             .frozen = c->frozen};
    return level > 0 ? o : NULL;
}

int session_open(cli *c, session *s, const char *path) {
    kiln_open_options o;
    double start = now_ms();
    s->path = path;
    int failed = session_options(c, path, &o);
    if (failed != 0) {
        return failed;
    }
    o.tune = s->tune;
    kiln_status status = kiln_engine_open(&s->engine, &s->model, c->env, path, &o, c->diag);
    if (status != KILN_OK) {
        return finish(c, status);
    }
    s->open_ms = now_ms() - start;
    print_findings(c);
    kiln_engine_info info;
    kiln_engine_get_info(s->engine, &info);
    say(c, KILN_LOG_INFO, "%-8s %s  %s  %s of weights  %s in %.1f ms",
        s->model ? "model" : "engine", safe(path), info.isa ? info.isa : "?",
        bytes_text((double)info.weight_bytes), s->model ? "built" : "loaded", s->open_ms);
    return 0;
}

void session_close(session *s) {
    cancel_on_signal(NULL);
    kiln_context_destroy(s->context);
    kiln_tensors_destroy(s->inputs);
    kiln_engine_destroy(s->engine);
    kiln_model_destroy(s->model);
    *s = (session){0};
}

/* ---- Inputs ---- */

const char *preprocess_text(const cli *c) {
    const char *text = NULL;
    for (size_t i = 0; i < c->preprocess.count; i++) {
        const char *pair = c->preprocess.items[i];
        pair = strncmp(pair, "image-", 6) == 0 ? pair + 6 : pair;
        text = text ? keepf("%s %s", text, pair) : pair;
    }
    return text;
}

kiln_tolerance tolerance_of(const cli *c) {
    return (kiln_tolerance){.size = sizeof(kiln_tolerance),
                            .atol = c->atol,
                            .rtol = c->rtol,
                            .range_tol = c->range_tol,
                            .min_cosine = c->min_cosine,
                            .min_sqnr_db = c->min_sqnr_db,
                            .min_top1 = c->min_top1};
}

static bool find_input(const session *s, const char *name, size_t len, kiln_io *out) {
    for (size_t i = 0; kiln_engine_input(s->engine, i, out); i++) {
        if (strlen(out->name) == len && memcmp(out->name, name, len) == 0) {
            return true;
        }
    }
    return false;
}

/* The input that a word without a name is for: the only one. */
static const kiln_io *only_input(const session *s, kiln_io *out) {
    kiln_io second;
    bool one = kiln_engine_input(s->engine, 0, out) && !kiln_engine_input(s->engine, 1, &second);
    return one ? out : NULL;
}

/* "NAME=FILE" where NAME is an input (names and files may hold "="), else FILE. */
static const char *split_input(const session *s, const char *word, kiln_io *io) {
    for (const char *eq = strchr(word, '='); eq; eq = strchr(eq + 1, '=')) {
        if (find_input(s, word, (size_t)(eq - word), io)) {
            return eq + 1;
        }
    }
    return NULL;
}

/* Files that name their tensors themselves. */
static bool names_itself(const char *path) {
    const char *dot = strrchr(path, '.');
    return !dot || strcmp(dot, ".npz") == 0 || strchr(dot, '/');
}

static int read_input(cli *c, session *s, const char *word) {
    kiln_io io;
    kiln_read_options o = {.size = sizeof o, .preprocess = preprocess_text(c)};
    const char *file = split_input(s, word, &io);
    if (file) {
        o.like = &io;
    } else if (strchr(word, '=') && access(word, F_OK) != 0) {
        return usage_error(c, "`kiln inspect` lists the inputs", "there is no input \"%s\"",
                           keep(word, strcspn(word, "=")));
    } else {
        file = word;
        o.like = only_input(s, &io);
        if (!o.like && !names_itself(word)) {
            return usage_error(c, "write --input NAME=FILE; `kiln inspect` lists the inputs",
                               "\"%s\" does not begin with the name of an input", word);
        }
    }
    o.name = o.like ? o.like->name : NULL;
    kiln_status status = kiln_tensors_read(s->inputs, file, &o, c->diag);
    return status == KILN_OK ? 0 : finish(c, status);
}

/* What the sizes of dynamic dims were chosen for. */
static const char *size_note(const kiln_io *io) {
    for (int32_t d = 0; d < io->rank; d++) {
        if (io->dims[d] < 0) {
            return io->has_range ? keepf(", profile %s", ranges_text(io))
                                 : keepf(", declared %s", safe(io->type));
        }
    }
    return "";
}

static int generate_missing(cli *c, session *s, int64_t batch) {
    kiln_generate_options g = {.size = sizeof g, .seed = (uint64_t)c->seed, .batch = batch};
    list names = {0};
    shapes asked = {0};
    kiln_io io;
    double range[2];
    for (size_t i = 0; kiln_engine_input(s->engine, i, &io); i++) {
        list_add(&names, io.name);
    }
    if (!expand_shapes(c, &c->shapes, &names, &asked)) {
        return kiln_status_exit_code(KILN_E_USAGE);
    }
    if (c->range.count > 0) {
        if (c->range.count != 2 || !parse_number_list(c, "range", &c->range, range, 2)) {
            return usage_error(c, NULL, "--range takes MIN,MAX");
        }
        g.has_range = true;
        g.min = range[0];
        g.max = range[1];
    }
    g.shapes = asked.items;
    g.n_shapes = asked.count;
    for (size_t i = 0; kiln_engine_input(s->engine, i, &io); i++) {
        if (kiln_tensors_find(s->inputs, io.name)) {
            continue;
        }
        kiln_status status = kiln_tensors_generate(s->inputs, &io, &g, c->diag);
        if (status != KILN_OK) {
            return finish(c, status);
        }
        const kiln_tensor *t = kiln_tensors_find(s->inputs, io.name);
        say(c, KILN_LOG_INFO, "%-8s %s  %s%s %s  generated, seed %lld%s", "input", safe(io.name),
            io.is_sequence ? "sequence of 2 x " : "", kiln_dtype_name(t->dtype),
            dims_text(t->dims, t->rank), (long long)(c->seed ? c->seed : 1), size_note(&io));
    }
    return 0;
}

int session_inputs(cli *c, session *s, int64_t batch) {
    kiln_tensors_destroy(s->inputs);
    s->inputs = NULL;
    kiln_status status = kiln_tensors_create(&s->inputs, c->env);
    if (status != KILN_OK) {
        return finish(c, status);
    }
    for (size_t i = 0; i < c->inputs.count; i++) {
        int failed = read_input(c, s, c->inputs.items[i]);
        if (failed != 0) {
            return failed;
        }
    }
    return generate_missing(c, s, batch);
}

int session_context(cli *c, session *s, int64_t threads) {
    kiln_context_options o = {.size = sizeof o,
                              .pool = s->pool,
                              .threads = (int32_t)threads,
                              .seed = (uint64_t)c->seed,
                              .regions = s->regions};
    kiln_context_destroy(s->context);
    s->context = NULL;
    kiln_status status = kiln_context_create(&s->context, s->engine, &o, c->diag);
    if (status == KILN_OK && s->inputs) {
        status = kiln_tensors_bind(s->inputs, s->engine, s->context, c->diag);
    }
    if (status != KILN_OK) {
        return finish(c, status);
    }
    print_findings(c);
    cancel_on_signal(s->context);
    return 0;
}
