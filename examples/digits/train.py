#!/usr/bin/env python3
"""Trains the digits network and writes digits.onnx, digits_test.npz and digits_calib.npz beside this
file.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 onnx==1.23.1 onnxruntime==1.31.1 numpy==2.4.6 scikit-learn==1.9.1
    venv/bin/python train.py

The network is a small residual CNN for 8x8 grey images: Conv-BN-ReLU, a residual block, a strided
residual block with a 1x1 projection, global average pooling, a linear layer. Training is
deterministic on the CPU (fixed seeds, one thread, deterministic algorithms), takes under a minute,
and ends by running the exported file in ONNX Runtime on the held-out images.

Images are shifted by up to one pixel while training. The held-out 450 images are never seen before
the last line, which prints their top-1.
"""

import io
import pathlib
import zipfile
from collections import OrderedDict

import numpy as np
import onnx
import onnxruntime
import torch
from sklearn.datasets import load_digits
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20
TEST_IMAGES = 450
CALIBRATION_IMAGES = 200
EPOCHS = 40
BATCH = 64


class Residual(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))"""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.project = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.project = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.project(x))


def make_network():
    layers = OrderedDict(
        stem=nn.Conv2d(1, 16, 3, padding=1, bias=False),
        stem_bn=nn.BatchNorm2d(16),
        stem_relu=nn.ReLU(),
        block1=Residual(16, 16, 1),
        block2=Residual(16, 32, 2),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(32, 10),
    )
    return nn.Sequential(layers)


def load_split():
    """Pixels scaled to 0..1 as float32 [N,1,8,8], labels int64; a seeded shuffle, then the split."""
    digits = load_digits()
    x = (digits.images / 16.0).astype(np.float32)[:, None]
    y = digits.target.astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(x))
    train, test = order[TEST_IMAGES:], order[:TEST_IMAGES]
    return x[train], y[train], x[test], y[test]


def shifted(x, generator):
    """Every image of the batch moved by -1, 0 or 1 pixel in each direction, zeros moving in."""
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(x), 2), generator=generator)
    return torch.stack([p[:, r : r + 8, c : c + 8] for p, (r, c) in zip(padded, moves.tolist())])


def train(net, x, y):
    generator = torch.Generator().manual_seed(SEED)
    steps = EPOCHS * -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = nn.functional.cross_entropy(
                net(shifted(x[batch], generator)), y[batch], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch + 1:2d}  loss {total / len(x):.4f}", flush=True)


def export(net, path):
    """ONNX opset 17 with BatchNormalization kept as nodes: folding them is Kiln's work."""
    torch.onnx.export(
        net,
        (torch.zeros(2, 1, 8, 8),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        opset_version=17,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        dynamo=False,
    )
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def save_npz(path, **arrays):
    """np.savez_compressed with a fixed time stamp, so that the same data gives the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.save(data, array)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data.getvalue(), zipfile.ZIP_DEFLATED)


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    x_train, y_train, x_test, y_test = load_split()
    net = make_network()
    train(net, x_train, y_train)
    net.eval()
    export(net, HERE / "digits.onnx")
    save_npz(HERE / "digits_test.npz", x=x_test, y=y_test)
    save_npz(HERE / "digits_calib.npz", x=x_train[:CALIBRATION_IMAGES])
    session = onnxruntime.InferenceSession(HERE / "digits.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": x_test})[0]
    right = int((logits.argmax(1) == y_test).sum())
    print(f"ONNX Runtime top-1: {right} of {len(y_test)} = {100 * right / len(y_test):.2f} %")


if __name__ == "__main__":
    main()
