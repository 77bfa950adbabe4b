/* matmul_core.h - matrix products for references: any dtype, any strides, batches.
 *
 * Legend: A [.., M, K], B [.., K, N], Y [.., M, N]; leading dims broadcast; a 1-D A or B is a row
 * or a column whose dim of 1 does not appear in Y. Floats are summed in double, integers modulo
 * 2^64. */
#ifndef KILN_OPS_MATMUL_CORE_H
#define KILN_OPS_MATMUL_CORE_H

#include "ops/util.h"

/* One product of matrices inside two tensors; strides in elements. */
typedef struct kiln_product {
    const kiln_tensor *a, *b;
    int64_t m, k, n;
    int64_t a_at, a_row, a_col; /* A[i][j] is element a_at + i * a_row + j * a_col */
    int64_t b_at, b_row, b_col;
} kiln_product;

/* Output 0 of `dtype` gets the shape of in[a] x in[b]. */
kiln_status kiln_matmul_infer(kiln_infer *c, int32_t a, int32_t b, kiln_dtype dtype);

/* y[M * N] += product. Scratch comes from the arena and is given back. */
kiln_status kiln_product_f64(kiln_ref *c, const kiln_product *p, double *y);
kiln_status kiln_product_u64(kiln_ref *c, const kiln_product *p, uint64_t *y);

/* The whole batched product into y, zeroed, with as many elements as `out`. */
kiln_status kiln_matmul_f64(kiln_ref *c, const kiln_tensor *a, const kiln_tensor *b,
                            const kiln_tensor *out, double *y);
kiln_status kiln_matmul_u64(kiln_ref *c, const kiln_tensor *a, const kiln_tensor *b,
                            const kiln_tensor *out, uint64_t *y);

/* MACs of in[0] x in[1]. */
void kiln_matmul_cost(const kiln_node *node, const kiln_fact *in, const kiln_fact *out,
                      kiln_cost *cost);
/* out elements * k, INT64_MAX if too many, 0 while the output's shape is not known. */
int64_t kiln_matmul_macs(const kiln_fact *out, kiln_dim k);

#endif
