#!/usr/bin/env python3
"""Documents and code agree.

- Every function, type and enum that include/kiln/*.h declares stands below a comment.
- Every relative link of the repository's *.md files leads to a file.
- README.md has at most 150 lines.
- Every verb that `kiln --help` lists is explained in docs/ (as `kiln VERB`).
"""

import re
import subprocess

import csource

README_LINES = 150
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<(?:img|a)\b[^>]*\b(?:src|href)=\"([^\"]+)\"")
VERB = re.compile(r"^  ([a-z]+)  +\S", re.M)
SKIPPED_FOLDERS = {".git", "build", "install", "node_modules"}


def declarations(toks):
    """(line, name, documented) of each function declared at file level.

    A comment covers the declaration right below it, and further ones that follow without a blank
    line: a group that is explained together."""
    covered_until, start, i = -1, None, 0
    while i < len(toks):
        token = toks[i]
        if token.kind == "comment":
            last = token.line + token.text.count("\n")
            trailing = i > 0 and toks[i - 1].line == token.line
            if start is None and not trailing and "----" not in token.text:
                covered_until = last + 1
        elif token.kind == "pp" or (token.text in "{}" and start is None):
            start = None
        elif token.text == "{":
            i = csource.closing(toks, i)
        elif token.text == ";" and start is not None:
            head = [t for t in toks[start:i] if t.kind != "comment"]
            covered = head[0].line <= covered_until
            opening = next((k for k, t in enumerate(head) if t.text == "("), 0)
            pointer = head[opening + 1].text == "*" if opening else False
            if opening and not pointer and head[0].text != "typedef":
                yield head[0].line, head[opening - 1].text, covered
            if covered:
                covered_until = token.line + 1
            start = None
        elif start is None:
            start = i
            if token.text == "extern" and toks[i + 1].kind == "text":
                start, i = None, i + 1
        i += 1


def link_problems(root, path):
    for number, line in enumerate(csource.read(path).splitlines(), 1):
        for match in LINK.finditer(line):
            target = (match[1] or match[2]).split("#")[0]
            if target and ":" not in target and not (path.parent / target).exists():
                yield f"{path.relative_to(root)}:{number}: link to {target}, which does not exist"


def verb_problems(root, build):
    command = build / "kiln" if build else None
    if not command or not command.exists():
        return
    run = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    pages = "".join(csource.read(p) for p in csource.files(root, ["docs", "README.md"], ".md"))
    verbs = VERB.findall(run.stdout)
    if not verbs:
        yield "kiln --help: lists no verb"
    for verb in verbs:
        if not re.search(rf"\bkiln {verb}\b", pages):
            yield f"docs: `kiln {verb}` is not explained"


def check(root, build):
    problems = []
    for path in csource.files(root, ["include"], ".h"):
        for line, name, documented in declarations(csource.tokens(csource.read(path), True)):
            if not documented:
                problems.append(f"{path.relative_to(root)}:{line}: {name} has no comment")
    for path in csource.files(root, ["."], ".md"):
        if not SKIPPED_FOLDERS & set(path.relative_to(root).parts):
            problems += link_problems(root, path)
    readme = root / "README.md"
    if readme.exists() and csource.read(readme).count("\n") > README_LINES:
        problems.append(f"README.md: more than {README_LINES} lines")
    return problems + list(verb_problems(root, build))


GOOD = "/* Does a. */\nint kiln_a(void);\nint kiln_b(void);\n\ntypedef void (*kiln_fn)(int);\n"
HELP = "#!/bin/sh\nprintf 'Verbs:\\n  build   Builds\\n  run     Runs\\n'\n"
CASES = [
    ({"include/kiln/a.h": GOOD, "a.md": "[x](b.md#y) [w](https://x.org)", "b.md": ""}, None),
    ({"include/kiln/a.h": 'extern "C" {\n' + GOOD + "}\n"}, None),
    ({"include/kiln/a.h": GOOD + "\nint kiln_c(int x);\n"}, "a.h:7: kiln_c has no comment"),
    ({"include/kiln/a.h": "/* ---- Part ---- */\nint kiln_c(int x);\n"}, "kiln_c has no comment"),
    ({"include/kiln/a.h": "struct s {\n    int a; /* a */\n};\nint kiln_c(int x);\n"}, "kiln_c has"),
    ({"docs/a.md": "see [b](b.md)\n"}, "docs/a.md:1: link to b.md"),
    ({"build/kiln": HELP, "docs/cli.md": "`kiln run` runs, `kiln build` builds.\n"}, None),
    ({"build/kiln": HELP, "docs/cli.md": "`kiln run` runs.\n"}, "`kiln build` is not explained"),
    ({"build/kiln": "#!/bin/sh\necho nothing\n"}, "lists no verb"),
    ({"README.md": "x\n" * 151}, "README.md: more"),
]

if __name__ == "__main__":
    csource.main(check, CASES)
