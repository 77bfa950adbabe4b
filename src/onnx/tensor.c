/* tensor.c - TensorProto and SparseTensorProto to tensors. */
#include "onnx/tensor.h"

#include <string.h>

#include "base/checked.h"
#include "base/env.h"
#include "onnx/external.h"

/* Fields a file's bytes account for, however often functions are expanded, and bytes of copies:
 * data stored as one-byte varints becomes eight times as large. */
enum { STEPS_PER_BYTE = 16, COPIES_PER_BYTE = 8 };
#define BASE_STEPS (UINT64_C(64) << 20)
#define BASE_COPIES (UINT64_C(64) << 20)

void kiln_decoder_init(kiln_decoder *d, const void *bytes, size_t len, kiln_arena *arena,
                       const kiln_env *env, kiln_diag *diag) {
    const kiln_limits *limits = kiln_env_limits(env);
    memset(d, 0, sizeof *d);
    d->wire.base = bytes;
    d->wire.budget = BASE_STEPS + (uint64_t)len * STEPS_PER_BYTE;
    d->wire.max_depth = limits->message_depth;
    d->wire.max_name = limits->name_bytes;
    d->wire.diag = diag;
    d->arena = arena;
    d->limits = limits;
    d->diag = diag;
    d->copy_left = BASE_COPIES + (uint64_t)len * COPIES_PER_BYTE;
}

static kiln_status spend(kiln_decoder *d, size_t bytes) {
    if (bytes > d->copy_left) {
        return kiln_fail(d->diag, KILN_F_GRAPH_LIMIT,
                         "the model unfolds to far more data than its file holds");
    }
    d->copy_left -= bytes;
    return KILN_OK;
}

kiln_status kiln_decoder_alloc(kiln_decoder *d, size_t bytes, void **out) {
    KILN_TRY(spend(d, bytes));
    *out = kiln_arena_raw(d->arena, bytes ? bytes : 1);
    return *out ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_decoder_text(kiln_decoder *d, kiln_view view, const char **out) {
    KILN_TRY(spend(d, view.n));
    *out = kiln_arena_text(d->arena, view.n ? view.p : "", view.n);
    return *out ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_decode_dtype(kiln_decoder *d, int64_t number, kiln_dtype *out) {
    if (number > 0 && number < KILN_DTYPE_COUNT) {
        *out = (kiln_dtype)number;
        return KILN_OK;
    }
    return kiln_fail(d->diag, KILN_F_DTYPE_UNKNOWN, "element type %lld is not one Kiln holds",
                     (long long)number);
}

/* Which typed field holds the data of a dtype, and how many of its elements make one of the
 * tensor's (or 0: the elements are packed bytes of a sub-byte type). */
typedef enum typed_field {
    NO_FIELD,
    IN_FLOAT,
    IN_INT32,
    IN_STRING,
    IN_INT64,
    IN_DOUBLE,
    IN_UINT64
} typed_field;

typedef struct storage {
    uint8_t field;
    uint8_t parts;
    int64_t min, max; /* of one element of int32_data or uint64_data */
} storage;

static const storage storages[KILN_DTYPE_COUNT] = {
    [KILN_DTYPE_F32] = {IN_FLOAT, 1, 0, 0},
    [KILN_DTYPE_C64] = {IN_FLOAT, 2, 0, 0},
    [KILN_DTYPE_F64] = {IN_DOUBLE, 1, 0, 0},
    [KILN_DTYPE_C128] = {IN_DOUBLE, 2, 0, 0},
    [KILN_DTYPE_STRING] = {IN_STRING, 1, 0, 0},
    [KILN_DTYPE_I64] = {IN_INT64, 1, INT64_MIN, INT64_MAX},
    [KILN_DTYPE_U64] = {IN_UINT64, 1, INT64_MIN, INT64_MAX},
    [KILN_DTYPE_U32] = {IN_UINT64, 1, 0, UINT32_MAX},
    [KILN_DTYPE_I32] = {IN_INT32, 1, INT32_MIN, INT32_MAX},
    [KILN_DTYPE_I16] = {IN_INT32, 1, INT16_MIN, INT16_MAX},
    [KILN_DTYPE_I8] = {IN_INT32, 1, INT8_MIN, INT8_MAX},
    [KILN_DTYPE_U16] = {IN_INT32, 1, 0, UINT16_MAX},
    [KILN_DTYPE_U8] = {IN_INT32, 1, 0, UINT8_MAX},
    [KILN_DTYPE_BOOL] = {IN_INT32, 1, 0, 1},
    [KILN_DTYPE_F16] = {IN_INT32, 1, 0, UINT16_MAX},
    [KILN_DTYPE_BF16] = {IN_INT32, 1, 0, UINT16_MAX},
    [KILN_DTYPE_F8E4M3FN] = {IN_INT32, 1, 0, UINT8_MAX},
    [KILN_DTYPE_F8E4M3FNUZ] = {IN_INT32, 1, 0, UINT8_MAX},
    [KILN_DTYPE_F8E5M2] = {IN_INT32, 1, 0, UINT8_MAX},
    [KILN_DTYPE_F8E5M2FNUZ] = {IN_INT32, 1, 0, UINT8_MAX},
    [KILN_DTYPE_F8E8M0] = {IN_INT32, 1, 0, UINT8_MAX},
    [KILN_DTYPE_U4] = {IN_INT32, 0, INT8_MIN, UINT8_MAX},
    [KILN_DTYPE_I4] = {IN_INT32, 0, INT8_MIN, UINT8_MAX},
    [KILN_DTYPE_F4E2M1] = {IN_INT32, 0, INT8_MIN, UINT8_MAX},
    [KILN_DTYPE_U2] = {IN_INT32, 0, INT8_MIN, UINT8_MAX},
    [KILN_DTYPE_I2] = {IN_INT32, 0, INT8_MIN, UINT8_MAX},
};

/* The decoding of one tensor. */
typedef struct job {
    kiln_decoder *d;
    kiln_pb_tensor pb;
    kiln_stored_tensor *out;
    int64_t count; /* elements */
    size_t bytes;
} job;

static kiln_status bad(const job *j, const char *what, uint64_t have, uint64_t need) {
    return kiln_fail(j->d->diag, KILN_F_INITIALIZER,
                     "tensor \"%.*s\" holds %llu %s, its type and dims need %llu",
                     (int)j->pb.name.n, j->pb.name.n ? j->pb.name.p : "", (unsigned long long)have,
                     what, (unsigned long long)need);
}

/* dims of a tensor or sparse tensor, checked: rank, sign, product, size. */
static kiln_status read_dims(kiln_decoder *d, const kiln_msg *msg, uint32_t field, size_t n,
                             kiln_dtype dtype, kiln_tensor *t, int64_t *count, size_t *bytes) {
    if (n > KILN_MAX_RANK) {
        return kiln_fail(d->diag, KILN_F_INITIALIZER,
                         "a tensor has %zu dims, at most %d are possible", n, KILN_MAX_RANK);
    }
    t->dtype = dtype;
    t->rank = (int32_t)n;
    KILN_TRY(kiln_pb_varints(&d->wire, msg, field, t->dims, n, NULL));
    for (size_t i = 0; i < n; i++) {
        if (t->dims[i] < 0) {
            return kiln_fail(d->diag, KILN_F_INITIALIZER, "dim %zu of a tensor is negative (%lld)",
                             i, (long long)t->dims[i]);
        }
    }
    if (!kiln_dims_count(t->dims, t->rank, count) || !kiln_dtype_bytes(dtype, *count, bytes)) {
        return kiln_fail(d->diag, KILN_F_OVERFLOW, "the size of a tensor does not fit 64 bits");
    }
    if (*bytes > d->limits->tensor_bytes) {
        return kiln_fail(d->diag, KILN_F_OVERFLOW,
                         "a tensor has %zu bytes, the limit is %llu (tensor_bytes)", *bytes,
                         (unsigned long long)d->limits->tensor_bytes);
    }
    t->cap_bytes = *bytes;
    return KILN_OK;
}

static size_t alignment(kiln_dtype dtype) {
    int bits = kiln_dtype_bits(dtype);
    if (dtype == KILN_DTYPE_C64 || dtype == KILN_DTYPE_C128) {
        return (size_t)bits / 16;
    }
    return bits < 8 ? 1 : (size_t)bits / 8;
}

/* Booleans are 0 or 1 in memory; a file may hold other bytes. */
static bool is_clean_bool(const uint8_t *p, size_t n) {
    uint8_t all = 0;
    for (size_t i = 0; i < n; i++) {
        all |= p[i];
    }
    return all <= 1;
}

/* Takes `bytes` bytes at src as the tensor's data: a view if they are aligned, else a copy. */
static kiln_status adopt(job *j, const void *src) {
    kiln_tensor *t = &j->out->tensor;
    bool clean = t->dtype != KILN_DTYPE_BOOL || is_clean_bool(src, j->bytes);
    if (clean && j->bytes && (uintptr_t)src % alignment(t->dtype) == 0) {
        t->data = (void *)(uintptr_t)src;
        j->out->view = true;
        return KILN_OK;
    }
    KILN_TRY(kiln_decoder_alloc(j->d, j->bytes, &t->data));
    memcpy(t->data, src, j->bytes);
    uint8_t *p = t->data;
    for (size_t i = 0; !clean && i < j->bytes; i++) {
        p[i] = p[i] != 0;
    }
    return KILN_OK;
}

static kiln_status read_fixed(job *j, uint32_t field, size_t n, size_t item_bytes) {
    kiln_tensor *t = &j->out->tensor;
    kiln_view view;
    KILN_TRY(kiln_pb_fixed_view(&j->d->wire, &j->pb.head.self, field, n * item_bytes, &view));
    if (view.p) {
        return adopt(j, view.p);
    }
    KILN_TRY(kiln_decoder_alloc(j->d, j->bytes, &t->data));
    return kiln_pb_fixed(&j->d->wire, &j->pb.head.self, field, t->data, n, item_bytes);
}

/* Varints of which each becomes `width` little-endian bytes. */
static kiln_status read_varints(job *j, uint32_t field, size_t n, size_t width) {
    kiln_tensor *t = &j->out->tensor;
    const storage *s = &storages[t->dtype];
    kiln_pb_narrow narrow = {width, s->min, s->max, field == KILN_PB_TENSOR_INT32_DATA};
    KILN_TRY(kiln_decoder_alloc(j->d, j->bytes, &t->data));
    return kiln_pb_varints(&j->d->wire, &j->pb.head.self, field, t->data, n, &narrow);
}

static kiln_status read_strings(job *j, size_t n) {
    void *mem;
    kiln_msg at = j->pb.head.self;
    KILN_TRY(kiln_decoder_alloc(j->d, n * sizeof(char *), &mem));
    const char **items = mem;
    for (size_t i = 0; i < n; i++) {
        kiln_view view;
        KILN_TRY(kiln_pb_each_view(&j->d->wire, &at, KILN_PB_TENSOR_STRING_DATA, false, &view));
        KILN_TRY(kiln_decoder_text(j->d, view, &items[i]));
    }
    j->out->tensor.data = items;
    return KILN_OK;
}

static kiln_status read_typed(job *j) {
    const kiln_pb_tensor *pb = &j->pb;
    const storage *s = &storages[j->out->tensor.dtype];
    const size_t counts[] = {
        [IN_FLOAT] = pb->n_float, [IN_INT32] = pb->n_int32,   [IN_STRING] = pb->n_string,
        [IN_INT64] = pb->n_int64, [IN_DOUBLE] = pb->n_double, [IN_UINT64] = pb->n_uint64};
    for (size_t f = IN_FLOAT; f <= IN_UINT64; f++) {
        if (counts[f] && f != s->field) {
            return kiln_fail(j->d->diag, KILN_F_INITIALIZER,
                             "tensor \"%.*s\" of %s keeps data in a field of another type",
                             (int)pb->name.n, pb->name.n ? pb->name.p : "",
                             kiln_dtype_name(j->out->tensor.dtype));
        }
    }
    size_t have = counts[s->field];
    size_t need = s->parts ? (size_t)j->count * s->parts : j->bytes;
    if (have != need) {
        return bad(j, "elements", have, need);
    }
    size_t width = s->parts ? j->count ? j->bytes / (size_t)j->count : 1 : 1;
    switch (s->field) {
    case IN_FLOAT:
        return read_fixed(j, KILN_PB_TENSOR_FLOAT_DATA, have, sizeof(float));
    case IN_DOUBLE:
        return read_fixed(j, KILN_PB_TENSOR_DOUBLE_DATA, have, sizeof(double));
    case IN_STRING:
        return read_strings(j, have);
    case IN_INT32:
        return read_varints(j, KILN_PB_TENSOR_INT32_DATA, have, width);
    case IN_INT64:
        return read_varints(j, KILN_PB_TENSOR_INT64_DATA, have, width);
    default:
        return read_varints(j, KILN_PB_TENSOR_UINT64_DATA, have, width);
    }
}

static kiln_status read_data(job *j) {
    const kiln_pb_tensor *pb = &j->pb;
    size_t typed =
        pb->n_float + pb->n_int32 + pb->n_string + pb->n_int64 + pb->n_double + pb->n_uint64;
    bool external = pb->data_location == 1;
    if (pb->data_location != 0 && pb->data_location != 1) {
        return kiln_fail(j->d->diag, KILN_F_INITIALIZER, "tensor \"%.*s\" has data location %lld",
                         (int)pb->name.n, pb->name.n ? pb->name.p : "",
                         (long long)pb->data_location);
    }
    if ((pb->raw_data.n != 0) + (typed != 0) + external > 1) {
        return kiln_fail(j->d->diag, KILN_F_INITIALIZER,
                         "tensor \"%.*s\" keeps its data in two places", (int)pb->name.n,
                         pb->name.n ? pb->name.p : "");
    }
    if (external) {
        const void *src;
        if (j->out->tensor.dtype == KILN_DTYPE_STRING) {
            return kiln_fail(j->d->diag, KILN_F_INITIALIZER, "strings cannot be external data");
        }
        KILN_TRY(kiln_external_read(j->d, pb, j->bytes, &src));
        return adopt(j, src);
    }
    if (typed || !kiln_pb_has(&pb->head, KILN_PB_TENSOR_RAW_DATA)) {
        return read_typed(j);
    }
    if (j->out->tensor.dtype == KILN_DTYPE_STRING && j->count) {
        return kiln_fail(j->d->diag, KILN_F_INITIALIZER, "strings cannot be raw data");
    }
    if (pb->raw_data.n != j->bytes) {
        return bad(j, "bytes", pb->raw_data.n, j->bytes);
    }
    return adopt(j, pb->raw_data.p);
}

kiln_status kiln_decode_tensor(kiln_decoder *d, const kiln_msg *msg, kiln_stored_tensor *out) {
    job j = {.d = d, .out = out};
    kiln_dtype dtype = KILN_DTYPE_NONE;
    memset(out, 0, sizeof *out);
    KILN_TRY(kiln_pb_decode(&d->wire, &kiln_pb_tensor_desc, msg, &j.pb));
    out->name = j.pb.name;
    kiln_diag_at_offset(d->diag, kiln_wire_offset(&d->wire, msg->p));
    KILN_TRY(kiln_decode_dtype(d, j.pb.data_type, &dtype));
    KILN_TRY(read_dims(d, msg, KILN_PB_TENSOR_DIMS, j.pb.n_dims, dtype, &out->tensor, &j.count,
                       &j.bytes));
    KILN_TRY(read_data(&j));
    kiln_diag_at_offset(d->diag, -1);
    return KILN_OK;
}

/* Position in the dense tensor of stored value i, or -1. Indices are linear ([n]) or tuples
 * ([n, rank]). */
static int64_t sparse_position(const kiln_tensor *dense, const kiln_tensor *indices, int64_t i,
                               int64_t count) {
    const int64_t *v = indices->data;
    if (indices->rank == 1) {
        return v[i] >= 0 && v[i] < count ? v[i] : -1;
    }
    int64_t at = 0;
    for (int32_t k = 0; k < dense->rank; k++) {
        int64_t index = v[i * dense->rank + k];
        if (index < 0 || index >= dense->dims[k]) {
            return -1;
        }
        at = at * dense->dims[k] + index;
    }
    return at;
}

kiln_status kiln_decode_sparse(kiln_decoder *d, const kiln_msg *msg, kiln_stored_tensor *out) {
    kiln_pb_sparse pb;
    kiln_stored_tensor values, indices;
    int64_t count;
    size_t bytes;
    memset(out, 0, sizeof *out);
    KILN_TRY(kiln_pb_decode(&d->wire, &kiln_pb_sparse_desc, msg, &pb));
    if (!pb.values.p || !pb.indices.p) {
        return kiln_fail(d->diag, KILN_F_INITIALIZER,
                         "a sparse tensor lacks its values or indices");
    }
    KILN_TRY(kiln_decode_tensor(d, &pb.values, &values));
    KILN_TRY(kiln_decode_tensor(d, &pb.indices, &indices));
    const kiln_tensor *v = &values.tensor, *x = &indices.tensor;
    out->name = values.name;
    KILN_TRY(
        read_dims(d, msg, KILN_PB_SPARSE_DIMS, pb.n_dims, v->dtype, &out->tensor, &count, &bytes));
    int bits = kiln_dtype_bits(v->dtype);
    bool tuples = x->rank == 2 && x->dims[1] == out->tensor.rank;
    if (v->rank != 1 || x->dtype != KILN_DTYPE_I64 || !(x->rank == 1 || tuples) ||
        x->dims[0] != v->dims[0] || bits < 8) {
        return kiln_fail(d->diag, KILN_F_INITIALIZER,
                         "the values and indices of sparse tensor \"%.*s\" do not fit each other",
                         (int)out->name.n, out->name.n ? out->name.p : "");
    }
    KILN_TRY(kiln_decoder_alloc(d, bytes, &out->tensor.data));
    memset(out->tensor.data, 0, bytes);
    size_t width = (size_t)bits / 8;
    for (int64_t i = 0; i < v->dims[0]; i++) {
        int64_t at = sparse_position(&out->tensor, x, i, count);
        if (at < 0) {
            return kiln_fail(d->diag, KILN_F_INITIALIZER,
                             "index %lld of sparse tensor \"%.*s\" is out of range", (long long)i,
                             (int)out->name.n, out->name.n ? out->name.p : "");
        }
        memcpy((char *)out->tensor.data + (size_t)at * width,
               (const char *)v->data + (size_t)i * width, width);
    }
    return KILN_OK;
}
