/* The default limits that depend on the machine are measured once a process, like the CPU's
 * features, because NULL environments have no place of their own to keep them. */
#define _GNU_SOURCE 1

#include "base/env.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/host.h"
#include "base/options.h"
#include "base/text.h"

enum { ALIGN = 64, MAX_LINE = 1024, HUGE_PAGE = 2 << 20, HUGE_BLOCK = 2 * HUGE_PAGE };

struct kiln_env {
    kiln_allocator allocator; /* alloc NULL: malloc */
    kiln_logger logger;       /* line NULL: none */
    kiln_limits limits;
};

/* aligned_alloc wants a multiple of the alignment. Large blocks (weights, activations) lie in huge
 * pages where the system gives them, which spares misses of the TLB. */
static void *system_alloc(size_t bytes) {
    size_t rounded;
    const bool huge = bytes >= HUGE_BLOCK;
    const size_t align = huge ? HUGE_PAGE : ALIGN;
    if (!kiln_align_size(bytes ? bytes : 1, align, &rounded)) {
        return NULL;
    }
    void *block = aligned_alloc(align, rounded);
#if defined(MADV_HUGEPAGE)
    if (block && huge) {
        /* Not what was rounded up: it is never touched, and stays without memory. */
        madvise(block, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    }
#endif
    return block;
}

void *kiln_env_alloc(const kiln_env *env, size_t bytes) {
    if (env && env->allocator.alloc) {
        return env->allocator.alloc(env->allocator.user, bytes);
    }
    return system_alloc(bytes);
}

void kiln_env_release(const kiln_env *env, void *ptr, size_t bytes) {
    if (!ptr) {
        return;
    }
    if (env && env->allocator.alloc) {
        env->allocator.release(env->allocator.user, ptr, bytes);
    } else {
        free(ptr);
    }
}

static pthread_once_t defaults_once = PTHREAD_ONCE_INIT;
static kiln_limits defaults;

static void measure_defaults(void) {
    uint64_t most = kiln_host_memory_bytes() / 5 * 4;
    defaults = (kiln_limits){
        .size = sizeof defaults,
        .model_bytes = (uint64_t)2 << 30,
        .external_bytes = (uint64_t)1 << 40,
        .tensor_bytes = most,
        .fold_bytes = 64 << 20,
        .memory_bytes = most,
        .nodes = 2000000,
        .nested_graphs = 16,
        .message_depth = 64,
        .functions = 10000,
        .call_depth = 100,
        .attributes = 256,
        .attribute_items = 16 << 20,
        .name_bytes = 64 << 10,
        .loop_trips = 10000000,
        .image_mpixels = 64,
    };
}

const kiln_limits *kiln_env_limits(const kiln_env *env) {
    if (env) {
        return &env->limits;
    }
    pthread_once(&defaults_once, measure_defaults);
    return &defaults;
}

/* Zero fields take the default. */
static void fill_limits(kiln_limits *limits) {
    const kiln_limits *d = kiln_env_limits(NULL);
#define FILL(field) limits->field = limits->field ? limits->field : d->field
    FILL(model_bytes);
    FILL(external_bytes);
    FILL(tensor_bytes);
    FILL(fold_bytes);
    FILL(memory_bytes);
    FILL(nodes);
    FILL(nested_graphs);
    FILL(message_depth);
    FILL(functions);
    FILL(call_depth);
    FILL(attributes);
    FILL(attribute_items);
    FILL(name_bytes);
    FILL(loop_trips);
    FILL(image_mpixels);
#undef FILL
}

kiln_status kiln_env_create(kiln_env **out, const kiln_env_options *options) {
    kiln_env_options given;
    kiln_env made = {0};
    KILN_TRY(kiln_options_read(&given, sizeof given, options));
    KILN_TRY(kiln_options_read(&made.limits, sizeof made.limits, given.limits));
    fill_limits(&made.limits);
    if (given.allocator) {
        made.allocator = *given.allocator;
        if (!made.allocator.alloc || !made.allocator.release) {
            return KILN_E_USAGE;
        }
    }
    if (given.logger) {
        made.logger = *given.logger;
    }
    kiln_env *env = kiln_env_alloc(&made, sizeof *env);
    if (!env) {
        return KILN_E_MEMORY;
    }
    *env = made;
    *out = env;
    return KILN_OK;
}

void kiln_env_destroy(kiln_env *env) {
    if (env) {
        kiln_env parting = *env;
        kiln_env_release(&parting, env, sizeof *env);
    }
}

bool kiln_env_logs(const kiln_env *env, kiln_log_level level) {
    return env && env->logger.line && level <= env->logger.level;
}

void kiln_env_log(const kiln_env *env, kiln_log_level level, const char *fmt, ...) {
    if (!kiln_env_logs(env, level)) {
        return;
    }
    char raw[MAX_LINE], line[2 * MAX_LINE];
    kiln_text text;
    va_list args;
    va_start(args, fmt);
    kiln_text_init_fixed(&text, raw, sizeof raw);
    kiln_text_vprintf(&text, fmt, args);
    va_end(args);
    kiln_text_init_fixed(&text, line, sizeof line);
    kiln_text_escape(&text, raw, strlen(raw), 0);
    env->logger.line(env->logger.user, level, line);
}
