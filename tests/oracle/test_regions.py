"""Every 8-bit region of quantized networks equals its reference on the inputs it gets in a run:
`kiln eval --check-regions` on float networks that Kiln quantizes and on models quantized elsewhere.
That the check can fail is shown by exec.regions."""

# ctest-labels: once

from __future__ import annotations

import json
import subprocess
import sys

import common

FLOAT = (
    "cifar10_nets/resnet20",
    "cifar10_nets/mobilenet_v2",
    "cifar10_cnn/model",
    "fashion_vit/model_op17_dynamic",
)
QUANTIZED = (
    "cifar10_nets/resnet18_eager_int8",
    "fashion_resnet8/model_eager_ptq_int8",
    "fashion_resnet8/model_eager_qat_int8",
    "mobilenet_v1_025/model_qdq_int8",
)


def check(model, *words: str) -> str | None:
    command = [common.default_kiln(), "eval", str(model), "--check-regions", "--data", "random:3"]
    options = ["--metric", "agreement", "--format", "json", "-q", *words]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    if done.returncode != 0:
        return f"exit {done.returncode}: {done.stderr.strip()}"
    samples = json.loads(done.stdout)["samples"]
    return None if samples == 3 else f"{samples} samples"


def main() -> int:
    models = common.shared_dir() / "models"
    if not models.is_dir():
        return common.no_networks(models)
    failed = 0
    for name in (*FLOAT, *QUANTIZED):
        model = models / f"{name}.onnx"
        how = ["--int8", "--calib", "random:4"] if name in FLOAT else ["--against", str(model)]
        wrong = check(model, *how)
        failed += wrong is not None
        print(f"{'FAIL' if wrong else 'ok  '} {name} {wrong or ''}")
    total = len(FLOAT) + len(QUANTIZED)
    print(f"regions: {total - failed} of {total} networks")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
