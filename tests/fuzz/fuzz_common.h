/* fuzz_common.h - an environment with tight limits, and a run within a budget of time.
 *
 * Inputs that merely compute for long must not look like hangs. Between two nodes a tap looks at
 * the clock; what one node can do is bounded by the sizes of its tensors, which are therefore
 * small. */
#ifndef KILN_TESTS_FUZZ_COMMON_H
#define KILN_TESTS_FUZZ_COMMON_H

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kiln/kiln.h"

static inline kiln_env *fuzz_env(void) {
    const kiln_limits limits = {.size = sizeof limits,
                                .tensor_bytes = 1 << 14,
                                .fold_bytes = 1 << 14,
                                .memory_bytes = 1 << 18,
                                .nodes = 256,
                                .nested_graphs = 4,
                                .functions = 32,
                                .call_depth = 8,
                                .attribute_items = 1 << 12,
                                .loop_trips = 16};
    const kiln_env_options options = {.size = sizeof options, .limits = &limits};
    kiln_env *env;
    return kiln_env_create(&env, &options) == KILN_OK ? env : NULL;
}

/* Ends a run at its first look at a value after the budget. */
static inline bool fuzz_wants(void *user, const char *name) {
    (void)name;
    const clock_t *until = user;
    return clock() > *until;
}

static inline kiln_status fuzz_see(void *user, const char *name, const char *node,
                                   const kiln_tensor *tensor, bool replayed) {
    (void)user;
    (void)name;
    (void)node;
    (void)tensor;
    (void)replayed;
    return KILN_E_CANCELLED;
}

enum { FUZZ_INPUTS = 6, FUZZ_INPUT_BYTES = 1 << 14 };

/* Binds every input that is a small tensor, dynamic dims 2; false when some is not. */
static inline bool fuzz_bind(kiln_context *context, const kiln_engine *engine, void **buffers) {
    kiln_io io;
    for (size_t i = 0; kiln_engine_input(engine, i, &io); i++) {
        kiln_tensor t = {.dtype = io.dtype, .rank = io.rank < 0 ? 1 : io.rank};
        if (i >= FUZZ_INPUTS || io.is_sequence || io.dtype == KILN_DTYPE_STRING) {
            return false;
        }
        for (int32_t d = 0; d < t.rank; d++) {
            t.dims[d] = io.rank < 0 || io.dims[d] < 0 ? 2 : io.dims[d];
        }
        t.cap_bytes = kiln_tensor_count(&t) < 0 ? SIZE_MAX : kiln_tensor_bytes(&t);
        if (t.cap_bytes > FUZZ_INPUT_BYTES) {
            return false;
        }
        /* Exactly as large as the tensor, so that a sanitizer sees a read past its end. */
        buffers[i] = malloc(t.cap_bytes ? t.cap_bytes : 1);
        if (!buffers[i]) {
            return false;
        }
        memset(buffers[i], 1, t.cap_bytes);
        t.data = buffers[i];
        if (kiln_context_bind(context, io.name, &t, NULL) != KILN_OK) {
            return false;
        }
    }
    return true;
}

static inline void fuzz_read_outputs(const kiln_context *context, const kiln_engine *engine) {
    volatile uint8_t sum = 0;
    kiln_io io;
    for (size_t i = 0; kiln_engine_output(engine, i, &io); i++) {
        for (size_t k = 0; k < kiln_context_output_items(context, i); k++) {
            const kiln_tensor *t = kiln_context_output_item(context, i, k);
            size_t bytes = t->dtype == KILN_DTYPE_STRING ? 0 : kiln_tensor_bytes(t);
            for (size_t b = 0; b < bytes; b++) {
                sum = (uint8_t)(sum + ((const uint8_t *)t->data)[b]);
            }
        }
    }
}

/* One run within half a second of processor time. */
static inline void fuzz_run(const kiln_engine *engine) {
    const kiln_context_options one = {.size = sizeof one, .threads = 1};
    clock_t until = clock() + CLOCKS_PER_SEC / 2;
    const kiln_tap budget = {fuzz_wants, fuzz_see, &until};
    void *buffers[FUZZ_INPUTS] = {NULL};
    kiln_context *context;
    if (kiln_context_create(&context, engine, &one, NULL) != KILN_OK) {
        return;
    }
    kiln_context_set_tap(context, &budget);
    if (fuzz_bind(context, engine, buffers) && kiln_context_run(context, NULL) == KILN_OK) {
        fuzz_read_outputs(context, engine);
    }
    kiln_context_destroy(context);
    for (size_t i = 0; i < FUZZ_INPUTS; i++) {
        free(buffers[i]);
    }
}

#endif
