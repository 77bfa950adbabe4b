#!/usr/bin/env python3
"""Real trained networks against their saved outputs.

    models.py [FOLDER or FOLDER/FILE ...]      (default: every network under the shared models/)

Each X.onnx has samples X.data_K/{input_J,output_J}.pb, made by other engines. kiln runs every
sample; how near its output must come is POLICY below. Exit 1 if any output is off, or if a folder
holds a model without samples. `--engine ort` puts ONNX Runtime in kiln's place: it shows what the
policies ask of an engine known to be right. `--flip` spoils one bit of every expected output and
passes if every comparison notices.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import common
from zoo import flip_one_bit


@dataclass(frozen=True)
class Policy:
    """How an output is judged.

    rule   `range`: max |diff| <= bound * range of the expected output (integers: equal)
           `steps`: max |diff| <= bound * scale of the DequantizeLinear that ends the graph, and
           the same top-1 where
                    top1 is set; behind a final Softmax the logarithms are compared, whose common
                    offset is free
           `deeplab`: the stored stride-16 sample by `range`, and the stored argmax map, where a
           pixel may differ
                    only if the two classes lie within the bound of each other
    """

    rule: str = "range"
    bound: float = 1e-4
    top1: bool = False


# First match of a prefix of FOLDER/STEM wins.
POLICY = (
    ("cifar10_nets/resnet18_eager_int8", Policy("steps", 2, top1=True)),  # PyTorch's own outputs
    ("fashion_resnet8/model_eager_", Policy("steps", 2, top1=True)),
    ("mobilenet_v1_025/model_qdq_int8", Policy("steps", 1)),
    (
        "mnist_cnn_intops/model",
        Policy(),
    ),  # integers inside, but no quantizer at its end: float output
    ("squeezenet/model_fp16", Policy(bound=2e-3)),
    ("deeplab_v3/model", Policy("deeplab")),
    ("", Policy()),
)

# Samples whose shape differs from a fixed one that the file declares: override that input's shape.
OVERRIDE = {
    ("nanotrack_v1/backbone", "1"): ("input", (1, 3, 127, 127)),
    ("nanotrack_v2/backbone", "1"): ("input", (1, 3, 127, 127)),
}

# Two float evaluations of the same step boundary: the scale itself is rounded to float.
STEP_SLACK = 1e-3


def policy_of(key: str) -> Policy:
    return next(policy for prefix, policy in POLICY if key.startswith(prefix))


def final_step(model: onnx.ModelProto) -> tuple[float, bool]:
    """(scale of the DequantizeLinear behind the first output, whether a Softmax follows it)."""
    makers = {name: node for node in model.graph.node for name in node.output}
    values = {t.name: t for t in model.graph.initializer}
    softmax, name = False, model.graph.output[0].name
    while name in makers:
        node = makers[name]
        if node.op_type == "DequantizeLinear":
            scale = values.get(node.input[1])
            if scale is None:
                scale = next(a.t for a in makers[node.input[1]].attribute if a.name == "value")
            return float(onnx.numpy_helper.to_array(scale).reshape(-1)[0]), softmax
        if node.op_type not in ("Softmax", "Flatten", "Reshape", "Identity"):
            break
        softmax |= node.op_type == "Softmax"
        name = node.input[0]
    raise SystemExit(f"no DequantizeLinear ends the graph (at {name})")


def judge_range(got: np.ndarray, want: np.ndarray, bound: float) -> tuple[bool, str]:
    error = common.range_error(got, want)
    if want.dtype.kind in "biu":
        return error == 0, f"integers differ by {error:g}"
    return error <= bound, f"{error:.2e} of range, bound {bound:g}"


def judge_steps(
    got: np.ndarray, want: np.ndarray, model: onnx.ModelProto, policy: Policy
) -> tuple[bool, str]:
    step, softmax = final_step(model)
    if softmax:
        if not (np.isfinite(got).all() and (got > 0).all()):
            return False, "probabilities not positive"
        diff = np.log(got.astype(np.float64)) - np.log(want.astype(np.float64))
        worst = float((diff.max(axis=-1) - diff.min(axis=-1)).max()) / 2 / step
    else:
        worst = common.max_abs_diff(got, want) / step
    ok, text = (
        worst <= policy.bound + STEP_SLACK,
        f"{worst:.3f} steps of {step:.4g}, bound {policy.bound:g}",
    )
    if policy.top1:
        # Quantized logits tie: the expected winner must be among ours.
        winners = np.take_along_axis(got, want.argmax(axis=-1)[..., None], axis=-1)[..., 0]
        lost = int((winners != got.max(axis=-1)).sum())
        ok, text = ok and lost == 0, text + f", top-1 differs on {lost}"
    return ok, text


def judge_deeplab(got: np.ndarray, folder: Path, bound: float, flip: bool) -> tuple[bool, str]:
    sample = common.load_tensor(folder / "output_0_stride16.pb")
    classes = np.fromfile(folder / "output_0_argmax_257x257_u8.bin", np.uint8).reshape(257, 257)
    if got.shape != (1, 257, 257, 21) or got.dtype != np.float32:
        return False, f"{got.dtype} {list(got.shape)}"
    if flip:
        sample = flip_one_bit(sample)
    ok, text = judge_range(got[:, ::16, ::16, :], sample, bound)
    own = got[0].max(axis=-1)
    theirs = np.take_along_axis(got[0], classes[..., None].astype(np.int64), axis=-1)[..., 0]
    far = int((own - theirs > 2 * bound * common.value_range(sample)).sum())
    differ = int((got[0].argmax(axis=-1) != classes).sum())
    return (
        ok and far == 0,
        f"{text}, argmax differs on {differ} pixels, {far} of them not near ties",
    )


class OrtEngine:
    """ONNX Runtime behind the same call as kiln."""

    def run(self, model: Path, feeds: dict, threads: int | None = None, extra: tuple = ()) -> dict:
        source: bytes | Path = model
        if extra:
            proto = onnx.load(model)
            name, _, dims = extra[1].rpartition(":")
            for info in proto.graph.input:
                if info.name == name:
                    for dim, size in zip(info.type.tensor_type.shape.dim, dims.split("x")):
                        dim.dim_value = int(size)
            for info in proto.graph.output:
                info.type.tensor_type.ClearField("shape")
            del proto.graph.value_info[:]
            source = proto.SerializeToString()
        session = common.ort_session(source, "none", threads or 1)
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds)))


def check_sample(
    engine, key: str, model_file: Path, model: onnx.ModelProto, folder: Path, args, tally
) -> None:
    inputs, outputs = common.model_io(model)
    feeds = {v.name: common.load_tensor(folder / f"input_{j}.pb") for j, v in enumerate(inputs)}
    number = folder.suffix.removeprefix(".data_")
    label = f"{key}/{number}"
    extra: tuple[str, ...] = ()
    if (key, number) in OVERRIDE:
        name, shape = OVERRIDE[key, number]
        extra = ("--override-shape", f"{name}:{'x'.join(map(str, shape))}")
    policy = policy_of(key)
    try:
        got = engine.run(model_file, feeds, args.threads, extra)
    except common.KilnError as error:
        tally.check(label, False, str(error))
        return
    for j, info in enumerate(outputs):
        if info.name not in got:
            tally.check(f"{label}/{info.name}", False, "output missing")
            continue
        value = got[info.name]
        if policy.rule == "deeplab":
            ok, text = judge_deeplab(value, folder, policy.bound, args.flip)
        else:
            want = common.load_tensor(folder / f"output_{j}.pb")
            want = flip_one_bit(want) if args.flip else want
            problem = common.mismatch(value, want)
            if problem:
                ok, text = False, problem
            elif policy.rule == "steps":
                ok, text = judge_steps(value, want, model, policy)
            else:
                ok, text = judge_range(value, want, policy.bound)
        tally.check(f"{label}/{info.name}", ok != args.flip, text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="FOLDER or FOLDER/STEM")
    parser.add_argument("--kiln", help="the command (default: $KILN_BIN or the release build)")
    parser.add_argument("--engine", choices=("kiln", "ort"), default="kiln")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--flip", action="store_true", help="spoil every expected output; each must be noticed"
    )
    args = parser.parse_intermixed_args(argv)
    common.warn_pins()
    base = common.shared_dir() / "models"
    files = sorted(base.glob("*/*.onnx"))
    if args.names:
        files = [
            f
            for f in files
            if f.parent.name in args.names or f"{f.parent.name}/{f.stem}" in args.names
        ]
    if not files:
        return common.no_networks(base)
    engine = OrtEngine() if args.engine == "ort" else common.Kiln([args.kiln] if args.kiln else [])
    tally = common.Tally("models, spoiled" if args.flip else "models")
    for file in files:
        key = f"{file.parent.name}/{file.stem}"
        samples = sorted(file.parent.glob(f"{file.stem}.data_*"))
        if not samples:
            tally.check(key, False, "no saved samples")
        model = onnx.load(file)
        for folder in samples:
            check_sample(engine, key, file, model, folder, args, tally)
    return tally.verdict()


if __name__ == "__main__":
    sys.exit(main())
