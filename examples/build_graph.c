/* build_graph.c - a network without a file: y = Relu(x W + b), built node by node, then run.
 *
 *     build_graph
 *
 * The builder is the one that the ONNX importer uses, so a graph made here goes through the same
 * checks and passes. Calls need no check one by one: the first failure makes the last one fail. */
#include <stdio.h>

#include "kiln/graph.h"
#include "kiln/kiln.h"

enum { ROWS = 2, IN = 3, OUT = 4 };

static kiln_tensor matrix(float *data, int64_t rows, int64_t columns) {
    size_t bytes = (size_t)(rows * columns) * sizeof *data;
    return (kiln_tensor){.dtype = KILN_DTYPE_F32,
                         .rank = 2,
                         .dims = {rows, columns},
                         .data = data,
                         .cap_bytes = bytes};
}

static kiln_status build(kiln_model **out, kiln_diag *diag) {
    float weights[IN * OUT], bias[OUT] = {0.5F, -1, 0, 2};
    for (int i = 0; i < IN * OUT; i++) {
        weights[i] = 0.25F * (float)(i - 5);
    }
    kiln_tensor w = matrix(weights, IN, OUT), b = matrix(bias, 1, OUT);
    kiln_builder *builder;
    kiln_status status = kiln_builder_create(&builder, NULL);
    if (status != KILN_OK) {
        return status;
    }
    const int64_t dims[] = {-1, IN}; /* any number of rows */
    kiln_ref_value gemm[3];
    gemm[0] = kiln_builder_input(builder, "x", KILN_DTYPE_F32, 2, dims, diag);
    gemm[1] = kiln_builder_constant(builder, "w", &w, diag);
    gemm[2] = kiln_builder_constant(builder, "b", &b, diag);
    kiln_ref_value sum = kiln_builder_node(builder, "", "Gemm", gemm, 3, NULL, 0, diag);
    kiln_ref_value y = kiln_builder_node(builder, "", "Relu", &sum, 1, NULL, 0, diag);
    kiln_builder_output(builder, y, "y", diag);
    return kiln_builder_finish(out, builder, diag);
}

static kiln_status run(const kiln_engine *engine, kiln_diag *diag) {
    float rows[ROWS * IN] = {1, 2, 3, -1, 0, 1};
    kiln_tensor x = matrix(rows, ROWS, IN);
    kiln_context *context;
    kiln_status status = kiln_context_create(&context, engine, NULL, diag);
    if (status != KILN_OK) {
        return status;
    }
    status = kiln_context_bind(context, "x", &x, diag);
    if (status == KILN_OK) {
        status = kiln_context_run(context, diag);
    }
    if (status == KILN_OK) {
        const float *y = kiln_context_output(context, 0)->data;
        for (int i = 0; i < ROWS * OUT; i++) {
            printf("%g%c", (double)y[i], i % OUT == OUT - 1 ? '\n' : ' ');
        }
    }
    kiln_context_destroy(context);
    return status;
}

int main(void) {
    kiln_diag *diag = NULL;
    kiln_model *model = NULL;
    kiln_engine *engine = NULL;
    kiln_status status = kiln_diag_create(&diag, NULL);
    if (status == KILN_OK) {
        status = build(&model, diag);
    }
    if (status == KILN_OK) {
        status = kiln_engine_build(&engine, model, NULL, diag);
    }
    kiln_model_destroy(model); /* engines built from it stay valid */
    if (status == KILN_OK) {
        status = run(engine, diag);
    }
    for (size_t i = 0; i < kiln_diag_count(diag); i++) {
        char text[1024];
        kiln_finding_format(kiln_diag_get(diag, i), text, sizeof text);
        fprintf(stderr, "%s\n", text);
    }
    kiln_engine_destroy(engine);
    kiln_diag_destroy(diag);
    return kiln_status_exit_code(status);
}
