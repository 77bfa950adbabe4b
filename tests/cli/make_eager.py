#!/usr/bin/env python3
"""Makes eager.onnx: a small graph in the form of PyTorch's eager-mode exports. Needs onnx and numpy."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(3)
nodes = []


def constant(name, value):
    nodes.append(
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))
    )
    return name


def node(op, inputs, output, **attributes):
    nodes.append(helper.make_node(op, inputs, [output], **attributes))
    return output


q = node("QuantizeLinear", ["x", constant("s0", np.float32(0.05)), constant("z0", np.uint8(60))], "q")
k = node("Cast", [q], "k", to=TensorProto.UINT8)
d = node("DequantizeLinear", [k, constant("s1", np.float32(0.05)), constant("z1", np.uint8(60))], "d")
weight = constant("w", rng.integers(-127, 128, (3, 4)).astype(np.int8))
zero = node("Cast", [constant("wz", np.int8([0]))], "wz8", to=TensorProto.INT8)
w = node("DequantizeLinear", [weight, constant("ws", np.float32([0.01])), zero], "dw")
zeros = node("ConstantOfShape", [constant("one", np.int64([1]))], "bz",
             value=numpy_helper.from_array(np.int32([0])))
bias_zero = node("Cast", [zeros], "bz32", to=TensorProto.INT32)
bias = constant("b", np.int32([100, -200, 300]))
b = node("DequantizeLinear", [bias, constant("bs", np.float32([0.0005])), bias_zero], "db")
r = node("Relu", [node("Gemm", [d, w, b], "g", transB=1)], "r")
o = node("QuantizeLinear", [r, constant("s2", np.float32(0.1)), constant("z2", np.uint8(128))], "qo")
ko = node("Cast", [o], "ko", to=TensorProto.UINT8)
node("DequantizeLinear", [ko, constant("s3", np.float32(0.1)), constant("z3", np.uint8(128))], "y")
graph = helper.make_graph(
    nodes,
    "eager",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, Path(__file__).with_name("eager.onnx"))
