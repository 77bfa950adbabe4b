#!/usr/bin/env python3
"""Accuracy of INT8: Kiln's defaults, Kiln's Q/DQ export in ONNX Runtime, and ONNX Runtime's static
quantizer with each of its calibrators, on the labelled networks of the shared folder.

    accuracy.py --kiln build/release/kiln            every network; resumes where it stopped
    accuracy.py resnet20 mnist_mlp --quick           2,000 images each, ONNX Runtime MinMax alone
    accuracy.py --report                             the page from the stored results alone

Each network is calibrated on 1,000 images and scored on others: the CIFAR-10 networks on training
and all 10,000 test images, the MNIST and Fashion-MNIST ones on test images 0-999 and the other
9,000. Nothing is chosen by test images but ONNX Runtime's calibrator, of which the best is taken.

How ONNX Runtime is judged: quantize_static, QDQ, u8 activations, s8 weights per channel. Its AVX2
kernels for u8 x s8 saturate 16-bit sums, which is the machine's fault and not the quantizer's, so
its models run with all graph optimizations off: Q/DQ around float operators.

Results of one network and method are a record under --out; a record is made again when the
network, --quick or the quantizing programs change. Intervals are 95 % of the paired difference
(McNemar's variance). Pictures are decoded with Pillow, which tests/requirements.txt does not list.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = "kiln.bench.accuracy/1"
PAGE = ROOT / "docs" / "accuracy.md"
CALIBRATION, QUICK = 1000, 2000
METHODS = ["MinMax", "Entropy", "Percentile", "Distribution"]
CHUNK = 100  # samples whose activations ONNX Runtime's calibrators hold at a time

# ---- Data ---------------------------------------------------------------------------------------


def idx(path: Path) -> np.ndarray:
    raw = gzip.open(path).read()
    dims = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(dims)


def folders(path: Path, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a ZIP of class folders as [n, 3, h, w] bytes, and their classes."""
    from PIL import Image

    pack = zipfile.ZipFile(path)
    names = sorted(n for n in pack.namelist() if n.endswith(".jpg"))[::every]
    classes = sorted({n.split("/")[1] for n in names})
    pictures = [np.asarray(Image.open(io.BytesIO(pack.read(n))).convert("RGB")) for n in names]
    labels = np.array([classes.index(n.split("/")[1]) for n in names], np.int64)
    return np.stack(pictures).transpose(0, 3, 1, 2), labels


def cifar(data: Path):
    calibration, _ = folders(data / "cifar10" / "train_jpeg_2000.zip", 2)
    test, labels = folders(data / "cifar10" / "test_jpeg_10000.zip", 1)
    return calibration, test, labels


def grey(folder: str):
    def load(data: Path):
        x = idx(data / folder / "t10k-images-idx3-ubyte.gz")
        y = idx(data / folder / "t10k-labels-idx1-ubyte.gz").astype(np.int64)
        return x[:CALIBRATION], x[CALIBRATION:], y[CALIBRATION:]

    return load


def normed(mean, std):
    """(x / 255 - mean) / std in float32, channels first."""

    def prepare(x: np.ndarray) -> np.ndarray:
        shape = (-1, 1, 1) if np.ndim(mean) else ()
        m, s = np.float32(mean).reshape(shape), np.float32(std).reshape(shape)
        return ((x.astype(np.float32) / np.float32(255) - m) / s).astype(np.float32)

    return prepare


IMAGENET = normed([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = normed([0.5] * 3, [0.5] * 3)
FASHION = normed(0.286, 0.353)


def plane(prepare):
    return lambda x: prepare(x)[:, None]


@dataclass
class Network:
    name: str
    file: str
    source: str  # of the data: networks with the same one share the images of --quick
    load: object
    prepare: object
    batch: int = 20  # samples a run; 1 where the file fixes it


NETWORKS = [
    Network("resnet18", "cifar10_nets/resnet18.onnx", "cifar10", cifar, IMAGENET),
    Network("resnet20", "cifar10_nets/resnet20.onnx", "cifar10", cifar, IMAGENET),
    Network("mobilenet_v2", "cifar10_nets/mobilenet_v2.onnx", "cifar10", cifar, IMAGENET),
    Network("cifar10_cnn", "cifar10_cnn/model.onnx", "cifar10", cifar, HALF),
    Network("fashion_resnet8", "fashion_resnet8/model_fp32.onnx", "fashion_mnist",
            grey("fashion_mnist"), plane(FASHION)),
    Network("fashion_vit", "fashion_vit/model_op17_dynamic.onnx", "fashion_mnist",
            grey("fashion_mnist"), plane(FASHION)),
    Network("fashion_loop_rnn", "fashion_loop_rnn/model.onnx", "fashion_mnist",
            grey("fashion_mnist"), FASHION),
    Network("mnist_cnn", "mnist_cnn_cntk/model.onnx", "mnist", grey("mnist_t10k"),
            lambda x: x[:, None].astype(np.float32), 1),
    Network("mnist_mlp", "mnist_mlp_bn/model.onnx", "mnist", grey("mnist_t10k"),
            lambda x: x.reshape(len(x), -1).astype(np.float32) / np.float32(255), 1),
]  # fmt: skip


@dataclass
class Job:
    network: Network
    folder: Path  # of its arrays, models and records
    model: Path
    kiln: str
    quick: bool
    threads: int

    def path(self, name: str) -> Path:
        return self.folder / name


def make_arrays(job: Job, data: Path) -> None:
    if job.path("test.npz").exists():
        return
    calibration, test, labels = job.network.load(data)
    if job.quick:
        keep = np.random.default_rng(1).permutation(len(test))[:QUICK]
        test, labels = test[keep], labels[keep]
    prepare = job.network.prepare
    np.savez(job.path("calib.npz"), x=prepare(calibration[:CALIBRATION]))
    np.savez(job.path("test.part.npz"), x=prepare(test), y=labels)
    job.path("test.part.npz").rename(job.path("test.npz"))


# ---- Kiln ---------------------------------------------------------------------------------------


def kiln(job: Job, *words) -> str:
    done = subprocess.run([job.kiln, *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"kiln {words[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def predictions(path: Path) -> dict[str, np.ndarray]:
    rows = list(csv.reader(path.open()))
    table = np.array(rows[1:], np.int64)
    return {head: table[:, i] for i, head in enumerate(rows[0])}


def common(job: Job) -> list:
    return ["--batch", job.network.batch, "--threads", job.threads, "--format", "json", "-q",
            "--data", job.path("test.npz")]  # fmt: skip


def calibrated(job: Job) -> list:
    return ["--calib", job.path("calib.npz"), "--calib-batch", job.network.batch]


def run_kiln(job: Job) -> dict:
    """FP32 and INT8 with the default flags, in one pass."""
    table = job.path("kiln.csv")
    text = kiln(job, "eval", job.model, "--int8", *calibrated(job), *common(job),
                "--save-predictions", table)  # fmt: skip
    r, p = json.loads(text), predictions(table)
    np.save(job.path("kiln.npy"), p["predicted"])
    np.save(job.path("fp32.npy"), p["against"])
    return {
        "fp32_top1": r["against"]["top1"],
        "top1": r["top1"],
        "agreement": r["agreement"],
        "sqnr_db": r["sqnr_db"],
        "samples": r["samples"],
        "fp32_weight_bytes": r["against"]["weight_bytes"],
        "weight_bytes": r["weight_bytes"],
    }


def run_export(job: Job) -> dict:
    """The Q/DQ model for ONNX Runtime: in ONNX Runtime, and the same file in Kiln."""
    path = job.path("export.onnx")
    kiln(job, "quantize", job.model, *calibrated(job), "--for", "onnxruntime", "-o", path, "-q")
    table = job.path("export.csv")
    kiln(job, "eval", path, *common(job), "--save-predictions", table)
    ours = predictions(table)["predicted"]
    record = judge(job, path, "export")
    record["kiln_top1"] = float(np.mean(ours == labels_of(job)))
    record["kiln_agreement"] = float(np.mean(ours == np.load(job.path("export.npy"))))
    return record


# ---- ONNX Runtime -------------------------------------------------------------------------------


def labels_of(job: Job) -> np.ndarray:
    return np.load(job.path("test.npz"))["y"]


def scores(job: Job, model: Path) -> np.ndarray:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = job.threads
    options.log_severity_level = 4
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    x, batch = np.load(job.path("test.npz"))["x"], job.network.batch
    return np.concatenate(
        [session.run(None, {name: x[i : i + batch]})[0] for i in range(0, len(x), batch)]
    )


def float_scores(job: Job) -> np.ndarray:
    """Of the float network, by ONNX Runtime too: what its quantized models are compared with."""
    path = job.path("ort_fp32.npy")
    if not path.exists():
        np.save(path, scores(job, job.model))
    return np.load(path)


def judge(job: Job, model: Path, name: str) -> dict:
    want, got = float_scores(job).astype(np.float64), scores(job, model).astype(np.float64)
    predicted = got.argmax(1)
    np.save(job.path(f"{name}.npy"), predicted)
    noise = float(((got - want) ** 2).sum())
    return {
        "top1": float(np.mean(predicted == labels_of(job))),
        "agreement": float(np.mean(predicted == want.argmax(1))),
        "sqnr_db": 10 * math.log10(float((want**2).sum()) / noise) if noise > 0 else None,
        "samples": len(predicted),
    }


def modern(job: Job) -> Path:
    """The network with an operator set that has scales per channel, as the quantizer asks for."""
    import onnx
    from onnx import version_converter

    model = onnx.load(job.model)
    path = job.path("modern.onnx")
    if next(o.version for o in model.opset_import if o.domain == "") < 13:
        model = version_converter.convert_version(model, 13)
    constants = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    onnx.save(model, path)
    return path


def reader_of(job: Job, name: str):
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Calibration samples; ONNX Runtime asks for them in parts (set_range)."""

        def __init__(self):
            self.x = np.load(job.path("calib.npz"))["x"]
            self.at, self.end = 0, len(self.x)

        def __len__(self):
            return len(self.x)

        def set_range(self, start_index, end_index):
            self.at, self.end = start_index, min(end_index, len(self.x))

        def get_next(self):
            at, self.at = self.at, min(self.at + job.network.batch, self.end)
            return {name: self.x[at : self.at]} if at < self.end else None

    return Reader()


def quantize(job: Job, source: Path, method: str) -> dict:
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    out = job.path(f"ort_{method.lower()}.onnx")
    session = ort.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    quantize_static(
        str(source),
        str(out),
        reader_of(job, session.get_inputs()[0].name),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
        extra_options={"CalibStridedMinMax": CHUNK},
    )
    return judge(job, out, f"ort_{method.lower()}")


def run_quantizer(job: Job, method: str) -> dict:
    """As its documentation advises, after its own preparation of the model; where one of the two
    fails on the prepared model, on the model as it is."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, ready = modern(job), job.path("prepared.onnx")
    try:
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        return quantize(job, ready, method)
    except Exception:  # whatever its Python raises
        return quantize(job, source, method)


# ---- Records ------------------------------------------------------------------------------------


def stamp(job: Job, step: str) -> str:
    """What a record depends on; ONNX Runtime's do not depend on Kiln."""
    import onnxruntime

    h = hashlib.sha256(job.model.read_bytes())
    h.update(f"{SCHEMA} {step} {job.quick}".encode())
    h.update(onnxruntime.__version__.encode() if step in METHODS else Path(job.kiln).read_bytes())
    return h.hexdigest()[:16]


def step(job: Job, name: str, work) -> dict:
    path = job.path(f"{name.lower()}.json")
    key = stamp(job, name)
    if path.exists():
        record = json.loads(path.read_text())
        if record["stamp"] == key:
            return record
    print(f"{job.network.name}: {name}", file=sys.stderr, flush=True)
    try:
        record = work()
    except Exception as error:  # a rival that fails is a result
        if name not in METHODS:
            raise
        record = {"error": str(error).splitlines()[0][:200] if str(error) else repr(error)}
    record["stamp"] = key
    path.write_text(json.dumps(record, indent=1))
    return record


def measure(job: Job, data: Path) -> None:
    make_arrays(job, data)
    step(job, "Kiln", lambda: run_kiln(job))
    step(job, "Export", lambda: run_export(job))
    for method in METHODS[:1] if job.quick else METHODS:
        step(job, method, lambda: run_quantizer(job, method))


# ---- The page -----------------------------------------------------------------------------------


def paired(right: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Difference of two shares of right answers to the same questions, and its 95 % interval, in
    points."""
    gained = int(np.sum(right & ~other))
    lost = int(np.sum(~right & other))
    n, net = len(right), gained - lost
    return 100 * net / n, 100 * 1.959964 * math.sqrt(max(0, gained + lost - net * net / n)) / n


def best_of(rivals: dict, key: str) -> str | None:
    ranked = [m for m in rivals if rivals[m].get(key) is not None]
    return max(ranked, key=lambda m: rivals[m][key]) if ranked else None


DRAWS = 40  # of noise


def by_noise(job: Job, sqnr_db: float | None) -> tuple[float, float] | None:
    """What Gaussian noise of that SQNR, equal for all scores, does to top-1: mean and deviation of
    the change over draws, in points. Where the float network is right in most near-ties, any does
    harm."""
    path = job.path("ort_fp32.npy")
    if sqnr_db is None or not path.exists():
        return None
    scores, y, rng = np.load(path), labels_of(job), np.random.default_rng(0)
    deviation = math.sqrt(float((scores.astype(np.float64) ** 2).mean()) / 10 ** (sqnr_db / 10))
    right = np.mean(scores.argmax(1) == y)
    changes = [
        100 * (np.mean((scores + rng.normal(0, deviation, scores.shape)).argmax(1) == y) - right)
        for _ in range(DRAWS)
    ]
    return float(np.mean(changes)), float(np.std(changes))


def collect(job: Job) -> dict | None:
    def load(name):
        path = job.path(f"{name.lower()}.json")
        return json.loads(path.read_text()) if path.exists() else None

    own = load("Kiln")
    if not own:
        return None
    y = labels_of(job)
    right = {n: np.load(job.path(f"{n}.npy")) == y for n in ("fp32", "kiln")}
    rivals = {m: r for m in METHODS if (r := load(m))}
    row = {"network": job.network.name, "kiln": own, "export": load("Export"), "rivals": rivals}
    row["change"] = paired(right["kiln"], right["fp32"])
    row["noise"] = by_noise(job, own["sqnr_db"])
    best = best_of(rivals, "top1")
    if best:
        theirs = np.load(job.path(f"ort_{best.lower()}.npy")) == y
        row["best"], row["versus"] = best, paired(right["kiln"], theirs)
    return row


def pct(share) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def db(x) -> str:
    return "exact" if x is None else f"{x:.1f}"


def summary(rows: list[dict]) -> list[str]:
    lines = [
        "| network | images | FP32 top-1 % | INT8 top-1 % | change, points | agreement % | SQNR dB "
        "| export in ONNX Runtime, top-1 % | ONNX Runtime's best top-1 % | Kiln - that, points "
        "| its best agreement % | its best SQNR dB |",
        "|---|" + "--:|" * 11,
    ]
    for r in rows:
        k, x, rivals = r["kiln"], r["export"] or {}, r["rivals"]
        cells = [r["network"], f"{k['samples']:,}", pct(k["fp32_top1"]), pct(k["top1"]),
                 "{:+.2f} ± {:.2f}".format(*r["change"]), pct(k["agreement"]), db(k["sqnr_db"]),
                 pct(x.get("top1"))]  # fmt: skip
        if "best" in r:
            a, s = best_of(rivals, "agreement"), best_of(rivals, "sqnr_db")
            cells += [f"{pct(rivals[r['best']]['top1'])} {r['best']}",
                      "{:+.2f} ± {:.2f}".format(*r["versus"]), pct(rivals[a]["agreement"]),
                      db(rivals[s]["sqnr_db"])]  # fmt: skip
        else:
            cells += ["-"] * 4
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def details(rows: list[dict]) -> list[str]:
    lines = ["| network | " + " | ".join(METHODS) + " |", "|---|" + "---|" * len(METHODS)]
    for r in rows:
        cells = []
        for m in METHODS:
            v = r["rivals"].get(m)
            cells.append(
                "not run" if not v
                else v["error"] if "error" in v
                else f"{pct(v['top1'])}, {pct(v['agreement'])}, {db(v['sqnr_db'])}"
            )  # fmt: skip
        lines.append(f"| {r['network']} | " + " | ".join(cells) + " |")
    return lines


def verdicts(rows: list[dict]) -> list[str]:
    """The demands, and the networks that miss them."""
    def missed(test):
        return ", ".join(r["network"] for r in rows if test(r)) or "none"

    def rival(r, key):
        best = best_of(r["rivals"], key)
        return r["rivals"][best][key] if best else -math.inf

    return [
        f"- INT8 within 0.1 points of FP32; missed by: {missed(lambda r: r['change'][0] < -0.1)}.",
        *[
            f"  {r['network']}: noise without bias, of the same SQNR, changes it by "
            "{:+.2f} ± {:.2f} points (mean and deviation of ".format(*r["noise"]) + f"{DRAWS} draws)."
            for r in rows if r["change"][0] < -0.1 and r["noise"]
        ],
        "- Not below ONNX Runtime's best calibrator by more than the interval; missed by: "
        + missed(lambda r: "versus" in r and r["versus"][0] + r["versus"][1] < 0) + ".",
        "- Agreement with FP32 at least ONNX Runtime's best; missed by: "
        + missed(lambda r: r["kiln"]["agreement"] < rival(r, "agreement")) + ".",
        "- SQNR of the scores at least ONNX Runtime's best; missed by: "
        + missed(lambda r: (r["kiln"]["sqnr_db"] or math.inf) < rival(r, "sqnr_db")) + ".",
        "- The export gives the same top-1 in ONNX Runtime as in Kiln within 0.1 points; missed "
        "by: " + missed(lambda r: r["export"] and
                        abs(r["export"]["top1"] - r["export"]["kiln_top1"]) > 0.001) + ".",
    ]  # fmt: skip


def page(rows: list[dict], quick: bool) -> str:
    import onnxruntime

    how = f" `--quick`: {QUICK:,} images each, not for citing." if quick else ""
    return "\n".join([
        "# Accuracy of INT8",
        "",
        f"Written by `bench/accuracy.py`{how}; rivals from ONNX Runtime {onnxruntime.__version__}.",
        "",
        "Calibrated on 1,000 images with the default flags of `kiln build --int8`, scored on others:",
        "CIFAR-10 networks on training and all 10,000 test images, MNIST and Fashion-MNIST ones on",
        "test images 0-999 and the other 9,000. Agreement and SQNR are of the scores against FP32.",
        "± is the 95 % interval of the paired difference. ONNX Runtime's quantizer (`quantize_static`,",
        "QDQ, u8 activations, s8 weights per channel) gets the calibrator that is best on the test",
        "images; its models run with graph optimizations off, since its AVX2 kernels for u8 x s8",
        "saturate.",
        "",
        *summary(rows),
        "",
        *verdicts(rows),
        "",
        "ONNX Runtime's calibrators: top-1 %, agreement %, SQNR dB.",
        "",
        *details(rows),
        "",
    ])  # fmt: skip


def main() -> int:
    shared = os.environ.get("KILN_SHARED") or str(ROOT.parent / "shared")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks [all]")
    parser.add_argument("--kiln", default=str(ROOT / "build" / "release" / "kiln"))
    parser.add_argument("--shared", default=shared, help="folder with models/ and data/")
    parser.add_argument("--out", default=str(ROOT / "build" / "accuracy"), help="records")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="fewer images and calibrators")
    parser.add_argument("--report", action="store_true", help="from the records alone")
    parser.add_argument("--page", default=str(PAGE), help="the Markdown [docs/accuracy.md]")
    args = parser.parse_args()
    unknown = set(args.names) - {n.name for n in NETWORKS}
    if unknown:
        parser.error("no such network: " + ", ".join(sorted(unknown)))
    rows = []
    for network in NETWORKS:
        folder = Path(args.out) / ("quick" if args.quick else "full") / network.name
        folder.mkdir(parents=True, exist_ok=True)
        model = Path(args.shared) / "models" / network.file
        job = Job(network, folder, model, args.kiln, args.quick, args.threads)
        if not args.report and (not args.names or network.name in args.names):
            measure(job, Path(args.shared) / "data")
        row = collect(job)
        rows += [row] if row else []
    text = page(rows, args.quick)
    Path(args.page).write_text(text)
    record = Path(args.out) / "accuracy.json"
    record.write_text(json.dumps({"schema": SCHEMA, "quick": args.quick, "rows": rows}, indent=1))
    print("\n".join(summary(rows) + verdicts(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
