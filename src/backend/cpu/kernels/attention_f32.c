/* attention_f32.c - softmax(scale Q K^T + mask) V in one step, float32; attention_region.h says
 * what is taken along and names the sizes. */
#include <math.h>
#include <string.h>

#include "backend/cpu/kernels/attention_region.h"
#include "backend/cpu/operand.h"
#include "backend/cpu/prims/attention.h"

enum { IN_Q, IN_K, IN_V }; /* operands of the claim */

static kiln_claim *claim(kiln_claimer *c, kiln_node *node) {
    return kiln_attention_claim(c, &kiln_kernel_attention_f32, node);
}

/* ---- Pack ---- */

/* The dims a mask is seen with. */
static void mask_dims(const kiln_added_mask *m, kiln_operand *o) {
    kiln_type_to_tensor(&m->value->type, &o->tensor);
    o->layout = KILN_LAYOUT_ROW;
    o->tensor.rank -= m->drop;
    memmove(o->tensor.dims, o->tensor.dims + m->drop,
            (size_t)o->tensor.rank * sizeof *o->tensor.dims);
}

/* The sum of two masks: each dim is that of either. */
static void sum_dims(const kiln_attention_params *p, kiln_operand *sum) {
    *sum = (kiln_operand){.layout = KILN_LAYOUT_ROW,
                          .tensor = {.dtype = KILN_DTYPE_F32, .rank = p->scores_rank}};
    for (int32_t d = 0; d < p->scores_rank; d++) {
        sum->tensor.dims[d] = 1;
    }
    for (int32_t i = 0; i < p->n_masks; i++) {
        kiln_operand m = {0};
        mask_dims(&p->masks[i], &m);
        int32_t lead = p->scores_rank - m.tensor.rank;
        for (int32_t d = 0; d < m.tensor.rank; d++) {
            int64_t n = m.tensor.dims[d];
            sum->tensor.dims[lead + d] = n != 1 ? n : sum->tensor.dims[lead + d];
        }
    }
}

static void add_mask(float *dst, const kiln_operand *sum, const kiln_operand *m, const float *src) {
    int64_t strides[KILN_MAX_RANK], n = kiln_tensor_count(&sum->tensor);
    kiln_operand_strides(m, sum, strides);
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, at = 0;
        for (int32_t d = sum->tensor.rank - 1; d >= 0; d--) {
            at += rest % sum->tensor.dims[d] * strides[d];
            rest /= sum->tensor.dims[d];
        }
        dst[i] += src[at];
    }
}

static kiln_status pack(kiln_packer *k) {
    const kiln_attention_params *p = k->claim->params;
    if (p->n_masks < 2) {
        return KILN_OK;
    }
    kiln_operand sum;
    kiln_status status;
    sum_dims(p, &sum);
    float *dst = kiln_pack_blob(k, kiln_tensor_bytes(&sum.tensor), &status);
    for (int32_t i = 0; dst && i < p->n_masks; i++) {
        kiln_operand m = {0};
        kiln_tensor t;
        mask_dims(&p->masks[i], &m);
        KILN_TRY(kiln_pack_constant(k, p->masks[i].value, &t));
        add_mask(dst, &sum, &m, t.data);
    }
    return status;
}

/* ---- Bind ---- */

/* One of K and V with its past put before it: [B, G, past + added, D]. */
typedef struct joined {
    bool used;
    int64_t past, added, size;
    int64_t stride[3]; /* of what is added */
    size_t shared;     /* offset of the whole in the shared buffer, unless it is an output */
} joined;

typedef struct attention_state {
    const kiln_attention_params *p;
    kiln_fused_state fused;
    bool narrows; /* lines wait in scratch to become the result */
    const kiln_attention_prims *prims;
    kiln_attention_args args; /* all but addresses */
    joined k, v;
    bool bool_mask; /* made additive in the shared buffer */
    int64_t mask_count;
} attention_state;

typedef struct lines {
    int64_t batch, heads, count, size;
    int64_t stride[3];
} lines;

static lines read_lines(const kiln_operand *o, const kiln_head_axes *m) {
    int64_t strides[KILN_MAX_RANK];
    const int64_t *dims = o->tensor.dims;
    kiln_logical_strides(o, strides);
    lines l = {.batch = 1,
               .heads = 1,
               .count = dims[m->axis[KILN_HEADS_LINE]],
               .size = dims[m->axis[KILN_HEADS_SIZE]]};
    if (m->axis[KILN_HEADS_BATCH] >= 0) {
        l.batch = dims[m->axis[KILN_HEADS_BATCH]];
        l.stride[0] = strides[m->axis[KILN_HEADS_BATCH]];
    }
    l.stride[2] = strides[m->axis[KILN_HEADS_LINE]];
    if (m->packed) {
        l.heads = m->packed;
        l.size /= m->packed;
        l.stride[1] = l.size;
    } else if (m->axis[KILN_HEADS_HEAD] >= 0) {
        l.heads = dims[m->axis[KILN_HEADS_HEAD]];
        l.stride[1] = strides[m->axis[KILN_HEADS_HEAD]];
    }
    return l;
}

/* Plans the join of K or V; *l then describes the result. */
static void bind_joined(kiln_binder *b, joined *j, lines *l, int32_t past_in, int32_t present_out) {
    j->used = past_in >= 0 || present_out >= 0;
    if (!j->used) {
        return;
    }
    j->past = past_in >= 0 ? b->in[past_in].tensor.dims[2] : 0;
    j->added = l->count;
    j->size = l->size;
    memcpy(j->stride, l->stride, sizeof j->stride);
    l->count += j->past;
    l->stride[2] = l->size;
    l->stride[1] = l->count * l->size;
    l->stride[0] = l->heads * l->stride[1];
    if (present_out < 0) {
        j->shared = b->shared_bytes;
        b->shared_bytes += ((size_t)(l->batch * l->stride[0]) * sizeof(float) + 63) & ~(size_t)63;
    }
}

static void bind_mask(kiln_binder *b, attention_state *s) {
    const kiln_attention_params *p = s->p;
    if (p->n_masks == 0) {
        return;
    }
    kiln_operand seen, scores = {.layout = KILN_LAYOUT_ROW, .tensor = {.rank = p->scores_rank}};
    if (p->n_masks == 1) {
        seen = b->in[p->mask_in];
        const int64_t *dims = b->in[p->mask_in].tensor.dims;
        seen.tensor.rank -= p->masks[0].drop;
        memcpy(seen.tensor.dims, dims + p->masks[0].drop, (size_t)seen.tensor.rank * sizeof *dims);
    } else {
        sum_dims(p, &seen);
    }
    /* A mask axis per axis of [B, H, S, L]; without heads the second is left out. */
    kiln_attention_args *a = &s->args;
    const int64_t dims[4] = {a->batch, a->heads, a->q_len, a->kv_len};
    int64_t strides[KILN_MAX_RANK];
    for (int32_t d = 0, axis = 0; axis < 4; axis++) {
        if (p->scores_rank == 4 || axis != KILN_HEADS_HEAD) {
            scores.tensor.dims[d++] = dims[axis];
        }
    }
    kiln_operand_strides(&seen, &scores, strides);
    for (int32_t d = 0, axis = 0; axis < 4; axis++) {
        a->mask_stride[axis] = p->scores_rank == 4 || axis != KILN_HEADS_HEAD ? strides[d++] : 0;
    }
    s->bool_mask = seen.tensor.dtype == KILN_DTYPE_BOOL;
    s->mask_count = kiln_tensor_count(&seen.tensor);
    if (s->bool_mask) {
        b->shared_bytes += ((size_t)s->mask_count * sizeof(float) + 63) & ~(size_t)63;
    }
}

static kiln_status bind(kiln_binder *b) {
    const kiln_attention_params *p = b->claim->params;
    attention_state *s;
    KILN_ALLOC(s, b->arena, 1);
    s->p = p;
    s->prims = b->target->prims->attention;
    kiln_attention_args *a = &s->args;
    lines q = read_lines(&b->in[IN_Q], &p->q), k = read_lines(&b->in[IN_K], &p->k);
    lines v = read_lines(&b->in[IN_V], &p->v), y = read_lines(&b->out[0], &p->y);
    *a = (kiln_attention_args){.batch = q.batch,
                               .heads = q.heads,
                               .kv_heads = k.heads,
                               .q_len = q.count,
                               .qk_dim = q.size,
                               .v_dim = v.size,
                               .softcap = p->softcap,
                               .causal = p->causal,
                               .zero_empty = p->zero_empty};
    a->scale = p->scale != 0 ? p->scale : 1 / sqrtf((float)q.size);
    a->kv_len = k.count + (p->past_k_in >= 0 ? b->in[p->past_k_in].tensor.dims[2] : 0);
    a->causal_offset = a->kv_len - k.count + p->ahead;
    bind_mask(b, s);
    bind_joined(b, &s->k, &k, p->past_k_in, p->present_k_out);
    bind_joined(b, &s->v, &v, p->past_v_in, p->present_v_out);
    memcpy(a->q_stride, q.stride, sizeof a->q_stride);
    memcpy(a->k_stride, k.stride, sizeof a->k_stride);
    memcpy(a->v_stride, v.stride, sizeof a->v_stride);
    memcpy(a->y_stride, y.stride, sizeof a->y_stride);
    b->scratch_bytes = (size_t)kiln_attention_scratch(a) * sizeof(float);
    s->narrows = p->fused.narrows || b->out[0].tensor.dtype == KILN_DTYPE_BF16;
    if (s->narrows) {
        b->scratch_bytes += (size_t)(KILN_ATTENTION_ROWS * a->v_dim) * sizeof(float);
        kiln_fuse_bind(&s->fused, &p->fused, b, y.stride[2]);
    }
    b->state = s;
    return KILN_OK;
}

/* ---- Run ---- */

/* Copies this member's share of the lines of past and added into dst. */
static void join(const attention_state *s, const joined *j, const float *past, const float *added,
                 float *dst, const kiln_team *team) {
    int64_t begin, end, total = j->past + j->added, heads = s->args.kv_heads;
    size_t bytes = (size_t)j->size * sizeof(float);
    kiln_team_split(team, s->args.batch * heads * total, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t head = i / total, line = i % total;
        const float *src = line < j->past
                               ? past + (head * j->past + line) * j->size
                               : added + head / heads * j->stride[0] + head % heads * j->stride[1] +
                                     (line - j->past) * j->stride[2];
        memcpy(dst + i * j->size, src, bytes);
    }
}

static const float *join_input(const kiln_call *call, const attention_state *s, const joined *j,
                               int32_t in, int32_t past_in, int32_t present_out,
                               const kiln_team *team) {
    if (!j->used) {
        return call->in[in];
    }
    float *dst =
        present_out >= 0 ? call->out[present_out] : (float *)((char *)call->shared + j->shared);
    join(s, j, past_in >= 0 ? call->in[past_in] : NULL, call->in[in], dst, team);
    return dst;
}

static const float *additive_mask(const kiln_call *call, const attention_state *s,
                                  const kiln_team *team) {
    if (s->p->n_masks != 1) {
        return s->p->n_masks == 0 ? NULL : call->blobs[0].data;
    }
    if (!s->bool_mask) {
        return call->in[s->p->mask_in];
    }
    const uint8_t *seen = call->in[s->p->mask_in];
    float *dst = call->shared;
    int64_t begin, end;
    kiln_team_split(team, s->mask_count, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        dst[i] = seen[i] ? 0.0f : -INFINITY;
    }
    return dst;
}

/* `rows` lines of floats, brought to the result's type from element `at` on. */
static void narrow(const attention_state *s, const kiln_call *call, int64_t at, float *floats,
                   int64_t rows) {
    kiln_epilogue e;
    kiln_program_post_args post;
    kiln_fuse_resolve(&s->fused, call, &e, &post);
    kiln_fuse_advance(&s->fused, &e, &post, at);
    e.post(e.post_arg, floats, s->args.v_dim, 0, rows, 0, s->args.v_dim);
}

/* Without keys every result is zero. */
static void write_zeros(const attention_state *s, const kiln_call *call, float *scratch) {
    const kiln_attention_args *a = &s->args;
    for (int64_t i = 0; i < a->batch * a->heads * a->q_len; i++) {
        int64_t line = i % a->q_len, head = i / a->q_len;
        int64_t at = head / a->heads * a->y_stride[0] + head % a->heads * a->y_stride[1] +
                     line * a->y_stride[2];
        float *y = s->narrows ? scratch : (float *)call->out[0] + at;
        memset(y, 0, (size_t)a->v_dim * sizeof(float));
        if (s->narrows) {
            narrow(s, call, at, y, 1);
        }
    }
}

/* A unit as a problem of its own, whose lines wait in scratch for their quantizer. */
static void run_narrow(const attention_state *s, const kiln_call *call,
                       const kiln_attention_args *a, float *scratch, int64_t unit) {
    const int64_t blocks = kiln_attention_units(a) / (a->batch * a->heads);
    const int64_t q0 = unit % blocks * KILN_ATTENTION_ROWS;
    const int64_t head = unit / blocks % a->heads, batch = unit / blocks / a->heads;
    const int64_t kv = head / (a->heads / a->kv_heads);
    kiln_attention_args one = *a;
    one.batch = one.heads = one.kv_heads = 1;
    one.q_len = a->q_len - q0 < KILN_ATTENTION_ROWS ? a->q_len - q0 : KILN_ATTENTION_ROWS;
    one.causal_offset += q0;
    one.q += batch * a->q_stride[0] + head * a->q_stride[1] + q0 * a->q_stride[2];
    one.k += batch * a->k_stride[0] + kv * a->k_stride[1];
    one.v += batch * a->v_stride[0] + kv * a->v_stride[1];
    if (a->mask) {
        one.mask += batch * a->mask_stride[0] + head * a->mask_stride[1] + q0 * a->mask_stride[2];
    }
    one.y = scratch + kiln_attention_scratch(a);
    one.y_stride[2] = a->v_dim;
    s->prims->attention(&one, scratch, 0, 1);
    int64_t at = batch * a->y_stride[0] + head * a->y_stride[1] + q0 * a->y_stride[2];
    narrow(s, call, at, one.y, one.q_len);
}

static void run(const kiln_call *call, const kiln_team *team) {
    const attention_state *s = call->state;
    const kiln_attention_params *p = s->p;
    kiln_attention_args args = s->args;
    args.q = call->in[IN_Q];
    args.k = join_input(call, s, &s->k, IN_K, p->past_k_in, p->present_k_out, team);
    args.v = join_input(call, s, &s->v, IN_V, p->past_v_in, p->present_v_out, team);
    args.mask = additive_mask(call, s, team);
    args.y = call->out[0];
    if (s->k.used || s->v.used || s->bool_mask) {
        kiln_team_barrier(team);
    }
    float *scratch = (float *)(call->scratch + (size_t)team->rank * call->scratch_bytes);
    if (args.kv_len == 0) {
        if (team->rank == 0) {
            write_zeros(s, call, scratch);
        }
        return;
    }
    int64_t begin, end;
    kiln_team_split(team, kiln_attention_units(&args), &begin, &end);
    for (; s->narrows && begin < end; begin++) {
        run_narrow(s, call, &args, scratch, begin);
    }
    if (begin < end) {
        s->prims->attention(&args, scratch, begin, end);
    }
}

const kiln_kernel kiln_kernel_attention_f32 = {
    .name = "attention_f32",
    .claim = claim,
    .pack = pack,
    .bind = bind,
    .run = run,
};
