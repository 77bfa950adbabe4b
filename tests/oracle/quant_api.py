"""include/kiln/quant.h by ctypes, as far as the tests need it."""

import ctypes
import os
import pathlib

lib = ctypes.CDLL(str(pathlib.Path(os.environ["KILN_BUILD"]) / "libkiln.so"))

AUTO, MAX, PERCENTILE, ENTROPY, MSE = range(5)
KILN, TENSORRT, ONNXRUNTIME = range(3)


class Tensor(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_int32),
        ("dims", ctypes.c_int64 * 32),
        ("data", ctypes.c_void_p),
        ("cap_bytes", ctypes.c_size_t),
    ]


class CalibrateOptions(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("calibrator", ctypes.c_int),
        ("percentiles", ctypes.POINTER(ctypes.c_double)),
        ("n_percentiles", ctypes.c_size_t),
        ("symmetric", ctypes.c_bool),
        ("bits", ctypes.c_int32),
    ]


class Range(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("lo", ctypes.c_double),
        ("hi", ctypes.c_double),
        ("calibrator", ctypes.c_int),
        ("percentile", ctypes.c_double),
        ("sqnr_db", ctypes.c_double),
    ]


class QuantizeOptions(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("style", ctypes.c_int),
        ("precision", ctypes.c_char_p),
        ("keep_first", ctypes.c_int32),
        ("keep_last", ctypes.c_int32),
        ("layers", ctypes.c_void_p),
        ("n_layers", ctypes.c_size_t),
        ("keep", ctypes.c_void_p),
        ("n_keep", ctypes.c_size_t),
        ("calibrate", ctypes.POINTER(CalibrateOptions)),
        ("off", ctypes.c_void_p),
        ("others", ctypes.c_int),
        ("dynamic", ctypes.c_bool),
    ]


class CalibrateRun(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("data", ctypes.c_char_p),
        ("preprocess", ctypes.c_char_p),
        ("input", ctypes.c_char_p),
        ("count", ctypes.c_int64),
        ("batch", ctypes.c_int64),
        ("shuffle", ctypes.c_bool),
        ("seed", ctypes.c_uint64),
        ("next", ctypes.c_void_p),
        ("user", ctypes.c_void_p),
        ("progress", ctypes.c_void_p),
    ]


class Finding(ctypes.Structure):
    _fields_ = [("severity", ctypes.c_int), ("status", ctypes.c_int)]


class NodePrecision(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("op", ctypes.c_char_p),
        ("layer", ctypes.c_bool),
        ("int8", ctypes.c_bool),
        ("asked", ctypes.c_bool),
        ("reason", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
    ]


lib.kiln_diag_get.restype = ctypes.POINTER(Finding)
lib.kiln_diag_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
lib.kiln_diag_count.restype = ctypes.c_size_t
lib.kiln_model_precision.restype = ctypes.c_bool
lib.kiln_model_precision.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
lib.kiln_model_export.argtypes = [
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
]


class Session:
    """A diag, and calls whose failures become exceptions that quote it."""

    def __init__(self):
        self.diag = ctypes.c_void_p()
        assert lib.kiln_diag_create(ctypes.byref(self.diag), None) == 0

    def call(self, name, *args):
        if getattr(lib, name)(*args, self.diag):
            text = ctypes.create_string_buffer(2000)
            lines = []
            for i in range(lib.kiln_diag_count(self.diag)):
                lib.kiln_finding_format(lib.kiln_diag_get(self.diag, i), text, 2000)
                lines.append(text.value.decode())
            raise RuntimeError(f"{name}: " + "\n".join(lines))

    def make(self, name, *args):
        out = ctypes.c_void_p()
        self.call(name, ctypes.byref(out), *args)
        return out


def quantize(model, target, style, data, preprocess, count, calibrator=AUTO, precision=None):
    """Calibrates and quantizes a model file; returns what became of each node."""
    s = Session()
    m = s.make("kiln_model_load", None, str(model).encode(), None)
    engine = s.make("kiln_engine_build", m, None)
    context = s.make("kiln_context_create", engine, None)
    calibration = ctypes.c_void_p()
    assert lib.kiln_calibration_create(ctypes.byref(calibration), None) == 0
    how = CalibrateOptions(ctypes.sizeof(CalibrateOptions), calibrator)
    options = QuantizeOptions(
        ctypes.sizeof(QuantizeOptions),
        style,
        precision.encode() if precision else None,
        calibrate=ctypes.pointer(how),
    )
    run = CalibrateRun(
        ctypes.sizeof(CalibrateRun), str(data).encode(), preprocess.encode(), count=count
    )
    s.call(
        "kiln_calibrate",
        calibration,
        engine,
        context,
        None,
        ctypes.byref(run),
        ctypes.byref(options),
    )
    int8 = s.make("kiln_quantize", m, calibration, None, ctypes.byref(options))
    nodes, node = [], NodePrecision()
    while lib.kiln_model_precision(int8, len(nodes), ctypes.byref(node)):
        nodes.append((node.name.decode(), node.op.decode(), node.layer, node.int8, node.reason))
    # The float model is given back first: the quantized one keeps what it needs of it.
    lib.kiln_context_destroy(context)
    lib.kiln_engine_destroy(engine)
    lib.kiln_model_destroy(m)
    s.call("kiln_model_export", int8, str(target).encode(), 0)
    lib.kiln_model_destroy(int8)
    lib.kiln_calibration_destroy(calibration)
    lib.kiln_diag_destroy(s.diag)
    return nodes
