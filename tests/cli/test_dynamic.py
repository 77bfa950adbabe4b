#!/usr/bin/env python3
"""`quantize --dynamic` writes what ONNX Runtime runs with the same result as Kiln."""

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


def equals_onnxruntime(t):
    net, dyn, x = network(t), t / "dyn.onnx", draw(1, 3, 9, 9)
    np.save(t / "x.npy", x)
    expect(kiln("quantize", net, "--dynamic", "-o", dyn), 0, "5 of 5 layers in int8")
    ops = [n.op_type for n in onnx.load(dyn).graph.node]
    assert ops.count("ConvInteger") == 2 and ops.count("MatMulInteger") == 2, ops
    assert ops.count("DynamicQuantizeLinear") == 5, ops

    def truth(path):
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0]

    expect(kiln("run", dyn, t / "x.npy", "--output-dir", t / "out"), 0)
    got, want, exact = np.load(t / "out/y.npy"), truth(dyn), truth(net)
    quantized = np.abs(want - exact).max()
    assert quantized > 1e-3, "nothing was quantized"
    # A float that rounds to the other step here and there changes little of the whole.
    assert np.abs(got - want).max() < 0.1 * quantized, (np.abs(got - want).max(), quantized)


if __name__ == "__main__":
    sys.exit(main([equals_onnxruntime]))
