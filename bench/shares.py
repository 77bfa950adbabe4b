#!/usr/bin/env python3
"""How near kernels come to what the processor can do: shares of the measured peak.

    shares.py                        with build/release: one thread, warm caches, the least of many runs
    shares.py --kiln KILN --checkkern CHECKKERN

Each row is a shape of a network, in float32, bfloat16 and 8 bits. Its multiply-adds a second
(`checkkern --bench`) are divided by the most that a core did in `kiln doctor --probe` for that kind
of number, which is run before and after: the larger counts. Where a floor is given, a `*` says that
the share is below it. Winograd convolutions reach their result with fewer multiplications than are
counted, and so may be above 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEAKS = {  # what each kind of number is multiplied by, the fastest first
    "f32": ["float32"],
    "bf16": ["bfloat16 in tiles", "bfloat16", "float32"],
    "q8": ["int8 in tiles", "int8 by dot products", "int8 by pairs"],
}


@dataclass
class Conv:
    """A convolution with bias and ReLU over c channels of size x size."""

    name: str
    c: int
    size: int
    out: int
    kernel: int
    stride: int = 1
    group: int = 1
    floors: tuple[tuple[str, float], ...] = ()

    def nodes(self) -> tuple[str, str, str]:
        x = f"[1,{self.c},{self.size},{self.size}]"
        w = f"[{self.out},{self.c // self.group},{self.kernel},{self.kernel}]"
        pad = self.kernel // 2
        attributes = f"pads={pad},{pad},{pad},{pad} strides={self.stride},{self.stride}"
        if self.group > 1:
            attributes += f" group={self.group}"
        return x, w, attributes

    def cases(self) -> dict[str, str]:
        x, w, attributes = self.nodes()
        whole = f"Conv f32{x} =f32{w} =f32[{self.out}] {attributes}"
        r = {"f32": f"conv_f32: {whole} | Relu $"}
        if self.group != self.c:
            r["bf16"] = f"conv_bf16: {whole} @bf16 | Relu $"
        if self.kernel == 3 and self.stride == 1 and self.group == 1:
            r["winograd"] = f"conv_winograd_f32: {whole} | Relu $"
        r["q8"] = (
            f"conv_q8: DequantizeLinear u8{x} f32(0.02) u8(128) | DequantizeLinear =i8{w} "
            f"=f32+[{self.out}] axis=0 | Conv $0 $1 =f32[{self.out}] {attributes} | Relu $ | "
            "QuantizeLinear $ f32(0.5) u8(0)"
        )
        return r


@dataclass
class Product:
    """Rows times a constant matrix, with a bias."""

    name: str
    m: int
    k: int
    n: int
    floors: tuple[tuple[str, float], ...] = ()

    def cases(self) -> dict[str, str]:
        whole = f"Gemm f32[{self.m},{self.k}] =f32[{self.k},{self.n}] =f32[{self.n}]"
        return {
            "f32": f"gemm_f32: {whole}",
            "bf16": f"gemm_bf16: {whole} @bf16",
            "q8": f"gemm_q8: DequantizeLinear u8[{self.m},{self.k}] f32(0.02) u8(128) | "
            f"DequantizeLinear =i8[{self.k},{self.n}] =f32+[{self.n}] axis=1 | "
            f"Gemm $0 $1 =f32[{self.n}] | QuantizeLinear $ f32(0.5) u8(0)",
        }


DEEP = (("f32", 0.93), ("q8", 0.93))
ROWS = [
    Product("Gemm 128 x 768 x 3072", 128, 768, 3072, DEEP),
    Product("Gemm 197 x 768 x 768", 197, 768, 768, DEEP),
    Product("Gemm 49 x 512 x 2048", 49, 512, 2048, DEEP),
    Product("Gemm 1 x 2048 x 1000", 1, 2048, 1000),
    Conv("1x1, 64 to 256, 56 x 56", 64, 56, 256, 1, floors=(("f32", 0.93), ("q8", 0.80))),
    Conv("1x1, 256 to 64, 56 x 56", 256, 56, 64, 1, floors=DEEP),
    Conv("1x1, 1024 to 256, 14 x 14", 1024, 14, 256, 1, floors=DEEP),
    Conv("1x1, 2048 to 512, 7 x 7", 2048, 7, 512, 1, floors=DEEP),
    Conv("3x3, 64 to 64, 56 x 56", 64, 56, 64, 3, floors=DEEP + (("winograd", 1.67),)),
    Conv("3x3, 128 to 128, 28 x 28", 128, 28, 128, 3, floors=DEEP + (("winograd", 1.67),)),
    Conv("3x3, 256 to 256, 14 x 14", 256, 14, 256, 3, floors=DEEP + (("winograd", 1.67),)),
    Conv("3x3, 512 to 512, 7 x 7", 512, 7, 512, 3, floors=DEEP),
    Conv("3x3 stride 2, 128, 56 x 56", 128, 56, 128, 3, 2, floors=DEEP),
    Conv("7x7 stride 2, 3 to 64, 224 x 224", 3, 224, 64, 7, 2, floors=(("f32", 0.85),)),
    Conv("3x3 in 25 groups, 400, 14 x 14", 400, 14, 400, 3, group=25),
    Conv("depthwise 3x3, 144, 56 x 56", 144, 56, 144, 3, group=144, floors=(("f32", 0.45),)),
    Conv("depthwise 3x3, 384, 14 x 14", 384, 14, 384, 3, group=384, floors=(("f32", 0.45),)),
    Conv("depthwise 5x5, 240, 28 x 28", 240, 28, 240, 5, group=240, floors=(("f32", 0.45),)),
]
KINDS = ["f32", "winograd", "bf16", "q8"]
TITLES = {"f32": "float32", "winograd": "Winograd", "bf16": "bfloat16", "q8": "8 bits"}


def probe(kiln: str) -> dict[str, float]:
    done = subprocess.run(
        [kiln, "doctor", "--probe", "--threads", "1", "--format", "json"],
        check=True,
        stdout=subprocess.PIPE,
    )
    rates = json.loads(done.stdout)["probe"]["gmac_per_s"]
    return {name: rate["one_thread"] for name, rate in rates.items()}


def bench(checkkern: str, cases: list[str]) -> list[float | None]:
    """GMAC/s of each case; None where it cannot run here."""
    with tempfile.NamedTemporaryFile("w", suffix=".cases") as f:
        f.write("\n\n".join(cases) + "\n")
        f.flush()
        done = subprocess.run([checkkern, "--bench", f.name], stdout=subprocess.PIPE, text=True)
    lines = [s for s in done.stdout.splitlines() if " GMAC/s" in s or "cannot be timed" in s]
    if len(lines) != len(cases):
        sys.exit(f"{checkkern} timed {len(lines)} of {len(cases)} cases:\n{done.stdout}")
    return [None if "cannot" in s else float(s.split(" us")[1].split()[0]) for s in lines]


def cell(rate: float | None, peak: float | None, floor: float | None) -> str:
    if rate is None:
        return ""
    if not peak:
        return f"{rate:.0f}"
    share = rate / peak
    return f"{rate:.0f} ({share:.2f}{'*' if floor and share < floor else ''})"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--kiln", default=str(ROOT / "build/release/kiln"))
    p.add_argument("--checkkern", default=str(ROOT / "build/release/tests/ops/checkkern"))
    a = p.parse_args()
    wanted = [(row, kind, text) for row in ROWS for kind, text in row.cases().items()]
    first = probe(a.kiln)
    rates = bench(a.checkkern, [text for _, _, text in wanted])
    second = probe(a.kiln)
    best = {name: max(rate, second.get(name, 0)) for name, rate in first.items()}
    peaks = {k: next((best[n] for n in names if n in best), None) for k, names in PEAKS.items()}
    peaks["winograd"] = peaks["f32"]
    print("At most, GMAC/s of a core: " + ", ".join(f"{n} {r:.0f}" for n, r in best.items()) + "\n")
    print("| GMAC/s (share of the peak) | " + " | ".join(TITLES[k] for k in KINDS) + " |")
    print("|---|" + "--:|" * len(KINDS))
    found = {(row.name, kind): rate for (row, kind, _), rate in zip(wanted, rates)}
    for row in ROWS:
        floors = dict(row.floors)
        cells = [cell(found.get((row.name, k)), peaks[k], floors.get(k)) for k in KINDS]
        print(f"| {row.name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
