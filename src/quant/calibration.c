/* calibration.c - calibrations and range lists in memory. */
#include "quant/calibration.h"

#include <math.h>
#include <string.h>

#include "base/env.h"
#include "quant/calibrators.h"

/* ---- Sorted names ---- */

/* Position of the first of n items, `stride` bytes apart, whose name is not below `name`;
 * name_at reads an item's name. */
typedef const char *(*name_fn)(const void *items, size_t i);

static size_t lower_bound(const void *items, size_t n, name_fn name_at, const char *name) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(name_at(items, mid), name) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static const char *observed_name(const void *items, size_t i) {
    return ((kiln_observed *const *)items)[i]->name;
}

static const char *range_name(const void *items, size_t i) {
    return ((kiln_range *const *)items)[i]->name;
}

/* ---- Calibrations ---- */

kiln_status kiln_calibration_create(kiln_calibration **out, const kiln_env *env) {
    kiln_calibration *c = kiln_env_alloc(env, sizeof *c);
    if (!c) {
        return KILN_E_MEMORY;
    }
    *c = (kiln_calibration){.env = env, .preprocess = ""};
    kiln_arena_init(&c->arena, env);
    *out = c;
    return KILN_OK;
}

void kiln_calibration_destroy(kiln_calibration *calibration) {
    if (calibration) {
        kiln_arena_free(&calibration->arena);
        kiln_env_release(calibration->env, calibration, sizeof *calibration);
    }
}

static void hex_of_hash(char *dst, kiln_hash128 h) {
    uint8_t bytes[16];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(h.high >> (56 - 8 * i));
        bytes[8 + i] = (uint8_t)(h.low >> (56 - 8 * i));
    }
    kiln_hex(dst, bytes, sizeof bytes);
}

void kiln_calibration_get_info(const kiln_calibration *calibration, kiln_calibration_info *out) {
    *out = (kiln_calibration_info){.samples = calibration->samples,
                                   .preprocess = calibration->preprocess,
                                   .tensors = calibration->n_tensors};
    kiln_hex(out->model_hash, calibration->model_hash, sizeof calibration->model_hash);
    hex_of_hash(out->data_hash, calibration->data);
}

static int hex_digit(char c) {
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static bool parse_hash(uint8_t out[16], const char *text) {
    if (strlen(text) != 32) {
        return false;
    }
    for (int i = 0; i < 16; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

kiln_status kiln_calibration_describe(kiln_calibration *calibration, const char *model_hash,
                                      const char *preprocess, kiln_diag *diag) {
    uint8_t hash[16] = {0};
    if (model_hash && !parse_hash(hash, model_hash)) {
        return kiln_fail(diag, KILN_F_OPTION, "a model hash is 32 hexadecimal digits");
    }
    const char *text = preprocess ? preprocess : "";
    size_t len = strlen(text);
    if (len > KILN_CALIBRATION_MAX_TEXT) {
        return kiln_fail(diag, KILN_F_OPTION, "the preprocessing takes %zu bytes, %d are allowed",
                         len, KILN_CALIBRATION_MAX_TEXT);
    }
    const char *copy = kiln_arena_text(&calibration->arena, text, len);
    if (!copy) {
        return KILN_E_MEMORY;
    }
    calibration->preprocess = copy;
    memcpy(calibration->model_hash, hash, sizeof hash);
    return KILN_OK;
}

static kiln_hash128 add_hash(kiln_hash128 a, kiln_hash128 b) {
    kiln_hash128 sum = {.low = a.low + b.low, .high = a.high + b.high};
    sum.high += sum.low < a.low ? 1 : 0;
    return sum;
}

void kiln_calibration_count_sample(kiln_calibration *calibration, const void *data, size_t bytes) {
    calibration->data = add_hash(calibration->data, kiln_hash_128(data, bytes));
    calibration->samples++;
}

kiln_status kiln_calibration_observer(kiln_calibration *c, const char *name, kiln_observer **out,
                                      kiln_diag *diag) {
    size_t at = lower_bound(c->tensors, c->n_tensors, observed_name, name);
    if (at < c->n_tensors && strcmp(c->tensors[at]->name, name) == 0) {
        *out = &c->tensors[at]->seen;
        return KILN_OK;
    }
    size_t len = strlen(name);
    if (c->n_tensors == KILN_CALIBRATION_MAX_TENSORS || len > kiln_env_limits(c->env)->name_bytes) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT, "more than %d tensors, or a name of %zu bytes",
                         KILN_CALIBRATION_MAX_TENSORS, len);
    }
    kiln_observed *item;
    KILN_ALLOC(item, &c->arena, 1);
    item->name = kiln_arena_text(&c->arena, name, len);
    if (!item->name) {
        return KILN_E_MEMORY;
    }
    kiln_observer_init(&item->seen);
    KILN_PUSH(&c->arena, c->tensors, c->n_tensors, c->cap_tensors, item);
    memmove(&c->tensors[at + 1], &c->tensors[at], (c->n_tensors - 1 - at) * sizeof *c->tensors);
    c->tensors[at] = item;
    *out = &item->seen;
    return KILN_OK;
}

const kiln_observer *kiln_calibration_find(const kiln_calibration *c, const char *name) {
    size_t at = lower_bound(c->tensors, c->n_tensors, observed_name, name);
    bool found = at < c->n_tensors && strcmp(c->tensors[at]->name, name) == 0;
    return found ? &c->tensors[at]->seen : NULL;
}

kiln_status kiln_calibration_observe(kiln_calibration *calibration, const char *name,
                                     const kiln_tensor *tensor, kiln_diag *diag) {
    kiln_observer *o;
    KILN_TRY(kiln_calibration_observer(calibration, name, &o, diag));
    return kiln_observer_add(o, tensor, &calibration->arena, diag);
}

kiln_status kiln_calibration_merge(kiln_calibration *calibration, const kiln_calibration *from,
                                   kiln_diag *diag) {
    kiln_calibration *c = calibration;
    const uint8_t unsaid[16] = {0};
    bool said = memcmp(c->model_hash, unsaid, 16) != 0, says = memcmp(from->model_hash, unsaid, 16);
    if (said && says && memcmp(c->model_hash, from->model_hash, 16) != 0) {
        return kiln_fail(diag, KILN_F_CALIBRATION, "the calibrations are of different models");
    }
    if (c->n_tensors > 0 && from->n_tensors > 0 && strcmp(c->preprocess, from->preprocess) != 0) {
        return kiln_fail(diag, KILN_F_CALIBRATION,
                         "the samples were preprocessed by \"%s\" and by \"%s\"", c->preprocess,
                         from->preprocess);
    }
    if (c->n_tensors == 0) {
        char hex[33];
        kiln_hex(hex, from->model_hash, sizeof from->model_hash);
        KILN_TRY(kiln_calibration_describe(c, hex, from->preprocess, diag));
    } else if (says && !said) {
        memcpy(c->model_hash, from->model_hash, sizeof c->model_hash);
    }
    for (size_t i = 0; i < from->n_tensors; i++) {
        kiln_observer *o;
        KILN_TRY(kiln_calibration_observer(c, from->tensors[i]->name, &o, diag));
        KILN_TRY(kiln_observer_merge(o, &from->tensors[i]->seen, &c->arena, diag));
    }
    c->samples += from->samples;
    c->data = add_hash(c->data, from->data);
    return KILN_OK;
}

bool kiln_calibration_get(const kiln_calibration *calibration, size_t i, kiln_seen *out) {
    if (i >= calibration->n_tensors) {
        return false;
    }
    const kiln_observer *o = &calibration->tensors[i]->seen;
    *out = (kiln_seen){
        .name = calibration->tensors[i]->name,
        .count = o->count,
        .zeros = o->zeros,
        .nans = o->nans,
        .infs = o->infs,
        .min = o->count ? (double)o->min : 0,
        .max = o->count ? (double)o->max : 0,
        .histogram_bytes = o->bins[0] ? 2 * KILN_BINS * sizeof *o->bins[0] : 0,
    };
    return true;
}

kiln_status kiln_calibration_candidates(const kiln_calibration *calibration, const char *name,
                                        const kiln_calibrate_options *options, kiln_range *out,
                                        size_t cap, size_t *n, kiln_diag *diag) {
    kiln_calibrate_plan plan;
    kiln_range all[KILN_MAX_CANDIDATES];
    kiln_arena scratch;
    kiln_spread spread;
    KILN_TRY(kiln_calibrate_plan_of(&plan, options, diag));
    size_t at = lower_bound(calibration->tensors, calibration->n_tensors, observed_name, name);
    if (at == calibration->n_tensors || strcmp(calibration->tensors[at]->name, name) != 0) {
        return kiln_fail(diag, KILN_F_CALIBRATION, "the calibration has no tensor \"%s\"", name);
    }
    kiln_arena_init(&scratch, calibration->env);
    kiln_status status = kiln_spread_init(&spread, &calibration->tensors[at]->seen, &scratch);
    if (status == KILN_OK) {
        *n = kiln_find_ranges(&spread, &plan, all);
        for (size_t i = 0; i < *n && i < cap; i++) {
            out[i] = all[i];
            out[i].name = calibration->tensors[at]->name;
        }
    }
    kiln_arena_free(&scratch);
    return status;
}

kiln_status kiln_calibration_range(const kiln_calibration *calibration, const char *name,
                                   const kiln_calibrate_options *options, kiln_range *out,
                                   kiln_diag *diag) {
    size_t n;
    return kiln_calibration_candidates(calibration, name, options, out, 1, &n, diag);
}

/* ---- Range lists ---- */

kiln_status kiln_ranges_create(kiln_ranges **out, const kiln_env *env) {
    kiln_ranges *r = kiln_env_alloc(env, sizeof *r);
    if (!r) {
        return KILN_E_MEMORY;
    }
    *r = (kiln_ranges){.env = env};
    kiln_arena_init(&r->arena, env);
    *out = r;
    return KILN_OK;
}

void kiln_ranges_destroy(kiln_ranges *ranges) {
    if (ranges) {
        kiln_arena_free(&ranges->arena);
        kiln_env_release(ranges->env, ranges, sizeof *ranges);
    }
}

const kiln_range *kiln_ranges_get(const kiln_ranges *ranges, size_t i) {
    return i < ranges->count ? ranges->items[i] : NULL;
}

static kiln_range *find_range(const kiln_ranges *r, const char *name, size_t *at) {
    *at = lower_bound(r->items, r->count, range_name, name);
    bool found = *at < r->count && strcmp(r->items[*at]->name, name) == 0;
    return found ? r->items[*at] : NULL;
}

const kiln_range *kiln_ranges_find(const kiln_ranges *ranges, const char *name) {
    size_t at;
    return find_range(ranges, name, &at);
}

/* A new item of that name at `at`. */
static kiln_status insert_range(kiln_ranges *r, const char *name, size_t at, kiln_diag *diag,
                                kiln_range **out) {
    size_t len = strlen(name);
    if (r->count == KILN_CALIBRATION_MAX_TENSORS || len > kiln_env_limits(r->env)->name_bytes) {
        return kiln_fail(diag, KILN_F_DATA_LIMIT, "more than %d ranges, or a name of %zu bytes",
                         KILN_CALIBRATION_MAX_TENSORS, len);
    }
    KILN_ALLOC(*out, &r->arena, 1);
    (*out)->name = kiln_arena_text(&r->arena, name, len);
    if (!(*out)->name) {
        return KILN_E_MEMORY;
    }
    KILN_PUSH(&r->arena, r->items, r->count, r->cap, *out);
    memmove(&r->items[at + 1], &r->items[at], (r->count - 1 - at) * sizeof(kiln_range *));
    r->items[at] = *out;
    return KILN_OK;
}

kiln_status kiln_ranges_set(kiln_ranges *ranges, const kiln_range *range, kiln_diag *diag) {
    size_t at;
    if (!range->name || !isfinite(range->lo) || !isfinite(range->hi) || range->lo > range->hi) {
        return kiln_fail(diag, KILN_F_CALIBRATION, "[%g, %g] is no range of a tensor", range->lo,
                         range->hi);
    }
    kiln_range *item = find_range(ranges, range->name, &at);
    if (!item) {
        KILN_TRY(insert_range(ranges, range->name, at, diag, &item));
    }
    const char *name = item->name;
    *item = *range;
    item->name = name;
    item->lo = range->lo < 0 ? range->lo : 0;
    item->hi = range->hi > 0 ? range->hi : 0;
    return KILN_OK;
}

kiln_status kiln_ranges_calibrate(kiln_ranges *ranges, const kiln_calibration *calibration,
                                  const kiln_calibrate_options *options, kiln_diag *diag) {
    for (size_t i = 0; i < calibration->n_tensors; i++) {
        kiln_range r;
        const char *name = calibration->tensors[i]->name;
        KILN_TRY(kiln_calibration_range(calibration, name, options, &r, diag));
        KILN_TRY(kiln_ranges_set(ranges, &r, diag));
    }
    return KILN_OK;
}
