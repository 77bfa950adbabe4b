/* The pool: every rank runs once, barriers order memory, and busy, forked, sleeping and starved
 * pools still do the work. */
#define _GNU_SOURCE 1

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/host.h"
#include "base/pool.h"
#include "base/timer.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MEMBERS = 4, ROUNDS = 300 };

static kiln_pool *make_pool(int32_t threads, int64_t spin_ns) {
    kiln_pool_options options = {.size = sizeof options, .threads = threads, .spin_ns = spin_ns};
    kiln_pool *pool;
    assert_int_equal(kiln_pool_create(&pool, NULL, &options), KILN_OK);
    return pool;
}

/* Ranks write plain ints in turn, separated by barriers only: each reads what its neighbour
 * wrote. */
typedef struct relay {
    int cells[MEMBERS];
    int wrong[MEMBERS];
    int size;
} relay;

static void run_relay(void *arg, const kiln_team *team) {
    relay *r = arg;
    if (team->rank == 0) {
        r->size = team->size;
    }
    for (int i = 0; i < ROUNDS; i++) {
        r->cells[team->rank] = i * MEMBERS + team->rank;
        kiln_team_barrier(team);
        int next = (team->rank + 1) % team->size;
        r->wrong[team->rank] += r->cells[next] != i * MEMBERS + next;
        kiln_team_barrier(team);
    }
}

static void expect_relay(kiln_pool *pool, int32_t threads, int size) {
    relay r;
    memset(&r, 0, sizeof r);
    kiln_pool_run(pool, threads, run_relay, &r);
    assert_int_equal(r.size, size);
    for (int i = 0; i < size; i++) {
        assert_int_equal(r.cells[i], (ROUNDS - 1) * MEMBERS + i);
        assert_int_equal(r.wrong[i], 0);
    }
}

static void test_barriers(void **state) {
    (void)state;
    static const int64_t spins[] = {0, -1, 1000};
    for (size_t i = 0; i < KILN_COUNT_OF(spins); i++) {
        kiln_pool *pool = make_pool(MEMBERS, spins[i]);
        assert_int_equal(kiln_pool_threads(pool), MEMBERS);
        for (int run = 0; run < 30; run++) {
            expect_relay(pool, run % (MEMBERS + 1),
                         run % (MEMBERS + 1) ? run % (MEMBERS + 1) : MEMBERS);
            if (run % 10 == 0) {
                usleep(2000); /* long enough for the workers to fall asleep */
            }
        }
        expect_relay(pool, 100, MEMBERS);
        kiln_pool_destroy(pool);
    }
    expect_relay(NULL, 0, 1);
}

static void count_one(void *arg, const kiln_team *team) {
    (void)team;
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void test_many_short_runs(void **state) {
    (void)state;
    kiln_pool *pool = make_pool(3, 0);
    atomic_int count = 0;
    for (int i = 0; i < 5000; i++) {
        kiln_pool_run(pool, 0, count_one, &count);
    }
    assert_int_equal(count, 15000);
    kiln_pool_destroy(pool);
    kiln_pool_destroy(NULL);
    assert_int_equal(kiln_pool_threads(NULL), 1);
}

typedef struct nested {
    kiln_pool *pool;
    atomic_int inner_size;
    atomic_int runs;
} nested;

static void inner(void *arg, const kiln_team *team) {
    nested *n = arg;
    atomic_fetch_add(&n->runs, 1);
    atomic_store(&n->inner_size, team->size);
}

static void outer(void *arg, const kiln_team *team) {
    nested *n = arg;
    (void)team;
    kiln_pool_run(n->pool, 0, inner, n);
}

static void test_busy_pool_runs_alone(void **state) {
    (void)state;
    nested n = {.pool = make_pool(2, 0)};
    kiln_pool_run(n.pool, 0, outer, &n);
    assert_int_equal(n.runs, 2);
    assert_int_equal(n.inner_size, 1);
    expect_relay(n.pool, 0, 2);
    kiln_pool_destroy(n.pool);
}

typedef struct user {
    kiln_pool *pool;
    int wrong;
} user;

/* A relay whose size is not known beforehand. */
static void *use_pool(void *arg) {
    user *u = arg;
    for (int i = 0; i < 50; i++) {
        relay r;
        memset(&r, 0, sizeof r);
        kiln_pool_run(u->pool, 0, run_relay, &r);
        for (int k = 0; k < MEMBERS; k++) {
            u->wrong += r.wrong[k] + (r.cells[k] != (k < r.size ? (ROUNDS - 1) * MEMBERS + k : 0));
        }
    }
    return NULL;
}

static void test_shared_by_callers(void **state) {
    (void)state;
    pthread_t threads[3];
    user users[3];
    kiln_pool *pool = make_pool(2, 0);
    for (int i = 0; i < 3; i++) {
        users[i] = (user){pool, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, use_pool, &users[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(users[i].wrong, 0);
    }
    kiln_pool_destroy(pool);
}

static void test_forked_child(void **state) {
    (void)state;
    kiln_pool *pool = make_pool(2, 0);
    expect_relay(pool, 0, 2);
    pid_t child = fork();
    if (child == 0) {
        atomic_int count = 0;
        alarm(20);
        kiln_pool_run(pool, 0, count_one, &count);
        kiln_pool_destroy(pool);
        _exit(count == 1 ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    expect_relay(pool, 0, 2);
    kiln_pool_destroy(pool);
}

#if defined(__x86_64__)
static void read_mode(void *arg, const kiln_team *team) {
    ((unsigned *)arg)[team->rank] = _mm_getcsr();
}

static void test_floating_point_mode(void **state) {
    (void)state;
    kiln_pool *pool = make_pool(2, 0);
    unsigned modes[2] = {0, 0}, before = _mm_getcsr();
    assert_int_equal(before & 0x8040, 0);
    for (int round_up = 0; round_up < 2; round_up++) {
        unsigned mine = (before & ~0x6000u) | (round_up ? 0x4000u : 0u);
        _mm_setcsr(mine);
        kiln_pool_run(pool, 0, read_mode, modes);
        unsigned after = _mm_getcsr();
        _mm_setcsr(before);
        assert_int_equal(modes[0] & 0x8040, 0x8040);
        assert_int_equal(modes[1] & 0x8040, 0x8040);
        assert_int_equal(after & ~0x3Fu, mine & ~0x3Fu);
    }
    kiln_pool_destroy(pool);
}
#else
static void test_floating_point_mode(void **state) {
    (void)state;
}
#endif

static void test_options(void **state) {
    (void)state;
    kiln_pool *pool;
    kiln_pool_options options = {.size = sizeof options, .threads = -1};
    assert_int_equal(kiln_pool_create(&pool, NULL, &options), KILN_E_USAGE);
    options.threads = 1 << 20;
    assert_int_equal(kiln_pool_create(&pool, NULL, &options), KILN_E_USAGE);
    options.threads = 0;
    options.pin = true;
    assert_int_equal(kiln_pool_create(&pool, NULL, &options), KILN_OK);
    assert_int_equal(kiln_pool_threads(pool), kiln_host_cores());
    kiln_pool_destroy(pool);
    assert_int_equal(kiln_pool_create(&pool, NULL, NULL), KILN_OK);
    kiln_pool_destroy(pool);
}

static void *failing_alloc(void *arg, size_t bytes) {
    int *left = arg;
    return (*left)-- > 0 ? aligned_alloc(64, (bytes + 63) & ~(size_t)63) : NULL;
}

static void failing_release(void *arg, void *ptr, size_t bytes) {
    (void)arg;
    (void)bytes;
    free(ptr);
}

static void test_out_of_memory(void **state) {
    (void)state;
    for (int n = 1; n <= 2; n++) {
        int left = n;
        kiln_allocator allocator = {failing_alloc, failing_release, &left};
        kiln_env_options options = {.size = sizeof options, .allocator = &allocator};
        kiln_env *env;
        kiln_pool *pool;
        assert_int_equal(kiln_env_create(&env, &options), KILN_OK);
        assert_int_equal(kiln_pool_create(&pool, env, NULL), KILN_E_MEMORY);
        kiln_env_destroy(env);
    }
}

static void test_split(void **state) {
    (void)state;
    for (int64_t n = 0; n < 40; n++) {
        for (int32_t size = 1; size < 9; size++) {
            int64_t at = 0, begin, end;
            for (int32_t rank = 0; rank < size; rank++) {
                kiln_team team = {size, rank, NULL};
                kiln_team_split(&team, n, &begin, &end);
                assert_int_equal(begin, at);
                assert_in_range(end - begin, n / size, n / size + (n % size != 0));
                at = end;
            }
            assert_int_equal(at, n);
        }
    }
}

static void test_timer(void **state) {
    (void)state;
    int64_t before = kiln_now_ns();
    usleep(3000);
    int64_t took = kiln_now_ns() - before;
    assert_true(took >= 3000000 && took < 20000000000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_barriers),
        cmocka_unit_test(test_many_short_runs),
        cmocka_unit_test(test_busy_pool_runs_alone),
        cmocka_unit_test(test_shared_by_callers),
        cmocka_unit_test(test_forked_child),
        cmocka_unit_test(test_floating_point_mode),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_timer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
