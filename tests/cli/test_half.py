#!/usr/bin/env python3
"""Layers in bfloat16 and float16: who gets which, what is refused and why, what it costs in bits.

The network: a convolution, a depthwise one, a fully connected layer and a Softmax.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from networks import constant, expect, kiln, main, save, value


def network(t, large=1.0):
    rng = np.random.default_rng(3)
    w1 = (rng.standard_normal((16, 8, 3, 3)) / 8).astype(np.float32)
    w2 = (rng.standard_normal((16, 1, 3, 3)) / 3).astype(np.float32)
    w3 = (rng.standard_normal((16, 10)) / 4).astype(np.float32)
    w3[0, 0] *= large
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="depth", group=16, pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["d"], name="mean"),
        helper.make_node("Flatten", ["d"], ["e"], name="flat"),
        helper.make_node("Gemm", ["e", "w3"], ["f"], name="fc"),
        helper.make_node("Softmax", ["f"], ["y"], name="soft"),
    ]
    constants = [constant("w1", w1), constant("w2", w2), constant("w3", w3)]
    shapes = [value("x", ["N", 8, 9, 9])], [value("y", ["N", 10])]
    return save(t / "net.onnx", nodes, *shapes, constants)


def precisions(path):
    d = json.loads(expect(kiln("inspect", path, "--format", "json"), 0).stdout)
    return {r["name"]: r["precision"] for r in d["layers"]}, d["weight_bytes"]


def built(t, net, *rules):
    expect(kiln("build", net, *rules, "-o", t / "net.kiln"), 0)
    return precisions(t / "net.kiln")


def flags_and_rules_choose(t):
    net = network(t)
    plain, bytes_plain = built(t, net)
    assert plain["conv"] == plain["depth"] == plain["fc"] == "fp32", plain
    expect(kiln("build", net, "--bf16", "-o", t / "net.kiln"), 0, "2 in bf16, 2 in fp32")
    half, bytes_half = built(t, net, "--bf16")
    assert (half["conv"], half["depth"], half["fc"]) == ("bf16", "fp32", "bf16"), half
    assert bytes_half < 0.6 * bytes_plain, (bytes_half, bytes_plain)
    half, _ = built(t, net, "--fp16")
    assert (half["conv"], half["fc"]) == ("fp16 weights", "fp16 weights"), half
    mixed, _ = built(t, net, "--precision", "bf16,name:fc=fp16,type:conv=bf16,name:con*=fp32")
    assert (mixed["conv"], mixed["fc"]) == ("fp32", "fp16 weights"), mixed
    only, _ = built(t, net, "--precision", "name:fc=bf16")
    assert (only["conv"], only["fc"]) == ("fp32", "bf16"), only
    (t / "rules.txt").write_text("# all but one\nbf16\nname:fc=fp32\n")
    listed, _ = built(t, net, "--precision", f"@{t / 'rules.txt'}")
    assert (listed["conv"], listed["fc"]) == ("bf16", "fp32"), listed


def int8_beside_bf16(t):
    net = network(t)
    np.savez(t / "x.npz", x=np.random.default_rng(5).random((20, 8, 9, 9), np.float32))
    calib = ["--calib", t / "x.npz", "--calibrator", "max"]
    both, _ = built(t, net, "--precision", "type:Conv=int8,bf16,type:Conv=int8", *calib)
    assert (both["conv"], both["depth"], both["fc"]) == ("int8", "int8", "bf16"), both
    both, _ = built(t, net, "--int8=force", "--bf16", "--keep-last", 1, *calib)
    assert both["conv"] == "int8" and both["fc"] == "bf16", both
    expect(kiln("build", net, "--precision", "type:Conv=int8", "-o", t / "n.kiln"), 2, "--calib")
    expect(kiln("quantize", net, "--keep-last", 1, *calib, "-o", t / "q.onnx"), 0)
    both, _ = built(t, t / "q.onnx", "--bf16")
    assert (both["conv"], both["depth"], both["fc"]) == ("int8", "int8", "bf16"), both
    expect(kiln("build", t / "q.onnx", "--int8", *calib, "-o", t / "n.kiln"), 4, "already")


def refusals_have_reasons(t):
    net = network(t)
    out = ["-o", t / "n.kiln"]
    expect(kiln("build", net, "--precision", "name:depth=bf16", *out), 4, "depthwise", "depth")
    expect(kiln("build", net, "--precision", "type:Softmax=fp16", *out), 4, "float16", "soft")
    expect(kiln("build", net, "--off", "gemm_bf16", "--precision", "name:fc=bf16", *out), 4, "off")
    expect(kiln("build", net, "--bf16", "--fp16", *out), 2, "exclude")
    large = network(t, large=1e7)
    expect(kiln("build", large, "--precision", "name:fc=fp16", *out), 4, "65504")
    kept, _ = built(t, large, "--fp16")
    assert (kept["conv"], kept["fc"]) == ("fp16 weights", "fp32"), kept
    kept, _ = built(t, large, "--bf16")
    assert kept["fc"] == "bf16", kept


def results(t, path, threads=1):
    done = kiln("run", path, "--input", f"x={t / 'x.npz'}", "-o", t / "y.npz", "--threads", threads)
    expect(done, 0)
    return np.load(t / "y.npz")["y"]


def results_are_near_and_repeat(t):
    net = network(t)
    np.savez(t / "x.npz", x=np.random.default_rng(6).random((3, 8, 9, 9), np.float32))
    want = results(t, net)
    for flag, bound in (("--bf16", 2e-2), ("--fp16", 2e-3)):
        expect(kiln("build", net, flag, "-o", t / "h.kiln"), 0)
        got = results(t, t / "h.kiln")
        error = np.abs(got - want).max()
        assert 0 < error < bound, (flag, error)
        assert got.tobytes() == results(t, t / "h.kiln", 3).tobytes(), "threads change the bits"


def held(path):
    d = json.loads(expect(kiln("inspect", path, "--format", "json"), 0).stdout)
    return {r["name"] for r in d["layers"] if r["output"].endswith(" as bfloat16")}


def values_between_products_may_be_bfloat16(t):
    """On processors that multiply pairs; everywhere the name switches it off."""
    net = network(t)
    np.savez(t / "x.npz", x=np.random.default_rng(6).random((3, 8, 9, 9), np.float32))
    expect(kiln("build", net, "--bf16", "-o", t / "on.kiln"), 0)
    expect(kiln("build", net, "--bf16", "--off", "hold_half", "-o", t / "off.kiln"), 0)
    assert held(t / "on.kiln") in (set(), {"conv"}), held(t / "on.kiln")
    assert held(t / "off.kiln") == set()
    on, off = results(t, t / "on.kiln"), results(t, t / "off.kiln")
    assert np.abs(on - off).max() < 1e-2


def a_portable_engine_keeps_its_precision(t):
    net = network(t)
    build = ["build", net, "--bf16", "--portable", "--max-isa", "portable", "-o", t / "p.kiln"]
    expect(kiln(*build), 0)
    kept, _ = precisions(t / "p.kiln")
    assert (kept["conv"], kept["fc"]) == ("bf16", "bf16"), kept


def in_ort(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def weights(path):
    """What each node's second operand is held in, behind a DequantizeLinear too."""
    graph = onnx.load(path).graph
    types = {c.name: c.data_type for c in graph.initializer}
    back = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    of = {n.name: back.get(n.input[1], n.input[1]) for n in graph.node if len(n.input) > 1}
    return {name: types.get(value) for name, value in of.items()}


def export_holds_the_rest_in_float16(t):
    net = network(t)
    x = np.random.default_rng(7).random((4, 8, 9, 9), np.float32)
    np.savez(t / "x.npz", x=x)
    want = in_ort(net, x)
    calib = ["--calib", t / "x.npz", "--calibrator", "max", "--precision", "name:conv=int8,fp16,"
             "name:conv=int8"]
    for target in ("tensorrt", "onnxruntime"):
        out = t / f"{target}.onnx"
        expect(kiln("quantize", net, *calib, "--for", target, "-o", out), 0, "1 of 3 layers in int8")
        onnx.checker.check_model(str(out), full_check=True)
        held = weights(out)
        assert held["conv"] == TensorProto.INT8, held
        assert held["fc"] == held["depth"] == TensorProto.FLOAT16, held
        error = np.abs(in_ort(out, x) - want).max()
        assert 0 < error < 3e-2, (target, error)
    expect(kiln("quantize", net, "--precision", "fp16", "-o", t / "h.onnx"), 0, "3 in fp16")
    onnx.checker.check_model(str(t / "h.onnx"), full_check=True)
    held = weights(t / "h.onnx")
    assert held["conv"] == held["fc"] == TensorProto.FLOAT16, held
    assert 0 < np.abs(in_ort(t / "h.onnx", x) - want).max() < 3e-3


def float16_models_get_int8(t):
    net = onnx.load(network(t))
    graph = net.graph
    for c in graph.initializer:
        c.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(c).astype(np.float16), c.name))
    for v in (*graph.input, *graph.output):
        v.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(net, t / "half.onnx")
    x = np.random.default_rng(8).random((6, 8, 9, 9), np.float32).astype(np.float16)
    np.savez(t / "x.npz", x=x)
    want = in_ort(t / "half.onnx", x).astype(np.float32)
    calib = ["--calib", t / "x.npz", "--calibrator", "max"]
    expect(kiln("quantize", t / "half.onnx", *calib, "--for", "kiln", "-o", t / "q.onnx"), 0,
           "3 of 3 layers in int8")
    got = in_ort(t / "q.onnx", x)
    assert got.dtype == np.float16
    assert 0 < np.abs(got.astype(np.float32) - want).max() < 5e-2
    kept, _ = built(t, t / "half.onnx", "--int8=force", *calib)
    assert kept["conv"] == kept["depth"] == kept["fc"] == "int8", kept
    mixed = ["--fp16", "--keep-last", 1, "-o", t / "m.onnx"]
    expect(kiln("quantize", t / "half.onnx", *calib, *mixed), 0, "2 of 3 layers in int8, 1 in fp16")
    held = weights(t / "m.onnx")
    assert held["conv"] == TensorProto.INT8 and held["fc"] == TensorProto.FLOAT16, held
    assert 0 < np.abs(in_ort(t / "m.onnx", x).astype(np.float32) - want).max() < 5e-2


if __name__ == "__main__":
    sys.exit(
        main(
            [
                flags_and_rules_choose,
                int8_beside_bf16,
                refusals_have_reasons,
                results_are_near_and_repeat,
                values_between_products_may_be_bfloat16,
                a_portable_engine_keeps_its_precision,
                export_holds_the_rest_in_float16,
                float16_models_get_int8,
            ]
        )
    )
