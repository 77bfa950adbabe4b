"""Trained networks, calibrated and quantized: the ONNX files are valid, run in ONNX Runtime and do
what the float network does.

Evaluated with ONNX Runtime's optimizations off, which computes QuantizeLinear and DequantizeLinear
and the float operators between them as they stand. Its own integer kernels are not what is tested:
where the processor lacks VNNI, those for uint8 by int8 saturate their 16-bit sums.

ctest-labels: once
"""

import gzip
import os
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort

import quant_api

SHARED = pathlib.Path(os.environ.get("KILN_SHARED") or "/nonexistent")
TMP = pathlib.Path(os.environ["KILN_TMP"])
STYLES = ["kiln", "tensorrt", "onnxruntime"]


def fashion():
    data = SHARED / "data/fashion_mnist"
    x = gzip.decompress((data / "t10k-images-idx3-ubyte.gz").read_bytes())
    y = gzip.decompress((data / "t10k-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(x, np.uint8, offset=16).reshape(-1, 1, 28, 28)[1000:1500]
    x = (x.astype(np.float32) / 255 - np.float32(0.2860)) / np.float32(0.3530)
    return x, np.frombuffer(y, np.uint8, offset=8)[1000:1500]


def cifar():
    raw = gzip.decompress((SHARED / "data/cifar10/train_first4000.bin.gz").read_bytes())
    rows = np.frombuffer(raw, np.uint8).reshape(-1, 3073)[1000:1300]
    mean = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
    std = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
    x = (rows[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255 - mean) / std
    return x, rows[:, 0]


# model, calibration data, preprocessing, samples, least SQNR of the logits in dB by style
CIFAR = "scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225"
CASES = [
    ("fashion_resnet8/model_fp32.onnx", fashion, "data/fashion_mnist/t10k-images-idx3-ubyte.gz",
     "scale=1/255 mean=0.2860 std=0.3530", 200, (35, 31, 34)),
    ("cifar10_nets/resnet20.onnx", cifar, "data/cifar10/train_first4000.bin.gz", CIFAR, 100,
     (33, 30, 32)),
    ("cifar10_nets/mobilenet_v2.onnx", cifar, "data/cifar10/train_first4000.bin.gz", CIFAR, 50,
     (32, 30, 32)),
]  # fmt: skip


def session(path):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(path, x):
    s = session(path)
    name = s.get_inputs()[0].name
    return np.concatenate([s.run(None, {name: x[i : i + 50]})[0] for i in range(0, len(x), 50)])


def sqnr(expected, actual):
    noise = ((expected - actual).astype(np.float64) ** 2).sum()
    return 10 * np.log10((expected.astype(np.float64) ** 2).sum() / noise)


def check_rules(model, style):
    """Types of what is quantized: of activations, weights, and biases."""
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    quantize = {n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    kinds = set()
    for n in model.graph.node:
        if n.op_type == "DequantizeLinear":
            zero = constants[n.input[2]]
            if n.input[0] in quantize:
                kinds.add(("activation", str(zero.dtype)))
                assert style != "tensorrt" or zero == 0
            else:
                kinds.add(("constant", str(zero.dtype)))
                assert not zero.any()
    want = {("activation", "int8" if style == "tensorrt" else "uint8"), ("constant", "int8")}
    if style == "onnxruntime":
        want.add(("constant", "int32"))
    assert kinds == want, kinds


def main():
    if not SHARED.is_dir():
        print("material outside the repository is absent")
        sys.exit(77)
    for name, load, data, preprocess, count, least in CASES:
        x, labels = load()
        expected = run(SHARED / "models" / name, x)
        other = run(SHARED / "models" / name, x[::-1])
        assert sqnr(expected, other) < 10, "another input would pass"
        for style, text in enumerate(STYLES):
            target = TMP / "net.qdq.onnx"
            nodes = quant_api.quantize(
                SHARED / "models" / name, target, style, SHARED / data, preprocess, count
            )
            assert all(int8 for _, _, layer, int8, _ in nodes if layer)
            model = onnx.load(target)
            onnx.checker.check_model(model, full_check=True)
            check_rules(model, text)
            actual = run(target, x)
            quality = sqnr(expected, actual)
            drop = (expected.argmax(1) == labels).mean() - (actual.argmax(1) == labels).mean()
            agree = (expected.argmax(1) == actual.argmax(1)).mean()
            print(f"{name} for {text}: {quality:.1f} dB, agreement {agree:.3f}, drop {drop:.3f}")
            assert least[style] <= quality < 60 and agree >= 0.975 and drop <= 0.01


main()
