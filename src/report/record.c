#include "report/record.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "kiln/tools.h"

static const struct {
    const char *schema;
    kiln_status (*draw)(const kiln_record *r, kiln_text *svg);
} pictures[] = {{"kiln.search/1", kiln_draw_search}, {"kiln.eval-sizes/1", kiln_draw_sizes}};

double kiln_record_number(const json_t *of, const char *key) {
    const json_t *x = json_object_get(of, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

const char *kiln_record_text(const json_t *of, const char *key) {
    const char *s = json_string_value(json_object_get(of, key));
    return s ? s : "";
}

kiln_status kiln_record_list(const kiln_record *r, const char *key, const json_t **out) {
    size_t n = json_array_size(json_object_get(r->root, key));
    *out = json_object_get(r->root, key);
    return n > 0 && n <= KILN_RECORD_ITEMS
               ? KILN_OK
               : kiln_fail(r->diag, KILN_F_DATA_FORMAT, "the record has no list \"%s\" of 1 to %d",
                           key, KILN_RECORD_ITEMS);
}

static kiln_status draw(const kiln_record *r, kiln_text *svg) {
    const char *schema = kiln_record_text(r->root, "schema");
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) {
        if (strcmp(pictures[i].schema, schema) == 0) {
            KILN_TRY(pictures[i].draw(r, svg));
            return kiln_text_ok(svg) ? KILN_OK : KILN_E_MEMORY;
        }
    }
    return kiln_fail(r->diag, KILN_F_DATA_FORMAT, "there is no picture of records \"%s\"", schema);
}

kiln_status kiln_report_plot(const kiln_env *env, const char *json, size_t len, const char *path,
                             kiln_diag *diag) {
    kiln_arena arena;
    kiln_text svg;
    json_t *root = json && path ? json_loadb(json, len, 0, NULL) : NULL;
    if (!root) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT, "the record is no JSON");
    }
    const kiln_record r = {.root = root, .arena = &arena, .diag = diag};
    kiln_arena_init(&arena, env);
    kiln_text_init(&svg, env);
    kiln_status status = draw(&r, &svg);
    status = status ? status : kiln_file_write(path, svg.data, svg.len, diag);
    kiln_text_free(&svg);
    kiln_arena_free(&arena);
    json_decref(root);
    return kiln_diag_close(diag, status);
}
