/* test_data_common.h - what the tests of src/data share: files of tests/golden/data, scratch files,
 * expecting failures, and an allocator that counts what is still held. */
#ifndef KILN_TEST_DATA_COMMON_H
#define KILN_TEST_DATA_COMMON_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/diag.h"
#include "base/file.h"

#ifndef KILN_SOURCE_DIR
#define KILN_SOURCE_DIR "." /* tests run in the repository's root */
#endif

typedef struct fixture {
    kiln_env *env;
    kiln_arena arena;
    kiln_diag *diag;
    int64_t held_bytes; /* allocated and not released */
    int64_t fail_at;    /* number of the allocation that fails, counted down; 0: none */
    char path[4][1024]; /* of golden(), temp() and shared(), in turn */
    int next_path;
} fixture;

static void *counted_alloc(void *user, size_t bytes) {
    fixture *f = user;
    if (f->fail_at > 0 && --f->fail_at == 0) {
        return NULL;
    }
    f->held_bytes += (int64_t)bytes;
    return aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
}

static void counted_release(void *user, void *ptr, size_t bytes) {
    fixture *f = user;
    if (ptr) {
        f->held_bytes -= (int64_t)bytes;
        free(ptr);
    }
}

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    const kiln_allocator allocator = {counted_alloc, counted_release, f};
    const kiln_env_options options = {.size = sizeof options, .allocator = &allocator};
    if (!f || kiln_env_create(&f->env, &options) || kiln_diag_create(&f->diag, f->env)) {
        return -1;
    }
    kiln_arena_init(&f->arena, f->env);
    *state = f;
    return 0;
}

/* Also a test: everything that was allocated has been released. */
static int tear_down(void **state) {
    fixture *f = *state;
    kiln_arena_free(&f->arena);
    kiln_diag_destroy(f->diag);
    kiln_env_destroy(f->env);
    int64_t held = f->held_bytes;
    free(f);
    if (held != 0) {
        print_error("%lld bytes were not released\n", (long long)held);
    }
    return held == 0 ? 0 : -1;
}

KILN_UNUSED static const char *in_folder(fixture *f, const char *folder, const char *name) {
    char *path = f->path[f->next_path++ % 4];
    snprintf(path, sizeof f->path[0], "%s/%s", folder, name);
    return path;
}

KILN_UNUSED static const char *golden(fixture *f, const char *name) {
    return in_folder(f, KILN_SOURCE_DIR "/tests/golden/data", name);
}

KILN_UNUSED static const char *temp(fixture *f, const char *name) {
    const char *folder = getenv("KILN_TMP");
    return in_folder(f, folder && *folder ? folder : "/tmp", name);
}

/* Material outside the repository; NULL (after saying so) where it is absent. */
KILN_UNUSED static const char *shared(fixture *f, const char *name) {
    const char *root = getenv("KILN_SHARED");
    const char *path = in_folder(f, root && *root ? root : KILN_SOURCE_DIR "/../shared", name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        print_message("%s is absent: skipped\n", path);
        return NULL;
    }
    fclose(file);
    return path;
}

KILN_UNUSED static void show_findings(const fixture *f) {
    for (size_t i = 0; i < kiln_diag_count(f->diag); ++i) {
        char text[512];
        kiln_finding_format(kiln_diag_get(f->diag, i), text, sizeof text);
        print_message("  %s\n", text);
    }
}

#define assert_ok(f, expr)                     \
    do {                                       \
        kiln_status ok_status_ = (expr);       \
        if (ok_status_ != KILN_OK) {           \
            show_findings(f);                  \
        }                                      \
        assert_int_equal(ok_status_, KILN_OK); \
    } while (0)

/* cmocka's own compares as float. NaN is near nothing. */
#define assert_near(a, b, within) assert_true(fabs((double)(a) - (double)(b)) <= (double)(within))

/* The call failed with this status, and a finding whose text holds `part` says so. */
#define assert_refused(f, expr, wanted, part) \
    do {                                      \
        kiln_diag_clear((f)->diag);           \
        assert_int_equal((expr), (wanted));   \
        check_finding((f), (part));           \
    } while (0)

KILN_UNUSED static void check_finding(const fixture *f, const char *part) {
    for (size_t i = 0; i < kiln_diag_count(f->diag); ++i) {
        char text[1024];
        kiln_finding_format(kiln_diag_get(f->diag, i), text, sizeof text);
        if (strstr(text, part)) {
            return;
        }
    }
    show_findings(f);
    fail_msg("no finding mentions \"%s\"", part);
}

KILN_UNUSED static void write_bytes(fixture *f, const char *path, const void *bytes, size_t count) {
    assert_ok(f, kiln_file_write(path, bytes, count, f->diag));
}

#endif
