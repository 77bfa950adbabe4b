/* gemm_simd.c - GEMM: register tiles, blocking, packing. Compiled once per ISA and form of the
 * weights (gemm_form.h).
 *
 * Legend: M rows of A and C, N columns of B and C, K the words of the sum; a panel is NR = 2
 * vectors of columns; an item is what one column of a panel has for a word of A.
 *
 * A register tile is MR rows x NV vectors of C, held in registers over a stretch of K: each step
 * loads NV vectors of B and broadcasts MR floats of A. Rates that matter: MR * NV accumulators
 * cover the multiply-add latency (2 pipes x 4 cycles: at least 8), a step needs MR + NV loads for
 * MR * NV multiply-adds at 2 of either a cycle, and B flows at (bytes of a vector) * 2 / MR a
 * cycle, so tall tiles are for B that comes from far. Rows are cut into tiles of nearly equal
 * height (49 = 4 x 6 + 5 x 5), which avoids a last thin tile that runs at the latency's pace. When
 * there are only one to three rows, the tile is several panels wide instead: B streams once, at
 * memory speed.
 *
 * Blocking: a unit is a block of rows times a group of panels. Inside, K is cut so that a panel's
 * piece stays in the first-level cache while all row tiles of the unit pass over it, and the block
 * of A stays in the second level. Partial sums rest in C, which loses no bits. While a piece is in
 * use the next one is asked for, a line every few steps: in a burst the requests would fill the
 * queue of misses and hold up the tile. A tile's own lines of C and of the residual are asked for
 * as it begins, since few steps of the next tile fit the core's window.
 *
 * A convolution's rows are gathered by taps. Those that are padding for all rows of a tile are left
 * out: little in a small kernel, most of the work where dilation is as large as the image.
 */
#include "backend/cpu/prims/gemm_form.h"

#define NR (2 * KILN_VLEN)
#define MR 6

enum {
    K_STRETCH = 320,          /* longest piece of a panel: NR * 4 * 320 bytes */
    BLOCK_BYTES = 160 * 1024, /* of A in a unit */
    GROUP_BYTES = 256 * 1024, /* of B in a unit */
    BLOCK_ROWS = 192,         /* most rows of a unit */
    UNITS_WANTED = 64,        /* enough for 16 threads to share evenly */
    UNIT_MACS = (FORM_IS_TILES ? 8 : 1) * 128 * 1024, /* no unit smaller for the sake of more */
    GATHER_STRETCH = 2048, /* longest piece of a panel in a gathered block */
    WIDE_VECS = 8,         /* widest register tile */
    STEPS = 16,            /* of k between two requests for what comes next */
    LINE = 64,             /* bytes */
    STEP_BYTES = NR * (int)sizeof(form_item),
    TALL_MR = FORM_IS_TILES      ? 32
              : KILN_VREGS == 32 ? 12
                                 : MR, /* rows of the strided tile */
};

typedef struct tile {
    /* Piece t of row i at row[i * row_step + t] + shift + i * lda. */
    const float *const *row;
    int64_t row_step, shift, lda;
    int64_t taps;
    uint64_t alive; /* bit t: piece t is not zeros in every row */
    int64_t depth;  /* floats of each piece */
    const form_item *b;
    int64_t b_panel;   /* items from one panel to the next */
    const char *ahead; /* what is to come nearer meanwhile ... */
    int64_t asks;      /* ... so many lines of it every STEPS steps */
    float *c;
    int64_t ldc;
    int64_t cols; /* valid columns: the last vector may be partial */
    bool resume;  /* start from the partial sums in c */
    bool finish;  /* apply the epilogue */
    const kiln_epilogue *epilogue;
    const float *bias;
    const float *residual;
} tile;

typedef void (*tile_fn)(const tile *t);
typedef kiln_vf tile_sums[TALL_MR][WIDE_VECS];

#define UNROLL KILN_UNROLL(16)
/* Unrolled, a step's operands meet those of the next in too few registers. */
#if defined(__clang__)
#define ROLLED KILN_PRAGMA(nounroll)
#else
#define ROLLED KILN_UNROLL(1)
#endif

/* Loads vector v of a row; the last of a tile's vectors stops at the tile's last column. */
KILN_INLINE kiln_vf load_vec(const float *row, int v, int vecs, kiln_vm mask, bool whole) {
    const float *p = row + v * KILN_VLEN;
    return v < vecs - 1 || whole ? vf_load(p) : vf_load_mask(p, mask);
}

#if FORM_IS_PAIRS
/* The tile's place among values that lie as C does. */
KILN_INLINE int64_t place_of(const tile *t) {
    return t->c - t->epilogue->origin;
}

/* Whether the results are held in bfloat16, and what is added to them. */
KILN_INLINE bool ends_half(const tile *t) {
    return t->finish && t->epilogue->result;
}

KILN_INLINE bool adds_half(const tile *t) {
    return t->finish && t->epilogue->addend;
}

/* sum[i][v] += rows in bfloat16. */
KILN_INLINE void add_half_rows(const tile *t, int rows, int vecs, tile_sums sum) {
    const int64_t last = t->cols - (vecs - 1) * KILN_VLEN;
    const uint16_t *p = t->epilogue->addend + place_of(t);
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int v = 0; v < vecs; v++) {
            const uint16_t *at = p + i * t->ldc + v * KILN_VLEN;
            const bool whole = v < vecs - 1 || last == KILN_VLEN;
            sum[i][v] = vf_add(sum[i][v], whole ? vf_load_bf16(at) : vf_load_bf16_tail(at, last));
        }
    }
}

/* Writes finished sums rounded, to where the results are held in bfloat16. */
KILN_INLINE void store_half(const tile *t, int rows, int vecs, tile_sums sum) {
    const int64_t last = t->cols - (vecs - 1) * KILN_VLEN;
    uint16_t *y = t->epilogue->result + place_of(t);
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int v = 0; v < vecs; v++) {
            uint16_t *at = y + i * t->ldc + v * KILN_VLEN;
            if (v < vecs - 1 || last == KILN_VLEN) {
                form_store_half(at, sum[i][v]);
            } else {
                vf_store_bf16_tail(at, last, sum[i][v]);
            }
        }
    }
}

KILN_INLINE void prefetch_half(const tile *t, const uint16_t *p, int rows) {
    UNROLL for (int i = 0; i < rows; i++) {
        v_prefetch(p + place_of(t) + i * t->ldc);
    }
}
#else
KILN_INLINE bool ends_half(const tile *t) {
    (void)t;
    return false;
}
#endif

KILN_INLINE void begin_tile(const tile *t, int rows, int vecs, tile_sums sum) {
    int64_t last = t->cols - (vecs - 1) * KILN_VLEN;
    bool whole = last == KILN_VLEN;
    const bool half = ends_half(t);
    UNROLL for (int i = 0; i < rows; i++) {
        if (!half) {
            v_prefetch(t->c + i * t->ldc);
        }
        UNROLL for (int v = 0; v < vecs; v++) {
            sum[i][v] = vf_zero();
        }
    }
    if (t->finish && t->residual) {
        UNROLL for (int i = 0; i < rows; i++) {
            v_prefetch(t->residual + i * t->epilogue->ld_residual);
        }
    }
#if FORM_IS_PAIRS
    if (half) {
        prefetch_half(t, t->epilogue->result, rows);
    }
    if (adds_half(t)) {
        prefetch_half(t, t->epilogue->addend, rows);
    }
#endif
    if (t->resume) {
        kiln_vm mask = vm_tail(last);
        UNROLL for (int i = 0; i < rows; i++) {
            UNROLL for (int v = 0; v < vecs; v++) {
                sum[i][v] = load_vec(t->c + i * t->ldc, v, vecs, mask, whole);
            }
        }
    }
}

/* sum[i][v] += row i of a matrix; stride 0 adds one row to all. */
KILN_INLINE void add_rows(const tile *t, int rows, int vecs, tile_sums sum, const float *p,
                          int64_t stride) {
    int64_t last = t->cols - (vecs - 1) * KILN_VLEN;
    bool whole = last == KILN_VLEN;
    kiln_vm mask = vm_tail(last);
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int v = 0; v < vecs; v++) {
            sum[i][v] = vf_add(sum[i][v], load_vec(p + i * stride, v, vecs, mask, whole));
        }
    }
}

KILN_INLINE void add_residual(const tile *t, int rows, int vecs, tile_sums sum) {
    if (t->residual) {
        add_rows(t, rows, vecs, sum, t->residual, t->epilogue->ld_residual);
    }
#if FORM_IS_PAIRS
    if (adds_half(t)) {
        add_half_rows(t, rows, vecs, sum);
    }
#endif
}

KILN_INLINE void finish_tile(const tile *t, int rows, int vecs, tile_sums sum) {
    const kiln_epilogue *e = t->epilogue;
    if (t->bias) {
        add_rows(t, rows, vecs, sum, t->bias, 0);
    }
    if (!e->act_first) {
        add_residual(t, rows, vecs, sum);
    }
    if (e->slope != 1.0f) {
        kiln_vf slope = vf_set1(e->slope);
        UNROLL for (int i = 0; i < rows; i++) {
            UNROLL for (int v = 0; v < vecs; v++) {
                kiln_vf s = sum[i][v];
                sum[i][v] = vf_select(vf_lt(s, vf_zero()), vf_mul(s, slope), s);
            }
        }
    }
    if (e->hard_swish) {
        UNROLL for (int i = 0; i < rows; i++) {
            UNROLL for (int v = 0; v < vecs; v++) {
                sum[i][v] = vf_hard_swish(sum[i][v]);
            }
        }
    }
    kiln_vf lo = vf_set1(e->lo);
    kiln_vf hi = vf_set1(e->hi);
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int v = 0; v < vecs; v++) {
            sum[i][v] = vf_clamp(sum[i][v], lo, hi);
        }
    }
    if (e->act_first) {
        add_residual(t, rows, vecs, sum);
    }
}

/* Writes a tile's sums, as they are or through the epilogue. */
KILN_INLINE void end_tile(const tile *t, int rows, int vecs, tile_sums sum) {
    int64_t last = t->cols - (vecs - 1) * KILN_VLEN;
    if (t->finish) {
        finish_tile(t, rows, vecs, sum);
    }
#if FORM_IS_PAIRS
    if (ends_half(t)) {
        store_half(t, rows, vecs, sum);
        return;
    }
#endif
    float *c = t->c;
    const int64_t ldc = t->ldc;
    if (last == KILN_VLEN) {
        UNROLL for (int i = 0; i < rows; i++) {
            UNROLL for (int v = 0; v < vecs; v++) {
                vf_store(c + i * ldc + v * KILN_VLEN, sum[i][v]);
            }
        }
        return;
    }
    kiln_vm mask = vm_tail(last);
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int v = 0; v < vecs - 1; v++) {
            vf_store(c + i * ldc + v * KILN_VLEN, sum[i][v]);
        }
        vf_store_mask(c + i * ldc + (vecs - 1) * KILN_VLEN, mask, sum[i][vecs - 1]);
    }
}

#if !FORM_IS_TILES

/* One step of k: vectors of B from panels of two. */
KILN_INLINE void load_b(int vecs, kiln_vf *bv, const form_item *b, int64_t b_panel) {
    UNROLL for (int v = 0; v < vecs; v++) {
        bv[v] = form_load_b(b + (v / 2) * b_panel + (v % 2) * KILN_VLEN);
    }
}

KILN_INLINE const char *ask(const tile *t, const char *ahead) {
    ROLLED for (int64_t i = 0; i < t->asks; i++, ahead += LINE) {
        v_prefetch_l2(ahead);
    }
    return ahead;
}

/* Step k of one piece. */
KILN_INLINE void gathered_step(const float *const *a, int64_t k, int rows, int vecs,
                               const form_item *b, int64_t b_panel, tile_sums sum) {
    kiln_vf bv[WIDE_VECS];
    load_b(vecs, bv, b, b_panel);
    UNROLL for (int i = 0; i < rows; i++) {
        kiln_vf av = form_load_a(a[i] + k);
        UNROLL for (int v = 0; v < vecs; v++) {
            sum[i][v] = form_multiply(av, bv[v], sum[i][v]);
        }
    }
}

KILN_INLINE void gathered_tile(const tile *t, int rows, int vecs) {
    tile_sums sum;
    begin_tile(t, rows, vecs, sum);
    const form_item *b = t->b;
    const char *ahead = t->ahead;
    const int64_t b_panel = t->b_panel;
    const int64_t depth = t->depth;
    for (int64_t tap = 0; tap < t->taps; tap++) {
        if (tap < 64 && !(t->alive >> tap & 1)) {
            b += depth * NR;
            continue;
        }
        const float *a[MR];
        UNROLL for (int i = 0; i < rows; i++) {
            a[i] = t->row[i * t->row_step + tap] + t->shift + i * t->lda;
        }
        for (int64_t k = 0; k < depth;) {
            const int64_t end = i64_min(depth, k + STEPS);
            ahead = ask(t, ahead);
            ROLLED for (; k < end; k++, b += NR) {
                gathered_step(a, k, rows, vecs, b, b_panel, sum);
            }
        }
    }
    end_tile(t, rows, vecs, sum);
}

/* Rows lda apart (row_step 0): every third has a pointer, the two after it are reached by index, so
 * that twelve rows need four registers. */
KILN_INLINE void strided_step(const float *const *a, int64_t lda, int rows, int vecs,
                              const form_item *b, tile_sums sum) {
    kiln_vf bv[WIDE_VECS];
    load_b(vecs, bv, b, 0);
    UNROLL for (int i = 0; i < rows; i++) {
        kiln_vf av = form_load_a(a[i / 3] + i % 3 * lda);
        UNROLL for (int v = 0; v < vecs; v++) {
            sum[i][v] = form_multiply(av, bv[v], sum[i][v]);
        }
    }
}

KILN_INLINE void strided_tile(const tile *t, int rows, int vecs) {
    tile_sums sum;
    begin_tile(t, rows, vecs, sum);
    const form_item *b = t->b;
    const char *ahead = t->ahead;
    const int64_t lda = t->lda, depth = t->depth;
    for (int64_t tap = 0; tap < t->taps; tap++) {
        const float *a[TALL_MR / 3];
        UNROLL for (int i = 0; i < (rows + 2) / 3; i++) {
            a[i] = t->row[tap] + t->shift + 3 * i * lda;
        }
        for (int64_t k = 0; k < depth;) {
            const int64_t end = i64_min(depth, k + STEPS);
            ahead = ask(t, ahead);
            ROLLED for (; k < end; k++, b += NR) {
                strided_step(a, lda, rows, vecs, b, sum);
                UNROLL for (int i = 0; i < (rows + 2) / 3; i++) {
                    a[i]++;
                }
            }
        }
    }
    end_tile(t, rows, vecs, sum);
}

/* The register tiles: X(rows, vectors). Wide ones, for up to three rows, span panels. */
#define TILES_1(X) X(1, 1) X(1, 2) X(1, 3) X(1, 4) X(1, 5) X(1, 6) X(1, 7) X(1, 8)
#define TILES_2(X) X(2, 1) X(2, 2) X(2, 3) X(2, 4) X(2, 5) X(2, 6)
#define TILES_3(X) X(3, 1) X(3, 2) X(3, 3) X(3, 4)
#define TILES_NARROW(X) X(4, 1) X(4, 2) X(5, 1) X(5, 2) X(6, 1) X(6, 2)
#if KILN_VREGS == 32
#define TILES_PAIR(X) X(4, 3) X(4, 4) X(5, 3) X(5, 4) X(6, 3) X(6, 4)
#define TILES_7_TO_9(X) X(7, 1) X(7, 2) X(8, 1) X(8, 2) X(9, 1) X(9, 2)
#define TILES_10_TO_12(X) X(10, 1) X(10, 2) X(11, 1) X(11, 2) X(12, 1) X(12, 2)
#define TILES_TALL(X) TILES_NARROW(X) TILES_7_TO_9(X) TILES_10_TO_12(X)
#else
#define TILES_PAIR(X)
#define TILES_TALL(X)
#endif
#define TILES_GATHERED(X) TILES_1(X) TILES_2(X) TILES_3(X) TILES_NARROW(X) TILES_PAIR(X)

#define DEFINE_GATHERED(rows, vecs)                       \
    static void gathered_##rows##x##vecs(const tile *t) { \
        gathered_tile(t, rows, vecs);                     \
    }
#define DEFINE_STRIDED(rows, vecs)                       \
    static void strided_##rows##x##vecs(const tile *t) { \
        strided_tile(t, rows, vecs);                     \
    }
TILES_GATHERED(DEFINE_GATHERED)
TILES_TALL(DEFINE_STRIDED)

#define NAME_GATHERED(rows, vecs) [rows][vecs] = gathered_##rows##x##vecs,
#define NAME_STRIDED(rows, vecs) [rows][vecs] = strided_##rows##x##vecs,
static const tile_fn gathered_tiles[MR + 1][WIDE_VECS + 1] = {TILES_GATHERED(NAME_GATHERED)};
#if KILN_VREGS == 32
static const tile_fn strided_tiles[TALL_MR + 1][3] = {TILES_TALL(NAME_STRIDED)};
#endif

/* Panels a gathered tile of so many rows spans at once. */
static int64_t tile_panels(int64_t rows) {
    static const int8_t panels[MR + 1] = {1, 4, 3, 2, 1, 1, 1};
    return rows > 3 && KILN_VREGS == 32 ? 2 : panels[rows];
}

#endif

static int64_t panels(int64_t n) {
    return i64_ceil_div(n, NR);
}

static int64_t packed_bytes(int64_t k, int64_t n) {
    return panels(n) * NR * form_words(k) * (int64_t)sizeof(form_item);
}

/* One unit's work, either kind: rows [0, m) of a and c, panels of columns [0, n). */
typedef struct block {
    int64_t m, n;
    int64_t tile_rows;
    const float *const *row; /* as in tile */
    const uint64_t *alive;   /* of each row, or NULL */
    int64_t row_step, shift, lda;
    int64_t run, run_words; /* as in kiln_gemm_gather; run >= 1 */
    int64_t taps, depth;
    const form_item *b;
    float *c;
    int64_t ldc;
    const kiln_epilogue *epilogue;
    const float *bias, *residual;
} block;

#if FORM_IS_TILES
static void run_block(const block *k); /* gemm_tile_simd.c */
#else

/* A stretch of the sum: of one piece, or whole pieces. */
typedef struct stretch {
    int64_t tap_begin, taps, depth_begin, depth;
    bool first, last;
} stretch;

static int64_t stretches(const block *k) {
    if (k->taps == 1) {
        return i64_max(1, i64_ceil_div(k->depth, K_STRETCH));
    }
    int64_t together = i64_max(1, GATHER_STRETCH / i64_max(1, k->depth));
    return i64_max(1, i64_ceil_div(k->taps, together));
}

static stretch stretch_at(const block *k, int64_t i, int64_t n) {
    stretch s = {.taps = 1, .depth = k->depth, .first = i == 0, .last = i == n - 1};
    if (k->taps == 1) {
        s.depth_begin = i64_part(k->depth, n, i);
        s.depth = i64_part(k->depth, n, i + 1) - s.depth_begin;
    } else {
        s.tap_begin = i64_part(k->taps, n, i);
        s.taps = i64_part(k->taps, n, i + 1) - s.tap_begin;
    }
    return s;
}

static tile_fn pick_tile(const block *k, int64_t rows, int64_t vecs) {
#if KILN_VREGS == 32
    if (k->row_step == 0 && rows >= 4 && vecs <= 2) {
        return strided_tiles[rows][vecs];
    }
#endif
    (void)k;
    return gathered_tiles[rows][vecs];
}

/* The pieces, from `first` on, that are not zeros in all of these rows. */
static uint64_t alive_pieces(const uint64_t *alive, int64_t rows, int64_t first) {
    uint64_t any = 0;
    for (int64_t i = 0; i < rows; i++) {
        any |= alive[i];
    }
    return any >> first;
}

/* All row tiles of a block over one stretch of one pass of columns; meanwhile B's next piece, as
 * long as this one, comes nearer, a share with each tile. */
static void run_pass(const block *k, tile *t, int64_t first_tap, const form_item *next) {
    int64_t n = i64_ceil_div(k->m, k->tile_rows);
    int64_t height = k->m / n;
    int64_t higher = k->m % n; /* tiles that have a row more, the first ones */
    int64_t vecs = i64_ceil_div(t->cols, KILN_VLEN);
    /* The first tiles ask for all of it. */
    const int64_t askers = n == 1 ? 0 : i64_min(n, STEPS);
    const int64_t asks = askers ? i64_ceil_div(STEPS * STEP_BYTES / LINE, askers) : 0;
    const int64_t share = i64_ceil_div(t->taps * t->depth, STEPS) * asks * LINE;
    int64_t row = 0, rows = height + 1;
    tile_fn fn = higher ? pick_tile(k, rows, vecs) : NULL;
    for (int64_t i = 0; i < n; i++) {
        if (i == higher) {
            rows = height;
            fn = pick_tile(k, rows, vecs);
        }
        t->ahead = (const char *)next + share * i;
        t->asks = i < askers ? asks : 0;
        t->alive = k->alive ? alive_pieces(k->alive + row, rows, first_tap) : ~(uint64_t)0;
        fn(t);
        row += rows;
        t->c += rows * k->ldc;
        t->row += rows * k->row_step;
        t->shift += rows * k->lda;
        if (t->residual) {
            t->residual += rows * k->epilogue->ld_residual;
        }
    }
}

static void run_block(const block *k) {
    int64_t depth_all = k->taps * k->depth;
    int64_t tallest = i64_ceil_div(k->m, i64_ceil_div(k->m, k->tile_rows));
    int64_t width = tallest > MR ? 1 : tile_panels(tallest);
    int64_t count = panels(k->n);
    int64_t n = stretches(k);
    for (int64_t i = 0; i < n; i++) {
        stretch s = stretch_at(k, i, n);
        int64_t b_row = s.tap_begin * k->depth + s.depth_begin;
        for (int64_t p = 0; p < count; p += width) {
            const form_item *b = k->b + (p * depth_all + b_row) * NR;
            tile t = {
                .row = k->row + s.tap_begin,
                .row_step = k->row_step,
                .shift = k->shift + s.depth_begin,
                .lda = k->lda,
                .taps = s.taps,
                .depth = s.depth,
                .b = b,
                .b_panel = depth_all * NR,
                .c = k->c + p * NR,
                .ldc = k->ldc,
                .cols = i64_min(k->n - p * NR, width * NR),
                .resume = !s.first,
                .finish = s.last,
                .epilogue = k->epilogue,
                .bias = k->bias ? k->bias + p * NR : NULL,
                .residual = k->residual ? k->residual + p * NR : NULL,
            };
            /* The next panel's, then the next stretch's, then the next group's. */
            const form_item *next = p + width < count ? b + width * depth_all * NR
                                    : i + 1 < n       ? k->b + (b_row + s.taps * s.depth) * NR
                                                      : k->b + count * depth_all * NR;
            run_pass(k, &t, s.tap_begin, next);
        }
    }
}

#endif

/* How a product is cut into units. */
typedef struct blocking {
    int64_t row_tiles, row_blocks, group, groups;
} blocking;

static int64_t tallest_tile(const kiln_gemm_args *g) {
    const int32_t asked = g->blocking.tile_rows;
    int64_t most = asked > 0 ? i64_min(asked, TALL_MR) : TALL_MR;
    return g->m < most && most > MR ? MR : most;
}

static blocking cut(const kiln_gemm_args *g) {
    int64_t stretch_k = i64_max(1, i64_ceil_div(g->k, i64_max(1, i64_ceil_div(g->k, K_STRETCH))));
    int64_t count = panels(g->n);
    const kiln_gemm_blocking *asked = &g->blocking;
    int64_t rows = asked->block_rows > 0
                       ? asked->block_rows
                       : i64_min(BLOCK_ROWS, i64_max(8, BLOCK_BYTES / 4 / stretch_k));
    int64_t group_bytes = asked->group_bytes > 0 ? asked->group_bytes : GROUP_BYTES;
    int64_t group = i64_min(
        count, i64_max(1, group_bytes / (int64_t)sizeof(form_item) / NR / i64_max(1, g->k)));
    for (;;) {
        int64_t units = i64_ceil_div(g->m, rows) * i64_ceil_div(count, group);
        bool small =
            units >= UNITS_WANTED || g->m * g->n * i64_max(1, g->k) / units < 2 * UNIT_MACS;
        if (small) {
            break;
        }
        const bool fixed = asked->block_rows > 0;
        if (!fixed && g->m > rows / 2 && rows > 48) {
            rows /= 2;
        } else if (asked->group_bytes == 0 && group > 1) {
            group = i64_ceil_div(group, 2);
        } else if (!fixed && g->m > rows / 2 && rows >= 24) {
            rows /= 2;
        } else {
            break;
        }
    }
    blocking b;
    b.row_tiles = i64_ceil_div(g->m, tallest_tile(g));
    b.row_blocks = i64_min(b.row_tiles, i64_ceil_div(g->m, rows));
    b.group = group;
    b.groups = i64_ceil_div(count, group);
    return b;
}

static int64_t tiles(const kiln_gemm_args *g) {
    if (g->m <= 0 || g->n <= 0) {
        return 0;
    }
    blocking b = cut(g);
    return b.row_blocks * b.groups;
}

static void run(const kiln_gemm_args *g, int64_t tile_begin, int64_t tile_end) {
    if (tile_begin >= tile_end) {
        return;
    }
    const blocking b = cut(g);
    const kiln_epilogue *e = &g->epilogue;
    for (int64_t i = tile_begin; i < tile_end; i++) {
        int64_t group = g->blocking.rows_last ? i % b.groups : i / b.row_blocks;
        int64_t row_block = g->blocking.rows_last ? i / b.groups : i % b.row_blocks;
        int64_t m0 = i64_part(g->m, b.row_tiles, i64_part(b.row_tiles, b.row_blocks, row_block));
        int64_t m1 =
            i64_part(g->m, b.row_tiles, i64_part(b.row_tiles, b.row_blocks, row_block + 1));
        int64_t n0 = group * b.group * NR;
        int64_t n1 = i64_min(g->n, n0 + b.group * NR);
        const float *first = g->a + m0 * g->lda;
        block k = {
            .m = m1 - m0,
            .run = m1 - m0,
            .n = n1 - n0,
            .tile_rows = tallest_tile(g),
            .row = &first,
            .lda = g->lda,
            .taps = 1,
            .depth = g->k,
            .b = (const form_item *)g->b + n0 * g->k,
            .c = g->c + m0 * g->ldc + n0,
            .ldc = g->ldc,
            .epilogue = e,
            .bias = e->bias ? e->bias + n0 : NULL,
            .residual = e->residual ? e->residual + m0 * e->ld_residual + n0 : NULL,
        };
        run_block(&k);
        if (e->post) {
            e->post(e->post_arg, k.c, g->ldc, m0, k.m, n0, k.n);
        }
    }
}

static void gather(const kiln_gemm_gather *g) {
    if (g->m <= 0 || g->n <= 0) {
        return;
    }
    const int64_t run = g->run > 0 ? g->run : g->m;
    block k = {
        .m = FORM_IS_TILES ? g->m : run,
        .run = run,
        .run_words = g->run_words,
        .n = g->n,
        .tile_rows = g->lda == 0 || run < TALL_MR ? MR : TALL_MR,
        .row = g->row,
        .alive = g->taps <= 64 ? g->alive : NULL,
        .row_step = g->lda == 0 ? g->taps : 0,
        .shift = g->shift,
        .lda = g->lda,
        .taps = g->taps,
        .depth = g->depth,
        .b = g->b,
        .c = g->c,
        .ldc = g->ldc,
        .epilogue = g->epilogue,
        .bias = g->bias,
        .residual = g->residual,
    };
    for (int64_t row = 0; row < g->m; row += k.m) {
        run_block(&k);
        k.shift += k.run_words;
        k.c += k.m * k.ldc;
        k.residual = k.residual ? k.residual + k.m * k.epilogue->ld_residual : NULL;
    }
}

/* Rows of a panel whose source runs along k: VLEN columns are read side by side, so that every
 * cache line of the source is used whole while it is near. */
static void pack_columns(form_item *dst, const float *src, int64_t k, int64_t cols,
                         int64_t stride_n) {
    const int64_t words = form_words(k);
    for (int64_t k0 = 0; k0 < words; k0 += KILN_VLEN) {
        int64_t k1 = i64_min(words, k0 + KILN_VLEN);
        for (int64_t n = 0; n < cols; n++) {
            const float *s = src + n * stride_n;
            for (int64_t i = k0; i < k1; i++) {
                dst[i * NR + n] = form_pack(s, 1, k, i);
            }
        }
    }
}

static void pack(void *packed, const float *src, int64_t k, int64_t n, int64_t stride_k,
                 int64_t stride_n, int64_t panel_begin, int64_t panel_end) {
    const int64_t words = form_words(k);
    for (int64_t p = panel_begin; p < panel_end; p++) {
        int64_t cols = i64_min(NR, n - p * NR);
        form_item *d = (form_item *)packed + p * words * NR;
        const float *s = src + p * NR * stride_n;
        if (cols < NR) {
            memset(d, 0, (size_t)(words * NR) * sizeof *d);
        }
        if (stride_k == 1 && stride_n != 1) {
            pack_columns(d, s, k, cols, stride_n);
            continue;
        }
        for (int64_t i = 0; i < words; i++) {
            if (FORM_IS_F32 && stride_n == 1 && cols == NR) {
                memcpy(d + i * NR, s + i * stride_k, NR * sizeof *d);
                continue;
            }
            for (int64_t j = 0; j < cols; j++) {
                d[i * NR + j] = form_pack(s + j * stride_n, stride_k, k, i);
            }
        }
    }
}

const kiln_gemm_prims KILN_ISA_SYMBOL(FORM_GEMM_PRIMS) = {
    .isa = KILN_ISA_NAME,
    .nr = NR,
    .mr = MR,
    .step = FORM_STEP,
    .whole = K_STRETCH, /* less than GATHER_STRETCH, and than a stretch of tiles */
    .panels = panels,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .stage = FORM_STAGE,
    .tiles = tiles,
    .run = run,
    .gather = gather,
};
