/* open.c - an engine from whichever file it is given. */
#include "base/diag.h"
#include "base/file.h"
#include "base/options.h"
#include "kiln/tools.h"

enum { HEAD_BYTES = 64 };

/* Whether the file begins like an engine. A file that cannot be read is left to the importer, which
 * says so. */
static bool is_engine(const kiln_env *env, const char *path) {
    kiln_file file;
    if (kiln_file_open(&file, env, path, UINT64_MAX, 0, NULL) != KILN_OK) {
        return false;
    }
    bool found =
        kiln_engine_recognize(file.data, file.bytes < HEAD_BYTES ? file.bytes : HEAD_BYTES);
    kiln_file_close(&file);
    return found;
}

static kiln_status build(kiln_engine **out, kiln_model **model, const kiln_env *env,
                         const char *path, const kiln_open_options *o, kiln_diag *diag) {
    kiln_model *m;
    KILN_TRY(kiln_model_load(&m, env, path, o->model, diag));
    kiln_status status = o->tune ? kiln_engine_build_timed(out, m, o->build, o->tune, env, diag)
                                 : kiln_engine_build(out, m, o->build, diag);
    if (status == KILN_OK && model) {
        *model = m;
    } else {
        kiln_model_destroy(m);
    }
    return status;
}

kiln_status kiln_engine_open(kiln_engine **out, kiln_model **model, const kiln_env *env,
                             const char *path, const kiln_open_options *options, kiln_diag *diag) {
    kiln_open_options o;
    if (kiln_options_read(&o, sizeof o, options) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION, "the options have no size, or unknown fields");
    }
    if (!is_engine(env, path)) {
        return build(out, model, env, path, &o, diag);
    }
    if ((o.model && o.model->n_overrides > 0) || (o.build && o.build->n_profile > 0)) {
        return kiln_hint(
            diag, kiln_fail(diag, KILN_F_OPTION, "%s is an engine, whose shapes are fixed", path),
            "build the model again with other shapes");
    }
    if (model) {
        *model = NULL;
    }
    return kiln_engine_load(out, env, path, o.load, diag);
}
