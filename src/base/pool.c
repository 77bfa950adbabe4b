/* How a region starts: the caller writes the job, raises `generation` and wakes who sleeps. Each
 * worker waits for the generation to move, runs its rank, and counts itself out of `running`; the
 * caller runs rank 0 and then waits for the count to reach zero.
 *
 * Waiting is spinning first: pauses, then yields, then sleep. Where more threads than cores
 * compete, the one that is waited for may not be on a core at all; who spins then uses up the very
 * time it needs, and who sleeps is put on a core again at once when it is woken. A yield that took
 * long has shown that others compete, and ends the spin. */
#define _GNU_SOURCE 1

#include "base/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/env.h"
#include "base/host.h"
#include "base/options.h"
#include "base/timer.h"

enum {
    MAX_THREADS = 1024,
    DEFAULT_SPIN_NS = 50000,
    BARRIER_SPIN_NS = 200000,
    BURST = 1000, /* pauses before a spin begins to yield; about 20-50 us */
    STACK_BYTES = 2 << 20,
};

/* A number that some threads change and others wait for to change. */
typedef struct watched {
    KILN_ALIGNED(64) atomic_uint value;
    atomic_uint sleepers;
} watched;

/* A sense-reversing barrier: the last to arrive flips the phase that the others watch. The two
 * words sit on cache lines of their own, so that arriving does not disturb those who watch. */
struct kiln_barrier {
    KILN_ALIGNED(64) atomic_int arrived;
    watched phase;
};

typedef struct worker {
    kiln_pool *pool;
    pthread_t thread;
    int32_t rank;
    int32_t core; /* to be pinned to, or -1 */
} worker;

struct kiln_pool {
    kiln_barrier barrier;
    watched generation; /* of jobs */
    watched running;    /* workers still in the job */
    atomic_bool busy;
    atomic_bool stopping;
    const kiln_env *env;
    worker *workers; /* the first threads - 1 are running */
    int32_t wanted;  /* length of the array `workers` */
    int32_t threads; /* that could be had, the caller included */
    int64_t spin_ns;
    pid_t owner; /* in a forked child there are no workers */
    kiln_team_fn fn;
    void *arg;
    int32_t members;
};

static void relax(void) {
#if defined(__x86_64__)
    _mm_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* One step of a spin that began yielding at *start (0: not yet). False once it has lasted spin_ns
 * longer. */
static bool spin_once(int *spins, int64_t *start, int64_t spin_ns) {
    if (*spins < BURST) {
        ++*spins;
        relax();
        return true;
    }
    *start = *start ? *start : kiln_now_ns();
    sched_yield();
    return kiln_now_ns() - *start < spin_ns;
}

static void futex(atomic_uint *word, int operation, unsigned value) {
    syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* Waits while the number is `value`. A sleep is announced before the kernel looks at the number,
 * and who changes it looks for sleepers afterwards, both sequentially consistent: one of the two
 * sees the other. */
static void wait_while(watched *w, unsigned value, int64_t spin_ns) {
    int64_t start = 0;
    int spins = spin_ns > 0 ? 0 : BURST;
    while (atomic_load_explicit(&w->value, memory_order_acquire) == value) {
        if (spin_ns <= 0 || !spin_once(&spins, &start, spin_ns)) {
            atomic_fetch_add(&w->sleepers, 1);
            futex(&w->value, FUTEX_WAIT, value);
            atomic_fetch_sub(&w->sleepers, 1);
        }
    }
}

static void wake(watched *w) {
    if (atomic_load(&w->sleepers) > 0) {
        futex(&w->value, FUTEX_WAKE, INT_MAX);
    }
}

unsigned kiln_float_mode_enter(void) {
#if defined(__x86_64__)
    /* MXCSR: no traps; flush to zero and denormals are zero are bits 15 and 6. */
    enum { FAST = 0x1F80 | 0x8040 };
    unsigned before = _mm_getcsr();
    _mm_setcsr(FAST);
    return before;
#else
    return 0;
#endif
}

void kiln_float_mode_leave(unsigned before) {
#if defined(__x86_64__)
    _mm_setcsr((_mm_getcsr() & 0x3F) | (before & ~0x3Fu));
#else
    (void)before;
#endif
}

void kiln_team_barrier(const kiln_team *team) {
    kiln_barrier *barrier = team->barrier;
    if (!barrier) {
        return;
    }
    unsigned phase = atomic_load_explicit(&barrier->phase.value, memory_order_relaxed);
    int before = atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel);
    if (before == team->size - 1) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        atomic_store(&barrier->phase.value, phase + 1);
        wake(&barrier->phase);
        return;
    }
    wait_while(&barrier->phase, phase, BARRIER_SPIN_NS);
}

static void raise_generation(kiln_pool *pool) {
    atomic_fetch_add(&pool->generation.value, 1);
    wake(&pool->generation);
}

static void pin_to(int32_t core) {
    if (core >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)core, &set);
        pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    }
}

static void *work(void *arg) {
    worker *self = arg;
    kiln_pool *pool = self->pool;
    pin_to(self->core);
    kiln_float_mode_enter();
    /* Every worker takes part in every generation, if only to count itself out. */
    for (unsigned seen = 0;; seen++) {
        wait_while(&pool->generation, seen, pool->spin_ns);
        if (atomic_load_explicit(&pool->stopping, memory_order_relaxed)) {
            return NULL;
        }
        if (self->rank < pool->members) {
            kiln_team team = {pool->members, self->rank, &pool->barrier};
            pool->fn(pool->arg, &team);
        }
        if (atomic_fetch_sub(&pool->running.value, 1) == 1) {
            wake(&pool->running);
        }
    }
}

static void run_alone(kiln_team_fn fn, void *arg) {
    kiln_team team = {1, 0, NULL};
    fn(arg, &team);
}

static void run_together(kiln_pool *pool, int32_t members, kiln_team_fn fn, void *arg) {
    pool->fn = fn;
    pool->arg = arg;
    pool->members = members;
    unsigned left = (unsigned)pool->threads - 1;
    atomic_store_explicit(&pool->running.value, left, memory_order_relaxed);
    raise_generation(pool);
    kiln_team team = {members, 0, &pool->barrier};
    fn(arg, &team);
    while ((left = atomic_load_explicit(&pool->running.value, memory_order_acquire)) > 0) {
        wait_while(&pool->running, left, BARRIER_SPIN_NS);
    }
}

void kiln_pool_run(kiln_pool *pool, int32_t threads, kiln_team_fn fn, void *arg) {
    unsigned mode = kiln_float_mode_enter();
    int32_t most = pool ? pool->threads : 1;
    int32_t members = threads > 0 && threads < most ? threads : most;
    bool together = members > 1 && getpid() == pool->owner &&
                    !atomic_exchange_explicit(&pool->busy, true, memory_order_acquire);
    if (together) {
        run_together(pool, members, fn, arg);
        atomic_store_explicit(&pool->busy, false, memory_order_release);
    } else {
        run_alone(fn, arg);
    }
    kiln_float_mode_leave(mode);
}

/* Starts workers until one cannot be started; the pool is then that much smaller. They inherit a
 * mask that blocks all signals: the host's handlers run on the host's threads. */
static void start_workers(kiln_pool *pool, int32_t wanted, bool pin) {
    pthread_attr_t attr;
    if (pthread_attr_init(&attr) != 0) {
        return;
    }
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int32_t rank = 1; rank < wanted; rank++) {
        worker *w = &pool->workers[rank - 1];
        *w = (worker){.pool = pool, .rank = rank, .core = pin ? kiln_host_core(rank) : -1};
        if (pthread_create(&w->thread, &attr, work, w) != 0) {
            break;
        }
        pool->threads = rank + 1;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
}

kiln_status kiln_pool_create(kiln_pool **out, const kiln_env *env,
                             const kiln_pool_options *options) {
    kiln_pool_options given;
    KILN_TRY(kiln_options_read(&given, sizeof given, options));
    if (given.threads < 0 || given.threads > MAX_THREADS || given.spin_ns < -1) {
        return KILN_E_USAGE;
    }
    int32_t wanted = given.threads ? given.threads : kiln_host_cores();
    wanted = wanted > MAX_THREADS ? MAX_THREADS : wanted;
    kiln_pool *pool = kiln_env_alloc(env, sizeof *pool);
    worker *workers = kiln_env_alloc(env, (size_t)wanted * sizeof *workers);
    if (!pool || !workers) {
        kiln_env_release(env, pool, sizeof *pool);
        kiln_env_release(env, workers, (size_t)wanted * sizeof *workers);
        return KILN_E_MEMORY;
    }
    memset(pool, 0, sizeof *pool);
    pool->env = env;
    pool->workers = workers;
    pool->wanted = wanted;
    pool->threads = 1;
    pool->spin_ns = given.spin_ns ? given.spin_ns : DEFAULT_SPIN_NS;
    pool->owner = getpid();
    start_workers(pool, wanted, given.pin);
    *out = pool;
    return KILN_OK;
}

void kiln_pool_destroy(kiln_pool *pool) {
    if (!pool) {
        return;
    }
    /* In a forked child the workers do not exist. */
    if (getpid() == pool->owner) {
        atomic_store_explicit(&pool->stopping, true, memory_order_relaxed);
        raise_generation(pool);
        for (int32_t i = 0; i < pool->threads - 1; i++) {
            pthread_join(pool->workers[i].thread, NULL);
        }
    }
    kiln_env_release(pool->env, pool->workers, (size_t)pool->wanted * sizeof *pool->workers);
    kiln_env_release(pool->env, pool, sizeof *pool);
}

int32_t kiln_pool_threads(const kiln_pool *pool) {
    return pool ? pool->threads : 1;
}
