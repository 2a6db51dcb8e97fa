#!/usr/bin/env bash
# Set up, then run the tests. Usage: scripts/test.sh [pytest arguments]
source "$(dirname "$0")/setup.sh" test
.venv/bin/python -m pytest "$@"
