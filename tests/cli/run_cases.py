#!/usr/bin/env python3
"""Runs the cases of cases.txt; see there for the form. Standard library only.

    run_cases.py [--list] [PATTERN]      cases whose names hold PATTERN
"""

import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KEYS = {"exit", "out", "err", "not-out", "not-err", "json", "same"}


def parse(text):
    """(name, command, [(key, value)]) of each case."""
    cases, command, name, expect = [], [], None, []

    def flush():
        if name:
            cases.append((name, "\n".join(command), list(expect)))

    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("## "):
            flush()
            name, command, expect = line[3:].strip(), [], []
        elif line.startswith("$ "):
            command.append(line[2:])
        elif line.startswith("#") or not line.strip():
            continue
        else:
            key, _, value = line.partition(": ")
            if key not in KEYS or not command:
                raise SystemExit(f"cases.txt:{number}: {line!r} is no expectation")
            expect.append((key, value))
    flush()
    return cases


def environment(scratch):
    kiln = os.environ.get("KILN_BIN", str(ROOT / "build" / "release" / "kiln"))
    env = {k: v for k, v in os.environ.items() if k not in ("KILN_MAX_ISA", "NO_COLOR", "TERM")}
    return env | {"K": kiln, "T": str(scratch), "D": "examples/digits", "BAD": "tests/golden/bad"}


def judge(key, value, done, env):
    """None when the expectation holds, else what was found."""
    if key == "exit":
        return None if str(done.returncode) in value.split() else f"exit {done.returncode}"
    if key in ("out", "err"):
        text = getattr(done, "std" + key)
        return None if fnmatch.fnmatchcase(text, f"*{value}*") else f"std{key} lacks {value!r}"
    if key in ("not-out", "not-err"):
        text = getattr(done, "std" + key[4:])
        return f"std{key[4:]} has {value!r}" if value in text else None
    if key == "json":
        try:
            return None if eval(value, {"d": json.loads(done.stdout)}) else f"json: not {value}"
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return f"json: {error!r}"
    if key == "same":
        file = ROOT / value
        return None if file.read_text() == done.stdout else f"stdout is not {value}"
    return f"unknown expectation {key}"


def run_case(case, env):
    """The problems of one case."""
    _, command, expect = case
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    problems = [p for key, value in expect if (p := judge(key, value, done, env))]
    if "AddressSanitizer" in done.stderr or "runtime error:" in done.stderr:
        problems.append("a sanitizer spoke")
    if problems:
        problems.append("stdout: " + done.stdout[-600:])
        problems.append("stderr: " + done.stderr[-600:])
    return problems


# Each of these must be found wrong: (stdout, stderr, exit) against an expectation.
WRONG = [
    ("exit", "1"),
    ("out", "absent"),
    ("err", "absent"),
    ("not-out", "hello"),
    ("not-err", "world"),
    ("json", "True"),
    ("same", "tests/cli/cases.txt"),
]


def self_test(env):
    for key, value in WRONG:
        if not run_case(("", "echo hello; echo world >&2", [(key, value)]), env):
            raise SystemExit(f"self-test: a wrong `{key}` went unnoticed")


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    cases = parse((HERE / "cases.txt").read_text())
    if "--list" in sys.argv:
        print("\n".join(name for name, _, _ in cases))
        return 0
    chosen = [c for c in cases if not arguments or arguments[0] in c[0]]
    scratch = Path(tempfile.mkdtemp(prefix="kiln-cli-", dir=os.environ.get("KILN_TMP")))
    env = environment(scratch)
    failed = 0
    try:
        self_test(env)
        for case in chosen:
            problems = run_case(case, env)
            failed += bool(problems)
            print(f"{'FAIL' if problems else 'ok  '} {case[0]}")
            for problem in problems:
                print("     " + problem.replace("\n", "\n     "))
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(scratch)], check=False)
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"cli: {len(chosen) - failed} of {len(chosen)} passed")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
