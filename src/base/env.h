/* env.h - the environment: allocator, logger and limits of everything made with it.
 *
 * Internal code takes `const kiln_env *env`, where NULL is the default environment. This is the one
 * file that reaches malloc. */
#ifndef KILN_BASE_ENV_H
#define KILN_BASE_ENV_H

#include "base/compiler.h"

/* `bytes` bytes aligned to 64, not zeroed, or NULL. kiln_env_release needs the same size. */
void *kiln_env_alloc(const kiln_env *env, size_t bytes);
void kiln_env_release(const kiln_env *env, void *ptr, size_t bytes);

/* The limits with every default filled in. Never NULL. */
const kiln_limits *kiln_env_limits(const kiln_env *env);

bool kiln_env_logs(const kiln_env *env, kiln_log_level level);
void kiln_env_log(const kiln_env *env, kiln_log_level level, const char *fmt, ...)
    KILN_PRINTF(3, 4);

#endif
