#!/usr/bin/env python3
"""OpenVINO behind the line protocol of serve.py.

Tuned to its best: the latency hint, exactly N inference threads in one stream, the inference
precision named (it would take bfloat16 for float32 where the CPU has it), shapes fixed to the
inputs', inputs bound once.
"""

from __future__ import annotations

import sys

import openvino as ov

from serve import arguments, serve


def main() -> int:
    args, feeds = arguments()
    core = ov.Core()
    model = core.read_model(args.model)
    model.reshape({name: list(array.shape) for name, array in feeds.items()})
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": args.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": args.precision,
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    for name, array in feeds.items():
        request.set_tensor(name, ov.Tensor(array, shared_memory=True))
    return serve(request.infer)


if __name__ == "__main__":
    sys.exit(main())
