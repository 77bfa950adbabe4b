#!/usr/bin/env python3
"""Our C is formatted by clang-format 14 and .clang-format, in 100 columns, without odd white space.

`./dev format` repairs it. The column limit is checked here too, because comments are not rewrapped.
"""

import pathlib
import shutil
import subprocess

import csource

COLUMNS = {".c": 100, ".h": 100, ".def": 100, ".py": 120}
FOLDERS = ["src", "include", "tests", "bench", "examples", "lab", "tools"]
SCRIPTS = ["dev", ".ci/run", "CMakeLists.txt", "tests/CMakeLists.txt"]


def layout_problems(where, text):
    """Trailing blanks, tabs, long lines, a missing last newline."""
    limit = COLUMNS.get(pathlib.Path(where).suffix, 120)
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            yield f"{where}:{number}: blanks at the end of the line"
        if "\t" in line:
            yield f"{where}:{number}: a tab"
        if len(line) > limit:
            yield f"{where}:{number}: {len(line)} columns, limit {limit}"
    if text and not text.endswith("\n"):
        yield f"{where}: no newline at the end"


def check(root, _build):
    tool = shutil.which("clang-format-14")
    if not tool:
        return ["clang-format-14 is not installed (./dev check installs it)"]
    sources = csource.files(root, FOLDERS, ".c", ".h")
    others = csource.files(root, FOLDERS, ".def", ".py", ".sh")
    others += [root / s for s in SCRIPTS if (root / s).exists()]
    problems = []
    for path in sources + others:
        problems += layout_problems(str(path.relative_to(root)), csource.read(path))
    style = f"--style=file:{csource.ROOT / '.clang-format'}"
    for path in sources:
        done = subprocess.run([tool, style, path], capture_output=True, text=True, check=True)
        text = csource.read(path)
        if done.stdout != text:
            pairs = zip(done.stdout.split("\n"), text.split("\n"))
            line = next((n for n, (a, b) in enumerate(pairs, 1) if a != b), 1)
            problems.append(f"{path.relative_to(root)}:{line}: differs from clang-format's form")
    return problems


CASES = [
    ({"src/a.c": "int f(void) {\n    return 1;\n}\n", "dev": "x\n"}, None),
    ({"src/a.c": "int f(void)\n{\n    return 1;\n}\n"}, "a.c:1: differs"),
    ({"src/a.h": "int  a;\n"}, "a.h:1: differs"),
    ({"src/a.h": "/* " + "x" * 100 + " */\n"}, "106 columns"),
    ({"dev": "x \n"}, "dev:1: blanks"),
    ({"src/a.def": "A(\tb)\n"}, "a tab"),
    ({"src/a.def": "A(b)"}, "no newline"),
]

if __name__ == "__main__":
    csource.main(check, CASES)
