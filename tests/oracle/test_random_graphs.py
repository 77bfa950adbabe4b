"""200 random graphs agree with ONNX Runtime, and planted bugs are noticed."""

# ctest-timeout: 900
import sys

import random_graphs

sys.exit(
    random_graphs.main(["--count", "200", "--quiet"])
    or random_graphs.main(["--plant", "all", "--count", "400"])
)
