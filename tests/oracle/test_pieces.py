"""Recurrent cells and softmaxes written out in pieces, as exporters write them, against ONNX
Runtime: the outputs agree, and the canonical graph holds the operator that the pieces are."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

import common

HEAD = '<ir_version: 8, opset_import: ["" : 18]>'
I, H = 5, 6  # widths of input and state


def lstm(t: str, x: str, h: str, c: str, order: str = "ifgo") -> str:
    """One step from (x, h, c) to (h<t>, c<t>); the weights hold the gates in `order`."""
    act = {"g": "Tanh"}
    gates = "".join(f"{k}{t} = {act.get(k, 'Sigmoid')} (s{k}{t})\n" for k in order)
    return f"""
        a{t} = MatMul ({x}, w)  b{t} = MatMul ({h}, r)
        d{t} = Add (a{t}, b{t})  e{t} = Add (d{t}, bias)
        {", ".join(f"s{k}{t}" for k in order)} = Split <axis = 1, num_outputs = 4> (e{t})
        {gates} k{t} = Mul (f{t}, {c})  m{t} = Mul (i{t}, g{t})  c{t} = Add (k{t}, m{t})
        q{t} = Tanh (c{t})  h{t} = Mul (o{t}, q{t})
    """


def gru(t: str, x: str, h: str) -> str:
    """One torch step from (x, h) to h<t>."""
    return f"""
        a{t} = Gemm <transB = 1> ({x}, w, wb)  b{t} = Gemm <transB = 1> ({h}, r, rb)
        xr{t}, xz{t}, xn{t} = Split <axis = 1, num_outputs = 3> (a{t})
        hr{t}, hz{t}, hn{t} = Split <axis = 1, num_outputs = 3> (b{t})
        sr{t} = Add (xr{t}, hr{t})  r{t} = Sigmoid (sr{t})
        sz{t} = Add (xz{t}, hz{t})  z{t} = Sigmoid (sz{t})
        rn{t} = Mul (r{t}, hn{t})  sn{t} = Add (xn{t}, rn{t})  n{t} = Tanh (sn{t})
        d{t} = Sub ({h}, n{t})  zd{t} = Mul (z{t}, d{t})  h{t} = Add (n{t}, zd{t})
    """


def unrolled(steps: int, axis: int) -> str:
    """Steps cut out of a sequence along `axis` (0: steps first); the states, and all steps again."""
    at = {k: f"at{k}" for k in range(steps)}
    text = "".join(f"{v} = Constant <value_int = {k}> ()\n" for k, v in at.items())
    h, c = "h", "c"
    for k in range(steps):
        text += f"x{k} = Gather <axis = {axis}> (x, at{k})\n" + lstm(str(k), f"x{k}", h, c)
        h, c = f"h{k}", f"c{k}"
    text += f"y = Concat <axis = 1> ({', '.join(f'h{k}' for k in range(steps))})\n"
    return text + f"last = Identity ({c})"


LSTM = f"<float[{I},{4 * H}] w, float[{H},{4 * H}] r, float[{4 * H}] bias>"
GRU = f"<float[{3 * H},{I}] w, float[{3 * H},{H}] r, float[{3 * H}] wb, float[{3 * H}] rb>"
STATES = f"float[2,{H}] h, float[2,{H}] c"
# Name, operators that the canonical graph must hold, graph.
GRAPHS = (
    (
        "one LSTM step",
        {"LSTM": 1},
        f"g (float[2,{I}] x, {STATES}) => (float[2,{H}] h1, float[2,{H}] c1) {LSTM} {{"
        + lstm("1", "x", "h", "c")
        + "}",
    ),
    (
        "one LSTM step, another order of gates",
        {"LSTM": 1},
        f"g (float[2,{I}] x, {STATES}) => (float[2,{H}] h1) {LSTM} {{"
        + lstm("1", "x", "h", "c", "oigf")
        + "}",
    ),
    (
        "seven steps of a sequence, steps first",
        {"LSTM": 1},
        f"g (float[7,2,{I}] x, {STATES}) => (float[2,{7 * H}] y, float[2,{H}] last) {LSTM} {{"
        + unrolled(7, 0)
        + "}",
    ),
    (
        "three steps of a sequence, batch first",
        {"LSTM": 1},
        f"g (float[2,3,{I}] x, {STATES}) => (float[2,{3 * H}] y, float[2,{H}] last) {LSTM} {{"
        + unrolled(3, 1)
        + "}",
    ),
    (
        "a step that reads the one before",
        {"LSTM": 2},
        f"g (float[2,{I}] x, {STATES}) => (float[2,{H}] h2, float[2,{H}] c2) "
        f"<float[{I},{4 * H}] w, float[{H},{4 * H}] r, float[{4 * H}] bias, float[{H},{I}] v> {{"
        + lstm("1", "x", "h", "c")
        + "u = MatMul (h1, v)"
        + lstm("2", "u", "h1", "c1")
        + "}",
    ),
    (
        "an LSTM step in a loop",
        {"LSTM": 1},
        f"""g (float[4,2,{I}] x, {STATES}) => (float[2,{H}] hz, float[2,{H}] cz) {LSTM} {{
            n = Constant <value_int = 4> ()
            hz, cz = Loop (n, "", h, c) <body = b (int64 k, bool on, float[2,{H}] h0,
                float[2,{H}] c0) => (bool go, float[2,{H}] h1, float[2,{H}] c1) {{
                go = Identity (on)  xk = Gather <axis = 0> (x, k)
                {lstm("1", "xk", "h0", "c0")}
            }}>
        }}""",
    ),
    (
        "an LSTM step in a scan",
        {"LSTM": 1},
        f"""g (float[4,2,{I}] x, {STATES}) => (float[2,{H}] hz, float[2,{H}] cz, float[4,2,{H}] y)
        {LSTM} {{
            hz, cz, y = Scan (h, c, x) <num_scan_inputs = 1, body = b (float[2,{H}] h0,
                float[2,{H}] c0, float[2,{I}] xk)
                => (float[2,{H}] h1, float[2,{H}] c1, float[2,{H}] o) {{
                {lstm("1", "xk", "h0", "c0")} o = Identity (h1)
            }}>
        }}""",
    ),
    (
        "two GRU steps",
        {"GRU": 1},
        f"g (float[2,{I}] x, float[2,{I}] x2, float[2,{H}] h) => (float[2,{H}] h2) {GRU} {{"
        + gru("1", "x", "h")
        + gru("2", "x2", "h1")
        + "}",
    ),
    (
        "softmax of jax: axis given back by Reshape and Expand",
        {"Softmax": 1},
        """g (float[3,7] x) => (float[3,7] y) {
            axes = Constant <value_ints = [1]> ()  column = Constant <value_ints = [3, 1]> ()
            whole = Constant <value_ints = [3, 7]> ()  least = Constant <value_float = -inf> ()
            a = ReduceMax <keepdims = 0> (x, axes)  b = Max (least, a)  c = Reshape (b, column)
            d = Expand (c, whole)  z = Sub (x, d)  e = Exp (z)
            f = ReduceSum <keepdims = 0> (e, axes)  i = Reshape (f, column)
            j = Expand (i, whole)  y = Div (e, j)
        }""",
    ),
    (
        "log-softmax of its parts",
        {"LogSoftmax": 1},
        """g (float[3,7,2] x) => (float[3,7,2] y) {
            axes = Constant <value_ints = [1]> ()
            a = ReduceMax (x, axes)  z = Sub (x, a)  e = Exp (z)
            f = ReduceSum (e, axes)  l = Log (f)  y = Sub (z, l)
        }""",
    ),
    (
        "log-softmax by log-sum-exp",
        {"LogSoftmax": 1},
        """g (float[3,7] x) => (float[3,7] y) {
            axes = Constant <value_ints = [-1]> ()  l = ReduceLogSumExp (x, axes)  y = Sub (x, l)
        }""",
    ),
)


def count(graph: onnx.GraphProto, op: str) -> int:
    bodies = [a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
    return sum(n.op_type == op for n in graph.node) + sum(count(b, op) for b in bodies)


def fill(model: onnx.ModelProto, rng) -> None:
    """Makes constants of the values that the text declares and no node makes."""
    for info in model.graph.value_info:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        array = rng.uniform(-0.7, 0.7, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, info.name))
    del model.graph.value_info[:]


def main() -> int:
    tally, kiln = common.Tally("pieces"), common.Kiln()
    with tempfile.TemporaryDirectory(prefix="kiln-pieces-") as folder:
        for name, ops, text in GRAPHS:
            rng = np.random.Generator(np.random.PCG64(7))
            model = onnx.parser.parse_model(HEAD + text.replace("-inf", "-3.4028235e38"))
            for node in model.graph.node:  # the parser reads no infinity
                for a in node.attribute:
                    if a.name == "value_float" and a.f < -3e38:
                        a.f = -np.inf
            fill(model, rng)
            inputs, outputs = common.model_io(model)
            feeds = {
                v.name: rng.normal(
                    size=[d.dim_value for d in v.type.tensor_type.shape.dim]
                ).astype(np.float32)
                for v in inputs
            }
            file, canonical = Path(folder, "graph.onnx"), Path(folder, "canonical.onnx")
            onnx.save(model, file)
            names = [v.name for v in outputs]
            want = dict(zip(names, common.ort_session(str(file)).run(names, feeds)))
            got = kiln.run(file, feeds)
            for key in names:
                error = common.range_error(got[key], want[key])
                tally.check(f"{name}, {key}", error <= 2e-6, f"range error {error:.2g}")
                spoiled = np.array(got[key])
                spoiled.flat[0] += 0.01 * common.value_range(want[key])
                noticed = common.range_error(spoiled, want[key]) > 2e-6
                tally.check(f"{name}, {key}, spoiled", noticed, "an error is noticed")
            kiln.call("export", str(file), "-o", str(canonical))
            found = onnx.load(canonical).graph
            for op, n in ops.items():
                tally.check(f"{name}, {op}", count(found, op) == n, f"{count(found, op)} of {n}")
    return tally.verdict()


if __name__ == "__main__":
    sys.exit(main())
