#!/usr/bin/env python3
"""Calibrators, layers and precisions chosen by what the quantized network's outputs are worth.

The network is a stack of fully connected layers with one planted fault: a channel in front of `bad`
is a thousand times larger than its neighbours and read with a weight a thousand times smaller, so
that in float nothing changes and in 8 bits the neighbours are lost.
"""

import json
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
from onnx import helper

from networks import KILN, constant, expect, kiln, main, save, value

WIDTH, LAYERS, BAD = 16, 6, 3
OFF = ["conv_q8", "gemm_q8", "matmul_q8", "elementwise"]  # what makes 8 bits fast


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
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"g{i}" if y != "y" else y], name=name, transB=1))
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
    assert len(trials) == 9 and len(chosen) == 1, trials
    weights = [r["cut_weight"] for r in trials if r["calibrator"] == "mse"]
    assert weights == [1, 4, 16], trials
    assert chosen[0]["sqnr_db"] == max(r["sqnr_db"] for r in trials), trials
    assert len({r["sqnr_db"] for r in trials}) > 2, trials
    assert all(r["float_top1"] == 1 and 0 < r["top1"] <= 1 for r in trials), trials
    names = {c["calibrator"] for c in d["tensors"][0]["candidates"]}
    assert names == {"max", "percentile", "entropy", "mse"}, names
    by = ["--calibrator", chosen[0]["calibrator"]]
    if by[1] == "percentile":
        by += ["--percentiles", str(chosen[0]["percentile"])]
    by += ["--cut-weight", str(chosen[0]["cut_weight"])]
    named = records(kiln("quantize", *common, "-o", t / "named.onnx", *by))
    if by[1] != "auto":
        assert named["trials"] == [] and (t / "auto.onnx").read_bytes() == (t / "named.onnx").read_bytes()
    again = records(kiln("quantize", *common, "-o", t / "again.onnx"))
    assert again["trials"] == trials, "trials differ from run to run"


def auto_without_data_is_by_tensor(t):
    net = planted(t)
    data = samples(t, net)
    expect(kiln("calibrate", net, "--calib", data, "--save-calib", t / "c.calib"), 0)
    d = records(kiln("quantize", net, "--calib", t / "c.calib", "-o", t / "q.onnx", "--format", "json"))
    assert d["trials"] == [] and d["int8_layers"] == LAYERS, d


def sensitivity_ranks_the_planted_layer_first(t):
    net = planted(t)
    data = samples(t, net)
    common = ["sensitivity", net, "--calib", data, "--calibrator", "max", "--improve", "none", "--format", "json"]
    d = records(kiln(*common))
    layers = {r["name"]: r for r in d["layers"]}
    assert d["layers"][0]["name"] == "bad" and len(layers) == LAYERS, d
    others = [r for name, r in layers.items() if name != "bad"]
    assert all(r["sqnr_db"] > layers["bad"]["sqnr_db"] + 10 for r in others), d
    assert layers["bad"]["drop_points"] > max(r["drop_points"] for r in others), d
    assert d["all_drop_points"] > 5 and d["float_metric"] == 1 and d["metric"] == "top1", d
    assert layers["bad"]["input"] == "h2" and layers["fc1"]["input"] == "h0", layers
    assert all(30 < layers[name]["input_sqnr_db"] < 60 for name in ("fc0", "fc1")), layers

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


def planted_search(t):
    """The planted network, its data, the engine to write, what quantizes alike, what `search` adds."""
    net = planted(t)
    data = samples(t, net)
    best = t / "best.kiln"
    common = ["--calib", data, "--calibrator", "max", "--improve", "none"]
    more = ["--eval", data, "--no-timing", "--format", "json", "-o", best, "--plot", t / "p.svg"]
    return net, data, best, common, more


def search_leaves_the_planted_layer_float(t):
    net, data, best, common, more = planted_search(t)
    d = records(kiln("search", net, *common, *more, "--max-drop", "1.5pt"))
    precision = {r["name"]: r["precision"] for r in d["layers"]}
    assert precision["bad"] == "fp32" and list(precision.values()).count("int8") >= 3, d
    chosen = [r for r in d["tried"] if r["best"]]
    assert len(chosen) == 1 and chosen[0]["drop_points"] < 1.51 and chosen[0]["within"], d
    assert all(r["cost"] >= chosen[0]["cost"] for r in d["tried"] if r["within"]), d
    assert any(not r["within"] and r["int8_layers"] == LAYERS for r in d["tried"]), d

    rules = (t / "best.kiln.rules").read_text()
    assert "\nname:bad=fp32\n" in rules, rules
    again = ["--int8=force", "--precision", f"@{t / 'best.kiln.rules'}", "--opt-level", 0, "-o", t / "again.kiln"]
    expect(kiln("build", net, *common, *again), 0)
    assert best.read_bytes() == (t / "again.kiln").read_bytes(), "the rules give another engine"
    expect(kiln("eval", best, "--data", data, "--min", str(1 - 0.0151)), 0)
    svg = (t / "p.svg").read_text()
    assert svg.count("<circle") == len(d["tried"]) and svg.endswith("</svg>\n"), svg

    resumed = records(kiln("search", net, *common, *more, "--max-drop", "1.5pt"))
    assert resumed["resumed"] > LAYERS and resumed["tried"] == d["tried"], resumed
    strict = records(kiln("search", net, *common, *more, "--max-drop", "0"))
    assert all(r["drop_points"] < 0.01 for r in strict["tried"] if r["best"]), strict
    expect(kiln("search", net, *common, *more, "--max-drop", "much"), 2, "percentage points")


def search_gives_the_planted_layer_bfloat16(t):
    """Where it is offered: its 8 bits of mantissa do not mind large neighbours."""
    net, data, best, common, more = planted_search(t)
    more += ["--max-drop", "1.5pt"]
    d = records(kiln("search", net, *common, *more, "--precisions", "fp32,bf16,int8"))
    layers = {r["name"]: r for r in d["layers"]}
    assert layers["bad"]["precision"] == "bf16", d
    assert layers["bad"]["bf16_sqnr_db"] > layers["bad"]["sqnr_db"] + 20, d
    chosen = next(r for r in d["tried"] if r["best"])
    assert chosen["bf16_layers"] >= 1 and chosen["int8_layers"] >= 3, d
    float_alone = records(kiln("search", net, *common, *more, "--precisions", "fp32,int8"))
    assert chosen["cost"] < next(r for r in float_alone["tried"] if r["best"])["cost"], (d, float_alone)

    d = records(kiln("search", net, *common, *more, "--precisions", "fp32,bf16,int8"))
    rules = (t / "best.kiln.rules").read_text()
    assert "\nname:bad=bf16\n" in rules, rules
    again = ["--int8=force", "--precision", f"@{t / 'best.kiln.rules'}", "--opt-level", 0, "-o", t / "again.kiln"]
    expect(kiln("build", net, *common, *again), 0)
    assert best.read_bytes() == (t / "again.kiln").read_bytes(), "the rules give another engine"
    assert "in bf16" in (t / "p.svg").read_text()

    d = records(kiln("search", net, *common, *more, "--precisions", "bf16"))
    assert {r["precision"] for r in d["layers"]} == {"bf16"}, d
    assert all(r["int8_layers"] == 0 for r in d["tried"]), d
    expect(kiln("search", net, *common, *more, "--precisions", "int4"), 2, "--precisions takes")
    expect(kiln("search", net, *common, *more, "--precisions", "fp32"), 2, "nothing to choose")


def search_gives_layers_their_calibrator(t):
    """One sample far out: the greatest value is the worst range for the first layer."""
    net = planted(t, 1.0)
    data = samples(t, net)
    x = np.load(data)["x"]
    x[0] *= 40
    np.savez(t / "far.npz", x=x)
    best = t / "best.kiln"
    expect(kiln("calibrate", net, "--calib", t / "far.npz", "--save-calib", t / "far.calib"), 0)
    common = ["--calib", t / "far.calib", "--calibrator", "max", "--improve", "none"]
    more = ["--eval", data, "--no-timing", "--format", "json", "-o", best, "--max-drop", "100pt"]
    plain = records(kiln("search", net, *common, *more))
    assert not any(r["calibrator"] for r in plain["layers"]), plain
    d = records(kiln("search", net, *common, *more, "--layer-calibrators"))
    before = {r["name"]: r["sqnr_db"] for r in plain["layers"]}
    gained = [r for r in d["layers"] if r["calibrator"]]
    assert len(gained) >= 3 and all(r["sqnr_db"] > before[r["name"]] for r in gained), d
    last = [r["tried"][-1] for r in (plain, d)]
    assert last[1]["sqnr_db"] > last[0]["sqnr_db"] + 3, last

    head = (t / "best.kiln.rules").read_text().splitlines()[0]
    words = shlex.split(head.removeprefix("# kiln ").removesuffix(" ..."))
    assert words.count("--layer") == len(gained), head
    again = ["--calib", t / "far.calib", "--improve", "none", "--opt-level", 0, "-o", t / "again.kiln"]
    expect(kiln(*words, *again), 0)
    assert best.read_bytes() == (t / "again.kiln").read_bytes(), "the command gives another engine"


def a_signal_leaves_the_state_and_says_how_to_go_on(t):
    net = planted(t)
    data = samples(t, net, 60000)
    state = t / "s.state"
    how = ["--calibrator", "max", "--improve", "none"]
    words = ["search", net, "--calib", data, *how, "--samples", "60000", "-o", t / "b.kiln"]
    words += ["--calib-count", "200", "--eval", data, "--state", state, "--threads", "1"]
    process = subprocess.Popen([KILN, *map(str, words)], stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if state.exists() and len(state.read_text().splitlines()) > 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "to go on: kiln search" in err, (process.returncode, err)
    assert len(state.read_text().splitlines()) > 2, state.read_text()


def wide(t):
    """Layers large enough for times to mean something, and data."""
    rng = np.random.default_rng(3)
    n = 384
    constants = [constant(f"w{i}", rng.standard_normal((n, n)).astype(np.float32)) for i in range(3)]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"fc{i}") for i in range(3)]
    net = save(t / "wide.onnx", nodes, [value("x0", [1, n])], [value("x3", [1, n])], constants)
    np.savez(t / "wide.npz", x=rng.standard_normal((8, n)).astype(np.float32))
    return net, ["--calib", t / "wide.npz", "--calibrator", "max", "--improve", "none"]


def kernels(engine):
    return [r["kernel"] for r in records(kiln("inspect", engine, "--layers", "--format", "json"))["layers"]]


def all_stay_float(build, found):
    """The build that leaves all layers float, and what `found` reads of it. Others may use the
    machine as well: one of four tries must tell the layers apart."""
    for _ in range(4):
        done = build()
        assert done.returncode == 0, done.stderr
        floats = found(done)
        if [r["name"] for r in floats] == ["fc0", "fc1", "fc2"]:
            return done, floats
    raise AssertionError(floats)


def layers_that_lose_time_stay_float(t):
    net, common = wide(t)
    off = ["--off", ",".join(OFF)]
    build = ["build", net, *common, *off, "--int8", "-o", t / "a.kiln"]

    def inspected(_):
        return records(kiln("inspect", t / "a.kiln", "--format", "json"))["stays_float"]

    slow, _ = all_stay_float(lambda: kiln(*build), inspected)
    d = records(kiln("inspect", t / "a.kiln", "--format", "json"))
    assert all("slower in 8 bits here" in r["reason"] for r in d["stays_float"]), d
    expect(kiln("inspect", t / "a.kiln"), 0, "stays float")
    _, floats = all_stay_float(lambda: kiln(*build, "--format", "json"), lambda done: records(done)["stays_float"])
    assert all("in float" in r["reason"] for r in floats), floats
    expect(slow, 0, "fc1 (MatMul) stays float: slower in 8 bits here", "0 of 3 layers in int8")
    assert all("f32" in k for k in kernels(t / "a.kiln")), kernels(t / "a.kiln")

    for words in (["--int8=force"], ["--int8", "--no-timing"], ["--int8", "--precision", "type:MatMul=int8"]):
        done = kiln("build", net, *common, *off, *words, "-o", t / "b.kiln")
        expect(done, 0, "3 of 3 layers in int8")
    done = kiln("build", net, *common, *off, "--int8", "--precision", "name:fc1=int8,int8", "-o", t / "b.kiln")
    expect(done, 0, "stays float")
    expect(kiln("build", net, *common, "--int8=always", "-o", t / "b.kiln"), 2, "takes force")


def rules_alone_repeat_byte_for_byte(t):
    net, common = wide(t)
    for name in ("a", "b"):
        expect(kiln("build", net, *common, "--int8", "--no-timing", "-o", t / f"{name}.kiln"), 0)
    assert (t / "a.kiln").read_bytes() == (t / "b.kiln").read_bytes()


if __name__ == "__main__":
    sys.exit(
        main(
            [
                auto_takes_the_calibrator_of_least_noise,
                auto_without_data_is_by_tensor,
                sensitivity_ranks_the_planted_layer_first,
                a_study_goes_on_where_it_stopped,
                search_leaves_the_planted_layer_float,
                search_gives_the_planted_layer_bfloat16,
                search_gives_layers_their_calibrator,
                a_signal_leaves_the_state_and_says_how_to_go_on,
                layers_that_lose_time_stay_float,
                rules_alone_repeat_byte_for_byte,
            ]
        )
    )
