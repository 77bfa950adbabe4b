#!/usr/bin/env python3
"""Calibrators, layers and precisions chosen by what the quantized network's outputs are worth.

The network is a stack of fully connected layers with one planted fault: a channel in front of `bad`
is a thousand times larger than its neighbours and read with a weight a thousand times smaller, so
that in float nothing changes and in 8 bits the neighbours are lost.
"""

import json
import sys

import numpy as np
from onnx import helper

from networks import constant, expect, kiln, main, save, value

WIDTH, LAYERS, BAD = 16, 6, 3


def planted(t, outlier=1000.0):
    """The network's path."""
    rng = np.random.default_rng(7)
    nodes, constants, x = [], [], "x"
    for i in range(LAYERS):
        w = (rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH / 2)).astype(np.float32)
        if i == BAD - 1:
            w[0] *= outlier
        if i == BAD:
            w[:, 0] /= outlier
        b = (0.1 * rng.standard_normal(WIDTH)).astype(np.float32)
        b[0] *= outlier if i == BAD - 1 else 1
        y = "y" if i == LAYERS - 1 else f"h{i}"
        constants += [constant(f"w{i}", w), constant(f"b{i}", b)]
        name = "bad" if i == BAD else f"fc{i}"
        nodes.append(
            helper.make_node(
                "Gemm", [x, f"w{i}", f"b{i}"], [f"g{i}" if y != "y" else y], name=name, transB=1
            )
        )
        if y != "y":
            nodes.append(helper.make_node("Relu", [f"g{i}"], [y], name=f"relu{i}"))
        x = y
    shapes = [value("x", ["N", WIDTH])], [value("y", ["N", WIDTH])]
    return save(t / "net.onnx", nodes, *shapes, constants)


def samples(t, net, n=200):
    """Random samples, labelled with what the network says."""
    x = np.random.default_rng(1).standard_normal((n, WIDTH)).astype(np.float32)
    np.savez(t / "x.npz", x=x)
    expect(kiln("run", net, "--input", f"x={t / 'x.npz'}", "-o", t / "y.npz"), 0)
    y = np.load(t / "y.npz")["y"].argmax(axis=1)
    np.savez(t / "data.npz", x=x, y=y.astype(np.int64))
    return t / "data.npz"


def records(done):
    return json.loads(expect(done, 0).stdout)


def auto_takes_the_calibrator_of_least_noise(t):
    net = planted(t, outlier=20.0)
    data = samples(t, net)
    common = [net, "--calib", data, "--for", "kiln", "--format", "json"]
    d = records(kiln("quantize", *common, "-o", t / "auto.onnx"))
    trials, chosen = d["trials"], [r for r in d["trials"] if r["chosen"]]
    assert len(trials) == 7 and len(chosen) == 1, trials
    assert chosen[0]["sqnr_db"] == max(r["sqnr_db"] for r in trials), trials
    assert len({r["sqnr_db"] for r in trials}) > 2, trials
    assert all(r["float_top1"] == 1 and 0 < r["top1"] <= 1 for r in trials), trials
    names = {c["calibrator"] for c in d["tensors"][0]["candidates"]}
    assert names == {"max", "percentile", "entropy", "mse"}, names
    by = ["--calibrator", chosen[0]["calibrator"]]
    if by[1] == "percentile":
        by += ["--percentiles", str(chosen[0]["percentile"])]
    named = records(kiln("quantize", *common, "-o", t / "named.onnx", *by))
    if by[1] != "auto":
        assert (
            named["trials"] == []
            and (t / "auto.onnx").read_bytes() == (t / "named.onnx").read_bytes()
        )
    again = records(kiln("quantize", *common, "-o", t / "again.onnx"))
    assert again["trials"] == trials, "trials differ from run to run"


def auto_without_data_is_by_tensor(t):
    net = planted(t)
    data = samples(t, net)
    expect(kiln("calibrate", net, "--calib", data, "--save-calib", t / "c.calib"), 0)
    d = records(
        kiln("quantize", net, "--calib", t / "c.calib", "-o", t / "q.onnx", "--format", "json")
    )
    assert d["trials"] == [] and d["int8_layers"] == LAYERS, d


def sensitivity_ranks_the_planted_layer_first(t):
    net = planted(t)
    data = samples(t, net)
    common = ["sensitivity", net, "--calib", data, "--calibrator", "max", "--format", "json"]
    d = records(kiln(*common))
    layers = {r["name"]: r for r in d["layers"]}
    assert d["layers"][0]["name"] == "bad" and len(layers) == LAYERS, d
    others = [r for name, r in layers.items() if name != "bad"]
    assert all(r["sqnr_db"] > layers["bad"]["sqnr_db"] + 10 for r in others), d
    assert layers["bad"]["drop_points"] > max(r["drop_points"] for r in others), d
    assert d["all_drop_points"] > 5 and d["float_metric"] == 1 and d["metric"] == "top1", d
    assert layers["bad"]["input"] == "h2" and layers["fc1"]["input"] == "h0", layers
    assert 30 < layers["fc1"]["input_sqnr_db"] < 60, layers

    unlabelled = t / "x.npz"
    d = records(kiln(*common[:3], unlabelled, *common[4:]))
    assert d["metric"] == "agreement" and d["layers"][0]["name"] == "bad", d


def a_study_goes_on_where_it_stopped(t):
    net = planted(t)
    data = samples(t, net)
    state = t / "s.state"
    common = ["sensitivity", net, "--calib", data, "--state", state, "--format", "json"]
    whole = records(kiln(*common))
    lines = state.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + LAYERS and whole["resumed"] == 0, lines
    state.write_text("".join(lines[:4]))
    again = records(kiln(*common))
    assert again["resumed"] == 3 and again["layers"] == whole["layers"], again
    state.write_text("".join(lines[:3]) + lines[3][:20])
    expect(kiln(*common), 3, "no record of a study")
    state.write_text("".join(lines))
    expect(kiln(*common, "--keep-last", "1"), 2, "of another study")


if __name__ == "__main__":
    sys.exit(
        main(
            [
                auto_takes_the_calibrator_of_least_noise,
                auto_without_data_is_by_tensor,
                sensitivity_ranks_the_planted_layer_first,
                a_study_goes_on_where_it_stopped,
            ]
        )
    )
