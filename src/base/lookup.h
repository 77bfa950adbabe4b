/* lookup.h - numbers by name: made once of all names, then asked often.
 *
 *     kiln_lookup layers;
 *     KILN_TRY(kiln_lookup_make(&layers, names, n, arena));
 *     int64_t at = kiln_lookup_find(&layers, "conv1");     // names[at] is it, or at is -1
 *
 * Sorted, not hashed: names come from files, and no choice of them makes it slow. */
#ifndef KILN_BASE_LOOKUP_H
#define KILN_BASE_LOOKUP_H

#include "base/arena.h"

typedef struct kiln_lookup_entry {
    const char *name;
    size_t at;
} kiln_lookup_entry;

typedef struct kiln_lookup {
    kiln_lookup_entry *entries; /* by name; each name once */
    size_t count;
} kiln_lookup;

/* Of n names, which are borrowed; NULL among them is no name. Of equal names the first counts.
 * KILN_E_MEMORY. */
kiln_status kiln_lookup_make(kiln_lookup *out, const char *const *names, size_t n,
                             kiln_arena *arena);
/* Its place among the names, or -1. */
int64_t kiln_lookup_find(const kiln_lookup *lookup, const char *name);

#endif
