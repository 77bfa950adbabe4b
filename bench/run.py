#!/usr/bin/env python3
"""Kiln against its rivals on the zoo networks: interleaved, pinned, medians and ratios.

    run.py                                  every network, 1 and 2 threads; resumes where it stopped
    run.py resnet50 bert_base --threads 1 --quick
    run.py --int8 mobilenet_v2              8 bits against 8 bits, and against our own FP32
    run.py --report                       tables from the stored results alone

Rivals: ONNX Runtime, and OpenVINO where its package can be imported (`pip install openvino`). The
ratio is against the best of them, network by network.

How it measures
- All engines are loaded in processes of their own, pinned to the same cores, with the same
  inputs (the zoo oracle's sample `a`, batch 1), and speak one line protocol: `run K` -> K wall
  times. The clock runs inside the engine's process.
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
import ctypes
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "oracle"))

import common  # noqa: E402
import zoo  # noqa: E402

SCHEMA = "kiln.bench.rivals/2"
RIVALS = {"ort": "onnxruntime", "openvino": "openvino"}  # their packages
MIN_SAMPLES, MIN_ROUNDS = 30, 5
BUSY_LIMIT = 0.10
SILENCE_S = 600
PR_SET_PDEATHSIG = 1


class EngineFailed(Exception):
    """An engine could not be started or stopped answering."""


class Served:
    """A child process that speaks the line protocol, pinned to `cores`, stopped unless it is its
    turn."""

    def __init__(self, name: str, command: list[str], cores: list[int]):
        def prepare() -> None:
            # A stopped child must not outlive us.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, cores)

        self.name = name
        self.messages = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.messages,
            text=True,
            preexec_fn=prepare,
        )
        while self.line().strip() != "ready":
            pass
        self.stop()

    def line(self) -> str:
        """The next line; an engine that says nothing for SILENCE_S is killed."""
        timer = threading.Timer(SILENCE_S, self.process.kill)
        timer.start()
        text = self.process.stdout.readline()
        timer.cancel()
        if not text:
            self.process.kill()
            code = self.process.wait()
            self.messages.seek(0)
            words = self.messages.read().strip().splitlines()
            raise EngineFailed(
                f"{self.name}: exit {code}: {' | '.join(words[-3:]) or 'no message'}"
            )
        return text

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def ask(self, count: int) -> list[float]:
        try:
            self.process.stdin.write(f"run {count}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer says so
        return json.loads(self.line())["times_ms"]

    def turn(self, count: int, warm: int) -> list[float]:
        self.process.send_signal(signal.SIGCONT)
        self.ask(warm)
        times = self.ask(count)
        self.stop()
        return times

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.communicate("quit\n", timeout=10)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.messages.close()


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    turn_ms: float
    rounds: int
    min_samples: int


def busy_shares(cores: list[int], seconds: float = 0.5) -> dict[int, float]:
    """Part of the time that each core does not idle, nothing of ours running."""

    def read() -> dict[int, tuple[int, int]]:
        found = {}
        for line in Path("/proc/stat").read_text().splitlines():
            if line.startswith("cpu") and line[3].isdigit():
                name, *ticks = line.split()
                numbers = [int(v) for v in ticks[:8]]
                found[int(name[3:])] = (sum(numbers), numbers[3] + numbers[4])
        return found

    before = read()
    time.sleep(seconds)
    after = read()
    return {c: 1 - (after[c][1] - before[c][1]) / max(1, after[c][0] - before[c][0]) for c in cores}


def quiet_cores(allowed: list[int], count: int, patience_s: float) -> tuple[list[int], float]:
    """The quietest `count` cores, and how busy the worst of them is; waits while that is too
    much."""
    end = time.monotonic() + patience_s
    while True:
        shares = busy_shares(allowed)
        cores = sorted(sorted(allowed, key=lambda c: shares[c])[:count])
        worst = max(shares[c] for c in cores)
        if worst <= BUSY_LIMIT or time.monotonic() > end:
            return cores, worst
        time.sleep(1)


def summary(samples: list[float]) -> dict:
    median = statistics.median(samples)
    ordered = sorted(samples)
    return {
        "samples": len(samples),
        "median_ms": median,
        "mad_ms": statistics.median(abs(s - median) for s in samples),
        "min_ms": ordered[0],
        "p90_ms": ordered[min(len(ordered) - 1, math.ceil(0.9 * len(ordered)) - 1)],
    }


def compare(samples: dict[str, list[list[float]]], first: str, second: str) -> dict:
    """The ratio of first to second, and how it spreads over the rounds."""
    flat = {name: [t for turn in samples[name] for t in turn] for name in (first, second)}
    ratios = [
        statistics.median(a) / statistics.median(b)
        for a, b in zip(samples[first], samples[second])
    ]
    middle = statistics.median(ratios)
    return {
        "ratio": statistics.median(flat[first]) / statistics.median(flat[second]),
        "ratio_of_mins": min(flat[first]) / min(flat[second]),
        "ratio_mad": statistics.median(abs(r - middle) for r in ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def measure(engines: list[Served], plan: Plan) -> dict:
    """Alternating turns; returns the summaries, the best rival, and the ratio of the first engine to
    it and, under its name, to every other."""
    counts = {}
    for engine in engines:
        probe = statistics.median(engine.turn(3, 3))
        counts[engine.name] = max(1, min(2000, int(plan.turn_ms / max(probe, 1e-3))))
    rounds = max(plan.rounds, math.ceil(plan.min_samples / min(counts.values())))
    samples: dict[str, list[list[float]]] = {engine.name: [] for engine in engines}
    for number in range(rounds):
        for engine in engines if number % 2 == 0 else reversed(engines):
            count = counts[engine.name]
            samples[engine.name].append(engine.turn(count, max(2, count // 10)))
    ours, *others = (engine.name for engine in engines)
    found = {n: summary([t for turn in turns for t in turn]) for n, turns in samples.items()}
    best = min((n for n in others if n in RIVALS), key=lambda n: found[n]["median_ms"])
    return {
        **found,
        "rounds": rounds,
        "best_rival": best,
        **compare(samples, ours, best),
        **{f"against_{name}": compare(samples, ours, name) for name in others},
    }


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


def build_engine(kiln: str, model: Path, engine: Path, threads: int) -> None:
    engine.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [kiln, "build", str(model), "-o", str(engine), "--threads", str(threads)],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or ["no message"]
        raise EngineFailed(f"kiln build: exit {done.returncode}: {words[-1]}")


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


def serve_all(name: str, threads: int, args, feeds: list[str], cores: list[int]) -> dict:
    """Starts the engines, measures, ends them."""
    model, folder = args.cache / f"{name}.onnx", args.out / "engines"
    source, suffix = model, ""
    if args.int8:
        source, suffix = folder / f"{name}.qdq.onnx", ".int8"
        quantize(args.kiln, model, source, args.calib)
    engine = folder / f"{name}{suffix}.t{threads}.kiln"
    build_engine(args.kiln, source, engine, threads)
    options = ["--threads", str(threads), *feeds]
    commands = [("kiln", [args.kiln, "bench", str(engine), *options, "--serve"])]
    for rival in (r for r in args.rivals if version(RIVALS[r])):
        script = ROOT / "bench" / f"{rival}_serve.py"
        commands.append((rival, [sys.executable, str(script), str(source), *options]))
    if args.int8:
        floats = folder / f"{name}.t{threads}.kiln"
        build_engine(args.kiln, model, floats, threads)
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
        return measure(served, plan)
    finally:
        for child in served:
            child.end()


def bench_one(name: str, threads: int, args, about: dict, allowed: list[int]) -> dict:
    cache = args.cache
    zoo.prepare(name, cache, False)
    case = json.loads((cache / name / "case.json").read_text())
    feeds = [
        part
        for j, n in enumerate(case["inputs"])
        for part in ("--input", f"{n}={cache / name / f'a.in_{j}.npy'}")
    ]
    cores, share = quiet_cores(allowed, threads, args.patience)
    if share > BUSY_LIMIT:
        word = f"{name}: cores {cores} are {share:.0%} busy before the start"
        if args.strict:
            raise SystemExit(f"refused: {word}")
        print(f"warning: {word}", file=sys.stderr)
    result = serve_all(name, threads, args, feeds, cores)
    return {
        "schema": SCHEMA,
        "model": name,
        "precision": "int8" if args.int8 else "fp32",
        "threads": threads,
        "cores": cores,
        "quick": args.quick,
        "busy": round(share, 3),
        "machine": about,
        **result,
    }


def table(records: list[dict]) -> str:
    int8 = any("fp32" in r for r in records)
    rivals = [name for name in RIVALS if any(name in r for r in records)]
    heads = ["network", "threads", "kiln median ms", "MAD", "min"]
    heads += [f"{name} {what}" for name in rivals for what in ("median ms", "MAD", "min")]
    heads += ["kiln / best", "rounds' spread", "of minima"]
    heads += ["kiln FP32 median ms", "FP32 / kiln", "of minima"] if int8 else []
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for r in records:
        cells = [r["model"], str(r["threads"])]
        for e in (r.get(name) for name in ("kiln", *rivals)):
            cells += [f"{e[k]:.3f}" if e else "" for k in ("median_ms", "mad_ms", "min_ms")]
        cells += [f"**{r['ratio']:.2f}**", f"{r['ratio_min']:.2f} to {r['ratio_max']:.2f}"]
        cells.append(f"{r['ratio_of_mins']:.2f}")
        if int8:
            floats = r["against_fp32"]
            cells += [f"{r['fp32']['median_ms']:.3f}", f"{1 / floats['ratio']:.2f}"]
            cells.append(f"{1 / floats['ratio_of_mins']:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def report(out: Path, bound: float, int8: bool) -> int:
    """Writes results.json and results.md from the single files; prints the table and the
    verdict."""
    suffix = ".int8.t*.json" if int8 else ".t*.json"
    files = sorted(f for f in out.glob("*" + suffix) if int8 or ".int8." not in f.name)
    records = [json.loads(f.read_text()) for f in files]
    if not records:
        print(f"{out}: no results", file=sys.stderr)
        return 5
    stem = "results_int8" if int8 else "results"
    (out / f"{stem}.json").write_text(
        json.dumps({"schema": SCHEMA, "results": records}, indent=1) + "\n"
    )
    text = table(records)
    about = records[0]["machine"]
    head = (
        f"{about['cpu']}, {about['cores']} cores, kernel {about['kernel']}; "
        f"ONNX Runtime {about['onnxruntime']}, all optimizations, spinning; "
        f"OpenVINO {about.get('openvino', 'not measured')}, latency hint, f32; same threads; "
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
    parser.add_argument("--int8", action="store_true", help="8-bit engines of one QDQ network")
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
        return report(args.out, args.bound, args.int8)
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
            file = args.out / f"{name}{'.int8' if args.int8 else ''}.t{threads}.json"
            if file.is_file() and not args.again:
                stored = json.loads(file.read_text())
                if stored["machine"] == about and stored["quick"] <= args.quick:
                    continue
            try:
                record = bench_one(name, threads, args, about, allowed)
            except EngineFailed as error:
                failed.append(f"{name} t{threads}")
                print(f"FAIL {name} t{threads}: {error}", file=sys.stderr, flush=True)
                continue
            file.write_text(json.dumps(record, indent=1) + "\n")
            times = "  ".join(
                f"{n} {record[n]['median_ms']:9.3f} ms" for n in ("kiln", *RIVALS) if n in record
            )
            print(f"{name:24s} t{threads} {times}  ratio {record['ratio']:.2f}", flush=True)
    status = report(args.out, args.bound, args.int8)
    if failed:
        print(f"could not run: {', '.join(failed)}")
        return 5
    return status


if __name__ == "__main__":
    sys.exit(main())
