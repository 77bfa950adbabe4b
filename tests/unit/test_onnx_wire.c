/* The wire format, tensors in every element type and encoding, sequences and optionals. */
#include "onnx/encode.h"
#include "onnx/tensor.h"
#include "test_onnx_common.h"

static kiln_wire wire_of(const kiln_out *out, kiln_diag *diag) {
    kiln_wire w = {
        .base = out->data, .budget = 1000, .max_depth = 3, .max_name = 100, .diag = diag};
    return w;
}

static kiln_msg msg_of(const kiln_out *out) {
    kiln_msg m = {out->data, out->data + out->len, 0};
    return m;
}

static void test_write_and_read(void **state) {
    static const uint64_t numbers[] = {
        0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX, (uint64_t)INT64_MIN};
    kiln_arena arena;
    char text[300];
    (void)state;
    memset(text, 'a', sizeof text);
    kiln_arena_init(&arena, NULL);
    kiln_out out = {.arena = &arena};
    for (size_t i = 0; i < KILN_COUNT_OF(numbers); i++) {
        kiln_out_varint(&out, 5, numbers[i]);
    }
    kiln_out_float(&out, 1000, 1.5f);
    size_t outer = kiln_out_begin(&out, 2);
    size_t inner = kiln_out_begin(&out, 3);
    kiln_out_data(&out, 4, text, sizeof text);
    kiln_out_end(&out, inner);
    kiln_out_varint(&out, 6, 7);
    kiln_out_end(&out, outer);
    assert_false(out.failed);

    kiln_wire wire = wire_of(&out, NULL);
    kiln_msg msg = msg_of(&out), sub, deep;
    kiln_field f;
    for (size_t i = 0; i < KILN_COUNT_OF(numbers); i++) {
        assert_int_equal(kiln_wire_next(&wire, &msg, &f), KILN_OK);
        assert_int_equal(f.number, 5);
        assert_true(f.bits == numbers[i]);
    }
    assert_int_equal(kiln_wire_next(&wire, &msg, &f), KILN_OK);
    assert_int_equal(f.number, 1000);
    assert_int_equal(f.bits, 0x3fc00000);
    assert_int_equal(kiln_wire_next(&wire, &msg, &f), KILN_OK);
    assert_false(kiln_wire_more(&msg));
    assert_int_equal(kiln_wire_enter(&wire, &msg, &f, &sub), KILN_OK);
    assert_int_equal(kiln_wire_next(&wire, &sub, &f), KILN_OK);
    assert_int_equal(kiln_wire_enter(&wire, &sub, &f, &deep), KILN_OK);
    assert_int_equal(kiln_wire_next(&wire, &deep, &f), KILN_OK);
    assert_int_equal(f.len, sizeof text);
    assert_memory_equal(f.data, text, sizeof text);
    assert_int_equal(kiln_wire_next(&wire, &sub, &f), KILN_OK);
    assert_int_equal(f.bits, 7);
    kiln_arena_free(&arena);
}

static void test_limits(void **state) {
    kiln_arena arena;
    (void)state;
    kiln_arena_init(&arena, NULL);
    kiln_out out = {.arena = &arena};
    size_t begins[4];
    for (int i = 0; i < 4; i++) {
        begins[i] = kiln_out_begin(&out, 1);
    }
    for (int i = 3; i >= 0; i--) {
        kiln_out_end(&out, begins[i]);
    }
    kiln_wire wire = wire_of(&out, NULL);
    kiln_msg msg = msg_of(&out), sub;
    kiln_field f;
    for (int depth = 0; depth < 3; depth++) {
        assert_int_equal(kiln_wire_next(&wire, &msg, &f), KILN_OK);
        assert_int_equal(kiln_wire_enter(&wire, &msg, &f, &sub), KILN_OK);
        msg = sub;
    }
    assert_int_equal(kiln_wire_next(&wire, &msg, &f), KILN_OK);
    assert_int_equal(kiln_wire_enter(&wire, &msg, &f, &sub), KILN_E_LIMIT);
    wire.budget = 0;
    msg = msg_of(&out);
    assert_int_equal(kiln_wire_next(&wire, &msg, &f), KILN_E_LIMIT);
    kiln_arena_free(&arena);
}

/* Elements of each type as the typed field holds them, and their bytes. */
typedef struct typed {
    kiln_dtype dtype;
    uint32_t field;
    int64_t dims, n;
    int64_t values[4]; /* varints */
    uint8_t bytes[32];
} typed;

static const typed cases[] = {
    {KILN_DTYPE_I8, 5, 3, 3, {-1, 127, -128}, {0xff, 0x7f, 0x80}},
    {KILN_DTYPE_U8, 5, 2, 2, {0, 255}, {0, 0xff}},
    {KILN_DTYPE_I16, 5, 2, 2, {-2, 300}, {0xfe, 0xff, 0x2c, 1}},
    {KILN_DTYPE_U16, 5, 1, 1, {65535}, {0xff, 0xff}},
    {KILN_DTYPE_I32, 5, 2, 2, {-1, 65536}, {0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0}},
    {KILN_DTYPE_BOOL, 5, 2, 2, {1, 0}, {1, 0}},
    {KILN_DTYPE_F16, 5, 2, 2, {0x3c00, 0xc000}, {0, 0x3c, 0, 0xc0}},
    {KILN_DTYPE_BF16, 5, 1, 1, {0x3f80}, {0x80, 0x3f}},
    {KILN_DTYPE_F8E4M3FN, 5, 2, 2, {0x38, 0xff}, {0x38, 0xff}},
    {KILN_DTYPE_F8E5M2, 5, 1, 1, {0x3c}, {0x3c}},
    {KILN_DTYPE_F8E8M0, 5, 1, 1, {127}, {127}},
    {KILN_DTYPE_I4, 5, 3, 2, {0x21, 0x0f}, {0x21, 0x0f}},
    {KILN_DTYPE_U4, 5, 2, 1, {0xf1}, {0xf1}},
    {KILN_DTYPE_F4E2M1, 5, 1, 1, {7}, {7}},
    {KILN_DTYPE_I2, 5, 5, 2, {0xe4, 1}, {0xe4, 1}},
    {KILN_DTYPE_U2, 5, 4, 1, {0x1b}, {0x1b}},
    {KILN_DTYPE_I64, 7, 2, 2, {-1, 5}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 5}},
    {KILN_DTYPE_U64, 11, 1, 1, {-1}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
    {KILN_DTYPE_U32, 11, 1, 1, {4294967295}, {0xff, 0xff, 0xff, 0xff}},
};

static void expect_tensor(kiln_arena *arena, const kiln_out *out, const typed *c) {
    kiln_tensor t;
    assert_false(out->failed);
    assert_int_equal(kiln_tensor_from_pb(&t, NULL, out->data, out->len, arena, NULL, NULL),
                     KILN_OK);
    assert_int_equal(t.dtype, c->dtype);
    assert_int_equal(t.rank, 1);
    assert_int_equal(t.dims[0], c->dims);
    assert_memory_equal(t.data, c->bytes, kiln_tensor_bytes(&t));
}

/* Unpacked, packed and raw give the same bytes; and raw at an odd address is still aligned. */
static void test_encodings(void **state) {
    (void)state;
    for (size_t i = 0; i < KILN_COUNT_OF(cases); i++) {
        const typed *c = &cases[i];
        kiln_tensor t = {
            .dtype = c->dtype, .rank = 1, .dims = {c->dims}, .data = (void *)(uintptr_t)c->bytes};
        kiln_arena arena;
        kiln_arena_init(&arena, NULL);
        for (int form = 0; form < 3; form++) {
            kiln_out out = {.arena = &arena};
            if (form == 2) {
                kiln_put_tensor(&out, &t, "name");
                expect_tensor(&arena, &out, c);
                continue;
            }
            kiln_put_tensor_head(&out, &t, NULL);
            size_t begin = form == 1 ? kiln_out_begin(&out, c->field) : 0;
            for (int64_t k = 0; k < c->n; k++) {
                if (form == 1) {
                    kiln_out_raw_varint(&out, (uint64_t)c->values[k]);
                } else {
                    kiln_out_varint(&out, c->field, (uint64_t)c->values[k]);
                }
            }
            if (form == 1) {
                kiln_out_end(&out, begin);
            }
            expect_tensor(&arena, &out, c);
        }
        kiln_arena_free(&arena);
    }
}

static void test_alignment(void **state) {
    static const double values[] = {1.5, -2.25};
    kiln_tensor t = {.dtype = KILN_DTYPE_F64,
                     .rank = 1,
                     .dims = {2},
                     .data = (void *)(uintptr_t)values},
                back;
    kiln_arena arena;
    (void)state;
    kiln_arena_init(&arena, NULL);
    for (size_t shift = 0; shift < 8; shift++) {
        kiln_out out = {.arena = &arena};
        kiln_put_tensor(&out, &t, "n");
        char *moved = (char *)kiln_arena_raw(&arena, out.len + 8) + shift;
        memcpy(moved, out.data, out.len);
        assert_int_equal(kiln_tensor_from_pb(&back, NULL, moved, out.len, &arena, NULL, NULL),
                         KILN_OK);
        assert_int_equal((uintptr_t)back.data % sizeof(double), 0);
        assert_memory_equal(back.data, values, sizeof values);
    }
    kiln_arena_free(&arena);
}

static void test_strings_and_bools(void **state) {
    static const char *const words[] = {"", "kiln", "f\xc3\xbcr"};
    static const uint8_t flags[] = {0, 2, 255};
    kiln_tensor t = {.dtype = KILN_DTYPE_STRING,
                     .rank = 1,
                     .dims = {3},
                     .data = (void *)(uintptr_t)words},
                back;
    kiln_arena arena;
    void *bytes;
    size_t len;
    (void)state;
    kiln_arena_init(&arena, NULL);
    assert_int_equal(kiln_tensor_to_pb(&bytes, &len, &t, "s", &arena), KILN_OK);
    assert_int_equal(kiln_tensor_from_pb(&back, NULL, bytes, len, &arena, NULL, NULL), KILN_OK);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(((const char **)back.data)[i], words[i]);
    }
    t = (kiln_tensor){
        .dtype = KILN_DTYPE_BOOL, .rank = 1, .dims = {3}, .data = (void *)(uintptr_t)flags};
    assert_int_equal(kiln_tensor_to_pb(&bytes, &len, &t, "s", &arena), KILN_OK);
    assert_int_equal(kiln_tensor_from_pb(&back, NULL, bytes, len, &arena, NULL, NULL), KILN_OK);
    assert_memory_equal(back.data, "\0\1\1", 3);
    kiln_arena_free(&arena);
}

/* seq(seq(tensor)) and optional(seq(tensor)), a missing optional, and one nested too deeply. */
static void test_datum(void **state) {
    static const float one = 1;
    kiln_tensor t = {.dtype = KILN_DTYPE_F32, .rank = 0, .data = (void *)(uintptr_t)&one};
    kiln_arena arena;
    kiln_datum d;
    (void)state;
    kiln_arena_init(&arena, NULL);
    kiln_out out = {.arena = &arena};
    size_t inner = kiln_out_begin(&out, 5);
    for (int i = 0; i < 2; i++) {
        size_t tensor = kiln_out_begin(&out, 3);
        kiln_put_tensor(&out, &t, NULL);
        kiln_out_end(&out, tensor);
    }
    kiln_out_end(&out, inner);
    assert_int_equal(kiln_datum_from_pb(&d, KILN_KIND_SEQUENCE, KILN_KIND_SEQUENCE, out.data,
                                        out.len, &arena, NULL, NULL),
                     KILN_OK);
    assert_int_equal(d.n_items, 1);
    assert_int_equal(d.items[0].n_items, 2);
    assert_int_equal(d.items[0].items[1].kind, KILN_KIND_TENSOR);
    assert_int_equal(kiln_datum_from_pb(&d, KILN_KIND_OPTIONAL, KILN_KIND_SEQUENCE, out.data,
                                        out.len, &arena, NULL, NULL),
                     KILN_OK);
    assert_int_equal(d.kind, KILN_KIND_OPTIONAL);
    assert_int_equal(d.items[0].kind, KILN_KIND_SEQUENCE);
    assert_int_equal(kiln_datum_from_pb(&d, KILN_KIND_SEQUENCE, KILN_KIND_TENSOR, out.data, out.len,
                                        &arena, NULL, NULL),
                     KILN_E_MALFORMED);
    assert_int_equal(
        kiln_datum_from_pb(&d, KILN_KIND_OPTIONAL, KILN_KIND_TENSOR, "", 0, &arena, NULL, NULL),
        KILN_OK);
    assert_int_equal(d.n_items, 0);
    kiln_out deep = {.arena = &arena};
    size_t begins[30];
    for (int i = 0; i < 30; i++) {
        begins[i] = kiln_out_begin(&deep, 5);
    }
    for (int i = 29; i >= 0; i--) {
        kiln_out_end(&deep, begins[i]);
    }
    assert_int_equal(kiln_datum_from_pb(&d, KILN_KIND_SEQUENCE, KILN_KIND_NONE, deep.data, deep.len,
                                        &arena, NULL, NULL),
                     KILN_E_LIMIT);
    kiln_arena_free(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_and_read),    cmocka_unit_test(test_limits),
        cmocka_unit_test(test_encodings),         cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_strings_and_bools), cmocka_unit_test(test_datum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
