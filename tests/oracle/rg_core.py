"""Random graphs: values, fragments, and the rounding model behind their tolerances.

A graph grows one *fragment* (usually one node) at a time. Each fragment is run by ONNX Runtime on
the spot, so that the next one sees concrete shapes and values, and one that ONNX Runtime refuses
is simply dropped.

Tolerances are measured, not guessed. Every value is carried in three copies: as computed, and two
that were disturbed by each operator's own rounding (its declared number of ulps, random signs,
opposite in the two copies) and then went through the same operators. Their distance at an output
estimates what honest rounding does there, cancellation and amplification included. A fragment in
which the copies drift apart (a Floor at an integer, an ArgMax at a tie) is ill-conditioned and
dropped; so integer and bool outputs can be asked to be equal.

    trial = Trial(state)                # build a fragment on the values so far
    x = trial.pick(F32, rank=(2, 4))
    y = trial.node("Softmax", [x], axis=-1)
    trial.finish(["y names"], ulps=8)   # runs it; True: committed to the state
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

import common

F32, F64, F16 = "float32", "float64", "float16"
FLOATS = (F32, F32, F32, F32, F64, F16)
INTS = ("int64", "int32", "int8", "uint8", "int16", "uint16", "uint32", "uint64")
EPS = {F32: 2.0**-23, F64: 2.0**-52, F16: 2.0**-10}
COPIES = 3
MAX_SIZE = 6000
MAX_ABS = 1e4
# Drift of a disturbed copy, relative to the largest value, above which a fragment is
# ill-conditioned.
MAX_DRIFT = 1e-3

# Value domains: (what an existing value must satisfy, how fresh values are drawn: low, high).
DOMAINS = {
    "any": (lambda v: np.abs(v).max(initial=0) <= 1e3, -4, 4),
    "small": (lambda v: np.abs(v).max(initial=0) <= 8, -4, 4),
    "pos": (lambda v: v.min(initial=1) >= 0.05 and v.max(initial=1) <= 1e3, 0.0625, 4),
    "unit": (lambda v: np.abs(v).max(initial=0) <= 0.9, -0.875, 0.875),
    "ge1": (lambda v: v.min(initial=2) >= 1.1 and v.max(initial=2) <= 1e3, 1.125, 5),
    "nonzero": (
        lambda v: np.abs(v).min(initial=1) >= 0.1 and np.abs(v).max(initial=1) <= 1e3,
        None,
        None,
    ),
}


@dataclass
class Value:
    name: str
    runs: list[np.ndarray]
    touched: bool = False  # some float arithmetic lies behind it: no bit-equality
    slack: float = 0.0  # extra absolute tolerance (quantized outputs of float arithmetic: one step)
    uses: int = 0

    @property
    def array(self) -> np.ndarray:
        return self.runs[0]

    @property
    def dtype(self) -> str:
        return self.runs[0].dtype.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.runs[0].shape

    @property
    def exact(self) -> bool:
        return all(
            np.array_equal(self.runs[0], r, equal_nan=self.runs[0].dtype.kind == "f")
            for r in self.runs[1:]
        )

    def tolerance(self) -> float:
        """Absolute tolerance for a float output; 0 asks for equal bits (up to the sign of zero)."""
        if self.runs[0].dtype.kind != "f":
            return self.slack
        if not self.touched:
            return self.slack
        # Where all results vanish (a GELU far below zero), so small a rest is no error either.
        big = float(np.abs(self.array).max(initial=2.0**-20))
        drift = max(
            float(np.abs(r.astype(np.float64) - self.array).max(initial=0)) for r in self.runs[1:]
        )
        return 16 * drift + 16 * EPS[self.dtype] * big + self.slack


@dataclass
class State:
    """A graph in the making."""

    rng: np.random.Generator
    opset: int
    values: list[Value] = field(default_factory=list)
    nodes: list = field(default_factory=list)
    weights: list = field(default_factory=list)  # TensorProto
    inputs: list[Value] = field(default_factory=list)
    names: int = 0

    def fresh(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"


def tensor_info(name: str, array: np.ndarray, shape=None):
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, list(array.shape) if shape is None else shape)


def make_model(nodes, inputs, outputs, weights, opset: int) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "random", inputs, outputs, initializer=weights)
    domains = [helper.make_operatorsetid("", opset)]
    if any(n.domain == "com.microsoft" for n in nodes):
        domains.append(helper.make_operatorsetid("com.microsoft", 1))
    return helper.make_model(graph, opset_imports=domains, ir_version=8 if opset < 19 else 10)


class Trial:
    """One fragment being tried. Nothing reaches the state before finish() succeeds."""

    def __init__(self, state: State):
        self.state, self.rng, self.opset = state, state.rng, state.opset
        self.nodes: list = []
        self.weights: list = []
        self.new_inputs: list[Value] = []
        self.read: dict[str, Value] = {}

    # chance

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def choose(self, items):
        return items[int(self.rng.integers(len(items)))]

    def ints(self, low: int, high: int, count: int) -> list[int]:
        """`count` integers, both ends included."""
        return [int(v) for v in self.rng.integers(low, high + 1, count)]

    def between(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def dims(self, rank: int, limit: int = 600) -> list[int]:
        shape = [int(d) for d in self.rng.choice([1, 1, 2, 3, 3, 4, 5, 7, 8, 9, 16], rank)]
        while np.prod(shape) > limit:
            shape[int(np.argmax(shape))] //= 2
        return shape

    # values

    def draw(self, dtype: str, shape, domain: str = "any") -> np.ndarray:
        """Fresh values: floats are multiples of 1/16, so that sums and products of a few are
        exact."""
        kind = np.dtype(dtype).kind
        if kind == "b":
            return self.rng.random(shape) < 0.5
        if kind in "iu":
            low, high = (-9, 9) if kind == "i" else (0, 12)
            if domain == "wide" and np.dtype(dtype).itemsize == 1:
                info = np.iinfo(dtype)
                low, high = info.min, info.max
            data = self.rng.integers(low, high + 1, shape)
            if domain == "nonzero":
                data = np.where(data == 0, 3, data)
            return data.astype(dtype)
        _, low, high = DOMAINS[domain]
        if low is None:
            data = (
                self.rng.integers(2, 65, shape) * np.where(self.rng.random(shape) < 0.5, -1, 1) / 16
            )
        else:
            data = self.rng.integers(int(low * 16), int(high * 16) + 1, shape) / 16
        return np.asarray(data).astype(dtype)

    def input(self, array: np.ndarray) -> Value:
        value = Value(self.state.fresh("in"), [np.asarray(array)] * COPIES)
        self.new_inputs.append(value)
        return value

    def weight(self, array: np.ndarray) -> Value:
        """A parameter: mostly an initializer, sometimes a Constant node or a graph input."""
        where = self.rng.random()
        return self.input(array) if where < 0.12 else self.const(array)

    def const(self, array: np.ndarray, node: bool | None = None) -> Value:
        """Always constant (shapes, axes): initializer or Constant node."""
        array = np.asarray(array)
        value = Value(self.state.fresh("w"), [array] * COPIES)
        tensor = numpy_helper.from_array(np.asarray(array, order="C"), value.name)
        if self.chance(0.25) if node is None else node:
            self.nodes.append(helper.make_node("Constant", [], [value.name], value=tensor))
        else:
            self.weights.append(tensor)
        self.read[value.name] = value
        return value

    def vector(self, numbers, dtype: str = "int64") -> Value:
        return self.const(np.asarray(list(numbers), dtype))

    def pick(self, dtypes, rank=(0, 5), domain: str = "any", where=None, shape=None) -> Value:
        """An existing value of these dtypes, ranks and domain, or a new graph input of such."""
        dtypes = (dtypes,) if isinstance(dtypes, str) else dtypes
        low, high = (rank, rank) if isinstance(rank, int) else rank
        inside = DOMAINS[domain][0] if domain in DOMAINS else lambda v: True
        found = [
            v
            for v in self.state.values
            if v.dtype in dtypes
            and low <= len(v.shape) <= high
            and (where is None or where(v))
            and (shape is None or v.shape == tuple(shape))
            and v.slack == 0
            and (v.array.dtype.kind == "b" or inside(v.array))
        ]
        if found and self.chance(0.85):
            odds = np.array([4.0 if v.uses == 0 else 1.0 for v in found])
            return found[int(self.rng.choice(len(found), p=odds / odds.sum()))]
        dtype = self.choose(dtypes)
        for _ in range(20):
            made = (
                shape
                if shape is not None
                else self.dims(self.between(max(low, 1) if self.chance(0.9) else low, high))
            )
            array = self.draw(dtype, tuple(made), domain)
            probe = Value("", [array] * COPIES)
            if where is None or where(probe):
                return self.input(array)
        raise Refused("no value fits")

    def partner(self, first: Value, domain: str = "any", dtype: str | None = None) -> Value:
        """Something that broadcasts with `first`."""
        dtype = dtype or first.dtype
        inside = DOMAINS[domain][0]

        def fits(v: Value) -> bool:
            try:
                size = int(np.prod(np.broadcast_shapes(v.shape, first.shape)))
            except ValueError:
                return False
            return (
                v.dtype == dtype
                and v.slack == 0
                and size <= MAX_SIZE
                and (v.array.dtype.kind == "b" or inside(v.array))
            )

        found = [v for v in self.state.values if fits(v) and v is not first]
        if found and self.chance(0.5):
            return self.choose(found)
        shape = list(first.shape)
        style = self.rng.random()
        if style < 0.3:
            shape = shape[self.between(0, len(shape)) :]
        elif style < 0.55:
            shape = [1 if self.chance(0.5) else d for d in shape]
        elif style < 0.65 and first.array.size < 300:
            shape = [self.between(1, 3)] + shape
        return self.weight(self.draw(dtype, tuple(shape), domain))

    # nodes

    def node(
        self, op: str, inputs: list, outputs: int = 1, domain: str = "", skip=(), **attrs
    ) -> list[str]:
        """Adds a node; inputs are Values, names of this fragment, or None. Returns the output
        names."""
        names = []
        for value in inputs:
            if isinstance(value, Value):
                self.read[value.name] = value
                value.uses += 1
                names.append(value.name)
            else:
                names.append(value or "")
        while names and names[-1] == "":
            names.pop()
        made = ["" if j in skip else self.state.fresh("t") for j in range(outputs)]
        attrs = {k: v for k, v in attrs.items() if v is not None}
        self.nodes.append(helper.make_node(op, names, made, domain=domain, **attrs))
        return [m for m in made if m]

    def capture(self, value: Value) -> str:
        """Lets a body of this fragment read an outer value."""
        self.read[value.name] = value
        value.uses += 1
        return value.name

    def finish(
        self,
        outputs: list[str],
        ulps: float = 0.0,
        ring: bool = False,
        sums: bool = False,
        slack: float = 0.0,
        nan_ok: bool = False,
    ) -> bool:
        """Runs the fragment on all copies; commits it if it is valid and well conditioned.

        ulps   rounding of the fragment's float outputs; 0: moves or selects values, bits stay
        ring   exact when its inputs are exact and its result is a short dyadic number
        sums   rounds relative to what it sums, not to its result (cancellation)
        """
        constant = {t.name for t in self.weights} | {
            n.output[0] for n in self.nodes if n.op_type == "Constant"
        }
        fed = [v for v in self.read.values() if v.name not in constant]
        model = make_model(
            self.nodes,
            [tensor_info(v.name, v.array) for v in fed],
            [onnx.ValueInfoProto(name=n) for n in outputs],
            self.weights,
            self.opset,
        )
        try:
            session = common.ort_session(model.SerializeToString())
            results = [
                session.run(outputs, {v.name: v.runs[k] for v in fed}) for k in range(COPIES)
            ]
        except Exception as error:
            raise Refused(str(error)) from None
        made = []
        floats = [v for v in self.read.values() if v.array.dtype.kind == "f"]
        exact_in = all(v.exact for v in floats)
        largest_in = max((float(np.abs(v.array).max(initial=0)) for v in floats), default=0.0)
        for j, name in enumerate(outputs):
            copies = [np.asarray(r[j]) for r in results]
            made.append(
                self.judge(
                    name,
                    copies,
                    ulps,
                    ring and exact_in,
                    largest_in if sums else 0.0,
                    slack,
                    nan_ok,
                )
            )
            made[-1].touched |= any(v.touched for v in self.read.values())
        self.state.nodes += self.nodes
        self.state.weights += self.weights
        self.state.inputs += self.new_inputs
        self.state.values += self.new_inputs + made
        return True

    def judge(self, name, copies, ulps, ring, floor, slack, nan_ok) -> Value:
        first = copies[0]
        if first.size == 0 or first.size > MAX_SIZE:
            raise Refused("size")
        if any(c.shape != first.shape for c in copies):
            raise Refused("shape depends on rounding")
        if first.dtype.kind == "f":
            if not nan_ok and not all(np.isfinite(c).all() for c in copies):
                raise Refused("not finite")
            if np.abs(first, where=np.isfinite(first), out=np.zeros_like(first)).max() > MAX_ABS:
                raise Refused("large")
        if first.dtype.kind != "f" or nan_ok:
            if (
                any(not np.array_equal(c, first, equal_nan=first.dtype.kind == "f") for c in copies)
                and slack == 0
            ):
                raise Refused("depends on rounding")
            return Value(name, copies, slack=slack)
        scaled = first.astype(np.float64) * 1024
        short = ring and np.array_equal(scaled, np.rint(scaled)) and np.abs(first).max() < 4096
        if ulps and not short:
            big = float(np.abs(first).max())
            size = np.maximum(np.abs(first), 0.05 * big + floor) * (ulps * EPS[first.dtype.name])
            noise = size * np.where(self.rng.random(first.shape) < 0.5, -1, 1)
            copies = [
                first,
                (copies[1] + noise).astype(first.dtype),
                (copies[2] - noise).astype(first.dtype),
            ]
        value = Value(name, copies, touched=bool(ulps), slack=slack)
        drift = max(float(np.abs(c.astype(np.float64) - first).max()) for c in copies[1:])
        allowed = (
            MAX_DRIFT
            * (8 if first.dtype == np.float16 else 1)
            * max(float(np.abs(first).max()), 1e-3)
        )
        if drift > allowed:
            raise Refused("ill-conditioned")
        return value


class Refused(Exception):
    """ONNX Runtime, or our own bounds, do not take this fragment."""
