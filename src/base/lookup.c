#include "base/lookup.h"

#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b) {
    const kiln_lookup_entry *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : x->at < y->at ? -1 : x->at > y->at;
}

kiln_status kiln_lookup_make(kiln_lookup *out, const char *const *names, size_t n,
                             kiln_arena *arena) {
    size_t kept = 0;
    *out = (kiln_lookup){0};
    KILN_ALLOC(out->entries, arena, n);
    for (size_t i = 0; i < n; i++) {
        if (names[i]) {
            out->entries[kept++] = (kiln_lookup_entry){names[i], i};
        }
    }
    qsort(out->entries, kept, sizeof *out->entries, by_name);
    for (size_t i = 0; i < kept; i++) {
        const kiln_lookup_entry *e = &out->entries[i];
        if (out->count == 0 || strcmp(out->entries[out->count - 1].name, e->name) != 0) {
            out->entries[out->count++] = *e;
        }
    }
    return KILN_OK;
}

static int to_entry(const void *name, const void *entry) {
    return strcmp(name, ((const kiln_lookup_entry *)entry)->name);
}

int64_t kiln_lookup_find(const kiln_lookup *lookup, const char *name) {
    const kiln_lookup_entry *e = lookup->count > 0 ? bsearch(name, lookup->entries, lookup->count,
                                                             sizeof *lookup->entries, to_entry)
                                                   : NULL;
    return e ? (int64_t)e->at : -1;
}
