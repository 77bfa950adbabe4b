/* q8_tiles.h - blocks of 8-bit products on tile registers (tiles.h). B is packed as for the quads
 * (gemm_q8.h), in panels of 32 columns.
 *
 *     q8_tiles_block(&block);                                        kiln_gemm_q8_prims.block
 *
 * Rows are taken 32 at a time, read where they stand; all panels of the block pass by. The last
 * step of a single piece may have fewer than 16 words and is completed in buffers: zeros behind the
 * rows of A make what stands behind the words of B count for nothing. */
#ifndef KILN_BACKEND_CPU_PRIMS_Q8_TILES_H
#define KILN_BACKEND_CPU_PRIMS_Q8_TILES_H

#include "backend/cpu/prims/q8_finish.h"
#include "backend/cpu/prims/q8_stage.h"
#include "backend/cpu/prims/tiles.h"

enum { TILES_WIDE = 32, TILE_WORD = 4 }; /* columns of a panel, bytes of a word */

typedef struct q8_tiles {
    const kiln_gemm_q8_block *block;
    tile_lines lines;
    int64_t first; /* row of A of the 32 at hand */
    tile_file file;
    char rows[TILES_TALL * TILE_BYTES];                  /* of a last step */
    int8_t columns[TILE_WORDS * TILE_WORD * TILES_WIDE]; /* of a last step */
    int32_t sums[TILES_TALL * TILES_WIDE];
} q8_tiles;

/* Sums of n rows of C, the first one's number `out`, in columns of panel p. */
typedef struct q8_tile_rows {
    const int32_t *sums;
    int64_t out, n;
    int64_t panel;
} q8_tile_rows;

KILN_INLINE kiln_vi q8_tile_sum(const kiln_gemm_q8_block *k, const q8_tile_rows *r, int64_t i,
                                int64_t at, kiln_vi start) {
    kiln_vi sum = vi_add(vi_load(r->sums + i * TILES_WIDE + at), start);
    return k->row_start ? vi_add(sum, vi_set1(k->row_start[r->out + i])) : sum;
}

/* Columns [at, at + lanes) through the epilogue into C. */
KILN_INLINE void q8_tiles_finish(const kiln_gemm_q8_block *k, const q8_tile_rows *r, int64_t at,
                                 int64_t lanes, bool to_float) {
    const kiln_q8_epilogue *e = k->epilogue;
    const int64_t column = r->panel * TILES_WIDE + at, item = to_float ? (int64_t)sizeof(float) : 1;
    const q8_columns q = q8_columns_of(e, column);
    const kiln_vi start = vi_load(e->start + column);
    const uint8_t *residual = e->residual ? e->residual + r->out * e->ld_residual + column : NULL;
    char *c = (char *)k->c + (r->out * k->ldc + column) * item;
    for (int64_t i = 0; i < r->n; i++) {
        q8_finish(&q, q8_tile_sum(k, r, i, at, start), residual, to_float, c + i * k->ldc * item,
                  lanes);
        residual = residual ? residual + e->ld_residual : NULL;
    }
}

/* All columns of a panel to bytes, rows two by two. */
KILN_INLINE void q8_tiles_finish_whole(const kiln_gemm_q8_block *k, const q8_tile_rows *r) {
    const kiln_q8_epilogue *e = k->epilogue;
    const int64_t column = r->panel * TILES_WIDE, ldc = k->ldc, ld = e->ld_residual;
    const q8_columns q[2] = {q8_columns_of(e, column), q8_columns_of(e, column + KILN_VLEN)};
    const kiln_vi start[2] = {vi_load(e->start + column), vi_load(e->start + column + KILN_VLEN)};
    const uint8_t *residual = e->residual ? e->residual + r->out * ld + column : NULL;
    uint8_t *c = (uint8_t *)k->c + r->out * ldc + column;
    for (int64_t i = 0; i + 1 < r->n; i += 2, c += 2 * ldc) {
        kiln_vi sum[2][2];
        KILN_UNROLL(4) for (int v = 0; v < 4; v++) {
            sum[v / 2][v % 2] = q8_tile_sum(k, r, i + v / 2, v % 2 * KILN_VLEN, start[v % 2]);
        }
        q8_finish_four(q, sum, residual, ld, c, ldc);
        residual = residual ? residual + 2 * ld : NULL;
    }
    for (int v = 0; r->n % 2 == 1 && v < 2; v++) {
        q8_finish(&q[v], q8_tile_sum(k, r, r->n - 1, v * KILN_VLEN, start[v]),
                  residual ? residual + v * KILN_VLEN : NULL, false, c + v * KILN_VLEN, KILN_VLEN);
    }
}

KILN_INLINE void q8_tiles_finish_rows(const kiln_gemm_q8_block *k, const q8_tile_rows *r,
                                      bool to_float) {
    const int64_t cols = i64_min(TILES_WIDE, k->n - r->panel * TILES_WIDE);
    if (cols == TILES_WIDE && KILN_VLEN == TILES_WIDE / 2 && !to_float) {
        q8_tiles_finish_whole(k, r);
        return;
    }
    for (int64_t at = 0; at < cols; at += KILN_VLEN) {
        if (cols - at >= KILN_VLEN) {
            q8_tiles_finish(k, r, at, KILN_VLEN, to_float);
        } else {
            q8_tiles_finish(k, r, at, cols - at, to_float);
        }
    }
}

/* The rows of C among those at hand. */
KILN_INLINE void q8_tiles_finish_panel(const q8_tiles *t, int64_t p) {
    const kiln_gemm_q8_block *k = t->block;
    q8_tile_rows r = {.panel = p};
    int64_t row = t->first;
    const int64_t end = row + t->file.rows;
    for (; (r.n = tile_lines_next(&t->lines, &row, end, &r.out)) > 0; row += r.n) {
        r.sums = t->sums + (row - t->first) * TILES_WIDE;
        if (k->epilogue->to_float) {
            q8_tiles_finish_rows(k, &r, true);
        } else {
            q8_tiles_finish_rows(k, &r, false);
        }
    }
}

/* All panels of the rows at hand. */
KILN_INLINE void q8_tiles_rows(q8_tiles *t) {
    const kiln_gemm_q8_block *k = t->block;
    const int64_t tail = k->words % TILE_WORDS, whole = k->words - tail;
    tile_operands o = {.a = k->row,
                       .pieces = k->pieces,
                       .shift = k->shift + t->first * k->lda_bytes,
                       .a_tail = t->rows,
                       .lda = k->lda_bytes,
                       .lda_tail = TILE_BYTES,
                       .b_tail = (const char *)t->columns,
                       .steps = whole / TILE_WORDS,
                       .tail = tail > 0};
    const uint8_t *behind = (const uint8_t *)k->row[0] + o.shift + whole * TILE_WORD;
    for (int64_t i = 0; o.tail && i < t->file.rows; i++) {
        copy_bytes((uint8_t *)t->rows + i * TILE_BYTES, behind + i * k->lda_bytes,
                   tail * TILE_WORD);
    }
    for (int64_t p = 0; p * TILES_WIDE < k->n; p++) {
        const bool wide = k->n - p * TILES_WIDE > KILN_VLEN;
        o.b = (const char *)k->b + p * TILES_WIDE * k->pieces * k->words * TILE_WORD;
        o.ldb = (wide ? TILES_WIDE : KILN_VLEN) * TILE_WORD;
        if (o.tail) {
            memcpy(t->columns, o.b + whole * o.ldb, (size_t)(tail * o.ldb));
        }
        tile_multiply(&t->file, BYTES, wide, &o, false, t->sums);
        q8_tiles_finish_panel(t, p);
    }
}

KILN_INLINE void q8_tiles_block(const kiln_gemm_q8_block *k) {
    _Alignas(64) q8_tiles t;
    const int64_t lines = k->m / k->run;
    t.block = k;
    t.lines = tile_lines_of(lines, k->run, lines > 1 ? k->run_bytes / k->lda_bytes : k->run);
    t.file.rows = 0;
    memset(t.rows, 0, sizeof t.rows);
    memset(t.columns, 0, sizeof t.columns);
    for (int64_t line = 0; line < lines; line += t.lines.joined) {
        t.first = line * t.lines.pitch;
        const int64_t end = t.first + tile_lines_rows(&t.lines, t.lines.joined);
        for (; t.first < end; t.first += TILES_TALL) {
            const int64_t rows = i64_min(TILES_TALL, end - t.first);
            if (rows != t.file.rows) {
                tiles_begin(&t.file, rows);
            }
            q8_tiles_rows(&t);
        }
    }
    tiles_end(&t.file);
}

#endif
