#include "ir/type.h"

#include <string.h>

bool kiln_type_is_static(const kiln_type *type) {
    if (type->kind != KILN_KIND_TENSOR || type->rank < 0) {
        return false;
    }
    for (int32_t i = 0; i < type->rank; i++) {
        if (type->dims[i] < 0) {
            return false;
        }
    }
    return true;
}

bool kiln_type_same_shape(const kiln_type *a, const kiln_type *b) {
    if (a->rank != b->rank || a->rank < 0) {
        return false;
    }
    for (int32_t i = 0; i < a->rank; i++) {
        if (a->dims[i] != b->dims[i] || a->dims[i] == KILN_DIM_UNKNOWN) {
            return false;
        }
    }
    return true;
}

bool kiln_type_equal(const kiln_type *a, const kiln_type *b) {
    if (a->kind != b->kind) {
        return false;
    }
    if (a->kind == KILN_KIND_SEQUENCE || a->kind == KILN_KIND_OPTIONAL) {
        return a->elem == b->elem || (a->elem && b->elem && kiln_type_equal(a->elem, b->elem));
    }
    return a->dtype == b->dtype && ((a->rank < 0 && b->rank < 0) || kiln_type_same_shape(a, b));
}

bool kiln_type_to_tensor(const kiln_type *type, kiln_tensor *t) {
    if (!kiln_type_is_static(type)) {
        return false;
    }
    t->dtype = type->dtype;
    t->rank = type->rank;
    for (int32_t i = 0; i < type->rank; i++) {
        t->dims[i] = type->dims[i];
    }
    return true;
}

static const char *tensor_text(const kiln_dims *table, const kiln_type *type, kiln_arena *arena) {
    if (type->rank < 0) {
        return kiln_arena_printf(arena, "%s[...]", kiln_dtype_name(type->dtype));
    }
    const char *text = "";
    for (int32_t i = 0; i < type->rank && text; i++) {
        const char *dim = kiln_dim_text(table, type->dims[i], arena);
        text = dim ? kiln_arena_printf(arena, "%s%s%s", text, i ? "," : "", dim) : NULL;
    }
    return text ? kiln_arena_printf(arena, "%s[%s]", kiln_dtype_name(type->dtype), text) : NULL;
}

const char *kiln_type_text(const kiln_dims *table, const kiln_type *type, kiln_arena *arena) {
    if (type->kind == KILN_KIND_TENSOR) {
        return tensor_text(table, type, arena);
    }
    if (type->kind == KILN_KIND_NONE || !type->elem) {
        return type->kind == KILN_KIND_SEQUENCE ? "seq(?)" : "?";
    }
    const char *elem = kiln_type_text(table, type->elem, arena);
    if (!elem) {
        return NULL;
    }
    return kiln_arena_printf(arena, "%s(%s)", type->kind == KILN_KIND_SEQUENCE ? "seq" : "optional",
                             elem);
}
