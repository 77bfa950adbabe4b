#include "flow/crowd.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/env.h"

typedef struct member {
    kiln_crowd *crowd;
    kiln_timed timed;
    pthread_t thread;
} member;

struct kiln_crowd {
    const kiln_env *env;
    kiln_arena arena;
    member *members;
    int32_t n_open, n_running;
    atomic_bool stopped;
};

static void *run_on(void *user) {
    const member *m = user;
    kiln_status status = KILN_OK;
    while (status == KILN_OK && !atomic_load_explicit(&m->crowd->stopped, memory_order_relaxed)) {
        status = kiln_context_run(m->timed.context, NULL);
    }
    return NULL;
}

static kiln_status open_members(kiln_crowd *c, const kiln_engine *engine, int32_t n,
                                kiln_diag *diag) {
    const kiln_context_options one = {.size = sizeof one, .threads = 1};
    KILN_ALLOC(c->members, &c->arena, n);
    for (; c->n_open < n; c->n_open++) {
        member *m = &c->members[c->n_open];
        kiln_context *context;
        m->crowd = c;
        KILN_TRY(kiln_context_create(&context, engine, &one, diag));
        kiln_status status = kiln_timed_borrow(&m->timed, engine, context, c->env, diag);
        if (status != KILN_OK) {
            kiln_timed_close(&m->timed);
            kiln_context_destroy(context);
            return status;
        }
    }
    return KILN_OK;
}

kiln_status kiln_crowd_start(kiln_crowd **out, const kiln_engine *engine, int32_t n,
                             const kiln_env *env, kiln_diag *diag) {
    *out = NULL;
    if (n <= 0) {
        return KILN_OK;
    }
    kiln_crowd *c = kiln_env_alloc(env, sizeof *c);
    if (!c) {
        return KILN_E_MEMORY;
    }
    *c = (kiln_crowd){.env = env};
    kiln_arena_init(&c->arena, env);
    kiln_status status = open_members(c, engine, n, diag);
    if (status != KILN_OK) {
        kiln_crowd_stop(c);
        return status;
    }
    while (c->n_running < n && pthread_create(&c->members[c->n_running].thread, NULL, run_on,
                                              &c->members[c->n_running]) == 0) {
        c->n_running++;
    }
    *out = c;
    return KILN_OK;
}

void kiln_crowd_stop(kiln_crowd *crowd) {
    if (!crowd) {
        return;
    }
    const kiln_env *env = crowd->env;
    atomic_store(&crowd->stopped, true);
    for (int32_t i = 0; i < crowd->n_running; i++) {
        pthread_join(crowd->members[i].thread, NULL);
    }
    for (int32_t i = 0; i < crowd->n_open; i++) {
        kiln_context *context = crowd->members[i].timed.context;
        kiln_timed_close(&crowd->members[i].timed);
        kiln_context_destroy(context);
    }
    kiln_arena_free(&crowd->arena);
    kiln_env_release(env, crowd, sizeof *crowd);
}
