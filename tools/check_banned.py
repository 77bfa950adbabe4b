#!/usr/bin/env python3
"""Calls and forms that our C does not use.

Everywhere: unbounded string functions, numbers parsed without errors, bodies without braces, notes
for later. In the library also: anything that prints, exits or touches process-wide state, and
malloc and its kin outside src/base/env.c.
"""

import re

import csource

EVERYWHERE = {
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "strcpy": "memcpy with a checked length",
    "strcat": "memcpy with a checked length",
    "strncpy": "memcpy with a checked length",
    "strncat": "memcpy with a checked length",
    "gets": "fgets",
    "atoi": "strtol with a check",
    "atol": "strtol with a check",
    "atof": "strtod with a check",
    "strtok": "strtok_r or a scan",
    "alloca": "an arena",
    "tmpnam": "mkostemp",
    "mktemp": "mkostemp",
}
PRINTING = ("printf", "vprintf", "puts", "putchar", "perror")
LIBRARY = dict.fromkeys(PRINTING, "kiln_env_log or a finding")
LIBRARY |= dict.fromkeys(("exit", "_exit", "abort", "quick_exit"), "a kiln_status")
LIBRARY |= dict.fromkeys(("setlocale", "signal", "sigaction", "setenv"), "no process-wide state")
ALLOCATION = dict.fromkeys(
    ("malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign", "strdup", "strndup"),
    "an arena or kiln_env_alloc",
)
ALLOCATOR_FILE = "src/base/env.c"
LATER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
HEADED = {"if", "for", "while", "switch"}
FOLDERS = ["src", "include", "tests", "bench", "examples", "lab", "tools"]


def banned_for(where):
    banned = dict(EVERYWHERE)
    if where.startswith("src/") and not where.startswith("src/cli/"):
        banned |= LIBRARY
        if where != ALLOCATOR_FILE:
            banned |= ALLOCATION
    return banned


def calls(toks, banned):
    for i, token in enumerate(toks[:-1]):
        member = i > 0 and toks[i - 1].text in (".", "->")
        if token.text in banned and token.kind == "id" and not member and toks[i + 1].text == "(":
            yield token.line, f"{token.text}: use {banned[token.text]}"


def bare_bodies(toks):
    """if, for, while, else and do whose body is not a block."""
    toks = [t for t in toks if t.kind != "pp"]
    for i, token in enumerate(toks[:-1]):
        body = i + 1
        if token.text in HEADED and token.kind == "id" and toks[body].text == "(":
            body = csource.closing(toks, body) + 1
        elif token.text not in ("else", "do") or token.kind != "id":
            continue
        follows = toks[body].text if body < len(toks) else "{"
        ends_do = token.text == "while" and follows == ";" and i > 0 and toks[i - 1].text == "}"
        if follows != "{" and not ends_do and not (token.text == "else" and follows == "if"):
            yield token.line, f"the body of `{token.text}` needs braces"


def check(root, _build):
    problems = []
    for path in csource.files(root, FOLDERS, ".c", ".h", ".def", ".inc"):
        where, toks = str(path.relative_to(root)), csource.tokens(csource.read(path), comments=True)
        found = [
            (t.line, "notes for later belong to the issue tracker")
            for t in toks
            if t.kind == "comment" and LATER.search(t.text)
        ]
        toks = [t for t in toks if t.kind != "comment"]
        found += calls(toks, banned_for(where))
        found += bare_bodies(toks)
        problems += [f"{where}:{line}: {sentence}" for line, sentence in sorted(found)]
    return problems


def body(statement):
    return "void f(void) {\n    " + statement + "\n}\n"


CLEAN = "if (a) {\n} else if (b) {\n} else {\n}\ndo {\n} while (a);\nfor (;;) {\n}\n"
CASES = [
    ({"src/ir/a.c": body(CLEAN + 'x->free(x); g("sprintf(");  /* malloc(1) */')}, None),
    ({"src/base/env.c": body("free(p);")}, None),
    ({"src/cli/main.c": body('printf("x");')}, None),
    ({"src/ir/a.c": body("free(p);")}, "a.c:2: free"),
    ({"src/ir/a.c": body('printf("x");')}, "printf"),
    ({"src/ir/a.c": body("exit(1);")}, "exit"),
    ({"tests/a.c": body("sprintf(b, s);")}, "sprintf"),
    ({"tests/a.c": body("n = atoi(s);")}, "atoi"),
    ({"src/cli/a.c": body("if (a)\n        b();")}, "body of `if`"),
    ({"src/cli/a.c": body("while (a);")}, "body of `while`"),
    ({"src/cli/a.c": body("if (a) {\n    } else\n        b();")}, "body of `else`"),
    ({"src/a.c": "/* TODO more */\n"}, "issue tracker"),
]

if __name__ == "__main__":
    csource.main(check, CASES)
