/* arena.h - memory by lifetime.
 *
 * An arena hands out zeroed memory that is freed all at once. Each long-lived object (model, build,
 * engine, context) owns one; scratch arenas are rewound to a mark. Only env.c calls the allocator.
 *
 *     kiln_arena arena;
 *     kiln_arena_init(&arena, env);
 *     int64_t *dims;
 *     KILN_ALLOC(dims, &arena, rank);      // returns KILN_E_MEMORY from the calling function
 *     ...
 *     kiln_arena_free(&arena);
 */
#ifndef KILN_BASE_ARENA_H
#define KILN_BASE_ARENA_H

#include <stdarg.h>

#include "base/compiler.h"

typedef struct kiln_arena_chunk kiln_arena_chunk;

typedef struct kiln_arena kiln_arena;
struct kiln_arena {
    const kiln_env *env;
    kiln_arena *outer;        /* gives the chunks, or NULL: env does */
    kiln_arena_chunk *chunks; /* newest first */
    size_t used_bytes;        /* in the newest chunk */
    size_t total_bytes;       /* asked of the allocator, all chunks */
};

typedef struct kiln_arena_mark {
    kiln_arena_chunk *chunk;
    size_t used_bytes;
} kiln_arena_mark;

void kiln_arena_init(kiln_arena *arena, const kiln_env *env);
/* An arena that takes its chunks from `outer`, where they stay until `outer` is emptied: to be
 * recycled many times within one life of the outer one, which is then as warm as it ever was. */
void kiln_arena_within(kiln_arena *arena, kiln_arena *outer);
/* Gives everything back; the arena is empty and usable again. */
void kiln_arena_free(kiln_arena *arena);

/* count * item_bytes zeroed bytes, aligned to 16 (64 when the block is 64 bytes or larger). NULL
 * when out of memory or when the product overflows. A zero-byte request returns a valid pointer. */
void *kiln_arena_array(kiln_arena *arena, size_t count, size_t item_bytes);
/* The same, not zeroed: for buffers that are written whole. */
void *kiln_arena_raw(kiln_arena *arena, size_t bytes);
/* A copy of `bytes` bytes. */
void *kiln_arena_copy(kiln_arena *arena, const void *src, size_t bytes);
/* A NUL-terminated copy of `len` bytes. */
char *kiln_arena_text(kiln_arena *arena, const char *src, size_t len);
char *kiln_arena_printf(kiln_arena *arena, const char *fmt, ...) KILN_PRINTF(2, 3);
char *kiln_arena_vprintf(kiln_arena *arena, const char *fmt, va_list args);

/* Frees what was allocated since the mark was taken. */
kiln_arena_mark kiln_arena_here(const kiln_arena *arena);
void kiln_arena_rewind(kiln_arena *arena, kiln_arena_mark mark);

/* Empties the arena but keeps one chunk as large as all it held: an arena that is filled and
 * recycled in turns soon allocates nothing. */
void kiln_arena_recycle(kiln_arena *arena);

#define KILN_ALLOC(ptr, arena, count)                                      \
    do {                                                                   \
        (ptr) = kiln_arena_array((arena), (size_t)(count), sizeof *(ptr)); \
        if (KILN_UNLIKELY(!(ptr))) {                                       \
            return KILN_E_MEMORY;                                          \
        }                                                                  \
    } while (0)

/* Makes room for one more item in a growing array that lives in an arena (the old block is left
 * behind). Returns the possibly moved array, or NULL when out of memory. */
void *kiln_arena_grow(kiln_arena *arena, void *items, size_t count, size_t *cap, size_t item_bytes);

/* Appends `item` to array `items` of `count` items with capacity `cap` (both size_t lvalues). */
#define KILN_PUSH(arena, items, count, cap, item)                                           \
    do {                                                                                    \
        void *grown_ = kiln_arena_grow((arena), (items), (count), &(cap), sizeof *(items)); \
        if (KILN_UNLIKELY(!grown_)) {                                                       \
            return KILN_E_MEMORY;                                                           \
        }                                                                                   \
        (items) = grown_;                                                                   \
        (items)[(count)++] = (item);                                                        \
    } while (0)

#endif
