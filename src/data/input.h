/* input.h - opening a data file: mapped whole, findings carry its name until it is closed. */
#ifndef KILN_DATA_INPUT_H
#define KILN_DATA_INPUT_H

#include "base/diag.h"
#include "base/env.h"
#include "base/file.h"

/* Any regular file up to the external_bytes limit. */
static inline kiln_status kiln_input_open(kiln_file *out, const char *path, const kiln_env *env,
                                          kiln_diag *diag) {
    uint64_t most = kiln_env_limits(env)->external_bytes;
    KILN_TRY(kiln_file_open(out, env, path, most, 0, diag));
    kiln_diag_at_file(diag, path);
    return KILN_OK;
}

/* Returns `status`, so that it can end a function. */
static inline kiln_status kiln_input_close(kiln_file *file, kiln_status status, kiln_diag *diag) {
    kiln_file_close(file);
    kiln_diag_at_file(diag, NULL);
    return status;
}

#endif
