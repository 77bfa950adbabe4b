/* sniff.h - what a file is that is given for a model and is none. */
#ifndef KILN_ONNX_SNIFF_H
#define KILN_ONNX_SNIFF_H

#include "base/diag.h"

/* Fails with E0105 and a hint when the bytes are those of another well-known kind of file, or text;
 * KILN_OK when they may be a model. */
kiln_status kiln_sniff(const void *bytes, size_t len, kiln_diag *diag);

#endif
