"""Random graphs: builders of network, attention and signal operators."""

from __future__ import annotations

import numpy as np

from rg_core import F32, F64, Refused, Trial, Value
from rg_ops import axis_of, op


def image(t: Trial, ranks=(3, 5), dtypes=F32) -> Value:
    """N C spatial..."""
    return t.pick(dtypes, rank=ranks, where=lambda v: v.array.size <= 1500)


def scaled(t: Trial, shape, fan: int = 1) -> np.ndarray:
    """Weights that keep sums of `fan` terms near 1."""
    step = 2.0 ** -max(4, int(np.log2(max(fan, 1))) + 2)
    return (t.rng.integers(-12, 13, shape) * step).astype(F32)


def window(t: Trial, spatial, dilate: bool = True) -> dict:
    """Kernel, strides, pads, dilations; every window has room in the padded extent."""
    n = len(spatial)
    kernel = [t.between(1, min(4, d + 1)) for d in spatial]
    dilations = t.ints(1, 2, n) if dilate and t.chance(0.3) else [1] * n
    attrs: dict = {"kernel_shape": kernel}
    if t.chance(0.6):
        attrs["strides"] = t.ints(1, 3, n)
    style = t.rng.random()
    pads = [0] * 2 * n
    if style < 0.15:
        attrs["auto_pad"] = t.choose(["SAME_UPPER", "SAME_LOWER", "VALID"])
        if "SAME" in attrs["auto_pad"]:
            return attrs
    elif style < 0.8:
        pads = [t.between(0, k - 1) for k in kernel] + [t.between(0, k - 1) for k in kernel]
        attrs["pads"] = pads
    for j, extent in enumerate(spatial):
        if (kernel[j] - 1) * dilations[j] + 1 > extent + pads[j] + pads[j + n]:
            kernel[j] = 1
            pads[j] = pads[j + n] = 0
    if any(d != 1 for d in dilations):
        attrs["dilations"] = dilations
    return attrs


def skips_begin(attrs: dict, spatial) -> bool:
    """Whether strides wider than the kernel leave SAME padding negative. ONNX's shape inference
    and Conv then pad nothing; ONNX Runtime's AveragePool begins inside the image and its MaxPool
    refuses."""
    if "SAME" not in attrs.get("auto_pad", ""):
        return False
    n = len(spatial)
    strides, dilations = attrs.get("strides", [1] * n), attrs.get("dilations", [1] * n)
    return any(
        (-(-d // s) - 1) * s + (k - 1) * dil + 1 < d
        for d, k, s, dil in zip(spatial, attrs["kernel_shape"], strides, dilations)
    )


def groups(t: Trial, channels: int) -> int:
    divisors = [g for g in range(1, channels + 1) if channels % g == 0]
    return t.choose([1, 1, channels, t.choose(divisors)])


@op("Conv/1d", "Conv/2d", "Conv/3d")
def conv(t: Trial, label: str):
    rank = int(label[5]) + 2
    x = image(t, rank)
    channels, attrs = x.shape[1], window(t, x.shape[2:])
    group = groups(t, channels)
    outs = group * t.choose([1, 1, 2, 3, 8])
    fan = channels // group * int(np.prod(attrs["kernel_shape"]))
    w = t.weight(scaled(t, (outs, channels // group, *attrs["kernel_shape"]), fan))
    bias = t.weight(t.draw(F32, (outs,))) if t.chance(0.6) else None
    if t.chance(0.3):
        del attrs["kernel_shape"]
    t.finish(t.node("Conv", [x, w, bias], group=group, **attrs), 8, sums=True)


@op("ConvTranspose/1d", "ConvTranspose/2d", "ConvTranspose/3d")
def conv_transpose(t: Trial, label: str):
    x = image(t, int(label[14]) + 2)
    spatial = x.shape[2:]
    n, channels = len(spatial), x.shape[1]
    group = groups(t, channels)
    outs = t.between(1, 4)
    kernel, strides = t.ints(1, 3, n), t.ints(1, 3, n)
    attrs: dict = {"strides": strides}
    if t.chance(0.3):
        attrs["dilations"] = t.ints(1, 2, n)
    if t.chance(0.5):
        attrs["pads"] = [t.between(0, k - 1) for k in kernel] * 2
    if t.chance(0.3):
        attrs["output_padding"] = [t.between(0, s - 1) for s in strides]
    w = t.weight(scaled(t, (channels, outs, *kernel), channels * int(np.prod(kernel))))
    bias = t.weight(t.draw(F32, (outs * group,))) if t.chance(0.6) else None
    t.finish(t.node("ConvTranspose", [x, w, bias], group=group, **attrs), 8, sums=True)


@op("MaxPool", "AveragePool", "LpPool")
def pool(t: Trial, label: str):
    x = image(t, dtypes=(F32, F32, "uint8", "int8") if label == "MaxPool" else F32)
    attrs = window(
        t, x.shape[2:], dilate=label == "MaxPool" or (label == "AveragePool" and t.opset >= 19)
    )
    if skips_begin(attrs, x.shape[2:]):
        raise Refused
    if t.chance(0.3) and "auto_pad" not in attrs and (label != "LpPool" or t.opset >= 18):
        attrs["ceil_mode"] = 1
    outputs = 1
    if label == "MaxPool" and t.chance(0.3):
        outputs = 2
    if label == "AveragePool":
        attrs["count_include_pad"] = t.between(0, 1)
    if label == "LpPool":
        attrs["p"] = t.between(1, 3)
    t.finish(
        t.node(label, [x], outputs, **attrs),
        {"MaxPool": 0, "AveragePool": 4, "LpPool": 32}[label],
        sums=True,
    )


@op("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(t: Trial, label: str):
    ulps = {"GlobalAveragePool": 4, "GlobalMaxPool": 0, "GlobalLpPool": 16}[label]
    t.finish(t.node(label, [image(t)]), ulps, sums=True)


@op("MaxUnpool")
def max_unpool(t: Trial, label: str):
    n, c, h, w = t.between(1, 2), t.between(1, 3), 2 * t.between(1, 4), 2 * t.between(1, 4)
    x = t.pick(F32, 4, shape=(n, c, h, w))
    values, places = t.node("MaxPool", [x], 2, kernel_shape=[2, 2], strides=[2, 2])
    t.finish(t.node("MaxUnpool", [values, places], kernel_shape=[2, 2], strides=[2, 2]))


@op("MatMul")
def matmul(t: Trial, label: str):
    x = t.pick((F32, F32, F64, "int32"), rank=(1, 4))
    inner, outer = x.shape[-1], t.between(1, 9)
    lead = (
        x.shape[:-2]
        if t.chance(0.3)
        else x.shape[len(x.shape) - 2 - t.between(0, 1) : -2]
        if len(x.shape) > 3
        else ()
    )
    made = (inner,) if t.chance(0.1) else (*lead, inner, outer)
    w = scaled(t, made, inner).astype(x.dtype) if x.dtype in (F32, F64) else t.draw(x.dtype, made)
    t.finish(t.node("MatMul", [x, t.weight(w)]), 4, ring=True, sums=True)


@op("Gemm")
def gemm(t: Trial, label: str):
    x = t.pick((F32, F32, F64), 2)
    ta, tb = t.between(0, 1), t.between(0, 1)
    m, k = (x.shape[1], x.shape[0]) if ta else x.shape
    n = t.between(1, 12)
    w = t.weight(scaled(t, (n, k) if tb else (k, n), k).astype(x.dtype))
    c = (
        t.weight(t.draw(x.dtype, t.choose([(n,), (1, n), (m, 1), (m, n), (1,), ()])))
        if t.chance(0.7)
        else None
    )
    attrs = {"alpha": t.choose([None, 0.5, 1.25]), "beta": t.choose([None, 0.5, 2.0])}
    t.finish(t.node("Gemm", [x, w, c], transA=ta, transB=tb, **attrs), 4, ring=True, sums=True)


@op("Einsum")
def einsum(t: Trial, label: str):
    equation, ranks = t.choose(
        [
            ("ij,jk->ik", 2),
            ("bij,bjk->bik", 3),
            ("ij->ji", 2),
            ("ij->j", 2),
            ("bij,bij->bi", 3),
            ("bhqd,bhkd->bhqk", 4),
            ("ii->i", 2),
            ("ij,ij->", 2),
            ("bij,jk->bik", 3),
        ]
    )
    left, *right = equation.split("->")[0].split(",")
    x = t.pick(F32, ranks, where=lambda v: left != "ii" or v.shape[0] == v.shape[1])
    sizes = dict(zip(left, x.shape))
    inputs = [x]
    if right:
        made = tuple(sizes.setdefault(c, t.between(1, 6)) for c in right[0])
        inputs.append(t.weight(scaled(t, made, x.shape[-1])))
    t.finish(t.node("Einsum", inputs, equation=equation), 4, ring=True, sums=True)


@op("BatchNormalization", "InstanceNormalization")
def batch_norm(t: Trial, label: str):
    x = image(t, (2, 5) if label[0] == "B" else (3, 5))
    c = x.shape[1]
    scale, shift = t.weight(t.draw(F32, (c,), "nonzero")), t.weight(t.draw(F32, (c,)))
    rest = (
        [t.weight(t.draw(F32, (c,))), t.weight(t.draw(F32, (c,), "pos"))] if label[0] == "B" else []
    )
    t.finish(
        t.node(label, [x, scale, shift, *rest], epsilon=t.choose([None, 1e-3, 0.1])), 16, sums=True
    )


@op("LayerNormalization", opset=17)
def layer_norm(t: Trial, label: str):
    x = t.pick(F32, rank=(2, 4), where=lambda v: v.shape[-1] > 1)
    axis = t.choose([-1, -1, len(x.shape) - 1, 1])
    made = x.shape[axis:]
    bias = t.weight(t.draw(F32, made)) if t.chance(0.7) else None
    t.finish(
        t.node(
            label, [x, t.weight(t.draw(F32, made)), bias], axis=axis, epsilon=t.choose([None, 1e-3])
        ),
        32,
        sums=True,
    )


@op("RMSNormalization", opset=23)
def rms_norm(t: Trial, label: str):
    x = t.pick(F32, rank=(2, 4))
    t.finish(t.node(label, [x, t.weight(t.draw(F32, x.shape[-1:]))], axis=-1), 32, sums=True)


@op("GroupNormalization", opset=21)
def group_norm(t: Trial, label: str):
    x = image(t)
    c = x.shape[1]
    t.finish(
        t.node(
            label,
            [x, t.weight(t.draw(F32, (c,))), t.weight(t.draw(F32, (c,)))],
            num_groups=t.choose([g for g in range(1, c + 1) if c % g == 0]),
        ),
        64,
        sums=True,
    )


@op("LRN")
def lrn(t: Trial, label: str):
    t.finish(
        t.node(
            "LRN",
            [image(t, 4)],
            size=t.choose([1, 3, 5]),
            alpha=t.choose([None, 0.01]),
            bias=t.choose([None, 2.0]),
        ),
        32,
    )


@op("LpNormalization")
def lp_norm(t: Trial, label: str):
    x = t.pick(F32, rank=(1, 4), domain="nonzero")
    t.finish(t.node(label, [x], axis=axis_of(t, len(x.shape)), p=t.between(1, 2)), 16)


@op("MeanVarianceNormalization")
def mean_variance(t: Trial, label: str):
    x = image(t, 4)
    t.finish(t.node(label, [x], axes=t.choose([None, [0, 2, 3], [2, 3]])), 64, sums=True)


@op("Resize")
def resize(t: Trial, label: str):
    x = image(t, (3, 5))
    spatial = list(x.shape[2:])
    mode = t.choose(
        ["nearest", "nearest", "linear", "linear"] + (["cubic"] if len(spatial) == 2 else [])
    )
    if mode == "linear" and len(spatial) == 1:
        mode = "nearest"
    where = t.choose(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
    attrs: dict = {"mode": mode, "coordinate_transformation_mode": where}
    if mode == "nearest":
        attrs["nearest_mode"] = t.choose(
            ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
        )
    if mode == "cubic":
        attrs["cubic_coeff_a"] = t.choose([-0.5, -0.75])
        attrs["exclude_outside"] = t.between(0, 1)
    # align_corners with scales differs between ONNX and ONNX Runtime where extent * scale is no
    # integer.
    if t.chance(0.5) or where == "align_corners":
        target = [t.between(1, 2 * d + 1) for d in spatial]
        t.finish(
            t.node("Resize", [x, None, None, t.vector([*x.shape[:2], *target])], **attrs),
            16,
            sums=True,
        )
    else:
        scales = [t.choose([0.5, 1.0, 1.5, 2.0, 3.0]) for _ in spatial]
        if any(d * s < 1 for d, s in zip(spatial, scales)):
            raise Refused("an empty output")
        t.finish(
            t.node("Resize", [x, None, t.vector([1, 1, *scales], F32)], **attrs), 16, sums=True
        )


@op("GridSample", opset=16)
def grid_sample(t: Trial, label: str):
    x = image(t, 4)
    grid = (
        t.rng.integers(-1100, 1100, (x.shape[0], t.between(1, 5), t.between(1, 5), 2)) / 1024
    ).astype(F32)
    modes = ("bilinear", "nearest", "bicubic") if t.opset < 20 else ("linear", "nearest", "cubic")
    t.finish(
        t.node(
            label,
            [x, t.weight(grid)],
            mode=t.choose(modes),
            align_corners=t.between(0, 1),
            padding_mode=t.choose(["zeros", "border", "reflection"]),
        ),
        64,
        sums=True,
    )


@op("AffineGrid", opset=20)
def affine_grid(t: Trial, label: str):
    n = t.between(1, 2)
    theta = t.weight(t.draw(F32, (n, 2, 3), "unit"))
    t.finish(
        t.node(
            label,
            [theta, t.vector([n, 2, t.between(2, 5), t.between(2, 5)])],
            align_corners=t.between(0, 1),
        ),
        8,
        sums=True,
    )


@op("Col2Im", opset=18)
def col2im(t: Trial, label: str):
    h, w, kh, kw = t.between(3, 6), t.between(3, 6), t.between(1, 3), t.between(1, 3)
    blocks = (h - kh + 1) * (w - kw + 1)
    x = t.pick(F32, 3, shape=(1, t.between(1, 2) * kh * kw, blocks))
    t.finish(t.node(label, [x, t.vector([h, w]), t.vector([kh, kw])]), 2, ring=True, sums=True)


@op("Det")
def det(t: Trial, label: str):
    n = t.between(1, 4)
    x = t.pick(F32, (2, 3), shape=t.choose([(n, n), (2, n, n)]))
    t.finish(t.node("Det", [x]), 64, sums=True)


@op("RoiAlign", opset=16)
def roi_align(t: Trial, label: str):
    x = image(t, 4)
    count = t.between(1, 3)
    corner = t.rng.integers(0, 12, (count, 2)) / 4
    rois = np.concatenate([corner, corner + t.rng.integers(2, 12, (count, 2)) / 4], 1).astype(F32)
    batch = t.rng.integers(0, x.shape[0], count).astype("int64")
    # With more than one sample a bin, ONNX Runtime's own maximum is wrong (it says so in a
    # warning).
    mode = t.choose(["avg", "max"])
    samples = t.between(1, 2) if mode == "avg" else 1
    t.finish(
        t.node(
            label,
            [x, t.weight(rois), t.weight(batch)],
            output_height=t.between(1, 3),
            output_width=t.between(1, 3),
            sampling_ratio=samples,
            spatial_scale=0.5,
            mode=mode,
        ),
        32,
        sums=True,
    )


@op("NonMaxSuppression")
def nms(t: Trial, label: str):
    count = t.between(2, 8)
    corner = t.rng.integers(0, 32, (1, count, 2)) / 32
    boxes = np.concatenate([corner, corner + t.rng.integers(8, 32, (1, count, 2)) / 32], 2).astype(
        F32
    )
    scores = (t.rng.permutation(2 * count).reshape(1, 2, count) / 16 + 0.03).astype(F32)
    t.finish(
        t.node(
            label,
            [
                t.weight(boxes),
                t.weight(scores),
                t.vector([t.between(1, count)]),
                t.const(np.float32(0.37)),
                t.const(np.float32(0.13)),
            ],
            center_point_box=t.between(0, 1),
        )
    )


# attention, signal


@op("Attention", opset=23)
def attention(t: Trial, label: str):
    n, h, s, d, past = (
        t.between(1, 2),
        t.between(1, 3),
        t.between(1, 6),
        t.between(1, 8),
        t.between(1, 6),
    )
    q, k, v = (t.weight(t.draw(F32, (n, h, length, d), "unit")) for length in (s, past, past))
    mask = t.weight(t.draw(F32, (s, past))) if t.chance(0.5) else None
    t.finish(
        t.node(
            label,
            [q, k, v, mask],
            is_causal=t.between(0, 1) if mask is None else None,
            scale=t.choose([None, 0.5]),
        ),
        64,
        sums=True,
    )


@op("RotaryEmbedding", opset=23)
def rotary(t: Trial, label: str):
    n, h, s, d = t.between(1, 2), t.between(1, 3), t.between(1, 5), 2 * t.between(1, 4)
    angle = t.rng.uniform(0, 6, (n, s, d // 2))
    x = t.weight(t.draw(F32, (n, h, s, d)))
    t.finish(
        t.node(
            label,
            [x, t.weight(np.cos(angle).astype(F32)), t.weight(np.sin(angle).astype(F32))],
            interleaved=t.between(0, 1),
        ),
        4,
        sums=True,
    )


@op("DFT", opset=17)
def dft(t: Trial, label: str):
    x = t.weight(t.draw(F32, (t.between(1, 2), t.choose([4, 5, 8, 12]), 1)))
    inverse = 0
    axis = 1
    if t.opset >= 20:
        t.finish(
            t.node(
                "DFT",
                [x, None, t.const(np.asarray(axis, "int64"))],
                inverse=inverse,
                onesided=t.between(0, 1),
            ),
            64,
            sums=True,
        )
    else:
        t.finish(
            t.node("DFT", [x], axis=axis, inverse=inverse, onesided=t.between(0, 1)), 64, sums=True
        )


@op("STFT", opset=17)
def stft(t: Trial, label: str):
    x = t.weight(t.draw(F32, (1, 32, 1)))
    size, step = t.choose([8, 16]), t.between(3, 8)
    shape = t.weight(t.draw(F32, (size,), "unit"))
    t.finish(
        t.node("STFT", [x, t.const(np.asarray(step, "int64")), shape], onesided=1), 64, sums=True
    )


@op("HannWindow", "HammingWindow", "BlackmanWindow", opset=17)
def windows(t: Trial, label: str):
    t.finish(
        t.node(label, [t.const(np.asarray(t.between(3, 20), "int64"))], periodic=t.between(0, 1)),
        32,
        sums=True,
    )


@op("MelWeightMatrix", opset=17)
def mel(t: Trial, label: str):
    numbers = [np.asarray(v, "int64") for v in (t.between(4, 10), t.choose([32, 64]), 8000)]
    t.finish(
        t.node(
            label,
            [*(t.const(n) for n in numbers), t.const(np.float32(0)), t.const(np.float32(4000))],
        ),
        32,
    )
