#!/usr/bin/env python3
"""Data sets and tables of ranges from files: what they give, and what bad ones are answered."""

import base64
import io
import json
import sys

import numpy as np
from onnx import helper, numpy_helper

from networks import constant, expect, kiln, main, save, value


def network(t, name="net.onnx", seed=1):
    """scores = Relu(a W) V, with a [N, 6] and scores [N, 3]"""
    rng = np.random.default_rng(seed)
    w, v = (rng.standard_normal(s).astype(np.float32) for s in ((6, 8), (8, 3)))
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["scores"]),
    ]
    return save(
        t / name,
        nodes,
        [value("a", ["N", 6])],
        [value("scores", ["N", 3])],
        [constant("w", w), constant("v", v)],
    )


def difference(t):
    """scores = a - b"""
    shape = ["N", 3]
    node = helper.make_node("Sub", ["a", "b"], ["scores"])
    return save(
        t / "two.onnx", [node], [value("a", shape), value("b", shape)], [value("scores", shape)]
    )


def put_pb(path, array, name=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(numpy_helper.from_array(array, name).SerializeToString())


def samples(n, width=6, seed=2):
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


def against_itself(net, data, *words):
    words = ["eval", net, "--against", net, "--data", data, "--format", "json", *words]
    return json.loads(expect(kiln(*words), 0).stdout)


# ---- ONNX .pb ----


def pb_files_are_batches(t):
    net = network(t)
    put_pb(t / "one.pb", samples(5), "a")
    assert against_itself(net, t / "one.pb")["samples"] == 5
    for i in range(3):
        put_pb(t / "many" / f"x{i}.pb", samples(2 + i, seed=i))
    assert against_itself(net, t / "many")["samples"] == 9
    assert against_itself(net, t / "many", "--count", 6)["samples"] == 6


def pb_rows_are_compared_one_by_one(t):
    """As those of an array are: agreement is a share of samples."""
    rng = np.random.default_rng(9)
    weights = rng.standard_normal((6, 4)).astype(np.float32)
    noise = 0.7 * rng.standard_normal((6, 4)).astype(np.float32)
    nets = []
    for name, w in (("a", weights), ("b", weights + noise)):
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        shapes = [value("x", ["N", 6])], [value("y", ["N", 4])]
        nets.append(save(t / f"{name}.onnx", nodes, *shapes, [constant("w", w)]))
    put_pb(t / "x.pb", samples(40))
    np.save(t / "x.npy", samples(40))
    got = [
        json.loads(expect(kiln("eval", nets[0], "--against", nets[1], "--data", t / f, "--format", "json"), 0).stdout)
        for f in ("x.pb", "x.npy")
    ]
    assert got[0]["samples"] == got[1]["samples"] == 40, got
    assert 0.2 < got[0]["agreement"] < 1 and got[0]["agreement"] == got[1]["agreement"], got


def pb_folders_of_onnx_tests(t):
    net = difference(t)
    a, b = samples(4, 3), samples(4, 3, 7)
    for i in range(2):  # inputs go by their place in the graph where they have no names
        put_pb(t / "set" / f"test_data_set_{i}" / "input_0.pb", a)
        put_pb(t / "set" / f"test_data_set_{i}" / "input_1.pb", b)
        put_pb(t / "set" / f"test_data_set_{i}" / "output_0.pb", a - b)
    (t / "set" / "model.onnx").write_bytes(b"")
    assert against_itself(net, t / "set")["samples"] == 8
    assert against_itself(net, t / "set" / "test_data_set_1")["samples"] == 4
    # And by their names where they have some: b - a differs from a - b.
    for i, (array, name) in enumerate(((b, "b"), (a, "a"))):
        put_pb(t / "named" / f"input_{i}.pb", array, name)
    net_run = expect(
        kiln(
            "run", net, "-i", f"a={t}/set/test_data_set_0/input_0.pb",
            "-i", f"b={t}/set/test_data_set_0/input_1.pb", "-o", t / "y.npy",
        ),
        0,
    )  # fmt: skip
    assert net_run and np.array_equal(np.load(t / "y.npy"), a - b)
    assert against_itself(net, t / "named")["samples"] == 4


def pb_calibrates(t):
    net = network(t)
    for i in range(4):
        put_pb(t / "set" / f"test_data_set_{i}" / "input_0.pb", samples(3, seed=i), "a")
    np.save(t / "all.npy", np.concatenate([samples(3, seed=i) for i in range(4)]))
    shown = [
        expect(kiln("calibrate", net, "--calib", t / d, "--calibrator", "max"), 0).stdout
        for d in ("set", "all.npy")
    ]
    rows = [[line for line in text.splitlines() if " max " in line] for text in shown]
    assert rows[0] == rows[1] and len(rows[0]) > 1, shown


def bad_pb_sets(t):
    net = network(t)
    put_pb(t / "a" / "input_0.pb", samples(3))
    whole = (t / "a" / "input_0.pb").read_bytes()
    (t / "a" / "input_0.pb").write_bytes(whole[:-5])
    expect(kiln("eval", net, "--against", net, "--data", t / "a"), 3, "input_0.pb")
    for file in ("0/input_0", "0/input_1", "1/input_0"):
        put_pb(t / "b" / f"test_data_set_{file}.pb", samples(3, 3))
    two = difference(t)
    expect(kiln("eval", two, "--against", two, "--data", t / "b"), 2, "test_data_set_1", "1 arrays")
    (t / "labels.csv").write_text("1\n")
    words = ["--data", t / "b", "--labels", t / "labels.csv"]
    expect(kiln("eval", net, *words), 2, "there are no labels")
    (t / "c").mkdir()
    (t / "c" / "x.pb").write_bytes(b"")
    expect(kiln("eval", net, "--against", net, "--data", t / "c"), 4, "x.pb")


# ---- Polygraphy JSON ----


def polygraphy(**arrays):
    """What Polygraphy's save_json writes for one entry."""
    made = {}
    for name, array in arrays.items():
        out = io.BytesIO()
        np.save(out, array)
        text = base64.b64encode(out.getvalue()).decode()
        made[name] = {"array": text, "polygraphy_class": "ndarray"}
    return made


def good_polygraphy(t):
    net = network(t)
    (t / "in.json").write_text(json.dumps([polygraphy(a=samples(2)), polygraphy(a=samples(3))]))
    assert against_itself(net, t / "in.json")["samples"] == 5


def bad_polygraphy(t):
    net = network(t)
    good = polygraphy(a=samples(2))["a"]
    npy = base64.b64decode(good["array"])

    def array(data):
        return json.dumps([{"a": {**good, "array": base64.b64encode(data).decode()}}])

    for name, text in {
        "empty": "",
        "half": json.dumps([{"a": good}])[:-20],
        "number": "7",
        "no list": '{"lst": 3}',
        "empty list": "[]",
        "no arrays": "[{}]",
        "no array": '[{"a": 5}]',
        "no base64": '[{"a": {"array": "*&%", "polygraphy_class": "ndarray"}}]',
        "no npy": array(b"hello"),
        "short npy": array(npy[:-1]),
        "long npy": array(npy + b"x"),
        "objects": array(npy.replace(b"<f4", b"|O ")),
        "too large": array(npy.replace(b"(2, 6)", b"(9, 6)")),
        "other names": json.dumps([{"a": good}, {"b": good}]),
        # reliability.md B5 94
        "depth": "[" * 1_000_000,
        "closed depth": "[" * 100_000 + "]" * 100_000,
        "1e999": "[1e999]",
        "lone surrogate": '[{"\\ud800": 1}]',
        "duplicate keys": '[{"a": 1, "a": 2}]',
        "not UTF-8": '[{"\udcff": 1}]',
    }.items():
        (t / "in.json").write_bytes(text.encode(errors="surrogateescape"))
        done = kiln("eval", net, "--against", net, "--data", t / "in.json")
        assert done.returncode in (3, 4) and "in.json" in done.stderr, (name, done)


# ---- CSV ----


def bad_label_files(t):
    net = network(t)
    np.save(t / "one.npy", samples(1))
    folder = t / "set"
    folder.mkdir()
    for i in range(3):
        np.save(folder / f"{i}.npy", samples(1)[0])
    words = ["eval", net, "--data", folder, "--labels", t / "l.csv"]
    for name, text, status, part in (
        ("good", b"0.npy,1\n1.npy,2\n2.npy,0\n", 0, "samples"),
        ("numbers alone", b"1\n2\n0\n", 0, "samples"),
        ("alternatives", b"0.npy,1|2\n1.npy,2\n2.npy,0\n", 0, "samples"),
        ("empty", b"", 2, "l.csv"),
        ("heading alone", b"name,label\n", 2, "l.csv"),
        ("no number", b"0.npy,1\n1.npy,cat\n2.npy,0\n", 3, "l.csv"),
        ("half a number", b"0.npy,1\n1.npy,2x\n2.npy,0\n", 3, "l.csv"),
        ("huge number", b"0.npy,1\n1.npy,99999999999999999999\n2.npy,0\n", 3, "l.csv"),
        ("mixed lines", b"0.npy,1\n2\n2.npy,0\n", 3, "l.csv"),
        ("too few", b"1\n2\n", 2, "2 labels for 3 files"),
        ("no such file", b"0.npy,1\nz.npy,2\n2.npy,0\n", 7, "z.npy"),
        ("outside", b"0.npy,1\n../one.npy,2\n2.npy,0\n", 3, "one.npy"),
        ("no class", b"0.npy,1\n1.npy,3\n2.npy,0\n", 2, "3"),
        ("negative", b"0.npy,1\n1.npy,-1\n2.npy,0\n", 3, "l.csv"),
        ("NUL", b"0.npy,1\n1.n\0py,2\n2.npy,0\n", 3, "l.csv"),
        ("long line", b"0.npy,1\n" + b"x" * 2_000_000 + b",2\n2.npy,0\n", 7, "xxx"),
    ):
        (t / "l.csv").write_bytes(text)
        done = kiln(*words)
        both = done.stdout + done.stderr
        assert done.returncode == status and part in both, (name, done.returncode, both[-600:])


# ---- Quantized arithmetic at its ends (B5 67 to 69) ----


def sums_beyond_int32(t):
    """K = 200,000 products of 127 * 127 are more than 2^31: the float result holds them all."""
    k = 200_000
    scale, zero = constant("s", np.float32(1)), constant("z", np.int8(0))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    net = save(
        t / "n.onnx", nodes, [value("x", [1, k])], [value("y", [1, 2])],
        [constant("w", np.full((k, 2), 127, np.int8)), scale, zero],
    )  # fmt: skip
    np.save(t / "x.npy", np.full((1, k), 127, np.float32))
    for isa in ("portable", "avx2"):
        expect(kiln("run", net, "-i", t / "x.npy", "-o", t / "y.npy", "--max-isa", isa), 0)
        assert np.all(np.abs(np.load(t / "y.npy") / (127.0 * 127 * k) - 1) < 1e-3), isa


def requantizing_saturates(t):
    """Biases at the ends of int32 and multipliers from 2^-60 to 2^60 saturate; nothing wraps."""
    x = np.array([[[[200]]], [[[0]]]], np.uint8)
    for bias in (-(2**31), 2**31 - 1):
        for y_scale in (1e-18, 1e-9, 1.0, 1e9, 1e18):
            node = helper.make_node(
                "QLinearConv", ["x", "s", "zx", "w", "s", "zw", "t", "zy", "b"], ["y"]
            )
            net = save(
                t / "n.onnx", [node], [value("x", ["N", 1, 1, 1], 2)],
                [value("y", ["N", 1, 1, 1], 2)],
                [
                    constant("s", np.float32(1)), constant("zx", np.uint8(100)),
                    constant("w", np.array([[[[100]]]], np.int8)), constant("zw", np.int8(0)),
                    constant("t", np.float32(y_scale)), constant("zy", np.uint8(128)),
                    constant("b", np.array([bias], np.int32)),
                ],
            )  # fmt: skip
            np.save(t / "x.npy", x)
            expect(kiln("run", net, "-i", t / "x.npy", "-o", t / "y.npy"), 0)
            acc = (x.astype(np.int64) - 100) * 100 + bias
            want = np.clip(np.rint(acc / y_scale) + 128, 0, 255)
            got = np.load(t / "y.npy")
            assert np.array_equal(got, want.astype(np.uint8)), (bias, y_scale, got.ravel(), want.ravel())


# ---- Calibration (B5 70 and 71) ----


def strange_calibration_data(t):
    net = network(t)
    for name, array, status, part in (
        ("zeros", np.zeros((4, 6)), 0, ""),
        ("one value", np.full((4, 6), 3.5), 0, ""),
        ("one sample", samples(1), 0, ""),
        ("tiny", np.full((4, 6), 1e-40), 0, ""),
        ("some NaN", np.where(np.eye(4, 6) > 0, np.nan, 1.0), 0, "NaN"),
        ("all NaN", np.full((4, 6), np.nan), 0, "2 layers stay float"),
        ("some infinite", np.where(np.eye(4, 6) > 0, np.inf, 1.0), 0, "inf"),
        ("all infinite", np.full((4, 6), np.inf), 0, "2 layers stay float"),
        ("no sample", samples(0), 2, "no sample"),
    ):
        np.save(t / "d.npy", array.astype(np.float32))
        out = t / "q.onnx"
        done = kiln("quantize", net, "--calib", t / "d.npy", "-o", out)
        both = done.stdout + done.stderr
        assert done.returncode == status and part in both, (name, done.returncode, both[-800:])
        if status == 0:
            np.save(t / "x.npy", samples(3))
            expect(kiln("run", out, "-i", t / "x.npy", "-o", t / "y.npy"), 0)
            assert np.all(np.isfinite(np.load(t / "y.npy"))), name


def tables_of_ranges(t):
    net = network(t)
    np.save(t / "d.npy", samples(16))
    head = "TRT-8601-EntropyCalibration2\n"
    good = "a: 3c010a14\nr: 3d010a14\nscores: 3d010a14\n"
    for name, text, status, part in (
        ("good", head + good, 0, ""),
        ("another network's", head + "x1: 3c010a14\nx2: 3c010a14\n", 2, "none of the 2 ranges given"),
        ("seven digits", head + good.replace("3c010a14", "3c010a1"), 3, "c.cache"),
        ("nine digits", head + good.replace("3c010a14", "3c010a140"), 3, "c.cache"),
        ("no hex", head + good.replace("3c010a14", "3c010axx"), 3, "c.cache"),
        ("duplicate", head + good + "a: 3c010a15\n", 3, "a"),
        ("NaN", head + good.replace("3c010a14", "7fc00000"), 3, "c.cache"),
        ("negative", head + good.replace("3c010a14", "bc010a14"), 3, "c.cache"),
        ("no heading", good, 3, "c.cache"),
        ("empty", "", 3, "c.cache"),
        ("half", (head + good)[:-9], 3, "c.cache"),
    ):
        (t / "c.cache").write_text(text)
        done = kiln("quantize", net, "--ranges", t / "c.cache", "-o", t / "q.onnx")
        both = done.stdout + done.stderr
        assert done.returncode == status and part in both, (name, done.returncode, both[-800:])


if __name__ == "__main__":
    sys.exit(
        main(
            [
                pb_files_are_batches,
                pb_rows_are_compared_one_by_one,
                pb_folders_of_onnx_tests,
                pb_calibrates,
                bad_pb_sets,
                good_polygraphy,
                bad_polygraphy,
                bad_label_files,
                sums_beyond_int32,
                requantizing_saturates,
                strange_calibration_data,
                tables_of_ranges,
            ]
        )
    )
