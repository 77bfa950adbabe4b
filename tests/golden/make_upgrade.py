#!/usr/bin/env python3
"""Makes tests/golden/upgrade: models in older operator sets, and what they compute.

Usage: make_upgrade.py        (writes beside this script; needs onnx, numpy and onnxruntime)

NAME.onnx is a model, NAME.pb a SequenceProto with its inputs and then its outputs. ONNX Runtime computes
the outputs; those of operators it never had come from the formula of the operator's old documentation.
list.txt names the cases.
"""
import os

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "upgrade")
rng = np.random.default_rng(7)
names = []
ort.set_default_logger_severity(4)


def f32(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def info(name, array_or_dtype, shape=None):
    if isinstance(array_or_dtype, np.ndarray):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array_or_dtype.dtype),
                                             array_or_dtype.shape)
    return helper.make_tensor_value_info(name, array_or_dtype, shape)


def save(name, model, inputs, outputs):
    names.append(name)
    with open(os.path.join(OUT, name + ".onnx"), "wb") as f:
        f.write(model.SerializeToString(deterministic=True))
    values = onnx.SequenceProto(elem_type=onnx.SequenceProto.TENSOR)
    for v in [*inputs, *outputs]:
        values.tensor_values.append(numpy_helper.from_array(np.ascontiguousarray(v)))
    with open(os.path.join(OUT, name + ".pb"), "wb") as f:
        f.write(values.SerializeToString(deterministic=True))


def case(name, opset, nodes, inputs, n_out=1, init=(), expect=None, functions=(), sets=()):
    """nodes use x0, x1, ... and make y0, y1, ..."""
    feed = {f"x{i}": v for i, v in enumerate(inputs)}
    graph = helper.make_graph(nodes, name, [info(k, v) for k, v in feed.items()],
                              [onnx.ValueInfoProto(name=f"y{i}") for i in range(n_out)],
                              [numpy_helper.from_array(v, k) for k, v in init])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), *sets], functions=list(functions))
    model.ir_version = 8 if functions else 4 if opset < 11 else 7
    if expect is None:
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        expect = session.run(None, feed)
    for i, v in enumerate(expect):
        graph.output[i].CopyFrom(info(f"y{i}", v))
    del model.graph.output[:]
    model.graph.output.extend(graph.output)
    save(name, model, inputs, expect)


def n(op, i=("x0",), o=("y0",), **kw):
    return helper.make_node(op, list(i), list(o), **kw)


def attributes_to_inputs():
    case("squeeze_11", 11, [n("Squeeze", axes=[0, 2])], [f32(1, 3, 1, 2)])
    case("squeeze_7_all", 7, [n("Squeeze")], [f32(1, 3, 1, 2)])
    case("unsqueeze_7", 7, [n("Unsqueeze", axes=[0, 2])], [f32(3, 2)])
    for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
        case(f"reduce_{op.lower()}_11", 11, [n("Reduce" + op, axes=[1, -1], keepdims=0)], [np.abs(f32(2, 3, 2, 2))])
    case("reduce_mean_13_all", 13, [n("ReduceMean")], [f32(2, 3)])
    case("clip_7", 7, [n("Clip", min=-0.25, max=0.5)], [f32(2, 5)])
    case("clip_7_min", 7, [n("Clip", min=0.0)], [f32(2, 5)])
    x = f32(6).astype(np.float64)
    case("clip_10_f64", 10, [n("Clip", max=0.1)], [x], expect=[np.minimum(x, np.float32(0.1).astype(np.float64))])
    half = f32(8).astype(np.float16)
    case("clip_10_f16", 10, [n("Clip", min=-0.5, max=0.5)], [half], expect=[np.clip(half, -0.5, 0.5)])
    case("pad_7", 7, [n("Pad", pads=[0, 1, 2, 0], value=1.5)], [f32(2, 3)])
    case("pad_10_reflect", 10, [n("Pad", pads=[0, 1, 0, 1], mode="reflect")], [f32(2, 3)])
    case("slice_7", 7, [n("Slice", starts=[1, -2], ends=[1000, -1], axes=[0, 2])], [f32(3, 2, 4)])
    case("slice_9_all", 9, [n("Slice", starts=[0, 1], ends=[2, 2])], [f32(3, 2)])
    case("split_7", 7, [n("Split", o=["y0", "y1"], axis=1, split=[1, 3])], [f32(2, 4)], 2)
    case("split_11_equal", 11, [n("Split", o=["y0", "y1", "y2"])], [f32(6, 2)], 3)
    case("split_13_equal", 13, [n("Split", o=["y0", "y1"], axis=-1)], [f32(2, 4)], 2)
    case("topk_7", 7, [n("TopK", o=["y0", "y1"], k=2, axis=0)], [f32(4, 2)], 2)
    case("topk_10", 10, [n("TopK", ["x0", "k"], ["y0", "y1"])], [f32(2, 5)], 2, [("k", np.array([3]))])
    case("dropout_7", 7, [n("Dropout", ratio=0.3)], [f32(2, 3)])
    x = f32(2, 3)
    case("dft_17_axis", 17, [n("DFT", axis=1)], [f32(2, 4, 1)])
    case("dft_17_default", 17, [n("DFT", onesided=1)], [f32(1, 6, 1)])
    case("roi_align_10", 10, [n("RoiAlign", ["x0", "x1", "x2"], output_height=2, output_width=2, sampling_ratio=2,
                                spatial_scale=0.5)],
         [f32(1, 2, 6, 6), np.array([[0, 0, 8, 8], [2, 3, 9, 10]], np.float32), np.array([0, 0])])
    case("grid_sample_16", 16, [n("GridSample", ["x0", "x1"], mode="bilinear", align_corners=1)],
         [f32(1, 2, 3, 4), rng.uniform(-1, 1, (1, 2, 3, 2)).astype(np.float32)])
    case("grid_sample_16_bicubic", 16, [n("GridSample", ["x0", "x1"], mode="bicubic")],
         [f32(1, 1, 4, 4), rng.uniform(-1, 1, (1, 2, 2, 2)).astype(np.float32)])
    case("batch_norm_7", 7, [n("BatchNormalization", ["x0", "s", "b", "m", "v"], epsilon=1e-3)], [f32(2, 3, 4)],
         init=[("s", f32(3)), ("b", f32(3)), ("m", f32(3)), ("v", np.abs(f32(3)))])


def softmax():
    for op in ("Softmax", "LogSoftmax"):
        for axis in (0, 1, 2):
            case(f"{op.lower()}_11_axis_{axis}", 11, [n(op, axis=axis)], [f32(2, 3, 4)])
    case("softmax_7_default", 7, [n("Softmax")], [f32(2, 3, 2, 2)])
    case("softmax_11_last", 11, [n("Softmax", axis=-1)], [f32(2, 3, 4)])
    case("hardmax_11_axis_1", 11, [n("Hardmax", axis=1)], [f32(2, 3, 4)])
    case("softmax_11_twice", 11, [n("Softmax", o=["t"], axis=1), n("Softmax", ["t"], axis=1)], [f32(2, 5)])


def resize():
    x = f32(1, 2, 3, 4)
    scales = np.array([1, 1, 2, 3], np.float32)
    case("upsample_7_nearest", 7, [n("Upsample", scales=[1.0, 1.0, 2.0, 2.0])], [x])
    case("upsample_7_linear", 7, [n("Upsample", scales=[1.0, 1.0, 2.0, 2.0], mode="linear")], [x])
    case("upsample_9_nearest", 9, [n("Upsample", ["x0", "s"])], [x], init=[("s", scales)])
    case("upsample_9_linear", 9, [n("Upsample", ["x0", "s"], mode="linear")], [x], init=[("s", scales)])
    case("resize_10_nearest", 10, [n("Resize", ["x0", "s"])], [x], init=[("s", np.array([1, 1, 0.6, 1.7], np.float32))])
    case("resize_10_linear", 10, [n("Resize", ["x0", "s"], mode="linear")], [x], init=[("s", scales)])
    case("resize_11_sizes", 11, [n("Resize", ["x0", "roi", "s", "size"], mode="linear",
                                   coordinate_transformation_mode="half_pixel")],
         [x], init=[("roi", np.zeros(0, np.float32)), ("s", np.zeros(0, np.float32)), ("size", np.array([1, 2, 5, 7]))])


def several_nodes():
    x = f32(2, 6, 3)
    scale, bias = f32(3), f32(3)
    g = x.reshape(2, 3, -1)
    normal = (g - g.mean(-1, keepdims=True)) / np.sqrt(g.var(-1, keepdims=True) + 1e-5)
    y = normal * scale[None, :, None] + bias[None, :, None]
    case("group_norm_18", 18, [n("GroupNormalization", ["x0", "s", "b"], num_groups=3)], [x],
         init=[("s", scale), ("b", bias)], expect=[y.reshape(x.shape).astype(np.float32)])
    data, index, update = f32(3, 3), np.array([[0, 2, 1]]), f32(1, 3)
    case("scatter_9", 9, [n("Scatter", ["x0", "x1", "x2"], axis=0)], [data, index, update])
    x = f32(1, 3, 4, 5)
    channel = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    case("image_scaler", 7, [n("ImageScaler", scale=0.5, bias=[1.0, 2.0, 3.0])], [x],
         expect=[x * np.float32(0.5) + channel])
    case("affine", 7, [n("Affine", alpha=2.0, beta=-1.0)], [x], expect=[x * 2 - 1])
    case("scaled_tanh", 7, [n("ScaledTanh", alpha=2.0, beta=0.5)], [x],
         expect=[(2 * np.tanh(0.5 * x)).astype(np.float32)])
    case("parametric_softplus", 7, [n("ParametricSoftplus", alpha=2.0, beta=0.5)], [x],
         expect=[(2 * np.log1p(np.exp(0.5 * x))).astype(np.float32)])
    case("crop", 7, [n("Crop", border=[1, 0, 2, 1])], [x], expect=[x[:, :, 0:3, 1:3]])
    case("crop_scale", 7, [n("Crop", border=[1, 1, 0, 0], scale=[2, 3])], [x], expect=[x[:, :, 1:3, 1:4]])
    x = f32(2, 3)
    case("dropout_7_mask", 7, [n("Dropout", o=["y0", "y1"])], [x], 2, expect=[x, np.ones_like(x)])
    case("contrib_gelu", 17, [n("Gelu", domain="com.microsoft")], [x], sets=[helper.make_opsetid("com.microsoft", 1)])


def functions():
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    inner = helper.make_function("d", "inner", ["a"], ["b"], [leaky], sets[:1], ["slope"])
    call = helper.make_node("inner", ["p"], ["t"], domain="d")
    call.attribute.append(onnx.AttributeProto(name="slope", ref_attr_name="k", type=onnx.AttributeProto.FLOAT))
    outer = helper.make_function("d", "outer", ["p", "q"], ["r", "p2"],
                                 [call, n("Add", ["t", "q"], ["r"]), n("Identity", ["p"], ["p2"])], sets, ["k"])
    x, z = f32(2, 3), f32(2, 3)

    def leak(v, slope):
        return np.where(v < 0, v * np.float32(slope), v).astype(np.float32)

    case("function_nested", 17, [n("outer", ["x0", "x1"], ["m", "unused"], domain="d", k=0.25),
                                 n("outer", ["m", "x0"], ["y0", "y1"], domain="d", k=0.5)],
         [x, z], 2, functions=[inner, outer], sets=sets[1:],
         expect=[leak(leak(x, 0.25) + z, 0.5) + x, leak(x, 0.25) + z])
    default = helper.make_function("d", "inner", ["a"], ["b"], [leaky], sets[:1], [],
                                   [helper.make_attribute("slope", 0.125)])
    case("function_default", 17, [n("inner", domain="d")], [x], functions=[default], sets=sets[1:],
         expect=[leak(x, 0.125)])
    old = helper.make_function("d", "old", ["a"], ["b"], [n("Unsqueeze", ["a"], ["b"], axes=[1])],
                               [helper.make_opsetid("", 11)])
    case("function_older_opset", 17, [n("old", domain="d")], [x], functions=[old], sets=sets[1:],
         expect=[x[:, None]])
    branch = helper.make_graph([n("Mul", ["x0", "w"], ["o"])], "t", [], [info("o", TensorProto.FLOAT, [2, 3])],
                               [numpy_helper.from_array(np.float32(3), "w")])
    other = helper.make_graph([n("Neg", ["outer"], ["o"])], "e", [], [info("o", TensorProto.FLOAT, [2, 3])])
    for value in (True, False):
        case(f"if_{str(value).lower()}", 17, [n("Abs", ["x0"], ["outer"]),
                                              n("If", ["x1"], then_branch=branch, else_branch=other)],
             [x, np.array(value)])
    body = helper.make_function(
        "d", "choose", ["a", "c"], ["b"],
        [n("Abs", ["a"], ["outer"]), n("If", ["c"], ["b"], then_branch=helper.make_graph(
            [n("Neg", ["outer"], ["o"])], "t", [], [info("o", TensorProto.FLOAT, [2, 3])]),
            else_branch=helper.make_graph([n("Mul", ["outer", "a"], ["o"])], "e", [],
                                          [info("o", TensorProto.FLOAT, [2, 3])]))], sets[:1])
    case("function_with_if", 17, [n("choose", ["x0", "x1"], domain="d")], [x, np.array(False)], functions=[body],
         sets=sets[1:], expect=[np.abs(x) * x])


def constants():
    x = f32(3)
    parts = [n("Constant", (), ["a"], value_float=2.0), n("Constant", (), ["b"], value_floats=[1.0, 2.0, 3.0]),
             n("Constant", (), ["i"], value_int=1), n("Constant", (), ["s"], value_ints=[3, 1]),
             n("Constant", (), ["t"], value=numpy_helper.from_array(np.float32([0.5, 1, 2])))]
    sparse = onnx.SparseTensorProto(dims=[3])
    sparse.values.CopyFrom(helper.make_tensor("v", TensorProto.FLOAT, [1], [7]))
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [2]))
    parts.append(n("Constant", (), ["z"], sparse_value=sparse))
    nodes = [n("Mul", ["x0", "a"], ["p"]), n("Add", ["p", "b"], ["q"]), n("Sub", ["q", "t"], ["r"]),
             n("Add", ["r", "z"], ["w"]), n("Reshape", ["w", "s"], ["y0"])]
    expect = (x * 2 + np.float32([1, 2, 3]) - np.float32([0.5, 1, 2]) + np.float32([0, 0, 7])).reshape(3, 1)
    case("constant_forms", 17, nodes[::-1] + parts, [x], expect=[expect])


def before_7():
    x = f32(2, 3, 4)
    c = f32(3)
    case("add_6_axis", 6, [n("Add", ["x0", "c"], broadcast=1, axis=1)], [x], init=[("c", c)], expect=[x + c[:, None]])
    y = f32(3, 4)
    case("mul_6_suffix", 6, [n("Mul", ["x0", "x1"], broadcast=1)], [x, y], expect=[x * y])
    case("prelu_6", 6, [n("PRelu", ["x0", "c"])], [x], init=[("c", c)], expect=[np.where(x < 0, x * c[:, None], x)])
    case("cast_1", 1, [n("Cast", to="INT64")], [x * 10], expect=[(x * 10).astype(np.int64)])
    case("reshape_1", 1, [n("Reshape", shape=[4, -1])], [x], expect=[x.reshape(4, 6)])
    case("pad_1", 1, [n("Pad", paddings=[0, 1, 0, 0, 0, 2], value=0.5)], [x],
         expect=[np.pad(x, ((0, 0), (1, 0), (0, 2)), constant_values=0.5)])
    case("concat_1", 1, [n("Concat", ["x0", "x0"])], [x], expect=[np.concatenate([x, x], 1)])
    case("gemm_6", 6, [n("Gemm", ["x0", "x1", "x2"], broadcast=1)], [y[:, :2].copy(), y[:2].copy(), c[:1].copy()],
         expect=[y[:, :2] @ y[:2] + c[0]])
    up = f32(1, 1, 2, 3)
    case("upsample_1", 1, [n("Upsample", height_scale=2.0, width_scale=3.0)], [up],
         expect=[up.repeat(2, 2).repeat(3, 3)])


def quantization():
    """Scales in double, as an initializer and as a Constant node: no ONNX, but it has been exported."""
    x = f32(4, 3)
    scale, zero = np.float32(0.1), np.uint8(100)
    q = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
    nodes = [n("QuantizeLinear", ["x0", "s", "z"], ["q"]),
             n("Constant", (), ["t"], value=numpy_helper.from_array(np.array(0.1))),
             n("DequantizeLinear", ["q", "t", "z"])]
    case("quantize_13_double_scale", 13, nodes, [x], init=[("s", np.array(0.1)), ("z", np.array(zero))],
         expect=[(q.astype(np.float32) - zero) * scale])


def main():
    os.makedirs(OUT, exist_ok=True)
    for old in os.listdir(OUT):
        os.remove(os.path.join(OUT, old))
    for make in (attributes_to_inputs, softmax, resize, several_nodes, functions, constants, before_7, quantization):
        make()
    with open(os.path.join(OUT, "list.txt"), "w", encoding="ascii") as f:
        f.write("\n".join(names) + "\n")


if __name__ == "__main__":
    main()
