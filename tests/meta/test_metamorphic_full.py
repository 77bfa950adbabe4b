"""What must not change the outputs of any network of the shared models, does not."""

# ctest-labels: full
# ctest-timeout: 7200
import sys

import metamorphic

sys.exit(metamorphic.main(["--all"]))
