#include "backend/cpu/operand.h"

int64_t kiln_type_elements(const kiln_type *t) {
    kiln_tensor tensor = {0};
    return kiln_type_to_tensor(t, &tensor) ? kiln_tensor_count(&tensor) : -1;
}

void kiln_logical_strides(const kiln_operand *o, int64_t *strides) {
    const kiln_tensor *t = &o->tensor;
    int64_t dims[KILN_MAX_RANK], physical[KILN_MAX_RANK], s = 1;
    kiln_physical_dims(t, o->layout, dims);
    for (int32_t d = t->rank - 1; d >= 0; d--) {
        physical[d] = s;
        s *= dims[d];
    }
    for (int32_t d = 0; d < t->rank; d++) {
        strides[d] = physical[kiln_physical_axis(d, t->rank, o->layout)];
    }
}

void kiln_operand_strides(const kiln_operand *o, const kiln_operand *out, int64_t *strides) {
    int64_t own[KILN_MAX_RANK];
    int32_t rank = out->tensor.rank, lead = rank - o->tensor.rank;
    kiln_logical_strides(o, own);
    for (int32_t d = 0; d < rank; d++) {
        int64_t s = 0;
        if (d >= lead && (o->tensor.dims[d - lead] != 1 || out->tensor.dims[d] == 1)) {
            s = own[d - lead];
        }
        strides[kiln_physical_axis(d, rank, out->layout)] = s;
    }
}

bool kiln_is_axis_vector(const kiln_value *v, const kiln_type *type, int32_t axis) {
    const kiln_type *t = &v->type;
    if (t->kind != KILN_KIND_TENSOR || t->rank < 0 || t->rank > type->rank ||
        type->rank - t->rank > axis) {
        return false;
    }
    int32_t lead = type->rank - t->rank;
    for (int32_t d = 0; d < t->rank; d++) {
        kiln_dim want = d + lead == axis ? type->dims[axis] : 1;
        if (t->dims[d] != want || !kiln_dim_known(t->dims[d])) {
            return false;
        }
    }
    return true;
}
