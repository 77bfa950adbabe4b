#!/usr/bin/env python3
"""`kiln check`: every rule fires on a network made for it, and none on a sound one."""

import json
import sys

import numpy as np
from onnx import TensorProto, helper

from networks import constant, expect, kiln, main, save, value

X, Y = value("x", [1, 4]), value("y", [1, 4])
node = helper.make_node


def check(net, status=0):
    done = expect(kiln("check", net, "--format", "json"), status)
    return json.loads(done.stdout)


def found(report, message, **more):
    """The one finding whose message has that part."""
    hits = [f for f in report["findings"] if message in f["message"]]
    assert len(hits) == 1, (message, report["findings"])
    for key, wanted in more.items():
        assert hits[0][key] == wanted, hits[0]
    return hits[0]


def a_sound_network_has_no_findings(t):
    w = constant("w", np.ones((4, 4), np.float32))
    net = save(t / "n.onnx", [node("MatMul", ["x", "w"], ["y"], name="fc")], [X], [Y], [w])
    report = check(net)
    assert report["findings"] == [] and report["passed"], report
    assert report["operators"][0]["kernels"] not in ("", "reference"), report
    expect(kiln("check", net, "--strict"), 0)


def unused_and_dangling(t):
    nodes = [
        node("Neg", ["x"], ["y"], name="neg"),
        node("Abs", ["x"], ["nowhere"], name="lost"),
        node("Split", ["x"], ["a", "b"], name="split", axis=1),
        node("Neg", ["a"], ["z"], name="neg"),
    ]
    net = save(
        t / "n.onnx",
        nodes,
        [X, value("idle", [2])],
        [Y, value("z", [1, 2])],
        [constant("w", np.ones(3, np.float32))],
        opset=13,
    )
    report = check(net)
    found(report, 'input "idle" is not used', severity="warning")
    at = found(report, 'initializer "w" is not used', severity="warning")["offset_bytes"]
    assert b"w" in (t / "n.onnx").read_bytes()[at : at + 12]
    found(report, "nothing uses what the node gives", node="lost", op="Abs", severity="warning")
    found(report, 'output "b" is not used', node="split", severity="note")
    found(report, "has the same name", node="neg")
    expect(kiln("check", net, "--strict"), 1)


def many_are_counted(t):
    weights = [constant(f"w{i}", np.ones(1, np.float32)) for i in range(37)]
    net = save(t / "n.onnx", [node("Neg", ["x"], ["y"])], [X], [Y], weights)
    report = check(net)
    assert sum("is not used" in f["message"] for f in report["findings"]) == 10
    found(report, "and 27 more unused initializers")


def all_failures_at_once(t):
    nodes = [
        node("Nope", ["x"], ["a"], name="n1"),
        node("Neg", ["ghost"], ["b"], name="n2"),
        node("Abs", ["spirit"], ["c"], name="n3"),
        node("Nada", ["b"], ["y"], name="n4"),
        node("Neg", ["x"], ["c"], name="n5"),
    ]
    report = json.loads(kiln("check", save(t / "n.onnx", nodes, [X], [Y]), "--format=json").stdout)
    text = json.dumps(report["findings"])
    for part in ("ghost", "spirit", "defined twice", "Nope"):
        assert part in text, (part, report["findings"])
    assert not report["passed"]


def weights_that_are_no_numbers(t):
    values = np.array([[1, np.nan, 2, np.inf]], np.float32)
    tiny = np.array([[1e-40, 1, 1, 1]], np.float32)
    nodes = [node("Add", ["x", "w"], ["a"], name="add"), node("Mul", ["a", "d"], ["y"])]
    net = save(t / "n.onnx", nodes, [X], [Y], [constant("w", values), constant("d", tiny)])
    report = check(net)
    found(report, "1 of 4 values are NaN", node="add", severity="warning")
    found(report, "1 of 4 values are infinite", severity="note")
    found(report, "1 of 4 values are denormal", severity="note")


def casts(t):
    nodes = [
        node("Cast", ["x"], ["h"], name="to", to=TensorProto.FLOAT16),
        node("Cast", ["h"], ["y"], name="fro", to=TensorProto.FLOAT),
        node("Cast", ["i"], ["j"], name="narrow", to=TensorProto.INT32),
        node("Cast", ["x"], ["k"], name="nothing", to=TensorProto.FLOAT),
        node("Cast", ["k"], ["l"], name="twice", to=TensorProto.FLOAT),
    ]
    inputs = [X, value("i", [2], TensorProto.INT64)]
    outputs = [Y, value("j", [2], TensorProto.INT32), value("l", [1, 4])]
    report = check(save(t / "n.onnx", nodes, inputs, outputs))
    found(report, "casts back to float32", node="fro")
    found(report, "narrows int64 to int32", node="narrow")


def scales(t):
    weight = constant("w", np.ones((4, 4, 1, 1), np.int8))
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["dw"], name="dq", axis=1),
        node("Conv", ["x", "dw"], ["y"], name="conv"),
    ]
    scale = constant("s", np.array([1, 0, -1, 1], np.float32))
    zero = constant("z", np.zeros(4, np.int8))
    image = [1, 4, 2, 2]
    net = save(
        t / "n.onnx", nodes, [value("x", image)], [value("y", image)], [weight, scale, zero]
    )
    report = check(net)
    found(report, "2 of 4 values are not positive", node="dq")
    found(report, "scales lie along axis 1", node="dq")


def dynamic_and_old(t):
    x, y = value("x", ["N", 4]), value("y", ["N", 4])
    net = save(t / "n.onnx", [node("Neg", ["x"], ["y"])], [x], [y], opset=6, ir=3)
    report = check(net)
    found(report, "every new shape is planned")
    found(report, "operator set 6 is very old", severity="warning")


def data_outside_of_the_folder(t):
    weights = []
    for i, path in enumerate(["/etc/passwd", "../x.bin", "a/../../b"]):
        w = constant(f"w{i}", np.ones(4, np.float32))
        w.ClearField("raw_data")
        w.data_location = TensorProto.EXTERNAL
        entry = w.external_data.add()
        entry.key, entry.value = "location", path
        weights.append(w)
    nodes = [
        node("Add", ["x", "w0"], ["a"]),
        node("Add", ["a", "w1"], ["b"]),
        node("Add", ["b", "w2"], ["y"]),
    ]
    report = check(save(t / "n.onnx", nodes, [X], [Y], weights), 3)
    codes = [f["code"] for f in report["findings"]]
    assert codes.count("E0205") == 3, report["findings"]


def uses_inside_of_bodies_count(t):
    body = helper.make_graph(
        [node("Add", ["x", "w"], ["r"])], "b", [], [value("r", [1, 4])]
    )
    nodes = [node("If", ["c"], ["y"], name="if", then_branch=body, else_branch=body)]
    weight = constant("w", np.ones(4, np.float32))
    inputs = [X, value("c", [], TensorProto.BOOL)]
    report = check(save(t / "n.onnx", nodes, inputs, [Y], [weight]))
    assert not [f for f in report["findings"] if f["severity"] != "note"], report["findings"]


if __name__ == "__main__":
    sys.exit(
        main(
            [
                a_sound_network_has_no_findings,
                unused_and_dangling,
                many_are_counted,
                all_failures_at_once,
                weights_that_are_no_numbers,
                casts,
                scales,
                dynamic_and_old,
                data_outside_of_the_folder,
                uses_inside_of_bodies_count,
            ]
        )
    )
