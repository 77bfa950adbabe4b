"""Random graphs: planted bugs.

Each plant changes a model the way a wrong engine would compute it. The comparison sees the
outputs of the changed model and must notice. A plant returns False where the graph offers it
nothing to spoil.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, helper, numpy_helper


def attribute(node, name):
    return next((a for a in node.attribute if a.name == name), None)


def nodes_of(model: ModelProto, *ops: str) -> list:
    return [n for n in model.graph.node if n.op_type in ops]


def swap_ops(pairs: dict[str, str]):
    def plant(model: ModelProto, rng) -> bool:
        found = nodes_of(model, *pairs)
        if not found:
            return False
        node = found[int(rng.integers(len(found)))]
        node.op_type = pairs[node.op_type]
        return True

    return plant


def wrong_axis(model: ModelProto, rng) -> bool:
    """Normalizes or accumulates along the neighbouring axis."""
    for node in nodes_of(model, "Softmax", "LogSoftmax", "ArgMax", "ArgMin", "Hardmax"):
        axis = attribute(node, "axis")
        if axis is not None:
            axis.i = 0 if axis.i != 0 else -1
            return True
    return False


def missing_bias(model: ModelProto, rng) -> bool:
    for node in nodes_of(model, "Conv", "ConvTranspose", "Gemm"):
        if len(node.input) == 3:
            del node.input[2]
            return True
    return False


def shifted_pad(model: ModelProto, rng) -> bool:
    """One row of padding on the wrong side."""
    for node in nodes_of(model, "Conv", "MaxPool", "AveragePool"):
        pads = attribute(node, "pads")
        if pads is None:
            continue
        half = len(pads.ints) // 2
        for j in range(half):
            if pads.ints[j] > 0:
                pads.ints[j] -= 1
                pads.ints[j + half] += 1
                return True
    return False


def ignored_attribute(model: ModelProto, rng) -> bool:
    names = {
        "LeakyRelu": "alpha",
        "Elu": "alpha",
        "Celu": "alpha",
        "Gemm": "alpha",
        "HardSigmoid": "beta",
        "Selu": "gamma",
        "ThresholdedRelu": "alpha",
        "BatchNormalization": "epsilon",
        "Shrink": "bias",
    }
    for node in nodes_of(model, *names):
        kept = [a for a in node.attribute if a.name != names[node.op_type]]
        if len(kept) < len(node.attribute):
            del node.attribute[:]
            node.attribute.extend(kept)
            return True
    return False


def swapped_branches(model: ModelProto, rng) -> bool:
    for node in nodes_of(model, "Where"):
        node.input[1], node.input[2] = node.input[2], node.input[1]
        return True
    for node in nodes_of(model, "If"):
        first, second = attribute(node, "then_branch"), attribute(node, "else_branch")
        first.name, second.name = second.name, first.name
        return True
    return False


def stale_weight(model: ModelProto, rng) -> bool:
    """One float parameter off by 2 %."""
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if array.dtype != np.float32 or array.size < 2 or not np.isfinite(array).all():
            continue
        at = int(np.argmax(np.abs(array)))
        array.reshape(-1)[at] *= np.float32(1.02)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return True
    return False


def zero_point_off(model: ModelProto, rng) -> bool:
    used = {
        n.input[2]
        for n in nodes_of(model, "QuantizeLinear", "DequantizeLinear")
        if len(n.input) > 2
    }
    for tensor in model.graph.initializer:
        if tensor.name in used:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((array + 1).astype(array.dtype), tensor.name))
            return True
    return False


def swapped_perm(model: ModelProto, rng) -> bool:
    """A transpose that leaves everything where it was, where the shapes hide it."""
    for node in nodes_of(model, "Transpose"):
        perm = attribute(node, "perm")
        if perm is not None and list(perm.ints) != sorted(perm.ints):
            order = list(perm.ints)
            del perm.ints[:]
            perm.ints.extend([order.index(j) for j in range(len(order))])
            if list(perm.ints) != order:
                return True
            order[0], order[-1] = order[-1], order[0]
            del perm.ints[:]
            perm.ints.extend(order)
            return True
    return False


def lost_fraction(model: ModelProto, rng) -> bool:
    """A float output computed in half precision."""
    for info in model.graph.output:
        makers = [n for n in model.graph.node if info.name in n.output]
        if info.type.tensor_type.elem_type != 1 or not makers:
            continue
        node = makers[0]
        inner, half = info.name + "_full", info.name + "_half"
        node.output[list(node.output).index(info.name)] = inner
        for other in model.graph.node:
            for j, name in enumerate(other.input):
                if name == info.name:
                    other.input[j] = inner
        model.graph.node.append(helper.make_node("Cast", [inner], [half], to=10))
        model.graph.node.append(helper.make_node("Cast", [half], [info.name], to=1))
        return True
    return False


PLANTS = {
    "add-for-sub": swap_ops({"Add": "Sub", "Sub": "Add"}),
    "max-for-min": swap_ops(
        {"Max": "Min", "Min": "Max", "ReduceMax": "ReduceMin", "ReduceMin": "ReduceMax"}
    ),
    "floor-for-round": swap_ops({"Round": "Floor", "Ceil": "Floor", "Floor": "Ceil"}),
    "less-or-equal": swap_ops(
        {
            "Less": "LessOrEqual",
            "Greater": "GreaterOrEqual",
            "LessOrEqual": "Less",
            "GreaterOrEqual": "Greater",
        }
    ),
    "wrong-axis": wrong_axis,
    "missing-bias": missing_bias,
    "shifted-pad": shifted_pad,
    "ignored-attribute": ignored_attribute,
    "swapped-branches": swapped_branches,
    "stale-weight": stale_weight,
    "zero-point-off": zero_point_off,
    "swapped-perm": swapped_perm,
    "lost-fraction": lost_fraction,
}
