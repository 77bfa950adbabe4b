/* The protobuf reader: walks every message it can enter, to the depth and work limits. */
#include <stdlib.h>

#include "onnx/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DEPTH = 12, BUDGET = 1 << 14, NAME = 1 << 10 };

/* Sums what was read, so that no read is dropped by the compiler. */
static uint64_t walk(kiln_wire *wire, kiln_msg msg) {
    kiln_field f;
    uint64_t sum = 0;
    while (kiln_wire_more(&msg) && kiln_wire_next(wire, &msg, &f) == KILN_OK) {
        sum += f.number + f.bits;
        if (f.type != KILN_WIRE_LEN) {
            continue;
        }
        kiln_msg inner;
        const uint8_t *p = f.data;
        uint64_t v;
        for (size_t i = 0; i < f.len; i++) {
            sum += f.data[i];
        }
        size_t varints = kiln_wire_count_varints(f.data, f.len), read = 0;
        while (p < f.data + f.len && kiln_wire_varint(wire, &p, f.data + f.len, &v) == KILN_OK) {
            sum += v;
            read++;
        }
        if (read > varints) {
            abort();
        }
        if (msg.depth < DEPTH && kiln_wire_enter(wire, &msg, &f, &inner) == KILN_OK) {
            sum += walk(wire, inner);
        }
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kiln_diag *diag = NULL;
    kiln_wire wire = {.base = data, .budget = BUDGET, .max_depth = DEPTH, .max_name = NAME};
    if (kiln_diag_create(&diag, NULL) != KILN_OK) {
        return 0;
    }
    wire.diag = diag;
    volatile uint64_t sum = walk(&wire, (kiln_msg){data, data + size, 0});
    (void)sum;
    kiln_diag_destroy(diag);
    return 0;
}
