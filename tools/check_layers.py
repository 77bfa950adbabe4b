#!/usr/bin/env python3
"""Every #include of a file of ours is allowed by tools/layers.txt, and layers.txt has no cycle.

Folders stand below src/; `examples` is the folder at the root. `api.c` names the file src/api.c and
its siblings src/api_*.c.
"""

import re

import csource

INCLUDE = re.compile(r'#\s*include\s+"([^"]+)"')


def parse_layers(text):
    layers = {}
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line:
            folder, _, allowed = line.partition(":")
            layers[folder.strip()] = allowed.split()
    return layers


def find_cycle(layers):
    """A folder that reaches itself, or None."""
    for start in layers:
        seen, todo = set(), list(layers[start])
        while todo:
            folder = todo.pop()
            if folder == start:
                return start
            if folder not in seen:
                seen.add(folder)
                todo += layers.get(folder, [])
    return None


def layer_of(path, layers):
    """The longest layer that holds a path relative to src/, or None."""
    if re.fullmatch(r"api(_\w+)?\.[ch]", path):
        path = "api.c"
    inside = [f for f in layers if path == f or path.startswith(f + "/")]
    return max(inside, key=len, default=None)


def check(root, _build):
    listing = root / "tools/layers.txt"
    layers = parse_layers(csource.read(listing))
    problems = []
    cycle = find_cycle(layers)
    if cycle:
        problems.append(f"tools/layers.txt: {cycle} reaches itself")
    for folder, allowed in layers.items():
        problems += [
            f"tools/layers.txt: {folder} names {a}, which has no line"
            for a in allowed
            if a not in layers
        ]
    for path in csource.files(root, ["src", "examples"], ".c", ".h", ".def", ".inc"):
        where = path.relative_to(root)
        inside = where.relative_to("src") if where.parts[0] == "src" else where
        layer = layer_of(str(inside), layers)
        if layer is None:
            problems.append(f"{where}:1: its folder has no line in tools/layers.txt")
            continue
        for token in csource.tokens(csource.read(path)):
            match = INCLUDE.match(token.text.strip()) if token.kind == "pp" else None
            if not match or match[1].startswith("kiln/") or (path.parent / match[1]).is_file():
                continue
            target = layer_of(match[1], layers)
            if target is None:
                problems.append(f'{where}:{token.line}: "{match[1]}" is in no layer')
            elif target != layer and target not in layers[layer]:
                problems.append(f'{where}:{token.line}: {layer} may not include "{match[1]}"')
    return problems


LAYERS = "base:\nir: base\nbackend: base\nbackend/cpu: base backend\ncli:\n"
LAYERS += "examples:\napi.c: base ir\n"
CASES = [
    (
        {
            "tools/layers.txt": LAYERS,
            "src/base/a.h": "",
            "src/ir/a.c": '#include "base/a.h"\n#include "ir/b.h"\n#include "kiln/kiln.h"\n',
            "src/backend/cpu/c.c": '#include "backend/backend.h"\n',
            "src/api.c": '/* #include "cli/x.h" */\n#include "ir/b.h"\n',
        },
        None,
    ),
    ({"tools/layers.txt": LAYERS, "src/base/a.c": '#include "ir/b.h"\n'}, "a.c:1: base may not"),
    ({"tools/layers.txt": LAYERS, "src/cli/a.c": '\n#include "base/b.h"\n'}, "a.c:2: cli may not"),
    (
        {"tools/layers.txt": LAYERS, "src/backend/b.c": '#include "backend/cpu/k.h"\n'},
        "backend may not include",
    ),
    ({"tools/layers.txt": LAYERS, "examples/a.c": '#include "ir/b.h"\n'}, "examples may not"),
    ({"tools/layers.txt": LAYERS, "src/new/a.c": ""}, "has no line"),
    ({"tools/layers.txt": "a: b\nb: c\nc: a\n"}, "reaches itself"),
    ({"tools/layers.txt": "a: z\n"}, "which has no line"),
]

if __name__ == "__main__":
    csource.main(check, CASES)
