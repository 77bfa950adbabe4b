#!/usr/bin/env python3
"""Disks that are full or fail, files that may not grow, threads that cannot be started, engines on
another instruction set: a written file is the old one or the complete new one, and the command says
what happened.

ctest-labels: once
ctest-timeout: 900
"""

import errno
import fcntl
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from networks import KILN, ROOT, expect, kiln, main

NET = ROOT / "examples" / "digits" / "digits.onnx"
DATA = ROOT / "examples" / "digits" / "digits_test.npz"
OLD = b"what stood here before"
SHIM = Path(os.environ.get("KILN_TMP", "/tmp")) / "faults.so"


def compile_shim():
    source = ROOT / "tests" / "cli" / "faults.c"
    words = ["cc", "-shared", "-fPIC", "-O1", "-o", SHIM, source, "-ldl"]
    subprocess.run([str(w) for w in words], check=True)


def faulty(t, call, at, kind, *words):
    """The finished command, and whether the fault happened."""
    mark = t / "mark"
    mark.unlink(missing_ok=True)
    env = {"LD_PRELOAD": SHIM, "FAULT_CALL": call, "FAULT_AT": at, "FAULT_KIND": kind}
    env["FAULT_FILE"] = mark
    done = kiln(*words, **{k: str(v) for k, v in env.items()})
    return done, mark.exists()


def left_over(t):
    return [p.name for p in t.rglob(".kiln-*")]


# What writes a file at {o}, and its ending.
WRITERS = [
    (["build", NET, "--opt-level", "0", "-o"], "x.kiln"),
    (["export", NET, "-o"], "x.onnx"),
    (["run", NET, "-o"], "x.npy"),
    (["run", NET, "-o"], "x.npz"),
    (["run", NET, "-o"], "x.pb"),
    (["run", NET, "-o"], "x.bin"),
]


def sweep(t, call, kind, status):
    """Every call in turn fails; the number of faults that happened."""
    faults = 0
    for words, name in WRITERS:
        target = t / name
        expect(kiln(*words, target), 0)
        complete = target.read_bytes()
        for at in range(1, 60):
            target.write_bytes(OLD)
            done, happened = faulty(t, call, at, kind, *words, target)
            faults += happened
            if not happened:
                break
            expect(done, status)
            new = complete if status == 0 else OLD
            if call == "fsync" and status and target.read_bytes() == complete:
                new = complete  # the folder's, after the file was in place
            assert target.read_bytes() == new, f"{name}: {call} {at} left something else"
            assert status == 0 or name in done.stderr, done.stderr
            assert not left_over(t), left_over(t)
        else:
            raise AssertionError(f"{name}: no end of {call}")
    assert faults >= len(WRITERS), f"only {faults} faults happened"


def disk_full(t):
    sweep(t, "write", errno.ENOSPC, 7)


def disk_failing_at_sync(t):
    sweep(t, "fsync", errno.EIO, 7)


def rename_refused(t):
    sweep(t, "renameat", errno.EACCES, 7)


def short_writes_are_continued(t):
    sweep(t, "write", "SHORT", 0)


def interrupted_writes_are_continued(t):
    sweep(t, "write", errno.EINTR, 0)


CALIBRATE = ["calibrate", NET, "--calib", DATA, "--calib-count", 200, "--save-calib"]
QUANTIZE = ["quantize", NET, "--calib", DATA, "--calib-count", 200, "-o"]


def killed_at_any_write(t):
    """SIGKILL at each call that touches the disk: the old file or the complete new one stands there,
    the same command works afterwards, and what the killed one left is removed in time."""
    kills = 0
    for words, name in [(CALIBRATE, "x.calib"), (QUANTIZE, "x.onnx"), (WRITERS[0][0], "x.kiln")]:
        target = t / name
        expect(kiln(*words, target), 0)
        complete = target.read_bytes()
        for call in ("write", "fsync", "renameat"):
            for at in range(1, 60):
                target.write_bytes(OLD)
                done, happened = faulty(t, call, at, "KILL", *words, target)
                if not happened:
                    break
                kills += 1
                assert done.returncode == -9, done
                assert target.read_bytes() in (OLD, complete), f"{name}: {call} {at}"
        for p in left_over(t):
            os.utime(t / p, (1, 1))
        expect(kiln(*words, target), 0)
        assert target.read_bytes() == complete and not left_over(t), left_over(t)
    assert kills >= 9, kills


def killed_at_any_moment(t):
    """SIGKILL at moments spread over a calibration: no half-written file."""
    target = t / "x.calib"
    start = time.monotonic()
    expect(kiln(*CALIBRATE, target), 0)
    whole, complete, kills = time.monotonic() - start, target.read_bytes(), 0
    for k in range(30):
        target.write_bytes(OLD)
        process = subprocess.Popen(
            [KILN, *map(str, CALIBRATE), str(target)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(whole * k / 28)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        assert target.read_bytes() in (OLD, complete), k
    assert kills >= 5, kills
    expect(kiln(*CALIBRATE, target), 0)
    assert target.read_bytes() == complete


def files_at_work_stay(t):
    """Only what nobody has locked, and is old, counts as left over."""
    young, locked = (t / f".kiln-{n}.tmp" for n in ("young", "locked"))
    other = t / ".kiln-notes.txt"
    for p in (young, locked, other):
        p.write_bytes(OLD)
    for p in (locked, other):
        os.utime(p, (1, 1))
    with open(locked) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        expect(kiln("run", NET, "-o", t / "y.npy"), 0)
        assert young.exists() and locked.exists() and other.exists()
    expect(kiln("run", NET, "-o", t / "y.npy"), 0)
    assert young.exists() and other.exists() and not locked.exists()


def external_data_and_model_agree(t):
    """Two files: whatever fails, the model that stands there can be read with its data."""
    words = ["export", NET, "--external-data", 64, "-o", t / "x.onnx"]
    for at in range(1, 60):
        for p in t.glob("x.onnx*"):
            p.unlink()
        done, happened = faulty(t, "write", at, errno.ENOSPC, *words)
        if not happened:
            break
        expect(done, 7)
        assert not (t / "x.onnx").exists(), "a model stands there without all of its data"
        assert not left_over(t), left_over(t)
    assert at > 2
    expect(kiln("run", t / "x.onnx"), 0)


def folder_of_outputs(t):
    for at in range(1, 20):
        done, happened = faulty(
            t, "write", at, errno.ENOSPC, "run", NET, "--output-dir", t / "d"
        )
        if not happened:
            break
        expect(done, 7)
        assert not left_over(t), left_over(t)
        for p in (t / "d").glob("*.npy"):
            np.load(p)
    assert at > 1


def files_that_may_not_grow(t):
    """RLIMIT_FSIZE: the signal that would kill is ignored, the write fails."""
    target = t / "x.kiln"
    target.write_bytes(OLD)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [KILN, "build", NET, "-o", target], capture_output=True, text=True, preexec_fn=limit
    )
    expect(done, 7, "x.kiln", "File too large")
    assert target.read_bytes() == OLD and not left_over(t)


def stdout_on_a_full_disk(t):
    with open("/dev/full", "w") as full:
        done = subprocess.run([KILN, "run", NET], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 7 and "stdout" in done.stderr, done


def devices_are_no_targets(t):
    expect(kiln("build", NET, "-o", "/dev/full"), 7, "not a regular file")
    expect(kiln("build", NET, "-o", t), 7, "not a regular file")
    expect(kiln("build", NET, "-o", t / "no" / "x.kiln"), 7, "No such file")


def reads_that_fail(t):
    """With --no-mmap the model is read; short reads go on, errors are told."""
    for at in range(1, 20):
        done, happened = faulty(t, "read", at, "SHORT", "run", NET, "--no-mmap")
        if not happened:
            break
        expect(done, 0)
    failed = 0
    for at in range(1, 20):
        done, happened = faulty(t, "read", at, errno.EIO, "run", NET, "--no-mmap")
        if not happened:
            break
        assert done.returncode in (0, 7), done
        failed += done.returncode == 7
    assert failed > 0, "no read of the model failed"


def threads_that_cannot_start(t):
    """Fewer run, the command says so, the answer is the same."""
    expect(kiln("run", NET, "--threads", 4, "-o", t / "a.npy"), 0)
    for at, got in ((1, 1), (3, 3)):
        words = ["run", NET, "--threads", 4, "-o", t / "b.npy"]
        done, happened = faulty(t, "pthread_create", at, errno.EAGAIN, *words)
        expect(done, 0, f"only {got} of 4 threads could be started")
        assert happened
        assert (t / "a.npy").read_bytes() == (t / "b.npy").read_bytes()


def clocks_that_jump(t):
    """Somebody sets the time of day by days while it works: nothing waits for it or measures by it."""
    env = {"LD_PRELOAD": str(SHIM), "FAULT_CALL": "clock", "FAULT_AT": "86400"}
    start = time.monotonic()
    done = expect(kiln("bench", NET, "--duration", 1, "--format", "json", **env), 0)
    assert time.monotonic() - start < 30
    one = json.loads(done.stdout)["results"][0]
    assert one["runs"] >= 10 and 0 < one["latency_ms"]["min"] <= one["latency_ms"]["max"] < 5000, one
    for _ in range(3):
        expect(kiln("build", NET, "-o", t / "x.kiln", **env), 0)
    expect(kiln("run", t / "x.kiln", **env), 0)
    assert not left_over(t)


def engines_on_other_instruction_sets(t):
    sets = json.loads(kiln("doctor", "--format", "json").stdout)["instruction_sets"]
    if not sets.get("avx2"):
        return
    expect(kiln("build", NET, "--max-isa", "avx2", "--portable", "-o", t / "p.kiln"), 0)
    expect(kiln("build", NET, "--max-isa", "avx2", "-o", t / "n.kiln"), 0)
    done = expect(kiln("run", t / "p.kiln", "-o", t / "a.npy"), 0)
    assert "rebuilt" not in done.stderr + done.stdout, done.stderr
    lower = {"KILN_MAX_ISA": "portable"}
    done = expect(kiln("run", t / "p.kiln", "-o", t / "b.npy", **lower), 0)
    assert "avx2" in done.stderr and "portable" in done.stderr, done.stderr
    a, b = np.load(t / "a.npy"), np.load(t / "b.npy")
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()
    expect(kiln("run", t / "n.kiln", **lower), 8, "avx2", "kiln build")


if __name__ == "__main__":
    compile_shim()
    sys.exit(
        main(
            [
                disk_full,
                disk_failing_at_sync,
                rename_refused,
                short_writes_are_continued,
                interrupted_writes_are_continued,
                killed_at_any_write,
                killed_at_any_moment,
                files_at_work_stay,
                external_data_and_model_agree,
                folder_of_outputs,
                files_that_may_not_grow,
                stdout_on_a_full_disk,
                devices_are_no_targets,
                reads_that_fail,
                threads_that_cannot_start,
                clocks_that_jump,
                engines_on_other_instruction_sets,
            ]
        )
    )
