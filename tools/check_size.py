#!/usr/bin/env python3
"""Files, functions and decisions stay small.

Limits: file 800 lines (public headers 600), function 100 lines, cyclomatic complexity 20.
Reported without failing: files over 500 lines, functions over 60. Exceptions with their reasons
stand in tools/size_exceptions.txt. Complexity counts if, for, while, case, &&, || and ?, plus one.
"""

import csource

FILE_SOFT, FILE_HARD, PUBLIC_HEADER_HARD = 500, 800, 600
FUNCTION_SOFT, FUNCTION_HARD = 60, 100
COMPLEXITY_HARD = 20
DECISIONS = {"if", "for", "while", "case", "&&", "||", "?"}
FOLDERS = ["src", "include", "tests", "bench", "examples", "lab", "tools"]


def start_of_definition(toks, start, end):
    """Where the definition before toks[end] starts: past macro calls that need no semicolon."""
    depth = 0
    for i in range(start, end - 1):
        depth += (toks[i].text == "(") - (toks[i].text == ")")
        after = toks[i + 1]
        if depth == 0 and toks[i].text == ")" and after.kind == "id" and after.line > toks[i].line:
            start = i + 1
    return start


def functions(toks):
    """(name, first line, last line, complexity) of each function definition at file level."""
    toks = [t for t in toks if t.kind != "pp"]
    i = start = 0
    while i < len(toks):
        text = toks[i].text
        if text == ";":
            start = i + 1
        elif text == "{" and i > 0 and toks[i - 1].kind == "text":
            start = i + 1  # extern "C" {: what it holds is file level too
        elif text == "}":
            start = i + 1
        elif text == "{":
            end = csource.closing(toks, i)
            head = toks[start_of_definition(toks, start, i) : i]
            opening = next((k for k, t in enumerate(head) if t.text == "("), 0)
            if opening and head[-1].text == ")" and not any(t.text == "=" for t in head):
                body = toks[i : end + 1]
                complexity = 1 + sum(t.text in DECISIONS for t in body if t.kind != "text")
                inner = csource.closing(head, opening)
                if inner + 1 < len(head) and head[inner + 1].text == "(":
                    opening += 2  # NAME_MACRO(name)(parameters)
                yield head[opening - 1].text, head[0].line, toks[end].line, complexity
                start = end + 1
            i = end
        i += 1


def parse_exceptions(text):
    out = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            what, kind, limit, reason = line.split(None, 3)
            out[what, kind] = int(limit), reason
    return out


class Limits:
    """Collects problems and remarks, and which exceptions were needed."""

    def __init__(self, exceptions):
        self.exceptions, self.needed = exceptions, set()
        self.problems, self.remarks = [], []

    def hold(self, what, line, kind, value, soft, hard):
        limit = self.exceptions.get((what, kind), (hard, ""))[0]
        if value > hard:
            self.needed.add((what, kind))
        if value > limit:
            self.problems.append(f"{what}:{line}: {value} {kind}, limit {limit}")
        elif hard >= value > soft:
            self.remarks.append(f"note: {what}:{line}: {value} {kind}, aim for {soft}")


def check(root, _build):
    listing = root / "tools/size_exceptions.txt"
    limits = Limits(parse_exceptions(csource.read(listing)) if listing.exists() else {})
    for path in csource.files(root, FOLDERS, ".c", ".h", ".def", ".py"):
        where, source = str(path.relative_to(root)), csource.read(path)
        hard = PUBLIC_HEADER_HARD if where.startswith("include/") else FILE_HARD
        limits.hold(where, 1, "lines", source.count("\n"), FILE_SOFT, hard)
        if path.suffix not in (".c", ".h"):
            continue
        for name, first, last, complexity in functions(csource.tokens(source)):
            what, lines = f"{where}:{name}", last - first + 1
            limits.hold(what, first, "lines", lines, FUNCTION_SOFT, FUNCTION_HARD)
            limits.hold(what, first, "complexity", complexity, COMPLEXITY_HARD, COMPLEXITY_HARD)
    for what, kind in sorted(set(limits.exceptions) - limits.needed):
        limits.problems.append(f"tools/size_exceptions.txt: {what} needs no exception for {kind}")
    if limits.remarks:
        print("\n".join(limits.remarks))
    return limits.problems


def sample(statements, prefix=""):
    return prefix + "static int f(int a) {\n" + statements + "    return a;\n}\n"


LONG, BRANCHY = sample("    a++;\n" * 99), sample("    if (a && a > 1) {\n    }\n" * 10)
CASES = [
    ({"src/a.c": sample("    a++;\n" * 50) * 5}, None),
    ({"src/a.c": 'char *t[] = {"if", "&&"};\nstruct s {\n' + "int x;\n" * 200 + "};\n"}, None),
    ({"src/a.c": LONG}, "src/a.c:f:1: 102 lines"),
    ({"include/a.h": 'extern "C" {\n' + LONG + "}\n"}, "a.h:f:2: 102 lines"),
    ({"src/a.c": sample("    a++;\n" * 99, "int table[] = {1, 2};\n")}, "a.c:f:2: 102 lines"),
    ({"src/a.c": "ENTRY(a)\n" * 200 + sample("")}, None),
    ({"src/a.c": LONG.replace("f(", "VARIANT(f)(", 1)}, "a.c:f:1: 102 lines"),
    ({"src/a.c": BRANCHY}, "src/a.c:f:1: 21 complexity"),
    ({"src/a.c": BRANCHY, "tools/size_exceptions.txt": "src/a.c:f complexity 21 a table\n"}, None),
    ({"src/a.c": "", "tools/size_exceptions.txt": "src/a.c:f lines 120 old\n"}, "no exception"),
    ({"src/a.c": "\n" * 801}, "src/a.c:1: 801 lines"),
    ({"include/kiln/a.h": "\n" * 601}, "a.h:1: 601 lines"),
]

if __name__ == "__main__":
    csource.main(check, CASES)
