"""Ranges from Kiln's histograms against ONNX Runtime's calibrators and NumPy on the same data.

Through the shared library, as a program would use it. Percentiles agree within a bin of ONNX
Runtime's histogram, or up to the next elements where the tails are thin. Its entropy calibrator
counts the bins that do not divide evenly into levels in the last level, which favours some
thresholds over others; so the divergence itself is compared, by its definition on NumPy's
histogram: Kiln's threshold has the least, ONNX Runtime's no less.
"""

import ctypes
import os
import sys

import numpy as np
from onnxruntime.quantization.calibrate import HistogramCollector

from quant_api import ENTROPY, PERCENTILE, CalibrateOptions, Range, Tensor, lib


class Calibration:
    def __init__(self):
        self.handle = ctypes.c_void_p()
        assert lib.kiln_calibration_create(ctypes.byref(self.handle), None) == 0

    def observe(self, x):
        x = np.ascontiguousarray(x, np.float32)
        t = Tensor(1, 1, (ctypes.c_int64 * 32)(x.size), x.ctypes.data, x.nbytes)
        assert lib.kiln_calibration_observe(self.handle, b"x", ctypes.byref(t), None) == 0

    def range(self, calibrator, symmetric, percentile=99.9):
        p = (ctypes.c_double * 1)(percentile)
        o = CalibrateOptions(ctypes.sizeof(CalibrateOptions), calibrator, p, 1, symmetric, 8)
        r = Range()
        status = lib.kiln_calibration_range(
            self.handle, b"x", ctypes.byref(o), ctypes.byref(r), None
        )
        assert status == 0
        return r.lo, r.hi


def data_sets():
    rng = np.random.default_rng(1)
    gauss = rng.standard_normal((4, 20000)).astype(np.float32)
    yield "gauss", gauss
    yield "laplace", rng.laplace(size=(4, 20000)).astype(np.float32)
    yield "relu", np.maximum(gauss, 0)
    yield "swish", gauss / (1 + np.exp(-gauss)) * 3
    yield "uniform", rng.uniform(-2, 5, (4, 20000)).astype(np.float32)
    heavy = rng.standard_t(3, (4, 20000)).astype(np.float32)
    yield "student", heavy


def collect(method, symmetric, batches, bins, **more):
    more = {"num_quantized_bins": 128, "percentile": None, "scenario": None} | more
    c = HistogramCollector(method=method, symmetric=symmetric, num_bins=bins, **more)
    for batch in batches:
        c.collect({"x": batch})
    return c


def quiet(f, *args, **kw):
    out, sys.stdout = sys.stdout, open(os.devnull, "w")
    try:
        return f(*args, **kw)
    finally:
        sys.stdout = out


def divergences(x, bins=2048, levels=128):
    """Migacz (GTC 2017) for each number of bins kept, on |x| without zeros."""
    x = np.abs(x[x != 0]).astype(np.float64)
    h = np.histogram(x, bins, (0, x.max()))[0].astype(np.float64)
    out = np.full(bins + 1, np.inf)
    for m in range(levels, bins + 1):
        p, q = h[:m].copy(), np.zeros(m)
        p[-1] += h[m:].sum()
        edges = np.arange(levels + 1) * m // levels
        for a, b in zip(edges[:-1], edges[1:]):
            filled = (p[a:b] > 0).sum()
            q[a:b] = h[a:b].sum() / filled if filled else 0
        q[q == 0] = 1e-4
        some = p > 0
        out[m] = (p[some] / h.sum() * np.log(p[some] / h.sum() / (q[some] / h[:m].sum()))).sum()
    return out


def between(x, a, b):
    """Elements strictly between two numbers."""
    return ((x > min(a, b)) & (x < max(a, b))).sum()


def check_percentiles(name, batches, ours):
    for p in (99.0, 99.9, 99.99):
        for symmetric in (True, False):
            c = quiet(collect, "percentile", symmetric, batches, 2048, percentile=p)
            theirs = quiet(c.compute_collection_result)["x"][:2]
            edges = c.histogram_dict["x"][1]
            width = float(edges[1] - edges[0])
            mine = ours.range(PERCENTILE, symmetric, p)
            x = np.abs(batches) if symmetric else batches
            for side in (1,) if symmetric else (0, 1):
                a, b = float(theirs[side]), mine[side]
                near = abs(a - b) <= 1.01 * width or between(x, a, b) <= 2
                if not near:
                    raise SystemExit(f"{name} {p}: Kiln {mine}, ONNX Runtime {theirs}, bin {width}")


def check_entropy(name, batches, ours):
    c = quiet(collect, "entropy", True, batches, 1025, num_quantized_bins=127)
    theirs = max(abs(float(v)) for v in quiet(c.compute_collection_result)["x"][:2])
    mine = ours.range(ENTROPY, True)[1]
    d = divergences(batches)
    amax = float(np.abs(batches).max())

    def at(t):
        return d[min(2048, max(128, round(t / amax * 2048 + 0.5)))]

    print(f"{name}: Kiln {mine:.4f} ({at(mine):.6f}), ONNX Runtime {theirs:.4f} ({at(theirs):.6f})")
    # Kiln's bins are made from finer ones and differ by what straddles their edges.
    if at(mine) > 1.05 * d.min() + 1e-5 or at(mine) > at(theirs) * 1.05 + 1e-5:
        raise SystemExit(f"{name}: divergence {at(mine)}, the least is {d.min()}")
    worst = d[128:].max()
    assert worst > 2 * d.min(), "the comparison could not fail"


def main():
    for name, batches in data_sets():
        ours = Calibration()
        for batch in batches:
            ours.observe(batch)
        check_percentiles(name, batches, ours)
        check_entropy(name, batches, ours)


main()
