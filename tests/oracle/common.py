"""What the oracle scripts share: files, ONNX Runtime sessions, the kiln command, and how arrays
compare.

Truth here always comes from outside Kiln: saved outputs of other engines, or ONNX Runtime run on
the spot.

    kiln = Kiln()                                   # $KILN_BIN, else the release build
    got = kiln.run(model, {"input": x}, threads=2)  # name -> array
    for name, want in expected.items():
        error = range_error(got[name], want)        # max |diff| / range of want
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
# ctest's word for a skipped test.
SKIPPED = 77
PINS = {"onnx": "1.23.1", "onnxruntime": "1.31.1", "numpy": "2.4.6"}


def shared_dir() -> Path:
    """The folder with models/ and zoo/: $KILN_SHARED, else `shared` beside the repository.

    An empty $KILN_SHARED says that there is none.
    """
    return Path(os.environ.get("KILN_SHARED", ROOT.parent / "shared") or "/nonexistent")


def no_networks(folder: Path) -> int:
    """Exit status where `folder` holds none of what was asked: skipped if the folder is absent."""
    if not folder.is_dir():
        print(f"skipped: no folder {folder} (set $KILN_SHARED)")
        return SKIPPED
    print(f"{folder}: no such networks", file=sys.stderr)
    return 2


def default_cache() -> Path:
    return Path(os.environ.get("KILN_ORACLE_CACHE", ROOT / "build" / "oracle"))


def default_kiln() -> str:
    """The command: $KILN_BIN, else the release build."""
    return os.environ.get("KILN_BIN", str(ROOT / "build" / "release" / "kiln"))


def warn_pins() -> None:
    """Says on stderr which pinned package has another version here."""
    from importlib.metadata import version

    for package, pin in PINS.items():
        if version(package) != pin:
            print(f"warning: {package} {version(package)} here, {pin} pinned", file=sys.stderr)


def load_tensor(path: Path) -> np.ndarray:
    import onnx

    proto = onnx.TensorProto()
    proto.ParseFromString(Path(path).read_bytes())
    return onnx.numpy_helper.to_array(proto)


def model_io(model) -> tuple[list, list]:
    """(inputs that are no initializers, outputs) of an onnx model, as ValueInfoProto."""
    weights = {t.name for t in model.graph.initializer}
    return [v for v in model.graph.input if v.name not in weights], list(model.graph.output)


def ort_session(model, level: str = "none", threads: int = 1):
    """A CPU session of ONNX Runtime. level: `none` (the graph as it stands) or `all` (every
    optimization)."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = {
        "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }[level]
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def value_range(want: np.ndarray) -> float:
    """max - min of the finite values; of a constant array its magnitude; 1 if that is 0 too."""
    values = want[np.isfinite(want)].astype(np.float64)
    if values.size == 0:
        return 1.0
    spread = float(values.max() - values.min())
    return spread or float(np.abs(values).max()) or 1.0


def mismatch(got: np.ndarray, want: np.ndarray) -> str | None:
    """A sentence if the two cannot be compared value by value, else None."""
    if got.dtype != want.dtype:
        return f"type {got.dtype}, expected {want.dtype}"
    if got.shape != want.shape:
        return f"shape {list(got.shape)}, expected {list(want.shape)}"
    return None


def max_abs_diff(got: np.ndarray, want: np.ndarray) -> float:
    """max |got - want| in double; equal NaNs and equal infinities are no difference, unequal ones
    infinite."""
    if got.size == 0:
        return 0.0
    if want.dtype.kind in "biu":
        if want.dtype == np.bool_ or want.dtype.itemsize < 8:
            return float(np.abs(got.astype(np.int64) - want.astype(np.int64)).max())
        return float(
            max(abs(int(a) - int(b)) for a, b in zip(got[got != want], want[got != want]))
            if (got != want).any()
            else 0.0
        )
    with np.errstate(invalid="ignore"):
        g, w = got.astype(np.float64), want.astype(np.float64)
        diff = np.where((g == w) | (np.isnan(g) & np.isnan(w)), 0.0, np.abs(g - w))
    return float(np.where(np.isnan(diff), np.inf, diff).max())


def range_error(got: np.ndarray, want: np.ndarray) -> float:
    """max |diff| over the range of `want`; integers and bools: the plain max |diff| (they must be
    equal)."""
    diff = max_abs_diff(got, want)
    return diff if want.dtype.kind in "biu" else diff / value_range(want)


class KilnError(Exception):
    """The command failed; `.code` is its exit status (negative: killed by that signal)."""

    def __init__(self, code: int, text: str):
        super().__init__(f"exit {code}: {text}")
        self.code = code


@dataclass
class Kiln:
    """The kiln command. `command` may hold leading arguments (e.g. an interpreter)."""

    command: list[str] = field(default_factory=list)
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if not self.command:
            self.command = [default_kiln()]

    def call(self, *args: str) -> subprocess.CompletedProcess:
        try:
            done = subprocess.run(
                [*self.command, *args],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.timeout_s,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise KilnError(-9, f"no end within {self.timeout_s:g} s") from None
        except OSError as error:
            raise SystemExit(
                f"{self.command[0]}: {error.strerror} (set $KILN_BIN or --kiln)"
            ) from None
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise KilnError(done.returncode, " | ".join(lines[-3:]) or "no message")
        return done

    def run(
        self,
        model: Path,
        feeds: dict[str, np.ndarray],
        threads: int | None = None,
        extra: tuple[str, ...] = (),
    ) -> dict[str, np.ndarray]:
        """Runs once; returns every output by name. Raises KilnError."""
        with tempfile.TemporaryDirectory(prefix="kiln-oracle-") as folder:
            out = Path(folder, "out")
            out.mkdir()
            args = ["run", str(model)]
            for j, (name, array) in enumerate(feeds.items()):
                file = Path(folder, f"input_{j}.npy")
                # Not ascontiguousarray: that one makes a scalar one-dimensional.
                np.save(file, np.asarray(array, order="C"))
                args += ["--input", f"{name}={file}"]
            args += ["--output-dir", str(out), *extra]
            if threads is not None:
                args += ["--threads", str(threads)]
            self.call(*args)
            try:
                listed = json.loads((out / "outputs.json").read_text())["outputs"]
                return {o["name"]: np.load(out / o["file"]) for o in listed}
            except (OSError, ValueError, KeyError) as error:
                raise KilnError(0, f"unreadable outputs: {error}") from None


class Tally:
    """Counts checks, prints one line each, ends in a verdict line."""

    def __init__(self, title: str):
        self.title, self.passed, self.failed = title, 0, []

    def check(self, label: str, ok: bool, detail: str) -> None:
        print(f"{'ok  ' if ok else 'FAIL'} {label:56s} {detail}", flush=True)
        if ok:
            self.passed += 1
        else:
            self.failed.append(label)

    def verdict(self) -> int:
        """Prints the last line; returns the exit status. No check at all is a failure."""
        total = self.passed + len(self.failed)
        print(
            f"{self.title}: {self.passed} of {total} passed"
            + (f"; failed: {', '.join(self.failed[:20])}" if self.failed else "")
        )
        return 0 if total and not self.failed else 1
