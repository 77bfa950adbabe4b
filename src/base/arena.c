/* Chunks grow with the arena (a quarter of what it holds, within bounds), so that small arenas stay
 * small and large ones ask rarely. Every chunk is sized request + growth: a large block leaves room
 * for the small ones that follow it instead of wasting a chunk of its own. */
#include "base/arena.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/env.h"
#include "base/text.h"

/* A test that fails every request gives no growth. */
#ifndef KILN_ARENA_GROWTH
#define KILN_ARENA_GROWTH 4 << 10, 256 << 10
#endif
enum { HEADER = 64, WIDE = 64, NARROW = 16 };
static const size_t growth_bytes[2] = {KILN_ARENA_GROWTH};

struct kiln_arena_chunk {
    kiln_arena_chunk *older;
    size_t bytes; /* whole block, header included; data starts HEADER bytes in, aligned to 64 */
};

void kiln_arena_init(kiln_arena *arena, const kiln_env *env) {
    *arena = (kiln_arena){.env = env};
}

void kiln_arena_within(kiln_arena *arena, kiln_arena *outer) {
    *arena = (kiln_arena){.env = outer->env, .outer = outer};
}

static kiln_arena_chunk *take_chunk(kiln_arena *arena, size_t bytes) {
    return arena->outer ? kiln_arena_raw(arena->outer, bytes) : kiln_env_alloc(arena->env, bytes);
}

static void drop_newest(kiln_arena *arena) {
    kiln_arena_chunk *chunk = arena->chunks;
    arena->chunks = chunk->older;
    arena->total_bytes -= chunk->bytes;
    if (!arena->outer) {
        kiln_env_release(arena->env, chunk, chunk->bytes);
    }
}

void kiln_arena_free(kiln_arena *arena) {
    kiln_arena_rewind(arena, (kiln_arena_mark){NULL, 0});
}

kiln_arena_mark kiln_arena_here(const kiln_arena *arena) {
    return (kiln_arena_mark){arena->chunks, arena->used_bytes};
}

void kiln_arena_rewind(kiln_arena *arena, kiln_arena_mark mark) {
    while (arena->chunks && arena->chunks != mark.chunk) {
        drop_newest(arena);
    }
    arena->used_bytes = mark.used_bytes;
}

static bool add_chunk(kiln_arena *arena, size_t bytes) {
    size_t growth = arena->total_bytes / 4;
    growth = growth < growth_bytes[0]   ? growth_bytes[0]
             : growth > growth_bytes[1] ? growth_bytes[1]
                                        : growth;
    size_t total;
    if (!kiln_add_size(bytes, HEADER, &total)) {
        return false;
    }
    /* The slack is a convenience: a request that only fits without it is still served. */
    kiln_arena_chunk *chunk = NULL;
    size_t roomy;
    if (growth > 0 && kiln_add_size(total, growth, &roomy)) {
        chunk = take_chunk(arena, roomy);
    }
    if (chunk) {
        total = roomy;
    } else {
        chunk = take_chunk(arena, total);
    }
    if (!chunk) {
        return false;
    }
    *chunk = (kiln_arena_chunk){arena->chunks, total};
    arena->chunks = chunk;
    arena->used_bytes = HEADER;
    arena->total_bytes += total;
    return true;
}

void kiln_arena_recycle(kiln_arena *arena) {
    size_t total = arena->total_bytes;
    if (arena->chunks && arena->chunks->older) {
        kiln_arena_free(arena);
        (void)add_chunk(arena, total); /* without it the next use allocates as usual */
    }
    arena->used_bytes = arena->chunks ? HEADER : 0;
}

void *kiln_arena_raw(kiln_arena *arena, size_t bytes) {
    size_t align = bytes >= WIDE ? WIDE : NARROW;
    size_t need;
    if (!kiln_align_size(bytes ? bytes : 1, NARROW, &need)) {
        return NULL;
    }
    /* used_bytes <= chunk->bytes, so aligning it cannot wrap. */
    size_t begin = (arena->used_bytes + align - 1) & ~(align - 1);
    if (!arena->chunks || begin > arena->chunks->bytes || need > arena->chunks->bytes - begin) {
        if (!add_chunk(arena, need)) {
            return NULL;
        }
        begin = HEADER;
    }
    arena->used_bytes = begin + need;
    return (char *)arena->chunks + begin;
}

void *kiln_arena_array(kiln_arena *arena, size_t count, size_t item_bytes) {
    size_t bytes;
    if (!kiln_mul_size(count, item_bytes, &bytes)) {
        return NULL;
    }
    void *ptr = kiln_arena_raw(arena, bytes);
    if (ptr) {
        memset(ptr, 0, bytes);
    }
    return ptr;
}

void *kiln_arena_copy(kiln_arena *arena, const void *src, size_t bytes) {
    void *ptr = kiln_arena_raw(arena, bytes);
    if (ptr && bytes) {
        memcpy(ptr, src, bytes);
    }
    return ptr;
}

char *kiln_arena_text(kiln_arena *arena, const char *src, size_t len) {
    size_t bytes;
    if (!kiln_add_size(len, 1, &bytes)) {
        return NULL;
    }
    char *text = kiln_arena_raw(arena, bytes);
    if (!text) {
        return NULL;
    }
    if (len) {
        memcpy(text, src, len);
    }
    text[len] = '\0';
    return text;
}

char *kiln_arena_vprintf(kiln_arena *arena, const char *fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    int len = kiln_vformat(NULL, 0, fmt, args);
    char *text = len < 0 ? NULL : kiln_arena_raw(arena, (size_t)len + 1);
    if (text) {
        kiln_vformat(text, (size_t)len + 1, fmt, again);
    }
    va_end(again);
    return text;
}

char *kiln_arena_printf(kiln_arena *arena, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    char *text = kiln_arena_vprintf(arena, fmt, args);
    va_end(args);
    return text;
}

void *kiln_arena_grow(kiln_arena *arena, void *items, size_t count, size_t *cap,
                      size_t item_bytes) {
    if (count < *cap) {
        return items;
    }
    size_t wider, bytes;
    if (!kiln_mul_size(*cap ? *cap : 4, 2, &wider) || !kiln_mul_size(wider, item_bytes, &bytes)) {
        return NULL;
    }
    void *grown = kiln_arena_raw(arena, bytes);
    if (!grown) {
        return NULL;
    }
    if (count) {
        memcpy(grown, items, count * item_bytes);
    }
    *cap = wider;
    return grown;
}
