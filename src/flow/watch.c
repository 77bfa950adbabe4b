/* watch.c - a tap that keeps values and finds the first one that is not finite. */
#include <math.h>
#include <string.h>

#include "base/env.h"
#include "base/options.h"
#include "data/values.h"
#include "flow/flow.h"

struct kiln_watch {
    const kiln_env *env;
    kiln_context *context;
    kiln_arena arena;
    const char **mark;
    bool *marked; /* per name of mark */
    size_t n_mark;
    bool all, validate, found;
    kiln_tensors *kept;
    kiln_nonfinite bad;
};

static bool wants(void *user, const char *name) {
    const kiln_watch *w = user;
    if (w->all || (w->validate && !w->found)) {
        return true;
    }
    for (size_t i = 0; i < w->n_mark; i++) {
        if (strcmp(w->mark[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_marked(kiln_watch *w, const char *name) {
    for (size_t i = 0; i < w->n_mark; i++) {
        if (strcmp(w->mark[i], name) == 0) {
            w->marked[i] = true;
            return true;
        }
    }
    return w->all;
}

static void look(kiln_watch *w, const char *name, const char *node, const kiln_tensor *t) {
    enum { BLOCK = 256 };
    double block[BLOCK];
    int64_t per = kiln_values_per_element(t->dtype);
    int64_t total = per * kiln_tensor_count(t);
    for (int64_t first = 0; first < total; first += BLOCK) {
        int64_t n = total - first < BLOCK ? total - first : BLOCK;
        kiln_values_load(block, t, first, n);
        for (int64_t i = 0; i < n; i++) {
            if (isfinite(block[i])) {
                continue;
            }
            if (w->bad.count++ == 0) {
                w->bad.value = name;
                w->bad.node = node;
                w->bad.index = (first + i) / per;
                w->bad.number = block[i];
            }
        }
    }
    w->found = w->bad.count > 0;
}

static kiln_status see(void *user, const char *name, const char *node, const kiln_tensor *tensor,
                       bool replayed) {
    kiln_watch *w = user;
    (void)replayed;
    if (w->validate && !w->found) {
        look(w, name, node, tensor);
    }
    if (tensor->dtype != KILN_DTYPE_STRING && is_marked(w, name)) {
        return kiln_tensors_add(w->kept, name, tensor, NULL);
    }
    return KILN_OK;
}

static kiln_status copy_marks(kiln_watch *w, const char *const *mark) {
    size_t n = 0;
    while (mark && mark[n]) {
        n++;
    }
    KILN_ALLOC(w->mark, &w->arena, n + 1);
    KILN_ALLOC(w->marked, &w->arena, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(mark[i], "all") == 0) {
            w->all = true;
            continue;
        }
        const char *name = kiln_arena_text(&w->arena, mark[i], strlen(mark[i]));
        if (!name) {
            return KILN_E_MEMORY;
        }
        w->mark[w->n_mark++] = name;
    }
    return KILN_OK;
}

kiln_status kiln_watch_create(kiln_watch **out, kiln_context *context, const kiln_env *env,
                              const kiln_watch_options *options) {
    kiln_watch_options o;
    KILN_TRY(kiln_options_read(&o, sizeof o, options));
    kiln_watch *w = kiln_env_alloc(env, sizeof *w);
    if (!w) {
        return KILN_E_MEMORY;
    }
    memset(w, 0, sizeof *w);
    w->env = env;
    w->context = context;
    w->validate = o.validate;
    kiln_arena_init(&w->arena, env);
    kiln_status status = copy_marks(w, o.mark);
    status = status == KILN_OK ? kiln_tensors_create(&w->kept, env) : status;
    if (status != KILN_OK) {
        kiln_watch_destroy(w);
        return status;
    }
    kiln_tap tap = {.wants = wants, .see = see, .user = w};
    kiln_context_set_tap(context, &tap);
    *out = w;
    return KILN_OK;
}

void kiln_watch_destroy(kiln_watch *watch) {
    if (watch) {
        kiln_context_set_tap(watch->context, NULL);
        kiln_tensors_destroy(watch->kept);
        kiln_arena_free(&watch->arena);
        kiln_env_release(watch->env, watch, sizeof *watch);
    }
}

void kiln_watch_input(kiln_watch *watch, const char *name, const kiln_tensor *tensor) {
    if (watch->validate && !watch->found) {
        look(watch, name, "", tensor);
    }
}

const kiln_tensors *kiln_watch_marked(const kiln_watch *watch) {
    return watch->kept;
}

bool kiln_watch_nonfinite(const kiln_watch *watch, kiln_nonfinite *out) {
    if (watch->found) {
        *out = watch->bad;
    }
    return watch->found;
}

const char *kiln_watch_unseen(const kiln_watch *watch, size_t i) {
    for (size_t k = 0; k < watch->n_mark; k++) {
        if (!watch->marked[k] && i-- == 0) {
            return watch->mark[k];
        }
    }
    return NULL;
}
