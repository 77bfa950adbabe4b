#!/usr/bin/env python3
"""Layers in bfloat16 and float16: who gets which, what is refused and why, what it costs in bits.

The network: a convolution, a depthwise one, a fully connected layer and a Softmax.
"""

import json
import sys

import numpy as np
from onnx import helper

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


def a_portable_engine_keeps_its_precision(t):
    net = network(t)
    build = ["build", net, "--bf16", "--portable", "--max-isa", "portable", "-o", t / "p.kiln"]
    expect(kiln(*build), 0)
    kept, _ = precisions(t / "p.kiln")
    assert (kept["conv"], kept["fc"]) == ("bf16", "bf16"), kept


if __name__ == "__main__":
    sys.exit(
        main(
            [
                flags_and_rules_choose,
                int8_beside_bf16,
                refusals_have_reasons,
                results_are_near_and_repeat,
                a_portable_engine_keeps_its_precision,
            ]
        )
    )
