"""Shared by the check_*.py scripts: a C tokenizer, the list of files, and the command line.

A check is a function check(root, build) -> list of problems, each "path:line: sentence", where
`root` is the source tree and `build` the build folder (or None). main() runs it on the repository,
or with --self-test on small trees that must pass or fail in a given way.
"""

import argparse
import pathlib
import re
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent

# One alternative per kind; the first that matches wins.
TOKEN = re.compile(
    r"""
    (?P<comment>//(?:\\\n|[^\n])*|/\*.*?\*/)
  | (?P<pp>(?m:^)[ \t]*\#(?:\\\n|/\*.*?\*/|[^\n])*)
  | (?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
  | (?P<id>[A-Za-z_]\w*)
  | (?P<num>\.?\d(?:[eEpP][+-]|[\w.])*)
  | (?P<space>\s+)
  | (?P<op>&&|\|\||[-+*/%&|^!=<>]=|<<|>>|->|\+\+|--|.)
    """,
    re.X | re.S,
)


class Token(NamedTuple):
    kind: str  # comment, pp (a whole directive), text, id, num, op
    text: str
    line: int


def tokens(source, comments=False):
    """Tokens of C source text; comments only when asked for."""
    out, line = [], 1
    for match in TOKEN.finditer(source):
        kind, text = match.lastgroup, match.group()
        if kind != "space" and (comments or kind != "comment"):
            out.append(Token(kind, text, line))
        line += text.count("\n")
    return out


def files(root, folders, *suffixes):
    """Files below the folders (or the folders themselves, when files), sorted."""
    found = []
    for folder in folders:
        base = root / folder
        found += [base] if base.is_file() else [p for p in base.rglob("*") if p.is_file()]
    return sorted(p for p in found if p.suffix in suffixes)


def read(path):
    return path.read_text(encoding="utf-8", errors="replace")


def closing(toks, start):
    """Index of the bracket that closes the one at `start`, or the last index."""
    pairs = {"(": ")", "{": "}", "[": "]"}
    opening, depth = toks[start].text, 0
    for i in range(start, len(toks)):
        if toks[i].kind == "op":
            depth += (toks[i].text == opening) - (toks[i].text == pairs[opening])
        if depth == 0:
            return i
    return len(toks) - 1


def self_test(check, cases):
    """cases: (files by path, words that a problem must hold, or None for a clean tree).

    A file whose text begins with #! is executable; a folder build/ is handed on as such."""
    failures = 0
    for number, (tree, expected) in enumerate(cases, 1):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for path, content in tree.items():
                target = root / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(content)
                target.chmod(0o755 if content.startswith("#!") else 0o644)
            build = root / "build"
            problems = check(root, build if build.exists() else None)
        good = not problems if expected is None else any(expected in p for p in problems)
        if not good:
            failures += 1
            print(f"case {number}: expected {expected or 'no problem'!r}, got {problems}")
    print(f"self-test: {len(cases) - failures} of {len(cases)} cases as expected")
    return failures


def main(check, cases):
    parser = argparse.ArgumentParser()
    parser.add_argument("--self-test", action="store_true", help="prove that the check can fail")
    parser.add_argument("--build", type=pathlib.Path, help="build folder")
    options = parser.parse_args()
    if options.self_test:
        sys.exit(self_test(check, cases) != 0)
    problems = check(ROOT, options.build)
    print("\n".join(problems))
    print(f"{pathlib.Path(sys.argv[0]).stem}: {len(problems)} problems")
    sys.exit(bool(problems))
