#!/usr/bin/env python3
"""`eval` on pictures in a ZIP archive: as from the folder, and hostile archives are refused."""

import json
import sys
import zipfile

import numpy as np
from onnx import helper

from networks import expect, kiln, main, save, value


def picture(k, size=4):
    """A grey ramp, brightest in column k."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[:, k] = 200
    return b"P6\n%d %d\n255\n" % (size, size) + pixels.tobytes()


def network(t):
    """Scores are the means of the columns."""
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)
    return save(t / "n.onnx", [node], [value("x", ["N", 3, 4, 4])], [value("y", ["N", 4])])


FILES = {"b/1.ppm": 1, "a/0.ppm": 0, "d/3.ppm": 3, "c/2.ppm": 2, "a/1.ppm": 1}


def archive(t, prefix="", name="val.zip", extra=()):
    path = t / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(prefix + "a/", b"")
        for file, k in FILES.items():
            z.writestr(prefix + file, picture(k))
        for file, data in extra:
            z.writestr(file, data)
    return path


def top1(*words):
    return json.loads(expect(kiln("eval", *words, "--format", "json"), 0).stdout)["top1"]


def same_as_the_folder(t):
    net = network(t)
    for file, k in FILES.items():
        (t / "val" / file).parent.mkdir(parents=True, exist_ok=True)
        (t / "val" / file).write_bytes(picture(k))
    assert top1(net, "--data", t / "val") == 0.8
    assert top1(net, "--data", archive(t)) == 0.8
    assert top1(net, "--data", archive(t, "outer/val/"), "--batch", 2) == 0.8
    noise = [("__MACOSX/a/0.ppm", b"x"), ("a/.hidden.ppm", b"x"), ("README", b"x")]
    assert top1(net, "--data", archive(t, extra=noise)) == 0.8


def labels_from_a_file(t):
    net, data = network(t), archive(t, "val/")
    (t / "l.csv").write_text("file,label\na/0.ppm,0\nd/3.ppm,3\nc/2.ppm,0\n")
    assert abs(top1(net, "--data", data, "--labels", t / "l.csv") - 2 / 3) < 1e-9
    (t / "l.csv").write_text("a/0.ppm,0\na/9.ppm,3\n")
    expect(kiln("eval", net, "--data", data, "--labels", t / "l.csv"), 2, '"a/9.ppm"', "not there")
    (t / "l.csv").write_text("1\n2\n")
    expect(kiln("eval", net, "--data", data, "--labels", t / "l.csv"), 2, "2 labels for 5")


def shuffled_and_counted(t):
    net, data = network(t), archive(t)
    words = ["eval", net, "--data", data, "--shuffle", "--count", 3, "--format", "json"]
    report = json.loads(expect(kiln(*words), 0).stdout)
    assert report["samples"] == 3 and report["top1"] >= 2 / 3


def refused(t, data, status, *parts):
    path = t / "bad.zip"
    path.write_bytes(data)
    expect(kiln("eval", network(t), "--data", path), status, "bad.zip", *parts)


def hostile_archives(t):
    good = archive(t).read_bytes()
    refused(t, b"", 3)
    refused(t, b"PK\x03\x04 and nothing else", 3)
    refused(t, good[: len(good) // 2], 3)
    for name in ("../a/0.ppm", "/a/0.ppm", "a/../../0.ppm", "a\\0.ppm"):
        refused(t, archive(t, extra=[(name, picture(0))]).read_bytes(), 3, "member named")
    twice = good.replace(b"a/1.ppm", b"a/0.ppm")
    refused(t, twice, 3)
    bomb = archive(t, extra=[("a/9.ppm", b"\0" * (64 << 20))]).read_bytes()
    refused(t, bomb, 6, "grows from")
    at = good.index(b"a/0.ppm") + len(b"a/0.ppm") + 2
    flipped = good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :]
    refused(t, flipped, 3, "a/0.ppm")


def broken_members_are_named(t):
    refused(t, archive(t, extra=[("a/00.ppm", b"no picture")]).read_bytes(), 3, "a/00.ppm")
    empty = t / "e.zip"
    with zipfile.ZipFile(empty, "w") as z:
        z.writestr("README", b"none")
    expect(kiln("eval", network(t), "--data", empty), 2, "holds no sample")


if __name__ == "__main__":
    sys.exit(
        main(
            [
                same_as_the_folder,
                labels_from_a_file,
                shuffled_and_counted,
                hostile_archives,
                broken_members_are_named,
            ]
        )
    )
