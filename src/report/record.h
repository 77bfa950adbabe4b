/* record.h - pictures of records: each reads the JSON that a verb wrote, and draws it.
 *
 *     static kiln_status draw(const kiln_record *r, kiln_text *svg);  // listed in record.c
 *     double drop = kiln_record_number(item, "drop_points");  // NaN where there is none
 */
#ifndef KILN_REPORT_RECORD_H
#define KILN_REPORT_RECORD_H

#include <jansson.h>

#include "base/arena.h"
#include "base/diag.h"
#include "report/plot.h"

typedef struct kiln_record {
    const json_t *root;
    kiln_arena *arena;
    kiln_diag *diag;
} kiln_record;

enum { KILN_RECORD_ITEMS = 10000 }; /* of a list, at most */

/* The member's number; NaN when it is none. */
double kiln_record_number(const json_t *of, const char *key);
/* The member's text; "" when it is none. */
const char *kiln_record_text(const json_t *of, const char *key);
/* The list of that name, which has items, into *out. KILN_F_DATA_FORMAT when it is none. */
kiln_status kiln_record_list(const kiln_record *r, const char *key, const json_t **out);

/* "kiln.search/1": cost against loss of each choice tried (pareto.c). */
kiln_status kiln_draw_search(const kiln_record *r, kiln_text *svg);
/* "kiln.eval-sizes/1": the metric by the size of the calibration set (sizes.c). */
kiln_status kiln_draw_sizes(const kiln_record *r, kiln_text *svg);

#endif
