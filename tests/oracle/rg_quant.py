"""Random graphs: builders of quantized operators and of ONNX Runtime's contrib ones that
exporters emit."""

from __future__ import annotations

import numpy as np

from rg_core import F32, Refused, Trial, Value
from rg_nn import groups, scaled, window
from rg_ops import GELU_ULPS, MS, axis_of, op

# quantization


def quant_params(t: Trial, dtype: str, shape=()):
    scale = t.const(
        (2.0 ** t.rng.integers(-5, -2, shape)).astype(F32)
        if t.chance(0.5)
        else np.asarray(t.rng.uniform(0.02, 0.1, shape), F32)
    )
    info = np.iinfo(dtype)
    middle = (int(info.min) + int(info.max) + 1) // 2
    return scale, t.const(np.asarray(t.rng.integers(middle - 9, middle + 10, shape)).astype(dtype))


@op("QuantizeLinear")
def quantize(t: Trial, label: str):
    x = t.pick(F32, rank=(1, 4))
    dtype = t.choose(["uint8", "int8"] + (["uint16", "int16"] if t.opset >= 21 else []))
    if t.chance(0.4):
        axis = axis_of(t, len(x.shape))
        scale, zero = quant_params(t, dtype, (x.shape[axis],))
        t.finish(t.node(label, [x, scale, zero], axis=axis))
    else:
        scale, zero = quant_params(t, dtype)
        t.finish(t.node(label, [x, scale, zero]))


@op("DequantizeLinear")
def dequantize(t: Trial, label: str):
    x = t.pick(("uint8", "int8"), rank=(1, 4))
    axis = axis_of(t, len(x.shape)) if t.chance(0.4) else None
    scale, zero = quant_params(t, x.dtype, () if axis is None else (x.shape[axis],))
    t.finish(t.node(label, [x, scale, zero], axis=axis), 1)


@op("QuantizeLinear/DequantizeLinear")
def quantize_pair(t: Trial, label: str):
    x = t.pick(F32, rank=(1, 4))
    scale, zero = quant_params(t, t.choose(["uint8", "int8"]))
    q = t.node("QuantizeLinear", [x, scale, zero])
    t.finish(t.node("DequantizeLinear", [q[0], scale, zero]), 1)


@op("DynamicQuantizeLinear")
def dynamic_quantize(t: Trial, label: str):
    x = t.pick(F32, rank=(1, 3))
    low, high = min(0.0, float(x.array.min())), max(0.0, float(x.array.max()))
    if low == high:
        raise Refused("all zero: scale 1 in ONNX Runtime, 1/255 in ONNX's own evaluator")
    steps = x.array.astype(np.float64) / ((high - low) / 255)
    # A value half-way between two steps may go to either.
    if x.touched and (np.abs(steps - np.floor(steps) - 0.5) < 1e-3).any():
        raise Refused("a tie")
    t.finish(t.node(label, [x], 3), 2)


def eight_bit(t: Trial, rank, shape=None) -> Value:
    return t.pick(
        ("uint8", "int8"),
        rank=rank,
        domain="wide",
        shape=shape,
        where=lambda v: v.array.size <= 1500,
    )


def weight8(t: Trial, dtype: str, shape) -> Value:
    """Weights. Signed ones have 7 bits: beyond, without VNNI, ONNX Runtime's sums of two products
    of u8 and s8 saturate."""
    codes = t.draw(dtype, shape, "wide")
    return t.weight(codes >> 1 if dtype == "int8" else codes)


@op("MatMulInteger")
def matmul_integer(t: Trial, label: str):
    x = eight_bit(t, (2, 3))
    w = weight8(t, t.choose(["int8", "uint8"]), (x.shape[-1], t.between(1, 9)))
    zeros = [
        t.const(np.asarray(t.between(0, 9), v.dtype)) if t.chance(0.6) else None for v in (x, w)
    ]
    t.finish(t.node(label, [x, w, *zeros]))


@op("QLinearMatMul")
def qlinear_matmul(t: Trial, label: str):
    x = eight_bit(t, (2, 3))
    w = weight8(t, t.choose(["int8", x.dtype]), (x.shape[-1], t.between(1, 9)))
    t.finish(
        t.node(
            label,
            [x, *quant_params(t, x.dtype), w, *quant_params(t, w.dtype), *quant_params(t, x.dtype)],
        ),
        slack=1,
    )


@op("ConvInteger")
def conv_integer(t: Trial, label: str):
    x = t.pick("uint8", 4, domain="wide", where=lambda v: v.array.size <= 1500)
    attrs = window(t, x.shape[2:])
    w = t.weight(t.draw("uint8", (t.between(1, 5), x.shape[1], *attrs["kernel_shape"]), "wide"))
    zeros = [
        t.const(np.asarray(t.between(0, 9), "uint8")) if t.chance(0.6) else None for _ in range(2)
    ]
    t.finish(t.node(label, [x, w, *zeros], **attrs))


@op("QLinearConv")
def qlinear_conv(t: Trial, label: str):
    x = eight_bit(t, 4)
    attrs, group = window(t, x.shape[2:]), groups(t, x.shape[1])
    outs = group * t.between(1, 3)
    w = weight8(t, "int8", (outs, x.shape[1] // group, *attrs["kernel_shape"]))
    scale = t.const(t.rng.uniform(0.01, 0.05, (outs,) if t.chance(0.5) else ()).astype(F32))
    zero = t.const(np.zeros(scale.shape, "int8"))
    bias = t.const(t.rng.integers(-500, 500, outs).astype("int32")) if t.chance(0.5) else None
    t.finish(
        t.node(
            label,
            [x, *quant_params(t, x.dtype), w, scale, zero, *quant_params(t, x.dtype), bias],
            group=group,
            **attrs,
        ),
        slack=1,
    )


@op("QLinearAdd", "QLinearMul")
def qlinear_binary(t: Trial, label: str):
    x = eight_bit(t, (1, 4))
    y = t.weight(t.draw(x.dtype, x.shape, "wide"))
    t.finish(
        t.node(
            label,
            [x, *quant_params(t, x.dtype), y, *quant_params(t, x.dtype), *quant_params(t, x.dtype)],
            domain=MS,
        ),
        slack=1,
    )


@op("QLinearSigmoid", "QLinearLeakyRelu")
def qlinear_unary(t: Trial, label: str):
    x = eight_bit(t, (1, 4))
    t.finish(
        t.node(label, [x, *quant_params(t, x.dtype), *quant_params(t, x.dtype)], domain=MS), slack=1
    )


@op("QLinearGlobalAveragePool", "QLinearAveragePool")
def qlinear_pool(t: Trial, label: str):
    x = eight_bit(t, 4)
    attrs = {} if "Global" in label else {"kernel_shape": [1, min(2, x.shape[3])]}
    t.finish(
        t.node(
            label, [x, *quant_params(t, x.dtype), *quant_params(t, x.dtype)], domain=MS, **attrs
        ),
        slack=1,
    )


@op("QLinearConcat")
def qlinear_concat(t: Trial, label: str):
    x = eight_bit(t, (1, 4))
    y = t.weight(t.draw(x.dtype, x.shape, "wide"))
    t.finish(
        t.node(
            label,
            [*quant_params(t, x.dtype), x, *quant_params(t, x.dtype), y, *quant_params(t, x.dtype)],
            domain=MS,
            axis=axis_of(t, len(x.shape)),
        ),
        slack=1,
    )


# contrib


@op("FusedMatMul")
def fused_matmul(t: Trial, label: str):
    x = t.pick(F32, (2, 3))
    ta, tb, n = t.between(0, 1), t.between(0, 1), t.between(1, 7)
    k = x.shape[-2] if ta else x.shape[-1]
    w = t.weight(scaled(t, (n, k) if tb else (k, n), k))
    t.finish(
        t.node(label, [x, w], domain=MS, transA=ta, transB=tb, alpha=t.choose([1.0, 0.5])),
        4,
        ring=True,
        sums=True,
    )


@op("com.microsoft.Gelu", "FastGelu", "QuickGelu")
def contrib_gelu(t: Trial, label: str):
    made = t.node(label.split(".")[-1], [t.pick(F32, rank=(1, 4))], domain=MS)
    t.finish(made, GELU_ULPS, sums=True)


@op("BiasGelu")
def bias_gelu(t: Trial, label: str):
    x = t.pick(F32, rank=(1, 4))
    made = t.node(label, [x, t.weight(t.draw(F32, x.shape[-1:]))], domain=MS)
    t.finish(made, GELU_ULPS, sums=True)


@op("SkipLayerNormalization")
def skip_layer_norm(t: Trial, label: str):
    x = t.pick(F32, 3, where=lambda v: v.shape[-1] > 1)
    skip = t.weight(t.draw(F32, x.shape))
    gamma, beta, bias = (t.weight(t.draw(F32, x.shape[-1:])) for _ in range(3))
    t.finish(
        t.node(
            label,
            [x, skip, gamma, beta if t.chance(0.7) else None, bias if t.chance(0.4) else None],
            domain=MS,
            epsilon=1e-3,
        ),
        64,
        sums=True,
    )
