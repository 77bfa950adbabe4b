"""`kiln surgeon repair`: what it writes is the standard Q/DQ form, and computes the same.

Two kinds of models: PyTorch's eager exports of the shared material, against their saved outputs, and
a QLinear model made here, against its integer arithmetic in numpy (ONNX Runtime's QLinearConv adds
pairs of products in 16 bits, which saturate, on processors without VNNI). Each is repaired for both
runtimes and run by ONNX Runtime without optimizations.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import common

EAGER = (
    "fashion_resnet8/model_eager_ptq_int8",
    "fashion_resnet8/model_eager_qat_int8",
    "cifar10_nets/resnet18_eager_int8",
)
# All zero points of this one are 128.
SYMMETRIC = "cifar10_nets/resnet18_eager_int8"


def repair(model: Path, out: Path, *options: str) -> dict:
    words = [common.default_kiln(), "surgeon", "repair", str(model), "-o", str(out), "-q"]
    done = subprocess.run(
        [*words, "--format", "json", *options], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def form_errors(model: onnx.ModelProto, symmetric: bool, float_bias: bool) -> list[str]:
    """What is not standard in a repaired model."""
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    errors = []
    for node in model.graph.node:
        if node.op_type in ("Cast", "Constant", "ConstantOfShape") or "QLinear" in node.op_type:
            errors.append(f"there is a {node.op_type}")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = weights.get(node.input[1])
            zero = weights.get(node.input[2]) if len(node.input) > 2 else None
            if scale is None or scale.dtype != np.float32 or scale.shape == (1,):
                errors.append(f"{node.name}: its scale is no constant float scalar or vector")
            if symmetric and (zero is None or zero.dtype != np.int8 or zero.any()):
                errors.append(f"{node.name}: its zero point is not 0 of int8")
        if float_bias and node.op_type in ("Conv", "Gemm") and len(node.input) > 2:
            if node.input[2] not in weights or weights[node.input[2]].dtype != np.float32:
                errors.append(f"{node.name}: its bias is no constant float")
    return errors


def last_step(model: onnx.ModelProto) -> float:
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    last = next(n for n in model.graph.node if n.output[0] == model.graph.output[0].name)
    return float(weights[last.input[1]]) if last.op_type == "DequantizeLinear" else 1.0


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = common.ort_session(model.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def check_eager(key: str, folder: Path) -> list[str]:
    errors = []
    source = common.shared_dir() / "models" / f"{key}.onnx"
    samples = sorted(source.parent.glob(source.stem + ".data_*"))
    for runtime in ("tensorrt", "onnxruntime"):
        out = folder / f"{runtime}.onnx"
        report = repair(source, out, "--for", runtime)
        model = onnx.load(out)
        onnx.checker.check_model(model, full_check=True)
        trt = runtime == "tensorrt"
        errors += form_errors(model, trt and key == SYMMETRIC, trt)
        if trt and bool(report["kept"]) == (key == SYMMETRIC):
            errors.append(f"{len(report['kept'])} values are said to stay")
        for sample in samples:
            x = common.load_tensor(sample / "input_0.pb")
            want = common.load_tensor(sample / "output_0.pb")
            got = run(model, x)
            steps = float(np.abs(got - want).max()) / last_step(model)
            if steps > 2.001 or (got.argmax(-1) != want.argmax(-1)).any():
                errors.append(f"{runtime}, {sample.name}: {steps:.2f} steps off")
            if np.array_equal(run(model, -x), got):
                errors.append(f"{runtime}: another input gives the same output")
    report = repair(source, folder / "fused.onnx", "--fuse-residual")
    if not any("addition" in c["what"] for c in report["changes"]):
        errors.append("no residual addition was fused")
    before, after = (onnx.load(folder / f"{n}.onnx") for n in ("tensorrt", "fused"))
    if len(after.graph.node) >= len(before.graph.node):
        errors.append("fusing residuals removed no node")
    return errors


def qlinear_arrays() -> dict:
    rng = np.random.default_rng(5)
    return {
        "xs": np.float32(0.02), "xz": np.uint8(128),
        "w": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.001, 0.01, 4).astype(np.float32), "wz": np.zeros(4, np.int8),
        "b": rng.integers(-2000, 2000, 4).astype(np.int32),
        "ys": np.float32(0.0371), "yz": np.uint8(128),
        "m": rng.integers(0, 256, (64, 5)).astype(np.uint8),
        "ms": np.float32(0.0113), "mz": np.uint8(128),
        "os": np.float32(0.213), "oz": np.uint8(128),
        "shape": np.array([0, -1], np.int64),
    }  # fmt: skip


def qlinear_expected(x: np.ndarray) -> np.ndarray:
    """The model below in integers and double precision."""
    a = qlinear_arrays()

    def quantize(v: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(v), -128, 127)  # less the zero point, 128

    q, w = quantize(x / a["xs"]), a["w"].astype(np.float64)
    sums = np.zeros((2, 4, 4, 4))
    for i in range(4):
        for j in range(4):
            sums[:, :, i, j] = np.einsum("nchw,mchw->nm", q[:, :, i : i + 3, j : j + 3], w)
    scale = a["xs"].astype(np.float64) * a["ws"]
    c = quantize((sums + a["b"][:, None, None]) * scale[:, None, None] / a["ys"])
    g = c.reshape(2, -1) @ (a["m"].astype(np.float64) - 128)
    return quantize(g * a["ys"].astype(np.float64) * a["ms"] / a["os"]) * a["os"]


def qlinear_model() -> onnx.ModelProto:
    arrays = qlinear_arrays()
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node(
            "QLinearConv", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["c"],
            kernel_shape=[3, 3],
        ),
        helper.make_node("Reshape", ["c", "shape"], ["r"]),
        helper.make_node("QLinearMatMul", ["r", "ys", "yz", "m", "ms", "mz", "os", "oz"], ["g"]),
        helper.make_node("DequantizeLinear", ["g", "os", "oz"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "qlinear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 5])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def check_qlinear(folder: Path) -> list[str]:
    errors = []
    source = qlinear_model()
    onnx.save(source, folder / "qlinear.onnx")
    x = np.random.default_rng(6).uniform(-2.5, 2.5, (2, 3, 6, 6)).astype(np.float32)
    want = qlinear_expected(x)
    for runtime in ("tensorrt", "onnxruntime"):
        report = repair(
            folder / "qlinear.onnx", folder / f"q_{runtime}.onnx", "--for", runtime
        )
        model = onnx.load(folder / f"q_{runtime}.onnx")
        onnx.checker.check_model(model, full_check=True)
        errors += form_errors(model, runtime == "tensorrt", runtime == "tensorrt")
        if report["kept"]:
            errors.append(f"values stay: {report['kept']}")
        # Two quantized layers, each of which may round a tie the other way.
        if np.abs(run(model, x) - want).max() > 2.001 * 0.213:
            errors.append(f"{runtime}: the repaired model differs")
    return errors


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = [("qlinear", check_qlinear(folder))]
        if common.shared_dir().is_dir():
            jobs += [(key, check_eager(key, folder)) for key in EAGER]
        else:
            print("no shared models: the eager exports are not tested")
        for key, errors in jobs:
            failed += bool(errors)
            print(f"{'FAIL' if errors else 'ok  '} {key}")
            for error in errors:
                print(f"     {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
