"""Random graphs: builders of elementwise and reducing operators, and the table of all builders.

BUILDERS maps a label (operator, or operator and variant) to (lowest opset, builder). A builder
adds one fragment to a Trial and calls its finish(); it draws everything that the operator leaves
free. rg_shape.py, rg_nn.py, rg_flow.py and rg_quant.py add theirs.
"""

from __future__ import annotations

import numpy as np
from onnx import helper

from rg_core import F16, F32, F64, FLOATS, INTS, Refused, Trial

BUILDERS: dict = {}
MS = "com.microsoft"


def op(*labels: str, opset: int = 13):
    def add(build):
        for label in labels:
            BUILDERS[label] = (opset, lambda t, label=label: build(t, label))
        return build

    return add


def axis_of(t: Trial, rank: int) -> int:
    return t.between(-rank, rank - 1)


# elementwise

# operator: (domain, ulps, lowest opset, attributes drawn)
UNARY = {
    "Abs": ("any", 0, 13, {}),
    "Neg": ("any", 0, 13, {}),
    "Relu": ("any", 0, 14, {}),
    "Ceil": ("any", 0, 13, {}),
    "Floor": ("any", 0, 13, {}),
    "Round": ("any", 0, 13, {}),
    "Sign": ("any", 0, 13, {}),
    "Identity": ("any", 0, 14, {}),
    "Sqrt": ("pos", 2, 13, {}),
    "Exp": ("small", 8, 13, {}),
    "Log": ("pos", 8, 13, {}),
    "Sin": ("small", 8, 13, {}),
    "Cos": ("small", 8, 13, {}),
    "Tan": ("unit", 16, 13, {}),
    "Asin": ("unit", 16, 13, {}),
    "Acos": ("unit", 16, 13, {}),
    "Atan": ("any", 8, 13, {}),
    "Sinh": ("small", 16, 13, {}),
    "Cosh": ("small", 16, 13, {}),
    "Asinh": ("any", 32, 13, {}),
    "Acosh": ("ge1", 32, 13, {}),
    "Atanh": ("unit", 32, 13, {}),
    "Tanh": ("any", 16, 13, {}),
    "Sigmoid": ("any", 16, 13, {}),
    "Erf": ("any", 16, 13, {}),
    "Reciprocal": ("nonzero", 2, 13, {}),
    "Softplus": ("any", 16, 13, {}),
    "Softsign": ("any", 4, 13, {}),
    "HardSwish": ("any", 4, 14, {}),
    "Mish": ("any", 32, 18, {}),
    "Elu": ("any", 16, 13, {"alpha": (0.25, 2)}),
    "Celu": ("any", 16, 13, {"alpha": (0.5, 2)}),
    "Selu": ("any", 16, 13, {"alpha": (0.5, 2), "gamma": (0.5, 2)}),
    "LeakyRelu": ("any", 2, 16, {"alpha": (0.01, 0.9)}),
    "ThresholdedRelu": ("any", 0, 13, {"alpha": (0.1, 2)}),
    "HardSigmoid": ("any", 4, 13, {"alpha": (0.1, 0.5), "beta": (0.2, 0.7)}),
    "Shrink": ("any", 1, 13, {"bias": (0.1, 1), "lambd": (0.2, 1.5)}),
}
ALSO_INTS = {"Abs", "Neg", "Relu", "Sign", "Identity"}
# ONNX Runtime forms 1 + erf or 1 + tanh: it rounds relative to the input.
GELU_ULPS = 3
# ONNX Runtime computes them in float precision on doubles too.
NOT_DOUBLE = {"HardSwish", "Shrink"}


@op(*UNARY)
def unary(t: Trial, label: str):
    domain, ulps, lowest, drawn = UNARY[label]
    if t.opset < lowest and label not in ("Relu", "Identity", "LeakyRelu"):
        raise Refused("opset")
    dtypes = FLOATS + ("int32", "int64", "int8") if label in ALSO_INTS else FLOATS
    if label in NOT_DOUBLE:
        dtypes = tuple(d for d in dtypes if d != F64)
    x = t.pick(dtypes, domain=domain)
    attrs = {k: round(float(t.rng.uniform(*r)), 3) for k, r in drawn.items() if t.chance(0.7)}
    t.finish(t.node(label, [x], **attrs), ulps)


@op("Gelu", opset=20)
def gelu(t: Trial, label: str):
    made = t.node("Gelu", [t.pick(F32)], approximate=t.choose([None, "none", "tanh"]))
    t.finish(made, GELU_ULPS, sums=True)


@op("Not")
def logical_not(t: Trial, label: str):
    t.finish(t.node("Not", [t.pick("bool")]))


@op("IsNaN", "IsInf")
def classify(t: Trial, label: str):
    data = t.draw(F32, tuple(t.dims(t.between(1, 4))))
    for special in (np.nan, np.inf, -np.inf):
        data[t.rng.random(data.shape) < 0.2] = special
    attrs = {}
    if label == "IsInf":
        attrs = {"detect_negative": t.between(0, 1), "detect_positive": t.between(0, 1)}
    value = t.const(data, node=False)
    t.finish(t.node(label, [value], **attrs))


@op("BitwiseNot", opset=18)
def bitwise_not(t: Trial, label: str):
    t.finish(t.node(label, [t.pick(INTS)]))


BINARY = {"Add": "any", "Sub": "any", "Mul": "any", "Div": "nonzero", "PRelu": "unit"}


@op(*BINARY)
def binary(t: Trial, label: str):
    domain = BINARY[label]
    x = t.pick(FLOATS + ("int64", "int32") if label != "PRelu" else FLOATS)
    y = t.partner(x, domain)
    # ONNX Runtime also broadcasts x to the slope; the standard does not.
    if label == "PRelu" and np.broadcast_shapes(x.shape, y.shape) != x.shape:
        raise Refused("slope larger than x")
    pair = [x, y] if label in ("Div", "PRelu") or t.chance(0.6) else [y, x]
    t.finish(t.node(label, pair), 1 if label != "Div" else 2, ring=label != "Div")


@op("Pow")
def power(t: Trial, label: str):
    x = t.pick(F32, domain="pos", where=lambda v: v.array.max() < 20)
    if t.chance(0.5):
        y = t.const(np.float32(t.choose([0.5, 1.0, 2.0, 3.0, -1.0, -0.5])))
    else:
        y = t.partner(x, "unit")
    t.finish(t.node("Pow", [x, y]), 32)


@op("Mod")
def modulo(t: Trial, label: str):
    if t.chance(0.3):
        x = t.pick(F32)
        t.finish(t.node("Mod", [x, t.partner(x, "nonzero")], fmod=1), 1, ring=True)
    else:
        x = t.pick(("int64", "int32", "int8", "uint8"))
        y = t.weight(t.draw(x.dtype, x.shape[x.array.ndim // 2 :], "nonzero"))
        t.finish(t.node("Mod", [x, y], fmod=t.between(0, 1)))


@op("Max", "Min", "Sum", "Mean")
def variadic(t: Trial, label: str):
    x = t.pick(FLOATS + ("int32", "int64") if label in ("Max", "Min") else (F32,))
    inputs = [x] + [t.partner(x) for _ in range(t.between(0, 3))]
    t.finish(
        t.node(label, inputs), 0 if label in ("Max", "Min") else 2, ring=label == "Sum", sums=True
    )


@op("And", "Or", "Xor")
def logical(t: Trial, label: str):
    x = t.pick("bool")
    t.finish(t.node(label, [x, t.partner(x)]))


@op("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")
def compare(t: Trial, label: str):
    x = t.pick((F32, F64, "int32", "int64"))
    if label == "Equal" and t.chance(0.2):
        x = t.pick("bool")
    t.finish(t.node(label, [x, t.partner(x)]))


@op("BitShift")
def bit_shift(t: Trial, label: str):
    x = t.pick(("uint8", "uint32", "uint64"))
    y = t.weight(t.rng.integers(0, 7, x.shape).astype(x.dtype))
    t.finish(t.node(label, [x, y], direction=t.choose(["LEFT", "RIGHT"])))


@op("BitwiseAnd", "BitwiseOr", "BitwiseXor", opset=18)
def bitwise(t: Trial, label: str):
    x = t.pick(INTS)
    t.finish(t.node(label, [x, t.partner(x)]))


@op("Clip")
def clip(t: Trial, label: str):
    x = t.pick(FLOATS + ("int32", "int64", "int8", "uint8"))
    kind = np.dtype(x.dtype)
    low = (
        t.const(np.asarray(t.between(0, 2) if kind.kind == "u" else -t.between(0, 2), kind))
        if t.chance(0.7)
        else None
    )
    high = t.const(np.asarray(t.between(2, 5), kind)) if t.chance(0.7) else None
    t.finish(t.node(label, [x, low, high]))


@op("Where")
def where(t: Trial, label: str):
    x = t.pick((F32, F64, "int64", "int32", "uint8", "bool"))
    t.finish(t.node(label, [t.partner(x, dtype="bool"), x, t.partner(x)]))


@op("Cast", "CastLike")
def cast(t: Trial, label: str):
    if label == "CastLike" and t.opset < 15:
        raise Refused("opset")
    x = t.pick((F32, F64, F16, "bool", "int64", "int32", "uint8", "int8"))
    to = t.choose(
        [F32, F32, F64, F16, "bool", "int64", "int32", "uint8", "int8", "int16", "uint16"]
    )
    lowest = -100 if to in ("int8", "int16", "int32", "int64") else 0
    if np.dtype(to).kind in "iu" and (
        x.array.size and (x.array.min() < lowest or x.array.max() > 100)
    ):
        raise Refused("outside the target type")
    # Rounding to a narrower float is the source's rounding; its own error is measured by the
    # copies.
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(to))
    if label == "Cast":
        t.finish(t.node("Cast", [x], to=kind))
    else:
        t.finish(t.node("CastLike", [x, t.const(np.zeros((1,), to))]))


# reductions

REDUCE = {
    "ReduceSum": (1, True),
    "ReduceMean": (2, False),
    "ReduceMax": (0, False),
    "ReduceMin": (0, False),
    "ReduceProd": (4, False),
    "ReduceL1": (1, True),
    "ReduceL2": (4, False),
    "ReduceLogSum": (16, False),
    "ReduceLogSumExp": (16, False),
    "ReduceSumSquare": (2, True),
}


@op(*REDUCE)
def reduce(t: Trial, label: str):
    ulps, ring = REDUCE[label]
    domain = "pos" if label in ("ReduceLogSum",) else "unit" if label == "ReduceProd" else "any"
    x = t.pick(
        (F32, F32, F64, "int32", "int64")
        if label in ("ReduceSum", "ReduceMax", "ReduceMin")
        else F32,
        rank=(1, 5),
        domain=domain,
    )
    rank = len(x.shape)
    axes = None
    if t.chance(0.85):
        count = t.between(1, rank)
        axes = sorted(int(a) for a in t.rng.permutation(rank)[:count])
        axes = [a - rank if t.chance(0.3) else a for a in axes]
    attrs = {"keepdims": t.between(0, 1)}
    inputs: list = [x]
    if axes is not None and (t.opset >= 18 or label == "ReduceSum"):
        inputs.append(t.vector(axes))
    elif axes is not None:
        attrs["axes"] = axes
    elif t.chance(0.3) and (t.opset >= 18 or label == "ReduceSum"):
        attrs["noop_with_empty_axes"] = 1
    t.finish(t.node(label, inputs, **attrs), ulps, ring, sums=label != "ReduceProd")


@op("ArgMax", "ArgMin")
def arg(t: Trial, label: str):
    x = t.pick((F32, F64, "int32", "int8", "uint8"), rank=(1, 5))
    t.finish(
        t.node(
            label,
            [x],
            axis=axis_of(t, len(x.shape)),
            keepdims=t.between(0, 1),
            select_last_index=t.choose([None, 0, 1]),
        )
    )


@op("TopK")
def top_k(t: Trial, label: str):
    x = t.pick((F32, F64, "int64", "int32"), rank=(1, 4))
    axis = axis_of(t, len(x.shape))
    k = t.vector([t.between(1, x.shape[axis])])
    t.finish(t.node(label, [x, k], 2, axis=axis, largest=t.between(0, 1), sorted=1))


@op("CumSum")
def cumulative(t: Trial, label: str):
    x = t.pick((F32, F64, "int32", "int64"), rank=(1, 4))
    axis = t.const(np.asarray(axis_of(t, len(x.shape)), "int64"))
    t.finish(
        t.node(label, [x, axis], exclusive=t.between(0, 1), reverse=t.between(0, 1)),
        1,
        ring=True,
        sums=True,
    )


@op("Softmax", "LogSoftmax", "Hardmax")
def softmax(t: Trial, label: str):
    x = t.pick((F32, F32, F64), rank=(1, 4), domain="any")
    ulps = {"Softmax": 16, "LogSoftmax": 16, "Hardmax": 0}[label]
    t.finish(t.node(label, [x], axis=axis_of(t, len(x.shape))), ulps, sums=label == "LogSoftmax")
