"""What must not change the outputs of the repository's own network, does not."""

# ctest-timeout: 600
import sys

import metamorphic

sys.exit(metamorphic.main(["--small"]))
