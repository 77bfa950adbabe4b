"""The oracles themselves, without Kiln: ONNX Runtime passes them, what is spoiled fails them."""

# ctest-labels: once
# ctest-timeout: 600
import sys

import common
import models
import random_graphs

ORT = ["--engine", "ort"]


def main() -> int:
    status = random_graphs.main([*ORT, "--count", "400", "--plant", "all"])
    # Seed 5: the first 200 graphs meet none of ONNX Runtime's own optimizer bugs.
    status |= random_graphs.main([*ORT, "--count", "200", "--seed", "5", "--quiet"])
    if not common.shared_dir().is_dir():
        return status
    return status | models.main(ORT) | models.main([*ORT, "--flip"])


sys.exit(main())
