"""Random graphs: builders of shaping, indexing and sequence operators."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from rg_core import F16, F32, F64, Refused, Trial, Value
from rg_ops import axis_of, op

# shapes

ANY = (F32, F32, F32, F64, F16, "int64", "int32", "uint8", "int8", "bool")


@op("Shape")
def shape(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 5))
    attrs = {}
    if t.opset >= 15 and t.chance(0.5):
        start = t.between(0, len(x.shape) - 1)
        attrs = {"start": start, "end": t.between(start + 1, len(x.shape))}
    t.finish(t.node("Shape", [x], **attrs))


@op("Size")
def size(t: Trial, label: str):
    t.finish(t.node("Size", [t.pick(ANY)]))


def factors(t: Trial, total: int) -> list[int]:
    """A random shape of `total` elements."""
    made = []
    while total > 1 and len(made) < 4 and t.chance(0.8):
        options = [d for d in range(1, total + 1) if total % d == 0]
        made.append(t.choose(options))
        total //= made[-1]
    made.insert(t.between(0, len(made)), total)
    return made


@op("Reshape")
def reshape(t: Trial, label: str):
    x = t.pick(ANY)
    target = factors(t, x.array.size)
    if t.chance(0.5):
        target[t.between(0, len(target) - 1)] = -1
    if t.chance(0.3) and x.shape and x.shape[0] == (target[0] if target[0] != -1 else None):
        target[0] = 0
    t.finish(t.node("Reshape", [x, t.vector(target)]))


@op("Reshape/computed")
def reshape_computed(t: Trial, label: str):
    """Reshape(x, Concat(Shape(x)[:k], -1)): the shape arithmetic that exporters write."""
    x = t.pick(ANY, rank=(2, 4))
    keep = t.between(1, len(x.shape) - 1)
    dims = t.node("Shape", [x])
    head = t.node("Slice", [dims[0], t.vector([0]), t.vector([keep])])
    target = t.node("Concat", [head[0], t.vector([-1])], axis=0)
    t.finish(t.node("Reshape", [x, target[0]]))


@op("Flatten")
def flatten(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 5))
    t.finish(t.node("Flatten", [x], axis=t.between(-len(x.shape), len(x.shape))))


@op("Transpose")
def transpose(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 5))
    perm = None if t.chance(0.15) else [int(p) for p in t.rng.permutation(len(x.shape))]
    t.finish(t.node("Transpose", [x], perm=perm))


@op("Squeeze")
def squeeze(t: Trial, label: str):
    x = t.pick(ANY, rank=(2, 5), where=lambda v: 1 in v.shape)
    ones = [j for j, d in enumerate(x.shape) if d == 1]
    if t.chance(0.3):
        t.finish(t.node("Squeeze", [x]))
    else:
        axes = [
            ones[j] - (len(x.shape) if t.chance(0.3) else 0) for j in range(t.between(1, len(ones)))
        ]
        t.finish(t.node("Squeeze", [x, t.vector(axes)]))


@op("Unsqueeze")
def unsqueeze(t: Trial, label: str):
    x = t.pick(ANY, rank=(0, 3))
    count = t.between(1, 2)
    axes = [int(a) for a in t.rng.permutation(len(x.shape) + count)[:count]]
    t.finish(t.node("Unsqueeze", [x, t.vector(axes)]))


@op("Expand")
def expand(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 4))
    target = [t.between(1, 4) if d == 1 else t.choose([1, d]) for d in x.shape]
    if t.chance(0.3):
        target = [t.between(1, 3)] + target
    t.finish(t.node("Expand", [x, t.vector(target)]))


@op("Tile")
def tile(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 4))
    t.finish(t.node("Tile", [x, t.vector(t.ints(1, 3, len(x.shape)))]))


@op("Concat")
def concat(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 4))
    axis = axis_of(t, len(x.shape))
    others = []
    for _ in range(t.between(0, 2)):
        made = list(x.shape)
        made[axis] = t.between(1, 4)
        others.append(t.weight(t.draw(x.dtype, tuple(made))))
    inputs = [x, *others] + ([x] if t.chance(0.2) else [])
    order = [inputs[int(j)] for j in t.rng.permutation(len(inputs))]
    t.finish(t.node("Concat", order, axis=axis))


@op("Split")
def split(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 4), where=lambda v: max(v.shape, default=0) > 1)
    axis = t.choose([j for j, d in enumerate(x.shape) if d > 1])
    extent = x.shape[axis]
    if t.opset >= 18 and t.chance(0.5):
        parts = t.between(2, min(4, extent))
        if -(-extent // parts) * (parts - 1) >= extent:
            raise Refused("an empty part")
        t.finish(t.node("Split", [x], parts, axis=axis, num_outputs=parts))
    else:
        cuts = sorted({t.between(1, extent - 1) for _ in range(t.between(1, 2))})
        sizes = [int(b - a) for a, b in zip([0, *cuts], [*cuts, extent])]
        t.finish(
            t.node(
                "Split",
                [x, t.vector(sizes)],
                len(sizes),
                axis=axis - (len(x.shape) if t.chance(0.3) else 0),
            )
        )


@op("Slice")
def slice_(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 5))
    rank = len(x.shape)
    axes = [int(a) for a in t.rng.permutation(rank)[: t.between(1, rank)]]
    starts, ends, steps = [], [], []
    for a in axes:
        extent, step = x.shape[a], t.choose([1, 1, 1, 2, 3, -1, -2])
        low = t.between(0, extent - 1)
        high = t.between(low + 1, extent)
        if step > 0:
            start, end = low, t.choose([high, high, 2**31 - 1, 2**63 - 1])
        else:
            start, end = (
                high - 1,
                t.choose([low - 1 if low else -extent - 1, -extent - 5, -(2**31)]),
            )
        starts.append(start - extent if t.chance(0.2) else start)
        ends.append(end)
        steps.append(step)
    inputs = [x, t.vector(starts), t.vector(ends), t.vector(axes), t.vector(steps)]
    if all(s == 1 for s in steps) and t.chance(0.5):
        inputs.pop()
    t.finish(t.node("Slice", inputs))


@op("Pad")
def pad(t: Trial, label: str):
    x = t.pick((F32, F32, F64, "int32", "int64"), rank=(1, 4))
    modes = ["constant", "constant", "reflect", "edge"] + (["wrap"] if t.opset >= 19 else [])
    mode = t.choose(modes)
    limit = [2 if mode in ("constant", "edge") else min(2, d - 1) for d in x.shape]
    begin, end = [t.between(0, m) for m in limit], [t.between(0, m) for m in limit]
    if mode == "constant" and t.chance(0.2):
        j = t.between(0, len(x.shape) - 1)
        begin[j] = -1 if x.shape[j] > 2 else 0
    value = (
        t.const(np.asarray(t.between(-3, 3), x.dtype))
        if mode == "constant" and t.chance(0.6)
        else None
    )
    t.finish(t.node("Pad", [x, t.vector(begin + end), value], mode=mode))


@op("DepthToSpace", "SpaceToDepth")
def depth_space(t: Trial, label: str):
    block = t.between(1, 3)
    n, c, h, w = t.between(1, 2), t.between(1, 3), t.between(1, 4), t.between(1, 4)
    made = (n, c * block * block, h, w) if label == "DepthToSpace" else (n, c, h * block, w * block)
    x = t.pick(F32, 4, shape=made)
    mode = t.choose([None, "DCR", "CRD"]) if label == "DepthToSpace" else None
    t.finish(t.node(label, [x], blocksize=block, mode=mode))


@op("CenterCropPad", opset=18)
def center_crop_pad(t: Trial, label: str):
    x = t.pick((F32, "int32"), rank=(1, 4))
    axes = sorted(int(a) for a in t.rng.permutation(len(x.shape))[: t.between(1, len(x.shape))])
    t.finish(t.node(label, [x, t.vector(t.ints(1, 9, len(axes)))], axes=axes))


@op("Range")
def range_(t: Trial, label: str):
    dtype = t.choose(["int64", "int32", F32])
    start, delta, count = t.between(-5, 5), t.choose([1, 2, 3, -1, -2]), t.between(1, 9)
    ends = [np.asarray(v, dtype) for v in (start, start + delta * count, delta)]
    t.finish(t.node("Range", [t.const(e) for e in ends]))


@op("ConstantOfShape")
def constant_of_shape(t: Trial, label: str):
    value = np.asarray([t.between(-3, 3)], t.choose([F32, "int64", "int32", F64]))
    tensor = helper.make_tensor(
        "value", helper.np_dtype_to_tensor_dtype(value.dtype), [1], value.tolist()
    )
    t.finish(
        t.node(label, [t.vector(t.dims(t.between(1, 4)))], value=tensor if t.chance(0.8) else None)
    )


@op("EyeLike")
def eye_like(t: Trial, label: str):
    t.finish(
        t.node(
            label,
            [t.pick((F32, "int32", "int64"), 2)],
            k=t.between(-2, 2),
            dtype=t.choose([None, TensorProto.FLOAT, TensorProto.INT64]),
        )
    )


@op("Trilu", opset=14)
def trilu(t: Trial, label: str):
    x = t.pick((F32, "int64", "int32", F64), rank=(2, 4))
    k = t.const(np.asarray(t.between(-3, 3), "int64")) if t.chance(0.7) else None
    t.finish(t.node(label, [x, k], upper=t.between(0, 1)))


# indexing


def indices(t: Trial, extent: int, shape, dtype: str | None = None) -> Value:
    low = -extent if t.chance(0.4) else 0
    return t.weight(
        t.rng.integers(low, extent, shape).astype(dtype or t.choose(["int64", "int64", "int32"]))
    )


@op("Gather")
def gather(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 4))
    axis = axis_of(t, len(x.shape))
    t.finish(
        t.node(
            "Gather", [x, indices(t, x.shape[axis], tuple(t.dims(t.between(0, 2), 24)))], axis=axis
        )
    )


@op("GatherElements")
def gather_elements(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 4))
    axis = axis_of(t, len(x.shape))
    made = list(x.shape)
    made[axis] = t.between(1, 5)
    t.finish(t.node(label, [x, indices(t, x.shape[axis], tuple(made))], axis=axis))


def nd_indices(t: Trial, x: Value, batch: int, distinct: bool) -> np.ndarray:
    depth = t.between(1, len(x.shape) - batch)
    where = x.shape[batch : batch + depth]
    total = int(np.prod(where))
    lead = x.shape[:batch]
    rows = t.between(1, 5)
    if distinct:
        rows = min(rows, total)
        flat = t.rng.permutation(total)[:rows]
        return np.stack(np.unravel_index(flat, where), -1).astype("int64")
    return np.stack([t.rng.integers(0, d, (*lead, rows)) for d in where], -1).astype("int64")


@op("GatherND")
def gather_nd(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 4))
    batch = t.between(0, 1) if len(x.shape) > 1 else 0
    t.finish(t.node(label, [x, t.weight(nd_indices(t, x, batch, False))], batch_dims=batch or None))


def scatter_reduction(t: Trial) -> dict:
    options = [None, "none"]
    if t.opset >= 16:
        options += ["add", "mul"]
    if t.opset >= 18:
        options += ["max", "min"]
    return {"reduction": t.choose(options)}


@op("ScatterElements")
def scatter_elements(t: Trial, label: str):
    x = t.pick((F32, "int64", "int32"), rank=(1, 4), domain="small")
    axis, attrs = axis_of(t, len(x.shape)), scatter_reduction(t)
    made = [t.between(1, d) for d in x.shape]
    order = np.argsort(
        t.rng.random(
            tuple(x.shape[axis] if j == axis % len(x.shape) else d for j, d in enumerate(made))
        ),
        axis=axis,
    )
    where = np.take(order, range(made[axis]), axis).astype("int64")
    t.finish(
        t.node(
            label, [x, t.weight(where), t.weight(t.draw(x.dtype, tuple(made)))], axis=axis, **attrs
        ),
        1,
        True,
    )


@op("ScatterND")
def scatter_nd(t: Trial, label: str):
    x = t.pick((F32, "int64"), rank=(1, 4), domain="small")
    where = nd_indices(t, x, 0, True)
    made = (where.shape[0], *x.shape[where.shape[1] :])
    t.finish(
        t.node(
            label, [x, t.weight(where), t.weight(t.draw(x.dtype, made))], **scatter_reduction(t)
        ),
        1,
        True,
    )


@op("OneHot")
def one_hot(t: Trial, label: str):
    depth = t.between(2, 6)
    dtype = t.choose([F32, "int64"])
    hot = t.const(np.asarray([0, t.between(1, 3)], dtype))
    made = t.dims(t.between(1, 3), 60)
    t.finish(
        t.node(
            label,
            [indices(t, depth, tuple(made), "int64"), t.const(np.asarray(depth, "int64")), hot],
            axis=t.between(-len(made) - 1, len(made)),
        )
    )


@op("NonZero")
def non_zero(t: Trial, label: str):
    # Whether a computed value is zero is a matter of rounding.
    x = t.pick(
        (F32, "int64", "bool", "int32", "uint8"),
        rank=(1, 4),
        where=lambda v: bool(v.array.any()) and not (v.dtype == F32 and v.touched),
    )
    t.finish(t.node(label, [x]))


@op("Compress")
def compress(t: Trial, label: str):
    x = t.pick(ANY, rank=(1, 4))
    axis = None if t.chance(0.3) else axis_of(t, len(x.shape))
    extent = x.array.size if axis is None else x.shape[axis]
    mask = t.rng.random(min(extent, 40)) < 0.6
    mask[0] = True
    t.finish(t.node(label, [x, t.weight(mask)], axis=axis))


@op("Unique")
def unique(t: Trial, label: str):
    # Whether computed values are the same is a matter of rounding.
    x = t.pick(
        (F32, "int64", "int32"), rank=(1, 3), where=lambda v: not (v.dtype == F32 and v.touched)
    )
    axis = None if t.chance(0.5) else axis_of(t, len(x.shape))
    t.finish(t.node(label, [x], t.choose([1, 4]), axis=axis, sorted=t.between(0, 1)))


@op("ReverseSequence")
def reverse_sequence(t: Trial, label: str):
    x = t.pick((F32, "int64"), rank=(2, 4))
    time = t.between(0, 1)
    lengths = t.rng.integers(1, x.shape[time] + 1, x.shape[1 - time]).astype("int64")
    t.finish(t.node(label, [x, t.weight(lengths)], time_axis=time, batch_axis=1 - time))


@op("Dropout")
def dropout(t: Trial, label: str):
    ratio = t.const(np.float32(0.4)) if t.chance(0.5) else None
    t.finish(t.node(label, [t.pick(F32, rank=(1, 4)), ratio], t.choose([1, 2])))


# sequences


@op("SequenceConstruct/SequenceAt", "SequenceConstruct/SequenceLength")
def sequence(t: Trial, label: str):
    x = t.pick((F32, "int64"), rank=(1, 3))
    items = [x] + [t.weight(t.draw(x.dtype, x.shape)) for _ in range(t.between(0, 2))]
    made = t.node("SequenceConstruct", items)
    if t.chance(0.3):
        made = t.node(
            "SequenceInsert",
            [made[0], items[-1], t.const(np.asarray(t.between(0, len(items)), "int64"))],
        )
        items.append(items[-1])
    if len(items) > 1 and t.chance(0.3):
        made = t.node(
            "SequenceErase",
            [made[0], t.const(np.asarray(t.between(-len(items), len(items) - 1), "int64"))],
        )
        items.pop()
    if label.endswith("Length"):
        t.finish(t.node("SequenceLength", [made[0]]))
    else:
        at = t.const(np.asarray(t.between(-len(items), len(items) - 1), "int64"))
        t.finish(t.node("SequenceAt", [made[0], at]))


@op("SplitToSequence/ConcatFromSequence")
def split_sequence(t: Trial, label: str):
    x = t.pick(F32, rank=(1, 3))
    axis = axis_of(t, len(x.shape))
    step = t.const(np.asarray(t.between(1, max(1, x.shape[axis] // 2)), "int64"))
    made = t.node("SplitToSequence", [x, step], axis=axis)
    t.finish(t.node("ConcatFromSequence", made, axis=axis, new_axis=0))


@op("SequenceEmpty/SequenceInsert")
def sequence_empty(t: Trial, label: str):
    x = t.pick(F32, rank=(1, 3))
    made = t.node("SequenceEmpty", [], dtype=TensorProto.FLOAT)
    made = t.node("SequenceInsert", [made[0], x])
    made = t.node(
        "SequenceInsert", [made[0], t.weight(t.draw(F32, x.shape)), t.const(np.asarray(0, "int64"))]
    )
    t.finish(t.node("ConcatFromSequence", made, axis=0, new_axis=t.between(0, 1)))
