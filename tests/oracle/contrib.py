#!/usr/bin/env python3
"""Writes single-node tests of com.microsoft operators, and of recurrent networks, with the outputs
of ONNX Runtime.

    contrib.py OUT               then: node_runner OUT [--ref]

The layout is that of tests/onnx_node/generate.py: NAME/model.onnx, NAME/test_data_set_0/*.pb,
manifest.tsv. Graph optimizations are off, so that ONNX Runtime runs the operator itself. Float
outputs are compared with rtol 1e-4 and atol 1e-5 or as the case says; quantized ones within one
step, because the operator is rounded once by ONNX Runtime and computed in another order here.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

COLUMNS = ("name", "ops", "opset", "excluded", "flag", "kind", "rtol", "atol")
F = np.float32
MS = "com.microsoft"
rng = np.random.default_rng(7)


def f(*dims, lo=-1.0, hi=1.0):
    """Floats in [lo, hi)."""
    return rng.uniform(lo, hi, dims).astype(F)


def u8(*dims, dtype=np.uint8):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, dims).astype(dtype)


def weights8(*dims, dtype):
    """Codes of 7 bits: without VNNI, ONNX Runtime's products of u8 and s8 saturate beyond."""
    return rng.integers(-64, 64, dims).astype(dtype) if dtype == np.int8 else u8(*dims)


def s(value, dtype=F):
    return np.array(value, dtype)


def i32(values):
    return np.array(values, np.int32)


def erf_gelu(x):
    return (x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))).astype(F)


def tanh_gelu(x):
    return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))).astype(F)


def requantize(x, scale, zero, like):
    info = np.iinfo(like.dtype)
    return np.clip(np.rint(x / scale) + int(zero), info.min, info.max).astype(like.dtype)


class Cases:
    def __init__(self, out: Path):
        self.out = out
        self.rows = []
        self.names = set()

    def add(
        self,
        name,
        op,
        inputs,
        *,
        attrs=None,
        outputs=1,
        domain=MS,
        opset=21,
        weights=(),
        tol=(1e-4, 1e-5),
        expected=None,
    ):
        """One node. inputs: arrays or None; weights: indices of inputs that become initializers;
        outputs: how many, or a list of names with "" for those left out; expected: the outputs, for
        operators that ONNX Runtime declares and does not run on the CPU."""
        assert name not in self.names, name
        self.names.add(name)
        wanted = [f"y{i}" for i in range(outputs)] if isinstance(outputs, int) else outputs
        names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
        node = helper.make_node(op, names, wanted, domain=domain, name=name, **(attrs or {}))
        arrays = {n: np.asarray(x) for n, x in zip(names, inputs) if n}
        fixed = {f"x{i}" for i in weights}
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in arrays.items()
            if n not in fixed
        ]
        graph = helper.make_graph(
            [node],
            name,
            infos,
            [onnx.ValueInfoProto(name=n) for n in wanted if n],
            [numpy_helper.from_array(arrays[n], n) for n in sorted(fixed)],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)],
            ir_version=10,
        )
        feeds = {v.name: arrays[v.name] for v in infos}
        self.finish(name, op, domain, opset, model, feeds, tol, expected)

    def expect(self, op, inputs, attrs, outputs):
        """What ONNX Runtime makes of a standard operator."""
        names = [f"x{i}" for i in range(len(inputs))]
        wanted = [f"y{i}" for i in range(outputs)]
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in zip(names, inputs)
        ]
        graph = helper.make_graph(
            [helper.make_node(op, names, wanted, **attrs)],
            op,
            infos,
            [onnx.ValueInfoProto(name=n) for n in wanted],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=10
        )
        return self.run(op, model, dict(zip(names, inputs)))

    def run(self, name, model, feeds):
        """The outputs of ONNX Runtime, or None."""
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            return session.run(None, feeds)
        except Exception as error:  # ONNX Runtime says why it cannot
            print(f"not run by ONNX Runtime: {name}: {str(error)[:300]}", file=sys.stderr)
            return None

    def finish(self, name, op, domain, opset, model, feeds, tol, expected):
        results = expected or self.run(name, model, feeds)
        if results is None:
            return
        wanted = [v.name for v in model.graph.output]
        del model.graph.output[:]
        for output, array in zip(wanted, results):
            dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.output.append(helper.make_tensor_value_info(output, dtype, array.shape))
        folder = self.out / name
        data = folder / "test_data_set_0"
        data.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        for word, values in (("input", feeds.values()), ("output", results)):
            for j, value in enumerate(values):
                proto = numpy_helper.from_array(np.asarray(value))
                (data / f"{word}_{j}.pb").write_bytes(proto.SerializeToString())
        quantized = all(r.dtype in (np.uint8, np.int8) for r in results)
        rtol, atol = (0, 1) if quantized else tol
        ops = f"{domain}:{op}" if domain else op
        self.rows.append((name, ops, str(opset), "-", "-", "contrib", f"{rtol:g}", f"{atol:g}"))


# ---- Float operators ----


def activations(c: Cases):
    x, b = f(2, 3, 8, lo=-4, hi=4), f(8)
    c.add("gelu", "Gelu", [x])
    c.add("bias_gelu", "BiasGelu", [x, b])
    c.add("fast_gelu", "FastGelu", [x])
    c.add("fast_gelu_bias", "FastGelu", [x, b])
    c.add("quick_gelu", "QuickGelu", [x])
    c.add("quick_gelu_alpha", "QuickGelu", [x], attrs={"alpha": 0.5})
    left, right = np.split(x + b, 2, axis=-1)
    c.add("bias_split_gelu", "BiasSplitGelu", [x, b], expected=[left * erf_gelu(right)])
    skip, w, wb = f(2, 3, 8), f(8, 5), f(5)
    c.add("bias_add", "BiasAdd", [x, b, skip], expected=[x + b + skip])
    c.add("gemm_fast_gelu", "GemmFastGelu", [x, w, wb], expected=[tanh_gelu(x @ w + wb)])


def norms(c: Cases):
    x, skip, gamma, beta, bias = f(2, 3, 8), f(2, 3, 8), f(8), f(8), f(8)
    c.add("layer_norm_domainless", "LayerNormalization", [x, gamma, beta], domain="", outputs=3)
    c.add(
        "simplified_layer_norm",
        "SimplifiedLayerNormalization",
        [x, gamma],
        domain="",
        attrs={"epsilon": 1e-6},
    )
    c.add(
        "simplified_layer_norm_axis",
        "SimplifiedLayerNormalization",
        [x, f(3, 8)],
        domain="",
        attrs={"axis": 1},
    )
    op = "SkipLayerNormalization"
    c.add("skip_layer_norm", op, [x, skip, gamma])
    c.add("skip_layer_norm_beta", op, [x, skip, gamma, beta], attrs={"epsilon": 1e-5})
    c.add("skip_layer_norm_bias", op, [x, skip, gamma, beta, bias])
    c.add("skip_layer_norm_sum", op, [x, skip, gamma, beta, bias], outputs=["y", "", "", "sum"])
    c.add("skip_layer_norm_broadcast", op, [x, f(3, 8), gamma, beta])
    op = "SkipSimplifiedLayerNormalization"
    c.add("skip_rms_norm", op, [x, skip, gamma])
    c.add("skip_rms_norm_sum", op, [x, skip, gamma, bias], outputs=["y", "", "", "sum"])
    ids, words, places = i32(rng.integers(0, 10, (2, 4))), f(10, 8), f(6, 8)
    segments, table = i32(rng.integers(0, 2, (2, 4))), f(2, 8)
    mask = i32([[1, 1, 1, 0], [1, 1, 0, 0]])
    op = "EmbedLayerNormalization"
    c.add("embed_layer_norm", op, [ids, segments, words, places, table, gamma, beta], outputs=2)
    c.add(
        "embed_layer_norm_mask",
        op,
        [ids, segments, words, places, table, gamma, beta, mask],
        outputs=2,
    )
    c.add("embed_layer_norm_plain", op, [ids, None, words, places, None, gamma, beta], outputs=3)
    c.add(
        "embed_layer_norm_positions",
        op,
        [ids, None, words, places, None, gamma, beta, None, i32([[3, 2, 1, 0], [0, 1, 2, 5]])],
        outputs=2,
    )
    image = f(2, 4, 4, 8)
    groups = image.reshape(2, 16, 4, 2).astype(np.float64)
    groups = groups - groups.mean((1, 3), keepdims=True)
    groups /= np.sqrt((groups**2).mean((1, 3), keepdims=True) + 1e-5)
    normed = groups.reshape(image.shape) * gamma + beta
    c.add(
        "group_norm_nhwc",
        "GroupNorm",
        [image, gamma, beta],
        attrs={"groups": 4, "activation": 1},
        expected=[(normed / (1 + np.exp(-normed))).astype(F)],
    )


def products(c: Cases):
    a, b = f(2, 3, 4, 5), f(2, 3, 5, 6)
    at, bt = np.swapaxes(a, -1, -2).copy(), np.swapaxes(b, -1, -2).copy()
    c.add("fused_matmul", "FusedMatMul", [a, b], attrs={"alpha": 0.25})
    c.add("fused_matmul_trans_b", "FusedMatMul", [a, bt], attrs={"alpha": 0.25, "transB": 1})
    c.add("fused_matmul_trans_ab", "FusedMatMul", [at, bt], attrs={"transA": 1, "transB": 1})
    c.add("fused_matmul_2d", "FusedMatMul", [f(4, 5), f(6, 5)], attrs={"transB": 1})
    c.add("fused_matmul_batch_a", "FusedMatMul", [f(4, 2, 3, 5), b], attrs={"transBatchA": 1})
    c.add(
        "fused_matmul_batch_ab",
        "FusedMatMul",
        [f(5, 2, 3, 4), f(6, 2, 3, 5)],
        attrs={"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1},
    )
    c.add("transpose_matmul", "TransposeMatMul", [at, b], attrs={"transA": 1, "alpha": 2.0})
    for act, extra in (
        ("Relu", {}),
        ("Tanh", {}),
        ("LeakyRelu", {"activation_alpha": 0.2}),
        ("Sigmoid", {}),
    ):
        attrs = {"activation": act, "alpha": 0.5, "beta": 2.0, "transB": 1, **extra}
        c.add(f"fused_gemm_{act.lower()}", "FusedGemm", [f(3, 5), f(4, 5), f(4)], attrs=attrs)
    x, w, bias = f(1, 4, 6, 6), f(4, 2, 3, 3), f(4)
    base = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": 2}
    for act, params in (
        ("Relu", None),
        ("Clip", [-0.2, 0.4]),
        ("LeakyRelu", [0.1]),
        ("HardSigmoid", [0.3, 0.4]),
    ):
        attrs = {**base, "activation": act}
        if params:
            attrs["activation_params"] = params
        c.add(f"fused_conv_{act.lower()}", "FusedConv", [x, w, bias], attrs=attrs)
    c.add(
        "fused_conv_add",
        "FusedConv",
        [x, w, bias, f(1, 4, 6, 6)],
        attrs={**base, "activation": "Relu"},
    )
    c.add("inverse", "Inverse", [f(3, 4, 4) + 3 * np.eye(4, dtype=F)])
    c.add("expand_dims", "ExpandDims", [f(2, 3), s(-1, np.int32)], weights=[1])
    c.add("unique", "Unique", [np.array([2, 1, 1, 3, 4, 3], F)], outputs=3)
    c.add("range", "Range", [s(1), s(7), s(2)], weights=[0, 1, 2])
    c.add("trilu", "Trilu", [f(2, 4, 5), s(1, np.int64)], attrs={"upper": 0}, weights=[1])
    c.add("pad", "Pad", [f(2, 3), np.array([0, 1, 2, 0], np.int64), s(0.5)], weights=[1])
    for mode, pad in itertools.product(("bilinear", "nearest", "bicubic"), ("zeros", "border")):
        c.add(
            f"grid_sample_{mode}_{pad}",
            "GridSample",
            [f(1, 2, 5, 6), f(1, 3, 4, 2)],
            attrs={"mode": mode, "padding_mode": pad},
        )


def nbits(c: Cases):
    for bits, k, block, zero in itertools.product(
        (4, 8), (32, 80), (16, 32), ("none", "packed", "float")
    ):
        if bits == 8 and zero == "float":
            continue  # refused by ONNX Runtime
        n, blocks = 6, -(-k // block)
        b, scales = u8(n, blocks, block * bits // 8), f(n, blocks, lo=0.01, hi=0.1)
        z = {
            "none": None,
            "packed": u8(n, -(-blocks * bits // 8)),
            "float": f(n, blocks, lo=3, hi=9),
        }[zero]
        c.add(
            f"matmul_nbits_{bits}_{k}_{block}_{zero}",
            "MatMulNBits",
            [f(2, 3, k), b, scales, z],
            attrs={"K": k, "N": n, "bits": bits, "block_size": block},
            weights=[1, 2, 3][: 2 + (z is not None)],
            tol=(1e-3, 1e-4),
        )


# ---- Quantized operators ----


def quantized(c: Cases):
    for dtype in (np.uint8, np.int8):
        t = dtype.__name__
        zero = dtype(3)
        q = [s(0.02), s(zero, dtype)]
        r = [s(0.03), s(5, dtype)]
        y = [s(0.05), s(60, dtype)]
        a, b = u8(2, 3, 4, dtype=dtype), u8(3, 1, dtype=dtype)
        for op in ("QLinearAdd", "QLinearMul"):
            c.add(f"{op.lower()}_{t}", op, [a, *q, b, *r, *y])
        c.add(f"qlinear_sigmoid_{t}", "QLinearSigmoid", [a, *q, s(1 / 256), s(dtype(0), dtype)])
        c.add(f"qlinear_leaky_relu_{t}", "QLinearLeakyRelu", [a, *q, *y], attrs={"alpha": 0.1})
        for opset, axis in ((13, -1), (13, 1), (12, 1), (12, 2)):
            c.add(
                f"qlinear_softmax_{t}_{opset}_{axis}",
                "QLinearSoftmax",
                [a, *q, s(1 / 256), s(dtype(0), dtype)],
                attrs={"opset": opset, "axis": axis},
            )
        c.add(f"qlinear_where_{t}", "QLinearWhere", [f(2, 3, 4) > 0, a, *q, b, *r, *y])
        c.add(
            f"qlinear_concat_{t}",
            "QLinearConcat",
            [*y, a, *q, u8(2, 5, 4, dtype=dtype), *r],
            attrs={"axis": 1},
            weights=[0, 1, 3, 4, 6, 7],
        )
        image, nhwc = u8(2, 3, 7, 6, dtype=dtype), u8(2, 7, 6, 3, dtype=dtype)
        real = (image.astype(np.float64) - int(q[1])) * q[0]
        for axes, keep in (((2, 3), True), ((1,), False)):
            mean = requantize(real.mean(axes, keepdims=keep), *y, image)
            c.add(
                f"qlinear_reduce_mean_{t}_{keep}",
                "QLinearReduceMean",
                [image, *q, *y],
                attrs={"axes": list(axes), "keepdims": int(keep)},
                expected=[mean],
            )
        c.add(f"qlinear_global_pool_{t}", "QLinearGlobalAveragePool", [image, *q, *y])
        c.add(
            f"qlinear_global_pool_{t}_nhwc",
            "QLinearGlobalAveragePool",
            [nhwc, *q, *y],
            attrs={"channels_last": 1},
        )
        for last, x, pad in itertools.product((0, 1), (0,), (0, 1)):
            attrs = {
                "kernel_shape": [3, 3],
                "strides": [2, 2],
                "pads": [1, 1, 1, 1],
                "channels_last": last,
                "count_include_pad": pad,
            }
            c.add(
                f"qlinear_average_pool_{t}_{last}_{pad}",
                "QLinearAveragePool",
                [nhwc if last else image, *q, *y],
                attrs=attrs,
            )
        c.add(
            f"nhwc_max_pool_{t}",
            "NhwcMaxPool",
            [nhwc],
            attrs={"kernel_shape": [2, 2], "strides": [2, 2]},
        )
        c.add(f"quantize_linear_{t}", "QuantizeLinear", [f(2, 3, lo=1, hi=3), *q])
        c.add(
            f"quantize_linear_{t}_axis",
            "QuantizeLinear",
            [f(2, 3, lo=1, hi=3), f(3, lo=0.01, hi=0.1), u8(3, dtype=dtype)],
            attrs={"axis": 1},
        )
        c.add(f"dequantize_linear_{t}", "DequantizeLinear", [a, *q])
        c.add(
            f"matmul_integer_to_float_{t}",
            "MatMulIntegerToFloat",
            [
                u8(2, 4, 5),
                weights8(5, 6, dtype=dtype),
                s(0.02),
                s(0.03),
                s(7, np.uint8),
                s(2, dtype),
                f(6),
            ],
        )
        c.add(
            f"matmul_integer_to_float_{t}_columns",
            "MatMulIntegerToFloat",
            [
                u8(4, 5),
                weights8(5, 6, dtype=dtype),
                s(0.02),
                f(6, lo=0.01, hi=0.1),
                None,
                u8(6, dtype=dtype),
            ],
            weights=[1, 3, 5],
        )
        c.add(
            f"dynamic_quantize_matmul_{t}",
            "DynamicQuantizeMatMul",
            [f(2, 4, 5), weights8(5, 6, dtype=dtype), s(0.03)],
            weights=[1, 2],
        )
        c.add(
            f"dynamic_quantize_matmul_{t}_bias",
            "DynamicQuantizeMatMul",
            [f(4, 5), weights8(5, 6, dtype=dtype), f(6, lo=0.01, hi=0.1), u8(6, dtype=dtype), f(6)],
            weights=[1, 2, 3],
        )
        args = [
            u8(4, 5),
            s(0.02),
            s(7, np.uint8),
            weights8(6, 5, dtype=dtype),
            s(0.03),
            s(2, dtype),
            i32(rng.integers(-500, 500, 6)),
        ]
        c.add(
            f"qgemm_{t}",
            "QGemm",
            [*args, s(0.5), s(100, np.uint8)],
            attrs={"transB": 1},
            weights=[3, 4, 5],
        )
        c.add(
            f"qgemm_{t}_float", "QGemm", args, attrs={"transB": 1, "alpha": 0.5}, weights=[3, 4, 5]
        )
        c.add(
            f"qattention_{t}",
            "QAttention",
            [
                u8(2, 3, 8),
                weights8(8, 24, dtype=dtype),
                f(24),
                s(0.02),
                s(0.01),
                None,
                s(120, np.uint8),
                s(2, dtype),
            ],
            attrs={"num_heads": 2},
            weights=[1, 4, 7],
            tol=(1e-3, 1e-3),
        )


# ---- Attention ----


def attention(c: Cases):
    batch, rows, size, heads = 2, 4, 8, 2
    x, w, b = f(batch, rows, size), f(size, 3 * size), f(3 * size)
    past = f(2, batch, heads, 3, size // heads)
    tol = (1e-3, 1e-4)
    n = {"num_heads": heads}
    c.add("ms_attention", "Attention", [x, w, b], attrs=n, tol=tol)
    c.add("ms_attention_causal", "Attention", [x, w, b], attrs={**n, "unidirectional": 1}, tol=tol)
    c.add("ms_attention_scale", "Attention", [x, w, b], attrs={**n, "scale": 0.3}, tol=tol)
    c.add("ms_attention_lengths", "Attention", [x, w, b, i32([2, 4])], attrs=n, tol=tol)
    c.add("ms_attention_range", "Attention", [x, w, b, i32([3, 4, 1, 0])], attrs=n, tol=tol)
    mask = i32([[1, 1, 0, 0], [1, 1, 1, 1]])
    c.add("ms_attention_mask", "Attention", [x, w, b, mask], attrs=n, tol=tol)
    c.add(
        "ms_attention_mask_3d",
        "Attention",
        [x, w, b, i32(rng.integers(0, 2, (2, 4, 4)))],
        attrs=n,
        tol=tol,
    )
    c.add(
        "ms_attention_past",
        "Attention",
        [x, w, b, None, past],
        attrs={**n, "unidirectional": 1},
        outputs=2,
        tol=tol,
    )
    c.add(
        "ms_attention_bias",
        "Attention",
        [x, w, b, None, None, f(1, heads, rows, rows)],
        attrs=n,
        tol=tol,
    )
    c.add(
        "ms_attention_sizes",
        "Attention",
        [x, f(size, 8 + 8 + 4), f(20)],
        attrs={**n, "qkv_hidden_sizes": [8, 8, 4]},
        tol=tol,
    )
    op = "MultiHeadAttention"
    q, k, v = f(batch, rows, size), f(batch, 5, size), f(batch, 5, 12)
    c.add("mha", op, [q, k, v], attrs=n, tol=tol)
    c.add("mha_bias", op, [q, k, v, f(8 + 8 + 12)], attrs=n, tol=tol)
    c.add(
        "mha_padding",
        op,
        [q, k, v, None, i32([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])],
        attrs=n,
        tol=tol,
    )
    c.add("mha_added", op, [q, k, v, None, None, f(1, heads, rows, 5)], attrs=n, tol=tol)
    self_k, self_v = f(batch, rows, size), f(batch, rows, size)
    c.add("mha_causal", op, [q, self_k, self_v], attrs={**n, "unidirectional": 1}, tol=tol)
    cache = [f(batch, heads, 3, 4), f(batch, heads, 3, 4)]
    c.add(
        "mha_past", op, [q, self_k, self_v, None, None, None, *cache], attrs=n, outputs=3, tol=tol
    )
    c.add(
        "mha_past_bias",
        op,
        [q, self_k, self_v, f(24), None, None, *cache],
        attrs={**n, "unidirectional": 1},
        outputs=3,
        tol=tol,
    )
    c.add("mha_cross", op, [q, f(batch, heads, 5, 4), f(batch, heads, 5, 4)], attrs=n, tol=tol)
    angles = np.outer(np.arange(16), 1.0 / 10000 ** (np.arange(4) / 4))
    cos, sin = np.cos(angles).astype(F), np.sin(angles).astype(F)
    op = "RotaryEmbedding"
    c.add("ms_rotary_3d", op, [f(2, 3, 16), np.array([2], np.int64), cos, sin])
    c.add("ms_rotary_ids", op, [f(2, 3, 16), rng.integers(0, 16, (2, 3)), cos, sin])
    c.add(
        "ms_rotary_4d",
        op,
        [f(2, 2, 3, 8), rng.integers(0, 16, (2, 3)), cos, sin],
        attrs={"interleaved": 1},
    )
    c.add(
        "ms_rotary_partial",
        op,
        [f(2, 3, 24), np.array([0], np.int64), cos, sin],
        attrs={"num_heads": 2, "rotary_embedding_dim": 8},
    )


def grouped(c: Cases):
    op, tol = "GroupQueryAttention", (1e-3, 1e-4)
    heads, groups, size, batch = 4, 2, 16, 2
    angles = np.outer(np.arange(32), 1.0 / 10000 ** (np.arange(size // 2) / (size // 2)))
    cos, sin = np.cos(angles).astype(F), np.sin(angles).astype(F)
    base = {"num_heads": heads, "kv_num_heads": groups}

    def case(
        name, rows, past, extra=(), weights=(6,), packed=False, lens=None, capacity=None, **attrs
    ):
        q = f(batch, rows, heads * size)
        k, v = f(batch, rows, groups * size), f(batch, rows, groups * size)
        total = past + rows
        cache = f(batch, groups, capacity if capacity is not None else past, size)
        lens = i32([total - 1] * batch) if lens is None else i32(lens)
        first = [np.concatenate([q, k, v], -1), None, None] if packed else [q, k, v]
        inputs = [*first, cache, f(*cache.shape), lens, s(total, np.int32), *extra]
        c.add(name, op, inputs, attrs={**base, **attrs}, outputs=3, weights=weights, tol=tol)

    case("gqa_prompt", 5, 0)
    case("gqa_decode", 1, 6)
    case("gqa_decode_buffer", 1, 6, capacity=10)
    case("gqa_decode_ragged", 1, 6, lens=[6, 4])
    case("gqa_prompt_rotary", 5, 0, extra=[cos, sin], do_rotary=1)
    case("gqa_decode_rotary", 1, 6, extra=[cos, sin], do_rotary=1)
    case("gqa_decode_interleaved", 1, 6, extra=[cos, sin], do_rotary=1, rotary_interleaved=1)
    case("gqa_packed", 4, 0, packed=True, extra=[cos, sin], do_rotary=1)
    case("gqa_window", 6, 0, local_window_size=3)
    case("gqa_window_decode", 1, 8, local_window_size=3)
    case("gqa_softcap", 5, 0, softcap=2.0, scale=0.7)
    case("gqa_smooth", 5, 0, smooth_softmax=1)
    case("gqa_sink", 5, 0, extra=[None, None, None, None, f(heads)])
    case("gqa_bias", 4, 0, extra=[None, None, None, f(1, 1, 4, 4)])


# ---- Recurrent networks (standard operators) ----


def recurrent(c: Cases):
    steps, batch, size, hidden = 5, 3, 4, 6
    lens = i32([5, 2, 3])
    tol = (1e-4, 1e-5)
    kinds = {"LSTM": 4, "GRU": 3, "RNN": 1}
    acts = {"LSTM": 3, "GRU": 2, "RNN": 1}
    for op, direction in itertools.product(kinds, ("forward", "reverse", "bidirectional")):
        d, g = 2 if direction == "bidirectional" else 1, kinds[op]
        x, w, r, b = (
            f(steps, batch, size),
            f(d, g * hidden, size),
            f(d, g * hidden, hidden),
            f(d, 2 * g * hidden),
        )
        h, state = f(d, batch, hidden), f(d, batch, hidden)
        last = [state] if op == "LSTM" else []
        n_out = 3 if op == "LSTM" else 2
        base = {"hidden_size": hidden, "direction": direction}
        tag = f"{op.lower()}_{direction}"

        def case(name, inputs, **attrs):
            c.add(
                f"{tag}_{name}",
                op,
                inputs,
                attrs={**base, **attrs},
                outputs=n_out,
                domain="",
                opset=14,
                tol=tol,
                weights=[1, 2],
            )

        case("plain", [x, w, r])
        case("bias", [x, w, r, b])
        case("lens", [x, w, r, b, lens])
        case("states", [x, w, r, b, lens, h, *last])
        case("clip", [3 * x, w, r, b], clip=0.5)
        case(
            "acts",
            [x, w, r, b],
            activations=["HardSigmoid", "Elu", "Softsign"][: acts[op]] * d,
            activation_alpha=[0.3, 0.7][: min(acts[op], 2)] * d,
            activation_beta=[0.4] * d,
        )
        if op == "GRU":
            case("linear", [x, w, r, b, lens, h], linear_before_reset=1)
        if op == "LSTM":
            p = f(d, 3 * hidden)
            case("peepholes", [x, w, r, b, None, h, state, p])
            case("coupled", [x, w, r, b], input_forget=1)
            case(
                "alphas",
                [x, w, r, b],
                activations=["Sigmoid", "LeakyRelu", "ScaledTanh"] * d,
                activation_alpha=[0.2, 1.5] * d,
                activation_beta=[0.6] * d,
            )
            case("everything", [2 * x, w, r, b, lens, h, state, p], clip=1.5)


def quantized_lstm(c: Cases):
    """DynamicQuantizeLSTM is held to what LSTM makes of the same weights, to float accuracy, and to
    what ONNX Runtime makes of it, which rounds x and the states to 8 bits, to that."""
    steps, batch, size, hidden = 5, 3, 4, 6
    forms = itertools.product((np.int8, np.uint8), ("forward", "bidirectional"), (False, True))
    for dtype, direction, by_row in forms:
        d = 2 if direction == "bidirectional" else 1
        if by_row and d == 2:
            continue
        shape = (d, 4 * hidden) if by_row else (d,)
        x, b = f(steps, batch, size), f(d, 8 * hidden)
        lens, h, state = i32([5, 2, 3]), f(d, batch, hidden), f(d, batch, hidden)
        floats, stored = [], []
        for rows in (size, hidden):
            q = weights8(d, rows, 4 * hidden, dtype=dtype)
            scale = f(*shape, lo=0.002, hi=0.01)
            zero = np.full(shape, 0 if dtype == np.int8 else 131, dtype)
            along = (lambda v: v[:, None, :]) if by_row else (lambda v: v[:, None, None])
            real = (q.astype(F) - along(zero).astype(F)) * along(scale)
            floats.append(np.ascontiguousarray(real.transpose(0, 2, 1)))
            stored.append((q, scale, zero))
        attrs = {"hidden_size": hidden, "direction": direction}
        (w, ws, wz), (r, rs, rz) = stored
        inputs = [x, w, r, b, lens, h, state, None, ws, wz, rs, rz]
        tag = f"dynamic_quantize_lstm_{np.dtype(dtype)}_{direction}{'_rows' * by_row}"
        rest = {"attrs": attrs, "outputs": 3, "weights": [1, 2, 8, 9, 10, 11]}
        plain = c.expect("LSTM", [x, *floats, b, lens, h, state], attrs, 3)
        c.add(tag, "DynamicQuantizeLSTM", inputs, expected=plain, **rest)
        c.add(f"{tag}_rounded", "DynamicQuantizeLSTM", inputs, tol=(0.02, 0.02), **rest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write; its old content goes")
    args = parser.parse_args()
    if args.out.exists():
        if any(args.out.iterdir()) and not (args.out / "manifest.tsv").exists():
            print(f"{args.out}: not empty and not made by this script", file=sys.stderr)
            return 2
        shutil.rmtree(args.out)
    args.out.mkdir(parents=True)
    (args.out / "manifest.tsv").write_text("\t".join(COLUMNS) + "\n")
    cases = Cases(args.out)
    groups = (activations, norms, products, nbits, quantized, attention, grouped, recurrent)
    for group in (*groups, quantized_lstm):
        group(cases)
    lines = [COLUMNS, *sorted(cases.rows)]
    (args.out / "manifest.tsv").write_text("".join("\t".join(r) + "\n" for r in lines))
    print(f"{args.out}: {len(cases.rows)} tests of {len(cases.names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
