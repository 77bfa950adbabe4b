#!/usr/bin/env python3
"""Operators whose attributes, sizes or indices are impossible, or would need all memory: each is
refused with a sentence and the right status, within 1 GiB and without a crash; those that are
merely odd and legal give what they should. The numbers are those of the list of hostile inputs that
the project keeps (26, 33, 34 and 43 to 66)."""

# ctest-timeout: 900

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from networks import KILN, constant, kiln, main, save, value

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
NAN, INF = float("nan"), float("inf")
MEMORY = 1 << 30
CACHE = Path(os.environ.get("KILN_BUILD", "."), "CMakeCache.txt")
SANITIZED = CACHE.exists() and re.search(r"^KILN_SANITIZE:\w+=\w", CACHE.read_text(), re.M)
BAD = (3,)
LARGE = (6,)
BAD_OR_LARGE = (3, 6)


def limit():
    resource.setrlimit(resource.RLIMIT_AS, (3 * MEMORY, 3 * MEMORY))


def peak_kib(words):
    """Exit status, text and peak memory of a run."""
    process = subprocess.Popen(
        [KILN, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        preexec_fn=None if SANITIZED else limit,  # sanitizers reserve more than any limit
    )
    text = process.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, text, usage.ru_maxrss


def f32(*v):
    return np.array(v, np.float32)


def i64(*v):
    return np.array(v, np.int64)


X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
IMAGE = np.arange(2 * 4 * 5 * 5, dtype=np.float32).reshape(2, 4, 5, 5)


def attempt(t, op, arrays, expected, outputs=1, domain="", feed=True, **attributes):
    """Runs one node; its first operand is an input, the others are constants, and then (feed) inputs.
    expected: exit statuses, the array that output 0 is, or None: it runs or is refused."""
    for fed in (False, True) if feed and len(arrays) > 1 else (False,):
        names = [f"v{i}" if a is not None else "" for i, a in enumerate(arrays)]
        ins = [i for i, a in enumerate(arrays) if a is not None and (i == 0 or fed)]
        node = helper.make_node(
            op, names, [f"y{i}" for i in range(outputs)], domain=domain, **attributes
        )
        kinds = [helper.np_dtype_to_tensor_dtype(arrays[i].dtype) for i in ins]
        ios = [value(names[i], arrays[i].shape, kind) for i, kind in zip(ins, kinds)]
        more = [
            constant(names[i], a) for i, a in enumerate(arrays) if a is not None and i not in ins
        ]
        outs = [onnx.ValueInfoProto(name=f"y{i}") for i in range(outputs)]
        net = save(t / "n.onnx", [node], ios, outs, more, opset=18)
        words = ["run", net, "--threads", 1, "-o", f"y0={t}/y.npy"]
        for i in ins:
            np.save(t / f"{i}.npy", arrays[i])
            words += ["-i", f"{names[i]}={t}/{i}.npy"]
        code, text, peak = peak_kib(words)
        form = "inputs" if fed else "constants"
        what = f"{op} {attributes} {form}: exit {code}, {peak} KiB\n{text[-700:]}"
        assert SANITIZED or peak < MEMORY // 1024, what
        if isinstance(expected, tuple):
            assert code in expected and "error[E" in text, what
        elif expected is None:
            assert code in (0, *BAD_OR_LARGE), what
        else:
            assert code == 0, what
            got = np.load(t / "y.npy")
            same = np.array_equal(got, expected, equal_nan=got.dtype.kind == "f")
            assert got.shape == expected.shape and same, f"{what}{got}"


def reshape_43(t):
    attempt(t, "Reshape", [X, i64(-1, -1)], BAD)
    attempt(t, "Reshape", [X, i64(5, 5)], BAD)
    attempt(t, "Reshape", [X, i64(-1, 5)], BAD)
    attempt(t, "Reshape", [X, i64(-2, 12)], BAD)
    attempt(t, "Reshape", [X, i64(0, 0, 0, 0)], BAD)
    attempt(t, "Reshape", [X, i64(0, -1)], BAD, allowzero=1)
    attempt(t, "Reshape", [X, i64(INT64_MAX, INT64_MAX)], BAD_OR_LARGE)
    attempt(t, "Reshape", [X, i64(INT64_MIN, 24)], BAD)
    attempt(t, "Reshape", [X, i64(0, -1)], X.reshape(2, 12))


def reshape_known_in_part_43(t):
    """One entry of the target is an input: the others and the number of elements leave it no choice."""
    for last, expected in ((12, 0), (-1, 0), (11, 3), (0, 3), (-2, 3), (2**40, 3), (INT64_MAX, 6)):
        join = helper.make_node("Concat", ["two", "last"], ["s"], axis=0)
        nodes = [join, helper.make_node("Reshape", ["x", "s"], ["y"])]
        ios = [value("x", X.shape), value("last", [1], TensorProto.INT64)]
        outs = [onnx.ValueInfoProto(name="y")]
        net = save(t / "n.onnx", nodes, ios, outs, [constant("two", i64(2))], opset=18)
        np.save(t / "x.npy", X)
        np.save(t / "last.npy", i64(last))
        words = ["run", net, "-i", f"x={t}/x.npy", "-i", f"last={t}/last.npy", "-o", f"y={t}/y.npy"]
        for more in ([], ["--off", "view"], ["--mark", "s"]):
            done = kiln(*words, *more, "--threads", 1)
            assert done.returncode == expected, (last, more, done)
            if expected:
                assert "error[E04" in done.stderr and "Reshape" in done.stderr, (last, more, done)
            else:
                assert np.array_equal(np.load(t / "y.npy"), X.reshape(2, 12)), (last, more)


def slice_44(t):
    def case(starts, ends, axes, steps, expected):
        attempt(t, "Slice", [X, i64(*starts), i64(*ends), i64(*axes), i64(*steps)], expected)

    case([0], [1], [0], [0], BAD)
    case([0], [1], [3], [1], BAD)
    case([0], [1], [-4], [1], BAD)
    case([0, 0], [1, 1], [1, 1], [1, 1], BAD)
    case([0, 0], [1], [0], [1], BAD)
    case([INT64_MIN], [INT64_MAX], [2], [1], X)
    case([INT64_MAX], [INT64_MIN], [2], [-1], X[:, :, ::-1])
    case([INT64_MAX], [INT64_MIN], [2], [INT64_MIN], X[:, :, 3:])
    case([0], [INT64_MAX], [2], [INT64_MAX], X[:, :, :1])
    case([INT64_MIN], [INT64_MIN], [2], [1], X[:, :, :0])


def gather_scatter_45(t):
    for index in (-3, 2, INT64_MIN, INT64_MAX):
        attempt(t, "Gather", [X, i64(index)], BAD)
        attempt(t, "GatherElements", [X, np.full((1, 1, 1), index)], BAD)
        attempt(t, "GatherND", [X, i64(index).reshape(1, 1)], BAD)
        attempt(t, "ScatterND", [X, i64(index).reshape(1, 1), X[:1]], BAD)
        attempt(t, "ScatterElements", [X, np.full((1, 1, 1), index), X[:1, :1, :1]], BAD)
    attempt(t, "GatherND", [X, np.zeros((1, 4), np.int64)], BAD)
    attempt(t, "GatherND", [X, np.zeros((1, 1), np.int64)], BAD, batch_dims=2)
    attempt(t, "ScatterND", [X, np.zeros((1, 1), np.int64), X[0]], BAD)
    attempt(t, "Gather", [X, i64(-2)], X[:1])


def concat_split_46_47(t):
    for axis in (99, -4, INT64_MIN):
        attempt(t, "Concat", [X, X], BAD, axis=axis)
        attempt(t, "Split", [X], BAD, outputs=2, axis=axis, num_outputs=2)
    attempt(t, "Concat", [X, IMAGE], BAD, axis=0)
    attempt(t, "Split", [X, i64(1, 2)], BAD, outputs=2, axis=2)
    attempt(t, "Split", [X, i64(-1, 5)], BAD, outputs=2, axis=2)
    attempt(t, "Split", [X, i64(INT64_MAX, INT64_MAX)], BAD, outputs=2, axis=2)
    attempt(t, "Split", [X], BAD, outputs=2, num_outputs=0)
    attempt(t, "Split", [X], BAD, outputs=2, num_outputs=3)


def conv_48(t):
    w = np.ones((4, 4, 3, 3), np.float32)
    attempt(t, "Conv", [IMAGE, w], BAD, group=0)
    attempt(t, "Conv", [IMAGE, w], BAD, group=3)
    attempt(t, "Conv", [IMAGE, w], BAD, group=INT64_MIN)
    attempt(t, "Conv", [IMAGE, w], BAD, kernel_shape=[2, 2])
    for name in ("strides", "dilations"):
        for v in (0, -1, 2**31, INT64_MAX):
            attempt(t, "Conv", [IMAGE, w], BAD, **{name: [v, 1]})
    for pad in (-1, 2**40, INT64_MAX, INT64_MIN):
        attempt(t, "Conv", [IMAGE, w], BAD, pads=[pad, 0, 0, 0])
    attempt(t, "Conv", [IMAGE, w], BAD, pads=[1, 1])
    attempt(t, "Conv", [IMAGE, w], LARGE, pads=[2**30] * 4)


def pools_49(t):
    for op in ("MaxPool", "AveragePool", "LpPool"):
        attempt(t, op, [IMAGE], BAD, kernel_shape=[6, 6])
        attempt(t, op, [IMAGE], BAD, kernel_shape=[0, 1])
        attempt(t, op, [IMAGE], BAD, kernel_shape=[INT64_MAX, 1])
        attempt(t, op, [IMAGE], BAD, kernel_shape=[2, 2], strides=[0, 1])
        attempt(t, op, [IMAGE], BAD, kernel_shape=[2])
    want = IMAGE[:, :, ::3, ::3]
    attempt(t, "MaxPool", [IMAGE], want, kernel_shape=[1, 1], strides=[3, 3], ceil_mode=1)
    attempt(t, "GlobalAveragePool", [f32(1, 2)], BAD)


def conv_transpose_50(t):
    w = np.ones((4, 2, 3, 3), np.float32)
    attempt(t, "ConvTranspose", [IMAGE, w], BAD_OR_LARGE, output_padding=[2**40, 0])
    attempt(t, "ConvTranspose", [IMAGE, w], BAD_OR_LARGE, output_padding=[2**30, 2**30], strides=[2**30 + 1] * 2)
    attempt(t, "ConvTranspose", [IMAGE, w], BAD, output_shape=[INT64_MAX, 5])
    attempt(t, "ConvTranspose", [IMAGE, w], BAD, output_padding=[-1, 0])


def resize_51(t):
    def scales(*v, expected=BAD):
        attempt(t, "Resize", [IMAGE, None, f32(*v)], expected)

    scales(1, 1, 2)
    for v in (0, -1, NAN, INF):
        scales(1, 1, v, 1)
    scales(1, 1, 1e30, 1, expected=BAD_OR_LARGE)
    scales(1, 1, 1e9, 1e9, expected=BAD_OR_LARGE)
    attempt(t, "Resize", [IMAGE, None, None, i64(2, 4, -5, 5)], BAD)
    attempt(t, "Resize", [IMAGE, None, None, i64(2, 4, 2**40, 5)], BAD_OR_LARGE)
    attempt(t, "Resize", [IMAGE, None, None, i64(2, 4, 5)], BAD)


def pads_and_repeats_52_53(t):
    for pad in (2**40, INT64_MAX, INT64_MIN, -9):
        attempt(t, "Pad", [X, i64(0, 0, 0, 0, 0, pad)], BAD_OR_LARGE)
    attempt(t, "Pad", [X, i64(0, 0)], BAD)
    attempt(t, "Pad", [X, i64(0, 0, 0, 0, 0, 2**36)], BAD_OR_LARGE, mode="edge")
    attempt(t, "Expand", [X, i64(2**50, 1, 1, 1)], BAD_OR_LARGE)
    # Dims that are not 1 stay, but a shape that only the run knows may not say otherwise.
    attempt(t, "Expand", [X, i64(2, 3, 5)], BAD)
    attempt(t, "Expand", [X, i64(-1, 3, 4)], BAD)
    attempt(t, "Expand", [X, i64(1, 3, 1)], X)
    attempt(t, "Tile", [X, i64(2**50, 1, 1)], BAD_OR_LARGE)
    attempt(t, "Tile", [X, i64(INT64_MAX, INT64_MAX, INT64_MAX)], BAD_OR_LARGE)
    attempt(t, "Tile", [X, i64(-1, 1, 1)], BAD)
    attempt(t, "Tile", [X, i64(1, 1)], BAD)


def scalar(v, dtype=np.float32):
    return np.array(v, dtype)


def range_54(t):
    attempt(t, "Range", [scalar(0), scalar(1e18), scalar(1e-9)], BAD_OR_LARGE)
    attempt(t, "Range", [scalar(0), scalar(1), scalar(0)], BAD)
    attempt(t, "Range", [scalar(0), scalar(INF), scalar(1)], BAD_OR_LARGE)
    for ends in ((0, NAN, 1), (NAN, 1, 1), (0, 1, NAN), (INF, 1, 1), (0, 5, INF)):
        attempt(t, "Range", [scalar(v) for v in ends], None)
    ends = [scalar(v, np.int64) for v in (INT64_MIN, INT64_MAX, 1)]
    attempt(t, "Range", ends, BAD_OR_LARGE)
    attempt(t, "Range", [scalar(5), scalar(0), scalar(1)], f32())


def one_hot_55(t):
    for depth in (-1, INT64_MIN):
        attempt(t, "OneHot", [i64(0, 1), scalar(depth, np.int64), f32(0, 1)], BAD)
    attempt(t, "OneHot", [i64(0, 1), scalar(2**50, np.int64), f32(0, 1)], BAD_OR_LARGE)
    attempt(t, "OneHot", [i64(0, 1), i64(), f32(0, 1)], BAD)
    attempt(t, "OneHot", [i64(0, 1), scalar(2, np.int64), f32(0)], BAD)
    want = np.zeros((1, 3), np.float32)
    attempt(t, "OneHot", [i64(7), scalar(3, np.int64), f32(0, 1)], want)


def data_sized_56_57(t):
    x = np.ones((300, 300), np.float32)
    attempt(t, "NonZero", [x], np.array(np.nonzero(x)))
    for k in (25, -1, INT64_MIN, INT64_MAX):
        attempt(t, "TopK", [X, i64(k)], BAD, outputs=2)
    attempt(t, "TopK", [X, i64(1)], BAD, outputs=2, axis=3)
    attempt(t, "TopK", [X, i64(0)], X[:, :, :0], outputs=2)


def einsum_58(t):
    for equation in ("ij->", "ijk->ijz", "i..j", "->", "ijk,->", "iij->j", "i" * 70 + "->i", ""):
        attempt(t, "Einsum", [X], BAD, equation=equation)
    attempt(t, "Einsum", [X], scalar(X.sum()), equation="ijk->")
    attempt(t, "Einsum", [scalar(3)], scalar(3), equation="->")


def batch_norm_59(t):
    one = np.ones(4, np.float32)
    negative = np.full(4, -1, np.float32)
    attempt(t, "BatchNormalization", [IMAGE, one, one, one, one[:3]], BAD)
    nan = np.full(IMAGE.shape, NAN, np.float32)
    attempt(t, "BatchNormalization", [IMAGE, one, one, one, negative], nan)
    attempt(t, "BatchNormalization", [IMAGE, one, one, one, one * np.float32(NAN)], nan)


def contrib_60(t):
    a, b = np.ones((1, 64), np.float32), np.zeros((4, 2, 16), np.uint8)
    good = {"K": 64, "N": 4, "bits": 4, "block_size": 32, "domain": "com.microsoft"}
    s = np.ones(8, np.float32)
    for wrong in ({"N": 400}, {"K": 6400}, {"bits": 99}, {"block_size": 0}, {"block_size": 2**40}, {"N": -1}):
        attempt(t, "MatMulNBits", [a, b, s], (3, 4), **good | wrong)
    x = np.ones((1, 2, 8), np.float32)
    for wrong in ({"num_heads": 3}, {"num_heads": 0}, {"num_heads": 2**40}):
        words = {"domain": "com.microsoft"} | wrong
        w, bias = np.ones((8, 24), np.float32), np.ones(24, np.float32)
        attempt(t, "Attention", [x, w, bias], BAD, **words)


def recurrent_61(t):
    x, w, r = (np.ones(s, np.float32) for s in ((3, 2, 5), (1, 16, 5), (1, 16, 4)))
    attempt(t, "LSTM", [x, w, r], BAD, hidden_size=5)
    attempt(t, "LSTM", [x, w, r], BAD, hidden_size=4, direction="bidirectional")
    attempt(t, "LSTM", [x, w, r], BAD, hidden_size=4, direction="sideways")
    attempt(t, "LSTM", [x, w[:, :12], r], BAD, hidden_size=4)
    attempt(t, "LSTM", [x, w, r], BAD, hidden_size=4, activations=["Tanh"])
    attempt(t, "LSTM", [x, w, r, None, np.array([9, 1], np.int32)], BAD, hidden_size=4)
    attempt(t, "LSTM", [x, w, r, None, None, np.ones((1, 3, 4), np.float32)], BAD, hidden_size=4)
    attempt(t, "GRU", [x, w, r], BAD, hidden_size=4)


def cast_62(t):
    for to in (0, 99, -1, 2**40):
        attempt(t, "Cast", [X], (3, 4), to=to)
    attempt(t, "Cast", [X], (3, 4), to=TensorProto.COMPLEX64)


def scales_63_to_66(t):
    u8 = scalar(3, np.uint8)
    for v in (0, -1, NAN, INF, 1e-40):  # `kiln check` warns of them; they mean what IEEE makes of them
        attempt(t, "QuantizeLinear", [X, scalar(v), u8], None)
        attempt(t, "DequantizeLinear", [X.astype(np.uint8), scalar(v), u8], None)
    for op, x in (("QuantizeLinear", X), ("DequantizeLinear", X.astype(np.uint8))):
        attempt(t, op, [x, scalar(1), scalar(3, np.int64)], (3, 4))
        attempt(t, op, [x, f32(1, 1, 1), u8], BAD, axis=1)
        three = np.full(3, 3, np.uint8)
        attempt(t, op, [x, f32(1, 1, 1), three], BAD, axis=3)
        attempt(t, op, [x, f32(1, 1, 1), three], BAD, axis=0)
        attempt(t, op, [x, f32(), np.zeros(0, np.uint8)], BAD, axis=1)
    attempt(t, "DequantizeLinear", [X.astype(np.uint8), scalar(1), scalar(3, np.int8)], BAD)
    attempt(t, "DequantizeLinear", [X, scalar(1)], BAD)


def bodies(t, nodes, ins, status, part="", constants=()):
    """A graph with bodies, its output of unknown type."""
    out = helper.make_value_info("y", helper.make_tensor_type_proto(F32, None))
    net = save(t / "n.onnx", nodes, ins, [out], constants)
    code, text, peak = peak_kib(["run", net, "--threads", 1])
    fits = SANITIZED or peak < MEMORY // 1024
    assert code == status and part in text and fits, (code, peak, text[-700:])


def graph(name, nodes, ins, outs):
    return helper.make_graph(nodes, name, ins, outs)


def branches_26_33(t):
    def branch(name, op, source="x", dims=(2,)):
        out = f"o_{name}"
        return graph(name, [helper.make_node(op, [source], [out])], [], [value(out, dims)])

    on = value("on", [], TensorProto.BOOL)
    x = value("x", [2])
    after = helper.make_node("Exp", ["y"], ["later"])
    # A body sees what is outside of it, not what the other body makes, nor what comes after it.
    for source in ("nowhere", "o_a", "later"):
        both = {"then_branch": branch("a", "Neg"), "else_branch": branch("b", "Abs", source)}
        bodies(t, [helper.make_node("If", ["on"], ["y"], **both), after], [on, x], 3)
    other = graph(
        "b", [helper.make_node("Unsqueeze", ["x", "zero"], ["o_b"])], [], [value("o_b", [1, 2])]
    )
    node = helper.make_node("If", ["on"], ["y"], then_branch=branch("a", "Neg"), else_branch=other)
    bodies(t, [node], [on, x], 0, constants=[constant("zero", i64(0))])
    two = graph("b", [], [], [value("x", [2]), value("x", [2])])
    node = helper.make_node("If", ["on"], ["y"], then_branch=branch("a", "Neg"), else_branch=two)
    bodies(t, [node], [on, x], 0)  # more than is asked for
    none = graph("b", [], [], [])
    node = helper.make_node("If", ["on"], ["y"], then_branch=branch("a", "Neg"), else_branch=none)
    bodies(t, [node], [on, x], 3)
    both = {"then_branch": branch("a", "Neg"), "else_branch": branch("b", "Abs")}
    node = helper.make_node("If", ["x"], ["y"], **both)
    bodies(t, [node], [on, x], 3)


def loops_34(t):
    body = graph(
        "body",
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Neg", ["v"], ["w"])],
        [value("i", [], I64), value("c", [], TensorProto.BOOL), value("v", [2])],
        [value("d", [], TensorProto.BOOL), value("w", [2])],
    )
    ends = [constant("n", np.int64(INT64_MAX)), constant("on", np.bool_(True))]
    node = helper.make_node("Loop", ["n", "on", "x"], ["y"], body=body)
    bodies(t, [node], [value("x", [2])], 6, constants=ends)
    # Scanned outputs of a loop without end.
    body = graph(
        "body",
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Neg", ["x"], ["w"])],
        [value("i", [], I64), value("c", [], TensorProto.BOOL)],
        [value("d", [], TensorProto.BOOL), value("w", [2])],
    )
    node = helper.make_node("Loop", ["n", "on"], ["y"], body=body)
    bodies(t, [node], [value("x", [2])], 6, constants=ends)
    body = graph(
        "body",
        [helper.make_node("Add", ["s", "e"], ["u"])],
        [value("s", [2]), value("e", [2])],
        [value("u", [2])],
    )
    node = helper.make_node("Scan", ["x", "xs"], ["y"], body=body, num_scan_inputs=1)
    bodies(t, [node], [value("x", [2]), value("xs", [0, 2])], 0)
    node = helper.make_node("Scan", ["x", "xs"], ["y"], body=body, num_scan_inputs=3)
    bodies(t, [node], [value("x", [2]), value("xs", [0, 2])], 3)


if __name__ == "__main__":
    sys.exit(
        main(
            [
                reshape_43,
                reshape_known_in_part_43,
                slice_44,
                gather_scatter_45,
                concat_split_46_47,
                conv_48,
                pools_49,
                conv_transpose_50,
                resize_51,
                pads_and_repeats_52_53,
                range_54,
                one_hot_55,
                data_sized_56_57,
                einsum_58,
                batch_norm_59,
                contrib_60,
                recurrent_61,
                cast_62,
                scales_63_to_66,
                branches_26_33,
                loops_34,
            ]
        )
    )
