"""Small networks and the command, for the Python tests of this folder."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
KILN = os.environ.get("KILN_BIN", str(ROOT / "build" / "release" / "kiln"))


def value(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def save(path, nodes, inputs, outputs, constants=(), opset=17, ir=8, **more):
    """An ONNX file; not checked, since some of them are wrong on purpose."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants), **more)
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir), path)
    return str(path)


def kiln(*words, **env):
    return subprocess.run(
        [KILN, *map(str, words)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        stdin=subprocess.DEVNULL,
        env=os.environ | env,
    )


def expect(done, status, *parts):
    """Exit status, and parts of stdout or stderr."""
    text = done.stdout + done.stderr
    missing = [p for p in parts if p not in text]
    if done.returncode != status or missing:
        raise AssertionError(f"{done.args}: exit {done.returncode}, lacks {missing}\n{text}")
    return done


def main(tests):
    """Runs functions of a scratch folder; the exit status for the process."""
    failed = 0
    for test in tests:
        with tempfile.TemporaryDirectory(dir=os.environ.get("KILN_TMP")) as folder:
            try:
                test(Path(folder))
                print(f"ok   {test.__name__}")
            except Exception as error:
                failed += 1
                print(f"FAIL {test.__name__}: {error}")
    print(f"{len(tests) - failed} of {len(tests)} passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit("a module of the tests")
