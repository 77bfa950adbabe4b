#!/usr/bin/env python3
"""Building by measuring: what it may cost, in time and in memory.

ctest-timeout: 600
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
from onnx import helper

from networks import KILN, constant, expect, kiln, main, save, value


def products(path, n, size=8, rows=4):
    """A chain of n products of matrices by the same weights."""
    weights = constant("w", np.eye(size, dtype=np.float32))
    names = ["x", *(f"v{i}" for i in range(1, n)), "y"]
    nodes = [
        helper.make_node("MatMul", [names[i], "w"], [names[i + 1]], name=f"n{i}") for i in range(n)
    ]
    ends = value("x", [rows, size]), value("y", [rows, size])
    return save(path, nodes, [ends[0]], [ends[1]], [weights])


def measured(*words):
    """Seconds and peak bytes of the command, which must succeed."""
    start = time.monotonic()
    child = subprocess.Popen(
        [KILN, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, child.returncode
    return time.monotonic() - start, 1024 * usage.ru_maxrss


def many_layers_cost_little(t):
    net = products(t / "net.onnx", 20000)
    alone, bytes_alone = measured("build", net, "--opt-level", 0, "-o", t / "0.kiln")
    limits = ["--threads", 1, "--time-budget", 3]
    seconds, most = measured("build", net, *limits, "-o", t / "3.kiln")
    assert most < 5 * bytes_alone, (most, bytes_alone)
    assert seconds < 30 * alone + 20, (seconds, alone)
    expect(kiln("build", "-v", net, *limits, "-o", t / "3.kiln"), 0, "18976 layers", "1024")


def slow_network(t):
    """A network and the seconds that one of its runs takes."""
    net = products(t / "net.onnx", 6, size=1024, rows=1024)
    bench = ["--threads", 1, "--warm-up", 1, "--duration", 0, "--iterations", 3]
    done = expect(kiln("bench", net, *bench, "--format", "json"), 0)
    return net, json.loads(done.stdout)["results"][0]["compute_ms"]["median"] / 1000


def a_short_budget_is_kept(t):
    net, run = slow_network(t)
    alone, _ = measured("build", net, "--opt-level", 0, "-o", t / "0.kiln")
    budget = 3 * run
    words = ["build", net, "--threads", 1, "--time-budget", budget, "-o", t / "1.kiln"]
    seconds, _ = measured(*words)
    assert seconds < 2 * alone + budget + 6 * run + 0.5, (seconds, alone, run)
    expect(kiln(*words), 0, "warning", "the time budget is")


def interrupting_ends_within_a_round(t):
    net, run = slow_network(t)
    words = ["build", net, "--threads", 1, "--opt-level", 5, "-o", t / "1.kiln"]
    child = subprocess.Popen(
        [KILN, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(1 + 8 * run)
    child.send_signal(signal.SIGINT)
    start = time.monotonic()
    assert child.wait(timeout=100) == 130, child.returncode
    assert time.monotonic() - start < 6 * run + 0.5, (time.monotonic() - start, run)
    assert not (t / "1.kiln").exists()


def killing_loses_a_line_at_most(t):
    """kill -9 while layers are timed: the next build knows what was found, and ends."""
    net = products(t / "net.onnx", 4, size=256, rows=256)
    cache, engine = t / "c.jsonl", t / "1.kiln"
    words = ["build", net, "--threads", 1, "--opt-level", 3, "--timing-cache", cache, "-o", engine]
    child = subprocess.Popen(
        [KILN, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (cache.exists() and cache.read_bytes().count(b"\n") > 0):
        assert child.poll() is None and time.monotonic() < deadline, "nothing was timed"
        time.sleep(0.01)
    child.kill()
    assert child.wait() == -signal.SIGKILL and not engine.exists()
    left = cache.read_bytes()
    found = [json.loads(line) for line in left.split(b"\n")[:-1]]
    # What a kill within a write leaves: a line without its end.
    cache.write_bytes(left + left[: len(left) // 2].rsplit(b"\n")[0][:40])
    done = expect(kiln(*words), 0)
    after = cache.read_bytes()
    assert after.startswith(left) and len(after) > len(left)
    later = after[len(left) :].split(b"\n")[1:-1]
    keys = {(r["key"], r["way"]) for r in found}
    for line in later:
        record = json.loads(line)
        assert (record["key"], record["way"]) not in keys, record
    # All is known now: nothing is timed, and the engine is the same.
    first = engine.read_bytes()
    expect(kiln(*words, "--frozen"), 0, "1 lines are no timings")
    assert engine.read_bytes() == first and cache.read_bytes() == after, done.stderr


def ways_that_need_too_much_are_named(t):
    rng = np.random.default_rng(1)
    weights = constant("w", rng.standard_normal((32, 32, 3, 3)).astype(np.float32))
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="c", pads=[1] * 4)
    ends = value("x", [1, 32, 28, 28]), value("y", [1, 32, 28, 28])
    net = save(t / "net.onnx", [node], [ends[0]], [ends[1]], [weights])
    expect(kiln("inspect", net, "--why", "c"), 0, "conv_winograd_f32/rules")
    done = kiln("inspect", net, "--why", "c", "--workspace", "32KiB")
    expect(done, 0, "tactic rules needs", "more than 32768")
    assert "conv_winograd_f32/rules" not in done.stdout, done.stdout
    expect(kiln("build", net, "--workspace", "1B", "-o", t / "x.kiln"), 6, "at least")
    expect(kiln("build", net, "--workspace", "soon", "-o", t / "x.kiln"), 2, "takes a size")
    # Timed ways are held to it too.
    words = ["--workspace", "32KiB", "--opt-level", 5, "--time-budget", 5, "--threads", 1]
    expect(kiln("build", net, *words, "-o", t / "y.kiln"), 0)
    expect(kiln("inspect", t / "y.kiln"), 0)
    ways = json.loads(kiln("inspect", t / "y.kiln", "--why", "c", "--format", "json").stdout)["ways"]
    large = [w for w in ways if "beside its operands" in w["outcome"]]
    assert any(w["tactic"] == "patch" for w in large), ways
    assert not any(w["outcome"] == "chosen" for w in large), ways


def streams_run_at_once(t):
    net = products(t / "net.onnx", 3, size=64, rows=64)
    words = ["--threads", 1, "--warm-up", 1, "--duration", 0.3, "--format", "json"]
    rows = {}
    for n in (1, 3):
        done = expect(kiln("bench", net, "--streams", n, *words), 0)
        rows[n] = json.loads(done.stdout)["results"][0]
        assert rows[n]["streams"] == n and rows[n]["runs"] >= 10, rows[n]
    # Three at once: the sum of their run times is more than one stream could hold.
    r = rows[3]
    assert r["total_compute_ms"] > 1.5 * r["total_walltime_ms"], r
    assert rows[1]["total_compute_ms"] <= rows[1]["total_walltime_ms"], rows[1]
    expect(kiln("bench", net, "--infStreams=2", *words), 0, '"streams": 2')
    expect(kiln("bench", net, "--streams", 2, "--serve"), 2, "none with --serve")


def tried(engine, layer):
    """Ways that were timed or refused, by kernel."""
    done = expect(kiln("inspect", engine, "--why", layer, "--format", "json"), 0)
    ways = {}
    for w in json.loads(done.stdout)["ways"]:
        if w["outcome"] not in ("not timed", "as it runs"):
            ways.setdefault(w["kernel"], set()).add(w["tactic"])
    return ways


def ways_that_come_to_the_same_are_tried_once(t):
    rng = np.random.default_rng(1)
    shapes = {"w1": (64, 3, 3, 3), "w2": (64, 64, 3, 3), "w3": (64, 2000), "w4": (2000, 40)}
    weights = [constant(n, rng.standard_normal(s).astype(np.float32)) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="image", pads=[1] * 4),
        helper.make_node("Conv", ["a", "w2"], ["b"], name="square", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["d"], name="flat"),
        helper.make_node("MatMul", ["d", "w3"], ["e"], name="vector"),
        helper.make_node("MatMul", ["e", "w4"], ["y"], name="small"),
    ]
    ends = value("x", [1, 3, 32, 32]), value("y", [1, 40])
    net = save(t / "net.onnx", nodes, [ends[0]], [ends[1]], weights)
    engine = t / "1.kiln"
    words = ["--opt-level", 5, "--time-budget", 8, "--threads", 1]
    expect(kiln("build", net, *words, "-o", engine), 0)
    # Rules copy the lines of an image, and gather elsewhere; both are ways of their own.
    image, square = tried(engine, "image"), tried(engine, "square")
    assert "lines" not in image["conv_f32"] and "planar" in image["conv_f32"], image
    assert len(square["conv_winograd_f32"] & {"f43", "f23"}) == 1, square
    # The direct way stands there once: by rules, and not as what rules come to.
    assert "rules" in square["conv_f32"] and "gather" not in square["conv_f32"], square
    assert "patch" in square["conv_f32"], square
    # One row is never cut, whatever is asked for.
    cuts = {"rows-last", "short", "tall"}
    assert not cuts & tried(engine, "vector").get("gemm_f32", set()), tried(engine, "vector")
    assert not cuts & tried(engine, "small").get("gemm_f32", set()), tried(engine, "small")


def throughput_is_timed_in_a_crowd(t):
    net = products(t / "net.onnx", 4, size=128, rows=128)
    words = ["--goal", "throughput", "--opt-level", 1, "--threads", 2]
    cache = t / "c.jsonl"
    expect(kiln("build", net, *words, "--timing-cache", cache, "-o", t / "1.kiln"), 0)
    expect(kiln("inspect", t / "1.kiln", "--format", "json"), 0)
    found = {json.loads(line)["key"] for line in cache.read_text().splitlines()}
    # What is found with one run at a time is not known to hold for several, nor the other way round.
    words[1] = "latency"
    expect(kiln("build", net, *words, "--timing-cache", cache, "-o", t / "2.kiln"), 0)
    both = {json.loads(line)["key"] for line in cache.read_text().splitlines()}
    assert found and len(both) > len(found), (found, both)


if __name__ == "__main__":
    tests = [
        many_layers_cost_little,
        a_short_budget_is_kept,
        interrupting_ends_within_a_round,
        killing_loses_a_line_at_most,
        ways_that_need_too_much_are_named,
        streams_run_at_once,
        ways_that_come_to_the_same_are_tried_once,
        throughput_is_timed_in_a_crowd,
    ]
    sys.exit(main(tests))
