#include "quant/options.h"

#include "base/options.h"
#include "quant/calibration.h"

static bool layer_is_sound(const kiln_layer_option *l) {
    const kiln_calibrate_options *x = l->activations;
    bool known = l->weight_calibrator == KILN_CALIBRATOR_AUTO ||
                 l->weight_calibrator == KILN_CALIBRATOR_MAX ||
                 l->weight_calibrator == KILN_CALIBRATOR_PERCENTILE ||
                 l->weight_calibrator == KILN_CALIBRATOR_MSE;
    bool bits = l->weight_bits == 0 || (l->weight_bits >= 2 && l->weight_bits <= 8);
    bool share =
        l->weight_percentile == 0 || (l->weight_percentile > 50 && l->weight_percentile <= 100);
    return l->pattern && known && bits && share && (!x || x->bits == 0 || x->bits == 8);
}

static kiln_status check_layers(const kiln_quantize_options *o, kiln_diag *diag) {
    for (size_t i = 0; i < o->n_layers; i++) {
        if (!layer_is_sound(&o->layers[i])) {
            return kiln_fail(diag, KILN_F_OPTION,
                             "layer option %zu has no pattern, a calibrator or percentile that "
                             "weights have not, not 2 to 8 bits, or activations of other than 8",
                             i);
        }
    }
    return KILN_OK;
}

kiln_status kiln_quantize_options_read(kiln_quantize_options *out, kiln_place_options *place,
                                       const kiln_quantize_options *options, kiln_arena *arena,
                                       kiln_diag *diag) {
    if (kiln_options_read(out, sizeof *out, options) != KILN_OK ||
        (unsigned)out->style > KILN_QDQ_ONNXRUNTIME || out->keep_first < 0 || out->keep_last < 0) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "the options have no size, unknown fields or impossible values");
    }
    if (out->others != KILN_DTYPE_NONE && out->others != KILN_DTYPE_F32 &&
        out->others != KILN_DTYPE_BF16 && out->others != KILN_DTYPE_F16) {
        return kiln_fail(diag, KILN_F_OPTION,
                         "nodes that are not int8 can be float32, bfloat16 or "
                         "float16, not %s",
                         kiln_dtype_name(out->others));
    }
    if (out->dynamic && out->style == KILN_QDQ_TENSORRT) {
        return kiln_fail(diag, KILN_F_OPTION, "TensorRT does not find scales at run time");
    }
    KILN_TRY(check_layers(out, diag));
    *place = (kiln_place_options){.style = out->style,
                                  .dynamic = out->dynamic,
                                  .keep_first = out->keep_first,
                                  .keep_last = out->keep_last,
                                  .others =
                                      out->others == KILN_DTYPE_F32 ? KILN_DTYPE_NONE : out->others,
                                  .layers = out->layers,
                                  .n_layers = out->n_layers,
                                  .keep = out->keep,
                                  .n_keep = out->n_keep};
    return kiln_rules_parse(&place->rules, out->precision, arena, diag);
}

static kiln_status range_of(kiln_range *out, const kiln_needed *needed,
                            const kiln_calibration *calibration,
                            const kiln_quantize_options *options, kiln_diag *diag) {
    const kiln_calibrate_options *how = needed->how ? needed->how : options->calibrate;
    kiln_calibrate_options o;
    if (kiln_options_read(&o, sizeof o, how) != KILN_OK) {
        return kiln_fail(diag, KILN_F_OPTION, "the calibration options have no size");
    }
    o.symmetric = o.symmetric || options->style == KILN_QDQ_TENSORRT;
    return kiln_calibration_range(calibration, needed->name, &o, out, diag);
}

kiln_status kiln_ranges_needed(kiln_ranges *out, const kiln_needed *needed, size_t n,
                               const kiln_ranges *given, const kiln_calibration *calibration,
                               const kiln_quantize_options *options, kiln_diag *diag) {
    size_t taken = 0;
    for (size_t i = 0; i < n; i++) {
        const kiln_range *r = given ? kiln_ranges_find(given, needed[i].name) : NULL;
        taken += r != NULL;
        const kiln_observer *o =
            calibration ? kiln_calibration_find(calibration, needed[i].name) : NULL;
        kiln_range found;
        if (!r && o && o->count > 0) {
            KILN_TRY(range_of(&found, &needed[i], calibration, options, diag));
            r = &found;
        }
        if (r) {
            KILN_TRY(kiln_ranges_set(out, r, diag));
        }
        if (o && o->nans + o->infs > 0) {
            kiln_warn(diag, KILN_F_CALIBRATION,
                      "\"%s\" was NaN or infinite in %llu of %llu elements", needed[i].name,
                      (unsigned long long)(o->nans + o->infs),
                      (unsigned long long)(o->count + o->nans + o->infs));
        }
    }
    if (given && given->count > 0 && n > 0 && taken == 0) {
        return kiln_fail(diag, KILN_F_CALIBRATION,
                         "none of the %zu ranges given is of a value that is to be quantized: they "
                         "are another network's",
                         given->count);
    }
    return KILN_OK;
}
