#!/usr/bin/env bash
# Set up, then run the tests against the installed package, not the source tree. Usage: scripts/test.sh [pytest arguments]
source "$(dirname "$0")/setup.sh" test
# Nothing of this folder comes before what is installed: neither for pytest nor for the processes that tests start.
export PYTHONSAFEPATH=1
# One worker for each core, with one thread each; those that are done take tests from the others.
export OMP_NUM_THREADS=1
.venv/bin/pytest --import-mode=append --numprocesses=auto --dist=worksteal "$@"
