/* tensors.c - lists of named tensors, to and from contexts. */
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "base/env.h"
#include "flow/flow.h"
#include "ops/util.h"

kiln_status kiln_tensors_create(kiln_tensors **out, const kiln_env *env) {
    kiln_tensors *list = kiln_env_alloc(env, sizeof *list);
    if (!list) {
        return KILN_E_MEMORY;
    }
    memset(list, 0, sizeof *list);
    list->env = env;
    kiln_arena_init(&list->arena, env);
    *out = list;
    return KILN_OK;
}

void kiln_tensors_destroy(kiln_tensors *list) {
    if (list) {
        kiln_arena_free(&list->arena);
        kiln_env_release(list->env, list, sizeof *list);
    }
}

size_t kiln_tensors_count(const kiln_tensors *list) {
    return list->count;
}

const kiln_tensor *kiln_tensors_get(const kiln_tensors *list, size_t i, const char **name) {
    if (i >= list->count) {
        return NULL;
    }
    if (name) {
        *name = list->items[i].name;
    }
    return &list->items[i].tensor;
}

const kiln_tensor *kiln_tensors_find(const kiln_tensors *list, const char *name) {
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].name, name) == 0) {
            return &list->items[i].tensor;
        }
    }
    return NULL;
}

kiln_status kiln_tensors_take(kiln_tensors *list, const char *name, const kiln_tensor *tensor) {
    kiln_named_tensor item = {kiln_arena_text(&list->arena, name, strlen(name)), *tensor};
    if (!item.name) {
        return KILN_E_MEMORY;
    }
    KILN_PUSH(&list->arena, list->items, list->count, list->cap, item);
    return KILN_OK;
}

kiln_status kiln_tensors_add(kiln_tensors *list, const char *name, const kiln_tensor *tensor,
                             kiln_diag *diag) {
    size_t bytes = kiln_tensor_bytes(tensor);
    if (tensor->dtype == KILN_DTYPE_STRING) {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED, "\"%s\" holds strings", name);
    }
    if (tensor->rank < 0 || tensor->rank > KILN_MAX_RANK || bytes == SIZE_MAX) {
        return kiln_fail(diag, KILN_F_RUN_SHAPE, "the dims of \"%s\" are impossible", name);
    }
    kiln_tensor copy = *tensor;
    copy.data = kiln_arena_copy(&list->arena, tensor->data, bytes);
    copy.cap_bytes = bytes;
    return kiln_diag_close(diag, copy.data ? kiln_tensors_take(list, name, &copy) : KILN_E_MEMORY);
}

/* ---- To and from contexts ---- */

static bool find_input(const kiln_engine *engine, const char *name, kiln_io *out) {
    for (size_t i = 0; kiln_engine_input(engine, i, out); i++) {
        if (strcmp(out->name, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool seen_before(const kiln_tensors *list, size_t i) {
    for (size_t k = 0; k < i; k++) {
        if (strcmp(list->items[k].name, list->items[i].name) == 0) {
            return true;
        }
    }
    return false;
}

static kiln_status bind_sequence(const kiln_tensors *list, size_t first, kiln_context *context,
                                 kiln_diag *diag) {
    kiln_arena arena;
    kiln_arena_init(&arena, list->env);
    kiln_tensor *items = kiln_arena_array(&arena, list->count, sizeof *items);
    kiln_status status = items ? KILN_OK : KILN_E_MEMORY;
    if (items) {
        size_t n = 0;
        for (size_t k = first; k < list->count; k++) {
            if (strcmp(list->items[k].name, list->items[first].name) == 0) {
                items[n++] = list->items[k].tensor;
            }
        }
        status = kiln_context_bind_sequence(context, list->items[first].name, items, n, diag);
    }
    kiln_arena_free(&arena);
    return kiln_diag_close(diag, status);
}

kiln_status kiln_tensors_bind(const kiln_tensors *list, const kiln_engine *engine,
                              kiln_context *context, kiln_diag *diag) {
    for (size_t i = 0; i < list->count; i++) {
        const kiln_named_tensor *item = &list->items[i];
        kiln_io io;
        bool again = seen_before(list, i);
        if (!find_input(engine, item->name, &io)) {
            return kiln_hint(
                diag, kiln_fail(diag, KILN_F_RUN_INPUT, "there is no input \"%s\"", item->name),
                "`kiln inspect` lists the inputs");
        }
        if (!io.is_sequence && again) {
            return kiln_fail(diag, KILN_F_RUN_INPUT, "input \"%s\" is given twice", item->name);
        }
        if (!io.is_sequence) {
            KILN_TRY(kiln_context_bind(context, item->name, &item->tensor, diag));
        } else if (!again) {
            KILN_TRY(bind_sequence(list, i, context, diag));
        }
    }
    return KILN_OK;
}

kiln_status kiln_tensors_collect(kiln_tensors *list, const kiln_engine *engine,
                                 const kiln_context *context, kiln_diag *diag) {
    kiln_io io;
    for (size_t i = 0; kiln_engine_output(engine, i, &io); i++) {
        size_t n = kiln_context_output_items(context, i);
        for (size_t k = 0; k < n; k++) {
            const kiln_tensor *t = kiln_context_output_item(context, i, k);
            if (t) {
                KILN_TRY(kiln_tensors_add(list, io.name, t, diag));
            }
        }
    }
    return KILN_OK;
}

/* ---- Parts the jobs share ---- */

bool kiln_path_ends(const char *path, const char *ending) {
    size_t len = strlen(path), n = strlen(ending);
    return len >= n && strcasecmp(path + len - n, ending) == 0;
}

static bool is_real(kiln_dtype dtype) {
    return dtype == KILN_DTYPE_BOOL || kiln_dtype_is_float(dtype) || kiln_dtype_is_int(dtype);
}

kiln_status kiln_tensor_cast(kiln_tensor *out, const kiln_tensor *from, kiln_dtype to,
                             kiln_arena *arena, kiln_diag *diag) {
    *out = *from;
    if (from->dtype == to) {
        return KILN_OK;
    }
    if (!is_real(from->dtype) || !is_real(to)) {
        return kiln_fail(diag, KILN_F_DATA_UNSUPPORTED, "%s cannot be made of %s",
                         kiln_dtype_name(to), kiln_dtype_name(from->dtype));
    }
    int64_t count = kiln_tensor_count(from);
    out->dtype = to;
    out->cap_bytes = kiln_tensor_bytes(out);
    if (out->cap_bytes == SIZE_MAX) {
        return kiln_fail(diag, KILN_F_OVERFLOW, "a tensor of %lld elements", (long long)count);
    }
    out->data = kiln_arena_array(arena, out->cap_bytes, 1);
    if (!out->data) {
        return KILN_E_MEMORY;
    }
    bool exact = kiln_dtype_is_int(from->dtype) && kiln_dtype_is_int(to);
    for (int64_t i = 0; i < count; i++) {
        if (exact) {
            kiln_set_i64(to, out->data, i, kiln_get_i64(from->dtype, from->data, i));
        } else {
            kiln_set_f64(to, out->data, i, kiln_get_f64(from->dtype, from->data, i));
        }
    }
    return KILN_OK;
}
