/* An ONNX file all the way: import, build, save, run, under tight limits. */
#include "fuzz/fuzz_common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kiln_env *env = fuzz_env();
    kiln_diag *diag = NULL;
    kiln_model *model;
    kiln_engine *engine;
    void *bytes;
    size_t len;
    if (env && kiln_diag_create(&diag, env) == KILN_OK &&
        kiln_model_load_memory(&model, env, data, size, NULL, diag) == KILN_OK) {
        if (kiln_engine_build(&engine, model, NULL, diag) == KILN_OK) {
            if (kiln_engine_save_memory(engine, &bytes, &len, diag) == KILN_OK) {
                kiln_free(env, bytes, len);
            }
            fuzz_run(engine);
            kiln_engine_destroy(engine);
        }
        kiln_model_destroy(model);
    }
    kiln_diag_destroy(diag);
    kiln_env_destroy(env);
    return 0;
}
