#!/usr/bin/env python3
"""Building by measuring: what it may cost, in time and in memory.

ctest-timeout: 600
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
from onnx import helper

from networks import KILN, constant, expect, kiln, main, save, value


def products(path, n, size=8, rows=4):
    """A chain of n products of matrices by the same weights."""
    weights = constant("w", np.eye(size, dtype=np.float32))
    names = ["x", *(f"v{i}" for i in range(1, n)), "y"]
    nodes = [
        helper.make_node("MatMul", [names[i], "w"], [names[i + 1]], name=f"n{i}") for i in range(n)
    ]
    ends = value("x", [rows, size]), value("y", [rows, size])
    return save(path, nodes, [ends[0]], [ends[1]], [weights])


def measured(*words):
    """Seconds and peak bytes of the command, which must succeed."""
    start = time.monotonic()
    child = subprocess.Popen(
        [KILN, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, child.returncode
    return time.monotonic() - start, 1024 * usage.ru_maxrss


def many_layers_cost_little(t):
    net = products(t / "net.onnx", 20000)
    alone, bytes_alone = measured("build", net, "--opt-level", 0, "-o", t / "0.kiln")
    limits = ["--threads", 1, "--time-budget", 3]
    seconds, most = measured("build", net, *limits, "-o", t / "3.kiln")
    assert most < 5 * bytes_alone, (most, bytes_alone)
    assert seconds < 30 * alone + 20, (seconds, alone)
    expect(kiln("build", "-v", net, *limits, "-o", t / "3.kiln"), 0, "18976 layers", "1024")


def slow_network(t):
    """A network and the seconds that one of its runs takes."""
    net = products(t / "net.onnx", 6, size=1024, rows=1024)
    bench = ["--threads", 1, "--warm-up", 1, "--duration", 0, "--iterations", 3]
    done = expect(kiln("bench", net, *bench, "--format", "json"), 0)
    return net, json.loads(done.stdout)["results"][0]["compute_ms"]["median"] / 1000


def a_short_budget_is_kept(t):
    net, run = slow_network(t)
    alone, _ = measured("build", net, "--opt-level", 0, "-o", t / "0.kiln")
    budget = 3 * run
    words = ["build", net, "--threads", 1, "--time-budget", budget, "-o", t / "1.kiln"]
    seconds, _ = measured(*words)
    assert seconds < 2 * alone + budget + 6 * run + 0.5, (seconds, alone, run)
    expect(kiln(*words), 0, "warning", "the time budget is")


def interrupting_ends_within_a_round(t):
    net, run = slow_network(t)
    words = ["build", net, "--threads", 1, "--opt-level", 5, "-o", t / "1.kiln"]
    child = subprocess.Popen(
        [KILN, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(1 + 8 * run)
    child.send_signal(signal.SIGINT)
    start = time.monotonic()
    assert child.wait(timeout=100) == 130, child.returncode
    assert time.monotonic() - start < 6 * run + 0.5, (time.monotonic() - start, run)
    assert not (t / "1.kiln").exists()


if __name__ == "__main__":
    tests = [many_layers_cost_little, a_short_budget_is_kept, interrupting_ends_within_a_round]
    sys.exit(main(tests))
