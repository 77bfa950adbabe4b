/* conv_winograd_f32.c - convolutions of 3x3, or of several planes of 3x3, of stride 1 in the plane
 * by Winograd's F(2x2,3x3) and F(4x4,3x3) (prims/winograd.h), with everything elementwise that
 * follows fused. */
#include "backend/cpu/fuse.h"
#include "backend/cpu/kernels/conv_shape.h"
#include "backend/cpu/prims/winograd.h"

enum { TACTIC_RULES, TACTIC_F43, TACTIC_F23 };
static const char *const winograd_tactics[] = {"f43", "f23", NULL};

typedef struct winograd_params {
    kiln_fused fused;
    kiln_window window;
    kiln_conv_args args; /* channels and kernel; sizes follow at bind */
    int64_t tile;
} winograd_params;

typedef struct winograd_state {
    const kiln_winograd_prims *prims;
    kiln_fused_state fused;
    kiln_conv_args args;
    int64_t tile;
} winograd_state;

enum { MOST_CHANNELS = 4096 }; /* in: a thread's scratch stays below 8 MiB */

/* True for the problems the prims take; else refuses. */
static bool fits(kiln_claimer *c, const kiln_conv_args *g, int32_t spatial) {
    bool unit = true;
    for (int i = 1; i < 3; i++) {
        unit = unit && g->stride[i] == 1 && g->dilation[i] == 1 && g->kernel[i] == 3;
    }
    if (g->transposed || g->groups != 1 || spatial < 2 || !unit) {
        kiln_claim_refuse(c, "it takes kernels of 3x3 in the last two dims, with stride and "
                             "dilation 1 there, one group");
        return false;
    }
    if (g->c_in > MOST_CHANNELS / g->kernel[0]) {
        kiln_claim_refuse(c, "it takes %d input channels, times planes of the kernel, at most",
                          MOST_CHANNELS);
        return false;
    }
    return true;
}

/* What the rules reckon with, in multiply-adds at the direct kernel's pace. Measured on Zen 3
 * (AVX2) and on Zen 5 (AVX-512), there with cold caches: in a network the weights come
 * from the third level or from memory. */
enum {
    WEIGHT_COST = 12,    /* bringing one packed weight */
    TILE_COST_F43 = 400, /* transforming a tile of one channel, in or out */
    TILE_COST_F23 = 120,
    UNKNOWN_SIDE = 28, /* of an image whose size is not known */
    MARGIN = 20,       /* it must save one part in so many */
};

/* The time that one way takes: `tiles` products of `taps` taps for each output channel and each
 * input channel of each plane of the kernel. */
static double cost(const kiln_conv_args *g, double tiles, double taps, double tile_cost) {
    const double depth = (double)g->c_in * (double)g->kernel[0], c_out = (double)g->c_out;
    return depth * c_out * taps * (tiles + WEIGHT_COST) + tiles * tile_cost * (depth + c_out);
}

/* Tiles of m x m along dim `axis`; the last two dims are cut. */
static double tiles_along(const kiln_type *y, int32_t axis, int64_t m) {
    const int64_t unknown = axis == 0 ? 1 : UNKNOWN_SIDE, cut = axis < y->rank - 2 ? 1 : m;
    const int64_t n = kiln_dim_known(y->dims[axis]) ? y->dims[axis] : unknown;
    return (double)((n + cut - 1) / cut);
}

static double count_tiles(const kiln_type *y, int64_t m) {
    double n = tiles_along(y, 0, m);
    for (int32_t axis = 2; axis < y->rank; axis++) {
        n *= tiles_along(y, axis, m);
    }
    return n;
}

/* The tile that is asked for, or the one expected to be faster; 0: the direct way is, refused. */
static int64_t choose_tile(kiln_claimer *c, const kiln_node *node, const kiln_conv_args *g) {
    const kiln_type *y = &node->out[0]->type;
    if (c->tactic != TACTIC_RULES) {
        return c->tactic == TACTIC_F43 ? 4 : 2;
    }
    const double direct = cost(g, count_tiles(y, 1), 9, 0);
    const double f43 = cost(g, count_tiles(y, 4), 36, TILE_COST_F43);
    const double f23 = cost(g, count_tiles(y, 2), 16, TILE_COST_F23);
    const double best = f43 < f23 ? f43 : f23;
    if (best > direct - direct / MARGIN) {
        kiln_claim_refuse(c,
                          "it is not expected to gain: the direct way takes the time of %.3g M "
                          "multiply-adds, F(4x4,3x3) of %.3g M, F(2x2,3x3) of %.3g M",
                          direct / 1e6, f43 / 1e6, f23 / 1e6);
        return 0;
    }
    return f43 < f23 ? 4 : 2;
}

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    kiln_claim *r =
        kiln_conv_begin(c, node, &kiln_kernel_conv_winograd_f32, sizeof(winograd_params));
    if (!r) {
        return NULL;
    }
    winograd_params *p = r->params;
    if (!kiln_conv_read(c, node, &p->window, &p->args) || !fits(c, &p->args, p->window.n)) {
        return NULL;
    }
    p->tile = choose_tile(c, node, &p->args);
    if (p->tile == 0) {
        return NULL;
    }
    r->in_layouts[0] = KILN_LAYOUT_LAST;
    return kiln_fuse_chain(c, r, &p->fused, node->out[0], 1, kiln_node_in(node, 2),
                           KILN_LAYOUT_LAST, false)
               ? r
               : NULL;
}

static kiln_status pack(kiln_packer *k) {
    const winograd_params *p = k->claim->params;
    const kiln_winograd_prims *prims = k->target->prims->winograd;
    const kiln_winograd_args args = {.conv = &p->args, .tile = p->tile};
    kiln_status status;
    void *dst = kiln_pack_blob(k, (size_t)prims->packed_bytes(&args), &status);
    if (!dst) {
        return status;
    }
    kiln_tensor w;
    KILN_TRY(kiln_pack_constant(k, k->claim->anchor->in[1], &w));
    prims->pack(dst, w.data, &args);
    return KILN_OK;
}

static kiln_status bind(kiln_binder *b) {
    const winograd_params *p = b->claim->params;
    winograd_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->args = p->args;
    KILN_TRY(kiln_conv_resolve(b, &p->window, &s->args));
    s->args.epilogue = KILN_EPILOGUE_NONE;
    s->prims = b->target->prims->winograd;
    s->tile = p->tile;
    kiln_fuse_bind(&s->fused, &p->fused, b, s->args.c_out);
    const kiln_winograd_args args = {.conv = &s->args, .tile = s->tile};
    b->scratch_bytes = (size_t)s->prims->scratch_bytes(&args);
    b->way = (uint64_t)s->tile;
    b->state = s;
    return KILN_OK;
}

static void run(const kiln_call *call, const kiln_team *team) {
    const winograd_state *s = call->state;
    kiln_conv_args conv = s->args;
    const kiln_winograd_args args = {.conv = &conv, .tile = s->tile};
    const int64_t units = s->prims->units(&args, team->size);
    int64_t begin, end;
    kiln_team_split(team, units, &begin, &end);
    kiln_program_post_args post;
    conv.x = call->in[0];
    conv.w = call->blobs[0].data;
    conv.y = call->out[0];
    kiln_fuse_resolve(&s->fused, call, &conv.epilogue, &post);
    s->prims->run(&args, units, begin, end,
                  call->scratch + (size_t)team->rank * call->scratch_bytes);
}

const kiln_kernel kiln_kernel_conv_winograd_f32 = {
    .name = "conv_winograd_f32",
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
    .computes = KILN_DTYPE_NONE,
    .tactics = winograd_tactics,
    .norm_error = 4e-6f,
    .expands_weights = true,
};
