/* plot.h - an SVG picture of points over two axes, as text.
 *
 *     kiln_plot p = {.title = "mobilenet_v2", .x = "time, % of float", .y = "loss, points"};
 *     kiln_plot_begin(&p, &text, x_lo, x_hi, y_lo, y_hi);
 *     kiln_plot_line(&p, xs, ys, n, "#888");
 *     kiln_plot_point(&p, x, y, "#1f77b4", 4, "12 layers in int8");     // the text is a tooltip
 *     kiln_plot_end(&p);
 *
 * Axes run over round numbers around the bounds given. Numbers that are not finite are left out. */
#ifndef KILN_REPORT_PLOT_H
#define KILN_REPORT_PLOT_H

#include "base/text.h"

typedef struct kiln_axis {
    double lo, hi, step;
} kiln_axis;

typedef struct kiln_plot {
    const char *title, *x, *y; /* captions */
    bool log_x;                /* a doubling of x > 0 is a step: set before beginning */
    kiln_text *text;
    kiln_axis axis[2];
} kiln_plot;

void kiln_plot_begin(kiln_plot *plot, kiln_text *text, double x_lo, double x_hi, double y_lo,
                     double y_hi);
void kiln_plot_line(kiln_plot *plot, const double *x, const double *y, size_t n, const char *color);
void kiln_plot_point(kiln_plot *plot, double x, double y, const char *color, double radius,
                     const char *tooltip);
void kiln_plot_end(kiln_plot *plot);

#endif
