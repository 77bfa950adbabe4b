#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets into tests/fuzz/corpus/<target>/.

    tests/fuzz/make_corpus.py BUILD/kiln

Small models that together reach most of the importer (attributes of all kinds, bodies, functions, sparse
and packed constants), the engines that the command builds from them, and npy files of every kind. The
output is the same on every run, so that a new seed is all that a commit shows.
"""

import io
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CORPUS = pathlib.Path(__file__).parent / "corpus"
OPSET = 21


def info(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def weights(name, *dims, dtype=np.float32):
    values = np.linspace(-0.5, 0.5, int(np.prod(dims)))
    return numpy_helper.from_array(values.astype(dtype).reshape(dims), name)


def integers(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def model(nodes, inputs, outputs, constants=(), functions=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", OPSET)] + [helper.make_opsetid("local", 1)] * bool(functions)
    return helper.make_model(graph, ir_version=10, opset_imports=opsets, functions=list(functions))


def models():
    node = helper.make_node
    yield "conv", model(
        [
            node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
            node("Relu", ["n"], ["r"]),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", ["p"], ["y"]),
        ],
        [info("x", ["N", 2, 6, 6])],
        [info("y", ["N", 36])],
        [weights("w", 4, 2, 3, 3), numpy_helper.from_array(np.ones(4, np.float32), "v")]
        + [weights(k, 4) for k in "bsm"],
    )
    yield "gemm", model(
        [node("Gemm", ["x", "w", "b"], ["g"], transB=1, alpha=0.5), node("Softmax", ["g"], ["y"], axis=-1)],
        [info("x", ["N", 6])],
        [info("y", ["N", 5])],
        [weights("w", 5, 6), weights("b", 5)],
    )
    then = helper.make_graph([node("Neg", ["x"], ["t"])], "then", [], [info("t", [2, 3])])
    other = helper.make_graph([node("Abs", ["x"], ["e"])], "else", [], [info("e", [2, 3])])
    yield "if", model(
        [node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
        [info("c", [], TensorProto.BOOL), info("x", [2, 3])],
        [info("y", [2, 3])],
    )
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["s", "s"], ["t"]), node("Identity", ["t"], ["h"])],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("s", [2])],
        [info("on", [], TensorProto.BOOL), info("t", [2]), info("h", [2])],
    )
    yield "loop", model(
        [node("Loop", ["n", "", "x"], ["last", "history"], body=body)],
        [info("n", [], TensorProto.INT64), info("x", [2])],
        [info("last", [2]), info("history", None)],
    )
    scan = helper.make_graph(
        [node("Add", ["s", "e"], ["t"]), node("Identity", ["t"], ["h"])],
        "body",
        [info("s", [3]), info("e", [3])],
        [info("t", [3]), info("h", [3])],
    )
    yield "scan", model(
        [node("Scan", ["x", "z"], ["last", "all"], body=scan, num_scan_inputs=1)],
        [info("x", [3]), info("z", [4, 3])],
        [info("last", [3]), info("all", [4, 3])],
    )
    function = helper.make_function(
        "local", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", OPSET)]
    )
    yield "function", model(
        [node("Twice", ["x"], ["h"], domain="local"), node("Twice", ["h"], ["y"], domain="local")],
        [info("x", [4])],
        [info("y", [4])],
        functions=[function],
    )
    yield "shapes", model(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "first"], ["n"]),
            node("Concat", ["n", "minus"], ["to"], axis=0),
            node("Reshape", ["x", "to"], ["r"]),
            node("Transpose", ["r"], ["t"], perm=[1, 0]),
            node("Slice", ["t", "from", "end"], ["y"]),
        ],
        [info("x", ["N", 2, 4])],
        [info("y", None)],
        [integers("first", 0), integers("minus", -1), integers("from", 1, 0), integers("end", 7, 9)],
    )
    yield "data", model(
        [node("NonZero", ["x"], ["f"]), node("Transpose", ["f"], ["t"]), node("GatherND", ["x", "t"], ["y"])],
        [info("x", [3, 4])],
        [info("y", None)],
    )
    yield "lstm", model(
        [node("LSTM", ["x", "w", "r"], ["y", "h", "c"], hidden_size=2, direction="bidirectional")],
        [info("x", [3, 1, 2])],
        [info("y", None), info("h", None), info("c", None)],
        [weights("w", 2, 8, 2), weights("r", 2, 8, 2)],
    )
    yield "quantized", model(
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])],
        [info("x", [2, 4])],
        [info("y", [2, 4])],
        [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(3), "z")],
    )
    yield "sequence", model(
        [
            node("SplitToSequence", ["x", "two"], ["s"]),
            node("SequenceAt", ["s", "one"], ["a"]),
            node("ConcatFromSequence", ["s"], ["y"], axis=0),
        ],
        [info("x", [4, 2])],
        [info("y", None), info("a", None)],
        [numpy_helper.from_array(np.int64(2), "two"), numpy_helper.from_array(np.int64(1), "one")],
    )
    yield "words", model(
        [
            node("Resize", ["x", "", "k"], ["r"], mode="linear", coordinate_transformation_mode="asymmetric"),
            node("Einsum", ["r", "r"], ["e"], equation="abcd,abcd->abc"),
            node("Cast", ["e"], ["y"], to=TensorProto.FLOAT16),
        ],
        [info("x", [1, 1, 3, 3])],
        [info("y", None, TensorProto.FLOAT16)],
        [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "k")],
    )
    typed = helper.make_tensor("w", TensorProto.INT32, [3], [1, 2, 3])
    sub_byte = helper.make_tensor("q", TensorProto.INT4, [3], [1, -2, 3])
    yield "types", model(
        [
            node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
            node("Cast", ["q"], ["g"], to=TensorProto.FLOAT),
            node("Sum", ["x", "f", "g"], ["y"]),
        ],
        [info("x", [3])],
        [info("y", [3])],
        [typed, sub_byte],
    )


def arrays():
    x = np.arange(12)
    for dtype in ("f4", ">f4", "f8", "f2", "i1", ">i8", "u2", "?", "c8"):
        yield dtype.strip(">") + ("_big" if ">" in dtype else ""), x.reshape(3, 4).astype(dtype), None
    yield "fortran", np.asfortranarray(x.reshape(3, 4).astype("f4")), None
    yield "scalar", np.float32(1), None
    yield "empty", np.zeros((0, 3), "f4"), None
    yield "version2", x.astype("f4"), (2, 0)
    yield "version3", x.astype("i4"), (3, 0)


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def build(kiln, name, data, *options):
    """The engine's bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = pathlib.Path(scratch) / "m.onnx", pathlib.Path(scratch) / "m.kiln"
        source.write_bytes(data)
        # The lowest instruction set, so that the seeds load on every machine.
        command = [kiln, "build", source, "-o", target, "--max-isa", "portable", "--no-timing", *options]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"{name}: {run.stderr}")
        return target.read_bytes()


def main():
    kiln = pathlib.Path(sys.argv[1]).resolve()
    for name, proto in models():
        data = proto.SerializeToString(deterministic=True)
        write("wire", name, data)
        write("import", name, data)
        write("engine", name, build(kiln, name, data))
        if name == "shapes":
            write("engine", "profile", build(kiln, name, data, "--dynamic-shape", "x:1..2..4x2x4"))
    write("wire", "varint", bytes([0x08] + [0x80] * 11))
    write("wire", "nested", b"\x0a\x06\x0a\x04\x0a\x02\x0a\x00")
    for name, array, version in arrays():
        out = io.BytesIO()
        np.lib.format.write_array(out, np.asanyarray(array), version=version)
        write("npy", name, out.getvalue())
    size = sum(f.stat().st_size for f in CORPUS.rglob("*") if f.is_file())
    print(f"{size} bytes of seeds")
    if size > 300_000:
        sys.exit("the seeds are larger than they should be")


main()
