/* q8_tiles.h - blocks of 8-bit products on tile registers (tiles.h). B is packed as for the quads
 * (gemm_q8.h), in panels of 32 columns.
 *
 *     q8_tiles_block(&block);                                        kiln_gemm_q8_prims.block
 *
 * Rows are taken 32 at a time, read where they stand; all panels of the block pass by. A last step
 * of fewer than 16 words is completed in buffers: zeros behind the rows of A make what stands
 * behind the words of B count for nothing. */
#ifndef KILN_BACKEND_CPU_PRIMS_Q8_TILES_H
#define KILN_BACKEND_CPU_PRIMS_Q8_TILES_H

#include "backend/cpu/prims/q8_finish.h"
#include "backend/cpu/prims/q8_stage.h"
#include "backend/cpu/prims/tiles.h"

enum { TILES_WIDE = 32, TILE_WORD = 4 }; /* columns of a panel, bytes of a word */

typedef struct q8_tiles {
    const kiln_gemm_q8_block *block;
    int64_t first; /* row of the 32 at hand */
    int64_t words;
    tile_file file;
    char rows[TILES_TALL * TILE_BYTES];                  /* of a last step */
    int8_t columns[TILE_WORDS * TILE_WORD * TILES_WIDE]; /* of a last step */
    int32_t sums[TILES_TALL * TILES_WIDE];
} q8_tiles;

/* Columns [at, at + lanes) of the sums, of panel p, through the epilogue into C. */
KILN_INLINE void q8_tiles_finish(const q8_tiles *t, int64_t p, int64_t at, int64_t lanes,
                                 bool to_float) {
    const kiln_gemm_q8_block *k = t->block;
    const kiln_q8_epilogue *e = k->epilogue;
    const int64_t column = p * TILES_WIDE + at, item = to_float ? (int64_t)sizeof(float) : 1;
    const q8_columns q = q8_columns_of(e, column);
    const kiln_vi start = vi_load(e->start + column);
    const uint8_t *residual = e->residual ? e->residual + t->first * e->ld_residual + column : NULL;
    char *c = (char *)k->c + (t->first * k->ldc + column) * item;
    for (int64_t i = 0; i < t->file.rows; i++) {
        kiln_vi sum = vi_add(vi_load(t->sums + i * TILES_WIDE + at), start);
        if (k->row_start) {
            sum = vi_add(sum, vi_set1(k->row_start[t->first + i]));
        }
        q8_finish(&q, sum, residual, to_float, c + i * k->ldc * item, lanes);
        residual = residual ? residual + e->ld_residual : NULL;
    }
}

KILN_INLINE void q8_tiles_finish_panel(const q8_tiles *t, int64_t p, bool to_float) {
    const int64_t cols = i64_min(TILES_WIDE, t->block->n - p * TILES_WIDE);
    for (int64_t at = 0; at < cols; at += KILN_VLEN) {
        if (cols - at >= KILN_VLEN) {
            q8_tiles_finish(t, p, at, KILN_VLEN, to_float);
        } else {
            q8_tiles_finish(t, p, at, cols - at, to_float);
        }
    }
}

/* All panels of the rows at hand. */
KILN_INLINE void q8_tiles_rows(q8_tiles *t) {
    const kiln_gemm_q8_block *k = t->block;
    const int64_t tail = t->words % TILE_WORDS, whole = t->words - tail;
    const char *a = (const char *)k->a + t->first * k->lda_bytes;
    tile_operands o = {.a = &a,
                       .pieces = 1,
                       .a_tail = t->rows,
                       .lda = k->lda_bytes,
                       .lda_tail = TILE_BYTES,
                       .b_tail = (const char *)t->columns,
                       .steps = whole / TILE_WORDS,
                       .tail = tail > 0};
    for (int64_t i = 0; o.tail && i < t->file.rows; i++) {
        copy_bytes((uint8_t *)t->rows + i * TILE_BYTES,
                   (const uint8_t *)a + i * k->lda_bytes + whole * TILE_WORD, tail * TILE_WORD);
    }
    for (int64_t p = 0; p * TILES_WIDE < k->n; p++) {
        const bool wide = k->n - p * TILES_WIDE > KILN_VLEN;
        o.b = (const char *)k->b + p * TILES_WIDE * t->words * TILE_WORD;
        o.ldb = (wide ? TILES_WIDE : KILN_VLEN) * TILE_WORD;
        if (o.tail) {
            memcpy(t->columns, o.b + whole * o.ldb, (size_t)(tail * o.ldb));
        }
        tile_multiply(&t->file, BYTES, wide, &o, false, t->sums);
        if (k->epilogue->to_float) {
            q8_tiles_finish_panel(t, p, true);
        } else {
            q8_tiles_finish_panel(t, p, false);
        }
    }
}

KILN_INLINE void q8_tiles_block(const kiln_gemm_q8_block *k) {
    _Alignas(64) q8_tiles t;
    t.block = k;
    t.words = i64_ceil_div(k->k, TILE_WORD);
    t.file.rows = 0;
    memset(t.rows, 0, sizeof t.rows);
    memset(t.columns, 0, sizeof t.columns);
    for (t.first = 0; t.first < k->m; t.first += TILES_TALL) {
        const int64_t rows = i64_min(TILES_TALL, k->m - t.first);
        if (rows != t.file.rows) {
            tiles_begin(&t.file, rows);
        }
        q8_tiles_rows(&t);
    }
    tiles_end(&t.file);
}

#endif
