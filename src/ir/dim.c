#include "ir/dim.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"

/* Expression i is the number FIRST + i; KILN_DIM_UNKNOWN lies just below. */
#define FIRST (INT64_MIN + 1)

void kiln_dims_init(kiln_dims *table, kiln_arena *arena) {
    memset(table, 0, sizeof *table);
    table->arena = arena;
}

const kiln_dim_entry *kiln_dim_get(const kiln_dims *table, kiln_dim d) {
    if (d >= KILN_DIM_MIN || d < FIRST || (uint64_t)(d - FIRST) >= table->count) {
        return NULL;
    }
    return &table->entries[d - FIRST];
}

static uint64_t entry_hash(const kiln_dim_entry *e) {
    uint64_t h = (uint64_t)e->kind * UINT64_C(0x9E3779B97F4A7C15);
    h = (h ^ (uint64_t)e->a) * UINT64_C(0xD6E8FEB86659FD93);
    h = (h ^ (uint64_t)e->b) * UINT64_C(0xD6E8FEB86659FD93);
    for (const char *p = e->name ? e->name : ""; *p; p++) {
        h = (h ^ (unsigned char)*p) * UINT64_C(0x100000001B3);
    }
    return h ^ (h >> 29);
}

static bool entry_equal(const kiln_dim_entry *x, const kiln_dim_entry *y) {
    return x->kind == y->kind && x->a == y->a && x->b == y->b &&
           (x->name == y->name || (x->name && y->name && strcmp(x->name, y->name) == 0));
}

/* Index of the slot that holds an equal entry, or of the free slot where it belongs. */
static size_t find_slot(const kiln_dims *table, const kiln_dim_entry *e) {
    size_t mask = table->n_slots - 1;
    size_t s = (size_t)entry_hash(e) & mask;
    while (table->slots[s] && !entry_equal(&table->entries[table->slots[s] - 1], e)) {
        s = (s + 1) & mask;
    }
    return s;
}

static bool grow_slots(kiln_dims *table) {
    size_t n = table->n_slots ? table->n_slots * 2 : 64;
    uint32_t *slots = kiln_arena_array(table->arena, n, sizeof *slots);
    if (!slots) {
        return false;
    }
    table->slots = slots;
    table->n_slots = n;
    for (size_t i = 0; i < table->count; i++) {
        table->slots[find_slot(table, &table->entries[i])] = (uint32_t)i + 1;
    }
    return true;
}

static kiln_dim intern(kiln_dims *table, kiln_dim_entry e) {
    if (table->count * 2 >= table->n_slots && !grow_slots(table)) {
        table->oom = true;
        return KILN_DIM_UNKNOWN;
    }
    size_t s = find_slot(table, &e);
    if (table->slots[s]) {
        return FIRST + (int64_t)(table->slots[s] - 1);
    }
    if (e.name) {
        e.name = kiln_arena_text(table->arena, e.name, strlen(e.name));
    }
    kiln_dim_entry *entries =
        kiln_arena_grow(table->arena, table->entries, table->count, &table->cap, sizeof *entries);
    if (!entries || (e.kind == KILN_DIM_SYMBOL && !e.name) || table->count >= UINT32_MAX - 1) {
        table->oom = true;
        return KILN_DIM_UNKNOWN;
    }
    table->entries = entries;
    e.is_found = e.kind == KILN_DIM_FOUND;
    if (e.kind >= KILN_DIM_ADD) {
        e.is_found = kiln_dim_is_found(table, e.a) || kiln_dim_is_found(table, e.b);
    }
    entries[table->count++] = e;
    table->slots[s] = (uint32_t)table->count;
    return FIRST + (int64_t)table->count - 1;
}

kiln_dim kiln_dim_symbol(kiln_dims *table, const char *name) {
    return intern(table, (kiln_dim_entry){.kind = KILN_DIM_SYMBOL, .name = name});
}

kiln_dim kiln_dim_found(kiln_dims *table, kiln_dim bound) {
    /* Its own index as second operand makes each one different from all others. */
    return intern(table,
                  (kiln_dim_entry){.kind = KILN_DIM_FOUND, .a = bound, .b = (int64_t)table->count});
}

static bool is_kind(const kiln_dims *table, kiln_dim d, kiln_dim_kind kind,
                    const kiln_dim_entry **e) {
    *e = kiln_dim_get(table, d);
    return *e && (*e)->kind == kind;
}

/* A constant result, or UNKNOWN when it does not fit. */
static kiln_dim number(bool fits, int64_t v) {
    return fits && v >= KILN_DIM_MIN ? v : KILN_DIM_UNKNOWN;
}

static int64_t floor_div(int64_t a, int64_t b) {
    int64_t q = a / b;
    return q * b != a && (a < 0) != (b < 0) ? q - 1 : q;
}

static kiln_dim binary(kiln_dims *table, kiln_dim_kind kind, kiln_dim a, kiln_dim b) {
    return intern(table, (kiln_dim_entry){.kind = kind, .a = a, .b = b});
}

/* Puts the operands of a commutative operation in order, a number last. */
static void order(kiln_dim *a, kiln_dim *b) {
    if (kiln_dim_known(*a) || (!kiln_dim_known(*b) && *a > *b)) {
        kiln_dim t = *a;
        *a = *b;
        *b = t;
    }
}

kiln_dim kiln_dim_add(kiln_dims *table, kiln_dim a, kiln_dim b) {
    const kiln_dim_entry *e;
    if (a == KILN_DIM_UNKNOWN || b == KILN_DIM_UNKNOWN) {
        return KILN_DIM_UNKNOWN;
    }
    if (kiln_dim_known(a) && kiln_dim_known(b)) {
        int64_t v = 0;
        bool fits = kiln_add_i64(a, b, &v);
        return number(fits, v);
    }
    order(&a, &b);
    if (b == 0) {
        return a;
    }
    if (kiln_dim_known(b) && is_kind(table, a, KILN_DIM_ADD, &e) && kiln_dim_known(e->b)) {
        return kiln_dim_add(table, e->a, kiln_dim_add(table, e->b, b));
    }
    if (!kiln_dim_known(b) && is_kind(table, a, KILN_DIM_SUB, &e) && e->b == b) {
        return e->a;
    }
    if (!kiln_dim_known(b) && is_kind(table, b, KILN_DIM_SUB, &e) && e->b == a) {
        return e->a;
    }
    return binary(table, KILN_DIM_ADD, a, b);
}

kiln_dim kiln_dim_sub(kiln_dims *table, kiln_dim a, kiln_dim b) {
    const kiln_dim_entry *e;
    if (a == KILN_DIM_UNKNOWN || b == KILN_DIM_UNKNOWN) {
        return KILN_DIM_UNKNOWN;
    }
    if (a == b) {
        return 0;
    }
    if (kiln_dim_known(b)) {
        return kiln_dim_add(table, a, number(b != KILN_DIM_MIN, -b));
    }
    if (is_kind(table, a, KILN_DIM_ADD, &e)) {
        if (e->a == b) {
            return e->b;
        }
        if (e->b == b) {
            return e->a;
        }
    }
    return binary(table, KILN_DIM_SUB, a, b);
}

kiln_dim kiln_dim_mul(kiln_dims *table, kiln_dim a, kiln_dim b) {
    const kiln_dim_entry *e;
    if (a == KILN_DIM_UNKNOWN || b == KILN_DIM_UNKNOWN) {
        return KILN_DIM_UNKNOWN;
    }
    if (kiln_dim_known(a) && kiln_dim_known(b)) {
        int64_t v = 0;
        bool fits = kiln_mul_i64(a, b, &v);
        return number(fits, v);
    }
    order(&a, &b);
    if (b == 1) {
        return a;
    }
    if (b == 0) {
        return 0;
    }
    if (kiln_dim_known(b) && is_kind(table, a, KILN_DIM_MUL, &e) && kiln_dim_known(e->b)) {
        return kiln_dim_mul(table, e->a, kiln_dim_mul(table, e->b, b));
    }
    if (kiln_dim_known(b) && is_kind(table, a, KILN_DIM_ADD, &e) && kiln_dim_known(e->b)) {
        kiln_dim rest = kiln_dim_mul(table, e->b, b);
        return kiln_dim_add(table, kiln_dim_mul(table, e->a, b), rest);
    }
    return binary(table, KILN_DIM_MUL, a, b);
}

/* x*k / k', where k' divides k: x*(k/k'). UNKNOWN when the rule does not apply. */
static kiln_dim div_product(kiln_dims *table, kiln_dim a, kiln_dim b) {
    const kiln_dim_entry *e;
    if (!is_kind(table, a, KILN_DIM_MUL, &e)) {
        return KILN_DIM_UNKNOWN;
    }
    if (e->b == b) {
        return e->a;
    }
    if (e->a == b) {
        return e->b;
    }
    if (kiln_dim_known(b) && kiln_dim_known(e->b) && e->b % b == 0) {
        return kiln_dim_mul(table, e->a, e->b / b);
    }
    return KILN_DIM_UNKNOWN;
}

/* (x/n + c) / b is (x + n*c) / (n*b), for n, b > 0. UNKNOWN when the rule does not apply. */
static kiln_dim div_quotient(kiln_dims *table, kiln_dim a, int64_t b) {
    const kiln_dim_entry *e;
    kiln_dim c = 0;
    if (is_kind(table, a, KILN_DIM_ADD, &e) && kiln_dim_known(e->b)) {
        c = e->b;
        a = e->a;
    }
    if (b <= 0 || !is_kind(table, a, KILN_DIM_DIV, &e) || !kiln_dim_known(e->b) || e->b <= 0) {
        return KILN_DIM_UNKNOWN;
    }
    const kiln_dim x = e->a, n = e->b, both = kiln_dim_mul(table, n, b);
    const kiln_dim more = kiln_dim_mul(table, n, c);
    if (both == KILN_DIM_UNKNOWN || more == KILN_DIM_UNKNOWN) {
        return KILN_DIM_UNKNOWN;
    }
    return kiln_dim_div(table, kiln_dim_add(table, x, more), both);
}

kiln_dim kiln_dim_div(kiln_dims *table, kiln_dim a, kiln_dim b) {
    const kiln_dim_entry *e;
    if (a == KILN_DIM_UNKNOWN || b == KILN_DIM_UNKNOWN || b == 0) {
        return KILN_DIM_UNKNOWN;
    }
    if (kiln_dim_known(a) && kiln_dim_known(b)) {
        return floor_div(a, b);
    }
    if (b == 1) {
        return a;
    }
    if (a == b) {
        return 1;
    }
    kiln_dim q = div_product(table, a, b);
    if (q != KILN_DIM_UNKNOWN) {
        return q;
    }
    /* (x*k + c) / b with b | k is x*(k/b) + floor(c/b), for b > 0. */
    if (kiln_dim_known(b) && b > 0 && is_kind(table, a, KILN_DIM_ADD, &e) && kiln_dim_known(e->b)) {
        int64_t c = e->b;
        q = div_product(table, e->a, b);
        if (q != KILN_DIM_UNKNOWN) {
            return kiln_dim_add(table, q, floor_div(c, b));
        }
    }
    q = kiln_dim_known(b) ? div_quotient(table, a, b) : KILN_DIM_UNKNOWN;
    return q != KILN_DIM_UNKNOWN ? q : binary(table, KILN_DIM_DIV, a, b);
}

/* The lesser or greater of a and b where b is already one of a and something else: max(a, min(a,
 * x)) is a, max(a, max(a, x)) is max(a, x). KILN_DIM_UNKNOWN when b is neither. */
static kiln_dim absorb(const kiln_dims *table, kiln_dim_kind kind, kiln_dim a, kiln_dim b) {
    const kiln_dim_entry *e = kiln_dim_known(b) ? NULL : kiln_dim_get(table, b);
    bool chosen = e && (e->kind == KILN_DIM_LOWER || e->kind == KILN_DIM_UPPER);
    if (!chosen || (e->a != a && e->b != a)) {
        return KILN_DIM_UNKNOWN;
    }
    return e->kind == kind ? b : a;
}

static kiln_dim pick(kiln_dims *table, kiln_dim_kind kind, kiln_dim a, kiln_dim b) {
    if (a == KILN_DIM_UNKNOWN || b == KILN_DIM_UNKNOWN) {
        return KILN_DIM_UNKNOWN;
    }
    if (a == b) {
        return a;
    }
    if (kiln_dim_known(a) && kiln_dim_known(b)) {
        return (a < b) == (kind == KILN_DIM_LOWER) ? a : b;
    }
    kiln_dim left = absorb(table, kind, a, b), right = absorb(table, kind, b, a);
    if (left != KILN_DIM_UNKNOWN || right != KILN_DIM_UNKNOWN) {
        return left != KILN_DIM_UNKNOWN ? left : right;
    }
    order(&a, &b);
    return binary(table, kind, a, b);
}

kiln_dim kiln_dim_min(kiln_dims *table, kiln_dim a, kiln_dim b) {
    return pick(table, KILN_DIM_LOWER, a, b);
}

kiln_dim kiln_dim_max(kiln_dims *table, kiln_dim a, kiln_dim b) {
    return pick(table, KILN_DIM_UPPER, a, b);
}

kiln_dim kiln_dim_product(kiln_dims *table, const kiln_dim *dims, int32_t n) {
    kiln_dim p = 1;
    for (int32_t i = 0; i < n; i++) {
        p = kiln_dim_mul(table, p, dims[i]);
    }
    return p;
}

bool kiln_dim_is_found(const kiln_dims *table, kiln_dim d) {
    const kiln_dim_entry *e = kiln_dim_get(table, d);
    return !kiln_dim_known(d) && (!e || e->is_found);
}

/* ---- Text ---- */

/* How tightly operators bind. */
enum { SUM = 1, PRODUCT, ATOM };

static int binding(const kiln_dim_entry *e) {
    switch (e ? e->kind : KILN_DIM_SYMBOL) {
    case KILN_DIM_ADD:
    case KILN_DIM_SUB:
        return SUM;
    case KILN_DIM_MUL:
    case KILN_DIM_DIV:
        return PRODUCT;
    default:
        return ATOM;
    }
}

/* What is written so far; no more than fits. */
typedef struct dim_text {
    const kiln_dims *table;
    char at[KILN_DIM_TEXT + 1];
    size_t n;
    int depth;
    bool full;
} dim_text;

static void put(dim_text *t, const char *s) {
    size_t n = strlen(s);
    t->full = t->full || n > KILN_DIM_TEXT - t->n;
    if (!t->full) {
        memcpy(t->at + t->n, s, n + 1);
        t->n += n;
    }
}

static void put_leaf(dim_text *t, kiln_dim d, const kiln_dim_entry *e) {
    char number[32];
    if (e && e->kind == KILN_DIM_SYMBOL) {
        put(t, e->name);
        return;
    }
    snprintf(number, sizeof number,
             kiln_dim_known(d) ? "%lld"
             : e               ? "?%lld"
                               : "?",
             (long long)(kiln_dim_known(d) ? d : d - FIRST));
    put(t, number);
}

/* How tightly the right operand must bind to stand without parentheses: a * (b * c) is a * b * c,
 * but a * (b / c) is not a * b / c. */
static int right_binding(const kiln_dims *table, const kiln_dim_entry *e) {
    const kiln_dim_entry *right = kiln_dim_get(table, e->b);
    const bool product = right && right->kind == KILN_DIM_MUL;
    switch (e->kind) {
    case KILN_DIM_SUB:
        return PRODUCT;
    case KILN_DIM_MUL:
        return product ? PRODUCT : ATOM;
    case KILN_DIM_DIV:
        return ATOM;
    default:
        return SUM;
    }
}

/* In parentheses if it binds less than `least`. What nests deeper than its text may be long is full
 * before: every operator is a character. */
static void put_dim(dim_text *t, kiln_dim d, int least) {
    static const char *const signs[] = {
        [KILN_DIM_ADD] = "+", [KILN_DIM_SUB] = "-",   [KILN_DIM_MUL] = "*",
        [KILN_DIM_DIV] = "/", [KILN_DIM_LOWER] = ",", [KILN_DIM_UPPER] = ","};
    const kiln_dim_entry *e = kiln_dim_get(t->table, d);
    t->full = t->full || t->depth > KILN_DIM_TEXT;
    if (t->full || !e || e->kind < KILN_DIM_ADD) {
        put_leaf(t, d, e);
        return;
    }
    const char *open = e->kind == KILN_DIM_LOWER   ? "min("
                       : e->kind == KILN_DIM_UPPER ? "max("
                       : binding(e) < least        ? "("
                                                   : "";
    const bool minus = e->kind == KILN_DIM_ADD && kiln_dim_known(e->b) && e->b < 0;
    t->depth++;
    put(t, open);
    put_dim(t, e->a, binding(e) == ATOM ? SUM : binding(e));
    put(t, minus ? "" : signs[e->kind]);
    put_dim(t, e->b, right_binding(t->table, e));
    put(t, open[0] ? ")" : "");
    t->depth--;
}

const char *kiln_dim_text(const kiln_dims *table, kiln_dim d, kiln_arena *arena) {
    const kiln_dim_entry *e = kiln_dim_get(table, d);
    dim_text t = {.table = table};
    if (e && e->kind == KILN_DIM_SYMBOL) {
        return e->name;
    }
    put_dim(&t, d, SUM);
    return t.full ? kiln_arena_printf(arena, "?%lld", (long long)(d - FIRST))
                  : kiln_arena_text(arena, t.at, t.n);
}
