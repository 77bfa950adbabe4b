/* reach.h - how far the channels of a value reach: what data has shown, and what it has not.
 *
 * A channel that gets a range of its own is cut off where data to come goes beyond the data seen;
 * among others whose range it shares it has room. Few channels are hit by one sample, but a sample
 * that drives one far drives others far, so that such errors add up where those of rounding cancel.
 * So the greatest values of each channel are kept, one of each row of the data (a row: all that
 * stands at one index of the axes before the channels' axis, such as a sample's plane), and the
 * tail is taken to fall off exponentially behind them, as excesses over a high threshold do:
 *
 *     P(row reaches beyond u + t) = share * exp(-t / beta)
 *     E[(what a limit L cuts off)^2] = share * exp(-(L - u) / beta) * 2 beta^2           L >= u
 *
 * with u the greatest value but m, and beta the mean of how much further those m reach. A channel
 * that was hardly ever seen away from zero is not known: kiln_reach_fill gives it what the others
 * have.
 *
 *     kiln_channels_seen s = {.name = "y", .axis = 1, .n = 64};
 *     KILN_TRY(kiln_channels_init(&s, arena));
 *     for (every tensor) { kiln_channels_see(&s, &tensor); }
 *     for (i < 64) { r[i] = kiln_reach_of(&s, i, 1); }
 *     kiln_reach_fill(r, 64, scratch);
 *     kiln_reach_cut(&r[3], 1, 2.5)          // mean square that a limit of 2.5 cuts off */
#ifndef KILN_QUANT_REACH_H
#define KILN_QUANT_REACH_H

#include "base/arena.h"
#include "kiln/kiln.h"

enum { KILN_REACH_TOP = 16 }; /* greatest values kept, of each channel and side */

/* What was seen of a value along its axis of channels. */
typedef struct kiln_channels_seen {
    const char *name;
    int32_t axis;
    int64_t n;       /* channels times repeat */
    float *lo, *hi;  /* [n], 0 among them */
    float *top;      /* [n, 2, KILN_REACH_TOP] of -x and of x, falling, those of different rows */
    double *squares; /* [n] sums */
    double *live;    /* [n] elements that are not 0 */
    double count;    /* elements a channel */
    double rows;
} kiln_channels_seen;

/* For s->axis and s->n; KILN_E_MEMORY. */
kiln_status kiln_channels_init(kiln_channels_seen *s, kiln_arena *arena);
/* Takes a float32 tensor with that axis; others are passed over. */
void kiln_channels_see(kiln_channels_seen *s, const kiln_tensor *t);

/* One side of a channel: [0] -x, [1] x. */
typedef struct kiln_tail {
    double far;               /* the greatest seen */
    double from, beta, share; /* u, beta and share of the formula; share 0: none */
} kiln_tail;

typedef struct kiln_reach {
    kiln_tail side[2];
    double mean, live; /* of squares; share of elements that are not 0 */
    double inner;      /* elements of a row */
    bool known;
} kiln_reach;

/* Of `repeat` lanes from the first on, taken together. */
kiln_reach kiln_reach_of(const kiln_channels_seen *s, int64_t first, int64_t repeat);
/* Channels that are not known get the median tails of the others. scratch: n numbers. */
void kiln_reach_fill(kiln_reach *r, int64_t n, double *scratch);
/* How far a side is to be covered so that little is cut off. */
double kiln_reach_end(const kiln_reach *r, int32_t side);
/* Mean square of an element that a limit >= 0 cuts off, expected of data to come. */
double kiln_reach_cut(const kiln_reach *r, int32_t side, double limit);

#endif
