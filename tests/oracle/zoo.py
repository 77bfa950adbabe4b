#!/usr/bin/env python3
"""The zoo networks against ONNX Runtime.

    zoo.py prepare [NAME ...]     weights, seeded inputs, ONNX Runtime's outputs; resumes
    zoo.py compare [NAME ...]     runs kiln on them; exit 1 if any output of any network is off

Truth is ONNX Runtime in float32 with its graph optimizations off: the graph as exported, operator
by operator. (Its own answer with all optimizations is stored as a difference, `ort_all`, in units
of the output's range: how much honest reordering moves this network.) Per network the cache holds

    NAME.onnx, NAME.weights    made by the zoo's own fill_weights.py
    NAME/case.json             names, samples, versions, differences
    NAME/SAMPLE.in_J.npy, NAME/SAMPLE.out_J.npy

SAMPLE is a or b (batch 1) or batch3 (networks with a symbolic batch).

`a` and `b` differ in their inputs only. `compare` first asks that they move the outputs (a
network whose outputs do not answer to its input proves nothing), then bounds max |diff| / range
of each output by 1e-4; integer outputs must be equal. `--flip` checks the check: it flips one bit
of each expected output and passes if every comparison notices.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx

import common

BOUND = 1e-4
# Between two inputs every output must move by more than this part of its range: far above the
# bound, so that the outputs of one input can never pass for those of the other.
MOVES = 20 * BOUND
# Sizes of symbolic dimensions other than the batch.
SYMBOLS = {"S": 128}


def token_ranges(model: onnx.ModelProto) -> dict[str, int]:
    """Rows of the embedding table that each integer input indexes (Gather on axis 0 of an
    initializer)."""
    tables = {t.name: list(t.dims) for t in model.graph.initializer}
    return {
        node.input[1]: tables[node.input[0]][0]
        for node in model.graph.node
        if node.op_type == "Gather" and node.input[0] in tables and len(tables[node.input[0]]) == 2
    }


def batch_symbol(model: onnx.ModelProto) -> bool:
    """Whether every input's first dimension is symbolic."""
    return all(v.type.tensor_type.shape.dim[0].dim_param for v in common.model_io(model)[0])


def make_inputs(
    model: onnx.ModelProto, name: str, sample: str, batch: int
) -> dict[str, np.ndarray]:
    """Seeded by network and sample: normal floats, tokens over the whole table, a mask with a
    padded tail."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"{name}/{sample}".encode())))
    tables, feeds = token_ranges(model), {}
    for info in common.model_io(model)[0]:
        tensor = info.type.tensor_type
        shape = [
            d.dim_value if d.HasField("dim_value") else batch if j == 0 else SYMBOLS[d.dim_param]
            for j, d in enumerate(tensor.shape.dim)
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if info.name in tables:
            feeds[info.name] = rng.integers(0, tables[info.name], shape).astype(dtype)
        elif np.dtype(dtype).kind == "i":
            lengths = rng.integers(shape[-1] // 2, shape[-1], shape[:-1])
            feeds[info.name] = (np.arange(shape[-1]) < lengths[..., None]).astype(dtype)
        else:
            feeds[info.name] = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    return feeds


def prepare(name: str, cache: Path, force: bool) -> str:
    folder, model_file = cache / name, cache / f"{name}.onnx"
    case_file = folder / "case.json"
    if case_file.is_file() and not force and model_file.is_file():
        return "kept"
    zoo = common.shared_dir() / "zoo"
    folder.mkdir(parents=True, exist_ok=True)
    if force or not (cache / f"{name}.weights").is_file():
        subprocess.run(
            [sys.executable, str(zoo / "fill_weights.py"), "--out", str(cache), name],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    model = onnx.load(model_file, load_external_data=False)
    samples = {"a": 1, "b": 1} | ({"batch3": 3} if batch_symbol(model) else {})
    plain, optimized = (
        common.ort_session(model_file, "none", 2),
        common.ort_session(model_file, "all", 2),
    )
    names = [o.name for o in plain.get_outputs()]
    case = {
        "schema": "kiln.oracle.zoo/1",
        "model": name,
        "inputs": [v.name for v in plain.get_inputs()],
        "outputs": names,
        "versions": common.PINS,
        "samples": {},
    }
    for sample, batch in samples.items():
        feeds = make_inputs(model, name, sample, batch)
        wants, others = plain.run(names, feeds), optimized.run(names, feeds)
        for j, input_name in enumerate(case["inputs"]):
            np.save(folder / f"{sample}.in_{j}.npy", feeds[input_name])
        for j, want in enumerate(wants):
            np.save(folder / f"{sample}.out_{j}.npy", want)
        case["samples"][sample] = {
            "batch": batch,
            "ort_all": [
                common.range_error(o, w) if o.shape == w.shape else "shape"
                for o, w in zip(others, wants)
            ],
            "ranges": [common.value_range(w) for w in wants],
        }
    case_file.write_text(json.dumps(case, indent=1) + "\n")
    spread = max(
        (e for s in case["samples"].values() for e in s["ort_all"] if e != "shape"), default=0.0
    )
    return f"{len(samples)} samples, ort optimized differs by {spread:.1e} of the range"


def flip_one_bit(array: np.ndarray) -> np.ndarray:
    """Flips the top exponent (or integer) bit of the value in the middle."""
    if array.size == 0:
        return np.zeros([max(1, d) for d in array.shape], array.dtype)
    raw = np.frombuffer(bytearray(array.tobytes()), np.uint8).reshape(
        array.size, array.dtype.itemsize
    )
    raw[array.size // 2, -1] ^= 0x40
    return np.frombuffer(raw.tobytes(), array.dtype).reshape(array.shape)


def moved(first: np.ndarray, second: np.ndarray) -> tuple[bool, str]:
    if first.shape != second.shape:
        return True, "another shape"
    amount = common.range_error(second, first)
    if first.dtype.kind in "biu":
        return amount > 0, f"another input moves it by {amount:g}"
    return amount > MOVES, f"another input moves it by {amount:.1%} of its range"


def compare(name: str, cache: Path, kiln: common.Kiln, args, tally: common.Tally) -> None:
    folder = cache / name
    case = json.loads((folder / "case.json").read_text())
    model = args.engines / f"{name}.kiln" if args.engines else cache / f"{name}.onnx"
    outputs: dict[str, list[np.ndarray]] = {}
    for sample in case["samples"]:
        if args.samples and sample not in args.samples:
            continue
        feeds = {n: np.load(folder / f"{sample}.in_{j}.npy") for j, n in enumerate(case["inputs"])}
        wants = [np.load(folder / f"{sample}.out_{j}.npy") for j in range(len(case["outputs"]))]
        if args.flip:
            wants = [flip_one_bit(w) for w in wants]
        try:
            got = kiln.run(model, feeds, args.threads)
        except common.KilnError as error:
            tally.check(f"{name}/{sample}", False, str(error))
            continue
        outputs[sample] = []
        for output, want in zip(case["outputs"], wants):
            label = f"{name}/{sample}/{output}"
            if output not in got:
                tally.check(label, False, "output missing")
                continue
            outputs[sample].append(got[output])
            problem = common.mismatch(got[output], want)
            error = float("inf") if problem else common.range_error(got[output], want)
            bound = 0.0 if want.dtype.kind in "biu" else BOUND
            close = not problem and error <= bound
            tally.check(
                label, close != args.flip, problem or f"{error:.2e} of range, bound {bound:g}"
            )
    if "a" in outputs and "b" in outputs:
        for output, first, second in zip(case["outputs"], outputs["a"], outputs["b"]):
            tally.check(f"{name}/moves/{output}", *moved(first, second))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=("prepare", "compare"))
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    parser.add_argument("--cache", type=Path, default=common.default_cache() / "zoo")
    parser.add_argument("--force", action="store_true", help="prepare: make everything anew")
    parser.add_argument("--kiln", help="the command (default: $KILN_BIN or the release build)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--samples", nargs="*", help="a, b, batch3 (default: all that the network has)"
    )
    parser.add_argument(
        "--engines", type=Path, help="compare: run DIR/NAME.kiln instead of the models"
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="compare: spoil every expected output; each must be noticed",
    )
    args = parser.parse_intermixed_args(argv)
    common.warn_pins()
    zoo = common.shared_dir() / "zoo"
    names = args.names or sorted(p.stem for p in zoo.glob("*.onnx"))
    if not names:
        return common.no_networks(zoo)
    if args.mode == "prepare":
        args.cache.mkdir(parents=True, exist_ok=True)
        for name in names:
            print(f"{name:24s} {prepare(name, args.cache, args.force)}", flush=True)
        return 0
    tally = common.Tally("zoo, spoiled" if args.flip else "zoo")
    kiln = common.Kiln([args.kiln] if args.kiln else [])
    for name in names:
        if not (args.cache / name / "case.json").is_file():
            prepare(name, args.cache, False)
        compare(name, args.cache, kiln, args, tally)
    return tally.verdict()


if __name__ == "__main__":
    sys.exit(main())
