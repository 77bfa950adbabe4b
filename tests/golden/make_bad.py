#!/usr/bin/env python3
"""Makes tests/golden/bad: small models that break a rule each, and expected.txt.

Usage: make_bad.py        (writes beside this script; needs onnx and numpy)

A line of expected.txt is `FILE CODE`: the code of the first finding that importing FILE must give, or
`ok` for a file that looks odd and is right. Names begin with the group: wire, graph, tensor, external.
Files that are large by nature are made by the tests that need them.
"""
import os

import numpy as np
import onnx
from onnx import TensorProto, helper

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bad")
expected = {}


def write(name, data, code):
    expected[name] = code
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.SerializeToString(deterministic=True))


# ---- wire format by hand ----

def varint(v):
    out = b""
    v &= (1 << 64) - 1
    while v >= 0x80:
        out += bytes([v & 0x7F | 0x80])
        v >>= 7
    return out + bytes([v])


def tag(field, kind):
    return varint(field << 3 | kind)


def num(field, v):
    return tag(field, 0) + varint(v)


def blob(field, data):
    data = data if isinstance(data, bytes) else data.encode()
    return tag(field, 2) + varint(len(data)) + data


OPSET = blob(8, blob(1, "") + num(2, 17))
HEAD = num(1, 8) + OPSET


def value(name, shape=(2,), dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def node(op, inputs, outputs, **kw):
    return helper.make_node(op, inputs, outputs, **kw)


def model(nodes, inputs=("x",), outputs=("y",), init=(), functions=(), opsets=None, name="g", ir=8):
    graph = helper.make_graph(
        list(nodes), name, [value(i) if isinstance(i, str) else i for i in inputs],
        [value(o) if isinstance(o, str) else o for o in outputs], list(init))
    m = helper.make_model(graph, functions=list(functions),
                          opset_imports=opsets if opsets is not None else [helper.make_opsetid("", 17)])
    m.ir_version = ir
    return m


def raw_graph(*parts):
    return HEAD + blob(7, b"".join(parts))


def raw_io(field, name):
    return blob(field, value(name).SerializeToString())


RELU = blob(1, blob(1, "x") + blob(2, "y") + blob(4, "Relu"))
IO = raw_io(11, "x") + raw_io(12, "y")


def wire():
    good = raw_graph(RELU, IO)
    write("wire_good.onnx", good, "ok")
    write("wire_empty.onnx", b"", "E0105")
    write("wire_one_byte.onnx", b"\x08", "E0101")
    write("wire_varint_11_bytes.onnx", b"\x08" + b"\x80" * 11, "E0102")
    write("wire_length_2_63.onnx", HEAD + tag(7, 2) + varint(1 << 63) + b"\x00" * 8, "E0101")
    write("wire_beyond_parent.onnx", HEAD + blob(7, tag(1, 2) + varint(100) + b"\x0a\x01x"), "E0101")
    for kind in (3, 4, 6, 7):
        write(f"wire_type_{kind}.onnx", HEAD + tag(30, kind) + b"\x00", "E0103")
    write("wire_field_0.onnx", HEAD + b"\x00\x00", "E0103")
    write("wire_graph_as_varint.onnx", HEAD + num(7, 5), "E0103")
    write("wire_node_as_fixed.onnx", raw_graph(tag(1, 1) + b"\x00" * 8, IO), "E0103")
    # dims and int64_data, one element unpacked, the others packed
    tensor = num(1, 2) + blob(1, varint(2)) + num(2, 7) + blob(8, "w") + num(7, 1) + blob(7, varint(2) +
             varint(3)) + num(7, 4)
    add = blob(1, blob(1, "x") + blob(1, "w") + blob(2, "y") + blob(4, "Add"))
    ios = blob(11, value("x", (2, 2), 7).SerializeToString()) + blob(12, value("y", (2, 2), 7).SerializeToString())
    write("wire_packed_and_unpacked.onnx", raw_graph(add, blob(5, tensor), ios), "ok")
    cut = num(1, 1) + num(2, 7) + blob(8, "w") + blob(7, b"\x80")
    write("wire_packed_cut.onnx", raw_graph(add, blob(5, cut), ios), "E0103")
    write("wire_packed_fixed_odd.onnx",
          raw_graph(add, blob(5, num(1, 1) + num(2, 1) + blob(8, "w") + blob(4, b"\0" * 5)), ios), "E0103")
    write("wire_singular_twice.onnx", num(1, 3) + blob(2, "a") + blob(2, "b") + good, "ok")
    write("wire_unknown_fields.onnx", good + blob(500, b"anything") + num(501, 7), "ok")
    write("wire_trailing_garbage.onnx", good + b"\xff" * 5, "E0101")
    write("wire_no_graph.onnx", HEAD, "E0105")
    bad_name = blob(1, blob(1, b"\xff\xfe") + blob(2, "y") + blob(4, "Relu"))
    write("wire_name_not_utf8.onnx", raw_graph(bad_name, IO), "E0106")
    write("wire_name_surrogate.onnx", raw_graph(blob(1, blob(1, b"\xed\xa0\x80") + blob(2, "y") + blob(4,
          "Relu")), IO), "E0106")
    write("wire_name_nul.onnx", raw_graph(blob(1, blob(1, b"x\0") + blob(2, "y") + blob(4, "Relu")), IO), "E0106")
    write("wire_empty_node.onnx", raw_graph(blob(1, b""), IO), "E0301")
    # a graph in an attribute of a node of a graph in ...; the function makes the walk look into it
    deep = b""
    for _ in range(400):
        deep = blob(1, blob(4, "If") + blob(2, "y") + blob(5, blob(1, "then_branch") + blob(6, deep) + num(20, 5)))
    function = blob(25, blob(1, "f") + blob(10, "d"))
    write("wire_deep_graphs.onnx", HEAD + blob(7, deep + IO) + function, "E0104")
    write("text_pbtxt.onnx", b'ir_version: 8\nproducer_name: "x"\ngraph {\n  name: "g"\n}\n' * 3, "E0105")
    write("text_json.onnx", b'{"irVersion": "8", "graph": {"node": []}}\n' * 3, "E0105")
    write("text_html.onnx", b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n", "E0105")
    write("text_lfs.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "E0105")
    write("archive_zip.onnx", b"PK\x03\x04" + b"\0" * 60, "E0105")


def graphs():
    relu = node("Relu", ["x"], ["y"])
    write("graph_cycle.onnx", model([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]),
                                     node("Relu", ["b"], ["y"])]), "E0301")
    write("graph_self_loop.onnx", model([node("Add", ["x", "y"], ["y"])]), "E0301")
    write("graph_input_undefined.onnx", model([node("Add", ["x", "nothing"], ["y"])]), "E0301")
    write("graph_output_undefined.onnx", model([relu], outputs=("z",)), "E0301")
    write("graph_two_producers.onnx", model([relu, node("Abs", ["x"], ["y"])]), "E0301")
    write("graph_produces_its_input.onnx", model([node("Relu", ["x"], ["x"])], outputs=("x",)), "E0301")
    w = helper.make_tensor("w", TensorProto.FLOAT, [3], [1, 2, 3])
    write("graph_initializer_other_shape.onnx",
          model([node("Add", ["x", "w"], ["y"])], inputs=("x", value("w", (2,))), init=[w]), "E0301")
    write("graph_initializer_other_type.onnx",
          model([node("Add", ["x", "w"], ["y"])], inputs=("x", value("w", (3,), TensorProto.INT64)), init=[w]), "E0301")
    w2 = helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])
    write("graph_initializer_as_input.onnx",
          model([node("Add", ["x", "w"], ["y"])], inputs=("x", "w"), init=[w2]), "ok")
    write("graph_initializer_twice.onnx", model([node("Add", ["x", "w"], ["y"])], init=[w2, w2]), "E0301")
    write("graph_unsorted.onnx", model([node("Relu", ["c"], ["y"]), node("Abs", ["b"], ["c"]),
                                        node("Neg", ["x"], ["b"])]), "ok")
    diamonds, last = [], "x"
    for i in range(64):
        diamonds.append(node("Add", [last, last], [f"d{i}"]))
        last = f"d{i}"
    write("graph_diamonds.onnx", model(diamonds, outputs=(last,)), "ok")
    write("graph_empty.onnx", model([], outputs=()), "ok")
    write("graph_passes_input.onnx", model([], outputs=("x",)), "ok")
    write("graph_no_type.onnx", raw_graph(RELU, blob(11, blob(1, "x")), raw_io(12, "y")), "E0301")
    write("graph_unknown_attribute.onnx", model([node("Relu", ["x"], ["y"], colour=1)]), "E0304")
    write("graph_attribute_kind.onnx", model([node("Elu", ["x"], ["y"], alpha="a")]), "E0304")
    write("graph_attribute_twice.onnx",
          raw_graph(blob(1, blob(1, "x") + blob(2, "y") + blob(4, "Elu")
                         + 2 * blob(5, blob(1, "alpha") + tag(2, 5) + b"\0\0\x80\x3f" + num(20, 1))), IO), "E0304")
    write("graph_too_many_inputs.onnx", model([node("Relu", ["x", "x"], ["y"])]), "E0305")
    write("graph_too_few_inputs.onnx", model([node("Add", ["x"], ["y"])]), "E0305")
    write("graph_left_out_input.onnx", model([node("Add", ["", "x"], ["y"])]), "E0305")
    write("graph_too_many_outputs.onnx", model([node("Relu", ["x"], ["y", "z"])]), "E0305")
    for version in (0, 29, 1000000, -1):
        write(f"opset_{version}.onnx", model([relu], opsets=[helper.make_opsetid("", version)]), "E0303")
    write("opset_missing.onnx", model([relu], opsets=[helper.make_opsetid("com.microsoft", 1)]), "E0303")
    write("opset_two.onnx", model([relu], opsets=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx", 13)]),
          "E0303")
    write("opset_twice_same.onnx", model([relu], opsets=[helper.make_opsetid("", 17),
          helper.make_opsetid("ai.onnx", 17)]),
          "ok")
    write("domain_unknown.onnx", model([node("Relu", ["x"], ["y"], domain="org.example")],
                                       opsets=[helper.make_opsetid("", 17), helper.make_opsetid("org.example", 1)]),
          "E0302")
    write("op_unknown.onnx", model([node("Rulu", ["x"], ["a"]), node("Frob", ["a"], ["y"])]), "E0302")
    for name, text in (("script", "<script>alert(1)</script>"), ("ansi", "\x1b[31mred\x1b[0m\x1b]0;t\x07"),
                       ("newline", "a\nerror[E9999]: b")):
        write(f"name_{name}.onnx", model([node("Relu", ["x"], [text], name=text)], outputs=(text,)), "ok")
    write("name_66_kib.onnx", model([node("Relu", ["x"], ["y"], name="n" * (66 << 10))]), "E0309")


def functions():
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]

    def f(name, nodes, inputs=("a",), outputs=("b",), **kw):
        return helper.make_function("d", name, list(inputs), list(outputs), list(nodes), sets, **kw)

    def call(name, i="x", o="y", **kw):
        return node(name, [i], [o], domain="d", **kw)

    relu = f("r", [node("Relu", ["a"], ["b"])])
    write("function_good.onnx", model([call("r")], functions=[relu], opsets=sets), "ok")
    write("function_pass_through.onnx",
          model([call("p")], functions=[f("p", [node("Relu", ["a"], ["c"])], outputs=("a",))], opsets=sets), "ok")
    write("function_recursive.onnx", model([call("r")], functions=[f("r", [call("r", "a", "b")])],
          opsets=sets), "E0306")
    write("function_mutual.onnx", model([call("p")], functions=[f("p", [call("q", "a", "b")]),
                                                                 f("q", [call("p", "a", "b")])], opsets=sets), "E0306")
    chain = [f(f"c{i}", [call(f"c{i + 1}", "a", "b")]) for i in range(300)] + [f("c300", [node("Relu", ["a"], ["b"])])]
    write("function_chain.onnx", model([call("c0")], functions=chain, opsets=sets), "E0306")
    bomb = [f(f"b{i}", [call(f"b{i + 1}", "a", "m"), call(f"b{i + 1}", "m", "b")]) for i in range(30)]
    bomb.append(f("b30", [node("Relu", ["a"], ["b"])]))
    write("function_bomb.onnx", model([call("b0")], functions=bomb, opsets=sets), "E0309")
    write("function_twice.onnx", model([call("r")], functions=[relu, relu], opsets=sets), "E0306")
    write("function_no_output.onnx", model([call("n")], functions=[f("n", [node("Relu", ["a"], ["c"])])], opsets=sets),
          "E0306")
    write("function_too_many_inputs.onnx", model([node("r", ["x", "x"], ["y"], domain="d")],
          functions=[relu], opsets=sets),
          "E0306")
    write("function_sees_no_outside.onnx",
          model([call("o")], functions=[f("o", [node("Add", ["a", "x"], ["b"])])], opsets=sets), "E0301")
    stray = node("Elu", ["x"], ["y"])
    stray.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="k", type=onnx.AttributeProto.FLOAT))
    write("function_reference_outside.onnx", model([stray]), "E0304")


def tensors():
    def with_init(t, code, name, shape=(2,)):
        write(name, model([node("Identity", ["w"], ["y"])], inputs=(), outputs=(value("y", shape,
              t.data_type),), init=[t]),
              code)

    def tensor(dims, dtype=TensorProto.FLOAT, raw=None):
        t = TensorProto(name="w", data_type=dtype)
        t.dims.extend(dims)
        if raw is not None:
            t.raw_data = raw
        return t

    with_init(tensor([1 << 62, 8], raw=b""), "E0406", "tensor_dims_wrap.onnx")
    with_init(tensor([1 << 32, 1 << 32], raw=b""), "E0406", "tensor_dims_2_64.onnx")
    with_init(tensor([-1], raw=b""), "E0307", "tensor_dim_negative.onnx")
    with_init(tensor([0, 5], raw=b""), "ok", "tensor_zero_dim.onnx", (0, 5))
    with_init(tensor([0, 5]), "ok", "tensor_zero_dim_no_data.onnx", (0, 5))
    with_init(tensor([1] * 1000, raw=b"\0" * 4), "E0307", "tensor_rank_1000.onnx")
    for n, code in ((7, "E0307"), (9, "E0307"), (8, "ok"), (12, "E0307")):
        with_init(tensor([2], raw=b"\0" * n), code, f"tensor_raw_{n}_of_8.onnx")
    with_init(tensor([3], TensorProto.INT4, b"\x21\x03"), "ok", "tensor_int4_odd.onnx", (3,))
    with_init(tensor([3], TensorProto.INT4, b"\x21"), "E0307", "tensor_int4_half.onnx", (3,))
    with_init(tensor([2], 0, b"\0" * 8), "E0308", "tensor_dtype_0.onnx")
    with_init(tensor([2], 27, b"\0" * 2), "E0308", "tensor_dtype_f6.onnx")
    with_init(tensor([2], 99, b"\0" * 8), "E0308", "tensor_dtype_99.onnx")
    both = tensor([2], raw=b"\0" * 8)
    both.float_data.extend([1, 2])
    with_init(both, "E0307", "tensor_raw_and_typed.onnx")
    other = tensor([2])
    other.int64_data.extend([1, 2])
    with_init(other, "E0307", "tensor_other_field.onnx")
    few = tensor([2])
    few.float_data.extend([1])
    with_init(few, "E0307", "tensor_typed_short.onnx")
    byte = tensor([1], TensorProto.UINT8)
    byte.int32_data.extend([256])
    with_init(byte, "E0307", "tensor_u8_256.onnx")
    with_init(tensor([1], TensorProto.STRING, b"a"), "E0307", "tensor_string_raw.onnx")
    place = tensor([2], raw=b"\0" * 8)
    place.data_location = TensorProto.EXTERNAL
    with_init(place, "E0307", "tensor_raw_and_external.onnx")
    for name, dims, indices, code in (("good", [4], [1, 3], "ok"), ("range", [4], [1, 4], "E0307"),
                                      ("negative", [4], [-1, 3], "E0307"), ("huge", [1 << 45], [1, 3], "E0406")):
        sparse = onnx.SparseTensorProto(dims=dims)
        sparse.values.CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, [2], [5, 6]))
        sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [2], indices))
        m = model([node("Identity", ["w"], ["y"])], inputs=(), outputs=(value("y", (4,)),))
        m.graph.sparse_initializer.append(sparse)
        write(f"tensor_sparse_{name}.onnx", m, code)


def external():
    def tensor(name, entries, dims):
        t = TensorProto(name=name, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        t.dims.extend(dims)
        for k, v in entries:
            t.external_data.add(key=k, value=v)
        return t

    def with_entries(name, code, entries, dims=(2,)):
        t = tensor("w", entries, dims)
        write(name, model([node("Identity", ["w"], ["y"])], inputs=(), outputs=(value("y", dims),), init=[t]), code)

    with open(os.path.join(OUT, "weights.bin"), "wb") as f:
        f.write(np.arange(6, dtype=np.float32).tobytes())
    sha = "d2b1e9d2e4d1b1a5"  # no checksum of anything
    good = [("location", "weights.bin")]
    with_entries("external_good.onnx", "ok", good + [("offset", "8"), ("length", "8")])
    with_entries("external_whole.onnx", "ok", good, (6,))
    with_entries("external_checksum_unverified.onnx", "ok", good + [("checksum", sha)])
    for name, location in (("absolute", "/etc/passwd"), ("parent", "../make_bad.py"), ("inner_parent",
          "a/../../make_bad.py"),
                           ("empty", ""), ("long", "a" * 5000), ("backslash", "a\\weights.bin"),
                           ("drive", "C:weights.bin"), ("marker", "*/_ORT_MEM_ADDR_/*")):
        with_entries(f"external_path_{name}.onnx", "E0205", [("location", location)])
    with_entries("external_no_location.onnx", "E0207", [("offset", "0")])
    with_entries("external_key_unknown.onnx", "E0207", good + [("basepath", "x")])
    with_entries("external_key_twice.onnx", "E0207", good + good)
    with_entries("external_missing.onnx", "E0201", [("location", "no_such_file.bin")])
    with_entries("external_folder.onnx", "E0201", [("location", ".")])
    for name, number in (("negative", "-8"), ("hex", "0x10"), ("plus", "+8"), ("space", " 8"), ("empty", ""),
                         ("fraction", "8.0"), ("wrap", "18446744073709551608"), ("huge", "1152921504606846976")):
        with_entries(f"external_offset_{name}.onnx", "E0206", good + [("offset", number)])
        with_entries(f"external_length_{name}.onnx", "E0206", good + [("length", number)])
    with_entries("external_past_end.onnx", "E0206", good + [("offset", "17")])
    with_entries("external_short.onnx", "E0206", good, (7,))
    with_entries("external_length_other.onnx", "E0206", good + [("length", "4")])
    # Tensors only read: they may share bytes, even with the model that names them.
    with_entries("external_itself.onnx", "ok", [("location", "external_itself.onnx"), ("length", "8")])
    shared = [tensor("v", good + [("offset", "4")], (4,)), tensor("w", good + [("offset", "8")], (4,))]
    added = model([node("Add", ["v", "w"], ["y"])], inputs=(), outputs=(value("y", (4,)),), init=shared)
    write("external_overlap.onnx", added, "ok")


def main():
    os.makedirs(OUT, exist_ok=True)
    for old in os.listdir(OUT):
        os.remove(os.path.join(OUT, old))
    for make in (wire, graphs, functions, tensors, external):
        make()
    with open(os.path.join(OUT, "expected.txt"), "w", encoding="ascii") as f:
        for name in sorted(expected):
            f.write(f"{name} {expected[name]}\n")


if __name__ == "__main__":
    main()
