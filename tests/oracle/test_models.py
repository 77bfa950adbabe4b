"""Every trained network of the shared material reproduces its saved outputs."""

# ctest-timeout: 900
import sys

import models

sys.exit(models.main([]))
