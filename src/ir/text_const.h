/* text_const.h - elements of constants in the text form, shared by dump and parse. */
#ifndef KILN_IR_TEXT_CONST_H
#define KILN_IR_TEXT_CONST_H

#include "ir/text.h"

/* Appends element i; unknown types as raw hexadecimal bytes are not inlined (see kiln_text_shows).
 * */
void kiln_text_element(kiln_text *text, const kiln_tensor *t, int64_t i);
/* Elements of the type can be written and read one by one. */
bool kiln_text_shows(kiln_dtype dtype);
/* Reads element i from a number's characters; false when it is none that fits. */
bool kiln_text_read_element(kiln_tensor *t, int64_t i, const char *src, size_t len);
/* The seed whose sequence the data is, or -1. */
int32_t kiln_text_find_seed(const kiln_tensor *t);

#endif
