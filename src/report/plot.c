#include "report/plot.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 720, HEIGHT = 440, LEFT = 70, RIGHT = 20, TOP = 40, BOTTOM = 50, TICKS = 6 };

/* ---- Axes ---- */

/* About TICKS steps of 1, 2 or 5 times a power of ten that cover lo to hi. */
static kiln_axis axis_of(double lo, double hi) {
    double span = hi - lo > 1e-12 * (fabs(lo) + fabs(hi)) ? hi - lo : fabs(hi) + 1;
    double raw = span / TICKS, power = pow(10, floor(log10(raw))), part = raw / power;
    kiln_axis a = {.step = power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10)};
    a.lo = floor(lo / a.step) * a.step;
    a.hi = ceil(hi / a.step) * a.step;
    a.hi = a.hi > a.lo ? a.hi : a.lo + a.step;
    return a;
}

/* The powers of two around lo to hi, as their exponents. */
static kiln_axis doublings_of(double lo, double hi) {
    kiln_axis a = {.lo = floor(log2(lo)), .hi = ceil(log2(hi)), .step = 1};
    a.hi = a.hi > a.lo ? a.hi : a.lo + 1;
    return a;
}

static double at_x(const kiln_plot *p, double x) {
    x = p->log_x ? log2(x) : x;
    return LEFT + (x - p->axis[0].lo) / (p->axis[0].hi - p->axis[0].lo) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const kiln_plot *p, double y) {
    return HEIGHT - BOTTOM -
           (y - p->axis[1].lo) / (p->axis[1].hi - p->axis[1].lo) * (HEIGHT - TOP - BOTTOM);
}

/* ---- Text ---- */

static void escape(kiln_text *t, const char *text) {
    static const struct {
        char c;
        const char *as;
    } special[] = {{'<', "&lt;"}, {'>', "&gt;"}, {'&', "&amp;"}, {'"', "&quot;"}};
    for (; *text; text++) {
        const char *as = NULL;
        for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
            as = special[i].c == *text ? special[i].as : as;
        }
        if (as) {
            kiln_text_puts(t, as);
        } else if ((unsigned char)*text >= ' ') {
            kiln_text_char(t, *text);
        }
    }
}

static void caption(kiln_plot *p, double x, double y, const char *attributes, const char *text) {
    kiln_text_printf(p->text, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
    escape(p->text, text);
    kiln_text_puts(p->text, "</text>\n");
}

/* A number short of what its step cannot show. */
static void tick_text(char out[32], double x, double step) {
    int digits = step < 1 ? (int)ceil(-log10(step) - 1e-9) : 0;
    kiln_text t;
    kiln_text_init_fixed(&t, out, 32);
    kiln_text_printf(&t, "%.*f", digits, fabs(x) < 1e-9 * step ? 0 : x);
}

static void segment(kiln_plot *p, double x0, double y0, double x1, double y1, const char *color) {
    kiln_text_printf(p->text,
                     "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x0,
                     y0, x1, y1, color);
}

static void draw_axis(kiln_plot *p, int which) {
    const kiln_axis *a = &p->axis[which];
    int n = (int)((a->hi - a->lo) / a->step + 0.5);
    bool log = which == 0 && p->log_x;
    for (int i = 0; i <= n; i++) {
        double v = log ? exp2(a->lo + i * a->step) : a->lo + i * a->step;
        char text[32];
        tick_text(text, v, log ? 1 : a->step);
        if (which == 0) {
            segment(p, at_x(p, v), TOP, at_x(p, v), HEIGHT - BOTTOM, "#e4e4e4");
            caption(p, at_x(p, v), HEIGHT - BOTTOM + 18, "text-anchor=\"middle\"", text);
        } else {
            segment(p, LEFT, at_y(p, v), WIDTH - RIGHT, at_y(p, v), "#e4e4e4");
            caption(p, LEFT - 8, at_y(p, v) + 4, "text-anchor=\"end\"", text);
        }
    }
}

/* ---- Verbs ---- */

void kiln_plot_begin(kiln_plot *plot, kiln_text *text, double x_lo, double x_hi, double y_lo,
                     double y_hi) {
    plot->text = text;
    plot->axis[0] = plot->log_x ? doublings_of(x_lo, x_hi) : axis_of(x_lo, x_hi);
    plot->axis[1] = axis_of(y_lo, y_hi);
    kiln_text_printf(text,
                     "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                     "font-family=\"sans-serif\" font-size=\"12\">\n"
                     "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
                     WIDTH, HEIGHT);
    draw_axis(plot, 0);
    draw_axis(plot, 1);
    segment(plot, LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "#444");
    segment(plot, LEFT, TOP, LEFT, HEIGHT - BOTTOM, "#444");
    caption(plot, LEFT, TOP - 16, "font-size=\"15\"", plot->title);
    caption(plot, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 12, "text-anchor=\"middle\"", plot->x);
    caption(plot, 0, 0, "text-anchor=\"middle\" transform=\"translate(16 220) rotate(-90)\"",
            plot->y);
}

void kiln_plot_line(kiln_plot *plot, const double *x, const double *y, size_t n,
                    const char *color) {
    kiln_text_printf(plot->text, "<polyline fill=\"none\" stroke=\"%s\" points=\"", color);
    for (size_t i = 0; i < n; i++) {
        if (isfinite(x[i]) && isfinite(y[i])) {
            kiln_text_printf(plot->text, "%.1f,%.1f ", at_x(plot, x[i]), at_y(plot, y[i]));
        }
    }
    kiln_text_puts(plot->text, "\"/>\n");
}

void kiln_plot_point(kiln_plot *plot, double x, double y, const char *color, double radius,
                     const char *tooltip) {
    if (!isfinite(x) || !isfinite(y)) {
        return;
    }
    kiln_text_printf(plot->text, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"%s\"><title>",
                     at_x(plot, x), at_y(plot, y), radius, color);
    escape(plot->text, tooltip);
    kiln_text_puts(plot->text, "</title></circle>\n");
}

void kiln_plot_end(kiln_plot *plot) {
    kiln_text_puts(plot->text, "</svg>\n");
}
