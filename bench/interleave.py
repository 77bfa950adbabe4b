"""Processes that run engines by turns, and what their times say.

Each engine lives in a process of its own that speaks the line protocol of serve.py and is stopped
unless it is its turn. `measure` alternates the turns.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

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


def quiet_cores(
    allowed: list[int], count: int, patience_s: float, limit: float
) -> tuple[list[int], float]:
    """The quietest `count` cores, and how busy the worst of them is; waits while that is too
    much."""
    end = time.monotonic() + patience_s
    while True:
        shares = busy_shares(allowed)
        cores = sorted(sorted(allowed, key=lambda c: shares[c])[:count])
        worst = max(shares[c] for c in cores)
        if worst <= limit or time.monotonic() > end:
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
        statistics.median(a) / statistics.median(b) for a, b in zip(samples[first], samples[second])
    ]
    middle = statistics.median(ratios)
    return {
        "ratio": statistics.median(flat[first]) / statistics.median(flat[second]),
        "ratio_of_mins": min(flat[first]) / min(flat[second]),
        "ratio_mad": statistics.median(abs(r - middle) for r in ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def measure(engines: list[Served], plan: Plan, rivals: Collection[str]) -> dict:
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
    best = min((n for n in others if n in rivals), key=lambda n: found[n]["median_ms"])
    return {
        **found,
        "rounds": rounds,
        "best_rival": best,
        **compare(samples, ours, best),
        **{f"against_{name}": compare(samples, ours, name) for name in others},
    }
