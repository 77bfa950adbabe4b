"""2,000 random graphs, every operator at least 20 times."""

# ctest-labels: full
# ctest-timeout: 14400
import sys

import random_graphs

sys.exit(random_graphs.main(["--count", "2000", "--seed", "5", "--min-each", "20"]))
