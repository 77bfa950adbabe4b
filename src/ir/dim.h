/* dim.h - one dimension of a shape: a number, or an expression over symbols.
 *
 * A kiln_dim is an int64. Values of KILN_DIM_MIN and above are themselves: sizes, and in known
 * contents also negative numbers such as the -1 of a Reshape target. Values below it name an entry
 * of a table of expressions: a symbol of the model's inputs ("N"), a size found at run time, or
 * + - * floor-division, min or max of two dims. Equal expressions have equal numbers, so that dims
 * are compared with ==.
 *
 *     kiln_dim n = kiln_dim_symbol(table, "N");
 *     kiln_dim h = kiln_dim_sub(table, kiln_dim_mul(table, n, 2), 1);     // 2*N-1
 *     assert(h == kiln_dim_sub(table, kiln_dim_mul(table, 2, n), 1));
 *
 * Out of memory and overflow turn into KILN_DIM_UNKNOWN, which equals no dim but itself: it says
 * "not known", and nothing may be concluded from two of them being the same number.
 */
#ifndef KILN_IR_DIM_H
#define KILN_IR_DIM_H

#include "base/arena.h"

typedef int64_t kiln_dim;

#define KILN_DIM_MIN (-(INT64_C(1) << 62))
#define KILN_DIM_UNKNOWN INT64_MIN

typedef enum kiln_dim_kind {
    KILN_DIM_SYMBOL, /* named by the model */
    KILN_DIM_FOUND,  /* decided by data at run time */
    KILN_DIM_ADD,
    KILN_DIM_SUB,
    KILN_DIM_MUL,
    KILN_DIM_DIV,   /* rounds down */
    KILN_DIM_LOWER, /* min */
    KILN_DIM_UPPER, /* max */
} kiln_dim_kind;

typedef struct kiln_dim_entry {
    kiln_dim_kind kind;
    kiln_dim a, b;    /* operands; FOUND: a is the upper bound or KILN_DIM_UNKNOWN */
    const char *name; /* SYMBOL */
    bool is_found;    /* FOUND, or made of one */
} kiln_dim_entry;

typedef struct kiln_dims {
    kiln_arena *arena;
    kiln_dim_entry *entries;
    size_t count, cap;
    uint32_t *slots; /* open hash of entry index + 1 */
    size_t n_slots;
    bool oom; /* an expression became UNKNOWN for want of memory: the owner asks at the end */
} kiln_dims;

void kiln_dims_init(kiln_dims *table, kiln_arena *arena);

static inline bool kiln_dim_known(kiln_dim d) {
    return d >= KILN_DIM_MIN;
}
/* The entry behind an expression, or NULL for a number or KILN_DIM_UNKNOWN. */
const kiln_dim_entry *kiln_dim_get(const kiln_dims *table, kiln_dim d);

kiln_dim kiln_dim_symbol(kiln_dims *table, const char *name);
/* A fresh size that data decides, at most `bound` (KILN_DIM_UNKNOWN: no bound). */
kiln_dim kiln_dim_found(kiln_dims *table, kiln_dim bound);
/* Constants are folded, sums and products ordered, x+0, x*1, x/1, x-x, (x*k)/k, (x/k+c)/m and the
 * like reduced. */
kiln_dim kiln_dim_add(kiln_dims *table, kiln_dim a, kiln_dim b);
kiln_dim kiln_dim_sub(kiln_dims *table, kiln_dim a, kiln_dim b);
kiln_dim kiln_dim_mul(kiln_dims *table, kiln_dim a, kiln_dim b);
kiln_dim kiln_dim_div(kiln_dims *table, kiln_dim a, kiln_dim b);
kiln_dim kiln_dim_min(kiln_dims *table, kiln_dim a, kiln_dim b);
kiln_dim kiln_dim_max(kiln_dims *table, kiln_dim a, kiln_dim b);
/* The product of n dims; 1 for n == 0. */
kiln_dim kiln_dim_product(kiln_dims *table, const kiln_dim *dims, int32_t n);

/* True when the dim depends on data found at run time (or is unknown). */
bool kiln_dim_is_found(const kiln_dims *table, kiln_dim d);

/* Writes "N", "2*H-1", "?3" (found), "?" or, for what would be longer than KILN_DIM_TEXT, a number
 * of its own like a found one's, to an arena string. NULL when out of memory. */
enum { KILN_DIM_TEXT = 120 };
const char *kiln_dim_text(const kiln_dims *table, kiln_dim d, kiln_arena *arena);

#endif
