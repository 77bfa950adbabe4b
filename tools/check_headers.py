#!/usr/bin/env python3
"""Each header compiles alone: public ones as C11, C17 and C++17, internal ones as C17.

Uses $CC and $CXX (cc and c++). Internal headers of kernels get the AVX2 flags on x86-64, since they
are only ever seen by files that are compiled per instruction set.
"""

import concurrent.futures
import os
import platform
import subprocess

import csource

COMMON = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-Iinclude"]
PUBLIC = [("C11", "c", "c11"), ("C17", "c", "c17"), ("C++17", "c++", "c++17")]
INTERNAL = [("C17", "c", "c17")]
KERNELS = "src/backend/cpu/prims/"
X86 = platform.machine() in ("x86_64", "AMD64")
KERNEL_FLAGS = ["-DKILN_ISA=portable", "-DKILN_ISA_portable=1"]
if X86:
    KERNEL_FLAGS = ["-mavx2", "-mfma", "-mf16c", "-DKILN_ISA=avx2", "-DKILN_ISA_avx2=1"]


def compile_header(root, where, standard):
    """A problem in words, or None."""
    name, language, std = standard
    compiler = os.environ.get("CXX", "c++") if language == "c++" else os.environ.get("CC", "cc")
    command = [compiler, *COMMON, f"-std={std}", "-x", language, "-"]
    if where.startswith("src/"):
        command += ["-Isrc", "-Wno-unused-function"]
    if where.startswith(KERNELS):
        command += KERNEL_FLAGS
    # From standard input, not as the main file: so an include of the header itself is guarded too.
    source = f'#include "{where}"\n#include "{where}"\n'
    run = subprocess.run([*command, "-I."], input=source, cwd=root, capture_output=True, text=True)
    if run.returncode == 0:
        return None
    first = next((line for line in run.stderr.splitlines() if "error" in line), "compiler failed")
    return f"{where}:1: does not compile alone as {name}: {first}"


def check(root, _build):
    jobs = []
    for path in csource.files(root, ["include", "src"], ".h"):
        where = str(path.relative_to(root))
        jobs += [(where, std) for std in (PUBLIC if where.startswith("include/") else INTERNAL)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return [p for p in pool.map(lambda job: compile_header(root, *job), jobs) if p]


GUARDED = "#ifndef A_H\n#define A_H\n%s\n#endif\n"
CASES = [
    (
        {
            "include/kiln/a.h": GUARDED % "#include <stddef.h>\nsize_t kiln_a(void);",
            "src/b.h": GUARDED % '#include "kiln/a.h"\n',
        },
        None,
    ),
    ({"include/kiln/a.h": GUARDED % "size_t kiln_a(void);"}, "alone as C11"),
    ({"include/kiln/a.h": GUARDED % "struct class { int new; };"}, "alone as C++17"),
    ({"src/b.h": GUARDED % "kiln_status kiln_b(void);"}, "b.h:1: does not compile alone as C17"),
    ({"src/b.h": "struct twice { int a; };\n"}, "does not compile"),
]

if __name__ == "__main__":
    csource.main(check, CASES)
