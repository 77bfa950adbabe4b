#!/usr/bin/env python3
"""ONNX Runtime behind the line protocol of serve.py.

Tuned to its best: all graph optimizations, N intra-op threads that spin, one inter-op thread,
sequential execution, symbolic dimensions fixed to the inputs' sizes, inputs and outputs bound once
(no copies, no allocation by name).
"""

from __future__ import annotations

import sys

import onnxruntime as ort

from serve import arguments, serve


def main() -> int:
    args, feeds = arguments()
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
    return serve(lambda: session.run_with_iobinding(binding))


if __name__ == "__main__":
    sys.exit(main())
