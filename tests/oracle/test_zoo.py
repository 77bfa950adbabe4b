"""The zoo networks agree with ONNX Runtime at batch 1."""

# ctest-labels: zoo
# ctest-timeout: 1800
import sys

import zoo

sys.exit(zoo.main(["compare", "--samples", "a", "b"]))
