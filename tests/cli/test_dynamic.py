#!/usr/bin/env python3
"""`quantize --dynamic` writes what ONNX Runtime runs with the same result as Kiln, in the bodies of
loops too; what stays float there says why."""

import json
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from networks import constant, expect, kiln, main, save, value

rng = np.random.default_rng(5)


def draw(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def network(t):
    """Convolutions, an LSTM over the columns, and products with and without bias."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["c", "dims"], ["d"]),
        helper.make_node("LSTM", ["d", "w3", "r3", "b3"], ["e", "h", "s"], hidden_size=12),
        helper.make_node("Reshape", ["e", "rows"], ["f"]),
        helper.make_node("MatMul", ["f", "w4"], ["g"]),
        helper.make_node("Gemm", ["g", "w5", "b5"], ["y"], transB=1, alpha=0.5, beta=2.0),
    ]
    weights = {
        "w1": draw(8, 3, 3, 3),
        "b1": draw(8),
        "w2": draw(8, 1, 3, 3),
        "dims": np.array([9, 1, 72], np.int64),
        "w3": draw(1, 48, 72) / 9,
        "r3": draw(1, 48, 12) / 3,
        "b3": draw(1, 96),
        "rows": np.array([9, 12], np.int64),
        "w4": draw(12, 20),
        "w5": draw(7, 20),
        "b5": draw(7),
    }
    constants = [constant(n, w) for n, w in weights.items()]
    inputs, outputs = [value("x", [1, 3, 9, 9])], [value("y", [9, 7])]
    return save(t / "net.onnx", nodes, inputs, outputs, constants)


def looped(t):
    """Four steps of h = tanh(h R + x W) between two products, W of the graph around the loop."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["a", "w"], ["b"], name="input"),
            helper.make_node("MatMul", ["h", "r"], ["c"], name="state"),
            helper.make_node("Add", ["b", "c"], ["d"]),
            helper.make_node("Tanh", ["d"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [value("i", [], onnx.TensorProto.INT64), value("go", [], onnx.TensorProto.BOOL), value("h", [3, 24])],
        [value("on", [], onnx.TensorProto.BOOL), value("next", [3, 24])],
        [constant("r", draw(24, 24) / 5)],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Loop", ["n", "", "h0"], ["z"], name="steps", body=body),
        helper.make_node("MatMul", ["z", "w2"], ["y"], name="last"),
    ]
    weights = {
        "w1": draw(20, 24) / 5,
        "w": draw(24, 24) / 5,
        "w2": draw(24, 11),
        "n": np.array(4, np.int64),
        "h0": np.zeros((3, 24), np.float32),
    }
    constants = [constant(n, w) for n, w in weights.items()]
    return save(t / "loop.onnx", nodes, [value("x", [3, 20])], [value("y", [3, 11])], constants)


def truth(path, x, name="x"):
    """Unoptimized: ONNX Runtime's fusion of weights in 8 bits looks for them in the body alone."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: x})[0]


def check_equal(t, net, quantized, x, name="x"):
    """Both run the quantized network with the same result, which is not the float one."""
    expect(kiln("run", quantized, t / "x.npy", "--output-dir", t / "out"), 0)
    got, want, exact = np.load(t / "out/y.npy"), truth(quantized, x, name), truth(net, x, name)
    changed = np.abs(want - exact).max()
    assert 1e-3 < changed < 0.2 * np.abs(exact).max(), changed
    # A float that rounds to the other step here and there changes little of the whole.
    assert np.abs(got - want).max() < 0.1 * changed, (np.abs(got - want).max(), changed)


def equals_onnxruntime(t):
    net, dyn, x = network(t), t / "dyn.onnx", draw(1, 3, 9, 9)
    np.save(t / "x.npy", x)
    expect(kiln("quantize", net, "--dynamic", "-o", dyn), 0, "5 of 5 layers in int8")
    ops = [n.op_type for n in onnx.load(dyn).graph.node]
    assert ops.count("ConvInteger") == 2 and ops.count("MatMulInteger") == 2, ops
    assert ops.count("DynamicQuantizeLinear") == 5, ops
    check_equal(t, net, dyn, x)


def with_outlier(t):
    """Words of a table, normalized with one channel far out, for a product and a sum beside it."""
    n = 96
    gamma = np.ones(n, np.float32)
    gamma[5] = 60
    weights = {"table": draw(500, n), "gamma": gamma, "beta": draw(n) / 9, "w": draw(n, n) / 10, "v": draw(n, n) / 10}
    weights["w"][5] /= 60  # the channel says no more than others
    weights["v"][5] /= 60
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("LayerNormalization", ["e", "gamma", "beta"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="product"),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "v"], ["y"], name="head"),
    ]
    constants = [constant(k, v) for k, v in weights.items()]
    ids = [value("ids", ["N", "L"], onnx.TensorProto.INT64)]
    given = [value("y", ["N", "L", n]), value("c", ["N", "L", n])]
    return save(t / "words.onnx", nodes, ids, given, constants, opset=17)


def outliers_are_found_without_data(t):
    """What reads the far channel keeps steps for the others."""
    net = with_outlier(t)
    np.savez(t / "ids.npz", ids=rng.integers(0, 500, (16, 12)))
    noise = {}
    for how in ("none", "outliers"):
        words = ("--dynamic", "--improve", how)
        expect(kiln("build", net, *words, "--opt-level", 0, "-o", t / f"{how}.kiln"), 0)
        done = expect(kiln("eval", t / f"{how}.kiln", "--against", net, "--data", t / "ids.npz", "--format", "json"), 0)
        noise[how] = json.loads(done.stdout)["sqnr_db"]
    assert noise["outliers"] > noise["none"] + 10, noise
    # By default, and the same each time; the export has the factors too.
    for name in ("a", "b"):
        expect(kiln("build", net, "--dynamic", "--opt-level", 0, "-o", t / f"{name}.kiln"), 0)
    assert (t / "a.kiln").read_bytes() == (t / "b.kiln").read_bytes() == (t / "outliers.kiln").read_bytes()
    expect(kiln("quantize", net, "--dynamic", "-o", t / "words.dyn.onnx"), 0, "2 of 2 layers in int8")
    plain = expect(kiln("quantize", net, "--dynamic", "--improve", "none", "-o", t / "none.onnx"), 0)
    factors = [[n.op_type for n in onnx.load(t / f).graph.node].count("Mul") for f in ("words.dyn.onnx", "none.onnx")]
    assert plain and factors[0] > factors[1], factors


def loop_node(path):
    return next(n for n in onnx.load(path).graph.node if n.op_type == "Loop")


def body_ops(path):
    return [n.op_type for n in loop_node(path).attribute[0].g.node]


def bodies_find_scales(t):
    net, dyn, x = looped(t), t / "dyn.onnx", draw(3, 20)
    np.save(t / "x.npy", x)
    expect(kiln("quantize", net, "--dynamic", "-o", dyn), 0, "4 of 4 layers in int8")
    ops = body_ops(dyn)
    assert ops.count("MatMulInteger") == 2 and ops.count("DynamicQuantizeLinear") == 2, ops
    check_equal(t, net, dyn, x)
    # Whose layers count as first and last: the network's, not the body's.
    kept = ("--keep-first", 1, "--keep-last", 1)
    expect(kiln("quantize", net, "--dynamic", *kept, "-o", dyn), 0, "2 of 4 layers in int8")
    assert body_ops(dyn).count("MatMulInteger") == 2, body_ops(dyn)


def bodies_hold_weights(t):
    net, small, x = looped(t), t / "small.onnx", draw(3, 20)
    np.save(t / "x.npy", x)
    expect(kiln("quantize", net, "--weight-only", "int8", "-o", small), 0)
    ops = body_ops(small)
    assert ops.count("DequantizeLinear") == 2, ops
    check_equal(t, net, small, x)


def words(t, shared):
    """Two looks into a table, and with `shared` a sum over it, which needs its floats."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["a"], axis=0, name="look"),
        helper.make_node("Gather", ["table", "ids"], ["b"], axis=-2),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("Cast", ["ids"], ["f"], to=1),
        helper.make_node("ReduceSum", ["f"], ["g"], keepdims=0),
        helper.make_node("Add", ["table", "g"], ["h"]),
        helper.make_node("ReduceSum", ["h"], ["s"], keepdims=0),
        helper.make_node("Add", ["c", "s"] if shared else ["c", "c"], ["y"]),
    ]
    if not shared:
        del nodes[3:7]
    shape = [value("ids", [4, 5], onnx.TensorProto.INT64)], [value("y", [4, 5, 64])]
    return save(t / "table.onnx", nodes, *shape, [constant("table", draw(900, 64))])


def tables_hold_bytes(t):
    """With a scale for each row, whatever chooses them; nothing else reads their floats."""
    x = rng.integers(-900, 900, (4, 5))
    np.save(t / "x.npy", x)
    net = words(t, shared=False)
    for bits in ("int8", "int4"):
        expect(kiln("quantize", net, "--weight-only", bits, "-o", t / "small.onnx"), 0)
        small = onnx.load(t / "small.onnx").graph
        kinds = sorted((i.data_type, tuple(i.dims)) for i in small.initializer if len(i.dims) == 2)
        assert kinds == [(1, (900, 1)), (2, (900, 64))], kinds
        check_equal(t, net, t / "small.onnx", x, "ids")
    sizes = []
    for how in ([], ["--weight-only", "int8"]):
        expect(kiln("build", net, *how, "--opt-level", 0, "-o", t / "s.kiln"), 0)
        sizes.append((t / "s.kiln").stat().st_size)
    assert sizes[1] < 0.4 * sizes[0], sizes
    for shared, how in ((True, ()), (False, ("--precision", "type:Gather=fp32"))):
        net = words(t, shared)
        expect(kiln("quantize", net, "--weight-only", "int8", *how, "-o", t / "small.onnx"), 0)
        assert not any(i.data_type in (2, 3) for i in onnx.load(t / "small.onnx").graph.initializer)


def bodies_stay_float(t):
    """Where scales come from data, with the reason; a rule for a layer there is refused."""
    net, x = looped(t), draw(8, 3, 20)
    np.savez(t / "x.npz", x=x.reshape(24, 20))
    calib = ("--calib", t / "x.npz")
    why = "it stands in the body of a loop or branch"
    out = expect(kiln("quantize", net, *calib, "-o", t / "s.onnx"), 0, "2 of 4 layers in int8", why)
    assert out.stdout.count(why) == 2, out.stdout
    expect(kiln("build", net, "--int8=force", *calib, "-o", t / "s.kiln"), 0)
    shown = expect(kiln("inspect", t / "s.kiln"), 0, why)
    assert shown.stdout.count(why) == 2, shown.stdout
    rule = ("--precision", "name:state=int8")
    expect(kiln("quantize", net, *calib, *rule, "-o", t / "s.onnx"), 4, '"state"', "int8 cannot be had", why)
    expect(kiln("quantize", net, "--dynamic", *rule, "-o", t / "s.onnx"), 0, "4 of 4")


if __name__ == "__main__":
    sys.exit(
        main(
            [
                equals_onnxruntime,
                outliers_are_found_without_data,
                bodies_find_scales,
                bodies_hold_weights,
                tables_hold_bytes,
                bodies_stay_float,
            ]
        )
    )
