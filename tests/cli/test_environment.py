#!/usr/bin/env python3
"""Surroundings that are short of something: memory, descriptors, a reader of the output, folders.
The command answers with a sentence and its status, and leaves nothing half done."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from networks import KILN, ROOT, expect, kiln, main

NET = ROOT / "examples" / "digits" / "digits.onnx"
CACHE = Path(os.environ.get("KILN_BUILD", "."), "CMakeCache.txt")
SANITIZED = CACHE.exists() and re.search(r"^KILN_SANITIZE:\w+=\w", CACHE.read_text(), re.M)


def limited(which, value, *words):
    return subprocess.run(
        [KILN, *map(str, words)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(which, (value, value)),
        timeout=120,
    )


def sparse_model_of_more_than_2_gib(t):
    with open(t / "x.onnx", "wb") as f:
        f.truncate((2 << 30) + 4096)
    start = time.monotonic()
    done = kiln("inspect", t / "x.onnx")
    assert done.returncode in (3, 6) and "x.onnx" in done.stderr, done
    assert time.monotonic() - start < 20


def little_address_space(t):
    """From too little to enough: an error that says so, or the result."""
    if SANITIZED:
        return
    seen = set()
    for mib in (24, 32, 48, 64, 96, 128, 256, 1024):
        done = limited(resource.RLIMIT_AS, mib << 20, "run", NET, "--threads", 1)
        loader = done.returncode == 127 and "shared libraries" in done.stderr
        assert loader or done.returncode in (0, 6, 7), (mib, done)
        assert loader or done.returncode == 0 or "error[E" in done.stderr, (mib, done)
        seen.add(done.returncode)
    assert 0 in seen, seen


def few_descriptors(t):
    for n in (3, 4, 5, 6, 8):
        done = limited(resource.RLIMIT_NOFILE, n, "build", NET, "-o", t / "x.kiln")
        loader = done.returncode == 127 and "shared libraries" in done.stderr
        assert loader or done.returncode in (0, 7), (n, done)
        assert (t / "x.kiln").exists() == (done.returncode == 0), (n, done)
        assert not list(t.glob(".kiln-*")), n
        (t / "x.kiln").unlink(missing_ok=True)


def folders_that_are_not_there(t):
    env = {"TMPDIR": str(t / "none"), "HOME": str(t / "none"), "XDG_CACHE_HOME": str(t / "none")}
    expect(kiln("build", NET, "-o", t / "x.kiln", **env), 0)
    expect(kiln("run", t / "x.kiln", **env), 0)
    expect(kiln("build", NET, "-o", t / "none" / "x.kiln"), 7, "none/x.kiln")


def folders_that_cannot_be_written(t):
    """A folder without the right to write (which root always has), and file systems without files."""
    (t / "only").mkdir(0o500)
    folders = ["/sys", "/proc"] + ([t / "only"] if os.geteuid() else [])
    for folder in folders:
        expect(kiln("build", NET, "-o", f"{folder}/x.kiln"), 7, f"{folder}/x.kiln")
    assert not list((t / "only").iterdir())


def no_home(t):
    words = ["env", "-u", "HOME", "-u", "TMPDIR", "-u", "PATH", KILN, "run", NET, "--threads", "1"]
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done


def small_stacks(t):
    """256 KiB for the main thread and, by the same limit, for each worker."""
    if SANITIZED:
        return
    for words in (["build", NET, "-o", t / "x.kiln"], ["run", t / "x.kiln"], ["check", NET]):
        done = limited(resource.RLIMIT_STACK, 256 << 10, *words)
        assert done.returncode == 0, done


def one_processor(t):
    """What may run on one processor starts one thread, and says the same."""
    words = [KILN, "run", NET, "--seed", "3", "-o"]
    one = {min(os.sched_getaffinity(0))}
    pinned = subprocess.run(
        [*map(str, words), str(t / "one.npy")],
        capture_output=True,
        preexec_fn=lambda: os.sched_setaffinity(0, one),
        timeout=120,
    )
    assert pinned.returncode == 0, pinned
    expect(kiln(*words[1:], t / "all.npy"), 0)
    assert (t / "one.npy").read_bytes() == (t / "all.npy").read_bytes()
    done = subprocess.run(
        [KILN, "doctor", "--format", "json"],
        capture_output=True,
        preexec_fn=lambda: os.sched_setaffinity(0, one),
        timeout=120,
    )
    assert json.loads(done.stdout)["machine"]["cores_usable"] == 1, done.stdout


def nobody_reads_the_output(t):
    for words in (["inspect", NET, "--layers"], ["run", NET, "--print-outputs"]):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run([KILN, *map(str, words)], stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        assert done.returncode in (7, -signal.SIGPIPE), done


def interrupted(t):
    """Once and twice: a long bench ends soon, with the status of its signal."""
    for times in (1, 2):
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process = subprocess.Popen(
                [KILN, "bench", str(NET), "--duration", "60"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            time.sleep(1)
            for _ in range(times):
                process.send_signal(number)
                time.sleep(0.05)
            process.communicate(timeout=20)
            assert process.returncode in (status, -number), (number, times, process.returncode)


if __name__ == "__main__":
    sys.exit(
        main(
            [
                sparse_model_of_more_than_2_gib,
                little_address_space,
                few_descriptors,
                folders_that_are_not_there,
                folders_that_cannot_be_written,
                no_home,
                small_stacks,
                one_processor,
                nobody_reads_the_output,
                interrupted,
            ]
        )
    )
