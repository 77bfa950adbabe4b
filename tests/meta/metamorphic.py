#!/usr/bin/env python3
"""Metamorphic checks: what must not change a network's outputs, does not.

    metamorphic.py [FOLDER/STEM ...]        (default: digits, and NETWORKS of the shared models)
    metamorphic.py --small                  digits alone
    metamorphic.py --all                    every float network of the shared models

For each network, against the default build on the same inputs:

    off      each pass, fusion and kernel left out by name, and all of them: within the bound
    isa      every instruction set of this machine, in place of the best: within the bound
    batch    several samples at once (networks with a dynamic batch): each near its own run
    threads  1, 2 and 3 threads, and repeats: the same bits
    engine   the engine saved and loaded: the same bits, and a second build the same bytes

The check is checked on every network: a parameter off by 2 % (more, where the outputs are
saturated) must break the bound, one flipped bit must break sameness.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "oracle"))
import common  # noqa: E402
import models  # noqa: E402
from zoo import flip_one_bit  # noqa: E402

# Bound of max |diff| / range of the output. Roundings of a few hundred layers add up like a random
# walk, to some tens of ulps of the range. A network that answers strongly to noise of four ulps in
# its inputs (logarithms of small energies) gets twice its answer, and at most what all float
# networks are held to.
ULP = 2.0**-23
LEAST_BOUND, MOST_BOUND = 64 * ULP, 1e-4
# The interpreter of last resort: without it some operators have no kernel at all.
NEVER_OFF = {"reference"}
# CNNs with and without BN, transformers, recurrent networks, If and Loop, dynamic shapes.
NETWORKS = (
    "byte_bilstm/model",
    "cifar10_nets/resnet20",
    "fashion_loop_rnn/model",
    "fashion_vit/model_op11_dynamic",
    "fashion_vit/model_op17_dynamic",
    "gtcrn/model",
    "magika_v3_3/model",
    "mobilenet_v1_025/model_fp32",
    "nanotrack_v2/head",
    "ppocr_en_number_rec/model",
    "silero_vad_v6/model",
    "yunet_n/model_dynamic",
)
# Inputs whose first dimension is the batch, though it is no symbol of its own or other inputs have
# it elsewhere: left out of `batch`.
NO_BATCH = ("silero_vad_v6", "fsmn_vad_offline")

Arrays = dict[str, np.ndarray]


@dataclass
class Network:
    key: str
    file: Path
    model: onnx.ModelProto
    feeds: Arrays
    bound: float = LEAST_BOUND


@dataclass
class Checker:
    kiln: common.Kiln
    tally: common.Tally
    folder: Path
    worst: float = 0.0

    def run(self, network: Network, *extra: str, file: Path | None = None, feeds=None, threads=1):
        """The outputs, or the error's text."""
        try:
            return self.kiln.run(
                file or network.file, feeds or network.feeds, threads, tuple(extra)
            )
        except common.KilnError as error:
            return str(error)

    def near(self, network: Network, what: str, got: Arrays | str, want: Arrays) -> None:
        label = f"{network.key}/{what}"
        if isinstance(got, str):
            self.tally.check(label, False, got)
            return
        error = distance(got, want)
        self.worst = max(self.worst, error)
        text = f"{error:.2e} of range, bound {network.bound:.1e}"
        self.tally.check(label, error <= network.bound, text)

    def same(self, label: str, got: Arrays | str, want: Arrays) -> None:
        if isinstance(got, str):
            self.tally.check(label, False, got)
            return
        problem = difference(got, want)
        self.tally.check(label, problem is None, problem or "same bits")


def distance(got: Arrays, want: Arrays) -> float:
    """The largest range_error of all outputs; infinite where they cannot be compared."""
    if got.keys() != want.keys():
        return float("inf")
    return max(
        float("inf") if common.mismatch(got[n], w) else common.range_error(got[n], w)
        for n, w in want.items()
    )


def difference(got: Arrays, want: Arrays) -> str | None:
    """A sentence if any bit differs."""
    if got.keys() != want.keys():
        return f"outputs {sorted(got)}, expected {sorted(want)}"
    for name, array in want.items():
        problem = common.mismatch(got[name], array)
        if problem:
            return f"{name}: {problem}"
        if got[name].tobytes() != array.tobytes():
            return f"{name}: bits differ, by {common.range_error(got[name], array):.2e} of range"
    return None


@contextlib.contextmanager
def environment(name: str, value: str):
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def tensors_of(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Initializers and Constants, those of bodies included."""
    found = [*graph.initializer]
    for attribute in (a for node in graph.node for a in node.attribute):
        if attribute.type == onnx.AttributeProto.GRAPH:
            found += tensors_of(attribute.g)
        elif attribute.name == "value":
            found.append(attribute.t)
    return found


def spoiled(model: onnx.ModelProto, place: int, factor: float) -> onnx.ModelProto:
    """The model with its largest float parameter (place 0; 1: the next) times a factor."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    floats = [t for t in tensors_of(copy.graph) if t.data_type == onnx.TensorProto.FLOAT]
    floats.sort(key=lambda t: int(np.prod(t.dims)), reverse=True)
    tensor = floats[min(place, len(floats) - 1)]
    array = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def batched(network: Network) -> bool:
    """Whether all inputs and outputs have a first dimension that is the batch."""
    if network.key.startswith(NO_BATCH):
        return False
    first = []
    for info in sum(map(list, common.model_io(network.model)), []):
        dims = info.type.tensor_type.shape.dim
        if not dims:
            return False
        first.append(dims[0])
    inputs = len(common.model_io(network.model)[0])
    return all(not d.HasField("dim_value") for d in first[:inputs])


def several(feeds: Arrays, count: int) -> list[Arrays]:
    """`count` samples of batch 1: the first image, and rearrangements of its values."""
    samples = []
    for k in range(count):
        rng = np.random.Generator(np.random.PCG64(k))
        samples.append(
            {
                n: a[:1] if k == 0 else rng.permuted(a[:1].reshape(-1)).reshape(a[:1].shape)
                for n, a in feeds.items()
            }
        )
    return samples


def check_off(c: Checker, network: Network, names: list[str], want: Arrays) -> None:
    unchanged = 0
    for name in names:
        got = c.run(network, "--off", name)
        c.near(network, f"off {name}", got, want)
        unchanged += not isinstance(got, str) and difference(got, want) is None
    c.near(network, "off all", c.run(network, "--off", ",".join(names)), want)
    print(f"     {network.key}: {unchanged} of {len(names)} change no bit")


def check_isas(c: Checker, network: Network, isas: list[str], want: Arrays) -> None:
    for isa in isas:
        with environment("KILN_MAX_ISA", isa):
            c.near(network, f"isa {isa}", c.run(network), want)


def check_batch(c: Checker, network: Network) -> None:
    samples = several(network.feeds, 3)
    together = {n: np.concatenate([s[n] for s in samples]) for n in network.feeds}
    all_at_once = c.run(network, feeds=together)
    for k, sample in enumerate(samples):
        alone = c.run(network, feeds=sample)
        if isinstance(all_at_once, str) or isinstance(alone, str):
            text = alone if isinstance(alone, str) else str(all_at_once)
            c.tally.check(f"{network.key}/batch {k}", False, text)
            continue
        c.near(network, f"batch {k}", {n: a[k : k + 1] for n, a in all_at_once.items()}, alone)


def check_bits(c: Checker, network: Network, want: Arrays) -> None:
    for threads in (1, 2, 3):
        c.same(f"{network.key}/threads {threads}", c.run(network, threads=threads), want)
    files = [c.folder / "first.kiln", c.folder / "second.kiln"]
    try:
        for file in files:
            c.kiln.call("build", str(network.file), "--opt-level", "0", "-o", str(file))
    except common.KilnError as error:
        c.tally.check(f"{network.key}/engine", False, str(error))
        return
    c.same(f"{network.key}/engine", c.run(network, file=files[0], threads=2), want)
    equal = files[0].read_bytes() == files[1].read_bytes()
    c.tally.check(f"{network.key}/rebuild", equal, "the same bytes" if equal else "bytes differ")


def check_the_check(c: Checker, network: Network, want: Arrays) -> None:
    """A saturated network does not answer to a small change; then a larger one must be noticed."""
    file = c.folder / "spoiled.onnx"
    for factor, place in itertools.product((1.02, 1.5, -1.0), range(3)):
        onnx.save(spoiled(network.model, place, factor), file)
        got = c.run(network, file=file)
        error = 0.0 if isinstance(got, str) else distance(got, want)
        if error > network.bound:
            break
    text = f"parameter {place} times {factor:g}: {error:.2e} of range, bound {network.bound:.1e}"
    c.tally.check(f"{network.key}/spoiled parameter noticed", error > network.bound, text)
    name = next(n for n, a in want.items() if a.size)
    bits = difference({**want, name: flip_one_bit(want[name])}, want) is not None
    c.tally.check(f"{network.key}/flipped bit noticed", bits, name)


def bound_of(c: Checker, network: Network, want: Arrays) -> float:
    drift = 0.0
    for seed in range(3):
        rng = np.random.Generator(np.random.PCG64(seed))
        feeds = {
            n: a * (1 + 4 * ULP * rng.choice([-1, 1], a.shape)).astype(a.dtype)
            if a.dtype == np.float32
            else a
            for n, a in network.feeds.items()
        }
        got = c.run(network, feeds=feeds)
        drift = max(drift, 0.0 if isinstance(got, str) else distance(got, want))
    return min(max(2 * drift, LEAST_BOUND), MOST_BOUND)


def check_network(c: Checker, network: Network, names: list[str], isas: list[str]) -> None:
    want = c.run(network)
    if isinstance(want, str):
        c.tally.check(network.key, False, want)
        return
    network.bound = bound_of(c, network, want)
    check_the_check(c, network, want)
    check_off(c, network, names, want)
    check_isas(c, network, isas, want)
    if batched(network):
        check_batch(c, network)
    check_bits(c, network, want)


def digits() -> Network:
    folder = common.ROOT / "examples" / "digits"
    model = onnx.load(folder / "digits.onnx")
    images = np.load(folder / "digits_test.npz")["x"][:1].astype(np.float32)
    name = common.model_io(model)[0][0].name
    return Network("digits", folder / "digits.onnx", model, {name: images.reshape(1, 1, 8, 8)})


def shared_network(file: Path) -> Network:
    model = onnx.load(file)
    data = file.with_suffix(".data_0")
    inputs = common.model_io(model)[0]
    feeds = {v.name: common.load_tensor(data / f"input_{j}.pb") for j, v in enumerate(inputs)}
    return Network(f"{file.parent.name}/{file.stem}", file, model, feeds)


def is_float(key: str) -> bool:
    """Quantizers turn rounding into whole steps, and half precision is coarser."""
    quantized = models.policy_of(key).rule == "steps" or key.startswith("mnist_cnn_intops")
    return not quantized and not key.endswith("_fp16")


def find_networks(args) -> list[Network]:
    found = [] if args.names else [digits()]
    files = [] if args.small else (common.shared_dir() / "models").glob("*/*.onnx")
    for file in sorted(files):
        key = f"{file.parent.name}/{file.stem}"
        wanted = key in args.names if args.names else args.all or key in NETWORKS
        if wanted and is_float(key):
            found.append(shared_network(file))
    return found


def off_names(kiln: common.Kiln) -> list[str]:
    lines = kiln.call("inspect", "--off-names", "--format", "csv").stdout.split()
    names = [line.split(",")[0] for line in lines[1:]]
    return [n for n in names if n not in NEVER_OFF]


def isa_names(kiln: common.Kiln) -> list[str]:
    sets = json.loads(kiln.call("doctor", "--format", "json").stdout)["instruction_sets"]
    return [name for name, available in sets.items() if available]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="FOLDER/STEM of the shared models")
    parser.add_argument("--small", action="store_true", help="the repository's own network alone")
    parser.add_argument("--all", action="store_true", help="every float network of them")
    parser.add_argument("--kiln", help="the command (default: $KILN_BIN or the release build)")
    args = parser.parse_args(argv)
    kiln = common.Kiln([args.kiln] if args.kiln else [])
    tally = common.Tally("metamorphic")
    names, isas = off_names(kiln), isa_names(kiln)
    with tempfile.TemporaryDirectory(prefix="kiln-meta-") as folder:
        checker = Checker(kiln, tally, Path(folder))
        networks = find_networks(args)
        for network in networks:
            check_network(checker, network, names, isas)
    print(f"{len(networks)} networks, {len(names)} names off, instruction sets {', '.join(isas)}")
    print(f"largest difference {checker.worst:.2e} of range")
    return tally.verdict()


if __name__ == "__main__":
    sys.exit(main())
