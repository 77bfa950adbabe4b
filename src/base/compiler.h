/* compiler.h - the one place for compiler extensions outside kernel files. */
#ifndef KILN_BASE_COMPILER_H
#define KILN_BASE_COMPILER_H

#include "kiln/kiln.h"

#define KILN_PRINTF(fmt_arg, first_arg) __attribute__((format(printf, fmt_arg, first_arg)))
#define KILN_UNUSED __attribute__((unused))
#define KILN_MUST_USE __attribute__((warn_unused_result))
#define KILN_ALIGNED(n) __attribute__((aligned(n)))
#define KILN_LIKELY(x) __builtin_expect(!!(x), 1)
#define KILN_UNLIKELY(x) __builtin_expect(!!(x), 0)

#define KILN_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Returns from the calling function when expr is not KILN_OK. */
#define KILN_TRY(expr)                               \
    do {                                             \
        kiln_status try_status_ = (expr);            \
        if (KILN_UNLIKELY(try_status_ != KILN_OK)) { \
            return try_status_;                      \
        }                                            \
    } while (0)

#endif
