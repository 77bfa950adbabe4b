/* threads.c - one engine, many contexts: a server's shape.
 *
 *     threads examples/digits/digits.onnx [CONTEXTS] [RUNS]
 *
 * An engine is immutable and may be shared; a context belongs to one thread at a time. All contexts
 * lease one pool of workers: a run that finds it busy works on its own thread alone, which changes
 * the time and never the bits. The program checks that: every context must have made the same
 * bytes. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kiln/kiln.h"
#include "kiln/tools.h"

enum { MAX_CONTEXTS = 64 };

typedef struct worker {
    pthread_t thread;
    const kiln_engine *engine;
    kiln_pool *pool;
    const kiln_tensors *inputs;
    int runs;
    kiln_status status;
    kiln_tensors *outputs; /* of the last run */
} worker;

/* A context, its runs, and a copy of what it made. A diag belongs to one thread too. */
static void *work(void *arg) {
    worker *w = arg;
    kiln_context *context = NULL;
    kiln_context_options options = {.size = sizeof options, .pool = w->pool};
    w->status = kiln_context_create(&context, w->engine, &options, NULL);
    if (w->status == KILN_OK) {
        w->status = kiln_tensors_bind(w->inputs, w->engine, context, NULL);
    }
    for (int i = 0; i < w->runs && w->status == KILN_OK; i++) {
        w->status = kiln_context_run(context, NULL);
    }
    if (w->status == KILN_OK) {
        w->status = kiln_tensors_create(&w->outputs, NULL);
    }
    if (w->status == KILN_OK) {
        w->status = kiln_tensors_collect(w->outputs, w->engine, context, NULL);
    }
    kiln_context_destroy(context);
    return NULL;
}

static bool same(const kiln_tensors *a, const kiln_tensors *b) {
    for (size_t i = 0; i < kiln_tensors_count(a); i++) {
        const kiln_tensor *x = kiln_tensors_get(a, i, NULL), *y = kiln_tensors_get(b, i, NULL);
        if (!y || kiln_tensor_bytes(x) != kiln_tensor_bytes(y) ||
            memcmp(x->data, y->data, kiln_tensor_bytes(x)) != 0) {
            return false;
        }
    }
    return kiln_tensors_count(a) == kiln_tensors_count(b);
}

static kiln_status generate(kiln_tensors *inputs, const kiln_engine *engine, kiln_diag *diag) {
    kiln_io io;
    for (size_t i = 0; kiln_engine_input(engine, i, &io); i++) {
        kiln_status status = kiln_tensors_generate(inputs, &io, NULL, diag);
        if (status != KILN_OK) {
            return status;
        }
    }
    return KILN_OK;
}

/* Starts the workers, waits for them, compares. */
static kiln_status run_all(worker *workers, int count) {
    kiln_status status = KILN_OK;
    int started = 0;
    while (started < count &&
           pthread_create(&workers[started].thread, NULL, work, &workers[started]) == 0) {
        started++;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        status = status == KILN_OK ? workers[i].status : status;
    }
    for (int i = 1; i < started && status == KILN_OK; i++) {
        if (!same(workers[0].outputs, workers[i].outputs)) {
            status = KILN_E_CHECK;
        }
    }
    if (status == KILN_OK) {
        printf("%d contexts made the same bytes, %d runs each\n", started, workers[0].runs);
    }
    for (int i = 0; i < started; i++) {
        kiln_tensors_destroy(workers[i].outputs);
    }
    return status;
}

static int number(const char *text, int least, int most) {
    long x = text ? strtol(text, NULL, 10) : 0;
    return x < least ? least : x > most ? most : (int)x;
}

int main(int argc, char **argv) {
    static worker workers[MAX_CONTEXTS];
    if (argc < 2) {
        fprintf(stderr, "usage: threads MODEL|ENGINE [CONTEXTS] [RUNS]\n");
        return 2;
    }
    int count = argc > 2 ? number(argv[2], 1, MAX_CONTEXTS) : 4;
    int runs = argc > 3 ? number(argv[3], 1, 1000000) : 100;
    kiln_engine *engine = NULL;
    kiln_pool *pool = NULL;
    kiln_tensors *inputs = NULL;
    kiln_status status = kiln_engine_open(&engine, NULL, NULL, argv[1], NULL, NULL);
    status = status == KILN_OK ? kiln_pool_create(&pool, NULL, NULL) : status;
    status = status == KILN_OK ? kiln_tensors_create(&inputs, NULL) : status;
    status = status == KILN_OK ? generate(inputs, engine, NULL) : status;
    for (int i = 0; i < count; i++) {
        workers[i] = (worker){.engine = engine, .pool = pool, .inputs = inputs, .runs = runs};
    }
    status = status == KILN_OK ? run_all(workers, count) : status;
    if (status != KILN_OK) {
        fprintf(stderr, "threads: %s\n", kiln_status_name(status));
    }
    kiln_tensors_destroy(inputs);
    kiln_pool_destroy(pool);
    kiln_engine_destroy(engine);
    return kiln_status_exit_code(status);
}
