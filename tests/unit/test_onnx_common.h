/* test_onnx_common.h - importing in tests, and counting what it asks of the allocator. */
#ifndef KILN_TESTS_UNIT_TEST_ONNX_COMMON_H
#define KILN_TESTS_UNIT_TEST_ONNX_COMMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/diag.h"
#include "base/env.h"
#include "base/file.h"
#include "onnx/onnx.h"
#include "ops/ops.h"

/* One import and everything it needs. */
typedef struct imported {
    kiln_arena arena;
    kiln_files files;
    kiln_diag *diag;
    kiln_import model;
    kiln_status status;
} imported;

static inline void imported_begin(imported *m, const kiln_env *env) {
    memset(m, 0, sizeof *m);
    kiln_arena_init(&m->arena, env);
    assert_int_equal(kiln_diag_create(&m->diag, NULL), KILN_OK);
}

static inline void import_path(imported *m, const kiln_env *env, const char *path,
                               const kiln_import_options *options) {
    imported_begin(m, env);
    m->status = kiln_import_file(&m->model, path, options, &m->arena, &m->files, env, m->diag);
}

static inline void import_bytes(imported *m, const kiln_env *env, const void *bytes, size_t len) {
    imported_begin(m, env);
    m->status = kiln_import_memory(&m->model, bytes, len, NULL, &m->arena, &m->files, env, m->diag);
}

static inline void imported_end(imported *m) {
    for (size_t i = 0; i < m->files.count; i++) {
        kiln_file_close(m->files.items[i]);
    }
    kiln_arena_free(&m->arena);
    kiln_diag_destroy(m->diag);
}

/* The code of the first finding, or "ok". */
static inline const char *imported_code(const imported *m) {
    const kiln_finding *f = kiln_diag_get(m->diag, 0);
    return m->status == KILN_OK ? "ok" : f ? f->code : "none";
}

static inline void print_findings(const imported *m) {
    char text[1024];
    for (size_t i = 0; i < kiln_diag_count(m->diag); i++) {
        kiln_finding_format(kiln_diag_get(m->diag, i), text, sizeof text);
        print_message("    %s\n", text);
    }
}

/* An allocator that knows its peak, and can fail from a call on. */
typedef struct counted {
    size_t live, peak;
    long calls, fail_at; /* fail_at < 0: never */
} counted;

static inline void *counted_alloc(void *user, size_t bytes) {
    counted *c = user;
    if (c->fail_at >= 0 && c->calls++ >= c->fail_at) {
        return NULL;
    }
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (p) {
        c->live += bytes;
        c->peak = c->live > c->peak ? c->live : c->peak;
    }
    return p;
}

static inline void counted_release(void *user, void *p, size_t bytes) {
    counted *c = user;
    c->live -= p ? bytes : 0;
    free(p);
}

static inline kiln_env *counted_env(counted *c, const kiln_limits *limits) {
    kiln_allocator allocator = {counted_alloc, counted_release, c};
    kiln_env_options options = {.size = sizeof options, .allocator = &allocator, .limits = limits};
    kiln_env *env;
    memset(c, 0, sizeof *c);
    c->fail_at = -1;
    assert_int_equal(kiln_env_create(&env, &options), KILN_OK);
    return env;
}

#endif
