/* probe.c - what this machine can do at most. */
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/cpu/prims/prims.h"
#include "backend/cpu/prims/probe.h"
#include "base/cpu.h"
#include "base/diag.h"
#include "base/env.h"
#include "base/host.h"
#include "base/pool.h"
#include "base/timer.h"
#include "kiln/tools.h"

enum { TRIALS = 9, TRIAL_NS = 4000000, FORKS = 2000, BARRIERS = 2000 };

/* One loop that all members of a team run at once. */
typedef struct load {
    const kiln_probe_prims *prims;
    enum { LOAD_MULTIPLY, LOAD_READ, LOAD_WRITE, LOAD_BARRIERS } kind;
    kiln_probe_product product;
    float *data; /* member r's part begins at r * n */
    int64_t n, rounds;
    _Atomic int64_t work; /* done by all */
} load;

static void run_load(void *arg, const kiln_team *team) {
    load *l = arg;
    float *mine = l->data ? l->data + team->rank * l->n : NULL;
    float sink = 0;
    int64_t work = 0;
    switch (l->kind) {
    case LOAD_MULTIPLY:
        work = (int64_t)l->prims->multiply(l->product, l->rounds, &sink);
        break;
    case LOAD_READ:
        sink = l->prims->read(mine, l->n, l->rounds);
        work = l->n * l->rounds * (int64_t)sizeof(float);
        break;
    case LOAD_WRITE:
        l->prims->write(mine, l->n, l->rounds);
        work = l->n * l->rounds * (int64_t)sizeof(float);
        break;
    case LOAD_BARRIERS:
        for (int64_t i = 0; i < l->rounds; i++) {
            kiln_team_barrier(team);
        }
        break;
    }
    /* The sink is used, though by nothing that matters. */
    atomic_fetch_add(&l->work, work + (sink == 1e30f));
}

static double time_ns(kiln_pool *pool, int32_t threads, load *l) {
    int64_t begin = kiln_now_ns();
    atomic_store(&l->work, 0);
    kiln_pool_run(pool, threads, run_load, l);
    return (double)(kiln_now_ns() - begin);
}

/* The best of several trials, in units of work a nanosecond. */
static double best_rate(kiln_pool *pool, int32_t threads, load *l) {
    double best = 0;
    l->rounds = 1;
    while (time_ns(pool, threads, l) < TRIAL_NS && l->rounds < INT64_MAX / 4) {
        l->rounds *= 2;
    }
    for (int i = 0; i < TRIALS; i++) {
        double ns = time_ns(pool, threads, l);
        double rate = ns > 0 ? (double)atomic_load(&l->work) / ns : 0;
        best = rate > best ? rate : best;
    }
    return best;
}

static double clock_ghz(void) {
    double best = 0;
    const int64_t n = TRIAL_NS;
    for (int i = 0; i < TRIALS; i++) {
        int64_t begin = kiln_now_ns();
        volatile uint64_t sink = kiln_probe_chain(n);
        (void)sink;
        double ns = (double)(kiln_now_ns() - begin);
        double ghz = (double)(n * KILN_PROBE_CHAIN_CYCLES) / ns;
        best = ghz > best ? ghz : best;
    }
    return best;
}

/* ---- Products ---- */

static const char *product_name(kiln_probe_product p) {
    static const char *const names[] = {"float32",  "int8 by pairs", "int8 by dot products",
                                        "bfloat16", "int8 in tiles", "bfloat16 in tiles"};
    return names[p];
}

static bool can_multiply(const kiln_cpu_target *t, kiln_probe_product p) {
    switch (p) {
    case KILN_PROBE_QUADS:
        return (t->features & (KILN_CPU_VNNI | KILN_CPU_AVXVNNI)) != 0 ||
               strcmp(t->prims->probe->isa, "portable") == 0;
    case KILN_PROBE_BF16:
        return (t->features & KILN_CPU_BF16) != 0;
    case KILN_PROBE_TILE_BYTES:
        return (t->features & KILN_CPU_AMX_INT8) != 0;
    case KILN_PROBE_TILE_HALVES:
        return (t->features & KILN_CPU_AMX_BF16) != 0;
    default:
        return true;
    }
}

static void probe_products(kiln_probe *out, const kiln_cpu_target *t, kiln_pool *pool) {
    for (int p = 0; p < KILN_PROBE_PRODUCTS; p++) {
        load l = {.prims = t->prims->probe, .kind = LOAD_MULTIPLY, .product = p};
        if (can_multiply(t, p)) {
            kiln_probe_rate *r = &out->products[out->n_products++];
            r->name = product_name(p);
            r->one = best_rate(pool, 1, &l);
            r->all = best_rate(pool, out->threads, &l);
        }
    }
}

/* ---- Memory ---- */

static kiln_status probe_memory(kiln_probe *out, const kiln_cpu_target *t, kiln_pool *pool,
                                const kiln_env *env, kiln_diag *diag) {
    kiln_cpu_info cpu;
    kiln_cpu_describe(&cpu);
    /* Half a cache: what lies there stays. Memory: several times the last level. */
    const struct {
        const char *name;
        int64_t bytes;
    } levels[] = {{"L1d", cpu.l1d_bytes / 2},
                  {"L2", cpu.l2_bytes / 2},
                  {"L3", cpu.l3_bytes / 2 / out->threads},
                  {"memory", (cpu.l3_bytes > 0 ? 4 * cpu.l3_bytes : 256 << 20) / out->threads}};
    for (size_t i = 0; i < KILN_COUNT_OF(levels); i++) {
        int64_t n = levels[i].bytes / (int64_t)sizeof(float) / 128 * 128;
        size_t bytes = (size_t)(n * out->threads) * sizeof(float);
        float *data = n > 0 ? kiln_env_alloc(env, bytes) : NULL;
        if (n > 0 && !data) {
            return kiln_fail(diag, KILN_F_MEMORY, "%zu bytes to measure bandwidth with", bytes);
        }
        if (n > 0) {
            kiln_probe_level *r = &out->levels[out->n_levels++];
            load l = {.prims = t->prims->probe, .kind = LOAD_WRITE, .data = data, .n = n};
            *r = (kiln_probe_level){.name = levels[i].name, .bytes = (size_t)n * sizeof(float)};
            r->write.one = best_rate(pool, 1, &l);
            r->write.all = best_rate(pool, out->threads, &l);
            l.kind = LOAD_READ;
            r->read.one = best_rate(pool, 1, &l);
            r->read.all = best_rate(pool, out->threads, &l);
            kiln_env_release(env, data, bytes);
        }
    }
    return KILN_OK;
}

/* ---- Threads ---- */

static void probe_threads(kiln_probe *out, const kiln_cpu_target *t, kiln_pool *pool) {
    load none = {.prims = t->prims->probe, .kind = LOAD_BARRIERS};
    load many = {.prims = t->prims->probe, .kind = LOAD_BARRIERS, .rounds = BARRIERS};
    double fork = 0, barrier = 0;
    for (int i = 0; i < TRIALS; i++) {
        int64_t begin = kiln_now_ns();
        for (int k = 0; k < FORKS; k++) {
            time_ns(pool, out->threads, &none);
        }
        double ns = (double)(kiln_now_ns() - begin) / FORKS;
        fork = i == 0 || ns < fork ? ns : fork;
        ns = time_ns(pool, out->threads, &many) / BARRIERS;
        barrier = i == 0 || ns < barrier ? ns : barrier;
    }
    out->fork_join_us = 1e-3 * fork;
    out->barrier_us = 1e-3 * barrier;
}

/* ---- All ---- */

kiln_status kiln_probe_run(kiln_probe *out, int32_t threads, const kiln_env *env, kiln_diag *diag) {
    kiln_cpu_target target;
    kiln_pool *pool = NULL;
    *out = (kiln_probe){.threads = threads > 0 ? threads : kiln_host_cores()};
    const kiln_pool_options o = {.size = sizeof o, .threads = out->threads};
    kiln_cpu_target_init(&target, kiln_cpu_features(), NULL);
    kiln_status status = kiln_pool_create(&pool, env, &o);
    if (status == KILN_OK) {
        out->clock_ghz = clock_ghz();
        probe_products(out, &target, pool);
        probe_threads(out, &target, pool);
        status = probe_memory(out, &target, pool, env, diag);
    }
    kiln_pool_destroy(pool);
    return kiln_diag_close(diag, status);
}
