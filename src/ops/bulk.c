/* bulk.c - see bulk.h. */
#include "ops/bulk.h"

void kiln_load_f64(const kiln_tensor *t, int64_t at, int64_t n, double *dst) {
    if (t->dtype == KILN_DTYPE_F32) {
        const float *src = (const float *)t->data + at;
        for (int64_t i = 0; i < n; i++) {
            dst[i] = src[i];
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        dst[i] = kiln_get_f64(t->dtype, t->data, at + i);
    }
}

void kiln_store_f64(kiln_tensor *t, int64_t at, int64_t n, const double *src) {
    if (t->dtype == KILN_DTYPE_F32) {
        float *dst = (float *)t->data + at;
        for (int64_t i = 0; i < n; i++) {
            dst[i] = (float)src[i];
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        kiln_set_f64(t->dtype, t->data, at + i, src[i]);
    }
}

double kiln_round_to(kiln_dtype dtype, double v) {
    double stored = 0;
    kiln_set_f64(dtype, &stored, 0, v);
    return kiln_get_f64(dtype, &stored, 0);
}
