/* bit_shift.c - BitShift: right shifts of signed integers copy the sign. */
#include "ops/elementwise.h"

typedef struct bit_shift_attrs {
    int32_t direction;
} bit_shift_attrs;

enum { LEFT, RIGHT };
static const char *const words[] = {"LEFT", "RIGHT", NULL};

static const kiln_attr table[] = {{.name = "direction",
                                   .kind = KILN_ATTR_ENUM,
                                   .required = true,
                                   .offset = offsetof(bit_shift_attrs, direction),
                                   .words = words}};

static kiln_status infer(kiln_infer *c) {
    KILN_TRY(kiln_infer_dtype(c, 0, KILN_T_INT));
    KILN_TRY(kiln_infer_same_dtype(c, 0, 1));
    return kiln_infer_broadcast(c, 0, c->in[0].type.dtype, 0, 2);
}

/* x is sign-extended where the type is signed, so that the high bits are right for any width. An
 * amount outside [0, bits) shifts everything out. */
static int64_t shift(int64_t x, int64_t amount, int bits, bool right, bool is_signed) {
    bool out = amount < 0 || amount >= bits;
    if (!right) {
        return out ? 0 : (int64_t)((uint64_t)x << amount);
    }
    bool negative = is_signed && x < 0;
    if (out) {
        return negative ? -1 : 0;
    }
    uint64_t moved = (uint64_t)x >> amount;
    uint64_t fill = negative && amount > 0 ? ~(UINT64_MAX >> amount) : 0;
    return (int64_t)(moved | fill);
}

static kiln_status ref(kiln_ref *c) {
    const bit_shift_attrs *a = c->attrs;
    const kiln_tensor *in[2] = {kiln_ref_in(c, 0), kiln_ref_in(c, 1)};
    kiln_tensor *y = kiln_ref_out(c, 0);
    int bits = kiln_dtype_bits(y->dtype);
    bool is_signed = kiln_dtype_is_signed_int(y->dtype);
    kiln_rows r;
    kiln_rows_init(&r, y, in, 2);
    for (bool more = r.n > 0; more; more = kiln_rows_next(&r)) {
        for (int64_t k = 0; k < r.n; k++) {
            int64_t x = kiln_get_i64(y->dtype, in[0]->data, r.at[0] + k * r.step[0]);
            int64_t amount = kiln_get_i64(y->dtype, in[1]->data, r.at[1] + k * r.step[1]);
            int64_t v = shift(x, amount, bits, a->direction == RIGHT, is_signed);
            kiln_set_i64(y->dtype, y->data, r.out + k, v);
        }
    }
    return KILN_OK;
}

const kiln_op kiln_op_bit_shift = {
    .name = "BitShift",
    .domain = "",
    .since = 28,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .flags = KILN_OP_ELEMENTWISE,
    KILN_OP_ATTRS(table, bit_shift_attrs),
    .tolerance = KILN_TOL_EXACT,
    .infer = infer,
    .ref = ref,
};
