/* cache.c - the segments of a frame by the shapes they were bound to; the last used ones stay. */
#include <string.h>

#include "base/env.h"
#include "exec/frame.h"

/* The shapes a segment depends on: of inputs and captures, or of what the late step made. Written
 * to `out`, or held against `expected`, so that finding a bound segment needs no memory. */
typedef struct key_walk {
    int64_t *out;            /* or NULL */
    const int64_t *expected; /* or NULL */
    size_t n_expected, n;
    bool same;
} key_walk;

static void put_key(key_walk *k, int64_t v) {
    if (k->out) {
        k->out[k->n] = v;
    }
    if (k->expected) {
        k->same = k->same && k->n < k->n_expected && k->expected[k->n] == v;
    }
    k->n++;
}

static void walk_key(key_walk *k, const kiln_frame *frame, const kiln_segment *parent) {
    const kiln_plan *p = frame->plan;
    const int32_t *lists[2] = {p->input_slots, p->capture_slots};
    size_t counts[2] = {p->graph->n_inputs, p->graph->n_captures};
    if (parent) {
        const kiln_step *step = &p->steps[parent->end];
        lists[0] = step->out;
        counts[0] = (size_t)step->claim->n_out;
        counts[1] = 0;
    }
    for (int l = 0; l < 2; l++) {
        for (size_t i = 0; i < counts[l]; i++) {
            const kiln_datum *d = &frame->slots[lists[l][i]];
            put_key(k, (int64_t)d->kind << 32 | d->tensor.dtype << 8 | d->tensor.rank);
            for (int32_t j = 0; j < d->tensor.rank; j++) {
                put_key(k, d->tensor.dims[j]);
            }
        }
    }
}

static bool has_key(const kiln_segment *seg, const kiln_frame *frame, const kiln_segment *parent) {
    key_walk k = {.expected = seg->key, .n_expected = seg->n_key, .same = true};
    walk_key(&k, frame, parent);
    return k.same && k.n == seg->n_key;
}

static kiln_status make_key(kiln_segment *seg, const kiln_frame *frame,
                            const kiln_segment *parent) {
    key_walk k = {0};
    walk_key(&k, frame, parent);
    seg->n_key = k.n;
    KILN_ALLOC(seg->key, &seg->arena, k.n);
    k = (key_walk){.out = seg->key};
    walk_key(&k, frame, parent);
    return KILN_OK;
}

static void free_segment(kiln_segment *seg, const kiln_env *env) {
    kiln_arena_free(&seg->arena);
    kiln_env_release(env, seg, sizeof *seg);
}

void kiln_frame_forget(kiln_frame *frame) {
    for (kiln_segment *s = frame->newest, *older; s; s = older) {
        older = s->older;
        free_segment(s, frame->exec->env);
    }
    frame->roots = frame->newest = NULL;
    frame->n_segments = 0;
}

static kiln_segment **siblings(kiln_frame *frame, kiln_segment *parent) {
    return parent ? &parent->children : &frame->roots;
}

static void link(kiln_frame *frame, kiln_segment *seg) {
    kiln_segment **list = siblings(frame, seg->parent);
    seg->sibling = *list;
    *list = seg;
    seg->older = frame->newest;
    if (frame->newest) {
        frame->newest->newer = seg;
    }
    frame->newest = seg;
    frame->n_segments++;
}

static void forget(kiln_frame *frame, kiln_segment *seg) {
    kiln_segment **at = siblings(frame, seg->parent);
    while (*at != seg) {
        at = &(*at)->sibling;
    }
    *at = seg->sibling;
    *(seg->newer ? &seg->newer->older : &frame->newest) = seg->older;
    if (seg->older) {
        seg->older->newer = seg->newer;
    }
    frame->n_segments--;
    free_segment(seg, frame->exec->env);
}

/* Makes room for one more. A segment that others follow is as recent as they are: only the ends of
 * chains are forgotten. */
static void make_room(kiln_frame *frame, int32_t depth) {
    int32_t depths = depth < frame->n_depths ? frame->n_depths : depth + 1;
    while (frame->n_segments >= KILN_KEPT_SHAPES * depths) {
        kiln_segment *oldest = NULL;
        for (kiln_segment *s = frame->newest; s; s = s->older) {
            if (!s->children && s->used < frame->run && (!oldest || s->used < oldest->used)) {
                oldest = s;
            }
        }
        if (!oldest) {
            return;
        }
        forget(frame, oldest);
    }
}

static kiln_status new_segment(kiln_frame *frame, kiln_segment *parent, kiln_segment **out,
                               kiln_diag *diag) {
    kiln_segment *seg = kiln_env_alloc(frame->exec->env, sizeof *seg);
    if (!seg) {
        return KILN_E_MEMORY;
    }
    memset(seg, 0, sizeof *seg);
    kiln_arena_init(&seg->arena, frame->exec->env);
    seg->serial = ++frame->exec->n_serials;
    seg->parent = parent;
    seg->depth = parent ? parent->depth + 1 : 0;
    seg->first = parent ? parent->end + 1 : 0;
    kiln_status status = make_key(seg, frame, parent);
    status = status ? status : kiln_segment_bind(frame, seg, diag);
    if (status != KILN_OK) {
        free_segment(seg, frame->exec->env);
        return status;
    }
    *out = seg;
    return KILN_OK;
}

kiln_status kiln_frame_segment(kiln_frame *frame, kiln_segment *parent, kiln_segment **out,
                               kiln_diag *diag) {
    kiln_segment *seg = *siblings(frame, parent);
    while (seg && !has_key(seg, frame, parent)) {
        seg = seg->sibling;
    }
    if (!seg) {
        make_room(frame, parent ? parent->depth + 1 : 0);
        KILN_TRY(new_segment(frame, parent, &seg, diag));
        link(frame, seg);
    }
    seg->used = frame->run;
    *out = seg;
    return KILN_OK;
}
