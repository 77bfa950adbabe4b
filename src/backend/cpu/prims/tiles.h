/* tiles.h - the tile registers of AMX, or the same in plain C where a test stands in for them.
 *
 * A tile has up to 16 rows of 64 bytes. One instruction multiplies a tile of A, 16 rows by 16 words
 * of K, with a tile of B, 16 words by 16 columns, and adds to a tile of 16 x 16 sums. The file of
 * registers is laid out for a block of two by two:
 *
 *     sums  0 1     A  4     B  6 7
 *           2 3        5
 *
 *     tile_file f;
 *     tiles_begin(&f, rows);                          rows of A and the sums, 1 to 32
 *     TILE_ZERO(&f, 0); ...
 *     tile_steps(&f, BYTES, tall, wide, a, lda, b, ldb, steps);
 *     TILE_STORE(&f, 0, sums, ld); ...
 *     tiles_end(&f);
 *
 * Bytes: unsigned by signed, summed in int32, exact. Halves: bfloat16; the products of the even
 * elements of a step of 32 are summed, those of the odd ones beside them, and both added to the
 * sum; denormals count as zero. Each of these operations rounds. */
#ifndef KILN_BACKEND_CPU_PRIMS_TILES_H
#define KILN_BACKEND_CPU_PRIMS_TILES_H

#include <string.h>

#include "backend/cpu/prims/simd.h"
#include "base/half.h"

enum {
    TILE_ROWS = 16,
    TILE_BYTES = 64,
    TILE_WORDS = 16,           /* of K, in a step */
    TILES_TALL = 2 * TILE_ROWS /* most rows of a block */
};

/* What a word of A and B holds. */
typedef enum tile_kind { BYTES, HALVES } tile_kind;

/* As the processor reads it. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

KILN_INLINE tile_config tile_config_of(int64_t rows) {
    const uint8_t upper = (uint8_t)(rows < TILE_ROWS ? rows : TILE_ROWS);
    const uint8_t lower = (uint8_t)(rows - upper);
    tile_config c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        const bool is_lower = i == 2 || i == 3 || i == 5;
        c.rows[i] = i >= 6 ? TILE_ROWS : is_lower ? lower : upper;
        c.row_bytes[i] = c.rows[i] > 0 ? TILE_BYTES : 0;
    }
    return c;
}

#if defined(KILN_ISA_avx512)

/* As assembly, which needs no option of the compiler: the code around it runs on every AVX-512. */
typedef struct tile_file {
    int64_t rows;
} tile_file;

#define TILE_DO(f, ...)                \
    do {                               \
        (void)(f);                     \
        __asm__ volatile(__VA_ARGS__); \
    } while (0)
#define TILE_ZERO(f, t) TILE_DO(f, "tilezero %%tmm" #t ::: "memory")
#define TILE_LOAD(f, t, p, stride) \
    TILE_DO(f, "tileloadd (%0,%1,1), %%tmm" #t ::"r"(p), "r"((int64_t)(stride)) : "memory")
#define TILE_STORE(f, t, p, stride) \
    TILE_DO(f, "tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(p), "r"((int64_t)(stride)) : "memory")
#define TILE_DOT(f, kind, c, a, b)                                                   \
    do {                                                                             \
        if ((kind) == BYTES) {                                                       \
            TILE_DO(f, "tdpbusd %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::: "memory");   \
        } else {                                                                     \
            TILE_DO(f, "tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::: "memory"); \
        }                                                                            \
    } while (0)

KILN_INLINE void tiles_begin(tile_file *f, int64_t rows) {
    const tile_config c = tile_config_of(rows);
    f->rows = rows;
    __asm__ volatile("ldtilecfg %0" ::"m"(c) : "memory");
}

KILN_INLINE void tiles_end(tile_file *f) {
    (void)f;
    __asm__ volatile("tilerelease" ::: "memory");
}

#else

typedef struct tile_file {
    int64_t rows;
    tile_config config;
    uint8_t tile[8][TILE_ROWS][TILE_BYTES];
} tile_file;

#define TILE_ZERO(f, t) memset((f)->tile[t], 0, sizeof(f)->tile[t])
#define TILE_LOAD(f, t, p, stride) tile_load(f, t, (const char *)(p), stride)
#define TILE_STORE(f, t, p, stride) tile_store(f, t, (char *)(p), stride)
#define TILE_DOT(f, kind, c, a, b) tile_dot(f, kind, c, a, b)

KILN_INLINE void tiles_begin(tile_file *f, int64_t rows) {
    *f = (tile_file){.rows = rows, .config = tile_config_of(rows)};
}

KILN_INLINE void tiles_end(tile_file *f) {
    *f = (tile_file){0};
}

KILN_INLINE void tile_load(tile_file *f, int t, const char *p, int64_t stride) {
    memset(f->tile[t], 0, sizeof f->tile[t]);
    for (int i = 0; i < f->config.rows[t]; i++) {
        memcpy(f->tile[t][i], p + i * stride, TILE_BYTES);
    }
}

KILN_INLINE void tile_store(const tile_file *f, int t, char *p, int64_t stride) {
    for (int i = 0; i < f->config.rows[t]; i++) {
        memcpy(p + i * stride, f->tile[t][i], TILE_BYTES);
    }
}

KILN_INLINE float tile_half(const uint8_t *p) {
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return kiln_bf16_to_f32(bits);
}

/* One sum of a tile. */
KILN_INLINE void tile_sum(tile_file *f, tile_kind kind, int c, int a, int b, int row, int column) {
    uint8_t *at = &f->tile[c][row][4 * column];
    int32_t whole;
    float sum, part[2] = {0, 0};
    memcpy(&whole, at, sizeof whole);
    memcpy(&sum, at, sizeof sum);
    for (int w = 0; w < TILE_WORDS; w++) {
        const uint8_t *x = &f->tile[a][row][4 * w], *y = &f->tile[b][w][4 * column];
        for (int i = 0; i < 4 && kind == BYTES; i++) {
            whole += x[i] * (int8_t)y[i];
        }
        for (int i = 0; i < 2 && kind == HALVES; i++) {
            part[i] += tile_half(x + 2 * i) * tile_half(y + 2 * i);
        }
    }
    sum += part[0] + part[1];
    memcpy(at, kind == BYTES ? (const void *)&whole : (const void *)&sum, 4);
}

KILN_INLINE void tile_dot(tile_file *f, tile_kind kind, int c, int a, int b) {
    for (int i = 0; i < f->config.rows[c]; i++) {
        for (int j = 0; j < TILE_WORDS; j++) {
            tile_sum(f, kind, c, a, b, i, j);
        }
    }
}

#endif

enum { AHEAD = 4 }; /* steps by which B is asked for before it is read */

/* Adds `steps` steps of A times B to the sums. a: rows lda bytes apart, a step 64 bytes; b: words
 * ldb bytes apart. tall: more than 16 rows; wide: more than 16 columns. */
KILN_INLINE void tile_steps(tile_file *f, tile_kind kind, bool tall, bool wide, const char *a,
                            int64_t lda, const char *b, int64_t ldb, int64_t steps) {
    for (int64_t s = 0; s < steps; s++) {
        for (int i = 0; kind == HALVES && i < TILE_WORDS; i++) { /* BYTES gain nothing by it */
            v_prefetch(b + (AHEAD * TILE_WORDS + i) * ldb);
            if (wide) {
                v_prefetch(b + (AHEAD * TILE_WORDS + i) * ldb + TILE_BYTES);
            }
        }
        TILE_LOAD(f, 4, a, lda);
        TILE_LOAD(f, 6, b, ldb);
        TILE_DOT(f, kind, 0, 4, 6);
        if (wide) {
            TILE_LOAD(f, 7, b + TILE_BYTES, ldb);
            TILE_DOT(f, kind, 1, 4, 7);
        }
        if (tall) {
            TILE_LOAD(f, 5, a + TILE_ROWS * lda, lda);
            TILE_DOT(f, kind, 2, 5, 6);
        }
        if (tall && wide) {
            TILE_DOT(f, kind, 3, 5, 7);
        }
        a += TILE_BYTES;
        b += TILE_WORDS * ldb;
    }
}

/* Rows of A and words of B for a block: pieces of whole steps where they stand, row i of piece p at
 * a[p] + shift + i * lda, B without a gap between them; and a last step of fewer words, completed
 * with zeros. */
typedef struct tile_operands {
    const char *const *a;
    int64_t pieces, shift;
    const char *a_tail;
    int64_t lda, lda_tail;
    const char *b, *b_tail;
    int64_t ldb;
    int64_t steps; /* of a piece */
    bool tail;
} tile_operands;

/* The sums of a block, [rows][32] of 4 bytes; `resume`: they hold what to begin with. */
KILN_INLINE void tile_product(tile_file *f, tile_kind kind, bool tall, bool wide,
                              const tile_operands *o, bool resume, void *sums) {
    char *lower = (char *)sums + TILES_TALL * 4 * TILE_ROWS;
    const int64_t ld = TILES_TALL * 4;
    if (resume) {
        TILE_LOAD(f, 0, sums, ld);
        TILE_LOAD(f, 1, (char *)sums + TILE_BYTES, ld);
    } else {
        TILE_ZERO(f, 0);
        TILE_ZERO(f, 1);
    }
    if (tall && resume) {
        TILE_LOAD(f, 2, lower, ld);
        TILE_LOAD(f, 3, lower + TILE_BYTES, ld);
    } else if (tall) {
        TILE_ZERO(f, 2);
        TILE_ZERO(f, 3);
    }
    const char *b = o->b;
    for (int64_t p = 0; p < o->pieces; p++, b += o->steps * TILE_WORDS * o->ldb) {
        tile_steps(f, kind, tall, wide, o->a[p] + o->shift, o->lda, b, o->ldb, o->steps);
    }
    if (o->tail) {
        tile_steps(f, kind, tall, wide, o->a_tail, o->lda_tail, o->b_tail, o->ldb, 1);
    }
    TILE_STORE(f, 0, sums, ld);
    if (wide) {
        TILE_STORE(f, 1, (char *)sums + TILE_BYTES, ld);
    }
    if (tall) {
        TILE_STORE(f, 2, lower, ld);
    }
    if (tall && wide) {
        TILE_STORE(f, 3, lower + TILE_BYTES, ld);
    }
}

/* Rows of C that stand in lines, as the tiles pass them: lines of `run` rows, of which the first
 * ones of `pitch` rows of A each. Where more stand in A than in C, tiles run over them, if that
 * takes fewer, and their sums are dropped. */
typedef struct tile_lines {
    int64_t run, pitch;
    int64_t joined; /* lines that are passed without a break */
} tile_lines;

/* `lines` of `run` rows, `pitch` >= run rows of A apart. */
KILN_INLINE tile_lines tile_lines_of(int64_t lines, int64_t run, int64_t pitch) {
    const int64_t together = i64_ceil_div((lines - 1) * pitch + run, TILES_TALL);
    const bool join = together <= lines * i64_ceil_div(run, TILES_TALL);
    return (tile_lines){run, pitch, join ? lines : 1};
}

/* Rows of A under `lines` lines without a break. */
KILN_INLINE int64_t tile_lines_rows(const tile_lines *l, int64_t lines) {
    return (lines - 1) * l->pitch + l->run;
}

/* Blocks of tiles for them. */
KILN_INLINE int64_t tile_lines_count(const tile_lines *l, int64_t lines) {
    return lines / l->joined * i64_ceil_div(tile_lines_rows(l, l->joined), TILES_TALL);
}

/* The next rows of A, from *row < end on, that are rows of C and follow each other there: moves
 * *row to the first, *out is its row in C, returned is how many there are, 0 for none. */
KILN_INLINE int64_t tile_lines_next(const tile_lines *l, int64_t *row, int64_t end, int64_t *out) {
    int64_t line = *row / l->pitch, at = *row % l->pitch;
    if (at >= l->run) {
        line++;
        at = 0;
        *row = line * l->pitch;
    }
    *out = line * l->run + at;
    return i64_max(0, i64_min(l->run - at, end - *row));
}

/* The same, its shape as a value. */
KILN_INLINE void tile_multiply(tile_file *f, tile_kind kind, bool wide, const tile_operands *o,
                               bool resume, void *sums) {
    if (f->rows > TILE_ROWS && wide) {
        tile_product(f, kind, true, true, o, resume, sums);
    } else if (f->rows > TILE_ROWS) {
        tile_product(f, kind, true, false, o, resume, sums);
    } else if (wide) {
        tile_product(f, kind, false, true, o, resume, sums);
    } else {
        tile_product(f, kind, false, false, o, resume, sums);
    }
}

#endif
