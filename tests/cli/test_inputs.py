#!/usr/bin/env python3
"""What `run`, `bench` and `eval` do with inputs and outputs of uncommon form."""

import json
import sys

import numpy as np
from onnx import TensorProto, helper

from networks import constant, expect, kiln, main, save, value


def topk_of_trailing_ones(t):
    axes = constant("axes", np.array([2, 3]))
    node = helper.make_node("Unsqueeze", ["x", "axes"], ["y"])
    net = save(t / "n.onnx", [node], [value("x", [1, 5])], [value("y", [1, 5, 1, 1])], [axes])
    np.save(t / "x.npy", np.array([[1, 9, 3, 7, 5]], np.float32))
    done = expect(kiln("run", net, t / "x.npy", "--topk", 2, "--format", "json"), 0)
    top = json.loads(done.stdout)["top"]
    assert [(r["row"], r["index"], r["score"]) for r in top] == [(0, 1, 9), (0, 3, 7)], top


def topk_without_scores_says_so(t):
    net = save(
        t / "n.onnx", [helper.make_node("Neg", ["x"], ["y"])], [value("x", [1])], [value("y", [1])]
    )
    expect(kiln("run", net, "--topk", 2), 0, "no output has 1 to 64 rows")


def sequences_are_generated(t):
    s = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [2, 3])
    node = helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0)
    net = save(t / "n.onnx", [node], [s], [value("y", [None, 3])])
    done = expect(kiln("run", net, "--format", "json", "--print-outputs"), 0, "sequence of 2")
    y = np.array(json.loads(done.stdout)["outputs"][0]["values"]).reshape(4, 3)
    assert not np.array_equal(y[:2], y[2:]), "both items are the same"
    again = kiln("run", net, "--format", "json", "--print-outputs")
    assert json.loads(again.stdout)["outputs"] == json.loads(done.stdout)["outputs"]
    expect(kiln("bench", net, "--duration", "0.05", "--warm-up", 1), 0, "sequence of 2")


def optionals_are_generated(t):
    o = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    o = helper.make_value_info("o", helper.make_optional_type_proto(o))
    node = helper.make_node("OptionalGetElement", ["o"], ["y"])
    net = save(t / "n.onnx", [node], [o], [value("y", [2])])
    expect(kiln("run", net), 0, "input    o", "generated")


def difference(t):
    """scores = a - b"""
    shape = ["N", 3]
    node = helper.make_node("Sub", ["a", "b"], ["scores"])
    return save(
        t / "two.onnx", [node], [value("a", shape), value("b", shape)], [value("scores", shape)]
    )


def eval_of_two_inputs(t):
    net = difference(t)
    zero, one = np.zeros((4, 3), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    np.savez(t / "d.npz", b=zero, a=one, y=np.array([0, 1, 2, 0]))
    done = expect(kiln("eval", net, "--data", t / "d.npz", "--format", "json"), 0)
    assert json.loads(done.stdout)["top1"] == 0.75
    np.savez(t / "e.npz", a=zero, b=one, y=np.array([0, 1, 2, 0]))
    done = expect(kiln("eval", net, "--data", t / "e.npz", "--batch", 3, "--format", "json"), 0)
    assert json.loads(done.stdout)["top1"] == 0.25, done.stdout


def eval_names_what_is_missing(t):
    net = difference(t)
    a = np.zeros((4, 3), np.float32)
    np.savez(t / "d.npz", a=a, c=a, y=np.zeros(4, int))
    expect(kiln("eval", net, "--data", t / "d.npz"), 2, 'no array for input "b"', "it has a, c")
    np.savez(t / "d.npz", a=a, b=a[:3], y=np.zeros(4, int))
    expect(kiln("eval", net, "--data", t / "d.npz"), 2, "3 samples")


def eval_notes_arrays_left_over(t):
    net = difference(t)
    a = np.zeros((4, 3), np.float32)
    np.savez(t / "d.npz", a=a, b=a, z=a, y=np.zeros(4, int))
    expect(kiln("eval", net, "--data", t / "d.npz"), 0, "1 arrays of the data set are no input's")


def eval_of_raw_samples(t):
    node = helper.make_node("Identity", ["x"], ["y"])
    net = save(t / "n.onnx", [node], [value("x", ["N", 3])], [value("y", ["N", 3])])
    np.eye(3, dtype=np.float32)[[2, 0]].tofile(t / "x.bin")
    (t / "l.csv").write_text("2\n1\n")
    words = ["eval", net, "--data", t / "x.bin", "--labels", t / "l.csv", "--data-kind", "raw"]
    done = expect(kiln(*words, "--format", "json"), 0)
    assert json.loads(done.stdout)["top1"] == 0.5
    (t / "x.bin").write_bytes(b"12345")
    expect(kiln(*words), 3, "whole samples of 12 bytes")


def export_says_when_types_are_widened(t):
    half = TensorProto.FLOAT16
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    w = constant("w", np.array([2, 3], np.float16))
    net = save(t / "n.onnx", [node], [value("x", [2], half)], [value("y", [2], half)], [w])
    done = expect(kiln("export", net, "-o", t / "a.onnx"), 0)
    assert "exported in float32" not in done.stderr
    expect(kiln("build", net, "--opt-level", 0, "-o", t / "n.kiln"), 0)
    expect(kiln("export", t / "n.kiln", "-o", t / "b.onnx"), 0, "exported in float32", "hint")
    expect(kiln("build", net, "--opt-level", 0, "--off", "widen", "-o", t / "m.kiln"), 0)
    done = expect(kiln("export", t / "m.kiln", "-o", t / "c.onnx"), 0)
    assert "exported in float32" not in done.stderr


def builds_do_not_need_made_up_inputs_to_fit(t):
    """Indices that only real data keeps in range, and an input of unknown rank."""
    constants = [constant("t", np.zeros((1, 8), np.float32)), constant("w", np.eye(8, dtype=np.float32))]
    gather = helper.make_node("Gather", ["t", "i"], ["r"])
    product = helper.make_node("MatMul", ["r", "w"], ["y"])
    shapes = [value("i", [4], TensorProto.INT64)], [value("y", [4, 8])]
    net = save(t / "gather.onnx", [gather, product], *shapes, constants)
    expect(kiln("build", net, "-o", t / "g.kiln"), 0, "as rules decide")
    relu = helper.make_node("Relu", ["x"], ["y"])
    open_rank = save(t / "rank.onnx", [relu], [value("x", None)], [value("y", None)], [])
    expect(kiln("build", open_rank, "-o", t / "r.kiln"), 0, "as rules decide")


if __name__ == "__main__":
    sys.exit(
        main(
            [
                topk_of_trailing_ones,
                topk_without_scores_says_so,
                sequences_are_generated,
                optionals_are_generated,
                eval_of_two_inputs,
                builds_do_not_need_made_up_inputs_to_fit,
                eval_names_what_is_missing,
                eval_notes_arrays_left_over,
                eval_of_raw_samples,
                export_says_when_types_are_widened,
            ]
        )
    )
