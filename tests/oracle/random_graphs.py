#!/usr/bin/env python3
"""Random graphs: kiln against ONNX Runtime.

    random_graphs.py --count 200 --seed 1          200 graphs; exit 1 if any differs
    random_graphs.py --seed 1 --only 37            that graph again (every failure prints this line)
    random_graphs.py --count 300 --plant all       planted bugs; exit 1 unless every kind is noticed

A graph is a function of (seed, index) and the pinned packages alone. It has 3 to 12 fragments;
each index has an operator that it must try first, so that `--count` over the number of labels
covers them all. Truth is ONNX Runtime without graph optimizations; tolerances are measured while
the graph grows (rg_core.py). Failures are kept under --keep as model.onnx, inputs.npz,
expected.npz. `--engine ort` puts ONNX Runtime with all its optimizations in kiln's place: it
shows that the tolerances let honest reordering pass.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import common
import rg_flow  # noqa: F401
import rg_nn  # noqa: F401  (registers its builders)
import rg_quant  # noqa: F401
import rg_shape  # noqa: F401
from rg_core import Refused, State, Trial, Value, make_model, tensor_info
from rg_ops import BUILDERS
from rg_plant import PLANTS

OPSETS = (13, 14, 15, 16, 17, 17, 18, 18, 19, 20, 21, 22, 23, 23)
LABELS = sorted(BUILDERS)


@dataclass
class Case:
    seed: int
    index: int
    model: onnx.ModelProto
    feeds: dict[str, np.ndarray]
    outputs: list[Value]
    wants: dict[str, np.ndarray]
    inner: list[Value]
    operators: collections.Counter
    builders: list[str]


def attempt(state: State, label: str, tries: int) -> bool:
    for _ in range(tries):
        try:
            BUILDERS[label][1](Trial(state))
            return True
        except Refused:
            continue
    return False


def operators_of(graph) -> collections.Counter:
    found: collections.Counter = collections.Counter()
    for node in graph.node:
        found[f"{node.domain}.{node.op_type}" if node.domain else node.op_type] += 1
        for attr in node.attribute:
            if attr.type == onnx.AttributeProto.GRAPH:
                found += operators_of(attr.g)
    return found


def symbolic(state: State) -> list:
    """Input declarations in which every dimension is a symbol of its own."""
    return [
        tensor_info(v.name, v.array, [f"{v.name}_{j}" for j in range(v.array.ndim)])
        for v in state.inputs
    ]


def generate(seed: int, index: int) -> Case | None:
    """The graph of (seed, index), or None where nothing could be built."""
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    first = LABELS[index % len(LABELS)]
    lowest = BUILDERS[first][0]
    opset = int(rng.choice([o for o in OPSETS if o >= lowest]))
    state = State(rng, opset)
    usable = [label for label in LABELS if BUILDERS[label][0] <= opset]
    wanted = int(rng.integers(3, 13))
    before = int(rng.integers(0, min(4, wanted)))
    # What few opsets have is drawn more often where it can be.
    odds = np.array([1 / sum(o >= BUILDERS[label][0] for o in OPSETS) for label in usable])
    made: list[str] = []
    for step in range(3 * wanted):
        if len(made) >= wanted:
            break
        # The operator of this index has its turn between others, so that it also meets computed
        # values.
        label, tries = (
            (first, 10) if step == before else (str(rng.choice(usable, p=odds / odds.sum())), 2)
        )
        if attempt(state, label, tries):
            made.append(label)
    if not state.nodes:
        return None
    fed = {v.name for v in state.inputs}
    computed = [v for v in state.values if v.name not in fed]
    read = {name for node in state.nodes for name in node.input}
    outputs = [v for v in computed if v.name not in read or rng.random() < 0.15]
    infos = [tensor_info(v.name, v.array) for v in outputs]
    inputs = [tensor_info(v.name, v.array) for v in state.inputs]
    feeds = {v.name: v.array for v in state.inputs}
    model = make_model(state.nodes, inputs, infos, state.weights, opset)
    names = [v.name for v in outputs]
    try:
        wants = dict(zip(names, common.ort_session(model.SerializeToString()).run(names, feeds)))
    except Exception:  # the parts run, the whole does not: not our question
        return None
    if rng.random() < 0.3:
        for info in infos:
            info.type.tensor_type.ClearField("shape")
        free = make_model(state.nodes, symbolic(state), infos, state.weights, opset)
        try:
            common.ort_session(free.SerializeToString()).run(names, feeds)
            model = free
        except Exception:
            pass  # a size that must be known: the declared one stays
    return Case(
        seed, index, model, feeds, outputs, wants, computed, operators_of(model.graph), made
    )


def judge(case: Case, got: dict[str, np.ndarray], values: list[Value], wants: dict) -> str | None:
    """Why `got` is not the expected result, or None."""
    for value in values:
        if value.name not in got:
            return f"{value.name}: missing"
        mine, want = got[value.name], np.asarray(wants[value.name])
        problem = common.mismatch(mine, want)
        if problem:
            return f"{value.name}: {problem}"
        diff, allowed = common.max_abs_diff(mine, want), value.tolerance()
        if not diff <= allowed:
            return f"{value.name}: max |diff| {diff:.4g}, tolerance {allowed:.4g}"
    return None


class OrtEngine:
    """ONNX Runtime with all optimizations, behind the same call as kiln."""

    def run(self, model: Path, feeds: dict, threads: int | None = None, extra: tuple = ()) -> dict:
        try:
            session = common.ort_session(model, "all")
            names = [o.name for o in session.get_outputs()]
            return dict(zip(names, session.run(names, feeds)))
        except Exception as error:
            raise common.KilnError(1, " ".join(str(error).split())[:200]) from None


def run_case(engine, case: Case, model: onnx.ModelProto, folder: Path) -> str | None:
    file = folder / "current.onnx"
    file.write_bytes(model.SerializeToString())
    try:
        return judge(case, engine.run(file, case.feeds), case.outputs, case.wants)
    except common.KilnError as error:
        return str(error)


def first_divergence(engine, case: Case, folder: Path) -> str:
    """With every inner value an output: the first operator whose result is off."""
    infos = [tensor_info(v.name, v.array) for v in case.inner]
    for info in infos:
        info.type.tensor_type.ClearField("shape")
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    del model.graph.output[:]
    model.graph.output.extend(infos)
    file = folder / "current.onnx"
    file.write_bytes(model.SerializeToString())
    try:
        got = engine.run(file, case.feeds)
    except common.KilnError:
        return "cannot run with all values marked"
    makers = {name: node for node in case.model.graph.node for name in node.output}
    for value in case.inner:
        problem = judge(case, got, [value], {value.name: value.array})
        if problem:
            return f"first off: {makers[value.name].op_type} -> {problem}"
    return "all inner values agree when marked as outputs"


def keep(case: Case, folder: Path, why: str) -> Path:
    where = folder / f"fail-{case.seed}-{case.index}"
    where.mkdir(parents=True, exist_ok=True)
    onnx.save(case.model, where / "model.onnx")
    np.savez(where / "inputs.npz", **case.feeds)
    np.savez(where / "expected.npz", **case.wants)
    (where / "why.txt").write_text(why + "\n")
    return where


def coverage(operators: collections.Counter, builders: collections.Counter, args) -> bool:
    """Reports what ran how often; False if a builder succeeded fewer than --min-each times."""
    least = max(args.min_each, 20)
    rare = sorted((builders[label], label) for label in LABELS if builders[label] < least)
    print(f"{len(operators)} operators from {len(LABELS)} builders")
    if args.min_each or not args.quiet:
        words = ", ".join(f"{label} {n}" for n, label in rare) or "none"
        print(f"fewer than {least} times: {words}")
    if not args.quiet:
        print("  " + ", ".join(f"{op} {n}" for op, n in sorted(operators.items())))
    if args.coverage:
        record = {
            "schema": "kiln.oracle.coverage/1",
            "seed": args.seed,
            "operators": dict(sorted(operators.items())),
        }
        args.coverage.write_text(json.dumps(record, indent=1) + "\n")
    return all(n >= args.min_each for n, _ in rare)


def check_graphs(args, engine, scratch: Path) -> int:
    counts: collections.Counter = collections.Counter()
    builders: collections.Counter = collections.Counter()
    failed, ran, started = [], 0, time.monotonic()
    for index in (
        [args.only] if args.only is not None else range(args.first, args.first + args.count)
    ):
        case = generate(args.seed, index)
        if case is None:
            continue
        ran += 1
        counts += case.operators
        builders.update(case.builders)
        why = run_case(engine, case, case.model, scratch)
        if why:
            failed.append(index)
            more = first_divergence(engine, case, scratch)
            where = keep(case, args.keep, f"{why}\n{more}")
            print(
                f"FAIL seed {args.seed} graph {index}: {why}; {more}\n     {where}\n     again: "
                f"{Path(sys.argv[0]).name} --seed {args.seed} --only {index}",
                flush=True,
            )
            if len(failed) >= args.max_failures:
                print(f"stopped after {len(failed)} failures")
                break
    covered = coverage(counts, builders, args)
    print(
        f"random graphs: {ran - len(failed)} of {ran} agree "
        f"(seed {args.seed}, {sum(counts.values())} nodes, {time.monotonic() - started:.0f} s)"
        + (f"; failed: {failed}" if failed else "")
    )
    return 0 if ran and not failed and covered else 1


def check_plants(args, engine, scratch: Path) -> int:
    """Each plant must be noticed in at least one graph; prints noticed /
    planted-and-visible-to-ONNX-Runtime."""
    kinds = list(PLANTS) if args.plant == "all" else [args.plant]
    tally = {kind: [0, 0] for kind in kinds}
    for index in range(args.first, args.first + args.count):
        if all(seen >= 5 for seen, _ in tally.values()):
            break
        case = generate(args.seed, index)
        if case is None:
            continue
        for kind in kinds:
            if tally[kind][0] >= 5:
                continue
            spoiled = onnx.ModelProto()
            spoiled.CopyFrom(case.model)
            if not PLANTS[kind](spoiled, np.random.Generator(np.random.PCG64([args.seed, index]))):
                continue
            try:
                session = common.ort_session(spoiled.SerializeToString())
                names = list(case.wants)
                spoiled_out = session.run(names, case.feeds)
            except Exception:
                continue
            if all(np.array_equal(a, case.wants[n]) for a, n in zip(spoiled_out, names)):
                continue
            tally[kind][1] += 1
            tally[kind][0] += run_case(engine, case, spoiled, scratch) is not None
    for kind, (noticed, planted) in tally.items():
        print(
            f"{'ok  ' if noticed else 'FAIL'} {kind:20s} noticed in {noticed} of {planted} graphs"
        )
    missed = [kind for kind, (noticed, _) in tally.items() if not noticed]
    print(f"planted bugs: {len(kinds) - len(missed)} of {len(kinds)} kinds noticed")
    return 1 if missed else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--first", type=int, default=0, help="first index (to split a run into shards)"
    )
    parser.add_argument("--only", type=int, help="a single index")
    parser.add_argument("--engine", choices=("kiln", "ort"), default="kiln")
    parser.add_argument("--kiln", help="the command (default: $KILN_BIN or the release build)")
    parser.add_argument(
        "--keep", type=Path, default=common.default_cache() / "random", help="where failures go"
    )
    parser.add_argument("--plant", choices=("all", *PLANTS), help="plant bugs instead")
    parser.add_argument("--coverage", type=Path, help="write the operator counts as JSON")
    parser.add_argument(
        "--min-each", type=int, default=0, help="fail if an operator ran fewer times"
    )
    parser.add_argument("--max-failures", type=int, default=50)
    parser.add_argument("--quiet", action="store_true", help="no table of operators")
    args = parser.parse_args(argv)
    common.warn_pins()
    engine = OrtEngine() if args.engine == "ort" else common.Kiln([args.kiln] if args.kiln else [])
    check = check_plants if args.plant else check_graphs
    with tempfile.TemporaryDirectory(prefix="kiln-random-") as scratch:
        return check(args, engine, Path(scratch))


if __name__ == "__main__":
    sys.exit(main())
