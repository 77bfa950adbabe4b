/* options.h - the public options as placing takes them. */
#ifndef KILN_QUANT_OPTIONS_H
#define KILN_QUANT_OPTIONS_H

#include "quant/place.h"

/* Reads `options` (may be NULL) into *out and *place, whose rules are made in `arena`; the rest
 * stays borrowed. KILN_F_OPTION. */
kiln_status kiln_quantize_options_read(kiln_quantize_options *out, kiln_place_options *place,
                                       const kiln_quantize_options *options, kiln_arena *arena,
                                       kiln_diag *diag);

/* A range for every value that placing needs: from `given`, else from `calibration` (both may be
 * NULL). Values found in neither are left out. Errors: KILN_F_CALIBRATION where nothing of `given`
 * is needed, MEMORY. */
kiln_status kiln_ranges_needed(kiln_ranges *out, const kiln_needed *needed, size_t n,
                               const kiln_ranges *given, const kiln_calibration *calibration,
                               const kiln_quantize_options *options, kiln_diag *diag);

#endif
