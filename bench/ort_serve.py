#!/usr/bin/env python3
"""ONNX Runtime behind the line protocol that run.py speaks (the same as `kiln bench --serve`).

    ort_serve.py MODEL --threads N --input NAME=FILE.npy ...

stdin/stdout: prints `ready`; `run K` runs K inferences and prints {"times_ms": [...]}; `quit`
ends. Tuned to its best: all graph optimizations, N intra-op threads that spin, one inter-op
thread, sequential execution, symbolic dimensions fixed to the inputs' sizes, inputs and outputs
bound once (no copies, no allocation by name).
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
import onnxruntime as ort


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--input", action="append", default=[], metavar="NAME=FILE")
    args = parser.parse_args()
    feeds = {}
    for item in args.input:
        name, _, file = item.rpartition("=")
        feeds[name] = np.load(file)

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.log_severity_level = 4
    probe = ort.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    for info in probe.get_inputs():
        for dim, size in zip(info.shape, feeds[info.name].shape):
            if isinstance(dim, str):
                options.add_free_dimension_override_by_name(dim, size)
    del probe
    session = ort.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])

    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    print("ready", flush=True)
    for line in sys.stdin:
        verb, *rest = line.split()
        if verb == "quit":
            break
        times = []
        for _ in range(int(rest[0])):
            start = time.perf_counter_ns()
            session.run_with_iobinding(binding)
            times.append((time.perf_counter_ns() - start) / 1e6)
        print(json.dumps({"times_ms": times}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
