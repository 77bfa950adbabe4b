#!/usr/bin/env python3
"""Runs ONNX Runtime on the ONNX backend tests that tests/onnx_node/generate.py wrote.

Its count stands beside Kiln's: same tests, same tolerances (each case's own), random ones by
shape and type.

    ort_node.py NODE_DIR [--out RESULT.tsv] [--only NAME ...] [--level none|all]

Files of an IR version newer than ONNX Runtime's own it refuses to load: that is its result.
(Relabelled as an older version they fail all the same: the operators are missing in those
versions, so the count does not change.)

RESULT.tsv: name, pass|fail|crash, message. ONNX Runtime runs in a child process, which is
replaced when it dies. Exit status 0 whatever the count: this measures a rival, it does not judge
it.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import common

# bfloat16 has 8 bits: onnx's own runner allows two of its steps.
BF16_RTOL = 2.0**-6
# Parts of ONNX Runtime's type names that Session.run cannot hand over as numpy arrays.
EXOTIC_TYPES = ("bfloat16", "float8", "float4", "int4", "int2")


def load_value(path: Path, info: onnx.ValueInfoProto):
    """The value in a .pb file: array, list of arrays (sequence), or None (empty optional)."""
    data = path.read_bytes()
    if info.type.HasField("sequence_type"):
        proto = onnx.SequenceProto()
        proto.ParseFromString(data)
        return numpy_helper.to_list(proto)
    if info.type.HasField("optional_type"):
        proto = onnx.OptionalProto()
        proto.ParseFromString(data)
        return numpy_helper.to_optional(proto)
    proto = onnx.TensorProto()
    proto.ParseFromString(data)
    return numpy_helper.to_array(proto)


def is_extension(value) -> bool:
    """Whether the dtype is one that numpy itself has not (bfloat16, float8, int4, ...)."""
    return isinstance(value, np.ndarray) and value.dtype.type.__module__ != "numpy"


def pack_nibbles(array: np.ndarray, bits: int) -> np.ndarray:
    """Packs 4- or 2-bit values, first value in the lowest bits, as ONNX and ONNX Runtime store
    them."""
    per = 8 // bits
    flat = array.reshape(-1).view(np.uint8)
    flat = flat & ((1 << bits) - 1)
    flat = np.concatenate([flat, np.zeros(-len(flat) % per, np.uint8)]).reshape(-1, per)
    return np.bitwise_or.reduce(flat << (np.arange(per, dtype=np.uint8) * bits), axis=1).astype(
        np.uint8
    )


def bits_of(onnx_type: int) -> int:
    """Bits that one element takes in memory."""
    narrow = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
    name = onnx.TensorProto.DataType.Name(onnx_type)
    return (
        narrow.get(name) or 8 * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(onnx_type)).itemsize
    )


def to_ortvalue(array: np.ndarray, onnx_type: int):
    import onnxruntime as ort

    if not is_extension(array):
        return ort.OrtValue.ortvalue_from_numpy(array)
    bits = bits_of(onnx_type)
    raw = pack_nibbles(array, bits) if bits < 8 else np.frombuffer(array.tobytes(), np.uint8)
    value = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, onnx_type)
    ctypes.memmove(value.data_ptr(), raw.ctypes.data, raw.nbytes)
    return value


def from_ortvalue(value) -> np.ndarray:
    onnx_type = value.element_type()
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(onnx_type))
    if dtype.type.__module__ == "numpy":
        return value.numpy()
    shape, bits = value.shape(), bits_of(onnx_type)
    raw = ctypes.string_at(value.data_ptr(), (int(np.prod(shape, dtype=np.int64)) * bits + 7) // 8)
    return numpy_helper.to_array(onnx.TensorProto(data_type=onnx_type, dims=shape, raw_data=raw))


def run_case(session, feeds: dict, infos: dict) -> list:
    """Through plain numpy where that can carry the types, else through OrtValues."""
    outputs = [o.name for o in session.get_outputs()]
    exotic = any(is_extension(v) for v in feeds.values()) or any(
        t in o.type for o in session.get_outputs() for t in EXOTIC_TYPES
    )
    if not exotic:
        return session.run(outputs, feeds)
    values = {n: to_ortvalue(v, infos[n].type.tensor_type.elem_type) for n, v in feeds.items()}
    return [from_ortvalue(v) for v in session.run_with_ort_values(outputs, values)]


def differ(got, want, rtol: float, atol: float, random: bool) -> str | None:
    """Why the two are not the same, or None."""
    if want is None or got is None:
        return None if got is None and want is None else "one is an empty optional"
    if isinstance(want, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(got) != len(want):
            return "sequence length"
        return next(
            (d for d in (differ(g, w, rtol, atol, random) for g, w in zip(got, want)) if d), None
        )
    got, want = np.asarray(got), np.asarray(want)
    problem = common.mismatch(got, want)
    if problem or random:
        return problem
    if want.dtype.name == "bfloat16":
        rtol = max(rtol, BF16_RTOL)
    if is_extension(want) or want.dtype.kind == "f":
        got, want = got.astype(np.float64), want.astype(np.float64)
    if want.dtype.kind == "b":
        return None if np.array_equal(got, want) else "bools differ"
    if not np.allclose(got, want, rtol=rtol, atol=atol, equal_nan=True):
        return f"max |diff| {common.max_abs_diff(got, want):.3g}"
    return None


def run_test(folder: Path, row: dict, level: str) -> tuple[str, str]:
    try:
        model = onnx.load(folder / "model.onnx")
        inputs, outputs = common.model_io(model)
        infos = {v.name: v for v in inputs}
        session = common.ort_session(folder / "model.onnx", level)
        for data in sorted(folder.glob("test_data_set_*")):
            count = len(list(data.glob("input_*.pb")))
            feeds = {
                v.name: load_value(data / f"input_{j}.pb", v) for j, v in enumerate(inputs[:count])
            }
            got = run_case(session, feeds, infos)
            wants = [load_value(data / f"output_{j}.pb", v) for j, v in enumerate(outputs)]
            if len(got) != len(wants):
                return "fail", f"{len(got)} outputs, expected {len(wants)}"
            for info, g, w in zip(outputs, got, wants):
                problem = differ(
                    g, w, float(row["rtol"]), float(row["atol"]), row["flag"] == "random"
                )
                if problem:
                    return "fail", f"{info.name}: {problem}"
        return "pass", ""
    except Exception as error:  # whatever the rival raises is its result
        text = " ".join(str(error).split())
        return "fail", text.replace(str(folder), folder.name)[:240]


def worker(pipe, base: str, level: str) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    # Opsets that ONNX has published after this ONNX Runtime was built count as unreleased to it;
    # let it try.
    os.environ["ALLOW_RELEASED_ONNX_OPSET_ONLY"] = "0"
    while (row := pipe.recv()) is not None:
        pipe.send(run_test(Path(base, row["name"]), row, level))


class Child:
    """One worker process; a test that kills it counts as `crash` and a new one takes over."""

    def __init__(self, base: Path, level: str):
        self.args = (str(base), level)
        self.start()

    def start(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(
            target=worker, args=(theirs, *self.args), daemon=True
        )
        self.process.start()
        theirs.close()

    def run(self, row: dict) -> tuple[str, str]:
        self.pipe.send(row)
        try:
            if self.pipe.poll(120):
                return self.pipe.recv()
            self.process.kill()
        except EOFError:
            pass
        self.process.join()
        code = self.process.exitcode
        self.start()
        return "crash", f"worker ended with {code}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("node_dir", type=Path)
    parser.add_argument("--out", type=Path, help="result table (default: NODE_DIR/../ort_node.tsv)")
    parser.add_argument("--only", nargs="*", help="test names")
    parser.add_argument(
        "--level", choices=("none", "all"), default="all", help="ONNX Runtime's optimizations"
    )
    args = parser.parse_args()
    common.warn_pins()
    with open(args.node_dir / "manifest.tsv", newline="") as f:
        rows = [r for r in csv.DictReader(f, delimiter="\t") if r["excluded"] == "-"]
    if args.only:
        rows = [r for r in rows if r["name"] in args.only]
    child = Child(args.node_dir, args.level)
    results = [(row["name"], *child.run(row)) for row in rows]
    out = args.out or args.node_dir.parent / "ort_node.tsv"
    out.write_text("".join("\t".join(r) + "\n" for r in [("name", "result", "message"), *results]))
    passed = sum(r[1] == "pass" for r in results)
    crashed = sum(r[1] == "crash" for r in results)
    print(f"ONNX Runtime: {passed} passed of {len(results)} ({crashed} crashed); {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
