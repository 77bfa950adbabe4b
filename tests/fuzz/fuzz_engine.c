/* An engine file whose hashes an attacker has made right: load and run, under tight limits. */
#include "engine/forge.h"
#include "fuzz/fuzz_common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kiln_env *env = fuzz_env();
    void *bytes = NULL;
    if (env && posix_memalign(&bytes, 64, size ? size : 1) == 0) {
        kiln_engine *engine;
        kiln_diag *diag = NULL;
        memcpy(bytes, data, size);
        if (size >= FORGE_FRONT) {
            forge_put((uint8_t *)bytes + FORGE_LENGTH_AT, size);
        }
        forge_hashes(bytes, size);
        if (kiln_diag_create(&diag, env) == KILN_OK &&
            kiln_engine_load_memory(&engine, env, bytes, size, NULL, diag) == KILN_OK) {
            fuzz_run(engine);
            kiln_engine_destroy(engine);
        }
        kiln_diag_destroy(diag);
    }
    free(bytes);
    kiln_env_destroy(env);
    return 0;
}
