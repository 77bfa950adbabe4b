"""The line protocol that run.py speaks to rivals, the same as `kiln bench --serve`.

stdin/stdout: prints `ready`; `run K` runs K inferences and prints {"times_ms": [...]}; `quit`
ends.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Callable

import numpy as np


def arguments() -> tuple[argparse.Namespace, dict[str, np.ndarray]]:
    """MODEL --threads N --precision P --input NAME=FILE.npy ..., and the inputs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="f32", help="what floats may be computed in")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=FILE")
    args = parser.parse_args()
    pairs = (item.rpartition("=") for item in args.input)
    return args, {name: np.load(file) for name, _, file in pairs}


def serve(run: Callable[[], object]) -> int:
    run()
    print("ready", flush=True)
    for line in sys.stdin:
        verb, *rest = line.split()
        if verb == "quit":
            break
        times = []
        for _ in range(int(rest[0])):
            start = time.perf_counter_ns()
            run()
            times.append((time.perf_counter_ns() - start) / 1e6)
        print(json.dumps({"times_ms": times}), flush=True)
    return 0
