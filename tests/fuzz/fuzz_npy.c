/* NumPy's array files: header, elements in either byte and memory order, and back. */
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "data/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every element's byte. */
static void touch(const kiln_tensor *t) {
    volatile uint8_t sum = 0;
    size_t bytes = kiln_tensor_bytes(t);
    for (size_t i = 0; i < bytes; i++) {
        sum = (uint8_t)(sum + ((const uint8_t *)t->data)[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const kiln_limits limits = {.size = sizeof limits, .tensor_bytes = 1 << 24};
    const kiln_env_options options = {.size = sizeof options, .limits = &limits};
    kiln_env *env;
    kiln_diag *diag;
    if (kiln_env_create(&env, &options) != KILN_OK) {
        return 0;
    }
    if (kiln_diag_create(&diag, env) == KILN_OK) {
        kiln_arena arena;
        kiln_tensor t;
        kiln_arena_init(&arena, env);
        if (kiln_npy_decode(&t, data, size, &arena, diag) == KILN_OK) {
            char *text;
            size_t len;
            touch(&t);
            /* What was read can be written, unless NumPy has no name for it. */
            if (kiln_npy_header_text(&text, &len, &t, &arena, diag) == KILN_OK && len % 64 != 0) {
                abort();
            }
        }
        kiln_arena_free(&arena);
        kiln_diag_destroy(diag);
    }
    kiln_env_destroy(env);
    return 0;
}
