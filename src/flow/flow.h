/* flow.h - what the jobs of this folder share: owned tensor lists and their parts.
 *
 *     kiln_tensors *list;
 *     KILN_TRY(kiln_tensors_create(&list, env));
 *     KILN_TRY(kiln_tensors_take(list, "x", &tensor));    // data already in list->arena
 */
#ifndef KILN_FLOW_FLOW_H
#define KILN_FLOW_FLOW_H

#include "base/arena.h"
#include "base/diag.h"
#include "kiln/tools.h"

typedef struct kiln_named_tensor {
    const char *name;
    kiln_tensor tensor;
} kiln_named_tensor;

struct kiln_tensors {
    const kiln_env *env;
    kiln_arena arena; /* names and data */
    kiln_named_tensor *items;
    size_t count, cap;
};

/* Appends a tensor whose data lives in list->arena; the name is copied. KILN_E_MEMORY. */
kiln_status kiln_tensors_take(kiln_tensors *list, const char *name, const kiln_tensor *tensor);

/* True when `path` ends like `ending` (".npy"), in any case. */
bool kiln_path_ends(const char *path, const char *ending);

/* `from` with the element type `to`, its data in arena: floats are rounded, integers stored modulo
 * their width. Returns `from` itself when the types agree. KILN_E_UNSUPPORTED for strings and
 * complex numbers. */
kiln_status kiln_tensor_cast(kiln_tensor *out, const kiln_tensor *from, kiln_dtype to,
                             kiln_arena *arena, kiln_diag *diag);

/* Gives entries `first` and on, named after their files, the names that the outputs.json at `index`
 * lists for those files; nothing when there is no such file. KILN_E_MALFORMED. */
kiln_status kiln_outputs_rename(kiln_tensors *list, size_t first, const char *index,
                                kiln_diag *diag);

/* Processor time of others on the cores this process may use. */
typedef struct kiln_load_probe {
    bool known;
    double busy_s; /* all tasks, these cores */
    double own_s;
    int64_t at_ns;
} kiln_load_probe;
void kiln_load_start(kiln_load_probe *probe);
/* Cores that others kept busy since then, on average; -1: not known. */
double kiln_load_others(const kiln_load_probe *since);

#endif
