/* gemm_tile_simd.c - GEMM in bfloat16 on tile registers: the form of gemm_form.h. Only processors
 * with AVX-512 have them; other instruction sets make nothing of this file.
 *
 * Rows are taken 32 at a time, and a stretch of their words stays near while all panels of the
 * block pass by. Rows that lie one after the other are read in place, those of several pieces where
 * the pieces are whole steps; gathered ones are first put together. Partial sums rest in C. A step
 * is always 16 words counted from the first, so that the bits do not depend on the blocking. */
#if defined(KILN_ISA_avx512) || defined(KILN_TILE_FORM)
#define KILN_FORM FORM_TILES
#include "backend/cpu/prims/gemm_simd.c"
#include "backend/cpu/prims/tiles.h"

enum {
    TILE_STRETCH = 512, /* words of the sum that 32 rows pass at a time */
    FINISHED = 4,       /* rows that the epilogue takes at once */
};

/* The rows of a block. */
typedef struct block_rows {
    const block *k;
    tile_lines lines;
    bool in_place;
} block_rows;

typedef struct tile_buffers {
    float rows[TILES_TALL * TILE_STRETCH];
    float tail[TILES_TALL * TILE_WORDS];
    form_item columns[TILE_WORDS * NR]; /* of a last step, zeros behind */
    float sums[TILES_TALL * NR];
    const char *piece; /* rows, as the tiles want it */
} tile_buffers;

static void copy_words(float *dst, const float *src, int64_t n) {
    for (; n >= KILN_VLEN; n -= KILN_VLEN, src += KILN_VLEN, dst += KILN_VLEN) {
        vf_store(dst, vf_load(src));
    }
    if (n > 0) {
        vf_store_tail(dst, n, vf_load_tail(src, n));
    }
}

/* Words [begin, end) of rows from `first` on, ld apart, zeros behind them. */
static void gather_words(const block_rows *r, int64_t first, int64_t rows, int64_t begin,
                         int64_t end, int64_t ld, float *dst) {
    const block *k = r->k;
    const int64_t tap0 = begin / i64_max(1, k->depth), at0 = begin - tap0 * k->depth;
    for (int64_t i = first; i < first + rows; i++, dst += ld) {
        const float *const *piece = k->row + i * k->row_step + tap0;
        const int64_t line = i / r->lines.pitch, at_line = i % r->lines.pitch;
        const int64_t shift = k->shift + line * k->run_words + at_line * k->lda;
        float *d = dst;
        for (int64_t at = at0, w = begin; w < end; at = 0) {
            const int64_t n = i64_min(k->depth - at, end - w);
            copy_words(d, *piece++ + shift + at, n);
            d += n;
            w += n;
        }
        for (int64_t w = end - begin; w < ld; w++) {
            dst[w] = 0;
        }
    }
}

/* Rows of A from `first` on, as the tiles read them. */
static void aim_rows(const block_rows *r, int64_t first, int64_t rows, int64_t begin, int64_t end,
                     tile_buffers *s, tile_operands *o) {
    const block *k = r->k;
    const int64_t whole = begin + o->steps * TILE_WORDS;
    if (r->in_place) {
        o->a = (const char *const *)(const void *)k->row;
        o->pieces = k->taps;
        o->shift = (k->shift + first * k->lda + begin) * (int64_t)sizeof(float);
        o->steps /= k->taps;
        o->lda = k->lda * (int64_t)sizeof(float);
        o->a_tail = (const char *)s->tail;
        o->lda_tail = TILE_BYTES;
        if (o->tail) {
            gather_words(r, first, rows, whole, end, TILE_WORDS, s->tail);
        }
        return;
    }
    const int64_t ld = (o->steps + (o->tail ? 1 : 0)) * TILE_WORDS;
    gather_words(r, first, rows, begin, end, ld, s->rows);
    s->piece = (const char *)s->rows;
    o->a = &s->piece;
    o->pieces = 1;
    o->lda = o->lda_tail = ld * (int64_t)sizeof(float);
    o->a_tail = s->piece + o->steps * TILE_BYTES;
}

static void aim_columns(const form_item *b, int64_t words, tile_buffers *s, tile_operands *o) {
    o->b = (const char *)b;
    if (o->tail) {
        const int64_t whole = o->steps * TILE_WORDS;
        memcpy(s->columns, b + whole * NR, (size_t)((words - whole) * NR) * sizeof *b);
        o->b_tail = (const char *)s->columns;
    }
}

/* `rows` rows of the sums from or to the tile at t, FINISHED or one at a time. */
KILN_INLINE void begin_rows(const tile *t, int rows, int vecs, float *sums) {
    tile_sums sum;
    begin_tile(t, rows, vecs, sum);
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int v = 0; v < vecs; v++) {
            vf_store(sums + i * NR + v * KILN_VLEN, sum[i][v]);
        }
    }
}

KILN_INLINE void end_rows(const tile *t, int rows, int vecs, float *sums) {
    tile_sums sum;
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int v = 0; v < vecs; v++) {
            sum[i][v] = vf_load(sums + i * NR + v * KILN_VLEN);
        }
    }
    end_tile(t, rows, vecs, sum);
}

KILN_INLINE void some_rows(const tile *t, int rows, int vecs, bool begin, float *sums) {
    if (begin) {
        begin_rows(t, rows, vecs, sums);
    } else {
        end_rows(t, rows, vecs, sums);
    }
}

KILN_INLINE void rows_of_line(tile t, int64_t rows, int vecs, bool begin, float *sums) {
    for (int64_t i = 0, n; i < rows; i += n) {
        n = rows - i < FINISHED ? 1 : FINISHED;
        if (n == 1) {
            some_rows(&t, 1, vecs, begin, sums);
        } else {
            some_rows(&t, FINISHED, vecs, begin, sums);
        }
        sums += n * NR;
        t.c += n * t.ldc;
        t.residual = t.residual ? t.residual + n * t.epilogue->ld_residual : NULL;
    }
}

/* Of `rows` rows of A from `first` on those that are rows of C, which begins at t. */
KILN_INLINE void each_rows(const tile *t, const tile_lines *l, int64_t first, int64_t rows,
                           int vecs, bool begin, float *sums) {
    int64_t row = first, out, n;
    for (; (n = tile_lines_next(l, &row, first + rows, &out)) > 0; row += n) {
        tile at = *t;
        at.c += out * t->ldc;
        at.residual = t->residual ? t->residual + out * t->epilogue->ld_residual : NULL;
        rows_of_line(at, n, vecs, begin, sums + (row - first) * NR);
    }
}

KILN_INLINE void multiply_vecs(tile_file *f, const tile *t, const tile_lines *l, int64_t first,
                               const tile_operands *o, int vecs, float *sums) {
    if (t->resume) {
        each_rows(t, l, first, f->rows, vecs, true, sums);
    }
    tile_multiply(f, HALVES, vecs == 2, o, t->resume, sums);
    each_rows(t, l, first, f->rows, vecs, false, sums);
}

/* All panels of rows [first, first + f->rows) over words [begin, end). */
static void run_rows(const block_rows *r, tile_file *f, int64_t first, int64_t begin, int64_t end,
                     tile_buffers *s) {
    const block *k = r->k;
    const int64_t words = k->taps * k->depth;
    tile_operands o = {.ldb = NR * (int64_t)sizeof(form_item),
                       .steps = (end - begin) / TILE_WORDS,
                       .tail = (end - begin) % TILE_WORDS > 0};
    aim_rows(r, first, f->rows, begin, end, s, &o);
    for (int64_t p = 0; p < panels(k->n); p++) {
        const tile t = {.c = k->c + p * NR,
                        .ldc = k->ldc,
                        .cols = i64_min(NR, k->n - p * NR),
                        .resume = begin > 0,
                        .finish = end == words,
                        .epilogue = k->epilogue,
                        .bias = k->bias ? k->bias + p * NR : NULL,
                        .residual = k->residual ? k->residual + p * NR : NULL};
        aim_columns(k->b + (p * words + begin) * NR, end - begin, s, &o);
        if (t.cols > KILN_VLEN) {
            multiply_vecs(f, &t, &r->lines, first, &o, 2, s->sums);
        } else {
            multiply_vecs(f, &t, &r->lines, first, &o, 1, s->sums);
        }
    }
}

/* All rows, those of a stretch of the sum after each other. */
static void run_stretches(const block_rows *r, tile_file *f, int64_t first, int64_t end_row,
                          tile_buffers *s) {
    const block *k = r->k;
    const int64_t words = k->taps * k->depth, steps = i64_ceil_div(words, TILE_WORDS);
    const bool whole = r->in_place && k->taps > 1;
    const int64_t n = whole ? 1 : i64_max(1, i64_ceil_div(words, TILE_STRETCH));
    for (int64_t i = 0; i < n; i++) {
        const int64_t begin = TILE_WORDS * i64_part(steps, n, i);
        const int64_t end = i64_min(words, TILE_WORDS * i64_part(steps, n, i + 1));
        for (int64_t row = first; row < end_row; row += TILES_TALL) {
            const int64_t rows = i64_min(TILES_TALL, end_row - row);
            if (rows != f->rows) {
                tiles_begin(f, rows);
            }
            run_rows(r, f, row, begin, end, s);
        }
    }
}

static void run_block(const block *k) {
    _Alignas(64) tile_buffers s;
    tile_file f = {0};
    const bool pieces = k->taps == 1 || k->depth % TILE_WORDS == 0;
    const int64_t lines = k->m / k->run;
    block_rows r = {.k = k, .in_place = k->row_step == 0 && k->taps > 0 && pieces};
    const bool strided = r.in_place && lines > 1;
    r.lines = tile_lines_of(lines, k->run, strided ? k->run_words / k->lda : k->run);
    memset(s.columns, 0, sizeof s.columns);
    for (int64_t line = 0; line < lines; line += r.lines.joined) {
        const int64_t first = line * r.lines.pitch;
        run_stretches(&r, &f, first, first + tile_lines_rows(&r.lines, r.lines.joined), &s);
    }
    tiles_end(&f);
}

#endif
