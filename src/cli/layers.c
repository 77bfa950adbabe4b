/* layers.c - --layer and --precision: what the user says of single layers. */
#include <errno.h>
#include <string.h>

#include "quant.h"

enum { MAX_RULES_BYTES = 1 << 20 };

/* ---- --layer ---- */

typedef struct parse {
    cli *c;
    kiln_layer_option *layer;
    kiln_calibrate_options *how; /* of the activations */
    bool has_how;
} parse;

static bool wrong(const parse *p, const char *key, const char *takes) {
    usage_error(p->c, NULL, "--layer %s: %s takes %s", p->layer->pattern, key, takes);
    return false;
}

static bool is_share(const char *value, double *out) {
    return parse_number(value, out) && *out > 50 && *out <= 100;
}

static bool set_weight_bits(parse *p, const char *key, const char *value) {
    int64_t bits;
    if (!parse_int(value, &bits) || bits < 2 || bits > 8) {
        return wrong(p, key, "2 to 8");
    }
    p->layer->weight_bits = (int32_t)bits;
    return true;
}

static bool set_weight_calibrator(parse *p, const char *key, const char *value) {
    kiln_calibrator k = kiln_calibrator_parse(value);
    p->layer->weight_calibrator = k;
    return k == KILN_CALIBRATOR_MAX || k == KILN_CALIBRATOR_MSE ||
           k == KILN_CALIBRATOR_PERCENTILE || wrong(p, key, "max, mse or percentile");
}

static bool set_weight_percentile(parse *p, const char *key, const char *value) {
    p->layer->weight_calibrator = KILN_CALIBRATOR_PERCENTILE;
    return is_share(value, &p->layer->weight_percentile) ||
           wrong(p, key, "a number above 50, at most 100");
}

static bool set_per_tensor(parse *p, const char *key, const char *value) {
    p->layer->per_tensor = true;
    return !*value || wrong(p, key, "no value");
}

static bool set_calibrator(parse *p, const char *key, const char *value) {
    p->has_how = true;
    p->how->calibrator = kiln_calibrator_parse(value);
    return p->how->calibrator != KILN_CALIBRATOR_COUNT ||
           wrong(p, key, "auto, max, percentile, entropy or mse");
}

static bool set_percentile(parse *p, const char *key, const char *value) {
    double *share = allocate(sizeof *share);
    p->has_how = true;
    p->how->calibrator = KILN_CALIBRATOR_PERCENTILE;
    p->how->percentiles = share;
    p->how->n_percentiles = 1;
    return is_share(value, share) || wrong(p, key, "a number above 50, at most 100");
}

static bool set_symmetric(parse *p, const char *key, const char *value) {
    p->has_how = p->how->symmetric = true;
    return !*value || wrong(p, key, "no value");
}

static const struct {
    const char *key;
    bool (*set)(parse *p, const char *key, const char *value);
} keys[] = {
    {"weight-bits", set_weight_bits},
    {"weight-calibrator", set_weight_calibrator},
    {"weight-percentile", set_weight_percentile},
    {"per-tensor", set_per_tensor},
    {"calibrator", set_calibrator},
    {"percentile", set_percentile},
    {"symmetric", set_symmetric},
};

static bool set_key(parse *p, const char *word) {
    size_t len = strcspn(word, "=");
    const char *value = word[len] ? word + len + 1 : word + len;
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        if (strlen(keys[i].key) == len && memcmp(keys[i].key, word, len) == 0) {
            return keys[i].set(p, keys[i].key, value);
        }
    }
    usage_error(p->c, "`kiln quantize --help` lists them", "--layer has no key \"%s\"", word);
    return false;
}

/* Keys have no colons, names may. */
static bool parse_layer(cli *c, const char *text, const kiln_calibrate_options *all,
                        kiln_layer_option *out) {
    const char *colon = strrchr(text, ':');
    bool prefixed = strncmp(text, "type:", 5) == 0 || strncmp(text, "name:", 5) == 0;
    if (!prefixed || colon <= text + 5 || !colon[1]) {
        usage_error(c, "for instance --layer 'type:Conv:weight-calibrator=mse'",
                    "--layer \"%s\" is not type:GLOB:KEY or name:GLOB:KEY", text);
        return false;
    }
    parse p = {.c = c, .layer = out, .how = allocate(sizeof *p.how)};
    *p.how = *all;
    out->pattern = keep(text, (size_t)(colon - text));
    for (const char *at = colon + 1; *at;) {
        size_t len = strcspn(at, ",");
        if (len > 0 && !set_key(&p, keep(at, len))) {
            return false;
        }
        at += len + (at[len] ? 1 : 0);
    }
    out->activations = p.has_how ? p.how : NULL;
    return true;
}

int layer_options(cli *c, kiln_quantize_options *out) {
    kiln_layer_option *all = allocate((c->layers.count + 1) * sizeof *all);
    for (size_t i = 0; i < c->layers.count; i++) {
        all[i] = (kiln_layer_option){0};
        if (!parse_layer(c, c->layers.items[i], out->calibrate, &all[i])) {
            return kiln_status_exit_code(KILN_E_USAGE);
        }
    }
    out->layers = all;
    out->n_layers = c->layers.count;
    return 0;
}

/* ---- --precision ---- */

/* The text of a file of rules; NULL after saying why not. */
static const char *read_rules(cli *c, const char *path) {
    FILE *f = fopen(path, "re");
    char *text = allocate(MAX_RULES_BYTES + 1);
    size_t n = f ? fread(text, 1, MAX_RULES_BYTES + 1, f) : 0;
    bool failed = !f || ferror(f);
    const char *why = failed ? strerror(errno) : "no text, or more than 1 MiB";
    if (f) {
        fclose(f);
    }
    if (failed || n > MAX_RULES_BYTES || memchr(text, 0, n)) {
        usage_error(c, NULL, "--precision @%s: %s", path, why);
        return NULL;
    }
    text[n] = 0;
    return text;
}

/* Rules end at line ends too, and comments only there. */
int precision_rules(cli *c, const char **out) {
    const char *text = NULL;
    for (size_t i = 0; i < c->precision.count; i++) {
        const char *item = c->precision.items[i];
        item = item[0] == '@' ? read_rules(c, item + 1) : item;
        if (!item) {
            return kiln_status_exit_code(KILN_E_USAGE);
        }
        text = text ? keepf("%s\n%s", text, item) : item;
    }
    *out = text;
    return 0;
}
