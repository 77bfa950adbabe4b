#!/usr/bin/env python3
"""Writes the ONNX backend tests in the form that the C runner reads.

The test cases come from onnx's own generator (onnx.backend.test.case), so they follow the pinned
version of that package and not the data of some older release. Beside the node tests (their
function expansions included) it writes the `simple` models, which the same generator makes, and
the `pytorch-operator` and `pytorch-converted` models, which exist only as files inside the
package. `--real` adds the nine weightless classification networks of the package.

    generate.py OUT              (about 15 s; nothing to do when OUT is up to date)
    generate.py OUT --force

Layout under OUT:

    NAME/model.onnx
    NAME/test_data_set_K/input_J.pb, output_J.pb    TensorProto, SequenceProto or OptionalProto, as
                                                    the graph says; J counts the graph's outputs, or
                                                    its inputs that are no initializers
    manifest.tsv                                    one line a test, sorted by name; the first line
                                                    names the columns
    stamp.json                                      the versions that made it

manifest.tsv columns: name, ops (domain:Op, comma-separated, bodies included), opset (of ai.onnx,
0 if none), excluded (a reason or `-`), flag (`random`: only shapes and types are comparable; or
`-`), kind, rtol, atol.

Only these are excluded, each because the model *contains* it: strings, SequenceMap, ai.onnx.ml,
training (ai.onnx.preview.training), losses (SoftmaxCrossEntropyLoss, NegativeLogLikelihoodLoss),
ImageDecoder. An expansion that no longer contains the excluded operator is a test like any other.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, TypeProto, numpy_helper

RANDOM_OPS = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
LOSS_OPS = {"SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"}
STRING_OPS = {"StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch"}
FILE_KINDS = ("pytorch-operator", "pytorch-converted")
COLUMNS = ("name", "ops", "opset", "excluded", "flag", "kind", "rtol", "atol")


def versions() -> dict[str, str]:
    """What the output depends on; equal stamps mean equal output."""
    import ml_dtypes

    return {
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "ml_dtypes": ml_dtypes.__version__,
        "generator": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }


def graphs_of(model: ModelProto):
    """Yields the main graph, each If/Loop/Scan body, and each local function."""
    stack: list = [model.graph, *model.functions]
    while stack:
        graph = stack.pop()
        yield graph
        for node in graph.node:
            for attr in node.attribute:
                if attr.type == AttributeProto.GRAPH:
                    stack.append(attr.g)
                stack.extend(attr.graphs)


def type_has_string(t: TypeProto) -> bool:
    """Whether a value of this type can hold strings."""
    while not t.HasField("tensor_type"):
        if t.HasField("sequence_type"):
            t = t.sequence_type.elem_type
        elif t.HasField("optional_type"):
            t = t.optional_type.elem_type
        else:
            return False
    return t.tensor_type.elem_type == TensorProto.STRING


def uses_strings(model: ModelProto) -> bool:
    for graph in graphs_of(model):
        infos = [*graph.value_info]
        if isinstance(graph, GraphProto):
            infos += [*graph.input, *graph.output]
            if any(t.data_type == TensorProto.STRING for t in graph.initializer):
                return True
        if any(type_has_string(v.type) for v in infos):
            return True
        for node in graph.node:
            if node.op_type in STRING_OPS:
                return True
            for attr in node.attribute:
                if attr.type == AttributeProto.TENSOR and attr.t.data_type == TensorProto.STRING:
                    return True
                if node.op_type == "Constant" and attr.name in ("value_string", "value_strings"):
                    return True
                if node.op_type == "Cast" and attr.name == "to" and attr.i == TensorProto.STRING:
                    return True
    return False


def excluded_reason(model: ModelProto, ops: set[tuple[str, str]]) -> str:
    names = {op for _, op in ops}
    domains = {domain for domain, _ in ops}
    if "ai.onnx.ml" in domains:
        return "ai.onnx.ml"
    if "ai.onnx.preview.training" in domains:
        return "training"
    if names & LOSS_OPS:
        return "loss"
    if "ImageDecoder" in names:
        return "ImageDecoder"
    if "SequenceMap" in names:
        return "SequenceMap"
    return "strings" if uses_strings(model) else "-"


def is_random(case, model: ModelProto, ops: set[tuple[str, str]]) -> bool:
    """Random operators, and Dropout that really drops: training mode on and a ratio other than
    0."""
    if {op for _, op in ops} & RANDOM_OPS:
        return True
    for node in model.graph.node:
        if node.op_type != "Dropout" or len(node.input) < 3:
            continue
        named = {v.name: v for v in model.graph.input}
        values = {}
        for inputs, _ in case.data_sets or []:
            values = dict(zip(named, inputs))
        ratio = values.get(node.input[1])
        training = values.get(node.input[2])
        if training is None or not np.all(training):
            continue
        if ratio is None or np.any(np.asarray(ratio) != 0):
            return True
    return False


def to_proto(value, info: onnx.ValueInfoProto):
    if info.type.HasField("sequence_type"):
        return numpy_helper.from_list(value, info.name)
    if info.type.HasField("optional_type"):
        return numpy_helper.from_optional(value, info.name)
    if info.type.HasField("map_type"):
        return numpy_helper.from_dict(value, info.name)
    if isinstance(value, TensorProto):
        named = TensorProto()
        named.CopyFrom(value)
        named.name = info.name
        return named
    return numpy_helper.from_array(np.asarray(value), info.name)


def write_case(case, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
    weights = {t.name for t in case.model.graph.initializer}
    fed = [v for v in case.model.graph.input if v.name not in weights]
    for k, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / f"test_data_set_{k}"
        data.mkdir()
        for word, values, infos in (
            ("input", inputs, fed),
            ("output", outputs, case.model.graph.output),
        ):
            if len(values) != len(infos):
                raise SystemExit(
                    f"{case.name}: {len(values)} {word}s for {len(infos)} in the graph"
                )
            for j, (value, info) in enumerate(zip(values, infos)):
                proto = to_proto(value, info)
                (data / f"{word}_{j}.pb").write_bytes(proto.SerializeToString(deterministic=True))


def write_light(case, folder: Path, package: Path) -> None:
    """A weightless network: the input that onnx's runner would make, the output that the package
    holds."""
    from onnx.backend.test.runner import Runner

    source = package / "light" / Path(case.url).name
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    shutil.copy(source, folder / "model.onnx")
    case.model = onnx.load(source)
    weights = {t.name for t in case.model.graph.initializer}
    inputs = [v for v in case.model.graph.input if v.name not in weights]
    for j, info in enumerate(inputs):
        array = Runner.generate_dummy_data(info, seed=0, name=case.name)
        (data / f"input_{j}.pb").write_bytes(
            numpy_helper.from_array(array, info.name).SerializeToString()
        )
    shutil.copy(source.with_name(source.stem + "_output_0.pb"), data / "output_0.pb")


def manifest_row(case, model: ModelProto) -> tuple[str, ...]:
    ops = {(node.domain or "ai.onnx", node.op_type) for g in graphs_of(model) for node in g.node}
    local = {(f.domain or "ai.onnx", f.name) for f in model.functions}
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    listed = sorted(op if domain == "ai.onnx" else f"{domain}:{op}" for domain, op in ops - local)
    return (
        case.name,
        ",".join(listed) or "-",
        str(opset),
        excluded_reason(model, ops),
        "random" if is_random(case, model, ops) else "-",
        case.kind,
        f"{case.rtol:g}",
        f"{case.atol:g}",
    )


def generate(out: Path, real: bool) -> list[tuple[str, ...]]:
    import onnx.backend.test.case.model as model_cases
    import onnx.backend.test.case.node as node_cases
    from onnx.backend.test.loader import DATA_DIR, load_model_tests

    package = Path(DATA_DIR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        cases = list(node_cases.collect_testcases())
        cases += model_cases.collect_testcases()
    for kind in FILE_KINDS:
        cases += load_model_tests(kind=kind)
    rows, seen = [], set()
    for case in cases:
        if case.kind == "real" and not real:
            continue
        if case.name in seen:
            continue
        seen.add(case.name)
        folder = out / case.name
        if case.kind == "real":
            write_light(case, folder, package)
        elif case.model is not None:
            write_case(case, folder)
        else:
            shutil.copytree(case.model_dir, folder, ignore=shutil.ignore_patterns("data.json"))
        model = case.model if case.model is not None else onnx.load(folder / "model.onnx")
        rows.append(manifest_row(case, model))
    return sorted(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write; its old content goes")
    parser.add_argument(
        "--force", action="store_true", help="write even if the stamp says up to date"
    )
    parser.add_argument("--real", action="store_true", help="add the nine weightless networks")
    args = parser.parse_args()
    stamp = {**versions(), "real": str(args.real)}
    stamp_path = args.out / "stamp.json"
    if not args.force and stamp_path.is_file() and json.loads(stamp_path.read_text()) == stamp:
        print(f"{args.out}: up to date")
        return 0
    if args.out.exists():
        if (
            any(args.out.iterdir())
            and not (args.out / "manifest.tsv").exists()
            and not stamp_path.exists()
        ):
            print(f"{args.out}: not empty and not made by this script", file=sys.stderr)
            return 2
        shutil.rmtree(args.out)
    args.out.mkdir(parents=True)
    # The manifest comes first, so that a folder left by an interrupted run is known as ours.
    (args.out / "manifest.tsv").write_text("\t".join(COLUMNS) + "\n")
    rows = generate(args.out, args.real)
    (args.out / "manifest.tsv").write_text("".join("\t".join(r) + "\n" for r in [COLUMNS, *rows]))
    stamp_path.write_text(json.dumps(stamp, indent=1) + "\n")
    counted = sum(r[3] == "-" for r in rows)
    print(
        f"{args.out}: {len(rows)} tests, {counted} to run "
        f"({sum(r[4] == 'random' for r in rows)} random), {len(rows) - counted} excluded"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
