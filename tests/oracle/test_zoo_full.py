"""The zoo networks agree with ONNX Runtime at batch 1 and, where it is free, 3."""

# ctest-labels: full zoo
# ctest-timeout: 7200
import sys

import zoo

sys.exit(zoo.main(["compare"]))
