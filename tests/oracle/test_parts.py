"""Random graphs of splits, slices, joins, views and in-place arithmetic, against ONNX Runtime: where
bytes need not move they become parts of one another, and nothing may be overwritten by that. All
arithmetic is exact, so outputs must be equal to the bit; with `alias_parts` off as well."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import common

GRAPHS = 120
MAX_NODES = 26


class Graph:
    """Nodes over float values of known shape, one after the other."""

    def __init__(self, rng, prefix: str, inputs: dict[str, tuple], constants: list):
        self.rng, self.prefix, self.constants = rng, prefix, constants
        self.nodes, self.shapes = [], dict(inputs)
        self.fresh = 0

    def name(self) -> str:
        self.fresh += 1
        return f"{self.prefix}{self.fresh}"

    def constant(self, array: np.ndarray) -> str:
        name = self.name()
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def ints(self, *v: int) -> str:
        return self.constant(np.array(v, np.int64))

    def add(self, op: str, ins: list, shapes: list[tuple], **attributes) -> list[str]:
        outs = [self.name() for _ in shapes]
        self.nodes.append(helper.make_node(op, ins, outs, **attributes))
        self.shapes.update(zip(outs, shapes))
        return outs

    def pick(self, want=lambda shape: True) -> str | None:
        """A value, late ones more likely."""
        names = [n for n, s in self.shapes.items() if want(s)]
        if not names:
            return None
        return names[-1 - min(int(self.rng.exponential(4)), len(names) - 1)]

    def step(self) -> None:
        getattr(self, self.rng.choice(list(STEPS), p=list(STEPS.values())))()

    def axis(self, shape: tuple) -> int:
        """The first axis that is not one, more often than not."""
        first = next((d for d, n in enumerate(shape) if n > 1), 0)
        return first if self.rng.random() < 0.7 else int(self.rng.integers(len(shape)))

    def split(self) -> None:
        x = self.pick()
        shape = self.shapes[x]
        axis = self.axis(shape)
        n = shape[axis]
        at = sorted(self.rng.choice(n + 1, min(2, n), replace=False)) if n > 1 else []
        sizes = [int(b - a) for a, b in zip([0, *at], [*at, n])]
        outs = [(*shape[:axis], k, *shape[axis + 1 :]) for k in sizes]
        self.add("Split", [x, self.ints(*sizes)], outs, axis=axis)

    def slice(self) -> None:
        x = self.pick(lambda s: min(s) > 0)
        shape = self.shapes[x]
        axis = self.axis(shape)
        first = int(self.rng.integers(shape[axis]))
        end = int(self.rng.integers(first + 1, shape[axis] + 1))
        step = 2 if self.rng.random() < 0.15 else 1
        out = (*shape[:axis], -(-(end - first) // step), *shape[axis + 1 :])
        ins = [x, self.ints(first), self.ints(end), self.ints(axis), self.ints(step)]
        self.add("Slice", ins, [out])

    def concat(self) -> None:
        x = self.pick()
        shape = self.shapes[x]
        axis = self.axis(shape)
        ins = [x]
        for _ in range(int(self.rng.integers(1, 4))):
            fits = self.pick(
                lambda s: len(s) == len(shape)
                and all(a == b or d == axis for d, (a, b) in enumerate(zip(s, shape)))
            )
            ins.append(fits)
        total = sum(self.shapes[v][axis] for v in ins)
        if total <= 64:
            self.add("Concat", ins, [(*shape[:axis], total, *shape[axis + 1 :])], axis=axis)

    def view(self) -> None:
        x = self.pick(lambda s: min(s) > 0)
        shape = self.shapes[x]
        flat = [n for n in shape if n != 1] or [1]
        at = int(self.rng.integers(len(flat) + 1))
        out = (*flat[:at], 1, *flat[at:])
        self.add("Reshape", [x, self.ints(*out)], [out])

    def transpose(self) -> None:
        x = self.pick()
        perm = [int(d) for d in self.rng.permutation(len(self.shapes[x]))]
        self.add("Transpose", [x], [tuple(self.shapes[x][d] for d in perm)], perm=perm)

    def unary(self) -> None:
        x = self.pick()
        self.add(self.rng.choice(["Neg", "Relu", "Abs", "Floor"]), [x], [self.shapes[x]])

    def binary(self) -> None:
        x = self.pick()
        shape = self.shapes[x]
        y = self.pick(lambda s: s == shape)
        self.add(self.rng.choice(["Max", "Min", "Sub"]), [x, y], [shape])


STEPS = {
    "split": 0.2,
    "slice": 0.13,
    "concat": 0.22,
    "view": 0.1,
    "transpose": 0.05,
    "unary": 0.18,
    "binary": 0.12,
}


def info(name: str, shape: tuple):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def outputs_of(g: Graph, n: int) -> list[str]:
    made = [o for node in g.nodes for o in node.output]
    return [str(v) for v in g.rng.permutation(made)[:n]]


def add_loop(g: Graph, x: str) -> None:
    """Three times a body of the same steps, which carries x and collects another value."""
    shape = g.shapes[x]
    p = g.name()
    body = Graph(g.rng, f"{p}_", {f"{p}_x": shape}, g.constants)
    while len(body.nodes) < 8:
        body.step()
    same = [n for n, s in body.shapes.items() if s == shape]
    carried = body.add("Neg", [same[-1]], [shape])[0]
    seen = outputs_of(body, 1)[0]
    graph = helper.make_graph(
        [*body.nodes, helper.make_node("Identity", [f"{p}_c"], [f"{p}_d"])],
        p,
        [
            helper.make_tensor_value_info(f"{p}_k", TensorProto.INT64, []),
            helper.make_tensor_value_info(f"{p}_c", TensorProto.BOOL, []),
            info(f"{p}_x", shape),
        ],
        [
            helper.make_tensor_value_info(f"{p}_d", TensorProto.BOOL, []),
            info(carried, shape),
            info(seen, body.shapes[seen]),
        ],
    )
    trips = g.constant(np.array(3, np.int64))
    g.add("Loop", [trips, "", x], [shape, (3, *body.shapes[seen])], body=graph)


def make(seed: int) -> tuple[onnx.ModelProto, dict]:
    rng = np.random.Generator(np.random.PCG64(seed))
    inputs = {"a": (1, 6, 4), "b": (6, 4), "c": (1, 1, 5, 4)}
    constants = []
    g = Graph(rng, "v", inputs, constants)
    while len(g.nodes) < MAX_NODES:
        g.step()
        if len(g.nodes) == MAX_NODES // 2 and rng.random() < 0.3:
            add_loop(g, g.pick(lambda s: 0 < np.prod(s) <= 64))
    names = outputs_of(g, 5)
    graph = helper.make_graph(
        g.nodes,
        "parts",
        [info(n, s) for n, s in inputs.items()],
        [info(n, g.shapes[n]) for n in names],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    feeds = {n: rng.integers(-64, 65, s).astype(np.float32) / 4 for n, s in inputs.items()}
    return model, feeds


def same(got: dict, want: dict) -> bool:
    return all(np.array_equal(got[k], v) and got[k].shape == v.shape for k, v in want.items())


def every_value(model: onnx.ModelProto, feeds: dict) -> dict:
    """The values of the graph by name, inner ones too."""
    names = [o for node in model.graph.node for o in node.output]
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    del open_model.graph.output[:]
    open_model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    session = common.ort_session(open_model.SerializeToString())
    return dict(zip(names, session.run(names, feeds)))


def simple() -> onnx.ModelProto:
    """Rows taken apart, worked on and joined: nothing needs to move."""
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Exp", ["a"], ["c"]),
        helper.make_node("Tanh", ["b"], ["d"]),
        helper.make_node("Concat", ["d", "c"], ["e"], axis=1),
        helper.make_node("Sqrt", ["e"], ["y"]),
    ]
    shape = (1, 6, 4)
    graph = helper.make_graph(nodes, "simple", [info("x", shape)], [info("y", shape)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def copies(kiln: common.Kiln, model: Path, *extra: str) -> int:
    """Steps of the kernel `move` that a run has."""
    short = ("--profile", "--format", "json", "--duration=0.02", "--warmUp=0")
    report = json.loads(kiln.call("bench", str(model), *short, *extra).stdout)
    return sum(layer["kernel"] == "move" for layer in report["results"][0]["layers"])


def check_copies(tally: common.Tally, kiln: common.Kiln, folder: str) -> None:
    file = Path(folder, "simple.onnx")
    onnx.save(simple(), file)
    models = {"simple": file}
    shared = common.shared_dir() / "models" / "byte_bilstm" / "model.onnx"
    if shared.exists():
        models["byte_bilstm"] = shared
    for name, model in models.items():
        n, before = copies(kiln, model), copies(kiln, model, "--off", "alias_parts")
        tally.check(f"{name}, copies", n == 0 and before > 0, f"{n}, {before} without parts")


def main() -> int:
    tally, kiln = common.Tally("parts"), common.Kiln()
    with tempfile.TemporaryDirectory(prefix="kiln-parts-") as folder:
        check_copies(tally, kiln, folder)
        for seed in range(GRAPHS):
            model, feeds = make(seed)
            file = Path(folder, "graph.onnx")
            onnx.save(model, file)
            names = [v.name for v in model.graph.output]
            values = every_value(model, feeds)
            want = {n: values[n] for n in names}
            for label, threads, extra in (
                ("aliased", 1 + seed % 2, ()),
                ("moved", 1, ("--off", "alias_parts")),
                ("views made", 2, ("--off", "view")),
                ("looked at", 1, ("--mark", "all")),
            ):
                try:
                    got = kiln.run(file, feeds, threads, extra)
                    seen = {k: v for k, v in values.items() if k in want or k in got}
                    ok, text = same(got, seen), "differs"
                except common.KilnError as error:
                    ok, text = False, str(error)
                tally.check(f"seed {seed}, {label}", ok, "equal" if ok else text)
            spoiled = {k: v + 1 for k, v in want.items()}
            wrong = not any(v.size for v in want.values()) or not same(spoiled, want)
            tally.check(f"seed {seed}, spoiled", wrong, "an error is noticed")
    return tally.verdict()


if __name__ == "__main__":
    sys.exit(main())
