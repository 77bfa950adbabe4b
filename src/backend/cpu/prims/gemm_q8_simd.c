/* gemm_q8_simd.c - 8-bit GEMM: register tiles, blocking, packing. Compiled once per ISA.
 *
 * Legend: M rows of A and C, N columns of B and C, K the sum; a word is `form` consecutive elements
 * of a row of A in 32 bits; a panel is NR = 2 vectors of columns.
 *
 * A register tile is MR rows x 2 vectors of int32 sums. A step of the pair form broadcasts one word
 * (two 16-bit numbers) of each row and multiplies it with 16-bit pairs of B, widened from bytes as
 * they are loaded: a multiply-add of words and an add for each vector. The quad form multiplies
 * four bytes at once and adds in the same instruction.
 *
 * Blocking: a unit is a block of rows, staged once (widened, or completed to whole words) so that
 * it stays in the second-level cache, times a group of panels; a panel stays near while all row
 * tiles pass over it. */
#include "backend/cpu/prims/gemm_q8.h"
#include "backend/cpu/prims/q8_dot.h"
#include "backend/cpu/prims/q8_finish.h"
#include "backend/cpu/prims/q8_floats.h"
#include "backend/cpu/prims/q8_stage.h"
#if defined(KILN_ISA_avx512) || defined(KILN_Q8_TILES)
#include "backend/cpu/prims/q8_tiles.h"
#endif

#define NR (2 * KILN_VLEN)
#define MR (KILN_VREGS == 32 ? 12 : 6)

#define UNROLL KILN_UNROLL(16)

/* ---- Tiles ---- */

KILN_INLINE kiln_vi load_word(const char *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return vi_set1(word);
}

typedef struct tile {
    const char *const *row; /* of each piece, at `shift` */
    int64_t shift, lda;     /* bytes */
    int64_t pieces, words;
    const int8_t *b;
    int64_t b_step; /* bytes from word to word of the panel */
    char *c;
    int64_t ldc;  /* elements */
    int64_t cols; /* valid columns: the last vector may be partial */
    const kiln_q8_epilogue *epilogue;
    int64_t column; /* the first one's, in the epilogue's tables */
    const int32_t *row_start;
    const uint8_t *residual;
} tile;

typedef void (*tile_fn)(const tile *t);
typedef kiln_vi tile_sums[MR][2];

/* Sums of one vector of columns through the epilogue into C. */
KILN_INLINE void finish(const tile *t, int rows, int v, int64_t lanes, bool to_float,
                        tile_sums sum) {
    const int64_t at = v * KILN_VLEN, ldc = t->ldc * (to_float ? (int64_t)sizeof(float) : 1);
    const int64_t ld_residual = t->epilogue->ld_residual;
    const q8_columns q = q8_columns_of(t->epilogue, t->column + at);
    char *c = t->c + at * (to_float ? (int64_t)sizeof(float) : 1);
    const uint8_t *residual = t->residual;
    UNROLL for (int i = 0; i < rows; i++) {
        const uint8_t *r = residual ? residual + i * ld_residual + at : NULL;
        q8_finish(&q, sum[i][v], r, to_float, c + i * ldc, lanes);
    }
}

/* A tile's last vector may be partial. */
KILN_INLINE void finish_tile(const tile *t, int rows, int vecs, bool to_float, tile_sums sum) {
    if (vecs == 2) {
        finish(t, rows, 0, KILN_VLEN, to_float, sum);
    }
    int64_t lanes = t->cols - (vecs - 1) * KILN_VLEN;
    if (lanes == KILN_VLEN && !to_float) {
        finish(t, rows, vecs - 1, KILN_VLEN, to_float, sum);
    } else {
        finish(t, rows, vecs - 1, lanes, to_float, sum);
    }
}

/* Every third row has a pointer, the two after it are reached by index, so that twelve rows need
 * four registers. */
KILN_INLINE void multiply(const tile *t, int form, int rows, int vecs) {
    tile_sums sum;
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int v = 0; v < vecs; v++) {
            sum[i][v] = vi_load(t->epilogue->start + t->column + v * KILN_VLEN);
        }
    }
    if (t->row_start) {
        UNROLL for (int i = 0; i < rows; i++) {
            UNROLL for (int v = 0; v < vecs; v++) {
                sum[i][v] = vi_add(sum[i][v], vi_set1(t->row_start[i]));
            }
        }
    }
    const int8_t *b = t->b;
    const int64_t lda = t->lda, b_step = t->b_step;
    for (int64_t p = 0; p < t->pieces; p++) {
        const char *a[MR / 3];
        UNROLL for (int i = 0; i < (rows + 2) / 3; i++) {
            a[i] = t->row[p] + t->shift + 3 * i * lda;
        }
        for (int64_t k = 0; k < t->words; k++) {
            kiln_vi bv[2];
            UNROLL for (int v = 0; v < vecs; v++) {
                bv[v] = load_b(form, b + v * form * KILN_VLEN);
            }
            UNROLL for (int i = 0; i < rows; i++) {
                kiln_vi av = load_word(a[i / 3] + i % 3 * lda);
                UNROLL for (int v = 0; v < vecs; v++) {
                    sum[i][v] = dot(form, sum[i][v], av, bv[v]);
                }
            }
            UNROLL for (int i = 0; i < (rows + 2) / 3; i++) {
                a[i] += 4;
            }
            b += b_step;
        }
    }
    if (t->epilogue->to_float) {
        finish_tile(t, rows, vecs, true, sum);
    } else {
        finish_tile(t, rows, vecs, false, sum);
    }
}

/* The register tiles: X(form, rows). */
#define TILES_6(X, form) X(form, 1) X(form, 2) X(form, 3) X(form, 4) X(form, 5) X(form, 6)
#if KILN_VREGS == 32
#define TILES(X, form) \
    TILES_6(X, form) X(form, 7) X(form, 8) X(form, 9) X(form, 10) X(form, 11) X(form, 12)
#else
#define TILES(X, form) TILES_6(X, form)
#endif

#define DEFINE(form, rows)                                \
    static void tile_##form##_##rows##x1(const tile *t) { \
        multiply(t, form, rows, 1);                       \
    }                                                     \
    static void tile_##form##_##rows##x2(const tile *t) { \
        multiply(t, form, rows, 2);                       \
    }
#define NAME(form, rows) [rows] = {tile_##form##_##rows##x1, tile_##form##_##rows##x2},

TILES(DEFINE, PAIRS)
TILES(DEFINE, QUADS)
static const tile_fn tiles_of[2][MR + 1][2] = {{TILES(NAME, PAIRS)}, {TILES(NAME, QUADS)}};

/* ---- Blocks ---- */

static int64_t panel_count(int64_t n) {
    return i64_ceil_div(n, NR);
}

/* Columns that panel p of n columns is stored with. */
static int64_t panel_width(int64_t n, int64_t p) {
    return i64_min(NR, i64_ceil_div(n - p * NR, KILN_VLEN) * KILN_VLEN);
}

KILN_INLINE void run_block(const kiln_gemm_q8_block *k, int form) {
    const int64_t words = k->pieces * k->words;
    const int64_t n_tiles = i64_ceil_div(k->run, MR);
    const int64_t item = k->epilogue->to_float ? (int64_t)sizeof(float) : 1;
    for (int64_t p = 0; p < panel_count(k->n); p++) {
        const int64_t width = panel_width(k->n, p);
        tile t = {.row = k->row,
                  .lda = k->lda_bytes,
                  .pieces = k->pieces,
                  .words = k->words,
                  .b = (const int8_t *)k->b + p * NR * words * form,
                  .b_step = width * form,
                  .c = (char *)k->c + p * NR * item,
                  .ldc = k->ldc,
                  .cols = i64_min(NR, k->n - p * NR),
                  .epilogue = k->epilogue,
                  .column = p * NR,
                  .row_start = k->row_start};
        const uint8_t *residual = k->epilogue->residual;
        t.residual = residual ? residual + p * NR : NULL;
        for (int64_t line = 0; line * k->run < k->m; line++) {
            t.shift = k->shift + line * k->run_bytes;
            for (int64_t i = 0; i < n_tiles; i++) {
                int64_t rows = i64_part(k->run, n_tiles, i + 1) - i64_part(k->run, n_tiles, i);
                tiles_of[form == QUADS][rows][width == NR](&t);
                t.row_start = t.row_start ? t.row_start + rows : NULL;
                t.shift += rows * t.lda;
                t.c += rows * t.ldc * item;
                t.residual = t.residual ? t.residual + rows * k->epilogue->ld_residual : NULL;
            }
        }
    }
}

/* How a product is cut into units. */
typedef struct blocking {
    bool staged;
    int64_t row_tiles, row_blocks, group, groups;
} blocking;

KILN_INLINE blocking cut(const kiln_gemm_q8_args *g, int form, int64_t mr) {
    const int64_t count = panel_count(g->n);
    const q8_unit u =
        q8_cut(g->m, g->k, count, NR, mr, stage_row_bytes(form == PAIRS, g->k), 1, &g->blocking);
    blocking b = {.staged = form == PAIRS || g->k % form != 0};
    b.row_tiles = i64_ceil_div(g->m, mr);
    b.row_blocks = i64_min(b.row_tiles, i64_ceil_div(g->m, u.rows));
    b.group = u.panels;
    b.groups = i64_ceil_div(count, u.panels);
    return b;
}

KILN_INLINE int64_t count_tiles(const kiln_gemm_q8_args *g, int form, int64_t mr) {
    if (g->m <= 0 || g->n <= 0) {
        return 0;
    }
    blocking b = cut(g, form, mr);
    return b.row_blocks * b.groups;
}

/* Rows of the tallest block. */
KILN_INLINE int64_t most_rows(const kiln_gemm_q8_args *g, const blocking *b) {
    return i64_ceil_div(b->row_tiles, b->row_blocks) * i64_ceil_div(g->m, b->row_tiles);
}

/* The tallest block, staged; what results that narrow need lies behind it. */
KILN_INLINE int64_t stage_area(const kiln_gemm_q8_args *g, const blocking *b, int form) {
    int64_t rows = most_rows(g, b);
    return b->staged ? rows * stage_row_bytes(form == PAIRS, g->k) + STAGE_SLACK : 0;
}

KILN_INLINE int64_t count_scratch(const kiln_gemm_q8_args *g, int form, int64_t mr) {
    if (g->m <= 0 || g->n <= 0) {
        return 0;
    }
    blocking b = cut(g, form, mr);
    int64_t slice = 0;
    for (int64_t rows = most_rows(g, &b); g->epilogue.narrows && rows > 0; rows--) {
        slice = i64_max(slice, narrow_bytes(rows, NR));
    }
    return stage_area(g, &b, form) + slice;
}

KILN_INLINE void run_units(const kiln_gemm_q8_args *g, int64_t begin, int64_t end, void *scratch,
                           int form, int64_t mr, void (*block)(const kiln_gemm_q8_block *)) {
    if (begin >= end) {
        return;
    }
    const blocking b = cut(g, form, mr);
    const int64_t words = i64_ceil_div(g->k, form),
                  row_bytes = stage_row_bytes(form == PAIRS, g->k);
    const int64_t item = g->epilogue.to_float ? (int64_t)sizeof(float) : 1;
    for (int64_t i = begin; i < end; i++) {
        int64_t tile0 = i64_part(b.row_tiles, b.row_blocks, i % b.row_blocks);
        int64_t tile1 = i64_part(b.row_tiles, b.row_blocks, i % b.row_blocks + 1);
        int64_t m0 = i64_part(g->m, b.row_tiles, tile0), m1 = i64_part(g->m, b.row_tiles, tile1);
        int64_t n0 = i / b.row_blocks * b.group * NR;
        kiln_q8_epilogue e = g->epilogue;
        q8_aim(&e, m0, n0);
        const char *first = b.staged ? scratch : (const char *)(g->a + m0 * g->lda);
        kiln_gemm_q8_block k = {.m = m1 - m0,
                                .run = m1 - m0,
                                .n = i64_min(g->n - n0, b.group * NR),
                                .pieces = 1,
                                .words = words,
                                .row = &first,
                                .lda_bytes = b.staged ? row_bytes : g->lda,
                                .b = (const int8_t *)g->b + n0 * words * form,
                                .c = (char *)g->c + (m0 * g->ldc + n0) * item,
                                .ldc = g->ldc,
                                .row_start = g->row_start ? g->row_start + m0 : NULL,
                                .epilogue = &e};
        for (int64_t m = m0; b.staged && m < m1; m++) {
            char *row = (char *)scratch + (m - m0) * row_bytes;
            stage_copy(form == PAIRS, row, 0, g->a + m * g->lda, g->k);
            stage_end(form == PAIRS, row, g->k);
        }
        if (e.narrows) {
            narrow_block(&k, NR, form, block, m0, n0,
                         (float *)(void *)((char *)scratch + stage_area(g, &b, form)));
            continue;
        }
        block(&k);
        floats_block(&g->epilogue, g->c, g->ldc, m0, k.m, n0, k.n);
    }
}

/* ---- Packing ---- */

/* One word of `cols` columns whose `form` elements lie in rows of bytes, or side by side. */
KILN_INLINE void pack_rows(int8_t *restrict dst, const uint8_t *src, int64_t cols, int64_t stride_k,
                           uint8_t flip, int form) {
    for (int64_t j = 0; j < cols; j++) {
        UNROLL for (int i = 0; i < form; i++) {
            dst[j * form + i] = (int8_t)(uint8_t)(src[i * stride_k + j] ^ flip);
        }
    }
}

KILN_INLINE void pack_sides(int8_t *restrict dst, const uint8_t *src, int64_t cols,
                            int64_t stride_n, uint8_t flip, int form) {
    for (int64_t j = 0; j < cols; j++) {
        UNROLL for (int i = 0; i < form; i++) {
            dst[j * form + i] = (int8_t)(uint8_t)(src[j * stride_n + i] ^ flip);
        }
    }
}

KILN_INLINE void pack_panels(int8_t *dst, const uint8_t *src, int64_t k, int64_t n,
                             int64_t stride_k, int64_t stride_n, uint8_t flip, int64_t begin,
                             int64_t end, int form) {
    const int64_t words = i64_ceil_div(k, form);
    for (int64_t p = begin; p < end; p++) {
        const int64_t width = panel_width(n, p), cols = i64_min(width, n - p * NR);
        int8_t *d = dst + p * NR * words * form;
        const uint8_t *s = src + p * NR * stride_n;
        for (int64_t w = 0; w < words; w++, d += width * form, s += form * stride_k) {
            const bool whole = (w + 1) * form <= k;
            if (cols < width || !whole) {
                memset(d, 0, (size_t)(width * form));
            }
            if (whole && stride_n == 1) {
                pack_rows(d, s, cols, stride_k, flip, form);
            } else if (whole && stride_k == 1) {
                pack_sides(d, s, cols, stride_n, flip, form);
            } else {
                for (int64_t i = 0; i < i64_min(form, k - w * form); i++) {
                    for (int64_t j = 0; j < cols; j++) {
                        d[j * form + i] = (int8_t)(uint8_t)(s[i * stride_k + j * stride_n] ^ flip);
                    }
                }
            }
        }
    }
}

KILN_INLINE void sum_columns(int32_t *sums, const int8_t *b, int64_t k, int64_t n, int32_t factor,
                             int64_t begin, int64_t end, int form) {
    const int64_t words = i64_ceil_div(k, form);
    for (int64_t p = begin; p < end; p++) {
        const int64_t width = panel_width(n, p);
        const int8_t *panel = b + p * NR * words * form;
        int32_t *out = sums + p * NR;
        memset(out, 0, (size_t)width * sizeof *out);
        for (int64_t w = 0; w < words; w++, panel += width * form) {
            for (int64_t j = 0; j < width * form; j++) {
                out[j / form] += panel[j];
            }
        }
        for (int64_t j = 0; j < width; j++) {
            out[j] *= factor;
        }
    }
}

static int32_t sum_bytes(const uint8_t *x, int64_t n) {
    kiln_vi sum = {0};
    int64_t i = 0;
    for (; i + KILN_VLEN <= n; i += KILN_VLEN) {
        sum = vi_add(sum, vi_load_u8(x + i));
    }
    int32_t lane[KILN_VLEN], total = 0;
    vi_store(lane, sum);
    for (int v = 0; v < KILN_VLEN; v++) {
        total += lane[v];
    }
    for (; i < n; i++) {
        total += x[i];
    }
    return total;
}

/* ---- Tables: one for each form ---- */

KILN_INLINE int64_t count_packed(int64_t k, int64_t n, int form) {
    return i64_ceil_div(n, KILN_VLEN) * KILN_VLEN * i64_ceil_div(k, form) * form;
}

#define PRIMS(form, piece_, rows, name, run_one, symbol)                                           \
    static int64_t name##_packed_bytes(int64_t k, int64_t n) {                                     \
        return count_packed(k, n, form);                                                           \
    }                                                                                              \
    static void name##_pack(void *dst, const void *src, int64_t k, int64_t n, int64_t stride_k,    \
                            int64_t stride_n, uint8_t flip, int64_t begin, int64_t end) {          \
        pack_panels(dst, src, k, n, stride_k, stride_n, flip, begin, end, form);                   \
    }                                                                                              \
    static void name##_columns(int32_t *sums, const void *b, int64_t k, int64_t n, int32_t factor, \
                               int64_t begin, int64_t end) {                                       \
        sum_columns(sums, b, k, n, factor, begin, end, form);                                      \
    }                                                                                              \
    static int64_t name##_tiles(const kiln_gemm_q8_args *g) {                                      \
        return count_tiles(g, form, rows);                                                         \
    }                                                                                              \
    static int64_t name##_scratch_bytes(const kiln_gemm_q8_args *g) {                              \
        return count_scratch(g, form, rows);                                                       \
    }                                                                                              \
    static void name##_run(const kiln_gemm_q8_args *g, int64_t begin, int64_t end,                 \
                           void *scratch) {                                                        \
        run_units(g, begin, end, scratch, form, rows, run_one);                                    \
    }                                                                                              \
    static int64_t name##_stage_bytes(int64_t k) {                                                 \
        return stage_row_bytes(form == PAIRS, k);                                                  \
    }                                                                                              \
    const kiln_gemm_q8_prims symbol = {                                                            \
        .isa = KILN_ISA_NAME,                                                                      \
        .nr = NR,                                                                                  \
        .mr = rows,                                                                                \
        .group = form,                                                                             \
        .piece = piece_,                                                                           \
        .panels = panel_count,                                                                     \
        .packed_bytes = name##_packed_bytes,                                                       \
        .pack = name##_pack,                                                                       \
        .columns = name##_columns,                                                                 \
        .sum = sum_bytes,                                                                          \
        .tiles = name##_tiles,                                                                     \
        .scratch_bytes = name##_scratch_bytes,                                                     \
        .run = name##_run,                                                                         \
        .stage_bytes = name##_stage_bytes,                                                         \
        .block = run_one,                                                                          \
    };

/* Blocks in vector registers, and on tile registers. */
#define VECTORS(form, name)                                 \
    static void name##_block(const kiln_gemm_q8_block *k) { \
        run_block(k, form);                                 \
    }

#define TILES_REGISTERS(name)                               \
    static void name##_block(const kiln_gemm_q8_block *k) { \
        q8_tiles_block(k);                                  \
    }

VECTORS(PAIRS, pairs)
PRIMS(PAIRS, PAIRS, MR, pairs, pairs_block, KILN_ISA_SYMBOL(kiln_gemm_q8_prims))
#if defined(KILN_ISA_avx512)
VECTORS(QUADS, quads)
PRIMS(QUADS, QUADS, MR, quads, quads_block, kiln_gemm_q8_prims_avx512vnni)
TILES_REGISTERS(tiles)
PRIMS(QUADS, TILE_BYTES, TILES_TALL, tiles, tiles_block, kiln_gemm_q8_prims_amx)
#elif defined(KILN_ISA_avx2)
VECTORS(QUADS, quads)
PRIMS(QUADS, QUADS, MR, quads, quads_block, kiln_gemm_q8_prims_avxvnni)
#elif defined(KILN_Q8_QUADS)
VECTORS(QUADS, quads)
PRIMS(QUADS, QUADS, MR, quads, quads_block, KILN_Q8_QUADS)
#endif
#if defined(KILN_Q8_TILES)
TILES_REGISTERS(tiles)
PRIMS(QUADS, TILE_BYTES, TILES_TALL, tiles, tiles_block, KILN_Q8_TILES)
#endif
