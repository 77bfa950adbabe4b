#include "ops/ops.h"

#include <string.h>

static const kiln_op *const table[] = {
#define KILN_OP(id) &kiln_op_##id,
#include "ops/ops.def"
#undef KILN_OP
};

size_t kiln_op_count(void) {
    return KILN_COUNT_OF(table);
}

const kiln_op *kiln_op_at(size_t i) {
    return i < KILN_COUNT_OF(table) ? table[i] : NULL;
}

const kiln_op *kiln_op_find(const char *domain, const char *name) {
    if (strcmp(domain, "ai.onnx") == 0) {
        domain = "";
    }
    for (size_t i = 0; i < KILN_COUNT_OF(table); i++) {
        const kiln_op *op = table[i];
        if (op->name[0] == name[0] && strcmp(op->name, name) == 0 &&
            strcmp(op->domain, domain) == 0) {
            return op;
        }
    }
    return NULL;
}
