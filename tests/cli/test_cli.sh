#!/usr/bin/env bash
# The command, case by case: cases.txt says what to run and what must come of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec python3 tests/cli/run_cases.py "$@"
