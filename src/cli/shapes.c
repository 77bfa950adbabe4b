/* shapes.c - the options that hold shapes and ranges of shapes. */
#include <string.h>

#include "cli.h"

/* ---- Shapes ---- */

/* "1x3x?x224"; "" and "scalar" have rank 0. */
static bool parse_dims(const char *text, kiln_shape *out) {
    out->rank = 0;
    if (*text == '\0' || strcmp(text, "scalar") == 0) {
        return true;
    }
    for (;;) {
        size_t n = strcspn(text, "xX");
        const char *word = keep(text, n);
        bool open = strcmp(word, "?") == 0 || strcmp(word, "-1") == 0;
        int64_t dim = -1;
        if (out->rank == KILN_MAX_RANK || (!open && (!parse_int(word, &dim) || dim < 0))) {
            return false;
        }
        out->dims[out->rank++] = dim;
        if (text[n] == '\0') {
            return true;
        }
        text += n + 1;
    }
}

/* Returns the dims behind the name, which ends at the last colon, since names hold colons too. */
static const char *split_name(const char *text, const char **name) {
    const char *colon = strrchr(text, ':');
    *name = colon ? keep(text, (size_t)(colon - text)) : "*";
    return colon ? colon + 1 : text;
}

bool parse_shape(cli *c, const char *text, kiln_shape *out) {
    *out = (kiln_shape){0};
    if (parse_dims(split_name(text, &out->name), out)) {
        return true;
    }
    usage_error(c, "shapes are written input:1x3x224x224", "\"%s\" is no shape", text);
    return false;
}

/* One `*` matches any characters. */
static bool matches(const char *pattern, const char *name) {
    const char *star = strchr(pattern, '*');
    if (!star) {
        return strcmp(pattern, name) == 0;
    }
    size_t head = (size_t)(star - pattern), tail = strlen(star + 1), len = strlen(name);
    return len >= head + tail && memcmp(pattern, name, head) == 0 &&
           strcmp(name + len - tail, star + 1) == 0;
}

static bool unknown_input(cli *c, const char *pattern) {
    usage_error(c, "`kiln inspect` lists the inputs", "there is no input \"%s\"", pattern);
    return false;
}

bool expand_shapes(cli *c, const list *texts, const list *names, shapes *out) {
    for (size_t i = 0; i < texts->count; i++) {
        kiln_shape shape;
        bool any = false;
        if (!parse_shape(c, texts->items[i], &shape)) {
            return false;
        }
        const char *pattern = shape.name;
        for (size_t k = 0; k < names->count; k++) {
            if (matches(pattern, names->items[k])) {
                shape.name = names->items[k];
                out->items = grow(out->items, out->count, &out->cap, sizeof *out->items);
                out->items[out->count++] = shape;
                any = true;
            }
        }
        if (!any) {
            return unknown_input(c, pattern);
        }
    }
    return true;
}

/* ---- Ranges ---- */

/* "8", "1..8" (opt is 8) or "1..4..8". */
static bool parse_range_dim(const char *text, kiln_shape_range *out) {
    int64_t v[3];
    size_t n = 0;
    for (const char *p = text;; p += 2) {
        const char *end = strstr(p, "..");
        size_t len = end ? (size_t)(end - p) : strlen(p);
        if (n == COUNT_OF(v) || !parse_int(keep(p, len), &v[n]) || v[n++] < 0) {
            return false;
        }
        p += len;
        if (!end) {
            break;
        }
    }
    out->min[out->rank] = v[0];
    out->opt[out->rank] = n == 3 ? v[1] : v[n - 1];
    out->max[out->rank++] = v[n - 1];
    return true;
}

static bool parse_range_dims(const char *text, kiln_shape_range *out) {
    if (*text == '\0' || strcmp(text, "scalar") == 0) {
        return true;
    }
    for (;; text++) {
        size_t n = strcspn(text, "xX");
        if (out->rank == KILN_MAX_RANK || !parse_range_dim(keep(text, n), out)) {
            return false;
        }
        text += n;
        if (*text == '\0') {
            return true;
        }
    }
}

static void add_range(ranges *out, const kiln_shape_range *r) {
    out->items = grow(out->items, out->count, &out->cap, sizeof *out->items);
    out->items[out->count++] = *r;
}

static bool expand_ranges(cli *c, const list *names, ranges *out) {
    for (size_t i = 0; i < c->dynamic_shapes.count; i++) {
        const char *text = c->dynamic_shapes.items[i], *pattern;
        const char *dims = split_name(text, &pattern);
        kiln_shape_range r = {0};
        bool any = false;
        if (!parse_range_dims(dims, &r)) {
            usage_error(c, "ranges are written input:1..4..8x3x224 (min..opt..max) or input:1..8x3",
                        "\"%s\" is no range of shapes", text);
            return false;
        }
        for (size_t k = 0; k < names->count; k++) {
            if (matches(pattern, names->items[k])) {
                r.name = names->items[k];
                add_range(out, &r);
                any = true;
            }
        }
        if (!any) {
            return unknown_input(c, pattern);
        }
    }
    return true;
}

/* trtexec's --minShapes, --optShapes and --maxShapes. What is not given of an input is taken from
 * the others as trtexec does: min from opt or else max, opt from max or else min, max from opt or
 * else min. */
typedef struct trt_range {
    const kiln_shape *given[3]; /* min, opt, max */
} trt_range;

static const kiln_shape *first_of(const kiln_shape *a, const kiln_shape *b, const kiln_shape *c) {
    return a ? a : b ? b : c;
}

static bool fill_range(cli *c, const trt_range *t, kiln_shape_range *out) {
    const kiln_shape *min = t->given[0], *usual = t->given[1], *max = t->given[2];
    const kiln_shape *three[] = {first_of(min, usual, max), first_of(usual, max, min),
                                 first_of(max, usual, min)};
    int64_t *to[] = {out->min, out->opt, out->max};
    bool right = true;
    out->name = three[0]->name;
    out->rank = three[0]->rank;
    for (size_t k = 0; k < COUNT_OF(three); k++) {
        right = right && three[k]->rank == out->rank;
        for (int32_t d = 0; right && d < out->rank; d++) {
            to[k][d] = three[k]->dims[d];
            right = to[k][d] >= 0;
        }
    }
    if (!right) {
        usage_error(c, NULL,
                    "--minShapes, --optShapes and --maxShapes of \"%s\" need as many dims each, "
                    "and numbers",
                    out->name);
    }
    return right;
}

static bool merge_trtexec(cli *c, const list *names, ranges *out) {
    trt_range *found = allocate((names->count + 1) * sizeof *found);
    for (size_t k = 0; k < COUNT_OF(c->trt_shapes); k++) {
        shapes s = {0};
        if (!expand_shapes(c, &c->trt_shapes[k], names, &s)) {
            return false;
        }
        for (size_t i = 0; i < s.count; i++) {
            for (size_t n = 0; n < names->count; n++) {
                if (strcmp(names->items[n], s.items[i].name) == 0) {
                    found[n].given[k] = &s.items[i];
                    break;
                }
            }
        }
    }
    for (size_t n = 0; n < names->count; n++) {
        kiln_shape_range r = {0};
        if (found[n].given[0] || found[n].given[1] || found[n].given[2]) {
            if (!fill_range(c, &found[n], &r)) {
                return false;
            }
            add_range(out, &r);
        }
    }
    return true;
}

const char *ranges_text(const kiln_io *io) {
    const char *text = "";
    for (int32_t d = 0; d < io->rank; d++) {
        long long min = (long long)io->min[d], usual = (long long)io->opt[d],
                  max = (long long)io->max[d];
        const char *dim =
            min == max ? keepf("%lld", min) : keepf("%lld..%lld..%lld", min, usual, max);
        text = keepf("%s%s%s", text, d ? "x" : "", dim);
    }
    return text;
}

/* ---- All of them ---- */

static void add_name(list *names, const char *name) {
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->items[i], name) == 0) {
            return;
        }
    }
    list_add(names, name);
}

/* The names that shapes are for. Where they can be had without looking into the model they are
 * taken from the texts. */
static int input_names(cli *c, const char *path, const list *const *texts, size_t n, list *out) {
    bool plain = true;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < texts[i]->count; k++) {
            const char *name;
            split_name(texts[i]->items[k], &name);
            plain = plain && !strchr(name, '*');
            add_name(out, name);
        }
    }
    if (plain) {
        return 0;
    }
    kiln_model *model;
    kiln_io io;
    kiln_model_options o = {
        .size = sizeof o, .external_root = c->external_root, .no_mmap = c->no_mmap};
    kiln_status status = kiln_model_load(&model, c->env, path, &o, c->diag);
    if (status != KILN_OK) {
        return finish(c, status);
    }
    *out = (list){0};
    for (size_t i = 0; kiln_model_input(model, i, &io); i++) {
        list_add(out, keep(io.name, strlen(io.name)));
    }
    kiln_model_destroy(model);
    return 0;
}

int shape_options(cli *c, const char *path, shapes *overrides, ranges *profile) {
    const list *const texts[] = {&c->override_shapes, &c->dynamic_shapes, &c->trt_shapes[0],
                                 &c->trt_shapes[1], &c->trt_shapes[2]};
    list names = {0};
    int failed = input_names(c, path, texts, COUNT_OF(texts), &names);
    if (failed != 0) {
        return failed;
    }
    bool right = expand_shapes(c, &c->override_shapes, &names, overrides) &&
                 expand_ranges(c, &names, profile) && merge_trtexec(c, &names, profile);
    return right ? 0 : kiln_status_exit_code(KILN_E_USAGE);
}
