#!/usr/bin/env python3
"""The libraries export kiln_ names alone and call nothing that ends the process or prints for it.

Looks at libkiln.so (exported) and at libkiln.a (defined and undefined symbols of every object).
"""

import pathlib
import re
import subprocess
import tempfile

import csource

FORBIDDEN = set(
    "exit _exit _Exit abort quick_exit "
    "printf vprintf puts putchar perror stdout stderr __printf_chk __vprintf_chk "
    "signal sigaction sigprocmask setlocale setenv putenv srand rand "
    "system popen fork".split()
)
OWN = re.compile(r"kiln_\w+")


def nm(*arguments):
    """(symbol type, name) of each line of nm -P."""
    run = subprocess.run(["nm", "-P", *arguments], capture_output=True, text=True, check=True)
    lines = [line.split() for line in run.stdout.splitlines()]
    return [(words[1], words[0].split("@")[0]) for words in lines if len(words) >= 2]


def check(root, build):
    build = build or root / "build/release"
    if not (build / "libkiln.so").exists():
        return [f"{build}/libkiln.so does not exist: build first, or name a folder with --build"]
    problems = []
    exported = [name for _, name in nm("-D", "--defined-only", str(build / "libkiln.so"))]
    problems += [f"libkiln.so: exports {name}" for name in exported if not OWN.fullmatch(name)]
    if not exported:
        problems.append("libkiln.so: exports nothing")
    for kind, name in nm("-g", str(build / "libkiln.a")):
        if kind == "U" and name in FORBIDDEN:
            problems.append(f"libkiln.a: uses {name}")
        if kind in "TDBRC" and not OWN.fullmatch(name):
            problems.append(f"libkiln.a: defines {name}, which has no kiln_ prefix")
    return sorted(set(problems))


def compiled_check(root, _build):
    """check() on libraries made of the tree's one file, a.c."""
    with tempfile.TemporaryDirectory() as folder:
        build = pathlib.Path(folder)
        for command in (
            ["cc", "-c", "-O0", "-fPIC", "-ffreestanding", root / "a.c", "-o", build / "a.o"],
            ["cc", "-shared", "-nostdlib", build / "a.o", "-o", build / "libkiln.so"],
            ["ar", "rc", build / "libkiln.a", build / "a.o"],
        ):
            subprocess.run(command, check=True)
        return check(root, build)


CASES = [
    ({"a.c": "void g(void);\nvoid kiln_f(void) { g(); }\n"}, None),
    ({"a.c": "void kiln_f(void) {}\nvoid helper(void) {}\n"}, "exports helper"),
    ({"a.c": "void kiln_f(void) {}\nint table = 3;\n"}, "defines table"),
    ({"a.c": "void abort(void);\nvoid kiln_f(void) { abort(); }\n"}, "uses abort"),
    ({"a.c": "extern int *stderr;\nint *kiln_f(void) { return stderr; }\n"}, "uses stderr"),
    ({"a.c": "static void kiln_f(void) {}\n"}, "exports nothing"),
]

if __name__ == "__main__":
    import sys

    csource.main(compiled_check if "--self-test" in sys.argv else check, CASES)
