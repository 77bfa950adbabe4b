/* timer.h - monotonic time in nanoseconds.
 *
 *     int64_t begin_ns = kiln_now_ns();
 *     ...
 *     int64_t took_ns = kiln_now_ns() - begin_ns;
 *
 * The clock has no defined zero, is not set back, and agrees among threads. One reading costs
 * 20-50 ns. */
#ifndef KILN_BASE_TIMER_H
#define KILN_BASE_TIMER_H

#include <stdint.h>

int64_t kiln_now_ns(void);

#endif
