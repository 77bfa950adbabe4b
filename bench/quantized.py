#!/usr/bin/env python3
"""FP32, static and dynamic INT8 side by side: accuracy, size and latency of transformers and
recurrent networks.

    quantized.py --kiln BUILD/kiln --out DIR [--shared SHARED] [--minilm DIR] [NAME..]

Networks of SHARED/models: fashion_vit and fashion_loop_rnn (Fashion-MNIST, calibrated on test images
0-999, scored on the rest), byte_bilstm (text, calibrated on the first half), dtln (both stages on a
stream of noisy speech, calibrated on its first third). With --minilm the folder that `minilm.py
export` filled. Engines are built by `kiln build`, scored by `kiln eval --against` the float engine,
and timed by `kiln bench` in turns, one thread, the least time.

Prints Markdown and writes DIR/quantized.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np

import minilm

# Recurrent layers are quantized on request: the rules ask for them where there are any.
RULES = ["--precision", "type:LSTM=int8,type:GRU=int8"]
FORMS = {"FP32": [], "static": ["--int8", *RULES], "dynamic": ["--dynamic"]}
TURNS = 3


class Network:
    def __init__(self, model: Path, calib: list[Path], test: list[Path], labels: bool = False):
        self.model, self.calib, self.test, self.labels = model, calib, test, labels


# ---- Data ----


def fashion(shared: Path, out: Path, name: str, file: str) -> Network:
    folder = shared / "data/fashion_mnist"
    images = gzip.open(folder / "t10k-images-idx3-ubyte.gz").read()
    labels = gzip.open(folder / "t10k-labels-idx1-ubyte.gz").read()
    x = np.frombuffer(images[16:], np.uint8).reshape(-1, 28, 28)
    x = ((x / 255 - 0.2860) / 0.3530).astype(np.float32)
    y = np.frombuffer(labels[8:], np.uint8).astype(np.int64)
    calib, test = out / f"{name}.calib.npz", out / f"{name}.test.npz"
    np.savez(calib, x=x[:1000], y=y[:1000])
    np.savez(test, x=x[1000:], y=y[1000:])
    return Network(shared / f"models/{name}/{file}", [calib], [test], labels=True)


def text(shared: Path, out: Path) -> Network:
    """Windows of 96 bytes of made-up sentences."""
    paths = []
    for kind in ("calib", "test"):
        raw = " ".join(minilm.sentences(kind, 300, seed=3)).encode()
        rows = len(raw) // 96
        windows = np.frombuffer(raw[: rows * 96], np.uint8).reshape(rows, 96)[:128]
        paths.append(out / f"text.{kind}.npz")
        np.savez(paths[-1], input=windows)
    return Network(shared / "models/byte_bilstm/model.onnx", [paths[0]], [paths[1]])


def speech(shared: Path, out: Path) -> list[Network]:
    """The stream as ONNX Runtime computes it: what each stage reads at each step."""
    with wave.open(str(shared / "data/audio/noisy_mix_16k.wav")) as f:
        raw = np.frombuffer(f.readframes(f.getnframes()), np.int16)
        samples = raw.reshape(-1, f.getnchannels())[:, 0].astype(np.float32) / 32768
    models = [shared / f"models/dtln/model_{k}.onnx" for k in (1, 2)]
    one, two = (minilm.ort_session(m) for m in models)
    state = [np.zeros((1, 2, 128, 2), np.float32) for _ in models]
    seen: list[list[dict]] = [[], []]
    for start in range(0, min(len(samples) - 512, 128 * 900), 128):
        spectrum = np.fft.rfft(samples[start : start + 512])
        first = {"input_2": np.abs(spectrum)[None, None].astype(np.float32), "input_3": state[0]}
        mask, state[0] = one.run(None, first)
        block = np.fft.irfft(mask[0, 0] * spectrum)[None, None].astype(np.float32)
        second = {"input_4": block, "input_5": state[1]}
        _, state[1] = two.run(None, second)
        seen[0].append(first)
        seen[1].append(second)
    networks = []
    for k, model in enumerate(models):
        arrays = {n: np.concatenate([s[n] for s in seen[k]]) for n in seen[k][0]}
        cut = len(seen[k]) // 3
        calib, test = out / f"dtln_{k + 1}.calib.npz", out / f"dtln_{k + 1}.test.npz"
        np.savez(calib, **{n: v[:cut] for n, v in arrays.items()})
        np.savez(test, **{n: v[cut:] for n, v in arrays.items()})
        networks.append(Network(model, [calib], [test]))
    return networks


def networks(args: argparse.Namespace) -> dict[str, Network]:
    found = {}
    if args.shared:
        vit, rnn = "model_op17_dynamic.onnx", "model.onnx"
        found["fashion_vit"] = fashion(args.shared, args.out, "fashion_vit", vit)
        found["fashion_loop_rnn"] = fashion(args.shared, args.out, "fashion_loop_rnn", rnn)
        found["byte_bilstm"] = text(args.shared, args.out)
        found["dtln_1"], found["dtln_2"] = speech(args.shared, args.out)
    if args.minilm:
        calib = sorted((args.minilm / "calib").glob("*.npz"))
        test = sorted((args.minilm / "test").glob("*.npz"))
        found["minilm"] = Network(args.minilm / "minilm.onnx", calib, test)
    return {n: v for n, v in found.items() if not args.names or n in args.names}


# ---- Measuring ----


def kiln(args: argparse.Namespace, *words) -> dict:
    command = [args.kiln, *map(str, words), "--format", "json", "-q"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def find(record: dict, name: str):
    """The first value of that name, wherever it stands."""
    if isinstance(record, dict):
        if name in record:
            return record[name]
        record = list(record.values())
    if isinstance(record, list):
        for item in record:
            value = find(item, name)
            if value is not None:
                return value
    return None


def build(args: argparse.Namespace, name: str, net: Network) -> dict[str, Path]:
    engines = {}
    for form, words in FORMS.items():
        engines[form] = args.out / f"{name}.{form}.kiln"
        data = [w for c in net.calib for w in ("--calib", c)] if form == "static" else []
        kiln(args, "build", net.model, *words, *data, "-o", engines[form])
    return engines


def score(args: argparse.Namespace, name: str, net: Network, engines: dict[str, Path]) -> dict:
    results = {}
    for form, engine in engines.items():
        results[form] = {"bytes": os.path.getsize(engine)}
        if name == "minilm":
            mine = minilm.embeddings(args.minilm, minilm.kiln_runner(args.kiln, str(engine)))
            truth = minilm.embeddings(
                args.minilm, minilm.kiln_runner(args.kiln, str(engines["FP32"]))
            )
            results[form]["least_cosine"] = float((mine * truth).sum(1).min())
            results[form]["spearman"] = float(minilm.retrieval(truth, mine).mean())
            continue
        record = kiln(args, "eval", engine, "--data", net.test[0], "--against", engines["FP32"])
        wanted = ["sqnr_db", "cosine"] + (["top1", "agreement"] if net.labels else [])
        results[form] |= {w: find(record, w) for w in wanted}
    return results


def shapes(net: Network, name: str) -> list[str]:
    """The sizes that are timed: one sample of the test data."""
    if name == "minilm":
        return [w for n in minilm.INPUTS for w in ("--shape", f"{n}:1x32")]
    arrays = np.load(net.test[0])
    if name == "byte_bilstm":
        return ["--shape", "input:1x96"]
    return ["--shape", "input:1x28x28"] if name == "fashion_loop_rnn" and "x" in arrays else []


def time(args: argparse.Namespace, name: str, net: Network, engines: dict, results: dict) -> None:
    for _ in range(TURNS):
        for form, engine in engines.items():
            words = ["--threads", 1, "--duration", args.duration, *shapes(net, name)]
            record = kiln(args, "bench", engine, *words)
            least = find(record, "latency_ms")["min"]
            results[form]["ms"] = min(results[form].get("ms", least), least)


def accuracy(record: dict) -> str:
    if "spearman" in record:
        return f"cosine ≥ {record['least_cosine']:.4f}, order {record['spearman']:.4f}"
    parts = []
    if "top1" in record:
        parts.append(f"top-1 {100 * record['top1']:.2f} %")
    if record["sqnr_db"] is not None:
        parts.append(f"{record['sqnr_db']:.1f} dB")
    return ", ".join(parts) or "itself"


def table(results: dict) -> str:
    lines = ["| network | form | accuracy | KiB | ms | of FP32 |", "|---|---|---|--:|--:|--:|"]
    for name, forms in results.items():
        for form, record in forms.items():
            ratio = forms["FP32"]["ms"] / record["ms"]
            size = round(record["bytes"] / 1024)
            ms = f"{record['ms']:.3f} | {ratio:.2f}x"
            lines.append(f"| {name} | {form} | {accuracy(record)} | {size} | {ms} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks [all]")
    parser.add_argument("--kiln", default="kiln")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shared", type=Path, help="folder with models/ and data/")
    parser.add_argument("--minilm", type=Path, help="folder that `minilm.py export` filled")
    parser.add_argument("--duration", type=float, default=1, help="seconds of timing a turn [1]")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, net in networks(args).items():
        engines = build(args, name, net)
        results[name] = score(args, name, net, engines)
        time(args, name, net, engines, results[name])
        (args.out / "quantized.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
