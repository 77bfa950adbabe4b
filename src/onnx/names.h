/* names.h - values by name within one scope.
 *
 * Keys are borrowed views. The hash is seeded, so that a file cannot be made to collide. A scope
 * sees the names of the scopes around it through `outer`.
 *
 *     kiln_names names;
 *     KILN_TRY(kiln_names_init(&names, arena, seed, outer, 100));
 *     KILN_TRY(kiln_names_put(&names, key, value));
 *     if (kiln_names_find(&names, key, &value)) { ... }
 */
#ifndef KILN_ONNX_NAMES_H
#define KILN_ONNX_NAMES_H

#include "onnx/wire.h"

typedef struct kiln_name_slot {
    const char *p; /* NULL: free */
    void *item;
    uint32_t n, hash;
} kiln_name_slot;

typedef struct kiln_names {
    const struct kiln_names *outer;
    kiln_arena *arena;
    kiln_name_slot *slots;
    size_t count, cap; /* cap is a power of two */
    uint64_t seed;
} kiln_names;

/* An empty scope with room for `expected` names before it grows. */
kiln_status kiln_names_init(kiln_names *names, kiln_arena *arena, uint64_t seed,
                            const kiln_names *outer, size_t expected);
/* Adds or replaces. */
kiln_status kiln_names_put(kiln_names *names, kiln_view key, void *item);
/* Looks in this scope alone. */
bool kiln_names_find(const kiln_names *names, kiln_view key, void **item);
/* Looks in this scope, then outwards. */
bool kiln_names_resolve(const kiln_names *names, kiln_view key, void **item);

#endif
