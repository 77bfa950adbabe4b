#include "backend/cpu/kernels/conv_q8_pack.h"

size_t kiln_conv_q8_packed_bytes(const kiln_packer *k, const kiln_conv_args *a, bool depthwise) {
    const kiln_prims *prims = k->target->prims;
    return (size_t)(depthwise ? prims->depthwise_q8->packed_bytes(a)
                              : prims->conv_q8->packed_bytes(a));
}

/* From ONNX's order to [c_out][taps][c_in / groups], with the taps in the prims' order. */
kiln_status kiln_conv_q8_pack(kiln_packer *k, const kiln_conv_args *a, bool depthwise, void *dst,
                              const int8_t *src, int32_t *sums, int64_t ld) {
    const kiln_conv_q8_prims *prims = k->target->prims->conv_q8;
    const int64_t taps = a->kernel[0] * a->kernel[1] * a->kernel[2];
    const int64_t depth = a->c_in / a->groups, cols = a->c_out / a->groups;
    int8_t *arranged;
    KILN_ALLOC(arranged, k->scratch, a->c_out * taps * depth);
    for (int64_t o = 0; o < a->c_out; o++) {
        for (int64_t i = 0; i < taps; i++) {
            int64_t tap = prims->tap(a, i), sum = 0;
            for (int64_t c = 0; c < depth; c++) {
                int64_t from =
                    a->transposed ? (o / cols * depth + c) * cols + o % cols : o * depth + c;
                int8_t w = src[from * taps + tap];
                arranged[(o * taps + i) * depth + c] = w;
                sum += w;
            }
            int64_t row = a->transposed ? prims->residue(a, tap) : 0;
            sums[row * ld + o] += (int32_t)sum;
        }
    }
    (depthwise ? k->target->prims->depthwise_q8->pack : prims->pack)(dst, arranged, a);
    return KILN_OK;
}
