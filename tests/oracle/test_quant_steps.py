"""QuantizeLinear and DequantizeLinear are no steps of their own where a kernel can take them along.

Small networks with the blocks of large ones are built with --int8, and the steps of the engine's
plan that do nothing else are counted: the one that quantizes the input, and no other. With the
fusion switched off there are more of them.

What is written for other tools has attention in pieces, improved or not.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import common


class Net:
    """A graph under construction; values are names."""

    def __init__(self, shape: tuple):
        self.rng = np.random.default_rng(7)
        self.nodes, self.weights, self.shape = [], [], shape

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        bound = 1 / np.sqrt(max(1, np.prod(shape[1:])))
        return self.constant(self.rng.uniform(-bound, bound, shape).astype(np.float32))

    def ints(self, *v: int) -> str:
        return self.constant(np.array(v, np.int64))

    def op(self, kind: str, *ins: str, outs: int = 1, **attributes):
        names = [f"v{len(self.nodes)}_{i}" for i in range(outs)]
        self.nodes.append(helper.make_node(kind, list(ins), names, **attributes))
        return names if outs > 1 else names[0]

    def conv(self, x: str, c_in: int, c_out: int, k: int = 1, stride: int = 1, group: int = 1):
        w, b = self.weight(c_out, c_in // group, k, k), self.weight(c_out)
        return self.op("Conv", x, w, b, pads=[k // 2] * 4, strides=[stride] * 2, group=group)

    def linear(self, x: str, n_in: int, n_out: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(n_in, n_out)), self.weight(n_out))

    def save(self, path: Path, y: str) -> None:
        ends = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape),
            helper.make_tensor_value_info(y, TensorProto.FLOAT, None),
        ]
        graph = helper.make_graph(self.nodes, path.stem, ends[:1], ends[1:], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 9
        onnx.save(model, path)


def squeeze_excite(path: Path) -> None:
    """MobileNetV3 and EfficientNet: inverted residuals with gates and soft activations."""
    net = Net((1, 3, 24, 24))
    x = net.op("HardSwish", net.conv("x", 3, 16, 3, 2))
    for act in ("HardSwish", "Swish"):

        def soft(v: str) -> str:
            if act == "HardSwish":
                return net.op("HardSwish", v)
            return net.op("Mul", v, net.op("Sigmoid", v))

        h = soft(net.conv(x, 16, 64))
        h = soft(net.conv(h, 64, 64, 5, 1, 64))
        gate = net.op("Relu", net.conv(net.op("GlobalAveragePool", h), 64, 16))
        gate = net.op("HardSigmoid", net.conv(gate, 16, 64), alpha=1 / 6)
        x = net.op("Add", net.conv(net.op("Mul", h, gate), 64, 16), x)
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.save(path, net.op("Gemm", x, net.weight(16, 10)))


def shuffle(path: Path) -> None:
    """ShuffleNet: one half passes by, channels are shuffled."""
    net = Net((1, 3, 24, 24))
    x = net.op("Relu", net.conv("x", 3, 32, 3, 2))
    for _ in range(3):
        a = net.op("Slice", x, net.ints(0), net.ints(16), net.ints(1))
        b = net.op("Slice", x, net.ints(16), net.ints(32), net.ints(1))
        b = net.op("Relu", net.conv(b, 16, 16))
        b = net.op("Relu", net.conv(net.conv(b, 16, 16, 3, 1, 16), 16, 16))
        x = net.op("Concat", a, b, axis=1)
        x = net.op("Reshape", x, net.ints(1, 2, 16, 12, 12))
        x = net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 1, 3, 4]), net.ints(1, 32, 12, 12))
    x = net.op("Relu", net.conv(x, 32, 64))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.save(path, net.op("Gemm", x, net.weight(64, 10)))


def residual(path: Path) -> None:
    """ResNet: residual sums, a pool, a strided shortcut."""
    net = Net((1, 3, 32, 32))
    x = net.op("Relu", net.conv("x", 3, 16, 7, 2))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for c, stride in ((16, 1), (32, 2)):
        h = net.conv(net.op("Relu", net.conv(x, 16, c, 3, stride)), c, c, 3)
        skip = net.conv(x, 16, c, 1, stride) if stride > 1 else x
        x = net.op("Relu", net.op("Add", h, skip))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.save(path, net.op("Gemm", x, net.weight(32, 10)))


def transformer(path: Path) -> None:
    """BERT and ViT: normalization, attention, GELU; the residual stream stays float."""
    net = Net((1, 12, 32))
    x = "x"
    for _ in range(2):
        n = net.op("LayerNormalization", x, net.weight(32), net.weight(32))
        heads = []
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            h = net.op("Reshape", net.linear(n, 32, 32), net.ints(1, 12, 4, 8))
            heads.append(net.op("Transpose", h, perm=perm))
        s = net.op("Mul", net.op("MatMul", *heads[:2]), net.constant(np.float32(8**-0.5)))
        o = net.op("MatMul", net.op("Softmax", s, axis=-1), heads[2])
        o = net.op("Reshape", net.op("Transpose", o, perm=[0, 2, 1, 3]), net.ints(1, 12, 32))
        x = net.op("Add", x, net.linear(o, 32, 32))
        n = net.op("LayerNormalization", x, net.weight(32), net.weight(32))
        x = net.op("Add", x, net.linear(net.op("Gelu", net.linear(n, 32, 128)), 128, 32))
    n = net.op("LayerNormalization", x, net.weight(32), net.weight(32))
    net.save(path, net.linear(n, 32, 10))


# network: its lone steps (the input's; that of the transformer is a normalization's), and whether
# the fusion has anything to do in it
CASES = [(squeeze_excite, 1, True), (shuffle, 1, False), (residual, 1, False), (transformer, 0, True)]


def lone_steps(kiln: str, model: Path, *options: str) -> list[str]:
    """Names of the steps of the INT8 engine that only quantize or dequantize."""
    engine = model.with_suffix(".kiln")
    calibration = ["--int8=force", "--calib", "random:2", "--calibrator", "max"]
    build = [kiln, "build", str(model), "-o", str(engine), "-q", *calibration, *options]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    inspect = [kiln, "inspect", str(engine), "--layers", "--format", "json", *options]
    done = subprocess.run(inspect, check=True, capture_output=True, text=True)
    layers = json.loads(done.stdout)["layers"]
    assert any(layer["kernel"].endswith("_q8") for layer in layers), f"{model.stem}: no INT8 layer"
    quantizers = {"QuantizeLinear", "DequantizeLinear"}
    return [x["name"] for x in layers if x["ops"] and set(x["ops"].split("+")) <= quantizers]


def has_attention(kiln: str, model: Path, target: str) -> bool:
    out = model.with_suffix(".qdq.onnx")
    options = ["--calib", "random:2", "--calibrator", "max", "--for", target, "--improve", "smooth=0.5"]
    command = [kiln, "quantize", str(model), *options, "-o", str(out), "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return any(n.op_type == "Attention" for n in onnx.load(out).graph.node)


def main() -> int:
    kiln, failures = common.default_kiln(), 0
    with tempfile.TemporaryDirectory() as folder:
        for make, want, fuses in CASES:
            model = Path(folder) / f"{make.__name__}.onnx"
            make(model)
            got = lone_steps(kiln, model)
            if len(got) != want:
                failures += 1
                print(f"{make.__name__}: {len(got)} lone steps, not {want}: {', '.join(got)}")
            apart = lone_steps(kiln, model, "--off", "fuse_quantizer")
            if fuses and len(apart) <= want:
                failures += 1
                print(f"{make.__name__}: fuse_quantizer off changes nothing")
        for target, want in (("onnxruntime", False), ("tensorrt", False), ("kiln", True)):
            if has_attention(kiln, model, target) != want:
                failures += 1
                print(f"{model.stem}: attention for {target} is {'not ' if want else ''}whole")
    print(f"{len(CASES)} networks, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
