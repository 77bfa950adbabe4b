#include "ir/dim.h"

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
    return binary(table, KILN_DIM_DIV, a, b);
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

/* Expressions refer to earlier entries only, so one sweep over the reachable ones decides; the
 * depth of recursion is bounded by giving up (true) beyond MAX_DEPTH. */
enum { MAX_DEPTH = 64 };

static bool found_within(const kiln_dims *table, kiln_dim d, int depth) {
    if (kiln_dim_known(d)) {
        return false;
    }
    const kiln_dim_entry *e = kiln_dim_get(table, d);
    if (!e || e->kind == KILN_DIM_FOUND || depth > MAX_DEPTH) {
        return true;
    }
    if (e->kind == KILN_DIM_SYMBOL) {
        return false;
    }
    return found_within(table, e->a, depth + 1) || found_within(table, e->b, depth + 1);
}

bool kiln_dim_is_found(const kiln_dims *table, kiln_dim d) {
    return found_within(table, d, 0);
}

static const char *text_within(const kiln_dims *table, kiln_dim d, kiln_arena *arena, int depth) {
    const kiln_dim_entry *e = kiln_dim_get(table, d);
    if (kiln_dim_known(d)) {
        return kiln_arena_printf(arena, "%lld", (long long)d);
    }
    if (!e || depth > MAX_DEPTH) {
        return "?";
    }
    if (e->kind == KILN_DIM_SYMBOL) {
        return e->name;
    }
    if (e->kind == KILN_DIM_FOUND) {
        return kiln_arena_printf(arena, "?%lld", (long long)(d - FIRST));
    }
    const char *a = text_within(table, e->a, arena, depth + 1);
    const char *b = text_within(table, e->b, arena, depth + 1);
    if (!a || !b) {
        return NULL;
    }
    switch (e->kind) {
    case KILN_DIM_ADD:
        return kiln_arena_printf(arena, b[0] == '-' ? "(%s%s)" : "(%s+%s)", a, b);
    case KILN_DIM_SUB:
        return kiln_arena_printf(arena, "(%s-%s)", a, b);
    case KILN_DIM_MUL:
        return kiln_arena_printf(arena, "%s*%s", a, b);
    case KILN_DIM_DIV:
        return kiln_arena_printf(arena, "(%s/%s)", a, b);
    case KILN_DIM_LOWER:
        return kiln_arena_printf(arena, "min(%s,%s)", a, b);
    default:
        return kiln_arena_printf(arena, "max(%s,%s)", a, b);
    }
}

const char *kiln_dim_text(const kiln_dims *table, kiln_dim d, kiln_arena *arena) {
    return text_within(table, d, arena, 0);
}
