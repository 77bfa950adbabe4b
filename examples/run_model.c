/* run_model.c - the shortest useful program: load a model, build it, run it on a file, print the
 * result.
 *
 *     run_model examples/digits/digits.onnx [input.npy]
 *
 * Without a file the input is generated. Everything that can fail returns a status, and what went
 * wrong stands in the diag. */
#include <stdio.h>

#include "kiln/kiln.h"
#include "kiln/tools.h"

/* Prints what the library found. */
static int fail(const kiln_diag *diag, kiln_status status) {
    char text[4096];
    for (size_t i = 0; i < kiln_diag_count(diag); i++) {
        kiln_finding_format(kiln_diag_get(diag, i), text, sizeof text);
        fprintf(stderr, "%s\n", text);
    }
    return kiln_status_exit_code(status);
}

/* The first input from a file, or made up. */
static kiln_status fill_input(kiln_tensors *inputs, const kiln_engine *engine, const char *path,
                              kiln_diag *diag) {
    kiln_io io;
    if (!kiln_engine_input(engine, 0, &io)) {
        return KILN_E_USAGE;
    }
    if (!path) {
        return kiln_tensors_generate(inputs, &io, NULL, diag);
    }
    kiln_read_options options = {.size = sizeof options, .name = io.name, .like = &io};
    return kiln_tensors_read(inputs, path, &options, diag);
}

/* The index of the largest element of each row. */
static void print_classes(const kiln_tensor *y) {
    if (y->dtype != KILN_DTYPE_F32 || y->rank < 1) {
        return;
    }
    const float *values = y->data;
    int64_t width = y->dims[y->rank - 1], count = kiln_tensor_count(y);
    for (int64_t row = 0; width > 0 && row < count / width; row++) {
        int64_t best = 0;
        for (int64_t i = 1; i < width; i++) {
            best = values[row * width + i] > values[row * width + best] ? i : best;
        }
        printf("row %lld: class %lld, score %g\n", (long long)row, (long long)best,
               (double)values[row * width + best]);
    }
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: run_model MODEL|ENGINE [INPUT]\n");
        return 2;
    }
    kiln_diag *diag = NULL;
    kiln_engine *engine = NULL;
    kiln_context *context = NULL;
    kiln_tensors *inputs = NULL;
    kiln_status status = kiln_diag_create(&diag, NULL);
    if (status == KILN_OK) {
        status = kiln_engine_open(&engine, NULL, NULL, argv[1], NULL, diag);
    }
    if (status == KILN_OK) {
        status = kiln_tensors_create(&inputs, NULL);
    }
    if (status == KILN_OK) {
        status = fill_input(inputs, engine, argc > 2 ? argv[2] : NULL, diag);
    }
    if (status == KILN_OK) {
        status = kiln_context_create(&context, engine, NULL, diag);
    }
    if (status == KILN_OK) {
        status = kiln_tensors_bind(inputs, engine, context, diag);
    }
    if (status == KILN_OK) {
        status = kiln_context_run(context, diag);
    }
    if (status == KILN_OK) {
        print_classes(kiln_context_output(context, 0));
    }
    int code = status == KILN_OK ? 0 : fail(diag, status);
    kiln_context_destroy(context);
    kiln_tensors_destroy(inputs);
    kiln_engine_destroy(engine);
    kiln_diag_destroy(diag);
    return code;
}
