#!/usr/bin/env python3
"""Kiln against its rivals on the zoo networks: interleaved, pinned, medians and ratios.

    run.py                                  every network, 1 and 2 threads; resumes where it stopped
    run.py resnet50 bert_base --threads 1 --quick
    run.py --int8 mobilenet_v2              8 bits against 8 bits, and against our own FP32
    run.py --bf16 --batch 8 resnet50        bfloat16 where OpenVINO computes in it, too
    run.py --report                       tables from the stored results alone

Rivals: ONNX Runtime, and OpenVINO where its package can be imported (`pip install openvino`). The
ratio is against the best of them, network by network.

How it measures
- All engines are loaded in processes of their own, pinned to the same cores, with the same
  inputs (the zoo oracle's sample `a`; made alike for --batch N, which networks with a fixed batch
  skip), and speak one line protocol: `run K` -> K wall times. The clock runs inside the engine's
  process.
- Turns alternate (A B C A B C ..., and backwards in every second round), so that drift of the
  machine hits all. Only one of them is alive at a time: the others are stopped (SIGSTOP), since a
  spinning pool would take its cores. A turn begins with untimed runs that bring caches and pool
  threads back.
- Each sample is one inference; at least 30 a side over at least 5 rounds. Reported: median, MAD,
  min; the ratio kiln/rival of the medians, and the spread of the ratio between rounds.
- The quietest cores are taken. If they are busy before a network starts, that is waited out, then
  said (`busy` in the record), or refused under --strict. One file per network and thread count
  under --out makes the run resumable and easy to shard.
- --int8: `kiln quantize --for onnxruntime` writes one QDQ network (scalar scales of activations,
  int32 biases of exact scale, no Clip, quantized results of MatMul), which all engines run: the
  same integers. One more process runs our FP32 engine of the original; its turns alternate too.

Exit status: 0, 1 if a ratio is above --bound, 5 if an engine cannot run a network.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "oracle"))

import numpy as np  # noqa: E402
import onnx  # noqa: E402

import common  # noqa: E402
import zoo  # noqa: E402
from interleave import EngineFailed, Plan, Served, measure, quiet_cores  # noqa: E402

SCHEMA = "kiln.bench.rivals/3"
RIVALS = {"ort": "onnxruntime", "openvino": "openvino"}  # their packages
MIN_SAMPLES, MIN_ROUNDS = 30, 5
BUSY_LIMIT = 0.10


class Fixed(Exception):
    """A network does not take the batch."""


@dataclass(frozen=True)
class Case:
    """Options that name the inputs, and those that fix their shapes in an engine."""

    feeds: list[str]
    shapes: list[str]


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine(kiln: str) -> dict:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "governor": governor.read_text().strip() if governor.is_file() else "unknown",
        **{package: version(package) for package in RIVALS.values() if version(package)},
        "python": platform.python_version(),
        "kiln_sha256": hashlib.sha256(Path(kiln).read_bytes()).hexdigest()[:16],
    }


def build_engine(args, model: Path, engine: Path, threads: int, case: Case, bf16: bool) -> None:
    engine.parent.mkdir(parents=True, exist_ok=True)
    command = [args.kiln, "build", str(model), "-o", str(engine), "--threads", str(threads)]
    command += ["--opt-level", str(args.opt_level), *case.shapes, *(["--bf16"] if bf16 else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or ["no message"]
        raise EngineFailed(f"kiln build: exit {done.returncode}: {words[-1]}")


def variant(args) -> str:
    """What of a network is measured, as part of file names."""
    precision = "" if args.precision == "fp32" else f".{args.precision}"
    return precision + (f".b{args.batch}" if args.batch > 1 else "")


def rivals_of(args) -> list[str]:
    """Those installed that compute in the precision."""
    able = ["openvino"] if args.precision == "bf16" else RIVALS
    return [r for r in args.rivals if r in able and version(RIVALS[r])]


def make_case(name: str, args) -> Case:
    cache = args.cache
    zoo.prepare(name, cache, False)
    inputs = json.loads((cache / name / "case.json").read_text())["inputs"]
    sample = "a"
    shapes = []
    if args.batch > 1:
        model = onnx.load(cache / f"{name}.onnx", load_external_data=False)
        if not zoo.batch_symbol(model):
            raise Fixed(f"{name}: its batch is fixed")
        sample = f"batch{args.batch}"
        arrays = zoo.make_inputs(model, name, sample, args.batch)
        for j, n in enumerate(inputs):
            np.save(cache / name / f"{sample}.in_{j}.npy", arrays[n])
            shapes += ["--override-shape", f"{n}:{'x'.join(map(str, arrays[n].shape))}"]
    files = [f"{n}={cache / name / f'{sample}.in_{j}.npy'}" for j, n in enumerate(inputs)]
    return Case([part for f in files for part in ("--input", f)], shapes)


def quantize(kiln: str, model: Path, qdq: Path, calib: str) -> None:
    """One QDQ network for both engines."""
    qdq.parent.mkdir(parents=True, exist_ok=True)
    command = [kiln, "quantize", str(model), "--for", "onnxruntime", "-o", str(qdq)]
    done = subprocess.run(
        [*command, "--calib", calib, "--calibrator", "max"], capture_output=True, text=True
    )
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or ["no message"]
        raise EngineFailed(f"kiln quantize: exit {done.returncode}: {words[-1]}")


def serve_all(name: str, threads: int, args, case: Case, cores: list[int]) -> dict:
    """Starts the engines, measures, ends them."""
    model, folder = args.cache / f"{name}.onnx", args.out / "engines"
    source = model
    if args.precision == "int8":
        source = folder / f"{name}.qdq.onnx"
        quantize(args.kiln, model, source, args.calib)
    engine = folder / f"{name}{variant(args)}.t{threads}.kiln"
    build_engine(args, source, engine, threads, case, args.precision == "bf16")
    options = ["--threads", str(threads), *case.feeds]
    commands = [("kiln", [args.kiln, "bench", str(engine), *options, "--serve"])]
    options += ["--precision", "bf16" if args.precision == "bf16" else "f32"]
    for rival in rivals_of(args):
        script = ROOT / "bench" / f"{rival}_serve.py"
        commands.append((rival, [sys.executable, str(script), str(source), *options]))
    if args.precision != "fp32":
        floats = folder / f"{name}.fp32{variant(args)}.t{threads}.kiln"
        build_engine(args, model, floats, threads, case, False)
        options = ["--threads", str(threads), *case.feeds]
        commands.append(("fp32", [args.kiln, "bench", str(floats), *options, "--serve"]))
    served: list[Served] = []
    try:
        for title, command in commands:
            try:
                served.append(Served(title, command, cores))
            except EngineFailed as error:
                if title not in RIVALS or len(args.rivals) == 1:
                    raise
                print(f"{name}: without {error}", file=sys.stderr)
        plan = Plan(60, 3, 9) if args.quick else Plan(250, MIN_ROUNDS, MIN_SAMPLES)
        return measure(served, plan, RIVALS)
    finally:
        for child in served:
            child.end()


def bench_one(name: str, threads: int, args, about: dict, allowed: list[int]) -> dict:
    case = make_case(name, args)
    cores, share = quiet_cores(allowed, threads, args.patience, BUSY_LIMIT)
    if share > BUSY_LIMIT:
        word = f"{name}: cores {cores} are {share:.0%} busy before the start"
        if args.strict:
            raise SystemExit(f"refused: {word}")
        print(f"warning: {word}", file=sys.stderr)
    result = serve_all(name, threads, args, case, cores)
    return {
        "schema": SCHEMA,
        "model": name,
        "precision": args.precision,
        "batch": args.batch,
        "threads": threads,
        "cores": cores,
        "quick": args.quick,
        "busy": round(share, 3),
        "machine": about,
        **result,
    }


def table(records: list[dict]) -> str:
    floats = any("fp32" in r for r in records)
    rivals = [name for name in RIVALS if any(name in r for r in records)]
    heads = ["network", "threads", "kiln median ms", "MAD", "min"]
    heads += [f"{name} {what}" for name in rivals for what in ("median ms", "MAD", "min")]
    heads += ["kiln / best", "rounds' spread", "of minima"]
    heads += ["kiln FP32 median ms", "FP32 / kiln", "of minima"] if floats else []
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for r in records:
        cells = [r["model"], str(r["threads"])]
        for e in (r.get(name) for name in ("kiln", *rivals)):
            cells += [f"{e[k]:.3f}" if e else "" for k in ("median_ms", "mad_ms", "min_ms")]
        cells += [f"**{r['ratio']:.2f}**", f"{r['ratio_min']:.2f} to {r['ratio_max']:.2f}"]
        cells.append(f"{r['ratio_of_mins']:.2f}")
        if floats:
            own = r["against_fp32"]
            cells += [f"{r['fp32']['median_ms']:.3f}", f"{1 / own['ratio']:.2f}"]
            cells.append(f"{1 / own['ratio_of_mins']:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def report(args) -> int:
    """Writes results.json and results.md from the single files; prints the table and the
    verdict."""
    out, bound = args.out, args.bound
    stored = [json.loads(f.read_text()) for f in sorted(out.glob("*.t*.json"))]
    wanted = (args.precision, args.batch)
    records = [r for r in stored if (r["precision"], r["batch"]) == wanted]
    if not records:
        print(f"{out}: no results", file=sys.stderr)
        return 5
    stem = "results" + variant(args).replace(".", "_")
    (out / f"{stem}.json").write_text(
        json.dumps({"schema": SCHEMA, "results": records}, indent=1) + "\n"
    )
    text = table(records)
    about = records[0]["machine"]
    head = (
        f"{about['cpu']}, {about['cores']} cores, kernel {about['kernel']}; "
        f"{args.precision}, batch {args.batch}; "
        f"ONNX Runtime {about['onnxruntime']}, all optimizations, spinning; "
        f"OpenVINO {about.get('openvino', 'not measured')}, latency hint; same threads; "
        f"interleaved by `bench/run.py`.\n\n"
    )
    (out / f"{stem}.md").write_text(head + text)
    print(text, end="")
    worst = max(records, key=lambda r: r["ratio"])
    slow = [f"{r['model']} t{r['threads']} {r['ratio']:.2f}" for r in records if r["ratio"] > bound]
    mean = math.exp(statistics.fmean(math.log(r["ratio"]) for r in records))
    print(
        f"{len(records)} measured, geometric mean {mean:.2f}, worst {worst['ratio']:.2f} "
        f"({worst['model']}, {worst['threads']} threads); "
        f"above {bound:g}: {', '.join(slow) or 'none'}"
    )
    if any(r["busy"] > BUSY_LIMIT for r in records):
        print(
            "warning: some were measured on a busy machine: "
            + ", ".join(
                f"{r['model']} t{r['threads']} ({r['busy']:.0%})"
                for r in records
                if r["busy"] > BUSY_LIMIT
            )
        )
    if any(r["quick"] for r in records):
        print("warning: --quick results; too few samples to quote")
    return 1 if slow else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="zoo networks (default: all)")
    parser.add_argument(
        "--threads", type=int, nargs="*", default=[1, 2], help="thread counts (default: 1 2)"
    )
    parser.add_argument(
        "--rivals",
        nargs="*",
        choices=RIVALS,
        default=list(RIVALS),
        help="those to measure, as far as they are installed (default: all)",
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.set_defaults(precision="fp32")
    for kind, what in (("int8", "8-bit engines of one QDQ network"), ("bf16", "bfloat16 engines")):
        kinds.add_argument(
            f"--{kind}", dest="precision", action="store_const", const=kind, help=what
        )
    parser.add_argument("--batch", type=int, default=1, help="samples of a run (default: 1)")
    parser.add_argument(
        "--opt-level", type=int, default=3, help="of `kiln build` (default: 3, as there)"
    )
    parser.add_argument(
        "--calib", default="random:8", help="calibration data of --int8 (default: random:8)"
    )
    parser.add_argument("--kiln", default=common.default_kiln())
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument(
        "--cache", type=Path, default=common.default_cache() / "zoo", help="the zoo oracle's cache"
    )
    parser.add_argument(
        "--bound", type=float, default=2.0, help="largest ratio kiln/rival that passes"
    )
    parser.add_argument(
        "--patience", type=float, default=30, help="seconds to wait for quiet cores"
    )
    parser.add_argument("--strict", action="store_true", help="refuse to measure on busy cores")
    parser.add_argument("--quick", action="store_true", help="a look: fewer rounds and samples")
    parser.add_argument(
        "--again", action="store_true", help="measure even what is stored for this kiln"
    )
    parser.add_argument("--report", action="store_true", help="only print what is stored")
    args = parser.parse_intermixed_args()
    if args.report:
        return report(args)
    common.warn_pins()
    args.out.mkdir(parents=True, exist_ok=True)
    args.cache.mkdir(parents=True, exist_ok=True)
    about = machine(args.kiln)
    allowed = sorted(os.sched_getaffinity(0))
    names = args.names or sorted(p.stem for p in (common.shared_dir() / "zoo").glob("*.onnx"))
    failed = []
    for name in names:
        for threads in args.threads:
            if threads > len(allowed):
                print(
                    f"{name}: {threads} threads asked, {len(allowed)} cores allowed; skipped",
                    file=sys.stderr,
                )
                continue
            file = args.out / f"{name}{variant(args)}.t{threads}.json"
            if file.is_file() and not args.again:
                stored = json.loads(file.read_text())
                if stored["machine"] == about and stored["quick"] <= args.quick:
                    continue
            try:
                record = bench_one(name, threads, args, about, allowed)
            except Fixed as error:
                print(error, file=sys.stderr)
                continue
            except EngineFailed as error:
                failed.append(f"{name} t{threads}")
                print(f"FAIL {name} t{threads}: {error}", file=sys.stderr, flush=True)
                continue
            file.write_text(json.dumps(record, indent=1) + "\n")
            times = "  ".join(
                f"{n} {record[n]['median_ms']:9.3f} ms" for n in ("kiln", *RIVALS) if n in record
            )
            print(f"{name:24s} t{threads} {times}  ratio {record['ratio']:.2f}", flush=True)
    status = report(args)
    if failed:
        print(f"could not run: {', '.join(failed)}")
        return 5
    return status


if __name__ == "__main__":
    sys.exit(main())
