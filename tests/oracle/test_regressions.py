"""Graphs that once came out wrong, against ONNX Runtime. A failure of random_graphs.py becomes a
graph here, cut down to what matters."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx.parser

import common

HEAD = '<ir_version: 8, opset_import: ["" : 18]>'
# Name and graph (inputs' symbolic dims are 1); and a kernel that it must run on.
GRAPHS = (
    (
        "constant read in a convolution's layout",
        """g (float[1,4,5,6] x) => (float[1,4,3,4] y)
        <float[4,4,3,3] w, float[1,4,3,4] c> { z = Conv (x, w)  y = Mod <fmod = 1> (z, c) }""",
    ),
    (
        "captured value read in a convolution's layout",
        """g (float[1,4,5,6] x, float[1,4,3,4] c, bool on) => (float[1,4,3,4] y)
        <float[4,4,3,3] w> {
            y = If (on) <
                then_branch = a () => (float[1,4,3,4] p) {
                    z = Conv (x, w)  p = Mod <fmod = 1> (z, c)
                },
                else_branch = b () => (float[1,4,3,4] q) { q = Neg (c) }
            >
        }""",
    ),
    (
        "constant joined in a convolution's layout",
        """g (float[1,4,5,6] x) => (float[1,4,5,4] y)
        <float[4,4,3,3] w, float[1,4,2,4] c> {
            z = Conv (x, w)  j = Concat <axis = 2> (c, z)  y = MaxPool <kernel_shape = [1,1]> (j)
        }""",
    ),
    (
        "loop without a condition",
        """g (float[3] x, int64 n) => (float[3] y, float[k,3] s) {
            y, s = Loop (n, "", x) <body = b (int64 i, bool c, float[3] v)
                => (bool d, float[3] u, float[3] t) {
                d = Identity (c)  u = Add (v, x)  t = Neg (v)
            }>
        }""",
    ),
    (
        "loop without a trip count",
        """g (float[3] x, bool on) => (float[3] y) {
            y = Loop ("", on, x) <body = b (int64 i, bool c, float[3] v)
                => (bool d, float[3] u) {
                four = Constant <value_int = 4> ()  d = Less (i, four)  u = Add (v, x)
            }>
        }""",
    ),
    (
        "recurrent layer behind branches of two ranks",
        """g (float[n,3,5] x) => (float[1,1,3,4] y)
        <float[1,16,5] w, float[1,16,4] r, int64[1] zero = {0},
         int64 first = {0}, int64 one = {1}> {
            s = Shape (x)  d = Gather (s, first)  flat = Equal (d, one)
            v = If (flat) <
                then_branch = a () => (float[3,5] p) { p = Squeeze (x, zero) },
                else_branch = b () => (float[n,3,5] q) { q = Identity (x) }
            >
            u = Unsqueeze (v, zero)  y = LSTM <hidden_size = 4> (u, w, r)
        }""",
        "rnn_f32",
    ),
)


def fresh(info, rng) -> np.ndarray:
    tensor = info.type.tensor_type
    shape = [d.dim_value or 1 for d in tensor.shape.dim]
    if tensor.elem_type == onnx.TensorProto.FLOAT:
        return rng.integers(-64, 65, shape).astype(np.float32) / 16
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return np.full(shape, 3 if dtype == np.int64 else True, dtype)


def fill(model: onnx.ModelProto, rng) -> None:
    """Makes constants of the values that the text declares and no node makes."""
    for info in model.graph.value_info:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        array = (rng.integers(1, 65, shape) / 16).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, info.name))
    del model.graph.value_info[:]


def main() -> int:
    tally, kiln = common.Tally("regressions"), common.Kiln()
    with tempfile.TemporaryDirectory(prefix="kiln-regressions-") as folder:
        for name, text, *kernels in GRAPHS:
            rng = np.random.Generator(np.random.PCG64(3))
            model = onnx.parser.parse_model(HEAD + text)
            fill(model, rng)
            feeds = {v.name: fresh(v, rng) for v in common.model_io(model)[0]}
            file = Path(folder, "graph.onnx")
            onnx.save(model, file)
            session = common.ort_session(file)
            names = [o.name for o in session.get_outputs()]
            try:
                got = kiln.run(file, feeds)
            except common.KilnError as error:
                tally.check(name, False, str(error))
                continue
            errors = [
                float("inf") if common.mismatch(got[n], want) else common.range_error(got[n], want)
                for n, want in zip(names, session.run(names, feeds))
            ]
            layers = kiln.call("inspect", str(file), "--layers", "--format", "csv").stdout
            for kernel in kernels:
                tally.check(f"{name}: {kernel}", f",{kernel}," in layers, "runs on other kernels")
            tally.check(name, max(errors) <= 1e-6, f"{max(errors):.2e} of range")
    return tally.verdict()


sys.exit(main())
