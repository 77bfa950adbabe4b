"""Photographs through `kiln run` and its picture flags give the classes, boxes and text that the
SOURCE.md files of the shared material state."""

# ctest-labels: zoo
# ctest-timeout: 600
import csv
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import common

DATA, MODELS = common.shared_dir() / "data", common.shared_dir() / "models"

# Preprocessing as each network's SOURCE.md says; --mean counts after --scale.
MOBILENET = ("--resize", "256", "--crop", "224", "--scale", "1/127.5", "--mean", "1")
SQUEEZENET = (
    *("--resize", "256", "--crop", "224", "--color", "bgr"),
    *("--mean", "103.939,116.779,123.68"),
)
SEEN = {
    "kitten_224.png": 281,
    "goldfish.jpg": 1,
    "n01440764_3198.png": 0,
    "pineapple.jpg": 953,
    "wolves.jpg": 270,
    "horse-cart.jpg": 603,
}
# File of the network, flags, top-1 class by picture.
CLASSES = (
    ("mobilenet_v1_025/model_fp32.onnx", MOBILENET, SEEN),
    ("mobilenet_v1_025/model_qdq_int8.onnx", MOBILENET, {"kitten_224.png": 281, "goldfish.jpg": 1}),
    (
        "squeezenet/model_fp32.onnx",
        SQUEEZENET,
        # It takes the horse cart for an oxcart (690), which labels.csv accepts too.
        SEEN | {"horse-cart.jpg": 690, "kimono.jpg": 614, "daisy.jpg": 308, "bus.jpg": 654},
    ),
    ("squeezenet/model_fp16.onnx", SQUEEZENET, {"kitten_224.png": 281, "goldfish.jpg": 1}),
)
# The reference's thresholds: score, and overlap at which the weaker box goes.
FOUND, SUPPRESSED = 0.3, 0.45
# Its boxes are rounded to tenths of a pixel.
LEAST_OVERLAP, SCORE_GAP = 0.98, 0.005
TEXT = "To facilitate the shot type analysis in videos, we collect MovieShots, a large-scale"


class Runner:
    def __init__(self, folder: Path):
        self.kiln, self.folder = common.Kiln(), folder

    def outputs(self, model: str, picture: Path, *flags: str) -> dict[str, np.ndarray]:
        args = ("run", str(MODELS / model), str(picture), *flags)
        self.kiln.call(*args, "--output-dir", str(self.folder))
        listed = json.loads((self.folder / "outputs.json").read_text())["outputs"]
        return {o["name"]: np.load(self.folder / o["file"]) for o in listed}

    def top1(self, model: str, picture: Path, *flags: str) -> tuple[int, float]:
        scores = next(iter(self.outputs(model, picture, *flags).values())).reshape(-1)
        return int(scores.argmax()), float(scores.max())


def check_classes(r: Runner, tally: common.Tally) -> None:
    for model, flags, seen in CLASSES:
        for picture, want in seen.items():
            got, score = r.top1(model, DATA / "images_imagenet_like" / picture, *flags)
            label = f"{model.removesuffix('.onnx')}/{picture}"
            tally.check(label, got == want, f"class {got} ({score:.3f}), expected {want}")


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes x1 y1 x2 y2, a [N,4] with b [4]."""
    low, high = np.maximum(a[:, :2], b[:2]), np.minimum(a[:, 2:], b[2:])
    common_area = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[2:] - b[:2])
    return common_area / (areas - common_area)


def yolox_boxes(raw: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [3549,4] in original pixels and scores [3549,80]: offsets within the grids of strides
    8, 16 and 32, sizes as logarithms."""
    grids, strides = [], []
    for stride in (8, 16, 32):
        n = 416 // stride
        y, x = np.mgrid[:n, :n]
        grids.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full((n * n, 1), stride))
    grid, stride = np.concatenate(grids), np.concatenate(strides)
    centre, size = (raw[:, :2] + grid) * stride, np.exp(raw[:, 2:4]) * stride
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1) / ratio
    return boxes, raw[:, 4:5] * raw[:, 5:]


def judge_yolox(r: Runner, picture: Path, found: list, color: str) -> tuple[bool, str]:
    flags = ("--resize", "letterbox:416x416", "--pad", "114", "--pad-at", "top-left")
    outputs = r.outputs("yolox_nano/model.onnx", picture, *flags, "--color", color)
    boxes, scores = yolox_boxes(outputs["output"][0], min(416 / d for d in picture_size(picture)))
    near, gap = 1.0, 0.0
    more = scores > FOUND + SCORE_GAP
    for cls, score, box in found:
        shared = overlap(boxes, box)
        at = int(np.where(shared >= LEAST_OVERLAP, scores[:, cls], -1).argmax())
        near, gap = min(near, float(shared[at])), max(gap, abs(float(scores[at, cls]) - score))
        more[:, cls] &= shared <= SUPPRESSED
    ok = near >= LEAST_OVERLAP and gap <= SCORE_GAP and not more.any()
    text = f"least overlap {near:.3f}, scores within {gap:.4f}, {int(more.sum())} others"
    return ok, f"{len(found)} boxes, {text}"


def check_yolox(r: Runner, tally: common.Tally) -> None:
    """The detections are those of the reference: each of its boxes is among ours with its score,
    and whatever else we find confidently overlaps one so much that it is suppressed."""
    folder = DATA / "images_coco_val"
    wanted: dict[str, list] = {file.name: [] for file in sorted(folder.glob("*.jpg"))}
    with open(folder / "yolox_nano_fp32_reference.csv", newline="") as file:
        for row in csv.DictReader(file):
            box = [float(row[k]) for k in ("x1", "y1", "x2", "y2")]
            wanted[row["file"]].append((int(row["class_id"]), float(row["score"]), np.array(box)))
    for picture, found in wanted.items():
        tally.check(f"yolox_nano/{picture}", *judge_yolox(r, folder / picture, found, "bgr"))
    picture, found = max(wanted.items(), key=lambda item: len(item[1]))
    ok, text = judge_yolox(r, folder / picture, found, "rgb")
    tally.check(f"yolox_nano/{picture}, red and blue swapped, noticed", not ok, text)


def picture_size(file: Path) -> tuple[int, int]:
    """Width and height of a baseline or progressive JPEG, from its frame header."""
    data, at = file.read_bytes(), 2
    while True:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(data[at + k : at + k + 2], "big") for k in (5, 7))
            return width, height
        at += 2 + length


def check_faces(r: Runner, tally: common.Tally) -> None:
    portrait = DATA / "images_faces" / "portrait.jpg"
    flags = ("--resize", "320x240", "--scale", "1/128", "--mean", str(127 / 128))
    for stem in ("model", "model_simplified"):
        out = r.outputs(f"ultraface_rfb320/{stem}.onnx", portrait, *flags)
        scores = out["scores"][0, :, 1]
        best, count = scores.argmax(), int((scores > 0.7).sum())
        ok = abs(scores[best] - 0.994) <= 0.005 and count == 6
        text = f"best score {scores[best]:.4f}, {count} anchors above 0.7"
        if stem == "model":
            box = out["boxes"][0, best]
            ok &= bool(np.abs(box - (0.318, 0.077, 0.416, 0.186)).max() <= 0.005)
            text += f", box {np.round(box, 3).tolist()}"
        tally.check(f"ultraface_rfb320/{stem}/portrait", ok, text)
    out = r.outputs("yunet_n/model_320x320.onnx", portrait, "--resize", "320x320", "--color", "bgr")
    best = float(out["obj_8"].max())
    tally.check("yunet_n/portrait", abs(best - 0.99) <= 0.01, f"obj_8 {best:.3f}")


def check_text(r: Runner, tally: common.Tally) -> None:
    folder = DATA / "images_ocr"
    letters = ["", *(folder / "en_dict.txt").read_text().splitlines(), " "]
    flags = ("--resize", "747x32", "--color", "bgr", "--scale", "1/127.5", "--mean", "1")
    out = r.outputs("ppocr_en_number_rec/model.onnx", folder / "en_rec.jpg", *flags)
    codes = next(iter(out.values()))[0].argmax(axis=-1)
    kept = [c for k, c in enumerate(codes) if c and (k == 0 or c != codes[k - 1])]
    text = "".join(letters[c] for c in kept)
    tally.check("ppocr_en_number_rec/en_rec", text == TEXT, repr(text))


def main() -> int:
    if not DATA.is_dir() or not MODELS.is_dir():
        return common.no_networks(DATA)
    os.environ["NO_COLOR"] = "1"
    tally = common.Tally("pictures")
    with tempfile.TemporaryDirectory(prefix="kiln-pictures-") as folder:
        runner = Runner(Path(folder))
        for check in (check_classes, check_yolox, check_faces, check_text):
            check(runner, tally)
    return tally.verdict()


sys.exit(main())
