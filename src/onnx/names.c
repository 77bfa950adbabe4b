/* names.c - an open-addressed hash of names. */
#include "onnx/names.h"

#include <string.h>
#include <xxhash.h>

/* A count that a file states is believed up to a point; beyond it the table grows as names come. */
enum { MIN_SLOTS = 16, MAX_EXPECTED = 1 << 16 };

kiln_status kiln_names_init(kiln_names *names, kiln_arena *arena, uint64_t seed,
                            const kiln_names *outer, size_t expected) {
    size_t cap = MIN_SLOTS;
    while (cap / 4 * 3 < expected && cap < MAX_EXPECTED) {
        cap *= 2;
    }
    memset(names, 0, sizeof *names);
    names->outer = outer;
    names->arena = arena;
    names->seed = seed;
    names->cap = cap;
    KILN_ALLOC(names->slots, arena, cap);
    return KILN_OK;
}

static uint32_t hash_of(const kiln_names *names, kiln_view key) {
    return (uint32_t)XXH3_64bits_withSeed(key.n ? key.p : "", key.n, names->seed);
}

/* The slot that holds key, or the free one where it belongs. */
static kiln_name_slot *seek(const kiln_names *names, kiln_view key, uint32_t hash) {
    size_t mask = names->cap - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        kiln_name_slot *s = &names->slots[i];
        if (!s->p ||
            (s->hash == hash && s->n == key.n && memcmp(s->p, key.n ? key.p : "", key.n) == 0)) {
            return s;
        }
    }
}

static kiln_status grow(kiln_names *names) {
    kiln_names wider = *names;
    wider.cap = names->cap * 2;
    KILN_ALLOC(wider.slots, names->arena, wider.cap);
    for (size_t i = 0; i < names->cap; i++) {
        const kiln_name_slot *s = &names->slots[i];
        if (s->p) {
            *seek(&wider, kiln_view_of(s->p, s->n), s->hash) = *s;
        }
    }
    *names = wider;
    return KILN_OK;
}

kiln_status kiln_names_put(kiln_names *names, kiln_view key, void *item) {
    if (names->count + 1 > names->cap / 4 * 3) {
        KILN_TRY(grow(names));
    }
    uint32_t hash = hash_of(names, key);
    kiln_name_slot *s = seek(names, key, hash);
    names->count += !s->p;
    s->p = key.n ? key.p : "";
    s->n = (uint32_t)key.n;
    s->hash = hash;
    s->item = item;
    return KILN_OK;
}

bool kiln_names_find(const kiln_names *names, kiln_view key, void **item) {
    const kiln_name_slot *s = seek(names, key, hash_of(names, key));
    if (!s->p) {
        return false;
    }
    *item = s->item;
    return true;
}

bool kiln_names_resolve(const kiln_names *names, kiln_view key, void **item) {
    for (; names; names = names->outer) {
        if (kiln_names_find(names, key, item)) {
            return true;
        }
    }
    return false;
}
