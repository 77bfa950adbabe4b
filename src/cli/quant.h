/* quant.h - what the quantizing verbs share. */
#ifndef KILN_CLI_QUANT_H
#define KILN_CLI_QUANT_H

#include "cli.h"
#include "kiln/quant.h"

/* The options given; `style` is "kiln" (or NULL), "tensorrt" or "onnxruntime". 0 or the exit
 * status. */
int quant_options(cli *c, const char *style, kiln_quantize_options *out);
/* The layers of --layer, whose activations are otherwise found by out->calibrate. 0 or the exit
 * status (layers.c). */
int layer_options(cli *c, kiln_quantize_options *out);
/* The rules of --precision as one text, or NULL without any. 0 or the exit status (layers.c). */
int precision_rules(cli *c, const char **out);
/* Runs --calib: data sets through the model, calibration files merged; writes --save-calib. *out
 * is to be given back also after a failure. */
int quant_calibrate(cli *c, const kiln_model *model, const kiln_build_options *build,
                    const kiln_quantize_options *options, kiln_calibration **out);
/* Calibrates, reads --ranges, quantizes. *calibration and *out are to be given back also after a
 * failure. */
int quant_model(cli *c, const kiln_model *model, const kiln_build_options *build,
                const kiln_quantize_options *options, kiln_calibration **calibration,
                kiln_model **out);
/* Layers with weights, and those of them that are int8. */
void quant_count(const kiln_model *model, size_t *layers, size_t *int8_layers);

#endif
