"""Random graphs: builders of recurrent and control-flow operators."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from rg_core import F32, Trial, tensor_info
from rg_nn import scaled
from rg_ops import op

# recurrent


@op("RNN", "GRU", "LSTM", opset=14)
def recurrent(t: Trial, label: str):
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[label]
    x = t.pick(F32, 3, where=lambda v: np.abs(v.array).max() < 50)
    steps, batch, width = x.shape
    hidden, direction = t.between(1, 6), t.choose(["forward", "reverse", "bidirectional"])
    ways = 2 if direction == "bidirectional" else 1
    w = t.weight(scaled(t, (ways, gates * hidden, width), width))
    r = t.weight(scaled(t, (ways, gates * hidden, hidden), hidden))
    bias = t.weight(t.draw(F32, (ways, 2 * gates * hidden), "unit")) if t.chance(0.7) else None
    lengths = (
        t.weight(t.rng.integers(1, steps + 1, batch).astype("int32")) if t.chance(0.3) else None
    )
    first = [t.weight(t.draw(F32, (ways, batch, hidden), "unit")) if t.chance(0.4) else None]
    attrs: dict = {"hidden_size": hidden, "direction": direction}
    if label == "LSTM":
        first.append(t.weight(t.draw(F32, (ways, batch, hidden), "unit")) if first[0] else None)
        first.append(t.weight(t.draw(F32, (ways, 3 * hidden), "unit")) if t.chance(0.3) else None)
        attrs["input_forget"] = t.choose([None, None, 1])
    if label == "GRU":
        attrs["linear_before_reset"] = t.between(0, 1)
    if t.chance(0.2):
        attrs["clip"] = 1.5
    if t.chance(0.25):
        cell = {
            "RNN": ["Relu"],
            "GRU": ["HardSigmoid", "Tanh"],
            "LSTM": ["HardSigmoid", "Tanh", "Softsign"],
        }[label]
        attrs["activations"] = cell * ways
    outputs = 3 if label == "LSTM" else 2
    t.finish(t.node(label, [x, w, r, bias, lengths, *first], outputs, **attrs), 64, sums=True)


# control flow


def body(t: Trial, nodes, inputs, outputs):
    return helper.make_graph(nodes, t.state.fresh("body"), inputs, outputs)


@op("If")
def if_(t: Trial, label: str):
    x = t.pick((F32, "int64"), rank=(1, 3))
    flag = t.weight(np.asarray(t.chance(0.5)))
    name, outs = t.capture(x), [t.state.fresh("s") for _ in range(2)]
    other = t.capture(t.partner(x))
    then = body(
        t,
        [helper.make_node("Add", [name, other], [outs[0]])],
        [],
        [tensor_info(outs[0], x.array, [None] * 9)],
    )
    orelse = body(
        t,
        [helper.make_node(t.choose(["Neg", "Identity", "Abs"]), [name], [outs[1]])],
        [],
        [tensor_info(outs[1], x.array, [None] * 9)],
    )
    for graph in (then, orelse):
        graph.output[0].type.tensor_type.ClearField("shape")
    t.finish(t.node("If", [flag], then_branch=then, else_branch=orelse), 1, ring=True)


@op("Loop")
def loop(t: Trial, label: str):
    x = t.pick(F32, rank=(1, 3), domain="small")
    step = t.capture(t.weight(t.draw(F32, x.shape, "unit")))
    i, cond, state, keep, new, scan = (t.state.fresh("s") for _ in range(6))
    nodes = [
        helper.make_node("Identity", [cond], [keep]),
        helper.make_node(t.choose(["Add", "Sub"]), [state, step], [new]),
    ]
    outputs = [helper.make_tensor_value_info(keep, TensorProto.BOOL, []), tensor_info(new, x.array)]
    with_scan = t.chance(0.6)
    if with_scan:
        nodes.append(helper.make_node(t.choose(["Neg", "Relu", "Abs"]), [new], [scan]))
        outputs.append(tensor_info(scan, x.array))
    graph = body(
        t,
        nodes,
        [
            helper.make_tensor_value_info(i, TensorProto.INT64, []),
            helper.make_tensor_value_info(cond, TensorProto.BOOL, []),
            tensor_info(state, x.array),
        ],
        outputs,
    )
    trips = t.weight(np.asarray(t.between(1, 4), "int64"))
    flag = t.const(np.asarray(True)) if t.chance(0.5) else None
    t.finish(t.node("Loop", [trips, flag, x], 2 if with_scan else 1, body=graph), 4, ring=True)


@op("Scan")
def scan_(t: Trial, label: str):
    x = t.pick(F32, rank=(2, 3), domain="small")
    inner = x.array[0]
    state, item, new, out = (t.state.fresh("s") for _ in range(4))
    graph = body(
        t,
        [
            helper.make_node("Add", [state, item], [new]),
            helper.make_node("Mul", [new, item], [out]),
        ],
        [tensor_info(state, inner), tensor_info(item, inner)],
        [tensor_info(new, inner), tensor_info(out, inner)],
    )
    t.finish(
        t.node(
            "Scan",
            [t.weight(t.draw(F32, inner.shape)), x],
            2,
            body=graph,
            num_scan_inputs=1,
            scan_input_directions=t.choose([None, [1]]),
        ),
        8,
        ring=True,
        sums=True,
    )
